//! Fault location: from voltages and currents at the head of a radial feeder to where the fault is.
//!
//! The head's voltage during the fault is taken as given, so nothing above the head matters. Below it the feeder with its loads is
//! reduced, for every place along every line, to what a fault there would make of the head's current ([`reduction`]). The place and the
//! fault's resistances are then the ones that explain the measured current best ([`fit`]), for every type of fault. Several places
//! explain it equally well where laterals run side by side: all are returned, with their probability ([`rank`]).
//!
//! Start reading in [`locate`]; `docs/algorithms/fault-location.md` has the equations.
//!
//! # Source
//! The condition on the fault's resistance: T. Takagi et al., "Development of a new type fault locator using the one-terminal voltage
//! and current data", IEEE Trans. Power Apparatus and Systems PAS-101(8), 1982. Families of methods: IEEE C37.114. The feeder model in
//! place of a line's reactance: as in the section-by-section methods that C37.114 gives for distribution.

mod feeder;
mod fit;
mod kind;
mod lines;
mod loads;
mod phasor;
mod rank;
mod record;
mod reduction;
mod waveform;

use std::collections::HashMap;

use crate::error::GridError;
use crate::model::{C64, base_current_a, to_phases, to_sequences};
use crate::network::{ComponentId, Network};
use feeder::{Feeder, HEAD};
use fit::{Fit, Measured, Search, Section, fault_current, faulted_admittance, whitener};
use loads::Loads;
use reduction::{M3, Reduction, V3};

pub use kind::FaultType;
pub use lines::{LineFacts, line_facts};
pub use phasor::Phasors;
pub use record::{Accuracy, FaultRecord};
pub use waveform::{Inception, N_SAMPLES_MAX, SAMPLES_PER_CYCLE, Waveform};

/// Times the loads and the weights are taken at the best fault so far.
const PASSES: usize = 3;
/// A type is followed if its first look is not this many times, and this much, above the best one's.
const TYPE_RATIO: f64 = 25.0;
const TYPE_MARGIN: f64 = 100.0;
/// A section is followed in the next pass if its sum of squares is not this many times, and this much, above the best one's.
const SECTION_RATIO: f64 = 20.0;
const SECTION_MARGIN: f64 = 300.0;
/// A current that the healthy feeder explains with this sum of squares over six readings or less is no fault's: noise alone exceeds it
/// once in a million.
const FAULT_CHI_SQUARE_MIN: f64 = 39.0;
/// Most of the square of the healthy feeder's misfit that the best fault may leave.
const UNEXPLAINED_MAX: f64 = 0.25;
/// Readings near zero are no better than this share of the largest phase.
const FLOOR_SHARE: f64 = 0.2;
/// Candidates less probable than this are left out, but for the first two.
const PROBABILITY_MIN: f64 = 1e-3;

/// Where voltages and currents are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Id of the node whose voltage is measured.
    pub node: ComponentId,
    /// Id of the branch whose current is measured, at that node; without it, the sum of all that leads away from the sources.
    pub branch: Option<ComponentId>,
}

/// What to use beside the record.
#[derive(Debug, Clone, PartialEq)]
pub struct LocateOptions {
    /// By id of the branch.
    pub lines: HashMap<ComponentId, LineFacts>,
    /// Nodes that went dark when the fault was cleared; may be incomplete.
    pub gasps: Vec<ComponentId>,
    /// The type of fault, if it is known.
    pub kind: Option<FaultType>,
    /// Most resistance a fault is taken to have, ohm.
    pub resistance_max_ohm: f64,
    /// Standard deviation of what the loads' current changes by, as a share of the change of their voltage.
    pub load_sigma: f64,
    /// Down to this voltage loads keep their power or current, per unit; below it they are impedances.
    pub load_floor_pu: f64,
    /// Most candidates.
    pub candidates_max: usize,
}

impl Default for LocateOptions {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            gasps: Vec::new(),
            kind: None,
            resistance_max_ohm: 100.0,
            load_sigma: 0.1,
            load_floor_pu: 0.85,
            candidates_max: 10,
        }
    }
}

/// A place where the fault may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Id of the line; of the branch that leads to the node where that is no line.
    pub branch: ComponentId,
    /// Id of its node towards the head.
    pub near_node: ComponentId,
    /// Id of its other node; none for a line that is open there.
    pub far_node: Option<ComponentId>,
    /// Share of the line between the near node and the fault; one for a fault at the far node of what is no line.
    pub share: f64,
    /// Along the lines from the head, m, where the lengths are known.
    pub distance_m: Option<f64>,
    /// Standard deviation of that, m.
    pub distance_sigma_m: Option<f64>,
    /// Positive-sequence impedances from the head added up, ohm at the head's voltage.
    pub distance_ohm: f64,
    /// Standard deviation of that, ohm.
    pub distance_sigma_ohm: f64,
    /// The type that fits best there.
    pub kind: FaultType,
    /// Between phases, or of each phase, or of the one phase to ground, ohm.
    pub resistance_ohm: f64,
    /// Common resistance to ground where several phases meet there, ohm.
    pub ground_resistance_ohm: Option<f64>,
    /// Root mean square of what is not explained, in standard deviations of the readings.
    pub misfit_sigmas: f64,
    /// Probability of this line among all lines, whatever the type.
    pub probability: f64,
}

