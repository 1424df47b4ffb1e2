//! A grid bundle: how an operator hands over a grid, its areas and its meters.
//!
//! Texts come in, files are somebody else's business. The format is that of the platform's design ("Grid bundle"): `network.json` (a
//! power-grid-model input dataset without sensors), `areas.csv`, `meters.csv`, `switches.csv`.

use std::collections::HashMap;

use crate::areas::{Area, split};
use crate::error::GridError;
use crate::network::{ComponentId, Network, PerPhase, PowerSensor, Reference, Terminal, VoltageSensor};

/// Smallest standard deviation of a power reading, W or var: what rounding to 0.1 leaves.
pub const POWER_SIGMA_MIN: f64 = 0.03;

/// Where a meter sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// At a customer: its load and the voltage at its node.
    Customer,
    /// At the root of a concentrator's area: what flows into it.
    Concentrator,
    /// At the root of a substation's area: what flows into it.
    Substation,
    /// At a source: what it feeds in.
    Feeder,
}

/// A line of `meters.csv`.
#[derive(Debug, Clone, PartialEq)]
pub struct Meter {
    /// Who sends.
    pub hardware_id: String,
    /// Index of its node.
    pub node: usize,
    /// Its phases: 0, 1, 2 for a, b, c.
    pub phases: Vec<usize>,
    /// Where it sits.
    pub role: Role,
    /// Relative standard deviation of its voltages.
    pub accuracy_v: f64,
    /// Relative standard deviation of its powers.
    pub accuracy_p: f64,
    /// Where it measures power.
    pub terminal: Terminal,
}

/// What a meter says at one moment, by phase; NaN where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Voltage to ground, V.
    pub u_v: [f64; 3],
    /// Active power into the load or area, W.
    pub p_w: [f64; 3],
    /// Reactive power into the load or area, var.
    pub q_var: [f64; 3],
}

/// A line of `switches.csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Index of its branch.
    pub branch: usize,
    /// Whether it is closed as a rule.
    pub normally_closed: bool,
    /// Whether it can be operated from afar.
    pub controllable: bool,
    /// Who reports its position; empty if nobody does.
    pub hardware_id: String,
}

/// A grid with its areas, meters and switches.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Bundle {
    /// The whole network.
    pub network: Network,
    /// Path of each node's area, by index of the node.
    pub areas: Vec<String>,
    /// Meters in the order of their file.
    pub meters: Vec<Meter>,
    /// Switches in the order of their file.
    pub switches: Vec<Switch>,
}

/// Lines of a table with header, as fields by name.
pub(crate) fn rows<'a>(file: &'static str, text: &'a str, columns: &[&'static str]) -> Result<Vec<(usize, Vec<&'a str>)>, GridError> {
    let refused = |line: usize, reason: String| GridError::Bundle { file, line, reason };
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end_matches('\r')));
    let header: Vec<&str> = lines
        .next()
        .ok_or_else(|| refused(1, format!("is empty; its first line has to be {}", columns.join(","))))?
        .1
        .split(',')
        .map(str::trim)
        .collect();
    let places: Vec<usize> = columns
        .iter()
        .map(|column| {
            header
                .iter()
                .position(|name| name == column)
                .ok_or_else(|| refused(1, format!("has no column {column}; its columns are {}", columns.join(","))))
        })
        .collect::<Result<_, _>>()?;
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            match places.iter().all(|&place| place < fields.len()) {
                true => Ok((number, places.iter().map(|&place| fields[place]).collect())),
                false => Err(refused(number, format!("has {} fields, {} are needed", fields.len(), header.len()))),
            }
        })
        .collect()
}

pub(crate) fn parse<T: std::str::FromStr>(file: &'static str, line: usize, column: &str, text: &str) -> Result<T, GridError> {
    text.parse().map_err(|_| GridError::Bundle {
        file,
        line,
        reason: format!("{column} = \"{text}\" is not a number"),
    })
}

