//! Reconfiguration on the street: a saving that estimates show becomes a proposal, an accepted proposal commands its switches one after the
//! other; and neither checkpoints, nor the number of workers, nor the way a replay reads the log changes what comes of it.
#![allow(clippy::unwrap_used)]

mod district;
mod generator;
mod recording;
mod ring;

use std::collections::BTreeSet;
use std::sync::Arc;

use flexmeter_dataflows::{EngineConfig, ReconfigurationConfig};
use flexmeter_grid::reconfiguration::{Options, reconfigure};
use flexmeter_model::EventTime;
use flexmeter_model::operator::{Decision, fault_metadata, located};
use flexmeter_model::outcome::{FaultRow, Suggestion};
use generator::{MINUTE, Rng, SECOND};
use recording::{Blocks, Logged};
use ring::{LINES, Ring, Run, START, answer, config, decision, quick, record, report, ring, tenant};

const ACCEPT: Decision = Decision::AcceptReconfiguration;
const REJECT: Decision = Decision::RejectReconfiguration;

/// A run with a proposal out; the next minute.
fn proposed(ring: &Ring, settings: &ReconfigurationConfig) -> (Run, i64) {
    let mut run = Run::start(config(&ring.grid(), 2, settings));
    let next = run.until_proposal(ring, START);
    (run, next)
}

/// The same, accepted.
fn executing(ring: &Ring) -> (Run, i64) {
    let (mut run, now) = proposed(ring, &quick());
    let id = run.proposal().0.to_owned();
    run.feed(vec![decision(ACCEPT, &id, now)], now + 1);
    (run, now)
}

/// The whole log again, from its start: in one epoch, and in epochs of random length.
fn check_recut(run: &Run, configs: &[EngineConfig], rng: &mut Rng, what: &str) {
    let nothing = || (Vec::new(), Blocks::default());
    let whole = Run::recut(configs[0].clone(), nothing(), &run.fed, || false);
    assert_eq!(whole.views, run.views, "{what}: in one epoch");
    for config in configs {
        let pieces = Run::recut(config.clone(), nothing(), &run.fed, || rng.one_in(7));
        assert_eq!(pieces.views, run.views, "{what}: in other epochs");
    }
}

fn check_end(run: &Run, state: &str, reason: Option<&str>) {
    let row = run.proposal().1;
    assert_eq!((row.state, row.reason), (state, reason));
    assert_eq!(run.command(), None);
}

#[test]
fn a_saving_that_stays_for_the_dwell_time_becomes_a_proposal_as_good_as_the_truth_allows() {
    let ring = ring();
    let (run, next) = proposed(&ring, &quick());
    // the first look is at the first minute, the dwell time is five
    assert_eq!(next, START + 6 * MINUTE);
    let (id, row) = run.proposal();
    assert_eq!(id, (START + 5 * MINUTE).to_string());
    assert_eq!((row.state, row.reason, &row.decided_by, row.n_done), ("proposed", None, &None, 0));
    // it begins with its record, a microsecond after the readings
    assert_eq!(row.proposed_at.micros(), START + 5 * MINUTE + 1);
    assert_eq!(row.expires_at.micros(), START + 15 * MINUTE + 1);
    let truth = ring.truth();
    let switches: Vec<usize> = LINES.skip(1).map(|id| truth.branch_index(id).unwrap()).collect();
    let best = reconfigure(&truth, &switches, &Options::default()).unwrap();
    let moves: Vec<(i64, bool)> = row
        .operations
        .iter()
        .map(|operation| (operation.branch_id, operation.close))
        .collect();
    let expected: Vec<(i64, bool)> = best.operations(&truth).iter().map(|step| (step.branch, step.close)).collect();
    assert_eq!(moves, expected);
    let saving_w = row.loss_before_w - row.loss_after_w;
    println!("saving {saving_w:.0} W estimated, {:.0} W true", best.saving_w());
    assert!(best.saving_w() > 5e3 && (saving_w / best.saving_w() - 1.0).abs() < 0.02);
    assert!(row.loss_d4_6_w.is_some() && row.voltage_min_pu[0] < row.voltage_min_pu[1]);
}

