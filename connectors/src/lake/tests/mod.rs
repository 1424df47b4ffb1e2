//! The lake through its handle: push, flush, reopen, read back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use deltalake::datafusion::prelude::SessionContext;
use deltalake::{DeltaTable, DeltaTableBuilder};
use flexmeter_model::outcome::{
    AcknowledgementRow, AlertLevel, AlertRow, ClosedEpoch, Device, MessageHead, PartitionOutcome, ProfileCell, ProfileRow, Quality,
    ReasonCode, RejectionRow,
};
use flexmeter_model::time::DAY_US;
use flexmeter_model::{EventTime, HardwareId, Identifier, TenantId};
use flexmeter_tables::to_schema;
use url::Url;

use super::*;

mod grid;
mod operations;

/// 2024-05-01T12:00:00Z
const NOON: i64 = 19_844 * DAY_US + DAY_US / 2;

fn tenant() -> TenantId {
    TenantId::new("default").unwrap()
}

fn device(partition: u32, index: u32) -> Arc<Device> {
    let hardware_id = HardwareId::new(&format!("M-{partition}-{index:04}")).unwrap();
    Arc::new(Device {
        partition,
        index,
        tenant: tenant(),
        hardware_id,
    })
}

/// Outcome of the offsets `from..to` of one partition: each offset one message of two values, one second apart from `start`.
fn outcome(partition: u32, from: u64, to: u64, start: i64) -> PartitionOutcome {
    let mut outcome = PartitionOutcome {
        partition,
        start_offset: from,
        end_offset: to,
        ..PartitionOutcome::default()
    };
    for offset in from..to {
        let time = EventTime::from_micros(start + offset as i64 * 1_000_000);
        outcome.measurements.heads.push(MessageHead {
            device: device(partition, offset as u32 % 7),
            event_time: time,
            received_at: EventTime::from_micros(time.micros() + 250_000),
            offset,
            n_values: 2,
            quality: Quality::Good,
        });
        outcome.measurements.identifiers.extend([Identifier::ALL[0], Identifier::ALL[3]]);
        outcome.measurements.values.extend([offset as f64 / 10.0, -(offset as f64)]);
    }
    outcome
}

fn epoch(partitions: Vec<PartitionOutcome>) -> Arc<ClosedEpoch> {
    Arc::new(ClosedEpoch {
        partitions,
        ..ClosedEpoch::default()
    })
}

/// A lake that commits only when asked to.
fn quiet(folder: &Path) -> LakeConfig {
    LakeConfig {
        commit_s: 3600,
        ..LakeConfig::new(folder)
    }
}

async fn open(folder: &Path) -> Lake {
    Lake::open(quiet(folder), &[tenant()]).await.unwrap()
}

/// All rows of a view as one batch of the SQL schema.
async fn rows(view: &TableView, table: &str) -> RecordBatch {
    let schema = flexmeter_tables::table(table).unwrap().schema();
    let context = SessionContext::new();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let committed = context
        .read_table(Arc::clone(&view.committed))
        .unwrap()
        .select_columns(&names)
        .unwrap()
        .collect()
        .await
        .unwrap();
    let all: Vec<_> = committed
        .iter()
        .chain(&view.tail)
        .map(|batch| to_schema(batch, &schema).unwrap())
        .collect();
    concat_batches(&schema, &all).unwrap()
}

/// `(partition, offset)` of each row, with how often it is there.
async fn offsets(lake: &Lake, table: &str) -> BTreeMap<(i32, i64), usize> {
    let batch = rows(&lake.view(&tenant(), table).unwrap(), table).await;
    let partitions = batch["log_partition"].as_primitive::<arrow::datatypes::Int32Type>();
    let offsets = batch["log_offset"].as_primitive::<Int64Type>();
    let mut found = BTreeMap::new();
    for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
        *found.entry((*partition, *offset)).or_default() += 1;
    }
    found
}

fn expected(partition: i32, offsets: std::ops::Range<i64>) -> BTreeMap<(i32, i64), usize> {
    offsets.map(|offset| ((partition, offset), 2)).collect()
}

fn table_folder(folder: &Path, table: &str) -> std::path::PathBuf {
    folder.join("default").join(table)
}

