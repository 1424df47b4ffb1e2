//! The best place and resistances of a fault of one type in one section.

use nalgebra::{DMatrix, DVector};

use super::feeder::Feeder;
use super::kind::{Connection, FaultType};
use super::reduction::{M3, Place, Reduction, V3};
use crate::model::{BASE_POWER_VA, C64, to_phases, to_sequences};

/// Where the search of a section begins.
const STARTS: [f64; 3] = [0.1, 0.5, 0.9];
/// Nearest to the end of a line: a part of length zero has no admittance.
const SHARE_MIN: f64 = 1e-7;
/// Step of the differences along a line.
const SHARE_STEP: f64 = 1e-4;
const ITERATIONS_MAX: usize = 30;
/// A step that gains less of the sum of squares, or of a thousandth, is the last one.
const GAIN_MIN: f64 = 1e-6;

/// What was measured during the fault, per unit, and how well.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Voltage at the head, symmetrical components.
    pub(super) voltage: V3,
    /// Current at the head, symmetrical components.
    pub(super) current: V3,
    /// Inverse of the lower triangle of the residual's covariance, phases.
    pub(super) whitener: M3,
    /// Most resistance of a fault, ohm.
    pub(super) resistance_max_ohm: f64,
}

impl Measured {
    pub(super) fn with_whitener(&self, whitener: M3) -> Self {
        Self { whitener, ..self.clone() }
    }

    /// How far a current is from the measured one: real and imaginary parts of the phases, each with a variance of one.
    pub(super) fn residual(&self, current: &V3) -> [f64; 6] {
        let difference: [C64; 3] = to_phases(&(current - self.current).into());
        let white = self.whitener * V3::from(difference);
        std::array::from_fn(|k| if k % 2 == 0 { white[k / 2].re } else { white[k / 2].im })
    }
}

/// A section to look at: a line, or the node at the end of something that is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    /// Index in the tree of its far end.
    pub(super) at: usize,
    /// Whether the place along it is unknown.
    pub(super) is_line: bool,
}

/// The best fault of one type in one section.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) kind: FaultType,
    /// Share of the section from the head's side.
    pub(super) share: f64,
    /// Of each phase, then the common one to ground, ohm.
    pub(super) resistance_ohm: Vec<f64>,
    /// Sum of squared residuals.
    pub(super) chi_square: f64,
    /// Slope of that sum along the section: not zero at its ends.
    pub(super) slope: f64,
    /// Information on the place, whatever the resistances.
    pub(super) information: f64,
    /// Share of the resistances' range that fits as well.
    pub(super) resistance_volume: f64,
}

/// The solution at one place with given resistances.
struct Faulted {
    current_head: V3,
    /// Into the ports.
    current_ports: DVector<C64>,
}

/// Everything a search in one section needs.
pub(super) struct Search<'a> {
    pub(super) feeder: &'a Feeder,
    pub(super) reduction: &'a Reduction,
    pub(super) measured: &'a Measured,
}

fn port_columns(connection: &Connection) -> DMatrix<C64> {
    let n = connection.ports.len();
    DMatrix::from_fn(3, n, |row, column| connection.ports[column][row])
}

/// Impedance that the fault and the grid put between the ports.
fn loop_impedance(place: &Place, connection: &Connection, columns: &DMatrix<C64>, resistance_pu: &[f64]) -> DMatrix<C64> {
    let mut z = columns.adjoint() * place.impedance * columns;
    for (matrix, r) in connection.resistances.iter().zip(resistance_pu) {
        z += matrix.map(|x| C64::new(x * r, 0.0));
    }
    z
}

/// Admittance at the head with the fault on.
pub(super) fn faulted_admittance(at_head: &M3, place: &Place, kind: FaultType, resistance_pu: &[f64]) -> Option<M3> {
    let connection = kind.connection();
    let columns = port_columns(&connection);
    let inverse = loop_impedance(place, &connection, &columns, resistance_pu).try_inverse()?;
    let fault = place.share * &columns * inverse * columns.adjoint() * place.voltage;
    Some(at_head + M3::from_fn(|row, column| fault[(row, column)]))
}

