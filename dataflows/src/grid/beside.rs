//! Solves that take longer than a few milliseconds, beside the worker loop.
//!
//! The area goes to another thread as it is at that time, and comes back solved; the operator keeps the capability of that time meanwhile,
//! so the result counts for the time of its snapshot. The worker goes on with everything else: decoding, the views, other areas.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use timely::scheduling::SyncActivator;

use super::area::{Estimated, Outgoing};
use super::levels::AreaKey;
use crate::error::EngineError;
use crate::faults::Faults;

/// An area on its way.
pub(crate) struct Job {
    pub(crate) key: AreaKey,
    pub(crate) area: Box<dyn Estimated>,
    pub(crate) may_tell_angles: bool,
}

/// An area that has come back.
pub(crate) struct Done {
    pub(crate) key: AreaKey,
    pub(crate) area: Box<dyn Estimated>,
    pub(crate) outgoing: Outgoing,
}

/// The thread beside a worker; started with the first job.
pub(crate) struct Beside {
    activator: SyncActivator,
    faults: Faults,
    worker: usize,
    thread: Option<(Sender<Job>, Receiver<Done>)>,
}

impl Beside {
    pub(crate) fn new(activator: SyncActivator, faults: Faults, worker: usize) -> Self {
        Self {
            activator,
            faults,
            worker,
            thread: None,
        }
    }

    /// Sends an area off.
    pub(crate) fn send(&mut self, job: Job) {
        if self.thread.is_none() {
            self.thread = self.start();
        }
        if let Some((jobs, _)) = &self.thread
            && jobs.send(job).is_err()
        {
            // the thread has reported why
            self.faults.stop();
        }
    }

    /// What has come back.
    pub(crate) fn take(&mut self) -> Vec<Done> {
        self.thread.iter().flat_map(|(_, done)| done.try_iter()).collect()
    }

    /// It ends by itself when the operator is dropped.
    fn start(&self) -> Option<(Sender<Job>, Receiver<Done>)> {
        let (jobs, to_do) = channel::<Job>();
        let (results, done) = channel();
        let (activator, faults, worker) = (self.activator.clone(), self.faults.clone(), self.worker);
        let work = move || {
            for mut job in to_do {
                let outgoing = catch_unwind(AssertUnwindSafe(|| job.area.estimate(job.may_tell_angles)));
                let Ok(outgoing) = outgoing else {
                    let message = "an estimate beside the worker loop panicked".to_owned();
                    return faults.report(EngineError::WorkerPanicked { worker, message });
                };
                let done = Done {
                    key: job.key,
                    area: job.area,
                    outgoing,
                };
                // nobody may be left who waits for it
                if results.send(done).is_err() || activator.activate().is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("flexmeter-solve-{}", self.worker))
            .spawn(work);
        match thread {
            Ok(_) => Some((jobs, done)),
            Err(error) => {
                self.faults.report(EngineError::Threads { reason: error.to_string() });
                None
            }
        }
    }
}
