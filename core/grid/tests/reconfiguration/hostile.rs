//! Grids and options that have no answer, or an odd one.

use flexmeter_grid::GridError;
use flexmeter_grid::reconfiguration::{Options, Reconfiguration, reconfigure};
use serde_json::{Value, json};

use crate::cases;

/// A ring of four nodes, its last line open; a function changes the dataset.
fn ring(change: impl Fn(&mut Value)) -> Value {
    let line = |id: i64, from: i64, to: i64, closed: u8| {
        json!({"id": id, "from_node": from, "to_node": to, "from_status": closed, "to_status": closed, "r1": 0.5, "x1": 0.4, "c1": 0.0,
            "tan1": 0.0})
    };
    let load = |id: i64, node: i64, p: f64| json!({"id": id, "node": node, "status": 1, "type": 0, "p_specified": p, "q_specified": 0.0});
    let nodes = [1, 2, 3, 4].map(|id| json!({"id": id, "u_rated": 10e3}));
    let mut data = json!({
        "node": nodes,
        "line": [line(11, 1, 2, 1), line(12, 2, 3, 1), line(13, 3, 4, 1), line(14, 4, 1, 0)],
        "source": [{"id": 21, "node": 1, "status": 1, "u_ref": 1.0, "sk": 1e16}],
        "sym_load": [load(31, 2, 0.5e6), load(32, 3, 0.5e6), load(33, 4, 2e6)],
    });
    change(&mut data);
    data
}

fn run(change: impl Fn(&mut Value), options: &Options) -> Result<Reconfiguration, GridError> {
    let network = cases::network(&ring(change));
    reconfigure(&network, &cases::lines_of(&network), options)
}

fn refused(change: impl Fn(&mut Value), options: &Options, expected: &str) {
    let error = run(change, options).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

const AS_IT_IS: fn(&mut Value) = |_| ();

#[test]
fn a_ring_opens_where_it_loses_least() {
    let found = run(AS_IT_IS, &Options::default()).unwrap();
    let mut loss_w = Vec::new();
    for open in 0..4 {
        let state = run(
            |data| {
                for at in 0..4 {
                    let closed = u8::from(at != open);
                    (data["line"][at]["from_status"], data["line"][at]["to_status"]) = (json!(closed), json!(closed));
                }
            },
            &Options::default(),
        );
        loss_w.push(state.unwrap().initial.loss_w);
    }
    let least = loss_w.iter().copied().fold(f64::INFINITY, f64::min);
    assert!((found.best.loss_w - least).abs() < 1e-3, "{} of {loss_w:?}", found.best.loss_w);
    assert_eq!(found.sequence.len(), 1);
}

#[test]
fn what_cannot_be_answered_says_why() {
    let options = Options::default();
    refused(
        |data| (data["line"][3]["from_status"], data["line"][3]["to_status"]) = (json!(1), json!(1)),
        &options,
        "branch 14 closes a loop, or joins two sources",
    );
    refused(
        |data| {
            let second = json!({"id": 22, "node": 4, "status": 1, "u_ref": 1.0});
            data["source"].as_array_mut().unwrap().push(second);
        },
        &options,
        "closes a loop, or joins two sources",
    );
    refused(|data| data["source"][0]["status"] = json!(0), &options, "no connected source");
    refused(
        |data| data["sym_load"][1]["p_specified"] = Value::Null,
        &options,
        "sym_load 32: p_specified is missing",
    );
    refused(
        |data| data["source"][0]["u_ref"] = Value::Null,
        &options,
        "source 21: u_ref is missing",
    );
    refused(
        |data| data["sym_load"][1]["p_specified"] = json!(1e12),
        &options,
        "did not converge",
    );
    let network = cases::network(&ring(AS_IT_IS));
    let error = reconfigure(&network, &[0, 4], &options).unwrap_err().to_string();
    assert_eq!(error, "switch 4 is no branch: the network has 4, numbered from 0");
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        options
    };
    let nan = f64::NAN;
    refused(AS_IT_IS, &with(&|o| o.voltage_pu = [nan, 1.1]), "voltage_min = NaN is not usable");
    refused(AS_IT_IS, &with(&|o| o.voltage_pu = [1.0, 0.9]), "voltage_max = 0.9 is not usable");
    refused(AS_IT_IS, &with(&|o| o.voltage_pu = [0.9, nan]), "voltage_max = NaN is not usable");
    refused(AS_IT_IS, &with(&|o| o.loading_max = 0.0), "loading_max = 0 is not usable");
    refused(AS_IT_IS, &with(&|o| o.n_kicks = Some(usize::MAX)), "at most 100000");
    refused(AS_IT_IS, &with(&|o| o.tolerance_pu = nan), "tolerance = NaN is not usable");
}

#[test]
fn without_switches_or_without_ties_everything_stays() {
    let network = cases::network(&ring(AS_IT_IS));
    let found = reconfigure(&network, &[], &Options::default()).unwrap();
    assert_eq!(found.best, found.initial);
    assert!(found.sequence.is_empty() && found.operations(&network).is_empty());
    let found = run(
        |data| {
            data["line"].as_array_mut().unwrap().pop();
        },
        &Options::default(),
    )
    .unwrap();
    assert!(found.sequence.is_empty());
    assert_eq!(found.saving_w(), 0.0);
}

#[test]
fn the_same_switch_named_twice_is_one_switch() {
    let network = cases::network(&ring(AS_IT_IS));
    let once = reconfigure(&network, &[0, 1, 2, 3], &Options::default()).unwrap();
    let twice = reconfigure(&network, &[3, 3, 0, 1, 1, 2], &Options::default()).unwrap();
    assert_eq!(once, twice);
}

#[test]
fn a_grid_without_load_has_nothing_to_gain() {
    let found = run(|data| data["sym_load"] = json!([]), &Options::default()).unwrap();
    assert_eq!((found.initial.loss_w, found.sequence.len()), (0.0, 0));
}

#[test]
fn a_start_that_violates_limits_is_led_towards_them() {
    // 3 MVA along the ring pull the last node down; by the short way they do not
    let options = Options {
        voltage_pu: [0.98, 1.1],
        ..Options::default()
    };
    let found = run(AS_IT_IS, &options).unwrap();
    assert!(!found.initial.voltage_violations.is_empty());
    assert!(found.best.keeps_limits(), "{:?}", found.best);
}

#[test]
fn a_current_limit_stands_in_the_way_of_the_least_losses() {
    let free = run(AS_IT_IS, &Options::default()).unwrap();
    assert!(free.best.open.iter().all(|&open| open != 3));
    // 2 MW at 10 kV are 115 A
    let tight = run(|data| data["line"][3]["i_n"] = json!(100.0), &Options::default()).unwrap();
    assert_eq!(tight.best, tight.initial);
    assert!(!tight.d4_6.unwrap().keeps_limits(), "the tree of D4.6 knows no limits");
}