/// Voltage of a fault at the ports and current it injects into the grid, symmetrical components.
pub(super) fn fault_current(place: &Place, kind: FaultType, resistance_pu: &[f64], head_voltage: &V3) -> Option<V3> {
    let connection = kind.connection();
    let columns = port_columns(&connection);
    let inverse = loop_impedance(place, &connection, &columns, resistance_pu).try_inverse()?;
    let current = &columns * inverse * columns.adjoint() * place.voltage * head_voltage;
    Some(V3::new(current[0], current[1], current[2]))
}

impl Search<'_> {
    /// The place at a share of a section.
    pub(super) fn place(&self, section: Section, share: f64) -> Option<Place> {
        match section.is_line {
            true => self
                .reduction
                .along(self.feeder, section.at, share.clamp(SHARE_MIN, 1.0 - SHARE_MIN)),
            false => Some(self.reduction.places[section.at]),
        }
    }

    /// One per unit of impedance at a section, ohm.
    pub(super) fn z_base_ohm(&self, section: Section) -> f64 {
        let u = self.feeder.nodes[section.at].u_rated_v;
        u * u / BASE_POWER_VA
    }

    /// The best fault of a type in a section; none where the equations have no solution.
    pub(super) fn best(&self, section: Section, kind: FaultType) -> Option<Fit> {
        let problem = Problem::new(self, section, kind);
        let starts = if section.is_line { &STARTS[..] } else { &STARTS[1..2] };
        let mut best: Option<(Vec<f64>, f64)> = None;
        for &share in starts {
            let place = self.place(section, share)?;
            let mut x = vec![share];
            x.extend(problem.resistances_at(&place));
            let chi_square = square(&problem.residual(&place, &x[1..])?);
            if best.as_ref().is_none_or(|(_, least)| chi_square < *least) {
                best = Some((x, chi_square));
            }
        }
        let (x, chi_square) = best?;
        problem.refine(x, chi_square)
    }

    /// The least sum of squares of a type in a section at the starting points: a first look.
    pub(super) fn first_look(&self, section: Section, kind: FaultType) -> f64 {
        let problem = Problem::new(self, section, kind);
        let looks = STARTS.iter().filter_map(|&share| {
            let place = self.place(section, share)?;
            Some(square(&problem.residual(&place, &problem.resistances_at(&place))?))
        });
        looks.fold(f64::INFINITY, f64::min)
    }
}

struct Problem<'a> {
    search: &'a Search<'a>,
    section: Section,
    kind: FaultType,
    connection: Connection,
    columns: DMatrix<C64>,
    z_base_ohm: f64,
    resistance_max_pu: f64,
}

/// Solves equations; none of them have an empty solution.
fn solve(a: DMatrix<f64>, b: &DVector<f64>) -> Option<DVector<f64>> {
    match b.is_empty() {
        true => Some(DVector::zeros(0)),
        false => a.lu().solve(b),
    }
}

fn square(residual: &[f64; 6]) -> f64 {
    residual.iter().map(|r| r * r).sum()
}

impl<'a> Problem<'a> {
    fn new(search: &'a Search<'a>, section: Section, kind: FaultType) -> Self {
        let connection = kind.connection();
        let z_base_ohm = search.z_base_ohm(section);
        Self {
            columns: port_columns(&connection),
            connection,
            search,
            section,
            kind,
            z_base_ohm,
            resistance_max_pu: search.measured.resistance_max_ohm / z_base_ohm,
        }
    }

    fn solve(&self, place: &Place, resistance_pu: &[f64]) -> Option<Faulted> {
        let (measured, reduction) = (self.search.measured, self.search.reduction);
        let driving = self.columns.adjoint() * place.voltage * measured.voltage;
        let current_ports = loop_impedance(place, &self.connection, &self.columns, resistance_pu)
            .lu()
            .solve(&driving)?;
        let at_fault = &self.columns * &current_ports;
        Some(Faulted {
            current_head: reduction.at_head * measured.voltage + place.share * V3::new(at_fault[0], at_fault[1], at_fault[2]),
            current_ports,
        })
    }

