//! What can go wrong in the lake.

use std::sync::Arc;

use deltalake::DeltaTableError;
use deltalake::kernel::transaction::TransactionError;

/// When a failed operation is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Never: a person must act.
    Never,
    /// After a pause: the disk or the network may recover.
    Backoff,
}

/// An error of the lake. It can be cloned: one failure is told to everyone who waits for the same commit.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// A setting is out of range.
    #[error("lake.{key} is {value}; it must be from {min} to {max}")]
    Config {
        /// The key, without its section.
        key: &'static str,
        /// The value found.
        value: u64,
        /// Smallest value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// The folder cannot be used.
    #[error("the lake's folder {path} cannot be used: {source}; check that it exists, is writable and has space")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// A table in the folder has other columns than this version writes.
    #[error(
        "lake table {table} has columns ({found}), this version writes ({expected}); move the table away or use the version that wrote it"
    )]
    OtherColumns {
        /// `<tenant>/<table>`.
        table: String,
        /// Columns and types found.
        found: String,
        /// Columns and types expected.
        expected: String,
    },
    /// Somebody else wrote to a table of ours.
    #[error(
        "lake table {table} was changed by another writer after version {version}; each table has one writer: stop the other process, then restart this one"
    )]
    AnotherWriter {
        /// `<tenant>/<table>`.
        table: String,
        /// The version we held.
        version: u64,
    },
    /// A commit would move a log partition's position backwards.
    #[error("lake table {table} holds log partition {partition} up to offset {committed}; a commit up to {offset} would go back")]
    GoesBack {
        /// `<tenant>/<table>`.
        table: String,
        /// The log partition.
        partition: u32,
        /// The offset in the table.
        committed: u64,
        /// The offset of the refused commit.
        offset: u64,
    },
    /// The table format's library failed.
    #[error("lake table {table}: {doing} failed: {source}")]
    Delta {
        /// `<tenant>/<table>`.
        table: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Arc<DeltaTableError>,
    },
    /// Rows could not be put into columns: a defect.
    #[error("lake table {table}: rows do not fit its columns: {source}")]
    Columns {
        /// `<tenant>/<table>`.
        table: String,
        /// Why.
        source: Arc<arrow::error::ArrowError>,
    },
    /// A data file could not be encoded or stored.
    #[error("lake table {table}: data file {file} could not be written: {reason}; check that the disk has space")]
    DataFile {
        /// `<tenant>/<table>`.
        table: String,
        /// The file, below the table's folder.
        file: String,
        /// Why.
        reason: String,
    },
    /// Too many tenants.
    #[error("tenant {tenant} would be the lake's {n}th, the limit is {limit}", n = limit + 1)]
    TooManyTenants {
        /// The tenant that is one too many.
        tenant: String,
        /// The limit.
        limit: usize,
    },
    /// The lake stopped earlier, for the reason given then.
    #[error("the lake has stopped: {reason}")]
    Stopped {
        /// The first error.
        reason: String,
    },
}

impl LakeError {
    /// Whether trying again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Folder { .. } | Self::Delta { .. } | Self::DataFile { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    pub(super) fn delta(table: &str, doing: &'static str, source: DeltaTableError) -> Self {
        Self::Delta {
            table: table.to_owned(),
            doing,
            source: Arc::new(source),
        }
    }

    pub(super) fn columns(table: &str, source: arrow::error::ArrowError) -> Self {
        Self::Columns {
            table: table.to_owned(),
            source: Arc::new(source),
        }
    }
}

/// Whether a failed commit means that the table has another writer.
pub(super) fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
            }
    )
}
