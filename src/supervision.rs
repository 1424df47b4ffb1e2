//! Keeps the street running: when it fails it is started again from the last checkpoint, with a growing pause, while the broker keeps
//! storing messages. What is wrong is named in `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::pipeline::{self, Parts, Progress};

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The running street.
pub(crate) struct Street {
    /// How far it is.
    pub(crate) progress: watch::Receiver<Progress>,
    /// Why it is not running, if it is not.
    pub(crate) trouble: Arc<Mutex<Option<String>>>,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Street {
    /// Starts the street; `parts` is called again for every restart. It is also started again, after a checkpoint, when `renewed` changes.
    pub(crate) fn start(parts: impl Fn() -> anyhow::Result<Parts> + Send + 'static, renewed: watch::Receiver<u64>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (stop, stopped) = watch::channel(false);
        let (progress_tx, progress) = watch::channel(Progress::default());
        let trouble = Arc::new(Mutex::new(None));
        let thread = {
            let trouble = Arc::clone(&trouble);
            std::thread::Builder::new()
                .name("street".to_owned())
                .spawn(move || keep_running(&parts, &runtime, &progress_tx, &stopped, renewed, &trouble))?
        };
        Ok(Self {
            progress,
            trouble,
            stop,
            thread,
        })
    }

    /// Stops after a last checkpoint.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the street's thread panicked while stopping");
        }
    }
}

/// Waits `pause` out, unless `stop` turns true or nobody is left who could turn it.
pub(crate) async fn told_to_stop_within(pause: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::time::timeout(pause, stop.wait_for(|&stop| stop)).await.is_ok()
}

fn keep_running(
    parts: &(impl Fn() -> anyhow::Result<Parts> + Send),
    runtime: &tokio::runtime::Handle,
    progress: &watch::Sender<Progress>,
    stop: &watch::Receiver<bool>,
    mut renewed: watch::Receiver<u64>,
    trouble: &Mutex<Option<String>>,
) {
    let mut pause = PAUSE_MIN;
    while !*stop.borrow() {
        let started = std::time::Instant::now();
        *trouble.lock() = None;
        progress.send_replace(Progress::default());
        renewed.mark_unchanged();
        let outcome = parts().and_then(|parts| pipeline::run(parts, runtime, progress, stop, &renewed));
        let Err(error) = outcome else {
            tracing::info!("the street has stopped after a checkpoint");
            continue;
        };
        if started.elapsed() > PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        tracing::error!(
            "the street stopped: {error:#}; starting again from the last checkpoint in {} s",
            pause.as_secs()
        );
        metrics::counter!("flexmeter_street_restarts_total").increment(1);
        *trouble.lock() = Some(format!("{error:#}"));
        if runtime.block_on(told_to_stop_within(pause, &mut stop.clone())) {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
