//! What becomes of a proposal: proposed, then accepted, rejected or expired; accepted, then executing, then done or failed.
//!
//! A pure state machine: [`Proposal::apply`] takes a change and the log time, and says which switch to command next. Whoever commands
//! switches reports back what they say; a step ends when its switch has confirmed.

use crate::error::GridError;
use crate::network::ComponentId;

/// One switch to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Id of its branch.
    pub branch: ComponentId,
    /// Whether to close it; else it opens.
    pub close: bool,
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An operator, by name.
    Operator(String),
    /// The platform, where the tenant says so.
    Automatic,
}

/// Why a proposal has come to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nobody decided in time.
    TimeOut,
    /// The switches have moved otherwise: the plan starts from a state that is gone.
    NetworkChanged,
    /// A switch has not confirmed in time.
    NoConfirmation,
    /// A switch has refused, or says that it is broken.
    SwitchFailed,
}

/// Where a proposal stands. Times are log time, µs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposalState {
    /// Waits for a decision.
    Proposed,
    /// Decided; nothing has moved.
    Accepted {
        /// By whom.
        by: Actor,
        /// When.
        at_us: i64,
    },
    /// Turned down.
    Rejected {
        /// By whom.
        by: Actor,
        /// When.
        at_us: i64,
    },
    /// Overtaken before anything moved.
    Expired {
        /// Why.
        reason: Reason,
        /// When.
        at_us: i64,
    },
    /// Switches are moving.
    Executing {
        /// Operations confirmed.
        n_done: usize,
        /// Since when the next one is waited for.
        since_us: i64,
    },
    /// All switches have confirmed.
    Done {
        /// When the last one did.
        at_us: i64,
    },
    /// Stopped on the way; what is done stays done.
    Failed {
        /// Why.
        reason: Reason,
        /// Operations confirmed.
        n_done: usize,
        /// When.
        at_us: i64,
    },
}

impl ProposalState {
    /// Its name, as tables and messages have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Accepted { .. } => "accepted",
            Self::Rejected { .. } => "rejected",
            Self::Expired { .. } => "expired",
            Self::Executing { .. } => "executing",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether nothing can follow.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Rejected { .. } | Self::Expired { .. } | Self::Done { .. } | Self::Failed { .. }
        )
    }
}

/// What may happen to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Somebody agrees.
    Accept(Actor),
    /// Somebody does not.
    Reject(Actor),
    /// The first operation is to be commanded.
    Start,
    /// A switch of the plan reports its position.
    Position {
        /// Id of its branch.
        branch: ComponentId,
        /// Whether it is closed.
        closed: bool,
    },
    /// A switch has refused a command.
    Refused,
    /// Something outside the plan has moved.
    NetworkChanged,
    /// Log time has come this far.
    Clock,
}

impl Change {
    fn name(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accepted",
            Self::Reject(_) => "rejected",
            Self::Start => "started",
            Self::Position { .. } => "moved on by a position",
            Self::Refused => "failed by a refusal",
            Self::NetworkChanged => "overtaken",
            Self::Clock => "timed out",
        }
    }
}

/// A plan of operations with its life cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    id: u64,
    operations: Vec<Operation>,
    expires_at_us: i64,
    confirmation_us_max: i64,
    allows_automatic: bool,
    state: ProposalState,
}

impl Proposal {
    /// A new proposal. It expires undecided at `expires_at_us`; each switch has `confirmation_us_max` to confirm.
    ///
    /// # Errors
    /// [`GridError::BadOption`] for a plan without operations or a time that leaves none.
    pub fn new(
        id: u64,
        operations: Vec<Operation>,
        expires_at_us: i64,
        confirmation_us_max: i64,
        allows_automatic: bool,
    ) -> Result<Self, GridError> {
        if operations.is_empty() {
            return Err(GridError::BadOption {
                option: "operations",
                value: 0.0,
                remedy: "a plan that moves nothing needs no proposal",
            });
        }
        if confirmation_us_max <= 0 {
            return Err(GridError::BadOption {
                option: "confirmation_us_max",
                value: confirmation_us_max as f64,
                remedy: "give microseconds above zero",
            });
        }
        Ok(Self {
            id,
            operations,
            expires_at_us,
            confirmation_us_max,
            allows_automatic,
            state: ProposalState::Proposed,
        })
    }

