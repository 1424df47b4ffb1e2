//! Whether the readings fit each other: residuals, the chi-square test, bad data.
//!
//! # Source
//! A. Monticelli, "State Estimation in Electric Power Systems: A Generalized Approach", Kluwer 1999, chapters 7 and 8 (largest
//! normalized residual, chi-square test, critical readings).

use std::cell::OnceCell;

use statrs::distribution::{ChiSquared, Continuous, ContinuousCDF, Normal};

use super::block::voltages;
use super::covariance::along_phase;
use super::local::{reference_sum, turn};
use super::readings::{Appliances, Place};
use super::{EstimateOptions, Estimator, GridError, Uncertainty};
use crate::model::{C64, to_phases};
use crate::network::{ComponentId, Network, Terminal};
use crate::power_flow::Convergence;

/// A reading whose residual's variance is below this share of its own is critical: nothing else checks it.
const CRITICAL: f64 = 1e-6;
/// The variance of an estimate that nobody has asked for.
const UNASKED: C64 = C64::new(f64::NAN, f64::NAN);
/// Most readings that one search removes.
const N_REMOVED_MAX: usize = 100;

/// Which sensor of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sensor {
    /// Index in [`Network::voltage_sensors`].
    Voltage(usize),
    /// Index in [`Network::power_sensors`].
    Power(usize),
    /// Index in [`Network::current_sensors`].
    Current(usize),
}

impl Sensor {
    /// Its id.
    pub fn id(self, network: &Network) -> ComponentId {
        match self {
            Self::Voltage(index) => network.voltage_sensors()[index].id,
            Self::Power(index) => network.power_sensors()[index].id,
            Self::Current(index) => network.current_sensors()[index].id,
        }
    }
}

/// What a scalar reading is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Voltage magnitude, per unit.
    Voltage,
    /// Voltage angle, rad.
    Angle,
    /// Active power, per unit.
    ActivePower,
    /// Reactive power, per unit.
    ReactivePower,
    /// Current magnitude, or its real part if the angle is measured, too, per unit.
    Current,
    /// Imaginary part of a current, per unit.
    CurrentImaginary,
}

/// One scalar reading beside its estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// Whose reading.
    pub sensor: Sensor,
    /// Of what.
    pub quantity: Quantity,
    /// Phase: 0, 1, 2 for a, b, c; 0 if symmetric.
    pub phase: usize,
    /// Reading minus estimate. Injections count as positive.
    pub residual: f64,
    /// Standard deviation of the reading.
    pub sigma: f64,
    /// Residual over the residual's own standard deviation; `None` for a critical reading, which fits whatever it says.
    pub normalized: Option<f64>,
}

/// All residuals of an estimate, and what they add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Trust {
    /// By sensor, quantity and phase.
    pub residuals: Vec<Residual>,
    /// Sum of squared residuals, each over its reading's variance.
    pub j: f64,
    /// Readings and exact zero injections beyond what the state needs: the expected value of `j`.
    pub degrees_of_freedom: usize,
    /// The limit that `j` exceeds with the asked probability when all readings are as good as they claim; `None` without redundancy.
    pub j_limit: Option<f64>,
}

impl Trust {
    /// Whether the chi-square test finds the readings at odds with each other.
    pub fn is_suspicious(&self) -> bool {
        self.j_limit.is_some_and(|limit| self.j > limit)
    }

    /// Normalized residual that none of these readings exceeds if all are good, but for the false alarm rate.
    pub fn residual_limit(&self, false_alarm_rate: f64) -> f64 {
        limit_of(false_alarm_rate, self.residuals.len())
    }

    /// The reading with the largest normalized residual.
    pub fn worst(&self) -> Option<&Residual> {
        let of = |residual: &&Residual| residual.normalized.unwrap_or(0.0).abs();
        self.residuals.iter().max_by(|a, b| of(a).total_cmp(&of(b)))
    }
}

/// How bad data are looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BadDataOptions {
    /// Probability that an estimate without bad data loses a reading (and that its chi-square test fails).
    pub false_alarm_rate: f64,
}

impl Default for BadDataOptions {
    fn default() -> Self {
        Self { false_alarm_rate: 0.01 }
    }
}

