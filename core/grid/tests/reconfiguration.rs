//! Reconfiguration of published and generated grids: the known optima, limits, sequences, hostile input.
#![allow(clippy::unwrap_used)]

mod feeder;
mod recording;

#[path = "reconfiguration/cases.rs"]
mod cases;
#[path = "reconfiguration/hostile.rs"]
mod hostile;
#[path = "reconfiguration/life_cycle.rs"]
mod life_cycle;
#[path = "reconfiguration/properties.rs"]
mod properties;

use flexmeter_grid::bundle;
use flexmeter_grid::network::Network;
use flexmeter_grid::reconfiguration::{Configuration, Options, reconfigure};
use serde_json::Value;

/// Holds a state against what power-grid-model says of it.
fn check_state(found: &Configuration, expected: &Value, what: &str) {
    let loss_w = expected["loss_w"].as_f64().unwrap();
    assert!(
        (found.loss_w - loss_w).abs() < 1e-7 * loss_w,
        "{what}: {} W instead of {loss_w} W",
        found.loss_w
    );
    let lowest = expected["voltage_min_pu"].as_f64().unwrap();
    assert!(
        (found.voltage_min_pu.1 - lowest).abs() < 2e-8,
        "{what}: {:?} instead of {lowest}",
        found.voltage_min_pu
    );
}

fn ids(network: &Network, open: &[usize]) -> Value {
    open.iter().map(|&branch| network.branches()[branch].id).collect()
}

/// The published optimum from each of these seeds, and the tree of D4.6 beside it.
fn check_published(name: &str) {
    let case = cases::published(name);
    let without_kicks = Options {
        n_kicks: Some(0),
        ..Options::default()
    };
    let descent = reconfigure(&case.network, &case.switches, &without_kicks).unwrap();
    for seed in 1..=10 {
        let options = Options {
            seed,
            ..Options::default()
        };
        let found = reconfigure(&case.network, &case.switches, &options).unwrap();
        check_state(&found.initial, &case.expected["initial"], name);
        // branches without load between them carry the same current: which of them opens is a matter of rounding, the losses are not
        check_state(found.d4_6.as_ref().unwrap(), &case.expected["d4_6"], name);
        check_state(&found.best, &case.expected["best"], name);
        assert_eq!(ids(&case.network, &found.best.open), case.expected["best"]["open"], "{name}");
        assert!(found.best.keeps_limits());
        for (state, published) in [(&found.initial, "published_initial_kw"), (&found.best, "published_best_kw")] {
            let published_kw = case.expected[published].as_f64().unwrap();
            let kw = state.loss_w / 1e3;
            assert!((kw - published_kw).abs() < 0.006, "{name}: {kw} kW instead of {published_kw} kW");
        }
        let starts = [&found.d4_6, &found.r_only].map(|start| start.as_ref().unwrap().loss_w);
        assert!(
            descent.best.loss_w <= starts[0].min(starts[1]),
            "{name}: descent leaves its start behind"
        );
        if seed == 1 {
            println!(
                "{name}: descent alone {:.3} kW, {} power flows; with kicks {:.3} kW, {} power flows, {} operations",
                descent.best.loss_w / 1e3,
                descent.n_power_flows,
                found.best.loss_w / 1e3,
                found.n_power_flows,
                found.operations(&case.network).len()
            );
        }
    }
}

#[test]
fn the_69_nodes_of_baran_and_wu_lose_as_little_as_is_known() {
    check_published("baran-wu-69");
}

#[test]
fn the_84_nodes_of_su_and_lee_lose_as_little_as_is_known() {
    check_published("su-lee-84");
}

#[test]
fn the_118_nodes_of_zhang_lose_as_little_as_is_known() {
    check_published("zhang-118");
}

#[test]
fn the_136_nodes_of_mantovani_lose_as_little_as_is_known() {
    check_published("mantovani-136");
}

#[test]
fn without_reactances_the_meshed_power_flow_is_the_better_start() {
    // figures of an independent implementation, kW
    for (name, r_only_kw) in [
        ("baran-wu-69", 106.13),
        ("su-lee-84", 470.89),
        ("zhang-118", 891.85),
        ("mantovani-136", 288.60),
    ] {
        let case = cases::published(name);
        let found = reconfigure(&case.network, &case.switches, &Options::default()).unwrap();
        let (d4_6, r_only) = (found.d4_6.unwrap().loss_w, found.r_only.unwrap().loss_w);
        assert!((r_only / 1e3 - r_only_kw).abs() < 0.006, "{name}: {r_only} W");
        assert!(r_only <= d4_6 * (1.0 + 1e-9), "{name}");
    }
}

#[test]
fn the_33_nodes_of_baran_and_wu_lose_as_little_as_is_known() {
    let test = "the_33_nodes_of_baran_and_wu_lose_as_little_as_is_known";
    let Some(folder) = recording::folder("../..", "baran-wu-33", test) else {
        return;
    };
    let read = |file: &str| recording::text(&folder, file);
    let network = Network::from_pgm_json(&read("network.json")).unwrap();
    let switches = bundle::controllable(&bundle::read_switches(&network, &read("switches.csv")).unwrap());
    let found = reconfigure(&network, &switches, &Options::default()).unwrap();
    let expected: Value = serde_json::from_str(&read("expected.json")).unwrap();
    let check = |loss_w: f64, kw: f64| assert!((loss_w / 1e3 - kw).abs() < 0.006, "{loss_w} W instead of {kw} kW");
    check(found.initial.loss_w, expected["initial_loss_kw"].as_f64().unwrap());
    check(found.best.loss_w, expected["best_known_loss_kw"].as_f64().unwrap());
    check(found.d4_6.as_ref().unwrap().loss_w, 140.71);
    check(found.r_only.as_ref().unwrap().loss_w, 139.98);
    assert_eq!(ids(&network, &found.best.open), expected["best_open"]);
    // 33, 34, 35 and 36 close; 7, 9, 14 and 32 open
    assert_eq!(found.operations(&network).len(), 8);
    // power-grid-model's figures for the two states
    assert!((found.initial.loss_w - 202_677.13).abs() < 0.1 && (found.best.loss_w - 139_551.35).abs() < 0.1);
}

#[test]
fn a_city_of_ten_thousand_nodes_is_reconfigured_in_seconds() {
    let network = cases::city(10_476, 84, 260, 1);
    let switches = cases::lines_of(&network);
    let start = std::time::Instant::now();
    let found = reconfigure(&network, &switches, &Options::default()).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "10,476 nodes, 260 ties: {:.1} kW, D4.6 {:.1} kW, resistances only {:.1} kW, best {:.1} kW; {} steps, {} power flows, {seconds:.2} s",
        found.initial.loss_w / 1e3,
        found.d4_6.as_ref().unwrap().loss_w / 1e3,
        found.r_only.as_ref().unwrap().loss_w / 1e3,
        found.best.loss_w / 1e3,
        found.sequence.len(),
        found.n_power_flows
    );
    assert!(found.best.loss_w < found.r_only.unwrap().loss_w);
    // two seconds on a machine of its own; this one may be shared
    assert!(seconds < 30.0, "{seconds} s");
}
