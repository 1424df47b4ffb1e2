//! Outages in a running engine: recordings with a known failure, random stories in any cut with restarts on the way, decisions of operators,
//! grids that change, and a storm.
#![allow(clippy::unwrap_used)]

mod district;
mod generator;
mod recording;
mod watched;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use district::{District, SMALL, Size, district, position};
use flexmeter_dataflows::{Engine, Grid};
use flexmeter_model::EventTime;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::record::partition_of;
use generator::{MINUTE, Rng, SECOND};
use recording::{Blocks, Logged, N_PARTITIONS, TENANT};
use watched::{Run, START, Views, beat, config, decision, gasp, reading, restored, tenant};

/// Customers' meters of a district that begin like this.
fn customers(district: &District, prefix: &str) -> Vec<String> {
    let all = district.bundle.meters.iter().map(|meter| meter.hardware_id.clone());
    all.filter(|name| name.starts_with('C') && name[1..].starts_with(prefix)).collect()
}

// ---- recordings

/// Plays a recording in epochs of a tenth of a second with a heartbeat twice a second.
fn check_recording(name: &str, test: &str, pinned_by: usize) {
    let Some(folder) = recording::folder(name, test) else { return };
    let grid = recording::grid(&folder);
    let log = recording::log(&folder);
    let events = std::fs::read_to_string(folder.join("events.csv")).unwrap();
    let events: Vec<Vec<&str>> = events.lines().skip(1).map(|line| line.splitn(6, ',').collect()).collect();
    let times = |kind: &str| -> Vec<i64> {
        let of_kind = events.iter().filter(|event| event[1] == kind);
        of_kind
            .map(|event| EventTime::parse(event[0].as_bytes()).unwrap().micros())
            .collect()
    };
    let start = events.iter().find(|event| event[1] == "outage_start").unwrap();
    let same = start[5].split("same_customers=").nth(1).unwrap();
    let same: Vec<String> = same.split_whitespace().map(|id| format!("branch-{id}")).collect();
    let (gasps, restorations) = (times("gasp"), times("restored"));
    let mut run = Run::start(config(Some(&grid), 2), Vec::new(), Blocks::default());
    let (mut at, mut now) = (0, log[0].received_at);
    let (mut opened, mut right, mut closed) = (None, None, None);
    let (mut slowest_us, mut n_most) = (0, 0);
    while at < log.len() {
        // what is quiet is skipped
        let events = || gasps.iter().chain(&restorations).copied();
        let is_near = events().any(|event| (event..event + 3 * SECOND).contains(&(now + SECOND / 10)));
        let next = events().filter(|event| *event > now).min().unwrap_or(i64::MAX);
        now = if is_near {
            now + SECOND / 10
        } else {
            (now + 20 * SECOND).min(next)
        };
        let n = log[at..].iter().take_while(|message| message.received_at <= now).count();
        let mut messages = log[at..at + n].to_vec();
        at += n;
        // the log beats each half second
        if !is_near || now % (SECOND / 2) < SECOND / 10 {
            messages.extend(beat(now));
        }
        let started = Instant::now();
        run.feed(&messages);
        slowest_us = slowest_us.max(started.elapsed().as_micros());
        n_most = n_most.max(run.views.open().count());
        opened = opened.or(run.views.open().next().map(|_| now));
        right = right.or(run.views.open().find(|row| same.contains(&row.device)).map(|_| now));
        closed = closed.or((right.is_some() && run.views.open().next().is_none()).then_some(now));
    }
    let (opened, right, closed) = (opened.unwrap(), right.unwrap(), closed.unwrap());
    let last = restorations.iter().max().unwrap();
    let seconds = |us: i64| us as f64 / 1e6;
    println!(
        "{name}: opened {:.2} s after the third gasp, right device {:.2} s after gasp {pinned_by}, closed {:.2} s after the last restoration; \
         slowest epoch {slowest_us} us",
        seconds(opened - gasps[2]),
        seconds(right - gasps[pinned_by - 1]),
        seconds(closed - last)
    );
    assert!(opened - gasps[2] <= SECOND && right - gasps[pinned_by - 1] <= SECOND);
    assert_eq!(n_most, 1, "false gasps raise nothing");
    let row = run.views.only();
    assert!(same.contains(&row.device), "{row:?}");
    let n_customers: u32 = start[5]
        .strip_prefix("customers=")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        (row.n_customers, row.n_customers_out, row.closed_because),
        (n_customers, 0, Some("restored")),
        "{row:?}"
    );
    // the rest of the customers' devices have the same feeder
    let served: u64 = run.views.reliability.values().map(|row| row.n_customers).sum();
    let customers = grid
        .bundle()
        .meters
        .iter()
        .filter(|meter| meter.role == flexmeter_grid::bundle::Role::Customer);
    assert_eq!(served as usize, customers.count());
    let feeder = &run.views.reliability[&row.feeder.unwrap().to_string()];
    assert_eq!(feeder.n_sustained, u64::from(n_customers), "{feeder:?}");
    run.engine.shutdown().unwrap();
}

