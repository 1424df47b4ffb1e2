//! Odd grids that have an answer, and what the answer is.

use flexmeter_grid::GridError;
use flexmeter_grid::network::{N_NODES_MAX, Network};
use flexmeter_grid::power_flow::{Method, Options, PowerFlow};
use serde_json::{Value, json};

use crate::feeder::{self, Random};
use crate::small_grid::{Data, changed, read, rows, small_grid, text};
use crate::solve::{Answer, C64, Solved, Voltages, estimate, power_flow, within};

/// All calculations give an answer of finite numbers.
#[track_caller]
fn check(data: &Data) -> Solved {
    let solved = check_finite(data);
    let errors = solved.errors();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    solved
}

/// All calculations give finite numbers or an error.
#[track_caller]
fn check_finite(data: &Data) -> Solved {
    let solved = Solved::new(&read(data).unwrap());
    let wrong = solved.wrong();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    solved
}

/// All four kinds of voltage at a node, for comparison; NaN without supply.
fn at(solved: &Solved, node: usize) -> Vec<C64> {
    fn of<const N: usize>(answer: &Result<Answer<N>, GridError>, node: usize) -> Vec<C64> {
        answer.as_ref().unwrap().voltages[node].map_or(vec![C64::from(f64::NAN); N], |u| u.to_vec())
    }
    let (flow, estimate) = (of(&solved.symmetric_flow, node), of(&solved.symmetric_estimate, node));
    [
        flow,
        of(&solved.asymmetric_flow, node),
        estimate,
        of(&solved.asymmetric_estimate, node),
    ]
    .concat()
}

/// Largest distance of voltages, per unit; where one has supply and the other has not it is infinite.
fn distance<const N: usize>(a: &Voltages<N>, b: &Voltages<N>) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).map(|pair| match pair {
        (Some(a), Some(b)) => (0..N).map(|k| (a[k] - b[k]).norm()).fold(0.0, f64::max),
        (None, None) => 0.0,
        _ => f64::INFINITY,
    });
    pairs.fold(0.0, |worst, next| if next <= worst { worst } else { next })
}

/// Both datasets have the same voltages in all calculations.
#[track_caller]
fn check_same(a: &Data, b: &Data, tolerance_pu: f64) {
    let (a, b) = (check(a), check(b));
    let distances = [
        distance(&a.symmetric_flow.unwrap().voltages, &b.symmetric_flow.unwrap().voltages),
        distance(&a.asymmetric_flow.unwrap().voltages, &b.asymmetric_flow.unwrap().voltages),
        distance(&a.symmetric_estimate.unwrap().voltages, &b.symmetric_estimate.unwrap().voltages),
        distance(&a.asymmetric_estimate.unwrap().voltages, &b.asymmetric_estimate.unwrap().voltages),
    ];
    assert!(distances.iter().all(|&distance| distance <= tolerance_pu), "{distances:?}");
}

/// Nodes of 10 kV with a source at node 0; lines, loads and sensors come on top.
fn nodes(n: usize) -> Data {
    let mut data = Data::new();
    for id in 0..n {
        rows(&mut data, "node").push(json!({"id": id, "u_rated": 10e3}));
    }
    rows(&mut data, "source").push(json!({"id": 900_000, "node": 0, "status": 1, "u_ref": 1}));
    data
}

fn add_line(data: &mut Data, from: usize, to: usize, r_ohm: f64, x_ohm: f64) {
    let id = 100_000 + rows(data, "line").len();
    rows(data, "line").push(json!({
        "id": id, "from_node": from, "to_node": to, "from_status": 1, "to_status": 1, "r1": r_ohm, "x1": x_ohm, "r0": 3.0 * r_ohm,
        "x0": 3.0 * x_ohm, "c1": 1e-9, "c0": 1e-9,
    }));
}

fn add_link(data: &mut Data, from: usize, to: usize) {
    let id = 200_000 + rows(data, "link").len();
    rows(data, "link").push(json!({"id": id, "from_node": from, "to_node": to, "from_status": 1, "to_status": 1}));
}

/// A load with its id.
fn add_load(data: &mut Data, node: usize, p_w: f64) -> usize {
    let id = 300_000 + rows(data, "sym_load").len();
    rows(data, "sym_load").push(json!({"id": id, "node": node, "status": 1, "type": 0, "p_specified": p_w, "q_specified": 0.3 * p_w}));
    id
}

fn add_power_sensor(data: &mut Data, load: usize, p_w: f64, sigma_w: f64) {
    let id = 400_000 + rows(data, "sym_power_sensor").len();
    rows(data, "sym_power_sensor").push(json!({
        "id": id, "measured_object": load, "measured_terminal_type": 4, "power_sigma": sigma_w, "p_measured": p_w, "q_measured": 0.3 * p_w,
    }));
}

