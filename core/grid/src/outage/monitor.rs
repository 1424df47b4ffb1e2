//! The outages of one grid over time.
//!
//! Facts are gathered for a slot of log time ([`SLOT_US`]) and then looked at together, so the answer does not depend on how the log is
//! cut into epochs, nor on the order inside a slot. What an outage was a slot ago is compared with the inference's answer now: it goes
//! on, grows, shrinks, splits, is merged into another, or ends.

use serde::{Deserialize, Serialize};

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::comparison::RETURN_US;
use super::evidence::{Evidence, Fact};
use super::inference::{COHORT_US, Inference, PointState};
use super::life_cycle::{Closed, Incident, Place};
use super::probabilities::Probabilities;
use super::record::{Change, CloseReason};
use super::sections::Sections;
use super::supply::{MeteringPoint, PointId, SupplyMap};
use super::{Micros, SECOND_US};
use crate::error::GridError;

/// Facts of one such interval of log time are looked at together: 200 ms.
pub const SLOT_US: Micros = SECOND_US / 5;
/// An outage that is younger than this when a switch cuts it off was the switch.
const SWITCH_GRACE_US: Micros = 10 * SECOND_US;
/// Looks at one leap of log time; what falls due beyond them is looked at together.
const LOOKS_MAX: usize = 1_000;

/// Settings of a monitor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MonitorSettings {
    /// The model's probabilities.
    pub probabilities: Probabilities,
    /// Readings in a row that must be missing before silence says something. Default 2.
    pub n_missed: u32,
    /// How late a reading may be, log time. Default 15 s.
    pub lateness_us: Micros,
    /// Readings in a row that a meter must have sent in time before its silence says something. Default 1: the first one is enough. With 2
    /// or more, a meter that reports more rarely than it is expected to is never missed.
    pub n_regular: u32,
    /// Silence without a gasp that lasts so long says nothing any more. Default 24 h.
    pub forget_us: Micros,
    /// How long an outage stays in the view after its end. Default 31 days.
    pub retention_us: Micros,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        const DAY_US: Micros = 86_400 * SECOND_US;
        Self {
            probabilities: Probabilities::default(),
            n_missed: 2,
            lateness_us: 15 * SECOND_US,
            n_regular: 1,
            forget_us: DAY_US,
            retention_us: 31 * DAY_US,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) point: MeteringPoint,
    pub(super) evidence: Evidence,
    pub(super) position: Option<usize>,
    /// The last incident that took it.
    pub(super) owner: Option<u64>,
    /// Gasps up to here are explained, by a switch or by an operator.
    pub(super) explained_until: Option<Micros>,
    /// What was missed up to this log time is explained by an operator.
    pub(super) explained_log: Option<Micros>,
    /// Log time from which it can be missed at the earliest.
    supplied_log: Option<Micros>,
    /// Readings in a row that came in time.
    n_in_time: u32,
    /// Whether it is missed, and has been since its last message.
    pub(super) is_missed: bool,
}

impl Record {
    fn new(point: MeteringPoint) -> Self {
        Self {
            point,
            evidence: Evidence::default(),
            position: None,
            owner: None,
            explained_until: None,
            explained_log: None,
            supplied_log: None,
            n_in_time: 0,
            is_missed: false,
        }
    }
}

/// Watches one grid.
#[derive(Debug, Clone)]
pub struct OutageMonitor {
    pub(super) settings: MonitorSettings,
    /// How the grid is supplied.
    pub(super) map: SupplyMap,
    pub(super) inference: Inference,
    pub(super) records: HashMap<PointId, Record>,
    /// What points said when they were last looked at, of those that say something else since; of several entries the first counts.
    pub(super) unsettled: Vec<(PointId, PointState)>,
    /// By position: log time at which silence begins to say something, or ceases to.
    pub(super) timers: Vec<Micros>,
    /// By position: the incident that has taken the point and knows all about it.
    pub(super) marks: Vec<u64>,
    /// No timer is earlier.
    pub(super) next_timer: Micros,
    /// When an incident has been waited for long enough, log time.
    pub(super) next_wake: Micros,
    /// Log time of the newest message of any point; and the first after a time in which the whole grid was silent.
    pub(super) heard_log: Option<Micros>,
    pub(super) hearing_since: Option<Micros>,
    /// Longest reading interval of any point.
    pub(super) interval_us_max: Micros,
    pub(super) incidents: BTreeMap<u64, Incident>,
    pub(super) n_incidents: u64,
    pub(super) touched: BTreeSet<u64>,
    /// Slot that is being gathered.
    pub(super) slot: Option<i64>,
    pub(super) is_moved: bool,
    pub(super) changes: Vec<Change>,
    pub(super) n_unknown: u64,
}

