//! From what a meter has said to what the estimator is told: the ageing law and pseudo-measurements.
//!
//! A load is taken as a process that forgets: given its reading `x` of `a` minutes ago, its mean is `μ + ρ (x - μ)` and its variance
//! `ρ² σ² + (1 - ρ²) v`, with `ρ = exp(-a / τ)`, where `μ` and `v` are mean and variance of the meter's load profile and `σ` is the meter's
//! own error. A fresh reading counts as it is, an old one turns into a pseudo-measurement of the profile, and nothing jumps in between.
//! `docs/algorithms/three-level-estimation.md` has the reasons.

use flexmeter_grid::bundle::{Meter, POWER_SIGMA_MIN, Role};
use flexmeter_model::PublishedBoundary;
use serde::{Deserialize, Serialize};

use super::mail::UpPower;
use super::statistics::Expected;

/// Time after which a load has forgotten most of what it was, in minutes.
pub(crate) const MEMORY_MIN: f64 = 10.0;
/// Older than this, in steps, a voltage or a flow says nothing: there is no profile of what all customers make together.
pub(crate) const FLOW_AGE_MAX: u32 = 10;
/// Beyond this, in steps, age makes no difference any more: `ρ²` is below 1e-6.
pub(crate) const AGE_MAX: u32 = 75;
/// Standard deviation of a load that was never heard, beyond its rated power, W or var.
pub(crate) const NEVER_HEARD_SIGMA: f64 = 1_000.0;
/// A last gasp is false this often: what a silent customer's load still may be.
const FALSE_GASP_RATE: f64 = 0.05;

/// What a meter's partition knows of it, as its area needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MeterSaid {
    /// V by phase; NaN where it said nothing.
    pub(crate) u_v: [f64; 3],
    /// W into load or area.
    pub(crate) p_w: [f64; 3],
    /// var into load or area.
    pub(crate) q_var: [f64; 3],
    /// Event and append times of the oldest voltage, and of the oldest power, in it.
    pub(crate) voltage: Times,
    pub(crate) power: Times,
    /// What its profile expects now.
    pub(crate) expected: Expected,
    /// Whether it has said that it loses its supply, and nothing since.
    pub(crate) is_dark: bool,
    /// What it has estimated of its area, if it does that.
    pub(crate) published: Option<Box<Published>>,
}

/// A device's own estimate of its area's boundary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) boundary: PublishedBoundary,
    pub(crate) times: Times,
}

/// When something was measured and when the log appended it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) event: i64,
    pub(crate) received: i64,
}

impl MeterSaid {
    fn times(&self) -> impl Iterator<Item = Times> {
        let published = self.published.iter().map(|published| published.times);
        [self.voltage, self.power].into_iter().chain(published)
    }

    /// The newest moment it speaks of; a meter's clock that runs ahead of the log's does not count.
    pub(crate) fn reached(&self) -> i64 {
        self.times().map(Times::reached).max().unwrap_or(i64::MIN)
    }

    /// Event time of the newest of it.
    pub(crate) fn newest(&self) -> i64 {
        self.times().map(|times| times.event).max().unwrap_or(i64::MIN)
    }
}

impl Times {
    /// Nothing was ever measured.
    pub(crate) const NEVER: Self = Self {
        event: i64::MIN,
        received: i64::MIN,
    };

    /// The moment spoken of, as far as the log's clock has come.
    pub(crate) fn reached(self) -> i64 {
        self.event.min(self.received)
    }
}

/// Age of a reading in steps of `step_us`: against the area's own clock (the newest reading in it), to the nearest step; and
/// against log time, in whole steps since it was appended. The larger counts: a replayed recording ages by its own clock, and an area that
/// has fallen silent by the log's.
pub(crate) fn age(times: Times, area_clock: i64, tick: i64, step_us: i64) -> u32 {
    let behind = area_clock
        .saturating_sub(times.event)
        .saturating_add(step_us / 2)
        .div_euclid(step_us);
    let waiting = tick.saturating_sub(times.received).div_euclid(step_us);
    behind.max(waiting).clamp(0, i64::from(AGE_MAX)) as u32
}

