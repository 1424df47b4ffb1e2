//! What all encoders share: rows in, one batch out, and the day a row belongs to.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use flexmeter_model::EventTime;
use flexmeter_model::time::DAY_US;
use std::sync::Arc;

use crate::definition::{ColumnType, TableDef};

/// A day, counted from 1970-01-01 (UTC): the partition of the lake a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

/// The day of a moment.
#[must_use]
pub fn day_of(time: EventTime) -> Day {
    Day(time.day())
}

impl Day {
    /// Its first moment.
    #[must_use]
    pub const fn start(self) -> EventTime {
        EventTime::from_micros(self.0 as i64 * DAY_US)
    }
}

/// Collects rows and gives them out as one batch. An encoder is used again and again: `finish` leaves it empty.
///
/// Batches have the columns of [`TableDef::file_schema`], in its order; text columns with few distinct values come as dictionaries.
/// [`to_schema`] gives them the plain types SQL shows.
pub trait RowEncoder {
    /// Rows collected so far.
    fn n_rows(&self) -> usize;

    /// The rows as a batch, in the order they came.
    ///
    /// # Errors
    /// [`ArrowError`] when columns do not fit each other, which would be a defect of the encoder.
    fn finish(&mut self) -> Result<RecordBatch, ArrowError>;
}

/// The batch's columns of these names, cast to these types.
///
/// # Errors
/// [`ArrowError`] when a column is missing or cannot be cast.
pub fn to_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = batch.column(batch.schema_ref().index_of(field.name())?);
        columns.push(if column.data_type() == field.data_type() {
            Arc::clone(column)
        } else {
            cast(column, field.data_type())?
        });
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The schema of an encoder's batches: the file schema, its text columns of few values as dictionaries with these key types.
pub(crate) fn batch_schema(table: &TableDef, dictionaries: &[(&str, DataType)]) -> SchemaRef {
    let field = |column: &crate::ColumnDef| -> Field {
        match dictionaries.iter().find(|(name, _)| *name == column.name) {
            Some((_, key)) => column.field_as(DataType::Dictionary(Box::new(key.clone()), Box::new(ColumnType::Text.arrow()))),
            None => column.field(),
        }
    };
    Arc::new(Schema::new(table.file_columns().map(field).collect::<Vec<_>>()))
}

/// A column of moments.
pub(crate) fn times(micros: Vec<i64>) -> ArrayRef {
    Arc::new(arrow::array::TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

/// An offset or count as Arrow keeps it; the log never reaches 2^63.
pub(crate) fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A partition number as Arrow keeps it.
pub(crate) fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_start_at_midnight_utc_also_before_1970() {
        for (micros, day) in [(0, 0), (DAY_US - 1, 0), (DAY_US, 1), (-1, -1)] {
            assert_eq!(day_of(EventTime::from_micros(micros)), Day(day), "{micros}");
        }
        assert_eq!(Day(3).start().micros(), 3 * DAY_US);
    }
}
