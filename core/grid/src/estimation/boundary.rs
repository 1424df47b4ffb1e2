//! Estimation over several levels: what a lower area says about its root becomes a reading of the upper area.
//!
//! An area is estimated by itself; its angles are then known only against phase a of its own root. What it passes up are the voltage
//! of its root in that frame, the power that flows into it, and the covariance of both together. The upper area has the root as a node
//! without appliances of its own, and takes the message as one reading of it. With the whole covariance the levels say what one joined
//! estimate would (to second order in the difference between the two voltages of the root); with variances alone they lose what the
//! voltage tells about the power.
//!
//! A device may have estimated an area itself ([`super::published`]). It says magnitudes and powers, and nothing of angles; the upper
//! area compares magnitudes then, whatever the angles are, so nothing is lost to second order either.
//!
//! # Source
//! D4.6, section 7.2.2 (three levels: concentrator, LV, MV). The elimination of an area into a quadratic of its boundary is the
//! same block elimination as within an area.

use nalgebra::{DMatrix, DVector};

#[cfg(doc)]
use super::EstimateOptions;
use super::block::{Block, Column, multipliers, voltages};
use super::covariance::{Functional, along_phase};
use super::local::{AngleReference, add_voltage_derivative, voltage_gradient};
use super::readings::Voltage;
use super::{Estimator, GridError, REWEIGHED_MAX, Uncertainty};
use crate::model::{C64, to_phases, to_sequences};
use crate::network::Network;

/// Standard deviation, rad, of "the phases are 120 degrees apart" at the root of an area, while it is estimated by itself: magnitudes
/// alone hardly tell. The message up does not contain it.
pub const AREA_BALANCE_SIGMA_RAD: f64 = 0.005;

/// Variance of what a message knows exactly (an area without any load takes no power), so that it has an inverse.
const EXACT: f64 = 1e-18;

/// What an area knows of its root.
///
/// # Units
/// Per unit of the root's rated voltage and of a phase's base power.
///
/// # Shape
/// Rows of the covariance: real parts of the voltages by phase, imaginary parts, active powers, reactive powers; `4 * N` squared. A message
/// without angles has magnitudes as real parts, and nothing in the rows of the imaginary ones.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundaryEstimate<const N: usize> {
    /// Voltages of the root by phase; phase a has angle zero.
    pub voltage_pu: [C64; N],
    /// Power that flows into the area by phase.
    pub power_pu: [C64; N],
    /// Covariance of both.
    pub covariance: Vec<Vec<f64>>,
    /// What was assumed of the angles, is in the covariance, and must not be passed up.
    pub(super) balance: Option<AngleReference<N>>,
    /// What was guessed of the voltage, likewise.
    pub(super) guess: Option<Voltage<N>>,
    /// Whether it says how the phases are turned against each other.
    pub(super) has_angles: bool,
}

impl<const N: usize> BoundaryEstimate<N> {
    /// The same without cross terms: what is left when only variances are passed up.
    pub fn with_variances_only(mut self) -> Self {
        for (row, entries) in self.covariance.iter_mut().enumerate() {
            for (column, entry) in entries.iter_mut().enumerate() {
                if row != column {
                    *entry = 0.0;
                }
            }
        }
        self
    }
}

impl<const N: usize> BoundaryEstimate<N> {
    /// How many numbers [`Self::to_numbers`] gives.
    const N_NUMBERS: usize = 4 * N + 16 * N * N + 1 + N * N + 2 + N + 1 + 4 * N + 1;

    /// The whole message as numbers in a fixed order, to be sent elsewhere.
    pub fn to_numbers(&self) -> Vec<f64> {
        let mut numbers = Vec::with_capacity(Self::N_NUMBERS);
        numbers.extend(self.voltage_pu.iter().chain(&self.power_pu).flat_map(|c| [c.re, c.im]));
        numbers.extend(self.covariance.iter().flatten());
        numbers.push(f64::from(self.balance.is_some()));
        let balance = self.balance.unwrap_or_else(|| AngleReference::pin(0));
        numbers.extend(balance.weights.iter().flatten());
        numbers.extend([f64::from(balance.is_balance), balance.n_readings as f64]);
        numbers.extend(balance.expected);
        numbers.push(f64::from(self.guess.is_some()));
        let guess = self.guess.unwrap_or(Voltage {
            position: 0,
            magnitude: [0.0; N],
            magnitude_weight: [0.0; N],
            angle: [0.0; N],
            angle_weight: [0.0; N],
        });
        for part in [guess.magnitude, guess.magnitude_weight, guess.angle, guess.angle_weight] {
            numbers.extend(part);
        }
        numbers.push(f64::from(self.has_angles));
        numbers
    }

