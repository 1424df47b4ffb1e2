//! How long the log keeps what has been applied: log positions with the time they were reached, kept beside the checkpoint so that a
//! restart does not begin to count anew.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointStore;

/// Positions remembered within the retention; the log keeps at most this part of the retention longer than it has to.
const N_SAMPLES: u32 = 96;

/// Log positions that were reached within the retention, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct LogRetention {
    keep: Duration,
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    /// Seconds since 1970 when the pump stood there.
    at_s: u64,
    /// Next offset of each partition.
    offsets: Vec<u64>,
}

impl LogRetention {
    /// What the last run remembered. A file that cannot be read costs disk space for one more retention, not more.
    pub(crate) fn load(store: &CheckpointStore, keep: Duration) -> Self {
        let samples = match std::fs::read(store.retention_file()) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{}: {error}; the log keeps more for a while", store.retention_file().display());
                VecDeque::new()
            }),
            Err(_) => VecDeque::new(),
        };
        Self { keep, samples }
    }

    /// Remembers a position, and gives the one before which the log may forget.
    pub(crate) fn note(&mut self, now: SystemTime, offsets: &[u64]) -> Option<Vec<u64>> {
        let now_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let step_s = (self.keep / N_SAMPLES).as_secs();
        if self.samples.back().is_none_or(|last| now_s >= last.at_s.saturating_add(step_s)) {
            self.samples.push_back(Sample {
                at_s: now_s,
                offsets: offsets.to_vec(),
            });
        }
        let keep_s = self.keep.as_secs();
        let n_expired = self
            .samples
            .iter()
            .take_while(|sample| sample.at_s.saturating_add(keep_s) <= now_s)
            .count();
        let expired = self.samples.drain(..n_expired).next_back()?;
        // another number of partitions is another log
        (expired.offsets.len() == offsets.len()).then_some(expired.offsets)
    }

    /// Writes what is remembered, atomically.
    pub(crate) fn save(&self, store: &CheckpointStore) -> anyhow::Result<()> {
        let file = store.retention_file();
        let next = file.with_extension("next");
        std::fs::write(&next, serde_json::to_vec(&self.samples)?).with_context(|| format!("cannot write {}", next.display()))?;
        std::fs::rename(&next, &file).with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_position_expires_after_the_retention_also_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path().to_owned()).unwrap();
        let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + s);
        let keep = Duration::from_secs(9_600);
        let mut retention = LogRetention::load(&store, keep);
        assert_eq!(retention.note(at(0), &[10, 20]), None);
        assert_eq!(
            retention.note(at(50), &[11, 21]),
            None,
            "within a step of the last one: not remembered"
        );
        assert_eq!(retention.note(at(100), &[12, 22]), None);
        retention.save(&store).unwrap();
        let mut retention = LogRetention::load(&store, keep);
        assert_eq!(retention.note(at(9_650), &[90, 91]), Some(vec![10, 20]));
        assert_eq!(retention.note(at(9_690), &[90, 91]), None);
        assert_eq!(retention.note(at(9_700), &[90, 91]), Some(vec![12, 22]));
    }

    #[test]
    fn the_number_of_positions_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path().to_owned()).unwrap();
        let mut retention = LogRetention::load(&store, Duration::from_secs(86_400));
        for i in 0..20_000 {
            retention.note(SystemTime::UNIX_EPOCH + Duration::from_secs(30 * i), &[i]);
        }
        assert!(retention.samples.len() <= N_SAMPLES as usize + 1, "{}", retention.samples.len());
    }

    #[test]
    fn a_damaged_file_and_another_number_of_partitions_truncate_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path().to_owned()).unwrap();
        std::fs::write(store.retention_file(), b"[{").unwrap();
        let mut retention = LogRetention::load(&store, Duration::ZERO);
        assert_eq!(retention.note(SystemTime::now(), &[5]), Some(vec![5]));
        let mut other = LogRetention {
            keep: Duration::ZERO,
            samples: [Sample {
                at_s: 0,
                offsets: vec![1, 2],
            }]
            .into(),
        };
        other.keep = Duration::from_secs(1 << 20);
        assert_eq!(other.note(SystemTime::now(), &[5]), None);
    }
}
