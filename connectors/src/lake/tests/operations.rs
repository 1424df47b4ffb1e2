//! The past of outages, proposals and faults: complete and exactly once, whatever is replayed, and however it is cut into epochs.

use flexmeter_model::outcome::{FaultRow, GridOutcome, OPERATIONS_KEPT_US, OutageRow, ReconfigurationRow, RowChange};

use super::*;

const SECOND_US: i64 = 1_000_000;

/// Something said of an outage at a log time, in seconds from noon.
type Word = (i64, RowChange<OutageRow>);

/// An outage that opened at noon. `closed_s`: when it closed, in seconds from noon.
fn outage(closed_s: Option<i64>, n_gasps: u32) -> OutageRow {
    OutageRow {
        area: "mv1/lv07".into(),
        feeder: Some(20),
        device: "branch-7".to_owned(),
        alternatives: vec!["node-3".to_owned()],
        node_id: 3,
        n_customers: 5,
        n_customers_out: if closed_s.is_some() { 0 } else { 5 },
        n_gasps,
        opened_at: EventTime::from_micros(NOON),
        reported_at: EventTime::from_micros(NOON + SECOND_US),
        closed_at: closed_s.map(|s| EventTime::from_micros(NOON + s * SECOND_US)),
        closed_because: closed_s.map(|_| "restored"),
        confidence: 0.1 + 0.2,
        acknowledged: false,
    }
}

fn said(tenant: &TenantId, id: &str, new: Option<OutageRow>) -> RowChange<OutageRow> {
    RowChange {
        tenant: tenant.clone(),
        key: id.into(),
        new: new.map(Arc::new),
    }
}

/// An epoch that ends at a log time, in seconds from noon; without one, epoch 0 of a restored engine.
fn told(log_s: Option<i64>, outages: Vec<RowChange<OutageRow>>) -> Arc<ClosedEpoch> {
    let end = |s: i64| PartitionOutcome {
        log_time: EventTime::from_micros(NOON + s * SECOND_US),
        ..PartitionOutcome::default()
    };
    Arc::new(ClosedEpoch {
        partitions: log_s.map(end).into_iter().collect(),
        grid: GridOutcome {
            outages,
            ..GridOutcome::default()
        },
        ..ClosedEpoch::default()
    })
}

/// What a replay tells when it is cut at these log times: of each id the last word of each epoch. Of what comes and goes in one epoch the
/// engine says nothing.
fn cut(words: &[Word], from_s: i64, ends_s: &[i64]) -> Vec<Arc<ClosedEpoch>> {
    let mut begin = from_s;
    let epochs = ends_s.iter().map(|&end| {
        let within = words.iter().filter(|(at, _)| *at > begin && *at <= end);
        let last: BTreeMap<_, _> = within.map(|(_, word)| (word.key.clone(), word.clone())).collect();
        let was_there = |key: &Arc<str>| words.iter().any(|(at, word)| *at <= begin && word.key == *key);
        let told_of = last
            .into_values()
            .filter(|word| word.new.is_some() || was_there(&word.key))
            .collect();
        begin = end;
        told(Some(end), told_of)
    });
    epochs.collect()
}

/// What the table holds: id, gasps, whether it is closed, whether it is withdrawn; in the order of log time.
async fn past(lake: &Lake, tenant: &TenantId) -> Vec<(String, i64, bool, bool)> {
    let view = lake.view(tenant, "outages").unwrap();
    let schema = flexmeter_tables::table("outages").unwrap().file_schema();
    let context = SessionContext::new();
    let committed = context.read_table(view.committed.clone()).unwrap().collect().await.unwrap();
    let mut found = Vec::new();
    for batch in committed.iter().chain(&view.tail) {
        let batch = to_schema(batch, &schema).unwrap();
        let times = batch["log_time"].as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let id = batch["outage_id"].as_string::<i32>().value(row).to_owned();
            let n_gasps = batch["n_gasps"].as_primitive::<Int64Type>().value(row);
            let is_closed = !arrow::array::Array::is_null(&batch["closed_at"], row);
            let is_withdrawn = batch["withdrawn"].as_boolean().value(row);
            found.push((times.value(row), (id, n_gasps, is_closed, is_withdrawn)));
        }
    }
    found.sort();
    found.into_iter().map(|(_, row)| row).collect()
}

