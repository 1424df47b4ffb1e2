//! Locates faults for the counter: in the tenant's network as it was switched when the fault came, beside the async threads.

use std::sync::Arc;

use flexmeter_grid::bundle::Bundle;
use flexmeter_grid::fault::{Candidate, FaultLocation, FaultRecord, LocateOptions, locate};
use flexmeter_grid::network::{ComponentId, Network};
use flexmeter_model::outcome::FaultRow;
use flexmeter_queries::rest::FaultDoor;
use flexmeter_queries::rest::grid::{CandidateDocument, FaultInquiry, FaultRefusal};
use tokio::sync::Semaphore;

use crate::bundles::Lines;
use crate::grid_book::GridBook;

/// Faults that are being located at a time: one takes a processor for as long as it lasts.
const LOCATING_MAX: usize = 2;

/// The door; faults are located in the grids of the moment.
pub(crate) fn fault_door(book: Arc<GridBook>) -> FaultDoor {
    let permits = Arc::new(Semaphore::new(LOCATING_MAX));
    Arc::new(move |inquiry: FaultInquiry| {
        let grids = book.grids();
        let grid = grids.engine.get(&inquiry.tenant).cloned();
        let lines = grids.lines.get(&inquiry.tenant).cloned().unwrap_or_default();
        let permit = Arc::clone(&permits).try_acquire_owned();
        Box::pin(async move {
            let no_grid = || FaultRefusal::NotLocated(format!("tenant {} has no grid", inquiry.tenant));
            let grid = grid.ok_or_else(no_grid)?;
            let permit = permit.map_err(|_| FaultRefusal::Busy(LOCATING_MAX))?;
            let work = move || {
                // kept until the work is done, also when whoever asked has gone
                let _permit = permit;
                row(grid.bundle(), &lines, &inquiry)
            };
            let panicked = |error: tokio::task::JoinError| FaultRefusal::NotLocated(format!("fault location failed: {error}"));
            tokio::task::spawn_blocking(work).await.map_err(panicked)?
        })
    })
}

fn row(bundle: &Bundle, lines: &Lines, inquiry: &FaultInquiry) -> Result<FaultRow, FaultRefusal> {
    let record = FaultRecord::from_json(&inquiry.record).map_err(|error| FaultRefusal::Record(error.to_string()))?;
    let mut network = bundle.network.clone();
    for &(branch, closed) in &inquiry.positions {
        if let Some(branch) = network.branch_index(branch) {
            network.set_closed(branch, closed);
        }
    }
    let options = LocateOptions {
        lines: lines.clone(),
        gasps: dark_nodes(bundle, &network, &inquiry.dark_from),
        ..LocateOptions::default()
    };
    let found = locate(&network, &record, &options).map(|found| {
        let n_gasps = options.gasps.len().saturating_sub(found.n_gasps_elsewhere);
        (found, n_gasps)
    });
    let (found, n_gasps) = match found {
        // an outage's device is a conclusion from what meters say; where the measured currents contradict it, they count
        Err(_) if !options.gasps.is_empty() => {
            let alone = LocateOptions {
                gasps: Vec::new(),
                ..options
            };
            (locate(&network, &record, &alone).map_err(refused)?, 0)
        }
        found => found.map_err(refused)?,
    };
    fault(bundle, &found, n_gasps, inquiry)
}

fn refused(error: flexmeter_grid::GridError) -> FaultRefusal {
    FaultRefusal::NotLocated(error.to_string())
}

