//! The decoder on any bytes: no panic, the same verdict every time, and what it calls malformed is what serde_json refuses.
#![no_main]

use flexmeter_model::decode::{Body, Decoder};
use flexmeter_model::outcome::ReasonCode;
use flexmeter_model::{EventTime, HardwareId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let mut decoder = Decoder::new();
    let first = format!("{:?}", decoder.decode(payload));
    // buffers of the message before must not show through
    assert_eq!(format!("{:?}", decoder.decode(payload)), first);
    match decoder.decode(payload) {
        Ok(message) => {
            HardwareId::check(&message.hardware_id).expect("the id of a decoded message is valid");
            if let Body::Measurements { good, .. } = message.body {
                for (i, (identifier, value)) in good.iter().enumerate() {
                    let (min, max) = identifier.range();
                    assert!((min..=max).contains(value), "{identifier}: {value}");
                    assert!(good[..i].iter().all(|(known, _)| known != identifier), "{identifier} twice");
                }
            }
        }
        Err(error) => {
            assert!(error.hardware_id.is_none_or(|id| HardwareId::check(&id).is_ok()));
            agree_on_syntax(payload, error.reason, &error.detail);
        }
    }
    decoder.decode_legacy_batch(payload, |event, read| {
        assert!(event.len() <= payload.len());
        drop(read);
    });
    if let Ok(time) = EventTime::parse(payload) {
        assert_eq!(EventTime::parse(time.to_string().as_bytes()), Ok(time));
    }
});

fn agree_on_syntax(payload: &[u8], reason: ReasonCode, detail: &str) {
    match serde_json::from_slice::<serde_json::Value>(payload) {
        Ok(_) => assert_ne!(reason, ReasonCode::MalformedJson, "{detail}"),
        // it also refuses numbers beyond an f64 and deep nesting, which are JSON all the same
        Err(error) if error.to_string().contains("out of range") || error.to_string().contains("recursion limit") => {}
        // beyond our own nesting limit the syntax is not looked at
        Err(_) => assert!(
            reason == ReasonCode::MalformedJson || detail.starts_with("nested deeper"),
            "{detail}"
        ),
    }
}
