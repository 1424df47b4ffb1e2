//! The broker's hooks: every login, will, subscription and publish passes here.
//!
//! What the order of rmqtt 0.24's hooks means for us (read in its `session.rs`, pinned by the tests of this folder):
//! - `MessagePublish` runs before `MessagePublishCheckAcl`, so authorising and appending are one step in the latter.
//! - A refusal without `disconnect` reaches an MQTT 3.1.1 client as a plain PUBACK: it would believe the message is stored. So every
//!   refusal disconnects.
//! - Last wills pass `MessagePublish` only: their topic is checked when the client connects, their append happens there.
//! - A "superuser" skips the checks, so nobody is one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use flexmeter_model::TenantId;
use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use parking_lot::RwLock;
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, Register, ReturnType, Type};
use rmqtt::session::Session;
use rmqtt::types::{AuthResult, ConnectInfo, FromType, Id, LastWill, Publish, PublishAclResult, Subscribe, SubscribeAclResult};

use super::claims::Claims;
use super::config::HANDSHAKE_WAIT;
use super::filing;
use super::login::{Logins, Speaker};
use super::rules::{self, Filing, Verdict};
use crate::log::{InboundLog, LogError};

/// What the hooks share.
pub(super) struct Gate {
    logins: Logins,
    tenants: Arc<HashSet<TenantId>>,
    claims: Claims,
    /// `None` once the broker is stopping: nothing is accepted any more, and the log is no longer held open from here.
    log: RwLock<Option<Arc<dyn InboundLog>>>,
    /// Set once, right after the context was made with these hooks inside.
    broker: OnceLock<ServerContext>,
    metrics: Metrics,
    /// Seconds since `started` of the last warning about a failed append.
    warned_s: AtomicU64,
    started: Instant,
}

struct Metrics {
    stored: Counter,
    forwarded: Counter,
    not_stored: Counter,
    append_wait: Histogram,
    connections: Gauge,
    dropped: Counter,
}

impl Metrics {
    fn new() -> Self {
        describe_counter!(
            "flexmeter_mqtt_publishes_total",
            "Publishes by outcome: stored, forwarded, not_stored, or why refused"
        );
        describe_counter!("flexmeter_mqtt_logins_refused_total", "Refused logins by cause");
        describe_counter!("flexmeter_mqtt_subscriptions_refused_total", "Refused subscriptions");
        describe_counter!(
            "flexmeter_mqtt_dropped_total",
            "Messages lost on the way to a subscriber: its queue was full or it was gone"
        );
        describe_histogram!(
            "flexmeter_mqtt_append_wait_seconds",
            Unit::Seconds,
            "How long a publish waited until the log had it durably"
        );
        describe_gauge!("flexmeter_mqtt_connections", "Clients connected");
        let publishes = |outcome: &'static str| counter!("flexmeter_mqtt_publishes_total", "outcome" => outcome);
        Self {
            stored: publishes("stored"),
            forwarded: publishes("forwarded"),
            not_stored: publishes("not_stored"),
            append_wait: histogram!("flexmeter_mqtt_append_wait_seconds"),
            connections: gauge!("flexmeter_mqtt_connections"),
            dropped: counter!("flexmeter_mqtt_dropped_total"),
        }
    }
}

