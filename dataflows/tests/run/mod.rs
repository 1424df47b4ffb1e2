//! An engine with one grid, fed epoch by epoch.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use flexmeter_dataflows::{Engine, EngineConfig, Grid, PartitionSnapshot};
use flexmeter_grid::bundle::Reading;
use flexmeter_model::TenantId;
use flexmeter_model::outcome::{ClosedEpoch, RejectionRow};

use crate::recording::{Blocks, Logged, N_PARTITIONS, State, TENANT};

pub(crate) const START: i64 = 1_794_900_000_000_000;

pub(crate) fn tenant() -> TenantId {
    TenantId::new(TENANT).unwrap()
}

pub(crate) fn config(grid: &Arc<Grid>, n_workers: usize) -> EngineConfig {
    EngineConfig {
        n_workers,
        n_partitions: N_PARTITIONS,
        grids: BTreeMap::from([(tenant(), grid.clone())]),
        ..EngineConfig::default()
    }
}

/// An engine with what it has said so far.
pub(crate) struct Run {
    pub(crate) engine: Engine,
    closed: Receiver<ClosedEpoch>,
    pub(crate) state: State,
    pub(crate) rejections: Vec<RejectionRow>,
    pub(crate) blocks: Blocks,
    epoch: u64,
}

impl Run {
    pub(crate) fn start(config: EngineConfig, snapshots: Vec<PartitionSnapshot>, blocks: Blocks) -> Self {
        let has_first = !config.grids.is_empty() || !snapshots.is_empty();
        let (sender, closed) = sync_channel(4);
        let engine = Engine::start(config, snapshots, sender).unwrap();
        let mut run = Self {
            engine,
            closed,
            state: State::default(),
            rejections: Vec::new(),
            blocks,
            epoch: 0,
        };
        if has_first {
            run.take();
        }
        run
    }

    pub(crate) fn take(&mut self) -> usize {
        let closed = self.closed.recv().unwrap_or_else(|_| panic!("{:?}", self.engine.error()));
        let n_areas = closed.grid.areas.len();
        self.rejections
            .extend(closed.partitions.into_iter().flat_map(|partition| partition.rejections));
        self.state.take(closed.grid);
        n_areas
    }

    /// Feeds an epoch; how many areas were estimated.
    pub(crate) fn feed(&mut self, messages: &[Logged]) -> usize {
        self.epoch += 1;
        self.engine.feed(self.epoch, self.blocks.of(messages)).unwrap();
        self.take()
    }
}

/// All of it in one epoch, by an engine that knows nothing.
pub(crate) fn at_once(grid: &Arc<Grid>, messages: &[Logged]) -> State {
    let mut run = Run::start(config(grid, 1), Vec::new(), Blocks::default());
    run.feed(messages);
    run.engine.shutdown().unwrap();
    run.state
}

/// What every meter says at one moment, in W, var and V.
pub(crate) fn readings(messages: &[Logged]) -> HashMap<String, Reading> {
    let mut readings = HashMap::new();
    for message in messages {
        let value: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
        let nan = [f64::NAN; 3];
        let mut reading = Reading {
            u_v: nan,
            p_w: nan,
            q_var: nan,
        };
        for (name, value) in value["request"]["measurements"].as_object().unwrap() {
            let (kind, k) = name.rsplit_once(".l").unwrap();
            let (k, value) = (k.parse::<usize>().unwrap() - 1, value.as_f64().unwrap());
            match kind {
                "electricity.voltage.rms" => reading.u_v[k] = value,
                "electricity.power.active.consumed" => reading.p_w[k] = value * 1e3,
                "electricity.power.active.injected" => reading.p_w[k] = -value * 1e3,
                "electricity.power.reactive.consumed" => reading.q_var[k] = value * 1e3,
                _ => reading.q_var[k] = -value * 1e3,
            }
        }
        readings.insert(message.hardware_id.clone(), reading);
    }
    readings
}
