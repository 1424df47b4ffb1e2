//! Outcomes: what the engine says about the log, epoch by epoch. These are the only rows that travel from the engine to the doors
//! and to the counter.
//!
//! An epoch is a set of offset ranges, one per partition. Its outcome is one [`ClosedEpoch`]: rows to keep (measurements, alerts,
//! acknowledgements, rejections, finished load-profile rows) and changes of the live views (old row out, new row in).

use std::sync::Arc;

use crate::ids::{HardwareId, TenantId};
use crate::quantity::Identifier;
use crate::time::EventTime;

mod grid;
mod operations;

pub use grid::{AreaEstimate, GridPhase, GridQuality, GridQuantity, GridStateRow, NodeState, SwitchRow};
pub use operations::{
    FaultRow, OPERATIONS_KEPT_US, OutageRow, ProposalTerms, ReconfigurationRow, ReliabilityRow, RowChange, Suggestion, SwitchCommand,
    SwitchOperation,
};

/// A device the engine has met. `index` is dense within the partition (0, 1, 2, …) and stable as long as the engine's state is, so
/// consumers may use `(partition, index)` as an array position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Log partition the device belongs to.
    pub partition: u32,
    /// Position in its partition's device table.
    pub index: u32,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its hardware id.
    pub hardware_id: HardwareId,
}

/// How far a value can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Quality {
    /// Measured and plausible.
    Good = 0,
    /// Measured, doubtful.
    Suspect = 1,
    /// Not measured: filled in.
    Substituted = 2,
}

impl Quality {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Suspect => "suspect",
            Self::Substituted => "substituted",
        }
    }
}

/// Accepted measurements in columns: one head a message, its values side by side.
#[derive(Debug, Clone, Default)]
pub struct MeasurementColumns {
    /// One entry for each accepted message with at least one good value.
    pub heads: Vec<MessageHead>,
    /// Identifier of each value; a head's values are the next `n_values` ones.
    pub identifiers: Vec<Identifier>,
    /// Each value in its identifier's unit (D4.6); always finite.
    pub values: Vec<f64>,
}

/// What the values of one message have in common.
#[derive(Debug, Clone)]
pub struct MessageHead {
    /// Who measured.
    pub device: Arc<Device>,
    /// When, by the device's clock (or the log's, when the message did not say).
    pub event_time: EventTime,
    /// When the log appended the message.
    pub received_at: EventTime,
    /// Where in the partition.
    pub offset: u64,
    /// Number of values.
    pub n_values: u32,
    /// Quality of all of them.
    pub quality: Quality,
}

impl MeasurementColumns {
    /// Each head with its identifiers and values.
    pub fn messages(&self) -> impl Iterator<Item = (&MessageHead, &[Identifier], &[f64])> {
        let mut at = 0;
        self.heads.iter().map(move |head| {
            let range = at..at + head.n_values as usize;
            at = range.end;
            (head, &self.identifiers[range.clone()], &self.values[range])
        })
    }
}

/// Severity of an alert (D4.6 section 4.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AlertLevel {
    /// For the record.
    Info = 0,
    /// Worth a look.
    Warning = 1,
    /// Something failed.
    Error = 2,
    /// Act now.
    Critical = 3,
}

impl AlertLevel {
    /// The word used on the wire and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
            Self::Critical => "Critical",
        }
    }
}

/// An accepted alert.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRow {
    /// Who raised it.
    pub device: Arc<Device>,
    /// Its type, for example `power.lastgasp`.
    pub alert_type: String,
    /// Its severity.
    pub level: AlertLevel,
    /// Free text.
    pub message: String,
    /// Name and value pairs, in the order sent.
    pub metadata: Vec<(String, String)>,
    /// When, by the device's clock.
    pub event_time: EventTime,
    /// When the log appended it.
    pub received_at: EventTime,
    /// Where in the partition.
    pub offset: u64,
}

/// A device's acknowledgement of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct AcknowledgementRow {
    /// Who acknowledges.
    pub device: Arc<Device>,
    /// The command's id.
    pub originating_event_id: String,
    /// The device's answer.
    pub response: String,
    /// When, by the device's clock.
    pub event_time: EventTime,
    /// When the log appended it.
    pub received_at: EventTime,
    /// Where in the partition.
    pub offset: u64,
}

