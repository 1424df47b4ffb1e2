//! One step of the iteration: what the loads draw now, from the leaves to the root; the voltages this leads to, from the root to the
//! leaves.

use super::{VoltageDependent, constant_power_current};
use crate::admittance::{Admittance, add};
use crate::elimination::{Elimination, NONE};
use crate::error::GridError;
use crate::model::{C64, larger, sequence};
use crate::network::Network;

/// A diagonal this much smaller than the admittances it was made of has no digits left.
const SINGULAR: f64 = 1e-13;

/// Factors of one position, with those of its first slot beside them: on a tree there is no other.
#[derive(Debug, Clone, Copy)]
struct Row<const N: usize> {
    /// Position of the first later neighbour.
    later: u32,
    /// How many slots follow in [`Sweep::more`].
    n_more: u32,
    /// Inverse of the pivot.
    inverse: [C64; N],
    /// Row of the later neighbour.
    lower: [C64; N],
    /// Inverse of the pivot times the column of the later neighbour.
    scaled_upper: [C64; N],
}

#[derive(Debug, Clone, Copy)]
struct MoreSlot<const N: usize> {
    later: u32,
    lower: [C64; N],
    scaled_upper: [C64; N],
}

/// The factorized grid.
#[derive(Debug, Clone)]
pub(super) struct Sweep<const N: usize> {
    rows: Vec<Row<N>>,
    /// Slots beyond the first, in order of positions.
    more: Vec<MoreSlot<N>>,
    /// Currents that have arrived from earlier positions; zero between two steps.
    arrived: Vec<[C64; N]>,
    /// Solution of the forward half.
    half: Vec<[C64; N]>,
}

impl<const N: usize> Sweep<N> {
    /// Factorizes.
    ///
    /// # Errors
    /// [`GridError::Singular`] where a component of the voltage is not determined.
    pub(super) fn new(network: &Network, admittance: &Admittance<N>, diagonal: &[[C64; N]]) -> Result<Self, GridError> {
        let order = &admittance.order;
        let n = order.len();
        let mut pivots = diagonal.to_vec();
        let (mut upper, mut lower) = (admittance.upper.clone(), admittance.lower.clone());
        let (mut rows, mut more) = (Vec::with_capacity(n), Vec::new());
        for i in 0..n {
            let inverse = invert(&pivots[i], &diagonal[i]).map_err(|k| singular::<N>(network, order, i, k))?;
            let slots = order.slots(i);
            let scaled: Vec<[C64; N]> = slots
                .clone()
                .map(|slot| std::array::from_fn(|k| inverse[k] * upper[slot][k]))
                .collect();
            for (a, slot_a) in slots.clone().enumerate() {
                let later = order.later[slot_a] as usize;
                for k in 0..N {
                    pivots[later][k] -= lower[slot_a][k] * scaled[a][k];
                }
                for (b, slot_b) in slots.clone().enumerate().skip(a + 1) {
                    let filled = order.pair_slot(i, slots.len(), a, b);
                    for k in 0..N {
                        let (row_a, row_b) = (lower[slot_a][k], lower[slot_b][k]);
                        upper[filled][k] -= row_a * scaled[b][k];
                        lower[filled][k] -= row_b * scaled[a][k];
                    }
                }
            }
            let mut all = slots.clone().zip(scaled).map(|(slot, scaled_upper)| MoreSlot {
                later: order.later[slot],
                lower: lower[slot],
                scaled_upper,
            });
            let first = all.next();
            rows.push(Row {
                later: first.map_or(NONE, |slot| slot.later),
                n_more: slots.len().saturating_sub(1) as u32,
                inverse,
                lower: first.map_or([C64::ZERO; N], |slot| slot.lower),
                scaled_upper: first.map_or([C64::ZERO; N], |slot| slot.scaled_upper),
            });
            more.extend(all);
        }
        Ok(Self {
            rows,
            more,
            arrived: vec![[C64::ZERO; N]; n],
            half: vec![[C64::ZERO; N]; n],
        })
    }

