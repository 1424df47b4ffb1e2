//! The estimate's equations, their factorization, and one step of the iteration.
//!
//! Unknown are, at each node, the voltages `V` and the multipliers `ν` of its injection (Hachtel's augmented form). The matrix has the
//! grid's own pattern. Between two nodes stand only constant admittances, so for a pair of neighbours nothing but `N` complex numbers
//! is kept; a full block is needed where a flow sensor couples their voltages, or where eliminating a node of a loop has filled in.
//!
//! The factorization may be of an earlier state: each step solves with it against the exact equations of the present state, so an old
//! factorization costs steps, never accuracy.

use std::collections::HashMap;

use super::block::{
    Block, Column, add_block, add_multiplier, add_voltage, invert, multipliers, multiply, product, product_transposed, subtract, transpose,
    voltages, zero,
};
use super::boundary::Boundary;
use super::coupling::{coupling, pass_on, pull, structured_update, subtract_earlier, subtract_neighbour, subtract_own};
use super::frame::{StepForm, Turn, add_turned, advance, into_frame, voltage_size};
use super::local::{
    AngleReference, add_reference_derivative, add_voltage_derivative, injection_derivative, reference_gradient, voltage_gradient,
};
use super::readings::{Injection, Readings};
use crate::admittance::Admittance;
use crate::elimination::{Elimination, NONE};
use crate::model::{C64, larger};

/// A pair of neighbours, seen from the one eliminated first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<const N: usize> {
    /// Position of the later neighbour.
    pub(super) later: u32,
    /// Index of the full block, if there is one.
    pub(super) dense: u32,
    /// Current into the earlier node per voltage of the later one; zero if the earlier node's injection is free.
    pub(super) upper: [C64; N],
    /// Current into the later node per voltage of the earlier one; zero if the later node's injection is free.
    pub(super) lower: [C64; N],
}

/// What belongs to one position, together for the sake of the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<const N: usize> {
    /// First slot; on a tree the only one.
    pub(super) slot: Slot<N>,
    /// How many slots follow in [`Gain::more`].
    pub(super) n_more: u32,
    /// Where they start.
    more: u32,
    /// Current into the node per own voltage; zero if its injection is free.
    pub(super) own: [C64; N],
    pub(super) injection: Injection<N>,
}

/// The system and its factors.
#[derive(Debug, Clone)]
pub(super) struct Gain<const N: usize, const B: usize> {
    pub(super) order: Elimination,
    pub(super) rows: Vec<Row<N>>,
    more: Vec<Slot<N>>,
    /// Whether a node's injection is free: not measured and not known to be zero.
    free: Vec<bool>,
    /// Inverse pivots.
    pub(super) inverse: Vec<Block<B>>,
    /// Full blocks (row: earlier, column: later node) with what has been filled in.
    pub(super) dense: Vec<Block<B>>,
    /// Slot of each full block.
    dense_slots: Vec<u32>,
    pub(super) references: Vec<AngleReference<N>>,
    /// What areas below say about their roots.
    pub(super) boundaries: Vec<Boundary<N>>,
    /// For each position with readings of its voltage or of flows: their indices in the readings, and in `references`.
    pub(super) read_at: HashMap<u32, ReadAt>,
    /// Positions that have several slots when they are eliminated: the nodes on loops.
    pub(super) core: Vec<u32>,
    /// Right-hand sides as they gather; zero between two steps.
    gathered: Vec<Column<B>>,
    /// What elimination adds to them, in the frame of the factors; zero between two steps.
    pub(super) eliminated: Vec<Column<B>>,
    /// How far the phases have turned since the factors were made.
    pub(super) turns: Vec<Turn<N>>,
    /// Forward half of a step, then the step.
    pub(super) step: Vec<Column<B>>,
}

/// What else is read at a position.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadAt {
    pub(super) voltages: Vec<u32>,
    pub(super) flows: Vec<u32>,
    pub(super) references: Vec<u32>,
}

