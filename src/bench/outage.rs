//! `bench outage`: a storm through the engine in real time. Last gasps by the million beside the readings of everybody who has supply; half of
//! the gasps are lost, some come twice, some are false. How late outages are told, how many of the blamed devices have failed and how
//! many of the failed are blamed, and whether every message was taken.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use flexmeter_dataflows::{Engine, EngineConfig, EstimationConfig, Grid};
use flexmeter_grid::bundle::Bundle;
use flexmeter_grid::outage::simulation::{GridShape, Random, RandomGrid, STORM_START_US, Score, Storm, StormShape};
use flexmeter_grid::outage::{Device, Fact, SECOND_US, Sections};
use flexmeter_model::message::DeviceMessage;
use flexmeter_model::outcome::{AlertLevel, ClosedEpoch, OutageRow};
use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
use flexmeter_model::{EventTime, Identifier, TenantId};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use super::cpu;

/// An epoch is fed so often.
const EPOCH: Duration = Duration::from_millis(100);
const N_PARTITIONS: u32 = 8;
/// Gasps below a device from which an operator would expect to be told.
const N_GASPS_TOLD: usize = 3;
/// Closed epochs that may wait for the thread that looks at them.
const CLOSED_WAITING_MAX: usize = 64;

/// Arguments of `bench outage`.
#[derive(Debug, Args)]
pub(crate) struct OutageArgs {
    /// Grids of some 20,000 customers each.
    #[arg(long, default_value_t = 60)]
    grids: u64,
    /// Gasps that are lost, parts per thousand.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=1000))]
    lost: u64,
    /// Seconds between two readings of a meter.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..))]
    interval: i64,
    /// Seconds for which readings go on after the storm: silence is found in them.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,
    /// Timely workers.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Seed of grids and storms.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Line {
    bench: &'static str,
    grids: u64,
    customers: u64,
    workers: usize,
    lost_per_mille: u64,
    gasps_sent: u64,
    gasps: u64,
    readings: u64,
    messages: u64,
    accepted: u64,
    duplicates: u64,
    seconds: f64,
    cpu_seconds: f64,
    epoch_ms_p50: f64,
    epoch_ms_p99: f64,
    epoch_ms_max: f64,
    /// From the third gasp below a failed device to the first row that blames it.
    event_s_p50: f64,
    event_s_p99: f64,
    failures: u64,
    /// When the last gasp has come, and at the end.
    precision_gasps: f64,
    recall_gasps: f64,
    precision: f64,
    recall: f64,
    load_average: f64,
}

/// A message on its way, and where it comes from.
struct Sent {
    log_us: i64,
    grid: u32,
    point: u32,
    fact: Fact,
}

/// Grids with their storms.
struct Load {
    config: EngineConfig,
    tenants: Vec<TenantId>,
    /// By grid: failed devices with those that look the same.
    failures: Vec<Vec<(Vec<Device>, i64)>>,
    /// By grid and failure: log time of the third gasp below it.
    third_gasp_us: Vec<Vec<Option<i64>>>,
    sent: Vec<Sent>,
    n_customers: u64,
    n_gasps_sent: u64,
    end_us: i64,
    end_of_gasps_us: i64,
}

/// Runs `bench outage`.
pub(crate) fn run(args: &OutageArgs) -> anyhow::Result<ExitCode> {
    eprintln!("drawing {} grids and their storms", args.grids);
    let load = draw(args)?;
    let minutes = (load.end_us - load.sent.first().map_or(0, |sent| sent.log_us)) as f64 / 60e6;
    eprintln!(
        "{} messages of {} customers, in real time: {minutes:.1} min",
        load.sent.len(),
        load.n_customers
    );
    let line = measure(args, load)?;
    println!("{}", serde_json::to_string(&line)?);
    Ok(ExitCode::SUCCESS)
}