/// What a record says of the fault.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultLocation {
    /// The most probable first.
    pub candidates: Vec<Candidate>,
    /// The type as the change of the currents at the head looks.
    pub type_at_head: FaultType,
    /// How much the loads of phases a, b, c drew before the fault, as a multiple of what the network says.
    pub load_scale: [C64; 3],
    /// How far the current before the fault is from what those loads draw, in standard deviations of the readings.
    pub load_misfit_sigmas: f64,
    /// Length of the longest way from the head, m, where the lengths are known.
    pub feeder_length_m: Option<f64>,
    /// The same as an impedance, ohm at the head's voltage.
    pub feeder_length_ohm: f64,
    /// Sections that were compared.
    pub n_sections: usize,
    /// Id of the branch behind which the dark nodes say the fault is.
    pub dark_behind: Option<ComponentId>,
    /// Dark nodes that are not on this feeder.
    pub n_gasps_elsewhere: usize,
}

/// Voltages and currents in symmetrical components and their standard deviations by phase, per unit.
struct Reading {
    voltage: V3,
    current: V3,
    sigma_voltage: [f64; 3],
    sigma_current: [f64; 3],
}

impl Reading {
    fn new(phasors: &Phasors, accuracy: &Accuracy, u_rated_v: f64) -> Self {
        let u_base = u_rated_v / 3f64.sqrt();
        let i_base = base_current_a(u_rated_v);
        let (u, i) = (phasors.voltage_v.map(|u| u / u_base), phasors.current_a.map(|i| i / i_base));
        // of the real part, as of the imaginary one: magnitude and angle together
        let sigmas = |x: [C64; 3], limit: f64| {
            let share = limit.hypot(accuracy.angle_rad) / 3.0 / std::f64::consts::SQRT_2;
            let largest = x.iter().map(|x| x.norm()).fold(1e-9, f64::max);
            x.map(|x| share * x.norm().max(FLOOR_SHARE * largest))
        };
        Self {
            sigma_voltage: sigmas(u, accuracy.voltage),
            sigma_current: sigmas(i, accuracy.current),
            voltage: V3::from(to_sequences(&u)),
            current: V3::from(to_sequences(&i)),
        }
    }
}

