//! Newton's method on the current balance, for what the sweeps cannot solve.
//!
//! Unknown are the real and imaginary parts of the phase voltages; the balance of currents at a node is linear in its neighbours'
//! voltages, so only the diagonal blocks change from step to step. The matrix has the grid's pattern and is eliminated in the grid's
//! order.

use std::collections::HashMap;

use nalgebra::SMatrix;

use super::{Convergence, Options, PowerFlow, VoltageDependent, constant_power_current};
use crate::admittance::add;
use crate::elimination::Elimination;
use crate::error::GridError;
use crate::model::{C64, larger, to_phases, to_sequences};

/// A step is halved at most this often.
const N_HALVINGS_MAX: usize = 6;

/// Solves with blocks of the right size.
pub(super) fn solve<const N: usize>(power_flow: &mut PowerFlow<N>, options: &Options) -> Result<Convergence, GridError> {
    match N {
        1 => iterate::<N, 2>(power_flow, options),
        _ => iterate::<N, 6>(power_flow, options),
    }
}

type Block<const M: usize> = SMatrix<f64, M, M>;
type Vector<const M: usize> = SMatrix<f64, M, 1>;

fn iterate<const N: usize, const M: usize>(flow: &mut PowerFlow<N>, options: &Options) -> Result<Convergence, GridError> {
    let order = flow.admittance.order.clone();
    let n = order.len();
    let upper: Vec<Block<M>> = flow.admittance.upper.iter().map(linear::<N, M>).collect();
    let lower: Vec<Block<M>> = flow.admittance.lower.iter().map(linear::<N, M>).collect();
    let mut diagonal: Vec<Block<M>> = flow.admittance.diagonal.iter().map(linear::<N, M>).collect();
    for (position, y) in &flow.source_admittance {
        diagonal[*position as usize] += linear::<N, M>(y);
    }
    let mut dependent: HashMap<u32, Vec<VoltageDependent<N>>> = HashMap::new();
    for load in &flow.voltage_dependent {
        dependent.entry(load.position).or_default().push(*load);
    }
    let failed = |step_pu: f64, iterations: usize| GridError::NotConverged {
        what: "power flow",
        step_pu,
        tolerance_pu: options.tolerance_pu,
        iterations,
        remedy: "the loads are most likely more than the grid can carry; check their units and the impedances",
    };
    let (mut mismatch, mut size) = balance::<N>(flow, &flow.voltage);
    let mut step_pu = f64::INFINITY;
    for iterations in 0..options.iterations_max {
        let mut jacobian = diagonal.clone();
        for i in 0..n {
            jacobian[i] -= load_derivative::<N, M>(flow, &dependent, i);
        }
        let mut step: Vec<Vector<M>> = mismatch.iter().map(real::<N, M>).collect();
        if !eliminate(&order, jacobian, upper.clone(), lower.clone(), &mut step) {
            return Err(failed(step_pu, iterations));
        }
        let start = flow.voltage.clone();
        let mut part = 1.0;
        for halving in 0..=N_HALVINGS_MAX {
            for i in 0..n {
                let change = complex::<N, M>(&(step[i] * part));
                flow.voltage[i] = std::array::from_fn(|k| start[i][k] + change[k]);
            }
            let (new_mismatch, new_size) = balance::<N>(flow, &flow.voltage);
            if new_size < size || halving == N_HALVINGS_MAX || new_size < 1e-10 {
                (mismatch, size) = (new_mismatch, new_size);
                break;
            }
            part *= 0.5;
        }
        step_pu = step.iter().map(|step| (step * part).norm()).fold(0.0, f64::max);
        if !step_pu.is_finite() {
            return Err(failed(step_pu, iterations + 1));
        }
        if step_pu <= options.tolerance_pu {
            return Ok(Convergence {
                iterations: iterations + 1,
                step_pu,
            });
        }
    }
    Err(failed(step_pu, options.iterations_max))
}

/// The largest current that does not balance, as a share of the largest that meet at its node.
pub(super) fn worst_imbalance<const N: usize>(flow: &PowerFlow<N>) -> f64 {
    let (rest, _) = balance::<N>(flow, &flow.voltage);
    let (admittance, order) = (&flow.admittance, &flow.admittance.order);
    let norm = |y: &[C64; N], v: &[C64; N]| (0..N).map(|k| (y[k] * v[k]).norm()).fold(0.0, larger);
    let mut meeting: Vec<f64> = (0..order.len()).map(|i| norm(&admittance.diagonal[i], &flow.voltage[i])).collect();
    for i in 0..order.len() {
        for slot in order.slots(i) {
            let j = order.later[slot] as usize;
            meeting[i] = larger(meeting[i], norm(&admittance.upper[slot], &flow.voltage[j]));
            meeting[j] = larger(meeting[j], norm(&admittance.lower[slot], &flow.voltage[i]));
        }
    }
    for (position, current) in &flow.source_current {
        meeting[*position as usize] = larger(meeting[*position as usize], current.iter().map(C64::norm_sqr).sum::<f64>().sqrt());
    }
    let share = |i: usize| rest[i].iter().map(C64::norm_sqr).sum::<f64>().sqrt() / larger(meeting[i], 1.0);
    (0..order.len()).map(share).fold(0.0, larger)
}

