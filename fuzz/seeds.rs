//! Writes the first inputs of every target to `fuzz/corpus/<target>/`: one of each message, and what is close to the limits.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --bin seeds`

use std::io;
use std::path::Path;

use flexmeter_model::message::{DeviceMessage, DeviceRequest};
use flexmeter_model::outcome::AlertLevel;
use flexmeter_model::record::{Record, RecordKind};
use flexmeter_model::{EventTime, Identifier};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let messages = messages();
    let batch = [b"[", messages.join(&b","[..]).as_slice(), b"]"].concat();
    let legacy = br#"{"hardwareId":"m","measurements":[{"measurements":{"gas.volume":1}}],"alerts":[{"type":"a"}],"locations":[{}]}"#;
    let odd: [&[u8]; 5] = [
        br#"{"hardwareId":"m","type":"DeviceMeasurements","request":{"measurements":{"gas.volume":1e999,"gas.volume":-0.0,"x":[{}]}}}"#,
        br#"{"request":{"type":"\ud83d\ude00\n","level":null},"type":"Device\u0041lert","hardwareId":"m"}"#,
        br#"{"hardwareId":"m","x":[[[[{"a":[true,false,null,-1.5E+3]}]]]]}"#,
        br#"[{"hardwareId":"a"}{"hardwareId":"b"}]"#,
        b"2016-02-10T19:40:03.391+02:00",
    ];
    let decode: Vec<&[u8]> = messages.iter().map(Vec::as_slice).chain(odd).chain([legacy.as_slice()]).collect();
    write(&corpus.join("decode"), &decode)?;
    write(&corpus.join("split"), &[&decode[..], &[batch.as_slice()]].concat())?;
    let frames: Vec<Vec<u8>> = messages.iter().map(|message| frame(message)).collect();
    write(&corpus.join("record"), &[frames.concat().as_slice(), &frames[0], b""])
}

/// One of each message the format knows.
fn messages() -> Vec<Vec<u8>> {
    let time = Some(EventTime::from_micros(1_455_126_003_391_000));
    let values = Identifier::ALL.into_iter().step_by(9).map(|id| (id, id.range().1 / 3.0));
    let mut alert = DeviceMessage::alert("m-2", time, "switch.position", AlertLevel::Info);
    if let DeviceRequest::Alert(alert) = &mut alert.request {
        alert.message = "opened \"by hand\"".to_owned();
        alert.metadata = vec![("position".to_owned(), "open".to_owned())];
    }
    let messages = [
        DeviceMessage::measurements("m-1", time, values),
        alert,
        DeviceMessage::acknowledge("m-3", None, "e-1", "done"),
        DeviceMessage::register("m-4", "s", Some("t".to_owned())),
    ];
    messages.iter().filter_map(|message| serde_json::to_vec(message).ok()).collect()
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let received_at = EventTime::from_micros(1);
    Record {
        kind: RecordKind::Message,
        tenant: "default",
        hardware_id: "m",
        bound: true,
        redelivered: false,
        received_at,
        payload,
    }
    .encode(&mut frame);
    frame
}

fn write(folder: &Path, seeds: &[&[u8]]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    seeds
        .iter()
        .enumerate()
        .try_for_each(|(i, seed)| std::fs::write(folder.join(format!("seed-{i}")), seed))
}
