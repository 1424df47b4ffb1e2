//! The words of Flexmeter: ids, event time, quantities, message formats, log records and outcomes.
//!
//! This room is pure: no I/O, no async, no clock, no globals, no unseeded randomness. It never sees Arrow, timely, Kafka or tokio.
//! Everything that travels between rooms is defined here, so start with [`record`] (what the log holds), then [`decode`] (what a
//! payload means) and [`outcome`] (what the engine says about it).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod decode;
pub mod ids;
pub mod message;
pub mod outcome;
pub mod quantity;
pub mod record;
pub mod split;
pub mod time;

pub use ids::{HardwareId, TenantId};
pub use quantity::Identifier;
pub use time::EventTime;
