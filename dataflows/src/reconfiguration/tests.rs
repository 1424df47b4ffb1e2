//! The pure parts: the life of proposals step by step, and their checkpoints.

use flexmeter_grid::reconfiguration::Operation;
use flexmeter_model::operator::plan_metadata;
use flexmeter_model::outcome::{GridOutcome, ProposalTerms, Suggestion, SwitchOperation};
use flexmeter_model::{HardwareId, TenantId};

use super::evaluation::Found;
use super::note::{Event, Position};
use super::plans::{Plans, Reconfigurations};
use super::{KEPT_MAX, KEPT_US, ReconfigurationConfig};
use crate::checkpoint::{CheckpointError, Reader, Writer};

const MINUTE: i64 = 60_000_000;

fn tenant() -> TenantId {
    TenantId::new("t").unwrap()
}

fn config() -> ReconfigurationConfig {
    ReconfigurationConfig {
        dwell_us: 0,
        pause_us: 0,
        ..ReconfigurationConfig::default()
    }
}

fn found(saving_w: f64) -> Found {
    let operation = |branch, close| (Operation { branch, close }, HardwareId::new(&format!("SW-{branch}")).unwrap());
    Found {
        area: "mv1".to_owned(),
        operations: vec![operation(7, true), operation(3, false)],
        loss_before_w: 9_000.0 + saving_w,
        loss_after_w: 9_000.0,
        loss_d4_6_w: None,
        voltage_min_pu: [0.95, 0.97],
    }
}

/// A plan as the log has it, for a tenant without a grid.
fn plan(plans: &Plans, id: i64, is_automatic: bool) -> Suggestion {
    let operation = |branch_id, close| SwitchOperation {
        branch_id,
        hardware_id: HardwareId::new(&format!("SW-{branch_id}")).unwrap(),
        close,
    };
    Suggestion {
        id: id as u64,
        area: "mv1".into(),
        grid_mark: 0,
        positions_mark: plans.positions_mark("mv1"),
        operations: vec![operation(7, true), operation(3, false)],
        loss_before_w: 11_000.0,
        loss_after_w: 9_000.0,
        loss_d4_6_w: Some(9_500.0),
        voltage_min_pu: [0.95, 0.97],
        terms: ProposalTerms {
            expires_us: 60 * MINUTE,
            confirmation_us: 2 * MINUTE,
            pause_us: 0,
            is_automatic,
        },
    }
}

/// It is read at a moment.
fn read_at(plans: &mut Plans, plan: &Suggestion, at: i64) {
    plans.wait((at, 0, 0), Event::Proposed(plan_metadata(plan)));
    plans.advance(at + 1, &config());
}

/// A tenant with a proposal out since `minute`.
fn proposed(plans: &mut Plans, minute: i64, is_automatic: bool) {
    let plan = plan(plans, minute * MINUTE, is_automatic);
    read_at(plans, &plan, minute * MINUTE);
}

fn outcome(plans: &mut Plans) -> GridOutcome {
    let mut outcome = GridOutcome::default();
    plans.outcome(&tenant(), &mut outcome);
    outcome
}

fn states(outcome: &GridOutcome) -> Vec<Option<&'static str>> {
    let rows = outcome.reconfigurations.iter();
    rows.map(|change| change.new.as_ref().map(|row| row.state)).collect()
}

fn report(branch_id: i64, closed: bool, since: i64) -> Event {
    let position = Position { closed, since };
    Event::Position { branch_id, position }
}

#[test]
fn events_take_effect_in_the_order_of_the_log_whenever_they_come() {
    let mut plans = Plans::default();
    proposed(&mut plans, 10, true);
    let first = outcome(&mut plans);
    assert_eq!((states(&first), first.commands.len()), (vec![Some("executing")], 1));
    let at = |second: i64| 10 * MINUTE + second * 1_000_000;
    // another partition is read first: its switch was second
    plans.wait((at(2), 1, 0), report(3, false, at(2)));
    plans.wait((at(1), 0, 0), report(7, true, at(1)));
    assert!(plans.advance(at(1), &config()).is_none());
    assert!(outcome(&mut plans).is_empty(), "the log has not come past it");
    plans.advance(at(3), &config());
    let last = outcome(&mut plans);
    assert_eq!(states(&last), [Some("done")]);
    assert!(last.commands.len() == 1 && last.commands[0].new.is_none());
}

