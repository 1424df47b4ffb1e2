//! Any schedule, the same answer: however a log is cut into epochs and blocks, however many workers read it, and wherever the engine
//! is stopped and started again from a checkpoint, the rows, views, totals and counts are those of the plain recomputation.
//!
//! A failure names the seed; `check(seed)` repeats it.
#![allow(clippy::unwrap_used)]

mod answer;
mod generator;
mod naive;

use std::sync::mpsc::{Receiver, sync_channel};

use answer::{Answer, assert_same_map};
use flexmeter_dataflows::{Engine, EngineConfig, PartitionSnapshot};
use flexmeter_model::outcome::ClosedEpoch;
use generator::{Entry, HOUR, MINUTE, Rng};

const N_SEEDS: u64 = 45;
const N_SCHEDULES: u64 = 2;

#[test]
fn any_schedule_gives_the_answer_of_the_plain_recomputation() {
    for seed in 0..N_SEEDS {
        check(seed);
    }
}

fn check(seed: u64) {
    let config = config(seed);
    let log = generator::log(seed, 200 + seed as usize * 20, config.n_partitions);
    let (expected, _) = naive::recompute(&log, &config);
    for schedule in 0..N_SCHEDULES {
        let mut rng = Rng::new(seed * N_SCHEDULES + schedule + 1_000_000);
        let what = format!("seed {seed}, schedule {schedule}");
        run(&log, &config, &mut rng, &what).assert_same(expected.clone(), &what);
    }
}

/// Every third seed has room for everything, the others meet the limits.
fn config(seed: u64) -> EngineConfig {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let roomy = EngineConfig {
        n_partitions: 1 + rng.below(4) as u32,
        ..EngineConfig::default()
    };
    match seed % 3 {
        0 => roomy,
        1 => EngineConfig {
            dedupe_horizon_us: 3 * HOUR,
            profile_retention_us: 2 * HOUR,
            ..roomy
        },
        _ => EngineConfig {
            dedupe_horizon_us: 5 * HOUR + MINUTE / 2,
            dedupe_identities_max: 20 + rng.below(40) as usize,
            profile_retention_us: 4 * HOUR,
            profile_windows_max: 10 + rng.below(20) as usize,
            profile_windows_per_tick_max: 1 + rng.below(6) as usize,
            ..roomy
        },
    }
}

/// A running engine and what it answered so far.
struct Run {
    engine: Engine,
    closed: Receiver<ClosedEpoch>,
    fed: u64,
    taken: u64,
}

/// Where the engine can be started again.
struct Checkpoint {
    at: usize,
    snapshots: Vec<PartitionSnapshot>,
    answer: Answer,
}

fn run(log: &[Entry], config: &EngineConfig, rng: &mut Rng, what: &str) -> Answer {
    let mut answer = Answer::default();
    let mut checkpoint = Checkpoint {
        at: 0,
        snapshots: Vec::new(),
        answer: Answer::default(),
    };
    let mut run = start(config, rng, Vec::new());
    let mut at = 0;
    let epoch_len_max = 3 + rng.below(100);
    let mut n_crashes_left = 3;
    while at < log.len() {
        let len = if rng.one_in(10) { 0 } else { 1 + rng.below(epoch_len_max) };
        let end = (at + len as usize).min(log.len());
        run.fed += 1;
        run.engine.feed(run.fed, generator::blocks(&log[at..end], rng)).unwrap();
        at = end;
        if rng.one_in(6) {
            let snapshots = run.engine.snapshot().unwrap();
            take_all(&mut run, &mut answer);
            checkpoint = Checkpoint {
                at,
                snapshots,
                answer: answer.clone(),
            };
        }
        if n_crashes_left > 0 && rng.one_in(12) {
            n_crashes_left -= 1;
            drop(run.engine);
            run = start(config, rng, checkpoint.snapshots.clone());
            at = checkpoint.at;
            answer = restored(&run, &checkpoint, what);
        }
    }
    take_all(&mut run, &mut answer);
    run.engine.shutdown().unwrap();
    assert!(run.closed.recv().is_err(), "{what}: an epoch after the last");
    answer
}

fn start(config: &EngineConfig, rng: &mut Rng, snapshots: Vec<PartitionSnapshot>) -> Run {
    let config = EngineConfig {
        n_workers: 1 + rng.below(3) as usize,
        ..config.clone()
    };
    let (sender, closed) = sync_channel(100_000);
    Run {
        engine: Engine::start(config, snapshots, sender).unwrap(),
        closed,
        fed: 0,
        taken: 0,
    }
}

/// Takes every epoch fed so far.
fn take_all(run: &mut Run, answer: &mut Answer) {
    while run.taken < run.fed {
        let epoch = run.closed.recv().unwrap();
        run.taken = epoch.epoch;
        answer.take(epoch);
    }
}

/// What the engine brings back must be what it had.
fn restored(run: &Run, checkpoint: &Checkpoint, what: &str) -> Answer {
    let expected = &checkpoint.answer;
    let mut answer = Answer {
        rows: expected.rows.clone(),
        counts: expected.counts.clone(),
        ..Answer::default()
    };
    if !checkpoint.snapshots.is_empty() {
        let epoch = run.closed.recv().unwrap();
        assert_eq!(epoch.epoch, 0, "{what}: restored rows come first");
        answer.take(epoch);
    }
    assert_same_map(&answer.latest, &expected.latest, what, "restored latest");
    assert_same_map(&answer.profile, &expected.profile, what, "restored profile");
    assert_same_map(&answer.totals, &expected.totals, what, "restored totals");
    answer
}
