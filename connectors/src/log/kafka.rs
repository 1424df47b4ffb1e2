//! The inbound log in Apache Kafka: one topic, one record per message, our partitions.
//!
//! Appends go through one idempotent producer with acks=all and return after every delivery report. A record's value is its frame
//! (`model::record`); its append time is the broker's (`message.timestamp.type=LogAppendTime` on topics we make), so that all bridges
//! of a system share one clock. Readers assign partitions and offsets themselves: consumer groups are used only to keep positions.
//!
//! librdkafka blocks: whatever asks the cluster runs off the async threads.

mod clients;
mod reader;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use flexmeter_model::EventTime;
use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
use parking_lot::{Mutex, RwLock};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Semaphore, watch};

use self::clients::{Clients, REQUEST_MAX};
use self::reader::Reader;
use super::config::{KafkaConfig, check_partitions};
use super::{APPEND_QUEUE_BYTES_MAX, InboundLog, LogError, LogPosition, NewRecord, append_cost_bytes, partition_index};

/// How often we look whether somebody else has appended. Our own appends are known at once.
const FOREIGN_APPENDS_POLL: Duration = Duration::from_millis(50);
/// How long a full producer queue is waited for before the next try.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// A log in a Kafka topic.
pub struct KafkaLog {
    inner: Arc<Inner>,
}

struct Inner {
    clients: Clients,
    /// Replaced after an error that ends an idempotent producer.
    producer: RwLock<FutureProducer>,
    admin: AdminClient<DefaultClientContext>,
    /// Asks for the first and last offsets.
    asker: BaseConsumer,
    partitions: Vec<Partition>,
    /// One client per consumer group that keeps positions.
    groups: Mutex<HashMap<String, Arc<BaseConsumer>>>,
    /// Room for appends on their way, in bytes.
    room: Arc<Semaphore>,
    appended: watch::Sender<u64>,
    is_closed: AtomicBool,
}

struct Partition {
    /// The largest end that has been seen.
    end: AtomicU64,
    /// The largest first retained offset that has been seen.
    start: AtomicU64,
    reader: Mutex<Option<Reader>>,
}

impl KafkaLog {
    /// Connects; makes the topic when it is missing.
    ///
    /// # Errors
    /// [`LogError`] when the cluster does not answer or refuses, or when the topic has another number of partitions.
    pub async fn open(config: &KafkaConfig, n_partitions: u32) -> Result<Self, LogError> {
        check_partitions(n_partitions)?;
        let clients = Clients::new(config.clone());
        let admin: AdminClient<_> = clients.admin()?;
        let asker = clients.consumer(&clients.reader_group())?;
        let (clients, asker) = clients.prepare_topic(&admin, asker, n_partitions).await?;
        let inner = Arc::new(Inner {
            producer: RwLock::new(clients.producer()?),
            admin,
            asker,
            partitions: (0..n_partitions)
                .map(|_| Partition {
                    end: 0.into(),
                    start: 0.into(),
                    reader: Mutex::new(None),
                })
                .collect(),
            groups: Mutex::default(),
            room: Arc::new(Semaphore::new(APPEND_QUEUE_BYTES_MAX)),
            appended: watch::Sender::new(0),
            is_closed: AtomicBool::new(false),
            clients,
        });
        for partition in 0..n_partitions {
            inner.clone().blocking(move |inner| inner.ask_bounds(partition)).await?;
        }
        let watcher = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("log-kafka-watch".into())
            .spawn(move || watch_foreign_appends(&watcher))
            .map_err(|e| inner.clients.error("starting a thread", &e.to_string(), super::Retry::Backoff))?;
        Ok(Self { inner })
    }

    fn partition(&self, partition: u32) -> Result<usize, LogError> {
        partition_index(partition, self.n_partitions())
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), LogError> {
        if self.is_closed.load(Ordering::Acquire) {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }

    /// Runs blocking work off the async threads.
    async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        match tokio::task::spawn_blocking(move || work(&self)).await {
            Ok(result) => result,
            Err(_) => Err(LogError::Closed), // the runtime is shutting down
        }
    }

    /// Asks the cluster for a partition's bounds, and remembers them.
    fn ask_bounds(&self, partition: u32) -> Result<Range<u64>, LogError> {
        let ask = || self.asker.fetch_watermarks(self.clients.topic(), partition as i32, REQUEST_MAX);
        let (start, end) = self.clients.retry("asking for offsets", ask)?;
        let part = &self.partitions[partition as usize];
        let (start, end) = (u64::try_from(start).unwrap_or(0), u64::try_from(end).unwrap_or(0));
        part.start.fetch_max(start, Ordering::AcqRel);
        if part.end.fetch_max(end, Ordering::AcqRel) < end {
            self.appended.send_modify(|n| *n += 1);
        }
        Ok(start..end)
    }

