//! The embedded log: fjall below, group commit above.
//!
//! One thread writes (see [`super::group_commit`]); readers never wait for it. A reader sees a record only when its group is on disk:
//! the end of a partition moves after the fsync. What the last groups added stays in memory for readers that follow the end.
//!
//! # When the disk fails
//! A group that could not be written fails for all of its callers, and its offsets are used again: on the next append the store is
//! opened anew, whatever the failed group left behind is removed, and only then does writing go on. Readers keep what was
//! acknowledged. Well before the disk is full ([`DISK_RESERVE_BYTES`]) appends are refused, because fjall needs room to put its
//! memory away.
//!
//! # After a crash
//! Acknowledged records are there. Of the groups that were being written, any may be there whole or not at all.

mod block;
mod folder;
mod journal;
mod store;
mod tail;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use flexmeter_model::EventTime;
use flexmeter_model::record::RecordBlock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use self::store::{Store, consumer_key, start_key};
use self::tail::Tail;
use self::writer::Writer;
use super::config::check_partitions;
use super::group_commit::Committer;
use super::{InboundLog, LogError, LogPosition, NewRecord, partition_index};

/// Free disk space below which nothing is appended (128 MiB): room for fjall's memory to go to tables.
pub const DISK_RESERVE_BYTES: u64 = 128 * 1024 * 1024;

/// Memory for records that are in the journal but not yet in tables (64 MiB).
pub const MEMTABLES_BYTES: u64 = 64 * 1024 * 1024;

/// How an embedded log is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Number of partitions, fixed when the log is made.
    pub n_partitions: u32,
    /// Free disk space below which nothing is appended.
    pub disk_reserve_bytes: u64,
    /// Memory for records that are in the journal but not yet in tables, over all partitions; fjall may hold up to three times this
    /// while it flushes.
    pub memtables_bytes: u64,
    /// The clock that stamps records. A step back is evened out: append times never decrease.
    pub clock: fn() -> EventTime,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            n_partitions: 4,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            memtables_bytes: MEMTABLES_BYTES,
            clock: wall_clock,
        }
    }
}

/// A log in a folder of this machine.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    committer: Arc<Committer>,
}

/// What readers and the writer share.
struct Shared {
    dir: PathBuf,
    /// `None` when closed, or while a failed store is opened anew.
    store: RwLock<Option<Store>>,
    partitions: Vec<Partition>,
    appended: watch::Sender<u64>,
    /// The lock on the folder; goes after the store.
    lock: Mutex<Option<File>>,
}

/// The readable part of a partition.
struct Partition {
    start: AtomicU64,
    end: AtomicU64,
    tail: Mutex<Tail>,
}

impl Partition {
    fn bounds(&self) -> Range<u64> {
        // the end first: it only grows, so a start that is read later never passes it unnoticed
        let end = self.end.load(Ordering::Acquire);
        self.start.load(Ordering::Acquire).min(end)..end
    }
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or makes it.
    ///
    /// # Errors
    /// [`LogError`] when the folder is in use, has another number of partitions, holds something else, or cannot be read.
    pub async fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, LogError> {
        let dir = dir.to_owned();
        blocking(move || Self::open_blocking(&dir, options)).await
    }

    fn open_blocking(dir: &Path, options: EmbeddedOptions) -> Result<Self, LogError> {
        check_partitions(options.n_partitions)?;
        let lock = folder::prepare(dir, options.n_partitions)?;
        let store = Store::open(&folder::store_dir(dir), &options, journal::Trust::Disk)?;
        let mut partitions = Vec::with_capacity(options.n_partitions as usize);
        let last_append_time = store.last_append_time()?.unwrap_or(EventTime::from_micros(i64::MIN));
        for partition in 0..options.n_partitions as usize {
            let bounds = store.bounds(partition)?;
            partitions.push(Partition {
                start: bounds.start.into(),
                end: bounds.end.into(),
                tail: Mutex::default(),
            });
        }
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            store: RwLock::new(Some(store)),
            partitions,
            appended: watch::Sender::new(0),
            lock: Mutex::new(Some(lock)),
        });
        let committer = Committer::start(Writer::new(shared.clone(), options, last_append_time)).map_err(|e| LogError::Storage {
            action: "starting the committer's thread",
            dir: dir.to_owned(),
            reason: e.to_string().into(),
        })?;
        Ok(Self {
            shared,
            committer: Arc::new(committer),
        })
    }

    fn partition(&self, partition: u32) -> Result<(usize, &Partition), LogError> {
        let index = partition_index(partition, self.n_partitions())?;
        Ok((index, &self.shared.partitions[index]))
    }
}

