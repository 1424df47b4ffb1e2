//! What every inbound log promises, as a list of cases that takes the implementation as an argument.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
use flexmeter_model::{EventTime, TenantId};

use super::{InboundLog, LogError, LogPosition, NewRecord};

/// Longest time anything in the suite may take before it counts as hanging.
const DEADLINE: Duration = Duration::from_secs(60);

/// Makes places for logs.
#[async_trait]
pub(crate) trait Factory: Sync {
    /// An empty place for a log of `n_partitions`.
    async fn place(&self, n_partitions: u32) -> Box<dyn Place>;
}

/// Where one log lives; it can be opened again after it was closed.
#[async_trait]
pub(crate) trait Place: Send + Sync {
    /// Opens the log.
    async fn open(&self) -> Arc<dyn InboundLog>;
}

macro_rules! suite {
    ($($case:ident),+ $(,)?) => {
        /// Runs every case.
        pub(crate) async fn all(factory: &dyn Factory) {
            $(
                eprintln!("contract: {}", stringify!($case).replace('_', " "));
                within_deadline($case(factory)).await;
            )+
        }
    };
}

suite![
    a_new_log_is_empty,
    what_was_appended_is_read_back_in_order,
    concurrent_appenders_keep_the_order_of_each_device,
    positions_are_contiguous_and_say_where_the_record_is,
    every_field_of_a_record_survives,
    reading_starts_in_the_middle_of_an_append,
    reading_stops_at_about_max_bytes_but_gives_at_least_one_record,
    an_append_of_nothing_is_nothing,
    ten_thousand_records_fit_one_append,
    a_payload_of_one_mebibyte_survives,
    an_append_above_the_limit_is_refused,
    append_times_never_decrease,
    reading_after_the_end_is_out_of_range,
    a_heartbeat_takes_an_offset_in_every_partition,
    the_watch_fires_when_something_can_be_read,
    reopening_keeps_everything,
    committed_positions_survive_reopening,
    truncating_keeps_what_comes_after,
    truncating_everything_keeps_the_end,
    an_unknown_partition_is_an_error,
    a_closed_log_refuses_everything,
];

async fn within_deadline<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("the log did not answer in time")
}

/// A message of a device.
pub(crate) fn message(hardware_id: &str, payload: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        kind: RecordKind::Message,
        tenant: TenantId::new("default").unwrap(),
        hardware_id: hardware_id.to_owned(),
        bound: true,
        redelivered: false,
        payload: payload.into(),
    }
}

/// An id of a device that is filed in `partition`.
pub(crate) fn device_of(partition: u32, n_partitions: u32) -> String {
    (0..)
        .map(|i| format!("meter-{i}"))
        .find(|id| partition_of("default", id, n_partitions) == partition)
        .unwrap()
}

/// A record as the suite compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: u64,
    pub(crate) hardware_id: String,
    pub(crate) payload: Vec<u8>,
}

fn records(block: &RecordBlock) -> Vec<(u64, Record<'_>)> {
    let records: Vec<_> = block.iter().collect::<Result<_, _>>().expect("frames are whole");
    assert_eq!(records.len(), block.n_records as usize, "the block's count is right");
    records
}

/// Everything of a partition from `from` on.
pub(crate) async fn read_all(log: &dyn InboundLog, partition: u32, from: u64) -> Vec<Seen> {
    let mut next = from;
    let mut seen = Vec::new();
    while let Some(block) = within_deadline(log.read(partition, next, 64 * 1024))
        .await
        .expect("the partition can be read")
    {
        assert_eq!(block.partition, partition);
        assert!(block.base_offset >= next, "no record comes twice");
        for (offset, record) in records(&block) {
            seen.push(Seen {
                offset,
                hardware_id: record.hardware_id.to_owned(),
                payload: record.payload.to_vec(),
            });
        }
        next = block.end_offset();
    }
    assert_eq!(next, log.bounds(partition).await.unwrap().end, "reading ends at the end");
    seen
}

