//! The local file system as an object store whose puts are on disk when they return.
//!
//! The log forgets records once the lake says that it holds them, so "committed" must mean "survives a power failure". The local store
//! that comes with `object_store` never syncs; a commit file could come back empty. Here every put writes a staging file, syncs it, gives
//! it its name in one step and syncs the folder.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

const STORE: &str = "durable local file system";

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct DurableStore {
    inner: LocalFileSystem,
    n_staged: AtomicU64,
}

impl DurableStore {
    /// The whole file system, as deltalake wants its root store.
    pub(super) fn new() -> Self {
        Self {
            inner: LocalFileSystem::new(),
            n_staged: AtomicU64::new(0),
        }
    }

    /// A name beside `path` that listings skip: `LocalFileSystem` ignores names that end in `#` and digits.
    fn staging_path(&self, path: &FsPath) -> PathBuf {
        let n = self.n_staged.fetch_add(1, Ordering::Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{}{n}", std::process::id()));
        PathBuf::from(name)
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

fn generic(path: &FsPath, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::AlreadyExists {
            path: path.display().to_string(),
            source: source.into(),
        },
        _ => Error::Generic {
            store: STORE,
            source: format!("{}: {source}", path.display()).into(),
        },
    }
}

fn sync_folder_of(path: &FsPath) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the folder, and makes every folder that was missing durable in its parent.
fn make_folder(folder: &FsPath) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent)?;
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder_of(folder),
    }
}

fn put(path: &FsPath, staging: &FsPath, payload: &PutPayload, create: bool) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let mut file = File::options().write(true).create_new(true).open(staging)?;
    payload.iter().try_for_each(|chunk| file.write_all(chunk))?;
    file.sync_all()?;
    if create {
        // a link, unlike a rename, fails when the name is taken: two writers cannot both commit one version
        std::fs::hard_link(staging, path)?;
        std::fs::remove_file(staging)?;
    } else {
        std::fs::rename(staging, path)?;
    }
    sync_folder_of(path)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(source) => Err(Error::JoinError { source }),
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "put in update mode".into(),
                    implementer: self.to_string(),
                });
            }
        };
        let path = self.inner.path_to_filesystem(location)?;
        let staging = self.staging_path(&path);
        blocking(move || {
            put(&path, &staging, &payload, create).map_err(|error| {
                // the staging file is of no use to anyone; that it may be left behind is harmless
                let _ = std::fs::remove_file(&staging);
                generic(&path, error)
            })
        })
        .await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { inner, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// An upload in parts (large checkpoints and compacted files). Nothing refers to the file before the upload is complete, so it is
/// enough to sync it then.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        blocking(move || {
            let sync = || File::open(&path)?.sync_all().and_then(|()| sync_folder_of(&path));
            sync().map_err(|error| generic(&path, error))
        })
        .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    fn create() -> PutOptions {
        PutMode::Create.into()
    }

    #[tokio::test]
    async fn a_name_can_be_taken_once_and_leaves_no_staging_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new();
        let path = Path::from_filesystem_path(folder.path()).unwrap().join("_delta_log").join("0.json");
        store.put_opts(&path, PutPayload::from("one"), create()).await.unwrap();
        let error = store.put_opts(&path, PutPayload::from("two"), create()).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&path, PutPayload::from("three")).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "three");
        let names: Vec<_> = std::fs::read_dir(folder.path().join("_delta_log"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["0.json"]);
        assert_eq!(
            store
                .list(None.or(Some(&path.prefix_of())))
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
                .len(),
            1
        );
    }

    trait PrefixOf {
        fn prefix_of(&self) -> Path;
    }

    impl PrefixOf for Path {
        fn prefix_of(&self) -> Path {
            let parts: Vec<_> = self.parts().collect();
            Path::from_iter(parts[..parts.len() - 1].iter().cloned())
        }
    }
}
