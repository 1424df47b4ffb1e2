//! The tree that hangs on the head: what the measured currents flow into.

use std::collections::HashMap;

use super::{Head, LineFacts};
use crate::error::GridError;
use crate::model::{C64, TwoPort, shunt_admittance, two_port};
use crate::network::{Branch, BranchKind, ComponentId, Network};
use crate::topology::Topology;

/// Index of the head in the tree.
pub(super) const HEAD: usize = 0;

/// A node of the tree with the branch that leads to it.
#[derive(Debug, Clone)]
pub(super) struct TreeNode {
    /// Index of the node; none at the open end of a line.
    pub(super) node: Option<usize>,
    /// Where it hangs; the head's own index for the head.
    pub(super) parent: usize,
    /// Index of the branch from there; none for the head.
    pub(super) branch: Option<usize>,
    /// That branch, from the parent (`f`) to here (`t`).
    pub(super) two_port: TwoPort<3>,
    /// Whether a fault can sit anywhere along the branch.
    pub(super) is_line: bool,
    /// Phases that are there.
    pub(super) phases: [bool; 3],
    /// Length of the lines from the head, m; none where one is not known.
    pub(super) distance_m: Option<f64>,
    /// Positive-sequence impedance from the head, ohm at the head's voltage.
    pub(super) distance_ohm: f64,
    /// Rated voltage, V.
    pub(super) u_rated_v: f64,
}

/// The tree, parents before children; the head comes first.
#[derive(Debug, Clone)]
pub(super) struct Feeder {
    pub(super) nodes: Vec<TreeNode>,
    /// Index in the tree of each node in it.
    pub(super) tree_index: HashMap<usize, usize>,
    /// Whether what hangs at the head node itself is part of what is measured.
    pub(super) measures_head_node: bool,
    /// Admittances of the shunts by index in the tree.
    pub(super) shunts: Vec<[C64; 3]>,
}

impl Feeder {
    /// Walks from the head away from the sources.
    ///
    /// # Errors
    /// [`GridError::FaultRecord`] where the head is not in the network, or what hangs on it is empty, has a loop or another source.
    pub(super) fn new(network: &Network, head: Head, lines: &HashMap<ComponentId, LineFacts>) -> Result<Self, GridError> {
        check_facts(network, lines)?;
        let head_node = network.node_index(head.node).ok_or_else(|| GridError::FaultRecord {
            field: "head.node",
            reason: format!(
                "{} names no node of the network; give the id of the node whose voltage is measured",
                head.node
            ),
        })?;
        let topology = Topology::new(network);
        let first = first_branches(network, &topology, head, head_node)?;
        let zero = [C64::ZERO; 3];
        let mut feeder = Self {
            nodes: vec![TreeNode {
                node: Some(head_node),
                parent: HEAD,
                branch: None,
                two_port: TwoPort {
                    ff: zero,
                    ft: zero,
                    tf: zero,
                    tt: zero,
                },
                is_line: false,
                phases: [true; 3],
                distance_m: Some(0.0),
                distance_ohm: 0.0,
                u_rated_v: network.nodes[head_node].u_rated_v,
            }],
            tree_index: HashMap::from([(head_node, HEAD)]),
            measures_head_node: head.branch.is_none(),
            shunts: Vec::new(),
        };
        let stubs = open_ended(network);
        let no_stubs = Vec::new();
        for &(branch, other) in &first {
            feeder.hang(network, lines, HEAD, branch, other)?;
        }
        let mut at = 1;
        while at < feeder.nodes.len() {
            let (node, own_branch) = (feeder.nodes[at].node, feeder.nodes[at].branch);
            if let Some(node) = node {
                for (branch, other) in topology.neighbours(node) {
                    if Some(branch) != own_branch {
                        feeder.hang(network, lines, at, branch, Some(other))?;
                    }
                }
                for &branch in stubs.get(&node).unwrap_or(&no_stubs) {
                    feeder.hang(network, lines, at, branch, None)?;
                }
            }
            at += 1;
        }
        feeder.refuse_sources(network)?;
        feeder.add_shunts(network)?;
        Ok(feeder)
    }

