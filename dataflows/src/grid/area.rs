//! One area: its network, what its meters and the areas below have said, and its estimate.
//!
//! The estimate is a function of what is known, not of how it became known: readings, pseudo-measurements and messages are written into the
//! network, and the estimator starts at its last state only to be there sooner.

mod neighbours;

use std::collections::BTreeMap;
use std::sync::Arc;

use flexmeter_grid::areas::{Area, Entrance};
use flexmeter_grid::bundle::{MeterSensors, UnmeteredLoad};
use flexmeter_grid::estimation::{BoundaryEstimate, EstimateOptions, Estimator, Residual, Sensor, Trust, Uncertainty};
use flexmeter_grid::network::Terminal;
use flexmeter_grid::{BASE_POWER_VA, Complex, GridError};
use flexmeter_model::outcome::{AreaEstimate, GridQuality, NodeState};
use flexmeter_model::{EventTime, TenantId};

use super::mail::{UpMessage, UpPower};
use super::reading::{self, AGE_MAX, FLOW_AGE_MAX, MeterSaid, PowerReading, Times};
use super::settings::EstimationConfig;
use super::tenant::{Grid, Topology};

/// Voltages of the solution are settled to this, per unit: what two histories of the same readings may differ by.
const TOLERANCE_PU: f64 = 1e-10;
/// Angles are told to the areas below in whole multiples of this, rad: what moves by less is no news, so that one reading does not set
/// every area of a district going. Beside what is assumed of the angles (0.005 rad) it does not count, and what it does to the message up
/// is of second order. Rounding, rather than waiting until they have moved far enough, keeps the estimate free of its history.
const ANGLE_STEP_RAD: f64 = 1e-3;
const BALANCED_RAD: f64 = std::f64::consts::TAU / 3.0;
/// Angles between phases beyond 120 degrees and this, rad, are no grid's.
const UNBALANCE_MAX_RAD: f64 = 0.1;
/// Voltages outside, per unit, are no grid's: the estimate has gone astray.
const PLAUSIBLE_PU: std::ops::Range<f64> = 0.5..1.5;
/// Standard deviation of a voltage nobody measures, as a share of the rated one (EN 50160 allows 10 % either way).
const RATED_VOLTAGE_SPREAD: f64 = 0.1;
/// Most readings that one estimate leaves out as bad.
const N_SUSPECTS_MAX: usize = 8;

/// What an area says to its neighbours after an estimate.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// To the area above: a new boundary estimate, or that there is none any more; and of when it is.
    pub(crate) up: Option<(Option<UpMessage>, Times)>,
    /// To areas below: index of the area and the angles found at its root, rad against phase a.
    pub(crate) down: Vec<(u32, Vec<f64>)>,
}

/// An area whatever the number of its phases. It may be estimated on another thread.
pub(crate) trait Estimated: Send {
    /// Takes another topology; what the meters have said stays.
    fn set_topology(&mut self, topology: &Topology);
    /// What a meter (by its place in the area) says now.
    fn hear(&mut self, meter: usize, said: MeterSaid);
    /// What an area below says about its root now, and of when that is.
    fn hear_below(&mut self, child: u32, message: Option<UpMessage>, times: Times);
    /// What the area above has found for the angles of the root.
    fn expect(&mut self, angles_rad: &[f64]);
    /// Log time has reached this multiple of the step; whether some reading's age has changed by that.
    fn tick(&mut self, tick: i64) -> bool;
    /// Estimates anew. Without `may_tell_angles` the areas below are left alone.
    fn estimate(&mut self, may_tell_angles: bool) -> Outgoing;
    /// Everything the last estimate says.
    fn read_out(&mut self) -> AreaEstimate;
    /// What the appliances of each node, and the areas below it, draw by the last estimate: index of the node in the whole network, W, var.
    /// Nothing while there is no estimate, or no reading in it.
    fn drawn(&self) -> Vec<(u32, f64, f64)>;
    /// How much work an estimate is: nodes.
    fn n_nodes(&self) -> usize;
    /// Event time of the newest reading in it.
    fn event_time(&self) -> i64;
}

