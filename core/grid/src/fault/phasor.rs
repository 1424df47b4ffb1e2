//! Phasors of the three voltages and currents at the head.

use crate::model::C64;

/// Voltages to ground and currents of phases a, b, c at one time, root mean square, on one reference of angles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phasors {
    /// Phase to ground, V.
    pub voltage_v: [C64; 3],
    /// Into the feeder, A.
    pub current_a: [C64; 3],
}
