//! Tables: what each outcome looks like in columns. Definitions (names, types, units, comments) and encoders from
//! [`flexmeter_model::outcome`] rows to Arrow batches.
//!
//! This room is pure and the only core crate that sees Arrow: no files, no network, no clock. It never writes Parquet and knows nothing
//! of Delta; it says which column is called what, so that lake, SQL catalog and documentation cannot disagree. Start with
//! [`definition::TABLES`], then any one table's file: each has its definition and its encoder side by side.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod acknowledgements;
pub mod alerts;
pub mod definition;
pub mod dictionary;
pub mod encoder;
pub mod grid;
pub mod grid_history;
pub mod latest;
pub mod load_profile;
pub mod measurements;
pub mod operation_rows;
pub mod operations;
pub mod rejections;

pub use definition::{ColumnDef, ColumnType, TABLES, TableDef, TableKind, table};
pub use encoder::{Day, RowEncoder, day_of, to_schema};