/// An area of a grid.
pub(crate) fn area(tenant: &TenantId, grid: &Arc<Grid>, area: u32, topology: &Topology, config: &EstimationConfig) -> Box<dyn Estimated> {
    match grid.is_three_phase() {
        true => Box::new(EstimatedArea::<3, 12>::new(tenant, grid, area, topology, config)),
        false => Box::new(EstimatedArea::<1, 4>::new(tenant, grid, area, topology, config)),
    }
}

struct EstimatedArea<const N: usize, const B: usize> {
    tenant: TenantId,
    grid: Arc<Grid>,
    index: u32,
    path: Arc<str>,
    config: EstimationConfig,
    /// Why it cannot be estimated in this topology.
    refusal: Option<String>,
    has_supply: bool,
    area: Area,
    node_ids: Arc<[i64]>,
    sensors: Vec<MeterSensors>,
    unmetered: Vec<UnmeteredLoad>,
    /// Says that the root is near its rated voltage while nobody measures one.
    rated_voltage: usize,
    /// Sensors of the loads that stand for the areas below, in the order of [`Area::children`].
    stand_ins: Vec<usize>,
    /// Messages of areas below count as powers alone: with all they say there was no estimate.
    is_cautious: bool,
    assumes_voltage: [bool; 3],
    /// By place of the meter.
    said: Vec<Option<MeterSaid>>,
    ages: Vec<Ages>,
    /// Place of the device whose own estimate counts for this area now.
    published: Option<usize>,
    /// The same, if this area reads it, too.
    read_from_outside: Option<usize>,
    /// Whether the sensors of the meters say what is known.
    is_written: bool,
    /// What the stand-ins were told of powers.
    stood_in: Vec<Option<PowerReading>>,
    /// Whether the estimator at hand has read all sensors as they are.
    is_read: bool,
    tick: i64,
    /// What most of the meters have reached.
    clock: i64,
    /// By area below.
    messages: BTreeMap<u32, Message<N>>,
    angles_rad: Option<[f64; N]>,
    estimator: Option<Estimator<N, B>>,
    uncertainty: Option<Uncertainty<N, B>>,
    trust: Option<Trust>,
    suspects: Vec<String>,
    /// Whether the estimator at hand was told to leave readings out.
    has_left_out: bool,
    problem: Option<String>,
    /// The last message, and of when it was if a device had made it.
    sent_up: (Option<UpMessage>, Option<Times>),
    sent_down: BTreeMap<u32, [f64; N]>,
}

/// How old what a meter has said is, in steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ages {
    voltage: u32,
    power: u32,
    published: u32,
}

/// What an area below has said.
struct Message<const N: usize> {
    boundary: Option<BoundaryEstimate<N>>,
    /// The power alone. Without it the area below has no estimate, and nothing is known.
    power: Option<UpPower>,
    is_new: bool,
    /// Whether the estimator at hand was told the boundary.
    is_told: bool,
    times: Times,
    /// In steps, when it was last written.
    age: u32,
}

impl<const N: usize, const B: usize> EstimatedArea<N, B> {
    fn new(tenant: &TenantId, grid: &Arc<Grid>, index: u32, topology: &Topology, config: &EstimationConfig) -> Self {
        let n_meters = grid.meters_of(index).len();
        let area = grid.layout().cut(&topology.network, &topology.entrances, index as usize);
        let mut this = Self {
            tenant: tenant.clone(),
            grid: grid.clone(),
            index,
            path: area.path.as_str().into(),
            config: *config,
            refusal: None,
            has_supply: true,
            area,
            node_ids: Arc::new([]),
            sensors: Vec::new(),
            unmetered: Vec::new(),
            rated_voltage: 0,
            stand_ins: Vec::new(),
            is_cautious: false,
            assumes_voltage: [true; 3],
            said: (0..n_meters).map(|_| None).collect(),
            ages: vec![Ages::default(); n_meters],
            published: None,
            read_from_outside: None,
            is_written: false,
            stood_in: Vec::new(),
            is_read: false,
            tick: i64::MIN,
            clock: i64::MIN,
            messages: BTreeMap::new(),
            angles_rad: None,
            estimator: None,
            uncertainty: None,
            trust: None,
            suspects: Vec::new(),
            has_left_out: false,
            problem: None,
            sent_up: (None, None),
            sent_down: BTreeMap::new(),
        };
        this.set_topology(topology);
        this
    }

