//! The past of grid operation: outages, proposals and faults, each row when it has come to its end, and again whenever it is corrected.
//!
//! The engine says what a row is *now*, again and again: all of them in epoch 0 of a restored engine, and a replay goes through states that
//! the table has seen already, cut into other epochs. So a row is compared with what the table holds of its id, not with a position
//! alone. While a replay has not come as far as the table (its position is log time), rows only wait, the newest of each id; then those
//! that differ from the table's are added. From there on [`Past::held`] knows what the table holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use deltalake::DeltaTableError;
use deltalake::datafusion::common::ScalarValue;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::prelude::{SessionContext, col, lit};
use flexmeter_model::outcome::{ClosedEpoch, FaultRow, OPERATIONS_KEPT_US, OutageRow, ReconfigurationRow, RowChange};
use flexmeter_model::{EventTime, TenantId};
use flexmeter_tables::definition::DAY;
use flexmeter_tables::operation_rows::{OperationEncoder, OperationRow, Version};
use flexmeter_tables::{RowEncoder, day_of, to_schema};

use super::LakeError;
use super::rows::{EncodedRows, GRID_PARTITION, Lane};
use super::table::LakeTable;

/// Ids that may wait for a replay to come as far as the table; above it they are compared at once, and states that the table has seen
/// may be added a second time.
const WAITING_MAX: usize = 100_000;
/// What is in the table is looked for from so many days before the oldest row on: corrections may have moved its beginning.
const DAYS_BEFORE: i32 = 7;
/// Clocks of meters may be off by so much against log time.
const CLOCK_US: i64 = 3_600 * 1_000_000;

/// When a row is history.
pub(super) trait Ends: OperationRow + PartialEq {
    /// Whether it has come to its end.
    fn is_final(&self) -> bool;

    /// Whether a row that leaves its view at a log time has not merely become old: it has turned out that there was nothing.
    fn is_withdrawn(&self, log_us: i64) -> bool;
}

impl Ends for OutageRow {
    fn is_final(&self) -> bool {
        Self::is_final(self)
    }

    fn is_withdrawn(&self, log_us: i64) -> bool {
        self.closed_at
            .is_none_or(|closed_at| log_us < closed_at.micros().saturating_add(OPERATIONS_KEPT_US - CLOCK_US))
    }
}

impl Ends for ReconfigurationRow {
    fn is_final(&self) -> bool {
        Self::is_final(self)
    }

    fn is_withdrawn(&self, _: i64) -> bool {
        false
    }
}

impl Ends for FaultRow {
    fn is_final(&self) -> bool {
        true
    }

    fn is_withdrawn(&self, _: i64) -> bool {
        false
    }
}

/// The past of one tenant's grid operation.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) outages: Past<OutageRow>,
    pub(super) reconfigurations: Past<ReconfigurationRow>,
    pub(super) faults: Past<FaultRow>,
}

impl Operations {
    pub(super) async fn learn(&mut self) -> Result<(), LakeError> {
        self.outages.lane.learn(GRID_PARTITION).await?;
        self.reconfigurations.lane.learn(GRID_PARTITION).await?;
        self.faults.lane.learn(GRID_PARTITION).await
    }

    /// Takes what an epoch says of this tenant, up to a log position.
    pub(super) async fn take(&mut self, tenant: &TenantId, epoch: &ClosedEpoch, position: u64) -> Result<(), LakeError> {
        let has_come = epoch.partitions.iter().any(|outcome| outcome.log_time > EventTime::default());
        self.outages.take(&of(tenant, &epoch.grid.outages), position, has_come).await?;
        let proposals = of(tenant, &epoch.grid.reconfigurations);
        self.reconfigurations.take(&proposals, position, has_come).await?;
        self.faults.take(&of(tenant, &epoch.grid.faults), position, has_come).await
    }

    pub(super) fn finish(&mut self, out: &mut Vec<EncodedRows>) -> Result<(), LakeError> {
        out.extend(self.outages.finish()?);
        out.extend(self.reconfigurations.finish()?);
        out.extend(self.faults.finish()?);
        Ok(())
    }
}

/// What an epoch says last of each id of a tenant.
fn of<'a, R>(tenant: &TenantId, changes: &'a [RowChange<R>]) -> BTreeMap<&'a Arc<str>, Option<&'a Arc<R>>> {
    let own = changes.iter().filter(|change| change.tenant == *tenant);
    own.map(|change| (&change.key, change.new.as_ref())).collect()
}

