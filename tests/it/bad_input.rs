//! Bad input: each piece ends as one `rejections` row with its code, or as a publish that is refused; never as a stopped stream.

use std::time::Duration;

use serde_json::Value;

use crate::mqtt::Connection;
use crate::server::Server;

const APPLIED_DEADLINE: Duration = Duration::from_secs(30);
const PAYLOAD_LEN_MAX: usize = 1024 * 1024;
const VOLTAGE: &str = "electricity.voltage.rms.l1";

/// A bad payload of its own device, and the reasons it must be rejected for (one row each).
struct Case {
    name: &'static str,
    payload: Vec<u8>,
    reasons: &'static [&'static str],
}

fn case(name: &'static str, payload: impl Into<Vec<u8>>, reasons: &'static [&'static str]) -> Case {
    Case {
        name,
        payload: payload.into(),
        reasons,
    }
}

/// A message of device `bad` with these measurements (JSON) and this date.
fn message(measurements: &str, event_date: &str) -> String {
    format!(
        r#"{{"hardwareId":"bad","type":"DeviceMeasurements","request":{{"measurements":{measurements},"updateState":true,"eventDate":{event_date}}}}}"#
    )
}

const DATE: &str = r#""2026-11-16T08:00:00Z""#;

fn cases() -> Vec<Case> {
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = message(
        &format!(r#"{{"{VOLTAGE}":{}1{}}}"#, "{\"a\":".repeat(50_000), "}".repeat(50_000)),
        DATE,
    );
    let mut not_utf8 = message("{}", DATE).into_bytes();
    let at = not_utf8.len() - 30;
    not_utf8[at] = 0xff;
    let long_identifier = "x".repeat(900_000);
    let filler = "x".repeat(PAYLOAD_LEN_MAX);
    vec![
        case("empty payload", "", &["malformed_json"]),
        case("no JSON", "hello", &["malformed_json"]),
        case("cut off", &message("{}", DATE).as_bytes()[..60], &["malformed_json"]),
        case("two values", format!("{0}{0}", message("{}", DATE)), &["malformed_json"]),
        case("a number", "42", &["wrong_shape"]),
        case("a text", r#""hello""#, &["wrong_shape"]),
        case("null", "null", &["wrong_shape"]),
        case(
            "no hardwareId",
            r#"{"type":"DeviceMeasurements","request":{"measurements":{}}}"#,
            &["missing_field"],
        ),
        case(
            "no type",
            r#"{"hardwareId":"bad","request":{"measurements":{}}}"#,
            &["missing_field"],
        ),
        case(
            "no request",
            r#"{"hardwareId":"bad","type":"DeviceMeasurements"}"#,
            &["missing_field"],
        ),
        case(
            "no measurements",
            r#"{"hardwareId":"bad","type":"DeviceMeasurements","request":{}}"#,
            &["missing_field"],
        ),
        case(
            "unknown type",
            r#"{"hardwareId":"bad","type":"DeviceGossip","request":{}}"#,
            &["unknown_type"],
        ),
        case(
            "type is a number",
            r#"{"hardwareId":"bad","type":7,"request":{}}"#,
            &["wrong_shape"],
        ),
        case(
            "request is a list",
            r#"{"hardwareId":"bad","type":"DeviceMeasurements","request":[]}"#,
            &["wrong_shape"],
        ),
        case("measurements is a text", message(r#""none""#, DATE), &["wrong_shape"]),
        case(
            "unknown identifier",
            message(r#"{"electricity.current.rms.l9":1}"#, DATE),
            &["unknown_identifier"],
        ),
        case(
            "a value is a text",
            message(&format!(r#"{{"{VOLTAGE}":"n/a"}}"#), DATE),
            &["not_a_number"],
        ),
        case(
            "a value is null",
            message(&format!(r#"{{"{VOLTAGE}":null}}"#), DATE),
            &["not_a_number"],
        ),
        case(
            "a value overflows",
            message(&format!(r#"{{"{VOLTAGE}":1e999}}"#), DATE),
            &["not_a_number"],
        ),
        case(
            "NaN is no JSON",
            message(&format!(r#"{{"{VOLTAGE}":NaN}}"#), DATE),
            &["malformed_json"],
        ),
        case(
            "Infinity is no JSON",
            message(&format!(r#"{{"{VOLTAGE}":-Infinity}}"#), DATE),
            &["malformed_json"],
        ),
        case("out of range", message(&format!(r#"{{"{VOLTAGE}":-5}}"#), DATE), &["out_of_range"]),
        case("no date", message("{}", r#""yesterday""#), &["bad_event_date"]),
        case("no such day", message("{}", r#""2026-02-30T00:00:00Z""#), &["bad_event_date"]),
        case("no zone", message("{}", r#""2026-11-16T08:00:00""#), &["bad_event_date"]),
        case("far future", message("{}", r#""2999-01-01T00:00:00Z""#), &["too_far_in_future"]),
        case("invalid UTF-8", not_utf8, &["malformed_json"]),
        case("a value nested deep", deep, &["wrong_shape"]),
        case(
            "an identifier of 900 kB",
            message(&format!(r#"{{"{long_identifier}":1}}"#), DATE),
            &["unknown_identifier"],
        ),
        case(
            "two bad, one good",
            message(&format!(r#"{{"nope":1,"{VOLTAGE}":230,"electricity.voltage.rms.l2":"x"}}"#), DATE),
            &["not_a_number", "unknown_identifier"],
        ),
        case(
            "an unclosed batch",
            format!("[{},{}", message("{\"nope\":2}", DATE), "{\"hardwareId\""),
            &["malformed_json", "unknown_identifier"],
        ),
        case("lists nested deep", nested, &["wrong_shape"]),
        case(
            "larger than a payload may be",
            message(&format!(r#"{{"{filler}":1}}"#), DATE),
            &["too_large"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_payload_becomes_rows_with_its_codes_and_the_stream_goes_on() {
    let server = Server::insecure();
    let mut failures = Vec::new();
    for (i, case) in cases().iter().enumerate() {
        if let Err(failure) = check(&server, i, case).await {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Publishes a case, then a good reading; the case's rows are those that have come in when the good one is there. Both go to the same
/// device, hence to the same partition, hence in this order.
async fn check(server: &Server, i: usize, case: &Case) -> Result<(), String> {
    let device = format!("bad-{i}");
    let topic = format!("flexmeter/default/{device}/events");
    let payload = replace(&case.payload, b"\"bad\"", format!("\"{device}\"").as_bytes());
    let n_before = server.count("SELECT count(*) FROM rejections").await;
    let mut connection = Connection::open(server.addresses().mqtt, &device, &device, "any")
        .await
        .map_err(|error| error.to_string())?;
    connection
        .publish(&topic, &payload, false)
        .await
        .map_err(|error| format!("not acknowledged: {error}"))?;
    let good = format!(
        r#"{{"hardwareId":"{device}","type":"DeviceMeasurements","request":{{"measurements":{{"{VOLTAGE}":231.5}},"updateState":true,"eventDate":"2026-11-16T09:00:00Z"}}}}"#
    );
    connection
        .publish(&topic, good.as_bytes(), false)
        .await
        .map_err(|error| format!("the next message is not acknowledged: {error}"))?;
    let arrived = format!("SELECT count(*) FROM latest WHERE hardware_id = '{device}' AND value = 231.5");
    server.wait_for_count(&arrived, 1, APPLIED_DEADLINE).await;
    let expected = n_before + case.reasons.len() as u64;
    server
        .wait_for_count("SELECT count(*) FROM rejections", expected, APPLIED_DEADLINE)
        .await;
    let newest = format!(
        "SELECT reason FROM rejections ORDER BY received_at DESC, log_partition, log_offset DESC LIMIT {}",
        case.reasons.len()
    );
    let mut reasons: Vec<String> = server
        .sql(&newest)
        .await
        .iter()
        .map(|row| row["reason"].as_str().unwrap_or_default().to_owned())
        .collect();
    reasons.sort();
    if reasons == case.reasons {
        Ok(())
    } else {
        Err(format!("rejected as {reasons:?} instead of {:?}", case.reasons))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_exactly_the_limit_is_taken() {
    let server = Server::insecure();
    let mut payload = message(&format!(r#"{{"{VOLTAGE}":230.25}}"#), DATE);
    payload.push_str(&" ".repeat(PAYLOAD_LEN_MAX - payload.len()));
    let mut connection = Connection::open(server.addresses().mqtt, "bad", "bad", "any").await.unwrap();
    connection
        .publish("flexmeter/default/bad/events", payload.as_bytes(), false)
        .await
        .unwrap();
    server
        .wait_for_count("SELECT count(*) FROM measurements", 1, APPLIED_DEADLINE)
        .await;
    assert_eq!(server.count("SELECT count(*) FROM rejections").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_speaks_for_itself_only() {
    let server = Server::secure();
    let password = server.device_password("honest");
    // while the broker still ends the session before, it says "server unavailable", and a device comes again
    let open = async || {
        loop {
            match Connection::open(server.addresses().mqtt, "honest", "honest", &password).await {
                Err(busy) if busy.to_string().contains("CONNACK [0, 3]") => tokio::time::sleep(Duration::from_millis(20)).await,
                connection => return connection,
            }
        }
    };
    let reading = |device: &str| message(&format!(r#"{{"{VOLTAGE}":230}}"#), DATE).replace("\"bad\"", &format!("\"{device}\""));

    // a topic of somebody else, of nobody, of the platform: in 3.1.1 the only honest refusal is to close the connection
    for topic in [
        "flexmeter/default/victim/events",
        "flexmeter/default/honest/nonsense",
        "flexmeter/other/honest/events",
        "flexmeter/default/grid/mv1/estimate",
        "loose",
    ] {
        let mut connection = open().await.unwrap();
        assert!(
            connection.publish(topic, reading("honest").as_bytes(), false).await.is_err(),
            "a publish to {topic} was acknowledged"
        );
    }
    // its own topic, but another's name in the payload: stored, and rejected by name
    let mut connection = open().await.unwrap();
    connection
        .publish("flexmeter/default/honest/events", reading("victim").as_bytes(), false)
        .await
        .unwrap();
    connection
        .publish("flexmeter/default/honest/events", reading("honest").as_bytes(), false)
        .await
        .unwrap();
    server
        .wait_for_count("SELECT count(*) FROM measurements", 1, APPLIED_DEADLINE)
        .await;
    let rejections = server.sql("SELECT hardware_id, reason, detail FROM rejections").await;
    assert_eq!(rejections.len(), 1, "{rejections:?}");
    assert_eq!(rejections[0]["reason"], Value::from("identity_mismatch"));
    assert!(rejections[0]["detail"].as_str().unwrap().contains("victim"), "{rejections:?}");

    assert!(
        Connection::open(server.addresses().mqtt, "x", "honest", "guess").await.is_err(),
        "a wrong password was accepted"
    );
    assert!(
        Connection::open(server.addresses().mqtt, "x", "victim", &password).await.is_err(),
        "a password works for another device"
    );
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|window| window == from) {
        Some(at) => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}
