//! `flexmeter grid`: the grid engine on the command line, for one case in power-grid-model JSON.

mod fault;
mod reconfigure;
mod table;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use flexmeter_grid::estimation::{BadDataOptions, EstimateOptions, Estimator, Meter, Trust, estimate_without_bad_data};
use flexmeter_grid::network::Network;
use flexmeter_grid::pgm::{Dataset, DatasetKind, Tables, estimate_tables, output_dataset, power_flow_tables};
use flexmeter_grid::power_flow::{Method, Options, PowerFlow};
use flexmeter_grid::topology::Topology;
use serde_json::{Value, json};

/// What to calculate.
#[derive(Debug, Subcommand)]
pub(crate) enum GridCommand {
    /// Voltages and flows that the given loads lead to.
    PowerFlow(PowerFlowArgs),
    /// Voltages and flows that fit all sensors best.
    Estimate(EstimateArgs),
    /// What the sensors determine, and which further meter would help most.
    Observability(ObservabilityArgs),
    /// Which switches to move so that a radial grid loses less, and in which order.
    Reconfigure(reconfigure::ReconfigureArgs),
    /// Where a fault is, from voltages and currents at the feeder's head.
    Fault(fault::FaultArgs),
}

/// What every calculation takes.
#[derive(Debug, Args)]
pub(crate) struct CaseArgs {
    /// Input dataset (power-grid-model JSON, version 1.0), or the folder of a grid bundle (its network.json is read).
    case: PathBuf,
    /// Update dataset; a batch is calculated scenario by scenario, each from the case as it is.
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    /// The positive sequence only (the default).
    #[arg(long, conflicts_with = "asymmetric")]
    symmetric: bool,
    /// Three phases.
    #[arg(long)]
    asymmetric: bool,
    /// The iteration ends when no voltage moves by more, per unit.
    #[arg(long, default_value_t = 1e-8, value_name = "PU")]
    tolerance: f64,
    /// Most iterations.
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_iterations: usize,
    /// Where the output dataset goes (default: stdout).
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// An output dataset even on a terminal.
    #[arg(long)]
    json: bool,
}

/// Arguments of `grid power-flow`.
#[derive(Debug, Args)]
pub(crate) struct PowerFlowArgs {
    #[command(flatten)]
    case: CaseArgs,
    /// Newton's method from the start, instead of after the sweeps have failed.
    #[arg(long)]
    newton: bool,
}

/// Arguments of `grid estimate`.
#[derive(Debug, Args)]
pub(crate) struct EstimateArgs {
    #[command(flatten)]
    case: CaseArgs,
    /// Adds the standard deviation of every voltage, flow and injection.
    #[arg(long)]
    sigmas: bool,
    /// Takes readings out that do not fit the others, and estimates again.
    #[arg(long)]
    remove_bad_data: bool,
    /// Probability that good readings fail the chi-square test, or lose one of them.
    #[arg(long, default_value_t = 0.01, value_name = "P")]
    false_alarm_rate: f64,
    /// Standard deviation of "the source's phases are 120 degrees apart", rad (asymmetric, without angle sensors; default: that of the
    /// source node's voltage sensor in per unit, as power-grid-model has it).
    #[arg(long, value_name = "RAD")]
    balance_sigma: Option<f64>,
}

/// Arguments of `grid observability`.
#[derive(Debug, Args)]
pub(crate) struct ObservabilityArgs {
    #[command(flatten)]
    case: CaseArgs,
}

/// Runs `grid`.
pub(crate) fn run(command: &GridCommand) -> anyhow::Result<ExitCode> {
    match command {
        GridCommand::PowerFlow(args) => args.case.run(|network| match args.case.asymmetric {
            true => power_flow::<3>(args, network),
            false => power_flow::<1>(args, network),
        }),
        GridCommand::Estimate(args) => args.case.run(|network| match args.case.asymmetric {
            true => estimate::<3, 12>(args, network),
            false => estimate::<1, 4>(args, network),
        }),
        GridCommand::Observability(args) => args.case.run(|network| match args.case.asymmetric {
            true => observability::<3, 12>(args, network),
            false => observability::<1, 4>(args, network),
        }),
        GridCommand::Reconfigure(args) => reconfigure::run(args),
        GridCommand::Fault(args) => fault::run(args),
    }
}

/// What one scenario has come to: output tables, and what they do not say.
struct Answer {
    tables: Tables,
    /// For `"flexmeter"` beside the tables.
    more: Value,
    /// The line above the table, for people.
    headline: String,
}

