//! What the broker does beside the log: commands, results, retained messages, services talking to each other.

use rumqttc::QoS;

use super::*;
use crate::mqtt::broker::Qos;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reaches_its_device_and_nobody_else() {
    let house = House::open().await;
    let (mut one, mut two) = (house.device("m-1").await, house.device("m-2").await);
    assert!(one.subscribe("flexmeter/default/m-1/commands").await);
    assert!(two.subscribe("flexmeter/default/m-2/commands").await);
    house
        .broker
        .publish("flexmeter/default/m-1/commands", "go".into(), false, Qos::AtLeastOnce)
        .await
        .unwrap();
    assert_eq!(one.message().await.unwrap().payload, "go");
    assert!(!two.hears_within(NOT_SOON).await);
    assert!(
        house
            .broker
            .publish("flexmeter/default/m-1/events", "x".into(), false, Qos::AtLeastOnce)
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_result_is_there_for_whoever_comes_later() {
    let house = House::open().await;
    let topic = "flexmeter/default/grid/mv1/lv07/estimate";
    for payload in ["old", "new"] {
        house.broker.publish(topic, payload.into(), true, Qos::AtLeastOnce).await.unwrap();
    }
    let mut late = house.admin("late").await;
    assert!(late.subscribe("flexmeter/default/grid/#").await);
    let message = late.message().await.unwrap();
    assert_eq!(
        (message.topic.as_str(), &message.payload[..], message.retain),
        (topic, &b"new"[..], true)
    );
    assert!(!late.hears_within(NOT_SOON).await, "once");
    house.broker.publish(topic, "".into(), true, Qos::AtLeastOnce).await.unwrap();
    let mut later = house.admin("later").await;
    assert!(later.subscribe("flexmeter/default/grid/#").await);
    assert!(!later.hears_within(NOT_SOON).await, "an empty message took it away");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_events_without_making_them_retained() {
    let house = House::open().await;
    let mut service = house.admin("service").await;
    assert!(service.subscribe("flexmeter/default/+/events").await);
    let device = house.device("m-1").await;
    device.send("flexmeter/default/m-1/events", QoS::AtLeastOnce, true, "{}").await;
    let message = service.message().await.unwrap();
    assert_eq!(
        (message.topic.as_str(), &message.payload[..]),
        ("flexmeter/default/m-1/events", &b"{}"[..])
    );
    assert_eq!(house.log.stored().len(), 1);
    let mut late = house.admin("late").await;
    assert!(late.subscribe("flexmeter/default/+/events").await);
    assert!(!late.hears_within(NOT_SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let house = House::open().await;
    let mut members = [house.admin("one").await, house.admin("two").await];
    for member in &mut members {
        assert!(member.subscribe("$share/workers/flexmeter/default/grid/#").await);
    }
    for n in 0..10 {
        house
            .broker
            .publish("flexmeter/default/grid/mv1/x", n.to_string().into(), false, Qos::AtLeastOnce)
            .await
            .unwrap();
    }
    for member in &mut members {
        for _ in 0..5 {
            assert!(member.message().await.is_some());
        }
        assert!(!member.hears_within(NOT_SOON).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_mode_is_an_ordinary_broker_outside_our_topics() {
    let house = House::insecure().await;
    let mut reader = house.anyone("reader").await;
    assert!(reader.subscribe("building/+/temperature").await);
    let mut writer = house.anyone("writer").await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        writer.send("building/7/temperature", qos, true, "21").await;
        assert_eq!(reader.message().await.unwrap().payload, "21");
        assert!(qos == QoS::AtMostOnce || writer.is_acked().await);
    }
    assert_eq!(house.log.n_begun(), 0);
    assert!(writer.publish("flexmeter/default/gw/events", r#"{"hardwareId":"m-9"}"#).await);
    let stored = house.log.stored();
    assert_eq!((stored[0].hardware_id.as_str(), stored[0].bound), ("m-9", false));
    assert!(
        !writer.publish("flexmeter/nowhere/gw/events", "{}").await,
        "our own topics keep their rules"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_live_in_one_process() {
    let (a, b) = (House::open().await, House::open().await);
    let (mut in_a, mut in_b) = (a.device("m-1").await, b.device("m-1").await);
    assert!(in_a.publish("flexmeter/default/m-1/events", "a").await && in_b.publish("flexmeter/default/m-1/events", "b").await);
    assert_eq!((a.log.payloads(), b.log.payloads()), (vec!["a".to_owned()], vec!["b".to_owned()]));
    a.broker.stop().await;
    assert!(
        in_b.publish("flexmeter/default/m-1/events", "b").await,
        "stopping one does not touch the other"
    );
}
