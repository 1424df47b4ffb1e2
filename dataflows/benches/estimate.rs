//! What one changed reading costs in districts of different size, and a hundred thousand meters at one reading a minute.
//!
//! `cargo bench -p flexmeter-dataflows --bench estimate [-- METERS…]`; one JSON line a figure.
#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

#[path = "../tests/district/mod.rs"]
mod district;
#[path = "../tests/generator/mod.rs"]
mod generator;
#[path = "../tests/recording/mod.rs"]
mod recording;

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use district::{Size, district};
use flexmeter_dataflows::{Engine, EngineConfig};
use flexmeter_model::TenantId;
use generator::{MINUTE, Rng};
use recording::{Blocks, N_PARTITIONS, TENANT};

const START: i64 = 1_794_900_000_000_000;
/// Single readings timed.
const N_SINGLE: usize = 300;
/// Seconds of the stream at one reading a minute.
const N_SECONDS: usize = 3;

/// CPU seconds of this process so far.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn measure(n_meters: usize) {
    // an MV area of 1,000 meters: 8 substations, 9 buildings each, 12 flats and the building's own meters in each
    let size = Size {
        n_mv: n_meters.div_ceil(1_000),
        n_lv: 8,
        n_concentrators: 9,
        n_customers: 12,
    };
    let mut district = district(size, 1);
    let grid = district.grid();
    let (n_meters, n_areas) = (district.bundle.meters.len(), grid.areas().len());
    let config = EngineConfig {
        n_workers: 2,
        n_partitions: N_PARTITIONS,
        grids: BTreeMap::from([(TenantId::new(TENANT).unwrap(), grid)]),
        ..EngineConfig::default()
    };
    let (sender, closed) = sync_channel(4);
    let mut engine = Engine::start(config, Vec::new(), sender).unwrap();
    closed.recv().unwrap();
    let mut blocks = Blocks::default();
    let mut epoch = 0;
    let mut feed = |messages: &[recording::Logged]| {
        let begin = (Instant::now(), cpu_s());
        epoch += 1;
        engine.feed(epoch, blocks.of(messages)).unwrap();
        let areas = closed.recv().unwrap().grid.areas;
        assert!(areas.iter().all(|area| area.quality.problem.is_none()));
        (begin.0.elapsed().as_secs_f64(), cpu_s() - begin.1, areas.len())
    };
    let (first_s, first_cpu_s, _) = feed(&district.messages(START));
    let report = |solve: &str, count: usize, seconds: f64, cpu_seconds: f64, n_estimated: usize| {
        println!(
            r#"{{"bench":"street_estimate","solve":"{solve}","meters":{n_meters},"areas":{n_areas},"count":{count},"areas_estimated":{n_estimated},"seconds":{seconds:.3},"cpu_seconds":{cpu_seconds:.3},"us_per_reading":{:.1},"cpu_us_per_reading":{:.1}}}"#,
            seconds / count as f64 * 1e6,
            cpu_seconds / count as f64 * 1e6,
        );
    };
    report("all_new", n_meters, first_s, first_cpu_s, n_areas);
    // the same loads, read anew within the same step: single readings that contradict all others would time the search for bad data
    let mut messages = district.messages(START + MINUTE / 4);
    let mut rng = Rng::new(7);
    for at in (1..messages.len()).rev() {
        messages.swap(at, rng.below(at as u64 + 1) as usize);
    }
    let mut sum = (0.0, 0.0, 0);
    for message in &messages[..N_SINGLE] {
        let (seconds, cpu_seconds, n_estimated) = feed(std::slice::from_ref(message));
        sum = (sum.0 + seconds, sum.1 + cpu_seconds, sum.2 + n_estimated);
    }
    report("one_changed", N_SINGLE, sum.0, sum.1, sum.2);
    let each_second = n_meters / 60;
    let (mut sum, mut count) = ((0.0, 0.0, 0), 0);
    for messages in messages[N_SINGLE..].chunks(each_second.max(1)).take(N_SECONDS) {
        let (seconds, cpu_seconds, n_estimated) = feed(messages);
        sum = (sum.0 + seconds, sum.1 + cpu_seconds, sum.2 + n_estimated);
        count += messages.len();
    }
    report("one_a_minute", count, sum.0, sum.1, sum.2);
    engine.shutdown().unwrap();
}

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 10_000, 100_000] } else { sizes };
    sizes.into_iter().for_each(measure);
}
