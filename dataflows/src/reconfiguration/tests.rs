//! The pure parts: the life of proposals step by step, and their checkpoints.

use flexmeter_grid::reconfiguration::Operation;
use flexmeter_model::outcome::GridOutcome;
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

/// A tenant with a proposal out since `minute`.
fn proposed(plans: &mut Plans, minute: i64, is_automatic: bool) {
    assert!(
        plans.advance(minute * MINUTE + 1, &config()).is_none(),
        "there is no grid to look at"
    );
    plans.observe(vec![("mv1".to_owned(), Some(found(2_000.0)))], is_automatic, &config());
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
    plans.observe(
        vec![other("mv1", 1_500.0), other("mv2", 3_000.0), other("mv3", 2_000.0)],
        false,
        &config(),
    );
    let row = outcome(&mut plans).reconfigurations[0].new.clone().unwrap();
    assert_eq!((row.loss_before_w - row.loss_after_w, row.state), (3_000.0, "proposed"));
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
