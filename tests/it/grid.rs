//! A grid, served: readings over MQTT become a state in SQL, REST and MQTT; a switch operation over REST changes it; kill -9 does not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mqtt::Connection;
use crate::server::{ADMIN_PASSWORD, FLEXMETER, Server};

/// The bundle of `examples/grid`: a source at node 1, a transformer to node 3, customers at nodes 4 and 5, a switch on the line (22) between.
fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grid")
}

/// What four meters say while both customers take some 300 W and 60 var on each phase.
async fn send_readings(connection: &mut Connection) {
    for (device, voltage_v, kw, kvar) in [
        ("C-4", 230.4, 0.3, 0.06),
        ("C-5", 230.2, 0.3, 0.06),
        ("S-1", 230.6, 0.6, 0.12),
        ("F-1", 5_773.5, 0.72, 0.25),
    ] {
        let mut measurements = serde_json::Map::new();
        for phase in 1..=3 {
            measurements.insert(format!("electricity.voltage.rms.l{phase}"), json!(voltage_v));
            measurements.insert(format!("electricity.power.active.consumed.l{phase}"), json!(kw));
            measurements.insert(format!("electricity.power.reactive.consumed.l{phase}"), json!(kvar));
        }
        let message =
            json!({"hardwareId": device, "type": "DeviceMeasurements", "request": {"measurements": measurements, "updateState": true}});
        let topic = format!("flexmeter/default/{device}/events");
        connection.publish(&topic, message.to_string().as_bytes(), false).await.unwrap();
    }
}

const DEADLINE: Duration = Duration::from_secs(30);
/// A meter counts as heard when its reading is taken as it is.
const HEARD: &str = "SELECT CAST(coalesce(sum(n), 0) AS BIGINT) FROM
    (SELECT DISTINCT ON (area) n_measurements AS n FROM grid_quality ORDER BY area, event_time DESC)";
/// The newest rows: a minute may end between two readings, and then there is a past.
const STATE: &str = "SELECT DISTINCT ON (node_id, quantity, phase) area, node_id, phase, quantity, value, sigma, event_time
    FROM grid_state ORDER BY node_id, quantity, phase, event_time DESC";
