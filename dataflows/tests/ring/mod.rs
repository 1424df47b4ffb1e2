//! A ring on one voltage level whose open point is at the wrong place, an engine that runs it, and what it has said.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use flexmeter_dataflows::{Engine, EngineConfig, Grid, PartitionSnapshot, ReconfigurationConfig};
use flexmeter_grid::BASE_POWER_VA;
use flexmeter_grid::bundle::Bundle;
use flexmeter_grid::network::{Network, Terminal};
use flexmeter_grid::pgm::{Dataset, DatasetKind};
use flexmeter_grid::power_flow::{Options, PowerFlow};
use flexmeter_model::message::DeviceMessage;
use flexmeter_model::operator::{Decision, OPERATOR, proposed};
use flexmeter_model::outcome::{AreaEstimate, FaultRow, ReconfigurationRow, RowChange, Suggestion, SwitchCommand, SwitchRow};
use flexmeter_model::record::RecordBlock;
use flexmeter_model::{EventTime, TenantId};
use serde_json::{Value, json};

use crate::district::{message, position};
use crate::generator::{MINUTE, SECOND};
use crate::recording::{Blocks, Logged, N_PARTITIONS, TENANT};

/// A full minute of log time.
pub(crate) const START: i64 = 1_794_900_000_000_000;
/// Nodes of the ring beside its head.
pub(crate) const N_LOADS: usize = 6;

pub(crate) fn tenant() -> TenantId {
    TenantId::new(TENANT).unwrap()
}

/// The ring: head 1, nodes 2 to 7 along a line, back to the head by an open tie. The first line cannot be commanded.
pub(crate) struct Ring {
    pub(crate) bundle: Bundle,
    /// As the switches stand in truth.
    pub(crate) network: Network,
    /// W by load.
    pub(crate) loads_w: [f64; N_LOADS],
}

pub(crate) const LINES: std::ops::RangeInclusive<i64> = 11..=17;

pub(crate) fn device(branch_id: i64) -> String {
    format!("SW-{branch_id}")
}

pub(crate) fn ring() -> Ring {
    let nodes: Vec<Value> = (1..=7).map(|id| json!({"id": id, "u_rated": 10_000})).collect();
    let lines: Vec<Value> = LINES
        .map(|id| {
            let closed = u8::from(id != 17);
            json!({"id": id, "from_node": id - 10, "to_node": id % 10 % 7 + 1, "from_status": closed, "to_status": closed,
                "r1": 0.32, "x1": 0.1, "c1": 0, "tan1": 0, "r0": 0.9, "x0": 0.3, "c0": 0, "tan0": 0, "i_n": 300})
        })
        .collect();
    let loads: Vec<Value> = (0..N_LOADS)
        .map(|at| json!({"id": 21 + at, "node": at + 2, "status": 1, "type": 0, "p_specified": [0, 0, 0], "q_specified": [0, 0, 0]}))
        .collect();
    let network = json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": {
        "node": nodes, "line": lines, "asym_load": loads,
        "source": [{"id": 31, "node": 1, "status": 1, "u_ref": 1.02, "sk": 2e8}],
    }});
    let (mut areas, mut meters) = ("node_id,area\n".to_owned(), METERS.to_owned());
    let mut switches = "branch_id,normal,controllable,hardware_id\n".to_owned();
    for node in 1..=7 {
        writeln!(areas, "{node},mv1").unwrap();
        let role = if node == 1 { "feeder" } else { "customer" };
        writeln!(meters, "M-{node},{node},abc,{role},0.002,0.005").unwrap();
    }
    for id in LINES {
        let normal = if id == 17 { "open" } else { "closed" };
        writeln!(switches, "{id},{normal},{},{}", id != 11, device(id)).unwrap();
    }
    let bundle = Bundle::from_texts(&network.to_string(), &areas, &meters, &switches).unwrap();
    Ring {
        network: bundle.network.clone(),
        bundle,
        loads_w: [300e3, 250e3, 400e3, 200e3, 350e3, 300e3],
    }
}

const METERS: &str = "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\n";

impl Ring {
    pub(crate) fn grid(&self) -> Arc<Grid> {
        Arc::new(Grid::new(self.bundle.clone()).unwrap())
    }