    fn residual(&self, place: &Place, resistance_pu: &[f64]) -> Option<[f64; 6]> {
        let residual = self.search.measured.residual(&self.solve(place, resistance_pu)?.current_head);
        residual.iter().all(|r| r.is_finite()).then_some(residual)
    }

    /// The resistances that the measured current asks for at a place: least squares of `sum R_k M_k i = u`, with the fault's current
    /// from what the healthy feeder does not draw. Takagi's condition: the fault draws no reactive power.
    fn resistances_at(&self, place: &Place) -> Vec<f64> {
        let (measured, reduction) = (self.search.measured, self.search.reduction);
        let n = self.connection.resistances.len();
        let nothing = vec![0.0; n];
        let missing = measured.current - reduction.at_head * measured.voltage;
        let white = |x: V3| measured.whitener * V3::from(to_phases::<3>(&x.into()));
        let ports = self.connection.ports.len();
        let mut seen = DMatrix::zeros(3, ports);
        for (column, port) in self.connection.ports.iter().enumerate() {
            seen.set_column(column, &white(place.share * V3::from(*port)));
        }
        let target = white(missing);
        let normal = seen.adjoint() * &seen;
        let Some(current) = normal.lu().solve(&(seen.adjoint() * target)) else {
            return nothing;
        };
        let at_fault = &self.columns * &current;
        let voltage = self.columns.adjoint() * (place.voltage * measured.voltage - place.impedance * at_fault);
        let terms: Vec<DVector<C64>> = self
            .connection
            .resistances
            .iter()
            .map(|matrix| matrix.map(|x| C64::new(x, 0.0)) * &current)
            .collect();
        let inner = |a: &DVector<C64>, b: &DVector<C64>| a.dotc(b).re;
        let a = DMatrix::from_fn(n, n, |j, k| inner(&terms[j], &terms[k]));
        let b = DVector::from_fn(n, |k, _| inner(&terms[k], &voltage));
        match solve(a, &b) {
            Some(r) => r.iter().map(|r| r.clamp(0.0, self.resistance_max_pu)).collect(),
            None => nothing,
        }
    }

    /// Derivatives of the residual along the section and by each resistance (per unit).
    fn slopes(&self, x: &[f64]) -> Option<DMatrix<f64>> {
        let place = self.search.place(self.section, x[0])?;
        let measured = self.search.measured;
        let mut slopes = DMatrix::zeros(6, x.len());
        if self.section.is_line {
            let (low, high) = ((x[0] - SHARE_STEP).max(SHARE_MIN), (x[0] + SHARE_STEP).min(1.0 - SHARE_MIN));
            let at = |share: f64| self.residual(&self.search.place(self.section, share)?, &x[1..]);
            let (before, after) = (at(low)?, at(high)?);
            for row in 0..6 {
                slopes[(row, 0)] = (after[row] - before[row]) / (high - low);
            }
        }
        let faulted = self.solve(&place, &x[1..])?;
        let z = loop_impedance(&place, &self.connection, &self.columns, &x[1..]).lu();
        for (k, matrix) in self.connection.resistances.iter().enumerate() {
            let drop = matrix.map(|x| C64::new(-x, 0.0)) * &faulted.current_ports;
            let change = &self.columns * z.solve(&drop)?;
            let at_head = measured.current + place.share * V3::new(change[0], change[1], change[2]);
            for (row, slope) in measured.residual(&at_head).into_iter().enumerate() {
                slopes[(row, k + 1)] = slope;
            }
        }
        Some(slopes)
    }

    fn bounds(&self, k: usize) -> [f64; 2] {
        match k {
            0 => [0.0, 1.0],
            _ => [0.0, self.resistance_max_pu],
        }
    }

