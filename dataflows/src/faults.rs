//! How one part of the engine tells the others that it cannot go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use crate::error::EngineError;

/// The engine's first fault, shared by all of its threads. A fault stops every worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stopping: AtomicBool,
    first: Mutex<Option<EngineError>>,
    workers: Mutex<Vec<Thread>>,
}

impl Faults {
    /// Stops the engine; the first report is the one that is told.
    pub(crate) fn report(&self, error: EngineError) {
        lock(&self.0.first).get_or_insert(error);
        self.stop();
    }

    /// Stops the engine without a fault: its handle was dropped.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the workers are to stop at once.
    pub(crate) fn any(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Why the engine stopped.
    pub(crate) fn first(&self) -> Option<EngineError> {
        lock(&self.0.first).clone()
    }

    /// Ok as long as nothing happened.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.first() {
            Some(error) => Err(error),
            None if self.any() => Err(EngineError::Stopped),
            None => Ok(()),
        }
    }

    /// A worker that wants to be woken.
    pub(crate) fn join(&self, worker: Thread) {
        lock(&self.0.workers).push(worker);
    }

    /// Wakes every worker: there is something to do.
    pub(crate) fn wake(&self) {
        lock(&self.0.workers).iter().for_each(Thread::unpark);
    }
}

/// What is behind these locks is complete between any two statements, so a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
