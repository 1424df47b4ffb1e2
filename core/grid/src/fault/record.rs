//! A fault record: what was measured at the head, as JSON.
//!
//! ```json
//! {"head": {"node": 1, "branch": 10}, "frequency_hz": 50,
//!  "before": {"voltage": {"magnitude_v": [5774, 5774, 5774], "angle_rad": [0, -2.094, 2.094]},
//!             "current": {"magnitude_a": [80, 95, 70], "angle_rad": [-0.3, -2.4, 1.8]}},
//!  "during": {"voltage": {"magnitude_v": [2100, 5790, 5760], "angle_rad": [0.1, -2.1, 2.1]},
//!             "current": {"magnitude_a": [1900, 95, 70], "angle_rad": [-1.1, -2.4, 1.8]}}}
//! ```
//! Instead of `before` and `during` a record can hold `waveform`: `samples_per_cycle`, `voltage_v` and `current_a`, each a list of
//! samples for phases a, b, c. Optional: `accuracy` (`voltage`, `current` as shares, `angle_rad`: limits of the meter's class).

use serde::Deserialize;

use super::Head;
use super::phasor::Phasors;
use super::waveform::Waveform;
use crate::error::GridError;
use crate::model::C64;
use crate::network::ComponentId;

/// How far readings may be off: the limits of a meter's class. A third of a limit counts as a standard deviation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accuracy {
    /// Share of a voltage.
    pub voltage: f64,
    /// Share of a current.
    pub current: f64,
    /// Angle of either, rad.
    pub angle_rad: f64,
}

impl Default for Accuracy {
    /// Class 0.5 of IEC 61869: half a per cent, 30 minutes of arc.
    fn default() -> Self {
        Self {
            voltage: 0.005,
            current: 0.005,
            angle_rad: 0.0087,
        }
    }
}

