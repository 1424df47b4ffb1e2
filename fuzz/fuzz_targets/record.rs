//! A block of the log with any bytes: iterating ends, and frames that are read are written the same again.
#![no_main]

use flexmeter_model::record::RecordBlock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let block = RecordBlock {
        partition: 0,
        base_offset: 7,
        n_records: u32::MAX,
        data: data.to_vec(),
    };
    let mut offset = 7;
    for read in block.iter() {
        let Ok((at, record)) = read else { break };
        assert_eq!(at, offset);
        offset += 1;
        let mut frame = Vec::new();
        record.encode(&mut frame);
        let again = RecordBlock {
            data: frame,
            n_records: 1,
            ..block.clone()
        };
        assert!(again.iter().all(|read| read.is_ok_and(|(_, back)| back == record)));
    }
});
