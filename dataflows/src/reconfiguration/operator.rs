//! The wiring: notes come to the homes, searches run beside the worker loop, and what has changed is told at the end of the epoch.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use flexmeter_model::TenantId;
use flexmeter_model::outcome::GridOutcome;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use super::clock::LogClock;
use super::evaluation::{Evaluation, Snapshot, evaluate};
use super::home_of;
use super::note::{Body, Note, tenant_of};
use super::plans::{Plans, Reconfigurations};
use crate::batch::Part;
use crate::config::EngineConfig;
use crate::faults::Faults;
use crate::grid::{Beside, Grids};
use crate::partition::PerPartition;

struct Job {
    tenant: TenantId,
    snapshot: Snapshot,
}

struct Done {
    tenant: TenantId,
    evaluation: Evaluation,
}

/// Follows the proposals of the tenants whose home is on this worker. An epoch is worked off when all its notes are there, and after the
/// ones before it; a search under way holds its epoch, so its answer counts for the moment of its snapshot.
pub(crate) fn reconfiguration<'scope>(
    notes: StreamVec<'scope, u64, Note>,
    states: PerPartition<Reconfigurations>,
    grids: Rc<RefCell<Grids>>,
    config: Rc<EngineConfig>,
    faults: Faults,
) -> StreamVec<'scope, u64, Part> {
    let scope = notes.scope();
    let (worker, n_workers) = (scope.index(), scope.peers());
    let to = |note: &Note| note.to;
    notes.unary_frontier(Exchange::new(to), "reconfiguration", |start, info| {
        let activator = scope.worker().sync_activator_for(info.address.to_vec());
        let search = |job: Job| Done {
            evaluation: evaluate(&job.snapshot),
            tenant: job.tenant,
        };
        let mut homes = Homes {
            worker,
            n_workers,
            states,
            grids,
            config,
            clock: LogClock::default(),
            away: BTreeSet::new(),
            beside: Beside::new("search", activator, faults.clone(), worker, search),
        };
        let mut start = Some(start);
        let mut turns: BTreeMap<u64, Turn> = BTreeMap::new();
        move |(input, frontier), output| {
            if let Some(start) = start.take() {
                // what the checkpoint has brought back
                let restored = homes.outcome();
                let part = (!restored.is_empty()).then_some(Part::Operations(0, restored));
                output.session(&start).give_iterator(part.into_iter());
            }
            input.for_each(|time, notes| {
                for &epoch in time.stamp().iter() {
                    let turn = turns.entry(epoch).or_insert_with(|| Turn {
                        capability: time.delayed(&epoch, 0),
                        notes: Some(Vec::new()),
                    });
                    turn.notes.get_or_insert_default().append(notes);
                }
            });
            while let Some(mut turn) = turns.first_entry() {
                let epoch = *turn.key();
                if faults.any() || frontier.frontier().iter().any(|at| *at <= epoch) {
                    break;
                }
                if let Some(notes) = turn.get_mut().notes.take() {
                    homes.begin(notes);
                }
                if !homes.advance() {
                    break;
                }
                let outcome = homes.outcome();
                let capability = turn.remove().capability;
                let part = (!outcome.is_empty()).then_some(Part::Operations(epoch, outcome));
                output.session(&capability).give_iterator(part.into_iter());
            }
        }
    })
}

/// What is to be done in one epoch.
struct Turn {
    capability: Capability<u64>,
    /// `None` once it has begun.
    notes: Option<Vec<Note>>,
}

struct Homes {
    worker: usize,
    n_workers: usize,
    states: PerPartition<Reconfigurations>,
    grids: Rc<RefCell<Grids>>,
    config: Rc<EngineConfig>,
    clock: LogClock,
    /// Tenants for which a search is under way.
    away: BTreeSet<TenantId>,
    beside: Beside<Job, Done>,
}

impl Homes {
    fn home(&self, tenant: &TenantId) -> u32 {
        home_of(tenant, self.config.n_partitions)
    }

    /// Takes the notes of an epoch in.
    fn begin(&mut self, notes: Vec<Note>) {
        self.follow_grids();
        let states = self.states.clone();
        let mut states = states.borrow_mut();
        for Note { body, .. } in notes {
            let (Body::Event { tenant, .. } | Body::Switch { tenant, .. } | Body::Drawn { tenant, .. }) = &body else {
                if let Body::Clock { partition, log_time } = body {
                    self.clock.hear(partition, log_time);
                }
                continue;
            };
            let Some(tenant) = tenant_of(tenant) else { continue };
            let state = states.entry(self.home(&tenant)).or_default();
            let plans = state.tenants.entry(tenant).or_default();
            match body {
                Body::Event { place, event, .. } => plans.wait(place, event),
                Body::Switch { branch_id, position, .. } => plans.set_position(branch_id, position),
                Body::Drawn { grid, area, drawn, .. } => plans.set_drawn(grid, area, drawn),
                Body::Clock { .. } => {}
            }
        }
    }

    /// Goes over to the grids that the worker has now.
    fn follow_grids(&mut self) {
        let grids = self.grids.borrow();
        let mut states = self.states.borrow_mut();
        for (tenant, _) in grids.values() {
            let home = self.home(tenant);
            if home as usize % self.n_workers == self.worker {
                states.entry(home).or_default().tenants.entry(tenant.clone()).or_default();
            }
        }
        for (tenant, plans) in states.values_mut().flat_map(|state| &mut state.tenants) {
            let grid = grids.iter().find(|(_, (owner, _))| owner == tenant);
            plans.set_grid(grid.map(|(&id, (_, grid))| (id, grid)));
        }
    }

    /// Goes on as far as the log has come; whether that is done, or a search is awaited.
    fn advance(&mut self) -> bool {
        let config = &self.config.reconfiguration;
        let mut states = self.states.borrow_mut();
        let mut ready: BTreeSet<TenantId> = BTreeSet::new();
        if self.away.is_empty() {
            ready.extend(states.values().flat_map(|state| state.tenants.keys().cloned()));
        }
        for done in self.beside.take() {
            self.away.remove(&done.tenant);
            if let Some(plans) = plans_of(&mut states, &done.tenant) {
                plans.observe(done.evaluation, config.automatic.contains(&done.tenant), config);
            }
            ready.insert(done.tenant);
        }
        let Some(reached) = self.clock.reached() else { return true };
        for tenant in ready {
            let snapshot = plans_of(&mut states, &tenant).and_then(|plans| plans.advance(reached, config));
            if let Some(snapshot) = snapshot {
                self.away.insert(tenant.clone());
                self.beside.send(Job { tenant, snapshot });
            }
        }
        self.away.is_empty()
    }

    fn outcome(&mut self) -> GridOutcome {
        let mut outcome = GridOutcome::default();
        let mut states = self.states.borrow_mut();
        for (tenant, plans) in states.values_mut().flat_map(|state| &mut state.tenants) {
            plans.outcome(tenant, &mut outcome);
        }
        outcome
    }
}

fn plans_of<'a>(states: &'a mut BTreeMap<u32, Reconfigurations>, tenant: &TenantId) -> Option<&'a mut Plans> {
    states.values_mut().find_map(|state| state.tenants.get_mut(tenant))
}
