//! Outages: which device failed, from last gasps, restorations, signs of life and silence.
//!
//! Facts about metering points go in ([`OutageMonitor::apply`]), together with how the grid is supplied now ([`SupplyMap`]); outages
//! with a life cycle come out ([`OutageMonitor::take_changes`]). Time is log time and comes with the facts. Nothing here draws a random
//! number or reads a clock, weights are integers and every answer depends on the facts alone, not on the order of those that
//! arrive in one evaluation slot.
//!
//! Start reading in `sections` (what can be told apart), then `inference` (the exact most probable set of failed devices), then
//! `monitor` (what becomes of it over time). The model is in `docs/algorithms/outages.md`.

mod comparison;
mod decisions;
mod evidence;
mod inference;
mod life_cycle;
mod monitor;
mod probabilities;
mod record;
mod reliability;
mod sections;
pub mod simulation;
mod state;
mod supply;

pub use evidence::Fact;
pub use inference::{Inference, PointState, Suspect};
pub use monitor::{MonitorSettings, OutageMonitor, SLOT_US};
pub use probabilities::Probabilities;
pub use record::{Change, CloseReason, Interruption, Outage, OutageId};
pub use reliability::{Indices, SUSTAINED_US, Tally};
pub use sections::{Device, Sections};
pub use state::MonitorState;
pub use supply::{GridBranch, MeteringPoint, PointId, SuppliedNode, SupplyMap};

/// Microseconds, of event time or log time.
pub type Micros = i64;

/// One second in microseconds.
pub const SECOND_US: Micros = 1_000_000;
