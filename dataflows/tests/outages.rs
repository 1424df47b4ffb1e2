//! The views of outages at every epoch: the supply is that of a walk from scratch, detection is that of a monitor fed by hand, whatever the
//! number of workers; and when everything is taken back, nothing is left.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use differential_dataflow::input::InputSession;
use flexmeter_dataflows::outages::{
    DetectInputs, FeederReliability, GridId, PointFact, Rows, Supply, SupplyRow, SwitchPosition, TopologyInputs, Unmetered, deenergised,
    detect, reliability, supply_rows,
};
use flexmeter_grid::outage::simulation::{GridShape, Random, RandomGrid, STORM_START_US, Storm, StormShape};
use flexmeter_grid::outage::{
    Change, Fact, GridBranch, Interruption, MeteringPoint, MonitorSettings, Outage, OutageId, OutageMonitor, SECOND_US, Sections,
    SupplyMap, Tally,
};
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::vec::UnorderedInput;

/// Changes of all inputs in one epoch.
#[derive(Debug, Clone, Default)]
struct Step {
    branches: Vec<(GridId, GridBranch, isize)>,
    positions: Vec<(GridId, SwitchPosition, isize)>,
    sources: Vec<(GridId, i64, isize)>,
    points: Vec<(GridId, MeteringPoint, isize)>,
    unmetered: Vec<(GridId, Unmetered, isize)>,
    facts: Vec<(GridId, PointFact)>,
    acknowledged: Vec<(GridId, OutageId, isize)>,
    log_us: i64,
}

/// A row of any view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Supply(GridId, SupplyRow),
    Deenergised(GridId, u32),
    Outage(GridId, Outage),
    Interruption(GridId, Interruption),
    Reliability(GridId, FeederReliability),
    Fault(GridId, String),
}

type Views = BTreeSet<Row>;

/// Runs the dataflow; the views after each epoch. Inputs are spread over the workers.
fn run(n_workers: usize, steps: &[Step]) -> Vec<Views> {
    let told: Arc<Mutex<Vec<(u64, Row, isize)>>> = Arc::default();
    let (steps_in, sink) = (steps.to_vec(), told.clone());
    let guards = timely::execute(timely::Config::process(n_workers), move |worker| {
        let steps = &steps_in;
        let mut branches = InputSession::new();
        let mut positions = InputSession::new();
        let mut sources = InputSession::new();
        let mut points = InputSession::new();
        let mut unmetered = InputSession::new();
        let mut acknowledged = InputSession::new();
        let (index, peers) = (worker.index(), worker.peers());
        let sink = sink.clone();
        let (facts, log_times, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let topology = TopologyInputs {
                branches: branches.to_collection(scope),
                positions: positions.to_collection(scope),
                sources: sources.to_collection(scope),
            };
            let points = points.to_collection(scope);
            let unmetered = unmetered.to_collection(scope);
            let (facts, fact_stream) = scope.new_unordered_input();
            let (log_times, log_time_stream) = scope.new_unordered_input();
            let Supply { nodes, rows: supply } = supply_rows(&topology, points.clone(), unmetered.clone());
            let inputs = DetectInputs {
                supply: supply.clone(),
                facts: fact_stream,
                log_time: log_time_stream,
                acknowledged: acknowledged.to_collection(scope),
            };
            let found = detect(inputs, MonitorSettings::default()).unwrap();
            let reliability = reliability(found.interruptions.clone(), nodes.clone(), points.clone(), unmetered);
            let rows: Rows<'_, Row> = supply
                .map(|(grid, row)| Row::Supply(grid, row))
                .concat(deenergised(nodes, points).map(|(grid, point)| Row::Deenergised(grid, point.point)))
                .concat(found.outages.map(|(grid, row)| Row::Outage(grid, row)))
                .concat(found.interruptions.map(|(grid, row)| Row::Interruption(grid, row)))
                .concat(reliability.map(|(grid, row)| Row::Reliability(grid, row)))
                .concat(found.faults.map(|(grid, row)| Row::Fault(grid, row)));
            let rows = rows.inspect(move |(row, time, n)| sink.lock().unwrap().push((*time, row.clone(), *n)));
            let (probe, _) = rows.inner.probe();
            (facts, log_times, probe)
        });
        let (mut fact_input, mut fact_capability) = facts;
        let (mut log_input, mut log_capability) = log_times;
        for (epoch, step) in steps.iter().enumerate() {
            let mine = |place: usize| place % peers == index;
            macro_rules! feed {
                ($input:ident) => {
                    for (_, (grid, row, n)) in step.$input.iter().enumerate().filter(|(place, _)| mine(*place)) {
                        $input.update((*grid, row.clone()), *n);
                    }
                };
            }
            feed!(branches);
            feed!(positions);
            feed!(sources);
            feed!(points);
            feed!(unmetered);
            feed!(acknowledged);
            {
                let mut session = fact_input.activate();
                let mut session = session.session(&fact_capability);
                step.facts
                    .iter()
                    .enumerate()
                    .filter(|(place, _)| mine(*place))
                    .for_each(|(_, fact)| session.give(*fact));
            }
            if index == epoch % peers {
                let mut session = log_input.activate();
                session.session(&log_capability).give(step.log_us);
            }
            let next = epoch as u64 + 1;
            fact_capability = fact_capability.delayed(&next);
            log_capability = log_capability.delayed(&next);
            macro_rules! advance {
                ($($input:ident),*) => { $( $input.advance_to(next); $input.flush(); )* };
            }
            advance!(branches, positions, sources, points, unmetered, acknowledged);
            worker.step_while(|| probe.less_than(&next));
        }
    })
    .unwrap();
    guards.join().into_iter().for_each(|result| result.unwrap());
    let mut told = std::mem::take(&mut *told.lock().unwrap());
    told.sort();
    let (mut counts, mut told) = (BTreeMap::<Row, isize>::new(), told.into_iter().peekable());
    (0..steps.len() as u64)
        .map(|epoch| {
            while let Some((_, row, n)) = told.next_if(|(time, ..)| *time <= epoch) {
                *counts.entry(row).or_default() += n;
            }
            counts.retain(|_, n| *n != 0);
            assert!(counts.values().all(|n| *n > 0), "nothing disappears that was not there");
            counts.keys().cloned().collect()
        })
        .collect()
}