impl Bundle {
    /// Reads the texts of a bundle's files.
    ///
    /// # Errors
    /// What is wrong with the network ([`Network::from_pgm_json`]); [`GridError::Bundle`] with file and line for the tables.
    pub fn from_texts(network_json: &str, areas_csv: &str, meters_csv: &str, switches_csv: &str) -> Result<Self, GridError> {
        let network = Network::from_pgm_json(network_json)?;
        let areas = read_areas(&network, areas_csv)?;
        let meters = read_meters(&network, &areas, meters_csv)?;
        let switches = read_switches(&network, switches_csv)?;
        Ok(Self {
            network,
            areas,
            meters,
            switches,
        })
    }

    /// Cuts the network into its areas, the lowest level first.
    ///
    /// # Errors
    /// [`GridError::Area`] for areas that do not keep the rule.
    pub fn split(&self) -> Result<Vec<Area>, GridError> {
        let paths: Vec<&str> = self.areas.iter().map(String::as_str).collect();
        split(&self.network, &paths)
    }

    /// The network with what the meters say as its sensors. A reading's standard deviation is that of the meter's class at this reading; a
    /// meter of one phase knows that its load takes nothing from the others. Customers without reading have no sensor.
    pub fn with_readings(&self, readings: &HashMap<&str, Reading>) -> Network {
        let mut network = self.network.clone();
        let mut id = network.references.keys().copied().max().unwrap_or(0);
        for meter in &self.meters {
            if let Some(reading) = readings.get(meter.hardware_id.as_str()) {
                add_sensors(&mut network, meter, reading, &mut id);
            }
        }
        network
    }
}

/// Where a meter is in an area's network: indices of its sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterSensors {
    /// In [`Network::voltage_sensors`].
    pub voltage: usize,
    /// In [`Network::power_sensors`]; `None` where what it measures is not there now (nothing enters its area).
    pub power: Option<usize>,
}

/// A load of an area that no meter measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnmeteredLoad {
    /// In [`Network::appliances`] of the area.
    pub appliance: usize,
    /// In [`Network::power_sensors`] of the area.
    pub power: usize,
}

impl Bundle {
    /// Gives an area's network the sensors of these meters (indices in [`Self::meters`], all of nodes of the area), and one for each load
    /// that none of them measures. No sensor has a reading yet. Powers count as positive into the load or area, or out of the source, at
    /// every sensor.
    pub fn add_sensors(&self, area: &mut Area, meters: &[usize]) -> (Vec<MeterSensors>, Vec<UnmeteredLoad>) {
        let place: HashMap<usize, usize> = area.nodes.iter().enumerate().map(|(own, &node)| (node, own)).collect();
        let appliance_place: HashMap<usize, usize> = area.appliances.iter().enumerate().map(|(own, &at)| (at, own)).collect();
        let mut is_metered = vec![false; area.network.appliances.len()];
        let mut sensors = Vec::with_capacity(meters.len());
        for meter in meters.iter().map(|&index| &self.meters[index]) {
            let node = place.get(&meter.node).copied().unwrap_or(area.root);
            let terminal = match meter.terminal {
                Terminal::Appliance(appliance) => appliance_place.get(&appliance).copied().map(Terminal::Appliance),
                // the stand-in for the grid above is the last source
                Terminal::BranchTo(_) if area.entrance.is_some() && node == area.root => {
                    area.network.sources.len().checked_sub(1).map(Terminal::Source)
                }
                Terminal::Source(_) => area
                    .network
                    .sources
                    .iter()
                    .position(|source| source.node == node)
                    .map(Terminal::Source),
                _ => None,
            };
            if let Some(Terminal::Appliance(own)) = terminal {
                is_metered[own] = true;
            }
            sensors.push(MeterSensors {
                voltage: area.network.add_voltage_sensor(node),
                power: terminal.map(|terminal| area.network.add_power_sensor(terminal)),
            });
        }
        let unmetered = (0..is_metered.len())
            .filter(|&own| !is_metered[own])
            .map(|appliance| UnmeteredLoad {
                appliance,
                power: area.network.add_power_sensor(Terminal::Appliance(appliance)),
            })
            .collect();
        (sensors, unmetered)
    }
}

