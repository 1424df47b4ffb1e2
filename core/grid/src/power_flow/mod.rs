//! Power flow: the voltages that given loads lead to.
//!
//! The grid's linear part (lines, transformers, shunts, sources behind their impedance) is factorized once per topology; what the
//! loads draw at the last voltages is the right-hand side. On a tree the two sweeps of one solution are the backward-forward sweep of
//! Shirmohammadi et al.; loops are part of the factorization. Where that iteration does not contract (heavy constant-power loads,
//! loads of constant impedance that dwarf the source) Newton's method takes over; if that does not converge either, there is most
//! likely no solution.
//!
//! # Source
//! D. Shirmohammadi, H. W. Hong, A. Semlyen, G. X. Luo, "A compensation-based power flow method for weakly meshed distribution and
//! transmission networks", IEEE Trans. Power Systems 3(2), 1988.

mod newton;
mod sweep;

use crate::admittance::{Admittance, add};
use crate::elimination::NONE;
use crate::error::GridError;
use crate::flows::{BranchFlow, branch_flow};
use crate::model::{BASE_POWER_VA, C64, balanced, shunt_admittance, source_admittance, source_voltage, to_phases, to_sequences};
use crate::network::{Appliance, LoadKind, Network, PerPhase, Terminal};
use sweep::Sweep;

/// Voltages (root mean square of a node) and admittances beyond these, per unit, are looked at twice.
const USUAL_PU: [f64; 2] = [0.3, 3.0];
const ADMITTANCE_USUAL_PU: f64 = 1e10;
const POWER_USUAL_PU: f64 = 1e6;
/// Largest current that may be left over at a node, as a share of those that meet there.
const IMBALANCE_MAX: f64 = 1e-6;
/// Below this, per unit, a loaded node has no voltage left.
const COLLAPSED_PU: f64 = 0.01;

/// How a power flow is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Method {
    /// Sweeps, then Newton's method if they do not converge.
    #[default]
    Auto,
    /// Sweeps only.
    Sweep,
    /// Newton's method only.
    Newton,
}

/// What an iteration is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// It ends when no voltage changes by more than this, per unit.
    pub tolerance_pu: f64,
    /// Most iterations.
    pub iterations_max: usize,
    /// How to solve.
    pub method: Method,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tolerance_pu: 1e-8,
            iterations_max: 50,
            method: Method::Auto,
        }
    }
}

/// How an iteration ended. The step can be above the tolerance only where rounding leaves no less (links beside long cables).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Convergence {
    /// Iterations made.
    pub iterations: usize,
    /// The last change of a voltage, per unit.
    pub step_pu: f64,
}

/// Loads at one position that are not of constant power.
#[derive(Debug, Clone, Copy)]
struct VoltageDependent<const N: usize> {
    position: u32,
    /// Power at rated voltage that follows the voltage.
    current: [C64; N],
    /// Power at rated voltage that follows its square.
    impedance: [C64; N],
}

/// The power flow of a network; `N` is 1 for the symmetric, 3 for the asymmetric calculation.
#[derive(Debug, Clone)]
pub struct PowerFlow<const N: usize> {
    pub(crate) admittance: Admittance<N>,
    sweep: Sweep<N>,
    /// Voltages by position, symmetrical components.
    voltage: Vec<[C64; N]>,
    /// Injections of constant power by position, phases.
    power: Vec<[C64; N]>,
    voltage_dependent: Vec<VoltageDependent<N>>,
    /// Currents of the sources' voltages by position.
    source_current: Vec<(u32, [C64; N])>,
    /// The sources' admittances by position.
    source_admittance: Vec<(u32, [C64; N])>,
    /// Voltages without load: where a flat start begins.
    no_load: Vec<[C64; N]>,
    /// Whether admittances or loads are beyond the usual.
    is_extreme: bool,
}

/// Power flow of the positive sequence.
pub type SymmetricPowerFlow = PowerFlow<1>;
/// Power flow of the three phases.
pub type AsymmetricPowerFlow = PowerFlow<3>;

