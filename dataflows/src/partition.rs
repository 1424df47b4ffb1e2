//! The state of one partition, across the operators that hold it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use flexmeter_model::EventTime;
use flexmeter_model::outcome::PartitionOutcome;

use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::config::EngineConfig;
use crate::decode::Intake;
use crate::engine::PartitionSnapshot;
use crate::grid::Meters;
use crate::identities::Identities;
use crate::latest::Latest;
use crate::load_profile::LoadProfile;
use crate::outages::Homes;
use crate::reconfiguration::{LocatedFaults, Reconfigurations};
use crate::totals::Totals;

/// One operator's state of each partition it has met. Shared with the worker, which writes checkpoints between two steps.
pub(crate) type PerPartition<S> = Rc<RefCell<BTreeMap<u32, S>>>;

/// Everything remembered of one partition.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) partition: u32,
    pub(crate) intake: Intake,
    pub(crate) identities: Identities,
    pub(crate) totals: Totals,
    pub(crate) latest: Latest,
    pub(crate) load_profile: LoadProfile,
    pub(crate) meters: Meters,
    pub(crate) homes: Homes,
    pub(crate) reconfigurations: Reconfigurations,
    pub(crate) located: LocatedFaults,
}

impl PartitionState {
    /// Reads a checkpoint.
    pub(crate) fn read(snapshot: &PartitionSnapshot, config: &EngineConfig) -> Result<Self, CheckpointError> {
        let mut input = Reader::begin(&snapshot.bytes)?;
        let found = input.u32()?;
        if found != config.n_partitions {
            return Err(CheckpointError::Partitions { found });
        }
        let partition = input.u32()?;
        let intake = Intake::read(&mut input, partition, &config.unknown_devices)?;
        if partition != snapshot.partition || intake.next_offset != snapshot.offset {
            return Err(CheckpointError::Misplaced {
                partition,
                offset: intake.next_offset,
            });
        }
        let identities = Identities::read(&mut input)?;
        let totals = Totals::read(&mut input)?;
        let latest = Latest::read(&mut input, intake.devices.len())?;
        let load_profile = LoadProfile::read(&mut input, &intake.devices, config)?;
        let meters = Meters::read(&mut input, &intake.devices)?;
        let homes = Homes::read(&mut input)?;
        let reconfigurations = Reconfigurations::read(&mut input, &config.reconfiguration)?;
        let located = LocatedFaults::read(&mut input)?;
        input.finish()?;
        Ok(Self {
            partition,
            intake,
            identities,
            totals,
            latest,
            load_profile,
            meters,
            homes,
            reconfigurations,
            located,
        })
    }

    /// The views' rows, as changes from nothing; none of a partition from which nothing was read.
    pub(crate) fn restored_outcome(&self) -> Option<PartitionOutcome> {
        (self.intake.log_time > i64::MIN).then(|| PartitionOutcome {
            partition: self.partition,
            start_offset: self.intake.next_offset,
            end_offset: self.intake.next_offset,
            log_time: EventTime::from_micros(self.intake.log_time),
            latest: self.latest.restored_changes(&self.intake.devices),
            profile: self.load_profile.restored_changes(),
            ..PartitionOutcome::default()
        })
    }
}

/// The states of a worker's partitions, by operator.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerStates {
    pub(crate) intakes: PerPartition<Intake>,
    pub(crate) identities: PerPartition<Identities>,
    pub(crate) totals: PerPartition<Totals>,
    pub(crate) latest: PerPartition<Latest>,
    pub(crate) load_profiles: PerPartition<LoadProfile>,
    pub(crate) meters: PerPartition<Meters>,
    pub(crate) homes: PerPartition<Homes>,
    pub(crate) reconfigurations: PerPartition<Reconfigurations>,
    pub(crate) located: PerPartition<LocatedFaults>,
}

impl WorkerStates {
    /// Hands each operator its part of the restored partitions.
    pub(crate) fn restore(states: Vec<PartitionState>) -> Self {
        let this = Self::default();
        for state in states {
            this.intakes.borrow_mut().insert(state.partition, state.intake);
            this.identities.borrow_mut().insert(state.partition, state.identities);
            this.totals.borrow_mut().insert(state.partition, state.totals);
            this.latest.borrow_mut().insert(state.partition, state.latest);
            this.load_profiles.borrow_mut().insert(state.partition, state.load_profile);
            this.meters.borrow_mut().insert(state.partition, state.meters);
            this.homes.borrow_mut().insert(state.partition, state.homes);
            this.reconfigurations.borrow_mut().insert(state.partition, state.reconfigurations);
            this.located.borrow_mut().insert(state.partition, state.located);
        }
        this
    }

    /// Writes the checkpoint of every partition met so far, or home of a grid. Between two epochs only.
    pub(crate) fn snapshot(&self, n_partitions: u32) -> Vec<PartitionSnapshot> {
        let (intakes, homes) = (self.intakes.borrow(), self.homes.borrow());
        let lived_in = homes.iter().filter(|(_, homes)| !homes.is_empty()).map(|(&partition, _)| partition);
        let partitions: BTreeSet<u32> = intakes.keys().copied().chain(lived_in).collect();
        let unread = Intake::default();
        let snapshots = partitions.into_iter().map(|partition| {
            let intake = intakes.get(&partition).unwrap_or(&unread);
            self.snapshot_of(partition, intake, n_partitions)
        });
        snapshots.collect()
    }

    fn snapshot_of(&self, partition: u32, intake: &Intake, n_partitions: u32) -> PartitionSnapshot {
        let mut out = Writer::begin(CAPACITY_START);
        out.u32(n_partitions);
        out.u32(partition);
        intake.write(&mut out);
        write(&self.identities, partition, |state| state.write(&mut out));
        write(&self.totals, partition, |state| state.write(&mut out));
        write(&self.latest, partition, |state| state.write(&mut out));
        write(&self.load_profiles, partition, |state| state.write(&mut out));
        write(&self.meters, partition, |state| state.write(&mut out));
        write(&self.homes, partition, |state| state.write(&mut out));
        write(&self.reconfigurations, partition, |state| state.write(&mut out));
        write(&self.located, partition, |state| state.write(&mut out));
        PartitionSnapshot {
            partition,
            offset: intake.next_offset,
            bytes: out.finish(),
        }
    }
}

const CAPACITY_START: usize = 64 * 1024;

/// An operator that has met nothing of a partition yet has the empty state.
fn write<S: Default>(states: &PerPartition<S>, partition: u32, write: impl FnOnce(&S)) {
    match states.borrow().get(&partition) {
        Some(state) => write(state),
        None => write(&S::default()),
    }
}
