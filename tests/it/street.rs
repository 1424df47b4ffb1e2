//! The whole street with a real recording: MQTT in, SQL out, compared row by row with an independent reading of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::mqtt::Connection;
use crate::recording::{self, Profile, ProfileKey, ReadingKey, Truth, micros};
use crate::server::Server;
use crate::skipped;

const RECORDING: &str = "european-lv";
const CONNECTIONS: &str = "20";
const APPLIED_DEADLINE: Duration = Duration::from_secs(120);
/// Devices whose only message is sent after a replay: enough that every partition gets one.
const N_MARKERS: u64 = 64;
/// The mean is the only value that is computed in another order here than there.
const MEAN_TOLERANCE: f64 = 1e-12;

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_comes_out_of_sql_complete_and_correct_however_often_it_is_replayed() {
    let Some(folder) = recording::folder(RECORDING) else {
        return skipped(
            "the recording european-lv",
            "../shared/data is not there (or FLEXMETER_TEST_DATA names another folder)",
        );
    };
    let _load = crate::LOAD.lock().await;
    let truth = Truth::read(&folder);
    let mut server = Server::with(&[("lake.commit_s", "1")]);

    replay(&server, &folder, &truth);
    wait_until_applied(&server, "first").await;
    compare(&server, &truth).await;
    assert_eq!(n_duplicates(&server).await, truth.n_duplicates as u64);

    replay(&server, &folder, &truth);
    wait_until_applied(&server, "second").await;
    compare(&server, &truth).await;

    // now everything comes from the lake and from the checkpoint
    server.stop();
    server.start();
    compare(&server, &truth).await;
}