/// Currents that do not balance, symmetrical components, and their norm.
fn balance<const N: usize>(flow: &PowerFlow<N>, voltage: &[[C64; N]]) -> (Vec<[C64; N]>, f64) {
    let (admittance, order) = (&flow.admittance, &flow.admittance.order);
    let mut rest: Vec<[C64; N]> = (0..order.len())
        .map(|i| {
            let injected = constant_power_current(&flow.power[i], &voltage[i]);
            std::array::from_fn(|k| injected[k] - admittance.diagonal[i][k] * voltage[i][k])
        })
        .collect();
    for load in &flow.voltage_dependent {
        let position = load.position as usize;
        add(&mut rest[position], &load.current(&voltage[position]));
    }
    for ((position, current), (_, y)) in flow.source_current.iter().zip(&flow.source_admittance) {
        let position = *position as usize;
        for k in 0..N {
            rest[position][k] += current[k] - y[k] * voltage[position][k];
        }
    }
    for i in 0..order.len() {
        for slot in order.slots(i) {
            let j = order.later[slot] as usize;
            for k in 0..N {
                rest[i][k] -= admittance.upper[slot][k] * voltage[j][k];
                rest[j][k] -= admittance.lower[slot][k] * voltage[i][k];
            }
        }
    }
    let size = rest.iter().flatten().map(C64::norm_sqr).sum::<f64>().sqrt();
    (rest, size)
}

/// Derivative of the loads' currents at a position by its voltages.
fn load_derivative<const N: usize, const M: usize>(
    flow: &PowerFlow<N>,
    dependent: &HashMap<u32, Vec<VoltageDependent<N>>>,
    position: usize,
) -> Block<M> {
    let u = to_phases(&flow.voltage[position]);
    let dependent = dependent.get(&(position as u32)).map_or(&[][..], Vec::as_slice);
    columns::<N, M>(|du| {
        std::array::from_fn(|k| {
            let mut current = -(flow.power[position][k] / (u[k] * u[k])).conj() * du[k].conj();
            for load in dependent {
                let (size, along) = (u[k].norm(), (u[k].conj() * du[k]).re);
                current += load.impedance[k].conj() * du[k];
                current += load.current[k].conj() * (du[k] / size - u[k] * (along / size.powi(3)));
            }
            current
        })
    })
}

/// A real-linear map of phase voltages to phase currents as a matrix.
fn columns<const N: usize, const M: usize>(map: impl Fn(&[C64; N]) -> [C64; N]) -> Block<M> {
    let mut block = Block::<M>::zeros();
    for column in 0..M {
        let mut unit = [C64::ZERO; N];
        unit[column % N] = if column < N { C64::ONE } else { C64::I };
        for (k, current) in map(&unit).iter().enumerate() {
            block[(k, column)] = current.re;
            block[(N + k, column)] = current.im;
        }
    }
    block
}

/// An admittance by symmetrical component as a matrix over phases.
fn linear<const N: usize, const M: usize>(y: &[C64; N]) -> Block<M> {
    columns::<N, M>(|u| {
        let u = to_sequences(u);
        to_phases(&std::array::from_fn(|k| y[k] * u[k]))
    })
}

fn real<const N: usize, const M: usize>(x: &[C64; N]) -> Vector<M> {
    let phases = to_phases(x);
    Vector::<M>::from_fn(|row, _| if row < N { phases[row].re } else { phases[row - N].im })
}

fn complex<const N: usize, const M: usize>(x: &Vector<M>) -> [C64; N] {
    to_sequences(&std::array::from_fn(|k| C64::new(x[k], x[N + k])))
}

/// Block elimination and substitution; false if a pivot has no inverse.
fn eliminate<const M: usize>(
    order: &Elimination,
    mut pivots: Vec<Block<M>>,
    mut upper: Vec<Block<M>>,
    mut lower: Vec<Block<M>>,
    x: &mut [Vector<M>],
) -> bool {
    for i in 0..order.len() {
        let Some(inverse) = pivots[i].try_inverse() else {
            return false;
        };
        pivots[i] = inverse;
        x[i] = inverse * x[i];
        let slots = order.slots(i);
        for slot in slots.clone() {
            upper[slot] = inverse * upper[slot];
        }
        for (a, slot_a) in slots.clone().enumerate() {
            let later = order.later[slot_a] as usize;
            let half = x[i];
            x[later] -= lower[slot_a] * half;
            pivots[later] -= lower[slot_a] * upper[slot_a];
            for (b, slot_b) in slots.clone().enumerate().skip(a + 1) {
                let filled = order.pair_slot(i, slots.len(), a, b);
                let (in_upper, in_lower) = (lower[slot_a] * upper[slot_b], lower[slot_b] * upper[slot_a]);
                upper[filled] -= in_upper;
                lower[filled] -= in_lower;
            }
        }
    }
    for i in (0..order.len()).rev() {
        for slot in order.slots(i) {
            let later = x[order.later[slot] as usize];
            x[i] -= upper[slot] * later;
        }
    }
    true
}
