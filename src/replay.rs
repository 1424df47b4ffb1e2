//! `flexmeter replay`: publishes a recording over MQTT and reports what was acknowledged.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use flexmeter_connectors::mqtt::publisher::{Publisher, PublisherConfig};
use flexmeter_model::{EventTime, HardwareId, TenantId, split};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::Semaphore;

/// Publishes that may wait for their acknowledgement at once, over all connections.
const OUTSTANDING_MAX: usize = 4096;
/// A line may not be longer than this: it would not fit a publish.
const LINE_LEN_MAX: usize = 2 * 1024 * 1024;
/// Topic level for lines that name no device.
const NAMELESS: &str = "replay";

/// How fast to publish.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// As fast as acknowledgements come.
    Max,
    /// Lines a second.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.strip_suffix("/s").unwrap_or(text).parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Self::PerSecond(rate)),
            _ => Err(format!("`{text}` is no rate; write `max` or lines a second, for example `500/s`")),
        }
    }
}

/// What to do with event times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeMode {
    /// As recorded.
    Original,
    /// Moved as a whole, so that the newest is now.
    ShiftToNow,
}

/// Arguments of `replay`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplayArgs {
    /// Recording: one JSON message a line; `.gz` and `.zst` are unpacked.
    file: PathBuf,
    /// Broker, with user and password if it wants them.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883", value_name = "URL")]
    mqtt: String,
    /// File with the password (so that it need not stand in the URL).
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Tenant whose topics are used.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// `max`, or lines a second: `500/s`.
    #[arg(long, default_value = "max")]
    rate: Rate,
    /// Event times as recorded, or moved so that the newest is now.
    #[arg(long, value_enum, default_value = "original")]
    time: TimeMode,
    /// MQTT connections; a device always uses the same one.
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// Lines a publish carries, as a JSON array (a concentrator's batch).
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Print the result as one JSON line.
    #[arg(long)]
    json: bool,
}

/// What a replay did.
#[derive(Debug, Serialize)]
struct ReplayReport {
    file: String,
    lines: u64,
    publishes: u64,
    acknowledged: u64,
    failed: u64,
    seconds: f64,
    lines_per_second: f64,
}

