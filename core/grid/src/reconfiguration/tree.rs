//! One radial state: the spanning tree, its power flow, and what opening one branch and closing another would save.

use super::graph::{Graph, NONE, ROOT, Rating, Way};
use crate::error::GridError;
use crate::model::C64;

/// Most sweeps of a power flow.
const SWEEPS_MAX: usize = 60;
/// Below this, per unit, there is no operating point to compare with.
const COLLAPSED_PU: f64 = 0.3;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// Smallest and largest voltage, per unit.
    pub(super) voltage_pu: [f64; 2],
    /// Largest share of the rated current or power.
    pub(super) loading_max: f64,
}

/// How good a state is: limits first, losses second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quality {
    /// Sum of all excesses: voltages per unit, loadings as shares.
    pub(super) violation: f64,
    /// Losses, per unit.
    pub(super) loss_pu: f64,
}

/// Excesses closer together than this are the same.
const VIOLATION_EQUAL: f64 = 1e-6;

impl Quality {
    /// Whether this one is better by more than rounding; `gain_min_pu` is the least that counts.
    pub(super) fn is_better_than(&self, other: &Self, gain_min_pu: f64) -> bool {
        match self.violation - other.violation {
            difference if difference < -VIOLATION_EQUAL => true,
            difference if difference > VIOLATION_EQUAL => false,
            // what kept all limits must not give one up, however slightly
            _ if other.violation == 0.0 && self.violation > 0.0 => false,
            _ => self.loss_pu < other.loss_pu - gain_min_pu,
        }
    }
}

/// Losses would change by this much if `open` were opened and `close` closed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exchange {
    pub(super) close: u32,
    pub(super) open: u32,
    pub(super) loss_change_pu: f64,
}

/// The tree as its closed edges stand. Arrays "by position" are in the order of a walk from the root: parents come before their children.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) closed: Vec<bool>,
    /// Voltages by node, as the last power flow left them.
    pub(super) voltage: Vec<C64>,
    /// Node at each position, and the position of each node.
    pub(super) order: Vec<u32>,
    pub(super) position: Vec<u32>,
    /// By position: position of the parent, edge to it, number of edges to the root.
    pub(super) parent: Vec<u32>,
    pub(super) edge: Vec<u32>,
    depth: Vec<u32>,
    way: Vec<Way>,
    /// By position: current out of the child end of the edge to the parent, voltage, loads and shunts.
    pub(super) flow: Vec<C64>,
    pub(super) v: Vec<C64>,
    power: Vec<C64>,
    current: Vec<C64>,
    shunt: Vec<C64>,
    has_constant_current: bool,
    /// Sums along the path from the root, by position: the product of what is carried over, R over its square, R times the current.
    carried: Vec<C64>,
    r_sum: Vec<f64>,
    rj_sum: Vec<C64>,
    stack: Vec<(u32, u32, u32)>,
    /// Power flows made.
    pub(super) n_flows: usize,
}

impl Tree {
    /// A tree from its closed edges, which have to be a spanning tree, at no-load voltages.
    pub(super) fn new(graph: &Graph, closed: Vec<bool>) -> Self {
        let n = graph.n_nodes();
        let zero = vec![C64::ZERO; n];
        let mut tree = Self {
            closed,
            voltage: vec![C64::ONE; n],
            order: Vec::with_capacity(n),
            position: vec![NONE; n],
            parent: vec![NONE; n],
            edge: vec![NONE; n],
            depth: vec![0; n],
            way: Vec::with_capacity(n),
            flow: zero.clone(),
            v: zero.clone(),
            power: zero.clone(),
            current: zero.clone(),
            shunt: zero.clone(),
            has_constant_current: graph.current.iter().any(|s| *s != C64::ZERO),
            carried: zero.clone(),
            r_sum: vec![0.0; n],
            rj_sum: zero,
            stack: Vec::new(),
            n_flows: 0,
        };
        tree.walk(graph);
        tree.start_flat(graph);
        tree
    }