    /// The message that [`Self::to_numbers`] has written; `None` for another count of numbers, or one that is not finite.
    pub fn from_numbers(numbers: &[f64]) -> Option<Self> {
        if numbers.len() != Self::N_NUMBERS || numbers.iter().any(|number| !number.is_finite()) {
            return None;
        }
        let mut rest = numbers.iter().copied();
        let voltage_pu = std::array::from_fn(|_| C64::new(take(&mut rest), take(&mut rest)));
        let power_pu = std::array::from_fn(|_| C64::new(take(&mut rest), take(&mut rest)));
        let covariance = (0..4 * N).map(|_| (0..4 * N).map(|_| take(&mut rest)).collect()).collect();
        let has_balance = take(&mut rest) != 0.0;
        let balance = AngleReference {
            position: 0,
            weights: std::array::from_fn(|_| take_row(&mut rest)),
            is_balance: take(&mut rest) != 0.0,
            n_readings: take(&mut rest) as isize,
            expected: take_row(&mut rest),
        };
        let has_guess = take(&mut rest) != 0.0;
        let guess = Voltage {
            position: 0,
            magnitude: take_row(&mut rest),
            magnitude_weight: take_row(&mut rest),
            angle: take_row(&mut rest),
            angle_weight: take_row(&mut rest),
        };
        Some(Self {
            voltage_pu,
            power_pu,
            covariance,
            balance: has_balance.then_some(balance),
            guess: has_guess.then_some(guess),
            has_angles: take(&mut rest) != 0.0,
        })
    }
}

/// The next number; their count has been checked.
fn take(numbers: &mut impl Iterator<Item = f64>) -> f64 {
    numbers.next().unwrap_or(0.0)
}

fn take_row<const N: usize>(numbers: &mut impl Iterator<Item = f64>) -> [f64; N] {
    std::array::from_fn(|_| take(numbers))
}

/// A message as the upper area uses it.
#[derive(Debug, Clone)]
pub(super) struct Boundary<const N: usize> {
    pub(super) position: usize,
    /// Whether voltages are in the frame of phase a, or else each in its own: magnitudes.
    has_angles: bool,
    /// Voltages in that frame.
    voltage: [C64; N],
    /// Injection (the negative of what flows into the area).
    power: [C64; N],
    /// Inverse covariance of the voltages alone.
    information: RealMap<N>,
    /// How the expected injection follows the voltages.
    slope: RealMap<N>,
    /// Covariance of the injection when the voltages are known.
    variance: RealMap<N>,
    /// A guess that takes back the one in the message.
    pub(super) taken_back: Option<Voltage<N>>,
}

/// A linear map of the real and imaginary parts by phase: for each pair of phases the four entries real by real, real by imaginary,
/// imaginary by real, imaginary by imaginary part.
#[derive(Debug, Clone, Copy)]
struct RealMap<const N: usize>([[[f64; 4]; N]; N]);

impl<const N: usize> RealMap<N> {
    /// From the entries of a matrix over the real parts, then the imaginary parts.
    fn new(entry: impl Fn(usize, usize) -> f64) -> Self {
        Self(std::array::from_fn(|i| {
            std::array::from_fn(|j| [entry(i, j), entry(i, N + j), entry(N + i, j), entry(N + i, N + j)])
        }))
    }

    fn entry(&self, row: usize, column: usize) -> f64 {
        self.0[row % N][column % N][2 * (row / N) + column / N]
    }