#[test]
fn the_outage_of_the_district_is_found_at_the_third_gasp_and_closed_at_restoration() {
    let test = "the_outage_of_the_district_is_found_at_the_third_gasp_and_closed_at_restoration";
    check_recording("district-small", test, 3);
}

#[test]
fn the_outage_of_the_european_feeder_is_opened_at_the_third_gasp_and_pinned_by_the_seventh() {
    let test = "the_outage_of_the_european_feeder_is_opened_at_the_third_gasp_and_pinned_by_the_seventh";
    check_recording("european-lv", test, 7);
}

// ---- random stories

/// Half an hour of a district: readings of which some are lost, late or without voltage; parts of the district that go dark and come back;
/// false gasps; switches.
fn story(district: &mut District, seed: u64, n_minutes: i64) -> Vec<Logged> {
    let mut rng = Rng::new(seed);
    let mut log: Vec<Logged> = Vec::new();
    let mut dark: BTreeSet<String> = BTreeSet::new();
    let meters: Vec<String> = district.bundle.meters.iter().map(|meter| meter.hardware_id.clone()).collect();
    for minute in 0..n_minutes {
        let now = START + minute * MINUTE;
        let at = |rng: &mut Rng| now + rng.below(MINUTE as u64) as i64;
        if rng.one_in(3) {
            let switch = ["TIE-mv", "TIE-lv0", "SW-mv1", "SW-mv2", "SW-lv1-1"][rng.below(5) as usize];
            let (closed, at) = (district.operate(switch), at(&mut rng));
            log.push(position(switch, at, closed));
        }
        if rng.one_in(3) {
            let prefix = ["-lv0", "-lv1", "-lv2", "-lv1-c0", "-lv2-c1", "-lv0-c1"][rng.below(6) as usize];
            let from = at(&mut rng);
            for name in customers(district, prefix) {
                let event = from + rng.below(5_000_000) as i64;
                let is_lost = rng.below(10) < 4;
                if dark.insert(name.clone()) && !is_lost {
                    let message = gasp(&name, event, event + rng.below(3_000_000) as i64);
                    log.extend(vec![message; 1 + usize::from(rng.one_in(5))]);
                }
            }
        }
        if rng.one_in(2) && !dark.is_empty() {
            let from = at(&mut rng);
            let keep = rng.below(3);
            for name in std::mem::take(&mut dark) {
                if keep > 0 && rng.below(10) < 3 * keep {
                    dark.insert(name);
                    continue;
                }
                let event = from + rng.below(20_000_000) as i64;
                log.push(restored(&name, event, event + rng.below(2_000_000) as i64));
            }
        }
        for name in &meters {
            let event = now + rng.below(MINUTE as u64) as i64;
            if rng.one_in(200) {
                log.push(gasp(name, event, event + SECOND));
            }
            if dark.contains(name) || rng.one_in(30) {
                continue;
            }
            let u_v = if name.starts_with('F') { 6_000.0 } else { 230.0 };
            let delay = if rng.one_in(40) { 2 * MINUTE } else { rng.below(1_000_000) as i64 };
            let reading = reading(name, if rng.one_in(150) { 0.5 } else { u_v }, event);
            log.push(Logged {
                received_at: reading.received_at + delay,
                ..reading
            });
        }
    }
    log.sort_by_key(|message| message.received_at);
    log
}

