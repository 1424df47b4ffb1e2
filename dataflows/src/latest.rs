//! The view `latest`: the newest value of every device and quantity, by event time. Of two values with the same event time the one
//! that stands later in the log counts: it is a correction.

use std::rc::Rc;
use std::sync::Arc;

use flexmeter_model::outcome::{Device, LatestChange, MeasurementColumns, Reading};
use flexmeter_model::{EventTime, Identifier};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::batch::{Accepted, Part};
use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::devices::DeviceTable;
use crate::partition::PerPartition;

/// Keeps the newest value of every device and quantity, and says which ones changed.
pub(crate) fn latest<'scope>(accepted: StreamVec<'scope, u64, Rc<Accepted>>, views: PerPartition<Latest>) -> StreamVec<'scope, u64, Part> {
    accepted.unary(Pipeline, "latest", |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, containers| {
                let mut views = views.borrow_mut();
                let mut parts = containers
                    .flat_map(std::mem::take)
                    .map(|batch| {
                        let partition = batch.span.partition;
                        Part::Latest(partition, views.entry(partition).or_default().apply(&batch.rows.measurements))
                    })
                    .collect();
                output.session(&time).give_container(&mut parts);
            });
        }
    })
}

/// The view's rows of one partition.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// By device index.
    devices: Vec<DeviceRows>,
    /// Counts the batches; tells which change positions are of the current one.
    batch: u64,
}

/// A device's rows, in the order its quantities were first seen: that is the order its next message will mostly have them in.
#[derive(Debug, Default)]
struct DeviceRows {
    rows: Vec<Row>,
    /// The batch the rows' change positions are of.
    batch: u64,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    event_time: i64,
    value: f64,
    /// Position of the row's change in the current batch's list, plus one; 0 when it has none.
    change: u32,
    identifier: Identifier,
}

impl Row {
    fn reading(&self) -> Reading {
        Reading {
            event_time: EventTime::from_micros(self.event_time),
            value: self.value,
        }
    }
}

impl Latest {
    fn apply(&mut self, measurements: &MeasurementColumns) -> Vec<LatestChange> {
        self.batch += 1;
        let mut changes = Vec::with_capacity(measurements.values.len());
        for (head, identifiers, values) in measurements.messages() {
            let index = head.device.index as usize;
            if index >= self.devices.len() {
                self.devices.resize_with(index + 1, DeviceRows::default);
            }
            let device = &mut self.devices[index];
            device.enter(self.batch);
            let mut next = 0;
            for (&identifier, &value) in identifiers.iter().zip(values) {
                device.put(
                    identifier,
                    Reading {
                        event_time: head.event_time,
                        value,
                    },
                    &mut next,
                    &head.device,
                    &mut changes,
                );
            }
        }
        changes.retain(|change: &LatestChange| change.old != change.new);
        changes
    }

    /// A device's rows.
    pub(crate) fn of_device(&self, index: u32) -> impl Iterator<Item = (Identifier, Reading)> {
        let rows = self.devices.get(index as usize).into_iter().flat_map(|device| &device.rows);
        rows.map(|row| (row.identifier, row.reading()))
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.len(self.devices.len());
        for device in &self.devices {
            out.len(device.rows.len());
            for row in &device.rows {
                out.u8(row.identifier.index() as u8);
                out.i64(row.event_time);
                out.f64(row.value);
            }
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>, n_devices_max: usize) -> Result<Self, CheckpointError> {
        let n_devices = input.len(1)?;
        if n_devices > n_devices_max {
            return Err(CheckpointError::Value {
                what: "number of devices in latest",
            });
        }
        let mut devices = Vec::with_capacity(n_devices);
        for _ in 0..n_devices {
            let n_rows = input.len(17)?;
            if n_rows > Identifier::COUNT {
                return Err(CheckpointError::Value {
                    what: "number of rows in latest",
                });
            }
            let mut rows = Vec::with_capacity(n_rows);
            for _ in 0..n_rows {
                let identifier = read_identifier(input)?;
                rows.push(Row {
                    identifier,
                    event_time: input.i64()?,
                    value: input.f64()?,
                    change: 0,
                });
            }
            devices.push(DeviceRows { rows, batch: 0 });
        }
        Ok(Self { devices, batch: 0 })
    }

    /// Every row, as a change from nothing.
    pub(crate) fn restored_changes(&self, table: &DeviceTable) -> Vec<LatestChange> {
        let devices = self.devices.iter().enumerate();
        let rows = devices.filter_map(|(index, device)| Some((table.device(index as u32)?, &device.rows)));
        rows.flat_map(|(device, rows)| {
            rows.iter().map(move |row| LatestChange {
                device: device.clone(),
                identifier: row.identifier,
                old: None,
                new: Some(row.reading()),
            })
        })
        .collect()
    }
}

impl DeviceRows {
    /// Change positions of earlier batches mean nothing any more.
    fn enter(&mut self, batch: u64) {
        if self.batch != batch {
            self.batch = batch;
            self.rows.iter_mut().for_each(|row| row.change = 0);
        }
    }

