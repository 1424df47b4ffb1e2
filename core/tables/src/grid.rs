//! The grid's tables: what is estimated (`grid_state`, `grid_quality`), where the switches stand (`switches`), and the bundle itself
//! (`areas`, `nodes`, `branches`, `meters`). Their newest rows are made by the counter; [`crate::grid_history`] encodes the past of estimates.

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};

const AREA: ColumnDef = ColumnDef::new("area", ColumnType::Text, "path of the area, for example mv1/lv07");
const FEEDER: ColumnDef = ColumnDef::nullable(
    "feeder",
    ColumnType::Long,
    "branch by which the supply leaves the source, with the switches as in the bundle; null at a source and without supply",
);

/// The estimated state.
pub const STATE: TableDef = TableDef {
    name: "grid_state",
    kind: TableKind::LiveAndHistory,
    comment: "The estimated state of every node and how sure it is: the newest of each area, and of the past the last one of each minute of event time for which there was one; a node without supply has 0 everywhere",
    columns: &[
        AREA,
        ColumnDef::new("node_id", ColumnType::Long, "node, its id in network.json"),
        ColumnDef::new(
            "phase",
            ColumnType::Text,
            "a, b or c; empty for a total: powers are sums, voltages those of the positive sequence",
        ),
        ColumnDef::new(
            "quantity",
            ColumnType::Text,
            "voltage_v (phase to ground, V), angle_rad (against phase a at the area's root, rad), p_w (active power that the node's appliances take, W; at an area's root less what enters there), q_var (reactive power, likewise, var)",
        ),
        ColumnDef::new("value", ColumnType::Float, "estimate, in the quantity's unit"),
        ColumnDef::new("sigma", ColumnType::Float, "its standard deviation, in the same unit"),
        ColumnDef::nullable(
            "event_time",
            ColumnType::Time,
            "newest reading in the estimate, of the area or of one below it (UTC); null before the first",
        ),
    ],
    lake_columns: &[],
};

/// How far estimates can be trusted.
pub const QUALITY: TableDef = TableDef {
    name: "grid_quality",
    kind: TableKind::LiveAndHistory,
    comment: "How far the estimate of each area can be trusted: the newest, and of the past the last one of each minute of event time for which there was one",
    columns: &[
        AREA,
        ColumnDef::new("level", ColumnType::Int, "depth of the area: 1 for a top one"),
        ColumnDef::new(
            "j",
            ColumnType::Float,
            "weighted sum of squared residuals; expected to be degrees_of_freedom",
        ),
        ColumnDef::new("degrees_of_freedom", ColumnType::Long, "readings beyond what the state needs"),
        ColumnDef::new(
            "suspects",
            ColumnType::Text,
            "JSON array of the hardware ids whose readings were left out because they contradict all others",
        ),
        ColumnDef::new(
            "observable",
            ColumnType::Bool,
            "whether the readings determine the state without any pseudo-measurement",
        ),
        ColumnDef::new(
            "n_measurements",
            ColumnType::Long,
            "meters whose reading is taken as it is: not aged, not made up",
        ),
        ColumnDef::new(
            "n_pseudo",
            ColumnType::Long,
            "meters and loads for which a pseudo-measurement or an aged reading stands",
        ),
        ColumnDef::nullable("problem", ColumnType::Text, "why there is no estimate, if there is none"),
        ColumnDef::nullable(
            "event_time",
            ColumnType::Time,
            "newest reading in the estimate (UTC); null before the first",
        ),
    ],
    lake_columns: &[],
};

/// Positions of the switches.
pub const SWITCHES: TableDef = TableDef {
    name: "switches",
    kind: TableKind::Live,
    comment: "Where every switch stands now; where it stood before is in switch_history",
    columns: &[
        ColumnDef::new("branch_id", ColumnType::Long, "branch that is switched, its id in network.json"),
        AREA,
        ColumnDef::new("hardware_id", ColumnType::Text, "device whose switch.position alerts operate it"),
        ColumnDef::new("position", ColumnType::Text, "open or closed"),
        ColumnDef::new("normal_position", ColumnType::Text, "open or closed, as switches.csv says"),
        ColumnDef::new("controllable", ColumnType::Bool, "whether it can be operated from afar"),
        ColumnDef::nullable(
            "event_time",
            ColumnType::Time,
            "when it was operated (UTC); null while the position is the bundle's",
        ),
    ],
    lake_columns: &[],
};

