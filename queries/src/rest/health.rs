//! `/healthz`, `/readyz` and `/metrics`: for those who run the server. They need no credentials and say nothing about anybody's data;
//! the server listens on loopback or behind a proxy that can keep them to itself.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::accept::Format;
use super::problem::{Code, Problem};
use super::{Counter, page};

/// How a part of the system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It works.
    Ok,
    /// It works, but not as it should: slower, staler or on a substitute.
    Degraded,
    /// It does not work.
    Down,
}

/// One part of the system and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ComponentState {
    /// The part: `street`, `lake`, …
    #[schema(value_type = String)]
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// What is wrong, for people.
    pub detail: Option<String>,
}

/// Asks every part how it is. It must be quick: it is called by every probe.
pub type Readiness = Arc<dyn Fn() -> Vec<ComponentState> + Send + Sync>;

/// Renders the metrics in Prometheus' text format.
pub type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// The answer of `/healthz`.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Alive {
    /// Always `ok`.
    status: &'static str,
    /// The server's version.
    version: &'static str,
}

/// The answer of `/readyz`.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Ready {
    /// The worst of the parts: ok or degraded.
    status: Health,
    /// Every part.
    components: Vec<ComponentState>,
}

/// Is the process alive?
#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "operation", security(()), responses((status = 200, description = "It is", body = Alive)))]
pub(super) async fn healthz() -> Result<Response, Problem> {
    Ok(page::document(
        Format::Json,
        page::json(&Alive {
            status: "ok",
            version: env!("CARGO_PKG_VERSION"),
        })?,
    ))
}

/// Can it do its work?
///
/// 200 also when parts are degraded, which the answer names; 503 when a part is down.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "operation", security(()), responses((status = 200, description = "It can", body = Ready)))]
pub(super) async fn readyz(State(counter): State<Arc<Counter>>) -> Result<Response, Problem> {
    let components = (counter.state.readiness)();
    let down: Vec<_> = components
        .iter()
        .filter(|part| part.health == Health::Down)
        .map(|part| part.name)
        .collect();
    if down.is_empty() {
        let status = components.iter().map(|part| part.health).max().unwrap_or(Health::Ok);
        return Ok(page::document(Format::Json, page::json(&Ready { status, components })?));
    }
    let list = serde_json::to_value(&components).map_err(|error| Problem::internal("writing the answer", &error))?;
    Err(Problem::new(Code::NotReady, format!("down: {}", down.join(", "))).with("components", list))
}

/// Metrics in Prometheus' text format
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "operation", security(()),
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(counter): State<Arc<Counter>>) -> Response {
    let mut response = (counter.state.metrics)().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
