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

impl OutageId {
    /// Reads what `Display` writes, and nothing else.
    ///
    /// ```
    /// use flexmeter_grid::outage::{Device, OutageId};
    /// let id = OutageId { device: Device::Branch(7), opened_at_us: 1_700_000_000_000_000 };
    /// assert_eq!(OutageId::parse("branch-7-1700000000000000"), Some(id));
    /// assert_eq!(OutageId::parse("branch-7"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, numbers) = text.split_once('-')?;
        // either number may be negative, so the second hyphen of "7--5" is a sign
        let split = numbers.char_indices().skip(1).find(|(_, character)| *character == '-')?.0;
        let (number, opened_at_us) = (&numbers[..split], numbers.get(split + 1..)?.parse().ok()?);
        let device = match kind {
            "branch" => Device::Branch(number.parse().ok()?),
            "node" => Device::Node(number.parse().ok()?),
            "point" => Device::Point(number.parse().ok()?),
            _ => return None,
        };
        let id = Self { device, opened_at_us };
        // no second spelling: "+7", "007"
        (id.to_string() == text).then_some(id)
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
    /// An operator has said so.
    Operator,
    /// The grid is another one, without the points that were dark.
    GridReplaced,
}

impl CloseReason {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::NotConfirmed => "not_confirmed",
            Self::Switched => "switched",
            Self::Merged => "merged",
            Self::Operator => "operator",
            Self::GridReplaced => "grid_replaced",
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for device in [Device::Branch(7), Device::Branch(-7), Device::Node(i64::MIN), Device::Point(0)] {
            for opened_at_us in [1_700_000_000_000_000, 0, -5, Micros::MAX] {
                let id = OutageId { device, opened_at_us };
                assert_eq!(OutageId::parse(&id.to_string()), Some(id), "{id}");
            }
        }
    }

    #[test]
    fn what_no_outage_is_called_is_none() {
        let more = format!("branch-7-{}0", Micros::MAX);
        for text in [
            "",
            "-",
            "branch",
            "branch-",
            "branch-7",
            "branch-7-",
            "branch--5",
            "bus-7-5",
            "branch-+7-5",
            "branch-07-5",
            "point--1-5",
            "branch-7-5-5",
            "branch-7-5 ",
            &more,
            "branch-é-5",
        ] {
            assert_eq!(OutageId::parse(text), None, "{text:?}");
        }
    }
}
