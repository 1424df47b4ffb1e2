//! One monitor for each grid, fed in the order of the log: the views of any collections, without an engine around them. The engine's own
//! operator, which restores monitors, obeys operators and names meters, is [`super::watch`].

use std::collections::BTreeMap;

use differential_dataflow::AsCollection;
use flexmeter_grid::GridError;
use flexmeter_grid::outage::{Change, Fact, Interruption, MonitorSettings, Outage, OutageId, OutageMonitor};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};
use timely::dataflow::operators::{Concatenate, Exchange};

use super::watched::Watched;
use super::{GridId, Rows, SupplyRow};

/// A fact about a point, as it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PointFact {
    /// Append time, µs.
    pub log_us: i64,
    /// The point.
    pub point: u32,
    /// What it said.
    pub fact: Fact,
    /// +1 said, -1 taken back.
    pub difference: i64,
}

/// What detection needs. Everything of one grid goes to one worker.
pub struct DetectInputs<'scope> {
    /// From [`super::supply_rows`].
    pub supply: Rows<'scope, (GridId, SupplyRow)>,
    /// Alarms and signs of life.
    pub facts: StreamVec<'scope, u64, (GridId, PointFact)>,
    /// Log time at the end of each epoch, µs, from any worker.
    pub log_time: StreamVec<'scope, u64, i64>,
    /// Outages that an operator has taken note of.
    pub acknowledged: Rows<'scope, (GridId, OutageId)>,
}

/// The views, and the grids that cannot be watched.
pub struct Detected<'scope> {
    /// Outages, open and closed.
    pub outages: Rows<'scope, (GridId, Outage)>,
    /// Interruptions of customers by outages that are over.
    pub interruptions: Rows<'scope, (GridId, Interruption)>,
    /// Why a grid is not watched as its data say now: errors are rows; one disappears when the grid is put right.
    pub faults: Rows<'scope, (GridId, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Event {
    Supply(u64, GridId, SupplyRow, isize),
    Fact(GridId, PointFact),
    Acknowledged(u64, GridId, OutageId, isize),
    LogTime(i64),
}

impl Event {
    /// Its epoch: that of a collection's row may be later than that of the message it comes in.
    fn epoch(&self, of_message: u64) -> u64 {
        match self {
            Self::Supply(epoch, ..) | Self::Acknowledged(epoch, ..) => *epoch,
            Self::Fact(..) | Self::LogTime(_) => of_message,
        }
    }
}

#[derive(Debug, Clone)]
enum Told {
    Change(GridId, Change),
    Fault(GridId, String, isize),
}

/// Everything of an epoch, by kind.
#[derive(Debug, Default)]
struct Epoch {
    supply: BTreeMap<GridId, Vec<(SupplyRow, isize)>>,
    facts: BTreeMap<GridId, Vec<PointFact>>,
    acknowledged: Vec<(GridId, OutageId, isize)>,
    log_us: Option<i64>,
}

