//! A network in which estimated powers stand in the place of its loads and generators.

use crate::network::{Appliance, LoadKind, Network, PerPhase, Reference};

/// What is drawn at a node, whatever its voltage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// Index of the node.
    pub node: usize,
    /// Active power out of the grid, W.
    pub p_w: f64,
    /// Reactive power out of the grid, var.
    pub q_var: f64,
}

impl Network {
    /// The same grid, where the nodes draw this and nothing else. It has no sensors: they would speak of loads that are gone.
    #[must_use]
    pub fn with_drawn(&self, drawn: &[Drawn]) -> Self {
        let mut network = Self {
            nodes: self.nodes.clone(),
            branches: self.branches.clone(),
            sources: self.sources.clone(),
            shunts: self.shunts.clone(),
            ..Self::default()
        };
        let is_kept = |reference: &Reference| {
            matches!(
                reference,
                Reference::Node(_) | Reference::Branch(_) | Reference::Source(_) | Reference::Shunt(_)
            )
        };
        network.references = self
            .references
            .iter()
            .filter(|(_, reference)| is_kept(reference))
            .map(|(&id, &reference)| (id, reference))
            .collect();
        let mut id = network.references.keys().copied().max().unwrap_or(0);
        for drawn in drawn.iter().filter(|drawn| drawn.node < self.nodes.len()) {
            id += 1;
            network.references.insert(id, Reference::Appliance(network.appliances.len()));
            network.appliances.push(Appliance {
                id,
                node: drawn.node,
                connected: true,
                is_generator: false,
                kind: LoadKind::ConstantPower,
                p_w: PerPhase::Symmetric(drawn.p_w),
                q_var: PerPhase::Symmetric(drawn.q_var),
            });
        }
        network
    }
}
