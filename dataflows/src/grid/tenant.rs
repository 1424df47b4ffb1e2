//! A tenant's grid, prepared for the street: which device is which meter or switch, and which meters are in which area.

use std::collections::HashMap;
use std::fmt::Write as _;

use flexmeter_grid::GridError;
use flexmeter_grid::areas::{Entrance, Layout};
use flexmeter_grid::bundle::Bundle;
use flexmeter_grid::estimation::{EstimateOptions, Estimator};
use flexmeter_grid::network::{Network, PerPhase, Terminal};
use xxhash_rust::xxh3::xxh3_64;

/// Most levels of areas: rounds of an epoch are counted in these.
pub const LEVELS_MAX: usize = 8;

/// A grid bundle, checked and indexed. Immutable: where its switches stand now is kept on the street.
#[derive(Debug)]
pub struct Grid {
    bundle: Bundle,
    layout: Layout,
    is_three_phase: bool,
    /// By area: indices of its meters.
    meters: Vec<Vec<usize>>,
    /// By meter: its area, and its place among the area's meters.
    place: Vec<(u32, u32)>,
    by_hardware_id: HashMap<String, Role>,
    depth: Vec<usize>,
}

/// What a device is in the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A meter: its index.
    Meter(u32),
    /// Tells the position of a switch: its index.
    Switch(u32),
}

impl Grid {
    /// Checks a bundle as a whole: every area must be one that can be estimated.
    ///
    /// The estimate has three phases if every line has a zero sequence, else it is that of the positive sequence.
    ///
    /// # Errors
    /// [`GridError::Area`] for areas that break the rule or are too deep, [`GridError::Bundle`] for a device that is named twice, and
    /// what [`Estimator::new`] says about an area's network.
    pub fn new(bundle: Bundle) -> Result<Self, GridError> {
        let areas = bundle.split()?;
        let is_three_phase = match estimators::<3, 12>(areas.iter().map(|area| &area.network)) {
            Ok(()) => true,
            Err(GridError::MissingAttribute { .. }) => {
                estimators::<1, 4>(areas.iter().map(|area| &area.network))?;
                false
            }
            Err(error) => return Err(error),
        };
        drop(areas);
        let paths: Vec<&str> = bundle.areas.iter().map(String::as_str).collect();
        let layout = Layout::new(&bundle.network, &paths)?;
        let depth: Vec<usize> = layout.paths().iter().map(|path| path.split('/').count()).collect();
        if let Some(area) = depth.iter().position(|&depth| depth > LEVELS_MAX) {
            return Err(GridError::Area {
                area: layout.paths()[area].clone(),
                reason: format!("is at level {}, at most {LEVELS_MAX} are supported; join areas", depth[area]),
            });
        }
        let mut meters = vec![Vec::new(); layout.paths().len()];
        let mut place = Vec::with_capacity(bundle.meters.len());
        let mut by_hardware_id = HashMap::new();
        let twice = |file: &'static str, index: usize, hardware_id: &str| GridError::Bundle {
            file,
            // the header is line 1
            line: index + 2,
            reason: format!("{hardware_id} is named a second time; a device is one meter or one switch"),
        };
        for (index, meter) in bundle.meters.iter().enumerate() {
            let area = layout.area_of_node(meter.node).unwrap_or(0);
            place.push((area as u32, meters[area].len() as u32));
            meters[area].push(index);
            if by_hardware_id
                .insert(meter.hardware_id.clone(), Role::Meter(index as u32))
                .is_some()
            {
                return Err(twice("meters.csv", index, &meter.hardware_id));
            }
        }
        for (index, switch) in bundle.switches.iter().enumerate() {
            let hardware_id = match switch.hardware_id.as_str() {
                "" => format!("branch-{}", bundle.network.branches()[switch.branch].id),
                given => given.to_owned(),
            };
            if by_hardware_id.contains_key(&hardware_id) {
                return Err(twice("switches.csv", index, &hardware_id));
            }
            by_hardware_id.insert(hardware_id, Role::Switch(index as u32));
        }
        Ok(Self {
            bundle,
            layout,
            is_three_phase,
            meters,
            place,
            by_hardware_id,
            depth,
        })
    }

    /// The bundle it was made of.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Paths of its areas, the lowest level first.
    pub fn areas(&self) -> &[String] {
        self.layout.paths()
    }

    /// A number that another grid has not: of its areas, branches and switches.
    pub(crate) fn mark(&self) -> u64 {
        let mut text = self.layout.paths().join("\n");
        let network = &self.bundle.network;
        for branch in network.branches() {
            let ends = [branch.from, branch.to].map(|node| network.nodes()[node].id);
            // writing to a String cannot fail
            let _ = write!(text, "\n{} {ends:?}", branch.id);
        }
        for switch in &self.bundle.switches {
            let _ = write!(text, "\n{} {}", switch.branch, switch.hardware_id);
        }
        // 0 stands for no grid
        xxh3_64(text.as_bytes()).max(1)
    }

    /// Whether its estimate has three phases.
    pub fn is_three_phase(&self) -> bool {
        self.is_three_phase
    }

    /// The device whose `switch.position` alerts operate a branch: that of `switches.csv`, or `branch-ID` where none is given there.
    /// `None` for a branch that is no switch.
    pub fn switch_device(&self, branch_id: i64) -> Option<String> {
        let branch = self.bundle.network.branch_index(branch_id)?;
        let switch = self.bundle.switches.iter().position(|switch| switch.branch == branch)?;
        self.device_of_switch(switch as u32)
    }

    /// The device that operates a switch, by the switch's index.
    pub(crate) fn device_of_switch(&self, switch: u32) -> Option<String> {
        let switch = self.bundle.switches.get(switch as usize)?;
        match switch.hardware_id.as_str() {
            "" => Some(format!("branch-{}", self.bundle.network.branches().get(switch.branch)?.id)),
            given => Some(given.to_owned()),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn role(&self, hardware_id: &str) -> Option<Role> {
        self.by_hardware_id.get(hardware_id).copied()
    }

    /// Area of a meter, and its place among the area's meters.
    pub(crate) fn place(&self, meter: u32) -> Option<(u32, u32)> {
        self.place.get(meter as usize).copied()
    }

    /// Whether a meter sits where an area is entered and measures all phases there: only then can it speak for the area.
    pub(crate) fn is_at_entrance(&self, meter: u32) -> bool {
        self.bundle
            .meters
            .get(meter as usize)
            .is_some_and(|meter| matches!(meter.terminal, Terminal::BranchTo(_)) && meter.phases == [0, 1, 2])
    }

    /// Indices of an area's meters.
    pub(crate) fn meters_of(&self, area: u32) -> &[usize] {
        self.meters.get(area as usize).map_or(&[], Vec::as_slice)
    }

    /// Level of an area; 1 for a top one.
    pub(crate) fn depth(&self, area: u32) -> usize {
        self.depth.get(area as usize).copied().unwrap_or(1)
    }

    /// Rated active and reactive power of a load by phase, W and var: one moment of it, but better than nothing.
    pub(crate) fn rated(network: &Network, appliance: usize) -> ([f64; 3], [f64; 3]) {
        let phases = |power: PerPhase| match power {
            PerPhase::Symmetric(value) => [value / 3.0; 3],
            PerPhase::Phases(values) => values,
        };
        network.appliances().get(appliance).map_or(([0.0; 3], [0.0; 3]), |load| {
            let number = |value: f64| if value.is_finite() { value } else { 0.0 };
            (phases(load.p_w).map(number), phases(load.q_var).map(number))
        })
    }
}

/// Whether every one of these networks has an estimator.
fn estimators<'a, const N: usize, const B: usize>(mut networks: impl Iterator<Item = &'a Network>) -> Result<(), GridError> {
    networks.try_for_each(|network| Estimator::<N, B>::new(network, EstimateOptions::default()).map(|_| ()))
}

