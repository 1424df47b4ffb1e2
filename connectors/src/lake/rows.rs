//! From closed epochs to batches: by tenant, by table, by day, without what a table already holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use flexmeter_model::outcome::{AreaEstimate, ClosedEpoch, PartitionOutcome};
use flexmeter_model::{EventTime, TenantId};
use flexmeter_tables::acknowledgements::AcknowledgementEncoder;
use flexmeter_tables::alerts::AlertEncoder;
use flexmeter_tables::dictionary::Vocabulary;
use flexmeter_tables::grid_history::{QualityEncoder, StateEncoder};
use flexmeter_tables::load_profile::ProfileEncoder;
use flexmeter_tables::measurements::MeasurementEncoder;
use flexmeter_tables::rejections::RejectionEncoder;
use flexmeter_tables::{Day, RowEncoder, day_of};

use super::LakeError;
use super::operations::{Operations, Past};
use super::table::LakeTable;

/// Encoders kept between epochs for one table; late data of more days than this make new ones each time.
const ENCODERS_KEPT: usize = 4;
/// The past of an area's estimates is kept by the minute of event time.
const GRID_STEP_US: i64 = 60 * 1_000_000;
/// Where the grid's rows stand in the log: they are of no partition. Their position is log time, µs, which a replay repeats; an epoch
/// that ends where the one before it did counts as a microsecond later.
pub(super) const GRID_PARTITION: u32 = u32::MAX;

/// The tables of one tenant, and how far each has been filled.
#[derive(Debug)]
pub(super) struct TenantRows {
    measurements: Lane<MeasurementEncoder>,
    alerts: Lane<AlertEncoder>,
    acknowledgements: Lane<AcknowledgementEncoder>,
    rejections: Lane<RejectionEncoder>,
    load_profile: Lane<ProfileEncoder>,
    grid_state: Lane<StateEncoder>,
    grid_quality: Lane<QualityEncoder>,
    pub(super) operations: Operations,
    /// The newest estimate of each area: it is history once there is one of a later minute.
    newest: BTreeMap<Arc<str>, Arc<AreaEstimate>>,
}

/// The tables of one tenant.
#[derive(Debug, Clone)]
pub(super) struct TenantTables {
    pub(super) measurements: Arc<LakeTable>,
    pub(super) alerts: Arc<LakeTable>,
    pub(super) acknowledgements: Arc<LakeTable>,
    pub(super) rejections: Arc<LakeTable>,
    pub(super) load_profile: Arc<LakeTable>,
    pub(super) grid_state: Arc<LakeTable>,
    pub(super) grid_quality: Arc<LakeTable>,
    pub(super) outages: Arc<LakeTable>,
    pub(super) reconfigurations: Arc<LakeTable>,
    pub(super) faults: Arc<LakeTable>,
}

impl TenantTables {
    pub(super) fn all(&self) -> [&Arc<LakeTable>; 10] {
        [
            &self.measurements,
            &self.alerts,
            &self.acknowledgements,
            &self.rejections,
            &self.load_profile,
            &self.grid_state,
            &self.grid_quality,
            &self.outages,
            &self.reconfigurations,
            &self.faults,
        ]
    }
}

/// Batches of one epoch for one table.
#[derive(Debug)]
pub(super) struct EncodedRows {
    pub(super) table: Arc<LakeTable>,
    pub(super) days: Vec<(Day, RecordBatch)>,
    pub(super) offsets: BTreeMap<u32, u64>,
}

impl TenantRows {
    pub(super) fn new(tables: &TenantTables, vocabulary: &Vocabulary) -> Self {
        let measurements = vocabulary.clone();
        let load_profile = vocabulary.clone();
        Self {
            measurements: Lane::new(&tables.measurements, move || MeasurementEncoder::new(&measurements)),
            alerts: Lane::new(&tables.alerts, AlertEncoder::default),
            acknowledgements: Lane::new(&tables.acknowledgements, AcknowledgementEncoder::default),
            rejections: Lane::new(&tables.rejections, RejectionEncoder::default),
            load_profile: Lane::new(&tables.load_profile, move || ProfileEncoder::new(&load_profile)),
            grid_state: Lane::new(&tables.grid_state, StateEncoder::default),
            grid_quality: Lane::new(&tables.grid_quality, QualityEncoder::default),
            operations: Operations {
                outages: Past::new(&tables.outages),
                reconfigurations: Past::new(&tables.reconfigurations),
                faults: Past::new(&tables.faults),
            },
            newest: BTreeMap::new(),
        }
    }

    /// Learns how far the tables hold this log partition, unless that is known.
    pub(super) async fn learn(&mut self, partition: u32) -> Result<(), LakeError> {
        self.measurements.learn(partition).await?;
        self.alerts.learn(partition).await?;
        self.acknowledgements.learn(partition).await?;
        self.rejections.learn(partition).await?;
        self.load_profile.learn(partition).await
    }

