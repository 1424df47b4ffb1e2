//! The street in motion: log → engine → live views and lake, with checkpoints behind it.
//!
//! Three parties share the work. The *pump* reads the log and feeds epochs to the engine. The *distributor* takes closed epochs, applies
//! them to the live views and hands them to the lake. A *checkpoint* is a snapshot of the engine that is published once the lake holds
//! everything up to it. Whatever fails here is returned as an error; [`crate::supervision`] starts the street again from the last
//! checkpoint while the broker keeps accepting messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use flexmeter_connectors::lake::Lake;
use flexmeter_connectors::log::InboundLog;
use flexmeter_dataflows::{Engine, EngineConfig, EstimationConfig, PartitionSnapshot, ReconfigurationConfig, UnknownDevices};
use flexmeter_model::outcome::ClosedEpoch;
use flexmeter_model::record::RecordBlock;
use flexmeter_model::{EventTime, GridBundle, TenantId};
use flexmeter_queries::live::LiveStore;
use tokio::sync::watch;

use crate::alignment::Alignment;
use crate::bundles::Grids;
use crate::checkpoint::CheckpointStore;
use crate::grid_topics::GridNews;
use crate::retention::LogRetention;

/// What an epoch may hold, in bytes of log, shared by the partitions: large enough to amortise an epoch, small enough to bound memory.
const EPOCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// With many partitions each still moves on by this much.
const EPOCH_BYTES_PER_PARTITION_MIN: usize = 64 * 1024;
/// Closed epochs that may wait for the distributor before the engine is held back.
const CLOSED_EPOCHS_WAITING_MAX: usize = 2;
/// A checkpoint may cost at most one part in this many of the time between two of them.
const CHECKPOINT_COST_DIVISOR: u32 = 20;

/// What the street is built from.
pub(crate) struct Parts {
    pub(crate) log: Arc<dyn InboundLog>,
    pub(crate) lake: Arc<Lake>,
    pub(crate) live: Arc<LiveStore>,
    pub(crate) checkpoints: CheckpointStore,
    pub(crate) engine: EngineConfig,
    pub(crate) checkpoint_every: Duration,
    pub(crate) retention: Duration,
    pub(crate) grid_news: Arc<GridNews>,
    /// The grids of `engine`, for the live views.
    pub(crate) bundles: BTreeMap<TenantId, Arc<GridBundle>>,
}

/// Progress that others may watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// True once everything that was in the log at the start has been applied.
    pub(crate) caught_up: bool,
}

/// Runs the street until `stop` turns true, or `renewed` changes. Blocking: give it a thread of its own.
pub(crate) fn run(
    parts: Parts,
    runtime: &tokio::runtime::Handle,
    progress: &watch::Sender<Progress>,
    stop: &watch::Receiver<bool>,
    renewed: &watch::Receiver<u64>,
) -> anyhow::Result<()> {
    let snapshots = parts.checkpoints.load()?;
    let next = start_offsets(&parts, runtime, &snapshots)?;
    parts.live.set_grids(parts.bundles.clone());
    parts.grid_news.begin();
    // a restored engine, and one with grids, first tells its views, as epoch 0
    let has_first = !snapshots.is_empty() || !parts.engine.grids.is_empty();
    let (applied_tx, applied_rx) = watch::channel((!has_first).then_some(0));
    let (closed_tx, closed_rx) = sync_channel(CLOSED_EPOCHS_WAITING_MAX);
    let mut engine = Engine::start(parts.engine.clone(), snapshots, closed_tx).context("the engine does not start")?;

    std::thread::scope(|scope| {
        let distributor = {
            let (lake, live, news) = (Arc::clone(&parts.lake), Arc::clone(&parts.live), Arc::clone(&parts.grid_news));
            std::thread::Builder::new()
                .name("distributor".to_owned())
                .spawn_scoped(scope, move || distribute(&closed_rx, &lake, &live, &news, runtime, &applied_tx))?
        };
        let epoch_bytes = (EPOCH_BYTES_MAX / parts.log.n_partitions().max(1) as usize).max(EPOCH_BYTES_PER_PARTITION_MIN);
        let mut pump = Pump {
            epoch_bytes,
            parts: &parts,
            runtime,
            engine: &mut engine,
            alignment: Alignment::new(next.len(), epoch_bytes / 2),
            fed: next.clone(),
            next,
            epoch: 0,
            applied: applied_rx,
            progress,
            retention: LogRetention::load(&parts.checkpoints, parts.retention),
            checkpoint: None,
        };
        let pumped = pump.run(stop, renewed);
        let checkpoint = pump.checkpoint.take();
        let distributor_was_first = distributor.is_finished();
        if pumped.is_err() {
            // the distributor may be waiting for a lake that cannot commit; what it holds comes again from the log
            runtime.block_on(parts.lake.close());
        }
        // the engine hands out what it still has, then closes the channel and with it the distributor
        let stopped = engine.shutdown().context("the engine failed");
        let distributed = distributor.join().unwrap_or_else(|_| bail!("the distributor panicked"));
        if let Some(checkpoint) = checkpoint {
            // the next street must not meet the files of this one; why it failed, if it did, is known already
            let _ = runtime.block_on(checkpoint);
        }
        // who failed first knows why
        if distributor_was_first {
            distributed.and(pumped).and(stopped)
        } else {
            pumped.and(distributed).and(stopped)
        }
    })
}

