//! Data files: rows of one day as Parquet, with the statistics that let readers skip the file.
//!
//! Column encodings follow measured bytes a row; the figures are in docs/adr/0009-lake-file-shape.md.

use arrow::array::{Array, Float64Array, RecordBatch};
use bytes::Bytes;
use flexmeter_model::EventTime;
use flexmeter_tables::{ColumnType, TableDef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

/// Rows of a row group. Readers skip and share work by row group.
const ROW_GROUP_ROWS_MAX: usize = 1024 * 1024;

/// Largest dictionary of a column chunk, in bytes; a column with more distinct values goes on in its other encoding.
const DICTIONARY_BYTES_MAX: usize = 1024 * 1024;

/// Values looked at to choose the encoding of a column of doubles.
const FLOAT_SAMPLE_ROWS: usize = 4096;

/// Readings with at most four decimals count as rounded.
const ROUNDED_TO: f64 = 10_000.0;

/// Text columns that queries filter by, so that their smallest and largest word are worth keeping for each file.
const FILTERED_TEXT: [&str; 5] = ["hardware_id", "identifier", "reason", "type", "level"];

/// What the values of a column of doubles look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatShape {
    /// At most four decimals, as meters send them: few distinct values, dictionaries are smallest.
    Rounded,
    /// All bits in use: dictionaries only cost, byte streams compress best.
    FullPrecision,
}

impl FloatShape {
    /// Judges by a sample spread over the batches.
    #[must_use]
    pub fn of<'a>(columns: impl ExactSizeIterator<Item = &'a Float64Array>) -> Self {
        let each = (FLOAT_SAMPLE_ROWS / columns.len().max(1)).max(1);
        let (mut n_rounded, mut n) = (0, 0);
        for column in columns {
            let step = (column.len() / each).max(1);
            for value in column.values().iter().step_by(step) {
                // the nearest double of k/10000 is what a reading with four decimals (0.1 W in kW) decodes to
                n_rounded += usize::from((value * ROUNDED_TO).round() / ROUNDED_TO == *value);
                n += 1;
            }
        }
        if n_rounded * 10 >= n * 9 {
            Self::Rounded
        } else {
            Self::FullPrecision
        }
    }
}

/// The shape a column of doubles usually has, where there is no time to look: means of rounded readings are not round.
pub(super) fn usual_shape(column: &str) -> FloatShape {
    if column == "mean" {
        FloatShape::FullPrecision
    } else {
        FloatShape::Rounded
    }
}

/// How a table's files are written. `shape` tells the shape of a column of doubles, by name.
#[must_use]
pub fn writer_properties(table: &TableDef, zstd_level: i32, shape: impl Fn(&str) -> FloatShape) -> WriterProperties {
    let level = ZstdLevel::try_new(zstd_level).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("flexmeter ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in table.file_columns() {
        let path = ColumnPath::from(column.name);
        let (dictionary, encoding) = match column.column_type {
            ColumnType::Text => (true, Encoding::DELTA_LENGTH_BYTE_ARRAY),
            // a message's readings share their time: zstd finds equal eights of bytes better than it finds packed differences
            ColumnType::Time if column.name == "event_time" => (false, Encoding::PLAIN),
            ColumnType::Time | ColumnType::Long | ColumnType::Int | ColumnType::Date => (false, Encoding::DELTA_BINARY_PACKED),
            ColumnType::Float => match shape(column.name) {
                FloatShape::Rounded => (true, Encoding::PLAIN),
                FloatShape::FullPrecision => (false, Encoding::BYTE_STREAM_SPLIT),
            },
            ColumnType::Bool => (false, Encoding::RLE),
        };
        properties = properties
            .set_column_dictionary_enabled(path.clone(), dictionary)
            .set_column_encoding(path, encoding);
    }
    properties.build()
}

/// A data file, ready to be stored.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) bytes: Bytes,
    pub(super) n_rows: usize,
    /// Delta's `stats` text.
    pub(super) stats: String,
}

