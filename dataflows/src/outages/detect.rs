//! One monitor for each grid, fed in the order of the log.

use std::collections::BTreeMap;

use differential_dataflow::AsCollection;
use flexmeter_grid::GridError;
use flexmeter_grid::outage::{Change, Fact, Interruption, MonitorSettings, Outage, OutageId, OutageMonitor, SupplyMap};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};
use timely::dataflow::operators::{Concatenate, Exchange};

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
    Supply(GridId, SupplyRow, isize),
    Fact(GridId, PointFact),
    Acknowledged(GridId, OutageId, isize),
    LogTime(i64),
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

struct Grid {
    monitor: OutageMonitor,
    rows: BTreeMap<SupplyRow, isize>,
    fault: Option<String>,
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
        Event::Supply(grid, ..) | Event::Fact(grid, _) | Event::Acknowledged(grid, ..) => u64::from(*grid),
        Event::LogTime(_) => 0,
    };
    let keyed = [
        inputs.supply.inner.map(|((grid, row), _, n)| Event::Supply(grid, row, n)),
        inputs.facts.map(|(grid, fact)| Event::Fact(grid, fact)),
        inputs.acknowledged.inner.map(|((grid, id), _, n)| Event::Acknowledged(grid, id, n)),
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
                    let (_, epoch) = waiting.entry(*capability.time()).or_insert_with(|| (capability, Epoch::default()));
                    containers.flat_map(std::mem::take).for_each(|event| epoch.add(event));
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
            Event::Supply(grid, row, n) => self.supply.entry(grid).or_default().push((row, n)),
            Event::Fact(grid, fact) => self.facts.entry(grid).or_default().push(fact),
            Event::Acknowledged(grid, id, n) => self.acknowledged.push((grid, id, n)),
            Event::LogTime(log_us) => self.log_us = self.log_us.max(Some(log_us)),
        }
    }
}

/// A worker's grids.
struct Watch {
    settings: MonitorSettings,
    grids: BTreeMap<GridId, Grid>,
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
        for (grid, rows) in epoch.supply {
            self.supply(grid, rows, begin, &mut told);
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

    fn supply(&mut self, id: GridId, rows: Vec<(SupplyRow, isize)>, log_us: i64, told: &mut Vec<Told>) {
        let settings = self.settings;
        let grid = match self.grids.entry(id) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                // checked when the dataflow was built
                let Ok(monitor) = OutageMonitor::new(settings) else { return };
                entry.insert(Grid {
                    monitor,
                    rows: BTreeMap::new(),
                    fault: None,
                })
            }
        };
        for (row, n) in rows {
            let count = grid.rows.entry(row).or_default();
            *count += n;
            if *count == 0 {
                grid.rows.remove(&row);
            }
        }
        let fault = grid
            .monitor
            .set_supply(&map_of(&grid.rows), log_us)
            .err()
            .map(|error| error.to_string());
        if fault != grid.fault {
            told.extend(grid.fault.take().map(|reason| Told::Fault(id, reason, -1)));
            told.extend(fault.clone().map(|reason| Told::Fault(id, reason, 1)));
            grid.fault = fault;
        }
    }
}

fn map_of(rows: &BTreeMap<SupplyRow, isize>) -> SupplyMap {
    let mut map = SupplyMap::default();
    for (row, _) in rows.iter().filter(|(_, n)| **n > 0) {
        match *row {
            SupplyRow::Node(node) => map.nodes.push(node),
            SupplyRow::Chord(from, to) => map.chords.push((from, to)),
            SupplyRow::Point(point) => map.points.push(point),
            SupplyRow::Unmetered(unmetered) => map.unmetered.push((unmetered.node, unmetered.n_customers)),
        }
    }
    map
}
