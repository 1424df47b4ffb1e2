//! `flexmeter grid reconfigure`: which switches to move so that a grid loses less.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use flexmeter_grid::GridError;
use flexmeter_grid::bundle::{controllable, read_switches};
use flexmeter_grid::network::{BranchKind, Network};
use flexmeter_grid::reconfiguration::{Configuration, Options, Order, Reconfiguration, Step, reconfigure};
use serde_json::{Value, json};

use super::{read, read_network};

/// Nodes or branches named in a line for people; the others are counted.
const N_NAMED_MAX: usize = 5;

/// Arguments of `grid reconfigure`.
#[derive(Debug, Args)]
pub(crate) struct ReconfigureArgs {
    /// The folder of a grid bundle (network.json, switches.csv), or an input dataset (power-grid-model JSON).
    case: PathBuf,
    /// Which branches may switch (switches.csv of a bundle); without it, and outside a bundle, every line may.
    #[arg(long, value_name = "FILE")]
    switches: Option<PathBuf>,
    /// Rounds of the search that leaves local optima (default: 300 for small grids, fewer for large ones).
    #[arg(long, value_name = "N")]
    kicks: Option<usize>,
    /// Seed of these rounds: the same one gives the same answer.
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Lowest voltage allowed, per unit of rated.
    #[arg(long, default_value_t = 0.9, value_name = "PU")]
    voltage_min: f64,
    /// Highest voltage allowed, per unit of rated.
    #[arg(long, default_value_t = 1.1, value_name = "PU")]
    voltage_max: f64,
    /// Largest share of a line's rated current or a transformer's rated power.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    loading_max: f64,
    /// No loop through two sources, not even for a moment: such pairs of switches open first.
    #[arg(long)]
    no_loops_between_sources: bool,
    /// Where the answer goes as JSON (default: stdout).
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// JSON even on a terminal.
    #[arg(long)]
    json: bool,
}

/// Runs `grid reconfigure`.
pub(super) fn run(args: &ReconfigureArgs) -> anyhow::Result<ExitCode> {
    let network = read_network(&args.case)?;
    let switches = switches(args, &network)?;
    let options = Options {
        voltage_pu: [args.voltage_min, args.voltage_max],
        loading_max: args.loading_max,
        n_kicks: args.kicks,
        seed: args.seed,
        loops_between_sources: !args.no_loops_between_sources,
        ..Options::default()
    };
    let found = match reconfigure(&network, &switches, &options) {
        // the command line is wrong, not the grid
        Err(error @ GridError::BadOption { .. }) => {
            eprintln!("flexmeter: {error}");
            return Ok(ExitCode::from(2));
        }
        found => found.with_context(|| args.case.display().to_string())?,
    };
    if args.output.is_none() && !args.json && std::io::stdout().is_terminal() {
        print!("{}", report(&network, &found, &options));
        return Ok(ExitCode::SUCCESS);
    }
    let text = serde_json::to_string(&answer(&network, &found, switches.len(), args.seed))?;
    match &args.output {
        Some(path) => std::fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))?,
        None => writeln!(std::io::stdout(), "{text}")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Indices of the branches that may switch.
fn switches(args: &ReconfigureArgs, network: &Network) -> anyhow::Result<Vec<usize>> {
    let of_file = |path: &Path| -> anyhow::Result<Vec<usize>> {
        let read = read_switches(network, &read(path)?).with_context(|| path.display().to_string())?;
        Ok(controllable(&read))
    };
    let of_bundle = args.case.join("switches.csv");
    match &args.switches {
        Some(path) => of_file(path),
        None if args.case.is_dir() => of_file(&of_bundle),
        None => {
            let branches = network.branches().iter().enumerate();
            Ok(branches
                .filter(|(_, branch)| matches!(branch.kind, BranchKind::Line(_)))
                .map(|(index, _)| index)
                .collect())
        }
    }
}

fn branch_id(network: &Network, branch: usize) -> i64 {
    network.branches()[branch].id
}

fn node_id(network: &Network, node: usize) -> i64 {
    network.nodes()[node].id
}