/// Locates the fault of a record.
///
/// # Errors
/// [`GridError::FaultRecord`] for a record or options that do not fit the network, and where the currents are no fault's;
/// [`GridError::MissingAttribute`] for lines without zero sequence and loads without power; [`GridError::NotConverged`] for loads that
/// the feeder cannot carry.
pub fn locate(network: &Network, record: &FaultRecord, options: &LocateOptions) -> Result<FaultLocation, GridError> {
    options.check()?;
    let feeder = Feeder::new(network, record.head, &options.lines)?;
    let u_rated_v = feeder.nodes[HEAD].u_rated_v;
    record.check(u_rated_v)?;
    let before = Reading::new(&record.before, &record.accuracy, u_rated_v);
    let during = Reading::new(&record.during, &record.accuracy, u_rated_v);

    let mut loads = Loads::new(network, &feeder, options.load_floor_pu)?;
    loads.fit(network, &feeder, (&before.voltage, &before.current), &before.sigma_current)?;
    let darkness = rank::darkness(network, &feeder, &options.gasps, &options.lines)?;
    let sections = sections(&feeder, &darkness.can_be);
    if sections.is_empty() {
        return Err(GridError::FaultRecord {
            field: "gasps",
            reason: "no line is between the device that left these nodes dark and the next ones; check the devices".to_owned(),
        });
    }

    let mut voltage = loads.voltage.clone();
    let load_current: [C64; 3] = to_phases(&before.current.into());
    // what the meter may be off before and during, and what is not known of the loads' answer to the sag
    let sigma_current = |sag: [f64; 3]| -> [f64; 3] {
        std::array::from_fn(|k| {
            let meter = during.sigma_current[k].hypot(before.sigma_current[k]);
            meter.hypot(options.load_sigma * sag[k] * load_current[k].norm())
        })
    };
    let head_sag = {
        let [before, during] = [record.before, record.during].map(|phasors| phasors.voltage_v.map(|u| u.norm()));
        std::array::from_fn(|k| (1.0 - during[k] / before[k]).abs())
    };
    // in the first pass the loads may do anything: nothing is to be dropped for what they do
    let mut sigma = sigma_current([1.0; 3]);
    let mut problem = Followed {
        sections: sections
            .iter()
            .flat_map(|&section| allowed(&feeder, section, options.kind))
            .collect(),
        fits: Vec::new(),
    };
    if problem.sections.is_empty() {
        return Err(GridError::FaultRecord {
            field: "type",
            reason: "no line that the dark nodes allow has the phases of this type of fault; leave the type or the gasps out".to_owned(),
        });
    }
    let mut at_fault: Option<M3> = None;
    for pass in 0..PASSES {
        let reduction = Reduction::new(network, &feeder, &loads.admittances(&voltage))?;
        let measured = Measured {
            voltage: during.voltage,
            current: during.current,
            whitener: whitener(&sigma, &during.sigma_voltage, at_fault.as_ref().unwrap_or(&reduction.at_head)),
            resistance_max_ohm: options.resistance_max_ohm,
        };
        if pass == 0 {
            let sigma = sigma_current(head_sag);
            refuse_calm(
                &measured.with_whitener(whitener(&sigma, &during.sigma_voltage, &reduction.at_head)),
                &reduction,
            )?;
        }
        let search = Search {
            feeder: &feeder,
            reduction: &reduction,
            measured: &measured,
        };
        problem.follow(&search, pass == 0);
        let Some((section, best)) = problem.best() else { break };
        if pass + 1 == PASSES {
            refuse_unexplained(&measured, &reduction, best)?;
        }
        let resistance_pu: Vec<f64> = best.resistance_ohm.iter().map(|r| r / search.z_base_ohm(section)).collect();
        if let Some(place) = search.place(section, best.share) {
            at_fault = faulted_admittance(&reduction.at_head, &place, best.kind, &resistance_pu);
            let share = section.is_line.then_some(best.share.clamp(1e-6, 1.0 - 1e-6));
            let current = fault_current(&place, best.kind, &resistance_pu, &during.voltage);
            if let Some(new) = current.and_then(|current| reduction.voltages(&feeder, section.at, share, &current, &during.voltage)) {
                sigma = sigma_current(loads.sag(&new));
                voltage = new;
            }
        }
    }
    let weighed = rank::weigh(&feeder, problem.fits);
    if weighed.is_empty() {
        return Err(GridError::Singular {
            what: "fault location",
            node: record.head.node,
            remedy: "check the impedances of the feeder's lines",
        });
    }
    let candidates = weighed
        .iter()
        .enumerate()
        .take(options.candidates_max)
        .filter(|(place, weighed)| *place < 2 || weighed.probability >= PROBABILITY_MIN)
        .map(|(_, weighed)| candidate(network, &feeder, weighed))
        .collect();
    let farthest = |distance: &dyn Fn(&feeder::TreeNode) -> f64| feeder.nodes.iter().map(distance).fold(0.0, f64::max);
    let known_m = feeder.nodes.iter().all(|node| node.distance_m.is_some());
    Ok(FaultLocation {
        candidates,
        type_at_head: kind::type_at_head(&record.before, &record.during),
        load_scale: loads.scale,
        load_misfit_sigmas: loads.misfit,
        feeder_length_m: known_m.then(|| farthest(&|node| node.distance_m.unwrap_or(0.0))),
        feeder_length_ohm: farthest(&|node| node.distance_ohm),
        n_sections: sections.len(),
        dark_behind: feeder.nodes[darkness.at].branch.map(|branch| network.branches[branch].id),
        n_gasps_elsewhere: darkness.n_elsewhere,
    })
}

impl LocateOptions {
    fn check(&self) -> Result<(), GridError> {
        for (field, value, low, high) in [
            ("resistance_max_ohm", self.resistance_max_ohm, 0.1, 1e6),
            ("load_sigma", self.load_sigma, 0.0, 10.0),
            ("load_floor_pu", self.load_floor_pu, 0.1, 1.0),
        ] {
            if !(value >= low && value <= high) {
                return Err(GridError::FaultRecord {
                    field,
                    reason: format!("{value} is not usable; give {low} to {high}"),
                });
            }
        }
        Ok(())
    }
}

/// The types to look for in a section.
fn allowed(feeder: &Feeder, section: Section, known: Option<FaultType>) -> Vec<(Section, FaultType)> {
    let there = feeder.nodes[section.at].phases;
    let fits = |kind: &FaultType| kind.phases().iter().zip(there).all(|(needed, present)| present || !needed);
    let kinds = FaultType::ALL.into_iter().filter(|&kind| known.is_none_or(|known| known == kind));
    kinds.filter(fits).map(|kind| (section, kind)).collect()
}

