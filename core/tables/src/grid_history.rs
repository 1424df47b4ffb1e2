//! Encoders of `grid_state` and `grid_quality`, for the past that the lake keeps of them: whole estimates of one area each.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int8Type, Int32Type, SchemaRef};
use arrow::error::ArrowError;
use flexmeter_model::EventTime;
use flexmeter_model::outcome::AreaEstimate;

use crate::encoder::{RowEncoder, batch_schema, int};
use crate::grid::{QUALITY, STATE};

/// Encodes the states of all nodes of estimates.
#[derive(Debug)]
pub struct StateEncoder {
    schema: SchemaRef,
    estimates: Vec<Arc<AreaEstimate>>,
    n_rows: usize,
}

impl Default for StateEncoder {
    fn default() -> Self {
        let dictionaries = [("area", DataType::Int32), ("phase", DataType::Int8), ("quantity", DataType::Int8)];
        Self {
            schema: batch_schema(&STATE, &dictionaries),
            estimates: Vec::new(),
            n_rows: 0,
        }
    }
}

impl StateEncoder {
    /// Adds all rows of an estimate.
    pub fn push(&mut self, estimate: &Arc<AreaEstimate>) {
        self.n_rows += estimate.rows().count();
        self.estimates.push(estimate.clone());
    }
}

impl RowEncoder for StateEncoder {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let estimates = std::mem::take(&mut self.estimates);
        let n_rows = std::mem::take(&mut self.n_rows);
        let mut areas = StringDictionaryBuilder::<Int32Type>::new();
        let mut phases = StringDictionaryBuilder::<Int8Type>::new();
        let mut quantities = StringDictionaryBuilder::<Int8Type>::new();
        let mut nodes = Vec::with_capacity(n_rows);
        let (mut values, mut sigmas) = (Vec::with_capacity(n_rows), Vec::with_capacity(n_rows));
        let mut times = Vec::with_capacity(n_rows);
        for row in estimates.iter().flat_map(|estimate| estimate.rows()) {
            areas.append(&*row.area)?;
            phases.append(row.phase.as_str())?;
            quantities.append(row.quantity.as_str())?;
            nodes.push(row.node_id);
            values.push(row.value);
            sigmas.push(row.sigma);
            times.push(heard_at(row.event_time));
        }
        RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                Arc::new(areas.finish()),
                Arc::new(Int64Array::from(nodes)),
                Arc::new(phases.finish()),
                Arc::new(quantities.finish()),
                Arc::new(Float64Array::from(values)),
                Arc::new(Float64Array::from(sigmas)),
                moments(times),
            ],
        )
    }
}

/// Encodes how far estimates can be trusted.
#[derive(Debug)]
pub struct QualityEncoder {
    schema: SchemaRef,
    estimates: Vec<Arc<AreaEstimate>>,
}

impl Default for QualityEncoder {
    fn default() -> Self {
        Self {
            schema: batch_schema(&QUALITY, &[]),
            estimates: Vec::new(),
        }
    }
}

impl QualityEncoder {
    /// Adds the row of an estimate.
    pub fn push(&mut self, estimate: &Arc<AreaEstimate>) {
        self.estimates.push(estimate.clone());
    }
}

impl RowEncoder for QualityEncoder {
    fn n_rows(&self) -> usize {
        self.estimates.len()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let estimates = std::mem::take(&mut self.estimates);
        let rows = || estimates.iter().map(|estimate| &estimate.quality);
        let longs = |value: fn(&flexmeter_model::outcome::GridQuality) -> u32| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows().map(|row| i64::from(value(row)))))
        };
        RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                Arc::new(StringArray::from_iter_values(estimates.iter().map(|estimate| &*estimate.area))),
                Arc::new(Int32Array::from_iter_values(rows().map(|row| int(row.level)))),
                Arc::new(Float64Array::from_iter_values(rows().map(|row| row.j))),
                longs(|row| row.degrees_of_freedom),
                Arc::new(StringArray::from_iter_values(rows().map(|row| suspects_json(&row.suspects)))),
                Arc::new(rows().map(|row| Some(row.observable)).collect::<BooleanArray>()),
                longs(|row| row.n_measurements),
                longs(|row| row.n_pseudo),
                Arc::new(rows().map(|row| row.problem.as_deref()).collect::<StringArray>()),
                moments(estimates.iter().map(|estimate| heard_at(estimate.event_time)).collect()),
            ],
        )
    }
}

/// The suspects of an estimate as a JSON array.
#[must_use]
pub fn suspects_json(suspects: &[String]) -> String {
    serde_json::Value::from(suspects).to_string()
}

/// When the newest reading of an estimate was measured; none can have the time zero, which is where the engine begins.
fn heard_at(time: EventTime) -> Option<i64> {
    Some(time.micros()).filter(|&micros| micros > 0)
}

fn moments(micros: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array as _, AsArray as _};
    use arrow::datatypes::Float64Type;
    use flexmeter_model::TenantId;
    use flexmeter_model::outcome::{GridQuality, NodeState};

    fn estimate(event_us: i64) -> Arc<AreaEstimate> {
        let state = NodeState {
            energised: true,
            value: [[230.0, 231.0, 232.0], [0.1; 3], [500.0; 3], [50.0; 3]],
            sigma: [[0.5; 3]; 4],
        };
        Arc::new(AreaEstimate {
            tenant: TenantId::new("t").unwrap(),
            area: "mv1/lv1".into(),
            nodes: vec![7, 8].into(),
            three_phase: true,
            states: vec![state; 2],
            quality: GridQuality {
                level: 2,
                j: 3.5,
                degrees_of_freedom: 4,
                suspects: vec!["m-1".to_owned(), "m-2".to_owned()],
                observable: true,
                n_measurements: 9,
                n_pseudo: 1,
                problem: None,
            },
            event_time: EventTime::from_micros(event_us),
        })
    }

    #[test]
    fn an_estimate_is_a_row_for_each_node_quantity_and_phase() {
        let mut encoder = StateEncoder::default();
        encoder.push(&estimate(5));
        encoder.push(&estimate(0));
        assert_eq!(encoder.n_rows(), 2 * 24);
        let batch = encoder.finish().unwrap();
        assert_eq!((batch.num_rows(), encoder.n_rows()), (48, 0));
        assert_eq!(batch.schema().fields().len(), STATE.file_columns().count());
        assert_eq!(batch.column(4).as_primitive::<Float64Type>().value(1), 231.0);
        assert_eq!(batch.column(6).null_count(), 24, "an estimate without readings has no time");
    }

    #[test]
    fn its_quality_is_one_row() {
        let mut encoder = QualityEncoder::default();
        encoder.push(&estimate(5));
        let batch = encoder.finish().unwrap();
        assert_eq!(batch.num_rows(), 1);
        assert_eq!(batch.column(4).as_string::<i32>().value(0), r#"["m-1","m-2"]"#);
    }
}
