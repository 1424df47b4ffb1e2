//! What the engine costs: messages per CPU-second with everything maintained, the latency of one record on an idle engine, what an
//! idle engine burns, and how long a checkpoint of a million devices takes. One JSON line per figure.
//!
//! `cargo bench -p flexmeter-dataflows --bench ingest -- [messages|latency|idle|restore]…`; without a name all of them.
//!
//! The workload: 10,000 devices, 400-byte messages of six measurements every 30 seconds, 1 % malformed, 2 % repeated, 3 % up to an
//! hour late. The input is made beforehand; closed epochs are taken and dropped on another thread, and their cost is counted.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use flexmeter_dataflows::{Engine, EngineConfig};
use flexmeter_model::outcome::{ClosedEpoch, EpochCounts};
use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
use flexmeter_model::{EventTime, Identifier};

const N_MESSAGES: u64 = 1_000_000;
const N_DEVICES: u64 = 10_000;
const N_PARTITIONS: u32 = 4;
/// Messages in an epoch: as a backlog gives them, and as a steady stream does.
const EPOCH_LENS: [usize; 2] = [20_000, 1_000];
const START_US: i64 = 1_700_000_000_000_000;
const SECOND_US: i64 = 1_000_000;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    if wanted("messages") {
        for epoch_len in EPOCH_LENS {
            let load = Load::new(N_MESSAGES, epoch_len);
            for n_workers in [1, 2] {
                messages(&load, n_workers, epoch_len);
            }
        }
    }
    for n_workers in [1, 2] {
        if wanted("latency") {
            latency(n_workers);
        }
        if wanted("idle") {
            idle(n_workers);
        }
    }
    if wanted("restore") {
        restore(1_000_000);
    }
}

/// CPU seconds this process has used, over all threads.
fn cpu_s() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_S
}