fn add_sensors(network: &mut Network, meter: &Meter, reading: &Reading, id: &mut ComponentId) {
    // a voltage sensor has one deviation for its phases: that of the mean reading
    let read: Vec<f64> = meter.phases.iter().map(|&k| reading.u_v[k]).filter(|u| u.is_finite()).collect();
    if !read.is_empty() {
        *id += 1;
        network
            .references
            .insert(*id, Reference::VoltageSensor(network.voltage_sensors.len()));
        let only_own = |k: usize| if meter.phases.contains(&k) { reading.u_v[k] } else { f64::NAN };
        network.voltage_sensors.push(VoltageSensor {
            id: *id,
            node: meter.node,
            u_sigma_v: meter.accuracy_v * read.iter().sum::<f64>() / read.len() as f64,
            u_v: PerPhase::Phases(std::array::from_fn(only_own)),
            angle_rad: PerPhase::Phases([f64::NAN; 3]),
        });
    }
    // what flows into an area comes out of its entrance
    let sign = if matches!(meter.terminal, Terminal::BranchTo(_)) {
        -1.0
    } else {
        1.0
    };
    let power = |x: &[f64; 3]| {
        PerPhase::Phases(std::array::from_fn(|k| match meter.phases.contains(&k) {
            true => sign * x[k],
            false => 0.0,
        }))
    };
    let sigma = PerPhase::Phases(std::array::from_fn(|k| match meter.phases.contains(&k) {
        true => (meter.accuracy_p * reading.p_w[k].hypot(reading.q_var[k])).max(POWER_SIGMA_MIN),
        false => 0.0,
    }));
    *id += 1;
    network.references.insert(*id, Reference::PowerSensor(network.power_sensors.len()));
    network.power_sensors.push(PowerSensor {
        id: *id,
        terminal: meter.terminal,
        sigma_va: f64::INFINITY,
        p_sigma_w: sigma,
        q_sigma_var: sigma,
        p_w: power(&reading.p_w),
        q_var: power(&reading.q_var),
    });
}

fn read_areas(network: &Network, text: &str) -> Result<Vec<String>, GridError> {
    const FILE: &str = "areas.csv";
    let mut areas = vec![None; network.nodes.len()];
    for (line, fields) in rows(FILE, text, &["node_id", "area"])? {
        let refused = |reason: String| GridError::Bundle { file: FILE, line, reason };
        let id: ComponentId = parse(FILE, line, "node_id", fields[0])?;
        let node = network
            .node_index(id)
            .ok_or_else(|| refused(format!("node {id} is not in network.json")))?;
        let path = fields[1];
        if path.is_empty() || path.split('/').any(str::is_empty) {
            return Err(refused(format!("area \"{path}\" is not a path; write it like mv1/lv07/c03")));
        }
        if areas[node].replace(path.to_owned()).is_some() {
            return Err(refused(format!("node {id} has two areas; leave one line of it")));
        }
    }
    areas
        .into_iter()
        .enumerate()
        .map(|(node, area)| {
            area.ok_or_else(|| GridError::Bundle {
                file: FILE,
                line: 0,
                reason: format!("node {} has no area; add a line for it", network.nodes[node].id),
            })
        })
        .collect()
}