    /// Takes another tree's switches over, and its voltages to start from.
    pub(super) fn set(&mut self, graph: &Graph, closed: &[bool], voltage: &[C64]) {
        self.closed.copy_from_slice(closed);
        self.voltage.copy_from_slice(voltage);
        self.walk(graph);
    }

    /// Closes one edge and opens another; the other has to be on the loop that the first one closes.
    pub(super) fn exchange(&mut self, graph: &Graph, close: u32, open: u32) {
        self.closed[close as usize] = true;
        self.closed[open as usize] = false;
        self.walk(graph);
    }

    /// Walks the closed edges from the root: O(n).
    fn walk(&mut self, graph: &Graph) {
        self.order.clear();
        self.way.clear();
        self.stack.clear();
        self.stack.push((ROOT, NONE, NONE));
        let outside = Way {
            ratio: C64::ONE,
            z: C64::ZERO,
            leak: C64::ZERO,
            carry: C64::ONE,
        };
        while let Some((node, edge, parent)) = self.stack.pop() {
            let at = self.order.len();
            self.order.push(node);
            self.position[node as usize] = at as u32;
            self.parent[at] = parent;
            self.edge[at] = edge;
            match edge {
                NONE => {
                    self.depth[at] = 0;
                    self.way.push(outside);
                }
                _ => {
                    self.depth[at] = self.depth[parent as usize] + 1;
                    self.way.push(graph.ways[edge as usize][graph.side(edge, node)]);
                }
            }
            for &(next, other) in graph.neighbours(node) {
                if next != edge && self.closed[next as usize] {
                    self.stack.push((other, next, at as u32));
                }
            }
        }
    }

    /// Whether every node is reached, and by one path only.
    #[cfg(test)]
    pub(super) fn is_spanning(&self, graph: &Graph) -> bool {
        self.order.len() == graph.n_nodes() && self.closed.iter().filter(|closed| **closed).count() == graph.n_nodes() - 1
    }

    /// Voltages without load: the right turns behind transformers.
    pub(super) fn start_flat(&mut self, graph: &Graph) {
        self.voltage[ROOT as usize] = C64::ONE;
        for at in 1..graph.n_nodes() {
            let parent = self.order[self.parent[at] as usize];
            self.voltage[self.order[at] as usize] = self.way[at].ratio * self.voltage[parent as usize];
        }
    }

    /// Brings loads, shunts and voltages into the order of the walk.
    fn gather(&mut self, graph: &Graph) {
        for (at, &node) in self.order.iter().enumerate() {
            let node = node as usize;
            self.power[at] = graph.power[node];
            self.current[at] = graph.current[node];
            self.shunt[at] = graph.shunt[node];
            self.v[at] = self.voltage[node];
        }
        for edge in (0..graph.n_edges()).filter(|&edge| !self.closed[edge]) {
            for (end, y) in graph.ends[edge].iter().zip(graph.open_shunt[edge]) {
                if y != C64::ZERO {
                    self.shunt[self.position[*end as usize] as usize] += y;
                }
            }
        }
    }

    /// Adds up to the root what the nodes draw at the present voltages.
    fn add_up(&mut self) {
        let n = self.order.len();
        let (parent, way, v) = (&self.parent[..n], &self.way[..n], &self.v[..n]);
        let (power, current, shunt) = (&self.power[..n], &self.current[..n], &self.shunt[..n]);
        let flow = &mut self.flow[..n];
        flow.fill(C64::ZERO);
        for at in (1..n).rev() {
            // conj(s / u)
            let mut drawn = power[at].conj() * v[at] * v[at].norm_sqr().recip() + shunt[at] * v[at];
            if self.has_constant_current {
                drawn += current[at].conj() * v[at] * v[at].norm().recip();
            }
            flow[at] += drawn;
            let above = parent[at] as usize;
            let upwards = way[at].carry * flow[at] + way[at].leak * v[above];
            flow[above] += upwards;
        }
    }