#[test]
fn an_accepted_proposal_moves_its_switches_one_by_one_and_the_estimation_follows() {
    let mut ring = ring();
    let (mut run, now) = executing(&ring);
    let row = run.proposal().1.clone();
    assert_eq!((row.state, row.decided_by.as_deref(), row.n_done), ("executing", Some("ada"), 0));
    let operations = row.operations;
    let mut now = now;
    for (step, operation) in operations.iter().enumerate() {
        let (id, branch_id, close) = run.command().unwrap();
        assert_eq!(id, format!("{}-{}", run.proposal().0, step + 1));
        assert_eq!((branch_id, close), (operation.branch_id, operation.close));
        now += SECOND;
        // that the command has arrived is no confirmation, nor is the word of another device
        run.feed(
            vec![answer(branch_id, &id, "accepted", now), answer(11, &id, "refused", now)],
            now + 1,
        );
        assert_eq!(run.command().map(|(id, ..)| id), Some(id));
        ring.operate(branch_id, close);
        now += SECOND;
        run.feed(vec![report(branch_id, now, close)], now + 1);
    }
    check_end(&run, "done", None);
    assert_eq!(run.proposal().1.n_done as usize, operations.len());
    let far = |run: &Run| {
        run.areas["mv1"]
            .states
            .iter()
            .map(|state| state.value[0][0])
            .fold(f64::INFINITY, f64::min)
    };
    let after = (now / MINUTE + 1) * MINUTE;
    for minute in 0..20 {
        run.feed(ring.readings(after + minute * MINUTE), after + minute * MINUTE + 1);
    }
    for operation in &operations {
        let row = &run.views.switches[&operation.branch_id];
        assert_eq!((row.closed, row.by.as_str()), (operation.close, operation.hardware_id.as_str()));
    }
    let (node, lowest) = reconfigure(&ring.truth(), &[], &Options::default()).unwrap().initial.voltage_min_pu;
    assert!(node > 0 && (far(&run) / (10_000.0 / 3f64.sqrt()) - lowest).abs() < 1e-3);
    assert_eq!(run.views.states(), ["done"], "there is nothing better now");
}

#[test]
fn a_rejected_or_forgotten_proposal_comes_again_only_after_a_pause() {
    for rejects in [true, false] {
        let ring = ring();
        let (mut run, now) = proposed(&ring, &quick());
        let (id, expires_at) = (run.proposal().0.to_owned(), run.proposal().1.expires_at.micros());
        let settled_at = if rejects {
            run.feed(vec![decision(REJECT, "another", now), decision(REJECT, &id, now)], now + 1);
            now
        } else {
            run.feed(Vec::new(), expires_at);
            assert_eq!(run.proposal().1.state, "proposed");
            run.feed(Vec::new(), expires_at + MINUTE);
            expires_at
        };
        let (state, reason) = if rejects {
            ("rejected", None)
        } else {
            ("expired", Some("time_out"))
        };
        check_end(&run, state, reason);
        assert_eq!(
            run.proposal().1.changed_at.micros(),
            settled_at,
            "its own moment, however late the log"
        );
        assert_eq!(run.proposal().1.decided_by.as_deref(), rejects.then_some("ada"));
        // it cannot be accepted any more
        let late = expires_at + 2 * MINUTE;
        run.feed(vec![decision(ACCEPT, &id, late)], late + 1);
        check_end(&run, state, reason);
        let next = run.until_proposal(&ring, late + MINUTE) - MINUTE;
        assert!(next - settled_at >= 15 * MINUTE, "{} s", (next - settled_at) / SECOND);
        assert_eq!(run.views.states(), [state, "proposed"]);
    }
}

