//! The committer's hands: encodes a group, writes it with one fsync, makes it readable, answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fjall::UserValue;
use flexmeter_model::EventTime;
use flexmeter_model::record::{Record, RecordKind, partition_of};

use super::block::HEAD_LEN;
use super::journal::Trust;
use super::store::{NewBlock, Store};
use super::{EmbeddedOptions, Shared, folder};
use crate::log::group_commit::{GROUP_BYTES_MAX, GroupWriter, Job};
use crate::log::{LogError, LogPosition, NewRecord};

/// Shortest time between two attempts to open a failed store again; appends in between fail at once.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Writes groups; owned by the committer's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    options: EmbeddedOptions,
    last_append_time: EventTime,
    /// One buffer per partition, kept between groups.
    pages: Vec<Page>,
    failure: Option<Failure>,
}

/// The frames a group adds to one partition.
#[derive(Default)]
struct Page {
    next_offset: u64,
    n_records: u32,
    value: Vec<u8>,
}

struct Failure {
    error: LogError,
    at: Instant,
}

impl Page {
    fn push(&mut self, record: &Record<'_>) -> u64 {
        if self.n_records == 0 {
            self.value.resize(HEAD_LEN, 0);
        }
        record.encode(&mut self.value);
        self.n_records += 1;
        self.next_offset += 1;
        self.next_offset - 1
    }

    fn take_block(&mut self, partition: usize) -> Option<NewBlock> {
        if self.n_records == 0 {
            return None;
        }
        self.value[..HEAD_LEN].copy_from_slice(&self.n_records.to_le_bytes());
        let base_offset = self.next_offset - u64::from(self.n_records);
        let block = NewBlock {
            partition,
            base_offset,
            value: UserValue::from(self.value.as_slice()),
        };
        self.clear(self.next_offset);
        Some(block)
    }

    fn clear(&mut self, next_offset: u64) {
        self.next_offset = next_offset;
        self.n_records = 0;
        self.value.clear();
        if self.value.capacity() > 2 * GROUP_BYTES_MAX {
            self.value = Vec::new(); // a single huge append must not hold its memory for ever
        }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, options: EmbeddedOptions, last_append_time: EventTime) -> Self {
        let pages = shared
            .partitions
            .iter()
            .map(|p| Page {
                next_offset: p.end.load(Ordering::Acquire),
                ..Default::default()
            })
            .collect();
        Self {
            shared,
            options,
            last_append_time,
            pages,
            failure: None,
        }
    }

    fn write_group(&mut self, group: &[Job]) -> Result<Vec<Vec<LogPosition>>, LogError> {
        self.recover()?;
        // positions and truncation may use the reserve: they are what makes room again
        if group.iter().any(|job| !matches!(job, Job::Put { .. })) {
            self.check_disk()?;
        }
        self.last_append_time = self.last_append_time.max((self.options.clock)());
        let mut positions = Vec::with_capacity(group.len());
        let mut entries = Vec::new();
        for job in group {
            positions.push(match job {
                Job::Append { records, .. } => records.iter().map(|record| self.encode(record)).collect(),
                Job::Heartbeat { .. } => self.encode_heartbeat(),
                Job::Put { entries: new, .. } => {
                    entries.extend(new.iter().cloned());
                    Vec::new()
                }
            });
        }
        self.store_group(entries)?;
        Ok(positions)
    }

    fn encode(&mut self, record: &NewRecord) -> LogPosition {
        let partition = partition_of(record.tenant.as_str(), &record.hardware_id, self.pages.len() as u32);
        let offset = self.pages[partition as usize].push(&Record {
            kind: record.kind,
            tenant: record.tenant.as_str(),
            hardware_id: &record.hardware_id,
            bound: record.bound,
            redelivered: record.redelivered,
            received_at: self.last_append_time,
            payload: &record.payload,
        });
        LogPosition { partition, offset }
    }

    fn encode_heartbeat(&mut self) -> Vec<LogPosition> {
        let received_at = self.last_append_time;
        let record = Record {
            kind: RecordKind::Heartbeat,
            tenant: "",
            hardware_id: "",
            bound: false,
            redelivered: false,
            received_at,
            payload: &[],
        };
        let offsets = self.pages.iter_mut().zip(0..);
        offsets
            .map(|(page, partition)| LogPosition {
                partition,
                offset: page.push(&record),
            })
            .collect()
    }