    /// The same proposal in a later state, as a checkpoint has it.
    ///
    /// # Errors
    /// [`GridError::BadOption`] for more confirmed operations than the plan has.
    pub fn in_state(self, state: ProposalState) -> Result<Self, GridError> {
        let (n_done, n_done_max) = match state {
            ProposalState::Executing { n_done, .. } => (n_done, self.operations.len() - 1),
            ProposalState::Failed { n_done, .. } => (n_done, self.operations.len()),
            _ => (0, 0),
        };
        match n_done <= n_done_max {
            true => Ok(Self { state, ..self }),
            false => Err(GridError::BadOption {
                option: "n_done",
                value: n_done as f64,
                remedy: "the plan has fewer operations",
            }),
        }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it stands.
    pub fn state(&self) -> &ProposalState {
        &self.state
    }

    /// When it expires undecided, log time.
    pub fn expires_at_us(&self) -> i64 {
        self.expires_at_us
    }

    /// How long each switch has to confirm.
    pub fn confirmation_us_max(&self) -> i64 {
        self.confirmation_us_max
    }

    /// Whether the platform may accept it by itself.
    pub fn allows_automatic(&self) -> bool {
        self.allows_automatic
    }

    /// When time alone changes it next: [`Change::Clock`] has an effect from then on.
    pub fn deadline_us(&self) -> Option<i64> {
        match self.state {
            ProposalState::Proposed => Some(self.expires_at_us),
            ProposalState::Executing { since_us, .. } => Some(since_us.saturating_add(self.confirmation_us_max)),
            _ => None,
        }
    }

    /// The operation that is waited for, and how many have been confirmed before it.
    pub fn in_hand(&self) -> Option<(usize, Operation)> {
        match self.state {
            ProposalState::Executing { n_done, .. } => Some((n_done, *self.operations.get(n_done)?)),
            _ => None,
        }
    }

    /// All operations of the plan, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Applies a change at a log time; gives the operation to command now, if there is one. After an error nothing has changed.
    ///
    /// # Errors
    /// [`GridError::IllegalChange`] for what the state does not allow, [`GridError::UnexpectedPosition`] for a switch of the plan that
    /// reports out of turn. A report that only repeats what is known is none.
    pub fn apply(&mut self, change: Change, at_us: i64) -> Result<Option<Operation>, GridError> {
        use ProposalState::{Accepted, Done, Executing, Expired, Failed, Proposed, Rejected};
        let expired = |reason| Expired { reason, at_us };
        let next = match (&self.state, change) {
            (Proposed, Change::Accept(_)) if at_us >= self.expires_at_us => {
                return Err(self.illegal("accepted", "it has expired; wait for the next proposal"));
            }
            (Proposed, Change::Accept(Actor::Automatic)) if !self.allows_automatic => {
                return Err(self.illegal("accepted", "the tenant wants an operator to decide"));
            }
            (Proposed, Change::Accept(by)) => Accepted { by, at_us },
            (Proposed, Change::Reject(by)) => Rejected { by, at_us },
            (Proposed, Change::Clock) if at_us >= self.expires_at_us => expired(Reason::TimeOut),
            (Proposed | Accepted { .. }, Change::NetworkChanged) => expired(Reason::NetworkChanged),
            (Accepted { .. }, Change::Start) => Executing {
                n_done: 0,
                since_us: at_us,
            },
            (&Executing { n_done, .. }, Change::Position { branch, closed }) => match self.confirm(n_done, branch, closed)? {
                false => return Ok(None),
                true if n_done + 1 == self.operations.len() => Done { at_us },
                true => Executing {
                    n_done: n_done + 1,
                    since_us: at_us,
                },
            },
            (&Executing { n_done, since_us }, Change::Clock) if at_us.saturating_sub(since_us) >= self.confirmation_us_max => Failed {
                reason: Reason::NoConfirmation,
                n_done,
                at_us,
            },
            (&Executing { n_done, .. }, Change::NetworkChanged) => Failed {
                reason: Reason::NetworkChanged,
                n_done,
                at_us,
            },
            (&Executing { n_done, .. }, Change::Refused) => Failed {
                reason: Reason::SwitchFailed,
                n_done,
                at_us,
            },
            // time passes and grids change for all proposals, settled ones too
            (_, Change::Clock | Change::NetworkChanged) => return Ok(None),
            (state, change) => {
                let remedy = match state {
                    Proposed => "accept or reject it first",
                    Accepted { .. } => "start it, or wait until it is overtaken",
                    Executing { .. } => "it ends when its switches have confirmed",
                    _ => "it is settled; wait for the next proposal",
                };
                return Err(self.illegal(change.name(), remedy));
            }
        };
        self.state = next;
        Ok(match self.state {
            Executing { n_done, .. } => self.operations.get(n_done).copied(),
            _ => None,
        })
    }

    /// Whether a report confirms the operation in hand; `false` if it repeats one before.
    fn confirm(&self, n_done: usize, branch: ComponentId, closed: bool) -> Result<bool, GridError> {
        let word = |closed| if closed { "closed" } else { "open" };
        let Some(expected) = self.operations.get(n_done) else {
            return Ok(false);
        };
        if expected.branch == branch && expected.close == closed {
            return Ok(true);
        }
        let confirmed = &self.operations[..n_done.min(self.operations.len())];
        let last_known = confirmed.iter().rfind(|operation| operation.branch == branch);
        let is_known = match last_known {
            Some(operation) => operation.close == closed,
            // not moved yet: it still stands as its own operation will find it
            None => self
                .operations
                .iter()
                .any(|operation| operation.branch == branch && operation.close != closed),
        };
        match is_known {
            true => Ok(false),
            false => Err(GridError::UnexpectedPosition {
                proposal: self.id,
                branch,
                reported: word(closed),
                step: n_done + 1,
                n_steps: self.operations.len(),
                expected: expected.branch,
                wanted: word(expected.close),
            }),
        }
    }

    fn illegal(&self, change: &'static str, remedy: &'static str) -> GridError {
        GridError::IllegalChange {
            proposal: self.id,
            state: self.state.name(),
            change,
            remedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: [Operation; 2] = [Operation { branch: 33, close: true }, Operation { branch: 7, close: false }];

    fn proposal() -> Proposal {
        Proposal::new(4, PLAN.to_vec(), 100, 10, false).unwrap()
    }

    fn operator() -> Actor {
        Actor::Operator("ada".to_owned())
    }

    fn position(branch: ComponentId, closed: bool) -> Change {
        Change::Position { branch, closed }
    }

    /// Applies changes one after the other; the state's name and the next operation after the last one.
    fn check(changes: &[(Change, i64)], expected: &str, command: Option<Operation>) {
        let mut proposal = proposal();
        let mut last = None;
        for (change, at_us) in changes {
            last = proposal.apply(change.clone(), *at_us).unwrap();
        }
        assert_eq!((proposal.state().name(), last), (expected, command), "{changes:?}");
    }

    #[test]
    fn a_proposal_lives_until_it_is_done() {
        let accept = (Change::Accept(operator()), 1);
        let start = (Change::Start, 2);
        let closed = (position(33, true), 3);
        let opened = (position(7, false), 4);
        check(std::slice::from_ref(&accept), "accepted", None);
        check(&[accept.clone(), start.clone()], "executing", Some(PLAN[0]));
        check(&[accept.clone(), start.clone(), closed.clone()], "executing", Some(PLAN[1]));
        // switches report more than once, and before their turn
        check(
            &[accept.clone(), start.clone(), (position(7, true), 2), (position(33, false), 2)],
            "executing",
            None,
        );
        check(&[accept.clone(), start.clone(), closed.clone(), closed.clone()], "executing", None);
        check(&[accept, start, closed, opened], "done", None);
    }

    #[test]
    fn it_ends_otherwise_too() {
        let accept = (Change::Accept(operator()), 1);
        let start = (Change::Start, 2);
        check(&[(Change::Reject(operator()), 1)], "rejected", None);
        check(&[(Change::Clock, 99)], "proposed", None);
        check(&[(Change::Clock, 100)], "expired", None);
        check(&[(Change::NetworkChanged, 1)], "expired", None);
        check(&[accept.clone(), (Change::NetworkChanged, 2)], "expired", None);
        check(&[accept.clone(), (Change::Clock, 1000)], "accepted", None);
        check(&[accept.clone(), start.clone(), (Change::Clock, 11)], "executing", None);
        check(&[accept.clone(), start.clone(), (Change::Clock, 12)], "failed", None);
        check(&[accept.clone(), start.clone(), (Change::Refused, 3)], "failed", None);
        check(&[accept, start, (Change::NetworkChanged, 3)], "failed", None);
    }

    #[test]
    fn the_clock_has_an_effect_at_the_deadline_and_not_before() {
        let mut proposal = proposal();
        for (change, at_us) in [(None, 0), (Some(Change::Accept(operator())), 1), (Some(Change::Start), 2)] {
            if let Some(change) = change {
                proposal.apply(change, at_us).unwrap();
            }
            let Some(deadline) = proposal.deadline_us() else { continue };
            for (at_us, changes) in [(deadline - 1, false), (deadline, true)] {
                let mut later = proposal.clone();
                later.apply(Change::Clock, at_us).unwrap();
                assert_eq!(later != proposal, changes, "{:?} at {at_us}", proposal.state());
            }
        }
        assert_eq!(proposal.in_hand(), Some((0, PLAN[0])));
    }

    #[test]
    fn a_checkpoint_cannot_have_done_more_than_the_plan() {
        let state = |n_done| ProposalState::Executing { n_done, since_us: 1 };
        assert_eq!(proposal().in_state(state(1)).unwrap().in_hand(), Some((1, PLAN[1])));
        assert!(proposal().in_state(state(2)).is_err());
    }

    #[test]
    fn illegal_changes_are_errors_and_change_nothing() {
        let mut proposal = proposal();
        let mut refused = |change: Change, at_us, expected: &str| {
            let before = proposal.clone();
            assert_eq!(proposal.apply(change.clone(), at_us).unwrap_err().to_string(), expected);
            assert_eq!(proposal, before);
        };
        refused(
            Change::Start,
            1,
            "proposal 4 is proposed and cannot be started; accept or reject it first",
        );
        refused(
            Change::Accept(Actor::Automatic),
            1,
            "proposal 4 is proposed and cannot be accepted; the tenant wants an operator to decide",
        );
        refused(
            Change::Accept(operator()),
            100,
            "proposal 4 is proposed and cannot be accepted; it has expired; wait for the next proposal",
        );
        proposal.apply(Change::Accept(operator()), 1).unwrap();
        assert!(proposal.apply(Change::Reject(operator()), 2).is_err());
        proposal.apply(Change::Start, 2).unwrap();
        let error = proposal.apply(position(7, false), 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "proposal 4: branch 7 is reported open, but step 1 of 2 waits for branch 33 to be closed; nothing has been changed"
        );
        proposal.apply(position(33, true), 3).unwrap();
        proposal.apply(position(7, false), 4).unwrap();
        for change in [
            Change::Start,
            Change::Accept(operator()),
            Change::Reject(operator()),
            Change::Refused,
            position(33, true),
        ] {
            let error = proposal.apply(change, 5).unwrap_err().to_string();
            assert!(error.ends_with("it is settled; wait for the next proposal"), "{error}");
        }
        assert!(Proposal::new(1, Vec::new(), 0, 1, true).is_err());
        assert!(Proposal::new(1, PLAN.to_vec(), 0, 0, true).is_err());
    }
}
