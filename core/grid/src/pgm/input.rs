//! From the tables of an input dataset to a [`Network`]: everything a component says is checked here, once.

use super::dataset::{Cell, Dataset, DatasetKind, Table};
use crate::error::GridError;
use crate::network::{
    Appliance, Branch, BranchKind, ComponentId, CurrentAngle, CurrentSensor, Line, LoadKind, N_NODES_MAX, Network, Node, PerPhase,
    PowerSensor, Reference, Shunt, Source, Terminal, Transformer, VoltageSensor, Winding,
};

/// Short-circuit power of a source that does not tell, VA.
const SOURCE_SK_VA: f64 = 1e10;
/// Voltages of sources are per unit: nobody means more than this.
pub(super) const U_REF_MAX_PU: f64 = 1e3;
/// R/X of a source that does not tell.
const SOURCE_RX_RATIO: f64 = 0.1;

const FINITE: &str = "give a finite number";
const NOT_NEGATIVE: &str = "give a finite number that is not negative";
pub(super) const TAP_TOO_FAR: &str = "its steps reach beyond the rated voltage of the side they are on";
const POSITIVE: &str = "give a finite number above zero";
const STATUS: &str = "0 is open, 1 is closed";
const SIGMA: &str = "give a standard deviation of at least 1e-12; \"inf\" switches a sensor off";
/// Smallest standard deviation, V, VA, A or rad: no meter comes near it, and arithmetic needs the room.
const SIGMA_MIN: f64 = 1e-12;

/// Numbers beyond this leave no room for a product of two of them.
const NUMBER_MAX: f64 = 1e30;

/// Whether a number is finite and of a size that arithmetic can bear.
fn is_usable(value: f64) -> bool {
    value.abs() <= NUMBER_MAX
}

/// One component while it is read.
pub(super) struct Row<'a> {
    component: &'static str,
    attributes: &'static [&'static str],
    cells: &'a [Cell],
    pub(super) id: ComponentId,
}

impl<'a> Row<'a> {
    pub(super) fn new(table: &Table, cells: &'a [Cell]) -> Result<Self, GridError> {
        let mut row = Self {
            component: table.component,
            attributes: table.attributes,
            cells,
            id: -1,
        };
        row.id = row.integer("id")?;
        Ok(row)
    }

    fn cell(&self, attribute: &'static str) -> Cell {
        let index = self.attributes.iter().position(|&name| name == attribute);
        index.and_then(|index| self.cells.get(index)).copied().unwrap_or(Cell::Missing)
    }

    pub(super) fn bad(&self, attribute: &'static str, value: f64, remedy: &'static str) -> GridError {
        GridError::BadValue {
            component: self.component,
            id: self.id,
            attribute,
            value,
            remedy,
        }
    }

    pub(super) fn missing(&self, attribute: &'static str) -> GridError {
        GridError::MissingAttribute {
            component: self.component,
            id: self.id,
            attribute,
        }
    }

    /// A number, infinity included.
    fn number(&self, attribute: &'static str) -> Result<Option<f64>, GridError> {
        match self.cell(attribute) {
            Cell::Missing => Ok(None),
            Cell::One(value) => Ok(Some(value)),
            Cell::Three([value, ..]) => Err(self.bad(attribute, value, "give one number, not one for each phase")),
        }
    }

    fn required(&self, attribute: &'static str) -> Result<f64, GridError> {
        self.number(attribute)?.ok_or_else(|| self.missing(attribute))
    }

    pub(super) fn finite(&self, attribute: &'static str) -> Result<Option<f64>, GridError> {
        match self.number(attribute)? {
            Some(value) if !is_usable(value) => Err(self.bad(attribute, value, FINITE)),
            value => Ok(value),
        }
    }

    fn finite_or(&self, attribute: &'static str, default: f64) -> Result<f64, GridError> {
        Ok(self.finite(attribute)?.unwrap_or(default))
    }

    fn positive(&self, attribute: &'static str) -> Result<f64, GridError> {
        match self.required(attribute)? {
            value if is_usable(value) && value > 0.0 => Ok(value),
            value => Err(self.bad(attribute, value, POSITIVE)),
        }
    }

