//! What the readings determine, what they leave open, and which meter would help most.
//!
//! An injection that nobody measures takes part with a variance so wide that it says nothing. What the readings determine does not
//! notice when that variance is made a hundred times wider; what they leave open does.

use super::block::{Column, voltages};
use super::covariance::{along_phase, dot};
use super::{Estimator, GridError, Uncertainty};
use crate::model::{C64, to_phases, to_sequences};
use crate::network::{Network, Terminal};

/// How much wider "unknown" is made.
const WIDER: f64 = 100.0;
/// A variance that grows by this factor was made of "unknown".
const GROWN: f64 = 2.0;
/// Meters whose effect is worked out, the most uncertain places first.
const N_CANDIDATES: usize = 24;
/// Meters that are suggested.
const N_SUGGESTIONS: usize = 5;
/// Standard deviation of a suggested voltage sensor, per unit.
const VOLTAGE_SENSOR_SIGMA: f64 = 0.005;

/// A meter that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// Voltage of a node (its index).
    Voltage(usize),
    /// Power of all appliances of a node (its index).
    Power(usize),
}

/// What one more meter would do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suggestion {
    /// Where and what.
    pub meter: Meter,
    /// Share of the voltage magnitudes' variance, summed over all nodes, that it takes away.
    pub variance_removed: f64,
}

/// What the readings determine.
#[derive(Debug, Clone, PartialEq)]
pub struct Observability {
    /// Nodes (indices) whose voltage the readings leave open.
    pub unobservable_voltages: Vec<usize>,
    /// Nodes (indices) whose injection they leave open.
    pub unobservable_injections: Vec<usize>,
    /// Groups of nodes (indices) whose branches' flows are all determined; a node by itself is not listed.
    pub islands: Vec<Vec<usize>>,
    /// The most useful further meters, the best first.
    pub suggestions: Vec<Suggestion>,
}

impl Observability {
    /// Whether every voltage and every injection is determined.
    pub fn is_observable(&self) -> bool {
        self.unobservable_voltages.is_empty() && self.unobservable_injections.is_empty()
    }
}

impl<const N: usize, const B: usize> Estimator<N, B> {
    /// What the readings determine at the present state.
    ///
    /// # Errors
    /// [`GridError::Singular`].
    pub fn observability(&mut self, network: &Network) -> Result<Observability, GridError> {
        let mut wider = self.clone();
        wider.widen_unknown();
        let wide = wider.uncertainty()?;
        let narrow = self.uncertainty()?;
        let grown = |narrow: f64, wide: f64| !(wide <= GROWN * narrow);
        let nodes: Vec<usize> = (0..network.nodes.len()).filter(|&node| self.position(node).is_some()).collect();
        let mut found = Observability {
            unobservable_voltages: Vec::new(),
            unobservable_injections: Vec::new(),
            islands: Vec::new(),
            suggestions: self.suggestions(&narrow, &nodes),
        };
        for &node in &nodes {
            if let (Some((u, angle)), Some((u_wide, angle_wide))) = (self.voltage_sigma(&narrow, node), wider.voltage_sigma(&wide, node)) {
                let grows = |a: &[f64; N], b: &[f64; N]| (0..N).any(|k| grown(a[k] * a[k], b[k] * b[k]));
                if grows(&u, &u_wide) || grows(&angle, &angle_wide) {
                    found.unobservable_voltages.push(node);
                }
            }
            let Some(position) = self.position(node).filter(|&position| self.gain.injection(position).is_unknown) else {
                continue;
            };
            let (a, b) = (
                self.injection_variance(&narrow, position),
                wider.injection_variance(&wide, position),
            );
            if (0..N).any(|k| grown(a[k].re, b[k].re) || grown(a[k].im, b[k].im)) {
                found.unobservable_injections.push(node);
            }
        }
        found.islands = self.observable_islands(network, &wider, &narrow, &wide);
        Ok(found)
    }

    /// Makes everything that is not known even less known.
    fn widen_unknown(&mut self) {
        self.settle();
        self.changes.start(false);
        let _ = self.gain.scale_unknown(self.readings.unknown_variance, WIDER);
        for index in self.readings.guesses.clone() {
            for weight in &mut self.readings.voltages[index].magnitude_weight {
                *weight /= WIDER;
            }
        }
    }