fn draw(args: &OutageArgs) -> anyhow::Result<Load> {
    let mut load = Load {
        config: EngineConfig {
            n_workers: args.workers,
            n_partitions: N_PARTITIONS,
            // what a storm costs the estimation is another question, and two cores are too few for the state of a million homes
            estimation: EstimationConfig {
                is_on: false,
                ..EstimationConfig::default()
            },
            ..EngineConfig::default()
        },
        tenants: Vec::new(),
        failures: Vec::new(),
        third_gasp_us: Vec::new(),
        sent: Vec::new(),
        n_customers: 0,
        n_gasps_sent: 0,
        end_us: 0,
        end_of_gasps_us: 0,
    };
    for number in 0..args.grids {
        let mut random = Random::new(args.seed.wrapping_add(number));
        let shape = GridShape {
            n_transformers: 200,
            n_customers: 100,
            reading_interval_us: args.interval * SECOND_US,
        };
        let grid = RandomGrid::draw(&shape, &mut random);
        let sections = Sections::new(&grid.map)?;
        let shape = StormShape {
            n_failures: 40,
            lost_per_mille: args.lost,
            repeated_per_mille: 200,
            false_per_million: 500,
            missing_per_mille: 10,
            failures_within_us: 30 * SECOND_US,
            gasp_delay_us_max: 28 * SECOND_US,
            transport_us_max: 2 * SECOND_US,
            readings_after_us: args.after * SECOND_US,
        };
        let storm = Storm::draw(&grid, &sections, &shape, (100, 4_000), &mut random);
        let tenant = TenantId::new(&format!("grid-{number}"))?;
        let bundle = bundle(&grid).with_context(|| format!("grid {number}"))?;
        load.config.grids.insert(tenant.clone(), Arc::new(Grid::new(bundle)?));
        load.tenants.push(tenant);
        load.n_customers += grid.map.points.len() as u64;
        load.end_us = load.end_us.max(storm.end_us);
        load.end_of_gasps_us = storm.end_us - shape.readings_after_us;
        let mut third = Vec::new();
        for (devices, _) in &storm.failures {
            let below = sections
                .all_devices()
                .find(|(of, _)| *of == devices.as_slice())
                .map(|(_, points)| points);
            let below: Vec<u32> = below.into_iter().flatten().map(|point| point.point).collect();
            load.n_gasps_sent += below.len() as u64;
            third.push(third_gasp(&storm, &below));
        }
        load.third_gasp_us.push(third);
        load.failures.push(storm.failures);
        load.sent.extend(storm.arrivals.iter().map(|arrival| Sent {
            log_us: arrival.log_us,
            grid: number as u32,
            point: arrival.point,
            fact: arrival.fact,
        }));
    }
    load.sent.sort_unstable_by_key(|sent| (sent.log_us, sent.grid, sent.point));
    Ok(load)
}

/// Log time at which the third of these points has gasped.
fn third_gasp(storm: &Storm, points: &[u32]) -> Option<i64> {
    let is_below: std::collections::HashSet<u32> = points.iter().copied().collect();
    let mut heard = std::collections::HashSet::new();
    let mut gasps = storm.arrivals.iter().filter(|arrival| matches!(arrival.fact, Fact::Gasp(_)));
    gasps
        .find(|arrival| is_below.contains(&arrival.point) && heard.insert(arrival.point) && heard.len() == N_GASPS_TOLD)
        .map(|arrival| arrival.log_us)
}

/// The grid as a bundle: lines between its nodes, a load at every point, all of it one area.
fn bundle(grid: &RandomGrid) -> anyhow::Result<Bundle> {
    use std::fmt::Write as _;
    let map = &grid.map;
    let load_id = |index: usize| 2_000_000_000 + index as i64;
    let nodes: Vec<Value> = map.nodes.iter().map(|node| json!({"id": node.node, "u_rated": 400})).collect();
    let line = |(branch, from): (i64, i64), to: i64| json!({"id": branch, "from_node": from, "to_node": to, "from_status": 1, "to_status": 1, "r1": 0.001, "x1": 0.001, "c1": 0, "tan1": 0});
    let lines: Vec<Value> = map.nodes.iter().filter_map(|node| Some(line(node.parent?, node.node))).collect();
    let at = map
        .points
        .iter()
        .map(|point| point.node)
        .chain(map.unmetered.iter().map(|(node, _)| *node));
    let loads: Vec<Value> = at
        .enumerate()
        .map(|(index, node)| json!({"id": load_id(index), "node": node, "status": 1, "type": 0, "p_specified": 0, "q_specified": 0}))
        .collect();
    let network = json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": {
        "node": nodes, "line": lines, "sym_load": loads, "source": [{"id": 3_000_000_000_i64, "node": 0, "status": 1, "u_ref": 1}]}});
    let (mut areas, mut meters) = (
        "node_id,area\n".to_owned(),
        "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\n".to_owned(),
    );
    for node in &map.nodes {
        writeln!(areas, "{},mv1", node.node)?;
    }
    for point in &map.points {
        writeln!(meters, "P-{},{},abc,customer,0.01,0.01", point.point, point.node)?;
    }
    Ok(Bundle::from_texts(
        &network.to_string(),
        &areas,
        &meters,
        "branch_id,normal,controllable,hardware_id\n",
    )?)
}