fn add_voltage_sensor(data: &mut Data, node: usize, u_v: f64) {
    let id = 500_000 + rows(data, "sym_voltage_sensor").len();
    rows(data, "sym_voltage_sensor").push(json!({"id": id, "measured_object": node, "u_sigma": 50, "u_measured": u_v}));
}

// What is missing.

#[test]
fn an_empty_dataset_has_no_voltages() {
    let solved = check(&Data::new());
    assert!(solved.symmetric_flow.unwrap().voltages.is_empty() && solved.asymmetric_estimate.unwrap().voltages.is_empty());
    assert_eq!(
        Network::from_pgm_json(r#"{"data":{"node":[],"line":[]},"type":"input"}"#)
            .unwrap()
            .nodes()
            .len(),
        0
    );
}

#[test]
fn without_a_source_nothing_has_a_voltage() {
    for status in [Value::Null, json!(0)] {
        let mut data = small_grid();
        match status.is_null() {
            true => drop(data.remove("source")),
            false => rows(&mut data, "source")[0]["status"] = status,
        }
        let solved = check(&data);
        assert_eq!(solved.symmetric_flow.unwrap().voltages, vec![None; 5]);
        assert_eq!(solved.asymmetric_estimate.unwrap().voltages, vec![None; 5]);
    }
}

#[test]
fn a_single_node_has_the_voltage_of_its_source() {
    let data = nodes(1);
    for u in at(&check(&data), 0).iter().take(2) {
        assert!((u - C64::ONE).norm() < 1e-12);
    }
    let mut data = nodes(1);
    rows(&mut data, "source").clear();
    assert_eq!(check(&data).symmetric_flow.unwrap().voltages, [None]);
}

#[test]
fn a_grid_in_pieces_is_solved_where_it_has_supply() {
    let mut data = nodes(7);
    add_line(&mut data, 0, 1, 0.2, 0.1);
    add_line(&mut data, 2, 3, 0.2, 0.1);
    add_line(&mut data, 4, 5, 0.2, 0.1);
    rows(&mut data, "source").push(json!({"id": 900_001, "node": 5, "status": 1, "u_ref": 1.05}));
    for node in 1..7 {
        let load = add_load(&mut data, node, 1e5);
        add_power_sensor(&mut data, load, 1e5, 1e3);
        add_voltage_sensor(&mut data, node, 10e3);
    }
    let solved = check(&data);
    let has_supply = |voltages: &Voltages<1>| voltages.iter().map(Option::is_some).collect::<Vec<_>>();
    let expected = [true, true, false, false, true, true, false];
    assert_eq!(has_supply(&solved.symmetric_flow.unwrap().voltages), expected);
    assert_eq!(has_supply(&solved.symmetric_estimate.unwrap().voltages), expected);
}

#[test]
fn sensors_and_loads_without_supply_are_no_trouble() {
    // everything behind the transformer is cut off: loads, generators, the shunt and most sensors
    for (attribute, value) in [("from_status", json!(0)), ("to_status", json!(0))] {
        let solved = check(&changed("transformer", attribute, value));
        assert_eq!(solved.symmetric_flow.unwrap().voltages[2..], [None, None, None]);
    }
    let mut data = small_grid();
    for component in ["sym_load", "sym_gen", "asym_load", "asym_gen", "shunt"] {
        rows(&mut data, component)[0]["status"] = json!(0);
    }
    check(&data);
    for (terminal, object) in [(2, 10), (3, 15), (4, 11), (5, 14), (9, 4), (0, 8), (1, 8), (1, 7)] {
        for source_status in [1, 0] {
            let mut data = small_grid();
            let sensor = &mut rows(&mut data, "sym_power_sensor")[0];
            (sensor["measured_terminal_type"], sensor["measured_object"]) = (json!(terminal), json!(object));
            (sensor["p_measured"], sensor["q_measured"]) = (json!(0), json!(0));
            rows(&mut data, "source")[0]["status"] = json!(source_status);
            check_finite(&data);
        }
    }
}

#[test]
fn an_estimate_without_sensors_is_there_and_says_that_it_does_not_know() {
    let mut data = small_grid();
    for kind in ["sym", "asym"] {
        for quantity in ["voltage", "power", "current"] {
            data.remove(&format!("{kind}_{quantity}_sensor"));
        }
    }
    check(&data);
    for n_nodes in [1, 2, 3, 10, 50] {
        for n_loops in [0, 2] {
            for asymmetric in [false, true] {
                let n_loops = if n_nodes > 2 { n_loops } else { 0 };
                let data = feeder::network(n_nodes, n_loops, asymmetric, 7);
                check(&data);
            }
        }
    }
}

#[test]
fn sensors_that_are_off_or_silent_count_for_nothing() {
    let mut without = small_grid();
    let (mut infinite, mut silent, mut huge) = (small_grid(), small_grid(), small_grid());
    for (component, sigmas, readings) in [
        (
            "sym_power_sensor",
            &["power_sigma", "p_sigma", "q_sigma"][..],
            &["p_measured", "q_measured"][..],
        ),
        (
            "asym_current_sensor",
            &["i_sigma", "i_angle_sigma"],
            &["i_measured", "i_angle_measured"],
        ),
        ("asym_voltage_sensor", &["u_sigma"], &["u_measured"]),
    ] {
        without.remove(component);
        for sigma in sigmas {
            rows(&mut infinite, component)[0][*sigma] = json!("inf");
            rows(&mut huge, component)[0][*sigma] = json!(1e300);
        }
        for reading in readings {
            rows(&mut silent, component)[0][*reading] = Value::Null;
        }
    }
    let of = |data: &Data| check_finite(data).symmetric_estimate.map(|answer| answer.voltages);
    let expected = of(&without).unwrap();
    for (data, what) in [(&infinite, "infinite"), (&silent, "silent"), (&huge, "huge")] {
        let distance = distance(&of(data).unwrap(), &expected);
        assert!(distance < 1e-7, "{what}: {distance:.1e}");
    }
}

#[test]
fn sensors_that_say_the_same_are_one_good_sensor() {
    const N: usize = 100;
    fn feeder_with<const M: usize>() -> Data {
        let mut data = feeder::network(10, 1, M == 3, 4);
        feeder::add_sensors::<M>(&mut data, 4);
        data
    }
    for data in [feeder_with::<1>(), feeder_with::<3>()] {
        let (mut many, mut one) = (data.clone(), data);
        for component in ["sym_voltage_sensor", "asym_voltage_sensor", "sym_power_sensor", "asym_power_sensor"] {
            for sensor in many.get(component).and_then(Value::as_array).cloned().unwrap_or_default() {
                for k in 1..N {
                    let mut twin = sensor.clone();
                    twin["id"] = json!(1_000 * sensor["id"].as_i64().unwrap() + k as i64);
                    rows(&mut many, component).push(twin);
                }
            }
            for sensor in rows(&mut one, component) {
                for sigma in ["u_sigma", "p_sigma", "q_sigma", "power_sigma"] {
                    let better = |sigma: &Value| json!(sigma.as_f64().unwrap() / (N as f64).sqrt());
                    if let Some(sigma) = sensor.get_mut(sigma) {
                        *sigma = match sigma.as_array() {
                            Some(phases) => phases.iter().map(better).collect(),
                            None => better(sigma),
                        };
                    }
                }
            }
        }
        check_same(&many, &one, 1e-7);
    }
}

#[test]
fn a_feeder_whose_meters_partly_fail_is_estimated() {
    fn failures<const N: usize, const B: usize>(n_nodes: usize, n_loops: usize) -> Vec<String> {
        let mut failures = Vec::new();
        for seed in 0..40 {
            let mut data = feeder::network(n_nodes, n_loops, N == 3, seed);
            feeder::add_sensors::<N>(&mut data, seed);
            let mut random = Random::new(seed + 77);
            let working = random.uniform();
            for component in ["sym_voltage_sensor", "asym_voltage_sensor", "sym_power_sensor", "asym_power_sensor"] {
                rows(&mut data, component).retain(|_| random.uniform() < working);
            }
            let what = format!(
                "{N} phases, {n_nodes} nodes, {n_loops} loops, seed {seed}, {:.0} % of the sensors work",
                100.0 * working
            );
            match estimate::<N, B>(&feeder::build(&data)) {
                Ok(answer) => failures.extend(answer.verdict().map(|verdict| format!("{what}: {verdict}"))),
                Err(error) => failures.push(format!("{what}: {error}")),
            }
        }
        failures
    }
    let failures = [
        failures::<1, 4>(3, 0),
        failures::<1, 4>(20, 0),
        failures::<1, 4>(20, 2),
        failures::<3, 12>(5, 0),
        failures::<3, 12>(20, 2),
    ]
    .concat();
    // loads that nothing tells of can leave the iteration without an answer, which it then says; known: 3 of 200
    let (silent, said): (Vec<&String>, Vec<&String>) = failures.iter().partition(|failure| !failure.contains("did not converge"));
    assert!(silent.is_empty(), "{silent:#?}");
    assert!(said.len() <= 4, "{} of 200: {said:#?}", said.len());
}

#[test]
fn one_meter_less_than_needed_and_voltages_that_disagree_by_half_a_percent_have_an_estimate() {
    let mut data = nodes(3);
    for node in 1..3 {
        add_line(&mut data, node - 1, node, 0.2, 0.1);
    }
    let metered = add_load(&mut data, 1, 1e5);
    add_load(&mut data, 2, 1e5);
    add_power_sensor(&mut data, metered, 1e5, 1e4);
    for (node, u) in [(0, 9_875.0), (1, 10_004.0), (2, 9_899.0)] {
        add_voltage_sensor(&mut data, node, u);
    }
    check(&data);
}

// Loads.

#[test]
fn without_load_every_node_has_the_voltage_of_the_source() {
    let mut open = nodes(5);
    let mut zero = nodes(5);
    for data in [&mut open, &mut zero] {
        for node in 1..5 {
            add_line(data, node - 1, node, 0.2, 0.1);
            rows(data, "line")[node - 1]["c1"] = json!(0);
        }
    }
    for node in 1..5 {
        add_load(&mut open, node, 1e6);
        rows(&mut open, "sym_load")[node - 1]["status"] = json!(0);
        add_load(&mut zero, node, 0.0);
    }
    for data in [open, zero] {
        let voltages = check(&data).symmetric_flow.unwrap().voltages;
        assert!(voltages.iter().all(|u| (u.unwrap()[0] - C64::ONE).norm() < 1e-12));
    }
}

#[test]
fn a_load_that_no_grid_can_carry_is_an_error_in_time() {
    let failures = within(10, || {
        let mut failures = Vec::new();
        for p in [1e9, -1e9, 1e12, 1e20, 1e30, -1e30, 1e100, 1e200, 1e300, -1e300, f64::MAX] {
            for kind in 0..3 {
                let mut data = nodes(3);
                add_line(&mut data, 0, 1, 0.2, 0.1);
                add_line(&mut data, 1, 2, 0.2, 0.1);
                add_load(&mut data, 2, p);
                rows(&mut data, "sym_load")[0]["type"] = json!(kind);
                let network = match read(&data) {
                    Ok(network) => network,
                    // beyond what any grid has ever carried the reader may say no
                    Err(error) if p.abs() > 1e30 && error.to_string().contains("p_specified") => continue,
                    Err(error) => panic!("{p:e} W of type {kind}: {error}"),
                };
                let solved = Solved::new(&network);
                failures.extend(solved.wrong().into_iter().map(|wrong| format!("{p:e} W of type {kind}: {wrong}")));
                // a generator of any size has a voltage, at least in theory
                if kind != 0 || p < 0.0 {
                    continue;
                }
                match solved.symmetric_flow {
                    Err(error @ GridError::NotConverged { .. }) => {
                        let text = error.to_string();
                        assert!(
                            text.contains("the loads are most likely more than the grid can carry"),
                            "{p:e} W: {text}"
                        );
                    }
                    other => failures.push(format!("{p:e} W: {other:?}")),
                }
            }
        }
        failures
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn one_island_without_a_solution_does_not_hide_behind_another() {
    let mut failures = Vec::new();
    for (component, attribute, value) in [
        ("sym_load", "p_specified", json!(1e30)),
        ("sym_load", "p_specified", json!(1e300)),
        ("line", "r1", json!(1e300)),
        ("line", "x1", json!(1e200)),
        ("line", "c1", json!(1e300)),
        ("source", "u_ref", json!(1e-200)),
        ("source", "sk", json!(1e-300)),
    ] {
        for island in 0..2 {
            let mut data = nodes(4);
            rows(&mut data, "source").push(json!({"id": 900_001, "node": 2, "status": 1, "u_ref": 1}));
            for from in [0, 2] {
                add_line(&mut data, from, from + 1, 0.2, 0.1);
                add_load(&mut data, from + 1, 1e5);
            }
            rows(&mut data, component)[island][attribute] = value.clone();
            let Ok(network) = read(&data) else { continue };
            for method in [Method::Auto, Method::Sweep, Method::Newton] {
                if let Ok(answer) = power_flow::<1>(&network, method) {
                    let u = &answer.voltages[2 * island + 1];
                    failures.push(format!("{component}.{attribute} = {value} in island {island}, {method:?}: {u:?}"));
                }
            }
            failures.extend(Solved::new(&network).wrong());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_voltage_that_has_collapsed_is_no_solution() {
    // a load of constant power cannot be fed at next to no voltage, whatever has short-circuited or cut it off
    let mut failures = Vec::new();
    for (component, attribute, value) in [
        ("source", "sk", json!(1e-9)),
        ("source", "u_ref", json!(1e-9)),
        ("line", "r1", json!(1e18)),
        ("line", "c1", json!(1e9)),
        ("shunt", "g1", json!(1e9)),
        ("shunt", "b1", json!(-1e12)),
    ] {
        let mut data = nodes(2);
        add_line(&mut data, 0, 1, 0.2, 0.1);
        add_load(&mut data, 1, 1e5);
        rows(&mut data, "shunt").push(json!({"id": 700_000, "node": 1, "status": 1, "g1": 0, "b1": 0, "g0": 0, "b0": 0}));
        rows(&mut data, component)[0][attribute] = value.clone();
        let Ok(network) = read(&data) else { continue };
        for method in [Method::Sweep, Method::Newton, Method::Auto] {
            if let Ok(answer) = power_flow::<1>(&network, method) {
                let u = answer.voltages[1].unwrap()[0].norm();
                failures.push(format!(
                    "{component}.{attribute} = {value}, {method:?}: {u:.1e} per unit at a load of 100 kW"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

// Branches.

#[test]
fn every_pair_of_windings_with_every_clock_is_refused_or_solved() {
    let mut n_solved = 0;
    for from in 0..5 {
        for to in 0..5 {
            for clock in -13..=13 {
                let mut data = small_grid();
                let transformer = &mut rows(&mut data, "transformer")[0];
                (transformer["winding_from"], transformer["winding_to"], transformer["clock"]) = (json!(from), json!(to), json!(clock));
                match read(&data) {
                    Err(error) => assert!(
                        error
                            .to_string()
                            .starts_with(&format!("transformer 7: clock = {clock} is not usable; ")),
                        "{error}"
                    ),
                    Ok(network) => {
                        let solved = Solved::new(&network);
                        assert!(solved.wrong().is_empty(), "{from} {to} {clock}: {:?}", solved.wrong());
                        // the lines' capacitance grounds what the windings do not
                        assert!(
                            solved.symmetric_flow.is_ok() && solved.asymmetric_flow.is_ok(),
                            "{from} {to} {clock}: {:?}",
                            solved.errors()
                        );
                        n_solved += 1;
                    }
                }
            }
        }
    }
    assert!(n_solved > 25 * 12, "{n_solved}");
}

#[test]
fn a_tap_beyond_its_range_stays_at_the_end_as_in_power_grid_model() {
    let at = |tap_pos: i64| {
        let data = changed("transformer", "tap_pos", json!(tap_pos));
        check(&data).symmetric_flow.unwrap().voltages
    };
    assert_eq!(at(5), at(2));
    assert_eq!(at(-30_000), at(-2));
    assert_ne!(at(2), at(-2));
}

#[test]
fn transformers_with_odd_nameplates_give_finite_numbers_or_errors() {
    let mut failures = Vec::new();
    for attribute in [
        "uk_min",
        "uk_max",
        "pk_min",
        "pk_max",
        "pk",
        "i0",
        "p0",
        "i0_zero_sequence",
        "p0_zero_sequence",
        "uk",
        "sn",
        "u1",
        "u2",
    ] {
        for value in [0.0, 1e-12, 1e-3, 1.0, 10.0, 1e6, 1e12, -0.04] {
            for tap_pos in [-2, 0, 1, 2] {
                let mut data = changed("transformer", attribute, json!(value));
                rows(&mut data, "transformer")[0]["tap_pos"] = json!(tap_pos);
                if let Ok(network) = read(&data) {
                    let wrong = Solved::new(&network).wrong();
                    failures.extend(
                        wrong
                            .into_iter()
                            .map(|wrong| format!("{attribute} = {value:e}, tap {tap_pos}: {wrong}")),
                    );
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_voltage_behind_a_line_of_any_length_is_that_of_the_formula() {
    // u (1 - u) = p r = 0.09 in per unit of 10 kV, the source's own resistance included
    let expected = 0.9;
    for r in [1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9] {
        let mut data = nodes(2);
        rows(&mut data, "source")[0]["rx_ratio"] = json!(1e6);
        add_line(&mut data, 0, 1, r, 0.0);
        rows(&mut data, "line")[0]["c1"] = json!(0);
        add_load(&mut data, 1, 0.09 * 1e6 / (r / 100.0 + 1e6 / 1e10));
        rows(&mut data, "sym_load")[0]["q_specified"] = json!(0);
        let network = read(&data).unwrap();
        for method in [Method::Auto, Method::Newton] {
            let answer = power_flow::<1>(&network, method).unwrap_or_else(|error| panic!("{r} ohm, {method:?}: {error}"));
            assert_eq!(answer.verdict(), None);
            let u = answer.voltages[1].unwrap()[0];
            assert!((u.norm() - expected).abs() < 1e-6, "{r} ohm, {method:?}: {u}");
        }
    }
}

#[test]
fn per_unit_voltages_do_not_depend_on_the_rated_voltage() {
    let scaled = |u_rated: f64| {
        let mut data = nodes(4);
        let factor = (u_rated / 10e3).powi(2);
        for node in 1..4 {
            add_line(&mut data, node - 1, node, 0.2 * factor, 0.1 * factor);
            rows(&mut data, "line")[node - 1]["c1"] = json!(1e-9 / factor);
            rows(&mut data, "line")[node - 1]["c0"] = json!(1e-9 / factor);
            let load = add_load(&mut data, node, 1e5);
            add_power_sensor(&mut data, load, 1e5, 1e3);
        }
        add_voltage_sensor(&mut data, 0, u_rated);
        rows(&mut data, "sym_voltage_sensor")[0]["u_sigma"] = json!(u_rated / 200.0);
        rows(&mut data, "node").iter_mut().for_each(|node| node["u_rated"] = json!(u_rated));
        data
    };
    for u_rated in [1e-6, 1e-3, 1.0, 1e6, 1e9] {
        check_same(&scaled(u_rated), &scaled(10e3), 1e-9);
    }
}

#[test]
fn parallel_links_are_one_link() {
    let with_links = |n: usize| {
        let mut data = nodes(3);
        add_line(&mut data, 0, 1, 0.2, 0.1);
        (0..n).for_each(|_| add_link(&mut data, 1, 2));
        let load = add_load(&mut data, 2, 1e6);
        add_power_sensor(&mut data, load, 1e6, 1e4);
        add_voltage_sensor(&mut data, 0, 10e3);
        data
    };
    check_same(&with_links(2), &with_links(1), 1e-7);
    check_same(&with_links(100), &with_links(1), 1e-7);
}

#[test]
fn a_ring_of_links_is_one_busbar() {
    let mut data = nodes(102);
    add_line(&mut data, 0, 1, 0.2, 0.1);
    for node in 1..=100 {
        add_link(&mut data, node, node % 100 + 1);
    }
    add_line(&mut data, 50, 101, 0.2, 0.1);
    for node in [25, 75, 101] {
        let load = add_load(&mut data, node, 1e5);
        add_power_sensor(&mut data, load, 1e5, 1e3);
    }
    add_voltage_sensor(&mut data, 0, 10e3);
    let voltages = check(&data).symmetric_flow.unwrap().voltages;
    let spread = (1..=100)
        .map(|node| (voltages[node].unwrap()[0] - voltages[1].unwrap()[0]).norm())
        .fold(0.0, f64::max);
    assert!(spread < 1e-7, "{spread:.1e}");
}

/// A source, a cable, a link and a meter behind it.
fn house_connection(r_ohm: f64, n_links: usize) -> Data {
    let n = n_links + 2;
    let p_w = 0.05 * 400.0 * 400.0 / r_ohm;
    let mut data = nodes(n);
    rows(&mut data, "node").iter_mut().for_each(|node| node["u_rated"] = json!(400));
    add_line(&mut data, 0, 1, r_ohm, 0.0);
    (1..n - 1).for_each(|node| add_link(&mut data, node, node + 1));
    let load = add_load(&mut data, n - 1, p_w);
    add_power_sensor(&mut data, load, p_w, p_w / 100.0);
    add_voltage_sensor(&mut data, 0, 400.0);
    rows(&mut data, "sym_voltage_sensor")[0]["u_sigma"] = json!(2);
    data
}

#[test]
fn a_link_behind_a_long_cable_is_no_trouble() {
    let mut failures = Vec::new();
    for r in [0.16, 0.5, 1.6, 5.0, 16.0] {
        let solved = check_finite(&house_connection(r, 1));
        failures.extend(solved.errors().into_iter().map(|error| format!("{r} ohm: {error}")));
    }
    failures.extend(check_finite(&house_connection(0.5, 10)).errors());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn reactances_that_cancel_have_no_answer() {
    let mut data = nodes(2);
    add_line(&mut data, 0, 1, 0.0, 0.5);
    add_line(&mut data, 0, 1, 0.0, -0.5);
    for line in rows(&mut data, "line") {
        (line["c1"], line["c0"]) = (json!(0), json!(0));
    }
    let errors = check_finite(&data).errors();
    assert_eq!(errors.len(), 6, "{errors:?}");
    for error in errors.iter().filter(|error| error.starts_with("symmetric")) {
        assert!(
            error.contains("has no unique answer at node 1; check the impedances of its branches"),
            "{error}"
        );
        assert!(!error.contains("zero sequence"), "a symmetric calculation has none: {error}");
    }
}

#[test]
fn a_source_as_stiff_as_can_be_is_a_fixed_voltage() {
    let of = |sk: f64, method| {
        let mut data = feeder::network(30, 2, false, 6);
        (rows(&mut data, "source")[0]["sk"], rows(&mut data, "source")[0]["u_ref"]) = (json!(sk), json!(1));
        power_flow::<1>(&feeder::build(&data), method).map(|answer| answer.voltages)
    };
    let expected = of(1e20, Method::Sweep).unwrap();
    let mut failures = Vec::new();
    for sk in [1e17, 1e18, 1e19, 1e20, 1e22, 1e25] {
        for method in [Method::Auto, Method::Sweep, Method::Newton] {
            let distance = of(sk, method).map(|voltages| distance(&voltages, &expected));
            if !matches!(distance, Ok(distance) if distance < 1e-7) {
                failures.push(format!("{sk:e} VA, {method:?}: {distance:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

// Readings.

#[test]
fn a_current_of_zero_is_a_reading_like_any_other() {
    let mut data = nodes(3);
    add_line(&mut data, 0, 1, 0.2, 0.1);
    add_line(&mut data, 1, 2, 0.2, 0.1);
    for node in 1..3 {
        let p = [1e5, 0.0][node - 1];
        let load = add_load(&mut data, node, p);
        add_power_sensor(&mut data, load, p, 1e3);
    }
    add_voltage_sensor(&mut data, 0, 10e3);
    let expected = check(&data);
    // the second line carries nothing but its charging current
    let mut failures = Vec::new();
    for (component, zero) in [("sym_current_sensor", json!(0)), ("asym_current_sensor", json!([0, 0, 0]))] {
        for angle in [zero.clone(), Value::Null] {
            for kind in [0, 1] {
                for to_status in [1, 0] {
                    let mut data = data.clone();
                    rows(&mut data, component).push(json!({
                        "id": 1_000, "measured_object": 100_001, "measured_terminal_type": 0, "angle_measurement_type": kind, "i_sigma": 1,
                        "i_angle_sigma": 0.02, "i_measured": zero, "i_angle_measured": angle,
                    }));
                    rows(&mut data, "line")[1]["to_status"] = json!(to_status);
                    let solved = check_finite(&data);
                    let what = format!("{component}, angle {angle} of kind {kind}, far end {to_status}");
                    failures.extend(solved.errors().into_iter().map(|error| format!("{what}: {error}")));
                    if let (Ok(a), Ok(b)) = (&solved.symmetric_estimate, &expected.symmetric_estimate) {
                        let distance = (a.voltages[1].unwrap()[0] - b.voltages[1].unwrap()[0]).norm();
                        assert!(distance < 1e-5, "{what}: {distance:.1e}");
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn readings_far_from_anything_give_finite_numbers_or_errors() {
    let mut failures = Vec::new();
    for (component, attributes) in [
        ("sym_voltage_sensor", &["u_measured", "u_angle_measured", "u_sigma"][..]),
        ("sym_power_sensor", &["p_measured", "q_measured", "power_sigma", "p_sigma"]),
        (
            "sym_current_sensor",
            &["i_measured", "i_angle_measured", "i_sigma", "i_angle_sigma"],
        ),
    ] {
        for attribute in attributes {
            for value in [
                0.0, 1e-300, 1e-160, 1e-30, 1e-6, 1.0, 1e6, 1e12, 1e30, 1e100, 1e150, 1e155, 1e200, 1e300,
            ] {
                if let Ok(network) = read(&changed(component, attribute, json!(value))) {
                    let wrong = Solved::new(&network).wrong();
                    failures.extend(
                        wrong
                            .into_iter()
                            .map(|wrong| format!("{component}.{attribute} = {value:e}: {wrong}")),
                    );
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn an_island_whose_only_voltage_reading_is_zero_gives_finite_numbers_or_an_error() {
    let mut data = nodes(3);
    add_line(&mut data, 0, 1, 0.2, 0.1);
    add_line(&mut data, 1, 2, 0.2, 0.1);
    let load = add_load(&mut data, 2, 1e5);
    add_power_sensor(&mut data, load, 1e5, 1e3);
    add_voltage_sensor(&mut data, 2, 0.0);
    check_finite(&data);
}

// Size.

/// A tree of 10 kV nodes with a metered load at each.
fn tree(n: usize, load_kind: u8, parent: impl Fn(usize) -> usize) -> String {
    let list = |row: &dyn Fn(usize) -> String| (1..n).map(row).collect::<Vec<_>>().join(",");
    let nodes = list(&|i| format!("[{i},10000]"));
    let lines = list(&|i| format!("[{},{},{i},1,1,2e-4,1e-4,1e-11,0,6e-4,3e-4,1e-11,0]", 1_000_000 + i, parent(i)));
    let loads = list(&|i| format!("[{},{i},1,{load_kind},10,3]", 2_000_000 + i));
    let sensors = list(&|i| format!("[{},{},4,1,10,3]", 3_000_000 + i, 2_000_000 + i));
    format!(
        r#"{{"type":"input","attributes":{{"node":["id","u_rated"],"line":["id","from_node","to_node","from_status","to_status","r1","x1",
        "c1","tan1","r0","x0","c0","tan0"],"sym_load":["id","node","status","type","p_specified","q_specified"],
        "sym_power_sensor":["id","measured_object","measured_terminal_type","power_sigma","p_measured","q_measured"]}},
        "data":{{"node":[[0,10000],{nodes}],"line":[{lines}],"sym_load":[{loads}],"sym_power_sensor":[{sensors}],
        "source":[{{"id":9000000,"node":0,"status":1,"u_ref":1}}],
        "sym_voltage_sensor":[{{"id":9000001,"measured_object":0,"u_sigma":50,"u_measured":10000}}]}}}}"#
    )
}

fn check_large(text: String) {
    within(30, move || {
        let network = Network::from_pgm_json(&text).unwrap();
        let solved = Solved::new(&network);
        let (wrong, errors) = (solved.wrong(), solved.errors());
        assert!(wrong.is_empty() && errors.is_empty(), "{wrong:?} {errors:?}");
    });
}

#[test]
fn twenty_thousand_nodes_in_a_row_need_no_deep_stack() {
    check_large(tree(20_000, 0, |node| node - 1));
}

#[test]
fn twenty_thousand_nodes_around_one_need_no_square_of_time() {
    check_large(tree(20_000, 0, |_| 0));
}

#[test]
fn newtons_method_needs_no_square_of_time_for_loads_that_follow_the_voltage() {
    within(3, || {
        let network = Network::from_pgm_json(&tree(10_000, 2, |_| 0)).unwrap();
        assert_eq!(power_flow::<3>(&network, Method::Newton).unwrap().verdict(), None);
    });
}

#[test]
fn many_meters_at_the_source_need_no_square_of_time() {
    const N: usize = 3_000;
    within(3, || {
        let mut data = nodes(1);
        for node in 1..N {
            rows(&mut data, "node").push(json!({"id": node, "u_rated": 10e3}));
            add_line(&mut data, node - 1, node, 2e-4, 1e-4);
            let load = add_load(&mut data, 0, 10.0);
            add_power_sensor(&mut data, load, 10.0, 1.0);
        }
        add_voltage_sensor(&mut data, 0, 10e3);
        assert_eq!(estimate::<3, 12>(&read(&data).unwrap()).unwrap().verdict(), None);
    });
}

#[test]
fn every_node_connected_with_every_other_is_solved() {
    let mut data = nodes(60);
    for from in 0..60 {
        for to in from + 1..60 {
            add_line(&mut data, from, to, 20.0, 10.0);
        }
        let load = add_load(&mut data, from, 1e4);
        add_power_sensor(&mut data, load, 1e4, 1e2);
    }
    add_voltage_sensor(&mut data, 0, 10e3);
    within(20, move || drop(check(&data)));
}

#[test]
fn a_meshed_grid_is_solved_in_time_or_refused() {
    // no distribution grid, but nothing says so: two lines from each node to any earlier ones
    const N: usize = 6_000;
    within(10, || {
        let mut random = Random::new(5);
        let mut data = nodes(N);
        for node in 1..N {
            for _ in 0..2 {
                add_line(&mut data, random.below(node), node, 0.2, 0.1);
            }
        }
        let network = Network::from_pgm_json(&text(&data)).unwrap();
        if let Err(error) = PowerFlow::<1>::new(&network).and_then(|mut flow| flow.solve(&Options::default())) {
            assert!(matches!(error, GridError::TooLarge { .. }), "{error}");
        }
    });
    const { assert!(N < N_NODES_MAX) };
}
