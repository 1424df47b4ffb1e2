//! A device's own estimate as it travels: measurements with their covariance in the metadata, read back, or rejected by name.
#![allow(clippy::unwrap_used)]

use flexmeter_model::boundary::{COVARIANCE, COVARIANCE_OF, N_QUANTITIES, PublishedBoundary};
use flexmeter_model::decode::{Body, COVARIANCE_LEN_MAX, Decoder};
use flexmeter_model::message::DeviceMessage;
use serde_json::{Value, json};

/// Voltages, powers in both directions, and correlations of both signs.
fn boundary() -> PublishedBoundary {
    let sigma = [0.4, 0.5, 0.6, 20.0, 30.0, 10.0, 8.0, 9.0, 7.0];
    let mut covariance = [[0.0; N_QUANTITIES]; N_QUANTITIES];
    for (row, entries) in covariance.iter_mut().enumerate() {
        for (column, entry) in entries.iter_mut().enumerate() {
            let correlation = if row == column {
                1.0
            } else {
                0.4 / (1.0 + row.abs_diff(column) as f64)
            };
            let sign = if (row + column) % 2 == 0 { 1.0 } else { -1.0 };
            *entry = sign * correlation * sigma[row] * sigma[column];
        }
    }
    PublishedBoundary {
        voltage_v: [230.1, 229.5, 231.25],
        active_w: [1_250.5, -320.0, 0.0],
        reactive_var: [310.0, 41.5, -12.0],
        covariance,
    }
}

fn message(boundary: &PublishedBoundary) -> Value {
    serde_json::to_value(DeviceMessage::boundary("K-1", None, boundary)).unwrap()
}

/// What comes of a message: number of good values, the bad ones, the boundary, and the identity of the content.
fn read(message: &Value) -> (usize, Vec<String>, Option<PublishedBoundary>, u64) {
    let payload = message.to_string();
    let mut decoder = Decoder::new();
    // the message before leaves nothing behind
    decoder.decode(self::message(&boundary()).to_string().as_bytes()).unwrap();
    let message = decoder.decode(payload.as_bytes()).unwrap();
    let Body::Measurements { good, bad, boundary } = message.body else {
        panic!("another body")
    };
    let bad = bad.iter().map(|bad| format!("{}: {}", bad.reason.as_str(), bad.detail)).collect();
    (good.len(), bad, boundary.cloned(), message.content_hash)
}

#[track_caller]
fn rejected(change: impl FnOnce(&mut Value), expected: &str) {
    let mut message = message(&boundary());
    change(&mut message["request"]);
    let (n_good, bad, boundary, _) = read(&message);
    assert_eq!(boundary, None);
    assert_eq!(bad, [expected]);
    assert!(n_good >= 8, "its measurements are kept: {n_good}");
}

fn names(request: &mut Value, change: impl FnOnce(&str) -> String) {
    let names = request["metadata"][COVARIANCE_OF].as_str().unwrap().to_owned();
    request["metadata"][COVARIANCE_OF] = json!(change(&names));
}

fn entries(request: &mut Value, change: impl FnOnce(&mut Vec<String>)) {
    let mut entries: Vec<String> = request["metadata"][COVARIANCE]
        .as_str()
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect();
    change(&mut entries);
    request["metadata"][COVARIANCE] = json!(entries.join(","));
}

#[test]
fn what_is_published_is_read_to_the_last_digits() {
    let sent = boundary();
    let (n_good, bad, read, _) = read(&message(&sent));
    let read = read.unwrap();
    assert_eq!((n_good, bad.len()), (9, 0));
    for (row, (a, b)) in sent.values().into_iter().zip(read.values()).enumerate() {
        assert!((a - b).abs() <= 1e-12 * a.abs(), "{row}: {a} {b}");
        for column in 0..N_QUANTITIES {
            let (a, b) = (sent.covariance[row][column], read.covariance[row][column]);
            assert!(
                (a - b).abs() <= 1e-14 * sent.sigma(row) * sent.sigma(column),
                "{row} {column}: {a} {b}"
            );
        }
    }
}

