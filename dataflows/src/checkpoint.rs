//! The checkpoint of one partition, as bytes.
//!
//! ```text
//! magic "FLXPART\n" · version u32 · number of partitions u32 · partition u32
//! next offset u64 · log time i64 · minute i64 · device table · identities · totals · latest · load profile · meters and switches · outages · proposals · located faults · crc32 u32 of everything before it
//! ```
//! Integers are little endian; counts are LEB128. A reader believes nothing: lengths are checked against the bytes that are left
//! before anything is allocated, and every damaged file is an error, never a panic.

/// Why bytes are not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It ends too early.
    #[error("the file is cut off; use an older checkpoint")]
    CutOff,
    /// It does not begin like a checkpoint.
    #[error("the file is no flexmeter checkpoint")]
    Magic,
    /// Another version wrote it.
    #[error("the file has format version {found}, this program reads version {VERSION}; start from an older checkpoint or from the log")]
    Version {
        /// The version found.
        found: u32,
    },
    /// Its bytes changed.
    #[error("the checksum does not match; use an older checkpoint")]
    Checksum,
    /// It is another partition's, or of another offset.
    #[error("the file is of partition {partition} at offset {offset}")]
    Misplaced {
        /// The partition it is of.
        partition: u32,
        /// The offset it is of.
        offset: u64,
    },
    /// The log had another number of partitions, so devices were on others.
    #[error("the file is of a log with {found} partitions; start with that number, or from the log")]
    Partitions {
        /// The number found.
        found: u32,
    },
    /// A value cannot be right.
    #[error("the {what} in it cannot be right; use an older checkpoint")]
    Value {
        /// The field.
        what: &'static str,
    },
}

/// Version of the format.
pub(crate) const VERSION: u32 = 4;
const MAGIC: &[u8; 8] = b"FLXPART\n";
const CRC_LEN: usize = 4;

/// Writes a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a checkpoint.
    pub(crate) fn begin(capacity: usize) -> Self {
        let mut writer = Self {
            bytes: Vec::with_capacity(capacity),
        };
        writer.bytes.extend_from_slice(MAGIC);
        writer.u32(VERSION);
        writer
    }

    /// Adds the checksum.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.bytes);
        self.u32(crc);
        self.bytes
    }

    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i128(&mut self, value: i128) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A count of items that follow.
    pub(crate) fn len(&mut self, len: usize) {
        self.varint(len as u64);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    /// Metadata of an alert.
    pub(crate) fn pairs(&mut self, pairs: &[(String, String)]) {
        self.len(pairs.len());
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
        }
    }

    /// Bytes that somebody else makes sense of.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads a checkpoint.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks checksum, magic and version.
    pub(crate) fn begin(bytes: &'a [u8]) -> Result<Self, CheckpointError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != *MAGIC {
            return Err(CheckpointError::Magic);
        }
        let found = reader.u32()?;
        if found != VERSION {
            return Err(CheckpointError::Version { found });
        }
        let Some((body, crc)) = bytes.split_last_chunk::<CRC_LEN>() else {
            return Err(CheckpointError::CutOff);
        };
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(CheckpointError::Checksum);
        }
        let body_len = reader.bytes.len().checked_sub(CRC_LEN).ok_or(CheckpointError::CutOff)?;
        reader.bytes = &reader.bytes[..body_len];
        Ok(reader)
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), CheckpointError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(CheckpointError::Value { what: "length" })
        }
    }

    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(CheckpointError::CutOff)?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CheckpointError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CheckpointError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CheckpointError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CheckpointError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn i128(&mut self) -> Result<i128, CheckpointError> {
        self.array().map(i128::from_le_bytes)
    }

    /// A finite number.
    pub(crate) fn f64(&mut self) -> Result<f64, CheckpointError> {
        let value = f64::from_bits(self.u64()?);
        if value.is_finite() {
            Ok(value)
        } else {
            Err(CheckpointError::Value { what: "number" })
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, CheckpointError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CheckpointError::Value { what: "count" })
    }

    /// A count of items of at least `item_len_min` bytes each: never more than the bytes that are left can hold.
    pub(crate) fn len(&mut self, item_len_min: usize) -> Result<usize, CheckpointError> {
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.bytes.len() / item_len_min => Ok(len),
            _ => Err(CheckpointError::CutOff),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, CheckpointError> {
        std::str::from_utf8(self.raw()?).map_err(|_| CheckpointError::Value { what: "text" })
    }

    /// Metadata as [`Writer::pairs`] wrote it.
    pub(crate) fn pairs(&mut self) -> Result<Vec<(String, String)>, CheckpointError> {
        let mut pairs = Vec::new();
        for _ in 0..self.len(2)? {
            pairs.push((self.text()?.to_owned(), self.text()?.to_owned()));
        }
        Ok(pairs)
    }

    /// Bytes as [`Writer::raw`] wrote them.
    pub(crate) fn raw(&mut self) -> Result<&'a [u8], CheckpointError> {
        let len = self.len(1)?;
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Writer::begin(0);
        out.u8(1);
        out.i64(-5);
        out.i128(-(1 << 100));
        out.f64(-0.5);
        out.text("zähler");
        [0, 127, 128, 300, u64::MAX].iter().for_each(|&n| out.varint(n));
        let bytes = out.finish();
        let mut input = Reader::begin(&bytes).unwrap();
        assert_eq!((input.u8(), input.i64(), input.i128()), (Ok(1), Ok(-5), Ok(-(1 << 100))));
        assert_eq!((input.f64(), input.text()), (Ok(-0.5), Ok("zähler")));
        assert!([0, 127, 128, 300, u64::MAX].iter().all(|&n| input.varint() == Ok(n)));
        assert_eq!(input.finish(), Ok(()));
    }

    #[test]
    fn a_changed_bit_or_a_missing_byte_is_an_error() {
        let mut out = Writer::begin(0);
        out.text("something");
        let bytes = out.finish();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(Reader::begin(&damaged).is_err(), "byte {at}");
            assert!(Reader::begin(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = Writer::begin(0).finish();
        bytes[8] = 9;
        assert_eq!(Reader::begin(&bytes).err(), Some(CheckpointError::Version { found: 9 }));
    }

    #[test]
    fn a_count_never_promises_more_than_there_is() {
        let mut out = Writer::default();
        out.varint(1 << 40);
        let bytes = out.into_bytes();
        assert_eq!(Reader::new(&bytes).len(1), Err(CheckpointError::CutOff));
    }
}
