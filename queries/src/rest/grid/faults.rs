//! `/api/v1/faults` and `POST /api/v1/grid/fault-records`: where faults are.
//!
//! Locating a fault is the grid engine's work; the counter gathers what it knows beside the record (how the network was switched, who is
//! dark) and asks through a [`FaultDoor`]. The answer goes into the log and is a row from then on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use flexmeter_model::operator::{fault_metadata, located};
use flexmeter_model::outcome::FaultRow;
use flexmeter_model::{EventTime, TenantId};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::decision::store;
use super::newest::{self, IdPath};
use super::{grid_of, known, now};
use crate::auth::Role;
use crate::live::LiveGrid;
use crate::rest::accept::Format;
use crate::rest::guard::Caller;
use crate::rest::parameters::{Parameters, limit, moment};
use crate::rest::problem::{Code, Problem};
use crate::rest::{Counter, page};

/// Name of this list in cursors.
const LIST: &str = "faults";
const SECOND_US: i64 = 1_000_000;
/// A record that does not say of when it is may be so old.
const RECORD_AGE_US_MAX: i64 = 15 * 60 * SECOND_US;
/// Clocks of a substation and of meters and switches may differ so much.
const CLOCKS_APART_US_MAX: i64 = 10 * SECOND_US;
/// Meters that have lost supply by a fault have said so by then.
const GASPS_WITHIN_US: i64 = 5 * 60 * SECOND_US;
/// The engine takes no time that is further ahead of its own.
const AHEAD_US_MAX: i64 = 10 * 60 * SECOND_US;
/// Reasons for which an outage is over that say that nothing has failed there, or that its place is in another grid.
const NO_FAILURE: [&str; 4] = ["not_confirmed", "switched", "merged", "grid_replaced"];

/// A record and what is known beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultInquiry {
    /// Whose grid.
    pub tenant: TenantId,
    /// The record, as `flexmeter grid fault` reads it (JSON).
    pub record: String,
    /// How the network was switched when the fault came: by branch, whether it was closed.
    pub positions: Vec<(i64, bool)>,
    /// Nodes from which on customers have lost supply with the fault.
    pub dark_from: Vec<i64>,
    /// When the fault was recorded.
    pub at: EventTime,
    /// Who sent the record.
    pub by: String,
}

/// Why a record leads to no fault. The texts are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultRefusal {
    /// It is no record.
    #[error("{0}")]
    Record(String),
    /// It is a record, but of no fault that can be located in this grid.
    #[error("{0}")]
    NotLocated(String),
    /// Too many at a time.
    #[error("{0} faults are being located, which is the limit; try again")]
    Busy(usize),
}

/// Locates faults: from a record to its row. May take seconds.
pub type FaultDoor = Arc<dyn Fn(FaultInquiry) -> BoxFuture<'static, Result<FaultRow, FaultRefusal>> + Send + Sync>;

/// A place where a fault may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateDocument {
    /// The branch: a line, or what leads to the node where the fault is.
    pub branch_id: i64,
    /// Its node towards the head.
    pub near_node: i64,
    /// Its other node; null for a line that is open there.
    #[schema(required = true)]
    pub far_node: Option<i64>,
    /// How far along it from the near node, 0 to 1.
    pub share: f64,
    /// Distance along the lines from the head, m; null where lengths are not known.
    #[schema(required = true)]
    pub distance_m: Option<f64>,
    /// Standard deviation of that, m.
    #[schema(required = true)]
    pub distance_sigma_m: Option<f64>,
    /// Positive-sequence impedances from the head added up, ohm.
    pub distance_ohm: f64,
    /// Standard deviation of that, ohm.
    pub distance_sigma_ohm: f64,
    /// The type that fits best there.
    pub fault_type: String,
    /// Between phases, or of each phase, or of the one phase to ground, ohm.
    pub resistance_ohm: f64,
    /// Common resistance to ground where several phases meet there, ohm.
    #[schema(required = true)]
    pub ground_resistance_ohm: Option<f64>,
    /// Root mean square of what is not explained, in standard deviations of the readings.
    pub misfit_sigmas: f64,
    /// Probability of this branch among all, 0 to 1.
    pub probability: f64,
}

/// A located fault; also part of what is published at `flexmeter/{tenant}/grid/{area}/faults`.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultDocument {
    /// Names it for good.
    fault_id: String,
    /// Path of the area that the most probable place is in.
    area: String,
    /// AG, BG, CG, AB, BC, CA, ABG, BCG, CAG, ABC or ABCG: phases, and G for ground.
    fault_type: String,
    /// The most probable branch.
    branch_id: i64,
    /// Its end towards the source.
    near_node: i64,
    /// How far along the branch from there, 0 to 1.
    share: f64,
    /// Distance along the lines from the head of the feeder, m; null where lengths are not known.
    #[schema(required = true)]
    distance_m: Option<f64>,
    /// Standard deviation of the distance, m.
    #[schema(required = true)]
    distance_sigma_m: Option<f64>,
    /// Positive-sequence impedances from the head added up, ohm.
    distance_ohm: f64,
    /// Fault resistance, ohm.
    resistance_ohm: f64,
    /// Probability of this branch among the candidates, 0 to 1.
    probability: f64,
    /// All candidates, the most probable first.
    candidates: Vec<CandidateDocument>,
    /// Nodes known to be dark that it was located with; 0 if they did not help.
    n_gasps: u32,
    /// When the fault was recorded, RFC 3339.
    #[schema(format = DateTime)]
    event_time: String,
    /// Who sent the record.
    sent_by: String,
}

