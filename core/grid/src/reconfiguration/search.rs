//! The search: branch exchange to a state that no single exchange improves, then kicks to get away from it.

use super::graph::Graph;
use super::tree::{Bounds, Exchange, Quality, Tree};
use crate::error::GridError;
use crate::random::Random;

/// The search looks no closer than this; what it finds is solved to the tolerance of the options.
const SEARCH_TOLERANCE_PU: f64 = 1e-8;
/// An exchange has to save this share of the losses to count: below are the rounding and the tolerance of the power flows.
const GAIN_MIN_SHARE: f64 = 1e-7;
/// Exchanges of one loop that are tried by a power flow where prediction alone does not decide.
const TRIALS_PER_LOOP: usize = 6;
/// Most passes of one descent; ten or so are usual.
const PASSES_MAX: usize = 1_000;
/// Exchanges of one kick.
const EXCHANGES_PER_KICK: usize = 3;

/// A state to come back to.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) closed: Vec<bool>,
    voltage: Vec<crate::model::C64>,
    pub(super) quality: Quality,
}

/// A tree on its way to a better one.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) graph: &'a Graph,
    pub(super) bounds: Bounds,
    pub(super) tree: Tree,
    pub(super) quality: Quality,
}

impl<'a> Search<'a> {
    /// Starts at a spanning tree.
    ///
    /// # Errors
    /// [`GridError::NotConverged`] for a tree that cannot carry its loads.
    pub(super) fn new(graph: &'a Graph, bounds: Bounds, closed: Vec<bool>) -> Result<Self, GridError> {
        let mut tree = Tree::new(graph, closed);
        tree.solve(graph, SEARCH_TOLERANCE_PU)?;
        let quality = tree.quality(graph, &bounds);
        Ok(Self {
            graph,
            bounds,
            tree,
            quality,
        })
    }

    pub(super) fn state(&self) -> State {
        State {
            closed: self.tree.closed.clone(),
            voltage: self.tree.voltage.clone(),
            quality: self.quality,
        }
    }

    pub(super) fn restore(&mut self, state: &State) {
        self.tree.set(self.graph, &state.closed, &state.voltage);
        self.quality = state.quality;
    }

    /// Solves the tree as it stands; a tree that cannot carry its loads is infinitely bad.
    pub(super) fn solve(&mut self) {
        let solved = self.tree.solve(self.graph, SEARCH_TOLERANCE_PU).or_else(|_| {
            // the voltages of another tree may have been a bad start
            self.tree.start_flat(self.graph);
            self.tree.solve(self.graph, SEARCH_TOLERANCE_PU)
        });
        self.quality = match solved {
            Ok(()) => self.tree.quality(self.graph, &self.bounds),
            Err(_) => Quality {
                violation: f64::INFINITY,
                loss_pu: f64::INFINITY,
            },
        };
    }

    fn gain_min_pu(&self) -> f64 {
        // without losses there is nothing to gain
        (self.quality.loss_pu.abs() * GAIN_MIN_SHARE).max(f64::MIN_POSITIVE)
    }

    /// Open switches that a loop can be closed with.
    pub(super) fn ties(&self) -> Vec<u32> {
        (0..self.graph.n_edges() as u32)
            .filter(|&edge| self.graph.is_switch[edge as usize] && !self.tree.closed[edge as usize])
            .collect()
    }

    /// Exchanges branches until no single exchange improves the state.
    pub(super) fn descend(&mut self) {
        let mut predicts = true;
        for _ in 0..PASSES_MAX {
            if predicts {
                let before = self.state();
                if self.sweep_by_prediction() > 0 {
                    self.solve();
                    if self
                        .quality
                        .is_better_than(&before.quality, before.quality.loss_pu.abs() * GAIN_MIN_SHARE)
                    {
                        continue;
                    }
                    // the rest is too close for the prediction, or limits stand in the way
                    self.restore(&before);
                    predicts = false;
                }
            }
            if !self.sweep_by_trial() {
                return;
            }
        }
    }