/// Powers and their standard deviations by phase, as the estimator takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PowerReading {
    pub(crate) p_w: [f64; 3],
    pub(crate) q_var: [f64; 3],
    pub(crate) p_sigma_w: [f64; 3],
    pub(crate) q_sigma_var: [f64; 3],
}

/// No reading at all.
pub(crate) const NOTHING: PowerReading = PowerReading {
    p_w: [f64::NAN; 3],
    q_var: [f64::NAN; 3],
    p_sigma_w: [f64::NAN; 3],
    q_sigma_var: [f64::NAN; 3],
};

/// What an area below has said of its power, so many steps ago.
pub(crate) fn aged_flow(power: &UpPower, age: u32) -> PowerReading {
    if age > FLOW_AGE_MAX {
        return NOTHING;
    }
    let kept = (-f64::from(age) / MEMORY_MIN).exp();
    // nobody keeps a profile of it: what a load may do, for the sum of them
    let widened = |sigma: f64, k: usize| {
        let spread = FLOW_SHARE * power.p_w[k].hypot(power.q_var[k]) + FLOW_SPREAD_MIN;
        sigma.hypot(spread * (1.0 - kept * kept).sqrt()).max(POWER_SIGMA_MIN)
    };
    PowerReading {
        p_w: power.p_w,
        q_var: power.q_var,
        p_sigma_w: std::array::from_fn(|k| widened(power.p_sigma_w[k], k)),
        q_sigma_var: std::array::from_fn(|k| widened(power.q_sigma_var[k], k)),
    }
}

/// How far the power of a whole area moves within the memory of a load: a share of itself, and so many W or var.
const FLOW_SHARE: f64 = 0.5;
const FLOW_SPREAD_MIN: f64 = 1_000.0;

/// A load nobody has heard of: its rated power, and a standard deviation as large and a household more.
pub(crate) fn never_heard(phases: &[usize], rated: &([f64; 3], [f64; 3])) -> PowerReading {
    let mut reading = exactly_nothing();
    for &k in phases {
        let sigma = rated.0[k].hypot(rated.1[k]) + NEVER_HEARD_SIGMA;
        (reading.p_w[k], reading.q_var[k]) = (rated.0[k], rated.1[k]);
        (reading.p_sigma_w[k], reading.q_sigma_var[k]) = (sigma, sigma);
    }
    reading
}

/// A meter of one phase knows that its load takes nothing from the others.
fn exactly_nothing() -> PowerReading {
    PowerReading {
        p_w: [0.0; 3],
        q_var: [0.0; 3],
        p_sigma_w: [0.0; 3],
        q_sigma_var: [0.0; 3],
    }
}

/// What a meter's power is known to be at an age.
pub(crate) fn power(meter: &Meter, said: &MeterSaid, age: u32, rated: &([f64; 3], [f64; 3])) -> PowerReading {
    let is_load = meter.role == Role::Customer;
    if !is_load && (age > FLOW_AGE_MAX || said.is_dark) {
        return NOTHING;
    }
    let mut reading = exactly_nothing();
    for &k in &meter.phases {
        let (p, q) = (said.p_w[k], said.q_var[k]);
        if !(is_load || p.is_finite() && q.is_finite()) {
            return NOTHING;
        }
        let s = p.hypot(q);
        let own = if s.is_finite() {
            (meter.accuracy_p * s).max(POWER_SIGMA_MIN)
        } else {
            f64::NAN
        };
        let prior = (rated.0[k].hypot(rated.1[k]) + NEVER_HEARD_SIGMA).powi(2);
        let part = |x: f64, expected: Option<(f64, f64)>, rated: f64| aged(x, own, expected, rated, prior, age, said.is_dark);
        let (p, p_sigma) = part(p, said.expected[0][k], rated.0[k]);
        let (q, q_sigma) = part(q, said.expected[1][k], rated.1[k]);
        (reading.p_w[k], reading.q_var[k]) = (p, q);
        (reading.p_sigma_w[k], reading.q_sigma_var[k]) = (p_sigma.max(POWER_SIGMA_MIN), q_sigma.max(POWER_SIGMA_MIN));
    }
    reading
}