    /// The network as it is in truth.
    pub(crate) fn truth(&self) -> Network {
        let rows: Vec<Value> = (self.loads_w.iter().zip(21..))
            .map(|(p, id)| {
                let (p, q) = ([p / 3.0; 3], [0.1 * p; 3]);
                json!({"id": id, "p_specified": p, "q_specified": q})
            })
            .collect();
        let update = json!({"type": "update", "data": {"asym_load": rows}}).to_string();
        let mut network = self.network.clone();
        network
            .update(&Dataset::from_json(&update, DatasetKind::Update).unwrap(), 0)
            .unwrap();
        network
    }

    /// A switch moves in truth.
    pub(crate) fn operate(&mut self, branch_id: i64, closed: bool) {
        let branch = self.network.branch_index(branch_id).unwrap();
        self.network.set_closed(branch, closed);
    }

    /// What all meters say, without errors.
    pub(crate) fn readings(&self, time: i64) -> Vec<Logged> {
        let network = self.truth();
        let mut flow = PowerFlow::<3>::new(&network).unwrap();
        flow.solve(&Options::default()).unwrap();
        let meters = self.bundle.meters.iter().filter(|meter| flow.voltage_pu(meter.node).is_some());
        meters
            .map(|meter| {
                let u = flow.voltage_pu(meter.node).unwrap();
                let s = match meter.terminal {
                    Terminal::Appliance(load) => [(self.loads_w[load] / 3.0, self.loads_w[load] / 10.0); 3],
                    terminal => flow
                        .terminal_pu(&network, terminal)
                        .map(|s| (s.re * BASE_POWER_VA / 3.0, s.im * BASE_POWER_VA / 3.0)),
                };
                let mut measurements = serde_json::Map::new();
                for k in 0..3 {
                    let mut insert = |name: &str, value: f64| measurements.insert(format!("electricity.{name}.l{}", k + 1), json!(value));
                    insert("voltage.rms", u[k].norm() * 10_000.0 / 3f64.sqrt());
                    insert("power.active.consumed", s[k].0 / 1e3);
                    insert("power.reactive.consumed", s[k].1 / 1e3);
                }
                message(
                    &meter.hardware_id,
                    time,
                    "DeviceMeasurements",
                    json!({ "measurements": measurements }),
                )
            })
            .collect()
    }
}

/// A decision of an operator.
pub(crate) fn decision(decision: Decision, proposal: &str, at: i64) -> Logged {
    of_platform(&decision.message(proposal, "ada", EventTime::from_micros(at)), at)
}

/// A suggestion as the platform puts it into the log.
pub(crate) fn record(suggestion: &Suggestion, at: i64) -> Logged {
    of_platform(&proposed(suggestion), at)
}

fn of_platform(message: &DeviceMessage, at: i64) -> Logged {
    Logged {
        hardware_id: OPERATOR.to_owned(),
        received_at: at,
        payload: serde_json::to_string(message).unwrap(),
    }
}

/// A switch answers a command.
pub(crate) fn answer(branch_id: i64, command: &str, response: &str, at: i64) -> Logged {
    let request = json!({"response": response, "originatingEventId": command});
    message(&device(branch_id), at, "Acknowledge", request)
}

pub(crate) fn report(branch_id: i64, at: i64, closed: bool) -> Logged {
    position(&device(branch_id), at, closed)
}

/// What an epoch is made of: messages, and how far log time goes in each partition.
#[derive(Debug, Clone)]
pub(crate) struct Fed {
    pub(crate) messages: Vec<Logged>,
    pub(crate) until: i64,
}

/// All views of the grid's operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Views {
    pub(crate) reconfigurations: BTreeMap<String, Arc<ReconfigurationRow>>,
    pub(crate) commands: BTreeMap<String, Arc<SwitchCommand>>,
    pub(crate) faults: BTreeMap<String, Arc<FaultRow>>,
    pub(crate) switches: BTreeMap<i64, SwitchRow>,
}

fn apply<R>(view: &mut BTreeMap<String, Arc<R>>, changes: Vec<RowChange<R>>) {
    for change in changes {
        assert_eq!(change.tenant, tenant());
        match change.new {
            Some(row) => drop(view.insert(change.key.to_string(), row)),
            None => assert!(view.remove(&*change.key).is_some(), "{} was there", change.key),
        }
    }
}

impl Views {
    pub(crate) fn states(&self) -> Vec<&'static str> {
        self.reconfigurations.values().map(|row| row.state).collect()
    }
}

