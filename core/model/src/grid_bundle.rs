//! A grid bundle as the counter shows it: which meter is at which node, in which area, on which feeder. It says what the operator handed
//! over; where the switches stand now is an [`outcome`](crate::outcome).

use std::sync::Arc;

/// Everything that does not change while the same bundle is in use.
///
/// # Shape
/// Areas are ordered by path, everything else as in the bundle's files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GridBundle {
    /// Whether the estimate has three phases; if not, it is that of the positive sequence.
    pub is_three_phase: bool,
    /// Areas.
    pub areas: Vec<BundleArea>,
    /// Nodes.
    pub nodes: Vec<BundleNode>,
    /// Branches.
    pub branches: Vec<BundleBranch>,
    /// Meters.
    pub meters: Vec<BundleMeter>,
    /// Switches.
    pub switches: Vec<BundleSwitch>,
}

/// A row of `areas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleArea {
    /// Its path, for example `mv1/lv07`.
    pub path: Arc<str>,
    /// Depth of the path: 1 for a top area.
    pub level: u32,
    /// The area that feeds it; `None` for a top one.
    pub parent: Option<Arc<str>>,
    /// Number of its nodes.
    pub n_nodes: u32,
    /// Number of its meters.
    pub n_meters: u32,
}

/// A row of `nodes`.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleNode {
    /// Its id in `network.json`.
    pub id: i64,
    /// Its name in `names.csv`.
    pub name: Option<String>,
    /// Path of its area.
    pub area: Arc<str>,
    /// Rated voltage between phases, V.
    pub u_rated_v: f64,
    /// The branch by which its supply leaves the source, with the switches as the bundle has them; `None` at a source and without supply.
    pub feeder: Option<i64>,
}

/// A row of `branches`.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleBranch {
    /// Its id in `network.json`.
    pub id: i64,
    /// Its name in `names.csv`.
    pub name: Option<String>,
    /// `line`, `transformer` or `link`.
    pub kind: &'static str,
    /// Id of its from node.
    pub from_node: i64,
    /// Id of its to node.
    pub to_node: i64,
    /// Path of the area of its to node: a branch that enters an area counts as the area's.
    pub area: Arc<str>,
    /// Whether both ends are connected in `network.json`.
    pub is_closed: bool,
    /// Rated current of a line, A, if it is given.
    pub i_rated_a: Option<f64>,
}

/// A row of `meters`.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleMeter {
    /// Who sends.
    pub hardware_id: String,
    /// Id of its node.
    pub node_id: i64,
    /// Path of the node's area.
    pub area: Arc<str>,
    /// The node's feeder.
    pub feeder: Option<i64>,
    /// `abc`, `a`, `b` or `c`.
    pub phases: &'static str,
    /// `customer`, `concentrator`, `substation` or `feeder`.
    pub role: &'static str,
    /// Relative standard deviation of its voltages.
    pub accuracy_v: f64,
    /// Relative standard deviation of its powers.
    pub accuracy_p: f64,
}

/// A switch as the bundle has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSwitch {
    /// Id of the branch that is switched.
    pub branch_id: i64,
    /// The device whose `switch.position` alerts operate it.
    pub hardware_id: String,
    /// Path of the branch's area.
    pub area: Arc<str>,
    /// Whether it is closed as a rule.
    pub normally_closed: bool,
    /// Whether it can be operated from afar.
    pub controllable: bool,
}

impl GridBundle {
    /// The area with this path.
    pub fn area(&self, path: &str) -> Option<&BundleArea> {
        let at = self.areas.binary_search_by(|area| (*area.path).cmp(path)).ok()?;
        self.areas.get(at)
    }

    /// The switch of this branch.
    pub fn switch(&self, branch_id: i64) -> Option<&BundleSwitch> {
        self.switches.iter().find(|switch| switch.branch_id == branch_id)
    }
}
