//! A simulated district: a few hundred meters with believable load curves and the faults real ones have.
//!
//! Pure and seeded: the same seed gives the same messages, and each message carries its truth, so that a checker knows exactly
//! which rows must come out at the other end.

mod load;
mod random;

use flexmeter_model::outcome::ReasonCode;
use flexmeter_model::{EventTime, Identifier};

use load::Household;
use random::Random;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct DistrictConfig {
    /// Number of meters.
    pub n_meters: u32,
    /// Seed of everything.
    pub seed: u64,
    /// Share of messages that are sent a second time.
    pub duplicates: f64,
    /// Share of messages that are held back and sent one to twenty steps later.
    pub late: f64,
    /// Share of messages that are broken in one of the known ways.
    pub malformed: f64,
}

impl Default for DistrictConfig {
    fn default() -> Self {
        Self {
            n_meters: 300,
            seed: 1,
            duplicates: 0.005,
            late: 0.01,
            malformed: 0.003,
        }
    }
}

/// What must become of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// All its readings are kept.
    Accepted,
    /// It repeats an earlier message: dropped.
    Duplicate,
    /// It is rejected as a whole.
    Rejected(ReasonCode),
    /// One reading is rejected by name, the others are kept.
    PartlyRejected(ReasonCode),
}

/// One message as a simulated meter sends it.
#[derive(Debug, Clone)]
pub struct SimulatedMessage {
    /// The meter that logs in and publishes.
    pub hardware_id: String,
    /// JSON of D4.6 section 4.5.1.
    pub payload: Vec<u8>,
    /// When it was measured.
    pub event_time: EventTime,
    /// The readings that must be kept.
    pub readings: Vec<(Identifier, f64)>,
    /// What must become of it.
    pub expected: Expected,
}

/// A district of simulated meters.
#[derive(Debug)]
pub struct District {
    config: DistrictConfig,
    random: Random,
    households: Vec<Household>,
    held_back: Vec<(u64, SimulatedMessage)>,
    step: u64,
}

/// Steps a late message is held back at most.
const LATE_STEPS_MAX: u64 = 20;

impl District {
    /// Builds the district.
    #[must_use]
    pub fn new(config: DistrictConfig) -> Self {
        let mut random = Random::new(config.seed);
        let households = (0..config.n_meters).map(|i| Household::new(i, &mut random)).collect();
        Self {
            config,
            random,
            households,
            held_back: Vec::new(),
            step: 0,
        }
    }

    /// The hardware ids of all meters.
    pub fn hardware_ids(&self) -> impl Iterator<Item = &str> {
        self.households.iter().map(|household| household.hardware_id.as_str())
    }

    /// The messages of one step, in the order they are sent: every meter measures once, `step_s` seconds after the step before.
    pub fn measure(&mut self, at: EventTime, step_s: f64) -> Vec<SimulatedMessage> {
        self.step += 1;
        // the feeder's voltage sags with the load of the whole street: one number couples all meters
        let street_kw: f64 = self.households.iter().map(Household::power_kw).sum();
        let sag = 1.0 - 0.04 * (street_kw / (1.5 * f64::from(self.config.n_meters.max(1)))).clamp(-1.0, 1.5);
        let mut messages = Vec::with_capacity(self.households.len() + 8);
        for i in 0..self.households.len() {
            let household = &mut self.households[i];
            household.advance(at, step_s, &mut self.random);
            let jitter_us = (self.random.unit() * 200_000.0) as i64 + household.offset_us;
            let event_time = EventTime::from_micros((at.micros() + jitter_us) / 1000 * 1000);
            let readings = household.readings(sag, &mut self.random);
            let message = SimulatedMessage {
                hardware_id: household.hardware_id.clone(),
                payload: payload(&household.hardware_id, event_time, &readings),
                event_time,
                readings,
                expected: Expected::Accepted,
            };
            self.with_faults(message, &mut messages);
        }
        let due: Vec<_> = self
            .held_back
            .extract_if(.., |(step, _)| *step <= self.step)
            .map(|(_, message)| message)
            .collect();
        messages.extend(due);
        messages
    }

    /// What is still held back as late; a run that ends sends it now, so that nothing measured is missing.
    pub fn finish(&mut self) -> Vec<SimulatedMessage> {
        self.held_back.drain(..).map(|(_, message)| message).collect()
    }

    fn with_faults(&mut self, message: SimulatedMessage, out: &mut Vec<SimulatedMessage>) {
        let draw = self.random.unit();
        let DistrictConfig {
            malformed,
            late,
            duplicates,
            ..
        } = self.config;
        if draw < malformed {
            out.push(broken(message, self.random.below(6)));
        } else if draw < malformed + late {
            let due = self.step + 1 + self.random.below(LATE_STEPS_MAX);
            self.held_back.push((due, message));
        } else if draw < malformed + late + duplicates {
            let again = SimulatedMessage {
                expected: Expected::Duplicate,
                readings: Vec::new(),
                ..message.clone()
            };
            out.push(message);
            out.push(again);
        } else {
            out.push(message);
        }
    }
}

