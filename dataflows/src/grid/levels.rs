//! The areas of all levels, in a loop: boundary estimates go up, angles go down, until nothing moves any more; then the epoch is published.
//!
//! An epoch is cut into rounds. In round 0 readings, switch operations and log time arrive. After that every level has its turn, the lowest
//! first, again and again: level `d` of [`LEVELS_MAX`] is estimated in rounds `p * LEVELS_MAX + (LEVELS_MAX - d)`, and only areas to which
//! somebody has written. What an area says to the one above arrives for the turn right after its own, what it says to those below for their
//! next turn. Rounds in which nobody has anything to do cost nothing. A turn begins when the frontier says that no worker can write for it
//! any more, and never before all earlier epochs are published: so no estimate mixes two epochs, nor two topologies.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use flexmeter_model::outcome::{AreaEstimate, SwitchRow};
use flexmeter_model::{EventTime, TenantId};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::core::feedback::LoopVariable;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Capability, ConnectLoop, Enter, Leave};
use timely::order::Product;
use timely::progress::frontier::MutableAntichain;

use super::area::{Estimated, Outgoing, area};
use super::beside::Beside;
use super::mail::{Body, GridId, Mail, route};
use super::meters::Grids;
use super::settings::EstimationConfig;
use super::tenant::{Grid, LEVELS_MAX, Topology};
use crate::batch::Part;
use crate::faults::Faults;
use crate::reconfiguration::clock::{LogClock, last_check};

/// A grid and one of its areas.
pub(crate) type AreaKey = (GridId, u32);

type Time = Product<u64, u32>;

/// After so many turns of every level, angles are no longer told: the last digits are not worth it.
const N_PASSES_MAX: u32 = 12;
/// The round in which an epoch is published: after all others.
const PUBLISH: u32 = 1 << 20;
const LEVELS: u32 = LEVELS_MAX as u32;

/// What one turn of the operator says: to other areas, or to the world.
#[derive(Debug, Clone)]
enum Said {
    Mail(Mail),
    Part(Part),
}

/// Estimates the areas of this worker.
pub(crate) fn levels<'scope>(
    mails: StreamVec<'scope, u64, Mail>,
    grids: Rc<RefCell<Grids>>,
    config: EstimationConfig,
    check_us: i64,
    faults: Faults,
) -> StreamVec<'scope, u64, Part> {
    let outer = mails.scope();
    outer.iterative::<u32, _, _>(|inner| {
        let (handle, returned) = inner.loop_variable(1);
        let to = |mail: &Mail| mail.to;
        let (worker, n_workers) = (inner.index(), inner.peers());
        let said = mails
            .enter(inner)
            .binary_frontier(returned, Exchange::new(to), Exchange::new(to), "levels", |_, info| {
                let activator = inner.worker().sync_activator_for(info.address.to_vec());
                let mut levels = Levels {
                    worker,
                    n_workers,
                    grids,
                    config,
                    topologies: BTreeMap::new(),
                    areas: BTreeMap::new(),
                    due: BTreeSet::new(),
                    log_time: i64::MIN,
                    clock: LogClock::default(),
                    check_us,
                    checked: i64::MIN,
                    is_check_due: false,
                    touched: BTreeSet::new(),
                    gone: Vec::new(),
                    switches: BTreeMap::new(),
                    beside: Beside::new("estimate", activator, faults.clone(), worker, estimate),
                    n_away: 0,
                };
                let mut turns = Turns::default();
                move |(first, first_frontier), (second, second_frontier), output| {
                    let mut file = |capability: Capability<Time>, mails: &mut Vec<Mail>| {
                        let at = (capability.time().outer, capability.time().inner);
                        turns.at(&capability, at).mails.append(mails);
                    };
                    first.for_each(|time, mails| time.stamp().iter().for_each(|at| file(time.delayed(at, 0), mails)));
                    second.for_each(|time, mails| time.stamp().iter().for_each(|at| file(time.delayed(at, 0), mails)));
                    while let Some((at, capability)) = turns.first().filter(|_| !faults.any()) {
                        if !is_complete(at, first_frontier) || !is_complete(at, second_frontier) {
                            break;
                        }
                        let mut said = Vec::new();
                        if let Some(work) = turns.begin(at) {
                            levels.begin(at, work, &mut turns, &capability, &mut said);
                        }
                        levels.take_back(&mut said);
                        output.session(&capability).give_iterator(said.into_iter());
                        if levels.n_away > 0 {
                            break;
                        }
                        turns.end(at);
                    }
                }
            });
        let mails = said.clone().flat_map(|said| match said {
            Said::Mail(mail) => Some(mail),
            Said::Part(_) => None,
        });
        mails.connect_loop(handle);
        let parts = said.flat_map(|said| match said {
            Said::Part(part) => Some(part),
            Said::Mail(_) => None,
        });
        parts.leave(outer)
    })
}