    /// Takes a reading in. `next` is where its row should be if the message has its quantities in the usual order.
    fn put(&mut self, identifier: Identifier, reading: Reading, next: &mut usize, device: &Arc<Device>, changes: &mut Vec<LatestChange>) {
        let position = match self.rows.get(*next) {
            Some(row) if row.identifier == identifier => *next,
            _ => self
                .rows
                .iter()
                .position(|row| row.identifier == identifier)
                .unwrap_or(self.rows.len()),
        };
        *next = position + 1;
        let (event_time, value) = (reading.event_time.micros(), reading.value);
        let change = |old| LatestChange {
            device: device.clone(),
            identifier,
            old,
            new: Some(reading),
        };
        match self.rows.get_mut(position) {
            None => {
                changes.push(change(None));
                self.rows.push(Row {
                    event_time,
                    value,
                    change: changes.len() as u32,
                    identifier,
                });
            }
            Some(row) if event_time < row.event_time => {}
            Some(row) => {
                match changes.get_mut((row.change as usize).wrapping_sub(1)) {
                    Some(change) => change.new = Some(reading),
                    None => {
                        changes.push(change(Some(row.reading())));
                        row.change = changes.len() as u32;
                    }
                }
                row.event_time = event_time;
                row.value = value;
            }
        }
    }
}

/// An identifier, as its number.
pub(crate) fn read_identifier(input: &mut Reader<'_>) -> Result<Identifier, CheckpointError> {
    Identifier::from_index(input.u8()?).ok_or(CheckpointError::Value { what: "identifier" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexmeter_model::outcome::{MessageHead, Quality};
    use flexmeter_model::{HardwareId, TenantId};

    /// A message of device 0: event time, and values by identifier number.
    type Message<'a> = (i64, &'a [(u8, f64)]);

    fn measurements(messages: &[Message<'_>]) -> MeasurementColumns {
        let (tenant, hardware_id) = (TenantId::new("t").unwrap(), HardwareId::new("m").unwrap());
        let device = Arc::new(Device {
            partition: 0,
            index: 0,
            tenant,
            hardware_id,
        });
        let mut columns = MeasurementColumns::default();
        for (offset, (event_time, values)) in messages.iter().enumerate() {
            let event_time = EventTime::from_micros(*event_time);
            let (device, offset, n_values) = (device.clone(), offset as u64, values.len() as u32);
            columns.heads.push(MessageHead {
                device,
                event_time,
                received_at: event_time,
                offset,
                n_values,
                quality: Quality::Good,
            });
            for &(identifier, value) in *values {
                columns.identifiers.push(Identifier::from_index(identifier).unwrap());
                columns.values.push(value);
            }
        }
        columns
    }

    type Change = (usize, Option<(i64, f64)>, Option<(i64, f64)>);

    fn check(batches: &[&[Message<'_>]], expected: &[Change]) {
        let mut latest = Latest::default();
        let changes = batches.iter().map(|batch| latest.apply(&measurements(batch))).last().unwrap();
        let pair = |reading: Option<Reading>| reading.map(|reading| (reading.event_time.micros(), reading.value));
        let changes: Vec<_> = changes.iter().map(|c| (c.identifier.index(), pair(c.old), pair(c.new))).collect();
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_batch_gives_one_net_change_for_each_key() {
        check(
            &[&[(10, &[(0, 1.0), (1, 2.0)]), (20, &[(1, 3.0)])]],
            &[(0, None, Some((10, 1.0))), (1, None, Some((20, 3.0)))],
        );
    }

    #[test]
    fn an_older_reading_changes_nothing() {
        check(&[&[(10, &[(0, 1.0)])], &[(9, &[(0, 5.0)])]], &[]);
    }

    #[test]
    fn of_equal_event_times_the_later_in_the_log_wins() {
        check(
            &[&[(10, &[(0, 1.0)])], &[(10, &[(0, 5.0)])]],
            &[(0, Some((10, 1.0)), Some((10, 5.0)))],
        );
        check(&[&[(10, &[(0, 1.0)])], &[(10, &[(0, 1.0)])]], &[]);
    }

    #[test]
    fn the_order_of_quantities_in_a_message_does_not_matter() {
        let expected = [
            (2, Some((10, 3.0)), Some((20, 6.0))),
            (0, Some((10, 1.0)), Some((20, 4.0))),
            (1, None, Some((20, 5.0))),
        ];
        check(
            &[&[(10, &[(0, 1.0), (2, 3.0)])], &[(20, &[(2, 6.0), (0, 4.0), (1, 5.0)])]],
            &expected,
        );
    }
}
