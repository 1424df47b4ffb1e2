use super::super::simulation::Random;
use super::super::supply::{GridBranch, MeteringPoint, SupplyMap};
use super::*;

/// A random tree of a few branches with points at random nodes.
fn grid(random: &mut Random, n_nodes: u64, n_points: u32) -> Sections {
    let branches: Vec<GridBranch> = (1..n_nodes)
        .map(|node| GridBranch {
            branch: 100 + node as i64,
            from: random.below(node) as i64,
            to: node as i64,
            is_closed: true,
        })
        .collect();
    let mut map = SupplyMap::trace(&branches, &[0]);
    map.points = (0..n_points)
        .map(|point| MeteringPoint {
            point,
            node: random.below(n_nodes) as i64,
            n_customers: 1,
            sends_gasps: random.below(8) > 0,
            reading_interval_us: None,
        })
        .collect();
    Sections::new(&map).unwrap()
}

fn state(random: &mut Random) -> PointState {
    let time = |random: &mut Random| (random.below(300) as i64 - 20) * SECOND_US / 2;
    let mut state = PointState::default();
    if random.below(3) > 0 {
        state.alive_at = Some(time(random));
    }
    match random.below(5) {
        0 | 1 => state.gasp_at = Some(time(random).max(state.alive_at.unwrap_or(i64::MIN).saturating_add(1))),
        2 => state.is_overdue = state.alive_at.is_some(),
        3 => state.is_forgotten = random.below(4) == 0,
        _ => {}
    }
    if state.gasp_at.is_some() {
        state.is_overdue = random.below(2) == 0;
    }
    state
}

/// Weight of "this section failed" from its points alone, as the definition reads.
fn failed(inference: &Inference, section: usize) -> Option<f64> {
    let sections = &inference.sections;
    let this = &sections.sections[section];
    let range = this.points.start as usize..this.points.end as usize;
    let states: Vec<(PointState, bool)> = range.map(|at| (inference.states[at], sections.points[at].sends_gasps)).collect();
    let count = |f: &dyn Fn(&PointState, bool) -> bool| states.iter().filter(|(state, able)| f(state, *able)).count() as u32;
    let suspicious = |s: &PointState| !s.is_forgotten && (s.gasp_at.is_some() || s.is_overdue);
    let n_suspicious = count(&|s, _| suspicious(s));
    let n_gasps = count(&|s, _| s.gasp_at.is_some());
    let n_points = states.len() as u32 - count(&|s, _| s.is_forgotten);
    let from = match n_gasps {
        0 => states
            .iter()
            .filter(|(s, _)| suspicious(s))
            .filter_map(|(s, _)| s.alive_at)
            .max()
            .unwrap_or(i64::MIN),
        _ => onset(inference, section)?,
    };
    let from = (from.saturating_add(SECOND_US - 1)).div_euclid(SECOND_US).saturating_mul(SECOND_US);
    let alive = |s: &PointState| !suspicious(s) && !s.is_forgotten && s.alive_at.is_some_and(|at| at > from);
    let mere_silence = n_gasps == 0 && (n_suspicious < 3 || n_suspicious as usize * 2 > sections.points.len());
    if this.devices.is_empty() || n_points < 2 || n_suspicious < n_points.min(3) || mere_silence {
        return None;
    }
    let n_dark = count(&|s, able| able && !alive(s) && !s.is_forgotten).max(n_gasps);
    let choose: f64 = (1..=n_gasps).map(|i| f64::from(n_dark - n_gasps + i) / f64::from(i)).product();
    let prior = (1e-5_f64 * this.failure_weight as f64).ln().min(1e-5_f64.ln() / 2.0);
    let evidence = f64::from(n_gasps) * 1e4_f64.ln() + f64::from(count(&|s, _| s.is_overdue && !s.is_forgotten)) * 100_f64.ln();
    Some(prior - (f64::from(n_dark + 1) * choose).ln() + evidence - f64::from(count(&|s, _| alive(s))) * 1e4_f64.ln())
}

/// First gasp of the newest incident, part by part.
fn onset(inference: &Inference, section: usize) -> Option<i64> {
    let this = &inference.sections.sections[section];
    let newest = |points: Range<u32>| points.filter_map(|at| inference.states[at as usize].gasp_at).max();
    let belongs = newest(this.points.clone())? - COHORT_US;
    let own = this
        .own
        .clone()
        .filter_map(|at| inference.states[at as usize].gasp_at)
        .filter(|&at| at > belongs);
    let below = inference
        .children(this)
        .iter()
        .filter(|&&child| newest(inference.sections.sections[child as usize].points.clone()).is_some_and(|at| at > belongs))
        .filter_map(|&child| onset(inference, child as usize));
    own.chain(below).min()
}

/// Every set of failures of which none is behind another, with its weight: sections and, as `usize::MAX - position`, single points.
fn all_sets(inference: &Inference, section: usize) -> Vec<(Vec<usize>, f64)> {
    let this = &inference.sections.sections[section];
    let mut sets: Vec<(Vec<usize>, f64)> = vec![(Vec::new(), 0.0)];
    let mut combine = |parts: Vec<(Vec<usize>, f64)>| {
        sets = sets
            .iter()
            .flat_map(|(set, weight)| {
                parts
                    .iter()
                    .map(move |(part, more)| (set.iter().chain(part).copied().collect::<Vec<usize>>(), weight + more))
            })
            .collect();
    };
    for at in this.own.clone() {
        let state = inference.states[at as usize];
        if state.gasp_at.is_some() && state.is_overdue && !state.is_forgotten {
            combine(vec![(Vec::new(), 0.0), (vec![usize::MAX - at as usize], 100_f64.ln())]);
        }
    }
    for &child in inference.children(this) {
        combine(all_sets(inference, child as usize));
    }
    if let Some(weight) = failed(inference, section) {
        sets.push((vec![section], weight));
    }
    sets
}