fn closed(id: &str, n_gasps: i64) -> (String, i64, bool, bool) {
    (id.to_owned(), n_gasps, true, false)
}

async fn push(lake: &Lake, epochs: impl IntoIterator<Item = Arc<ClosedEpoch>>) {
    for epoch in epochs {
        lake.push(epoch).await.unwrap();
    }
}

#[tokio::test]
async fn an_outage_becomes_history_when_it_closes_and_again_when_it_is_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let t = tenant();
    push(&lake, [told(Some(1), vec![said(&t, "a", Some(outage(None, 3)))])]).await;
    assert_eq!(past(&lake, &t).await, []);
    push(&lake, [told(Some(60), vec![said(&t, "a", Some(outage(Some(50), 3)))])]).await;
    // the same once more, and a late gasp
    push(&lake, [told(Some(61), vec![said(&t, "a", Some(outage(Some(50), 3)))])]).await;
    push(&lake, [told(Some(62), vec![said(&t, "a", Some(outage(Some(50), 4)))])]).await;
    let expected = [closed("a", 3), closed("a", 4)];
    assert_eq!(past(&lake, &t).await, expected);
    lake.flush().await.unwrap();
    // a month later it leaves memory, and stays in the past
    let month_s = OPERATIONS_KEPT_US / SECOND_US;
    push(&lake, [told(Some(70 + month_s), vec![said(&t, "a", None)])]).await;
    assert_eq!(past(&lake, &t).await, expected);
}

#[tokio::test]
async fn what_opens_again_or_never_was_is_said_of_the_past_too() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let t = tenant();
    let open_again = [
        (10, said(&t, "a", Some(outage(Some(5), 3)))),
        (20, said(&t, "a", Some(outage(None, 4)))),
        (21, said(&t, "a", Some(outage(None, 5)))),
        (30, said(&t, "a", Some(outage(Some(29), 5)))),
        (31, said(&t, "b", Some(outage(Some(30), 1)))),
        (32, said(&t, "b", None)),
        // never closed, so the past never heard of it
        (33, said(&t, "c", Some(outage(None, 1)))),
        (34, said(&t, "c", None)),
    ];
    push(&lake, cut(&open_again, 0, &[10, 20, 21, 30, 31, 32, 33, 34])).await;
    let open = |n| ("a".to_owned(), n, false, false);
    let withdrawn = ("b".to_owned(), 1, true, true);
    assert_eq!(
        past(&lake, &t).await,
        [closed("a", 3), open(4), closed("a", 5), closed("b", 1), withdrawn]
    );
}

/// A day of two tenants' outages: some close, some are corrected, one is withdrawn, one stays open.
fn story() -> Vec<Word> {
    let (t, other) = (tenant(), TenantId::new("other").unwrap());
    vec![
        (10, said(&t, "a", Some(outage(None, 3)))),
        (20, said(&t, "b", Some(outage(None, 1)))),
        (30, said(&t, "a", Some(outage(Some(29), 3)))),
        (35, said(&other, "x", Some(outage(Some(30), 9)))),
        (40, said(&t, "a", Some(outage(Some(29), 4)))),
        (50, said(&t, "b", Some(outage(Some(45), 1)))),
        (60, said(&t, "b", None)),
        (70, said(&t, "c", Some(outage(Some(65), 7)))),
        (80, said(&t, "d", Some(outage(None, 8)))),
        (90, said(&t, "a", Some(outage(Some(29), 5)))),
        (100, said(&t, "e", Some(outage(Some(95), 2)))),
    ]
}

