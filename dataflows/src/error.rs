//! What can stop the engine.

use flexmeter_model::record::FrameError;

use crate::checkpoint::CheckpointError;

/// Why the engine cannot go on. Bad messages are never an error here (they are rows); these are faults of the log, of a checkpoint or
/// of the engine itself. After the first one the engine stays stopped: start a new one from the last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A configuration value cannot be used.
    #[error("engine setting {setting} cannot be {value}: {expected}")]
    Setting {
        /// Name of the field.
        setting: &'static str,
        /// Its value.
        value: i64,
        /// What it should be.
        expected: &'static str,
    },
    /// A share or standard deviation that cannot be used.
    #[error("engine setting {setting} cannot be {value}: use a number between 0 and 1")]
    Share {
        /// Name of the field.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// A number that cannot be used.
    #[error("engine setting {setting} cannot be {value}: {expected}")]
    Number {
        /// Name of the field.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A record in the log cannot be read.
    #[error("log partition {partition} is corrupt at offset {offset}: {source}; restore the log from a copy")]
    CorruptRecord {
        /// The log partition.
        partition: u32,
        /// Offset of the first record that cannot be read.
        offset: u64,
        /// What is wrong with its frame.
        source: FrameError,
    },
    /// A block holds another number of records than it says.
    #[error("block at offset {base_offset} of log partition {partition} says {expected} records and holds {found}")]
    BlockLength {
        /// The log partition.
        partition: u32,
        /// Offset of the block's first record.
        base_offset: u64,
        /// Records it says it has.
        expected: u32,
        /// Records it has.
        found: u32,
    },
    /// A block begins before the end of what was already read.
    #[error("log partition {partition} was fed offset {found} again, the next one is {expected}")]
    OffsetOutOfOrder {
        /// The log partition.
        partition: u32,
        /// The lowest offset that may come next.
        expected: u64,
        /// The offset that came.
        found: u64,
    },
    /// A block or checkpoint names a partition that does not exist.
    #[error("log partition {partition} does not exist, the engine has {n_partitions}")]
    UnknownPartition {
        /// The partition named.
        partition: u32,
        /// How many there are.
        n_partitions: u32,
    },
    /// Epochs are fed in order, without gaps.
    #[error("epoch {found} was fed, the next one is {expected}")]
    EpochOutOfOrder {
        /// The next epoch.
        expected: u64,
        /// The epoch fed.
        found: u64,
    },
    /// Two checkpoints of one partition were given.
    #[error("log partition {partition} has two checkpoints; give one")]
    CheckpointTwice {
        /// The log partition.
        partition: u32,
    },
    /// A checkpoint cannot be read.
    #[error("checkpoint of log partition {partition} at offset {offset}: {source}")]
    Checkpoint {
        /// The log partition.
        partition: u32,
        /// The offset it claims.
        offset: u64,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// A worker thread panicked: a defect of this program.
    #[error("engine worker {worker} panicked: {message}")]
    WorkerPanicked {
        /// Index of the worker.
        worker: usize,
        /// The panic's text.
        message: String,
    },
    /// The receiver of closed epochs was dropped while epochs were still coming.
    #[error("nobody takes the closed epochs any more: their receiver was dropped")]
    OutcomesNotTaken,
    /// The operating system refused a thread.
    #[error("the engine's threads could not be started: {reason}")]
    Threads {
        /// What the system said.
        reason: String,
    },
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}