    fn is_top(&self) -> bool {
        !self.path.contains('/')
    }

    fn options(&self) -> EstimateOptions {
        EstimateOptions {
            tolerance_pu: TOLERANCE_PU,
            balance_sigma_rad: Some(match self.is_top() {
                true => self.config.source_balance_sigma_rad,
                false => flexmeter_grid::estimation::AREA_BALANCE_SIGMA_RAD,
            }),
            ..EstimateOptions::default()
        }
    }

    /// The newest moment that one of its meters, or an area below, speaks of; no meter's clock runs ahead of the log's here.
    fn clock_now(&self) -> i64 {
        let own = self.said.iter().flatten().map(MeterSaid::reached);
        own.chain(self.messages.values().map(|message| message.times.reached()))
            .max()
            .unwrap_or(i64::MIN)
    }

    fn ages_of(&self, said: &MeterSaid, clock: i64) -> Ages {
        let age = |times| reading::age(times, clock, self.tick, self.config.step_us);
        Ages {
            voltage: age(said.voltage),
            power: age(said.power),
            published: said.published.as_ref().map_or(AGE_MAX, |published| age(published.times)),
        }
    }

    /// Writes what is known into the sensors, if they do not say it already: most estimates are asked for by a message.
    fn write_readings(&mut self) {
        self.clock = self.clock_now();
        let ages_of = |said: &Option<MeterSaid>| said.as_ref().map_or(Ages::default(), |said| self.ages_of(said, self.clock));
        let ages: Vec<_> = self.said.iter().map(ages_of).collect();
        let is_known = self.is_written && ages == self.ages;
        self.ages = ages;
        self.published = self.published_now();
        // a device has made its estimate of the area's readings: beside them it would count them twice
        let read_from_outside = self.published.filter(|_| self.is_known_from_outside_only());
        let was_read = std::mem::replace(&mut self.read_from_outside, read_from_outside);
        if is_known && was_read == read_from_outside {
            return;
        }
        (self.is_written, self.is_read) = (true, false);
        self.assumes_voltage = [true; 3];
        for (place, &index) in self.grid.meters_of(self.index).iter().enumerate() {
            let meter = &self.grid.bundle().meters[index];
            let sensors = self.sensors[place];
            let rated = match meter.terminal {
                flexmeter_grid::network::Terminal::Appliance(load) => Grid::rated(&self.grid.bundle().network, load),
                _ => ([0.0; 3], [0.0; 3]),
            };
            let ages = self.ages[place];
            let (voltage, power) = match &self.said[place] {
                Some(MeterSaid {
                    published: Some(published),
                    ..
                }) if read_from_outside == Some(place) => {
                    let (voltage, power) = reading::published(&published.boundary, ages.published);
                    (voltage, Some(power))
                }
                Some(said) => (
                    reading::voltage(meter, said, ages.voltage),
                    Some(reading::power(meter, said, ages.power, &rated)),
                ),
                None => {
                    let is_load = meter.role == flexmeter_grid::bundle::Role::Customer;
                    (([f64::NAN; 3], 1.0), is_load.then(|| reading::never_heard(&meter.phases, &rated)))
                }
            };
            for k in 0..3 {
                self.assumes_voltage[k] &= voltage.0[k].is_nan();
            }
            self.area.network.set_voltage_reading(sensors.voltage, voltage.0, voltage.1);
            if let (Some(sensor), Some(power)) = (sensors.power, power) {
                self.area
                    .network
                    .set_power_reading(sensor, power.p_w, power.q_var, power.p_sigma_w, power.q_sigma_var);
            }
        }
        let rated_v = self.area.network.nodes()[self.area.root].u_rated_v / 3f64.sqrt();
        let assumed_v = self.assumes_voltage.map(|assumed| if assumed { rated_v } else { f64::NAN });
        self.area
            .network
            .set_voltage_reading(self.rated_voltage, assumed_v, RATED_VOLTAGE_SPREAD * rated_v);
    }