#[test]
fn a_switch_that_refuses_or_does_not_confirm_ends_it() {
    for response in ["Refused: local control", "ERROR 7", "failed"] {
        let (mut run, now) = executing(&ring());
        let (id, branch_id, _) = run.command().unwrap();
        run.feed(vec![answer(branch_id, &id, response, now + SECOND)], now + SECOND + 1);
        check_end(&run, "failed", Some("switch_failed"));
    }
    let (mut run, now) = executing(&ring());
    run.feed(Vec::new(), now + 2 * MINUTE);
    assert!(run.command().is_some());
    run.feed(Vec::new(), now + 2 * MINUTE + 1);
    check_end(&run, "failed", Some("no_confirmation"));
    assert_eq!(run.proposal().1.changed_at.micros(), now + 2 * MINUTE);
}

#[test]
fn a_switch_that_moves_otherwise_overtakes_the_plan() {
    // one that is not in the plan, before and while it is carried out
    let (mut run, now) = proposed(&ring(), &quick());
    run.feed(vec![report(11, now, true)], now + 1);
    assert_eq!(run.proposal().1.state, "proposed", "it has only said where it stands");
    run.feed(vec![report(11, now + SECOND, false)], now + SECOND + 1);
    check_end(&run, "expired", Some("network_changed"));
    let (mut run, now) = executing(&ring());
    run.feed(vec![report(11, now + SECOND, false)], now + SECOND + 1);
    check_end(&run, "failed", Some("network_changed"));
    // one of the plan, out of turn
    let (mut run, now) = executing(&ring());
    let last = run.proposal().1.operations.last().unwrap().clone();
    run.feed(vec![report(last.branch_id, now + SECOND, !last.close)], now + SECOND + 1);
    assert_eq!(run.proposal().1.state, "executing", "it stands as it did");
    run.feed(vec![report(last.branch_id, now + 2 * SECOND, last.close)], now + 2 * SECOND + 1);
    check_end(&run, "failed", Some("network_changed"));
}

#[test]
fn an_automatic_tenant_needs_no_operator() {
    let mut ring = ring();
    let settings = ReconfigurationConfig {
        automatic: BTreeSet::from([tenant()]),
        ..quick()
    };
    let (mut run, now) = proposed(&ring, &settings);
    let row = run.proposal().1;
    assert_eq!((row.state, row.decided_by.as_deref()), ("executing", Some("automatic")));
    run.carry_out(&mut ring, now);
    check_end(&run, "done", None);
}

/// A log with everything in it: a rejected proposal, one that is carried out, then other loads and one that fails.
fn story() -> Vec<ring::Fed> {
    let mut ring = ring();
    let (mut run, now) = proposed(&ring, &quick());
    let id = run.proposal().0.to_owned();
    run.feed(vec![decision(REJECT, &id, now)], now + 1);
    let now = run.until_proposal(&ring, now + MINUTE);
    let id = run.proposal().0.to_owned();
    run.feed(vec![decision(ACCEPT, &id, now)], now + 1);
    run.carry_out(&mut ring, now);
    ring.loads_w = [100e3, 900e3, 1_500e3, 50e3, 50e3, 50e3];
    let now = run.until_proposal(&ring, now + MINUTE);
    let id = run.proposal().0.to_owned();
    run.feed(vec![decision(ACCEPT, &id, now)], now + 1);
    let (command, branch_id, _) = run.command().unwrap();
    run.feed(vec![answer(branch_id, &command, "error", now + SECOND)], now + MINUTE);
    assert_eq!(run.views.states(), ["rejected", "done", "failed"]);
    std::mem::take(&mut run.fed)
}

#[test]
fn a_restart_at_any_step_with_any_number_of_workers_changes_nothing() {
    let fed = story();
    let grid = ring().grid();
    let configs: Vec<_> = [1, 2, 3].map(|n| config(&grid, n, &quick())).into_iter().collect();
    let whole = Run::again(&fed, &configs[..1], &BTreeSet::new());
    check_recut(&whole, &configs, &mut Rng::new(7), "a story");
    let always = Run::again(&fed, &configs, &(1..fed.len()).collect());
    assert_eq!(always.views, whole.views, "a restart before every epoch");
}

