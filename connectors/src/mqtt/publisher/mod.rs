//! A pool of MQTT 3.1.1 connections that publish at QoS 1, for `replay`, `demo` and load tests.
//!
//! A publish resolves when its PUBACK came back, so a caller can keep a ledger of what the broker promised. Messages of one device use
//! one connection and keep their order. A lost connection is made again and everything unacknowledged is sent again, in order and
//! marked as a redelivery.

mod connection;
mod wire;

use std::future::Future;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use url::Url;

use connection::{Connection, Outgoing};

/// Port of MQTT without TLS.
const DEFAULT_PORT: u16 = 1883;
/// Handshakes of the pool at the same time.
const CONNECTS_AT_ONCE: usize = 64;

/// How a pool connects.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// `mqtt://[user:password@]host[:port]`. User and password are percent-decoded.
    pub url: String,
    /// Number of connections. A broker that stores durably handles one publish of a connection after the other, so single messages
    /// need many connections; batches do with few.
    pub connections: usize,
    /// Most unacknowledged publishes of one connection; further ones wait.
    pub inflight_per_connection: usize,
    /// Client ids begin with this; a random tag of the pool and a number follow, so that pools never take over each other's sessions.
    pub client_id_prefix: String,
    /// A publish that was sent this many times, and each time the connection was lost before any answer, fails: it may be what makes the broker
    /// hang up.
    pub sends_max: u32,
}

impl PublisherConfig {
    /// Twenty connections with sixteen publishes in flight each.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 20,
            inflight_per_connection: 16,
            client_id_prefix: "flexmeter-publisher".to_owned(),
            sends_max: 8,
        }
    }
}

/// The broker has the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// When the message was first written to a connection.
    pub sent_at: Instant,
    /// When its PUBACK was read.
    pub acked_at: Instant,
}

/// Why a publish failed or a pool cannot connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The address cannot be used.
    #[error("{url:?} is no MQTT address: {reason}; write mqtt://[user:password@]host[:port]")]
    Url {
        /// What was given, without the password.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A number of zero.
    #[error("{what} must be at least 1")]
    Zero {
        /// Which.
        what: &'static str,
    },
    /// Nobody answers.
    #[error("cannot connect to {address}: {reason}; is the broker running?")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The broker does not let us in.
    #[error("{address} refused the login with MQTT return code {code} ({})", return_code(*.code))]
    Refused {
        /// Host and port.
        address: String,
        /// MQTT 3.1.1 CONNACK return code.
        code: u8,
    },
    /// Each connection that carried this message was lost.
    #[error("sent {sends} times, the connection was lost each time; is publishing on {topic:?} allowed?")]
    NotAcknowledged {
        /// Its topic.
        topic: String,
        /// How often it was sent.
        sends: u32,
    },
    /// The pool was closed.
    #[error("the publisher is closed")]
    Closed,
}

fn return_code(code: u8) -> &'static str {
    match code {
        1 => "protocol version not supported",
        2 => "client id refused",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 => "not authorized",
        _ => "unknown",
    }
}

/// Where and as whom to connect.
#[derive(Debug)]
struct Target {
    host: String,
    port: u16,
    login: Option<(String, String)>,
}

