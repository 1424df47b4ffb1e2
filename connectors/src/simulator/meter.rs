//! What an instrument makes of the truth: the error of its class, then rounding.

use flexmeter_model::Identifier;

use super::random::Random;

/// Voltages to ground and powers into a load or area, by phase: V, W, var.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Electrical {
    /// Voltage, phase to ground, V.
    pub voltage_v: [f64; 3],
    /// Active power, W.
    pub p_w: [f64; 3],
    /// Reactive power, var.
    pub q_var: [f64; 3],
}

/// How exact a meter is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instrument {
    /// Relative standard deviation of its voltages.
    pub accuracy_v: f64,
    /// Standard deviation of its powers, relative to the apparent power of the phase.
    pub accuracy_p: f64,
}

impl Instrument {
    /// The meter of a household.
    pub const HOUSEHOLD: Self = Self {
        accuracy_v: 0.002,
        accuracy_p: 0.01,
    };

    /// What it reads on its phases, rounded as meters round: 0.1 W, 0.1 var, 10 mV.
    pub(crate) fn read(&self, truth: &Electrical, phases: &[usize], random: &mut Random) -> Vec<(Identifier, f64)> {
        let mut readings = Vec::with_capacity(3 * phases.len() + 2);
        for &k in phases {
            let line = k + 1;
            let sigma_w = self.accuracy_p * truth.p_w[k].hypot(truth.q_var[k]);
            for (kind, power_w) in [("active", truth.p_w[k]), ("reactive", truth.q_var[k])] {
                let power_kw = (power_w + sigma_w * random.normal()) / 1e3;
                let direction = if power_kw >= 0.0 { "consumed" } else { "injected" };
                push(
                    &mut readings,
                    &format!("electricity.power.{kind}.{direction}.l{line}"),
                    power_kw.abs(),
                    4,
                );
            }
            let voltage_v = truth.voltage_v[k] * (1.0 + self.accuracy_v * random.normal());
            push(&mut readings, &format!("electricity.voltage.rms.l{line}"), voltage_v, 2);
        }
        readings
    }
}

/// Adds a reading with so many decimals.
pub(crate) fn push(readings: &mut Vec<(Identifier, f64)>, name: &str, value: f64, decimals: i32) {
    let scale = 10_f64.powi(decimals);
    if let Some(identifier) = Identifier::from_name(name.as_bytes()) {
        readings.push((identifier, (value * scale).round() / scale));
    }
}
