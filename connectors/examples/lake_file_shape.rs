//! Measures what docs/adr/0009-lake-file-shape.md decides by: bytes a row of each column under each encoding, and CPU time a row on
//! the way into the lake.
//!
//! `cargo run -p flexmeter -p flexmeter-connectors --example lake_file_shape -- RECORDING.jsonl.gz…`
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use flexmeter_connectors::lake::{FloatShape, Lake, LakeConfig, writer_properties};
use flexmeter_model::decode::{Body, Decoder};
use flexmeter_model::outcome::{ClosedEpoch, Device, MeasurementColumns, MessageHead, PartitionOutcome, Quality};
use flexmeter_model::{EventTime, HardwareId, TenantId};
use flexmeter_tables::dictionary::Vocabulary;
use flexmeter_tables::measurements::{MeasurementEncoder, TABLE};
use flexmeter_tables::{ColumnType, RowEncoder};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// Messages of an epoch in the throughput run.
const EPOCH_MESSAGES: usize = 10_000;
/// Messages of the throughput run.
const RUN_MESSAGES: usize = 500_000;
/// Commits of the growth run.
const COMMITS: usize = 300;
/// Commits a line of its table.
const COMMITS_SHOWN: usize = 50;

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    assert!(!paths.is_empty(), "usage: lake_file_shape RECORDING.jsonl.gz…");
    growth(&read(&paths[0]));
    for path in &paths {
        let columns = read(path);
        throughput(&columns);
        shape(path, &columns);
    }
}

/// The good measurements of a recording, in arrival order, as if each message arrived 150 ms after the one before.
fn read(path: &str) -> MeasurementColumns {
    let file = std::fs::File::open(path).unwrap();
    let tenant = TenantId::new("default").unwrap();
    let mut devices: HashMap<String, Arc<Device>> = HashMap::new();
    let mut columns = MeasurementColumns::default();
    let mut decoder = Decoder::new();
    let mut received_us = 0;
    for (offset, line) in BufReader::new(flate2::read::GzDecoder::new(file)).lines().enumerate() {
        let line = line.unwrap();
        let Ok(message) = decoder.decode(line.as_bytes()) else { continue };
        let (Some(event_time), Body::Measurements { good, .. }) = (message.event_date, &message.body) else {
            continue;
        };
        let index = devices.len() as u32;
        let device = devices.entry(message.hardware_id.to_string()).or_insert_with(|| {
            let hardware_id = HardwareId::new(&message.hardware_id).unwrap();
            Arc::new(Device {
                partition: 0,
                index,
                tenant: tenant.clone(),
                hardware_id,
            })
        });
        received_us = (received_us + 1_137).max(event_time.micros() + 150_000);
        columns.heads.push(MessageHead {
            device: Arc::clone(device),
            event_time,
            received_at: EventTime::from_micros(received_us),
            offset: offset as u64,
            n_values: good.len() as u32,
            quality: Quality::Good,
        });
        columns.identifiers.extend(good.iter().map(|(identifier, _)| *identifier));
        columns.values.extend(good.iter().map(|(_, value)| *value));
    }
    columns
}

fn encode(columns: &MeasurementColumns) -> RecordBatch {
    let mut encoder = MeasurementEncoder::new(&Vocabulary::new());
    for (head, identifiers, values) in columns.messages() {
        encoder.push(head, identifiers, values);
    }
    encoder.finish().unwrap()
}

fn shape(path: &str, columns: &MeasurementColumns) {
    let arrival = encode(columns);
    let sort = |name: &str| SortColumn {
        values: Arc::clone(arrival.column_by_name(name).unwrap()),
        options: None,
    };
    let order = lexsort_to_indices(&[sort("identifier"), sort("hardware_id"), sort("event_time")], None).unwrap();
    let sorted = take_record_batch(&arrival, &order).unwrap();
    println!("\n{path}: {} rows; bytes a row", arrival.num_rows());
    for (name, batch) in [("arrival order", &arrival), ("sorted by identifier, device, time", &sorted)] {
        println!("\n| {name} | encoding | zstd 1 | zstd 3 | ns a row, zstd 1 |\n|---|---|---|---|---|");
        for (index, column) in TABLE.file_columns().enumerate() {
            let other = match column.column_type {
                ColumnType::Text => Encoding::DELTA_BYTE_ARRAY,
                ColumnType::Float => Encoding::BYTE_STREAM_SPLIT,
                ColumnType::Bool => Encoding::RLE,
                _ => Encoding::DELTA_BINARY_PACKED,
            };
            let one = batch.project(&[index]).unwrap();
            for (word, dictionary, encoding) in [
                ("dictionary", true, other),
                ("plain", false, Encoding::PLAIN),
                (word(other), false, other),
            ] {
                let path = ColumnPath::from(column.name);
                let properties = |level| {
                    builder(level)
                        .set_column_dictionary_enabled(path.clone(), dictionary)
                        .set_column_encoding(path.clone(), encoding)
                        .build()
                };
                let start = Instant::now();
                let one_byte = write(&one, properties(1));
                let ns = start.elapsed().as_nanos() as f64 / one.num_rows() as f64;
                let three = write(&one, properties(3));
                println!("| {} | {word} | {:.3} | {:.3} | {ns:.0} |", column.name, one_byte, three);
            }
        }
        for level in [1, 3] {
            let start = Instant::now();
            let bytes = write(batch, writer_properties(&TABLE, level, |_| FloatShape::Rounded));
            let ns = start.elapsed().as_nanos() as f64 / batch.num_rows() as f64;
            println!("| **all, as chosen** | zstd {level} | {bytes:.3} | | {ns:.0} |");
        }
    }
}

