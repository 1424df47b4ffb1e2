//! Random radial grids and storms over them, drawn from a seed: what tests, benches and the command line measure the inference with.
//!
//! The truth is known, so precision and recall of the blamed devices can be counted. Nothing in the inference looks in here.

use super::evidence::Fact;
use super::sections::{Device, Sections};
use super::supply::{GridBranch, MeteringPoint, PointId, SupplyMap};
use super::{Micros, SECOND_US};
use crate::network::ComponentId;
pub use crate::random::Random;

/// A random radial grid: an MV feeder tree, an LV tree behind each transformer, customers along it.
#[derive(Debug, Clone)]
pub struct RandomGrid {
    /// Its supply.
    pub map: SupplyMap,
    /// How often every meter reports.
    pub reading_interval_us: Micros,
}

/// How a grid is drawn.
#[derive(Debug, Clone, Copy)]
pub struct GridShape {
    /// MV/LV transformers.
    pub n_transformers: u64,
    /// Customers behind each, on average.
    pub n_customers: u64,
    /// How often every meter reports.
    pub reading_interval_us: Micros,
}

impl RandomGrid {
    /// Draws a grid. Branch ids are those of the node they lead to, plus a billion; the source is node 0.
    pub fn draw(shape: &GridShape, random: &mut Random) -> Self {
        let mut branches: Vec<GridBranch> = Vec::new();
        let mut n_nodes: ComponentId = 1;
        let mut grow = |from: ComponentId| {
            let node = n_nodes;
            n_nodes += 1;
            branches.push(GridBranch {
                branch: 1_000_000_000 + node,
                from,
                to: node,
                is_closed: true,
            });
            node
        };
        let mut points: Vec<MeteringPoint> = Vec::new();
        let mut unmetered = Vec::new();
        let mut mv = vec![0];
        for _ in 0..shape.n_transformers {
            // feeders go on from their last nodes more often than they fork
            let from = if random.per_mille(700) {
                mv.len() - 1
            } else {
                random.below(mv.len() as u64) as usize
            };
            let bus = grow(mv[from]);
            mv.push(bus);
            let mut lv = vec![grow(bus)];
            let n_customers = shape.n_customers / 2 + random.below(shape.n_customers + 1);
            while (points.len() as u64) < u64::from(u32::MAX) && lv.len() < 1 + n_customers as usize {
                let from = if random.per_mille(600) {
                    lv.len() - 1
                } else {
                    random.below(lv.len() as u64) as usize
                };
                let node = grow(lv[from]);
                lv.push(node);
                points.push(MeteringPoint {
                    point: points.len() as PointId,
                    node: if random.per_mille(800) { grow(node) } else { node },
                    n_customers: 1,
                    sends_gasps: true,
                    reading_interval_us: Some(shape.reading_interval_us),
                });
                if random.per_mille(20) {
                    unmetered.push((node, 1));
                }
            }
        }
        let mut map = SupplyMap::trace(&branches, &[0]);
        (map.points, map.unmetered) = (points, unmetered);
        Self {
            map,
            reading_interval_us: shape.reading_interval_us,
        }
    }
}

/// What happens to a grid.
#[derive(Debug, Clone, Copy)]
pub struct StormShape {
    /// Devices that fail.
    pub n_failures: u64,
    /// Gasps that are lost, parts per thousand.
    pub lost_per_mille: u64,
    /// Gasps that come twice, parts per thousand.
    pub repeated_per_mille: u64,
    /// Meters with supply that send a gasp during the storm, parts per million.
    pub false_per_million: u64,
    /// Readings that never arrive, parts per thousand.
    pub missing_per_mille: u64,
    /// The failures fall into this time.
    pub failures_within_us: Micros,
    /// A gasp is sent at most so long after the failure.
    pub gasp_delay_us_max: Micros,
    /// A message takes at most so long from the meter to the log.
    pub transport_us_max: Micros,
    /// Readings go on for so long after the last failure.
    pub readings_after_us: Micros,
}

impl Default for StormShape {
    fn default() -> Self {
        Self {
            n_failures: 3,
            lost_per_mille: 300,
            repeated_per_mille: 50,
            false_per_million: 500,
            missing_per_mille: 10,
            failures_within_us: 10 * SECOND_US,
            gasp_delay_us_max: 30 * SECOND_US,
            transport_us_max: 2 * SECOND_US,
            readings_after_us: 0,
        }
    }
}

/// A message as it reaches the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Log time.
    pub log_us: Micros,
    /// Who.
    pub point: PointId,
    /// What.
    pub fact: Fact,
}

/// A storm: what failed, and what is heard of it.
#[derive(Debug, Clone)]
pub struct Storm {
    /// Failed devices: each with those that look the same, and when.
    pub failures: Vec<(Vec<Device>, Micros)>,
    /// Messages in the order of the log.
    pub arrivals: Vec<Arrival>,
    /// End of the storm, log time.
    pub end_us: Micros,
}

/// When a storm begins: any day.
pub const STORM_START_US: Micros = 1_700_000_000 * SECOND_US;