    fn hang(
        &mut self,
        network: &Network,
        lines: &HashMap<ComponentId, LineFacts>,
        parent: usize,
        index: usize,
        other: Option<usize>,
    ) -> Result<(), GridError> {
        let branch = &network.branches[index];
        if let Some(other) = other {
            if self.tree_index.contains_key(&other) {
                return Err(GridError::FaultRecord {
                    field: "head",
                    reason: format!(
                        "the feeder has a loop through {} {} at node {}; fault location needs a radial feeder, open a switch of the loop",
                        branch.kind.component(),
                        branch.id,
                        network.nodes[other].id,
                    ),
                });
            }
            self.tree_index.insert(other, self.nodes.len());
        }
        let above = &self.nodes[parent];
        let whole = Branch {
            from_closed: true,
            to_closed: true,
            ..branch.clone()
        };
        let y = two_port::<3>(network, &whole)?;
        let starts_at_from = above.node == Some(branch.from);
        let two_port = match starts_at_from {
            true => y,
            false => TwoPort {
                ff: y.tt,
                ft: y.tf,
                tf: y.ft,
                tt: y.ff,
            },
        };
        let facts = lines.get(&branch.id);
        let is_line = matches!(branch.kind, BranchKind::Line(_));
        let far = if starts_at_from { branch.to } else { branch.from };
        let u_rated_v = network.nodes[far].u_rated_v;
        let length_m = match is_line {
            true => facts.and_then(|facts| facts.length_m),
            false => Some(0.0),
        };
        // ohm at the far side, as a transformer's impedance counts, seen from the head
        let z_pu = match branch.kind {
            BranchKind::Link => 0.0,
            _ => y.tf[1].norm().recip(),
        };
        let head_u_v = self.nodes[HEAD].u_rated_v;
        self.nodes.push(TreeNode {
            node: other,
            parent,
            branch: Some(index),
            two_port,
            is_line,
            phases: match facts.and_then(|facts| facts.phases) {
                Some(phases) => phases,
                // a transformer makes phases of its own
                None if matches!(branch.kind, BranchKind::Transformer(_)) => [true; 3],
                None => above.phases,
            },
            distance_m: above.distance_m.zip(length_m).map(|(above, length)| above + length),
            distance_ohm: above.distance_ohm + z_pu * head_u_v * head_u_v / crate::BASE_POWER_VA,
            u_rated_v,
        });
        Ok(())
    }

    fn refuse_sources(&self, network: &Network) -> Result<(), GridError> {
        let inside = |node: usize| self.tree_index.get(&node).is_some_and(|&at| at != HEAD);
        match network.sources.iter().find(|source| source.connected && inside(source.node)) {
            None => Ok(()),
            Some(source) => Err(GridError::FaultRecord {
                field: "head",
                reason: format!(
                    "source {} feeds from beyond the head; measure between the source and the fault, or disconnect it",
                    source.id
                ),
            }),
        }
    }

    fn add_shunts(&mut self, network: &Network) -> Result<(), GridError> {
        self.shunts = vec![[C64::ZERO; 3]; self.nodes.len()];
        for shunt in network.shunts.iter().filter(|shunt| shunt.connected) {
            if let Some(at) = self.appliance_index(shunt.node) {
                let y = shunt_admittance::<3>(shunt, network.nodes[shunt.node].u_rated_v)?;
                crate::admittance::add(&mut self.shunts[at], &y);
            }
        }
        Ok(())
    }

    /// Index in the tree of a node whose loads are part of what is measured.
    pub(super) fn appliance_index(&self, node: usize) -> Option<usize> {
        let at = self.tree_index.get(&node).copied()?;
        (at != HEAD || self.measures_head_node).then_some(at)
    }