/// What the engine's counter says about repeats.
async fn n_duplicates(server: &Server) -> u64 {
    let (_, metrics) = server.get("/metrics").await;
    let is_counter = |line: &&str| line.starts_with("flexmeter_engine_messages_total") && line.contains("duplicate");
    let line = metrics
        .lines()
        .find(is_counter)
        .unwrap_or_else(|| panic!("no counter of duplicates in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Publishes the recording through the binary, and checks that every line was acknowledged.
fn replay(server: &Server, folder: &Path, truth: &Truth) {
    let file = folder.join("messages.jsonl.gz");
    let url = format!("mqtt://{}", server.addresses().mqtt);
    let arguments = [
        "replay",
        file.to_str().unwrap(),
        "--mqtt",
        &url,
        "--connections",
        CONNECTIONS,
        "--json",
    ];
    let output = server.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["acknowledged"].as_u64(), Some(truth.n_lines as u64), "{report}");
}

/// Order is kept per partition: when a later message of every partition is in SQL, so is all that was acknowledged before.
async fn wait_until_applied(server: &Server, round: &str) {
    let mut connection = Connection::open(server.addresses().mqtt, "marker", "marker", "any").await.unwrap();
    for i in 0..N_MARKERS {
        let device = format!("marker-{round}-{i}");
        let payload = format!(
            r#"{{"hardwareId":"{device}","type":"Acknowledge","request":{{"response":"ok","originatingEventId":"{i}","eventDate":"2026-11-16T00:00:00Z"}}}}"#
        );
        connection
            .publish(&format!("flexmeter/default/{device}/events"), payload.as_bytes(), false)
            .await
            .unwrap();
    }
    let markers = format!("SELECT count(*) FROM acknowledgements WHERE hardware_id LIKE 'marker-{round}-%'");
    server.wait_for_count(&markers, N_MARKERS, APPLIED_DEADLINE).await;
}

async fn compare(server: &Server, truth: &Truth) {
    compare_measurements(server, truth).await;
    compare_alerts(server, truth).await;
    compare_rejections(server, truth).await;
    compare_latest(server, truth).await;
    compare_load_profile(server, truth).await;
}

async fn compare_measurements(server: &Server, truth: &Truth) {
    let rows = server
        .sql("SELECT hardware_id, identifier, event_time, value, quality FROM measurements")
        .await;
    let n_rows = rows.len();
    let found: BTreeMap<ReadingKey, f64> = rows
        .iter()
        .map(|row| {
            (
                (text(row, "hardware_id"), text(row, "identifier"), time(row, "event_time")),
                number(row, "value"),
            )
        })
        .collect();
    assert_eq!(n_rows, found.len(), "some readings are twice in measurements");
    assert_same(&found, &truth.measurements, |a, b| a == b, "measurements");
}

async fn compare_alerts(server: &Server, truth: &Truth) {
    let rows = server.sql("SELECT hardware_id, type, event_time FROM alerts").await;
    let found: BTreeSet<_> = rows
        .iter()
        .map(|row| (text(row, "hardware_id"), text(row, "type"), time(row, "event_time")))
        .collect();
    assert_eq!(rows.len(), found.len(), "some alerts are there twice");
    assert_eq!(found, truth.alerts);
}

async fn compare_rejections(server: &Server, truth: &Truth) {
    let rows = server.sql("SELECT payload, reason, detail FROM rejections").await;
    let found: BTreeMap<String, (String, String)> = rows
        .iter()
        .map(|row| (text(row, "payload"), (text(row, "reason"), text(row, "detail"))))
        .collect();
    assert_eq!(rows.len(), found.len(), "a broken line is rejected more than once");
    let agrees = |(reason, detail): &(String, String), (code, what): &(String, String)| reason == code && detail.contains(what.as_str());
    assert_same(&found, &truth.rejections, agrees, "rejections");
}

async fn compare_latest(server: &Server, truth: &Truth) {
    let rows = server.sql("SELECT hardware_id, identifier, event_time, value FROM latest").await;
    let found: BTreeMap<_, _> = rows
        .iter()
        .map(|row| {
            (
                (text(row, "hardware_id"), text(row, "identifier")),
                (time(row, "event_time"), number(row, "value")),
            )
        })
        .collect();
    assert_eq!(rows.len(), found.len(), "a key is twice in latest");
    assert_same(&found, &truth.latest(), |a, b| a == b, "latest");
}

async fn compare_load_profile(server: &Server, truth: &Truth) {
    let rows = server
        .sql("SELECT hardware_id, window_start, identifier, n, mean, min, max, last FROM load_profile_15m")
        .await;
    let found: BTreeMap<ProfileKey, Profile> = rows
        .iter()
        .map(|row| {
            let key = (text(row, "hardware_id"), time(row, "window_start"), text(row, "identifier"));
            let values = |name| number(row, name);
            (
                key,
                Profile {
                    n: values("n") as u64,
                    mean: values("mean"),
                    min: values("min"),
                    max: values("max"),
                    last: values("last"),
                },
            )
        })
        .collect();
    assert_eq!(rows.len(), found.len(), "a window is twice in load_profile_15m");
    let agrees = |a: &Profile, b: &Profile| {
        let is_mean_close = (a.mean - b.mean).abs() <= MEAN_TOLERANCE * b.mean.abs().max(1.0);
        is_mean_close && Profile { mean: 0.0, ..a.clone() } == Profile { mean: 0.0, ..b.clone() }
    };
    assert_same(&found, &truth.load_profile(), agrees, "load_profile_15m");
}

/// Same keys, agreeing values; says which rows differ, not all of them.
fn assert_same<K: Ord + std::fmt::Debug, V: std::fmt::Debug>(
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
    agrees: impl Fn(&V, &V) -> bool,
    table: &str,
) {
    let missing: Vec<_> = expected.iter().filter(|(key, _)| !found.contains_key(key)).take(5).collect();
    let surplus: Vec<_> = found.iter().filter(|(key, _)| !expected.contains_key(key)).take(5).collect();
    let wrong: Vec<_> = found
        .iter()
        .filter_map(|(key, value)| {
            expected
                .get(key)
                .filter(|expected| !agrees(value, expected))
                .map(|expected| (key, value, expected))
        })
        .take(5)
        .collect();
    let fine = missing.is_empty() && surplus.is_empty() && wrong.is_empty();
    assert!(
        fine,
        "{table}: {} rows instead of {}\nmissing: {missing:#?}\nnot expected: {surplus:#?}\nfound and expected differ: {wrong:#?}",
        found.len(),
        expected.len()
    );
}

fn text(row: &Value, column: &str) -> String {
    row[column]
        .as_str()
        .unwrap_or_else(|| panic!("{column} is no text in {row}"))
        .to_owned()
}

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} is no number in {row}"))
}

fn time(row: &Value, column: &str) -> i64 {
    micros(row[column].as_str().unwrap_or_else(|| panic!("{column} is no time in {row}")))
}