impl<const N: usize> PowerFlow<N> {
    /// Prepares a network as its switches stand and factorizes it.
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] for loads without power, sources without voltage, lines without zero sequence (asymmetric);
    /// [`GridError::Singular`] where a zero sequence has no path to ground.
    pub fn new(network: &Network) -> Result<Self, GridError> {
        let admittance = Admittance::new(network)?;
        let mut diagonal = admittance.diagonal.clone();
        let (mut source_current, mut source_admittances) = (Vec::new(), Vec::new());
        for source in network.sources.iter().filter(|source| source.connected) {
            let position = admittance.order.position[source.node];
            let (y, u) = (source_admittance::<N>(source), source_voltage::<N>(source)?);
            add(&mut diagonal[position as usize], &y);
            source_current.push((position, std::array::from_fn(|k| y[k] * u[k])));
            source_admittances.push((position, y));
        }
        let sweep = Sweep::new(network, &admittance, &diagonal)?;
        let n = admittance.order.len();
        let mut power_flow = Self {
            admittance,
            sweep,
            voltage: Vec::new(),
            power: vec![[C64::ZERO; N]; n],
            voltage_dependent: Vec::new(),
            source_current,
            source_admittance: source_admittances,
            no_load: vec![balanced::<N>(); n],
            is_extreme: false,
        };
        let mut no_load = std::mem::take(&mut power_flow.no_load);
        power_flow.sweep.solve_without_load(&power_flow.source_current, &mut no_load);
        power_flow.voltage.clone_from(&no_load);
        power_flow.no_load = no_load;
        power_flow.set_loads(network)?;
        Ok(power_flow)
    }

    /// Takes the loads' and generators' set points over from the network, whose switches must stand as they did in [`Self::new`].
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] for one without power.
    pub fn set_loads(&mut self, network: &Network) -> Result<(), GridError> {
        self.power.fill([C64::ZERO; N]);
        self.voltage_dependent.clear();
        let beyond = |y: &[C64; N]| y.iter().any(|y| !(y.norm_sqr() <= ADMITTANCE_USUAL_PU * ADMITTANCE_USUAL_PU));
        self.is_extreme = self.admittance.diagonal.iter().any(beyond);
        for appliance in network.appliances.iter().filter(|appliance| appliance.connected) {
            let position = self.admittance.order.position[appliance.node];
            if position == NONE {
                continue;
            }
            let power = injection::<N>(appliance)?;
            self.is_extreme |= power.iter().any(|s| !(s.norm_sqr() <= POWER_USUAL_PU * POWER_USUAL_PU));
            match appliance.kind {
                LoadKind::ConstantPower => add(&mut self.power[position as usize], &power),
                kind => {
                    let zero = [C64::ZERO; N];
                    let is_current = kind == LoadKind::ConstantCurrent;
                    self.voltage_dependent.push(VoltageDependent {
                        position,
                        current: if is_current { power } else { zero },
                        impedance: if is_current { zero } else { power },
                    });
                }
            }
        }
        Ok(())
    }

    /// Solves from the no-load voltages.
    ///
    /// # Errors
    /// [`GridError::NotConverged`], most often for a load that the grid cannot carry.
    pub fn solve(&mut self, options: &Options) -> Result<Convergence, GridError> {
        self.voltage.clone_from(&self.no_load);
        self.resolve(options)
    }

    /// Solves from the last solution: a step or three less when little has changed.
    ///
    /// # Errors
    /// As [`Self::solve`].
    pub fn resolve(&mut self, options: &Options) -> Result<Convergence, GridError> {
        if options.method != Method::Newton {
            match self.sweeps(options).and_then(|convergence| self.accept(convergence, options)) {
                Err(error) if options.method == Method::Sweep => return Err(error),
                Ok(convergence) => return Ok(convergence),
                Err(_) => self.voltage.clone_from(&self.no_load),
            }
        }
        let convergence = newton::solve(self, options);
        convergence.and_then(|convergence| self.accept(convergence, options))
    }

    /// Small steps are not all: currents have to balance, and a voltage that has all but gone is no operating point. Voltages and
    /// admittances of any usual size leave nothing to look for.
    fn accept(&self, convergence: Convergence, options: &Options) -> Result<Convergence, GridError> {
        let usual = |v: &[C64; N]| {
            let square = v.iter().map(C64::norm_sqr).sum::<f64>() / N as f64;
            square > USUAL_PU[0].powi(2) && square < USUAL_PU[1].powi(2)
        };
        if !self.is_extreme && self.voltage.iter().all(usual) {
            return Ok(convergence);
        }
        let is_balanced = newton::worst_imbalance(self) <= IMBALANCE_MAX;
        let carries_load = |position: usize| self.power[position].iter().any(|s| *s != C64::ZERO);
        let has_collapsed = (0..self.voltage.len())
            .any(|position| carries_load(position) && to_phases(&self.voltage[position]).iter().any(|u| !(u.norm() > COLLAPSED_PU)));
        match is_balanced && !has_collapsed {
            true => Ok(convergence),
            false => Err(GridError::NotConverged {
                what: "power flow",
                step_pu: convergence.step_pu,
                tolerance_pu: options.tolerance_pu,
                iterations: convergence.iterations,
                remedy: "the loads are most likely more than the grid can carry; check their units and the impedances",
            }),
        }
    }

    fn sweeps(&mut self, options: &Options) -> Result<Convergence, GridError> {
        let (mut step_pu, mut best) = (f64::INFINITY, f64::INFINITY);
        let mut iterations = 0;
        while step_pu > options.tolerance_pu {
            // a step that is not a number, or has not shrunk for long, will not
            let hopeless = step_pu.is_nan() || (iterations > 10 && step_pu > best * 2.0);
            if iterations == options.iterations_max || hopeless {
                return Err(GridError::NotConverged {
                    what: "power flow by sweeps",
                    step_pu,
                    tolerance_pu: options.tolerance_pu,
                    iterations,
                    remedy: "use Newton's method",
                });
            }
            best = best.min(step_pu);
            step_pu = self
                .sweep
                .step(&self.power, &self.voltage_dependent, &self.source_current, &mut self.voltage);
            iterations += 1;
        }
        match step_pu.is_nan() {
            false => Ok(Convergence { iterations, step_pu }),
            true => Err(GridError::NotConverged {
                what: "power flow by sweeps",
                step_pu,
                tolerance_pu: options.tolerance_pu,
                iterations,
                remedy: "use Newton's method",
            }),
        }
    }

    /// Voltage of a node, phases (the one of the positive sequence, if symmetric), per unit of phase to ground; `None` without supply.
    pub fn voltage_pu(&self, node: usize) -> Option<[C64; N]> {
        let position = *self.admittance.order.position.get(node)?;
        (position != NONE).then(|| to_phases(&self.voltage[position as usize]))
    }

    /// Power that a load or generator exchanges, phases, positive into the grid, per unit; zero without supply.
    ///
    /// # Errors
    /// [`GridError::MissingAttribute`] for one without power.
    pub fn injection_pu(&self, appliance: &Appliance) -> Result<[C64; N], GridError> {
        let Some(voltage) = self.voltage_pu(appliance.node).filter(|_| appliance.connected) else {
            return Ok([C64::ZERO; N]);
        };
        let power = injection::<N>(appliance)?;
        Ok(std::array::from_fn(|k| {
            let u = voltage[k].norm();
            match appliance.kind {
                LoadKind::ConstantPower => power[k],
                LoadKind::ConstantCurrent => power[k] * u,
                LoadKind::ConstantImpedance => power[k] * u * u,
            }
        }))
    }

    /// Power that the sources, loads and generators of a node exchange with the grid by phase, positive into the grid, per unit; `None`
    /// without supply.
    pub fn node_injection_pu(&self, node: usize) -> Option<[C64; N]> {
        let position = *self.admittance.order.position.get(node)?;
        if position == NONE {
            return None;
        }
        let v = &self.voltage[position as usize];
        let mut power = std::array::from_fn(|k| self.power[position as usize][k]);
        let mut current = [C64::ZERO; N];
        for load in self.voltage_dependent.iter().filter(|load| load.position == position) {
            add(&mut current, &load.current(v));
        }
        for ((_, from_source), (_, y)) in self
            .source_current
            .iter()
            .zip(&self.source_admittance)
            .filter(|((at, _), _)| *at == position)
        {
            for k in 0..N {
                current[k] += from_source[k] - y[k] * v[k];
            }
        }
        let (u, current) = (to_phases(v), to_phases(&current));
        for k in 0..N {
            power[k] += u[k] * current[k].conj();
        }
        Some(power)
    }

    /// Power at a source, a load, a generator or a shunt by phase, per unit: into the grid, for a shunt into the shunt.
    pub fn terminal_pu(&self, network: &Network, terminal: Terminal) -> [C64; N] {
        let zero = [C64::ZERO; N];
        let at = |node: usize, y: &[C64; N], u_source: &[C64; N]| {
            let Some(position) = self.admittance.order.position.get(node).copied().filter(|&p| p != NONE) else {
                return zero;
            };
            let v = &self.voltage[position as usize];
            let u = to_phases(v);
            let current: [C64; N] = to_phases(&std::array::from_fn(|k| y[k] * (u_source[k] - v[k])));
            std::array::from_fn(|k| u[k] * current[k].conj())
        };
        match terminal {
            Terminal::Source(index) => match network.sources.get(index).filter(|source| source.connected) {
                Some(source) => at(source.node, &source_admittance(source), &source_voltage(source).unwrap_or(zero)),
                None => zero,
            },
            Terminal::Shunt(index) => match network.shunts.get(index).filter(|shunt| shunt.connected) {
                Some(shunt) => {
                    let y = shunt_admittance::<N>(shunt, network.nodes[shunt.node].u_rated_v).unwrap_or(zero);
                    at(shunt.node, &y, &zero).map(|s| -s)
                }
                None => zero,
            },
            Terminal::Appliance(index) => network
                .appliances
                .get(index)
                .and_then(|appliance| self.injection_pu(appliance).ok())
                .unwrap_or(zero),
            Terminal::Node(node) => self.node_injection_pu(node).unwrap_or(zero),
            Terminal::BranchFrom(index) => self.branch_flow(network, index).s_from_pu,
            Terminal::BranchTo(index) => self.branch_flow(network, index).s_to_pu,
        }
    }

    /// Flow through a branch.
    pub fn branch_flow(&self, network: &Network, branch: usize) -> BranchFlow<N> {
        branch_flow(network, &self.admittance, branch, |position| self.voltage[position])
    }

    /// The connections that were solved.
    pub fn topology(&self) -> &crate::topology::Topology {
        &self.admittance.topology
    }
}

