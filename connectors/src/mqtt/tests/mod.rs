//! The broker and the publisher pool over real sockets, with `rumqttc` as an independent client and a log one can hold, fail and read.

mod access;
mod client;
mod fake_log;
mod pool;
mod pubsub;
mod storing;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use fake_log::FakeLog;

use super::{Broker, Logins, MqttConfig, PlatformKey, device_password};

/// No condition of these tests takes longer on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long we look for something that must not come. A test that is wrong may pass by it, a right one never fails by it.
const NOT_SOON: Duration = Duration::from_millis(300);

const ADMIN_PASSWORD: &str = "correct horse battery staple";

fn key() -> PlatformKey {
    PlatformKey::new(&[42; 32]).unwrap()
}

fn config() -> MqttConfig {
    MqttConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tenants: vec!["default".to_owned(), "north".to_owned()],
        ..MqttConfig::default()
    }
}

fn secure() -> Logins {
    Logins::secure(
        key(),
        Arc::new(|user, password| user == "admin" && password == ADMIN_PASSWORD.as_bytes()),
    )
}

/// A broker, its log, and logins for it.
struct House {
    broker: Broker,
    log: Arc<FakeLog>,
}

impl House {
    async fn open() -> Self {
        Self::with(config(), secure()).await
    }

    async fn insecure() -> Self {
        Self::with(config(), Logins::insecure()).await
    }

    async fn with(config: MqttConfig, logins: Logins) -> Self {
        let log = Arc::new(FakeLog::default());
        let broker = Broker::start(config, log.clone(), logins).await.unwrap();
        Self { broker, log }
    }

    /// A device of the default tenant; its client id is its hardware id.
    async fn device(&self, hardware_id: &str) -> Client {
        self.device_as(hardware_id, hardware_id).await.unwrap()
    }

    async fn device_as(&self, client_id: &str, hardware_id: &str) -> Result<Client, String> {
        self.options(client_id, hardware_id).connect().await
    }

    fn options(&self, client_id: &str, hardware_id: &str) -> client::Options {
        let password = device_password(&key(), "default", hardware_id);
        client::Options::new(self.broker.local_addr(), client_id).login(hardware_id, &password)
    }

    async fn admin(&self, client_id: &str) -> Client {
        client::Options::new(self.broker.local_addr(), client_id)
            .login("admin", ADMIN_PASSWORD)
            .connect()
            .await
            .unwrap()
    }

    async fn anyone(&self, client_id: &str) -> Client {
        client::Options::new(self.broker.local_addr(), client_id).connect().await.unwrap()
    }
}

/// Waits until `condition` holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, wait).await.is_ok(),
        "{what} did not happen within {DEADLINE:?}"
    );
}
