//! The grid as its owner describes it: components in SI units, as in a power-grid-model dataset.
//!
//! Nothing here is per unit and nothing is solved: [`crate::model`] turns it into admittances.

use std::collections::HashMap;

use crate::error::GridError;

/// Id of a component, unique over all types.
pub type ComponentId = i64;

/// Most nodes of a network.
pub const N_NODES_MAX: usize = 1_000_000;

/// A place where components meet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// Id.
    pub id: ComponentId,
    /// Rated voltage between phases, V.
    pub u_rated_v: f64,
}

/// What a branch is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum BranchKind {
    /// A line or cable.
    Line(Line),
    /// A two-winding transformer.
    Transformer(Box<Transformer>),
    /// A connection without impedance: a busbar coupler, a closed switch.
    Link,
}

impl BranchKind {
    /// Its component type in a dataset.
    pub fn component(&self) -> &'static str {
        match self {
            Self::Line(_) => "line",
            Self::Transformer(_) => "transformer",
            Self::Link => "link",
        }
    }
}

/// A connection of two nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// Id.
    pub id: ComponentId,
    /// Index of the from node.
    pub from: usize,
    /// Index of the to node.
    pub to: usize,
    /// Whether the from side is connected.
    pub from_closed: bool,
    /// Whether the to side is connected.
    pub to_closed: bool,
    /// What it is made of.
    pub kind: BranchKind,
}

impl Branch {
    /// Whether current can pass from end to end.
    pub fn is_closed(&self) -> bool {
        self.from_closed && self.to_closed
    }
}

/// Positive- and zero-sequence parameters of a whole line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Positive-sequence series impedance, ohm.
    pub z1_ohm: [f64; 2],
    /// Positive-sequence shunt capacitance, F.
    pub c1_f: f64,
    /// Positive-sequence loss factor of the capacitance.
    pub tan1: f64,
    /// Zero-sequence series impedance, ohm; needed for asymmetric calculations.
    pub z0_ohm: Option<[f64; 2]>,
    /// Zero-sequence shunt capacitance, F.
    pub c0_f: f64,
    /// Zero-sequence loss factor of the capacitance.
    pub tan0: f64,
    /// Rated current, A.
    pub i_n_a: Option<f64>,
}

/// How a winding is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winding {
    /// Star without neutral.
    Wye,
    /// Star with grounded neutral.
    WyeN,
    /// Delta.
    Delta,
    /// Zigzag without neutral.
    Zigzag,
    /// Zigzag with grounded neutral.
    ZigzagN,
}

impl Winding {
    pub(crate) fn is_wye(self) -> bool {
        matches!(self, Self::Wye | Self::WyeN)
    }
}

/// Nameplate of a two-winding transformer, from side first.
#[derive(Debug, Clone, PartialEq)]
pub struct Transformer {
    /// Rated voltages, V.
    pub u_v: [f64; 2],
    /// Rated power, VA.
    pub sn_va: f64,
    /// Relative short-circuit voltage, at the nominal, lowest and highest tap position.
    pub uk: [f64; 3],
    /// Short-circuit loss, W, at the nominal, lowest and highest tap position.
    pub pk_w: [f64; 3],
    /// Relative no-load current.
    pub i0: f64,
    /// No-load loss, W.
    pub p0_w: f64,
    /// Relative no-load current of the zero sequence, where it differs.
    pub i0_zero_sequence: Option<f64>,
    /// No-load loss of the zero sequence, W, where it differs.
    pub p0_zero_sequence_w: Option<f64>,
    /// Windings.
    pub windings: [Winding; 2],
    /// Clock number: the to side lags the from side by this many times 30 degrees.
    pub clock: i8,
    /// Whether the tap changer is at the from side.
    pub tap_at_from: bool,
    /// Tap position now.
    pub tap_pos: i16,
    /// Tap positions of lowest and highest uk.
    pub tap_range: [i16; 2],
    /// Nominal tap position.
    pub tap_nom: i16,
    /// Voltage of one step, V.
    pub tap_size_v: f64,
    /// Impedances of the neutrals to ground, ohm.
    pub z_grounding_ohm: [[f64; 2]; 2],
}

impl Transformer {
    /// Where the tap changer stands: [`Self::tap_pos`] within its range.
    pub(crate) fn tap_position(&self) -> f64 {
        let [min, max] = self.tap_range;
        f64::from(self.tap_pos.clamp(min.min(max), min.max(max)))
    }

    /// What the tap changer adds to the rated voltage of its side, V.
    pub(crate) fn tap_shift_v(&self) -> f64 {
        let [min, max] = self.tap_range;
        let direction = if max > min { 1.0 } else { -1.0 };
        direction * (self.tap_position() - f64::from(self.tap_nom)) * self.tap_size_v
    }