    /// Levenberg and Marquardt's method within the bounds.
    fn refine(&self, mut x: Vec<f64>, mut chi_square: f64) -> Option<Fit> {
        let n = x.len();
        let first = usize::from(!self.section.is_line);
        let mut damping = 1e-6;
        let mut place = self.search.place(self.section, x[0])?;
        for _ in 0..ITERATIONS_MAX {
            let residual = DVector::from_row_slice(&self.residual(&place, &x[1..])?);
            let slopes = self.slopes(&x)?;
            let gradient = slopes.tr_mul(&residual);
            let normal = slopes.tr_mul(&slopes);
            // at a bound and pushed beyond it: stays there
            let free: Vec<usize> = (first..n)
                .filter(|&k| {
                    let [low, high] = self.bounds(k);
                    !(x[k] <= low && gradient[k] > 0.0 || x[k] >= high && gradient[k] < 0.0)
                })
                .collect();
            let mut gained = false;
            for _ in 0..12 {
                let a = DMatrix::from_fn(free.len(), free.len(), |j, k| {
                    normal[(free[j], free[k])] * if j == k { 1.0 + damping } else { 1.0 }
                });
                let b = DVector::from_fn(free.len(), |k, _| -gradient[free[k]]);
                let Some(step) = solve(a, &b) else { break };
                let mut there = x.clone();
                for (j, &k) in free.iter().enumerate() {
                    let [low, high] = self.bounds(k);
                    there[k] = (x[k] + step[j]).clamp(low, high);
                }
                let at = self.search.place(self.section, there[0]);
                let new = at.and_then(|at| Some((at, square(&self.residual(&at, &there[1..])?))));
                match new {
                    Some((at, new)) if new < chi_square => {
                        gained = chi_square - new > GAIN_MIN * (1e-3 + chi_square);
                        (x, chi_square, place) = (there, new, at);
                        damping = (damping * 0.1).max(1e-12);
                        break;
                    }
                    _ => damping = (damping * 10.0).max(1e-6),
                }
            }
            if !gained {
                break;
            }
        }
        self.describe(x, chi_square)
    }

    fn describe(&self, x: Vec<f64>, chi_square: f64) -> Option<Fit> {
        let place = self.search.place(self.section, x[0])?;
        let residual = DVector::from_row_slice(&self.residual(&place, &x[1..])?);
        let slopes = self.slopes(&x)?;
        let normal = slopes.tr_mul(&slopes);
        let n = x.len() - 1;
        let by_resistance = normal.view((1, 1), (n, n)).into_owned();
        let across = normal.view((1, 0), (n, 1)).into_owned();
        // resistances at a bound do not move with the place
        let moving: Vec<usize> = (0..n).filter(|&k| x[k + 1] > 0.0 && x[k + 1] < self.resistance_max_pu).collect();
        let a = DMatrix::from_fn(moving.len(), moving.len(), |j, k| by_resistance[(moving[j], moving[k])]);
        let b = DVector::from_fn(moving.len(), |k, _| across[moving[k]]);
        let explained = match solve(a, &b) {
            Some(solution) => b.dot(&solution),
            None => 0.0,
        };
        let tau = std::f64::consts::TAU;
        let determinant = by_resistance.determinant().max(f64::MIN_POSITIVE);
        let volume = (tau.powi(n as i32) / determinant).sqrt() / self.resistance_max_pu.powi(n as i32);
        Some(Fit {
            kind: self.kind,
            share: x[0],
            resistance_ohm: x[1..].iter().map(|r| r * self.z_base_ohm).collect(),
            chi_square,
            slope: 2.0 * slopes.column(0).dot(&residual),
            information: (normal[(0, 0)] - explained).max(0.0),
            resistance_volume: volume.min(1.0),
        })
    }
}

/// The whitener for standard deviations of currents and voltages by phase, with the admittance that joins the two.
pub(super) fn whitener(sigma_current: &[f64; 3], sigma_voltage: &[f64; 3], admittance: &M3) -> M3 {
    let mut covariance = M3::zeros();
    for k in 0..3 {
        covariance[(k, k)] = C64::new(sigma_current[k] * sigma_current[k], 0.0);
        let mut unit = [C64::ZERO; 3];
        unit[k] = C64::new(sigma_voltage[k], 0.0);
        let column = V3::from(to_phases::<3>(&(admittance * V3::from(to_sequences(&unit))).into()));
        covariance += column * column.adjoint();
    }
    let factor = covariance.cholesky().map(|factor| factor.l());
    // the deviations are above zero, so there is a factor
    factor.and_then(|factor| factor.try_inverse()).unwrap_or_else(M3::identity)
}