    fn not_negative(&self, attribute: &'static str) -> Result<f64, GridError> {
        match self.required(attribute)? {
            value if is_usable(value) && value >= 0.0 => Ok(value),
            value => Err(self.bad(attribute, value, NOT_NEGATIVE)),
        }
    }

    pub(super) fn integer(&self, attribute: &'static str) -> Result<i64, GridError> {
        let value = self.required(attribute)?;
        match value.fract() == 0.0 && value.abs() < 9.0e15 {
            true => Ok(value as i64),
            false => Err(self.bad(attribute, value, "give a whole number")),
        }
    }

    fn integer_or(&self, attribute: &'static str, default: i64) -> Result<i64, GridError> {
        match self.cell(attribute) {
            Cell::Missing => Ok(default),
            _ => self.integer(attribute),
        }
    }

    pub(super) fn status(&self, attribute: &'static str) -> Result<Option<bool>, GridError> {
        match self.number(attribute)? {
            None => Ok(None),
            Some(0.0) => Ok(Some(false)),
            Some(1.0) => Ok(Some(true)),
            Some(value) => Err(self.bad(attribute, value, STATUS)),
        }
    }

    fn closed(&self, attribute: &'static str) -> Result<bool, GridError> {
        self.status(attribute)?.ok_or_else(|| self.missing(attribute))
    }

    /// A quantity in the shape the component has, NaN where it is missing.
    pub(super) fn per_phase(&self, attribute: &'static str, symmetric: bool) -> Result<PerPhase, GridError> {
        let value = match (self.cell(attribute), symmetric) {
            (Cell::Missing, true) => PerPhase::Symmetric(f64::NAN),
            (Cell::Missing, false) => PerPhase::Phases([f64::NAN; 3]),
            (Cell::One(value), true) => PerPhase::Symmetric(value),
            (Cell::Three(values), false) => PerPhase::Phases(values),
            (Cell::Three([value, ..]), true) => return Err(self.bad(attribute, value, "give one number, not one for each phase")),
            (Cell::One(value), false) => return Err(self.bad(attribute, value, "give three numbers, one for each phase")),
        };
        match value.values().iter().find(|&&value| !value.is_nan() && !is_usable(value)) {
            None => Ok(value),
            Some(&infinite) => Err(self.bad(attribute, infinite, FINITE)),
        }
    }

    /// Voltages in the shape the component has, NaN where missing.
    pub(super) fn voltages(&self, attribute: &'static str, symmetric: bool) -> Result<PerPhase, GridError> {
        let value = self.per_phase(attribute, symmetric)?;
        match value.values().iter().find(|&&u| u < 0.0) {
            None => Ok(value),
            Some(&negative) => Err(self.bad(attribute, negative, NOT_NEGATIVE)),
        }
    }

    /// Standard deviations: above zero, infinite allowed, NaN where missing.
    pub(super) fn sigma_per_phase(&self, attribute: &'static str, symmetric: bool) -> Result<PerPhase, GridError> {
        let value = match (self.cell(attribute), symmetric) {
            (Cell::One(value), true) => PerPhase::Symmetric(value),
            (Cell::Three(values), false) => PerPhase::Phases(values),
            _ => return self.per_phase(attribute, symmetric),
        };
        match value.values().iter().find(|&&value| value < SIGMA_MIN) {
            None => Ok(value),
            Some(&bad) => Err(self.bad(attribute, bad, SIGMA)),
        }
    }

    pub(super) fn sigma(&self, attribute: &'static str) -> Result<Option<f64>, GridError> {
        match self.number(attribute)? {
            Some(value) if value < SIGMA_MIN => Err(self.bad(attribute, value, SIGMA)),
            value => Ok(value),
        }
    }

    fn node(&self, network: &Network, attribute: &'static str) -> Result<usize, GridError> {
        let target = self.integer(attribute)?;
        network.node_index(target).ok_or_else(|| self.unknown(attribute, target, "node"))
    }

    fn unknown(&self, attribute: &'static str, target: ComponentId, expected: &'static str) -> GridError {
        GridError::UnknownReference {
            component: self.component,
            id: self.id,
            attribute,
            target,
            expected,
        }
    }
}

