//! `/api/v1/reconfigurations`: proposals to switch otherwise, and the operator's word on them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use flexmeter_model::EventTime;
use flexmeter_model::operator::Decision;
use flexmeter_model::outcome::{ReconfigurationRow, SwitchOperation};
use serde::{Deserialize, Serialize};

use super::decision::{Decided, decide};
use super::documents::position;
use super::newest::{self, IdPath};
use super::{grid_of, known};
use crate::live::LiveGrid;
use crate::rest::accept::Format;
use crate::rest::guard::Caller;
use crate::rest::parameters::{Parameters, limit};
use crate::rest::problem::{Code, Problem};
use crate::rest::{Counter, page};

/// Name of this list in cursors.
const LIST: &str = "reconfigurations";
/// The state in which a proposal waits for a decision.
const PROPOSED: &str = "proposed";
/// All states, in the order in which a proposal can go through them.
const STATES: [&str; 7] = [PROPOSED, "accepted", "rejected", "expired", "executing", "done", "failed"];

/// One switch to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepDocument {
    /// Branch that is switched.
    branch_id: i64,
    /// The device that is commanded.
    hardware_id: String,
    /// Where it goes: `open` or `closed`.
    position: &'static str,
}

impl From<&SwitchOperation> for StepDocument {
    fn from(step: &SwitchOperation) -> Self {
        Self {
            branch_id: step.branch_id,
            hardware_id: step.hardware_id.to_string(),
            position: position(step.close),
        }
    }
}

/// A proposal to switch otherwise, and what has become of it; also part of what is published at `flexmeter/{tenant}/grid/{area}/topology`
/// of a top area.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReconfigurationDocument {
    /// Names it for good.
    proposal_id: String,
    /// `proposed`, `accepted`, `rejected`, `expired`, `executing`, `done` or `failed`.
    state: &'static str,
    /// Why it has come to nothing: `time_out`, `network_changed`, `no_confirmation` or `switch_failed`.
    #[schema(required = true)]
    reason: Option<&'static str>,
    /// Who decided: an operator's name, or `automatic`; null before the decision.
    #[schema(required = true)]
    decided_by: Option<String>,
    /// What to do, in this order.
    plan: Vec<StepDocument>,
    /// Operations that their switches have confirmed.
    n_done: u32,
    /// Losses as the switches stood when it was proposed, W.
    loss_before_w: f64,
    /// Losses after the plan, W.
    loss_after_w: f64,
    /// Losses of the tree that the algorithm of D4.6 alone finds, W; null where it finds none.
    #[serde(rename = "lossD4_6W")]
    #[schema(required = true)]
    loss_d4_6_w: Option<f64>,
    /// Lowest voltage as the switches stood, per unit.
    voltage_min_before_pu: f64,
    /// Lowest voltage after the plan, per unit.
    voltage_min_after_pu: f64,
    /// When it was proposed, log time, RFC 3339.
    #[schema(format = DateTime)]
    proposed_at: String,
    /// Until when it can be accepted, log time, RFC 3339.
    #[schema(format = DateTime)]
    expires_at: String,
    /// When its state changed last, log time, RFC 3339.
    #[schema(format = DateTime)]
    changed_at: String,
}

impl ReconfigurationDocument {
    /// A row with its id.
    #[must_use]
    pub fn new(id: &str, row: &ReconfigurationRow) -> Self {
        let [voltage_min_before_pu, voltage_min_after_pu] = row.voltage_min_pu;
        Self {
            proposal_id: id.to_owned(),
            state: row.state,
            reason: row.reason,
            decided_by: row.decided_by.clone(),
            plan: row.operations.iter().map(Into::into).collect(),
            n_done: row.n_done,
            loss_before_w: row.loss_before_w,
            loss_after_w: row.loss_after_w,
            loss_d4_6_w: row.loss_d4_6_w,
            voltage_min_before_pu,
            voltage_min_after_pu,
            proposed_at: row.proposed_at.to_string(),
            expires_at: row.expires_at.to_string(),
            changed_at: row.changed_at.to_string(),
        }
    }
}

/// Which proposals to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::rest) struct ReconfigurationQuery {
    /// Only proposals in this state: proposed, accepted, rejected, expired, executing, done or failed
    state: Option<String>,
    /// Rows of a page
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<String>,
    /// The previous page's `next`
    cursor: Option<String>,
}

/// A page of proposals, the newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::rest) struct ReconfigurationPage<'a> {
    /// The epoch that everything here is of.
    epoch: u64,
    items: Vec<ReconfigurationDocument>,
    /// Cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<&'a str>,
}

