//! The doors: where bytes enter and leave. The inbound log, the MQTT broker and client, the lake.
//!
//! This room never sees timely, DataFusion queries or axum, and its doors never import each other's internals: `src` joins them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod lake;
pub mod log;
pub mod mqtt;
pub mod simulator;
