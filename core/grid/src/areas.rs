//! One grid cut into areas that are estimated by themselves.
//!
//! The rule (grid bundle, `areas.csv`): every area below a top one is entered from its parent by exactly one closed branch, whose to end
//! is the root of the lower area and belongs to it. The parent's network contains that branch and, behind it, the root as a node of which
//! it knows nothing but what the area says ([`crate::estimation::Estimator::set_boundary`]). The area's network has a source at its root
//! in the place of everything above.

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
    /// For each node of the area's network: its index in the whole network.
    pub nodes: Vec<usize>,
}

/// Cuts a network into areas; `path_of_node` gives each node's area.
///
/// Areas come with the lowest level first, so that a pass over them meets every area before its parent.
///
/// # Errors
/// [`GridError::Area`] for an area that does not keep the rule.
pub fn split(network: &Network, path_of_node: &[&str]) -> Result<Vec<Area>, GridError> {
    let refused = |area: &str, reason: String| GridError::Area {
        area: area.to_owned(),
        reason,
    };
    if path_of_node.len() != network.nodes.len() {
        return Err(refused(
            "",
            format!("{} nodes have an area, the network has {}", path_of_node.len(), network.nodes.len()),
        ));
    }
    let mut paths: Vec<&str> = path_of_node.to_vec();
    paths.sort_unstable_by_key(|path| (std::cmp::Reverse(path.matches('/').count()), *path));
    paths.dedup();
    let index_of = |path: &str| paths.iter().position(|&other| other == path);
    let area_of: Vec<usize> = path_of_node.iter().filter_map(|path| index_of(path)).collect();
    // the closed branch that enters each area
    let mut entrance: Vec<Option<usize>> = vec![None; paths.len()];
    for (index, branch) in network.branches.iter().enumerate().filter(|(_, branch)| branch.is_closed()) {
        let (above, below) = (area_of[branch.from], area_of[branch.to]);
        if above == below {
            continue;
        }
        let expected = paths[below].rsplit_once('/').map(|(parent, _)| parent);
        if expected != Some(paths[above]) {
            return Err(refused(
                paths[below],
                format!(
                    "branch {} enters it from {}, which is not its parent; its from end belongs into the parent",
                    branch.id, paths[above]
                ),
            ));
        }
        if let Some(first) = entrance[below].replace(index) {
            return Err(refused(
                paths[below],
                format!(
                    "branches {} and {} both enter it; open one, or make one area of the two",
                    network.branches[first].id, branch.id
                ),
            ));
        }
    }
    let mut areas = Vec::new();
    for (index, &path) in paths.iter().enumerate() {
        let is_top = !path.contains('/');
        if !is_top && entrance[index].is_none() {
            return Err(refused(path, "no closed branch enters it from its parent".to_owned()));
        }
        let children: Vec<(usize, usize)> = (0..paths.len())
            .filter_map(|child| entrance[child].map(|branch| (child, branch)))
            .filter(|&(_, branch)| area_of[network.branches[branch].from] == index)
            .collect();
        areas.push(cut(network, index, path, &area_of, entrance[index], &children));
    }
    for index in 0..areas.len() {
        for (child, _) in areas[index].children.clone() {
            areas[child].parent = Some(index);
        }
    }
    Ok(areas)
}

