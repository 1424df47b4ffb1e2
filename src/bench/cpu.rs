//! CPU time of this process or another one, from `/proc`.

use anyhow::Context as _;

/// The kernel's clock ticks a second as `/proc` reports them: 100 on every Linux platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process so far, all threads, in seconds; resolution 10 ms.
pub(crate) fn cpu_seconds_of(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // the command name may hold spaces and parentheses: count fields behind its end
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| -> anyhow::Result<f64> { Ok(fields.get(field).context("short /proc stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// CPU time of this process so far, in seconds.
pub(crate) fn cpu_seconds() -> anyhow::Result<f64> {
    cpu_seconds_of(std::process::id())
}

/// Resident memory of a process, in bytes, and its peak.
pub(crate) fn memory_of(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> u64 {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    Ok((field("VmRSS:"), field("VmHWM:")))
}

/// The machine's load over the last minute: noted beside every figure.
pub(crate) fn load_average() -> f64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next().and_then(|first| first.parse().ok()))
        .unwrap_or(f64::NAN)
}
