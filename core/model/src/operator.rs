//! What operators decide and the platform proposes, as messages: alerts of the platform's own device, so that a decision is in the log
//! before it has an effect, takes part in every replay, and stays in the table `alerts`.
//!
//! The engine believes only these alerts of [`OPERATOR`]; doors let no device publish under that name.

use crate::message::{DeviceMessage, DeviceRequest};
use crate::outcome::{AlertLevel, AlertRow};
use crate::time::EventTime;

mod fault;
mod fields;
mod plan;

pub use fault::{fault_metadata, fault_of, read_fault};
pub use plan::{plan_metadata, plan_of, proposed, read_proposed};

/// Hardware id of the platform itself, in every tenant.
pub const OPERATOR: &str = "flexmeter-operator";

/// Alert type of a located fault; its metadata are made by [`fault_metadata`] and read by [`read_fault`].
pub const FAULT_LOCATED: &str = "fault.located";

/// Alert type of a proposal to switch otherwise; made by [`proposed`] and read by [`read_proposed`].
pub const RECONFIGURATION_PROPOSED: &str = "reconfiguration.proposed";

/// Alert type of another grid of the tenant; made by [`grid_replaced`].
pub const GRID_REPLACED: &str = "grid.replaced";

/// What an operator has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Somebody has taken note of an outage.
    AcknowledgeOutage,
    /// An outage is over, whatever the meters say.
    CloseOutage,
    /// A proposed reconfiguration is to be carried out.
    AcceptReconfiguration,
    /// A proposed reconfiguration is turned down.
    RejectReconfiguration,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::AcknowledgeOutage,
        Self::CloseOutage,
        Self::AcceptReconfiguration,
        Self::RejectReconfiguration,
    ];

    /// Type of its alert.
    #[must_use]
    pub const fn alert_type(self) -> &'static str {
        match self {
            Self::AcknowledgeOutage => "outage.acknowledged",
            Self::CloseOutage => "outage.closed",
            Self::AcceptReconfiguration => "reconfiguration.accepted",
            Self::RejectReconfiguration => "reconfiguration.rejected",
        }
    }

    /// The message that says so. `subject` is the id of the outage or proposal, `by` the operator's name.
    #[must_use]
    pub fn message(self, subject: &str, by: &str, at: EventTime) -> DeviceMessage {
        let mut message = DeviceMessage::alert(OPERATOR, Some(at), self.alert_type(), AlertLevel::Info);
        if let DeviceRequest::Alert(alert) = &mut message.request {
            alert.metadata = vec![("subject".to_owned(), subject.to_owned()), ("by".to_owned(), by.to_owned())];
        }
        message
    }

    /// The decision of an alert, with the id of its outage or proposal, and who decided; `None` for any other alert.
    #[must_use]
    pub fn read(alert: &AlertRow) -> Option<(Self, &str, &str)> {
        if alert.device.hardware_id.as_str() != OPERATOR {
            return None;
        }
        let decision = Self::ALL.into_iter().find(|decision| decision.alert_type() == alert.alert_type)?;
        Some((decision, value(alert, "subject")?, value(alert, "by").unwrap_or_default()))
    }
}

/// The message that a fault was located, with its row as metadata.
#[must_use]
pub fn located(id: &str, at: EventTime, metadata: Vec<(String, String)>) -> DeviceMessage {
    let mut message = DeviceMessage::alert(OPERATOR, Some(at), FAULT_LOCATED, AlertLevel::Warning);
    if let DeviceRequest::Alert(alert) = &mut message.request {
        alert.metadata = metadata;
        alert.metadata.push(("subject".to_owned(), id.to_owned()));
    }
    message
}

/// The message that an operator has put another grid in place, for the record: nothing is derived from it. `fingerprint` names the bundle.
#[must_use]
pub fn grid_replaced(fingerprint: &str, by: &str, at: EventTime) -> DeviceMessage {
    let mut message = DeviceMessage::alert(OPERATOR, Some(at), GRID_REPLACED, AlertLevel::Info);
    if let DeviceRequest::Alert(alert) = &mut message.request {
        alert.metadata = vec![("subject".to_owned(), fingerprint.to_owned()), ("by".to_owned(), by.to_owned())];
    }
    message
}

/// The value of a name in an alert's metadata.
#[must_use]
pub fn value<'a>(alert: &'a AlertRow, name: &str) -> Option<&'a str> {
    alert
        .metadata
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::outcome::Device;
    use crate::{HardwareId, TenantId};

    pub(super) fn row(message: DeviceMessage) -> AlertRow {
        let DeviceRequest::Alert(alert) = message.request else {
            panic!("no alert");
        };
        let device = Device {
            partition: 0,
            index: 0,
            tenant: TenantId::new("t").unwrap(),
            hardware_id: HardwareId::new(&message.hardware_id).unwrap(),
        };
        AlertRow {
            device: Arc::new(device),
            alert_type: alert.alert_type,
            level: alert.level,
            message: alert.message,
            metadata: alert.metadata,
            event_time: EventTime::from_micros(0),
            received_at: EventTime::from_micros(0),
            offset: 0,
        }
    }

    #[test]
    fn a_decision_is_read_as_it_was_written() {
        for decision in Decision::ALL {
            let alert = row(decision.message("branch-7-12", "ada", EventTime::from_micros(5)));
            assert_eq!(Decision::read(&alert), Some((decision, "branch-7-12", "ada")));
        }
    }

    #[test]
    fn no_other_device_decides() {
        let mut message = Decision::CloseOutage.message("branch-7-12", "ada", EventTime::from_micros(5));
        message.hardware_id = "meter-1".to_owned();
        assert_eq!(Decision::read(&row(message)), None);
        let alert = row(located("f-1", EventTime::from_micros(5), Vec::new()));
        assert_eq!((Decision::read(&alert), value(&alert, "subject")), (None, Some("f-1")));
    }
}
