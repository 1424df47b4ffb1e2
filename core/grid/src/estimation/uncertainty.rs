//! Standard deviations of what the estimate says.

use std::sync::OnceLock;

use super::block::{Column, multipliers, voltages};
use super::covariance::{Covariance, Functional, along_phase};
use super::gain::{Gain, SingularAt};
use super::local::estimated_injection;
use super::{Estimator, GridError};
use crate::elimination::NONE;
use crate::flows::BranchFlow;
use crate::model::{C64, to_phases, to_sequences};
use crate::network::{Network, Terminal};

/// The covariance of an estimate, at the state it was asked for. It is worked out when somebody first looks at it, from the factors that
/// were made then; once the estimator has gone on, ask it anew.
#[derive(Debug, Clone)]
pub struct Uncertainty<const N: usize, const B: usize> {
    covariance: OnceLock<Covariance<B>>,
}

impl<const N: usize, const B: usize> Uncertainty<N, B> {
    pub(super) fn covariance(&self, gain: &Gain<N, B>) -> &Covariance<B> {
        self.covariance.get_or_init(|| Covariance::new(gain))
    }
}

impl<const N: usize, const B: usize> Estimator<N, B> {
    /// Covariance of the estimate, as the readings' standard deviations make it: the gain matrix at the present state, factorized now, and
    /// inverted on the pattern of the grid as soon as a standard deviation is asked for.
    ///
    /// # Errors
    /// [`GridError::Singular`].
    pub fn uncertainty(&mut self) -> Result<Uncertainty<N, B>, GridError> {
        self.settle();
        self.changes.start(false);
        self.factorize(true)?;
        Ok(Uncertainty {
            covariance: OnceLock::new(),
        })
    }

    /// Estimated flow through a branch.
    pub fn branch_flow(&self, network: &Network, branch: usize) -> BranchFlow<N> {
        crate::flows::branch_flow(network, &self.admittance, branch, |position| voltages(&self.unknowns(position)))
    }

    /// Full covariance of the voltages of some nodes, per unit: for each node the real parts of its phases, then the imaginary parts.
    /// Costs one solution a row; belongs to the state of the last [`Self::uncertainty`].
    ///
    /// # Shape
    /// `2 * N * nodes.len()` squared; nodes without supply are left out.
    pub fn voltage_covariance(&self, _uncertainty: &Uncertainty<N, B>, nodes: &[usize]) -> Vec<Vec<f64>> {
        let functionals: Vec<Functional<B>> = nodes
            .iter()
            .filter_map(|&node| self.position(node))
            .flat_map(|position| {
                let part = move |c: C64| (0..N).map(move |k| vec![(position, along_phase::<N, B>(k, c))]);
                part(C64::ONE).chain(part(C64::I))
            })
            .collect();
        self.gain.covariance_of(&functionals)
    }

    /// Standard deviations of a node's voltage magnitudes (per unit) and angles (rad, against the reference); `None` without supply.
    pub fn voltage_sigma(&self, uncertainty: &Uncertainty<N, B>, node: usize) -> Option<([f64; N], [f64; N])> {
        let position = self.position(node)?;
        let u = to_phases::<N>(&voltages(&self.state[position]));
        let sigma = |k: usize, c: C64| {
            uncertainty
                .covariance(&self.gain)
                .variance(position, &along_phase::<N, B>(k, c))
                .max(0.0)
                .sqrt()
        };
        Some((
            std::array::from_fn(|k| sigma(k, u[k] / u[k].norm())),
            std::array::from_fn(|k| sigma(k, u[k] * C64::I / u[k].norm_sqr())),
        ))
    }

    /// Standard deviations of the active (real part) and reactive power that a node's appliances inject, per unit; `None` without
    /// supply.
    pub fn injection_sigma(&self, uncertainty: &Uncertainty<N, B>, node: usize) -> Option<[C64; N]> {
        let position = self.position(node)?;
        let root = |c: C64| C64::new(c.re.max(0.0).sqrt(), c.im.max(0.0).sqrt());
        Some(self.injection_variance(uncertainty, position).map(root))
    }

    /// Variances of active and reactive injection at a position.
    pub(super) fn injection_variance(&self, uncertainty: &Uncertainty<N, B>, position: usize) -> [C64; N] {
        // where nothing is read, the reading's variance less what is left of it would be a difference of two huge numbers
        if self.gain.is_free(position) || self.gain.injection(position).is_unknown {
            let functionals = self.injection_functionals(position);
            let covariance = self.gain.covariance_of(&functionals);
            return std::array::from_fn(|k| C64::new(covariance[k][k], covariance[N + k][N + k]));
        }
        let reading = self.gain.injection(position);
        let u = to_phases::<N>(&voltages(&self.state[position]));
        std::array::from_fn(|k| {
            // m = conj(n / u): its real and imaginary part as functions of the multiplier
            let variance = |c: C64, r: f64| match r > 0.0 {
                true => {
                    let weighed = -uncertainty
                        .covariance(&self.gain)
                        .variance(position, &multiplier_along::<N, B>(k, c));
                    r - r * r * weighed
                }
                false => 0.0,
            };
            let inverse = u[k].inv();
            C64::new(
                variance(inverse.conj(), reading.variance[k].re),
                variance((inverse * C64::I).conj(), reading.variance[k].im),
            )
        })
    }