/// What the thread that looks at closed epochs has seen.
#[derive(Default)]
struct Seen {
    accepted: u64,
    duplicates: u64,
    /// By tenant and outage: the newest row.
    outages: HashMap<TenantId, BTreeMap<Arc<str>, Arc<OutageRow>>>,
    /// By tenant and device: when it was blamed first.
    blamed_at: HashMap<(TenantId, String), Instant>,
    /// By epoch: when it was closed.
    closed_at: Vec<Instant>,
    /// The outages when the last gasp had come.
    after_gasps: HashMap<TenantId, BTreeMap<Arc<str>, Arc<OutageRow>>>,
}

fn look(closed: &Receiver<ClosedEpoch>, end_of_gasps_us: i64) -> Seen {
    let mut seen = Seen::default();
    let mut is_after_gasps = false;
    while let Ok(epoch) = closed.recv() {
        let now = Instant::now();
        for partition in &epoch.partitions {
            seen.accepted += partition.counts.n_accepted;
            seen.duplicates += partition.counts.n_duplicates;
            if !is_after_gasps && partition.log_time.micros() > end_of_gasps_us {
                is_after_gasps = true;
                seen.after_gasps = seen.outages.clone();
            }
        }
        for change in &epoch.grid.outages {
            let of_tenant = seen.outages.entry(change.tenant.clone()).or_default();
            match &change.new {
                Some(row) => {
                    for device in row.alternatives.iter().chain([&row.device]) {
                        seen.blamed_at.entry((change.tenant.clone(), device.clone())).or_insert(now);
                    }
                    of_tenant.insert(change.key.clone(), row.clone());
                }
                None => {
                    of_tenant.remove(&change.key);
                }
            }
        }
        if epoch.epoch > 0 {
            seen.closed_at.push(now);
        }
    }
    seen
}

fn measure(args: &OutageArgs, load: Load) -> anyhow::Result<Line> {
    let (closed_tx, closed_rx) = sync_channel(CLOSED_WAITING_MAX);
    let end_of_gasps_us = load.end_of_gasps_us;
    let looker = std::thread::spawn(move || look(&closed_rx, end_of_gasps_us));
    let mut engine = Engine::start(load.config.clone(), Vec::new(), closed_tx)?;
    // the grids are told first; that is no part of the storm
    engine.feed(1, Vec::new())?;
    engine.snapshot()?;
    let begin_us = load.sent.first().map_or(STORM_START_US, |sent| sent.log_us);
    let (started, cpu) = (Instant::now(), cpu::cpu_seconds()?);
    let mut fed_at = vec![started];
    let mut offsets = [0_u64; N_PARTITIONS as usize];
    let mut next = 0;
    for epoch in 2.. {
        let due = EPOCH * (epoch as u32 - 1);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let until_us = begin_us + due.as_micros() as i64;
        let end = next + load.sent[next..].partition_point(|sent| sent.log_us <= until_us);
        let blocks = frame(&load, &load.sent[next..end], until_us, &mut offsets)?;
        next = end;
        // when the youngest message of this epoch was sent
        fed_at.push(started + due);
        engine.feed(epoch, blocks)?;
        if until_us >= load.end_us {
            break;
        }
    }
    engine.shutdown()?;
    let (seconds, cpu_seconds) = (started.elapsed().as_secs_f64(), cpu::cpu_seconds()? - cpu);
    let seen = looker
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that looks at epochs panicked"))?;
    ensure!(seen.closed_at.len() == fed_at.len(), "an epoch was lost");

    let mut epochs = Histogram::<u64>::new(3)?;
    for (fed, closed) in fed_at.iter().zip(&seen.closed_at).skip(1) {
        epochs.saturating_record(closed.saturating_duration_since(*fed).as_micros() as u64);
    }
    let mut events = Histogram::<u64>::new(3)?;
    let mut n_failures = 0;
    for (tenant, (failures, third)) in load.tenants.iter().zip(load.failures.iter().zip(&load.third_gasp_us)) {
        n_failures += failures.len() as u64;
        for ((devices, _), third) in failures.iter().zip(third) {
            let blamed = devices
                .iter()
                .filter_map(|device| seen.blamed_at.get(&(tenant.clone(), device.to_string())))
                .min();
            if let (Some(blamed), Some(third)) = (blamed, third) {
                let third = started + Duration::from_micros(u64::try_from(third - begin_us).unwrap_or(0));
                events.saturating_record(blamed.saturating_duration_since(third).as_micros() as u64);
            }
        }
    }
    let score = |outages: &HashMap<TenantId, BTreeMap<Arc<str>, Arc<OutageRow>>>| {
        let mut score = Score::default();
        for (tenant, failures) in load.tenants.iter().zip(&load.failures) {
            let open = outages.get(tenant).into_iter().flat_map(BTreeMap::values);
            let blamed: Vec<Device> = open
                .filter(|row| row.closed_at.is_none() && row.n_customers > 1)
                .filter_map(|row| device(&row.device))
                .collect();
            score += Score::of(failures, &blamed);
        }
        score
    };
    let (first, last) = (score(&seen.after_gasps), score(&seen.outages));
    let is_gasp = |sent: &&Sent| matches!(sent.fact, Fact::Gasp(_));
    let gasps = load.sent.iter().filter(is_gasp).count() as u64;
    let ms = |histogram: &Histogram<u64>, q| histogram.value_at_quantile(q) as f64 / 1e3;
    Ok(Line {
        bench: "outage",
        grids: args.grids,
        customers: load.n_customers,
        workers: args.workers,
        lost_per_mille: args.lost,
        gasps_sent: load.n_gasps_sent,
        gasps,
        readings: load.sent.len() as u64 - gasps,
        messages: load.sent.len() as u64,
        accepted: seen.accepted,
        duplicates: seen.duplicates,
        seconds,
        cpu_seconds,
        epoch_ms_p50: ms(&epochs, 0.5),
        epoch_ms_p99: ms(&epochs, 0.99),
        epoch_ms_max: ms(&epochs, 1.0),
        event_s_p50: ms(&events, 0.5) / 1e3,
        event_s_p99: ms(&events, 0.99) / 1e3,
        failures: n_failures,
        precision_gasps: first.precision(),
        recall_gasps: first.recall(),
        precision: last.precision(),
        recall: last.recall(),
        load_average: cpu::load_average(),
    })
}