impl Shared {
    /// Runs `use_store` with the open store.
    fn with_store<T>(&self, use_store: impl FnOnce(&Store) -> Result<T, LogError>) -> Result<T, LogError> {
        match &*self.store.read() {
            Some(store) => use_store(store),
            None => Err(self.without_store()),
        }
    }

    /// Why there is no store.
    fn without_store(&self) -> LogError {
        if self.lock.lock().is_none() {
            return LogError::Closed;
        }
        LogError::Storage {
            action: "using the store",
            dir: self.dir.clone(),
            reason: "it has failed and is not open again yet".into(),
        }
    }

    fn read_stored(&self, index: usize, from: u64, end: u64, bytes_max: usize) -> Result<Option<RecordBlock>, LogError> {
        let block = self.with_store(|store| store.read(index, from, end, bytes_max))?;
        let available = self.partitions[index].bounds();
        if from < available.start {
            return Err(LogError::OutOfRange {
                partition: index as u32,
                offset: from,
                available,
            }); // truncated while we read
        }
        if block.is_none() {
            let what = format!("nothing is stored in {from}..{end}");
            return Err(LogError::Damaged {
                dir: self.dir.clone(),
                partition: index as u32,
                what,
            });
        }
        Ok(block)
    }
}

#[async_trait]
impl InboundLog for EmbeddedLog {
    fn n_partitions(&self) -> u32 {
        self.shared.partitions.len() as u32
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<LogPosition>, LogError> {
        if records.is_empty() {
            return self.shared.with_store(|_| Ok(Vec::new()));
        }
        self.committer.append(records).await
    }

    async fn heartbeat(&self) -> Result<(), LogError> {
        self.committer.heartbeat().await
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Option<RecordBlock>, LogError> {
        let (index, part) = self.partition(partition)?;
        let available = part.bounds();
        if self.shared.lock.lock().is_none() {
            return Err(LogError::Closed);
        }
        if from < available.start || from > available.end {
            return Err(LogError::OutOfRange {
                partition,
                offset: from,
                available,
            });
        }
        if from == available.end {
            return Ok(None);
        }
        if let Some(block) = tail::read(&part.tail, partition, from, max_bytes) {
            return Ok(Some(block));
        }
        let shared = self.shared.clone();
        blocking(move || shared.read_stored(index, from, available.end, max_bytes)).await
    }

    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError> {
        let (_, part) = self.partition(partition)?;
        if self.shared.lock.lock().is_none() {
            return Err(LogError::Closed);
        }
        Ok(part.bounds())
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.shared.appended.subscribe()
    }

    async fn commit(&self, consumer: &str, positions: &[LogPosition]) -> Result<(), LogError> {
        for position in positions {
            self.partition(position.partition)?;
        }
        self.committer
            .put(positions.iter().map(|p| (consumer_key(consumer, p.partition), p.offset)).collect())
            .await
    }

    async fn committed(&self, consumer: &str) -> Result<Vec<Option<u64>>, LogError> {
        let (shared, n_partitions, consumer) = (self.shared.clone(), self.n_partitions(), consumer.to_owned());
        blocking(move || shared.with_store(|s| (0..n_partitions).map(|p| s.get(&consumer_key(&consumer, p))).collect())).await
    }

    async fn truncate_before(&self, partition: u32, before: u64) -> Result<(), LogError> {
        let (index, part) = self.partition(partition)?;
        let available = part.bounds();
        let shared = self.shared.clone();
        let start = blocking(move || {
            if before >= available.end {
                return Ok(available.end);
            }
            Ok(shared.with_store(|s| s.block_start(index, before))?.unwrap_or(available.start))
        })
        .await?;
        if start <= available.start {
            return Ok(());
        }
        // the new start is durable before anything goes: a reader after a crash is told "out of range", never "damaged"
        self.committer.put(vec![(start_key(index), start)]).await?;
        part.start.fetch_max(start, Ordering::AcqRel);
        part.tail.lock().drop_before(start);
        let shared = self.shared.clone();
        blocking(move || shared.with_store(|s| s.drop_before(index, start))).await?;
        // fjall keeps what a reader of the last written state might want; one more write lets go of it
        self.committer.put(vec![(start_key(index), start)]).await?;
        let shared = self.shared.clone();
        blocking(move || shared.with_store(Store::collect_dropped)).await
    }

    async fn close(&self) -> Result<(), LogError> {
        let (shared, committer) = (self.shared.clone(), self.committer.clone());
        blocking(move || {
            committer.close();
            // the store goes before the lock, so that whoever opens the folder next finds it at rest
            shared.store.write().take();
            shared.lock.lock().take();
            Ok(())
        })
        .await
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(LogError::Closed), // the runtime is shutting down
    }
}

fn wall_clock() -> EventTime {
    EventTime::from_clock(SystemTime::now())
}
