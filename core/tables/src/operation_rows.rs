//! Rows of grid operation in columns, as the live views and the lake show them: one encoder for `outages`, `reconfigurations` and
//! `faults`, so that a row looks the same in memory and in the past.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use flexmeter_model::EventTime;
use flexmeter_model::outcome::{FaultRow, OutageRow, ReconfigurationRow, SwitchOperation};
use serde_json::json;

use crate::definition::TableDef;
use crate::encoder::{RowEncoder, batch_schema};
use crate::operations::{FAULTS, OUTAGES, RECONFIGURATIONS};

/// A row of grid operation as it was from a moment on.
#[derive(Debug, Clone, PartialEq)]
pub struct Version<R> {
    /// Names the row for good.
    pub key: Arc<str>,
    /// The row.
    pub row: Arc<R>,
    /// Log time from which on it was so.
    pub log_time: EventTime,
    /// Whether it has turned out that there was nothing; then `row` is what was believed before.
    pub is_withdrawn: bool,
}

/// What is shown in a table of grid operation.
pub trait OperationRow: std::fmt::Debug + Send + Sync + Sized + 'static {
    /// The table.
    const TABLE: &'static TableDef;

    /// When it began: the lake files it under this day.
    fn began_at(&self) -> EventTime;

    /// The columns of [`OperationRow::TABLE`] after the first, which is the key.
    fn columns(rows: &[Version<Self>]) -> Vec<ArrayRef>;
}

/// Encodes rows of one table of grid operation.
#[derive(Debug)]
pub struct OperationEncoder<R> {
    schema: SchemaRef,
    rows: Vec<Version<R>>,
}

impl<R: OperationRow> Default for OperationEncoder<R> {
    fn default() -> Self {
        Self {
            schema: batch_schema(R::TABLE, &[]),
            rows: Vec::new(),
        }
    }
}

impl<R> OperationEncoder<R> {
    /// Adds one row.
    pub fn push(&mut self, row: Version<R>) {
        self.rows.push(row);
    }
}

impl<R: OperationRow> RowEncoder for OperationEncoder<R> {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let mut columns = vec![words(rows.iter().map(|row| &*row.key))];
        columns.extend(R::columns(&rows));
        columns.push(times(rows.iter().map(|row| Some(row.log_time))));
        columns.push(truths(rows.iter().map(|row| row.is_withdrawn)));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl OperationRow for OutageRow {
    const TABLE: &'static TableDef = &OUTAGES;

    fn began_at(&self) -> EventTime {
        self.opened_at
    }

    fn columns(rows: &[Version<Self>]) -> Vec<ArrayRef> {
        let rows = || rows.iter().map(|version| &*version.row);
        let alternatives: Vec<String> = rows().map(|row| json!(row.alternatives).to_string()).collect();
        vec![
            words(rows().map(|row| &*row.area)),
            Arc::new(rows().map(|row| row.feeder).collect::<Int64Array>()),
            words(rows().map(|row| row.device.as_str())),
            words(alternatives.iter().map(String::as_str)),
            longs(rows().map(|row| row.node_id)),
            longs(rows().map(|row| row.n_customers.into())),
            longs(rows().map(|row| row.n_customers_out.into())),
            longs(rows().map(|row| row.n_gasps.into())),
            times(rows().map(|row| Some(row.opened_at))),
            times(rows().map(|row| Some(row.reported_at))),
            times(rows().map(|row| row.closed_at)),
            words_or_null(rows().map(|row| row.closed_because)),
            floats(rows().map(|row| row.confidence)),
            truths(rows().map(|row| row.acknowledged)),
        ]
    }
}

impl OperationRow for ReconfigurationRow {
    const TABLE: &'static TableDef = &RECONFIGURATIONS;

    fn began_at(&self) -> EventTime {
        self.proposed_at
    }

    fn columns(rows: &[Version<Self>]) -> Vec<ArrayRef> {
        let rows = || rows.iter().map(|version| &*version.row);
        let plans: Vec<String> = rows().map(|row| plan_json(&row.operations)).collect();
        vec![
            words(rows().map(|row| row.state)),
            words_or_null(rows().map(|row| row.reason)),
            words_or_null(rows().map(|row| row.decided_by.as_deref())),
            words(plans.iter().map(String::as_str)),
            longs(rows().map(|row| row.operations.len() as i64)),
            longs(rows().map(|row| row.n_done.into())),
            floats(rows().map(|row| row.loss_before_w)),
            floats(rows().map(|row| row.loss_after_w)),
            floats_or_null(rows().map(|row| row.loss_d4_6_w)),
            floats(rows().map(|row| row.voltage_min_pu[0])),
            floats(rows().map(|row| row.voltage_min_pu[1])),
            times(rows().map(|row| Some(row.proposed_at))),
            times(rows().map(|row| Some(row.expires_at))),
            times(rows().map(|row| Some(row.changed_at))),
        ]
    }
}

fn plan_json(operations: &[SwitchOperation]) -> String {
    let step = |step: &SwitchOperation| {
        let position = if step.close { "closed" } else { "open" };
        json!({ "branch_id": step.branch_id, "hardware_id": step.hardware_id.as_str(), "position": position })
    };
    serde_json::Value::from_iter(operations.iter().map(step)).to_string()
}

impl OperationRow for FaultRow {
    const TABLE: &'static TableDef = &FAULTS;

