//! What the grid's routes answer, and what is published of an estimate: one shape for both.

use flexmeter_model::grid_bundle::{BundleArea, BundleBranch, BundleMeter, BundleSwitch};
use flexmeter_model::outcome::{AreaEstimate, GridPhase, GridQuality, GridQuantity, SwitchRow};
use serde::Serialize;

use crate::live::LiveGrid;

/// How far an estimate can be trusted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QualityDocument {
    /// Weighted sum of squared residuals; expected to be `degreesOfFreedom`.
    j: f64,
    /// Readings beyond what the state needs.
    degrees_of_freedom: u32,
    /// Hardware ids whose readings were left out because they contradict all others.
    suspects: Vec<String>,
    /// Whether the readings determine the state without any pseudo-measurement.
    observable: bool,
    /// Meters whose reading is taken as it is: not aged, not made up.
    n_measurements: u32,
    /// Meters and loads for which a pseudo-measurement or an aged reading stands.
    n_pseudo: u32,
    /// Why there is no estimate; null if there is one.
    #[schema(required = true)]
    problem: Option<String>,
}

impl From<&GridQuality> for QualityDocument {
    fn from(quality: &GridQuality) -> Self {
        Self {
            j: quality.j,
            degrees_of_freedom: quality.degrees_of_freedom,
            suspects: quality.suspects.clone(),
            observable: quality.observable,
            n_measurements: quality.n_measurements,
            n_pseudo: quality.n_pseudo,
            problem: quality.problem.clone(),
        }
    }
}

/// The estimated state of a node; every list has one value for each of the estimate's `phases`. All zero without supply.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeDocument {
    /// Its id in network.json.
    node_id: i64,
    /// Whether it has supply.
    energised: bool,
    /// Voltage, phase to ground, V.
    voltage_v: Vec<f64>,
    /// Standard deviation of the voltage, V.
    voltage_sigma_v: Vec<f64>,
    /// Angle of the voltage against phase a at the area's root, rad.
    angle_rad: Vec<f64>,
    /// Standard deviation of the angle, rad.
    angle_sigma_rad: Vec<f64>,
    /// Active power that the node's appliances take, W; at the root of an area less what enters there.
    p_w: Vec<f64>,
    /// Standard deviation of the active power, W.
    p_sigma_w: Vec<f64>,
    /// Reactive power, likewise, var.
    q_var: Vec<f64>,
    /// Standard deviation of the reactive power, var.
    q_sigma_var: Vec<f64>,
}

/// The estimate of an area; also what is published at `flexmeter/{tenant}/grid/{area}/estimate`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EstimateDocument {
    /// Path of the area.
    area: String,
    /// Depth of the area: 1 for a top one.
    level: u32,
    /// The newest reading in the estimate, RFC 3339; null while it is made of pseudo-measurements alone.
    #[schema(required = true, format = DateTime)]
    event_time: Option<String>,
    /// Names of the phases, or `total` where only the positive sequence is estimated.
    phases: Vec<&'static str>,
    /// How far it can be trusted.
    quality: QualityDocument,
    /// State of each node; empty where there is no estimate.
    nodes: Vec<NodeDocument>,
    /// Nodes that do not fit a message; a message with some has no nodes at all: ask REST or SQL.
    n_nodes_omitted: usize,
}

impl From<&AreaEstimate> for EstimateDocument {
    fn from(estimate: &AreaEstimate) -> Self {
        let n_phases = estimate.phases().len();
        let nodes = estimate.nodes.iter().zip(&estimate.states).map(|(&node_id, state)| {
            let value = |quantity: GridQuantity| state.value[quantity as usize][..n_phases].to_vec();
            let sigma = |quantity: GridQuantity| state.sigma[quantity as usize][..n_phases].to_vec();
            NodeDocument {
                node_id,
                energised: state.energised,
                voltage_v: value(GridQuantity::Voltage),
                voltage_sigma_v: sigma(GridQuantity::Voltage),
                angle_rad: value(GridQuantity::Angle),
                angle_sigma_rad: sigma(GridQuantity::Angle),
                p_w: value(GridQuantity::ActivePower),
                p_sigma_w: sigma(GridQuantity::ActivePower),
                q_var: value(GridQuantity::ReactivePower),
                q_sigma_var: sigma(GridQuantity::ReactivePower),
            }
        });
        let name = |phase: &GridPhase| match phase {
            GridPhase::Total => "total",
            phase => phase.as_str(),
        };
        Self {
            area: estimate.area.to_string(),
            level: estimate.quality.level,
            event_time: LiveGrid::heard_at(estimate).map(|time| time.to_string()),
            phases: estimate.phases().iter().map(name).collect(),
            quality: (&estimate.quality).into(),
            nodes: nodes.collect(),
            n_nodes_omitted: 0,
        }
    }
}

impl EstimateDocument {
    /// The same without its nodes, for whom it would be too long.
    #[must_use]
    pub fn without_nodes(mut self) -> Self {
        self.n_nodes_omitted += self.nodes.len();
        self.nodes.clear();
        self
    }
}

/// A switch and where it stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchDocument {
    /// Branch that is switched.
    branch_id: i64,
    /// Path of its area.
    area: String,
    /// Device whose `switch.position` alerts operate it.
    hardware_id: String,
    /// Where it stands now: `open` or `closed`.
    position: &'static str,
    /// Where it stands as a rule.
    normal_position: &'static str,
    /// Whether it can be operated from afar.
    controllable: bool,
    /// When it was operated, RFC 3339; null while its position is the bundle's.
    #[schema(required = true, format = DateTime)]
    event_time: Option<String>,
}

