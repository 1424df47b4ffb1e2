//! What a node contributes by itself: its injection readings and its voltage readings.
//!
//! For each phase, with voltage `u`, multiplier `n` and the merged reading `s` of the injected power with variances `r`:
//! the estimated injection is `s - e`, the correction is `e = r ∘ m` with `m = conj(n / u)` (Lagrange), and the two equations are
//!
//! ```text
//! F1 = -m · conj((s - e) / u) + (voltage readings)   stationarity in u, without the grid's part
//! F2 = conj((s - e) / u)                             current into the grid, without the grid's part
//! ```

use super::block::{Block, zero};
use super::readings::{Injection, Voltage};
use super::single::phase_turn;
use crate::model::{C64, to_phases, to_sequences};

/// How the angles of an island without angle readings are tied down: phase a at zero at the root ...
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AngleReference<const N: usize> {
    pub(super) position: usize,
    /// Symmetric weights over how far the phases' angles are from 0, -120 and 120 degrees.
    pub(super) weights: [[f64; N]; N],
    /// Whether it says how far the phases are apart, or else where phase a is.
    pub(super) is_balance: bool,
    /// How many readings it counts as.
    pub(super) n_readings: isize,
    /// The angles that are expected, rad; only their differences matter to a balance.
    pub(super) expected: [f64; N],
}

impl<const N: usize> AngleReference<N> {
    /// Phase a has angle zero.
    pub(super) fn pin(position: usize) -> Self {
        let mut weights = [[0.0; N]; N];
        weights[0][0] = PIN;
        Self {
            position,
            weights,
            is_balance: false,
            n_readings: 1,
            expected: std::array::from_fn(|k| -phase_turn(k)),
        }
    }

    /// The same with the opposite sign: what takes a balance out of a message again.
    pub(super) fn taken_back(&self, position: usize) -> Self {
        Self {
            position,
            weights: self.weights.map(|row| row.map(|weight| -weight)),
            n_readings: -self.n_readings,
            ..*self
        }
    }

    /// ... and the phases 120 degrees apart, as well as a weight each says, at a node whose voltage is read.
    pub(super) fn balance(position: usize, weight: [f64; N]) -> Self {
        let total: f64 = weight.iter().sum();
        let mut weights = [[0.0; N]; N];
        for (i, row) in weights.iter_mut().enumerate() {
            for (j, entry) in row.iter_mut().enumerate() {
                // the common angle is free: least squares over it leaves this
                *entry = if i == j { weight[i] } else { 0.0 } - weight[i] * weight[j] / total;
            }
        }
        Self {
            position,
            weights,
            is_balance: true,
            n_readings: if total > 0.0 { N as isize - 1 } else { 1 - N as isize },
            expected: std::array::from_fn(|k| -phase_turn(k)),
        }
    }
}

/// Weight that makes an angle exact, for all that matters.
pub(super) const PIN: f64 = 1e15;

/// Real-valued multiplication of the parts.
#[inline(always)]
fn scale(r: C64, x: C64) -> C64 {
    C64::new(r.re * x.re, r.im * x.im)
}

/// `F1` and `F2` of the injection, symmetrical components.
#[inline(always)]
pub(super) fn injection<const N: usize>(reading: &Injection<N>, v: &[C64; N], nu: &[C64; N]) -> ([C64; N], [C64; N]) {
    let (u, n) = (to_phases(v), to_phases(nu));
    let (mut f1, mut f2) = ([C64::ZERO; N], [C64::ZERO; N]);
    for k in 0..N {
        let inverse = u[k].conj() * u[k].norm_sqr().recip();
        let m = (n[k] * inverse).conj();
        let current = ((reading.power[k] - scale(reading.variance[k], m)) * inverse).conj();
        f2[k] = current;
        f1[k] = -m * current;
    }
    (to_sequences(&f1), to_sequences(&f2))
}

