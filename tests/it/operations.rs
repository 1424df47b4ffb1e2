//! What operators and substations send over REST: into the log as alerts of the platform's own device, whose name nobody else can use.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mqtt::Connection;
use crate::server::Server;

const DEADLINE: Duration = Duration::from_secs(30);

/// A bundle of the feeder that the fault records are of: all nodes in one area, no meters.
fn feeder() -> tempfile::TempDir {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/grid/test_data/fault/feeder_34");
    let folder = tempfile::tempdir().unwrap();
    for file in ["network.json", "lines.csv"] {
        std::fs::copy(case.join(file), folder.path().join(file)).unwrap();
    }
    let network: Value = serde_json::from_str(&std::fs::read_to_string(case.join("network.json")).unwrap()).unwrap();
    let nodes = network["data"]["node"].as_array().unwrap().iter();
    let areas: String = nodes.map(|node| format!("{},mv1\n", node["id"])).collect();
    for (file, text) in [
        ("areas.csv", format!("node_id,area\n{areas}")),
        ("meters.csv", "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\n".to_owned()),
        ("switches.csv", "branch_id,normal,controllable,hardware_id\n".to_owned()),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_record_is_located_and_stored_in_the_platforms_name() {
    let bundle = feeder();
    let nobody = tempfile::NamedTempFile::new().unwrap();
    let server = Server::with(&[
        ("grid.bundle", bundle.path().to_str().unwrap()),
        ("devices.unknown", "reject"),
        ("devices.known_file", nobody.path().to_str().unwrap()),
    ]);
    let record = include_str!("../../core/grid/test_data/fault/feeder_34/record.json");
    let (status, text) = server.post("/api/v1/grid/fault-records", record).await;
    assert_eq!(status, 201, "{text}");
    let fault: Value = serde_json::from_str(&text).unwrap();
    // simulated by OpenDSS: phase a to ground on branch 1003
    assert_eq!(
        (&fault["branchId"], &fault["faultType"], &fault["area"]),
        (&json!(1003), &json!("AG"), &json!("mv1"))
    );
    let alerts = "SELECT count(*) FROM alerts WHERE hardware_id = 'flexmeter-operator' AND type = 'fault.located'";
    server.wait_for_count(alerts, 1, DEADLINE).await;
    let (status, text) = server.post("/api/v1/grid/fault-records", "{}").await;
    assert_eq!(status, 400, "{text}");
    let (status, text) = server.post("/api/v1/outages/nothing/close", "").await;
    assert!(status == 404 && text.contains("unknown_outage"), "{text}");
    assert_eq!(server.count("SELECT count(*) FROM rejections").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_over_mqtt() {
    let server = Server::insecure();
    let mut gateway = Connection::open(server.addresses().mqtt, "gw", "admin", "any").await.unwrap();
    let decision = json!({"hardwareId": "flexmeter-operator", "type": "DeviceAlert",
        "request": {"type": "outage.closed", "metadata": {"subject": "1", "by": "mallory"}}});
    let payload = decision.to_string();
    gateway
        .publish("flexmeter/default/gw/events", payload.as_bytes(), false)
        .await
        .unwrap();
    gateway.publish("SiteWhere/input/json", payload.as_bytes(), false).await.unwrap();
    let rejected = "SELECT count(*) FROM rejections WHERE reason = 'identity_mismatch'";
    server.wait_for_count(rejected, 2, DEADLINE).await;
    assert_eq!(server.count("SELECT count(*) FROM alerts").await, 0);
    let own = "flexmeter/default/flexmeter-operator/events";
    assert!(
        gateway.publish(own, payload.as_bytes(), false).await.is_err(),
        "the connection is closed"
    );
}
