//! Messages as owned structs, for whoever sends them: simulators, gateways, tests, and the command pipeline.
//!
//! Reading is [`decode`](crate::decode)'s work; these only serialise.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::boundary::PublishedBoundary;
use crate::outcome::AlertLevel;
use crate::quantity::Identifier;
use crate::time::EventTime;

/// A message from a device, in the form of D4.6 section 4.5.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMessage {
    /// Who speaks.
    pub hardware_id: String,
    /// What is said; writes the members `type` and `request`.
    #[serde(flatten)]
    pub request: DeviceRequest,
}

/// What a device says.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "type", content = "request")]
pub enum DeviceRequest {
    /// Readings.
    #[serde(rename = "DeviceMeasurements")]
    Measurements(Measurements),
    /// Something happened.
    #[serde(rename = "DeviceAlert")]
    Alert(Alert),
    /// A command was received or carried out.
    Acknowledge(Acknowledge),
    /// A device introduces itself.
    #[serde(rename = "RegisterDevice")]
    Register(Register),
}

/// Body of `DeviceMeasurements`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurements {
    /// Values in their identifiers' units; JSON has no word for values that are not finite, so they are written as `null`.
    #[serde(serialize_with = "as_object")]
    pub measurements: Vec<(Identifier, f64)>,
    /// Whether the platform's state of the device shall follow.
    pub update_state: bool,
    /// When, by the device's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_date: Option<EventTime>,
    /// Name and value pairs; a name may come once.
    #[serde(serialize_with = "as_object", skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
}

/// Body of `DeviceAlert`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// For example `power.lastgasp`.
    #[serde(rename = "type")]
    pub alert_type: String,
    /// Severity.
    #[serde(serialize_with = "as_word")]
    pub level: AlertLevel,
    /// Free text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether the platform's state of the device shall follow.
    pub update_state: bool,
    /// When, by the device's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_date: Option<EventTime>,
    /// Name and value pairs; a name may come once.
    #[serde(serialize_with = "as_object", skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
}

/// Body of `Acknowledge`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledge {
    /// The device's answer.
    pub response: String,
    /// The command's id.
    pub originating_event_id: String,
    /// When, by the device's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_date: Option<EventTime>,
}

/// Body of `RegisterDevice`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// The device's id again, as original SiteWhere clients send it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_id: Option<String>,
    /// What kind of device it is.
    pub specification_token: String,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site_token: Option<String>,
}

impl DeviceMessage {
    /// Readings of one device at one moment.
    pub fn measurements(
        hardware_id: impl Into<String>,
        event_date: Option<EventTime>,
        measurements: impl IntoIterator<Item = (Identifier, f64)>,
    ) -> Self {
        let measurements = measurements.into_iter().collect();
        let request = DeviceRequest::Measurements(Measurements {
            measurements,
            update_state: true,
            event_date,
            metadata: Vec::new(),
        });
        Self {
            hardware_id: hardware_id.into(),
            request,
        }
    }

    /// What a device at the entrance of an area has estimated of it, with its covariance.
    pub fn boundary(hardware_id: impl Into<String>, event_date: Option<EventTime>, boundary: &PublishedBoundary) -> Self {
        let request = DeviceRequest::Measurements(Measurements {
            measurements: boundary.measurements(),
            update_state: true,
            event_date,
            metadata: boundary.metadata(),
        });
        Self {
            hardware_id: hardware_id.into(),
            request,
        }
    }

    /// An alert without text or metadata.
    pub fn alert(hardware_id: impl Into<String>, event_date: Option<EventTime>, alert_type: impl Into<String>, level: AlertLevel) -> Self {
        let alert_type = alert_type.into();
        let alert = Alert {
            alert_type,
            level,
            message: String::new(),
            update_state: true,
            event_date,
            metadata: Vec::new(),
        };
        Self {
            hardware_id: hardware_id.into(),
            request: DeviceRequest::Alert(alert),
        }
    }

    /// A device's answer to a command.
    pub fn acknowledge(
        hardware_id: impl Into<String>,
        event_date: Option<EventTime>,
        originating_event_id: impl Into<String>,
        response: impl Into<String>,
    ) -> Self {
        let acknowledge = Acknowledge {
            response: response.into(),
            originating_event_id: originating_event_id.into(),
            event_date,
        };
        Self {
            hardware_id: hardware_id.into(),
            request: DeviceRequest::Acknowledge(acknowledge),
        }
    }

    /// A device's request to be registered.
    pub fn register(hardware_id: impl Into<String>, specification_token: impl Into<String>, site_token: Option<String>) -> Self {
        let register = Register {
            hardware_id: None,
            specification_token: specification_token.into(),
            site_token,
        };
        Self {
            hardware_id: hardware_id.into(),
            request: DeviceRequest::Register(register),
        }
    }
}

/// A SiteWhere batch (`SiteWhere/input/jsonbatch`): several events of one device.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LegacyBatch {
    /// Who speaks.
    pub hardware_id: String,
    /// Its readings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurements>,
    /// Its alerts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<Alert>,
}

/// A command to a device, in the form of D4.6 section 4.5.3: definition, invocation and typed parameters.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandMessage {
    /// What to do.
    pub command: Command,
    /// Through which gateway the device is reached, if any.
    pub nesting_context: NestingContext,
    /// The device's assignment.
    pub assignment: CommandAssignment,
}

/// Definition, invocation and values of a command.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Which command of the device's specification.
    pub command: CommandDefinition,
    /// This one call of it.
    pub invocation: CommandInvocation,
    /// The values, typed as the definition says.
    pub parameters: BTreeMap<String, ParameterValue>,
}

/// A command a kind of device understands.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandDefinition {
    /// Its token.
    pub token: String,
    /// The specification it belongs to.
    pub specification_token: String,
    /// Keeps equal names of different makers apart.
    pub namespace: String,
    /// Its name, for example `blinkLed`.
    pub name: String,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// One call of a command.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandInvocation {
    /// Its id: what the device's `Acknowledge` names as `originatingEventId`.
    pub id: String,
    /// Which command.
    pub command_token: String,
    /// When it was asked for.
    pub event_date: EventTime,
    /// What kind of initiator asked (`REST`, `Script`, …).
    pub initiator: String,
    /// Who asked.
    pub initiator_id: String,
    /// What kind of target it has (`Assignment`).
    pub target: String,
    /// Which target.
    pub target_id: String,
    /// The values as text, as they were given.
    pub parameter_values: BTreeMap<String, String>,
}

/// How a device is reached that speaks through a gateway.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NestingContext {
    /// The gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The device behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested: Option<String>,
    /// The path from one to the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The assignment a command goes to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandAssignment {
    /// Its token.
    pub token: String,
    /// Its device.
    pub device_hardware_id: String,
}

/// A command parameter's value.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum ParameterValue {
    /// `Bool`.
    Bool(bool),
    /// The signed integer types.
    Signed(i64),
    /// The unsigned integer types.
    Unsigned(u64),
    /// `Double` and `Float`.
    Float(f64),
    /// `String`, and `Bytes` in base64.
    Text(String),
}

fn as_word<S: Serializer>(level: &AlertLevel, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.as_str())
}

fn as_object<S: Serializer, K: Serialize, V: Serialize>(pairs: &[(K, V)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        map.serialize_entry(name, value)?;
    }
    map.end()
}
