//! Stored blocks: what one group commit adds to one partition, as a key and a value of the store.
//!
//! Key: offset of the first record, `u64` big endian, so that keys sort like offsets. Value: number of records, `u32` little endian,
//! then their frames (`model::record`).

use flexmeter_model::record::RecordBlock;

/// Bytes of a value before the frames.
pub(super) const HEAD_LEN: usize = 4;

/// Why stored bytes are not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlockError {
    /// A key that is no offset.
    #[error("a key has {0} bytes instead of 8")]
    Key(usize),
    /// Frames and count do not agree.
    #[error("the block at offset {base} is cut off")]
    CutOff { base: u64 },
}

/// The key of the block that starts at `offset`.
pub(super) fn key(offset: u64) -> [u8; 8] {
    offset.to_be_bytes()
}

/// The offset in a key.
pub(super) fn offset_of(key: &[u8]) -> Result<u64, BlockError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| BlockError::Key(key.len()))
}

/// Number of records and frames of a value.
pub(super) fn split(base: u64, value: &[u8]) -> Result<(u32, &[u8]), BlockError> {
    let (head, frames) = value.split_first_chunk::<HEAD_LEN>().ok_or(BlockError::CutOff { base })?;
    Ok((u32::from_le_bytes(*head), frames))
}

/// Length of the frame at the beginning of `frames`.
fn frame_len(base: u64, frames: &[u8]) -> Result<usize, BlockError> {
    let (head, rest) = frames.split_first_chunk::<4>().ok_or(BlockError::CutOff { base })?;
    let len = u32::from_le_bytes(*head) as usize;
    if len > rest.len() {
        Err(BlockError::CutOff { base })
    } else {
        Ok(4 + len)
    }
}

/// Puts stored blocks together to the block a reader asked for.
pub(super) struct Assembler {
    from: u64,
    bytes_max: usize,
    block: RecordBlock,
}

impl Assembler {
    /// A reader wants records of `partition` from `from` on, about `bytes_max` bytes of them.
    pub(super) fn new(partition: u32, from: u64, bytes_max: usize) -> Self {
        Self {
            from,
            bytes_max,
            block: RecordBlock {
                partition,
                base_offset: from,
                n_records: 0,
                data: Vec::new(),
            },
        }
    }

    /// Takes what it can use of the next stored block, and says whether it has room for another. The first record is always taken.
    pub(super) fn push(&mut self, base: u64, value: &[u8]) -> Result<bool, BlockError> {
        let (n_records, mut frames) = split(base, value)?;
        let wanted = if self.block.n_records == 0 {
            self.from
        } else {
            self.block.end_offset()
        };
        if base > wanted && self.block.n_records > 0 {
            return Ok(false); // offsets are missing here: the reader's next block begins behind the gap
        }
        let first = base.max(wanted);
        let Some(mut n_left) = (base + u64::from(n_records))
            .checked_sub(first)
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n > 0)
        else {
            return Ok(true); // all of it is before `from`
        };
        for _ in base..first {
            frames = frames.get(frame_len(base, frames)?..).unwrap_or_default();
        }
        if self.block.n_records == 0 {
            self.block.base_offset = first;
        }
        if self.block.data.len() + frames.len() <= self.bytes_max {
            self.block.data.extend_from_slice(frames);
            self.block.n_records += n_left;
            return Ok(self.block.data.len() < self.bytes_max);
        }
        while n_left > 0 {
            let len = frame_len(base, frames)?;
            if self.block.n_records > 0 && self.block.data.len() + len > self.bytes_max {
                break;
            }
            let (frame, rest) = frames.split_at(len);
            self.block.data.extend_from_slice(frame);
            self.block.n_records += 1;
            frames = rest;
            n_left -= 1;
        }
        Ok(false)
    }

    /// The block, if there is anything in it.
    pub(super) fn finish(self) -> Option<RecordBlock> {
        (self.block.n_records > 0).then_some(self.block)
    }
}
