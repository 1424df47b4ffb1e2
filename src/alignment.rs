//! Partitions side by side: the engine gets the records of a backlog in the order of log time, whatever partition they are on.
//!
//! The engine watches the whole log with one clock: who has been silent on one partition is told by what others have said on theirs.
//! Partitions are read by bytes, so in a backlog a quiet one would be hours ahead of a busy one, and every meter of the busy one would
//! seem silent for that long. Whoever has nothing to read is waited for by nobody.

use std::collections::VecDeque;

use flexmeter_model::EventTime;
use flexmeter_model::record::RecordBlock;

/// Whoever is read up to here before now is not in a backlog: two seconds.
const LIVE_US: i64 = 2_000_000;

/// What was read and waits for its turn.
#[derive(Debug)]
pub(crate) struct Alignment {
    partitions: Vec<VecDeque<Waiting>>,
    /// A partition of which less than this waits may be read.
    n_bytes_max: usize,
}

#[derive(Debug)]
struct Waiting {
    block: RecordBlock,
    /// Log time of its last record.
    last_us: i64,
}

impl Alignment {
    pub(crate) fn new(n_partitions: usize, n_bytes_max: usize) -> Self {
        Self {
            partitions: std::iter::repeat_with(VecDeque::new).take(n_partitions).collect(),
            n_bytes_max,
        }
    }

    /// Whether so little of a partition waits that its next block may be read.
    pub(crate) fn has_room(&self, partition: usize) -> bool {
        let waiting = self.partitions.get(partition).into_iter().flatten();
        waiting.map(|waiting| waiting.block.data.len()).sum::<usize>() < self.n_bytes_max
    }

    /// Takes over the block that follows what was taken before.
    pub(crate) fn put(&mut self, block: RecordBlock) {
        let last_us = block.last_received_at().map_or(i64::MIN, EventTime::micros);
        if let Some(waiting) = self.partitions.get_mut(block.partition as usize) {
            waiting.push_back(Waiting { block, last_us });
        }
    }

    /// The records whose turn it is: all up to the moment that every partition with something to read has reached, so at least one
    /// partition's whole share. A clock that was set back leaves records that claim to be of later than `now`; they wait for nobody that is live.
    pub(crate) fn take(&mut self, now: EventTime) -> Vec<RecordBlock> {
        let now_us = now.micros();
        let newest = |waiting: &VecDeque<Waiting>| waiting.iter().map(|waiting| waiting.last_us).max();
        let Some(until_us) = self.partitions.iter().filter_map(newest).min() else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for waiting in &mut self.partitions {
            let is_ahead_of_now = newest(waiting) > Some(now_us) && until_us >= now_us.saturating_sub(LIVE_US);
            while let Some(Waiting { mut block, last_us }) = waiting.pop_front() {
                if last_us <= until_us || is_ahead_of_now {
                    taken.push(block);
                    continue;
                }
                if let Some(rest) = block.split_off_after(EventTime::from_micros(until_us)) {
                    waiting.push_front(Waiting { block: rest, last_us });
                }
                if block.n_records > 0 {
                    taken.push(block);
                }
                break;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use flexmeter_model::record::{Record, RecordKind};

    use super::*;

    const NOW_S: i64 = 100_000;

    /// A block with a record at each of these seconds.
    fn block(partition: u32, base_offset: u64, seconds: impl IntoIterator<Item = i64>) -> RecordBlock {
        let (mut data, mut n_records) = (Vec::new(), 0);
        for second in seconds {
            Record {
                kind: RecordKind::Message,
                tenant: "default",
                hardware_id: "m-1",
                bound: true,
                redelivered: false,
                received_at: EventTime::from_micros(second * 1_000_000),
                payload: b"{}",
            }
            .encode(&mut data);
            n_records += 1;
        }
        RecordBlock {
            partition,
            base_offset,
            n_records,
            data,
        }
    }

    /// Partition and offsets of what is taken at a time.
    fn take(alignment: &mut Alignment) -> Vec<(u32, std::ops::Range<u64>)> {
        let taken = alignment.take(EventTime::from_micros(NOW_S * 1_000_000));
        taken
            .iter()
            .map(|block| {
                assert_eq!(block.iter().map(Result::unwrap).count(), block.n_records as usize);
                (block.partition, block.base_offset..block.end_offset())
            })
            .collect()
    }

    #[test]
    fn records_come_in_the_order_of_log_time() {
        let mut alignment = Alignment::new(2, 64);
        assert_eq!(take(&mut alignment), []);
        alignment.put(block(0, 0, (0..100).map(|n| n * 60)));
        alignment.put(block(1, 7, [0, 30, 59, 60]));
        assert_eq!(take(&mut alignment), [(0, 0..2), (1, 7..11)]);
        assert!(!alignment.has_room(0) && alignment.has_room(1));
        alignment.put(block(1, 11, [61, 62]));
        assert!(alignment.has_room(1), "little waits");
        alignment.put(block(1, 13, [70, 119]));
        assert_eq!(take(&mut alignment), [(1, 11..13), (1, 13..15)]);
        alignment.put(block(1, 15, [120, 179]));
        assert_eq!(take(&mut alignment), [(0, 2..3), (1, 15..17)]);
    }

    #[test]
    fn nobody_waits_for_a_partition_that_has_nothing_to_read() {
        let mut alignment = Alignment::new(3, 64);
        alignment.put(block(0, 0, (0..100).map(|n| n * 60)));
        assert_eq!(take(&mut alignment), [(0, 0..100)]);
        assert_eq!(take(&mut alignment), []);
    }

    #[test]
    fn a_clock_that_was_wrong_stops_nobody() {
        let mut alignment = Alignment::new(2, 64);
        // an hour ahead of the clock
        alignment.put(block(0, 0, [NOW_S - 90, NOW_S + 3_600]));
        alignment.put(block(1, 0, [NOW_S - 80]));
        assert_eq!(take(&mut alignment), [(0, 0..1), (1, 0..1)], "a backlog is waited for");
        alignment.put(block(1, 1, [NOW_S - 1]));
        assert_eq!(take(&mut alignment), [(0, 1..2), (1, 1..2)]);
        // set back within a partition
        alignment.put(block(0, 2, [NOW_S - 20]));
        alignment.put(block(0, 3, [NOW_S - 50]));
        alignment.put(block(1, 2, [NOW_S - 30]));
        assert_eq!(take(&mut alignment), [(1, 2..3)]);
        assert_eq!(take(&mut alignment), [(0, 2..3), (0, 3..4)]);
    }

    #[test]
    fn a_block_that_cannot_be_read_goes_on_to_the_engine_which_says_so() {
        let mut alignment = Alignment::new(2, 64);
        alignment.put(RecordBlock {
            data: vec![1, 2, 3],
            ..block(0, 0, [0])
        });
        alignment.put(block(1, 0, [50]));
        let taken = alignment.take(EventTime::from_micros(NOW_S * 1_000_000));
        assert_eq!(taken.iter().map(|block| block.partition).collect::<Vec<_>>(), [0]);
        assert_eq!(take(&mut alignment), [(1, 0..1)]);
    }
}