impl CaseArgs {
    fn run(&self, calculate: impl Fn(&Network) -> anyhow::Result<Answer>) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(
            self.tolerance > 0.0 && self.tolerance.is_finite(),
            "--tolerance {} is not above zero",
            self.tolerance
        );
        let network = read_network(&self.case)?;
        let mut answers = Vec::new();
        match &self.update {
            None => answers.push(calculate(&network)?),
            Some(path) => {
                let updates = Dataset::from_json(&read(path)?, DatasetKind::Update).with_context(|| path.display().to_string())?;
                for scenario in 0..updates.n_scenarios() {
                    let context = || format!("{}, scenario {scenario}", path.display());
                    let mut updated = network.clone();
                    updated.update(&updates, scenario).with_context(context)?;
                    answers.push(calculate(&updated).with_context(context)?);
                }
            }
        }
        self.print(answers)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, answers: Vec<Answer>) -> anyhow::Result<()> {
        let for_people = self.output.is_none() && !self.json && std::io::stdout().is_terminal();
        if for_people {
            for answer in &answers {
                println!("{}", answer.headline);
                print!("{}", table::of(&answer.tables));
            }
            return Ok(());
        }
        let is_batch = answers.len() != 1;
        let (tables, mut more): (Vec<Tables>, Vec<Value>) = answers.into_iter().map(|answer| (answer.tables, answer.more)).unzip();
        let mut dataset = match self.asymmetric {
            true => output_dataset::<3>(tables, is_batch),
            false => output_dataset::<1>(tables, is_batch),
        };
        if let Some(dataset) = dataset.as_object_mut() {
            let more = if is_batch {
                Value::Array(more)
            } else {
                more.pop().unwrap_or_default()
            };
            dataset.insert("flexmeter".into(), more);
        }
        let text = serde_json::to_string(&dataset)?;
        match &self.output {
            Some(path) => std::fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display())),
            None => Ok(writeln!(std::io::stdout(), "{text}")?),
        }
    }

    fn estimate_options(&self, balance_sigma_rad: Option<f64>) -> EstimateOptions {
        EstimateOptions {
            tolerance_pu: self.tolerance,
            iterations_max: self.max_iterations,
            balance_sigma_rad,
        }
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Reads a case: a dataset, or a bundle's `network.json`.
pub(crate) fn read_network(case: &Path) -> anyhow::Result<Network> {
    let file = if case.is_dir() {
        case.join("network.json")
    } else {
        case.to_owned()
    };
    Network::from_pgm_json(&read(&file)?).with_context(|| file.display().to_string())
}

fn shape(topology: &Topology, n_nodes: usize) -> Value {
    let supplied: usize = topology.islands().iter().map(|island| island.n_nodes).sum();
    json!({
        "islands": topology.islands().len(),
        "loops": topology.islands().iter().map(|island| island.n_loops).sum::<usize>(),
        "nodes_without_supply": n_nodes - supplied,
    })
}

fn power_flow<const N: usize>(args: &PowerFlowArgs, network: &Network) -> anyhow::Result<Answer> {
    let mut flow = PowerFlow::<N>::new(network)?;
    let convergence = flow.solve(&Options {
        tolerance_pu: args.case.tolerance,
        iterations_max: args.case.max_iterations,
        method: if args.newton { Method::Newton } else { Method::Auto },
    })?;
    let tables = power_flow_tables(network, &flow);
    Ok(Answer {
        headline: format!(
            "power flow, {}: {} nodes, {} iterations, last step {:.1e} p.u., losses {:.3} kW",
            mode::<N>(),
            network.nodes().len(),
            convergence.iterations,
            convergence.step_pu,
            table::losses_w(&tables) / 1e3,
        ),
        more: json!({
            "iterations": convergence.iterations,
            "last_step_pu": convergence.step_pu,
            "losses_w": table::losses_w(&tables),
            "topology": shape(flow.topology(), network.nodes().len()),
        }),
        tables,
    })
}

fn mode<const N: usize>() -> &'static str {
    if N == 1 { "symmetric" } else { "asymmetric" }
}

