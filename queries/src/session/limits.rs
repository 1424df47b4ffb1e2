//! How much one statement may take. Named here, reached in the tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Longest SQL text, in bytes.
pub const SQL_LEN_MAX: usize = 1024 * 1024;
/// Most parameters of a statement.
pub const PARAMETERS_MAX: usize = 1000;
/// How long a statement may be planned and run by default, in seconds.
pub const STATEMENT_SECONDS_MAX: u64 = 300;
/// Statements that run at once by default.
pub const STATEMENTS_CONCURRENT_MAX: usize = 8;
/// Statements that may wait for a slot; one more is refused.
pub const STATEMENTS_WAITING_MAX: usize = 256;
/// Memory for sorting, joining and grouping of one statement by default, in bytes.
pub const MEMORY_PER_STATEMENT_BYTES: usize = 512 * 1024 * 1024;
/// Disk all statements together may spill to, in bytes.
pub const SPILL_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// The limits of a [`super::SqlService`].
#[derive(Debug, Clone)]
pub struct SqlLimits {
    /// Planning and running of one statement.
    pub statement_time: Duration,
    /// Rows a statement may give; one more ends it with an error. `None`: no cap.
    pub rows: Option<u64>,
    /// Memory of one statement for sorting, joining and grouping.
    pub memory_bytes: usize,
    /// Statements that run at once.
    pub concurrent: usize,
    /// Threads of all statements.
    pub threads: usize,
    /// Partitions of one statement's plan.
    pub target_partitions: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self {
            statement_time: Duration::from_secs(STATEMENT_SECONDS_MAX),
            rows: None,
            memory_bytes: MEMORY_PER_STATEMENT_BYTES,
            concurrent: STATEMENTS_CONCURRENT_MAX,
            threads: 2,
            target_partitions: 2,
        }
    }
}

/// Counts one waiting statement for as long as it lives.
pub(super) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