impl FaultDocument {
    /// A row with its id.
    #[must_use]
    pub fn new(id: &str, row: &FaultRow) -> Self {
        Self {
            fault_id: id.to_owned(),
            area: row.area.to_string(),
            fault_type: row.fault_type.clone(),
            branch_id: row.branch_id,
            near_node: row.near_node,
            share: row.share,
            distance_m: row.distance_m,
            distance_sigma_m: row.distance_sigma_m,
            distance_ohm: row.distance_ohm,
            resistance_ohm: row.resistance_ohm,
            probability: row.probability,
            // written by a door; a later version may have written others, which is no reason to hide the fault
            candidates: serde_json::from_str(&row.candidates).unwrap_or_default(),
            n_gasps: row.n_gasps,
            event_time: row.event_time.to_string(),
            sent_by: row.by.clone(),
        }
    }
}

/// Which faults to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::rest) struct FaultQuery {
    /// Rows of a page
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<String>,
    /// The previous page's `next`
    cursor: Option<String>,
}

/// A page of faults, the newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::rest) struct FaultPage<'a> {
    /// The epoch that everything here is of.
    epoch: u64,
    items: Vec<FaultDocument>,
    /// Cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<&'a str>,
}

/// List located faults
///
/// The one that was recorded last first.
#[utoipa::path(get, path = "/api/v1/faults", operation_id = "listFaults", tag = "grid", params(FaultQuery),
    responses((status = 200, description = "A page of faults", body = FaultPage,
        headers(("Link" = String, description = "The next page, rel=\"next\"")))))]
pub(in crate::rest) async fn list(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Parameters(query): Parameters<FaultQuery>,
) -> Result<Response, Problem> {
    let limit = limit(query.limit.as_deref())?;
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let rows = grid_of(&snapshot, &caller.tenant)?.faults().iter();
    let found = newest::page(LIST, rows, |row| row.event_time, limit, query.cursor.as_deref())?;
    let next = found.next.as_deref();
    let answer = FaultPage {
        epoch: snapshot.epoch(),
        items: found.rows.iter().map(|(id, row)| FaultDocument::new(id, row)).collect(),
        next,
    };
    let mut response = page::document(Format::Json, page::json(&answer)?);
    page::link_next(response.headers_mut(), &uri, next);
    Ok(response)
}

/// One located fault
#[utoipa::path(get, path = "/api/v1/faults/{faultId}", operation_id = "getFault", tag = "grid",
    params(("faultId" = String, Path, description = "The fault")),
    responses((status = 200, description = "The fault", body = FaultDocument)))]
pub(in crate::rest) async fn one(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let faults = grid_of(&snapshot, &caller.tenant)?.faults();
    let row = faults.get(&id).ok_or_else(|| {
        let ids = known(faults.iter().map(|(id, _)| id));
        Problem::new(Code::UnknownFault, format!("there is no fault {id:?}; the faults: {ids}"))
    })?;
    Ok(page::document(Format::Json, page::json(&FaultDocument::new(&id, row))?))
}

/// Of when a record is.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::rest) struct RecordQuery {
    /// When the fault was recorded, RFC 3339 with a zone; send '+' as %2B. Without it: within the last 15 minutes
    #[param(format = DateTime)]
    event_time: Option<String>,
}

/// Locate a fault
///
/// For administrators. From voltages and currents at the head of a feeder, before and during a fault (phasors or a waveform, the JSON that
/// `flexmeter grid fault` reads), to the lines it can be on. The network is taken as it was switched when the fault came, and outages that
/// opened with it narrow the candidates down. The fault goes into the log and is durable when this answers. Its id comes from the record:
/// the same one sent again, when more meters have been heard, locates the same fault anew.
#[utoipa::path(post, path = "/api/v1/grid/fault-records", operation_id = "locateFault", tag = "grid", params(RecordQuery),
    request_body(content = serde_json::Value, description = "The record", content_type = "application/json"),
    responses((status = 201, description = "The located fault", body = FaultDocument,
        headers(("Location" = String, description = "Where the fault is from the next epoch on")))))]
