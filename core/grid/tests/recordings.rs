//! The recordings with truth: a real LV feeder (truth from OpenDSS) and a synthetic district (truth from power-grid-model).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use flexmeter_grid::Complex;
use flexmeter_grid::bundle::Reading;
use flexmeter_grid::estimation::{EstimateOptions, Estimator};
use flexmeter_grid::network::Network;
use flexmeter_grid::pgm::{Dataset, DatasetKind};
use flexmeter_grid::power_flow::{Options, PowerFlow};
use serde_json::{Value, json};

mod recording;
use recording::{bundle, gunzip, text};

const ROOT: &str = "../..";

fn phase(letter: &str) -> usize {
    ["a", "b", "c"].iter().position(|&other| other == letter).unwrap()
}

type Truth = HashMap<i64, [Complex<f64>; 3]>;

/// True voltages by time, V to ground.
fn truth(folder: &Path) -> BTreeMap<String, Truth> {
    let mut by_time: BTreeMap<String, Truth> = BTreeMap::new();
    for line in gunzip(folder, "truth.csv.gz").lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [u, angle]: [f64; 2] = [3, 4].map(|at| fields[at].parse().unwrap());
        let nodes = by_time.entry(fields[0].to_owned()).or_default();
        nodes.entry(fields[1].parse().unwrap()).or_default()[phase(fields[2])] = Complex::from_polar(u, angle);
    }
    by_time
}

/// True loads by time, as an update dataset.
fn loads(folder: &Path) -> BTreeMap<String, Value> {
    type Loads = BTreeMap<i64, ([f64; 3], [f64; 3])>;
    let mut by_time: BTreeMap<String, Loads> = BTreeMap::new();
    for line in gunzip(folder, "truth_load.csv.gz").lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let load = by_time
            .entry(fields[0].to_owned())
            .or_default()
            .entry(fields[1].parse().unwrap())
            .or_default();
        load.0[phase(fields[2])] = fields[3].parse().unwrap();
        load.1[phase(fields[2])] = fields[4].parse().unwrap();
    }
    let row = |(id, (p, q)): (i64, ([f64; 3], [f64; 3]))| json!({"id": id, "p_specified": p, "q_specified": q});
    by_time
        .into_iter()
        .map(|(t, loads)| (t, loads.into_iter().map(row).collect::<Value>()))
        .collect()
}

/// The switch positions of a moment: what has happened until then.
fn switched(folder: &Path, network: &mut Network, t: &str) {
    let mut rows: HashMap<i64, u8> = HashMap::new();
    for line in text(folder, "events.csv").lines().skip(1) {
        let fields: Vec<&str> = line.splitn(6, ',').collect();
        // all times of a recording are written in one zone
        if fields[0] > t {
            continue;
        }
        match fields[1] {
            "outage_start" | "switch_open" => rows.insert(fields[4].parse().unwrap(), 0),
            "outage_end" | "switch_close" => rows.insert(fields[4].parse().unwrap(), 1),
            _ => None,
        };
    }
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|(id, closed)| json!({"id": id, "from_status": closed, "to_status": closed}))
        .collect();
    update(network, &json!({"line": rows}));
}

fn update(network: &mut Network, data: &Value) {
    let text = json!({"type": "update", "data": data}).to_string();
    network.update(&Dataset::from_json(&text, DatasetKind::Update).unwrap(), 0).unwrap();
}

/// Largest distance of the power flow's voltages from the truth, over all moments, relative to the rated voltage.
fn power_flow_distance(name: &str, test: &str) -> Option<f64> {
    let folder = recording::folder(ROOT, name, test)?;
    let base = bundle(&folder).network;
    let loads = loads(&folder);
    let mut worst: f64 = 0.0;
    for (t, truth) in truth(&folder) {
        let mut network = base.clone();
        switched(&folder, &mut network, &t);
        update(&mut network, &json!({"asym_load": loads[&t]}));
        let mut flow = PowerFlow::<3>::new(&network).unwrap();
        flow.solve(&Options {
            tolerance_pu: 1e-10,
            ..Options::default()
        })
        .unwrap();
        for (id, exact) in truth {
            let node = network.node_index(id).unwrap();
            let base = network.nodes()[node].u_rated_v / 3f64.sqrt();
            match flow.voltage_pu(node) {
                Some(u) => (0..3).for_each(|k| worst = worst.max((u[k] - exact[k] / base).norm())),
                None => assert!(exact.iter().all(|u| u.norm() == 0.0), "{t}: node {id} has supply"),
            }
        }
    }
    Some(worst)
}

