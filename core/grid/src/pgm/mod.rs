//! Power-grid-model's JSON datasets: read as input and update, written as output.
//!
//! The format is that of the LF Energy project power-grid-model, version 1.0 ("Serialization format specification" in its
//! documentation): `{"version", "type", "is_batch", "attributes", "data"}`, components as objects or as rows of predefined
//! attributes, SI units, `null` or absence for "no value", `"inf"` for infinity.

mod dataset;
mod input;
mod output;

mod update;

pub use dataset::{Dataset, DatasetKind};
pub use output::{Tables, estimate_tables, output_dataset, power_flow_tables};
pub use update::Touched;
