//! What one sensor says, per unit and by phase, and how readings of one quantity are merged by their variances.

use crate::model::{BASE_POWER_VA, C64, base_current_a, larger};
use crate::network::{CurrentAngle, CurrentSensor, Network, PerPhase, PowerSensor, Terminal, VoltageSensor};
use crate::power_flow::phases_pu;

/// No voltage is read better than to 1e-6 per unit: beside the weight of more, the other readings have no digits left.
const VOLTAGE_VARIANCE_MIN: f64 = 1e-12;
/// No reading is better than this: a standard deviation of 1e-8 per unit.
const VARIANCE_MIN: f64 = 1e-16;

/// One sensor's reading with its variances by phase, per unit; infinite where it says nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Single<const N: usize> {
    pub(super) value: [C64; N],
    pub(super) variance: [C64; N],
}

impl<const N: usize> Single<N> {
    pub(super) const NOTHING: Self = Self {
        value: [C64::ZERO; N],
        variance: [C64::new(f64::INFINITY, f64::INFINITY); N],
    };

    /// A missing reading says nothing.
    fn without_gaps(mut self) -> Self {
        for k in 0..N {
            if self.value[k].re.is_nan() {
                (self.value[k].re, self.variance[k].re) = (0.0, f64::INFINITY);
            }
            if self.value[k].im.is_nan() {
                (self.value[k].im, self.variance[k].im) = (0.0, f64::INFINITY);
            }
        }
        self
    }

    pub(super) fn says_nothing(&self) -> bool {
        self.variance.iter().all(|v| v.re.is_infinite() && v.im.is_infinite())
    }
}

/// The share of a reading in a merged one, by phase, for both of its parts.
pub(super) type Shares<const N: usize> = ([f64; N], [f64; N]);

/// Merges readings of one quantity: value, variance, and the share of each.
pub(super) fn merge<const N: usize>(readings: &[Single<N>]) -> (Single<N>, Vec<Shares<N>>) {
    let mut merged = Single::NOTHING;
    let mut shares = vec![([0.0; N], [0.0; N]); readings.len()];
    for k in 0..N {
        for part in [0, 1] {
            let of = |c: &C64| if part == 0 { c.re } else { c.im };
            let exact = readings.iter().filter(|reading| of(&reading.variance[k]) == 0.0).count();
            let weights: Vec<f64> = readings
                .iter()
                .map(|reading| match (of(&reading.variance[k]), exact) {
                    (0.0, n) => 1.0 / n as f64,
                    (_, n) if n > 0 => 0.0,
                    (variance, _) => 1.0 / variance,
                })
                .collect();
            let total: f64 = weights.iter().sum();
            if total == 0.0 {
                continue;
            }
            let value = readings.iter().zip(&weights).map(|(r, w)| of(&r.value[k]) * w).sum::<f64>() / total;
            let variance = if exact > 0 { 0.0 } else { 1.0 / total };
            for (share, weight) in shares.iter_mut().zip(&weights) {
                let share = if part == 0 { &mut share.0 } else { &mut share.1 };
                share[k] = weight / total;
            }
            match part {
                0 => (merged.value[k].re, merged.variance[k].re) = (value, variance),
                _ => (merged.value[k].im, merged.variance[k].im) = (value, variance),
            }
        }
    }
    (merged, shares)
}

/// Inverse variances of both parts.
pub(super) fn weights_of(variance: C64) -> C64 {
    let weight = |variance: f64| if variance > 0.0 { 1.0 / variance } else { 0.0 };
    C64::new(weight(variance.re), weight(variance.im))
}

/// Square of a standard deviation, with digits left; zero is exact.
pub(super) fn variance(sigma: f64) -> f64 {
    if sigma == 0.0 { 0.0 } else { larger(sigma * sigma, VARIANCE_MIN) }
}