/// Why a publish was not stored.
#[derive(Debug, thiserror::Error)]
enum NotStored {
    #[error("the broker is stopping")]
    Stopping,
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Gate {
    pub(super) fn new(logins: Logins, tenants: HashSet<TenantId>, log: Arc<dyn InboundLog>) -> Arc<Self> {
        Arc::new(Self {
            logins,
            tenants: Arc::new(tenants),
            claims: Claims::default(),
            log: RwLock::new(Some(log)),
            broker: OnceLock::new(),
            metrics: Metrics::new(),
            warned_s: AtomicU64::new(0),
            started: Instant::now(),
        })
    }

    /// Registers all hooks with the broker.
    pub(super) async fn install(self: &Arc<Self>, broker: &ServerContext) {
        // Only the first broker is kept; a gate is made for one.
        let _ = self.broker.set(broker.clone());
        let register: Box<dyn Register> = broker.extends.hook_mgr().register();
        for hook in [
            Type::ClientAuthenticate,
            Type::ClientConnected,
            Type::ClientDisconnected,
            Type::SessionTerminated,
            Type::ClientSubscribeCheckAcl,
            Type::MessagePublish,
            Type::MessagePublishCheckAcl,
            Type::MessageDropped,
        ] {
            register.add(hook, Box::new(Hooks(self.clone()))).await;
        }
        register.start().await;
    }

    /// From now on every publish and login is refused; the log is let go.
    pub(super) fn close(&self) {
        *self.log.write() = None;
    }

    fn is_closed(&self) -> bool {
        self.log.read().is_none()
    }

    async fn authenticate(&self, connect: &ConnectInfo) -> AuthResult {
        let refuse = |cause: &'static str, result: AuthResult| {
            counter!("flexmeter_mqtt_logins_refused_total", "cause" => cause).increment(1);
            tracing::info!(client = %connect.id(), cause, "login refused");
            result
        };
        if self.is_closed() {
            return refuse("stopping", AuthResult::NotAuthorized);
        }
        if !self.knows(connect).await {
            return refuse("credentials", AuthResult::BadUsernameOrPassword);
        }
        let user = connect.username().map(AsRef::as_ref);
        let Some(speaker) = self.logins.speaker(user) else {
            return refuse("credentials", AuthResult::BadUsernameOrPassword);
        };
        if let Some(will) = connect.last_will()
            && let Verdict::Refuse(refusal) = rules::publish(&self.tenants, speaker, will_topic(&will))
        {
            return refuse(refusal.as_str(), AuthResult::NotAuthorized);
        }
        if !self.claim(connect.id(), speaker).await {
            return refuse("client_id", AuthResult::NotAuthorized);
        }
        AuthResult::Allow(false, None)
    }

    /// Whether name and password are good. Off the async threads, because an administrator's password is hashed slowly.
    async fn knows(&self, connect: &ConnectInfo) -> bool {
        if self.logins.is_insecure() {
            return true;
        }
        let (logins, tenants) = (self.logins.clone(), self.tenants.clone());
        let (user, password) = (connect.username().cloned(), connect.password().cloned());
        let check = move || {
            logins
                .check(&tenants, user.as_ref().map(AsRef::as_ref), password.as_deref())
                .is_some()
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(false)
    }

    /// Claims the client id for the login, see [`Claims`].
    async fn claim(&self, id: &Id, speaker: Speaker<'_>) -> bool {
        let Some(owner) = owner(speaker) else { return true };
        let session = match self.broker.get() {
            Some(broker) => broker.extends.shared().await.entry(id.clone()).session(),
            None => None,
        };
        let session_owner = session.and_then(|session| owner_of(&self.logins, &session.id));
        self.claims
            .claim(&id.client_id, &owner, session_owner.as_deref(), Instant::now(), HANDSHAKE_WAIT)
    }

    fn release(&self, id: &Id) {
        if let Some(owner) = owner_of(&self.logins, id) {
            self.claims.release(&id.client_id, &owner);
        }
    }

    fn may_subscribe(&self, session: &Session, subscribe: &Subscribe) -> bool {
        let shared = subscribe.opts.has_shared_group();
        self.logins
            .speaker(session.username().map(AsRef::as_ref))
            .is_some_and(|s| rules::may_subscribe(s, &subscribe.topic_filter, shared))
    }

    fn verdict<'a>(&'a self, session: &'a Session, topic: &'a str) -> Verdict<'a> {
        match self.logins.speaker(session.username().map(AsRef::as_ref)) {
            Some(speaker) => rules::publish(&self.tenants, speaker, topic),
            None => Verdict::Refuse(rules::Refusal::Forbidden),
        }
    }

    /// The whole way of a publish: who, where, append, wait.
    async fn publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        match self.verdict(session, &publish.topic) {
            Verdict::Store(filing) => match self.store(&filing, publish.dup, &publish.payload).await {
                Ok(()) => PublishAclResult::allow(),
                Err(error) => PublishAclResult::rejected(true, Some(format!("not stored: {error}").into())),
            },
            Verdict::Forward => {
                self.metrics.forwarded.increment(1);
                PublishAclResult::allow()
            }
            Verdict::Refuse(refusal) => {
                counter!("flexmeter_mqtt_publishes_total", "outcome" => refusal.as_str()).increment(1);
                tracing::debug!(client = %session.id, topic = %publish.topic, refusal = refusal.as_str(), "publish refused");
                PublishAclResult::rejected(true, Some(refusal.as_str().into()))
            }
        }
    }

    async fn store(&self, filing: &Filing<'_>, redelivered: bool, payload: &Bytes) -> Result<(), NotStored> {
        let started = Instant::now();
        let log = self.log.read().clone();
        let stored = match log {
            Some(log) => {
                let records = filing::records(filing, redelivered, payload);
                if records.is_empty() {
                    Ok(())
                } else {
                    log.append(records).await.map(drop).map_err(NotStored::from)
                }
            }
            None => Err(NotStored::Stopping),
        };
        match &stored {
            Ok(()) => {
                self.metrics.append_wait.record(started.elapsed());
                self.metrics.stored.increment(1);
            }
            Err(error) => {
                self.metrics.not_stored.increment(1);
                self.warn_seldom(error);
            }
        }
        stored
    }

    /// One warning a second: while the log is down, every device comes back and fails again.
    fn warn_seldom(&self, error: &NotStored) {
        let now_s = self.started.elapsed().as_secs() + 1;
        if self.warned_s.swap(now_s, Ordering::Relaxed) != now_s {
            tracing::warn!(%error, "publishes are not stored and not acknowledged");
        }
    }

    /// The hook that sees every publish first, wills included, and can only change it. Wills are stored here. Retaining is taken away
    /// from events: the log keeps them, and one retained message a meter would fill the memory.
    async fn before_publish(&self, session: Option<&Session>, from: FromType, publish: &Publish) -> Option<Publish> {
        let is_will = matches!(from, FromType::LastWill);
        if !is_will && !publish.retain {
            return None;
        }
        let Verdict::Store(filing) = self.verdict(session?, &publish.topic) else {
            return None;
        };
        if is_will {
            // Nobody waits for an answer to a will; a failure has been counted and logged.
            let _ = self.store(&filing, false, &publish.payload).await;
        }
        publish.retain.then(|| {
            let mut publish = publish.clone();
            publish.retain = false;
            publish
        })
    }
}