/// Between an estimate and the same one made from a checkpoint and the log: what its steps leave.
const TOLERANCE: f64 = 1e-6;

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_that_is_put_over_rest_takes_over_and_stays() {
    let mut server = Server::with(&[("engine.heartbeat_s", "1"), ("engine.checkpoint_s", "1")]);
    let mut meters = Connection::open(server.addresses().mqtt, "meters", "meters", "any").await.unwrap();
    // before there is a grid: its meters begin with their latest readings
    send_readings(&mut meters).await;
    let files = ["network.json", "areas.csv", "meters.csv", "switches.csv"];
    let text = |file: &str| std::fs::read_to_string(bundle().join(file)).unwrap();
    let mut body: serde_json::Map<String, Value> = files.iter().map(|&file| (file.to_owned(), text(file).into())).collect();
    let put = |body: &serde_json::Map<String, Value>| Value::from(body.clone()).to_string();

    let mut broken = body.clone();
    broken.insert("areas.csv".to_owned(), "node_id,area\n1,mv1\n".into());
    let (status, problem) = server.put("/api/v1/grid", &put(&broken)).await;
    assert!(status == 400 && problem.contains("areas.csv"), "{status} {problem}");
    assert_eq!(server.get("/api/v1/grid").await.0, 404);

    body.insert("network.json".to_owned(), serde_json::from_str(&text("network.json")).unwrap());
    let (status, stored) = server.put("/api/v1/grid", &put(&body)).await;
    assert_eq!(status, 202, "{stored}");
    let stored: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!((&stored["nNodes"], &stored["areas"]), (&json!(4), &json!(["mv1", "mv1/lv1"])));
    server.wait_for_count(HEARD, 4, DEADLINE).await;
    // it is on record who did that
    let fingerprint = stored["fingerprint"].as_str().unwrap();
    assert!(
        fingerprint.len() == 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{stored}"
    );
    let records = "SELECT count(*) FROM alerts WHERE hardware_id = 'flexmeter-operator' AND type = 'grid.replaced'";
    server.wait_for_count(records, 1, DEADLINE).await;
    // a reading after the change is applied, too
    send_readings(&mut meters).await;
    server
        .wait_for_count("SELECT count(*) FROM measurements", 2 * 4 * 9, DEADLINE)
        .await;

    server.kill();
    server.start();
    server.wait_for_count(HEARD, 4, DEADLINE).await;
    assert_eq!(server.count("SELECT count(*) FROM nodes").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_is_estimated_operated_and_there_again_after_kill_9() {
    let bundle = bundle();
    // nobody is announced but by the bundle
    let nobody = tempfile::NamedTempFile::new().unwrap();
    // log time stands still between two looks: readings do not age meanwhile
    let settings = [
        ("grid.bundle", bundle.to_str().unwrap()),
        ("engine.heartbeat_s", "3600"),
        ("engine.checkpoint_s", "1"),
        ("devices.unknown", "reject"),
        ("devices.known_file", nobody.path().to_str().unwrap()),
    ];
    let mut server = Server::with(&settings);
    let mut watcher = Connection::open(server.addresses().mqtt, "watcher", "watcher", "any")
        .await
        .unwrap();
    watcher.subscribe("flexmeter/default/grid/#").await.unwrap();
    let mut meters = Connection::open(server.addresses().mqtt, "meters", "meters", "any").await.unwrap();
    send_readings(&mut meters).await;
    server.wait_for_count(HEARD, 4, DEADLINE).await;

    assert_eq!(server.count("SELECT count(*) FROM rejections").await, 0);

    for node in [4, 5] {
        let voltages = format!("SELECT value, sigma FROM ({STATE}) WHERE node_id = {node} AND quantity = 'voltage_v'");
        let rows = server.sql(&voltages).await;
        assert_eq!(rows.len(), 3);
        for row in &rows {
            let (value, sigma) = (number(row, "value"), number(row, "sigma"));
            assert!((value - 230.3).abs() < 2.0, "node {node}: {row}");
            assert!(sigma > 0.0 && sigma < 0.005 * 230.0, "not better than one meter alone: {row}");
        }
    }
    let names = server
        .sql("SELECT m.hardware_id, n.name FROM meters m JOIN nodes n ON n.node_id = m.node_id WHERE n.name IS NOT NULL ORDER BY 1")
        .await;
    assert_eq!(
        names,
        [
            json!({"hardware_id": "C-4", "name": "first house"}),
            json!({"hardware_id": "C-5", "name": "last house"})
        ]
    );
    let estimate = watcher.message_where("flexmeter/default/grid/mv1/lv1/estimate", |document| {
        document["quality"]["nMeasurements"] == 3
    });
    let estimate = estimate.await;
    assert!(
        (estimate["nodes"][1]["voltageV"][0].as_f64().unwrap() - 230.3).abs() < 2.0,
        "{estimate}"
    );

    // somebody opens the switch
    let (status, done) = server.put("/api/v1/grid/switches/22", r#"{"position":"open"}"#).await;
    assert_eq!(status, 202, "{done}");
    assert_eq!(serde_json::from_str::<Value>(&done).unwrap()["hardwareId"], "SW-22");
    let dark = format!("SELECT count(*) FROM ({STATE}) WHERE node_id = 5 AND value = 0");
    server.wait_for_count(&dark, 12, DEADLINE).await;
    let area = area(&server).await;
    assert_eq!(area["switches"][0]["position"], "open");
    assert_eq!(area["branches"][1]["closed"], false);
    let energised: Vec<_> = area["estimate"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| &node["energised"])
        .collect();
    assert_eq!(energised, [true, true, false], "{area}");
    let topology = watcher.message_where("flexmeter/default/grid/mv1/lv1/topology", |document| {
        document["switches"][0]["position"] == "open"
    });
    assert_eq!(topology.await["switches"][0]["hardwareId"], "SW-22");
    let alerts = "SELECT count(*) FROM alerts WHERE hardware_id = 'SW-22' AND type = 'switch.position'";
    server.wait_for_count(alerts, 1, DEADLINE).await;
    let (status, refusal) = server.put("/api/v1/grid/switches/7", r#"{"position":"open"}"#).await;
    assert_eq!(status, 404);
    assert!(refusal.contains("the switches: 22"), "{refusal}");

    let before = server.sql(STATE).await;
    server.kill();
    server.start();
    let after = server.sql(STATE).await;
    assert_eq!((before.len(), after.len()), (4 * 4 * 3, 4 * 4 * 3));
    for (before, after) in before.iter().zip(&after) {
        for key in ["area", "node_id", "phase", "quantity", "event_time"] {
            assert_eq!(before[key], after[key]);
        }
        for key in ["value", "sigma"] {
            let (a, b) = (number(before, key), number(after, key));
            assert!((a - b).abs() <= TOLERANCE * a.abs().max(1.0), "{before} has become {after}");
        }
    }
    assert_eq!(
        server.sql("SELECT branch_id, position FROM switches").await,
        [json!({"branch_id": 22, "position": "open"})]
    );
}

async fn area(server: &Server) -> Value {
    let (status, text) = server.get("/api/v1/grid/areas/mv1/lv1").await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} is no number in {row}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_not_listen_to_the_grid() {
    let server = Server::secure();
    let mut device = Connection::open(server.addresses().mqtt, "m-1", "m-1", &server.device_password("m-1"))
        .await
        .unwrap();
    assert!(device.subscribe("flexmeter/default/grid/#").await.is_err());
    let mut admin = Connection::open(server.addresses().mqtt, "service", "admin", ADMIN_PASSWORD)
        .await
        .unwrap();
    admin.subscribe("flexmeter/default/grid/#").await.unwrap();
}

#[test]
fn a_broken_bundle_is_a_configuration_error_that_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(FLEXMETER)
            .args(arguments)
            .current_dir(folder.path())
            .env("FLEXMETER__GRID__BUNDLE", &bundle)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let started = Instant::now();
    for command in [
        &["config", "check"][..],
        &[
            "up",
            "--insecure",
            "--mqtt",
            "127.0.0.1:0",
            "--rest",
            "127.0.0.1:0",
            "--flight",
            "127.0.0.1:0",
        ],
    ] {
        let _ = std::fs::remove_dir_all(&bundle);
        let (code, text) = run(command);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("grid.bundle = ") && text.contains("network.json"), "{text}");
        std::fs::create_dir(&bundle).unwrap();
        for file in ["network.json", "meters.csv", "switches.csv"] {
            std::fs::copy(self::bundle().join(file), bundle.join(file)).unwrap();
        }
        std::fs::write(bundle.join("areas.csv"), "node_id,area\n1,mv1\n99,mv1\n").unwrap();
        let (code, text) = run(command);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("areas.csv line 3: node 99 is not in network.json"), "{text}");
    }
    assert!(started.elapsed() < DEADLINE);
}
