//! The tail: rows that are accepted but not yet committed, and the view that joins them with what is.
//!
//! Rows move through three places: `open` (arriving), `sealed` (being committed), the table's snapshot. The two moves are each one
//! atomic swap of the published view, so that a reader sees every row exactly once at every instant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use deltalake::datafusion::catalog::TableProvider;
use flexmeter_tables::Day;
use tokio::sync::OwnedSemaphorePermit;

/// Batches of the tail are joined until they have this many rows, so that a reader meets few batches however small the epochs are.
pub const TAIL_BATCH_ROWS_MAX: usize = 64 * 1024;

/// One table at one instant. `committed` and `tail` hold each row exactly once.
#[derive(Debug, Clone)]
pub struct TableView {
    /// The table's version.
    pub version: u64,
    /// The committed rows, as a table DataFusion can scan. Its columns are those of the lake ([`flexmeter_tables::TableDef::lake_schema`]).
    pub committed: Arc<dyn TableProvider>,
    /// The rows not yet committed. Text columns may be dictionaries; `flexmeter_tables::to_schema` makes them plain.
    pub tail: Vec<RecordBatch>,
    /// Schema of the tail's batches; `None` as long as there has been no row.
    pub tail_schema: Option<SchemaRef>,
}

/// Rows of one table on their way.
#[derive(Debug, Default)]
pub(super) struct OpenRows {
    days: BTreeMap<Day, Vec<RecordBatch>>,
    /// For each log partition with rows here: the offset up to which the table will hold it.
    pub(super) offsets: BTreeMap<u32, u64>,
    pub(super) n_rows: usize,
    /// The memory these rows were granted; given back when they are dropped.
    permit: Option<OwnedSemaphorePermit>,
    n_attempts: AtomicU32,
}

impl OpenRows {
    pub(super) fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Commits of these rows that were begun.
    pub(super) fn n_attempts(&self) -> u32 {
        self.n_attempts.load(Ordering::Relaxed)
    }

    pub(super) fn note_attempt(&self) {
        self.n_attempts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn n_days(&self) -> usize {
        self.days.len()
    }

    /// The rows by day, in the order they came.
    pub(super) fn days(&self) -> impl Iterator<Item = (Day, &[RecordBatch])> {
        self.days.iter().map(|(day, batches)| (*day, batches.as_slice()))
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.days.values().flatten()
    }

    /// Adds rows of one day.
    pub(super) fn add(&mut self, day: Day, batch: RecordBatch) -> Result<(), ArrowError> {
        self.n_rows += batch.num_rows();
        let batches = self.days.entry(day).or_default();
        batches.push(batch);
        // as in a binary counter: equal neighbours merge, so a row is copied a logarithmic number of times
        while let [.., left, right] = batches.as_slice()
            && right.num_rows() * 2 >= left.num_rows()
            && left.num_rows() + right.num_rows() <= TAIL_BATCH_ROWS_MAX
        {
            let joined = concat_batches(left.schema_ref(), [left, right])?;
            batches.truncate(batches.len() - 2);
            batches.push(joined);
        }
        Ok(())
    }

    /// Takes over the memory granted for rows just added.
    pub(super) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
    }
}

/// The memory a batch takes, in bytes, without the dictionaries it shares with others.
pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    let column_bytes = |column: &Arc<dyn Array>| match column.data_type() {
        DataType::Dictionary(key, _) => column.len() * key.primitive_width().unwrap_or(4),
        _ => column.get_buffer_memory_size(),
    };
    batch.columns().iter().map(column_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap()
    }

    #[test]
    fn many_small_batches_become_few_and_keep_their_order() {
        let mut rows = OpenRows::default();
        for i in 0..1000 {
            rows.add(Day(0), batch(i * 3..i * 3 + 3)).unwrap();
        }
        let batches: Vec<_> = rows.batches().cloned().collect();
        assert!(batches.len() <= 11, "{}", batches.len());
        let all = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(all, batch(0..3000));
    }

    #[test]
    fn batches_stop_growing_at_their_limit() {
        let mut rows = OpenRows::default();
        let n = TAIL_BATCH_ROWS_MAX as i64;
        for _ in 0..3 {
            rows.add(Day(0), batch(0..n / 2 + 1)).unwrap();
        }
        assert_eq!(
            rows.batches().map(RecordBatch::num_rows).collect::<Vec<_>>(),
            [TAIL_BATCH_ROWS_MAX / 2 + 1; 3]
        );
    }
}
