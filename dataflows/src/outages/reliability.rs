//! SAIDI, SAIFI, CAIDI and MAIFI of every feeder, live.
//!
//! The counts ride in the differences, as integers: an interruption that is taken back leaves nothing.

use flexmeter_grid::outage::{Interruption, MeteringPoint, SuppliedNode, Tally};
use serde::{Deserialize, Serialize};

use super::{GridId, Rows, Unmetered};

/// What a feeder's indices are computed from: `tally.indices(n_served)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeederReliability {
    /// The branch that leaves the source's node; `None` for what sits at the source itself.
    pub feeder: Option<i64>,
    /// Customers it supplies as the switches stand now.
    pub n_served: i64,
    /// Their interruptions, within the retention of the outages.
    pub tally: Tally,
}

/// One row a feeder that supplies customers or had interruptions.
pub fn reliability<'scope>(
    interruptions: Rows<'scope, (GridId, Interruption)>,
    nodes: Rows<'scope, (GridId, SuppliedNode)>,
    points: Rows<'scope, (GridId, MeteringPoint)>,
    unmetered: Rows<'scope, (GridId, Unmetered)>,
) -> Rows<'scope, (GridId, FeederReliability)> {
    let counted = interruptions.explode(|(grid, interruption)| {
        let tally = Tally::of(&interruption);
        let counts = (0, tally.n_sustained as isize, tally.customer_s as isize, tally.n_momentary as isize);
        Some(((grid, interruption.feeder), counts))
    });
    let customers = points
        .map(|(grid, point)| ((grid, point.node), point.n_customers))
        .concat(unmetered.map(|(grid, unmetered)| ((grid, unmetered.node), unmetered.n_customers)));
    let served = nodes
        .map(|(grid, node)| ((grid, node.node), node.feeder))
        .join_map(customers, |&(grid, _), feeder, n| ((grid, *feeder), *n))
        .explode(|(feeder, n)| Some((feeder, (n as isize, 0, 0, 0))));
    counted
        .concat(served)
        .count()
        .map(|((grid, feeder), (n_served, n_sustained, customer_s, n_momentary))| {
            let row = FeederReliability {
                feeder,
                n_served: n_served as i64,
                tally: Tally {
                    n_sustained: n_sustained as i64,
                    customer_s: customer_s as i64,
                    n_momentary: n_momentary as i64,
                },
            };
            (grid, row)
        })
}