/// Whether nothing can come any more for this time, nor for one of an earlier epoch.
fn is_complete((epoch, round): (u64, u32), frontier: &MutableAntichain<Time>) -> bool {
    let frontier = frontier.frontier();
    frontier.iter().all(|at| (at.outer, at.inner) > (epoch, round))
}

/// What is to be done at one time.
struct Turn {
    capability: Capability<Time>,
    /// `None` once it has begun.
    work: Option<Work>,
}

#[derive(Default)]
struct Work {
    mails: Vec<Mail>,
    areas: BTreeSet<AreaKey>,
}

/// What is to be done, in the order of epochs and rounds.
#[derive(Default)]
struct Turns(BTreeMap<(u64, u32), Turn>);

impl Turns {
    fn first(&self) -> Option<((u64, u32), Capability<Time>)> {
        self.0.first_key_value().map(|(&at, turn)| (at, turn.capability.clone()))
    }

    /// The work at a time; `capability` is one of that time or an earlier one.
    fn at(&mut self, capability: &Capability<Time>, at: (u64, u32)) -> &mut Work {
        let turn = self.0.entry(at).or_insert_with(|| Turn {
            capability: capability.delayed(&Product::new(at.0, at.1)),
            work: None,
        });
        turn.work.get_or_insert_default()
    }

    fn begin(&mut self, at: (u64, u32)) -> Option<Work> {
        self.0.get_mut(&at).and_then(|turn| turn.work.take())
    }

    fn end(&mut self, at: (u64, u32)) {
        self.0.remove(&at);
    }
}

struct Levels {
    worker: usize,
    n_workers: usize,
    grids: Rc<RefCell<Grids>>,
    config: EstimationConfig,
    topologies: BTreeMap<GridId, TenantGrid>,
    areas: BTreeMap<AreaKey, Option<Box<dyn Estimated>>>,
    /// When (in log time) an area looks at the age of its readings next.
    due: BTreeSet<(i64, AreaKey)>,
    log_time: i64,
    /// How far all partitions are, and when what is drawn was told last.
    clock: LogClock,
    check_us: i64,
    checked: i64,
    is_check_due: bool,
    /// Areas estimated in this epoch.
    touched: BTreeSet<AreaKey>,
    gone: Vec<(TenantId, Arc<str>)>,
    /// Switch rows of this epoch.
    switches: BTreeMap<(GridId, u32), SwitchRow>,
    beside: Beside<Job, Done>,
    /// Areas on the way to the thread beside, and back.
    n_away: usize,
}

/// An area on its way to the thread beside.
struct Job {
    key: AreaKey,
    area: Box<dyn Estimated>,
    may_tell_angles: bool,
}

/// An area that has come back.
struct Done {
    key: AreaKey,
    area: Box<dyn Estimated>,
    outgoing: Outgoing,
}

fn estimate(mut job: Job) -> Done {
    let outgoing = job.area.estimate(job.may_tell_angles);
    Done {
        key: job.key,
        area: job.area,
        outgoing,
    }
}

