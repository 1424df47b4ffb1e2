//! Faults that our own power flow simulates are found back exactly; what cannot be used is refused by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod feeder;

use std::collections::HashMap;

use feeder::{Dataset, Random, build, network};
use flexmeter_grid::fault::{Accuracy, Candidate, FaultRecord, FaultType, Head, LineFacts, LocateOptions, Phasors, locate};
use flexmeter_grid::network::Network;
use flexmeter_grid::power_flow::{Options, PowerFlow};
use proptest::prelude::*;
use serde_json::{Value, json};

const LINES: i64 = 10_000;
const HEAD_LINE: i64 = LINES;
const FAULT_NODE: i64 = 99_999;
const U_V: f64 = 10e3;

/// A feeder of 10 kV whose loads are impedances: what the locator takes them for below the floor, and the power flow everywhere.
fn dataset(n_nodes: usize, seed: u64) -> Dataset {
    let mut dataset = network(n_nodes, 0, true, seed);
    for load in dataset["asym_load"].as_array_mut().unwrap() {
        load["type"] = json!(1);
    }
    for line in dataset["line"].as_array_mut().unwrap() {
        // halves of a line with capacitance are not quite the line: the parts of a pi circuit, not of a long line
        (line["c1"], line["c0"]) = (json!(0.0), json!(0.0));
    }
    // one line leaves the head
    dataset["line"][0]["from_node"] = json!(0);
    for line in dataset["line"].as_array_mut().unwrap().iter_mut().skip(1) {
        if line["from_node"] == json!(0) {
            line["from_node"] = json!(1);
        }
    }
    dataset
}

fn flow(dataset: &Dataset) -> (Network, PowerFlow<3>) {
    let network = build(dataset);
    let mut flow = PowerFlow::<3>::new(&network).unwrap();
    flow.solve(&Options {
        tolerance_pu: 1e-13,
        iterations_max: 200,
        ..Options::default()
    })
    .unwrap();
    (network, flow)
}

fn measure(dataset: &Dataset) -> Phasors {
    let (network, flow) = flow(dataset);
    let head = network.branch_index(HEAD_LINE).unwrap();
    let i = flow.branch_flow(&network, head).i_from_pu;
    Phasors {
        voltage_v: flow.voltage_pu(0).unwrap().map(|u| u * (U_V / 3f64.sqrt())),
        current_a: i.map(|i| i * (1e6 / (3f64.sqrt() * U_V))),
    }
}

