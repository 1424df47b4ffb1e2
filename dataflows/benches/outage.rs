//! What outage detection costs in a storm, and how good it is: gasps per CPU-second, time of an epoch, precision and recall of the blamed
//! devices. One JSON line for each share of lost gasps.
//!
//! `cargo bench -p flexmeter-dataflows --bench outage -- [GRIDS]`, default 60 grids of about 20,000 customers: a million of them lose
//! supply within 60 s, half of the gasps of which are lost in the worst line. Every meter with supply goes on reporting each minute; gasps
//! repeat; a few are false. The storm is drawn beforehand.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use differential_dataflow::input::InputSession;
use flexmeter_dataflows::outages::{DetectInputs, GridId, PointFact, TopologyInputs, detect, supply_rows};
use flexmeter_grid::outage::simulation::{GridShape, Random, RandomGrid, STORM_START_US, Score, Storm, StormShape};
use flexmeter_grid::outage::{Fact, GridBranch, MonitorSettings, Outage, OutageId, SECOND_US, Sections};
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::vec::UnorderedInput;

const EPOCH_US: i64 = SECOND_US / 10;

struct Load {
    grids: Vec<RandomGrid>,
    storms: Vec<Storm>,
    n_gasps_sent: usize,
    n_gasps: usize,
    n_facts: usize,
}

type Views = Arc<Mutex<BTreeMap<(GridId, OutageId), (Outage, isize)>>>;

fn main() {
    let n_grids: u32 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(60);
    for lost_per_mille in [0, 300, 500, 800] {
        let load = draw(n_grids, lost_per_mille);
        measure(load, lost_per_mille);
    }
}

fn draw(n_grids: u32, lost_per_mille: u64) -> Load {
    let mut load = Load {
        grids: Vec::new(),
        storms: Vec::new(),
        n_gasps_sent: 0,
        n_gasps: 0,
        n_facts: 0,
    };
    for seed in 0..u64::from(n_grids) {
        let mut random = Random::new(seed);
        let shape = GridShape {
            n_transformers: 200,
            n_customers: 100,
            reading_interval_us: 60 * SECOND_US,
        };
        let grid = RandomGrid::draw(&shape, &mut random);
        let sections = Sections::new(&grid.map).unwrap();
        let shape = StormShape {
            n_failures: 40,
            lost_per_mille,
            repeated_per_mille: 200,
            false_per_million: 500,
            missing_per_mille: 10,
            failures_within_us: 30 * SECOND_US,
            gasp_delay_us_max: 28 * SECOND_US,
            transport_us_max: 2 * SECOND_US,
            readings_after_us: 180 * SECOND_US,
        };
        let storm = Storm::draw(&grid, &sections, &shape, (100, 4_000), &mut random);
        let gasps = storm
            .arrivals
            .iter()
            .filter(|arrival| matches!(arrival.fact, Fact::Gasp(_)))
            .count();
        let dark: usize = sections
            .all_devices()
            .filter(|(devices, _)| storm.failures.iter().any(|(failed, _)| failed == devices))
            .map(|(_, points)| points.len())
            .sum();
        load.n_gasps_sent += dark;
        load.n_gasps += gasps;
        load.n_facts += storm.arrivals.len();
        load.grids.push(grid);
        load.storms.push(storm);
    }
    load
}

/// CPU seconds this process has used, over all threads.
fn cpu_s() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_S
}

