//! A valid dataset with anything changed: an answer or an error, never a panic, a hang or a number that is none.

use std::time::{Duration, Instant};

use flexmeter_grid::GridError;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use serde_json::{Value, json};

use crate::feeder;
use crate::small_grid::{Data, read, rows, small_grid};
use crate::solve::{Solved, search_bad_data};

/// Six calculations of a small grid, with room for a busy machine.
const CASE_SECONDS_MAX: u64 = 5;

/// Values nobody means: zeros, signs, the ends of the number range, what JSON says instead of a number, wrong types and lengths.
fn extremes() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(1),
        json!(2),
        json!(0.5),
        json!(-0.0),
        json!(1e-300),
        json!(-1e-300),
        json!(1e300),
        json!(-1e300),
        json!(1e-160),
        json!(1e160),
        json!(1e-30),
        json!(1e30),
        json!(1e-9),
        json!(1e9),
        json!(-1e9),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!("inf"),
        json!("-inf"),
        json!("nan"),
        json!(null),
        json!("text"),
        json!(""),
        json!({}),
        json!({"a": [1]}),
        json!([]),
        json!([1]),
        json!([1, 2, 3]),
        json!([0, 0, 0]),
        json!([-1, 0, 1]),
        json!([null, 1, 1]),
        json!([null, null, null]),
        json!(["inf", 1, 1]),
        json!([1e-300, 1e-300, 1e-300]),
        json!([1e300, -1e300, 0]),
        json!([1e160, 1e160, 1e160]),
        json!([1, 2, 3, 4]),
        json!([[1, 2, 3], 1, 1]),
        json!(true),
        json!(false),
    ]
}

/// Whether reading the dataset and solving it gives answers or errors, in time; else what it gives.
fn outcome(data: &Data) -> Result<(), String> {
    let start = Instant::now();
    let wrong = match read(data) {
        // an error that names nothing helps nobody
        Err(error) => match error.to_string() {
            text if text.len() < 20 => vec![format!("an error that says nothing: {text}")],
            _ => Vec::new(),
        },
        Ok(network) => {
            let mut wrong = Solved::new(&network).wrong();
            for result in [search_bad_data::<1, 4>(&network), search_bad_data::<3, 12>(&network)] {
                if let Err(error) = result
                    && !matches!(
                        error,
                        GridError::NotConverged { .. } | GridError::Singular { .. } | GridError::MissingAttribute { .. }
                    )
                {
                    wrong.push(format!("an error that has no place in an estimate: {error}"));
                }
            }
            wrong
        }
    };
    let elapsed = start.elapsed();
    match (wrong.is_empty(), elapsed < Duration::from_secs(CASE_SECONDS_MAX)) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("it took {elapsed:?}")),
        (false, _) => Err(wrong.join("\n    ")),
    }
}

/// One change of a dataset; the numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Change {
    /// Component type, row, attribute, value.
    Set(usize, usize, usize, usize),
    /// Component type, row, attribute.
    Drop(usize, usize, usize),
    /// The ids of two rows of two component types change places.
    SwapIds((usize, usize), (usize, usize)),
    /// Component type, row: it stands there twice, with a new id or with the same.
    Duplicate(usize, usize, bool),
    /// Component type, row.
    Remove(usize, usize),
    /// A number is multiplied by a power of ten: component type, row, attribute, exponent.
    Scale(usize, usize, usize, i32),
}

fn change() -> impl Strategy<Value = Change> {
    let place = || (0..17_usize, 0..64_usize, 0..32_usize);
    prop_oneof![
        6 => (place(), 0..64_usize).prop_map(|((c, r, a), v)| Change::Set(c, r, a, v)),
        4 => (place(), -12..=12_i32).prop_map(|((c, r, a), e)| Change::Scale(c, r, a, e)),
        2 => place().prop_map(|(c, r, a)| Change::Drop(c, r, a)),
        1 => (place(), place()).prop_map(|(a, b)| Change::SwapIds((a.0, a.1), (b.0, b.1))),
        1 => (place(), any::<bool>()).prop_map(|((c, r, _), new)| Change::Duplicate(c, r, new)),
        1 => place().prop_map(|(c, r, _)| Change::Remove(c, r)),
    ]
}

