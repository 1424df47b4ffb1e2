//! Steps on the ways from some positions to the root, and to first order beside them ([`super::incremental`] says when).

use super::block::{Column, add_multiplier, add_voltage, multipliers, multiply, voltages};
use super::coupling::{pass_on, pull, subtract_earlier, subtract_neighbour, subtract_own};
use super::frame::{advance, into_frame, voltage_size};
use super::gain::Gain;
use super::local::{reference_gradient, voltage_gradient};
use super::readings::Readings;
use crate::model::{C64, larger};

/// Voltages that a partial step has moved, but not passed on to what hangs below them.
#[derive(Debug, Clone)]
pub(super) struct Pending<const B: usize> {
    pub(super) step: Vec<Column<B>>,
    /// Whether a position has anything to pass on.
    pub(super) is_set: Vec<bool>,
    pub(super) any: bool,
    /// How far a position has moved to first order since its equations were last looked at, per unit of voltage.
    pub(super) moved: Vec<f64>,
    /// What a move of a position's multiplier counts as a move of voltage: what the corrections of injections in its subtree do.
    pub(super) multiplier_counts: Vec<f64>,
    /// Positions that have moved further than [`Self::moved_max`].
    pub(super) too_far: Vec<u32>,
    pub(super) moved_max: f64,
}

impl<const B: usize> Pending<B> {
    pub(super) fn new(n: usize, moved_max: f64) -> Self {
        Self {
            step: vec![[0.0; B]; n],
            is_set: vec![false; n],
            any: false,
            moved: vec![0.0; n],
            multiplier_counts: vec![0.0; n],
            too_far: Vec::new(),
            moved_max,
        }
    }

    fn add(&mut self, position: usize, step: &Column<B>) {
        for row in 0..B {
            self.step[position][row] += step[row];
        }
        self.is_set[position] = true;
        self.any = true;
    }
}

impl<const N: usize, const B: usize> Gain<N, B> {
    /// The positions that a change at some of them reaches on its way to the root, in the order of elimination.
    pub(super) fn reach(&self, changed: &[u32], is_reached: &mut [bool]) -> Vec<u32> {
        let mut reached = Vec::new();
        for &start in changed.iter().chain(&self.core) {
            let mut next = Some(start as usize);
            while let Some(i) = next.filter(|&i| !is_reached[i]) {
                is_reached[i] = true;
                reached.push(i as u32);
                next = self.order.parent(i);
            }
        }
        reached.sort_unstable();
        reached
    }

