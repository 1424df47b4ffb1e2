//! The embedded broker: MQTT 3.1, 3.1.1 and 5 on one port, TLS on a second one if configured.
//!
//! rmqtt runs the protocol. It installs no signal handler, logger or exporter of its own here (those belong to its own binary and to
//! features we leave off), and keeps nothing in globals, so several brokers live side by side in one process.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rmqtt::codec::types::Publish as PublishPacket;
use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::server::MqttServer;
use rmqtt::session::SessionState;
use rmqtt::types::{From as Sender, Id, Message, Publish, QoS};
use tokio::task::JoinHandle;

use super::config::{
    CLIENT_ID_LEN_MAX, HANDSHAKE_WAIT, HANDSHAKES_MAX, MqttConfig, MqttError, PACKET_LEN_MAX, SEND_WAIT, STOP_WAIT, SUBSCRIPTIONS_MAX,
    TOPIC_LEVELS_MAX,
};
use super::gate::Gate;
use super::login::Logins;
use super::retained::Retained;
use super::shared_subscriptions::InTurns;
use super::topic::Topic;
use crate::log::InboundLog;

/// Pending connections the system keeps for us.
const BACKLOG: i32 = 4_096;
/// rmqtt's name of a listener; any two different numbers.
const PLAIN_LISTENER: u16 = 1;
const TLS_LISTENER: u16 = 2;

/// How hard the broker tries to deliver a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Once or not at all.
    AtMostOnce,
    /// Until the subscriber acknowledges.
    AtLeastOnce,
    /// Exactly once, in four packets.
    ExactlyOnce,
}

impl From<Qos> for QoS {
    fn from(qos: Qos) -> Self {
        match qos {
            Qos::AtMostOnce => Self::AtMostOnce,
            Qos::AtLeastOnce => Self::AtLeastOnce,
            Qos::ExactlyOnce => Self::ExactlyOnce,
        }
    }
}