#[test]
fn a_restarted_engine_says_again_which_command_waits() {
    let mut ring = ring();
    let (mut run, mut now) = executing(&ring);
    for n_workers in [1, 3, 2, 1, 2, 3] {
        let before = run.views.clone();
        run = run.restart(config(&ring.grid(), n_workers, &quick()));
        assert_eq!(run.views, before, "epoch 0 tells all of it");
        let Some((_, branch_id, close)) = run.command() else { break };
        ring.operate(branch_id, close);
        now += SECOND;
        run.feed(vec![report(branch_id, now, close)], now + 1);
    }
    check_end(&run, "done", None);
}

#[test]
fn a_replay_that_reads_the_partitions_unevenly_comes_to_the_same() {
    let mut ring = ring();
    let (mut run, now) = proposed(&ring, &quick());
    let checkpoint = run.snapshot();
    let n_before = run.fed.len();
    let id = run.proposal().0.to_owned();
    run.feed(vec![decision(ACCEPT, &id, now)], now + 1);
    run.carry_out(&mut ring, now);
    check_end(&run, "done", None);
    for n_workers in [1, 2, 3] {
        let replayed = Run::replay(config(&ring.grid(), n_workers, &quick()), checkpoint.clone(), &run.fed[n_before..]);
        assert_eq!(replayed.views, run.views, "one partition after the other");
    }
}

#[test]
fn a_replay_from_before_a_proposal_meets_the_same_one() {
    let mut ring = ring();
    let mut run = Run::start(config(&ring.grid(), 2, &quick()));
    let now = START + 3 * MINUTE;
    for minute in 0..3 {
        run.feed(ring.readings(START + minute * MINUTE), START + minute * MINUTE + 1);
    }
    let checkpoint = run.snapshot();
    let n_before = run.fed.len();
    let now = run.until_proposal(&ring, now);
    let id = run.proposal().0.to_owned();
    // the process ends here; what it has told is out, and somebody decides by it
    let killed = run.views.clone();
    let fed = run.fed.split_off(n_before);
    for n_workers in [1, 2, 3] {
        let config = config(&ring.grid(), n_workers, &quick());
        let mut run = Run::recut(config, checkpoint.clone(), &fed, || false);
        assert_eq!(run.views, killed, "one look instead of three");
        run.feed(vec![decision(ACCEPT, &id, now)], now + 1);
        assert_eq!(run.proposal().1.state, "executing");
        if n_workers == 3 {
            run.carry_out(&mut ring, now);
            check_end(&run, "done", None);
        }
    }
}

#[test]
fn what_is_suggested_is_suggested_again_until_the_log_has_it() {
    let ring = ring();
    let mut run = Run::start(config(&ring.grid(), 2, &quick()));
    let mut suggested = Vec::new();
    for minute in 0..9 {
        let now = START + minute * MINUTE;
        run.feed_logged(ring.readings(now), now + 1);
        suggested.extend(run.suggestions.first().cloned());
    }
    assert!(run.views.reconfigurations.is_empty(), "nobody has put it into the log");
    let ids: Vec<i64> = suggested.iter().map(|suggestion| suggestion.id as i64).collect();
    assert_eq!(ids, [5, 6, 7, 8].map(|minute| START + minute * MINUTE), "every look");
    // all of them arrive in the end, the last one twice; the first one counts
    let now = START + 8 * MINUTE + 2;
    let mut records: Vec<Logged> = suggested.iter().map(|suggestion| record(suggestion, now)).collect();
    records.push(records[3].clone());
    run.feed_logged(records, now + 1);
    assert_eq!(run.views.states(), ["proposed"]);
    assert_eq!((run.proposal().0, run.suggestions.len()), (ids[0].to_string().as_str(), 0));
    run.feed(ring.readings(START + 9 * MINUTE), START + 9 * MINUTE + 1);
    assert_eq!((run.views.states(), run.suggestions.len()), (vec!["proposed"], 0));
}

