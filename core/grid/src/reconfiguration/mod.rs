//! Reconfiguration: which switches to move so that a radial grid loses less.
//!
//! [`reconfigure`] gives four states side by side: the grid as it stands, the tree of D4.6 (meshed power flow, weights 1/|I|, Kruskal),
//! the same from a meshed power flow without reactances, and the best that a branch exchange and an iterated local search find from all
//! of them; and the order in which to move the switches. [`Trigger`] says when a saving is worth a proposal, [`Proposal`] what becomes
//! of it. Losses are balanced (positive sequence). Equations and figures: `docs/algorithms/reconfiguration.md`.
//!
//! Start reading in `graph` (what a radial state is), then `tree` (its power flow and what an exchange saves).
//!
//! # Source
//! FLEXMETER D4.6, section 7.3. S. Civanlar, J. J. Grainger, H. Yin, S. S. H. Lee, "Distribution feeder reconfiguration for loss
//! reduction", IEEE Trans. Power Delivery 3(3), 1988. M. E. Baran, F. F. Wu, "Network reconfiguration in distribution systems for loss
//! reduction and load balancing", IEEE Trans. Power Delivery 4(2), 1989.

mod drawn;
mod graph;
mod meshed;
mod proposal;
mod search;
mod sequence;
mod tree;
mod trigger;

#[cfg(test)]
mod tests;

use crate::error::GridError;
use crate::network::Network;
use crate::random::Random;
use graph::{Graph, NONE};
use meshed::{Impedance, Sets, watts};
use search::Search;
use tree::{Bounds, Tree};

pub use drawn::Drawn;
pub use proposal::{Actor, Change, Operation, Proposal, ProposalState, Reason};
pub use trigger::{Trigger, TriggerOptions, Watch};

/// Most kicks of one search.
pub const N_KICKS_MAX: usize = 100_000;
/// Nodes times kicks where nobody asks for a number: every small grid gets the most, a city about as many as a second allows.
const KICKED_NODES: usize = 200_000;
const KICKS_USUAL: [usize; 2] = [10, 300];
/// Most nodes times open switches: some minutes of work. A city of 10,000 nodes has 3 million.
const NODES_BY_TIES_MAX: usize = 500_000_000;

/// What is asked of a reconfiguration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Lowest and highest voltage allowed, per unit of rated; EN 50160 has ±10 %.
    pub voltage_pu: [f64; 2],
    /// Largest share of a line's rated current or a transformer's rated power; those without rating have no limit.
    pub loading_max: f64,
    /// Rounds of the iterated local search: three random exchanges, then descent. `None`: 300 for small grids, fewer for large ones.
    pub n_kicks: Option<usize>,
    /// Seed of the kicks: the same one gives the same answer.
    pub seed: u64,
    /// Power flows of reported states end when no voltage moves by more, per unit.
    pub tolerance_pu: f64,
    /// Whether a loop through two sources may exist while a switch is closed and the next one opened. If not, such pairs open first.
    pub loops_between_sources: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            voltage_pu: [0.9, 1.1],
            loading_max: 1.0,
            n_kicks: None,
            seed: 1,
            tolerance_pu: 1e-10,
            loops_between_sources: true,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), GridError> {
        let refused = |option, value, remedy| Err(GridError::BadOption { option, value, remedy });
        let [low, high] = self.voltage_pu;
        if !(low >= 0.0) {
            return refused("voltage_min", low, "give the lowest voltage per unit of rated, such as 0.9");
        }
        if !(high > low) {
            return refused("voltage_max", high, "it has to be above voltage_min, per unit of rated");
        }
        if !(self.loading_max > 0.0) {
            return refused("loading_max", self.loading_max, "give a share of the rating above zero, such as 1");
        }
        if let Some(n_kicks) = self.n_kicks.filter(|&n_kicks| n_kicks > N_KICKS_MAX) {
            return refused("kicks", n_kicks as f64, "at most 100000 are made");
        }
        match self.tolerance_pu > 0.0 && self.tolerance_pu <= 1e-3 {
            true => Ok(()),
            false => refused("tolerance", self.tolerance_pu, "give a number above zero, at most 1e-3 per unit"),
        }
    }
}

/// A radial state of the grid.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Configuration {
    /// Indices of the switchable branches that are open, ascending.
    pub open: Vec<usize>,
    /// Active power that lines, transformers and links lose, W.
    pub loss_w: f64,
    /// Index of the node with the lowest voltage, and that voltage, per unit.
    pub voltage_min_pu: (usize, f64),
    /// Index of the node with the highest voltage, and that voltage, per unit.
    pub voltage_max_pu: (usize, f64),
    /// Index of the branch with the highest loading, and that loading; `None` if nothing has a rating.
    pub loading_max: Option<(usize, f64)>,
    /// Nodes outside the voltage limits: index, voltage per unit.
    pub voltage_violations: Vec<(usize, f64)>,
    /// Branches above the loading limit: index, loading.
    pub loading_violations: Vec<(usize, f64)>,
}

