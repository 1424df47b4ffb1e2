//! The synthetic workload of the benchmarks: 400-byte messages with six measurements each, of many meters, with the faults of the
//! field: 1 % malformed, 2 % repeated, 3 % late.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use flexmeter_model::EventTime;

/// What to generate.
#[derive(Debug, Clone, Args)]
pub(crate) struct GenerateArgs {
    /// Where to write; `-` is stdout.
    output: PathBuf,
    /// Number of messages.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Number of meters.
    #[arg(long, default_value_t = 10_000)]
    meters: u64,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Writes a recording.
pub(crate) fn run(args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let out: Box<dyn std::io::Write> = if args.output.as_os_str() == "-" {
        Box::new(std::io::stdout().lock())
    } else {
        Box::new(std::fs::File::create(&args.output)?)
    };
    let mut out = std::io::BufWriter::with_capacity(1 << 20, out);
    for line in Workload::new(args.count, args.meters, args.seed) {
        out.write_all(&line)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// First event time of the workload: 2026-11-16T00:00:00Z.
const START_US: i64 = 1_794_787_200_000_000;
/// Time between two messages of a meter, in microseconds.
const STEP_US: i64 = 60_000_000;

/// An iterator of lines.
pub(crate) struct Workload {
    count: u64,
    meters: u64,
    at: u64,
    state: u64,
    recent: Vec<Vec<u8>>,
}

impl Workload {
    pub(crate) fn new(count: u64, meters: u64, seed: u64) -> Self {
        Self {
            count,
            meters: meters.max(1),
            at: 0,
            state: seed,
            recent: Vec::new(),
        }
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 29)
    }
}

impl Iterator for Workload {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.at == self.count {
            return None;
        }
        let draw = self.random() % 100;
        let (meter, step) = (self.at % self.meters, self.at / self.meters);
        self.at += 1;
        if draw < 2 && !self.recent.is_empty() {
            let pick = self.random() as usize % self.recent.len();
            return Some(self.recent[pick].clone());
        }
        let late_us = if draw < 5 { (self.random() % 3_600) as i64 * 1_000_000 } else { 0 };
        let jitter_us = (self.random() % 5_000) as i64 * 1_000;
        let time = EventTime::from_micros(START_US + step as i64 * STEP_US + jitter_us - late_us);
        let (power, volts) = (self.random() % 50_000, 22_000 + self.random() % 2_000);
        let mut line = format!(
            concat!(
                "{{\"hardwareId\":\"METER-{:07}\",\"type\":\"DeviceMeasurements\",\"request\":{{\"measurements\":{{",
                "\"electricity.power.active.consumed.l1\":{}.{:04},\"electricity.power.active.consumed.l2\":{}.{:04},",
                "\"electricity.power.active.consumed.l3\":{}.{:04},\"electricity.voltage.rms.l1\":{}.{:02},",
                "\"electricity.voltage.rms.l2\":{}.{:02},\"electricity.voltage.rms.l3\":{}.{:02}}},",
                "\"updateState\":true,\"eventDate\":\"{}\"}}}}"
            ),
            meter,
            power / 10_000,
            power % 10_000,
            power / 20_000,
            power / 2 % 10_000,
            power / 30_000,
            power / 3 % 10_000,
            volts / 100,
            volts % 100,
            (volts + 7) / 100,
            (volts + 7) % 100,
            (volts + 13) / 100,
            (volts + 13) % 100,
            time,
        )
        .into_bytes();
        if draw == 99 {
            line.truncate(line.len() / 2);
        }
        if self.recent.len() < 1_000 {
            self.recent.push(line.clone());
        } else {
            let slot = self.at as usize % 1_000;
            self.recent[slot].clone_from(&line);
        }
        Some(line)
    }
}
