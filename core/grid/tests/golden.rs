//! Every folder of `test_data`: a network, and what programs that other people wrote make of it.

#![allow(
    clippy::unwrap_used,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "a test fails by panicking, also for what is not a number"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flexmeter_grid::Complex;
use flexmeter_grid::estimation::{EstimateOptions, Estimator};
use flexmeter_grid::network::Network;
use flexmeter_grid::pgm::{Dataset, DatasetKind};
use flexmeter_grid::power_flow::{Method, Options, PowerFlow};
use serde_json::Value;

/// One line of a folder's `case.json`.
#[derive(Debug, serde::Deserialize)]
struct Check {
    calculation: String,
    symmetric: bool,
    expected: String,
    reference: String,
    tolerance_pu: f64,
    update: Option<String>,
}

struct Case {
    folder: PathBuf,
    checks: Vec<Check>,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.json").exists())
        .collect();
    folders.sort();
    folders
        .into_iter()
        .map(|folder| Case {
            checks: serde_json::from_str(&read(&folder, "case.json")).unwrap(),
            folder,
        })
        .collect()
}

fn read(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Case {
    fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn network(&self, check: &Check) -> Network {
        let mut network = Network::from_pgm_json(&read(&self.folder, "input.json")).unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        if let Some(update) = &check.update {
            let update = Dataset::from_json(&read(&self.folder, update), DatasetKind::Update).unwrap();
            network.update(&update, 0).unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        }
        network
    }

    /// Largest distance of our complex voltages from the expected ones, per unit.
    fn distance<const N: usize>(&self, check: &Check, network: &Network, voltage: impl Fn(usize) -> Option<[Complex<f64>; N]>) -> f64 {
        let expected: Value = serde_json::from_str(&read(&self.folder, &check.expected)).unwrap();
        let mut worst: f64 = 0.0;
        let nodes = expected["data"]["node"].as_array().unwrap();
        if check.reference.starts_with("power-grid-model") {
            assert_eq!(nodes.len(), network.nodes().len(), "{}: every node is expected", self.name());
        }
        for node in nodes {
            let id = node["id"].as_i64().unwrap();
            let ours = voltage(network.node_index(id).unwrap());
            if node.get("energized").and_then(Value::as_i64) == Some(0) {
                assert!(ours.is_none(), "{}: node {id} has no supply", self.name());
                continue;
            }
            let ours = ours.unwrap_or_else(|| panic!("{}: node {id} has supply", self.name()));
            for (k, u) in ours.iter().enumerate() {
                let of = |attribute: &str| match &node[attribute] {
                    Value::Array(phases) => phases[k].as_f64().unwrap(),
                    value => value.as_f64().unwrap(),
                };
                let expected = Complex::from_polar(of("u_pu"), of("u_angle"));
                let distance = (u - expected).norm();
                worst = if distance <= worst { worst } else { distance };
            }
        }
        worst
    }
}

fn power_flow<const N: usize>(case: &Case, check: &Check, method: Method) -> f64 {
    let network = case.network(check);
    let options = Options {
        tolerance_pu: 1e-10,
        method,
        ..Options::default()
    };
    let mut flow = PowerFlow::<N>::new(&network).unwrap_or_else(|e| panic!("{}: {e}", case.name()));
    flow.solve(&options).unwrap_or_else(|e| panic!("{} ({method:?}): {e}", case.name()));
    case.distance(check, &network, |node| flow.voltage_pu(node))
}

fn estimate<const N: usize, const B: usize>(case: &Case, check: &Check) -> f64 {
    let network = case.network(check);
    let options = EstimateOptions {
        tolerance_pu: 1e-10,
        ..EstimateOptions::default()
    };
    let mut estimator = Estimator::<N, B>::new(&network, options).unwrap_or_else(|e| panic!("{}: {e}", case.name()));
    match estimator.estimate() {
        Ok(convergence) => println!("{convergence:?}"),
        Err(error) => println!("{}: {error}", case.name()),
    }
    case.distance(check, &network, |node| estimator.voltage_pu(node))
}

fn check_all(calculation: &str, solve: impl Fn(&Case, &Check) -> f64) {
    let mut failures = Vec::new();
    let mut references: HashMap<String, usize> = HashMap::new();
    for case in cases() {
        for check in case.checks.iter().filter(|check| check.calculation == calculation) {
            let distance = solve(&case, check);
            *references.entry(check.reference.clone()).or_default() += 1;
            let line = format!(
                "{:32} {:28} {distance:.1e} (limit {:.0e})",
                case.name(),
                check.expected,
                check.tolerance_pu
            );
            println!("{line}");
            // NaN fails
            if !(distance <= check.tolerance_pu) {
                failures.push(line);
            }
        }
    }
    println!("{references:#?}");
    assert!(!references.is_empty());
    assert!(failures.is_empty(), "{calculation}:\n{}", failures.join("\n"));
}

#[test]
fn power_flow_agrees_with_independent_programs() {
    check_all("power_flow", |case, check| match check.symmetric {
        true => power_flow::<1>(case, check, Method::Auto),
        false => power_flow::<3>(case, check, Method::Auto),
    });
}

#[test]
fn newtons_method_finds_the_same_voltages() {
    check_all("power_flow", |case, check| match check.symmetric {
        true => power_flow::<1>(case, check, Method::Newton),
        false => power_flow::<3>(case, check, Method::Newton),
    });
}

#[test]
fn estimates_agree_with_an_independent_program() {
    check_all("estimate", |case, check| match check.symmetric {
        true => estimate::<1, 4>(case, check),
        false => estimate::<3, 12>(case, check),
    });
}
