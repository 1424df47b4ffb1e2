//! Outages over whole recordings and storms: the right device, in time, and nothing from false alarms.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use flexmeter_grid::bundle::Role;
use flexmeter_grid::outage::simulation::{GridShape, Random, RandomGrid, STORM_START_US, Score, Storm, StormShape};
use flexmeter_grid::outage::{
    Change, CloseReason, Device, Fact, MeteringPoint, Micros, MonitorSettings, Outage, OutageId, OutageMonitor, SECOND_US, Sections,
    SupplyMap,
};
use serde_json::Value;

mod recording;

/// The view of outages as its changes leave it.
#[derive(Default)]
struct View {
    rows: BTreeMap<OutageId, Outage>,
    n_interruptions: i64,
}

impl View {
    fn take(&mut self, monitor: &mut OutageMonitor) -> Vec<Outage> {
        let mut news = Vec::new();
        for change in monitor.take_changes() {
            match change {
                Change::Outage(row, -1) => assert_eq!(self.rows.remove(&row.id), Some(row), "what disappears was there"),
                Change::Outage(row, _) => {
                    news.push(row.clone());
                    assert_eq!(self.rows.insert(row.id, row), None, "one row an outage");
                }
                Change::Interruption(_, difference) => self.n_interruptions += difference,
            }
        }
        news
    }

    fn open(&self) -> impl Iterator<Item = &Outage> {
        self.rows.values().filter(|row| row.closed_at_us.is_none())
    }
}

/// Microseconds of an ISO 8601 time of one day with a zone of whole hours, as the recordings have them.
fn micros(text: &str) -> Option<Micros> {
    // dates that are none are part of the recording
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (day, hour) = (number(8, 10)?, number(11, 13)?);
    if !text.starts_with("2026-11-1") || text.get(10..11) != Some("T") || hour > 23 {
        return None;
    }
    let seconds = ((day * 24 + hour) * 60 + number(14, 16)?) * 60 + number(17, 19)?;
    let ms = if text.get(19..20) == Some(".") { number(20, 23)? } else { 0 };
    Some((seconds * 1_000 + ms) * 1_000)
}

/// The log beats when nothing else comes.
const HEARTBEAT_US: Micros = SECOND_US / 2;

struct Recording {
    supply: Vec<(Micros, SupplyMap)>,
    /// Log time, point, fact.
    facts: Vec<(Micros, u32, Fact)>,
    same_customers: Vec<Device>,
    gasps_at: Vec<Micros>,
    first_at: Micros,
    last_restored_at: Micros,
}