/// Voltages without load by position, symmetrical components; a source without reference voltage counts as one per unit.
pub(crate) fn no_load_voltages<const N: usize>(network: &Network, admittance: &Admittance<N>) -> Result<Vec<[C64; N]>, GridError> {
    let mut diagonal = admittance.diagonal.clone();
    let mut currents = Vec::new();
    for source in network.sources.iter().filter(|source| source.connected) {
        let position = admittance.order.position[source.node];
        let y = source_admittance::<N>(source);
        let u = source_voltage::<N>(source).unwrap_or_else(|_| balanced::<N>());
        add(&mut diagonal[position as usize], &y);
        currents.push((position, std::array::from_fn(|k| y[k] * u[k])));
    }
    let mut voltage = vec![balanced::<N>(); admittance.order.len()];
    Sweep::new(network, admittance, &diagonal)?.solve_without_load(&currents, &mut voltage);
    Ok(voltage)
}

/// Set point of an appliance by phase, positive into the grid, per unit.
pub(crate) fn injection<const N: usize>(appliance: &Appliance) -> Result<[C64; N], GridError> {
    let p = phases_pu::<N>(appliance.p_w);
    let q = phases_pu::<N>(appliance.q_var);
    for (values, attribute) in [(p, "p_specified"), (q, "q_specified")] {
        if values.iter().any(|value| value.is_nan()) {
            return Err(GridError::MissingAttribute {
                component: appliance.component(),
                id: appliance.id,
                attribute,
            });
        }
    }
    let sign = if appliance.is_generator { 1.0 } else { -1.0 };
    Ok(std::array::from_fn(|k| C64::new(p[k], q[k]) * sign))
}