/// Who owns a client id: a normal form of the login. `None` in insecure mode, where client ids are everybody's.
fn owner(speaker: Speaker<'_>) -> Option<String> {
    match speaker {
        Speaker::Device { tenant, hardware_id } => Some(format!("{tenant}/{hardware_id}")),
        Speaker::Admin => Some(super::login::ADMIN_USER.to_owned()),
        Speaker::Anyone => None,
    }
}

fn owner_of(logins: &Logins, id: &Id) -> Option<String> {
    owner(logins.speaker(id.username.as_ref().map(AsRef::as_ref))?)
}

fn will_topic<'a>(will: &'a LastWill<'_>) -> &'a str {
    match will {
        LastWill::V3(will) => &will.topic,
        LastWill::V5(will) => &will.topic,
    }
}

struct Hooks(Arc<Gate>);

#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, parameter: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        let gate = &self.0;
        match parameter {
            Parameter::MessagePublishCheckAcl(session, publish) => {
                (false, Some(HookResult::PublishAclResult(gate.publish(session, publish).await)))
            }
            Parameter::MessagePublish(session, from, publish) => (
                true,
                gate.before_publish(*session, from.typ(), publish).await.map(HookResult::Publish),
            ),
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                let answer = if gate.may_subscribe(session, subscribe) {
                    SubscribeAclResult::new_success(subscribe.opts.qos(), None)
                } else {
                    counter!("flexmeter_mqtt_subscriptions_refused_total").increment(1);
                    SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
                };
                (false, Some(HookResult::SubscribeAclResult(answer)))
            }
            Parameter::ClientAuthenticate(connect) => (false, Some(HookResult::AuthResult(gate.authenticate(connect).await))),
            Parameter::ClientConnected(_) => {
                gate.metrics.connections.increment(1.0);
                (true, so_far)
            }
            Parameter::ClientDisconnected(..) => {
                gate.metrics.connections.decrement(1.0);
                (true, so_far)
            }
            Parameter::SessionTerminated(session, _) => {
                gate.release(&session.id);
                (true, so_far)
            }
            // Without a receiver it is a refused publish, which is counted already.
            Parameter::MessageDropped(Some(_), ..) => {
                gate.metrics.dropped.increment(1);
                (true, so_far)
            }
            _ => (true, so_far),
        }
    }
}