    /// Whether the tap changer leaves its side a voltage at all.
    pub(crate) fn tap_is_possible(&self) -> bool {
        self.tap_shift_v().abs() < self.u_v[usize::from(!self.tap_at_from)]
    }
}

/// An equivalent of the grid above: a balanced voltage behind an impedance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Source {
    /// Id.
    pub id: ComponentId,
    /// Index of its node.
    pub node: usize,
    /// Whether it is connected.
    pub connected: bool,
    /// Voltage, per unit of the node's rated voltage.
    pub u_ref_pu: f64,
    /// Angle of that voltage, rad.
    pub u_ref_angle_rad: f64,
    /// Short-circuit power, VA.
    pub sk_va: f64,
    /// Resistance over reactance.
    pub rx_ratio: f64,
    /// Zero-sequence over positive-sequence impedance.
    pub z01_ratio: f64,
}

/// How the power of a load depends on its voltage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// Power does not.
    ConstantPower,
    /// Power follows the square of the voltage.
    ConstantImpedance,
    /// Power follows the voltage.
    ConstantCurrent,
}

/// A quantity given for the three phases together or for each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PerPhase {
    /// One number for all.
    Symmetric(f64),
    /// Phases a, b, c.
    Phases([f64; 3]),
}

impl PerPhase {
    pub(crate) fn values(&self) -> &[f64] {
        match self {
            Self::Symmetric(value) => std::slice::from_ref(value),
            Self::Phases(values) => values,
        }
    }

    /// Takes over what is not NaN.
    pub(crate) fn update(&mut self, new: Self) {
        match (self, new) {
            (Self::Symmetric(old), Self::Symmetric(new)) if !new.is_nan() => *old = new,
            (Self::Phases(old), Self::Phases(new)) => {
                for (old, new) in old.iter_mut().zip(new) {
                    if !new.is_nan() {
                        *old = new;
                    }
                }
            }
            _ => {}
        }
    }
}

/// A load or a generator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appliance {
    /// Id.
    pub id: ComponentId,
    /// Index of its node.
    pub node: usize,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether positive power flows into the grid.
    pub is_generator: bool,
    /// How its power depends on the voltage.
    pub kind: LoadKind,
    /// Active power at rated voltage, W; NaN where it is not specified.
    pub p_w: PerPhase,
    /// Reactive power at rated voltage, var; NaN where it is not specified.
    pub q_var: PerPhase,
}

impl Appliance {
    /// Whether its power is specified, so that a power flow can use it.
    pub fn is_specified(&self) -> bool {
        let given = |power: &PerPhase| power.values().iter().all(|value| !value.is_nan());
        given(&self.p_w) && given(&self.q_var)
    }

    /// Its component type in a dataset.
    pub fn component(&self) -> &'static str {
        match (self.is_generator, self.p_w) {
            (false, PerPhase::Symmetric(_)) => "sym_load",
            (false, PerPhase::Phases(_)) => "asym_load",
            (true, PerPhase::Symmetric(_)) => "sym_gen",
            (true, PerPhase::Phases(_)) => "asym_gen",
        }
    }
}

/// An admittance to ground.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shunt {
    /// Id.
    pub id: ComponentId,
    /// Index of its node.
    pub node: usize,
    /// Whether it is connected.
    pub connected: bool,
    /// Positive-sequence admittance, S.
    pub y1_s: [f64; 2],
    /// Zero-sequence admittance, S; needed for asymmetric calculations.
    pub y0_s: Option<[f64; 2]>,
}

/// Where a flow is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// Into the branch at its from side (index of the branch).
    BranchFrom(usize),
    /// Into the branch at its to side (index of the branch).
    BranchTo(usize),
    /// Out of the source into the grid (index of the source).
    Source(usize),
    /// Into the shunt (index of the shunt).
    Shunt(usize),
    /// Into the load, or out of the generator (index of the appliance).
    Appliance(usize),
    /// Out of all appliances of a node into the grid (index of the node).
    Node(usize),
}

/// A voltage sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoltageSensor {
    /// Id.
    pub id: ComponentId,
    /// Index of its node.
    pub node: usize,
    /// Standard deviation, V; infinite for a sensor that is out of order.
    pub u_sigma_v: f64,
    /// Reading, V: between phases if symmetric, phase to ground if for each phase; NaN without one.
    pub u_v: PerPhase,
    /// Angle, rad; NaN if it is not measured.
    pub angle_rad: PerPhase,
}

