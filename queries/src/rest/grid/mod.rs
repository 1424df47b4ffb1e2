//! `GET /api/v1/grid`, `GET /api/v1/grid/areas/{area}`, `PUT /api/v1/grid/switches/{branchId}`: the grid, answered from the live views.
//! Beside it: `outages` (with the reliability of feeders), `reconfigurations`, `faults`.
//!
//! A switch operation is not written into any view here: it goes into the log as the switch's own alert, comes back through the engine like
//! one that the device has sent, and is there after every restart.

pub(super) mod bundle;
mod decision;
mod documents;
pub(super) mod faults;
mod newest;
pub(super) mod outages;
pub(super) mod reconfigurations;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use flexmeter_model::message::{DeviceMessage, DeviceRequest};
use flexmeter_model::outcome::AlertLevel;
use flexmeter_model::{EventTime, TenantId};
use futures::future::BoxFuture;

use super::accept::Format;
use super::guard::Caller;
use super::problem::{Code, Problem};
use super::{Counter, page};
use crate::auth::Role;
use crate::live::{LiveGrid, LiveSnapshot};
use documents::{Area, AreaItem, BranchItem, Grid, NodeItem, Operated, Operation, Position, position};

pub use bundle::{BundleDoor, BundleFiles, BundleRefusal, Stored};
pub use documents::{EstimateDocument, NodeDocument, QualityDocument, SwitchDocument};
pub use faults::{CandidateDocument, FaultDocument, FaultDoor, FaultInquiry, FaultRefusal};
pub use outages::OutageDocument;
pub use reconfigurations::{ReconfigurationDocument, StepDocument};

/// Puts a message of the platform itself into the log, as if its device had sent it; ready when it is on disk. The error is for people.
pub type LogDoor = Arc<dyn Fn(TenantId, DeviceMessage) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The alert that tells a switch's position.
const SWITCH_POSITION: &str = "switch.position";
/// How many ids an error names.
const IDS_NAMED_MAX: usize = 20;

/// The tenant's grid, or the problem that it has none.
fn grid_of<'a>(snapshot: &'a LiveSnapshot, tenant: &TenantId) -> Result<&'a Arc<LiveGrid>, Problem> {
    let grid = snapshot.grid();
    if grid.is_there() {
        return Ok(grid);
    }
    let why = format!(
        "tenant {tenant} has no grid; put one to /api/v1/grid, or give grid.bundle in the configuration the folder of a grid bundle and start again"
    );
    Err(Problem::new(Code::UnknownGrid, why))
}

/// The ids that there are, as far as an error can name them.
fn known<T: ToString>(ids: impl Iterator<Item = T>) -> String {
    let mut ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    let n_more = ids.len().saturating_sub(IDS_NAMED_MAX);
    ids.truncate(IDS_NAMED_MAX);
    match (ids.is_empty(), n_more) {
        (true, _) => "none".to_owned(),
        (false, 0) => ids.join(", "),
        (false, n) => format!("{} and {n} more", ids.join(", ")),
    }
}

/// The grid with its areas and switches
///
/// How far each area's estimate can be trusted, and where every switch stands, at one epoch.
#[utoipa::path(get, path = "/api/v1/grid", operation_id = "getGrid", tag = "grid",
    responses((status = 200, description = "The grid", body = Grid)))]
pub(super) async fn grid(State(counter): State<Arc<Counter>>, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let grid = grid_of(&snapshot, &caller.tenant)?;
    let bundle = grid.bundle();
    let switch = |switch: &flexmeter_model::grid_bundle::BundleSwitch| SwitchDocument::new(switch, grid.switches().get(&switch.branch_id));
    let answer = Grid {
        epoch: snapshot.epoch(),
        three_phase: bundle.is_three_phase,
        n_nodes: bundle.nodes.len(),
        n_branches: bundle.branches.len(),
        n_meters: bundle.meters.len(),
        areas: bundle.areas.iter().map(|area| AreaItem::new(area, grid)).collect(),
        switches: bundle.switches.iter().map(switch).collect(),
    };
    Ok(page::document(Format::Json, page::json(&answer)?))
}

/// The `{area}` of a path: everything after `areas/`, slashes included.
pub(super) struct AreaPath(String);

impl<S: Send + Sync> FromRequestParts<S> for AreaPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(area) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::parameter("area", reason(&rejection)))?;
        Ok(Self(area))
    }
}

/// The `{branchId}` of a path.
pub(super) struct BranchPath(i64);

impl<S: Send + Sync> FromRequestParts<S> for BranchPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<i64>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::parameter("branchId", reason(&rejection)))?;
        Ok(Self(id))
    }
}

fn reason(rejection: &PathRejection) -> String {
    match rejection {
        PathRejection::FailedToDeserializePathParams(error) => error.body_text(),
        other => other.to_string(),
    }
}

/// One area: its topology and its current state
///
/// Nodes, branches, meters and switches, and the estimated state of every node with its standard deviations, at one epoch.
#[utoipa::path(get, path = "/api/v1/grid/areas/{*area}", operation_id = "getGridArea", tag = "grid",
    params(("area" = String, Path, description = "Path of the area, slashes included: mv1/lv07")),
    responses((status = 200, description = "The area", body = Area)))]
