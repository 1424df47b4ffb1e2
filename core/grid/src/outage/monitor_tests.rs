use super::super::record::{Interruption, Outage, OutageId};
use super::super::sections::Device;
use super::super::simulation::Random;
use super::super::state::MonitorState;
use super::super::supply::GridBranch;
use super::*;

const MINUTE_US: Micros = 60 * SECOND_US;

/// A grid, its monitor and the views as the changes leave them.
///
/// ```text
/// 0 ─101─ 1 ─102─ 2 (points 0..10)     6 ─107─ 7: the tie from 3 to 5, open
///         ├─103─ 3 (points 10..20)
///         └─104─ 4 ─105─ 5 (points 20..30)
/// ```
struct Case {
    monitor: OutageMonitor,
    branches: Vec<GridBranch>,
    now: Micros,
    outages: BTreeMap<OutageId, Outage>,
    interruptions: BTreeMap<Interruption, i64>,
    facts: Vec<(PointId, Fact, Micros)>,
}

impl Case {
    fn new() -> Self {
        let branch = |branch, from, to| GridBranch {
            branch,
            from,
            to,
            is_closed: branch != 107,
        };
        let mut case = Self {
            monitor: OutageMonitor::new(MonitorSettings::default()).unwrap(),
            branches: vec![
                branch(101, 0, 1),
                branch(102, 1, 2),
                branch(103, 1, 3),
                branch(104, 1, 4),
                branch(105, 4, 5),
                branch(107, 3, 5),
            ],
            now: 1_000 * MINUTE_US,
            outages: BTreeMap::new(),
            interruptions: BTreeMap::new(),
            facts: Vec::new(),
        };
        case.supply();
        case.readings(0..30, 2);
        case
    }

    fn supply(&mut self) {
        self.supply_of(0..30);
    }

    fn supply_of(&mut self, points: std::ops::Range<PointId>) {
        let mut map = SupplyMap::trace(&self.branches, &[0]);
        map.points = points
            .map(|point| MeteringPoint {
                point,
                node: [2, 3, 5][point as usize / 10],
                n_customers: 1,
                sends_gasps: true,
                reading_interval_us: Some(MINUTE_US),
            })
            .collect();
        map.unmetered = vec![(2, 4)];
        self.monitor.set_supply(&map, self.now).unwrap();
    }

    fn switch(&mut self, branch: i64, is_closed: bool) {
        let found = self.branches.iter_mut().find(|other| other.branch == branch).unwrap();
        found.is_closed = is_closed;
        self.supply();
        self.pass(SECOND_US);
    }

    fn say(&mut self, point: PointId, fact: Fact) {
        self.facts.push((point, fact, self.now));
        self.monitor.apply(point, fact, self.now, 1);
    }

    /// Gasps a second apart, starting now.
    fn gasps(&mut self, points: impl IntoIterator<Item = PointId>) {
        for point in points {
            self.pass(SECOND_US);
            self.say(point, Fact::Gasp(self.now));
        }
        self.pass(SECOND_US);
    }

    fn restored(&mut self, points: impl IntoIterator<Item = PointId>) {
        for point in points {
            self.pass(SECOND_US);
            self.say(point, Fact::Restored(self.now));
        }
        self.pass(SECOND_US);
    }

    /// As many rounds of readings of some points, a minute each.
    fn readings(&mut self, points: std::ops::Range<PointId>, n: usize) {
        for _ in 0..n {
            self.pass(MINUTE_US - SECOND_US);
            points.clone().for_each(|point| self.say(point, Fact::Alive(self.now)));
            self.pass(SECOND_US);
        }
    }

    fn pass(&mut self, duration_us: Micros) {
        self.now += duration_us;
        self.monitor.advance(self.now);
        self.take();
    }

    fn take(&mut self) {
        for change in self.monitor.take_changes() {
            match change {
                Change::Outage(row, -1) => assert_eq!(self.outages.remove(&row.id), Some(row)),
                Change::Outage(row, _) => assert_eq!(self.outages.insert(row.id, row), None),
                Change::Interruption(interruption, difference) => {
                    *self.interruptions.entry(interruption).or_default() += difference;
                    self.interruptions.retain(|_, n| *n != 0);
                }
            }
        }
    }