/// Encodes batches of one day as one file.
pub(super) fn encode(table: &TableDef, batches: &[RecordBatch], zstd_level: i32) -> Result<DataFile, ParquetError> {
    let Some(first) = batches.first() else {
        return Err(ParquetError::General("a data file needs rows".to_owned()));
    };
    let shape = |name: &str| {
        let columns: Vec<_> = batches
            .iter()
            .filter_map(|batch| batch.column_by_name(name)?.as_any().downcast_ref::<Float64Array>())
            .collect();
        FloatShape::of(columns.into_iter())
    };
    // the Arrow schema stays out of the file: dictionaries are how we hold rows in memory, readers shall see plain text
    let options = ArrowWriterOptions::new()
        .with_properties(writer_properties(table, zstd_level, shape))
        .with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, first.schema(), options)?;
    for batch in batches {
        writer.write(batch)?;
    }
    let metadata = writer.close()?;
    let stats = stats(table, &metadata);
    Ok(DataFile {
        bytes: bytes.into(),
        n_rows: batches.iter().map(RecordBatch::num_rows).sum(),
        stats,
    })
}

/// Delta's per-file statistics: number of rows, smallest and largest value and number of nulls of the columns queries filter by.
fn stats(table: &TableDef, metadata: &ParquetMetaData) -> String {
    let (mut min_values, mut max_values, mut null_count) = (Map::new(), Map::new(), Map::new());
    for (index, column) in table.file_columns().enumerate() {
        if column.column_type == ColumnType::Text && !FILTERED_TEXT.contains(&column.name) {
            continue;
        }
        let chunks: Option<Vec<&Statistics>> = metadata.row_groups().iter().map(|group| group.column(index).statistics()).collect();
        let Some(chunks) = chunks else { continue };
        if let Some(nulls) = chunks.iter().map(|chunk| chunk.null_count_opt()).sum::<Option<u64>>() {
            null_count.insert(column.name.to_owned(), nulls.into());
        }
        if let Some((min, max)) = bounds(column.column_type, &chunks) {
            min_values.insert(column.name.to_owned(), min);
            max_values.insert(column.name.to_owned(), max);
        }
    }
    let n_rows = metadata.file_metadata().num_rows();
    json!({"numRecords": n_rows, "minValues": min_values, "maxValues": max_values, "nullCount": null_count}).to_string()
}

fn bounds(column_type: ColumnType, chunks: &[&Statistics]) -> Option<(Value, Value)> {
    let (mut low, mut high): (Option<Bound>, Option<Bound>) = (None, None);
    for chunk in chunks {
        // a chunk of nulls only has no bounds and narrows nothing
        let Some((chunk_low, chunk_high)) = chunk_bounds(chunk)? else {
            continue;
        };
        low = Some(match low {
            Some(low) if low <= chunk_low => low,
            _ => chunk_low,
        });
        high = Some(match high {
            Some(high) if high >= chunk_high => high,
            _ => chunk_high,
        });
    }
    Some((low?.json(column_type, false), high?.json(column_type, true)))
}

#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Long(i64),
    Float(f64),
    Text(String),
}

/// The bounds of one chunk; the outer `None` means that they cannot be used at all.
fn chunk_bounds(chunk: &Statistics) -> Option<Option<(Bound, Bound)>> {
    let pair = match chunk {
        Statistics::Int32(s) => s
            .min_opt()
            .zip(s.max_opt())
            .map(|(min, max)| (Bound::Long((*min).into()), Bound::Long((*max).into()))),
        Statistics::Int64(s) => s
            .min_opt()
            .zip(s.max_opt())
            .map(|(min, max)| (Bound::Long(*min), Bound::Long(*max))),
        Statistics::Double(s) => s
            .min_opt()
            .zip(s.max_opt())
            .map(|(min, max)| (Bound::Float(*min), Bound::Float(*max))),
        Statistics::ByteArray(s) => match s.min_opt().zip(s.max_opt()) {
            Some((min, max)) => Some((
                Bound::Text(min.as_utf8().ok()?.to_owned()),
                Bound::Text(max.as_utf8().ok()?.to_owned()),
            )),
            None => None,
        },
        _ => return None,
    };
    Some(pair)
}

