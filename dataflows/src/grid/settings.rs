//! Settings of the estimation on the street.

use crate::error::EngineError;

/// Settings of the estimation on the street.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EstimationConfig {
    /// Whether there are estimates at all; outages and switches are followed without them, too. Default yes.
    pub is_on: bool,
    /// How often meters report, in microseconds: the unit of a reading's age. Default one minute.
    pub step_us: i64,
    /// Standard deviation of "the phases are 120 degrees apart" at the source of a top area, rad. Default 0.002.
    pub source_balance_sigma_rad: f64,
    /// How often an estimate without bad data may lose a reading. Default 1e-4: there are many areas, and they are estimated often.
    pub false_alarm_rate: f64,
    /// Areas with more nodes than this are estimated beside the worker loop. Default 200.
    pub beside_nodes_min: usize,
}

impl Default for EstimationConfig {
    fn default() -> Self {
        Self {
            is_on: true,
            step_us: 60 * 1_000_000,
            source_balance_sigma_rad: 0.002,
            false_alarm_rate: 1e-4,
            beside_nodes_min: 200,
        }
    }
}

impl EstimationConfig {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.step_us < 1 {
            return Err(EngineError::Setting {
                setting: "estimation.step_us",
                value: self.step_us,
                expected: "use at least 1",
            });
        }
        let shares = [
            ("estimation.source_balance_sigma_rad", self.source_balance_sigma_rad),
            ("estimation.false_alarm_rate", self.false_alarm_rate),
        ];
        for (setting, value) in shares {
            if !(value > 0.0 && value < 1.0) {
                return Err(EngineError::Share {
                    setting,
                    value: value.to_string(),
                });
            }
        }
        Ok(())
    }
}
