//! One look for something better: the upper level of a grid as its switches stand and its loads are estimated, and what the search makes
//! of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flexmeter_grid::areas::Area;
use flexmeter_grid::reconfiguration::{Drawn, Operation, Options, Reconfiguration, reconfigure};
use flexmeter_model::HardwareId;

use crate::grid::Grid;

/// What is known of a grid at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) grid: Arc<Grid>,
    /// By id of the branch: whether the switch is closed.
    pub(crate) closed: Vec<(i64, bool)>,
    /// By index of a top area: what its nodes draw, by index in the whole network.
    pub(crate) drawn: BTreeMap<u32, Vec<(u32, f64, f64)>>,
    pub(crate) options: Options,
}

/// Something better.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Path of the area.
    pub(crate) area: String,
    /// What to do, in order, and whom to command.
    pub(crate) operations: Vec<(Operation, HardwareId)>,
    pub(crate) loss_before_w: f64,
    pub(crate) loss_after_w: f64,
    pub(crate) loss_d4_6_w: Option<f64>,
    pub(crate) voltage_min_pu: [f64; 2],
}

impl Found {
    pub(crate) fn saving_w(&self) -> f64 {
        self.loss_before_w - self.loss_after_w
    }
}

/// By path of each top area: what would be better there, or nothing.
pub(crate) type Evaluation = Vec<(String, Option<Found>)>;

/// Looks at every area of the snapshot. An area that has loops, or cannot carry its loads, has nothing better.
pub(crate) fn evaluate(snapshot: &Snapshot) -> Evaluation {
    let grid = &snapshot.grid;
    let mut network = grid.bundle().network.clone();
    for &(id, closed) in &snapshot.closed {
        if let Some(branch) = network.branch_index(id)
            && network.branches()[branch].is_closed() != closed
        {
            network.set_closed(branch, closed);
        }
    }
    let layout = grid.layout();
    let entrances = layout.entrances(&network);
    let areas = snapshot.drawn.iter().filter(|(area, _)| (**area as usize) < layout.paths().len());
    areas
        .map(|(&area, drawn)| {
            let area = layout.cut(&network, &entrances, area as usize);
            let found = look(grid, &area, drawn, &snapshot.options);
            (area.path, found)
        })
        .collect()
}

fn look(grid: &Grid, area: &Area, drawn: &[(u32, f64, f64)], options: &Options) -> Option<Found> {
    let switches = switches(grid, area);
    if switches.is_empty() || drawn.is_empty() {
        return None;
    }
    let place: HashMap<usize, usize> = area.nodes.iter().enumerate().map(|(own, &node)| (node, own)).collect();
    let drawn: Vec<Drawn> = drawn
        .iter()
        .filter_map(|&(node, p_w, q_var)| {
            let node = *place.get(&(node as usize))?;
            Some(Drawn { node, p_w, q_var })
        })
        .collect();
    let network = area.network.with_drawn(&drawn);
    let branches: Vec<usize> = switches.keys().copied().collect();
    let result = reconfigure(&network, &branches, options).ok()?;
    let operations: Option<Vec<_>> = result
        .operations(&network)
        .into_iter()
        .map(|operation| Some((operation, switches.get(&network.branch_index(operation.branch)?)?.clone())))
        .collect();
    found(&area.path, &result, operations?)
}

fn found(area: &str, result: &Reconfiguration, operations: Vec<(Operation, HardwareId)>) -> Option<Found> {
    let found = Found {
        area: area.to_owned(),
        operations,
        loss_before_w: result.initial.loss_w,
        loss_after_w: result.best.loss_w,
        loss_d4_6_w: result.d4_6.as_ref().ok().map(|tree| tree.loss_w).filter(|loss| loss.is_finite()),
        voltage_min_pu: [result.initial.voltage_min_pu.1, result.best.voltage_min_pu.1],
    };
    let numbers = [
        found.loss_before_w,
        found.loss_after_w,
        found.voltage_min_pu[0],
        found.voltage_min_pu[1],
    ];
    let is_plan = !found.operations.is_empty() && numbers.iter().all(|number| number.is_finite());
    is_plan.then_some(found)
}

/// By index in the area's network: switches that can be commanded, and their devices. Both ends are in the area itself: what enters a
/// lower area is no matter of losses, and two entrances at once are none that can be estimated.
fn switches(grid: &Grid, area: &Area) -> BTreeMap<usize, HardwareId> {
    let n_own = area.nodes.len() - area.children.len();
    let controllable = grid.bundle().switches.iter().filter(|switch| switch.controllable);
    controllable
        .filter_map(|switch| {
            let id = grid.bundle().network.branches().get(switch.branch)?.id;
            let own = area.network.branch_index(id)?;
            let branch = &area.network.branches()[own];
            let device = HardwareId::new(&grid.switch_device(id)?).ok()?;
            (branch.from < n_own && branch.to < n_own).then_some((own, device))
        })
        .collect()
}