/// Copies what belongs to one area.
fn cut(network: &Network, index: usize, path: &str, area_of: &[usize], entrance: Option<usize>, children: &[(usize, usize)]) -> Area {
    let mut part = Network::default();
    let mut place: Vec<Option<usize>> = vec![None; network.nodes.len()];
    let mut nodes = Vec::new();
    let child_roots = children.iter().map(|&(_, branch)| network.branches[branch].to);
    let own = (0..network.nodes.len()).filter(|&node| area_of[node] == index);
    for node in own.chain(child_roots) {
        place[node] = Some(nodes.len());
        part.references.insert(network.nodes[node].id, Reference::Node(nodes.len()));
        part.nodes.push(network.nodes[node]);
        nodes.push(node);
    }
    let is_own = |node: usize| area_of[node] == index;
    let mut branch_place: Vec<Option<usize>> = vec![None; network.branches.len()];
    for (at, branch) in network.branches.iter().enumerate() {
        let (Some(from), Some(to)) = (place[branch.from], place[branch.to]) else {
            continue;
        };
        if !is_own(branch.from) {
            continue;
        }
        branch_place[at] = Some(part.branches.len());
        part.references.insert(branch.id, Reference::Branch(part.branches.len()));
        let mut branch = branch.clone();
        (branch.from, branch.to) = (from, to);
        part.branches.push(branch);
    }
    let mut source_place = vec![None; network.sources.len()];
    for (at, source) in network.sources.iter().enumerate().filter(|(_, source)| is_own(source.node)) {
        source_place[at] = Some(part.sources.len());
        part.references.insert(source.id, Reference::Source(part.sources.len()));
        part.sources.push(Source {
            node: place[source.node].unwrap_or(0),
            ..*source
        });
    }
    let mut appliance_place = vec![None; network.appliances.len()];
    for (at, appliance) in network
        .appliances
        .iter()
        .enumerate()
        .filter(|(_, appliance)| is_own(appliance.node))
    {
        appliance_place[at] = Some(part.appliances.len());
        part.references.insert(appliance.id, Reference::Appliance(part.appliances.len()));
        let mut appliance = *appliance;
        appliance.node = place[appliance.node].unwrap_or(0);
        part.appliances.push(appliance);
    }
    let mut shunt_place = vec![None; network.shunts.len()];
    for (at, shunt) in network.shunts.iter().enumerate().filter(|(_, shunt)| is_own(shunt.node)) {
        shunt_place[at] = Some(part.shunts.len());
        part.references.insert(shunt.id, Reference::Shunt(part.shunts.len()));
        let mut shunt = *shunt;
        shunt.node = place[shunt.node].unwrap_or(0);
        part.shunts.push(shunt);
    }
    let entrance_source = entrance.map(|branch| {
        let root = network.branches[branch].to;
        let id = stand_in_id(network, index);
        part.references.insert(id, Reference::Source(part.sources.len()));
        part.sources.push(Source {
            id,
            node: place[root].unwrap_or(0),
            connected: true,
            u_ref_pu: 1.0,
            u_ref_angle_rad: 0.0,
            sk_va: 1e10,
            rx_ratio: 0.1,
            z01_ratio: 1.0,
        });
        part.sources.len() - 1
    });
    for sensor in network.voltage_sensors.iter().filter(|sensor| is_own(sensor.node)) {
        part.references
            .insert(sensor.id, Reference::VoltageSensor(part.voltage_sensors.len()));
        let mut sensor = *sensor;
        sensor.node = place[sensor.node].unwrap_or(0);
        part.voltage_sensors.push(sensor);
    }
    let terminal = |terminal: Terminal| match terminal {
        Terminal::BranchFrom(branch) => branch_place[branch]
            .filter(|_| is_own(network.branches[branch].from))
            .map(Terminal::BranchFrom),
        Terminal::BranchTo(branch) if entrance == Some(branch) => entrance_source.map(Terminal::Source),
        Terminal::BranchTo(branch) => branch_place[branch]
            .filter(|_| is_own(network.branches[branch].to))
            .map(Terminal::BranchTo),
        Terminal::Source(source) => source_place[source].map(Terminal::Source),
        Terminal::Shunt(shunt) => shunt_place[shunt].map(Terminal::Shunt),
        Terminal::Appliance(appliance) => appliance_place[appliance].map(Terminal::Appliance),
        Terminal::Node(node) => place[node].filter(|_| is_own(node)).map(Terminal::Node),
    };
    for sensor in &network.power_sensors {
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
    for sensor in &network.current_sensors {
        // a current at the entrance has no terminal in the area's own network
        let Some(at @ (Terminal::BranchFrom(_) | Terminal::BranchTo(_))) = terminal(sensor.terminal) else {
            continue;
        };
        part.references
            .insert(sensor.id, Reference::CurrentSensor(part.current_sensors.len()));
        let mut sensor = *sensor;
        sensor.terminal = at;
        part.current_sensors.push(sensor);
    }
    let root = match entrance {
        Some(branch) => place[network.branches[branch].to].unwrap_or(0),
        None => part.sources.first().map_or(0, |source| source.node),
    };
    let children = children
        .iter()
        .map(|&(child, branch)| (child, place[network.branches[branch].to].unwrap_or(0)))
        .collect();
    Area {
        path: path.to_owned(),
        network: part,
        root,
        children,
        parent: None,
        nodes,
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
