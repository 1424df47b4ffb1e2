//! How sure the estimate is: blocks of the inverse of the gain matrix.
//!
//! The voltage part of the inverse of the augmented matrix is the covariance of the estimate, its multiplier part (negative) that of
//! the injections' residuals, each weighed by its variance. On the pattern of the grid all of it follows from one sweep from the root
//! to the leaves (Takahashi's recursion).
//!
//! # Source
//! K. Takahashi, J. Fagan, M.-S. Chin, "Formation of a sparse bus impedance matrix and its application to short circuit study", PICA 1973.

use std::collections::BTreeMap;

use super::block::{Block, Column, multiply, multiply_transposed, product, subtract, transpose, zero};
use super::coupling::{pass_on, pull, times_coupling};
use super::gain::Gain;
use crate::elimination::NONE;
use crate::model::C64;

/// Blocks of the inverse on the pattern of the grid.
#[derive(Debug, Clone)]
pub(super) struct Covariance<const B: usize> {
    /// By position.
    pub(super) diagonal: Vec<Block<B>>,
    /// By slot: row the earlier, column the later node.
    pub(super) slots: Vec<Block<B>>,
}

/// A linear function of the unknowns at some positions.
pub(super) type Functional<const B: usize> = Vec<(usize, Column<B>)>;

impl<const B: usize> Covariance<B> {
    /// Selected inversion of a factorized gain matrix.
    pub(super) fn new<const N: usize>(gain: &Gain<N, B>) -> Self {
        let n = gain.order.len();
        let mut covariance = Self {
            diagonal: vec![zero(); n],
            slots: vec![zero(); gain.order.later.len()],
        };
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for i in (0..n).rev() {
                    covariance.descend(gain, i);
                }
            },
        );
        covariance
    }

    #[inline(always)]
    fn descend<const N: usize>(&mut self, gain: &Gain<N, B>, i: usize) {
        let n_slots = gain.n_slots(i);
        let first_slot = gain.order.slots(i).start;
        let mut own = gain.inverse[i];
        if n_slots == 1 {
            let slot = gain.slot(i, 0);
            let scaled = match slot.dense {
                NONE => times_coupling(&gain.inverse[i], slot),
                index => product(&gain.inverse[i], &gain.dense[index as usize]),
            };
            let mut across = product(&scaled, &self.diagonal[slot.later as usize]);
            negate(&mut across);
            subtract(&mut own, &product(&across, &transpose(&scaled)));
            self.slots[first_slot] = across;
            self.diagonal[i] = own;
            return;
        }
        let scaled: Vec<Block<B>> = (0..n_slots)
            .map(|nth| product(&gain.inverse[i], &gain.full_block(gain.slot(i, nth))))
            .collect();
        for a in 0..n_slots {
            let mut across = zero();
            for (b, scaled_b) in scaled.iter().enumerate() {
                let block = match a.cmp(&b) {
                    std::cmp::Ordering::Equal => self.diagonal[gain.slot(i, a).later as usize],
                    std::cmp::Ordering::Less => transpose(&self.slots[gain.order.pair_slot(i, n_slots, a, b)]),
                    std::cmp::Ordering::Greater => self.slots[gain.order.pair_slot(i, n_slots, b, a)],
                };
                subtract(&mut across, &product(scaled_b, &block));
            }
            subtract(&mut own, &product(&across, &transpose(&scaled[a])));
            self.slots[first_slot + a] = across;
        }
        self.diagonal[i] = own;
    }

    /// Variance of a linear function of one position's unknowns.
    pub(super) fn variance(&self, position: usize, g: &Column<B>) -> f64 {
        let block = &self.diagonal[position];
        // most are of the voltages or of the multipliers alone
        let columns = g.iter().zip(block).filter(|(g, _)| **g != 0.0);
        columns.map(|(g_column, column)| g_column * dot(column, g)).sum()
    }

    /// Variance of a linear function of the unknowns at both ends of a slot.
    pub(super) fn variance_across(&self, slot: usize, earlier: (usize, &Column<B>), later: (usize, &Column<B>)) -> f64 {
        let both = dot(earlier.1, &multiply(&self.slots[slot], later.1));
        self.variance(earlier.0, earlier.1) + self.variance(later.0, later.1) + 2.0 * both
    }
}

fn negate<const B: usize>(block: &mut Block<B>) {
    for column in block {
        for entry in column {
            *entry = -*entry;
        }
    }
}

