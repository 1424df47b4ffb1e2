//! A concentrator that estimates its area itself: what it publishes with its covariance is the area's word to the level above, as if its
//! meters had spoken; it counts once, ages as other readings, and is there again after a restart.
#![allow(clippy::unwrap_used)]

mod district;
mod generator;
mod recording;
mod run;

use std::collections::{BTreeMap, HashMap};

use district::{District, Size, district};
use flexmeter_grid::areas::split;
use flexmeter_grid::bundle::{Meter, Reading, Role};
use flexmeter_grid::estimation::{AREA_BALANCE_SIGMA_RAD, BoundaryEstimate, EstimateOptions, Estimator};
use flexmeter_model::boundary::COVARIANCE;
use flexmeter_model::message::DeviceMessage;
use flexmeter_model::outcome::AreaEstimate;
use flexmeter_model::{EventTime, PublishedBoundary};
use generator::{MINUTE, SECOND};
use recording::{Blocks, Logged, State};
use run::{Run, START, at_once, config, readings};
use serde_json::{Value, json};

const SIZE: Size = Size {
    n_mv: 1,
    n_lv: 2,
    n_concentrators: 2,
    n_customers: 6,
};

/// What the devices at the entrances of a level (3 for concentrators, 2 for substations) make of what the meters below them say, by
/// hardware id.
fn estimated(district: &District, messages: &[Logged], level: usize) -> BTreeMap<String, PublishedBoundary> {
    let readings = readings(messages);
    let readings: HashMap<&str, Reading> = readings.iter().map(|(id, reading)| (id.as_str(), *reading)).collect();
    let bundle = &district.bundle;
    let paths: Vec<&str> = bundle.areas.iter().map(String::as_str).collect();
    let areas = split(&bundle.with_readings(&readings), &paths).unwrap();
    let level_of = |path: &str| path.split('/').count();
    let mut boundaries: BTreeMap<usize, BoundaryEstimate<3>> = BTreeMap::new();
    let mut published = BTreeMap::new();
    // the lowest areas come first
    for (index, area) in areas.iter().enumerate().filter(|(_, area)| level_of(&area.path) >= level) {
        let options = EstimateOptions {
            tolerance_pu: 1e-11,
            balance_sigma_rad: Some(AREA_BALANCE_SIGMA_RAD),
            ..EstimateOptions::default()
        };
        let mut estimator = Estimator::<3, 12>::new(&area.network, options).unwrap();
        for (child, root) in &area.children {
            estimator.set_boundary(&area.network, *root, &boundaries[child]).unwrap();
        }
        estimator.estimate().unwrap();
        let uncertainty = estimator.uncertainty().unwrap();
        let boundary = estimator.boundary(&area.network, &uncertainty, area.root).unwrap();
        if level_of(&area.path) == level {
            let is_there = |meter: &&Meter| meter.node == area.nodes[area.root] && meter.role != Role::Customer;
            let device = bundle.meters.iter().find(is_there).unwrap();
            let u_rated_v = area.network.nodes()[area.root].u_rated_v;
            published.insert(device.hardware_id.clone(), boundary.to_published(u_rated_v));
        }
        boundaries.insert(index, boundary);
    }
    published
}

fn logged(hardware_id: &str, time: i64, boundary: &PublishedBoundary) -> Logged {
    let message = DeviceMessage::boundary(hardware_id, Some(EventTime::from_micros(time)), boundary);
    Logged {
        hardware_id: hardware_id.to_owned(),
        received_at: time,
        payload: serde_json::to_string(&message).unwrap(),
    }
}

/// Whether a device is in the area of a concentrator: it, or one of its customers.
fn is_below_concentrator(hardware_id: &str) -> bool {
    hardware_id.starts_with("K-") || hardware_id.starts_with("C-")
}

/// The same moment with the concentrators' estimates in place of all that is below them.
fn from_concentrators(messages: &[Logged], time: i64, published: &BTreeMap<String, PublishedBoundary>) -> Vec<Logged> {
    let above = messages
        .iter()
        .filter(|message| !is_below_concentrator(&message.hardware_id))
        .cloned();
    above
        .chain(published.iter().map(|(id, boundary)| logged(id, time, boundary)))
        .collect()
}

