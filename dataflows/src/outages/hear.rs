//! What the meters, switches and operators of one partition say, on its way to their tenants' homes.
//!
//! Every accepted message of a meter is a sign of life, so this is on the hot path: a device is looked up once, and what a batch says goes
//! out in one message for each worker. Where a tenant has no grid, a message costs one look into a table.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;

use flexmeter_grid::outage::Fact;
use flexmeter_model::Identifier;
use flexmeter_model::operator::{Decision, OPERATOR};
use flexmeter_model::outcome::{AlertRow, Device};
use flexmeter_model::record::partition_of;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::watched::Decided;
use crate::batch::Accepted;
use crate::grid::{GridNumber, Grids, Meters, Role};
use crate::partition::WorkerStates;

/// Below this share of its rated voltage on all phases that it speaks of, a meter that can still speak has no supply (IEEE Std 1159-2019: interruption).
const INTERRUPTED_PU: f64 = 0.1;

/// By number of the identifier.
static IS_VOLTAGE: LazyLock<[bool; Identifier::COUNT]> =
    LazyLock::new(|| Identifier::ALL.map(|identifier| identifier.name().starts_with("electricity.voltage.rms.l")));

/// What a batch of one partition says to the homes of one worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Heard {
    /// Index of the worker.
    pub(super) to: u64,
    /// Log time at the end of the batch, µs.
    pub(super) log_us: i64,
    pub(super) said: Vec<(GridNumber, Said)>,
}

/// Of one grid, each kind in the order of the log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) facts: Vec<MeterFact>,
    pub(super) operations: Vec<Operation>,
    /// Log time, the outage's id, what was decided.
    pub(super) decisions: Vec<(i64, String, Decided)>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct MeterFact {
    pub(super) log_us: i64,
    pub(super) meter: u32,
    pub(super) fact: Fact,
}

/// A switch was operated.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Operation {
    pub(super) log_us: i64,
    pub(super) switch: u32,
    pub(super) is_closed: bool,
    pub(super) event_us: i64,
}

/// What a device is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Link {
    #[default]
    Unknown,
    Nothing,
    /// Index into the grids, what it is there, and the voltage to ground below which a meter has no supply, V.
    To(usize, Part, f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Meter(u32),
    Switch(u32),
    Operator,
}

/// A worker's share of hearing.
struct Ears {
    n_workers: u64,
    n_partitions: u32,
    /// The grids that the links are of, in order.
    grids: Vec<GridNumber>,
    /// By grid: its home's worker.
    homes: Vec<u64>,
    /// By partition and device index.
    links: BTreeMap<u32, Vec<Link>>,
    /// By partition: log time, which never goes back.
    log_us: BTreeMap<u32, i64>,
}

/// Gathers what is said of grids.
pub(super) fn hear<'scope>(
    accepted: StreamVec<'scope, u64, Rc<Accepted>>,
    states: &WorkerStates,
    grids: Rc<RefCell<Grids>>,
    n_partitions: u32,
) -> StreamVec<'scope, u64, Heard> {
    let intakes = states.intakes.borrow();
    let mut ears = Ears {
        n_workers: accepted.scope().peers() as u64,
        n_partitions,
        grids: Vec::new(),
        homes: Vec::new(),
        links: BTreeMap::new(),
        log_us: intakes.iter().map(|(&partition, intake)| (partition, intake.log_time)).collect(),
    };
    ears.renew(&grids.borrow());
    let remembered = ears.remember(&states.meters.borrow(), &grids.borrow());
    accepted.unary(Pipeline, "hear", |start, _| {
        let mut start = Some((start, remembered));
        move |input, output| {
            let grids = grids.borrow();
            if let Some((start, mut remembered)) = start.take() {
                output.session(&start).give_container(&mut remembered);
            }
            input.for_each_stamp(|time, containers| {
                let mut heard = Vec::new();
                for batch in containers.flat_map(std::mem::take) {
                    if !grids.is_empty() {
                        ears.renew(&grids);
                        ears.hear(&batch, &grids, &mut heard);
                    }
                }
                output.session(&time).give_container(&mut heard);
            });
        }
    })
}

impl Ears {
    /// The links of other grids say nothing.
    fn renew(&mut self, grids: &Grids) {
        if self.grids.iter().eq(grids.keys()) {
            return;
        }
        self.links.clear();
        self.grids = grids.keys().copied().collect();
        let home = |tenant: &str| u64::from(partition_of(tenant, OPERATOR, self.n_partitions)) % self.n_workers;
        self.homes = grids.values().map(|(tenant, _)| home(tenant.as_str())).collect();
    }

