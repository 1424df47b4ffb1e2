//! The demo's second check: what the engine says of the grid against the truth of the simulation.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use arrow::array::{ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use flexmeter_queries::flight::client::Client;

use super::grid::DemoGrid;
use crate::report::Table;

/// Largest root mean square of the errors of the voltages, as a share of rated. Meters have 0.2 %, and households change their load
/// between two readings.
const RMSE_MAX: f64 = 0.005;
/// Least share of voltages within two standard deviations.
const WITHIN_TWO_SIGMA: f64 = 0.8;

/// Compares, prints a table, says whether all is well.
pub(super) async fn check(grid: &DemoGrid, flight: SocketAddr, password: &str) -> anyhow::Result<bool> {
    let mut client = Client::connect(&format!("http://{flight}"), crate::secrets::ADMIN, password).await?;
    let mut table = Table::new(["grid", "truth", "in SQL", "verdict"]);
    let mut good = true;
    let mut row = |what: &str, truth: String, found: String, is_good: bool| {
        good &= is_good;
        table.row([&what, &truth, &found, &if is_good { "ok" } else { "WRONG" }]);
    };

    let outages = rows(
        &mut client,
        "SELECT device, alternatives, n_customers, coalesce(closed_because, 'open') FROM outages",
    )
    .await?;
    let device = format!("branch-{}", grid.fuse());
    let found: Vec<String> = outages.iter().map(|outage| format!("{} ({})", outage[0], outage[3])).collect();
    let is_named = matches!(&outages[..], [outage] if (outage[0] == device || outage[1].contains(&format!("\"{device}\""))) && outage[3] == "restored");
    row("outages", format!("{device} (restored)"), found.join(", "), is_named);
    let customers: Vec<&str> = outages.iter().map(|outage| outage[2].as_str()).collect();
    let n_dark = grid.n_dark().to_string();
    row(
        "customers without supply",
        n_dark.clone(),
        customers.join(", "),
        customers == [n_dark],
    );

    let proposals = rows(
        &mut client,
        "SELECT state, round(loss_before_w / 1000, 1), round(loss_after_w / 1000, 1) FROM reconfigurations ORDER BY proposed_at",
    )
    .await?;
    let told: Vec<String> = proposals
        .iter()
        .map(|row| format!("{} {} kW -> {} kW", row[0], row[1], row[2]))
        .collect();
    let is_done = proposals.iter().any(|row| row[0] == "done");
    let lost = format!("{:.1} kW now, low voltage included", grid.simulated().loss_w() / 1e3);
    row("reconfigurations", lost, told.join(", "), is_done);

    let network = grid.simulated().network();
    let truth = |closed: bool| {
        let of_switch = grid
            .simulated()
            .bundle()
            .switches
            .iter()
            .map(|switch| &network.branches()[switch.branch]);
        let mut ids: Vec<i64> = of_switch
            .filter(|branch| branch.is_closed() == closed)
            .map(|branch| branch.id)
            .collect();
        ids.sort_unstable();
        ids.iter().map(i64::to_string).collect::<Vec<_>>()
    };
    let open = rows(
        &mut client,
        "SELECT branch_id FROM switches WHERE position = 'open' ORDER BY branch_id",
    )
    .await?;
    let open: Vec<String> = open.into_iter().flatten().collect();
    row("open switches", truth(false).join(", "), open.join(", "), open == truth(false));

    for (level, scale) in voltages(&mut client, grid).await? {
        let n = scale.n.max(1) as f64;
        let rmse = (scale.squares / n).sqrt();
        let within = scale.n_within as f64 / n;
        row(
            &format!("voltages at {level} V"),
            format!("{} phases", scale.n),
            format!("RMSE {:.2} %, {:.0} % within two sigma", rmse * 100.0, within * 100.0),
            scale.n > 0 && scale.n == scale.n_found && rmse < RMSE_MAX && within > WITHIN_TWO_SIGMA,
        );
    }
    print!("{}", table.render());
    let verdict = if good {
        "check passed: the grid is what the engine says it is"
    } else {
        "check of the grid FAILED"
    };
    println!("{verdict}");
    Ok(good)
}

/// Errors of one voltage level.
#[derive(Debug, Default)]
struct Level {
    /// Phases of nodes with supply; of these, estimated ones.
    n: usize,
    n_found: usize,
    /// Of errors per unit.
    squares: f64,
    n_within: usize,
}

async fn voltages(client: &mut Client, grid: &DemoGrid) -> anyhow::Result<BTreeMap<u64, Level>> {
    let mut estimated: BTreeMap<(i64, String), (f64, f64)> = BTreeMap::new();
    let sql = "SELECT node_id, phase, value, sigma FROM grid_state WHERE quantity = 'voltage_v' ORDER BY event_time";
    for batch in client.query(sql).await?.batches {
        let phases = batch.column(1).as_string_opt::<i32>().context("phases are no texts")?;
        let number = |column: usize, row: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
        for row in 0..batch.num_rows() {
            let key = (batch.column(0).as_primitive::<Int64Type>().value(row), phases.value(row).to_owned());
            // the newest comes last
            estimated.insert(key, (number(2, row), number(3, row)));
        }
    }
    let mut levels: BTreeMap<u64, Level> = BTreeMap::new();
    for (index, node) in grid.simulated().network().nodes().iter().enumerate() {
        let Some(truth) = grid.simulated().voltage_v(index) else { continue };
        let level = levels.entry(node.u_rated_v as u64).or_default();
        for (truth, phase) in truth.iter().zip(["a", "b", "c"]) {
            level.n += 1;
            let Some((value, sigma)) = estimated.get(&(node.id, phase.to_owned())) else {
                continue;
            };
            level.n_found += 1;
            level.squares += ((value - truth) * 3f64.sqrt() / node.u_rated_v).powi(2);
            level.n_within += usize::from((value - truth).abs() <= 2.0 * sigma);
        }
    }
    Ok(levels)
}

/// Rows of a query, every cell as text.
async fn rows(client: &mut Client, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for batch in client.query(sql).await?.batches {
        for row in 0..batch.num_rows() {
            rows.push(cells(&batch, row)?);
        }
    }
    Ok(rows)
}

fn cells(batch: &RecordBatch, row: usize) -> anyhow::Result<Vec<String>> {
    let cell = |column: &ArrayRef| Ok(arrow::util::display::array_value_to_string(column, row)?);
    batch.columns().iter().map(cell).collect()
}