/// The past of one table.
#[derive(Debug)]
pub(super) struct Past<R> {
    lane: Lane<OperationEncoder<R>>,
    /// The newest row of each id, until it is known what the table holds.
    waiting: Option<BTreeMap<Arc<str>, Told<R>>>,
    /// By id: what the table holds of rows that are in their view.
    held: HashMap<Arc<str>, Arc<R>>,
    /// Decided, and to be handed out with the epoch.
    decided: Vec<(u64, Version<R>)>,
}

#[derive(Debug)]
struct Told<R> {
    row: Arc<R>,
    is_there: bool,
    is_withdrawn: bool,
}

impl<R: Ends> Past<R> {
    pub(super) fn new(table: &Arc<LakeTable>) -> Self {
        Self {
            lane: Lane::new(table, OperationEncoder::default),
            waiting: Some(BTreeMap::new()),
            held: HashMap::new(),
            decided: Vec::new(),
        }
    }

    async fn take(&mut self, changes: &BTreeMap<&Arc<str>, Option<&Arc<R>>>, position: u64, has_come: bool) -> Result<(), LakeError> {
        let floor = self.lane.known(GRID_PARTITION);
        let Some(waiting) = &mut self.waiting else {
            let position = position.max(floor.unwrap_or(0));
            changes.iter().for_each(|(key, new)| self.follow(key, *new, position));
            return Ok(());
        };
        for (&key, &new) in changes {
            match (new, waiting.get_mut(key)) {
                (Some(row), _) => {
                    let told = Told {
                        row: row.clone(),
                        is_there: true,
                        is_withdrawn: false,
                    };
                    waiting.insert(key.clone(), told);
                }
                (None, Some(told)) => {
                    told.is_there = false;
                    told.is_withdrawn = told.row.is_withdrawn(log_us(position));
                }
                (None, None) => {}
            }
        }
        // epoch 0 has no log time of its own
        let Some(floor) = floor else { return Ok(()) };
        if has_come && position >= floor || waiting.len() > WAITING_MAX {
            self.settle(position.max(floor)).await?;
        }
        Ok(())
    }

    /// A row has changed.
    fn follow(&mut self, key: &Arc<str>, new: Option<&Arc<R>>, position: u64) {
        match (new, self.held.get(key)) {
            (Some(row), Some(held)) if row == held => {}
            (Some(row), held) => {
                // an outage that opens again has an end no more
                if row.is_final() || held.is_some_and(|held| held.is_final()) {
                    self.held.insert(key.clone(), row.clone());
                    self.decide(key, row, position, false);
                }
            }
            (None, Some(_)) => {
                let held = self.held.remove(key);
                if let Some(row) = held.filter(|row| row.is_withdrawn(log_us(position))) {
                    self.decide(key, &row, position, true);
                }
            }
            (None, None) => {}
        }
    }

    fn decide(&mut self, key: &Arc<str>, row: &Arc<R>, position: u64, is_withdrawn: bool) {
        let version = Version {
            key: key.clone(),
            row: row.clone(),
            log_time: EventTime::from_micros(log_us(position)),
            is_withdrawn,
        };
        self.decided.push((position, version));
    }

    /// Compares what has waited with the table, and adds what it does not know.
    async fn settle(&mut self, position: u64) -> Result<(), LakeError> {
        let Some(waiting) = &self.waiting else { return Ok(()) };
        let known = self.compare(waiting).await?;
        for (key, told) in self.waiting.take().into_iter().flatten() {
            let Told { row, is_there, .. } = &told;
            match known.get(&key) {
                Some(Known { is_withdrawn: true, .. }) if told.is_withdrawn => {}
                Some(_) if told.is_withdrawn => self.decide(&key, row, position, true),
                Some(known) if known.is_equal && !known.is_withdrawn => {}
                // what has ended, and what the table believes to have ended
                known if row.is_final() && !told.is_withdrawn || known.is_some_and(|known| !known.is_withdrawn) => {
                    self.decide(&key, row, position, false);
                }
                _ => continue,
            }
            if *is_there {
                self.held.insert(key, told.row);
            }
        }
        Ok(())
    }

