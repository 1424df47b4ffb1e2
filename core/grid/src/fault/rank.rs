//! From fits to candidates: probabilities, and what remains when nodes have gone dark.

use std::collections::{HashMap, HashSet};

use super::LineFacts;
use super::feeder::{Feeder, HEAD};
use super::fit::{Fit, Section};
use crate::error::GridError;
use crate::network::{ComponentId, Network};

/// Points of the sum along a section.
const N_POINTS: usize = 200;
/// Real numbers measured: three complex currents for three complex voltages.
const N_READINGS: f64 = 6.0;

/// A fit and how probable it is among all.
#[derive(Debug, Clone)]
pub(super) struct Weighed {
    pub(super) section: Section,
    pub(super) fit: Fit,
    /// Probability of the section, whatever the type.
    pub(super) probability: f64,
    /// Standard deviation of the place, as a share of the section.
    pub(super) share_sigma: f64,
}

/// Degrees of freedom that a fit leaves.
pub(super) fn degrees_of_freedom(fit: &Fit, section: Section) -> f64 {
    N_READINGS - fit.resistance_ohm.len() as f64 - f64::from(u8::from(section.is_line))
}

/// Root mean square misfit, in standard deviations of the readings.
pub(super) fn misfit(fit: &Fit, section: Section) -> f64 {
    (fit.chi_square / degrees_of_freedom(fit, section)).sqrt()
}

/// Probability density along a section, summed over it, as the logarithm: `-(chi square)/2` is a parabola about the fit.
fn log_integral(fit: &Fit, excess: f64) -> f64 {
    let (information, slope) = (fit.information / excess, fit.slope / excess);
    let width = (8.0 / information.sqrt()).min(60.0 / slope.abs()).min(1.0);
    let (low, high) = ((fit.share - width).max(0.0), (fit.share + width).min(1.0));
    let step = (high - low) / N_POINTS as f64;
    let sum: f64 = (0..N_POINTS)
        .map(|k| {
            let away = low + (k as f64 + 0.5) * step - fit.share;
            (-0.5 * (slope * away + information * away * away)).exp()
        })
        .sum();
    (sum * step).max(f64::MIN_POSITIVE).ln()
}

/// Weighs the fits of all sections and types against each other; the most probable section first.
///
/// Every metre of line is as probable as any other beforehand, every type and every resistance up to the limit as well. Where even the
/// best fit is worse than the readings allow, the misfits are counted in units of the best one: the model is off then, and differences
/// smaller than that say nothing.
pub(super) fn weigh(feeder: &Feeder, fits: Vec<(Section, Fit)>) -> Vec<Weighed> {
    let excess = fits
        .iter()
        .map(|(section, fit)| fit.chi_square / degrees_of_freedom(fit, *section))
        .fold(f64::INFINITY, f64::min)
        .max(1.0);
    let known_m = feeder.nodes.iter().all(|node| node.distance_m.is_some());
    let length = |at: usize| {
        let (node, above) = (&feeder.nodes[at], &feeder.nodes[feeder.nodes[at].parent]);
        match (known_m, node.distance_m.zip(above.distance_m)) {
            (true, Some((far, near))) => far - near,
            _ => node.distance_ohm - above.distance_ohm,
        }
    };
    let lines: Vec<f64> = (1..feeder.nodes.len()).filter(|&at| feeder.nodes[at].is_line).map(length).collect();
    // what is no line breaks as often as the average line
    let average = lines.iter().sum::<f64>() / lines.len().max(1) as f64;
    let log_weight = |section: &Section, fit: &Fit| {
        let (prior, along) = match section.is_line {
            true => (length(section.at), log_integral(fit, excess)),
            false => (average, 0.0),
        };
        -0.5 * fit.chi_square / excess + along + fit.resistance_volume.ln() + prior.max(f64::MIN_POSITIVE).ln()
    };
    let weights: Vec<f64> = fits.iter().map(|(section, fit)| log_weight(section, fit)).collect();
    let most = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = weights.iter().map(|w| (w - most).exp()).sum();
    let mut by_section: HashMap<usize, (Weighed, f64)> = HashMap::new();
    for ((section, fit), weight) in fits.into_iter().zip(weights) {
        let probability = (weight - most).exp() / total;
        let share_sigma = (excess / fit.information).sqrt().min(1.0);
        let new = Weighed {
            section,
            fit,
            probability,
            share_sigma,
        };
        match by_section.get_mut(&section.at) {
            None => {
                by_section.insert(section.at, (new, weight));
            }
            Some((old, best)) => {
                let sum = old.probability + probability;
                if weight > *best {
                    (*old, *best) = (new, weight);
                }
                old.probability = sum;
            }
        }
    }
    let mut all: Vec<(Weighed, f64)> = by_section.into_values().collect();
    all.sort_by(|(a, a_weight), (b, b_weight)| {
        let by_probability = b.probability.total_cmp(&a.probability).then(b_weight.total_cmp(a_weight));
        by_probability.then(a.section.at.cmp(&b.section.at))
    });
    all.into_iter().map(|(weighed, _)| weighed).collect()
}

/// Where dark nodes say that the fault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Darkness {
    /// The node of the tree whose branch has opened; the head if nothing can be said, or all is dark.
    pub(super) at: usize,
    /// Dark nodes that are not on this feeder.
    pub(super) n_elsewhere: usize,
    /// For each node of the tree whether the fault can be on the branch to it.
    pub(super) can_be: Vec<bool>,
}

/// The device that leaves some nodes dark: the lowest one they all hang on. The fault is behind it; where the devices are known, it
/// is also behind no lower one, for that one would have opened.
///
/// # Errors
/// [`GridError::FaultRecord`] for an id that names no node.
pub(super) fn darkness(
    network: &Network,
    feeder: &Feeder,
    gasps: &[ComponentId],
    lines: &HashMap<ComponentId, LineFacts>,
) -> Result<Darkness, GridError> {
    let mut dark = HashSet::new();
    let mut n_elsewhere = 0;
    for &id in gasps {
        let node = network.node_index(id).ok_or_else(|| GridError::FaultRecord {
            field: "gasps",
            reason: format!("{id} names no node of the network; give ids of nodes that have gone dark"),
        })?;
        match feeder.tree_index.get(&node) {
            Some(&at) => {
                dark.insert(at);
            }
            None => n_elsewhere += 1,
        }
    }
    let n = feeder.nodes.len();
    let Some(mut at) = feeder.lowest_common(dark.into_iter()) else {
        return Ok(Darkness {
            at: HEAD,
            n_elsewhere,
            can_be: vec![true; n],
        });
    };
    // the lowest device at or above each node of the tree
    let mut device = vec![HEAD; n];
    for index in 1..n {
        let id = feeder.nodes[index].branch.map(|branch| network.branches[branch].id);
        let has_own = id.and_then(|id| lines.get(&id)).is_some_and(|facts| facts.has_device);
        device[index] = if has_own { index } else { device[feeder.nodes[index].parent] };
    }
    let are_known = device.iter().any(|&device| device != HEAD);
    if are_known {
        at = device[at];
    }
    let can_be = (0..n)
        .map(|index| match are_known {
            true => device[index] == at,
            false => feeder.is_below(index, at),
        })
        .collect();
    Ok(Darkness { at, n_elsewhere, can_be })
}
