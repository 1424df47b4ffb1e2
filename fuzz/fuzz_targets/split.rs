//! The splitter on any bytes: pieces lie in the payload one after the other, and a readable array is taken apart into its elements.
#![no_main]

use flexmeter_model::HardwareId;
use flexmeter_model::decode::Decoder;
use flexmeter_model::split::{BATCH_MESSAGES_MAX, split_payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let pieces: Vec<_> = split_payload(payload).collect();
    assert!(pieces.len() <= BATCH_MESSAGES_MAX + 1);
    let mut decoder = Decoder::new();
    let mut n_bytes = 0;
    for piece in &pieces {
        n_bytes += piece.bytes.len();
        assert!(piece.hardware_id.as_deref().is_none_or(|id| HardwareId::check(id).is_ok()));
        if decoder.decode(piece.bytes).is_ok() {
            assert!(piece.hardware_id.is_some(), "a message whose device the splitter did not find");
        }
    }
    // the rest of a broken batch repeats at most one byte
    assert!(n_bytes <= payload.len() + 1);
    if let Ok(serde_json::Value::Array(elements)) = serde_json::from_slice(payload)
        && elements.len() <= BATCH_MESSAGES_MAX
    {
        assert_eq!(pieces.len(), elements.len());
    }
});