/// A device's request to be registered.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistrationRow {
    /// Who asks.
    pub device: Arc<Device>,
    /// The specification it claims.
    pub specification_token: String,
    /// The site it claims, if any.
    pub site_token: Option<String>,
    /// When the log appended it.
    pub received_at: EventTime,
    /// Where in the partition.
    pub offset: u64,
}

/// Why a message, or one measurement of it, was rejected. The code is stable: people write SQL against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReasonCode {
    /// Not JSON, or cut off.
    MalformedJson = 0,
    /// JSON, but a field has another type than the message format says.
    WrongShape = 1,
    /// `type` names no message we know.
    UnknownType = 2,
    /// A required field is missing.
    MissingField = 3,
    /// A measurement's name is not in the vocabulary.
    UnknownIdentifier = 4,
    /// A measurement's value is not a finite number.
    NotANumber = 5,
    /// A measurement's value is outside its plausibility range.
    OutOfRange = 6,
    /// `eventDate` is not ISO 8601 with an offset, or no real moment.
    BadEventDate = 7,
    /// `eventDate` lies more than ten minutes after the append time.
    TooFarInFuture = 8,
    /// The payload exceeds the limit.
    TooLarge = 9,
    /// The payload speaks for another device than the one that logged in.
    IdentityMismatch = 10,
    /// The tenant accepts only known devices, and this is none.
    UnknownDevice = 11,
}

impl ReasonCode {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::MalformedJson,
        Self::WrongShape,
        Self::UnknownType,
        Self::MissingField,
        Self::UnknownIdentifier,
        Self::NotANumber,
        Self::OutOfRange,
        Self::BadEventDate,
        Self::TooFarInFuture,
        Self::TooLarge,
        Self::IdentityMismatch,
        Self::UnknownDevice,
    ];

    /// The code used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::WrongShape => "wrong_shape",
            Self::UnknownType => "unknown_type",
            Self::MissingField => "missing_field",
            Self::UnknownIdentifier => "unknown_identifier",
            Self::NotANumber => "not_a_number",
            Self::OutOfRange => "out_of_range",
            Self::BadEventDate => "bad_event_date",
            Self::TooFarInFuture => "too_far_in_future",
            Self::TooLarge => "too_large",
            Self::IdentityMismatch => "identity_mismatch",
            Self::UnknownDevice => "unknown_device",
        }
    }
}

/// A rejected message, or one rejected measurement of an otherwise good message.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectionRow {
    /// Its tenant.
    pub tenant: TenantId,
    /// The device, as far as it is known.
    pub hardware_id: Option<HardwareId>,
    /// Stable code.
    pub reason: ReasonCode,
    /// What exactly: the identifier, the field, the byte position.
    pub detail: String,
    /// The payload, lossily as UTF-8, cut at [`REJECTED_PAYLOAD_LEN_MAX`]; several rejections of one message share [`REJECTED_PAYLOAD_SHARED_LEN`].
    pub payload: String,
    /// When the log appended it.
    pub received_at: EventTime,
    /// Where in the partition.
    pub offset: u64,
}

/// How much of a rejected message is kept, in bytes.
pub const REJECTED_PAYLOAD_LEN_MAX: usize = 64 * 1024;

/// How much of a message with several rejections is kept, in bytes, over all of them.
pub const REJECTED_PAYLOAD_SHARED_LEN: usize = 8 * 1024;

/// A value and when it was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// When, by the device's clock.
    pub event_time: EventTime,
    /// The value in the identifier's unit.
    pub value: f64,
}

/// One changed row of the view `latest`: `old` goes out, `new` comes in.
#[derive(Debug, Clone, PartialEq)]
pub struct LatestChange {
    /// Key: the device.
    pub device: Arc<Device>,
    /// Key: the quantity.
    pub identifier: Identifier,
    /// The row before this epoch.
    pub old: Option<Reading>,
    /// The row after it.
    pub new: Option<Reading>,
}

