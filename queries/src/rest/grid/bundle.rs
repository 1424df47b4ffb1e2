//! `PUT /api/v1/grid`: another grid bundle for the tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use flexmeter_model::TenantId;
use flexmeter_model::operator::grid_replaced;
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use super::{decision, now};
use crate::auth::Role;
use crate::rest::accept::Format;
use crate::rest::guard::Caller;
use crate::rest::problem::{Code, Problem};
use crate::rest::{Counter, page};

/// Longest bundle, in bytes: some 300,000 nodes.
pub(in crate::rest) const BUNDLE_LEN_MAX: usize = 256 * 1024 * 1024;

/// Texts of a bundle's files, by name.
pub type BundleFiles = BTreeMap<String, String>;

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// SHA-256 of its files, hexadecimal: the `subject` of the alert `grid.replaced` that records it.
    pub fingerprint: String,
    /// Nodes of the network.
    pub n_nodes: usize,
    /// Its branches.
    pub n_branches: usize,
    /// Its meters.
    pub n_meters: usize,
    /// Paths of its areas.
    pub areas: Vec<String>,
}

/// Why a bundle was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleRefusal {
    /// It is none: what is wrong in which file, and what to do.
    Bundle(String),
    /// It could not be stored.
    NotStored(String),
}

/// Checks a bundle and stores it for good; the engine goes over to it at once.
pub type BundleDoor = Arc<dyn Fn(TenantId, BundleFiles) -> BoxFuture<'static, Result<Stored, BundleRefusal>> + Send + Sync>;

/// Replace the grid
///
/// For administrators. The body holds the files of a grid bundle by name: `{"network.json": {…}, "areas.csv": "node_id,area\n…",
/// "meters.csv": …, "switches.csv": …}`, and `names.csv` and `lines.csv` if there are any. The bundle is checked and on disk when this answers; it
/// replaces the one of the configuration, also after a restart. Who put it is in the log as an alert `grid.replaced`. The live views begin anew with it within seconds, and `/readyz` says when they are complete.
#[utoipa::path(put, path = "/api/v1/grid", operation_id = "putGrid", tag = "grid",
    request_body = Object,
    responses((status = 202, description = "The bundle is stored", body = Stored)))]
pub(in crate::rest) async fn put(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    // The only role there is. Another one does not compile here before somebody has decided whether it may do this.
    let Role::Admin = caller.principal.role;
    // a large body takes its time
    let files = tokio::task::spawn_blocking(move || files(&body))
        .await
        .unwrap_or_else(|error| Err(format!("reading the body failed: {error}")))
        .map_err(|why| Problem::new(Code::InvalidBody, why))?;
    let stored = (counter.state.bundles)(caller.tenant.clone(), files)
        .await
        .map_err(|refusal| match refusal {
            BundleRefusal::Bundle(why) => Problem::new(Code::InvalidBody, why),
            BundleRefusal::NotStored(why) => Problem::new(Code::NotReady, format!("the bundle is not stored: {why}")),
        })?;
    let record = grid_replaced(&stored.fingerprint, &caller.principal.user, now());
    decision::store(&counter, &caller, record, "the bundle is in use, its record").await?;
    let mut response = page::document(Format::Json, page::json(&stored)?);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Texts of the files; JSON may stand as it is.
fn files(body: &[u8]) -> Result<BundleFiles, String> {
    let files: BTreeMap<String, Value> =
        serde_json::from_slice(body).map_err(|error| format!("{error}; send {{\"network.json\": {{…}}, \"areas.csv\": \"…\", …}}"))?;
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Object(_) if name.ends_with(".json") => Ok((name, value.to_string())),
        _ => Err(format!("{name} is neither a text nor, where its name says so, JSON")),
    };
    files.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_may_stand_as_it_is() {
        let found = files(br#"{"network.json": {"a": 1}, "areas.csv": "x"}"#).unwrap();
        assert_eq!(found["network.json"], r#"{"a":1}"#);
        assert_eq!(found["areas.csv"], "x");
        assert!(files(br#"{"areas.csv": {"a": 1}}"#).unwrap_err().contains("areas.csv"));
        assert!(files(b"[]").is_err());
    }
}