impl Network {
    /// Reads a power-grid-model input dataset.
    ///
    /// # Errors
    /// A [`GridError`] that names the component, the attribute, the value and the remedy.
    ///
    /// ```
    /// use flexmeter_grid::network::Network;
    /// let text = r#"{"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": {
    ///     "node": [{"id": 1, "u_rated": 400}], "source": [{"id": 2, "node": 1, "status": 1, "u_ref": 1.0}]}}"#;
    /// assert_eq!(Network::from_pgm_json(text)?.nodes().len(), 1);
    /// let error = Network::from_pgm_json(&text.replace("400", "-1")).unwrap_err();
    /// assert_eq!(error.to_string(), "node 1: u_rated = -1 is not usable; give a finite number above zero");
    /// # Ok::<(), flexmeter_grid::GridError>(())
    /// ```
    pub fn from_pgm_json(text: &str) -> Result<Self, GridError> {
        Self::from_dataset(&Dataset::from_json(text, DatasetKind::Input)?)
    }

    pub(crate) fn from_dataset(dataset: &Dataset) -> Result<Self, GridError> {
        if dataset.scenarios.len() != 1 {
            return Err(GridError::Dataset {
                reason: format!("an input dataset holds one network, this batch has {}", dataset.scenarios.len()),
            });
        }
        let tables = dataset.scenario(0)?;
        let mut network = Self::default();
        // what others refer to comes first, whatever the order of the dataset
        let passes: [&[&str]; 3] = [
            &["node"],
            &[
                "line",
                "link",
                "transformer",
                "source",
                "sym_load",
                "sym_gen",
                "asym_load",
                "asym_gen",
                "shunt",
            ],
            &[
                "sym_voltage_sensor",
                "asym_voltage_sensor",
                "sym_power_sensor",
                "asym_power_sensor",
                "sym_current_sensor",
                "asym_current_sensor",
            ],
        ];
        for pass in passes {
            for table in tables.iter().filter(|table| pass.contains(&table.component)) {
                if table.component == "node" && table.len() > N_NODES_MAX {
                    return Err(GridError::TooLarge {
                        what: "nodes",
                        n: table.len(),
                        n_max: N_NODES_MAX,
                    });
                }
                for cells in table.rows() {
                    network.add(&Row::new(table, cells)?)?;
                }
            }
        }
        Ok(network)
    }

    fn add(&mut self, row: &Row<'_>) -> Result<(), GridError> {
        let symmetric = row.component.starts_with("sym_");
        match row.component {
            "node" => {
                self.register(row.id, Reference::Node(self.nodes.len()), row.component)?;
                self.nodes.push(Node {
                    id: row.id,
                    u_rated_v: row.positive("u_rated")?,
                });
            }
            "line" | "link" | "transformer" => {
                let branch = branch(row, self)?;
                self.register(row.id, Reference::Branch(self.branches.len()), row.component)?;
                self.branches.push(branch);
            }
            "source" => {
                let source = source(row, self)?;
                self.register(row.id, Reference::Source(self.sources.len()), row.component)?;
                self.sources.push(source);
            }
            "shunt" => {
                let shunt = shunt(row, self)?;
                self.register(row.id, Reference::Shunt(self.shunts.len()), row.component)?;
                self.shunts.push(shunt);
            }
            "sym_load" | "asym_load" | "sym_gen" | "asym_gen" => {
                let appliance = appliance(row, self, symmetric)?;
                self.register(row.id, Reference::Appliance(self.appliances.len()), row.component)?;
                self.appliances.push(appliance);
            }
            "sym_voltage_sensor" | "asym_voltage_sensor" => {
                let sensor = voltage_sensor(row, self, symmetric)?;
                self.register(row.id, Reference::VoltageSensor(self.voltage_sensors.len()), row.component)?;
                self.voltage_sensors.push(sensor);
            }
            "sym_power_sensor" | "asym_power_sensor" => {
                let sensor = power_sensor(row, self, symmetric)?;
                self.register(row.id, Reference::PowerSensor(self.power_sensors.len()), row.component)?;
                self.power_sensors.push(sensor);
            }
            _ => {
                let sensor = current_sensor(row, self, symmetric)?;
                self.register(row.id, Reference::CurrentSensor(self.current_sensors.len()), row.component)?;
                self.current_sensors.push(sensor);
            }
        }
        Ok(())
    }
}