pub(super) async fn area(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    AreaPath(path): AreaPath,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let grid = grid_of(&snapshot, &caller.tenant)?;
    let bundle = grid.bundle();
    let Some(area) = bundle.area(&path) else {
        let why = format!(
            "the grid has no area {path:?}; its areas: {}",
            known(bundle.areas.iter().map(|area| &area.path))
        );
        return Err(Problem::new(Code::UnknownArea, why));
    };
    let is_here = |other: &Arc<str>| *other == area.path;
    let switches = bundle.switches.iter().filter(|switch| is_here(&switch.area));
    let nodes = bundle.nodes.iter().filter(|node| is_here(&node.area)).map(|node| NodeItem {
        node_id: node.id,
        name: node.name.clone(),
        u_rated_v: node.u_rated_v,
    });
    let branches = bundle.branches.iter().filter(|branch| is_here(&branch.area));
    let children = bundle.areas.iter().filter(|other| other.parent.as_ref().is_some_and(is_here));
    let answer = Area {
        epoch: snapshot.epoch(),
        area: path,
        parent: area.parent.as_deref().map(str::to_owned),
        children: children.map(|child| child.path.to_string()).collect(),
        nodes: nodes.collect(),
        branches: branches.map(|branch| BranchItem::new(branch, grid)).collect(),
        meters: bundle.meters.iter().filter(|meter| is_here(&meter.area)).map(Into::into).collect(),
        switches: switches
            .map(|switch| SwitchDocument::new(switch, grid.switches().get(&switch.branch_id)))
            .collect(),
        estimate: grid.areas().get(&area.path).map(|estimate| (&**estimate).into()),
    };
    Ok(page::document(Format::Json, page::json(&answer)?))
}

/// Record a switch operation
///
/// For administrators. The position goes into the log as a `switch.position` alert of the switch's device, and is durable when this answers;
/// the state follows within an epoch. It records an operation: nothing is sent to the device.
#[utoipa::path(put, path = "/api/v1/grid/switches/{branchId}", operation_id = "operateSwitch", tag = "grid",
    params(("branchId" = i64, Path, description = "The branch that is switched")),
    request_body = Operation,
    responses((status = 202, description = "The alert is stored", body = Operated)))]
pub(super) async fn operate(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    BranchPath(branch_id): BranchPath,
    body: Bytes,
) -> Result<Response, Problem> {
    // The only role there is. Another one does not compile here before somebody has decided whether it may do this.
    let Role::Admin = caller.principal.role;
    let operation: Operation = serde_json::from_slice(&body).map_err(|error| {
        let why = format!("{error}; send {{\"position\":\"open\"}} or {{\"position\":\"closed\"}}");
        Problem::new(Code::InvalidBody, why)
    })?;
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let grid = grid_of(&snapshot, &caller.tenant)?;
    let Some(switch) = grid.bundle().switch(branch_id) else {
        let ids = known(grid.bundle().switches.iter().map(|switch| switch.branch_id));
        return Err(Problem::new(
            Code::UnknownSwitch,
            format!("branch {branch_id} is no switch; the switches: {ids}"),
        ));
    };
    let row = grid.switches().get(&branch_id);
    let event_time = after(now(), row.and_then(|row| row.since));
    let is_closed = operation.position == Position::Closed;
    let message = alert(&switch.hardware_id, event_time, is_closed, &caller.principal.user);
    decision::store(&counter, &caller, message, "the operation").await?;
    let answer = Operated {
        branch_id,
        hardware_id: switch.hardware_id.clone(),
        kind: SWITCH_POSITION,
        position: position(is_closed),
        position_before: position(grid.is_closed(branch_id, switch.normally_closed)),
        event_time: event_time.to_string(),
    };
    let mut response = page::document(Format::Json, page::json(&answer)?);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn now() -> EventTime {
    EventTime::from_clock(SystemTime::now())
}

/// The engine leaves out positions older than the one it knows: an operation comes after it even where the device's clock is ahead.
fn after(now: EventTime, since: Option<EventTime>) -> EventTime {
    since.map_or(now, |since| now.max(EventTime::from_micros(since.micros().saturating_add(1))))
}

fn alert(hardware_id: &str, event_time: EventTime, is_closed: bool, user: &str) -> DeviceMessage {
    let mut message = DeviceMessage::alert(hardware_id, Some(event_time), SWITCH_POSITION, AlertLevel::Info);
    if let DeviceRequest::Alert(alert) = &mut message.request {
        alert.message = format!("recorded over REST by {user}");
        alert.metadata = vec![
            ("position".to_owned(), position(is_closed).to_owned()),
            ("by".to_owned(), user.to_owned()),
        ];
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_comes_after_what_is_known_of_the_switch() {
        let at = EventTime::from_micros;
        assert_eq!(after(at(10), None), at(10));
        assert_eq!(after(at(10), Some(at(5))), at(10));
        assert_eq!(after(at(10), Some(at(10))), at(11));
        assert_eq!(after(at(10), Some(at(500))), at(501));
    }

    #[test]
    fn an_error_names_as_many_ids_as_a_reader_can_use() {
        assert_eq!(known(std::iter::empty::<i64>()), "none");
        assert_eq!(known([5, 8].iter()), "5, 8");
        assert!(known(0..100).ends_with("19 and 80 more"));
    }
}