    /// What switches have said before the start, some of them before they were in a grid; a home leaves out what it knows.
    fn remember(&mut self, meters: &BTreeMap<u32, Meters>, grids: &Grids) -> Vec<Heard> {
        let mut heard = Vec::new();
        for (&partition, state) in meters {
            let log_us = self.log_us.get(&partition).copied().unwrap_or(i64::MIN);
            let links = self.links.entry(partition).or_default();
            let mut operations: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
            for (device, is_closed, event_us) in state.positions() {
                if let Link::To(grid, Part::Switch(switch), _) = link(links, device, grids) {
                    operations.entry(grid).or_default().push(Operation {
                        log_us,
                        switch,
                        is_closed,
                        event_us,
                    });
                }
            }
            heard.extend(operations.into_iter().filter_map(|(grid, operations)| {
                let said = Said {
                    operations,
                    ..Said::default()
                };
                Some(Heard {
                    to: *self.homes.get(grid)?,
                    log_us,
                    said: vec![(*self.grids.get(grid)?, said)],
                })
            }));
        }
        heard
    }

    fn hear(&mut self, batch: &Accepted, grids: &Grids, heard: &mut Vec<Heard>) {
        let links = self.links.entry(batch.span.partition).or_default();
        let start_us = self.log_us.insert(batch.span.partition, batch.span.log_time).unwrap_or(i64::MIN);
        let mut said: Vec<Said> = vec![Said::default(); grids.len()];
        let mut now = start_us;
        for (head, identifiers, values) in batch.rows.measurements.messages() {
            let Link::To(grid, Part::Meter(meter), interrupted_v) = link(links, &head.device, grids) else {
                continue;
            };
            now = now.max(head.received_at.micros());
            let at = head.event_time.micros();
            let fact = match has_voltage(identifiers, values, interrupted_v) {
                Some(false) => Fact::Gasp(at),
                _ => Fact::Alive(at),
            };
            said[grid].facts.push(MeterFact { log_us: now, meter, fact });
        }
        now = start_us;
        for alert in &batch.rows.alerts {
            now = now.max(alert.received_at.micros());
            if let Link::To(grid, part, _) = link(links, &alert.device, grids) {
                hear_alert(alert, part, now, &mut said[grid]);
            }
        }
        let first = heard.len();
        heard.extend((0..self.n_workers).map(|to| Heard {
            to,
            log_us: batch.span.log_time,
            said: Vec::new(),
        }));
        for ((said, &grid), &home) in said.into_iter().zip(&self.grids).zip(&self.homes) {
            if !(said.facts.is_empty() && said.operations.is_empty() && said.decisions.is_empty()) {
                heard[first + home as usize].said.push((grid, said));
            }
        }
    }
}

/// What a device is, looked up once.
fn link(links: &mut Vec<Link>, device: &Device, grids: &Grids) -> Link {
    let index = device.index as usize;
    if index >= links.len() {
        links.resize(index + 1, Link::Unknown);
    }
    if links[index] == Link::Unknown {
        links[index] = look_up(device, grids).unwrap_or(Link::Nothing);
    }
    links[index]
}

fn look_up(device: &Device, grids: &Grids) -> Option<Link> {
    let (place, (_, grid)) = grids.values().enumerate().find(|(_, (tenant, _))| *tenant == device.tenant)?;
    if device.hardware_id.as_str() == OPERATOR {
        return Some(Link::To(place, Part::Operator, 0.0));
    }
    Some(match grid.role(device.hardware_id.as_str())? {
        Role::Switch(switch) => Link::To(place, Part::Switch(switch), 0.0),
        Role::Meter(meter) => {
            let node = grid.bundle().meters.get(meter as usize)?.node;
            let u_rated_v = grid.bundle().network.nodes().get(node)?.u_rated_v;
            Link::To(place, Part::Meter(meter), INTERRUPTED_PU * u_rated_v / 3f64.sqrt())
        }
    })
}

/// Whether any of the voltages in a message is that of supply; `None` without a voltage.
fn has_voltage(identifiers: &[Identifier], values: &[f64], interrupted_v: f64) -> Option<bool> {
    let voltages = identifiers
        .iter()
        .zip(values)
        .filter(|(identifier, _)| IS_VOLTAGE[identifier.index()]);
    voltages.map(|(_, &value)| value >= interrupted_v).reduce(|any, has| any || has)
}

fn hear_alert(alert: &AlertRow, part: Part, log_us: i64, said: &mut Said) {
    let event_us = alert.event_time.micros();
    match part {
        Part::Meter(meter) => {
            let fact = match alert.alert_type.as_str() {
                "power.lastgasp" => Fact::Gasp(event_us),
                "power.restored" => Fact::Restored(event_us),
                _ => Fact::Alive(event_us),
            };
            said.facts.push(MeterFact { log_us, meter, fact });
        }
        Part::Switch(switch) if alert.alert_type == "switch.position" => {
            let is_closed = match flexmeter_model::operator::value(alert, "position") {
                Some("closed") => true,
                Some("open") => false,
                _ => return,
            };
            said.operations.push(Operation {
                log_us,
                switch,
                is_closed,
                event_us,
            });
        }
        Part::Switch(_) => {}
        Part::Operator => {
            let decided = match Decision::read(alert) {
                Some((Decision::AcknowledgeOutage, id, _)) => (id, Decided::Acknowledged),
                Some((Decision::CloseOutage, id, _)) => (id, Decided::Closed),
                _ => return,
            };
            said.decisions.push((log_us, decided.0.to_owned(), decided.1));
        }
    }
}