/// List proposals to switch otherwise
///
/// The newest first.
#[utoipa::path(get, path = "/api/v1/reconfigurations", operation_id = "listReconfigurations", tag = "grid", params(ReconfigurationQuery),
    responses((status = 200, description = "A page of proposals", body = ReconfigurationPage,
        headers(("Link" = String, description = "The next page, rel=\"next\"")))))]
pub(in crate::rest) async fn list(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Parameters(query): Parameters<ReconfigurationQuery>,
) -> Result<Response, Problem> {
    let limit = limit(query.limit.as_deref())?;
    if let Some(state) = query.state.as_deref().filter(|state| !STATES.contains(state)) {
        return Err(Problem::parameter("state", format!("{state:?} is none of {}", STATES.join(", "))));
    }
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let rows = grid_of(&snapshot, &caller.tenant)?.reconfigurations().iter();
    let rows = rows.filter(|(_, row)| query.state.as_deref().is_none_or(|state| state == row.state));
    let found = newest::page(LIST, rows, |row| row.proposed_at, limit, query.cursor.as_deref())?;
    let next = found.next.as_deref();
    let answer = ReconfigurationPage {
        epoch: snapshot.epoch(),
        items: found.rows.iter().map(|(id, row)| ReconfigurationDocument::new(id, row)).collect(),
        next,
    };
    let mut response = page::document(Format::Json, page::json(&answer)?);
    page::link_next(response.headers_mut(), &uri, next);
    Ok(response)
}

fn row<'a>(grid: &'a LiveGrid, id: &str) -> Result<&'a ReconfigurationRow, Problem> {
    grid.reconfigurations().get(id).map(|row| &**row).ok_or_else(|| {
        let ids = known(grid.reconfigurations().iter().map(|(id, _)| id));
        Problem::new(
            Code::UnknownReconfiguration,
            format!("there is no proposal {id:?}; the proposals: {ids}"),
        )
    })
}

/// One proposal
#[utoipa::path(get, path = "/api/v1/reconfigurations/{proposalId}", operation_id = "getReconfiguration", tag = "grid",
    params(("proposalId" = String, Path, description = "The proposal")),
    responses((status = 200, description = "The proposal", body = ReconfigurationDocument)))]
pub(in crate::rest) async fn one(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let row = row(grid_of(&snapshot, &caller.tenant)?, &id)?;
    Ok(page::document(Format::Json, page::json(&ReconfigurationDocument::new(&id, row))?))
}

/// Whether a proposal can still be decided. Log time may run on before the decision is in the log: the engine looks again, and the
/// proposal's state then says what became of it.
fn check(id: &str, row: &ReconfigurationRow, log_time: EventTime) -> Result<(), Problem> {
    let refuse = |why: String, state: &str| Err(Problem::new(Code::NotProposed, why).with("state", state.into()));
    if row.state != PROPOSED {
        let by = row.decided_by.as_deref().map(|by| format!(", by {by}")).unwrap_or_default();
        let why = format!(
            "proposal {id} is {} since {}{by}; only a proposed one can be decided",
            row.state, row.changed_at
        );
        return refuse(why, row.state);
    }
    if log_time >= row.expires_at {
        return refuse(
            format!("proposal {id} has expired at {}; wait for the next one", row.expires_at),
            "expired",
        );
    }
    Ok(())
}

async fn decide_if_proposed(counter: &Counter, caller: &Caller, decision: Decision, id: &str) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let row = row(grid_of(&snapshot, &caller.tenant)?, id)?;
    check(id, row, snapshot.log_time())?;
    decide(counter, caller, decision, id, row.state).await
}

/// Accept a proposal
///
/// For administrators. The decision goes into the log as a `reconfiguration.accepted` alert and is durable when this answers; then the
/// switches are commanded one after the other, each as the one before has confirmed its position.
#[utoipa::path(post, path = "/api/v1/reconfigurations/{proposalId}/accept", operation_id = "acceptReconfiguration", tag = "grid",
    params(("proposalId" = String, Path, description = "The proposal")),
    responses((status = 202, description = "The decision is stored", body = Decided)))]
pub(in crate::rest) async fn accept(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    decide_if_proposed(&counter, &caller, Decision::AcceptReconfiguration, &id).await
}

/// Turn a proposal down
///
/// For administrators. The decision goes into the log as a `reconfiguration.rejected` alert and is durable when this answers.
#[utoipa::path(post, path = "/api/v1/reconfigurations/{proposalId}/reject", operation_id = "rejectReconfiguration", tag = "grid",
    params(("proposalId" = String, Path, description = "The proposal")),
    responses((status = 202, description = "The decision is stored", body = Decided)))]
pub(in crate::rest) async fn reject(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Result<Response, Problem> {
    decide_if_proposed(&counter, &caller, Decision::RejectReconfiguration, &id).await
}
