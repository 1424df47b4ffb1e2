//! Types of faults: which phases meet, through which resistances, and what that looks like at the head.

use nalgebra::{DMatrix, Matrix3};

use super::phasor::Phasors;
use crate::model::{C64, to_sequences};

/// Which conductors meet at a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultType {
    /// Phase a to ground.
    Ag,
    /// Phase b to ground.
    Bg,
    /// Phase c to ground.
    Cg,
    /// Phases a and b.
    Ab,
    /// Phases b and c.
    Bc,
    /// Phases c and a.
    Ca,
    /// Phases a and b with ground.
    Abg,
    /// Phases b and c with ground.
    Bcg,
    /// Phases c and a with ground.
    Cag,
    /// All three phases.
    Abc,
    /// All three phases with ground.
    Abcg,
}

use FaultType::{Ab, Abc, Abcg, Abg, Ag, Bc, Bcg, Bg, Ca, Cag, Cg};

impl FaultType {
    /// All of them.
    pub const ALL: [Self; 11] = [Ag, Bg, Cg, Ab, Bc, Ca, Abg, Bcg, Cag, Abc, Abcg];

    /// The usual abbreviation.
    pub fn name(self) -> &'static str {
        ["AG", "BG", "CG", "AB", "BC", "CA", "ABG", "BCG", "CAG", "ABC", "ABCG"][self as usize]
    }

    /// The type of an abbreviation, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Whether phase a, b, c takes part.
    pub fn phases(self) -> [bool; 3] {
        let mut phases = [false; 3];
        for &phase in self.phase_list() {
            phases[phase] = true;
        }
        phases
    }

    /// Whether ground takes part.
    pub fn has_ground(self) -> bool {
        matches!(self, Ag | Bg | Cg | Abg | Bcg | Cag | Abcg)
    }

    fn phase_list(self) -> &'static [usize] {
        match self {
            Ag => &[0],
            Bg => &[1],
            Cg => &[2],
            Ab | Abg => &[0, 1],
            Bc | Bcg => &[1, 2],
            Ca | Cag => &[2, 0],
            Abc | Abcg => &[0, 1, 2],
        }
    }

    /// Its ports and resistances.
    pub(super) fn connection(self) -> Connection {
        let phases = self.phase_list();
        // between phases the last one is the return of the others
        let last = (!self.has_ground()).then(|| phases[phases.len() - 1]);
        let n_ports = phases.len() - usize::from(last.is_some());
        let mut ports = Vec::with_capacity(n_ports);
        for &phase in &phases[..n_ports] {
            let mut port = [C64::ZERO; 3];
            port[phase] = C64::ONE;
            if let Some(last) = last {
                port[last] = -C64::ONE;
            }
            ports.push(to_sequences(&port));
        }
        let ones = DMatrix::from_element(n_ports, n_ports, 1.0);
        let unit = DMatrix::identity(n_ports, n_ports);
        let resistances = match (self.has_ground(), n_ports) {
            // the whole resistance between two phases, or between a phase and ground
            (_, 1) => vec![unit],
            // a star of equal resistances without ground: the return phase carries the sum
            (false, _) => vec![unit + ones],
            (true, _) => vec![unit, ones],
        };
        Connection { ports, resistances }
    }
}

/// A fault as ports of the grid: currents `i` leave through them, and `ports' u = (sum of R_k resistances_k) i`.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// For each port what it takes of each symmetrical component.
    pub(super) ports: Vec<[C64; 3]>,
    /// For each unknown resistance the matrix it multiplies: that of each phase, then the common one to ground.
    pub(super) resistances: Vec<DMatrix<f64>>,
}

/// A zero sequence of this share of the largest change is ground's.
const GROUND_SHARE: f64 = 0.05;
/// A phase whose current changes by this share of the largest change takes part.
const PHASE_SHARE: f64 = 0.35;

/// The type as it looks at the head, from the change of the currents.
///
/// A phase takes part where its change is at least 0.35 of the largest, ground where the zero sequence of the change is at least 0.05
/// of it. Behind a transformer of another vector group the type looks different than where the fault is; the fit of the grid's model
/// does not use this.
pub(super) fn type_at_head(before: &Phasors, during: &Phasors) -> FaultType {
    let change: [C64; 3] = std::array::from_fn(|k| during.current_a[k] - before.current_a[k]);
    let largest = change.iter().map(|i| i.norm()).fold(0.0, f64::max);
    let zero = change.iter().sum::<C64>().norm() / 3.0;
    let has_ground = zero > GROUND_SHARE * largest;
    let phases = change.map(|i| i.norm() > PHASE_SHARE * largest);
    let of_phases = |phases: [bool; 3], ground: bool| {
        FaultType::ALL
            .into_iter()
            .find(|kind| kind.phases() == phases && kind.has_ground() == ground)
    };
    of_phases(phases, has_ground)
        // one phase alone needs a return
        .or_else(|| of_phases(phases, true))
        .unwrap_or(Abc)
}

/// The admittances of three phases in symmetrical components.
pub(super) fn phases_to_sequences(y: &[C64; 3]) -> Matrix3<C64> {
    let mut matrix = Matrix3::zeros();
    for column in 0..3 {
        let mut unit = [C64::ZERO; 3];
        unit[column] = C64::ONE;
        let u = crate::model::to_phases(&unit);
        let i = to_sequences::<3>(&std::array::from_fn(|k| y[k] * u[k]));
        for row in 0..3 {
            matrix[(row, column)] = i[row];
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::to_phases;

    #[test]
    fn every_name_is_read_back_and_no_other() {
        for kind in FaultType::ALL {
            assert_eq!(FaultType::from_name(&kind.name().to_lowercase()), Some(kind));
        }
        assert_eq!(FaultType::from_name("ABD"), None);
    }

    #[test]
    fn what_enters_a_fault_without_ground_leaves_it_by_another_phase() {
        for kind in FaultType::ALL {
            for port in kind.connection().ports {
                let sum: C64 = to_phases(&port).iter().sum();
                assert_eq!(sum.norm() < 1e-12, !kind.has_ground(), "{}", kind.name());
            }
        }
    }

    #[test]
    fn a_star_of_equal_resistances_between_the_phases_has_its_own_impedance() {
        // 6 ohm a phase, 2 A into a and 1 A into b, 3 A out of c: 12 + 18 and 6 + 18 V
        let connection = Abc.connection();
        let u = (&connection.resistances[0] * 6.0) * nalgebra::DVector::from_vec(vec![2.0, 1.0]);
        assert_eq!((u[0], u[1]), (30.0, 24.0));
    }
}
