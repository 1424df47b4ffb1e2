//! Steps in polar form, and factors that turn with the phases.
//!
//! Where only magnitudes are read, the angles between the phases are weakly determined: a single reading turns phases against each
//! other by much more than it changes anything else, all over the grid. In the real and imaginary part of a voltage a turn is of second
//! order, so a first-order step would be wrong by its square. As a turn it is exact: what a node's injection and voltage readings ask
//! of it turns with its phases, and of the grid's equations only the coupling between phases, times the drop along the branches, does
//! not. So a step is kept in the frame of the phases as they stood when the factors were made, and taken as a turn and a stretch.
//!
//! A symmetric estimate has one phase and a fixed angle: there is nothing to turn.

use super::block::{Column, add_multiplier, add_voltage, multipliers, voltages};
use crate::model::{C64, to_phases, to_sequences};

/// How far each phase of a node has turned since the factors were made: numbers of size one.
pub(super) type Turn<const N: usize> = [C64; N];

/// How a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepForm {
    /// In real and imaginary part: what is linear in the voltages, as the grid is, stays right however far the step goes.
    Rectangular,
    /// As a turn and a stretch: for small steps, which turn more than they stretch.
    Polar,
}

/// What the coupling between phases leaves of a turn to second order, relative to its square: the drop along the branches. Its root
/// makes a turn comparable with a stretch, whose square is what first order leaves out of it.
const TURN_COUNTS: f64 = 0.25;

/// A column as seen from the frame of the factors.
#[inline(always)]
pub(super) fn into_frame<const N: usize, const B: usize>(x: &Column<B>, turn: &Turn<N>) -> Column<B> {
    turned(x, &turn.map(|turn| turn.conj()))
}

#[inline(always)]
fn turned<const N: usize, const B: usize>(x: &Column<B>, turn: &Turn<N>) -> Column<B> {
    if N == 1 {
        return *x;
    }
    let (u, n): ([C64; N], [C64; N]) = (to_phases(&voltages(x)), to_phases(&multipliers(x)));
    column::<N, B>(
        &to_sequences(&std::array::from_fn(|k| u[k] * turn[k])),
        &to_sequences(&std::array::from_fn(|k| n[k] * turn[k])),
    )
}

#[inline(always)]
fn column<const N: usize, const B: usize>(v: &[C64; N], nu: &[C64; N]) -> Column<B> {
    let mut x = [0.0; B];
    for k in 0..N {
        add_voltage::<N, B>(&mut x, k, v[k]);
        add_multiplier::<N, B>(&mut x, k, nu[k]);
    }
    x
}

/// Takes a step, given in the frame of the factors, in real and imaginary part.
#[inline(always)]
pub(super) fn add_turned<const N: usize, const B: usize>(x: &mut Column<B>, turn: &Turn<N>, step: &Column<B>) {
    let step = turned(step, turn);
    for row in 0..B {
        x[row] += step[row];
    }
}

/// Takes a small step, in polar form, that is given in the frame of the factors. How far it moves voltages and multipliers, less what is exact: what first
/// order leaves out of it is about the square.
#[inline(always)]
pub(super) fn advance<const N: usize, const B: usize>(x: &mut Column<B>, turn: &mut Turn<N>, step: &Column<B>) -> (f64, f64) {
    if N == 1 {
        for row in 0..B {
            x[row] += step[row];
        }
        return (voltage_size::<N, B>(step), multiplier_size::<N, B>(step));
    }
    let (mut u, mut n): ([C64; N], [C64; N]) = (to_phases(&voltages(x)), to_phases(&multipliers(x)));
    let (du, dn): ([C64; N], [C64; N]) = (to_phases(&voltages(step)), to_phases(&multipliers(step)));
    let (mut square, mut multiplier_square) = (0.0_f64, 0.0_f64);
    for k in 0..N {
        let (du, dn) = (du[k] * turn[k], dn[k] * turn[k]);
        let angle = (u[k].conj() * du).im / u[k].norm_sqr();
        let stretch = du - C64::I * u[k] * angle;
        let by = turn_by(angle);
        u[k] = (u[k] + stretch) * by;
        let change = dn - C64::I * n[k] * angle;
        n[k] = (n[k] + change) * by;
        multiplier_square += change.norm_sqr();
        turn[k] *= by;
        square += stretch.norm_sqr() + (TURN_COUNTS * angle).powi(2);
    }
    *x = column(&to_sequences(&u), &to_sequences(&n));
    (square.sqrt(), multiplier_square.sqrt())
}