impl OutageMonitor {
    /// A monitor of a grid without nodes: [`OutageMonitor::set_supply`] gives it one.
    ///
    /// # Errors
    /// [`GridError::Probability`] for a probability that is none.
    pub fn new(settings: MonitorSettings) -> Result<Self, GridError> {
        let inference = Inference::new(Sections::new(&SupplyMap::default())?, &settings.probabilities)?;
        Ok(Self {
            settings,
            map: SupplyMap::default(),
            inference,
            records: HashMap::new(),
            unsettled: Vec::new(),
            timers: Vec::new(),
            marks: Vec::new(),
            next_timer: Micros::MAX,
            next_wake: Micros::MAX,
            heard_log: None,
            hearing_since: None,
            interval_us_max: 0,
            incidents: BTreeMap::new(),
            n_incidents: 0,
            touched: BTreeSet::new(),
            slot: None,
            is_moved: false,
            changes: Vec::new(),
            n_unknown: 0,
        })
    }

    /// Facts about points that the grid does not have.
    pub fn n_unknown(&self) -> u64 {
        self.n_unknown
    }

    /// What the inference knows at the moment.
    pub fn inference(&self) -> &Inference {
        &self.inference
    }

    /// Changes of the views since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The grid is supplied in another way, or has other points, from this log time on. Outages and evidence stay with their points.
    ///
    /// # Errors
    /// [`GridError::Supply`] for a supply that is no tree; the monitor then keeps the old one.
    pub fn set_supply(&mut self, map: &SupplyMap, log_time: Micros) -> Result<(), GridError> {
        self.enter(log_time);
        if *map == self.map {
            return Ok(());
        }
        let sections = Sections::new(map)?;
        self.inference = Inference::new(sections, &self.settings.probabilities)?;
        self.map = map.clone();
        self.unsettled.clear();
        let mut old = std::mem::take(&mut self.records);
        for &point in &map.points {
            let position = self.inference.sections().position(point.point);
            let mut record = old.remove(&point.point).unwrap_or_else(|| Record {
                position,
                ..Record::new(point)
            });
            // what they said before is explained by the switch that has just given them supply
            if record.position.is_none() && position.is_some() {
                record.explained_until = Some(log_time);
                record.supplied_log = Some(log_time);
                record.is_missed = false;
                if let Some(incident) = record.owner.and_then(|owner| self.incidents.get_mut(&owner)) {
                    incident.restoring_since.get_or_insert(log_time);
                }
            }
            (record.position, record.point) = (position, point);
            self.records.insert(point.point, record);
        }
        self.leave(&old, log_time);
        // a grid without points has never been
        if map.points.is_empty() {
            let all: Vec<u64> = self.incidents.keys().copied().collect();
            all.into_iter().for_each(|serial| self.remove(serial));
        }
        self.interval_us_max = map.points.iter().filter_map(|point| point.reading_interval_us).max().unwrap_or(0);
        self.timers = vec![Micros::MAX; self.inference.sections().n_points()];
        self.marks = vec![0; self.inference.sections().n_points()];
        self.next_timer = Micros::MAX;
        let points: Vec<PointId> = self.inference.sections().points.iter().map(|point| point.point).collect();
        for point in points {
            self.refresh(point, log_time);
        }
        self.replace_incidents(log_time);
        self.is_moved = true;
        Ok(())
    }

    /// Points are no more. An outage that has no others is over here, and nobody knows how it ends; any other goes on without them.
    fn leave(&mut self, gone: &HashMap<PointId, Record>, log_time: Micros) {
        for (&serial, incident) in self.incidents.iter_mut().filter(|(_, incident)| incident.is_open()) {
            match incident.members.keys().filter(|point| gone.contains_key(point)).count() {
                0 => continue,
                n if n == incident.members.len() => {
                    incident.closed = Some(Closed {
                        reason: CloseReason::GridReplaced,
                        at: log_time,
                        log: log_time,
                    });
                }
                _ => incident.members.retain(|point, _| !gone.contains_key(point)),
            }
            self.touched.insert(serial);
        }
    }

