//! `GET /api/v1/rejections`: what was not accepted, and why.

use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use axum::response::Response;
use flexmeter_model::EventTime;
use flexmeter_model::outcome::ReasonCode;
use serde::{Deserialize, Serialize};

use super::accept::{Format, TABLE_FORMATS, negotiate};
use super::encode::Encoder;
use super::guard::Caller;
use super::parameters::{Parameters, TimeRange, limit};
use super::problem::Problem;
use super::statement::{Columns, Statement, optional, rfc3339, rows_to_skip};
use super::{Counter, cursor, page};

/// Name of this list in cursors.
const LIST: &str = "rejections";

/// Which rejections to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RejectionQuery {
    /// Append time of the first one, RFC 3339 with a zone; send '+' as %2B
    #[param(format = DateTime)]
    from: Option<String>,
    /// Append time before which they end
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only this reason code
    reason: Option<String>,
    /// Only this device
    hardware_id: Option<String>,
    /// Rows of a page
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<String>,
    /// The previous page's `next`
    cursor: Option<String>,
}

/// A page of rejections, ordered by the time the log appended them.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct RejectionPage<'a> {
    items: Vec<RejectionItem>,
    /// Cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<&'a str>,
}

/// A rejected message, or one rejected measurement of an otherwise good one.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RejectionItem {
    /// When the log appended it, RFC 3339.
    #[schema(format = DateTime)]
    received_at: String,
    /// The device, if it is known.
    #[schema(required = true)]
    hardware_id: Option<String>,
    /// Stable code.
    reason: String,
    /// What exactly.
    detail: String,
    /// The payload as text, cut when it is long.
    payload: String,
    /// Where the log has it.
    log_partition: i64,
    /// Where in the partition.
    log_offset: i64,
}

/// Sort key of a rejection: append time (µs), log partition, log offset.
type Key = (i64, i64, i64);

/// List rejections
#[utoipa::path(get, path = "/api/v1/rejections", operation_id = "listRejections", tag = "rejections", params(RejectionQuery),
    responses((status = 200, description = "A page of rejections",
        content((RejectionPage = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream")),
        headers(("Link" = String, description = "The next page, rel=\"next\"")))))]
pub(super) async fn list(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Parameters(query): Parameters<RejectionQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = negotiate(&headers, TABLE_FORMATS)?;
    let range = TimeRange::parse(query.from.as_deref(), query.to.as_deref())?;
    let reason = query.reason.as_deref().map(reason).transpose()?;
    let limit = limit(query.limit.as_deref())?;
    let start: Option<(Key, u32)> = cursor::start(LIST, query.cursor.as_deref())?;

    let statement = statement(range, reason, query.hardware_id.as_deref(), limit, start);
    let (rows, has_more) = statement.fetch(&counter, &caller, limit).await?;
    let next = if has_more { Some(next_cursor(&rows, start)?) } else { None };
    let mut response = match format {
        Format::Json => page::document(
            format,
            page::json(&RejectionPage {
                items: items(&rows)?,
                next: next.as_deref(),
            })?,
        ),
        _ => {
            let body = Encoder::document(format, &rows).map_err(|error| Problem::internal("writing the answer", &error))?;
            page::document(format, body)
        }
    };
    page::link_next(response.headers_mut(), &uri, next.as_deref());
    Ok(response)
}

fn reason(text: &str) -> Result<ReasonCode, Problem> {
    ReasonCode::ALL.into_iter().find(|code| code.as_str() == text).ok_or_else(|| {
        let codes: Vec<_> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
        Problem::parameter("reason", format!("{text:?} is none of {}", codes.join(", ")))
    })
}

fn statement(
    range: TimeRange,
    reason: Option<ReasonCode>,
    hardware_id: Option<&str>,
    limit: usize,
    start: Option<(Key, u32)>,
) -> Statement {
    let mut statement = Statement::new(
        "SELECT received_at AS \"receivedAt\", hardware_id AS \"hardwareId\", reason, detail, payload, \
         log_partition AS \"logPartition\", log_offset AS \"logOffset\" FROM rejections WHERE true",
    );
    if let Some(from) = range.from {
        statement.push(" AND received_at >= ").bind_time(from);
    }
    if let Some(to) = range.to {
        statement.push(" AND received_at < ").bind_time(to);
    }
    if let Some(reason) = reason {
        statement.push(" AND reason = ").bind_text(reason.as_str());
    }
    if let Some(hardware_id) = hardware_id {
        statement.push(" AND hardware_id = ").bind_text(hardware_id);
    }
    if let Some(((time_us, partition, offset), _)) = start {
        let time = EventTime::from_micros(time_us);
        statement.push(" AND received_at >= ").bind_time(time);
        statement.push(" AND (received_at > ").bind_time(time);
        statement.push(" OR log_partition > ").bind_int(partition);
        statement.push(" OR (log_partition = ").bind_int(partition);
        statement.push(" AND log_offset >= ").bind_int(offset).push("))");
    }
    // One message may be rejected for several of its measurements: reason and detail give them a fixed order.
    statement.push(" ORDER BY received_at, log_partition, log_offset, reason, detail");
    statement.page(limit, start.map_or(0, |(_, skip)| skip));
    statement
}

fn next_cursor(rows: &RecordBatch, start: Option<(Key, u32)>) -> Result<String, Problem> {
    let columns = Columns(rows);
    let (times, partitions, offsets) = (columns.time("receivedAt")?, columns.int("logPartition")?, columns.int("logOffset")?);
    let key = |row: usize| -> Key { (times.value(row), partitions.value(row), offsets.value(row)) };
    let n_rows = rows.num_rows();
    let skip = rows_to_skip(n_rows, key, start.as_ref().map(|(key, skip)| (key, *skip)));
    cursor::encode(LIST, &(key(n_rows.saturating_sub(1)), skip))
}

fn items(rows: &RecordBatch) -> Result<Vec<RejectionItem>, Problem> {
    let columns = Columns(rows);
    let (times, ids, reasons) = (columns.time("receivedAt")?, columns.text("hardwareId")?, columns.text("reason")?);
    let (details, payloads) = (columns.text("detail")?, columns.text("payload")?);
    let (partitions, offsets) = (columns.int("logPartition")?, columns.int("logOffset")?);
    let item = |row| RejectionItem {
        received_at: rfc3339(times.value(row)),
        hardware_id: optional(&ids, row),
        reason: reasons.value(row).to_owned(),
        detail: details.value(row).to_owned(),
        payload: payloads.value(row).to_owned(),
        log_partition: partitions.value(row),
        log_offset: offsets.value(row),
    };
    Ok((0..rows.num_rows()).map(item).collect())
}