fn payload(hardware_id: &str, event_time: EventTime, readings: &[(Identifier, f64)]) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = format!("{{\"hardwareId\":\"{hardware_id}\",\"type\":\"DeviceMeasurements\",\"request\":{{\"measurements\":{{");
    for (i, (identifier, value)) in readings.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // writing to a String cannot fail
        let _ = write!(text, "{comma}\"{}\":{value}", identifier.name());
    }
    let _ = write!(text, "}},\"updateState\":true,\"eventDate\":\"{event_time}\"}}}}");
    text.into_bytes()
}

/// Breaks a message in one of the six ways meters in the field do.
fn broken(message: SimulatedMessage, way: u64) -> SimulatedMessage {
    let text = String::from_utf8_lossy(&message.payload).into_owned();
    let first = message.readings.first().map_or("", |(identifier, _)| identifier.name());
    let replaced = |from: &str, to: &str| text.replacen(from, to, 1).into_bytes();
    let (payload, expected) = match way {
        0 => (
            message.payload[..message.payload.len() * 2 / 3].to_vec(),
            Expected::Rejected(ReasonCode::MalformedJson),
        ),
        1 => (
            replaced("\"hardwareId\"", "\"hardwareld\""),
            Expected::Rejected(ReasonCode::MissingField),
        ),
        2 => (
            replaced("DeviceMeasurements", "DeviceMeasurement"),
            Expected::Rejected(ReasonCode::UnknownType),
        ),
        3 => (
            replaced("\"eventDate\":\"", "\"eventDate\":\"x"),
            Expected::Rejected(ReasonCode::BadEventDate),
        ),
        4 => (
            replaced(first, "electricity.current.rms.l9"),
            Expected::PartlyRejected(ReasonCode::UnknownIdentifier),
        ),
        _ => {
            let value = message.readings.first().map_or(0.0, |(_, value)| *value);
            (
                replaced(&format!("\":{value}"), "\":null"),
                Expected::PartlyRejected(ReasonCode::NotANumber),
            )
        }
    };
    let readings = match expected {
        Expected::PartlyRejected(_) => message.readings[1..].to_vec(),
        _ => Vec::new(),
    };
    SimulatedMessage {
        payload,
        readings,
        expected,
        ..message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexmeter_model::decode::{Body, Decoder};

    fn run(seed: u64, steps: i64) -> Vec<SimulatedMessage> {
        let mut district = District::new(DistrictConfig {
            n_meters: 50,
            seed,
            malformed: 0.05,
            ..DistrictConfig::default()
        });
        let mut messages: Vec<_> = (0..steps)
            .flat_map(|step| district.measure(EventTime::from_micros(1_760_000_000_000_000 + step * 60_000_000), 60.0))
            .collect();
        messages.extend(district.finish());
        messages
    }

    #[test]
    fn the_same_seed_gives_the_same_district() {
        let payloads = |seed| run(seed, 20).into_iter().map(|m| m.payload).collect::<Vec<_>>();
        assert_eq!(payloads(7), payloads(7));
        assert_ne!(payloads(7), payloads(8));
    }

    #[test]
    fn every_message_decodes_to_what_it_expects() {
        let mut decoder = Decoder::new();
        for message in run(3, 100) {
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            match (decoder.decode(&message.payload), &message.expected) {
                (Err(error), Expected::Rejected(reason)) => assert_eq!(error.reason, *reason, "{text}"),
                (Ok(decoded), Expected::Accepted | Expected::PartlyRejected(_)) => {
                    let Body::Measurements { good, bad } = decoded.body else {
                        panic!("{text}")
                    };
                    assert_eq!(good, message.readings.as_slice(), "{text}");
                    assert_eq!(decoded.event_date, Some(message.event_time));
                    assert_eq!(bad.len(), usize::from(message.expected != Expected::Accepted));
                }
                (Ok(_), Expected::Duplicate) => {}
                (outcome, expected) => panic!("{outcome:?} where {expected:?} was due: {text}"),
            }
        }
    }

    #[test]
    fn every_kind_of_fault_happens() {
        let messages = run(5, 200);
        for reason in [
            ReasonCode::MalformedJson,
            ReasonCode::MissingField,
            ReasonCode::UnknownType,
            ReasonCode::BadEventDate,
        ] {
            assert!(messages.iter().any(|m| m.expected == Expected::Rejected(reason)), "{reason:?}");
        }
        assert!(messages.iter().any(|m| m.expected == Expected::Duplicate));
        assert!(
            messages.windows(2).any(|pair| pair[0].event_time > pair[1].event_time),
            "some message is late"
        );
    }
}
