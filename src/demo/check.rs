//! The demo's self-check: every acknowledged reading is in `measurements` exactly once, every broken message is in `rejections` with
//! its reason, and nothing else is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use flexmeter_connectors::simulator::Expected;
use flexmeter_queries::flight::client::Client;
use parking_lot::Mutex;

use super::Ledger;
use crate::report::Table;

/// How long the last acknowledged messages may take until SQL shows them.
const PATIENCE: Duration = Duration::from_secs(30);

type Key = (String, i64, String);

/// Compares the ledger with SQL, prints a table, says whether all is well.
pub(super) async fn check(ledger: &Mutex<Ledger>, flight: SocketAddr, password: &str) -> anyhow::Result<bool> {
    let mut client = Client::connect(&format!("http://{flight}"), crate::secrets::ADMIN, password).await?;
    let (expected, reasons, failed) = truth(&ledger.lock());
    let n_expected: u64 = expected.values().map(|values| values.len() as u64).sum();
    let n_rejections: u64 = reasons.values().sum();

    // the last messages were acknowledged milliseconds ago: give the views a moment to show them
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = count(&mut client, "SELECT count(*) FROM measurements").await?;
        let rejections = count(&mut client, "SELECT count(*) FROM rejections").await?;
        if (rows >= n_expected && rejections >= n_rejections) || Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let found = measurements(&mut client).await?;
    let found_reasons = rejections(&mut client).await?;
    let n_found: u64 = found.values().map(|values| values.len() as u64).sum();
    let missing = expected
        .iter()
        .filter(|(key, values)| found.get(*key) != Some(values) && found.get(*key).is_none_or(|have| have.len() < values.len()))
        .count();
    let twice = found
        .iter()
        .filter(|(key, values)| expected.get(*key).is_some_and(|expected| values.len() > expected.len()))
        .count();
    let foreign = found.keys().filter(|key| !expected.contains_key(*key)).count();
    let changed = found
        .iter()
        .filter(|(key, values)| {
            expected
                .get(*key)
                .is_some_and(|expected| expected.len() == values.len() && expected != *values)
        })
        .count();
    let (profile_rows, profile_wrong) = profile(&mut client, &expected).await?;

    let mut table = Table::new(["what", "acknowledged", "in SQL", "verdict"]);
    let verdict = |good: bool| if good { "ok" } else { "WRONG" };
    table.row([&"readings", &n_expected, &n_found, &verdict(n_expected == n_found)]);
    for (what, n) in [
        ("readings missing", missing),
        ("readings twice", twice),
        ("readings nobody sent", foreign),
        ("readings changed", changed),
    ] {
        table.row([&what, &0, &n, &verdict(n == 0)]);
    }
    let mut good = n_expected == n_found && missing + twice + foreign + changed == 0;
    let mut all: Vec<&String> = reasons.keys().chain(found_reasons.keys()).collect();
    all.sort_unstable();
    all.dedup();
    for reason in all {
        let (sent, have) = (
            reasons.get(reason).copied().unwrap_or(0),
            found_reasons.get(reason).copied().unwrap_or(0),
        );
        good &= sent == have;
        table.row([&format!("rejected: {reason}"), &sent, &have, &verdict(sent == have)]);
    }
    table.row([
        &"load-profile cells",
        &profile_rows.0,
        &profile_rows.1,
        &verdict(profile_rows.0 == profile_rows.1),
    ]);
    table.row([&"load-profile cells wrong", &0, &profile_wrong, &verdict(profile_wrong == 0)]);
    table.row([&"publishes failed", &0, &failed, &verdict(failed == 0)]);
    good &= failed == 0 && profile_rows.0 == profile_rows.1 && profile_wrong == 0 && n_expected > 0;
    let (accepted, partly, rejected, duplicates) = ledger.lock().tally();
    print!("{}", table.render());
    println!("messages acknowledged: {accepted} good, {partly} partly good, {rejected} rejected, {duplicates} repeats");
    println!(
        "{}",
        if good {
            "check passed: what was acknowledged is what SQL returns"
        } else {
            "check FAILED"
        }
    );
    Ok(good)
}

