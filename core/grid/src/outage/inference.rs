//! The exact most probable set of failed devices, kept up to date.
//!
//! Bottom-up over the tree of sections: `best = max(this one failed, the best of the parts)`, and beside it the same with sums in the
//! place of maxima, which gives every failure's posterior probability. A changed point touches the sections above it: O(depth).
//!
//! # Source
//! Max-product and sum-product elimination on a tree: D. Koller, N. Friedman, "Probabilistic Graphical Models", MIT Press 2009, chapters
//! 10 and 13. The rule of succession behind [`LogFactorials::arrivals`]: P. S. Laplace, 1774.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::probabilities::{LogFactorials, MicroNats, NAT, Probabilities, Weights, log_add};
use super::sections::{Device, Section, Sections};
use super::{Micros, SECOND_US};
use crate::error::GridError;

/// Gasps further apart than this have different causes.
pub(crate) const COHORT_US: Micros = 120 * SECOND_US;
/// Points with signs of failure that it takes to blame a device that feeds as many; with fewer behind it, all of them.
const SUPPORT_MIN: u32 = 3;
/// Most that silence without any gasp can be trusted: a lost concentrator looks the same.
const SILENCE_CONFIDENCE_MAX: f64 = 0.5;

/// What a point says at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointState {
    /// Newest event time at which it had supply.
    pub alive_at: Option<Micros>,
    /// First gasp since then.
    pub gasp_at: Option<Micros>,
    /// Its readings are missing.
    pub is_overdue: bool,
    /// It has been silent for so long, without a gasp, that its silence says nothing any more.
    pub is_forgotten: bool,
}

impl PointState {
    fn is_suspicious(self) -> bool {
        !self.is_forgotten && (self.gasp_at.is_some() || self.is_overdue)
    }

    /// Since when it is known to have had supply, if it counts as alive.
    fn alive_key(self) -> Micros {
        match self.is_suspicious() || self.is_forgotten {
            true => Micros::MIN,
            false => self.alive_at.unwrap_or(Micros::MIN),
        }
    }
}

/// A device that has probably failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// What to report.
    pub device: Device,
    /// Devices whose failure looks the same.
    pub alternatives: Vec<Device>,
    /// Positions of the points behind it.
    pub points: Range<usize>,
    /// First gasp of the incident; without gasps, the last time that one of the silent points was heard. Event time.
    pub onset_us: Micros,
    /// Gasps behind it that stand.
    pub n_gasps: u32,
    /// Posterior probability, in parts per million.
    pub confidence_ppm: u32,
    pub(crate) section: u32,
    pub(crate) is_single: bool,
}

/// What a section knows of the points below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    n_gasps: u32,
    n_overdue: u32,
    n_suspicious: u32,
    n_forgotten: u32,
    n_forgotten_able: u32,
    /// Alive after the onset; of these, such that send gasps. Only kept for suspicious sections.
    n_alive: u32,
    n_alive_able: u32,
    /// The onset for which `n_alive` was counted: whole seconds, so that it does not move with every gasp.
    counted_from: Micros,
    newest_gasp: Micros,
    onset: Micros,
    silent_since: Micros,
    /// This one failed, against everything below has supply; `MIN` if it cannot be blamed.
    failed: MicroNats,
    best: MicroNats,
    sum: MicroNats,
    fails: bool,
}

impl Tally {
    const QUIET: Self = Self {
        n_gasps: 0,
        n_overdue: 0,
        n_suspicious: 0,
        n_forgotten: 0,
        n_forgotten_able: 0,
        n_alive: 0,
        n_alive_able: 0,
        counted_from: Micros::MAX,
        newest_gasp: Micros::MIN,
        onset: Micros::MAX,
        silent_since: Micros::MIN,
        failed: MicroNats::MIN,
        best: 0,
        sum: 0,
        fails: false,
    };

