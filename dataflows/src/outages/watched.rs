//! One grid and its monitor, fed in the order of the log.

use std::collections::BTreeMap;

use flexmeter_grid::outage::{OutageId, OutageMonitor, SupplyMap};
use serde::{Deserialize, Serialize};

use super::{PointFact, SupplyRow};

/// What an operator has decided about an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Decided {
    /// Taken note of it.
    Acknowledged,
    /// It is over.
    Closed,
}

/// What an epoch brings for one grid.
#[derive(Debug, Default)]
pub(super) struct Acts {
    /// By log time.
    pub(super) supply: BTreeMap<i64, Vec<(SupplyRow, isize)>>,
    pub(super) facts: Vec<PointFact>,
    /// With log time, in the order of the log.
    pub(super) decisions: Vec<(i64, OutageId, Decided)>,
}

/// A grid that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) monitor: OutageMonitor,
    pub(super) rows: BTreeMap<SupplyRow, isize>,
    /// Why it cannot be watched as its data say now.
    pub(super) fault: Option<String>,
}

impl Watched {
    pub(super) fn new(monitor: OutageMonitor) -> Self {
        Self {
            monitor,
            rows: BTreeMap::new(),
            fault: None,
        }
    }

    /// Does everything in the order of the log: of one moment first the switches, then the meters, then the operators. `begin` is how far
    /// the log was before.
    pub(super) fn act(&mut self, mut acts: Acts, begin: i64) {
        acts.facts.sort_unstable();
        let (mut facts, mut decisions) = (acts.facts.into_iter().peekable(), acts.decisions.into_iter().peekable());
        let mut supply = acts.supply.into_iter().peekable();
        loop {
            let at = [
                supply.peek().map(|(log_us, _)| *log_us),
                facts.peek().map(|fact| fact.log_us),
                decisions.peek().map(|(log_us, ..)| *log_us),
            ];
            let Some(now) = at.into_iter().flatten().min() else { break };
            if let Some((log_us, rows)) = supply.next_if(|(log_us, _)| *log_us == now) {
                self.supply(rows, begin.max(log_us));
            }
            while let Some(fact) = facts.next_if(|fact| fact.log_us == now) {
                self.monitor.apply(fact.point, fact.fact, fact.log_us, fact.difference);
            }
            while let Some((log_us, id, decided)) = decisions.next_if(|(log_us, ..)| *log_us == now) {
                self.monitor.advance(log_us);
                match decided {
                    Decided::Acknowledged => self.monitor.acknowledge(id, true),
                    Decided::Closed => self.monitor.close(id, log_us.max(begin)),
                };
            }
        }
    }

    /// The supply is another one from a log time on.
    pub(super) fn supply(&mut self, rows: Vec<(SupplyRow, isize)>, log_us: i64) {
        for (row, n) in rows {
            let count = self.rows.entry(row).or_default();
            *count += n;
            if *count == 0 {
                self.rows.remove(&row);
            }
        }
        let set = self.monitor.set_supply(&map_of(&self.rows), log_us);
        self.fault = set.err().map(|error| error.to_string());
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
