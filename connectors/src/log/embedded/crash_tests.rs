//! Power cuts, kill -9, bit rot, a full disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{EmbeddedLog, EmbeddedOptions};
use crate::log::contract::{Seen, device_of, message, read_all};
use crate::log::{InboundLog, LogError, LogPosition, Retry};

async fn open(dir: &Path, options: EmbeddedOptions) -> EmbeddedLog {
    EmbeddedLog::open(dir, options).await.unwrap()
}

fn one_partition() -> EmbeddedOptions {
    EmbeddedOptions {
        n_partitions: 1,
        ..Default::default()
    }
}

/// Copies a folder while it is in use: what a crash would leave.
fn crash_image(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            crash_image(&entry.path(), &to);
        } else if to.extension().is_some_and(|e| e == "jnl") {
            let data = fs::read(entry.path()).unwrap();
            let zeros = data.rchunks(4096).take_while(|page| **page == [0; 4096]).count() * 4096;
            fs::write(to, &data[..data.len() - zeros]).unwrap(); // 64 MiB of zeros are not worth copying
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn newest_journal(dir: &Path) -> PathBuf {
    let journals = fs::read_dir(dir.join("store")).unwrap().map(|e| e.unwrap().path());
    journals.filter(|p| p.extension().is_some_and(|e| e == "jnl")).max().unwrap()
}

fn offsets(seen: &[Seen]) -> Vec<u64> {
    seen.iter().map(|s| s.offset).collect()
}

/// Appends ten records one by one, takes a crash image, lets `harm` change its journal, and gives what is left and the next offset.
async fn after_harm(harm: impl Fn(&mut Vec<u8>)) -> (Vec<u64>, u64, Vec<PathBuf>) {
    let root = tempfile::tempdir().unwrap();
    let (live, dir) = (root.path().join("live"), root.path().join("crashed"));
    let log = open(&live, one_partition()).await;
    for i in 0..10 {
        log.append(vec![message("m", format!("reading number {i}"))]).await.unwrap();
    }
    crash_image(&live, &dir);
    let journal = newest_journal(&dir);
    let mut data = fs::read(&journal).unwrap();
    let len = data.iter().rposition(|b| *b != 0).unwrap() + 1;
    data.truncate(len);
    harm(&mut data);
    fs::write(&journal, data).unwrap();

    let log = open(&dir, one_partition()).await;
    let seen = read_all(&log, 0, 0).await;
    for s in &seen {
        assert_eq!(s.payload, format!("reading number {}", s.offset).as_bytes());
    }
    let next = log.append(vec![message("m", "next")]).await.unwrap()[0].offset;
    assert_eq!(read_all(&log, 0, next).await[0].payload, b"next");
    log.close().await.unwrap();
    // and once more: what was repaired stays so
    let log = open(&dir, one_partition()).await;
    assert_eq!(read_all(&log, 0, 0).await.len(), seen.len() + 1);
    let kept = fs::read_dir(dir.join("store")).unwrap().map(|e| e.unwrap().path());
    (
        offsets(&seen),
        next,
        kept.filter(|p| p.extension().is_some_and(|e| e == "damaged")).collect(),
    )
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_nothing_before_it_is_lost() {
    let nine: Vec<u64> = (0..9).collect();
    let ten: Vec<u64> = (0..10).collect();
    // cut off inside the last batch, at several places
    for n_cut in [1, 5, 14, 20, 40] {
        assert_eq!(
            after_harm(|data| data.truncate(data.len() - n_cut)).await,
            (nine.clone(), 9, vec![]),
            "{n_cut} bytes cut"
        );
    }
    // pages of the last batch that never reached the disk, while others did
    let (seen, next, _) = after_harm(|data| {
        let len = data.len();
        data[len - 30..len - 15].fill(0);
    })
    .await;
    assert_eq!((seen, next), (nine, 9));
    // a batch that was only begun
    assert_eq!(
        after_harm(|data| data.extend_from_slice(&[1, 1, 0, 0, 0, 99, 0])).await,
        (ten.clone(), 10, vec![])
    );
    assert_eq!(after_harm(|data| data.extend_from_slice(&[0xa5; 5000])).await, (ten, 10, vec![]));
}

#[tokio::test]
async fn a_damaged_byte_costs_its_own_group_and_is_reported() {
    let (seen, next, kept) = after_harm(|data| {
        let at = data.windows(16).position(|w| w == b"reading number 4").unwrap();
        data[at] ^= 1;
    })
    .await;
    assert_eq!(seen, [0, 1, 2, 3, 5, 6, 7, 8, 9], "only the damaged record is missing");
    assert_eq!(next, 10);
    assert_eq!(kept.len(), 1, "the damaged journal is kept for the operator");
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_appends_until_it_is_killed() {
    let Ok(dir) = std::env::var("FLEXMETER_LOG_CHILD") else { return };
    let log = Arc::new(
        open(
            Path::new(&dir),
            EmbeddedOptions {
                n_partitions: 2,
                ..Default::default()
            },
        )
        .await,
    );
    let appenders: Vec<_> = (0..16)
        .map(|device| {
            let log = log.clone();
            tokio::spawn(async move {
                for i in 0_u64.. {
                    let record = message(&format!("meter-{device}"), format!("{device}/{i}"));
                    let positions = log.append(vec![record]).await.unwrap();
                    let LogPosition { partition, offset } = positions[0];
                    println!("acknowledged {partition} {offset} {device}/{i}");
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("log");
    let mut acknowledged: BTreeMap<(u32, u64), String> = BTreeMap::new();
    for round in 0..5_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "log::embedded::crash_tests::child_that_appends_until_it_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env("FLEXMETER_LOG_CHILD", &dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut n = 0;
        for line in lines {
            let Some(rest) = line.split("acknowledged ").nth(1) else { continue };
            let fields: Vec<_> = rest.split(' ').collect();
            let [partition, offset, payload] = fields[..] else { continue };
            let Ok(offset) = offset.parse() else { continue };
            if payload.split('/').count() == 2 {
                acknowledged.insert((partition.parse().unwrap(), offset), payload.to_owned());
            }
            n += 1;
            if n == 200 + 137 * round {
                child.kill().unwrap(); // what is still in the pipe is read to its end: it was acknowledged, too
            }
        }
        child.wait().unwrap();
        let started = Instant::now();
        let log = open(
            &dir,
            EmbeddedOptions {
                n_partitions: 2,
                ..Default::default()
            },
        )
        .await;
        assert!(started.elapsed() < Duration::from_secs(10), "recovered in {:?}", started.elapsed());
        let mut found = BTreeMap::new();
        for partition in 0..2 {
            for seen in read_all(&log, partition, 0).await {
                found.insert((partition, seen.offset), String::from_utf8(seen.payload).unwrap());
            }
        }
        for (position, payload) in &acknowledged {
            // the very last line may have been cut off by the kill, so a prefix is enough
            assert!(
                found.get(position).is_some_and(|f| f.starts_with(payload.as_str())),
                "{position:?} {payload} in round {round}"
            );
        }
        log.close().await.unwrap();
    }
    assert!(acknowledged.len() > 1000);
}

/// A small file system of its own; `None`, with the reason printed, where we may not mount one.
struct SmallDisk(PathBuf, #[expect(dead_code, reason = "removes the mount point")] tempfile::TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir.path().to_owned(), dir)),
            Ok(output) => {
                println!("SKIPPED: cannot mount a tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED: cannot run mount: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Appends to a disk of 64 MiB until it is refused, frees space, and goes on.
async fn fills_up_and_resumes(disk_reserve_bytes: u64, is_expected: impl Fn(&LogError) -> bool) {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 24 * 1024 * 1024]).unwrap();
    let dir = disk.0.join("log");
    let options = EmbeddedOptions {
        disk_reserve_bytes,
        ..one_partition()
    };
    let log = open(&dir, options.clone()).await;
    let payload = |i: u64| {
        let mut state = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let random = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        random.take(256 * 1024).collect::<Vec<u8>>()
    };
    let mut n = 0;
    let error = loop {
        match log.append(vec![message("m", payload(n))]).await {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
        assert!(n < 400, "the disk never filled up");
    };
    assert!(is_expected(&error), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
    assert!(n > 10, "something fitted: {n}");
    assert_eq!(log.bounds(0).await.unwrap(), 0..n, "what failed is not readable");
    assert_eq!(read_all(&log, 0, 0).await.len() as u64, n, "what was acknowledged stays readable");

    fs::remove_file(&ballast).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = log.append(vec![message("m", payload(n))]).await {
        assert!(Instant::now() < deadline, "does not resume: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    log.close().await.unwrap();
    let log = open(&dir, options).await;
    let seen = read_all(&log, 0, 0).await;
    assert_eq!(offsets(&seen), (0..=n).collect::<Vec<_>>());
    assert!(
        seen.iter().all(|s| s.payload == payload(s.offset)),
        "every record is what was acknowledged at its offset"
    );
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_stops_appends_until_there_is_room() {
    fills_up_and_resumes(8 * 1024 * 1024, |e| matches!(e, LogError::DiskFull { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_group_and_the_log_heals_itself() {
    // without the reserve the write itself fails, which fjall does not survive: the store is opened anew
    fills_up_and_resumes(0, |e| matches!(e, LogError::Storage { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncating_gives_the_disk_space_back() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("log");
    let options = EmbeddedOptions {
        n_partitions: 2,
        memtables_bytes: 4 * 1024 * 1024,
        ..Default::default()
    };
    let log = open(&dir, options).await;
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let device = device_of(1, 2);
    for _ in 0..60 {
        let payload: Vec<u8> = std::iter::repeat_with(&mut random).take(512 * 1024).collect();
        log.append(vec![message(&device, payload)]).await.unwrap();
    }
    let used = wait_for(|| tables_bytes(&dir), |bytes| bytes > 20_000_000).await;
    log.truncate_before(1, 55).await.unwrap();
    let left = wait_for(|| tables_bytes(&dir), |bytes| bytes < 8_000_000).await;
    println!("tables before truncation {used} bytes, after {left}");
    assert_eq!(read_all(&log, 1, 55).await.len(), 5);
}

fn tables_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => tables_bytes(&entry.path()),
        _ if entry.path().extension().is_some_and(|e| e == "jnl") => 0,
        _ => entry.metadata().map_or(0, |m| m.len()),
    };
    entries.flatten().map(size).sum()
}

async fn wait_for(value: impl Fn() -> u64, is_reached: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let now = value();
        if is_reached(now) {
            return now;
        }
        assert!(Instant::now() < deadline, "still {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
