//! What a monitor remembers over a restart: all of it, so that one that was restarted says from then on what one that was not would say.

use serde::{Deserialize, Serialize};

use std::collections::{BTreeSet, HashMap};

use super::Micros;
use super::inference::{Inference, PointState};
use super::life_cycle::Incident;
use super::monitor::{MonitorSettings, OutageMonitor, Record};
use super::record::Change;
use super::sections::Sections;
use super::supply::{PointId, SupplyMap};
use crate::error::GridError;

/// Everything that a monitor knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorState {
    map: SupplyMap,
    points: Vec<Point>,
    /// What points said when they were last looked at, of those that say something else since.
    unsettled: Vec<(PointId, PointState)>,
    incidents: Vec<(u64, Incident)>,
    n_incidents: u64,
    touched: BTreeSet<u64>,
    slot: Option<i64>,
    is_moved: bool,
    next_wake: Micros,
    heard_log: Option<Micros>,
    hearing_since: Option<Micros>,
    n_unknown: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    record: Record,
    /// What it says, when its silence will say more, and who has taken it; default where it has no supply.
    says: PointState,
    timer: Micros,
    mark: u64,
}

impl OutageMonitor {
    /// What to keep for a restart; changes have to be taken before.
    pub fn state(&self) -> MonitorState {
        let mut points: Vec<Point> = self
            .records
            .values()
            .map(|record| Point {
                record: record.clone(),
                says: record.position.map_or_else(PointState::default, |at| self.inference.state(at)),
                timer: record.position.and_then(|at| self.timers.get(at).copied()).unwrap_or(Micros::MAX),
                mark: record.position.and_then(|at| self.marks.get(at).copied()).unwrap_or(0),
            })
            .collect();
        points.sort_unstable_by_key(|point| point.record.point.point);
        let mut first: HashMap<PointId, PointState> = HashMap::new();
        for &(point, said) in &self.unsettled {
            first.entry(point).or_insert(said);
        }
        let mut unsettled: Vec<_> = first.into_iter().collect();
        unsettled.sort_unstable_by_key(|(point, _)| *point);
        MonitorState {
            map: self.map.clone(),
            points,
            unsettled,
            incidents: self
                .incidents
                .iter()
                .map(|(&serial, incident)| (serial, incident.clone()))
                .collect(),
            n_incidents: self.n_incidents,
            touched: self.touched.clone(),
            slot: self.slot,
            is_moved: self.is_moved,
            next_wake: self.next_wake,
            heard_log: self.heard_log,
            hearing_since: self.hearing_since,
            n_unknown: self.n_unknown,
        }
    }

    /// Goes on where a monitor stood, on the supply that it had. The first changes it tells are its views, from nothing.
    ///
    /// # Errors
    /// [`GridError::Probability`] for a probability that is none, [`GridError::Supply`] for a supply that is no tree.
    pub fn restore(settings: MonitorSettings, state: MonitorState) -> Result<Self, GridError> {
        let mut this = Self::new(settings)?;
        let sections = Sections::new(&state.map)?;
        this.inference = Inference::new(sections, &settings.probabilities)?;
        this.interval_us_max = state
            .map
            .points
            .iter()
            .filter_map(|point| point.reading_interval_us)
            .max()
            .unwrap_or(0);
        this.map = state.map;
        this.timers = vec![Micros::MAX; this.inference.sections().n_points()];
        this.marks = vec![0; this.inference.sections().n_points()];
        let unsettled: HashMap<PointId, PointState> = state.unsettled.into_iter().collect();
        let mut now = Vec::new();
        for Point {
            mut record,
            says,
            timer,
            mark,
        } in state.points
        {
            let id = record.point.point;
            record.position = this.inference.sections().position(id);
            if let Some(position) = record.position {
                (this.timers[position], this.marks[position]) = (timer, mark);
                let settled = unsettled.get(&id).copied();
                this.inference.set(position, settled.unwrap_or(says));
                now.extend(settled.map(|settled| (id, position, settled, says)));
            }
            this.records.insert(id, record);
        }
        this.inference.settle();
        for (id, position, settled, says) in now {
            this.unsettled.push((id, settled));
            this.inference.set(position, says);
        }
        this.next_timer = this.timers.iter().copied().min().unwrap_or(Micros::MAX);
        this.incidents = state.incidents.into_iter().collect();
        this.n_incidents = state.n_incidents;
        this.touched = state.touched;
        this.slot = state.slot;
        this.is_moved = state.is_moved;
        this.next_wake = state.next_wake;
        this.heard_log = state.heard_log;
        this.hearing_since = state.hearing_since;
        this.n_unknown = state.n_unknown;
        for incident in this.incidents.values() {
            this.changes.extend(incident.row.clone().map(|row| Change::Outage(row, 1)));
            let interruptions = incident.interruptions.iter();
            this.changes
                .extend(interruptions.map(|interruption| Change::Interruption(*interruption, 1)));
        }
        Ok(this)
    }
}
