//! A located fault as the metadata of an alert. The names are those of the fields of [`FaultRow`]; what is not known is left out.

use std::sync::Arc;

use super::fields::Fields;
use super::{FAULT_LOCATED, OPERATOR, value};
use crate::outcome::{AlertRow, FaultRow};
use crate::time::EventTime;

/// What [`super::located`] needs to know of a fault. Its id and its time are not among them: they are the alert's own.
#[must_use]
pub fn fault_metadata(row: &FaultRow) -> Vec<(String, String)> {
    let known = [
        ("area", Some(row.area.to_string())),
        ("fault_type", Some(row.fault_type.clone())),
        ("branch_id", Some(row.branch_id.to_string())),
        ("near_node", Some(row.near_node.to_string())),
        ("share", Some(row.share.to_string())),
        ("distance_m", row.distance_m.map(|x| x.to_string())),
        ("distance_sigma_m", row.distance_sigma_m.map(|x| x.to_string())),
        ("distance_ohm", Some(row.distance_ohm.to_string())),
        ("resistance_ohm", Some(row.resistance_ohm.to_string())),
        ("probability", Some(row.probability.to_string())),
        ("candidates", Some(row.candidates.clone())),
        ("n_gasps", Some(row.n_gasps.to_string())),
        ("by", Some(row.by.clone())),
    ];
    let written = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    written.collect()
}

/// The fault of an alert, with its id; `None` for an alert that is no located fault of the platform's own device, or a malformed one.
#[must_use]
pub fn read_fault(alert: &AlertRow) -> Option<(Arc<str>, FaultRow)> {
    if alert.device.hardware_id.as_str() != OPERATOR || alert.alert_type != FAULT_LOCATED {
        return None;
    }
    let id = value(alert, "subject").filter(|id| !id.is_empty())?;
    Some((id.into(), fault_of(&alert.metadata, alert.event_time)?))
}

/// The inverse of [`fault_metadata`]; `None` where something is missing or cannot be.
#[must_use]
pub fn fault_of(metadata: &[(String, String)], event_time: EventTime) -> Option<FaultRow> {
    let fields = Fields(metadata);
    let candidates = fields
        .text("candidates")
        .filter(|list| list.starts_with('[') && list.ends_with(']'))?;
    Some(FaultRow {
        area: fields.text("area")?.into(),
        fault_type: fields.text("fault_type")?.to_owned(),
        branch_id: fields.parsed("branch_id")?,
        near_node: fields.parsed("near_node")?,
        share: fields.share("share")?,
        distance_m: fields.number_if_given("distance_m")?,
        distance_sigma_m: fields.number_if_given("distance_sigma_m")?,
        distance_ohm: fields.number("distance_ohm")?,
        resistance_ohm: fields.number("resistance_ohm")?,
        probability: fields.share("probability")?,
        candidates: candidates.to_owned(),
        n_gasps: fields.parsed("n_gasps")?,
        event_time,
        by: fields.text("by")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::row as alert_of;
    use super::super::{Decision, located};
    use super::*;

    fn fault() -> FaultRow {
        FaultRow {
            area: "mv1".into(),
            fault_type: "BCG".to_owned(),
            branch_id: -12,
            near_node: 7,
            share: 0.1 + 0.2,
            distance_m: Some(1234.567),
            distance_sigma_m: None,
            distance_ohm: 1.0 / 3.0,
            resistance_ohm: 0.0,
            probability: 1.0,
            candidates: r#"[{"branch_id":-12,"name":"\"quoted\" ä"}]"#.to_owned(),
            n_gasps: 3,
            event_time: EventTime::from_micros(0),
            by: "relay-1".to_owned(),
        }
    }

    fn alert(fault: &FaultRow) -> AlertRow {
        alert_of(located("f-1", EventTime::from_micros(5), fault_metadata(fault)))
    }

    #[test]
    fn a_fault_is_read_as_it_was_written() {
        let without_lengths = FaultRow {
            distance_m: None,
            ..fault()
        };
        for fault in [fault(), without_lengths] {
            let (id, read) = read_fault(&alert(&fault)).unwrap();
            assert_eq!((&*id, read), ("f-1", fault));
        }
    }

    #[test]
    fn a_malformed_fault_is_none() {
        let spoiled = |name: &str, new: Option<&str>| {
            let mut alert = alert(&fault());
            alert.metadata.retain(|(found, _)| found != name);
            alert.metadata.extend(new.map(|new| (name.to_owned(), new.to_owned())));
            read_fault(&alert)
        };
        let needed = [
            "subject",
            "area",
            "fault_type",
            "branch_id",
            "near_node",
            "share",
            "distance_ohm",
            "resistance_ohm",
            "probability",
            "candidates",
            "n_gasps",
            "by",
        ];
        for name in needed {
            assert_eq!(spoiled(name, None), None, "without {name}");
        }
        for (name, new) in [
            ("branch_id", "12.5"),
            ("share", "1.5"),
            ("distance_m", "far"),
            ("distance_ohm", "inf"),
            ("probability", "NaN"),
            ("n_gasps", "-1"),
            ("candidates", "none"),
            ("subject", ""),
        ] {
            assert_eq!(spoiled(name, Some(new)), None, "{name} = {new}");
        }
        assert!(spoiled("distance_m", None).is_some());
    }

    #[test]
    fn only_the_platform_locates_faults() {
        let mut message = located("f-1", EventTime::from_micros(5), fault_metadata(&fault()));
        message.hardware_id = "meter-1".to_owned();
        assert_eq!(read_fault(&alert_of(message)), None);
        let decision = Decision::CloseOutage.message("f-1", "ada", EventTime::from_micros(5));
        assert_eq!(read_fault(&alert_of(decision)), None);
    }
}