/// Mean and standard deviation by the law of this module.
fn aged(x: f64, sigma: f64, expected: Option<(f64, f64)>, rated: f64, prior: f64, age: u32, is_dark: bool) -> (f64, f64) {
    // without a profile the reading itself is the best guess of the mean
    let (mean, variance) = match expected {
        Some((mean, variance)) => (mean, variance.max(POWER_SIGMA_MIN.powi(2))),
        None if x.is_finite() => (x, prior),
        None => (rated, prior),
    };
    if is_dark {
        return (0.0, (FALSE_GASP_RATE * (mean * mean + variance)).sqrt());
    }
    if !x.is_finite() || !sigma.is_finite() {
        return (mean, variance.sqrt());
    }
    if age == 0 {
        return (x, sigma);
    }
    let kept = (-f64::from(age) / MEMORY_MIN).exp();
    let forgotten = 1.0 - kept * kept;
    (
        mean + kept * (x - mean),
        (kept * kept * sigma * sigma + forgotten * variance).sqrt(),
    )
}

/// Voltages by phase and their standard deviation, V; NaN without a reading.
pub(crate) fn voltage(meter: &Meter, said: &MeterSaid, age: u32) -> ([f64; 3], f64) {
    let only_own = |k: usize| if meter.phases.contains(&k) { said.u_v[k] } else { f64::NAN };
    let u: [f64; 3] = std::array::from_fn(only_own);
    let n = u.iter().filter(|u| u.is_finite()).count();
    if age > FLOW_AGE_MAX || said.is_dark || n == 0 {
        return ([f64::NAN; 3], 1.0);
    }
    let mean = u.iter().filter(|u| u.is_finite()).sum::<f64>() / n as f64;
    // what all customers together move the voltage by within the memory of a load
    let kept = (-f64::from(age) / MEMORY_MIN).exp();
    let moved = VOLTAGE_SPREAD * mean * (1.0 - kept * kept).sqrt();
    (u, (meter.accuracy_v * mean).hypot(moved))
}

/// What a device that has estimated its area says of the root: voltages with one standard deviation, and powers, so many steps ago.
pub(crate) fn published(boundary: &PublishedBoundary, age: u32) -> (([f64; 3], f64), PowerReading) {
    let kept = (-f64::from(age) / MEMORY_MIN).exp();
    let mean = boundary.voltage_v.iter().sum::<f64>() / 3.0;
    let moved = VOLTAGE_SPREAD * mean * (1.0 - kept * kept).sqrt();
    // a voltage sensor has one deviation for its phases
    let sigma = ((0..3).map(|k| boundary.sigma(k).powi(2)).sum::<f64>() / 3.0).sqrt();
    let power = UpPower {
        p_w: boundary.active_w,
        q_var: boundary.reactive_var,
        p_sigma_w: std::array::from_fn(|k| boundary.sigma(3 + k)),
        q_sigma_var: std::array::from_fn(|k| boundary.sigma(6 + k)),
    };
    ((boundary.voltage_v, sigma.hypot(moved)), aged_flow(&power, age))
}

