//! One record in, one judgement out.

use std::collections::HashSet;
use std::sync::Arc;

use flexmeter_model::EventTime;

use super::*;
use crate::config::UnknownDevices;

const NOW_US: i64 = 1_455_000_000_000_000;
const GOOD: &str = r#"{"hardwareId":"m-1","type":"DeviceMeasurements","request":{"measurements":{"electricity.frequency":50}}}"#;

fn record<'a>(kind: RecordKind, payload: &'a [u8]) -> Record<'a> {
    let received_at = EventTime::from_micros(NOW_US);
    Record {
        kind,
        tenant: "default",
        hardware_id: "m-1",
        bound: true,
        redelivered: false,
        received_at,
        payload,
    }
}

fn judge(config: &EngineConfig, records: &[Record<'_>]) -> (Judged, Result<(), EngineError>) {
    let mut intake = Intake::default();
    let mut judged = Judged::default();
    let mut decoder = Decoder::new();
    let mut judge = Judge {
        partition: 3,
        intake: &mut intake,
        config,
        judged: &mut judged,
    };
    let outcome = (100..)
        .zip(records)
        .try_for_each(|(offset, record)| judge.record(offset, record, &mut decoder));
    (judged, outcome)
}

fn check_rejected(config: &EngineConfig, record: Record<'_>, expected: &[(ReasonCode, &str)]) {
    let (judged, outcome) = judge(config, &[record]);
    outcome.unwrap();
    let found: Vec<_> = judged.rows.rejections.iter().map(|row| (row.reason, row.detail.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(judged.verdicts.len(), 1);
    assert_eq!(
        (judged.verdicts[0].kind, judged.verdicts[0].n_rejections),
        (Kind::Rejected, expected.len() as u32)
    );
    assert!(judged.rows.measurements.heads.is_empty());
}

#[test]
fn a_message_becomes_a_head_with_its_values() {
    let (judged, outcome) = judge(&EngineConfig::default(), &[record(RecordKind::Message, GOOD.as_bytes())]);
    outcome.unwrap();
    let head = &judged.rows.measurements.heads[0];
    assert_eq!((head.offset, head.n_values, head.event_time.micros()), (100, 1, NOW_US));
    assert_eq!(
        (head.device.partition, head.device.index, head.device.hardware_id.as_str()),
        (3, 0, "m-1")
    );
    assert_eq!(judged.rows.measurements.values, [50.0]);
}

#[test]
fn a_bad_measurement_is_a_rejection_beside_the_good_ones() {
    let payload = r#"{"hardwareId":"m-1","type":"DeviceMeasurements","request":{"measurements":
        {"electricity.frequency":50,"electricity.voltage.rms.l9":1,"electricity.voltage.rms.l1":-3}}}"#;
    let (judged, outcome) = judge(&EngineConfig::default(), &[record(RecordKind::Message, payload.as_bytes())]);
    outcome.unwrap();
    assert_eq!(judged.rows.measurements.values, [50.0]);
    let reasons: Vec<_> = judged.rows.rejections.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [ReasonCode::UnknownIdentifier, ReasonCode::OutOfRange]);
    assert_eq!((judged.verdicts[0].kind, judged.verdicts[0].n_rejections), (Kind::Measurements, 2));
}

#[test]
fn nobody_speaks_for_somebody_else() {
    let foreign = GOOD.replace("m-1", "m-2");
    let expected = [(ReasonCode::IdentityMismatch, "the payload speaks for m-2, the sender is m-1")];
    let bound = record(RecordKind::Message, foreign.as_bytes());
    check_rejected(&EngineConfig::default(), bound, &expected);
    check_rejected(&EngineConfig::default(), Record { bound: false, ..bound }, &expected);
}

