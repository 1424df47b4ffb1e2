//! Judged messages → accepted ones: repeats are dropped, each fate is counted.

use std::rc::Rc;

use flexmeter_model::TenantId;
use flexmeter_model::outcome::{EpochCounts, OutcomeCode, RejectionRow};
use hashbrown::HashMap;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::batch::{Accepted, Judged, Kind, Novelty, Rows, Tick, Verdict};
use crate::config::{EngineConfig, TICK_US, minutes_up};
use crate::identities::Identities;
use crate::partition::PerPartition;

/// Drops the messages that were seen within the horizon.
pub(crate) fn dedupe<'scope>(
    judged: StreamVec<'scope, u64, Judged>,
    identities: PerPartition<Identities>,
    config: Rc<EngineConfig>,
) -> StreamVec<'scope, u64, Rc<Accepted>> {
    judged.unary(Pipeline, "dedupe", |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, containers| {
                let mut identities = identities.borrow_mut();
                let mut accepted = containers
                    .flat_map(std::mem::take)
                    .map(|batch| Rc::new(drop_repeats(identities.entry(batch.span.partition).or_default(), batch, &config)))
                    .collect();
                output.session(&time).give_container(&mut accepted);
            });
        }
    })
}

fn drop_repeats(identities: &mut Identities, batch: Judged, config: &EngineConfig) -> Accepted {
    let Judged {
        span,
        tenants,
        verdicts,
        ticks,
        rows,
    } = batch;
    let horizon_minutes = minutes_up(config.dedupe_horizon_us);
    let mut accepted = Accepted {
        span,
        ..Accepted::default()
    };
    let mut tally = Tally::default();
    let mut sieve = Sieve::new(rows);
    let mut ticks = ticks.into_iter().peekable();
    for position in 0..=verdicts.len() {
        while let Some(tick) = ticks.next_if(|tick| tick.before <= position) {
            identities.forget_before(tick.minute - horizon_minutes);
            accepted.ticks.push(Tick {
                before: sieve.n_heads(),
                ..tick
            });
        }
        let Some(verdict) = verdicts.get(position) else { break };
        let is_new = admit(identities, verdict, config);
        accepted.counts.n_identities_forgotten += identities.forget_above(config.dedupe_identities_max);
        tally.count(verdict, is_new, sieve.rejections(verdict));
        sieve.pass(verdict, is_new);
    }
    tally.finish(&tenants, &mut accepted);
    accepted.rows = sieve.finish();
    accepted
}

/// Whether a message is new; it is remembered if it is.
fn admit(identities: &mut Identities, verdict: &Verdict, config: &EngineConfig) -> bool {
    let Verdict { identity, log_time, .. } = *verdict;
    let minute = log_time.div_euclid(TICK_US);
    match verdict.novelty {
        Novelty::Dated { device, event_time } => identities.admit_dated(identity, device, event_time, minute),
        Novelty::Payload => identities.admit_payload(identity, minute),
        Novelty::Undated { redelivered } => identities.admit_undated(
            identity,
            redelivered,
            log_time,
            config.redelivery_window_us,
            config.dedupe_identities_max,
        ),
    }
}

/// Takes the rows of repeats out of the columns, in place and in one pass. As long as nothing is dropped nothing moves.
struct Sieve {
    rows: Rows,
    heads: Cut,
    values: Cut,
    alerts: Cut,
    acknowledgements: Cut,
    registrations: Cut,
    rejections: Cut,
    boundaries: Cut,
}

/// How far a column was read and how much of it is kept.
#[derive(Default)]
struct Cut {
    read: usize,
    kept: usize,
}

impl Cut {
    /// Reads `n` more items of a column and keeps them or not.
    fn pass<T>(&mut self, column: &mut [T], n: usize, keep: bool) {
        if keep {
            if self.kept < self.read {
                for i in 0..n {
                    column.swap(self.kept + i, self.read + i);
                }
            }
            self.kept += n;
        }
        self.read += n;
    }
}

