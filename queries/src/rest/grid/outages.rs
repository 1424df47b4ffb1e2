//! `/api/v1/outages` and `/api/v1/reliability`: who is without supply and why, and how reliable the feeders have been.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use flexmeter_model::operator::Decision;
use flexmeter_model::outcome::{OutageRow, ReliabilityRow};
use serde::{Deserialize, Serialize};

use super::decision::{Decided, decide};
use super::newest::{self, IdPath};
use super::{grid_of, known};
use crate::live::LiveGrid;
use crate::rest::accept::Format;
use crate::rest::guard::Caller;
use crate::rest::parameters::{Parameters, limit};
use crate::rest::problem::{Code, Problem};
use crate::rest::{Counter, page};

/// Name of this list in cursors.
const LIST: &str = "outages";

/// An outage; also what is published at `flexmeter/{tenant}/grid/{area}/outages`.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutageDocument {
    /// Names it for good.
    outage_id: String,
    /// `open` or `closed`.
    state: &'static str,
    /// Path of the area that the device is in.
    area: String,
    /// Branch by which the supply leaves the source; null at the source itself.
    #[schema(required = true)]
    feeder: Option<i64>,
    /// What has most probably failed: `branch-7`, `node-3`, or the hardware id of a single meter.
    device: String,
    /// Devices whose failure would look the same.
    alternatives: Vec<String>,
    /// Node behind the device.
    node_id: i64,
    /// Customers that have lost supply in it.
    n_customers: u32,
    /// Of these, still without.
    n_customers_out: u32,
    /// Last gasps that belong to it.
    n_gasps: u32,
    /// When supply was lost, by the meters' clocks, RFC 3339.
    #[schema(format = DateTime)]
    opened_at: String,
    /// When it was first reported, log time, RFC 3339.
    #[schema(format = DateTime)]
    reported_at: String,
    /// When the last customer had supply again, RFC 3339; null while it is open.
    #[schema(required = true, format = DateTime)]
    closed_at: Option<String>,
    /// `restored`, `not_confirmed`, `switched`, `merged`, `operator` or `grid_replaced`; null while it is open.
    #[schema(required = true)]
    closed_because: Option<&'static str>,
    /// Posterior probability of the device and its alternatives, 0 to 1.
    confidence: f64,
    /// Whether an operator has taken note.
    acknowledged: bool,
}

impl OutageDocument {
    /// A row with its id.
    #[must_use]
    pub fn new(id: &str, row: &OutageRow) -> Self {
        Self {
            outage_id: id.to_owned(),
            state: state(row),
            area: row.area.to_string(),
            feeder: row.feeder,
            device: row.device.clone(),
            alternatives: row.alternatives.clone(),
            node_id: row.node_id,
            n_customers: row.n_customers,
            n_customers_out: row.n_customers_out,
            n_gasps: row.n_gasps,
            opened_at: row.opened_at.to_string(),
            reported_at: row.reported_at.to_string(),
            closed_at: row.closed_at.map(|time| time.to_string()),
            closed_because: row.closed_because,
            confidence: row.confidence,
            acknowledged: row.acknowledged,
        }
    }
}

fn state(row: &OutageRow) -> &'static str {
    if row.closed_at.is_some() { "closed" } else { "open" }
}

/// Which outages to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::rest) enum OutageState {
    /// Somebody is without supply.
    Open,
    /// Those that are over.
    Closed,
    /// Both.
    #[default]
    All,
}

/// Which outages to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::rest) struct OutageQuery {
    /// Only outages in this state; without it, all
    #[serde(default)]
    #[param(inline, default = "all")]
    state: OutageState,
    /// Rows of a page
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<String>,
    /// The previous page's `next`
    cursor: Option<String>,
}

/// A page of outages, the one that was reported last first.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::rest) struct OutagePage<'a> {
    /// The epoch that everything here is of.
    epoch: u64,
    items: Vec<OutageDocument>,
    /// Cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<&'a str>,
}

/// List outages
///
/// Open ones and those of the last 31 days, the one that was reported last first.
#[utoipa::path(get, path = "/api/v1/outages", operation_id = "listOutages", tag = "grid", params(OutageQuery),
    responses((status = 200, description = "A page of outages", body = OutagePage,
        headers(("Link" = String, description = "The next page, rel=\"next\"")))))]
pub(in crate::rest) async fn list(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Parameters(query): Parameters<OutageQuery>,
) -> Result<Response, Problem> {
    let limit = limit(query.limit.as_deref())?;
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let rows = grid_of(&snapshot, &caller.tenant)?.outages().iter();
    let rows = rows.filter(|(_, row)| match query.state {
        OutageState::Open => row.closed_at.is_none(),
        OutageState::Closed => row.closed_at.is_some(),
        OutageState::All => true,
    });
    let found = newest::page(LIST, rows, |row| row.reported_at, limit, query.cursor.as_deref())?;
    let next = found.next.as_deref();
    let answer = OutagePage {
        epoch: snapshot.epoch(),
        items: found.rows.iter().map(|(id, row)| OutageDocument::new(id, row)).collect(),
        next,
    };
    let mut response = page::document(Format::Json, page::json(&answer)?);
    page::link_next(response.headers_mut(), &uri, next);
    Ok(response)
}

