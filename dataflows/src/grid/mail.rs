//! What travels between workers for the estimation.

use flexmeter_model::TenantId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::reading::{MeterSaid, Times};

/// One message to an area, or to a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mail {
    /// Where to: the hash of an area, or the index of a worker.
    pub(crate) to: u64,
    pub(crate) body: Body,
}

/// Number of a grid on the street: a tenant's next grid has another one, so that what is under way for the old one is told apart.
pub(crate) type GridId = u32;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Body {
    /// To a worker: the grids are others now.
    Grids,
    /// To a worker: a switch was operated.
    Switch {
        grid: GridId,
        switch: u32,
        closed: bool,
        event_time: i64,
        by: String,
    },
    /// To an area: what its meter says now.
    Meter { grid: GridId, meter: u32, said: MeterSaid },
    /// To a worker: log time of a partition.
    Clock { partition: u32, log_time: i64 },
    /// To an area from one below.
    Up {
        grid: GridId,
        area: u32,
        child: u32,
        message: Option<UpMessage>,
        times: Times,
    },
    /// To an area from the one above.
    Down { grid: GridId, area: u32, angles_rad: Vec<f64> },
}

/// What an area says of its root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum UpMessage {
    /// All of it: a boundary estimate in numbers.
    Boundary(Vec<f64>),
    /// The power that flows into it, and no more: where no voltage is read, the rest would be what was assumed.
    Power(UpPower),
}

/// Power into an area, by phase: W and var, with standard deviations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct UpPower {
    pub(crate) p_w: [f64; 3],
    pub(crate) q_var: [f64; 3],
    pub(crate) p_sigma_w: [f64; 3],
    pub(crate) q_sigma_var: [f64; 3],
}

/// Which worker (by remainder) an area lives on.
pub(crate) fn route(tenant: &TenantId, path: &str) -> u64 {
    let mut key = Vec::with_capacity(tenant.as_str().len() + 1 + path.len());
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(b'/');
    key.extend_from_slice(path.as_bytes());
    xxh3_64(&key)
}
