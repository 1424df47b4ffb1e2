//! Solves that take longer than a few milliseconds, beside the worker loop.
//!
//! The job goes to another thread as it is at that time, and comes back done; the operator keeps the capability of that time meanwhile,
//! so the result counts for the time of its snapshot. The worker goes on with everything else: decoding, the views, other areas.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use timely::scheduling::SyncActivator;

use crate::error::EngineError;
use crate::faults::Faults;

/// The thread beside a worker; started with the first job.
pub(crate) struct Beside<Job, Done> {
    what: &'static str,
    activator: SyncActivator,
    faults: Faults,
    worker: usize,
    work: fn(Job) -> Done,
    thread: Option<(Sender<Job>, Receiver<Done>)>,
}

impl<Job: Send + 'static, Done: Send + 'static> Beside<Job, Done> {
    /// `what` names the work.
    pub(crate) fn new(what: &'static str, activator: SyncActivator, faults: Faults, worker: usize, work: fn(Job) -> Done) -> Self {
        Self {
            what,
            activator,
            faults,
            worker,
            work,
            thread: None,
        }
    }

    /// Sends a job off.
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
        let (what, do_it) = (self.what, self.work);
        let work = move || {
            for job in to_do {
                let done = catch_unwind(AssertUnwindSafe(|| do_it(job)));
                let Ok(done) = done else {
                    let message = format!("the {what} beside the worker loop panicked");
                    return faults.report(EngineError::WorkerPanicked { worker, message });
                };
                // nobody may be left who waits for it
                if results.send(done).is_err() || activator.activate().is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("flexmeter-{what}-{worker}")).spawn(work);
        match thread {
            Ok(_) => Some((jobs, done)),
            Err(error) => {
                self.faults.report(EngineError::Threads { reason: error.to_string() });
                None
            }
        }
    }
}
