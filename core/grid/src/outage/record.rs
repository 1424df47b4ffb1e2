//! What the monitor tells: outages and, when they are over, who was interrupted for how long.

use serde::{Deserialize, Serialize};

use std::fmt;

use super::Micros;
use super::sections::Device;
use super::supply::PointId;
use crate::network::ComponentId;

/// Names an outage within a tenant, for good: the device first blamed and when it lost supply, as known when the outage was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutageId {
    /// The device first blamed.
    pub device: Device,
    /// First gasp known at the time, event time.
    pub opened_at_us: Micros,
}

impl fmt::Display for OutageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.device, self.opened_at_us)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(id) => write!(f, "branch-{id}"),
            Self::Node(id) => write!(f, "node-{id}"),
            Self::Point(id) => write!(f, "point-{id}"),
        }
    }
}

/// Why an outage is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CloseReason {
    /// Supply is back.
    Restored,
    /// Later evidence speaks against it.
    NotConfirmed,
    /// An open switch explains it.
    Switched,
    /// It was part of another outage, which goes on.
    Merged,
}

/// An outage as it is known now. All times are µs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Outage {
    /// Its name.
    pub id: OutageId,
    /// The device that has most probably failed.
    pub device: Device,
    /// Devices whose failure looks the same.
    pub alternatives: Vec<Device>,
    /// The node behind the device: it says which area is affected.
    pub node: ComponentId,
    /// The branch that leaves the source's node on the way to the device.
    pub feeder: Option<ComponentId>,
    /// Customers that have lost supply in it, unmetered ones included.
    pub n_customers: u32,
    /// Of these, still without.
    pub n_customers_out: u32,
    /// Gasps that belong to it.
    pub n_gasps: u32,
    /// When supply was lost, event time; repaired by late gasps.
    pub opened_at_us: Micros,
    /// When it was first reported, log time.
    pub opened_log_us: Micros,
    /// When the last customer had supply again, event time; `None` while it is open.
    pub closed_at_us: Option<Micros>,
    /// Why it is over.
    pub closed_because: Option<CloseReason>,
    /// Posterior probability of this device and its alternatives, in parts per million.
    pub confidence_ppm: u32,
    /// Whether an operator has taken note.
    pub acknowledged: bool,
}

/// Customers without supply for a time, known once the outage is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interruption {
    /// The outage.
    pub outage: OutageId,
    /// Feeder that it was on.
    pub feeder: Option<ComponentId>,
    /// The customers' point; `None` for those without a meter.
    pub point: Option<PointId>,
    /// How many customers.
    pub n_customers: u32,
    /// From, event time.
    pub start_us: Micros,
    /// To, event time.
    pub end_us: Micros,
}

/// A change of one of the two views: +1 appears, -1 disappears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Change {
    /// Of the outages.
    Outage(Outage, i64),
    /// Of the interruptions.
    Interruption(Interruption, i64),
}
