//! Checkpoints on disk: one file holding the snapshots of all partitions, replaced atomically, checked on reading.
//!
//! A checkpoint is published only after the lake holds everything up to its offsets, so a replay from it never starts after what the
//! lake has. See docs/adr/0007-delta-exactly-once.md.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use flexmeter_dataflows::PartitionSnapshot;

const MAGIC: &[u8; 8] = b"FLXCKPT1";
/// More partitions than any log may have: a larger count means a damaged file.
const PARTITIONS_MAX: u32 = 65_536;

/// The folder that holds the newest checkpoint and, while it is written, the next one.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointStore {
    dir: PathBuf,
}

impl CheckpointStore {
    /// Opens (and creates) the folder.
    pub(crate) fn open(dir: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir })
    }

    fn newest(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    /// Where [`crate::retention`] keeps its positions.
    pub(crate) fn retention_file(&self) -> PathBuf {
        self.dir.join("log-positions.json")
    }

    /// The newest checkpoint; empty when there is none yet.
    pub(crate) fn load(&self) -> anyhow::Result<Vec<PartitionSnapshot>> {
        let path = self.newest();
        if !path.exists() {
            return Ok(Vec::new());
        }
        read(&path).with_context(|| {
            format!(
                "checkpoint {} cannot be read; move it away to rebuild all state from the start of the log, if the log still has it",
                path.display()
            )
        })
    }

    /// Writes a checkpoint and makes it the newest one, atomically and durably.
    pub(crate) fn publish(&self, snapshots: &[PartitionSnapshot]) -> anyhow::Result<()> {
        let next = self.dir.join("checkpoint.next");
        let mut out = HashingWriter {
            inner: File::create(&next)?,
            hasher: crc32fast::Hasher::new(),
        };
        out.write_all(MAGIC)?;
        out.write_all(&u32::try_from(snapshots.len())?.to_le_bytes())?;
        for snapshot in snapshots {
            out.write_all(&snapshot.partition.to_le_bytes())?;
            out.write_all(&snapshot.offset.to_le_bytes())?;
            out.write_all(&(snapshot.bytes.len() as u64).to_le_bytes())?;
            out.write_all(&snapshot.bytes)?;
        }
        let HashingWriter { mut inner, hasher } = out;
        inner.write_all(&hasher.finalize().to_le_bytes())?;
        inner.sync_all()?;
        std::fs::rename(&next, self.newest())?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }
}

struct HashingWriter {
    inner: File,
    hasher: crc32fast::Hasher,
}

impl HashingWriter {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<PartitionSnapshot>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (body, checksum) = bytes.split_last_chunk::<4>().context("the file is cut off")?;
    ensure!(
        crc32fast::hash(body) == u32::from_le_bytes(*checksum),
        "the checksum does not match"
    );
    let mut rest = body
        .strip_prefix(MAGIC.as_slice())
        .context("this is no checkpoint of this version")?;
    let n = u32::from_le_bytes(take(&mut rest)?);
    ensure!(n <= PARTITIONS_MAX, "{n} partitions cannot be right");
    let mut snapshots = Vec::new();
    for _ in 0..n {
        let partition = u32::from_le_bytes(take(&mut rest)?);
        let offset = u64::from_le_bytes(take(&mut rest)?);
        let len = usize::try_from(u64::from_le_bytes(take(&mut rest)?))?;
        if len > rest.len() {
            bail!("partition {partition} is cut off");
        }
        let (bytes, tail) = rest.split_at(len);
        snapshots.push(PartitionSnapshot {
            partition,
            offset,
            bytes: bytes.to_vec(),
        });
        rest = tail;
    }
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    Ok(snapshots)
}

fn take<const N: usize>(rest: &mut &[u8]) -> anyhow::Result<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>().context("the file is cut off")?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn snapshots() -> Vec<PartitionSnapshot> {
        (0..3)
            .map(|p| PartitionSnapshot {
                partition: p,
                offset: 10 + u64::from(p),
                bytes: vec![p as u8; 100],
            })
            .collect()
    }

    #[test]
    fn what_was_published_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(dir.path().to_owned()).unwrap();
        assert!(store.load().unwrap().is_empty());
        store.publish(&snapshots()).unwrap();
        let back = store.load().unwrap();
        assert_eq!(back.len(), 3);
        assert_eq!((back[2].partition, back[2].offset, back[2].bytes.len()), (2, 12, 100));
    }

    #[test]
    fn any_flipped_bit_and_any_truncation_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(dir.path().to_owned()).unwrap();
        store.publish(&snapshots()).unwrap();
        let good = std::fs::read(store.newest()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(store.newest(), &bad).unwrap();
            assert!(store.load().is_err(), "flip at {at}");
            std::fs::write(store.newest(), &good[..at]).unwrap();
            assert!(store.load().is_err(), "cut at {at}");
        }
    }
}