/// What a search for bad data has found.
#[derive(Debug, Clone, PartialEq)]
pub struct BadData {
    /// Readings that were removed, in that order, with their residuals when they were.
    pub removed: Vec<Residual>,
    /// Trust in what is left.
    pub trust: Trust,
    /// How the last estimate ended.
    pub convergence: Convergence,
}

impl<const N: usize, const B: usize> Estimator<N, B> {
    /// Residuals of the present estimate and the chi-square test at a false alarm rate.
    pub fn trust(&self, network: &Network, uncertainty: &Uncertainty<N, B>, false_alarm_rate: f64) -> Trust {
        self.judge(network, Some(uncertainty), false_alarm_rate)
    }

    /// The same without a covariance: no residual is normalized. Enough to see whether there is anything to look for.
    pub fn trust_at_first_sight(&self, network: &Network, false_alarm_rate: f64) -> Trust {
        self.judge(network, None, false_alarm_rate)
    }

    fn judge(&self, network: &Network, uncertainty: Option<&Uncertainty<N, B>>, false_alarm_rate: f64) -> Trust {
        let mut residuals = Vec::new();
        for index in 0..network.voltage_sensors().len() {
            self.voltage_residuals(network, uncertainty, index, &mut residuals);
        }
        let mut injections = Injections {
            n_appliances: self.readings.n_appliances(network, &self.admittance),
            appliances: OnceCell::new(),
            estimates: vec![None; self.state.len()],
        };
        for index in 0..network.power_sensors().len() {
            self.power_residuals(network, uncertainty, &mut injections, index, &mut residuals);
        }
        for index in 0..network.current_sensors().len() {
            self.current_residuals(uncertainty, index, &mut residuals);
        }
        let balance: f64 = self
            .gain
            .references
            .iter()
            .map(|reference| reference_sum(reference, &voltages(&self.state[reference.position])))
            .sum();
        let messages: f64 = self
            .gain
            .boundaries
            .iter()
            .map(|boundary| boundary.sum(&self.state[boundary.position]))
            .sum();
        let j = residuals.iter().map(|r| (r.residual / r.sigma).powi(2)).sum::<f64>() + balance + messages;
        let degrees_of_freedom = self.degrees_of_freedom(residuals.len());
        Trust {
            residuals,
            j,
            degrees_of_freedom,
            j_limit: chi_square_limit(degrees_of_freedom, probability(false_alarm_rate)),
        }
    }

    /// Scalar readings plus exact zero injections plus what is assumed of the angles, minus the unknowns.
    fn degrees_of_freedom(&self, n_readings: usize) -> usize {
        let mut known = n_readings;
        for position in 0..self.state.len() {
            if self.gain.is_free(position) {
                continue;
            }
            let variance = &self.gain.injection(position).variance;
            known += variance
                .iter()
                .map(|v| usize::from(v.re == 0.0) + usize::from(v.im == 0.0))
                .sum::<usize>();
        }
        // a message's powers have been counted as exact injections; it also says its voltages, less the magnitudes where the area below
        // has read none
        for boundary in &self.gain.boundaries {
            known += boundary.n_voltages() - if boundary.taken_back.is_some() { N } else { 0 };
        }
        let angles: isize = self.gain.references.iter().map(|reference| reference.n_readings).sum();
        known.saturating_add_signed(angles).saturating_sub(2 * N * self.state.len())
    }

    fn voltage_residuals(&self, network: &Network, uncertainty: Option<&Uncertainty<N, B>>, index: usize, residuals: &mut Vec<Residual>) {
        let Some(position) = self.position(network.voltage_sensors()[index].node) else {
            return;
        };
        let (value, variance) = (&self.readings.voltage_values[index], &self.readings.voltage_variances[index]);
        let merged = self.readings.voltage_shares[index].map(|share| share.place);
        let u = to_phases::<N>(&voltages(&self.state[position]));
        for k in 0..N {
            let along = u[k] / u[k].norm();
            let estimated = |c: C64| {
                let covariance = uncertainty.map(|uncertainty| uncertainty.covariance(&self.gain));
                covariance.map_or(f64::NAN, |covariance| covariance.variance(position, &along_phase::<N, B>(k, c)))
            };
            if variance[k].re.is_finite() {
                let estimated = estimated(along);
                let sensor = Sensor::Voltage(index);
                residuals.push(residual(
                    sensor,
                    Quantity::Voltage,
                    k,
                    value[k].re - u[k].norm(),
                    variance[k].re,
                    estimated,
                ));
            }
            let has_angle = matches!(merged, Some(Place::Voltage(at)) if self.readings.voltages[at].angle_weight[k] > 0.0);
            if has_angle && variance[k].im.is_finite() {
                let across = along * C64::I / u[k].norm();
                let estimated = estimated(across);
                let turned = -turn(u[k], value[k].im);
                residuals.push(residual(
                    Sensor::Voltage(index),
                    Quantity::Angle,
                    k,
                    turned,
                    variance[k].im,
                    estimated,
                ));
            }
        }
    }

