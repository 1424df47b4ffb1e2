//! Upkeep of the tables: checkpoints, compaction, vacuum, log cleanup. Called by the writer task only.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use deltalake::checkpoints::{cleanup_metadata, create_checkpoint};
use deltalake::operations::optimize::OptimizeType;
use deltalake::operations::vacuum::VacuumMode;

use super::data_file::{usual_shape, writer_properties};
use super::table::{LakeTable, single_writer};
use super::writer::Shared;
use super::{LakeConfig, LakeError};

const MIB: u64 = 1024 * 1024;

/// Smallest zstd level of compacted files: they are written once and stay. An eighth smaller than level 1 on the recordings.
const COMPACT_ZSTD_LEVEL_MIN: i32 = 3;

/// Writes a checkpoint of the table's log every so many versions.
pub(super) async fn checkpoint_if_due(shared: &Shared, table: &LakeTable) -> Result<(), LakeError> {
    if table.state().version().is_multiple_of(shared.config.checkpoint_commits) {
        checkpoint(table).await?;
    }
    Ok(())
}

async fn checkpoint(table: &LakeTable) -> Result<(), LakeError> {
    let failed = |source| LakeError::delta(&table.name, "writing a checkpoint", source);
    create_checkpoint(&table.delta_table(), None).await.map_err(failed)?;
    // readers of our own start from the checkpoint too, instead of the commits before it
    let mut state = table.state().as_ref().clone();
    let version = state.version();
    state.update(table.log_store.as_ref(), Some(version)).await.map_err(failed)?;
    table.advance(state, false).await
}

/// Joins the small files of each day.
pub(super) async fn compact(shared: &Shared) -> Result<(), LakeError> {
    shared.check()?;
    for table in shared.tables() {
        compact_table(&shared.config, &table).await?;
    }
    Ok(())
}

async fn compact_table(config: &LakeConfig, table: &Arc<LakeTable>) -> Result<(), LakeError> {
    let start = Instant::now();
    let version = table.state().version();
    let mut optimize = table
        .delta_table()
        .optimize()
        .with_type(OptimizeType::Compact)
        .with_max_concurrent_tasks(1)
        .with_writer_properties(writer_properties(
            table.def,
            config.zstd_level.max(COMPACT_ZSTD_LEVEL_MIN),
            usual_shape,
        ))
        .with_commit_properties(single_writer());
    if let Some(size) = NonZeroU64::new(config.compact_target_mb * MIB) {
        optimize = optimize.with_target_size(size);
    }
    let (compacted, figures) = optimize.await.map_err(|source| table.commit_error(version, "compacting", source))?;
    if let Some(state) = compacted.state
        && state.version() != version
    {
        table.advance(state, false).await?;
        tracing::info!(
            table = table.name,
            files_before = figures.num_files_removed,
            files_after = figures.num_files_added,
            elapsed = ?start.elapsed(),
            "compacted"
        );
    }
    metrics::histogram!("flexmeter_lake_compact_seconds", "table" => table.name.clone()).record(start.elapsed().as_secs_f64());
    Ok(())
}

/// Removes data files that no version within the retention uses, and the log's old entries.
pub(super) async fn vacuum(shared: &Shared) -> Result<(), LakeError> {
    shared.check()?;
    for table in shared.tables() {
        vacuum_table(&shared.config, &table).await?;
    }
    Ok(())
}

async fn vacuum_table(config: &LakeConfig, table: &Arc<LakeTable>) -> Result<(), LakeError> {
    let version = table.state().version();
    let retention = chrono::TimeDelta::hours(i64::try_from(config.vacuum_retention_hours).unwrap_or(i64::MAX));
    let (table_after, figures) = table
        .delta_table()
        .vacuum()
        .with_mode(VacuumMode::Full)
        .with_retention_period(retention)
        .with_commit_properties(single_writer())
        .await
        .map_err(|source| table.commit_error(version, "vacuuming", source))?;
    if let Some(state) = table_after.state
        && state.version() != version
    {
        table.advance(state, false).await?;
    }
    checkpoint(table).await?;
    let n_log_files = cleanup_metadata(&table.delta_table(), None)
        .await
        .map_err(|source| LakeError::delta(&table.name, "cleaning up the log", source))?;
    if n_log_files > 0 {
        table.advance(table.load(None).await?, false).await?;
    }
    tracing::info!(table = table.name, n_files = figures.files_deleted.len(), n_log_files, "vacuumed");
    Ok(())
}
