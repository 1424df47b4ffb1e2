//! One grid cut into areas that are estimated by themselves.
//!
//! The rule (grid bundle, `areas.csv`): every area below a top one is entered from its parent by exactly one closed branch, whose to end
//! is the root of the lower area and belongs to it. The parent's network contains that branch and, behind it, the root as a node of which
//! it knows nothing but what the area says ([`crate::estimation::Estimator::set_boundary`]). The area's network has a source at its root
//! in the place of everything above.

use std::collections::HashMap;

use crate::error::GridError;
use crate::network::{ComponentId, Network, PerPhase, PowerSensor, Reference, Source, Terminal};

/// An area with its own network.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Area {
    /// Its path, for example `mv1/lv07`.
    pub path: String,
    /// The network of the area, with the roots of the areas below.
    pub network: Network,
    /// Index of its root in that network; of the first source's node for a top area.
    pub root: usize,
    /// Areas directly below: index of the area, index of its root in this network.
    pub children: Vec<(usize, usize)>,
    /// Index of the area above.
    pub parent: Option<usize>,
    /// For each node of the area's network: its index in the whole network. The roots of the areas below come last.
    pub nodes: Vec<usize>,
    /// For each appliance of the area's network: its index in the whole network.
    pub appliances: Vec<usize>,
    /// Index, in the whole network, of the branch that enters the area.
    pub entrance: Option<usize>,
}

/// Cuts a network into areas; `path_of_node` gives each node's area.
///
/// Areas come with the lowest level first, so that a pass over them meets every area before its parent.
///
/// # Errors
/// [`GridError::Area`] for an area that does not keep the rule.
pub fn split(network: &Network, path_of_node: &[&str]) -> Result<Vec<Area>, GridError> {
    let layout = Layout::new(network, path_of_node)?;
    let entrances = layout.entrances(network);
    if let Some(error) = layout.first_refusal(network) {
        return Err(error);
    }
    for (path, entrance) in layout.paths.iter().zip(&entrances) {
        if *entrance == Entrance::Open {
            return Err(refused(path, "no closed branch enters it from its parent".to_owned()));
        }
    }
    Ok((0..layout.paths.len()).map(|area| layout.cut(network, &entrances, area)).collect())
}

fn refused(area: &str, reason: String) -> GridError {
    GridError::Area {
        area: area.to_owned(),
        reason,
    }
}

/// How an area is connected with the one above, as the switches stand.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Entrance {
    /// It is a top area: its sources are its own.
    Top,
    /// By this branch.
    Branch(usize),
    /// Not at all: it has no supply.
    Open,
    /// In a way that cannot be estimated by levels; says why.
    Refused(GridError),
}

/// Which component belongs to which area. It does not depend on the switches, so that one area can be cut anew when a switch is operated,
/// at the cost of that area.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The lowest level first.
    paths: Vec<String>,
    parents: Vec<Option<usize>>,
    parts: Vec<Parts>,
    area_of_node: Vec<usize>,
    /// Branches whose ends are in different areas.
    crossings: Vec<usize>,
}

/// Indices of an area's components in the whole network.
#[derive(Debug, Clone, Default, PartialEq)]
struct Parts {
    nodes: Vec<usize>,
    /// Those whose from end is here.
    branches: Vec<usize>,
    sources: Vec<usize>,
    appliances: Vec<usize>,
    shunts: Vec<usize>,
    voltage_sensors: Vec<usize>,
    power_sensors: Vec<usize>,
    current_sensors: Vec<usize>,
}