/// A node on a line, with resistors from some phases to ground: loads of constant impedance.
fn with_fault(dataset: &Dataset, line: i64, share: f64, phases: [bool; 3], ohm: f64) -> Dataset {
    let mut faulted = dataset.clone();
    faulted["node"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": FAULT_NODE, "u_rated": U_V}));
    let lines = faulted["line"].as_array_mut().unwrap();
    let at = lines.iter().position(|it| it["id"] == json!(line)).unwrap();
    let mut far = lines[at].clone();
    for key in ["r1", "x1", "r0", "x0"] {
        let whole = far[key].as_f64().unwrap();
        (lines[at][key], far[key]) = (json!(whole * share), json!(whole * (1.0 - share)));
    }
    lines[at]["to_node"] = json!(FAULT_NODE);
    (far["id"], far["from_node"]) = (json!(88_888), json!(FAULT_NODE));
    lines.push(far);
    let p: Vec<f64> = phases
        .iter()
        .map(|&there| if there { U_V * U_V / 3.0 / ohm } else { 0.0 })
        .collect();
    let fault = json!({"id": 77_777, "node": FAULT_NODE, "status": 1, "type": 1, "p_specified": p, "q_specified": [0, 0, 0]});
    faulted["asym_load"].as_array_mut().unwrap().push(fault);
    faulted
}

fn record(before: Phasors, during: Phasors) -> FaultRecord {
    FaultRecord {
        head: Head {
            node: 0,
            branch: Some(HEAD_LINE),
        },
        before,
        during,
        accuracy: Accuracy {
            voltage: 1e-5,
            current: 1e-5,
            angle_rad: 1e-5,
        },
    }
}

fn exact() -> LocateOptions {
    LocateOptions {
        load_sigma: 0.0,
        ..LocateOptions::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_simulated_fault_is_found_back_exactly(seed in 0u64..1000, at in 0usize..12, share in 0.05f64..0.95, ohm in 0.2f64..25.0, which in 0usize..7) {
        let dataset = dataset(13, seed);
        let line = dataset["line"][at]["id"].as_i64().unwrap();
        let kinds = [FaultType::Ag, FaultType::Bg, FaultType::Cg, FaultType::Abg, FaultType::Bcg, FaultType::Cag, FaultType::Abcg];
        let kind = kinds[which];
        let during = measure(&with_fault(&dataset, line, share, kind.phases(), ohm));
        let found = locate(&build(&dataset), &record(measure(&dataset), during), &exact()).unwrap();
        let there: Option<&Candidate> = found.candidates.iter().find(|candidate| candidate.branch == line);
        prop_assert!(there.is_some(), "{line} is not among {:?}", found.candidates);
        let there = there.unwrap();
        prop_assert_eq!(there.kind, kind);
        prop_assert!((there.share - share).abs() < 1e-5, "{} for {}", there.share, share);
        prop_assert!((there.resistance_ohm - ohm).abs() < 1e-4, "{} for {}", there.resistance_ohm, ohm);
        prop_assert!(there.ground_resistance_ohm.is_none_or(|r| r < 1e-4));
        prop_assert!(there.misfit_sigmas < 0.01);
    }
}

#[test]
fn resistances_of_several_phases_and_of_ground_are_told_apart_by_the_type() {
    let dataset = dataset(13, 3);
    let during = measure(&with_fault(&dataset, LINES + 5, 0.4, [true, true, true], 8.0));
    let found = locate(&build(&dataset), &record(measure(&dataset), during), &exact()).unwrap();
    assert_eq!((found.candidates[0].branch, found.candidates[0].kind), (LINES + 5, FaultType::Abcg));
    assert_eq!(found.type_at_head.phases(), [true; 3]);
}

#[test]
fn dark_nodes_leave_only_what_hangs_on_their_device() {
    let dataset = dataset(40, 7);
    let network = build(&dataset);
    let line = network.branches()[30].clone();
    let during = measure(&with_fault(&dataset, line.id, 0.5, [true, false, false], 1.0));
    let far = network.nodes()[line.to].id;
    let record = record(measure(&dataset), during);
    let all = locate(&network, &record, &exact()).unwrap();
    let dark = locate(
        &network,
        &record,
        &LocateOptions {
            gasps: vec![far],
            ..exact()
        },
    )
    .unwrap();
    assert!(dark.n_sections < all.n_sections);
    assert_eq!(dark.dark_behind, Some(line.id));
    assert_eq!(dark.candidates[0].branch, line.id);
}

#[test]
fn a_known_device_is_the_one_that_opened() {
    let dataset = dataset(13, 7);
    let network = build(&dataset);
    let line = network.branches().iter().find(|branch| branch.from != 0).unwrap();
    let facts = LineFacts {
        has_device: true,
        ..LineFacts::default()
    };
    let during = measure(&with_fault(&dataset, line.id, 0.5, [true, false, false], 1.0));
    let options = LocateOptions {
        gasps: vec![network.nodes()[line.to].id],
        lines: HashMap::from([(HEAD_LINE, facts)]),
        ..exact()
    };
    let found = locate(&network, &record(measure(&dataset), during), &options).unwrap();
    // the node is dark because the only device there is has opened: nothing is excluded
    assert_eq!((found.dark_behind, found.n_sections), (Some(HEAD_LINE), 12));
}

#[test]
fn lengths_give_metres_and_phases_leave_lines_out() {
    let dataset = dataset(13, 1);
    let network = build(&dataset);
    let line = LINES + 6;
    let during = measure(&with_fault(&dataset, line, 0.25, [true, false, false], 2.0));
    let mut lines: HashMap<i64, LineFacts> = network
        .branches()
        .iter()
        .map(|branch| {
            let facts = LineFacts {
                length_m: Some(100.0),
                ..LineFacts::default()
            };
            (branch.id, facts)
        })
        .collect();
    let record = record(measure(&dataset), during);
    let locate_with = |lines: &HashMap<i64, LineFacts>| {
        let options = LocateOptions {
            lines: lines.clone(),
            ..exact()
        };
        locate(&network, &record, &options).unwrap()
    };
    let found = locate_with(&lines);
    let there = found.candidates.iter().find(|candidate| candidate.branch == line).unwrap();
    assert!((there.distance_m.unwrap() % 100.0 - 25.0).abs() < 0.1, "{there:?}");
    // the same line without phase a cannot have the fault
    lines.get_mut(&line).unwrap().phases = Some([false, true, true]);
    assert!(locate_with(&lines).candidates.iter().all(|candidate| candidate.branch != line));
}

fn refusal(change: impl Fn(&mut Dataset, &mut FaultRecord, &mut LocateOptions)) -> String {
    let mut dataset = dataset(13, 2);
    let during = measure(&with_fault(&dataset, LINES + 3, 0.5, [true, false, false], 2.0));
    let mut record = record(measure(&dataset), during);
    let mut options = exact();
    change(&mut dataset, &mut record, &mut options);
    locate(&build(&dataset), &record, &options).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_used_is_refused_with_its_field() {
    let check = |change: &dyn Fn(&mut Dataset, &mut FaultRecord, &mut LocateOptions), expected: &str| {
        let text = refusal(change);
        assert!(text.contains(expected), "\"{text}\" does not say \"{expected}\"");
    };
    check(&|_, r, _| r.head.node = 4711, "head.node: 4711 names no node");
    check(&|_, r, _| r.head.branch = Some(4711), "head.branch: 4711 names no branch");
    check(&|_, r, _| r.head.branch = Some(LINES + 5), "does not end at node 0");
    check(&|_, r, _| r.before.voltage_v[1] *= 1e-3, "before.voltage.magnitude_v: 5.");
    check(&|_, r, _| r.before.voltage_v.swap(1, 2), "follow each other as a, c, b");
    check(&|_, r, _| r.during.current_a[0].re = f64::NAN, "during.current");
    check(&|_, r, _| r.during.voltage_v[2].im = f64::INFINITY, "during.voltage");
    check(&|_, r, _| r.during = r.before, "the fault is not on this feeder");
    check(
        &|_, r, _| r.during.current_a.swap(0, 1),
        "during.current: no fault where one is looked for explains it",
    );
    check(&|_, r, _| r.accuracy.current = 0.0, "accuracy.current: 0 is not usable");
    check(&|_, _, o| o.gasps = vec![4711], "gasps: 4711 names no node");
    check(&|_, _, o| o.resistance_max_ohm = f64::NAN, "resistance_max_ohm: NaN");
    check(&|_, _, o| _ = o.lines.insert(4711, LineFacts::default()), "lines.branch_id: 4711");
    let loop_back = |d: &mut Dataset| {
        let mut line = d["line"][4].clone();
        (line["id"], line["from_node"], line["to_node"]) = (json!(66_666), json!(2), json!(12));
        d["line"].as_array_mut().unwrap().push(line);
    };
    check(&|d, _, _| loop_back(d), "has a loop");
    let second = |d: &mut Dataset| {
        let mut source = d["source"][0].clone();
        (source["id"], source["node"]) = (json!(55_555), json!(9));
        d["source"].as_array_mut().unwrap().push(source);
    };
    check(&|d, _, _| second(d), "source 55555 feeds from beyond the head");
    check(
        &|d, _, _| {
            for key in ["r0", "x0"] {
                d["line"][2][key] = Value::Null;
            }
        },
        "line 10002: r0 is missing",
    );
    check(
        &|d, _, _| d["asym_load"][0]["p_specified"] = json!([null, null, null]),
        "p_specified is missing",
    );
    check(
        &|d, _, _| d["asym_load"][0]["p_specified"] = json!([1e12, 1e12, 1e12]),
        "before.current: the network's loads do not draw it",
    );
}

#[test]
fn a_record_that_cannot_be_read_says_what_to_give() {
    let check = |text: Value, expected: &str| {
        let error = FaultRecord::from_json(&text.to_string()).unwrap_err().to_string();
        assert!(error.contains(expected), "\"{error}\" does not say \"{expected}\"");
    };
    let phasors = json!({"voltage": {"magnitude_v": [1, 1, 1], "angle_rad": [0, -2, 2]}, "current": {"magnitude_a": [1, 1, 1], "angle_rad": [0, -2, 2]}});
    let head = json!({"node": 0});
    check(json!({"before": phasors, "during": phasors}), "missing field `head`");
    check(
        json!({"head": head, "before": phasors}),
        "give either both before and during, or waveform alone",
    );
    check(
        json!({"head": head, "before": phasors, "during": phasors, "extra": 1}),
        "unknown field `extra`",
    );
    check(
        json!({"head": head, "frequency_hz": 400, "before": phasors, "during": phasors}),
        "frequency_hz: 400",
    );
    let mut degrees = phasors.clone();
    degrees["voltage"]["angle_rad"][1] = json!(-120);
    check(
        json!({"head": head, "before": phasors, "during": degrees}),
        "during.voltage.angle_rad: -120 is no angle in radians",
    );
    let mut negative = phasors.clone();
    negative["current"]["magnitude_a"][2] = json!(-5);
    check(
        json!({"head": head, "before": negative, "during": phasors}),
        "before.current.magnitude_a: -5",
    );
    assert!(FaultRecord::from_json("[").is_err());
}

#[test]
fn a_waveform_gives_the_same_place_as_its_phasors() {
    let dataset = dataset(13, 4);
    let (before, during) = (
        measure(&dataset),
        measure(&with_fault(&dataset, LINES + 4, 0.3, [false, true, false], 3.0)),
    );
    let (n, start) = (32, 80);
    let mut random = Random::new(1);
    let mut sample = |before: flexmeter_grid::Complex<f64>, during: flexmeter_grid::Complex<f64>, has_offset: bool| -> Vec<f64> {
        let at = |x: flexmeter_grid::Complex<f64>, k: usize| {
            2f64.sqrt() * x.norm() * (std::f64::consts::TAU * k as f64 / n as f64 + x.arg()).cos()
        };
        // a current cannot jump: what is missing decays within some milliseconds
        let offset = if has_offset { at(before, start) - at(during, start) } else { 0.0 };
        let decay: f64 = 0.9 + 0.09 * random.uniform();
        (0..start + 3 * n)
            .map(|k| match k < start {
                true => at(before, k),
                false => at(during, k) + offset * decay.powi((k - start) as i32),
            })
            .collect()
    };
    let voltage: Vec<_> = (0..3).map(|k| sample(before.voltage_v[k], during.voltage_v[k], false)).collect();
    let current: Vec<_> = (0..3).map(|k| sample(before.current_a[k], during.current_a[k], true)).collect();
    let text = json!({
        "head": {"node": 0, "branch": HEAD_LINE}, "frequency_hz": 50,
        "waveform": {"samples_per_cycle": n, "voltage_v": voltage, "current_a": current},
    });
    let found = locate(&build(&dataset), &FaultRecord::from_json(&text.to_string()).unwrap(), &exact()).unwrap();
    let there = found.candidates.iter().find(|candidate| candidate.branch == LINES + 4).unwrap();
    assert_eq!(there.kind, FaultType::Bg);
    assert!(
        (there.share - 0.3).abs() < 1e-4 && (there.resistance_ohm - 3.0).abs() < 1e-3,
        "{there:?}"
    );
}
