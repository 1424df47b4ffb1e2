//! The `[lake]` section of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::LakeError;

/// Vacuum never removes files younger than this: a reader that opened the table before a compaction still needs them.
pub const VACUUM_RETENTION_HOURS_MIN: u64 = 168;

/// Settings of the lake. Every field has a default but `path`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// Folder of the lake; each tenant's tables are below `<path>/<tenant>/`.
    pub path: PathBuf,
    /// Rows wait at most this long for their commit, in seconds.
    #[serde(default = "defaults::commit_s")]
    pub commit_s: u64,
    /// Rows waiting in memory that make a commit happen at once, in MiB. Four times as much makes `push` wait.
    #[serde(default = "defaults::commit_mb")]
    pub commit_mb: u64,
    /// Time between compactions, in seconds; 0 turns them off.
    #[serde(default = "defaults::compact_every_s")]
    pub compact_every_s: u64,
    /// Files below this size, in MiB, are joined with their neighbours of the same day.
    #[serde(default = "defaults::compact_target_mb")]
    pub compact_target_mb: u64,
    /// Time between vacuums (removal of files that no version within the retention uses), in seconds; 0 turns them off.
    #[serde(default = "defaults::vacuum_every_s")]
    pub vacuum_every_s: u64,
    /// Age at which files that are no longer part of a table may be removed, in hours; at least 168.
    #[serde(default = "defaults::vacuum_retention_hours")]
    pub vacuum_retention_hours: u64,
    /// Commits between two checkpoints of a table's log.
    #[serde(default = "defaults::checkpoint_commits")]
    pub checkpoint_commits: u64,
    /// zstd level of the Parquet pages.
    #[serde(default = "defaults::zstd_level")]
    pub zstd_level: i32,
}

/// The values of absent keys, where serde wants functions.
mod defaults {
    pub(super) const fn commit_s() -> u64 {
        5
    }
    pub(super) const fn commit_mb() -> u64 {
        64
    }
    pub(super) const fn compact_every_s() -> u64 {
        3600
    }
    pub(super) const fn compact_target_mb() -> u64 {
        128
    }
    pub(super) const fn vacuum_every_s() -> u64 {
        86_400
    }
    pub(super) const fn vacuum_retention_hours() -> u64 {
        super::VACUUM_RETENTION_HOURS_MIN
    }
    pub(super) const fn checkpoint_commits() -> u64 {
        50
    }
    pub(super) const fn zstd_level() -> i32 {
        1
    }
}

impl LakeConfig {
    /// The defaults, at this folder.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            commit_s: defaults::commit_s(),
            commit_mb: defaults::commit_mb(),
            compact_every_s: defaults::compact_every_s(),
            compact_target_mb: defaults::compact_target_mb(),
            vacuum_every_s: defaults::vacuum_every_s(),
            vacuum_retention_hours: defaults::vacuum_retention_hours(),
            checkpoint_commits: defaults::checkpoint_commits(),
            zstd_level: defaults::zstd_level(),
        }
    }

    /// Checks what serde cannot.
    ///
    /// # Errors
    /// [`LakeError::Config`] naming the key and the range.
    pub fn validate(&self) -> Result<(), LakeError> {
        let check = |key, value: u64, range: std::ops::RangeInclusive<u64>| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(LakeError::Config {
                key,
                value,
                min: *range.start(),
                max: *range.end(),
            })
        };
        check("commit_s", self.commit_s, 1..=3600)?;
        check("commit_mb", self.commit_mb, 1..=1024)?;
        check("compact_every_s", self.compact_every_s, 0..=31 * 86_400)?;
        check("compact_target_mb", self.compact_target_mb, 1..=4096)?;
        check("vacuum_every_s", self.vacuum_every_s, 0..=31 * 86_400)?;
        check(
            "vacuum_retention_hours",
            self.vacuum_retention_hours,
            VACUUM_RETENTION_HOURS_MIN..=24 * 3660,
        )?;
        check("checkpoint_commits", self.checkpoint_commits, 1..=10_000)?;
        check("zstd_level", u64::try_from(self.zstd_level).unwrap_or(0), 1..=22)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_unknown_keys_are_not() {
        LakeConfig::new("lake").validate().unwrap();
        let read = |json: &str| serde_json::from_str::<LakeConfig>(json);
        assert_eq!(read(r#"{"path":"lake"}"#).unwrap(), LakeConfig::new("lake"));
        assert!(read(r#"{"path":"lake","comit_s":3}"#).is_err());
    }

    #[test]
    fn vacuum_keeps_at_least_seven_days() {
        let config = LakeConfig {
            vacuum_retention_hours: 1,
            ..LakeConfig::new("lake")
        };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "lake.vacuum_retention_hours is 1; it must be from 168 to 87840");
    }
}