/// Positions whose unknown injections count as better known than they are, and what they were.
pub(super) type Narrowed<const N: usize> = Vec<(usize, [C64; N])>;

/// A pivot without inverse, at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SingularAt(pub(super) usize);

impl<const N: usize, const B: usize> Gain<N, B> {
    /// Lays out the system. `free` are the nodes whose injection the estimate leaves open.
    pub(super) fn new(admittance: &Admittance<N>, readings: &Readings<N>, free: Vec<bool>, references: Vec<AngleReference<N>>) -> Self {
        let order = admittance.order.clone();
        let mut is_dense = vec![false; order.later.len()];
        for &slot in order.pair_slots.iter().filter(|&&slot| slot != NONE) {
            is_dense[slot as usize] = true;
        }
        for flow in readings.flows.iter().filter(|flow| flow.far != flow.near) {
            if let Some(slot) = order.slot_between(flow.near, flow.far) {
                is_dense[slot] = true;
            }
        }
        let dense_slots: Vec<u32> = (0..is_dense.len() as u32).filter(|&slot| is_dense[slot as usize]).collect();
        let mut dense_of = vec![NONE; is_dense.len()];
        for (index, &slot) in dense_slots.iter().enumerate() {
            dense_of[slot as usize] = index as u32;
        }
        let zero_y = [C64::ZERO; N];
        let mut more = Vec::new();
        let rows = (0..order.len())
            .map(|i| {
                let mut slots = order.slots(i).map(|slot| Slot {
                    later: order.later[slot],
                    dense: dense_of[slot],
                    upper: if free[i] { zero_y } else { admittance.upper[slot] },
                    lower: if free[order.later[slot] as usize] {
                        zero_y
                    } else {
                        admittance.lower[slot]
                    },
                });
                let first = slots.next().unwrap_or(Slot {
                    later: NONE,
                    dense: NONE,
                    upper: zero_y,
                    lower: zero_y,
                });
                let start = more.len();
                more.extend(slots);
                Row {
                    slot: first,
                    n_more: (more.len() - start) as u32,
                    more: start as u32,
                    own: if free[i] { zero_y } else { admittance.diagonal[i] },
                    injection: readings.injections[i],
                }
            })
            .collect();
        let n = order.len();
        let core = (0..n).filter(|&i| order.slots(i).len() > 1).map(|i| i as u32).collect();
        Self {
            boundaries: Vec::new(),
            read_at: read_at(readings, &references),
            core,
            rows,
            more,
            free,
            inverse: vec![zero(); n],
            dense: vec![zero(); dense_slots.len()],
            dense_slots,
            references,
            gathered: vec![[0.0; B]; n],
            eliminated: vec![[0.0; B]; n],
            turns: vec![[C64::ONE; N]; n],
            step: vec![[0.0; B]; n],
            order,
        }
    }

    /// Works out again what is read at each position.
    pub(super) fn index_readings(&mut self, readings: &Readings<N>) {
        self.read_at = read_at(readings, &self.references);
    }

    /// Whether other readings of the same network make a system of the same shape: with readings of voltages and flows, and free
    /// injections, where they were.
    pub(super) fn has_place_for(&self, old: &Readings<N>, new: &Readings<N>, free: &[bool]) -> bool {
        self.free == free
            && old.guesses == new.guesses
            && old.voltages.len() == new.voltages.len()
            && old
                .voltages
                .iter()
                .zip(&new.voltages)
                .all(|(old, new)| old.position == new.position)
            && old.flows.len() == new.flows.len()
            && (old.flows.iter().zip(&new.flows)).all(|(old, new)| (old.near, old.far, old.quantity) == (new.near, new.far, new.quantity))
    }

    /// Takes other readings of the injections, but where areas below have spoken.
    pub(super) fn take_injections(&mut self, injections: &[Injection<N>]) {
        for (position, (row, injection)) in self.rows.iter_mut().zip(injections).enumerate() {
            if !self.boundaries.iter().any(|boundary| boundary.position == position) {
                row.injection = *injection;
            }
        }
    }