#[test]
fn a_plan_for_positions_or_a_grid_of_before_is_no_proposal() {
    let ring = ring();
    let mut run = Run::start(config(&ring.grid(), 2, &quick()));
    for minute in 0..6 {
        run.feed_logged(ring.readings(START + minute * MINUTE), START + minute * MINUTE + 1);
    }
    let suggestion = run.suggestions[0].clone();
    let now = START + 5 * MINUTE + SECOND;
    let other_grid = Suggestion {
        grid_mark: suggestion.grid_mark ^ 1,
        ..Suggestion::clone(&suggestion)
    };
    run.feed_logged(vec![record(&other_grid, now)], now + 1);
    assert!(run.views.reconfigurations.is_empty());
    // the switch moves while the record is on its way
    run.feed_logged(vec![report(11, now + 1, false), record(&suggestion, now + 2)], now + 3);
    assert!(run.views.reconfigurations.is_empty());
    run.feed_logged(vec![report(11, now + 4, true), record(&suggestion, now + 5)], now + 6);
    assert!(run.views.reconfigurations.is_empty(), "the same message twice is one message");
}

/// Whatever happens to it: decisions, reports and answers that fit and that do not, silence.
fn random_messages(run: &Run, ring: &mut Ring, rng: &mut Rng, now: i64) -> Vec<Logged> {
    let id = run.views.reconfigurations.keys().last().cloned().unwrap_or_default();
    let mut messages = Vec::new();
    match rng.below(10) {
        0 => messages.push(decision(REJECT, &id, now)),
        1..=3 => messages.push(decision(ACCEPT, &id, now)),
        _ => {}
    }
    if let Some((command, branch_id, close)) = run.command() {
        match rng.below(12) {
            0 => messages.push(answer(branch_id, &command, "refused", now)),
            1 => {}
            _ => {
                ring.operate(branch_id, close);
                messages.push(report(branch_id, now, close));
            }
        }
    }
    if rng.one_in(12) {
        let branch_id = 12 + rng.below(6) as i64;
        let branch = ring.network.branch_index(branch_id).unwrap();
        let closed = ring.network.branches()[branch].is_closed() ^ rng.one_in(2);
        ring.operate(branch_id, closed);
        messages.push(report(branch_id, now + 1, closed));
    }
    messages
}

#[test]
fn random_decisions_and_reports_come_to_the_same_with_and_without_restarts() {
    let mut met = BTreeSet::new();
    for seed in 0..12 {
        let mut ring = ring();
        let mut rng = Rng::new(seed);
        let settings = ReconfigurationConfig {
            dwell_us: MINUTE,
            pause_us: 2 * MINUTE,
            expires_us: 4 * MINUTE,
            automatic: if rng.one_in(3) {
                BTreeSet::from([tenant()])
            } else {
                BTreeSet::new()
            },
            ..ReconfigurationConfig::default()
        };
        let grid = ring.grid();
        let configs: Vec<_> = [2, 1, 3].map(|n| config(&grid, n, &settings)).into_iter().collect();
        let mut run = Run::start(configs[0].clone());
        let mut under_way: Vec<Arc<Suggestion>> = Vec::new();
        for half_minute in 0..50 {
            let now = START + half_minute * MINUTE / 2;
            let mut messages = ring.readings(now);
            messages.extend(random_messages(&run, &mut ring, &mut rng, now + SECOND));
            messages.extend(under_way.drain(..).map(|suggestion| record(&suggestion, now + SECOND)));
            run.feed_logged(messages, now + 2 * SECOND);
            // the append is late, fails, succeeds twice, or is as it should be
            let fate = rng.below(8);
            if fate <= 1 {
                under_way.clone_from(&run.suggestions);
            }
            if fate >= 1 && fate != 2 {
                run.append(now + 2 * SECOND);
            }
        }
        let states = run.views.states();
        println!("seed {seed}: {states:?}");
        met.extend(states.iter().copied());
        assert!(
            states[..states.len().saturating_sub(1)]
                .iter()
                .all(|state| !["proposed", "executing"].contains(state)),
            "one at a time"
        );
        let cut: BTreeSet<usize> = (0..8).map(|_| 1 + rng.below(run.fed.len() as u64 - 1) as usize).collect();
        let again = Run::again(&run.fed, &configs, &cut);
        assert_eq!(again.views, run.views, "seed {seed}");
        check_recut(&run, &configs, &mut rng, &format!("seed {seed}"));
    }
    assert!(["rejected", "done", "failed"].iter().all(|state| met.contains(state)), "{met:?}");
}

