//! Records → judged messages: decode, validate, find the device, keep log time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use flexmeter_model::decode::Decoder;
use flexmeter_model::record::RecordBlock;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::batch::{Judged, Span};
use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::config::{EngineConfig, TICK_US, UnknownDevices};
use crate::devices::DeviceTable;
use crate::error::EngineError;
use crate::faults::Faults;
use crate::judge::{Judge, RECEIVED_AT_US};
use crate::partition::PerPartition;

/// What decoding remembers of a partition.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) devices: DeviceTable,
    /// The lowest offset that may come next.
    pub(crate) next_offset: u64,
    /// Newest append time seen, in microseconds; never goes back, even when the log's clock does.
    pub(crate) log_time: i64,
    /// Minute of log time whose timers fired last.
    pub(crate) minute: i64,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            devices: DeviceTable::default(),
            next_offset: 0,
            log_time: i64::MIN,
            minute: i64::MIN,
        }
    }
}

impl Intake {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.u64(self.next_offset);
        out.i64(self.log_time);
        out.i64(self.minute);
        self.devices.write(out);
    }

    pub(crate) fn read(input: &mut Reader<'_>, partition: u32, policy: &UnknownDevices) -> Result<Self, CheckpointError> {
        let (next_offset, log_time, minute) = (input.u64()?, input.i64()?, input.i64()?);
        // a partition from which nothing was read yet can be the home of a grid
        let is_unread = next_offset == 0 && (log_time, minute) == (i64::MIN, i64::MIN);
        if !is_unread && (!RECEIVED_AT_US.contains(&log_time) || minute != log_time.div_euclid(TICK_US)) {
            return Err(CheckpointError::Value { what: "log time" });
        }
        Ok(Self {
            next_offset,
            log_time,
            minute,
            devices: DeviceTable::read(input, partition, policy)?,
        })
    }
}

/// Judges every message of an epoch's blocks; one batch for each partition. A block that cannot be read stops the engine.
pub(crate) fn decode<'scope>(
    blocks: StreamVec<'scope, u64, RecordBlock>,
    intakes: PerPartition<Intake>,
    config: Rc<EngineConfig>,
    faults: Faults,
) -> StreamVec<'scope, u64, Judged> {
    blocks.unary(Pipeline, "decode", |_, _| {
        let mut decoder = Decoder::new();
        move |input, output| {
            input.for_each_stamp(|time, containers| {
                let mut batches = BTreeMap::new();
                for block in containers.flat_map(std::mem::take) {
                    if faults.any() {
                        return;
                    }
                    if let Err(error) = judge_block(&block, &intakes, &config, &mut decoder, &mut batches) {
                        faults.report(error);
                        return;
                    }
                }
                output.session(&time).give_container(&mut batches.into_values().collect());
            });
        }
    })
}

fn judge_block(
    block: &RecordBlock,
    intakes: &RefCell<BTreeMap<u32, Intake>>,
    config: &EngineConfig,
    decoder: &mut Decoder,
    batches: &mut BTreeMap<u32, Judged>,
) -> Result<(), EngineError> {
    let partition = block.partition;
    if block.n_records == 0 {
        return Ok(());
    }
    let mut intakes = intakes.borrow_mut();
    let intake = intakes.entry(partition).or_default();
    if block.base_offset < intake.next_offset {
        return Err(EngineError::OffsetOutOfOrder {
            partition,
            expected: intake.next_offset,
            found: block.base_offset,
        });
    }
    let judged = batches.entry(partition).or_insert_with(|| Judged {
        span: Span {
            partition,
            start_offset: block.base_offset,
            ..Span::default()
        },
        ..Judged::default()
    });
    let mut judge = Judge {
        partition,
        intake,
        config,
        judged,
    };
    let mut n_records = 0;
    for record in block.iter() {
        let offset = block.base_offset + u64::from(n_records);
        let (offset, record) = record.map_err(|source| EngineError::CorruptRecord { partition, offset, source })?;
        judge.record(offset, &record, decoder)?;
        n_records += 1;
    }
    if n_records != block.n_records {
        return Err(EngineError::BlockLength {
            partition,
            base_offset: block.base_offset,
            expected: block.n_records,
            found: n_records,
        });
    }
    intake.next_offset = block.end_offset();
    judged.span.end_offset = block.end_offset();
    judged.span.log_time = intake.log_time;
    judged.tenants = intake.devices.tenants().clone();
    Ok(())
}
