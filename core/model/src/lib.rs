//! The words of Flexmeter: ids, event time, quantities, message formats, log records and outcomes.
//!
//! Everything that travels between rooms is defined here. A reading's way through this crate:
//!
//! | step | module | what it does |
//! |---|---|---|
//! | a publish arrives | [`split`] | takes a batch apart and finds each message's device, looking at brackets and strings only |
//! | it is logged | [`record`] | frames the bytes as they came, under their device, which chooses the partition |
//! | it is read | [`decode`] | one pass from bytes to a message, or to a stable reason why it is none |
//! | it is judged | [`quantity`], [`time`], [`ids`] | the 82 identifiers with units and ranges, strict ISO 8601, ids that are topic levels |
//! | it has an effect | [`outcome`] | rows to keep and changes of views, epoch by epoch |
//!
//! [`message`] is the other direction: what devices and the platform send, as owned structs that serialise.
//!
//! # What this room never does
//! No I/O, no async, no clock, no globals, no unseeded randomness, no unsafe code. It never sees Arrow, timely, Kafka or tokio. Nothing
//! that came from outside makes it panic: `fuzz/` holds a target for each of its parsers.
//!
//! # Reading a publish
//! ```
//! use flexmeter_model::decode::{Body, Decoder};
//! use flexmeter_model::split::split_payload;
//!
//! let publish = br#"[{"hardwareId":"m-1","type":"DeviceMeasurements","request":{"measurements":{"gas.volume":1.5}}},
//!                    {"hardwareId":"m-2","type":"DeviceAlert","request":{"type":"power.lastgasp","level":"Critical"}},
//!                    {"hardwareId":"m-3","type":"DeviceMeasurements","request":{"measurements":{"gas.volume":1.5}"#;
//! let mut decoder = Decoder::new();
//! let mut verdicts = Vec::new();
//! for piece in split_payload(publish) {
//!     verdicts.push(match decoder.decode(piece.bytes) {
//!         Ok(message) => match message.body {
//!             Body::Measurements { good, .. } => format!("{}: {} readings", message.hardware_id, good.len()),
//!             _ => format!("{}: something else", message.hardware_id),
//!         },
//!         Err(error) => error.reason.as_str().to_owned(),
//!     });
//! }
//! assert_eq!(verdicts, ["m-1: 1 readings", "m-2: something else", "malformed_json"]);
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod boundary;
pub mod decode;
pub mod grid_bundle;
pub mod ids;
pub mod message;
pub mod operator;
pub mod outcome;
pub mod quantity;
pub mod record;
pub mod split;
pub mod time;

pub use boundary::PublishedBoundary;
pub use grid_bundle::GridBundle;
pub use ids::{HardwareId, TenantId};
pub use quantity::Identifier;
pub use time::EventTime;
