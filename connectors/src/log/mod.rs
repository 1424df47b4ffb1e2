//! The inbound log: a message is in here, durably, before its PUBACK goes out.
//!
//! [`InboundLog`] is the one trait; [`embedded`] keeps it in fjall, `kafka` in Apache Kafka. Both pass the suite in
//! `contract.rs`, so the rest of the house never asks which one it has. Start with [`open`].

pub mod config;
pub mod embedded;
pub mod error;
mod group_commit;
#[cfg(feature = "kafka")]
pub mod kafka;

#[cfg(test)]
mod contract;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use flexmeter_model::TenantId;
use flexmeter_model::record::{RecordBlock, RecordKind};

pub use config::{KafkaConfig, LogConfig, LogKind};
pub use error::{LogError, Retry};

/// Largest number of bytes one [`InboundLog::append`] may carry (64 MiB): a batch is split into records of at most
/// `model::record::PAYLOAD_LEN_MAX`, and whoever has more of them appends twice.
pub const APPEND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Largest number of bytes that may wait for the disk (64 MiB). Whoever comes later waits in [`InboundLog::append`] until there is
/// room: the brake goes back to the device, never into unbounded memory.
pub const APPEND_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a record costs besides its payload and ids, in bytes: its frame's head and its place in the queues.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 64;

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

impl NewRecord {
    /// What this record costs while it waits, in bytes.
    pub(crate) fn cost_bytes(&self) -> usize {
        RECORD_OVERHEAD_BYTES + self.hardware_id.len() + self.payload.len()
    }
}

/// What an append costs while it waits, in bytes.
///
/// # Errors
/// [`LogError::TooLarge`] above [`APPEND_BYTES_MAX`].
pub(crate) fn append_cost_bytes(records: &[NewRecord]) -> Result<usize, LogError> {
    let len = records.iter().map(NewRecord::cost_bytes).sum();
    if len > APPEND_BYTES_MAX {
        return Err(LogError::TooLarge { len });
    }
    Ok(len)
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
    /// group commit. Positions come back in the order of the records; records of one device keep their order.
    ///
    /// Waits while more than [`APPEND_QUEUE_BYTES_MAX`] is on its way to the disk. Dropping the future gives the answer up, not the
    /// records: they may be stored.
    ///
    /// # Errors
    /// [`LogError`] when any record may not be durable; the caller must then not acknowledge any of them. What was not acknowledged
    /// may be in the log or not, once at most.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<LogPosition>, LogError>;

    /// Appends a heartbeat to every partition, stamped with the append time: it moves log time while no device speaks. It takes an
    /// offset like any record, and is as durable as any record before a reader sees it: whoever stores "read up to offset n" must
    /// find the same n offsets after a power cut.
    ///
    /// # Errors
    /// As [`InboundLog::append`].
    async fn heartbeat(&self) -> Result<(), LogError>;

    /// Reads records of one partition from `from` on, at most about `max_bytes` but at least one if there is one.
    /// `None` when `from` is the end. The block starts at `from`, or later when offsets are missing there (Kafka leaves gaps, a
    /// damaged and repaired embedded log too); it has none inside.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] when `from` is before the first retained offset or after the end.
    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Option<RecordBlock>, LogError>;

    /// First retained offset and the end (next offset to be written) of a partition.
    ///
    /// # Errors
    /// [`LogError::NoPartition`] when there is no such partition, [`LogError`] when the log cannot be asked.
    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError>;

    /// A receiver that changes whenever something new can be read.
    fn appended(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Stores a consumer's next offsets durably. Partitions that are not named keep what they had.
    ///
    /// # Errors
    /// [`LogError`] when the positions may not be durable.
    async fn commit(&self, consumer: &str, positions: &[LogPosition]) -> Result<(), LogError>;

    /// A consumer's stored next offset of each partition (index = partition).
    ///
    /// # Errors
    /// [`LogError`] when the log cannot be asked.
    async fn committed(&self, consumer: &str) -> Result<Vec<Option<u64>>, LogError>;

    /// Allows everything before `before` to be deleted. Whole blocks or segments go; a record at or after `before` never does.
    ///
    /// # Errors
    /// [`LogError`] when the log could not do it; nothing at or after `before` is touched.
    async fn truncate_before(&self, partition: u32, before: u64) -> Result<(), LogError>;

    /// Makes everything durable and closes. Later calls fail with [`LogError::Closed`]; closing again does nothing.
    ///
    /// # Errors
    /// [`LogError`] when something that was not acknowledged could not be written.
    async fn close(&self) -> Result<(), LogError>;
}

/// Opens the log that `config` asks for. The embedded one lives in `<data_dir>/log`.
///
/// # Errors
/// [`LogError`] when it cannot be opened; the text says what to change.
pub async fn open(config: &LogConfig, data_dir: &Path) -> Result<Arc<dyn InboundLog>, LogError> {
    match config.kind {
        LogKind::Embedded => {
            let options = embedded::EmbeddedOptions {
                n_partitions: config.partitions,
                ..Default::default()
            };
            Ok(Arc::new(embedded::EmbeddedLog::open(&data_dir.join("log"), options).await?))
        }
        #[cfg(feature = "kafka")]
        LogKind::Kafka => Ok(Arc::new(kafka::KafkaLog::open(&config.kafka, config.partitions).await?)),
        #[cfg(not(feature = "kafka"))]
        LogKind::Kafka => Err(LogError::NotBuilt),
    }
}

/// `partition` as an index, if there is such a partition.
pub(crate) fn partition_index(partition: u32, n_partitions: u32) -> Result<usize, LogError> {
    if partition < n_partitions {
        Ok(partition as usize)
    } else {
        Err(LogError::NoPartition { partition, n_partitions })
    }
}
