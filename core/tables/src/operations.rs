//! The tables of grid operation: `outages`, `reliability`, `reconfigurations` and `faults`. [`crate::operation_rows`] encodes the rows of
//! those that have a past, live ones and past ones alike; indices live in memory only and are made by the counter.

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};

/// What only the lake says of rows that have come to an end.
const VERSION: &[ColumnDef] = &[
    ColumnDef::new(
        "log_time",
        ColumnType::Time,
        "log time at which the row had become so (UTC); of several rows with the same id the last one counts, the others are what was known before",
    ),
    ColumnDef::new(
        "withdrawn",
        ColumnType::Bool,
        "whether it has turned out that there was nothing; SQL leaves such ids out",
    ),
];

const FEEDER: ColumnDef = ColumnDef::nullable(
    "feeder",
    ColumnType::Long,
    "branch by which the supply leaves the source, with the switches as they stand; null at the source itself",
);

/// Outages, open and closed ones.
pub const OUTAGES: TableDef = TableDef {
    name: "outages",
    kind: TableKind::LiveAndHistory,
    comment: "Outages with their most probable cause: the open ones, and every one that is over, as it is known now",
    columns: &[
        ColumnDef::new("outage_id", ColumnType::Text, "names the outage for good"),
        ColumnDef::new(
            "area",
            ColumnType::Text,
            "path of the area that the device is in, for example mv1/lv07",
        ),
        FEEDER,
        ColumnDef::new(
            "device",
            ColumnType::Text,
            "what has most probably failed: branch-7, node-3, or the hardware id of a single meter",
        ),
        ColumnDef::new(
            "alternatives",
            ColumnType::Text,
            "JSON array of the devices whose failure would look the same",
        ),
        ColumnDef::new("node_id", ColumnType::Long, "node behind the device, its id in network.json"),
        ColumnDef::new("n_customers", ColumnType::Long, "customers that have lost supply in it"),
        ColumnDef::new("n_customers_out", ColumnType::Long, "of these, still without"),
        ColumnDef::new("n_gasps", ColumnType::Long, "last gasps that belong to it"),
        ColumnDef::new("opened_at", ColumnType::Time, "when supply was lost, by the meters' clocks (UTC)"),
        ColumnDef::new("reported_at", ColumnType::Time, "when it was first reported, log time (UTC)"),
        ColumnDef::nullable(
            "closed_at",
            ColumnType::Time,
            "when the last customer had supply again (UTC); null while it is open",
        ),
        ColumnDef::nullable(
            "closed_because",
            ColumnType::Text,
            "restored, not_confirmed, switched, merged, operator or grid_replaced; null while it is open",
        ),
        ColumnDef::new(
            "confidence",
            ColumnType::Float,
            "posterior probability of the device and its alternatives, 0 to 1",
        ),
        ColumnDef::new("acknowledged", ColumnType::Bool, "whether an operator has taken note"),
    ],
    lake_columns: VERSION,
};

/// Reliability of the feeders.
pub const RELIABILITY: TableDef = TableDef {
    name: "reliability",
    kind: TableKind::Live,
    comment: "Reliability of each feeder by IEEE 1366, over the outages of the last 31 days; more than five minutes are a sustained interruption",
    columns: &[
        FEEDER,
        ColumnDef::new(
            "n_customers",
            ColumnType::Long,
            "customers it supplies, with the switches as they stand",
        ),
        ColumnDef::new("n_sustained", ColumnType::Long, "customer interruptions longer than five minutes"),
        ColumnDef::new("n_momentary", ColumnType::Long, "customer interruptions of five minutes or less"),
        ColumnDef::new(
            "customer_min",
            ColumnType::Float,
            "duration of the sustained ones, summed over customers, min",
        ),
        ColumnDef::nullable(
            "saidi_min",
            ColumnType::Float,
            "average duration of sustained interruptions a customer had, min; null without customers",
        ),
        ColumnDef::nullable(
            "saifi",
            ColumnType::Float,
            "average number of sustained interruptions a customer had; null without customers",
        ),
        ColumnDef::nullable(
            "caidi_min",
            ColumnType::Float,
            "average duration of a sustained interruption, min; null without one",
        ),
        ColumnDef::nullable(
            "maifi",
            ColumnType::Float,
            "average number of momentary interruptions a customer had; null without customers",
        ),
    ],
    lake_columns: &[],
};