/// A grid on the street.
struct TenantGrid {
    tenant: TenantId,
    grid: Arc<Grid>,
    topology: Topology,
    /// Hash of each area: where its mail goes.
    routes: Vec<u64>,
    /// By switch: event time of its newest operation, and who reported it.
    operated: HashMap<u32, (i64, String)>,
}

impl TenantGrid {
    fn new(tenant: &TenantId, grid: &Arc<Grid>) -> Self {
        Self {
            tenant: tenant.clone(),
            grid: grid.clone(),
            topology: Topology::new(grid),
            routes: grid.areas().iter().map(|path| route(tenant, path)).collect(),
            operated: HashMap::new(),
        }
    }

    fn switch_row(&self, switch: u32) -> Option<SwitchRow> {
        let branch = self.grid.bundle().switches.get(switch as usize)?.branch;
        let operated = self.operated.get(&switch);
        Some(SwitchRow {
            tenant: self.tenant.clone(),
            branch_id: self.grid.bundle().network.branches()[branch].id,
            closed: self.topology.is_closed(&self.grid, switch)?,
            since: operated.map(|(time, _)| EventTime::from_micros(*time)),
            by: operated.map_or_else(String::new, |(_, by)| by.clone()),
        })
    }
}

/// The round in which areas of a level have their next turn, from a round on.
fn turn_of(depth: usize, round: u32) -> u32 {
    let slot = LEVELS - (depth as u32).clamp(1, LEVELS);
    round.saturating_sub(slot).div_ceil(LEVELS) * LEVELS + slot
}

impl Levels {
    /// Reads the mail of a turn, estimates its areas, and puts down what is to be done later in this epoch.
    fn begin(&mut self, at: (u64, u32), work: Work, turns: &mut Turns, capability: &Capability<Time>, said: &mut Vec<Said>) {
        if at.1 == PUBLISH {
            return self.publish(at.0, said);
        }
        let mut areas = work.areas;
        self.read(work.mails, &mut areas);
        for key in areas {
            let turn = turn_of(self.depth(key), at.1);
            if turn == at.1 {
                self.estimate(at.1, key, said);
            } else {
                turns.at(capability, (at.0, turn)).areas.insert(key);
            }
            self.touched.insert(key);
        }
        if !self.touched.is_empty() || !self.gone.is_empty() || !self.switches.is_empty() || self.is_check_due {
            turns.at(capability, (at.0, PUBLISH));
        }
    }

    fn depth(&self, (grid, area): AreaKey) -> usize {
        self.topologies.get(&grid).map_or(1, |known| known.grid.depth(area))
    }

    /// Takes mail in; `areas` are those that it changes something for.
    fn read(&mut self, mails: Vec<Mail>, areas: &mut BTreeSet<AreaKey>) {
        let mut operations: BTreeMap<GridId, Vec<(u32, bool)>> = BTreeMap::new();
        let mut meters = Vec::new();
        let mut log_time = self.log_time;
        let mut has_grids = false;
        for mail in mails {
            match mail.body {
                Body::Grids => has_grids = true,
                Body::Clock { partition, log_time: time } => {
                    self.clock.hear(partition, time);
                    log_time = log_time.max(time);
                }
                body => meters.push(body),
            }
        }
        if has_grids {
            self.renew_grids(areas);
        }
        for body in meters {
            match body {
                Body::Switch {
                    grid,
                    switch,
                    closed,
                    event_time,
                    by,
                } => {
                    let Some(known) = self.topologies.get_mut(&grid) else { continue };
                    if known.operated.get(&switch).is_none_or(|(time, _)| *time <= event_time) {
                        known.operated.insert(switch, (event_time, by));
                        operations.entry(grid).or_default().push((switch, closed));
                    }
                }
                Body::Meter { grid, meter, said } => {
                    let place = self.topologies.get(&grid).and_then(|known| known.grid.place(meter));
                    let Some((area, place)) = place else { continue };
                    if let Some(Some(estimated)) = self.areas.get_mut(&(grid, area)) {
                        estimated.hear(place as usize, said);
                        areas.insert((grid, area));
                    }
                }
                Body::Up {
                    grid,
                    area,
                    child,
                    message,
                    times,
                } => {
                    if let Some(Some(estimated)) = self.areas.get_mut(&(grid, area)) {
                        estimated.hear_below(child, message, times);
                        areas.insert((grid, area));
                    }
                }
                Body::Down { grid, area, angles_rad } => {
                    if let Some(Some(estimated)) = self.areas.get_mut(&(grid, area)) {
                        estimated.expect(&angles_rad);
                        areas.insert((grid, area));
                    }
                }
                Body::Grids | Body::Clock { .. } => {}
            }
        }
        for (grid, operations) in operations {
            self.operate(grid, &operations, areas);
        }
        if log_time > self.log_time {
            self.log_time = log_time;
            self.tick(areas);
        }
        let check = self.clock.reached().map_or(i64::MIN, |reached| last_check(reached, self.check_us));
        if check > self.checked {
            (self.checked, self.is_check_due) = (check, true);
        }
    }

