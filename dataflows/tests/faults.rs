//! What the engine does when the log, a checkpoint or its surroundings are broken: it says what and where, and never hangs.
#![allow(clippy::unwrap_used)]

mod answer;
mod generator;

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use flexmeter_dataflows::{CheckpointError, EPOCHS_IN_FLIGHT_MAX, Engine, EngineConfig, EngineError, PartitionSnapshot};
use flexmeter_model::outcome::ClosedEpoch;
use flexmeter_model::record::{FrameError, RecordBlock};
use generator::Rng;

const DEADLINE: Duration = Duration::from_secs(20);

fn start(capacity: usize) -> (Engine, Receiver<ClosedEpoch>) {
    let (sender, closed) = sync_channel(capacity);
    (Engine::start(EngineConfig::default(), Vec::new(), sender).unwrap(), closed)
}

fn blocks(n: usize) -> Vec<RecordBlock> {
    generator::blocks(&generator::log(1, n, 4), &mut Rng::new(1))
}

/// Waits until the engine says why it stopped.
fn error_of(engine: &Engine) -> EngineError {
    let begin = Instant::now();
    loop {
        if let Some(error) = engine.error() {
            return error;
        }
        assert!(begin.elapsed() < DEADLINE, "the engine goes on");
        std::thread::yield_now();
    }
}

#[test]
fn a_corrupt_record_stops_the_engine_and_names_partition_and_offset() {
    let (mut engine, closed) = start(8);
    let mut block = blocks(200).remove(0);
    assert!(block.n_records >= 2, "the seed gives a block of several records");
    let second = 4 + u32::from_le_bytes(block.data[..4].try_into().unwrap()) as usize;
    block.data[second + 4] = 99;
    let (partition, offset) = (block.partition, block.base_offset + 1);
    engine.feed(1, vec![block]).unwrap();
    let expected = EngineError::CorruptRecord {
        partition,
        offset,
        source: FrameError::Corrupt { at: second, what: "kind" },
    };
    assert_eq!(error_of(&engine), expected);
    assert_eq!(
        closed.recv_timeout(DEADLINE).unwrap_err(),
        RecvTimeoutError::Disconnected,
        "the epoch never closes"
    );
    assert_eq!(engine.feed(2, Vec::new()), Err(expected.clone()));
    assert_eq!(engine.snapshot(), Err(expected.clone()));
    assert_eq!(engine.shutdown(), Err(expected));
}

#[test]
fn a_block_with_missing_records_stops_the_engine() {
    let (mut engine, _closed) = start(8);
    let mut block = blocks(50).remove(0);
    let (partition, base_offset, found) = (block.partition, block.base_offset, block.n_records);
    block.n_records += 2;
    engine.feed(1, vec![block]).unwrap();
    assert_eq!(
        error_of(&engine),
        EngineError::BlockLength {
            partition,
            base_offset,
            expected: found + 2,
            found
        }
    );
}

#[test]
fn a_block_fed_again_stops_the_engine() {
    let (mut engine, _closed) = start(8);
    let block = blocks(50).remove(0);
    engine.feed(1, vec![block.clone()]).unwrap();
    engine.feed(2, vec![block.clone()]).unwrap();
    let expected = EngineError::OffsetOutOfOrder {
        partition: block.partition,
        expected: block.end_offset(),
        found: block.base_offset,
    };
    assert_eq!(error_of(&engine), expected);
}

#[test]
fn an_epoch_or_partition_out_of_place_is_refused_and_the_engine_goes_on() {
    let (mut engine, closed) = start(8);
    assert_eq!(
        engine.feed(2, Vec::new()),
        Err(EngineError::EpochOutOfOrder { expected: 1, found: 2 })
    );
    let block = RecordBlock {
        partition: 9,
        base_offset: 0,
        n_records: 0,
        data: Vec::new(),
    };
    assert_eq!(
        engine.feed(1, vec![block]),
        Err(EngineError::UnknownPartition {
            partition: 9,
            n_partitions: 4
        })
    );
    engine.feed(1, blocks(10)).unwrap();
    assert_eq!(closed.recv_timeout(DEADLINE).unwrap().epoch, 1);
    engine.shutdown().unwrap();
}