/// The answer for machines; SI units and shares.
fn answer(network: &Network, found: &Reconfiguration, n_switches: usize, seed: u64) -> Value {
    let state = |state: &Configuration| {
        let (node, voltage_pu) = state.voltage_min_pu;
        let listed = |list: &[(usize, f64)], id: fn(&Network, usize) -> i64, name: &str| -> Value {
            list.iter()
                .map(|&(index, value)| json!({"id": id(network, index), name: value}))
                .collect()
        };
        json!({
            "loss_w": state.loss_w,
            "open": state.open.iter().map(|&branch| branch_id(network, branch)).collect::<Vec<_>>(),
            "voltage_min_pu": voltage_pu,
            "voltage_min_node": node_id(network, node),
            "voltage_max_pu": state.voltage_max_pu.1,
            "loading_max": state.loading_max.map(|(_, share)| share),
            "loading_max_branch": state.loading_max.map(|(branch, _)| branch_id(network, branch)),
            "keeps_limits": state.keeps_limits(),
            "voltage_violations": listed(&state.voltage_violations, node_id, "voltage_pu"),
            "loading_violations": listed(&state.loading_violations, branch_id, "loading"),
        })
    };
    let start = |tree: &Result<Configuration, GridError>| match tree {
        Ok(tree) => state(tree),
        Err(error) => json!({"error": error.to_string()}),
    };
    let steps: Vec<Value> = found.sequence.iter().map(|one| step(network, one)).collect();
    json!({
        "initial": state(&found.initial),
        "d4_6": start(&found.d4_6),
        "r_only": start(&found.r_only),
        "best": state(&found.best),
        "saving_w": found.saving_w(),
        "sequence": steps,
        "operations": found
            .operations(network)
            .iter()
            .map(|operation| json!({"branch": operation.branch, "position": if operation.close { "closed" } else { "open" }}))
            .collect::<Vec<_>>(),
        "switches": n_switches,
        "power_flows": found.n_power_flows,
        "seed": seed,
    })
}

fn step(network: &Network, step: &Step) -> Value {
    json!({
        "close": branch_id(network, step.close),
        "open": branch_id(network, step.open),
        "order": match step.order {
            Order::MakeBeforeBreak => "make_before_break",
            Order::BreakBeforeMake => "break_before_make",
        },
        "nodes_interrupted": step.n_interrupted,
        "voltage_across_pu": step.voltage_across_pu,
        "angle_across_rad": step.angle_across_rad,
        "loss_w": step.loss_w,
        "voltage_min_pu": step.voltage_min_pu,
        "loading_max": step.loading_max,
        "keeps_limits": step.keeps_limits,
    })
}

/// The answer for people.
fn report(network: &Network, found: &Reconfiguration, options: &Options) -> String {
    let mut out = String::new();
    let initial_w = found.initial.loss_w;
    let _ = writeln!(
        out,
        "{:<28}{:>12}{:>10}{:>14}{:>12}  limits",
        "", "losses, kW", "saving", "lowest, p.u.", "loading"
    );
    let mut line = |name: &str, state: Result<&Configuration, &GridError>| {
        let _ = match state {
            Ok(state) => writeln!(
                out,
                "{name:<28}{:>12.2}{:>10}{:>14.4}{:>12}  {}",
                state.loss_w / 1e3,
                if initial_w > 0.0 {
                    format!("{:.1} %", (1.0 - state.loss_w / initial_w) * 100.0)
                } else {
                    "-".to_owned()
                },
                state.voltage_min_pu.1,
                state
                    .loading_max
                    .map_or("-".to_owned(), |(_, share)| format!("{:.0} %", share * 100.0)),
                limits(network, state, options),
            ),
            Err(error) => writeln!(out, "{name:<28}{:>12}  {error}", "-"),
        };
    };
    line("as it stands", Ok(&found.initial));
    line("D4.6 (Kruskal on 1/|I|)", found.d4_6.as_ref());
    line("the same, resistances only", found.r_only.as_ref());
    line("best found", Ok(&found.best));
    let open = |state: &Configuration| {
        let ids: Vec<String> = state.open.iter().map(|&branch| branch_id(network, branch).to_string()).collect();
        ids.join(" ")
    };
    let _ = writeln!(out, "\nopen as it stands:  {}", open(&found.initial));
    if found.sequence.is_empty() {
        let _ = writeln!(out, "nothing to gain: no switch moves");
        return out;
    }
    let _ = writeln!(out, "open in the best:   {}", open(&found.best));
    let _ = writeln!(
        out,
        "\n{} operations, {:.2} kW saved\nstep     close      open  losses, kW  lowest, p.u.  across, p.u.",
        2 * found.sequence.len(),
        found.saving_w() / 1e3
    );
    for (at, step) in found.sequence.iter().enumerate() {
        let note = match step.order {
            Order::MakeBeforeBreak => String::new(),
            Order::BreakBeforeMake => format!("  open first: {} nodes without supply for a moment", step.n_interrupted),
        };
        let limits = if step.keeps_limits { "" } else { "  limits violated" };
        let _ = writeln!(
            out,
            "{:>4}{:>10}{:>10}{:>12.2}{:>14.4}{:>14.4}{note}{limits}",
            at + 1,
            branch_id(network, step.close),
            branch_id(network, step.open),
            step.loss_w / 1e3,
            step.voltage_min_pu,
            step.voltage_across_pu,
        );
    }
    out
}

