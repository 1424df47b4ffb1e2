//! Foreign clients against one server with logins: Arrow Flight SQL by ADBC, pyarrow and JDBC, the lake by deltalake and polars, MQTT by
//! paho. What they do is in `tests/clients/`; what they must see is here.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::foreign;
use crate::mqtt::Connection;
use crate::recording::micros;
use crate::server::{ADMIN_PASSWORD, Server};
use crate::skipped;

const DEVICE: &str = "client-1";
const TABLES: [&str; 6] = [
    "measurements",
    "alerts",
    "acknowledgements",
    "rejections",
    "latest",
    "load_profile_15m",
];
const APPLIED_DEADLINE: Duration = Duration::from_secs(30);

/// A server with two messages of [`DEVICE`], four readings in all, one alert, and one message that is rejected.
async fn server_with_readings() -> Server {
    let server = Server::secure();
    let mut device = Connection::open(server.addresses().mqtt, DEVICE, DEVICE, &server.device_password(DEVICE))
        .await
        .unwrap();
    let topic = format!("flexmeter/default/{DEVICE}/events");
    let messages = [
        reading("2026-11-16T07:59:00+01:00", 230.5, 1.25),
        reading("2026-11-16T07:00:00Z", 231.0, 1.5),
        json!({"hardwareId": DEVICE, "type": "DeviceAlert", "request": {"type": "power.restored", "level": "Info", "message": "", "eventDate": "2026-11-16T07:00:01Z"}}),
        json!({"hardwareId": DEVICE, "type": "Gossip", "request": {}}),
    ];
    for message in messages {
        device.publish(&topic, message.to_string().as_bytes(), false).await.unwrap();
    }
    server
        .wait_for_count(
            "SELECT (SELECT count(*) FROM measurements) + (SELECT count(*) FROM rejections)",
            5,
            APPLIED_DEADLINE,
        )
        .await;
    server
}

