//! A log in memory that can be held, failed and read.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use flexmeter_model::record::RecordBlock;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::log::{InboundLog, LogError, LogPosition, NewRecord};

/// What an append does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Returns at once.
    Open,
    /// Waits for another mode.
    Held,
    /// Fails.
    Failing,
    /// Returns with the next but one tick of a clock, like a group commit that is under way.
    Groups,
}

pub(super) struct FakeLog {
    mode: watch::Sender<Mode>,
    /// Appends that have begun.
    begun: Mutex<Vec<NewRecord>>,
    /// Records that are "durable".
    stored: Mutex<Vec<NewRecord>>,
    /// Only counted in group mode, where tests measure.
    ticks: watch::Sender<u64>,
    appended: watch::Sender<u64>,
}

impl Default for FakeLog {
    fn default() -> Self {
        let mode = watch::Sender::new(Mode::Open);
        Self {
            mode,
            begun: Mutex::default(),
            stored: Mutex::default(),
            ticks: watch::Sender::new(0),
            appended: watch::Sender::new(0),
        }
    }
}

impl FakeLog {
    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(super) fn n_begun(&self) -> usize {
        self.begun.lock().len()
    }

    pub(super) fn stored(&self) -> Vec<NewRecord> {
        self.stored.lock().clone()
    }

    /// Payloads stored, as text.
    pub(super) fn payloads(&self) -> Vec<String> {
        self.stored
            .lock()
            .iter()
            .map(|record| String::from_utf8_lossy(&record.payload).into_owned())
            .collect()
    }

    /// Starts the clock of [`Mode::Groups`].
    pub(super) fn commit_in_groups(&self, every: Duration) {
        let ticks = self.ticks.clone();
        self.set(Mode::Groups);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                ticks.send_modify(|tick| *tick += 1);
            }
        });
    }
}

#[async_trait]
impl InboundLog for FakeLog {
    fn n_partitions(&self) -> u32 {
        1
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<LogPosition>, LogError> {
        let mode = *self.mode.borrow();
        if mode == Mode::Groups {
            let mut ticks = self.ticks.subscribe();
            let now = *ticks.borrow();
            let is_committed = ticks.wait_for(|tick| *tick >= now + 2).await.is_ok();
            assert!(is_committed, "the clock runs as long as the log");
            return Ok(Vec::new());
        }
        self.begun.lock().extend(records.iter().cloned());
        let mode = *self
            .mode
            .subscribe()
            .wait_for(|mode| *mode != Mode::Held)
            .await
            .map_err(|_| LogError::Closed)?;
        if mode == Mode::Failing {
            return Err(LogError::Closed);
        }
        let mut stored = self.stored.lock();
        let first = stored.len() as u64;
        let positions = (first..)
            .take(records.len())
            .map(|offset| LogPosition { partition: 0, offset })
            .collect();
        stored.extend(records);
        Ok(positions)
    }

    async fn heartbeat(&self) -> Result<(), LogError> {
        Ok(())
    }

    async fn read(&self, _: u32, _: u64, _: usize) -> Result<Option<RecordBlock>, LogError> {
        Ok(None)
    }

    async fn bounds(&self, _: u32) -> Result<Range<u64>, LogError> {
        Ok(0..self.stored.lock().len() as u64)
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    async fn commit(&self, _: &str, _: &[LogPosition]) -> Result<(), LogError> {
        Ok(())
    }

    async fn committed(&self, _: &str) -> Result<Vec<Option<u64>>, LogError> {
        Ok(vec![None])
    }

    async fn truncate_before(&self, _: u32, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), LogError> {
        Ok(())
    }
}
