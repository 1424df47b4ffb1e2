//! `GET /api/v1/devices/{hardwareId}/measurements`: a device's accepted readings, in time order, lake and memory together.

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
use super::parameters::{DevicePath, Parameters, TimeRange, identifier, limit};
use super::problem::Problem;
use super::statement::{Columns, Statement, rfc3339, rows_to_skip};
use super::{Counter, cursor, devices, page};

/// Name of this list in cursors.
const LIST: &str = "measurements";

/// Which readings to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MeasurementQuery {
    /// Event time of the first reading, RFC 3339 with a zone; send '+' as %2B
    #[param(format = DateTime)]
    from: Option<String>,
    /// Event time before which the readings end
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

/// A page of readings, ordered by event time.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MeasurementPage<'a> {
    /// The device.
    hardware_id: &'a str,
    items: Vec<MeasurementItem>,
    /// Cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<&'a str>,
}

/// One reading.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MeasurementItem {
    /// When it was measured, RFC 3339.
    #[schema(format = DateTime)]
    event_time: String,
    /// What was measured.
    identifier: String,
    /// The value, in `unit`.
    value: f64,
    /// The identifier's unit.
    unit: String,
    /// good, suspect or substituted.
    quality: String,
    /// When the log appended it, RFC 3339.
    #[schema(format = DateTime)]
    received_at: String,
    /// Where the log has it.
    log_partition: i64,
    /// Where in the partition.
    log_offset: i64,
}

/// Sort key of a reading: event time (µs), identifier, log partition, log offset.
type Key = (i64, String, i64, i64);

/// Readings of a device
///
/// A walk with `cursor` sees every reading once, also while new ones arrive; those that arrive late, behind the cursor, belong to the next walk.
/// As CSV and Arrow the columns have the same names, and the cursor is in the header X-Next-Cursor.
#[utoipa::path(get, path = "/api/v1/devices/{hardwareId}/measurements", operation_id = "listMeasurements", tag = "devices",
    params(("hardwareId" = String, Path, description = "The device"), MeasurementQuery),
    responses((status = 200, description = "A page of readings",
        content((MeasurementPage = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream")),
        headers(("Link" = String, description = "The next page, rel=\"next\"")))))]
pub(super) async fn list(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    DevicePath(hardware_id): DevicePath,
    Parameters(query): Parameters<MeasurementQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = negotiate(&headers, TABLE_FORMATS)?;
    let range = TimeRange::parse(query.from.as_deref(), query.to.as_deref())?;
    let wanted = query.identifier.as_deref().map(identifier).transpose()?;
    let limit = limit(query.limit.as_deref())?;
    let start: Option<(Key, u32)> = cursor::start(LIST, query.cursor.as_deref())?;

    let statement = statement(&hardware_id, range, wanted, limit, start.as_ref());
    let (rows, has_more) = statement.fetch(&counter, &caller, limit).await?;
    if rows.num_rows() == 0 && start.is_none() && counter.state.live.snapshot(&caller.tenant).device(hardware_id.as_str()).is_none() {
        return Err(devices::unknown(&hardware_id));
    }
    let next = if has_more {
        Some(next_cursor(&rows, start.as_ref())?)
    } else {
        None
    };
    let mut response = match format {
        Format::Json => {
            let body = MeasurementPage {
                hardware_id: hardware_id.as_str(),
                items: items(&rows)?,
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

fn statement(id: &HardwareId, range: TimeRange, wanted: Option<Identifier>, limit: usize, start: Option<&(Key, u32)>) -> Statement {
    let mut statement = Statement::new(
        "SELECT event_time AS \"eventTime\", identifier, value, unit, quality, received_at AS \"receivedAt\", \
         log_partition AS \"logPartition\", log_offset AS \"logOffset\" FROM measurements WHERE hardware_id = ",
    );
    statement.bind_text(id.as_str());
    if let Some(from) = range.from {
        statement.push(" AND event_time >= ").bind_time(from);
    }
    if let Some(to) = range.to {
        statement.push(" AND event_time < ").bind_time(to);
    }
    if let Some(wanted) = wanted {
        statement.push(" AND identifier = ").bind_text(wanted.name());
    }
    if let Some(((time_us, identifier, partition, offset), _)) = start {
        let time = EventTime::from_micros(*time_us);
        // The first condition alone lets the lake skip files; the rest is the order of the sort key.
        statement.push(" AND event_time >= ").bind_time(time);
        statement.push(" AND (event_time > ").bind_time(time);
        statement.push(" OR identifier > ").bind_text(identifier);
        statement.push(" OR (identifier = ").bind_text(identifier);
        statement.push(" AND (log_partition > ").bind_int(*partition);
        statement.push(" OR (log_partition = ").bind_int(*partition);
        statement.push(" AND log_offset >= ").bind_int(*offset).push("))))");
    }
    // A legacy batch may hold two readings with one key; the value gives even those a fixed order.
    statement.push(" ORDER BY event_time, identifier, log_partition, log_offset, value");
    statement.page(limit, start.map_or(0, |(_, skip)| *skip));
    statement
}

fn next_cursor(rows: &RecordBatch, start: Option<&(Key, u32)>) -> Result<String, Problem> {
    let columns = Columns(rows);
    let (times, identifiers) = (columns.time("eventTime")?, columns.text("identifier")?);
    let (partitions, offsets) = (columns.int("logPartition")?, columns.int("logOffset")?);
    let key = |row: usize| -> Key {
        (
            times.value(row),
            identifiers.value(row).to_owned(),
            partitions.value(row),
            offsets.value(row),
        )
    };
    let n_rows = rows.num_rows();
    let skip = rows_to_skip(n_rows, key, start.map(|(key, skip)| (key, *skip)));
    cursor::encode(LIST, &(key(n_rows.saturating_sub(1)), skip))
}

fn items(rows: &RecordBatch) -> Result<Vec<MeasurementItem>, Problem> {
    let columns = Columns(rows);
    let (times, identifiers) = (columns.time("eventTime")?, columns.text("identifier")?);
    let (values, units, qualities) = (columns.float("value")?, columns.text("unit")?, columns.text("quality")?);
    let (received, partitions, offsets) = (columns.time("receivedAt")?, columns.int("logPartition")?, columns.int("logOffset")?);
    let item = |row| MeasurementItem {
        event_time: rfc3339(times.value(row)),
        identifier: identifiers.value(row).to_owned(),
        value: values.value(row),
        unit: units.value(row).to_owned(),
        quality: qualities.value(row).to_owned(),
        received_at: rfc3339(received.value(row)),
        log_partition: partitions.value(row),
        log_offset: offsets.value(row),
    };
    Ok((0..rows.num_rows()).map(item).collect())
}