#[test]
fn a_deadline_comes_before_what_the_log_says_at_the_same_moment() {
    let mut plans = Plans::default();
    proposed(&mut plans, 10, true);
    let deadline = 12 * MINUTE;
    plans.wait((deadline, 0, 0), report(7, true, deadline));
    plans.advance(deadline + 1, &config());
    assert_eq!(states(&outcome(&mut plans)), [Some("failed")]);
}

#[test]
fn the_area_that_saves_most_is_first_and_what_saves_little_is_nothing() {
    let mut plans = Plans::default();
    plans.advance(MINUTE + 1, &config());
    let other = |area: &str, saving_w| {
        let found = Found {
            area: area.to_owned(),
            ..found(saving_w)
        };
        (area.to_owned(), Some(found))
    };
    plans.observe(vec![other("mv1", 999.0), ("mv2".to_owned(), None)], false, &config());
    assert!(outcome(&mut plans).is_empty());
    for _ in 0..2 {
        plans.observe(
            vec![other("mv1", 1_500.0), other("mv2", 3_000.0), other("mv3", 2_000.0)],
            false,
            &config(),
        );
        let outcome = outcome(&mut plans);
        let (_, suggestion) = &outcome.suggestions[0];
        assert_eq!((&*suggestion.area, suggestion.id), ("mv2", MINUTE as u64));
        assert!(outcome.reconfigurations.is_empty(), "it is no proposal before the log has it");
    }
}

#[test]
fn a_plan_begins_with_its_record_and_lives_by_its_own_terms() {
    let mut plans = Plans::default();
    let plan = Suggestion {
        terms: ProposalTerms {
            expires_us: 5 * MINUTE,
            confirmation_us: MINUTE,
            pause_us: 7 * MINUTE,
            is_automatic: false,
        },
        ..plan(&plans, 10 * MINUTE, false)
    };
    read_at(&mut plans, &plan, 11 * MINUTE);
    let told = outcome(&mut plans);
    let row = told.reconfigurations[0].new.clone().unwrap();
    assert_eq!(
        (&*told.reconfigurations[0].key, row.state),
        ((10 * MINUTE).to_string().as_str(), "proposed")
    );
    assert_eq!((row.proposed_at.micros(), row.expires_at.micros()), (11 * MINUTE, 16 * MINUTE));
    plans.advance(16 * MINUTE + 1, &config());
    assert_eq!(states(&outcome(&mut plans)), [Some("expired")]);
    for (minute, expected) in [(22, 0), (23, 1)] {
        proposed(&mut plans, minute, false);
        assert_eq!(outcome(&mut plans).reconfigurations.len(), expected, "a pause of seven minutes");
    }
}

#[test]
fn a_plan_that_is_not_of_the_moment_has_no_effect() {
    let check = |spoil: fn(&mut Suggestion), at: i64, is_proposed: bool| {
        let mut plans = Plans::default();
        proposed(&mut plans, 10, false);
        let decided = Event::Decided {
            accepts: false,
            proposal: (10 * MINUTE).to_string(),
            by: "ada".to_owned(),
        };
        plans.wait((20 * MINUTE, 0, 0), decided);
        plans.advance(21 * MINUTE, &config());
        assert_eq!(states(&outcome(&mut plans)), [Some("rejected")]);
        let mut plan = plan(&plans, 30 * MINUTE, false);
        spoil(&mut plan);
        read_at(&mut plans, &plan, at);
        let expected: &[_] = if is_proposed { &[Some("proposed")] } else { &[] };
        assert_eq!(states(&outcome(&mut plans)), expected, "{plan:?} at {at}");
        // the same once more, and a later one, while it is open
        read_at(&mut plans, &plan, at + 1);
        plan.id += 1;
        read_at(&mut plans, &plan, at + 2);
        assert!(outcome(&mut plans).is_empty());
    };
    check(|_| {}, 31 * MINUTE, true);
    check(|plan| plan.grid_mark = 1, 31 * MINUTE, false);
    check(|plan| plan.positions_mark ^= 1, 31 * MINUTE, false);
    // made before the last proposal had ended, or so long ago that it would have expired
    check(|plan| plan.id = (15 * MINUTE) as u64, 31 * MINUTE, false);
    check(|_| {}, 90 * MINUTE, false);
    check(|_| {}, 90 * MINUTE - 1, true);
}

