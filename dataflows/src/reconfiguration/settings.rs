//! Settings of reconfiguration on the street.

use std::collections::BTreeSet;

use flexmeter_grid::reconfiguration::{Options, TriggerOptions};
use flexmeter_model::TenantId;

use crate::error::EngineError;

/// How far a saving may move from its first value while it has to be stable, as a share of that.
const BAND_SHARE: f64 = 0.5;
/// After so many checks without an answer the dwell time begins again.
const GAP_CHECKS: i64 = 3;

/// Settings of reconfiguration. All times are log time.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconfigurationConfig {
    /// Tenants whose proposals are carried out without an operator. Default: none.
    pub automatic: BTreeSet<TenantId>,
    /// Least saving that is worth a proposal, W. Default 1 kW.
    pub saving_min_w: f64,
    /// How long the saving has to stay above, in microseconds. Default 5 minutes.
    pub dwell_us: i64,
    /// How often something better is looked for, in microseconds. Default one minute.
    pub check_us: i64,
    /// How long a proposal waits for a decision, in microseconds. Default one hour.
    pub expires_us: i64,
    /// How long a switch may take to confirm a command, in microseconds. Default two minutes.
    pub confirmation_us: i64,
    /// How long nothing is proposed after a proposal was rejected, has expired undecided or has failed, in microseconds. Default one hour.
    pub pause_us: i64,
    /// Lowest and highest voltage allowed, per unit of rated. Default 0.9 and 1.1 (EN 50160).
    pub voltage_pu: [f64; 2],
}

impl Default for ReconfigurationConfig {
    fn default() -> Self {
        const MINUTE_US: i64 = 60 * 1_000_000;
        Self {
            automatic: BTreeSet::new(),
            saving_min_w: 1_000.0,
            dwell_us: 5 * MINUTE_US,
            check_us: MINUTE_US,
            expires_us: 60 * MINUTE_US,
            confirmation_us: 2 * MINUTE_US,
            pause_us: 60 * MINUTE_US,
            voltage_pu: Options::default().voltage_pu,
        }
    }
}

impl ReconfigurationConfig {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let times = [
            ("reconfiguration.dwell_us", self.dwell_us, 0, "use 0 or more"),
            ("reconfiguration.check_us", self.check_us, 1, "use at least 1"),
            ("reconfiguration.expires_us", self.expires_us, 1, "use at least 1"),
            ("reconfiguration.confirmation_us", self.confirmation_us, 1, "use at least 1"),
            ("reconfiguration.pause_us", self.pause_us, 0, "use 0 or more"),
        ];
        for (setting, value, min, expected) in times {
            if value < min {
                return Err(EngineError::Setting { setting, value, expected });
            }
        }
        let [low, high] = self.voltage_pu;
        let numbers = [
            (
                "reconfiguration.saving_min_w",
                self.saving_min_w,
                self.saving_min_w > 0.0,
                "use W above zero",
            ),
            ("reconfiguration.voltage_pu", low, low >= 0.0, "use per unit of rated, such as 0.9"),
            (
                "reconfiguration.voltage_pu",
                high,
                high > low,
                "the highest voltage has to be above the lowest",
            ),
        ];
        for (setting, value, is_good, expected) in numbers {
            if !(is_good && value.is_finite()) {
                return Err(EngineError::Number {
                    setting,
                    value: value.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn trigger(&self) -> TriggerOptions {
        TriggerOptions {
            saving_min_w: self.saving_min_w,
            dwell_us: self.dwell_us,
            band_share: BAND_SHARE,
            gap_us_max: self.check_us.saturating_mul(GAP_CHECKS),
        }
    }

    pub(crate) fn search(&self) -> Options {
        Options {
            voltage_pu: self.voltage_pu,
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_mean_nothing_are_refused_by_name() {
        let default = ReconfigurationConfig::default;
        assert_eq!(default().check(), Ok(()));
        for (config, name) in [
            (ReconfigurationConfig { check_us: 0, ..default() }, "check_us"),
            (ReconfigurationConfig { dwell_us: -1, ..default() }, "dwell_us"),
            (
                ReconfigurationConfig {
                    saving_min_w: f64::NAN,
                    ..default()
                },
                "saving_min_w",
            ),
            (
                ReconfigurationConfig {
                    voltage_pu: [1.1, 0.9],
                    ..default()
                },
                "voltage_pu",
            ),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(&format!("reconfiguration.{name}")), "{error}");
        }
    }
}
