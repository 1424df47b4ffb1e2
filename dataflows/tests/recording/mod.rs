//! A grid bundle with its recording and truth, as an engine is fed with it.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flexmeter_dataflows::Grid;
use flexmeter_grid::Complex;
use flexmeter_model::EventTime;
use flexmeter_model::outcome::{AreaEstimate, GridOutcome, SwitchRow};
use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
use serde_json::Value;

#[path = "../../../core/grid/tests/recording/mod.rs"]
mod files;
pub(crate) use files::bundle;
use files::gunzip;

pub(crate) const TENANT: &str = "default";
pub(crate) const N_PARTITIONS: u32 = 4;

/// The folder of a recording, if this machine has it.
pub(crate) fn folder(name: &str, test: &str) -> Option<PathBuf> {
    files::folder("..", name, test)
}

pub(crate) fn grid(folder: &Path) -> Arc<Grid> {
    Arc::new(Grid::new(bundle(folder)).unwrap())
}

/// A message as the log has it.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) hardware_id: String,
    pub(crate) received_at: i64,
    pub(crate) payload: String,
}

/// The recording in arrival order. The log's clock is the newest time that a message names: the others come late.
pub(crate) fn log(folder: &Path) -> Vec<Logged> {
    let mut received_at = i64::MIN;
    gunzip(folder, "messages.jsonl.gz")
        .lines()
        .map(|line| {
            let message: Value = serde_json::from_str(line).unwrap_or(Value::Null);
            let date = message["request"]["eventDate"]
                .as_str()
                .and_then(|date| EventTime::parse(date.as_bytes()).ok());
            received_at = received_at.max(date.map_or(i64::MIN, EventTime::micros));
            Logged {
                hardware_id: message["hardwareId"].as_str().unwrap_or("unknown").to_owned(),
                received_at,
                payload: line.to_owned(),
            }
        })
        .collect()
}

/// Turns messages into blocks, with the offsets that come next in each partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks {
    next: BTreeMap<u32, u64>,
}

impl Blocks {
    /// As after these messages.
    pub(crate) fn until(messages: &[Logged]) -> Self {
        let mut blocks = Self::default();
        blocks.of(messages);
        blocks
    }

    pub(crate) fn of(&mut self, messages: &[Logged]) -> Vec<RecordBlock> {
        let mut blocks: BTreeMap<u32, RecordBlock> = BTreeMap::new();
        for message in messages {
            let partition = partition_of(TENANT, &message.hardware_id, N_PARTITIONS);
            let next = self.next.entry(partition).or_default();
            let block = blocks.entry(partition).or_insert_with(|| RecordBlock {
                partition,
                base_offset: *next,
                n_records: 0,
                data: Vec::new(),
            });
            Record {
                kind: RecordKind::Message,
                tenant: TENANT,
                hardware_id: &message.hardware_id,
                bound: true,
                redelivered: false,
                received_at: EventTime::from_micros(message.received_at),
                payload: message.payload.as_bytes(),
            }
            .encode(&mut block.data);
            block.n_records += 1;
            *next += 1;
        }
        blocks.into_values().collect()
    }

    /// Adds a heartbeat to every partition.
    pub(crate) fn beat(&mut self, blocks: Vec<RecordBlock>, at: i64) -> Vec<RecordBlock> {
        let mut blocks: BTreeMap<u32, RecordBlock> = blocks.into_iter().map(|block| (block.partition, block)).collect();
        for partition in 0..N_PARTITIONS {
            let next = self.next.entry(partition).or_default();
            let block = blocks.entry(partition).or_insert_with(|| RecordBlock {
                partition,
                base_offset: *next,
                n_records: 0,
                data: Vec::new(),
            });
            Record {
                kind: RecordKind::Heartbeat,
                tenant: "",
                hardware_id: "",
                bound: false,
                redelivered: false,
                received_at: EventTime::from_micros(at),
                payload: &[],
            }
            .encode(&mut block.data);
            block.n_records += 1;
            *next += 1;
        }
        blocks.into_values().collect()
    }
}

/// All areas and switches as the last epochs left them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) areas: BTreeMap<String, Arc<AreaEstimate>>,
    pub(crate) switches: BTreeMap<i64, SwitchRow>,
}

impl State {
    pub(crate) fn take(&mut self, outcome: GridOutcome) {
        for (_, area) in outcome.gone {
            assert!(self.areas.remove(&*area).is_some(), "{area} was there");
        }
        self.areas
            .extend(outcome.areas.into_iter().map(|area| (area.area.to_string(), area)));
        self.switches.extend(outcome.switches.into_iter().map(|row| (row.branch_id, row)));
    }

    /// Largest difference of the voltages of two states, per unit. Angles, which are known a million times less well than they are
    /// settled (some 0.007 rad), are to agree to 1e-7 rad.
    pub(crate) fn distance(&self, other: &Self) -> f64 {
        assert_eq!(self.areas.keys().collect::<Vec<_>>(), other.areas.keys().collect::<Vec<_>>());
        let mut worst: f64 = 0.0;
        for (a, b) in self.areas.values().zip(other.areas.values()) {
            assert_eq!(
                (&a.nodes, a.states.len()),
                (&b.nodes, b.states.len()),
                "{}: {:?} {:?}",
                a.area,
                a.quality,
                b.quality
            );
            assert_eq!(a.quality.suspects, b.quality.suspects, "{}", a.area);
            assert_eq!(
                (a.quality.n_measurements, a.quality.n_pseudo, a.event_time),
                (b.quality.n_measurements, b.quality.n_pseudo, b.event_time),
                "{}",
                a.area
            );
            for (x, y) in a.states.iter().zip(&b.states) {
                assert_eq!(x.energised, y.energised, "{}", a.area);
                for k in 0..3 {
                    let base = x.value[0][k].max(230.0);
                    worst = worst.max((x.value[0][k] - y.value[0][k]).abs() / base);
                    let turned = (x.value[1][k] - y.value[1][k]).abs();
                    assert!(turned < 1e-7, "{}: {turned:e} rad, {:?}", a.area, a.quality);
                }
            }
        }
        worst
    }
}

fn phase(letter: &str) -> usize {
    ["a", "b", "c"].iter().position(|&other| other == letter).unwrap()
}

pub(crate) type Truth = HashMap<i64, [Complex<f64>; 3]>;

/// True voltages by time, V to ground.
pub(crate) fn truth(folder: &Path) -> BTreeMap<i64, Truth> {
    let mut by_time: BTreeMap<i64, Truth> = BTreeMap::new();
    for line in gunzip(folder, "truth.csv.gz").lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [u, angle]: [f64; 2] = [3, 4].map(|at| fields[at].parse().unwrap());
        let time = EventTime::parse(fields[0].as_bytes()).unwrap().micros();
        let nodes = by_time.entry(time).or_default();
        nodes.entry(fields[1].parse().unwrap()).or_default()[phase(fields[2])] = Complex::from_polar(u, angle);
    }
    by_time
}
