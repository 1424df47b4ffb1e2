//! The engine's settings and fixed limits.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use flexmeter_model::TenantId;

use crate::error::EngineError;
use crate::grid::{EstimationConfig, Grid};
use crate::reconfiguration::ReconfigurationConfig;

/// Width of a load-profile window: 15 minutes, in microseconds.
pub const WINDOW_US: i64 = 15 * 60 * 1_000_000;

/// Log-time timers fire when log time enters a new interval of this length: one minute, in microseconds.
pub const TICK_US: i64 = 60 * 1_000_000;

/// Epochs that may be fed and not yet delivered; [`crate::Engine::feed`] waits above it.
pub const EPOCHS_IN_FLIGHT_MAX: u64 = 4;

/// Most workers one process may have.
pub(crate) const WORKERS_MAX: usize = 256;

const MINUTE_US: i64 = 60 * 1_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;

/// What becomes of a message from a device nobody told the engine about.
#[derive(Debug, Clone, Default)]
pub enum UnknownDevices {
    /// Every device may send.
    #[default]
    Accept,
    /// Only known devices may send; others are rejected as `unknown_device`. Requests to be registered always pass.
    Reject {
        /// The known devices: tenant and hardware id.
        known: Arc<HashSet<(String, String)>>,
    },
}

/// Settings of the engine. All times are log time.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Worker threads. Default 2.
    pub n_workers: usize,
    /// Partitions of the inbound log; partition `p` is processed by worker `p % n_workers`. Default 4.
    pub n_partitions: u32,
    /// How long a message's identity is remembered so that its repeats are dropped. Default 48 hours.
    pub dedupe_horizon_us: i64,
    /// Most identities remembered per partition; the oldest are forgotten (and counted) above it. Default 8 million (about 30 bytes
    /// each).
    pub dedupe_identities_max: usize,
    /// How long a load-profile window stays in memory after its last reading. Default 48 hours.
    pub profile_retention_us: i64,
    /// Most load-profile windows (of one device each) in memory per partition; those untouched for longest leave early (and are
    /// counted) above it. Default 2 million (about 450 bytes each with six quantities).
    pub profile_windows_max: usize,
    /// Most load-profile windows flushed, and most evicted, by one tick of log time; the rest waits for the next tick. Keeps the
    /// burst at the end of a quarter of an hour small. Default 50,000.
    pub profile_windows_per_tick_max: usize,
    /// Most devices per partition; messages of further ones are rejected as `unknown_device`. Default 10 million.
    pub devices_max: usize,
    /// How far a message's `eventDate` may lie after its append time. Default 10 minutes.
    pub future_tolerance_us: i64,
    /// How long a message without `eventDate` is remembered so that its MQTT redelivery is dropped. Default 10 minutes.
    pub redelivery_window_us: i64,
    /// What becomes of messages from unknown devices. Default: accepted.
    pub unknown_devices: UnknownDevices,
    /// Grids that are there from the start. Default: none.
    pub grids: BTreeMap<TenantId, Arc<Grid>>,
    /// Settings of the state estimation.
    pub estimation: EstimationConfig,
    /// Settings of reconfiguration.
    pub reconfiguration: ReconfigurationConfig,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            n_workers: 2,
            n_partitions: 4,
            dedupe_horizon_us: 48 * HOUR_US,
            dedupe_identities_max: 8_000_000,
            profile_retention_us: 48 * HOUR_US,
            profile_windows_max: 2_000_000,
            profile_windows_per_tick_max: 50_000,
            devices_max: 10_000_000,
            future_tolerance_us: 10 * MINUTE_US,
            redelivery_window_us: 10 * MINUTE_US,
            unknown_devices: UnknownDevices::Accept,
            grids: BTreeMap::new(),
            estimation: EstimationConfig::default(),
            reconfiguration: ReconfigurationConfig::default(),
        }
    }
}

impl EngineConfig {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let at_least_one = [
            ("n_workers", self.n_workers as i64),
            ("n_partitions", i64::from(self.n_partitions)),
            ("dedupe_horizon_us", self.dedupe_horizon_us),
            ("dedupe_identities_max", self.dedupe_identities_max as i64),
            ("profile_windows_max", self.profile_windows_max as i64),
            ("profile_windows_per_tick_max", self.profile_windows_per_tick_max as i64),
            ("devices_max", self.devices_max as i64),
        ];
        for (setting, value) in at_least_one {
            if value < 1 {
                return Err(EngineError::Setting {
                    setting,
                    value,
                    expected: "use at least 1",
                });
            }
        }
        self.estimation.check()?;
        self.reconfiguration.check()?;
        if self.n_workers > WORKERS_MAX {
            return Err(EngineError::Setting {
                setting: "n_workers",
                value: self.n_workers as i64,
                expected: "use at most 256",
            });
        }
        if self.devices_max > u32::MAX as usize {
            return Err(EngineError::Setting {
                setting: "devices_max",
                value: self.devices_max as i64,
                expected: "use less than 2^32",
            });
        }
        // A window must outlive the readings that may still come for it while it is open.
        let retention_us_min = WINDOW_US.saturating_add(self.future_tolerance_us);
        if self.profile_retention_us < retention_us_min {
            let expected = "use at least a window and the future tolerance";
            return Err(EngineError::Setting {
                setting: "profile_retention_us",
                value: self.profile_retention_us,
                expected,
            });
        }
        for (setting, value) in [
            ("future_tolerance_us", self.future_tolerance_us),
            ("redelivery_window_us", self.redelivery_window_us),
        ] {
            if value < 0 {
                return Err(EngineError::Setting {
                    setting,
                    value,
                    expected: "use 0 or more",
                });
            }
        }
        Ok(())
    }
}

/// A duration in whole minutes of log time, rounded up: what is kept for so many minutes is never kept too short.
pub(crate) fn minutes_up(duration_us: i64) -> i64 {
    duration_us.div_euclid(TICK_US) + i64::from(duration_us.rem_euclid(TICK_US) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(EngineConfig::default().check(), Ok(()));
    }

    #[test]
    fn for_ever_is_a_duration_too() {
        let config = EngineConfig {
            dedupe_horizon_us: i64::MAX,
            profile_retention_us: i64::MAX,
            ..EngineConfig::default()
        };
        assert_eq!(config.check(), Ok(()));
        assert_eq!(
            (minutes_up(i64::MAX), minutes_up(TICK_US), minutes_up(TICK_US + 1)),
            (i64::MAX / TICK_US + 1, 1, 2)
        );
    }

    #[test]
    fn a_window_must_outlive_the_readings_that_may_still_come() {
        let config = EngineConfig {
            profile_retention_us: WINDOW_US,
            ..EngineConfig::default()
        };
        assert!(matches!(
            config.check(),
            Err(EngineError::Setting {
                setting: "profile_retention_us",
                ..
            })
        ));
    }
}
