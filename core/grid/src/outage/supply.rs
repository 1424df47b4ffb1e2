//! How the grid is supplied now: the tree of supply, what closes loops in it, and the points that tell about it.

use serde::{Deserialize, Serialize};

use std::collections::{BTreeMap, BTreeSet};

use super::Micros;
use crate::network::{ComponentId, Network};

/// A metering point of one grid, numbered by whoever joins devices with the grid.
pub type PointId = u32;

/// A branch as the topology needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GridBranch {
    /// Its id.
    pub branch: ComponentId,
    /// Id of one node.
    pub from: ComponentId,
    /// Id of the other.
    pub to: ComponentId,
    /// Whether current can pass now.
    pub is_closed: bool,
}

/// A node that has supply, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SuppliedNode {
    /// Its id.
    pub node: ComponentId,
    /// Branches between it and the nearest source.
    pub depth: u32,
    /// The branch it is fed through and the node at the other end; `None` at a source.
    pub parent: Option<(ComponentId, ComponentId)>,
    /// The branch that leaves the source's node on the way here; `None` at a source.
    pub feeder: Option<ComponentId>,
}

/// What tells about the supply of a node: a customer's meter, a meter of the grid, an estimator that watches the voltage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MeteringPoint {
    /// Its number.
    pub point: PointId,
    /// Its node.
    pub node: ComponentId,
    /// Customers behind it; 0 for meters of the grid.
    pub n_customers: u32,
    /// Whether it sends a last gasp; if not, its silence says nothing until it is overdue.
    pub sends_gasps: bool,
    /// How often it sends a reading, µs of log time; `None`: nothing is expected, its silence never says anything.
    pub reading_interval_us: Option<Micros>,
}

/// One grid as it is supplied now. What has no path to a source (an open switch) is absent from `nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupplyMap {
    /// Nodes with supply.
    pub nodes: Vec<SuppliedNode>,
    /// Closed branches between supplied nodes that no node is fed through: each closes a loop, in which no single failure cuts anything off.
    pub chords: Vec<(ComponentId, ComponentId)>,
    /// All points, with supply or without.
    pub points: Vec<MeteringPoint>,
    /// Customers without a meter, by node.
    pub unmetered: Vec<(ComponentId, u32)>,
    /// How often a branch fails compared with others (length, age, kind); 1 where nothing is said.
    pub failure_weights: Vec<(ComponentId, u32)>,
}

impl SupplyMap {
    /// Walks the closed branches from the sources, breadth first. Of several ways, the one over the smallest branch id counts.
    ///
    /// The dataflow finds the same tree by `iterate`; this is for one grid at one moment.
    pub fn trace(branches: &[GridBranch], sources: &[ComponentId]) -> Self {
        let mut at: BTreeMap<ComponentId, Vec<(ComponentId, ComponentId)>> = BTreeMap::new();
        let closed = || branches.iter().filter(|branch| branch.is_closed && branch.from != branch.to);
        for branch in closed() {
            at.entry(branch.from).or_default().push((branch.branch, branch.to));
            at.entry(branch.to).or_default().push((branch.branch, branch.from));
        }
        let mut found: BTreeMap<ComponentId, SuppliedNode> = BTreeMap::new();
        let mut front: BTreeSet<ComponentId> = sources.iter().copied().collect();
        for &node in &front {
            let root = SuppliedNode {
                node,
                depth: 0,
                parent: None,
                feeder: None,
            };
            found.insert(node, root);
        }
        while !front.is_empty() {
            let mut next: BTreeMap<ComponentId, SuppliedNode> = BTreeMap::new();
            for node in &front {
                let Some(above) = found.get(node).copied() else { continue };
                for &(branch, other) in at.get(node).into_iter().flatten() {
                    if found.contains_key(&other) {
                        continue;
                    }
                    let reached = SuppliedNode {
                        node: other,
                        depth: above.depth + 1,
                        parent: Some((branch, *node)),
                        feeder: above.feeder.or(Some(branch)),
                    };
                    let best = next.entry(other).or_insert(reached);
                    *best = (*best).min(reached);
                }
            }
            front = next.keys().copied().collect();
            found.extend(next);
        }
        let is_fed_through = |branch: &GridBranch, node: ComponentId| {
            found
                .get(&node)
                .is_some_and(|node| node.parent.is_some_and(|(id, _)| id == branch.branch))
        };
        let chords = closed()
            .filter(|branch| found.contains_key(&branch.from) && found.contains_key(&branch.to))
            .filter(|branch| !is_fed_through(branch, branch.from) && !is_fed_through(branch, branch.to))
            .map(|branch| (branch.from, branch.to))
            .collect();
        Self {
            nodes: found.into_values().collect(),
            chords,
            ..Self::default()
        }
    }

    /// The supply of a network as its switches stand; points are added by the caller.
    pub fn of_network(network: &Network) -> Self {
        let nodes = network.nodes();
        let id = |index: usize| nodes.get(index).map_or(ComponentId::MIN, |node| node.id);
        let branches: Vec<GridBranch> = network
            .branches()
            .iter()
            .map(|branch| GridBranch {
                branch: branch.id,
                from: id(branch.from),
                to: id(branch.to),
                is_closed: branch.is_closed(),
            })
            .collect();
        let sources: Vec<ComponentId> = network.sources().iter().filter(|s| s.connected).map(|s| id(s.node)).collect();
        Self::trace(&branches, &sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(branch: ComponentId, from: ComponentId, to: ComponentId) -> GridBranch {
        GridBranch {
            branch,
            from,
            to,
            is_closed: true,
        }
    }

    #[test]
    fn a_ring_has_one_chord_and_the_feeder_is_the_branch_that_leaves_the_source() {
        let mut branches = [branch(10, 1, 2), branch(11, 2, 3), branch(12, 1, 4), branch(13, 4, 3)];
        let map = SupplyMap::trace(&branches, &[1]);
        let feeders: Vec<_> = map.nodes.iter().map(|n| (n.node, n.feeder)).collect();
        assert_eq!(feeders, [(1, None), (2, Some(10)), (3, Some(10)), (4, Some(12))]);
        assert_eq!(map.chords, [(4, 3)]);
        branches[1].is_closed = false;
        let map = SupplyMap::trace(&branches, &[1]);
        assert_eq!(map.nodes[2].feeder, Some(12));
        assert!(map.chords.is_empty());
        branches[3].is_closed = false;
        assert_eq!(SupplyMap::trace(&branches, &[1]).nodes.len(), 3);
        assert!(SupplyMap::trace(&branches, &[]).nodes.is_empty());
    }

    #[test]
    fn a_branch_from_a_node_to_itself_is_no_loop() {
        assert!(SupplyMap::trace(&[branch(1, 7, 7)], &[7]).chords.is_empty());
    }
}
