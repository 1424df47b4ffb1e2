//! One proposal with what it was made of, its row and its place in a checkpoint.

use std::sync::Arc;

use flexmeter_grid::reconfiguration::{Actor, Operation, Proposal, ProposalState, Reason};
use flexmeter_model::EventTime;
use flexmeter_model::operator::{plan_metadata, plan_of};
use flexmeter_model::outcome::{ReconfigurationRow, Suggestion, SwitchCommand};

use crate::checkpoint::{CheckpointError, Reader, Writer};

/// Who has decided, where the platform does so by itself.
const AUTOMATIC: &str = "automatic";

/// A proposal and why it was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    pub(crate) proposal: Proposal,
    pub(crate) plan: Suggestion,
    proposed_at: i64,
    /// When its state changed last.
    pub(crate) changed_at: i64,
    decided_by: Option<String>,
}

impl Case {
    /// A new proposal; its life begins with its record. `None` for a plan that is none.
    pub(crate) fn new(plan: Suggestion, at: i64) -> Option<Self> {
        Some(Self {
            proposal: proposal(&plan, at)?,
            plan,
            proposed_at: at,
            changed_at: at,
            decided_by: None,
        })
    }

    pub(crate) fn key(&self) -> Arc<str> {
        self.proposal.id().to_string().into()
    }

    /// Takes note of who has decided.
    pub(crate) fn decided(&mut self, by: &Actor) {
        self.decided_by = Some(match by {
            Actor::Operator(name) => name.clone(),
            Actor::Automatic => AUTOMATIC.to_owned(),
        });
    }

    /// Its row in the view.
    pub(crate) fn row(&self) -> ReconfigurationRow {
        let state = self.proposal.state();
        let n_done = match *state {
            ProposalState::Executing { n_done, .. } | ProposalState::Failed { n_done, .. } => n_done,
            ProposalState::Done { .. } => self.plan.operations.len(),
            _ => 0,
        };
        let reason = match state {
            ProposalState::Expired { reason, .. } | ProposalState::Failed { reason, .. } => Some(word_of(*reason)),
            _ => None,
        };
        ReconfigurationRow {
            state: state.name(),
            reason,
            decided_by: self.decided_by.clone(),
            operations: self.plan.operations.clone(),
            n_done: n_done as u32,
            loss_before_w: self.plan.loss_before_w,
            loss_after_w: self.plan.loss_after_w,
            loss_d4_6_w: self.plan.loss_d4_6_w,
            voltage_min_pu: self.plan.voltage_min_pu,
            proposed_at: EventTime::from_micros(self.proposed_at),
            expires_at: EventTime::from_micros(self.proposal.expires_at_us()),
            changed_at: EventTime::from_micros(self.changed_at),
        }
    }

    /// The command that waits for its switch, with its id: that of the proposal and the step, from one.
    pub(crate) fn command(&self) -> Option<(Arc<str>, SwitchCommand)> {
        let (n_done, _) = self.proposal.in_hand()?;
        let command = SwitchCommand {
            operation: self.plan.operations.get(n_done)?.clone(),
            proposal_id: self.key(),
            // given when the step before was confirmed, or the proposal accepted
            at: EventTime::from_micros(self.changed_at),
            until: EventTime::from_micros(self.proposal.deadline_us()?),
        };
        Some((format!("{}-{}", self.proposal.id(), n_done + 1).into(), command))
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.pairs(&plan_metadata(&self.plan));
        out.i64(self.proposed_at);
        write_state(self.proposal.state(), out);
        out.i64(self.changed_at);
        out.u8(u8::from(self.decided_by.is_some()));
        self.decided_by.iter().for_each(|by| out.text(by));
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        const WRONG: CheckpointError = CheckpointError::Value {
            what: "plan of a proposal",
        };
        let plan = plan_of(&input.pairs()?).ok_or(WRONG)?;
        let proposed_at = input.i64()?;
        let proposal = proposal(&plan, proposed_at).ok_or(WRONG)?;
        Ok(Self {
            proposal: proposal.in_state(read_state(input)?).map_err(|_| WRONG)?,
            plan,
            proposed_at,
            changed_at: input.i64()?,
            decided_by: if input.u8()? != 0 { Some(input.text()?.to_owned()) } else { None },
        })
    }
}