    #[inline(always)]
    fn times(&self, x: &[C64; N]) -> [C64; N] {
        std::array::from_fn(|i| {
            let row = self.0[i].iter().zip(x);
            row.map(|([rr, ri, ir, ii], x)| C64::new(rr * x.re + ri * x.im, ir * x.re + ii * x.im))
                .sum()
        })
    }

    #[inline(always)]
    fn transposed_times(&self, x: &[C64; N]) -> [C64; N] {
        let mut y = [C64::ZERO; N];
        for (row, x) in self.0.iter().zip(x) {
            for ([rr, ri, ir, ii], y) in row.iter().zip(&mut y) {
                *y += C64::new(rr * x.re + ir * x.im, ri * x.re + ii * x.im);
            }
        }
        y
    }
}

/// Real and imaginary parts, multiplied and added up.
fn dot<const N: usize>(a: &[C64; N], b: &[C64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.re * b.re + a.im * b.im).sum()
}

impl<const N: usize> Boundary<N> {
    /// # Errors
    /// A covariance without inverse is an error of the area that sent it.
    fn new(position: usize, message: &BoundaryEstimate<N>, area: &str) -> Result<Self, GridError> {
        let refused = |reason: &str| GridError::Area {
            area: area.to_owned(),
            reason: reason.to_owned(),
        };
        if message.covariance.len() != 4 * N || message.covariance.iter().any(|row| row.len() != 4 * N) {
            return Err(refused("its covariance has another size than its phases"));
        }
        // without the imaginary part of phase a, which is exact, and without those that are not said
        let is_exact = |row: usize| row == N || !message.has_angles && (N..2 * N).contains(&row);
        let kept: Vec<usize> = (0..4 * N).filter(|&row| !is_exact(row)).collect();
        let size = kept.len();
        // what flows in counts as negative injection
        let sign = |row: usize| if row >= 2 * N { -1.0 } else { 1.0 };
        let covariance = DMatrix::from_fn(size, size, |row, column| {
            let (row, column) = (kept[row], kept[column]);
            let exact = if row == column { EXACT } else { 0.0 };
            0.5 * (message.covariance[row][column] + message.covariance[column][row]) * sign(row) * sign(column) + exact
        });
        // variances of very different size: bring them to one
        let scale = DVector::from_fn(size, |row, _| covariance[(row, row)].max(1e-30).sqrt().recip());
        let scaled = DMatrix::from_fn(size, size, |row, column| covariance[(row, column)] * scale[row] * scale[column]);
        let inverse = scaled
            .clone()
            .cholesky()
            .map(|factor| factor.inverse())
            .or_else(|| scaled.try_inverse())
            .ok_or_else(|| refused("its boundary covariance has no inverse; more of its readings than one must tell about its root"))?;
        let information = DMatrix::from_fn(size, size, |row, column| inverse[(row, column)] * scale[row] * scale[column]);
        let n_v = size - 2 * N;
        let (vv, vs) = (information.view((0, 0), (n_v, n_v)), information.view((0, n_v), (n_v, 2 * N)));
        let ss = information.view((n_v, n_v), (2 * N, 2 * N)).into_owned();
        let variance = ss
            .try_inverse()
            .ok_or_else(|| refused("the power at its boundary is not determined"))?;
        let slope = -(&variance * vs.transpose());
        let marginal = vv + vs * &slope;
        // back to 2N columns, with nothing at the imaginary parts that were left out
        let wide = |index: usize| kept.iter().position(|&row| row == index);
        Ok(Self {
            position,
            has_angles: message.has_angles,
            voltage: message.voltage_pu,
            power: message.power_pu.map(|s| -s),
            information: RealMap::new(|row, column| match (wide(row), wide(column)) {
                (Some(row), Some(column)) => marginal[(row, column)],
                _ => 0.0,
            }),
            slope: RealMap::new(|row, column| wide(column).map_or(0.0, |column| slope[(row, column)])),
            variance: RealMap::new(|row, column| variance[(row, column)]),
            taken_back: message.guess.map(|guess| Voltage {
                position,
                magnitude_weight: guess.magnitude_weight.map(|weight| -weight),
                ..guess
            }),
        })
    }

