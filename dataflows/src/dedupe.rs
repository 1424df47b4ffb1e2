//! Judged messages → accepted ones: repeats are dropped, each fate is counted.

use std::rc::Rc;

use flexmeter_model::TenantId;
use flexmeter_model::outcome::{EpochCounts, OutcomeCode, RejectionRow};
use hashbrown::HashMap;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::batch::{Accepted, Judged, Kind, Novelty, Rows, Tick, Verdict};
use crate::config::{EngineConfig, TICK_US};
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
    // Remembered in whole minutes, rounded up: never shorter than the horizon.
    let horizon_minutes = config.dedupe_horizon_us.div_euclid(TICK_US) + i64::from(config.dedupe_horizon_us.rem_euclid(TICK_US) > 0);
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
            Kind::Measurements => {
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
