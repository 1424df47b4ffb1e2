//! The counter: where answers are handed out. The SQL catalog, live views, Flight SQL and REST.
//!
//! This room never sees timely, Kafka or the MQTT broker. It is fed with [`flexmeter_model::outcome::ClosedEpoch`]s (see [`live`]) and,
//! through [`catalog::HistorySource`], with DataFusion table providers of the lake by `src`. Start reading at [`session::SqlService`]:
//! one SQL statement of one principal goes in, a stream of record batches comes out. [`flight`] and [`rest`] are its two doors.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod auth;
pub mod catalog;
pub mod flight;
pub mod live;
pub mod rest;
pub mod session;
