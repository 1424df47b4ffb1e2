//! Makes logs of everything that can come: on time, late, repeated, redelivered, malformed, misattributed, in batches, or nothing but
//! a heartbeat; on a clock that mostly creeps, sometimes leaps and sometimes steps back. A seed makes the log. With every record
//! comes what it means, so the model it is compared with needs no decoder.
#![allow(dead_code, reason = "each test uses its part")]

use flexmeter_model::outcome::ReasonCode;
use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
use flexmeter_model::{EventTime, Identifier};

/// A small random number generator (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    Measurements {
        event_time: Option<i64>,
        good: Vec<(Identifier, f64)>,
        bad: Vec<ReasonCode>,
    },
    Alert {
        event_time: Option<i64>,
        text: String,
    },
    Acknowledge {
        event_time: Option<i64>,
        text: String,
    },
    Register,
    Rejected(ReasonCode),
}

/// A record of the log, and its messages: each one's bytes and meaning.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) kind: RecordKind,
    pub(crate) tenant: &'static str,
    pub(crate) hardware_id: String,
    pub(crate) redelivered: bool,
    pub(crate) received_at: i64,
    pub(crate) payload: Vec<u8>,
    pub(crate) messages: Vec<(Vec<u8>, Meaning)>,
}

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
const START: i64 = 1_455_134_403_000_000;
const TENANTS: [&str; 2] = ["default", "acme"];
const N_DEVICES: u64 = 14;

/// A log of `n` records over `n_partitions` partitions.
pub(crate) fn log(seed: u64, n: usize, n_partitions: u32) -> Vec<Entry> {
    let mut rng = Rng::new(seed);
    let mut now = START;
    let mut next_offset = vec![rng.below(1000); n_partitions as usize];
    let mut log: Vec<Entry> = Vec::with_capacity(n);
    for _ in 0..n {
        now += match rng.below(100) {
            0 => -(rng.below(600) as i64) * SECOND,
            1 => rng.below(5) as i64 * HOUR,
            2..10 => rng.below(20) as i64 * MINUTE,
            _ => rng.below(5_000_000) as i64,
        };
        let mut entry = match rng.below(20) {
            0 => heartbeat(&mut rng, n_partitions),
            1 | 2 if !log.is_empty() => {
                let repeated = log[rng.below(log.len() as u64) as usize].clone();
                Entry {
                    redelivered: rng.one_in(2),
                    ..repeated
                }
            }
            _ => fresh(&mut rng, now, n_partitions),
        };
        entry.received_at = now;
        entry.offset = next_offset[entry.partition as usize];
        next_offset[entry.partition as usize] += if rng.one_in(50) { 1 + rng.below(5) } else { 1 };
        log.push(entry);
    }
    log
}

/// The records as blocks, cut where offsets are missing and at random.
pub(crate) fn blocks(entries: &[Entry], rng: &mut Rng) -> Vec<RecordBlock> {
    let mut blocks: Vec<RecordBlock> = Vec::new();
    for entry in entries {
        let last = blocks.iter().rposition(|block| block.partition == entry.partition);
        let continues = last.is_some_and(|at| blocks[at].end_offset() == entry.offset) && !rng.one_in(10);
        if !continues {
            blocks.push(RecordBlock {
                partition: entry.partition,
                base_offset: entry.offset,
                n_records: 0,
                data: Vec::new(),
            });
        }
        let at = if continues { last.unwrap() } else { blocks.len() - 1 };
        blocks[at].n_records += 1;
        let record = Record {
            kind: entry.kind,
            tenant: entry.tenant,
            hardware_id: &entry.hardware_id,
            bound: true,
            redelivered: entry.redelivered,
            received_at: EventTime::from_micros(entry.received_at),
            payload: &entry.payload,
        };
        record.encode(&mut blocks[at].data);
    }
    blocks
}

fn heartbeat(rng: &mut Rng, n_partitions: u32) -> Entry {
    Entry {
        partition: rng.below(u64::from(n_partitions)) as u32,
        offset: 0,
        kind: RecordKind::Heartbeat,
        tenant: "", // as the log writes them
        hardware_id: String::new(),
        redelivered: false,
        received_at: 0,
        payload: Vec::new(),
        messages: Vec::new(),
    }
}

fn fresh(rng: &mut Rng, now: i64, n_partitions: u32) -> Entry {
    let tenant = TENANTS[rng.below(2) as usize];
    let hardware_id = format!("m-{}", rng.below(N_DEVICES));
    let (kind, payload, messages) = match rng.below(40) {
        0 => {
            let payload = vec![b'x'; 100];
            (
                RecordKind::Oversized,
                payload.clone(),
                vec![(payload, Meaning::Rejected(ReasonCode::TooLarge))],
            )
        }
        1 => legacy_batch(rng, now, &hardware_id),
        _ => {
            let (payload, meaning) = message(rng, now, &hardware_id);
            (RecordKind::Message, payload.clone(), vec![(payload, meaning)])
        }
    };
    let partition = partition_of(tenant, &hardware_id, n_partitions);
    Entry {
        partition,
        offset: 0,
        kind,
        tenant,
        hardware_id,
        redelivered: rng.one_in(10),
        received_at: 0,
        payload,
        messages,
    }
}

/// A record's kind, payload and messages.
type Content = (RecordKind, Vec<u8>, Vec<(Vec<u8>, Meaning)>);

