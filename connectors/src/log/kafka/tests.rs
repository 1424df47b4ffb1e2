//! The contract against a real broker, and what only Kafka can do wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};

use self::kafka_server::KafkaServer;
use super::KafkaLog;
use crate::log::contract::{self, Factory, Place, message, read_all};
use crate::log::{InboundLog, KafkaConfig, LogError, LogPosition, Retry};

#[path = "../../../../tests/servers/kafka.rs"]
mod kafka_server;

fn answers(brokers: &str) -> bool {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    consumer
        .fetch_metadata(None, Duration::from_secs(1))
        .is_ok_and(|metadata| !metadata.brokers().is_empty())
}

/// A broker, or the reason why there is none.
async fn start() -> Option<KafkaServer> {
    match tokio::task::spawn_blocking(|| KafkaServer::start(answers)).await.unwrap() {
        Ok(server) => Some(server),
        Err(reason) => {
            println!("SKIPPED: no kafka: {reason}");
            None
        }
    }
}

struct Topics {
    brokers: String,
    n_made: AtomicU32,
}

struct Topic {
    config: KafkaConfig,
    n_partitions: u32,
}

fn config(brokers: &str, topic: &str) -> KafkaConfig {
    KafkaConfig {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        ..Default::default()
    }
}

#[async_trait]
impl Factory for Topics {
    async fn place(&self, n_partitions: u32) -> Box<dyn Place> {
        let topic = format!("contract-{}", self.n_made.fetch_add(1, Ordering::Relaxed));
        Box::new(Topic {
            config: config(&self.brokers, &topic),
            n_partitions,
        })
    }
}

#[async_trait]
impl Place for Topic {
    async fn open(&self) -> Arc<dyn InboundLog> {
        Arc::new(KafkaLog::open(&self.config, self.n_partitions).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_the_contract() {
    let Some(mut server) = start().await else { return };
    contract::all(&Topics {
        brokers: server.brokers.clone(),
        n_made: AtomicU32::new(0),
    })
    .await;
    another_number_of_partitions_is_refused_by_name(&server.brokers).await;
    foreign_appends_fire_the_watch(&server.brokers).await;
    foreign_messages_are_left_out(&server.brokers).await;
    prints_the_rate_of_many_appenders(&server.brokers).await;
    nothing_acknowledged_is_lost_when_the_broker_is_killed(&mut server).await;
}

async fn another_number_of_partitions_is_refused_by_name(brokers: &str) {
    let config = config(brokers, "partitions");
    KafkaLog::open(&config, 3).await.unwrap().close().await.unwrap();
    let error = KafkaLog::open(&config, 4).await.err().unwrap();
    assert!(
        matches!(
            error,
            LogError::PartitionsChanged {
                found: 3,
                configured: 4,
                ..
            }
        ),
        "{error}"
    );
}

async fn foreign_appends_fire_the_watch(brokers: &str) {
    let config = config(brokers, "two-processes");
    let reader = KafkaLog::open(&config, 1).await.unwrap();
    let writer = KafkaLog::open(&config, 1).await.unwrap();
    let mut appended = reader.appended();
    appended.mark_unchanged();
    writer.append(vec![message("m", "from elsewhere")]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), appended.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read_all(&reader, 0, 0).await[0].payload, b"from elsewhere");
}

async fn foreign_messages_are_left_out(brokers: &str) {
    let log = KafkaLog::open(&config(brokers, "foreign"), 1).await.unwrap();
    let stranger: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    log.append(vec![message("m", "a")]).await.unwrap();
    let record: FutureRecord<'_, (), str> = FutureRecord::to("foreign").partition(0).payload("{\"not\":\"a frame\"}");
    stranger.send(record, Duration::from_secs(10)).await.unwrap();
    assert_eq!(
        log.append(vec![message("m", "b")]).await.unwrap(),
        [LogPosition { partition: 0, offset: 2 }]
    );
    let payloads: Vec<_> = read_all(&log, 0, 0)
        .await
        .into_iter()
        .map(|seen| (seen.offset, seen.payload))
        .collect();
    assert_eq!(payloads, [(0, b"a".to_vec()), (2, b"b".to_vec())]);
}

async fn prints_the_rate_of_many_appenders(brokers: &str) {
    let log = Arc::new(KafkaLog::open(&config(brokers, "rate"), 4).await.unwrap());
    let started = Instant::now();
    let appenders: Vec<_> = (0..500)
        .map(|device| {
            let log = log.clone();
            tokio::spawn(async move {
                for i in 0..20 {
                    let payload = format!("{{\"hardwareId\":\"meter-{device}\",\"n\":{i:0270}}}");
                    log.append(vec![message(&format!("meter-{device}"), payload)]).await.unwrap();
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    println!(
        "500 appenders on kafka: {:.0} records/s",
        10_000.0 / started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let mut n = 0;
    for partition in 0..4 {
        n += read_all(&*log, partition, 0).await.len();
    }
    assert_eq!(n, 10_000);
    println!("read back from kafka: {:.0} records/s", n as f64 / started.elapsed().as_secs_f64());
}

async fn nothing_acknowledged_is_lost_when_the_broker_is_killed(server: &mut KafkaServer) {
    // a broker starts slowly on a busy machine; here nothing is to fail for having waited too long
    let config = KafkaConfig {
        delivery_timeout_ms: 240_000,
        ..config(&server.brokers, "killed")
    };
    let log = Arc::new(KafkaLog::open(&config, 1).await.unwrap());
    let writer = tokio::spawn({
        let log = log.clone();
        async move {
            let mut acknowledged = Vec::new();
            for i in 0..2000 {
                let positions = log.append(vec![message("m", format!("{i}"))]).await.unwrap();
                acknowledged.push((positions[0].offset, format!("{i}").into_bytes()));
            }
            acknowledged
        }
    });
    let mut appended = log.appended();
    for _ in 0..200 {
        appended.changed().await.unwrap();
    }
    server.kill();
    let started = Instant::now();
    tokio::task::block_in_place(|| server.run(answers)).unwrap();
    let acknowledged = tokio::time::timeout(Duration::from_secs(300), writer).await.unwrap().unwrap();
    println!("appends went on {:?} after the broker was killed", started.elapsed());
    let seen = read_all(&*log, 0, 0).await;
    assert_eq!(seen.len(), 2000, "nothing is there twice");
    for (offset, payload) in acknowledged {
        assert_eq!(seen[offset as usize].payload, payload);
    }
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_is_an_error_that_may_pass() {
    let mut config = config("127.0.0.1:1", "nowhere");
    config.options.insert("socket.connection.setup.timeout.ms".into(), "1000".into());
    let open = tokio::time::timeout(Duration::from_secs(60), KafkaLog::open(&config, 1))
        .await
        .unwrap();
    let error = open.err().unwrap();
    assert_eq!(error.retry(), Retry::Backoff);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    config.options.insert("no.such.option".into(), "1".into());
    let error = KafkaLog::open(&config, 1).await.err().unwrap();
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.to_string().contains("no.such.option"), "{error}");
}
