//! State estimation on the street: readings of meters become the estimated state of exactly the areas they touch.
//!
//! [`mod@meters`] follows meters and switches beside the other views, by partition, and writes to their areas. Mail is exchanged to the worker
//! of the area (hash of tenant and path), where [`mod@levels`] holds the areas and runs their levels in a loop within each epoch. [`area`] is
//! one area without any dataflow; [`reading`] says what a reading is worth. `docs/algorithms/three-level-estimation.md` has it all in one.

pub(crate) mod area;
mod beside;
pub(crate) mod levels;
pub(crate) mod mail;
pub(crate) mod meters;
mod reading;
mod settings;
mod statistics;
mod tenant;

pub(crate) use beside::Beside;
pub(crate) use levels::{GridPart, levels};
pub(crate) use mail::GridId as GridNumber;
pub(crate) use meters::{Grids, Meters, meters, seed};
pub use settings::EstimationConfig;
pub(crate) use tenant::Role;
pub use tenant::{Grid, LEVELS_MAX};