#[test]
fn the_power_flow_is_that_of_opendss_on_the_european_feeder() {
    if let Some(worst) = power_flow_distance("european-lv", "the_power_flow_is_that_of_opendss_on_the_european_feeder") {
        println!("european-lv: {worst:.1e} per unit");
        assert!(worst < 1e-6, "{worst:e}");
    }
}

#[test]
fn the_power_flow_is_that_of_the_district() {
    if let Some(worst) = power_flow_distance("district-small", "the_power_flow_is_that_of_the_district") {
        println!("district-small: {worst:.1e} per unit");
        assert!(worst < 1e-6, "{worst:e}");
    }
}

/// What the meters said of one minute, by hardware id; the last word of several.
fn readings(messages: &[Value], t: &str) -> HashMap<String, Reading> {
    // to the minute
    let minute = &t[..16];
    let nan = [f64::NAN; 3];
    let mut readings: HashMap<String, Reading> = HashMap::new();
    for message in messages {
        let request = &message["request"];
        let is_of_minute = request["eventDate"].as_str().is_some_and(|date| date.starts_with(minute));
        let (Some(id), Some(measurements)) = (message["hardwareId"].as_str(), request["measurements"].as_object()) else {
            continue;
        };
        if !is_of_minute {
            continue;
        }
        let reading = readings.entry(id.to_owned()).or_insert(Reading {
            u_v: nan,
            p_w: nan,
            q_var: nan,
        });
        for (identifier, value) in measurements {
            let Some((kind, k)) = identifier.rsplit_once(".l") else { continue };
            let (Ok(k @ 1..=3), Some(value)) = (k.parse::<usize>(), value.as_f64()) else {
                continue;
            };
            match kind {
                "electricity.voltage.rms" => reading.u_v[k - 1] = value,
                // on the wire in kW and kvar
                "electricity.power.active.consumed" => reading.p_w[k - 1] = value * 1e3,
                "electricity.power.active.injected" => reading.p_w[k - 1] = -value * 1e3,
                "electricity.power.reactive.consumed" => reading.q_var[k - 1] = value * 1e3,
                "electricity.power.reactive.injected" => reading.q_var[k - 1] = -value * 1e3,
                _ => {}
            }
        }
    }
    readings
}

/// Estimates every moment with truth: RMSE of the voltage, per unit, and the shares of errors within one and two sigma.
fn estimate(name: &str, test: &str) -> Option<[f64; 3]> {
    let folder = recording::folder(ROOT, name, test)?;
    let bundle = bundle(&folder);
    // broken lines are part of the recording
    let messages: Vec<Value> = gunzip(&folder, "messages.jsonl.gz")
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let (mut squares, mut within, mut n) = (0.0, [0, 0], 0);
    for (t, truth) in truth(&folder) {
        let readings = readings(&messages, &t);
        let readings: HashMap<&str, Reading> = readings.iter().map(|(id, reading)| (id.as_str(), *reading)).collect();
        let mut network = bundle.with_readings(&readings);
        switched(&folder, &mut network, &t);
        let mut estimator = Estimator::<3, 12>::new(&network, EstimateOptions::default()).unwrap();
        estimator.estimate().unwrap_or_else(|e| panic!("{t}: {e}"));
        let uncertainty = estimator.uncertainty().unwrap();
        for (id, exact) in truth {
            let node = network.node_index(id).unwrap();
            let base = network.nodes()[node].u_rated_v / 3f64.sqrt();
            let Some(u) = estimator.voltage_pu(node) else { continue };
            let (sigma, _) = estimator.voltage_sigma(&uncertainty, node).unwrap();
            for k in 0..3 {
                let error = u[k].norm() - exact[k].norm() / base;
                squares += error * error;
                within[0] += usize::from(error.abs() <= sigma[k]);
                within[1] += usize::from(error.abs() <= 2.0 * sigma[k]);
                n += 1;
            }
        }
    }
    let share = |count: usize| count as f64 / f64::from(n);
    Some([(squares / f64::from(n)).sqrt(), share(within[0]), share(within[1])])
}

