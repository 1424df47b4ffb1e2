//! At every epoch, what the engine holds is what a recomputation from scratch gives: by plain lists and scans, and, for the views, by
//! differential's own `reduce` over the accepted readings.
#![allow(clippy::unwrap_used)]

mod answer;
mod generator;
mod naive;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;

use answer::{Answer, assert_same_map, cell_text, reading_text};
use differential_dataflow::input::InputSession;
use flexmeter_dataflows::{Engine, EngineConfig, WINDOW_US};
use flexmeter_model::outcome::ProfileCell;
use flexmeter_model::{EventTime, Identifier};
use generator::{Entry, HOUR, Rng};
use naive::Accepted;

const N_SEEDS: u64 = 12;
const N_RECORDS: usize = 300;
const EPOCH_LEN_MAX: u64 = 25;

#[test]
fn at_every_epoch_the_answer_is_the_plain_recomputation() {
    for seed in 0..N_SEEDS {
        // Windows leave memory here, and come back.
        let retention_us = if seed % 2 == 0 {
            2 * HOUR
        } else {
            EngineConfig::default().profile_retention_us
        };
        let config = EngineConfig {
            profile_retention_us: retention_us,
            ..EngineConfig::default()
        };
        let log = generator::log(seed, N_RECORDS, config.n_partitions);
        for (end, found) in answers(&log, &config, seed) {
            let (expected, _) = naive::recompute(&log[..end], &config);
            found.assert_same(expected, &format!("seed {seed}, after {end} records"));
        }
    }
}

#[test]
fn at_every_epoch_the_views_are_what_differential_reduces() {
    for seed in 100..100 + N_SEEDS {
        // Nothing leaves memory: `reduce` knows no log time.
        let config = EngineConfig {
            profile_retention_us: 100_000 * HOUR,
            ..EngineConfig::default()
        };
        let log = generator::log(seed, N_RECORDS, config.n_partitions);
        let answers = answers(&log, &config, seed);
        let ends: Vec<_> = answers.iter().map(|(end, _)| *end).collect();
        let (_, readings) = naive::recompute(&log, &config);
        let positions: BTreeMap<_, _> = log
            .iter()
            .enumerate()
            .map(|(at, entry)| ((entry.partition, entry.offset), at))
            .collect();
        let arrives_at = |reading: &Accepted| positions[&(reading.partition, reading.offset)];
        for ((end, found), (latest, profile)) in answers.into_iter().zip(reduced(&readings, arrives_at, &ends)) {
            let what = format!("seed {seed}, after {end} records");
            assert_same_map(&found.latest, &latest, &what, "latest");
            assert_same_map(&found.profile, &profile, &what, "profile");
        }
    }
}

/// Runs the engine over a log cut at random; its answer after each epoch, with the number of records read.
fn answers(log: &[Entry], config: &EngineConfig, seed: u64) -> Vec<(usize, Answer)> {
    let mut rng = Rng::new(seed);
    let config = EngineConfig {
        n_workers: 1 + (seed % 3) as usize,
        ..config.clone()
    };
    let (sender, closed) = sync_channel(4);
    let mut engine = Engine::start(config, Vec::new(), sender).unwrap();
    let mut answers: Vec<(usize, Answer)> = Vec::new();
    let mut at = 0;
    while at < log.len() {
        let end = (at + 1 + rng.below(EPOCH_LEN_MAX) as usize).min(log.len());
        engine
            .feed(answers.len() as u64 + 1, generator::blocks(&log[at..end], &mut rng))
            .unwrap();
        let mut answer = answers.last().map(|(_, answer)| answer.clone()).unwrap_or_default();
        answer.take(closed.recv().unwrap());
        answers.push((end, answer));
        at = end;
    }
    engine.shutdown().unwrap();
    answers
}

type View = BTreeMap<String, String>;
/// Event time, place in the log and value (as bits): sorted by what makes a reading the newest. The place is the offset and, because
/// a batch has several events at one offset, the reading's number.
type Value = (i64, (u64, usize), u64);

