//! Whether the estimate knows how sure it is: hundreds of noisy scenarios against the truth they were made of.

#![allow(
    clippy::unwrap_used,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "a test fails by panicking, also for what is not a number"
)]

use flexmeter_grid::Complex;
use flexmeter_grid::estimation::{BadDataOptions, EstimateOptions, Estimator, Quantity, Sensor, estimate_without_bad_data};
use flexmeter_grid::network::{Network, PerPhase};
use flexmeter_grid::power_flow::{Options, PowerFlow};
use nalgebra::{DMatrix, DVector};

mod feeder;
use feeder::{QUALITY, Quality, Random};

const N_SCENARIOS: u64 = 500;

fn truth<const N: usize>(network: &Network) -> PowerFlow<N> {
    let mut flow = PowerFlow::<N>::new(network).unwrap();
    flow.solve(&Options {
        tolerance_pu: 1e-12,
        ..Options::default()
    })
    .unwrap();
    flow
}

/// The band that the mean of `n` chi-square numbers of `d` degrees of freedom keeps to in 95 of 100 cases.
fn band(d: f64, n: f64) -> (f64, f64) {
    let half = 1.96 * (2.0 * d / n).sqrt();
    (d - half, d + half)
}

/// Mean of J, mean of the normalized estimation error squared, and their degrees of freedom.
fn run<const N: usize, const B: usize>(n_nodes: usize, n_scenarios: u64, quality: Quality) -> [f64; 4] {
    let (mut j, mut nees) = (0.0, 0.0);
    let (mut dof, mut dimensions) = (0, 0);
    let grid = feeder::network(n_nodes, 0, N == 3, 2024);
    for seed in 0..n_scenarios {
        let mut dataset = grid.clone();
        feeder::add_sensors_with::<N>(&mut dataset, 1_000 + seed, quality);
        let network = feeder::build(&dataset);
        let flow = truth::<N>(&network);
        let mut estimator = Estimator::<N, B>::new(&network, EstimateOptions::default()).unwrap();
        estimator.estimate().unwrap();
        let uncertainty = estimator.uncertainty().unwrap();
        let trust = estimator.trust(&network, &uncertainty, 0.05);
        j += trust.j;
        dof += trust.degrees_of_freedom;
        let nodes: Vec<usize> = (0..n_nodes).collect();
        let covariance = estimator.voltage_covariance(&uncertainty, &nodes);
        let size = covariance.len();
        // without angle readings the reference of angles is the source's node
        let root = flow.voltage_pu(0).unwrap()[0];
        let turn = if quality.angles {
            Complex::ONE
        } else {
            (root / root.norm()).conj()
        };
        let mut error = DVector::zeros(size);
        for node in 0..n_nodes {
            let (estimated, exact) = (estimator.voltage_pu(node).unwrap(), flow.voltage_pu(node).unwrap());
            for k in 0..N {
                let difference = estimated[k] - exact[k] * turn;
                error[node * 2 * N + k] = difference.re;
                error[node * 2 * N + N + k] = difference.im;
            }
        }
        let matrix = DMatrix::from_fn(size, size, |row, column| 0.5 * (covariance[row][column] + covariance[column][row]));
        let eigen = matrix.symmetric_eigen();
        let along = eigen.eigenvectors.transpose() * error;
        // zero injections are exact, and so is a pinned angle: that many directions have no variance
        let n_exact = (1..n_nodes).filter(|node| node % 5 == 3).count() * 2 * N + usize::from(!quality.angles);
        let mut directions: Vec<(f64, f64)> = eigen.eigenvalues.iter().copied().zip(along.iter().copied()).collect();
        directions.sort_by(|a, b| b.0.total_cmp(&a.0));
        directions.truncate(size - n_exact);
        nees += directions.iter().map(|(value, part)| part * part / value).sum::<f64>();
        dimensions += directions.len();
    }
    [j, dof as f64, nees, dimensions as f64].map(|sum| sum / n_scenarios as f64)
}