/// Where reading starts: at the checkpoint, or at the start of the log. Refuses to start where it could lose rows.
fn start_offsets(parts: &Parts, runtime: &tokio::runtime::Handle, snapshots: &[PartitionSnapshot]) -> anyhow::Result<Vec<u64>> {
    let mut next = Vec::new();
    for partition in 0..parts.log.n_partitions() {
        let bounds = runtime.block_on(parts.log.bounds(partition))?;
        // a snapshot at offset 0 is of a partition from which nothing was read yet
        let Some(snapshot) = snapshots
            .iter()
            .find(|snapshot| snapshot.partition == partition && snapshot.offset > 0)
        else {
            if bounds.start > 0 {
                tracing::warn!(
                    partition,
                    from = bounds.start,
                    "no checkpoint: the live views are rebuilt from what the log still has; the lake keeps what it holds"
                );
            }
            next.push(bounds.start);
            continue;
        };
        let offset = snapshot.offset;
        if offset > bounds.end {
            bail!(
                "the checkpoint stands at offset {offset} of partition {partition}, but the log ends at {}: the log has lost data or belongs to another installation",
                bounds.end
            );
        }
        if offset < bounds.start {
            bail!(
                "the checkpoint stands at offset {offset} of partition {partition}, but the log starts at {}: messages between the two are in the log no more. Restore a newer checkpoint, or move data_dir/checkpoints away to go on from the start of the log",
                bounds.start
            );
        }
        next.push(offset);
    }
    Ok(next)
}

fn distribute(
    closed: &Receiver<ClosedEpoch>,
    lake: &Lake,
    live: &LiveStore,
    news: &GridNews,
    runtime: &tokio::runtime::Handle,
    applied: &watch::Sender<Option<u64>>,
) -> anyhow::Result<()> {
    while let Ok(epoch) = closed.recv() {
        let epoch = Arc::new(epoch);
        // first the lake: what leaves the live views must be found there already
        runtime
            .block_on(lake.push(Arc::clone(&epoch)))
            .context("the lake does not take rows")?;
        live.apply(&epoch);
        news.post(&epoch.grid);
        count(&epoch);
        applied.send_replace(Some(epoch.epoch));
    }
    Ok(())
}

