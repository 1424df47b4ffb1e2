//! What travels to the home of a tenant: the few records that concern switches, and what the estimates say when it is asked for.

use std::cell::RefCell;
use std::rc::Rc;

use flexmeter_model::TenantId;
use flexmeter_model::operator::{Decision, read_proposed, value};
use flexmeter_model::outcome::{AcknowledgementRow, AlertRow, Device, SwitchRow};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;

use super::home_of;
use crate::batch::{Accepted, Part};
use crate::decode::Intake;
use crate::grid::{GridNumber, GridPart, Grids, Role};
use crate::partition::PerPartition;

/// One message to a worker, or to the home of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Which worker (by remainder).
    pub(crate) to: u64,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Body {
    /// Log time of a partition.
    Clock { partition: u32, log_time: i64 },
    /// Something in the log.
    Event { tenant: String, place: Place, event: Event },
    /// Where a switch stands, for the estimation too.
    Switch {
        tenant: String,
        branch_id: i64,
        position: Position,
    },
    /// What an estimated area draws: index of the node in the whole network, W, var. Nothing where there is no estimate.
    Drawn {
        tenant: String,
        grid: GridNumber,
        area: u32,
        drawn: Vec<(u32, f64, f64)>,
    },
}

/// Where a record is in the log: the order in which events take effect. Append time first, then partition and offset.
pub(crate) type Place = (i64, u32, u64);

/// Where a switch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) closed: bool,
    /// Event time of the report; the least there is for the bundle's own word.
    pub(crate) since: i64,
}

/// A record that concerns proposals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A switch reports its position.
    Position { branch_id: i64, position: Position },
    /// The platform proposes: the metadata of its record, which are known to be good.
    Proposed(Vec<(String, String)>),
    /// An operator has decided.
    Decided { accepts: bool, proposal: String, by: String },
    /// A device has turned a command down.
    Refused { command: String, by: String },
}

/// Picks out of the accepted records what concerns reconfigurations. At the start it says how far the restored partitions are.
pub(crate) fn notes<'scope>(
    accepted: StreamVec<'scope, u64, Rc<Accepted>>,
    intakes: &PerPartition<Intake>,
    grids: Rc<RefCell<Grids>>,
    n_partitions: u32,
) -> StreamVec<'scope, u64, Note> {
    let n_workers = accepted.scope().peers();
    // taken down now: when the operator runs first, the records of the first epoch may have been decoded
    let restored: Vec<Note> = intakes
        .borrow()
        .iter()
        .flat_map(|(&partition, intake)| clocks(partition, intake.log_time, n_workers))
        .collect();
    accepted.unary(Pipeline, "notes", |start, _| {
        let mut start = Some((start, restored));
        move |accepted, output| {
            if let Some((start, mut restored)) = start.take() {
                output.session(&start).give_container(&mut restored);
            }
            accepted.for_each_stamp(|time, containers| {
                let grids = grids.borrow();
                let mut notes = Vec::new();
                for batch in containers.flat_map(std::mem::take) {
                    notes.extend(clocks(batch.span.partition, batch.span.log_time, n_workers));
                    if grids.is_empty() {
                        continue;
                    }
                    let alerts = batch.rows.alerts.iter().filter_map(|alert| of_alert(alert, &grids));
                    let refusals = batch.rows.acknowledgements.iter().filter_map(of_acknowledgement);
                    notes.extend(alerts.chain(refusals).map(|(device, place, event)| Note {
                        to: u64::from(home_of(&device.tenant, n_partitions)),
                        body: Body::Event {
                            tenant: device.tenant.as_str().to_owned(),
                            place,
                            event,
                        },
                    }));
                }
                output.session(&time).give_container(&mut notes);
            });
        }
    })
}

fn clocks(partition: u32, log_time: i64, n_workers: usize) -> impl Iterator<Item = Note> {
    (0..n_workers as u64).map(move |to| Note {
        to,
        body: Body::Clock { partition, log_time },
    })
}

fn of_alert<'a>(alert: &'a AlertRow, grids: &Grids) -> Option<(&'a Device, Place, Event)> {
    let place = (alert.received_at.micros(), alert.device.partition, alert.offset);
    let event = match Decision::read(alert) {
        Some((decision @ (Decision::AcceptReconfiguration | Decision::RejectReconfiguration), proposal, by)) => Event::Decided {
            accepts: decision == Decision::AcceptReconfiguration,
            proposal: proposal.to_owned(),
            by: by.to_owned(),
        },
        Some(_) => return None,
        None if alert.alert_type == "switch.position" => position(alert, grids)?,
        None if read_proposed(alert).is_some() => Event::Proposed(alert.metadata.clone()),
        None => return None,
    };
    Some((&alert.device, place, event))
}

fn position(alert: &AlertRow, grids: &Grids) -> Option<Event> {
    let closed = match value(alert, "position")? {
        "closed" => true,
        "open" => false,
        _ => return None,
    };
    let (_, grid) = grids.values().find(|(tenant, _)| *tenant == alert.device.tenant)?;
    let Role::Switch(switch) = grid.role(alert.device.hardware_id.as_str())? else {
        return None;
    };
    let branch = grid.bundle().switches.get(switch as usize)?.branch;
    Some(Event::Position {
        branch_id: grid.bundle().network.branches().get(branch)?.id,
        position: Position {
            closed,
            since: alert.event_time.micros(),
        },
    })
}

/// Answers that begin so turn a command down.
const REFUSALS: [&str; 3] = ["refused", "error", "failed"];

/// A device's answer, if it turns a command down; any other answer says no more than that the command has arrived.
fn of_acknowledgement(row: &AcknowledgementRow) -> Option<(&Device, Place, Event)> {
    let response = row.response.trim_start().to_ascii_lowercase();
    if !REFUSALS.iter().any(|refusal| response.starts_with(refusal)) {
        return None;
    }
    let event = Event::Refused {
        command: row.originating_event_id.clone(),
        by: row.device.hardware_id.as_str().to_owned(),
    };
    Some((&row.device, (row.received_at.micros(), row.device.partition, row.offset), event))
}

/// What the estimation says to the homes: positions of switches, and what is drawn where.
pub(crate) fn areas_to_notes<'scope>(
    areas: StreamVec<'scope, u64, Part>,
    grids: Rc<RefCell<Grids>>,
    n_partitions: u32,
) -> StreamVec<'scope, u64, Note> {
    areas.flat_map(move |part| match part {
        Part::Grid(_, GridPart::Switch(row)) => Some(of_switch(&row, n_partitions)),
        Part::Grid(_, GridPart::Drawn { grid, area, drawn }) => {
            let grids = grids.borrow();
            let (tenant, _) = grids.get(&grid)?;
            Some(Note {
                to: u64::from(home_of(tenant, n_partitions)),
                body: Body::Drawn {
                    tenant: tenant.as_str().to_owned(),
                    grid,
                    area,
                    drawn,
                },
            })
        }
        _ => None,
    })
}

fn of_switch(row: &SwitchRow, n_partitions: u32) -> Note {
    Note {
        to: u64::from(home_of(&row.tenant, n_partitions)),
        body: Body::Switch {
            tenant: row.tenant.as_str().to_owned(),
            branch_id: row.branch_id,
            position: Position {
                closed: row.closed,
                since: row.since.map_or(i64::MIN, flexmeter_model::EventTime::micros),
            },
        },
    }
}

/// A tenant's name that has come as text.
pub(crate) fn tenant_of(name: &str) -> Option<TenantId> {
    TenantId::new(name).ok()
}