/// With decisions about the outages that there would be without any, and about others.
fn with_decisions(grid: &Arc<Grid>, mut log: Vec<Logged>, rng: &mut Rng) -> Vec<Logged> {
    for (id, row) in at_once(grid, &log).outages {
        let at = row.reported_at.micros() + 1 + rng.below(3 * MINUTE as u64) as i64;
        match rng.below(4) {
            0 => log.push(decision("outage.closed", &id, at)),
            1 => log.push(decision("outage.acknowledged", &id, at)),
            2 => log.push(decision(
                "outage.closed",
                ["branch-1-1", "nonsense", "reconfiguration-1"][rng.below(3) as usize],
                at,
            )),
            _ => {}
        }
    }
    log.sort_by_key(|message| message.received_at);
    log
}

/// All of it in one epoch, by an engine that knows nothing.
fn at_once(grid: &Arc<Grid>, log: &[Logged]) -> Views {
    let mut run = Run::start(config(Some(grid), 1), Vec::new(), Blocks::default());
    run.feed(log);
    run.engine.shutdown().unwrap();
    run.views
}

#[track_caller]
fn assert_same(found: &Views, expected: &Views, what: &str) {
    assert_eq!(
        found.outages.keys().collect::<Vec<_>>(),
        expected.outages.keys().collect::<Vec<_>>(),
        "{what}"
    );
    for (id, row) in &found.outages {
        assert_eq!(row, &expected.outages[id], "{what}: {id}");
    }
    assert_eq!(found.reliability, expected.reliability, "{what}");
}

#[test]
fn any_cut_with_restarts_on_any_number_of_workers_says_what_one_engine_says_at_once() {
    let (mut n_outages, mut n_closed_by_operators, mut n_restarts, mut n_switched) = (0, 0, 0, 0);
    for seed in 0..8 {
        let mut district = district(SMALL, seed);
        let grid = district.grid();
        let mut rng = Rng::new(seed + 900);
        let log = with_decisions(&grid, story(&mut district, seed + 70, 30), &mut rng);
        let expected = at_once(&grid, &log);
        n_outages += expected.outages.len();
        let because = |reason| expected.outages.values().filter(|row| row.closed_because == Some(reason)).count();
        n_closed_by_operators += because("operator");
        n_switched += because("switched");
        let mut run = Run::start(config(Some(&grid), 1), Vec::new(), Blocks::default());
        let (mut at, mut kept) = (0, (0, Vec::new()));
        while at < log.len() {
            let end = (at + 1 + rng.below(60) as usize).min(log.len());
            run.feed(&log[at..end]);
            at = end;
            if rng.one_in(5) {
                kept = (at, run.engine.snapshot().unwrap());
            }
            // everything since the last checkpoint is lost, and comes again in other pieces
            if rng.one_in(12) {
                let (until, snapshots) = kept.clone();
                drop(run);
                at = until;
                n_restarts += 1;
                run = Run::start(config(Some(&grid), 1 + rng.below(3) as usize), snapshots, Blocks::until(&log[..at]));
            }
        }
        assert_same(&run.views, &expected, &format!("seed {seed}"));
        run.engine.shutdown().unwrap();
    }
    println!("{n_outages} outages, {n_closed_by_operators} closed by operators, {n_switched} by switches, {n_restarts} restarts");
    assert!(
        n_outages > 50 && n_closed_by_operators > 5 && n_restarts > 20,
        "{n_outages} {n_closed_by_operators} {n_restarts}"
    );
}

#[test]
fn a_restarted_engine_tells_its_outages_in_epoch_0() {
    let district = district(SMALL, 1);
    let grid = district.grid();
    let mut run = Run::start(config(Some(&grid), 2), Vec::new(), Blocks::default());
    let dark = customers(&district, "-lv1-c0");
    run.feed(&dark.iter().map(|name| gasp(name, START, START + SECOND)).collect::<Vec<_>>());
    run.feed(&beat(START + 3 * SECOND));
    let row = run.views.only().clone();
    assert_eq!((&*row.area, row.n_customers, row.n_gasps), ("mv1/lv1/c0", 3, 3));
    let snapshots = run.engine.snapshot().unwrap();
    let home = partition_of(TENANT, OPERATOR, N_PARTITIONS);
    assert!(
        snapshots.iter().any(|snapshot| snapshot.partition == home),
        "the home is in the checkpoint"
    );
    let (views, blocks) = (run.views.clone(), run.blocks.clone());
    drop(run);
    for n_workers in 1..4 {
        let again = Run::start(config(Some(&grid), n_workers), snapshots.clone(), blocks.clone());
        assert_same(&again.views, &views, &format!("{n_workers} workers"));
        assert_eq!(again.epoch, 0);
        again.engine.shutdown().unwrap();
    }
}

