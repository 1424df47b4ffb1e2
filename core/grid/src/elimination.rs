//! In which order the nodes are eliminated, and what that fills in.
//!
//! Every system this crate solves has the pattern of the grid: one block for a node, one for each pair of connected nodes. Leaves go
//! first, so a tree fills in nothing and each node has one neighbour left when its turn comes, its parent. What remains when all
//! trees are gone, the nodes on loops, goes by smallest degree; there a node can have several neighbours left, and eliminating it
//! connects them with each other. The result is numbered level by level, the deepest first: children come before their parents, and
//! neighbours in memory do not wait for each other's results.

use std::collections::{BTreeSet, VecDeque};

use crate::error::GridError;
use crate::topology::Topology;

/// Most pairs of neighbours that eliminating the nodes on loops may connect: seconds of work. Distribution grids stay far below.
const N_PAIRS_MAX: usize = 5_000_000;

/// Stands for "no position": a node without supply, the parent of a root.
pub(crate) const NONE: u32 = u32::MAX;

/// The order and the pattern it leads to. A *position* is a node's place in the order; a *slot* is one pair (position, neighbour that
/// is eliminated later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elimination {
    /// Position of each node.
    pub(crate) position: Vec<u32>,
    /// Node at each position.
    pub(crate) node: Vec<u32>,
    /// Slots of position `i`: `start[i]..start[i + 1]`, by ascending neighbour.
    pub(crate) start: Vec<u32>,
    /// Slot to the position of the later neighbour.
    pub(crate) later: Vec<u32>,
    /// For each position with several slots, in order of positions: the slot between each pair of its later neighbours (0,1), (0,2), (1,2), …
    pub(crate) pair_slots: Vec<u32>,
    /// Where the pairs of a position start.
    pub(crate) pair_start: Vec<u32>,
    /// Earlier neighbours of each position as `(position, slot)`.
    pub(crate) earlier: Vec<(u32, u32)>,
    /// Where the earlier neighbours of a position start.
    pub(crate) earlier_start: Vec<u32>,
}

impl Elimination {
    /// Orders all nodes with supply; the root of an island is its last node.
    ///
    /// # Errors
    /// [`GridError::TooLarge`] for a grid so meshed that its elimination would fill in too much.
    pub(crate) fn new(topology: &Topology) -> Result<Self, GridError> {
        let n_nodes = topology.n_nodes();
        let mut is_root = vec![false; n_nodes];
        for island in topology.islands() {
            is_root[island.root] = true;
        }
        let (order, later) = eliminate(topology, &is_root)?;
        Ok(number(n_nodes, &order, &later))
    }

    pub(crate) fn len(&self) -> usize {
        self.node.len()
    }

    pub(crate) fn slots(&self, position: usize) -> std::ops::Range<usize> {
        self.start[position] as usize..self.start[position + 1] as usize
    }

    /// The first of the later neighbours: where a change at this position goes next.
    pub(crate) fn parent(&self, position: usize) -> Option<usize> {
        let slots = self.slots(position);
        (!slots.is_empty()).then(|| self.later[slots.start] as usize)
    }

    pub(crate) fn earlier(&self, position: usize) -> &[(u32, u32)] {
        &self.earlier[self.earlier_start[position] as usize..self.earlier_start[position + 1] as usize]
    }

    /// The slot that joins two positions.
    pub(crate) fn slot_between(&self, a: usize, b: usize) -> Option<usize> {
        let (first, second) = (a.min(b), a.max(b));
        let slots = self.slots(first);
        let found = self.later[slots.clone()].binary_search(&(second as u32)).ok()?;
        Some(slots.start + found)
    }

    /// The slot that eliminating `position` fills for its later neighbours number `a` < `b`.
    #[inline(always)]
    pub(crate) fn pair_slot(&self, position: usize, n_slots: usize, a: usize, b: usize) -> usize {
        let before = a * n_slots - a * (a + 1) / 2 + (b - a - 1);
        self.pair_slots[self.pair_start[position] as usize + before] as usize
    }
}

/// Nodes in the order of their elimination, and the neighbours each has left then.
type Order = (Vec<u32>, Vec<Vec<u32>>);

