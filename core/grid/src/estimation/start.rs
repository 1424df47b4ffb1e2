//! Where an estimate begins: what of the injections is open, what ties the angles down, and the first voltages.

use super::EstimateOptions;
use super::gain::Gain;
use super::local::AngleReference;
use super::readings::{Disabled, Injection, Quantity, Readings};
use crate::admittance::Admittance;
use crate::error::GridError;
use crate::model::{C64, to_phases};
use crate::network::{CurrentAngle, Network};
use crate::power_flow::no_load_voltages;

/// Weight of "about one per unit" where no voltage is measured: the estimate exists, and says that it does not know.
const GUESS_WEIGHT: f64 = 1.0;

/// The readings of a network and the equations they make.
pub(super) fn system<const N: usize, const B: usize>(
    network: &Network,
    admittance: &Admittance<N>,
    disabled: &Disabled,
    options: &EstimateOptions,
) -> Result<(Readings<N>, Gain<N, B>), GridError> {
    let mut readings = Readings::new(network, admittance, disabled)?;
    let free = free_injections(admittance, &mut readings);
    let references = references(admittance, &mut readings, options);
    let gain = Gain::new(admittance, &readings, free, references);
    Ok((readings, gain))
}

/// Which nodes' injections the estimate leaves open: those of the roots, where it is not known. Elsewhere "unknown" is a very wide
/// reading, since a node in the middle of the elimination needs one.
pub(super) fn free_injections<const N: usize>(admittance: &Admittance<N>, readings: &mut Readings<N>) -> Vec<bool> {
    let mut free = vec![false; admittance.order.len()];
    for island in admittance.topology.islands() {
        let root = admittance.order.position[island.root] as usize;
        if readings.injections[root].is_unknown {
            free[root] = true;
            readings.injections[root] = Injection {
                power: [C64::ZERO; N],
                variance: [C64::ZERO; N],
                is_unknown: true,
            };
        }
    }
    free
}

/// Ties down the angles of each island at its root, and guesses a voltage where none is measured.
pub(super) fn references<const N: usize>(
    admittance: &Admittance<N>,
    readings: &mut Readings<N>,
    options: &EstimateOptions,
) -> Vec<AngleReference<N>> {
    let n_islands = admittance.topology.islands().len();
    let (mut has_voltage, mut has_angle) = (vec![false; n_islands], vec![false; n_islands]);
    let island_at = |position: usize| admittance.topology.island_of(admittance.order.node[position] as usize).unwrap_or(0);
    for voltage in &readings.voltages {
        has_voltage[island_at(voltage.position)] |= voltage.magnitude_weight.iter().any(|&w| w > 0.0);
        has_angle[island_at(voltage.position)] |= voltage.angle_weight.iter().any(|&w| w > 0.0);
    }
    for flow in &readings.flows {
        // a current of zero has no angle to tell
        has_angle[island_at(flow.near)] |=
            flow.quantity == Quantity::Current(CurrentAngle::Global) && flow.value.iter().any(|i| i.norm() > 1e-9);
    }
    let mut references = Vec::new();
    for (index, island) in admittance.topology.islands().iter().enumerate() {
        let root = admittance.order.position[island.root] as usize;
        if !has_voltage[index] {
            readings.guess_voltage(root, GUESS_WEIGHT);
        }
        if has_angle[index] {
            continue;
        }
        references.push(AngleReference::pin(root));
        if N == 1 {
            continue;
        }
        // the root, or else the first node of the network whose voltage is read
        let balanced = readings
            .voltages
            .iter()
            .filter(|voltage| island_at(voltage.position) == index)
            .min_by_key(|voltage| (voltage.position != root, admittance.order.node[voltage.position]));
        let (position, weight) = match (options.balance_sigma_rad, balanced) {
            (Some(sigma), _) => (root, [sigma.powi(-2); N]),
            (None, Some(voltage)) => (voltage.position, voltage.magnitude_weight),
            (None, None) => continue,
        };
        if weight.iter().all(|&weight| weight > 0.0) {
            references.push(AngleReference::balance(position, weight));
        }
    }
    references
}

/// Where the iteration begins: the voltages without load, turned so that each root's phase a has angle zero, at the height of the
/// first voltage reading.
pub(super) fn start<const N: usize>(
    network: &Network,
    admittance: &Admittance<N>,
    readings: &Readings<N>,
) -> Result<Vec<[C64; N]>, GridError> {
    let mut v = no_load_voltages(network, admittance)?;
    let mut factor = vec![C64::ONE; admittance.topology.islands().len()];
    for (island, factor) in admittance.topology.islands().iter().zip(&mut factor) {
        let root = to_phases(&v[admittance.order.position[island.root] as usize]);
        *factor = (root[0] / root[0].norm()).conj();
    }
    let island_at = |position: usize| admittance.topology.island_of(admittance.order.node[position] as usize);
    let mut is_scaled = vec![false; factor.len()];
    for voltage in &readings.voltages {
        let (Some(island), Some(k)) = (
            island_at(voltage.position),
            voltage.magnitude_weight.iter().position(|&weight| weight > 0.0),
        ) else {
            continue;
        };
        let u = to_phases(&v[voltage.position])[k].norm();
        if !is_scaled[island] && voltage.magnitude[k] > 0.1 && u > 0.1 {
            is_scaled[island] = true;
            factor[island] *= voltage.magnitude[k] / u;
            if voltage.angle_weight[k] > 0.0 {
                let turned = to_phases(&v[voltage.position])[k] * factor[island];
                factor[island] *= C64::from_polar(1.0, voltage.angle[k] - turned.arg());
            }
        }
    }
    for (position, v) in v.iter_mut().enumerate() {
        if let Some(island) = island_at(position) {
            *v = v.map(|v| v * factor[island]);
        }
    }
    Ok(v)
}
