use std::sync::Arc;

use axum::body::Body;
use flexmeter_model::decode::{Body as Said, Decoder};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::fixture::{Door, epoch_of_another_tenant, request};
use crate::rest::RestConfig;
use crate::rest::grid::{FaultInquiry, FaultRefusal};
use crate::session::fixture::{fault, minute, tenant};

/// Tenant and payload of what was put into the log.
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

/// The only message stored: its device, type and metadata.
fn alert(stored: &Stored) -> (String, String, Vec<(String, String)>) {
    let stored = stored.lock().clone();
    let [(tenant, payload)] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!(tenant, "default");
    let mut decoder = Decoder::new();
    let message = decoder.decode(payload).unwrap();
    let Said::Alert { alert_type, metadata, .. } = message.body else {
        panic!("no alert")
    };
    let metadata = metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    (message.hardware_id.to_string(), alert_type.to_string(), metadata)
}

fn ids(list: &Value, id: &str) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[id].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn outages_are_listed_the_newest_first_and_by_state() {
    let door = Door::new();
    for (query, expected) in [
        ("", &["out-3", "out-2", "out-1"][..]),
        ("?state=all", &["out-3", "out-2", "out-1"]),
        ("?state=open", &["out-3", "out-2"]),
        ("?state=closed", &["out-1"]),
    ] {
        let list = door.get(&format!("/api/v1/outages{query}")).await.json();
        assert_eq!(ids(&list, "outageId"), expected, "{query}");
        assert_eq!((&list["next"], &list["epoch"]), (&Value::Null, &json!(1)));
    }
    door.get("/api/v1/outages?state=ajar").await.problem(400, "invalid_parameter");
    let first = door.get("/api/v1/outages?limit=2").await;
    assert_eq!(ids(&first.json(), "outageId"), ["out-3", "out-2"]);
    assert!(first.header("link").contains("rel=\"next\""));
    let cursor = first.json()["next"].as_str().unwrap().to_owned();
    let second = door.get(&format!("/api/v1/outages?limit=2&cursor={cursor}")).await.json();
    assert_eq!(ids(&second, "outageId"), ["out-1"]);
}

#[tokio::test]
async fn one_outage_says_what_failed_and_who_is_out() {
    let door = Door::new();
    let outage = door.get("/api/v1/outages/out-2").await.json();
    assert_eq!(
        outage,
        json!({
            "outageId": "out-2", "state": "open", "area": "mv1/lv1", "feeder": 20, "device": "branch-21", "alternatives": ["node-3"],
            "nodeId": 3, "nCustomers": 1, "nCustomersOut": 1, "nGasps": 1, "openedAt": "2026-11-17T00:11:00Z",
            "reportedAt": "2026-11-17T00:12:00Z", "closedAt": null, "closedBecause": null, "confidence": 0.75, "acknowledged": false
        })
    );
    let over = door.get("/api/v1/outages/out-1").await.json();
    assert_eq!((&over["state"], &over["closedBecause"]), (&json!("closed"), &json!("restored")));
    let detail = door.get("/api/v1/outages/out-9").await.problem(404, "unknown_outage");
    assert!(detail.contains("out-1, out-2, out-3"), "{detail}");
}