/// An engine with what it has said so far, and what it was fed with.
pub(crate) struct Run {
    pub(crate) engine: Engine,
    closed: Receiver<flexmeter_model::outcome::ClosedEpoch>,
    pub(crate) views: Views,
    pub(crate) areas: BTreeMap<String, Arc<AreaEstimate>>,
    pub(crate) n_faults_malformed: u64,
    /// What the engine has suggested and nobody has put into the log.
    pub(crate) suggestions: Vec<Arc<Suggestion>>,
    blocks: Blocks,
    epoch: u64,
    pub(crate) fed: Vec<Fed>,
}

/// Settings with which a test sees everything within minutes.
pub(crate) fn quick() -> ReconfigurationConfig {
    ReconfigurationConfig {
        expires_us: 10 * MINUTE,
        pause_us: 10 * MINUTE,
        ..ReconfigurationConfig::default()
    }
}

pub(crate) fn config(grid: &Arc<Grid>, n_workers: usize, reconfiguration: &ReconfigurationConfig) -> EngineConfig {
    EngineConfig {
        n_workers,
        n_partitions: N_PARTITIONS,
        grids: BTreeMap::from([(tenant(), grid.clone())]),
        reconfiguration: reconfiguration.clone(),
        ..EngineConfig::default()
    }
}

impl Run {
    pub(crate) fn start(config: EngineConfig) -> Self {
        Self::restore(config, Vec::new(), Blocks::default())
    }

    fn restore(config: EngineConfig, snapshots: Vec<PartitionSnapshot>, blocks: Blocks) -> Self {
        let (sender, closed) = sync_channel(4);
        let engine = Engine::start(config, snapshots, sender).unwrap();
        let mut run = Self {
            engine,
            closed,
            views: Views::default(),
            areas: BTreeMap::new(),
            n_faults_malformed: 0,
            suggestions: Vec::new(),
            blocks,
            epoch: 0,
            fed: Vec::new(),
        };
        run.take();
        run
    }

    /// Another process goes on from this one's checkpoint.
    pub(crate) fn restart(mut self, config: EngineConfig) -> Self {
        let snapshots = self.engine.snapshot().unwrap();
        let (blocks, fed) = (self.blocks.clone(), std::mem::take(&mut self.fed));
        drop(self);
        let mut run = Self::restore(config, snapshots, blocks);
        run.fed = fed;
        run
    }

    pub(crate) fn snapshot(&mut self) -> (Vec<PartitionSnapshot>, Blocks) {
        (self.engine.snapshot().unwrap(), self.blocks.clone())
    }

    fn take(&mut self) {
        let epoch = self.closed.recv().unwrap_or_else(|_| panic!("{:?}", self.engine.error()));
        self.n_faults_malformed += epoch
            .partitions
            .iter()
            .map(|outcome| outcome.counts.n_faults_malformed)
            .sum::<u64>();
        let grid = epoch.grid;
        self.suggestions = grid.suggestions.into_iter().map(|(_, suggestion)| suggestion).collect();
        apply(&mut self.views.reconfigurations, grid.reconfigurations);
        apply(&mut self.views.commands, grid.commands);
        apply(&mut self.views.faults, grid.faults);
        self.views
            .switches
            .extend(grid.switches.into_iter().map(|row| (row.branch_id, row)));
        self.areas.extend(grid.areas.into_iter().map(|area| (area.area.to_string(), area)));
    }

    /// Feeds messages; then log time goes on in every partition. What the engine suggests goes into the log at once, as the platform does it.
    pub(crate) fn feed(&mut self, messages: Vec<Logged>, until: i64) {
        self.feed_logged(messages, until);
        self.append(until);
    }

    /// Puts what the engine has suggested into the log.
    pub(crate) fn append(&mut self, at: i64) {
        let records: Vec<Logged> = self.suggestions.iter().map(|suggestion| record(suggestion, at)).collect();
        if !records.is_empty() {
            self.feed_logged(records, at + 1);
        }
    }

    /// Feeds what is in the log, and only that.
    pub(crate) fn feed_logged(&mut self, messages: Vec<Logged>, until: i64) {
        let blocks = self.blocks.of(&messages);
        let blocks = self.blocks.beat(blocks, until);
        self.feed_blocks(blocks);
        self.fed.push(Fed { messages, until });
    }

