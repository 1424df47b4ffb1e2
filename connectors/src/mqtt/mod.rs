//! The MQTT doors: the embedded broker every device talks to, and a publisher pool for `replay`, `demo` and load tests.
//!
//! [`Broker`] keeps one promise: **a PUBACK means the message is in the inbound log, durably**. Everything else of this folder serves
//! that sentence:
//!
//! | file | what it decides |
//! |---|---|
//! | [`login`] | who is talking: a device, the platform's own services, or (insecure) anyone |
//! | [`topic`] | what a topic name means |
//! | [`rules`] | what that client may publish and subscribe |
//! | [`filing`] | how a payload becomes log records |
//! | `gate` | the broker's hooks: authorise, append, wait, only then allow |
//! | `claims` | nobody takes over another login's session by using its client id |
//! | `retained` | retained messages, bounded |
//! | `shared_subscriptions` | whose turn it is in a `$share` group |
//! | [`broker`] | start, publish, stop |
//! | [`publisher`] | the client side |
//!
//! rmqtt is an implementation detail of this folder: none of its types is part of the public interface.

pub mod broker;
mod claims;
pub mod config;
pub mod filing;
mod gate;
pub mod login;
pub mod publisher;
mod retained;
pub mod rules;
mod shared_subscriptions;
#[cfg(test)]
mod tests;
pub mod topic;

pub use broker::Broker;
pub use config::{MqttConfig, MqttError};
pub use login::{AdminCheck, Logins, PlatformKey, device_password};
pub use publisher::{Acked, PublishError, Publisher, PublisherConfig};