    /// An estimator that knows what is known; the one at hand where it can be told the difference.
    fn prepare(&mut self) -> Result<Estimator<N, B>, GridError> {
        // readings that were left out take part again: what is bad is judged anew each time
        let at_hand = self.estimator.take().filter(|_| !std::mem::take(&mut self.has_left_out));
        let mut estimator = match at_hand {
            Some(mut estimator) => {
                if !self.is_read {
                    estimator.read_again(&self.area.network);
                }
                estimator
            }
            None => {
                self.messages.values_mut().for_each(|message| message.is_new = true);
                Estimator::new(&self.area.network, self.options())?
            }
        };
        self.is_read = true;
        for &(child, root) in &self.area.children {
            let Some(message) = self.messages.get_mut(&(child as u32)) else {
                continue;
            };
            if let Some(boundary) = message.boundary.as_ref().filter(|_| message.is_new && message.is_told)
                && estimator.topology().is_energised(root)
            {
                estimator.set_boundary(&self.area.network, root, boundary)?;
            }
            message.is_new = false;
        }
        if let Some(angles) = &self.angles_rad {
            let turned = angles.map(|angle| Complex::from_polar(1.0, angle));
            estimator.expect_angles(self.area.root, &turned);
        }
        Ok(estimator)
    }

    fn solve(&mut self) -> Result<(), GridError> {
        self.write_messages();
        let mut estimator = self.prepare()?;
        if estimator.estimate().is_err() {
            // from far away the last state may be a bad beginning
            self.estimator = None;
            estimator = self.prepare()?;
            estimator.estimate()?;
        }
        let mut uncertainty = estimator.uncertainty()?;
        let mut trust = estimator.trust_at_first_sight(&self.area.network, self.config.false_alarm_rate);
        if trust.is_suspicious() {
            trust = estimator.trust(&self.area.network, &uncertainty, self.config.false_alarm_rate);
        }
        let mut removed = Vec::new();
        let mut good = None;
        while trust.is_suspicious() && removed.len() < N_SUSPECTS_MAX {
            let limit = trust.residual_limit(self.config.false_alarm_rate);
            let Some(worst) = trust
                .worst()
                .copied()
                .filter(|worst| worst.normalized.is_some_and(|r| r.abs() > limit))
            else {
                break;
            };
            let before = estimator.clone();
            let without = self.without(&mut estimator, &worst);
            let Ok(found) = without else {
                // what is left does not determine the state any more: better with the reading than without an answer
                good = Some(before);
                break;
            };
            uncertainty = found;
            trust = estimator.trust(&self.area.network, &uncertainty, self.config.false_alarm_rate);
            removed.push(worst.sensor);
        }
        if let Some(mut before) = good {
            uncertainty = before.uncertainty()?;
            estimator = before;
        }
        self.check_plausible(&estimator)?;
        self.has_left_out = !removed.is_empty();
        self.suspects = self.names_of(&removed);
        self.uncertainty = Some(uncertainty);
        self.trust = Some(trust);
        self.estimator = Some(estimator);
        Ok(())
    }

    /// An estimate that has gone astray must not lead others astray.
    fn check_plausible(&self, estimator: &Estimator<N, B>) -> Result<(), GridError> {
        let voltages = (0..self.area.nodes.len()).filter_map(|node| Some((node, estimator.voltage_pu(node)?)));
        let astray = voltages
            .flat_map(|(node, u)| u.map(|u| (node, u.norm())))
            .find(|(_, u)| !PLAUSIBLE_PU.contains(u));
        match astray {
            None => Ok(()),
            Some((node, u)) => Err(GridError::Area {
                area: self.path.to_string(),
                reason: format!(
                    "its readings lead to {u:.2} per unit at node {}; check them for swapped phases, wrong signs, wrong units",
                    self.area.network.nodes()[node].id
                ),
            }),
        }
    }