    /// Writes what was encoded, and makes it readable once it is on disk.
    fn store_group(&mut self, entries: Vec<(Vec<u8>, u64)>) -> Result<(), LogError> {
        let blocks: Vec<_> = self
            .pages
            .iter_mut()
            .enumerate()
            .filter_map(|(p, page)| page.take_block(p))
            .collect();
        let readable: Vec<_> = blocks.iter().map(|b| (b.partition, b.base_offset, b.value.clone())).collect();
        let (at, started) = (self.last_append_time, Instant::now());
        let written = self.shared.with_store(|store| store.write(blocks, entries, at));
        metrics::histogram!("flexmeter_log_commit_seconds").record(started.elapsed().as_secs_f64());
        if let Err(error) = written {
            self.failure = Some(Failure {
                error: error.clone(),
                at: Instant::now(),
            });
            return Err(error);
        }
        for (partition, base_offset, value) in &readable {
            let part = &self.shared.partitions[*partition];
            part.tail.lock().push(*base_offset, value.clone());
            part.end.store(self.pages[*partition].next_offset, Ordering::Release);
        }
        if !readable.is_empty() {
            self.shared.appended.send_modify(|n| *n += 1);
        }
        Ok(())
    }

    /// After a failure: opens the store again and removes what the failed group may have left.
    fn recover(&mut self) -> Result<(), LogError> {
        let Some(failure) = &self.failure else { return Ok(()) };
        if failure.at.elapsed() < REOPEN_PAUSE {
            return Err(failure.error.clone());
        }
        match self.reopen() {
            Ok(()) => {
                self.failure = None;
                tracing::info!(dir = %self.shared.dir.display(), "the inbound log takes messages again");
                Ok(())
            }
            Err(error) => {
                self.failure = Some(Failure {
                    error: error.clone(),
                    at: Instant::now(),
                });
                Err(error)
            }
        }
    }

    fn reopen(&mut self) -> Result<(), LogError> {
        self.check_disk()?;
        let mut slot = self.shared.store.write();
        drop(slot.take()); // fjall lets go of the folder only when the last handle is gone
        let store = Store::open(&folder::store_dir(&self.shared.dir), &self.options, Trust::Nothing)?;
        for (partition, part) in self.shared.partitions.iter().enumerate() {
            let end = part.end.load(Ordering::Acquire);
            let found = store.bounds(partition)?.end;
            if found < end {
                let what = format!("offsets {found}..{end} were acknowledged and are gone");
                return Err(LogError::Damaged {
                    dir: self.shared.dir.clone(),
                    partition: partition as u32,
                    what,
                });
            }
            store.discard_from(partition, end)?;
        }
        *slot = Some(store);
        Ok(())
    }

    fn check_disk(&self) -> Result<(), LogError> {
        let dir = &self.shared.dir;
        let space = rustix::fs::statvfs(dir).map_err(|e| LogError::Storage {
            action: "asking for free disk space",
            dir: dir.clone(),
            reason: e.to_string().into(),
        })?;
        let (free, reserve) = (space.f_bavail * space.f_frsize, self.options.disk_reserve_bytes);
        if free < reserve {
            Err(LogError::DiskFull {
                dir: dir.clone(),
                free,
                reserve,
            })
        } else {
            Ok(())
        }
    }

    /// Forgets what was encoded for a group that failed: its offsets are used again.
    fn forget_group(&mut self) {
        for (page, part) in self.pages.iter_mut().zip(&self.shared.partitions) {
            page.clear(part.end.load(Ordering::Acquire));
        }
    }
}

impl GroupWriter for Writer {
    fn write(&mut self, group: Vec<Job>) {
        match self.write_group(&group) {
            Ok(positions) => {
                let n_records: usize = positions.iter().map(Vec::len).sum();
                metrics::counter!("flexmeter_log_appended_total").increment(n_records as u64);
                metrics::histogram!("flexmeter_log_group_records").record(n_records as f64);
                for (job, positions) in group.into_iter().zip(positions) {
                    job.succeed(positions);
                }
            }
            Err(error) => {
                self.forget_group();
                metrics::counter!("flexmeter_log_failed_groups_total").increment(1);
                tracing::error!(n_jobs = group.len(), %error, "a group commit failed; nothing of it is acknowledged");
                for job in group {
                    job.fail(error.clone());
                }
            }
        }
    }
}