/// Shares within one and two standard deviations of the errors of single voltage readings, and of their weighted means by moment and phase.
fn reading_errors(name: &str, test: &str) -> Option<[[f64; 2]; 2]> {
    let folder = recording::folder(ROOT, name, test)?;
    let bundle = bundle(&folder);
    let messages: Vec<Value> = gunzip(&folder, "messages.jsonl.gz")
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let (mut single, mut means) = (Vec::new(), Vec::new());
    for (t, truth) in truth(&folder) {
        let readings = readings(&messages, &t);
        let (mut sums, mut weights) = ([0.0; 3], [0.0; 3]);
        for meter in &bundle.meters {
            let Some(reading) = readings.get(&meter.hardware_id) else {
                continue;
            };
            let exact = truth[&bundle.network.nodes()[meter.node].id];
            for k in (0..3).filter(|&k| reading.u_v[k].is_finite() && exact[k].norm() > 0.0) {
                let error = reading.u_v[k] / exact[k].norm() - 1.0;
                single.push(error / meter.accuracy_v);
                weights[k] += meter.accuracy_v.powi(-2);
                sums[k] += error * meter.accuracy_v.powi(-2);
            }
        }
        means.extend((0..3).filter(|&k| weights[k] > 0.0).map(|k| sums[k] / weights[k].sqrt()));
    }
    let within = |errors: &[f64], limit: f64| errors.iter().filter(|error| error.abs() <= limit).count() as f64 / errors.len() as f64;
    Some([&single, &means].map(|errors| [1.0, 2.0].map(|limit| within(errors, limit))))
}

#[test]
fn what_the_estimate_of_the_european_feeder_lacks_in_coverage_its_readings_lack() {
    let test = "what_the_estimate_of_the_european_feeder_lacks_in_coverage_its_readings_lack";
    let Some([single, means]) = reading_errors("european-lv", test) else {
        return;
    };
    println!("european-lv: {single:.3?} of the voltage readings and {means:.3?} of their means are within one and two sigma");
    // the sigmas of the readings are those of their errors ...
    assert!((0.66..0.70).contains(&single[0]) && (0.94..0.97).contains(&single[1]), "{single:?}");
    // ... but in this recording the errors of a moment happen to lie on one side more often than chance has it: the plain mean of the
    // readings, without any model of the grid, is as far from the truth as the estimate (58 % and 91 %)
    assert!((0.55..0.61).contains(&means[0]) && (0.88..0.93).contains(&means[1]), "{means:?}");
}

fn check_estimate(name: &str, test: &str, rmse_max: f64) {
    if let Some([rmse, one, two]) = estimate(name, test) {
        println!(
            "{name}: RMSE {rmse:.2e} per unit, {:.0} % within one sigma, {:.0} % within two",
            one * 100.0,
            two * 100.0
        );
        assert!(rmse < rmse_max, "{rmse:e}");
        // the errors of one moment move together: a blunt check
        assert!((0.5..0.9).contains(&one) && (0.85..=1.0).contains(&two), "{one} {two}");
    }
}

#[test]
fn the_estimate_of_the_european_feeder_is_as_good_as_it_says() {
    check_estimate("european-lv", "the_estimate_of_the_european_feeder_is_as_good_as_it_says", 1e-3);
}

#[test]
fn the_estimate_of_the_district_is_as_good_as_it_says() {
    check_estimate("district-small", "the_estimate_of_the_district_is_as_good_as_it_says", 1e-3);
}