impl Configuration {
    /// Whether all limits are kept.
    pub fn keeps_limits(&self) -> bool {
        self.voltage_violations.is_empty() && self.loading_violations.is_empty()
    }
}

/// How two switches change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Close first: a loop for a moment, nobody interrupted.
    MakeBeforeBreak,
    /// Open first, because the loop may not be: those behind the switch are interrupted for a moment.
    BreakBeforeMake,
}

/// One pair of operations and the radial state after it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Index of the branch to close.
    pub close: usize,
    /// Index of the branch to open.
    pub open: usize,
    /// Which of the two first.
    pub order: Order,
    /// Nodes without supply between the two operations; zero if the first one closes.
    pub n_interrupted: usize,
    /// Voltage across the open switch before the step, per unit.
    pub voltage_across_pu: f64,
    /// Angle across it, rad.
    pub angle_across_rad: f64,
    /// Losses after the step, W.
    pub loss_w: f64,
    /// Lowest voltage after the step, per unit.
    pub voltage_min_pu: f64,
    /// Highest loading after the step.
    pub loading_max: Option<f64>,
    /// Whether the state after the step keeps all limits.
    pub keeps_limits: bool,
}

/// What a search has come to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reconfiguration {
    /// The grid as it stands.
    pub initial: Configuration,
    /// The tree of D4.6, or why there is none.
    pub d4_6: Result<Configuration, GridError>,
    /// The same without reactances in the meshed power flow.
    pub r_only: Result<Configuration, GridError>,
    /// The best state found; never worse than the initial one: limits first, then losses.
    pub best: Configuration,
    /// How to get from the initial state to the best.
    pub sequence: Vec<Step>,
    /// Power flows made on trees.
    pub n_power_flows: usize,
}

impl Reconfiguration {
    /// What the best state saves, W.
    pub fn saving_w(&self) -> f64 {
        self.initial.loss_w - self.best.loss_w
    }

    /// The switches to move, one after the other.
    pub fn operations(&self, network: &Network) -> Vec<Operation> {
        let operation = |branch: usize, close| network.branches.get(branch).map(|branch| Operation { branch: branch.id, close });
        let in_order = |step: &Step| match step.order {
            Order::MakeBeforeBreak => [operation(step.close, true), operation(step.open, false)],
            Order::BreakBeforeMake => [operation(step.open, false), operation(step.close, true)],
        };
        self.sequence.iter().flat_map(in_order).flatten().collect()
    }
}

/// Looks for the radial state of least losses that the switches can reach. `switches` are indices of branches; all others stay as they
/// are, and nodes without supply stay without.
///
/// # Errors
/// [`GridError::NotRadial`] for a grid that has loops as it stands; [`GridError::NotConverged`] if it cannot carry its loads;
/// [`GridError::BadOption`], [`GridError::UnknownSwitch`], [`GridError::NoSource`], [`GridError::TooLarge`]; [`GridError::MissingAttribute`] for loads without power
/// and sources without voltage.
pub fn reconfigure(network: &Network, switches: &[usize], options: &Options) -> Result<Reconfiguration, GridError> {
    options.check()?;
    let mut is_switch = vec![false; network.branches.len()];
    for &switch in switches {
        *is_switch.get_mut(switch).ok_or(GridError::UnknownSwitch {
            switch,
            n_branches: network.branches.len(),
        })? = true;
    }
    let (graph, closed) = Graph::new(network, &is_switch)?;
    check_radial(network, &graph, &closed)?;
    check_size(graph.n_nodes(), closed.iter().filter(|closed| !**closed).count())?;
    let bounds = Bounds {
        voltage_pu: options.voltage_pu,
        loading_max: options.loading_max,
    };
    let mut search = Search::new(&graph, bounds, closed)?;
    let start = search.state();
    let initial = configuration(&mut search, &start.closed, options)?;
    let trees = [Impedance::Full, Impedance::ResistanceOnly].map(|impedance| meshed::tree(network, &graph, impedance));
    search.descend();
    let mut best = search.state();
    for closed in trees.iter().flatten() {
        search.tree.set(&graph, closed, &start_voltages(&graph, closed));
        search.solve();
        search.descend();
        if search.quality.is_better_than(&best.quality, 0.0) {
            best = search.state();
        }
    }
    search.restore(&best);
    let n_kicks = options
        .n_kicks
        .unwrap_or_else(|| (KICKED_NODES / graph.n_nodes()).clamp(KICKS_USUAL[0], KICKS_USUAL[1]));
    search.escape(n_kicks, &mut Random::new(options.seed));
    best = search.state();
    let [d4_6, r_only] = trees.map(|tree| tree.and_then(|closed| configuration(&mut search, &closed, options)));
    let mut reached = configuration(&mut search, &best.closed, options)?;
    // the search looks less closely than the report does: what it takes for a gain may be none
    let gains_nothing = reached.loss_w >= initial.loss_w && best.quality.violation >= start.quality.violation;
    let gives_up_limits = initial.keeps_limits() && !reached.keeps_limits();
    if gains_nothing || gives_up_limits {
        (best, reached) = (start.clone(), initial.clone());
    }
    search.restore(&start);
    let sequence = sequence::steps(&mut search, &best.closed, best.quality, options)?;
    Ok(Reconfiguration {
        initial,
        d4_6,
        r_only,
        best: reached,
        sequence,
        n_power_flows: search.tree.n_flows,
    })
}

