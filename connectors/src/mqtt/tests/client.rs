//! `rumqttc` behind a narrow face: connect, publish, subscribe, and what came back.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS, SubscribeReasonCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::DEADLINE;

/// How to connect.
pub(super) struct Options(MqttOptions);

impl Options {
    pub(super) fn new(addr: SocketAddr, client_id: &str) -> Self {
        let mut options = MqttOptions::new(client_id, addr.ip().to_string(), addr.port());
        options
            .set_max_packet_size(8 << 20, 8 << 20)
            .set_keep_alive(Duration::from_secs(60));
        Self(options)
    }

    pub(super) fn login(mut self, user: &str, password: &str) -> Self {
        self.0.set_credentials(user, password);
        self
    }

    pub(super) fn will(mut self, topic: &str, payload: &str) -> Self {
        self.0.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false));
        self
    }

    pub(super) fn keep_alive(mut self, every: Duration) -> Self {
        self.0.set_keep_alive(every);
        self
    }

    pub(super) fn keep_session(mut self) -> Self {
        self.0.set_clean_session(false);
        self
    }

    /// Connects; the error is the broker's answer. As devices do, it tries again when the broker is not done with the last connection
    /// of this client id.
    pub(super) async fn connect(self) -> Result<Client, String> {
        let connect = async {
            loop {
                match self.connect_once().await {
                    Err(refused) if refused.contains("ServiceUnavailable") => tokio::time::sleep(Duration::from_millis(5)).await,
                    result => return result,
                }
            }
        };
        timeout(DEADLINE, connect).await.expect("a connection")
    }

    /// Connects, or tells the broker's first answer.
    pub(super) async fn connect_once(&self) -> Result<Client, String> {
        let (client, mut events) = AsyncClient::new(self.0.clone(), 1_000);
        match timeout(DEADLINE, events.poll()).await.expect("an answer to CONNECT") {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {}
            other => return Err(format!("{other:?}")),
        }
        let (out, packets) = mpsc::unbounded_channel();
        let pump = tokio::spawn(async move {
            // Ends with the connection: rumqttc would connect again.
            while let Ok(event) = events.poll().await {
                let goes_on = match event {
                    Event::Incoming(packet) => out.send(packet).is_ok(),
                    // After a goodbye it is the client that closes.
                    Event::Outgoing(outgoing) => outgoing != Outgoing::Disconnect,
                };
                if !goes_on {
                    return;
                }
            }
            // What was read together with the end of the connection.
            for event in events.state.events.drain(..) {
                if let Event::Incoming(packet) = event {
                    let _ = out.send(packet);
                }
            }
        });
        Ok(Client { client, packets, pump })
    }
}

/// A connected client.
pub(super) struct Client {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    pump: JoinHandle<()>,
}

impl Client {
    pub(super) async fn send(&self, topic: &str, qos: QoS, retain: bool, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, qos, retain, payload).await.unwrap();
    }

    /// Publishes at QoS 1 and waits for PUBACK (true) or the end of the connection (false).
    pub(super) async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> bool {
        self.send(topic, QoS::AtLeastOnce, false, payload).await;
        self.is_acked().await
    }

    /// Waits for PUBACK or PUBCOMP (true) or the end of the connection (false).
    pub(super) async fn is_acked(&mut self) -> bool {
        loop {
            match self.next().await {
                Some(Packet::PubAck(_) | Packet::PubComp(_)) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Subscribes and says whether that was granted.
    pub(super) async fn subscribe(&mut self, filter: &str) -> bool {
        if self.client.subscribe(filter, QoS::AtLeastOnce).await.is_err() {
            return false;
        }
        loop {
            match self.next().await {
                Some(Packet::SubAck(ack)) => return matches!(ack.return_codes[0], SubscribeReasonCode::Success(_)),
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Option<Publish> {
        loop {
            if let Packet::Publish(publish) = self.next().await? {
                return Some(publish);
            }
        }
    }

    /// The next packet; `None` when the connection has ended.
    async fn next(&mut self) -> Option<Packet> {
        timeout(DEADLINE, self.packets.recv())
            .await
            .expect("a packet or the end of the connection")
    }

    /// Whether a packet comes within `wait`.
    pub(super) async fn hears_within(&mut self, wait: Duration) -> bool {
        matches!(timeout(wait, self.packets.recv()).await, Ok(Some(_)))
    }

    /// Waits for the end of the connection.
    pub(super) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Says goodbye.
    pub(super) async fn disconnect(mut self) {
        self.client.disconnect().await.unwrap();
        self.closed().await;
    }

    /// Vanishes without a goodbye.
    pub(super) fn vanish(self) {
        self.pump.abort();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.pump.abort();
    }
}
