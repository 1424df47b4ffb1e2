//! From sensors to what the estimate weighs: one merged reading for each node's injection, each node's voltage and each end of a
//! measured branch.
//!
//! Readings of one quantity are merged by their variances, sensors of the appliances of a node add up to its injection. Merging is
//! linear, so a new reading of one sensor is added with its share and nothing else is looked at again.

use std::collections::{BTreeMap, HashMap};

use super::single::{Single, current_single, has_angle, merge, polar, power_single, voltage_single, weights_of};
use super::trust::Sensor;
use crate::admittance::Admittance;
use crate::elimination::NONE;
use crate::error::GridError;
use crate::model::{C64, shunt_admittance};
use crate::network::{CurrentAngle, Network, Terminal};

/// The injection of an appliance that nobody measures has a standard deviation this many times the largest one of a power sensor, up to
/// [`UNKNOWN_VARIANCE_MAX`]: so wide that it does not move the answer, and narrow enough for the arithmetic.
const UNKNOWN_SIGMA_FACTOR: f64 = 1e4;

/// Largest variance that stands for "unknown": (1,000 MVA)².
const UNKNOWN_VARIANCE_MAX: f64 = 1e6;

/// Where a sensor's reading goes, and with which share: for each phase of P (or |V|, |I|) and Q (or angle).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share<const N: usize> {
    pub(super) place: Place,
    pub(super) first: [f64; N],
    pub(super) second: [f64; N],
}

/// Index of a merged reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Injection at a position.
    Injection(usize),
    /// Element of [`Readings::voltages`].
    Voltage(usize),
    /// Element of [`Readings::flows`].
    Flow(usize),
}

/// What is known of the power that the appliances of a node inject, by phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Injection<const N: usize> {
    /// Merged reading.
    pub(super) power: [C64; N],
    /// Variances of P (real part) and Q (imaginary part); zero is exact.
    pub(super) variance: [C64; N],
    /// Whether some phase is not measured at all: its variance stands for "unknown".
    pub(super) is_unknown: bool,
}

/// Merged voltage readings of one node, by phase. Weights are inverse variances, zero without a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Voltage<const N: usize> {
    pub(super) position: usize,
    pub(super) magnitude: [f64; N],
    pub(super) magnitude_weight: [f64; N],
    pub(super) angle: [f64; N],
    pub(super) angle_weight: [f64; N],
}

/// What is measured where current flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    /// P and Q.
    Power,
    /// Real and imaginary part of the current, against the voltage at the same end or against the common reference.
    Current(CurrentAngle),
    /// Magnitude of the current.
    CurrentMagnitude,
}

/// Merged readings of one end of a branch, or of a shunt, by phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flow<const N: usize> {
    pub(super) quantity: Quantity,
    /// Position of the measured end.
    pub(super) near: usize,
    /// Position of the other end; `near` for a shunt or a branch that is open there.
    pub(super) far: usize,
    /// Current per voltage at the measured end, symmetrical components.
    pub(super) y_near: [C64; N],
    /// Current per voltage at the other end.
    pub(super) y_far: [C64; N],
    /// Merged reading.
    pub(super) value: [C64; N],
    /// Inverse variances of its real and imaginary part.
    pub(super) weight: [C64; N],
}

/// What a new value does to the weight of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weighing {
    AsBefore,
    /// It has another weight, and has been given it.
    Alone,
    /// It has another weight, and so have the shares of the readings it is merged with.
    Together,
}

