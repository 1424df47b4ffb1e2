//! Kill -9 at random moments, under load: nothing acknowledged is lost, nothing is there twice, and it is back within ten seconds.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::foreign;
use crate::ledger::{self, Ledger, Load};
use crate::server::Server;
use crate::skipped;
use kafka_server::KafkaServer;

#[path = "../servers/kafka.rs"]
mod kafka_server;

/// Everything that writes does so as often as it can, so that the kills find it writing.
const RESTLESS: [(&str, &str); 2] = [("engine.checkpoint_s", "1"), ("lake.commit_s", "1")];
/// Set to repeat a run.
const SEED_VARIABLE: &str = "FLEXMETER_SEED";
const N_KILLS: u32 = 30;
const N_KILLS_KAFKA: u32 = 4;
const N_DEVICES: usize = 16;
/// Fewer would prove nothing: a slow machine goes on after the last kill until it has them.
const N_MESSAGES_LEAST: usize = 600;
const LOAD_DEADLINE: Duration = Duration::from_secs(60);
/// A process lives at most this long after it is ready.
const LIFE_MS_MAX: u64 = 1_500;
/// One kill in this many hits a process that is still starting.
const EARLY_KILL_EVERY: u64 = 6;
/// Then it lives at most this long after it was spawned.
const EARLY_LIFE_MS_MAX: u64 = 400;
/// What the README promises.
const RECOVERY_MAX: Duration = Duration::from_secs(10);
const APPLIED_DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_under_load_lose_nothing_and_double_nothing() {
    let _load = crate::LOAD.lock().await;
    kill_under_load(&RESTLESS, N_KILLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_as_the_log_kills_lose_nothing_either() {
    let _load = crate::LOAD.lock().await;
    let kafka = match KafkaServer::start(answers_kafka) {
        Ok(kafka) => kafka,
        Err(why) => return skipped("kills with Kafka as the log", &why),
    };
    let mut settings = RESTLESS.to_vec();
    settings.extend([("log.kind", "kafka"), ("log.kafka.brokers", &kafka.brokers)]);
    kill_under_load(&settings, N_KILLS_KAFKA).await;
}

async fn kill_under_load(settings: &[(&str, &str)], n_kills: u32) {
    let seed = seed();
    eprintln!("seed {seed} ({SEED_VARIABLE}={seed} repeats the moments of the kills)");
    let mut random = SplitMix(seed);
    let mut server = Server::with(settings);
    let address = Arc::new(Mutex::new(server.addresses().mqtt));
    let load = Arc::new(Load::default());
    let publish = |i| tokio::spawn(ledger::publish(format!("kill-{i}"), Arc::clone(&address), Arc::clone(&load)));
    let devices: Vec<_> = (0..N_DEVICES).map(publish).collect();

    let mut slowest = Duration::ZERO;
    for kill in 0..n_kills {
        if random.below(EARLY_KILL_EVERY) == 0 {
            server.kill();
            let _ready = server.spawn();
            tokio::time::sleep(Duration::from_millis(random.below(EARLY_LIFE_MS_MAX))).await;
        } else {
            tokio::time::sleep(Duration::from_millis(random.below(LIFE_MS_MAX))).await;
            assert!(server.is_running(), "the server ended by itself before kill {kill}, seed {seed}");
        }
        server.kill();
        let recovery = server.start();
        *address.lock().unwrap() = server.addresses().mqtt;
        assert!(recovery < RECOVERY_MAX, "recovery after kill {kill} took {recovery:?}, seed {seed}");
        slowest = slowest.max(recovery);
    }
    let deadline = Instant::now() + LOAD_DEADLINE;
    while load.n_acknowledged.load(Ordering::Relaxed) < N_MESSAGES_LEAST && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    load.stop.store(true, Ordering::Relaxed);
    let mut ledgers = Vec::new();
    for device in devices {
        ledgers.push(device.await.unwrap());
    }
    check(server, &ledgers, slowest, seed).await;
}

/// The ledgers against SQL, against the lake, and against SQL once more after a clean stop.
async fn check(mut server: Server, ledgers: &[Ledger], slowest: Duration, seed: u64) {
    let n_good: usize = ledgers.iter().map(|ledger| ledger.good.len()).sum();
    let n_broken: usize = ledgers.iter().map(|ledger| ledger.broken.len()).sum();
    let n_sent_again: u64 = ledgers.iter().map(|ledger| ledger.n_sent_again).sum();
    eprintln!(
        "{} messages acknowledged, {n_sent_again} of them sent again, slowest recovery {slowest:?}",
        n_good + n_broken
    );
    assert!(
        n_good + n_broken >= N_MESSAGES_LEAST && n_sent_again > 0,
        "too little load to prove anything: {n_good} readings, {n_broken} broken ones, {n_sent_again} sent again"
    );

    server
        .wait_for_count("SELECT count(*) FROM measurements", n_good as u64, APPLIED_DEADLINE)
        .await;
    compare(&server, ledgers, seed).await;
    server.stop();
    foreign::check_lake_count(&server, "measurements", n_good as u64);
    foreign::check_lake_count(&server, "rejections", n_broken as u64);
    server.start();
    compare(&server, ledgers, seed).await;
}

/// Whether a Kafka broker answers an ApiVersions request (version 0: every broker knows it).
fn answers_kafka(brokers: &str) -> bool {
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let ask = || {
        let mut stream = TcpStream::connect(brokers)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&REQUEST)?;
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        std::io::Result::Ok(head[7] == 1)
    };
    ask().unwrap_or(false)
}

/// Ledger = SQL, message by message.
async fn compare(server: &Server, ledgers: &[Ledger], seed: u64) {
    let rows = server.sql("SELECT hardware_id, value FROM measurements").await;
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in &rows {
        found
            .entry(row["hardware_id"].as_str().unwrap().to_owned())
            .or_default()
            .push(row["value"].as_f64().unwrap() as u64);
    }
    let rejected = server.sql("SELECT payload FROM rejections").await;
    let mut rejected: Vec<&str> = rejected.iter().map(|row| row["payload"].as_str().unwrap()).collect();
    rejected.sort_unstable();
    for ledger in ledgers {
        let mut numbers = found.remove(&ledger.device).unwrap_or_default();
        numbers.sort_unstable();
        assert_eq!(numbers, ledger.good, "measurements of {}, seed {seed}", ledger.device);
    }
    assert!(
        found.is_empty(),
        "rows of devices that do not exist: {:?}, seed {seed}",
        found.keys()
    );
    let mut broken: Vec<String> = Vec::new();
    for ledger in ledgers {
        broken.extend(ledger.broken.iter().map(|number| ledger::payload(&ledger.device, *number)));
    }
    broken.sort_unstable();
    assert_eq!(rejected, broken, "rejections, seed {seed}");
}

fn seed() -> u64 {
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64,
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