/// The views after each epoch, by differential `reduce`; epoch `i` ends with record `ends[i]`.
fn reduced(readings: &[Accepted], arrives_at: impl Fn(&Accepted) -> usize, ends: &[usize]) -> Vec<(View, View)> {
    let keyed: Vec<(usize, (String, i64, usize), Value)> = readings
        .iter()
        .enumerate()
        .map(|(number, reading)| {
            let start = reading.event_time.div_euclid(WINDOW_US) * WINDOW_US;
            let key = (reading.device.clone(), start, reading.identifier.index());
            (
                arrives_at(reading),
                key,
                (reading.event_time, (reading.offset, number), reading.value.to_bits()),
            )
        })
        .collect();
    let ends = ends.to_vec();
    timely::execute_directly(move |worker| {
        let latest = Rc::new(RefCell::new(View::new()));
        let profile = Rc::new(RefCell::new(View::new()));
        let mut input = InputSession::<u64, ((String, i64, usize), Value), isize>::new();
        let probe = worker.dataflow(|scope| {
            let readings = input.to_collection(scope);
            let by_quantity = readings
                .clone()
                .map(|((device, _, identifier), value)| ((device, identifier), value));
            let newest = by_quantity.reduce(|_, values, output| {
                output.extend(values.iter().map(|(value, _)| **value).max().map(|newest| (newest, 1)));
            });
            let sink = latest.clone();
            let newest = newest.inspect(move |(((device, identifier), (time, _, bits)), _, difference)| {
                let key = format!("{device} {}", name(*identifier));
                apply(&mut sink.borrow_mut(), key, reading_text(*time, f64::from_bits(*bits)), *difference);
            });
            let cells = readings.reduce(|_, values, output| output.push((cell(values.iter().map(|(value, n)| (**value, *n))), 1)));
            let sink = profile.clone();
            let cells = cells.inspect(move |(((device, start, identifier), cell), _, difference)| {
                apply(
                    &mut sink.borrow_mut(),
                    format!("{device} {start} {}", name(*identifier)),
                    cell.clone(),
                    *difference,
                );
            });
            let (probe, _) = cells.map(|_| ()).concat(newest.map(|_| ())).probe();
            probe
        });
        let mut views = Vec::new();
        let mut begin = 0;
        for (epoch, end) in ends.into_iter().enumerate() {
            let arrived = keyed.iter().filter(|(at, _, _)| (begin..end).contains(at));
            arrived.for_each(|(_, key, value)| input.insert((key.clone(), *value)));
            input.advance_to(epoch as u64 + 1);
            input.flush();
            worker.step_while(|| probe.less_than(input.time()));
            views.push((latest.borrow().clone(), profile.borrow().clone()));
            begin = end;
        }
        views
    })
}

fn name(identifier: usize) -> &'static str {
    Identifier::from_index(identifier as u8).unwrap().name()
}

/// Additions and removals of one epoch come in any order.
fn apply(view: &mut View, key: String, row: String, difference: isize) {
    if difference > 0 {
        view.insert(key, row);
    } else if view.get(&key) == Some(&row) {
        view.remove(&key);
    }
}

fn cell(values: impl Iterator<Item = (Value, isize)> + Clone) -> String {
    let numbers = || {
        values
            .clone()
            .flat_map(|((_, _, bits), n)| std::iter::repeat_n(f64::from_bits(bits), n as usize))
    };
    let n = numbers().count();
    let (last_time, _, last) = values.clone().map(|(value, _)| value).max().unwrap();
    let generation = values.clone().map(|((_, (offset, _), _), _)| offset).min().unwrap();
    cell_text(&ProfileCell {
        generation,
        n: n as u64,
        mean: numbers().sum::<f64>() / n as f64,
        min: numbers().fold(f64::INFINITY, f64::min),
        max: numbers().fold(f64::NEG_INFINITY, f64::max),
        last: f64::from_bits(last),
        last_time: EventTime::from_micros(last_time),
    })
}