fn estimate<const N: usize, const B: usize>(args: &EstimateArgs, network: &Network) -> anyhow::Result<Answer> {
    anyhow::ensure!(
        args.false_alarm_rate > 0.0 && args.false_alarm_rate < 1.0,
        "--false-alarm-rate {} is not between 0 and 1",
        args.false_alarm_rate
    );
    let options = args.case.estimate_options(args.balance_sigma);
    let (estimator, uncertainty, trust, removed, convergence) = if args.remove_bad_data {
        let bad_data = BadDataOptions {
            false_alarm_rate: args.false_alarm_rate,
        };
        let (estimator, uncertainty, found) = estimate_without_bad_data::<N, B>(network, options, bad_data)?;
        (estimator, uncertainty, found.trust, found.removed, found.convergence)
    } else {
        let mut estimator = Estimator::<N, B>::new(network, options)?;
        let convergence = estimator.estimate()?;
        let uncertainty = estimator.uncertainty()?;
        let trust = estimator.trust(network, &uncertainty, args.false_alarm_rate);
        (estimator, uncertainty, trust, Vec::new(), convergence)
    };
    let removed: Vec<Value> = removed
        .iter()
        .map(|residual| {
            json!({
                "sensor": residual.sensor.id(network),
                "quantity": format!("{:?}", residual.quantity),
                "phase": residual.phase,
                "normalized_residual": residual.normalized,
            })
        })
        .collect();
    let headline = format!(
        "state estimate, {}: {} nodes, {} readings, {} iterations, last step {:.1e} p.u.; J = {:.1} with {} degrees of freedom{}{}",
        mode::<N>(),
        network.nodes().len(),
        trust.residuals.len(),
        convergence.iterations,
        convergence.step_pu,
        trust.j,
        trust.degrees_of_freedom,
        verdict(&trust),
        if removed.is_empty() {
            String::new()
        } else {
            format!("; {} readings removed", removed.len())
        },
    );
    Ok(Answer {
        tables: estimate_tables(network, &estimator, args.sigmas.then_some(&uncertainty), Some(&trust)),
        more: json!({
            "iterations": convergence.iterations,
            "last_step_pu": convergence.step_pu,
            "n_readings": trust.residuals.len(),
            "j": trust.j,
            "degrees_of_freedom": trust.degrees_of_freedom,
            "j_limit": trust.j_limit,
            "suspicious": trust.is_suspicious(),
            "removed": removed,
            "topology": shape(estimator.topology(), network.nodes().len()),
        }),
        headline,
    })
}

fn verdict(trust: &Trust) -> String {
    match trust.j_limit {
        Some(limit) if trust.is_suspicious() => format!(" (limit {limit:.1}: the readings contradict each other)"),
        Some(limit) => format!(" (limit {limit:.1}: the readings fit)"),
        None => " (nothing to test)".to_owned(),
    }
}

fn observability<const N: usize, const B: usize>(args: &ObservabilityArgs, network: &Network) -> anyhow::Result<Answer> {
    let mut estimator = Estimator::<N, B>::new(network, args.case.estimate_options(None))?;
    estimator.estimate()?;
    let found = estimator.observability(network)?;
    let id = |node: &usize| network.nodes()[*node].id;
    let ids = |nodes: &[usize]| nodes.iter().map(id).collect::<Vec<_>>();
    let suggestions: Vec<Value> = found
        .suggestions
        .iter()
        .map(|suggestion| {
            let (meter, node) = match suggestion.meter {
                Meter::Voltage(node) => ("voltage", node),
                Meter::Power(node) => ("power", node),
            };
            json!({"meter": meter, "node": id(&node), "voltage_variance_removed": suggestion.variance_removed})
        })
        .collect();
    let mut tables = Tables::new();
    tables.insert(
        "node".into(),
        (0..network.nodes().len())
            .map(|node| {
                json!({
                    "id": id(&node),
                    "energized": i32::from(estimator.voltage_pu(node).is_some()),
                    "voltage_observable": i32::from(!found.unobservable_voltages.contains(&node)),
                    "injection_observable": i32::from(!found.unobservable_injections.contains(&node)),
                })
            })
            .collect(),
    );
    let best = found.suggestions.first().map_or(String::new(), |best| {
        let (meter, node) = match best.meter {
            Meter::Voltage(node) => ("a voltage sensor", node),
            Meter::Power(node) => ("a power sensor", node),
        };
        format!(
            "; {meter} at node {} would take {:.0} % of the voltages' variance away",
            id(&node),
            best.variance_removed * 100.0
        )
    });
    Ok(Answer {
        headline: format!(
            "{}: {} nodes without observable voltage, {} without observable injection, {} observable islands{best}",
            if found.is_observable() { "observable" } else { "not observable" },
            found.unobservable_voltages.len(),
            found.unobservable_injections.len(),
            found.islands.len(),
        ),
        more: json!({
            "observable": found.is_observable(),
            "unobservable_voltages": ids(&found.unobservable_voltages),
            "unobservable_injections": ids(&found.unobservable_injections),
            "islands": found.islands.iter().map(|island| ids(island)).collect::<Vec<_>>(),
            "suggestions": suggestions,
            "topology": shape(estimator.topology(), network.nodes().len()),
        }),
        tables,
    })
}
