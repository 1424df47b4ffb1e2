//! Located faults: the view of what fault location has said, by tenant.
//!
//! They arrive as alerts of the operators' own device, hence in the home partition of their tenant, and stay there: nothing is exchanged.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use flexmeter_model::operator::{FAULT_LOCATED, OPERATOR, fault_metadata, read_fault};
use flexmeter_model::outcome::{AlertRow, FaultRow, RowChange};
use flexmeter_model::{EventTime, TenantId};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::{KEPT_MAX, KEPT_US};
use crate::batch::{Accepted, Part};
use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::partition::PerPartition;

/// Faults of one home partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LocatedFaults {
    tenants: BTreeMap<TenantId, BTreeMap<Arc<str>, Located>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Located {
    row: Arc<FaultRow>,
    received_at: i64,
}

type FaultChange = RowChange<FaultRow>;

/// Follows the faults. What the checkpoints brought back is told at the start.
pub(crate) fn located<'scope>(
    accepted: StreamVec<'scope, u64, Rc<Accepted>>,
    states: PerPartition<LocatedFaults>,
) -> StreamVec<'scope, u64, Part> {
    accepted.unary(Pipeline, "located", |start, _| {
        let mut start = Some(start);
        move |accepted, output| {
            let mut states = states.borrow_mut();
            if let Some(start) = start.take() {
                let restored = states.iter().map(|(&partition, state)| Part::Faults(partition, state.tell(), 0));
                output.session(&start).give_iterator(restored.filter(says_something));
            }
            accepted.for_each_stamp(|time, containers| {
                let mut parts = Vec::new();
                for batch in containers.flat_map(std::mem::take) {
                    let is_fault = |alert: &&AlertRow| alert.alert_type == FAULT_LOCATED && alert.device.hardware_id.as_str() == OPERATOR;
                    let faults: Vec<&AlertRow> = batch.rows.alerts.iter().filter(is_fault).collect();
                    let partition = batch.span.partition;
                    if faults.is_empty() && (batch.ticks.is_empty() || !states.contains_key(&partition)) {
                        continue;
                    }
                    let state = states.entry(partition).or_default();
                    let (changes, n_malformed) = state.apply(&faults, batch.span.log_time);
                    parts.push(Part::Faults(partition, changes, n_malformed));
                }
                parts.retain(says_something);
                output.session(&time).give_container(&mut parts);
            });
        }
    })
}

fn says_something(part: &Part) -> bool {
    !matches!(part, Part::Faults(_, changes, 0) if changes.is_empty())
}

impl LocatedFaults {
    /// What changes, and how many alerts did not say what a located fault has to say.
    fn apply(&mut self, alerts: &[&AlertRow], log_time: i64) -> (Vec<FaultChange>, u64) {
        let mut changed = BTreeMap::new();
        let mut n_malformed = 0;
        for alert in alerts {
            let Some((id, row)) = read_fault(alert) else {
                n_malformed += 1;
                continue;
            };
            let tenant = &alert.device.tenant;
            let located = Located {
                row: Arc::new(row),
                received_at: alert.received_at.micros(),
            };
            changed.insert((tenant.clone(), id.clone()), Some(located.row.clone()));
            self.tenants.entry(tenant.clone()).or_default().insert(id, located);
        }
        for (tenant, faults) in &mut self.tenants {
            for id in too_many(faults, log_time) {
                faults.remove(&id);
                changed.insert((tenant.clone(), id), None);
            }
        }
        self.tenants.retain(|_, faults| !faults.is_empty());
        let changes = changed.into_iter().map(|((tenant, key), new)| RowChange { tenant, key, new });
        (changes.collect(), n_malformed)
    }