fn check(name: &str, n_scenarios: u64, [j, dof, nees, dimensions]: [f64; 4]) {
    let n = n_scenarios as f64;
    println!("{name}: mean J {j:.2} for {dof} degrees of freedom, band {:?}", band(dof, n));
    println!(
        "{name}: mean NEES {nees:.2} for {dimensions} dimensions, band {:?}",
        band(dimensions, n)
    );
    for (mean, d) in [(j, dof), (nees, dimensions)] {
        let (low, high) = band(d, n);
        assert!(low < mean && mean < high, "{name}: {mean} is outside of {low} .. {high}");
    }
}

#[test]
fn j_and_the_estimation_error_are_as_large_as_they_should_be() {
    check("33 nodes, symmetric", N_SCENARIOS, run::<1, 4>(33, N_SCENARIOS, QUALITY));
}

#[test]
fn so_they_are_in_three_phases() {
    let quality = Quality {
        voltages: 0.5,
        angles: true,
        ..QUALITY
    };
    check("12 nodes, three phases", N_SCENARIOS, run::<3, 12>(12, N_SCENARIOS, quality));
}

#[test]
fn gross_errors_on_redundant_readings_are_found_and_good_readings_stay() {
    let n_scenarios = 300;
    let (mut n_found, mut n_gross, mut n_false) = (0, 0, 0);
    let grid = feeder::network(33, 0, false, 77);
    let mut random = Random::new(9);
    for seed in 0..n_scenarios {
        let mut dataset = grid.clone();
        feeder::add_sensors_with::<1>(&mut dataset, 5_000 + seed, QUALITY);
        let mut network = feeder::build(&dataset);
        let clean = estimate_without_bad_data::<1, 4>(&network, EstimateOptions::default(), BadDataOptions::default()).unwrap();
        n_false += usize::from(!clean.2.removed.is_empty());
        // a reading that the others check: its residual keeps at least half of its variance
        let redundant: Vec<_> = clean
            .2
            .trust
            .residuals
            .iter()
            .filter(|r| r.normalized.is_some_and(|n| (r.residual / r.sigma / n).powi(2) > 0.5))
            .copied()
            .collect();
        let bad = redundant[random.below(redundant.len())];
        let size = (10.0 + 20.0 * random.uniform()) * if random.uniform() < 0.5 { 1.0 } else { -1.0 };
        match bad.sensor {
            Sensor::Voltage(index) => network.change_voltage_reading(index, |u| match u {
                PerPhase::Symmetric(u) => PerPhase::Symmetric(u + size * bad.sigma * 10e3),
                phases => phases,
            }),
            Sensor::Power(index) => network.change_power_reading(index, |p, q| match (p, q, bad.quantity) {
                (PerPhase::Symmetric(p), q, Quantity::ActivePower) => (PerPhase::Symmetric(p + size * bad.sigma * 1e6), q),
                (p, PerPhase::Symmetric(q), _) => (p, PerPhase::Symmetric(q + size * bad.sigma * 1e6)),
                both => (both.0, both.1),
            }),
            Sensor::Current(_) => unreachable!("no current sensors here"),
        }
        let found = estimate_without_bad_data::<1, 4>(&network, EstimateOptions::default(), BadDataOptions::default()).unwrap();
        n_gross += 1;
        let is_it = |r: &flexmeter_grid::estimation::Residual| (r.sensor, r.quantity) == (bad.sensor, bad.quantity);
        n_found += usize::from(found.2.removed.len() == 1 && is_it(&found.2.removed[0]));
    }
    println!("{n_found} of {n_gross} gross errors found and nothing else; {n_false} of {n_scenarios} clean scenarios lost a reading");
    assert!(n_found * 100 >= n_gross * 95, "{n_found} of {n_gross}");
    // 1 % nominal; three standard deviations of the count above it
    assert!(n_false <= 8, "{n_false} of {n_scenarios} clean scenarios lost a reading");
}