/// The grid of a tenant as its switches stand.
#[derive(Debug)]
pub(crate) struct Topology {
    /// The whole network.
    pub(crate) network: Network,
    pub(crate) entrances: Vec<Entrance>,
    /// By area: whether its root has supply.
    pub(crate) has_supply: Vec<bool>,
}

impl Topology {
    /// As the bundle says.
    pub(crate) fn new(grid: &Grid) -> Self {
        let mut topology = Self {
            network: grid.bundle.network.clone(),
            entrances: Vec::new(),
            has_supply: Vec::new(),
        };
        topology.walk(grid);
        topology
    }

    /// Whether a switch's branch is closed.
    pub(crate) fn is_closed(&self, grid: &Grid, switch: u32) -> Option<bool> {
        let branch = grid.bundle.switches.get(switch as usize)?.branch;
        Some(self.network.branches()[branch].is_closed())
    }

    /// Puts switches into position. Gives the areas whose network is another one now.
    pub(crate) fn operate(&mut self, grid: &Grid, positions: &[(u32, bool)]) -> Vec<u32> {
        let mut changed: Vec<u32> = Vec::new();
        for &(switch, closed) in positions {
            let Some(switch) = grid.bundle.switches.get(switch as usize) else {
                continue;
            };
            if self.network.branches()[switch.branch].is_closed() == closed {
                continue;
            }
            self.network.set_closed(switch.branch, closed);
            let branch = &self.network.branches()[switch.branch];
            changed.extend(
                [branch.from, branch.to]
                    .iter()
                    .filter_map(|&node| grid.layout.area_of_node(node))
                    .map(|a| a as u32),
            );
        }
        if changed.is_empty() {
            return changed;
        }
        let (entrances, has_supply) = (std::mem::take(&mut self.entrances), std::mem::take(&mut self.has_supply));
        self.walk(grid);
        for area in 0..self.entrances.len() {
            if entrances[area] != self.entrances[area] || has_supply[area] != self.has_supply[area] {
                changed.push(area as u32);
                changed.extend(grid.layout.parent(area).map(|parent| parent as u32));
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    fn walk(&mut self, grid: &Grid) {
        self.entrances = grid.layout.entrances(&self.network);
        let supply = flexmeter_grid::topology::Topology::new(&self.network);
        self.has_supply = self
            .entrances
            .iter()
            .map(|entrance| match entrance {
                Entrance::Branch(branch) => supply.is_energised(self.network.branches()[*branch].to),
                Entrance::Top | Entrance::Refused(_) => true,
                _ => false,
            })
            .collect();
    }
}