/// The inputs as they stand, and monitors fed by hand.
#[derive(Default)]
struct ByHand {
    branches: BTreeMap<(GridId, i64), GridBranch>,
    positions: BTreeMap<(GridId, i64), bool>,
    sources: BTreeSet<(GridId, i64)>,
    points: BTreeMap<(GridId, u32), MeteringPoint>,
    unmetered: BTreeSet<(GridId, Unmetered)>,
    monitors: BTreeMap<GridId, (OutageMonitor, SupplyMap)>,
    outages: BTreeSet<Row>,
    log_us: Option<i64>,
}

fn apply<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V, n: isize) {
    if n > 0 {
        map.insert(key, value);
    } else {
        map.remove(&key);
    }
}

fn apply_set<T: Ord>(set: &mut BTreeSet<T>, value: T, n: isize) {
    if n > 0 {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}

impl ByHand {
    fn supply(&self, grid: GridId) -> SupplyMap {
        let branches: Vec<GridBranch> = self
            .branches
            .range((grid, i64::MIN)..=(grid, i64::MAX))
            .map(|(key, branch)| GridBranch {
                is_closed: self.positions.get(key).copied().unwrap_or(branch.is_closed),
                ..*branch
            })
            .collect();
        let sources: Vec<i64> = self.sources.iter().filter(|(of, _)| *of == grid).map(|(_, node)| *node).collect();
        let mut map = SupplyMap::trace(&branches, &sources);
        map.points = self
            .points
            .iter()
            .filter(|((of, _), _)| *of == grid)
            .map(|(_, point)| *point)
            .collect();
        map.unmetered = self
            .unmetered
            .iter()
            .filter(|(of, _)| *of == grid)
            .map(|(_, u)| (u.node, u.n_customers))
            .collect();
        map.points.sort_unstable();
        map.chords.sort_unstable();
        map
    }

    fn step(&mut self, step: &Step) -> Views {
        let begin = self
            .log_us
            .or(step.facts.iter().map(|(_, fact)| fact.log_us).min())
            .unwrap_or(step.log_us);
        // what disappears first: a row that is replaced has the key of the new one
        for sign in [-1, 1] {
            step.branches
                .iter()
                .filter(|r| r.2 == sign)
                .for_each(|(g, b, n)| apply(&mut self.branches, (*g, b.branch), *b, *n));
            step.positions
                .iter()
                .filter(|r| r.2 == sign)
                .for_each(|(g, p, n)| apply(&mut self.positions, (*g, p.branch), p.is_closed, *n));
            step.points
                .iter()
                .filter(|r| r.2 == sign)
                .for_each(|(g, p, n)| apply(&mut self.points, (*g, p.point), *p, *n));
            step.sources
                .iter()
                .filter(|r| r.2 == sign)
                .for_each(|(g, s, n)| apply_set(&mut self.sources, (*g, *s), *n));
            step.unmetered
                .iter()
                .filter(|r| r.2 == sign)
                .for_each(|(g, u, n)| apply_set(&mut self.unmetered, (*g, *u), *n));
        }
        let grids: BTreeSet<GridId> = self.branches.keys().map(|key| key.0).chain(self.monitors.keys().copied()).collect();
        let mut views = Views::new();
        for grid in grids {
            let map = self.supply(grid);
            let (monitor, old) = self
                .monitors
                .entry(grid)
                .or_insert_with(|| (OutageMonitor::new(MonitorSettings::default()).unwrap(), SupplyMap::default()));
            if *old != map {
                monitor.set_supply(&map, begin).unwrap();
                *old = map.clone();
            }
            let mut facts: Vec<PointFact> = step.facts.iter().filter(|(of, _)| *of == grid).map(|(_, fact)| *fact).collect();
            facts.sort_unstable();
            facts
                .iter()
                .for_each(|fact| monitor.apply(fact.point, fact.fact, fact.log_us, fact.difference));
            monitor.advance(step.log_us);
            step.acknowledged.iter().filter(|(of, ..)| *of == grid).for_each(|(_, id, n)| {
                monitor.acknowledge(*id, *n > 0);
            });
            for change in monitor.take_changes() {
                let (row, n) = match change {
                    Change::Outage(row, n) => (Row::Outage(grid, row), n),
                    Change::Interruption(row, n) => (Row::Interruption(grid, row), n),
                };
                apply_set(&mut self.outages, row, n as isize);
            }
            views.extend(map.nodes.iter().map(|&node| Row::Supply(grid, SupplyRow::Node(node))));
            views.extend(map.chords.iter().map(|&(from, to)| Row::Supply(grid, SupplyRow::Chord(from, to))));
            views.extend(map.points.iter().map(|&point| Row::Supply(grid, SupplyRow::Point(point))));
            let unmetered = map.unmetered.iter().map(|&(node, n_customers)| Unmetered { node, n_customers });
            views.extend(unmetered.map(|row| Row::Supply(grid, SupplyRow::Unmetered(row))));
            let supplied: BTreeSet<i64> = map.nodes.iter().map(|node| node.node).collect();
            let dark = map.points.iter().filter(|point| !supplied.contains(&point.node));
            views.extend(dark.map(|point| Row::Deenergised(grid, point.point)));
            views.extend(self.reliability(grid, &map));
        }
        self.log_us = Some(step.log_us);
        views.extend(self.outages.iter().cloned());
        views
    }

    fn reliability(&self, grid: GridId, map: &SupplyMap) -> Vec<Row> {
        let mut feeders: BTreeMap<Option<i64>, (i64, Tally)> = BTreeMap::new();
        for node in &map.nodes {
            let metered = map
                .points
                .iter()
                .filter(|point| point.node == node.node)
                .map(|point| point.n_customers);
            let unmetered = map.unmetered.iter().filter(|row| row.0 == node.node).map(|row| row.1);
            feeders.entry(node.feeder).or_default().0 += metered.chain(unmetered).map(i64::from).sum::<i64>();
        }
        for row in &self.outages {
            if let Row::Interruption(of, interruption) = row
                && *of == grid
            {
                feeders.entry(interruption.feeder).or_default().1 += Tally::of(interruption);
            }
        }
        feeders
            .into_iter()
            .filter(|(_, counts)| *counts != Default::default())
            .map(|(feeder, (n_served, tally))| Row::Reliability(grid, FeederReliability { feeder, n_served, tally }))
            .collect()
    }
}

#[track_caller]
fn assert_same<T: Ord + Debug + Clone>(found: &BTreeSet<T>, expected: &BTreeSet<T>, what: &str) {
    let (more, less): (Vec<_>, Vec<_>) = (
        found.difference(expected).take(3).collect(),
        expected.difference(found).take(3).collect(),
    );
    assert!(more.is_empty() && less.is_empty(), "{what}: too much {more:?}, missing {less:?}");
}

/// Two grids of random branches, some of them ties; gasps, readings, restorations, switch operations, acknowledgements, retractions.
fn script(seed: u64, n_epochs: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut steps = vec![Step::default(); n_epochs];
    let mut log_us = STORM_START_US;
    let mut branches: Vec<(GridId, GridBranch)> = Vec::new();
    let mut points: Vec<(GridId, MeteringPoint)> = Vec::new();
    for grid in 0..2 {
        let n_nodes = 8 + random.below(20) as i64;
        for node in 1..n_nodes + 6 {
            let is_tie = node >= n_nodes;
            let to = if is_tie { random.below(n_nodes as u64) as i64 } else { node };
            let branch = GridBranch {
                branch: 100 + node,
                from: random.below(if is_tie { n_nodes as u64 } else { node as u64 }) as i64,
                to,
                is_closed: !is_tie,
            };
            branches.push((grid, branch));
        }
        for point in 0..40 {
            let point = MeteringPoint {
                point,
                node: random.below(n_nodes as u64) as i64,
                n_customers: 1 + random.below(2) as u32,
                sends_gasps: random.below(9) > 0,
                reading_interval_us: (random.below(4) > 0).then_some(20 * SECOND_US),
            };
            points.push((grid, point));
        }
        steps[0].sources.push((grid, 0, 1));
        steps[0].unmetered.push((grid, Unmetered { node: 3, n_customers: 2 }, 1));
    }
    steps[0].branches = branches.iter().map(|(grid, branch)| (*grid, *branch, 1)).collect();
    steps[0].points = points.iter().map(|(grid, point)| (*grid, *point, 1)).collect();
    let mut positions: BTreeMap<(GridId, i64), bool> = BTreeMap::new();
    let mut said: Vec<(GridId, PointFact)> = Vec::new();
    for step in &mut steps {
        for _ in 0..random.below(12) {
            log_us += random.below(2_000_000) as i64;
            let (grid, point) = points[random.below(points.len() as u64) as usize];
            let at = log_us - random.below(4_000_000) as i64;
            let fact = match random.below(6) {
                0..=2 => Fact::Gasp(at),
                3 => Fact::Restored(at),
                _ => Fact::Alive(at),
            };
            let fact = PointFact {
                log_us,
                point: point.point,
                fact,
                difference: 1,
            };
            step.facts.push((grid, fact));
            said.push((grid, fact));
        }
        if random.below(5) == 0 && !said.is_empty() {
            let (grid, fact) = said.swap_remove(random.below(said.len() as u64) as usize);
            step.facts.push((
                grid,
                PointFact {
                    log_us,
                    difference: -1,
                    ..fact
                },
            ));
        }
        if random.below(4) == 0 {
            let (grid, branch) = branches[random.below(branches.len() as u64) as usize];
            let is_closed = random.below(2) == 0;
            let old = positions.insert((grid, branch.branch), is_closed);
            let position = |is_closed| SwitchPosition {
                branch: branch.branch,
                is_closed,
            };
            step.positions.extend(old.map(|old| (grid, position(old), -1)));
            step.positions.push((grid, position(is_closed), 1));
        }
        log_us += random.below(10_000_000) as i64;
        step.log_us = log_us;
    }
    steps
}

/// Takes back everything that was ever put in.
fn undo(steps: &[Step]) -> Step {
    let mut undo = Step::default();
    for step in steps {
        undo.branches.extend(step.branches.iter().map(|(g, r, n)| (*g, *r, -n)));
        undo.positions.extend(step.positions.iter().map(|(g, r, n)| (*g, *r, -n)));
        undo.sources.extend(step.sources.iter().map(|(g, r, n)| (*g, *r, -n)));
        undo.points.extend(step.points.iter().map(|(g, r, n)| (*g, *r, -n)));
        undo.unmetered.extend(step.unmetered.iter().map(|(g, r, n)| (*g, *r, -n)));
        undo.facts.extend(step.facts.iter().map(|(g, fact)| {
            (
                *g,
                PointFact {
                    difference: -fact.difference,
                    ..*fact
                },
            )
        }));
        undo.log_us = step.log_us + SECOND_US;
    }
    undo
}

#[test]
fn at_every_epoch_the_views_are_the_recomputed_ones_for_any_number_of_workers() {
    let (mut n_outages, mut n_chords, mut n_interruptions) = (0, 0, 0);
    for seed in 0..12 {
        let mut steps = script(seed, 60);
        // first what was said, then what the grid was
        let mut said = undo(&steps);
        let grid = Step {
            facts: Vec::new(),
            log_us: said.log_us + SECOND_US,
            ..said.clone()
        };
        said = Step {
            facts: said.facts,
            log_us: said.log_us,
            ..Step::default()
        };
        for (_, fact) in &mut said.facts {
            fact.log_us = said.log_us;
        }
        let last = grid.log_us;
        steps.extend([said, grid]);
        steps.push(Step {
            log_us: last + SECOND_US,
            ..Step::default()
        });
        let mut by_hand = ByHand::default();
        for n_workers in [1, 3] {
            let views = run(n_workers, &steps);
            if n_workers == 1 {
                for (epoch, (step, found)) in steps.iter().zip(&views).enumerate() {
                    assert_same(found, &by_hand.step(step), &format!("seed {seed} epoch {epoch}"));
                }
                n_outages += views.iter().flatten().filter(|row| matches!(row, Row::Outage(..))).count();
                n_interruptions += views.iter().flatten().filter(|row| matches!(row, Row::Interruption(..))).count();
                n_chords += views
                    .iter()
                    .flatten()
                    .filter(|row| matches!(row, Row::Supply(_, SupplyRow::Chord(..))))
                    .count();
                assert_same(
                    views.last().unwrap(),
                    &Views::new(),
                    &format!("seed {seed}: everything is taken back"),
                );
            } else {
                let one = run(1, &steps);
                views
                    .iter()
                    .zip(&one)
                    .for_each(|(found, one)| assert_same(found, one, &format!("seed {seed}, {n_workers} workers")));
            }
        }
    }
    assert!(
        n_outages > 100 && n_chords > 100 && n_interruptions > 100,
        "{n_outages} {n_chords} {n_interruptions}"
    );
}

#[test]
fn how_a_storm_is_cut_into_epochs_and_mixed_inside_them_does_not_matter() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let shape = GridShape {
            n_transformers: 4,
            n_customers: 15,
            reading_interval_us: 20 * SECOND_US,
        };
        let grid = RandomGrid::draw(&shape, &mut random);
        let sections = Sections::new(&grid.map).unwrap();
        let shape = StormShape {
            readings_after_us: 90 * SECOND_US,
            lost_per_mille: 400,
            repeated_per_mille: 300,
            ..StormShape::default()
        };
        let storm = Storm::draw(&grid, &sections, &shape, (3, 60), &mut random);
        let mut expected: Option<BTreeSet<Row>> = None;
        for (n_workers, epoch_us) in [(1, SECOND_US / 10), (2, SECOND_US), (2, 7 * SECOND_US)] {
            let mut steps = vec![Step {
                log_us: STORM_START_US - 60 * SECOND_US,
                sources: vec![(0, 0, 1)],
                ..Step::default()
            }];
            for node in &grid.map.nodes {
                if let Some((branch, from)) = node.parent {
                    let branch = GridBranch {
                        branch,
                        from,
                        to: node.node,
                        is_closed: true,
                    };
                    steps[0].branches.push((0, branch, 1));
                }
            }
            steps[0].points = grid.map.points.iter().map(|point| (0, *point, 1)).collect();
            let mut log_us = steps[0].log_us;
            let mut arrivals = storm.arrivals.iter().peekable();
            while log_us < storm.end_us + SECOND_US {
                log_us += epoch_us;
                let mut step = Step { log_us, ..Step::default() };
                while let Some(arrival) = arrivals.next_if(|arrival| arrival.log_us <= log_us) {
                    let fact = PointFact {
                        log_us: arrival.log_us,
                        point: arrival.point,
                        fact: arrival.fact,
                        difference: 1,
                    };
                    let place = random.below(step.facts.len() as u64 + 1) as usize;
                    step.facts.insert(place, (0, fact));
                }
                steps.push(step);
            }
            // all end at the same log time
            steps.push(Step {
                log_us: storm.end_us + 20 * SECOND_US,
                ..Step::default()
            });
            let views = run(n_workers, &steps);
            let found: BTreeSet<Row> = views
                .last()
                .unwrap()
                .iter()
                .filter(|row| matches!(row, Row::Outage(..)))
                .cloned()
                .collect();
            assert!(!found.is_empty(), "seed {seed}");
            assert_same(
                &found,
                expected.get_or_insert(found.clone()),
                &format!("seed {seed}, epochs of {epoch_us} us"),
            );
        }
    }
}
