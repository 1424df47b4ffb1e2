//! Which node is supplied, through what and from which feeder: reachability by `iterate`.
//!
//! A switch operation changes one branch; differential then looks again only at the nodes whose supply it changes. The feeder of a node is
//! the branch that leaves the source's node on the way to it.

use differential_dataflow::AsCollection;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::iterate::Iterate;
use flexmeter_grid::outage::{GridBranch, MeteringPoint, SuppliedNode};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concatenate;
use timely::progress::Timestamp;

use super::{GridId, Rows, Unmetered};

/// Where a switch stands now; it overrules the grid's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SwitchPosition {
    /// Its branch.
    pub branch: i64,
    /// Whether current can pass.
    pub is_closed: bool,
}

/// What the topology is made of.
#[derive(Clone)]
pub struct TopologyInputs<'scope, T: Timestamp = u64> {
    /// Branches of the bundles, as they are switched there.
    pub branches: Rows<'scope, (GridId, GridBranch), T>,
    /// Reported positions, one a branch; of several that contradict each other, "open" counts.
    pub positions: Rows<'scope, (GridId, SwitchPosition), T>,
    /// Nodes with a source.
    pub sources: Rows<'scope, (GridId, i64), T>,
}

/// A piece of a [`flexmeter_grid::outage::SupplyMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SupplyRow {
    /// A node with supply.
    Node(SuppliedNode),
    /// A closed branch that no node is fed through: its ends.
    Chord(i64, i64),
    /// A metering point.
    Point(MeteringPoint),
    /// Customers without meters.
    Unmetered(Unmetered),
}

/// How a node is reached: the smallest counts, so the order of the fields is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Reached {
    depth: u32,
    /// Branch and node above.
    parent: Option<(i64, i64)>,
    feeder: Option<i64>,
}

/// What is said about a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Said {
    Bundle { from: i64, to: i64, is_closed: bool },
    Position { is_closed: bool },
}

/// Closed branches: grid, branch, ends.
fn closed_branches<'scope, T: Timestamp + Lattice>(inputs: &TopologyInputs<'scope, T>) -> Rows<'scope, (GridId, (i64, i64, i64)), T> {
    let bundles = inputs.branches.clone().map(|(grid, branch)| {
        let said = Said::Bundle {
            from: branch.from,
            to: branch.to,
            is_closed: branch.is_closed,
        };
        ((grid, branch.branch), said)
    });
    let positions = inputs.positions.clone().map(|(grid, position)| {
        let said = Said::Position {
            is_closed: position.is_closed,
        };
        ((grid, position.branch), said)
    });
    bundles
        .concat(positions)
        .reduce_named("switches", |_, said, output| {
            // sorted: what the bundle says comes first, "open" before "closed"
            let Some((&Said::Bundle { from, to, is_closed }, _)) = said.first().map(|(said, n)| (*said, n)) else {
                return;
            };
            let reported = said.iter().find_map(|(said, _)| match said {
                Said::Position { is_closed } => Some(*is_closed),
                Said::Bundle { .. } => None,
            });
            if reported.unwrap_or(is_closed) && from != to {
                output.push(((from, to), 1));
            }
        })
        .map(|((grid, branch), (from, to))| (grid, (branch, from, to)))
}

/// Every node that has supply.
pub fn supply<'scope, T: Timestamp + Lattice>(inputs: &TopologyInputs<'scope, T>) -> Rows<'scope, (GridId, SuppliedNode), T> {
    supply_of(&closed_branches(inputs), inputs)
}

fn supply_of<'scope, T: Timestamp + Lattice>(
    closed: &Rows<'scope, (GridId, (i64, i64, i64)), T>,
    inputs: &TopologyInputs<'scope, T>,
) -> Rows<'scope, (GridId, SuppliedNode), T> {
    let ends = closed
        .clone()
        .flat_map(|(grid, (branch, from, to))| [((grid, from), (branch, to)), ((grid, to), (branch, from))]);
    let roots = inputs.sources.clone().map(|(grid, node)| {
        let root = Reached {
            depth: 0,
            parent: None,
            feeder: None,
        };
        ((grid, node), root)
    });
    let reached = roots.clone().iterate(|scope, inner| {
        let (ends, roots) = (ends.enter(scope), roots.enter(scope));
        inner
            .join_map(ends, |&(grid, node), above: &Reached, &(branch, other)| {
                let below = Reached {
                    depth: above.depth.saturating_add(1),
                    parent: Some((branch, node)),
                    feeder: above.feeder.or(Some(branch)),
                };
                ((grid, other), below)
            })
            .concat(roots)
            .reduce_named("nearest", |_, ways, output| output.extend(ways.first().map(|(way, _)| (**way, 1))))
    });
    reached.map(|((grid, node), reached)| {
        let node = SuppliedNode {
            node,
            depth: reached.depth,
            parent: reached.parent,
            feeder: reached.feeder,
        };
        (grid, node)
    })
}

/// How every grid is supplied.
pub struct Supply<'scope, T: Timestamp = u64> {
    /// Nodes with supply.
    pub nodes: Rows<'scope, (GridId, SuppliedNode), T>,
    /// Everything a monitor has to know of its grid.
    pub rows: Rows<'scope, (GridId, SupplyRow), T>,
}

/// Everything a monitor has to know of its grid, and the nodes by themselves.
pub fn supply_rows<'scope, T: Timestamp + Lattice>(
    inputs: &TopologyInputs<'scope, T>,
    points: Rows<'scope, (GridId, MeteringPoint), T>,
    unmetered: Rows<'scope, (GridId, Unmetered), T>,
) -> Supply<'scope, T> {
    let closed = closed_branches(inputs);
    let nodes = supply_of(&closed, inputs);
    let fed_through = nodes
        .clone()
        .map(|(grid, node)| ((grid, node.node), node.parent.map(|(branch, _)| branch)));
    let chords = closed
        .map(|(grid, (branch, from, to))| ((grid, from), (branch, to)))
        .join_map(fed_through.clone(), |&(grid, from), &(branch, to), above| {
            ((grid, to), (branch, from, *above == Some(branch)))
        })
        .join_map(fed_through, |&(grid, to), &(branch, from, feeds_from), above| {
            (grid, (from, to), feeds_from || *above == Some(branch))
        })
        .filter(|(_, _, feeds)| !feeds)
        .map(|(grid, (from, to), _)| (grid, SupplyRow::Chord(from, to)));
    let parts = [
        nodes.clone().map(|(grid, node)| (grid, SupplyRow::Node(node))).inner,
        chords.inner,
        points.map(|(grid, point)| (grid, SupplyRow::Point(point))).inner,
        unmetered.map(|(grid, unmetered)| (grid, SupplyRow::Unmetered(unmetered))).inner,
    ];
    let scope = nodes.scope();
    let rows = scope.concatenate(parts).as_collection().consolidate();
    Supply { nodes, rows }
}

/// Points without supply because of an open switch: de-energised by switching, which is no outage.
pub fn deenergised<'scope>(
    nodes: Rows<'scope, (GridId, SuppliedNode)>,
    points: Rows<'scope, (GridId, MeteringPoint)>,
) -> Rows<'scope, (GridId, MeteringPoint)> {
    let supplied = nodes.map(|(grid, node)| (grid, node.node)).distinct();
    points
        .map(|(grid, point)| ((grid, point.node), point))
        .antijoin(supplied)
        .map(|((grid, _), point)| (grid, point))
}
