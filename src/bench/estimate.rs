//! `flexmeter bench estimate`: the grid engine's own time, single thread, one JSON line a figure.
//!
//! `power_flow` sets all loads anew and solves from the voltages without load; `cold` is everything from the network on; `all_new` sets
//! all readings anew and estimates from the last state; `one_changed` sets one reading, estimates and reads the voltage there;
//! `one_changed_all_read` reads every node's voltage afterwards; `sigmas` is the covariance at the estimate and the sigma of every
//! voltage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use flexmeter_grid::estimation::{EstimateOptions, Estimator};
use flexmeter_grid::network::{Network, Terminal};
use flexmeter_grid::pgm::{Dataset, DatasetKind};
use flexmeter_grid::power_flow::{Convergence, Options, PowerFlow};
use serde_json::json;

use super::cpu;

/// Arguments of `bench estimate`.
#[derive(Debug, Args)]
pub(crate) struct EstimateArgs {
    /// Input dataset (power-grid-model JSON), or the folder of a grid bundle.
    case: PathBuf,
    /// Update datasets: scenarios of loads, of readings, or both; may be given several times.
    #[arg(long, value_name = "FILE")]
    update: Vec<PathBuf>,
    /// The positive sequence only (the default).
    #[arg(long, conflicts_with = "asymmetric")]
    symmetric: bool,
    /// Three phases.
    #[arg(long)]
    asymmetric: bool,
    /// Tolerance of every iteration, per unit.
    #[arg(long, default_value_t = 1e-8, value_name = "PU")]
    tolerance: f64,
    /// How long each figure is measured.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
}

