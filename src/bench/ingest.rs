//! `bench ingest`: the engine on messages from memory, per CPU-second and per worker.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use flexmeter_connectors::lake::{Lake, LakeConfig};
use flexmeter_dataflows::{Engine, EngineConfig};
use flexmeter_model::outcome::{ClosedEpoch, Device};
use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
use flexmeter_model::{EventTime, TenantId, split};
use serde::Serialize;

use super::cpu;
use super::recompute::{self, Answer};
use super::workload::Workload;

/// Messages a partition contributes to an epoch.
const EPOCH_RECORDS_PER_PARTITION: u32 = 4_096;

/// Arguments of `bench ingest`.
#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// Recording to read (`.gz`, `.zst` unpacked); without it a workload is generated.
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
    /// Messages to generate without a file.
    #[arg(long, default_value_t = 1_000_000)]
    generate: u64,
    /// Meters of the generated workload.
    #[arg(long, default_value_t = 10_000)]
    meters: u64,
    /// Timely workers; several figures when separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// Log partitions.
    #[arg(long, default_value_t = 8)]
    partitions: u32,
    /// Also write the lake, in a temporary folder or in --lake-dir.
    #[arg(long)]
    lake: bool,
    /// Fresh folder for the lake; kept.
    #[arg(long, value_name = "DIR", requires = "lake")]
    lake_dir: Option<PathBuf>,
    /// Runs each figure is the best of.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Compare counters and checksum with a plain recomputation, and time that too.
    #[arg(long)]
    verify: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    bench: &'static str,
    workers: usize,
    lake: bool,
    messages: u64,
    accepted: u64,
    rejected: u64,
    duplicates: u64,
    readings: u64,
    checksum: String,
    seconds: f64,
    cpu_seconds: f64,
    messages_per_cpu_second: f64,
    messages_per_second: f64,
    peak_memory_bytes: u64,
    load_average: f64,
}

/// Runs `bench ingest`.
pub(crate) fn run(args: &IngestArgs) -> anyhow::Result<ExitCode> {
    let lines: Vec<Vec<u8>> = match &args.messages {
        Some(file) => crate::replay::read_lines(file)?,
        None => Workload::new(args.generate, args.meters, 1).collect(),
    };
    let received_at = EventTime::from_clock(SystemTime::now());
    let blocks = frame(&lines, args.partitions, received_at);
    let mut code = ExitCode::SUCCESS;
    let expected = args.verify.then(|| verify(&lines, received_at)).transpose()?;
    for &workers in &args.workers {
        let mut best: Option<Line> = None;
        for _ in 0..args.runs.max(1) {
            let line = measure(args, workers, &lines, &blocks)?;
            if best.as_ref().is_none_or(|best| line.cpu_seconds < best.cpu_seconds) {
                best = Some(line);
            }
        }
        let Some(line) = best else { continue };
        println!("{}", serde_json::to_string(&line)?);
        if let Some(expected) = &expected
            && (line.accepted, line.rejected, line.duplicates, line.readings, &line.checksum)
                != (
                    expected.accepted,
                    expected.rejected,
                    expected.duplicates,
                    expected.readings,
                    &checksum_text(expected),
                )
        {
            eprintln!(
                "the plain recomputation differs: {expected:?}, checksum {}",
                checksum_text(expected)
            );
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn verify(lines: &[Vec<u8>], received_at: EventTime) -> anyhow::Result<Answer> {
    let (started, cpu) = (Instant::now(), cpu::cpu_seconds()?);
    let answer = recompute::recompute(lines.iter().map(Vec::as_slice), received_at);
    let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), cpu::cpu_seconds()? - cpu);
    println!(
        "{}",
        serde_json::json!({
            "bench": "recompute", "messages": lines.len(), "accepted": answer.accepted, "rejected": answer.rejected,
            "duplicates": answer.duplicates, "readings": answer.readings, "checksum": checksum_text(&answer),
            "seconds": seconds, "cpu_seconds": cpu_seconds, "messages_per_cpu_second": lines.len() as f64 / cpu_seconds.max(1e-9),
        })
    );
    Ok(answer)
}

fn checksum_text(answer: &Answer) -> String {
    format!("{:016x}", answer.checksum)
}

/// The lines as the log would hold them: epochs of one block for each partition.
fn frame(lines: &[Vec<u8>], n_partitions: u32, received_at: EventTime) -> Vec<Vec<RecordBlock>> {
    let empty = |partition, base_offset| RecordBlock {
        partition,
        base_offset,
        n_records: 0,
        data: Vec::new(),
    };
    let mut open: Vec<RecordBlock> = (0..n_partitions).map(|partition| empty(partition, 0)).collect();
    let mut epochs = Vec::new();
    for line in lines {
        let id = split::split_payload(line)
            .next()
            .and_then(|piece| piece.hardware_id)
            .unwrap_or_default();
        let block = &mut open[partition_of("default", &id, n_partitions) as usize];
        let record = Record {
            kind: RecordKind::Message,
            tenant: "default",
            hardware_id: &id,
            bound: false,
            redelivered: false,
            received_at,
            payload: line,
        };
        record.encode(&mut block.data);
        block.n_records += 1;
        if block.n_records == EPOCH_RECORDS_PER_PARTITION {
            epochs.push(close(&mut open));
        }
    }
    epochs.push(close(&mut open));
    epochs
}

fn close(open: &mut [RecordBlock]) -> Vec<RecordBlock> {
    let mut blocks = Vec::new();
    for block in open {
        let next = RecordBlock {
            partition: block.partition,
            base_offset: block.end_offset(),
            n_records: 0,
            data: Vec::new(),
        };
        let full = std::mem::replace(block, next);
        if full.n_records > 0 {
            blocks.push(full);
        }
    }
    blocks
}

fn measure(args: &IngestArgs, workers: usize, lines: &[Vec<u8>], epochs: &[Vec<RecordBlock>]) -> anyhow::Result<Line> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let scratch = tempfile::tempdir()?;
    let lake = match args.lake {
        true => {
            let path = args.lake_dir.clone().unwrap_or_else(|| scratch.path().join("lake"));
            Some(Arc::new(
                runtime.block_on(Lake::open(LakeConfig::new(path), &[TenantId::new("default")?]))?,
            ))
        }
        false => None,
    };
    // copied before the clock starts: the engine takes its blocks by value
    let epochs = epochs.to_vec();
    let n_epochs = epochs.len() as u64;
    let config = EngineConfig {
        n_workers: workers,
        n_partitions: args.partitions,
        ..EngineConfig::default()
    };
    let (closed_tx, closed_rx) = sync_channel::<ClosedEpoch>(8);
    let (started, cpu) = (Instant::now(), cpu::cpu_seconds()?);
    let mut engine = Engine::start(config, Vec::new(), closed_tx)?;
    let handle = runtime.handle().clone();
    let taker = std::thread::spawn(move || -> anyhow::Result<Answer> {
        let mut tally = Tally::default();
        while let Ok(epoch) = closed_rx.recv() {
            tally.add(&epoch);
            let last = epoch.epoch == n_epochs;
            if let Some(lake) = &lake {
                handle.block_on(lake.push(Arc::new(epoch)))?;
                if last {
                    handle.block_on(lake.flush())?;
                }
            }
            if last {
                return Ok(tally.answer);
            }
        }
        bail!("the engine closed before the last epoch")
    });
    for (epoch, blocks) in (1..).zip(epochs) {
        engine.feed(epoch, blocks)?;
    }
    let answer = taker
        .join()
        .map_err(|_| anyhow::anyhow!("the taking thread panicked"))?
        .context("no complete run")?;
    let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), cpu::cpu_seconds()? - cpu);
    engine.shutdown()?;
    Ok(Line {
        bench: "ingest",
        workers,
        lake: args.lake,
        messages: lines.len() as u64,
        accepted: answer.accepted,
        rejected: answer.rejected,
        duplicates: answer.duplicates,
        readings: answer.readings,
        checksum: checksum_text(&answer),
        seconds,
        cpu_seconds,
        messages_per_cpu_second: lines.len() as f64 / cpu_seconds.max(1e-9),
        messages_per_second: lines.len() as f64 / seconds,
        peak_memory_bytes: cpu::memory_of(std::process::id())?.1,
        load_average: cpu::load_average(),
    })
}