impl Sieve {
    fn new(rows: Rows) -> Self {
        Self {
            rows,
            heads: Cut::default(),
            values: Cut::default(),
            alerts: Cut::default(),
            acknowledgements: Cut::default(),
            registrations: Cut::default(),
            rejections: Cut::default(),
            boundaries: Cut::default(),
        }
    }

    fn n_heads(&self) -> usize {
        self.heads.kept
    }

    /// The rejections of the message that is passed next.
    fn rejections(&self, verdict: &Verdict) -> &[RejectionRow] {
        &self.rows.rejections[self.rejections.read..][..verdict.n_rejections as usize]
    }

    fn pass(&mut self, verdict: &Verdict, keep: bool) {
        let rows = &mut self.rows;
        match verdict.kind {
            Kind::Measurements | Kind::Boundary => {
                if verdict.kind == Kind::Boundary {
                    rows.boundaries[self.boundaries.read].head = self.heads.kept;
                    self.boundaries.pass(&mut rows.boundaries, 1, keep);
                }
                let n_values = rows.measurements.heads[self.heads.read].n_values as usize;
                self.heads.pass(&mut rows.measurements.heads, 1, keep);
                let Cut { read, kept } = self.values;
                self.values.pass(&mut rows.measurements.identifiers, n_values, keep);
                Cut { read, kept }.pass(&mut rows.measurements.values, n_values, keep);
            }
            Kind::Alert => self.alerts.pass(&mut rows.alerts, 1, keep),
            Kind::Acknowledgement => self.acknowledgements.pass(&mut rows.acknowledgements, 1, keep),
            Kind::Registration => self.registrations.pass(&mut rows.registrations, 1, keep),
            Kind::Empty | Kind::Rejected => {}
        }
        if verdict.n_rejections > 0 {
            self.rejections.pass(&mut rows.rejections, verdict.n_rejections as usize, keep);
        }
    }

    fn finish(mut self) -> Rows {
        self.rows.measurements.heads.truncate(self.heads.kept);
        self.rows.measurements.identifiers.truncate(self.values.kept);
        self.rows.measurements.values.truncate(self.values.kept);
        self.rows.alerts.truncate(self.alerts.kept);
        self.rows.acknowledgements.truncate(self.acknowledgements.kept);
        self.rows.registrations.truncate(self.registrations.kept);
        self.rows.rejections.truncate(self.rejections.kept);
        self.rows.boundaries.truncate(self.boundaries.kept);
        self.rows
    }
}

/// Counts what became of the messages, by tenant.
#[derive(Default)]
struct Tally {
    counts: EpochCounts,
    by_code: HashMap<(u32, OutcomeCode), u64>,
    /// Accepted messages of the tenant counted last: a run of them costs no look-up.
    run: (u32, u64),
}

impl Tally {
    fn count(&mut self, verdict: &Verdict, is_new: bool, rejections: &[RejectionRow]) {
        self.counts.n_messages += 1;
        if !is_new {
            self.counts.n_duplicates += 1;
            self.add(verdict.tenant, OutcomeCode::Duplicate, 1);
            return;
        }
        for rejection in rejections {
            self.add(verdict.tenant, OutcomeCode::Rejected(rejection.reason), 1);
        }
        if verdict.kind == Kind::Rejected {
            self.counts.n_rejected += 1;
        } else {
            self.counts.n_accepted += 1;
            if self.run.0 != verdict.tenant {
                self.end_run();
                self.run.0 = verdict.tenant;
            }
            self.run.1 += 1;
        }
    }

    fn end_run(&mut self) {
        let (tenant, n) = std::mem::take(&mut self.run);
        if n > 0 {
            self.add(tenant, OutcomeCode::Accepted, n);
        }
    }

    fn add(&mut self, tenant: u32, code: OutcomeCode, n: u64) {
        *self.by_code.entry((tenant, code)).or_default() += n;
    }

