//! Judging one record: what it says, whose it is, and whether it can be believed.

use std::ops::Range;
use std::sync::Arc;

use flexmeter_model::decode::{BadMeasurement, Body, DecodeError, Decoder, Message};
use flexmeter_model::outcome::{
    AcknowledgementRow, AlertRow, Device, MessageHead, Quality, REJECTED_PAYLOAD_LEN_MAX, REJECTED_PAYLOAD_SHARED_LEN, ReasonCode,
    RegistrationRow, RejectionRow,
};
use flexmeter_model::record::{FrameError, PAYLOAD_LEN_MAX, Record, RecordKind};
use flexmeter_model::{HardwareId, TenantId};
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{BoundaryRow, Judged, Kind, Novelty, Tick, Verdict};
use crate::config::{EngineConfig, TICK_US};
use crate::decode::Intake;
use crate::error::EngineError;
use crate::identities::Identity;

/// Append times a log may hold: 1970 to 9999. Anything else is a damaged record, and would move log time for good.
pub(crate) const RECEIVED_AT_US: Range<i64> = 0..253_402_300_800_000_000;

/// Judges the records of one block.
pub(crate) struct Judge<'a> {
    pub(crate) partition: u32,
    pub(crate) intake: &'a mut Intake,
    pub(crate) config: &'a EngineConfig,
    pub(crate) judged: &'a mut Judged,
}

/// Where a message stands in the log.
#[derive(Clone, Copy)]
struct Place<'a> {
    record: &'a Record<'a>,
    tenant: u32,
    offset: u64,
    /// The message's bytes: the record's payload, or one event of a legacy batch.
    payload: &'a [u8],
    /// Position in a legacy batch.
    part: u32,
}

/// Why a message is rejected as a whole.
struct Refusal {
    reason: ReasonCode,
    detail: String,
    /// Whom the payload speaks for.
    hardware_id: Option<String>,
}

