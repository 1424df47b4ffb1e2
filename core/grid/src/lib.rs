//! The grid engine: power flow and state estimation of distribution grids, radial or weakly meshed, symmetric or three-phase, and
//! which switches to move so that a radial one loses less.
//!
//! It is handed a [`network::Network`] (from a power-grid-model dataset or a grid bundle) and numbers, and gives numbers back. It
//! never reads a file, looks at a clock or starts a thread, and draws random numbers only from a seed it is given: the same input
//! gives the same answer.
//!
//! Start reading in `elimination` (why leaves go first), then `power_flow`; `docs/algorithms/` has the equations.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(clippy::needless_range_loop, reason = "formulas over phases and rows are read with their indices")]
#![allow(clippy::neg_cmp_op_on_partial_ord, reason = "what is not a number must not pass as small enough")]

mod admittance;
pub mod areas;
pub mod bundle;
mod elimination;
pub mod error;
pub mod estimation;
pub mod fault;
mod flows;
mod model;
pub mod network;
pub mod outage;
pub mod pgm;
pub mod power_flow;
mod random;
pub mod reconfiguration;
pub mod simulation;
pub mod topology;

pub use error::GridError;
pub use flows::BranchFlow;
pub use model::BASE_POWER_VA;
pub use nalgebra::Complex;
