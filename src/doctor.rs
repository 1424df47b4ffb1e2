//! `flexmeter doctor`: checks this machine and this installation, and says what to do about what is wrong.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::checkpoint::CheckpointStore;
use crate::config::Config;
use crate::report::Table;

/// A device waits for one fsync at least: slower disks are worth a word.
const FSYNC_SLOW: Duration = Duration::from_millis(20);
const FSYNC_PROBES: u32 = 20;
/// Every MQTT connection is a descriptor.
const OPEN_FILES_LEAST: u64 = 4_096;
const FREE_BYTES_LEAST: u64 = 2 << 30;
/// A clock before this day (2026-01-01) has not been set.
const CLOCK_EARLIEST_S: u64 = 1_767_225_600;

enum Verdict {
    Good(String),
    Warning(String),
    Bad(String),
}

/// Runs `doctor`.
pub(crate) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let checks: [(&str, Verdict); 8] = [
        ("data_dir", data_dir(&config.data_dir)),
        ("disk sync", fsync(&config.data_dir)),
        ("disk space", space(&config.data_dir)),
        ("open files", open_files()),
        ("clock", clock()),
        ("mqtt.listen", port(config.mqtt.listen)),
        ("rest.listen", port(config.rest.listen)),
        ("flight.listen", port(config.flight.listen)),
    ];
    let mut table = Table::new(["check", "verdict", "finding"]);
    let mut good = true;
    for (name, verdict) in checks.into_iter().chain([("checkpoint", checkpoint(config))]) {
        let (word, text) = match verdict {
            Verdict::Good(text) => ("ok", text),
            Verdict::Warning(text) => ("warning", text),
            Verdict::Bad(text) => {
                good = false;
                ("BAD", text)
            }
        };
        table.row([&name, &word, &text]);
    }
    print!("{}", table.render());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn data_dir(dir: &Path) -> Verdict {
    let probe = dir.join(".doctor");
    match std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, b"x"))
        .and_then(|()| std::fs::remove_file(&probe))
    {
        Ok(()) => Verdict::Good(format!("{} can be written", dir.display())),
        Err(error) => Verdict::Bad(format!("{} cannot be written: {error}; set data_dir", dir.display())),
    }
}

fn fsync(dir: &Path) -> Verdict {
    let path = dir.join(".doctor-sync");
    let measure = || -> std::io::Result<Duration> {
        let mut file = std::fs::File::create(&path)?;
        let mut times = Vec::new();
        for _ in 0..FSYNC_PROBES {
            file.write_all(&[0; 4096])?;
            let started = Instant::now();
            file.sync_data()?;
            times.push(started.elapsed());
        }
        std::fs::remove_file(&path)?;
        times.sort_unstable();
        Ok(times[times.len() / 2])
    };
    match measure() {
        Ok(median) if median > FSYNC_SLOW => Verdict::Warning(format!(
            "a sync takes {:.1} ms (median): every acknowledgement waits that long; use a faster disk",
            median.as_secs_f64() * 1e3
        )),
        Ok(median) => Verdict::Good(format!("a sync takes {:.1} ms (median)", median.as_secs_f64() * 1e3)),
        Err(error) => Verdict::Bad(format!("cannot sync: {error}")),
    }
}

fn space(dir: &Path) -> Verdict {
    let free = rustix::fs::statvfs(dir)
        .ok()
        .map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    match free {
        Some(free) if free < FREE_BYTES_LEAST => Verdict::Warning(format!(
            "{:.1} GiB free: messages are refused when the disk is full",
            free as f64 / (1_u64 << 30) as f64
        )),
        Some(free) => Verdict::Good(format!("{:.1} GiB free", free as f64 / (1_u64 << 30) as f64)),
        None => Verdict::Warning("cannot tell how much is free".to_owned()),
    }
}

fn open_files() -> Verdict {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<u64>().ok());
    match soft {
        Some(soft) if soft < OPEN_FILES_LEAST => Verdict::Warning(format!(
            "at most {soft}: as many connections at most; raise it with `ulimit -n` or LimitNOFILE="
        )),
        Some(soft) => Verdict::Good(format!("at most {soft}")),
        None => Verdict::Warning("cannot tell the limit".to_owned()),
    }
}

fn clock() -> Verdict {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) if since.as_secs() > CLOCK_EARLIEST_S => Verdict::Good("set".to_owned()),
        _ => Verdict::Bad("the system clock is not set: event times would be rejected as too far in the future".to_owned()),
    }
}

fn port(address: SocketAddr) -> Verdict {
    match TcpListener::bind(address) {
        Ok(_) => Verdict::Good(format!("{address} is free")),
        Err(error) => Verdict::Warning(format!("{address}: {error}; is flexmeter running already? Port 0 takes a free one")),
    }
}

fn checkpoint(config: &Config) -> Verdict {
    match CheckpointStore::open(config.data_dir.join("checkpoints")).and_then(|store| store.load()) {
        Ok(snapshots) if snapshots.is_empty() => Verdict::Good("none yet".to_owned()),
        Ok(snapshots) => {
            let bytes: usize = snapshots.iter().map(|snapshot| snapshot.bytes.len()).sum();
            Verdict::Good(format!("{} partitions, {:.1} MB, readable", snapshots.len(), bytes as f64 / 1e6))
        }
        Err(error) => Verdict::Bad(format!("{error:#}")),
    }
}