    fn group(&self, consumer: &str) -> Result<Arc<BaseConsumer>, LogError> {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get(consumer) {
            return Ok(group.clone());
        }
        let group = Arc::new(self.clients.consumer(&format!("{}-{consumer}", self.clients.topic()))?);
        groups.insert(consumer.to_owned(), group.clone());
        Ok(group)
    }

    /// Sends frames and waits for all of their delivery reports.
    async fn produce(&self, frames: Vec<(u32, Vec<u8>)>) -> Result<Vec<LogPosition>, LogError> {
        self.check_open()?;
        let producer = self.producer.read().clone();
        let mut reports = Vec::with_capacity(frames.len());
        for (partition, frame) in &frames {
            reports.push(self.send(&producer, *partition, frame).await?);
        }
        let mut positions = Vec::with_capacity(reports.len());
        for report in reports {
            let delivery = match report.await {
                Ok(Ok(delivery)) => delivery,
                Ok(Err((error, _))) => return Err(self.not_delivered(&producer, &error)),
                Err(_) => return Err(LogError::Closed), // the producer was dropped
            };
            // a report that was lost and sent again may come without an offset: the caller then sends the message again
            let offset = u64::try_from(delivery.offset).map_err(|_| {
                self.clients
                    .error("appending", "the delivery report has no offset", super::Retry::Now)
            })?;
            positions.push(LogPosition {
                partition: delivery.partition as u32,
                offset,
            });
        }
        for position in &positions {
            self.partitions[position.partition as usize]
                .end
                .fetch_max(position.offset + 1, Ordering::AcqRel);
        }
        self.appended.send_modify(|n| *n += 1);
        metrics::counter!("flexmeter_log_appended_total").increment(positions.len() as u64);
        Ok(positions)
    }

    async fn send(&self, producer: &FutureProducer, partition: u32, frame: &[u8]) -> Result<rdkafka::producer::DeliveryFuture, LogError> {
        loop {
            let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(self.clients.topic()).partition(partition as i32).payload(frame);
            match producer.send_result(record) {
                Ok(report) => return Ok(report),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
                Err((error, _)) => return Err(self.not_delivered(producer, &error)),
            }
        }
    }

    /// An idempotent producer that has met a fatal error delivers nothing more: the next append gets a new one.
    fn not_delivered(&self, producer: &FutureProducer, error: &KafkaError) -> LogError {
        metrics::counter!("flexmeter_log_failed_groups_total").increment(1);
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::error!(%code, %reason, "the kafka producer has failed for good; starting another");
            let mut current = self.producer.write();
            if current.client().fatal_error().is_some() {
                match self.clients.producer() {
                    Ok(new) => *current = new,
                    Err(error) => tracing::error!(%error, "no new kafka producer"),
                }
            }
        }
        self.clients.failed("appending", error)
    }

    /// Where a read may start: `None` at the end.
    fn check_readable(&self, partition: u32, from: u64) -> Result<Option<u64>, LogError> {
        let part = &self.partitions[partition as usize];
        let (start, end) = (part.start.load(Ordering::Acquire), part.end.load(Ordering::Acquire));
        if (start..end).contains(&from) {
            return Ok(Some(end));
        }
        let available = self.ask_bounds(partition)?;
        match from {
            _ if from == available.end => Ok(None),
            _ if available.contains(&from) => Ok(Some(available.end)),
            _ => Err(LogError::OutOfRange {
                partition,
                offset: from,
                available,
            }),
        }
    }

    fn read(&self, partition: u32, from: u64, bytes_max: usize) -> Result<Option<RecordBlock>, LogError> {
        self.check_open()?;
        let Some(end) = self.check_readable(partition, from)? else {
            return Ok(None);
        };
        let mut slot = self.partitions[partition as usize].reader.lock();
        let reader = match &mut *slot {
            Some(reader) => reader,
            None => slot.insert(Reader::new(&self.clients, partition)?),
        };
        let read = reader.read(&self.clients, from, end, bytes_max);
        if read.is_err() {
            *slot = None; // begin afresh
            let available = self.ask_bounds(partition)?;
            if from < available.start {
                return Err(LogError::OutOfRange {
                    partition,
                    offset: from,
                    available,
                });
            }
        }
        read
    }

    fn commit(&self, consumer: &str, positions: &[LogPosition]) -> Result<(), LogError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for position in positions {
            let offset = Offset::Offset(i64::try_from(position.offset).unwrap_or(i64::MAX));
            list.add_partition_offset(self.clients.topic(), position.partition as i32, offset)
                .map_err(|e| self.clients.failed("committing positions", &e))?;
        }
        let group = self.group(consumer)?;
        self.clients.retry("committing positions", || group.commit(&list, CommitMode::Sync))
    }

    fn committed(&self, consumer: &str) -> Result<Vec<Option<u64>>, LogError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(self.clients.topic(), 0, self.partitions.len() as i32 - 1);
        let group = self.group(consumer)?;
        let stored = self
            .clients
            .retry("fetching positions", || group.committed_offsets(list.clone(), REQUEST_MAX))?;
        let mut positions = vec![None; self.partitions.len()];
        for element in stored.elements() {
            if let (Offset::Offset(offset), Some(position)) = (element.offset(), positions.get_mut(element.partition() as usize)) {
                *position = u64::try_from(offset).ok();
            }
        }
        Ok(positions)
    }
}