impl Layout {
    /// Sorts the components by area.
    ///
    /// # Errors
    /// [`GridError::Area`] for another number of paths than nodes.
    pub fn new(network: &Network, path_of_node: &[&str]) -> Result<Self, GridError> {
        if path_of_node.len() != network.nodes.len() {
            let reason = format!("{} nodes have an area, the network has {}", path_of_node.len(), network.nodes.len());
            return Err(refused("", reason));
        }
        let mut paths: Vec<&str> = path_of_node.to_vec();
        paths.sort_unstable_by_key(|path| (std::cmp::Reverse(path.matches('/').count()), *path));
        paths.dedup();
        let index_of: HashMap<&str, usize> = paths.iter().enumerate().map(|(index, path)| (*path, index)).collect();
        let area_of_node: Vec<usize> = path_of_node.iter().map(|path| index_of[path]).collect();
        let parents = paths.iter().map(|path| index_of.get(path.rsplit_once('/')?.0).copied()).collect();
        let mut parts = vec![Parts::default(); paths.len()];
        for (index, &area) in area_of_node.iter().enumerate() {
            parts[area].nodes.push(index);
        }
        let mut crossings = Vec::new();
        for (index, branch) in network.branches.iter().enumerate() {
            parts[area_of_node[branch.from]].branches.push(index);
            if area_of_node[branch.from] != area_of_node[branch.to] {
                crossings.push(index);
            }
        }
        for (index, source) in network.sources.iter().enumerate() {
            parts[area_of_node[source.node]].sources.push(index);
        }
        for (index, appliance) in network.appliances.iter().enumerate() {
            parts[area_of_node[appliance.node]].appliances.push(index);
        }
        for (index, shunt) in network.shunts.iter().enumerate() {
            parts[area_of_node[shunt.node]].shunts.push(index);
        }
        for (index, sensor) in network.voltage_sensors.iter().enumerate() {
            parts[area_of_node[sensor.node]].voltage_sensors.push(index);
        }
        let node_of = |terminal: Terminal| match terminal {
            Terminal::BranchFrom(branch) => network.branches[branch].from,
            Terminal::BranchTo(branch) => network.branches[branch].to,
            Terminal::Source(source) => network.sources[source].node,
            Terminal::Shunt(shunt) => network.shunts[shunt].node,
            Terminal::Appliance(appliance) => network.appliances[appliance].node,
            Terminal::Node(node) => node,
        };
        for (index, sensor) in network.power_sensors.iter().enumerate() {
            parts[area_of_node[node_of(sensor.terminal)]].power_sensors.push(index);
        }
        for (index, sensor) in network.current_sensors.iter().enumerate() {
            parts[area_of_node[node_of(sensor.terminal)]].current_sensors.push(index);
        }
        Ok(Self {
            paths: paths.into_iter().map(str::to_owned).collect(),
            parents,
            parts,
            area_of_node,
            crossings,
        })
    }

    /// Paths of the areas, the lowest level first.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Index of the area above.
    pub fn parent(&self, area: usize) -> Option<usize> {
        self.parents.get(area).copied().flatten()
    }

    /// Index of the area that a node belongs to.
    pub fn area_of_node(&self, node: usize) -> Option<usize> {
        self.area_of_node.get(node).copied()
    }

    /// How each area is entered as the switches stand.
    pub fn entrances(&self, network: &Network) -> Vec<Entrance> {
        let before = |path: &String| if path.contains('/') { Entrance::Open } else { Entrance::Top };
        let mut entrances: Vec<Entrance> = self.paths.iter().map(before).collect();
        for &index in &self.crossings {
            let (above, below) = self.ends(network, index);
            if !network.branches[index].is_closed() {
                continue;
            }
            let refusal = match entrances[below] {
                _ if self.parents[below] != Some(above) => Some(self.not_the_parent(network, index)),
                Entrance::Branch(first) => Some(self.second_entrance(network, first, index)),
                Entrance::Refused(_) => continue,
                Entrance::Top | Entrance::Open => None,
            };
            match refusal {
                // whichever of the two is estimated, what flows to the other is not known to it
                Some(refusal) => {
                    entrances[above] = Entrance::Refused(refusal.clone());
                    entrances[below] = Entrance::Refused(refusal);
                }
                None => entrances[below] = Entrance::Branch(index),
            }
        }
        entrances
    }

    fn ends(&self, network: &Network, branch: usize) -> (usize, usize) {
        let branch = &network.branches[branch];
        (self.area_of_node[branch.from], self.area_of_node[branch.to])
    }

