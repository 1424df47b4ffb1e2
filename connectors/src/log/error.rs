//! What can go wrong with a log, and whether trying again helps.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::APPEND_BYTES_MAX;
use super::config::N_PARTITIONS_MAX;

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: the call or the configuration is wrong.
    Never,
    /// Yes, at once.
    Now,
    /// Yes, after a pause: a disk is full, a server is away.
    Backoff,
}

/// What can go wrong with a log. Cloned to every caller that shared the failed group commit.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// There is no such partition.
    #[error("partition {partition} does not exist; the log has {n_partitions}")]
    NoPartition {
        /// Partition asked for.
        partition: u32,
        /// How many there are.
        n_partitions: u32,
    },
    /// One append carries too much.
    #[error("an append of {len} bytes is above the limit of {APPEND_BYTES_MAX}; split it")]
    TooLarge {
        /// Bytes found.
        len: usize,
    },
    /// The configured number of partitions cannot be.
    #[error("{n_partitions} partitions are configured, 1 to {N_PARTITIONS_MAX} are possible; correct log.partitions")]
    PartitionCount {
        /// The number configured.
        n_partitions: u32,
    },
    /// The log was made with another number of partitions; devices would change partition and lose their order.
    #[error("{log} has {found} partitions, {configured} are configured; set log.partitions = {found}, or begin a new log")]
    PartitionsChanged {
        /// Folder or topic.
        log: String,
        /// What it was made with.
        found: u32,
        /// What the configuration says.
        configured: u32,
    },
    /// Another process, or another instance in this one, has the folder open.
    #[error("the log in {dir} is in use by another process; stop it first, or choose another data_dir")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder holds something else, or a log of another version.
    #[error("{dir} does not hold a log this version can read: {what}; choose another data_dir, or run the version that wrote it")]
    Format {
        /// The folder.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk is nearly full. The log stops before it is full, so that what it holds can still be put in order.
    #[error("{free} bytes are free in {dir}, the log needs {reserve}; free some space, it resumes by itself")]
    DiskFull {
        /// The folder.
        dir: PathBuf,
        /// Free bytes.
        free: u64,
        /// The least that must stay free.
        reserve: u64,
    },
    /// Reading or writing the disk failed.
    #[error("{action} in {dir} failed: {reason}; the log tries again by itself, check the disk")]
    Storage {
        /// What was tried.
        action: &'static str,
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        reason: Arc<str>,
    },
    /// Acknowledged records are missing or damaged.
    #[error("partition {partition} of the log in {dir} is damaged: {what}; restore the folder from a backup")]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// Partition.
        partition: u32,
        /// What is wrong.
        what: String,
    },
    /// Kafka refused, or did not answer.
    #[error("{action} on kafka at {brokers} failed: {reason}")]
    Kafka {
        /// What was tried.
        action: &'static str,
        /// Bootstrap servers.
        brokers: String,
        /// What the client said.
        reason: Arc<str>,
        /// Whether trying again helps.
        retry: Retry,
    },
    /// This program was built without Kafka.
    #[error("log.kind = \"kafka\", but this program was built without the feature `kafka`; build it in, or use \"embedded\"")]
    NotBuilt,
}

impl LogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::DiskFull { .. } | Self::Storage { .. } | Self::InUse { .. } => Retry::Backoff,
            Self::Kafka { retry, .. } => *retry,
            Self::Closed
            | Self::OutOfRange { .. }
            | Self::NoPartition { .. }
            | Self::TooLarge { .. }
            | Self::PartitionCount { .. }
            | Self::PartitionsChanged { .. }
            | Self::Format { .. }
            | Self::Damaged { .. }
            | Self::NotBuilt => Retry::Never,
        }
    }
}
