//! Commands to switches: `flexmeter/{tenant}/{hardwareId}/commands`, for the default tenant also `SiteWhere/commands/{hardwareId}`.
//!
//! A command says where the switch is to stand, so it may arrive twice: it goes out again and again while the engine waits for the switch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flexmeter_model::EventTime;
use flexmeter_model::message::{
    Command, CommandAssignment, CommandDefinition, CommandInvocation, CommandMessage, NestingContext, ParameterValue,
};
use flexmeter_model::outcome::SwitchCommand;
use tokio::time::Instant;

use super::{Key, Message};
use crate::up::DEFAULT_TENANT;

/// A command is sent again after this time.
pub(crate) const COMMAND_EVERY: Duration = Duration::from_secs(10);
/// Name of the command, its token, and the name of its parameter.
const NAME: &str = "setPosition";
const PARAMETER: &str = "position";
/// What kind of device understands it.
const SPECIFICATION: &str = "flexmeter-switch";
const NAMESPACE: &str = "urn:flexmeter:switch";

/// Commands that wait for their switches.
#[derive(Debug, Default)]
pub(super) struct Commands {
    waiting: BTreeMap<Key, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    command: Arc<SwitchCommand>,
    /// When it goes out next.
    at: Instant,
}

impl Commands {
    /// Another engine tells what waits.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn take(&mut self, changes: BTreeMap<Key, Option<Arc<SwitchCommand>>>, now: Instant) {
        for (key, new) in changes {
            match new {
                Some(command) => self.waiting.insert(key, Waiting { command, at: now }),
                None => self.waiting.remove(&key),
            };
        }
    }

    /// The messages that go out now, and when the next ones do. `clock` is the time of day.
    pub(super) fn due(&mut self, now: Instant, clock: EventTime) -> (Vec<Message>, Option<Instant>) {
        // after a standstill nobody shall switch what somebody wanted before it: the engine gives the command up as soon as log time moves on
        self.waiting.retain(|(tenant, id), waiting| {
            let is_wanted = clock < waiting.command.until;
            if !is_wanted {
                tracing::warn!(%tenant, command = %id, given = %waiting.command.at, "a command has become too old to be sent");
            }
            is_wanted
        });
        let mut messages = Vec::new();
        for ((tenant, id), waiting) in self.waiting.iter_mut().filter(|(_, waiting)| waiting.at <= now) {
            waiting.at = now + COMMAND_EVERY;
            let device = &waiting.command.operation.hardware_id;
            let payload = serde_json::to_vec(&message(id, &waiting.command)).unwrap_or_default();
            messages.push((format!("flexmeter/{tenant}/{device}/commands"), payload.clone().into()));
            if tenant.as_str() == DEFAULT_TENANT {
                messages.push((format!("SiteWhere/commands/{device}"), payload.into()));
            }
        }
        (messages, self.waiting.values().map(|waiting| waiting.at).min())
    }
}

fn message(id: &str, command: &SwitchCommand) -> CommandMessage {
    let device = command.operation.hardware_id.to_string();
    let position = if command.operation.close { "closed" } else { "open" };
    CommandMessage {
        command: Command {
            command: CommandDefinition {
                token: NAME.to_owned(),
                specification_token: SPECIFICATION.to_owned(),
                namespace: NAMESPACE.to_owned(),
                name: NAME.to_owned(),
                description: Some("move the switch, then tell its position as a switch.position alert".to_owned()),
            },
            invocation: CommandInvocation {
                id: id.to_owned(),
                command_token: NAME.to_owned(),
                event_date: command.at,
                initiator: "Script".to_owned(),
                initiator_id: command.proposal_id.to_string(),
                target: "Assignment".to_owned(),
                target_id: device.clone(),
                parameter_values: BTreeMap::from([(PARAMETER.to_owned(), position.to_owned())]),
            },
            parameters: BTreeMap::from([(PARAMETER.to_owned(), ParameterValue::Text(position.to_owned()))]),
        },
        nesting_context: NestingContext::default(),
        // no register of assignments yet: the device stands for its own
        assignment: CommandAssignment {
            token: device.clone(),
            device_hardware_id: device,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use flexmeter_model::outcome::SwitchOperation;
    use flexmeter_model::{HardwareId, TenantId};
    use serde_json::{Value, json};

    use super::*;

    const AT: EventTime = EventTime::from_micros(1_794_873_600_000_000);

    fn key(tenant: &str, id: &str) -> Key {
        (TenantId::new(tenant).unwrap(), id.into())
    }

    fn command(device: &str, close: bool) -> Option<Arc<SwitchCommand>> {
        Some(Arc::new(SwitchCommand {
            operation: SwitchOperation {
                branch_id: 22,
                hardware_id: HardwareId::new(device).unwrap(),
                close,
            },
            proposal_id: "prop-1".into(),
            at: AT,
            until: EventTime::from_micros(AT.micros() + 120_000_000),
        }))
    }

    #[test]
    fn a_command_goes_out_at_once_and_again_until_it_is_done() {
        let (mut commands, start) = (Commands::default(), Instant::now());
        commands.take(BTreeMap::from([(key("north", "c-1"), command("SW-22", true))]), start);
        let (messages, next) = commands.due(start, AT);
        let topics: Vec<&str> = messages.iter().map(|message| message.0.as_str()).collect();
        assert_eq!(
            (topics, next),
            (vec!["flexmeter/north/SW-22/commands"], Some(start + COMMAND_EVERY))
        );
        assert_eq!(commands.due(start + COMMAND_EVERY / 2, AT).0.len(), 0);
        assert_eq!(commands.due(start + COMMAND_EVERY, AT).0.len(), 1);
        commands.take(BTreeMap::from([(key("north", "c-1"), None)]), start);
        assert_eq!(commands.due(start + COMMAND_EVERY * 3, AT), (Vec::new(), None));
    }

    #[test]
    fn a_client_of_sitewhere_gets_it_too_in_the_shape_it_knows() {
        let (mut commands, start) = (Commands::default(), Instant::now());
        commands.take(BTreeMap::from([(key("default", "c-1"), command("SW-22", false))]), start);
        let (messages, _) = commands.due(start, AT);
        assert_eq!(messages[0].0, "flexmeter/default/SW-22/commands");
        assert_eq!(messages[1].0, "SiteWhere/commands/SW-22");
        assert_eq!(messages[0].1, messages[1].1);
        let payload: Value = serde_json::from_slice(&messages[1].1).unwrap();
        assert_eq!(payload["command"]["parameters"], json!({"position": "open"}));
        let invocation = &payload["command"]["invocation"];
        assert_eq!((&invocation["id"], &invocation["initiatorId"]), (&json!("c-1"), &json!("prop-1")));
        assert_eq!(invocation["parameterValues"], json!({"position": "open"}));
        assert_eq!(payload["command"]["command"]["name"], "setPosition");
        assert_eq!(payload["assignment"]["deviceHardwareId"], "SW-22");
        assert_eq!(payload["nestingContext"], json!({}));
    }

    #[test]
    fn what_was_wanted_long_ago_is_not_switched_now() {
        let (mut commands, start) = (Commands::default(), Instant::now());
        commands.take(BTreeMap::from([(key("default", "c-1"), command("SW-22", true))]), start);
        let later = EventTime::from_micros(AT.micros() + 120_000_000);
        assert_eq!(commands.due(start, later), (Vec::new(), None));
    }
}