fn measure(load: Load, lost_per_mille: u64) {
    let views: Views = Arc::default();
    let sink = views.clone();
    let (n_points, n_gasps, n_sent, n_facts) = (
        load.grids.iter().map(|grid| grid.map.points.len()).sum::<usize>(),
        load.n_gasps,
        load.n_gasps_sent,
        load.n_facts,
    );
    let failures: Vec<_> = load.storms.iter().map(|storm| storm.failures.clone()).collect();
    let end_us = load.storms.iter().map(|storm| storm.end_us).max().unwrap_or(0) + SECOND_US;
    let mut arrivals: Vec<(GridId, PointFact)> = Vec::with_capacity(n_facts);
    for (grid, storm) in load.storms.iter().enumerate() {
        arrivals.extend(storm.arrivals.iter().map(|arrival| {
            let fact = PointFact {
                log_us: arrival.log_us,
                point: arrival.point,
                fact: arrival.fact,
                difference: 1,
            };
            (grid as GridId, fact)
        }));
    }
    arrivals.sort_unstable_by_key(|(grid, fact)| (fact.log_us, *grid, fact.point));
    let grids = load.grids;
    let (build_s, cpu, mut epochs_ms) = timely::execute_directly(move |worker| {
        let mut branches = InputSession::new();
        let mut sources = InputSession::new();
        let mut points = InputSession::new();
        let mut rest = (InputSession::new(), InputSession::new(), InputSession::new());
        let (facts, log_times, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let topology = TopologyInputs {
                branches: branches.to_collection(scope),
                positions: rest.0.to_collection(scope),
                sources: sources.to_collection(scope),
            };
            let (facts, fact_stream) = scope.new_unordered_input();
            let (log_times, log_time_stream) = scope.new_unordered_input();
            let supply = supply_rows(&topology, points.to_collection(scope), rest.1.to_collection(scope)).rows;
            let inputs = DetectInputs {
                supply,
                facts: fact_stream,
                log_time: log_time_stream,
                acknowledged: rest.2.to_collection(scope),
            };
            let found = detect(inputs, MonitorSettings::default()).unwrap();
            let (probe, _) = found
                .outages
                .inspect(move |((grid, row), _, n)| {
                    let mut views = sink.lock().unwrap();
                    let entry = views.entry((*grid, row.id)).or_insert_with(|| (row.clone(), 0));
                    entry.1 += n;
                    if *n > 0 {
                        entry.0 = row.clone();
                    }
                })
                .inner
                .probe();
            (facts, log_times, probe)
        });
        let (mut fact_input, mut fact_capability) = facts;
        let (mut log_input, mut log_capability) = log_times;
        for (grid, drawn) in grids.iter().enumerate() {
            let grid = grid as GridId;
            sources.update((grid, 0), 1);
            drawn.map.points.iter().for_each(|point| points.update((grid, *point), 1));
            for node in &drawn.map.nodes {
                if let Some((branch, from)) = node.parent {
                    let branch = GridBranch {
                        branch,
                        from,
                        to: node.node,
                        is_closed: true,
                    };
                    branches.update((grid, branch), 1);
                }
            }
        }
        let (mut epoch, mut log_us, mut next) = (0, STORM_START_US - 61 * SECOND_US, 0);
        let mut epochs_ms: Vec<f64> = Vec::new();
        let mut cpu = cpu_s();
        let build = cpu;
        let mut build_s = 0.0;
        while log_us < end_us {
            let started = Instant::now();
            let end = next + arrivals[next..].partition_point(|(_, fact)| fact.log_us <= log_us);
            fact_input
                .activate()
                .session(&fact_capability)
                .give_iterator(arrivals[next..end].iter().copied());
            next = end;
            log_input.activate().session(&log_capability).give(log_us);
            epoch += 1;
            fact_capability = fact_capability.delayed(&epoch);
            log_capability = log_capability.delayed(&epoch);
            macro_rules! advance {
                ($($input:expr),*) => { $( $input.advance_to(epoch); $input.flush(); )* };
            }
            advance!(branches, sources, points, rest.0, rest.1, rest.2);
            worker.step_while(|| probe.less_than(&epoch));
            if epoch == 1 {
                build_s = cpu_s() - build;
                cpu = cpu_s();
            } else {
                epochs_ms.push(started.elapsed().as_secs_f64() * 1e3);
            }
            log_us += EPOCH_US;
        }
        (build_s, cpu_s() - cpu, epochs_ms)
    });
    epochs_ms.sort_by(f64::total_cmp);
    let mut score = Score::default();
    let views = views.lock().unwrap();
    for (grid, failures) in failures.iter().enumerate() {
        let blamed: Vec<_> = views
            .range((grid as GridId, first_id())..)
            .take_while(|((of, _), _)| *of == grid as GridId)
            .filter(|(_, (row, n))| *n > 0 && row.closed_at_us.is_none() && row.n_customers > 1)
            .map(|(_, (row, _))| row.device)
            .collect();
        score += Score::of(failures, &blamed);
    }
    println!(
        "{{\"bench\":\"outage\",\"points\":{n_points},\"lost_per_mille\":{lost_per_mille},\"gasps_sent\":{n_sent},\"gasps\":{n_gasps},\"facts\":{n_facts},\
         \"build_cpu_seconds\":{build_s:.2},\"cpu_seconds\":{cpu:.2},\"facts_per_cpu_second\":{:.0},\"epoch_ms_p50\":{:.2},\"epoch_ms_p99\":{:.2},\
         \"epoch_ms_max\":{:.2},\"failures\":{},\"precision\":{:.4},\"recall\":{:.4}}}",
        n_facts as f64 / cpu,
        at(&epochs_ms, 0.5),
        at(&epochs_ms, 0.99),
        at(&epochs_ms, 1.0),
        failures.iter().map(Vec::len).sum::<usize>(),
        score.precision(),
        score.recall(),
    );
}

fn first_id() -> OutageId {
    OutageId {
        device: flexmeter_grid::outage::Device::Branch(i64::MIN),
        opened_at_us: i64::MIN,
    }
}

fn at(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}
