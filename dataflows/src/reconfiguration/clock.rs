//! How far the whole log has come.

use std::collections::BTreeMap;

/// Log time of the partition that is least far: whatever is older has been read, in all partitions. Partitions nobody has met yet do not
/// count; heartbeats keep the others going. A replay reads partitions one faster than the other, so what depends on the order of two
/// partitions' records has to wait for this.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogClock {
    by_partition: BTreeMap<u32, i64>,
}

impl LogClock {
    pub(crate) fn hear(&mut self, partition: u32, log_time: i64) {
        let reached = self.by_partition.entry(partition).or_insert(log_time);
        *reached = log_time.max(*reached);
    }

    /// What is before this moment has been read; `None` before the first record.
    pub(crate) fn reached(&self) -> Option<i64> {
        self.by_partition.values().min().copied()
    }
}

/// The last multiple of an interval that has passed.
pub(crate) fn last_check(reached: i64, interval_us: i64) -> i64 {
    reached.saturating_sub(1).div_euclid(interval_us).saturating_mul(interval_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_partition_says_how_far_the_log_has_come() {
        let mut clock = LogClock::default();
        assert_eq!(clock.reached(), None);
        for (partition, log_time, expected) in [(0, 10, 10), (1, 4, 4), (0, 20, 4), (1, 12, 12), (1, 11, 12), (1, 30, 20)] {
            clock.hear(partition, log_time);
            assert_eq!(clock.reached(), Some(expected));
        }
    }

    #[test]
    fn a_check_is_due_when_its_moment_has_passed_everywhere() {
        for (reached, expected) in [(59, 0), (60, 0), (61, 60), (120, 60), (121, 120), (0, -60), (i64::MIN, i64::MIN)] {
            assert_eq!(last_check(reached, 60), expected, "at {reached}");
        }
    }
}
