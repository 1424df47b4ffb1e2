//! `bench latency`: publish → readable over REST, under a steady load.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use flexmeter_connectors::mqtt::publisher::{Publisher, PublisherConfig};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::workload::Workload;
use super::{child, cpu, mqtt};

/// How long one probe may take before the run is given up.
const PROBE_MAX: Duration = Duration::from_secs(10);
const PROBE_METER: &str = "LATENCY-PROBE";
const PROBE_IDENTIFIER: &str = "electricity.voltage.rms.l1";

/// Arguments of `bench latency`.
#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    /// Background load, messages a second (0: an idle system).
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Probes.
    #[arg(long, default_value_t = 500)]
    probes: u32,
    /// MQTT connections of the background load.
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Timely workers of the platform.
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

#[derive(Debug, Serialize)]
struct Line {
    bench: &'static str,
    rate: f64,
    probes: u32,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    readable_p50_ms: f64,
    readable_p99_ms: f64,
    readable_max_ms: f64,
    load_average: f64,
}

/// Runs `bench latency`.
pub(crate) fn run(args: &LatencyArgs) -> anyhow::Result<ExitCode> {
    let scratch = tempfile::tempdir()?;
    let load_average = cpu::load_average();
    let platform = child::Platform::start(scratch.path(), args.workers)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = runtime.block_on(measure(args, &platform, load_average))?;
    println!("{}", serde_json::to_string(&line)?);
    Ok(ExitCode::SUCCESS)
}

async fn measure(args: &LatencyArgs, platform: &child::Platform, load_average: f64) -> anyhow::Result<Line> {
    let url = format!("mqtt://{}", platform.mqtt);
    let mut config = PublisherConfig::new(url);
    config.connections = 1;
    let probe = Publisher::connect(config.clone()).await?;
    config.connections = args.connections;
    let background = if args.rate > 0.0 {
        Some(tokio::spawn(load(Arc::new(Publisher::connect(config).await?), args.rate)))
    } else {
        None
    };
    let http = mqtt::client()?;
    let latest = format!("http://{}/api/v1/devices/{PROBE_METER}/latest", platform.rest);
    let topic = format!("flexmeter/default/{PROBE_METER}/events");
    let (mut acked, mut readable) = (crate::report::latency_histogram()?, crate::report::latency_histogram()?);
    for i in 0..args.probes {
        // a warm-up of a tenth is not counted: connections and caches are made once
        let value = 200.0 + f64::from(i) / 100.0;
        let payload = format!(
            "{{\"hardwareId\":\"{PROBE_METER}\",\"type\":\"DeviceMeasurements\",\"request\":{{\"measurements\":{{\"{PROBE_IDENTIFIER}\":{value}}}}}}}"
        );
        let started = Instant::now();
        let receipt = probe.send(PROBE_METER, &topic, payload.into()).await?;
        let ack = tokio::spawn(async move { receipt.await.map(|_| started.elapsed()) });
        loop {
            let answer: serde_json::Value = http
                .get(&latest)
                .basic_auth("admin", Some("any"))
                .send()
                .await?
                .json()
                .await
                .unwrap_or_default();
            if answer.to_string().contains(&format!("\"value\":{value}")) {
                break;
            }
            if started.elapsed() > PROBE_MAX {
                bail!("probe {i} was not readable after {} s: {answer}", PROBE_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let readable_after = started.elapsed();
        let ack_after = ack.await??;
        if i >= args.probes / 10 {
            readable.saturating_record(readable_after.as_micros() as u64);
            acked.saturating_record(ack_after.as_micros() as u64);
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    if let Some(background) = background {
        background.abort();
    }
    let ms = |histogram: &Histogram<u64>, q: f64| histogram.value_at_quantile(q) as f64 / 1000.0;
    Ok(Line {
        bench: "latency",
        rate: args.rate,
        probes: args.probes,
        ack_p50_ms: ms(&acked, 0.5),
        ack_p99_ms: ms(&acked, 0.99),
        readable_p50_ms: ms(&readable, 0.5),
        readable_p99_ms: ms(&readable, 0.99),
        readable_max_ms: readable.max() as f64 / 1000.0,
        load_average,
    })
}

/// Open-loop background load: each message leaves on its own time, whether the ones before were acknowledged or not.
async fn load(publisher: Arc<Publisher>, rate: f64) -> anyhow::Result<()> {
    let started = Instant::now();
    for (i, line) in Workload::new(u64::MAX, 10_000, 2).enumerate() {
        tokio::time::sleep_until((started + Duration::from_secs_f64(i as f64 / rate)).into()).await;
        let device = format!("load-{}", i % 1_000);
        let receipt = publisher
            .send(&device, &format!("flexmeter/default/{device}/events"), line.into())
            .await?;
        tokio::spawn(async move {
            if let Err(error) = receipt.await {
                tracing::warn!("background message not acknowledged: {error}");
            }
        });
    }
    Ok(())
}