/// Watches every grid.
///
/// An epoch is looked at when it is complete on all workers: first the switches, then the facts in the order of the log, then log time.
///
/// # Errors
/// [`GridError::Probability`] for settings with a probability that is none.
pub fn detect<'scope>(inputs: DetectInputs<'scope>, settings: MonitorSettings) -> Result<Detected<'scope>, GridError> {
    // fails here, not in a worker
    OutageMonitor::new(settings)?;
    let route = |event: &Event| match event {
        Event::Supply(_, grid, ..) | Event::Fact(grid, _) | Event::Acknowledged(_, grid, ..) => *grid,
        Event::LogTime(_) => 0,
    };
    let keyed = [
        inputs
            .supply
            .inner
            .map(|((grid, row), epoch, n)| Event::Supply(epoch, grid, row, n)),
        inputs.facts.map(|(grid, fact)| Event::Fact(grid, fact)),
        inputs
            .acknowledged
            .inner
            .map(|((grid, id), epoch, n)| Event::Acknowledged(epoch, grid, id, n)),
    ];
    let log_time = inputs.log_time.broadcast().map(Event::LogTime);
    let scope = log_time.scope();
    let events = scope.concatenate(keyed).exchange(route);
    let told = scope
        .concatenate([events, log_time])
        .unary_frontier(Pipeline, "outages", move |_, _| {
            let mut watch = Watch {
                settings,
                grids: BTreeMap::new(),
                log_us: i64::MIN,
            };
            let mut waiting: BTreeMap<u64, (_, Epoch)> = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each_stamp(|time, containers| {
                    let Some(capability) = time.retain_least(output.output_index()) else {
                        return;
                    };
                    for event in containers.flat_map(std::mem::take) {
                        let at = event.epoch(*capability.time());
                        let entry = waiting.entry(at);
                        let (_, epoch) = entry.or_insert_with(|| (capability.delayed(&at), Epoch::default()));
                        epoch.add(event);
                    }
                });
                while let Some(first) = waiting.first_entry().filter(|first| !frontier.frontier().less_equal(first.key())) {
                    let (capability, epoch) = first.remove();
                    let time = *capability.time();
                    let mut told: Vec<(Told, u64)> = watch.look(epoch).into_iter().map(|told| (told, time)).collect();
                    output.session(&capability).give_container(&mut told);
                }
            }
        });
    let changes = told.clone().flat_map(|(told, time)| match told {
        Told::Change(grid, Change::Outage(row, n)) => Some(((grid, row), time, n as isize)),
        _ => None,
    });
    let interruptions = told.clone().flat_map(|(told, time)| match told {
        Told::Change(grid, Change::Interruption(row, n)) => Some(((grid, row), time, n as isize)),
        _ => None,
    });
    let faults = told.flat_map(|(told, time)| match told {
        Told::Fault(grid, reason, n) => Some(((grid, reason), time, n)),
        Told::Change(..) => None,
    });
    Ok(Detected {
        outages: changes.as_collection(),
        interruptions: interruptions.as_collection(),
        faults: faults.as_collection(),
    })
}

impl Epoch {
    fn add(&mut self, event: Event) {
        match event {
            Event::Supply(_, grid, row, n) => self.supply.entry(grid).or_default().push((row, n)),
            Event::Fact(grid, fact) => self.facts.entry(grid).or_default().push(fact),
            Event::Acknowledged(_, grid, id, n) => self.acknowledged.push((grid, id, n)),
            Event::LogTime(log_us) => self.log_us = self.log_us.max(Some(log_us)),
        }
    }
}

/// A worker's grids.
struct Watch {
    settings: MonitorSettings,
    grids: BTreeMap<GridId, Watched>,
    /// Log time at the end of the last epoch.
    log_us: i64,
}

impl Watch {
    fn look(&mut self, epoch: Epoch) -> Vec<Told> {
        let mut told = Vec::new();
        let earliest = epoch.facts.values().flatten().map(|fact| fact.log_us).min();
        // a grid whose first epoch this is begins where the log is
        let begin = if self.log_us == i64::MIN {
            earliest.or(epoch.log_us).unwrap_or(0)
        } else {
            self.log_us
        };
        for (id, rows) in epoch.supply {
            let grid = match self.grids.entry(id) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    // checked when the dataflow was built
                    let Ok(monitor) = OutageMonitor::new(self.settings) else { continue };
                    entry.insert(Watched::new(monitor))
                }
            };
            let old = grid.fault.clone();
            grid.supply(rows, begin);
            if grid.fault != old {
                told.extend(old.map(|reason| Told::Fault(id, reason, -1)));
                told.extend(grid.fault.clone().map(|reason| Told::Fault(id, reason, 1)));
            }
        }
        for (grid, mut facts) in epoch.facts {
            facts.sort_unstable();
            let Some(grid) = self.grids.get_mut(&grid) else { continue };
            for fact in facts {
                grid.monitor.apply(fact.point, fact.fact, fact.log_us, fact.difference);
            }
        }
        if let Some(log_us) = epoch.log_us {
            self.log_us = self.log_us.max(log_us);
            self.grids.values_mut().for_each(|grid| grid.monitor.advance(log_us));
        }
        for (grid, id, n) in epoch.acknowledged {
            if let Some(grid) = self.grids.get_mut(&grid) {
                grid.monitor.acknowledge(id, n > 0);
            }
        }
        for (&id, grid) in &mut self.grids {
            told.extend(grid.monitor.take_changes().into_iter().map(|change| Told::Change(id, change)));
        }
        told
    }
}