fn variances_only(boundary: &PublishedBoundary) -> PublishedBoundary {
    let mut boundary = boundary.clone();
    for (row, entries) in boundary.covariance.iter_mut().enumerate() {
        entries
            .iter_mut()
            .enumerate()
            .filter(|(column, _)| *column != row)
            .for_each(|(_, entry)| *entry = 0.0);
    }
    boundary
}

/// Largest differences of two areas: of the voltages and of their standard deviations, per unit, and of the standard deviations of
/// voltages and powers as a share of themselves.
fn differences(a: &AreaEstimate, b: &AreaEstimate) -> [f64; 3] {
    assert_eq!(
        (&a.nodes, a.states.len()),
        (&b.nodes, b.states.len()),
        "{:?} {:?}",
        a.quality,
        b.quality
    );
    let base = |value: f64| {
        if value > 1_000.0 {
            10_000.0 / 3f64.sqrt()
        } else {
            400.0 / 3f64.sqrt()
        }
    };
    let mut worst = [0.0f64; 3];
    for (x, y) in a.states.iter().zip(&b.states) {
        for k in 0..3 {
            let base = base(y.value[0][k]);
            worst[0] = worst[0].max((x.value[0][k] - y.value[0][k]).abs() / base);
            worst[1] = worst[1].max((x.sigma[0][k] - y.sigma[0][k]).abs() / base);
            for quantity in [0, 2, 3] {
                let (x, y) = (x.sigma[quantity][k], y.sigma[quantity][k]);
                // beside what flows, less than a mW is nothing
                worst[2] = worst[2].max((x - y).abs() / y.max(1e-3));
            }
        }
    }
    worst
}

/// Of all areas above the concentrators.
fn upper_differences(a: &State, b: &State) -> [f64; 3] {
    let mut worst = [0.0f64; 3];
    let upper = b.areas.iter().filter(|(path, _)| path.split('/').count() < 3);
    for (path, area) in upper {
        let found = differences(&a.areas[path], area);
        worst = std::array::from_fn(|i| worst[i].max(found[i]));
    }
    worst
}

/// Largest differences of the levels above when the concentrators publish, with all their covariance and with variances only, from when
/// the meters themselves speak.
fn published_or_read(seed: u64, concentrators_measure: bool) -> [[f64; 3]; 2] {
    let mut district = district(SIZE, seed);
    let grid = district.grid();
    let mut messages = district.messages(START);
    messages.retain(|message| concentrators_measure || !message.hardware_id.starts_with("K-"));
    let by_meters = at_once(&grid, &messages);
    let published = estimated(&district, &messages, 3);
    assert_eq!(published.len(), 4);
    let outside = at_once(&grid, &from_concentrators(&messages, START, &published));
    let variances = published.iter().map(|(id, boundary)| (id.clone(), variances_only(boundary)));
    let without = at_once(&grid, &from_concentrators(&messages, START, &variances.collect()));
    // the area itself knows its root, and that it does not know its customers
    let area = &outside.areas["mv1/lv0/c0"];
    assert_eq!((area.quality.problem.as_deref(), area.quality.n_measurements), (None, 1));
    assert!(!area.quality.observable);
    [upper_differences(&outside, &by_meters), upper_differences(&without, &by_meters)]
}

#[test]
fn an_estimate_made_outside_says_to_the_levels_above_what_the_meters_themselves_say() {
    for concentrators_measure in [true, false] {
        let mut worst = [[0.0f64; 3]; 2];
        for seed in 0..4 {
            let found = published_or_read(seed, concentrators_measure);
            (0..2).for_each(|i| (0..3).for_each(|j| worst[i][j] = worst[i][j].max(found[i][j])));
        }
        let [[voltage, sigma, share], [lost, lost_sigma, lost_share]] = worst;
        println!(
            "concentrators measure {concentrators_measure}: outside differs by {voltage:.1e} p.u., sigmas {sigma:.1e} p.u. or {share:.1e} \
             of themselves; with variances only {lost:.1e}, {lost_sigma:.1e}, {lost_share:.1e}"
        );
        assert!(voltage < 1e-6 && sigma < 1e-6, "{voltage:e} {sigma:e}");
        // a meter at the root measures nearly all that there is to say, and its errors have nothing to do with each other
        assert!(concentrators_measure || lost > 1.2 * voltage, "cross terms matter: {lost:e}");
    }
}