    /// Whether another message about the same node has the same weights but for a share, each beside the deviations it belongs to.
    fn weighs_like(&self, other: &Self, share: f64) -> bool {
        let places = || (0..2 * N).flat_map(|row| (0..2 * N).map(move |column| (row, column)));
        let size = |a: &RealMap<N>, b: &RealMap<N>, row: usize| a.entry(row, row).abs().max(b.entry(row, row).abs());
        let alike = |a: &RealMap<N>, b: &RealMap<N>, rows: [&RealMap<N>; 2], columns: [&RealMap<N>; 2]| {
            places().all(|(row, column)| {
                let limit = size(rows[0], rows[1], row) * size(columns[0], columns[1], column);
                (a.entry(row, column) - b.entry(row, column)).abs() <= share * limit.sqrt()
            })
        };
        let (information, variance) = ([&self.information, &other.information], [&self.variance, &other.variance]);
        self.has_angles == other.has_angles
            && alike(&self.information, &other.information, information, information)
            && alike(&self.variance, &other.variance, variance, variance)
            && alike(&self.slope, &other.slope, variance, information)
            && self.taken_back.map(|guess| guess.magnitude_weight) == other.taken_back.map(|guess| guess.magnitude_weight)
    }

    /// How many scalar readings its voltages are.
    pub(super) fn n_voltages(&self) -> usize {
        if self.has_angles { 2 * N - 1 } else { N }
    }

    /// Voltages in the frame of the message, and the turns that lead there.
    fn frame(&self, u: &[C64; N]) -> ([C64; N], [C64; N]) {
        let turns: [C64; N] = std::array::from_fn(|k| {
            let own = if self.has_angles { u[0] } else { u[k] };
            own.conj() / own.norm()
        });
        (std::array::from_fn(|k| u[k] * turns[k]), turns)
    }

    /// How far the voltages are from what the message says; a voltage has no imaginary part in its own frame.
    fn deviation(&self, framed: &[C64; N]) -> [C64; N] {
        self.in_frame(std::array::from_fn(|k| framed[k] - self.voltage[k]))
    }

    fn in_frame(&self, mut framed: [C64; N]) -> [C64; N] {
        let n_own = if self.has_angles { 1 } else { N };
        framed.iter_mut().take(n_own).for_each(|u| u.im = 0.0);
        framed
    }

    /// The gradient by the voltages of a function whose gradient by the framed voltages is `g`.
    fn pull_back(&self, u: &[C64; N], framed: &[C64; N], turns: &[C64; N], g: &[C64; N]) -> [C64; N] {
        let mut gradient = std::array::from_fn(|k| g[k] * turns[k].conj());
        if self.has_angles {
            let twist: f64 = (0..N).map(|k| (g[k].conj() * C64::I * framed[k]).re).sum();
            gradient[0] -= u[0] * C64::I * (twist / u[0].norm_sqr());
        }
        gradient
    }

    /// How the framed voltages move with the voltages.
    fn moved(&self, u: &[C64; N], framed: &[C64; N], turns: &[C64; N], by: &[C64; N]) -> [C64; N] {
        let turned = match self.has_angles {
            true => (u[0].conj() * by[0]).im / u[0].norm_sqr(),
            false => 0.0,
        };
        self.in_frame(std::array::from_fn(|k| by[k] * turns[k] - C64::I * framed[k] * turned))
    }

    fn estimated(&self, u: &[C64; N], n: &[C64; N], deviation: &[C64; N]) -> ([C64; N], [C64; N]) {
        let m: [C64; N] = std::array::from_fn(|k| (n[k] / u[k]).conj());
        let (followed, corrected) = (self.slope.times(deviation), self.variance.times(&m));
        (std::array::from_fn(|k| self.power[k] + followed[k] - corrected[k]), m)
    }