fn legacy_batch(rng: &mut Rng, now: i64, hardware_id: &str) -> Content {
    let events: Vec<_> = (0..rng.below(4)).map(|_| measurements(rng, now)).collect();
    let bodies: Vec<_> = events.iter().map(|(request, _)| request.as_str()).collect();
    let payload = format!(r#"{{"hardwareId":"{hardware_id}","measurements":[{}]}}"#, bodies.join(","));
    let messages = events
        .into_iter()
        .map(|(request, meaning)| (request.into_bytes(), meaning))
        .collect();
    (RecordKind::LegacyBatch, payload.into_bytes(), messages)
}

fn message(rng: &mut Rng, now: i64, hardware_id: &str) -> (Vec<u8>, Meaning) {
    let envelope = |kind: &str, request: &str| format!(r#"{{"hardwareId":"{hardware_id}","type":"{kind}","request":{request}}}"#);
    let (text, meaning) = match rng.below(30) {
        0 => {
            let (event_time, date) = event_time(rng, now);
            let text = format!("event {}", rng.below(3));
            let request = format!(r#"{{"type":"power.lastgasp","level":"Critical","message":"{text}"{date}}}"#);
            (envelope("DeviceAlert", &request), Meaning::Alert { event_time, text })
        }
        1 => {
            let (event_time, date) = event_time(rng, now);
            let text = format!("command-{}", rng.below(3));
            let request = format!(r#"{{"response":"done","originatingEventId":"{text}"{date}}}"#);
            (envelope("Acknowledge", &request), Meaning::Acknowledge { event_time, text })
        }
        2 => {
            let request = format!(r#"{{"hardwareId":"{hardware_id}","specificationToken":"spec"}}"#);
            (envelope("RegisterDevice", &request), Meaning::Register)
        }
        3 => (
            format!(r#"{{"hardwareId":"{hardware_id}","type":{}"#, rng.below(9)),
            Meaning::Rejected(ReasonCode::MalformedJson),
        ),
        4 => (envelope("DeviceLocation", "{}"), Meaning::Rejected(ReasonCode::UnknownType)),
        5 => (format!("[{}]", rng.below(3)), Meaning::Rejected(ReasonCode::WrongShape)),
        6 => (envelope("DeviceMeasurements", "{}"), Meaning::Rejected(ReasonCode::MissingField)),
        7 => {
            let request = r#"{"measurements":{"electricity.frequency":50},"eventDate":"yesterday"}"#;
            (envelope("DeviceMeasurements", request), Meaning::Rejected(ReasonCode::BadEventDate))
        }
        8 => {
            let (request, _) = measurements(rng, now);
            let text = format!(r#"{{"hardwareId":"somebody-else","type":"DeviceMeasurements","request":{request}}}"#);
            (text, Meaning::Rejected(ReasonCode::IdentityMismatch))
        }
        _ => {
            let (request, meaning) = measurements(rng, now);
            (envelope("DeviceMeasurements", &request), meaning)
        }
    };
    (text.into_bytes(), meaning)
}

/// The request of a measurements message. Values are multiples of 1/8, so sums are exact in any arithmetic.
fn measurements(rng: &mut Rng, now: i64) -> (String, Meaning) {
    let (event_time, date) = event_time(rng, now);
    let first = rng.below(40) as u8;
    let n_good = if rng.one_in(12) { 0 } else { 1 + rng.below(5) as u8 };
    let good: Vec<_> = (0..n_good)
        .map(|i| (Identifier::from_index(first % 4 + i).unwrap(), rng.below(8_000) as f64 / 8.0))
        .collect();
    let mut pairs: Vec<_> = good
        .iter()
        .map(|(identifier, value)| format!(r#""{}":{value}"#, identifier.name()))
        .collect();
    let mut bad = Vec::new();
    if rng.one_in(15) || good.is_empty() {
        let (pair, reason) = match rng.below(3) {
            0 => (r#""electricity.voltage.rms.l9":1"#, ReasonCode::UnknownIdentifier),
            1 => (r#""electricity.frequency":-5"#, ReasonCode::OutOfRange),
            _ => (r#""electricity.frequency":"fifty""#, ReasonCode::NotANumber),
        };
        pairs.insert(rng.below(pairs.len() as u64 + 1) as usize, pair.to_owned());
        bad.push(reason);
    }
    let request = format!(r#"{{"measurements":{{{}}}{date}}}"#, pairs.join(","));
    (request, Meaning::Measurements { event_time, good, bad })
}

/// An event time, mostly about now, sometimes late, sometimes none, sometimes too far ahead.
fn event_time(rng: &mut Rng, now: i64) -> (Option<i64>, String) {
    let event_time = match rng.below(40) {
        0 => return (None, String::new()),
        1 => now + 9 * MINUTE,
        2 => now + 11 * MINUTE + rng.below(1_000_000) as i64,
        3 => now - rng.below(80) as i64 * HOUR,
        4..8 => now - rng.below(60) as i64 * MINUTE,
        _ => now - rng.below(20) as i64 * SECOND,
    };
    // A coarse clock, so that equal event times and ties happen.
    let event_time = event_time.div_euclid(10 * SECOND) * 10 * SECOND;
    (
        Some(event_time),
        format!(r#","eventDate":"{}""#, EventTime::from_micros(event_time)),
    )
}
