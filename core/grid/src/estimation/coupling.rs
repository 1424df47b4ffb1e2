//! What two neighbours contribute to each other's equations: for a pair kept as admittances `N` complex numbers each way, which are never
//! written out as a block where a turned and exchanged column does.

use super::block::{Block, Column, add_multiplier, add_voltage, multipliers, multiply, multiply_transposed, voltages, zero};
use super::gain::{Row, Slot};
use super::local::injection;
use crate::elimination::NONE;
use crate::model::C64;

/// The node's own equations, with the sign of a right-hand side.
#[inline(always)]
pub(super) fn subtract_own<const N: usize, const B: usize>(row: &Row<N>, v: &[C64; N], nu: &[C64; N], rest: &mut Column<B>) {
    let (f1, f2) = injection(&row.injection, v, nu);
    for k in 0..N {
        add_voltage::<N, B>(rest, k, row.own[k].conj() * nu[k] - f1[k]);
        add_multiplier::<N, B>(rest, k, row.own[k] * v[k] - f2[k]);
    }
}

/// What the later neighbour contributes to the equations of the earlier one.
#[inline(always)]
pub(super) fn subtract_neighbour<const N: usize, const B: usize>(slot: &Slot<N>, there: &Column<B>, rest: &mut Column<B>) {
    let (v, nu): ([C64; N], [C64; N]) = (voltages(there), multipliers(there));
    for k in 0..N {
        add_voltage::<N, B>(rest, k, slot.lower[k].conj() * nu[k]);
        add_multiplier::<N, B>(rest, k, slot.upper[k] * v[k]);
    }
}

/// What the earlier neighbour contributes to the equations of the later one.
#[inline(always)]
pub(super) fn subtract_earlier<const N: usize, const B: usize>(slot: &Slot<N>, v: &[C64; N], nu: &[C64; N], there: &mut Column<B>) {
    for k in 0..N {
        add_voltage::<N, B>(there, k, slot.upper[k].conj() * nu[k]);
        add_multiplier::<N, B>(there, k, slot.lower[k] * v[k]);
    }
}

/// What the elimination of the earlier neighbour leaves to the later one.
#[inline(always)]
pub(super) fn pass_on<const N: usize, const B: usize>(slot: &Slot<N>, dense: &[Block<B>], half: &Column<B>, there: &mut Column<B>) {
    if slot.dense == NONE {
        return subtract_earlier(slot, &voltages(half), &multipliers(half), there);
    }
    let eliminated = multiply_transposed(&dense[slot.dense as usize], half);
    for row in 0..B {
        there[row] -= eliminated[row];
    }
}

/// What a step of the later neighbour asks of the earlier one.
#[inline(always)]
pub(super) fn pull<const N: usize, const B: usize>(slot: &Slot<N>, dense: &[Block<B>], there: &Column<B>) -> Column<B> {
    let mut pulled = [0.0; B];
    if slot.dense == NONE {
        subtract_neighbour(slot, there, &mut pulled);
    } else {
        let product = multiply(&dense[slot.dense as usize], there);
        for row in 0..B {
            pulled[row] = -product[row];
        }
    }
    pulled
}

/// The block of a slot that is kept as admittances: row the earlier, column the later node.
#[inline(always)]
pub(super) fn coupling<const N: usize, const B: usize>(slot: &Slot<N>) -> Block<B> {
    let mut block = zero();
    for k in 0..N {
        let (v, nu, upper, lower) = (2 * k, 2 * (N + k), slot.upper[k], slot.lower[k]);
        // rows of the injection: -upper; rows of the voltage: -lower'
        (block[v][nu], block[v][nu + 1]) = (-upper.re, -upper.im);
        (block[v + 1][nu], block[v + 1][nu + 1]) = (upper.im, -upper.re);
        (block[nu][v], block[nu][v + 1]) = (-lower.re, lower.im);
        (block[nu + 1][v], block[nu + 1][v + 1]) = (-lower.im, -lower.re);
    }
    block
}

/// `D⁻¹ K` for a slot kept as admittances: columns of the inverse pivot, turned and exchanged.
#[inline(always)]
pub(super) fn times_coupling<const N: usize, const B: usize>(inverse: &Block<B>, slot: &Slot<N>) -> Block<B> {
    let mut half: Block<B> = zero();
    for k in 0..N {
        let (v, nu, upper, lower) = (2 * k, 2 * (N + k), slot.upper[k], slot.lower[k]);
        for row in 0..B {
            half[v][row] = -(upper.re * inverse[nu][row] + upper.im * inverse[nu + 1][row]);
            half[v + 1][row] = upper.im * inverse[nu][row] - upper.re * inverse[nu + 1][row];
            half[nu][row] = lower.im * inverse[v + 1][row] - lower.re * inverse[v][row];
            half[nu + 1][row] = -(lower.im * inverse[v][row] + lower.re * inverse[v + 1][row]);
        }
    }
    half
}

/// `K' D⁻¹ K` for a slot kept as admittances: rows and columns of the inverse pivot, turned and exchanged.
#[inline(always)]
pub(super) fn structured_update<const N: usize, const B: usize>(inverse: &Block<B>, slot: &Slot<N>) -> Block<B> {
    let half = times_coupling(inverse, slot);
    let mut update: Block<B> = zero();
    for column in 0..B {
        let there = &half[column];
        for k in 0..N {
            let (v, nu, upper, lower) = (2 * k, 2 * (N + k), slot.upper[k], slot.lower[k]);
            update[column][v] = -(upper.re * there[nu] + upper.im * there[nu + 1]);
            update[column][v + 1] = upper.im * there[nu] - upper.re * there[nu + 1];
            update[column][nu] = lower.im * there[v + 1] - lower.re * there[v];
            update[column][nu + 1] = -(lower.im * there[v] + lower.re * there[v + 1]);
        }
    }
    update
}

#[cfg(test)]
mod tests {
    use super::super::block::{product, product_transposed};
    use super::*;

    #[test]
    fn the_short_form_of_an_update_is_the_long_one() {
        let slot = Slot::<3> {
            later: 1,
            dense: NONE,
            upper: [C64::new(1.0, -2.0), C64::new(0.5, 3.0), C64::new(-0.2, 0.1)],
            lower: [C64::new(2.0, 0.3), C64::new(-1.5, 1.0), C64::new(0.7, -0.9)],
        };
        let mut inverse = zero::<12>();
        for i in 0..12 {
            for j in 0..12 {
                inverse[i][j] = ((i * j) as f64).sin() + ((i + j) as f64).cos();
            }
        }
        let block = coupling(&slot);
        let long = product_transposed(&block, &product(&inverse, &block));
        let short = structured_update(&inverse, &slot);
        let x: Column<12> = std::array::from_fn(|i| (i as f64).sqrt() - 1.0);
        let (pulled, product) = (pull(&slot, &[], &x), multiply(&block, &x));
        for i in 0..12 {
            assert!((pulled[i] + product[i]).abs() < 1e-12);
            for j in 0..12 {
                assert!((long[i][j] - short[i][j]).abs() < 1e-12, "{i} {j}");
            }
        }
    }
}
