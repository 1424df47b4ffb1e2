//! Errors say which component, which attribute, which value, and what to do.

use flexmeter_grid::GridError;
use flexmeter_grid::network::{N_NODES_MAX, Network};
use serde_json::{Value, json};

use crate::small_grid::{Data, changed, read, rows, small_grid, without};
use crate::solve::{Solved, within};

/// The text of the error that reading gives.
#[track_caller]
fn check(data: &Data, expected: &str) {
    match read(data) {
        Ok(_) => panic!("it was read, expected: {expected}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

/// How the text of the error that reading gives begins.
#[track_caller]
fn check_start(data: &Data, expected: &str) {
    match read(data) {
        Ok(_) => panic!("it was read, expected: {expected}"),
        Err(error) => assert!(error.to_string().starts_with(expected), "{error}\nexpected: {expected}"),
    }
}

/// An attribute of the small grid's first row of a component type, a value, and the text of the error.
#[track_caller]
fn check_value(component: &str, attribute: &str, value: Value, expected: &str) {
    check(&changed(component, attribute, value), expected);
}

/// A part of the text of the error that a text gives.
#[track_caller]
fn check_text(text: &str, expected: &str) {
    match Network::from_pgm_json(text) {
        Ok(network) => panic!("read, with {} nodes; expected: {expected}", network.nodes().len()),
        Err(error) => assert!(error.to_string().contains(expected), "{error}\nexpected: {expected}"),
    }
}

#[test]
fn values_that_cannot_be_used_are_named_with_what_can() {
    check_value(
        "node",
        "u_rated",
        json!(0),
        "node 1: u_rated = 0 is not usable; give a finite number above zero",
    );
    check_value(
        "node",
        "u_rated",
        json!("inf"),
        "node 1: u_rated = inf is not usable; give a finite number above zero",
    );
    check_value("node", "u_rated", json!("nan"), "node 1: u_rated is missing; give it a value");
    check_value(
        "node",
        "u_rated",
        json!([1, 2, 3]),
        "node 1: u_rated = 1 is not usable; give one number, not one for each phase",
    );
    check_value("node", "id", json!(1.5), "node -1: id = 1.5 is not usable; give a whole number");
    check_value(
        "line",
        "r1",
        json!(-0.5),
        "line 6: r1 = -0.5 is not usable; give a finite number that is not negative",
    );
    check_value("line", "x1", json!("-inf"), "line 6: x1 = -inf is not usable; give a finite number");
    check_value("line", "c1", json!("inf"), "line 6: c1 = inf is not usable; give a finite number");
    check_value(
        "line",
        "from_status",
        json!(2),
        "line 6: from_status = 2 is not usable; 0 is open, 1 is closed",
    );
    check_value(
        "link",
        "to_status",
        json!(0.5),
        "link 8: to_status = 0.5 is not usable; 0 is open, 1 is closed",
    );
    check_value(
        "transformer",
        "sn",
        json!(-4e5),
        "transformer 7: sn = -400000 is not usable; give a finite number above zero",
    );
    check_value(
        "transformer",
        "uk",
        json!(0),
        "transformer 7: uk = 0 is not usable; give a finite number other than zero",
    );
    check_value(
        "transformer",
        "pk",
        json!(-1),
        "transformer 7: pk = -1 is not usable; give a finite number that is not negative",
    );
    check_value(
        "transformer",
        "tap_pos",
        json!(1e6),
        "transformer 7: tap_pos = 1000000 is not usable; give a small whole number",
    );
    check_value(
        "transformer",
        "tap_pos",
        json!(0.5),
        "transformer 7: tap_pos = 0.5 is not usable; give a whole number",
    );
    check_value(
        "transformer",
        "tap_side",
        json!(2),
        "transformer 7: tap_side = 2 is not usable; 0 is the from side, 1 the to side",
    );
    check_value(
        "transformer",
        "clock",
        json!(4),
        "transformer 7: clock = 4 is not usable; -12 to 12; even between windings of one kind (and delta with zigzag), else odd",
    );
    check_value(
        "transformer",
        "winding_from",
        json!(7),
        "transformer 7: winding_from = 7 is not usable; 0 is wye, 1 wye with neutral, 2 delta, 3 zigzag, 4 zigzag with neutral",
    );
    check_value(
        "source",
        "u_ref",
        json!(-1),
        "source 10: u_ref = -1 is not usable; give a voltage per unit, near 1",
    );
    check_value(
        "source",
        "sk",
        json!(0),
        "source 10: sk = 0 is not usable; give a finite number above zero",
    );
    check_value(
        "source",
        "rx_ratio",
        json!(-1),
        "source 10: rx_ratio = -1 is not usable; give a finite number that is not negative",
    );
    check_value(
        "shunt",
        "g1",
        json!("inf"),
        "shunt 15: g1 = inf is not usable; give a finite number",
    );
    check_value(
        "sym_load",
        "type",
        json!(3),
        "sym_load 11: type = 3 is not usable; 0 is constant power, 1 constant impedance, 2 constant current",
    );
    check_value(
        "sym_load",
        "p_specified",
        json!("inf"),
        "sym_load 11: p_specified = inf is not usable; give a finite number",
    );
    check_value(
        "sym_gen",
        "q_specified",
        json!([1, 2, 3]),
        "sym_gen 12: q_specified = 1 is not usable; give one number, not one for each phase",
    );
    check_value(
        "asym_load",
        "p_specified",
        json!(5),
        "asym_load 13: p_specified = 5 is not usable; give three numbers, one for each phase",
    );
    check_value(
        "asym_gen",
        "p_specified",
        json!([1, "-inf", 1]),
        "asym_gen 14: p_specified = -inf is not usable; give a finite number",
    );
    let sigma = "give a standard deviation of at least 1e-12; \"inf\" switches a sensor off";
    check_value(
        "sym_voltage_sensor",
        "u_sigma",
        json!(0),
        &format!("sym_voltage_sensor 16: u_sigma = 0 is not usable; {sigma}"),
    );
    check_value(
        "sym_power_sensor",
        "power_sigma",
        json!(-1),
        &format!("sym_power_sensor 18: power_sigma = -1 is not usable; {sigma}"),
    );
    check_value(
        "asym_power_sensor",
        "q_sigma",
        json!([1, 0, 1]),
        &format!("asym_power_sensor 19: q_sigma = 0 is not usable; {sigma}"),
    );
    check_value(
        "asym_voltage_sensor",
        "u_measured",
        json!([230, -230, 230]),
        "asym_voltage_sensor 17: u_measured = -230 is not usable; give a finite number that is not negative",
    );
    check_value(
        "sym_current_sensor",
        "angle_measurement_type",
        json!(2),
        "sym_current_sensor 20: angle_measurement_type = 2 is not usable; 0 is local, 1 global",
    );
    check_value(
        "asym_current_sensor",
        "measured_terminal_type",
        json!(6),
        "asym_current_sensor 21: measured_terminal_type = 6 is not usable; 0 is branch_from, 1 branch_to, 2 source, 3 shunt, 4 load, 5 \
         generator, 9 node",
    );
}

#[test]
fn references_that_lead_nowhere_are_named() {
    check_value(
        "line",
        "to_node",
        json!(77),
        "line 6: to_node = 77 names no node; add it, or correct the reference",
    );
    check_value(
        "line",
        "from_node",
        json!(8),
        "line 6: from_node = 8 names no node; add it, or correct the reference",
    );
    check_value(
        "sym_load",
        "node",
        json!(-3),
        "sym_load 11: node = -3 names no node; add it, or correct the reference",
    );
    let no_branch = "names no line, transformer or link; add it, or correct the reference";
    check_value(
        "sym_power_sensor",
        "measured_object",
        json!(13),
        &format!("sym_power_sensor 18: measured_object = 13 {no_branch}"),
    );
    check_value(
        "asym_power_sensor",
        "measured_terminal_type",
        json!(5),
        "asym_power_sensor 19: measured_object = 13 names no generator; add it, or correct the reference",
    );
    let mut data = changed("sym_current_sensor", "measured_terminal_type", json!(4));
    rows(&mut data, "sym_current_sensor")[0]["measured_object"] = json!(11);
    check(
        &data,
        "sym_current_sensor 20: measured_terminal_type = 4 is not usable; a current is measured at an end of a branch: 0 is branch_from, \
         1 branch_to",
    );
}

#[test]
fn ids_are_used_once_and_branches_join_two_nodes_of_one_voltage() {
    check_value(
        "line",
        "id",
        json!(1),
        "id 1 is used twice, by a node and a line; ids are unique over all component types",
    );
    check_value(
        "sym_load",
        "id",
        json!(7),
        "id 7 is used twice, by a sym_load and a transformer; ids are unique over all component types",
    );
    let mut data = small_grid();
    let twin = rows(&mut data, "node")[1].clone();
    rows(&mut data, "node").push(twin);
    check(
        &data,
        "id 2 is used twice, by a node and a node; ids are unique over all component types",
    );
    check_value(
        "line",
        "to_node",
        json!(1),
        "line 6 connects node 1 with itself; a branch needs two different nodes",
    );
    check_value(
        "transformer",
        "from_node",
        json!(3),
        "transformer 7 connects node 3 with itself; a branch needs two different nodes",
    );
    check_value(
        "link",
        "to_node",
        json!(3),
        "link 8 connects node 3 with itself; a branch needs two different nodes",
    );
    check_value(
        "line",
        "to_node",
        json!(3),
        "line 6 connects node 1 (10000 V) with node 3 (400 V); put a transformer between different rated voltages",
    );
    let mut data = changed("line", "r1", json!(0));
    rows(&mut data, "line")[0]["x1"] = json!(0);
    check(
        &data,
        "line 6: x1 = 0 is not usable; with a resistance of zero, too, this is a link: use one",
    );
}

#[test]
fn what_is_left_out_is_asked_for() {
    for (component, attribute, id) in [
        ("node", "u_rated", 1),
        ("line", "from_node", 6),
        ("line", "x1", 6),
        ("line", "to_status", 6),
        ("transformer", "clock", 7),
        ("transformer", "i0", 7),
        ("link", "from_status", 8),
        ("source", "status", 10),
        ("sym_load", "type", 11),
        ("asym_gen", "node", 14),
        ("shunt", "b1", 15),
        ("asym_voltage_sensor", "measured_object", 17),
        ("sym_power_sensor", "measured_terminal_type", 18),
    ] {
        check(
            &without(component, attribute),
            &format!("{component} {id}: {attribute} is missing; give it a value"),
        );
    }
}

/// What only a calculation needs is asked for by that calculation.
#[track_caller]
fn check_missing(data: &Data, expected: &str, n_calculations: usize) {
    let errors = Solved::new(&read(data).unwrap()).errors();
    assert_eq!(errors.len(), n_calculations, "{errors:?}");
    for error in errors {
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn what_only_some_calculations_need_is_asked_for_by_those() {
    let mut data = without("line", "r0");
    rows(&mut data, "line")[0].as_object_mut().unwrap().remove("x0");
    check_missing(&data, "line 6: r0 is missing; give it a value", 3);
    let mut data = without("shunt", "g0");
    rows(&mut data, "shunt")[0].as_object_mut().unwrap().remove("b0");
    check_missing(&data, "shunt 15: g0 is missing; give it a value", 3);
    check_missing(&without("source", "u_ref"), "source 10: u_ref is missing; give it a value", 4);
    check_missing(
        &without("asym_gen", "p_specified"),
        "asym_gen 14: p_specified is missing; give it a value",
        4,
    );
    check_missing(
        &changed("asym_load", "q_specified", json!([1, null, 1])),
        "asym_load 13: q_specified is missing; give it a value",
        4,
    );
}

#[test]
fn text_that_is_no_dataset_is_refused_with_line_and_column() {
    check_text("", "EOF while parsing a value at line 1 column 0");
    check_text("\u{feff}{}", "expected value at line 1 column 1");
    check_text("[]", "expected an object with version, type, is_batch, attributes and data");
    check_text("{}", "missing field `data`");
    check_text(r#"{"type":"input","data":{}} x"#, "trailing characters at line 1 column 28");
    check_text(
        r#"{"type":"sym_output","data":{}}"#,
        "the dataset has type \"sym_output\", expected \"input\"",
    );
    check_text(
        r#"{"type":"input","data":{"nodes":[]}}"#,
        "component type nodes is not supported; leave it out, or replace it by node, line",
    );
    check_text(
        r#"{"type":"input","data":{"node":{"id":1}}}"#,
        "expected an array of node components",
    );
    check_text(
        r#"{"type":"input","data":{"node":[1]}}"#,
        "expected one node as object or, with predefined attributes, as array",
    );
    check_text(
        r#"{"type":"input","data":{"node":[{"id":1,"volts":1}]}}"#,
        "node has no attribute volts; it has id, u_rated",
    );
    check_text(
        r#"{"type":"input","data":{"node":[{"id":1,"u_rated":1e999}]}}"#,
        "number out of range at line 1 column",
    );
    check_text(
        r#"{"type":"input","data":{"node":[{"id":1,"u_rated":NaN}]}}"#,
        "expected value at line 1 column",
    );
    check_text(
        r#"{"type":"input","data":{"node":[{"id":1,"u_rated":"high"}]}}"#,
        "invalid value: string \"high\"",
    );
    let short = r#"{"type":"input","attributes":{"node":["id","u_rated"]},"data":{"node":[[1]]}}"#;
    check_text(short, "a row is shorter than its predefined attributes");
    let long = r#"{"type":"input","attributes":{"node":["id","u_rated"]},"data":{"node":[[1,400,1]]}}"#;
    check_text(long, "a row of node is longer than its predefined attributes");
    let unknown = r#"{"type":"input","attributes":{"node":["id","volts"]},"data":{"node":[[1,2]]}}"#;
    check_text(unknown, "node has no attribute volts; it has id, u_rated");
}

#[test]
fn nesting_without_end_does_not_overflow_the_stack() {
    const N: usize = 2_000_000;
    let deep = format!("{}{}", "[".repeat(N), "]".repeat(N));
    check_text(&deep, "invalid type: sequence");
    check_text(&"[".repeat(N), "invalid type: sequence");
    check_text(
        &format!(r#"{{"type":"input","data":{{"node":[{{"id":{deep}}}]}}}}"#),
        "recursion limit exceeded",
    );
    check_text(
        &format!(r#"{{"type":"input","data":{}"#, r#"{"node":"#.repeat(N)),
        "EOF while parsing",
    );
    check_text(
        &format!(r#"{{"type":"input","attributes":{}"#, r#"{"node":"#.repeat(N)),
        "invalid type: map",
    );
    // what nobody asks for may be anything
    let unread = format!(r#"{{"type":"input","user":{deep},"data":{{}}}}"#);
    assert_eq!(Network::from_pgm_json(&unread).unwrap().nodes().len(), 0);
}

#[test]
fn an_input_dataset_is_no_batch() {
    check_text(r#"{"type":"input","data":[]}"#, "input");
    check_text(
        r#"{"type":"input","is_batch":true,"data":[{},{"node":[{"id":1,"u_rated":400}]}]}"#,
        "batch",
    );
}

#[test]
fn errors_fit_on_a_line_whatever_the_value() {
    for value in [1e300, -1e300, 1e-300, 0.1 + 0.2] {
        for (component, attribute) in [
            ("node", "id"),
            ("line", "from_status"),
            ("sym_load", "type"),
            ("transformer", "clock"),
        ] {
            let error = read(&changed(component, attribute, json!(value))).unwrap_err().to_string();
            assert!(error.len() < 250, "{} characters: {error}", error.len());
        }
    }
}

#[test]
fn a_tap_beyond_the_rated_voltage_is_refused() {
    // two steps of 6 kV down from 10 kV: the ratio turns negative
    let mut data = changed("transformer", "tap_size", json!(6e3));
    rows(&mut data, "transformer")[0]["tap_pos"] = json!(-2);
    check_start(&data, "transformer 7: tap_size = 6000 is not usable; ");
    // exactly to zero
    rows(&mut data, "transformer")[0]["tap_size"] = json!(5e3);
    check_start(&data, "transformer 7: tap_size = 5000 is not usable; ");
}

#[test]
fn standard_deviations_too_small_for_arithmetic_are_refused_by_name() {
    for (component, attribute, value) in [
        ("sym_voltage_sensor", "u_sigma", json!(1e-300)),
        ("sym_power_sensor", "p_sigma", json!(1e-300)),
        ("asym_power_sensor", "q_sigma", json!([1e-300, 1, 1])),
        ("sym_current_sensor", "i_sigma", json!(1e-300)),
    ] {
        let data = changed(component, attribute, value);
        let errors = match read(&data) {
            Err(error) => vec![error.to_string()],
            Ok(network) => {
                let solved = Solved::new(&network);
                assert!(solved.wrong().is_empty(), "{component}: {:?}", solved.wrong());
                solved.errors()
            }
        };
        for error in errors {
            assert!(error.contains("sigma"), "{component}.{attribute}: {error}");
        }
    }
}

#[test]
fn more_than_the_limit_is_refused_before_it_is_kept() {
    use std::fmt::Write as _;
    const N_NODES: usize = 10_000_000;
    let error = within(20, || {
        let mut text = String::with_capacity(30 * N_NODES);
        text.push_str(r#"{"version":"1.0","type":"input","is_batch":false,"attributes":{},"data":{"node":["#);
        for id in 0..N_NODES {
            let comma = if id == 0 { "" } else { "," };
            write!(text, r#"{comma}{{"id":{id},"u_rated":400}}"#).unwrap();
        }
        text.push_str("]}}");
        Network::from_pgm_json(&text).unwrap_err()
    });
    let GridError::TooLarge { what, n, n_max } = &error else {
        panic!("{error}")
    };
    assert!(what.starts_with("node") && *n > N_NODES_MAX, "{error}");
    assert_eq!(*n_max, N_NODES_MAX, "the limit of a network is named, not that of a table: {error}");
}

#[test]
fn one_node_more_than_the_limit_is_refused() {
    let nodes: Vec<String> = (0..=N_NODES_MAX).map(|id| format!("[{id},400]")).collect();
    let text = format!(
        r#"{{"type":"input","attributes":{{"node":["id","u_rated"]}},"data":{{"node":[{}]}}}}"#,
        nodes.join(",")
    );
    let expected = format!("the dataset has {} nodes; at most {N_NODES_MAX} are supported", N_NODES_MAX + 1);
    check_text(&text, &expected);
}
