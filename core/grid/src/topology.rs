//! What hangs together: islands, what has supply, and whether it is radial.

use crate::network::{Network, Source};

/// One part of the grid that is connected and has at least one source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Island {
    /// Index of the node of its first source: the root of all its paths, and its reference of angles.
    pub root: usize,
    /// How many nodes it has.
    pub n_nodes: usize,
    /// How many independent loops it has; parallel branches make one each. None of them: it is radial.
    pub n_loops: usize,
    /// How many sources feed it.
    pub n_sources: usize,
}

impl Island {
    /// Whether every node has exactly one path to the root.
    pub fn is_radial(&self) -> bool {
        self.n_loops == 0
    }
}

/// The connections of a network as its switches stand now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    islands: Vec<Island>,
    island_of_node: Vec<Option<u32>>,
    /// Branches at each node: `(branch, other node)` of all closed branches, from `start[node]` to `start[node + 1]`.
    start: Vec<u32>,
    neighbours: Vec<(u32, u32)>,
}

impl Topology {
    /// Walks the closed branches from every connected source.
    pub fn new(network: &Network) -> Self {
        let n = network.nodes.len();
        let (start, neighbours) = adjacency(network);
        let mut topology = Self {
            islands: Vec::new(),
            island_of_node: vec![None; n],
            start,
            neighbours,
        };
        for source in network.sources.iter().filter(|source| source.connected) {
            topology.visit(source);
        }
        topology
    }

    fn visit(&mut self, source: &Source) {
        if let Some(island) = self.island_of_node[source.node] {
            self.islands[island as usize].n_sources += 1;
            return;
        }
        let island = self.islands.len() as u32;
        let (mut n_nodes, mut n_ends) = (0, 0);
        let mut to_visit = vec![source.node];
        self.island_of_node[source.node] = Some(island);
        while let Some(node) = to_visit.pop() {
            n_nodes += 1;
            for at in self.start[node]..self.start[node + 1] {
                n_ends += 1;
                let other = self.neighbours[at as usize].1 as usize;
                if self.island_of_node[other].is_none() {
                    self.island_of_node[other] = Some(island);
                    to_visit.push(other);
                }
            }
        }
        self.islands.push(Island {
            root: source.node,
            n_nodes,
            n_loops: n_ends / 2 + 1 - n_nodes,
            n_sources: 1,
        });
    }

    /// How many nodes the network has, with supply or without.
    pub(crate) fn n_nodes(&self) -> usize {
        self.island_of_node.len()
    }

    /// Parts with supply.
    pub fn islands(&self) -> &[Island] {
        &self.islands
    }

    /// Index of the island a node belongs to; `None` without supply.
    pub fn island_of(&self, node: usize) -> Option<usize> {
        self.island_of_node.get(node).copied().flatten().map(|island| island as usize)
    }

    /// Whether a node has supply.
    pub fn is_energised(&self, node: usize) -> bool {
        self.island_of(node).is_some()
    }

    /// Closed branches at a node with the node at their other end.
    pub fn neighbours(&self, node: usize) -> impl Iterator<Item = (usize, usize)> {
        let range = self.start[node] as usize..self.start[node + 1] as usize;
        self.neighbours[range]
            .iter()
            .map(|&(branch, other)| (branch as usize, other as usize))
    }
}

/// Closed branches by node, as one flat list and where each node's part starts.
fn adjacency(network: &Network) -> (Vec<u32>, Vec<(u32, u32)>) {
    let mut start = vec![0_u32; network.nodes.len() + 1];
    let closed = || network.branches.iter().enumerate().filter(|(_, branch)| branch.is_closed());
    for (_, branch) in closed() {
        start[branch.from + 1] += 1;
        start[branch.to + 1] += 1;
    }
    for node in 0..network.nodes.len() {
        start[node + 1] += start[node];
    }
    let mut next = start.clone();
    let mut neighbours = vec![(0, 0); start.last().copied().unwrap_or(0) as usize];
    for (index, branch) in closed() {
        for (node, other) in [(branch.from, branch.to), (branch.to, branch.from)] {
            neighbours[next[node] as usize] = (index as u32, other as u32);
            next[node] += 1;
        }
    }
    (start, neighbours)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network of nodes 0.. with links `(from, to, closed)` and sources at the given nodes.
    fn network(n_nodes: usize, links: &[(usize, usize, bool)], sources: &[usize]) -> Network {
        let nodes = (0..n_nodes)
            .map(|id| format!(r#"{{"id":{id},"u_rated":400}}"#))
            .collect::<Vec<_>>()
            .join(",");
        let links = links
            .iter()
            .enumerate()
            .map(|(k, (from, to, closed))| {
                format!(
                    r#"{{"id":{},"from_node":{from},"to_node":{to},"from_status":1,"to_status":{}}}"#,
                    100 + k,
                    u8::from(*closed)
                )
            })
            .collect::<Vec<_>>()
            .join(",");
        let sources = sources
            .iter()
            .enumerate()
            .map(|(k, node)| format!(r#"{{"id":{},"node":{node},"status":1,"u_ref":1}}"#, 200 + k))
            .collect::<Vec<_>>()
            .join(",");
        Network::from_pgm_json(&format!(
            r#"{{"type":"input","data":{{"node":[{nodes}],"link":[{links}],"source":[{sources}]}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn islands_loops_and_supply_are_told_apart() {
        let topology = Topology::new(&network(
            7,
            &[(0, 1, true), (1, 2, true), (2, 0, true), (2, 3, false), (4, 5, true), (4, 5, true)],
            &[0, 2, 5],
        ));
        let islands: Vec<_> = topology
            .islands()
            .iter()
            .map(|i| (i.root, i.n_nodes, i.n_loops, i.n_sources))
            .collect();
        assert_eq!(islands, [(0, 3, 1, 2), (5, 2, 1, 1)]);
        assert!(!topology.islands()[0].is_radial());
        assert_eq!(
            (topology.island_of(4), topology.is_energised(3), topology.is_energised(6)),
            (Some(1), false, false)
        );
        assert_eq!(topology.neighbours(1).map(|(_, other)| other).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_grid_without_source_or_nodes_has_no_island() {
        assert!(Topology::new(&network(2, &[(0, 1, true)], &[])).islands().is_empty());
        assert!(Topology::new(&Network::default()).islands().is_empty());
    }
}