/// Runs `replay`.
pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let tenant = TenantId::new(&args.tenant).context("--tenant")?;
    let mut lines = read_lines(&args.file)?;
    if args.time == TimeMode::ShiftToNow {
        shift_to_now(&mut lines)?;
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(publish(args, &tenant, lines))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!(
            "{} lines in {} publishes: {} acknowledged, {} failed, {:.1} s, {:.0} lines/s",
            report.lines, report.publishes, report.acknowledged, report.failed, report.seconds, report.lines_per_second
        );
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The lines of a recording, unpacked, empty ones left out.
pub(crate) fn read_lines(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let reader: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    };
    let mut reader = BufReader::with_capacity(1 << 20, reader);
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader
            .read_until(b'\n', &mut line)
            .with_context(|| format!("cannot unpack {} after line {}", path.display(), lines.len()))?
            == 0
        {
            return Ok(lines);
        }
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        if line.len() > LINE_LEN_MAX {
            bail!(
                "line {} of {} has {} bytes, a publish carries at most {LINE_LEN_MAX}",
                lines.len() + 1,
                path.display(),
                line.len()
            );
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
}

/// One publish: its device's topic and the lines it carries.
struct Publish {
    device: String,
    topic: String,
    payload: Bytes,
    n_lines: u64,
}

/// Groups lines into publishes: one each, or batches of `batch` well-formed lines of one connection.
fn plan(lines: Vec<Vec<u8>>, tenant: &TenantId, batch: usize, connections: usize) -> Vec<Publish> {
    let mut publishes = Vec::new();
    let mut open: Vec<(String, Vec<u8>, u64)> = vec![Default::default(); if batch > 1 { connections.max(1) } else { 0 }];
    for line in lines {
        let device = device_of(&line).unwrap_or_else(|| NAMELESS.to_owned());
        let whole = line.first() == Some(&b'{') && line.last() == Some(&b'}');
        if batch <= 1 || !whole {
            publishes.push(publish_of(tenant, device, line, 1));
            continue;
        }
        let slot = flexmeter_model::record::partition_of(tenant.as_str(), &device, open.len() as u32) as usize;
        let (concentrator, payload, n) = &mut open[slot];
        if payload.is_empty() {
            *concentrator = format!("{NAMELESS}-{slot}");
            payload.push(b'[');
        } else {
            payload.push(b',');
        }
        payload.extend_from_slice(&line);
        *n += 1;
        if *n as usize >= batch {
            let (device, payload, n) = std::mem::take(&mut open[slot]);
            publishes.push(close_batch(tenant, device, payload, n));
        }
    }
    publishes.extend(
        open.into_iter()
            .filter(|(_, payload, _)| !payload.is_empty())
            .map(|(device, payload, n)| close_batch(tenant, device, payload, n)),
    );
    publishes
}

fn close_batch(tenant: &TenantId, device: String, mut payload: Vec<u8>, n: u64) -> Publish {
    payload.push(b']');
    publish_of(tenant, device, payload, n)
}

fn publish_of(tenant: &TenantId, device: String, payload: Vec<u8>, n_lines: u64) -> Publish {
    Publish {
        topic: format!("flexmeter/{tenant}/{device}/events"),
        device,
        payload: payload.into(),
        n_lines,
    }
}

fn device_of(line: &[u8]) -> Option<String> {
    let id = split::split_payload(line).next()?.hardware_id?;
    HardwareId::new(&id).ok().map(|_| id.into_owned())
}

async fn publish(args: &ReplayArgs, tenant: &TenantId, lines: Vec<Vec<u8>>) -> anyhow::Result<ReplayReport> {
    let n_lines = lines.len() as u64;
    let publishes = plan(lines, tenant, args.batch, args.connections);
    let mut url = url::Url::parse(&args.mqtt).with_context(|| format!("--mqtt {}", args.mqtt))?;
    if let Some(file) = &args.password_file {
        let password = std::fs::read_to_string(file).with_context(|| format!("--password-file {}", file.display()))?;
        let set = url.set_password(Some(password.trim_end()));
        anyhow::ensure!(set.is_ok(), "--mqtt {} cannot carry a password", args.mqtt);
    }
    let mut config = PublisherConfig::new(url.as_str());
    config.connections = args.connections;
    let publisher = Arc::new(
        Publisher::connect(config)
            .await
            .with_context(|| format!("cannot connect to {}", args.mqtt))?,
    );
    let bar = progress(n_lines);
    let outstanding = Arc::new(Semaphore::new(OUTSTANDING_MAX));
    let started = Instant::now();
    let (mut sent, n_publishes) = (0_u64, publishes.len() as u64);
    let mut tasks = tokio::task::JoinSet::new();
    let (mut acknowledged, mut failed) = (0, 0);
    let mut settle = |outcome: Result<Result<u64, anyhow::Error>, tokio::task::JoinError>| match outcome {
        Ok(Ok(n)) => {
            acknowledged += n;
            bar.inc(n);
        }
        Ok(Err(error)) => {
            failed += 1;
            bar.suspend(|| eprintln!("not acknowledged: {error:#}"));
        }
        Err(error) => {
            failed += 1;
            bar.suspend(|| eprintln!("publisher task failed: {error}"));
        }
    };
    for publish in publishes {
        if let Rate::PerSecond(rate) = args.rate {
            tokio::time::sleep_until((started + Duration::from_secs_f64(sent as f64 / rate)).into()).await;
        }
        sent += publish.n_lines;
        let permit = Arc::clone(&outstanding).acquire_owned().await?;
        // the future is made here, in file order, so that a device's lines keep their order on their connection
        let acked = publisher.send(&publish.device, &publish.topic, publish.payload).await;
        tasks.spawn(async move {
            let outcome = match acked {
                Ok(acked) => acked.await.map(|_| publish.n_lines).map_err(anyhow::Error::from),
                Err(error) => Err(error.into()),
            };
            drop(permit);
            outcome.with_context(|| publish.topic)
        });
        while let Some(outcome) = tasks.try_join_next() {
            settle(outcome);
        }
    }
    while let Some(outcome) = tasks.join_next().await {
        settle(outcome);
    }
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(ReplayReport {
        file: args.file.display().to_string(),
        lines: n_lines,
        publishes: n_publishes,
        acknowledged,
        failed,
        seconds,
        lines_per_second: n_lines as f64 / seconds.max(1e-9),
    })
}

/// A progress bar on stderr; silent when stderr is no terminal.
fn progress(n: u64) -> ProgressBar {
    let bar = ProgressBar::new(n);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} lines  {per_sec}  {elapsed}") {
        bar.set_style(style);
    }
    bar
}