/// Proposals to switch otherwise.
pub const RECONFIGURATIONS: TableDef = TableDef {
    name: "reconfigurations",
    kind: TableKind::LiveAndHistory,
    comment: "Proposals to switch the grid so that it loses less, and what has become of them: the open ones, and every one that has come to its end",
    columns: &[
        ColumnDef::new("proposal_id", ColumnType::Text, "names the proposal for good"),
        ColumnDef::new(
            "state",
            ColumnType::Text,
            "proposed, accepted, rejected, expired, executing, done or failed",
        ),
        ColumnDef::nullable(
            "reason",
            ColumnType::Text,
            "why it has come to nothing: time_out, network_changed, no_confirmation or switch_failed",
        ),
        ColumnDef::nullable(
            "decided_by",
            ColumnType::Text,
            "an operator's name, or automatic; null before the decision",
        ),
        ColumnDef::new(
            "plan",
            ColumnType::Text,
            "JSON array of the operations in their order, each with branch_id, hardware_id and position (open or closed)",
        ),
        ColumnDef::new("n_operations", ColumnType::Long, "operations of the plan"),
        ColumnDef::new("n_done", ColumnType::Long, "operations that their switches have confirmed"),
        ColumnDef::new(
            "loss_before_w",
            ColumnType::Float,
            "losses as the switches stood when it was proposed, W",
        ),
        ColumnDef::new("loss_after_w", ColumnType::Float, "losses after the plan, W"),
        ColumnDef::nullable(
            "loss_d4_6_w",
            ColumnType::Float,
            "losses of the tree that the algorithm of D4.6 alone finds, W; null where it finds none",
        ),
        ColumnDef::new(
            "voltage_min_before_pu",
            ColumnType::Float,
            "lowest voltage as the switches stood, per unit",
        ),
        ColumnDef::new("voltage_min_after_pu", ColumnType::Float, "lowest voltage after the plan, per unit"),
        ColumnDef::new("proposed_at", ColumnType::Time, "when it was proposed, log time (UTC)"),
        ColumnDef::new("expires_at", ColumnType::Time, "until when it can be accepted, log time (UTC)"),
        ColumnDef::new("changed_at", ColumnType::Time, "when its state changed last, log time (UTC)"),
    ],
    lake_columns: VERSION,
};

/// Located faults.
pub const FAULTS: TableDef = TableDef {
    name: "faults",
    kind: TableKind::LiveAndHistory,
    comment: "Every fault located from the records of voltages and currents at the head of a feeder",
    columns: &[
        ColumnDef::new("fault_id", ColumnType::Text, "names the fault for good"),
        ColumnDef::new("area", ColumnType::Text, "path of the area that the most probable place is in"),
        ColumnDef::new(
            "fault_type",
            ColumnType::Text,
            "AG, BG, CG, AB, BC, CA, ABG, BCG, CAG, ABC or ABCG: phases, and G for ground",
        ),
        ColumnDef::new("branch_id", ColumnType::Long, "the most probable branch, its id in network.json"),
        ColumnDef::new("near_node", ColumnType::Long, "node at its end towards the source"),
        ColumnDef::new(
            "share",
            ColumnType::Float,
            "how far along the branch from there, as a share of it, 0 to 1",
        ),
        ColumnDef::nullable(
            "distance_m",
            ColumnType::Float,
            "distance along the lines from the head of the feeder, m; null where lengths are not known",
        ),
        ColumnDef::nullable("distance_sigma_m", ColumnType::Float, "standard deviation of the distance, m"),
        ColumnDef::new(
            "distance_ohm",
            ColumnType::Float,
            "positive-sequence impedances from the head added up, ohm",
        ),
        ColumnDef::new("resistance_ohm", ColumnType::Float, "fault resistance, ohm"),
        ColumnDef::new(
            "probability",
            ColumnType::Float,
            "probability of this branch among the candidates, 0 to 1",
        ),
        ColumnDef::new(
            "candidates",
            ColumnType::Text,
            "JSON array of all candidates, the most probable first, as GET /api/v1/faults shows them",
        ),
        ColumnDef::new(
            "n_gasps",
            ColumnType::Long,
            "nodes known to be dark that it was located with; 0 if they did not help",
        ),
        ColumnDef::new("event_time", ColumnType::Time, "when the fault was recorded (UTC)"),
        ColumnDef::new("sent_by", ColumnType::Text, "who sent the record"),
    ],
    lake_columns: VERSION,
};
