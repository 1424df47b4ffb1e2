//! Reads one partition: a client that is assigned where the reader stands, and messages put together to blocks.

use std::time::{Duration, Instant};

use flexmeter_model::record::{Record, RecordBlock};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message, Timestamp};
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{Clients, REQUEST_MAX};
use crate::log::{LogError, Retry};

/// How long a fetch under way is waited for when there is something to give back already.
const MORE_WAIT: Duration = Duration::from_millis(1);
/// Step in which the first message is waited for.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Where the append time is in a frame: after length, kind and flags.
const RECEIVED_AT: std::ops::Range<usize> = 6..14;

/// The reader of one partition.
pub(super) struct Reader {
    consumer: BaseConsumer,
    partition: u32,
    /// The offset the client gives next, if it is assigned.
    next: Option<u64>,
}

impl Reader {
    pub(super) fn new(clients: &Clients, partition: u32) -> Result<Self, LogError> {
        Ok(Self {
            consumer: clients.consumer(&clients.reader_group())?,
            partition,
            next: None,
        })
    }

    /// Reads from `from` on; something is there before `end`. `None` when nothing in `from..end` is a record of ours.
    pub(super) fn read(&mut self, clients: &Clients, from: u64, end: u64, bytes_max: usize) -> Result<Option<RecordBlock>, LogError> {
        if self.next != Some(from) {
            self.assign(clients, from)?;
        }
        let mut block = RecordBlock {
            partition: self.partition,
            base_offset: from,
            n_records: 0,
            data: Vec::new(),
        };
        let mut next = from;
        let deadline = Instant::now() + REQUEST_MAX;
        while next < end && block.data.len() < bytes_max {
            let wait = if block.n_records == 0 { FIRST_WAIT } else { MORE_WAIT };
            let message = match self.consumer.poll(wait) {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_final(&error) => return Err(clients.failed("reading", &error)),
                Some(Err(_)) | None if block.n_records > 0 => break,
                Some(Err(error)) if Instant::now() > deadline => return Err(clients.failed("reading", &error)),
                None if Instant::now() > deadline => return Err(clients.error("reading", "no answer in time", Retry::Backoff)),
                Some(Err(_)) | None => continue, // librdkafka connects again by itself
            };
            let offset = u64::try_from(message.offset()).unwrap_or(0);
            if offset < next {
                continue;
            }
            if block.n_records == 0 {
                block.base_offset = offset;
            } else if offset != block.end_offset() {
                // offsets are missing: this block ends here, and the next read comes back for the message
                self.next = None;
                return Ok(Some(block));
            }
            next = offset + 1;
            if let Err(error) = push(&mut block, &message) {
                tracing::warn!(partition = self.partition, offset, %error, "a message in kafka is no record of ours; it is left out");
                metrics::counter!("flexmeter_log_foreign_messages_total").increment(1);
                if block.n_records > 0 {
                    break; // as with missing offsets
                }
            }
        }
        self.next = Some(next);
        Ok((block.n_records > 0).then_some(block))
    }

    fn assign(&mut self, clients: &Clients, from: u64) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        list.add_partition_offset(clients.topic(), self.partition as i32, offset)
            .map_err(|e| clients.failed("reading", &e))?;
        self.consumer.assign(&list).map_err(|e| clients.failed("reading", &e))?;
        self.next = Some(from);
        Ok(())
    }
}

/// Adds a message's frame, stamped with the broker's append time if the topic keeps it.
fn push(block: &mut RecordBlock, message: &BorrowedMessage<'_>) -> Result<(), String> {
    let frame = message.payload().unwrap_or_default();
    match Record::decode(frame, 0) {
        Ok((_, end)) if end == frame.len() => {}
        Ok(_) => return Err("bytes are left after the frame".into()),
        Err(error) => return Err(error.to_string()),
    }
    let at = block.data.len();
    block.data.extend_from_slice(frame);
    if let Timestamp::LogAppendTime(ms) = message.timestamp() {
        block.data[at..][RECEIVED_AT].copy_from_slice(&ms.saturating_mul(1000).to_le_bytes());
    }
    block.n_records += 1;
    Ok(())
}

/// Errors after which the client's position is unknown.
fn is_final(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                Code::OffsetOutOfRange
                    | Code::AutoOffsetReset
                    | Code::UnknownTopicOrPartition
                    | Code::TopicAuthorizationFailed
                    | Code::BadMessage
            )
        )
}