#[test]
fn what_meters_and_their_concentrator_both_say_counts_once() {
    let mut district = district(SIZE, 7);
    let grid = district.grid();
    let messages = district.messages(START);
    let published = estimated(&district, &messages, 3);
    let outside = at_once(&grid, &from_concentrators(&messages, START, &published));
    // the customers speak, too, before and after; the concentrators' own readings have come a moment earlier
    let mut both: Vec<Logged> = messages
        .iter()
        .filter(|message| message.hardware_id.starts_with("C-"))
        .cloned()
        .collect();
    let later = both.split_off(both.len() / 2);
    both.extend(messages.iter().filter(|message| message.hardware_id.starts_with("K-")).cloned());
    both.extend(from_concentrators(&messages, START + SECOND, &published));
    both.extend(later);
    let state = at_once(&grid, &both);
    let [voltage, sigma, share] = upper_differences(&state, &outside);
    assert!(voltage < 1e-9 && sigma < 1e-9 && share < 1e-6, "{voltage:e} {sigma:e} {share:e}");
    // within the area the readings are all there is: their estimate is no reading beside them
    let by_meters = at_once(&grid, &messages);
    for path in ["mv1/lv0/c0", "mv1/lv1/c1"] {
        let [voltage, sigma, _] = differences(&state.areas[path], &by_meters.areas[path]);
        assert!(voltage < 1e-6 && sigma < 1e-6, "{path}: {voltage:e} {sigma:e}");
    }
}

#[test]
fn a_substation_may_publish_for_all_that_is_below_it() {
    for substations_measure in [true, false] {
        let mut district = district(SIZE, 8);
        let grid = district.grid();
        let mut messages = district.messages(START);
        messages.retain(|message| substations_measure || !message.hardware_id.starts_with("S-"));
        let by_meters = at_once(&grid, &messages);
        let published = estimated(&district, &messages, 2);
        assert_eq!(published.len(), 2);
        let found = [false, true].map(|without| {
            let estimates = published.iter().map(|(id, boundary)| match without {
                true => logged(id, START, &variances_only(boundary)),
                false => logged(id, START, boundary),
            });
            let top_only = messages.iter().filter(|message| message.hardware_id.starts_with("F-")).cloned();
            let state = at_once(&grid, &top_only.chain(estimates).collect::<Vec<_>>());
            differences(&state.areas["mv1"], &by_meters.areas["mv1"])
        });
        let [[voltage, sigma, share], [lost, lost_sigma, lost_share]] = found;
        println!(
            "substations measure {substations_measure}: outside differs by {voltage:.1e} p.u., sigmas {sigma:.1e} p.u. or {share:.1e} of \
             themselves; with variances only {lost:.1e}, {lost_sigma:.1e}, {lost_share:.1e}"
        );
        assert!(voltage < 1e-6 && sigma < 1e-6, "{voltage:e} {sigma:e}");
        assert!(lost > 1.2 * voltage, "cross terms matter: {lost:e}");
    }
}

