//! The fjall database below the embedded log: one keyspace per partition, one key per block.
//!
//! Keys only grow, so tables never overlap: fjall moves them down its levels without rewriting them, a record is written twice in all
//! (journal, table), and what is no longer needed goes as whole tables.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, UserValue};
use flexmeter_model::EventTime;
use flexmeter_model::record::{Record, RecordBlock};

use super::EmbeddedOptions;
use super::block::{self, Assembler, BlockError};
use super::journal::{self, Trust};
use crate::log::LogError;

/// Smallest memtable of a partition (1 MiB).
const MEMTABLE_BYTES_MIN: u64 = 1024 * 1024;
/// Cache of table blocks (16 MiB): readers run along the end of the log, which is in memory anyway.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Journals on disk before idle partitions are flushed too (256 MiB). It bounds what a restart replays.
const JOURNALS_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Threads that flush and move tables.
const N_WORKERS: usize = 2;
/// Memtables of a partition that may wait for their flush. fjall itself stops a writer at four and then waits for ever if its flusher
/// has died of a full disk, so we stop before, where we can see the failure.
const SEALED_MEMTABLES_MAX: usize = 3;
/// How often a stopped writer looks again.
const FLUSH_POLL: Duration = Duration::from_millis(1);

/// Keyspace of consumer positions and first retained offsets.
const POSITIONS: &str = "positions";
/// Key in [`POSITIONS`]: append time of the newest group that stored a position, in microseconds.
const APPEND_TIME: &[u8] = b"append-time";

/// One group's share of one partition.
pub(super) struct NewBlock {
    pub(super) partition: usize,
    pub(super) base_offset: u64,
    pub(super) value: UserValue,
}

/// The open database. Everything in here blocks.
pub(super) struct Store {
    dir: PathBuf,
    partitions: Vec<Keyspace>,
    positions: Keyspace,
    database: Database,
}

