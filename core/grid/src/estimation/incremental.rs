//! Estimates that touch what a changed reading touches.
//!
//! A changed reading changes the right-hand side at its node, so the forward half of a solution changes on the way from there to the
//! root only. The voltages on that way are brought up to date against the exact equations. Everything beside it follows to first order:
//! its own equations have not changed, and the voltages around it have moved by little. That first-order step is worked out where it
//! enters a subtree, kept there ([`Pending`]), and passed on when somebody looks, so that an update costs the way to the root and not
//! the size of the grid.
//!
//! What first order leaves out is of the order of the square of the step. Where a subtree's root has moved further than [`MOVED_MAX`]
//! since its equations were last looked at, it joins the way, and so on below. When that takes in much of the grid (a feeder head's
//! reading moves everything; so do weakly determined angles between phases), full steps with the factors at hand are the better choice.

use super::block::Column;
use super::frame::{StepForm, advance};
use super::partial::Pending;
use super::{Estimator, N_STEPS_OF_FACTORS, steps_to_come};
use crate::power_flow::Convergence;

/// Voltages may move this far to first order, per unit, before their equations are looked at again: its square, times what the grid
/// makes of it (some ten to a hundred), is below the accuracy asked for.
const MOVED_MAX: f64 = 3e-7;
/// A second step on the way may go this far, per unit, and what is left after the last full step.
const UNMENDED_MAX: f64 = 1e-10;
/// Steps beyond this, per unit, are not taken for turns.
const TURN_MAX_PU: f64 = 1e-2;
/// A second step on a way that shrinks less than this must be mended elsewhere.
const SLOW: f64 = 0.1;
/// Factors are not expected to shrink a full step by more than this.
const STALE_AT_BEST: f64 = 5e-3;
/// More changed positions than one in this many, and a full solution is no dearer.
const SHARE_CHANGED_MAX: usize = 16;
/// With more than one in this many reached, likewise.
const SHARE_REACHED_MAX: usize = 8;
/// Steps on one way to the root before the factorization must be out of date.
const N_STEPS_MAX: usize = 10;
/// So many full steps cost what new factors do, with which fewer of them may be needed.
const N_FULL_MAX: usize = 64;
/// Steps smaller than this, per unit, may be rounding.
const ROUNDING: f64 = 1e-11;

/// Where readings have changed since the last estimate, and what has not been passed on.
#[derive(Debug, Clone)]
pub(super) struct Changes<const B: usize> {
    positions: Vec<u32>,
    is_reached: Vec<bool>,
    pub(super) pending: Pending<B>,
    /// Whether somebody asked to follow single readings.
    pub(super) follows: bool,
    /// Whether the last full solution converged, with exact factors at its end.
    is_ready: bool,
    /// Full steps since then.
    n_full: usize,
}

impl<const B: usize> Changes<B> {
    pub(super) fn new(n: usize) -> Self {
        Self {
            positions: Vec::new(),
            is_reached: vec![false; n],
            pending: Pending::new(n, MOVED_MAX),
            follows: false,
            is_ready: false,
            n_full: 0,
        }
    }

    pub(super) fn note(&mut self, position: usize) {
        // too many are too many, however many
        if self.positions.len() <= self.is_reached.len() / SHARE_CHANGED_MAX {
            self.positions.push(position as u32);
        }
    }

    /// A full solution has looked at every equation, with new factors if they are `is_ready` for more.
    pub(super) fn start(&mut self, is_ready: bool) {
        self.positions.clear();
        self.is_ready = is_ready;
        self.n_full = 0;
    }
}

impl<const N: usize, const B: usize> Estimator<N, B> {
    /// Estimates along the ways from the changed readings to the root; `None` if only a full solution with new factors will do.
    pub(super) fn estimate_changes(&mut self) -> Option<Convergence> {
        let n = self.state.len();
        if !self.changes.is_ready || self.changes.positions.len() > n / SHARE_CHANGED_MAX {
            return None;
        }
        let changed = std::mem::take(&mut self.changes.positions);
        let mut reached = self.gain.reach(&changed, &mut self.changes.is_reached);
        let result = self.solve_reached(&mut reached);
        self.changes.pending.too_far.clear();
        for &i in &reached {
            self.changes.is_reached[i as usize] = false;
        }
        self.changes.positions = changed;
        self.changes.positions.clear();
        match result {
            Ok(convergence) => Some(convergence),
            Err(step_pu) => self.full_steps(step_pu),
        }
    }

