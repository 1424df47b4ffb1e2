//! Whether the estimate knows how sure it is: hundreds of noisy scenarios against the truth they were made of.

#![allow(
    clippy::unwrap_used,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "a test fails by panicking, also for what is not a number"
)]

use std::collections::HashMap;

use flexmeter_grid::Complex;
use flexmeter_grid::areas::split;
use flexmeter_grid::estimation::{
    BadDataOptions, EstimateOptions, Estimator, Quantity, Sensor, SymmetricEstimator, Uncertainty, estimate_without_bad_data,
};
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
        // without angle readings the reference of angles is the source's node
        let root = flow.voltage_pu(0).unwrap()[0];
        let turn = if quality.angles {
            Complex::ONE
        } else {
            (root / root.norm()).conj()
        };
        let exact: Vec<[Complex<f64>; N]> = (0..n_nodes).map(|node| flow.voltage_pu(node).unwrap().map(|u| u * turn)).collect();
        // zero injections are exact, and so is a pinned angle: that many directions have no variance
        let n_exact = (1..n_nodes).filter(|&node| feeder::is_zero_injection(node)).count() * 2 * N + usize::from(!quality.angles);
        nees += normalized_error(&estimator, &uncertainty, &exact, n_exact);
        dimensions += 2 * N * n_nodes - n_exact;
    }
    [j, dof as f64, nees, dimensions as f64].map(|sum| sum / n_scenarios as f64)
}

/// The estimation error squared, weighed by the inverse of its covariance, in all directions but those that are exact.
fn normalized_error<const N: usize, const B: usize>(
    estimator: &Estimator<N, B>,
    uncertainty: &Uncertainty<N, B>,
    exact: &[[Complex<f64>; N]],
    n_exact: usize,
) -> f64 {
    let nodes: Vec<usize> = (0..exact.len()).collect();
    let covariance = estimator.voltage_covariance(uncertainty, &nodes);
    let size = covariance.len();
    let mut error = DVector::zeros(size);
    for (node, exact) in exact.iter().enumerate() {
        let estimated = estimator.voltage_pu(node).unwrap();
        for k in 0..N {
            let difference = estimated[k] - exact[k];
            error[node * 2 * N + k] = difference.re;
            error[node * 2 * N + N + k] = difference.im;
        }
    }
    let matrix = DMatrix::from_fn(size, size, |row, column| 0.5 * (covariance[row][column] + covariance[column][row]));
    let eigen = matrix.symmetric_eigen();
    let along = eigen.eigenvectors.transpose() * error;
    let mut directions: Vec<(f64, f64)> = eigen.eigenvalues.iter().copied().zip(along.iter().copied()).collect();
    directions.sort_by(|a, b| b.0.total_cmp(&a.0));
    directions.truncate(size - n_exact);
    directions.iter().map(|(value, part)| part * part / value).sum()
}

/// The same at the top of three levels, each of which passes its boundary up with its covariance.
fn run_at_the_top(n_nodes: usize, n_scenarios: u64) -> [f64; 4] {
    let (mut j, mut nees) = (0.0, 0.0);
    let (mut dof, mut dimensions) = (0, 0);
    let grid = feeder::network(n_nodes, 0, false, 4711);
    for seed in 0..n_scenarios {
        let mut dataset = grid.clone();
        feeder::add_sensors_with::<1>(&mut dataset, 9_000 + seed, QUALITY);
        let network = feeder::build(&dataset);
        let flow = truth::<1>(&network);
        let paths = feeder::area_paths(&network);
        let areas = split(&network, &paths.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let mut messages = HashMap::new();
        for (index, area) in areas.iter().enumerate() {
            let mut estimator = SymmetricEstimator::new(&area.network, EstimateOptions::default()).unwrap();
            for (child, root) in &area.children {
                estimator.set_boundary(&area.network, *root, &messages[child]).unwrap();
            }
            estimator.estimate().unwrap();
            let uncertainty = estimator.uncertainty().unwrap();
            if area.parent.is_some() {
                messages.insert(index, estimator.boundary(&area.network, &uncertainty, area.root).unwrap());
                continue;
            }
            let trust = estimator.trust(&area.network, &uncertainty, 0.05);
            j += trust.j;
            dof += trust.degrees_of_freedom;
            let root = flow.voltage_pu(0).unwrap()[0];
            let turn = (root / root.norm()).conj();
            let exact: Vec<[Complex<f64>; 1]> = area
                .nodes
                .iter()
                .map(|&node| flow.voltage_pu(node).unwrap().map(|u| u * turn))
                .collect();
            let is_below = |own: usize| area.children.iter().any(|(_, root)| *root == own);
            let is_exact = |own: usize| feeder::is_zero_injection(area.nodes[own]) && !is_below(own);
            let n_exact = (1..exact.len()).filter(|&own| is_exact(own)).count() * 2 + 1;
            nees += normalized_error(&estimator, &uncertainty, &exact, n_exact);
            dimensions += 2 * exact.len() - n_exact;
        }
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
fn so_they_are_at_the_top_of_three_levels() {
    check("the top of 60 nodes", N_SCENARIOS, run_at_the_top(60, N_SCENARIOS));
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