    /// Backward-forward sweeps from the last voltages until no voltage moves by more than `tolerance_pu`.
    ///
    /// # Errors
    /// [`GridError::NotConverged`]: the loads are more than this tree can carry.
    pub(super) fn solve(&mut self, graph: &Graph, tolerance_pu: f64) -> Result<(), GridError> {
        self.n_flows += 1;
        self.gather(graph);
        self.v[0] = C64::ONE;
        let mut step_pu = f64::INFINITY;
        for iterations in 1..=SWEEPS_MAX {
            self.add_up();
            step_pu = 0.0;
            for at in 1..self.order.len() {
                let way = &self.way[at];
                let v = way.ratio * self.v[self.parent[at] as usize] - way.z * self.flow[at];
                let step = (v - self.v[at]).norm_sqr();
                // what is not a number must not pass as a small step
                step_pu = if step <= step_pu { step_pu } else { step };
                self.v[at] = v;
            }
            step_pu = step_pu.sqrt();
            if step_pu <= tolerance_pu {
                break;
            }
            if !step_pu.is_finite() || iterations == SWEEPS_MAX {
                return Err(self.not_converged(step_pu, tolerance_pu, iterations));
            }
        }
        if self.v.iter().any(|v| !(v.norm_sqr() > COLLAPSED_PU * COLLAPSED_PU)) {
            return Err(self.not_converged(step_pu, tolerance_pu, SWEEPS_MAX));
        }
        for (at, &node) in self.order.iter().enumerate() {
            self.voltage[node as usize] = self.v[at];
        }
        Ok(())
    }

    fn not_converged(&self, step_pu: f64, tolerance_pu: f64, iterations: usize) -> GridError {
        GridError::NotConverged {
            what: "power flow of a radial state",
            step_pu,
            tolerance_pu,
            iterations,
            remedy: "the loads are most likely more than this tree can carry; check their units and the impedances",
        }
    }

    /// Power into the edge to the parent at the parent's and out of it at the child's end, and the current at the parent's, per unit.
    pub(super) fn ends(&self, at: usize) -> (C64, C64, C64) {
        let parent = self.parent[at] as usize;
        let way = &self.way[at];
        let i = way.carry * self.flow[at] + way.leak * self.v[parent];
        (self.v[parent] * i.conj(), self.v[at] * self.flow[at].conj(), i)
    }

    /// Active power that all branches lose, per unit.
    pub(super) fn loss_pu(&self, graph: &Graph) -> f64 {
        let hanging = graph.hanging.iter();
        let mut loss: f64 = hanging.map(|&(node, g)| g * self.voltage[node as usize].norm_sqr()).sum();
        for at in 1..self.order.len() {
            if graph.branch[self.edge[at] as usize] != NONE {
                let (above, below, _) = self.ends(at);
                loss += above.re - below.re;
            }
        }
        for edge in (0..graph.n_edges()).filter(|&edge| !self.closed[edge]) {
            for (end, y) in graph.ends[edge].iter().zip(graph.open_shunt[edge]) {
                loss += y.re * self.voltage[*end as usize].norm_sqr();
            }
        }
        loss
    }

    /// Share of its rating that the edge above a position carries.
    pub(super) fn loading(&self, graph: &Graph, at: usize) -> Option<f64> {
        match graph.rating[self.edge[at] as usize] {
            Rating::None => None,
            Rating::Current(max) => {
                let (_, _, i) = self.ends(at);
                Some(i.norm().max(self.flow[at].norm()) / max)
            }
            Rating::Power(max) => {
                let (above, below, _) = self.ends(at);
                Some(above.norm().max(below.norm()) / max)
            }
        }
    }