fn branch(row: &Row<'_>, network: &Network) -> Result<Branch, GridError> {
    let (from, to) = (row.node(network, "from_node")?, row.node(network, "to_node")?);
    if from == to {
        return Err(GridError::SelfLoop {
            component: row.component,
            id: row.id,
            node: network.nodes[from].id,
        });
    }
    let kind = match row.component {
        "line" => {
            let (from, to) = (network.nodes[from], network.nodes[to]);
            if from.u_rated_v != to.u_rated_v {
                return Err(GridError::ConflictingVoltage {
                    id: row.id,
                    from: from.id,
                    to: to.id,
                    from_v: from.u_rated_v,
                    to_v: to.u_rated_v,
                });
            }
            BranchKind::Line(line(row)?)
        }
        "transformer" => BranchKind::Transformer(Box::new(transformer(row)?)),
        _ => BranchKind::Link,
    };
    Ok(Branch {
        id: row.id,
        from,
        to,
        from_closed: row.closed("from_status")?,
        to_closed: row.closed("to_status")?,
        kind,
    })
}

fn impedance(row: &Row<'_>, r: &'static str, x: &'static str) -> Result<[f64; 2], GridError> {
    let z = [row.not_negative(r)?, row.required(x)?];
    match z {
        [_, reactance] if !is_usable(reactance) => Err(row.bad(x, reactance, FINITE)),
        [0.0, 0.0] => Err(row.bad(x, 0.0, "with a resistance of zero, too, this is a link: use one")),
        _ => Ok(z),
    }
}

fn line(row: &Row<'_>) -> Result<Line, GridError> {
    let z0_ohm = match (row.number("r0")?, row.number("x0")?) {
        (None, None) => None,
        _ => Some(impedance(row, "r0", "x0")?),
    };
    Ok(Line {
        z1_ohm: impedance(row, "r1", "x1")?,
        c1_f: row.finite_or("c1", 0.0)?,
        tan1: row.finite_or("tan1", 0.0)?,
        z0_ohm,
        c0_f: row.finite_or("c0", 0.0)?,
        tan0: row.finite_or("tan0", 0.0)?,
        i_n_a: row.number("i_n")?,
    })
}

fn winding(row: &Row<'_>, attribute: &'static str) -> Result<Winding, GridError> {
    match row.integer(attribute)? {
        0 => Ok(Winding::Wye),
        1 => Ok(Winding::WyeN),
        2 => Ok(Winding::Delta),
        3 => Ok(Winding::Zigzag),
        4 => Ok(Winding::ZigzagN),
        other => Err(row.bad(
            attribute,
            other as f64,
            "0 is wye, 1 wye with neutral, 2 delta, 3 zigzag, 4 zigzag with neutral",
        )),
    }
}

