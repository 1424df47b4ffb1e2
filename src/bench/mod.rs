//! `flexmeter bench`: repeatable measurements of the product itself, one JSON line per figure.

mod child;
mod cpu;
mod estimate;
mod ingest;
mod latency;
mod mqtt;
mod outage;
mod recompute;
mod workload;

use std::process::ExitCode;

use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Decode → validate → dedupe → latest → load profile → (optionally) lake, from memory.
    Ingest(ingest::IngestArgs),
    /// MQTT publish → acknowledged by the durable log → applied, load generator included.
    Mqtt(mqtt::MqttArgs),
    /// Publish → readable over REST.
    Latency(latency::LatencyArgs),
    /// Power flow and state estimation of one grid, single thread.
    Estimate(estimate::EstimateArgs),
    /// A storm of last gasps in real time: how late outages are told, and how many are right.
    Outage(outage::OutageArgs),
    /// Writes a synthetic recording for the others.
    Generate(workload::GenerateArgs),
}

/// Runs `bench`.
pub(crate) fn run(command: &BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Ingest(args) => ingest::run(args),
        BenchCommand::Mqtt(args) => mqtt::run(args),
        BenchCommand::Latency(args) => latency::run(args),
        BenchCommand::Estimate(args) => estimate::run(args),
        BenchCommand::Outage(args) => outage::run(args),
        BenchCommand::Generate(args) => workload::run(args),
    }
}
