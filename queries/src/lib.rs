//! The counter: where answers are handed out. The SQL catalog, live views, Flight SQL and REST.
//!
//! This room never sees timely, Kafka or the MQTT broker. It is fed with [`flexmeter_model::outcome::ClosedEpoch`]s and with
//! DataFusion table providers of the lake by `src`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod auth;
pub mod catalog;
pub mod flight;
pub mod live;
pub mod rest;
