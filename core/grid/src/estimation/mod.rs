//! State estimation: the voltages that fit all readings best, each weighed by its uncertainty.
//!
//! Weighted least squares by Gauss-Newton (D4.6, section 7.2), in a form that keeps the pattern of the grid: each measured injection
//! has a multiplier beside the voltage of its node, an exact zero injection is the same equation with variance zero, and the block
//! elimination of [`crate::elimination`] fills in nothing on a tree. `docs/algorithms/state-estimation.md` has the equations and says
//! where they differ from D4.6's normal equations and why.

mod block;
mod boundary;
mod coupling;
mod covariance;
mod flow;
mod frame;
mod gain;
mod incremental;
mod local;
mod observability;
mod partial;
mod published;
mod readings;
mod single;
mod start;
mod trust;
mod uncertainty;

use std::collections::HashMap;

use crate::admittance::Admittance;
use crate::elimination::NONE;
use crate::error::GridError;
use crate::model::{C64, shunt_admittance, to_phases};
use crate::network::{Network, Terminal};
use crate::power_flow::Convergence;
use block::{Column, column_of, multipliers, voltages};
pub use boundary::{AREA_BALANCE_SIGMA_RAD, BoundaryEstimate};
use frame::StepForm;
use gain::{Gain, Narrowed};
use incremental::Changes;
pub use observability::{Meter, Observability, Suggestion};
use readings::{Disabled, Place, Readings, Share, Weighing};
use start::{free_injections, references, start, system};
pub use trust::{BadData, BadDataOptions, Quantity, Residual, Sensor, Trust, estimate_without_bad_data};
pub use uncertainty::Uncertainty;

/// New factors cost what so many steps cost: when more of them are to come, the factors are out of date.
const N_STEPS_OF_FACTORS: f64 = 8.0;

/// Variances of "not known" on the way to an answer that the first steps did not find, as shares of the real one.
const APPROACH: [f64; 5] = [1e-8, 1e-6, 1e-4, 1e-2, 1.0];

/// Gauss-Newton factors are renewed this often before the exact ones get their turn, with steps below this, per unit.
const N_GAUSS_NEWTON: usize = 3;
const CLOSE: f64 = 1e-2;

/// Weights that have changed by no more than this share leave the factors good enough to go on with.
const REWEIGHED_MAX: f64 = 0.3;

/// Steps below this, per unit, that have not shrunk after so many renewed factors are rounding.
const ROUNDED_PU: f64 = 1e-6;
const N_ROUNDED: usize = 8;

/// Voltages beyond these shares of those without load are no grid's: what was estimated from such readings is no place to go on from,
/// since once they are right again the way from there can end in another minimum.
const PLAUSIBLE: std::ops::Range<f64> = 0.5..1.5;

/// Readings beyond this, per unit, are not added to anything.
const SENSELESS_PU: f64 = 1e6;

/// What an estimate is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EstimateOptions {
    /// It ends when no voltage changes by more than this, per unit.
    pub tolerance_pu: f64,
    /// Most iterations.
    pub iterations_max: usize,
    /// Standard deviation of "the phases are 120 degrees apart" at the source in asymmetric estimates whose readings have no angles;
    /// infinite: nothing is assumed; `None`: that of the source node's voltage reading in per unit (or, without one, at the first node
    /// with a reading), as power-grid-model has it.
    pub balance_sigma_rad: Option<f64>,
}

impl Default for EstimateOptions {
    fn default() -> Self {
        Self {
            tolerance_pu: 1e-8,
            iterations_max: 100,
            balance_sigma_rad: None,
        }
    }
}

/// The state estimate of a network; `N` is 1 for the symmetric, 3 for the asymmetric one, `B` is `4 * N`.
#[derive(Debug, Clone)]
pub struct Estimator<const N: usize, const B: usize> {
    admittance: Admittance<N>,
    readings: Readings<N>,
    gain: Gain<N, B>,
    /// Voltages and multipliers by position.
    state: Vec<Column<B>>,
    /// Where the first estimate began.
    start: Vec<Column<B>>,
    /// Readings that were taken out.
    disabled: Disabled,
    changes: Changes<B>,
    options: EstimateOptions,
    /// Node ids by position, for errors.
    node_ids: Vec<i64>,
    /// Whether the factors belong to some state of this system at all.
    is_factorized: bool,
    /// Whether the state is one to go on from.
    is_plausible: bool,
    /// What "not known" had to be made narrower than it is: positions with the variances that it takes back at the next estimate.
    narrowed: Narrowed<N>,
}

