//! A device that keeps a ledger: it sends each message until it is acknowledged, and writes down only then.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::mqtt::Connection;

/// Every n-th message is one that must end in `rejections`.
const BROKEN_EVERY: u64 = 25;
/// Pause before a device connects again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Where the server is now; it moves when it is restarted.
pub(crate) type Address = Arc<Mutex<SocketAddr>>;

/// What all devices look at, and write to, while they publish.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Once true, every device finishes the message under way and stops.
    pub(crate) stop: AtomicBool,
    /// Messages acknowledged so far.
    pub(crate) n_acknowledged: AtomicUsize,
}

/// What a device knows when it has stopped: the numbers of its acknowledged messages.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) device: String,
    /// Messages that must be one row of `measurements` each.
    pub(crate) good: Vec<u64>,
    /// Messages that must be one row of `rejections` each.
    pub(crate) broken: Vec<u64>,
    /// Messages that were sent more than once because their acknowledgement never came.
    pub(crate) n_sent_again: u64,
}

/// The payload of a device's n-th message; the number is its event time (in milliseconds of a day) and its value.
pub(crate) fn payload(device: &str, number: u64) -> String {
    let event_date = format!(
        "2026-11-16T{:02}:{:02}:{:02}.{:03}Z",
        number / 3_600_000,
        number / 60_000 % 60,
        number / 1000 % 60,
        number % 1000
    );
    let message_type = if number.is_multiple_of(BROKEN_EVERY) {
        "NoSuchType"
    } else {
        "DeviceMeasurements"
    };
    format!(
        r#"{{"hardwareId":"{device}","type":"{message_type}","request":{{"measurements":{{"electricity.energy.active.consumed.total":{number}}},"updateState":true,"eventDate":"{event_date}"}}}}"#
    )
}

/// Publishes until told to stop, then finishes the message under way, so that in the end every message sent is acknowledged.
pub(crate) async fn publish(device: String, address: Address, load: Arc<Load>) -> Ledger {
    let mut ledger = Ledger {
        device,
        ..Ledger::default()
    };
    let topic = format!("flexmeter/default/{}/events", ledger.device);
    let mut connection = None;
    for number in 1.. {
        if load.stop.load(Ordering::Relaxed) {
            break;
        }
        let payload = payload(&ledger.device, number);
        let mut again = false;
        loop {
            if connection.is_none() {
                let address = *address.lock().unwrap();
                connection = Connection::open(address, &ledger.device, &ledger.device, "any").await.ok();
            }
            let Some(open) = connection.as_mut() else {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            };
            if open.publish(&topic, payload.as_bytes(), again).await.is_ok() {
                break;
            }
            connection = None;
            ledger.n_sent_again += u64::from(!again);
            again = true;
        }
        load.n_acknowledged.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(BROKEN_EVERY) {
            ledger.broken.push(number)
        } else {
            ledger.good.push(number)
        }
    }
    ledger
}
