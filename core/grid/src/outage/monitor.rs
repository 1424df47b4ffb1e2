//! The outages of one grid over time.
//!
//! Facts are gathered for a slot of log time ([`SLOT_US`]) and then looked at together, so the answer does not depend on how the log is
//! cut into epochs, nor on the order inside a slot. What an outage was a slot ago is compared with the inference's answer now: it goes
//! on, grows, shrinks, splits, is merged into another, or ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::evidence::{Evidence, Fact};
use super::inference::{COHORT_US, Inference, PointState, Suspect};
use super::life_cycle::{Closed, Incident, Member, Place};
use super::probabilities::Probabilities;
use super::record::{Change, CloseReason, OutageId};
use super::sections::Sections;
use super::supply::{MeteringPoint, PointId, SupplyMap};
use super::{Micros, SECOND_US};
use crate::error::GridError;

/// Facts of one such interval of log time are looked at together: 200 ms.
pub const SLOT_US: Micros = SECOND_US / 5;
/// An outage that is younger than this when a switch cuts it off was the switch.
const SWITCH_GRACE_US: Micros = 10 * SECOND_US;
/// Meters come back one after the other; for so long after the second, the rest is awaited before an outage is said to have shrunk.
const RETURN_US: Micros = 120 * SECOND_US;
/// Looks at one leap of log time; what falls due beyond them is looked at together.
const LOOKS_MAX: usize = 1_000;
/// Points that came back before a return is taken for the beginning of the restoration.
const RETURNED_MIN: usize = 2;

/// Settings of a monitor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MonitorSettings {
    /// The model's probabilities.
    pub probabilities: Probabilities,
    /// Readings in a row that must be missing before silence says something. Default 2.
    pub n_missed: u32,
    /// How late a reading may be, log time. Default 15 s.
    pub lateness_us: Micros,
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
            forget_us: DAY_US,
            retention_us: 31 * DAY_US,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) point: MeteringPoint,
    pub(crate) evidence: Evidence,
    position: Option<usize>,
    /// The last incident that took it.
    owner: Option<u64>,
    /// Gasps up to here are explained by a switch.
    explained_until: Option<Micros>,
    /// Log time from which it can be missed at the earliest.
    supplied_log: Option<Micros>,
}