#[test]
fn a_covariance_that_cannot_be_is_rejected_by_name_and_its_measurements_are_ordinary_readings() {
    let mut district = district(SIZE, 9);
    let grid = district.grid();
    let messages = district.messages(START);
    let published = estimated(&district, &messages, 3);
    let with = |change: &dyn Fn(&mut Value)| -> Vec<Logged> {
        let mut log = from_concentrators(&messages, START, &published);
        for message in log.iter_mut().filter(|message| message.hardware_id.starts_with("K-")) {
            let mut payload: Value = serde_json::from_str(&message.payload).unwrap();
            change(&mut payload["request"]);
            message.payload = payload.to_string();
        }
        log
    };
    let plain = at_once(&grid, &with(&|request| drop(request.as_object_mut().unwrap().remove("metadata"))));
    let mut run = Run::start(config(&grid, 2), Vec::new(), Blocks::default());
    run.feed(&with(&|request| {
        // more than all of a voltage is explained by another
        let text = request["metadata"][COVARIANCE].as_str().unwrap();
        let mut entries: Vec<&str> = text.split(',').collect();
        entries[1] = "1e6";
        request["metadata"][COVARIANCE] = json!(entries.join(","));
    }));
    let found: Vec<(&str, &str)> = run
        .rejections
        .iter()
        .map(|row| (row.hardware_id.as_ref().unwrap().as_str(), row.reason.as_str()))
        .collect();
    let mut expected: Vec<(&str, &str)> = published.keys().map(|id| (id.as_str(), "out_of_range")).collect();
    expected.sort_unstable();
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    for row in &run.rejections {
        assert!(
            row.detail
                .starts_with("covariance: is not positive definite: electricity.voltage.rms.l2"),
            "{}",
            row.detail
        );
    }
    assert!(run.state.distance(&plain) < 1e-12);
    run.engine.shutdown().unwrap();
}

#[test]
fn nobody_but_a_device_at_an_entrance_speaks_for_an_area() {
    let mut district = district(SIZE, 10);
    let grid = district.grid();
    let mut messages = district.messages(START);
    let expected = at_once(&grid, &messages);
    let of = readings(&messages);
    let customer = messages.iter_mut().find(|message| message.hardware_id == "H-lv0-0").unwrap();
    let reading = of["H-lv0-0"];
    let boundary = PublishedBoundary {
        voltage_v: reading.u_v,
        active_w: reading.p_w,
        reactive_var: reading.q_var,
        covariance: std::array::from_fn(|i| std::array::from_fn(|j| if i == j { 1e4 } else { 0.0 })),
    };
    *customer = logged("H-lv0-0", START, &boundary);
    let found = at_once(&grid, &messages);
    assert!(found.distance(&expected) < 1e-9);
}

#[test]
fn a_stale_estimate_gives_way_to_the_meters_and_loses_weight_without_them() {
    let mut district = district(SIZE, 11);
    let grid = district.grid();
    let first = district.messages(START);
    let published = estimated(&district, &first, 3);
    (0..district.n_loads()).for_each(|load| district.change_load(load));
    let second = district.messages(START + MINUTE);
    let mut run = Run::start(config(&grid, 2), Vec::new(), Blocks::default());
    run.feed(&from_concentrators(&first, START, &published));
    // the meters speak of the next minute: theirs is the estimate
    run.feed(&second);
    let own = at_once(&grid, &second);
    let [voltage, sigma, _] = upper_differences(&run.state, &own);
    assert!(voltage < 1e-9 && sigma < 1e-9, "{voltage:e} {sigma:e}");
    // an estimate of the minute before comes late, and is no news
    run.feed(&[logged("K-lv0-c0", START + SECOND, &published["K-lv0-c0"])]);
    let [voltage, ..] = upper_differences(&run.state, &own);
    assert!(voltage < 1e-9, "{voltage:e}");
    run.engine.shutdown().unwrap();

    // without meters it is used as long as a flow says something, and counts less and less
    let mut run = Run::start(config(&grid, 2), Vec::new(), Blocks::default());
    run.feed(&from_concentrators(&first, START, &published));
    let width = |run: &Run| {
        run.state.areas["mv1/lv0"]
            .states
            .iter()
            .map(|state| state.sigma[0][0])
            .fold(0.0, f64::max)
    };
    let mut widths = vec![width(&run)];
    for minute in 1..=12 {
        let mut messages = district.messages(START + minute * MINUTE);
        messages.retain(|message| !is_below_concentrator(&message.hardware_id));
        run.feed(&messages);
        widths.push(width(&run));
        assert_eq!(run.state.areas["mv1/lv0"].quality.problem, None);
    }
    assert!(widths[1] > 1.01 * widths[0] && widths[5] > widths[1], "{widths:?}");
    // beyond ten minutes it is as if it had never come
    let mut never = Run::start(config(&grid, 2), Vec::new(), Blocks::default());
    let last = district.messages(START + 13 * MINUTE);
    let without: Vec<Logged> = last
        .iter()
        .filter(|message| !is_below_concentrator(&message.hardware_id))
        .cloned()
        .collect();
    run.feed(&without);
    never.feed(&without);
    let [voltage, ..] = upper_differences(&run.state, &never.state);
    assert!(voltage < 1e-3, "{voltage:e}");
    never.engine.shutdown().unwrap();
    run.engine.shutdown().unwrap();
}

