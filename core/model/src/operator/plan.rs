//! A proposal to switch otherwise as the metadata of an alert. The names are those of the fields of [`Suggestion`]; what is not known is
//! left out. The plan is one text, because an alert has at most 256 pairs and a plan may have more steps.

use super::fields::Fields;
use super::{OPERATOR, RECONFIGURATION_PROPOSED};
use crate::ids::HardwareId;
use crate::message::{DeviceMessage, DeviceRequest};
use crate::outcome::{AlertLevel, AlertRow, ProposalTerms, Suggestion, SwitchOperation};
use crate::time::EventTime;

/// The message that makes a proposal of a suggestion. Its time is that of the suggestion, so one that is sent twice is a repeat.
#[must_use]
pub fn proposed(suggestion: &Suggestion) -> DeviceMessage {
    let at = EventTime::from_micros(i64::try_from(suggestion.id).unwrap_or(i64::MAX));
    let mut message = DeviceMessage::alert(OPERATOR, Some(at), RECONFIGURATION_PROPOSED, AlertLevel::Info);
    if let DeviceRequest::Alert(alert) = &mut message.request {
        alert.metadata = plan_metadata(suggestion);
    }
    message
}

/// The proposal of an alert; `None` for an alert that is none of the platform's own device, or a malformed one.
#[must_use]
pub fn read_proposed(alert: &AlertRow) -> Option<Suggestion> {
    let is_proposal = alert.device.hardware_id.as_str() == OPERATOR && alert.alert_type == RECONFIGURATION_PROPOSED;
    is_proposal.then(|| plan_of(&alert.metadata))?
}

/// All of a suggestion as metadata.
#[must_use]
pub fn plan_metadata(suggestion: &Suggestion) -> Vec<(String, String)> {
    let terms = &suggestion.terms;
    let known = [
        ("subject", Some(suggestion.id.to_string())),
        ("area", Some(suggestion.area.to_string())),
        ("operations", Some(steps(&suggestion.operations))),
        ("loss_before_w", Some(suggestion.loss_before_w.to_string())),
        ("loss_after_w", Some(suggestion.loss_after_w.to_string())),
        ("loss_d4_6_w", suggestion.loss_d4_6_w.map(|loss| loss.to_string())),
        ("voltage_min_before_pu", Some(suggestion.voltage_min_pu[0].to_string())),
        ("voltage_min_after_pu", Some(suggestion.voltage_min_pu[1].to_string())),
        ("expires_us", Some(terms.expires_us.to_string())),
        ("confirmation_us", Some(terms.confirmation_us.to_string())),
        ("pause_us", Some(terms.pause_us.to_string())),
        ("is_automatic", Some(terms.is_automatic.to_string())),
        ("grid_mark", Some(suggestion.grid_mark.to_string())),
        ("positions_mark", Some(suggestion.positions_mark.to_string())),
    ];
    let written = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    written.collect()
}

/// The inverse of [`plan_metadata`]; `None` where something is missing or cannot be.
#[must_use]
pub fn plan_of(metadata: &[(String, String)]) -> Option<Suggestion> {
    let fields = Fields(metadata);
    Some(Suggestion {
        id: fields.parsed("subject").filter(|&id| i64::try_from(id).is_ok())?,
        area: fields.text("area")?.into(),
        grid_mark: fields.parsed("grid_mark")?,
        positions_mark: fields.parsed("positions_mark")?,
        operations: read_steps(fields.text("operations")?)?,
        loss_before_w: fields.number("loss_before_w")?,
        loss_after_w: fields.number("loss_after_w")?,
        loss_d4_6_w: fields.number_if_given("loss_d4_6_w")?,
        voltage_min_pu: [fields.number("voltage_min_before_pu")?, fields.number("voltage_min_after_pu")?],
        terms: ProposalTerms {
            expires_us: fields.parsed("expires_us").filter(|&us: &i64| us > 0)?,
            confirmation_us: fields.parsed("confirmation_us").filter(|&us: &i64| us > 0)?,
            pause_us: fields.parsed("pause_us").filter(|&us: &i64| us >= 0)?,
            is_automatic: fields.parsed("is_automatic")?,
        },
    })
}

/// `close 17 SW-17, open 14 SW-14`: a hardware id has no white space.
fn steps(operations: &[SwitchOperation]) -> String {
    let step = |operation: &SwitchOperation| {
        let verb = if operation.close { "close" } else { "open" };
        format!("{verb} {} {}", operation.branch_id, operation.hardware_id)
    };
    operations.iter().map(step).collect::<Vec<_>>().join(", ")
}

/// At least one step.
fn read_steps(text: &str) -> Option<Vec<SwitchOperation>> {
    text.split(", ").map(read_step).collect()
}

fn read_step(text: &str) -> Option<SwitchOperation> {
    let (verb, rest) = text.split_once(' ')?;
    let (branch_id, hardware_id) = rest.split_once(' ')?;
    Some(SwitchOperation {
        branch_id: branch_id.parse().ok()?,
        hardware_id: HardwareId::new(hardware_id).ok()?,
        close: match verb {
            "close" => true,
            "open" => false,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    fn suggestion() -> Suggestion {
        let operation = |branch_id, name: &str, close| SwitchOperation {
            branch_id,
            hardware_id: HardwareId::new(name).unwrap(),
            close,
        };
        Suggestion {
            id: 1_794_900_000_000_000,
            area: "mv1".into(),
            grid_mark: u64::MAX,
            positions_mark: 7,
            operations: vec![operation(17, "SW,17", true), operation(-14, "Schalter-ä", false)],
            loss_before_w: 0.1 + 0.2,
            loss_after_w: 1.0 / 3.0,
            loss_d4_6_w: None,
            voltage_min_pu: [0.95, 0.97],
            terms: ProposalTerms {
                expires_us: 3_600_000_000,
                confirmation_us: 1,
                pause_us: 0,
                is_automatic: true,
            },
        }
    }

    #[test]
    fn a_proposal_is_read_as_it_was_written() {
        let with_d4_6 = Suggestion {
            loss_d4_6_w: Some(1e-300),
            ..suggestion()
        };
        for suggestion in [suggestion(), with_d4_6] {
            assert_eq!(read_proposed(&row(proposed(&suggestion))), Some(suggestion));
        }
    }

    #[test]
    fn a_malformed_proposal_is_none() {
        let spoiled = |name: &str, new: Option<&str>| {
            let mut alert = row(proposed(&suggestion()));
            alert.metadata.retain(|(found, _)| found != name);
            alert.metadata.extend(new.map(|new| (name.to_owned(), new.to_owned())));
            read_proposed(&alert)
        };
        for (name, _) in plan_metadata(&suggestion()) {
            assert_eq!(spoiled(&name, None), None, "without {name}");
        }
        for (name, new) in [
            ("subject", "-1"),
            ("subject", "9223372036854775808"),
            ("operations", ""),
            ("operations", "close 17"),
            ("operations", "close 17 SW/17"),
            ("operations", "turn 17 SW-17"),
            ("operations", "close 17 SW-17,open 14 SW-14"),
            ("loss_after_w", "NaN"),
            ("loss_d4_6_w", "none"),
            ("expires_us", "0"),
            ("pause_us", "-1"),
            ("is_automatic", "yes"),
        ] {
            assert_eq!(spoiled(name, Some(new)), None, "{name} = {new}");
        }
    }

    #[test]
    fn only_the_platform_proposes() {
        let mut message = proposed(&suggestion());
        message.hardware_id = "meter-1".to_owned();
        assert_eq!(read_proposed(&row(message)), None);
    }
}
