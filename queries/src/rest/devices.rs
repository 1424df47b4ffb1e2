//! `GET /api/v1/devices` and `/api/v1/devices/{hardwareId}`: who has been heard of. Answered from the live views, without SQL.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use flexmeter_model::{EventTime, HardwareId, TenantId};
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::accept::Format;
use super::guard::Caller;
use super::parameters::{DevicePath, Parameters, limit};
use super::problem::{Code, Problem};
use super::{Counter, cursor, page};
use crate::live::{DeviceRow, LiveSnapshot};

/// Name of this list in cursors.
const LIST: &str = "devices";

/// Which devices to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeviceQuery {
    /// Only hardware ids that begin with this
    prefix: Option<String>,
    /// Rows of a page
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<String>,
    /// The previous page's `next`
    cursor: Option<String>,
}

/// A page of devices, ordered by hardware id.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct DevicePage {
    items: Vec<DeviceItem>,
    /// Cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// A device.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceItem {
    /// Unique within the tenant.
    hardware_id: String,
    /// The oldest event time in memory, RFC 3339.
    #[schema(required = true, format = DateTime)]
    first_event_time: Option<String>,
    /// The newest event time, RFC 3339.
    #[schema(required = true, format = DateTime)]
    last_event_time: Option<String>,
    /// When its newest message arrived; null when it has been silent since the server started.
    #[schema(required = true, format = DateTime)]
    last_received_at: Option<String>,
    /// What it has measured.
    identifiers: Vec<&'static str>,
}

impl DeviceItem {
    fn new(row: &DeviceRow) -> Self {
        let text = |time: Option<EventTime>| time.map(|time| time.to_string());
        Self {
            hardware_id: row.device.hardware_id.to_string(),
            first_event_time: text(row.activity.first_event_time),
            last_event_time: text(row.activity.last_event_time),
            last_received_at: text(row.activity.last_received_at),
            identifiers: row.latest.iter().map(|reading| reading.identifier.name()).collect(),
        }
    }
}

/// List devices
///
/// Ordered by hardware id. Devices that appear during a walk are seen when their id lies ahead of it.
#[utoipa::path(get, path = "/api/v1/devices", operation_id = "listDevices", tag = "devices", params(DeviceQuery),
    responses((status = 200, description = "A page of devices", body = DevicePage,
        headers(("Link" = String, description = "The next page, rel=\"next\"")))))]
pub(super) async fn list(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Parameters(query): Parameters<DeviceQuery>,
) -> Result<Response, Problem> {
    let limit = limit(query.limit.as_deref())?;
    let after: Option<String> = cursor::start(LIST, query.cursor.as_deref())?;
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let names = counter.directory.names(&caller.tenant, &snapshot);
    let (found, has_more) = select(&names, query.prefix.as_deref().unwrap_or(""), after.as_deref(), limit);
    let next = match found.last() {
        Some((last, _)) if has_more => Some(cursor::encode(LIST, &last.as_str())?),
        _ => None,
    };
    let items = found
        .iter()
        .filter_map(|(_, position)| snapshot.at(*position))
        .map(|row| DeviceItem::new(row))
        .collect();
    let mut response = page::document(Format::Json, page::json(&DevicePage { items, next: next.clone() })?);
    page::link_next(response.headers_mut(), &uri, next.as_deref());
    Ok(response)
}

/// One device
#[utoipa::path(get, path = "/api/v1/devices/{hardwareId}", operation_id = "getDevice", tag = "devices",
    params(("hardwareId" = String, Path, description = "The device")),
    responses((status = 200, description = "The device", body = DeviceItem)))]
pub(super) async fn one(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    DevicePath(hardware_id): DevicePath,
) -> Result<Response, Problem> {
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let row = snapshot.device(hardware_id.as_str()).ok_or_else(|| unknown(&hardware_id))?;
    Ok(page::document(Format::Json, page::json(&DeviceItem::new(row))?))
}

/// The answer for a device nothing was heard of.
pub(super) fn unknown(hardware_id: &HardwareId) -> Problem {
    Problem::new(Code::UnknownDevice, format!("no accepted message has come from {hardware_id}"))
}

/// A device's name and its position in the snapshot.
type Entry = (HardwareId, usize);

/// Names in order, for each tenant. Positions in snapshots are stable and names never go away, so a newer snapshot only adds.
#[derive(Debug, Default)]
pub(super) struct Directory(Mutex<HashMap<TenantId, Arc<Vec<Entry>>>>);

impl Directory {
    fn names(&self, tenant: &TenantId, snapshot: &LiveSnapshot) -> Arc<Vec<Entry>> {
        let mut tenants = self.0.lock();
        let names = tenants.entry(tenant.clone()).or_default();
        let n_known = names.len();
        if n_known < snapshot.n_devices() {
            let new = (n_known..snapshot.n_devices()).filter_map(|position| {
                let row = snapshot.at(position)?;
                Some((row.device.hardware_id.clone(), position))
            });
            let names = Arc::make_mut(names);
            names.extend(new);
            // Two sorted runs: the sort is one merge.
            names[n_known..].sort_unstable();
            names.sort();
        }
        names.clone()
    }
}

/// The first `limit` names with the prefix that come after `after`, and whether there are more.
fn select<'a>(names: &'a [Entry], prefix: &str, after: Option<&str>, limit: usize) -> (&'a [Entry], bool) {
    let start = names.partition_point(|(name, _)| {
        let name = name.as_str();
        name.cmp(prefix) == Ordering::Less || after.is_some_and(|after| name <= after)
    });
    let ahead = &names[start..];
    let ahead = &ahead[..ahead.partition_point(|(name, _)| name.as_str().starts_with(prefix))];
    (&ahead[..ahead.len().min(limit)], ahead.len() > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefix: &str, after: Option<&str>, limit: usize, expected: &[&str], has_more: bool) {
        let names: Vec<Entry> = ["a", "ab", "abc", "b", "ba"]
            .iter()
            .map(|name| (HardwareId::new(name).unwrap(), 0))
            .collect();
        let (found, more) = select(&names, prefix, after, limit);
        let found: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((found.as_slice(), more), (expected, has_more), "{prefix:?} after {after:?}");
    }

    #[test]
    fn names_are_selected_by_prefix_and_place() {
        check("", None, 9, &["a", "ab", "abc", "b", "ba"], false);
        check("", None, 2, &["a", "ab"], true);
        check("", Some("ab"), 2, &["abc", "b"], true);
        check("", Some("aa"), 2, &["ab", "abc"], true);
        check("ab", None, 9, &["ab", "abc"], false);
        check("ab", Some("ab"), 1, &["abc"], false);
        check("ab", Some("b"), 1, &[], false);
        check("c", None, 9, &[], false);
    }
}
