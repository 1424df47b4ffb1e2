//! What cannot be seen from outside: single exchanges, their prediction, and the walk.

use super::check_size;
use super::graph::Graph;
use super::tree::{Bounds, Exchange, Quality, Tree};
use crate::network::Network;
use crate::random::Random;

const ALL: Bounds = Bounds {
    voltage_pu: [0.0, 10.0],
    loading_max: f64::INFINITY,
};

/// A random tree of 60 nodes with ten ties, 10 kV, loads of about `load_w` each.
fn feeder(seed: u64, load_w: f64) -> Network {
    let mut random = Random::new(seed);
    let mut part = |n: usize| random.index(n);
    let nodes: Vec<String> = (0..60).map(|id| format!(r#"{{"id":{id},"u_rated":10000}}"#)).collect();
    let mut lines = Vec::new();
    for at in 0..69 {
        let (from, to, closed) = match at {
            0..59 => (part(at + 1).max(at.saturating_sub(4)), at + 1, 1),
            _ => {
                let from = part(60);
                (from, (from + 1 + part(59)) % 60, 0)
            }
        };
        lines.push(format!(
            r#"{{"id":{},"from_node":{from},"to_node":{to},"from_status":{closed},"to_status":{closed},"r1":{},"x1":{},"c1":0,"tan1":0}}"#,
            100 + at,
            0.05 + 0.01 * part(30) as f64,
            0.05 + 0.01 * part(20) as f64
        ));
    }
    let loads: Vec<String> = (1..60)
        .map(|node| {
            format!(
                r#"{{"id":{},"node":{node},"status":1,"type":0,"p_specified":{},"q_specified":{}}}"#,
                200 + node,
                load_w * (1 + part(10)) as f64 / 5.0,
                load_w * part(5) as f64 / 5.0
            )
        })
        .collect();
    Network::from_pgm_json(&format!(
        r#"{{"type":"input","data":{{"node":[{}],"line":[{}],"source":[{{"id":1000,"node":0,"status":1,"u_ref":1,"sk":1e12}}],
            "sym_load":[{}]}}}}"#,
        nodes.join(","),
        lines.join(","),
        loads.join(",")
    ))
    .unwrap()
}

/// Every exchange of a network: predicted and exact change of the losses, and the losses before, per unit.
fn exchanges(network: &Network) -> Vec<(f64, f64, f64)> {
    let (graph, closed) = Graph::new(network, &vec![true; network.branches().len()]).unwrap();
    let mut tree = Tree::new(&graph, closed.clone());
    tree.solve(&graph, 1e-12).unwrap();
    let before = tree.loss_pu(&graph);
    tree.prepare(&graph);
    let mut found: Vec<Exchange> = Vec::new();
    for tie in (0..graph.n_edges() as u32).filter(|&edge| !closed[edge as usize]) {
        tree.exchanges(&graph, tie, |exchange| found.push(exchange));
    }
    let voltage = tree.voltage.clone();
    let mut changes = Vec::new();
    for exchange in found {
        tree.set(&graph, &closed, &voltage);
        tree.exchange(&graph, exchange.close, exchange.open);
        assert!(tree.is_spanning(&graph), "{exchange:?} is no tree");
        tree.solve(&graph, 1e-12).unwrap();
        changes.push((exchange.loss_change_pu, tree.loss_pu(&graph) - before, before));
    }
    changes
}

#[test]
fn the_prediction_becomes_exact_as_the_voltage_drops_vanish() {
    for seed in 0..10 {
        for (predicted, exact, before) in exchanges(&feeder(seed, 10.0)) {
            let error = (predicted - exact).abs();
            assert!(
                error < 1e-4 * exact.abs().max(before),
                "seed {seed}: {predicted:e} instead of {exact:e}"
            );
        }
    }
}

#[test]
fn at_ordinary_loads_the_prediction_is_right_in_sign_where_it_matters() {
    let (mut n, mut worst): (usize, f64) = (0, 0.0);
    for seed in 0..10 {
        for (predicted, exact, before) in exchanges(&feeder(seed, 20e3)) {
            worst = worst.max((predicted - exact).abs() / exact.abs().max(before));
            if exact.abs() > 0.1 * before {
                assert_eq!(predicted > 0.0, exact > 0.0, "seed {seed}: {predicted:e} instead of {exact:e}");
                n += 1;
            }
        }
    }
    assert!(n > 500, "{n} exchanges matter");
    println!("{n} exchanges, worst {worst}");
    assert!(worst < 0.12, "the prediction is off by {worst}");
}

