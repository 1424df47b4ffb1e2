//! What holds for every message, time, number and payload, not only for those somebody thought of.
#![allow(clippy::unwrap_used)]

use flexmeter_model::decode::{Body, Decoder};
use flexmeter_model::message::{Acknowledge, Alert, DeviceMessage, DeviceRequest, Measurements, Register};
use flexmeter_model::outcome::AlertLevel;
use flexmeter_model::split::split_payload;
use flexmeter_model::{EventTime, Identifier};
use proptest::prelude::*;
use serde_json::Value;

const TIME_MAX_US: i64 = 7_289_654_399_999_999;

fn hardware_id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.:äß😀\"\\\\-]{1,20}"
}

fn event_date() -> impl Strategy<Value = Option<EventTime>> {
    proptest::option::of((0..=TIME_MAX_US).prop_map(EventTime::from_micros))
}

fn level() -> impl Strategy<Value = AlertLevel> {
    proptest::sample::select(vec![AlertLevel::Info, AlertLevel::Warning, AlertLevel::Error, AlertLevel::Critical])
}

/// Identifiers, each at most once, with a plausible value.
fn measurements() -> impl Strategy<Value = Vec<(Identifier, f64)>> {
    proptest::sample::subsequence(Identifier::ALL.to_vec(), 0..12)
        .prop_shuffle()
        .prop_flat_map(|ids| {
            ids.into_iter()
                .map(|id| (Just(id), id.range().0..=id.range().1))
                .collect::<Vec<_>>()
        })
}

fn request() -> impl Strategy<Value = DeviceRequest> {
    prop_oneof![
        (measurements(), any::<bool>(), event_date()).prop_map(|(measurements, update_state, event_date)| {
            DeviceRequest::Measurements(Measurements {
                measurements,
                update_state,
                event_date,
                metadata: Vec::new(),
            })
        }),
        (
            any::<String>(),
            level(),
            any::<String>(),
            any::<bool>(),
            event_date(),
            proptest::collection::btree_map(any::<String>(), any::<String>(), 0..5)
        )
            .prop_map(|(alert_type, level, message, update_state, event_date, metadata)| {
                let metadata = metadata.into_iter().collect();
                DeviceRequest::Alert(Alert {
                    alert_type,
                    level,
                    message,
                    update_state,
                    event_date,
                    metadata,
                })
            }),
        (any::<String>(), any::<String>(), event_date()).prop_map(|(response, originating_event_id, event_date)| {
            DeviceRequest::Acknowledge(Acknowledge {
                response,
                originating_event_id,
                event_date,
            })
        }),
        (any::<String>(), proptest::option::of(any::<String>())).prop_map(|(specification_token, site_token)| {
            DeviceRequest::Register(Register {
                hardware_id: None,
                specification_token,
                site_token,
            })
        }),
    ]
}

fn device_message() -> impl Strategy<Value = DeviceMessage> {
    (hardware_id(), request()).prop_map(|(hardware_id, request)| DeviceMessage { hardware_id, request })
}

/// What the decoder makes of a payload, as the message that would be sent to say it.
fn sent_again(payload: &[u8]) -> DeviceMessage {
    let mut decoder = Decoder::new();
    let message = decoder.decode(payload).unwrap();
    let (update_state, event_date) = (message.update_state, message.event_date);
    let request = match message.body {
        Body::Measurements { good, bad, .. } => {
            assert_eq!(bad, []);
            DeviceRequest::Measurements(Measurements {
                measurements: good.to_vec(),
                update_state,
                event_date,
                metadata: Vec::new(),
            })
        }
        Body::Alert {
            alert_type,
            level,
            message,
            metadata,
        } => DeviceRequest::Alert(Alert {
            alert_type: alert_type.into_owned(),
            level,
            message: message.into_owned(),
            update_state,
            event_date,
            metadata: metadata
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        }),
        Body::Acknowledge {
            originating_event_id,
            response,
            response_event_id,
        } => {
            assert_eq!(response_event_id, None);
            DeviceRequest::Acknowledge(Acknowledge {
                response: response.into_owned(),
                originating_event_id: originating_event_id.into_owned(),
                event_date,
            })
        }
        Body::Register {
            specification_token,
            site_token,
        } => DeviceRequest::Register(Register {
            hardware_id: None,
            specification_token: specification_token.into_owned(),
            site_token: site_token.map(|token| token.into_owned()),
        }),
    };
    DeviceMessage {
        hardware_id: message.hardware_id.into_owned(),
        request,
    }
}