/// Powers count as injections: into the grid.
fn power_sign(network: &Network, sensor: &PowerSensor) -> f64 {
    match sensor.terminal {
        Terminal::Appliance(index) if !network.appliances[index].is_generator => -1.0,
        _ => 1.0,
    }
}

pub(super) fn power_value<const N: usize>(network: &Network, sensor: &PowerSensor) -> [C64; N] {
    let (p, q) = (phases_pu::<N>(sensor.p_w), phases_pu::<N>(sensor.q_var));
    let sign = power_sign(network, sensor);
    std::array::from_fn(|k| C64::new(p[k], q[k]) * sign)
}

/// Variance of a power by phase, per unit, for the sensor's own sigma: a mean of squares where phases become one.
fn sigma_squares<const N: usize>(sigma: PerPhase) -> [f64; N] {
    std::array::from_fn(|k| match (sigma, N) {
        (PerPhase::Symmetric(total), _) => variance(total / BASE_POWER_VA),
        (PerPhase::Phases(phases), 1) => phases.iter().map(|s| variance(s * 3.0 / BASE_POWER_VA)).sum::<f64>() / 3.0,
        (PerPhase::Phases(phases), _) => variance(phases[k] * 3.0 / BASE_POWER_VA),
    })
}

pub(super) fn power_single<const N: usize>(network: &Network, sensor: &PowerSensor) -> Single<N> {
    let (p, q) = (sigma_squares::<N>(sensor.p_sigma_w), sigma_squares::<N>(sensor.q_sigma_var));
    let base = match sensor.p_w {
        PerPhase::Symmetric(_) => BASE_POWER_VA,
        PerPhase::Phases(_) => BASE_POWER_VA / 3.0,
    };
    // the apparent power's variance is that of P and Q together
    let half = variance(sensor.sigma_va / base) / 2.0;
    let given = p.iter().chain(&q).all(|variance| !variance.is_nan());
    Single {
        value: power_value(network, sensor),
        variance: std::array::from_fn(|k| if given { C64::new(p[k], q[k]) } else { C64::new(half, half) }),
    }
    .without_gaps()
}

/// Magnitude (real part) and angle (imaginary part; NaN if not measured) by phase.
pub(super) fn voltage_value<const N: usize>(network: &Network, sensor: &VoltageSensor) -> [C64; N] {
    let u_rated = network.nodes[sensor.node].u_rated_v;
    match (sensor.u_v, sensor.angle_rad, N) {
        (PerPhase::Symmetric(u), PerPhase::Symmetric(angle), _) => std::array::from_fn(|k| C64::new(u / u_rated, angle - phase_turn(k))),
        (PerPhase::Phases(u), PerPhase::Phases(angle), 1) => {
            let u = u.map(|u| u * 3f64.sqrt() / u_rated);
            if angle.iter().any(|angle| angle.is_nan()) {
                return [C64::new(u.iter().sum::<f64>() / 3.0, f64::NAN); N];
            }
            let positive: C64 = (0..3).map(|k| C64::from_polar(u[k], angle[k] + phase_turn(k))).sum::<C64>() / 3.0;
            [C64::new(positive.norm(), positive.arg()); N]
        }
        (u, angle, _) => std::array::from_fn(|k| {
            let of = |x: PerPhase| x.values().get(k).copied().unwrap_or(f64::NAN);
            C64::new(of(u) * 3f64.sqrt() / u_rated, of(angle))
        }),
    }
}

/// A phasor from magnitude (real part) and angle (imaginary part).
pub(super) fn polar(reading: C64) -> C64 {
    C64::from_polar(reading.re, reading.im)
}

/// How far phase `k` lags phase a, rad.
pub(super) fn phase_turn(k: usize) -> f64 {
    [0.0, 1.0, -1.0][k] * std::f64::consts::TAU / 3.0
}

