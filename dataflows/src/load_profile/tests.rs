//! Windows that fill, end, are repaired, leave and come back. One device, one quantity, minutes of log time.

use flexmeter_model::outcome::{ProfileCell, Quality};
use flexmeter_model::{HardwareId, TenantId};

use super::*;
use crate::batch::Tick;

const MINUTES_PER_WINDOW: i64 = WINDOW_US / TICK_US;

enum Step {
    /// Log time enters a minute.
    Tick(i64),
    /// A reading with an event time in minutes.
    Reading(i64, f64),
}
use Step::{Reading, Tick as At};

/// A batch of steps; offsets count on from `first`.
fn batch(first: u64, steps: &[Step]) -> Accepted {
    let (tenant, hardware_id) = (TenantId::new("t").unwrap(), HardwareId::new("m").unwrap());
    let device = Arc::new(Device {
        partition: 0,
        index: 0,
        tenant,
        hardware_id,
    });
    let mut accepted = Accepted::default();
    for (offset, step) in (first..).zip(steps) {
        let columns = &mut accepted.rows.measurements;
        match *step {
            At(minute) => accepted.ticks.push(Tick {
                before: columns.heads.len(),
                minute,
                offset,
            }),
            Reading(minute, value) => {
                let event_time = EventTime::from_micros(minute * TICK_US);
                let (device, received_at) = (device.clone(), event_time);
                columns.heads.push(MessageHead {
                    device,
                    event_time,
                    received_at,
                    offset,
                    n_values: 1,
                    quality: Quality::Good,
                });
                columns.identifiers.push(Identifier::from_index(0).unwrap());
                columns.values.push(value);
            }
        }
    }
    accepted
}

fn config(retention_minutes: i64) -> EngineConfig {
    EngineConfig {
        profile_retention_us: retention_minutes * TICK_US,
        ..EngineConfig::default()
    }
}

/// Generation, number and mean.
type Brief = (u64, u64, f64);

fn brief(cell: &ProfileCell) -> Brief {
    (cell.generation, cell.n, cell.mean)
}

fn changes(output: &ProfileOutput) -> Vec<(i64, Option<Brief>, Option<Brief>)> {
    let window = |change: &ProfileChange| change.window_start.micros() / WINDOW_US;
    output
        .changes
        .iter()
        .map(|change| (window(change), change.old.as_ref().map(brief), change.new.as_ref().map(brief)))
        .collect()
}

fn rows(output: &ProfileOutput) -> Vec<(i64, u64, Brief)> {
    output
        .rows
        .iter()
        .map(|row| (row.window_start.micros() / WINDOW_US, row.offset, brief(&row.cell)))
        .collect()
}

#[test]
fn a_window_is_flushed_when_log_time_passes_its_end() {
    let mut profile = LoadProfile::default();
    let output = profile.apply(
        &batch(0, &[At(0), Reading(0, 1.0), Reading(14, 3.0), At(14), At(15), At(16)]),
        &config(100),
    );
    assert_eq!(changes(&output), [(0, None, Some((1, 2, 2.0)))]);
    assert_eq!(rows(&output), [(0, 4, (1, 2, 2.0))]);
}

#[test]
fn late_data_repair_a_window_and_it_is_flushed_again_a_minute_later() {
    let mut profile = LoadProfile::default();
    profile.apply(&batch(0, &[At(0), Reading(0, 1.0), At(20)]), &config(100));
    let output = profile.apply(&batch(10, &[Reading(5, 2.0), At(21), At(22)]), &config(100));
    assert_eq!(changes(&output), [(0, Some((1, 1, 1.0)), Some((1, 2, 1.5)))]);
    assert_eq!(rows(&output), [(0, 11, (1, 2, 1.5))]);
}

#[test]
fn an_untouched_window_leaves_and_a_late_reading_opens_another_generation() {
    let mut profile = LoadProfile::default();
    profile.apply(&batch(0, &[At(0), Reading(0, 1.0), At(20)]), &config(30));
    let output = profile.apply(&batch(10, &[At(30)]), &config(30));
    assert!(
        output.changes.is_empty(),
        "it was touched in minute 0 and stays to the end of minute 30"
    );
    let output = profile.apply(&batch(20, &[At(31)]), &config(30));
    assert_eq!(changes(&output), [(0, Some((1, 1, 1.0)), None)]);
    assert!(output.rows.is_empty(), "its last state was flushed already");
    assert_eq!((profile.n_windows, profile.evictions.len(), profile.flushes.len()), (0, 0, 0));
    let output = profile.apply(&batch(30, &[Reading(1, 5.0), At(32)]), &config(30));
    assert_eq!(changes(&output), [(0, None, Some((30, 1, 5.0)))]);
    assert_eq!(rows(&output), [(0, 31, (30, 1, 5.0))]);
    assert_eq!(output.n_reopened, 1);
}

#[test]
fn a_window_that_leaves_and_comes_back_in_one_batch_is_one_change() {
    let mut profile = LoadProfile::default();
    profile.apply(&batch(0, &[At(0), Reading(0, 1.0)]), &config(30));
    let output = profile.apply(&batch(10, &[Reading(2, 2.0), At(31), Reading(3, 4.0)]), &config(30));
    assert_eq!(changes(&output), [(0, Some((1, 1, 1.0)), Some((12, 1, 4.0)))]);
    assert_eq!(rows(&output), [(0, 11, (1, 2, 1.5))]);
}

#[test]
fn a_window_that_comes_and_goes_in_one_batch_never_was() {
    let mut profile = LoadProfile::default();
    let output = profile.apply(&batch(0, &[At(0), Reading(0, 1.0), At(40)]), &config(30));
    assert!(output.changes.is_empty());
    assert_eq!(rows(&output), [(0, 2, (1, 1, 1.0))]);
}

#[test]
fn above_the_limit_the_windows_untouched_for_longest_leave_early_and_are_counted() {
    let config = EngineConfig {
        profile_windows_max: 2,
        ..config(1000)
    };
    let mut profile = LoadProfile::default();
    let windows = [
        At(0),
        Reading(0, 1.0),
        Reading(MINUTES_PER_WINDOW, 2.0),
        At(1),
        Reading(2 * MINUTES_PER_WINDOW, 3.0),
    ];
    profile.apply(&batch(0, &windows), &config);
    let output = profile.apply(&batch(10, &[Reading(1, 9.0), At(2)]), &config);
    assert_eq!(output.n_windows_forgotten, 1);
    assert_eq!(
        rows(&output),
        [(1, 11, (2, 1, 2.0))],
        "window 0 was touched again, window 1 was not"
    );
}

#[test]
fn a_tick_flushes_no_more_windows_than_its_limit() {
    let config = EngineConfig {
        profile_windows_per_tick_max: 2,
        ..config(1000)
    };
    let mut profile = LoadProfile::default();
    let readings: Vec<_> = [At(0)]
        .into_iter()
        .chain((0..5).map(|i| Reading(i * MINUTES_PER_WINDOW, 1.0)))
        .collect();
    profile.apply(&batch(0, &readings), &config);
    let n_rows: Vec<_> = (200..204)
        .map(|minute| profile.apply(&batch(10, &[At(minute)]), &config).rows.len())
        .collect();
    assert_eq!(n_rows, [2, 2, 1, 0]);
}
