//! The handle on the running engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use flexmeter_model::TenantId;
use flexmeter_model::outcome::{ClosedEpoch, PartitionOutcome};
use flexmeter_model::record::RecordBlock;
use timely::communication::WorkerGuards;

use crate::close::Share;
use crate::config::{EPOCHS_IN_FLIGHT_MAX, EngineConfig};
use crate::error::EngineError;
use crate::faults::{Faults, lock};
use crate::grid::{Grid, Grids};
use crate::partition::PartitionState;
use crate::worker::{Command, Seat, run};

/// The checkpoint of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSnapshot {
    /// The log partition.
    pub partition: u32,
    /// The offset after the last record in it: replay starts here.
    pub offset: u64,
    /// The state, in the format of this crate.
    pub bytes: Vec<u8>,
}

/// How often a waiting caller looks whether a worker has died meanwhile.
const FAULT_CHECK: Duration = Duration::from_millis(50);

/// A running engine: worker threads, and one that puts their shares of an epoch together.
///
/// Closed epochs come out of the channel given to [`Engine::start`], in order, one for each epoch fed. Take them on another thread
/// than the one that feeds: [`Engine::feed`] and [`Engine::shutdown`] wait for them to be taken. When the channel ends before
/// [`Engine::shutdown`] was called, [`Engine::error`] says why.
///
/// ```
/// use std::sync::mpsc::sync_channel;
/// use flexmeter_dataflows::{Engine, EngineConfig};
/// use flexmeter_model::EventTime;
/// use flexmeter_model::record::{Record, RecordBlock, RecordKind, partition_of};
///
/// let config = EngineConfig::default();
/// let mut data = Vec::new();
/// Record {
///     kind: RecordKind::Message,
///     tenant: "default",
///     hardware_id: "m-1",
///     bound: true,
///     redelivered: false,
///     received_at: EventTime::from_micros(1_455_000_000_000_000),
///     payload: br#"{"hardwareId":"m-1","type":"DeviceMeasurements","request":{"measurements":{"electricity.voltage.rms.l1":230.1}}}"#,
/// }
/// .encode(&mut data);
/// let partition = partition_of("default", "m-1", config.n_partitions);
///
/// let (sender, closed) = sync_channel(4);
/// let mut engine = Engine::start(config, Vec::new(), sender)?;
/// engine.feed(1, vec![RecordBlock { partition, base_offset: 0, n_records: 1, data }])?;
/// let epoch = closed.recv().unwrap();
/// assert_eq!(epoch.partitions[0].latest[0].new.unwrap().value, 230.1);
/// engine.shutdown()?;
/// # Ok::<(), flexmeter_dataflows::EngineError>(())
/// ```
pub struct Engine {
    n_partitions: u32,
    /// One for each worker; dropping them ends the work.
    commands: Vec<SyncSender<Command>>,
    workers: Option<WorkerGuards<()>>,
    closer: Option<JoinHandle<()>>,
    faults: Faults,
    delivered: Arc<Delivered>,
    fed: u64,
    grids: Grids,
    next_grid: u32,
}

