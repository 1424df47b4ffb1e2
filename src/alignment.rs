//! Partitions side by side: while a backlog is read, none of them runs ahead of the others in log time.
//!
//! The engine watches the whole log with one clock: who has been silent on one partition is told by what others have said on theirs.
//! Partitions are read by bytes, so in a backlog a quiet one would be hours ahead of a busy one, and every meter of the busy one would
//! seem silent for that long. Whoever has nothing to read is waited for by nobody.

use flexmeter_model::EventTime;
use flexmeter_model::record::RecordBlock;

/// How far, in log time, a partition may be ahead of the slowest one that has something to read: two seconds. Less than any
/// silence that says something, more than a busy log's partitions are apart.
const LEAD_US_MAX: i64 = 2_000_000;

/// What was read and waits for its turn: at most one block of each partition.
#[derive(Debug)]
pub(crate) struct Alignment {
    waiting: Vec<Option<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    block: RecordBlock,
    /// Log time of its last record.
    last_us: i64,
}

impl Alignment {
    pub(crate) fn new(n_partitions: usize) -> Self {
        Self {
            waiting: std::iter::repeat_with(|| None).take(n_partitions).collect(),
        }
    }

    /// Whether nothing of a partition waits, so that its next block may be read.
    pub(crate) fn has_room(&self, partition: usize) -> bool {
        self.waiting.get(partition).is_some_and(Option::is_none)
    }

    /// Takes over the block that follows what was taken before.
    pub(crate) fn put(&mut self, block: RecordBlock) {
        let last_us = block.last_received_at().map_or(i64::MIN, EventTime::micros);
        if let Some(place) = self.waiting.get_mut(block.partition as usize) {
            *place = Some(Waiting { block, last_us });
        }
    }

    /// The records whose turn it is, at least one block of them if any waits. A record that claims to be later than `now` is of a clock
    /// that has been set back since: it is waited for no longer than one of now.
    pub(crate) fn take(&mut self, now: EventTime) -> Vec<RecordBlock> {
        let last = |waiting: &Waiting| waiting.last_us.min(now.micros());
        let Some(slowest_us) = self.waiting.iter().flatten().map(last).min() else {
            return Vec::new();
        };
        let until_us = slowest_us.saturating_add(LEAD_US_MAX);
        let mut taken = Vec::new();
        for place in &mut self.waiting {
            let Some(Waiting { mut block, last_us }) = place.take() else {
                continue;
            };
            if last_us > until_us && until_us < now.micros() {
                let rest = block.split_off_after(EventTime::from_micros(until_us));
                *place = rest.map(|block| Waiting { block, last_us });
            }
            if block.n_records > 0 {
                taken.push(block);
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
    fn a_quiet_partition_waits_for_the_busy_one() {
        let mut alignment = Alignment::new(2);
        assert_eq!(take(&mut alignment), []);
        alignment.put(block(0, 0, (0..100).map(|n| n * 60)));
        alignment.put(block(1, 7, [0, 30, 59, 60]));
        assert_eq!(take(&mut alignment), [(0, 0..2), (1, 7..11)]);
        assert!(!alignment.has_room(0) && alignment.has_room(1));
        alignment.put(block(1, 11, [61, 62, 70]));
        assert_eq!(take(&mut alignment), [(1, 11..14)]);
        alignment.put(block(1, 14, [71, 179]));
        assert_eq!(take(&mut alignment), [(0, 2..4), (1, 14..16)]);
    }

    #[test]
    fn nobody_waits_for_a_partition_that_has_nothing_to_read() {
        let mut alignment = Alignment::new(3);
        alignment.put(block(0, 0, (0..100).map(|n| n * 60)));
        assert_eq!(take(&mut alignment), [(0, 0..100)]);
        assert_eq!(take(&mut alignment), []);
    }

    #[test]
    fn a_clock_that_was_wrong_stops_nobody() {
        let mut alignment = Alignment::new(2);
        // an hour ahead of the clock
        alignment.put(block(0, 0, [NOW_S - 9, NOW_S + 3_600]));
        alignment.put(block(1, 0, [NOW_S - 10]));
        assert_eq!(take(&mut alignment), [(0, 0..1), (1, 0..1)]);
        alignment.put(block(1, 1, [NOW_S - 1]));
        assert_eq!(take(&mut alignment), [(0, 1..2), (1, 1..2)]);
    }

    #[test]
    fn a_block_that_cannot_be_read_goes_on_to_the_engine_which_says_so() {
        let mut alignment = Alignment::new(2);
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