pub(in crate::rest) async fn record(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    Parameters(query): Parameters<RecordQuery>,
    body: Bytes,
) -> Result<Response, Problem> {
    // The only role there is. Another one does not compile here before somebody has decided whether it may do this.
    let Role::Admin = caller.principal.role;
    let asked = query.event_time.as_deref().map(|text| moment("eventTime", text)).transpose()?;
    let now = now();
    if let Some(asked) = asked.filter(|asked| asked.micros() - now.micros() > AHEAD_US_MAX) {
        return Err(Problem::parameter("eventTime", format!("{asked} has not come yet; it is {now}")));
    }
    let record = std::str::from_utf8(&body).map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))?;
    let inquiry = {
        let snapshot = counter.state.live.snapshot(&caller.tenant);
        let grid = grid_of(&snapshot, &caller.tenant)?;
        let window = Window::new(asked, now);
        FaultInquiry {
            tenant: caller.tenant.clone(),
            record: record.to_owned(),
            positions: positions(grid, &window),
            dark_from: dark_from(grid, &window),
            at: asked.unwrap_or(now),
            by: caller.principal.user.to_string(),
        }
    };
    let row = (counter.state.faults)(inquiry).await.map_err(|refusal| {
        let code = match refusal {
            FaultRefusal::Record(_) => Code::InvalidBody,
            FaultRefusal::NotLocated(_) => Code::FaultNotLocated,
            FaultRefusal::Busy(_) => Code::Overloaded,
        };
        Problem::new(code, refusal.to_string())
    })?;
    let id = fault_id(record);
    let message = located(&id, row.event_time, fault_metadata(&row));
    store(&counter, &caller, message, "the fault").await?;
    let mut response = page::document(Format::Json, page::json(&FaultDocument::new(&id, &row))?);
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/faults/{id}")) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// The id of a record's fault: of its content, so that a client that does not know whether its record has arrived may send it again.
fn fault_id(record: &str) -> String {
    let digest = Sha256::digest(record.trim().as_bytes());
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("fault-{digits}")
}

/// When the fault can have been, and what came of it can have been told, by anybody's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: i64,
    to: i64,
}

impl Window {
    fn new(asked: Option<EventTime>, now: EventTime) -> Self {
        match asked.map(EventTime::micros) {
            Some(at) => Self {
                from: at - CLOCKS_APART_US_MAX,
                to: at + GASPS_WITHIN_US,
            },
            None => Self {
                from: now.micros() - RECORD_AGE_US_MAX,
                to: now.micros() + CLOCKS_APART_US_MAX,
            },
        }
    }
}

/// How the network was switched when the fault came. A switch that was operated since counts as it stands as a rule: a breaker that has
/// tripped was closed, a tie that supplies others meanwhile was open.
fn positions(grid: &LiveGrid, window: &Window) -> Vec<(i64, bool)> {
    let switches = grid.bundle().switches.iter();
    let position = |branch_id: i64, normally_closed: bool| match grid.switches().get(&branch_id) {
        Some(row) if row.since.is_none_or(|since| since.micros() < window.from) => row.closed,
        _ => normally_closed,
    };
    switches
        .map(|switch| (switch.branch_id, position(switch.branch_id, switch.normally_closed)))
        .collect()
}

/// Nodes behind the devices that failed with the fault. A meter alone says nothing of its feeder, and an outage of another time is
/// another failure's.
fn dark_from(grid: &LiveGrid, window: &Window) -> Vec<i64> {
    let is_device = |device: &str| {
        let id = device.strip_prefix("branch-").or_else(|| device.strip_prefix("node-"));
        id.is_some_and(|id| id.parse::<i64>().is_ok())
    };
    let outages = grid.outages().iter().map(|(_, row)| row);
    let failed = outages.filter(|row| {
        (window.from..=window.to).contains(&row.opened_at.micros())
            && is_device(&row.device)
            && !row.closed_because.is_some_and(|because| NO_FAILURE.contains(&because))
    });
    failed.map(|row| row.node_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixture::{live, minute, tenant};

    #[test]
    fn the_id_of_a_fault_is_that_of_its_record() {
        assert_eq!(fault_id("{\"a\":1}\n"), fault_id("{\"a\":1}"));
        assert_ne!(fault_id("{\"a\":1}"), fault_id("{\"a\":2}"));
        // `printf '{}' | sha256sum`
        assert_eq!(fault_id("{}"), "fault-44136fa355b3678a");
    }

    #[test]
    fn a_switch_operated_since_the_fault_counts_as_it_stands_as_a_rule() {
        // branch 21 was opened at minute 10
        let snapshot = live().snapshot(&tenant());
        let at = |asked: i64| positions(snapshot.grid(), &Window::new(Some(minute(asked)), minute(30)));
        assert_eq!(at(9), [(20, true), (21, true)]);
        assert_eq!(at(11), [(20, true), (21, false)]);
        let unknown = positions(snapshot.grid(), &Window::new(None, minute(20)));
        assert_eq!(unknown, [(20, true), (21, true)], "a record of now may be a quarter of an hour old");
    }

    #[test]
    fn only_what_failed_with_the_fault_narrows_it_down() {
        // the line failed at minute 11, the transformer at minute 1; a meter alone at minute 12
        let snapshot = live().snapshot(&tenant());
        let at = |asked: i64| dark_from(snapshot.grid(), &Window::new(Some(minute(asked)), minute(30)));
        assert_eq!((at(11), at(1), at(20)), (vec![3], vec![2], vec![]));
        assert_eq!(dark_from(snapshot.grid(), &Window::new(None, minute(20))), [3]);
    }
}
