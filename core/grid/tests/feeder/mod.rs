//! Random feeders for tests: the same seed, the same feeder.

#![allow(dead_code, reason = "each test uses its part")]

use flexmeter_grid::network::Network;
use flexmeter_grid::power_flow::{Options, PowerFlow};
use serde_json::{Map, Value, json};

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn gauss(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A dataset under construction.
pub(crate) type Dataset = Map<String, Value>;

const LINES: i64 = 10_000;
const LOADS: i64 = 20_000;
const SOURCE: i64 = 30_000;
const SENSORS: i64 = 40_000;

fn list<'a>(dataset: &'a mut Dataset, component: &str) -> &'a mut Vec<Value> {
    dataset.entry(component).or_insert_with(|| json!([])).as_array_mut().unwrap()
}

pub(crate) fn build(dataset: &Dataset) -> Network {
    let text = json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": dataset}).to_string();
    Network::from_pgm_json(&text).unwrap()
}

/// Whether a node of such a feeder has no load.
pub(crate) fn is_zero_injection(node: usize) -> bool {
    node > 0 && node % 5 == 3
}

/// Areas of such a feeder without loops, down to a third level: every seventh node opens one below that of its parent.
pub(crate) fn area_paths(network: &Network) -> Vec<String> {
    let mut paths: Vec<String> = vec!["mv1".to_owned(); network.nodes().len()];
    // children come after their parents in this feeder
    for branch in network.branches() {
        let (parent, child) = (branch.from, branch.to);
        let level = paths[parent].matches('/').count();
        paths[child] = match child % 7 == 6 && level < 2 {
            true => format!("{}/a{child}", paths[parent]),
            false => paths[parent].clone(),
        };
    }
    paths
}

/// A 10 kV feeder: each new node hangs on the last one or on any, every fifth has no load, some lines close loops.
pub(crate) fn network(n_nodes: usize, n_loops: usize, asymmetric: bool, seed: u64) -> Dataset {
    let mut random = Random::new(seed);
    let mut dataset = Dataset::new();
    let n_lines = n_nodes - 1 + n_loops;
    for node in 0..n_nodes {
        list(&mut dataset, "node").push(json!({"id": node, "u_rated": 10e3}));
    }
    for k in 0..n_lines {
        let (from, to) = match k + 1 < n_nodes {
            true if random.uniform() < 0.7 => (k, k + 1),
            true => (random.below(k + 1), k + 1),
            false => {
                let from = random.below(n_nodes);
                (from, (from + 1 + random.below(n_nodes - 1)) % n_nodes)
            }
        };
        let km = (0.2 + random.uniform()) * 10.0 / n_nodes as f64;
        list(&mut dataset, "line").push(json!({
            "id": LINES + k as i64, "from_node": from, "to_node": to, "from_status": 1, "to_status": 1,
            "r1": 0.2 * km, "x1": 0.12 * km, "c1": 0.3e-6 * km, "tan1": 0, "r0": 0.8 * km, "x0": 0.46 * km, "c0": 0.2e-6 * km, "tan0": 0,
        }));
    }
    let source = json!({"id": SOURCE, "node": 0, "status": 1, "u_ref": 1.02, "sk": 2e8, "rx_ratio": 0.1, "z01_ratio": 1.5});
    list(&mut dataset, "source").push(source);
    for node in (1..n_nodes).filter(|&node| !is_zero_injection(node)) {
        let p = 3e6 / n_nodes as f64 * (0.2 + 1.6 * random.uniform());
        let q = p * (0.1 + 0.3 * random.uniform());
        let id = LOADS + node as i64;
        match asymmetric {
            true => {
                let share: Vec<f64> = (0..3).map(|_| (0.1 + random.uniform()) / 1.8).collect();
                let of = |x: f64| share.iter().map(|s| s * x).collect::<Vec<_>>();
                let load = json!({"id": id, "node": node, "status": 1, "type": 0, "p_specified": of(p), "q_specified": of(q)});
                list(&mut dataset, "asym_load").push(load);
            }
            false => {
                let load = json!({"id": id, "node": node, "status": 1, "type": 0, "p_specified": p, "q_specified": q});
                list(&mut dataset, "sym_load").push(load);
            }
        }
    }
    dataset
}