    fn of_point(state: PointState, is_able: bool, weights: Weights) -> Self {
        let (has_gasp, is_overdue) = (state.gasp_at.is_some(), state.is_overdue && !state.is_forgotten);
        // a gasp alone may be a false one; that the meter then misses its readings confirms it
        let is_confirmed = has_gasp && is_overdue;
        Self {
            n_gasps: u32::from(has_gasp),
            n_overdue: u32::from(is_overdue),
            n_suspicious: u32::from(state.is_suspicious()),
            n_forgotten: u32::from(state.is_forgotten),
            n_forgotten_able: u32::from(state.is_forgotten && is_able),
            newest_gasp: state.gasp_at.unwrap_or(Micros::MIN),
            onset: state.gasp_at.unwrap_or(Micros::MAX),
            silent_since: match is_overdue && !has_gasp {
                true => state.alive_at.unwrap_or(Micros::MIN),
                false => Micros::MIN,
            },
            failed: if is_confirmed { weights.overdue } else { MicroNats::MIN },
            best: if is_confirmed { weights.overdue } else { 0 },
            sum: if is_confirmed { log_add(0, weights.overdue) } else { 0 },
            fails: is_confirmed,
            ..Self::QUIET
        }
    }

    fn add(&mut self, part: &Self) {
        self.n_gasps += part.n_gasps;
        self.n_overdue += part.n_overdue;
        self.n_suspicious += part.n_suspicious;
        self.n_forgotten += part.n_forgotten;
        self.n_forgotten_able += part.n_forgotten_able;
        self.newest_gasp = self.newest_gasp.max(part.newest_gasp);
        self.silent_since = self.silent_since.max(part.silent_since);
        self.best += part.best;
        self.sum += part.sum;
    }

    /// The second from which on a sign of life contradicts a failure.
    fn contradicted_from(&self) -> Micros {
        let onset = match (self.n_suspicious, self.n_gasps) {
            (0, _) => return Micros::MAX,
            (_, 0) => self.silent_since,
            _ => self.onset,
        };
        onset.saturating_add(SECOND_US - 1).div_euclid(SECOND_US).saturating_mul(SECOND_US)
    }
}

/// The state of inference of one grid.
#[derive(Debug, Clone)]
pub struct Inference {
    sections: Sections,
    weights: Weights,
    logs: LogFactorials,
    states: Vec<PointState>,
    /// By position; what [`PointState::alive_key`] says, densely, as whole ranges are counted.
    alive_keys: Vec<Micros>,
    /// Points that send gasps before each position.
    n_able_before: Vec<u32>,
    tallies: Vec<Tally>,
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
    /// No section counts signs of life from later on than this.
    counted_from_max: Micros,
    /// Number of calls of `settle`, and for each section the last that changed it.
    n_settled: u64,
    settled_at: Vec<u64>,
}

impl Inference {
    /// Starts with everything supplied.
    ///
    /// # Errors
    /// [`GridError::Probability`] for a probability that is none.
    pub fn new(sections: Sections, probabilities: &Probabilities) -> Result<Self, GridError> {
        let n = sections.points.len();
        let mut n_able_before = Vec::with_capacity(n + 1);
        let mut n_able = 0;
        n_able_before.push(0);
        for point in &sections.points {
            n_able += u32::from(point.sends_gasps);
            n_able_before.push(n_able);
        }
        Ok(Self {
            weights: probabilities.weights()?,
            logs: LogFactorials::up_to(n),
            states: vec![PointState::default(); n],
            alive_keys: vec![Micros::MIN; n],
            n_able_before,
            tallies: vec![Tally::QUIET; sections.sections.len()],
            dirty: Vec::new(),
            is_dirty: vec![false; sections.sections.len()],
            counted_from_max: Micros::MIN,
            n_settled: 0,
            settled_at: vec![0; sections.sections.len()],
            sections,
        })
    }

    /// The sections it works on.
    pub fn sections(&self) -> &Sections {
        &self.sections
    }

    /// What a point says at the moment.
    pub fn state(&self, position: usize) -> PointState {
        self.states.get(position).copied().unwrap_or_default()
    }

    /// Whether anything at all is suspicious.
    pub fn is_quiet(&self) -> bool {
        self.dirty.is_empty() && self.tallies.first().is_none_or(|root| root.n_suspicious == 0)
    }

