//! The homes of a worker: what they heard meets how their grids are supplied, and outages come of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use flexmeter_grid::outage::{Change, Interruption, Outage, OutageId, OutageMonitor};
use flexmeter_model::TenantId;
use flexmeter_model::outcome::{GridOutcome, OutageRow, RowChange};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;

use super::hear::{Heard, Said};
use super::home::{Home, Homes, settings};
use super::rows::outage_row;
use super::topology::{Inbox, Place, Roster};
use super::watched::{Acts, Watched};
use super::{GridId, Moment, PointFact, SupplyRow};
use crate::batch::Part;
use crate::partition::PerPartition;

type SupplyChange = ((GridId, SupplyRow), Moment, isize);
type InterruptionChange = ((GridId, Interruption), u64, isize);
/// Changes of the supply in an epoch: by grid, by log time.
type SupplyOf = BTreeMap<GridId, BTreeMap<i64, Vec<(SupplyRow, isize)>>>;

#[derive(Clone)]
enum Told {
    Part(Part),
    Interruption(InterruptionChange),
}

/// Watches the grids of this worker's homes; an epoch when everything of it is known. What a checkpoint brought back is told at epoch 0.
pub(super) fn watch<'scope>(
    supply: StreamVec<'scope, u64, SupplyChange>,
    wakes: StreamVec<'scope, u64, ()>,
    states: PerPartition<Homes>,
    n_partitions: u32,
    roster: Rc<RefCell<Roster>>,
    inbox: Rc<RefCell<Inbox>>,
) -> (StreamVec<'scope, u64, Part>, StreamVec<'scope, u64, InterruptionChange>) {
    let to = move |((key, _), ..): &SupplyChange| key % u64::from(n_partitions.max(1));
    let told = supply.binary_frontier(wakes, Exchange::new(to), Pipeline, "outages", move |_, _| {
        let mut waiting: BTreeMap<u64, (Capability<u64>, SupplyOf)> = BTreeMap::new();
        move |(supply, supply_frontier), (wakes, wakes_frontier), output| {
            supply.for_each_stamp(|time, containers| {
                let Some(capability) = time.retain_least(output.output_index()) else {
                    return;
                };
                for ((key, row), moment, n) in containers.flat_map(std::mem::take) {
                    let entry = waiting.entry(moment.epoch);
                    let (_, rows) = entry.or_insert_with(|| (capability.delayed(&moment.epoch), SupplyOf::new()));
                    rows.entry(key).or_default().entry(moment.log_us).or_default().push((row, n));
                }
            });
            wakes.for_each_stamp(|time, containers| {
                containers.for_each(Vec::clear);
                let Some(capability) = time.retain_least(output.output_index()) else {
                    return;
                };
                waiting.entry(*capability.time()).or_insert_with(|| (capability, SupplyOf::new()));
            });
            let is_complete = |epoch: &u64| !supply_frontier.frontier().less_equal(epoch) && !wakes_frontier.frontier().less_equal(epoch);
            while let Some(first) = waiting.first_entry().filter(|first| is_complete(first.key())) {
                let (epoch, (capability, rows)) = first.remove_entry();
                let heard = inbox.borrow_mut().0.remove(&epoch).unwrap_or_default();
                let mut told = look(epoch, rows, heard, &mut states.borrow_mut(), &roster.borrow());
                output.session(&capability).give_container(&mut told);
            }
        }
    });
    let interruptions = told.clone().flat_map(|told| match told {
        Told::Interruption(change) => Some(change),
        Told::Part(_) => None,
    });
    let parts = told.flat_map(|told| match told {
        Told::Part(part) => Some(part),
        Told::Interruption(_) => None,
    });
    (parts, interruptions)
}