    /// Goes over to the grids that the worker has now.
    fn renew_grids(&mut self, areas: &mut BTreeSet<AreaKey>) {
        let grids = self.grids.clone();
        let grids = grids.borrow();
        let old: Vec<GridId> = self.topologies.keys().filter(|id| !grids.contains_key(id)).copied().collect();
        for id in old {
            let Some(known) = self.topologies.remove(&id) else { continue };
            for (index, path) in known.grid.areas().iter().enumerate() {
                if self.areas.remove(&(id, index as u32)).is_some() {
                    self.gone.push((known.tenant.clone(), path.as_str().into()));
                }
            }
            self.due.retain(|(_, (grid, _))| *grid != id);
        }
        let new: Vec<_> = grids.iter().filter(|(id, _)| !self.topologies.contains_key(id)).collect();
        for (&id, (tenant, grid)) in new {
            let known = TenantGrid::new(tenant, grid);
            for (index, to) in known
                .routes
                .iter()
                .enumerate()
                .filter(|(_, to)| self.config.is_on && **to % self.n_workers as u64 == self.worker as u64)
            {
                let key = (id, index as u32);
                let estimated = area(tenant, grid, index as u32, &known.topology, &self.config);
                self.areas.insert(key, Some(estimated));
                self.due.insert((self.next_tick(*to), key));
                areas.insert(key);
            }
            let is_host = route(tenant, "") % self.n_workers as u64 == self.worker as u64;
            for switch in (0..grid.bundle().switches.len() as u32).filter(|_| is_host) {
                self.switches.extend(known.switch_row(switch).map(|row| ((id, switch), row)));
            }
            self.topologies.insert(id, known);
        }
    }

    fn operate(&mut self, id: GridId, operations: &[(u32, bool)], areas: &mut BTreeSet<AreaKey>) {
        let Some(known) = self.topologies.get_mut(&id) else { return };
        for index in known.topology.operate(&known.grid, operations) {
            if let Some(Some(estimated)) = self.areas.get_mut(&(id, index)) {
                estimated.set_topology(&known.topology);
                areas.insert((id, index));
            }
        }
        if route(&known.tenant, "") % self.n_workers as u64 == self.worker as u64 {
            for &(switch, _) in operations {
                self.switches.extend(known.switch_row(switch).map(|row| ((id, switch), row)));
            }
        }
    }

    /// Areas look at the age of their readings once a step, each at its own moment of it, so that they do not all do so at once.
    fn next_tick(&self, route: u64) -> i64 {
        let phase = (route % self.config.step_us as u64) as i64;
        match self.log_time {
            i64::MIN => i64::MIN,
            now => (now.saturating_sub(phase).div_euclid(self.config.step_us) + 1)
                .saturating_mul(self.config.step_us)
                .saturating_add(phase),
        }
    }