    /// The first closed branch that breaks the rule.
    fn first_refusal(&self, network: &Network) -> Option<GridError> {
        let mut entrance: HashMap<usize, usize> = HashMap::new();
        self.crossings
            .iter()
            .filter(|&&index| network.branches[index].is_closed())
            .find_map(|&index| {
                let (above, below) = self.ends(network, index);
                if self.parents[below] != Some(above) {
                    return Some(self.not_the_parent(network, index));
                }
                let first = entrance.insert(below, index)?;
                Some(self.second_entrance(network, first, index))
            })
    }

    fn not_the_parent(&self, network: &Network, branch: usize) -> GridError {
        let (above, below) = self.ends(network, branch);
        let reason = format!(
            "branch {} enters it from {}, which is not its parent; its from end belongs into the parent",
            network.branches[branch].id, self.paths[above]
        );
        refused(&self.paths[below], reason)
    }

    fn second_entrance(&self, network: &Network, first: usize, second: usize) -> GridError {
        let reason = format!(
            "branches {} and {} both enter it; open one, or make one area of the two",
            network.branches[first].id, network.branches[second].id
        );
        refused(&self.paths[self.ends(network, second).1], reason)
    }

    /// Copies what belongs to one area. An area with [`Entrance::Open`] or [`Entrance::Refused`] has no source in the place of the grid
    /// above; areas below it that are not entered by one branch are left out.
    ///
    /// # Panics
    /// If `area` is not below the number of [`Self::paths`], or `entrances` are another layout's.
    pub fn cut(&self, network: &Network, entrances: &[Entrance], area: usize) -> Area {
        let entered_by = |area: usize| match entrances[area] {
            Entrance::Branch(branch) => Some(branch),
            _ => None,
        };
        let parts = &self.parts[area];
        let children: Vec<(usize, usize)> = parts
            .branches
            .iter()
            .map(|&branch| (self.area_of_node[network.branches[branch].to], branch))
            .filter(|&(below, branch)| below != area && entered_by(below) == Some(branch))
            .collect();
        let mut cut = cut(network, self, area, entered_by(area), children);
        cut.parent = self.parents[area];
        cut
    }
}

