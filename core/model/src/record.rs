//! The inbound log's record: one message as it was received, before anyone has judged it.
//!
//! A record is framed the same way in the embedded log and in Kafka. A [`RecordBlock`] is a run of frames with consecutive offsets of
//! one partition; iterating it borrows from the block, so nothing is copied between the disk and the decoder.

use crate::time::EventTime;

/// Largest payload a publish may carry, in bytes (1 MiB).
pub const PAYLOAD_LEN_MAX: usize = 1024 * 1024;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// One JSON message (`docs/mqtt.md`; a batch has been split before it reached the log).
    Message = 1,
    /// A SiteWhere `input/jsonbatch` payload: one device, several event bodies, no `type`.
    LegacyBatch = 2,
    /// No message: it only moves log time on while the partition is silent.
    Heartbeat = 3,
    /// A payload above [`PAYLOAD_LEN_MAX`]; only its beginning is kept, it ends as a `too_large` rejection.
    Oversized = 4,
}

impl RecordKind {
    fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Message),
            2 => Some(Self::LegacyBatch),
            3 => Some(Self::Heartbeat),
            4 => Some(Self::Oversized),
            _ => None,
        }
    }
}

/// One record, borrowed from wherever its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the payload is.
    pub kind: RecordKind,
    /// The tenant of the topic it was published to.
    pub tenant: &'a str,
    /// The device it is filed under: it chooses the partition, so that order per device is kept. Empty when no id could be read.
    pub hardware_id: &'a str,
    /// The publisher was a device bound to `hardware_id`: a payload that names another device is an `identity_mismatch`.
    /// False for gateways, services and insecure mode, whose payloads are believed.
    pub bound: bool,
    /// MQTT marked the publish as a redelivery (DUP).
    pub redelivered: bool,
    /// When the log appended it.
    pub received_at: EventTime,
    /// The bytes as published.
    pub payload: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame says it is longer than the bytes that are left.
    #[error("record frame at byte {at} is cut off")]
    CutOff {
        /// Byte position in the block.
        at: usize,
    },
    /// A field of the frame cannot be right.
    #[error("record frame at byte {at} is corrupt: {what}")]
    Corrupt {
        /// Byte position in the block.
        at: usize,
        /// The field.
        what: &'static str,
    },
}

const HEAD_LEN: usize = 4 + 1 + 1 + 8 + 1 + 1;
const FLAG_BOUND: u8 = 1;
const FLAG_REDELIVERED: u8 = 2;

impl<'a> Record<'a> {
    /// Appends this record's frame to `out`.
    ///
    /// # Shape
    /// `len:u32 kind:u8 flags:u8 received_at:i64 tenant_len:u8 hardware_id_len:u8 tenant hardware_id payload`, little endian;
    /// `len` counts everything after itself. Ids longer than 255 bytes are cut (they were refused long before).
    pub fn encode(&self, out: &mut Vec<u8>) {
        // half a character would make the frame unreadable, and a frame that is in the log must be readable
        let tenant = &self.tenant.as_bytes()[..self.tenant.floor_char_boundary(255)];
        let hardware_id = &self.hardware_id.as_bytes()[..self.hardware_id.floor_char_boundary(255)];
        let len = HEAD_LEN - 4 + tenant.len() + hardware_id.len() + self.payload.len();
        out.reserve(4 + len);
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        out.push(self.kind as u8);
        out.push(if self.bound { FLAG_BOUND } else { 0 } | if self.redelivered { FLAG_REDELIVERED } else { 0 });
        out.extend_from_slice(&self.received_at.micros().to_le_bytes());
        out.push(tenant.len() as u8);
        out.push(hardware_id.len() as u8);
        out.extend_from_slice(tenant);
        out.extend_from_slice(hardware_id);
        out.extend_from_slice(self.payload);
    }

    /// Reads the frame at `at` and the position of the next one.
    ///
    /// # Errors
    /// [`FrameError`] when the frame is cut off or its fields cannot be right.
    pub fn decode(data: &'a [u8], at: usize) -> Result<(Self, usize), FrameError> {
        let cut_off = || FrameError::CutOff { at };
        let corrupt = |what| FrameError::Corrupt { at, what };
        let head = data.get(at..at + HEAD_LEN).ok_or_else(cut_off)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at.checked_add(4 + len).ok_or_else(cut_off)?;
        let body = data.get(at + HEAD_LEN..end).ok_or_else(cut_off)?;
        let kind = RecordKind::from_u8(head[4]).ok_or_else(|| corrupt("kind"))?;
        let flags = head[5];
        let micros = i64::from_le_bytes([head[6], head[7], head[8], head[9], head[10], head[11], head[12], head[13]]);
        let (tenant_len, id_len) = (head[14] as usize, head[15] as usize);
        let text = |range: std::ops::Range<usize>, what| {
            let bytes = body.get(range).ok_or_else(|| corrupt(what))?;
            std::str::from_utf8(bytes).map_err(|_| corrupt(what))
        };
        let record = Record {
            kind,
            tenant: text(0..tenant_len, "tenant")?,
            hardware_id: text(tenant_len..tenant_len + id_len, "hardware id")?,
            bound: flags & FLAG_BOUND != 0,
            redelivered: flags & FLAG_REDELIVERED != 0,
            received_at: EventTime::from_micros(micros),
            payload: body.get(tenant_len + id_len..).ok_or_else(|| corrupt("payload"))?,
        };
        Ok((record, end))
    }
}