#[async_trait]
impl InboundLog for KafkaLog {
    fn n_partitions(&self) -> u32 {
        self.inner.partitions.len() as u32
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<LogPosition>, LogError> {
        self.inner.check_open()?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let cost = u32::try_from(append_cost_bytes(&records)?).unwrap_or(u32::MAX);
        let _room = self.inner.room.acquire_many(cost).await.map_err(|_| LogError::Closed)?;
        let (received_at, n_partitions) = (wall_clock(), self.n_partitions());
        let frames = records.iter().map(|record| {
            let mut frame = Vec::with_capacity(record.cost_bytes());
            let tenant = record.tenant.as_str();
            let hardware_id = record.hardware_id.as_str();
            let NewRecord {
                kind,
                bound,
                redelivered,
                payload,
                ..
            } = record;
            Record {
                kind: *kind,
                tenant,
                hardware_id,
                bound: *bound,
                redelivered: *redelivered,
                received_at,
                payload,
            }
            .encode(&mut frame);
            (partition_of(tenant, hardware_id, n_partitions), frame)
        });
        self.inner.produce(frames.collect()).await
    }

    async fn heartbeat(&self) -> Result<(), LogError> {
        let mut frame = Vec::new();
        let kind = RecordKind::Heartbeat;
        Record {
            kind,
            tenant: "",
            hardware_id: "",
            bound: false,
            redelivered: false,
            received_at: wall_clock(),
            payload: &[],
        }
        .encode(&mut frame);
        self.inner
            .produce((0..self.n_partitions()).map(|partition| (partition, frame.clone())).collect())
            .await
            .map(|_| ())
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Option<RecordBlock>, LogError> {
        self.partition(partition)?;
        self.inner
            .clone()
            .blocking(move |inner| inner.read(partition, from, max_bytes))
            .await
    }

    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError> {
        self.partition(partition)?;
        self.inner.check_open()?;
        self.inner.clone().blocking(move |inner| inner.ask_bounds(partition)).await
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.inner.appended.subscribe()
    }

    async fn commit(&self, consumer: &str, positions: &[LogPosition]) -> Result<(), LogError> {
        self.inner.check_open()?;
        for position in positions {
            self.partition(position.partition)?;
        }
        let (consumer, positions) = (consumer.to_owned(), positions.to_vec());
        self.inner.clone().blocking(move |inner| inner.commit(&consumer, &positions)).await
    }

    async fn committed(&self, consumer: &str) -> Result<Vec<Option<u64>>, LogError> {
        self.inner.check_open()?;
        let consumer = consumer.to_owned();
        self.inner.clone().blocking(move |inner| inner.committed(&consumer)).await
    }

    async fn truncate_before(&self, partition: u32, before: u64) -> Result<(), LogError> {
        let index = self.partition(partition)?;
        let available = self.bounds(partition).await?;
        let start = before.min(available.end);
        if start <= available.start {
            return Ok(());
        }
        let clients = &self.inner.clients;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            clients.topic(),
            partition as i32,
            Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX)),
        )
        .map_err(|e| clients.failed("deleting old records", &e))?;
        let options = AdminOptions::new().request_timeout(Some(REQUEST_MAX));
        let deleted = self
            .inner
            .admin
            .delete_records(&list, &options)
            .await
            .map_err(|e| clients.failed("deleting old records", &e))?;
        for element in deleted.elements() {
            element.error().map_err(|e| clients.failed("deleting old records", &e))?;
        }
        self.inner.partitions[index].start.fetch_max(start, Ordering::AcqRel);
        Ok(())
    }

    async fn close(&self) -> Result<(), LogError> {
        if self.inner.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.inner.room.close();
        let inner = self.inner.clone();
        inner
            .blocking(|inner| {
                let producer = inner.producer.read().clone();
                let flushed = producer.flush(REQUEST_MAX).map_err(|e| inner.clients.failed("closing", &e));
                for partition in &inner.partitions {
                    partition.reader.lock().take();
                }
                inner.groups.lock().clear();
                flushed
            })
            .await
    }
}

/// Notices what other processes append. Ends with the log.
fn watch_foreign_appends(log: &Weak<Inner>) {
    loop {
        let Some(inner) = log.upgrade() else { return };
        if inner.check_open().is_err() {
            return;
        }
        if inner.appended.receiver_count() > 0 {
            for partition in 0..inner.partitions.len() as u32 {
                // a cluster that is away is told to whoever reads or appends; here it only means that nothing new is known
                let _ = inner.ask_bounds(partition);
            }
        }
        drop(inner);
        std::thread::sleep(FOREIGN_APPENDS_POLL);
    }
}

fn wall_clock() -> EventTime {
    EventTime::from_clock(SystemTime::now())
}