/// Estimated injection by phase.
pub(super) fn estimated_injection<const N: usize>(reading: &Injection<N>, v: &[C64; N], nu: &[C64; N]) -> [C64; N] {
    let (u, n) = (to_phases(v), to_phases(nu));
    std::array::from_fn(|k| reading.power[k] - scale(reading.variance[k], (n[k] / u[k]).conj()))
}

/// Derivative of the injection's `(F1, F2)`. With `gauss_newton` the multipliers count as zero, which makes it the matrix of
/// Gauss-Newton (and its inverse the covariance); without, it is exact.
#[inline(always)]
pub(super) fn injection_derivative<const N: usize, const B: usize>(
    reading: &Injection<N>,
    v: &[C64; N],
    nu: &[C64; N],
    gauss_newton: bool,
) -> Block<B> {
    let (u, n) = (to_phases(v), to_phases(nu));
    let mut inverse = [C64::ZERO; N];
    let mut m = [C64::ZERO; N];
    let mut power = [C64::ZERO; N];
    for k in 0..N {
        inverse[k] = u[k].inv();
        m[k] = (n[k] * inverse[k]).conj();
        power[k] = reading.power[k] - scale(reading.variance[k], m[k]);
    }
    let mut block = zero();
    if gauss_newton {
        // without multipliers it is symmetric, and nothing but F2 is left to differentiate
        for column in 0..2 * N {
            let unit = to_phases::<N>(&unit(column));
            let by_voltage = std::array::from_fn(|k| -(power[k] * inverse[k] * inverse[k] * unit[k]).conj());
            let by_multiplier = std::array::from_fn(|k| -(scale(reading.variance[k], (unit[k] * inverse[k]).conj()) * inverse[k]).conj());
            let (by_voltage, by_multiplier): ([C64; N], [C64; N]) = (to_sequences(&by_voltage), to_sequences(&by_multiplier));
            for k in 0..N {
                let nu = 2 * (N + k);
                (block[column][nu], block[column][nu + 1]) = (by_voltage[k].re, by_voltage[k].im);
                (block[nu][column], block[nu + 1][column]) = (by_voltage[k].re, by_voltage[k].im);
                (block[2 * N + column][nu], block[2 * N + column][nu + 1]) = (by_multiplier[k].re, by_multiplier[k].im);
            }
        }
        return block;
    }
    for (column, entries) in block.iter_mut().enumerate() {
        let unit = to_phases::<N>(&unit(column % (2 * N)));
        let is_voltage = column < 2 * N;
        let (mut f1, mut f2) = ([C64::ZERO; N], [C64::ZERO; N]);
        for k in 0..N {
            let relative = unit[k] * inverse[k];
            // of m, of the estimated power, of F2 and of F1
            let dm = match is_voltage {
                true => -(relative.conj() * m[k]),
                false => relative.conj(),
            };
            let d_power = -scale(reading.variance[k], dm);
            let mut d_current = d_power * inverse[k];
            if is_voltage {
                d_current -= power[k] * inverse[k] * relative;
            }
            f2[k] = d_current.conj();
            let current = (power[k] * inverse[k]).conj();
            f1[k] = -(dm * current) - m[k] * d_current.conj();
        }
        let (f1, f2) = (to_sequences(&f1), to_sequences(&f2));
        for k in 0..N {
            (entries[2 * k], entries[2 * k + 1]) = (f1[k].re, f1[k].im);
            (entries[2 * (N + k)], entries[2 * (N + k) + 1]) = (f2[k].re, f2[k].im);
        }
    }
    block
}

/// One in a column of the voltages, nothing elsewhere.
#[inline(always)]
fn unit<const N: usize>(column: usize) -> [C64; N] {
    let mut unit = [C64::ZERO; N];
    unit[column / 2] = if column.is_multiple_of(2) { C64::ONE } else { C64::I };
    unit
}

