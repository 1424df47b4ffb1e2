//! An engine that watches a grid, what it says, and what its meters, switches and operators say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use flexmeter_dataflows::{Engine, EngineConfig, Grid, PartitionSnapshot};
use flexmeter_model::TenantId;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::outcome::{ClosedEpoch, OutageRow, ReliabilityRow};
use flexmeter_model::record::partition_of;
use serde_json::json;

use crate::district::message;
use crate::recording::{Blocks, Logged, N_PARTITIONS, TENANT};

pub(crate) const START: i64 = 1_794_900_000_000_000;

pub(crate) fn tenant() -> TenantId {
    TenantId::new(TENANT).unwrap()
}

pub(crate) fn config(grid: Option<&Arc<Grid>>, n_workers: usize) -> EngineConfig {
    EngineConfig {
        n_workers,
        n_partitions: N_PARTITIONS,
        grids: grid.map(|grid| (tenant(), grid.clone())).into_iter().collect(),
        ..EngineConfig::default()
    }
}

/// The two views, as the changes leave them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Views {
    pub(crate) outages: BTreeMap<String, Arc<OutageRow>>,
    pub(crate) reliability: BTreeMap<String, Arc<ReliabilityRow>>,
}

impl Views {
    pub(crate) fn take(&mut self, epoch: ClosedEpoch) {
        for change in epoch.grid.outages {
            assert_eq!(change.tenant, tenant());
            match change.new {
                Some(row) => drop(self.outages.insert(change.key.to_string(), row)),
                None => assert!(self.outages.remove(&*change.key).is_some(), "{} was there", change.key),
            }
        }
        for change in epoch.grid.reliability {
            match change.new {
                Some(row) => drop(self.reliability.insert(change.key.to_string(), row)),
                None => assert!(self.reliability.remove(&*change.key).is_some(), "feeder {} was there", change.key),
            }
        }
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &OutageRow> {
        self.outages.values().map(Arc::as_ref).filter(|row| row.closed_at.is_none())
    }

    #[track_caller]
    pub(crate) fn only(&self) -> &OutageRow {
        assert_eq!(self.outages.len(), 1, "{:#?}", self.outages);
        self.outages.values().next().unwrap()
    }
}

/// An engine with what it has said so far.
pub(crate) struct Run {
    pub(crate) engine: Engine,
    pub(crate) closed: Receiver<ClosedEpoch>,
    pub(crate) views: Views,
    pub(crate) blocks: Blocks,
    pub(crate) epoch: u64,
}

impl Run {
    pub(crate) fn start(config: EngineConfig, snapshots: Vec<PartitionSnapshot>, blocks: Blocks) -> Self {
        let has_first = !config.grids.is_empty() || !snapshots.is_empty();
        let (sender, closed) = sync_channel(4);
        let engine = Engine::start(config, snapshots, sender).unwrap();
        let mut run = Self {
            engine,
            closed,
            views: Views::default(),
            blocks,
            epoch: 0,
        };
        if has_first {
            run.take();
        }
        run
    }

    pub(crate) fn take(&mut self) -> u64 {
        let epoch = self.closed.recv().unwrap_or_else(|_| panic!("{:?}", self.engine.error()));
        let n_accepted = epoch.partitions.iter().map(|outcome| outcome.counts.n_accepted).sum();
        self.views.take(epoch);
        n_accepted
    }

    /// Feeds an epoch; how many messages were accepted.
    pub(crate) fn feed(&mut self, messages: &[Logged]) -> u64 {
        self.epoch += 1;
        self.engine.feed(self.epoch, self.blocks.of(messages)).unwrap();
        self.take()
    }
}

/// The log's heartbeats: one in each partition.
pub(crate) fn beat(at: i64) -> Vec<Logged> {
    (0..N_PARTITIONS).map(|partition| heartbeat(partition, at)).collect()
}

/// A message that changes nothing, in a partition: whoever sends it is in no grid.
pub(crate) fn heartbeat(partition: u32, at: i64) -> Logged {
    let name = (0..)
        .map(|n| format!("clock-{n}"))
        .find(|name| partition_of(TENANT, name, N_PARTITIONS) == partition);
    message(
        &name.unwrap(),
        at,
        "DeviceAlert",
        json!({"type": "tick", "level": "Info", "message": ""}),
    )
}

pub(crate) fn gasp(hardware_id: &str, event: i64, received_at: i64) -> Logged {
    alert(hardware_id, "power.lastgasp", event, received_at)
}

pub(crate) fn restored(hardware_id: &str, event: i64, received_at: i64) -> Logged {
    alert(hardware_id, "power.restored", event, received_at)
}

pub(crate) fn alert(hardware_id: &str, kind: &str, event: i64, received_at: i64) -> Logged {
    let alert = message(
        hardware_id,
        event,
        "DeviceAlert",
        json!({"type": kind, "level": "Critical", "message": ""}),
    );
    Logged { received_at, ..alert }
}

pub(crate) fn reading(hardware_id: &str, u_v: f64, at: i64) -> Logged {
    message(
        hardware_id,
        at,
        "DeviceMeasurements",
        json!({"measurements": {"electricity.voltage.rms.l1": u_v}}),
    )
}

pub(crate) fn decision(kind: &str, id: &str, at: i64) -> Logged {
    let metadata = json!({"subject": id, "by": "ada"});
    message(
        OPERATOR,
        at,
        "DeviceAlert",
        json!({"type": kind, "level": "Info", "message": "", "metadata": metadata}),
    )
}