/// A running broker. Dropping it closes its listeners; [`Broker::stop`] also ends its sessions in good order.
pub struct Broker {
    context: ServerContext,
    gate: Arc<Gate>,
    local_addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl Broker {
    /// Binds the listeners, then accepts. Metrics go to the recorder that is installed at this moment.
    ///
    /// # Errors
    /// [`MqttError`] when the configuration is not safe, the certificate unusable or the address taken.
    pub async fn start(config: MqttConfig, log: Arc<dyn InboundLog>, logins: Logins) -> Result<Self, MqttError> {
        config.validate(logins.is_insecure())?;
        let tenants = config.tenant_ids()?;
        let (plain, local_addr) = bind(&config, config.listen)?;
        let mut listeners = vec![(PLAIN_LISTENER, plain)];
        let mut tls_addr = None;
        if let Some(addr) = config.tls_listen {
            let (listener, addr) = bind_tls(&config, addr)?;
            listeners.push((TLS_LISTENER, listener));
            tls_addr = Some(addr);
        }

        let max_sessions = isize::try_from(config.max_connections).unwrap_or(isize::MAX);
        // rmqtt's own overload check refuses clients by the machine's load average; our brake is the log.
        let context = ServerContext::new()
            .busy_check_enable(false)
            .mqtt_max_sessions(max_sessions)
            .build()
            .await;
        *context.extends.retain_mut().await = Box::new(Retained::default());
        *context.extends.shared_subscription_mut().await = Box::new(InTurns::default());
        let gate = Gate::new(logins, tenants, log);
        gate.install(&context).await;
        let server = listeners
            .into_iter()
            .fold(MqttServer::new(context.clone()), |server, (id, listener)| {
                server.listener_by_id(listener, id)
            });
        let server = server.build();
        let accepting = tokio::spawn(async move {
            if let Err(error) = server.run().await {
                tracing::error!(%error, "the MQTT listener ended");
            }
        });
        tracing::info!(%local_addr, ?tls_addr, "MQTT broker listens");
        Ok(Self {
            context,
            gate,
            local_addr,
            tls_addr,
            accepting,
        })
    }

    /// Address of the plain listener.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Address of the TLS listener, if there is one.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Clients connected now.
    #[must_use]
    pub fn n_connections(&self) -> usize {
        usize::try_from(self.context.connections.count()).unwrap_or(0)
    }

    /// Publishes a message of the platform (a command, a result) to its subscribers.
    ///
    /// # Errors
    /// [`MqttError::Publish`] when the topic is not one of the platform's, or there is no room for another retained message.
    pub async fn publish(&self, topic: &str, payload: Bytes, retain: bool, qos: Qos) -> Result<(), MqttError> {
        let failed = |reason: String| MqttError::Publish {
            topic: topic.to_owned(),
            reason,
        };
        if !matches!(Topic::parse(topic), Topic::Commands { .. } | Topic::Grid { .. }) {
            return Err(failed("it is no command or grid topic".to_owned()));
        }
        let topic = topic.into();
        let packet = PublishPacket {
            dup: false,
            retain,
            qos: qos.into(),
            topic,
            packet_id: None,
            payload,
            properties: None,
        };
        let packet = Publish::from(packet).create_time(rmqtt::utils::timestamp_millis());
        let sender = Sender::from_system(Id::from(self.context.node.id(), "flexmeter".into()));
        let expiry = retain.then_some(Duration::ZERO);
        SessionState::forwards(&self.context, sender, packet, false, expiry)
            .await
            .map_err(|error| failed(error.to_string()))
    }

    /// Stops accepting, refuses what comes in, lets running appends finish and acknowledge, ends the sessions. Wills are not
    /// published: a broker that stops is no device that failed.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // Aborted, so an error; awaited, so that the port is free when this returns.
        let _ = (&mut self.accepting).await;
        self.gate.close();
        // Collected first: the iterator locks the map that `tx` reads.
        let sessions: Vec<_> = self.context.extends.shared().await.iter().collect();
        let mut ended = Vec::new();
        for session in sessions {
            let (done, is_done) = tokio::sync::oneshot::channel();
            let kick = Message::Kick(done, session.id(), true, true);
            if session.tx().is_some_and(|session| session.unbounded_send(kick).is_ok()) {
                ended.push(is_done);
            }
        }
        let n_sessions = ended.len();
        // A session answers after the publish it is working on.
        if tokio::time::timeout(STOP_WAIT, futures::future::join_all(ended)).await.is_err() {
            tracing::warn!(
                n_sessions,
                "some MQTT sessions did not end in time; their last publishes are not acknowledged"
            );
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.accepting.abort();
        self.gate.close();
    }
}

fn builder(config: &MqttConfig, addr: SocketAddr) -> Builder {
    let session_expiry = Duration::from_secs(config.session_expiry_s);
    Builder::new()
        .name("flexmeter")
        .laddr(addr)
        .backlog(BACKLOG)
        .nodelay(true)
        .reuseaddr(Some(true))
        // `false` also sends clients without a user name through our check; insecure mode lets them pass there.
        .allow_anonymous(false)
        .max_connections(config.max_connections)
        .max_handshaking_limit(HANDSHAKES_MAX)
        .handshake_timeout(HANDSHAKE_WAIT)
        .send_timeout(SEND_WAIT)
        .max_packet_size(PACKET_LEN_MAX)
        .max_clientid_len(CLIENT_ID_LEN_MAX)
        .max_topic_levels(TOPIC_LEVELS_MAX)
        .max_subscriptions(SUBSCRIPTIONS_MAX)
        .max_inflight(NonZeroU16::new(config.max_inflight).unwrap_or(NonZeroU16::MIN))
        .max_mqueue_len(config.max_queue_len)
        .session_expiry_interval(session_expiry)
        .max_session_expiry_interval(session_expiry)
        // Zero is "never": a retained result or a waiting command does not grow old by itself.
        .message_expiry_interval(Duration::ZERO)
}

fn bind(config: &MqttConfig, addr: SocketAddr) -> Result<(Listener, SocketAddr), MqttError> {
    let failed = |error: rmqtt::Error| MqttError::Bind {
        addr,
        reason: error.to_string(),
    };
    let listener = builder(config, addr).bind().and_then(Listener::tcp).map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}

fn bind_tls(config: &MqttConfig, addr: SocketAddr) -> Result<(Listener, SocketAddr), MqttError> {
    let cert_file = config
        .tls_cert_file
        .as_deref()
        .ok_or(MqttError::TlsFileMissing { key: "tls_cert_file" })?;
    let key_file = config
        .tls_key_file
        .as_deref()
        .ok_or(MqttError::TlsFileMissing { key: "tls_key_file" })?;
    let text = |path: &Path| Some(path.display().to_string());
    let bound = builder(config, addr).tls_cert(text(cert_file)).tls_key(text(key_file)).bind();
    let bound = bound.map_err(|error| MqttError::Bind {
        addr,
        reason: error.to_string(),
    })?;
    let tls = |error: rmqtt::Error| MqttError::Tls {
        cert_file: cert_file.into(),
        key_file: key_file.into(),
        reason: format!("{error:#}"),
    };
    let listener = bound.tls().map_err(tls)?;
    let local_addr = listener.local_addr().map_err(|error| MqttError::Bind {
        addr,
        reason: error.to_string(),
    })?;
    Ok((listener, local_addr))
}