fn count(epoch: &ClosedEpoch) {
    for partition in &epoch.partitions {
        let counts = partition.counts;
        for (outcome, n) in [
            ("accepted", counts.n_accepted),
            ("rejected", counts.n_rejected),
            ("duplicate", counts.n_duplicates),
        ] {
            metrics::counter!("flexmeter_engine_messages_total", "outcome" => outcome).increment(n);
        }
        for row in &partition.rejections {
            metrics::counter!("flexmeter_engine_rejections_total", "reason" => row.reason.as_str()).increment(1);
        }
        metrics::counter!("flexmeter_engine_readings_total").increment(partition.measurements.values.len() as u64);
        metrics::counter!("flexmeter_engine_profile_reopened_total").increment(counts.n_reopened);
        metrics::counter!("flexmeter_engine_faults_malformed_total").increment(counts.n_faults_malformed);
    }
    metrics::gauge!("flexmeter_engine_epoch").set(epoch.epoch as f64);
}

struct Pump<'a> {
    parts: &'a Parts,
    runtime: &'a tokio::runtime::Handle,
    engine: &'a mut Engine,
    /// By partition: what is to be read next, and what is to be fed next.
    next: Vec<u64>,
    fed: Vec<u64>,
    alignment: Alignment,
    epoch: u64,
    applied: watch::Receiver<Option<u64>>,
    progress: &'a watch::Sender<Progress>,
    epoch_bytes: usize,
    retention: LogRetention,
    checkpoint: Option<tokio::task::JoinHandle<anyhow::Result<Duration>>>,
}

impl Pump<'_> {
    fn run(&mut self, stop: &watch::Receiver<bool>, renewed: &watch::Receiver<u64>) -> anyhow::Result<()> {
        let mut appended = self.parts.log.appended();
        let (mut stop, mut renewed) = (stop.clone(), renewed.clone());
        let mut checkpoint_due = Instant::now() + self.parts.checkpoint_every;
        let mut checkpointed = 0;
        // an error says that nobody is left who could renew anything
        while !*stop.borrow() && !renewed.has_changed().unwrap_or(false) {
            appended.mark_unchanged();
            let blocks = self.read()?;
            if blocks.is_empty() {
                self.report(true);
                let applied = &mut self.applied;
                let distributing = self.runtime.block_on(async {
                    tokio::select! {
                        _ = appended.changed() => true,
                        _ = stop.changed() => true,
                        Ok(()) = renewed.changed() => {
                            // the loop looks at it
                            renewed.mark_changed();
                            true
                        }
                        applied = applied.changed() => applied.is_ok(),
                        () = tokio::time::sleep_until(checkpoint_due.into()) => true,
                    }
                });
                if !distributing {
                    bail!("the distributor is gone");
                }
            } else {
                self.epoch += 1;
                self.engine.feed(self.epoch, blocks).context("the engine failed")?;
                self.report(false);
            }
            if Instant::now() >= checkpoint_due {
                let mut wait = self.parts.checkpoint_every;
                if let Some(cost) = self.finish_checkpoint(false)? {
                    wait = wait.max(cost * CHECKPOINT_COST_DIVISOR);
                }
                if self.epoch > checkpointed && self.checkpoint.is_none() {
                    checkpointed = self.epoch;
                    self.start_checkpoint()?;
                }
                checkpoint_due = Instant::now() + wait;
            }
        }
        // a clean stop leaves a checkpoint at the very end, so that the next start replays nothing
        self.finish_checkpoint(true)?;
        if self.epoch > checkpointed {
            self.start_checkpoint()?;
            self.finish_checkpoint(true)?;
        }
        Ok(())
    }

    /// What the next epoch holds; nothing at the end of the log.
    fn read(&mut self) -> anyhow::Result<Vec<RecordBlock>> {
        for (partition, next) in (0..).zip(&mut self.next) {
            if !self.alignment.has_room(partition as usize) {
                continue;
            }
            let block = self.runtime.block_on(self.parts.log.read(partition, *next, self.epoch_bytes))?;
            if let Some(block) = block {
                *next = block.end_offset();
                self.alignment.put(block);
            }
        }
        let blocks = self.alignment.take(EventTime::from_clock(SystemTime::now()));
        for block in &blocks {
            if let Some(fed) = self.fed.get_mut(block.partition as usize) {
                *fed = block.end_offset();
            }
        }
        Ok(blocks)
    }

    fn report(&mut self, at_end: bool) {
        let applied = *self.applied.borrow_and_update();
        let caught_up = at_end && applied >= Some(self.epoch);
        if caught_up {
            self.parts.grid_news.caught_up();
        }
        self.progress.send_if_modified(|progress| {
            let changed = caught_up && !progress.caught_up;
            progress.caught_up |= caught_up;
            changed
        });
    }

    /// Takes a snapshot of everything fed so far and publishes it in the background once the lake holds as much.
    fn start_checkpoint(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let snapshots = self.engine.snapshot().context("the engine failed")?;
        let epoch = self.epoch;
        let expired = self.retention.note(SystemTime::now(), &self.fed);
        let retention = self.retention.clone();
        let (log, lake, store, mut applied) = (
            Arc::clone(&self.parts.log),
            Arc::clone(&self.parts.lake),
            self.parts.checkpoints.clone(),
            self.applied.clone(),
        );
        self.checkpoint = Some(self.runtime.spawn(async move {
            applied
                .wait_for(|&applied| applied >= Some(epoch))
                .await
                .context("the distributor is gone")?;
            lake.flush().await.context("the lake cannot commit")?;
            let publish = move || {
                store.publish(&snapshots)?;
                retention.save(&store)
            };
            tokio::task::spawn_blocking(publish)
                .await?
                .context("the checkpoint cannot be written")?;
            for (partition, offset) in (0..).zip(expired.unwrap_or_default()) {
                // nothing is wrong with the street; the next position to expire truncates as much and more
                if let Err(error) = log.truncate_before(partition, offset).await {
                    tracing::warn!(partition, "the log keeps more than it has to: {error}");
                }
            }
            let cost = started.elapsed();
            metrics::histogram!("flexmeter_checkpoint_seconds").record(cost.as_secs_f64());
            Ok(cost)
        }));
        Ok(())
    }

    /// The cost of the running checkpoint if it has ended (or once it has, when `wait`).
    fn finish_checkpoint(&mut self, wait: bool) -> anyhow::Result<Option<Duration>> {
        match self.checkpoint.take() {
            Some(task) if wait || task.is_finished() => Ok(Some(self.runtime.block_on(task)??)),
            running => {
                self.checkpoint = running;
                Ok(None)
            }
        }
    }
}

