//! When a saving is worth a proposal: above a threshold, and stable for a time. Time is an argument: log time, never a clock.

use crate::error::GridError;

/// What makes a saving worth a proposal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TriggerOptions {
    /// Least saving, W.
    pub saving_min_w: f64,
    /// How long it has to stay above, µs.
    pub dwell_us: i64,
    /// How far it may move from its first value meanwhile, as a share of that; infinite: only the threshold counts.
    pub band_share: f64,
    /// A longer silence between two observations starts the dwell time again, µs: nobody knows what was in between.
    pub gap_us_max: i64,
}

impl TriggerOptions {
    fn check(&self) -> Result<(), GridError> {
        let refused = |option, value, remedy| Err(GridError::BadOption { option, value, remedy });
        if !(self.saving_min_w >= 0.0 && self.saving_min_w.is_finite()) {
            return refused("saving_min_w", self.saving_min_w, "give W, zero or more");
        }
        if self.dwell_us < 0 {
            return refused("dwell_us", self.dwell_us as f64, "give microseconds, zero or more");
        }
        if !(self.band_share > 0.0) {
            return refused("band_share", self.band_share, "give a share above zero, such as 0.2, or infinity");
        }
        match self.gap_us_max > 0 {
            true => Ok(()),
            false => refused("gap_us_max", self.gap_us_max as f64, "give microseconds above zero"),
        }
    }
}

/// Where a trigger stands: all that a checkpoint needs of it beside its options.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Watch {
    /// Nothing worth it.
    Idle,
    /// Above the threshold.
    Rising {
        /// Since then.
        since_us: i64,
        /// The saving at that time, W.
        first_w: f64,
        /// When it was observed last.
        last_us: i64,
    },
}

/// Watches the saving that a reconfiguration would bring, one observation after the other. It fires at every observation as long as the
/// saving stays, because what it asks for may get lost on the way; whoever has what was asked for looks no more, or [rearms](Self::rearm) it.
///
/// ```
/// use flexmeter_grid::reconfiguration::{Trigger, TriggerOptions};
/// const MINUTE_US: i64 = 60_000_000;
/// let options = TriggerOptions { saving_min_w: 5e3, dwell_us: 10 * MINUTE_US, band_share: 0.5, gap_us_max: 5 * MINUTE_US };
/// let mut trigger = Trigger::new(options)?;
/// let fired: Vec<i64> = (0..14).filter(|&minute| trigger.observe(minute * MINUTE_US, 6e3)).collect();
/// assert_eq!(fired, [10, 11, 12, 13]);
/// # Ok::<(), flexmeter_grid::GridError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    options: TriggerOptions,
    watch: Watch,
}

impl Trigger {
    /// A trigger that has seen nothing.
    ///
    /// # Errors
    /// [`GridError::BadOption`] with the option and what would do.
    pub fn new(options: TriggerOptions) -> Result<Self, GridError> {
        Self::restore(options, Watch::Idle)
    }

    /// A trigger that stands where another one stood; its options may be others.
    ///
    /// # Errors
    /// [`GridError::BadOption`] as [`Self::new`], and for a saving that is no finite number.
    pub fn restore(options: TriggerOptions, watch: Watch) -> Result<Self, GridError> {
        options.check()?;
        match watch {
            Watch::Rising { first_w, .. } if !first_w.is_finite() => Err(GridError::BadOption {
                option: "first_w",
                value: first_w,
                remedy: "a saving that is observed is a finite number",
            }),
            _ => Ok(Self { options, watch }),
        }
    }

    /// Where it stands.
    pub fn watch(&self) -> Watch {
        self.watch
    }

    /// Takes the saving at a moment, W; not a number where none could be calculated. `true`: propose now. An observation older than
    /// the last one changes nothing.
    pub fn observe(&mut self, at_us: i64, saving_w: f64) -> bool {
        let is_worth_it = saving_w >= self.options.saving_min_w && saving_w > 0.0;
        self.watch = match self.watch {
            Watch::Rising { last_us, .. } if at_us < last_us => return false,
            _ if !is_worth_it => Watch::Idle,
            Watch::Rising {
                since_us,
                first_w,
                last_us,
            } if at_us.saturating_sub(last_us) <= self.options.gap_us_max
                && (saving_w - first_w).abs() <= self.options.band_share * first_w =>
            {
                Watch::Rising {
                    since_us,
                    first_w,
                    last_us: at_us,
                }
            }
            Watch::Rising { .. } | Watch::Idle => Watch::Rising {
                since_us: at_us,
                first_w: saving_w,
                last_us: at_us,
            },
        };
        matches!(self.watch, Watch::Rising { since_us, .. } if at_us.saturating_sub(since_us) >= self.options.dwell_us)
    }