    fn power_residuals(
        &self,
        network: &Network,
        uncertainty: Option<&Uncertainty<N, B>>,
        injections: &mut Injections<N>,
        index: usize,
        residuals: &mut Vec<Residual>,
    ) {
        let Some(share) = self.readings.power_shares[index] else {
            return;
        };
        let (estimate, estimated) = match share.place {
            Place::Flow(at) => self.flow_estimate(uncertainty, at),
            Place::Injection(position) => {
                let terminal = network.power_sensors()[index].terminal;
                // the estimate of a node is worked out once, however many sensors look at it
                let both = *injections.estimates[position].get_or_insert_with(|| {
                    let variance = uncertainty.map(|uncertainty| self.injection_variance(uncertainty, position));
                    (self.injection_at(position), variance.unwrap_or([UNASKED; N]))
                });
                match injections.n_appliances[position] {
                    // what a single one injects is what the node does
                    0 | 1 => both,
                    _ => {
                        let appliances = injections
                            .appliances
                            .get_or_init(|| self.readings.appliances(network, &self.admittance));
                        terminal_estimate(both, appliances, terminal, position)
                    }
                }
            }
            Place::Voltage(_) => return,
        };
        let (value, variance) = (&self.readings.powers[index], &self.readings.power_variances[index]);
        for k in 0..N {
            let sensor = Sensor::Power(index);
            // what is exact has no residual: it counts as a constraint
            if takes_part(variance[k].re) {
                let difference = value[k].re - estimate[k].re;
                residuals.push(residual(
                    sensor,
                    Quantity::ActivePower,
                    k,
                    difference,
                    variance[k].re,
                    estimated[k].re,
                ));
            }
            if takes_part(variance[k].im) {
                let difference = value[k].im - estimate[k].im;
                residuals.push(residual(
                    sensor,
                    Quantity::ReactivePower,
                    k,
                    difference,
                    variance[k].im,
                    estimated[k].im,
                ));
            }
        }
    }

    fn current_residuals(&self, uncertainty: Option<&Uncertainty<N, B>>, index: usize, residuals: &mut Vec<Residual>) {
        let Some(Place::Flow(at)) = self.readings.current_shares[index].map(|share| share.place) else {
            return;
        };
        let (estimate, estimated) = self.flow_estimate(uncertainty, at);
        let (value, variance) = (&self.readings.currents[index], &self.readings.current_variances[index]);
        for k in 0..N {
            let sensor = Sensor::Current(index);
            if variance[k].re.is_finite() {
                let difference = value[k].re - estimate[k].re;
                residuals.push(residual(sensor, Quantity::Current, k, difference, variance[k].re, estimated[k].re));
            }
            if variance[k].im.is_finite() {
                let difference = value[k].im - estimate[k].im;
                residuals.push(residual(
                    sensor,
                    Quantity::CurrentImaginary,
                    k,
                    difference,
                    variance[k].im,
                    estimated[k].im,
                ));
            }
        }
    }

    /// Estimate of a measured flow and the variances of its parts.
    fn flow_estimate(&self, uncertainty: Option<&Uncertainty<N, B>>, at: usize) -> ([C64; N], [C64; N]) {
        let flow = &self.readings.flows[at];
        let operating = flow.at(&voltages(&self.state[flow.near]), &voltages(&self.state[flow.far]));
        let Some(uncertainty) = uncertainty else {
            return (operating.reading, [UNASKED; N]);
        };
        let jacobian = flow.jacobian::<B>(&operating);
        let variance = std::array::from_fn(|k| {
            let of = |part: fn(&C64) -> f64| {
                let near = std::array::from_fn(|column| part(&jacobian.near[column][k]));
                let far = std::array::from_fn(|column| part(&jacobian.far[column][k]));
                let far = (flow.far != flow.near).then_some((flow.far, &far));
                self.pair_variance(uncertainty, (flow.near, &near), far)
            };
            C64::new(of(|c| c.re), of(|c| c.im))
        });
        (operating.reading, variance)
    }
}