/// Ids of the nodes that have lost supply: those named, and those with meters behind them.
fn dark_nodes(bundle: &Bundle, network: &Network, dark_from: &[i64]) -> Vec<ComponentId> {
    let n_nodes = network.nodes().len();
    let mut neighbours = vec![Vec::new(); n_nodes];
    for branch in network.branches().iter().filter(|branch| branch.is_closed()) {
        neighbours[branch.from].push(branch.to);
        neighbours[branch.to].push(branch.from);
    }
    let roots: Vec<usize> = dark_from.iter().filter_map(|&id| network.node_index(id)).collect();
    let mut dark = vec![false; n_nodes];
    for &root in &roots {
        dark[root] = true;
    }
    let mut reached = vec![false; n_nodes];
    let mut waiting: Vec<usize> = network
        .sources()
        .iter()
        .filter(|source| source.connected)
        .map(|source| source.node)
        .collect();
    for &node in &waiting {
        reached[node] = true;
    }
    while let Some(node) = waiting.pop() {
        for &next in &neighbours[node] {
            if !std::mem::replace(&mut reached[next], true) {
                dark[next] |= dark[node];
                waiting.push(next);
            }
        }
    }
    let metered = bundle.meters.iter().map(|meter| meter.node).filter(|&node| dark[node]);
    let mut nodes: Vec<ComponentId> = roots.iter().copied().chain(metered).map(|node| network.nodes()[node].id).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn fault(bundle: &Bundle, found: &FaultLocation, n_gasps: usize, inquiry: &FaultInquiry) -> Result<FaultRow, FaultRefusal> {
    let nowhere = || FaultRefusal::NotLocated("no place explains the record; check head.branch and the order of the phases".to_owned());
    let best = found.candidates.first().ok_or_else(nowhere)?;
    let candidates: Vec<CandidateDocument> = found.candidates.iter().map(candidate).collect();
    let branch = bundle.network.branch_index(best.branch);
    let area = branch.and_then(|branch| bundle.areas.get(bundle.network.branches()[branch].to));
    Ok(FaultRow {
        area: area.ok_or_else(nowhere)?.as_str().into(),
        fault_type: best.kind.name().to_owned(),
        branch_id: best.branch,
        near_node: best.near_node,
        share: best.share.clamp(0.0, 1.0),
        distance_m: best.distance_m,
        distance_sigma_m: best.distance_sigma_m,
        distance_ohm: best.distance_ohm,
        resistance_ohm: best.resistance_ohm,
        probability: best.probability.clamp(0.0, 1.0),
        candidates: serde_json::to_string(&candidates).unwrap_or_default(),
        n_gasps: u32::try_from(n_gasps).unwrap_or(u32::MAX),
        event_time: inquiry.at,
        by: inquiry.by.clone(),
    })
}

fn candidate(candidate: &Candidate) -> CandidateDocument {
    CandidateDocument {
        branch_id: candidate.branch,
        near_node: candidate.near_node,
        far_node: candidate.far_node,
        share: candidate.share.clamp(0.0, 1.0),
        distance_m: candidate.distance_m,
        distance_sigma_m: candidate.distance_sigma_m,
        distance_ohm: candidate.distance_ohm,
        distance_sigma_ohm: candidate.distance_sigma_ohm,
        fault_type: candidate.kind.name().to_owned(),
        resistance_ohm: candidate.resistance_ohm,
        ground_resistance_ohm: candidate.ground_resistance_ohm,
        misfit_sigmas: candidate.misfit_sigmas,
        probability: candidate.probability.clamp(0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use flexmeter_grid::fault::line_facts;
    use flexmeter_model::{EventTime, TenantId};

    use super::*;

    /// Like the IEEE 34 node feeder; its record is of a fault AG on branch 1003 at 0.327 of it, without resistance (simulated by OpenDSS).
    const NETWORK: &str = include_str!("../core/grid/test_data/fault/feeder_34/network.json");
    const LINES: &str = include_str!("../core/grid/test_data/fault/feeder_34/lines.csv");
    const RECORD: &str = include_str!("../core/grid/test_data/fault/feeder_34/record.json");

    fn bundle() -> Bundle {
        let network = Network::from_pgm_json(NETWORK).unwrap();
        let areas = network.nodes().iter().map(|node| format!("{},mv1\n", node.id));
        let areas = format!("node_id,area\n{}", areas.collect::<String>());
        let meters = "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\nM-860,860,abc,customer,0.005,0.01\n\
            M-840,840,abc,customer,0.005,0.01\n";
        Bundle::from_texts(
            NETWORK,
            &areas,
            meters,
            "branch_id,normal,controllable,hardware_id\n1001,closed,true,\n",
        )
        .unwrap()
    }

    fn inquiry(record: &str, closed: bool, dark_from: &[i64]) -> FaultInquiry {
        FaultInquiry {
            tenant: TenantId::new("default").unwrap(),
            record: record.to_owned(),
            positions: vec![(1001, closed)],
            dark_from: dark_from.to_vec(),
            at: EventTime::from_micros(5),
            by: "ada".to_owned(),
        }
    }

    #[test]
    fn a_record_leads_to_the_line_of_the_fault() {
        let (bundle, lines) = (bundle(), line_facts(LINES).unwrap());
        // all that is behind line 1001 is dark: node 802, and the meters at 860 and 840
        let row = row(&bundle, &lines, &inquiry(RECORD, true, &[802])).unwrap();
        assert_eq!((row.branch_id, row.fault_type.as_str(), &*row.area), (1003, "AG", "mv1"));
        assert!((row.share - 0.327).abs() < 0.05 && row.resistance_ohm < 1.0, "{row:?}");
        assert_eq!((row.n_gasps, row.event_time.micros(), row.by.as_str()), (3, 5, "ada"));
        let candidates: Vec<CandidateDocument> = serde_json::from_str(&row.candidates).unwrap();
        assert_eq!((candidates[0].branch_id, candidates[0].share), (row.branch_id, row.share));
        let all: f64 = candidates.iter().map(|candidate| candidate.probability).sum();
        assert!(all > 0.9 && all < 1.0 + 1e-9, "{all}");
    }

    #[test]
    fn outages_that_contradict_the_record_do_not_count() {
        let (bundle, lines) = (bundle(), line_facts(LINES).unwrap());
        // the far end, behind a transformer: a fault there does not look like this one
        let row = row(&bundle, &lines, &inquiry(RECORD, true, &[890])).unwrap();
        assert_eq!((row.branch_id, row.n_gasps), (1003, 0));
    }

    #[test]
    fn what_cannot_be_located_says_why() {
        let (bundle, lines) = (bundle(), line_facts(LINES).unwrap());
        let refusal = |record: &str, closed: bool| row(&bundle, &lines, &inquiry(record, closed, &[])).unwrap_err();
        assert!(matches!(refusal("{", true), FaultRefusal::Record(_)));
        let calm = RECORD.replace("\"during\"", "\"later\"");
        assert!(matches!(refusal(&calm, true), FaultRefusal::Record(text) if text.contains("later")));
        let elsewhere = RECORD.replace("\"node\": 1000", "\"node\": 7");
        assert!(matches!(refusal(&elsewhere, true), FaultRefusal::NotLocated(text) if text.contains('7')));
        assert!(
            matches!(refusal(RECORD, false), FaultRefusal::NotLocated(_)),
            "the feeder's first line was open"
        );
    }

    #[tokio::test]
    async fn a_tenant_without_a_grid_has_no_faults() {
        let scratch = tempfile::tempdir().unwrap();
        let overrides = crate::config::Overrides {
            data_dir: Some(scratch.path().to_owned()),
            ..Default::default()
        };
        let config = crate::config::Config::load(None, &overrides).unwrap();
        let door = fault_door(GridBook::empty(&config));
        let refusal = door(inquiry(RECORD, true, &[])).await.unwrap_err();
        assert!(refusal.to_string().contains("default has no grid"), "{refusal}");
    }
}
