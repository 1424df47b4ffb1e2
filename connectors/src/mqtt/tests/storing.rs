//! PUBACK means "in the log".

use flexmeter_model::record::{PAYLOAD_LEN_MAX, RecordKind};
use rumqttc::QoS;

use super::client::Options;
use super::fake_log::Mode;
use super::*;
use crate::mqtt::config::OVERSIZED_KEPT_LEN;

const M1: &str = "flexmeter/default/m-1/events";

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_comes_after_the_append_and_not_before() {
    let house = House::open().await;
    let mut device = house.device("m-1").await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        house.log.set(Mode::Held);
        let n_begun = house.log.n_begun();
        device.send(M1, qos, false, r#"{"hardwareId":"m-1"}"#).await;
        eventually("the append", || house.log.n_begun() > n_begun).await;
        assert!(
            !device.hears_within(NOT_SOON).await,
            "acknowledged at {qos:?} before the log had it"
        );
        house.log.set(Mode::Open);
        assert!(device.is_acked().await);
    }
    assert_eq!(house.log.stored().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_append_closes_the_connection_without_an_acknowledgement() {
    let house = House::open().await;
    house.log.set(Mode::Failing);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce] {
        let mut device = house.device("m-1").await;
        device.send(M1, qos, false, "{}").await;
        assert!(!device.is_acked().await, "{qos:?}");
    }
    house.log.set(Mode::Open);
    let mut device = house.device("m-1").await;
    assert!(device.publish(M1, "{}").await, "and the next one is stored again");
    assert_eq!(house.log.stored().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_5_gets_no_acknowledgement_for_a_failed_append_either() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};

    let house = House::open().await;
    let addr = house.broker.local_addr();
    for (mode, expected) in [(Mode::Open, true), (Mode::Failing, false)] {
        house.log.set(mode);
        let mut options = MqttOptions::new("m-1", addr.ip().to_string(), addr.port());
        options.set_credentials("m-1", device_password(&key(), "default", "m-1"));
        let (client, mut events) = AsyncClient::new(options, 10);
        client.publish(M1, QoS::AtLeastOnce, false, "{}").await.unwrap();
        let outcome = async {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_))) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        assert_eq!(tokio::time::timeout(DEADLINE, outcome).await.unwrap(), expected, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_quality_of_service_goes_through_the_log() {
    let house = House::open().await;
    let device = house.device("m-1").await;
    for (qos, payload) in [(QoS::AtMostOnce, "0"), (QoS::AtLeastOnce, "1"), (QoS::ExactlyOnce, "2")] {
        device.send(M1, qos, false, payload).await;
    }
    eventually("three records", || house.log.stored().len() == 3).await;
    assert_eq!(house.log.payloads(), ["0", "1", "2"]);
    let record = &house.log.stored()[0];
    assert_eq!(
        (record.hardware_id.as_str(), record.bound, record.tenant.as_str()),
        ("m-1", true, "default")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_batch_becomes_one_record_for_each_device() {
    let house = House::open().await;
    let mut gateway = house.admin("gateway").await;
    let batch = r#"[{"hardwareId":"a"},{"hardwareId":"b"},{"hardwareId":"a"},17]"#;
    assert!(gateway.publish("flexmeter/north/gw/events", batch).await);
    let stored = house.log.stored();
    let got: Vec<_> = stored
        .iter()
        .map(|r| (r.tenant.as_str(), r.hardware_id.as_str(), r.bound))
        .collect();
    assert_eq!(
        got,
        [
            ("north", "a", false),
            ("north", "b", false),
            ("north", "a", false),
            ("north", "gw", false)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_clients_publish_to_the_default_tenant() {
    let house = House::open().await;
    let mut device = house.device("m-1").await;
    assert!(device.publish("SiteWhere/input/json", r#"{"hardwareId":"m-1"}"#).await);
    assert!(
        device
            .publish("SiteWhere/input/jsonbatch", r#"{"hardwareId":"m-1","measurements":[]}"#)
            .await
    );
    let mut gateway = house.admin("gateway").await;
    assert!(
        gateway
            .publish("SiteWhere/input/jsonbatch", r#"{"hardwareId":"m-2","measurements":[]}"#)
            .await
    );
    let stored = house.log.stored();
    let got: Vec<_> = stored.iter().map(|r| (r.kind, r.hardware_id.as_str(), r.bound)).collect();
    let batch = RecordKind::LegacyBatch;
    assert_eq!(
        got,
        [(RecordKind::Message, "m-1", true), (batch, "m-1", true), (batch, "m-2", false)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_payload_is_kept_in_part_and_an_oversized_packet_ends_the_connection() {
    let house = House::open().await;
    let mut device = house.device("m-1").await;
    assert!(
        device.publish(M1, vec![b'x'; PAYLOAD_LEN_MAX + 1]).await,
        "it ends as a rejection, so it need not come again"
    );
    let stored = house.log.stored();
    assert_eq!(
        (stored.len(), stored[0].kind, stored[0].payload.len()),
        (1, RecordKind::Oversized, OVERSIZED_KEPT_LEN)
    );
    assert!(!device.publish(M1, vec![b'x'; 3 * PAYLOAD_LEN_MAX]).await);
    assert_eq!(house.log.stored().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_goes_through_the_log_when_its_device_vanishes() {
    let house = House::open().await;
    let addr = house.broker.local_addr();
    let connect = || {
        Options::new(addr, "m-1")
            .login("m-1", &device_password(&key(), "default", "m-1"))
            .will(M1, "gasp")
            .connect()
    };
    connect().await.unwrap().disconnect().await;
    connect().await.unwrap().vanish();
    eventually("the will", || house.log.payloads() == ["gasp"]).await;
    assert!(house.log.stored()[0].bound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_hangs_longer_than_a_keep_alive_costs_the_connection_and_not_the_message() {
    let house = House::open().await;
    let connect = || {
        let options = Options::new(house.broker.local_addr(), "m-1").login("m-1", &device_password(&key(), "default", "m-1"));
        options.keep_alive(Duration::from_secs(1)).connect()
    };
    let mut device = connect().await.unwrap();
    house.log.set(Mode::Held);
    assert!(!device.publish(M1, "x").await, "the client misses the answers to its pings");
    house.log.set(Mode::Open);
    eventually("the append of what was begun", || house.log.payloads() == ["x"]).await;
    let mut device = house.device("m-1").await;
    assert!(
        device.publish(M1, "x").await,
        "sent again; the engine drops the second by its identity"
    );
    assert_eq!(house.log.payloads(), ["x", "x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_devices_publish_at_once() {
    let house = House::open().await;
    let publish = |i: usize| {
        let house = &house;
        async move {
            let id = format!("m-{i}");
            let mut device = house.device(&id).await;
            for n in 0..5 {
                assert!(device.publish(&format!("flexmeter/default/{id}/events"), n.to_string()).await);
            }
        }
    };
    futures::future::join_all((0..200).map(publish)).await;
    let stored = house.log.stored();
    assert_eq!(stored.len(), 1_000);
    for i in 0..200 {
        let of_one: Vec<_> = stored
            .iter()
            .filter(|r| r.hardware_id == format!("m-{i}"))
            .map(|r| r.payload.to_vec())
            .collect();
        assert_eq!(of_one, [b"0", b"1", b"2", b"3", b"4"], "in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_running_appends_and_publishes_no_will() {
    let House { broker, log } = House::open().await;
    let addr = broker.local_addr();
    let options = Options::new(addr, "m-1")
        .login("m-1", &device_password(&key(), "default", "m-1"))
        .will(M1, "gasp");
    let mut device = options.connect().await.unwrap();
    log.set(Mode::Held);
    device.send(M1, QoS::AtLeastOnce, false, "last").await;
    eventually("the append", || log.n_begun() == 1).await;
    let stopping = tokio::spawn(broker.stop());
    log.set(Mode::Open);
    assert!(device.is_acked().await, "what was begun is acknowledged");
    device.closed().await;
    stopping.await.unwrap();
    assert_eq!(log.payloads(), ["last"]);
    assert_eq!(Arc::strong_count(&log), 1, "the log is let go");
    assert!(Options::new(addr, "x").login("admin", ADMIN_PASSWORD).connect().await.is_err());
}