    /// Whether something has changed since [`Inference::settle`].
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// A point says something else. Costs the depth of the tree; a reading in a quiet grid costs nothing.
    pub fn set(&mut self, position: usize, state: PointState) {
        let (Some(old), Some(&section)) = (self.states.get(position).copied(), self.sections.section_of.get(position)) else {
            return;
        };
        if old == state {
            return;
        }
        self.states[position] = state;
        let (before, after) = (self.alive_keys[position], state.alive_key());
        self.alive_keys[position] = after;
        let changes_tally = (old.gasp_at, old.is_overdue, old.is_forgotten) != (state.gasp_at, state.is_overdue, state.is_forgotten)
            || (old.is_overdue && old.alive_at != state.alive_at);
        // that it was alive before counts already, wherever it counts
        let counts_already = before > self.counted_from_max && after > self.counted_from_max;
        if !changes_tally && (counts_already || self.is_quiet()) {
            return;
        }
        let is_able = self.sections.points[position].sends_gasps;
        // a section that changes, changes all above it
        let mut changes = changes_tally;
        let mut at = Some(section);
        while let Some(section) = at {
            let index = section as usize;
            let tally = &mut self.tallies[index];
            let (counted, counts) = (before > tally.counted_from, after > tally.counted_from);
            if counts != counted {
                let step = |n: &mut u32| *n = if counts { *n + 1 } else { *n - 1 };
                step(&mut tally.n_alive);
                if is_able {
                    step(&mut tally.n_alive_able);
                }
            }
            changes |= counts != counted;
            if changes {
                self.touch(section);
            }
            at = self.sections.sections[index].parent;
        }
    }

    fn touch(&mut self, section: u32) {
        if !std::mem::replace(&mut self.is_dirty[section as usize], true) {
            self.dirty.push(section);
        }
    }

    /// Brings all sections up to date. Returns whether any had to be.
    pub fn settle(&mut self) -> bool {
        let mut dirty = std::mem::take(&mut self.dirty);
        let any = !dirty.is_empty();
        // those below have larger numbers
        dirty.sort_unstable_by(|a, b| b.cmp(a));
        for &section in &dirty {
            self.is_dirty[section as usize] = false;
            let tally = self.tally(section as usize);
            if tally.counted_from != Micros::MAX {
                self.counted_from_max = self.counted_from_max.max(tally.counted_from);
            }
            self.settled_at[section as usize] = self.n_settled + 1;
            self.tallies[section as usize] = tally;
        }
        self.n_settled += 1;
        dirty.clear();
        self.dirty = dirty;
        any
    }

    /// Whether the last [`Inference::settle`] looked at this section.
    pub(crate) fn has_changed(&self, section: u32) -> bool {
        self.settled_at.get(section as usize).is_some_and(|&at| at == self.n_settled)
    }

    fn tally(&self, index: usize) -> Tally {
        let section = &self.sections.sections[index];
        let old = &self.tallies[index];
        let mut tally = Tally::QUIET;
        for position in section.own.clone() {
            tally.add(&self.point_tally(position as usize));
        }
        for &child in self.children(section) {
            tally.add(&self.tallies[child as usize]);
        }
        // the incident is the newest one; what gasped long before has a cause of its own
        let belongs = tally.newest_gasp.saturating_sub(COHORT_US);
        let points = section
            .own
            .clone()
            .filter_map(|position| self.states[position as usize].gasp_at)
            .filter(|&gasp| gasp > belongs);
        let parts = self
            .children(section)
            .iter()
            .map(|&child| &self.tallies[child as usize])
            .filter(|part| part.n_gasps > 0 && part.newest_gasp > belongs);
        tally.onset = points.chain(parts.map(|part| part.onset)).min().unwrap_or(Micros::MAX);

        tally.counted_from = tally.contradicted_from();
        (tally.n_alive, tally.n_alive_able) = match tally.counted_from == old.counted_from {
            true => (old.n_alive, old.n_alive_able),
            false => self.count_alive(&section.points, tally.counted_from),
        };
        tally.failed = self.failed(section, &tally);
        tally.fails = tally.failed > tally.best;
        tally.best = tally.best.max(tally.failed);
        tally.sum = log_add(tally.sum, tally.failed);
        tally
    }

    fn point_tally(&self, position: usize) -> Tally {
        Tally::of_point(self.states[position], self.sections.points[position].sends_gasps, self.weights)
    }

    fn children(&self, section: &Section) -> &[u32] {
        &self.sections.child_list[section.children.start as usize..section.children.end as usize]
    }

    fn count_alive(&self, points: &Range<u32>, from: Micros) -> (u32, u32) {
        if from == Micros::MAX {
            return (0, 0);
        }
        let range = points.start as usize..points.end as usize;
        let keys = &self.alive_keys[range.clone()];
        let able = &self.sections.points[range];
        let n = keys.iter().filter(|&&key| key > from).count();
        if n == 0 {
            return (0, 0);
        }
        let n_able = keys
            .iter()
            .zip(able)
            .filter(|(key, point)| **key > from && point.sends_gasps)
            .count();
        (n as u32, n_able as u32)
    }