fn proposal(plan: &Suggestion, at: i64) -> Option<Proposal> {
    let steps = plan.operations.iter().map(|step| Operation {
        branch: step.branch_id,
        close: step.close,
    });
    let expires_at = at.saturating_add(plan.terms.expires_us);
    let terms = &plan.terms;
    Proposal::new(plan.id, steps.collect(), expires_at, terms.confirmation_us, terms.is_automatic).ok()
}

const fn word_of(reason: Reason) -> &'static str {
    match reason {
        Reason::TimeOut => "time_out",
        Reason::NetworkChanged => "network_changed",
        Reason::NoConfirmation => "no_confirmation",
        Reason::SwitchFailed => "switch_failed",
    }
}

fn write_state(state: &ProposalState, out: &mut Writer) {
    let mut numbers = |tag: u8, at_us: i64| {
        out.u8(tag);
        out.i64(at_us);
    };
    match state {
        ProposalState::Proposed => numbers(0, 0),
        ProposalState::Accepted { by, at_us } => {
            numbers(1, *at_us);
            write_actor(by, out);
        }
        ProposalState::Rejected { by, at_us } => {
            numbers(2, *at_us);
            write_actor(by, out);
        }
        ProposalState::Expired { reason, at_us } => {
            numbers(3, *at_us);
            out.u8(*reason as u8);
        }
        ProposalState::Executing { n_done, since_us } => {
            numbers(4, *since_us);
            out.varint(*n_done as u64);
        }
        ProposalState::Done { at_us } => numbers(5, *at_us),
        ProposalState::Failed { reason, n_done, at_us } => {
            numbers(6, *at_us);
            out.u8(*reason as u8);
            out.varint(*n_done as u64);
        }
    }
}

fn read_state(input: &mut Reader<'_>) -> Result<ProposalState, CheckpointError> {
    let (tag, at_us) = (input.u8()?, input.i64()?);
    Ok(match tag {
        0 => ProposalState::Proposed,
        1 => ProposalState::Accepted {
            by: read_actor(input)?,
            at_us,
        },
        2 => ProposalState::Rejected {
            by: read_actor(input)?,
            at_us,
        },
        3 => ProposalState::Expired {
            reason: read_reason(input)?,
            at_us,
        },
        4 => ProposalState::Executing {
            n_done: read_count(input)?,
            since_us: at_us,
        },
        5 => ProposalState::Done { at_us },
        6 => ProposalState::Failed {
            reason: read_reason(input)?,
            n_done: read_count(input)?,
            at_us,
        },
        _ => {
            return Err(CheckpointError::Value {
                what: "state of a proposal",
            });
        }
    })
}

fn write_actor(actor: &Actor, out: &mut Writer) {
    match actor {
        Actor::Automatic => out.u8(0),
        Actor::Operator(name) => {
            out.u8(1);
            out.text(name);
        }
    }
}

fn read_actor(input: &mut Reader<'_>) -> Result<Actor, CheckpointError> {
    match input.u8()? {
        0 => Ok(Actor::Automatic),
        1 => Ok(Actor::Operator(input.text()?.to_owned())),
        _ => Err(CheckpointError::Value {
            what: "operator of a proposal",
        }),
    }
}

fn read_reason(input: &mut Reader<'_>) -> Result<Reason, CheckpointError> {
    const REASONS: [Reason; 4] = [
        Reason::TimeOut,
        Reason::NetworkChanged,
        Reason::NoConfirmation,
        Reason::SwitchFailed,
    ];
    let number = input.u8()?;
    let found = REASONS.into_iter().find(|reason| *reason as u8 == number);
    found.ok_or(CheckpointError::Value { what: "end of a proposal" })
}

fn read_count(input: &mut Reader<'_>) -> Result<usize, CheckpointError> {
    usize::try_from(input.varint()?).map_err(|_| CheckpointError::Value { what: "steps of a plan" })
}