/// `exp(i angle)` of a small angle.
#[inline(always)]
fn turn_by(angle: f64) -> C64 {
    let square = angle * angle;
    let cos = 1.0 - square * (1.0 / 2.0 - square * (1.0 / 24.0 - square * (1.0 / 720.0 - square * (1.0 / 40320.0 - square / 3_628_800.0))));
    let sin = angle * (1.0 - square * (1.0 / 6.0 - square * (1.0 / 120.0 - square * (1.0 / 5040.0 - square / 362_880.0))));
    C64::new(cos, sin)
}

/// How far a step moves the voltages, per unit (2-norm); the same in every frame.
#[inline(always)]
pub(super) fn voltage_size<const N: usize, const B: usize>(step: &Column<B>) -> f64 {
    step[..2 * N].iter().map(|part| part * part).sum::<f64>().sqrt()
}

/// How far it moves the multipliers.
#[inline(always)]
fn multiplier_size<const N: usize, const B: usize>(step: &Column<B>) -> f64 {
    step[2 * N..].iter().map(|part| part * part).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_turn_is_that_of_the_library_to_the_last_digits() {
        for step in -100..=100 {
            let angle = f64::from(step) * 1e-3;
            assert!((turn_by(angle) - C64::from_polar(1.0, angle)).norm() < 4e-16, "{angle}");
        }
    }

    #[test]
    fn a_step_that_turns_phases_keeps_their_magnitudes() {
        let u = [C64::from_polar(1.0, 0.1), C64::from_polar(0.98, -2.0), C64::from_polar(1.02, 2.2)];
        let n = [C64::new(0.3, 2.0), C64::new(-1.0, 0.2), C64::new(0.0, 0.7)];
        let mut x: Column<12> = column(&to_sequences(&u), &to_sequences(&n));
        let angles = [0.0, 0.02, -0.03];
        let of = |x: &[C64; 3]| -> [C64; 3] { to_sequences(&std::array::from_fn(|k| x[k] * C64::I * angles[k])) };
        let mut turn = [C64::ONE; 3];
        advance(&mut x, &mut turn, &column(&of(&u), &of(&n)));
        let (moved, ratio): ([C64; 3], [C64; 3]) = (to_phases(&voltages(&x)), to_phases(&multipliers(&x)));
        for k in 0..3 {
            let by = C64::from_polar(1.0, angles[k]);
            assert!((moved[k] - u[k] * by).norm() < 4e-15 && (ratio[k] - n[k] * by).norm() < 4e-15);
            assert!((turn[k] - by).norm() < 4e-15);
        }
        // and one after that, given in the frame of before the first
        advance(&mut x, &mut turn, &column(&of(&u), &of(&n)));
        let moved: [C64; 3] = to_phases(&voltages(&x));
        for k in 0..3 {
            assert!((moved[k] - u[k] * C64::from_polar(1.0, 2.0 * angles[k])).norm() < 4e-15);
        }
    }

    #[test]
    fn a_step_in_real_and_imaginary_part_is_turned_and_added() {
        let mut x: Column<12> = column(&to_sequences(&[C64::ONE; 3]), &[C64::ZERO; 3]);
        let du = [C64::new(0.0, 0.5), C64::new(0.2, -0.3), C64::new(-0.1, 0.9)];
        let turn = [C64::ONE, C64::I, -C64::ONE];
        add_turned(&mut x, &turn, &column(&to_sequences(&du), &[C64::ZERO; 3]));
        let moved: [C64; 3] = to_phases(&voltages(&x));
        for k in 0..3 {
            assert!((moved[k] - (C64::ONE + du[k] * turn[k])).norm() < 4e-15);
        }
    }
}