    /// Everything, as changes from nothing.
    fn tell(&self) -> Vec<FaultChange> {
        let rows = self.tenants.iter().flat_map(|(tenant, faults)| {
            faults.iter().map(|(key, located)| RowChange {
                tenant: tenant.clone(),
                key: key.clone(),
                new: Some(located.row.clone()),
            })
        });
        rows.collect()
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.len(self.tenants.len());
        for (tenant, faults) in &self.tenants {
            out.text(tenant.as_str());
            out.len(faults.len());
            for (id, located) in faults {
                out.text(id);
                out.i64(located.received_at);
                out.i64(located.row.event_time.micros());
                out.pairs(&fault_metadata(&located.row));
            }
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let mut this = Self::default();
        for _ in 0..input.len(2)? {
            let tenant = TenantId::new(input.text()?).map_err(|_| CheckpointError::Value { what: "tenant of a fault" })?;
            let faults = this.tenants.entry(tenant).or_default();
            for _ in 0..input.len(18)? {
                let id = input.text()?.into();
                let (received_at, event_time) = (input.i64()?, EventTime::from_micros(input.i64()?));
                let metadata = input.pairs()?;
                let row = flexmeter_model::operator::fault_of(&metadata, event_time).ok_or(CheckpointError::Value { what: "fault" })?;
                faults.insert(
                    id,
                    Located {
                        row: Arc::new(row),
                        received_at,
                    },
                );
            }
        }
        Ok(this)
    }
}

/// Ids of faults that are too old, and of the oldest where there are too many.
fn too_many(faults: &BTreeMap<Arc<str>, Located>, log_time: i64) -> Vec<Arc<str>> {
    let mut by_age: Vec<(i64, &Arc<str>)> = faults.iter().map(|(id, located)| (located.received_at, id)).collect();
    let is_old = |received_at: i64| received_at.saturating_add(KEPT_US) < log_time;
    let n_too_many = faults.len().saturating_sub(KEPT_MAX);
    if n_too_many == 0 && !by_age.iter().any(|(received_at, _)| is_old(*received_at)) {
        return Vec::new();
    }
    by_age.sort_unstable();
    let leaving = by_age.into_iter().enumerate();
    leaving
        .filter(|(at, (received_at, _))| *at < n_too_many || is_old(*received_at))
        .map(|(_, (_, id))| id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use flexmeter_model::outcome::{AlertLevel, Device};
    use flexmeter_model::{HardwareId, TenantId};

    use super::*;

    fn fault() -> FaultRow {
        FaultRow {
            area: "mv1".into(),
            fault_type: "AG".to_owned(),
            branch_id: 12,
            near_node: 7,
            share: 0.25,
            distance_m: None,
            distance_sigma_m: Some(12.5),
            distance_ohm: 0.5,
            resistance_ohm: 2.0,
            probability: 0.75,
            candidates: "[]".to_owned(),
            n_gasps: 3,
            event_time: EventTime::from_micros(7),
            by: "relay-1".to_owned(),
        }
    }

    fn alert(id: &str, received_at: i64) -> AlertRow {
        let mut metadata = fault_metadata(&fault());
        metadata.push(("subject".to_owned(), id.to_owned()));
        AlertRow {
            device: Arc::new(Device {
                partition: 0,
                index: 0,
                tenant: TenantId::new("t").unwrap(),
                hardware_id: HardwareId::new(OPERATOR).unwrap(),
            }),
            alert_type: FAULT_LOCATED.to_owned(),
            level: AlertLevel::Warning,
            message: String::new(),
            metadata,
            event_time: EventTime::from_micros(7),
            received_at: EventTime::from_micros(received_at),
            offset: 0,
        }
    }

    #[test]
    fn a_malformed_fault_is_counted_and_changes_nothing() {
        let mut state = LocatedFaults::default();
        let mut wrong = alert("f-2", 10);
        wrong.metadata.retain(|(name, _)| name != "branch_id");
        let (changes, n_malformed) = state.apply(&[&alert("f-1", 10), &wrong], 10);
        assert_eq!((changes.len(), n_malformed), (1, 1));
        assert_eq!((&*changes[0].key, changes[0].new.as_deref()), ("f-1", Some(&fault())));
    }

    #[test]
    fn faults_leave_after_a_month_and_above_a_thousand() {
        let mut state = LocatedFaults::default();
        state.apply(&[&alert("old", 0)], 0);
        let alerts: Vec<AlertRow> = (0..KEPT_MAX).map(|at| alert(&format!("f-{at}"), 1 + at as i64)).collect();
        let (changes, _) = state.apply(&alerts.iter().collect::<Vec<_>>(), 10);
        let gone: Vec<&str> = changes
            .iter()
            .filter(|change| change.new.is_none())
            .map(|change| &*change.key)
            .collect();
        assert_eq!(gone, ["old"]);
        let (changes, _) = state.apply(&[], KEPT_US + 2);
        assert_eq!((changes.len(), &*changes[0].key), (1, "f-0"));
        state.apply(&[], 2 * KEPT_US);
        assert_eq!(state, LocatedFaults::default());
    }

    #[test]
    fn a_checkpoint_holds_every_fault_and_a_damaged_one_is_an_error() {
        let mut state = LocatedFaults::default();
        state.apply(&[&alert("f-1", 10), &alert("f-2", 11)], 11);
        let mut out = Writer::default();
        state.write(&mut out);
        let bytes = out.into_bytes();
        let restored = LocatedFaults::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((&restored, restored.tell().len()), (&state, 2));
        for end in 0..bytes.len() {
            assert!(LocatedFaults::read(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
        }
    }
}
