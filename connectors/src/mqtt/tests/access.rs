//! Who gets in, and what is refused.

use super::client::Options;
use super::*;
use crate::mqtt::MqttError;

async fn login(house: &House, user: &str, password: &str) -> Result<Client, String> {
    Options::new(house.broker.local_addr(), "client")
        .login(user, password)
        .connect()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_good_logins_connect() {
    let house = House::open().await;
    let password = device_password(&key(), "default", "m-1");
    for (user, password, good) in [
        ("m-1", password.as_str(), true),
        ("default/m-1", password.as_str(), true),
        ("admin", ADMIN_PASSWORD, true),
        ("m-2", password.as_str(), false),
        ("north/m-1", password.as_str(), false),
        ("m-1", "guess", false),
        ("m-1", "", false),
        ("admin", "guess", false),
        ("admin", password.as_str(), false),
        ("", "", false),
    ] {
        let result = login(&house, user, password).await;
        assert_eq!(result.is_ok(), good, "{user} {password}: {:?}", result.err());
        if let Ok(client) = result {
            client.disconnect().await;
        }
    }
    assert!(
        Options::new(house.broker.local_addr(), "client").connect().await.is_err(),
        "without a login"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_cannot_publish_elsewhere_and_is_disconnected_without_an_acknowledgement() {
    let house = House::open().await;
    for topic in [
        "flexmeter/default/m-2/events",
        "flexmeter/north/m-1/events",
        "flexmeter/default/m-1/commands",
        "flexmeter/default/m-1/events/more",
        "flexmeter/default/grid/mv1/estimate",
        "flexmeter/default/../events",
        "SiteWhere/commands/m-1",
        "$SYS/broker",
        "building/7",
    ] {
        let mut device = house.device("m-1").await;
        assert!(!device.publish(topic, "{}").await, "{topic}");
    }
    assert_eq!(house.log.n_begun(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_subscribes_to_its_own_commands_only() {
    let house = House::open().await;
    let mut device = house.device("m-1").await;
    for filter in ["flexmeter/default/m-1/commands", "SiteWhere/commands/m-1"] {
        assert!(device.subscribe(filter).await, "{filter}");
    }
    for filter in [
        "#",
        "+/+/+/+",
        "flexmeter/#",
        "flexmeter/default/m-1/#",
        "flexmeter/default/+/commands",
        "flexmeter/default/m-2/commands",
        "flexmeter/default/m-1/events",
        "$share/g/flexmeter/default/m-1/commands",
        "$SYS/#",
    ] {
        assert!(!device.subscribe(filter).await, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_the_platforms_own_device() {
    let own = "flexmeter/default/flexmeter-operator/events";
    let claim = r#"{"hardwareId":"flexmeter-operator","type":"DeviceAlert","request":{"type":"outage.closed"}}"#;
    let house = House::open().await;
    assert!(house.device_as("client", "flexmeter-operator").await.is_err());
    assert!(!house.admin("service").await.publish(own, claim).await);
    let insecure = House::insecure().await;
    assert!(!insecure.anyone("someone").await.publish(own, claim).await);
    assert_eq!(house.log.n_begun() + insecure.log.n_begun(), 0);
    // in the payload alone it is stored, under the name of its topic: the engine rejects it as identity_mismatch
    for (house, mut client) in [(&house, house.admin("other").await), (&insecure, insecure.anyone("other").await)] {
        assert!(client.publish("flexmeter/default/gw/events", claim).await);
        let stored = house.log.stored();
        assert_eq!((stored.len(), stored[0].hardware_id.as_str()), (1, "gw"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_to_a_foreign_topic_is_refused_when_the_device_connects() {
    let house = House::open().await;
    let password = device_password(&key(), "default", "m-1");
    for topic in [
        "flexmeter/default/m-2/events",
        "flexmeter/default/m-2/commands",
        "building/7",
        "$SYS/x",
    ] {
        let options = Options::new(house.broker.local_addr(), "m-1")
            .login("m-1", &password)
            .will(topic, "x");
        let refused = options.connect().await.err().unwrap();
        assert!(refused.contains("NotAuthorized"), "{topic}: {refused}");
    }
    assert_eq!(house.log.n_begun(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_in_use_belongs_to_its_login() {
    let house = House::open().await;
    let mut first = house.device_as("shared-name", "m-1").await.unwrap();
    assert!(
        house.device_as("shared-name", "m-2").await.is_err(),
        "another device cannot take it over"
    );
    assert!(
        Options::new(house.broker.local_addr(), "shared-name")
            .login("admin", ADMIN_PASSWORD)
            .connect()
            .await
            .is_err()
    );
    assert!(
        first.publish("flexmeter/default/m-1/events", "{}").await,
        "and the owner does not notice"
    );
    let again = house.device_as("shared-name", "m-1").await.unwrap();
    first.closed().await;
    again.disconnect().await;
    let mut second = None;
    for _ in 0..1_000 {
        second = house.device_as("shared-name", "m-2").await.ok();
        if second.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(second.is_some(), "it is free when its session has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_an_absent_device_left_is_not_open_to_others() {
    let house = House::open().await;
    let keep = |user: &str| {
        let password = device_password(&key(), "default", user);
        Options::new(house.broker.local_addr(), "kept")
            .login(user, &password)
            .keep_session()
            .connect()
    };
    let mut owner = keep("m-1").await.unwrap();
    assert!(owner.subscribe("flexmeter/default/m-1/commands").await);
    owner.disconnect().await;
    assert!(keep("m-2").await.is_err());
    house
        .broker
        .publish(
            "flexmeter/default/m-1/commands",
            "go".into(),
            false,
            crate::mqtt::broker::Qos::AtLeastOnce,
        )
        .await
        .unwrap();
    let mut owner = keep("m-1").await.unwrap();
    assert_eq!(owner.message().await.unwrap().payload, "go", "and its commands have waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_limit_is_reached_and_says_so() {
    let house = House::with(
        MqttConfig {
            max_connections: 2,
            ..config()
        },
        secure(),
    )
    .await;
    let _one = house.device("m-1").await;
    let two = house.device("m-2").await;
    let refused = house.options("m-3", "m-3").connect_once().await.err().unwrap();
    assert!(refused.contains("ServiceUnavailable"), "{refused}");
    two.disconnect().await;
    house.device("m-3").await; // as soon as there is room
}

#[tokio::test]
async fn unsafe_settings_do_not_start() {
    async fn refused(config: MqttConfig, logins: Logins) -> MqttError {
        Broker::start(config, Arc::new(FakeLog::default()), logins).await.err().unwrap()
    }
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let plain = refused(
        MqttConfig {
            listen: everywhere,
            ..config()
        },
        secure(),
    )
    .await;
    assert!(matches!(plain, MqttError::PlaintextBeyondLoopback { .. }), "{plain}");
    let insecure = refused(
        MqttConfig {
            tls_listen: Some(everywhere),
            ..config()
        },
        Logins::insecure(),
    )
    .await;
    assert!(matches!(insecure, MqttError::InsecureBeyondLoopback { .. }), "{insecure}");
    let no_cert = refused(
        MqttConfig {
            tls_listen: Some(everywhere),
            ..config()
        },
        secure(),
    )
    .await;
    assert!(matches!(no_cert, MqttError::TlsFileMissing { .. }), "{no_cert}");
    let tenant = refused(
        MqttConfig {
            tenants: vec!["a/b".to_owned()],
            ..config()
        },
        secure(),
    )
    .await;
    assert!(matches!(tenant, MqttError::Tenant { .. }), "{tenant}");
    let zero = refused(
        MqttConfig {
            max_inflight: 0,
            ..config()
        },
        secure(),
    )
    .await;
    assert!(matches!(zero, MqttError::ZeroLimit { key: "max_inflight" }), "{zero}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = refused(
        MqttConfig {
            listen: taken.local_addr().unwrap(),
            ..config()
        },
        secure(),
    )
    .await;
    assert!(matches!(bind, MqttError::Bind { .. }), "{bind}");
}
