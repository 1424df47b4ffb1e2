//! Live changes for server-sent events: bounded, and honest about what was left out.

use std::sync::Arc;

use flexmeter_model::outcome::{
    AlertRow, AreaEstimate, ClosedEpoch, FaultRow, GridOutcome, GridQuality, LatestChange, OutageRow, ReconfigurationRow, RowChange,
};
use flexmeter_model::{EventTime, TenantId};
use tokio::sync::broadcast;

use super::LiveGrid;

/// How many epochs a subscriber may fall behind before it is told to read again.
pub const SUBSCRIPTION_EPOCHS_MAX: usize = 256;
/// How many changes of one epoch are handed to subscribers; the rest is counted in [`LiveChanges::n_omitted`].
pub const CHANGES_PER_EPOCH_MAX: usize = 20_000;

/// What one epoch changed, for people who watch.
#[derive(Debug, Clone, Default)]
pub struct LiveChanges {
    /// The epoch.
    pub epoch: u64,
    /// Log time reached.
    pub log_time: EventTime,
    /// Changed rows of the grids, of all tenants.
    pub grid: Vec<GridChange>,
    /// Changed rows of `latest`, of all tenants: a reader filters by `device.tenant`.
    pub latest: Vec<LatestChange>,
    /// Accepted alerts, of all tenants.
    pub alerts: Vec<AlertRow>,
    /// Changes and alerts beyond [`CHANGES_PER_EPOCH_MAX`]. When it is not zero, a reader that wants everything reads `latest` again.
    pub n_omitted: usize,
}

/// What has changed in a grid.
#[derive(Debug, Clone, PartialEq)]
pub enum GridChange {
    /// A row of `outages`.
    Outage(RowChange<OutageRow>),
    /// A row of `reconfigurations`.
    Reconfiguration(RowChange<ReconfigurationRow>),
    /// A row of `faults`.
    Fault(RowChange<FaultRow>),
    /// An area was estimated anew.
    Estimate(EstimateChange),
}

/// How far the new estimate of an area can be trusted. The estimate itself is too large to be kept for readers that are late.
#[derive(Debug, Clone, PartialEq)]
pub struct EstimateChange {
    /// Its tenant.
    pub tenant: TenantId,
    /// Path of the area.
    pub area: Arc<str>,
    /// The newest reading in the estimate, if there is one; and its quality. `None` when the area is no more.
    pub new: Option<(Option<EventTime>, GridQuality)>,
}

impl From<&AreaEstimate> for EstimateChange {
    fn from(estimate: &AreaEstimate) -> Self {
        Self {
            tenant: estimate.tenant.clone(),
            area: estimate.area.clone(),
            new: Some((LiveGrid::heard_at(estimate), estimate.quality.clone())),
        }
    }
}

impl GridChange {
    /// Whose grid.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        match self {
            Self::Outage(change) => &change.tenant,
            Self::Reconfiguration(change) => &change.tenant,
            Self::Fault(change) => &change.tenant,
            Self::Estimate(change) => &change.tenant,
        }
    }

    /// What an epoch says of grids, what is urgent first.
    fn all(outcome: &GridOutcome) -> impl Iterator<Item = Self> {
        let gone = outcome.gone.iter().map(|(tenant, area)| EstimateChange {
            tenant: tenant.clone(),
            area: area.clone(),
            new: None,
        });
        let estimates = gone.chain(outcome.areas.iter().map(|area| (&**area).into()));
        let outages = outcome.outages.iter().cloned().map(Self::Outage);
        let proposals = outcome.reconfigurations.iter().cloned().map(Self::Reconfiguration);
        let faults = outcome.faults.iter().cloned().map(Self::Fault);
        outages.chain(proposals).chain(faults).chain(estimates.map(Self::Estimate))
    }
}

impl LiveChanges {
    pub(super) fn of(epoch: &ClosedEpoch, log_time: EventTime) -> Self {
        let grid = &epoch.grid;
        let n_grid = grid.outages.len() + grid.reconfigurations.len() + grid.faults.len() + grid.gone.len() + grid.areas.len();
        let mut changes = Self {
            epoch: epoch.epoch,
            log_time,
            grid: GridChange::all(grid).take(CHANGES_PER_EPOCH_MAX).collect(),
            n_omitted: n_grid.saturating_sub(CHANGES_PER_EPOCH_MAX),
            ..Self::default()
        };
        for partition in &epoch.partitions {
            let n = partition.alerts.len().min(CHANGES_PER_EPOCH_MAX - changes.alerts.len());
            changes.alerts.extend_from_slice(&partition.alerts[..n]);
            changes.n_omitted += partition.alerts.len() - n;
            let n = partition.latest.len().min(CHANGES_PER_EPOCH_MAX - changes.latest.len());
            changes.latest.extend_from_slice(&partition.latest[..n]);
            changes.n_omitted += partition.latest.len() - n;
        }
        changes
    }

    /// Changed rows of grids and of `latest`.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.grid.len() + self.latest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_rows() == 0 && self.alerts.is_empty()
    }
}

/// What a subscriber gets.
#[derive(Debug, Clone)]
pub enum LiveEvent {
    /// An epoch closed.
    Changes(Arc<LiveChanges>),
    /// The subscriber was too slow: this many epochs are gone for it. It should read `latest` again.
    Lagged {
        /// Number of epochs missed.
        n_epochs: u64,
    },
}

/// A running subscription. Dropping it ends it.
#[derive(Debug)]
pub struct LiveSubscription(pub(super) broadcast::Receiver<Arc<LiveChanges>>);

impl LiveSubscription {
    /// The next event; `None` when the store is gone.
    pub async fn next(&mut self) -> Option<LiveEvent> {
        match self.0.recv().await {
            Ok(changes) => Some(LiveEvent::Changes(changes)),
            Err(broadcast::error::RecvError::Lagged(n_epochs)) => Some(LiveEvent::Lagged { n_epochs }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