/// Reads a recording; a message's log time is the latest event time so far, as it arrives in order.
fn recording(folder: &Path) -> Recording {
    let mut bundle = recording::bundle(folder);
    let points: Vec<MeteringPoint> = bundle
        .meters
        .iter()
        .enumerate()
        .map(|(index, meter)| MeteringPoint {
            point: index as u32,
            node: bundle.network.nodes()[meter.node].id,
            n_customers: u32::from(meter.role == Role::Customer),
            sends_gasps: meter.role == Role::Customer,
            reading_interval_us: Some(60 * SECOND_US),
        })
        .collect();
    let point_of: HashMap<String, u32> = bundle
        .meters
        .iter()
        .zip(0..)
        .map(|(meter, index)| (meter.hardware_id.clone(), index))
        .collect();
    let branch_of: HashMap<String, i64> = bundle
        .switches
        .iter()
        .map(|switch| (switch.hardware_id.clone(), bundle.network.branches()[switch.branch].id))
        .collect();
    let mut supply = vec![(Micros::MIN, SupplyMap::of_network(&bundle.network))];
    let mut facts = Vec::new();
    let mut log_time = Micros::MIN;
    for line in recording::gunzip(folder, "messages.jsonl.gz").lines() {
        // broken lines are part of the recording
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let request = &message["request"];
        let (Some(id), Some(at)) = (message["hardwareId"].as_str(), request["eventDate"].as_str().and_then(micros)) else {
            continue;
        };
        log_time = log_time.max(at);
        if request["type"] == "switch.position" {
            let closed = u8::from(request["metadata"]["position"] == "closed");
            let rows = serde_json::json!({"line": [{"id": branch_of[id], "from_status": closed, "to_status": closed}]});
            let update = serde_json::json!({"type": "update", "data": rows}).to_string();
            let update = flexmeter_grid::pgm::Dataset::from_json(&update, flexmeter_grid::pgm::DatasetKind::Update).unwrap();
            bundle.network.update(&update, 0).unwrap();
            supply.push((log_time, SupplyMap::of_network(&bundle.network)));
        }
        let Some(&point) = point_of.get(id) else { continue };
        let fact = match request["type"].as_str() {
            Some("power.lastgasp") => Fact::Gasp(at),
            Some("power.restored") => Fact::Restored(at),
            _ => Fact::Alive(at),
        };
        facts.push((log_time, point, fact));
    }
    for (_, map) in &mut supply {
        map.points = points.clone();
    }
    let events = recording::text(folder, "events.csv");
    let events: Vec<Vec<&str>> = events.lines().skip(1).map(|line| line.splitn(6, ',').collect()).collect();
    let times = |kind: &str| -> Vec<Micros> { events.iter().filter(|e| e[1] == kind).filter_map(|e| micros(e[0])).collect() };
    let start = events.iter().find(|e| e[1] == "outage_start").unwrap();
    let same = start[5].split("same_customers=").nth(1).unwrap();
    Recording {
        supply,
        facts,
        same_customers: same.split_whitespace().map(|id| Device::Branch(id.parse().unwrap())).collect(),
        gasps_at: times("gasp"),
        first_at: times("outage_start")[0],
        last_restored_at: times("restored").into_iter().max().unwrap(),
    }
}

/// Plays a recording; gives every row that ever appeared, with the log time at which it did, and the view at the end.
fn play(recording: &Recording) -> (Vec<(Micros, Outage)>, View) {
    let mut monitor = OutageMonitor::new(MonitorSettings::default()).unwrap();
    let (mut view, mut told) = (View::default(), Vec::new());
    let mut supply = recording.supply.iter().peekable();
    let mut last = recording.facts[0].0;
    for &(log_time, point, fact) in &recording.facts {
        // the log's heartbeats
        while last + HEARTBEAT_US < log_time {
            last += HEARTBEAT_US;
            monitor.advance(last);
            told.extend(view.take(&mut monitor).into_iter().map(|row| (last, row)));
        }
        last = log_time;
        while let Some((at, map)) = supply.next_if(|(at, _)| *at <= log_time) {
            monitor.set_supply(map, (*at).max(recording.facts[0].0)).unwrap();
        }
        monitor.apply(point, fact, log_time, 1);
        told.extend(view.take(&mut monitor).into_iter().map(|row| (log_time, row)));
    }
    let end = recording.facts.last().unwrap().0 + SECOND_US;
    monitor.advance(end);
    told.extend(view.take(&mut monitor).into_iter().map(|row| (end, row)));
    (told, view)
}

/// The outage opens within a second of the third gasp, on the right device within a second of the gasp that pins it.
fn check_recording(name: &str, test: &str, pinned_by: usize) {
    let Some(folder) = recording::folder("../..", name, test) else {
        return;
    };
    let recording = recording(&folder);
    let (told, view) = play(&recording);
    for (at, row) in &told {
        println!(
            "{:8.3} s after the failure: {} customers, {} out, {} gasps, {} ppm, {}, closed {:?}",
            (at - recording.first_at) as f64 / 1e6,
            row.n_customers,
            row.n_customers_out,
            row.n_gasps,
            row.confidence_ppm,
            row.device,
            row.closed_because
        );
    }
    let (opened, _) = told.first().unwrap();
    let opened_after_us = opened - recording.gasps_at[2];
    assert!(opened_after_us <= SECOND_US, "opened {opened_after_us} us after the third gasp");
    let right = told.iter().find(|(_, row)| recording.same_customers.contains(&row.device)).unwrap();
    let found_after_us = right.0 - recording.gasps_at[pinned_by - 1];
    println!("{name}: opened {opened_after_us} us after the third gasp, right device {found_after_us} us after gasp {pinned_by}");
    assert!(found_after_us <= SECOND_US);
    // one outage, the right one, over when the last meter is back
    assert_eq!(view.rows.len(), 1, "{:?}", view.rows);
    let row = view.rows.values().next().unwrap();
    assert!(recording.same_customers.contains(&row.device));
    assert_eq!(row.closed_because, Some(CloseReason::Restored));
    assert!((row.opened_at_us - recording.first_at).abs() < 30 * SECOND_US);
    assert!(
        (row.closed_at_us.unwrap() - recording.last_restored_at).abs() < 30 * SECOND_US,
        "{row:?}"
    );
}

