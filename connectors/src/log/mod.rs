//! The inbound log: a message is in here, durably, before its PUBACK goes out.
//!
//! [`InboundLog`] is the one trait; [`embedded`] keeps it in fjall, [`kafka`] in Apache Kafka. Both pass the suite in
//! [`contract`], so the rest of the house never asks which one it has.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use flexmeter_model::TenantId;
use flexmeter_model::record::{RecordBlock, RecordKind};

/// A record on its way into the log; the log stamps the append time and chooses the partition by tenant and hardware id.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// What the payload is.
    pub kind: RecordKind,
    /// Tenant of the topic.
    pub tenant: TenantId,
    /// Device it is filed under; may be empty.
    pub hardware_id: String,
    /// Published by the device itself (see `model::record::Record::bound`).
    pub bound: bool,
    /// MQTT's DUP flag.
    pub redelivered: bool,
    /// The bytes as published.
    pub payload: Bytes,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Partition.
    pub partition: u32,
    /// Offset of a record, or of the next one to read.
    pub offset: u64,
}

/// A durable, partitioned, append-only log.
#[async_trait]
pub trait InboundLog: Send + Sync + 'static {
    /// Number of partitions; fixed for the life of a log.
    fn n_partitions(&self) -> u32;

    /// Appends records and returns once all of them are durable (embedded: fsync; Kafka: acks=all). Concurrent callers share one
    /// group commit. Positions come back in the order of the records.
    ///
    /// # Errors
    /// [`LogError`] when any record may not be durable; the caller must then not acknowledge any of them.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<LogPosition>, LogError>;

    /// Appends a heartbeat to every partition, stamped with the append time. Not durable by itself: it only moves log time.
    async fn heartbeat(&self) -> Result<(), LogError>;

    /// Reads records of one partition from `from` on, at most about `max_bytes` but at least one if there is one.
    /// `None` when `from` is the end. A `from` before the first retained offset is an error that names it.
    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Option<RecordBlock>, LogError>;

    /// First retained offset and the end (next offset to be written) of a partition.
    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError>;

    /// A receiver that changes whenever something new can be read.
    fn appended(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Stores a consumer's next offsets durably.
    async fn commit(&self, consumer: &str, positions: &[LogPosition]) -> Result<(), LogError>;

    /// A consumer's stored next offset of each partition (index = partition).
    async fn committed(&self, consumer: &str) -> Result<Vec<Option<u64>>, LogError>;

    /// Allows everything before `before` to be deleted. Whole blocks or segments go; a record at or after `before` never does.
    async fn truncate_before(&self, partition: u32, before: u64) -> Result<(), LogError>;

    /// Makes everything durable and closes. Later calls fail with [`LogError::Closed`].
    async fn close(&self) -> Result<(), LogError>;
}

/// What can go wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The log has been closed.
    #[error("the log is closed")]
    Closed,
    /// The offset is no longer, or not yet, in the log.
    #[error("offset {offset} of partition {partition} is outside {available:?}; restore a checkpoint that starts inside it")]
    OutOfRange {
        /// Partition.
        partition: u32,
        /// Offset asked for.
        offset: u64,
        /// What the log has.
        available: Range<u64>,
    },
}
