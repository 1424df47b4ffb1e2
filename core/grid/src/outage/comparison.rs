//! What becomes of the open outages when the inference's answer changes.
//!
//! A suspect at the place of an incident, or around it at the same time, is that incident going on; one inside it is what has become
//! of it once nothing more is expected to come back; any other is a new one. An incident without suspect is over.

use std::collections::{BTreeMap, BTreeSet};

use super::Micros;
use super::SECOND_US;
use super::inference::{COHORT_US, Suspect};
use super::life_cycle::{Closed, Incident, Member, Place};
use super::monitor::OutageMonitor;
use super::record::{CloseReason, OutageId};
use super::supply::PointId;

/// A change of confidence that is told although nothing else has changed.
const CONFIDENCE_STEP_PPM: u32 = 10_000;
/// Meters come back one after the other; for so long after the second, the rest is awaited before an outage is said to have shrunk.
pub(super) const RETURN_US: Micros = 120 * SECOND_US;
/// Points that came back before a return is taken for the beginning of the restoration.
const RETURNED_MIN: usize = 2;

impl OutageMonitor {
    /// Sets the open incidents beside the suspects.
    pub(super) fn compare(&mut self, suspects: &[Suspect], log_time: Micros) {
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
        let is_other = incident.place != Some(Place::of(suspect, self.inference.sections())) || incident.row.is_none();
        let has_changed = suspect.is_single || self.inference.has_changed(suspect.section);
        // that something far away has changed moves the confidence by a hair
        if !is_other && !has_changed && incident.confidence_ppm.abs_diff(suspect.confidence_ppm) < CONFIDENCE_STEP_PPM {
            return;
        }
        incident.follow(suspect, self.inference.sections());
        self.touched.insert(serial);
        if is_other || has_changed {
            self.take_members(serial, suspect);
        }
    }

    /// Everything behind the suspect that has not been heard since is taken to be dark.
    fn take_members(&mut self, serial: u64, suspect: &Suspect) {
        for position in suspect.points.clone() {
            if self.marks.get(position) == Some(&serial) {
                continue;
            }
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
            if let Some(mark) = self.marks.get_mut(position) {
                *mark = serial;
            }
        }
    }

    fn merge(&mut self, from: u64, into: u64, log_time: Micros) {
        self.marks.iter_mut().filter(|mark| **mark == from).for_each(|mark| *mark = 0);
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
        self.marks.iter_mut().filter(|mark| **mark == serial).for_each(|mark| *mark = 0);
        self.go_on(serial, suspect);
    }

    /// The inference no longer sees the incident: it is over, or was none, or only a few stragglers are left.
    fn settle_unsupported(&mut self, serial: u64, log_time: Micros) {
        let Some(incident) = self.incidents.get(&serial) else { return };
        let is_awaited = |point: PointId, member: &Member| member.back_at.is_none() && (incident.place.is_none() || self.is_dark(point));
        let awaits_any = incident.members.iter().any(|(&point, member)| is_awaited(point, member));
        let has_returned = incident.n_returned() > 0;
        // cut off by a switch while it is being repaired: nobody can say anything until it has supply again
        if incident.place.is_none() && awaits_any && incident.members.keys().all(|&point| self.position(point).is_none()) {
            return;
        }
        if awaits_any && (has_returned || incident.restoring_since.is_some()) {
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
}
