//! Published cases as networks, and a generated grid of a city's size.

use std::path::{Path, PathBuf};

use flexmeter_grid::network::{BranchKind, Network};
use serde_json::{Value, json};

use crate::feeder::Random;

/// A case of `test_data/reconfiguration`: its network, its switches, and what others say of it.
pub(crate) struct Case {
    pub(crate) network: Network,
    pub(crate) switches: Vec<usize>,
    pub(crate) expected: Value,
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/reconfiguration")
}

fn rows(text: &str) -> impl Iterator<Item = Vec<f64>> {
    text.lines()
        .skip(1)
        .map(|line| line.split(',').map(|field| field.parse().unwrap()).collect())
}

/// Reads a case; branches keep the numbers of the published table as their ids.
pub(crate) fn published(name: &str) -> Case {
    let read = |file: &str| std::fs::read_to_string(folder().join(name).join(file)).unwrap();
    let expected: Value = serde_json::from_str(&read("case.json")).unwrap();
    let u_rated = expected["u_rated_v"].as_f64().unwrap();
    let branches: Vec<Vec<f64>> = rows(&read("branches.csv")).collect();
    let mut nodes: Vec<i64> = branches.iter().flat_map(|row| [row[1] as i64, row[2] as i64]).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let id = |node: i64| 1_000 + node;
    let lines: Vec<Value> = branches
        .iter()
        .map(|row| {
            let closed = row[5] as u8;
            json!({"id": row[0] as i64, "from_node": id(row[1] as i64), "to_node": id(row[2] as i64), "from_status": closed,
                "to_status": closed, "r1": row[3], "x1": row[4], "c1": 0.0, "tan1": 0.0})
        })
        .collect();
    let loads: Vec<Value> = rows(&read("loads.csv"))
        .map(|row| {
            let node = row[0] as i64;
            json!({"id": 2_000 + node, "node": id(node), "status": 1, "type": 0, "p_specified": row[1] * 1e3, "q_specified": row[2] * 1e3})
        })
        .collect();
    let network = network(&json!({
        "node": nodes.iter().map(|&node| json!({"id": id(node), "u_rated": u_rated})).collect::<Vec<_>>(),
        "line": lines,
        "source": [{"id": 3_000, "node": id(nodes[0]), "status": 1, "u_ref": 1.0, "sk": 1e16}],
        "sym_load": loads,
    }));
    let switches = lines_of(&network);
    Case {
        network,
        switches,
        expected,
    }
}

pub(crate) fn network(data: &Value) -> Network {
    let text = json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": data}).to_string();
    Network::from_pgm_json(&text).unwrap()
}

/// Indices of all lines.
pub(crate) fn lines_of(network: &Network) -> Vec<usize> {
    let branches = network.branches().iter().enumerate();
    branches
        .filter(|(_, branch)| matches!(branch.kind, BranchKind::Line(_)))
        .map(|(index, _)| index)
        .collect()
}

/// A city: `n_feeders` feeders from one busbar with `n_nodes` nodes in all, each a main line with laterals, and `n_ties` open ties
/// between nodes of neighbouring feeders or of one feeder. Loads are uneven, so that the feeders want to share them.
pub(crate) fn city(n_nodes: usize, n_feeders: usize, n_ties: usize, seed: u64) -> Network {
    let mut random = Random::new(seed);
    let n_per_feeder = n_nodes / n_feeders;
    let mut lines: Vec<(usize, usize, f64, bool)> = Vec::new();
    let mut feeders: Vec<Vec<usize>> = vec![Vec::new(); n_feeders];
    for node in 1..=n_nodes {
        let own = &mut feeders[((node - 1) / n_per_feeder).min(n_feeders - 1)];
        let from = match own.len() {
            0 => 0,
            n if random.uniform() < 0.8 => own[n - 1],
            n => own[random.below(n)],
        };
        lines.push((from, node, 0.05 + 0.2 * random.uniform(), true));
        own.push(node);
    }
    for tie in 0..n_ties {
        let at = tie % n_feeders;
        let other = (at + random.below(4)) % n_feeders;
        let pick = |random: &mut Random, feeder: &[usize]| feeder[feeder.len() / 4 + random.below(feeder.len() * 3 / 4)];
        let a = pick(&mut random, &feeders[at]);
        let b = loop {
            let b = pick(&mut random, &feeders[other]);
            if a != b {
                break b;
            }
        };
        lines.push((a, b, 0.1 + 0.4 * random.uniform(), false));
    }
    let lines: Vec<Value> = lines
        .iter()
        .enumerate()
        .map(|(at, &(from, to, km, closed))| {
            json!({"id": 1_000_000 + at, "from_node": from, "to_node": to, "from_status": u8::from(closed), "to_status": u8::from(closed),
                "r1": 0.25 * km, "x1": 0.12 * km, "c1": 0.3e-6 * km, "tan1": 0.0})
        })
        .collect();
    let heaviness: Vec<f64> = (0..n_feeders).map(|_| 0.4 + 1.2 * random.uniform()).collect();
    let loads: Vec<Value> = (1..=n_nodes)
        .map(|node| {
            let share = heaviness[((node - 1) / n_per_feeder).min(n_feeders - 1)];
            let p = 60e3 * share * (0.2 + 1.6 * random.uniform());
            json!({"id": 2_000_000 + node, "node": node, "status": 1, "type": 0, "p_specified": p, "q_specified": 0.4 * p})
        })
        .collect();
    network(&json!({
        "node": (0..=n_nodes).map(|id| json!({"id": id, "u_rated": 20e3})).collect::<Vec<_>>(),
        "line": lines,
        "source": [{"id": 3_000_000, "node": 0, "status": 1, "u_ref": 1.03, "sk": 1e16}],
        "sym_load": loads,
    }))
}
