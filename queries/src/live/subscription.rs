//! Live changes for server-sent events: bounded, and honest about what was left out.

use std::sync::Arc;

use flexmeter_model::EventTime;
use flexmeter_model::outcome::{AlertRow, ClosedEpoch, LatestChange};
use tokio::sync::broadcast;

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
    /// Changed rows of `latest`, of all tenants: a reader filters by `device.tenant`.
    pub latest: Vec<LatestChange>,
    /// Accepted alerts, of all tenants.
    pub alerts: Vec<AlertRow>,
    /// Changes and alerts beyond [`CHANGES_PER_EPOCH_MAX`]. When it is not zero, a reader that wants everything reads `latest` again.
    pub n_omitted: usize,
}

impl LiveChanges {
    pub(super) fn of(epoch: &ClosedEpoch, log_time: EventTime) -> Self {
        let mut changes = Self {
            epoch: epoch.epoch,
            log_time,
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

    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty() && self.alerts.is_empty()
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