fn transformer(row: &Row<'_>) -> Result<Transformer, GridError> {
    let windings = [winding(row, "winding_from")?, winding(row, "winding_to")?];
    let clock = row.integer("clock")?;
    // the same kind of winding on both sides makes even clock numbers, different kinds odd ones
    let is_even = match windings {
        [from, to] if from.is_wye() && to.is_wye() => true,
        [Winding::Delta, Winding::Delta] => true,
        [from, to] if !from.is_wye() && from != Winding::Delta && !to.is_wye() && to != Winding::Delta => true,
        [Winding::Delta, to] if !to.is_wye() => true,
        [from, Winding::Delta] if !from.is_wye() => true,
        _ => false,
    };
    if !(-12..=12).contains(&clock) || (clock % 2 == 0) != is_even {
        return Err(row.bad(
            "clock",
            clock as f64,
            "-12 to 12; even between windings of one kind (and delta with zigzag), else odd",
        ));
    }
    let tap = |attribute, default| -> Result<i16, GridError> {
        let value = row.integer_or(attribute, default)?;
        i16::try_from(value).map_err(|_| row.bad(attribute, value as f64, "give a small whole number"))
    };
    let tap_nom = tap("tap_nom", 0)?;
    let (uk, pk) = (row.required("uk")?, row.required("pk")?);
    if !uk.is_finite() || uk == 0.0 {
        return Err(row.bad("uk", uk, "give a finite number other than zero"));
    }
    let transformer = Transformer {
        u_v: [row.positive("u1")?, row.positive("u2")?],
        sn_va: row.positive("sn")?,
        uk: [uk, row.finite_or("uk_min", uk)?, row.finite_or("uk_max", uk)?],
        pk_w: [pk, row.finite_or("pk_min", pk)?, row.finite_or("pk_max", pk)?],
        i0: row.not_negative("i0")?,
        p0_w: row.not_negative("p0")?,
        i0_zero_sequence: row.finite("i0_zero_sequence")?,
        p0_zero_sequence_w: row.finite("p0_zero_sequence")?,
        windings,
        clock: clock.rem_euclid(12) as i8,
        tap_at_from: match row.integer_or("tap_side", 0)? {
            0 => true,
            1 => false,
            other => return Err(row.bad("tap_side", other as f64, "0 is the from side, 1 the to side")),
        },
        tap_pos: tap("tap_pos", i64::from(tap_nom))?,
        tap_range: [tap("tap_min", 0)?, tap("tap_max", 0)?],
        tap_nom,
        tap_size_v: row.finite_or("tap_size", 0.0)?,
        z_grounding_ohm: [
            [row.finite_or("r_grounding_from", 0.0)?, row.finite_or("x_grounding_from", 0.0)?],
            [row.finite_or("r_grounding_to", 0.0)?, row.finite_or("x_grounding_to", 0.0)?],
        ],
    };
    if !transformer.tap_is_possible() {
        return Err(row.bad("tap_size", transformer.tap_size_v, TAP_TOO_FAR));
    }
    if !pk.is_finite() || transformer.pk_w[0] < 0.0 {
        return Err(row.bad("pk", pk, NOT_NEGATIVE));
    }
    Ok(transformer)
}

fn source(row: &Row<'_>, network: &Network) -> Result<Source, GridError> {
    let positive_or = |attribute, default| match row.number(attribute)? {
        None => Ok(default),
        Some(_) => row.positive(attribute),
    };
    Ok(Source {
        id: row.id,
        node: row.node(network, "node")?,
        connected: row.closed("status")?,
        u_ref_pu: match row.finite("u_ref")? {
            Some(u) if !(u > 0.0 && u < U_REF_MAX_PU) => return Err(row.bad("u_ref", u, "give a voltage per unit, near 1")),
            u => u.unwrap_or(f64::NAN),
        },
        u_ref_angle_rad: row.finite_or("u_ref_angle", 0.0)?,
        sk_va: positive_or("sk", SOURCE_SK_VA)?,
        rx_ratio: match row.number("rx_ratio")? {
            None => SOURCE_RX_RATIO,
            Some(_) => row.not_negative("rx_ratio")?,
        },
        z01_ratio: positive_or("z01_ratio", 1.0)?,
    })
}

fn shunt(row: &Row<'_>, network: &Network) -> Result<Shunt, GridError> {
    let y0_s = match (row.finite("g0")?, row.finite("b0")?) {
        (None, None) => None,
        (g0, b0) => Some([g0.unwrap_or(0.0), b0.unwrap_or(0.0)]),
    };
    let g1 = row.finite("g1")?.ok_or_else(|| row.missing("g1"))?;
    let b1 = row.finite("b1")?.ok_or_else(|| row.missing("b1"))?;
    Ok(Shunt {
        id: row.id,
        node: row.node(network, "node")?,
        connected: row.closed("status")?,
        y1_s: [g1, b1],
        y0_s,
    })
}

fn appliance(row: &Row<'_>, network: &Network, symmetric: bool) -> Result<Appliance, GridError> {
    Ok(Appliance {
        id: row.id,
        node: row.node(network, "node")?,
        connected: row.closed("status")?,
        is_generator: row.component.ends_with("_gen"),
        kind: match row.integer("type")? {
            0 => LoadKind::ConstantPower,
            1 => LoadKind::ConstantImpedance,
            2 => LoadKind::ConstantCurrent,
            other => {
                return Err(row.bad(
                    "type",
                    other as f64,
                    "0 is constant power, 1 constant impedance, 2 constant current",
                ));
            }
        },
        p_w: row.per_phase("p_specified", symmetric)?,
        q_var: row.per_phase("q_specified", symmetric)?,
    })
}

