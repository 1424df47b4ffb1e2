//! What may be switched, as a graph whose spanning trees are the radial states of the grid.
//!
//! Node 0 stands for everything behind the sources: each source is an edge from it that never opens. So every customer is supplied and no
//! loop is closed, not even one through two sources, exactly when the closed edges are a spanning tree. Nodes without supply are left
//! out: a proposal must not energise what somebody has switched off.

use crate::error::GridError;
use crate::model::{BASE_POWER_VA, C64, base_current_a, shunt_admittance, source_admittance, source_voltage, two_port};
use crate::network::{Branch, BranchKind, LoadKind, Network};
use crate::power_flow::injection;
use crate::topology::Topology;

pub(super) const NONE: u32 = u32::MAX;
/// The node behind the sources.
pub(super) const ROOT: u32 = 0;

/// A branch seen from its parent node to its child node, per unit:
/// `v_child = ratio v_parent - z j_child`, `i_parent = leak v_parent + carry j_child`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Way {
    pub(super) ratio: C64,
    pub(super) z: C64,
    pub(super) leak: C64,
    pub(super) carry: C64,
}

/// How much a branch may carry, per unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rating {
    /// Nobody has said.
    None,
    /// Current at either end.
    Current(f64),
    /// Apparent power at either end.
    Power(f64),
}

/// The graph; edges and nodes are numbered by itself.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    /// Ends of each edge; 0: from side, 1: to side. For a source the root and its node.
    pub(super) ends: Vec<[u32; 2]>,
    /// Each edge with its from or its to side as the child.
    pub(super) ways: Vec<[Way; 2]>,
    /// Index of the network's branch; [`NONE`] for a source.
    pub(super) branch: Vec<u32>,
    pub(super) is_switch: Vec<bool>,
    pub(super) rating: Vec<Rating>,
    /// What the open branch still draws at either side: a switch at one end leaves the cable connected.
    pub(super) open_shunt: Vec<[C64; 2]>,
    /// Index of the network's node; [`NONE`] for the root.
    pub(super) node: Vec<u32>,
    /// Constant power drawn at each node.
    pub(super) power: Vec<C64>,
    /// Power drawn at rated voltage that follows the voltage.
    pub(super) current: Vec<C64>,
    /// Shunts, loads of constant impedance and cables that hang on with one end.
    pub(super) shunt: Vec<C64>,
    /// Cables that always hang on with one end: node and conductance, for their losses.
    pub(super) hanging: Vec<(u32, f64)>,
    /// Edges at each node, `(edge, other node)`, from `start[node]` to `start[node + 1]`.
    start: Vec<u32>,
    neighbours: Vec<(u32, u32)>,
}

