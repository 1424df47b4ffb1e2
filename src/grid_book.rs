//! The grids in use: those the configuration names and those somebody has put over REST, which stand below `data_dir/grids` and win.
//!
//! ```text
//! data_dir/grids/<tenant>/current      name of the folder in use; replaced in one step
//! data_dir/grids/<tenant>/bundle-<n>/  network.json, areas.csv, …
//! ```
//! A bundle is checked before it is stored and stored before it is used. The street then begins again from a checkpoint of this moment with
//! the new grids: every part of it meets them as it does at a start.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use flexmeter_model::TenantId;
use flexmeter_queries::rest::grid::{BundleDoor, BundleFiles, BundleRefusal, Stored};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::bundles::{Grids, TenantGrid, read};
use crate::config::Config;

/// Files a bundle may have.
const FILES: [&str; 6] = ["network.json", "areas.csv", "meters.csv", "switches.csv", "names.csv", "lines.csv"];
const CURRENT: &str = "current";

/// The grids in use, and the way to others.
#[derive(Debug)]
pub(crate) struct GridBook {
    folder: PathBuf,
    grids: ArcSwap<Grids>,
    renewed: watch::Sender<u64>,
    /// One bundle is stored at a time.
    storing: Mutex<()>,
}

impl GridBook {
    /// Reads the bundles that the configuration names, and those that were put over REST.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Arc<Self>> {
        let mut grids = Grids::read(config)?;
        let folder = config.data_dir.join("grids");
        for tenant in entries(&folder)? {
            let of_tenant = folder.join(&tenant);
            let Some(bundle) = current(&of_tenant)? else { continue };
            let tenant = TenantId::new(&tenant).with_context(|| of_tenant.display().to_string())?;
            let grid = read(&bundle).map_err(|reason| anyhow::anyhow!("{}: {reason}", bundle.display()))?;
            if grids.engine.contains_key(&tenant) {
                tracing::warn!(%tenant, bundle = %bundle.display(), "the grid that was put over REST stands in place of the configured one");
            }
            grids.insert(tenant, grid);
        }
        Ok(Arc::new(Self {
            folder,
            grids: ArcSwap::from_pointee(grids),
            renewed: watch::Sender::new(0),
            storing: Mutex::new(()),
        }))
    }

    /// None at all, for a process without engine.
    pub(crate) fn empty(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            folder: config.data_dir.join("grids"),
            grids: ArcSwap::default(),
            renewed: watch::Sender::new(0),
            storing: Mutex::new(()),
        })
    }

    /// The grids now.
    pub(crate) fn grids(&self) -> Arc<Grids> {
        self.grids.load_full()
    }

    /// Changes when the grids do.
    pub(crate) fn renewed(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// The way in for REST.
    pub(crate) fn door(self: &Arc<Self>) -> BundleDoor {
        let this = Arc::clone(self);
        Arc::new(move |tenant: TenantId, files: BundleFiles| {
            let this = Arc::clone(&this);
            Box::pin(async move {
                let work = move || this.put(&tenant, &files);
                let panicked = |error| BundleRefusal::NotStored(format!("reading the bundle failed: {error}"));
                tokio::task::spawn_blocking(work).await.map_err(panicked)?
            })
        })
    }

    fn put(&self, tenant: &TenantId, files: &BundleFiles) -> Result<Stored, BundleRefusal> {
        let Some(_storing) = self.storing.try_lock() else {
            return Err(BundleRefusal::NotStored("another bundle is being stored; try again".to_owned()));
        };
        if let Some(other) = files.keys().find(|file| !FILES.contains(&file.as_str())) {
            return Err(BundleRefusal::Bundle(format!(
                "{other:?} is no file of a bundle; its files: {}",
                FILES.join(", ")
            )));
        }
        let of_tenant = self.folder.join(tenant.as_str());
        let not_stored = |error: anyhow::Error| BundleRefusal::NotStored(format!("{error:#}"));
        let bundle = write(&of_tenant, files).map_err(not_stored)?;
        let grid = read(&bundle).map_err(|reason| {
            // what is left of it is in nobody's way
            let _ = std::fs::remove_dir_all(&bundle);
            BundleRefusal::Bundle(reason)
        })?;
        let stored = stored(&grid, fingerprint(files));
        make_current(&of_tenant, &bundle).map_err(not_stored)?;
        let mut grids = Grids::clone(&self.grids.load());
        grids.insert(tenant.clone(), grid);
        self.grids.store(Arc::new(grids));
        self.renewed.send_modify(|n| *n += 1);
        Ok(stored)
    }
}

