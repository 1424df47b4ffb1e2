//! Everything that can be wrong with a grid, its readings or its equations.

use crate::network::ComponentId;

/// What went wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// The text is not JSON, or not of the shape of a power-grid-model dataset.
    #[error("the dataset cannot be read: {reason}; it has to be a power-grid-model JSON dataset (version 1.0)")]
    Dataset {
        /// The reader's words, with line and column.
        reason: String,
    },
    /// A dataset of another kind than the one asked for.
    #[error("the dataset has type \"{found}\", expected \"{expected}\"")]
    DatasetType {
        /// What it says it is.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// A scenario that the batch does not have.
    #[error("scenario {scenario} does not exist: the update dataset has {n_scenarios}")]
    Scenario {
        /// The one asked for, from zero.
        scenario: usize,
        /// How many there are.
        n_scenarios: usize,
    },
    /// A component type outside this engine's vocabulary.
    #[error("component type {component} is not supported; leave it out, or replace it by {instead}")]
    UnsupportedComponent {
        /// Its name in the dataset.
        component: String,
        /// What to use.
        instead: &'static str,
    },
    /// A required attribute is absent or null.
    #[error("{component} {id}: {attribute} is missing; give it a value")]
    MissingAttribute {
        /// Component type.
        component: &'static str,
        /// Component id.
        id: ComponentId,
        /// Attribute name.
        attribute: &'static str,
    },
    /// An attribute whose value cannot be used.
    #[error("{component} {id}: {attribute} = {} is not usable; {remedy}", short(*value))]
    BadValue {
        /// Component type.
        component: &'static str,
        /// Component id.
        id: ComponentId,
        /// Attribute name.
        attribute: &'static str,
        /// The value as given.
        value: f64,
        /// What would be.
        remedy: &'static str,
    },
    /// Two components with one id.
    #[error("id {id} is used twice, by a {first} and a {second}; ids are unique over all component types")]
    DuplicateId {
        /// The id.
        id: ComponentId,
        /// The first component type.
        first: &'static str,
        /// The second component type.
        second: &'static str,
    },
    /// A reference to something that does not exist.
    #[error("{component} {id}: {attribute} = {target} names no {expected}; add it, or correct the reference")]
    UnknownReference {
        /// Component type.
        component: &'static str,
        /// Component id.
        id: ComponentId,
        /// Attribute name.
        attribute: &'static str,
        /// The id that does not exist.
        target: ComponentId,
        /// What it should be.
        expected: &'static str,
    },
    /// A branch from a node to itself.
    #[error("{component} {id} connects node {node} with itself; a branch needs two different nodes")]
    SelfLoop {
        /// Component type.
        component: &'static str,
        /// Component id.
        id: ComponentId,
        /// Node id.
        node: ComponentId,
    },
    /// A line between nodes of different rated voltage.
    #[error("line {id} connects node {from} ({from_v} V) with node {to} ({to_v} V); put a transformer between different rated voltages")]
    ConflictingVoltage {
        /// Line id.
        id: ComponentId,
        /// From node id.
        from: ComponentId,
        /// To node id.
        to: ComponentId,
        /// Rated voltage of the from node, V.
        from_v: f64,
        /// Rated voltage of the to node, V.
        to_v: f64,
    },
    /// More components than this engine takes.
    #[error("the dataset has {n} {what}; at most {n_max} are supported, split the grid at its transformers")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        n: usize,
        /// The limit.
        n_max: usize,
    },
    /// An iteration that did not come to rest.
    #[error("{what} did not converge: step {step_pu:.1e} > {tolerance_pu:.1e} per unit after {iterations} iterations; {remedy}")]
    NotConverged {
        /// Which calculation.
        what: &'static str,
        /// The last step, per unit.
        step_pu: f64,
        /// What was asked for.
        tolerance_pu: f64,
        /// How many were made.
        iterations: usize,
        /// What to look at.
        remedy: &'static str,
    },
    /// Equations without a unique answer.
    #[error("{what} has no unique answer at node {node}; {remedy}")]
    Singular {
        /// Which calculation.
        what: &'static str,
        /// Where the elimination broke down.
        node: ComponentId,
        /// What to look at.
        remedy: &'static str,
    },
    /// A line of a grid bundle's table that cannot be read.
    #[error("{file} line {line}: {reason}")]
    Bundle {
        /// File of the bundle.
        file: &'static str,
        /// Line, from one.
        line: usize,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A grid without any connected source.
    #[error("no node has supply: the grid has no connected source; add one, or set its status to 1")]
    NoSource,
    /// A loop where only radial states are known.
    #[error("branch {branch} closes a loop, or joins two sources, as the switches stand; open one branch of every loop first")]
    NotRadial {
        /// Id of a branch of the loop.
        branch: ComponentId,
    },
    /// An option that cannot be used.
    #[error("{option} = {} is not usable; {remedy}", short(*value))]
    BadOption {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What would be.
        remedy: &'static str,
    },
    /// A switch that the network does not have.
    #[error("switch {switch} is no branch: the network has {n_branches}, numbered from 0")]
    UnknownSwitch {
        /// Index as given.
        switch: usize,
        /// How many branches there are.
        n_branches: usize,
    },
    /// A change that a proposal's state does not allow.
    #[error("proposal {proposal} is {state} and cannot be {change}; {remedy}")]
    IllegalChange {
        /// Id of the proposal.
        proposal: u64,
        /// The state it is in.
        state: &'static str,
        /// What was asked for.
        change: &'static str,
        /// What is possible.
        remedy: &'static str,
    },
    /// A switch that reports what the step in hand does not ask for.
    #[error(
        "proposal {proposal}: branch {branch} is reported {reported}, but step {step} of {n_steps} waits for branch {expected} to be {wanted}; \
         nothing has been changed"
    )]
    UnexpectedPosition {
        /// Id of the proposal.
        proposal: u64,
        /// Id of the branch that reports.
        branch: ComponentId,
        /// Its position: open or closed.
        reported: &'static str,
        /// The step in hand, from one.
        step: usize,
        /// How many there are.
        n_steps: usize,
        /// Id of the branch it waits for.
        expected: ComponentId,
        /// The position it waits for.
        wanted: &'static str,
    },
    /// A fault record, or what is given beside it, that cannot be used.
    #[error("fault record: {field}: {reason}")]
    FaultRecord {
        /// The field.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A probability of the outage model that cannot be used.
    #[error("the probability {name} = {value} is not usable; give it a value above 0 and at most 0.5")]
    Probability {
        /// Its name in the settings.
        name: &'static str,
        /// The value as given.
        value: f64,
    },
    /// A grid whose supply is not a tree, or whose points do not fit it.
    #[error("the supply of the grid cannot be used: {what} {id} {reason}")]
    Supply {
        /// Node or point.
        what: &'static str,
        /// Its id.
        id: ComponentId,
        /// What is wrong and what would be right.
        reason: &'static str,
    },
    /// Something that does not fit the areas of a bundle.
    #[error("area {area}: {reason}")]
    Area {
        /// Path of the area.
        area: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// A number as people write it: not three hundred digits long.
fn short(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && size.is_finite() && !(1e-4..1e15).contains(&size) => format!("{value:e}"),
        _ => value.to_string(),
    }
}
