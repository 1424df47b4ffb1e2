//! `bench mqtt`: publish → durable → acknowledged → applied, on one machine with the load generator.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use flexmeter_connectors::mqtt::publisher::{Publisher, PublisherConfig};
use parking_lot::Mutex;
use serde::Serialize;

use super::workload::Workload;
use super::{child, cpu};

/// How long the views may take to catch up after the last acknowledgement.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

/// Arguments of `bench mqtt`.
#[derive(Debug, Args)]
pub(crate) struct MqttArgs {
    /// Messages to publish.
    #[arg(long, default_value_t = 300_000)]
    messages: u64,
    /// Meters they come from.
    #[arg(long, default_value_t = 10_000)]
    meters: u64,
    /// MQTT connections.
    #[arg(long, default_value_t = 400)]
    connections: usize,
    /// Messages a publish carries.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Publishes a connection may have on their way.
    #[arg(long, default_value_t = 16)]
    inflight: usize,
    /// Timely workers of the platform.
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

#[derive(Debug, Serialize)]
struct Line {
    bench: &'static str,
    connections: usize,
    batch: usize,
    messages: u64,
    acknowledged: u64,
    failed: u64,
    seconds: f64,
    messages_per_second: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    applied_after_s: f64,
    platform_cpu_seconds: f64,
    generator_cpu_seconds: f64,
    platform_peak_memory_bytes: u64,
    load_average: f64,
}

/// Runs `bench mqtt`.
pub(crate) fn run(args: &MqttArgs) -> anyhow::Result<ExitCode> {
    let scratch = tempfile::tempdir()?;
    let load_average = cpu::load_average();
    let platform = child::Platform::start(scratch.path(), args.workers)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let publishes = publishes(args);
    let line = runtime.block_on(measure(args, &platform, publishes, load_average))?;
    println!("{}", serde_json::to_string(&line)?);
    Ok(if line.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Publish {
    device: String,
    topic: String,
    payload: Bytes,
    n: u64,
}

/// The workload cut into publishes, made before the clock starts.
fn publishes(args: &MqttArgs) -> Vec<Publish> {
    let lines = Workload::new(args.messages, args.meters, 1).filter(|line| line.ends_with(b"}"));
    let mut publishes = Vec::new();
    if args.batch <= 1 {
        for line in lines {
            let device = String::from_utf8_lossy(&line[15..28]).into_owned();
            publishes.push(Publish {
                topic: format!("flexmeter/default/{device}/events"),
                device,
                payload: line.into(),
                n: 1,
            });
        }
        return publishes;
    }
    let lines: Vec<_> = lines.collect();
    for (i, batch) in lines.chunks(args.batch).enumerate() {
        let device = format!("concentrator-{}", i % args.connections);
        let payload = [b"[".as_slice(), &batch.join(&b","[..]), b"]"].concat();
        publishes.push(Publish {
            topic: format!("flexmeter/default/{device}/events"),
            device,
            payload: payload.into(),
            n: batch.len() as u64,
        });
    }
    publishes
}

async fn measure(args: &MqttArgs, platform: &child::Platform, publishes: Vec<Publish>, load_average: f64) -> anyhow::Result<Line> {
    let mut config = PublisherConfig::new(format!("mqtt://{}", platform.mqtt));
    config.connections = args.connections;
    config.inflight_per_connection = args.inflight;
    let publisher = Publisher::connect(config).await?;
    let n_messages: u64 = publishes.iter().map(|publish| publish.n).sum();
    let latency = Arc::new(Mutex::new(crate::report::latency_histogram()?));
    let outstanding = Arc::new(tokio::sync::Semaphore::new(args.connections * args.inflight));
    let all = u32::try_from(args.connections * args.inflight)?;
    let counts = Arc::new(Mutex::new((0_u64, 0_u64)));
    let (platform_cpu, own_cpu) = (cpu::cpu_seconds_of(platform.pid())?, cpu::cpu_seconds()?);
    let started = Instant::now();
    for publish in publishes {
        let permit = Arc::clone(&outstanding).acquire_owned().await?;
        let (latency, counts) = (Arc::clone(&latency), Arc::clone(&counts));
        let receipt = publisher.send(&publish.device, &publish.topic, publish.payload).await?;
        tokio::spawn(async move {
            let outcome = receipt.await;
            let mut counts = counts.lock();
            match outcome {
                Ok(acked) => {
                    counts.0 += publish.n;
                    latency
                        .lock()
                        .saturating_record(acked.acked_at.duration_since(acked.sent_at).as_micros() as u64);
                }
                Err(_) => counts.1 += publish.n,
            }
            drop(permit);
        });
    }
    let _all = outstanding.acquire_many(all).await?;
    let seconds = started.elapsed().as_secs_f64();
    let (acknowledged, failed) = *counts.lock();
    wait_applied(platform, acknowledged).await?;
    let applied_after_s = started.elapsed().as_secs_f64() - seconds;
    let latency = latency.lock();
    Ok(Line {
        bench: "mqtt",
        connections: args.connections,
        batch: args.batch,
        messages: n_messages,
        acknowledged,
        failed,
        seconds,
        messages_per_second: acknowledged as f64 / seconds,
        ack_p50_ms: latency.value_at_quantile(0.5) as f64 / 1000.0,
        ack_p99_ms: latency.value_at_quantile(0.99) as f64 / 1000.0,
        applied_after_s,
        platform_cpu_seconds: cpu::cpu_seconds_of(platform.pid())? - platform_cpu,
        generator_cpu_seconds: cpu::cpu_seconds()? - own_cpu,
        platform_peak_memory_bytes: cpu::memory_of(platform.pid())?.1,
        load_average,
    })
}

/// Waits until the engine's counters say that every acknowledged message has an outcome.
async fn wait_applied(platform: &child::Platform, messages: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + CATCH_UP_MAX;
    loop {
        let text = reqwest::get(format!("http://{}/metrics", platform.rest)).await?.text().await?;
        let applied: f64 = text
            .lines()
            .filter(|line| line.starts_with("flexmeter_engine_messages_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        if applied >= messages as f64 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{applied} of {messages} messages were applied after {} s", CATCH_UP_MAX.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client for the REST side of a platform.
pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder().build().context("HTTP client")
}