async fn a_new_log_is_empty(factory: &dyn Factory) {
    let log = factory.place(3).await.open().await;
    assert_eq!(log.n_partitions(), 3);
    for partition in 0..3 {
        assert_eq!(log.bounds(partition).await.unwrap(), 0..0);
        assert_eq!(log.read(partition, 0, 1024).await.unwrap(), None);
    }
    assert_eq!(log.committed("engine").await.unwrap(), [None, None, None]);
    log.close().await.unwrap();
}

async fn what_was_appended_is_read_back_in_order(factory: &dyn Factory) {
    let log = factory.place(4).await.open().await;
    let mut expected: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
    for round in 0..20 {
        let batch: Vec<_> = (0..7).map(|d| message(&format!("meter-{d}"), format!("{round} of {d}"))).collect();
        let positions = log.append(batch.clone()).await.unwrap();
        assert_eq!(positions.len(), batch.len());
        for (position, record) in positions.iter().zip(&batch) {
            assert_eq!(
                position.partition,
                partition_of("default", &record.hardware_id, 4),
                "a device has one partition"
            );
            let seen = Seen {
                offset: position.offset,
                hardware_id: record.hardware_id.clone(),
                payload: record.payload.to_vec(),
            };
            expected.entry(position.partition).or_default().push(seen);
        }
    }
    for partition in 0..4 {
        assert_eq!(read_all(&*log, partition, 0).await, expected.remove(&partition).unwrap_or_default());
    }
    log.close().await.unwrap();
}