pub(super) fn dot<const B: usize>(a: &Column<B>, b: &Column<B>) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl<const N: usize, const B: usize> Gain<N, B> {
    /// Solves with the factorized matrix for any right-hand side.
    pub(super) fn solve(&self, right: &Functional<B>) -> Vec<Column<B>> {
        let n = self.order.len();
        let mut x = vec![[0.0; B]; n];
        for (position, part) in right {
            for row in 0..B {
                x[*position][row] += part[row];
            }
        }
        for i in 0..n {
            let half = multiply(&self.inverse[i], &x[i]);
            for nth in 0..self.n_slots(i) {
                let slot = self.slot(i, nth);
                let there = &mut x[slot.later as usize];
                let eliminated = match slot.dense {
                    NONE => multiply_transposed(&super::coupling::coupling(slot), &half),
                    index => multiply_transposed(&self.dense[index as usize], &half),
                };
                for row in 0..B {
                    there[row] -= eliminated[row];
                }
            }
            x[i] = half;
        }
        for i in (0..n).rev() {
            for nth in 0..self.n_slots(i) {
                let slot = self.slot(i, nth);
                let pulled = pull::<N, B>(slot, &self.dense, &x[slot.later as usize]);
                let change = multiply(&self.inverse[i], &pulled);
                for row in 0..B {
                    x[i][row] += change[row];
                }
            }
        }
        x
    }

    /// Full covariance of some linear functions of the unknowns, wherever they are. The matrix is `L D L'`, so each takes half a solution,
    /// from where it is to the root: `g' A⁻¹ h = Σ (L⁻¹ g)' D⁻¹ (L⁻¹ h)`.
    pub(super) fn covariance_of(&self, functionals: &[Functional<B>]) -> Vec<Vec<f64>> {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let halves: Vec<Vec<Half<B>>> = functionals.iter().map(|functional| self.towards_root_from(functional)).collect();
                let mut covariance = vec![vec![0.0; halves.len()]; halves.len()];
                for (row, a) in halves.iter().enumerate() {
                    for (column, b) in halves[..=row].iter().enumerate() {
                        let entry = common(a, b);
                        (covariance[row][column], covariance[column][row]) = (entry, entry);
                    }
                }
                covariance
            },
        )
    }

    /// The forward half of a solution, in the order of elimination.
    #[inline(always)]
    fn towards_root_from(&self, functional: &Functional<B>) -> Vec<Half<B>> {
        let mut waiting: BTreeMap<usize, Column<B>> = BTreeMap::new();
        for (position, part) in functional {
            let there = waiting.entry(*position).or_insert([0.0; B]);
            for row in 0..B {
                there[row] += part[row];
            }
        }
        let mut halves = Vec::new();
        while let Some((position, rest)) = waiting.pop_first() {
            let solved = multiply(&self.inverse[position], &rest);
            for nth in 0..self.n_slots(position) {
                let slot = self.slot(position, nth);
                let there = waiting.entry(slot.later as usize).or_insert([0.0; B]);
                pass_on::<N, B>(slot, &self.dense, &solved, there);
            }
            halves.push(Half { position, rest, solved });
        }
        halves
    }
}

/// What a linear function leaves at a position on its way to the root: `(L⁻¹ g)` and `D⁻¹ (L⁻¹ g)`.
struct Half<const B: usize> {
    position: usize,
    rest: Column<B>,
    solved: Column<B>,
}

/// The sum over the positions that both have met.
#[inline(always)]
fn common<const B: usize>(a: &[Half<B>], b: &[Half<B>]) -> f64 {
    let (mut b, mut sum) = (b.iter().peekable(), 0.0);
    for a in a {
        while b.next_if(|b| b.position < a.position).is_some() {}
        if let Some(b) = b.next_if(|b| b.position == a.position) {
            sum += dot(&a.rest, &b.solved);
        }
    }
    sum
}

/// The linear function `Re(conj(c) · dx_k)` of the voltage of phase `k`, in symmetrical components.
pub(super) fn along_phase<const N: usize, const B: usize>(k: usize, c: C64) -> Column<B> {
    let mut unit = [C64::ZERO; N];
    unit[k] = c;
    // the transform is unitary: the adjoint of "to phases" is "to sequences"
    let c = crate::model::to_sequences(&unit);
    let mut g = [0.0; B];
    for (s, c) in c.iter().enumerate() {
        (g[2 * s], g[2 * s + 1]) = (c.re, c.im);
    }
    g
}
