//! The load of one household: a level, a daily shape, noise, appliances that switch on and off, and for some a roof of solar cells.

use flexmeter_model::{EventTime, Identifier};

use super::meter::{Electrical, Instrument, push};
use super::random::Random;

const DAY_US: i64 = 86_400_000_000;
/// Share of households with three phases; with solar cells.
const THREE_PHASE: f64 = 0.2;
const SOLAR: f64 = 0.2;
/// Appliance runs a household starts a day.
const APPLIANCE_RUNS_PER_DAY: f64 = 3.0;

/// An appliance that is running.
#[derive(Debug, Clone, Copy)]
struct Appliance {
    power_kw: f64,
    left_s: f64,
}

/// One household behind one meter.
#[derive(Debug)]
pub(crate) struct Household {
    pub(crate) hardware_id: String,
    /// The meter's own offset within a step, so that not all meters speak at once.
    pub(crate) offset_us: i64,
    /// 0, 1, 2 for the grid's phases a, b, c.
    pub(crate) phases: Vec<usize>,
    level_kw: f64,
    solar_kwp: f64,
    tan_phi: f64,
    appliances: Vec<Appliance>,
    base_kw: f64,
    solar_kw: f64,
    consumed_kwh: f64,
    injected_kwh: f64,
}

impl Household {
    pub(crate) fn new(index: u32, random: &mut Random) -> Self {
        let phases = if random.unit() < THREE_PHASE {
            vec![0, 1, 2]
        } else {
            vec![random.below(3) as usize]
        };
        let cos_phi = 0.90 + 0.09 * random.unit();
        Self {
            hardware_id: format!("DEMO-{:03}-{:03}", index / 50 + 1, index % 50 + 1),
            offset_us: (random.unit() * 900_000.0) as i64,
            phases,
            level_kw: (0.35 * random.normal()).exp() * 0.45,
            solar_kwp: if random.unit() < SOLAR { 2.0 + 3.0 * random.unit() } else { 0.0 },
            tan_phi: (1.0 - cos_phi * cos_phi).sqrt() / cos_phi,
            appliances: Vec::new(),
            base_kw: 0.0,
            solar_kw: 0.0,
            consumed_kwh: 1000.0 + 9000.0 * random.unit(),
            injected_kwh: 0.0,
        }
    }

    /// Net power: consumption less what the sun gives.
    pub(crate) fn power_kw(&self) -> f64 {
        self.base_kw + self.appliances.iter().map(|appliance| appliance.power_kw).sum::<f64>() - self.solar_kw
    }

    /// Moves the household on by `step_s` seconds to `at`.
    pub(crate) fn advance(&mut self, at: EventTime, step_s: f64, random: &mut Random) {
        let hour = (at.micros().rem_euclid(DAY_US)) as f64 / 3_600e6;
        self.base_kw = self.level_kw * daily_shape(hour) * (1.0 + 0.05 * random.normal()).max(0.1);
        for appliance in &mut self.appliances {
            appliance.left_s -= step_s;
        }
        self.appliances.retain(|appliance| appliance.left_s > 0.0);
        if random.unit() < APPLIANCE_RUNS_PER_DAY * step_s / 86_400.0 {
            self.appliances.push(Appliance {
                power_kw: 1.0 + 1.5 * random.unit(),
                left_s: 120.0 + 2_280.0 * random.unit(),
            });
        }
        let sun = (std::f64::consts::PI * (hour - 6.0) / 12.0).sin().max(0.0);
        self.solar_kw = self.solar_kwp * sun * (0.7 + 0.2 * random.unit());
    }

    /// What it takes, W and var by phase.
    pub(crate) fn load(&self) -> [[f64; 3]; 2] {
        let share_w = self.power_kw() * 1e3 / self.phases.len() as f64;
        let mut load = [[0.0; 3]; 2];
        for &k in &self.phases {
            (load[0][k], load[1][k]) = (share_w, share_w.abs() * self.tan_phi);
        }
        load
    }

    /// The registers count what was taken in a step.
    pub(crate) fn count(&mut self, step_s: f64) {
        let energy_kwh = self.power_kw() * step_s / 3_600.0;
        if energy_kwh >= 0.0 {
            self.consumed_kwh += energy_kwh;
        } else {
            self.injected_kwh -= energy_kwh;
        }
    }

    /// What the meter reads at these voltages: its three phases and its registers.
    pub(crate) fn readings(&self, voltage_v: [f64; 3], random: &mut Random) -> Vec<(Identifier, f64)> {
        let [p_w, q_var] = self.load();
        let truth = Electrical { voltage_v, p_w, q_var };
        let mut readings = Instrument::HOUSEHOLD.read(&truth, &self.phases, random);
        push(&mut readings, "electricity.energy.active.consumed.total", self.consumed_kwh, 3);
        if self.solar_kwp > 0.0 {
            push(&mut readings, "electricity.energy.active.injected.total", self.injected_kwh, 3);
        }
        readings
    }
}

/// Night base and three peaks, at 7:30, 12:30 and 19:30.
fn daily_shape(hour: f64) -> f64 {
    let peak = |at: f64, width: f64, height: f64| {
        let distance = (hour - at).abs().min(24.0 - (hour - at).abs());
        height * (-distance * distance / (2.0 * width * width)).exp()
    };
    0.35 + peak(7.5, 1.0, 0.7) + peak(12.5, 1.2, 0.5) + peak(19.5, 1.8, 1.3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenings_use_more_than_nights_and_the_register_only_grows() {
        let mut random = Random::new(11);
        let mut households: Vec<_> = (0..200).map(|i| Household::new(i, &mut random)).collect();
        let mut sum_at = |hour: i64| -> f64 {
            let at = EventTime::from_micros(hour * 3_600_000_000);
            households
                .iter_mut()
                .map(|household| {
                    let before = household.consumed_kwh;
                    household.advance(at, 60.0, &mut random);
                    household.count(60.0);
                    assert!(household.consumed_kwh >= before);
                    household.power_kw()
                })
                .sum()
        };
        let (night, evening) = (sum_at(3), sum_at(19));
        assert!(evening > 2.0 * night, "{evening} kW in the evening, {night} kW at night");
    }
}