    /// Learns up to which log time the tables hold the grid's rows.
    pub(super) async fn learn_grid(&mut self) -> Result<(), LakeError> {
        self.grid_state.learn(GRID_PARTITION).await?;
        self.grid_quality.learn(GRID_PARTITION).await?;
        self.operations.learn().await
    }

    /// Takes an estimate; the one before it goes to the past if it is of an earlier minute.
    fn estimated(&mut self, position: u64, estimate: &Arc<AreaEstimate>) {
        let minute = |estimate: &AreaEstimate| estimate.event_time.micros().div_euclid(GRID_STEP_US);
        let before = self.newest.insert(estimate.area.clone(), estimate.clone());
        let past = before.filter(|before| before.event_time.micros() > 0 && minute(before) < minute(estimate));
        past.into_iter().for_each(|past| self.keep(position, &past));
    }

    fn keep(&mut self, position: u64, estimate: &Arc<AreaEstimate>) {
        if let Some(encoder) = self.grid_state.encoder(position, estimate.event_time) {
            encoder.push(estimate);
        }
        if let Some(encoder) = self.grid_quality.encoder(position, estimate.event_time) {
            encoder.push(estimate);
        }
    }

    fn begin(&mut self, partition: u32) {
        self.measurements.begin(partition);
        self.alerts.begin(partition);
        self.acknowledgements.begin(partition);
        self.rejections.begin(partition);
        self.load_profile.begin(partition);
    }

    fn end(&mut self, partition: u32, end_offset: u64) {
        self.measurements.end(partition, end_offset);
        self.alerts.end(partition, end_offset);
        self.acknowledgements.end(partition, end_offset);
        self.rejections.end(partition, end_offset);
        self.load_profile.end(partition, end_offset);
    }

    fn finish(&mut self, out: &mut Vec<EncodedRows>) -> Result<(), LakeError> {
        out.extend(self.measurements.finish()?);
        out.extend(self.alerts.finish()?);
        out.extend(self.acknowledgements.finish()?);
        out.extend(self.rejections.finish()?);
        out.extend(self.load_profile.finish()?);
        out.extend(self.grid_state.finish()?);
        out.extend(self.grid_quality.finish()?);
        self.operations.finish(out)
    }
}

/// One table's way from rows to batches.
pub(super) struct Lane<E> {
    pub(super) table: Arc<LakeTable>,
    new_encoder: Box<dyn Fn() -> E + Send + Sync>,
    encoders: Vec<(Day, E)>,
    by_day: HashMap<Day, usize>,
    /// The encoder used last: rows of one day follow each other.
    at: usize,
    /// For each log partition: rows below this offset are in the table or in its tail.
    next: HashMap<u32, u64>,
    /// The value of `next` for the partition at hand.
    floor: u64,
    touched: bool,
    offsets: BTreeMap<u32, u64>,
}

impl<E> std::fmt::Debug for Lane<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("table", &self.table.name)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<E: RowEncoder> Lane<E> {
    pub(super) fn new(table: &Arc<LakeTable>, new_encoder: impl Fn() -> E + Send + Sync + 'static) -> Self {
        Self {
            table: Arc::clone(table),
            new_encoder: Box::new(new_encoder),
            encoders: Vec::new(),
            by_day: HashMap::new(),
            at: 0,
            next: HashMap::new(),
            floor: 0,
            touched: false,
            offsets: BTreeMap::new(),
        }
    }

    pub(super) async fn learn(&mut self, partition: u32) -> Result<(), LakeError> {
        if !self.next.contains_key(&partition) {
            let offset = self.table.committed_offset(partition).await?;
            self.next.insert(partition, offset);
        }
        Ok(())
    }

    /// Up to where the table and its tail hold a log partition, if that is known.
    pub(super) fn known(&self, partition: u32) -> Option<u64> {
        self.next.get(&partition).copied()
    }

    pub(super) fn begin(&mut self, partition: u32) {
        self.floor = self.next.get(&partition).copied().unwrap_or(0);
        self.touched = false;
    }

    /// The encoder for a row of this offset and time; `None` when the table has the row already.
    pub(super) fn encoder(&mut self, offset: u64, time: EventTime) -> Option<&mut E> {
        if offset < self.floor {
            return None;
        }
        self.touched = true;
        let day = day_of(time);
        if self.encoders.get(self.at).is_none_or(|(at, _)| *at != day) {
            self.at = *self.by_day.entry(day).or_insert_with(|| {
                self.encoders.push((day, (self.new_encoder)()));
                self.encoders.len() - 1
            });
        }
        Some(&mut self.encoders[self.at].1)
    }

    pub(super) fn end(&mut self, partition: u32, end_offset: u64) {
        if self.touched {
            self.offsets.insert(partition, end_offset);
        }
        // a partition nobody has learnt of stays unknown: the table may hold more of it than this epoch
        if let Some(next) = self.next.get_mut(&partition) {
            *next = (*next).max(end_offset);
        }
    }

