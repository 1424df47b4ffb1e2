//! `flexmeter grid fault`: from a fault record to where the fault is.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use flexmeter_grid::fault::{Candidate, FaultLocation, FaultRecord, FaultType, LocateOptions, line_facts, locate};
use flexmeter_grid::network::ComponentId;
use serde_json::{Value, json};

use super::{read, read_network};

/// Arguments of `grid fault`.
#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// The network as it was switched (power-grid-model JSON), or the folder of a grid bundle (its network.json is read).
    case: PathBuf,
    /// The record: voltages and currents at the head, before and during the fault, as phasors or as a waveform (JSON).
    record: PathBuf,
    /// Table branch_id,length_m,phases,device: lengths, phases of lines with less than three, 1 for a fuse or breaker.
    #[arg(long, value_name = "FILE")]
    lines: Option<PathBuf>,
    /// Nodes that have gone dark: ids with commas between them, or a file with an id on each line.
    #[arg(long, value_name = "FILE|IDS")]
    gasps: Option<String>,
    /// The type of fault, if it is known: AG, BG, CG, AB, BC, CA, ABG, BCG, CAG, ABC or ABCG.
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    kind: Option<FaultType>,
    /// Most resistance the fault is taken to have, ohm.
    #[arg(long, default_value_t = LocateOptions::default().resistance_max_ohm, value_name = "OHM")]
    resistance_max: f64,
    /// Standard deviation of the change of the loads' current, as a share of the change of their voltage.
    #[arg(long, default_value_t = LocateOptions::default().load_sigma, value_name = "SHARE")]
    load_sigma: f64,
    /// Most candidates.
    #[arg(long, default_value_t = LocateOptions::default().candidates_max, value_name = "N")]
    candidates: usize,
    /// Where the answer goes, as JSON (default: stdout).
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// JSON even on a terminal.
    #[arg(long)]
    json: bool,
}

fn kind(text: &str) -> Result<FaultType, String> {
    FaultType::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = FaultType::ALL.iter().map(|kind| kind.name()).collect();
        format!("not one of {}", names.join(", "))
    })
}

/// Runs `grid fault`.
pub(super) fn run(args: &FaultArgs) -> anyhow::Result<ExitCode> {
    let network = read_network(&args.case)?;
    let record = FaultRecord::from_json(&read(&args.record)?).with_context(|| args.record.display().to_string())?;
    let lines = match &args.lines {
        Some(path) => line_facts(&read(path)?).with_context(|| path.display().to_string())?,
        None => Default::default(),
    };
    let gasps = match &args.gasps {
        Some(text) => gasps(text)?,
        None => Vec::new(),
    };
    let options = LocateOptions {
        lines,
        gasps,
        kind: args.kind,
        resistance_max_ohm: args.resistance_max,
        load_sigma: args.load_sigma,
        candidates_max: args.candidates,
        ..LocateOptions::default()
    };
    let found = locate(&network, &record, &options)?;
    match &args.output {
        Some(path) => {
            let text = serde_json::to_string(&answer(&found))?;
            std::fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))?;
        }
        None if !args.json && std::io::stdout().is_terminal() => print!("{}", table(&found)),
        None => writeln!(std::io::stdout(), "{}", answer(&found))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Ids between commas, or from a file with one on each line.
fn gasps(text: &str) -> anyhow::Result<Vec<ComponentId>> {
    let path = Path::new(text);
    let (ids, from) = match path.exists() {
        true => (read(path)?, text),
        false => (text.to_owned(), "--gasps"),
    };
    ids.split([',', '\n'])
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(|id| {
            id.parse()
                .with_context(|| format!("{from}: \"{id}\" is neither a file nor the id of a node; give ids with commas between them"))
        })
        .collect()
}

fn answer(found: &FaultLocation) -> Value {
    let candidates: Vec<Value> = found
        .candidates
        .iter()
        .map(|candidate| {
            json!({
                "branch": candidate.branch,
                "near_node": candidate.near_node,
                "far_node": candidate.far_node,
                "share": candidate.share,
                "distance_m": candidate.distance_m,
                "distance_sigma_m": candidate.distance_sigma_m,
                "distance_ohm": candidate.distance_ohm,
                "distance_sigma_ohm": candidate.distance_sigma_ohm,
                "type": candidate.kind.name(),
                "resistance_ohm": candidate.resistance_ohm,
                "ground_resistance_ohm": candidate.ground_resistance_ohm,
                "misfit_sigmas": candidate.misfit_sigmas,
                "probability": candidate.probability,
            })
        })
        .collect();
    json!({
        "candidates": candidates,
        "type_at_head": found.type_at_head.name(),
        "load_scale": found.load_scale.map(|scale| [scale.re, scale.im]),
        "load_misfit_sigmas": found.load_misfit_sigmas,
        "feeder_length_m": found.feeder_length_m,
        "feeder_length_ohm": found.feeder_length_ohm,
        "n_sections": found.n_sections,
        "dark_behind": found.dark_behind,
        "n_gasps_elsewhere": found.n_gasps_elsewhere,
    })
}

fn distance(candidate: &Candidate) -> String {
    match candidate.distance_m.zip(candidate.distance_sigma_m) {
        Some((m, sigma)) => format!("{m:.0} ± {sigma:.0} m"),
        None => format!("{:.3} ± {:.3} ohm", candidate.distance_ohm, candidate.distance_sigma_ohm),
    }
}

/// The candidates for people, the most probable first.
fn table(found: &FaultLocation) -> String {
    let length = match found.feeder_length_m {
        Some(m) => format!("{m:.0} m"),
        None => format!("{:.3} ohm", found.feeder_length_ohm),
    };
    let dark = match found.dark_behind {
        Some(branch) => format!("; the dark nodes hang on branch {branch}"),
        None => String::new(),
    };
    let mut out = format!(
        "{} at the head; {} sections compared, the farthest point is {length} away{dark}\n\n",
        found.type_at_head.name(),
        found.n_sections,
    );
    let rows = found.candidates.iter().map(|candidate| {
        [
            format!("{:.0} %", candidate.probability * 100.0),
            candidate.kind.name().to_owned(),
            candidate.branch.to_string(),
            candidate.near_node.to_string(),
            candidate.far_node.map_or("-".to_owned(), |node| node.to_string()),
            format!("{:.2}", candidate.share),
            distance(candidate),
            format!("{:.2}", candidate.resistance_ohm),
            candidate.ground_resistance_ohm.map_or("-".to_owned(), |r| format!("{r:.2}")),
            format!("{:.1}", candidate.misfit_sigmas),
        ]
    });
    let header = [
        "probability",
        "type",
        "branch",
        "from",
        "to",
        "share",
        "distance",
        "R ohm",
        "R ground",
        "misfit",
    ]
    .map(str::to_owned);
    let all: Vec<[String; 10]> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> = (0..10)
        .map(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &all {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        out += &cells.join("  ");
        out.push('\n');
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dark_nodes_are_ids_and_anything_else_is_named() {
        assert_eq!(gasps("1, 2,3").unwrap(), [1, 2, 3]);
        assert!(gasps("1,x").unwrap_err().to_string().contains("\"x\""));
    }

    #[test]
    fn a_type_is_one_of_eleven() {
        assert_eq!(kind("bcg"), Ok(FaultType::Bcg));
        assert!(kind("XG").unwrap_err().contains("AG, BG"));
    }
}