/// Waits of the scheduler that a process of ours made by itself: each one is a wake-up later.
fn n_sleeps() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    let lines = statuses.filter_map(|status| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    lines.sum()
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Epochs of blocks, and what they should count.
struct Load {
    epochs: Vec<Vec<RecordBlock>>,
    expected: EpochCounts,
}

impl Load {
    fn new(n_messages: u64, epoch_len: usize) -> Self {
        let mut random = Random(7);
        let mut epochs = Vec::new();
        let mut next_offset = [0; N_PARTITIONS as usize];
        let mut expected = EpochCounts {
            n_messages,
            ..EpochCounts::default()
        };
        let mut last_of: Vec<String> = vec![String::new(); N_DEVICES as usize];
        let mut blocks = empty_blocks(&next_offset);
        for i in 0..n_messages {
            let device = i % N_DEVICES;
            let hardware_id = format!("meter-{device:06}");
            let now = START_US + (i as i64) * 30 * SECOND_US / N_DEVICES as i64;
            let fate = random.below(100);
            let payload = match fate {
                0 => {
                    expected.n_rejected += 1;
                    // a different cut each time, so that it is no repeat
                    format!(r#"{{"hardwareId":"{hardware_id}","type":"DeviceMeasurements","request":{{"n":{i},"measurements":[}}"#)
                }
                1 | 2 if !last_of[device as usize].is_empty() => {
                    expected.n_duplicates += 1;
                    last_of[device as usize].clone()
                }
                _ => {
                    expected.n_accepted += 1;
                    let late_us = if (3..6).contains(&fate) {
                        random.below(3_600) as i64 * SECOND_US
                    } else {
                        0
                    };
                    let payload = measurements(&hardware_id, now - late_us, &mut random);
                    last_of[device as usize].clone_from(&payload);
                    payload
                }
            };
            let partition = partition_of("default", &hardware_id, N_PARTITIONS);
            let record = Record {
                kind: RecordKind::Message,
                tenant: "default",
                hardware_id: &hardware_id,
                bound: true,
                redelivered: false,
                received_at: EventTime::from_micros(now),
                payload: payload.as_bytes(),
            };
            let block = &mut blocks[partition as usize];
            record.encode(&mut block.data);
            block.n_records += 1;
            next_offset[partition as usize] += 1;
            if (i + 1) % epoch_len as u64 == 0 {
                epochs.push(std::mem::replace(&mut blocks, empty_blocks(&next_offset)));
            }
        }
        epochs.push(blocks);
        Self { epochs, expected }
    }
}

fn empty_blocks(next_offset: &[u64]) -> Vec<RecordBlock> {
    let block = |(partition, &base_offset)| RecordBlock {
        partition: partition as u32,
        base_offset,
        n_records: 0,
        data: Vec::new(),
    };
    next_offset.iter().enumerate().map(block).collect()
}

fn measurements(hardware_id: &str, event_time: i64, random: &mut Random) -> String {
    let mut text = format!(r#"{{"hardwareId":"{hardware_id}","type":"DeviceMeasurements","request":{{"measurements":{{"#);
    for (n, index) in [0, 1, 2, 3, 50, 51].into_iter().enumerate() {
        let name = Identifier::from_index(index).unwrap().name();
        let comma = if n > 0 { "," } else { "" };
        write!(text, r#"{comma}"{name}":{}.{:03}"#, random.below(300), random.below(1000)).unwrap();
    }
    write!(
        text,
        r#"}},"updateState":true,"eventDate":"{}"}}}}"#,
        EventTime::from_micros(event_time)
    )
    .unwrap();
    text
}

fn messages(load: &Load, n_workers: usize, epoch_len: usize) {
    let config = EngineConfig {
        n_workers,
        n_partitions: N_PARTITIONS,
        ..EngineConfig::default()
    };
    let epochs = load.epochs.clone();
    let n_bytes: usize = epochs.iter().flatten().map(|block| block.data.len()).sum();
    let (sender, closed) = sync_channel::<ClosedEpoch>(2);
    let mut engine = Engine::start(config, Vec::new(), sender).unwrap();
    let (begin, cpu_begin) = (Instant::now(), cpu_s());
    let taker = std::thread::spawn(move || {
        let mut counts = EpochCounts::default();
        let (mut n_changes, mut n_rows) = (0, 0);
        for outcome in closed.iter().flat_map(|epoch| epoch.partitions) {
            counts += outcome.counts;
            n_changes += outcome.latest.len() + outcome.profile.len();
            n_rows += outcome.measurements.values.len() + outcome.profile_rows.len();
        }
        (counts, n_changes, n_rows)
    });
    for (epoch, blocks) in epochs.into_iter().enumerate() {
        engine.feed(epoch as u64 + 1, blocks).unwrap();
    }
    engine.shutdown().unwrap();
    let (counts, n_changes, n_rows) = taker.join().unwrap();
    let (seconds, cpu_seconds) = (begin.elapsed().as_secs_f64(), cpu_s() - cpu_begin);
    assert_eq!(counts, load.expected);
    let EpochCounts {
        n_messages,
        n_accepted,
        n_rejected,
        n_duplicates,
        ..
    } = counts;
    println!(
        r#"{{"bench":"ingest","workers":{n_workers},"epoch_len":{epoch_len},"lake":false,"messages":{n_messages},"bytes_per_record":{},"accepted":{n_accepted},"rejected":{n_rejected},"duplicates":{n_duplicates},"changes":{n_changes},"rows":{n_rows},"seconds":{seconds:.3},"cpu_seconds":{cpu_seconds:.2},"messages_per_cpu_second":{:.0}}}"#,
        n_bytes as u64 / n_messages,
        n_messages as f64 / cpu_seconds
    );
}

fn one_message(n: u64) -> Vec<RecordBlock> {
    let partition = partition_of("default", "meter-1", N_PARTITIONS);
    let mut block = RecordBlock {
        partition,
        base_offset: n,
        n_records: 1,
        data: Vec::new(),
    };
    let now = START_US + n as i64 * SECOND_US;
    let payload = measurements("meter-1", now, &mut Random(n));
    Record {
        kind: RecordKind::Message,
        tenant: "default",
        hardware_id: "meter-1",
        bound: true,
        redelivered: false,
        received_at: EventTime::from_micros(now),
        payload: payload.as_bytes(),
    }
    .encode(&mut block.data);
    vec![block]
}

fn latency(n_workers: usize) {
    const N: usize = 300;
    let config = EngineConfig {
        n_workers,
        n_partitions: N_PARTITIONS,
        ..EngineConfig::default()
    };
    let (sender, closed) = sync_channel(2);
    let mut engine = Engine::start(config, Vec::new(), sender).unwrap();
    let mut latencies_us: Vec<u128> = (0..N as u64)
        .map(|n| {
            std::thread::sleep(Duration::from_millis(5));
            let blocks = one_message(n);
            let begin = Instant::now();
            engine.feed(n + 1, blocks).unwrap();
            assert_eq!(closed.recv().unwrap().partitions.len(), 1);
            begin.elapsed().as_micros()
        })
        .collect();
    latencies_us.sort_unstable();
    let (p50, p99) = (latencies_us[N / 2], latencies_us[N * 99 / 100]);
    println!(r#"{{"bench":"latency","workers":{n_workers},"count":{N},"p50_us":{p50},"p99_us":{p99}}}"#);
    engine.shutdown().unwrap();
}

fn idle(n_workers: usize) {
    const SECONDS: u64 = 4;
    let config = EngineConfig {
        n_workers,
        n_partitions: N_PARTITIONS,
        ..EngineConfig::default()
    };
    let (sender, closed) = sync_channel(2);
    let mut engine = Engine::start(config, Vec::new(), sender).unwrap();
    engine.feed(1, one_message(0)).unwrap();
    closed.recv().unwrap();
    let (cpu_begin, sleeps_begin) = (cpu_s(), n_sleeps());
    std::thread::sleep(Duration::from_secs(SECONDS));
    let (cpu, sleeps) = (cpu_s() - cpu_begin, n_sleeps() - sleeps_begin);
    println!(
        r#"{{"bench":"idle","workers":{n_workers},"seconds":{SECONDS},"cpu_seconds":{cpu:.2},"wakeups_per_second_and_worker":{:.1}}}"#,
        sleeps as f64 / SECONDS as f64 / n_workers as f64
    );
    engine.shutdown().unwrap();
}

/// A checkpoint of many devices with six readings each, in memory: written, read, and its rows brought back.
fn restore(n_devices: u64) {
    let config = EngineConfig {
        n_workers: 2,
        n_partitions: N_PARTITIONS,
        ..EngineConfig::default()
    };
    let (sender, closed) = sync_channel::<ClosedEpoch>(1);
    let mut engine = Engine::start(config.clone(), Vec::new(), sender).unwrap();
    let taker = std::thread::spawn(move || closed.iter().count());
    let mut random = Random(1);
    let mut next_offset = [0; N_PARTITIONS as usize];
    let mut n_epochs = 0;
    for first in (0..n_devices).step_by(EPOCH_LENS[0]) {
        let mut blocks = empty_blocks(&next_offset);
        for device in first..(first + EPOCH_LENS[0] as u64).min(n_devices) {
            let hardware_id = format!("meter-{device:08}");
            let partition = partition_of("default", &hardware_id, N_PARTITIONS);
            let payload = measurements(&hardware_id, START_US, &mut random);
            let block = &mut blocks[partition as usize];
            Record {
                kind: RecordKind::Message,
                tenant: "default",
                hardware_id: &hardware_id,
                bound: true,
                redelivered: false,
                received_at: EventTime::from_micros(START_US),
                payload: payload.as_bytes(),
            }
            .encode(&mut block.data);
            block.n_records += 1;
            next_offset[partition as usize] += 1;
        }
        n_epochs += 1;
        engine.feed(n_epochs, blocks).unwrap();
    }
    // What is still under way is no part of the checkpoint's time.
    engine.snapshot().unwrap();
    let (begin, cpu_begin) = (Instant::now(), cpu_s());
    let snapshots = engine.snapshot().unwrap();
    let (write_s, write_cpu_s) = (begin.elapsed().as_secs_f64(), cpu_s() - cpu_begin);
    engine.shutdown().unwrap();
    taker.join().unwrap();
    let n_bytes: usize = snapshots.iter().map(|snapshot| snapshot.bytes.len()).sum();
    let (sender, closed) = sync_channel::<ClosedEpoch>(1);
    let (begin, cpu_begin) = (Instant::now(), cpu_s());
    let mut engine = Engine::start(config, snapshots, sender).unwrap();
    engine.feed(1, Vec::new()).unwrap();
    let n_rows: usize = closed
        .iter()
        .take_while(|epoch| epoch.epoch == 0)
        .flat_map(|epoch| epoch.partitions)
        .map(|outcome| outcome.latest.len() + outcome.profile.len())
        .sum();
    let (read_s, read_cpu_s) = (begin.elapsed().as_secs_f64(), cpu_s() - cpu_begin);
    assert_eq!(n_rows as u64, n_devices * 12);
    println!(
        r#"{{"bench":"restore","devices":{n_devices},"rows":{n_rows},"bytes":{n_bytes},"write_seconds":{write_s:.3},"write_cpu_seconds":{write_cpu_s:.2},"restore_seconds":{read_s:.3},"restore_cpu_seconds":{read_cpu_s:.2}}}"#
    );
    engine.shutdown().unwrap();
}