/// A sensor of active and reactive power.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerSensor {
    /// Id.
    pub id: ComponentId,
    /// Where it sits.
    pub terminal: Terminal,
    /// Standard deviation of the apparent power, VA; of use where those of P and Q are not given.
    pub sigma_va: f64,
    /// Standard deviation of the active power, W; NaN if not given.
    pub p_sigma_w: PerPhase,
    /// Standard deviation of the reactive power, var; NaN if not given.
    pub q_sigma_var: PerPhase,
    /// Reading, W; NaN without one.
    pub p_w: PerPhase,
    /// Reading, var; NaN without one.
    pub q_var: PerPhase,
}

impl PowerSensor {
    /// Whether its standard deviation says anything.
    pub(crate) fn sigma_is_given(&self) -> bool {
        let finite = |sigma: &PerPhase| sigma.values().iter().any(|sigma| sigma.is_finite());
        self.sigma_va.is_finite() || finite(&self.p_sigma_w) || finite(&self.q_sigma_var)
    }
}

/// What the angle of a current is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurrentAngle {
    /// The voltage at the same terminal.
    Local,
    /// The common reference of all voltage angles.
    Global,
}

/// A sensor of the current at an end of a branch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurrentSensor {
    /// Id.
    pub id: ComponentId,
    /// Where it sits: an end of a branch.
    pub terminal: Terminal,
    /// What its angle is measured against.
    pub angle_kind: CurrentAngle,
    /// Standard deviation of the magnitude, A.
    pub i_sigma_a: f64,
    /// Standard deviation of the angle, rad.
    pub angle_sigma_rad: f64,
    /// Magnitude, A; NaN without a reading.
    pub i_a: PerPhase,
    /// Angle, rad; NaN if only the magnitude is measured.
    pub angle_rad: PerPhase,
}

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference {
    Node(usize),
    Branch(usize),
    Source(usize),
    Appliance(usize),
    Shunt(usize),
    VoltageSensor(usize),
    PowerSensor(usize),
    CurrentSensor(usize),
}

/// A grid with its appliances and sensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Network {
    pub(crate) nodes: Vec<Node>,
    pub(crate) branches: Vec<Branch>,
    pub(crate) sources: Vec<Source>,
    pub(crate) appliances: Vec<Appliance>,
    pub(crate) shunts: Vec<Shunt>,
    pub(crate) voltage_sensors: Vec<VoltageSensor>,
    pub(crate) power_sensors: Vec<PowerSensor>,
    pub(crate) current_sensors: Vec<CurrentSensor>,
    pub(crate) references: HashMap<ComponentId, Reference>,
}

impl Network {
    /// Nodes, in the order of the dataset.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Lines, transformers and links.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Sources.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Loads and generators.
    pub fn appliances(&self) -> &[Appliance] {
        &self.appliances
    }

    /// Shunts.
    pub fn shunts(&self) -> &[Shunt] {
        &self.shunts
    }

    /// Voltage sensors.
    pub fn voltage_sensors(&self) -> &[VoltageSensor] {
        &self.voltage_sensors
    }

    /// Power sensors.
    pub fn power_sensors(&self) -> &[PowerSensor] {
        &self.power_sensors
    }

    /// Current sensors.
    pub fn current_sensors(&self) -> &[CurrentSensor] {
        &self.current_sensors
    }

    /// Index of the node with this id.
    pub fn node_index(&self, id: ComponentId) -> Option<usize> {
        match self.references.get(&id) {
            Some(&Reference::Node(index)) => Some(index),
            _ => None,
        }
    }

    /// Index of the branch with this id.
    pub fn branch_index(&self, id: ComponentId) -> Option<usize> {
        match self.references.get(&id) {
            Some(&Reference::Branch(index)) => Some(index),
            _ => None,
        }
    }

    /// Changes the reading of a power sensor: its index in [`Self::power_sensors`].
    pub fn change_power_reading(&mut self, sensor: usize, change: impl FnOnce(PerPhase, PerPhase) -> (PerPhase, PerPhase)) {
        if let Some(sensor) = self.power_sensors.get_mut(sensor) {
            let (p, q) = change(sensor.p_w, sensor.q_var);
            sensor.p_w.update(p);
            sensor.q_var.update(q);
        }
    }

    /// Changes the reading of a voltage sensor: its index in [`Self::voltage_sensors`].
    pub fn change_voltage_reading(&mut self, sensor: usize, change: impl FnOnce(PerPhase) -> PerPhase) {
        if let Some(sensor) = self.voltage_sensors.get_mut(sensor) {
            let u = change(sensor.u_v);
            sensor.u_v.update(u);
        }
    }

    /// What a voltage sensor (its index in [`Self::voltage_sensors`]) says from now on: V by phase, NaN where it says nothing; standard
    /// deviation, V.
    pub fn set_voltage_reading(&mut self, sensor: usize, u_v: [f64; 3], u_sigma_v: f64) {
        if let Some(sensor) = self.voltage_sensors.get_mut(sensor) {
            sensor.u_v = PerPhase::Phases(u_v);
            sensor.u_sigma_v = u_sigma_v;
        }
    }

