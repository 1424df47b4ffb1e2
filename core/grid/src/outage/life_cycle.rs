//! One outage from its first suspicion to its end.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use super::Micros;
use super::inference::Suspect;
use super::record::{CloseReason, Interruption, Outage, OutageId};
use super::sections::{Device, Sections};
use super::supply::PointId;
use crate::network::ComponentId;

/// A point that an outage has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) n_customers: u32,
    pub(crate) has_gasped: bool,
    pub(crate) has_returned: bool,
    pub(crate) was_missed: bool,
    /// First sign of life since, event time.
    pub(crate) back_at: Option<Micros>,
}

impl Member {
    /// Whether it says so itself (gasp, restoration, missing readings), not only its neighbours.
    pub(crate) fn was_dark(&self) -> bool {
        self.has_gasped || self.has_returned || self.was_missed
    }
}

/// An outage with what it needs to go on. Incidents end, but are kept for a while: late messages repair them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Incident {
    pub(crate) id: OutageId,
    pub(crate) device: Device,
    alternatives: Vec<Device>,
    node: ComponentId,
    feeder: Option<ComponentId>,
    n_unmetered: u32,
    pub(crate) opened_at: Micros,
    pub(crate) opened_log: Micros,
    pub(crate) confidence_ppm: u32,
    pub(crate) members: BTreeMap<PointId, Member>,
    /// Where it sits in the present topology; `None` if its device feeds nothing in it.
    pub(crate) place: Option<Place>,
    /// Log time at which the second dark point came back: from then on, more are awaited.
    pub(crate) restoring_since: Option<Micros>,
    pub(crate) closed: Option<Closed>,
    /// The incident that has taken its members.
    pub(crate) merged_into: Option<u64>,
    pub(crate) acknowledged: bool,
    /// As last told.
    pub(crate) row: Option<Outage>,
    pub(crate) interruptions: Vec<Interruption>,
}

/// A section of the present topology, or a single point of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) section: u32,
    pub(crate) single: Option<PointId>,
    /// Positions.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) reason: CloseReason,
    /// Event time, if it is not the last return.
    pub(crate) at: Micros,
    pub(crate) log: Micros,
}

impl Place {
    pub(crate) fn of(suspect: &Suspect, sections: &Sections) -> Self {
        let single = suspect
            .is_single
            .then(|| sections.points.get(suspect.points.start).map(|point| point.point))
            .flatten();
        Self {
            section: suspect.section,
            single,
            start: suspect.points.start,
            end: suspect.points.end,
        }
    }

    pub(crate) fn holds(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl Incident {
    pub(crate) fn open(suspect: &Suspect, sections: &Sections, log_time: Micros) -> Self {
        let mut this = Self {
            id: OutageId {
                device: suspect.device,
                opened_at_us: suspect.onset_us,
            },
            device: suspect.device,
            alternatives: Vec::new(),
            node: 0,
            feeder: None,
            n_unmetered: 0,
            opened_at: suspect.onset_us,
            opened_log: log_time,
            confidence_ppm: 0,
            members: BTreeMap::new(),
            place: None,
            restoring_since: None,
            closed: None,
            merged_into: None,
            acknowledged: false,
            row: None,
            interruptions: Vec::new(),
        };
        this.follow(suspect, sections);
        this
    }

    /// Takes over what the inference says now.
    pub(crate) fn follow(&mut self, suspect: &Suspect, sections: &Sections) {
        self.device = suspect.device;
        self.alternatives = suspect.alternatives.clone();
        self.confidence_ppm = suspect.confidence_ppm;
        self.opened_at = self.opened_at.min(suspect.onset_us);
        self.place = Some(Place::of(suspect, sections));
        if let Some(section) = sections.sections.get(suspect.section as usize) {
            self.node = match (self.device, sections.points.get(suspect.points.start)) {
                (Device::Point(_), Some(point)) => point.node,
                _ => section.node,
            };
            self.feeder = section.feeder;
            self.n_unmetered = if matches!(self.device, Device::Point(_)) {
                0
            } else {
                section.n_unmetered
            };
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Members that said themselves that they were dark, and are back.
    pub(crate) fn n_returned(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.was_dark() && member.back_at.is_some())
            .count()
    }

    /// When the last member came back.
    pub(crate) fn last_return(&self) -> Option<Micros> {
        self.members.values().filter_map(|member| member.back_at).max()
    }

    pub(crate) fn as_row(&self) -> Outage {
        let customers = |f: &dyn Fn(&Member) -> bool| self.members.values().filter(|m| f(m)).map(|m| m.n_customers).sum::<u32>();
        let n_gasps = self.members.values().filter(|member| member.has_gasped).count() as u32;
        Outage {
            id: self.id,
            device: self.device,
            alternatives: self.alternatives.clone(),
            node: self.node,
            feeder: self.feeder,
            n_customers: customers(&|_| true).saturating_add(self.n_unmetered),
            n_customers_out: match self.is_open() {
                true => customers(&|member| member.back_at.is_none()).saturating_add(self.n_unmetered),
                false => 0,
            },
            n_gasps,
            opened_at_us: self.opened_at,
            opened_log_us: self.opened_log,
            closed_at_us: self.closed_at(),
            closed_because: self.closed.map(|closed| closed.reason),
            confidence_ppm: self.confidence_ppm,
            acknowledged: self.acknowledged,
        }
    }

    fn closed_at(&self) -> Option<Micros> {
        let closed = self.closed?;
        match closed.reason {
            CloseReason::Restored => Some(self.last_return().unwrap_or(closed.at).max(self.opened_at)),
            _ => Some(closed.at.max(self.opened_at)),
        }
    }

    /// Who was interrupted, once the outage is over because supply came back, or an operator says that it did.
    pub(crate) fn as_interruptions(&self) -> Vec<Interruption> {
        let reason = self.closed.map(|closed| closed.reason);
        if !matches!(reason, Some(CloseReason::Restored | CloseReason::Operator)) {
            return Vec::new();
        }
        let Some(closed_at) = self.closed_at() else { return Vec::new() };
        let interruption = |point, n_customers, end_us| Interruption {
            outage: self.id,
            feeder: self.feeder,
            point,
            n_customers,
            start_us: self.opened_at,
            end_us,
        };
        self.members
            .iter()
            .filter(|(_, member)| member.n_customers > 0)
            .map(|(&point, member)| interruption(Some(point), member.n_customers, member.back_at.unwrap_or(closed_at)))
            .chain((self.n_unmetered > 0).then(|| interruption(None, self.n_unmetered, closed_at)))
            .collect()
    }
}