fn terminal(row: &Row<'_>, network: &Network) -> Result<Terminal, GridError> {
    let kind = row.integer("measured_terminal_type")?;
    let object = row.integer("measured_object")?;
    let found = network.references.get(&object).copied();
    let (terminal, expected) = match (kind, found) {
        (0, Some(Reference::Branch(index))) => (Some(Terminal::BranchFrom(index)), ""),
        (1, Some(Reference::Branch(index))) => (Some(Terminal::BranchTo(index)), ""),
        (2, Some(Reference::Source(index))) => (Some(Terminal::Source(index)), ""),
        (3, Some(Reference::Shunt(index))) => (Some(Terminal::Shunt(index)), ""),
        (4 | 5, Some(Reference::Appliance(index))) if network.appliances[index].is_generator == (kind == 5) => {
            (Some(Terminal::Appliance(index)), "")
        }
        (9, Some(Reference::Node(index))) => (Some(Terminal::Node(index)), ""),
        (0 | 1, _) => (None, "line, transformer or link"),
        (2, _) => (None, "source"),
        (3, _) => (None, "shunt"),
        (4, _) => (None, "load"),
        (5, _) => (None, "generator"),
        (9, _) => (None, "node"),
        _ => {
            let remedy = "0 is branch_from, 1 branch_to, 2 source, 3 shunt, 4 load, 5 generator, 9 node";
            return Err(row.bad("measured_terminal_type", kind as f64, remedy));
        }
    };
    terminal.ok_or_else(|| row.unknown("measured_object", object, expected))
}

fn voltage_sensor(row: &Row<'_>, network: &Network, symmetric: bool) -> Result<VoltageSensor, GridError> {
    Ok(VoltageSensor {
        id: row.id,
        node: row.node(network, "measured_object")?,
        u_sigma_v: row.sigma("u_sigma")?.unwrap_or(f64::INFINITY),
        u_v: row.voltages("u_measured", symmetric)?,
        angle_rad: row.per_phase("u_angle_measured", symmetric)?,
    })
}

fn power_sensor(row: &Row<'_>, network: &Network, symmetric: bool) -> Result<PowerSensor, GridError> {
    Ok(PowerSensor {
        id: row.id,
        terminal: terminal(row, network)?,
        sigma_va: row.sigma("power_sigma")?.unwrap_or(f64::INFINITY),
        p_sigma_w: row.sigma_per_phase("p_sigma", symmetric)?,
        q_sigma_var: row.sigma_per_phase("q_sigma", symmetric)?,
        p_w: row.per_phase("p_measured", symmetric)?,
        q_var: row.per_phase("q_measured", symmetric)?,
    })
}

fn current_sensor(row: &Row<'_>, network: &Network, symmetric: bool) -> Result<CurrentSensor, GridError> {
    let terminal = terminal(row, network)?;
    if !matches!(terminal, Terminal::BranchFrom(_) | Terminal::BranchTo(_)) {
        let kind = row.integer("measured_terminal_type")?;
        let remedy = "a current is measured at an end of a branch: 0 is branch_from, 1 branch_to";
        return Err(row.bad("measured_terminal_type", kind as f64, remedy));
    }
    Ok(CurrentSensor {
        id: row.id,
        terminal,
        angle_kind: match row.integer_or("angle_measurement_type", 0)? {
            0 => CurrentAngle::Local,
            1 => CurrentAngle::Global,
            other => return Err(row.bad("angle_measurement_type", other as f64, "0 is local, 1 global")),
        },
        i_sigma_a: row.sigma("i_sigma")?.unwrap_or(f64::INFINITY),
        angle_sigma_rad: row.sigma("i_angle_sigma")?.unwrap_or(f64::INFINITY),
        i_a: row.per_phase("i_measured", symmetric)?,
        angle_rad: row.per_phase("i_angle_measured", symmetric)?,
    })
}