    /// What a power sensor (its index in [`Self::power_sensors`]) says from now on, by phase: W and var, NaN where it says nothing;
    /// standard deviations likewise.
    pub fn set_power_reading(&mut self, sensor: usize, p_w: [f64; 3], q_var: [f64; 3], p_sigma_w: [f64; 3], q_sigma_var: [f64; 3]) {
        if let Some(sensor) = self.power_sensors.get_mut(sensor) {
            (sensor.p_w, sensor.q_var) = (PerPhase::Phases(p_w), PerPhase::Phases(q_var));
            (sensor.p_sigma_w, sensor.q_sigma_var) = (PerPhase::Phases(p_sigma_w), PerPhase::Phases(q_sigma_var));
        }
    }

    /// Opens or closes a branch at both ends: its index in [`Self::branches`].
    pub fn set_closed(&mut self, branch: usize, closed: bool) {
        if let Some(branch) = self.branches.get_mut(branch) {
            (branch.from_closed, branch.to_closed) = (closed, closed);
        }
    }

    /// Takes all supply away.
    pub fn disconnect_sources(&mut self) {
        self.sources.iter_mut().for_each(|source| source.connected = false);
    }

    /// Adds a load at a node, with a sensor that has no reading yet; the sensor's index in [`Self::power_sensors`].
    pub fn add_unread_load(&mut self, node: usize) -> usize {
        let id = self.free_id();
        self.references.insert(id, Reference::Appliance(self.appliances.len()));
        self.appliances.push(Appliance {
            id,
            node,
            connected: true,
            is_generator: false,
            kind: LoadKind::ConstantPower,
            p_w: PerPhase::Phases([f64::NAN; 3]),
            q_var: PerPhase::Phases([f64::NAN; 3]),
        });
        self.add_power_sensor(Terminal::Appliance(self.appliances.len() - 1))
    }

    /// Adds a voltage sensor without a reading; its index.
    pub fn add_voltage_sensor(&mut self, node: usize) -> usize {
        let (id, index) = (self.free_id(), self.voltage_sensors.len());
        self.references.insert(id, Reference::VoltageSensor(index));
        self.voltage_sensors.push(VoltageSensor {
            id,
            node,
            u_sigma_v: 1.0,
            u_v: PerPhase::Phases([f64::NAN; 3]),
            angle_rad: PerPhase::Phases([f64::NAN; 3]),
        });
        index
    }

    /// Adds a power sensor without a reading; its index.
    pub(crate) fn add_power_sensor(&mut self, terminal: Terminal) -> usize {
        let (id, index) = (self.free_id(), self.power_sensors.len());
        self.references.insert(id, Reference::PowerSensor(index));
        let nothing = PerPhase::Phases([f64::NAN; 3]);
        self.power_sensors.push(PowerSensor {
            id,
            terminal,
            sigma_va: f64::INFINITY,
            p_sigma_w: nothing,
            q_sigma_var: nothing,
            p_w: nothing,
            q_var: nothing,
        });
        index
    }

    /// An id that nobody has; ids from a dataset are below it.
    fn free_id(&self) -> ComponentId {
        let mut id = ComponentId::MAX - self.references.len() as ComponentId;
        while self.references.contains_key(&id) {
            id -= 1;
        }
        id
    }

    /// Component type of a reference.
    pub(crate) fn component(&self, reference: Reference) -> &'static str {
        match reference {
            Reference::Node(_) => "node",
            Reference::Branch(index) => self.branches[index].kind.component(),
            Reference::Source(_) => "source",
            Reference::Appliance(index) => self.appliances[index].component(),
            Reference::Shunt(_) => "shunt",
            Reference::VoltageSensor(index) => match self.voltage_sensors[index].u_v {
                PerPhase::Symmetric(_) => "sym_voltage_sensor",
                PerPhase::Phases(_) => "asym_voltage_sensor",
            },
            Reference::PowerSensor(index) => match self.power_sensors[index].p_w {
                PerPhase::Symmetric(_) => "sym_power_sensor",
                PerPhase::Phases(_) => "asym_power_sensor",
            },
            Reference::CurrentSensor(index) => match self.current_sensors[index].i_a {
                PerPhase::Symmetric(_) => "sym_current_sensor",
                PerPhase::Phases(_) => "asym_current_sensor",
            },
        }
    }

    /// Enters an id; a component is pushed to its list afterwards.
    pub(crate) fn register(&mut self, id: ComponentId, reference: Reference, second: &'static str) -> Result<(), GridError> {
        match self.references.insert(id, reference) {
            None => Ok(()),
            Some(first) => Err(GridError::DuplicateId {
                id,
                first: self.component(first),
                second,
            }),
        }
    }
}