    fn tick(&mut self, areas: &mut BTreeSet<AreaKey>) {
        while let Some((_, key)) = self.due.first().copied().filter(|(time, _)| *time <= self.log_time) {
            self.due.pop_first();
            let Some(known) = self.topologies.get(&key.0) else { continue };
            let to = known.routes[key.1 as usize];
            let next = self.next_tick(to);
            if let Some(Some(estimated)) = self.areas.get_mut(&key)
                && estimated.tick(next.saturating_sub(self.config.step_us))
            {
                areas.insert(key);
            }
            self.due.insert((next, key));
        }
    }

    fn estimate(&mut self, round: u32, key: AreaKey, said: &mut Vec<Said>) {
        let may_tell_angles = round / LEVELS < N_PASSES_MAX;
        let Some(place) = self.areas.get_mut(&key) else { return };
        let Some(mut estimated) = place.take() else { return };
        if estimated.n_nodes() > self.config.beside_nodes_min {
            self.n_away += 1;
            self.beside.send(Job {
                key,
                area: estimated,
                may_tell_angles,
            });
            return;
        }
        let outgoing = estimated.estimate(may_tell_angles);
        self.deliver(key, estimated, outgoing, said);
    }

    /// Takes back areas that were estimated beside.
    fn take_back(&mut self, said: &mut Vec<Said>) {
        if self.n_away == 0 {
            return;
        }
        for done in self.beside.take() {
            self.n_away -= 1;
            self.deliver(done.key, done.area, done.outgoing, said);
        }
    }

    fn deliver(&mut self, key: AreaKey, estimated: Box<dyn Estimated>, outgoing: Outgoing, said: &mut Vec<Said>) {
        self.areas.insert(key, Some(estimated));
        let Some(known) = self.topologies.get(&key.0) else { return };
        if let (Some((message, times)), Some(parent)) = (outgoing.up, known.grid.layout().parent(key.1 as usize)) {
            said.push(Said::Mail(Mail {
                to: known.routes[parent],
                body: Body::Up {
                    grid: key.0,
                    area: parent as u32,
                    child: key.1,
                    message,
                    times,
                },
            }));
        }
        for (child, angles_rad) in outgoing.down {
            said.push(Said::Mail(Mail {
                to: known.routes[child as usize],
                body: Body::Down {
                    grid: key.0,
                    area: child,
                    angles_rad,
                },
            }));
        }
    }

    /// Everything has come to rest: what the areas of this worker say at the end of the epoch.
    fn publish(&mut self, epoch: u64, said: &mut Vec<Said>) {
        let mut part = |part: GridPart| said.push(Said::Part(Part::Grid(epoch, part)));
        std::mem::take(&mut self.gone)
            .into_iter()
            .for_each(|(tenant, area)| part(GridPart::Gone(tenant, area)));
        std::mem::take(&mut self.switches)
            .into_values()
            .for_each(|row| part(GridPart::Switch(row)));
        for key in std::mem::take(&mut self.touched) {
            if let Some(Some(estimated)) = self.areas.get_mut(&key) {
                part(GridPart::Area(Arc::new(estimated.read_out())));
            }
        }
        if !std::mem::take(&mut self.is_check_due) {
            return;
        }
        for (&(grid, area), estimated) in &self.areas {
            let is_top = self.topologies.get(&grid).is_some_and(|known| known.grid.depth(area) == 1);
            if let Some(estimated) = estimated.as_ref().filter(|_| is_top) {
                let drawn = estimated.drawn();
                part(GridPart::Drawn { grid, area, drawn });
            }
        }
    }
}

/// A piece of an epoch's outcome.
#[derive(Debug, Clone)]
pub(crate) enum GridPart {
    Area(Arc<AreaEstimate>),
    Gone(TenantId, Arc<str>),
    Switch(SwitchRow),
    /// What the nodes of a top area draw, from time to time: index in the whole network, W, var. Nothing without an estimate.
    Drawn {
        grid: GridId,
        area: u32,
        drawn: Vec<(u32, f64, f64)>,
    },
}