/// Some minutes in which concentrators publish, or their meters speak, or both, or neither; early, late and twice.
fn story(district: &mut District, seed: u64, n_minutes: i64) -> Vec<Logged> {
    let mut rng = generator::Rng::new(seed);
    let (mut log, mut late): (Vec<Logged>, Vec<Logged>) = (Vec::new(), Vec::new());
    for minute in 0..n_minutes {
        let now = START + minute * MINUTE;
        (0..3).for_each(|_| district.change_load(rng.below(district.n_loads() as u64) as usize));
        let messages = district.messages(now);
        let published = estimated(district, &messages, 3);
        let choices: BTreeMap<&str, u64> = published.keys().map(|id| (id.as_str(), rng.below(4))).collect();
        for message in &messages {
            let area = message.hardware_id.split('-').skip(1).take(2).collect::<Vec<_>>().join("-");
            let speaks = match choices
                .get(format!("K-{area}").as_str())
                .filter(|_| is_below_concentrator(&message.hardware_id))
            {
                Some(choice) => *choice < 2,
                None => true,
            };
            if speaks && !rng.one_in(10) {
                log.push(message.clone());
            }
        }
        for (id, boundary) in published.iter().filter(|(id, _)| (1..3).contains(&choices[id.as_str()])) {
            let mut message = logged(id, now + SECOND, boundary);
            match rng.below(6) {
                0 => {
                    message.received_at += 2 * MINUTE;
                    late.push(message);
                }
                1 => log.extend([message.clone(), message]),
                _ => log.push(message),
            }
        }
        let (arrived, waiting) = late.into_iter().partition(|message| message.received_at <= now + 30 * SECOND);
        late = waiting;
        log.extend::<Vec<Logged>>(arrived);
    }
    log
}

#[test]
fn a_restart_and_another_number_of_workers_keep_what_was_published() {
    let mut district = district(SIZE, 12);
    let grid = district.grid();
    let log = story(&mut district, 13, 8);
    let half = log.len() / 2;
    let mut whole = Run::start(config(&grid, 2), Vec::new(), Blocks::default());
    log.chunks(20).for_each(|messages| {
        whole.feed(messages);
    });
    let at_end = at_once(&grid, &log);
    assert!(whole.state.distance(&at_end) < 1e-7, "{:e}", whole.state.distance(&at_end));
    let mut first = Run::start(config(&grid, 1), Vec::new(), Blocks::default());
    log[..half].chunks(20).for_each(|messages| {
        first.feed(messages);
    });
    let snapshots = first.engine.snapshot().unwrap();
    let at_half = first.state.clone();
    // what comes after the checkpoint is lost with the process, and comes again
    first.feed(&log[half..half + 10]);
    drop(first);
    for n_workers in [1, 2, 3] {
        let mut second = Run::start(config(&grid, n_workers), snapshots.clone(), Blocks::until(&log[..half]));
        let distance = second.state.distance(&at_half);
        assert!(distance < 1e-7, "epoch 0 says what was said before: {distance:e}");
        log[half..].chunks(15).for_each(|messages| {
            second.feed(messages);
        });
        let distance = second.state.distance(&whole.state);
        println!("{n_workers} workers after a restart: {distance:.1e}");
        assert!(distance < 1e-9, "{distance:e}");
        second.engine.shutdown().unwrap();
    }
    whole.engine.shutdown().unwrap();
}