    fn began_at(&self) -> EventTime {
        self.event_time
    }

    fn columns(rows: &[Version<Self>]) -> Vec<ArrayRef> {
        let rows = || rows.iter().map(|version| &*version.row);
        vec![
            words(rows().map(|row| &*row.area)),
            words(rows().map(|row| row.fault_type.as_str())),
            longs(rows().map(|row| row.branch_id)),
            longs(rows().map(|row| row.near_node)),
            floats(rows().map(|row| row.share)),
            floats_or_null(rows().map(|row| row.distance_m)),
            floats_or_null(rows().map(|row| row.distance_sigma_m)),
            floats(rows().map(|row| row.distance_ohm)),
            floats(rows().map(|row| row.resistance_ohm)),
            floats(rows().map(|row| row.probability)),
            words(rows().map(|row| row.candidates.as_str())),
            longs(rows().map(|row| row.n_gasps.into())),
            times(rows().map(|row| Some(row.event_time))),
            words(rows().map(|row| row.by.as_str())),
        ]
    }
}

fn words<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn words_or_null<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn longs(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn floats(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn floats_or_null(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

fn truths(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

fn times(values: impl Iterator<Item = Option<EventTime>>) -> ArrayRef {
    let micros = values.map(|time| time.map(EventTime::micros));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray as _;
    use flexmeter_model::HardwareId;

    fn encoded<R: OperationRow>(row: R) -> RecordBatch {
        let mut encoder = OperationEncoder::default();
        encoder.push(Version {
            key: "x-1".into(),
            row: Arc::new(row),
            log_time: EventTime::from_micros(7),
            is_withdrawn: true,
        });
        let batch = encoder.finish().unwrap();
        assert_eq!((batch.num_rows(), encoder.n_rows()), (1, 0));
        assert_eq!(batch.column(0).as_string::<i32>().value(0), "x-1");
        assert!(batch["withdrawn"].as_boolean().value(0));
        batch
    }

    fn text<'a>(batch: &'a RecordBatch, column: &str) -> &'a str {
        batch[column].as_string::<i32>().value(0)
    }

    #[test]
    fn an_outage_fills_every_column() {
        let time = EventTime::from_micros;
        let batch = encoded(OutageRow {
            area: "mv1".into(),
            feeder: None,
            device: "branch-7".to_owned(),
            alternatives: vec!["node-3".to_owned()],
            node_id: 3,
            n_customers: 5,
            n_customers_out: 0,
            n_gasps: 4,
            opened_at: time(1),
            reported_at: time(2),
            closed_at: Some(time(3)),
            closed_because: Some("restored"),
            confidence: 0.5,
            acknowledged: false,
        });
        assert!(batch["feeder"].is_null(0) && batch["closed_at"].is_valid(0));
        assert_eq!(
            (text(&batch, "alternatives"), text(&batch, "closed_because")),
            (r#"["node-3"]"#, "restored")
        );
    }

    #[test]
    fn a_plan_is_json_in_its_order() {
        let step = |branch_id, close| SwitchOperation {
            branch_id,
            hardware_id: HardwareId::new("sw").unwrap(),
            close,
        };
        let batch = encoded(ReconfigurationRow {
            state: "done",
            reason: None,
            decided_by: None,
            operations: vec![step(9, true), step(2, false)],
            n_done: 2,
            loss_before_w: 3.0,
            loss_after_w: 2.0,
            loss_d4_6_w: None,
            voltage_min_pu: [0.9, 1.0],
            proposed_at: EventTime::from_micros(1),
            expires_at: EventTime::from_micros(2),
            changed_at: EventTime::from_micros(3),
        });
        let plan = r#"[{"branch_id":9,"hardware_id":"sw","position":"closed"},{"branch_id":2,"hardware_id":"sw","position":"open"}]"#;
        assert_eq!((text(&batch, "plan"), text(&batch, "state")), (plan, "done"));
        assert!(batch["decided_by"].is_null(0));
    }

    #[test]
    fn a_fault_says_who_sent_it() {
        let batch = encoded(FaultRow {
            area: "mv1".into(),
            fault_type: "AG".to_owned(),
            branch_id: 1,
            near_node: 2,
            share: 0.5,
            distance_m: None,
            distance_sigma_m: None,
            distance_ohm: 1.0,
            resistance_ohm: 2.0,
            probability: 0.75,
            candidates: "[]".to_owned(),
            n_gasps: 0,
            event_time: EventTime::from_micros(5),
            by: "ada".to_owned(),
        });
        assert_eq!(text(&batch, "sent_by"), "ada");
        assert!(batch["distance_m"].is_null(0));
    }
}