/// What the nodes inject, as far as it has been worked out.
struct Injections<const N: usize> {
    /// By position.
    n_appliances: Vec<u32>,
    /// What is read of the single appliances: needed only where a node has several.
    appliances: OnceCell<Appliances<N>>,
    /// By position: estimate and variance.
    estimates: Vec<Option<([C64; N], [C64; N])>>,
}

/// Estimate of what a node or one of its appliances injects, and its variances, from those of the node.
fn terminal_estimate<const N: usize>(
    (total, variance): ([C64; N], [C64; N]),
    appliances: &Appliances<N>,
    terminal: Terminal,
    position: usize,
) -> ([C64; N], [C64; N]) {
    let Some(own) = appliances.by_terminal.get(&terminal) else {
        return (total, variance);
    };
    let sum = &appliances.by_position[position];
    // the correction of the sum is spread over the appliances by their variances
    let part = |own: (f64, f64), sum: (f64, f64), total: (f64, f64)| match sum.1 > 0.0 {
        true if sum.1.is_finite() => {
            let share = own.1 / sum.1;
            (own.0 - share * (sum.0 - total.0), own.1 - share * share * (sum.1 - total.1))
        }
        _ => own,
    };
    let (mut estimate, mut estimated) = (total, variance);
    for k in 0..N {
        let re = |x: &([C64; N], [C64; N])| (x.0[k].re, x.1[k].re);
        let im = |x: &([C64; N], [C64; N])| (x.0[k].im, x.1[k].im);
        let both = (total, variance);
        (estimate[k].re, estimated[k].re) = part(re(own), re(sum), re(&both));
        (estimate[k].im, estimated[k].im) = part(im(own), im(sum), im(&both));
    }
    (estimate, estimated)
}

/// Whether a reading with this variance is compared with its estimate.
fn takes_part(variance: f64) -> bool {
    variance > 0.0 && variance.is_finite()
}

fn residual(sensor: Sensor, quantity: Quantity, phase: usize, residual: f64, variance: f64, estimated: f64) -> Residual {
    let rest = variance - estimated;
    Residual {
        sensor,
        quantity,
        phase,
        residual,
        sigma: variance.sqrt(),
        normalized: (rest > CRITICAL * variance).then(|| residual / rest.sqrt()),
    }
}

/// Estimates, and takes the reading with the largest normalized residual out until none is beyond what chance explains; then puts back
/// those that turn out to fit what is left.
///
/// The limit grows with the number of readings, so that the false alarm rate is that of the whole estimate.
///
/// # Errors
/// Those of [`Estimator::new`] and [`Estimator::estimate`].
pub fn estimate_without_bad_data<const N: usize, const B: usize>(
    network: &Network,
    options: EstimateOptions,
    bad_data: BadDataOptions,
) -> Result<(Estimator<N, B>, Uncertainty<N, B>, BadData), GridError> {
    let mut estimator = Estimator::<N, B>::new(network, options)?;
    let mut convergence = estimator.estimate()?;
    let mut removed: Vec<Residual> = Vec::new();
    loop {
        let uncertainty = estimator.uncertainty()?;
        let trust = estimator.trust(network, &uncertainty, bad_data.false_alarm_rate);
        let limit = limit_of(bad_data.false_alarm_rate, trust.residuals.len());
        let worst = trust.worst().copied();
        match worst.filter(|worst| worst.normalized.is_some_and(|r| r.abs() > limit) && removed.len() < N_REMOVED_MAX) {
            Some(worst) => {
                estimator.set_enabled(network, &worst, false)?;
                convergence = estimator.estimate()?;
                removed.push(worst);
            }
            None => {
                restore(network, &mut estimator, &mut removed, limit, &mut convergence)?;
                let uncertainty = estimator.uncertainty()?;
                let trust = estimator.trust(network, &uncertainty, bad_data.false_alarm_rate);
                let found = BadData {
                    removed,
                    trust,
                    convergence,
                };
                return Ok((estimator, uncertainty, found));
            }
        }
    }
}