    /// Open outages: device, customers without supply.
    #[track_caller]
    fn expect(&self, expected: &[(Device, u32)]) {
        let mut open: Vec<(Device, u32)> = self
            .outages
            .values()
            .filter(|row| row.closed_at_us.is_none())
            .map(|row| (row.device, row.n_customers_out))
            .collect();
        open.sort_unstable();
        assert_eq!(open, expected, "{:#?}", self.outages);
    }

    fn only(&self) -> &Outage {
        assert_eq!(self.outages.len(), 1, "{:#?}", self.outages);
        self.outages.values().next().unwrap()
    }
}

fn branch(id: i64) -> Device {
    Device::Branch(id)
}

#[test]
fn an_outage_opens_at_the_third_gasp_and_ends_when_all_are_back() {
    let mut case = Case::new();
    let start = case.now;
    case.gasps([3, 4]);
    case.expect(&[]);
    case.gasps([7]);
    case.expect(&[(branch(102), 14)]);
    case.gasps([1, 2]);
    case.readings(10..30, 12);
    case.expect(&[(branch(102), 14)]);
    case.restored(0..10);
    let row = case.only().clone();
    assert_eq!(
        (row.closed_because, row.n_customers, row.n_gasps),
        (Some(CloseReason::Restored), 14, 5)
    );
    assert_eq!((row.opened_at_us, row.feeder), (start + SECOND_US, Some(101)));
    assert_eq!(row.closed_at_us, Some(case.now - SECOND_US));
    let total: u32 = case.interruptions.keys().map(|interruption| interruption.n_customers).sum();
    assert_eq!((case.interruptions.len(), total), (11, 14));
    let first = case.interruptions.keys().map(|interruption| interruption.end_us).min();
    assert_eq!(first, Some(case.now - 10 * SECOND_US), "each is back when it says so");
}

#[test]
fn one_gasp_is_an_outage_of_one_only_when_its_readings_are_missed() {
    let mut case = Case::new();
    case.gasps([3]);
    case.readings(0..30, 1);
    case.expect(&[]);
    case.gasps([3]);
    case.readings(4..30, 1);
    case.expect(&[]);
    case.readings(4..30, 2);
    assert!(
        case.outages
            .values()
            .all(|row| row.closed_at_us.is_some() || row.device == Device::Point(3))
    );
    case.expect(&[(Device::Point(3), 1)]);
    case.readings(0..30, 1);
    case.expect(&[]);
}

#[test]
fn repeats_and_late_gasps_change_the_beginning_and_nothing_else() {
    let mut case = Case::new();
    case.gasps([3, 4, 7]);
    let id = case.only().id;
    let opened_at = case.only().opened_at_us;
    case.gasps([3, 4, 7]);
    assert_eq!((case.only().id, case.only().n_gasps), (id, 3));
    case.say(8, Fact::Gasp(opened_at - SECOND_US / 2));
    case.pass(SECOND_US);
    assert_eq!((case.only().id, case.only().opened_at_us), (id, opened_at - SECOND_US / 2));
    // a gasp that was long in coming is no news
    case.restored(0..10);
    assert!(case.only().closed_at_us.is_some());
    case.say(9, Fact::Gasp(opened_at + SECOND_US));
    case.pass(MINUTE_US);
    case.expect(&[]);
    assert_eq!(case.only().n_gasps, 5, "but it is counted");
}

#[test]
fn two_failures_are_two_outages_and_one_above_them_is_one() {
    let mut case = Case::new();
    case.gasps([1, 11, 2, 12, 3, 13, 4, 14, 5]);
    case.readings(20..30, 1);
    case.expect(&[(branch(102), 14), (branch(103), 10)]);
    let mut case = Case::new();
    case.gasps([1, 11, 2, 12, 3, 13, 21, 22, 23, 24]);
    case.expect(&[(branch(101), 34)]);
}

#[test]
fn what_comes_back_in_part_shrinks_and_keeps_its_name() {
    let mut case = Case::new();
    case.gasps([1, 11, 21, 2, 12, 22, 3, 13, 23]);
    case.expect(&[(branch(101), 34)]);
    let id = case.outages.values().find(|row| row.closed_at_us.is_none()).unwrap().id;
    case.readings(0..0, 3);
    case.restored(10..30);
    case.expect(&[(branch(101), 14)]);
    case.readings(10..30, 3);
    case.expect(&[(branch(102), 14)]);
    assert!(case.outages[&id].closed_at_us.is_none());
    case.restored(0..10);
    case.expect(&[]);
    assert_eq!(case.outages[&id].n_customers, 34);
    assert_eq!(case.interruptions.keys().map(|i| i.n_customers).sum::<u32>(), 34);
}

