use std::collections::BTreeSet;

use axum::body::Body;
use serde_json::Value;

use super::fixture::{Door, request};

/// Every route there is. A new one must be added here, which makes its author see that the document has it.
const ROUTES: [&str; 31] = [
    "GET /",
    "GET /api/openapi.json",
    "GET /api/v1/devices",
    "GET /api/v1/devices/{hardwareId}",
    "GET /api/v1/devices/{hardwareId}/latest",
    "GET /api/v1/devices/{hardwareId}/load-profile",
    "GET /api/v1/devices/{hardwareId}/measurements",
    "GET /api/v1/faults",
    "GET /api/v1/faults/{faultId}",
    "GET /api/v1/grid",
    "GET /api/v1/grid/areas/{area}",
    "GET /api/v1/outages",
    "GET /api/v1/outages/{outageId}",
    "GET /api/v1/reconfigurations",
    "GET /api/v1/reconfigurations/{proposalId}",
    "GET /api/v1/rejections",
    "GET /api/v1/reliability",
    "GET /api/v1/stream",
    "GET /api/v1/totals",
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "POST /api/v1/grid/fault-records",
    "POST /api/v1/login",
    "POST /api/v1/outages/{outageId}/acknowledge",
    "POST /api/v1/outages/{outageId}/close",
    "POST /api/v1/reconfigurations/{proposalId}/accept",
    "POST /api/v1/reconfigurations/{proposalId}/reject",
    "POST /api/v1/sql",
    "PUT /api/v1/grid",
    "PUT /api/v1/grid/switches/{branchId}",
];

async fn document() -> Value {
    Door::new().get("/api/openapi.json").await.json()
}

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation));
        }
    }
    operations
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_routes() {
    let document = document().await;
    let documented: BTreeSet<_> = operations(&document)
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(documented, ROUTES.iter().map(|route| (*route).to_owned()).collect());
    let door = Door::new();
    for (method, path, _) in operations(&document) {
        let path = path
            .replace("{hardwareId}", "m-0")
            .replace("{area}", "mv1/lv1")
            .replace("{branchId}", "21")
            .replace("{outageId}", "out-2")
            .replace("{proposalId}", "prop-2")
            .replace("{faultId}", "fault-1");
        if path == "/api/v1/stream" {
            continue; // has no end; the stream's own tests reach it
        }
        let answer = door.send(request(&method, &path, &[], Body::empty())).await;
        assert!(
            !matches!(answer.status.as_u16(), 404 | 405),
            "{method} {path} is documented but not served: {}",
            answer.text()
        );
        let wrong = door.send(request("DELETE", &path, &[], Body::empty())).await;
        assert!(!wrong.header("allow").is_empty());
        wrong.problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_complete() {
    let document = document().await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    for scheme in ["basic", "bearer"] {
        assert_eq!(document["components"]["securitySchemes"][scheme]["scheme"], scheme);
    }
    let tags: BTreeSet<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let place = format!("{method} {path}");
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_else(|| panic!("{place} has no operationId"));
        assert!(ids.insert(id), "{place}: operationId {id} is taken");
        assert!(operation["summary"].is_string(), "{place} has no summary");
        assert!(
            tags.contains(operation["tags"][0].as_str().unwrap()),
            "{place}: {}",
            operation["tags"]
        );
        let responses = operation["responses"].as_object().unwrap();
        let succeeds = responses.keys().any(|status| status.starts_with('2'));
        assert!(succeeds && responses.contains_key("default"), "{place}");
        for response in responses.values() {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(
                parameter["name"].is_string() && parameter["in"].is_string() && parameter["schema"].is_object(),
                "{place}: {parameter}"
            );
            assert!(parameter["description"].is_string(), "{place}: {parameter}");
        }
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')) {
            let name = name.trim_end_matches('}');
            let found = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == name && p["in"] == "path" && p["required"] == true);
            assert!(found, "{place} does not declare {name}");
        }
        if path.starts_with("/api/v1/") && path != "/api/v1/login" {
            assert_eq!(operation["security"].as_array().unwrap().len(), 2, "{place}");
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    fn visit(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} leads nowhere");
                }
                members.values().for_each(|member| visit(member, document));
            }
            Value::Array(items) => items.iter().for_each(|item| visit(item, document)),
            _ => {}
        }
    }
    let document = document().await;
    visit(&document, &document);
}