/// Where the switches stood.
pub const SWITCH_HISTORY: TableDef = TableDef {
    name: "switch_history",
    kind: TableKind::View,
    comment: "Where each switch has stood since when, as its switch.position alerts say; before its first one a switch stood as the bundle says",
    columns: &[
        ColumnDef::new("branch_id", ColumnType::Long, "branch that is switched, its id in network.json"),
        AREA,
        ColumnDef::new("hardware_id", ColumnType::Text, "device that reported the position"),
        ColumnDef::new("position", ColumnType::Text, "open or closed"),
        ColumnDef::new("valid_from", ColumnType::Time, "when it was operated, by the device's clock (UTC)"),
        ColumnDef::nullable(
            "valid_to",
            ColumnType::Time,
            "when it was operated next (UTC); null while it stands so",
        ),
        ColumnDef::new("received_at", ColumnType::Time, "when the log appended the report (UTC)"),
    ],
    lake_columns: &[],
};

/// Meters of the bundle.
pub const METERS: TableDef = TableDef {
    name: "meters",
    kind: TableKind::Reference,
    comment: "The meters of the grid bundle: hardware id, node, area and feeder",
    columns: &[
        ColumnDef::new("hardware_id", ColumnType::Text, "device that sends"),
        ColumnDef::new("node_id", ColumnType::Long, "its node"),
        AREA,
        FEEDER,
        ColumnDef::new("phases", ColumnType::Text, "abc, a, b or c"),
        ColumnDef::new("role", ColumnType::Text, "customer, concentrator, substation or feeder"),
        ColumnDef::new("accuracy_v", ColumnType::Float, "relative standard deviation of its voltages"),
        ColumnDef::new("accuracy_p", ColumnType::Float, "relative standard deviation of its powers"),
    ],
    lake_columns: &[],
};

/// Areas of the bundle.
pub const AREAS: TableDef = TableDef {
    name: "areas",
    kind: TableKind::Reference,
    comment: "The areas of the grid bundle; each one is estimated for itself, the lowest level first",
    columns: &[
        AREA,
        ColumnDef::new("level", ColumnType::Int, "depth of the path: 1 for a top area"),
        ColumnDef::nullable("parent", ColumnType::Text, "area that feeds it; null for a top one"),
        ColumnDef::new("n_nodes", ColumnType::Long, "number of its nodes"),
        ColumnDef::new("n_meters", ColumnType::Long, "number of its meters"),
    ],
    lake_columns: &[],
};

/// Nodes of the bundle.
pub const NODES: TableDef = TableDef {
    name: "nodes",
    kind: TableKind::Reference,
    comment: "The nodes of the grid bundle",
    columns: &[
        ColumnDef::new("node_id", ColumnType::Long, "its id in network.json"),
        ColumnDef::nullable("name", ColumnType::Text, "its name in names.csv"),
        AREA,
        ColumnDef::new("u_rated_v", ColumnType::Float, "rated voltage between phases, V"),
        FEEDER,
    ],
    lake_columns: &[],
};

/// Branches of the bundle.
pub const BRANCHES: TableDef = TableDef {
    name: "branches",
    kind: TableKind::Reference,
    comment: "The lines, transformers and links of the grid bundle; where the switches stand now is in switches",
    columns: &[
        ColumnDef::new("branch_id", ColumnType::Long, "its id in network.json"),
        ColumnDef::nullable("name", ColumnType::Text, "its name in names.csv"),
        ColumnDef::new("kind", ColumnType::Text, "line, transformer or link"),
        ColumnDef::new("from_node", ColumnType::Long, "node at its from side"),
        ColumnDef::new("to_node", ColumnType::Long, "node at its to side"),
        ColumnDef::new(
            "area",
            ColumnType::Text,
            "path of the area of its to node; a branch that enters an area counts as the area's",
        ),
        ColumnDef::new("closed", ColumnType::Bool, "whether both ends are connected in network.json"),
        ColumnDef::nullable("i_rated_a", ColumnType::Float, "rated current of a line, A, if it is given"),
    ],
    lake_columns: &[],
};