impl Bound {
    /// As Delta writes it. Times have milliseconds there: the lower bound is rounded down and the upper one up.
    fn json(self, column_type: ColumnType, upper: bool) -> Value {
        match (self, column_type) {
            (Self::Long(micros), ColumnType::Time) => {
                let millis = micros.div_euclid(1000) + i64::from(upper && micros.rem_euclid(1000) != 0);
                EventTime::from_micros(millis * 1000).to_string().into()
            }
            (Self::Long(value), _) => value.into(),
            (Self::Float(value), _) => value.into(),
            (Self::Text(value), _) => value.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexmeter_tables::{load_profile, measurements, rejections};

    fn check(table: &TableDef, column: &str, shape: FloatShape, expected: (bool, Encoding)) {
        let properties = writer_properties(table, 1, |_| shape);
        let path = ColumnPath::from(column);
        assert_eq!(
            (properties.dictionary_enabled(&path), properties.encoding(&path)),
            (expected.0, Some(expected.1)),
            "{column}"
        );
        assert_eq!(
            properties.compression(&path),
            Compression::ZSTD(ZstdLevel::try_new(1).unwrap()),
            "{column}"
        );
    }

    /// The choice of docs/adr/0009-lake-file-shape.md; change it there too, with figures.
    #[test]
    fn column_encodings_are_those_that_were_measured_smallest() {
        use FloatShape::{FullPrecision, Rounded};
        let table = &measurements::TABLE;
        for name in ["hardware_id", "identifier", "unit", "quality"] {
            check(table, name, Rounded, (true, Encoding::DELTA_LENGTH_BYTE_ARRAY));
        }
        check(table, "event_time", Rounded, (false, Encoding::PLAIN));
        for name in ["received_at", "log_partition", "log_offset"] {
            check(table, name, Rounded, (false, Encoding::DELTA_BINARY_PACKED));
        }
        check(table, "value", Rounded, (true, Encoding::PLAIN));
        check(table, "value", FullPrecision, (false, Encoding::BYTE_STREAM_SPLIT));
        check(&load_profile::TABLE, "mean", FullPrecision, (false, Encoding::BYTE_STREAM_SPLIT));
        check(&rejections::TABLE, "payload", Rounded, (true, Encoding::DELTA_LENGTH_BYTE_ARRAY));
    }

    #[test]
    fn readings_with_few_decimals_are_recognised() {
        let shape = |value: fn(f64) -> f64| {
            let column = Float64Array::from_iter_values((0..10_000).map(|i| value(f64::from(i))));
            FloatShape::of([&column].into_iter())
        };
        assert_eq!(shape(|i| (23_000.0 + i) / 100.0), FloatShape::Rounded);
        assert_eq!(shape(|i| (15_000.0 + i) / 10_000.0), FloatShape::Rounded);
        assert_eq!(shape(|i| -i), FloatShape::Rounded);
        assert_eq!(shape(|i| (i + 1.0).sqrt().sin()), FloatShape::FullPrecision);
    }

    #[test]
    fn a_file_of_many_row_groups_has_the_bounds_of_all() {
        let values: Vec<f64> = (0..ROW_GROUP_ROWS_MAX + 10).map(|i| i as f64).collect();
        let n = values.len();
        let columns = flexmeter_tables::latest::TABLE;
        let text = |word: &str| std::sync::Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n(word, n))) as _;
        let times = arrow::array::TimestampMicrosecondArray::from_iter_values((0..n as i64).map(|i| i * 1000)).with_timezone("UTC");
        let arrays = vec![
            text("m"),
            text("i"),
            std::sync::Arc::new(Float64Array::from(values)) as _,
            text("V"),
            std::sync::Arc::new(times) as _,
        ];
        let batch = RecordBatch::try_new(columns.schema(), arrays).unwrap();
        let file = encode(&columns, &[batch], 1).unwrap();
        let stats: Value = serde_json::from_str(&file.stats).unwrap();
        assert_eq!(stats["numRecords"], n);
        assert_eq!(
            (&stats["minValues"]["value"], &stats["maxValues"]["value"]),
            (&0.0.into(), &((n - 1) as f64).into())
        );
        assert_eq!(
            stats["maxValues"]["event_time"],
            EventTime::from_micros((n as i64 - 1) * 1000).to_string()
        );
    }
}
