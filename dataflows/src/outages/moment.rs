//! Time on the way from switch operations to the supply: epochs, and within an epoch log time.
//!
//! An epoch is as long as whoever feeds the engine makes it, and a replay cuts the log in other places. What a gasp means depends on how the
//! switches stood when it was sent, so operations keep their order among the facts of the same epoch. Moments are totally ordered: what is
//! later in the log builds on all that is earlier, across the ends of epochs.

use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::order::{PartialOrder, TotalOrder};
use timely::progress::Timestamp;
use timely::progress::timestamp::{PathSummary, Refines};

/// A moment of log time within an epoch; the order of the fields is the order of moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Moment {
    /// The epoch.
    pub epoch: u64,
    /// Log time, µs; the smallest number is the beginning of the epoch.
    pub log_us: i64,
}

impl Moment {
    /// Before anything that an epoch brings.
    #[must_use]
    pub fn beginning(epoch: u64) -> Self {
        Self { epoch, log_us: i64::MIN }
    }
}

impl PartialOrder for Moment {
    fn less_equal(&self, other: &Self) -> bool {
        self <= other
    }
}

impl TotalOrder for Moment {}

impl Lattice for Moment {
    fn join(&self, other: &Self) -> Self {
        *self.max(other)
    }

    fn meet(&self, other: &Self) -> Self {
        *self.min(other)
    }
}

impl Timestamp for Moment {
    /// No way within the scope moves a moment on.
    type Summary = ();

    fn minimum() -> Self {
        Self::beginning(u64::MIN)
    }
}

impl PathSummary<Moment> for () {
    fn results_in(&self, moment: &Moment) -> Option<Moment> {
        Some(*moment)
    }

    fn followed_by(&self, (): &()) -> Option<()> {
        Some(())
    }
}

impl Refines<u64> for Moment {
    fn to_inner(epoch: u64) -> Self {
        Self::beginning(epoch)
    }

    fn to_outer(self) -> u64 {
        self.epoch
    }

    fn summarize((): ()) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_an_earlier_epoch_is_earlier_whatever_its_log_time() {
        let moment = |epoch, log_us| Moment { epoch, log_us };
        let moments = [
            Moment::minimum(),
            moment(0, 5),
            Moment::beginning(1),
            moment(1, -3),
            moment(2, i64::MIN),
        ];
        for pair in moments.windows(2) {
            assert!(pair[0].less_equal(&pair[1]) && !pair[1].less_equal(&pair[0]), "{pair:?}");
            assert_eq!((pair[0].join(&pair[1]), pair[0].meet(&pair[1])), (pair[1], pair[0]));
        }
        assert!(moments.iter().all(|moment| Moment::to_inner(moment.epoch) <= *moment));
    }
}