    /// Limits and losses of the state just solved.
    pub(super) fn quality(&self, graph: &Graph, bounds: &Bounds) -> Quality {
        let [low, high] = bounds.voltage_pu;
        let mut violation = 0.0;
        for at in 1..self.order.len() {
            let square = self.v[at].norm_sqr();
            if square < low * low || square > high * high {
                violation += (low - square.sqrt()).max(square.sqrt() - high);
            }
            if let Some(loading) = self.loading(graph, at) {
                violation += (loading - bounds.loading_max).max(0.0);
            }
        }
        Quality {
            violation,
            loss_pu: self.loss_pu(graph),
        }
    }

    /// Prepares [`Self::exchanges`]: what the nodes draw at the voltages of the last power flow, whatever the tree has become since, and
    /// the sums along the paths.
    pub(super) fn prepare(&mut self, graph: &Graph) {
        self.gather(graph);
        self.add_up();
        (self.carried[0], self.r_sum[0], self.rj_sum[0]) = (C64::ONE, 0.0, C64::ZERO);
        for at in 1..self.order.len() {
            let parent = self.parent[at] as usize;
            let way = &self.way[at];
            let carried = self.carried[parent] * way.carry;
            let r = match graph.branch[self.edge[at] as usize] {
                NONE => 0.0,
                _ => way.z.re,
            };
            self.carried[at] = carried;
            self.r_sum[at] = self.r_sum[parent] + r / carried.norm_sqr();
            self.rj_sum[at] = self.rj_sum[parent] + self.flow[at] * r / carried.conj();
        }
    }

    /// Positions of the ends of an edge, and of the last node that their paths from the root share.
    pub(super) fn meet(&self, graph: &Graph, edge: u32) -> (usize, usize, usize) {
        let [a, b] = graph.ends[edge as usize].map(|node| self.position[node as usize] as usize);
        let (mut x, mut y) = (a, b);
        while x != y {
            // the one with the larger position cannot be above the other
            match x > y {
                true => x = self.parent[x] as usize,
                false => y = self.parent[y] as usize,
            }
        }
        (a, b, x)
    }

    /// What closing an open edge and opening one switch of its loop would do to the losses, for each such switch: O(1) each from the
    /// sums along the paths. The part that is moved draws what it drew, at the voltage of the other end of the open edge.
    pub(super) fn exchanges(&self, graph: &Graph, close: u32, mut each: impl FnMut(Exchange)) {
        let (a, b, top) = self.meet(graph, close);
        for (near, far, side) in [(a, b, 0), (b, a, 1)] {
            // the part that is moved hangs on its near end afterwards
            let way = &graph.ways[close as usize][side];
            // loads keep their power: their current follows the voltage that they get, its turn behind another transformer included
            let supply = way.ratio * self.v[far];
            let turned = (self.v[near] / supply).conj();
            let to_far = self.carried[far] * way.carry * turned / self.carried[near];
            let square = self.r_sum[near] - self.r_sum[top]
                + way.z.re * (turned / self.carried[near]).norm_sqr()
                + (self.r_sum[far] - self.r_sum[top]) * to_far.norm_sqr();
            let linear = to_far.conj() * (self.rj_sum[far] - self.rj_sum[top]) - (self.rj_sum[near] - self.rj_sum[top]);
            let mut at = near;
            while at != top {
                let open = self.edge[at];
                if graph.is_switch[open as usize] {
                    let moved = self.carried[at] * self.flow[at];
                    each(Exchange {
                        close,
                        open,
                        loss_change_pu: square * moved.norm_sqr() + 2.0 * (moved.conj() * linear).re,
                    });
                }
                at = self.parent[at] as usize;
            }
        }
    }

    /// Position of the source that feeds a position.
    pub(super) fn source(&self, mut at: usize) -> usize {
        while self.depth[at] > 1 {
            at = self.parent[at] as usize;
        }
        at
    }

    /// How many nodes lie behind the edge above a position, its own included.
    pub(super) fn n_behind(&self, at: usize) -> usize {
        let deeper = self.depth[at + 1..].iter().take_while(|&&depth| depth > self.depth[at]);
        1 + deeper.count()
    }
}
