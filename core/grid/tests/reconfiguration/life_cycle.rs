//! A proposal under random changes: it never panics, never goes back, and is done only when every switch has confirmed.

use flexmeter_grid::reconfiguration::{Actor, Change, Operation, Proposal, ProposalState};
use proptest::prelude::*;

const EXPIRES_US: i64 = 50;
const CONFIRMATION_US_MAX: i64 = 20;

fn change() -> impl Strategy<Value = Change> {
    let position = (0..4_i64, any::<bool>()).prop_map(|(branch, closed)| Change::Position { branch, closed });
    prop_oneof![
        2 => Just(Change::Accept(Actor::Operator("ada".into()))),
        1 => Just(Change::Accept(Actor::Automatic)),
        1 => Just(Change::Reject(Actor::Automatic)),
        4 => Just(Change::Start),
        20 => position,
        1 => Just(Change::Refused),
        1 => Just(Change::NetworkChanged),
        4 => Just(Change::Clock),
    ]
}

/// How far along a state is; nothing may lower it.
fn rank(state: &ProposalState) -> usize {
    match state {
        ProposalState::Proposed => 0,
        ProposalState::Accepted { .. } => 1,
        ProposalState::Executing { n_done, .. } => 2 + n_done,
        _ => usize::MAX,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_proposal_only_moves_forward(changes in prop::collection::vec((change(), 0..4_i64), 0..60), automatic in any::<bool>()) {
        let plan: Vec<Operation> = (0..4).map(|branch| Operation { branch, close: branch % 2 == 0 }).collect();
        let mut proposal = Proposal::new(1, plan.clone(), EXPIRES_US, CONFIRMATION_US_MAX, automatic).unwrap();
        let mut now_us = 0;
        let mut confirmed: Vec<Operation> = Vec::new();
        for (change, passed_us) in changes {
            now_us += passed_us;
            let before = proposal.clone();
            let answer = proposal.apply(change.clone(), now_us);
            if answer.is_err() {
                prop_assert_eq!(&proposal, &before, "an error has changed something");
            }
            prop_assert!(rank(proposal.state()) >= rank(before.state()));
            prop_assert!(!before.state().is_final() || proposal.state() == before.state(), "{:?} after {before:?}", proposal.state());
            if rank(proposal.state()) > rank(before.state())
                && let (Change::Position { branch, closed }, ProposalState::Executing { .. }) = (&change, before.state())
            {
                confirmed.push(Operation { branch: *branch, close: *closed });
            }
            // what is commanded is what comes next in the plan
            if let Ok(Some(operation)) = answer {
                prop_assert_eq!(Some(&operation), plan.get(confirmed.len()));
            }
        }
        if matches!(proposal.state(), ProposalState::Done { .. }) {
            prop_assert_eq!(confirmed, plan);
        }
    }
}
