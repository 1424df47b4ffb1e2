//! What flows through a branch at given voltages.

use crate::admittance::Admittance;
use crate::elimination::NONE;
use crate::model::{C64, to_phases};
use crate::network::Network;

/// Power and current at both ends of a branch by phase, per unit, into the branch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BranchFlow<const N: usize> {
    /// Power at the from end.
    pub s_from_pu: [C64; N],
    /// Power at the to end.
    pub s_to_pu: [C64; N],
    /// Current at the from end.
    pub i_from_pu: [C64; N],
    /// Current at the to end.
    pub i_to_pu: [C64; N],
}

/// Flow through a branch; `voltage` gives symmetrical components by position. Zero without supply.
pub(crate) fn branch_flow<const N: usize>(
    network: &Network,
    admittance: &Admittance<N>,
    branch: usize,
    voltage: impl Fn(usize) -> [C64; N],
) -> BranchFlow<N> {
    let y = &admittance.branches[branch];
    let branch = &network.branches[branch];
    let at = |node: usize, closed: bool| match admittance.order.position[node] {
        position if position != NONE && closed => voltage(position as usize),
        _ => [C64::ZERO; N],
    };
    let (from, to) = (at(branch.from, branch.from_closed), at(branch.to, branch.to_closed));
    let i_from = to_phases(&std::array::from_fn(|k| y.ff[k] * from[k] + y.ft[k] * to[k]));
    let i_to = to_phases(&std::array::from_fn(|k| y.tf[k] * from[k] + y.tt[k] * to[k]));
    let (u_from, u_to) = (to_phases(&from), to_phases(&to));
    BranchFlow {
        s_from_pu: std::array::from_fn(|k| u_from[k] * i_from[k].conj()),
        s_to_pu: std::array::from_fn(|k| u_to[k] * i_to[k].conj()),
        i_from_pu: i_from,
        i_to_pu: i_to,
    }
}