    /// Estimates without a reading. Messages are set again then: the estimator keeps them, but not what takes their assumptions back.
    fn without(&self, estimator: &mut Estimator<N, B>, reading: &Residual) -> Result<Uncertainty<N, B>, GridError> {
        estimator.set_enabled(&self.area.network, reading, false)?;
        for &(child, root) in &self.area.children {
            let message = self.messages.get(&(child as u32)).filter(|message| message.is_told);
            let boundary = message.and_then(|message| message.boundary.as_ref());
            if let Some(boundary) = boundary.filter(|_| estimator.topology().is_energised(root)) {
                estimator.set_boundary(&self.area.network, root, boundary)?;
            }
        }
        estimator.estimate()?;
        estimator.uncertainty()
    }

    /// The meters behind suspicious sensors; a pseudo-measurement that does not fit is nobody's mistake.
    fn names_of(&self, removed: &[Sensor]) -> Vec<String> {
        let meters = self.grid.meters_of(self.index).iter().enumerate();
        meters
            .filter(|&(place, _)| {
                let sensors = self.sensors[place];
                self.is_read_now(place)
                    && removed.iter().any(|sensor| match *sensor {
                        Sensor::Voltage(index) => index == sensors.voltage,
                        Sensor::Power(index) => Some(index) == sensors.power,
                        Sensor::Current(_) => false,
                    })
            })
            .map(|(_, &index)| self.grid.bundle().meters[index].hardware_id.clone())
            .collect()
    }

    /// Whether what a meter says is a reading of this step.
    fn is_read_now(&self, place: usize) -> bool {
        let ages = self.ages[place];
        let is_fresh = ages.power == 0 || ages.published == 0 && self.published == Some(place);
        is_fresh && self.said[place].as_ref().is_some_and(|said| !said.is_dark)
    }

    fn state_of(&self, node: usize) -> NodeState {
        let (Some(estimator), Some(uncertainty)) = (&self.estimator, &self.uncertainty) else {
            return NodeState::default();
        };
        let (Some(u), Some((u_sigma, angle_sigma)), Some(s), Some(s_sigma)) = (
            estimator.voltage_pu(node),
            estimator.voltage_sigma(uncertainty, node),
            estimator.injection_pu(node),
            estimator.injection_sigma(uncertainty, node),
        ) else {
            return NodeState::default();
        };
        let base_v = self.area.network.nodes()[node].u_rated_v / 3f64.sqrt();
        // per unit of a phase's base power; the symmetric estimate counts all three
        let base_va = BASE_POWER_VA / N as f64;
        let mut state = NodeState {
            energised: true,
            ..NodeState::default()
        };
        for k in 0..N {
            state.value[0][k] = u[k].norm() * base_v;
            state.sigma[0][k] = u_sigma[k] * base_v;
            state.value[1][k] = u[k].arg();
            state.sigma[1][k] = angle_sigma[k];
            state.value[2][k] = -s[k].re * base_va;
            state.sigma[2][k] = s_sigma[k].re * base_va;
            state.value[3][k] = -s[k].im * base_va;
            state.sigma[3][k] = s_sigma[k].im * base_va;
        }
        state
    }