async fn concurrent_appenders_keep_the_order_of_each_device(factory: &dyn Factory) {
    let log = factory.place(2).await.open().await;
    let appenders: Vec<_> = (0..50)
        .map(|device| {
            let log = log.clone();
            tokio::spawn(async move {
                for i in 0..20 {
                    log.append(vec![message(&format!("meter-{device}"), format!("{i}"))]).await.unwrap();
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    let mut per_device: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in 0..2 {
        for seen in read_all(&*log, partition, 0).await {
            per_device
                .entry(seen.hardware_id)
                .or_default()
                .push(String::from_utf8(seen.payload).unwrap());
        }
    }
    assert_eq!(per_device.len(), 50);
    let in_order: Vec<_> = (0..20).map(|i| i.to_string()).collect();
    for (device, payloads) in per_device {
        assert_eq!(payloads, in_order, "{device}");
    }
    log.close().await.unwrap();
}

async fn positions_are_contiguous_and_say_where_the_record_is(factory: &dyn Factory) {
    let log = factory.place(2).await.open().await;
    let mut next = [0, 0];
    for round in 0..10 {
        let batch = (0..5).map(|d| message(&format!("meter-{d}"), format!("{round}/{d}"))).collect();
        for position in log.append(batch).await.unwrap() {
            assert_eq!(position.offset, next[position.partition as usize], "offsets are consecutive");
            next[position.partition as usize] += 1;
        }
    }
    for partition in 0..2 {
        assert_eq!(log.bounds(partition).await.unwrap(), 0..next[partition as usize]);
    }
    log.close().await.unwrap();
}

async fn every_field_of_a_record_survives(factory: &dyn Factory) {
    let log = factory.place(1).await.open().await;
    let sent = NewRecord {
        kind: RecordKind::LegacyBatch,
        tenant: TenantId::new("utility-7").unwrap(),
        hardware_id: String::new(),
        bound: false,
        redelivered: true,
        payload: Bytes::from_static(&[0, 255, 10]),
    };
    let also_sent = NewRecord {
        kind: RecordKind::Oversized,
        bound: true,
        redelivered: false,
        ..sent.clone()
    };
    log.append(vec![sent, also_sent]).await.unwrap();
    let block = log.read(0, 0, 4096).await.unwrap().unwrap();
    let records = records(&block);
    let (offset, first) = records[0];
    assert_eq!(
        (offset, first.kind, first.tenant, first.hardware_id),
        (0, RecordKind::LegacyBatch, "utility-7", "")
    );
    assert_eq!((first.bound, first.redelivered, first.payload), (false, true, &[0, 255, 10][..]));
    let (offset, second) = records[1];
    assert_eq!(
        (offset, second.kind, second.bound, second.redelivered),
        (1, RecordKind::Oversized, true, false)
    );
    log.close().await.unwrap();
}

async fn reading_starts_in_the_middle_of_an_append(factory: &dyn Factory) {
    let place = factory.place(1).await;
    let log = place.open().await;
    log.append((0..10).map(|i| message("m", format!("{i}"))).collect()).await.unwrap();
    log.append((10..20).map(|i| message("m", format!("{i}"))).collect()).await.unwrap();
    let check = async |log: &dyn InboundLog| {
        for from in 0..20 {
            let block = log.read(0, from, 1 << 20).await.unwrap().unwrap();
            assert_eq!(block.base_offset, from, "the block starts exactly where the reader stands");
            let (offset, record) = records(&block)[0];
            assert_eq!((offset, record.payload), (from, from.to_string().as_bytes()));
            assert_eq!(read_all(log, 0, from).await.len() as u64, 20 - from);
        }
    };
    check(&*log).await;
    log.close().await.unwrap();
    let log = place.open().await; // now from the disk
    check(&*log).await;
    log.close().await.unwrap();
}

async fn reading_stops_at_about_max_bytes_but_gives_at_least_one_record(factory: &dyn Factory) {
    let log = factory.place(1).await.open().await;
    log.append((0..100).map(|_| message("m", vec![b'x'; 1000])).collect())
        .await
        .unwrap();
    let block = log.read(0, 0, 10_000).await.unwrap().unwrap();
    assert!(
        (5..=11).contains(&block.n_records),
        "{} records in about 10,000 bytes",
        block.n_records
    );
    let block = log.read(0, 50, 1).await.unwrap().unwrap();
    assert_eq!((block.base_offset, block.n_records), (50, 1));
    log.close().await.unwrap();
}

async fn an_append_of_nothing_is_nothing(factory: &dyn Factory) {
    let log = factory.place(1).await.open().await;
    assert_eq!(log.append(Vec::new()).await.unwrap(), []);
    assert_eq!(log.bounds(0).await.unwrap(), 0..0);
    log.close().await.unwrap();
}

async fn ten_thousand_records_fit_one_append(factory: &dyn Factory) {
    let log = factory.place(4).await.open().await;
    let batch: Vec<_> = (0..10_000)
        .map(|i| message(&format!("meter-{}", i % 100), format!("{i:0300}")))
        .collect();
    assert_eq!(log.append(batch).await.unwrap().len(), 10_000);
    let mut n = 0;
    for partition in 0..4 {
        n += read_all(&*log, partition, 0).await.len();
    }
    assert_eq!(n, 10_000);
    log.close().await.unwrap();
}

async fn a_payload_of_one_mebibyte_survives(factory: &dyn Factory) {
    let place = factory.place(1).await;
    let log = place.open().await;
    let payload: Vec<u8> = (0..1024 * 1024_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    log.append(vec![message("m", payload.clone()), message("m", "after")])
        .await
        .unwrap();
    log.close().await.unwrap();
    let log = place.open().await;
    let seen = read_all(&*log, 0, 0).await;
    assert!(seen[0].payload == payload, "a large payload is unchanged");
    assert_eq!(seen[1].payload, b"after");
    log.close().await.unwrap();
}

async fn an_append_above_the_limit_is_refused(factory: &dyn Factory) {
    let log = factory.place(1).await.open().await;
    let payload = Bytes::from(vec![0; 1024 * 1024]);
    let result = log.append((0..64).map(|_| message("m", payload.clone())).collect()).await;
    assert!(matches!(result, Err(LogError::TooLarge { .. })), "{result:?}");
    assert_eq!(log.bounds(0).await.unwrap(), 0..0);
    log.close().await.unwrap();
}

async fn append_times_never_decrease(factory: &dyn Factory) {
    let place = factory.place(1).await;
    for _ in 0..2 {
        let log = place.open().await;
        for _ in 0..5 {
            log.append(vec![message("m", "x"), message("m", "y")]).await.unwrap();
        }
        log.close().await.unwrap();
    }
    let log = place.open().await;
    let block = log.read(0, 0, 1 << 20).await.unwrap().unwrap();
    let times: Vec<EventTime> = records(&block).iter().map(|(_, record)| record.received_at).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(
        times[0] > EventTime::from_micros(1_600_000_000_000_000),
        "stamped with the wall clock"
    );
    log.close().await.unwrap();
}

async fn reading_after_the_end_is_out_of_range(factory: &dyn Factory) {
    let log = factory.place(1).await.open().await;
    log.append(vec![message("m", "x")]).await.unwrap();
    assert_eq!(log.read(0, 1, 1024).await.unwrap(), None);
    let result = log.read(0, 2, 1024).await;
    assert!(
        matches!(&result, Err(LogError::OutOfRange { partition: 0, offset: 2, available }) if *available == (0..1)),
        "{result:?}"
    );
    log.close().await.unwrap();
}

async fn a_heartbeat_takes_an_offset_in_every_partition(factory: &dyn Factory) {
    let log = factory.place(3).await.open().await;
    log.append(vec![message(&device_of(1, 3), "x")]).await.unwrap();
    log.heartbeat().await.unwrap();
    log.append(vec![message(&device_of(1, 3), "y")]).await.unwrap();
    for (partition, end) in [(0, 1), (1, 3), (2, 1)] {
        assert_eq!(log.bounds(partition).await.unwrap(), 0..end);
    }
    let block = log.read(1, 0, 4096).await.unwrap().unwrap();
    let kinds: Vec<_> = records(&block).iter().map(|(_, r)| r.kind).collect();
    assert_eq!(kinds, [RecordKind::Message, RecordKind::Heartbeat, RecordKind::Message]);
    log.close().await.unwrap();
}

async fn the_watch_fires_when_something_can_be_read(factory: &dyn Factory) {
    let log = factory.place(1).await.open().await;
    let mut appended = log.appended();
    for offset in 0..3 {
        appended.mark_unchanged();
        let (fired, positions) = tokio::join!(appended.changed(), log.append(vec![message("m", "x")]));
        fired.unwrap();
        assert_eq!(positions.unwrap(), [LogPosition { partition: 0, offset }]);
        assert!(log.read(0, offset, 1024).await.unwrap().is_some());
    }
    log.close().await.unwrap();
}

async fn reopening_keeps_everything(factory: &dyn Factory) {
    let place = factory.place(2).await;
    let mut expected = [Vec::new(), Vec::new()];
    for round in 0..3 {
        let log = place.open().await;
        for (partition, expected) in expected.iter().enumerate() {
            assert_eq!(read_all(&*log, partition as u32, 0).await, *expected, "before round {round}");
        }
        for i in 0..50 {
            let record = message(&format!("meter-{i}"), format!("{round}/{i}"));
            let position = log.append(vec![record.clone()]).await.unwrap()[0];
            let seen = Seen {
                offset: position.offset,
                hardware_id: record.hardware_id,
                payload: record.payload.to_vec(),
            };
            expected[position.partition as usize].push(seen);
        }
        log.close().await.unwrap();
    }
}

async fn committed_positions_survive_reopening(factory: &dyn Factory) {
    let place = factory.place(3).await;
    let log = place.open().await;
    log.commit(
        "engine",
        &[LogPosition { partition: 0, offset: 7 }, LogPosition { partition: 2, offset: 9 }],
    )
    .await
    .unwrap();
    log.commit("engine", &[LogPosition { partition: 0, offset: 8 }]).await.unwrap();
    log.commit("lake/a b", &[LogPosition { partition: 1, offset: 1 }]).await.unwrap();
    for round in 0..2 {
        let log = if round == 0 { log.clone() } else { place.open().await };
        assert_eq!(log.committed("engine").await.unwrap(), [Some(8), None, Some(9)]);
        assert_eq!(log.committed("lake/a b").await.unwrap(), [None, Some(1), None]);
        assert_eq!(log.committed("nobody").await.unwrap(), [None, None, None]);
        log.close().await.unwrap();
    }
}

async fn truncating_keeps_what_comes_after(factory: &dyn Factory) {
    let place = factory.place(1).await;
    let log = place.open().await;
    for i in 0..100 {
        log.append(vec![message("m", format!("{i}a")), message("m", format!("{i}b"))])
            .await
            .unwrap();
    }
    log.truncate_before(0, 51).await.unwrap();
    log.truncate_before(0, 10).await.unwrap(); // going back is nothing
    for round in 0..2 {
        let log = if round == 0 { log.clone() } else { place.open().await };
        let bounds = log.bounds(0).await.unwrap();
        assert!((1..=51).contains(&bounds.start) && bounds.end == 200, "{bounds:?}");
        assert_eq!(read_all(&*log, 0, 51).await.first().unwrap().payload, b"25b");
        let result = log.read(0, 0, 1024).await;
        assert!(
            matches!(&result, Err(LogError::OutOfRange { offset: 0, available, .. }) if *available == bounds),
            "{result:?}"
        );
        log.close().await.unwrap();
    }
}

async fn truncating_everything_keeps_the_end(factory: &dyn Factory) {
    let place = factory.place(1).await;
    let log = place.open().await;
    log.append((0..10).map(|i| message("m", format!("{i}"))).collect()).await.unwrap();
    log.truncate_before(0, 10).await.unwrap();
    log.close().await.unwrap();
    let log = place.open().await;
    assert_eq!(log.bounds(0).await.unwrap(), 10..10);
    assert_eq!(log.read(0, 10, 1024).await.unwrap(), None);
    assert_eq!(
        log.append(vec![message("m", "x")]).await.unwrap(),
        [LogPosition { partition: 0, offset: 10 }]
    );
    assert_eq!(read_all(&*log, 0, 10).await.len(), 1);
    log.close().await.unwrap();
}

async fn an_unknown_partition_is_an_error(factory: &dyn Factory) {
    let log = factory.place(2).await.open().await;
    assert!(matches!(
        log.bounds(2).await,
        Err(LogError::NoPartition {
            partition: 2,
            n_partitions: 2
        })
    ));
    assert!(matches!(log.read(2, 0, 1).await, Err(LogError::NoPartition { .. })));
    assert!(matches!(log.truncate_before(9, 0).await, Err(LogError::NoPartition { .. })));
    assert!(matches!(
        log.commit("engine", &[LogPosition { partition: 2, offset: 0 }]).await,
        Err(LogError::NoPartition { .. })
    ));
    log.close().await.unwrap();
}

async fn a_closed_log_refuses_everything(factory: &dyn Factory) {
    let log = factory.place(1).await.open().await;
    log.append(vec![message("m", "x")]).await.unwrap();
    log.close().await.unwrap();
    log.close().await.unwrap();
    assert!(matches!(log.append(vec![message("m", "x")]).await, Err(LogError::Closed)));
    assert!(matches!(log.append(Vec::new()).await, Err(LogError::Closed)));
    assert!(matches!(log.heartbeat().await, Err(LogError::Closed)));
    assert!(matches!(log.read(0, 0, 1024).await, Err(LogError::Closed)));
    assert!(matches!(log.bounds(0).await, Err(LogError::Closed)));
    assert!(matches!(log.commit("engine", &[]).await, Err(LogError::Closed)));
    assert!(matches!(log.committed("engine").await, Err(LogError::Closed)));
    assert!(matches!(log.truncate_before(0, 1).await, Err(LogError::Closed)));
}