    pub(super) fn is_free(&self, position: usize) -> bool {
        self.free[position]
    }

    pub(super) fn injection(&self, position: usize) -> &Injection<N> {
        &self.rows[position].injection
    }

    pub(super) fn injection_mut(&mut self, position: usize) -> &mut Injection<N> {
        &mut self.rows[position].injection
    }

    /// Makes variances that stand for "unknown" a share of what they are; the positions with what they were.
    pub(super) fn scale_unknown(&mut self, unknown: f64, share: f64) -> Narrowed<N> {
        let mut narrowed = Vec::new();
        for (position, row) in self.rows.iter_mut().enumerate().filter(|(_, row)| row.injection.is_unknown) {
            narrowed.push((position, row.injection.variance));
            for variance in &mut row.injection.variance {
                for part in [&mut variance.re, &mut variance.im] {
                    if *part == unknown {
                        *part *= share;
                    }
                }
            }
        }
        narrowed
    }

    /// Takes [`Self::scale_unknown`] back.
    pub(super) fn restore_unknown(&mut self, narrowed: &[(usize, [C64; N])]) {
        for (position, variance) in narrowed {
            self.rows[*position].injection.variance = *variance;
        }
    }

    pub(super) fn slot(&self, position: usize, nth: usize) -> &Slot<N> {
        let row = &self.rows[position];
        match nth {
            0 => &row.slot,
            _ => &self.more[row.more as usize + nth - 1],
        }
    }

    pub(super) fn n_slots(&self, position: usize) -> usize {
        self.order.slots(position).len()
    }

