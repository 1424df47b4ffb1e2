//! `GET /api/v1/devices/{hardwareId}/load-profile`: mean, min, max and last of every 15 minutes, as late data have repaired them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use axum::response::Response;
use flexmeter_model::{EventTime, HardwareId, Identifier};
use serde::{Deserialize, Serialize};

use super::accept::{Format, TABLE_FORMATS, negotiate};
use super::encode::Encoder;
use super::guard::Caller;
use super::parameters::{DevicePath, Parameters, TimeRange, identifier, limit, unit_of};
use super::problem::Problem;
use super::statement::{Columns, Statement, rfc3339};
use super::{Counter, cursor, devices, page};

/// Name of this list in cursors.
const LIST: &str = "load-profile";
/// Width of a window, in minutes.
const WINDOW_MINUTES: u32 = 15;

/// Which windows to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ProfileQuery {
    /// Start of the first window, RFC 3339 with a zone; send '+' as %2B
    #[param(format = DateTime)]
    from: Option<String>,
    /// Time before which the windows' starts end
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only this quantity
    identifier: Option<String>,
    /// Rows of a page
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<String>,
    /// The previous page's `next`
    cursor: Option<String>,
}

/// A page of a load profile, ordered by window and identifier.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfilePage<'a> {
    /// The device.
    hardware_id: &'a str,
    /// Width of each window, in minutes.
    window_minutes: u32,
    items: Vec<ProfileItem>,
    /// Cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<&'a str>,
}

/// One quantity in one window.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfileItem {
    /// Start of the window, RFC 3339.
    #[schema(format = DateTime)]
    window_start: String,
    /// What was measured.
    identifier: String,
    /// The unit of the values.
    unit: &'static str,
    /// Number of readings.
    n: i64,
    /// Their mean.
    mean: f64,
    /// The smallest.
    min: f64,
    /// The largest.
    max: f64,
    /// The newest by event time.
    last: f64,
}

/// Sort key of a row: window start (µs) and identifier.
type Key = (i64, String);

/// Load profile of a device
///
/// The newest windows come from memory, older ones from the lake, each once.
#[utoipa::path(get, path = "/api/v1/devices/{hardwareId}/load-profile", operation_id = "listLoadProfile", tag = "devices",
    params(("hardwareId" = String, Path, description = "The device"), ProfileQuery),
    responses((status = 200, description = "A page of the load profile",
        content((ProfilePage = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream")),
        headers(("Link" = String, description = "The next page, rel=\"next\"")))))]
pub(super) async fn list(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    DevicePath(hardware_id): DevicePath,
    Parameters(query): Parameters<ProfileQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = negotiate(&headers, TABLE_FORMATS)?;
    let range = TimeRange::parse(query.from.as_deref(), query.to.as_deref())?;
    let wanted = query.identifier.as_deref().map(identifier).transpose()?;
    let limit = limit(query.limit.as_deref())?;
    let after: Option<Key> = cursor::start(LIST, query.cursor.as_deref())?;

    let statement = statement(&hardware_id, range, wanted, limit, after.as_ref());
    let (rows, has_more) = statement.fetch(&counter, &caller, limit).await?;
    if rows.num_rows() == 0 && after.is_none() && counter.state.live.snapshot(&caller.tenant).device(hardware_id.as_str()).is_none() {
        return Err(devices::unknown(&hardware_id));
    }
    let next = if has_more { Some(next_cursor(&rows)?) } else { None };
    let mut response = match format {
        Format::Json => {
            let (id, items) = (hardware_id.as_str(), items(&rows)?);
            let body = ProfilePage {
                hardware_id: id,
                window_minutes: WINDOW_MINUTES,
                items,
                next: next.as_deref(),
            };
            page::document(format, page::json(&body)?)
        }
        _ => {
            let body = Encoder::document(format, &rows).map_err(|error| Problem::internal("writing the answer", &error))?;
            page::document(format, body)
        }
    };
    page::link_next(response.headers_mut(), &uri, next.as_deref());
    Ok(response)
}

fn statement(id: &HardwareId, range: TimeRange, wanted: Option<Identifier>, limit: usize, after: Option<&Key>) -> Statement {
    let mut statement = Statement::new(
        "SELECT window_start AS \"windowStart\", identifier, n, mean, min, max, last FROM load_profile_15m WHERE hardware_id = ",
    );
    statement.bind_text(id.as_str());
    if let Some(from) = range.from {
        statement.push(" AND window_start >= ").bind_time(from);
    }
    if let Some(to) = range.to {
        statement.push(" AND window_start < ").bind_time(to);
    }
    if let Some(wanted) = wanted {
        statement.push(" AND identifier = ").bind_text(wanted.name());
    }
    if let Some((time_us, identifier)) = after {
        let time = EventTime::from_micros(*time_us);
        statement.push(" AND window_start >= ").bind_time(time);
        statement.push(" AND (window_start > ").bind_time(time);
        statement.push(" OR identifier > ").bind_text(identifier).push(")");
    }
    statement.push(" ORDER BY window_start, identifier").page(limit, 0);
    statement
}

fn next_cursor(rows: &RecordBatch) -> Result<String, Problem> {
    let last = rows.num_rows().saturating_sub(1);
    let (starts, identifiers) = (Columns(rows).time("windowStart")?, Columns(rows).text("identifier")?);
    cursor::encode(LIST, &(starts.value(last), identifiers.value(last)))
}

fn items(rows: &RecordBatch) -> Result<Vec<ProfileItem>, Problem> {
    let columns = Columns(rows);
    let (starts, identifiers, counts) = (columns.time("windowStart")?, columns.text("identifier")?, columns.int("n")?);
    let (means, mins) = (columns.float("mean")?, columns.float("min")?);
    let (maxs, lasts) = (columns.float("max")?, columns.float("last")?);
    let item = |row| ProfileItem {
        window_start: rfc3339(starts.value(row)),
        identifier: identifiers.value(row).to_owned(),
        unit: unit_of(identifiers.value(row)),
        n: counts.value(row),
        mean: means.value(row),
        min: mins.value(row),
        max: maxs.value(row),
        last: lasts.value(row),
    };
    Ok((0..rows.num_rows()).map(item).collect())
}