async fn delta(folder: &Path, table: &str) -> DeltaTable {
    let url = Url::from_directory_path(table_folder(folder, table).canonicalize().unwrap()).unwrap();
    DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap()
}

async fn delta_version(folder: &Path, table: &str) -> u64 {
    delta(folder, table).await.version().unwrap()
}

async fn position(folder: &Path, table: &str, partition: u32) -> Option<i64> {
    let table_now = delta(folder, table).await;
    let app_id = format!("flexmeter/default/{table}/{partition}");
    table_now
        .snapshot()
        .unwrap()
        .transaction_version(table_now.log_store().as_ref(), app_id)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_visible_when_pushed_and_durable_when_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 10, NOON), outcome(3, 5, 8, NOON)]))
        .await
        .unwrap();
    let mut all = expected(0, 0..10);
    all.extend(expected(3, 5..8));
    assert_eq!(offsets(&lake, "measurements").await, all);
    assert_eq!(delta_version(folder.path(), "measurements").await, 0);

    lake.flush().await.unwrap();
    let view = lake.view(&tenant(), "measurements").unwrap();
    assert_eq!((view.version, view.tail.len()), (1, 0));
    assert_eq!(offsets(&lake, "measurements").await, all);
    assert_eq!(position(folder.path(), "measurements", 0).await, Some(10));
    assert_eq!(position(folder.path(), "measurements", 3).await, Some(8));
    assert_eq!(position(folder.path(), "measurements", 1).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_as_they_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(1, 40, 42, NOON)])).await.unwrap();
    let from_tail = rows(&lake.view(&tenant(), "measurements").unwrap(), "measurements").await;
    lake.flush().await.unwrap();
    let from_lake = rows(&lake.view(&tenant(), "measurements").unwrap(), "measurements").await;
    assert_eq!(from_tail, from_lake);
    let text = |name: &str| {
        from_lake[name]
            .as_string::<i32>()
            .iter()
            .map(|word| word.unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(text("hardware_id"), ["M-1-0005", "M-1-0005", "M-1-0006", "M-1-0006"]);
    let names = [Identifier::ALL[0].name(), Identifier::ALL[3].name()];
    assert_eq!(text("identifier"), [names, names].concat());
    assert_eq!(text("unit"), ["kW"; 4]);
    assert_eq!(text("quality"), ["good"; 4]);
    assert_eq!(from_lake["value"].as_primitive::<Float64Type>().values(), &[4.0, -40.0, 4.1, -41.0]);
    let micros = from_lake["event_time"].as_primitive::<TimestampMicrosecondType>().values();
    assert_eq!(micros[2] - NOON, 41_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_epochs_after_a_restart_add_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let epochs = [epoch(vec![outcome(0, 0, 10, NOON)]), epoch(vec![outcome(0, 10, 25, NOON)])];
    let lake = open(folder.path()).await;
    for epoch in &epochs {
        lake.push(Arc::clone(epoch)).await.unwrap();
        lake.push(Arc::clone(epoch)).await.unwrap(); // also within one run
    }
    lake.flush().await.unwrap();
    drop(lake);

    let lake = open(folder.path()).await;
    // the replay cuts the log into other epochs, and goes on where the first run ended
    lake.push(epoch(vec![outcome(0, 4, 18, NOON)])).await.unwrap();
    lake.push(epoch(vec![outcome(0, 18, 30, NOON)])).await.unwrap();
    lake.flush().await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..30));
    assert_eq!(position(folder.path(), "measurements", 0).await, Some(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_writer_with_older_epochs_moves_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 100, NOON)])).await.unwrap();
    lake.flush().await.unwrap();
    drop(lake);
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 40, NOON)])).await.unwrap();
    lake.flush().await.unwrap();
    assert_eq!(delta_version(folder.path(), "measurements").await, 1);
    assert_eq!(position(folder.path(), "measurements", 0).await, Some(100));

    // and the table itself refuses, should anyone ask it directly
    let table = Arc::clone(lake.shared.tables().iter().find(|table| table.def.name == "measurements").unwrap());
    let error = table.commit(Vec::new(), &BTreeMap::from([(0, 40)])).await.unwrap_err();
    assert!(
        matches!(
            error,
            LakeError::GoesBack {
                partition: 0,
                committed: 100,
                offset: 40,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_file_and_commit_leaves_an_orphan_and_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    let table = Arc::clone(lake.shared.tables().iter().find(|table| table.def.name == "measurements").unwrap());
    let sealed = table.seal().unwrap();
    let (day, batches) = sealed.days().next().unwrap();
    let file = data_file::encode(table.def, batches, 1).unwrap();
    table.store(vec![(day, file)]).await.unwrap();
    drop(lake);

    let lake = open(folder.path()).await;
    assert!(offsets(&lake, "measurements").await.is_empty());
    assert_eq!(parquet_files(folder.path(), "measurements"), 1);
    lake.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    lake.flush().await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..10));
    assert_eq!(parquet_files(folder.path(), "measurements"), 2);
}

