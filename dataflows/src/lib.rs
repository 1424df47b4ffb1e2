//! The street: log records go in, epoch by epoch; accepted rows, rejected rows and changes of every view come out.
//!
//! This room holds the timely and differential wiring and the state of the views. It never sees tokio, Kafka, Arrow, files or a
//! clock: time comes in with the records (log time is the newest append time seen so far), so a replay of the same log gives the
//! same answers, however it is cut into epochs and however many workers share it.
//!
//! Start reading at [`street`] (the whole dataflow on one screen), then at one operator: [`decode`], [`dedupe`], [`latest`],
//! [`load_profile`], [`totals`], [`mod@grid`], [`outages`]. [`engine`] is the handle that the binary holds: it starts the workers, feeds them, takes
//! checkpoints and turns a worker's death into an error.
//!
//! A device lives on one log partition and a partition on one worker, so nothing is exchanged between workers on the hot path but what a
//! grid needs to know of its meters; all state is organised by partition, so a checkpoint can be restored with another number of workers. What
//! belongs to a whole grid is in the home partition of its tenant: that of the platform's own device.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod batch;
mod checkpoint;
mod close;
mod config;
mod decode;
mod dedupe;
mod devices;
mod engine;
mod error;
mod faults;
mod grid;
mod identities;
mod judge;
mod latest;
mod load_profile;
pub mod outages;
mod partition;
mod profile_cell;
mod reconfiguration;
mod street;
mod totals;
mod worker;

pub use checkpoint::CheckpointError;
pub use config::{EPOCHS_IN_FLIGHT_MAX, EngineConfig, TICK_US, UnknownDevices, WINDOW_US};
pub use engine::{Engine, PartitionSnapshot};
pub use error::EngineError;
pub use grid::{EstimationConfig, Grid, LEVELS_MAX};
pub use reconfiguration::ReconfigurationConfig;
