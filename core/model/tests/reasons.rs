//! One payload, one verdict: what the decoder makes of good and of bad input, written as a line of text.
#![allow(clippy::unwrap_used)]

use flexmeter_model::decode::{
    BATCH_EVENTS_MAX, Body, DETAIL_TEXT_LEN_MAX, DecodeError, Decoder, MEASUREMENTS_MAX, METADATA_MAX, Message, NESTING_MAX,
};

/// A message or an error as one line.
fn line(read: Result<Message<'_>, DecodeError>) -> String {
    let message = match read {
        Ok(message) => message,
        Err(error) => {
            let known = error.hardware_id.as_deref().map(|id| format!(" [{id}]")).unwrap_or_default();
            return format!("{}: {}{known}", error.reason.as_str(), error.detail);
        }
    };
    let body = match &message.body {
        Body::Measurements { good, bad, .. } => {
            let good: Vec<_> = good.iter().map(|(id, value)| format!("{id}={value}")).collect();
            let bad: Vec<_> = bad.iter().map(|bad| format!("{}: {}", bad.reason.as_str(), bad.detail)).collect();
            format!("measurements good {good:?} bad {bad:?}").replace('"', "")
        }
        Body::Alert {
            alert_type,
            level,
            message,
            metadata,
        } => {
            let metadata: Vec<_> = metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("alert {alert_type} {} '{message}' {metadata:?}", level.as_str()).replace('"', "")
        }
        Body::Acknowledge {
            originating_event_id,
            response,
            response_event_id,
        } => format!("acknowledge {originating_event_id} '{response}' {response_event_id:?}").replace('"', ""),
        Body::Register {
            specification_token,
            site_token,
        } => format!("register {specification_token} {site_token:?}").replace('"', ""),
    };
    let date = message.event_date.map(|date| format!(" at {date}")).unwrap_or_default();
    let update = if message.update_state { " update" } else { "" };
    format!("{}{date}{update} {body}", message.hardware_id)
}

#[track_caller]
fn check(payload: impl AsRef<[u8]>, expected: &str) {
    let payload = payload.as_ref();
    assert_eq!(
        line(Decoder::new().decode(payload)),
        expected,
        "{}",
        String::from_utf8_lossy(payload)
    );
}

