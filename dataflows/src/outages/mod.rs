//! Outages: alarms and signs of life, joined with how the grid is supplied now.
//!
//! ```text
//! branches, switch positions, sources ─► supply (iterate) ─► supply rows ─┐
//! points, unmetered customers ────────────────────────────────────────────┼─► detect ─► outages, interruptions ─► reliability
//! facts, log time, acknowledgements ──────────────────────────────────────┘   (one monitor a grid)
//! ```
//! The topology changes rarely and its answer is a join and a fixed point: differential's work. Gasps come by the million and touch a path
//! of one tree each: they go to one operator that keeps a [`flexmeter_grid::outage::OutageMonitor`] for each grid.

mod detect;
mod reliability;
mod supply;

pub use detect::{DetectInputs, Detected, PointFact, detect};
pub use reliability::{FeederReliability, reliability};
pub use supply::{Supply, SupplyRow, SwitchPosition, TopologyInputs, deenergised, supply, supply_rows};

use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};

/// Number of a grid: it stands for a tenant and one of its grids, so it is the first field of every key.
pub type GridId = u32;

/// A collection whose times are epochs.
pub type Rows<'scope, D> = VecCollection<'scope, u64, D, isize>;

/// Customers at a node without meters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unmetered {
    /// The node's id.
    pub node: i64,
    /// How many.
    pub n_customers: u32,
}
