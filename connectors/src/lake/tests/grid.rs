//! The past of estimates: the last one of each minute, once, whatever is replayed.

use flexmeter_model::outcome::{AreaEstimate, GridOutcome, GridQuality, NodeState};

use super::*;

const MINUTE_US: i64 = 60_000_000;

/// An epoch at a log time, µs from noon, with an estimate of one node whose newest reading is of this minute; its voltage tells them apart.
fn estimated(log_us: i64, minute: i64, voltage_v: f64) -> Arc<ClosedEpoch> {
    let state = NodeState {
        energised: true,
        value: [[voltage_v; 3], [0.0; 3], [0.0; 3], [0.0; 3]],
        sigma: [[1.0; 3]; 4],
    };
    let estimate = AreaEstimate {
        tenant: tenant(),
        area: "mv1".into(),
        nodes: vec![1].into(),
        three_phase: true,
        states: vec![state],
        quality: GridQuality {
            level: 1,
            j: 0.0,
            degrees_of_freedom: 0,
            suspects: Vec::new(),
            observable: true,
            n_measurements: 1,
            n_pseudo: 0,
            problem: None,
        },
        event_time: EventTime::from_micros(NOON + minute * MINUTE_US + log_us.rem_euclid(MINUTE_US)),
    };
    Arc::new(ClosedEpoch {
        partitions: vec![PartitionOutcome {
            log_time: EventTime::from_micros(NOON + log_us),
            ..PartitionOutcome::default()
        }],
        grid: GridOutcome {
            areas: vec![Arc::new(estimate)],
            ..GridOutcome::default()
        },
        ..ClosedEpoch::default()
    })
}

/// Voltages of the past, in the order of time, each as often as it is there; and that quality has a row for each.
async fn past(lake: &Lake) -> Vec<f64> {
    let state = rows(&lake.view(&tenant(), "grid_state").unwrap(), "grid_state").await;
    let quality = rows(&lake.view(&tenant(), "grid_quality").unwrap(), "grid_quality").await;
    assert_eq!(state.num_rows(), 12 * quality.num_rows());
    let (values, quantities) = (state["value"].as_primitive::<Float64Type>(), state["quantity"].as_string::<i32>());
    let times = state["event_time"].as_primitive::<TimestampMicrosecondType>();
    let mut found: Vec<(i64, f64)> = (0..state.num_rows())
        .filter(|&row| quantities.value(row) == "voltage_v")
        .map(|row| (times.value(row), values.value(row)))
        .collect();
    found.sort_by(|a, b| a.partial_cmp(b).unwrap());
    // three phases
    found.chunks(3).map(|phases| phases[0].1).collect()
}

#[tokio::test]
async fn the_last_estimate_of_a_minute_is_kept_when_the_next_minute_comes() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    for (log_us, minute, voltage_v) in [(1, 0, 230.0), (2, 0, 231.0), (3, 1, 232.0), (4, 1, 233.0), (5, 3, 234.0)] {
        lake.push(estimated(log_us, minute, voltage_v)).await.unwrap();
    }
    assert_eq!(past(&lake).await, [231.0, 233.0]);
    lake.flush().await.unwrap();
    assert_eq!(past(&lake).await, [231.0, 233.0]);
}

#[tokio::test]
async fn a_replay_from_a_checkpoint_adds_only_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let story = [
        (1, 0, 230.0),
        (2, 1, 231.0),
        (2, 2, 231.5),
        (3, 3, 232.0),
        (4, 4, 233.0),
        (5, 5, 234.0),
    ];
    let lake = open(folder.path()).await;
    for (log_us, minute, voltage_v) in &story[..4] {
        lake.push(estimated(*log_us, *minute, *voltage_v)).await.unwrap();
    }
    lake.flush().await.unwrap();
    // not committed: it comes again from the log
    lake.push(estimated(4, 4, 233.0)).await.unwrap();
    lake.close().await;
    drop(lake);

    let lake = open(folder.path()).await;
    // the restored engine tells its newest estimate first, as epoch 0
    for (log_us, minute, voltage_v) in &story {
        lake.push(estimated(*log_us, *minute, *voltage_v)).await.unwrap();
    }
    lake.flush().await.unwrap();
    assert_eq!(past(&lake).await, [230.0, 231.0, 231.5, 232.0, 233.0]);
}

#[tokio::test]
async fn an_area_that_is_no_more_leaves_its_last_estimate() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(estimated(1, 0, 230.0)).await.unwrap();
    let mut gone = ClosedEpoch::default();
    gone.grid.gone.push((tenant(), "mv1".into()));
    lake.push(Arc::new(gone)).await.unwrap();
    assert_eq!(past(&lake).await, [230.0]);
}
