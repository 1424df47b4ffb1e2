//! The command line as scripts see it: results on stdout, everything else on stderr; exit 0 success, 1 failed check, 2 usage or
//! configuration error.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::mqtt::Connection;
use crate::server::{ADMIN_PASSWORD, FLEXMETER, Server};

fn flexmeter(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(FLEXMETER).args(arguments).current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs `config check` on a file with this text: exit code 2 and a message that teaches.
fn check_refused(toml: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flexmeter.toml");
    std::fs::write(&file, toml).unwrap();
    for command in [["config", "check", "--config"], ["config", "print", "--config"]] {
        let output = flexmeter(folder.path(), &[command.as_slice(), &[file.to_str().unwrap()]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr:?} does not say {expected:?}");
        assert!(output.stdout.is_empty(), "a refusal does not belong on stdout");
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_a_remedy() {
    check_refused("[engine]\nworkerz = 3\n", "workers");
    check_refused("[engine]\nworkers = 0\n", "engine.workers");
    check_refused("[engine]\nworkers = \"many\"\n", "engine.workers");
    check_refused("[rest]\nlisten = \"0.0.0.0:8080\"\n", "loopback");
    check_refused("data_dir = [\n", "flexmeter.toml");
    check_refused("[lake]\ncommit_s = 0\n", "commit_s");
    check_refused("[log]\npartitions = 5000\n", "log.partitions");
    check_refused("[flight]\ntls_cert_file = \"cert.pem\"\n", "flight.tls_key_file");
    check_refused("[flight]\nlisten = \"0.0.0.0:50051\"\n", "tls_cert_file");
    check_refused("[mqtt]\nmax_inflight = 0\n", "mqtt.max_inflight");
    check_refused("[mqtt]\ntls_listen = \"127.0.0.1:8883\"\n", "mqtt.tls_cert_file");
    check_refused("[mqtt]\ntenants = [\"a/b\"]\n", "mqtt.tenants");
    check_refused("[devices]\nunknown = \"reject\"\nknown_file = \"absent.txt\"\n", "absent.txt");
    check_refused("[auth]\nadmin_password_file = \"absent.txt\"\n", "absent.txt");
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(flexmeter(folder.path(), &["fly"]).status.code(), Some(2));
    assert_eq!(flexmeter(folder.path(), &["up", "--config", "missing.toml"]).status.code(), Some(2));
    assert!(stdout(&flexmeter(folder.path(), &["--help"])).contains("demo"));
    assert!(stdout(&flexmeter(folder.path(), &["--version"])).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_bench_agrees_with_a_plain_recomputation() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&flexmeter(
        folder.path(),
        &[
            "bench",
            "generate",
            "messages.jsonl",
            "--count",
            "20000",
            "--meters",
            "200",
            "--seed",
            "7",
        ],
    ));
    let ingest = [
        "bench",
        "ingest",
        "--messages",
        "messages.jsonl",
        "--workers",
        "1,2",
        "--verify",
        "--lake",
    ];
    let lines = stdout(&flexmeter(folder.path(), &ingest));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let figures: Vec<&Value> = lines
        .iter()
        .filter(|line| line["bench"] == "ingest" && line["workers"].is_number())
        .collect();
    assert_eq!(figures.len(), 2, "{lines:#?}");
    for figure in &figures {
        let n = |key: &str| figure[key].as_u64().unwrap_or_else(|| panic!("no {key} in {figure}"));
        assert_eq!(n("messages"), 20_000);
        assert_eq!(n("accepted") + n("rejected") + n("duplicates"), 20_000);
        assert!(n("rejected") > 0 && n("duplicates") > 0, "the workload has no faults: {figure}");
        assert!(figure["messages_per_cpu_second"].as_f64().unwrap() > 0.0);
        assert_eq!(figure["lake"], true);
    }
    assert_eq!(
        figures[0]["checksum"], figures[1]["checksum"],
        "two workers give another answer than one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_prints_tables_csv_and_json_and_fails_with_1() {
    let server = Server::secure();
    let address = server.addresses();
    let mut admin = Connection::open(address.mqtt, "service", "admin", ADMIN_PASSWORD).await.unwrap();
    let payload = r#"{"hardwareId":"cli-1","type":"DeviceMeasurements","request":{"measurements":{"electricity.voltage.rms.l1":230.5},"eventDate":"2026-11-16T08:00:00Z"}}"#;
    admin
        .publish("flexmeter/default/cli-1/events", payload.as_bytes(), false)
        .await
        .unwrap();
    server
        .wait_for_count("SELECT count(*) FROM latest", 1, Duration::from_secs(30))
        .await;

    let url = format!("http://{}", address.flight);
    let sql = |format: &str, statement: &str, password: &str| {
        server
            .command(&["sql", statement, "--url", &url, "--format", format])
            .env("FLEXMETER_PASSWORD", password)
            .output()
            .unwrap()
    };
    let statement = "SELECT hardware_id, value FROM latest";
    assert_eq!(stdout(&sql("csv", statement, ADMIN_PASSWORD)), "hardware_id,value\ncli-1,230.5\n");
    let row: Value = serde_json::from_str(&stdout(&sql("json", statement, ADMIN_PASSWORD))).unwrap();
    assert_eq!(row, serde_json::json!({"hardware_id": "cli-1", "value": 230.5}));
    assert!(stdout(&sql("table", statement, ADMIN_PASSWORD)).contains("| cli-1"));
    assert!(!sql("arrow", statement, ADMIN_PASSWORD).stdout.is_empty());
    assert_eq!(sql("csv", "SELECT nonsense FROM latest", ADMIN_PASSWORD).status.code(), Some(1));
    assert_eq!(sql("csv", statement, "guess").status.code(), Some(1));
}

#[test]
fn the_first_start_prints_the_admin_password_once() {
    let folder = tempfile::tempdir().unwrap();
    let token = || flexmeter(folder.path(), &["devices", "token", "meter-1", "--data-dir", "data", "--json"]);
    let (first, second) = (token(), token());
    assert!(
        String::from_utf8_lossy(&first.stderr).contains("password"),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    assert!(second.stderr.is_empty(), "{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(stdout(&first), stdout(&second), "a device's password changes between two calls");
}