/// Gradient of the voltage readings' sum of squares, symmetrical components.
pub(super) fn voltage_gradient<const N: usize>(reading: &Voltage<N>, v: &[C64; N]) -> [C64; N] {
    let u = to_phases(v);
    to_sequences(&std::array::from_fn(|k| {
        let size = u[k].norm();
        let along = u[k] / size;
        let mut gradient = along * (reading.magnitude_weight[k] * (size - reading.magnitude[k]));
        if reading.angle_weight[k] > 0.0 {
            let residual = turn(u[k], reading.angle[k]);
            gradient += along * C64::I * (reading.angle_weight[k] * residual / size);
        }
        gradient
    }))
}

/// How far `u` has turned beyond `angle`, rad, within half a turn.
pub(super) fn turn(u: C64, angle: f64) -> f64 {
    (u * C64::from_polar(1.0, -angle)).arg()
}

/// Adds the second derivative of the voltage readings' sum of squares (halved) to a block over phases.
fn add_voltage_curvature<const N: usize>(reading: &Voltage<N>, u: &[C64; N], gauss_newton: bool, hessian: &mut [[[f64; 2]; 2]; N]) {
    for k in 0..N {
        let size = u[k].norm();
        let along = [u[k].re / size, u[k].im / size];
        let across = [-along[1], along[0]];
        let weight = reading.magnitude_weight[k];
        let bend = match gauss_newton {
            true => 0.0,
            false => weight * (size - reading.magnitude[k]) / size,
        };
        let turning = bend + reading.angle_weight[k] / (size * size);
        for i in 0..2 {
            for j in 0..2 {
                hessian[k][i][j] += weight * along[i] * along[j] + turning * across[i] * across[j];
            }
        }
    }
}

/// Adds a voltage reading's curvature to the voltage part of a node's block.
pub(super) fn add_voltage_derivative<const N: usize, const B: usize>(
    reading: &Voltage<N>,
    v: &[C64; N],
    gauss_newton: bool,
    block: &mut Block<B>,
) {
    let u = to_phases(v);
    let mut hessian = [[[0.0; 2]; 2]; N];
    add_voltage_curvature(reading, &u, gauss_newton, &mut hessian);
    add_phase_map(block, |du: &[C64; N]| {
        std::array::from_fn(|k| {
            let h = &hessian[k];
            C64::new(h[0][0] * du[k].re + h[0][1] * du[k].im, h[1][0] * du[k].re + h[1][1] * du[k].im)
        })
    });
}

/// Adds a real-linear map of phase voltages to gradients to the voltage part of a block.
fn add_phase_map<const N: usize, const B: usize>(block: &mut Block<B>, map: impl Fn(&[C64; N]) -> [C64; N]) {
    for column in 0..2 * N {
        let mut unit = [C64::ZERO; N];
        unit[column / 2] = if column % 2 == 0 { C64::ONE } else { C64::I };
        let gradient = to_sequences(&map(&to_phases(&unit)));
        for k in 0..N {
            block[column][2 * k] += gradient[k].re;
            block[column][2 * k + 1] += gradient[k].im;
        }
    }
}

/// Gradient of what ties the angles down.
pub(super) fn reference_gradient<const N: usize>(reference: &AngleReference<N>, v: &[C64; N]) -> [C64; N] {
    let u = to_phases(v);
    let weights = &reference.weights;
    let turns: [f64; N] = std::array::from_fn(|k| turn(u[k], reference.expected[k]));
    to_sequences(&std::array::from_fn(|k| {
        let pull: f64 = (0..N).map(|j| weights[k][j] * turns[j]).sum();
        u[k] * C64::I * (pull / u[k].norm_sqr())
    }))
}

/// Adds the curvature of what ties the angles down.
pub(super) fn add_reference_derivative<const N: usize, const B: usize>(reference: &AngleReference<N>, v: &[C64; N], block: &mut Block<B>) {
    let u = to_phases(v);
    let weights = &reference.weights;
    add_phase_map(block, |du: &[C64; N]| {
        let turned: [f64; N] = std::array::from_fn(|k| (u[k].conj() * du[k]).im / u[k].norm_sqr());
        std::array::from_fn(|k| {
            let pull: f64 = (0..N).map(|j| weights[k][j] * turned[j]).sum();
            u[k] * C64::I * (pull / u[k].norm_sqr())
        })
    });
}

