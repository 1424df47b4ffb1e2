//! Outages: alarms and signs of life, joined with how the grid is supplied now.
//!
//! ```text
//! rows ─► hear ══► home ─► branches, switch positions, sources ─► supply (iterate) ═► supply rows ─┐          ══ to the tenant's home
//!   each            │      points, unmetered customers ────────────────────────────────────────────┼─► watch ─► outages, interruptions ─► reliability
//!   partition       └──── facts, decisions, log time ──────────────────────────────────────────────┘   (one monitor a tenant)
//! ```
//! The topology changes rarely and its answer is a join and a fixed point: differential's work. Gasps come by the million and touch a path
//! of one tree each: they go to one operator that keeps a [`flexmeter_grid::outage::OutageMonitor`] for each tenant, in the tenant's home
//! partition: that of the platform's own device, so operators' decisions are in the same log. Within an epoch switches, facts and decisions
//! take effect in the order of the log ([`Moment`]), so the answer does not depend on where an epoch ends.
//!
//! [`fn@detect`] is the same detection over any collections, without an engine around it.

mod detect;
mod hear;
mod home;
mod moment;
mod reliability;
mod rows;
mod supply;
mod topology;
mod watch;
mod watched;

use std::cell::RefCell;
use std::rc::Rc;

pub use detect::{DetectInputs, Detected, PointFact, detect};
use differential_dataflow::{AsCollection, VecCollection};
pub(crate) use home::Homes;
pub use moment::Moment;
pub use reliability::{FeederReliability, reliability};
use serde::{Deserialize, Serialize};
pub use supply::{Supply, SupplyRow, SwitchPosition, TopologyInputs, deenergised, supply, supply_rows};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Enter, Leave};

use crate::batch::{Accepted, Part};
use crate::config::EngineConfig;
use crate::grid::Grids;
use crate::partition::WorkerStates;
use topology::{Told, Update};

/// Number of a grid: it stands for a tenant and its grid, so it is the first field of every key.
pub type GridId = u64;

/// A collection; its times are epochs unless said otherwise.
pub type Rows<'scope, D, T = u64> = VecCollection<'scope, T, D, isize>;

/// Customers at a node without meters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unmetered {
    /// The node's id.
    pub node: i64,
    /// How many.
    pub n_customers: u32,
}

/// Watches the grids of all tenants: what becomes of `outages` and `reliability` in each epoch.
pub(crate) fn outages<'scope>(
    accepted: StreamVec<'scope, u64, Rc<Accepted>>,
    news: StreamVec<'scope, u64, ()>,
    states: &WorkerStates,
    grids: Rc<RefCell<Grids>>,
    config: &Rc<EngineConfig>,
) -> StreamVec<'scope, u64, Part> {
    let outer = accepted.scope();
    let heard = hear::hear(accepted, states, grids.clone(), config.n_partitions);
    let roster = Rc::new(RefCell::new(topology::Roster::default()));
    let inbox = Rc::new(RefCell::new(topology::Inbox::default()));
    let told = topology::home(heard, news, states.homes.clone(), grids, config, roster.clone(), inbox.clone());
    let wakes = told.clone().flat_map(|told| match told {
        Told::Wake => Some(()),
        Told::Update(..) => None,
    });
    macro_rules! updates {
        ($kind:ident) => {
            told.clone().flat_map(|told| match told {
                Told::Update(grid, Update::$kind(row), moment, n) => Some(((grid, row), moment, n)),
                _ => None,
            })
        };
    }
    let (points, unmetered) = (updates!(Point), updates!(Unmetered));
    let in_epochs = |(row, moment, n): (_, Moment, isize)| (row, moment.epoch, n);
    let (served, unserved) = (
        points.clone().map(in_epochs),
        unmetered.clone().map(|(row, moment, n)| (row, moment.epoch, n)),
    );
    let (nodes, supply) = outer.scoped::<Moment, _, _>("supply", |inner| {
        let inputs = TopologyInputs {
            branches: updates!(Branch).enter(inner).as_collection(),
            positions: updates!(Position).enter(inner).as_collection(),
            sources: updates!(Source).enter(inner).as_collection(),
        };
        let Supply { nodes, rows } = supply_rows(&inputs, points.enter(inner).as_collection(), unmetered.enter(inner).as_collection());
        (nodes.leave(outer), rows.inner.leave(outer))
    });
    let (parts, interruptions) = watch::watch(supply, wakes, states.homes.clone(), config.n_partitions, roster.clone(), inbox);
    let indices = reliability(
        interruptions.as_collection(),
        nodes,
        served.as_collection(),
        unserved.as_collection(),
    );
    parts.concat(rows::reliability_parts(indices, config.n_partitions, roster))
}