/// The values of one row of `load_profile_15m`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProfileCell {
    /// Offset of the record that opened this cell. A window that was evicted from memory and is touched again by a late reading
    /// opens a second cell with another generation; readers add the generations up.
    pub generation: u64,
    /// Number of readings.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The newest by event time.
    pub last: f64,
    /// Event time of `last`.
    pub last_time: EventTime,
}

/// One changed row of the live part of `load_profile_15m`.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileChange {
    /// Key: the device.
    pub device: Arc<Device>,
    /// Key: start of the 15-minute window (UTC).
    pub window_start: EventTime,
    /// Key: the quantity.
    pub identifier: Identifier,
    /// The row before this epoch.
    pub old: Option<ProfileCell>,
    /// The row after it; `None` when the window left memory (its last state is in the lake).
    pub new: Option<ProfileCell>,
}

/// A load-profile row for the lake: the state of a window that has ended, written again when late data repair it.
/// Of rows with equal key and generation the one with the largest `n` is the newest.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRow {
    /// Key: the device.
    pub device: Arc<Device>,
    /// Key: start of the 15-minute window (UTC).
    pub window_start: EventTime,
    /// Key: the quantity.
    pub identifier: Identifier,
    /// Its values.
    pub cell: ProfileCell,
    /// Where in the partition: the record whose log time flushed the row. It depends on the log alone, not on how the log was cut
    /// into epochs, so the lake can tell a replayed row from a new one.
    pub offset: u64,
}

/// Counters of one partition in one epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EpochCounts {
    /// Messages read from the log (heartbeats not counted; a legacy batch counts each of its events).
    pub n_messages: u64,
    /// Messages accepted (at least one row came of it, or it was a valid message without measurements).
    pub n_accepted: u64,
    /// Messages rejected as a whole.
    pub n_rejected: u64,
    /// Messages dropped as repeats.
    pub n_duplicates: u64,
    /// Readings whose load-profile window had already left memory and was opened again.
    pub n_reopened: u64,
    /// Identities forgotten before their horizon because the partition's limit was reached.
    pub n_identities_forgotten: u64,
    /// Load-profile windows that left memory early because the partition's limit was reached.
    pub n_windows_forgotten: u64,
    /// Alerts of the operators' device that said a fault was located, and not what such an alert has to say.
    pub n_faults_malformed: u64,
}

impl std::ops::AddAssign for EpochCounts {
    fn add_assign(&mut self, other: Self) {
        self.n_messages += other.n_messages;
        self.n_accepted += other.n_accepted;
        self.n_rejected += other.n_rejected;
        self.n_duplicates += other.n_duplicates;
        self.n_reopened += other.n_reopened;
        self.n_identities_forgotten += other.n_identities_forgotten;
        self.n_windows_forgotten += other.n_windows_forgotten;
        self.n_faults_malformed += other.n_faults_malformed;
    }
}

/// Everything one partition gave in one epoch.
#[derive(Debug, Clone, Default)]
pub struct PartitionOutcome {
    /// The log partition.
    pub partition: u32,
    /// First offset of the epoch in this partition.
    pub start_offset: u64,
    /// The offset after its last.
    pub end_offset: u64,
    /// Log time reached: the append time of the newest record so far.
    pub log_time: EventTime,
    /// What happened to the messages.
    pub counts: EpochCounts,
    /// Accepted measurements.
    pub measurements: MeasurementColumns,
    /// Accepted alerts.
    pub alerts: Vec<AlertRow>,
    /// Accepted acknowledgements.
    pub acknowledgements: Vec<AcknowledgementRow>,
    /// Registration requests.
    pub registrations: Vec<RegistrationRow>,
    /// Rejections.
    pub rejections: Vec<RejectionRow>,
    /// Load-profile rows for the lake, in offset order.
    pub profile_rows: Vec<ProfileRow>,
    /// Changes of the view `latest`, at most one a key.
    pub latest: Vec<LatestChange>,
    /// Changes of the live view `load_profile_15m`, at most one a key.
    pub profile: Vec<ProfileChange>,
}

