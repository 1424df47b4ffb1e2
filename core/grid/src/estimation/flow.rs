//! What a reading at the end of a branch says about the voltages at both ends.

use super::block::{Block, zero};
use super::readings::{Flow, Quantity};
use crate::model::{C64, to_phases};
use crate::network::CurrentAngle;

/// Below this a current has no direction, per unit.
const NO_CURRENT: f64 = 1e-12;

/// A flow at given voltages: voltage and current at the measured end by phase, and what the sensor should read.
pub(super) struct Operating<const N: usize> {
    u: [C64; N],
    i: [C64; N],
    pub(super) reading: [C64; N],
}

/// Derivatives of the expected reading by the parts of the voltages (symmetrical components) at the near and at the far end.
pub(super) struct Jacobian<const N: usize, const B: usize> {
    pub(super) near: [[C64; N]; B],
    pub(super) far: [[C64; N]; B],
}

#[inline(always)]
fn current<const N: usize>(flow: &Flow<N>, near: &[C64; N], far: &[C64; N]) -> [C64; N] {
    to_phases(&std::array::from_fn(|k| flow.y_near[k] * near[k] + flow.y_far[k] * far[k]))
}

impl<const N: usize> Flow<N> {
    /// What the sensor should read.
    pub(super) fn at(&self, near: &[C64; N], far: &[C64; N]) -> Operating<N> {
        let (u, i) = (to_phases(near), current(self, near, far));
        let reading = std::array::from_fn(|k| match self.quantity {
            Quantity::Power => u[k] * i[k].conj(),
            Quantity::Current(CurrentAngle::Global) => i[k],
            Quantity::Current(CurrentAngle::Local) => i[k].conj() * u[k] / u[k].norm(),
            Quantity::CurrentMagnitude => C64::new(i[k].norm(), 0.0),
        });
        Operating { u, i, reading }
    }

    /// Change of the reading with a change of the voltages.
    fn derivative(&self, at: &Operating<N>, near: &[C64; N], far: &[C64; N]) -> [C64; N] {
        let (du, di) = (to_phases(near), current(self, near, far));
        std::array::from_fn(|k| match self.quantity {
            Quantity::Power => du[k] * at.i[k].conj() + at.u[k] * di[k].conj(),
            Quantity::Current(CurrentAngle::Global) => di[k],
            Quantity::Current(CurrentAngle::Local) => {
                let turned = (at.u[k].conj() * du[k]).im / at.u[k].norm_sqr();
                di[k].conj() * at.u[k] / at.u[k].norm() + C64::I * at.reading[k] * turned
            }
            Quantity::CurrentMagnitude => match at.i[k].norm() > NO_CURRENT {
                true => C64::new((at.i[k].conj() * di[k]).re / at.i[k].norm(), 0.0),
                false => C64::ZERO,
            },
        })
    }

    /// All derivatives; entries from `2 * N` on stay zero.
    pub(super) fn jacobian<const B: usize>(&self, at: &Operating<N>) -> Jacobian<N, B> {
        let zero = [C64::ZERO; N];
        let mut jacobian = Jacobian {
            near: [zero; B],
            far: [zero; B],
        };
        for column in 0..2 * N {
            let mut unit = zero;
            unit[column / 2] = if column % 2 == 0 { C64::ONE } else { C64::I };
            jacobian.near[column] = self.derivative(at, &unit, &zero);
            if self.far != self.near {
                jacobian.far[column] = self.derivative(at, &zero, &unit);
            }
        }
        jacobian
    }

    /// Gradients of the weighted sum of squares (halved) by the voltages at both ends.
    pub(super) fn gradients<const B: usize>(&self, at: &Operating<N>) -> ([f64; B], [f64; B]) {
        let jacobian = self.jacobian::<B>(at);
        let pull: [C64; N] = std::array::from_fn(|k| {
            let residual = at.reading[k] - self.value[k];
            C64::new(self.weight[k].re * residual.re, self.weight[k].im * residual.im)
        });
        let along = |columns: &[[C64; N]; B]| {
            std::array::from_fn(|column| {
                (0..N)
                    .map(|k| columns[column][k].re * pull[k].re + columns[column][k].im * pull[k].im)
                    .sum()
            })
        };
        (along(&jacobian.near), along(&jacobian.far))
    }

    /// Gauss-Newton curvature between the voltages of two ends: `a' W b`.
    pub(super) fn curvature<const B: usize>(&self, a: &[[C64; N]; B], b: &[[C64; N]; B]) -> Block<B> {
        let mut block = zero();
        for column in 0..2 * N {
            for row in 0..2 * N {
                block[column][row] = (0..N)
                    .map(|k| a[row][k].re * self.weight[k].re * b[column][k].re + a[row][k].im * self.weight[k].im * b[column][k].im)
                    .sum();
            }
        }
        block
    }

    /// What Gauss-Newton leaves out of the curvature: the residuals times the second derivatives of the power, between the parts of the
    /// voltages at the near end and, likewise, of the near with the far end. Nothing for currents.
    pub(super) fn second_derivatives<const B: usize>(&self, at: &Operating<N>) -> (Block<B>, Block<B>) {
        let (mut near_near, mut near_far) = (zero(), zero());
        if self.quantity != Quantity::Power {
            return (near_near, near_far);
        }
        let zero = [C64::ZERO; N];
        let mut du = [zero; B];
        let (mut di_near, mut di_far) = ([zero; B], [zero; B]);
        for column in 0..2 * N {
            let mut unit = zero;
            unit[column / 2] = if column % 2 == 0 { C64::ONE } else { C64::I };
            du[column] = to_phases(&unit);
            di_near[column] = current(self, &unit, &zero);
            di_far[column] = current(self, &zero, &unit);
        }
        let pull: [C64; N] = std::array::from_fn(|k| {
            let residual = at.reading[k] - self.value[k];
            C64::new(self.weight[k].re * residual.re, self.weight[k].im * residual.im).conj()
        });
        let both = |du: &[C64; N], di: &[C64; N]| (0..N).map(|k| (pull[k] * du[k] * di[k].conj()).re).sum::<f64>();
        for column in 0..2 * N {
            for row in 0..2 * N {
                near_near[column][row] = both(&du[row], &di_near[column]) + both(&du[column], &di_near[row]);
                near_far[column][row] = both(&du[row], &di_far[column]);
            }
        }
        (near_near, near_far)
    }
}