fn word(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::BYTE_STREAM_SPLIT => "byte stream split",
        Encoding::DELTA_BYTE_ARRAY => "delta strings",
        _ => "delta",
    }
}

fn builder(level: i32) -> WriterPropertiesBuilder {
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(level).unwrap()))
}

/// Bytes a row of the column chunks, without the file's footer.
fn write(batch: &RecordBatch, properties: WriterProperties) -> f64 {
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(std::io::sink(), batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    let bytes: i64 = writer
        .close()
        .unwrap()
        .row_groups()
        .iter()
        .map(|group| group.compressed_size())
        .sum();
    bytes as f64 / batch.num_rows() as f64
}

/// The recording again and again, later each time, as epochs of one partition.
fn epochs(columns: &MeasurementColumns, n_messages: usize, messages_each: usize) -> Vec<Arc<ClosedEpoch>> {
    let lasts = columns.heads.last().unwrap().event_time.micros() - columns.heads[0].event_time.micros();
    let messages: Vec<_> = columns.messages().collect();
    let mut epochs = Vec::new();
    let mut offset = 0u64;
    while (offset as usize) < n_messages {
        let mut outcome = PartitionOutcome {
            start_offset: offset,
            ..PartitionOutcome::default()
        };
        for _ in 0..messages_each {
            let (head, identifiers, values) = messages[offset as usize % messages.len()];
            let later = offset as i64 / messages.len() as i64 * lasts;
            let mut head = head.clone();
            head.offset = offset;
            head.event_time = EventTime::from_micros(head.event_time.micros() + later);
            head.received_at = EventTime::from_micros(head.received_at.micros() + later);
            outcome.measurements.heads.push(head);
            outcome.measurements.identifiers.extend_from_slice(identifiers);
            outcome.measurements.values.extend_from_slice(values);
            offset += 1;
        }
        outcome.end_offset = offset;
        epochs.push(Arc::new(ClosedEpoch {
            partitions: vec![outcome],
            ..ClosedEpoch::default()
        }));
    }
    epochs
}

fn throughput(columns: &MeasurementColumns) {
    let epochs = epochs(columns, RUN_MESSAGES, EPOCH_MESSAGES);
    let n_rows: usize = epochs.iter().map(|epoch| epoch.partitions[0].measurements.values.len()).sum();

    let cpu = cpu_seconds();
    let mut encoder = MeasurementEncoder::new(&Vocabulary::new());
    let mut batches = Vec::new();
    for epoch in &epochs {
        for (head, identifiers, values) in epoch.partitions[0].measurements.messages() {
            encoder.push(head, identifiers, values);
        }
        batches.push(encoder.finish().unwrap());
    }
    let us = |cpu: f64| (cpu_seconds() - cpu) * 1e6 / n_rows as f64;
    println!("\nencode to batches: {:.3} CPU µs a row ({n_rows} rows)", us(cpu));
    let cpu = cpu_seconds();
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    println!("join batches: {:.3} CPU µs a row", us(cpu));
    let cpu = cpu_seconds();
    let bytes = write(&all, writer_properties(&TABLE, 1, |_| FloatShape::Rounded));
    println!("encode and compress Parquet: {:.3} CPU µs a row, {bytes:.2} bytes a row", us(cpu));

    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    runtime.block_on(async {
        let lake = Lake::open(LakeConfig::new(folder.path()), &[TenantId::new("default").unwrap()])
            .await
            .unwrap();
        for epoch in &epochs {
            lake.push(Arc::clone(epoch)).await.unwrap();
        }
        lake.flush().await.unwrap();
    });
    println!(
        "push and flush, all in all: {:.3} CPU µs a row, {:.2} s",
        us(cpu),
        start.elapsed().as_secs_f64()
    );
}

/// Whether commits get slower as the log grows.
fn growth(columns: &MeasurementColumns) {
    let epochs = epochs(columns, 1000 * COMMITS, 1000);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = LakeConfig {
            commit_s: 3600,
            ..LakeConfig::new(folder.path())
        };
        let lake = Lake::open(config, &[TenantId::new("default").unwrap()]).await.unwrap();
        println!("\n| commits of 3,000 rows | CPU ms each | wall ms each | slowest, wall ms |\n|---|---|---|---|");
        for (index, window) in epochs.chunks(COMMITS_SHOWN).enumerate() {
            let (cpu, start, mut slowest) = (cpu_seconds(), Instant::now(), 0.0f64);
            for epoch in window {
                let one = Instant::now();
                lake.push(Arc::clone(epoch)).await.unwrap();
                lake.flush().await.unwrap();
                slowest = slowest.max(one.elapsed().as_secs_f64() * 1e3);
            }
            let each = |seconds: f64| seconds * 1e3 / window.len() as f64;
            let last = (index + 1) * COMMITS_SHOWN;
            println!(
                "| to {last} | {:.1} | {:.1} | {slowest:.0} |",
                each(cpu_seconds() - cpu),
                each(start.elapsed().as_secs_f64())
            );
        }
        let (start, cpu) = (Instant::now(), cpu_seconds());
        lake.compact_now().await.unwrap();
        println!(
            "\ncompact {COMMITS} files: {:.2} s, {:.2} CPU s",
            start.elapsed().as_secs_f64(),
            cpu_seconds() - cpu
        );
    });
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
