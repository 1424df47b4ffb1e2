//! Outcomes of the grid engine: the state of an area, how far it can be trusted, and where the switches stand.
//!
//! An area's estimate travels as one value, because it is made as one: a changed reading moves every voltage of its area a little. The
//! rows of the tables `grid_state` and `grid_quality` are read from it with [`AreaEstimate::rows`] and [`AreaEstimate::quality`].

use std::ops::Range;
use std::sync::Arc;

use crate::ids::TenantId;
use crate::time::EventTime;

/// Which phase a value is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GridPhase {
    /// Phase a, `l1` of a meter.
    A,
    /// Phase b, `l2`.
    B,
    /// Phase c, `l3`.
    C,
    /// All phases together: powers are sums, voltages those of the positive sequence (phase to ground).
    Total,
}

impl GridPhase {
    const ABC: [Self; 3] = [Self::A, Self::B, Self::C];
    const ONE: [Self; 1] = [Self::Total];

    /// The text used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::Total => "",
        }
    }
}

/// What is estimated of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GridQuantity {
    /// Voltage, phase to ground, V.
    Voltage,
    /// Angle of that voltage, rad, against phase a at the root of the area.
    Angle,
    /// Active power that the node's appliances take out of the grid, W.
    ActivePower,
    /// Reactive power that they take, var.
    ReactivePower,
}

impl GridQuantity {
    /// All of them, in the order of [`NodeState`].
    pub const ALL: [Self; 4] = [Self::Voltage, Self::Angle, Self::ActivePower, Self::ReactivePower];

    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Voltage => "voltage_v",
            Self::Angle => "angle_rad",
            Self::ActivePower => "p_w",
            Self::ReactivePower => "q_var",
        }
    }
}

/// The estimated state of one node; all zero for a node without supply.
///
/// # Shape
/// By [`GridQuantity::ALL`], then by phase: a, b, c, or the total alone at index 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NodeState {
    /// Whether it has supply.
    pub energised: bool,
    /// Values.
    pub value: [[f64; 3]; 4],
    /// Their standard deviations.
    pub sigma: [[f64; 3]; 4],
}

/// How far an area's estimate can be trusted: a row of `grid_quality`.
#[derive(Debug, Clone, PartialEq)]
pub struct GridQuality {
    /// Depth of the area: 1 for a top one.
    pub level: u32,
    /// Weighted sum of squared residuals.
    pub j: f64,
    /// Readings beyond what the state needs: the expected value of `j`.
    pub degrees_of_freedom: u32,
    /// Hardware ids of the meters whose readings were left out because they contradict all others.
    pub suspects: Vec<String>,
    /// Whether the readings, without any pseudo-measurement, determine the state.
    pub observable: bool,
    /// Meters with a reading that is taken as it is: not aged, not made up.
    pub n_measurements: u32,
    /// Meters and loads for which a pseudo-measurement or an aged reading stands.
    pub n_pseudo: u32,
    /// Why there is no estimate, if there is none.
    pub problem: Option<String>,
}

/// The estimate of one area: all its nodes at one time, in one topology.
#[derive(Debug, Clone, PartialEq)]
pub struct AreaEstimate {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its path, for example `mv1/lv07`.
    pub area: Arc<str>,
    /// Ids of its nodes.
    pub nodes: Arc<[i64]>,
    /// Whether states are by phase, or of all phases together.
    pub three_phase: bool,
    /// State of each node; empty when there is no estimate.
    pub states: Vec<NodeState>,
    /// How far it can be trusted.
    pub quality: GridQuality,
    /// Event time of the newest reading in it, of the area itself or of one below.
    pub event_time: EventTime,
}

/// A row of `grid_state`.
#[derive(Debug, Clone, PartialEq)]
pub struct GridStateRow {
    /// Its tenant.
    pub tenant: TenantId,
    /// Path of the area.
    pub area: Arc<str>,
    /// Id of the node.
    pub node_id: i64,
    /// Phase.
    pub phase: GridPhase,
    /// What.
    pub quantity: GridQuantity,
    /// Estimated value, in the quantity's unit.
    pub value: f64,
    /// Its standard deviation.
    pub sigma: f64,
    /// Event time of the newest reading in it.
    pub event_time: EventTime,
}