/// Tenants in every stage.
fn everything() -> Reconfigurations {
    let mut state = Reconfigurations::default();
    for (name, is_automatic) in [("a", false), ("b", true)] {
        let plans = state.tenants.entry(TenantId::new(name).unwrap()).or_default();
        proposed(plans, 10, is_automatic);
        plans.advance(80 * MINUTE, &config());
        proposed(plans, 90, is_automatic);
        plans.set_position(7, Position { closed: false, since: 5 });
        plans.wait((100 * MINUTE, 1, 2), report(7, true, 6));
        let decided = Event::Decided {
            accepts: true,
            proposal: "x".to_owned(),
            by: "ada".to_owned(),
        };
        plans.wait((100 * MINUTE, 1, 3), decided);
        let refused = Event::Refused {
            command: "x-1".to_owned(),
            by: "SW-7".to_owned(),
        };
        plans.wait((100 * MINUTE, 1, 4), refused);
        let next = plan(plans, 100 * MINUTE, is_automatic);
        plans.wait((100 * MINUTE, 1, 5), Event::Proposed(plan_metadata(&next)));
    }
    state
}

fn written(state: &Reconfigurations) -> Vec<u8> {
    let mut out = Writer::default();
    state.write(&mut out);
    out.into_bytes()
}

fn read(bytes: &[u8]) -> Result<Reconfigurations, CheckpointError> {
    Reconfigurations::read(&mut Reader::new(bytes), &config())
}

#[test]
fn a_checkpoint_goes_on_where_it_was_taken() {
    let state = everything();
    let bytes = written(&state);
    let mut restored = read(&bytes).unwrap();
    assert_eq!(written(&restored), bytes);
    for (tenant, plans) in &mut restored.tenants {
        let told = outcome(plans);
        let expected = match tenant.as_str() {
            "a" => [Some("expired"), Some("proposed")],
            _ => [Some("failed"), Some("executing")],
        };
        assert_eq!(states(&told), expected, "all rows are told");
        assert_eq!(
            told.commands.len(),
            usize::from(tenant.as_str() == "b"),
            "and the command that waits"
        );
    }
}

#[test]
fn a_damaged_checkpoint_is_an_error_or_another_state_and_never_a_panic() {
    let bytes = written(&everything());
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "cut at {end}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(mut restored) = read(&damaged) {
                for plans in restored.tenants.values_mut() {
                    plans.advance(200 * MINUTE, &config());
                    outcome(plans);
                }
            }
        }
    }
}

#[test]
fn ended_proposals_leave_after_a_month_and_above_a_thousand() {
    let mut plans = Plans::default();
    let n = KEPT_MAX as i64 + 5;
    for at in 0..n {
        let minute = 15 * (1 + at);
        proposed(&mut plans, minute, true);
        // no switch confirms
        plans.advance((minute + 3) * MINUTE, &config());
    }
    let rows = outcome(&mut plans).reconfigurations;
    assert_eq!(rows.iter().filter(|change| change.new.is_some()).count(), KEPT_MAX);
    plans.advance(2 * KEPT_US, &config());
    let rows = outcome(&mut plans).reconfigurations;
    assert!(rows.len() == KEPT_MAX && rows.iter().all(|change| change.new.is_none()));
}