    fn quality(&self) -> GridQuality {
        let loads = self.grid.meters_of(self.index).iter().enumerate();
        let n_measurements = loads.clone().filter(|&(place, _)| self.is_read_now(place)).count();
        let n_pseudo = loads
            .filter(|&(place, &index)| {
                let is_load = self.grid.bundle().meters[index].role == flexmeter_grid::bundle::Role::Customer;
                !self.is_read_now(place) && (is_load || self.said[place].is_some() && self.ages[place].power <= FLOW_AGE_MAX)
            })
            .count()
            + self.unmetered.len();
        let trust = self.trust.as_ref();
        GridQuality {
            level: self.grid.depth(self.index) as u32,
            j: trust.map_or(0.0, |trust| trust.j),
            degrees_of_freedom: trust.map_or(0, |trust| trust.degrees_of_freedom as u32),
            suspects: self.suspects.clone(),
            observable: self.problem.is_none() && n_pseudo == 0 && self.assumes_voltage == [false; 3] && self.estimator.is_some(),
            n_measurements: n_measurements as u32,
            n_pseudo: n_pseudo as u32,
            problem: self.problem.clone(),
        }
    }
}

impl<const N: usize, const B: usize> Estimated for EstimatedArea<N, B> {
    fn set_topology(&mut self, topology: &Topology) {
        let entrance = &topology.entrances[self.index as usize];
        self.refusal = match entrance {
            Entrance::Refused(error) => Some(error.to_string()),
            _ => None,
        };
        self.area = self.grid.layout().cut(&topology.network, &topology.entrances, self.index as usize);
        self.has_supply = topology.has_supply[self.index as usize];
        if !self.has_supply {
            self.area.network.disconnect_sources();
        }
        let own = self.area.nodes.len() - self.area.children.len();
        self.node_ids = self.area.network.nodes()[..own].iter().map(|node| node.id).collect();
        (self.is_written, self.is_read, self.stood_in) = (false, false, vec![None; self.area.children.len()]);
        // until an area below has spoken, its power is unknown, not zero
        self.stand_ins = (self.area.children.iter().map(|&(_, root)| self.area.network.add_unread_load(root))).collect();
        let meters = self.grid.meters_of(self.index);
        (self.sensors, self.unmetered) = self.grid.bundle().add_sensors(&mut self.area, meters);
        self.rated_voltage = self.area.network.add_voltage_sensor(self.area.root);
        let stand_ins = self.area.appliances.len();
        self.unmetered.retain(|load| load.appliance < stand_ins);
        for load in &self.unmetered {
            let rated = Grid::rated(&self.area.network, load.appliance);
            let power = reading::never_heard(&[0, 1, 2], &rated);
            self.area
                .network
                .set_power_reading(load.power, power.p_w, power.q_var, power.p_sigma_w, power.q_sigma_var);
        }
        for message in self.messages.values_mut() {
            (message.is_told, message.is_new) = (false, true);
        }
        let below: Vec<u32> = self.area.children.iter().map(|&(child, _)| child as u32).collect();
        self.messages.retain(|child, _| below.contains(child));
        self.sent_down.retain(|child, _| below.contains(child));
        self.estimator = None;
    }

    fn hear(&mut self, meter: usize, said: MeterSaid) {
        if let Some(place) = self.said.get_mut(meter) {
            *place = Some(said);
            self.is_written = false;
        }
    }

    fn hear_below(&mut self, child: u32, message: Option<UpMessage>, times: Times) {
        let (boundary, power) = match message {
            Some(UpMessage::Boundary(numbers)) => {
                let boundary = BoundaryEstimate::from_numbers(&numbers);
                let power = boundary.as_ref().map(neighbours::power_of);
                (boundary, power)
            }
            Some(UpMessage::Power(power)) => (None, Some(power)),
            None => (None, None),
        };
        let is_told = self.messages.get(&child).is_some_and(|message| message.is_told);
        self.messages.insert(
            child,
            Message {
                boundary,
                power,
                is_new: true,
                is_told,
                times,
                age: 0,
            },
        );
    }

    fn expect(&mut self, angles_rad: &[f64]) {
        self.angles_rad = <[f64; N]>::try_from(angles_rad).ok();
    }

    fn tick(&mut self, tick: i64) -> bool {
        self.tick = self.tick.max(tick);
        let clock = self.clock_now();
        let has_aged = |(said, &ages): (&Option<MeterSaid>, &Ages)| said.as_ref().is_some_and(|said| self.ages_of(said, clock) != ages);
        self.said.iter().zip(&self.ages).any(has_aged)
            || self
                .messages
                .values()
                .any(|message| self.age_of_message(message, clock) != message.age)
    }

