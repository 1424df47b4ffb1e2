//! One timely worker: takes commands, steps the street, sleeps when there is nothing to do.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

use flexmeter_model::record::RecordBlock;
use timely::dataflow::ProbeHandle;
use timely::worker::Worker;

use crate::close::{Outlet, Share};
use crate::config::EngineConfig;
use crate::engine::PartitionSnapshot;
use crate::error::EngineError;
use crate::faults::Faults;
use crate::grid::{Grids, seed};
use crate::partition::{PartitionState, WorkerStates};
use crate::street::{Inputs, build};

/// An idle worker is woken by whoever gives it work; it looks around by itself this often, in case a wake-up was lost.
const PARK_MAX: Duration = Duration::from_millis(500);

/// What the engine asks of a worker.
pub(crate) enum Command {
    /// An epoch's blocks of this worker's partitions; every worker gets every epoch.
    Feed { epoch: u64, blocks: Vec<RecordBlock> },
    /// Other grids from the next epoch on.
    Grids { grids: Grids },
    /// The checkpoints of this worker's partitions after everything fed so far.
    Snapshot { reply: Sender<Vec<PartitionSnapshot>> },
}

/// What a worker starts with.
pub(crate) struct Seat {
    pub(crate) config: EngineConfig,
    pub(crate) restored: Vec<PartitionState>,
    pub(crate) grids: Grids,
    pub(crate) commands: Receiver<Command>,
    pub(crate) shares: Sender<Share>,
    pub(crate) faults: Faults,
}

/// Works until the engine hangs up or something fails. A panic becomes a fault that stops all workers; the dataflow is dropped
/// then, because it could never finish.
pub(crate) fn run(worker: &mut Worker, seat: Seat) {
    let faults = seat.faults.clone();
    faults.join(std::thread::current());
    let outcome = catch_unwind(AssertUnwindSafe(|| work(worker, seat)));
    if let Err(panic) = outcome {
        faults.report(EngineError::WorkerPanicked {
            worker: worker.index(),
            message: text_of(panic.as_ref()),
        });
    }
    if faults.any() {
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }
}

fn work(worker: &mut Worker, seat: Seat) {
    let Seat {
        config,
        restored,
        grids,
        commands,
        shares,
        faults,
    } = seat;
    let states = WorkerStates::restore(restored);
    // meters that the grids of the checkpoint did not have begin with what they have sent
    seed(&states, &grids);
    let fed = Rc::new(Cell::new(0));
    let outlet = Outlet {
        shares,
        fed: fed.clone(),
        faults: faults.clone(),
    };
    let config = Rc::new(config);
    let grids = Rc::new(RefCell::new(grids));
    let (mut input, probe) = worker.dataflow(|scope| build(scope, &states, grids.clone(), &config, outlet));
    input.advance_to(1);
    while !faults.any() {
        match commands.try_recv() {
            Ok(Command::Feed { epoch, mut blocks }) => {
                input.advance_to(epoch);
                input.blocks.send_batch(&mut blocks);
                fed.set(epoch);
                input.advance_to(epoch + 1);
                worker.step();
            }
            Ok(Command::Grids { grids: new }) => {
                // no operator may still be busy with an epoch of the old ones
                settle(worker, &input, &probe, &faults);
                seed(&states, &new);
                *grids.borrow_mut() = new;
                input.news.send(());
            }
            Ok(Command::Snapshot { reply }) => {
                settle(worker, &input, &probe, &faults);
                // Who asked may have given up.
                let _ = reply.send(states.snapshot(config.n_partitions));
            }
            Err(TryRecvError::Empty) => {
                worker.step_or_park(Some(PARK_MAX));
            }
            Err(TryRecvError::Disconnected) => break,
        }
    }
    input.close();
    while worker.has_dataflows() && !faults.any() {
        worker.step_or_park(Some(PARK_MAX));
    }
}

/// Steps until every epoch fed so far is done with, on all workers.
fn settle(worker: &mut Worker, input: &Inputs, probe: &ProbeHandle<u64>, faults: &Faults) {
    while probe.less_than(input.blocks.time()) && !faults.any() {
        worker.step_or_park(Some(PARK_MAX));
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
    }
}