/// All merged readings, and each sensor's share in them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Readings<const N: usize> {
    pub(super) injections: Vec<Injection<N>>,
    pub(super) voltages: Vec<Voltage<N>>,
    pub(super) flows: Vec<Flow<N>>,
    pub(super) power_shares: Vec<Option<Share<N>>>,
    pub(super) voltage_shares: Vec<Option<Share<N>>>,
    pub(super) current_shares: Vec<Option<Share<N>>>,
    /// Readings as they are merged now, by sensor.
    pub(super) powers: Vec<[C64; N]>,
    pub(super) voltage_values: Vec<[C64; N]>,
    pub(super) currents: Vec<[C64; N]>,
    /// Variances by sensor; infinite where it says nothing.
    pub(super) power_variances: Vec<[C64; N]>,
    pub(super) voltage_variances: Vec<[C64; N]>,
    pub(super) current_variances: Vec<[C64; N]>,
    /// Variance that stands for "unknown".
    pub(super) unknown_variance: f64,
    /// Voltages that are guessed, not read.
    pub(super) guesses: Vec<usize>,
}

/// Scalar readings that do not take part: sensor, whether it is the second of its quantities, phase.
pub(super) type Disabled = std::collections::BTreeSet<(Sensor, bool, usize)>;

/// What is read of the single appliances.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Appliances<const N: usize> {
    /// Value and variance of each measured source, load and generator, as injections.
    pub(super) by_terminal: HashMap<Terminal, ([C64; N], [C64; N])>,
    /// Their sums by position.
    pub(super) by_position: Vec<([C64; N], [C64; N])>,
}

