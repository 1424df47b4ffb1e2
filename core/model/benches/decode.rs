//! Nanoseconds per message of the decoder and the splitter, beside serde_json doing the same job on the same bytes.
//!
//! `cargo bench -p flexmeter-model --bench decode` prints one JSON line a figure (append `-- decode` for that one alone). Peers:
//! `serde_json::Value` (a tree) and a typed struct with borrowed strings and a hash map of measurements; neither interns identifiers,
//! checks ranges or reads the date, which the decoder does.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use flexmeter_model::decode::{Body, Decoder};
use flexmeter_model::message::DeviceMessage;
use flexmeter_model::split::split_payload;
use flexmeter_model::{EventTime, Identifier};

const N_MESSAGES: usize = 5_000;
const N_ROUNDS: usize = 300;

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed<'a> {
    hardware_id: &'a str,
    #[serde(rename = "type")]
    message_type: &'a str,
    request: TypedRequest<'a>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypedRequest<'a> {
    #[serde(borrow)]
    measurements: HashMap<&'a str, f64>,
    update_state: bool,
    event_date: &'a str,
}

fn main() {
    let messages = messages();
    let n_bytes = messages.iter().map(Vec::len).sum::<usize>() / N_MESSAGES;
    let mut decoder = Decoder::new();
    report("decode", n_bytes, &messages, |message| {
        match decoder.decode(message).map(|message| message.body) {
            Ok(Body::Measurements { good, .. }) => good.len(),
            _ => 0,
        }
    });
    report("split", n_bytes, &messages, |message| split_payload(message).count());
    report("serde_json typed", n_bytes, &messages, |message| {
        serde_json::from_slice(message).map_or(0, |typed: Typed<'_>| {
            black_box((
                typed.hardware_id,
                typed.message_type,
                typed.request.update_state,
                typed.request.event_date,
            ));
            typed.request.measurements.len()
        })
    });
    report("serde_json value", n_bytes, &messages, |message| {
        serde_json::from_slice::<serde_json::Value>(message)
            .map_or(0, |value| value["request"]["measurements"].as_object().map_or(0, |m| m.len()))
    });
    let batches: Vec<Vec<u8>> = messages
        .chunks(100)
        .map(|chunk| [b"[", chunk.join(&b","[..]).as_slice(), b"]"].concat())
        .collect();
    report("split batch of 100", n_bytes * 100, &batches, |batch| split_payload(batch).count());
}

/// Messages of about 400 bytes with six measurements, as a three-phase meter sends them; no two are equal.
fn messages() -> Vec<Vec<u8>> {
    let names = [
        "power.active.consumed.l1",
        "power.active.consumed.l2",
        "power.active.consumed.l3",
        "voltage.rms.l1",
        "voltage.rms.l2",
        "voltage.rms.l3",
    ];
    let identifiers: Vec<Identifier> = names.iter().filter_map(|name| format!("electricity.{name}").parse().ok()).collect();
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let message = |i: usize| {
        let time = EventTime::from_micros(1_455_126_003_391_000 + i as i64 * 10_007_000);
        let values = identifiers.iter().enumerate().map(|(k, id)| {
            let value = if k < 3 {
                random(50_000) as f64 / 1e4
            } else {
                225.0 + random(1000) as f64 / 100.0
            };
            (*id, value)
        });
        let message = DeviceMessage::measurements(format!("FLX-LV{:02}-{:05}", i % 40, i), Some(time), values);
        serde_json::to_vec(&message).unwrap_or_default()
    };
    (0..N_MESSAGES).map(message).collect()
}

/// The best of many short rounds: the one that other work on the machine disturbed least.
fn report(what: &str, n_bytes: usize, messages: &[Vec<u8>], mut job: impl FnMut(&[u8]) -> usize) {
    let mut wanted = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    if wanted.peek().is_some() && !wanted.any(|arg| arg == what) {
        return;
    }
    let mut best_ns = f64::INFINITY;
    for _ in 0..N_ROUNDS {
        let start = Instant::now();
        let total = messages.iter().map(|message| job(black_box(message))).sum::<usize>();
        best_ns = best_ns.min(start.elapsed().as_nanos() as f64 / messages.len() as f64);
        assert!(black_box(total) > 0, "{what} read nothing");
    }
    println!(r#"{{"bench":"{what}","bytes":{n_bytes},"ns_per_message":{best_ns:.0}}}"#);
}
