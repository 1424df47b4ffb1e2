//! Looks through fjall's journals before fjall does.
//!
//! fjall refuses to open a journal whose last batch has the right length and the wrong checksum, which is what a power cut leaves when
//! it wrote some pages of a batch and not others; and it silently drops everything behind a damaged byte elsewhere. Here a torn tail
//! is cut off (nobody was told that it is stored), and a damaged batch with whole ones behind it is taken out: its offsets become a
//! gap, the damaged file is kept, and the operator is told.
//!
//! # Source
//! The format is that of fjall 3.1, `journal/entry.rs` and `journal/writer.rs`; the workspace pins fjall to the 3.1 series, and the
//! tests of this file fail when it changes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::log::LogError;

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
/// `tag:u8 n_entries:u32 seqno:u64`
const START_LEN: usize = 1 + 4 + 8;
/// `tag:u8 type:u8 compression:u8 keyspace:u64 key_len:u16 value_len:u32 stored_len:u32`, then key and value.
const ITEM_HEAD_LEN: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
/// `tag:u8 keyspace:u64`
const CLEAR_LEN: usize = 1 + 8;
/// `tag:u8 checksum:u64 magic:[u8; 4]`
const END_LEN: usize = 1 + 8 + 4;
const END_MAGIC: [u8; 4] = [b'F', b'J', b'L', 3];

/// Whether a sound journal is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Yes: the system has said of every acknowledged byte that it is on disk.
    Disk,
    /// No: an fsync has failed. The system may have dropped pages that it still shows us, so every journal is written once more.
    Nothing,
}

/// Puts the journals in `store` in order.
pub(super) fn repair(store: &Path, trust: Trust) -> Result<(), LogError> {
    let failed = |e: std::io::Error| LogError::Storage {
        action: "checking the journal",
        dir: store.to_owned(),
        reason: e.to_string().into(),
    };
    if !store.try_exists().map_err(failed)? {
        return Ok(());
    }
    for entry in fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "jnl") {
            repair_file(&path, trust).map_err(failed)?;
        }
    }
    Ok(())
}

fn repair_file(path: &Path, trust: Trust) -> std::io::Result<()> {
    let data = fs::read(path)?;
    let found = scan(&data);
    if found.n_damaged_bytes > 0 {
        let kept_as = with_suffix(path, "damaged");
        fs::copy(path, &kept_as)?;
        metrics::counter!("flexmeter_log_damaged_bytes_total").increment(found.n_damaged_bytes as u64);
        tracing::error!(
            journal = %path.display(), kept_as = %kept_as.display(), bytes = found.n_damaged_bytes,
            "the journal is damaged between acknowledged messages; the damaged ones are lost, their offsets are a gap"
        );
    } else if found.n_torn_bytes > 0 {
        tracing::warn!(journal = %path.display(), bytes = found.n_torn_bytes, "cut off the end of the journal: it was never acknowledged");
    } else if trust == Trust::Disk {
        return Ok(());
    }
    match &found.batches[..] {
        [] => write_in_place(path, &[]),
        [sound] if sound.start == 0 => write_in_place(path, &data[sound.clone()]),
        batches => write_anew(path, batches.iter().map(|batch| &data[batch.clone()])),
    }
}

/// Writes the sound beginning of a journal over itself and cuts the rest off. It takes no room, which a full disk does not have, and
/// a crash in the middle of it changes nothing: the bytes are the same.
fn write_in_place(path: &Path, sound: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(sound)?;
    file.set_len(sound.len() as u64)?;
    file.sync_all()
}