/// A false alarm rate as near to the one asked for as makes sense.
fn probability(rate: f64) -> f64 {
    if rate.is_nan() {
        BadDataOptions::default().false_alarm_rate
    } else {
        rate.clamp(1e-12, 0.5)
    }
}

/// What a sum of squares exceeds with a probability; `None` without degrees of freedom.
///
/// Newton's steps on the logarithm of the probability, from the cube of a normal number (E. B. Wilson, M. M. Hilferty, "The distribution
/// of chi-square", PNAS 17, 1931): a search by bisection would cost more than the estimate of a small area.
fn chi_square_limit(degrees_of_freedom: usize, probability: f64) -> Option<f64> {
    let n = degrees_of_freedom as f64;
    let distribution = ChiSquared::new(n).ok()?;
    let spread = 2.0 / (9.0 * n);
    let normal = Normal::standard().inverse_cdf(1.0 - probability);
    let mut limit = n * (1.0 - spread + normal * spread.sqrt()).max(0.1).powi(3);
    for _ in 0..N_LIMIT_STEPS {
        let beyond = distribution.sf(limit);
        let step = beyond / distribution.pdf(limit) * (beyond / probability).ln();
        if !step.is_finite() {
            break;
        }
        limit = (limit + step).max(0.5 * limit);
        if step.abs() < 1e-9 * limit {
            return Some(limit);
        }
    }
    Some(distribution.inverse_cdf(1.0 - probability))
}

/// Steps that [`chi_square_limit`] takes at most; three are the rule.
const N_LIMIT_STEPS: usize = 20;

/// Normalized residual that none of `n` good readings exceeds, but for the false alarm rate.
fn limit_of(false_alarm_rate: f64, n: usize) -> f64 {
    let each = probability(false_alarm_rate) / (2.0 * n.max(1) as f64);
    Normal::standard().inverse_cdf(1.0 - each)
}

/// A reading that was removed before the one that had spoilt it fits again.
fn restore<const N: usize, const B: usize>(
    network: &Network,
    estimator: &mut Estimator<N, B>,
    removed: &mut Vec<Residual>,
    limit: f64,
    convergence: &mut Convergence,
) -> Result<(), GridError> {
    let mut index = 0;
    while removed.len() > 1 && index < removed.len() {
        estimator.set_enabled(network, &removed[index], true)?;
        *convergence = estimator.estimate()?;
        let uncertainty = estimator.uncertainty()?;
        let trust = estimator.trust(network, &uncertainty, 0.5);
        let fits = trust
            .residuals
            .iter()
            .all(|residual| residual.normalized.is_none_or(|r| r.abs() <= limit));
        if fits {
            removed.remove(index);
        } else {
            estimator.set_enabled(network, &removed[index], false)?;
            *convergence = estimator.estimate()?;
            index += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_sum_of_squares_is_that_of_the_tables() {
        // upper percentage points of chi-square: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4
        for (n, probability, expected) in [
            (1, 0.05, 3.841),
            (2, 0.001, 13.816),
            (10, 0.01, 23.209),
            (30, 0.10, 40.256),
            (100, 0.001, 149.449),
        ] {
            let limit = chi_square_limit(n, probability).unwrap();
            assert!((limit - expected).abs() < 6e-4, "{n} {probability}: {limit}");
        }
        for n in [1, 2, 3, 7, 50, 1_000, 100_000] {
            for probability in [0.5, 0.01, 1e-4, 1e-8] {
                let limit = chi_square_limit(n, probability).unwrap();
                let beyond = ChiSquared::new(n as f64).unwrap().sf(limit);
                assert!((beyond / probability - 1.0).abs() < 1e-6, "{n} {probability}: {limit} {beyond}");
            }
        }
        assert_eq!(chi_square_limit(0, 0.01), None);
    }

    #[test]
    fn the_limit_is_that_of_the_largest_of_many() {
        assert!((limit_of(0.01, 1) - 2.5758).abs() < 1e-4, "two-sided 1 % of one normal reading");
        assert!((limit_of(0.05, 1_000) - 4.0556).abs() < 1e-3, "Bonferroni over 1,000");
    }
}