#[test]
fn the_home_is_in_the_checkpoint_even_if_nothing_was_read_from_its_partition() {
    let home = partition_of(TENANT, OPERATOR, N_PARTITIONS);
    let district = district(SMALL, 1);
    let grid = district.grid();
    let elsewhere = |name: &&String| partition_of(TENANT, name, N_PARTITIONS) != home;
    let names = customers(&district, "-lv");
    let gasps: Vec<Logged> = names
        .iter()
        .filter(elsewhere)
        .map(|name| gasp(name, START, START + SECOND))
        .collect();
    let mut clock = beat(START + 3 * SECOND);
    clock.remove(home as usize);
    let mut run = Run::start(config(Some(&grid), 2), Vec::new(), Blocks::default());
    run.feed(&gasps);
    run.feed(&clock);
    assert_eq!(run.views.open().count(), 1);
    let (snapshots, views, blocks) = (run.engine.snapshot().unwrap(), run.views.clone(), run.blocks.clone());
    assert!(snapshots.iter().any(|snapshot| (snapshot.partition, snapshot.offset) == (home, 0)));
    drop(run);
    let mut again = Run::start(config(Some(&grid), 3), snapshots, blocks);
    assert_same(&again.views, &views, "restarted");
    // its partition goes on from the beginning
    let id = again.views.outages.keys().next().unwrap().clone();
    again.feed(&[decision("outage.acknowledged", &id, START + 4 * SECOND)]);
    assert!(again.views.only().acknowledged);
    again.engine.shutdown().unwrap();
}

// ---- operators, switches, grids

#[test]
fn operators_acknowledge_and_close_and_nobody_else_does() {
    let district = district(SMALL, 1);
    let mut run = Run::start(config(Some(&district.grid()), 2), Vec::new(), Blocks::default());
    let dark = customers(&district, "-lv1-c0");
    let gasps = |now: i64| dark.iter().map(|name| gasp(name, now, now + SECOND)).collect::<Vec<_>>();
    run.feed(&gasps(START));
    run.feed(&beat(START + 3 * SECOND));
    let id = run.views.outages.keys().next().unwrap().clone();
    let mut impostor = decision("outage.closed", &id, START + 4 * SECOND);
    impostor.hardware_id = "C-lv0-c0-0".to_owned();
    impostor.payload = impostor.payload.replace(OPERATOR, "C-lv0-c0-0");
    run.feed(&[impostor, decision("outage.closed", "branch-1-5", START + 4 * SECOND)]);
    assert!(run.views.only().closed_at.is_none());
    run.feed(&[decision("outage.acknowledged", &id, START + 5 * SECOND)]);
    assert!(run.views.only().acknowledged);
    run.feed(&[decision("outage.closed", &id, START + 6 * SECOND)]);
    let row = run.views.only();
    assert_eq!(
        (row.closed_because, row.closed_at.unwrap().micros()),
        (Some("operator"), START + 6 * SECOND)
    );
    // the same gasps again, in messages that are no repeats
    run.feed(
        &dark
            .iter()
            .map(|name| gasp(name, START + SECOND, START + 7 * SECOND))
            .collect::<Vec<_>>(),
    );
    run.feed(&beat(START + 9 * SECOND));
    assert_eq!(run.views.open().count(), 0);
    run.feed(&gasps(START + MINUTE));
    run.feed(&beat(START + MINUTE + 3 * SECOND));
    assert_eq!((run.views.open().count(), run.views.outages.len()), (1, 2));
    run.engine.shutdown().unwrap();
}

