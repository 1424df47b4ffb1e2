//! `GET /api/v1/totals`: how many messages were accepted, dropped as repeats and rejected, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::accept::Format;
use super::guard::Caller;
use super::problem::Problem;
use super::{Counter, page};

/// The tenant's counters at one epoch.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Totals {
    /// The tenant.
    tenant: String,
    /// The epoch all of this belongs to.
    epoch: u64,
    /// How far the log has been read, as the append time of the newest record, RFC 3339.
    #[schema(format = DateTime)]
    log_time: String,
    /// Devices heard of.
    devices: usize,
    /// Messages `accepted`, messages dropped as `duplicate`, and rejections by reason code, since the log began.
    outcomes: BTreeMap<&'static str, u64>,
}

/// Counters
#[utoipa::path(get, path = "/api/v1/totals", operation_id = "getTotals", tag = "live", responses((status = 200, description = "The tenant's counters", body = Totals)))]
pub(super) async fn totals(State(counter): State<Arc<Counter>>, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let body = Totals {
        tenant: caller.tenant.to_string(),
        epoch: snapshot.epoch(),
        log_time: snapshot.log_time().to_string(),
        devices: snapshot.n_devices(),
        outcomes: snapshot
            .totals()
            .outcomes
            .iter()
            .map(|(code, total)| (code.as_str(), *total))
            .collect(),
    };
    Ok(page::document(Format::Json, page::json(&body)?))
}