    /// Factorizes at a state. See [`injection_derivative`] for `gauss_newton`.
    ///
    /// # Errors
    /// The position where the elimination broke down.
    pub(super) fn factorize(&mut self, readings: &Readings<N>, x: &[Column<B>], gauss_newton: bool) -> Result<(), SingularAt> {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || self.factorize_here(readings, x, gauss_newton),
        )
    }

    #[inline(always)]
    fn factorize_here(&mut self, readings: &Readings<N>, x: &[Column<B>], gauss_newton: bool) -> Result<(), SingularAt> {
        self.turns.fill([C64::ONE; N]);
        self.assemble(readings, x, gauss_newton);
        for i in 0..self.rows.len() {
            self.eliminate(i)?;
        }
        Ok(())
    }

    /// Puts the blocks that depend on the state together, in place of the inverse pivots.
    #[inline(always)]
    fn assemble(&mut self, readings: &Readings<N>, x: &[Column<B>], gauss_newton: bool) {
        for i in 0..self.rows.len() {
            self.inverse[i] = self.own_block(i, &x[i], gauss_newton);
        }
        for voltage in &readings.voltages {
            let v = voltages(&x[voltage.position]);
            add_voltage_derivative(voltage, &v, gauss_newton, &mut self.inverse[voltage.position]);
        }
        for reference in &self.references {
            let v: [C64; N] = voltages(&x[reference.position]);
            add_reference_derivative(reference, &v, &mut self.inverse[reference.position]);
        }
        for boundary in &self.boundaries {
            add_block(&mut self.inverse[boundary.position], &boundary.derivative(&x[boundary.position]));
        }
        for (index, &slot) in self.dense_slots.iter().enumerate() {
            let later = self.order.later[slot as usize] as usize;
            let first = self.order.start.partition_point(|&start| start <= slot) - 1;
            let nth = slot as usize - self.order.slots(first).start;
            debug_assert_eq!(self.slot(first, nth).later as usize, later);
            self.dense[index] = coupling(self.slot(first, nth));
        }
        for flow in &readings.flows {
            let at = flow.at(&voltages(&x[flow.near]), &voltages(&x[flow.far]));
            let jacobian = flow.jacobian::<B>(&at);
            let (near_near, near_far) = match gauss_newton {
                true => (zero(), zero()),
                false => flow.second_derivatives(&at),
            };
            add_block(&mut self.inverse[flow.near], &flow.curvature(&jacobian.near, &jacobian.near));
            add_block(&mut self.inverse[flow.near], &near_near);
            if flow.far == flow.near {
                continue;
            }
            add_block(&mut self.inverse[flow.far], &flow.curvature(&jacobian.far, &jacobian.far));
            // row: the earlier end, column: the later one
            let (first, second, more) = match flow.near < flow.far {
                true => (&jacobian.near, &jacobian.far, near_far),
                false => (&jacobian.far, &jacobian.near, transpose(&near_far)),
            };
            if let Some(slot) = self.order.slot_between(flow.near, flow.far)
                && let Ok(index) = self.dense_slots.binary_search(&(slot as u32))
            {
                add_block(&mut self.dense[index], &flow.curvature(first, second));
                add_block(&mut self.dense[index], &more);
            }
        }
    }

    /// The injection's part of a pivot.
    #[inline(always)]
    fn own_block(&self, i: usize, x: &Column<B>, gauss_newton: bool) -> Block<B> {
        if self.free[i] {
            let mut block = zero();
            for k in 2 * N..B {
                block[k][k] = -1.0;
            }
            return block;
        }
        let row = &self.rows[i];
        let mut block = injection_derivative::<N, B>(&row.injection, &voltages(x), &multipliers(x), gauss_newton);
        for k in 0..N {
            let (v, nu, y) = (2 * k, 2 * (N + k), row.own[k]);
            // -Y in the rows of the injection, -Y' in those of the voltage
            for (column, re, im) in [(v, y.re, y.im), (v + 1, -y.im, y.re)] {
                block[column][nu] -= re;
                block[column][nu + 1] -= im;
                block[nu][column] -= re;
                block[nu + 1][column] -= im;
            }
        }
        block
    }

    /// Inverts the pivot of a position and takes it out of its later neighbours.
    #[inline(always)]
    fn eliminate(&mut self, i: usize) -> Result<(), SingularAt> {
        let inverse = invert(&self.inverse[i]).ok_or(SingularAt(i))?;
        self.inverse[i] = inverse;
        let row = &self.rows[i];
        if row.slot.later == NONE {
            return Ok(());
        }
        if row.n_more == 0 && row.slot.dense == NONE {
            let update = structured_update(&inverse, &row.slot);
            subtract(&mut self.inverse[row.slot.later as usize], &update);
            return Ok(());
        }
        let n_slots = self.n_slots(i);
        for a in 0..n_slots {
            let slot_a = *self.slot(i, a);
            let block_a = self.full_block(&slot_a);
            subtract(
                &mut self.inverse[slot_a.later as usize],
                &product_transposed(&block_a, &product(&inverse, &block_a)),
            );
            for b in a + 1..n_slots {
                let block_b = self.full_block(self.slot(i, b));
                let filled = self.order.pair_slot(i, n_slots, a, b);
                if let Ok(index) = self.dense_slots.binary_search(&(filled as u32)) {
                    let update = product_transposed(&block_a, &product(&inverse, &block_b));
                    subtract(&mut self.dense[index], &update);
                }
            }
        }
        Ok(())
    }

    /// The block of a slot, whichever way it is kept.
    #[inline(always)]
    pub(super) fn full_block(&self, slot: &Slot<N>) -> Block<B> {
        match slot.dense {
            NONE => coupling(slot),
            index => self.dense[index as usize],
        }
    }

    /// One step of the iteration, and how far it went: the largest change of a node's voltages, per unit (2-norm).
    pub(super) fn step(&mut self, readings: &Readings<N>, x: &mut [Column<B>], form: StepForm) -> f64 {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                self.gather(readings, x);
                self.towards_root(x);
                self.away_from_root(x, form)
            },
        )
    }

    /// What readings of voltages and flows pull at.
    #[inline(always)]
    fn gather(&mut self, readings: &Readings<N>, x: &[Column<B>]) {
        for voltage in &readings.voltages {
            let gradient = voltage_gradient(voltage, &voltages(&x[voltage.position]));
            for k in 0..N {
                add_voltage::<N, B>(&mut self.gathered[voltage.position], k, -gradient[k]);
            }
        }
        for reference in &self.references {
            let gradient = reference_gradient::<N>(reference, &voltages(&x[reference.position]));
            for k in 0..N {
                add_voltage::<N, B>(&mut self.gathered[reference.position], k, -gradient[k]);
            }
        }
        for boundary in &self.boundaries {
            let (f1, f2) = boundary.equations(&x[boundary.position]);
            for k in 0..N {
                add_voltage::<N, B>(&mut self.gathered[boundary.position], k, -f1[k]);
                add_multiplier::<N, B>(&mut self.gathered[boundary.position], k, -f2[k]);
            }
        }
        for flow in &readings.flows {
            let at = flow.at(&voltages(&x[flow.near]), &voltages(&x[flow.far]));
            let (near, far) = flow.gradients::<B>(&at);
            for row in 0..2 * N {
                self.gathered[flow.near][row] -= near[row];
                self.gathered[flow.far][row] -= far[row];
            }
        }
    }

    #[inline(always)]
    fn towards_root(&mut self, x: &[Column<B>]) {
        let n = self.rows.len();
        let (rows, inverse, x) = (&self.rows[..n], &self.inverse[..n], &x[..n]);
        let (gathered, eliminated) = (&mut self.gathered[..n], &mut self.eliminated[..n]);
        let (turns, step) = (&self.turns[..n], &mut self.step[..n]);
        for i in 0..n {
            let row = &rows[i];
            let (v, nu): ([C64; N], [C64; N]) = (voltages(&x[i]), multipliers(&x[i]));
            let mut rest = std::mem::replace(&mut gathered[i], [0.0; B]);
            subtract_own(row, &v, &nu, &mut rest);
            if row.slot.later != NONE {
                subtract_neighbour(&row.slot, &x[row.slot.later as usize], &mut rest);
            }
            for slot in &self.more[row.more as usize..(row.more + row.n_more) as usize] {
                subtract_neighbour(slot, &x[slot.later as usize], &mut rest);
            }
            let mut rest = into_frame(&rest, &turns[i]);
            let eliminated_here = std::mem::replace(&mut eliminated[i], [0.0; B]);
            for row in 0..B {
                rest[row] += eliminated_here[row];
            }
            let half = multiply(&inverse[i], &rest);
            step[i] = half;
            if row.slot.later != NONE {
                subtract_earlier(&row.slot, &v, &nu, &mut gathered[row.slot.later as usize]);
                pass_on::<N, B>(&row.slot, &self.dense, &half, &mut eliminated[row.slot.later as usize]);
            }
            for slot in &self.more[row.more as usize..(row.more + row.n_more) as usize] {
                subtract_earlier(slot, &v, &nu, &mut gathered[slot.later as usize]);
                pass_on::<N, B>(slot, &self.dense, &half, &mut eliminated[slot.later as usize]);
            }
        }
    }

    #[inline(always)]
    fn away_from_root(&mut self, x: &mut [Column<B>], form: StepForm) -> f64 {
        let n = self.rows.len();
        let (rows, inverse, step, x) = (&self.rows[..n], &self.inverse[..n], &mut self.step[..n], &mut x[..n]);
        let turns = &mut self.turns[..n];
        let mut largest = 0.0;
        for i in (0..n).rev() {
            let row = &rows[i];
            if row.slot.later != NONE {
                let mut pulled = pull::<N, B>(&row.slot, &self.dense, &step[row.slot.later as usize]);
                for slot in &self.more[row.more as usize..(row.more + row.n_more) as usize] {
                    let from_there = pull::<N, B>(slot, &self.dense, &step[slot.later as usize]);
                    for row in 0..B {
                        pulled[row] += from_there[row];
                    }
                }
                let change = multiply(&inverse[i], &pulled);
                for row in 0..B {
                    step[i][row] += change[row];
                }
            }
            match form {
                StepForm::Rectangular => add_turned(&mut x[i], &turns[i], &step[i]),
                StepForm::Polar => drop(advance(&mut x[i], &mut turns[i], &step[i])),
            }
            largest = larger(largest, voltage_size::<N, B>(&step[i]));
        }
        largest
    }
}