#[test]
fn customers_follow_the_switches_and_planned_switching_is_no_outage() {
    let mut district = district(SMALL, 3);
    let mut run = Run::start(config(Some(&district.grid()), 2), Vec::new(), Blocks::default());
    let served = |run: &Run| {
        let mut served: Vec<u64> = run.views.reliability.values().map(|row| row.n_customers).collect();
        served.sort_unstable();
        served
    };
    assert_eq!(served(&run), [24]);
    let closed = district.operate("SW-mv1");
    // they are switched off and gasp, in the same epoch
    let mut messages = vec![position("SW-mv1", START, closed)];
    messages.extend(
        ["-lv1", "-lv2"]
            .iter()
            .flat_map(|lv| customers(&district, lv))
            .map(|name| gasp(&name, START, START + SECOND)),
    );
    run.feed(&messages);
    run.feed(&beat(START + 5 * SECOND));
    assert_eq!((run.views.outages.len(), served(&run)), (0, vec![8]));
    // supply from the other side of the ring: a second feeder
    let closed = district.operate("TIE-mv");
    run.feed(&[position("TIE-mv", START + MINUTE, closed)]);
    run.feed(&beat(START + MINUTE + 5 * SECOND));
    assert_eq!((run.views.outages.len(), served(&run)), (0, vec![8, 16]));
    // and an older report changes nothing
    run.feed(&[position("TIE-mv", START + SECOND, false)]);
    assert_eq!(served(&run), [8, 16]);
    run.engine.shutdown().unwrap();
}

#[test]
fn meters_without_voltage_are_as_good_as_gasps() {
    let district = district(SMALL, 1);
    let mut run = Run::start(config(Some(&district.grid()), 1), Vec::new(), Blocks::default());
    let names = customers(&district, "-lv2-c1");
    run.feed(&names.iter().map(|name| reading(name, 230.0, START)).collect::<Vec<_>>());
    run.feed(&names.iter().map(|name| reading(name, 3.0, START + MINUTE)).collect::<Vec<_>>());
    run.feed(&beat(START + MINUTE + SECOND));
    let row = run.views.only();
    assert_eq!((&*row.area, row.n_gasps, row.closed_at), ("mv1/lv2/c1", 3, None));
    run.feed(
        &names
            .iter()
            .map(|name| reading(name, 229.0, START + 2 * MINUTE))
            .collect::<Vec<_>>(),
    );
    run.feed(&beat(START + 2 * MINUTE + SECOND));
    assert_eq!(run.views.only().closed_because, Some("restored"));
    run.engine.shutdown().unwrap();
}

#[test]
fn silence_of_meters_that_report_in_time_is_an_outage_and_that_of_others_is_not() {
    for (interval, expected) in [(MINUTE, 1), (15 * MINUTE, 0)] {
        let district = district(SMALL, 1);
        let mut run = Run::start(config(Some(&district.grid()), 2), Vec::new(), Blocks::default());
        let (all, silent) = (customers(&district, "-lv"), customers(&district, "-lv0-c0"));
        for minute in 0..46 {
            let now = START + minute * MINUTE;
            let speaks = |name: &&String| !silent.contains(name) || minute < 31 && (now - START) % interval == 0;
            run.feed(&all.iter().filter(speaks).map(|name| reading(name, 230.0, now)).collect::<Vec<_>>());
        }
        assert_eq!(run.views.open().count(), expected, "{:#?}", run.views.outages);
        assert!(
            run.views
                .open()
                .all(|row| &*row.area == "mv1/lv0/c0" && row.confidence <= 0.5 && row.n_gasps == 0)
        );
        run.engine.shutdown().unwrap();
    }
}

#[test]
fn one_meter_is_named_by_its_hardware_id() {
    let district = district(SMALL, 1);
    let mut run = Run::start(config(Some(&district.grid()), 2), Vec::new(), Blocks::default());
    let all = customers(&district, "-lv");
    for minute in 0..8 {
        let now = START + minute * MINUTE;
        let speaks = |name: &&String| **name != "C-lv0-c0-1" || minute < 3;
        let mut messages: Vec<Logged> = all.iter().filter(speaks).map(|name| reading(name, 230.0, now)).collect();
        if minute == 3 {
            messages.push(gasp("C-lv0-c0-1", now, now));
        }
        run.feed(&messages);
    }
    let row = run.views.only();
    // its branch feeds nobody else
    assert!(
        row.device.starts_with("branch-") && row.alternatives.contains(&"C-lv0-c0-1".to_owned()),
        "{row:?}"
    );
    run.engine.shutdown().unwrap();
}