impl Judge<'_> {
    /// Judges a record's messages.
    pub(crate) fn record(&mut self, offset: u64, record: &Record<'_>, decoder: &mut Decoder) -> Result<(), EngineError> {
        let corrupt = |what| EngineError::CorruptRecord {
            partition: self.partition,
            offset,
            source: FrameError::Corrupt { at: 0, what },
        };
        if !RECEIVED_AT_US.contains(&record.received_at.micros()) {
            return Err(corrupt("append time"));
        }
        if record.kind == RecordKind::Heartbeat {
            // nobody's message: the log's own heartbeats name no tenant
            self.advance_log_time(record.received_at.micros(), offset);
            return Ok(());
        }
        let Some(tenant) = self.intake.devices.tenant(record.tenant) else {
            return Err(corrupt("tenant"));
        };
        self.advance_log_time(record.received_at.micros(), offset);
        let place = Place {
            record,
            tenant,
            offset,
            payload: record.payload,
            part: 0,
        };
        match record.kind {
            RecordKind::Heartbeat => {}
            RecordKind::Message => self.message(place, decoder.decode(record.payload)),
            RecordKind::LegacyBatch => {
                let mut part = 0;
                decoder.decode_legacy_batch(record.payload, |payload, message| {
                    self.message(Place { payload, part, ..place }, message);
                    part += 1;
                });
            }
            RecordKind::Oversized => {
                let detail = format!("more than {} bytes", PAYLOAD_LEN_MAX);
                self.refuse(
                    place,
                    Refusal {
                        reason: ReasonCode::TooLarge,
                        detail,
                        hardware_id: None,
                    },
                );
            }
        }
        Ok(())
    }

    /// Timers that are due by a record's append time fire before the record itself is judged.
    fn advance_log_time(&mut self, received_at: i64, offset: u64) {
        if received_at > self.intake.log_time {
            self.intake.log_time = received_at;
            let minute = received_at.div_euclid(TICK_US);
            if minute > self.intake.minute {
                self.intake.minute = minute;
                self.judged.ticks.push(Tick {
                    before: self.judged.verdicts.len(),
                    minute,
                    offset,
                });
            }
        }
    }

    fn message(&mut self, place: Place<'_>, message: Result<Message<'_>, DecodeError>) {
        let message = match message {
            Ok(message) => message,
            Err(DecodeError {
                reason,
                detail,
                hardware_id,
            }) => {
                return self.refuse(
                    place,
                    Refusal {
                        reason,
                        detail,
                        hardware_id,
                    },
                );
            }
        };
        if let Err(refusal) = self.accept(place, &message) {
            self.refuse(place, refusal);
        }
    }

    /// Files the rows of a good message, or says why it is none.
    fn accept(&mut self, place: Place<'_>, message: &Message<'_>) -> Result<(), Refusal> {
        let Place { record, offset, .. } = place;
        let refusal = |reason, detail| Refusal {
            reason,
            detail,
            hardware_id: None,
        };
        // A gateway's record was filed under the id its payload names, so for it a difference means that the record was misfiled.
        if message.hardware_id != record.hardware_id {
            let detail = format!(
                "the payload speaks for {}, the sender is {}",
                message.hardware_id, record.hardware_id
            );
            return Err(refusal(ReasonCode::IdentityMismatch, detail));
        }
        if let Some(event_date) = message.event_date
            && event_date.micros().saturating_sub(record.received_at.micros()) > self.config.future_tolerance_us
        {
            let detail = format!("eventDate {event_date}, received {}", record.received_at);
            return Err(refusal(ReasonCode::TooFarInFuture, detail));
        }
        if let Body::Measurements { good: [], bad, .. } = &message.body
            && !bad.is_empty()
        {
            self.refuse_measurements(place, bad);
            return Ok(());
        }
        let event_time = message.event_date.unwrap_or(record.received_at);
        let device = self.device(place, matches!(message.body, Body::Register { .. }))?;
        let index = device.index;
        let received_at = record.received_at;
        let n_rejections_before = self.judged.rows.rejections.len();
        if let Body::Measurements { bad, .. } = &message.body {
            self.push_bad_measurements(place, Some(&device.hardware_id), bad);
        }
        let rows = &mut self.judged.rows;
        let kind = match &message.body {
            Body::Measurements { good, boundary, .. } => {
                if good.is_empty() {
                    Kind::Empty
                } else {
                    let head = rows.measurements.heads.len();
                    let columns = &mut rows.measurements;
                    for &(identifier, value) in *good {
                        columns.identifiers.push(identifier);
                        columns.values.push(value);
                    }
                    let n_values = good.len() as u32;
                    columns.heads.push(MessageHead {
                        device,
                        event_time,
                        received_at,
                        offset,
                        n_values,
                        quality: Quality::Good,
                    });
                    match boundary {
                        Some(boundary) => {
                            let boundary = (*boundary).clone();
                            rows.boundaries.push(BoundaryRow { head, boundary });
                            Kind::Boundary
                        }
                        None => Kind::Measurements,
                    }
                }
            }
            Body::Alert {
                alert_type,
                level,
                message,
                metadata,
            } => {
                rows.alerts.push(AlertRow {
                    device,
                    alert_type: alert_type.to_string(),
                    level: *level,
                    message: message.to_string(),
                    metadata: metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
                    event_time,
                    received_at,
                    offset,
                });
                Kind::Alert
            }
            Body::Acknowledge {
                originating_event_id,
                response,
                ..
            } => {
                rows.acknowledgements.push(AcknowledgementRow {
                    device,
                    originating_event_id: originating_event_id.to_string(),
                    response: response.to_string(),
                    event_time,
                    received_at,
                    offset,
                });
                Kind::Acknowledgement
            }
            Body::Register {
                specification_token,
                site_token,
            } => {
                rows.registrations.push(RegistrationRow {
                    device,
                    specification_token: specification_token.to_string(),
                    site_token: site_token.as_ref().map(ToString::to_string),
                    received_at,
                    offset,
                });
                Kind::Registration
            }
        };
        let (identity, novelty) = match message.event_date {
            Some(_) => {
                let event_time = event_time.micros();
                let identity = Identity::dated(index, kind as u8, event_time, message.content_hash);
                (identity, Novelty::Dated { device: index, event_time })
            }
            None => {
                let identity = Identity::undated(index, kind as u8, message.content_hash);
                (
                    identity,
                    Novelty::Undated {
                        redelivered: record.redelivered,
                    },
                )
            }
        };
        let n_rejections = (rows.rejections.len() - n_rejections_before) as u32;
        self.judged.verdicts.push(Verdict {
            kind,
            n_rejections,
            tenant: place.tenant,
            identity,
            novelty,
            log_time: self.intake.log_time,
        });
        Ok(())
    }

    /// The device a record is filed under; it is added when it is new.
    fn device(&mut self, place: Place<'_>, registers: bool) -> Result<Arc<Device>, Refusal> {
        let name = place.record.hardware_id;
        let refusal = |reason, detail| Refusal {
            reason,
            detail,
            hardware_id: None,
        };
        let unknown = || refusal(ReasonCode::UnknownDevice, format!("{name} is not registered"));
        if let Some(met) = self.intake.devices.find(place.tenant, name) {
            return if met.known || registers {
                Ok(met.device.clone())
            } else {
                Err(unknown())
            };
        }
        let known = self.config.unknown_devices.knows(place.record.tenant, name);
        if !known && !registers {
            return Err(unknown());
        }
        if self.intake.devices.len() >= self.config.devices_max {
            let detail = format!(
                "{name} is new, and the partition already has {} devices, its limit",
                self.config.devices_max
            );
            return Err(refusal(ReasonCode::UnknownDevice, detail));
        }
        let hardware_id = HardwareId::new(name).map_err(|error| refusal(ReasonCode::WrongShape, format!("hardwareId: {error}")))?;
        Ok(self
            .intake
            .devices
            .add(self.partition, place.tenant, hardware_id, known)
            .device
            .clone())
    }

    /// Files a message whose measurements are all bad: it is rejected as a whole, with one row for each.
    fn refuse_measurements(&mut self, place: Place<'_>, bad: &[BadMeasurement]) {
        let hardware_id = HardwareId::new(place.record.hardware_id).ok();
        self.push_bad_measurements(place, hardware_id.as_ref(), bad);
        self.push_rejected_verdict(place, bad.len() as u32);
    }

    fn push_bad_measurements(&mut self, place: Place<'_>, hardware_id: Option<&HardwareId>, bad: &[BadMeasurement]) {
        for measurement in bad {
            let detail = measurement.detail.clone();
            self.push_rejection(place, hardware_id.cloned(), measurement.reason, detail, bad.len());
        }
    }

    fn refuse(&mut self, place: Place<'_>, refusal: Refusal) {
        let hardware_id = HardwareId::new(place.record.hardware_id)
            .ok()
            .or_else(|| HardwareId::new(refusal.hardware_id.as_deref()?).ok());
        self.push_rejection(place, hardware_id, refusal.reason, refusal.detail, 1);
        self.push_rejected_verdict(place, 1);
    }

    fn push_rejection(
        &mut self,
        place: Place<'_>,
        hardware_id: Option<HardwareId>,
        reason: ReasonCode,
        detail: String,
        n_of_message: usize,
    ) {
        let tenant = self.tenant_id(place.tenant);
        let payload = rejected_payload(place.payload, n_of_message);
        let (received_at, offset) = (place.record.received_at, place.offset);
        self.judged.rows.rejections.push(RejectionRow {
            tenant,
            hardware_id,
            reason,
            detail,
            payload,
            received_at,
            offset,
        });
    }

    fn push_rejected_verdict(&mut self, place: Place<'_>, n_rejections: u32) {
        let hardware_id_hash = xxh3_64(place.record.hardware_id.as_bytes());
        let identity = Identity::payload(place.tenant, hardware_id_hash, xxh3_64(place.payload), place.part);
        self.judged.verdicts.push(Verdict {
            kind: Kind::Rejected,
            n_rejections,
            tenant: place.tenant,
            identity,
            novelty: Novelty::Payload,
            log_time: self.intake.log_time,
        });
    }

    fn tenant_id(&self, tenant: u32) -> TenantId {
        self.intake.devices.tenants()[tenant as usize].clone()
    }
}

/// A rejected payload as text: what is not UTF-8 is replaced, what is too long is cut. Several rejections of one
/// message share a smaller limit, so that a message of nothing but bad measurements does not store itself hundreds of times.
fn rejected_payload(payload: &[u8], n_rejections: usize) -> String {
    let len_max = match n_rejections {
        0 | 1 => REJECTED_PAYLOAD_LEN_MAX,
        n => REJECTED_PAYLOAD_SHARED_LEN / n,
    };
    let mut text = String::from_utf8_lossy(&payload[..payload.len().min(len_max)]).into_owned();
    text.truncate(text.floor_char_boundary(len_max));
    text
}

#[cfg(test)]
mod tests;
