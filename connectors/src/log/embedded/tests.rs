//! What only the embedded log promises; the rest is in `log/contract.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tempfile::TempDir;

use super::{EmbeddedLog, EmbeddedOptions};
use crate::log::contract::{self, Factory, Place, message, read_all};
use crate::log::{InboundLog, LogError};

/// Folders below one that goes when the test ends.
struct Folders {
    root: TempDir,
    n_made: AtomicU32,
}

struct Folder {
    dir: PathBuf,
    n_partitions: u32,
}

#[async_trait]
impl Factory for Folders {
    async fn place(&self, n_partitions: u32) -> Box<dyn Place> {
        let dir = self.root.path().join(self.n_made.fetch_add(1, Ordering::Relaxed).to_string());
        Box::new(Folder { dir, n_partitions })
    }
}

#[async_trait]
impl Place for Folder {
    async fn open(&self) -> Arc<dyn InboundLog> {
        Arc::new(open(self.dir.clone(), self.n_partitions).await.unwrap())
    }
}

async fn open(dir: PathBuf, n_partitions: u32) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(
        &dir,
        EmbeddedOptions {
            n_partitions,
            ..Default::default()
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_log_keeps_the_contract() {
    contract::all(&Folders {
        root: tempfile::tempdir().unwrap(),
        n_made: AtomicU32::new(0),
    })
    .await;
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_closes() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path().to_owned(), 1).await.unwrap();
    let refused = open(dir.path().to_owned(), 1).await;
    assert!(matches!(&refused, Err(LogError::InUse { .. })), "{:?}", refused.err());
    log.close().await.unwrap();
    open(dir.path().to_owned(), 1).await.unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path().to_owned(), 3).await.unwrap().close().await.unwrap();
    let text = open(dir.path().to_owned(), 4).await.err().unwrap().to_string();
    assert!(
        text.contains("has 3 partitions, 4 are configured; set log.partitions = 3"),
        "{text}"
    );
    assert!(matches!(
        open(dir.path().to_owned(), 0).await.err(),
        Some(LogError::PartitionCount { n_partitions: 0 })
    ));
}

#[tokio::test]
async fn a_folder_of_another_version_or_purpose_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("format"), "version = 99\npartitions = 1\n").unwrap();
    let text = open(dir.path().to_owned(), 1).await.err().unwrap().to_string();
    assert!(text.contains("its version is 99, this program knows 1"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), "").unwrap();
    let text = open(dir.path().to_owned(), 1).await.err().unwrap().to_string();
    assert!(text.contains("holiday.jpg"), "{text}");
}

#[tokio::test]
async fn a_half_made_store_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("format"), "version = 1\npartitions = 1\n").unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    std::fs::write(dir.path().join("store/0.jnl"), "").unwrap();
    let log = open(dir.path().to_owned(), 1).await.unwrap();
    log.append(vec![message("m", "x")]).await.unwrap();
}

/// A message as a meter sends it, about 300 bytes.
fn reading(hardware_id: &str, i: u32) -> String {
    let power = f64::from(i.wrapping_mul(2_654_435_761) >> 12) / 1e5;
    format!(
        r#"{{"hardwareId":"{hardware_id}","type":"DeviceMeasurements","request":{{"measurements":{{"electricity.power.active.consumed.l1":{power:.3},"electricity.power.active.consumed.l2":{:.3},"electricity.voltage.rms.l1":{:.2}}},"updateState":true,"eventDate":"2016-02-10T19:{:02}:{:02}.391+02:00"}}}}"#,
        power / 3.0,
        230.0 + power / 1e4,
        i / 60 % 60,
        i % 60
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_appenders_lose_nothing() {
    const N_EACH: u32 = 20;
    let dir = tempfile::tempdir().unwrap();
    let n_partitions = 4;
    let log = Arc::new(open(dir.path().join("log"), n_partitions).await.unwrap());
    let appenders: Vec<_> = (0..1000)
        .map(|device| {
            let log = log.clone();
            tokio::spawn(async move {
                let id = format!("meter-{device}");
                for i in 0..N_EACH {
                    log.append(vec![message(&id, reading(&id, i))]).await.unwrap();
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    let mut n = 0;
    for partition in 0..n_partitions {
        n += read_all(&*log, partition, 0).await.len();
    }
    assert_eq!(n as u32, 1000 * N_EACH);
    log.close().await.unwrap();
}