impl Store {
    /// Opens or makes the database in `dir`, after its journals were put in order.
    pub(super) fn open(dir: &Path, options: &EmbeddedOptions, trust: Trust) -> Result<Self, LogError> {
        journal::repair(dir, trust)?;
        let failed = |error: fjall::Error| match error {
            fjall::Error::Locked => LogError::InUse { dir: dir.to_owned() },
            error => storage_error("opening the store", dir, &error),
        };
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .journal_compression(CompressionType::None)
            .worker_threads(N_WORKERS)
            .open()
            .map_err(failed)?;
        let n_partitions = options.n_partitions;
        let memtable_bytes = (options.memtables_bytes / u64::from(n_partitions)).max(MEMTABLE_BYTES_MIN);
        let keyspace_options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memtable_bytes)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                .filter_policy(FilterPolicy::disabled()) // nobody asks for keys that may not exist
        };
        let partitions = (0..n_partitions)
            .map(|p| database.keyspace(&format!("partition-{p}"), keyspace_options))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let positions = database
            .keyspace(POSITIONS, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MIN))
            .map_err(failed)?;
        Ok(Self {
            dir: dir.to_owned(),
            partitions,
            positions,
            database,
        })
    }

    /// First retained offset and end of a partition, as they are on disk.
    pub(super) fn bounds(&self, partition: usize) -> Result<Range<u64>, LogError> {
        let stored_start = self.get(&start_key(partition))?.unwrap_or(0);
        let keyspace = &self.partitions[partition];
        let (first, end) = match (keyspace.first_key_value(), keyspace.last_key_value()) {
            (Some(first), Some(last)) => {
                let first = first.key().map_err(|e| storage_error("reading the first block", &self.dir, &e))?;
                let (key, value) = last
                    .into_inner()
                    .map_err(|e| storage_error("reading the last block", &self.dir, &e))?;
                let base = self.checked(partition, block::offset_of(&key))?;
                let (n_records, _) = self.checked(partition, block::split(base, &value))?;
                (self.checked(partition, block::offset_of(&first))?, base + u64::from(n_records))
            }
            _ => (0, 0),
        };
        let start = stored_start.max(first);
        Ok(start..end.max(start))
    }

    /// The latest append time there was.
    pub(super) fn last_append_time(&self) -> Result<Option<EventTime>, LogError> {
        // stored with every position, for the case that the records themselves have been truncated away
        let mut latest = self.get(APPEND_TIME)?.map(|bits| EventTime::from_micros(bits.cast_signed()));
        for partition in 0..self.partitions.len() {
            latest = latest.max(self.last_block_time(partition)?);
        }
        Ok(latest)
    }

    fn last_block_time(&self, partition: usize) -> Result<Option<EventTime>, LogError> {
        let Some(last) = self.partitions[partition].last_key_value() else {
            return Ok(None);
        };
        let (key, value) = last
            .into_inner()
            .map_err(|e| storage_error("reading the last block", &self.dir, &e))?;
        let base = self.checked(partition, block::offset_of(&key))?;
        let (_, frames) = self.checked(partition, block::split(base, &value))?;
        // all records of a block were stamped together, so the first speaks for all
        let (record, _) = Record::decode(frames, 0).map_err(|e| self.damaged(partition, e.to_string()))?;
        Ok(Some(record.received_at))
    }

    /// Makes a group durable: one journal batch, one fsync. Nothing of it is readable before that.
    pub(super) fn write(&self, blocks: Vec<NewBlock>, entries: Vec<(Vec<u8>, u64)>, at: EventTime) -> Result<(), LogError> {
        let failed = |e: fjall::Error| storage_error("writing a group", &self.dir, &e);
        self.wait_for_flush().map_err(failed)?;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for block in blocks {
            batch.insert(&self.partitions[block.partition], block::key(block.base_offset), block.value);
        }
        if !entries.is_empty() {
            batch.insert(&self.positions, APPEND_TIME, at.micros().to_le_bytes());
        }
        for (key, value) in entries {
            batch.insert(&self.positions, key, value.to_le_bytes());
        }
        batch.commit().map_err(failed)
    }

    /// Reads records of a partition in `from..end`.
    pub(super) fn read(&self, partition: usize, from: u64, end: u64, bytes_max: usize) -> Result<Option<RecordBlock>, LogError> {
        let failed = |e: fjall::Error| storage_error("reading blocks", &self.dir, &e);
        let keyspace = &self.partitions[partition];
        let mut assembler = Assembler::new(partition as u32, from, bytes_max);
        let mut blocks = keyspace
            .range(block::key(from)..block::key(end))
            .map(|guard| guard.into_inner().map_err(failed))
            .peekable();
        // a reader that goes on where it stopped usually stands at the beginning of a block; else `from` is inside the one before
        let starts_here = match blocks.peek() {
            Some(Ok((key, _))) => self.checked(partition, block::offset_of(key))? == from,
            _ => false,
        };
        if !starts_here && let Some(before) = keyspace.range(..block::key(from)).next_back() {
            let (key, value) = before.into_inner().map_err(failed)?;
            let base = self.checked(partition, block::offset_of(&key))?;
            if !self.checked(partition, assembler.push(base, &value))? {
                return Ok(assembler.finish());
            }
        }
        for next in blocks {
            let (key, value) = next?;
            let base = self.checked(partition, block::offset_of(&key))?;
            if !self.checked(partition, assembler.push(base, &value))? {
                break;
            }
        }
        Ok(assembler.finish())
    }

    /// The beginning of the block that holds `offset`, or of the first one behind it.
    pub(super) fn block_start(&self, partition: usize, offset: u64) -> Result<Option<u64>, LogError> {
        let Some(before) = self.partitions[partition].range(..=block::key(offset)).next_back() else {
            return Ok(None);
        };
        let key = before.key().map_err(|e| storage_error("reading a key", &self.dir, &e))?;
        Ok(Some(self.checked(partition, block::offset_of(&key))?))
    }

    /// Gives the disk space of whole tables before `start` back.
    pub(super) fn drop_before(&self, partition: usize, start: u64) -> Result<(), LogError> {
        self.partitions[partition]
            .tree
            .drop_range(..block::key(start))
            .map_err(|e| storage_error("dropping old tables", &self.dir, &e.into()))
    }

    /// Deletes the files of dropped tables, if something has been written since. fjall does it itself when it next puts a memtable
    /// away; an idle log would keep them until then. The positions are small, and have just been written to.
    pub(super) fn collect_dropped(&self) -> Result<(), LogError> {
        self.positions
            .rotate_memtable()
            .map_err(|e| storage_error("deleting old tables", &self.dir, &e))?;
        Ok(())
    }

    /// Removes every block at or after `end`: what a failed group may have left behind.
    pub(super) fn discard_from(&self, partition: usize, end: u64) -> Result<usize, LogError> {
        let failed = |e: fjall::Error| storage_error("discarding a failed group", &self.dir, &e);
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for guard in self.partitions[partition].range(block::key(end)..) {
            batch.remove(&self.partitions[partition], guard.key().map_err(failed)?);
        }
        let n_blocks = batch.len();
        batch.commit().map_err(failed)?;
        Ok(n_blocks)
    }

    /// A value of the positions keyspace.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<u64>, LogError> {
        let value = self
            .positions
            .get(key)
            .map_err(|e| storage_error("reading a position", &self.dir, &e))?;
        Ok(value.and_then(|v| v.as_ref().try_into().ok().map(u64::from_le_bytes)))
    }

    /// Waits until no partition has too many memtables to flush; fails when the flusher has died.
    fn wait_for_flush(&self) -> Result<(), fjall::Error> {
        while self.partitions.iter().any(|p| p.sealed_memtable_count() >= SEALED_MEMTABLES_MAX) {
            self.database.persist(PersistMode::Buffer)?; // an error here is the flusher's
            std::thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }

    fn checked<T>(&self, partition: usize, result: Result<T, BlockError>) -> Result<T, LogError> {
        result.map_err(|e| self.damaged(partition, e.to_string()))
    }

    fn damaged(&self, partition: usize, what: String) -> LogError {
        LogError::Damaged {
            dir: self.dir.clone(),
            partition: partition as u32,
            what,
        }
    }
}

/// Key of a partition's first retained offset.
pub(super) fn start_key(partition: usize) -> Vec<u8> {
    format!("start/{partition}").into_bytes()
}

/// Key of a consumer's position.
pub(super) fn consumer_key(consumer: &str, partition: u32) -> Vec<u8> {
    format!("consumer/{partition}/{consumer}").into_bytes()
}

fn storage_error(action: &'static str, dir: &Path, error: &fjall::Error) -> LogError {
    let reason: Arc<str> = match error {
        fjall::Error::Io(e) => e.to_string().into(),
        fjall::Error::Storage(e) => e.to_string().into(),
        fjall::Error::Poisoned => "an earlier write failed".into(),
        e => format!("{e:?}").into(),
    };
    LogError::Storage {
        action,
        dir: dir.to_owned(),
        reason,
    }
}
