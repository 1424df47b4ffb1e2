//! Where a search may start: the tree of D4.6, from the currents that would flow with all switches closed.
//!
//! # Source
//! FLEXMETER D4.6, section 7.3: meshed power flow, weights 1/|I|, the minimum spanning tree (J. B. Kruskal, Proc. AMS 7(1), 1956). That the
//! pattern of least losses is that of the meshed grid without reactances: D. Shirmohammadi, H. W. Hong, IEEE Trans. Power Delivery 4(2), 1989.

use super::graph::{Graph, NONE};
use crate::error::GridError;
use crate::model::{BASE_POWER_VA, C64};
use crate::network::{BranchKind, Network};
use crate::power_flow::{Options, SymmetricPowerFlow};

/// Least resistance of a branch without reactance, as a share of its impedance.
const RESISTANCE_SHARE_MIN: f64 = 1e-3;

/// Whether the meshed power flow sees the reactances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Impedance {
    /// As it is: the algorithm of D4.6.
    Full,
    /// Resistances only: currents then spread as they lose least.
    ResistanceOnly,
}

/// The spanning tree that keeps the largest currents of the meshed grid, as closed edges.
///
/// # Errors
/// [`GridError::NotConverged`] or [`GridError::TooLarge`] for a grid that cannot be solved with all its switches closed.
pub(super) fn tree(network: &Network, graph: &Graph, impedance: Impedance) -> Result<Vec<bool>, GridError> {
    let mut meshed = network.clone();
    for edge in (0..graph.n_edges()).filter(|&edge| graph.is_switch[edge]) {
        if let Some(branch) = meshed.branches.get_mut(graph.branch[edge] as usize) {
            (branch.from_closed, branch.to_closed) = (true, true);
        }
    }
    if impedance == Impedance::ResistanceOnly {
        drop_reactances(&mut meshed);
    }
    let mut flow = SymmetricPowerFlow::new(&meshed)?;
    flow.solve(&Options::default())?;
    let current_pu = |edge: usize| match graph.branch[edge] {
        NONE => f64::INFINITY,
        branch => {
            let flow = flow.branch_flow(&meshed, branch as usize);
            flow.i_from_pu[0].norm().max(flow.i_to_pu[0].norm())
        }
    };
    let mut by_weight: Vec<(bool, f64, usize)> = (0..graph.n_edges())
        .map(|edge| (graph.is_switch[edge], current_pu(edge), edge))
        .collect();
    // 1/|I| ascending is |I| descending; what cannot open comes first
    by_weight.sort_unstable_by(|x, y| x.0.cmp(&y.0).then(y.1.total_cmp(&x.1)).then(x.2.cmp(&y.2)));
    let mut sets = Sets::new(graph.n_nodes());
    let mut closed = vec![false; graph.n_edges()];
    for (_, _, edge) in by_weight {
        closed[edge] = sets.join(graph.ends[edge]);
    }
    Ok(closed)
}

fn drop_reactances(network: &mut Network) {
    for branch in &mut network.branches {
        match &mut branch.kind {
            BranchKind::Line(line) => {
                let [r, x] = line.z1_ohm;
                line.z1_ohm = [r.max(r.hypot(x) * RESISTANCE_SHARE_MIN), 0.0];
            }
            BranchKind::Transformer(transformer) => {
                for tap in 0..3 {
                    let share = (transformer.pk_w[tap] / transformer.sn_va).max(transformer.uk[tap].abs() * RESISTANCE_SHARE_MIN);
                    (transformer.uk[tap], transformer.pk_w[tap]) = (share, share * transformer.sn_va);
                }
            }
            BranchKind::Link => {}
        }
    }
}

/// Sets of connected nodes (union by size, path halving).
#[derive(Debug)]
pub(super) struct Sets {
    above: Vec<u32>,
    size: Vec<u32>,
}

impl Sets {
    pub(super) fn new(n: usize) -> Self {
        Self {
            above: (0..n as u32).collect(),
            size: vec![1; n],
        }
    }

    fn top(&mut self, mut node: u32) -> u32 {
        while self.above[node as usize] != node {
            let next = self.above[node as usize];
            self.above[node as usize] = self.above[next as usize];
            node = next;
        }
        node
    }

    /// Whether the two were apart until now.
    pub(super) fn join(&mut self, [a, b]: [u32; 2]) -> bool {
        let (a, b) = (self.top(a), self.top(b));
        if a == b {
            return false;
        }
        let (large, small) = match self.size[a as usize] >= self.size[b as usize] {
            true => (a, b),
            false => (b, a),
        };
        self.above[small as usize] = large;
        self.size[large as usize] += self.size[small as usize];
        true
    }
}

/// W from per unit.
pub(super) fn watts(power_pu: f64) -> f64 {
    power_pu * BASE_POWER_VA
}

/// Distance of two voltages, and the angle between them.
pub(super) fn apart(u: C64, v: C64) -> (f64, f64) {
    ((u - v).norm(), (u * v.conj()).arg().abs())
}