/// Estimate of the positive sequence.
pub type SymmetricEstimator = Estimator<1, 4>;
/// Estimate of the three phases.
pub type AsymmetricEstimator = Estimator<3, 12>;

impl<const N: usize, const B: usize> Estimator<N, B> {
    /// Prepares a network as its switches stand, with what its sensors say.
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] for lines and shunts without zero sequence (asymmetric), [`GridError::Singular`] where the
    /// voltages without load are not determined.
    pub fn new(network: &Network, options: EstimateOptions) -> Result<Self, GridError> {
        const { assert!(B == 4 * N && (N == 1 || N == 3)) };
        let admittance = Admittance::<N>::new(network)?;
        let disabled = Disabled::new();
        let (readings, gain) = system(network, &admittance, &disabled, &options)?;
        let start = start(network, &admittance, &readings)?;
        let node_ids = admittance.order.node.iter().map(|&node| network.nodes[node as usize].id).collect();
        Ok(Self {
            changes: Changes::new(start.len()),
            state: start.iter().map(column_of).collect(),
            start: start.iter().map(column_of).collect(),
            admittance,
            readings,
            gain,
            disabled,
            options,
            node_ids,
            is_factorized: false,
            is_plausible: true,
            narrowed: Vec::new(),
        })
    }

    /// The estimator of the same network after switch operations. It begins where this one stands, so that only what the switches have
    /// moved is left to find; what areas below have said has to be said again. The order of elimination and the factors are made anew.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn switched(&self, network: &Network) -> Result<Self, GridError> {
        let mut switched = Self::new(network, self.options)?;
        if !self.disabled.is_empty() {
            switched.disabled.clone_from(&self.disabled);
            switched.read_anew(network);
        }
        if self.is_plausible {
            for (node, &position) in switched.admittance.order.position.iter().enumerate() {
                if let (Some(state), Some(there)) = (switched.state.get_mut(position as usize), self.position(node)) {
                    *state = column_of::<N, B>(&voltages(&self.unknowns(there)));
                }
            }
        }
        Ok(switched)
    }

    /// Lets the scalar reading of a residual take part or not; all phases of it, if the sensor does not tell them apart.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn set_enabled(&mut self, network: &Network, reading: &Residual, enabled: bool) -> Result<(), GridError> {
        let is_second = matches!(
            reading.quantity,
            Quantity::Angle | Quantity::ReactivePower | Quantity::CurrentImaginary
        );
        let symmetric = match reading.sensor {
            Sensor::Voltage(index) => network.voltage_sensors[index].u_v,
            Sensor::Power(index) => network.power_sensors[index].p_w,
            Sensor::Current(index) => network.current_sensors[index].i_a,
        };
        let phases = match symmetric {
            crate::network::PerPhase::Symmetric(_) => 0..N,
            crate::network::PerPhase::Phases(_) => reading.phase..reading.phase + 1,
        };
        for phase in phases {
            match enabled {
                true => self.disabled.remove(&(reading.sensor, is_second, phase)),
                false => self.disabled.insert((reading.sensor, is_second, phase)),
            };
        }
        self.settle();
        self.changes.start(false);
        let system = system(network, &self.admittance, &self.disabled, &self.options)?;
        self.replace_system(system);
        Ok(())
    }

    /// A new reading of a power sensor: its index in [`Network::power_sensors`].
    pub fn set_power(&mut self, network: &Network, sensor: usize) {
        let reading = &network.power_sensors[sensor];
        let value = single::power_value::<N>(network, reading);
        self.set(network, Sensor::Power(sensor), &value, reading.sigma_is_given());
    }

    /// A new reading of a voltage sensor: its index in [`Network::voltage_sensors`].
    pub fn set_voltage(&mut self, network: &Network, sensor: usize) {
        let reading = &network.voltage_sensors[sensor];
        let value = single::voltage_value::<N>(network, reading);
        self.set(network, Sensor::Voltage(sensor), &value, reading.u_sigma_v.is_finite());
    }

    /// A new reading of a current sensor: its index in [`Network::current_sensors`].
    pub fn set_current(&mut self, network: &Network, sensor: usize) {
        let reading = &network.current_sensors[sensor];
        let value = single::current_value::<N>(network, reading);
        self.set(network, Sensor::Current(sensor), &value, reading.i_sigma_a.is_finite());
    }

    fn set(&mut self, network: &Network, sensor: Sensor, value: &[C64; N], sigma_is_given: bool) {
        let (&mut old, variance, share) = self.readings.of(sensor);
        if is_another(&old, value, &variance, sigma_is_given) {
            return self.read_anew(network);
        }
        if let Sensor::Current(index) = sensor {
            match self.readings.weigh_current(network, index) {
                Weighing::AsBefore => {}
                Weighing::Alone => {
                    self.settle();
                    self.changes.start(false);
                }
                Weighing::Together => return self.read_anew(network),
            }
        }
        *self.readings.of(sensor).0 = value.map(without_nan);
        if let Some(share) = share {
            self.move_reading(&share, &old, value);
        }
    }

    /// Takes what all sensors of the network say now, and how well they say it; what areas below have said and what is expected of the
    /// angles stay. The next estimate begins at the last state.
    pub fn read_again(&mut self, network: &Network) {
        self.read_anew(network);
    }

    /// Reads all sensors again, from the last state.
    fn read_anew(&mut self, network: &Network) {
        self.settle();
        self.changes.start(false);
        // what the sensors are has not changed, so there is nothing that could be wrong with them now
        let Ok(mut readings) = Readings::new(network, &self.admittance, &self.disabled) else {
            return;
        };
        let free = free_injections(&self.admittance, &mut readings);
        let references = references(&self.admittance, &mut readings, &self.options);
        if !self.gain.has_place_for(&self.readings, &readings, &free) {
            let gain = Gain::new(&self.admittance, &readings, free, references);
            return self.replace_system((readings, gain));
        }
        // factors that are only a little out of date cost steps, never accuracy
        self.is_factorized &= self.narrowed.is_empty() && self.readings.weighs_like(&readings, REWEIGHED_MAX);
        self.narrowed.clear();
        self.gain.take_injections(&readings.injections);
        self.readings = readings;
    }

    /// Takes new equations, with what areas below have said and what is expected of the angles as they were.
    fn replace_system(&mut self, (readings, gain): (Readings<N>, Gain<N, B>)) {
        let old = std::mem::replace(&mut self.gain, gain);
        self.readings = readings;
        for boundary in &old.boundaries {
            let position = boundary.position;
            *self.gain.injection_mut(position) = *old.injection(position);
        }
        self.gain.boundaries = old.boundaries;
        self.gain.references = old.references;
        self.gain.index_readings(&self.readings);
        self.narrowed.clear();
        self.is_factorized = false;
    }

    fn move_reading(&mut self, share: &Share<N>, old: &[C64; N], new: &[C64; N]) {
        match share.place {
            Place::Injection(position) => self.changes.note(position),
            Place::Voltage(index) => self.changes.note(self.readings.voltages[index].position),
            Place::Flow(index) => {
                let (near, far) = (self.readings.flows[index].near, self.readings.flows[index].far);
                self.changes.note(near);
                self.changes.note(far);
            }
        }
        for k in 0..N {
            // a part that has no share may be missing
            let moved = |share: f64, new: f64, old: f64| if share > 0.0 { share * (new - old) } else { 0.0 };
            let first = moved(share.first[k], new[k].re, old[k].re);
            let second = moved(share.second[k], new[k].im, old[k].im);
            match share.place {
                Place::Injection(position) if !self.gain.is_free(position) => {
                    let power = &mut self.gain.injection_mut(position).power[k];
                    *power += C64::new(first, second);
                }
                Place::Injection(_) => {}
                Place::Voltage(index) => {
                    let voltage = &mut self.readings.voltages[index];
                    if voltage.angle_weight[k] > 0.0 {
                        let merged = single::polar(C64::new(voltage.magnitude[k], voltage.angle[k]));
                        let moved = merged + (single::polar(new[k]) - single::polar(old[k])) * share.first[k];
                        (voltage.magnitude[k], voltage.angle[k]) = moved.to_polar();
                    } else {
                        voltage.magnitude[k] += first;
                    }
                }
                Place::Flow(index) => self.readings.flows[index].value[k] += C64::new(first, second),
            }
        }
    }

    /// Estimates from the last state: along the ways from the changed readings to the root if there are few, else everywhere.
    ///
    /// # Errors
    /// [`GridError::NotConverged`] and [`GridError::Singular`].
    pub fn estimate(&mut self) -> Result<Convergence, GridError> {
        match self.estimate_changes() {
            Some(convergence) => Ok(convergence),
            None => self.estimate_all(),
        }
    }

    /// Estimates from the last state, with a look at every equation.
    ///
    /// # Errors
    /// As [`Self::estimate`].
    pub fn estimate_all(&mut self) -> Result<Convergence, GridError> {
        self.settle();
        self.changes.start(false);
        if self.state.is_empty() {
            return Ok(Convergence {
                iterations: 0,
                step_pu: 0.0,
            });
        }
        if !self.is_plausible || !self.narrowed.is_empty() {
            self.gain.restore_unknown(&std::mem::take(&mut self.narrowed));
            self.state.clone_from(&self.start);
            self.is_factorized = false;
        }
        if !self.is_factorized {
            self.factorize(true)?;
        }
        let convergence = match self.iterate(true) {
            Ok(convergence) => convergence,
            Err(_) => self.approach()?,
        };
        self.is_plausible = self.state.iter().zip(&self.start).all(|(x, start)| {
            let square = |x: &Column<B>| voltages::<N, B>(x).iter().map(C64::norm_sqr).sum::<f64>();
            PLAUSIBLE.contains(&(square(x) / square(start)).sqrt())
        });
        if self.changes.follows {
            self.make_ready()?;
        }
        Ok(convergence)
    }

    /// Steps until they are small enough, with new factors whenever they do not shrink well: those of Gauss-Newton at first, which lead
    /// to the answer from far away; close to it the exact ones, since Gauss-Newton leaves out what large residuals of sharp readings bend.
    fn iterate(&mut self, with_exact_factors: bool) -> Result<Convergence, GridError> {
        // the steps before the last one, since the factors are what they are
        let mut before = [f64::INFINITY; 2];
        let mut step_pu = f64::INFINITY;
        let mut n_slow = 0;
        for iterations in 1..=self.options.iterations_max {
            step_pu = self.gain.step(&self.readings, &mut self.state, StepForm::Rectangular);
            if step_pu <= self.options.tolerance_pu {
                return Ok(Convergence { iterations, step_pu });
            }
            if !step_pu.is_finite() {
                break;
            }
            // two steps together tell more than one: a small mode that is slow does not show at first
            let rate = match before[1].is_finite() {
                true => (step_pu / before[1]).sqrt(),
                false => step_pu / before[0],
            };
            before = [step_pu, before[0]];
            if !(steps_to_come(step_pu, rate, self.options.tolerance_pu) <= N_STEPS_OF_FACTORS) {
                n_slow += 1;
                // links beside long cables leave this much to rounding, and no factors can help it
                if n_slow > N_ROUNDED && step_pu < ROUNDED_PU {
                    return Ok(Convergence { iterations, step_pu });
                }
                let is_close = with_exact_factors && n_slow > N_GAUSS_NEWTON && step_pu < CLOSE;
                // exact factors can be those of a saddle: Gauss-Newton's never are
                if !is_close || self.factorize(false).is_err() {
                    self.factorize(true)?;
                }
                before = [step_pu, f64::INFINITY];
            }
        }
        self.is_factorized = false;
        Err(GridError::NotConverged {
            what: "state estimation",
            step_pu,
            tolerance_pu: self.options.tolerance_pu,
            iterations: self.options.iterations_max,
            remedy: "check the readings for gross errors: swapped phases, wrong signs, wrong units",
        })
    }

    /// From the start again, towards the answer in stages: first everything that is not known counts as known to be next to nothing, then
    /// less and less so. What is not known at all can lead the first steps far away from any grid. Where the last stages lead nowhere, the
    /// widest that has an answer is it: "not known" is then that much narrower.
    fn approach(&mut self) -> Result<Convergence, GridError> {
        self.state.clone_from(&self.start);
        // Gauss-Newton alone goes slower, but not astray
        let mut first = self.estimate_narrowed(APPROACH[0], false);
        if first.is_err() {
            self.state.clone_from(&self.start);
            first = self.estimate_narrowed(APPROACH[0], true);
        }
        let mut best = match first {
            Ok(convergence) => (convergence, self.state.clone(), APPROACH[0]),
            Err(error) => {
                // leave a state that a later estimate can begin from
                self.state.clone_from(&self.start);
                self.is_factorized = false;
                return Err(error);
            }
        };
        for &share in &APPROACH[1..] {
            match self.estimate_narrowed(share, false) {
                Ok(convergence) => best = (convergence, self.state.clone(), share),
                Err(_) => break,
            }
        }
        let (convergence, state, share) = best;
        self.state = state;
        if share < 1.0 {
            self.narrowed = self.gain.scale_unknown(self.readings.unknown_variance, share);
        }
        self.factorize(true)?;
        Ok(convergence)
    }

    /// An estimate from the present state for which "not known" is a share of what it is.
    fn estimate_narrowed(&mut self, share: f64, with_exact_factors: bool) -> Result<Convergence, GridError> {
        let wide = self.gain.scale_unknown(self.readings.unknown_variance, share);
        let result = self.factorize(true).and_then(|()| self.iterate(with_exact_factors));
        self.gain.restore_unknown(&wide);
        result
    }

    /// Makes ready for single readings: from here on [`Self::estimate`] touches what a changed reading touches. Costs one
    /// factorization, at the estimate and with the exact second derivatives.
    ///
    /// # Errors
    /// As [`Self::estimate`].
    pub fn follow(&mut self) -> Result<(), GridError> {
        self.changes.follows = false;
        self.estimate_all()?;
        self.changes.follows = true;
        self.make_ready()
    }

    /// Factors with the exact second derivatives at the estimate, and an estimate with no digit left to gain.
    fn make_ready(&mut self) -> Result<(), GridError> {
        self.factorize(false)?;
        self.gain.step(&self.readings, &mut self.state, StepForm::Rectangular);
        self.gain.step(&self.readings, &mut self.state, StepForm::Rectangular);
        self.changes.pending.multiplier_counts = self.gain.multiplier_counts();
        self.changes.start(true);
        Ok(())
    }

    fn factorize(&mut self, gauss_newton: bool) -> Result<(), GridError> {
        let factorized = self.gain.factorize(&self.readings, &self.state, gauss_newton);
        self.is_factorized = factorized.is_ok();
        factorized.map_err(|at| self.singular(at))
    }

    /// Estimated voltage of a node by phase, per unit of phase to ground; `None` without supply.
    pub fn voltage_pu(&self, node: usize) -> Option<[C64; N]> {
        let position = *self.admittance.order.position.get(node)?;
        (position != NONE).then(|| to_phases(&voltages(&self.unknowns(position as usize))))
    }

    /// Estimated power that the appliances of a node inject, by phase, per unit; `None` without supply.
    pub fn injection_pu(&self, node: usize) -> Option<[C64; N]> {
        let position = *self.admittance.order.position.get(node)?;
        if position == NONE {
            return None;
        }
        let (i, x) = (position as usize, &self.unknowns(position as usize));
        if !self.gain.is_free(i) {
            return Some(local::estimated_injection(self.gain.injection(i), &voltages(x), &multipliers(x)));
        }
        let mut current = [C64::ZERO; N];
        for (there, y) in self.admittance.row(i) {
            let v: [C64; N] = voltages(&self.unknowns(there));
            (0..N).for_each(|k| current[k] += y[k] * v[k]);
        }
        let (u, current) = (to_phases(&voltages::<N, B>(x)), to_phases(&current));
        Some(std::array::from_fn(|k| u[k] * current[k].conj()))
    }

    /// Estimated power of every source, load and generator with supply, into the grid, and of every shunt, into the shunt, by phase, per
    /// unit. The correction of a node's readings is shared by variance; what a node's readings leave unexplained goes in equal parts to its
    /// appliances without reading.
    pub fn appliance_powers_pu(&self, network: &Network) -> HashMap<Terminal, [C64; N]> {
        let appliances = self.readings.appliances(network, &self.admittance);
        let mut n_unread: HashMap<usize, usize> = HashMap::new();
        let node_of = |terminal: &Terminal| match *terminal {
            Terminal::Source(index) => network.sources[index].node,
            Terminal::Appliance(index) => network.appliances[index].node,
            _ => 0,
        };
        let is_unread = |variance: &[C64; N], k: usize| variance[k].re.is_infinite() || variance[k].im.is_infinite();
        let mut read: HashMap<usize, [C64; N]> = HashMap::new();
        for (terminal, (value, variance)) in &appliances.by_terminal {
            let node = node_of(terminal);
            match (0..N).any(|k| is_unread(variance, k)) {
                true => *n_unread.entry(node).or_default() += 1,
                false => {
                    let sum = read.entry(node).or_insert([C64::ZERO; N]);
                    (0..N).for_each(|k| sum[k] += value[k]);
                }
            }
        }
        let mut powers = HashMap::new();
        for (terminal, (value, variance)) in &appliances.by_terminal {
            let node = node_of(terminal);
            let (Some(total), Some(position)) = (self.injection_pu(node), self.position(node)) else {
                continue;
            };
            let power = match n_unread.get(&node) {
                None => {
                    let (sum, sum_variance) = &appliances.by_position[position];
                    std::array::from_fn(|k| {
                        let share = |own: f64, all: f64| if all > 0.0 { own / all } else { 0.0 };
                        let rest = sum[k] - total[k];
                        value[k]
                            - C64::new(
                                share(variance[k].re, sum_variance[k].re) * rest.re,
                                share(variance[k].im, sum_variance[k].im) * rest.im,
                            )
                    })
                }
                Some(_) if !(0..N).any(|k| is_unread(variance, k)) => *value,
                Some(&n) => {
                    let read = read.get(&node).copied().unwrap_or([C64::ZERO; N]);
                    std::array::from_fn(|k| (total[k] - read[k]) / n as f64)
                }
            };
            powers.insert(*terminal, power);
        }
        for (index, shunt) in network.shunts.iter().enumerate().filter(|(_, shunt)| shunt.connected) {
            let y = shunt_admittance::<N>(shunt, network.nodes[shunt.node].u_rated_v);
            if let (Some(position), Ok(y)) = (self.position(shunt.node), y) {
                let v: [C64; N] = voltages(&self.unknowns(position));
                let (u, i): ([C64; N], [C64; N]) = (to_phases(&v), to_phases(&std::array::from_fn(|k| y[k] * v[k])));
                powers.insert(Terminal::Shunt(index), std::array::from_fn(|k| u[k] * i[k].conj()));
            }
        }
        powers
    }

    /// The connections that the estimate belongs to.
    pub fn topology(&self) -> &crate::topology::Topology {
        &self.admittance.topology
    }
}

/// How many more steps it takes to one below a tolerance, if each is `rate` times the last one.
fn steps_to_come(step: f64, rate: f64, tolerance: f64) -> f64 {
    match rate < 1.0 {
        true => (tolerance / step).ln() / rate.ln(),
        false => f64::INFINITY,
    }
}

fn without_nan(c: C64) -> C64 {
    let part = |x: f64| if x.is_nan() { 0.0 } else { x };
    C64::new(part(c.re), part(c.im))
}

/// Whether a new value is more than another number in the old one's place: a reading that comes or goes, or one so large that sums would
/// not forget it.
fn is_another<const N: usize>(old: &[C64; N], new: &[C64; N], variance: &[C64; N], sigma_is_given: bool) -> bool {
    let is_another = |old: f64, new: f64, variance: f64| {
        let (was_read, is_read) = (variance.is_finite(), !new.is_nan());
        (was_read && !is_read)
            || (!was_read && is_read && sigma_is_given && old == 0.0 && new != 0.0)
            || new.abs().max(old.abs()) > SENSELESS_PU
    };
    (0..N).any(|k| is_another(old[k].re, new[k].re, variance[k].re) || is_another(old[k].im, new[k].im, variance[k].im))
}