/// All lines that the fault can be on, and the nodes at the end of transformers and links from which no line goes on.
fn sections(feeder: &Feeder, can_be: &[bool]) -> Vec<Section> {
    let n = feeder.nodes.len();
    let mut has_line = vec![false; n];
    for node in feeder.nodes.iter().skip(1).filter(|node| node.is_line) {
        has_line[node.parent] = true;
    }
    (1..n)
        .filter(|&at| can_be[at])
        .filter(|&at| feeder.nodes[at].is_line || !has_line[at])
        .map(|at| Section {
            at,
            is_line: feeder.nodes[at].is_line,
        })
        .collect()
}

/// What the search still follows, and what it has found.
struct Followed {
    sections: Vec<(Section, FaultType)>,
    fits: Vec<(Section, Fit)>,
}

impl Followed {
    fn follow(&mut self, search: &Search<'_>, is_first: bool) {
        if is_first {
            self.drop_types(search);
        }
        let each = self.sections.iter();
        self.fits = each
            .filter_map(|&(section, kind)| Some((section, search.best(section, kind)?)))
            .collect();
        let Some(least) = self.best().map(|(_, fit)| fit.chi_square) else {
            return;
        };
        let limit = SECTION_RATIO * least + SECTION_MARGIN;
        let kept = self.fits.iter().filter(|(_, fit)| fit.chi_square <= limit);
        self.sections = kept.map(|(section, fit)| (*section, fit.kind)).collect();
    }

    /// Leaves out the types that fit nowhere.
    fn drop_types(&mut self, search: &Search<'_>) {
        let mut least = [f64::INFINITY; FaultType::ALL.len()];
        for &(section, kind) in &self.sections {
            let look = search.first_look(section, kind);
            least[kind as usize] = least[kind as usize].min(look);
        }
        let limit = least.iter().copied().fold(f64::INFINITY, f64::min) * TYPE_RATIO + TYPE_MARGIN;
        self.sections.retain(|(_, kind)| least[*kind as usize] <= limit);
    }

    fn best(&self) -> Option<(Section, &Fit)> {
        let best = self.fits.iter().min_by(|(_, a), (_, b)| a.chi_square.total_cmp(&b.chi_square))?;
        Some((best.0, &best.1))
    }
}

/// Refuses a record whose current the healthy feeder draws.
fn refuse_calm(measured: &Measured, reduction: &Reduction) -> Result<(), GridError> {
    let healthy = reduction.at_head * measured.voltage;
    let square: f64 = measured.residual(&healthy).iter().map(|r| r * r).sum();
    match square < FAULT_CHI_SQUARE_MIN {
        false => Ok(()),
        true => Err(GridError::FaultRecord {
            field: "during.current",
            reason: "the loads alone draw it at this voltage: the fault is not on this feeder; use the record of another head".to_owned(),
        }),
    }
}

/// Refuses a record of which the best fault explains next to nothing.
fn refuse_unexplained(measured: &Measured, reduction: &Reduction, best: &Fit) -> Result<(), GridError> {
    let healthy = reduction.at_head * measured.voltage;
    let square: f64 = measured.residual(&healthy).iter().map(|r| r * r).sum();
    match best.chi_square > FAULT_CHI_SQUARE_MIN.max(UNEXPLAINED_MAX * square) {
        false => Ok(()),
        true => Err(GridError::FaultRecord {
            field: "during.current",
            reason: "no fault where one is looked for explains it; check head.branch, the order of the phases, and the gasps and the type if they are given"
                .to_owned(),
        }),
    }
}

fn candidate(network: &Network, feeder: &Feeder, weighed: &rank::Weighed) -> Candidate {
    let (section, fit) = (weighed.section, &weighed.fit);
    let (node, above) = (&feeder.nodes[section.at], &feeder.nodes[feeder.nodes[section.at].parent]);
    let id = |node: usize| network.nodes[node].id;
    let share = if section.is_line { fit.share } else { 1.0 };
    let between = |near: f64, far: f64| near + (far - near) * share;
    let sigma = if section.is_line { weighed.share_sigma } else { 0.0 };
    let known_m = above.distance_m.zip(node.distance_m);
    Candidate {
        branch: node.branch.map_or(-1, |branch| network.branches[branch].id),
        near_node: above.node.map_or(-1, id),
        far_node: node.node.map(id),
        share,
        distance_m: known_m.map(|(near, far)| between(near, far)),
        distance_sigma_m: known_m.map(|(near, far)| sigma * (far - near)),
        distance_ohm: between(above.distance_ohm, node.distance_ohm),
        distance_sigma_ohm: sigma * (node.distance_ohm - above.distance_ohm),
        kind: fit.kind,
        resistance_ohm: fit.resistance_ohm.first().copied().unwrap_or(0.0),
        ground_resistance_ohm: fit.resistance_ohm.get(1).copied(),
        misfit_sigmas: rank::misfit(fit, section),
        probability: weighed.probability,
    }
}
