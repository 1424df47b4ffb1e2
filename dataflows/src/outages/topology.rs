//! Grids and switch operations as collections, by the worker that is their tenant's home.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use flexmeter_grid::bundle;
use flexmeter_grid::network::Terminal;
use flexmeter_grid::outage::{GridBranch, MeteringPoint, PointId};
use flexmeter_model::TenantId;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::record::partition_of;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use super::hear::Heard;
use super::home::{Home, Homes};
use super::{GridId, Moment, SwitchPosition, Unmetered};
use crate::config::EngineConfig;
use crate::grid::{Grid, GridNumber, Grids, Role};
use crate::partition::PerPartition;

/// A row of one of the collections that the supply is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    Branch(GridBranch),
    Position(SwitchPosition),
    Source(i64),
    Point(MeteringPoint),
    Unmetered(Unmetered),
}

/// What a home tells its worker's other operators.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Update(GridId, Update, Moment, isize),
    /// There is mail in the inbox.
    Wake,
}

/// What was heard, by epoch; it waits here until the epoch's supply is known.
#[derive(Debug, Default)]
pub(super) struct Inbox(pub(super) BTreeMap<u64, Vec<Heard>>);

/// The grids whose tenants have their home on this worker.
#[derive(Default)]
pub(super) struct Roster {
    pub(super) places: BTreeMap<GridNumber, Place>,
    /// The grid that a key stands for now.
    pub(super) by_key: BTreeMap<GridId, GridNumber>,
    /// Of all grids that there ever were.
    pub(super) tenants: BTreeMap<GridId, (TenantId, u32)>,
}

/// A grid that is in use.
pub(super) struct Place {
    /// Stands for the tenant: it stays when the tenant's grid is replaced.
    pub(super) key: GridId,
    tenant: TenantId,
    partition: u32,
    pub(super) grid: Arc<Grid>,
    /// By meter: its point.
    pub(super) points: Vec<PointId>,
    /// Everything that is in the collections.
    rows: Vec<Update>,
    /// By switch that has reported: its row.
    positions: BTreeMap<u32, SwitchPosition>,
}

impl Roster {
    /// The grid that a key stands for now.
    pub(super) fn of_key(&self, key: GridId) -> Option<&Place> {
        self.places.get(self.by_key.get(&key)?)
    }
}

/// Settings of the homes.
struct Homemaker {
    worker: usize,
    n_workers: usize,
    n_partitions: u32,
    step_us: i64,
    states: PerPartition<Homes>,
    grids: Rc<RefCell<Grids>>,
    roster: Rc<RefCell<Roster>>,
}

/// Puts the grids of this worker's homes, and what their switches report, into collections, epoch by epoch.
pub(super) fn home<'scope>(
    heard: StreamVec<'scope, u64, Heard>,
    news: StreamVec<'scope, u64, ()>,
    states: PerPartition<Homes>,
    grids: Rc<RefCell<Grids>>,
    config: &EngineConfig,
    roster: Rc<RefCell<Roster>>,
    inbox: Rc<RefCell<Inbox>>,
) -> StreamVec<'scope, u64, Told> {
    let scope = heard.scope();
    let maker = Homemaker {
        worker: scope.index(),
        n_workers: scope.peers(),
        n_partitions: config.n_partitions,
        step_us: config.estimation.step_us,
        states,
        grids,
        roster,
    };
    let to = |heard: &Heard| heard.to;
    heard.binary_frontier(news, Exchange::new(to), Pipeline, "home", move |start, _| {
        let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<Heard>, bool)> = BTreeMap::new();
        // what there is from the start is news at epoch 0
        waiting.insert(*start.time(), (start, Vec::new(), true));
        move |(heard, heard_frontier), (news, news_frontier), output| {
            let mut file = |capability: Option<Capability<u64>>, mails: Vec<Heard>, has_news: bool| {
                let Some(capability) = capability else { return };
                let entry = waiting.entry(*capability.time()).or_insert_with(|| (capability, Vec::new(), false));
                entry.1.extend(mails);
                entry.2 |= has_news;
            };
            heard.for_each_stamp(|time, containers| {
                file(
                    time.retain_least(output.output_index()),
                    containers.flat_map(std::mem::take).collect(),
                    false,
                );
            });
            news.for_each_stamp(|time, containers| {
                let has_news = containers.flat_map(std::mem::take).count() > 0;
                file(time.retain_least(output.output_index()), Vec::new(), has_news);
            });
            let is_complete = |epoch: &u64| !heard_frontier.frontier().less_equal(epoch) && !news_frontier.frontier().less_equal(epoch);
            while let Some(first) = waiting.first_entry().filter(|first| is_complete(first.key())) {
                let (epoch, (capability, mails, has_news)) = first.remove_entry();
                let mut told = Vec::new();
                if has_news {
                    maker.renew(epoch, &mut told);
                }
                mails.iter().for_each(|heard| maker.operate(heard, epoch, &mut told));
                inbox.borrow_mut().0.insert(epoch, mails);
                told.push(Told::Wake);
                output.session(&capability).give_container(&mut told);
            }
        }
    })
}

