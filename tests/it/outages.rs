//! The recording of a district through a server that is killed again and again: its one outage is found where it was, as without kills.

use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::ledger::Address;
use crate::mqtt::Connection;
use crate::recording;
use crate::server::Server;
use crate::skipped;

const RECORDING: &str = "district-small";
/// Lines of one publish, and the pause after it: the hour passes in a quarter of a minute.
const LINES: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(60);
/// Publishes between two kills: 260 publishes, five kills.
const PUBLISHES_PER_KILL: usize = 45;
/// Between an estimate and the same one made from a checkpoint and the log: what its steps leave.
const TOLERANCE: f64 = 1e-6;

const OUTAGES: &str = "SELECT device, feeder, n_customers, n_customers_out, n_gasps, opened_at, closed_at, closed_because FROM outages ORDER BY opened_at, device";
const RELIABILITY: &str = "SELECT * FROM reliability ORDER BY feeder";
const SWITCHES: &str = "SELECT branch_id, position, event_time FROM switches ORDER BY branch_id";
const VOLTAGES: &str = "SELECT DISTINCT ON (node_id, phase) node_id, phase, value FROM grid_state
    WHERE quantity = 'voltage_v' ORDER BY node_id, phase, event_time DESC";

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_found_where_it_was_however_often_the_server_is_killed() {
    let Some(folder) = recording::folder(RECORDING) else {
        return skipped(
            "an outage through kills",
            "../shared/data is not there (or FLEXMETER_TEST_DATA names another folder)",
        );
    };
    let _load = crate::LOAD.lock().await;
    let calm = play(&folder, false).await;
    let killed = play(&folder, true).await;
    assert_eq!(calm.0, killed.0, "outages without kills, and with them");
    assert_eq!(calm.1, killed.1, "reliability");
    assert_eq!(calm.2, killed.2, "switches");

    let [outage] = &killed.0[..] else {
        panic!("one outage happened, false gasps came besides: {:?}", killed.0);
    };
    let named = same_customers(&folder);
    assert!(
        named.contains(&outage["device"].as_str().unwrap().to_owned()),
        "{outage} is not {named:?}"
    );
    assert_eq!(outage["closed_because"], "restored", "{outage}");
    assert_eq!(outage["n_customers_out"], 0, "{outage}");
}

type Rows = Vec<Value>;

/// Publishes the recording to a new server; its outages, reliability and switches at the end, which one more kill must not change.
async fn play(folder: &Path, kills: bool) -> (Rows, Rows, Rows) {
    let bundle = folder.to_str().unwrap();
    let mut server = Server::with(&[("grid.bundle", bundle), ("engine.checkpoint_s", "1"), ("lake.commit_s", "1")]);
    let lines = lines(folder);
    let n_publishes = lines.len().div_ceil(LINES);
    let address = Arc::new(Mutex::new(server.addresses().mqtt));
    let done = Arc::new(AtomicUsize::new(0));
    let publisher = tokio::spawn(publish(lines, address.clone(), done.clone()));
    let mut next_kill = PUBLISHES_PER_KILL;
    while !publisher.is_finished() {
        if kills && done.load(Ordering::Relaxed) >= next_kill {
            server.kill();
            server.start();
            *address.lock().unwrap() = server.addresses().mqtt;
            next_kill += PUBLISHES_PER_KILL;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let n_messages: usize = publisher.await.unwrap();
    assert_eq!(done.load(Ordering::Relaxed), n_publishes);
    let counted = "SELECT (SELECT count(DISTINCT concat(hardware_id, event_time)) FROM measurements) + (SELECT count(*) FROM alerts)";
    server.wait_for_count(counted, n_messages as u64, DEADLINE).await;

    let before = (server.sql(OUTAGES).await, server.sql(RELIABILITY).await, server.sql(SWITCHES).await);
    let voltages = server.sql(VOLTAGES).await;
    server.kill();
    server.start();
    let after = (server.sql(OUTAGES).await, server.sql(RELIABILITY).await, server.sql(SWITCHES).await);
    assert_eq!(before, after, "a kill at the end");
    let voltages_after = server.sql(VOLTAGES).await;
    assert!(!voltages.is_empty() && voltages.len() == voltages_after.len());
    for (before, after) in voltages.iter().zip(&voltages_after) {
        let (a, b) = (before["value"].as_f64().unwrap(), after["value"].as_f64().unwrap());
        assert!((a - b).abs() <= TOLERANCE * a.abs().max(1.0), "{before} has become {after}");
    }
    after
}

/// Publishes batches in order, each until it is acknowledged. Gives how many messages must be rows.
async fn publish(lines: Vec<(String, bool)>, address: Address, done: Arc<AtomicUsize>) -> usize {
    let mut connection = None;
    for batch in lines.chunks(LINES) {
        let texts: Vec<&str> = batch.iter().map(|(line, _)| line.as_str()).collect();
        let payload = format!("[{}]", texts.join(","));
        let mut again = false;
        loop {
            if connection.is_none() {
                let address = *address.lock().unwrap();
                connection = Connection::open(address, "head-end", "head-end", "any").await.ok();
            }
            let Some(open) = connection.as_mut() else {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            };
            if open
                .publish("flexmeter/default/head-end/events", payload.as_bytes(), again)
                .await
                .is_ok()
            {
                break;
            }
            connection = None;
            again = true;
        }
        done.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    lines.iter().filter(|(_, is_row)| *is_row).count()
}

/// The lines that are whole messages, and whether each is a row of its own: neither broken nor a repeat.
fn lines(folder: &Path) -> Vec<(String, bool)> {
    let mut text = String::new();
    let file = std::fs::File::open(folder.join("messages.jsonl.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let events = std::fs::read_to_string(folder.join("events.csv")).unwrap();
    let wrong: std::collections::BTreeSet<usize> = events
        .lines()
        .skip(1)
        .map(|event| event.split(',').collect::<Vec<_>>())
        .filter(|event| {
            // of a message with one bad reading the others are good
            let is_partly_good = event[5].starts_with("unknown_identifier") || event[5].starts_with("not_a_number");
            event[1] == "duplicate" || (event[1] == "malformed" && !is_partly_good)
        })
        .filter_map(|event| event[2].parse().ok())
        .collect();
    let whole = text
        .lines()
        .enumerate()
        .filter(|(_, line)| serde_json::from_str::<Value>(line).is_ok());
    whole.map(|(at, line)| (line.to_owned(), !wrong.contains(&(at + 1)))).collect()
}

/// The devices whose failure cuts off exactly the customers of the outage.
fn same_customers(folder: &Path) -> Vec<String> {
    let events = std::fs::read_to_string(folder.join("events.csv")).unwrap();
    let start = events
        .lines()
        .map(|event| event.split(',').collect::<Vec<_>>())
        .find(|event| event[1] == "outage_start");
    let start = start.unwrap();
    let others = start[5].split(';').filter_map(|part| part.strip_prefix("same_customers="));
    let ids = others.flat_map(|ids| ids.split([' ', '|'])).filter(|id| !id.is_empty());
    std::iter::once(start[4]).chain(ids).map(|id| format!("branch-{id}")).collect()
}