    /// Steps on the ways from the changed positions to the root, or how far the last one went if that will not do.
    fn solve_reached(&mut self, reached: &mut Vec<u32>) -> Result<Convergence, f64> {
        let reached_max = self.state.len() / (SHARE_REACHED_MAX * N);
        let changes = &mut self.changes;
        let tolerance = (self.options.tolerance_pu * 1e-3).max(ROUNDING);
        self.gain.pass_pending(reached, &mut self.state, &mut changes.pending);
        let mut previous = f64::INFINITY;
        for iterations in 1..=N_STEPS_MAX {
            let was_closed = self
                .gain
                .widen(reached, &mut changes.is_reached, reached_max, &mut self.state, &mut changes.pending);
            if reached.len() > reached_max {
                return Err(previous);
            }
            let step_pu = self
                .gain
                .partial_step(&self.readings, &mut self.state, reached, &changes.is_reached, &mut changes.pending);
            if !(step_pu <= TURN_MAX_PU) {
                return Err(step_pu);
            }
            // how far the next step would go, judged by the last two
            let next = step_pu * (step_pu / previous);
            let is_closed = was_closed && changes.pending.too_far.is_empty();
            if is_closed && (step_pu <= tolerance || (step_pu <= 10.0 * tolerance && next <= tolerance)) {
                return Ok(Convergence { iterations, step_pu });
            }
            // what a second step has to mend on the way, nobody mends beside it
            if is_closed && (!(step_pu <= SLOW * previous) || (was_closed && iterations > 1 && step_pu > UNMENDED_MAX)) {
                return Err(step_pu);
            }
            previous = step_pu;
        }
        Err(previous)
    }

    /// Full steps with the factors at hand, after one that went so far; `None` if these are not good enough any more.
    fn full_steps(&mut self, mut previous: f64) -> Option<Convergence> {
        self.settle();
        for iterations in 1..=N_STEPS_MAX {
            let step_pu = self.gain.step(&self.readings, &mut self.state, StepForm::Polar);
            let next = step_pu * (step_pu / previous).max(STALE_AT_BEST);
            self.changes.n_full += 1;
            if self.changes.n_full > N_FULL_MAX {
                break;
            }
            if step_pu <= ROUNDING || next <= UNMENDED_MAX {
                self.changes.positions.clear();
                return Some(Convergence { iterations, step_pu });
            }
            if !(step_pu <= TURN_MAX_PU) {
                self.is_factorized = false;
                break;
            }
            if iterations > 1 && !(steps_to_come(step_pu, step_pu / previous, ROUNDING) <= N_STEPS_OF_FACTORS) {
                break;
            }
            previous = step_pu;
        }
        None
    }

    /// Passes on everything that is pending.
    pub(super) fn settle(&mut self) {
        if self.changes.pending.any {
            self.gain.pass_all(&mut self.state, &mut self.changes.pending);
        }
    }

    /// The unknowns at a position, with what is pending above it.
    pub(super) fn unknowns(&self, position: usize) -> Column<B> {
        let mut x = self.state[position];
        if !self.changes.pending.any {
            return x;
        }
        let mut way = vec![position];
        while let Some(parent) = way.last().and_then(|&last| self.gain.order.parent(last)) {
            way.push(parent);
        }
        // what each position on the way still has to pass on
        let mut carried = [0.0; B];
        for window in way.windows(2).rev() {
            let (below, above) = (window[0], window[1]);
            for row in 0..B {
                carried[row] += self.changes.pending.step[above][row];
            }
            // nodes on loops are always up to date
            carried = match self.gain.n_slots(below) {
                1 => self.gain.below(below, &carried),
                _ => [0.0; B],
            };
        }
        advance(&mut x, &mut self.gain.turns[position].clone(), &carried);
        x
    }
}