fn read_meters(network: &Network, areas: &[String], text: &str) -> Result<Vec<Meter>, GridError> {
    const FILE: &str = "meters.csv";
    // the closed branch that enters each area, by its root
    let entrance: HashMap<usize, usize> = network
        .branches
        .iter()
        .enumerate()
        .filter(|(_, branch)| branch.is_closed() && areas[branch.from] != areas[branch.to])
        .map(|(index, branch)| (branch.to, index))
        .collect();
    // the n-th customer belongs to the n-th load
    let loads: Vec<usize> = (0..network.appliances.len())
        .filter(|&index| !network.appliances[index].is_generator)
        .collect();
    let mut n_customers = 0;
    let mut meters = Vec::new();
    let columns = ["hardware_id", "node_id", "phases", "role", "accuracy_v", "accuracy_p"];
    for (line, fields) in rows(FILE, text, &columns)? {
        let refused = |reason: String| GridError::Bundle { file: FILE, line, reason };
        let id: ComponentId = parse(FILE, line, "node_id", fields[1])?;
        let node = network
            .node_index(id)
            .ok_or_else(|| refused(format!("node {id} is not in network.json")))?;
        let phases: Vec<usize> = match fields[2] {
            "abc" => vec![0, 1, 2],
            "a" => vec![0],
            "b" => vec![1],
            "c" => vec![2],
            other => return Err(refused(format!("phases = \"{other}\"; abc, a, b and c are known"))),
        };
        let role = match fields[3] {
            "customer" => Role::Customer,
            "concentrator" => Role::Concentrator,
            "substation" => Role::Substation,
            "feeder" => Role::Feeder,
            other => {
                return Err(refused(format!(
                    "role = \"{other}\"; customer, concentrator, substation and feeder are known"
                )));
            }
        };
        let terminal = match role {
            Role::Customer => {
                let load = loads.get(n_customers).copied();
                n_customers += 1;
                let own = load.filter(|&load| network.appliances[load].node == node);
                Terminal::Appliance(own.ok_or_else(|| {
                    refused(format!(
                        "customer number {n_customers} is at node {id}, load number {n_customers} of network.json is not"
                    ))
                })?)
            }
            // where nothing enters an area, the meter counts what the node takes
            Role::Concentrator | Role::Substation => match entrance.get(&node) {
                Some(&branch) => Terminal::BranchTo(branch),
                None => match loads.iter().find(|&&load| network.appliances[load].node == node) {
                    Some(&load) => Terminal::Appliance(load),
                    None => return Err(refused(format!("no closed branch enters an area at node {id}, and it has no load"))),
                },
            },
            Role::Feeder => match network.sources.iter().position(|source| source.node == node) {
                Some(source) => Terminal::Source(source),
                None => return Err(refused(format!("node {id} has no source for a feeder meter"))),
            },
        };
        let accuracy = |column: &str, text: &str| -> Result<f64, GridError> {
            match parse::<f64>(FILE, line, column, text)? {
                value if value > 0.0 && value < 1.0 => Ok(value),
                value => Err(refused(format!("{column} = {value} is not between 0 and 1; 0.01 is one per cent"))),
            }
        };
        meters.push(Meter {
            hardware_id: fields[0].to_owned(),
            node,
            phases,
            role,
            accuracy_v: accuracy("accuracy_v", fields[4])?,
            accuracy_p: accuracy("accuracy_p", fields[5])?,
            terminal,
        });
    }
    Ok(meters)
}

/// Reads `switches.csv`; a grid without areas and meters can have switches too.
///
/// # Errors
/// [`GridError::Bundle`] with the line.
pub fn read_switches(network: &Network, text: &str) -> Result<Vec<Switch>, GridError> {
    const FILE: &str = "switches.csv";
    rows(FILE, text, &["branch_id", "normal", "controllable", "hardware_id"])?
        .into_iter()
        .map(|(line, fields)| {
            let refused = |reason: String| GridError::Bundle { file: FILE, line, reason };
            let id: ComponentId = parse(FILE, line, "branch_id", fields[0])?;
            let choice = |column: &str, text: &str, yes: &str, no: &str| match text {
                text if text == yes => Ok(true),
                text if text == no => Ok(false),
                other => Err(refused(format!("{column} = \"{other}\"; {yes} and {no} are known"))),
            };
            Ok(Switch {
                branch: network
                    .branch_index(id)
                    .ok_or_else(|| refused(format!("branch {id} is not in network.json")))?,
                normally_closed: choice("normal", fields[1], "closed", "open")?,
                controllable: choice("controllable", fields[2], "true", "false")?,
                hardware_id: fields[3].to_owned(),
            })
        })
        .collect()
}