    /// Voltages with nothing but the sources.
    pub(super) fn solve_without_load(&mut self, sources: &[(u32, [C64; N])], voltage: &mut [[C64; N]]) {
        let no_power = vec![[C64::ZERO; N]; self.rows.len()];
        self.step(&no_power, &[], sources, voltage);
    }

    /// Replaces the voltages by those the loads lead to; the largest change, per unit (2-norm over the phases of a node).
    pub(super) fn step(
        &mut self,
        power: &[[C64; N]],
        voltage_dependent: &[VoltageDependent<N>],
        sources: &[(u32, [C64; N])],
        voltage: &mut [[C64; N]],
    ) -> f64 {
        for (position, current) in sources {
            add(&mut self.arrived[*position as usize], current);
        }
        for load in voltage_dependent {
            let current = load.current(&voltage[load.position as usize]);
            add(&mut self.arrived[load.position as usize], &current);
        }
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                self.towards_root(power, voltage);
                self.away_from_root(voltage)
            },
        )
    }

    #[inline(always)]
    fn towards_root(&mut self, power: &[[C64; N]], voltage: &[[C64; N]]) {
        let n = self.rows.len();
        let (rows, half, arrived) = (&self.rows[..n], &mut self.half[..n], &mut self.arrived[..n]);
        let (power, voltage) = (&power[..n], &voltage[..n]);
        let mut more = self.more.iter();
        for i in 0..n {
            let row = &rows[i];
            let mut current = constant_power_current(&power[i], &voltage[i]);
            add(&mut current, &arrived[i]);
            arrived[i] = [C64::ZERO; N];
            for k in 0..N {
                half[i][k] = row.inverse[k] * current[k];
            }
            if row.later != NONE {
                let there = &mut arrived[row.later as usize];
                for k in 0..N {
                    there[k] -= row.lower[k] * half[i][k];
                }
            }
            for slot in more.by_ref().take(row.n_more as usize) {
                let there = &mut arrived[slot.later as usize];
                for k in 0..N {
                    there[k] -= slot.lower[k] * half[i][k];
                }
            }
        }
    }

    #[inline(always)]
    fn away_from_root(&self, voltage: &mut [[C64; N]]) -> f64 {
        let n = self.rows.len();
        let (rows, half, voltage) = (&self.rows[..n], &self.half[..n], &mut voltage[..n]);
        let mut more = self.more.iter().rev();
        let mut step_square: f64 = 0.0;
        for i in (0..n).rev() {
            let row = &rows[i];
            let mut new = half[i];
            if row.later != NONE {
                let there = voltage[row.later as usize];
                for k in 0..N {
                    new[k] -= row.scaled_upper[k] * there[k];
                }
            }
            for slot in more.by_ref().take(row.n_more as usize) {
                let there = voltage[slot.later as usize];
                for k in 0..N {
                    new[k] -= slot.scaled_upper[k] * there[k];
                }
            }
            let mut change = 0.0;
            for k in 0..N {
                change += (new[k] - voltage[i][k]).norm_sqr();
            }
            step_square = larger(step_square, change);
            voltage[i] = new;
        }
        step_square.sqrt()
    }
}

/// Inverse of a pivot, or which component has none.
fn invert<const N: usize>(pivot: &[C64; N], made_of: &[C64; N]) -> Result<[C64; N], usize> {
    match (0..N).find(|&k| !(pivot[k].norm() > SINGULAR * made_of[k].norm())) {
        Some(k) => Err(k),
        None => Ok(pivot.map(|pivot| pivot.inv())),
    }
}

fn singular<const N: usize>(network: &Network, order: &Elimination, position: usize, k: usize) -> GridError {
    let remedy = match sequence::<N>(k) == 0 {
        true => "check that its zero sequence has a path to ground: a grounded winding, a line capacitance or a shunt",
        false => "check the impedances of its branches",
    };
    GridError::Singular {
        what: "power flow",
        node: network.nodes[order.node[position] as usize].id,
        remedy,
    }
}