/// The engine's settings as the configuration gives them.
pub(crate) fn engine_config(
    config: &crate::config::Config,
    unknown_devices: UnknownDevices,
    grids: &Grids,
) -> anyhow::Result<EngineConfig> {
    const SECOND_US: i64 = 1_000_000;
    const HOUR_US: i64 = 3_600 * SECOND_US;
    let times = |n: u64, unit_us: i64| i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(unit_us);
    let (hours, seconds) = (|n| times(n, HOUR_US), |n| times(n, SECOND_US));
    let switching = &config.grid.reconfiguration;
    let tenant = |name: &String| TenantId::new(name).with_context(|| format!("grid.reconfiguration.automatic: {name:?}"));
    let reconfiguration = ReconfigurationConfig {
        automatic: switching.automatic.iter().map(tenant).collect::<anyhow::Result<_>>()?,
        saving_min_w: switching.saving_min_kw * 1e3,
        dwell_us: seconds(switching.dwell_s),
        check_us: seconds(switching.check_s),
        expires_us: seconds(switching.expires_s),
        confirmation_us: seconds(switching.confirmation_s),
        pause_us: seconds(switching.pause_s),
        voltage_pu: [switching.voltage_min_pu, switching.voltage_max_pu],
    };
    Ok(EngineConfig {
        n_workers: config.engine.workers,
        n_partitions: config.log.partitions,
        dedupe_horizon_us: hours(config.engine.dedupe_hours),
        profile_retention_us: hours(config.engine.profile_hours),
        unknown_devices,
        grids: grids.engine.clone(),
        estimation: EstimationConfig {
            is_on: config.grid.estimation,
            ..EstimationConfig::default()
        },
        reconfiguration,
        ..EngineConfig::default()
    })
}