/// Copies what belongs to one area.
fn cut(network: &Network, layout: &Layout, index: usize, entrance: Option<usize>, mut children: Vec<(usize, usize)>) -> Area {
    // by index, as areas are
    children.sort_unstable();
    let parts = &layout.parts[index];
    let mut part = Network::default();
    let mut place: HashMap<usize, usize> = HashMap::new();
    let mut nodes = Vec::new();
    let child_roots = children.iter().map(|&(_, branch)| network.branches[branch].to);
    for node in parts.nodes.iter().copied().chain(child_roots) {
        place.insert(node, nodes.len());
        part.references.insert(network.nodes[node].id, Reference::Node(nodes.len()));
        part.nodes.push(network.nodes[node]);
        nodes.push(node);
    }
    let place_of = |node: usize| place.get(&node).copied().unwrap_or(0);
    let is_own = |node: usize| layout.area_of_node[node] == index;
    let mut branch_place: HashMap<usize, usize> = HashMap::new();
    for &at in &parts.branches {
        let mut branch = network.branches[at].clone();
        let Some(&to) = place.get(&branch.to) else { continue };
        branch_place.insert(at, part.branches.len());
        part.references.insert(branch.id, Reference::Branch(part.branches.len()));
        (branch.from, branch.to) = (place_of(branch.from), to);
        part.branches.push(branch);
    }
    let mut source_place: HashMap<usize, usize> = HashMap::new();
    for &at in &parts.sources {
        let source = &network.sources[at];
        source_place.insert(at, part.sources.len());
        part.references.insert(source.id, Reference::Source(part.sources.len()));
        part.sources.push(Source {
            node: place_of(source.node),
            ..*source
        });
    }
    let mut appliance_place: HashMap<usize, usize> = HashMap::new();
    for &at in &parts.appliances {
        let mut appliance = network.appliances[at];
        appliance_place.insert(at, part.appliances.len());
        part.references.insert(appliance.id, Reference::Appliance(part.appliances.len()));
        appliance.node = place_of(appliance.node);
        part.appliances.push(appliance);
    }
    let mut shunt_place: HashMap<usize, usize> = HashMap::new();
    for &at in &parts.shunts {
        let mut shunt = network.shunts[at];
        shunt_place.insert(at, part.shunts.len());
        part.references.insert(shunt.id, Reference::Shunt(part.shunts.len()));
        shunt.node = place_of(shunt.node);
        part.shunts.push(shunt);
    }
    let entrance_source = entrance.map(|branch| {
        let id = stand_in_id(network, index);
        part.references.insert(id, Reference::Source(part.sources.len()));
        part.sources.push(Source {
            id,
            node: place_of(network.branches[branch].to),
            connected: true,
            u_ref_pu: 1.0,
            u_ref_angle_rad: 0.0,
            sk_va: 1e10,
            rx_ratio: 0.1,
            z01_ratio: 1.0,
        });
        part.sources.len() - 1
    });
    for &at in &parts.voltage_sensors {
        let mut sensor = network.voltage_sensors[at];
        part.references
            .insert(sensor.id, Reference::VoltageSensor(part.voltage_sensors.len()));
        sensor.node = place_of(sensor.node);
        part.voltage_sensors.push(sensor);
    }
    let terminal = |terminal: Terminal| match terminal {
        Terminal::BranchFrom(branch) => branch_place.get(&branch).copied().map(Terminal::BranchFrom),
        Terminal::BranchTo(branch) if entrance == Some(branch) => entrance_source.map(Terminal::Source),
        Terminal::BranchTo(branch) => branch_place.get(&branch).copied().map(Terminal::BranchTo),
        Terminal::Source(source) => source_place.get(&source).copied().map(Terminal::Source),
        Terminal::Shunt(shunt) => shunt_place.get(&shunt).copied().map(Terminal::Shunt),
        Terminal::Appliance(appliance) => appliance_place.get(&appliance).copied().map(Terminal::Appliance),
        Terminal::Node(node) => place.get(&node).copied().filter(|_| is_own(node)).map(Terminal::Node),
    };
    for sensor in parts.power_sensors.iter().map(|&at| &network.power_sensors[at]) {
        let Some(at) = terminal(sensor.terminal) else { continue };
        part.references.insert(sensor.id, Reference::PowerSensor(part.power_sensors.len()));
        let turned = matches!((sensor.terminal, at), (Terminal::BranchTo(_), Terminal::Source(_)));
        part.power_sensors.push(PowerSensor {
            terminal: at,
            // out of the branch is into the area
            p_w: if turned { negated(sensor.p_w) } else { sensor.p_w },
            q_var: if turned { negated(sensor.q_var) } else { sensor.q_var },
            ..*sensor
        });
    }
    for &at in &parts.current_sensors {
        let mut sensor = network.current_sensors[at];
        // a current at the entrance has no terminal in the area's own network
        let Some(at @ (Terminal::BranchFrom(_) | Terminal::BranchTo(_))) = terminal(sensor.terminal) else {
            continue;
        };
        part.references
            .insert(sensor.id, Reference::CurrentSensor(part.current_sensors.len()));
        sensor.terminal = at;
        part.current_sensors.push(sensor);
    }
    let root = match entrance {
        Some(branch) => place_of(network.branches[branch].to),
        None => part.sources.first().map_or(0, |source| source.node),
    };
    let children = children
        .iter()
        .map(|&(child, branch)| (child, place_of(network.branches[branch].to)))
        .collect();
    Area {
        path: layout.paths[index].clone(),
        network: part,
        root,
        children,
        parent: None,
        nodes,
        appliances: parts.appliances.clone(),
        entrance,
    }
}

fn negated(x: PerPhase) -> PerPhase {
    match x {
        PerPhase::Symmetric(x) => PerPhase::Symmetric(-x),
        PerPhase::Phases(x) => PerPhase::Phases(x.map(|x| -x)),
    }
}

/// An id that no component has.
fn stand_in_id(network: &Network, index: usize) -> ComponentId {
    let mut id = ComponentId::MIN + index as ComponentId;
    while network.references.contains_key(&id) {
        id += 1;
    }
    id
}