/// What the views hold at a log time: what epoch 0 of an engine restored there tells.
fn restored(words: &[Word], at_s: i64) -> Arc<ClosedEpoch> {
    let until = words.iter().filter(|(at, _)| *at <= at_s);
    let views: BTreeMap<_, _> = until
        .map(|(_, word)| ((word.tenant.clone(), word.key.clone()), word.clone()))
        .collect();
    told(None, views.into_values().filter(|word| word.new.is_some()).collect())
}

/// The newest word of each id that has ended.
async fn newest(lake: &Lake, tenant: &TenantId) -> BTreeMap<String, (i64, bool, bool)> {
    let rows = past(lake, tenant).await.into_iter();
    rows.map(|(id, n_gasps, is_closed, is_withdrawn)| (id, (n_gasps, is_closed, is_withdrawn)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_commit_and_checkpoint_and_a_replay_in_other_epochs_change_nothing() {
    let words = story();
    let (t, other) = (tenant(), TenantId::new("other").unwrap());
    let ends: Vec<i64> = (1..=10).map(|n| n * 10).chain([110]).collect();
    let undisturbed = tempfile::tempdir().unwrap();
    let lake = open(undisturbed.path()).await;
    push(&lake, cut(&words, 0, &ends)).await;
    let expected = (past(&lake, &t).await, past(&lake, &other).await);
    let b_is_over = ("b".to_owned(), 1, true, true);
    let in_order = [closed("a", 3), closed("a", 4), closed("b", 1), b_is_over, closed("c", 7)];
    assert_eq!(expected.0, [&in_order[..], &[closed("a", 5), closed("e", 2)]].concat());
    assert_eq!(expected.1, [closed("x", 9)]);

    // committed up to one moment, killed at a later one, restored from a checkpoint before both, and replayed in other epochs
    for checkpoint in (0..=100).step_by(20) {
        for committed in (checkpoint..=100).step_by(10) {
            for step in [7, 25, 110] {
                let folder = tempfile::tempdir().unwrap();
                let lake = open(folder.path()).await;
                let commit_at = ends.iter().position(|&end| end > committed).unwrap();
                push(&lake, cut(&words, 0, &ends[..commit_at])).await;
                lake.flush().await.unwrap();
                push(&lake, cut(&words, committed, &ends[commit_at..])).await;
                lake.close().await;
                drop(lake);

                let lake = open(folder.path()).await;
                push(&lake, [restored(&words, checkpoint)]).await;
                let again: Vec<i64> = (1..)
                    .map(|n| checkpoint + n * step)
                    .take_while(|&end| end < 110)
                    .chain([110])
                    .collect();
                push(&lake, cut(&words, checkpoint, &again)).await;
                let case = format!("checkpoint {checkpoint}, commit {committed}, epochs of {step} s");
                let found = past(&lake, &t).await;
                let mut once = found.clone();
                once.sort();
                once.dedup();
                assert_eq!(once.len(), found.len(), "{case}: {found:?}");
                let reference: BTreeMap<_, _> = expected
                    .0
                    .iter()
                    .map(|(id, n, closed, gone)| (id.clone(), (*n, *closed, *gone)))
                    .collect();
                let mut newest = newest(&lake, &t).await;
                let end_before = |moment: i64| {
                    again
                        .iter()
                        .rev()
                        .find(|end| **end < moment)
                        .copied()
                        .unwrap_or(checkpoint)
                        .min(moment)
                };
                let (opens_in, goes_in) = (end_before(20), end_before(60));
                match newest.get("b") {
                    // opened and withdrawn in one epoch of the replay, which says nothing of it
                    Some((1, true, false)) => assert!((50..60).contains(&committed) && opens_in == goes_in, "{case}"),
                    // closed and withdrawn while the past did not look, and not committed before
                    None => assert!(committed < 50, "{case}"),
                    // of what was nothing it does not matter what was believed last
                    Some((.., is_withdrawn)) => assert!(is_withdrawn, "{case}"),
                }
                newest.insert("b".to_owned(), reference["b"]);
                assert_eq!(newest, reference, "{case}");
                assert_eq!(past(&lake, &other).await, expected.1, "{case}");
                lake.flush().await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_lake_that_begins_later_takes_what_the_views_still_hold() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let words = story();
    push(&lake, [restored(&words, 100), told(Some(105), Vec::new())]).await;
    lake.flush().await.unwrap();
    let t = tenant();
    assert_eq!(past(&lake, &t).await, [closed("a", 5), closed("c", 7), closed("e", 2)]);
}

#[tokio::test]
async fn a_position_that_ran_ahead_of_the_log_does_not_swallow_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let t = tenant();
    let lake = open(folder.path()).await;
    // one partition was far ahead of the others, whose outage is known in part
    push(&lake, [told(Some(100), vec![said(&t, "a", Some(outage(Some(29), 3)))])]).await;
    lake.flush().await.unwrap();
    lake.close().await;
    drop(lake);

    let lake = open(folder.path()).await;
    let words = [
        (60, said(&t, "a", Some(outage(Some(29), 3)))),
        (70, said(&t, "a", Some(outage(Some(29), 4)))),
        (80, said(&t, "b", Some(outage(Some(75), 1)))),
    ];
    push(&lake, cut(&words, 0, &[60, 70, 80])).await;
    // they are in memory; the past learns of them when the log has come as far
    push(&lake, [told(Some(101), Vec::new())]).await;
    assert_eq!(past(&lake, &t).await, [closed("a", 3), closed("a", 4), closed("b", 1)]);
}

#[tokio::test]
async fn proposals_and_faults_have_a_past_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let time = |s: i64| EventTime::from_micros(NOON + s * SECOND_US);
    let proposal = |state: &'static str| ReconfigurationRow {
        state,
        reason: None,
        decided_by: None,
        operations: Vec::new(),
        n_done: 0,
        loss_before_w: 100.0,
        loss_after_w: 70.0,
        loss_d4_6_w: None,
        voltage_min_pu: [0.9, 0.95],
        proposed_at: time(0),
        expires_at: time(600),
        changed_at: time(5),
    };
    let fault = FaultRow {
        area: "mv1".into(),
        fault_type: "AG".to_owned(),
        branch_id: 12,
        near_node: 7,
        share: 0.25,
        distance_m: None,
        distance_sigma_m: None,
        distance_ohm: 0.5,
        resistance_ohm: 2.0,
        probability: 0.75,
        candidates: "[]".to_owned(),
        n_gasps: 0,
        event_time: time(3),
        by: "relay-1".to_owned(),
    };
    let faulted = RowChange {
        tenant: tenant(),
        key: "f-1".into(),
        new: Some(Arc::new(fault)),
    };
    for (s, state) in [(1, "proposed"), (2, "accepted"), (3, "executing"), (4, "done")] {
        let mut epoch = Arc::unwrap_or_clone(told(Some(s), Vec::new()));
        epoch.grid.reconfigurations.push(RowChange {
            tenant: tenant(),
            key: "p-1".into(),
            new: Some(Arc::new(proposal(state))),
        });
        epoch.grid.faults.push(faulted.clone());
        lake.push(Arc::new(epoch)).await.unwrap();
    }
    lake.flush().await.unwrap();
    let proposals = rows(&lake.view(&tenant(), "reconfigurations").unwrap(), "reconfigurations").await;
    assert_eq!(proposals["state"].as_string::<i32>().iter().collect::<Vec<_>>(), [Some("done")]);
    let faults = rows(&lake.view(&tenant(), "faults").unwrap(), "faults").await;
    assert_eq!(faults["fault_id"].as_string::<i32>().iter().collect::<Vec<_>>(), [Some("f-1")]);
}