/// What an epoch brings, grid by grid.
fn look(epoch: u64, mut supply: SupplyOf, heard: Vec<Heard>, states: &mut BTreeMap<u32, Homes>, roster: &Roster) -> Vec<Told> {
    let log_us = heard.iter().map(|heard| heard.log_us).max();
    let mut acts: BTreeMap<GridId, Acts> = BTreeMap::new();
    for (number, said) in heard.into_iter().flat_map(|heard| heard.said) {
        if let Some(place) = roster.places.get(&number) {
            take(said, place, acts.entry(place.key).or_default());
        }
    }
    let keys: BTreeSet<GridId> = supply.keys().copied().chain(roster.by_key.keys().copied()).collect();
    let mut told = Vec::new();
    let mut rows = Vec::new();
    for key in keys {
        let Some((tenant, partition)) = roster.tenants.get(&key) else {
            continue;
        };
        let Some(home) = states.get_mut(partition).and_then(|homes| homes.tenants.get_mut(tenant)) else {
            continue;
        };
        let place = roster.of_key(key);
        let mut acts = acts.remove(&key).unwrap_or_default();
        acts.supply = supply.remove(&key).unwrap_or_default();
        let changes = act(home, acts, log_us);
        for (id, outage) in gather(changes, key, epoch, &mut told) {
            rows.push(row_change(tenant, place, home, id, outage.as_ref()));
        }
        if place.is_none() {
            home.watched = None;
        }
    }
    if !rows.is_empty() {
        let outcome = GridOutcome {
            outages: rows,
            ..GridOutcome::default()
        };
        told.push(Told::Part(Part::Operations(epoch, outcome)));
    }
    told
}

fn take(said: Said, place: &Place, acts: &mut Acts) {
    acts.facts.extend(said.facts.into_iter().filter_map(|said| {
        Some(PointFact {
            log_us: said.log_us,
            point: *place.points.get(said.meter as usize)?,
            fact: said.fact,
            difference: 1,
        })
    }));
    // an id that cannot be one is that of no outage
    let decisions = said.decisions.into_iter();
    acts.decisions
        .extend(decisions.filter_map(|(log_us, id, decided)| Some((log_us, OutageId::parse(&id)?, decided))));
}

fn act(home: &mut Home, acts: Acts, log_us: Option<i64>) -> Vec<Change> {
    if home.watched.is_none() {
        // the settings are constants
        home.watched = OutageMonitor::new(settings()).ok().map(Watched::new);
    }
    let Some(watched) = &mut home.watched else { return Vec::new() };
    // a grid that comes before anything was heard listens from the beginning of time
    let begin = if home.log_us == i64::MIN { 0 } else { home.log_us };
    watched.act(acts, begin);
    if let Some(log_us) = log_us {
        home.log_us = home.log_us.max(log_us);
        watched.monitor.advance(home.log_us);
    }
    watched.monitor.take_changes()
}

/// What the rows that changed are at the end; interruptions go on as they are.
fn gather(changes: Vec<Change>, key: GridId, epoch: u64, told: &mut Vec<Told>) -> BTreeMap<OutageId, Option<Outage>> {
    // with whether the row was there before
    let mut rows: BTreeMap<OutageId, (bool, Option<Outage>)> = BTreeMap::new();
    for change in changes {
        match change {
            Change::Outage(row, n) => {
                let (_, now) = rows.entry(row.id).or_insert((n < 0, None));
                *now = (n > 0).then_some(row);
            }
            Change::Interruption(row, n) => told.push(Told::Interruption(((key, row), epoch, n as isize))),
        }
    }
    let rows = rows.into_iter().filter(|(_, (was_there, now))| *was_there || now.is_some());
    rows.map(|(id, (_, now))| (id, now)).collect()
}

fn row_change(tenant: &TenantId, place: Option<&Place>, home: &Home, id: OutageId, outage: Option<&Outage>) -> RowChange<OutageRow> {
    RowChange {
        tenant: tenant.clone(),
        key: id.to_string().into(),
        new: outage.map(|outage| outage_row(place.map(|place| &*place.grid), &home.names, outage).into()),
    }
}