/// What a state violates, in words.
fn limits(network: &Network, state: &Configuration, options: &Options) -> String {
    if state.keeps_limits() {
        return "kept".to_owned();
    }
    let named = |ids: Vec<i64>| {
        let shown: Vec<String> = ids.iter().take(N_NAMED_MAX).map(i64::to_string).collect();
        let more = ids.len().saturating_sub(N_NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        shown.join(" ") + &more
    };
    let mut words = Vec::new();
    if !state.voltage_violations.is_empty() {
        let [low, high] = options.voltage_pu;
        let ids = state.voltage_violations.iter().map(|&(node, _)| node_id(network, node)).collect();
        words.push(format!("outside {low}..{high} p.u.: nodes {}", named(ids)));
    }
    if !state.loading_violations.is_empty() {
        let ids = state
            .loading_violations
            .iter()
            .map(|&(branch, _)| branch_id(network, branch))
            .collect();
        words.push(format!("overloaded: branches {}", named(ids)));
    }
    words.join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const RING: &str = r#"{"type":"input","data":{"node":[{"id":1,"u_rated":10000},{"id":2,"u_rated":10000},{"id":3,"u_rated":10000}],
        "line":[{"id":4,"from_node":1,"to_node":2,"from_status":1,"to_status":1,"r1":1,"x1":1,"c1":0,"tan1":0},
                {"id":5,"from_node":2,"to_node":3,"from_status":1,"to_status":1,"r1":1,"x1":1,"c1":0,"tan1":0,"i_n":50},
                {"id":6,"from_node":3,"to_node":1,"from_status":0,"to_status":0,"r1":1,"x1":1,"c1":0,"tan1":0}],
        "source":[{"id":7,"node":1,"status":1,"u_ref":1,"sk":1e16}],
        "sym_load":[{"id":8,"node":3,"status":1,"type":0,"p_specified":1e6,"q_specified":0}]}}"#;

    #[test]
    fn people_read_what_moves_and_what_was_violated() {
        let network = Network::from_pgm_json(RING).unwrap();
        let options = Options::default();
        let found = reconfigure(&network, &[0, 1, 2], &options).unwrap();
        let text = report(&network, &found, &options);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("as it stands") && lines[1].ends_with("overloaded: branches 5"),
            "{text}"
        );
        assert!(lines[4].starts_with("best found") && lines[4].ends_with("kept"), "{text}");
        assert!(text.contains("open as it stands:  6\n") && text.contains("2 operations"), "{text}");
    }

    #[test]
    fn machines_read_ids_and_si_units() {
        let network = Network::from_pgm_json(RING).unwrap();
        let found = reconfigure(&network, &[0, 1, 2], &Options::default()).unwrap();
        let answer = answer(&network, &found, 3, 1);
        assert_eq!(answer["initial"]["open"], json!([6]));
        assert_eq!(answer["initial"]["loading_violations"][0]["id"], json!(5));
        assert_eq!(answer["sequence"][0]["close"], json!(6));
        assert_eq!(answer["operations"][0], json!({"branch": 6, "position": "closed"}));
        // 1 MW at 10 kV over two ohms, then over one
        let loss_w = |state: &str| answer[state]["loss_w"].as_f64().unwrap();
        assert!(
            (loss_w("initial") - 20.9e3).abs() < 500.0 && (loss_w("best") - 10.2e3).abs() < 200.0,
            "{answer}"
        );
    }
}