    /// One pass over all loops, each with the exchange that the prediction likes best, without a power flow in between: the first
    /// improvement is taken at once, and later loops see it.
    fn sweep_by_prediction(&mut self) -> usize {
        let mut n_exchanges = 0;
        let gain_min_pu = self.gain_min_pu();
        self.tree.prepare(self.graph);
        for tie in self.ties() {
            let mut best: Option<Exchange> = None;
            self.tree.exchanges(self.graph, tie, |exchange| {
                if exchange.loss_change_pu < best.map_or(-gain_min_pu, |best| best.loss_change_pu) {
                    best = Some(exchange);
                }
            });
            if let Some(best) = best {
                self.tree.exchange(self.graph, best.close, best.open);
                self.tree.prepare(self.graph);
                n_exchanges += 1;
            }
        }
        n_exchanges
    }

    /// One pass over all loops, each exchange checked by a power flow. Where limits are violated, exchanges that cost losses are
    /// tried too. Says whether anything has improved.
    fn sweep_by_trial(&mut self) -> bool {
        let mut has_improved = false;
        let mut candidates: Vec<Exchange> = Vec::new();
        self.tree.prepare(self.graph);
        for tie in self.ties() {
            let gain_min_pu = self.gain_min_pu();
            let worth = match self.quality.violation > 0.0 {
                true => f64::INFINITY,
                // the prediction errs by the change of the voltages: some per cent of the losses at most
                false => gain_min_pu,
            };
            candidates.clear();
            self.tree.exchanges(self.graph, tie, |exchange| {
                if exchange.loss_change_pu < worth {
                    candidates.push(exchange);
                }
            });
            candidates.sort_unstable_by(|x, y| x.loss_change_pu.total_cmp(&y.loss_change_pu).then(x.open.cmp(&y.open)));
            candidates.truncate(TRIALS_PER_LOOP);
            for candidate in &candidates {
                let before = self.state();
                self.tree.exchange(self.graph, candidate.close, candidate.open);
                self.solve();
                if self.quality.is_better_than(&before.quality, gain_min_pu) {
                    has_improved = true;
                    self.tree.prepare(self.graph);
                    break;
                }
                self.restore(&before);
                self.tree.prepare(self.graph);
            }
        }
        has_improved
    }

    /// Iterated local search: kicks the best state by random exchanges, descends, keeps what is better.
    pub(super) fn escape(&mut self, n_kicks: usize, random: &mut Random) {
        let mut best = self.state();
        for _ in 0..n_kicks {
            let mut has_moved = false;
            for _ in 0..EXCHANGES_PER_KICK {
                has_moved |= self.kick(random);
            }
            if !has_moved {
                break;
            }
            self.solve();
            if self.quality.loss_pu.is_finite() {
                self.descend();
            }
            match self
                .quality
                .is_better_than(&best.quality, best.quality.loss_pu.abs() * GAIN_MIN_SHARE)
            {
                true => best = self.state(),
                false => self.restore(&best),
            }
        }
        self.restore(&best);
    }

    /// Closes a random open switch and opens a random one of its loop.
    fn kick(&mut self, random: &mut Random) -> bool {
        let ties = self.ties();
        let Some(&tie) = ties.get(random.index(ties.len())) else {
            return false;
        };
        let (a, b, top) = self.tree.meet(self.graph, tie);
        let mut loop_switches = Vec::new();
        for end in [a, b] {
            let mut at = end;
            while at != top {
                let edge = self.tree.edge[at];
                if self.graph.is_switch[edge as usize] {
                    loop_switches.push(edge);
                }
                at = self.tree.parent[at] as usize;
            }
        }
        match loop_switches.get(random.index(loop_switches.len())) {
            Some(&open) => {
                self.tree.exchange(self.graph, tie, open);
                true
            }
            None => false,
        }
    }
}
