//! Outcomes of grid operation: outages, the reliability of feeders, reconfigurations with the commands they send, and located faults.
//!
//! All of them are views with a key: an epoch says of each key what its row is now, or that it has none any more.

use std::sync::Arc;

use crate::ids::{HardwareId, TenantId};
use crate::time::EventTime;

/// How long outages, proposals and faults stay in their live views after they have come to an end, in log time: 31 days. Too many of them
/// may leave earlier.
pub const OPERATIONS_KEPT_US: i64 = 31 * 24 * 3_600 * 1_000_000;

/// What has become of one row of a view. A key without a row has left the view.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange<R> {
    /// Its tenant.
    pub tenant: TenantId,
    /// Names the row within the tenant, for good.
    pub key: Arc<str>,
    /// The row as it is now.
    pub new: Option<Arc<R>>,
}

/// A row of `outages`. `key`: the outage's id.
#[derive(Debug, Clone, PartialEq)]
pub struct OutageRow {
    /// Path of the area that the device is in.
    pub area: Arc<str>,
    /// The branch that leaves the source's node on the way to the device; `None` at the source itself.
    pub feeder: Option<i64>,
    /// The device that has most probably failed: `branch-7`, `node-3`, or the hardware id of a single meter.
    pub device: String,
    /// Devices whose failure looks the same.
    pub alternatives: Vec<String>,
    /// Node behind the device.
    pub node_id: i64,
    /// Customers that have lost supply in it.
    pub n_customers: u32,
    /// Of these, still without.
    pub n_customers_out: u32,
    /// Last gasps that belong to it.
    pub n_gasps: u32,
    /// When supply was lost, by the meters' clocks.
    pub opened_at: EventTime,
    /// When it was first reported, log time.
    pub reported_at: EventTime,
    /// When the last customer had supply again; `None` while it is open.
    pub closed_at: Option<EventTime>,
    /// Why it is over: `restored`, `not_confirmed`, `switched`, `merged`, `operator` or `grid_replaced`; `None` while it is open.
    pub closed_because: Option<&'static str>,
    /// Posterior probability of the device and its alternatives, 0 to 1.
    pub confidence: f64,
    /// Whether an operator has taken note.
    pub acknowledged: bool,
}

impl OutageRow {
    /// Whether the outage is over. Late messages may still correct it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.closed_because.is_some()
    }
}

/// A row of `reliability`: the indices of IEEE 1366 of one feeder, over the outages that the live view holds. `key`: the feeder's id.
#[derive(Debug, Clone, PartialEq)]
pub struct ReliabilityRow {
    /// The branch that leaves the source's node; `None` for what sits at the source itself.
    pub feeder: Option<i64>,
    /// Customers it supplies as the switches stand now.
    pub n_customers: u64,
    /// Customer interruptions longer than five minutes.
    pub n_sustained: u64,
    /// Customer interruptions of five minutes or less.
    pub n_momentary: u64,
    /// Duration of the sustained ones, summed over customers, min.
    pub customer_min: f64,
    /// Average duration of interruptions a customer had, min; `None` without customers.
    pub saidi_min: Option<f64>,
    /// Average number of sustained interruptions a customer had.
    pub saifi: Option<f64>,
    /// Average duration of a sustained interruption, min; `None` without one.
    pub caidi_min: Option<f64>,
    /// Average number of momentary interruptions a customer had.
    pub maifi: Option<f64>,
}

/// One switch to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchOperation {
    /// Id of its branch.
    pub branch_id: i64,
    /// The device that is commanded.
    pub hardware_id: HardwareId,
    /// Whether to close it; else it opens.
    pub close: bool,
}