impl Target {
    fn parse(url: &str) -> Result<Self, PublishError> {
        let parsed = Url::parse(url).map_err(|error| invalid_url(url, &error.to_string()))?;
        let shown = format!("{}://{}", parsed.scheme(), parsed.host_str().unwrap_or_default());
        match parsed.scheme() {
            "mqtt" | "tcp" => {}
            "mqtts" | "ssl" => {
                return Err(invalid_url(
                    &shown,
                    "TLS is not supported here yet; use a plain listener on loopback",
                ));
            }
            other => return Err(invalid_url(&shown, &format!("unknown scheme {other:?}"))),
        }
        let host = parsed
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| invalid_url(&shown, "there is no host"))?;
        let login = match (percent_decode(parsed.username()), parsed.password().map(percent_decode)) {
            (Some(user), _) if user.is_empty() => None,
            (Some(user), None) => Some((user, String::new())),
            (Some(user), Some(Some(password))) => Some((user, password)),
            _ => return Err(invalid_url(&shown, "user and password must be percent-encoded UTF-8")),
        };
        // `tokio` wants IPv6 addresses without the brackets of a URL.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            host,
            port: parsed.port().unwrap_or(DEFAULT_PORT),
            login,
        })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn invalid_url(url: &str, reason: &str) -> PublishError {
    PublishError::Url {
        url: url.to_owned(),
        reason: reason.to_owned(),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

/// How many publishes are accepted and not yet resolved.
#[derive(Default)]
struct Pending {
    n: AtomicUsize,
    none: Notify,
}

impl Pending {
    fn add(self: &Arc<Self>) -> PendingOne {
        self.n.fetch_add(1, Ordering::AcqRel);
        PendingOne(self.clone())
    }
}

/// Counts as pending until it is dropped.
struct PendingOne(Arc<Pending>);

impl Drop for PendingOne {
    fn drop(&mut self) {
        if self.0.n.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

/// Resolves when the broker acknowledged a publish.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Acked, PublishError>>);

impl Future for Receipt {
    type Output = Result<Acked, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|result| result.unwrap_or(Err(PublishError::Closed)))
    }
}

/// A pool of publishing connections.
pub struct Publisher {
    queues: Vec<mpsc::Sender<Outgoing>>,
    tasks: Vec<JoinHandle<()>>,
    pending: Arc<Pending>,
}

impl Publisher {
    /// Makes all connections.
    ///
    /// # Errors
    /// [`PublishError`] when the address is wrong, nobody answers or the login is refused. Later losses are repaired silently.
    pub async fn connect(config: PublisherConfig) -> Result<Self, PublishError> {
        for (what, value) in [
            ("connections", config.connections),
            ("inflight_per_connection", config.inflight_per_connection),
            ("sends_max", config.sends_max as usize),
        ] {
            if value == 0 {
                return Err(PublishError::Zero { what });
            }
        }
        let target = Arc::new(Target::parse(&config.url)?);
        let mut publisher = Self {
            queues: Vec::new(),
            tasks: Vec::new(),
            pending: Arc::default(),
        };
        let pool_tag = RandomState::new().build_hasher().finish() as u32;
        let numbers: Vec<usize> = (0..config.connections).collect();
        for at_once in numbers.chunks(CONNECTS_AT_ONCE) {
            let connects = at_once.iter().map(|i| {
                let client_id = format!("{}-{pool_tag:08x}-{i}", config.client_id_prefix);
                Connection::connect(target.clone(), client_id, config.inflight_per_connection, config.sends_max)
            });
            for connection in futures::future::try_join_all(connects).await? {
                let (queue, outgoing) = mpsc::channel(config.inflight_per_connection);
                publisher.queues.push(queue);
                publisher.tasks.push(tokio::spawn(connection.run(outgoing)));
            }
        }
        Ok(publisher)
    }

    /// Publishes and waits for the acknowledgement. See [`Publisher::send`].
    ///
    /// # Errors
    /// [`PublishError`] when the message was not acknowledged.
    pub async fn publish(&self, device_key: &str, topic: &str, payload: Bytes) -> Result<Acked, PublishError> {
        self.send(device_key, topic, payload).await?.await
    }

    /// Queues a message on its device's connection, waiting for room, and gives a receipt that resolves with the acknowledgement.
    /// Messages with the same `device_key` are sent in the order of their `send`s.
    ///
    /// # Errors
    /// [`PublishError::Closed`] when the connection's task has ended, because the broker no longer accepts the login.
    pub async fn send(&self, device_key: &str, topic: &str, payload: Bytes) -> Result<Receipt, PublishError> {
        let (done, receipt) = oneshot::channel();
        let queue = &self.queues[self.connection_of(device_key)];
        let slot = queue.reserve().await.map_err(|_| PublishError::Closed)?;
        slot.send(Outgoing {
            topic: topic.into(),
            payload,
            done,
            sent_at: None,
            sends: 0,
            _pending: self.pending.add(),
        });
        Ok(Receipt(receipt))
    }

    /// Which of the connections carries a device's messages.
    #[must_use]
    pub fn connection_of(&self, device_key: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        device_key.hash(&mut hasher);
        (hasher.finish() % self.queues.len() as u64) as usize
    }

    /// Publishes queued or in flight.
    #[must_use]
    pub fn n_pending(&self) -> usize {
        self.pending.n.load(Ordering::Acquire)
    }

    /// Waits until every publish so far has been acknowledged or has failed.
    pub async fn drain(&self) {
        loop {
            let none = self.pending.none.notified();
            tokio::pin!(none);
            none.as_mut().enable();
            if self.n_pending() == 0 {
                return;
            }
            none.await;
        }
    }

    /// Waits for what is pending, at most `wait`, and disconnects. Gives the number of publishes that were left unacknowledged.
    pub async fn close(mut self, wait: Duration) -> usize {
        let _ = tokio::time::timeout(wait, self.drain()).await;
        let left = self.n_pending();
        self.queues.clear();
        for task in &mut self.tasks {
            if left > 0 {
                task.abort();
            }
            // Aborted or done: both are the end we want.
            let _ = task.await;
        }
        left
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: (&str, u16, Option<(&str, &str)>)) {
        let target = Target::parse(url).unwrap();
        let login = target.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        assert_eq!((target.host.as_str(), target.port, login), expected, "{url}");
    }

    fn check_error(url: &str, part: &str) {
        let text = Target::parse(url).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains("hush"), "{url}: {text}");
    }

    #[test]
    fn addresses_are_read() {
        check("mqtt://localhost", ("localhost", 1883, None));
        check("mqtt://[::1]:1884", ("::1", 1884, None));
        check("mqtt://admin:a%2Fb%40c@10.0.0.1:99", ("10.0.0.1", 99, Some(("admin", "a/b@c"))));
        check("mqtt://default%2Fm-1:x@h", ("h", 1883, Some(("default/m-1", "x"))));
        check("mqtt://u@h", ("h", 1883, Some(("u", ""))));
        check_error("mqtts://u:hush@h", "TLS");
        check_error("http://u:hush@h", "unknown scheme");
        check_error("mqtt://", "host");
        check_error("localhost:1883", "scheme");
        check_error("mqtt://u:hush%ff@h", "percent-encoded");
    }
}