    /// The proposal is settled, or the switches have moved: watches again from the beginning.
    pub fn rearm(&mut self) {
        self.watch = Watch::Idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: TriggerOptions = TriggerOptions {
        saving_min_w: 100.0,
        dwell_us: 10,
        band_share: 0.5,
        gap_us_max: 5,
    };

    /// Times at which the trigger fires for these observations.
    fn check(observations: &[(i64, f64)], expected: &[i64]) {
        let mut trigger = Trigger::new(OPTIONS).unwrap();
        let fired: Vec<i64> = observations
            .iter()
            .filter(|&&(at, saving)| trigger.observe(at, saving))
            .map(|&(at, _)| at)
            .collect();
        assert_eq!(fired, expected, "{observations:?}");
    }

    #[test]
    fn a_saving_that_stays_above_the_threshold_fires_as_long_as_it_does() {
        check(
            &[(0, 120.0), (5, 110.0), (9, 130.0), (12, 120.0), (15, 120.0), (30, 120.0)],
            &[12, 15],
        );
        check(&[(0, 120.0), (5, 120.0), (10, 120.0), (11, 99.0), (12, 120.0)], &[10]);
    }

    #[test]
    fn a_dip_a_jump_a_gap_or_a_hole_starts_the_dwell_time_again() {
        check(&[(0, 120.0), (5, 99.0), (6, 120.0), (10, 120.0), (14, 120.0), (16, 120.0)], &[16]);
        check(&[(0, 120.0), (5, 400.0), (10, 400.0), (14, 400.0), (15, 400.0)], &[15]);
        check(&[(0, 120.0), (5, 120.0), (11, 120.0), (15, 120.0), (20, 120.0), (21, 120.0)], &[21]);
        check(&[(0, 120.0), (5, f64::NAN), (6, 120.0), (11, 120.0), (16, 120.0)], &[16]);
    }

    #[test]
    fn what_comes_late_changes_nothing() {
        check(&[(0, 120.0), (5, 120.0), (3, 0.0), (10, 120.0)], &[10]);
        check(&[(i64::MIN, 120.0), (i64::MAX, 120.0)], &[]);
    }

    #[test]
    fn a_rearmed_trigger_begins_anew() {
        let mut trigger = Trigger::new(OPTIONS).unwrap();
        assert!(!trigger.observe(0, 120.0) && !trigger.observe(5, 120.0) && trigger.observe(10, 120.0));
        trigger.rearm();
        assert!(!trigger.observe(11, 120.0) && !trigger.observe(16, 120.0) && trigger.observe(21, 120.0));
    }

    #[test]
    fn a_restored_trigger_goes_on_where_it_stood() {
        let mut trigger = Trigger::new(OPTIONS).unwrap();
        assert!(!trigger.observe(0, 120.0) && !trigger.observe(5, 110.0));
        let mut restored = Trigger::restore(OPTIONS, trigger.watch()).unwrap();
        assert!(restored.observe(10, 110.0), "the dwell time began before");
        let spoiled = Watch::Rising {
            since_us: 0,
            first_w: f64::NAN,
            last_us: 0,
        };
        assert!(Trigger::restore(OPTIONS, spoiled).is_err());
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        for (options, name) in [
            (
                TriggerOptions {
                    saving_min_w: f64::NAN,
                    ..OPTIONS
                },
                "saving_min_w = NaN",
            ),
            (TriggerOptions { dwell_us: -1, ..OPTIONS }, "dwell_us = -1"),
            (
                TriggerOptions {
                    band_share: f64::NAN,
                    ..OPTIONS
                },
                "band_share = NaN",
            ),
            (TriggerOptions { gap_us_max: 0, ..OPTIONS }, "gap_us_max = 0"),
        ] {
            assert!(Trigger::new(options).unwrap_err().to_string().starts_with(name));
        }
    }
}
