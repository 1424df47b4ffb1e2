//! The demo's switches: they listen to their command topics as real ones would, and say what they are told to do.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use tokio::sync::mpsc::Sender;

/// What the drive of a switch takes.
const DRIVE: Duration = Duration::from_millis(300);
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// A command as a switch understands it.
#[derive(Debug)]
pub(super) struct Command {
    /// The switch.
    pub(super) hardware_id: String,
    /// Names the command when it is acknowledged.
    pub(super) id: String,
    /// Whether to close; else it opens.
    pub(super) close: bool,
}

/// Takes commands and hands them on when the drive has moved, until nobody listens any more.
pub(super) async fn obey(mqtt: SocketAddr, password: &str, done: Sender<Command>) {
    let mut options = MqttOptions::new("demo-switchgear", mqtt.ip().to_string(), mqtt.port());
    options.set_credentials(crate::secrets::ADMIN, password);
    let (client, mut events) = AsyncClient::new(options, 16);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                // an error means that the client has ended, and then the next poll says so too
                let _ = client.subscribe("flexmeter/default/+/commands", QoS::AtLeastOnce).await;
            }
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let Some(command) = read(&message.topic, &message.payload) else {
                    tracing::warn!("a command on {} that no switch understands", message.topic);
                    continue;
                };
                tokio::time::sleep(DRIVE).await;
                if done.send(command).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
        }
    }
}

fn read(topic: &str, payload: &[u8]) -> Option<Command> {
    let hardware_id = topic.split('/').nth(2)?.to_owned();
    let payload: Value = serde_json::from_slice(payload).ok()?;
    let command = payload.get("command")?;
    let close = match command.get("parameters")?.get("position")?.as_str()? {
        "closed" => true,
        "open" => false,
        _ => return None,
    };
    let id = command.get("invocation")?.get("id")?.as_str()?.to_owned();
    Some(Command { hardware_id, id, close })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_its_switch_itself_and_the_position() {
        let payload = br#"{"command":{"command":{"name":"operate"},"invocation":{"id":"7-1"},"parameters":{"position":"open"}}}"#;
        let command = read("flexmeter/default/DEMO-SW-1-03/commands", payload).unwrap();
        assert_eq!(
            (command.hardware_id.as_str(), command.id.as_str(), command.close),
            ("DEMO-SW-1-03", "7-1", false)
        );
        assert!(read("flexmeter/default/x/commands", b"{}").is_none());
    }
}