    /// Finds every open incident's place in the new sections.
    fn replace_incidents(&mut self, log_time: Micros) {
        let sections = self.inference.sections();
        for (&serial, incident) in self.incidents.iter_mut().filter(|(_, incident)| incident.is_open()) {
            let single = incident.place.and_then(|place| place.single);
            incident.place = match single {
                Some(point) => sections.position(point).map(|start| Place {
                    section: sections.section_of.get(start).copied().unwrap_or(0),
                    single,
                    start,
                    end: start + 1,
                }),
                None => sections.section_of_device(incident.device).and_then(|section| {
                    let points = &sections.sections.get(section as usize)?.points;
                    Some(Place {
                        section,
                        single: None,
                        start: points.start as usize,
                        end: points.end as usize,
                    })
                }),
            };
            let has_supply = incident.members.keys().any(|&point| sections.position(point).is_some());
            let is_young = log_time.saturating_sub(incident.opened_log) < SWITCH_GRACE_US;
            if !has_supply && is_young && !incident.members.is_empty() {
                incident.closed = Some(Closed {
                    reason: CloseReason::Switched,
                    at: log_time,
                    log: log_time,
                });
            }
            self.touched.insert(serial);
        }
    }

    /// Takes a fact about a point in (`difference` > 0) or back (< 0). Log times come in order; one that is behind counts as now.
    pub fn apply(&mut self, point: PointId, fact: Fact, log_time: Micros, difference: i64) {
        self.enter(log_time);
        let Some(record) = self.records.get_mut(&point) else {
            self.n_unknown += 1;
            return;
        };
        let heard = record.evidence.heard_log();
        record.evidence.apply(fact, log_time, difference);
        if record.evidence.heard_log() != heard {
            record.count_in_time(heard, log_time, allowance_us(&self.settings, &record.point));
        }
        let owner = record.owner;
        if difference > 0 {
            if self.is_deaf(log_time) {
                self.hearing_since = Some(log_time);
            }
            self.heard_log = self.heard_log.max(Some(log_time));
        }
        self.refresh(point, log_time);
        match difference < 0 {
            false => owner.into_iter().for_each(|serial| self.tell_incident(serial, point, fact)),
            // what is taken back may have been part of several
            true => {
                let all: Vec<u64> = self
                    .incidents
                    .iter()
                    .filter(|(_, i)| i.members.contains_key(&point))
                    .map(|(&serial, _)| serial)
                    .collect();
                all.into_iter().for_each(|serial| self.tell_incident(serial, point, fact));
            }
        }
    }

    /// Log time has come so far: finished slots are looked at.
    pub fn advance(&mut self, log_time: Micros) {
        self.enter(log_time);
    }

    pub(super) fn enter(&mut self, log_time: Micros) {
        let slot = log_time.div_euclid(SLOT_US);
        match self.slot {
            Some(current) if slot <= current => {}
            Some(current) => {
                let start = slot.saturating_mul(SLOT_US);
                self.look(current.saturating_add(1).saturating_mul(SLOT_US));
                // silence in between needs a look when it begins to say something
                for _ in 0..LOOKS_MAX {
                    let whole = |at: Micros| at.saturating_add(SLOT_US - 1).div_euclid(SLOT_US).saturating_mul(SLOT_US);
                    let timer = whole(self.next_timer);
                    let timer = if self.is_deaf(timer) { Micros::MAX } else { timer };
                    let due = timer.min(whole(self.next_wake));
                    if due >= start {
                        break;
                    }
                    self.look(due);
                }
                self.look(start);
                self.slot = Some(slot);
            }
            None => self.slot = Some(slot),
        }
    }

    /// Derives what a point says now, and when its silence will say more.
    pub(super) fn refresh(&mut self, point: PointId, log_time: Micros) {
        let Some(record) = self.records.get(&point) else { return };
        let Some(position) = record.position else { return };
        let (state, timer) = self.derive(record, log_time);
        if let Some(record) = self.records.get_mut(&point) {
            record.is_missed = state.is_overdue;
        }
        if let (Some(at), Some(mark)) = (self.timers.get_mut(position), self.marks.get_mut(position)) {
            (*at, *mark) = (timer, 0);
        }
        self.next_timer = self.next_timer.min(timer);
        let before = self.inference.state(position);
        if before != state {
            self.unsettled.push((point, before));
            self.inference.set(position, state);
        }
    }