/// `branch-7` and `node-7`; a single meter is no device of the grid.
fn device(text: &str) -> Option<Device> {
    let (kind, id) = text.rsplit_once('-')?;
    match kind {
        "branch" => id.parse().ok().map(Device::Branch),
        "node" => id.parse().ok().map(Device::Node),
        _ => None,
    }
}

/// The messages as the log would hold them, and in every partition a heartbeat after them.
fn frame(load: &Load, sent: &[Sent], until_us: i64, offsets: &mut [u64; N_PARTITIONS as usize]) -> anyhow::Result<Vec<RecordBlock>> {
    let mut blocks: Vec<RecordBlock> = (0..N_PARTITIONS)
        .map(|partition| RecordBlock {
            partition,
            base_offset: offsets[partition as usize],
            n_records: 0,
            data: Vec::new(),
        })
        .collect();
    for sent in sent {
        let tenant = load.tenants[sent.grid as usize].as_str();
        let hardware_id = format!("P-{}", sent.point);
        let payload = payload(&hardware_id, sent.fact)?;
        let block = &mut blocks[partition_of(tenant, &hardware_id, N_PARTITIONS) as usize];
        let record = Record {
            kind: RecordKind::Message,
            tenant,
            hardware_id: &hardware_id,
            bound: true,
            redelivered: false,
            received_at: EventTime::from_micros(sent.log_us),
            payload: &payload,
        };
        record.encode(&mut block.data);
        block.n_records += 1;
    }
    for (block, offset) in blocks.iter_mut().zip(offsets) {
        let heartbeat = Record {
            kind: RecordKind::Heartbeat,
            tenant: "",
            hardware_id: "",
            bound: false,
            redelivered: false,
            received_at: EventTime::from_micros(until_us),
            payload: &[],
        };
        heartbeat.encode(&mut block.data);
        block.n_records += 1;
        *offset = block.end_offset();
    }
    Ok(blocks)
}

fn payload(hardware_id: &str, fact: Fact) -> anyhow::Result<Vec<u8>> {
    let at = |micros: i64| Some(EventTime::from_micros(micros));
    let message = match fact {
        Fact::Gasp(time) => DeviceMessage::alert(hardware_id, at(time), "power.lastgasp", AlertLevel::Critical),
        Fact::Restored(time) => DeviceMessage::alert(hardware_id, at(time), "power.restored", AlertLevel::Info),
        Fact::Alive(time) => {
            let voltage = Identifier::from_name(b"electricity.voltage.rms.l1").context("no such identifier")?;
            DeviceMessage::measurements(hardware_id, at(time), [(voltage, 230.0)])
        }
    };
    Ok(serde_json::to_vec(&message)?)
}
