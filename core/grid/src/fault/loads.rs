//! What the loads draw: the state before the fault, and their admittances while the fault is on.

use nalgebra::{DMatrix, DVector};

use super::feeder::Feeder;
use super::kind::phases_to_sequences;
use super::reduction::{M3, Reduction, V3};
use crate::error::GridError;
use crate::model::{C64, balanced, to_phases};
use crate::network::{LoadKind, Network};
use crate::power_flow::injection;

/// Standard deviation of the factor between what the network says of the loads and what they drew.
const SCALE_SIGMA: f64 = 1.0;
/// The voltages before the fault are found when none changes by more, per unit.
const TOLERANCE_PU: f64 = 1e-11;
const ITERATIONS_MAX: usize = 100;
/// Most of the current before the fault that scaled loads may leave unexplained.
const UNEXPLAINED_MAX: f64 = 0.5;
const SCALE_ITERATIONS_MAX: usize = 8;

/// Consumption by phase at rated voltage, per unit, by how it depends on the voltage.
#[derive(Debug, Clone, Copy, Default)]
struct Consumption {
    power: [C64; 3],
    current: [C64; 3],
    impedance: [C64; 3],
}

impl Consumption {
    fn add(&mut self, kind: LoadKind, power: [C64; 3]) {
        let sum = match kind {
            LoadKind::ConstantPower => &mut self.power,
            LoadKind::ConstantCurrent => &mut self.current,
            LoadKind::ConstantImpedance => &mut self.impedance,
        };
        crate::admittance::add(sum, &power);
    }

    /// Admittance by phase at a voltage. Below `floor_pu`, constant power and current become constant impedance.
    fn admittance(&self, u: &[C64; 3], floor_pu: f64) -> [C64; 3] {
        std::array::from_fn(|k| {
            let size = u[k].norm().max(floor_pu);
            (self.power[k] / (size * size) + self.current[k] / size + self.impedance[k]).conj()
        })
    }
}

/// The loads and generators of a feeder by index in the tree.
#[derive(Debug, Clone)]
pub(super) struct Loads {
    loads: Vec<Consumption>,
    generators: Vec<Consumption>,
    floor_pu: f64,
    /// By how much the loads of each phase are more than the network says.
    pub(super) scale: [C64; 3],
    /// Voltages by index in the tree, symmetrical components.
    pub(super) voltage: Vec<V3>,
    /// How far the measured current is from what this state draws, in standard deviations (root mean square of the phases).
    pub(super) misfit: f64,
}