/// Lengths are part of it, so that no text can pass for the end of one file and the beginning of another.
fn fingerprint(files: &BundleFiles) -> String {
    let mut hash = Sha256::new();
    for text in files.iter().flat_map(|(name, text)| [name, text]) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stored(grid: &TenantGrid, fingerprint: String) -> Stored {
    Stored {
        fingerprint,
        n_nodes: grid.shown.nodes.len(),
        n_branches: grid.shown.branches.len(),
        n_meters: grid.shown.meters.len(),
        areas: grid.shown.areas.iter().map(|area| area.path.to_string()).collect(),
    }
}

/// Names of what is in a folder; none if there is no folder.
fn entries(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let read = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in read {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// The folder in use; `None` before the first.
fn current(of_tenant: &Path) -> anyhow::Result<Option<PathBuf>> {
    let file = of_tenant.join(CURRENT);
    if !file.exists() {
        return Ok(None);
    }
    let name = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(Some(of_tenant.join(name.trim())))
}

/// Writes the files to a folder of their own.
fn write(of_tenant: &Path, files: &BTreeMap<String, String>) -> anyhow::Result<PathBuf> {
    let numbers = entries(of_tenant)?
        .into_iter()
        .filter_map(|name| name.strip_prefix("bundle-")?.parse::<u64>().ok());
    let number = numbers.max().map_or(1, |number| number + 1);
    let bundle = of_tenant.join(format!("bundle-{number}"));
    std::fs::create_dir_all(&bundle).with_context(|| bundle.display().to_string())?;
    for (name, text) in files {
        durably(&bundle.join(name), text)?;
    }
    std::fs::File::open(&bundle)?.sync_all()?;
    Ok(bundle)
}

/// From here on it is this one; the others go.
fn make_current(of_tenant: &Path, bundle: &Path) -> anyhow::Result<()> {
    let name = bundle.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let next = of_tenant.join("current.next");
    durably(&next, &name)?;
    std::fs::rename(&next, of_tenant.join(CURRENT)).with_context(|| of_tenant.display().to_string())?;
    std::fs::File::open(of_tenant)?.sync_all()?;
    for other in entries(of_tenant)?
        .iter()
        .filter(|other| other.starts_with("bundle-") && **other != name)
    {
        if let Err(error) = std::fs::remove_dir_all(of_tenant.join(other)) {
            tracing::warn!("an old grid bundle stays: {error}");
        }
    }
    Ok(())
}

fn durably(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn example() -> BundleFiles {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grid");
        let text = |file: &str| (file.to_owned(), std::fs::read_to_string(folder.join(file)).unwrap());
        ["network.json", "areas.csv", "meters.csv", "switches.csv"].map(text).into()
    }

    fn open(data_dir: &Path) -> Arc<GridBook> {
        let overrides = crate::config::Overrides {
            data_dir: Some(data_dir.to_owned()),
            ..Default::default()
        };
        GridBook::open(&Config::load(None, &overrides).unwrap()).unwrap()
    }

    #[test]
    fn a_bundle_is_there_at_the_next_start_and_the_one_before_it_is_gone() {
        let scratch = tempfile::tempdir().unwrap();
        let tenant = TenantId::new("default").unwrap();
        let book = open(scratch.path());
        let renewed = book.renewed();
        for n_puts in 1..=2 {
            let stored = book.put(&tenant, &example()).unwrap();
            assert_eq!((stored.n_nodes, *renewed.borrow()), (4, n_puts));
            assert_eq!((stored.fingerprint.len(), &stored.fingerprint), (64, &fingerprint(&example())));
        }
        assert_eq!(entries(&scratch.path().join("grids/default")).unwrap(), ["bundle-2", "current"]);
        assert!(open(scratch.path()).grids().engine.contains_key(&tenant));
    }

    #[test]
    fn what_is_no_bundle_changes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let tenant = TenantId::new("default").unwrap();
        let book = open(scratch.path());
        let refused = |files: &BundleFiles| match book.put(&tenant, files) {
            Err(BundleRefusal::Bundle(why)) => why,
            other => panic!("{other:?}"),
        };
        let mut files = example();
        files.insert("../evil".to_owned(), String::new());
        assert!(refused(&files).contains("is no file of a bundle"));
        let mut files = example();
        files.insert("areas.csv".to_owned(), "node_id,area\n99,mv1\n".to_owned());
        assert!(refused(&files).contains("areas.csv"));
        files.remove("areas.csv");
        assert!(refused(&files).contains("areas.csv"));
        assert!(book.grids().engine.is_empty() && *book.renewed().borrow() == 0);
        assert!(entries(&scratch.path().join("grids/default")).unwrap().is_empty());
    }
}