/// What the live totals count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutcomeCode {
    /// Messages accepted.
    Accepted,
    /// Messages dropped as repeats.
    Duplicate,
    /// Rows in `rejections` with this reason: whole messages and single measurements.
    Rejected(ReasonCode),
}

impl OutcomeCode {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Rejected(reason) => reason.as_str(),
        }
    }
}

/// A live total that changed: over all partitions, since the log began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalChange {
    /// Key: the tenant.
    pub tenant: TenantId,
    /// Key: what is counted.
    pub code: OutcomeCode,
    /// The total after this epoch.
    pub total: u64,
}

/// What the grid engine says in one epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GridOutcome {
    /// Areas that were estimated anew, by tenant and path: each replaces all that was known of its area.
    pub areas: Vec<Arc<AreaEstimate>>,
    /// Areas that are no more: the tenant has another grid, or none.
    pub gone: Vec<(TenantId, Arc<str>)>,
    /// Switches whose row changed.
    pub switches: Vec<SwitchRow>,
    /// Changes of `outages`.
    pub outages: Vec<RowChange<OutageRow>>,
    /// Changes of `reliability`.
    pub reliability: Vec<RowChange<ReliabilityRow>>,
    /// Plans that are worth a proposal, until there is one: somebody has to put them into the log.
    pub suggestions: Vec<(TenantId, Arc<Suggestion>)>,
    /// Changes of `reconfigurations`.
    pub reconfigurations: Vec<RowChange<ReconfigurationRow>>,
    /// Commands to switches that have been given, and those that wait no longer.
    pub commands: Vec<RowChange<SwitchCommand>>,
    /// Changes of `faults`.
    pub faults: Vec<RowChange<FaultRow>>,
}

impl GridOutcome {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.areas.is_empty()
            && self.gone.is_empty()
            && self.switches.is_empty()
            && self.outages.is_empty()
            && self.reliability.is_empty()
            && self.suggestions.is_empty()
            && self.reconfigurations.is_empty()
            && self.commands.is_empty()
            && self.faults.is_empty()
    }

    /// Takes over what another part of the same epoch says.
    pub fn append(&mut self, mut other: Self) {
        self.areas.append(&mut other.areas);
        self.gone.append(&mut other.gone);
        self.switches.append(&mut other.switches);
        self.outages.append(&mut other.outages);
        self.reliability.append(&mut other.reliability);
        self.suggestions.append(&mut other.suggestions);
        self.reconfigurations.append(&mut other.reconfigurations);
        self.commands.append(&mut other.commands);
        self.faults.append(&mut other.faults);
    }

    /// The same epoch looks the same whichever worker was faster.
    pub fn sort(&mut self) {
        self.areas.sort_unstable_by(|a, b| (&a.tenant, &a.area).cmp(&(&b.tenant, &b.area)));
        self.gone.sort_unstable();
        self.switches
            .sort_unstable_by(|a, b| (&a.tenant, a.branch_id).cmp(&(&b.tenant, b.branch_id)));
        self.suggestions
            .sort_by(|(a, first), (b, second)| (a, first.id).cmp(&(b, second.id)));
        sort(&mut self.outages);
        sort(&mut self.reliability);
        sort(&mut self.reconfigurations);
        sort(&mut self.commands);
        sort(&mut self.faults);
    }
}

/// By tenant and key; of one key in the order in which they were said.
fn sort<R>(changes: &mut [RowChange<R>]) {
    changes.sort_by(|a, b| (&a.tenant, &a.key).cmp(&(&b.tenant, &b.key)));
}

/// The outcome of one epoch: complete, and the same on every replay.
#[derive(Debug, Clone, Default)]
pub struct ClosedEpoch {
    /// Its number: 1, 2, 3, … within one run of the engine. 0 comes first, once, when checkpoints were restored: changes of
    /// the live views from nothing to the restored rows.
    pub epoch: u64,
    /// One entry for each partition that had records.
    pub partitions: Vec<PartitionOutcome>,
    /// Totals that changed.
    pub totals: Vec<TotalChange>,
    /// What changed in the grids.
    pub grid: GridOutcome,
}