fn parquet_files(folder: &Path, table: &str) -> usize {
    let days = std::fs::read_dir(table_folder(folder, table))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    days.filter(|path| path.is_dir() && !path.ends_with("_delta_log"))
        .map(|day| std::fs::read_dir(day).unwrap().count())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_stops_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).await;
    let second = open(folder.path()).await;
    second.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    second.flush().await.unwrap();
    first.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    let error = first.flush().await.unwrap_err();
    assert!(matches!(error, LakeError::AnotherWriter { version: 0, .. }), "{error}");
    assert_eq!(error.retry(), Retry::Never);
    let error = first.push(epoch(vec![outcome(0, 10, 20, NOON)])).await.unwrap_err();
    assert!(matches!(error, LakeError::Stopped { .. }), "{error}");
    assert_eq!(offsets(&open(folder.path()).await, "measurements").await, expected(0, 0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_go_to_their_old_days() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let mut late = outcome(0, 10, 12, NOON - 3 * DAY_US);
    late.measurements.heads[1].event_time = EventTime::from_micros(NOON);
    lake.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    lake.push(epoch(vec![late])).await.unwrap();
    lake.flush().await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..12));
    let mut days: Vec<_> = std::fs::read_dir(table_folder(folder.path(), "measurements"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    days.sort();
    assert_eq!(days, ["_delta_log", "day=2024-04-28", "day=2024-05-01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_flush_commits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.flush().await.unwrap();
    lake.push(epoch(vec![PartitionOutcome {
        partition: 2,
        start_offset: 0,
        end_offset: 50,
        ..PartitionOutcome::default()
    }]))
    .await
    .unwrap();
    lake.flush().await.unwrap();
    for table in lake.shared.tables() {
        assert_eq!(table.view().version, 0, "{}", table.name);
    }
}

fn all_kinds() -> PartitionOutcome {
    let device = device(0, 1);
    let (event_time, received_at) = (EventTime::from_micros(NOON), EventTime::from_micros(NOON + 7));
    PartitionOutcome {
        partition: 0,
        end_offset: 9,
        alerts: vec![AlertRow {
            device: Arc::clone(&device),
            alert_type: "power.lastgasp".to_owned(),
            level: AlertLevel::Critical,
            message: "ä \"quoted\"".to_owned(),
            metadata: vec![("a".to_owned(), "1".to_owned())],
            event_time,
            received_at,
            offset: 3,
        }],
        acknowledgements: vec![AcknowledgementRow {
            device: Arc::clone(&device),
            originating_event_id: "e-1".to_owned(),
            response: "done".to_owned(),
            event_time,
            received_at,
            offset: 4,
        }],
        rejections: vec![
            RejectionRow {
                tenant: tenant(),
                hardware_id: None,
                reason: ReasonCode::MalformedJson,
                detail: "at byte 3".to_owned(),
                payload: "{\"x\u{fffd}\n".to_owned(),
                received_at,
                offset: 5,
            },
            RejectionRow {
                tenant: tenant(),
                hardware_id: Some(device.hardware_id.clone()),
                reason: ReasonCode::OutOfRange,
                detail: String::new(),
                payload: "x".repeat(64 * 1024),
                received_at,
                offset: 6,
            },
        ],
        profile_rows: vec![ProfileRow {
            device,
            window_start: EventTime::from_micros(NOON),
            identifier: Identifier::ALL[0],
            cell: ProfileCell {
                generation: 2,
                n: 3,
                mean: 2.0,
                min: 1.0,
                max: 3.0,
                last: 1.5,
                last_time: event_time,
            },
            offset: 8,
        }],
        ..PartitionOutcome::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_row_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![all_kinds()])).await.unwrap();
    lake.flush().await.unwrap();
    let text = |batch: &RecordBatch, name: &str| batch[name].as_string::<i32>().value(0).to_owned();
    let read = async |table| rows(&lake.view(&tenant(), table).unwrap(), table).await;

    let alerts = read("alerts").await;
    assert_eq!(text(&alerts, "type"), "power.lastgasp");
    assert_eq!(text(&alerts, "level"), "Critical");
    assert_eq!(text(&alerts, "message"), "ä \"quoted\"");
    assert_eq!(text(&alerts, "metadata"), r#"{"a":"1"}"#);
    let acknowledgements = read("acknowledgements").await;
    assert_eq!(text(&acknowledgements, "originating_event_id"), "e-1");
    assert_eq!(text(&acknowledgements, "response"), "done");
    let rejections = read("rejections").await;
    assert_eq!(rejections.num_rows(), 2);
    assert!(rejections["hardware_id"].is_null(0));
    assert_eq!(text(&rejections, "reason"), "malformed_json");
    assert_eq!(text(&rejections, "payload"), "{\"x\u{fffd}\n");
    assert_eq!(rejections["payload"].as_string::<i32>().value(1).len(), 64 * 1024);
    let profile = read("load_profile_15m").await;
    assert_eq!(profile["n"].as_primitive::<Int64Type>().value(0), 3);
    assert_eq!(profile["last"].as_primitive::<Float64Type>().value(0), 1.5);

    // the same again, as after a restart
    drop(lake);
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![all_kinds()])).await.unwrap();
    lake.flush().await.unwrap();
    for table in lake.shared.tables() {
        assert!(table.view().version <= 1, "{}", table.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_each_row_once_while_rows_move_into_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Arc::new(open(folder.path()).await);
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (lake, done) = (Arc::clone(&lake), Arc::clone(&done));
        async move {
            let (mut n_views, mut n_before) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let view = lake.view(&tenant(), "measurements").unwrap();
                let n_tail: usize = view.tail.iter().map(RecordBatch::num_rows).sum();
                let n_committed = SessionContext::new()
                    .read_table(Arc::clone(&view.committed))
                    .unwrap()
                    .count()
                    .await
                    .unwrap();
                let n = n_tail + n_committed;
                assert_eq!(n % 20, 0, "an epoch is seen in part: {n_committed} committed, {n_tail} in the tail");
                assert!(n >= n_before, "rows went away: {n_before}, then {n}");
                n_before = n;
                n_views += 1;
            }
            n_views
        }
    });
    for i in 0..60 {
        lake.push(epoch(vec![outcome(0, i * 10, i * 10 + 10, NOON)])).await.unwrap();
        if i % 5 == 4 {
            lake.flush().await.unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 3);
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..600));
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_joins_files_and_keeps_rows_and_positions() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    for i in 0..6 {
        lake.push(epoch(vec![outcome(0, i * 10, i * 10 + 10, NOON)])).await.unwrap();
        lake.flush().await.unwrap();
    }
    assert_eq!(delta(folder.path(), "measurements").await.get_file_uris().unwrap().count(), 6);
    lake.compact_now().await.unwrap();
    assert_eq!(delta(folder.path(), "measurements").await.get_file_uris().unwrap().count(), 1);
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..60));
    assert_eq!(position(folder.path(), "measurements", 0).await, Some(60));

    lake.push(epoch(vec![outcome(0, 60, 70, NOON)])).await.unwrap();
    lake.flush().await.unwrap();
    lake.vacuum_now().await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..70));
    // the files that were joined are younger than the retention: still there for readers that opened the table before
    assert_eq!(parquet_files(folder.path(), "measurements"), 8);
    drop(lake);
    assert_eq!(offsets(&open(folder.path()).await, "measurements").await, expected(0, 0..70));
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_survive_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = LakeConfig {
        checkpoint_commits: 2,
        ..quiet(folder.path())
    };
    let lake = Lake::open(config, &[tenant()]).await.unwrap();
    for i in 0..5 {
        lake.push(epoch(vec![outcome((i % 2) as u32, i * 10, i * 10 + 10, NOON)]))
            .await
            .unwrap();
        lake.flush().await.unwrap();
    }
    drop(lake);
    assert!(
        table_folder(folder.path(), "measurements")
            .join("_delta_log/_last_checkpoint")
            .exists()
    );
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 50, NOON), outcome(1, 0, 40, NOON)]))
        .await
        .unwrap();
    lake.flush().await.unwrap();
    assert_eq!(position(folder.path(), "measurements", 0).await, Some(50));
    assert_eq!(position(folder.path(), "measurements", 1).await, Some(40));
    let rows = offsets(&lake, "measurements").await;
    assert_eq!(rows.values().max(), Some(&2));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_too_many_days_are_committed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    for day in 0..=OPEN_DAYS_MAX as u64 {
        lake.push(epoch(vec![outcome(0, day, day + 1, NOON + day as i64 * DAY_US)]))
            .await
            .unwrap();
    }
    wait_until(|| lake.view(&tenant(), "measurements").unwrap().version == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn push_waits_while_memory_is_full_and_no_row_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let config = LakeConfig {
        commit_mb: 1,
        ..quiet(folder.path())
    };
    let lake = Lake::open(config, &[tenant()]).await.unwrap();
    // 200 epochs of 2,000 rows are about 20 MB: five times what may wait
    for i in 0..200 {
        lake.push(epoch(vec![outcome(0, i * 1000, i * 1000 + 1000, NOON)])).await.unwrap();
        let in_tail: usize = lake
            .view(&tenant(), "measurements")
            .unwrap()
            .tail
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert!(in_tail < 120_000, "{in_tail} rows wait in memory");
    }
    lake.flush().await.unwrap();
    let rows = offsets(&lake, "measurements").await;
    assert_eq!((rows.len(), rows.values().max()), (200_000, Some(&2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_no_longer_than_the_commit_interval() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(
        LakeConfig {
            commit_s: 1,
            ..quiet(folder.path())
        },
        &[tenant()],
    )
    .await
    .unwrap();
    lake.push(epoch(vec![outcome(0, 0, 1, NOON)])).await.unwrap();
    wait_until(|| lake.view(&tenant(), "measurements").unwrap().version == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_other_columns_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(table_folder(folder.path(), "alerts")).unwrap();
    let url = Url::from_directory_path(table_folder(folder.path(), "alerts").canonicalize().unwrap()).unwrap();
    let column = deltalake::kernel::StructField::nullable("x", deltalake::kernel::DataType::LONG);
    DeltaTableBuilder::from_url(url)
        .unwrap()
        .build()
        .unwrap()
        .create()
        .with_columns([column])
        .await
        .unwrap();
    let error = Lake::open(quiet(folder.path()), &[tenant()]).await.unwrap_err();
    assert!(matches!(error, LakeError::OtherColumns { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_have_their_own_tables() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let other = TenantId::new("other").unwrap();
    let mut foreign = outcome(0, 10, 20, NOON);
    for head in &mut foreign.measurements.heads {
        head.device = Arc::new(Device {
            tenant: other.clone(),
            ..head.device.as_ref().clone()
        });
    }
    lake.push(epoch(vec![outcome(0, 0, 10, NOON), foreign])).await.unwrap();
    lake.flush().await.unwrap();
    assert_eq!(lake.tenants(), [tenant(), other.clone()]);
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..10));
    assert_eq!(
        rows(&lake.view(&other, "measurements").unwrap(), "measurements").await.num_rows(),
        20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_carry_statistics_to_skip_them_by() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let mut odd = outcome(0, 0, 10, NOON);
    odd.measurements.heads[9].event_time = EventTime::from_micros(NOON + 20_000_001);
    lake.push(epoch(vec![odd])).await.unwrap();
    lake.flush().await.unwrap();
    let table = delta(folder.path(), "measurements").await;
    let log = std::fs::read_to_string(table_folder(folder.path(), "measurements").join("_delta_log/00000000000000000001.json")).unwrap();
    let add: serde_json::Value = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|action: &serde_json::Value| action.get("add").is_some())
        .unwrap();
    let stats: serde_json::Value = serde_json::from_str(add["add"]["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 20);
    assert_eq!(stats["minValues"]["hardware_id"], "M-0-0000");
    assert_eq!(stats["maxValues"]["hardware_id"], "M-0-0006");
    assert_eq!(stats["minValues"]["value"], -9.0);
    assert_eq!(stats["maxValues"]["value"], 0.9);
    assert_eq!(stats["nullCount"]["value"], 0);
    let time = |value: &serde_json::Value| EventTime::parse(value.as_str().unwrap().as_bytes()).unwrap().micros() - NOON;
    assert_eq!(time(&stats["minValues"]["event_time"]), 0);
    assert_eq!(
        time(&stats["maxValues"]["event_time"]),
        20_001_000,
        "rounded up: the file must not be skipped for its last row"
    );

    // and the reader uses them: a filter beyond the bounds plans no file
    let context = SessionContext::new();
    context
        .register_table("measurements", table.table_provider().await.unwrap())
        .unwrap();
    let plan = |filter: &str| format!("EXPLAIN SELECT value FROM measurements WHERE {filter}");
    for (filter, n_files) in [
        ("value > 1000", 0),
        ("value > 0", 1),
        ("event_time < '2024-05-01T11:00:00Z'", 0),
        ("hardware_id = 'X'", 0),
    ] {
        let text = arrow::util::pretty::pretty_format_batches(&context.sql(&plan(filter)).await.unwrap().collect().await.unwrap())
            .unwrap()
            .to_string();
        assert_eq!(text.matches(".parquet").count(), n_files, "{filter}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_gives_up_and_comes_again_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    for i in 0..40 {
        let epoch = epoch(vec![outcome(0, i * 500, i * 500 + 500, NOON)]);
        let patience = std::time::Duration::from_micros(i * 50);
        if tokio::time::timeout(patience, lake.push(Arc::clone(&epoch))).await.is_err() {
            lake.push(epoch).await.unwrap();
        }
    }
    lake.flush().await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_lake_commits_no_more_and_its_tables_can_be_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let closed = open(folder.path()).await;
    closed.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    closed.close().await;
    assert_eq!(offsets(&closed, "measurements").await, expected(0, 0..10));
    let error = closed.push(epoch(vec![outcome(0, 10, 20, NOON)])).await.unwrap_err();
    assert_eq!(error.to_string(), "the lake has stopped: it was closed");
    assert!(closed.flush().await.is_err());

    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 20, NOON)])).await.unwrap();
    lake.flush().await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_outlive_a_disk_that_refuses_them_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    let in_the_way = table_folder(folder.path(), "measurements").join("day=2024-05-01");
    std::fs::write(&in_the_way, "").unwrap();
    let error = lake.flush().await.unwrap_err();
    assert!(matches!(error, LakeError::DataFile { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
    lake.push(epoch(vec![outcome(0, 10, 20, NOON)])).await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..20));

    std::fs::remove_file(&in_the_way).unwrap();
    lake.flush().await.unwrap();
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..20));
    assert_eq!(position(folder.path(), "measurements", 0).await, Some(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_was_lost_is_not_made_twice() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    lake.push(epoch(vec![outcome(0, 0, 10, NOON)])).await.unwrap();
    let table = Arc::clone(lake.shared.tables().iter().find(|table| table.def.name == "measurements").unwrap());
    let sealed = table.seal().unwrap();
    sealed.note_attempt();
    let (day, batches) = sealed.days().next().unwrap();
    let adds = table
        .store(vec![(day, data_file::encode(table.def, batches, 1).unwrap())])
        .await
        .unwrap();
    table.commit(adds, &sealed.offsets).await.unwrap(); // and nobody hears of it
    drop(sealed);

    lake.flush().await.unwrap();
    let view = lake.view(&tenant(), "measurements").unwrap();
    assert_eq!((view.version, view.tail.len()), (1, 0));
    assert_eq!(offsets(&lake, "measurements").await, expected(0, 0..10));
}

/// Waits for a condition, with a deadline.
async fn wait_until(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "nothing happened for 30 s");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
