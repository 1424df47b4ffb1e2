//! The end of the street: gathers what the operators said about an epoch and hands it over when the frontier has passed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::Sender;

use flexmeter_model::EventTime;
use flexmeter_model::outcome::{GridOutcome, PartitionOutcome, TotalChange};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::batch::{Accepted, Part};
use crate::faults::Faults;
use crate::grid::GridPart;

/// One worker's share of a closed epoch.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) epoch: u64,
    pub(crate) partitions: Vec<PartitionOutcome>,
    pub(crate) totals: Vec<TotalChange>,
    pub(crate) grid: GridOutcome,
}

/// Where closed epochs go, and how far the worker was fed (an empty frontier closes that many).
pub(crate) struct Outlet {
    pub(crate) shares: Sender<Share>,
    pub(crate) fed: Rc<Cell<u64>>,
    pub(crate) faults: Faults,
}

/// Sends this worker's share of each epoch, empty ones too, once no worker can add to it any more.
pub(crate) fn close(parts: StreamVec<'_, u64, Part>, outlet: Outlet) {
    let mut open: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
    let mut next = 0;
    parts.sink(Pipeline, "close", move |(input, frontier)| {
        input.for_each_stamp(|time, containers| {
            for part in containers.flat_map(std::mem::take) {
                let epoch = match (&part, time.least()) {
                    (Part::Total(epoch, _) | Part::Grid(epoch, _) | Part::Operations(epoch, _), _) | (_, Some(epoch)) => *epoch,
                    (_, None) => continue,
                };
                open.entry(epoch).or_default().push(part);
            }
        });
        let closed_before = frontier.frontier().first().copied().unwrap_or(outlet.fed.get() + 1);
        while next < closed_before && !outlet.faults.any() {
            // Nobody may be left to listen while the engine shuts down.
            let _ = outlet.shares.send(share(next, open.remove(&next).unwrap_or_default()));
            next += 1;
        }
    });
}

fn share(epoch: u64, parts: Vec<Part>) -> Share {
    let mut share = Share { epoch, ..Share::default() };
    let mut outcomes: BTreeMap<u32, PartitionOutcome> = BTreeMap::new();
    for part in parts {
        match part {
            Part::Rows(accepted) => fill(outcomes.entry(accepted.span.partition).or_default(), Rc::unwrap_or_clone(accepted)),
            Part::Latest(partition, changes) => outcomes.entry(partition).or_default().latest = changes,
            Part::Profile(partition, profile) => {
                let outcome = outcomes.entry(partition).or_default();
                outcome.profile = profile.changes;
                outcome.profile_rows = profile.rows;
                outcome.counts.n_reopened += profile.n_reopened;
                outcome.counts.n_windows_forgotten += profile.n_windows_forgotten;
            }
            Part::Total(_, change) => share.totals.push(change),
            Part::Grid(_, GridPart::Area(area)) => share.grid.areas.push(area),
            Part::Grid(_, GridPart::Gone(tenant, area)) => share.grid.gone.push((tenant, area)),
            Part::Grid(_, GridPart::Switch(row)) => share.grid.switches.push(row),
            Part::Grid(_, GridPart::Drawn { .. }) => {}
            Part::Operations(_, outcome) => share.grid.append(outcome),
            Part::Faults(partition, mut faults, n_malformed) => {
                share.grid.faults.append(&mut faults);
                if n_malformed > 0 {
                    outcomes.entry(partition).or_default().counts.n_faults_malformed += n_malformed;
                }
            }
        }
    }
    share.partitions = outcomes.into_values().collect();
    share
}

fn fill(outcome: &mut PartitionOutcome, accepted: Accepted) {
    let Accepted { span, counts, rows, .. } = accepted;
    outcome.partition = span.partition;
    outcome.start_offset = span.start_offset;
    outcome.end_offset = span.end_offset;
    outcome.log_time = EventTime::from_micros(span.log_time);
    outcome.counts += counts;
    outcome.measurements = rows.measurements;
    outcome.alerts = rows.alerts;
    outcome.acknowledgements = rows.acknowledgements;
    outcome.registrations = rows.registrations;
    outcome.rejections = rows.rejections;
}