/// Writes what is left of a damaged journal to a new file, which takes its place when it is on disk.
fn write_anew<'a>(path: &Path, batches: impl Iterator<Item = &'a [u8]>) -> std::io::Result<()> {
    let new = with_suffix(path, "new");
    let mut file = File::create(&new)?;
    for batch in batches {
        file.write_all(batch)?;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// What is in a journal.
#[derive(Debug, PartialEq, Eq, Default)]
struct Scan {
    /// Byte ranges of whole batches; neighbours are merged.
    batches: Vec<std::ops::Range<usize>>,
    /// Bytes that are no batch, with whole batches behind them.
    n_damaged_bytes: usize,
    /// Bytes that are no batch, with nothing behind them.
    n_torn_bytes: usize,
}

fn scan(data: &[u8]) -> Scan {
    let data = without_zeros(data);
    let mut found = Scan::default();
    let mut at = 0;
    while at < data.len() {
        if let Some(end) = batch_end(data, at) {
            match found.batches.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => found.batches.push(at..end),
            }
            at = end;
            continue;
        }
        // whatever is here is no batch: the next one that is whole, if any, tells a damaged place from the end
        let next = (at + 1..data.len()).find(|next| batch_end(data, *next).is_some());
        match next {
            Some(next) => {
                found.n_damaged_bytes += next - at;
                at = next;
            }
            None => {
                found.n_torn_bytes = data.len() - at;
                break;
            }
        }
    }
    found
}

/// fjall makes a journal of 64 MiB at once: zeros at its end are neither batches nor torn bytes. No batch ends with one.
fn without_zeros(mut data: &[u8]) -> &[u8] {
    const STEP: [u8; 4096] = [0; 4096];
    while let Some(shorter) = data.strip_suffix(&STEP) {
        data = shorter; // a page at a time: byte by byte would take a second in a debug build
    }
    let len = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &data[..len]
}

/// Where the batch that begins at `at` ends, if it is whole and its checksum is right.
fn batch_end(data: &[u8], at: usize) -> Option<usize> {
    let start = data.get(at..at + START_LEN)?;
    if start[0] != TAG_START {
        return None;
    }
    let n_entries = u32::from_le_bytes(*start[1..].first_chunk()?);
    let first_entry = at + START_LEN;
    let mut entry = first_entry;
    for _ in 0..n_entries {
        entry = match *data.get(entry)? {
            TAG_ITEM => {
                let head = data.get(entry..entry + ITEM_HEAD_LEN)?;
                let key_len = u16::from_le_bytes(*head[11..].first_chunk()?) as usize;
                let stored_len = u32::from_le_bytes(*head[17..].first_chunk()?) as usize;
                entry + ITEM_HEAD_LEN + key_len + stored_len
            }
            TAG_CLEAR => entry + CLEAR_LEN,
            _ => return None,
        };
    }
    let end = data.get(entry..entry.checked_add(END_LEN)?)?;
    let checksum = u64::from_le_bytes(*end[1..].first_chunk()?);
    let is_whole =
        n_entries > 0 && end[0] == TAG_END && end[9..] == END_MAGIC && checksum == xxhash_rust::xxh3::xxh3_64(&data[first_entry..entry]);
    is_whole.then_some(entry + END_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch as fjall writes it.
    fn batch(values: &[&[u8]]) -> Vec<u8> {
        let mut entries = Vec::new();
        for value in values {
            entries.extend_from_slice(&[TAG_ITEM, 0, 0]);
            entries.extend_from_slice(&7_u64.to_le_bytes());
            entries.extend_from_slice(&3_u16.to_le_bytes());
            entries.extend_from_slice(&(value.len() as u32).to_le_bytes());
            entries.extend_from_slice(&(value.len() as u32).to_le_bytes());
            entries.extend_from_slice(b"key");
            entries.extend_from_slice(value);
        }
        let mut batch = vec![TAG_START];
        batch.extend_from_slice(&(values.len() as u32).to_le_bytes());
        batch.extend_from_slice(&1_u64.to_le_bytes());
        batch.extend_from_slice(&entries);
        batch.push(TAG_END);
        batch.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&entries).to_le_bytes());
        batch.extend_from_slice(&END_MAGIC);
        batch
    }

    fn journal() -> (Vec<u8>, usize, usize) {
        let (a, b, c) = (batch(&[b"first"]), batch(&[b"second", b""]), batch(&[b"third"]));
        ([&a[..], &b, &c].concat(), a.len(), a.len() + b.len())
    }

    fn check(data: &[u8], batches: &[(usize, usize)], n_damaged_bytes: usize, n_torn_bytes: usize) {
        let batches = batches.iter().map(|(start, end)| *start..*end).collect();
        assert_eq!(
            scan(data),
            Scan {
                batches,
                n_damaged_bytes,
                n_torn_bytes
            }
        );
    }

    #[test]
    fn a_whole_journal_is_sound_with_and_without_zeros_behind_it() {
        let (mut data, _, _) = journal();
        let len = data.len();
        check(&data, &[(0, len)], 0, 0);
        data.resize(len + 100, 0);
        check(&data, &[(0, len)], 0, 0);
        check(&[], &[], 0, 0);
        check(&[0; 64], &[], 0, 0);
    }

    #[test]
    fn every_cut_leaves_the_whole_batches_before_it() {
        let (data, b, c) = journal();
        for len in 0..data.len() {
            let sound = [0, b, c].into_iter().rfind(|end| *end <= len).unwrap();
            let batches: Vec<_> = (sound > 0).then_some((0, sound)).into_iter().collect();
            let torn = data[sound..len].iter().rposition(|x| *x != 0).map_or(0, |last| last + 1);
            check(&data[..len], &batches, 0, torn);
        }
    }

    #[test]
    fn every_flipped_byte_costs_its_batch_and_no_other() {
        let (data, b, c) = journal();
        // a batch's sequence number is not under its checksum: fjall does not check it either
        let is_seqno = |at: usize| [0, b, c].iter().any(|start| (start + 5..start + START_LEN).contains(&at));
        for at in (0..data.len()).filter(|at| !is_seqno(*at)) {
            let mut data = data.clone();
            data[at] ^= 0x41;
            match at {
                _ if at < b => check(&data, &[(b, data.len())], b, 0),
                _ if at < c => check(&data, &[(0, b), (c, data.len())], c - b, 0),
                _ => check(&data, &[(0, c)], 0, data.len() - c),
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_no_panic() {
        let (data, _, _) = journal();
        for at in 0..data.len() {
            let mut data = data.clone();
            let end = (at + 8).min(data.len());
            data[at..end].fill(0xff);
            scan(&data);
        }
    }
}