#[tokio::test]
async fn a_decision_about_an_outage_is_an_alert_of_the_platform_in_the_log() {
    for (verb, kind) in [("acknowledge", "outage.acknowledged"), ("close", "outage.closed")] {
        let (door, stored) = door_with_log();
        let answer = door.post(&format!("/api/v1/outages/out-2/{verb}"), "application/json", "").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let done = answer.json();
        assert_eq!(
            (&done["subject"], &done["type"], &done["by"], &done["stateBefore"]),
            (&json!("out-2"), &json!(kind), &json!("admin"), &json!("open"))
        );
        let (device, alert_type, metadata) = alert(&stored);
        assert_eq!((device.as_str(), alert_type.as_str()), ("flexmeter-operator", kind));
        assert_eq!(
            metadata,
            [("subject", "out-2"), ("by", "admin")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
    }
}

#[tokio::test]
async fn what_is_over_can_be_acknowledged_and_not_closed() {
    let (door, stored) = door_with_log();
    let answer = door.post("/api/v1/outages/out-1/close", "application/json", "").await;
    let detail = answer.problem(409, "outage_closed");
    assert!(detail.contains("2026-11-17T00:06:00Z (restored)"), "{detail}");
    assert_eq!(answer.json()["state"], "closed");
    door.post("/api/v1/outages/out-9/close", "application/json", "")
        .await
        .problem(404, "unknown_outage");
    assert_eq!(stored.lock().len(), 0);
    let answer = door.post("/api/v1/outages/out-1/acknowledge", "application/json", "").await;
    assert_eq!((answer.status.as_u16(), stored.lock().len()), (202, 1));
}

#[tokio::test]
async fn reliability_has_a_row_for_each_feeder() {
    let door = Door::new();
    let items = door.get("/api/v1/reliability").await.json()["items"].clone();
    assert_eq!(
        items,
        json!([
            {"feeder": null, "nCustomers": 0, "nSustained": 0, "nMomentary": 0, "customerMin": 0.0, "saidiMin": null, "saifi": null,
             "caidiMin": null, "maifi": null},
            {"feeder": 20, "nCustomers": 4, "nSustained": 2, "nMomentary": 1, "customerMin": 11.0, "saidiMin": 2.75, "saifi": 0.5,
             "caidiMin": 5.5, "maifi": 0.25}
        ])
    );
}

#[tokio::test]
async fn a_proposal_is_shown_with_its_plan() {
    let door = Door::new();
    let list = door.get("/api/v1/reconfigurations").await.json();
    assert_eq!(ids(&list, "proposalId"), ["prop-2", "prop-1"]);
    let list = door.get("/api/v1/reconfigurations?state=rejected").await.json();
    assert_eq!(ids(&list, "proposalId"), ["prop-1"]);
    let detail = door
        .get("/api/v1/reconfigurations?state=waiting")
        .await
        .problem(400, "invalid_parameter");
    assert!(detail.contains("executing"), "{detail}");
    let one = door.get("/api/v1/reconfigurations/prop-2").await.json();
    assert_eq!(one["plan"], json!([{"branchId": 21, "hardwareId": "SW-21", "position": "closed"}]));
    assert_eq!(
        (
            &one["lossBeforeW"],
            &one["lossAfterW"],
            &one["lossD4_6W"],
            &one["voltageMinAfterPu"]
        ),
        (&json!(100.0), &json!(70.0), &json!(80.0), &json!(0.96875))
    );
    let detail = door
        .get("/api/v1/reconfigurations/prop-9")
        .await
        .problem(404, "unknown_reconfiguration");
    assert!(detail.contains("prop-1, prop-2"), "{detail}");
}

#[tokio::test]
async fn a_proposed_reconfiguration_is_accepted_or_rejected_once() {
    for (verb, kind) in [("accept", "reconfiguration.accepted"), ("reject", "reconfiguration.rejected")] {
        let (door, stored) = door_with_log();
        let path = |id: &str| format!("/api/v1/reconfigurations/{id}/{verb}");
        let answer = door.post(&path("prop-1"), "application/json", "").await;
        let detail = answer.problem(409, "not_proposed");
        assert!(detail.contains("is rejected since") && detail.contains("by ada"), "{detail}");
        assert_eq!((&answer.json()["state"], stored.lock().len()), (&json!("rejected"), 0));
        let answer = door.post(&path("prop-2"), "application/json", "").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["stateBefore"]), (202, &json!("proposed")));
        assert_eq!(alert(&stored).1, kind);
    }
}

#[tokio::test]
async fn a_proposal_past_its_time_is_not_accepted() {
    let (mut door, stored) = door_with_log();
    let mut epoch = door.rows.epoch(|_| Vec::new());
    epoch.partitions[0].log_time = minute(74);
    door.live.apply(&epoch);
    let answer = door.post("/api/v1/reconfigurations/prop-2/accept", "application/json", "").await;
    answer.problem(409, "not_proposed");
    assert_eq!((&answer.json()["state"], stored.lock().len()), (&json!("expired"), 0));
}

#[tokio::test]
async fn a_decision_that_is_not_stored_is_not_promised() {
    let door = Door::with(RestConfig::default(), |state| {
        state.log = Arc::new(|_, _| Box::pin(async { Err("the disk is full".to_owned()) }));
    });
    for path in ["outages/out-2/close", "reconfigurations/prop-2/accept", "grid/fault-records"] {
        let answer = door.post(&format!("/api/v1/{path}"), "application/json", "{}").await;
        assert!(answer.problem(503, "not_ready").contains("the disk is full"), "{path}");
    }
}