impl Change {
    fn apply(&self, data: &mut Data) {
        match *self {
            Self::Set(component, row, attribute, value) => {
                if let Some(place) = cell(data, component, row, attribute) {
                    let values = extremes();
                    *place = values[value % values.len()].clone();
                }
            }
            Self::Scale(component, row, attribute, exponent) => {
                if let Some(place) = cell(data, component, row, attribute) {
                    scale(place, 10f64.powi(exponent));
                }
            }
            Self::Drop(component, row, attribute) => {
                if let Some(row) = self::row(data, component, row) {
                    let names: Vec<String> = row.keys().cloned().collect();
                    if !names.is_empty() {
                        row.remove(&names[attribute % names.len()]);
                    }
                }
            }
            Self::SwapIds(a, b) => {
                let mut id = |at: (usize, usize)| row(data, at.0, at.1).and_then(|row| row.get("id").cloned());
                if let (Some(first), Some(second)) = (id(a), id(b)) {
                    for (at, id) in [(a, second), (b, first)] {
                        if let Some(row) = row(data, at.0, at.1) {
                            row["id"] = id;
                        }
                    }
                }
            }
            Self::Duplicate(component, row, new_id) => {
                if let Some(mut copy) = self::row(data, component, row).cloned() {
                    if new_id {
                        copy.insert("id".to_owned(), json!(900_000 + row));
                    }
                    if let Some(table) = table(data, component) {
                        table.push(Value::Object(copy));
                    }
                }
            }
            Self::Remove(component, row) => {
                if let Some(table) = table(data, component)
                    && !table.is_empty()
                {
                    let n = table.len();
                    table.remove(row % n);
                }
            }
        }
    }
}

fn table(data: &mut Data, component: usize) -> Option<&mut Vec<Value>> {
    let names: Vec<String> = data.keys().cloned().collect();
    let name = names.get(component % names.len().max(1))?;
    Some(rows(data, name))
}

fn row(data: &mut Data, component: usize, row: usize) -> Option<&mut Data> {
    let table = table(data, component)?;
    let n = table.len();
    table.get_mut(row % n.max(1))?.as_object_mut()
}

fn cell(data: &mut Data, component: usize, row: usize, attribute: usize) -> Option<&mut Value> {
    let row = self::row(data, component, row)?;
    let names: Vec<String> = row.keys().cloned().collect();
    row.get_mut(names.get(attribute % names.len().max(1))?)
}

fn scale(value: &mut Value, factor: f64) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| scale(value, factor)),
        value => {
            if let Some(number) = value.as_f64() {
                *value = json!(number * factor);
            }
        }
    }
}

/// A random feeder with sensors, or the small grid with one of everything.
fn base(kind: u8, n_nodes: usize, n_loops: usize, seed: u64) -> Data {
    match kind {
        0 => small_grid(),
        1 => {
            let mut data = feeder::network(n_nodes, n_loops, false, seed);
            feeder::add_sensors::<1>(&mut data, seed);
            data
        }
        _ => {
            let mut data = feeder::network(n_nodes, n_loops, true, seed);
            feeder::add_sensors::<3>(&mut data, seed);
            data
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/proptest-regressions/hostile/mutations.txt"
        )))),
        // the same cases each time: a failure is one of the change that shows it
        rng_seed: RngSeed::Fixed(20_261_123),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_changed_there_is_an_answer_or_an_error(
        kind in 0..3_u8,
        (n_nodes, n_loops, seed) in (3..9_usize, 0..3_usize, 0..50_u64),
        changes in proptest::collection::vec(change(), 1..4),
    ) {
        let mut data = base(kind, n_nodes, n_loops, seed);
        changes.iter().for_each(|change| change.apply(&mut data));
        if let Err(wrong) = outcome(&data) {
            prop_assert!(false, "{}\n    {}", wrong, Value::Object(data));
        }
    }
}

#[test]
fn every_attribute_takes_every_extreme_value_or_says_why_not() {
    let mut failures = Vec::new();
    for (component, table) in &small_grid() {
        for attribute in table[0].as_object().unwrap().keys() {
            for value in extremes() {
                let data = crate::small_grid::changed(component, attribute, value.clone());
                if let Err(wrong) = outcome(&data) {
                    failures.push(format!("{component}.{attribute} = {value}: {wrong}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} values:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_attribute_can_be_left_out_or_is_asked_for() {
    for (component, table) in &small_grid() {
        for attribute in table[0].as_object().unwrap().keys() {
            let data = crate::small_grid::without(component, attribute);
            if let Err(wrong) = outcome(&data) {
                panic!("{component} without {attribute}: {wrong}");
            }
            if let Err(error) = read(&data) {
                let text = error.to_string();
                // what refers to a row without id is told that the row is not there
                assert!(
                    text.contains(attribute) || attribute == "id",
                    "{component} without {attribute}: {text}"
                );
            }
        }
    }
}

#[test]
fn text_that_is_cut_off_anywhere_is_refused_and_bytes_that_change_do_no_harm() {
    let text = crate::small_grid::text(&small_grid());
    for end in 0..text.len() {
        let Some(part) = text.get(..end) else { continue };
        assert!(flexmeter_grid::network::Network::from_pgm_json(part).is_err(), "cut at {end}");
    }
    let mut random = feeder::Random::new(1);
    for _ in 0..3_000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = b"0123456789-+.eE\"[]{},:nul \\x"[random.below(28)];
        }
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(network) = flexmeter_grid::network::Network::from_pgm_json(&text)
        {
            let wrong = Solved::new(&network).wrong();
            assert!(wrong.is_empty(), "{}\n{text}", wrong.join("\n"));
        }
    }
}