/// The order of elimination, and the neighbours each node has left then.
fn eliminate(topology: &Topology, is_root: &[bool]) -> Result<Order, GridError> {
    let n = is_root.len();
    let mut neighbours: Vec<Vec<u32>> = (0..n)
        .map(|node| {
            if !topology.is_energised(node) {
                return Vec::new();
            }
            let mut others: Vec<u32> = topology.neighbours(node).map(|(_, other)| other as u32).collect();
            others.sort_unstable();
            others.dedup();
            others
        })
        .collect();
    let mut gone: Vec<bool> = (0..n).map(|node| !topology.is_energised(node)).collect();
    let mut degree: Vec<usize> = neighbours.iter().map(Vec::len).collect();
    let (mut order, mut later) = (Vec::new(), Vec::new());

    // trees: leaf after leaf
    let mut leaves: VecDeque<usize> = (0..n).filter(|&node| !gone[node] && !is_root[node] && degree[node] == 1).collect();
    while let Some(leaf) = leaves.pop_front() {
        gone[leaf] = true;
        let parent = neighbours[leaf].iter().copied().find(|&other| !gone[other as usize]);
        order.push(leaf as u32);
        later.push(parent.into_iter().collect());
        if let Some(parent) = parent.map(|parent| parent as usize) {
            degree[parent] -= 1;
            if degree[parent] == 1 && !is_root[parent] {
                leaves.push_back(parent);
            }
        }
    }

    let mut n_pairs = 0;
    // loops: the node with the fewest neighbours left; the roots stay for the end
    let mut queue = BTreeSet::new();
    for node in (0..n).filter(|&node| !gone[node]) {
        neighbours[node].retain(|&other| !gone[other as usize]);
        queue.insert((is_root[node], neighbours[node].len(), node));
    }
    while let Some((_, _, node)) = queue.pop_first() {
        let left = std::mem::take(&mut neighbours[node]);
        n_pairs += left.len() * left.len();
        if n_pairs > N_PAIRS_MAX {
            return Err(GridError::TooLarge {
                what: "pairs of nodes that its loops connect while they are eliminated",
                n: n_pairs,
                n_max: N_PAIRS_MAX,
            });
        }
        for &other in &left {
            let other = other as usize;
            queue.remove(&(is_root[other], neighbours[other].len(), other));
            let mut joined: Vec<u32> = neighbours[other].iter().chain(&left).copied().collect();
            joined.sort_unstable();
            joined.dedup();
            joined.retain(|&it| it as usize != node && it as usize != other);
            neighbours[other] = joined;
            queue.insert((is_root[other], neighbours[other].len(), other));
        }
        order.push(node as u32);
        later.push(left);
    }
    Ok((order, later))
}

/// Numbers the nodes level by level, the deepest first, and works out the pattern.
fn number(n_nodes: usize, order: &[u32], later_nodes: &[Vec<u32>]) -> Elimination {
    let n = order.len();
    let mut turn = vec![NONE; n_nodes];
    for (at, &node) in order.iter().enumerate() {
        turn[node as usize] = at as u32;
    }
    let parent: Vec<Option<usize>> = later_nodes
        .iter()
        .map(|later| later.iter().map(|&node| turn[node as usize] as usize).min())
        .collect();
    let mut depth = vec![0_u32; n];
    for at in (0..n).rev() {
        if let Some(parent) = parent[at] {
            depth[at] = depth[parent] + 1;
        }
    }
    // within a level in the order of the parents, so that a pass over one level is a pass over the next
    let mut by_position: Vec<usize> = Vec::with_capacity(n);
    let mut place = vec![0_usize; n];
    let mut levels: Vec<Vec<usize>> = vec![Vec::new(); depth.iter().max().map_or(0, |&deepest| deepest as usize + 1)];
    for at in 0..n {
        levels[depth[at] as usize].push(at);
    }
    for level in &mut levels {
        level.sort_by_key(|&at| parent[at].map_or(0, |parent| place[parent]));
        for (nth, &at) in level.iter().enumerate() {
            place[at] = nth;
        }
    }
    for level in levels.iter().rev() {
        by_position.extend(level);
    }
    let mut position = vec![NONE; n_nodes];
    let mut node = Vec::with_capacity(n);
    for &at in &by_position {
        position[order[at] as usize] = node.len() as u32;
        node.push(order[at]);
    }

    let (mut start, mut later) = (vec![0], Vec::new());
    for &at in &by_position {
        let from = later.len();
        later.extend(later_nodes[at].iter().map(|&node| position[node as usize]));
        later[from..].sort_unstable();
        start.push(later.len() as u32);
    }
    let mut elimination = Elimination {
        position,
        node,
        start,
        later,
        pair_slots: Vec::new(),
        pair_start: Vec::new(),
        earlier: Vec::new(),
        earlier_start: vec![0; n + 1],
    };
    fill_pairs(&mut elimination);
    fill_earlier(&mut elimination);
    elimination
}

fn fill_pairs(elimination: &mut Elimination) {
    for position in 0..elimination.len() {
        elimination.pair_start.push(elimination.pair_slots.len() as u32);
        let slots = elimination.slots(position);
        for a in slots.clone() {
            for b in a + 1..slots.end {
                let (first, second) = (elimination.later[a] as usize, elimination.later[b] as usize);
                // eliminating `position` has connected the two, so the slot exists
                let slot = elimination.slot_between(first, second).map_or(NONE, |slot| slot as u32);
                elimination.pair_slots.push(slot);
            }
        }
    }
}

fn fill_earlier(elimination: &mut Elimination) {
    let n = elimination.len();
    for &later in &elimination.later {
        elimination.earlier_start[later as usize + 1] += 1;
    }
    for position in 0..n {
        elimination.earlier_start[position + 1] += elimination.earlier_start[position];
    }
    let mut next = elimination.earlier_start.clone();
    elimination.earlier = vec![(0, 0); elimination.later.len()];
    for position in 0..n {
        for slot in elimination.slots(position) {
            let at = &mut next[elimination.later[slot] as usize];
            elimination.earlier[*at as usize] = (position as u32, slot as u32);
            *at += 1;
        }
    }
}
