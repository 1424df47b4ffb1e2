//! A plain recomputation of what the engine answers: serde_json and hash maps, no engine. The benchmark's counters and checksum are
//! compared with it; it is also the peer that says what the answers cost without being maintained.

use std::collections::{HashMap, HashSet};

use flexmeter_model::{EventTime, Identifier};
use serde_json::Value;

/// Fifteen minutes, in microseconds.
const WINDOW_US: i64 = 900_000_000;

/// Counters and checksum of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) duplicates: u64,
    pub(crate) readings: u64,
    /// Sum over the rows of `latest` and `load_profile_15m` of [`mix`]; independent of order.
    pub(crate) checksum: u64,
}

/// Hash of a text key.
pub(crate) fn hash_text(text: &str) -> u64 {
    // FNV-1a: written down in two lines, so that anyone can repeat it
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Folds the parts of a row into one number.
pub(crate) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, part| {
        (hash ^ part).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29)
    })
}

/// The row hash of `latest`.
pub(crate) fn latest_row(device: u64, identifier: Identifier, time: EventTime, value: f64) -> u64 {
    mix(&[1, device, identifier.index() as u64, time.micros() as u64, value.to_bits()])
}

/// The row hash of `load_profile_15m` (without the mean, whose last bit depends on how a sum is rounded).
pub(crate) fn profile_row(device: u64, window: EventTime, identifier: Identifier, n: u64, min: f64, max: f64, last: f64) -> u64 {
    mix(&[
        2,
        device,
        window.micros() as u64,
        identifier.index() as u64,
        n,
        min.to_bits(),
        max.to_bits(),
        last.to_bits(),
    ])
}

struct Cell {
    n: u64,
    min: f64,
    max: f64,
    last: f64,
    last_time: EventTime,
}

/// Recomputes everything from the lines.
pub(crate) fn recompute<'a>(lines: impl Iterator<Item = &'a [u8]>, received_at: EventTime) -> Answer {
    let mut answer = Answer::default();
    let mut seen: HashSet<(String, i64, String)> = HashSet::new();
    let mut rejected: HashSet<Vec<u8>> = HashSet::new();
    let mut latest: HashMap<(String, Identifier), (EventTime, f64)> = HashMap::new();
    let mut profile: HashMap<(String, EventTime, Identifier), Cell> = HashMap::new();
    for line in lines {
        let Some((device, time, measurements)) = read(line, received_at) else {
            if rejected.insert(line.to_vec()) {
                answer.rejected += 1;
            } else {
                answer.duplicates += 1;
            }
            continue;
        };
        if !seen.insert((device.clone(), time.micros(), content(&measurements))) {
            answer.duplicates += 1;
            continue;
        }
        answer.accepted += 1;
        for (name, value) in &measurements {
            let (Some(identifier), Some(value)) = (Identifier::from_name(name.as_bytes()), value.as_f64()) else {
                continue;
            };
            let (least, most) = identifier.range();
            if !(least..=most).contains(&value) {
                continue;
            }
            answer.readings += 1;
            let newest = latest.entry((device.clone(), identifier)).or_insert((time, value));
            if time >= newest.0 {
                *newest = (time, value);
            }
            let cell = profile
                .entry((device.clone(), time.floor_to(WINDOW_US), identifier))
                .or_insert(Cell {
                    n: 0,
                    min: value,
                    max: value,
                    last: value,
                    last_time: time,
                });
            cell.n += 1;
            cell.min = cell.min.min(value);
            cell.max = cell.max.max(value);
            if time >= cell.last_time {
                (cell.last, cell.last_time) = (value, time);
            }
        }
    }
    for ((device, identifier), (time, value)) in &latest {
        answer.checksum = answer
            .checksum
            .wrapping_add(latest_row(hash_text(device), *identifier, *time, *value));
    }
    for ((device, window, identifier), cell) in &profile {
        let row = profile_row(hash_text(device), *window, *identifier, cell.n, cell.min, cell.max, cell.last);
        answer.checksum = answer.checksum.wrapping_add(row);
    }
    answer
}

/// Device, event time and measurements of a whole good measurements message.
fn read(line: &[u8], received_at: EventTime) -> Option<(String, EventTime, serde_json::Map<String, Value>)> {
    let Value::Object(mut message) = serde_json::from_slice(line).ok()? else {
        return None;
    };
    let device = message.get("hardwareId")?.as_str()?.to_owned();
    if message.get("type")?.as_str()? != "DeviceMeasurements" {
        return None;
    }
    let request = message.get_mut("request")?.as_object_mut()?;
    let time = EventTime::parse(request.get("eventDate")?.as_str()?.as_bytes()).ok()?;
    if time.micros() > received_at.micros() + 600_000_000 {
        return None;
    }
    match request.remove("measurements")? {
        Value::Object(measurements) => Some((device, time, measurements)),
        _ => None,
    }
}

fn content(measurements: &serde_json::Map<String, Value>) -> String {
    let mut pairs: Vec<String> = measurements.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.sort_unstable();
    pairs.join(",")
}