    fn derive(&self, record: &Record, log_time: Micros) -> (PointState, Micros) {
        let gasp_at = record.evidence.gasp_at(record.explained_until);
        let allowance = allowance_us(&self.settings, &record.point).filter(|_| record.n_in_time >= self.settings.n_regular);
        let is_explained = record.explained_log.is_some() && record.evidence.heard_log() <= record.explained_log;
        let was_missed = record.is_missed;
        let missed_from = allowance.filter(|_| !is_explained).and_then(|allowance| {
            let heard = record.evidence.missed_from(allowance)?;
            let since = record.supplied_log.max(self.hearing_since).map(|log| log.saturating_add(allowance));
            // what was missed before everybody fell silent is still missed
            Some(if was_missed && heard <= log_time {
                heard
            } else {
                heard.max(since.unwrap_or(heard))
            })
        });
        let forgotten_from = missed_from.map(|from| from.saturating_add(self.settings.forget_us));
        let is_due = |at: Option<Micros>| at.is_some_and(|at| at <= log_time);
        let is_overdue = is_due(missed_from) && (was_missed || !self.is_deaf(log_time));
        let is_forgotten = gasp_at.is_none() && is_due(forgotten_from);
        let timer = match (is_overdue, is_forgotten) {
            (false, _) => missed_from,
            (true, false) if gasp_at.is_none() => forgotten_from,
            _ => None,
        };
        let state = PointState {
            alive_at: record.evidence.alive_at(),
            gasp_at,
            is_overdue: is_overdue && !is_forgotten,
            is_forgotten,
        };
        // whole seconds: meters that fall silent together are looked at together
        let whole = |at: Micros| at.saturating_add(SECOND_US - 1).div_euclid(SECOND_US).saturating_mul(SECOND_US);
        (state, timer.map_or(Micros::MAX, whole))
    }

    /// Whether the whole grid has been silent for so long that its communication must be broken: then nobody's silence says anything.
    fn is_deaf(&self, log_time: Micros) -> bool {
        self.heard_log
            .is_none_or(|heard| log_time.saturating_sub(heard) > self.interval_us_max)
    }

    fn ring(&mut self, log_time: Micros) {
        if log_time < self.next_timer || self.is_deaf(log_time) {
            return;
        }
        let due: Vec<PointId> = self
            .timers
            .iter()
            .zip(&self.inference.sections().points)
            .filter(|(timer, _)| **timer <= log_time)
            .map(|(_, point)| point.point)
            .collect();
        for point in due {
            self.refresh(point, log_time);
        }
        self.next_timer = self.timers.iter().copied().min().unwrap_or(Micros::MAX);
    }

    /// A member of an incident has said something.
    fn tell_incident(&mut self, serial: u64, point: PointId, fact: Fact) {
        let (Some(record), Some(incident)) = (self.records.get_mut(&point), self.incidents.get_mut(&serial)) else {
            return;
        };
        let (alive_at, gasp_at) = (record.evidence.alive_at(), record.evidence.gasp_at(None));
        let end = incident.closed.map_or(Micros::MAX, |closed| closed.at.saturating_add(COHORT_US));
        let Some(member) = incident.members.get_mut(&point) else { return };
        let before = *member;
        member.has_gasped = record.evidence.has_gasp_within(incident.opened_at.saturating_sub(COHORT_US), end);
        member.has_returned = record.evidence.has_restoration_within(incident.opened_at.saturating_add(1), end);
        let said = match fact {
            Fact::Restored(at) | Fact::Alive(at) => at,
            Fact::Gasp(_) => Micros::MAX,
        };
        member.back_at = match (gasp_at, alive_at.filter(|&at| at > incident.opened_at)) {
            (Some(gasp), _) if gasp <= end => None,
            (_, None) => None,
            (_, Some(alive)) => {
                let first = member.back_at.unwrap_or(alive).min(alive);
                Some(if said > incident.opened_at { first.min(said) } else { first })
            }
        };
        if *member == before {
            return;
        }
        self.touched.insert(serial);
        // its neighbours were wrong about it
        let was_never_dark = !member.was_dark() && member.back_at.is_some();
        if was_never_dark && incident.restoring_since.is_none() && incident.is_open() {
            incident.members.remove(&point);
            record.owner = None;
            self.unmark(point);
        }
    }

    /// The next look at the incident around a point looks at the point, too.
    pub(super) fn unmark(&mut self, point: PointId) {
        let position = self.records.get(&point).and_then(|record| record.position);
        if let Some(mark) = position.and_then(|position| self.marks.get_mut(position)) {
            *mark = 0;
        }
    }