impl Loads {
    /// Takes the set points from the network.
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] for one without power.
    pub(super) fn new(network: &Network, feeder: &Feeder, floor_pu: f64) -> Result<Self, GridError> {
        let none = vec![Consumption::default(); feeder.nodes.len()];
        let mut loads = Self {
            loads: none.clone(),
            generators: none,
            floor_pu,
            scale: [C64::ONE; 3],
            voltage: vec![V3::from(balanced::<3>()); feeder.nodes.len()],
            misfit: 0.0,
        };
        for appliance in network.appliances.iter().filter(|appliance| appliance.connected) {
            if let Some(at) = feeder.appliance_index(appliance.node) {
                let consumed = injection::<3>(appliance)?.map(|s| -s);
                let list = if appliance.is_generator {
                    &mut loads.generators
                } else {
                    &mut loads.loads
                };
                list[at].add(appliance.kind, consumed);
            }
        }
        Ok(loads)
    }

    /// Admittances by index in the tree at the given voltages, symmetrical components.
    pub(super) fn admittances(&self, voltage: &[V3]) -> Vec<M3> {
        let each = self.loads.iter().zip(&self.generators).zip(voltage);
        each.map(|((load, generator), v)| {
            let u = to_phases(&(*v).into());
            let (load, generator) = (load.admittance(&u, self.floor_pu), generator.admittance(&u, self.floor_pu));
            phases_to_sequences(&std::array::from_fn(|k| load[k] * self.scale[k].conj() + generator[k]))
        })
        .collect()
    }

    /// By what share the voltages at the loads have changed from before, the mean over the current of each phase.
    pub(super) fn sag(&self, during: &[V3]) -> [f64; 3] {
        let (mut sum, mut weight) = ([0.0; 3], [1e-12; 3]);
        let each = self.loads.iter().zip(&self.generators).zip(self.voltage.iter().zip(during));
        for ((load, generator), (before, during)) in each {
            let (before, during) = (to_phases::<3>(&(*before).into()), to_phases::<3>(&(*during).into()));
            let (load, generator) = (
                load.admittance(&before, self.floor_pu),
                generator.admittance(&before, self.floor_pu),
            );
            for k in 0..3 {
                let current = (load[k].norm() + generator[k].norm()) * before[k].norm();
                sum[k] += current * (1.0 - during[k].norm() / before[k].norm().max(1e-3)).abs();
                weight[k] += current;
            }
        }
        std::array::from_fn(|k| sum[k] / weight[k])
    }

    /// Finds the state before the fault: voltages, and the factor of each phase's loads that makes them draw the measured current.
    ///
    /// Voltage and current at the head are in symmetrical components, per unit; `sigma` is that of the current by phase.
    ///
    /// # Errors
    /// [`GridError::NotConverged`] where the loads cannot be carried.
    pub(super) fn fit(&mut self, network: &Network, feeder: &Feeder, head: (&V3, &V3), sigma: &[f64; 3]) -> Result<(), GridError> {
        let (voltage, current) = head;
        for v in &mut self.voltage {
            *v = *voltage;
        }
        let residual = |loads: &mut Self| -> Result<DVector<f64>, GridError> {
            let drawn = loads.solve(network, feeder, voltage)?;
            let difference = to_phases(&(current - drawn).into());
            let mut rows = Vec::with_capacity(12);
            for k in 0..3 {
                rows.extend([difference[k].re / sigma[k], difference[k].im / sigma[k]]);
                let scale = loads.scale[k] - C64::ONE;
                rows.extend([scale.re / SCALE_SIGMA, scale.im / SCALE_SIGMA]);
            }
            Ok(DVector::from_vec(rows))
        };
        let mut now = residual(self)?;
        for _ in 0..SCALE_ITERATIONS_MAX {
            let mut slope = DMatrix::zeros(12, 6);
            let (scale, start) = (self.scale, self.voltage.clone());
            for column in 0..6 {
                let step = 1e-4;
                let turn = if column % 2 == 0 {
                    C64::new(step, 0.0)
                } else {
                    C64::new(0.0, step)
                };
                self.scale[column / 2] += turn;
                slope.set_column(column, &((residual(self)? - &now) / step));
                (self.scale, self.voltage) = (scale, start.clone());
            }
            let gradient = slope.tr_mul(&now);
            let Some(change) = slope.tr_mul(&slope).cholesky().map(|factor| factor.solve(&gradient)) else {
                break;
            };
            for k in 0..3 {
                self.scale[k] -= C64::new(change[2 * k], change[2 * k + 1]);
            }
            now = residual(self)?;
            if change.amax() < 1e-9 {
                break;
            }
        }
        let unexplained: f64 = (0..12)
            .filter(|row| row % 4 < 2)
            .map(|row| (now[row] * sigma[row / 4]).powi(2))
            .sum();
        if !(unexplained.sqrt() <= UNEXPLAINED_MAX * current.norm()) {
            return Err(GridError::FaultRecord {
                field: "before.current",
                reason: "the network's loads do not draw it, whatever they are scaled by; check the loads' units, the order of the record's phases and head.branch".to_owned(),
            });
        }
        // the rows of the measured current alone
        let square: f64 = (0..12).filter(|row| row % 4 < 2).map(|row| now[row] * now[row]).sum();
        self.misfit = (square / 6.0).sqrt();
        Ok(())
    }

    /// Voltages at the loads' present scale; the current this draws at the head.
    fn solve(&mut self, network: &Network, feeder: &Feeder, head: &V3) -> Result<V3, GridError> {
        let mut step = f64::INFINITY;
        for _ in 0..ITERATIONS_MAX {
            let reduction = Reduction::new(network, feeder, &self.admittances(&self.voltage))?;
            step = 0.0;
            for (v, place) in self.voltage.iter_mut().zip(&reduction.places) {
                let new = place.voltage * head;
                step = f64::max(step, (new - *v).norm());
                *v = new;
            }
            if step < TOLERANCE_PU {
                return Ok(reduction.at_head * head);
            }
            if !step.is_finite() {
                break;
            }
        }
        Err(GridError::NotConverged {
            what: "the state before the fault",
            step_pu: step,
            tolerance_pu: TOLERANCE_PU,
            iterations: ITERATIONS_MAX,
            remedy: "the network's loads are most likely more than the feeder can carry; check their units and the impedances",
        })
    }
}