#[tokio::test]
async fn faults_are_shown_with_their_candidates() {
    let door = Door::new();
    let list = door.get("/api/v1/faults").await.json();
    assert_eq!(ids(&list, "faultId"), ["fault-1"]);
    let one = door.get("/api/v1/faults/fault-1").await.json();
    assert_eq!((&one["faultType"], &one["candidates"][0]["farNode"]), (&json!("BG"), &json!(3)));
    assert_eq!((&one["nGasps"], &one["sentBy"]), (&json!(1), &json!("ada")));
    let detail = door.get("/api/v1/faults/fault-2").await.problem(404, "unknown_fault");
    assert!(detail.contains("the faults: fault-1"), "{detail}");
}

#[tokio::test]
async fn a_record_is_located_with_what_is_known_beside_it_and_put_into_the_log() {
    let (asked, stored) = (Arc::new(Mutex::new(Vec::<FaultInquiry>::new())), Stored::default());
    let (asks, log) = (asked.clone(), stored.clone());
    let door = Door::with(RestConfig::default(), |state| {
        state.log = Arc::new(move |tenant, message| {
            log.lock().push((tenant.to_string(), serde_json::to_vec(&message).unwrap()));
            Box::pin(async { Ok(()) })
        });
        state.faults = Arc::new(move |inquiry| {
            asks.lock().push(inquiry);
            Box::pin(async { Ok(fault()) })
        });
    });
    let path = "/api/v1/grid/fault-records?eventTime=2026-11-17T00:11:02Z";
    let answer = door.post(path, "application/json", "{\"head\":{\"node\":1}}").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let located = answer.json();
    let id = located["faultId"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/faults/{id}"));
    assert_eq!(
        (&located["branchId"], &located["candidates"][0]["probability"]),
        (&json!(21), &json!(0.75))
    );
    assert_eq!(
        asked.lock()[..],
        [FaultInquiry {
            tenant: tenant(),
            record: "{\"head\":{\"node\":1}}".to_owned(),
            positions: vec![(20, true), (21, false)],
            dark_from: vec![3],
            at: flexmeter_model::EventTime::from_micros(minute(11).micros() + 2_000_000),
            by: "admin".to_owned(),
        }]
    );
    let (device, alert_type, metadata) = alert(&stored);
    assert_eq!((device.as_str(), alert_type.as_str()), ("flexmeter-operator", "fault.located"));
    assert!(metadata.contains(&("subject".to_owned(), id.to_owned())), "{metadata:?}");
}

#[tokio::test]
async fn a_record_that_leads_to_no_fault_is_refused_with_the_reason() {
    for (refusal, status, code) in [
        (
            FaultRefusal::Record("frequency_hz: 16.7 is no grid's".to_owned()),
            400,
            "invalid_body",
        ),
        (
            FaultRefusal::NotLocated("nothing has changed at the head".to_owned()),
            422,
            "fault_not_located",
        ),
        (FaultRefusal::Busy(2), 503, "overloaded"),
    ] {
        let expected = refusal.to_string();
        let door = Door::with(RestConfig::default(), |state| {
            state.faults = Arc::new(move |_| {
                let refusal = refusal.clone();
                Box::pin(async { Err(refusal) })
            });
            state.log = Arc::new(|_, _| panic!("nothing is stored"));
        });
        let detail = door
            .post("/api/v1/grid/fault-records", "application/json", "{}")
            .await
            .problem(status, code);
        assert_eq!(detail, expected);
    }
    let door = Door::new();
    for path in [
        "?eventTime=yesterday",
        "?eventTime=9000-01-01T00:00:00Z",
        "?eventTime=1969-07-20T20:17:40Z",
        "?when=now",
    ] {
        door.post(&format!("/api/v1/grid/fault-records{path}"), "application/json", "{}")
            .await
            .problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn another_tenant_sees_none_of_it() {
    let door = Door::new();
    door.live.apply(&epoch_of_another_tenant(1.0));
    for (method, path) in [
        ("GET", "outages"),
        ("GET", "outages/out-2"),
        ("POST", "outages/out-2/close"),
        ("GET", "reliability"),
        ("GET", "reconfigurations/prop-2"),
        ("POST", "reconfigurations/prop-2/accept"),
        ("GET", "faults"),
        ("POST", "grid/fault-records"),
    ] {
        let headers = [("x-flexmeter-tenant", "other")];
        let answer = door
            .send(request(method, &format!("/api/v1/{path}"), &headers, Body::empty()))
            .await;
        answer.problem(404, "unknown_grid");
    }
}
