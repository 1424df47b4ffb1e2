//! Tables as bytes: JSON array of objects, CSV or an Arrow IPC stream, batch by batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::{Writer as JsonWriter, WriterBuilder, writer::JsonArray};
use bytes::Bytes;

use super::accept::Format;

/// Writes batches of one schema in one format. Whatever has been written so far is taken out with [`Encoder::take`].
pub(super) enum Encoder {
    Json(JsonWriter<Vec<u8>, JsonArray>),
    Csv {
        out: Vec<u8>,
        schema: SchemaRef,
        header_written: bool,
    },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Encoder {
    pub(super) fn new(format: Format, schema: &SchemaRef) -> Result<Self, ArrowError> {
        Ok(match format {
            Format::Json => Self::Json(WriterBuilder::new().with_explicit_nulls(true).build(Vec::new())),
            Format::Csv => Self::Csv {
                out: Vec::new(),
                schema: schema.clone(),
                header_written: false,
            },
            Format::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            Self::Json(writer) => writer.write(batch),
            Self::Csv { out, header_written, .. } => {
                let with_header = !std::mem::replace(header_written, true);
                csv::WriterBuilder::new().with_header(with_header).build(out).write(&inert(batch)?)
            }
            Self::Arrow(writer) => writer.write(batch),
        }
    }

    pub(super) fn finish(&mut self) -> Result<(), ArrowError> {
        match self {
            Self::Json(writer) => writer.finish(),
            Self::Csv {
                schema,
                header_written: false,
                ..
            } => {
                let nothing = RecordBatch::new_empty(schema.clone());
                self.write(&nothing)
            }
            Self::Csv { .. } => Ok(()),
            Self::Arrow(writer) => writer.finish(),
        }
    }

    /// Takes what was written since the last call.
    pub(super) fn take(&mut self) -> Bytes {
        let out = match self {
            Self::Json(writer) => writer.get_mut(),
            Self::Csv { out, .. } => out,
            Self::Arrow(writer) => writer.get_mut(),
        };
        Bytes::from(std::mem::take(out))
    }

    /// One batch as a whole document.
    pub(super) fn document(format: Format, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        let mut encoder = Self::new(format, &batch.schema())?;
        encoder.write(batch)?;
        encoder.finish()?;
        Ok(encoder.take())
    }
}

/// The batch with every text that a spreadsheet would run as a formula disarmed by a leading apostrophe. JSON and Arrow keep texts as
/// they are; CSV is what people open by double click.
fn inert(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if is_text(column.data_type()) {
            let texts = cast(column, &DataType::Utf8)?;
            let texts: StringArray = texts.as_string::<i32>().iter().map(|text| text.map(disarm)).collect();
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(texts));
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn disarm(text: &str) -> std::borrow::Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, TimestampMicrosecondArray};
    use arrow::datatypes::TimeUnit;
    use arrow::ipc::reader::StreamReader;

    fn table() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("hardware_id", DataType::Utf8, true),
            Field::new("event_time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
            Field::new("value", DataType::Float64, true),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(StringArray::from(vec![Some("=cmd|' /C calc'!A0"), None])),
                Arc::new(TimestampMicrosecondArray::from(vec![1_455_129_603_391_000, 0]).with_timezone("UTC")),
                Arc::new(Float64Array::from(vec![Some(-0.5), None])),
            ],
        )
        .unwrap()
    }

    fn text(format: Format, batch: &RecordBatch) -> String {
        String::from_utf8(Encoder::document(format, batch).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn json_is_an_array_of_objects_with_nulls_and_zones() {
        assert_eq!(
            text(Format::Json, &table()),
            r#"[{"hardware_id":"=cmd|' /C calc'!A0","event_time":"2016-02-10T18:40:03.391Z","value":-0.5},{"hardware_id":null,"event_time":"1970-01-01T00:00:00Z","value":null}]"#
        );
    }

    #[test]
    fn csv_runs_nothing() {
        assert_eq!(
            text(Format::Csv, &table()),
            "hardware_id,event_time,value\n'=cmd|' /C calc'!A0,2016-02-10T18:40:03.391Z,-0.5\n,1970-01-01T00:00:00Z,\n"
        );
    }

    #[test]
    fn an_empty_table_is_still_a_document() {
        let empty = table().slice(0, 0);
        assert_eq!(text(Format::Json, &empty), "[]");
        assert_eq!(text(Format::Csv, &empty), "hardware_id,event_time,value\n");
        let mut csv = Encoder::new(Format::Csv, &empty.schema()).unwrap();
        csv.finish().unwrap();
        assert_eq!(csv.take(), "hardware_id,event_time,value\n");
    }

    #[test]
    fn arrow_comes_back_as_it_was() {
        let bytes = Encoder::document(Format::Arrow, &table()).unwrap();
        let batches: Vec<_> = StreamReader::try_new(bytes.as_ref(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!(batches, vec![table()]);
    }
}
