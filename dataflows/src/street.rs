//! The whole street on one screen.

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
use crate::latest::latest;
use crate::load_profile::load_profile;
use crate::partition::WorkerStates;
use crate::totals::totals;

/// Where a worker puts an epoch's blocks.
pub(crate) type BlockInput = Handle<u64, CapacityContainerBuilder<Vec<RecordBlock>>>;

/// Builds one worker's part of the street. Every worker builds the same.
///
/// ```text
/// blocks ─► decode ─► dedupe ─┬────────────────────────► rows ──┐
///  (log)     judge    repeats ├─► latest ──────────────► changes ├─► close ─► epochs, in order
///                             ├─► load_profile ─► changes, rows ─┤
///                             └─► totals ══════════════► counts ─┘          ══ exchanged between workers
/// ```
/// The probe passes an epoch when every operator of every worker is done with it.
pub(crate) fn build(
    scope: Scope<'_, u64>,
    states: &WorkerStates,
    config: &Rc<EngineConfig>,
    outlet: Outlet,
) -> (BlockInput, ProbeHandle<u64>) {
    let (input, blocks) = scope.new_input();

    let judged = decode(blocks, states.intakes.clone(), config.clone(), outlet.faults.clone());
    let accepted = dedupe(judged, states.identities.clone(), config.clone());

    let rows = accepted.clone().map(Part::Rows);
    let latest = latest(accepted.clone(), states.latest.clone());
    let load_profile = load_profile(accepted.clone(), states.load_profiles.clone(), config.clone());
    let totals = totals(accepted, states.totals.clone());

    let (probe, parts) = scope.concatenate([latest, load_profile, totals, rows]).probe();
    close(parts, outlet);
    (input, probe)
}
