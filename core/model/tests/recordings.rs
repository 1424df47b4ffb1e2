//! The recordings that lie beside the repository: every line that was broken on purpose is rejected for exactly the reason that is
//! listed, and no other line is. Skipped, loudly, where the recordings are not there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::path::PathBuf;

use flexmeter_model::decode::{Body, Decoder};
use flexmeter_model::split::split_payload;

/// Reasons by line (from 1) as a recording's `events.csv` writes them: `code` or `code:what`.
type Reasons = BTreeMap<usize, String>;

/// A recording's messages and the reasons listed for it.
fn recording(name: &str) -> Option<(String, Reasons)> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let folder = std::env::var_os("FLEXMETER_TEST_DATA")
        .map_or_else(beside, PathBuf::from)
        .join(name);
    let Ok(compressed) = std::fs::read(folder.join("messages.jsonl.gz")) else {
        // past the test runner, which swallows what a passing test prints
        let _ = writeln!(std::io::stderr(), "SKIPPED recording {name}: {} is not there", folder.display());
        return None;
    };
    let mut messages = String::new();
    flate2::read::GzDecoder::new(compressed.as_slice())
        .read_to_string(&mut messages)
        .unwrap();
    let events = std::fs::read_to_string(folder.join("events.csv")).unwrap();
    let malformed = events
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|fields| fields[1] == "malformed");
    let reasons: Reasons = malformed.map(|fields| (fields[2].parse().unwrap(), fields[5].to_owned())).collect();
    // an exact repeat of a broken line is as broken
    let mut reasons_of_all = reasons.clone();
    for fields in events
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|fields| fields[1] == "duplicate")
    {
        let original = fields[5]
            .split_once('=')
            .map_or(fields[5], |(_, line)| line)
            .parse::<usize>()
            .unwrap();
        if let Some(reason) = reasons.get(&original) {
            reasons_of_all.insert(fields[2].parse().unwrap(), reason.clone());
        }
    }
    Some((messages, reasons_of_all))
}

fn check(name: &str) {
    let Some((messages, expected)) = recording(name) else { return };
    let mut decoder = Decoder::new();
    let mut found = Reasons::new();
    for (i, line) in messages.lines().enumerate() {
        let pieces: Vec<_> = split_payload(line.as_bytes()).collect();
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].bytes, line.as_bytes());
        let mut note = |reason: String| assert_eq!(found.insert(i + 1, reason), None, "two reasons for line {}", i + 1);
        match decoder.decode(line.as_bytes()) {
            Ok(message) => {
                assert_eq!(pieces[0].hardware_id.as_deref(), Some(&*message.hardware_id));
                assert!(message.event_date.is_some());
                if let Body::Measurements { bad, .. } = message.body {
                    bad.iter().for_each(|bad| note(format!("{}:{}", bad.reason.as_str(), bad.detail)));
                }
            }
            Err(error) if error.reason.as_str() == "missing_field" => note(format!("missing_field:{}", error.detail)),
            Err(error) => note(error.reason.as_str().to_owned()),
        }
    }
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

#[test]
fn every_broken_line_of_the_european_feeder_is_rejected_for_its_reason() {
    check("european-lv");
}

#[test]
fn every_broken_line_of_the_district_is_rejected_for_its_reason() {
    check("district-small");
}
