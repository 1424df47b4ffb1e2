//! The live totals: how many messages of each tenant ended as what, over all partitions and workers.
//!
//! Here generic differential operators fit: a handful of updates per epoch, exchanged between workers by tenant and code. The number
//! of messages rides in the difference, so counting is adding.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use flexmeter_model::TenantId;
use flexmeter_model::outcome::{OutcomeCode, ReasonCode, TotalChange};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;

use crate::batch::{Accepted, Part};
use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::partition::PerPartition;

/// One partition's counts since its log began; kept for its checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    counts: BTreeMap<(TenantId, OutcomeCode), u64>,
}

/// Tenant and code as differential wants its keys: sortable, hashable, serializable.
type Key = (String, u8);

/// Counts the fates of all messages. What the checkpoints brought back is counted at epoch 0.
pub(crate) fn totals<'scope>(accepted: StreamVec<'scope, u64, Rc<Accepted>>, states: PerPartition<Totals>) -> StreamVec<'scope, u64, Part> {
    let fates = accepted.unary(Pipeline, "fates", |start, _| {
        let mut restored = Some((start, states.borrow().values().flat_map(Totals::updates).collect::<Vec<_>>()));
        move |input, output| {
            if let Some((start, mut updates)) = restored.take() {
                output.session(&start).give_container(&mut updates);
            }
            input.for_each_stamp(|time, containers| {
                let Some(&epoch) = time.least() else { return };
                let mut states = states.borrow_mut();
                let mut updates = Vec::new();
                for batch in containers.flat_map(std::mem::take) {
                    let state = states.entry(batch.span.partition).or_default();
                    for (tenant, code, n) in &batch.tally {
                        *state.counts.entry((tenant.clone(), *code)).or_default() += n;
                        updates.push((key(tenant, *code), epoch, difference(*n)));
                    }
                }
                output.session(&time).give_container(&mut updates);
            });
        }
    });
    let totals = fates.as_collection().count_total();
    totals.inner.flat_map(|(((tenant, code), total), epoch, difference)| {
        let change = TotalChange {
            tenant: TenantId::new(&tenant).ok()?,
            code: code_of(code)?,
            total: u64::try_from(total).ok()?,
        };
        (difference > 0).then_some(Part::Total(epoch, change))
    })
}

impl Totals {
    fn updates(&self) -> impl Iterator<Item = (Key, u64, i64)> {
        self.counts
            .iter()
            .map(|((tenant, code), &n)| (key(tenant, *code), 0, difference(n)))
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.len(self.counts.len());
        for ((tenant, code), &n) in &self.counts {
            out.text(tenant.as_str());
            out.u8(number_of(*code));
            out.varint(n);
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let wrong = |what| CheckpointError::Value { what };
        let mut this = Self::default();
        for _ in 0..input.len(3)? {
            let tenant = TenantId::new(input.text()?).map_err(|_| wrong("tenant of a total"))?;
            let code = code_of(input.u8()?).ok_or(wrong("code of a total"))?;
            this.counts.insert((tenant, code), input.varint()?);
        }
        Ok(this)
    }
}

fn key(tenant: &TenantId, code: OutcomeCode) -> Key {
    (tenant.as_str().to_owned(), number_of(code))
}

/// A count as a difference; a log never holds 2⁶³ messages.
fn difference(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn number_of(code: OutcomeCode) -> u8 {
    match code {
        OutcomeCode::Accepted => 0,
        OutcomeCode::Duplicate => 1,
        OutcomeCode::Rejected(reason) => 2 + reason as u8,
    }
}

fn code_of(number: u8) -> Option<OutcomeCode> {
    match number {
        0 => Some(OutcomeCode::Accepted),
        1 => Some(OutcomeCode::Duplicate),
        _ => ReasonCode::ALL.get(usize::from(number - 2)).copied().map(OutcomeCode::Rejected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_number() {
        let codes = ReasonCode::ALL
            .map(OutcomeCode::Rejected)
            .into_iter()
            .chain([OutcomeCode::Accepted, OutcomeCode::Duplicate]);
        assert!(codes.into_iter().all(|code| code_of(number_of(code)) == Some(code)));
        assert_eq!(code_of(14), None);
    }
}