/// Runs `bench estimate`.
pub(crate) fn run(args: &EstimateArgs) -> anyhow::Result<ExitCode> {
    let network = crate::grid::read_network(&args.case)?;
    let mut scenarios = vec![network.clone()];
    for path in &args.update {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let updates = Dataset::from_json(&text, DatasetKind::Update).with_context(|| path.display().to_string())?;
        // scenario k of one file belongs to scenario k of the others
        scenarios.resize(scenarios.len().max(updates.n_scenarios()), network.clone());
        for (scenario, network) in scenarios.iter_mut().enumerate().take(updates.n_scenarios()) {
            network.update(&updates, scenario).with_context(|| path.display().to_string())?;
        }
    }
    match args.asymmetric {
        true => Bench::<3, 12> { args, network, scenarios }.run()?,
        false => Bench::<1, 4> { args, network, scenarios }.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a, const N: usize, const B: usize> {
    args: &'a EstimateArgs,
    network: Network,
    scenarios: Vec<Network>,
}

impl<const N: usize, const B: usize> Bench<'_, N, B> {
    fn run(&self) -> anyhow::Result<()> {
        if self.network.appliances().iter().all(|load| load.is_specified()) {
            self.power_flow()?;
        }
        if !self.network.voltage_sensors().is_empty() {
            self.estimates()?;
        }
        Ok(())
    }

    /// Repeats a solution for the given time and prints the mean CPU time of it, and the best of the means over a twentieth of that time
    /// each: what others do on the machine slows a share of them down.
    fn measure(&self, solve: &str, mut f: impl FnMut(usize) -> anyhow::Result<Convergence>) -> anyhow::Result<()> {
        f(0)?; // what is allocated once
        let duration = Duration::from_secs_f64(self.args.seconds);
        let (start, cpu_start) = (Instant::now(), cpu::cpu_seconds()?);
        let (mut count, mut best_us) = (0_usize, f64::INFINITY);
        let (mut part_start, mut part_count) = (start, 0);
        let mut last = Convergence {
            iterations: 0,
            step_pu: 0.0,
        };
        while count < 3 || start.elapsed() < duration {
            last = f(count)?;
            count += 1;
            let elapsed = part_start.elapsed();
            if elapsed >= duration / 20 {
                best_us = best_us.min(elapsed.as_secs_f64() * 1e6 / (count - part_count) as f64);
                (part_start, part_count) = (Instant::now(), count);
            }
        }
        let cpu_us = (cpu::cpu_seconds()? - cpu_start) * 1e6;
        println!(
            "{}",
            json!({
                "bench": "estimate",
                "case": self.args.case.display().to_string(),
                "nodes": self.network.nodes().len(),
                "mode": if N == 1 { "symmetric" } else { "asymmetric" },
                "solve": solve,
                "count": count,
                "cpu_us_per_solve": (cpu_us / count as f64 * 10.0).round() / 10.0,
                "wall_us_per_solve": (start.elapsed().as_secs_f64() * 1e7 / count as f64).round() / 10.0,
                "best_wall_us_per_solve": (best_us * 10.0).round() / 10.0,
                "iterations": last.iterations,
                "last_step_pu": last.step_pu,
                "load_average": cpu::load_average(),
            })
        );
        Ok(())
    }

    fn scenario(&self, nth: usize) -> &Network {
        &self.scenarios[nth % self.scenarios.len()]
    }

    fn power_flow(&self) -> anyhow::Result<()> {
        let options = Options {
            tolerance_pu: self.args.tolerance,
            ..Options::default()
        };
        let mut flow = PowerFlow::<N>::new(&self.network)?;
        self.measure("power_flow", |nth| {
            flow.set_loads(self.scenario(nth))?;
            Ok(flow.solve(&options)?)
        })
    }

    fn estimates(&self) -> anyhow::Result<()> {
        let options = EstimateOptions {
            tolerance_pu: self.args.tolerance,
            ..EstimateOptions::default()
        };
        self.measure("cold", |nth| Ok(Estimator::<N, B>::new(self.scenario(nth), options)?.estimate()?))?;
        let mut estimator = Estimator::<N, B>::new(&self.network, options)?;
        self.measure("all_new", |nth| {
            set_all(&mut estimator, self.scenario(nth));
            Ok(estimator.estimate()?)
        })?;
        self.one_changed(&mut estimator, "one_changed", |_| ())?;
        let n_nodes = self.network.nodes().len();
        self.one_changed(&mut estimator, "one_changed_all_read", |estimator| {
            for node in 0..n_nodes {
                std::hint::black_box(estimator.voltage_pu(node));
            }
        })?;
        set_all(&mut estimator, &self.network);
        let convergence = estimator.estimate_all()?;
        self.measure("sigmas", |_| {
            let uncertainty = estimator.uncertainty()?;
            for node in 0..n_nodes {
                std::hint::black_box(estimator.voltage_sigma(&uncertainty, node));
            }
            Ok(convergence)
        })
    }

    /// Walks over the scenarios and sensors of loads, one reading at a time.
    fn one_changed(&self, estimator: &mut Estimator<N, B>, solve: &str, after: impl Fn(&Estimator<N, B>)) -> anyhow::Result<()> {
        let mut state = self.network.clone();
        set_all(estimator, &state);
        estimator.follow()?;
        let sensors: Vec<usize> = (0..state.power_sensors().len())
            .filter(|&sensor| matches!(state.power_sensors()[sensor].terminal, Terminal::Appliance(_)))
            .collect();
        anyhow::ensure!(
            !sensors.is_empty(),
            "no load has a power sensor: there is no single reading to change"
        );
        self.measure(solve, |nth| {
            let sensor = sensors[nth * 7 % sensors.len()];
            let new = self.scenario(1 + nth / sensors.len()).power_sensors()[sensor];
            state.change_power_reading(sensor, |_, _| (new.p_w, new.q_var));
            estimator.set_power(&state, sensor);
            let convergence = estimator.estimate()?;
            if let Terminal::Appliance(load) = new.terminal {
                std::hint::black_box(estimator.voltage_pu(state.appliances()[load].node));
            }
            after(estimator);
            Ok(convergence)
        })
    }
}

fn set_all<const N: usize, const B: usize>(estimator: &mut Estimator<N, B>, network: &Network) {
    for sensor in 0..network.power_sensors().len() {
        estimator.set_power(network, sensor);
    }
    for sensor in 0..network.voltage_sensors().len() {
        estimator.set_voltage(network, sensor);
    }
    for sensor in 0..network.current_sensors().len() {
        estimator.set_current(network, sensor);
    }
}
