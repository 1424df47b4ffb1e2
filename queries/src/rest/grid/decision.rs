//! What an operator decides: into the log first, and from there, like everything else, into the views.

use axum::http::StatusCode;
use axum::response::Response;
use flexmeter_model::message::DeviceMessage;
use flexmeter_model::operator::Decision;
use serde::Serialize;

use super::now;
use crate::auth::Role;
use crate::rest::accept::Format;
use crate::rest::guard::Caller;
use crate::rest::problem::{Code, Problem};
use crate::rest::{Counter, page};

/// A decision that is stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct Decided {
    /// The outage or the proposal.
    subject: String,
    /// Type of the alert that says so: `outage.acknowledged`, `outage.closed`, `reconfiguration.accepted` or `reconfiguration.rejected`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Who decided.
    by: String,
    /// State of the outage or the proposal when the decision was stored.
    state_before: &'static str,
    /// Time of the alert, RFC 3339.
    #[schema(format = DateTime)]
    event_time: String,
}

/// Stores a decision; what becomes of it is told by the views.
pub(super) async fn decide(
    counter: &Counter,
    caller: &Caller,
    decision: Decision,
    subject: &str,
    state_before: &'static str,
) -> Result<Response, Problem> {
    // The only role there is. Another one does not compile here before somebody has decided whether it may do this.
    let Role::Admin = caller.principal.role;
    let event_time = now();
    let by = &caller.principal.user;
    store(counter, caller, decision.message(subject, by, event_time), "the decision").await?;
    let answer = Decided {
        subject: subject.to_owned(),
        kind: decision.alert_type(),
        by: by.to_string(),
        state_before,
        event_time: event_time.to_string(),
    };
    let mut response = page::document(Format::Json, page::json(&answer)?);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Puts a message into the log; `what` it is, is said when that fails.
pub(super) async fn store(counter: &Counter, caller: &Caller, message: DeviceMessage, what: &str) -> Result<(), Problem> {
    (counter.state.log)(caller.tenant.clone(), message)
        .await
        .map_err(|error| Problem::new(Code::NotReady, format!("{what} is not stored: {error}; try again")))
}
