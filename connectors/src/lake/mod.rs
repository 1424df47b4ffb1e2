//! The lake: Delta tables that hold the history, each accepted row exactly once.
//!
//! ```text
//! push(epoch) ──► batches ──► tail (readers see it) ──► writer task: Parquet files ──► one Delta commit = files + log positions
//! ```
//!
//! Below `<path>/<tenant>/` lies one Delta table for each table of [`flexmeter_tables`] that the lake keeps, partitioned by `day`. A
//! commit carries rows together with one `txn` action for each log partition among them (`flexmeter/<tenant>/<table>/<partition>`, version
//! = end offset), so after a crash the table itself says where to go on. Delta records those positions but enforces nothing: [`rows`]
//! drops what a table already holds, [`table`] refuses to go back, and a commit that finds a version it does not know stops the lake,
//! because then the table has two writers.
//!
//! Start reading at [`Lake`], then `writer` (the only task that changes tables) and `tail` (why a reader sees each row once).

mod config;
mod data_file;
mod durable_store;
mod error;
mod maintenance;
mod operations;
mod rows;
mod table;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use deltalake::datafusion::execution::SessionState;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use flexmeter_model::outcome::ClosedEpoch;
use flexmeter_model::{EventTime, TenantId};
use flexmeter_tables::dictionary::Vocabulary;
use flexmeter_tables::{acknowledgements, alerts, grid, load_profile, measurements, operations as operation_tables, rejections};
use tokio::sync::{Mutex, mpsc, oneshot};

pub use config::{LakeConfig, VACUUM_RETENTION_HOURS_MIN};
pub use data_file::{FloatShape, writer_properties};
pub use error::{LakeError, Retry};
pub use tail::{TAIL_BATCH_ROWS_MAX, TableView};

use rows::{EncodedRows, TenantRows, TenantTables};
use table::{FileNames, LakeTable, NewRows};
use writer::{Command, Shared};

/// Tenants one lake serves.
pub const TENANTS_MAX: usize = 1024;

/// Days with open rows that make a commit happen at once: each is a file of its own.
pub const OPEN_DAYS_MAX: usize = 64;

/// Commands that may wait for the writer task.
const COMMANDS_MAX: usize = 64;

/// A handle on the lake. Dropping it ends the writer task; rows not flushed by then come again from the log.
#[derive(Debug)]
pub struct Lake {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    filling: Mutex<Filling>,
}

/// What `push` needs, one call at a time.
#[derive(Debug)]
struct Filling {
    /// Encoded rows on their way into the tail. They wait here and not in the future of `push`: a caller that gives up waiting must not
    /// take rows with it, because the rows after them would still be committed.
    waiting: VecDeque<EncodedRows>,
    /// Log time of the newest record of any partition.
    log_time: EventTime,
    /// Position of the grid's rows of the last epoch.
    grid_position: u64,
    vocabulary: Vocabulary,
    tenants: HashMap<TenantId, TenantRows>,
    session: Arc<SessionState>,
    file_names: Arc<FileNames>,
}

impl Lake {
    /// Opens the lake, creates the missing tables of these tenants and starts the writer task. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LakeError`] when the configuration is out of range, the folder cannot be used or a table in it has other columns.
    pub async fn open(config: LakeConfig, tenants: &[TenantId]) -> Result<Self, LakeError> {
        config.validate()?;
        let shared = Arc::new(Shared::new(config));
        let mut filling = Filling {
            waiting: VecDeque::new(),
            log_time: EventTime::default(),
            grid_position: 0,
            vocabulary: Vocabulary::new(),
            tenants: HashMap::new(),
            session: Arc::new(reading_session()),
            file_names: Arc::new(FileNames::new()),
        };
        for tenant in tenants {
            filling.open_tenant(&shared, tenant).await?;
        }
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(writer::run(Arc::clone(&shared), receiver));
        Ok(Self {
            shared,
            commands,
            filling: Mutex::new(filling),
        })
    }

    /// Takes an epoch's rows; they are in [`Lake::view`] when this returns, and durable after the next commit. Rows the tables already
    /// hold are dropped, so epochs may come again after a restart. Waits while too many rows are not yet committed.
    ///
    /// # Errors
    /// [`LakeError::Stopped`] when the lake cannot go on; any other error when these rows cannot be taken.
    pub async fn push(&self, epoch: Arc<ClosedEpoch>) -> Result<(), LakeError> {
        self.shared.check()?;
        let mut filling = self.filling.lock().await;
        let filling = &mut *filling;
        for tenant in rows::tenants(&epoch) {
            if !filling.tenants.contains_key(&tenant) {
                filling.open_tenant(&self.shared, &tenant).await?;
            }
            if let Some(rows) = filling.tenants.get_mut(&tenant) {
                for outcome in &epoch.partitions {
                    rows.learn(outcome.partition).await?;
                }
                rows.learn_grid().await?;
            }
        }
        for outcome in &epoch.partitions {
            filling.log_time = filling.log_time.max(outcome.log_time);
        }
        let log_time = u64::try_from(filling.log_time.micros()).unwrap_or(0);
        filling.grid_position = log_time.max(filling.grid_position + 1);
        for (tenant, rows) in &mut filling.tenants {
            rows.operations.take(tenant, &epoch, filling.grid_position).await?;
        }
        // from here on the lanes count these rows as taken: a failure must stop the lake, not lose them
        match rows::encode(&epoch, filling.grid_position, &mut filling.tenants) {
            Ok(encoded) => filling.waiting.extend(encoded),
            Err(error) => return Err(self.stopped_by(error)),
        }
        self.settle(filling).await
    }