/// The last epoch that was delivered.
#[derive(Debug, Default)]
struct Delivered {
    epoch: Mutex<u64>,
    changed: Condvar,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("fed", &self.fed)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the workers. `snapshots` are checkpoints to go on from; the rows they bring back come out first, as epoch 0.
    ///
    /// # Errors
    /// [`EngineError`] when a setting, a checkpoint or the operating system does not allow it.
    pub fn start(config: EngineConfig, snapshots: Vec<PartitionSnapshot>, closed: SyncSender<ClosedEpoch>) -> Result<Self, EngineError> {
        config.check()?;
        let restored = restore(&snapshots, &config)?;
        let is_restored = !snapshots.is_empty();
        drop(snapshots);
        let (restored, outcomes): (Vec<_>, Vec<_>) = restored.into_iter().unzip();
        let outcomes: Vec<PartitionOutcome> = outcomes.into_iter().flatten().collect();
        let n_workers = config.n_workers;
        let grids: Grids = (0..).zip(config.grids.clone()).collect();
        let faults = Faults::default();
        let delivered = Arc::new(Delivered::default());
        let (shares, from_workers) = channel();
        let mut seats: Vec<Option<Seat>> = Vec::new();
        let mut commands = Vec::new();
        let mut restored: Vec<_> = restored.into_iter().map(Some).collect();
        for worker in 0..n_workers {
            let (sender, receiver) = sync_channel(EPOCHS_IN_FLIGHT_MAX as usize + 2);
            let mine = restored
                .iter_mut()
                .filter_map(|state| state.take_if(|state| state.partition as usize % n_workers == worker));
            let (restored, shares, faults, config) = (mine.collect(), shares.clone(), faults.clone(), config.clone());
            seats.push(Some(Seat {
                config,
                restored,
                grids: grids.clone(),
                commands: receiver,
                shares,
                faults,
            }));
            commands.push(sender);
        }
        drop(shares);
        let closer = {
            let (delivered, faults) = (delivered.clone(), faults.clone());
            let closer = Closer {
                n_workers,
                is_restored,
                from_workers,
                closed,
                delivered,
                faults,
            };
            let thread = std::thread::Builder::new().name("flexmeter-close".to_owned());
            thread
                .spawn(move || closer.run(outcomes))
                .map_err(|error| EngineError::Threads { reason: error.to_string() })?
        };
        let seats = Mutex::new(seats);
        let timely = if n_workers == 1 {
            timely::Config::thread()
        } else {
            timely::Config::process(n_workers)
        };
        let workers = timely::execute(timely, move |worker| {
            let seat = lock(&seats).get_mut(worker.index()).and_then(Option::take);
            seat.into_iter().for_each(|seat| run(worker, seat));
        })
        .map_err(|reason| EngineError::Threads { reason })?;
        let n_partitions = config.n_partitions;
        Ok(Self {
            n_partitions,
            commands,
            workers: Some(workers),
            closer: Some(closer),
            faults,
            delivered,
            fed: 0,
            next_grid: grids.len() as u32,
            grids,
        })
    }

    /// Feeds an epoch: the next number, and blocks in offset order within each partition. Waits while [`EPOCHS_IN_FLIGHT_MAX`]
    /// epochs are fed and not yet taken.
    ///
    /// # Errors
    /// [`EngineError`] when the epoch or a block is out of place, or the engine has stopped.
    pub fn feed(&mut self, epoch: u64, blocks: Vec<RecordBlock>) -> Result<(), EngineError> {
        self.faults.check()?;
        if epoch != self.fed + 1 {
            return Err(EngineError::EpochOutOfOrder {
                expected: self.fed + 1,
                found: epoch,
            });
        }
        let n_partitions = self.n_partitions;
        if let Some(RecordBlock { partition, .. }) = blocks.iter().find(|block| block.partition >= n_partitions) {
            return Err(EngineError::UnknownPartition {
                partition: *partition,
                n_partitions,
            });
        }
        self.wait_for_room(epoch)?;
        let n_workers = self.commands.len();
        let mut by_worker: Vec<Vec<RecordBlock>> = (0..n_workers).map(|_| Vec::new()).collect();
        for block in blocks {
            by_worker[block.partition as usize % n_workers].push(block);
        }
        for (commands, blocks) in self.commands.iter().zip(by_worker) {
            commands.send(Command::Feed { epoch, blocks }).map_err(|_| self.why_stopped())?;
        }
        self.fed = epoch;
        self.faults.wake();
        Ok(())
    }