fn reading(event_date: &str, voltage_v: f64, power_kw: f64) -> Value {
    let measurements = json!({"electricity.voltage.rms.l1": voltage_v, "electricity.power.active.consumed.total": power_kw});
    json!({"hardwareId": DEVICE, "type": "DeviceMeasurements", "request": {"measurements": measurements, "updateState": true, "eventDate": event_date}})
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc_logs_in_lists_tables_and_prepares_statements() {
    let Some(python) = foreign::python() else {
        return skipped("ADBC", "no python3");
    };
    let server = server_with_readings().await;
    let port = server.addresses().flight.port().to_string();
    let seen = foreign::run_script(
        python,
        "flight_adbc.py",
        &["--port", &port, "--password", ADMIN_PASSWORD, "--hardware-id", DEVICE],
    );

    let tables = seen["tables"]["flexmeter.default"]
        .as_object()
        .unwrap_or_else(|| panic!("no schema flexmeter.default: {seen}"));
    for table in TABLES {
        assert!(
            tables.get(table).is_some_and(|columns| !columns.as_array().unwrap().is_empty()),
            "{table} is not listed with columns: {seen}"
        );
    }
    let expected = json!([
        ["electricity.power.active.consumed.total", 1.25, "kW", "2026-11-16T06:59:00+00:00"],
        ["electricity.voltage.rms.l1", 230.5, "V", "2026-11-16T06:59:00+00:00"],
        ["electricity.power.active.consumed.total", 1.5, "kW", "2026-11-16T07:00:00+00:00"],
        ["electricity.voltage.rms.l1", 231.0, "V", "2026-11-16T07:00:00+00:00"],
    ]);
    assert_eq!(seen["rows"], expected);
    assert_eq!(seen["n_rows_of_nobody"], 0, "the parameter has no effect");
    assert_eq!(seen["n_latest"], 2);
    assert_eq!(seen["schema"]["mean"], "double");
    let columns: BTreeSet<&str> = seen["measurements_columns"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for column in [
        "hardware_id",
        "identifier",
        "event_time",
        "value",
        "unit",
        "quality",
        "received_at",
        "log_partition",
        "log_offset",
    ] {
        assert!(columns.contains(column), "measurements has no {column}: {columns:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_gets_what_get_flight_info_promised() {
    let Some(python) = foreign::python() else {
        return skipped("pyarrow.flight", "no python3");
    };
    let server = server_with_readings().await;
    let port = server.addresses().flight.port().to_string();
    let statements = [
        "SELECT hardware_id, count(*), max(value) FROM measurements GROUP BY hardware_id",
        "SELECT reason FROM rejections",
        "SELECT type, level FROM alerts",
        "SELECT window_start, identifier, n, mean, min, max, last FROM load_profile_15m ORDER BY window_start, identifier",
        "SELECT * FROM measurements WHERE false",
    ];
    let mut arguments = vec!["--port", &port, "--password", ADMIN_PASSWORD];
    arguments.extend(statements.iter().flat_map(|statement| ["--sql", statement]));
    let seen = foreign::run_script(python, "flight_pyarrow.py", &arguments);
    let expected = json!([
        [[DEVICE, 4, 231.0]],
        [["unknown_type"]],
        [["power.restored", "Info"]],
        [
            [
                "2026-11-16 06:45:00+00:00",
                "electricity.power.active.consumed.total",
                1,
                1.25,
                1.25,
                1.25,
                1.25
            ],
            [
                "2026-11-16 06:45:00+00:00",
                "electricity.voltage.rms.l1",
                1,
                230.5,
                230.5,
                230.5,
                230.5
            ],
            [
                "2026-11-16 07:00:00+00:00",
                "electricity.power.active.consumed.total",
                1,
                1.5,
                1.5,
                1.5,
                1.5
            ],
            [
                "2026-11-16 07:00:00+00:00",
                "electricity.voltage.rms.l1",
                1,
                231.0,
                231.0,
                231.0,
                231.0
            ],
        ],
        [],
    ]);
    assert_eq!(seen["answers"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jdbc_driver_reads_metadata_and_prepares_statements() {
    let Some(jars) = foreign::jdbc_jars() else {
        return skipped("JDBC", "no javac or no mvn");
    };
    let server = server_with_readings().await;
    let port = server.addresses().flight.port().to_string();
    let mut java = Command::new("java");
    java.args([
        "--add-opens=java.base/java.nio=ALL-UNNAMED",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
        "-cp",
    ])
    .arg(jars.join("*"))
    .arg(foreign::scripts().join("jdbc/FlightSqlJdbc.java"))
    .args(["127.0.0.1", &port, "admin", ADMIN_PASSWORD, DEVICE]);
    let seen = foreign::answer(&mut java);

    let listed = |key: &str| -> BTreeSet<String> {
        seen[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    assert!(TABLES.iter().all(|table| listed("tables").contains(*table)), "{seen}");
    assert_eq!(listed("one_table"), BTreeSet::from(["measurements".to_owned()]));
    assert!(
        listed("catalogs").contains("flexmeter") && listed("schemas").contains("default"),
        "{seen}"
    );
    assert_eq!(seen["read_only"], true);
    assert_eq!(seen["columns"]["value"], "DOUBLE", "{seen}");
    assert_eq!(seen["primary_keys"], json!([]));
    assert_eq!(seen["statement"], 4);
    let first = micros("2026-11-16T06:59:00Z") / 1000;
    assert_eq!(
        seen["prepared"][0],
        json!(["electricity.power.active.consumed.total", 1.25, first]),
        "{seen}"
    );
    assert_eq!(seen["prepared"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn deltalake_and_polars_open_every_table_and_count_alike() {
    let Some(python) = foreign::python() else {
        return skipped("deltalake and polars", "no python3");
    };
    let mut server = server_with_readings().await;
    server.stop(); // commits what is left
    let seen = foreign::run_script(python, "lake_readers.py", &[server.lake().to_str().unwrap()]);
    for (table, n_rows) in [("measurements", 4), ("alerts", 1), ("acknowledgements", 0), ("rejections", 1)] {
        let counts = &seen["tables"][table];
        assert_eq!(
            (&counts["deltalake"], &counts["polars"]),
            (&json!(n_rows), &json!(n_rows)),
            "{table}: {seen}"
        );
        assert_eq!(counts["partition_columns"], json!(["day"]), "{table}");
    }
    assert!(seen["tables"]["load_profile_15m"].is_object(), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paho_publishes_in_both_versions_and_is_kept_within_its_topics() {
    let Some(python) = foreign::python() else {
        return skipped("paho-mqtt", "no python3");
    };
    let server = Server::secure();
    let port = server.addresses().mqtt.port().to_string();
    // a password may begin with a dash
    let password = format!("--password={}", server.device_password("paho-1"));
    let arguments = ["--port", &port, "--device", "paho-1", &password, "--admin-password", ADMIN_PASSWORD];
    let seen = foreign::run_script(python, "mqtt_paho.py", &arguments);

    let mut stored = BTreeSet::new();
    for version in seen["versions"].as_array().unwrap() {
        for fact in ["wrong_password_refused", "own_commands", "retained", "will", "foreign_will_refused"] {
            assert_eq!(version[fact], true, "{fact}: {version}");
        }
        assert_eq!(version["foreign_commands"], false, "{version}");
        for (topic, outcome) in version["forbidden"].as_object().unwrap() {
            assert_ne!(outcome, "stored", "a forbidden publish to {topic} was acknowledged: {version}");
        }
        stored.extend(
            version["stored"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| (micros(row[0].as_str().unwrap()), row[1].to_string())),
        );
    }
    server
        .wait_for_count("SELECT count(*) FROM measurements", stored.len() as u64, APPLIED_DEADLINE)
        .await;
    let rows = server
        .sql("SELECT event_time, value FROM measurements WHERE hardware_id = 'paho-1'")
        .await;
    let found: BTreeSet<_> = rows
        .iter()
        .map(|row| (micros(row["event_time"].as_str().unwrap()), row["value"].to_string()))
        .collect();
    assert_eq!(found, stored);
    server.wait_for_count("SELECT count(*) FROM rejections", 0, APPLIED_DEADLINE).await;
}