/// Expected readings by key, expected rejections by reason, failed publishes.
fn truth(ledger: &Ledger) -> (BTreeMap<Key, Vec<f64>>, BTreeMap<String, u64>, u64) {
    let mut readings: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for message in &ledger.acknowledged {
        for (identifier, value) in &message.readings {
            readings
                .entry((
                    message.hardware_id.clone(),
                    message.event_time.micros(),
                    identifier.name().to_owned(),
                ))
                .or_default()
                .push(*value);
        }
        if let Expected::Rejected(reason) | Expected::PartlyRejected(reason) = &message.expected {
            *reasons.entry(reason.as_str().to_owned()).or_default() += 1;
        }
    }
    for values in readings.values_mut() {
        values.sort_unstable_by(f64::total_cmp);
    }
    (readings, reasons, ledger.failed)
}

async fn count(client: &mut Client, sql: &str) -> anyhow::Result<u64> {
    let batches = client.query(sql).await?.batches;
    let batch = batches
        .iter()
        .find(|batch| batch.num_rows() == 1)
        .with_context(|| format!("no answer to {sql}"))?;
    Ok(u64::try_from(batch.column(0).as_primitive::<Int64Type>().value(0))?)
}

async fn measurements(client: &mut Client) -> anyhow::Result<BTreeMap<Key, Vec<f64>>> {
    let mut found: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    for batch in client
        .query("SELECT hardware_id, event_time, identifier, value FROM measurements")
        .await?
        .batches
    {
        for_each_key(&batch, |key, row| {
            found
                .entry(key)
                .or_default()
                .push(batch.column(3).as_primitive::<Float64Type>().value(row));
        })?;
    }
    for values in found.values_mut() {
        values.sort_unstable_by(f64::total_cmp);
    }
    Ok(found)
}

/// Calls `each` with (text in column 0, time in column 1, text in column 2) of every row.
fn for_each_key(batch: &RecordBatch, mut each: impl FnMut(Key, usize)) -> anyhow::Result<()> {
    let (Some(ids), Some(times), Some(names)) = (
        batch.column(0).as_string_opt::<i32>(),
        batch.column(1).as_primitive_opt::<TimestampMicrosecondType>(),
        batch.column(2).as_string_opt::<i32>(),
    ) else {
        bail!("columns have other types than the contract says: {}", batch.schema())
    };
    for row in 0..batch.num_rows() {
        each((ids.value(row).to_owned(), times.value(row), names.value(row).to_owned()), row);
    }
    Ok(())
}

async fn rejections(client: &mut Client) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for batch in client
        .query("SELECT reason, count(*) FROM rejections GROUP BY reason")
        .await?
        .batches
    {
        let (reasons, counts) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            found.insert(reasons.value(row).to_owned(), u64::try_from(counts.value(row))?);
        }
    }
    Ok(found)
}

/// Compares `load_profile_15m` with a recomputation from the ledger: (expected and found cells, wrong cells).
async fn profile(client: &mut Client, readings: &BTreeMap<Key, Vec<f64>>) -> anyhow::Result<((u64, u64), u64)> {
    const WINDOW_US: i64 = 900_000_000;
    let mut cells: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    for ((id, time, name), values) in readings {
        let window = time.div_euclid(WINDOW_US) * WINDOW_US;
        cells.entry((id.clone(), window, name.clone())).or_default().extend(values);
    }
    let (mut n_found, mut n_wrong) = (0, 0);
    let sql = "SELECT hardware_id, window_start, identifier, n, mean, min, max FROM load_profile_15m";
    for batch in client.query(sql).await?.batches {
        for_each_key(&batch, |key, row| {
            let float = |column: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
            let n = batch.column(3).as_primitive::<Int64Type>().value(row);
            n_found += 1;
            let good = cells.get(&key).is_some_and(|values| {
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let min = values.iter().copied().fold(f64::INFINITY, f64::min);
                let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                n == values.len() as i64 && (mean - float(4)).abs() <= 1e-9 * mean.abs().max(1.0) && min == float(5) && max == float(6)
            });
            n_wrong += u64::from(!good);
        })?;
    }
    Ok(((cells.len() as u64, n_found), n_wrong))
}
