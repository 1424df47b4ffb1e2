//! A simulated district: a few hundred meters with believable load curves and the faults real ones have.
//!
//! Pure and seeded: the same seed gives the same messages, and each message carries its truth, so that a checker knows exactly
//! which rows must come out at the other end.

mod load;
mod meter;
mod random;

use flexmeter_model::message::DeviceMessage;
use flexmeter_model::outcome::ReasonCode;
use flexmeter_model::{EventTime, Identifier};

use load::Household;
use random::Random;

pub use meter::{Electrical, Instrument};

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

impl SimulatedMessage {
    fn of_readings(hardware_id: &str, event_time: EventTime, readings: Vec<(Identifier, f64)>) -> Self {
        Self {
            hardware_id: hardware_id.to_owned(),
            payload: payload(hardware_id, event_time, &readings),
            event_time,
            readings,
            expected: Expected::Accepted,
        }
    }

    /// A message without readings: an alert or an acknowledgement.
    ///
    /// # Errors
    /// That of the encoder, for numbers that JSON has not.
    pub fn of_message(message: &DeviceMessage, event_time: EventTime) -> Result<Self, serde_json::Error> {
        Ok(Self {
            hardware_id: message.hardware_id.clone(),
            payload: serde_json::to_vec(message)?,
            event_time,
            readings: Vec::new(),
            expected: Expected::Accepted,
        })
    }
}

/// A district of simulated meters. What they take is its own; what voltage they have is the grid's, which is calculated elsewhere.
#[derive(Debug)]
pub struct District {
    config: DistrictConfig,
    random: Random,
    households: Vec<Household>,
    held_back: Vec<(u64, SimulatedMessage)>,
    step: u64,
    step_s: f64,
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
            step_s: 0.0,
        }
    }

    /// Hardware id and phases (0, 1, 2 for a, b, c) of every meter.
    pub fn meters(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.households
            .iter()
            .map(|household| (household.hardware_id.as_str(), household.phases.as_slice()))
    }

    /// Everybody lives on by `step_s` seconds, until `at`.
    pub fn advance(&mut self, at: EventTime, step_s: f64) {
        self.step_s = step_s;
        for household in &mut self.households {
            household.advance(at, step_s, &mut self.random);
        }
    }

    /// What every household takes, W and var by phase.
    pub fn loads(&self) -> impl ExactSizeIterator<Item = [[f64; 3]; 2]> {
        self.households.iter().map(Household::load)
    }

    /// The messages of one step, in the order they are sent: every meter that has a voltage measures once.
    pub fn measure(&mut self, at: EventTime, voltage_v: impl Fn(usize) -> Option<[f64; 3]>) -> Vec<SimulatedMessage> {
        self.step += 1;
        let mut messages = Vec::with_capacity(self.households.len() + 8);
        for i in 0..self.households.len() {
            let Some(voltage_v) = voltage_v(i) else { continue };
            let event_time = self.moment(at, self.households[i].offset_us);
            let household = &mut self.households[i];
            household.count(self.step_s);
            let readings = household.readings(voltage_v, &mut self.random);
            let message = SimulatedMessage::of_readings(&household.hardware_id, event_time, readings);
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

    /// What another meter of the district reads; it makes no mistakes but those of its class.
    pub fn read(
        &mut self,
        hardware_id: &str,
        at: EventTime,
        instrument: &Instrument,
        phases: &[usize],
        truth: &Electrical,
    ) -> SimulatedMessage {
        let readings = instrument.read(truth, phases, &mut self.random);
        let event_time = self.moment(at, 0);
        SimulatedMessage::of_readings(hardware_id, event_time, readings)
    }

    /// True with this probability.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.random.unit() < probability
    }

    /// A moment of a step, ms: meters are up to 0.2 s off.
    fn moment(&mut self, at: EventTime, offset_us: i64) -> EventTime {
        let jitter_us = (self.random.unit() * 200_000.0) as i64 + offset_us;
        EventTime::from_micros((at.micros() + jitter_us) / 1000 * 1000)
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
        let mut messages = Vec::new();
        for step in 0..steps {
            let at = EventTime::from_micros(1_760_000_000_000_000 + step * 60_000_000);
            district.advance(at, 60.0);
            messages.extend(district.measure(at, |_| Some([230.0; 3])));
        }
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
                    let Body::Measurements { good, bad, .. } = decoded.body else {
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
    fn a_meter_without_voltage_is_silent() {
        let mut district = District::new(DistrictConfig {
            n_meters: 4,
            late: 0.0,
            duplicates: 0.0,
            malformed: 0.0,
            ..DistrictConfig::default()
        });
        let at = EventTime::from_micros(1_760_000_000_000_000);
        district.advance(at, 60.0);
        let messages = district.measure(at, |i| (i != 2).then_some([230.0; 3]));
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(|message| message.hardware_id != "DEMO-001-003"));
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
