//! A grid in operation: what its meters would read, without any error. The truth of simulations, and of the tests that compare with it.

use crate::bundle::{Bundle, Reading};
use crate::error::GridError;
use crate::model::BASE_POWER_VA;
use crate::network::{ComponentId, Network, PerPhase, Terminal};
use crate::power_flow::{AsymmetricPowerFlow, Options};

/// Voltages of a solution move by no more than this in the last step, per unit.
const TOLERANCE_PU: f64 = 1e-10;

/// A grid with its loads and switches, and the voltages they lead to.
#[derive(Debug, Clone)]
pub struct SimulatedGrid {
    bundle: Bundle,
    network: Network,
    /// `None` after a switch has moved.
    flow: Option<AsymmetricPowerFlow>,
    is_solved: bool,
}

impl SimulatedGrid {
    /// A grid as its bundle says.
    pub fn new(bundle: Bundle) -> Self {
        Self {
            network: bundle.network.clone(),
            bundle,
            flow: None,
            is_solved: false,
        }
    }

    /// The bundle it was made of.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The network as its switches stand.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A load takes this from now on, W and var by phase. An index of [`Network::appliances`]; one that is none changes nothing.
    pub fn set_load(&mut self, appliance: usize, p_w: [f64; 3], q_var: [f64; 3]) {
        if let Some(appliance) = self.network.appliances.get_mut(appliance) {
            (appliance.p_w, appliance.q_var) = (PerPhase::Phases(p_w), PerPhase::Phases(q_var));
            self.is_solved = false;
        }
    }

    /// Opens or closes a branch; whether there is one with this id.
    pub fn operate(&mut self, branch: ComponentId, closed: bool) -> bool {
        let Some(branch) = self.network.branch_index(branch) else {
            return false;
        };
        self.network.set_closed(branch, closed);
        self.flow = None;
        self.is_solved = false;
        true
    }

    /// Finds the voltages that loads and switches lead to.
    ///
    /// # Errors
    /// As [`AsymmetricPowerFlow::new`] and [`AsymmetricPowerFlow::solve`].
    pub fn solve(&mut self) -> Result<(), GridError> {
        let flow = match &mut self.flow {
            Some(flow) => {
                flow.set_loads(&self.network)?;
                flow
            }
            none => none.insert(AsymmetricPowerFlow::new(&self.network)?),
        };
        let options = Options {
            tolerance_pu: TOLERANCE_PU,
            ..Options::default()
        };
        flow.resolve(&options)?;
        self.is_solved = true;
        Ok(())
    }

    /// What a meter reads on all phases, by its index in [`Bundle::meters`]; `None` without supply or before [`Self::solve`].
    pub fn reading(&self, meter: usize) -> Option<Reading> {
        let meter = self.bundle.meters.get(meter)?;
        let u_v = self.voltage_v(meter.node)?;
        // out of the branch, or against the grid, is into the area or load
        let sign = match meter.terminal {
            Terminal::BranchTo(_) | Terminal::Appliance(_) => -1.0,
            _ => 1.0,
        };
        let s = self.flow.as_ref()?.terminal_pu(&self.network, meter.terminal);
        let si = s.map(|s| s * (sign * BASE_POWER_VA / 3.0));
        Some(Reading {
            u_v,
            p_w: si.map(|s| s.re),
            q_var: si.map(|s| s.im),
        })
    }

    /// Voltage of a node by its index, phase to ground, V; `None` without supply or before [`Self::solve`].
    pub fn voltage_v(&self, node: usize) -> Option<[f64; 3]> {
        let flow = self.flow.as_ref().filter(|_| self.is_solved)?;
        let base_v = self.network.nodes.get(node)?.u_rated_v / 3f64.sqrt();
        Some(flow.voltage_pu(node)?.map(|u| u.norm() * base_v))
    }

    /// Active power that the grid itself takes, W; 0 before [`Self::solve`].
    pub fn loss_w(&self) -> f64 {
        let Some(flow) = self.flow.as_ref().filter(|_| self.is_solved) else {
            return 0.0;
        };
        let of_branch = |branch| {
            let flow = flow.branch_flow(&self.network, branch);
            (flow.s_from_pu.iter().chain(&flow.s_to_pu)).map(|s| s.re).sum::<f64>()
        };
        (0..self.network.branches.len()).map(of_branch).sum::<f64>() * BASE_POWER_VA / 3.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = r#"{"version":"1.0","type":"input","is_batch":false,"attributes":{},"data":{
        "node":[{"id":1,"u_rated":400},{"id":2,"u_rated":400}],
        "line":[{"id":3,"from_node":1,"to_node":2,"from_status":1,"to_status":1,"r1":0.1,"x1":0,"c1":0,"tan1":0,"r0":0.1,"x0":0,"c0":0,"tan0":0}],
        "source":[{"id":4,"node":1,"status":1,"u_ref":1,"sk":1e15}],
        "asym_load":[{"id":5,"node":2,"status":1,"type":0,"p_specified":[0,0,0],"q_specified":[0,0,0]}]}}"#;

    fn grid() -> SimulatedGrid {
        let bundle = Bundle::from_texts(
            NETWORK,
            "node_id,area\n1,lv\n2,lv\n",
            "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\nF,1,abc,feeder,0.01,0.01\nC,2,abc,customer,0.01,0.01\n",
            "branch_id,normal,controllable,hardware_id\n3,closed,true,SW\n",
        );
        SimulatedGrid::new(bundle.unwrap())
    }

    #[test]
    fn meters_read_what_a_calculation_by_hand_gives() {
        let mut grid = grid();
        assert_eq!(grid.reading(1), None, "nothing is solved yet");
        grid.set_load(0, [1_000.0, 0.0, 0.0], [0.0; 3]);
        grid.solve().unwrap();
        // u² - u·u0 + r·p = 0 at the end of a line of 0.1 ohm
        let u0 = 400.0 / 3f64.sqrt();
        let u = (u0 + (u0 * u0 - 4.0 * 0.1 * 1_000.0).sqrt()) / 2.0;
        let (head, load) = (grid.reading(0).unwrap(), grid.reading(1).unwrap());
        assert!((load.u_v[0] - u).abs() < 1e-6 && (load.u_v[1] - u0).abs() < 1e-6, "{load:?}");
        assert!((load.p_w[0] - 1_000.0).abs() < 1e-6, "{load:?}");
        let loss = 0.1 * (1_000.0 / u).powi(2);
        // what a source gives is a small difference of large numbers
        assert!((head.p_w[0] - 1_000.0 - loss).abs() < 1e-2, "{head:?}");
        assert!((grid.loss_w() - loss).abs() < 1e-5, "{} {loss}", grid.loss_w());
    }

    #[test]
    fn behind_an_open_switch_nothing_is_read() {
        let mut grid = grid();
        assert!(grid.operate(3, false) && !grid.operate(99, false));
        grid.solve().unwrap();
        assert!(grid.reading(0).is_some() && grid.reading(1).is_none());
        grid.operate(3, true);
        assert_eq!(grid.reading(0), None, "the last solution is another grid's");
        grid.solve().unwrap();
        assert!(grid.reading(1).is_some());
    }
}