/// How good the sensors of [`add_sensors_with`] are, as shares of the rated voltage and of the average load.
#[derive(Clone, Copy)]
pub(crate) struct Quality {
    pub(crate) voltage: f64,
    pub(crate) meter: f64,
    pub(crate) pseudo: f64,
    /// Share of the loads that have a meter, the others have a pseudo-measurement.
    pub(crate) metered: f64,
    /// Share of the nodes whose voltage is measured.
    pub(crate) voltages: f64,
    /// Whether the source's voltage is measured with its angles.
    pub(crate) angles: bool,
}

pub(crate) const QUALITY: Quality = Quality {
    voltage: 0.005,
    meter: 0.02,
    pseudo: 0.3,
    metered: 0.5,
    voltages: 0.3,
    angles: false,
};

/// Voltage sensors at the source and some nodes, P and Q of every load and of what leaves the source.
pub(crate) fn add_sensors<const N: usize>(dataset: &mut Dataset, seed: u64) {
    add_sensors_with::<N>(dataset, seed, QUALITY);
}

pub(crate) fn add_sensors_with<const N: usize>(dataset: &mut Dataset, seed: u64, quality: Quality) {
    let network = build(dataset);
    let mut flow = PowerFlow::<N>::new(&network).unwrap();
    flow.solve(&Options {
        tolerance_pu: 1e-12,
        ..Options::default()
    })
    .unwrap();
    let mut random = Random::new(seed);
    let (kind_u, kind_s) = if N == 1 {
        ("sym_voltage_sensor", "sym_power_sensor")
    } else {
        ("asym_voltage_sensor", "asym_power_sensor")
    };
    let wrap = |x: Vec<f64>| if N == 1 { json!(x[0]) } else { json!(x) };
    let mut id = SENSORS;
    let u_base = if N == 1 { 10e3 } else { 10e3 / 3f64.sqrt() };
    let s_base = 1e6 / N as f64;
    for node in 0..network.nodes().len() {
        if node > 0 && random.uniform() > quality.voltages {
            continue;
        }
        let sigma = u_base * quality.voltage;
        let u: Vec<f64> = flow
            .voltage_pu(node)
            .unwrap()
            .iter()
            .map(|u| u.norm() * u_base + sigma * random.gauss())
            .collect();
        let mut sensor = json!({"id": id, "measured_object": node, "u_sigma": sigma, "u_measured": wrap(u)});
        if quality.angles && node == 0 {
            let of = |u: &flexmeter_grid::Complex<f64>| u.arg() + quality.voltage * random.gauss();
            let angle: Vec<f64> = flow.voltage_pu(node).unwrap().iter().map(of).collect();
            sensor["u_angle_measured"] = wrap(angle);
        }
        list(dataset, kind_u).push(sensor);
        id += 1;
    }
    let average = 3e6 / network.nodes().len() as f64 / N as f64;
    let mut add = |object: i64, terminal: i64, s: Vec<(f64, f64)>, sigma: f64| {
        let p: Vec<f64> = s.iter().map(|s| s.0 + sigma * random.gauss()).collect();
        let q: Vec<f64> = s.iter().map(|s| s.1 + sigma * random.gauss()).collect();
        let sigmas = wrap(vec![sigma; N]);
        list(dataset, kind_s).push(json!({
            "id": id, "measured_object": object, "measured_terminal_type": terminal, "power_sigma": sigma * 2f64.sqrt(),
            "p_measured": wrap(p), "q_measured": wrap(q), "p_sigma": sigmas, "q_sigma": sigmas,
        }));
        id += 1;
    };
    for (index, branch) in network.branches().iter().enumerate() {
        if branch.from == 0 {
            let s = flow.branch_flow(&network, index).s_from_pu;
            add(
                branch.id,
                0,
                s.iter().map(|s| (s.re * s_base, s.im * s_base)).collect(),
                average * 0.2,
            );
        }
    }
    for (index, load) in network.appliances().iter().enumerate() {
        let s = flow.injection_pu(load).unwrap();
        let sigma = average
            * if (index as f64 * 0.618) % 1.0 < quality.metered {
                quality.meter
            } else {
                quality.pseudo
            };
        add(load.id, 4, s.iter().map(|s| (-s.re * s_base, -s.im * s_base)).collect(), sigma);
    }
}