    pub(crate) fn feed_blocks(&mut self, blocks: Vec<RecordBlock>) {
        self.epoch += 1;
        self.engine.feed(self.epoch, blocks).unwrap();
        self.take();
    }

    /// The same epochs once more, with checkpoints taken and another process started before those that `cut` names.
    pub(crate) fn again(fed: &[Fed], configs: &[EngineConfig], cut: &BTreeSet<usize>) -> Self {
        let mut run = Self::start(configs[0].clone());
        for (at, Fed { messages, until }) in fed.iter().enumerate() {
            if cut.contains(&at) {
                run = run.restart(configs[at % configs.len()].clone());
            }
            run.feed_logged(messages.clone(), *until);
        }
        run
    }

    /// From a checkpoint, the records that came after it, each partition in a step of its own: as unevenly as a replay can read them.
    pub(crate) fn replay(config: EngineConfig, checkpoint: (Vec<PartitionSnapshot>, Blocks), fed: &[Fed]) -> Self {
        let (snapshots, blocks) = checkpoint;
        let mut run = Self::restore(config, snapshots, blocks.clone());
        for blocks in by_partition(blocks, fed).into_values().rev() {
            run.feed_blocks(blocks);
        }
        run
    }

    /// From a checkpoint, the records that came after it, cut into epochs anew: each ends where `is_cut` says so, after the records that
    /// were fed so far.
    pub(crate) fn recut(
        config: EngineConfig,
        (snapshots, mut blocks): (Vec<PartitionSnapshot>, Blocks),
        fed: &[Fed],
        mut is_cut: impl FnMut() -> bool,
    ) -> Self {
        let mut run = Self::restore(config, snapshots, blocks.clone());
        let mut from = 0;
        for at in 0..fed.len() {
            if is_cut() || at + 1 == fed.len() {
                let range = &fed[from..=at];
                run.feed_blocks(by_partition(blocks.clone(), range).into_values().flat_map(joined).collect());
                for Fed { messages, until } in range {
                    let epoch = blocks.of(messages);
                    blocks.beat(epoch, *until);
                }
                from = at + 1;
            }
        }
        run.blocks = blocks;
        run
    }

    pub(crate) fn proposal(&self) -> (&str, &ReconfigurationRow) {
        let (id, row) = self.views.reconfigurations.last_key_value().unwrap();
        (id, row)
    }

    /// The command that waits: its id, branch and whether it closes.
    pub(crate) fn command(&self) -> Option<(String, i64, bool)> {
        assert!(self.views.commands.len() <= 1);
        let (id, command) = self.views.commands.first_key_value()?;
        assert_eq!(command.operation.hardware_id.as_str(), device(command.operation.branch_id));
        Some((id.clone(), command.operation.branch_id, command.operation.close))
    }

    /// Readings every minute until a proposal is there; the minute after.
    pub(crate) fn until_proposal(&mut self, ring: &Ring, from: i64) -> i64 {
        let before = self.views.reconfigurations.len();
        for minute in 0..60 {
            let now = from + minute * MINUTE;
            self.feed(ring.readings(now), now + 1);
            if self.views.reconfigurations.len() > before {
                return now + MINUTE;
            }
        }
        panic!("no proposal in an hour");
    }

    /// Switches do what they are told, one a second, until nothing is commanded; when the last one has.
    pub(crate) fn carry_out(&mut self, ring: &mut Ring, from: i64) -> i64 {
        let mut now = from;
        while let Some((id, branch_id, close)) = self.command() {
            ring.operate(branch_id, close);
            now += SECOND;
            self.feed(vec![answer(branch_id, &id, "done", now), report(branch_id, now, close)], now + 1);
        }
        now
    }
}

fn by_partition(mut blocks: Blocks, fed: &[Fed]) -> BTreeMap<u32, Vec<RecordBlock>> {
    let mut by_partition: BTreeMap<u32, Vec<RecordBlock>> = BTreeMap::new();
    for Fed { messages, until } in fed {
        let epoch = blocks.of(messages);
        for block in blocks.beat(epoch, *until) {
            by_partition.entry(block.partition).or_default().push(block);
        }
    }
    by_partition
}

/// Blocks of a partition as one.
fn joined(blocks: Vec<RecordBlock>) -> Option<RecordBlock> {
    blocks.into_iter().reduce(|mut one, next| {
        one.n_records += next.n_records;
        one.data.extend_from_slice(&next.data);
        one
    })
}