#[test]
fn the_outage_of_the_district_is_found_at_the_third_gasp_and_closed_at_restoration() {
    let test = "the_outage_of_the_district_is_found_at_the_third_gasp_and_closed_at_restoration";
    check_recording("district-small", test, 3);
}

/// The first three gasps come from a part of the dark customers that has a device of its own: until the seventh gasp, that
/// device is the lowest that explains all.
#[test]
fn the_outage_of_the_european_feeder_is_opened_at_the_third_gasp_and_pinned_by_the_seventh() {
    let test = "the_outage_of_the_european_feeder_is_opened_at_the_third_gasp_and_pinned_by_the_seventh";
    check_recording("european-lv", test, 7);
}

struct Measured {
    early: Score,
    settled: Score,
}

/// Plays storms over random grids; scores the open outages when the gasps have arrived and when the readings have.
fn storms(lost_per_mille: u64, n_storms: u64) -> Measured {
    let mut measured = Measured {
        early: Score::default(),
        settled: Score::default(),
    };
    for seed in 0..n_storms {
        let mut random = Random::new(seed * 1_000 + lost_per_mille);
        let shape = GridShape {
            n_transformers: 20,
            n_customers: 30,
            reading_interval_us: 60 * SECOND_US,
        };
        let grid = RandomGrid::draw(&shape, &mut random);
        let sections = Sections::new(&grid.map).unwrap();
        let storm = StormShape {
            lost_per_mille,
            readings_after_us: 180 * SECOND_US,
            ..StormShape::default()
        };
        let gasps_end = STORM_START_US + storm.failures_within_us + storm.gasp_delay_us_max + storm.transport_us_max;
        let storm = Storm::draw(&grid, &sections, &storm, (3, 300), &mut random);
        let mut monitor = OutageMonitor::new(MonitorSettings::default()).unwrap();
        monitor.set_supply(&grid.map, STORM_START_US - 60 * SECOND_US).unwrap();
        let mut view = View::default();
        let mut is_early = true;
        let blamed = |view: &View| -> Vec<Device> { view.open().filter(|row| row.n_customers > 1).map(|row| row.device).collect() };
        for arrival in &storm.arrivals {
            if is_early && arrival.log_us > gasps_end {
                is_early = false;
                monitor.advance(arrival.log_us);
                view.take(&mut monitor);
                measured.early += Score::of(&storm.failures, &blamed(&view));
            }
            monitor.apply(arrival.point, arrival.fact, arrival.log_us, 1);
        }
        monitor.advance(storm.end_us + SECOND_US);
        view.take(&mut monitor);
        measured.settled += Score::of(&storm.failures, &blamed(&view));
    }
    measured
}

#[test]
fn devices_are_found_whatever_share_of_the_gasps_is_lost() {
    for lost_per_mille in [0, 300, 500, 800] {
        let Measured { early, settled } = storms(lost_per_mille, 60);
        println!(
            "{lost_per_mille} per mille lost: precision {:.3} recall {:.3} when the gasps have arrived; {:.3} {:.3} when the readings have",
            early.precision(),
            early.recall(),
            settled.precision(),
            settled.recall()
        );
        assert!(
            settled.precision() >= 0.95 && settled.recall() >= 0.95,
            "{lost_per_mille}: {settled:?}"
        );
    }
}
