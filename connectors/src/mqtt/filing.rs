//! How a payload becomes log records: a batch is taken apart, each message filed under its device, nothing judged.

use bytes::Bytes;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::record::{PAYLOAD_LEN_MAX, RecordKind};
use flexmeter_model::split::split_payload;

use super::config::OVERSIZED_KEPT_LEN;
use super::rules::Filing;
use crate::log::NewRecord;

/// The records of one payload, in the order of the payload. They share its bytes: nothing is copied.
///
/// A payload above [`PAYLOAD_LEN_MAX`] becomes one oversized record with its beginning.
#[must_use]
pub fn records(filing: &Filing<'_>, redelivered: bool, payload: &Bytes) -> Vec<NewRecord> {
    if payload.len() > PAYLOAD_LEN_MAX {
        return vec![oversized(filing, redelivered, payload)];
    }
    let pieces = split_payload(payload).map(|piece| {
        // A device is filed under its login whatever its payload says: the engine compares the two. So is who claims to be the platform
        // itself under its topic, and becomes a rejection.
        let named = piece.hardware_id.filter(|named| !filing.bound && *named != OPERATOR);
        let hardware_id = named.map_or_else(|| filing.hardware_id.to_owned(), std::borrow::Cow::into_owned);
        record(filing, filing.kind, hardware_id, redelivered, payload.slice_ref(piece.bytes))
    });
    pieces.collect()
}

fn oversized(filing: &Filing<'_>, redelivered: bool, payload: &Bytes) -> NewRecord {
    // A copy, so that the log's queue does not keep the whole payload alive for its beginning.
    let kept = Bytes::copy_from_slice(&payload[..payload.len().min(OVERSIZED_KEPT_LEN)]);
    record(filing, RecordKind::Oversized, filing.hardware_id.to_owned(), redelivered, kept)
}

fn record(filing: &Filing<'_>, kind: RecordKind, hardware_id: String, redelivered: bool, payload: Bytes) -> NewRecord {
    NewRecord {
        kind,
        tenant: filing.tenant.clone(),
        hardware_id,
        bound: filing.bound,
        redelivered,
        payload,
    }
}

#[cfg(test)]
mod tests {
    use flexmeter_model::TenantId;

    use super::*;

    fn filing(hardware_id: &str, bound: bool) -> Filing<'_> {
        Filing {
            kind: RecordKind::Message,
            tenant: TenantId::new("default").unwrap(),
            hardware_id,
            bound,
        }
    }

    fn check(filing: &Filing<'_>, payload: &str, expected: &[(&str, &str)]) {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let got = records(filing, false, &payload);
        let got: Vec<_> = got
            .iter()
            .map(|r| (r.hardware_id.as_str(), std::str::from_utf8(&r.payload).unwrap()))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_gateways_batch_is_filed_under_the_devices_it_names() {
        let (a, b) = (r#"{"hardwareId":"a"}"#, r#"{"hardwareId":"b"}"#);
        check(&filing("gw", false), &format!("[{a}, {b} ]"), &[("a", a), ("b", b)]);
        check(&filing("gw", false), a, &[("a", a)]);
    }

    #[test]
    fn a_payload_without_a_usable_id_is_filed_under_its_topic() {
        check(&filing("gw", false), "{}", &[("gw", "{}")]);
        check(
            &filing("gw", false),
            r#"{"hardwareId":"a b"}"#,
            &[("gw", r#"{"hardwareId":"a b"}"#)],
        );
        check(&filing("", false), "nonsense", &[("", "nonsense")]);
    }

    #[test]
    fn who_claims_to_be_the_platform_is_not_filed_under_its_name() {
        let claim = r#"{"hardwareId":"flexmeter-operator","type":"DeviceAlert","request":{"type":"outage.closed"}}"#;
        let escaped = r#"{"hardwareId":"flexmeter\u002doperator"}"#;
        check(&filing("gw", false), claim, &[("gw", claim)]);
        check(&filing("gw", false), escaped, &[("gw", escaped)]);
        check(&filing("", false), &format!("[{claim}]"), &[("", claim)]);
    }

    #[test]
    fn a_device_is_filed_under_its_login() {
        check(
            &filing("m-1", true),
            r#"{"hardwareId":"m-2"}"#,
            &[("m-1", r#"{"hardwareId":"m-2"}"#)],
        );
    }

    #[test]
    fn the_largest_payload_passes_and_one_byte_more_is_oversized() {
        let largest = Bytes::from(vec![b'x'; PAYLOAD_LEN_MAX]);
        let records_of = |payload: &Bytes| records(&filing("m-1", true), true, payload);
        let [record] = &records_of(&largest)[..] else {
            panic!("one record")
        };
        assert_eq!((record.kind, record.payload.len()), (RecordKind::Message, PAYLOAD_LEN_MAX));
        let [record] = &records_of(&Bytes::from(vec![b'x'; PAYLOAD_LEN_MAX + 1]))[..] else {
            panic!("one record")
        };
        assert_eq!((record.kind, record.payload.len()), (RecordKind::Oversized, OVERSIZED_KEPT_LEN));
        assert!(record.redelivered && record.bound && record.hardware_id == "m-1");
    }

    #[test]
    fn an_empty_batch_is_nothing_and_an_empty_payload_is_something_to_reject() {
        check(&filing("m-1", true), "[]", &[]);
        check(&filing("m-1", true), "", &[("m-1", "")]);
    }
}