/// Reads `names.csv`: what people call nodes and branches, by id.
///
/// # Errors
/// [`GridError::Bundle`] with the line.
pub fn read_names(network: &Network, text: &str) -> Result<HashMap<ComponentId, String>, GridError> {
    const FILE: &str = "names.csv";
    let mut names = HashMap::new();
    for (line, fields) in rows(FILE, text, &["id", "name"])? {
        let id: ComponentId = parse(FILE, line, "id", fields[0])?;
        if !network.references.contains_key(&id) {
            return Err(GridError::Bundle {
                file: FILE,
                line,
                reason: format!("{id} is not in network.json"),
            });
        }
        names.insert(id, fields[1].to_owned());
    }
    Ok(names)
}

/// Indices of the branches that can be operated from afar.
pub fn controllable(switches: &[Switch]) -> Vec<usize> {
    let controllable = switches.iter().filter(|switch| switch.controllable);
    controllable.map(|switch| switch.branch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = r#"{"type":"input","data":{"node":[{"id":1,"u_rated":400},{"id":2,"u_rated":400}],
        "link":[{"id":5,"from_node":1,"to_node":2,"from_status":1,"to_status":1}],"source":[{"id":6,"node":1,"status":1,"u_ref":1}],
        "asym_load":[{"id":7,"node":2,"status":1,"type":0}]}}"#;
    const AREAS: &str = "node_id,area\n1,mv1\n2,mv1/lv1\n";
    const METERS: &str =
        "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\nM,2,b,customer,0.005,0.01\nS,2,abc,substation,0.002,0.005\n";
    const SWITCHES: &str = "branch_id,normal,controllable,hardware_id\n5,closed,true,SW\n";

    #[test]
    fn meters_find_what_they_measure() {
        let bundle = Bundle::from_texts(NETWORK, AREAS, METERS, SWITCHES).unwrap();
        assert_eq!(bundle.meters[0].terminal, Terminal::Appliance(0));
        assert_eq!(bundle.meters[1].terminal, Terminal::BranchTo(0));
        let nan = f64::NAN;
        let reading = Reading {
            u_v: [nan, 231.0, nan],
            p_w: [nan, 300.0, nan],
            q_var: [nan, 400.0, nan],
        };
        let network = bundle.with_readings(&HashMap::from([("M", reading)]));
        assert_eq!(network.power_sensors()[0].p_w, PerPhase::Phases([0.0, 300.0, 0.0]));
        assert_eq!(network.power_sensors()[0].p_sigma_w, PerPhase::Phases([0.0, 5.0, 0.0]));
        assert!((network.voltage_sensors()[0].u_sigma_v - 1.155).abs() < 1e-12);
        assert_eq!(bundle.split().unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let check = |areas: &str, meters: &str, switches: &str, expected: &str| {
            let error = Bundle::from_texts(NETWORK, areas, meters, switches).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("node_id,area\n1,mv1\n", METERS, SWITCHES, "node 2 has no area");
        check(
            "node_id,area\n1,mv1\n2,mv1\n3,mv1\n",
            METERS,
            SWITCHES,
            "areas.csv line 4: node 3 is not in network.json",
        );
        check(AREAS, &METERS.replace(",b,", ",d,"), SWITCHES, "meters.csv line 2: phases = \"d\"");
        check(AREAS, &METERS.replace("M,2", "M,1"), SWITCHES, "customer number 1 is at node 1");
        check(AREAS, &METERS.replace("0.005,0.01", "5,0.01"), SWITCHES, "0.01 is one per cent");
        check(AREAS, METERS, "branch_id\n5\n", "has no column normal");
    }

    #[test]
    fn names_are_those_of_components() {
        let network = Network::from_pgm_json(NETWORK).unwrap();
        let names = read_names(&network, "id,name\n2,high street 1\n5,feeder 3\n").unwrap();
        assert_eq!(names[&2], "high street 1");
        let error = read_names(&network, "id,name\n2,a\n99,b\n").unwrap_err().to_string();
        assert!(error.contains("names.csv line 3: 99 is not in network.json"), "{error}");
    }
}