/// A plan to switch otherwise, as the engine suggests it. It becomes a proposal when the platform has put it into the log and the engine
/// reads it there: estimates, and with them the moment of a suggestion, may differ from one replay to the next; a record does not.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestion {
    /// Names the proposal: the moment of the estimates that it comes from, log time in microseconds.
    pub id: u64,
    /// Path of the area that it is about.
    pub area: Arc<str>,
    /// Fingerprint of the grid that it was made for.
    pub grid_mark: u64,
    /// Fingerprint of the positions of the area's switches that it starts from.
    pub positions_mark: u64,
    /// The plan, in order.
    pub operations: Vec<SwitchOperation>,
    /// Losses as the switches stand, W.
    pub loss_before_w: f64,
    /// Losses after the plan, W.
    pub loss_after_w: f64,
    /// Losses of the tree that D4.6's algorithm alone finds, W; `None` where it finds none.
    pub loss_d4_6_w: Option<f64>,
    /// Lowest voltage before and after, per unit.
    pub voltage_min_pu: [f64; 2],
    /// The settings of the moment, so that the proposal has one life whatever the settings of a later start.
    pub terms: ProposalTerms,
}

/// What a proposal lives by. All times are log time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalTerms {
    /// How long it waits for a decision, in microseconds.
    pub expires_us: i64,
    /// How long a switch may take to confirm a command, in microseconds.
    pub confirmation_us: i64,
    /// How long nothing else is proposed after it was rejected, has expired undecided or has failed, in microseconds.
    pub pause_us: i64,
    /// Whether it is carried out without an operator.
    pub is_automatic: bool,
}

/// A row of `reconfigurations`. `key`: the proposal's id.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconfigurationRow {
    /// `proposed`, `accepted`, `rejected`, `expired`, `executing`, `done` or `failed`.
    pub state: &'static str,
    /// Why it has come to nothing: `time_out`, `network_changed`, `no_confirmation` or `switch_failed`.
    pub reason: Option<&'static str>,
    /// Who decided: an operator's name, or `automatic`.
    pub decided_by: Option<String>,
    /// The plan, in order.
    pub operations: Vec<SwitchOperation>,
    /// Operations confirmed by their switches.
    pub n_done: u32,
    /// Losses as the switches stood when it was proposed, W.
    pub loss_before_w: f64,
    /// Losses after the plan, W.
    pub loss_after_w: f64,
    /// Losses of the tree that D4.6's algorithm alone finds, W; `None` where it finds none.
    pub loss_d4_6_w: Option<f64>,
    /// Lowest voltage before and after, per unit.
    pub voltage_min_pu: [f64; 2],
    /// When it was proposed, log time: its place in the log.
    pub proposed_at: EventTime,
    /// Until when it can be accepted, log time.
    pub expires_at: EventTime,
    /// When its state changed last, log time.
    pub changed_at: EventTime,
}

impl ReconfigurationRow {
    /// Whether the proposal has come to its end.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.state, "rejected" | "expired" | "done" | "failed")
    }
}

/// A command that waits for its switch. `key`: the command's id, which the device names when it acknowledges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchCommand {
    /// What is commanded.
    pub operation: SwitchOperation,
    /// The proposal it is part of.
    pub proposal_id: Arc<str>,
    /// When it was given, log time.
    pub at: EventTime,
    /// When the engine gives it up, log time: whoever sends it does not send it any more then.
    pub until: EventTime,
}

/// A row of `faults`. `key`: the fault's id.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRow {
    /// Path of the area that the most probable place is in.
    pub area: Arc<str>,
    /// Type of the fault: AG, BC, BCG, ABC and so on.
    pub fault_type: String,
    /// The most probable branch.
    pub branch_id: i64,
    /// Its end towards the source.
    pub near_node: i64,
    /// How far along the branch, 0 to 1.
    pub share: f64,
    /// Distance from the head of the feeder, m; `None` where lengths are not known.
    pub distance_m: Option<f64>,
    /// Its standard deviation, m.
    pub distance_sigma_m: Option<f64>,
    /// Distance as reactance and resistance of the way, ohm.
    pub distance_ohm: f64,
    /// Fault resistance, ohm.
    pub resistance_ohm: f64,
    /// Probability of the most probable place among the candidates, 0 to 1.
    pub probability: f64,
    /// All candidates, the most probable first, as a JSON array.
    pub candidates: String,
    /// Nodes known to be dark when it was located.
    pub n_gasps: u32,
    /// When the fault was recorded.
    pub event_time: EventTime,
    /// Who sent the record.
    pub by: String,
}
