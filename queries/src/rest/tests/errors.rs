use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;

use super::fixture::{Door, request};
use crate::rest::RestConfig;
use crate::rest::limits::BODY_LEN_MAX;

#[tokio::test]
async fn a_wrong_address_or_method_is_a_problem() {
    let door = Door::new();
    let detail = door.get("/api/v1/meters").await.problem(404, "not_found");
    assert!(detail.contains("/api/v1/meters"), "{detail}");
    let answer = door.post("/api/v1/devices", "application/json", "{}").await;
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET,HEAD");
    // A method that does not exist is refused as such, whoever asks and for whatever tenant.
    let trace = request("TRACE", "/api/v1/totals", &[("x-flexmeter-tenant", "nobody")], Body::empty());
    door.send(trace).await.problem(405, "method_not_allowed");
    let head = door.send(request("HEAD", "/nowhere", &[], Body::empty())).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (404, 0));
}

#[tokio::test]
async fn a_wrong_parameter_is_named() {
    let door = Door::new();
    for (path, part) in [
        ("/api/v1/devices?form=1", "unknown field `form`"),
        ("/api/v1/devices?limit=0", "limit: \"0\" is not a whole number from 1 to 10000"),
        ("/api/v1/devices?limit=10001", "limit: \"10001\" is not"),
        (
            "/api/v1/devices?limit=many",
            "limit: \"many\" is not a whole number from 1 to 10000",
        ),
        ("/api/v1/devices?limit=1&limit=2", "duplicate field"),
        ("/api/v1/devices/m-0/measurements?cursor=WyJkZXZpY2VzIiwibS0wIl0", "cursor: "),
        ("/api/v1/devices?cursor=nonsense", "cursor: "),
        ("/api/v1/devices/m-0/measurements?from=yesterday", "from: "),
        ("/api/v1/devices/m-0/measurements?to=2016-02-10T19:40:03+02:00", "%2B"),
        (
            "/api/v1/devices/m-0/measurements?from=2016-02-11T00:00:00Z&to=2016-02-10T00:00:00Z",
            "is after `to`",
        ),
        ("/api/v1/devices/m-0/measurements?identifier=x", "identifier: "),
        ("/api/v1/devices/m-0/load-profile?identifier=x", "identifier: "),
        ("/api/v1/rejections?reason=bad_luck", "malformed_json"),
        ("/api/v1/stream?device=m-0", "unknown field `device`"),
        ("/api/v1/stream?hardwareId=a/b", "hardwareId: "),
        ("/api/v1/devices/%ff/latest", "hardwareId: "),
    ] {
        let detail = door.get(path).await.problem(400, "invalid_parameter");
        assert!(detail.contains(part), "{path}: {detail} does not say {part:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_by_kind() {
    let door = Door::new();
    door.post("/api/v1/sql", "application/json", &"x".repeat(BODY_LEN_MAX + 1))
        .await
        .problem(413, "body_too_large");
    door.post("/api/v1/sql", "application/xml", "<sql/>")
        .await
        .problem(415, "unsupported_media_type");
    door.post("/api/v1/sql", "application/json", "{\"sql\": ")
        .await
        .problem(400, "invalid_body");
    door.get_with("/api/v1/devices/m-0/measurements", &[("accept", "image/png")])
        .await
        .problem(406, "not_acceptable");
}

#[tokio::test]
async fn a_panic_is_an_answer_and_says_nothing_about_the_inside() {
    let door = Door::with(RestConfig::default(), |state| {
        state.readiness = Arc::new(|| panic!("index out of bounds of the secret table"));
    });
    let detail = door.get("/readyz").await.problem(500, "internal");
    assert!(!detail.contains("secret"), "{detail}");
    assert_eq!(door.get("/healthz").await.status, 200, "the server goes on");
}

#[tokio::test]
async fn a_request_that_never_ends_is_ended() {
    let door = Door::with(
        RestConfig {
            request_timeout: Duration::from_millis(50),
            ..RestConfig::default()
        },
        |_| {},
    );
    let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let request = axum::http::Request::builder()
        .method("POST")
        .uri("/api/v1/login")
        .body(endless)
        .unwrap();
    door.send(request).await.problem(504, "timeout");
}

#[tokio::test]
async fn more_requests_than_the_limit_are_told_to_come_back() {
    let door = Door::with(
        RestConfig {
            requests_max: 0,
            ..RestConfig::default()
        },
        |_| {},
    );
    let answer = door.get("/healthz").await;
    answer.problem(503, "overloaded");
    assert_eq!(answer.header("retry-after"), "1");
}