#[test]
fn the_order_of_names_members_and_other_metadata_makes_no_difference() {
    let as_sent = message(&boundary());
    let (.., expected, hash) = read(&as_sent);
    let mut turned = as_sent.clone();
    // two names change places, and with them two rows
    let request = &mut turned["request"];
    names(request, |names| {
        let mut names: Vec<&str> = names.split(',').collect();
        names.swap(0, 1);
        names.join(" , ")
    });
    entries(request, |entries| {
        let at = |row: usize, column: usize| row * (row + 1) / 2 + column;
        entries.swap(at(0, 0), at(1, 1));
        (2..N_QUANTITIES).for_each(|row| entries.swap(at(row, 0), at(row, 1)));
    });
    request["metadata"]["site"] = json!("cellar");
    // not a text: of no interest here
    request["metadata"]["floor"] = json!(-1);
    let (.., boundary, turned_hash) = read(&turned);
    assert_eq!((boundary, turned_hash), (expected, hash));
    let metadata = serde_json::to_string(&turned["request"]["metadata"]).unwrap();
    let measurements = serde_json::to_string(&turned["request"]["measurements"]).unwrap();
    let payload = format!(
        r#"{{"request":{{"metadata":{metadata},"measurements":{measurements},"updateState":true}},"type":"DeviceMeasurements","hardwareId":"K-1"}}"#
    );
    assert_eq!(read(&serde_json::from_str(&payload).unwrap()).3, hash);
    let mut decoder = Decoder::new();
    assert_eq!(
        decoder.decode(payload.as_bytes()).unwrap().content_hash,
        hash,
        "metadata before measurements"
    );
}

#[test]
fn another_covariance_is_another_message_and_other_metadata_are_none() {
    let mut wider = boundary();
    wider.covariance[0][0] *= 1.5;
    assert_ne!(read(&message(&wider)).3, read(&message(&boundary())).3);
    let plain = |metadata: Value| {
        json!({"hardwareId": "K-1", "type": "DeviceMeasurements",
        "request": {"measurements": {"electricity.voltage.rms.l1": 230.1}, "metadata": metadata}})
    };
    for metadata in [
        json!({"site": "cellar"}),
        json!({}),
        json!("cellar"),
        json!({"floor": [1]}),
        json!({"covariance": null}),
    ] {
        let (n_good, bad, boundary, hash) = read(&plain(metadata.clone()));
        assert_eq!((n_good, bad.len(), boundary), (1, 0, None), "{metadata}");
        assert_eq!(hash, read(&plain(Value::Null)).3);
    }
}

#[test]
fn powers_in_both_directions_are_one_net_power() {
    let mut message = message(&boundary());
    let request = &mut message["request"];
    // 1,250.5 W in l1 as 1,500 consumed and 249.5 injected, uncorrelated
    request["measurements"]["electricity.power.active.consumed.l1"] = json!(1.5);
    request["measurements"]["electricity.power.active.injected.l1"] = json!(0.2495);
    names(request, |names| format!("{names},electricity.power.active.injected.l1"));
    entries(request, |entries| {
        entries.extend(["0"; 9].map(str::to_owned).into_iter().chain(["1e-4".to_owned()]))
    });
    let (_, bad, read, _) = read(&message);
    let read = read.unwrap_or_else(|| panic!("{bad:?}"));
    assert!((read.active_w[0] - 1_250.5).abs() < 1e-9);
    assert!((read.covariance[3][3] - (400.0 + 100.0)).abs() < 1e-9);
}