#[test]
fn an_event_time_more_than_ten_minutes_ahead_is_rejected() {
    let at = |us| GOOD.replace("}}}", &format!(r#"}},"eventDate":"{}"}}}}"#, EventTime::from_micros(us)));
    let tolerance_us = EngineConfig::default().future_tolerance_us;
    let (judged, _) = judge(
        &EngineConfig::default(),
        &[record(RecordKind::Message, at(NOW_US + tolerance_us).as_bytes())],
    );
    assert_eq!(judged.verdicts[0].kind, Kind::Measurements);
    let detail = "eventDate 2016-02-09T06:50:00.000001Z, received 2016-02-09T06:40:00Z";
    let ahead = at(NOW_US + tolerance_us + 1);
    check_rejected(
        &EngineConfig::default(),
        record(RecordKind::Message, ahead.as_bytes()),
        &[(ReasonCode::TooFarInFuture, detail)],
    );
}

#[test]
fn an_oversized_payload_is_rejected_and_its_beginning_kept() {
    let payload = vec![b'x'; REJECTED_PAYLOAD_LEN_MAX + 10];
    let oversized = record(RecordKind::Oversized, &payload);
    check_rejected(
        &EngineConfig::default(),
        oversized,
        &[(ReasonCode::TooLarge, "more than 1048576 bytes")],
    );
    let (judged, _) = judge(&EngineConfig::default(), &[oversized]);
    assert_eq!(judged.rows.rejections[0].payload.len(), REJECTED_PAYLOAD_LEN_MAX);
}

#[test]
fn a_rejected_payload_is_text_within_its_limit_whatever_its_bytes() {
    assert_eq!(rejected_payload(b"a\xffb", 1), "a\u{fffd}b");
    assert!(rejected_payload(&vec![0xff; REJECTED_PAYLOAD_LEN_MAX], 1).len() <= REJECTED_PAYLOAD_LEN_MAX);
    assert!(rejected_payload("ä".repeat(REJECTED_PAYLOAD_LEN_MAX).as_bytes(), 1).starts_with("ää"));
}

#[test]
fn several_rejections_of_one_message_share_what_is_kept_of_it() {
    let n = 200;
    let bad: Vec<String> = (0..n).map(|i| format!("\"no.such.identifier.{}.{i}\":1", "x".repeat(60))).collect();
    for good in ["", "\"electricity.frequency\":50,"] {
        let payload = format!(
            r#"{{"hardwareId":"m-1","type":"DeviceMeasurements","request":{{"measurements":{{{good}{}}}}}}}"#,
            bad.join(",")
        );
        let (judged, _) = judge(&EngineConfig::default(), &[record(RecordKind::Message, payload.as_bytes())]);
        let rejections = &judged.rows.rejections;
        assert_eq!(rejections.len(), n);
        let kept: usize = rejections.iter().map(|row| row.payload.len()).sum();
        assert!(kept <= REJECTED_PAYLOAD_SHARED_LEN, "{kept} bytes");
        assert!(
            rejections
                .iter()
                .all(|row| payload.starts_with(&row.payload) && row.payload.len() >= 32)
        );
    }
}

#[test]
fn each_event_of_a_legacy_batch_is_judged_by_itself() {
    let payload = r#"{"hardwareId":"m-1","measurements":[{"measurements":{"electricity.frequency":50}},7,7],"alerts":[]}"#;
    let (judged, outcome) = judge(&EngineConfig::default(), &[record(RecordKind::LegacyBatch, payload.as_bytes())]);
    outcome.unwrap();
    let kinds: Vec<_> = judged.verdicts.iter().map(|verdict| verdict.kind).collect();
    assert_eq!(kinds, [Kind::Measurements, Kind::Rejected, Kind::Rejected]);
    assert_ne!(
        judged.verdicts[1].identity, judged.verdicts[2].identity,
        "two equal bad events are two rows"
    );
}

#[test]
fn unknown_devices_may_only_ask_to_be_registered() {
    let known = Arc::new(HashSet::from([("default".to_owned(), "m-9".to_owned())]));
    let config = EngineConfig {
        unknown_devices: UnknownDevices::Reject { known },
        ..EngineConfig::default()
    };
    let unknown = record(RecordKind::Message, GOOD.as_bytes());
    check_rejected(&config, unknown, &[(ReasonCode::UnknownDevice, "m-1 is not registered")]);
    let register = r#"{"hardwareId":"m-1","type":"RegisterDevice","request":{"specificationToken":"s"}}"#;
    let (judged, _) = judge(&config, &[record(RecordKind::Message, register.as_bytes()), unknown]);
    assert_eq!(judged.rows.registrations.len(), 1);
    assert_eq!(judged.verdicts[1].kind, Kind::Rejected, "asking does not make it known");
    let known = GOOD.replace("m-1", "m-9");
    let (judged, _) = judge(
        &config,
        &[Record {
            hardware_id: "m-9",
            ..record(RecordKind::Message, known.as_bytes())
        }],
    );
    assert_eq!(judged.verdicts[0].kind, Kind::Measurements);
}

#[test]
fn a_full_device_table_rejects_new_devices_and_keeps_the_old() {
    let config = EngineConfig {
        devices_max: 1,
        ..EngineConfig::default()
    };
    let second = GOOD.replace("m-1", "m-2");
    let first = record(RecordKind::Message, GOOD.as_bytes());
    let (judged, _) = judge(
        &config,
        &[
            first,
            Record {
                hardware_id: "m-2",
                ..record(RecordKind::Message, second.as_bytes())
            },
            first,
        ],
    );
    let kinds: Vec<_> = judged.verdicts.iter().map(|verdict| verdict.kind).collect();
    assert_eq!(kinds, [Kind::Measurements, Kind::Rejected, Kind::Measurements]);
    assert_eq!(
        judged.rows.rejections[0].detail,
        "m-2 is new, and the partition already has 1 devices, its limit"
    );
}

#[test]
fn log_time_never_goes_back_and_ticks_once_a_minute() {
    let at = |seconds: i64| {
        let received_at = EventTime::from_micros(NOW_US + seconds * 1_000_000);
        Record {
            received_at,
            tenant: "", // as the log writes them
            ..record(RecordKind::Heartbeat, b"")
        }
    };
    let (judged, _) = judge(&EngineConfig::default(), &[at(0), at(59), at(60), at(10), at(61), at(600)]);
    let first = NOW_US / TICK_US;
    let ticks: Vec<_> = judged.ticks.iter().map(|tick| (tick.minute - first, tick.offset)).collect();
    assert_eq!(ticks, [(0, 100), (1, 102), (10, 105)]);
    assert!(judged.verdicts.is_empty(), "a heartbeat is no message");
}

#[test]
fn an_impossible_append_time_or_tenant_is_a_fault_of_the_log() {
    let corrupt = |what| {
        Err(EngineError::CorruptRecord {
            partition: 3,
            offset: 100,
            source: FrameError::Corrupt { at: 0, what },
        })
    };
    let good = record(RecordKind::Message, b"");
    let timeless = Record {
        received_at: EventTime::from_micros(i64::MAX),
        ..good
    };
    assert_eq!(judge(&EngineConfig::default(), &[timeless]).1, corrupt("append time"));
    assert_eq!(
        judge(&EngineConfig::default(), &[Record { tenant: "a/b", ..good }]).1,
        corrupt("tenant")
    );
}