    /// Active, then reactive injection by phase as linear functions of the voltages around a position.
    pub(super) fn injection_functionals(&self, position: usize) -> Vec<Functional<B>> {
        let v: [C64; N] = voltages(&self.state[position]);
        let around: Vec<_> = self.admittance.row(position).collect();
        let mut current = [C64::ZERO; N];
        for (there, y) in &around {
            let v: [C64; N] = voltages(&self.state[*there]);
            (0..N).for_each(|k| current[k] += y[k] * v[k]);
        }
        let (u, i) = (to_phases(&v), to_phases(&current));
        [C64::ONE, C64::I]
            .into_iter()
            .flat_map(|part| (0..N).map(move |k| (part, k)))
            .map(|(part, k)| {
                let mut functional: Functional<B> = vec![(position, along_phase::<N, B>(k, part * i[k]))];
                for (there, y) in &around {
                    functional.push((*there, along_current::<N, B>(k, part.conj() * u[k], y)));
                }
                functional
            })
            .collect()
    }

    /// Standard deviations of active (real part) and reactive power at an end of a branch, per unit.
    pub fn flow_sigma(&self, uncertainty: &Uncertainty<N, B>, network: &Network, terminal: Terminal) -> Option<[C64; N]> {
        let (index, is_from) = match terminal {
            Terminal::BranchFrom(index) => (index, true),
            Terminal::BranchTo(index) => (index, false),
            _ => return None,
        };
        let (branch, y) = (&network.branches[index], &self.admittance.branches[index]);
        let flow = self.branch_flow(network, index);
        let (near, far, near_closed, y_near, y_far, current) = match is_from {
            true => (branch.from, branch.to, branch.from_closed, &y.ff, &y.ft, flow.i_from_pu),
            false => (branch.to, branch.from, branch.to_closed, &y.tt, &y.tf, flow.i_to_pu),
        };
        let near = self.position(near).filter(|_| near_closed)?;
        let far = self.position(far).filter(|_| branch.is_closed());
        let u = to_phases::<N>(&voltages(&self.state[near]));
        Some(std::array::from_fn(|k| {
            let sigma = |part: C64| {
                let mut at_near = along_phase::<N, B>(k, part * current[k]);
                let more = along_current::<N, B>(k, part.conj() * u[k], y_near);
                at_near.iter_mut().zip(more).for_each(|(a, b)| *a += b);
                let at_far = along_current::<N, B>(k, part.conj() * u[k], y_far);
                self.pair_variance(uncertainty, (near, &at_near), far.map(|far| (far, &at_far)))
                    .max(0.0)
                    .sqrt()
            };
            C64::new(sigma(C64::ONE), sigma(C64::I))
        }))
    }

    /// Variance of a linear function of the voltages at the ends of a branch.
    pub(super) fn pair_variance(
        &self,
        uncertainty: &Uncertainty<N, B>,
        near: (usize, &Column<B>),
        far: Option<(usize, &Column<B>)>,
    ) -> f64 {
        let Some(far) = far else {
            return uncertainty.covariance(&self.gain).variance(near.0, near.1);
        };
        let (earlier, later) = if near.0 < far.0 { (near, far) } else { (far, near) };
        match self.admittance.order.slot_between(earlier.0, later.0) {
            Some(slot) => uncertainty.covariance(&self.gain).variance_across(slot, earlier, later),
            None => f64::NAN,
        }
    }

    pub(super) fn position(&self, node: usize) -> Option<usize> {
        let position = *self.admittance.order.position.get(node)?;
        (position != NONE).then_some(position as usize)
    }

    /// What the merged reading at a position leads to, or the flow balance where the injection is free.
    pub(super) fn injection_at(&self, position: usize) -> [C64; N] {
        let x = &self.state[position];
        match self.gain.is_free(position) {
            false => estimated_injection(self.gain.injection(position), &voltages(x), &multipliers(x)),
            true => self
                .injection_pu(self.admittance.order.node[position] as usize)
                .unwrap_or([C64::ZERO; N]),
        }
    }

    /// The error for a breakdown, which knows positions, in terms of nodes.
    pub(super) fn singular(&self, SingularAt(position): SingularAt) -> GridError {
        GridError::Singular {
            what: "state estimation",
            node: self.node_ids[position],
            remedy: "check the impedances of its branches, and that its zero sequence has a path to ground",
        }
    }
}

/// The linear function `Re(conj(c) · di_k)` where `di` is the current `y` makes of a voltage.
pub(super) fn along_current<const N: usize, const B: usize>(k: usize, c: C64, y: &[C64; N]) -> Column<B> {
    let mut unit = [C64::ZERO; N];
    unit[k] = c;
    let c = to_sequences(&unit);
    let mut g = [0.0; B];
    for s in 0..N {
        let c = y[s].conj() * c[s];
        (g[2 * s], g[2 * s + 1]) = (c.re, c.im);
    }
    g
}

/// The linear function `Re(conj(c) · dn_k)` of the multiplier of phase `k`.
fn multiplier_along<const N: usize, const B: usize>(k: usize, c: C64) -> Column<B> {
    let voltage = along_phase::<N, B>(k, c);
    std::array::from_fn(|row| if row < 2 * N { 0.0 } else { voltage[row - 2 * N] })
}