    /// Moves waiting rows into the tail, as memory allows.
    async fn settle(&self, filling: &mut Filling) -> Result<(), LakeError> {
        let memory = &self.shared.memory;
        let memory_kib = self.shared.memory_kib();
        while let Some(next) = filling.waiting.front() {
            let bytes: usize = next.days.iter().map(|(_, batch)| tail::batch_bytes(batch)).sum();
            // an epoch larger than all the memory takes what there is: it waits until everything before it is committed
            let kib = bytes.div_ceil(1024).clamp(1, memory_kib);
            if memory.available_permits() < kib {
                self.shared.commit_soon.notify_one();
            }
            let Ok(permit) = Arc::clone(memory).acquire_many_owned(kib as u32).await else {
                return Err(self.shared.check().err().unwrap_or(LakeError::Stopped {
                    reason: "its memory was closed".to_owned(),
                }));
            };
            let Some(EncodedRows { table, days, offsets }) = filling.waiting.pop_front() else {
                break;
            };
            table
                .add(NewRows { days, offsets, permit })
                .map_err(|error| self.stopped_by(error))?;
            if table.n_open_days() > OPEN_DAYS_MAX {
                self.shared.commit_soon.notify_one();
            }
        }
        if memory_kib - memory.available_permits() > self.shared.commit_kib() {
            self.shared.commit_soon.notify_one();
        }
        Ok(())
    }

    fn stopped_by(&self, error: LakeError) -> LakeError {
        self.shared.stop(&error);
        error
    }

    /// Commits everything pushed so far; when this returns `Ok`, it survives a power failure.
    ///
    /// # Errors
    /// [`LakeError`] when a commit failed. With [`Retry::Backoff`] the rows are kept and the next flush or commit tries again.
    pub async fn flush(&self) -> Result<(), LakeError> {
        self.settle(&mut *self.filling.lock().await).await?;
        self.ask(Command::Flush).await
    }

    /// Joins the small files of each day now.
    ///
    /// # Errors
    /// [`LakeError`] when a table could not be compacted; it is then as it was.
    pub async fn compact_now(&self) -> Result<(), LakeError> {
        self.ask(Command::Compact).await
    }

    /// Removes what no version within the retention uses, now.
    ///
    /// # Errors
    /// [`LakeError`] when a table could not be vacuumed.
    pub async fn vacuum_now(&self) -> Result<(), LakeError> {
        self.ask(Command::Vacuum).await
    }

    /// Ends the writer task without another commit and waits until it has ended; views stay readable. A lake must be closed before
    /// its tables are opened again in the same process: two handles are two writers.
    pub async fn close(&self) {
        // an error says that the task has ended already
        let _ = self.ask(Command::Close).await;
    }

    /// Why rows are not durable at the moment, if the last commit failed or the lake has stopped.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let stopped = self.shared.stopped.read().clone();
        stopped.or_else(|| self.shared.trouble.read().clone())
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<(), LakeError>>) -> Command) -> Result<(), LakeError> {
        let ended = || LakeError::Stopped {
            reason: "its writer task has ended".to_owned(),
        };
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// One table of one tenant at this instant; `None` when there is no such table.
    #[must_use]
    pub fn view(&self, tenant: &TenantId, table: &str) -> Option<Arc<TableView>> {
        let tenants = self.shared.tenants.read();
        tenants
            .get(tenant)?
            .all()
            .into_iter()
            .find(|candidate| candidate.def.name == table)
            .map(|table| table.view())
    }

    /// The tenants that have tables.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantId> {
        self.shared.tenants.read().keys().cloned().collect()
    }
}

impl Filling {
    async fn open_tenant(&mut self, shared: &Shared, tenant: &TenantId) -> Result<(), LakeError> {
        if self.tenants.len() >= TENANTS_MAX {
            return Err(LakeError::TooManyTenants {
                tenant: tenant.to_string(),
                limit: TENANTS_MAX,
            });
        }
        let (session, file_names) = (&self.session, &self.file_names);
        let open = async |def| -> Result<_, LakeError> {
            let table = LakeTable::open(&shared.config, tenant, def, Arc::clone(session), Arc::clone(file_names)).await?;
            Ok(Arc::new(table))
        };
        let tables = TenantTables {
            measurements: open(&measurements::TABLE).await?,
            alerts: open(&alerts::TABLE).await?,
            acknowledgements: open(&acknowledgements::TABLE).await?,
            rejections: open(&rejections::TABLE).await?,
            load_profile: open(&load_profile::TABLE).await?,
            grid_state: open(&grid::STATE).await?,
            grid_quality: open(&grid::QUALITY).await?,
            outages: open(&operation_tables::OUTAGES).await?,
            reconfigurations: open(&operation_tables::RECONFIGURATIONS).await?,
            faults: open(&operation_tables::FAULTS).await?,
        };
        self.tenants.insert(tenant.clone(), TenantRows::new(&tables, &self.vocabulary));
        shared.tenants.write().insert(tenant.clone(), tables);
        Ok(())
    }
}

/// The settings scans are made with: text as `Utf8`, which is what the tables promise, and filters evaluated while Parquet is read.
fn reading_session() -> SessionState {
    let config = SessionConfig::new()
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true);
    SessionContext::new_with_config(config).state()
}
