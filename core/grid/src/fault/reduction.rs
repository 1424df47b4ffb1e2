//! The feeder as the head and the place of a fault see it, with the voltage at the head given.
//!
//! From the leaves to the head: the admittance of all that hangs on a node. From the head to the leaves: the voltage each node has
//! without a fault, the impedance a fault there sees, and the share of the fault's current that reaches the head. A point along a
//! line hangs on the line's near node by a part of the line, so one step of the same recursion gives its quantities.

use nalgebra::{Matrix3, Vector3};

use super::feeder::{Feeder, HEAD};
use crate::error::GridError;
use crate::model::{C64, TwoPort};
use crate::network::Network;

pub(super) type M3 = Matrix3<C64>;
pub(super) type V3 = Vector3<C64>;

/// What a fault at one place sees, symmetrical components, per unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Voltage there without fault, for a voltage at the head.
    pub(super) voltage: M3,
    /// Driving-point impedance with the head's voltage fixed.
    pub(super) impedance: M3,
    /// Current at the head for a current into the fault.
    pub(super) share: M3,
}

/// What one branch does to voltages on their way out and to currents on their way back.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Inverse of the admittance at the far end, with all that hangs on it.
    inverse: M3,
    /// Voltage at the far end for one at the near end.
    there: M3,
    /// Current at the near end for one drawn at the far end.
    back: M3,
}

impl Step {
    fn through(branch: &TwoPort<3>, below: &M3) -> Option<Self> {
        let inverse = invert(diagonal(&branch.tt) + below)?;
        Some(Self {
            inverse,
            there: -inverse * diagonal(&branch.tf),
            back: -diagonal(&branch.ft) * inverse,
        })
    }

    fn place(&self, above: &Place) -> Place {
        Place {
            voltage: self.there * above.voltage,
            impedance: self.inverse + self.there * above.impedance * self.back,
            share: above.share * self.back,
        }
    }
}

/// The feeder for one set of load admittances.
#[derive(Debug, Clone)]
pub(super) struct Reduction {
    /// Admittance of the healthy feeder at the head.
    pub(super) at_head: M3,
    /// Admittance of all that hangs on each node of the tree, without the branch that leads to it.
    below: Vec<M3>,
    /// Each node of the tree as the place of a fault.
    pub(super) places: Vec<Place>,
    /// The branch that leads to each node of the tree; none for the head.
    steps: Vec<Option<Step>>,
}

fn diagonal(y: &[C64; 3]) -> M3 {
    M3::from_diagonal(&Vector3::from(*y))
}

fn invert(matrix: M3) -> Option<M3> {
    matrix
        .try_inverse()
        .filter(|inverse| inverse.iter().all(|x| x.re.is_finite() && x.im.is_finite()))
}

/// Admittance of a branch at its near end, with `below` at its far end.
fn seen(branch: &TwoPort<3>, below: &M3) -> Option<M3> {
    Some(diagonal(&branch.ff) + diagonal(&branch.ft) * Step::through(branch, below)?.there)
}

/// A part of a line: series impedance and capacitance in proportion.
fn part(line: &TwoPort<3>, share: f64) -> TwoPort<3> {
    let series: [C64; 3] = std::array::from_fn(|k| -line.ft[k] / share);
    let end = |y: &[C64; 3]| std::array::from_fn(|k| series[k] + (y[k] + line.ft[k]) * share);
    TwoPort {
        ff: end(&line.ff),
        ft: series.map(|y| -y),
        tf: series.map(|y| -y),
        tt: end(&line.tt),
    }
}

impl Reduction {
    /// Reduces the feeder; `loads` are admittances by index in the tree, symmetrical components.
    ///
    /// # Errors
    /// [`GridError::Singular`] where loads and lines leave a voltage undetermined.
    pub(super) fn new(network: &Network, feeder: &Feeder, loads: &[M3]) -> Result<Self, GridError> {
        let n = feeder.nodes.len();
        let mut below: Vec<M3> = (0..n).map(|at| loads[at] + diagonal(&feeder.shunts[at])).collect();
        let singular = |at: usize| GridError::Singular {
            what: "fault location",
            node: feeder.nodes[at].node.map_or(-1, |node| network.nodes[node].id),
            remedy: "check the impedances of its branches and the size of its loads",
        };
        for at in (1..n).rev() {
            let node = &feeder.nodes[at];
            let y = seen(&node.two_port, &below[at]).ok_or_else(|| singular(at))?;
            below[node.parent] += y;
        }
        let mut places = vec![
            Place {
                voltage: M3::identity(),
                impedance: M3::zeros(),
                share: M3::identity(),
            };
            n
        ];
        let mut steps = vec![None; n];
        for at in 1..n {
            let node = &feeder.nodes[at];
            let step = Step::through(&node.two_port, &below[at]).ok_or_else(|| singular(at))?;
            places[at] = step.place(&places[node.parent]);
            steps[at] = Some(step);
        }
        Ok(Self {
            at_head: below[HEAD],
            below,
            places,
            steps,
        })
    }

    /// A point at a share of the line that leads to a node of the tree, counted from the head's side.
    pub(super) fn along(&self, feeder: &Feeder, at: usize, share: f64) -> Option<Place> {
        let node = &feeder.nodes[at];
        let beyond = seen(&part(&node.two_port, 1.0 - share), &self.below[at])?;
        Some(Step::through(&part(&node.two_port, share), &beyond)?.place(&self.places[node.parent]))
    }

    /// Voltages of all nodes of the tree while a current leaves the feeder at a share of the line that leads to one of them; `None` for
    /// the share means at that node itself.
    pub(super) fn voltages(&self, feeder: &Feeder, at: usize, share: Option<f64>, fault_current: &V3, head: &V3) -> Option<Vec<V3>> {
        // what the fault draws, as seen at each node between it and the head
        let mut drawn: Vec<Option<V3>> = vec![None; feeder.nodes.len()];
        let mut above = (at, *fault_current);
        let mut beyond = None;
        if let Some(share) = share {
            let node = &feeder.nodes[at];
            let rest = part(&node.two_port, 1.0 - share);
            let step = Step::through(&part(&node.two_port, share), &seen(&rest, &self.below[at])?)?;
            beyond = Some((step, Step::through(&rest, &self.below[at])?));
            above = (node.parent, step.back * fault_current);
        }
        while above.0 != HEAD {
            drawn[above.0] = Some(above.1);
            above = (feeder.nodes[above.0].parent, self.steps[above.0]?.back * above.1);
        }
        let mut voltage = vec![*head; feeder.nodes.len()];
        for index in 1..voltage.len() {
            let step = self.steps[index]?;
            let near = voltage[feeder.nodes[index].parent];
            voltage[index] = step.there * near;
            if let Some(current) = drawn[index] {
                voltage[index] -= step.inverse * current;
            }
            if let Some((to_fault, from_fault)) = beyond.filter(|_| index == at) {
                voltage[index] = from_fault.there * (to_fault.there * near - to_fault.inverse * fault_current);
            }
        }
        Some(voltage)
    }
}