fn chosen(suspects: &[Suspect]) -> Vec<usize> {
    suspects
        .iter()
        .map(|s| {
            if s.is_single {
                usize::MAX - s.points.start
            } else {
                s.section as usize
            }
        })
        .collect()
}

#[test]
fn the_answer_is_the_best_of_all_sets_and_its_confidence_the_sum_over_all_sets() {
    let mut n_suspects = 0;
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let n_nodes = 3 + random.below(6);
        let n_points = 2 + random.below(7) as u32;
        let sections = grid(&mut random, n_nodes, n_points);
        let mut inference = Inference::new(sections, &Probabilities::default()).unwrap();
        for position in 0..inference.sections.n_points() {
            inference.set(position, state(&mut random));
        }
        inference.settle();
        let suspects = inference.suspects();
        let sets = all_sets(&inference, 0);
        let best = sets.iter().map(|(_, weight)| *weight).fold(f64::MIN, f64::max);
        let mut of_suspects = chosen(&suspects);
        of_suspects.sort_unstable();
        let weight = sets
            .iter()
            .find(|(set, _)| {
                let mut set = set.clone();
                set.sort_unstable();
                set == of_suspects
            })
            .map(|(_, weight)| *weight);
        assert!((weight.unwrap() - best).abs() < 1e-4, "seed {seed}: {weight:?} {best}");

        let total: f64 = sets.iter().map(|(_, weight)| (weight - best).exp()).sum();
        for (suspect, name) in suspects.iter().zip(chosen(&suspects)) {
            n_suspects += 1;
            let with: f64 = sets
                .iter()
                .filter(|(set, _)| set.contains(&name))
                .map(|(_, weight)| (weight - best).exp())
                .sum();
            let confidence = f64::from(suspect.confidence_ppm) / 1e6;
            let expected = if suspect.n_gasps == 0 {
                (with / total).min(0.5)
            } else {
                with / total
            };
            assert!((confidence - expected).abs() < 1e-3, "seed {seed}: {suspect:?} {expected}");
        }
    }
    assert!(n_suspects > 300, "{n_suspects} suspects are no test");
}

#[test]
fn after_any_changes_the_state_is_that_of_a_fresh_start() {
    for seed in 0..60 {
        let mut random = Random::new(1_000 + seed);
        let n_nodes = 5 + random.below(60);
        let sections = grid(&mut random, n_nodes, 60);
        let mut inference = Inference::new(sections.clone(), &Probabilities::default()).unwrap();
        for round in 0..30 {
            for _ in 0..random.below(8) {
                let position = random.below(sections.n_points() as u64) as usize;
                let state = if random.below(3) == 0 {
                    PointState::default()
                } else {
                    state(&mut random)
                };
                inference.set(position, state);
            }
            inference.settle();
            let mut fresh = Inference::new(sections.clone(), &Probabilities::default()).unwrap();
            (0..sections.n_points()).for_each(|position| fresh.set(position, inference.state(position)));
            fresh.settle();
            for (section, (kept, fresh)) in inference.tallies.iter().zip(&fresh.tallies).enumerate() {
                assert_eq!(kept, fresh, "seed {seed} round {round} section {section}");
            }
        }
        (0..sections.n_points()).for_each(|position| inference.set(position, PointState::default()));
        inference.settle();
        assert!(inference.is_quiet() && inference.suspects().is_empty());
        assert!(inference.tallies.iter().all(|tally| *tally == Tally::QUIET), "seed {seed}");
    }
}

#[test]
fn one_gasp_blames_nobody_and_the_third_under_one_device_does() {
    // 0 ─101─ 1 with ten points; a sibling with ten more
    let branches = [(101, 1), (102, 2)].map(|(branch, to)| GridBranch {
        branch,
        from: 0,
        to,
        is_closed: true,
    });
    let mut map = SupplyMap::trace(&branches, &[0]);
    map.points = (0..20)
        .map(|point| MeteringPoint {
            point,
            node: 1 + i64::from(point / 10),
            n_customers: 1,
            sends_gasps: true,
            reading_interval_us: None,
        })
        .collect();
    let sections = Sections::new(&map).unwrap();
    let position = |point| sections.position(point).unwrap();
    let mut inference = Inference::new(sections.clone(), &Probabilities::default()).unwrap();
    let gasp = |at| PointState {
        gasp_at: Some(at),
        ..PointState::default()
    };
    for (point, expected) in [(3, None), (5, None), (8, Some(Device::Branch(101)))] {
        inference.set(position(point), gasp(i64::from(point) * SECOND_US));
        inference.settle();
        assert_eq!(inference.suspects().first().map(|s| s.device), expected, "{point}");
    }
    // the others of the branch are heard: it was not the branch
    for point in [0, 1, 2, 4] {
        let alive = PointState {
            alive_at: Some(60 * SECOND_US),
            ..PointState::default()
        };
        inference.set(position(point), alive);
    }
    inference.settle();
    assert!(inference.suspects().is_empty());
}