impl SwitchDocument {
    /// A switch of the bundle as it stands.
    #[must_use]
    pub fn new(switch: &BundleSwitch, now: Option<&SwitchRow>) -> Self {
        Self {
            branch_id: switch.branch_id,
            area: switch.area.to_string(),
            hardware_id: switch.hardware_id.clone(),
            position: position(now.map_or(switch.normally_closed, |row| row.closed)),
            normal_position: position(switch.normally_closed),
            controllable: switch.controllable,
            event_time: now.and_then(|row| row.since).map(|time| time.to_string()),
        }
    }
}

pub(super) fn position(closed: bool) -> &'static str {
    if closed { "closed" } else { "open" }
}

/// An area of the list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct AreaItem {
    /// Its path.
    area: String,
    /// Depth of the path: 1 for a top area.
    level: u32,
    /// The area that feeds it; null for a top one.
    #[schema(required = true)]
    parent: Option<String>,
    /// Number of its nodes.
    n_nodes: u32,
    /// Number of its meters.
    n_meters: u32,
    /// The newest reading in its estimate, RFC 3339; null before the first reading.
    #[schema(required = true, format = DateTime)]
    event_time: Option<String>,
    /// How far its estimate can be trusted; null before the first one.
    #[schema(required = true)]
    quality: Option<QualityDocument>,
}

impl AreaItem {
    pub(super) fn new(area: &BundleArea, grid: &LiveGrid) -> Self {
        let estimate = grid.areas().get(&area.path);
        Self {
            area: area.path.to_string(),
            level: area.level,
            parent: area.parent.as_deref().map(str::to_owned),
            n_nodes: area.n_nodes,
            n_meters: area.n_meters,
            event_time: estimate
                .and_then(|estimate| LiveGrid::heard_at(estimate))
                .map(|time| time.to_string()),
            quality: estimate.map(|estimate| (&estimate.quality).into()),
        }
    }
}

/// A grid.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct Grid {
    /// The epoch that everything here is of.
    pub(super) epoch: u64,
    /// Whether the estimate has three phases; if not, it is that of the positive sequence.
    pub(super) three_phase: bool,
    /// Number of nodes.
    pub(super) n_nodes: usize,
    /// Number of branches.
    pub(super) n_branches: usize,
    /// Number of meters.
    pub(super) n_meters: usize,
    /// Areas, ordered by path.
    pub(super) areas: Vec<AreaItem>,
    /// Switches.
    pub(super) switches: Vec<SwitchDocument>,
}

/// A node as the bundle has it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct NodeItem {
    /// Its id in network.json.
    pub(super) node_id: i64,
    /// Its name, if it has one.
    #[schema(required = true)]
    pub(super) name: Option<String>,
    /// Rated voltage between phases, V.
    pub(super) u_rated_v: f64,
}

/// A branch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct BranchItem {
    /// Its id in network.json.
    branch_id: i64,
    /// Its name, if it has one.
    #[schema(required = true)]
    name: Option<String>,
    /// `line`, `transformer` or `link`.
    kind: &'static str,
    /// Node at its from side; of the branch that enters the area it is a node of the area above.
    from_node: i64,
    /// Node at its to side.
    to_node: i64,
    /// Whether it is closed now.
    closed: bool,
}

impl BranchItem {
    pub(super) fn new(branch: &BundleBranch, grid: &LiveGrid) -> Self {
        Self {
            branch_id: branch.id,
            name: branch.name.clone(),
            kind: branch.kind,
            from_node: branch.from_node,
            to_node: branch.to_node,
            closed: grid.is_closed(branch.id, branch.is_closed),
        }
    }
}

/// A meter.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct MeterItem {
    /// Who sends.
    hardware_id: String,
    /// Its node.
    node_id: i64,
    /// `abc`, `a`, `b` or `c`.
    phases: &'static str,
    /// `customer`, `concentrator`, `substation` or `feeder`.
    role: &'static str,
}

impl From<&BundleMeter> for MeterItem {
    fn from(meter: &BundleMeter) -> Self {
        Self {
            hardware_id: meter.hardware_id.clone(),
            node_id: meter.node_id,
            phases: meter.phases,
            role: meter.role,
        }
    }
}

/// An area: what it is made of and how it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct Area {
    /// The epoch that everything here is of.
    pub(super) epoch: u64,
    /// Its path.
    pub(super) area: String,
    /// The area that feeds it; null for a top one.
    #[schema(required = true)]
    pub(super) parent: Option<String>,
    /// The areas it feeds.
    pub(super) children: Vec<String>,
    /// Nodes.
    pub(super) nodes: Vec<NodeItem>,
    /// Branches, with the one that enters it.
    pub(super) branches: Vec<BranchItem>,
    /// Meters.
    pub(super) meters: Vec<MeterItem>,
    /// Switches of its branches.
    pub(super) switches: Vec<SwitchDocument>,
    /// The current state; null before the first estimate.
    #[schema(required = true)]
    pub(super) estimate: Option<EstimateDocument>,
}

/// The position a switch is to be recorded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::rest) enum Position {
    /// Nothing passes.
    Open,
    /// Connected.
    Closed,
}

/// What a switch operation asks for.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct Operation {
    /// `open` or `closed`.
    pub(super) position: Position,
}

/// What a switch operation has done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct Operated {
    /// Branch that is switched.
    pub(super) branch_id: i64,
    /// Device in whose name the alert was stored.
    pub(super) hardware_id: String,
    /// Type of the alert: `switch.position`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The position it says.
    pub(super) position: &'static str,
    /// Where the switch stood when the alert was stored.
    pub(super) position_before: &'static str,
    /// Time of the alert, RFC 3339.
    #[schema(format = DateTime)]
    pub(super) event_time: String,
}
