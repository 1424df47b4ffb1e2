//! What the owned messages look like on the wire, against the format's own examples.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use flexmeter_model::EventTime;
use flexmeter_model::decode::{Body, Decoder};
use flexmeter_model::message::{
    Acknowledge, Command, CommandAssignment, CommandDefinition, CommandInvocation, CommandMessage, DeviceMessage, DeviceRequest,
    LegacyBatch, NestingContext, ParameterValue, Register,
};
use flexmeter_model::outcome::AlertLevel;

fn time() -> EventTime {
    "2016-02-10T19:40:03.391+02:00".parse().unwrap()
}

fn readings() -> DeviceMessage {
    let values = [
        ("electricity.power.active.consumed.l1", 0.871),
        ("electricity.power.active.consumed.total", 1.7),
    ];
    DeviceMessage::measurements(
        "123-TEST-4567890",
        Some(time()),
        values.map(|(name, value)| (name.parse().unwrap(), value)),
    )
}

fn alert() -> DeviceMessage {
    let mut message = DeviceMessage::alert("m", Some(time()), "power.lastgasp", AlertLevel::Critical);
    if let DeviceRequest::Alert(alert) = &mut message.request {
        alert.message = "out".to_owned();
        alert.metadata = vec![("name1".to_owned(), "value1".to_owned())];
    }
    message
}

#[track_caller]
fn check(message: &impl serde::Serialize, expected: &str) {
    assert_eq!(serde_json::to_string(message).unwrap(), expected);
}

#[test]
fn device_messages_are_written_in_the_order_of_the_format() {
    check(
        &readings(),
        r#"{"hardwareId":"123-TEST-4567890","type":"DeviceMeasurements","request":{"measurements":{"electricity.power.active.consumed.l1":0.871,"electricity.power.active.consumed.total":1.7},"updateState":true,"eventDate":"2016-02-10T17:40:03.391Z"}}"#,
    );
    check(
        &alert(),
        r#"{"hardwareId":"m","type":"DeviceAlert","request":{"type":"power.lastgasp","level":"Critical","message":"out","updateState":true,"eventDate":"2016-02-10T17:40:03.391Z","metadata":{"name1":"value1"}}}"#,
    );
    check(
        &DeviceMessage::acknowledge("m", Some(time()), "e-1", "done"),
        r#"{"hardwareId":"m","type":"Acknowledge","request":{"response":"done","originatingEventId":"e-1","eventDate":"2016-02-10T17:40:03.391Z"}}"#,
    );
    check(
        &DeviceMessage::register("m", "s", Some("t".to_owned())),
        r#"{"hardwareId":"m","type":"RegisterDevice","request":{"specificationToken":"s","siteToken":"t"}}"#,
    );
}

#[test]
fn what_is_not_said_is_not_written() {
    check(
        &DeviceMessage::alert("m", None, "a", AlertLevel::Info),
        r#"{"hardwareId":"m","type":"DeviceAlert","request":{"type":"a","level":"Info","updateState":true}}"#,
    );
    let acknowledge = Acknowledge {
        response: String::new(),
        originating_event_id: "e".to_owned(),
        event_date: None,
    };
    check(&acknowledge, r#"{"response":"","originatingEventId":"e"}"#);
    let register = Register {
        hardware_id: None,
        specification_token: "s".to_owned(),
        site_token: None,
    };
    check(&register, r#"{"specificationToken":"s"}"#);
}

#[test]
fn a_legacy_batch_is_read_back_event_by_event() {
    let (DeviceRequest::Measurements(measurements), DeviceRequest::Alert(alert)) = (readings().request, alert().request) else {
        panic!("other requests")
    };
    let batch = LegacyBatch {
        hardware_id: "m".to_owned(),
        measurements: vec![measurements; 2],
        alerts: vec![alert],
    };
    let mut kinds = Vec::new();
    Decoder::new().decode_legacy_batch(&serde_json::to_vec(&batch).unwrap(), |_, read| {
        let message = read.unwrap();
        assert_eq!(
            (&*message.hardware_id, message.event_date, message.update_state),
            ("m", Some(time()), true)
        );
        kinds.push(match message.body {
            Body::Measurements { good, .. } => format!("{} readings", good.len()),
            Body::Alert { alert_type, .. } => alert_type.into_owned(),
            other => format!("{other:?}"),
        });
    });
    assert_eq!(kinds, ["2 readings", "2 readings", "power.lastgasp"]);
}

#[test]
fn a_command_carries_definition_invocation_and_typed_values() {
    let text = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    let command = CommandMessage {
        command: Command {
            command: CommandDefinition {
                token: "C".to_owned(),
                specification_token: "P".to_owned(),
                namespace: "http://example.org/meter".to_owned(),
                name: "blinkLed".to_owned(),
                description: None,
            },
            invocation: CommandInvocation {
                id: "i-1".to_owned(),
                command_token: "C".to_owned(),
                event_date: time(),
                initiator: "REST".to_owned(),
                initiator_id: "admin".to_owned(),
                target: "Assignment".to_owned(),
                target_id: "A".to_owned(),
                parameter_values: text(&[("color", "#ff0000"), ("count", "3")]),
            },
            parameters: [
                ("color".to_owned(), ParameterValue::Text("#ff0000".to_owned())),
                ("count".to_owned(), ParameterValue::Signed(3)),
            ]
            .into(),
        },
        nesting_context: NestingContext::default(),
        assignment: CommandAssignment {
            token: "A".to_owned(),
            device_hardware_id: "H".to_owned(),
        },
    };
    check(
        &command,
        r##"{"command":{"command":{"token":"C","specificationToken":"P","namespace":"http://example.org/meter","name":"blinkLed"},"invocation":{"id":"i-1","commandToken":"C","eventDate":"2016-02-10T17:40:03.391Z","initiator":"REST","initiatorId":"admin","target":"Assignment","targetId":"A","parameterValues":{"color":"#ff0000","count":"3"}},"parameters":{"color":"#ff0000","count":3}},"nestingContext":{},"assignment":{"token":"A","deviceHardwareId":"H"}}"##,
    );
}