impl Graph {
    /// The graph of a network and which of its edges are closed now.
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] for loads without power and sources without voltage, [`GridError::BadValue`] for a branch whose
    /// impedance gives no finite admittance, [`GridError::NoSource`] for a grid without supply.
    pub(super) fn new(network: &Network, is_switch: &[bool]) -> Result<(Self, Vec<bool>), GridError> {
        let topology = Topology::new(network);
        let mut place = vec![NONE; network.nodes.len()];
        let mut graph = Self {
            ends: Vec::new(),
            ways: Vec::new(),
            branch: Vec::new(),
            is_switch: Vec::new(),
            rating: Vec::new(),
            open_shunt: Vec::new(),
            node: vec![NONE],
            power: Vec::new(),
            current: Vec::new(),
            shunt: Vec::new(),
            hanging: Vec::new(),
            start: Vec::new(),
            neighbours: Vec::new(),
        };
        for node in (0..network.nodes.len()).filter(|&node| topology.is_energised(node)) {
            place[node] = graph.node.len() as u32;
            graph.node.push(node as u32);
        }
        if graph.node.len() == 1 {
            return Err(GridError::NoSource);
        }
        let n = graph.node.len();
        (graph.power, graph.current, graph.shunt) = (vec![C64::ZERO; n], vec![C64::ZERO; n], vec![C64::ZERO; n]);
        graph.add_appliances(network, &place)?;
        graph.add_sources(network, &place)?;
        let mut closed = vec![true; graph.ends.len()];
        for (index, branch) in network.branches.iter().enumerate() {
            graph.add_branch(network, branch, index, is_switch[index], &place, &mut closed)?;
        }
        graph.connect();
        Ok((graph, closed))
    }

    pub(super) fn n_nodes(&self) -> usize {
        self.node.len()
    }

    pub(super) fn n_edges(&self) -> usize {
        self.ends.len()
    }

    /// Edges at a node, open ones too, with the node at their other end.
    pub(super) fn neighbours(&self, node: u32) -> &[(u32, u32)] {
        &self.neighbours[self.start[node as usize] as usize..self.start[node as usize + 1] as usize]
    }

    /// Which side of an edge a node is at: the index into [`Self::ways`] with that node as the child.
    pub(super) fn side(&self, edge: u32, node: u32) -> usize {
        usize::from(self.ends[edge as usize][1] == node)
    }

    fn add_appliances(&mut self, network: &Network, place: &[u32]) -> Result<(), GridError> {
        for appliance in network.appliances.iter().filter(|appliance| appliance.connected) {
            let node = place[appliance.node];
            if node == NONE {
                continue;
            }
            let [power] = injection::<1>(appliance)?;
            let drawn = -power;
            match appliance.kind {
                LoadKind::ConstantPower => self.power[node as usize] += drawn,
                LoadKind::ConstantCurrent => self.current[node as usize] += drawn,
                LoadKind::ConstantImpedance => self.shunt[node as usize] += drawn.conj(),
            }
        }
        for shunt in network.shunts.iter().filter(|shunt| shunt.connected) {
            let node = place[shunt.node];
            if node != NONE {
                let [y] = shunt_admittance::<1>(shunt, network.nodes[shunt.node].u_rated_v)?;
                self.shunt[node as usize] += y;
            }
        }
        Ok(())
    }

    /// Sources of one node act as one: their admittances add, their voltages are weighed by them.
    fn add_sources(&mut self, network: &Network, place: &[u32]) -> Result<(), GridError> {
        let mut at_node: Vec<(u32, C64, C64)> = Vec::new();
        for source in network.sources.iter().filter(|source| source.connected) {
            let ([y], [u]) = (source_admittance::<1>(source), source_voltage::<1>(source)?);
            let node = place[source.node];
            match at_node.iter_mut().find(|(at, _, _)| *at == node) {
                Some((_, y_sum, i_sum)) => {
                    *y_sum += y;
                    *i_sum += y * u;
                }
                None => at_node.push((node, y, y * u)),
            }
        }
        for (node, y, i) in at_node {
            let way = Way {
                ratio: i / y,
                z: y.inv(),
                leak: C64::ZERO,
                carry: C64::ONE,
            };
            self.push([ROOT, node], [way; 2], NONE, false, Rating::None, [C64::ZERO; 2]);
        }
        Ok(())
    }

    fn add_branch(
        &mut self,
        network: &Network,
        branch: &Branch,
        index: usize,
        is_switch: bool,
        place: &[u32],
        closed: &mut Vec<bool>,
    ) -> Result<(), GridError> {
        let ends = [place[branch.from], place[branch.to]];
        let as_given = two_port::<1>(network, branch)?;
        let hanging = [as_given.ff[0], as_given.tt[0]];
        let has_both = ends[0] != NONE && ends[1] != NONE;
        if !has_both || !(branch.is_closed() || is_switch) {
            for (side, node) in ends.iter().enumerate().filter(|(_, node)| **node != NONE) {
                if !branch.is_closed() && hanging[side] != C64::ZERO {
                    self.shunt[*node as usize] += hanging[side];
                    self.hanging.push((*node, hanging[side].re));
                }
            }
            return Ok(());
        }
        let whole = Branch {
            from_closed: true,
            to_closed: true,
            ..branch.clone()
        };
        let y = two_port::<1>(network, &whole)?;
        let ways = [way(y.tt[0], y.tf[0], y.ft[0], y.ff[0]), way(y.ff[0], y.ft[0], y.tf[0], y.tt[0])];
        let is_finite = |way: &Way| [way.ratio, way.z, way.leak, way.carry].iter().all(|x| x.is_finite());
        if !ways.iter().all(is_finite) {
            return Err(GridError::BadValue {
                component: branch.kind.component(),
                id: branch.id,
                attribute: "impedance",
                value: f64::NAN,
                remedy: "its impedance and shunt admittance have to be finite and not both zero",
            });
        }
        let open_shunt = if branch.is_closed() { [C64::ZERO; 2] } else { hanging };
        self.push(ends, ways, index as u32, is_switch, rating(network, branch), open_shunt);
        closed.push(branch.is_closed());
        Ok(())
    }

    fn push(&mut self, ends: [u32; 2], ways: [Way; 2], branch: u32, is_switch: bool, rating: Rating, open_shunt: [C64; 2]) {
        self.ends.push(ends);
        self.ways.push(ways);
        self.branch.push(branch);
        self.is_switch.push(is_switch);
        self.rating.push(rating);
        self.open_shunt.push(open_shunt);
    }

    fn connect(&mut self) {
        let n = self.n_nodes();
        self.start = vec![0; n + 1];
        for [from, to] in &self.ends {
            self.start[*from as usize + 1] += 1;
            self.start[*to as usize + 1] += 1;
        }
        for node in 0..n {
            self.start[node + 1] += self.start[node];
        }
        let mut next = self.start.clone();
        self.neighbours = vec![(0, 0); 2 * self.ends.len()];
        for (edge, &[from, to]) in self.ends.iter().enumerate() {
            for (node, other) in [(from, to), (to, from)] {
                self.neighbours[next[node as usize] as usize] = (edge as u32, other);
                next[node as usize] += 1;
            }
        }
    }
}

/// Eliminates the child's voltage from a two-port: `pp` is the parent's own admittance, `cc` the child's.
fn way(pp: C64, pc: C64, cp: C64, cc: C64) -> Way {
    let z = cc.inv();
    // without shunt and ratio, exactly: a link's leak would be the rounding error of 1e8
    if pp == cc && pc == cp && pc == -pp {
        return Way {
            ratio: C64::ONE,
            z,
            leak: C64::ZERO,
            carry: C64::ONE,
        };
    }
    Way {
        ratio: -cp * z,
        z,
        leak: pp - pc * cp * z,
        carry: -pc * z,
    }
}

fn rating(network: &Network, branch: &Branch) -> Rating {
    let usable = |value: f64| value > 0.0 && value.is_finite();
    match &branch.kind {
        BranchKind::Line(line) => match line.i_n_a {
            Some(i_n_a) if usable(i_n_a) => {
                let base_a = base_current_a(network.nodes[branch.from].u_rated_v);
                Rating::Current(i_n_a / base_a)
            }
            _ => Rating::None,
        },
        BranchKind::Transformer(transformer) if usable(transformer.sn_va) => Rating::Power(transformer.sn_va / BASE_POWER_VA),
        _ => Rating::None,
    }
}
