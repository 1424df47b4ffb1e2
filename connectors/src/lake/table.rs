//! One Delta table: opening, committing and what readers see of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use deltalake::datafusion::catalog::TableProvider;
use deltalake::datafusion::execution::SessionState;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, DataType, PrimitiveType, StructField, Transaction};
use deltalake::logstore::LogStoreRef;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, DeltaTableBuilder, Path, TableProperty};
use flexmeter_model::TenantId;
use flexmeter_tables::definition::DAY;
use flexmeter_tables::{ColumnDef, ColumnType, Day, TableDef};
use object_store::{ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use url::Url;

use super::data_file::DataFile;
use super::durable_store::DurableStore;
use super::error::is_conflict;
use super::tail::{OpenRows, TableView};
use super::{LakeConfig, LakeError};

/// How long the log of a table is kept, in Delta's words. Readers need only the newest checkpoint and what follows; a short log keeps
/// commits fast, because each lists the log's folder.
const LOG_RETENTION: &str = "interval 1 days";

/// A table of the lake with its tail.
#[derive(Debug)]
pub(super) struct LakeTable {
    pub(super) def: &'static TableDef,
    tenant: TenantId,
    /// `<tenant>/<table>`, for messages and metrics.
    pub(super) name: String,
    pub(super) log_store: LogStoreRef,
    session: Arc<SessionState>,
    state: ArcSwap<DeltaTableState>,
    /// For each log partition looked at so far: the offset up to which `state` holds it.
    offsets: Mutex<HashMap<u32, u64>>,
    tail: Mutex<Tail>,
    view: ArcSwap<TableView>,
    file_names: Arc<FileNames>,
}

#[derive(Debug, Default)]
struct Tail {
    sealed: Option<Arc<OpenRows>>,
    open: OpenRows,
}

/// Names of data files: unique across restarts, so that a file left behind by a crash is never written again.
#[derive(Debug)]
pub(super) struct FileNames {
    run: u64,
    n: std::sync::atomic::AtomicU64,
}

impl FileNames {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let run = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self {
            run,
            n: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn next(&self) -> String {
        let n = self.n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("part-{:016x}-{n:08}.zstd.parquet", self.run)
    }
}

impl LakeTable {
    /// Opens the table, or creates it.
    pub(super) async fn open(
        config: &LakeConfig,
        tenant: &TenantId,
        def: &'static TableDef,
        session: Arc<SessionState>,
        file_names: Arc<FileNames>,
    ) -> Result<Self, LakeError> {
        let name = format!("{tenant}/{}", def.name);
        let folder = config.path.join(tenant.as_str()).join(def.name);
        let url = folder_url(&folder)?;
        let failed = |doing| move |source| LakeError::delta(&format!("{tenant}/{}", def.name), doing, source);
        let mut table = DeltaTableBuilder::from_url(url.clone())
            .and_then(|builder| builder.with_storage_backend(Arc::new(DurableStore::new()), url).build())
            .map_err(failed("opening"))?;
        if table.verify_deltatable_existence().await.map_err(failed("opening"))? {
            table.load().await.map_err(failed("opening"))?;
        } else {
            table = create(&table, def).await.map_err(failed("creating"))?;
        }
        let log_store = table.log_store();
        let state = table
            .state
            .take()
            .ok_or_else(|| failed("opening")(deltalake::DeltaTableError::NotInitialized))?;
        check_columns(&name, &state, def)?;
        let view = TableView {
            version: state.version(),
            committed: provider(&name, &state, &log_store, &session).await?,
            tail: Vec::new(),
            tail_schema: None,
        };
        Ok(Self {
            def,
            tenant: tenant.clone(),
            name,
            log_store,
            session,
            state: ArcSwap::from_pointee(state),
            offsets: Mutex::default(),
            tail: Mutex::default(),
            view: ArcSwap::from_pointee(view),
            file_names,
        })
    }

    /// What readers see now.
    pub(super) fn view(&self) -> Arc<TableView> {
        self.view.load_full()
    }

    /// The settings that the table is read with.
    pub(super) fn session(&self) -> SessionState {
        self.session.as_ref().clone()
    }

    /// The committed state.
    pub(super) fn state(&self) -> Arc<DeltaTableState> {
        self.state.load_full()
    }

    /// Name under which the table remembers a log partition's position.
    fn app_id(&self, partition: u32) -> String {
        format!("flexmeter/{}/{}/{partition}", self.tenant, self.def.name)
    }

    /// The offset up to which the table holds this log partition; 0 when it holds nothing of it.
    pub(super) async fn committed_offset(&self, partition: u32) -> Result<u64, LakeError> {
        if let Some(&offset) = self.offsets.lock().get(&partition) {
            return Ok(offset);
        }
        let offset = self.offset_in(&self.state(), partition).await?;
        // a commit may have been faster and knows better
        Ok(*self.offsets.lock().entry(partition).or_insert(offset))
    }

    async fn offset_in(&self, state: &DeltaTableState, partition: u32) -> Result<u64, LakeError> {
        if state.version() == 0 {
            return Ok(0); // just created; saves a look into the log for each partition
        }
        let version = state
            .transaction_version(self.log_store.as_ref(), self.app_id(partition))
            .await
            .map_err(|source| LakeError::delta(&self.name, "reading a log partition's position", source))?;
        Ok(version.map_or(0, |version| u64::try_from(version).unwrap_or(0)))
    }

    /// Adds rows to the tail; readers see them at once.
    pub(super) fn add(&self, rows: NewRows) -> Result<(), LakeError> {
        let mut tail = self.tail.lock();
        for (day, batch) in rows.days {
            tail.open.add(day, batch).map_err(|source| LakeError::columns(&self.name, source))?;
        }
        tail.open.offsets.extend(rows.offsets);
        tail.open.hold(rows.permit);
        let n_rows = tail.open.n_rows + tail.sealed.as_ref().map_or(0, |sealed| sealed.n_rows);
        metrics::gauge!("flexmeter_lake_tail_rows", "table" => self.name.clone()).set(n_rows as f64);
        self.publish(&tail, None);
        Ok(())
    }

    /// Days with rows that wait for a commit.
    pub(super) fn n_open_days(&self) -> usize {
        self.tail.lock().open.n_days()
    }

    /// Takes the open rows for a commit, or those of an earlier commit that failed. `None` when there is nothing to do.
    pub(super) fn seal(&self) -> Option<Arc<OpenRows>> {
        let mut tail = self.tail.lock();
        if tail.sealed.is_none() && !tail.open.is_empty() {
            tail.sealed = Some(Arc::new(std::mem::take(&mut tail.open)));
        }
        tail.sealed.clone()
    }

    /// Publishes a new committed state; with `sealed_is_in` the sealed rows leave the tail in the same instant.
    pub(super) async fn advance(&self, state: DeltaTableState, sealed_is_in: bool) -> Result<(), LakeError> {
        // the provider first: it can fail, and readers must not see a state without it
        let committed = provider(&self.name, &state, &self.log_store, &self.session).await?;
        let version = state.version();
        self.state.store(Arc::new(state));
        let mut tail = self.tail.lock();
        if sealed_is_in && let Some(sealed) = tail.sealed.take() {
            self.offsets.lock().extend(&sealed.offsets);
        }
        metrics::gauge!("flexmeter_lake_version", "table" => self.name.clone()).set(version as f64);
        metrics::gauge!("flexmeter_lake_tail_rows", "table" => self.name.clone()).set(tail.open.n_rows as f64);
        self.publish(&tail, Some((version, committed)));
        Ok(())
    }

    /// Swaps the view. The caller holds the tail's lock, so views follow each other in the order of the changes.
    fn publish(&self, tail: &Tail, committed: Option<(u64, Arc<dyn TableProvider>)>) {
        let old = self.view.load();
        let (version, committed) = committed.unwrap_or_else(|| (old.version, Arc::clone(&old.committed)));
        let batches: Vec<_> = tail
            .sealed
            .iter()
            .flat_map(|sealed| sealed.batches())
            .chain(tail.open.batches())
            .cloned()
            .collect();
        let tail_schema = batches.first().map(|batch| batch.schema()).or_else(|| old.tail_schema.clone());
        self.view.store(Arc::new(TableView {
            version,
            committed,
            tail: batches,
            tail_schema,
        }));
    }

    /// Stores data files, in order. They belong to the table only once [`LakeTable::commit`] has named them.
    pub(super) async fn store(&self, files: Vec<(Day, DataFile)>) -> Result<Vec<Add>, LakeError> {
        let mut adds = Vec::with_capacity(files.len());
        for (day, file) in files {
            let day = date(day);
            let path = format!("{}={day}/{}", DAY.name, self.file_names.next());
            let size = file.bytes.len() as i64;
            self.log_store
                .object_store(None)
                .put(&Path::from(path.as_str()), PutPayload::from(file.bytes))
                .await
                .map_err(|error| LakeError::DataFile {
                    table: self.name.clone(),
                    file: path.clone(),
                    reason: error.to_string(),
                })?;
            adds.push(Add {
                path,
                partition_values: [(DAY.name.to_owned(), Some(day))].into(),
                size,
                modification_time: now_ms(),
                data_change: true,
                stats: Some(file.stats),
                ..Add::default()
            });
        }
        Ok(adds)
    }

    /// Commits files and log positions in one transaction on the state we hold, and gives the new state.
    ///
    /// There is no second attempt: a table that is not at the version we hold has another writer.
    pub(super) async fn commit(&self, adds: Vec<Add>, offsets: &BTreeMap<u32, u64>) -> Result<DeltaTableState, LakeError> {
        let state = self.state();
        for (&partition, &offset) in offsets {
            let committed = self.committed_offset(partition).await?;
            if offset <= committed {
                return Err(LakeError::GoesBack {
                    table: self.name.clone(),
                    partition,
                    committed,
                    offset,
                });
            }
        }
        let transactions = offsets
            .iter()
            .map(|(&partition, &offset)| Transaction::new(self.app_id(partition), i64::try_from(offset).unwrap_or(i64::MAX)));
        let properties = single_writer().with_application_transactions(transactions.collect());
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![DAY.name.to_owned()]),
            predicate: None,
        };
        let commit = CommitBuilder::from(properties)
            .with_actions(adds.into_iter().map(Action::Add).collect())
            .build(Some(state.as_ref()), Arc::clone(&self.log_store), operation);
        let failed = |source| self.commit_error(state.version(), "committing", source);
        let landed = commit.into_prepared_commit_future().await.map_err(failed)?.await.map_err(failed)?;
        let version = landed.version;
        match landed.await {
            Ok(finished) => Ok(finished.snapshot),
            // the commit is in the log; only reading it back failed
            Err(_) => self.load(Some(version)).await,
        }
    }

    /// Reads the table's state anew.
    pub(super) async fn load(&self, version: Option<u64>) -> Result<DeltaTableState, LakeError> {
        DeltaTableState::try_new(self.log_store.as_ref(), version)
            .await
            .map_err(|source| LakeError::delta(&self.name, "reading the table back", source))
    }

    /// Whether `state` holds these log positions.
    pub(super) async fn holds(&self, state: &DeltaTableState, offsets: &BTreeMap<u32, u64>) -> Result<bool, LakeError> {
        for (&partition, &offset) in offsets {
            if self.offset_in(state, partition).await? < offset {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn commit_error(&self, version: u64, doing: &'static str, source: deltalake::DeltaTableError) -> LakeError {
        if is_conflict(&source) {
            return LakeError::AnotherWriter {
                table: self.name.clone(),
                version,
            };
        }
        LakeError::delta(&self.name, doing, source)
    }

    /// The table as deltalake's operations want it.
    pub(super) fn delta_table(&self) -> DeltaTable {
        let mut table = DeltaTable::new(Arc::clone(&self.log_store));
        table.state = Some(self.state().as_ref().clone());
        table
    }
}

/// Encoded rows of one epoch for one table.
#[derive(Debug)]
pub(super) struct NewRows {
    pub(super) days: Vec<(Day, arrow::array::RecordBatch)>,
    /// For each log partition with rows here: the epoch's end offset.
    pub(super) offsets: BTreeMap<u32, u64>,
    pub(super) permit: tokio::sync::OwnedSemaphorePermit,
}

/// Commits never try again, and leave checkpoints and log cleanup to the maintenance.
pub(super) fn single_writer() -> CommitProperties {
    CommitProperties::default()
        .with_max_retries(0)
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false))
}

/// The day as `2016-02-10`.
fn date(day: Day) -> String {
    let text = day.start().to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

fn folder_url(folder: &FsPath) -> Result<Url, LakeError> {
    let unusable = |source| LakeError::Folder {
        path: folder.display().to_string(),
        source: Arc::new(source),
    };
    std::fs::create_dir_all(folder).map_err(unusable)?;
    let absolute = std::fs::canonicalize(folder).map_err(unusable)?;
    Url::from_directory_path(&absolute).map_err(|()| unusable(std::io::ErrorKind::InvalidFilename.into()))
}

fn delta_type(column_type: ColumnType) -> DataType {
    DataType::Primitive(match column_type {
        ColumnType::Text => PrimitiveType::String,
        ColumnType::Time => PrimitiveType::Timestamp,
        ColumnType::Date => PrimitiveType::Date,
        ColumnType::Float => PrimitiveType::Double,
        ColumnType::Int => PrimitiveType::Integer,
        ColumnType::Long => PrimitiveType::Long,
        ColumnType::Bool => PrimitiveType::Boolean,
    })
}

fn delta_column(column: &ColumnDef) -> StructField {
    StructField::new(column.name, delta_type(column.column_type), column.nullable)
        .with_metadata([(flexmeter_tables::definition::COMMENT_KEY, column.comment)])
}

async fn create(table: &DeltaTable, def: &'static TableDef) -> Result<DeltaTable, deltalake::DeltaTableError> {
    table
        .create()
        .with_table_name(def.name)
        .with_comment(def.comment)
        .with_columns(def.file_columns().chain([&DAY]).map(delta_column))
        .with_partition_columns([DAY.name])
        // rows are only ever added, so deletion vectors, whose compaction has had bugs, must stay off
        .with_configuration_property(TableProperty::EnableDeletionVectors, Some("false"))
        .with_configuration_property(TableProperty::LogRetentionDuration, Some(LOG_RETENTION))
        .await
}

fn check_columns(name: &str, state: &DeltaTableState, def: &TableDef) -> Result<(), LakeError> {
    let list = |fields: &mut dyn Iterator<Item = (String, String)>| -> String {
        fields
            .map(|(name, column_type)| format!("{name} {column_type}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let schema = state.schema();
    let found = list(&mut schema.fields().map(|field| (field.name().clone(), field.data_type().to_string())));
    let expected = list(
        &mut def
            .file_columns()
            .chain([&DAY])
            .map(|column| (column.name.to_owned(), delta_type(column.column_type).to_string())),
    );
    if found == expected {
        Ok(())
    } else {
        Err(LakeError::OtherColumns {
            table: name.to_owned(),
            found,
            expected,
        })
    }
}

/// The state as a table DataFusion can scan; made once a commit, not once a query.
async fn provider(
    name: &str,
    state: &DeltaTableState,
    log_store: &LogStoreRef,
    session: &Arc<SessionState>,
) -> Result<Arc<dyn TableProvider>, LakeError> {
    let mut table = DeltaTable::new(Arc::clone(log_store));
    table.state = Some(state.clone());
    table
        .table_provider()
        .with_session(Arc::clone(session))
        .await
        .map_err(|source| LakeError::delta(name, "preparing the table for reading", source.into()))
}