fn content_hash(payload: &[u8]) -> u64 {
    Decoder::new().decode(payload).unwrap().content_hash
}

/// JSON with the members of every object in the order that `keys` sorts them, and white space everywhere.
fn rewritten(value: &Value, salt: u64, out: &mut String) {
    let space = ["", " ", "\n\t", "  \r\n "][(salt % 4) as usize];
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.bytes().fold(salt, |sum, b| (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)));
            out.push_str(&format!("{{{space}"));
            for (i, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                out.push_str(&format!("{space}{}{space}:{space}", Value::from(name.as_str())));
                rewritten(value, salt.rotate_right(3), out);
                out.push_str(space);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Arbitrary JSON, biased towards the words of the format.
fn any_json() -> impl Strategy<Value = Value> {
    let words = [
        "hardwareId",
        "type",
        "request",
        "measurements",
        "eventDate",
        "metadata",
        "DeviceAlert",
        "DeviceMeasurements",
        "gas.volume",
        "m",
    ];
    let word = prop_oneof![3 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(word.clone(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_sent_is_what_is_read(message in device_message()) {
        let payload = serde_json::to_vec(&message).unwrap();
        prop_assert_eq!(sent_again(&payload), message);
    }

    #[test]
    fn a_message_says_the_same_however_it_is_written(message in device_message(), salt in any::<u64>()) {
        let payload = serde_json::to_vec(&message).unwrap();
        let mut other = String::new();
        rewritten(&serde_json::to_value(&message).unwrap(), salt, &mut other);
        prop_assert_eq!(content_hash(&payload), content_hash(other.as_bytes()), "{}", other);
    }

    #[test]
    fn messages_that_differ_have_different_hashes(a in device_message(), b in device_message()) {
        let (a, b) = (serde_json::to_vec(&a.request).unwrap(), serde_json::to_vec(&b.request).unwrap());
        let without_date = |request: &[u8]| {
            let mut request: Value = serde_json::from_slice(request).unwrap();
            request["request"].as_object_mut().unwrap().remove("eventDate");
            request["hardwareId"] = "m".into();
            request
        };
        let (a, b) = (without_date(&a), without_date(&b));
        let update = |v: &Value| v["request"]["updateState"].as_bool().unwrap_or(false);
        if a != b || update(&a) != update(&b) {
            prop_assert_ne!(content_hash(a.to_string().as_bytes()), content_hash(b.to_string().as_bytes()));
        }
    }

    #[test]
    fn numbers_are_exactly_those_of_the_standard_library(
        text in prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| v.to_string()),
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!("{v:e}")),
            "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
            "-?(0|[1-9][0-9]{0,6})\\.[0-9]{1,9}",
        ],
    ) {
        let payload = format!(r#"{{"hardwareId":"m","type":"DeviceMeasurements","request":{{"measurements":{{"electricity.current.instant.l1":{text}}}}}}}"#);
        let expected: f64 = text.parse().unwrap();
        let mut decoder = Decoder::new();
        let Body::Measurements { good, bad, .. } = decoder.decode(payload.as_bytes()).unwrap().body else { panic!("another body") };
        let (min, max) = "electricity.current.instant.l1".parse::<Identifier>().unwrap().range();
        if expected >= min && expected <= max {
            prop_assert_eq!(good[0].1.to_bits(), expected.to_bits());
        } else {
            let reason = if expected.is_finite() { "out_of_range" } else { "not_a_number" };
            prop_assert_eq!(bad[0].reason.as_str(), reason);
        }
    }

    #[test]
    fn what_is_malformed_is_what_other_parsers_refuse(value in any_json(), cut in any::<prop::sample::Index>(), flip in any::<u8>()) {
        let mut payload = value.to_string().into_bytes();
        if flip < 128 && !payload.is_empty() {
            let at = cut.index(payload.len());
            payload[at] = flip;
        }
        let malformed = |payload: &[u8]| {
            matches!(Decoder::new().decode(payload), Err(error) if error.reason.as_str() == "malformed_json")
        };
        // serde_json also refuses numbers beyond an f64, which are JSON all the same
        match serde_json::from_slice::<Value>(&payload) {
            Ok(_) => prop_assert!(!malformed(&payload)),
            Err(error) if error.to_string().contains("out of range") => {}
            Err(_) => prop_assert!(malformed(&payload)),
        }
    }

    #[test]
    fn no_payload_stops_the_decoder_or_the_splitter(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Decoder::new().decode(&payload);
        Decoder::new().decode_legacy_batch(&payload, |_, _| {});
        prop_assert!(split_payload(&payload).count() <= payload.len() + 1);
    }

    #[test]
    fn what_was_read_before_does_not_matter(messages in proptest::collection::vec(device_message(), 1..8), salt in any::<u64>()) {
        let mut decoder = Decoder::new();
        for message in messages.iter().chain(&messages) {
            let mut payload = serde_json::to_string(message).unwrap();
            if salt % 2 == 0 {
                payload.clear();
                rewritten(&serde_json::to_value(message).unwrap(), salt, &mut payload);
            }
            let mut fresh = Decoder::new();
            prop_assert_eq!(decoder.decode(payload.as_bytes()), fresh.decode(payload.as_bytes()));
        }
    }

    #[test]
    fn a_batch_is_taken_apart_into_its_messages(messages in proptest::collection::vec(device_message(), 0..8), space in "[ \n\t]{0,3}") {
        let texts: Vec<String> = messages.iter().map(|message| serde_json::to_string(message).unwrap()).collect();
        let batch = format!("{space}[{space}{}{space}]{space}", texts.join(&format!("{space},{space}")));
        let pieces: Vec<_> = split_payload(batch.as_bytes()).collect();
        prop_assert_eq!(pieces.len(), messages.len());
        for ((piece, text), message) in pieces.iter().zip(&texts).zip(&messages) {
            prop_assert_eq!(piece.bytes, text.as_bytes());
            prop_assert_eq!(piece.hardware_id.as_deref(), Some(message.hardware_id.as_str()));
        }
    }

    #[test]
    fn splitter_and_decoder_agree_on_the_device(value in any_json()) {
        let payload = value.to_string();
        let pieces: Vec<_> = split_payload(payload.as_bytes()).collect();
        for piece in &pieces {
            if let Ok(message) = Decoder::new().decode(piece.bytes) {
                prop_assert_eq!(piece.hardware_id.as_deref(), Some(&*message.hardware_id));
            }
        }
        if let Value::Array(elements) = value {
            prop_assert_eq!(pieces.len(), elements.len());
        }
    }

    #[test]
    fn a_broken_batch_loses_nothing_and_its_rest_is_rejected(messages in proptest::collection::vec(device_message(), 1..5), cut in any::<prop::sample::Index>()) {
        let mut batch = serde_json::to_vec(&messages).unwrap();
        batch.truncate(1 + cut.index(batch.len() - 1));
        let pieces: Vec<_> = split_payload(&batch).collect();
        let (rest, whole) = pieces.split_last().unwrap();
        for (piece, message) in whole.iter().zip(&messages) {
            prop_assert_eq!(piece.bytes, serde_json::to_vec(message).unwrap());
        }
        prop_assert!(batch.ends_with(rest.bytes));
        let refused = matches!(Decoder::new().decode(rest.bytes), Err(error) if error.reason.as_str() == "malformed_json");
        prop_assert!(refused, "{}", String::from_utf8_lossy(rest.bytes));
    }

    #[test]
    fn times_survive_being_written_and_read(micros in 0..=TIME_MAX_US) {
        let time = EventTime::from_micros(micros);
        prop_assert_eq!(EventTime::parse(time.to_string().as_bytes()), Ok(time));
        prop_assert_eq!(serde_json::from_str::<EventTime>(&serde_json::to_string(&time).unwrap()).unwrap(), time);
    }

    #[test]
    fn no_text_stops_the_reader_of_times(text in "[0-9T:.Z+ -]{0,40}|.{0,40}") {
        if let Ok(time) = EventTime::parse(text.as_bytes()) {
            prop_assert!((0..=TIME_MAX_US).contains(&time.micros()));
        }
    }
}
