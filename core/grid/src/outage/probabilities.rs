//! The named probabilities of the model, and the integer weights that follow from them.

use crate::error::GridError;

/// Log-probabilities are integers of a millionth of a nat: sums are exact, so that an incremental sum is the recomputed one and what
/// is taken back leaves nothing.
pub(crate) type MicroNats = i64;

/// One nat.
pub(crate) const NAT: f64 = 1e6;

/// What the inference takes for granted about meters and devices. Each is a probability between 0 and 1.
///
/// How many of the gasps arrive is not among them: it is unknown, differs from grid to grid and from second to second while gasps
/// are still under way, and is integrated out with a uniform prior.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probabilities {
    /// A branch or busbar fails within one incident. Default 1e-5.
    pub device_failure: f64,
    /// A meter that has supply, or is alone without (unplugged, own fuse), sends a gasp within one incident. Default 1e-4.
    pub isolated_gasp: f64,
    /// A message stamped after the failure comes from a meter without supply (clock error, backup battery). Default 1e-4.
    pub message_without_supply: f64,
    /// A meter that has supply misses as many readings in a row as make it overdue. Default 0.01.
    pub overdue_with_supply: f64,
}

impl Default for Probabilities {
    fn default() -> Self {
        Self {
            device_failure: 1e-5,
            isolated_gasp: 1e-4,
            message_without_supply: 1e-4,
            overdue_with_supply: 0.01,
        }
    }
}

/// The probabilities as what one observation adds to "it has no supply" against "it has".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weights {
    pub(crate) failure: MicroNats,
    pub(crate) gasp: MicroNats,
    pub(crate) alive: MicroNats,
    pub(crate) overdue: MicroNats,
}

impl Probabilities {
    /// # Errors
    /// [`GridError::Probability`] for a value that is none, or that turns evidence around (at most a half is possible).
    pub(crate) fn weights(&self) -> Result<Weights, GridError> {
        let log = |name: &'static str, value: f64| match value > 0.0 && value <= 0.5 {
            true => Ok((value.ln() * NAT).round() as MicroNats),
            false => Err(GridError::Probability { name, value }),
        };
        Ok(Weights {
            failure: log("device_failure", self.device_failure)?,
            gasp: -log("isolated_gasp", self.isolated_gasp)?,
            alive: log("message_without_supply", self.message_without_supply)?,
            overdue: -log("overdue_with_supply", self.overdue_with_supply)?,
        })
    }
}

/// Logarithms of factorials up to a grid's number of points.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogFactorials(Vec<f64>);

impl LogFactorials {
    pub(crate) fn up_to(n: usize) -> Self {
        let mut logs = Vec::with_capacity(n + 2);
        let mut sum = 0.0;
        logs.push(0.0);
        for k in 1..=n + 1 {
            sum += (k as f64).ln();
            logs.push(sum);
        }
        Self(logs)
    }

    fn at(&self, n: u32) -> f64 {
        self.0.get(n as usize).copied().unwrap_or(f64::INFINITY)
    }

    /// Probability that exactly these `k` of `n` gasps arrive, whatever the share of gasps that arrive: `k! (n - k)! / (n + 1)!`.
    pub(crate) fn arrivals(&self, k: u32, n: u32) -> MicroNats {
        let k = k.min(n);
        ((self.at(k) + self.at(n - k) - self.at(n + 1)) * NAT).round() as MicroNats
    }
}

/// `ln(e^a + e^b)` in micronats, rounded: as a function of two integers it is exact enough and always the same.
pub(crate) fn log_add(a: MicroNats, b: MicroNats) -> MicroNats {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    let distance = low.saturating_sub(high);
    // less than half a micronat
    if distance < -16_000_000 {
        return high;
    }
    high + ((distance as f64 / NAT).exp().ln_1p() * NAT).round() as MicroNats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_of_all_patterns_sum_to_one() {
        let logs = LogFactorials::up_to(12);
        let choose = |n: u32, k: u32| (1..=k).fold(1.0, |c, i| c * f64::from(n - k + i) / f64::from(i));
        let sum: f64 = (0..=12).map(|k| choose(12, k) * (logs.arrivals(k, 12) as f64 / NAT).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }

    #[test]
    fn what_is_no_probability_is_refused_by_name() {
        for bad in [0.0, -0.1, 0.6, f64::NAN, f64::INFINITY] {
            let probabilities = Probabilities {
                isolated_gasp: bad,
                ..Probabilities::default()
            };
            let error = probabilities.weights().unwrap_err().to_string();
            assert!(error.contains("isolated_gasp"), "{error}");
        }
    }

    #[test]
    fn logarithms_add() {
        assert_eq!(log_add(0, 0), 693_147);
        assert_eq!(log_add(MicroNats::MIN, 5), 5);
        assert_eq!(log_add(-3_000_000, 1_000_000), log_add(1_000_000, -3_000_000));
    }
}