    pub(super) fn finish(&mut self) -> Result<Option<EncodedRows>, LakeError> {
        let mut days = Vec::new();
        for (day, encoder) in &mut self.encoders {
            if encoder.n_rows() > 0 {
                days.push((
                    *day,
                    encoder.finish().map_err(|source| LakeError::columns(&self.table.name, source))?,
                ));
            }
        }
        if self.encoders.len() > ENCODERS_KEPT {
            self.encoders.clear();
            self.by_day.clear();
        }
        let offsets = std::mem::take(&mut self.offsets);
        Ok((!days.is_empty()).then(|| EncodedRows {
            table: Arc::clone(&self.table),
            days,
            offsets,
        }))
    }
}

/// The tenants an epoch has rows of.
pub(super) fn tenants(epoch: &ClosedEpoch) -> Vec<TenantId> {
    let mut found: Vec<TenantId> = Vec::new();
    let mut note = |tenant: &TenantId| {
        // nearly always the one before
        if found.last() != Some(tenant) && !found.contains(tenant) {
            found.push(tenant.clone());
        }
    };
    for outcome in &epoch.partitions {
        outcome.measurements.heads.iter().for_each(|head| note(&head.device.tenant));
        outcome.alerts.iter().for_each(|row| note(&row.device.tenant));
        outcome.acknowledgements.iter().for_each(|row| note(&row.device.tenant));
        outcome.rejections.iter().for_each(|row| note(&row.tenant));
        outcome.profile_rows.iter().for_each(|row| note(&row.device.tenant));
    }
    epoch.grid.areas.iter().for_each(|area| note(&area.tenant));
    epoch.grid.gone.iter().for_each(|(tenant, _)| note(tenant));
    epoch.grid.outages.iter().for_each(|change| note(&change.tenant));
    epoch.grid.reconfigurations.iter().for_each(|change| note(&change.tenant));
    epoch.grid.faults.iter().for_each(|change| note(&change.tenant));
    found
}

/// Encodes an epoch; `grid_position` is that of the grid's rows. Each tenant with rows in it must be in `tenants`.
pub(super) fn encode(
    epoch: &ClosedEpoch,
    grid_position: u64,
    tenants: &mut HashMap<TenantId, TenantRows>,
) -> Result<Vec<EncodedRows>, LakeError> {
    for outcome in &epoch.partitions {
        tenants.values_mut().for_each(|rows| rows.begin(outcome.partition));
        encode_partition(outcome, tenants);
        tenants
            .values_mut()
            .for_each(|rows| rows.end(outcome.partition, outcome.end_offset));
    }
    encode_grid(epoch, grid_position, tenants);
    let mut encoded = Vec::new();
    for rows in tenants.values_mut() {
        rows.finish(&mut encoded)?;
    }
    Ok(encoded)
}

fn encode_grid(epoch: &ClosedEpoch, position: u64, tenants: &mut HashMap<TenantId, TenantRows>) {
    if epoch.grid.areas.is_empty() && epoch.grid.gone.is_empty() {
        return;
    }
    for rows in tenants.values_mut() {
        rows.grid_state.begin(GRID_PARTITION);
        rows.grid_quality.begin(GRID_PARTITION);
    }
    for (tenant, area) in &epoch.grid.gone {
        if let Some(rows) = tenants.get_mut(tenant)
            && let Some(last) = rows.newest.remove(area)
        {
            rows.keep(position, &last);
        }
    }
    for estimate in &epoch.grid.areas {
        if let Some(rows) = tenants.get_mut(&estimate.tenant) {
            rows.estimated(position, estimate);
        }
    }
    for rows in tenants.values_mut() {
        rows.grid_state.end(GRID_PARTITION, position + 1);
        rows.grid_quality.end(GRID_PARTITION, position + 1);
    }
}

fn encode_partition(outcome: &PartitionOutcome, tenants: &mut HashMap<TenantId, TenantRows>) {
    for (head, identifiers, values) in outcome.measurements.messages() {
        let Some(rows) = tenants.get_mut(&head.device.tenant) else {
            continue;
        };
        if let Some(encoder) = rows.measurements.encoder(head.offset, head.event_time) {
            encoder.push(head, identifiers, values);
        }
    }
    for row in &outcome.alerts {
        let Some(rows) = tenants.get_mut(&row.device.tenant) else {
            continue;
        };
        if let Some(encoder) = rows.alerts.encoder(row.offset, row.event_time) {
            encoder.push(row);
        }
    }
    for row in &outcome.acknowledgements {
        let Some(rows) = tenants.get_mut(&row.device.tenant) else {
            continue;
        };
        if let Some(encoder) = rows.acknowledgements.encoder(row.offset, row.event_time) {
            encoder.push(row);
        }
    }
    for row in &outcome.rejections {
        let Some(rows) = tenants.get_mut(&row.tenant) else { continue };
        if let Some(encoder) = rows.rejections.encoder(row.offset, row.received_at) {
            encoder.push(outcome.partition, row);
        }
    }
    for row in &outcome.profile_rows {
        let Some(rows) = tenants.get_mut(&row.device.tenant) else {
            continue;
        };
        if let Some(encoder) = rows.load_profile.encoder(row.offset, row.window_start) {
            encoder.push(row);
        }
    }
}
