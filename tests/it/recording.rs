//! A recording read a second time, with serde_json and plain maps and nothing of Flexmeter's: what the street must have made of it.
//!
//! `events.csv` says which lines are repeats and which are broken, and how; everything else must have been accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Names another folder of recordings; the default is beside the repository.
const FOLDER_VARIABLE: &str = "FLEXMETER_TEST_DATA";
const MICROS_PER_WINDOW: i64 = 15 * 60 * 1_000_000;

/// The folder of a recording, if this machine has it.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = std::env::var_os(FOLDER_VARIABLE).map_or_else(beside, PathBuf::from).join(name);
    folder.join("messages.jsonl.gz").is_file().then_some(folder)
}

/// Device, identifier and event time (microseconds since 1970, UTC).
pub(crate) type ReadingKey = (String, String, i64);
/// Device, window start and identifier.
pub(crate) type ProfileKey = (String, i64, String);

/// A row of `load_profile_15m`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    pub(crate) n: u64,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) last: f64,
}

/// What a recording must become.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) n_lines: usize,
    pub(crate) n_duplicates: usize,
    pub(crate) measurements: BTreeMap<ReadingKey, f64>,
    /// Device, type and event time.
    pub(crate) alerts: BTreeSet<(String, String, i64)>,
    /// Broken line → its code and what the detail must mention (empty: nothing in particular).
    pub(crate) rejections: BTreeMap<String, (String, String)>,
}

impl Truth {
    /// Reads `messages.jsonl.gz` and `events.csv`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut text = String::new();
        let file = std::fs::File::open(folder.join("messages.jsonl.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        let (duplicates, broken) = read_events(&std::fs::read_to_string(folder.join("events.csv")).unwrap());
        let mut truth = Self {
            n_duplicates: duplicates.len(),
            ..Self::default()
        };
        for (i, line) in text.lines().enumerate() {
            let number = i + 1;
            truth.n_lines = number;
            if duplicates.contains(&number) {
                continue;
            }
            let Some(code) = broken.get(&number) else {
                truth.accept(line, None);
                continue;
            };
            let (code, what) = code.split_once(':').unwrap_or((code, ""));
            truth.rejections.insert(line.to_owned(), (code.to_owned(), what.to_owned()));
            if matches!(code, "unknown_identifier" | "not_a_number") {
                truth.accept(line, Some(what)); // the rest of the message is good
            }
        }
        truth
    }

    fn accept(&mut self, line: &str, without: Option<&str>) {
        let message: Value = serde_json::from_str(line).unwrap();
        let device = message["hardwareId"].as_str().unwrap().to_owned();
        let request = &message["request"];
        let event_time = micros(request["eventDate"].as_str().unwrap());
        match message["type"].as_str().unwrap() {
            "DeviceMeasurements" => {
                for (identifier, value) in request["measurements"].as_object().unwrap() {
                    if without != Some(identifier) {
                        let key = (device.clone(), identifier.clone(), event_time);
                        assert_eq!(
                            self.measurements.insert(key, value.as_f64().unwrap()),
                            None,
                            "two readings of one key: {line}"
                        );
                    }
                }
            }
            "DeviceAlert" => {
                let alert_type = request["type"].as_str().unwrap().to_owned();
                assert!(
                    self.alerts.insert((device, alert_type, event_time)),
                    "two alerts of one key: {line}"
                );
            }
            other => panic!("the recording holds a {other}"),
        }
    }

    /// `load_profile_15m`, recomputed.
    pub(crate) fn load_profile(&self) -> BTreeMap<ProfileKey, Profile> {
        let mut windows: BTreeMap<ProfileKey, Vec<(i64, f64)>> = BTreeMap::new();
        for ((device, identifier, event_time), value) in &self.measurements {
            let window_start = event_time.div_euclid(MICROS_PER_WINDOW) * MICROS_PER_WINDOW;
            windows
                .entry((device.clone(), window_start, identifier.clone()))
                .or_default()
                .push((*event_time, *value));
        }
        let profile = |readings: Vec<(i64, f64)>| Profile {
            n: readings.len() as u64,
            mean: readings.iter().map(|(_, value)| value).sum::<f64>() / readings.len() as f64,
            min: readings.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min),
            max: readings.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max),
            last: readings.iter().max_by_key(|(event_time, _)| *event_time).unwrap().1,
        };
        windows.into_iter().map(|(key, readings)| (key, profile(readings))).collect()
    }

    /// `latest`, recomputed: device and identifier → event time and value.
    pub(crate) fn latest(&self) -> BTreeMap<(String, String), (i64, f64)> {
        // the map is ordered by event time within device and identifier, so the newest comes last and stays
        self.measurements
            .iter()
            .map(|((device, identifier, time), value)| ((device.clone(), identifier.clone()), (*time, *value)))
            .collect()
    }
}

/// The numbers of repeated lines, and of broken lines with their codes.
fn read_events(csv: &str) -> (BTreeSet<usize>, BTreeMap<usize, String>) {
    let (mut duplicates, mut broken) = (BTreeSet::new(), BTreeMap::new());
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        match fields.as_slice() {
            [_, "duplicate", number, ..] => {
                duplicates.insert(number.parse().unwrap());
            }
            [_, "malformed", number, .., detail] => {
                broken.insert(number.parse().unwrap(), (*detail).to_owned());
            }
            _ => {}
        }
    }
    (duplicates, broken)
}

/// Microseconds since 1970 of `2026-11-16T00:00:00.366+01:00` or `…Z`; enough for recordings and for our own answers.
pub(crate) fn micros(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap_or_else(|_| panic!("no date: {text}"));
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // days from civil: years begin in March, so that the leap day is the last one
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    let rest = &text[19..];
    let zone_at = rest.find(['Z', '+', '-']).unwrap_or_else(|| panic!("no zone: {text}"));
    let fraction = rest[..zone_at].trim_start_matches('.');
    let fraction: i64 = format!("{fraction:0<6}")[..6].parse().unwrap();
    let zone = &rest[zone_at..];
    let offset = if zone == "Z" {
        0
    } else {
        zone[1..3].parse::<i64>().unwrap() * 3600 + zone[4..6].parse::<i64>().unwrap() * 60
    };
    let offset = if zone.starts_with('-') { -offset } else { offset };
    (seconds - offset) * 1_000_000 + fraction
}

#[test]
fn dates_are_read_to_the_microsecond() {
    assert_eq!(micros("1970-01-01T00:00:00Z"), 0);
    assert_eq!(micros("2016-02-10T19:40:03.391+02:00"), 1_455_126_003_391_000);
    assert_eq!(micros("2000-02-29T23:59:59.000001-01:30"), 951_874_199_000_001);
}