#[test]
fn a_grid_can_come_be_replaced_and_go_while_the_engine_runs() {
    let first = district(SMALL, 13);
    let mut run = Run::start(config(None, 2), Vec::new(), Blocks::default());
    run.feed(&beat(START));
    run.engine.set_grid(&tenant(), Some(first.grid())).unwrap();
    let dark = customers(&first, "-lv0-c1");
    run.feed(
        &dark
            .iter()
            .map(|name| gasp(name, START + SECOND, START + 2 * SECOND))
            .collect::<Vec<_>>(),
    );
    run.feed(&beat(START + 4 * SECOND));
    let row = run.views.only().clone();
    assert_eq!((row.n_customers, &*row.area), (3, "mv1/lv0/c1"));
    // another grid with the same meters, and fewer others: the outage stays with them
    let second = district(Size { n_lv: 2, ..SMALL }, 13).grid();
    run.engine.set_grid(&tenant(), Some(second.clone())).unwrap();
    run.feed(&beat(START + 5 * SECOND));
    assert_eq!(run.views.open().count(), 1, "{:#?}", run.views.outages);
    assert_eq!(run.views.reliability.values().map(|row| row.n_customers).sum::<u64>(), 16);
    // a checkpoint of it, and a start with the first grid again
    let (snapshots, blocks) = (run.engine.snapshot().unwrap(), run.blocks.clone());
    let mut again = Run::start(config(Some(&first.grid()), 3), snapshots, blocks);
    again.feed(&beat(START + 6 * SECOND));
    assert_eq!(again.views.open().count(), 1, "{:#?}", again.views.outages);
    assert_eq!(again.views.reliability.values().map(|row| row.n_customers).sum::<u64>(), 24);
    again.engine.shutdown().unwrap();
    run.engine.set_grid(&tenant(), None).unwrap();
    run.feed(&beat(START + 7 * SECOND));
    assert_eq!(run.views, Views::default());
    run.engine.shutdown().unwrap();
}

#[test]
fn a_grid_that_comes_later_begins_with_what_its_switches_have_said() {
    let grid = district(SMALL, 3).grid();
    let mut run = Run::start(config(None, 2), Vec::new(), Blocks::default());
    run.feed(&[position("SW-mv1", START, false), position("SW-mv1", START - MINUTE, true)]);
    run.feed(&beat(START + SECOND));
    let mut snapshots = run.engine.snapshot().unwrap();
    run.engine.shutdown().unwrap();
    for n_workers in [2, 1, 3] {
        let (sender, closed) = sync_channel(4);
        let mut engine = Engine::start(config(Some(&grid), n_workers), snapshots, sender).unwrap();
        let outcome = closed.recv().unwrap().grid;
        let reported = outcome.switches.iter().filter(|row| row.since.is_some());
        let reported: Vec<(&str, bool)> = reported.map(|row| (row.by.as_str(), row.closed)).collect();
        assert_eq!(reported, [("SW-mv1", false)]);
        let served = outcome.reliability.iter().filter_map(|change| change.new.as_ref());
        assert_eq!(
            served.map(|row| row.n_customers).sum::<u64>(),
            8,
            "two of three streets are switched off"
        );
        assert!(outcome.outages.is_empty());
        snapshots = engine.snapshot().unwrap();
        engine.shutdown().unwrap();
    }
}

#[test]
fn an_outage_of_a_grid_before_this_one_is_closed_and_says_why() {
    let first = district(SMALL, 13);
    // the same places with other meters
    let mut bundle = first.bundle.clone();
    for meter in &mut bundle.meters {
        meter.hardware_id.insert(0, 'N');
    }
    let second = Arc::new(Grid::new(bundle).unwrap());
    let dark = customers(&first, "-lv0-c1");
    let gasps: Vec<Logged> = dark.iter().map(|name| gasp(name, START + SECOND, START + 2 * SECOND)).collect();
    let check = |run: &Run, when: &str| {
        let row = run.views.only();
        assert_eq!((row.closed_because, row.n_customers), (Some("grid_replaced"), 3), "{when}");
        assert_eq!(
            (row.closed_at.unwrap().micros(), &*row.area),
            (START + 4 * SECOND, "mv1/lv0/c1"),
            "{when}"
        );
    };
    let mut run = Run::start(config(Some(&first.grid()), 2), Vec::new(), Blocks::default());
    run.feed(&gasps);
    run.feed(&beat(START + 4 * SECOND));
    assert_eq!(run.views.open().count(), 1);
    let (snapshots, blocks) = (run.engine.snapshot().unwrap(), run.blocks.clone());
    run.engine.set_grid(&tenant(), Some(second.clone())).unwrap();
    run.feed(&beat(START + 5 * SECOND));
    check(&run, "while it runs");
    run.engine.shutdown().unwrap();
    let mut run = Run::start(config(Some(&second), 3), snapshots, blocks);
    run.feed(&beat(START + 5 * SECOND));
    check(&run, "at a start");
    let snapshots = run.engine.snapshot().unwrap();
    let again = Run::start(config(Some(&second), 1), snapshots, run.blocks.clone());
    check(&again, "after that");
    again.engine.shutdown().unwrap();
}