/// A power by phase, per unit of the phase's base: the total spread evenly, or the mean of the phases.
pub(crate) fn phases_pu<const N: usize>(power: PerPhase) -> [f64; N] {
    std::array::from_fn(|k| match (power, N) {
        (PerPhase::Symmetric(total), _) => total / BASE_POWER_VA,
        (PerPhase::Phases(phases), 1) => phases.iter().sum::<f64>() / BASE_POWER_VA,
        (PerPhase::Phases(phases), _) => phases[k] * 3.0 / BASE_POWER_VA,
    })
}

/// Current that appliances inject at a voltage, both in symmetrical components.
#[inline(always)]
fn constant_power_current<const N: usize>(power: &[C64; N], voltage: &[C64; N]) -> [C64; N] {
    let u = to_phases(voltage);
    // conj(s / u)
    to_sequences(&std::array::from_fn(|k| power[k].conj() * u[k] * u[k].norm_sqr().recip()))
}

impl<const N: usize> VoltageDependent<N> {
    fn current(&self, voltage: &[C64; N]) -> [C64; N] {
        let u = to_phases(voltage);
        to_sequences(&std::array::from_fn(|k| {
            self.current[k].conj() * u[k] / u[k].norm() + self.impedance[k].conj() * u[k]
        }))
    }
}