/// Two sources behind transformers of different vector groups, and a chain of loads between them with its tie in the middle.
fn between_transformers(load_w: f64) -> Network {
    let transformer = |id: usize, from: usize, to: usize, clock: usize, tap: i32| {
        format!(
            r#"{{"id":{id},"from_node":{from},"to_node":{to},"from_status":1,"to_status":1,"u1":110000,"u2":10500,"sn":2e7,"uk":0.12,
            "pk":80000,"i0":0,"p0":0,"winding_from":1,"winding_to":1,"clock":{clock},"tap_side":0,"tap_pos":{tap},"tap_min":-5,"tap_max":5,
            "tap_size":1000}}"#
        )
    };
    let lines: Vec<String> = (0..7)
        .map(|at| {
            let closed = u8::from(at != 3);
            format!(
                r#"{{"id":{},"from_node":{at},"to_node":{},"from_status":{closed},"to_status":{closed},"r1":0.5,"x1":0.4,"c1":0,"tan1":0}}"#,
                20 + at,
                at + 1
            )
        })
        .collect();
    let loads: Vec<String> = (0..8)
        .map(|node| {
            let p = load_w * (1 + node % 3) as f64;
            format!(
                r#"{{"id":{},"node":{node},"status":1,"type":0,"p_specified":{p},"q_specified":{}}}"#,
                40 + node,
                0.3 * p
            )
        })
        .collect();
    let nodes: Vec<String> = (0..10)
        .map(|id| format!(r#"{{"id":{id},"u_rated":{}}}"#, if id < 8 { 10_000 } else { 110_000 }))
        .collect();
    Network::from_pgm_json(&format!(
        r#"{{"type":"input","data":{{"node":[{}],"line":[{}],"transformer":[{},{}],"sym_load":[{}],
        "source":[{{"id":60,"node":8,"status":1,"u_ref":1,"sk":1e12}},{{"id":61,"node":9,"status":1,"u_ref":1,"sk":1e12}}]}}}}"#,
        nodes.join(","),
        lines.join(","),
        transformer(15, 8, 0, 0, 0),
        transformer(16, 9, 7, 6, 3),
        loads.join(",")
    ))
    .unwrap()
}

#[test]
fn the_prediction_knows_ratios_and_turns_of_transformers() {
    for (predicted, exact, before) in exchanges(&between_transformers(1e4)) {
        let error = (predicted - exact).abs();
        assert!(
            error < 0.02 * exact.abs().max(before),
            "{predicted:e} instead of {exact:e} of {before:e}"
        );
    }
}

#[test]
fn a_grid_whose_search_would_not_end_is_refused() {
    assert!(check_size(10_476, 260).is_ok() && check_size(1_000_000, 500).is_ok());
    let error = check_size(1_000_000, 501).unwrap_err().to_string();
    assert!(
        error.starts_with("the dataset has 501000000 nodes times open switches; at most 500000000"),
        "{error}"
    );
    assert!(check_size(usize::MAX, 2).is_err());
}

#[test]
fn limits_come_before_losses() {
    let quality = |violation, loss_pu| Quality { violation, loss_pu };
    assert!(quality(0.0, 2.0).is_better_than(&quality(0.1, 1.0), 0.0));
    assert!(quality(0.1, 1.0).is_better_than(&quality(0.1, 2.0), 0.0));
    assert!(!quality(1e-9, 1.0).is_better_than(&quality(0.0, 2.0), 0.0));
    assert!(!quality(0.0, 1.0).is_better_than(&quality(0.0, 1.05), 0.1));
    assert!(!quality(f64::INFINITY, f64::INFINITY).is_better_than(&quality(f64::INFINITY, f64::INFINITY), 0.0));
}

#[test]
fn a_tree_that_cannot_carry_its_loads_says_so() {
    let network = feeder(1, 1e9);
    let (graph, closed) = Graph::new(&network, &vec![true; network.branches().len()]).unwrap();
    let error = Tree::new(&graph, closed).solve(&graph, 1e-8).unwrap_err().to_string();
    assert!(error.starts_with("power flow of a radial state did not converge"), "{error}");
}

#[test]
fn loops_of_one_branch_and_parallel_ties_are_walked() {
    let network = Network::from_pgm_json(
        r#"{"type":"input","data":{"node":[{"id":1,"u_rated":10000},{"id":2,"u_rated":10000}],"line":[
            {"id":3,"from_node":1,"to_node":2,"from_status":1,"to_status":1,"r1":1,"x1":1,"c1":0,"tan1":0},
            {"id":4,"from_node":2,"to_node":1,"from_status":0,"to_status":0,"r1":0.5,"x1":1,"c1":0,"tan1":0}],
            "source":[{"id":5,"node":1,"status":1,"u_ref":1,"sk":1e16}],
            "sym_load":[{"id":6,"node":2,"status":1,"type":0,"p_specified":1000,"q_specified":0}]}}"#,
    )
    .unwrap();
    let (graph, closed) = Graph::new(&network, &[true, true]).unwrap();
    let mut tree = Tree::new(&graph, closed);
    tree.solve(&graph, 1e-12).unwrap();
    assert_eq!(tree.quality(&graph, &ALL).violation, 0.0);
    tree.prepare(&graph);
    let mut found = Vec::new();
    tree.exchanges(&graph, 2, |exchange| found.push(exchange));
    assert_eq!(found.iter().map(|exchange| exchange.open).collect::<Vec<_>>(), [1]);
    // 1 kW over 1 ohm instead of 0.5 ohm
    assert!((found[0].loss_change_pu * 1e6 + 0.005).abs() < 1e-6, "{found:?}");
}
