//! The one task that commits and maintains the tables. Whatever changes a table happens here, one thing after the other, so that
//! compaction and vacuum never race an append.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flexmeter_model::TenantId;
use parking_lot::RwLock;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::rows::TenantTables;
use super::table::LakeTable;
use super::tail::OpenRows;
use super::{LakeConfig, LakeError, Retry, data_file, maintenance};

/// What the handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Commit everything pushed so far.
    Flush(oneshot::Sender<Result<(), LakeError>>),
    /// Compact all tables now.
    Compact(oneshot::Sender<Result<(), LakeError>>),
    /// Vacuum and clean the logs now.
    Vacuum(oneshot::Sender<Result<(), LakeError>>),
    /// End without another commit.
    Close(oneshot::Sender<Result<(), LakeError>>),
}

/// What handle and task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: LakeConfig,
    pub(super) tenants: RwLock<BTreeMap<TenantId, TenantTables>>,
    /// Memory for rows not yet committed, in KiB. Closed when the lake stops.
    pub(super) memory: Arc<Semaphore>,
    /// Enough rows wait: commit before the time is up.
    pub(super) commit_soon: Notify,
    /// Why the lake stopped.
    pub(super) stopped: RwLock<Option<String>>,
    /// Why the last commit failed; `None` once one has succeeded.
    pub(super) trouble: RwLock<Option<String>>,
}

/// Uncommitted rows take at most this many times [`LakeConfig::commit_mb`]; then `push` waits.
const MEMORY_FACTOR: usize = 4;

impl Shared {
    pub(super) fn new(config: LakeConfig) -> Self {
        let memory_kib = config.commit_mb as usize * 1024 * MEMORY_FACTOR;
        Self {
            config,
            tenants: RwLock::default(),
            memory: Arc::new(Semaphore::new(memory_kib)),
            commit_soon: Notify::new(),
            stopped: RwLock::default(),
            trouble: RwLock::default(),
        }
    }

    /// Waiting rows that make a commit happen at once, in KiB.
    pub(super) fn commit_kib(&self) -> usize {
        self.config.commit_mb as usize * 1024
    }

    /// Waiting rows that make `push` wait, in KiB.
    pub(super) fn memory_kib(&self) -> usize {
        self.commit_kib() * MEMORY_FACTOR
    }

    pub(super) fn tables(&self) -> Vec<Arc<LakeTable>> {
        self.tenants
            .read()
            .values()
            .flat_map(|tables| tables.all().map(Arc::clone))
            .collect()
    }

    /// An error when the lake has stopped.
    pub(super) fn check(&self) -> Result<(), LakeError> {
        match &*self.stopped.read() {
            Some(reason) => Err(LakeError::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Ends all work for good; whoever waits is told why.
    pub(super) fn stop(&self, error: &LakeError) {
        tracing::error!(%error, "the lake stops");
        self.stop_because(&error.to_string());
    }

    fn stop_because(&self, reason: &str) {
        self.stopped.write().get_or_insert_with(|| reason.to_owned());
        self.memory.close();
    }
}

/// Runs until the handle is dropped. Rows not committed by then come again from the log.
pub(super) async fn run(shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let config = &shared.config;
    let _ends = Ends(&shared);
    let mut commit = interval(config.commit_s);
    let mut compact = interval(config.compact_every_s);
    let mut vacuum = interval(config.vacuum_every_s);
    loop {
        let (result, reply) = tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Close(reply)) => {
                    shared.stop_because("it was closed");
                    let _ = reply.send(Ok(()));
                    return;
                }
                Some(Command::Flush(reply)) => (commit_all(&shared).await, Some(reply)),
                Some(Command::Compact(reply)) => (maintenance::compact(&shared).await, Some(reply)),
                Some(Command::Vacuum(reply)) => (maintenance::vacuum(&shared).await, Some(reply)),
            },
            () = shared.commit_soon.notified() => (commit_all(&shared).await, None),
            () = tick(&mut commit) => (commit_all(&shared).await, None),
            () = tick(&mut compact) => (maintenance::compact(&shared).await, None),
            () = tick(&mut vacuum) => (maintenance::vacuum(&shared).await, None),
        };
        if let Err(error) = &result {
            metrics::counter!("flexmeter_lake_errors_total").increment(1);
            match error.retry() {
                Retry::Never => shared.stop(error),
                Retry::Backoff => tracing::warn!(%error, "the lake will try again"),
            }
        }
        if let Some(reply) = reply {
            // whoever asked may have gone; the work is done all the same
            let _ = reply.send(result);
        }
    }
}