/// The weighted sum of squares of what ties the angles down.
pub(super) fn reference_sum<const N: usize>(reference: &AngleReference<N>, v: &[C64; N]) -> f64 {
    let u = to_phases(v);
    let turns: [f64; N] = std::array::from_fn(|k| turn(u[k], reference.expected[k]));
    let row = |i: usize| (0..N).map(|j| reference.weights[i][j] * turns[j]).sum::<f64>();
    (0..N).map(|i| turns[i] * row(i)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_multipliers_the_derivative_of_gauss_newton_is_exact() {
        let v = [C64::new(0.02, -0.01), C64::new(1.7, 0.1), C64::new(-0.03, 0.02)];
        let reading = Injection {
            power: [C64::new(-0.3, 0.1), C64::new(-0.2, -0.05), C64::new(0.4, 0.2)],
            variance: [C64::new(0.01, 0.02), C64::new(0.0, 0.03), C64::new(0.005, 0.0)],
            is_unknown: false,
        };
        let of = |gauss_newton| injection_derivative::<3, 12>(&reading, &v, &[C64::ZERO; 3], gauss_newton);
        let (gauss_newton, exact) = (of(true), of(false));
        for column in 0..12 {
            for row in 0..12 {
                assert!((gauss_newton[column][row] - exact[column][row]).abs() < 1e-15, "{row} {column}");
            }
        }
    }

    /// The exact derivatives against differences.
    #[test]
    fn derivatives_are_those_of_the_equations() {
        let v = [C64::new(0.02, -0.01), C64::new(1.7, 0.1), C64::new(-0.03, 0.02)];
        let nu = [C64::new(2.0, -1.0), C64::new(0.5, 3.0), C64::new(-1.0, 0.3)];
        let reading = Injection {
            power: [C64::new(-0.3, 0.1), C64::new(-0.2, -0.05), C64::new(0.4, 0.2)],
            variance: [C64::new(0.01, 0.02), C64::new(0.0, 0.03), C64::new(0.005, 0.0)],
            is_unknown: false,
        };
        let voltage = Voltage {
            position: 0,
            magnitude: [1.01, 0.99, 1.0],
            magnitude_weight: [100.0, 50.0, 0.0],
            angle: [0.0, to_phases(&v)[1].arg(), 0.0], // where the residual is zero, the curvature that is left out is, too
            angle_weight: [0.0, 20.0, 0.0],
        };
        let f = |x: &[f64; 12]| {
            let v: [C64; 3] = super::super::block::voltages(x);
            let n: [C64; 3] = super::super::block::multipliers(x);
            let (f1, f2) = injection(&reading, &v, &n);
            let gradient = voltage_gradient(&voltage, &v);
            let mut y = [0.0; 12];
            for k in 0..3 {
                (y[2 * k], y[2 * k + 1]) = (f1[k].re + gradient[k].re, f1[k].im + gradient[k].im);
                (y[6 + 2 * k], y[7 + 2 * k]) = (f2[k].re, f2[k].im);
            }
            y
        };
        let mut block = injection_derivative::<3, 12>(&reading, &v, &nu, false);
        add_voltage_derivative(&voltage, &v, false, &mut block);
        let x: [f64; 12] = std::array::from_fn(|i| {
            let c = if i < 6 { v[i / 2] } else { nu[i / 2 - 3] };
            if i % 2 == 0 { c.re } else { c.im }
        });
        for column in 0..12 {
            let (mut low, mut high) = (x, x);
            low[column] -= 1e-6;
            high[column] += 1e-6;
            let (low, high) = (f(&low), f(&high));
            for row in 0..12 {
                let difference = (high[row] - low[row]) / 2e-6;
                let error = (block[column][row] - difference).abs();
                assert!(error < 1e-6 * (1.0 + difference.abs()), "{row} {column}: {error}");
                assert!((block[column][row] - block[row][column]).abs() < 1e-9, "symmetric");
            }
        }
    }
}
