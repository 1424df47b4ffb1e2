//! Epochs for tests, the way the engine would make them.

use std::sync::Arc;

use flexmeter_model::outcome::{
    ClosedEpoch, Device, EpochCounts, LatestChange, MeasurementColumns, MessageHead, PartitionOutcome, ProfileCell, ProfileChange, Quality,
    Reading,
};
use flexmeter_model::{EventTime, HardwareId, Identifier, TenantId};

pub(crate) fn identifier(index: u8) -> Identifier {
    Identifier::from_index(index).unwrap()
}

const N_PARTITIONS: u32 = 4;

pub(crate) struct Rows {
    tenant: TenantId,
    devices: Vec<Arc<Device>>,
    epoch: u64,
}

impl Rows {
    /// Devices `m-0`, `m-1`, … spread over four partitions.
    pub(crate) fn new(tenant: &str, n_devices: usize) -> Self {
        let mut rows = Self {
            tenant: TenantId::new(tenant).unwrap(),
            devices: Vec::new(),
            epoch: 0,
        };
        rows.grow(n_devices);
        rows
    }

    pub(crate) fn grow(&mut self, n_devices: usize) {
        for i in self.devices.len() as u32..n_devices as u32 {
            self.devices.push(Arc::new(Device {
                partition: i % N_PARTITIONS,
                index: i / N_PARTITIONS,
                tenant: self.tenant.clone(),
                hardware_id: HardwareId::new(&format!("m-{i}")).unwrap(),
            }));
        }
    }

    fn outcome(&mut self, fill: impl Fn(usize, &Arc<Device>, &mut PartitionOutcome)) -> ClosedEpoch {
        self.epoch += 1;
        // one partition entry for all devices in order: the store must not care
        let mut partition = PartitionOutcome {
            log_time: EventTime::from_micros(self.epoch as i64 * 1_000_000),
            ..Default::default()
        };
        for (i, device) in self.devices.iter().enumerate() {
            fill(i, device, &mut partition);
        }
        partition.counts = EpochCounts {
            n_messages: self.devices.len() as u64,
            n_accepted: self.devices.len() as u64,
            ..Default::default()
        };
        ClosedEpoch {
            epoch: self.epoch,
            partitions: vec![partition],
            ..Default::default()
        }
    }

    /// One message a device: (identifier, event time in seconds, value) of each reading.
    pub(crate) fn epoch(&mut self, readings: impl Fn(usize) -> Vec<(Identifier, i64, f64)>) -> ClosedEpoch {
        self.outcome(|i, device, out| {
            let readings = readings(i);
            let event_time = EventTime::from_micros(readings.first().map_or(0, |r| r.1) * 1_000_000);
            let MeasurementColumns {
                heads,
                identifiers,
                values,
            } = &mut out.measurements;
            heads.push(MessageHead {
                device: device.clone(),
                event_time,
                received_at: event_time,
                offset: i as u64,
                n_values: readings.len() as u32,
                quality: Quality::Good,
            });
            for (identifier, seconds, value) in readings {
                identifiers.push(identifier);
                values.push(value);
                let new = Some(Reading {
                    event_time: EventTime::from_micros(seconds * 1_000_000),
                    value,
                });
                out.latest.push(LatestChange {
                    device: device.clone(),
                    identifier,
                    old: None,
                    new,
                });
            }
        })
    }

    /// Every device's cell of identifier 0 in the window that starts at `minute` gets `n` readings of value 1 (or goes away).
    pub(crate) fn profile_epoch(&mut self, minute: i64, n: Option<u64>) -> ClosedEpoch {
        let window_start = EventTime::from_micros(minute * 60_000_000);
        self.outcome(|_, device, out| {
            let new = n.map(|n| ProfileCell {
                generation: 0,
                n,
                mean: 1.0,
                min: 1.0,
                max: 1.0,
                last: 1.0,
                last_time: window_start,
            });
            out.profile.push(ProfileChange {
                device: device.clone(),
                window_start,
                identifier: identifier(0),
                old: None,
                new,
            });
        })
    }
}
