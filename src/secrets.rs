//! The secrets of an installation: the admin's password and the platform key that device passwords are derived from.
//!
//! The admin's secret is printed once; only a salted hash stays. It has 128 random bits (or is the operator's own, from a file), so a
//! fast hash is enough: there is nothing to guess.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The name of the one built-in user.
pub(crate) const ADMIN: &str = "admin";

const SALT_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// Checks user and password.
pub(crate) type Check = Arc<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

/// The secrets, opened.
pub(crate) struct Secrets {
    /// True for user `admin` with the right password.
    pub(crate) check: Check,
    /// Key of device passwords and bearer tokens.
    pub(crate) platform_key: [u8; KEY_LEN],
    /// The admin's password, if it was made just now: to be printed once.
    pub(crate) fresh_admin_password: Option<String>,
}

impl Secrets {
    /// Opens the secrets below `data_dir`, making what is missing.
    pub(crate) fn open(data_dir: &Path, admin_password_file: Option<&Path>) -> anyhow::Result<Self> {
        let dir = data_dir.join("auth");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let platform_key = read_or_make(&dir.join("platform.key"), KEY_LEN)?
            .try_into()
            .map_err(|bytes: Vec<u8>| {
                anyhow::anyhow!(
                    "{} has {} bytes instead of {KEY_LEN}",
                    dir.join("platform.key").display(),
                    bytes.len()
                )
            })?;
        let (hash, fresh_admin_password) = match admin_password_file {
            Some(file) => (salted_hash(&random(SALT_LEN)?, &password_of(file)?), None),
            None => stored_hash(&dir.join("admin.sha256"))?,
        };
        let check: Check = Arc::new(move |user, password| {
            let (salt, expected) = hash.split_at(SALT_LEN);
            let given = salted_hash(salt, password);
            user == ADMIN && bool::from(given[SALT_LEN..].ct_eq(expected))
        });
        Ok(Self {
            check,
            platform_key,
            fresh_admin_password,
        })
    }

    /// The secrets of insecure mode: `admin` with any password.
    pub(crate) fn insecure() -> anyhow::Result<Self> {
        let platform_key = random(KEY_LEN)?.try_into().map_err(|_| anyhow::anyhow!("no key"))?;
        Ok(Self {
            check: Arc::new(|user, _| user == ADMIN),
            platform_key,
            fresh_admin_password: None,
        })
    }
}

fn password_of(file: &Path) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read(file).with_context(|| format!("cannot read auth.admin_password_file {}", file.display()))?;
    let end = text.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
    ensure!(end > 0, "auth.admin_password_file {} is empty", file.display());
    Ok(text[..end].to_vec())
}

fn stored_hash(file: &Path) -> anyhow::Result<(Vec<u8>, Option<String>)> {
    if file.exists() {
        let hash = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(
            hash.len() == SALT_LEN + KEY_LEN,
            "{} is damaged; remove it to have a new admin password made",
            file.display()
        );
        return Ok((hash, None));
    }
    let password: String = random(16)?.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = salted_hash(&random(SALT_LEN)?, password.as_bytes());
    write_private(file, &hash)?;
    Ok((hash, Some(password)))
}

fn salted_hash(salt: &[u8], password: &[u8]) -> Vec<u8> {
    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    [salt, digest.as_slice()].concat()
}

fn read_or_make(file: &Path, len: usize) -> anyhow::Result<Vec<u8>> {
    if file.exists() {
        return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let bytes = random(len)?;
    write_private(file, &bytes)?;
    Ok(bytes)
}

fn write_private(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot create {}", file.display()))?;
    out.write_all(bytes)?;
    out.sync_all()?;
    Ok(())
}

fn random(len: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_start_makes_a_password_that_later_starts_still_take() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::open(dir.path(), None).unwrap();
        let password = first.fresh_admin_password.unwrap();
        let second = Secrets::open(dir.path(), None).unwrap();
        assert!(second.fresh_admin_password.is_none());
        assert!((second.check)(ADMIN, password.as_bytes()));
        assert!(!(second.check)(ADMIN, b"wrong"));
        assert!(!(second.check)("root", password.as_bytes()));
        assert_eq!(first.platform_key, second.platform_key);
    }

    #[test]
    fn an_operators_own_password_comes_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pw");
        std::fs::write(&file, "correct horse\n").unwrap();
        let secrets = Secrets::open(dir.path(), Some(&file)).unwrap();
        assert!((secrets.check)(ADMIN, b"correct horse"));
        std::fs::write(&file, "\n").unwrap();
        assert!(Secrets::open(dir.path(), Some(&file)).is_err());
    }
}
