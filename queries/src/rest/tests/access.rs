use axum::body::Body;
use axum::http::Request;

use super::fixture::{Door, epoch_of_another_tenant, request};

#[tokio::test]
async fn nobody_sees_data_without_credentials() {
    let door = Door::new();
    let document = door.get("/api/openapi.json").await.json();
    let mut n_protected = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{hardwareId}", "m-0");
            for credentials in [
                None,
                Some("Basic YWRtaW46d3Jvbmc="),
                Some("Bearer AAAA"),
                Some("Digest x"),
                Some("\u{ff}"),
            ] {
                let mut request = Request::builder().method(method.to_uppercase().as_str()).uri(&path);
                if let Some(credentials) = credentials {
                    request = request.header("authorization", credentials.as_bytes());
                }
                let answer = door.send(request.body(Body::empty()).unwrap()).await;
                if !path.starts_with("/api/v1/") {
                    assert_eq!(answer.status, 200, "{path} is open");
                    continue;
                }
                n_protected += 1;
                answer.problem(401, "unauthorized");
                let challenges: Vec<_> = answer
                    .headers
                    .get_all("www-authenticate")
                    .iter()
                    .map(|value| value.to_str().unwrap())
                    .collect();
                assert!(
                    challenges.iter().any(|challenge| challenge.starts_with("Basic realm=")),
                    "{challenges:?}"
                );
                assert!(
                    challenges.iter().any(|challenge| challenge.starts_with("Bearer realm=")),
                    "{challenges:?}"
                );
            }
        }
    }
    assert!(n_protected >= 50, "{n_protected}");
}

#[tokio::test]
async fn a_login_gives_a_token_that_opens_the_door() {
    let door = Door::new();
    let anonymous = |content_type: &str, body: &'static str| {
        let request = Request::builder()
            .method("POST")
            .uri("/api/v1/login")
            .header("content-type", content_type);
        door.send(request.body(Body::from(body)).unwrap())
    };
    let by_json = anonymous("application/json", r#"{"username":"admin","password":"secret"}"#).await;
    let by_basic = door.post("/api/v1/login", "application/json", "").await;
    for answer in [by_json, by_basic] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("cache-control"), "no-store");
        let body = answer.json();
        assert_eq!(body["token_type"], "Bearer");
        assert!(body["expires_in"].as_u64().unwrap() > 0);
        let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
        let request = Request::builder()
            .uri("/api/v1/devices")
            .header("authorization", bearer)
            .body(Body::empty())
            .unwrap();
        assert_eq!(door.send(request).await.status, 200);
    }
    anonymous("application/json", r#"{"username":"admin","password":"wrong"}"#)
        .await
        .problem(401, "unauthorized");
    anonymous("application/json", "").await.problem(401, "unauthorized");
    door.post("/api/v1/login", "application/json", "{}")
        .await
        .problem(400, "invalid_body");
    let detail = anonymous("application/json", r#"{"username":"admin","password":7331}"#)
        .await
        .problem(400, "invalid_body");
    assert!(!detail.contains("7331"), "{detail} repeats the password");
}

#[tokio::test]
async fn an_administrator_chooses_the_tenant() {
    let door = Door::new();
    door.live.apply(&epoch_of_another_tenant(1.0));
    let in_tenant =
        |tenant: &'static str, path: &'static str| door.send(request("GET", path, &[("x-flexmeter-tenant", tenant)], Body::empty()));

    assert_eq!(
        in_tenant("default", "/api/v1/devices").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        in_tenant("other", "/api/v1/devices").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    in_tenant("other", "/api/v1/devices/m-2/latest")
        .await
        .problem(404, "unknown_device");
    in_tenant("nobody", "/api/v1/devices").await.problem(404, "unknown_tenant");
    in_tenant("a/b", "/api/v1/devices").await.problem(404, "unknown_tenant");
    let headers = [("x-flexmeter-tenant", "other"), ("content-type", "text/plain")];
    let counted = door
        .post_with("/api/v1/sql", &headers, "SELECT count(DISTINCT hardware_id) AS n FROM latest")
        .await;
    assert_eq!(counted.text(), r#"[{"n":1}]"#);
}