const DATE_KEY: &[u8] = b"\"eventDate\":\"";

/// Moves all event times by the same amount, so that the newest is now. Lines whose date cannot be read stay as they are.
fn shift_to_now(lines: &mut [Vec<u8>]) -> anyhow::Result<()> {
    let newest = lines
        .iter()
        .filter_map(|line| date_of(line))
        .map(|(_, time)| time.micros())
        .max()
        .context("no line has an eventDate that can be read; use --time original")?;
    let shift = EventTime::from_clock(std::time::SystemTime::now()).micros() - newest;
    for line in lines {
        if let Some((range, time)) = date_of(line) {
            let moved = EventTime::from_micros(time.micros() + shift).to_string();
            line.splice(range, moved.into_bytes());
        }
    }
    Ok(())
}

fn date_of(line: &[u8]) -> Option<(std::ops::Range<usize>, EventTime)> {
    let start = line.windows(DATE_KEY.len()).position(|window| window == DATE_KEY)? + DATE_KEY.len();
    let len = line[start..].iter().position(|&byte| byte == b'"')?;
    EventTime::parse(&line[start..start + len])
        .ok()
        .map(|time| (start..start + len, time))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(id: &str, date: &str) -> Vec<u8> {
        format!(
            "{{\"hardwareId\":\"{id}\",\"type\":\"DeviceMeasurements\",\"request\":{{\"measurements\":{{}},\"eventDate\":\"{date}\"}}}}"
        )
        .into_bytes()
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("500/s".parse(), Ok(Rate::PerSecond(500.0)));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        assert!("fast".parse::<Rate>().is_err());
        assert!("-1/s".parse::<Rate>().is_err());
    }

    #[test]
    fn shifting_keeps_distances_and_ends_now() {
        let mut lines = vec![
            line("a", "2016-02-10T19:40:03.391+02:00"),
            b"{broken".to_vec(),
            line("b", "2016-02-10T18:40:03.391+01:00"),
            line("b", "2016-02-10T17:39:03.391Z"),
        ];
        shift_to_now(&mut lines).unwrap();
        let time = |i: usize| date_of(&lines[i]).unwrap().1.micros();
        assert_eq!(time(0), time(2));
        assert_eq!(time(0) - time(3), 60_000_000);
        assert_eq!(lines[1], b"{broken");
    }

    #[test]
    fn a_plan_carries_every_line_once_and_broken_ones_alone() {
        let lines: Vec<_> = (0..25)
            .map(|i| line(&format!("m{i}"), "2016-02-10T19:40:03Z"))
            .chain([b"{cut off".to_vec()])
            .collect();
        let tenant = TenantId::new("default").unwrap();
        let publishes = plan(lines, &tenant, 10, 2);
        assert_eq!(publishes.iter().map(|publish| publish.n_lines).sum::<u64>(), 26);
        assert_eq!(publishes.iter().filter(|publish| publish.payload == b"{cut off"[..]).count(), 1);
        let pieces: usize = publishes
            .iter()
            .filter(|publish| publish.payload[0] == b'[')
            .map(|publish| split::split_payload(&publish.payload).count())
            .sum();
        assert_eq!(pieces, 25);
        assert_eq!(plan(vec![line("m1", "x")], &tenant, 1, 20)[0].topic, "flexmeter/default/m1/events");
    }
}