impl Homemaker {
    /// Goes over to the grids that the worker has now.
    fn renew(&self, epoch: u64, told: &mut Vec<Told>) {
        let (grids, mut roster, mut states) = (self.grids.borrow(), self.roster.borrow_mut(), self.states.borrow_mut());
        let moment = Moment::beginning(epoch);
        let Roster { places, by_key, tenants } = &mut *roster;
        places.retain(|number, place| {
            let stays = grids.contains_key(number);
            if !stays {
                by_key.remove(&place.key);
                let positions = place.positions.values().copied().map(Update::Position);
                told.extend(
                    place
                        .rows
                        .drain(..)
                        .chain(positions)
                        .map(|row| Told::Update(place.key, row, moment, -1)),
                );
            }
            stays
        });
        for (&number, (tenant, grid)) in grids.iter().filter(|(number, _)| !places.contains_key(number)).collect::<Vec<_>>() {
            let partition = partition_of(tenant.as_str(), OPERATOR, self.n_partitions);
            if partition as usize % self.n_workers != self.worker {
                continue;
            }
            let known = tenants.iter().find(|(_, (known, _))| known == tenant).map(|(&key, _)| key);
            // unique, and its remainder says where it lives
            let key = known.unwrap_or(u64::from(number) * u64::from(self.n_partitions) + u64::from(partition));
            tenants.insert(key, (tenant.clone(), partition));
            let home = states.entry(partition).or_default().tenants.entry(tenant.clone()).or_default();
            let place = self.place(key, partition, tenant, grid, home);
            let positions = place.positions.values().copied().map(Update::Position);
            told.extend(
                place
                    .rows
                    .iter()
                    .copied()
                    .chain(positions)
                    .map(|row| Told::Update(key, row, moment, 1)),
            );
            by_key.insert(key, number);
            places.insert(number, place);
        }
    }

    fn place(&self, key: GridId, partition: u32, tenant: &TenantId, grid: &Arc<Grid>, home: &mut Home) -> Place {
        let bundle = grid.bundle();
        let points: Vec<PointId> = bundle.meters.iter().map(|meter| home.number(&meter.hardware_id)).collect();
        let positions = home.positions.iter().filter_map(|(name, (is_closed, _))| {
            let Some(Role::Switch(switch)) = grid.role(name) else { return None };
            Some((switch, position(grid, switch, *is_closed)?))
        });
        Place {
            key,
            tenant: tenant.clone(),
            partition,
            grid: grid.clone(),
            rows: rows(grid, &points, self.step_us),
            positions: positions.collect(),
            points,
        }
    }

