//! Updates of single readings against full solutions.

#![allow(
    clippy::unwrap_used,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "a test fails by panicking, also for what is not a number"
)]

use flexmeter_grid::estimation::{EstimateOptions, Estimator};
use flexmeter_grid::network::{Network, PerPhase};
use flexmeter_grid::pgm::{Dataset, DatasetKind};
use serde_json::json;

mod feeder;
use feeder::Random;

fn options() -> EstimateOptions {
    EstimateOptions {
        tolerance_pu: 1e-11,
        ..EstimateOptions::default()
    }
}

/// Largest distance of two estimates' voltages, per unit.
fn distance<const N: usize, const B: usize>(network: &Network, a: &Estimator<N, B>, b: &Estimator<N, B>) -> f64 {
    let at = |node: usize| {
        let (a, b) = (a.voltage_pu(node).unwrap(), b.voltage_pu(node).unwrap());
        (0..N).map(|k| (a[k] - b[k]).norm()).fold(0.0, f64::max)
    };
    (0..network.nodes().len()).map(at).fold(0.0, f64::max)
}

fn scaled(x: PerPhase, factor: f64) -> PerPhase {
    match x {
        PerPhase::Symmetric(x) => PerPhase::Symmetric(x * factor),
        PerPhase::Phases(x) => PerPhase::Phases(x.map(|x| x * factor)),
    }
}

fn follows<const N: usize, const B: usize>(n_nodes: usize, n_loops: usize, n_updates: usize) {
    let mut network = feeder::network(n_nodes, n_loops, N == 3, 11);
    feeder::add_sensors::<N>(&mut network, 5);
    let mut network = feeder::build(&network);
    let mut following = Estimator::<N, B>::new(&network, options()).unwrap();
    following.follow().unwrap();
    let mut full = following.clone();
    let mut random = Random::new(3);
    let mut worst: f64 = 0.0;
    for update in 0..n_updates {
        if random.uniform() < 0.8 {
            let sensor = random.below(network.power_sensors().len());
            let factor = 0.9 + 0.2 * random.uniform();
            network.change_power_reading(sensor, |p, q| (scaled(p, factor), scaled(q, factor)));
            following.set_power(&network, sensor);
            full.set_power(&network, sensor);
        } else {
            let sensor = random.below(network.voltage_sensors().len());
            let factor = 0.9995 + 0.001 * random.uniform();
            network.change_voltage_reading(sensor, |u| scaled(u, factor));
            following.set_voltage(&network, sensor);
            full.set_voltage(&network, sensor);
        }
        following.estimate().unwrap();
        if update % 7 == 0 {
            full.estimate_all().unwrap();
            worst = worst.max(distance(&network, &following, &full));
        }
    }
    println!("{n_nodes} nodes, {n_loops} loops, {N} phases: {worst:.1e}");
    assert!(worst < 1e-9, "{n_nodes} nodes, {n_loops} loops, {N} phases: {worst:.1e}");
}

#[test]
fn following_single_readings_gives_the_full_solution() {
    follows::<1, 4>(30, 0, 200);
    follows::<1, 4>(600, 0, 300);
    follows::<3, 12>(30, 0, 200);
    follows::<3, 12>(300, 0, 200);
}

fn switches<const N: usize, const B: usize>(n_nodes: usize) {
    let mut dataset = feeder::network(n_nodes, 4, N == 3, 12);
    feeder::add_sensors::<N>(&mut dataset, 6);
    let mut network = feeder::build(&dataset);
    let ids: Vec<i64> = network.branches().iter().map(|branch| branch.id).collect();
    let mut estimator = Estimator::<N, B>::new(&network, options()).unwrap();
    estimator.follow().unwrap();
    let (mut random, mut n_less, mut n_switched) = (Random::new(4), 0, 0);
    // a random line opens, and closes again
    for _ in 0..12 {
        let line = ids[random.below(ids.len())];
        for status in [0, 1] {
            let row = json!({"id": line, "from_status": status, "to_status": status});
            let text = json!({"version": "1.0", "type": "update", "is_batch": false, "attributes": {}, "data": {"line": [row]}});
            let update = Dataset::from_json(&text.to_string(), DatasetKind::Update).unwrap();
            assert!(network.update(&update, 0).unwrap().topology);
            let mut anew = Estimator::<N, B>::new(&network, options()).unwrap();
            let from_the_start = anew.estimate().unwrap();
            estimator = estimator.switched(&network).unwrap();
            let from_before = estimator.estimate().unwrap();
            n_less += usize::from(from_before.iterations < from_the_start.iterations);
            n_switched += 1;
            for node in 0..n_nodes {
                let (Some(a), Some(b)) = (estimator.voltage_pu(node), anew.voltage_pu(node)) else {
                    assert_eq!(estimator.voltage_pu(node), anew.voltage_pu(node), "supply of node {node}");
                    continue;
                };
                let distance = (0..N).map(|k| (a[k] - b[k]).norm()).fold(0.0, f64::max);
                assert!(
                    distance < 1e-9,
                    "line {line} to {status}: node {node} is {distance:.1e} per unit off"
                );
            }
        }
    }
    println!("{n_nodes} nodes, {N} phases: fewer iterations after {n_less} of {n_switched} operations");
    assert!(2 * n_less > n_switched, "{n_less} of {n_switched}");
}

#[test]
fn after_a_switch_operation_the_estimate_goes_on_to_that_of_the_new_topology() {
    switches::<1, 4>(60);
    switches::<3, 12>(40);
}

#[test]
fn loops_follow_too() {
    follows::<1, 4>(40, 3, 200);
    follows::<3, 12>(120, 4, 100);
}
