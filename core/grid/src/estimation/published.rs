//! What a device has estimated of an area's boundary, in the words of [`super::boundary`], and back.

use flexmeter_model::PublishedBoundary;
use flexmeter_model::boundary::N_QUANTITIES;

use super::BoundaryEstimate;
use crate::model::{BASE_POWER_VA, C64};

impl<const N: usize> BoundaryEstimate<N> {
    /// What a device says of a root of this rated voltage (between phases). It knows nothing of angles, and has assumed nothing.
    ///
    /// In a symmetric estimate the voltage is the mean of the phases, and the power their sum.
    pub fn from_published(published: &PublishedBoundary, u_rated_v: f64) -> Self {
        let units = published_units(u_rated_v);
        let values = published.values();
        // the share of a device's quantity in one of ours: voltages, nothing, active powers, reactive powers
        let share = |row: usize, of: usize| match (row / N, of / 3) {
            (0, 0) | (2, 1) | (3, 2) if N == 1 => units[of].recip() / 3.0,
            (0, 0) | (2, 1) | (3, 2) if of % 3 == row % N => units[of].recip(),
            _ => 0.0,
        };
        let value = |row: usize| (0..N_QUANTITIES).map(|of| share(row, of) * values[of]).sum::<f64>();
        let covariance = (0..4 * N)
            .map(|row| {
                let entry = |column: usize| {
                    let pairs = (0..N_QUANTITIES).flat_map(|i| (0..N_QUANTITIES).map(move |j| (i, j)));
                    pairs
                        .map(|(i, j)| share(row, i) * published.covariance[i][j] * share(column, j))
                        .sum()
                };
                (0..4 * N).map(entry).collect()
            })
            .collect();
        Self {
            voltage_pu: std::array::from_fn(|k| C64::new(value(k), 0.0)),
            power_pu: std::array::from_fn(|k| C64::new(value(2 * N + k), value(3 * N + k))),
            covariance,
            balance: None,
            guess: None,
            has_angles: false,
        }
    }
}

impl BoundaryEstimate<3> {
    /// The same as a device at a root of this rated voltage (between phases) publishes it: magnitudes, powers and their covariance. The
    /// angles are left out. What is known of them has been assumed, as a rule, and powers hardly depend on them.
    pub fn to_published(&self, u_rated_v: f64) -> PublishedBoundary {
        const N: usize = 3;
        let units = published_units(u_rated_v);
        // a magnitude moves with the voltage along its direction
        let along = self.voltage_pu.map(|u| u / u.norm());
        let terms = |row: usize| match row {
            0..3 => [(row, along[row].re), (N + row, along[row].im)],
            _ => [(row + N, 1.0), (row + N, 0.0)],
        };
        let entry = |row: usize, column: usize| {
            let pairs = terms(row).into_iter().flat_map(|a| terms(column).map(|b| (a, b)));
            let sum: f64 = pairs
                .map(|((i, a), (j, b))| a * b * 0.5 * (self.covariance[i][j] + self.covariance[j][i]))
                .sum();
            sum * units[row] * units[column]
        };
        PublishedBoundary {
            voltage_v: std::array::from_fn(|k| self.voltage_pu[k].norm() * units[k]),
            active_w: std::array::from_fn(|k| self.power_pu[k].re * units[3 + k]),
            reactive_var: std::array::from_fn(|k| self.power_pu[k].im * units[6 + k]),
            covariance: std::array::from_fn(|row| std::array::from_fn(|column| entry(row, column))),
        }
    }
}

/// How much of a published quantity is one per unit: of a phase's rated voltage, of a phase's power.
fn published_units(u_rated_v: f64) -> [f64; N_QUANTITIES] {
    std::array::from_fn(|row| if row < 3 { u_rated_v / 3f64.sqrt() } else { BASE_POWER_VA / 3.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const U_RATED_V: f64 = 400.0;

    fn published() -> PublishedBoundary {
        let sigma = [0.4, 0.5, 0.6, 20.0, 30.0, 10.0, 8.0, 9.0, 7.0];
        let correlation = |row: usize, column: usize| 0.5f64.powi(row.abs_diff(column) as i32);
        PublishedBoundary {
            voltage_v: [230.1, 229.5, 231.25],
            active_w: [1_250.5, -320.0, 0.0],
            reactive_var: [310.0, 41.5, -12.0],
            covariance: std::array::from_fn(|i| std::array::from_fn(|j| correlation(i, j) * sigma[i] * sigma[j])),
        }
    }

    #[test]
    fn a_published_boundary_goes_in_and_out_unchanged() {
        let published = published();
        let back = BoundaryEstimate::<3>::from_published(&published, U_RATED_V).to_published(U_RATED_V);
        for row in 0..N_QUANTITIES {
            assert!((published.values()[row] - back.values()[row]).abs() < 1e-9);
            for column in 0..N_QUANTITIES {
                let (a, b) = (published.covariance[row][column], back.covariance[row][column]);
                assert!(
                    (a - b).abs() < 1e-12 * published.sigma(row) * published.sigma(column),
                    "{row} {column}: {a} {b}"
                );
            }
        }
    }

    #[test]
    fn in_a_symmetric_estimate_powers_add_up_and_voltages_are_meant() {
        let published = published();
        let estimate = BoundaryEstimate::<1>::from_published(&published, U_RATED_V);
        let mean_v = published.voltage_v.iter().sum::<f64>() / 3.0;
        assert!((estimate.voltage_pu[0] - C64::new(mean_v * 3f64.sqrt() / U_RATED_V, 0.0)).norm() < 1e-15);
        assert!((estimate.power_pu[0] - C64::new(930.5e-6, 339.5e-6)).norm() < 1e-18);
        let block: f64 = (3..6)
            .flat_map(|i| (3..6).map(move |j| (i, j)))
            .map(|(i, j)| published.covariance[i][j])
            .sum();
        assert!(
            (estimate.covariance[2][2] / (block * 1e-12) - 1.0).abs() < 1e-12,
            "the variance of a sum has all pairs"
        );
        assert!(estimate.covariance[0][2] > 0.0 && estimate.covariance[1].iter().all(|entry| *entry == 0.0));
    }

    #[test]
    fn numbers_keep_whether_there_are_angles() {
        let estimate = BoundaryEstimate::<3>::from_published(&published(), U_RATED_V);
        assert_eq!(BoundaryEstimate::from_numbers(&estimate.to_numbers()), Some(estimate));
    }
}
