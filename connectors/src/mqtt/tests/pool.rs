//! The publisher pool against our broker.

use std::collections::HashMap;

use super::fake_log::Mode;
use super::*;
use crate::mqtt::{PublishError, Publisher, PublisherConfig};

fn pool_config(house: &House) -> PublisherConfig {
    let password = ADMIN_PASSWORD.replace(' ', "%20");
    PublisherConfig {
        connections: 4,
        ..PublisherConfig::new(format!("mqtt://admin:{password}@{}", house.broker.local_addr()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_keeps_the_order_of_each_device_and_a_receipt_means_stored() {
    let house = House::open().await;
    let pool = Publisher::connect(pool_config(&house)).await.unwrap();
    let mut receipts = Vec::new();
    for n in 0..50 {
        for device in 0..20 {
            let topic = format!("flexmeter/default/m-{device}/events");
            receipts.push(pool.send(&device.to_string(), &topic, format!("{n}").into()).await.unwrap());
        }
    }
    pool.drain().await;
    assert_eq!((pool.n_pending(), house.log.stored().len()), (0, 1_000));
    for receipt in receipts {
        let acked = receipt.await.unwrap();
        assert!(acked.acked_at >= acked.sent_at);
    }
    let mut next: HashMap<String, usize> = HashMap::new();
    for record in house.log.stored() {
        let next = next.entry(record.hardware_id).or_default();
        assert_eq!(record.payload, next.to_string());
        *next += 1;
    }
    assert_eq!(pool.close(DEADLINE).await, 0);
    eventually("goodbye", || house.broker.n_connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_waits_when_the_log_does() {
    let house = House::open().await;
    let pool = Publisher::connect(PublisherConfig {
        connections: 1,
        inflight_per_connection: 2,
        ..pool_config(&house)
    })
    .await
    .unwrap();
    house.log.set(Mode::Held);
    let send = |n: usize| pool.send("m-1", "flexmeter/default/m-1/events", n.to_string().into());
    let mut receipts = Vec::new();
    // Two in flight and two queued: the fifth waits.
    for n in 0..4 {
        receipts.push(tokio::time::timeout(DEADLINE, send(n)).await.unwrap().unwrap());
    }
    assert!(tokio::time::timeout(NOT_SOON, send(4)).await.is_err());
    house.log.set(Mode::Open);
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(house.log.payloads(), ["0", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_is_sent_again_as_a_redelivery() {
    let house = House::open().await;
    let pool = Publisher::connect(PublisherConfig {
        connections: 1,
        ..pool_config(&house)
    })
    .await
    .unwrap();
    house.log.set(Mode::Failing);
    let mut receipts = Vec::new();
    for n in 0..3 {
        receipts.push(
            pool.send("m-1", "flexmeter/default/m-1/events", n.to_string().into())
                .await
                .unwrap(),
        );
    }
    // The first is tried and fails, the connection is lost, and again.
    eventually("a second try", || house.log.n_begun() >= 2).await;
    house.log.set(Mode::Open);
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(house.log.payloads(), ["0", "1", "2"]);
    assert!(house.log.stored().iter().all(|record| record.redelivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_outlives_its_broker() {
    let house = House::open().await;
    let pool = Publisher::connect(pool_config(&house)).await.unwrap();
    let addr = house.broker.local_addr();
    pool.publish("m-1", "flexmeter/default/m-1/events", "before".into()).await.unwrap();
    house.broker.stop().await;
    let receipt = pool.send("m-1", "flexmeter/default/m-1/events", "between".into()).await.unwrap();
    let house = House::with(MqttConfig { listen: addr, ..config() }, secure()).await;
    tokio::time::timeout(DEADLINE, receipt).await.unwrap().unwrap();
    assert_eq!(house.log.payloads(), ["between"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_the_broker_hangs_up_on_fails_and_the_ones_behind_it_pass() {
    let house = House::open().await;
    let pool = Publisher::connect(PublisherConfig {
        connections: 1,
        sends_max: 3,
        ..pool_config(&house)
    })
    .await
    .unwrap();
    let poison = pool.send("m-1", "flexmeter/default/not/a/topic", "x".into()).await.unwrap();
    let good = pool.send("m-1", "flexmeter/default/m-1/events", "y".into()).await.unwrap();
    let expected = PublishError::NotAcknowledged {
        topic: "flexmeter/default/not/a/topic".to_owned(),
        sends: 3,
    };
    assert_eq!(poison.await.unwrap_err(), expected);
    good.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pools_of_one_configuration_do_not_take_over_each_others_sessions() {
    let house = House::open().await;
    let (one, two) = (
        Publisher::connect(pool_config(&house)).await.unwrap(),
        Publisher::connect(pool_config(&house)).await.unwrap(),
    );
    eventually("eight sessions side by side", || house.broker.n_connections() == 8).await;
    for pool in [one, two] {
        let acked = pool.publish("m-1", "flexmeter/default/m-1/events", "x".into()).await.unwrap();
        assert!(acked.acked_at.duration_since(acked.sent_at) < DEADLINE);
    }
    assert!(house.log.stored().iter().all(|record| !record.redelivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_says_why_it_cannot_connect() {
    let house = House::open().await;
    let addr = house.broker.local_addr();
    let error = |url: String| async move { Publisher::connect(PublisherConfig::new(url)).await.err().unwrap() };
    let wrong = error(format!("mqtt://admin:guess@{addr}")).await;
    assert!(matches!(wrong, PublishError::Refused { code: 4, .. }), "{wrong}");
    assert!(wrong.to_string().contains("bad user name or password"));
    house.broker.stop().await;
    let nobody = error(format!("mqtt://admin:guess@{addr}")).await;
    assert!(matches!(nobody, PublishError::Connect { .. }), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_share_a_group_commit() {
    const GROUP: Duration = Duration::from_millis(20);
    const PER_CONNECTION: usize = 5;
    let house = House::open().await;
    house.log.commit_in_groups(GROUP);
    let pool = Publisher::connect(PublisherConfig {
        connections: 100,
        ..pool_config(&house)
    })
    .await
    .unwrap();
    let started = std::time::Instant::now();
    let devices: Vec<String> = (0..1_000).map(|i| format!("m-{i}")).collect();
    let mut per_connection = [0; 100];
    for device in &devices {
        let sent = &mut per_connection[pool.connection_of(device)];
        if *sent < PER_CONNECTION {
            *sent += 1;
            pool.send(device, &format!("flexmeter/default/{device}/events"), "{}".into())
                .await
                .unwrap();
        }
    }
    let n_sent: usize = per_connection.iter().sum();
    pool.drain().await;
    // One after the other they would take a group each.
    assert!(started.elapsed() < GROUP * n_sent as u32 / 2, "{n_sent} in {:?}", started.elapsed());
}