    /// Gives a tenant another grid, or none, from the next epoch on. Switches stand as the bundle says, unless their devices have said
    /// otherwise since the tenant's first grid; meters have the readings that they have sent before.
    ///
    /// A grid is not part of a checkpoint: give it in [`EngineConfig::grids`] at the next start.
    ///
    /// # Errors
    /// [`EngineError`] when the engine has stopped.
    pub fn set_grid(&mut self, tenant: &TenantId, grid: Option<Arc<Grid>>) -> Result<(), EngineError> {
        self.faults.check()?;
        self.grids.retain(|_, (owner, _)| owner != tenant);
        if let Some(grid) = grid {
            self.grids.insert(self.next_grid, (tenant.clone(), grid));
            self.next_grid += 1;
        }
        for commands in &self.commands {
            let grids = self.grids.clone();
            commands.send(Command::Grids { grids }).map_err(|_| self.why_stopped())?;
        }
        self.faults.wake();
        Ok(())
    }

    /// The checkpoints of all partitions met so far, exactly after everything fed so far.
    ///
    /// # Errors
    /// [`EngineError`] when the engine has stopped.
    pub fn snapshot(&mut self) -> Result<Vec<PartitionSnapshot>, EngineError> {
        let (reply, replies) = channel();
        for commands in &self.commands {
            commands
                .send(Command::Snapshot { reply: reply.clone() })
                .map_err(|_| self.why_stopped())?;
        }
        drop(reply);
        self.faults.wake();
        let mut snapshots = Vec::new();
        for _ in &self.commands {
            loop {
                self.faults.check()?;
                match replies.recv_timeout(FAULT_CHECK) {
                    Ok(more) => break snapshots.extend(more),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(self.why_stopped()),
                }
            }
        }
        // A fault during the snapshot would make it incomplete.
        self.faults.check()?;
        snapshots.sort_unstable_by_key(|snapshot| snapshot.partition);
        Ok(snapshots)
    }

    /// Why the engine stopped, if it did.
    #[must_use]
    pub fn error(&self) -> Option<EngineError> {
        self.faults.first()
    }

    /// Finishes and delivers every epoch fed, then ends the threads.
    ///
    /// # Errors
    /// The [`EngineError`] that stopped the engine before.
    pub fn shutdown(mut self) -> Result<(), EngineError> {
        self.commands.clear();
        self.faults.wake();
        self.join_workers();
        if let Some(closer) = self.closer.take() {
            let _ = closer.join();
        }
        self.faults.first().map_or(Ok(()), Err)
    }