/// A measurements message around the given members of `measurements`.
fn measuring(measurements: &str) -> String {
    format!(r#"{{"hardwareId":"m","type":"DeviceMeasurements","request":{{"measurements":{{{measurements}}}}}}}"#)
}

/// A message of that type around the given members of `request`.
fn message(message_type: &str, request: &str) -> String {
    format!(r#"{{"hardwareId":"m","type":"{message_type}","request":{{{request}}}}}"#)
}

#[test]
fn the_four_messages_of_the_format_are_read() {
    check(
        br#"{"hardwareId":"123-TEST-4567890","type":"DeviceMeasurements","request":{"measurements":{"electricity.power.active.consumed.l1":0.871,"electricity.power.active.consumed.total":1.7},"updateState":true,"eventDate":"2016-02-10T19:40:03.391+02:00"}}"#,
        "123-TEST-4567890 at 2016-02-10T17:40:03.391Z update measurements good [electricity.power.active.consumed.l1=0.871, electricity.power.active.consumed.total=1.7] bad []",
    );
    check(
        br#"{"hardwareId":"m","type":"DeviceAlert","request":{"type":"power.lastgasp","level":"Critical","message":"Out!","updateState":true,"eventDate":"2016-02-13T13:57:08.274-0500","metadata":{"name1":"value1","name2":"value2"}}}"#,
        "m at 2016-02-13T18:57:08.274Z update alert power.lastgasp Critical 'Out!' [name1=value1, name2=value2]",
    );
    check(
        br#"{"hardwareId":"m","type":"Acknowledge","request":{"response":"done","originatingEventId":"e-1","eventDate":"2016-02-13T13:57:08Z"}}"#,
        "m at 2016-02-13T13:57:08Z acknowledge e-1 'done' None",
    );
    check(
        br#"{"hardwareId":"m","type":"RegisterDevice","request":{"hardwareId":"m","specificationToken":"s","siteToken":"t"}}"#,
        "m register s Some(t)",
    );
}

#[test]
fn members_come_in_any_order_and_unknown_ones_are_ignored() {
    check(
        br#" { "request" : { "eventDate":"1970-01-01T00:00:01Z", "x":[{"measurements":1},[]], "measurements": { "gas.volume" : 1 }, "latitude":1e5 } ,
            "originator":{"hardwareId":"other"}, "type":"DeviceMeasurements", "hardwareId":"m" } "#,
        "m at 1970-01-01T00:00:01Z measurements good [gas.volume=1] bad []",
    );
    check(
        br#"{"request":{"type":"a"},"type":"DeviceAlert","hardwareId":"m"}"#,
        "m alert a Info '' []",
    );
    // members of other message types do not matter, whatever they are
    check(
        message(
            "DeviceMeasurements",
            r#""measurements":{},"level":7,"metadata":[1],"originatingEventId":{}"#,
        ),
        "m measurements good [] bad []",
    );
    check(message("DeviceAlert", r#""type":"a","measurements":7"#), "m alert a Info '' []");
}

#[test]
fn null_is_the_same_as_absent() {
    check(br#"{"hardwareId":null,"type":"x","request":{}}"#, "missing_field: hardwareId");
    check(br#"{"hardwareId":"m","type":null,"request":{}}"#, "missing_field: type [m]");
    check(
        br#"{"hardwareId":"m","type":"DeviceAlert","request":null}"#,
        "missing_field: request [m]",
    );
    check(
        message("DeviceMeasurements", r#""measurements":null"#),
        "missing_field: request.measurements [m]",
    );
    check(
        message(
            "DeviceAlert",
            r#""type":"a","level":null,"message":null,"metadata":null,"updateState":null,"eventDate":null"#,
        ),
        "m alert a Info '' []",
    );
}

#[test]
fn of_a_name_given_twice_the_last_value_counts() {
    check(
        br#"{"hardwareId":"a","type":"x","request":1,"hardwareId":"m","type":"Acknowledge","request":{"originatingEventId":"e"}}"#,
        "m acknowledge e '' None",
    );
    check(
        br#"{"hardwareId":"m","type":"Acknowledge","request":{"response":"gone"},"request":{"originatingEventId":"e"}}"#,
        "m acknowledge e '' None",
    );
    check(
        measuring(r#""gas.volume":1,"gas.pressure":2,"gas.volume":3"#),
        "m measurements good [gas.pressure=2, gas.volume=3] bad []",
    );
    check(
        measuring(r#""gas.volume":1,"gas.volume":null"#),
        "m measurements good [] bad [not_a_number: gas.volume]",
    );
    check(
        measuring(r#""gas.volume":null,"gas.volume":1"#),
        "m measurements good [gas.volume=1] bad []",
    );
    check(measuring(r#""x":null,"x":1"#), "m measurements good [] bad [unknown_identifier: x]");
    check(
        message("DeviceAlert", r#""type":"a","metadata":{"k":"1","l":"2","k":"3"}"#),
        "m alert a Info '' [l=2, k=3]",
    );
}

#[test]
fn escapes_mean_the_characters_they_stand_for() {
    check(
        br#"{"hardware\u0049d":"z\u00e4hler","\u0074ype":"Device\u0041lert","request":{"type":"\ud83d\ude00","message":"\"\\\/\b\f\n\r\t","eventDate":"1970-01-01T00:00:00\u005a"}}"#,
        "zähler at 1970-01-01T00:00:00Z alert 😀 Info '\"\\/\u{8}\u{c}\n\r\t' []".replace('"', "").as_str(),
    );
    check(measuring(r#""gas.vol\u0075me":1"#), "m measurements good [gas.volume=1] bad []");
}

#[test]
fn what_is_not_json_is_malformed() {
    check("", "malformed_json: the text is cut off at byte 0");
    check("  ", "malformed_json: the text is cut off at byte 2");
    check("{", "malformed_json: the text is cut off at byte 1");
    check("\u{feff}{}", "malformed_json: expected a value at byte 0");
    check(
        br#"{"hardwareId":"m","type":"DeviceMeas"#,
        "malformed_json: the text is cut off at byte 36 [m]",
    );
    check(
        br#"{"hardwareId":"m"} {}"#,
        "malformed_json: something follows the message at byte 19 [m]",
    );
    check(br#"{"hardwareId":"m",}"#, "malformed_json: expected a member's name at byte 18 [m]");
    check(
        br#"{"hardwareId":"m" "type":"x"}"#,
        "malformed_json: expected ',' or '}' at byte 18 [m]",
    );
    check(br#"{"hardwareId" "m"}"#, "malformed_json: expected ':' at byte 14");
    check(br#"{hardwareId:"m"}"#, "malformed_json: expected a member's name at byte 1");
    check(b"{\"a\":\"\xff\"}", "malformed_json: not UTF-8 at byte 6");
    check(b"{\"a\":\"\n\"}", "malformed_json: control character in a string at byte 6");
    check(br#"{"a":"\x"}"#, "malformed_json: unknown escape in a string at byte 7");
    check(
        br#"{"a":"\u12g4"}"#,
        "malformed_json: expected four hexadecimal digits after \\u at byte 8",
    );
    check(
        br#"{"a":"\ud800"}"#,
        "malformed_json: half of a surrogate pair in a string at byte 12",
    );
    check(
        br#"{"a":"\ud800\u0041"}"#,
        "malformed_json: half of a surrogate pair in a string at byte 18",
    );
    check(
        br#"{"a":"\udc00"}"#,
        "malformed_json: half of a surrogate pair in a string at byte 12",
    );
    check(br#"{"a":tru}"#, "malformed_json: expected a value at byte 5");
    check(br#"{"a":tr"#, "malformed_json: the text is cut off at byte 7");
    check(br#"{"a":[1,2}"#, "malformed_json: expected ',' or ']' at byte 9");
    check(br#"{"a":[1,]}"#, "malformed_json: expected a value at byte 8");
    for number in [
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "+1",
        "1.",
        ".5",
        "0x1",
        "1e",
        "--1",
        "1_0",
        "'1'",
    ] {
        let read = line(Decoder::new().decode(measuring(&format!(r#""gas.volume":{number}"#)).as_bytes()));
        assert!(read.starts_with("malformed_json: ") && read.ends_with(" [m]"), "{number}: {read}");
    }
}

#[test]
fn syntax_comes_before_everything_else() {
    check(
        br#"{"type":"nonsense","request":[1}"#,
        "malformed_json: expected ',' or ']' at byte 31",
    );
    check(
        br#"{"hardwareId":"m","type":"nonsense","request":{"eventDate":"never"}"#,
        "malformed_json: the text is cut off at byte 67 [m]",
    );
}

#[test]
fn fields_of_another_type_are_the_wrong_shape() {
    for other in ["[]", "1", "\"x\"", "null", "true", "[{\"hardwareId\":\"m\"}]"] {
        check(other, "wrong_shape: the message is not an object");
    }
    check(br#"{"hardwareId":7}"#, "wrong_shape: hardwareId: expected a string");
    check(br#"{"hardwareId":""}"#, "wrong_shape: hardwareId: the id is empty");
    check(
        br#"{"hardwareId":"a/b"}"#,
        "wrong_shape: hardwareId: the id contains '/'; '/', '+', '#', white space and control characters are not allowed",
    );
    check(
        format!(r#"{{"hardwareId":"{}"}}"#, "x".repeat(129)),
        "wrong_shape: hardwareId: the id has 129 bytes, the limit is 128",
    );
    check(br#"{"hardwareId":"m","type":{}}"#, "wrong_shape: type: expected a string [m]");
    check(
        br#"{"hardwareId":"m","type":"DeviceAlert","request":[]}"#,
        "wrong_shape: request: expected an object [m]",
    );
    check(
        message("DeviceMeasurements", r#""measurements":[]"#),
        "wrong_shape: request.measurements: expected an object [m]",
    );
    check(
        message("DeviceMeasurements", r#""measurements":{},"updateState":"yes""#),
        "wrong_shape: request.updateState: expected true or false [m]",
    );
    check(
        message("DeviceMeasurements", r#""measurements":{},"eventDate":1455126003391"#),
        "wrong_shape: request.eventDate: expected a string [m]",
    );
    check(
        message("DeviceAlert", r#""type":1"#),
        "wrong_shape: request.type: expected a string [m]",
    );
    check(
        message("DeviceAlert", r#""type":"a","level":"Loud""#),
        "wrong_shape: request.level: Loud is not Info, Warning, Error or Critical [m]",
    );
    check(
        message("DeviceAlert", r#""type":"a","message":[]"#),
        "wrong_shape: request.message: expected a string [m]",
    );
    check(
        message("DeviceAlert", r#""type":"a","metadata":{"k":1}"#),
        "wrong_shape: request.metadata: expected an object of strings [m]",
    );
    check(
        message("DeviceAlert", r#""type":"a","metadata":"k""#),
        "wrong_shape: request.metadata: expected an object of strings [m]",
    );
    check(
        message("Acknowledge", r#""originatingEventId":1"#),
        "wrong_shape: request.originatingEventId: expected a string [m]",
    );
    check(
        message("RegisterDevice", r#""specificationToken":"s","siteToken":1"#),
        "wrong_shape: request.siteToken: expected a string [m]",
    );
}

#[test]
fn required_fields_are_named_when_missing() {
    check("{}", "missing_field: hardwareId");
    check(br#"{"type":"nonsense","request":7}"#, "missing_field: hardwareId");
    check(br#"{"hardwareId":"m"}"#, "missing_field: type [m]");
    check(br#"{"hardwareId":"m","type":"DeviceAlert"}"#, "missing_field: request [m]");
    check(message("DeviceMeasurements", ""), "missing_field: request.measurements [m]");
    check(
        message("DeviceMeasurements", r#""eventDate":"never""#),
        "missing_field: request.measurements [m]",
    );
    check(message("DeviceAlert", ""), "missing_field: request.type [m]");
    check(
        message("Acknowledge", r#""response":"r""#),
        "missing_field: request.originatingEventId [m]",
    );
    check(message("RegisterDevice", ""), "missing_field: request.specificationToken [m]");
}

#[test]
fn unknown_types_are_named() {
    check(
        br#"{"hardwareId":"m","type":"DeviceMeasurment"}"#,
        "unknown_type: DeviceMeasurment [m]",
    );
    check(
        br#"{"hardwareId":"m","type":"DeviceLocation","request":{"latitude":1}}"#,
        "unknown_type: DeviceLocation [m]",
    );
    check(br#"{"hardwareId":"m","type":""}"#, "unknown_type:  [m]");
    check(
        format!(r#"{{"hardwareId":"m","type":"{}"}}"#, "ä".repeat(1000)),
        &format!("unknown_type: {} [m]", "ä".repeat(DETAIL_TEXT_LEN_MAX / 2)),
    );
}

#[test]
fn bad_measurements_are_named_and_the_good_ones_kept() {
    check(
        measuring(
            r#""electricity.voltage.rms.l1":230.1,"electricity.voltage.rms.l9":230.2,"gas.volume":null,"gas.pressure":1001,"water.volume":0"#,
        ),
        "m measurements good [electricity.voltage.rms.l1=230.1, water.volume=0] bad [unknown_identifier: electricity.voltage.rms.l9, not_a_number: gas.volume, out_of_range: gas.pressure: 1001 bar outside 0..1000]",
    );
    for value in [
        "null",
        "\"n/a\"",
        "\"NaN\"",
        "\"1\"",
        "true",
        "false",
        "[]",
        "[1]",
        "{}",
        r#"{"value":1}"#,
        "1e999",
        "-1e999",
    ] {
        check(
            measuring(&format!(r#""gas.volume":{value}"#)),
            "m measurements good [] bad [not_a_number: gas.volume]",
        );
    }
    check(measuring(r#""":1"#), "m measurements good [] bad [unknown_identifier: ]");
    check(measuring(""), "m measurements good [] bad []");
}

#[test]
fn ranges_include_their_ends() {
    check(
        measuring(r#""electricity.powerFactor.l1":-1"#),
        "m measurements good [electricity.powerFactor.l1=-1] bad []",
    );
    check(
        measuring(r#""electricity.powerFactor.l1":1.0"#),
        "m measurements good [electricity.powerFactor.l1=1] bad []",
    );
    check(
        measuring(r#""electricity.powerFactor.l1":1.0000001"#),
        "m measurements good [] bad [out_of_range: electricity.powerFactor.l1: 1.0000001 1 outside -1..1]",
    );
    check(
        measuring(r#""electricity.frequency":-0.0"#),
        "m measurements good [electricity.frequency=-0] bad []",
    );
    check(
        measuring(r#""heating.temp.external":-60.5"#),
        "m measurements good [] bad [out_of_range: heating.temp.external: -60.5 °C outside -60..300]",
    );
}

#[test]
fn dates_that_are_none_reject_the_message() {
    check(
        message(
            "DeviceMeasurements",
            r#""measurements":{"gas.volume":1},"eventDate":"2026-13-45T25:61:00""#,
        ),
        "bad_event_date: 2026-13-45T25:61:00: the time has no offset; append Z, +02:00 or -0500 [m]",
    );
    check(
        message("DeviceAlert", r#""type":"a","eventDate":"2023-02-29T00:00:00Z""#),
        "bad_event_date: 2023-02-29T00:00:00Z: there is no such date or time of day [m]",
    );
    check(
        message("Acknowledge", r#""originatingEventId":"e","eventDate":"""#),
        "bad_event_date: : the time is not YYYY-MM-DDThh:mm:ss[.fraction] with an offset (Z, +02:00, -0500) [m]",
    );
}

#[test]
fn a_registration_speaks_for_its_own_device() {
    check(message("RegisterDevice", r#""specificationToken":"s""#), "m register s None");
    check(
        message("RegisterDevice", r#""hardwareId":"m","specificationToken":"s""#),
        "m register s None",
    );
    check(
        message("RegisterDevice", r#""hardwareId":"n","specificationToken":"s""#),
        "identity_mismatch: request.hardwareId is n, hardwareId is m [m]",
    );
}

#[test]
fn every_limit_can_be_reached() {
    let nested = |depth: u32| {
        format!(
            r#"{{"hardwareId":"m","x":{}{}}}"#,
            "[".repeat(depth as usize),
            "]".repeat(depth as usize)
        )
    };
    check(nested(NESTING_MAX), "missing_field: type [m]");
    check(nested(NESTING_MAX + 1), "wrong_shape: nested deeper than 64 levels at byte 86 [m]");
    check(
        format!(r#"{{"x":{}"#, r#"{"a":["#.repeat(100_000)),
        "wrong_shape: nested deeper than 64 levels at byte 197",
    );
    check("[".repeat(1_000_000), "wrong_shape: nested deeper than 64 levels at byte 64");

    let entries = |n: usize| (0..n).map(|i| format!(r#""x{i}":0"#)).collect::<Vec<_>>().join(",");
    let read = line(Decoder::new().decode(measuring(&entries(MEASUREMENTS_MAX)).as_bytes()));
    assert_eq!(read.matches("unknown_identifier").count(), MEASUREMENTS_MAX);
    check(
        measuring(&entries(MEASUREMENTS_MAX + 1)),
        "wrong_shape: request.measurements: 257 entries, the limit is 256 [m]",
    );

    let metadata = |n: usize| {
        message(
            "DeviceAlert",
            &format!(r#""type":"a","metadata":{{{}}}"#, entries(n).replace(":0", ":\"\"")),
        )
    };
    assert!(Decoder::new().decode(metadata(METADATA_MAX).as_bytes()).is_ok());
    check(
        metadata(METADATA_MAX + 1),
        "wrong_shape: request.metadata: more than 256 entries [m]",
    );

    let long_name = "n".repeat(DETAIL_TEXT_LEN_MAX + 1);
    check(
        measuring(&format!(r#""{long_name}":0"#)),
        &format!(
            "m measurements good [] bad [unknown_identifier: {}]",
            &long_name[..DETAIL_TEXT_LEN_MAX]
        ),
    );
}

/// The events of a SiteWhere batch, one line each: the event's bytes and what they mean.
fn legacy(payload: &str) -> Vec<String> {
    let mut lines = Vec::new();
    Decoder::new().decode_legacy_batch(payload.as_bytes(), |bytes, read| {
        lines.push(format!("{} => {}", String::from_utf8_lossy(bytes), line(read)))
    });
    lines
}

#[test]
fn a_legacy_batch_is_its_events() {
    let lines = legacy(
        r#"{"alerts":[{"type":"a"},{}],"locations":[{"latitude":1}],"measurements":[ {"measurements":{"gas.volume":1,"x":2}} , 7, null ],"hardwareId":"m"}"#,
    );
    assert_eq!(
        lines,
        [
            r#"{"measurements":{"gas.volume":1,"x":2}} => m measurements good [gas.volume=1] bad [unknown_identifier: x]"#,
            "7 => wrong_shape: the event is not an object [m]",
            "null => wrong_shape: the event is not an object [m]",
            r#"{"type":"a"} => m alert a Info '' []"#,
            "{} => missing_field: request.type [m]",
            r#"{"latitude":1} => unknown_type: DeviceLocation [m]"#,
        ]
    );
}

#[test]
fn a_legacy_batch_can_be_wrong_as_a_whole() {
    let check = |payload: &str, expected: &str| assert_eq!(legacy(payload), [format!("{payload} => {expected}")]);
    check(r#"{"alerts":[{"type":"a"}]}"#, "missing_field: hardwareId");
    check(r#"{"hardwareId":"m","alerts":{}}"#, "wrong_shape: alerts: expected an array [m]");
    check(
        r#"{"hardwareId":"m","alerts":[{]}"#,
        "malformed_json: expected a member's name at byte 29 [m]",
    );
    check("[]", "wrong_shape: the batch is not an object");
    assert_eq!(legacy(r#"{"hardwareId":"m"}"#), [""; 0]);
    let many = |n: usize| format!(r#"{{"hardwareId":"m","alerts":[{}]}}"#, vec!["{}"; n].join(","));
    assert_eq!(legacy(&many(BATCH_EVENTS_MAX)).len(), BATCH_EVENTS_MAX);
    check(
        &many(BATCH_EVENTS_MAX + 1),
        "wrong_shape: the batch has 10001 events, the limit is 10000 [m]",
    );
}
