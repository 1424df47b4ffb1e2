use std::sync::Arc;

use axum::body::Body;
use flexmeter_model::decode::{Body as Said, Decoder};
use parking_lot::Mutex;
use serde_json::json;

use super::fixture::{Door, epoch_of_another_tenant, request};
use crate::rest::RestConfig;

/// What was put into the log: tenant and payload.
type Stored = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

fn door_with_log() -> (Door, Stored) {
    let stored = Stored::default();
    let log = stored.clone();
    let door = Door::with(RestConfig::default(), |state| {
        state.log = Arc::new(move |tenant, message| {
            log.lock().push((tenant.to_string(), serde_json::to_vec(&message).unwrap()));
            Box::pin(async { Ok(()) })
        });
    });
    (door, stored)
}

#[tokio::test]
async fn the_grid_has_areas_with_quality_and_switches_as_they_stand() {
    let door = Door::new();
    let grid = door.get("/api/v1/grid").await.json();
    assert_eq!(
        (grid["threePhase"].as_bool(), grid["nNodes"].as_u64(), grid["nMeters"].as_u64()),
        (Some(true), Some(3), Some(1))
    );
    let area = &grid["areas"][1];
    assert_eq!((&area["area"], &area["parent"]), (&json!("mv1/lv1"), &json!("mv1")));
    assert_eq!(area["quality"]["suspects"], json!(["m-0"]));
    assert_eq!(grid["switches"][0]["position"], "closed");
    assert_eq!(grid["switches"][0]["eventTime"], json!(null));
    assert_eq!(
        (&grid["switches"][1]["position"], &grid["switches"][1]["normalPosition"]),
        (&json!("open"), &json!("closed"))
    );
}

#[tokio::test]
async fn an_area_is_found_by_its_path_with_topology_and_state() {
    let door = Door::new();
    let area = door.get("/api/v1/grid/areas/mv1/lv1").await.json();
    assert_eq!(area["area"], "mv1/lv1");
    assert_eq!(area["nodes"][0]["name"], "busbar");
    assert_eq!(
        (&area["branches"][1]["branchId"], &area["branches"][1]["closed"]),
        (&json!(21), &json!(false)),
        "the switch is open now"
    );
    assert_eq!(area["meters"][0]["hardwareId"], "m-0");
    let state = &area["estimate"]["nodes"];
    assert_eq!(state[0]["voltageV"], json!([230.0, 229.0, 228.0]));
    assert_eq!(state[0]["voltageSigmaV"], json!([0.23, 0.23, 0.23]));
    assert_eq!(
        (&state[1]["energised"], &state[1]["voltageV"]),
        (&json!(false), &json!([0.0, 0.0, 0.0]))
    );
    let top = door.get("/api/v1/grid/areas/mv1").await.json();
    assert_eq!((&top["children"], &top["parent"]), (&json!(["mv1/lv1"]), &json!(null)));
    let detail = door.get("/api/v1/grid/areas/mv1/lv9").await.problem(404, "unknown_area");
    assert!(detail.contains("mv1, mv1/lv1"), "{detail}");
}

#[tokio::test]
async fn a_switch_operation_is_an_alert_of_the_switchs_device_in_the_log() {
    let (door, stored) = door_with_log();
    let answer = door.put("/api/v1/grid/switches/21", r#"{"position":"closed"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let done = answer.json();
    assert_eq!(
        (&done["hardwareId"], &done["position"], &done["positionBefore"]),
        (&json!("SW-21"), &json!("closed"), &json!("open"))
    );
    let stored = stored.lock().clone();
    let [(tenant, payload)] = &stored[..] else { panic!("{stored:?}") };
    let mut decoder = Decoder::new();
    let message = decoder.decode(payload).unwrap();
    assert_eq!((tenant.as_str(), &*message.hardware_id), ("default", "SW-21"));
    let Said::Alert { alert_type, metadata, .. } = message.body else {
        panic!("no alert")
    };
    assert_eq!(alert_type, "switch.position");
    let position = metadata.iter().find(|(name, _)| name == "position").unwrap();
    assert_eq!(position.1, "closed");
    // the device has its own name where the file gives none
    let answer = door.put("/api/v1/grid/switches/20", r#"{"position":"open"}"#).await;
    assert_eq!(answer.json()["hardwareId"], "branch-20");
}

#[tokio::test]
async fn what_cannot_be_operated_is_refused_and_stores_nothing() {
    let (door, stored) = door_with_log();
    let detail = door
        .put("/api/v1/grid/switches/22", r#"{"position":"open"}"#)
        .await
        .problem(404, "unknown_switch");
    assert!(detail.contains("20, 21"), "{detail}");
    door.put("/api/v1/grid/switches/x", r#"{"position":"open"}"#)
        .await
        .problem(400, "invalid_parameter");
    for body in ["", "{}", r#"{"position":"ajar"}"#, r#"{"position":"open","force":true}"#] {
        let detail = door.put("/api/v1/grid/switches/21", body).await.problem(400, "invalid_body");
        assert!(detail.contains(r#"{"position":"open"}"#), "{detail}");
    }
    assert_eq!(stored.lock().len(), 0);
}

#[tokio::test]
async fn an_operation_that_is_not_stored_is_not_promised() {
    let door = Door::with(RestConfig::default(), |state| {
        state.log = Arc::new(|_, _| Box::pin(async { Err("the disk is full".to_owned()) }));
    });
    let detail = door
        .put("/api/v1/grid/switches/21", r#"{"position":"open"}"#)
        .await
        .problem(503, "not_ready");
    assert!(detail.contains("the disk is full"), "{detail}");
}

#[tokio::test]
async fn a_tenant_without_a_grid_is_told_how_to_get_one() {
    let door = Door::new();
    door.live.apply(&epoch_of_another_tenant(1.0));
    for path in ["/api/v1/grid", "/api/v1/grid/areas/mv1"] {
        let answer = door
            .send(request("GET", path, &[("x-flexmeter-tenant", "other")], Body::empty()))
            .await;
        let detail = answer.problem(404, "unknown_grid");
        assert!(detail.contains("grid.bundle"), "{detail}");
    }
}