    /// Whether a node of the tree is another one or hangs below it.
    pub(super) fn is_below(&self, mut at: usize, above: usize) -> bool {
        // parents have smaller indices
        while at > above {
            at = self.nodes[at].parent;
        }
        at == above
    }

    /// The lowest node of the tree that all of some nodes hang on.
    pub(super) fn lowest_common(&self, nodes: impl Iterator<Item = usize>) -> Option<usize> {
        nodes.reduce(|mut a, mut b| {
            while a != b {
                match a > b {
                    true => a = self.nodes[a].parent,
                    false => b = self.nodes[b].parent,
                }
            }
            a
        })
    }
}

fn check_facts(network: &Network, lines: &HashMap<ComponentId, LineFacts>) -> Result<(), GridError> {
    let mut ids: Vec<_> = lines.iter().collect();
    ids.sort_unstable_by_key(|(id, _)| **id);
    for (&id, facts) in ids {
        if network.branch_index(id).is_none() {
            return Err(GridError::FaultRecord {
                field: "lines.branch_id",
                reason: format!("{id} names no branch of the network; give the id of a line, link or transformer"),
            });
        }
        if let Some(length_m) = facts.length_m.filter(|length| !(*length >= 0.0 && length.is_finite())) {
            return Err(GridError::FaultRecord {
                field: "lines.length_m",
                reason: format!("{length_m} of branch {id} is no length; give metres, not negative"),
            });
        }
    }
    Ok(())
}

/// Lines that are closed at one end only, by the node of that end.
fn open_ended(network: &Network) -> HashMap<usize, Vec<usize>> {
    let mut at_node: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, branch) in network.branches.iter().enumerate() {
        let node = match (branch.from_closed, branch.to_closed) {
            (true, false) => branch.from,
            (false, true) => branch.to,
            _ => continue,
        };
        if matches!(branch.kind, BranchKind::Line(_)) {
            at_node.entry(node).or_default().push(index);
        }
    }
    at_node
}

/// The branches whose current is measured, each with the node at its other end.
fn first_branches(network: &Network, topology: &Topology, head: Head, head_node: usize) -> Result<Vec<(usize, Option<usize>)>, GridError> {
    let Some(id) = head.branch else {
        let first: Vec<_> = topology
            .neighbours(head_node)
            .filter(|&(_, other)| !leads_to_source(network, topology, head_node, other))
            .map(|(branch, other)| (branch, Some(other)))
            .collect();
        return match first.is_empty() {
            false => Ok(first),
            true => Err(GridError::FaultRecord {
                field: "head.node",
                reason: format!(
                    "no closed branch leads from node {} away from the sources; give the node that feeds the feeder",
                    head.node
                ),
            }),
        };
    };
    let index = network.branch_index(id).ok_or_else(|| GridError::FaultRecord {
        field: "head.branch",
        reason: format!("{id} names no branch of the network; give the id of the branch whose current is measured, or leave it out"),
    })?;
    let branch = &network.branches[index];
    let other = match (branch.from == head_node, branch.to == head_node) {
        (true, _) => branch.to,
        (_, true) => branch.from,
        _ => {
            return Err(GridError::FaultRecord {
                field: "head.branch",
                reason: format!(
                    "{id} does not end at node {}; give the first branch of the feeder, seen from that node",
                    head.node
                ),
            });
        }
    };
    match branch.is_closed() {
        true => Ok(vec![(index, Some(other))]),
        false => Err(GridError::FaultRecord {
            field: "head.branch",
            reason: format!("{id} is open in the network; close it, or give the branch that carried the current"),
        }),
    }
}

fn leads_to_source(network: &Network, topology: &Topology, head: usize, first: usize) -> bool {
    let mut visited = std::collections::HashSet::from([head, first]);
    let mut to_visit = vec![first];
    while let Some(node) = to_visit.pop() {
        if network.sources.iter().any(|source| source.connected && source.node == node) {
            return true;
        }
        to_visit.extend(
            topology
                .neighbours(node)
                .map(|(_, other)| other)
                .filter(|&other| visited.insert(other)),
        );
    }
    false
}