    /// `ln P(evidence | failed) - ln P(evidence | all below has supply)`, with the prior.
    fn failed(&self, section: &Section, tally: &Tally) -> MicroNats {
        let n_points = section.points.end - section.points.start - tally.n_forgotten;
        let can_be_blamed = !section.devices.is_empty() && n_points > 1 && tally.n_suspicious >= SUPPORT_MIN.min(n_points);
        // a whole grid that falls silent without a gasp has lost its communication
        let is_mere_silence = tally.n_gasps == 0;
        let is_whole = tally.n_suspicious as usize * 2 > self.sections.points.len();
        if !can_be_blamed || is_mere_silence && (is_whole || tally.n_suspicious < SUPPORT_MIN) {
            return MicroNats::MIN;
        }
        let able = self.n_able_before[section.points.end as usize] - self.n_able_before[section.points.start as usize];
        let n_dark = able.saturating_sub(tally.n_alive_able + tally.n_forgotten_able).max(tally.n_gasps);
        let prior = self.weights.failure + ((section.failure_weight as f64).ln() * NAT).round() as MicroNats;
        // however long a row of devices is, it has mostly not failed
        prior.min(self.weights.failure / 2)
            + self.logs.arrivals(tally.n_gasps, n_dark)
            + i64::from(tally.n_gasps) * self.weights.gasp
            + i64::from(tally.n_overdue) * self.weights.overdue
            + i64::from(tally.n_alive) * self.weights.alive
    }

    /// The most probable set of failed devices, in the order of their points. No one is behind another.
    ///
    /// [`Inference::settle`] has to be called first.
    pub fn suspects(&self) -> Vec<Suspect> {
        let mut suspects = Vec::new();
        // with the probability that nothing above has failed
        let mut to_visit: Vec<(u32, f64)> = vec![(0, 1.0)];
        while let Some((index, share)) = to_visit.pop() {
            let (Some(section), Some(tally)) = (self.sections.sections.get(index as usize), self.tallies.get(index as usize)) else {
                continue;
            };
            if tally.n_suspicious == 0 {
                continue;
            }
            let failed = ratio(tally.failed, tally.sum);
            if tally.fails {
                suspects.push(self.suspect(index, section, tally, share * failed));
                continue;
            }
            let share = share * (1.0 - failed);
            for position in section.own.clone() {
                let point = self.point_tally(position as usize);
                if point.fails {
                    suspects.push(self.single(index, section, position, &point, share * ratio(point.failed, point.sum)));
                }
            }
            to_visit.extend(self.children(section).iter().rev().map(|&child| (child, share)));
        }
        suspects
    }

    fn suspect(&self, index: u32, section: &Section, tally: &Tally, confidence: f64) -> Suspect {
        let device = section.devices.first().copied().unwrap_or(Device::Node(section.node));
        let confidence = if tally.n_gasps == 0 {
            confidence.min(SILENCE_CONFIDENCE_MAX)
        } else {
            confidence
        };
        Suspect {
            device,
            alternatives: section.devices.iter().copied().filter(|&other| other != device).collect(),
            points: section.points.start as usize..section.points.end as usize,
            onset_us: if tally.n_gasps == 0 { tally.silent_since } else { tally.onset },
            n_gasps: tally.n_gasps,
            confidence_ppm: ppm(confidence),
            section: index,
            is_single: false,
        }
    }

    fn single(&self, index: u32, section: &Section, position: u32, tally: &Tally, confidence: f64) -> Suspect {
        let position = position as usize;
        let is_alone = section.points.end - section.points.start == 1 && !section.devices.is_empty();
        let point = Device::Point(self.sections.points[position].point);
        let device = if is_alone { section.devices[0] } else { point };
        Suspect {
            device,
            alternatives: match is_alone {
                true => section.devices[1..].iter().copied().chain([point]).collect(),
                false => Vec::new(),
            },
            points: position..position + 1,
            onset_us: tally.onset,
            n_gasps: 1,
            confidence_ppm: ppm(confidence),
            section: index,
            is_single: true,
        }
    }
}

fn ratio(part: MicroNats, whole: MicroNats) -> f64 {
    match part == MicroNats::MIN {
        true => 0.0,
        false => ((part - whole) as f64 / NAT).exp().clamp(0.0, 1.0),
    }
}

fn ppm(probability: f64) -> u32 {
    (probability.clamp(0.0, 1.0) * 1e6).round() as u32
}

#[cfg(test)]
#[path = "inference_tests.rs"]
mod tests;