    fn observable_islands(&self, network: &Network, wider: &Self, narrow: &Uncertainty<N, B>, wide: &Uncertainty<N, B>) -> Vec<Vec<usize>> {
        let mut group: Vec<usize> = (0..network.nodes.len()).collect();
        fn root(group: &mut [usize], mut node: usize) -> usize {
            while group[node] != node {
                group[node] = group[group[node]];
                node = group[node];
            }
            node
        }
        for (index, branch) in network.branches.iter().enumerate().filter(|(_, branch)| branch.is_closed()) {
            let terminal = Terminal::BranchFrom(index);
            let sigmas = (
                self.flow_sigma(narrow, network, terminal),
                wider.flow_sigma(wide, network, terminal),
            );
            let (Some(narrow), Some(wide)) = sigmas else { continue };
            let determined = |a: f64, b: f64| b * b <= GROWN * a * a;
            if (0..N).all(|k| determined(narrow[k].re, wide[k].re) && determined(narrow[k].im, wide[k].im)) {
                let (a, b) = (root(&mut group, branch.from), root(&mut group, branch.to));
                group[a.max(b)] = a.min(b);
            }
        }
        let mut members: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
        for node in 0..network.nodes.len() {
            members.entry(root(&mut group, node)).or_default().push(node);
        }
        members.into_values().filter(|members| members.len() > 1).collect()
    }

    /// What one more meter at each of the most uncertain places would take away.
    fn suggestions(&self, uncertainty: &Uncertainty<N, B>, nodes: &[usize]) -> Vec<Suggestion> {
        let magnitude = |position: usize, k: usize| {
            let u = to_phases::<N>(&voltages(&self.state[position]))[k];
            along_phase::<N, B>(k, u / u.norm())
        };
        let positions: Vec<(usize, usize)> = nodes.iter().filter_map(|&node| Some((node, self.position(node)?))).collect();
        let variance_of = |position: usize| {
            (0..N)
                .map(|k| uncertainty.covariance(&self.gain).variance(position, &magnitude(position, k)))
                .sum::<f64>()
        };
        let total: f64 = positions.iter().map(|&(_, position)| variance_of(position)).sum();
        let mut candidates: Vec<(f64, Meter, usize)> = Vec::new();
        for &(node, position) in &positions {
            candidates.push((variance_of(position), Meter::Voltage(node), position));
            let reading = self.gain.injection(position);
            if !self.gain.is_free(position) && reading.variance.iter().any(|v| v.re > 0.0) {
                // what an injection's deviation does to the voltages here
                let spread: f64 = self.injection_variance(uncertainty, position).iter().map(|v| v.re + v.im).sum();
                candidates.push((spread, Meter::Power(node), position));
            }
        }
        // the most uncertain of each kind
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        let of_kind = |wanted: fn(&Meter) -> bool| {
            let list = candidates.iter().filter(move |(_, meter, _)| wanted(meter));
            list.take(N_CANDIDATES / 2).copied().collect::<Vec<_>>()
        };
        let mut chosen = of_kind(|meter| matches!(meter, Meter::Voltage(_)));
        chosen.extend(of_kind(|meter| matches!(meter, Meter::Power(_))));
        let mut suggestions: Vec<Suggestion> = chosen
            .into_iter()
            .map(|(_, meter, position)| {
                let removed: f64 = self
                    .rows_of(&meter, position)
                    .into_iter()
                    .map(|(row, own)| {
                        let x = self.gain.solve(&vec![(position, row)]);
                        let denominator = own + dot(&row, &x[position]);
                        let taken: f64 = positions
                            .iter()
                            .map(|&(_, at)| (0..N).map(|k| dot(&magnitude(at, k), &x[at]).powi(2)).sum::<f64>())
                            .sum();
                        if denominator > 0.0 { taken / denominator } else { 0.0 }
                    })
                    .sum();
                Suggestion {
                    meter,
                    variance_removed: (removed / total).clamp(0.0, 1.0),
                }
            })
            .collect();
        suggestions.sort_by(|a, b| b.variance_removed.total_cmp(&a.variance_removed));
        suggestions.truncate(N_SUGGESTIONS);
        suggestions
    }

    /// The rows a meter would add at a position, each with its own term: a variance, or (for a power) the inverse of the one that goes.
    fn rows_of(&self, meter: &Meter, position: usize) -> Vec<(Column<B>, f64)> {
        let u = to_phases::<N>(&voltages(&self.state[position]));
        match meter {
            Meter::Voltage(_) => (0..N)
                .map(|k| (along_phase::<N, B>(k, u[k] / u[k].norm()), VOLTAGE_SENSOR_SIGMA.powi(2)))
                .collect(),
            Meter::Power(_) => {
                let reading = self.gain.injection(position);
                let row = |k: usize, c: C64| {
                    let mut unit = [C64::ZERO; N];
                    unit[k] = c;
                    let c = to_sequences(&unit);
                    let mut row = [0.0; B];
                    for s in 0..N {
                        (row[2 * (N + s)], row[2 * (N + s) + 1]) = (c[s].re, c[s].im);
                    }
                    row
                };
                (0..N)
                    .flat_map(|k| {
                        let inverse = u[k].inv();
                        [
                            (row(k, inverse.conj()), reading.variance[k].re),
                            (row(k, (inverse * C64::I).conj()), reading.variance[k].im),
                        ]
                    })
                    .filter(|(_, variance)| *variance > 0.0)
                    .map(|(row, variance)| (row, 1.0 / variance))
                    .collect()
            }
        }
    }
}