    /// Passes on all that is pending, from the root to the leaves.
    pub(super) fn pass_all(&mut self, x: &mut [Column<B>], pending: &mut Pending<B>) {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || self.pass_all_here(x, pending),
        );
    }

    #[inline(always)]
    fn pass_all_here(&mut self, x: &mut [Column<B>], pending: &mut Pending<B>) {
        for i in (0..x.len()).rev() {
            if !pending.is_set[i] {
                continue;
            }
            let step = pending.step[i];
            for nth in 0..self.order.earlier(i).len() {
                let earlier = self.order.earlier(i)[nth].0 as usize;
                if self.rows[earlier].n_more == 0 {
                    let moved = self.below(earlier, &step);
                    advance(&mut x[earlier], &mut self.turns[earlier], &moved);
                    for row in 0..B {
                        pending.step[earlier][row] += moved[row];
                    }
                    pending.is_set[earlier] = true;
                }
            }
        }
        pending.step.fill([0.0; B]);
        pending.is_set.fill(false);
        pending.moved.fill(0.0);
        pending.any = false;
    }

    /// Passes on what is pending at some positions, the later ones first, to what hangs directly below, before they are looked at.
    pub(super) fn pass_pending(&mut self, positions: &[u32], x: &mut [Column<B>], pending: &mut Pending<B>) {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || self.pass_pending_here(positions, x, pending),
        );
    }

    #[inline(always)]
    fn pass_pending_here(&mut self, positions: &[u32], x: &mut [Column<B>], pending: &mut Pending<B>) {
        for &i in positions.iter().rev() {
            pending.moved[i as usize] = 0.0;
            if !std::mem::take(&mut pending.is_set[i as usize]) {
                continue;
            }
            let step = std::mem::replace(&mut pending.step[i as usize], [0.0; B]);
            for nth in 0..self.order.earlier(i as usize).len() {
                let earlier = self.order.earlier(i as usize)[nth].0 as usize;
                if self.rows[earlier].n_more == 0 {
                    self.move_one(earlier, &step, x, pending);
                }
            }
        }
    }

    /// For each position: the largest voltage per multiplier in its subtree, by way of the injections' corrections.
    pub(super) fn multiplier_counts(&self) -> Vec<f64> {
        let mut counts = vec![0.0_f64; self.rows.len()];
        for i in 0..self.rows.len() {
            let variance = self.rows[i]
                .injection
                .variance
                .iter()
                .fold(0.0_f64, |largest, v| largest.max(v.re).max(v.im));
            let impedance = (0..2 * N)
                .map(|row| (2 * N..B).map(|column| self.inverse[i][column][row].abs()).sum())
                .fold(0.0_f64, f64::max);
            counts[i] = counts[i].max(variance * impedance);
            if let Some(parent) = self.order.parent(i) {
                counts[parent] = counts[parent].max(counts[i]);
            }
        }
        counts
    }

    /// Takes in what has moved too far, and what that moves too far below it, up to about `reached_max` positions; whether there was
    /// nothing.
    pub(super) fn widen(
        &mut self,
        reached: &mut Vec<u32>,
        is_reached: &mut [bool],
        reached_max: usize,
        x: &mut [Column<B>],
        pending: &mut Pending<B>,
    ) -> bool {
        let n_before = reached.len();
        while let Some(position) = pending.too_far.pop().filter(|_| reached.len() <= reached_max) {
            if !std::mem::replace(&mut is_reached[position as usize], true) {
                reached.push(position);
                self.pass_pending(&[position], x, pending);
            }
        }
        let is_closed = reached.len() == n_before;
        if !is_closed {
            reached.sort_unstable();
        }
        is_closed
    }

    /// How a position with one slot follows a step of its later neighbour.
    #[inline(always)]
    pub(super) fn below(&self, position: usize, step: &Column<B>) -> Column<B> {
        multiply(&self.inverse[position], &pull::<N, B>(&self.rows[position].slot, &self.dense, step))
    }

    /// One step of the iteration on some positions, closed towards the root ([`Self::reach`]), and how far it went (as [`Self::step`]).
    /// Everything beside them follows to first order, at once where it hangs directly below, later where it is deeper ([`Pending`]).
    pub(super) fn partial_step(
        &mut self,
        readings: &Readings<N>,
        x: &mut [Column<B>],
        reached: &[u32],
        is_reached: &[bool],
        pending: &mut Pending<B>,
    ) -> f64 {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for &i in reached {
                    self.partial_forward(readings, x, i as usize);
                }
                let mut largest = 0.0;
                for &i in reached.iter().rev() {
                    let size = self.partial_backward(x, i as usize);
                    largest = larger(largest, size);
                }
                for &i in reached {
                    let step = self.step[i as usize];
                    for nth in 0..self.order.earlier(i as usize).len() {
                        let earlier = self.order.earlier(i as usize)[nth].0 as usize;
                        if !is_reached[earlier] {
                            self.move_one(earlier, &step, x, pending);
                        }
                    }
                }
                largest
            },
        )
    }

    #[inline(always)]
    fn partial_forward(&mut self, readings: &Readings<N>, x: &[Column<B>], i: usize) {
        let mut rest = [0.0; B];
        self.subtract_read(readings, x, i, &mut rest);
        let row = self.rows[i];
        let (v, nu): ([C64; N], [C64; N]) = (voltages(&x[i]), multipliers(&x[i]));
        subtract_own(&row, &v, &nu, &mut rest);
        for &(earlier, slot) in self.order.earlier(i) {
            let earlier = earlier as usize;
            let slot = self.slot(earlier, slot as usize - self.order.slots(earlier).start);
            subtract_earlier(slot, &voltages(&x[earlier]), &multipliers(&x[earlier]), &mut rest);
        }
        let n_slots = self.n_slots(i);
        for nth in 0..n_slots {
            let slot = self.slot(i, nth);
            subtract_neighbour(slot, &x[slot.later as usize], &mut rest);
        }
        let mut rest = into_frame(&rest, &self.turns[i]);
        let eliminated = std::mem::replace(&mut self.eliminated[i], [0.0; B]);
        for row in 0..B {
            rest[row] += eliminated[row];
        }
        let half = multiply(&self.inverse[i], &rest);
        self.step[i] = half;
        for nth in 0..n_slots {
            let slot = *self.slot(i, nth);
            pass_on::<N, B>(&slot, &self.dense, &half, &mut self.eliminated[slot.later as usize]);
        }
    }

    /// What readings of voltages and flows pull at one position.
    fn subtract_read(&self, readings: &Readings<N>, x: &[Column<B>], i: usize, rest: &mut Column<B>) {
        for boundary in self.boundaries.iter().filter(|boundary| boundary.position == i) {
            let (f1, f2) = boundary.equations(&x[i]);
            for k in 0..N {
                add_voltage::<N, B>(rest, k, -f1[k]);
                add_multiplier::<N, B>(rest, k, -f2[k]);
            }
        }
        let Some(read) = self.read_at.get(&(i as u32)) else {
            return;
        };
        let v: [C64; N] = voltages(&x[i]);
        for &index in &read.voltages {
            let gradient = voltage_gradient(&readings.voltages[index as usize], &v);
            for k in 0..N {
                add_voltage::<N, B>(rest, k, -gradient[k]);
            }
        }
        for &index in &read.references {
            let gradient = reference_gradient(&self.references[index as usize], &v);
            for k in 0..N {
                add_voltage::<N, B>(rest, k, -gradient[k]);
            }
        }
        for &index in &read.flows {
            let flow = &readings.flows[index as usize];
            let at = flow.at(&voltages(&x[flow.near]), &voltages(&x[flow.far]));
            let (near, far) = flow.gradients::<B>(&at);
            for row in 0..2 * N {
                rest[row] -= if flow.near == i { near[row] } else { 0.0 };
                rest[row] -= if flow.far == i { far[row] } else { 0.0 };
            }
        }
    }

    #[inline(always)]
    fn partial_backward(&mut self, x: &mut [Column<B>], i: usize) -> f64 {
        let n_slots = self.n_slots(i);
        if n_slots > 0 {
            let mut pulled = [0.0; B];
            for nth in 0..n_slots {
                let slot = self.slot(i, nth);
                let from_there = pull::<N, B>(slot, &self.dense, &self.step[slot.later as usize]);
                for row in 0..B {
                    pulled[row] += from_there[row];
                }
            }
            let change = multiply(&self.inverse[i], &pulled);
            for row in 0..B {
                self.step[i][row] += change[row];
            }
        }
        advance(&mut x[i], &mut self.turns[i], &self.step[i]);
        voltage_size::<N, B>(&self.step[i])
    }

    /// Moves a position by a step of its later neighbour, and leaves what hangs below it pending.
    #[inline(always)]
    fn move_one(&mut self, position: usize, above: &Column<B>, x: &mut [Column<B>], pending: &mut Pending<B>) {
        let step = self.below(position, above);
        let (voltage, multiplier) = advance(&mut x[position], &mut self.turns[position], &step);
        pending.add(position, &step);
        pending.moved[position] += voltage + pending.multiplier_counts[position] * multiplier;
        if !(pending.moved[position] <= pending.moved_max) {
            pending.too_far.push(position as u32);
        }
    }
}
