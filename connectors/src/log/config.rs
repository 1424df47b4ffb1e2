//! Section `[log]` of the configuration.

use serde::{Deserialize, Serialize};

use super::error::LogError;

/// Largest number of partitions of a log.
pub const N_PARTITIONS_MAX: u32 = 1024;

/// Which implementation keeps the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// In this process, below `data_dir`.
    #[default]
    Embedded,
    /// In Apache Kafka.
    Kafka,
}

/// `[log]`: where acknowledged messages are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `embedded` (default) or `kafka`.
    pub kind: LogKind,
    /// Number of partitions, fixed when the log is made: the most workers that can share the work. Default 4.
    pub partitions: u32,
    /// `[log.kafka]`, used when `kind = "kafka"`.
    pub kafka: KafkaConfig,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            kind: LogKind::Embedded,
            partitions: 4,
            kafka: KafkaConfig::default(),
        }
    }
}

impl LogConfig {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// [`LogError::PartitionCount`].
    pub fn validate(&self) -> Result<(), LogError> {
        check_partitions(self.partitions)
    }
}

pub(super) fn check_partitions(n_partitions: u32) -> Result<(), LogError> {
    match n_partitions {
        1..=N_PARTITIONS_MAX => Ok(()),
        _ => Err(LogError::PartitionCount { n_partitions }),
    }
}

/// `[log.kafka]`: the cluster and the topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port` separated by commas. Default `localhost:9092`.
    pub brokers: String,
    /// Topic of the inbound log; made when it is missing. Consumer positions are the offsets of the groups `<topic>-<consumer>`.
    pub topic: String,
    /// Replicas of a topic we make; acks=all waits for `min.insync.replicas` of them. Default 1: set 3 on a cluster of three.
    pub replication: i32,
    /// How long the topic we make keeps its messages, in hours. Default 168 (a week).
    pub retention_h: u32,
    /// How long one append may wait for its delivery report, in milliseconds. Default 30 000.
    pub delivery_timeout_ms: u32,
    /// Further librdkafka settings, passed on as they are (`"client.id" = "flexmeter-north"` …). TLS and SASL are not built in.
    pub options: std::collections::BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".into(),
            topic: "flexmeter-events".into(),
            replication: 1,
            retention_h: 168,
            delivery_timeout_ms: 30_000,
            options: std::collections::BTreeMap::new(),
        }
    }
}