#[test]
fn feeding_waits_while_nobody_takes_the_epochs() {
    let (mut engine, closed) = start(1);
    let feeder = std::thread::spawn(move || {
        (1..=20).for_each(|epoch| engine.feed(epoch, Vec::new()).unwrap());
        engine.shutdown().unwrap();
    });
    // One epoch waits in the channel and one at its door; the rest is what may be in flight.
    let fed_at_most = EPOCHS_IN_FLIGHT_MAX + 2;
    let first = closed.recv_timeout(DEADLINE).unwrap();
    assert_eq!(first.epoch, 1);
    assert!(!feeder.is_finished(), "20 epochs cannot be fed while only {fed_at_most} fit");
    assert_eq!(
        closed.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(),
        (2..=20).collect::<Vec<_>>()
    );
    feeder.join().unwrap();
}

#[test]
fn a_dropped_receiver_stops_the_engine() {
    let (mut engine, closed) = start(1);
    drop(closed);
    engine.feed(1, Vec::new()).unwrap();
    assert_eq!(error_of(&engine), EngineError::OutcomesNotTaken);
    assert_eq!(engine.shutdown(), Err(EngineError::OutcomesNotTaken));
}

#[test]
fn a_dropped_engine_ends_the_channel() {
    let (mut engine, closed) = start(100);
    engine.feed(1, blocks(1000)).unwrap();
    drop(engine);
    let begin = Instant::now();
    while closed.recv_timeout(DEADLINE).is_ok() {}
    assert!(begin.elapsed() < DEADLINE);
}

fn snapshots() -> Vec<PartitionSnapshot> {
    let (mut engine, _closed) = start(8);
    engine.feed(1, blocks(300)).unwrap();
    let snapshots = engine.snapshot().unwrap();
    engine.shutdown().unwrap();
    snapshots
}

fn start_error(snapshots: Vec<PartitionSnapshot>) -> EngineError {
    let (sender, _closed) = sync_channel(8);
    Engine::start(EngineConfig::default(), snapshots, sender).unwrap_err()
}

#[test]
fn a_damaged_checkpoint_is_an_error_and_never_a_panic() {
    let good = snapshots().remove(0);
    let mut rng = Rng::new(7);
    for _ in 0..300 {
        let mut bad = good.clone();
        if rng.one_in(2) {
            bad.bytes.truncate(rng.below(good.bytes.len() as u64) as usize);
        } else {
            let at = rng.below(good.bytes.len() as u64) as usize;
            bad.bytes[at] ^= 1 << rng.below(8);
        }
        assert!(matches!(start_error(vec![bad]), EngineError::Checkpoint { .. }));
    }
}

/// A checksum only says that bytes did not change; a defect of ours, or malice, may have written wrong ones.
#[test]
fn a_wrong_checkpoint_with_a_right_checksum_never_panics() {
    let good = snapshots().remove(0);
    let mut rng = Rng::new(8);
    for _ in 0..2_000 {
        let mut bad = good.clone();
        let body_len = good.bytes.len() - 4;
        for _ in 0..1 + rng.below(4) {
            let at = 12 + rng.below(body_len as u64 - 12) as usize;
            bad.bytes[at] = rng.next() as u8;
        }
        let crc = crc32fast::hash(&bad.bytes[..body_len]);
        bad.bytes[body_len..].copy_from_slice(&crc.to_le_bytes());
        let (sender, _closed) = sync_channel(8);
        match Engine::start(
            EngineConfig {
                n_workers: 1,
                ..EngineConfig::default()
            },
            vec![bad],
            sender,
        ) {
            Ok(engine) => drop(engine),
            Err(EngineError::Checkpoint { source, .. }) => assert_ne!(source, CheckpointError::Checksum),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn checkpoints_must_fit_the_log() {
    let snapshot = snapshots().remove(0);
    let partition = snapshot.partition;
    assert_eq!(
        start_error(vec![snapshot.clone(), snapshot.clone()]),
        EngineError::CheckpointTwice { partition }
    );
    let moved = PartitionSnapshot {
        offset: snapshot.offset + 1,
        ..snapshot.clone()
    };
    let EngineError::Checkpoint { source, .. } = start_error(vec![moved]) else {
        panic!("another error")
    };
    assert_eq!(
        source,
        CheckpointError::Misplaced {
            partition,
            offset: snapshot.offset
        }
    );
    let elsewhere = PartitionSnapshot { partition: 77, ..snapshot };
    assert_eq!(
        start_error(vec![elsewhere]),
        EngineError::UnknownPartition {
            partition: 77,
            n_partitions: 4
        }
    );
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let (sender, _closed) = sync_channel(8);
    let config = EngineConfig {
        n_workers: 0,
        ..EngineConfig::default()
    };
    let error = Engine::start(config, Vec::new(), sender).unwrap_err();
    assert_eq!(error.to_string(), "engine setting n_workers cannot be 0: use at least 1");
}
