//! The whole street on one screen.

use std::cell::RefCell;
use std::rc::Rc;

use flexmeter_model::record::RecordBlock;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::core::input::Handle;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concatenate, Input, Probe};
use timely::dataflow::{ProbeHandle, Scope};

use crate::batch::Part;
use crate::close::{Outlet, close};
use crate::config::EngineConfig;
use crate::decode::decode;
use crate::dedupe::dedupe;
use crate::grid::{Grids, levels, meters};
use crate::latest::latest;
use crate::load_profile::load_profile;
use crate::outages::outages;
use crate::partition::WorkerStates;
use crate::reconfiguration::{areas_to_notes, located, notes, reconfiguration};
use crate::totals::totals;

/// Where a worker puts what it is fed.
pub(crate) struct Inputs {
    /// An epoch's blocks.
    pub(crate) blocks: Handle<u64, CapacityContainerBuilder<Vec<RecordBlock>>>,
    /// That the grids are others from this epoch on.
    pub(crate) news: Handle<u64, CapacityContainerBuilder<Vec<()>>>,
}

impl Inputs {
    /// What is fed next belongs to this epoch.
    pub(crate) fn advance_to(&mut self, epoch: u64) {
        self.blocks.advance_to(epoch);
        self.news.advance_to(epoch);
    }

    /// Nothing more comes.
    pub(crate) fn close(self) {
        self.blocks.close();
        self.news.close();
    }
}

/// Builds one worker's part of the street. Every worker builds the same.
///
/// ```text
/// blocks ─► decode ─► dedupe ─┬────────────────────────► rows ──┐
///  (log)     judge    repeats ├─► latest ──────────────► changes ├─► close ─► epochs, in order
///                             ├─► load_profile ─► changes, rows ─┤
///                             ├─► totals ══════════════► counts ─┤          ══ exchanged between workers
///                             ├─► meters ══► levels ◄╗ ► areas ──┤
///                             │                 ║╚═══╝ boundary estimates up, angles down, within the epoch
///                             ├─► notes ════════╩► reconfiguration ► proposals, commands
///                             ├─► outages ══► supply ══► watch ──┤ outages, indices: in the home of their tenant, as the two beside it
///                             └─► located ─────────────► faults ─┘
/// ```
/// The probe passes an epoch when every operator of every worker is done with it.
pub(crate) fn build(
    scope: Scope<'_, u64>,
    states: &WorkerStates,
    grids: Rc<RefCell<Grids>>,
    config: &Rc<EngineConfig>,
    outlet: Outlet,
) -> (Inputs, ProbeHandle<u64>) {
    let (blocks_input, blocks) = scope.new_input();
    let (news_input, news) = scope.new_input();
    let inputs = Inputs {
        blocks: blocks_input,
        news: news_input,
    };

    let judged = decode(blocks, states.intakes.clone(), config.clone(), outlet.faults.clone());
    let accepted = dedupe(judged, states.identities.clone(), config.clone());

    let rows = accepted.clone().map(Part::Rows);
    let latest = latest(accepted.clone(), states.latest.clone());
    let load_profile = load_profile(accepted.clone(), states.load_profiles.clone(), config.clone());
    let totals = totals(accepted.clone(), states.totals.clone());
    let mail = meters(accepted.clone(), news.clone(), states.meters.clone(), grids.clone());
    let check_us = config.reconfiguration.check_us;
    let areas = levels(mail, grids.clone(), config.estimation, check_us, outlet.faults.clone());
    let outages = outages(accepted.clone(), news, states, grids.clone(), config);
    let from_log = notes(accepted.clone(), &states.intakes, grids.clone(), config.n_partitions);
    let from_areas = areas_to_notes(areas.clone(), grids.clone(), config.n_partitions);
    let notes = scope.concatenate([from_log, from_areas]);
    let proposals = reconfiguration(notes, states.reconfigurations.clone(), grids, config.clone(), outlet.faults.clone());
    let faults = located(accepted, states.located.clone());

    let parts = scope.concatenate([latest, load_profile, totals, areas, outages, proposals, faults, rows]);
    let (probe, parts) = parts.probe();
    close(parts, outlet);
    (inputs, probe)
}