impl<const N: usize> Readings<N> {
    /// Merges what the sensors of a network say now.
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] for a measured shunt without zero sequence.
    pub(super) fn new(network: &Network, admittance: &Admittance<N>, disabled: &Disabled) -> Result<Self, GridError> {
        let mut readings = Self {
            injections: Vec::new(),
            voltages: Vec::new(),
            flows: Vec::new(),
            power_shares: vec![None; network.power_sensors.len()],
            voltage_shares: vec![None; network.voltage_sensors.len()],
            current_shares: vec![None; network.current_sensors.len()],
            powers: Vec::new(),
            voltage_values: Vec::new(),
            currents: Vec::new(),
            power_variances: Vec::new(),
            voltage_variances: Vec::new(),
            current_variances: Vec::new(),
            unknown_variance: 0.0,
            guesses: Vec::new(),
        };
        let mut powers: Vec<Single<N>> = network.power_sensors.iter().map(|s| power_single(network, s)).collect();
        let mut voltages: Vec<Single<N>> = network.voltage_sensors.iter().map(|s| voltage_single(network, s)).collect();
        let mut currents: Vec<Single<N>> = network.current_sensors.iter().map(|s| current_single(network, s)).collect();
        for &(sensor, is_second, phase) in disabled {
            let variance = match sensor {
                Sensor::Voltage(index) => &mut voltages[index].variance[phase],
                Sensor::Power(index) => &mut powers[index].variance[phase],
                Sensor::Current(index) => &mut currents[index].variance[phase],
            };
            *(if is_second { &mut variance.im } else { &mut variance.re }) = f64::INFINITY;
        }
        let finite = |reading: &Single<N>| {
            let parts = reading.variance.iter().flat_map(|v| [v.re, v.im]);
            parts.filter(|v| v.is_finite()).fold(0.0, f64::max)
        };
        let largest = powers.iter().map(finite).fold(0.0, f64::max);
        let unknown = (if largest > 0.0 { largest } else { 1.0 }) * UNKNOWN_SIGMA_FACTOR.powi(2);
        readings.unknown_variance = unknown.min(UNKNOWN_VARIANCE_MAX);
        // a reading without any worth is none
        for single in &mut powers {
            for variance in &mut single.variance {
                for part in [&mut variance.re, &mut variance.im] {
                    if *part >= readings.unknown_variance {
                        *part = f64::INFINITY;
                    }
                }
            }
        }
        readings.add_injections(network, admittance, &powers);
        readings.add_voltages(network, admittance, &voltages);
        readings.add_flows(network, admittance, &powers, &currents)?;
        readings.powers = powers.iter().map(|single| single.value).collect();
        readings.voltage_values = voltages.iter().map(|single| single.value).collect();
        readings.currents = currents.iter().map(|single| single.value).collect();
        readings.power_variances = powers.iter().map(|single| single.variance).collect();
        readings.voltage_variances = voltages.iter().map(|single| single.variance).collect();
        readings.current_variances = currents.iter().map(|single| single.variance).collect();
        Ok(readings)
    }

    /// Whether other readings, in the same places, have the same weights but for a share.
    pub(super) fn weighs_like(&self, other: &Self, share: f64) -> bool {
        let alike = |a: f64, b: f64| (a - b).abs() <= share * a.max(b);
        let both = |a: &[C64; N], b: &[C64; N]| a.iter().zip(b).all(|(a, b)| alike(a.re, b.re) && alike(a.im, b.im));
        let numbers = |a: &[f64; N], b: &[f64; N]| a.iter().zip(b).all(|(a, b)| alike(*a, *b));
        self.injections
            .iter()
            .zip(&other.injections)
            .all(|(a, b)| both(&a.variance, &b.variance))
            && (self.voltages.iter().zip(&other.voltages))
                .all(|(a, b)| numbers(&a.magnitude_weight, &b.magnitude_weight) && numbers(&a.angle_weight, &b.angle_weight))
            && self.flows.iter().zip(&other.flows).all(|(a, b)| both(&a.weight, &b.weight))
    }

    /// What is kept of a sensor: its value, its variances, and where it goes.
    pub(super) fn of(&mut self, sensor: Sensor) -> (&mut [C64; N], [C64; N], Option<Share<N>>) {
        match sensor {
            Sensor::Power(at) => (&mut self.powers[at], self.power_variances[at], self.power_shares[at]),
            Sensor::Voltage(at) => (&mut self.voltage_values[at], self.voltage_variances[at], self.voltage_shares[at]),
            Sensor::Current(at) => (&mut self.currents[at], self.current_variances[at], self.current_shares[at]),
        }
    }

    /// Weighs a new value of a current sensor: the variances of a phasor's parts depend on the phasor.
    pub(super) fn weigh_current(&mut self, network: &Network, sensor: usize) -> Weighing {
        let Some(Share {
            place: Place::Flow(index),
            first,
            second,
        }) = self.current_shares[sensor]
        else {
            return Weighing::AsBefore;
        };
        // parts that are missing keep the weight they had
        let old = self.current_variances[sensor];
        let mut variance = current_single::<N>(network, &network.current_sensors[sensor]).variance;
        for k in 0..N {
            variance[k].re = if variance[k].re.is_finite() { variance[k].re } else { old[k].re };
            variance[k].im = if variance[k].im.is_finite() { variance[k].im } else { old[k].im };
        }
        if variance == old {
            return Weighing::AsBefore;
        }
        let is_whole = |share: &[f64; N]| share.iter().all(|&share| share == 1.0 || share == 0.0);
        if !is_whole(&first) || !is_whole(&second) {
            return Weighing::Together;
        }
        self.current_variances[sensor] = variance;
        self.flows[index].weight = variance.map(weights_of);
        Weighing::Alone
    }

    /// What is read of the single appliances now.
    pub(super) fn appliances(&self, network: &Network, admittance: &Admittance<N>) -> Appliances<N> {
        let mut sensors: HashMap<Terminal, Vec<Single<N>>> = HashMap::new();
        for (index, sensor) in network.power_sensors.iter().enumerate() {
            if matches!(sensor.terminal, Terminal::Appliance(_) | Terminal::Source(_)) {
                sensors.entry(sensor.terminal).or_default().push(self.power_single(index));
            }
        }
        let mut by_position = vec![([C64::ZERO; N], [C64::ZERO; N]); admittance.order.len()];
        let appliances =
            (0..network.appliances.len()).map(|i| (Terminal::Appliance(i), network.appliances[i].node, network.appliances[i].connected));
        let sources = (0..network.sources.len()).map(|i| (Terminal::Source(i), network.sources[i].node, network.sources[i].connected));
        let mut by_terminal = HashMap::new();
        for (terminal, node, connected) in appliances.chain(sources) {
            let position = admittance.order.position[node];
            if !connected || position == NONE {
                continue;
            }
            let merged = merge(sensors.get(&terminal).map_or(&[], Vec::as_slice)).0;
            let (value, variance) = &mut by_position[position as usize];
            for k in 0..N {
                value[k] += merged.value[k];
                variance[k] += merged.variance[k];
            }
            by_terminal.insert(terminal, (merged.value, merged.variance));
        }
        Appliances { by_terminal, by_position }
    }

    /// How many sources, loads and generators each position has.
    pub(super) fn n_appliances(&self, network: &Network, admittance: &Admittance<N>) -> Vec<u32> {
        let mut n_appliances = vec![0; admittance.order.len()];
        let appliances = network.appliances.iter().map(|appliance| (appliance.node, appliance.connected));
        let sources = network.sources.iter().map(|source| (source.node, source.connected));
        for (node, _) in appliances.chain(sources).filter(|&(_, connected)| connected) {
            if let Some(n) = n_appliances.get_mut(admittance.order.position[node] as usize) {
                *n += 1;
            }
        }
        n_appliances
    }

    /// What is read of the loads and generators of one node.
    pub(super) fn appliances_at(&self, network: &Network, node: usize) -> Vec<([C64; N], [C64; N])> {
        let here = network.appliances.iter().enumerate();
        here.filter(|(_, appliance)| appliance.connected && appliance.node == node)
            .map(|(appliance, _)| {
                let sensors = network.power_sensors.iter().enumerate();
                let singles: Vec<Single<N>> = sensors
                    .filter(|(_, sensor)| sensor.terminal == Terminal::Appliance(appliance))
                    .map(|(index, _)| self.power_single(index))
                    .collect();
                let merged = merge(&singles).0;
                (merged.value, merged.variance)
            })
            .collect()
    }

    fn power_single(&self, index: usize) -> Single<N> {
        Single {
            value: self.powers[index],
            variance: self.power_variances[index],
        }
    }

    /// A weak opinion that a node is at its rated voltage.
    pub(super) fn guess_voltage(&mut self, position: usize, weight: f64) {
        let guess = Voltage {
            position,
            magnitude: [1.0; N],
            magnitude_weight: [weight; N],
            angle: [0.0; N],
            angle_weight: [0.0; N],
        };
        // at the end, so that the shares keep their places
        self.guesses.push(self.voltages.len());
        self.voltages.push(guess);
    }

    fn add_injections(&mut self, network: &Network, admittance: &Admittance<N>, singles: &[Single<N>]) {
        let order = &admittance.order;
        let mut by_appliance: Vec<Vec<usize>> = vec![Vec::new(); network.appliances.len()];
        let mut by_source: Vec<Vec<usize>> = vec![Vec::new(); network.sources.len()];
        let mut by_node: Vec<Vec<usize>> = vec![Vec::new(); order.len()];
        for (index, sensor) in network.power_sensors.iter().enumerate() {
            match sensor.terminal {
                Terminal::Appliance(appliance) => by_appliance[appliance].push(index),
                Terminal::Source(source) => by_source[source].push(index),
                Terminal::Node(node) if order.position[node] != NONE => by_node[order.position[node] as usize].push(index),
                _ => {}
            }
        }
        let mut members: Vec<Vec<&[usize]>> = vec![Vec::new(); order.len()];
        let appliances = network.appliances.iter().map(|a| (a.node, a.connected)).zip(&by_appliance);
        let sources = network.sources.iter().map(|s| (s.node, s.connected)).zip(&by_source);
        for ((node, connected), sensors) in appliances.chain(sources) {
            if connected && order.position[node] != NONE {
                members[order.position[node] as usize].push(sensors);
            }
        }
        for position in 0..order.len() {
            let injection = self.node_injection(position, &members[position], &by_node[position], singles);
            self.injections.push(injection);
        }
    }

    /// The injection of one node: its appliances' readings added up, merged with the readings of the node itself.
    fn node_injection(&mut self, position: usize, members: &[&[usize]], direct: &[usize], singles: &[Single<N>]) -> Injection<N> {
        let of = |sensors: &[usize]| sensors.iter().map(|&index| singles[index]).collect::<Vec<_>>();
        let mut sum = Single {
            value: [C64::ZERO; N],
            variance: [C64::ZERO; N],
        };
        let mut shares: Vec<(usize, [f64; N], [f64; N])> = Vec::new();
        for sensors in members {
            let (merged, parts) = merge(&of(sensors));
            for k in 0..N {
                sum.value[k] += merged.value[k];
                sum.variance[k] += merged.variance[k];
            }
            shares.extend(sensors.iter().zip(parts).map(|(&sensor, (p, q))| (sensor, p, q)));
        }
        let (itself, parts) = merge(&of(direct));
        let (merged, both) = merge(&[sum, itself]);
        for (_, p, q) in &mut shares {
            for k in 0..N {
                p[k] *= both[0].0[k];
                q[k] *= both[0].1[k];
            }
        }
        shares.extend(direct.iter().zip(parts).map(|(&sensor, (mut p, mut q))| {
            for k in 0..N {
                p[k] *= both[1].0[k];
                q[k] *= both[1].1[k];
            }
            (sensor, p, q)
        }));
        for (sensor, first, second) in shares {
            if !singles[sensor].says_nothing() {
                let place = Place::Injection(position);
                self.power_shares[sensor] = Some(Share { place, first, second });
            }
        }
        let mut injection = Injection {
            power: merged.value,
            variance: merged.variance,
            is_unknown: false,
        };
        for k in 0..N {
            for variance in [&mut injection.variance[k].re, &mut injection.variance[k].im] {
                if variance.is_infinite() {
                    *variance = self.unknown_variance;
                    injection.is_unknown = true;
                }
            }
        }
        injection
    }

    fn add_voltages(&mut self, network: &Network, admittance: &Admittance<N>, singles: &[Single<N>]) {
        let mut by_position: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, sensor) in network.voltage_sensors.iter().enumerate() {
            let position = admittance.order.position[sensor.node];
            if position != NONE && !singles[index].says_nothing() {
                by_position.entry(position as usize).or_default().push(index);
            }
        }
        for (position, sensors) in by_position {
            let mut readings: Vec<Single<N>> = sensors.iter().map(|&index| singles[index]).collect();
            let has_angle = |reading: &Single<N>| reading.variance.iter().all(|variance| variance.im.is_finite());
            if !readings.iter().all(has_angle) {
                // a node where one of several sensors lacks the angle keeps the magnitudes only, as in power-grid-model
                for reading in &mut readings {
                    reading.variance.iter_mut().for_each(|variance| variance.im = f64::INFINITY);
                }
            }
            let (mut merged, shares) = merge(&readings);
            for k in (0..N).filter(|&k| merged.variance[k].im.is_finite()) {
                // readings with angles are merged as phasors
                let parts = readings
                    .iter()
                    .zip(&shares)
                    .map(|(reading, share)| polar(reading.value[k]) * share.0[k]);
                let (magnitude, angle) = parts.sum::<C64>().to_polar();
                merged.value[k] = C64::new(magnitude, angle);
            }
            let weight = |variance: f64| if variance.is_finite() { 1.0 / variance } else { 0.0 };
            let voltage = Voltage {
                position,
                magnitude: merged.value.map(|u| u.re),
                magnitude_weight: merged.variance.map(|v| weight(v.re)),
                angle: merged.value.map(|u| u.im),
                angle_weight: merged.variance.map(|v| weight(v.im)),
            };
            for (sensor, (first, second)) in sensors.into_iter().zip(shares) {
                let place = Place::Voltage(self.voltages.len());
                self.voltage_shares[sensor] = Some(Share { place, first, second });
            }
            self.voltages.push(voltage);
        }
    }

    fn add_flows(
        &mut self,
        network: &Network,
        admittance: &Admittance<N>,
        powers: &[Single<N>],
        currents: &[Single<N>],
    ) -> Result<(), GridError> {
        let mut groups: BTreeMap<(usize, usize, u8), Vec<(bool, usize)>> = BTreeMap::new();
        let key = |terminal: Terminal| match terminal {
            Terminal::BranchFrom(index) => Some((0, index)),
            Terminal::BranchTo(index) => Some((1, index)),
            Terminal::Shunt(index) => Some((2, index)),
            _ => None,
        };
        for (index, sensor) in network.power_sensors.iter().enumerate() {
            if let Some((kind, object)) = key(sensor.terminal).filter(|_| !powers[index].says_nothing()) {
                groups.entry((kind, object, 0)).or_default().push((true, index));
            }
        }
        for (index, sensor) in network.current_sensors.iter().enumerate() {
            let quantity = match (has_angle(sensor), sensor.angle_kind) {
                (true, CurrentAngle::Local) => 1,
                (true, CurrentAngle::Global) => 2,
                (false, _) => 3,
            };
            if let Some((kind, object)) = key(sensor.terminal).filter(|_| !currents[index].says_nothing()) {
                groups.entry((kind, object, quantity)).or_default().push((false, index));
            }
        }
        for ((kind, object, quantity), sensors) in groups {
            let Some((near, far, y_near, y_far)) = terminal(network, admittance, kind, object)? else {
                continue;
            };
            let readings: Vec<Single<N>> = sensors
                .iter()
                .map(|&(is_power, index)| if is_power { powers[index] } else { currents[index] })
                .collect();
            let (merged, shares) = merge(&readings);
            let quantity = match quantity {
                0 => Quantity::Power,
                1 => Quantity::Current(CurrentAngle::Local),
                2 => Quantity::Current(CurrentAngle::Global),
                _ => Quantity::CurrentMagnitude,
            };
            for ((is_power, sensor), (first, second)) in sensors.into_iter().zip(shares) {
                let place = Place::Flow(self.flows.len());
                let list = if is_power {
                    &mut self.power_shares
                } else {
                    &mut self.current_shares
                };
                list[sensor] = Some(Share { place, first, second });
            }
            self.flows.push(Flow {
                quantity,
                near,
                far,
                y_near,
                y_far,
                value: merged.value,
                weight: merged.variance.map(weights_of),
            });
        }
        Ok(())
    }
}

type TerminalOf<const N: usize> = Option<(usize, usize, [C64; N], [C64; N])>;

/// Positions and admittances of a measured end; `None` without supply there.
fn terminal<const N: usize>(network: &Network, admittance: &Admittance<N>, kind: usize, object: usize) -> Result<TerminalOf<N>, GridError> {
    let position = |node: usize| admittance.order.position[node];
    if kind == 2 {
        let shunt = &network.shunts[object];
        let at = position(shunt.node);
        if at == NONE || !shunt.connected {
            return Ok(None);
        }
        let y = shunt_admittance::<N>(shunt, network.nodes[shunt.node].u_rated_v)?;
        return Ok(Some((at as usize, at as usize, y, [C64::ZERO; N])));
    }
    let (branch, y) = (&network.branches[object], &admittance.branches[object]);
    let (near, far, near_closed, y_near, y_far) = match kind {
        0 => (position(branch.from), position(branch.to), branch.from_closed, y.ff, y.ft),
        _ => (position(branch.to), position(branch.from), branch.to_closed, y.tt, y.tf),
    };
    if near == NONE || !near_closed {
        return Ok(None);
    }
    let far = if branch.is_closed() { far } else { near };
    Ok(Some((near as usize, far as usize, y_near, y_far)))
}