    fn estimate(&mut self, may_tell_angles: bool) -> Outgoing {
        self.problem = self.refusal.clone();
        self.write_readings();
        if self.refusal.is_none() {
            self.is_cautious = false;
            let mut result = self.solve();
            if result.is_err() && !self.messages.is_empty() {
                self.is_cautious = true;
                result = self.solve();
            }
            self.problem = result.err().map(|error| error.to_string());
        }
        if self.problem.is_some() {
            (self.estimator, self.uncertainty, self.trust) = (None, None, None);
            self.suspects.clear();
        }
        let up = self.message_up();
        let down = if may_tell_angles { self.angles_to_tell() } else { Vec::new() };
        let is_news = up != self.sent_up && !self.is_top();
        self.sent_up.clone_from(&up);
        // an estimate of its own is of all that is known; what it is worth now has been weighed
        let own = Times {
            event: self.event_time(),
            received: i64::MAX,
        };
        Outgoing {
            up: is_news.then(|| (up.0, up.1.unwrap_or(own))),
            down,
        }
    }

    fn read_out(&mut self) -> AreaEstimate {
        let has_estimate = self.estimator.is_some();
        let states = match has_estimate {
            true => (0..self.node_ids.len()).map(|node| self.state_of(node)).collect(),
            false => Vec::new(),
        };
        AreaEstimate {
            tenant: self.tenant.clone(),
            area: self.path.clone(),
            nodes: self.node_ids.clone(),
            three_phase: N == 3,
            states,
            quality: self.quality(),
            event_time: EventTime::from_micros(self.event_time()),
        }
    }

    fn drawn(&self) -> Vec<(u32, f64, f64)> {
        let Some(estimator) = self.estimator.as_ref().filter(|_| self.event_time() > 0) else {
            return Vec::new();
        };
        let base_va = BASE_POWER_VA / N as f64;
        let mut by_appliance: Vec<(usize, Complex<f64>)> = estimator
            .appliance_powers_pu(&self.area.network)
            .into_iter()
            .filter_map(|(terminal, power)| match terminal {
                Terminal::Appliance(index) => Some((index, power.iter().sum::<Complex<f64>>() * -base_va)),
                _ => None,
            })
            .collect();
        // sums are to be the same each time
        by_appliance.sort_unstable_by_key(|(index, _)| *index);
        let mut by_node: BTreeMap<usize, Complex<f64>> = BTreeMap::new();
        for (index, power) in by_appliance {
            let node = self.area.nodes[self.area.network.appliances()[index].node];
            *by_node.entry(node).or_default() += power;
        }
        // what an area below has said is no reading of its stand-in: what flows there says how much it draws
        let mut into: BTreeMap<usize, Complex<f64>> = self.area.children.iter().map(|&(_, root)| (root, Complex::ZERO)).collect();
        for (index, branch) in self.area.network.branches().iter().enumerate() {
            for (node, is_from) in [(branch.from, true), (branch.to, false)] {
                let Some(into) = into.get_mut(&node) else { continue };
                let flow = estimator.branch_flow(&self.area.network, index);
                let out_of = if is_from { flow.s_from_pu } else { flow.s_to_pu };
                *into += out_of.iter().sum::<Complex<f64>>() * -base_va;
            }
        }
        by_node.extend(into.into_iter().map(|(root, power)| (self.area.nodes[root], power)));
        by_node.into_iter().map(|(node, power)| (node as u32, power.re, power.im)).collect()
    }

    fn n_nodes(&self) -> usize {
        self.area.nodes.len()
    }

    fn event_time(&self) -> i64 {
        let own = self.said.iter().flatten().map(MeterSaid::newest);
        let below = self.messages.values().map(|message| message.times.event);
        own.chain(below).max().unwrap_or(0)
    }
}
