//! The broker's settings, its limits, and what can be wrong with them.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use flexmeter_model::TenantId;
use flexmeter_model::record::PAYLOAD_LEN_MAX;
use serde::{Deserialize, Serialize};

/// Largest MQTT packet the broker reads, in bytes. It exceeds [`PAYLOAD_LEN_MAX`] so that a payload which is too large by a little
/// is kept as a `too_large` rejection that can be found in SQL; a packet above this closes the connection.
pub const PACKET_LEN_MAX: u32 = 2 * PAYLOAD_LEN_MAX as u32;
/// How much of an oversized payload is kept, in bytes.
pub const OVERSIZED_KEPT_LEN: usize = 64 * 1024;
/// Longest client id, in bytes.
pub const CLIENT_ID_LEN_MAX: usize = 256;
/// Most levels a topic or filter may have.
pub const TOPIC_LEVELS_MAX: usize = 64;
/// Most subscriptions of one session.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Handshakes worked on at the same time; further ones wait.
pub const HANDSHAKES_MAX: usize = 1_000;
/// A client has this long to finish its handshake.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// A client that takes no byte for this long is disconnected.
pub const SEND_WAIT: Duration = Duration::from_secs(10);
/// How long [`crate::mqtt::Broker::stop`] waits for running appends and sessions.
pub const STOP_WAIT: Duration = Duration::from_secs(10);
/// Most retained messages.
pub const RETAINED_MESSAGES_MAX: usize = 100_000;
/// Most bytes of retained payloads.
pub const RETAINED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The `[mqtt]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Address of the plain listener. It speaks MQTT 3.1.1 and 5. Loopback only: beyond that, use `tls_listen`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of the TLS listener; needs `tls_cert_file` and `tls_key_file`.
    pub tls_listen: Option<SocketAddr>,
    /// PEM file with the server's certificate chain.
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file with the server's private key.
    pub tls_key_file: Option<PathBuf>,
    /// Tenants whose topics exist.
    pub tenants: Vec<String>,
    /// Most sessions: connected clients and absent ones whose session is kept. A further client is told "server unavailable".
    pub max_connections: usize,
    /// Most QoS 1 and 2 messages on their way to one client at the same time.
    pub max_inflight: u16,
    /// Most messages waiting for one client; then the oldest are dropped. The engine never depends on it: it reads the log.
    pub max_queue_len: usize,
    /// How long the session of an absent client is kept, in seconds.
    pub session_expiry_s: u64,
}

/// Name of the tenant that is always there.
pub const DEFAULT_TENANT: &str = "default";

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            tls_listen: None,
            tls_cert_file: None,
            tls_key_file: None,
            tenants: vec![DEFAULT_TENANT.to_owned()],
            max_connections: 20_000,
            max_inflight: 64,
            max_queue_len: 1_000,
            session_expiry_s: 2 * 60 * 60,
        }
    }
}

impl MqttConfig {
    /// Checks what serde cannot. `insecure` is the mode of the logins.
    ///
    /// # Errors
    /// [`MqttError`] naming the key and the remedy.
    pub fn validate(&self, insecure: bool) -> Result<(), MqttError> {
        if !self.listen.ip().is_loopback() {
            return Err(MqttError::PlaintextBeyondLoopback { addr: self.listen });
        }
        if let Some(addr) = self.tls_listen {
            if insecure && !addr.ip().is_loopback() {
                return Err(MqttError::InsecureBeyondLoopback { addr });
            }
            for (key, file) in [("tls_cert_file", &self.tls_cert_file), ("tls_key_file", &self.tls_key_file)] {
                if file.is_none() {
                    return Err(MqttError::TlsFileMissing { key });
                }
            }
        }
        let limits = [
            ("max_connections", self.max_connections),
            ("max_inflight", usize::from(self.max_inflight)),
            ("max_queue_len", self.max_queue_len),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(MqttError::ZeroLimit { key });
        }
        self.tenant_ids().map(drop)
    }

    /// The tenants whose topics exist.
    pub(super) fn tenant_ids(&self) -> Result<HashSet<TenantId>, MqttError> {
        let tenant = |name: &String| {
            TenantId::new(name).map_err(|source| MqttError::Tenant {
                name: name.clone(),
                source,
            })
        };
        self.tenants.iter().map(tenant).collect()
    }
}

/// Why the broker cannot start or publish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MqttError {
    /// Without TLS, only this machine may connect.
    #[error(
        "mqtt.listen {addr} is beyond loopback without TLS; listen on 127.0.0.1, or set mqtt.tls_listen, tls_cert_file and tls_key_file"
    )]
    PlaintextBeyondLoopback {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// Insecure mode is for this machine only, TLS or not.
    #[error("mqtt.tls_listen {addr} is beyond loopback while insecure = true; turn insecure off")]
    InsecureBeyondLoopback {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// A limit of zero would refuse everything.
    #[error("mqtt.{key} must be at least 1")]
    ZeroLimit {
        /// The key.
        key: &'static str,
    },
    /// A tenant's name must be one topic level.
    #[error("mqtt.tenants: {name:?} cannot be a tenant: {source}")]
    Tenant {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: flexmeter_model::ids::IdError,
    },
    /// TLS was asked for without its files.
    #[error("mqtt.tls_listen needs mqtt.{key}")]
    TlsFileMissing {
        /// The key that is not set.
        key: &'static str,
    },
    /// The certificate or key cannot be used.
    #[error("the TLS certificate {cert_file:?} with key {key_file:?} cannot be used: {reason}")]
    Tls {
        /// Certificate chain.
        cert_file: PathBuf,
        /// Private key.
        key_file: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
    /// The address is taken or not ours.
    #[error("cannot listen on {addr} for MQTT: {reason}; choose another mqtt.listen")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// A message of the platform could not be handed to its subscribers.
    #[error("cannot publish on {topic:?}: {reason}")]
    Publish {
        /// Its topic.
        topic: String,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default_and_unknown_keys_are_errors() {
        let empty: MqttConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, MqttConfig::default());
        let wrong = serde_json::from_str::<MqttConfig>(r#"{"lisen":"127.0.0.1:1"}"#).unwrap_err();
        assert!(wrong.to_string().contains("lisen"), "{wrong}");
    }
}
