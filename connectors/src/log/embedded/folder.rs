//! The folder of an embedded log: `lock`, `format`, and `store/` for fjall.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::log::LogError;

/// Version of the folder's layout and of the stored blocks.
const VERSION: u32 = 1;
const LOCK: &str = "lock";
const FORMAT: &str = "format";
const STORE: &str = "store";
/// fjall writes this file last when it makes a database.
const STORE_IS_WHOLE: &str = "version";

/// Where fjall lives.
pub(super) fn store_dir(dir: &Path) -> PathBuf {
    dir.join(STORE)
}

/// Locks the folder, checks that it holds a log of this version with `n_partitions`, or begins one. The lock holds as long as the file
/// is open.
pub(super) fn prepare(dir: &Path, n_partitions: u32) -> Result<File, LogError> {
    let failed = |action| {
        move |e: std::io::Error| LogError::Storage {
            action,
            dir: dir.to_owned(),
            reason: e.to_string().into(),
        }
    };
    fs::create_dir_all(dir).map_err(failed("making the folder"))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))
        .map_err(failed("opening the lock file"))?;
    lock.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => LogError::InUse { dir: dir.to_owned() },
        TryLockError::Error(e) => failed("locking the folder")(e),
    })?;
    match fs::read_to_string(dir.join(FORMAT)) {
        Ok(text) => check_format(dir, &text, n_partitions)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => begin(dir, n_partitions)?,
        Err(e) => return Err(failed("reading the format file")(e)),
    }
    let store = store_dir(dir);
    let is_whole = store.join(STORE_IS_WHOLE).try_exists().map_err(failed("looking for the store"))?;
    if !is_whole && store.try_exists().map_err(failed("looking for the store"))? {
        // we died while fjall was making its first files: nothing can have been acknowledged yet
        fs::remove_dir_all(&store).map_err(failed("removing a half-made store"))?;
    }
    Ok(lock)
}

fn check_format(dir: &Path, text: &str, n_partitions: u32) -> Result<(), LogError> {
    let format_error = |what: String| LogError::Format { dir: dir.to_owned(), what };
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        value
            .and_then(|v| v.trim().parse::<u32>().ok())
            .ok_or_else(|| format_error(format!("its file `{FORMAT}` has no number `{name}`")))
    };
    let version = field("version")?;
    if version != VERSION {
        return Err(format_error(format!("its version is {version}, this program knows {VERSION}")));
    }
    let found = field("partitions")?;
    if found != n_partitions {
        return Err(LogError::PartitionsChanged {
            log: dir.display().to_string(),
            found,
            configured: n_partitions,
        });
    }
    Ok(())
}

/// Writes the format file of a new log, whole or not at all.
fn begin(dir: &Path, n_partitions: u32) -> Result<(), LogError> {
    let failed = |e: std::io::Error| LogError::Storage {
        action: "beginning a log",
        dir: dir.to_owned(),
        reason: e.to_string().into(),
    };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != LOCK && name != "format.new" {
            let what = format!("there is no file `{FORMAT}`, but something called {name:?}");
            return Err(LogError::Format { dir: dir.to_owned(), what });
        }
    }
    let new = dir.join("format.new");
    let mut file = File::create(&new).map_err(failed)?;
    write!(
        file,
        "# inbound log of flexmeter; do not edit\nversion = {VERSION}\npartitions = {n_partitions}\n"
    )
    .map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, dir.join(FORMAT)).map_err(failed)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(failed)
}