impl AreaEstimate {
    /// Its rows of `grid_state`: by node, then quantity, then phase.
    pub fn rows(&self) -> impl Iterator<Item = GridStateRow> + '_ {
        self.rows_of(0..self.nodes.len())
    }

    /// The same of some of its nodes, by their position in [`Self::nodes`].
    pub fn rows_of(&self, nodes: Range<usize>) -> impl Iterator<Item = GridStateRow> + '_ {
        self.rows_where(nodes, |_, _, _| true)
    }

    /// The phases that its states have.
    pub fn phases(&self) -> &'static [GridPhase] {
        if self.three_phase { &GridPhase::ABC } else { &GridPhase::ONE }
    }

    /// Rows whose value has moved by more than `share` of its standard deviation since `old`, or that `old` has not: what a history needs
    /// to keep of estimates that come with every reading.
    pub fn rows_moved_since<'a>(&'a self, old: &'a Self, share: f64) -> impl Iterator<Item = GridStateRow> + 'a {
        let comparable = old.nodes == self.nodes && old.three_phase == self.three_phase;
        self.rows_where(0..self.nodes.len(), move |node, quantity, phase| {
            let (Some(new), Some(old)) = (self.states.get(node), old.states.get(node).filter(|_| comparable)) else {
                return true;
            };
            let (value, before) = (new.value[quantity][phase], old.value[quantity][phase]);
            new.energised != old.energised || (value - before).abs() > share * new.sigma[quantity][phase]
        })
    }

    fn rows_where<'a>(
        &'a self,
        nodes: Range<usize>,
        keep: impl Fn(usize, usize, usize) -> bool + 'a,
    ) -> impl Iterator<Item = GridStateRow> + 'a {
        let phases = self.phases();
        let nodes = self.nodes.iter().zip(&self.states).enumerate().skip(nodes.start).take(nodes.len());
        let places = nodes.flat_map(move |(node, (&node_id, state))| {
            let cells = (0..GridQuantity::ALL.len()).flat_map(move |quantity| (0..phases.len()).map(move |phase| (quantity, phase)));
            cells.map(move |(quantity, phase)| (node, node_id, state, quantity, phase))
        });
        let kept = places.filter(move |&(node, _, _, quantity, phase)| keep(node, quantity, phase));
        kept.map(move |(_, node_id, state, quantity, phase)| GridStateRow {
            tenant: self.tenant.clone(),
            area: self.area.clone(),
            node_id,
            phase: phases[phase],
            quantity: GridQuantity::ALL[quantity],
            value: state.value[quantity][phase],
            sigma: state.sigma[quantity][phase],
            event_time: self.event_time,
        })
    }
}

/// A row of `switches`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchRow {
    /// Its tenant.
    pub tenant: TenantId,
    /// Id of the branch that is switched.
    pub branch_id: i64,
    /// Whether it is closed.
    pub closed: bool,
    /// Event time of the operation; `None` while the position is the bundle's.
    pub since: Option<EventTime>,
    /// Who said so: the hardware id of the switch; empty for the bundle.
    pub by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(voltages: &[f64]) -> AreaEstimate {
        let state = |&u: &f64| NodeState {
            energised: u > 0.0,
            value: [[u; 3], [0.0; 3], [1.0; 3], [0.0; 3]],
            sigma: [[1.0; 3]; 4],
        };
        AreaEstimate {
            tenant: TenantId::new("t").unwrap(),
            area: "mv1".into(),
            nodes: (0..voltages.len() as i64).collect(),
            three_phase: true,
            states: voltages.iter().map(state).collect(),
            quality: GridQuality {
                level: 1,
                j: 0.0,
                degrees_of_freedom: 0,
                suspects: Vec::new(),
                observable: true,
                n_measurements: 0,
                n_pseudo: 0,
                problem: None,
            },
            event_time: EventTime::from_micros(0),
        }
    }

    #[test]
    fn a_node_has_a_row_for_each_quantity_and_phase() {
        let estimate = estimate(&[230.0, 231.0]);
        let rows: Vec<_> = estimate.rows().collect();
        assert_eq!(rows.len(), 2 * 4 * 3);
        assert_eq!(
            (rows[0].node_id, rows[0].phase.as_str(), rows[0].quantity.as_str()),
            (0, "a", "voltage_v")
        );
        assert_eq!(
            (rows[23].node_id, rows[23].phase.as_str(), rows[23].quantity.as_str()),
            (1, "c", "q_var")
        );
        assert_eq!(estimate.rows_of(1..2).collect::<Vec<_>>(), rows[12..]);
        assert_eq!(estimate.rows_of(2..9).count(), 0);
    }

    #[test]
    fn a_history_keeps_what_moved_beyond_a_share_of_its_sigma() {
        let old = estimate(&[230.0, 231.0]);
        let count = |new: &AreaEstimate, share: f64| new.rows_moved_since(&old, share).count();
        assert_eq!(count(&old, 0.1), 0);
        assert_eq!(count(&estimate(&[230.0, 231.2]), 0.1), 3);
        assert_eq!(count(&estimate(&[230.0, 231.2]), 0.3), 0);
        assert_eq!(count(&estimate(&[0.0, 231.0]), 1e9), 12, "what goes dark is told whole");
        assert_eq!(count(&estimate(&[230.0]), 0.1), 12, "another topology is another area");
    }
}
