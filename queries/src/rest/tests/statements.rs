use axum::body::{Body, to_bytes};
use tower::ServiceExt as _;

use super::fixture::{Door, measurements, request};
use crate::live::test_rows::identifier;
use crate::rest::RestConfig;

#[tokio::test]
async fn a_statement_answers_in_the_wanted_format() {
    let door = Door::new();
    let ask = |accept: &'static str| {
        let headers = [("content-type", "text/plain"), ("accept", accept)];
        door.send(request(
            "POST",
            "/api/v1/sql",
            &headers,
            Body::from("SELECT hardware_id, value FROM latest WHERE value >= 1 ORDER BY 1"),
        ))
    };
    let json = ask("*/*").await;
    assert_eq!(json.header("content-type"), "application/json");
    assert_eq!(
        json.text(),
        r#"[{"hardware_id":"m-1","value":1.0},{"hardware_id":"m-2","value":2.0}]"#
    );
    let csv = ask("text/csv").await;
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert_eq!(csv.text(), "hardware_id,value\nm-1,1.0\nm-2,2.0\n");
    let arrow = ask("application/vnd.apache.arrow.stream").await;
    assert_eq!(arrow.header("content-type"), "application/vnd.apache.arrow.stream");
    let rows: usize = arrow::ipc::reader::StreamReader::try_new(arrow.body.as_ref(), None)
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 2);
    ask("image/png").await.problem(406, "not_acceptable");
}

#[tokio::test]
async fn parameters_are_bound() {
    let door = Door::new();
    let body = serde_json::json!({
        "sql": "SELECT hardware_id FROM latest WHERE identifier = $1 AND value > $2 AND event_time < $3 ORDER BY 1",
        "parameters": [identifier(0).name(), 0.5, "1970-01-01T00:00:02Z"],
    });
    let answer = door.post("/api/v1/sql", "application/json", &body.to_string()).await;
    assert_eq!(answer.text(), r#"[{"hardware_id":"m-1"},{"hardware_id":"m-2"}]"#);
    let body = r#"{"sql": "SELECT $1 AS x", "parameters": []}"#;
    door.post("/api/v1/sql", "application/json", body)
        .await
        .problem(400, "sql_parameters");
}

#[tokio::test]
async fn an_empty_result_is_an_empty_array() {
    let door = Door::new();
    let answer = door.post("/api/v1/sql", "text/plain", "SELECT * FROM measurements").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "[]"));
}

#[tokio::test]
async fn a_statement_that_fails_says_why() {
    let door = Door::new();
    let fail = |sql: &'static str| door.post("/api/v1/sql", "text/plain", sql);
    let detail = fail("SELEC 1").await.problem(400, "sql_invalid");
    assert!(detail.contains("SELEC"), "{detail}");
    let detail = fail("SELECT nothing FROM latest").await.problem(400, "sql_invalid");
    assert!(detail.contains("nothing"), "{detail}");
    fail("SELECT 1 / (value - value) FROM (SELECT CAST(1 AS BIGINT) AS value FROM latest)")
        .await
        .problem(400, "sql_invalid");
    fail("DROP TABLE latest").await.problem(400, "sql_read_only");
    fail(" ").await.problem(400, "invalid_body");
}

#[tokio::test]
async fn more_rows_than_the_limit_are_an_error_not_a_part() {
    let door = Door::with(
        RestConfig {
            sql_rows_max: 5,
            ..RestConfig::default()
        },
        |_| {},
    );
    let detail = door
        .post("/api/v1/sql", "text/plain", "SELECT * FROM latest")
        .await
        .problem(400, "sql_too_many_rows");
    assert!(detail.contains("LIMIT"), "{detail}");
    assert_eq!(
        door.post("/api/v1/sql", "text/plain", "SELECT * FROM latest LIMIT 5").await.status,
        200
    );
}

#[tokio::test]
async fn an_answer_that_fails_later_is_broken_off() {
    let door = Door::with(
        RestConfig {
            sql_rows_max: 20_000,
            ..RestConfig::default()
        },
        |_| {},
    );
    let readings: Vec<_> = (0..10_000).map(|n| (n, 0, n)).collect();
    for _ in 0..3 {
        door.history.add("measurements", measurements(&readings));
    }
    let request = request(
        "POST",
        "/api/v1/sql",
        &[("content-type", "text/plain")],
        Body::from("SELECT log_offset FROM measurements"),
    );
    let response = door.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200, "the answer had begun");
    assert!(
        to_bytes(response.into_body(), usize::MAX).await.is_err(),
        "and does not end as if it were whole"
    );
}

#[tokio::test]
async fn an_answer_may_be_compressed() {
    let door = Door::new();
    let headers = [("content-type", "text/plain"), ("accept-encoding", "gzip")];
    let answer = door.post_with("/api/v1/sql", &headers, "SELECT * FROM latest").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, "gzip"));
    assert_eq!(&answer.body[..2], &[0x1f, 0x8b]);
}

#[tokio::test]
async fn a_large_answer_comes_whole() {
    let door = Door::new();
    let readings: Vec<_> = (0..10_000).map(|n| (n, 0, n)).collect();
    for _ in 0..3 {
        door.history.add("measurements", measurements(&readings));
    }
    let answer = door.post("/api/v1/sql", "text/plain", "SELECT log_offset FROM measurements").await;
    assert_eq!(answer.json().as_array().unwrap().len(), 30_000);
}