    /// `F1` and `F2` as in [`super::local`].
    pub(super) fn equations<const B: usize>(&self, x: &Column<B>) -> ([C64; N], [C64; N]) {
        let (u, n) = (to_phases(&voltages(x)), to_phases(&multipliers(x)));
        let (framed, turns) = self.frame(&u);
        let deviation = self.deviation(&framed);
        let (power, m) = self.estimated(&u, &n, &deviation);
        let current: [C64; N] = std::array::from_fn(|k| (power[k] / u[k]).conj());
        let (own, from_power) = (self.information.times(&deviation), self.slope.transposed_times(&m));
        let pulled = self.pull_back(&u, &framed, &turns, &std::array::from_fn(|k| own[k] + from_power[k]));
        let mut f1 = to_sequences(&std::array::from_fn(|k| pulled[k] - m[k] * current[k]));
        if let Some(guess) = &self.taken_back {
            let gradient = voltage_gradient(guess, &voltages(x));
            (0..N).for_each(|k| f1[k] += gradient[k]);
        }
        (f1, to_sequences(&current))
    }

    /// Gauss-Newton derivative of the equations.
    pub(super) fn derivative<const B: usize>(&self, x: &Column<B>) -> Block<B> {
        let (u, n) = (to_phases(&voltages(x)), to_phases(&multipliers(x)));
        let (framed, turns) = self.frame(&u);
        let (power, _) = self.estimated(&u, &n, &self.deviation(&framed));
        let mut block = super::block::zero();
        for column in 0..2 * N {
            let mut unit = [C64::ZERO; N];
            unit[column / 2] = if column % 2 == 0 { C64::ONE } else { C64::I };
            let unit = to_phases(&unit);
            // a move of the voltages
            let moved = self.moved(&u, &framed, &turns, &unit);
            let f1 = self.pull_back(&u, &framed, &turns, &self.information.times(&moved));
            let d_power = self.slope.times(&moved);
            let f2: [C64; N] = std::array::from_fn(|k| ((d_power[k] - power[k] * unit[k] / u[k]) / u[k]).conj());
            let (f1, f2) = (to_sequences(&f1), to_sequences(&f2));
            // a move of the multipliers
            let dm: [C64; N] = std::array::from_fn(|k| (unit[k] / u[k]).conj());
            let d_power = self.variance.times(&dm);
            let g2: [C64; N] = to_sequences(&std::array::from_fn(|k| -(d_power[k] / u[k]).conj()));
            for k in 0..N {
                let (nu, at) = (2 * (N + k), 2 * N + column);
                (block[column][2 * k], block[column][2 * k + 1]) = (f1[k].re, f1[k].im);
                (block[column][nu], block[column][nu + 1]) = (f2[k].re, f2[k].im);
                (block[nu][column], block[nu + 1][column]) = (f2[k].re, f2[k].im);
                (block[at][nu], block[at][nu + 1]) = (g2[k].re, g2[k].im);
            }
        }
        if let Some(guess) = &self.taken_back {
            add_voltage_derivative(guess, &voltages(x), true, &mut block);
        }
        block
    }

    /// The weighted sum of squares of what the message says against the state.
    pub(super) fn sum<const B: usize>(&self, x: &Column<B>) -> f64 {
        let (u, n) = (to_phases(&voltages(x)), to_phases(&multipliers(x)));
        let deviation = self.deviation(&self.frame(&u).0);
        let (_, m) = self.estimated(&u, &n, &deviation);
        dot(&deviation, &self.information.times(&deviation)) + dot(&m, &self.variance.times(&m))
    }
}

