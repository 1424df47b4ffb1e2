//! The reader of grid cases on any bytes: a network or an error; and of a small network, voltages that are numbers or an error.
#![no_main]

use flexmeter_grid::estimation::{EstimateOptions, Estimator};
use flexmeter_grid::network::Network;
use flexmeter_grid::power_flow::{Method, Options, PowerFlow};
use libfuzzer_sys::fuzz_target;

/// Larger networks are read only: the fuzzer has better things to do.
const N_NODES_MAX: usize = 60;
const N_BRANCHES_MAX: usize = 500;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let network = match Network::from_pgm_json(text) {
        Ok(network) => network,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    if network.nodes().len() > N_NODES_MAX || network.branches().len() > N_BRANCHES_MAX {
        return;
    }
    for method in [Method::Auto, Method::Sweep, Method::Newton] {
        power_flow::<1>(&network, method);
        power_flow::<3>(&network, method);
    }
    estimate::<1, 4>(&network);
    estimate::<3, 12>(&network);
});

fn power_flow<const N: usize>(network: &Network, method: Method) {
    let Ok(mut flow) = PowerFlow::<N>::new(network) else { return };
    let mut options = Options::default();
    options.method = method;
    if flow.solve(&options).is_err() {
        return;
    }
    for node in 0..network.nodes().len() {
        let is_finite = flow.voltage_pu(node).is_none_or(|u| u.iter().all(|u| u.is_finite()));
        assert!(
            is_finite,
            "power flow ({method:?}, {N} phases): the voltage of node {} is none",
            network.nodes()[node].id
        );
    }
}

fn estimate<const N: usize, const B: usize>(network: &Network) {
    let Ok(mut estimator) = Estimator::<N, B>::new(network, EstimateOptions::default()) else {
        return;
    };
    if estimator.estimate().is_err() {
        return;
    }
    for node in 0..network.nodes().len() {
        let is_finite = estimator.voltage_pu(node).is_none_or(|u| u.iter().all(|u| u.is_finite()));
        assert!(
            is_finite,
            "estimate ({N} phases): the voltage of node {} is none",
            network.nodes()[node].id
        );
    }
    if let Ok(uncertainty) = estimator.uncertainty() {
        let trust = estimator.trust(network, &uncertainty, 0.01);
        assert!(
            trust.residuals.len()
                <= 2 * N * (network.voltage_sensors().len() + network.power_sensors().len() + network.current_sensors().len())
        );
    }
}