#[test]
fn a_failure_below_an_outage_that_is_repaired_later_goes_on() {
    let mut case = Case::new();
    case.gasps([1, 2, 3, 4]);
    case.readings(10..30, 10);
    case.gasps([11, 21, 12, 22, 13, 23]);
    let above = case.outages.values().filter(|row| row.device == branch(101)).count();
    assert_eq!((case.outages.len(), above), (2, 1), "{:#?}", case.outages);
    case.readings(0..0, 3);
    case.restored(10..30);
    case.readings(10..30, 3);
    case.expect(&[(branch(102), 14)]);
}

#[test]
fn an_open_switch_is_no_outage() {
    let mut case = Case::new();
    case.switch(102, false);
    case.gasps(0..10);
    case.readings(10..30, 5);
    case.expect(&[]);
    assert!(case.outages.is_empty());
    // nor is it one when they have supply again and the gasps are still there
    case.switch(102, true);
    case.pass(MINUTE_US);
    case.expect(&[]);
    case.readings(0..30, 5);
    assert!(case.outages.is_empty());
}

#[test]
fn a_switch_that_reports_after_its_customers_takes_the_outage_back() {
    let mut case = Case::new();
    case.gasps([1, 2, 3]);
    case.expect(&[(branch(102), 14)]);
    case.switch(102, false);
    case.expect(&[]);
    assert_eq!(case.only().closed_because, Some(CloseReason::Switched));
    assert!(case.interruptions.is_empty());
}

#[test]
fn a_fault_that_is_cut_out_by_switches_stays_an_outage_until_its_customers_are_back() {
    let mut case = Case::new();
    case.gasps([21, 22, 23, 24]);
    case.readings(0..20, 5);
    case.switch(105, false);
    case.readings(0..20, 5);
    let row = case.outages.values().find(|row| row.closed_at_us.is_none()).unwrap().clone();
    assert_eq!(row.n_customers_out, 10);
    // supplied over the tie
    case.switch(107, true);
    case.restored(20..30);
    case.readings(0..30, 4);
    case.expect(&[]);
    assert_eq!(case.outages[&row.id].closed_because, Some(CloseReason::Restored));
}

#[test]
fn customers_on_another_feeder_are_judged_there() {
    let mut case = Case::new();
    case.switch(107, true);
    case.switch(105, false);
    case.readings(0..30, 1);
    case.gasps([11, 21, 12, 22, 13, 23]);
    case.expect(&[(branch(103), 20)]);
}

#[test]
fn silence_under_one_device_is_an_outage_and_silence_of_all_is_not() {
    let mut case = Case::new();
    case.readings(10..30, 4);
    case.expect(&[(branch(102), 14)]);
    assert!(case.only().confidence_ppm <= 500_000);
    let mut case = Case::new();
    case.pass(60 * MINUTE_US);
    case.readings(0..30, 1);
    case.pass(MINUTE_US);
    assert!(case.outages.is_empty(), "{:?}", case.outages);
}

#[test]
fn gasps_of_meters_whose_neighbours_are_heard_are_not_confirmed() {
    let mut case = Case::new();
    case.gasps([3, 4, 7]);
    case.expect(&[(branch(102), 14)]);
    for point in [0, 1, 2, 5, 6, 8, 9] {
        case.say(point, Fact::Alive(case.now));
    }
    case.pass(SECOND_US);
    case.expect(&[]);
    assert!(case.interruptions.is_empty());
}

#[test]
fn when_every_gasp_is_taken_back_nothing_is_left() {
    for close in [false, true] {
        let mut case = Case::new();
        case.gasps([1, 11, 21, 2, 12, 22, 3, 13, 23]);
        if close {
            case.restored(0..30);
            assert!(case.outages.values().all(|row| row.closed_at_us.is_some()));
            assert!(!case.interruptions.is_empty());
        }
        let facts = case.facts.clone();
        for (point, fact, _) in facts {
            case.monitor.apply(point, fact, case.now, -1);
        }
        case.pass(MINUTE_US);
        assert!(
            case.outages.is_empty() && case.interruptions.is_empty(),
            "{close}: {:#?}",
            case.outages
        );
    }
}

