//! A tenant's grid in memory: the newest estimate of every area and where the switches stand, beside the bundle they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

use flexmeter_model::outcome::{AreaEstimate, FaultRow, OutageRow, ReconfigurationRow, ReliabilityRow, RowChange, SwitchRow};
use flexmeter_model::{EventTime, GridBundle};

/// Rows of one view, by their key.
#[derive(Debug)]
pub struct Keyed<R>(BTreeMap<Arc<str>, Arc<R>>);

impl<R> Keyed<R> {
    /// The rows with their keys, in the order of the keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<R>)> {
        self.0.iter()
    }

    /// One row.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<R>> {
        self.0.get(key)
    }

    pub(super) fn apply(&mut self, change: &RowChange<R>) {
        match &change.new {
            Some(row) => self.0.insert(change.key.clone(), row.clone()),
            None => self.0.remove(&change.key),
        };
    }
}

// derived ones would ask rows for what only pointers need
impl<R> Default for Keyed<R> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<R> Clone for Keyed<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A grid at one epoch. Copy on write: a snapshot costs one pointer, the writer copies the maps (pointers and switch rows) only while
/// a snapshot is held.
#[derive(Debug, Clone, Default)]
pub struct LiveGrid {
    pub(super) bundle: Arc<GridBundle>,
    pub(super) areas: BTreeMap<Arc<str>, Arc<AreaEstimate>>,
    pub(super) switches: BTreeMap<i64, SwitchRow>,
    pub(super) outages: Keyed<OutageRow>,
    pub(super) reliability: Keyed<ReliabilityRow>,
    pub(super) reconfigurations: Keyed<ReconfigurationRow>,
    pub(super) faults: Keyed<FaultRow>,
}

impl LiveGrid {
    pub(super) fn new(bundle: Arc<GridBundle>) -> Self {
        Self { bundle, ..Self::default() }
    }

    /// The bundle; empty for a tenant without one.
    #[must_use]
    pub fn bundle(&self) -> &Arc<GridBundle> {
        &self.bundle
    }

    /// Whether the tenant has a grid.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.bundle.areas.is_empty()
    }

    /// The newest estimates, by path of their area.
    #[must_use]
    pub fn areas(&self) -> &BTreeMap<Arc<str>, Arc<AreaEstimate>> {
        &self.areas
    }

    /// When the newest reading of an estimate was measured; `None` while it is made of pseudo-measurements alone.
    #[must_use]
    pub fn heard_at(estimate: &AreaEstimate) -> Option<EventTime> {
        // no reading can have the time zero, which is where the engine begins
        Some(estimate.event_time).filter(|time| time.micros() > 0)
    }

    /// Where the switches stand, by branch.
    #[must_use]
    pub fn switches(&self) -> &BTreeMap<i64, SwitchRow> {
        &self.switches
    }

    /// Outages, open and closed ones.
    #[must_use]
    pub fn outages(&self) -> &Keyed<OutageRow> {
        &self.outages
    }

    /// Reliability of the feeders.
    #[must_use]
    pub fn reliability(&self) -> &Keyed<ReliabilityRow> {
        &self.reliability
    }

    /// Proposals to switch otherwise, and what has become of them.
    #[must_use]
    pub fn reconfigurations(&self) -> &Keyed<ReconfigurationRow> {
        &self.reconfigurations
    }

    /// Located faults.
    #[must_use]
    pub fn faults(&self) -> &Keyed<FaultRow> {
        &self.faults
    }

    /// Whether a branch is closed now: as its switch says, or else as the bundle does.
    #[must_use]
    pub fn is_closed(&self, branch_id: i64, in_bundle: bool) -> bool {
        self.switches.get(&branch_id).map_or(in_bundle, |switch| switch.closed)
    }
}