/// How much a voltage moves within the memory of a load, as a share of itself.
const VOLTAGE_SPREAD: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;
    use flexmeter_grid::network::Terminal;

    const MINUTE: i64 = 60_000_000;
    const NONE: Expected = [[None; 3]; 2];

    fn meter(role: Role) -> Meter {
        Meter {
            hardware_id: "m".to_owned(),
            node: 0,
            phases: vec![1],
            role,
            accuracy_v: 0.005,
            accuracy_p: 0.01,
            terminal: Terminal::Node(0),
        }
    }

    fn said(p: f64, expected: Expected) -> MeterSaid {
        let times = Times { event: 0, received: 0 };
        MeterSaid {
            u_v: [f64::NAN, 230.0, f64::NAN],
            p_w: [f64::NAN, p, f64::NAN],
            q_var: [f64::NAN, 0.0, f64::NAN],
            voltage: times,
            power: times,
            expected,
            is_dark: false,
            published: None,
        }
    }

    #[test]
    fn a_fresh_reading_counts_as_the_meter_says_and_other_phases_take_nothing() {
        let reading = power(&meter(Role::Customer), &said(400.0, NONE), 0, &([0.0; 3], [0.0; 3]));
        assert_eq!((reading.p_w, reading.p_sigma_w), ([0.0, 400.0, 0.0], [0.0, 4.0, 0.0]));
        let sigma_v = voltage(&meter(Role::Customer), &said(400.0, NONE), 0).1;
        assert!((sigma_v - 1.15).abs() < 1e-12, "{sigma_v}");
    }

    #[test]
    fn an_old_reading_becomes_what_the_profile_expects() {
        let expected = [[None, Some((300.0, 10_000.0)), None], [None; 3]];
        let at = |age| {
            let reading = power(&meter(Role::Customer), &said(400.0, expected), age, &([0.0; 3], [0.0; 3]));
            (reading.p_w[1], reading.p_sigma_w[1])
        };
        assert_eq!(at(0), (400.0, 4.0));
        // rho = 1/e after ten minutes: 300 + 100/e, sqrt(16/e² + 10000 (1 - 1/e²))
        let (p, sigma) = at(10);
        assert!((p - 336.787_944).abs() < 1e-5 && (sigma - 92.998_99).abs() < 1e-4, "{p} {sigma}");
        let (p, sigma) = at(AGE_MAX);
        assert!((p - 300.0).abs() < 0.1 && (sigma - 100.0).abs() < 0.1, "{p} {sigma}");
    }

    #[test]
    fn a_flow_that_is_too_old_says_nothing() {
        let old = power(
            &meter(Role::Substation),
            &said(400.0, NONE),
            FLOW_AGE_MAX + 1,
            &([0.0; 3], [0.0; 3]),
        );
        assert!(old.p_w[1].is_nan());
        assert!(voltage(&meter(Role::Customer), &said(400.0, NONE), FLOW_AGE_MAX + 1).0[1].is_nan());
    }

    #[test]
    fn age_is_against_the_areas_clock_or_against_the_log_whichever_is_more() {
        let times = |event, received| Times { event, received };
        // others speak of the next minute already
        assert_eq!(age(times(0, 0), MINUTE - 1_000_000, 0, MINUTE), 1);
        assert_eq!(age(times(0, 0), MINUTE / 3, 0, MINUTE), 0);
        // all are silent
        assert_eq!(age(times(0, 0), 0, 3 * MINUTE, MINUTE), 3);
        // a clock that runs ahead is no age
        assert_eq!(age(times(5 * MINUTE, 0), 0, 0, MINUTE), 0);
        assert_eq!(age(times(i64::MIN, i64::MIN), i64::MAX, i64::MAX, MINUTE), AGE_MAX);
    }

    #[test]
    fn a_customer_who_gasped_takes_nothing_as_far_as_gasps_are_true() {
        let mut dark = said(400.0, NONE);
        dark.is_dark = true;
        dark.expected[0][1] = Some((300.0, 10_000.0));
        let reading = power(&meter(Role::Customer), &dark, 0, &([0.0; 3], [0.0; 3]));
        assert_eq!(reading.p_w[1], 0.0);
        assert!((reading.p_sigma_w[1] - (0.05f64 * 100_000.0).sqrt()).abs() < 1e-9);
    }
}
