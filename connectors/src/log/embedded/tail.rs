//! The last blocks of a partition, in memory, for readers that follow the end.

use std::collections::VecDeque;

use fjall::UserValue;
use flexmeter_model::record::RecordBlock;
use parking_lot::Mutex;

use super::block::Assembler;

/// Most bytes of blocks a partition keeps here (1 MiB, plus one block). They are shared with fjall's memtable, not copied.
const TAIL_BYTES_MAX: usize = 1024 * 1024;
/// Most blocks a partition keeps here.
const TAIL_BLOCKS_MAX: usize = 1024;

/// The last blocks, oldest first, without gaps.
#[derive(Default)]
pub(super) struct Tail {
    blocks: VecDeque<(u64, UserValue)>,
    bytes: usize,
}

impl Tail {
    /// Adds the block that has just become readable.
    pub(super) fn push(&mut self, base_offset: u64, value: UserValue) {
        self.bytes += value.len();
        self.blocks.push_back((base_offset, value));
        while self.blocks.len() > 1 && (self.bytes > TAIL_BYTES_MAX || self.blocks.len() > TAIL_BLOCKS_MAX) {
            self.pop_front();
        }
    }

    /// Forgets blocks that begin before `start`.
    pub(super) fn drop_before(&mut self, start: u64) {
        while self.blocks.front().is_some_and(|(base, _)| *base < start) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, value)) = self.blocks.pop_front() {
            self.bytes -= value.len();
        }
    }

    /// The blocks from the one that holds `from`, if it is still here.
    fn from(&self, from: u64) -> Option<Vec<(u64, UserValue)>> {
        let n_before = self.blocks.partition_point(|(base, _)| *base <= from).checked_sub(1)?;
        Some(self.blocks.range(n_before..).cloned().collect())
    }
}

/// Reads from the tail; `None` when `from` is no longer in it.
pub(super) fn read(tail: &Mutex<Tail>, partition: u32, from: u64, bytes_max: usize) -> Option<RecordBlock> {
    let blocks = tail.lock().from(from)?; // a few reference counts: the writer is not kept waiting
    let mut assembler = Assembler::new(partition, from, bytes_max);
    for (base, value) in &blocks {
        if !assembler.push(*base, value).ok()? {
            break;
        }
    }
    assembler.finish()
}