/// One pass over all loops costs nodes times open switches.
fn check_size(n_nodes: usize, n_ties: usize) -> Result<(), GridError> {
    match n_nodes.saturating_mul(n_ties) {
        n if n > NODES_BY_TIES_MAX => Err(GridError::TooLarge {
            what: "nodes times open switches",
            n,
            n_max: NODES_BY_TIES_MAX,
        }),
        _ => Ok(()),
    }
}

/// Whether the closed edges are a spanning tree; everything in the graph has supply, so a loop is all that can be wrong.
fn check_radial(network: &Network, graph: &Graph, closed: &[bool]) -> Result<(), GridError> {
    let mut sets = Sets::new(graph.n_nodes());
    for edge in (0..graph.n_edges()).filter(|&edge| closed[edge]) {
        if !sets.join(graph.ends[edge]) && graph.branch[edge] != NONE {
            return Err(GridError::NotRadial {
                branch: network.branches[graph.branch[edge] as usize].id,
            });
        }
    }
    Ok(())
}

fn start_voltages(graph: &Graph, closed: &[bool]) -> Vec<crate::model::C64> {
    Tree::new(graph, closed.to_vec()).voltage
}

/// Solves a state to the tolerance of the options and describes it.
fn configuration(search: &mut Search<'_>, closed: &[bool], options: &Options) -> Result<Configuration, GridError> {
    let graph = search.graph;
    let tree = &mut search.tree;
    tree.set(graph, closed, &start_voltages(graph, closed));
    tree.solve(graph, options.tolerance_pu)?;
    let [low, high] = options.voltage_pu;
    let voltages: Vec<(usize, f64)> = (1..tree.order.len())
        .map(|at| (graph.node[tree.order[at] as usize] as usize, tree.v[at].norm()))
        .collect();
    let loadings: Vec<(usize, f64)> = (1..tree.order.len())
        .filter_map(|at| Some((graph.branch[tree.edge[at] as usize] as usize, tree.loading(graph, at)?)))
        .collect();
    let sorted = |mut list: Vec<(usize, f64)>| {
        list.sort_unstable_by_key(|(index, _)| *index);
        list
    };
    let lowest = voltages.iter().copied().min_by(|x, y| x.1.total_cmp(&y.1));
    let highest = voltages.iter().copied().max_by(|x, y| x.1.total_cmp(&y.1));
    let mut open: Vec<usize> = (0..graph.n_edges())
        .filter(|&edge| graph.is_switch[edge] && !closed[edge])
        .map(|edge| graph.branch[edge] as usize)
        .collect();
    open.sort_unstable();
    Ok(Configuration {
        open,
        loss_w: watts(tree.loss_pu(graph)),
        voltage_min_pu: lowest.unwrap_or((0, f64::NAN)),
        voltage_max_pu: highest.unwrap_or((0, f64::NAN)),
        loading_max: loadings.iter().copied().max_by(|x, y| x.1.total_cmp(&y.1)),
        voltage_violations: sorted(voltages.into_iter().filter(|(_, u)| !(*u >= low && *u <= high)).collect()),
        loading_violations: sorted(loadings.into_iter().filter(|(_, share)| !(*share <= options.loading_max)).collect()),
    })
}

/// Index of the branch with the highest loading, and that loading.
fn worst_loading(graph: &Graph, tree: &Tree) -> Option<(usize, f64)> {
    (1..tree.order.len())
        .filter_map(|at| Some((graph.branch[tree.edge[at] as usize] as usize, tree.loading(graph, at)?)))
        .max_by(|x, y| x.1.total_cmp(&y.1))
}