/// A run of records with consecutive offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBlock {
    /// The log partition.
    pub partition: u32,
    /// Offset of the first record.
    pub base_offset: u64,
    /// Number of records.
    pub n_records: u32,
    /// Their frames, one after the other.
    pub data: Vec<u8>,
}

impl RecordBlock {
    /// The offset after the last record.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.n_records)
    }

    /// When its last readable record was appended; `None` if there is none.
    #[must_use]
    pub fn last_received_at(&self) -> Option<EventTime> {
        self.iter().map_while(Result::ok).last().map(|(_, record)| record.received_at)
    }

    /// Keeps the records before the first one that was appended after `until`, and gives back that one and all behind it.
    #[must_use]
    pub fn split_off_after(&mut self, until: EventTime) -> Option<Self> {
        let (mut at, mut n_kept) = (0, 0);
        while let Ok((record, next)) = Record::decode(&self.data, at)
            && record.received_at <= until
        {
            (at, n_kept) = (next, n_kept + 1);
        }
        let n_left = self.n_records.checked_sub(n_kept).filter(|&n| n > 0)?;
        self.n_records = n_kept;
        Some(Self {
            partition: self.partition,
            base_offset: self.end_offset(),
            n_records: n_left,
            data: self.data.split_off(at),
        })
    }

    /// The records with their offsets, in order. Stops after the first corrupt frame.
    pub fn iter(&self) -> impl Iterator<Item = Result<(u64, Record<'_>), FrameError>> {
        let mut at = 0;
        let mut offset = self.base_offset;
        let mut broken = false;
        std::iter::from_fn(move || {
            if broken || at >= self.data.len() || offset >= self.end_offset() {
                return None;
            }
            match Record::decode(&self.data, at) {
                Ok((record, next)) => {
                    at = next;
                    offset += 1;
                    Some(Ok((offset - 1, record)))
                }
                Err(error) => {
                    broken = true;
                    Some(Err(error))
                }
            }
        })
    }
}

/// The partition a device's records go to: `xxh3(tenant, 0, hardware_id) mod n_partitions`.
#[must_use]
pub fn partition_of(tenant: &str, hardware_id: &str, n_partitions: u32) -> u32 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(tenant.as_bytes());
    hasher.update(&[0]);
    hasher.update(hardware_id.as_bytes());
    (hasher.digest() % u64::from(n_partitions.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(hardware_id: &'a str, payload: &'a [u8]) -> Record<'a> {
        Record {
            kind: RecordKind::Message,
            tenant: "default",
            hardware_id,
            bound: true,
            redelivered: false,
            received_at: EventTime::from_micros(1_234_567),
            payload,
        }
    }

    #[test]
    fn a_block_gives_back_what_was_encoded() {
        let records = [record("m-1", b"{}"), record("", b""), record("m-2", &[0xff; 300])];
        let mut data = Vec::new();
        for r in &records {
            r.encode(&mut data);
        }
        let block = RecordBlock {
            partition: 3,
            base_offset: 40,
            n_records: 3,
            data,
        };
        let back: Vec<_> = block.iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(back, [(40, records[0]), (41, records[1]), (42, records[2])]);
    }

    #[test]
    fn a_block_is_cut_at_a_moment_and_its_parts_follow_each_other() {
        let mut data = Vec::new();
        let times = [10, 20, 15, 40, 5];
        for &at in &times {
            let received_at = EventTime::from_micros(at);
            Record {
                received_at,
                ..record("m-1", b"{}")
            }
            .encode(&mut data);
        }
        let whole = RecordBlock {
            partition: 3,
            base_offset: 40,
            n_records: 5,
            data,
        };
        assert_eq!(whole.last_received_at(), Some(EventTime::from_micros(5)));
        for (until, n_kept) in [(9, 0), (10, 1), (39, 3), (40, 5)] {
            let mut kept = whole.clone();
            let rest = kept.split_off_after(EventTime::from_micros(until));
            assert_eq!((kept.n_records, rest.is_some()), (n_kept, n_kept < 5), "until {until}");
            let records = kept.iter().chain(rest.iter().flat_map(RecordBlock::iter));
            let found: Vec<_> = records
                .map(|found| found.map(|(offset, record)| (offset, record.received_at.micros())))
                .collect();
            let expected: Vec<_> = (40..).zip(times).map(Ok).collect();
            assert_eq!(found, expected, "until {until}");
        }
    }

    #[test]
    fn an_id_that_is_too_long_still_gives_a_readable_frame() {
        let long = "ä".repeat(200);
        let mut data = Vec::new();
        record(&long, b"payload").encode(&mut data);
        let (back, end) = Record::decode(&data, 0).unwrap();
        assert_eq!(
            (back.hardware_id, back.payload, end),
            (&long[..254], b"payload".as_slice(), data.len())
        );
    }

    #[test]
    fn any_truncation_is_an_error_and_never_a_panic() {
        let mut data = Vec::new();
        record("m-1", b"payload").encode(&mut data);
        for len in 0..data.len() {
            assert!(Record::decode(&data[..len], 0).is_err(), "{len}");
        }
    }

    #[test]
    fn partitions_are_stable() {
        // pinned: a change would send devices to other partitions of existing logs
        assert_eq!(
            partition_of("default", "FLX-LV01-001", 4),
            partition_of("default", "FLX-LV01-001", 4)
        );
        assert!((0..1000).map(|i| partition_of("t", &i.to_string(), 8)).all(|p| p < 8));
    }
}