    fn wait_for_room(&self, epoch: u64) -> Result<(), EngineError> {
        let mut delivered = lock(&self.delivered.epoch);
        while epoch > *delivered + EPOCHS_IN_FLIGHT_MAX {
            self.faults.check()?;
            let waited = self.delivered.changed.wait_timeout(delivered, FAULT_CHECK);
            delivered = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn why_stopped(&self) -> EngineError {
        self.faults.first().unwrap_or(EngineError::Stopped)
    }

    fn join_workers(&mut self) {
        if let Some(workers) = self.workers.take() {
            for (worker, outcome) in workers.join().into_iter().enumerate() {
                if let Err(message) = outcome {
                    self.faults.report(EngineError::WorkerPanicked { worker, message });
                }
            }
        }
    }
}

impl Drop for Engine {
    /// Stops at once; epochs under way are lost (the log still has them). The closing thread ends by itself when its receiver does.
    fn drop(&mut self) {
        if self.workers.is_some() {
            self.faults.stop();
            self.commands.clear();
            self.faults.wake();
            self.join_workers();
        }
    }
}

/// Reads the checkpoints, one thread each.
fn restore(snapshots: &[PartitionSnapshot], config: &EngineConfig) -> Result<Vec<(PartitionState, Option<PartitionOutcome>)>, EngineError> {
    let n_partitions = config.n_partitions;
    let mut met = BTreeSet::new();
    for &PartitionSnapshot { partition, .. } in snapshots {
        if partition >= n_partitions {
            return Err(EngineError::UnknownPartition { partition, n_partitions });
        }
        if !met.insert(partition) {
            return Err(EngineError::CheckpointTwice { partition });
        }
    }
    std::thread::scope(|scope| {
        let read = |snapshot| {
            PartitionState::read(snapshot, config).map(|state| {
                let outcome = state.restored_outcome();
                (state, outcome)
            })
        };
        let threads: Vec<_> = snapshots
            .iter()
            .map(|snapshot| (snapshot, scope.spawn(move || read(snapshot))))
            .collect();
        let results = threads.into_iter().map(|(snapshot, thread)| match thread.join() {
            Ok(result) => result.map_err(|source| EngineError::Checkpoint {
                partition: snapshot.partition,
                offset: snapshot.offset,
                source,
            }),
            Err(_) => Err(EngineError::Threads {
                reason: "the thread that read a checkpoint panicked".to_owned(),
            }),
        });
        results.collect()
    })
}

/// Puts the workers' shares of an epoch together and delivers them in order.
struct Closer {
    n_workers: usize,
    /// Whether there were checkpoints: then epoch 0 is delivered, whatever is in it.
    is_restored: bool,
    from_workers: Receiver<Share>,
    closed: SyncSender<ClosedEpoch>,
    delivered: Arc<Delivered>,
    faults: Faults,
}

impl Closer {
    fn run(self, restored: Vec<PartitionOutcome>) {
        let mut open: BTreeMap<u64, (usize, ClosedEpoch)> = BTreeMap::new();
        open.entry(0).or_default().1.partitions = restored;
        for share in &self.from_workers {
            let (n_shares, epoch) = open.entry(share.epoch).or_default();
            *n_shares += 1;
            epoch.epoch = share.epoch;
            epoch.partitions.extend(share.partitions);
            epoch.totals.extend(share.totals);
            epoch.grid.append(share.grid);
            while let Some(entry) = open.first_entry().filter(|entry| entry.get().0 == self.n_workers) {
                if self.deliver(in_order(entry.remove().1)).is_err() {
                    return;
                }
            }
        }
    }

    fn deliver(&self, epoch: ClosedEpoch) -> Result<(), ()> {
        let number = epoch.epoch;
        // Epoch 0 is of interest only when something was restored.
        if number > 0 || self.is_restored || !epoch.partitions.is_empty() || !epoch.grid.is_empty() {
            self.closed
                .send(epoch)
                .map_err(|_| self.faults.report(EngineError::OutcomesNotTaken))?;
        }
        *lock(&self.delivered.epoch) = number;
        self.delivered.changed.notify_all();
        Ok(())
    }
}

/// The same epoch looks the same whichever worker was faster.
fn in_order(mut epoch: ClosedEpoch) -> ClosedEpoch {
    epoch.partitions.sort_unstable_by_key(|outcome| outcome.partition);
    epoch.totals.sort_unstable_by(|a, b| (&a.tenant, a.code).cmp(&(&b.tenant, b.code)));
    epoch.grid.sort();
    epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_is_an_error_and_never_a_hang() {
        let (sender, closed) = sync_channel(8);
        let mut engine = Engine::start(EngineConfig::default(), Vec::new(), sender).unwrap();
        engine.feed(1, Vec::new()).unwrap();
        assert_eq!(closed.recv().unwrap().epoch, 1);
        // Time never goes back: timely panics when it is told so.
        engine.commands[1]
            .send(Command::Feed {
                epoch: 0,
                blocks: Vec::new(),
            })
            .unwrap();
        engine.faults.wake();
        assert!(closed.recv().is_err(), "the channel ends");
        let error = engine.error().unwrap();
        assert!(
            matches!(&error, EngineError::WorkerPanicked { worker: 1, message } if message.contains("less_equal")),
            "{error}"
        );
        assert_eq!(engine.feed(2, Vec::new()), Err(error.clone()));
        assert_eq!(engine.snapshot(), Err(error.clone()));
        assert_eq!(engine.shutdown(), Err(error));
    }
}
