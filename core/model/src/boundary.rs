//! What a device at the entrance of an area has estimated of it: voltages, powers, and how far they can be off together.
//!
//! A concentrator that estimates its area itself publishes the result as measurements; the covariance comes beside them, as two texts of
//! the message's metadata. [`PublishedBoundary`] is the meaning of such a message, and writes one; [`decode`](crate::decode) reads it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::quantity::Identifier;

/// Number of quantities: voltage, active and reactive power of three phases.
pub const N_QUANTITIES: usize = 9;

/// Metadata: the identifiers that the covariance is of, in its order, with commas between.
pub const COVARIANCE_OF: &str = "covariance.of";

/// Metadata: the lower triangle of the covariance, row by row, with commas between.
pub const COVARIANCE: &str = "covariance";

/// An area's boundary as a device has estimated it.
///
/// # Units
/// V to ground, W and var into the area; the covariance in their products.
///
/// # Shape
/// By phase; rows of the covariance: three voltages, three active powers, three reactive powers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedBoundary {
    /// Magnitudes of the root's voltages.
    pub voltage_v: [f64; 3],
    /// Active powers into the area.
    pub active_w: [f64; 3],
    /// Reactive powers into the area.
    pub reactive_var: [f64; 3],
    /// Symmetric and positive definite.
    pub covariance: [[f64; N_QUANTITIES]; N_QUANTITIES],
}

/// Which row of a boundary an identifier is about, and by what its value is multiplied to be in the row's unit.
pub(crate) fn row_of(identifier: Identifier) -> Option<(usize, f64)> {
    let (kind, phase) = identifier.name().rsplit_once(".l")?;
    let k = ["1", "2", "3"].iter().position(|&name| name == phase)?;
    // what is injected flows out of the area
    match kind {
        "electricity.voltage.rms" => Some((k, 1.0)),
        "electricity.power.active.consumed" => Some((3 + k, 1e3)),
        "electricity.power.active.injected" => Some((3 + k, -1e3)),
        "electricity.power.reactive.consumed" => Some((6 + k, 1e3)),
        "electricity.power.reactive.injected" => Some((6 + k, -1e3)),
        _ => None,
    }
}

/// What a row is about, in words.
pub(crate) fn row_name(row: usize) -> String {
    let quantity = ["voltage", "active power", "reactive power"]
        .get(row / 3)
        .copied()
        .unwrap_or_default();
    format!("{quantity} of l{}", row % 3 + 1)
}

impl PublishedBoundary {
    /// Values in the order of the covariance's rows.
    pub fn values(&self) -> [f64; N_QUANTITIES] {
        std::array::from_fn(|row| match row {
            0..3 => self.voltage_v[row],
            3..6 => self.active_w[row - 3],
            _ => self.reactive_var[row - 6],
        })
    }

    /// Standard deviation of a row.
    pub fn sigma(&self, row: usize) -> f64 {
        self.covariance
            .get(row)
            .and_then(|entries| entries.get(row))
            .map_or(0.0, |variance| variance.max(0.0).sqrt())
    }

    /// As measurements, in their units.
    pub fn measurements(&self) -> Vec<(Identifier, f64)> {
        self.said()
            .map(|(identifier, row, factor)| (identifier, self.values()[row] / factor))
            .collect()
    }

    /// The metadata that go with the measurements.
    pub fn metadata(&self) -> Vec<(String, String)> {
        let said: Vec<_> = self.said().collect();
        let names: Vec<&str> = said.iter().map(|(identifier, ..)| identifier.name()).collect();
        let mut triangle = String::new();
        for (at, &(_, row, factor)) in said.iter().enumerate() {
            for &(_, column, other) in &said[..=at] {
                let comma = if triangle.is_empty() { "" } else { "," };
                // writing to a String cannot fail
                let _ = write!(triangle, "{comma}{:e}", self.covariance[row][column] / (factor * other));
            }
        }
        vec![(COVARIANCE_OF.to_owned(), names.join(",")), (COVARIANCE.to_owned(), triangle)]
    }

    /// By row: its identifier, and what its value is multiplied by. There are two names for a power, and no value is negative.
    fn said(&self) -> impl Iterator<Item = (Identifier, usize, f64)> {
        self.values().into_iter().enumerate().filter_map(|(row, value)| {
            Identifier::ALL.into_iter().find_map(|identifier| {
                let (at, factor) = row_of(identifier)?;
                (at == row && value / factor >= 0.0).then_some((identifier, row, factor))
            })
        })
    }
}

/// Checks that a covariance (its lower triangle, row by row) is positive definite, after its rows have been brought to unit variance;
/// else the first row that is not independent of the ones before it, or has no variance.
pub(crate) fn check_positive_definite(triangle: &[f64], n: usize) -> Result<(), usize> {
    /// Smallest share of a variance that the rows before must leave unexplained: less is rounding.
    const UNEXPLAINED_MIN: f64 = 1e-12;
    let at = |row: usize, column: usize| row * (row + 1) / 2 + column;
    let entry = |row: usize, column: usize| triangle.get(at(row, column)).copied().unwrap_or(0.0);
    let mut factor = vec![0.0; n * (n + 1) / 2];
    for row in 0..n {
        let variance = entry(row, row);
        if variance.is_nan() || variance <= 0.0 {
            return Err(row);
        }
        for column in 0..=row {
            let known: f64 = (0..column).map(|k| factor[at(row, k)] * factor[at(column, k)]).sum();
            let correlation = entry(row, column) / (variance.sqrt() * entry(column, column).sqrt());
            if column < row {
                factor[at(row, column)] = (correlation - known) / factor[at(column, column)];
                continue;
            }
            let unexplained = 1.0 - known;
            if unexplained.is_nan() || unexplained < UNEXPLAINED_MIN {
                return Err(row);
            }
            factor[at(row, row)] = unexplained.sqrt();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covariance_is_positive_definite_or_the_row_is_named() {
        assert_eq!(check_positive_definite(&[4.0, 1.0, 9.0], 2), Ok(()));
        // a correlation of one and of more than one, no variance, none at all
        assert_eq!(check_positive_definite(&[4.0, 6.0, 9.0], 2), Err(1));
        assert_eq!(check_positive_definite(&[4.0, -7.0, 9.0], 2), Err(1));
        assert_eq!(check_positive_definite(&[0.0], 1), Err(0));
        assert_eq!(check_positive_definite(&[1.0, 0.0, -1.0], 2), Err(1));
        // each pair is possible, all three together are not
        assert_eq!(check_positive_definite(&[1.0, 0.9, 1.0, 0.9, -0.9, 1.0], 3), Err(2));
        // of very different size, as V² beside kW²
        assert_eq!(check_positive_definite(&[1e-14, 5e-9, 1e4], 2), Ok(()));
    }
}