impl Storm {
    /// Draws a storm: failures of devices with as many points behind them as `points` says (at least, at most), none behind another,
    /// and not so many that they cut off just what one device above them would: nobody could tell.
    pub fn draw(grid: &RandomGrid, sections: &Sections, shape: &StormShape, points: (usize, usize), random: &mut Random) -> Self {
        let end_of_storm = STORM_START_US + shape.failures_within_us + shape.gasp_delay_us_max;
        let end_us = end_of_storm + shape.transport_us_max + shape.readings_after_us + 1;
        let (failures, dark_from) = failures(sections, shape, points, random);
        let mut arrivals = Vec::new();
        for point in &grid.map.points {
            let dark = dark_from.get(point.point as usize).copied().flatten();
            readings(grid, shape, point.point, dark, end_us, random, &mut arrivals);
            let gasp = match dark {
                Some(from) => (!random.per_mille(shape.lost_per_mille)).then(|| from + delay(random, shape.gasp_delay_us_max)),
                None => (random.below(1_000_000) < shape.false_per_million)
                    .then(|| STORM_START_US + delay(random, shape.failures_within_us + shape.gasp_delay_us_max)),
            };
            for _ in 0..1 + u64::from(random.per_mille(shape.repeated_per_mille)) {
                arrivals.extend(gasp.map(|at| Arrival {
                    log_us: at + delay(random, shape.transport_us_max),
                    point: point.point,
                    fact: Fact::Gasp(at),
                }));
            }
        }
        arrivals.sort_unstable();
        Self {
            failures,
            arrivals,
            end_us,
        }
    }
}

fn delay(random: &mut Random, max: Micros) -> Micros {
    random.below(max.max(0) as u64 + 1) as Micros
}

type Failures = (Vec<(Vec<Device>, Micros)>, Vec<Option<Micros>>);

fn failures(sections: &Sections, shape: &StormShape, (n_min, n_max): (usize, usize), random: &mut Random) -> Failures {
    let candidates: Vec<(&[Device], &[MeteringPoint])> = sections
        .all_devices()
        .filter(|(_, points)| (n_min..=n_max).contains(&points.len()))
        .collect();
    let n_points = sections
        .all_devices()
        .flat_map(|(_, points)| points)
        .map(|p| p.point as usize + 1)
        .max()
        .unwrap_or(0);
    let mut dark_from: Vec<Option<Micros>> = vec![None; n_points];
    let mut failures: Vec<(Vec<Device>, Micros)> = Vec::new();
    // a few tries each: most of the grid may be dark already
    for _ in 0..shape.n_failures * 20 {
        if failures.len() as u64 == shape.n_failures || candidates.is_empty() {
            break;
        }
        let (devices, points) = candidates[random.below(candidates.len() as u64) as usize];
        if points.iter().any(|point| dark_from[point.point as usize].is_some()) {
            continue;
        }
        let at = STORM_START_US + delay(random, shape.failures_within_us);
        points.iter().for_each(|point| dark_from[point.point as usize] = Some(at));
        // several that together look like one device above them are that device, to anybody
        let is_all_dark = |all: &[MeteringPoint]| all.iter().all(|point| dark_from[point.point as usize].is_some());
        let around = sections.all_devices().filter(|(_, all)| all.len() > points.len());
        if around.into_iter().any(|(_, all)| all.contains(&points[0]) && is_all_dark(all)) {
            points.iter().for_each(|point| dark_from[point.point as usize] = None);
            continue;
        }
        failures.push((devices.to_vec(), at));
    }
    (failures, dark_from)
}

fn readings(
    grid: &RandomGrid,
    shape: &StormShape,
    point: PointId,
    dark: Option<Micros>,
    end_us: Micros,
    random: &mut Random,
    arrivals: &mut Vec<Arrival>,
) {
    let interval = grid.reading_interval_us.max(1);
    let mut at = STORM_START_US - interval + random.below(interval as u64) as Micros;
    while at < end_us && dark.is_none_or(|dark| at < dark) {
        if !random.per_mille(shape.missing_per_mille) {
            arrivals.push(Arrival {
                log_us: at + delay(random, shape.transport_us_max),
                point,
                fact: Fact::Alive(at),
            });
        }
        at += interval;
    }
}

/// How well blamed devices match those that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Blamed devices that failed, or look the same as one that did.
    pub n_right: u64,
    /// Blamed devices that did not.
    pub n_wrong: u64,
    /// Failed devices that nobody blamed.
    pub n_missed: u64,
}

impl Score {
    /// Compares.
    pub fn of(failures: &[(Vec<Device>, Micros)], blamed: &[Device]) -> Self {
        let found = |(devices, _): &&(Vec<Device>, Micros)| blamed.iter().any(|device| devices.contains(device));
        let n_right = failures.iter().filter(found).count() as u64;
        Self {
            n_right,
            n_wrong: blamed.len() as u64 - n_right.min(blamed.len() as u64),
            n_missed: failures.len() as u64 - n_right,
        }
    }

    /// Share of the blamed that are right; 1 if nobody is blamed.
    pub fn precision(&self) -> f64 {
        ratio(self.n_right, self.n_right + self.n_wrong)
    }

    /// Share of the failed that are found; 1 if nothing failed.
    pub fn recall(&self) -> f64 {
        ratio(self.n_right, self.n_right + self.n_missed)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

impl std::ops::AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.n_right += other.n_right;
        self.n_wrong += other.n_wrong;
        self.n_missed += other.n_missed;
    }
}
