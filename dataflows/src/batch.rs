//! What travels between the operators: one batch for each partition and epoch, so that progress tracking and channels cost nothing
//! per message.

use std::rc::Rc;
use std::sync::Arc;

use flexmeter_model::outcome::{
    AcknowledgementRow, AlertRow, EpochCounts, FaultRow, GridOutcome, LatestChange, MeasurementColumns, OutcomeCode, ProfileChange,
    ProfileRow, RegistrationRow, RejectionRow, RowChange, TotalChange,
};
use flexmeter_model::{PublishedBoundary, TenantId};

use crate::grid::GridPart;
use crate::identities::Identity;

/// Which stretch of which partition a batch covers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    pub(crate) partition: u32,
    pub(crate) start_offset: u64,
    pub(crate) end_offset: u64,
    /// Log time after the last record, in microseconds.
    pub(crate) log_time: i64,
}

/// The rows of a batch, each kind in log order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    pub(crate) measurements: MeasurementColumns,
    pub(crate) alerts: Vec<AlertRow>,
    pub(crate) acknowledgements: Vec<AcknowledgementRow>,
    pub(crate) registrations: Vec<RegistrationRow>,
    pub(crate) rejections: Vec<RejectionRow>,
    /// In the order of the messages they belong to.
    pub(crate) boundaries: Vec<BoundaryRow>,
}

/// What a device has estimated of its area's boundary, beside the measurements it came with.
#[derive(Debug, Clone)]
pub(crate) struct BoundaryRow {
    /// Position of the message's head.
    pub(crate) head: usize,
    pub(crate) boundary: PublishedBoundary,
}

/// What a message turned out to be; says which column of [`Rows`] holds its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Measurements,
    Alert,
    Acknowledgement,
    Registration,
    /// Accepted, but without any row (measurements without a single value).
    Empty,
    /// Rejected as a whole.
    Rejected,
    /// Measurements that are a device's own estimate, with their covariance.
    Boundary,
}

/// The judgement on one message, in log order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) kind: Kind,
    /// Rows of `rejections` that belong to it.
    pub(crate) n_rejections: u32,
    /// Its tenant's position in the partition's list.
    pub(crate) tenant: u32,
    pub(crate) identity: Identity,
    pub(crate) novelty: Novelty,
    pub(crate) log_time: i64,
}

/// How to find out whether a message is a repeat.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Novelty {
    /// It has an event time: a repeat when its identity is remembered, and surely new when it is newer than all before it.
    Dated { device: u32, event_time: i64 },
    /// It has none: a repeat only when MQTT delivers it again.
    Undated { redelivered: bool },
    /// It was rejected as a whole: a repeat when its payload is remembered.
    Payload,
}

/// Log time enters a new minute: timers fire before the item at `before` is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick {
    /// Position in the batch: of a verdict before dedupe, of a message head after it.
    pub(crate) before: usize,
    /// Minutes of log time since the Unix epoch.
    pub(crate) minute: i64,
    /// The record that moved log time on.
    pub(crate) offset: u64,
}

/// Decoded and validated, repeats not yet dropped.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) span: Span,
    pub(crate) tenants: Arc<Vec<TenantId>>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) ticks: Vec<Tick>,
    pub(crate) rows: Rows,
}

/// Repeats dropped: what the views read and the lake keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accepted {
    pub(crate) span: Span,
    pub(crate) counts: EpochCounts,
    pub(crate) ticks: Vec<Tick>,
    pub(crate) rows: Rows,
    /// How many messages (or rejection rows) of each tenant ended as what.
    pub(crate) tally: Vec<(TenantId, OutcomeCode, u64)>,
}

/// Changes of the load profile in one batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProfileOutput {
    pub(crate) changes: Vec<ProfileChange>,
    pub(crate) rows: Vec<ProfileRow>,
    pub(crate) n_reopened: u64,
    pub(crate) n_windows_forgotten: u64,
}

/// One operator's contribution to a closed epoch.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Rows(Rc<Accepted>),
    Latest(u32, Vec<LatestChange>),
    Profile(u32, ProfileOutput),
    /// With its epoch: differential may send the totals of several epochs together.
    Total(u64, TotalChange),
    /// With its epoch, too: areas are published when all rounds of the epoch are over.
    Grid(u64, GridPart),
    /// What outages and reconfigurations say at the end of an epoch.
    Operations(u64, GridOutcome),
    /// Changes of the located faults, and how many alerts of them were malformed.
    Faults(u32, Vec<RowChange<FaultRow>>, u64),
}