/// What was measured at the head of a feeder.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRecord {
    /// Where.
    pub head: Head,
    /// Before the fault.
    pub before: Phasors,
    /// While it was on, before anything switched.
    pub during: Phasors,
    /// How well.
    pub accuracy: Accuracy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    head: HeadText,
    frequency_hz: Option<f64>,
    before: Option<PhasorsText>,
    during: Option<PhasorsText>,
    waveform: Option<WaveformText>,
    #[serde(default)]
    accuracy: Accuracy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadText {
    node: ComponentId,
    branch: Option<ComponentId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhasorsText {
    voltage: VoltageText,
    current: CurrentText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VoltageText {
    magnitude_v: [f64; 3],
    angle_rad: [f64; 3],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CurrentText {
    magnitude_a: [f64; 3],
    angle_rad: [f64; 3],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaveformText {
    samples_per_cycle: usize,
    voltage_v: [Vec<f64>; 3],
    current_a: [Vec<f64>; 3],
}

/// Grids run at one of these; anything else is a slip of units.
const FREQUENCY_HZ: std::ops::RangeInclusive<f64> = 45.0..=65.0;
/// Nobody measures more, V or A.
const MAGNITUDE_MAX: f64 = 1e9;
/// An angle beyond this is in degrees.
const ANGLE_MAX_RAD: f64 = 7.0;

fn bad(field: &'static str, reason: impl Into<String>) -> GridError {
    GridError::FaultRecord {
        field,
        reason: reason.into(),
    }
}

fn polar(names: [&'static str; 2], magnitude: [f64; 3], angle: [f64; 3]) -> Result<[C64; 3], GridError> {
    if let Some(value) = magnitude.iter().find(|value| !(**value >= 0.0 && **value <= MAGNITUDE_MAX)) {
        return Err(bad(names[0], format!("{value} is no magnitude; give 0 to 1e9")));
    }
    if let Some(value) = angle.iter().find(|value| !(value.abs() <= ANGLE_MAX_RAD)) {
        return Err(bad(names[1], format!("{value} is no angle in radians; give -2 pi to 2 pi")));
    }
    Ok(std::array::from_fn(|k| C64::from_polar(magnitude[k], angle[k])))
}

impl PhasorsText {
    /// `names`: magnitude and angle of the voltage, then of the current.
    fn phasors(&self, names: [&'static str; 4]) -> Result<Phasors, GridError> {
        Ok(Phasors {
            voltage_v: polar([names[0], names[1]], self.voltage.magnitude_v, self.voltage.angle_rad)?,
            current_a: polar([names[2], names[3]], self.current.magnitude_a, self.current.angle_rad)?,
        })
    }
}

impl FaultRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// [`GridError::FaultRecord`] that names the field and the remedy.
    pub fn from_json(text: &str) -> Result<Self, GridError> {
        let text: Text = serde_json::from_str(text).map_err(|error| bad("the text", format!("{error}; see the record's format")))?;
        if let Some(hz) = text.frequency_hz.filter(|hz| !FREQUENCY_HZ.contains(hz)) {
            return Err(bad("frequency_hz", format!("{hz} is no grid's frequency; give 50 or 60")));
        }
        let (before, during) = match (&text.before, &text.during, text.waveform) {
            (Some(before), Some(during), None) => (
                before.phasors([
                    "before.voltage.magnitude_v",
                    "before.voltage.angle_rad",
                    "before.current.magnitude_a",
                    "before.current.angle_rad",
                ])?,
                during.phasors([
                    "during.voltage.magnitude_v",
                    "during.voltage.angle_rad",
                    "during.current.magnitude_a",
                    "during.current.angle_rad",
                ])?,
            ),
            (None, None, Some(waveform)) => {
                let found = Waveform {
                    samples_per_cycle: waveform.samples_per_cycle,
                    voltage_v: waveform.voltage_v,
                    current_a: waveform.current_a,
                }
                .phasors()?;
                (found.before, found.during)
            }
            _ => {
                return Err(bad(
                    "before, during, waveform",
                    "give either both before and during, or waveform alone",
                ));
            }
        };
        Ok(Self {
            head: Head {
                node: text.head.node,
                branch: text.head.branch,
            },
            before,
            during,
            accuracy: text.accuracy,
        })
    }

    /// Whether everything is a number that a feeder of this rated voltage can have.
    pub(super) fn check(&self, u_rated_v: f64) -> Result<(), GridError> {
        let rated = u_rated_v / 3f64.sqrt();
        let Accuracy {
            voltage,
            current,
            angle_rad,
        } = self.accuracy;
        for (field, value) in [
            ("accuracy.voltage", voltage),
            ("accuracy.current", current),
            ("accuracy.angle_rad", angle_rad),
        ] {
            if !(1e-6..=0.5).contains(&value) {
                return Err(bad(
                    field,
                    format!("{value} is not usable; give 0.000001 to 0.5, 0.005 for a meter of class 0.5"),
                ));
            }
        }
        for (field, phasors) in [
            ("before.voltage", &self.before.voltage_v),
            ("during.voltage", &self.during.voltage_v),
            ("before.current", &self.before.current_a),
            ("during.current", &self.during.current_a),
        ] {
            if phasors.iter().any(|x| !(x.norm() <= MAGNITUDE_MAX)) {
                return Err(bad(field, "is not a finite number of a usual size; give V, A and rad"));
            }
        }
        if let Some(u) = self.before.voltage_v.iter().find(|u| !(0.5..=1.5).contains(&(u.norm() / rated))) {
            return Err(bad(
                "before.voltage.magnitude_v",
                format!(
                    "{:.1} is far from the {rated:.1} V between phase and ground of the head node; give V, phase to ground",
                    u.norm()
                ),
            ));
        }
        if let Some(u) = self.during.voltage_v.iter().find(|u| !(u.norm() / rated <= 3.0)) {
            return Err(bad(
                "during.voltage.magnitude_v",
                format!(
                    "{:.1} is far above the {rated:.1} V between phase and ground of the head node; give V, phase to ground",
                    u.norm()
                ),
            ));
        }
        let [_, positive, negative] = crate::model::to_sequences(&self.before.voltage_v);
        match negative.norm() > positive.norm() {
            false => Ok(()),
            true => Err(bad(
                "before.voltage.angle_rad",
                "the phases follow each other as a, c, b; swap two of them, in voltages and currents",
            )),
        }
    }
}