#[test]
fn the_order_inside_a_slot_and_the_cut_of_the_log_do_not_matter() {
    let run = |turn: usize, steps: &[Micros]| {
        let mut case = Case::new();
        case.now += SECOND_US / 50;
        let mut points: Vec<PointId> = (0..8).collect();
        points.rotate_left(turn);
        let at = case.now;
        points.iter().for_each(|&point| case.say(point, Fact::Gasp(at - i64::from(point))));
        for step in steps {
            case.pass(*step);
        }
        case.outages.into_values().collect::<Vec<_>>()
    };
    let expected = run(0, &[SECOND_US]);
    assert_eq!(expected.len(), 1);
    for turn in 1..8 {
        assert_eq!(run(turn, &[SECOND_US]), expected);
        assert_eq!(run(turn, &[SECOND_US / 4, SECOND_US / 2, SECOND_US / 4]), expected);
    }
}

#[test]
fn an_operator_takes_note_and_old_outages_leave_the_view() {
    let mut case = Case::new();
    case.gasps([3, 4, 7]);
    let id = case.only().id;
    assert!(case.monitor.acknowledge(id, true));
    case.take();
    assert!(case.only().acknowledged);
    assert_eq!(id.to_string(), format!("branch-102-{}", id.opened_at_us));
    let unknown = OutageId { device: branch(1), ..id };
    assert!(!case.monitor.acknowledge(unknown, true));
    case.restored(0..10);
    case.pass(32 * 24 * 60 * MINUTE_US);
    assert!(case.outages.is_empty() && case.interruptions.is_empty());
}

#[test]
fn an_outage_whose_points_are_all_no_more_says_why_it_is_over() {
    let mut case = Case::new();
    case.gasps(0..5);
    case.gasps(20..24);
    // those between the two have supply
    case.readings(10..20, 1);
    case.expect(&[(branch(102), 14), (branch(104), 10)]);
    // a grid without one of the one's and all of the other's
    case.supply_of(1..20);
    case.pass(SECOND_US);
    case.expect(&[(branch(102), 13)]);
    let over = case.outages.values().find(|row| row.closed_at_us.is_some()).unwrap();
    assert_eq!(
        (over.device, over.closed_because, over.n_customers, over.n_customers_out),
        (branch(104), Some(CloseReason::GridReplaced), 10, 0)
    );
    assert_eq!(over.closed_at_us, Some(case.now - SECOND_US));
    assert!(case.interruptions.is_empty(), "nobody knows when they had supply again");
    case.supply_of(0..0);
    case.pass(SECOND_US);
    assert!(case.outages.is_empty(), "no grid, no outages");
}

#[test]
fn facts_about_nobody_are_counted_and_extreme_times_do_no_harm() {
    let mut case = Case::new();
    case.say(999, Fact::Gasp(0));
    assert_eq!(case.monitor.n_unknown(), 1);
    for at in [Micros::MIN, -1, 0, Micros::MAX] {
        case.say(1, Fact::Gasp(at));
        case.say(2, Fact::Alive(at));
        case.say(3, Fact::Restored(at));
    }
    case.monitor.advance(Micros::MAX);
    case.monitor.apply(4, Fact::Gasp(Micros::MAX), Micros::MAX, 1);
    case.monitor.apply(4, Fact::Gasp(Micros::MAX), Micros::MIN, 1);
    case.monitor.advance(Micros::MAX);
}

#[test]
fn an_outage_that_an_operator_closes_stays_closed_until_there_is_new_evidence() {
    let mut case = Case::new();
    case.gasps([3, 4, 7]);
    let id = case.only().id;
    assert!(!case.monitor.close(OutageId { device: branch(1), ..id }, case.now));
    assert!(case.monitor.close(id, case.now));
    case.take();
    assert_eq!(case.only().closed_because, Some(CloseReason::Operator));
    assert_eq!((case.only().closed_at_us, case.only().n_customers_out), (Some(case.now), 0));
    // ten customers and four without a meter
    assert_eq!(case.interruptions.keys().map(|i| i.n_customers).sum::<u32>(), 14);
    assert!(!case.monitor.close(id, case.now), "it is closed already");
    // the same gasps once more, a late one, and the silence that goes on
    case.say(3, Fact::Gasp(id.opened_at_us));
    case.say(5, Fact::Gasp(case.now - SECOND_US));
    case.readings(10..30, 6);
    case.expect(&[]);
    assert_eq!(case.outages.len(), 1);
    case.gasps([3, 4, 7, 8]);
    assert_eq!(case.outages.values().filter(|row| row.closed_at_us.is_none()).count(), 1);
}