/// Adds up closed epochs: rows that come in are added to the checksum, rows that go out are taken off.
#[derive(Default)]
struct Tally {
    answer: Answer,
    devices: Vec<Vec<u64>>,
}

impl Tally {
    fn add(&mut self, epoch: &ClosedEpoch) {
        for partition in &epoch.partitions {
            self.answer.accepted += partition.counts.n_accepted;
            self.answer.rejected += partition.counts.n_rejected;
            self.answer.duplicates += partition.counts.n_duplicates;
            self.answer.readings += partition.measurements.values.len() as u64;
            for change in &partition.latest {
                let device = self.device(&change.device);
                let row = |reading: &flexmeter_model::outcome::Reading| {
                    recompute::latest_row(device, change.identifier, reading.event_time, reading.value)
                };
                self.replace(change.old.as_ref().map(row), change.new.as_ref().map(row));
            }
            for change in &partition.profile {
                let device = self.device(&change.device);
                let row = |cell: &flexmeter_model::outcome::ProfileCell| {
                    recompute::profile_row(
                        device,
                        change.window_start,
                        change.identifier,
                        cell.n,
                        cell.min,
                        cell.max,
                        cell.last,
                    )
                };
                self.replace(change.old.as_ref().map(row), change.new.as_ref().map(row));
            }
        }
    }

    fn replace(&mut self, old: Option<u64>, new: Option<u64>) {
        self.answer.checksum = self.answer.checksum.wrapping_sub(old.unwrap_or(0)).wrapping_add(new.unwrap_or(0));
    }

    /// The device's key hash, computed once.
    fn device(&mut self, device: &Device) -> u64 {
        let partition = device.partition as usize;
        if self.devices.len() <= partition {
            self.devices.resize_with(partition + 1, Vec::new);
        }
        let devices = &mut self.devices[partition];
        let index = device.index as usize;
        if devices.len() <= index {
            devices.resize(index + 1, 0);
        }
        if devices[index] == 0 {
            devices[index] = recompute::hash_text(device.hardware_id.as_str());
        }
        devices[index]
    }
}