/// Watches one grid.
#[derive(Debug, Clone)]
pub struct OutageMonitor {
    settings: MonitorSettings,
    pub(crate) inference: Inference,
    pub(crate) records: HashMap<PointId, Record>,
    /// By position: log time at which silence begins to say something, or ceases to.
    timers: Vec<Micros>,
    /// No timer is earlier.
    next_timer: Micros,
    /// When an incident has been waited for long enough, log time.
    next_wake: Micros,
    /// Log time of the newest message of any point; and the first after a time in which the whole grid was silent.
    heard_log: Option<Micros>,
    hearing_since: Option<Micros>,
    /// Longest reading interval of any point.
    interval_us_max: Micros,
    pub(crate) incidents: BTreeMap<u64, Incident>,
    n_incidents: u64,
    touched: BTreeSet<u64>,
    /// Slot that is being gathered.
    slot: Option<i64>,
    is_moved: bool,
    changes: Vec<Change>,
    n_unknown: u64,
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
            inference,
            records: HashMap::new(),
            timers: Vec::new(),
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
        let sections = Sections::new(map)?;
        self.inference = Inference::new(sections, &self.settings.probabilities)?;
        let mut old = std::mem::take(&mut self.records);
        for &point in &map.points {
            let position = self.inference.sections().position(point.point);
            let mut record = old.remove(&point.point).unwrap_or_else(|| Record {
                point,
                evidence: Evidence::default(),
                position,
                owner: None,
                explained_until: None,
                supplied_log: None,
            });
            let is_held = record
                .owner
                .and_then(|owner| self.incidents.get(&owner))
                .is_some_and(Incident::is_open);
            if record.position.is_none() && position.is_some() && !is_held {
                record.explained_until = Some(log_time);
                record.supplied_log = Some(log_time);
            }
            (record.position, record.point) = (position, point);
            self.records.insert(point.point, record);
        }
        // points that are no more leave their incidents
        for (point, record) in old {
            if let Some(incident) = record.owner.and_then(|owner| self.incidents.get_mut(&owner)) {
                incident.members.remove(&point);
                self.touched.extend(record.owner);
            }
        }
        self.interval_us_max = map.points.iter().filter_map(|point| point.reading_interval_us).max().unwrap_or(0);
        self.timers = vec![Micros::MAX; self.inference.sections().n_points()];
        self.next_timer = Micros::MAX;
        let points: Vec<PointId> = self.inference.sections().points.iter().map(|point| point.point).collect();
        for point in points {
            self.refresh(point, log_time);
        }
        self.replace_incidents(log_time);
        self.is_moved = true;
        Ok(())
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
        record.evidence.apply(fact, log_time, difference);
        let owner = record.owner;
        if difference > 0 {
            if self.is_deaf(log_time) {
                self.hearing_since = Some(log_time);
            }
            self.heard_log = self.heard_log.max(Some(log_time));
        }
        self.refresh(point, log_time);
        if let Some(serial) = owner {
            self.tell_incident(serial, point, fact);
        }
    }

    /// Log time has come so far: finished slots are looked at.
    pub fn advance(&mut self, log_time: Micros) {
        self.enter(log_time);
    }

    /// An operator has taken note of an outage, or takes that back. Returns whether there is such an outage.
    pub fn acknowledge(&mut self, id: OutageId, acknowledged: bool) -> bool {
        let Some((&serial, incident)) = self.incidents.iter_mut().find(|(_, incident)| incident.id == id) else {
            return false;
        };
        incident.acknowledged = acknowledged;
        self.touched.insert(serial);
        self.tell();
        true
    }

    fn enter(&mut self, log_time: Micros) {
        let slot = log_time.div_euclid(SLOT_US);
        match self.slot {
            Some(current) if slot <= current => {}
            Some(current) => {
                let start = slot.saturating_mul(SLOT_US);
                self.look(current.saturating_add(1).saturating_mul(SLOT_US));
                // silence in between needs a look when it begins to say something
                for _ in 0..LOOKS_MAX {
                    let timer = if self.is_deaf(self.next_timer) {
                        Micros::MAX
                    } else {
                        self.next_timer
                    };
                    let due = timer.min(self.next_wake);
                    if due >= start {
                        break;
                    }
                    self.look(due.div_euclid(SLOT_US).saturating_add(1).saturating_mul(SLOT_US).min(start));
                }
                self.look(start);
                self.slot = Some(slot);
            }
            None => self.slot = Some(slot),
        }
    }

    /// Derives what a point says now, and when its silence will say more.
    fn refresh(&mut self, point: PointId, log_time: Micros) {
        let Some(record) = self.records.get(&point) else { return };
        let Some(position) = record.position else { return };
        let (state, timer) = self.derive(record, log_time);
        if let Some(at) = self.timers.get_mut(position) {
            *at = timer;
        }
        self.next_timer = self.next_timer.min(timer);
        self.inference.set(position, state);
    }

    fn derive(&self, record: &Record, log_time: Micros) -> (PointState, Micros) {
        let gasp_at = record
            .evidence
            .gasp_at()
            .filter(|&gasp| record.explained_until.is_none_or(|until| gasp > until));
        let allowance = record.point.reading_interval_us.map(|interval| {
            let patience = interval.saturating_mul(i64::from(self.settings.n_missed.max(1)));
            patience.saturating_add(self.settings.lateness_us)
        });
        let was_missed = record.position.is_some_and(|position| self.inference.state(position).is_overdue);
        let missed_from = allowance.and_then(|allowance| {
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
        let (alive_at, gasp_at) = (record.evidence.alive_at(), record.evidence.gasp_at());
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
        }
    }

    /// Everything up to a log time is known: what has changed?
    fn look(&mut self, log_time: Micros) {
        self.ring(log_time);
        let has_settled = self.inference.settle();
        if has_settled || self.is_moved || log_time >= self.next_wake || !self.touched.is_empty() {
            let suspects = self.inference.suspects();
            self.compare(&suspects, log_time);
            self.is_moved = false;
            self.forget(log_time);
            self.tell();
            self.next_wake = self.wake_after(log_time);
        }
    }

    fn wake_after(&self, log_time: Micros) -> Micros {
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

    /// Sets the open incidents beside the suspects.
    fn compare(&mut self, suspects: &[Suspect], log_time: Micros) {
        for serial in self.touched.iter().copied().collect::<Vec<_>>() {
            if let Some(incident) = self.incidents.get_mut(&serial)
                && incident.is_open()
                && incident.restoring_since.is_none()
                && incident.n_returned() >= RETURNED_MIN
            {
                incident.restoring_since = Some(log_time);
            }
        }
        let places: Vec<Place> = suspects.iter().map(|s| Place::of(s, self.inference.sections())).collect();
        let mut open: Vec<(Place, u64)> = self
            .incidents
            .iter()
            .filter(|(_, incident)| incident.is_open())
            .filter_map(|(&serial, incident)| incident.place.map(|place| (place, serial)))
            .collect();
        open.sort_unstable_by_key(|(place, serial)| (place.start, std::cmp::Reverse(place.end), *serial));

        let mut supported: BTreeSet<u64> = BTreeSet::new();
        let mut fragments: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut fresh: Vec<usize> = Vec::new();
        for (index, (suspect, place)) in suspects.iter().zip(&places).enumerate() {
            let from = open.partition_point(|(other, _)| other.start < place.start);
            let inside: Vec<u64> = open[from..]
                .iter()
                .take_while(|(other, _)| other.start < place.end)
                .filter(|(other, _)| place.holds(other))
                .map(|(_, serial)| *serial)
                .collect();
            let is_same_time = |serial: &u64| {
                self.incidents
                    .get(serial)
                    .is_some_and(|incident| incident.opened_at.abs_diff(suspect.onset_us) <= COHORT_US as u64)
            };
            let is_same_place = |serial: &&u64| {
                self.incidents
                    .get(serial)
                    .and_then(|incident| incident.place)
                    .is_some_and(|other| (other.section, other.single) == (place.section, place.single))
            };
            supported.extend(&inside);
            let goes_on = inside
                .iter()
                .find(is_same_place)
                .or_else(|| inside.iter().filter(|serial| is_same_time(serial)).min());
            if let Some(&serial) = goes_on {
                let merged: Vec<u64> = inside
                    .iter()
                    .copied()
                    .filter(|other| *other != serial && is_same_time(other))
                    .collect();
                self.go_on(serial, suspect);
                for other in merged {
                    self.merge(other, serial, log_time);
                }
                continue;
            }
            // the innermost that holds it: the last of those that begin before
            let holder = open[..from]
                .iter()
                .rev()
                .chain(open[from..].iter().take_while(|(other, _)| other.start == place.start));
            let holder = holder
                .filter(|(other, _)| other.holds(place) && other != place)
                .min_by_key(|(other, _)| other.end - other.start);
            match holder {
                Some((_, serial)) => fragments.entry(*serial).or_default().push(index),
                None => fresh.push(index),
            }
        }
        for (serial, parts) in fragments {
            let goes_on = supported.contains(&serial) || self.is_returning(serial, log_time);
            if goes_on {
                continue;
            }
            supported.insert(serial);
            let largest = parts
                .iter()
                .copied()
                .max_by_key(|&part| (suspects[part].points.len(), std::cmp::Reverse(part)));
            if let Some(part) = largest {
                self.shrink(serial, &suspects[part]);
                fresh.extend(parts.into_iter().filter(|&other| other != part));
            }
        }
        fresh.sort_unstable();
        for index in fresh {
            supported.insert(self.open(&suspects[index], log_time));
        }
        let unsupported: Vec<u64> = self
            .incidents
            .iter()
            .filter(|(serial, incident)| incident.is_open() && !supported.contains(serial))
            .map(|(&serial, _)| serial)
            .collect();
        for serial in unsupported {
            self.settle_unsupported(serial, log_time);
        }
    }

    fn is_returning(&self, serial: u64, log_time: Micros) -> bool {
        self.incidents
            .get(&serial)
            .and_then(|incident| incident.restoring_since)
            .is_some_and(|since| log_time.saturating_sub(since) < RETURN_US)
    }

    fn open(&mut self, suspect: &Suspect, log_time: Micros) -> u64 {
        let id = OutageId {
            device: suspect.device,
            opened_at_us: suspect.onset_us,
        };
        let known = self
            .incidents
            .iter()
            .find(|(_, incident)| incident.id == id)
            .map(|(&serial, _)| serial);
        let serial = known.unwrap_or_else(|| {
            self.n_incidents += 1;
            self.n_incidents
        });
        match self.incidents.get_mut(&serial) {
            // what was taken for its end was none
            Some(incident) => {
                incident.closed = None;
                incident.merged_into = None;
                incident.restoring_since = None;
            }
            None => {
                let incident = Incident::open(suspect, self.inference.sections(), log_time);
                self.incidents.insert(serial, incident);
            }
        }
        self.go_on(serial, suspect);
        serial
    }

    fn go_on(&mut self, serial: u64, suspect: &Suspect) {
        let Some(incident) = self.incidents.get_mut(&serial) else { return };
        let place = Place::of(suspect, self.inference.sections());
        let is_other = incident.place != Some(place) || incident.row.is_none();
        incident.follow(suspect, self.inference.sections());
        self.touched.insert(serial);
        if is_other || suspect.is_single || self.inference.has_changed(suspect.section) {
            self.take_members(serial, suspect);
        }
    }

    /// Everything behind the suspect that has not been heard since is taken to be dark.
    fn take_members(&mut self, serial: u64, suspect: &Suspect) {
        for position in suspect.points.clone() {
            let Some(point) = self.inference.sections().points.get(position).copied() else {
                continue;
            };
            let state = self.inference.state(position);
            let was_dark = state.gasp_at.is_some() || state.is_overdue;
            let is_alive = !was_dark && state.alive_at.is_some_and(|at| at > suspect.onset_us);
            if is_alive || state.is_forgotten {
                continue;
            }
            let Some(record) = self.records.get_mut(&point.point) else {
                continue;
            };
            let holder = record.owner.filter(|&owner| owner != serial);
            if holder.and_then(|owner| self.incidents.get(&owner)).is_some_and(Incident::is_open) {
                continue;
            }
            record.owner = Some(serial);
            let Some(incident) = self.incidents.get_mut(&serial) else { return };
            let opened_at = incident.opened_at;
            let member = incident.members.entry(point.point).or_insert(Member {
                n_customers: point.n_customers,
                was_missed: false,
                has_returned: false,
                has_gasped: record.evidence.has_gasp_within(opened_at.saturating_sub(COHORT_US), Micros::MAX),
                back_at: None,
            });
            member.was_missed |= state.is_overdue;
        }
    }

    fn merge(&mut self, from: u64, into: u64, log_time: Micros) {
        let Some(incident) = self.incidents.get_mut(&from) else { return };
        incident.closed = Some(Closed {
            reason: CloseReason::Merged,
            at: incident.opened_at,
            log: log_time,
        });
        incident.merged_into = Some(into);
        let members = std::mem::take(&mut incident.members);
        let opened_at = incident.opened_at;
        self.touched.insert(from);
        let Some(incident) = self.incidents.get_mut(&into) else { return };
        incident.opened_at = incident.opened_at.min(opened_at);
        for (point, member) in members {
            incident.members.insert(point, member);
            if let Some(record) = self.records.get_mut(&point) {
                record.owner = Some(into);
            }
        }
    }

    /// The incident goes on at a smaller place; who is elsewhere and dark is free for another one.
    fn shrink(&mut self, serial: u64, suspect: &Suspect) {
        let Some(incident) = self.incidents.get_mut(&serial) else { return };
        let sections = self.inference.sections();
        let is_behind = |point: PointId| sections.position(point).is_some_and(|position| suspect.points.contains(&position));
        let records = &mut self.records;
        incident.members.retain(|&point, member| {
            let stays = is_behind(point) || member.was_dark() && member.back_at.is_some();
            if !stays && let Some(record) = records.get_mut(&point) {
                record.owner = None;
            }
            stays
        });
        incident.restoring_since = None;
        self.go_on(serial, suspect);
    }

    /// The inference no longer sees the incident: it is over, or was none, or only a few stragglers are left.
    fn settle_unsupported(&mut self, serial: u64, log_time: Micros) {
        let Some(incident) = self.incidents.get(&serial) else { return };
        let n_dark = incident
            .members
            .iter()
            .filter(|(point, member)| member.back_at.is_none() && self.is_dark(**point))
            .count();
        let has_returned = incident.n_returned() > 0;
        // cut off by a switch while it was being repaired: nobody can say anything until it has supply again
        let is_cut_off = incident.place.is_none() && !incident.members.is_empty() && !has_returned;
        let is_cut_off = is_cut_off && incident.members.keys().all(|&point| self.position(point).is_none());
        if is_cut_off {
            return;
        }
        if n_dark > 0 && has_returned {
            let Some(incident) = self.incidents.get_mut(&serial) else { return };
            let since = *incident.restoring_since.get_or_insert(log_time);
            if log_time.saturating_sub(since) < RETURN_US {
                return;
            }
        }
        let reason = if has_returned {
            CloseReason::Restored
        } else {
            CloseReason::NotConfirmed
        };
        let Some(incident) = self.incidents.get_mut(&serial) else { return };
        incident.closed = Some(Closed {
            reason,
            at: incident.last_return().unwrap_or(log_time),
            log: log_time,
        });
        self.touched.insert(serial);
    }

    fn is_dark(&self, point: PointId) -> bool {
        self.records.get(&point).is_some_and(|record| {
            record.position.is_none_or(|position| {
                let state = self.inference.state(position);
                state.gasp_at.is_some() || state.is_overdue
            })
        })
    }

    fn position(&self, point: PointId) -> Option<usize> {
        self.records.get(&point).and_then(|record| record.position)
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
    fn tell(&mut self) {
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

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