// ---- a storm

/// A hundred substations lose supply at once; half of the gasps are lost, a fifth comes twice. The rest of the district goes on reporting.
#[test]
fn a_storm_of_gasps_loses_none_and_readings_still_flow() {
    let size = Size {
        n_mv: 1,
        n_lv: 104,
        n_concentrators: 20,
        n_customers: 50,
    };
    let district = district(size, 1);
    let grid = district.grid();
    let mut run = Run::start(config(Some(&grid), 2), Vec::new(), Blocks::default());
    let mut rng = Rng::new(5);
    let lv = |name: &str| -> u32 { name["C-lv".len()..].split('-').next().unwrap().parse().unwrap() };
    let (mut gasped, mut messages) = (BTreeSet::new(), Vec::new());
    let (mut live, mut n_dark) = (Vec::new(), 0_u32);
    for name in customers(&district, "-lv") {
        if lv(&name) < 4 {
            live.push(name);
            continue;
        }
        n_dark += 1;
        if rng.one_in(2) {
            continue;
        }
        let event = START + rng.below(10_000_000) as i64;
        let message = gasp(&name, event, event + rng.below(2_000_000) as i64);
        if rng.one_in(5) {
            messages.push(Logged {
                received_at: message.received_at + SECOND,
                ..message.clone()
            });
        }
        messages.push(message);
        gasped.insert(name);
    }
    let (n_gasps, n_repeats) = (gasped.len(), messages.len() - gasped.len());
    assert!(n_gasps + n_repeats >= 50_000);
    messages.sort_by_key(|message| message.received_at);
    let (mut at, mut now) = (0, START);
    let (mut n_accepted, mut n_readings, mut slowest_ms) = (0, 0, 0);
    let mut opened = None;
    let started = Instant::now();
    while at < messages.len() {
        now += SECOND / 5;
        let n = messages[at..].iter().take_while(|message| message.received_at <= now).count();
        let mut epoch = messages[at..at + n].to_vec();
        at += n;
        let readings = live.iter().filter(|_| rng.one_in(300)).map(|name| reading(name, 230.0, now));
        epoch.extend(readings);
        n_readings += epoch.len() - n;
        epoch.extend(beat(now));
        let began = Instant::now();
        n_accepted += run.feed(&epoch);
        slowest_ms = slowest_ms.max(began.elapsed().as_millis());
        opened = opened.or(run.views.open().next().map(|_| now));
    }
    let took = started.elapsed();
    run.feed(&beat(now + SECOND));
    let n_beats = u64::from(N_PARTITIONS) * ((now - START) / (SECOND / 5)) as u64;
    assert_eq!(
        n_accepted,
        (n_gasps + n_readings) as u64 + n_beats,
        "every message is accepted once"
    );
    let row = run.views.only();
    println!(
        "{} gasps and {n_repeats} repeats of {n_dark} dark customers, {n_readings} readings: one outage on {}, {} customers, {} gasps, first told {:.1} s \
         after the failure; {:.1} s in all, slowest epoch {slowest_ms} ms",
        n_gasps,
        row.device,
        row.n_customers,
        row.n_gasps,
        (opened.unwrap() - START) as f64 / 1e6,
        took.as_secs_f64()
    );
    assert_eq!(row.n_gasps as usize, n_gasps, "no gasp is lost");
    // with the houses directly on the feeders, which have meters of their own that were not in the story
    assert_eq!(row.n_customers, n_dark + 100 * 20);
    run.engine.shutdown().unwrap();
}