impl<const N: usize, const B: usize> Estimator<N, B> {
    /// What this estimate says about a node (the root of an area, as a rule) and the power that its appliances inject there: that of the
    /// source that stands for the grid above.
    ///
    /// # Errors
    /// [`GridError::Area`] for a node without supply, or one whose own loads are not measured.
    pub fn boundary(&self, network: &Network, _uncertainty: &Uncertainty<N, B>, node: usize) -> Result<BoundaryEstimate<N>, GridError> {
        let id = network.nodes.get(node).map_or(-1, |node| node.id);
        let refused = |reason: &str| GridError::Area {
            area: format!("of node {id}"),
            reason: reason.to_owned(),
        };
        let position = self.position(node).ok_or_else(|| refused("its root has no supply"))?;
        let u = to_phases::<N>(&voltages(&self.state[position]));
        let turn = u[0].conj() / u[0].norm();
        // in the frame of phase a, whose own angle is exact here
        let mut functionals: Vec<Functional<B>> = Vec::with_capacity(4 * N);
        for part in [C64::ONE, C64::I] {
            functionals.extend((0..N).map(|k| vec![(position, along_phase::<N, B>(k, part * turn.conj()))]));
        }
        functionals.extend(self.injection_functionals(position));
        let mut covariance = self.gain.covariance_of(&functionals);
        let mut power = self.injection_at(position);
        // the root's own loads are part of what flows in
        for (value, variance) in self.readings.appliances_at(network, node) {
            for k in 0..N {
                if !variance[k].re.is_finite() || !variance[k].im.is_finite() {
                    return Err(refused("a load at its root is not measured"));
                }
                power[k] -= value[k];
                covariance[2 * N + k][2 * N + k] += variance[k].re;
                covariance[3 * N + k][3 * N + k] += variance[k].im;
            }
        }
        let is_here = |reference: &&AngleReference<N>| reference.is_balance && reference.n_readings > 0 && reference.position == position;
        Ok(BoundaryEstimate {
            voltage_pu: u.map(|u| u * turn),
            power_pu: power,
            covariance,
            balance: self.gain.references.iter().find(is_here).copied(),
            guess: self
                .readings
                .guesses
                .iter()
                .map(|&index| self.readings.voltages[index])
                .find(|guess| guess.position == position),
            has_angles: true,
        })
    }

    /// Takes what an area below says about its root as a reading of that node, in place of all that is known of the node's appliances.
    ///
    /// # Errors
    /// [`GridError::Area`] for a node without supply and a covariance that cannot be used.
    pub fn set_boundary(&mut self, network: &Network, node: usize, message: &BoundaryEstimate<N>) -> Result<(), GridError> {
        let area = format!("below node {}", network.nodes.get(node).map_or(-1, |node| node.id));
        let position = self.position(node).ok_or_else(|| GridError::Area {
            area: area.clone(),
            reason: "its root has no supply in the upper area".to_owned(),
        })?;
        let boundary = Boundary::new(position, message, &area)?;
        self.settle();
        self.changes.start(false);
        let exact = self.gain.injection_mut(position);
        exact.power = [C64::ZERO; N];
        exact.variance = [C64::ZERO; N];
        exact.is_unknown = false;
        match self.gain.boundaries.iter_mut().find(|known| known.position == position) {
            Some(known) => {
                // a message that weighs nearly as the last one leaves the factors good enough to go on with
                self.is_factorized &= known.weighs_like(&boundary, REWEIGHED_MAX);
                *known = boundary;
            }
            None => {
                self.is_factorized = false;
                self.gain.boundaries.push(boundary);
            }
        }
        let taken_back = message.balance.map(|balance| balance.taken_back(position));
        let is_here = |reference: &AngleReference<N>| reference.is_balance && reference.position == position;
        match (self.gain.references.iter_mut().find(|reference| is_here(reference)), taken_back) {
            (Some(known), Some(taken_back)) => *known = taken_back,
            (None, None) => {}
            (_, taken_back) => {
                self.gain.references.retain(|reference| !is_here(reference));
                self.gain.references.extend(taken_back);
                self.gain.index_readings(&self.readings);
            }
        }
        Ok(())
    }

    /// Expects the phases of a node to be turned against each other as these voltages are, where [`EstimateOptions::balance_sigma_rad`]
    /// expects 120 degrees. With what the upper area has found of its root, an area's message is that of a state close to the joined
    /// estimate's, and second order no longer shows.
    pub fn expect_angles(&mut self, node: usize, voltage_pu: &[C64; N]) {
        let Some(position) = self.position(node) else {
            return;
        };
        let expected = voltage_pu.map(|u| (u * voltage_pu[0].conj()).arg());
        for reference in self
            .gain
            .references
            .iter_mut()
            .filter(|reference| reference.is_balance && reference.position == position)
        {
            reference.expected = expected;
        }
        self.settle();
        self.changes.start(false);
    }
}
