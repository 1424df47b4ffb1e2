//! A quiet installation: heartbeats move log time on, nothing else happens, and the next message is taken as ever.

use std::time::{Duration, Instant};

use crate::mqtt::Connection;
use crate::server::Server;

const HEARTBEATS_DEADLINE: Duration = Duration::from_secs(30);
const APPLIED_DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_pass_through_a_quiet_street_which_then_takes_the_next_message() {
    let _load = crate::LOAD.lock().await;
    let mut server = Server::with(&[("engine.heartbeat_s", "1"), ("engine.checkpoint_s", "1")]);
    let deadline = Instant::now() + HEARTBEATS_DEADLINE;
    while epoch(&server).await < 3.0 {
        assert!(Instant::now() < deadline, "no heartbeat has reached the engine");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // once with the checkpoint that the quiet time has left, once without a restart
    for id in ["before", "after"] {
        let mut meter = Connection::open(server.addresses().mqtt, id, id, "any").await.unwrap();
        let message = format!(
            r#"{{"hardwareId":"{id}","type":"DeviceMeasurements","request":{{"measurements":{{"electricity.voltage.rms.l1":230.5}},"eventDate":"2026-11-16T08:00:00Z"}}}}"#
        );
        meter
            .publish(&format!("flexmeter/default/{id}/events"), message.as_bytes(), false)
            .await
            .unwrap();
        let mine = format!("SELECT count(*) FROM latest WHERE hardware_id = '{id}'");
        server.wait_for_count(&mine, 1, APPLIED_DEADLINE).await;
        server.stop();
        server.start();
    }
    let (status, ready) = server.get("/readyz").await;
    assert_eq!(status, 200, "{ready}");
}

async fn epoch(server: &Server) -> f64 {
    let (_, metrics) = server.get("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("flexmeter_engine_epoch "));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}