    /// Switches that were operated.
    fn operate(&self, heard: &Heard, epoch: u64, told: &mut Vec<Told>) {
        let (mut roster, mut states) = (self.roster.borrow_mut(), self.states.borrow_mut());
        for (number, said) in heard.said.iter().filter(|(_, said)| !said.operations.is_empty()) {
            let Some(place) = roster.places.get_mut(number) else { continue };
            let home = states
                .entry(place.partition)
                .or_default()
                .tenants
                .entry(place.tenant.clone())
                .or_default();
            for operation in &said.operations {
                let Some((name, row)) =
                    place
                        .grid
                        .device_of_switch(operation.switch)
                        .zip(position(&place.grid, operation.switch, operation.is_closed))
                else {
                    continue;
                };
                if home
                    .positions
                    .get(&name)
                    .is_some_and(|(_, event_us)| operation.event_us < *event_us)
                {
                    continue;
                }
                home.positions.insert(name, (operation.is_closed, operation.event_us));
                let moment = Moment {
                    epoch,
                    log_us: operation.log_us,
                };
                let old = place.positions.insert(operation.switch, row);
                if old != Some(row) {
                    told.extend(old.map(|old| Told::Update(place.key, Update::Position(old), moment, -1)));
                    told.push(Told::Update(place.key, Update::Position(row), moment, 1));
                }
            }
        }
    }
}

fn position(grid: &Grid, switch: u32, is_closed: bool) -> Option<SwitchPosition> {
    let bundle = grid.bundle();
    let branch = bundle.network.branches().get(bundle.switches.get(switch as usize)?.branch)?.id;
    Some(SwitchPosition { branch, is_closed })
}

/// A bundle as rows, with the switches as it has them.
fn rows(grid: &Grid, points: &[PointId], step_us: i64) -> Vec<Update> {
    let bundle = grid.bundle();
    let network = &bundle.network;
    let id = |node: usize| network.nodes().get(node).map(|node| node.id);
    let branches = network.branches().iter().filter_map(|branch| {
        let branch = GridBranch {
            branch: branch.id,
            from: id(branch.from)?,
            to: id(branch.to)?,
            is_closed: branch.is_closed(),
        };
        Some(Update::Branch(branch))
    });
    let sources = network.sources().iter().filter(|source| source.connected);
    let sources = sources.filter_map(|source| Some(Update::Source(id(source.node)?)));
    let metered = bundle.meters.iter().zip(points).filter_map(|(meter, &point)| {
        // meters of the grid have no customers, and nothing to gasp with
        let is_customer = meter.role == bundle::Role::Customer;
        let point = MeteringPoint {
            point,
            node: id(meter.node)?,
            n_customers: u32::from(is_customer),
            sends_gasps: is_customer,
            reading_interval_us: Some(step_us),
        };
        Some(Update::Point(point))
    });
    branches.chain(sources).chain(metered).chain(unmetered(grid)).collect()
}

/// Loads that no customer's meter measures: one customer each.
fn unmetered(grid: &Grid) -> Vec<Update> {
    let network = &grid.bundle().network;
    let mut is_metered = vec![false; network.appliances().len()];
    for meter in grid.bundle().meters.iter().filter(|meter| meter.role == bundle::Role::Customer) {
        match meter.terminal {
            Terminal::Appliance(load) => is_metered.get_mut(load).into_iter().for_each(|is| *is = true),
            // it measures everything that is there
            _ => {
                let here = network.appliances().iter().zip(&mut is_metered);
                here.filter(|(load, _)| load.node == meter.node).for_each(|(_, is)| *is = true);
            }
        }
    }
    let mut customers: BTreeMap<i64, u32> = BTreeMap::new();
    let loads = network.appliances().iter().zip(is_metered);
    for (load, _) in loads.filter(|(load, is_metered)| !is_metered && load.connected && !load.is_generator) {
        if let Some(node) = network.nodes().get(load.node) {
            *customers.entry(node.id).or_default() += 1;
        }
    }
    let rows = customers.into_iter().map(|(node, n_customers)| Unmetered { node, n_customers });
    rows.map(Update::Unmetered).collect()
}