pub(super) fn voltage_single<const N: usize>(network: &Network, sensor: &VoltageSensor) -> Single<N> {
    let base = match sensor.u_v {
        PerPhase::Symmetric(_) => network.nodes[sensor.node].u_rated_v,
        PerPhase::Phases(_) => network.nodes[sensor.node].u_rated_v / 3f64.sqrt(),
    };
    let variance = larger(variance(sensor.u_sigma_v / base), VOLTAGE_VARIANCE_MIN);
    let value = voltage_value::<N>(network, sensor);
    Single {
        // a phasor's error is a disc of the same size: at rated voltage the magnitude's deviation per unit is the angle's in rad
        variance: [C64::new(variance, variance); N],
        value,
    }
    .without_gaps()
}

/// Current as a phasor by phase, or its magnitude (real part) alone. A local angle is that of the voltage minus that of the current.
pub(super) fn current_value<const N: usize>(network: &Network, sensor: &CurrentSensor) -> [C64; N] {
    let phasors = current_phasors::<N>(network, sensor);
    std::array::from_fn(|k| match N {
        1 => phasors.iter().sum::<C64>() / 3.0,
        _ => phasors[k],
    })
}

/// Current of each phase; turned back to phase a for a symmetric calculation, whose current is their mean.
fn current_phasors<const N: usize>(network: &Network, sensor: &CurrentSensor) -> [C64; 3] {
    let base = current_base(network, sensor);
    let is_global = sensor.angle_kind == CurrentAngle::Global;
    std::array::from_fn(|k| {
        let turn = match (sensor.i_a, is_global && has_angle(sensor)) {
            (_, false) => 0.0,
            (PerPhase::Symmetric(_), _) if N == 3 => -phase_turn(k),
            (PerPhase::Phases(_), _) if N == 1 => phase_turn(k),
            _ => 0.0,
        };
        let of = |x: PerPhase| x.values().get(k).or(x.values().first()).copied().unwrap_or(f64::NAN);
        match has_angle(sensor) {
            true => C64::from_polar(of(sensor.i_a) / base, of(sensor.angle_rad) + turn),
            false => C64::new(of(sensor.i_a) / base, 0.0),
        }
    })
}

fn current_base(network: &Network, sensor: &CurrentSensor) -> f64 {
    let node = match sensor.terminal {
        Terminal::BranchFrom(index) => network.branches[index].from,
        Terminal::BranchTo(index) => network.branches[index].to,
        _ => 0,
    };
    base_current_a(network.nodes[node].u_rated_v)
}

pub(super) fn has_angle(sensor: &CurrentSensor) -> bool {
    sensor.angle_sigma_rad.is_finite() && sensor.angle_rad.values().iter().all(|angle| !angle.is_nan())
}

pub(super) fn current_single<const N: usize>(network: &Network, sensor: &CurrentSensor) -> Single<N> {
    let magnitude = variance(sensor.i_sigma_a / current_base(network, sensor));
    let angle = variance(sensor.angle_sigma_rad);
    let variances = current_phasors::<N>(network, sensor).map(|i| match has_angle(sensor) {
        true => {
            // the errors of magnitude and angle, propagated to the real and imaginary part to second order
            let (square, size) = (i.norm_sqr(), i.norm());
            // without a current there is no direction: take that of the real part
            let (cos, sin) = match size > 0.0 {
                true => ((i.re / size).powi(2), (i.im / size).powi(2)),
                false => (1.0, 0.0),
            };
            C64::new(
                magnitude * (cos + angle * sin) + square * (angle * sin + angle * angle / 2.0 * cos),
                magnitude * (sin + angle * cos) + square * (angle * cos + angle * angle / 2.0 * sin),
            )
        }
        false => C64::new(magnitude, f64::INFINITY),
    });
    Single {
        value: current_value(network, sensor),
        variance: std::array::from_fn(|k| match (sensor.i_a, N) {
            (PerPhase::Phases(_), 1) => variances.iter().sum::<C64>() / 9.0,
            _ => variances[k],
        }),
    }
    .without_gaps()
}