/// Tells whoever waits for memory that nobody will free any, however the task ends.
struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop_because("its task has ended");
    }
}

/// A timer that is silent for its first period; `None` never ticks.
fn interval(seconds: u64) -> Option<tokio::time::Interval> {
    (seconds > 0).then(|| {
        let period = Duration::from_secs(seconds);
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval
    })
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Commits the open rows of all tables. A table that must wait for its disk does not make the others wait; the first error is told.
async fn commit_all(shared: &Shared) -> Result<(), LakeError> {
    shared.check()?;
    let mut outcome = Ok(());
    for table in shared.tables() {
        match commit_table(shared, &table).await {
            Err(error) if error.retry() == Retry::Never => {
                outcome = Err(error);
                break;
            }
            failed => outcome = outcome.and(failed),
        }
    }
    *shared.trouble.write() = outcome.as_ref().err().map(ToString::to_string);
    outcome
}

async fn commit_table(shared: &Shared, table: &Arc<LakeTable>) -> Result<(), LakeError> {
    // twice when an earlier attempt failed: first its rows, then those that came after them
    for _ in 0..2 {
        let Some(sealed) = table.seal() else { break };
        let retried = sealed.n_attempts() > 0;
        commit(shared, table, sealed).await?;
        // upkeep: the rows are safe, and the next commit tries again
        if let Err(error) = maintenance::checkpoint_if_due(shared, table).await {
            tracing::warn!(table = table.name, %error, "no Delta checkpoint");
        }
        if !retried {
            break;
        }
    }
    Ok(())
}

async fn commit(shared: &Shared, table: &Arc<LakeTable>, sealed: Arc<OpenRows>) -> Result<(), LakeError> {
    let start = Instant::now();
    if sealed.n_attempts() > 0 && landed_before(table, &sealed).await? {
        return Ok(());
    }
    sealed.note_attempt();
    let (n_rows, offsets) = (sealed.n_rows, sealed.offsets.clone());
    let level = shared.config.zstd_level;
    let def = table.def;
    let name = table.name.clone();
    let encode = move || -> Result<Vec<_>, LakeError> {
        let mut files = Vec::new();
        for (day, batches) in sealed.days() {
            let file = data_file::encode(def, batches, level).map_err(|error| LakeError::DataFile {
                table: name.clone(),
                file: format!("of {day:?}"),
                reason: error.to_string(),
            })?;
            files.push((day, file));
        }
        Ok(files)
    };
    let files = tokio::task::spawn_blocking(encode).await.map_err(|error| LakeError::DataFile {
        table: table.name.clone(),
        file: "(encoding)".to_owned(),
        reason: error.to_string(),
    })??;
    let encoded = start.elapsed();
    let n_bytes: usize = files.iter().map(|(_, file)| file.bytes.len()).sum();
    debug_assert_eq!(files.iter().map(|(_, file)| file.n_rows).sum::<usize>(), n_rows);
    let adds = table.store(files).await?;
    let state = table.commit(adds, &offsets).await?;
    table.advance(state, true).await?;
    let label = || table.name.clone();
    metrics::histogram!("flexmeter_lake_commit_seconds", "table" => label()).record(start.elapsed().as_secs_f64());
    metrics::counter!("flexmeter_lake_rows_total", "table" => label()).increment(n_rows as u64);
    metrics::counter!("flexmeter_lake_bytes_total", "table" => label()).increment(n_bytes as u64);
    tracing::debug!(table = table.name, n_rows, n_bytes, ?encoded, elapsed = ?start.elapsed(), "committed");
    Ok(())
}

/// After a failed attempt: whether it reached the table after all. A reply that was lost must not make rows come twice.
async fn landed_before(table: &LakeTable, sealed: &OpenRows) -> Result<bool, LakeError> {
    let held = table.state().version();
    let state = table.load(None).await?;
    if state.version() == held {
        return Ok(false);
    }
    if state.version() == held + 1 && table.holds(&state, &sealed.offsets).await? {
        table.advance(state, true).await?;
        return Ok(true);
    }
    Err(LakeError::AnotherWriter {
        table: table.name.clone(),
        version: held,
    })
}