#[test]
fn what_is_wrong_with_a_covariance_is_rejected_by_name_and_its_measurements_are_kept() {
    rejected(
        |request| drop(request["metadata"].as_object_mut().unwrap().remove(COVARIANCE)),
        "wrong_shape: covariance: there is covariance.of, and no covariance",
    );
    rejected(
        |request| drop(request["metadata"].as_object_mut().unwrap().remove(COVARIANCE_OF)),
        "wrong_shape: covariance: there is covariance, and no covariance.of",
    );
    rejected(
        |request| request["metadata"][COVARIANCE] = json!([1, 2]),
        "wrong_shape: covariance: covariance is not a text",
    );
    rejected(
        |request| entries(request, |entries| drop(entries.pop())),
        "wrong_shape: covariance: has 44 entries, the lower triangle of 9 rows has 45",
    );
    rejected(
        |request| entries(request, |entries| entries[7] = "1,5e-3".to_owned()),
        "wrong_shape: covariance: has 46 entries, the lower triangle of 9 rows has 45",
    );
    rejected(
        |request| request["metadata"][COVARIANCE] = json!("1".repeat(COVARIANCE_LEN_MAX + 1)),
        "wrong_shape: covariance: covariance has 16385 bytes, the limit is 16384",
    );
    for bad in ["NaN", "inf", "", "one", "1e999"] {
        let expected = format!("not_a_number: covariance: entry 3 is \"{bad}\"");
        rejected(|request| entries(request, |entries| entries[2] = bad.to_owned()), &expected);
    }
    rejected(
        |request| names(request, |names| names.replace("rms.l2", "rms.l7")),
        "unknown_identifier: covariance: covariance.of names electricity.voltage.rms.l7",
    );
    rejected(
        |request| names(request, |names| names.replace("voltage.rms.l2", "voltage.phase.l2")),
        "wrong_shape: covariance: covariance.of names electricity.voltage.phase.l2, which is no voltage or power of l1, l2 or l3",
    );
    rejected(
        |request| names(request, |names| names.replace("rms.l2", "rms.l1")),
        "wrong_shape: covariance: covariance.of names electricity.voltage.rms.l1 twice",
    );
    rejected(
        |request| names(request, |names| names.replace("active.injected.l2", "active.consumed.l2")),
        "wrong_shape: covariance: electricity.power.active.consumed.l2 is not among the good measurements",
    );
    rejected(
        |request| {
            names(request, |names| names.rsplit_once(',').unwrap().0.to_owned());
            entries(request, |entries| entries.truncate(36));
        },
        "wrong_shape: covariance: covariance.of names no reactive power of l3; name all of l1, l2 and l3",
    );
    rejected(
        |request| entries(request, |entries| entries[5] = "-0.36".to_owned()),
        "out_of_range: covariance: is not positive definite: electricity.voltage.rms.l3 has no variance that the names before it leave unexplained",
    );
    rejected(
        |request| entries(request, |entries| entries[1] = "0.2".to_owned()),
        "out_of_range: covariance: is not positive definite: electricity.voltage.rms.l2 has no variance that the names before it leave unexplained",
    );
}

#[test]
fn a_named_measurement_that_is_bad_itself_leaves_no_boundary() {
    let mut message = message(&boundary());
    message["request"]["measurements"]["electricity.voltage.rms.l1"] = json!(-230);
    let (n_good, bad, boundary, _) = read(&message);
    assert_eq!((n_good, boundary), (8, None));
    assert!(bad[0].starts_with("out_of_range: electricity.voltage.rms.l1: -230 V"), "{bad:?}");
    assert_eq!(
        bad[1],
        "wrong_shape: covariance: electricity.voltage.rms.l1 is not among the good measurements"
    );
}

#[test]
fn a_sitewhere_batch_may_have_covariances_too() {
    let request = message(&boundary())["request"].clone();
    let plain = json!({"measurements": {"electricity.voltage.rms.l1": 230.1}});
    let batch = json!({"hardwareId": "K-1", "measurements": [plain, request, plain]}).to_string();
    let mut has_boundary = Vec::new();
    Decoder::new().decode_legacy_batch(batch.as_bytes(), |_, message| {
        let Body::Measurements { boundary, .. } = message.unwrap().body else {
            panic!("another body")
        };
        has_boundary.push(boundary.is_some());
    });
    assert_eq!(has_boundary, [false, true, false]);
}

#[test]
fn the_example_of_the_documentation_is_one() {
    let text = include_str!("../../../docs/mqtt.md");
    let example = text
        .lines()
        .find(|line| line.starts_with('{') && line.contains(COVARIANCE_OF))
        .unwrap();
    let (n_good, bad, boundary, _) = read(&serde_json::from_str(example).unwrap());
    assert_eq!((n_good, bad.len()), (9, 0), "{bad:?}");
    assert_eq!(boundary.unwrap().active_w, [1_700.0, 900.0, -300.0]);
}