    /// By id: what the table knows of these rows, and whether it is the same.
    async fn compare(&self, waiting: &BTreeMap<Arc<str>, Told<R>>) -> Result<HashMap<Arc<str>, Known>, LakeError> {
        let Some(first_day) = waiting.values().map(|told| day_of(told.row.began_at())).min() else {
            return Ok(HashMap::new());
        };
        let held = self.newest(first_day.0.saturating_sub(DAYS_BEFORE)).await?;
        let mut encoder = OperationEncoder::default();
        for (key, told) in waiting {
            encoder.push(Version {
                key: key.clone(),
                row: told.row.clone(),
                log_time: EventTime::default(),
                is_withdrawn: false,
            });
        }
        let told = encoder.finish().and_then(|batch| contents::<R>(&batch));
        let told = told.map_err(|source| LakeError::columns(&self.lane.table.name, source))?;
        let known = waiting.keys().zip(told).filter_map(|(key, told)| {
            let (_, is_withdrawn, content) = held.get(&**key)?;
            let known = Known {
                is_equal: *content == told,
                is_withdrawn: *is_withdrawn,
            };
            Some((key.clone(), known))
        });
        Ok(known.collect())
    }

    /// By id: log time of the newest row that the table holds from a day on, whether it is withdrawn, and what it says.
    async fn newest(&self, first_day: i32) -> Result<HashMap<String, (i64, bool, OwnedRow)>, LakeError> {
        let table = &self.lane.table;
        let view = table.view();
        let unreadable = |source: DataFusionError| LakeError::delta(&table.name, "reading what it holds", DeltaTableError::from(source));
        let schema = R::TABLE.file_schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let committed = SessionContext::new_with_state(table.session())
            .read_table(view.committed.clone())
            .and_then(|frame| frame.filter(col(DAY.name).gt_eq(lit(ScalarValue::Date32(Some(first_day))))))
            .and_then(|frame| frame.select_columns(&names))
            .map_err(unreadable)?
            .collect()
            .await
            .map_err(unreadable)?;
        let mut newest: HashMap<String, (i64, bool, OwnedRow)> = HashMap::new();
        for batch in committed.iter().chain(&view.tail) {
            let misfit = |source| LakeError::columns(&table.name, source);
            let batch = to_schema(batch, &schema).map_err(misfit)?;
            let (ids, times, withdrawn) = marks(&batch).map_err(misfit)?;
            let contents = contents::<R>(&batch).map_err(misfit)?;
            for (((id, time), is_withdrawn), content) in ids.into_iter().zip(times).zip(withdrawn).zip(contents) {
                if newest.get(id).is_none_or(|(known, ..)| *known < time) {
                    newest.insert(id.to_owned(), (time, is_withdrawn, content));
                }
            }
        }
        Ok(newest)
    }

    fn finish(&mut self) -> Result<Option<EncodedRows>, LakeError> {
        if self.decided.is_empty() {
            return Ok(None);
        }
        self.lane.begin(GRID_PARTITION);
        let mut end = 0;
        for (position, version) in self.decided.drain(..) {
            end = end.max(position + 1);
            if let Some(encoder) = self.lane.encoder(position, version.row.began_at()) {
                encoder.push(version);
            }
        }
        self.lane.end(GRID_PARTITION, end);
        self.lane.finish()
    }
}

/// What the table knows of a row.
#[derive(Debug, Clone, Copy)]
struct Known {
    is_equal: bool,
    is_withdrawn: bool,
}

fn log_us(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

type Marks<'a> = (Vec<&'a str>, Vec<i64>, Vec<bool>);

/// Ids, log times and whether they are withdrawn, of a batch with the columns of the lake.
fn marks(batch: &RecordBatch) -> Result<Marks<'_>, arrow::error::ArrowError> {
    use arrow::array::{Array as _, AsArray as _};
    use arrow::datatypes::TimestampMicrosecondType;
    let column = |name: &str| batch.schema_ref().index_of(name).map(|index| batch.column(index));
    let ids = batch.column(0).as_string::<i32>();
    let times = column("log_time")?.as_primitive::<TimestampMicrosecondType>();
    let withdrawn = column("withdrawn")?.as_boolean();
    let rows = 0..batch.num_rows();
    Ok((
        rows.clone().map(|row| ids.value(row)).collect(),
        times.values().to_vec(),
        rows.map(|row| withdrawn.is_valid(row) && withdrawn.value(row)).collect(),
    ))
}

/// What each row of a batch says in the columns that SQL shows.
fn contents<R: OperationRow>(batch: &RecordBatch) -> Result<Vec<OwnedRow>, arrow::error::ArrowError> {
    let n_columns = R::TABLE.columns.len();
    let fields = R::TABLE.columns.iter().map(|column| SortField::new(column.column_type.arrow()));
    let converter = RowConverter::new(fields.collect())?;
    let rows = converter.convert_columns(&batch.columns()[..n_columns])?;
    Ok(rows.iter().map(|row| row.owned()).collect())
}