#[test]
fn what_lower_levels_draw_counts_on_the_upper_one() {
    let mut district = district::district(
        district::Size {
            n_lv: 5,
            n_customers: 6,
            ..district::SMALL
        },
        3,
    );
    // the loads of a few houses: it is worth some W
    let settings = ReconfigurationConfig {
        saving_min_w: 1.0,
        dwell_us: 2 * MINUTE,
        ..quick()
    };
    let grid = district.grid();
    let mut run = Run::start(config(&grid, 3, &settings));
    for minute in 0..3 {
        let now = START + minute * MINUTE;
        run.feed(district.messages(now), now + 1);
    }
    let truth = district.upper_level();
    let mv = grid.bundle().switches.iter().filter(|switch| switch.hardware_id.contains("mv"));
    let switches: Vec<usize> = mv
        .filter_map(|switch| truth.branch_index(grid.bundle().network.branches()[switch.branch].id))
        .collect();
    let best = reconfigure(&truth, &switches, &Options::default()).unwrap();
    let row = run.proposal().1;
    let saving_w = row.loss_before_w - row.loss_after_w;
    println!("saving {saving_w:.2} W estimated, {:.2} W true", best.saving_w());
    assert!(best.saving_w() > 1.0 && (saving_w / best.saving_w() - 1.0).abs() < 0.05);
    let moves: Vec<i64> = row.operations.iter().map(|operation| operation.branch_id).collect();
    let expected: Vec<i64> = best.operations(&truth).iter().map(|step| step.branch).collect();
    assert_eq!(moves, expected);
    // what moves on LV is no matter of the plan; what moves on MV is
    let now = START + 3 * MINUTE;
    let closed = district.operate("TIE-lv0");
    run.feed(vec![district::position("TIE-lv0", now, closed)], now + 1);
    assert_eq!(run.proposal().1.state, "proposed");
    let closed = district.operate("SW-mv0");
    run.feed(vec![district::position("SW-mv0", now + SECOND, closed)], now + SECOND + 1);
    check_end(&run, "expired", Some("network_changed"));
}

#[test]
fn located_faults_are_kept_through_a_restart_and_malformed_ones_are_counted() {
    let fault = FaultRow {
        area: "mv1".into(),
        fault_type: "AG".to_owned(),
        branch_id: 13,
        near_node: 3,
        share: 0.25,
        distance_m: Some(2_250.0),
        distance_sigma_m: None,
        distance_ohm: 0.7,
        resistance_ohm: 2.5,
        probability: 0.8,
        candidates: "[]".to_owned(),
        n_gasps: 2,
        event_time: EventTime::from_micros(START),
        by: "ada".to_owned(),
    };
    let alert = |metadata: Vec<(String, String)>, id: &str| Logged {
        hardware_id: flexmeter_model::operator::OPERATOR.to_owned(),
        received_at: START,
        payload: serde_json::to_string(&located(id, EventTime::from_micros(START), metadata)).unwrap(),
    };
    let grid = ring().grid();
    let mut run = Run::start(config(&grid, 2, &quick()));
    run.feed(vec![alert(fault_metadata(&fault), "f-1"), alert(Vec::new(), "f-2")], START + 1);
    assert_eq!(run.n_faults_malformed, 1);
    for n_workers in [1, 3] {
        assert_eq!(run.views.faults.len(), 1);
        assert_eq!(*run.views.faults["f-1"], fault);
        run = run.restart(config(&grid, n_workers, &quick()));
    }
}