    fn finish(mut self, tenants: &[TenantId], accepted: &mut Accepted) {
        self.end_run();
        accepted.counts += self.counts;
        accepted.tally = self
            .by_code
            .into_iter()
            .map(|((tenant, code), n)| (tenants[tenant as usize].clone(), code, n))
            .collect();
        accepted.tally.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identities::Identity;

    fn verdict(kind: Kind, event_time: i64, log_time: i64) -> Verdict {
        let identity = Identity::dated(0, kind as u8, event_time, 1);
        Verdict {
            kind,
            n_rejections: 0,
            tenant: 0,
            identity,
            novelty: Novelty::Dated { device: 0, event_time },
            log_time,
        }
    }

    fn judged(verdicts: Vec<Verdict>, ticks: Vec<Tick>) -> Judged {
        let tenants = std::sync::Arc::new(vec![TenantId::new("t").unwrap()]);
        Judged {
            tenants,
            verdicts,
            ticks,
            ..Judged::default()
        }
    }

    #[test]
    fn each_fate_is_counted_by_tenant() {
        let mut identities = Identities::default();
        let verdicts = vec![verdict(Kind::Empty, 1, 0), verdict(Kind::Empty, 1, 0), verdict(Kind::Empty, 2, 0)];
        let accepted = drop_repeats(&mut identities, judged(verdicts, Vec::new()), &EngineConfig::default());
        assert_eq!(
            accepted.counts,
            EpochCounts {
                n_messages: 3,
                n_accepted: 2,
                n_duplicates: 1,
                ..EpochCounts::default()
            }
        );
        let tally: Vec<_> = accepted.tally.iter().map(|(_, code, n)| (*code, *n)).collect();
        assert_eq!(tally, [(OutcomeCode::Accepted, 2), (OutcomeCode::Duplicate, 1)]);
    }

    #[test]
    fn a_message_is_remembered_for_the_whole_horizon_and_forgotten_after_it() {
        let config = EngineConfig {
            dedupe_horizon_us: 3 * TICK_US,
            ..EngineConfig::default()
        };
        for (minute, expected) in [(3, 1), (4, 0)] {
            let mut identities = Identities::default();
            let verdicts = vec![verdict(Kind::Empty, 5, 0), verdict(Kind::Empty, 5, minute * TICK_US)];
            let ticks = vec![
                Tick {
                    before: 0,
                    minute: 0,
                    offset: 0,
                },
                Tick {
                    before: 1,
                    minute,
                    offset: 1,
                },
            ];
            let accepted = drop_repeats(&mut identities, judged(verdicts, ticks), &config);
            assert_eq!(accepted.counts.n_duplicates, expected, "after {minute} minutes");
        }
    }

    #[test]
    fn the_limit_forgets_the_oldest_and_counts_them() {
        let config = EngineConfig {
            dedupe_identities_max: 2,
            ..EngineConfig::default()
        };
        let verdicts = [4, 3, 2, 4, 2].map(|event_time| verdict(Kind::Empty, event_time, 0)).to_vec();
        let accepted = drop_repeats(&mut Identities::default(), judged(verdicts, Vec::new()), &config);
        assert_eq!((accepted.counts.n_identities_forgotten, accepted.counts.n_duplicates), (2, 1));
    }

    #[test]
    fn ticks_keep_their_place_among_the_messages_that_stay() {
        let verdicts = vec![verdict(Kind::Empty, 1, 0), verdict(Kind::Empty, 1, 0)];
        let ticks = vec![
            Tick {
                before: 1,
                minute: 7,
                offset: 40,
            },
            Tick {
                before: 2,
                minute: 8,
                offset: 41,
            },
        ];
        let accepted = drop_repeats(&mut Identities::default(), judged(verdicts, ticks), &EngineConfig::default());
        assert_eq!(
            accepted.ticks,
            [
                Tick {
                    before: 0,
                    minute: 7,
                    offset: 40
                },
                Tick {
                    before: 0,
                    minute: 8,
                    offset: 41
                }
            ]
        );
    }

    #[test]
    fn what_is_dropped_leaves_no_gap_in_any_column() {
        let mut cut = Cut::default();
        let mut column = [10, 11, 20, 21, 22, 30, 40, 41];
        [(2, true), (3, false), (1, true), (2, true)]
            .iter()
            .for_each(|&(n, keep)| cut.pass(&mut column, n, keep));
        assert_eq!(column[..cut.kept], [10, 11, 30, 40, 41]);
    }
}
