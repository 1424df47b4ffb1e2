//! librdkafka's clients, configured alike, and the topic they work on.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureProducer;

use crate::log::{APPEND_QUEUE_BYTES_MAX, KafkaConfig, LogError, Retry};

/// Longest time one request to the cluster may take.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Longest time a cluster may take to be ready: to answer, to make a topic, to load its group coordinator.
const READY_MAX: Duration = Duration::from_secs(30);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Largest message of the topic (2 MiB): a frame with a payload of 1 MiB and room to spare.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What a reader fetches ahead, per partition, in KiB (8 MiB).
const FETCH_AHEAD_KBYTES: u32 = 8 * 1024;

/// Makes clients for one topic.
pub(super) struct Clients {
    config: KafkaConfig,
}

impl Clients {
    pub(super) fn new(config: KafkaConfig) -> Self {
        Self { config }
    }

    pub(super) fn topic(&self) -> &str {
        &self.config.topic
    }

    /// Group id of clients that only read: librdkafka wants one, nothing is ever committed to it.
    pub(super) fn reader_group(&self) -> String {
        format!("{}-reader", self.config.topic)
    }

    pub(super) fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        self.base().create().map_err(|e| self.failed("connecting", &e))
    }

    /// A producer whose delivery report means "on every in-sync replica, once". The options of the configuration cannot weaken that.
    pub(super) fn producer(&self) -> Result<FutureProducer, LogError> {
        let mut config = self.base();
        config.set("linger.ms", "2").set("compression.type", "zstd");
        config.extend(self.config.options.clone());
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.timeout.ms", self.config.delivery_timeout_ms.to_string())
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            // our own limit stops appends first, with this much to spare
            .set("queue.buffering.max.kbytes", (2 * APPEND_QUEUE_BYTES_MAX / 1024).to_string())
            .set("queue.buffering.max.messages", "10000000");
        config.create().map_err(|e| self.failed("connecting", &e))
    }

    pub(super) fn consumer(&self, group: &str) -> Result<BaseConsumer, LogError> {
        let mut config = self.base();
        config
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", FETCH_AHEAD_KBYTES.to_string())
            .set("check.crcs", "true");
        config.extend(self.config.options.clone());
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false");
        config.create().map_err(|e| self.failed("connecting", &e))
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.extend(self.config.options.clone());
        config
            .set("bootstrap.servers", &self.config.brokers)
            .set("client.id", "flexmeter")
            .set("reconnect.backoff.max.ms", "1000");
        config
    }

    /// Makes the topic when it is missing, and waits until all of its partitions have a leader. Takes and gives back what it blocks
    /// on, since that happens on another thread.
    pub(super) async fn prepare_topic(
        self,
        admin: &AdminClient<DefaultClientContext>,
        asker: BaseConsumer,
        n_partitions: u32,
    ) -> Result<(Self, BaseConsumer), LogError> {
        let deadline = Instant::now() + READY_MAX;
        let (mut clients, mut asker, mut found) = ask_partitions(self, asker).await?;
        loop {
            match found {
                Ok(Some(n)) if n != n_partitions => {
                    let log = format!("topic {} of kafka at {}", clients.topic(), clients.config.brokers);
                    return Err(LogError::PartitionsChanged {
                        log,
                        found: n,
                        configured: n_partitions,
                    });
                }
                Ok(Some(_)) => return Ok((clients, asker)),
                Ok(None) => clients.create_topic(admin, n_partitions).await?,
                Err(error) if error.retry() == Retry::Never || Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
            if Instant::now() > deadline {
                let what = format!("topic {} has partitions without a leader", clients.topic());
                return Err(clients.error("waiting for the topic", &what, Retry::Backoff));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            (clients, asker, found) = ask_partitions(clients, asker).await?;
        }
    }

    async fn create_topic(&self, admin: &AdminClient<DefaultClientContext>, n_partitions: u32) -> Result<(), LogError> {
        let retention_ms = (u64::from(self.config.retention_h) * 3_600_000).to_string();
        let message_bytes_max = MESSAGE_BYTES_MAX.to_string();
        let mut topic = NewTopic::new(self.topic(), n_partitions as i32, TopicReplication::Fixed(self.config.replication))
            .set("cleanup.policy", "delete")
            .set("retention.ms", &retention_ms)
            .set("max.message.bytes", &message_bytes_max)
            .set("message.timestamp.type", "LogAppendTime");
        if self.config.replication >= 3 {
            topic = topic.set("min.insync.replicas", "2");
        }
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_MAX))
            .operation_timeout(Some(REQUEST_MAX));
        let made = admin
            .create_topics([&topic], &options)
            .await
            .map_err(|e| self.failed("making the topic", &e))?;
        match made.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
                Err(self.failed("making the topic", &KafkaError::AdminOp(code)))
            }
            _ => Ok(()),
        }
    }

    /// Number of partitions of the topic, if there is one; an error that may pass while a partition has no leader.
    fn n_partitions(&self, asker: &BaseConsumer) -> Result<Option<u32>, LogError> {
        let metadata = asker
            .fetch_metadata(Some(self.topic()), REQUEST_MAX)
            .map_err(|e| self.failed("asking for the topic", &e))?;
        let Some(topic) = metadata.topics().iter().find(|t| t.name() == self.topic()) else {
            return Ok(None);
        };
        if let Some(code) = topic.error().map(RDKafkaErrorCode::from) {
            return match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
                code => Err(self.failed("asking for the topic", &KafkaError::MetadataFetch(code))),
            };
        }
        if topic.partitions().is_empty() {
            return Ok(None);
        }
        if topic.partitions().iter().any(|p| p.leader() < 0) {
            return Err(self.error("asking for the topic", "a partition has no leader", Retry::Backoff));
        }
        Ok(Some(topic.partitions().len() as u32))
    }

    /// Tries again while a leader or the group coordinator is being chosen or moved.
    pub(super) fn retry<T>(&self, action: &'static str, mut work: impl FnMut() -> Result<T, KafkaError>) -> Result<T, LogError> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            match work() {
                Ok(done) => return Ok(done),
                Err(error) if is_passing(&error) && Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(self.failed(action, &error)),
            }
        }
    }

    pub(super) fn failed(&self, action: &'static str, error: &KafkaError) -> LogError {
        self.error(action, &error.to_string(), retry_of(error))
    }

    pub(super) fn error(&self, action: &'static str, reason: &str, retry: Retry) -> LogError {
        LogError::Kafka {
            action,
            brokers: self.config.brokers.clone(),
            reason: reason.into(),
            retry,
        }
    }
}

/// Asks on a thread that may block.
async fn ask_partitions(clients: Clients, asker: BaseConsumer) -> Result<(Clients, BaseConsumer, Result<Option<u32>, LogError>), LogError> {
    tokio::task::spawn_blocking(move || {
        let found = clients.n_partitions(&asker);
        (clients, asker, found)
    })
    .await
    .map_err(|_| LogError::Closed)
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::WaitingForCoordinator
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

fn retry_of(error: &KafkaError) -> Retry {
    if matches!(
        error,
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_)
    ) {
        return Retry::Never;
    }
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::UnsupportedVersion,
        ) => Retry::Never,
        _ => Retry::Backoff,
    }
}