#[test]
fn after_an_operator_closed_an_outage_the_silence_of_those_who_were_heard_since_counts() {
    let mut case = Case::new();
    case.gasps([3, 4, 7]);
    let id = case.only().id;
    assert!(case.monitor.close(id, case.now));
    case.readings(0..30, 2);
    case.readings(10..30, 5);
    case.expect(&[(branch(102), 14)]);
}

#[test]
fn a_meter_that_never_reports_in_time_is_never_missed() {
    for (n_regular, expected) in [(1, 1), (2, 0)] {
        let settings = MonitorSettings {
            n_regular,
            ..MonitorSettings::default()
        };
        let mut case = Case::new();
        case.monitor = OutageMonitor::new(settings).unwrap();
        case.supply();
        for _ in 0..3 {
            // each quarter of an hour, in two messages, where each minute is expected; some others come each minute
            case.readings(0..10, 1);
            case.pass(SECOND_US);
            (0..10).for_each(|point| case.say(point, Fact::Alive(case.now)));
            case.readings(10..30, 14);
        }
        let n_open = case.outages.len();
        assert_eq!(usize::from(n_open > 0), expected, "{:#?}", case.outages);
    }
}

/// What is said and decided at random, with the switches moving.
fn random_act(case: &mut Case, random: &mut Random) {
    case.now += random.below(1_000_000) as Micros;
    let point = random.below(30) as PointId;
    let at = case.now - random.below(5_000_000) as Micros;
    match random.below(40) {
        0 => {
            let branch = [103, 105, 107][random.below(3) as usize];
            let found = case.branches.iter_mut().find(|other| other.branch == branch).unwrap();
            found.is_closed ^= true;
            case.supply();
        }
        1 => case.pass(MINUTE_US + random.below(180_000_000) as Micros),
        2 | 3 => {
            let ids: Vec<OutageId> = case.outages.keys().copied().collect();
            if let Some(&id) = ids.get(random.below(ids.len().max(1) as u64) as usize) {
                match random.below(2) {
                    0 => case.monitor.close(id, case.now),
                    _ => case.monitor.acknowledge(id, true),
                };
            }
        }
        4..16 => (0..6).for_each(|next| case.say((point + next) % 30, Fact::Gasp(at))),
        16..20 => case.say(point, Fact::Restored(at)),
        _ => case.say(point, Fact::Alive(at)),
    }
    if random.below(3) == 0 {
        case.monitor.advance(case.now);
    }
}

#[test]
fn a_restart_at_any_moment_changes_nothing_of_what_is_told_from_then_on() {
    let mut n_told = 0;
    for seed in 0..40 {
        let (mut random, mut other) = (Random::new(seed), Random::new(seed + 1_000));
        let (mut case, mut restarted) = (Case::new(), Case::new());
        let mut again = Random::new(seed);
        for act in 0..300 {
            random_act(&mut case, &mut random);
            random_act(&mut restarted, &mut again);
            let (expected, found) = (case.monitor.take_changes(), restarted.monitor.take_changes());
            assert_eq!(found, expected, "seed {seed}, act {act}");
            n_told += expected.len();
            for (case, changes) in [(&mut case, expected), (&mut restarted, found)] {
                for change in changes {
                    match change {
                        Change::Outage(row, 1) => drop(case.outages.insert(row.id, row)),
                        Change::Outage(row, _) => drop(case.outages.remove(&row.id)),
                        Change::Interruption(..) => {}
                    }
                }
            }
            if other.below(4) == 0 {
                let text = serde_json::to_string(&restarted.monitor.state()).unwrap();
                let state: MonitorState = serde_json::from_str(&text).unwrap();
                restarted.monitor = OutageMonitor::restore(MonitorSettings::default(), state).unwrap();
                let views: BTreeMap<OutageId, Outage> = restarted
                    .monitor
                    .take_changes()
                    .into_iter()
                    .filter_map(|change| match change {
                        Change::Outage(row, 1) => Some((row.id, row)),
                        _ => None,
                    })
                    .collect();
                assert_eq!(views, restarted.outages, "seed {seed}, act {act}: its first changes are its views");
            }
        }
    }
    assert!(n_told > 1_000, "{n_told}");
}