fn row<'a>(grid: &'a LiveGrid, id: &str) -> Result<&'a OutageRow, Problem> {
    grid.outages().get(id).map(|row| &**row).ok_or_else(|| {
        let ids = known(grid.outages().iter().map(|(id, _)| id));
        Problem::new(Code::UnknownOutage, format!("there is no outage {id:?}; the outages: {ids}"))
    })
}

/// One outage
#[utoipa::path(get, path = "/api/v1/outages/{outageId}", operation_id = "getOutage", tag = "grid",
    params(("outageId" = String, Path, description = "The outage")),
    responses((status = 200, description = "The outage", body = OutageDocument)))]
pub(in crate::rest) async fn one(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let row = row(grid_of(&snapshot, &caller.tenant)?, &id)?;
    Ok(page::document(Format::Json, page::json(&OutageDocument::new(&id, row))?))
}

/// Acknowledge an outage
///
/// For administrators. Says that somebody has taken note, also of an outage that is over. The decision goes into the log as an
/// `outage.acknowledged` alert and is durable when this answers; the outage follows within an epoch.
#[utoipa::path(post, path = "/api/v1/outages/{outageId}/acknowledge", operation_id = "acknowledgeOutage", tag = "grid",
    params(("outageId" = String, Path, description = "The outage")),
    responses((status = 202, description = "The decision is stored", body = Decided)))]
pub(in crate::rest) async fn acknowledge(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let row = row(grid_of(&snapshot, &caller.tenant)?, &id)?;
    decide(&counter, &caller, Decision::AcknowledgeOutage, &id, state(row)).await
}

/// Close an outage
///
/// For administrators. Says that an outage is over, whatever the meters say; its reason is then `operator`. The decision goes into the log
/// as an `outage.closed` alert and is durable when this answers; the outage follows within an epoch.
#[utoipa::path(post, path = "/api/v1/outages/{outageId}/close", operation_id = "closeOutage", tag = "grid",
    params(("outageId" = String, Path, description = "The outage")),
    responses((status = 202, description = "The decision is stored", body = Decided)))]
pub(in crate::rest) async fn close(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let row = row(grid_of(&snapshot, &caller.tenant)?, &id)?;
    if let Some(closed_at) = row.closed_at {
        let because = row.closed_because.unwrap_or("unknown");
        let why = format!("outage {id} is over since {closed_at} ({because}); there is nothing to close");
        return Err(Problem::new(Code::OutageClosed, why).with("state", "closed".into()));
    }
    decide(&counter, &caller, Decision::CloseOutage, &id, state(row)).await
}

/// Reliability of one feeder by IEEE 1366.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct ReliabilityItem {
    /// Branch by which the supply leaves the source; null for what sits at the source itself.
    #[schema(required = true)]
    feeder: Option<i64>,
    /// Customers it supplies, with the switches as they stand.
    n_customers: u64,
    /// Customer interruptions longer than five minutes.
    n_sustained: u64,
    /// Customer interruptions of five minutes or less.
    n_momentary: u64,
    /// Duration of the sustained ones, summed over customers, min.
    customer_min: f64,
    /// Average duration of sustained interruptions a customer had, min; null without customers.
    #[schema(required = true)]
    saidi_min: Option<f64>,
    /// Average number of sustained interruptions a customer had; null without customers.
    #[schema(required = true)]
    saifi: Option<f64>,
    /// Average duration of a sustained interruption, min; null without one.
    #[schema(required = true)]
    caidi_min: Option<f64>,
    /// Average number of momentary interruptions a customer had; null without customers.
    #[schema(required = true)]
    maifi: Option<f64>,
}

impl From<&ReliabilityRow> for ReliabilityItem {
    fn from(row: &ReliabilityRow) -> Self {
        Self {
            feeder: row.feeder,
            n_customers: row.n_customers,
            n_sustained: row.n_sustained,
            n_momentary: row.n_momentary,
            customer_min: row.customer_min,
            saidi_min: row.saidi_min,
            saifi: row.saifi,
            caidi_min: row.caidi_min,
            maifi: row.maifi,
        }
    }
}

/// Reliability of all feeders.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::rest) struct Reliability {
    /// The epoch that everything here is of.
    epoch: u64,
    /// One entry for each feeder.
    items: Vec<ReliabilityItem>,
}

/// Reliability of the feeders
///
/// The indices of IEEE 1366 over the outages that `GET /api/v1/outages` lists.
#[utoipa::path(get, path = "/api/v1/reliability", operation_id = "getReliability", tag = "grid",
    responses((status = 200, description = "One entry for each feeder", body = Reliability)))]
pub(in crate::rest) async fn reliability(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let rows = grid_of(&snapshot, &caller.tenant)?.reliability().iter();
    let mut items: Vec<ReliabilityItem> = rows.map(|(_, row)| (&**row).into()).collect();
    // keys are texts: as numbers they would come 10 before 9
    items.sort_by_key(|item| item.feeder);
    let answer = Reliability {
        epoch: snapshot.epoch(),
        items,
    };
    Ok(page::document(Format::Json, page::json(&answer)?))
}
