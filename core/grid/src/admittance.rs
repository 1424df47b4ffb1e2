//! The bus admittance matrix, block by block in the order of elimination.

use crate::elimination::{Elimination, NONE};
use crate::error::GridError;
use crate::model::{C64, TwoPort, shunt_admittance, two_port};
use crate::network::Network;
use crate::topology::Topology;

/// Admittances of everything that has supply, in symmetrical components, per unit.
#[derive(Debug, Clone)]
pub(crate) struct Admittance<const N: usize> {
    pub(crate) topology: Topology,
    pub(crate) order: Elimination,
    /// Each branch by itself; all zero without supply.
    pub(crate) branches: Vec<TwoPort<N>>,
    /// For each position: lines, transformers and shunts at the node, sources left out.
    pub(crate) diagonal: Vec<[C64; N]>,
    /// For each slot: row of the earlier, column of the later node.
    pub(crate) upper: Vec<[C64; N]>,
    /// For each slot: row of the later, column of the earlier node.
    pub(crate) lower: Vec<[C64; N]>,
}

impl<const N: usize> Admittance<N> {
    /// A row of the matrix: the position itself first, then its neighbours, and zeros where elimination fills in.
    pub(crate) fn row(&self, position: usize) -> impl Iterator<Item = (usize, [C64; N])> + '_ {
        let later = self
            .order
            .slots(position)
            .map(|slot| (self.order.later[slot] as usize, self.upper[slot]));
        let earlier = self
            .order
            .earlier(position)
            .iter()
            .map(|&(earlier, slot)| (earlier as usize, self.lower[slot as usize]));
        std::iter::once((position, self.diagonal[position])).chain(later).chain(earlier)
    }

    /// Puts the matrix together.
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] where an asymmetric calculation lacks a zero sequence, [`GridError::TooLarge`] for a grid that is
    /// too meshed.
    pub(crate) fn new(network: &Network) -> Result<Self, GridError> {
        let topology = Topology::new(network);
        let order = Elimination::new(&topology)?;
        let zero = [C64::ZERO; N];
        let none = TwoPort {
            ff: zero,
            ft: zero,
            tf: zero,
            tt: zero,
        };
        let mut admittance = Self {
            branches: vec![none; network.branches.len()],
            diagonal: vec![zero; order.len()],
            upper: vec![zero; order.later.len()],
            lower: vec![zero; order.later.len()],
            topology,
            order,
        };
        for index in 0..network.branches.len() {
            admittance.add_branch(network, index)?;
        }
        for shunt in network.shunts.iter().filter(|shunt| shunt.connected) {
            let position = admittance.order.position[shunt.node];
            if position != NONE {
                let y = shunt_admittance::<N>(shunt, network.nodes[shunt.node].u_rated_v)?;
                add(&mut admittance.diagonal[position as usize], &y);
            }
        }
        Ok(admittance)
    }

    fn add_branch(&mut self, network: &Network, index: usize) -> Result<(), GridError> {
        let branch = &network.branches[index];
        let [from, to] = [branch.from, branch.to].map(|node| self.order.position[node]);
        let from_has_supply = branch.from_closed && from != NONE;
        let to_has_supply = branch.to_closed && to != NONE;
        if !from_has_supply && !to_has_supply {
            return Ok(());
        }
        let y = two_port::<N>(network, branch)?;
        self.branches[index] = y;
        if from_has_supply {
            add(&mut self.diagonal[from as usize], &y.ff);
        }
        if to_has_supply {
            add(&mut self.diagonal[to as usize], &y.tt);
        }
        if !branch.is_closed() {
            return Ok(());
        }
        // a closed branch has supply at both ends or at none
        if let Some(slot) = self.order.slot_between(from as usize, to as usize) {
            let (upper, lower) = match from < to {
                true => (&y.ft, &y.tf),
                false => (&y.tf, &y.ft),
            };
            add(&mut self.upper[slot], upper);
            add(&mut self.lower[slot], lower);
        }
        Ok(())
    }
}

#[inline(always)]
pub(crate) fn add<const N: usize>(sum: &mut [C64; N], x: &[C64; N]) {
    for k in 0..N {
        sum[k] += x[k];
    }
}