fn read_at<const N: usize>(readings: &Readings<N>, references: &[AngleReference<N>]) -> HashMap<u32, ReadAt> {
    let mut at: HashMap<u32, ReadAt> = HashMap::new();
    for (index, voltage) in readings.voltages.iter().enumerate() {
        at.entry(voltage.position as u32).or_default().voltages.push(index as u32);
    }
    for (index, reference) in references.iter().enumerate() {
        at.entry(reference.position as u32).or_default().references.push(index as u32);
    }
    for (index, flow) in readings.flows.iter().enumerate() {
        at.entry(flow.near as u32).or_default().flows.push(index as u32);
        if flow.far != flow.near {
            at.entry(flow.far as u32).or_default().flows.push(index as u32);
        }
    }
    at
}

#[cfg(test)]
mod tests {
    /// The factorization, its solutions and the selected inverse against a general sparse solver that knows nothing of trees.
    #[test]
    fn a_general_sparse_solver_agrees() {
        use faer::prelude::Solve as _;
        use faer::sparse::{SparseColMat, Triplet};

        let text = include_str!("../../test_data/est_loop/input.json");
        let network = crate::network::Network::from_pgm_json(text).unwrap();
        let mut estimator = super::super::AsymmetricEstimator::new(&network, super::super::EstimateOptions::default()).unwrap();
        estimator.estimate().unwrap();
        let (readings, state) = (estimator.readings.clone(), estimator.state.clone());
        let gain = &mut estimator.gain;
        gain.assemble(&readings, &state, true);
        let n = gain.order.len() * 12;
        let mut entries = Vec::new();
        for i in 0..gain.order.len() {
            for column in 0..12 {
                for row in 0..12 {
                    entries.push(Triplet::new(i * 12 + row, i * 12 + column, gain.inverse[i][column][row]));
                }
            }
            for nth in 0..gain.n_slots(i) {
                let slot = *gain.slot(i, nth);
                let block = gain.full_block(&slot);
                for column in 0..12 {
                    for row in 0..12 {
                        let (a, b) = (i * 12 + row, slot.later as usize * 12 + column);
                        entries.push(Triplet::new(a, b, block[column][row]));
                        entries.push(Triplet::new(b, a, block[column][row]));
                    }
                }
            }
        }
        let matrix = SparseColMat::<usize, f64>::try_new_from_triplets(n, n, &entries).unwrap();
        let lu = matrix.sp_lu().unwrap();
        gain.factorize(&readings, &state, true).unwrap();
        let covariance = super::super::covariance::Covariance::new(gain);
        for (position, row) in [(0, 2), (1, 0), (gain.order.len() - 1, 2), (2, 8)] {
            let mut unit = [0.0; 12];
            unit[row] = 1.0;
            let ours = gain.solve(&vec![(position, unit)]);
            let mut right = faer::Mat::<f64>::zeros(n, 1);
            right[(position * 12 + row, 0)] = 1.0;
            let theirs = lu.solve(&right);
            let scale = (0..n).map(|i| theirs[(i, 0)].abs()).fold(0.0, f64::max);
            for i in 0..gain.order.len() {
                for k in 0..12 {
                    assert!(
                        (ours[i][k] - theirs[(i * 12 + k, 0)]).abs() < 1e-3 * scale,
                        "{position} {row}: {i} {k}"
                    );
                }
            }
            for k in 0..12 {
                let of_selected = covariance.diagonal[position][row][k];
                assert!(
                    (of_selected - theirs[(position * 12 + k, 0)]).abs() < 1e-3 * scale,
                    "{position} {row} {k}"
                );
            }
        }
    }
}