    /// Everything up to a log time is known: what has changed?
    fn look(&mut self, log_time: Micros) {
        self.ring(log_time);
        let has_settled = self.inference.settle();
        self.unsettled.clear();
        if has_settled || self.is_moved || log_time >= self.next_wake || !self.touched.is_empty() {
            let suspects = self.inference.suspects();
            self.compare(&suspects, log_time);
            self.is_moved = false;
            self.forget(log_time);
            self.tell();
            self.next_wake = self.wake_after(log_time);
        }
    }

    pub(super) fn wake_after(&self, log_time: Micros) -> Micros {
        let retention_us = self.settings.retention_us;
        let dues = self
            .incidents
            .values()
            .filter_map(|incident| match (incident.closed, incident.restoring_since) {
                (Some(closed), _) => Some(closed.log.saturating_add(retention_us)),
                (None, since) => since.map(|since| since.saturating_add(RETURN_US)),
            });
        dues.filter(|&due| due > log_time).min().unwrap_or(Micros::MAX)
    }

    fn forget(&mut self, log_time: Micros) {
        let retention_us = self.settings.retention_us;
        let is_old = |incident: &Incident| {
            incident
                .closed
                .is_some_and(|closed| log_time.saturating_sub(closed.log) >= retention_us)
        };
        let old: Vec<u64> = self
            .incidents
            .iter()
            .filter(|(_, i)| is_old(i))
            .map(|(&serial, _)| serial)
            .collect();
        old.into_iter().for_each(|serial| self.remove(serial));
    }

    /// The incident has never been: its rows disappear.
    fn remove(&mut self, serial: u64) {
        let Some(incident) = self.incidents.remove(&serial) else { return };
        self.marks.iter_mut().filter(|mark| **mark == serial).for_each(|mark| *mark = 0);
        for point in incident.members.keys() {
            if let Some(record) = self.records.get_mut(point).filter(|record| record.owner == Some(serial)) {
                record.owner = None;
            }
        }
        self.changes.extend(incident.row.map(|row| Change::Outage(row, -1)));
        self.changes.extend(
            incident
                .interruptions
                .into_iter()
                .map(|interruption| Change::Interruption(interruption, -1)),
        );
        let merged: Vec<u64> = self
            .incidents
            .iter()
            .filter(|(_, i)| i.merged_into == Some(serial))
            .map(|(&other, _)| other)
            .collect();
        merged.into_iter().for_each(|other| self.remove(other));
    }

    /// Tells what has changed about the incidents that were touched.
    pub(super) fn tell(&mut self) {
        for serial in std::mem::take(&mut self.touched) {
            let Some(incident) = self.incidents.get_mut(&serial) else {
                continue;
            };
            // every gasp was taken back and nobody was missed: there is nothing to remember
            let is_baseless =
                !incident.is_open() && incident.merged_into.is_none() && incident.members.values().all(|member| !member.was_dark());
            if is_baseless {
                self.remove(serial);
                continue;
            }
            let row = incident.as_row();
            if incident.row.as_ref() != Some(&row) {
                let old = incident.row.replace(row.clone());
                self.changes.extend(old.map(|old| Change::Outage(old, -1)));
                self.changes.push(Change::Outage(row, 1));
            }
            let interruptions = incident.as_interruptions();
            if incident.interruptions != interruptions {
                let old = std::mem::replace(&mut incident.interruptions, interruptions.clone());
                self.changes.extend(old.into_iter().map(|i| Change::Interruption(i, -1)));
                self.changes.extend(interruptions.into_iter().map(|i| Change::Interruption(i, 1)));
            }
        }
    }
}

impl Record {
    /// It was heard at a log time, and before that at another: in time, too late, or in the same breath (which says nothing).
    fn count_in_time(&mut self, heard: Option<Micros>, log_time: Micros, allowance: Option<Micros>) {
        let (Some(allowance), Some(interval)) = (allowance, self.point.reading_interval_us) else {
            return;
        };
        let passed = heard.map(|heard| log_time.saturating_sub(heard));
        self.n_in_time = match passed {
            Some(passed) if passed > allowance => 1,
            Some(passed) if passed < interval / 2 => self.n_in_time,
            Some(_) => self.n_in_time.saturating_add(1),
            None => 1,
        };
    }
}

/// How long after its last message a point is missed; `None` if it never is.
fn allowance_us(settings: &MonitorSettings, point: &MeteringPoint) -> Option<Micros> {
    let patience = point.reading_interval_us?.saturating_mul(i64::from(settings.n_missed.max(1)));
    Some(patience.saturating_add(settings.lateness_us))
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
