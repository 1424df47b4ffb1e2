//! `GET /api/v1/devices/{hardwareId}/latest`: the newest value of everything a device measures, straight from the live views.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::accept::Format;
use super::guard::Caller;
use super::parameters::{DevicePath, Parameters, identifier};
use super::problem::Problem;
use super::{Counter, devices, page};
use crate::live::LatestReading;

/// Header that names the epoch an answer belongs to.
const EPOCH: HeaderName = HeaderName::from_static("x-flexmeter-epoch");

/// Which values to show.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LatestQuery {
    /// Only this quantity
    identifier: Option<String>,
}

/// A device's newest values.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Latest<'a> {
    /// The device.
    hardware_id: &'a str,
    /// One entry for each quantity, ordered as the vocabulary is.
    items: Vec<LatestItem>,
}

/// The newest value of one quantity.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LatestItem {
    /// What was measured.
    identifier: &'static str,
    /// The value, in `unit`.
    value: f64,
    /// The identifier's unit.
    unit: &'static str,
    /// When it was measured, RFC 3339.
    #[schema(format = DateTime)]
    event_time: String,
}

/// Newest values of a device
///
/// Answered from memory, at one epoch. Send the ETag back as If-None-Match and nothing is sent while nothing has changed.
#[utoipa::path(get, path = "/api/v1/devices/{hardwareId}/latest", operation_id = "getLatest", tag = "live",
    params(
        ("hardwareId" = String, Path, description = "The device"),
        LatestQuery,
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an earlier answer"),
    ),
    responses(
        (status = 200, description = "The newest values", body = Latest, headers(("ETag" = String, description = "Changes when a value does"))),
        (status = 304, description = "Nothing has changed since the answer with this ETag"),
    ))]
pub(super) async fn latest(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    DevicePath(hardware_id): DevicePath,
    Parameters(query): Parameters<LatestQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = query.identifier.as_deref().map(identifier).transpose()?;
    let snapshot = counter.state.live.snapshot(&caller.tenant);
    let row = snapshot
        .device(hardware_id.as_str())
        .ok_or_else(|| devices::unknown(&hardware_id))?;
    let readings = || {
        row.latest
            .iter()
            .filter(|reading| wanted.is_none_or(|wanted| wanted == reading.identifier))
    };

    let etag = etag(readings());
    let mut response = if is_known(&headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let items = readings().map(item).collect();
        page::document(
            Format::Json,
            page::json(&Latest {
                hardware_id: hardware_id.as_str(),
                items,
            })?,
        )
    };
    let headers = response.headers_mut();
    headers.insert(EPOCH, HeaderValue::from(snapshot.epoch()));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    // May be kept, must be asked about.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

fn item(reading: &LatestReading) -> LatestItem {
    LatestItem {
        identifier: reading.identifier.name(),
        value: reading.value,
        unit: reading.identifier.unit(),
        event_time: reading.event_time.to_string(),
    }
}

/// A weak tag (the body may come compressed) of the values themselves, so that it changes exactly when they do.
fn etag<'a>(readings: impl Iterator<Item = &'a LatestReading>) -> String {
    let mut hasher = DefaultHasher::new();
    for reading in readings {
        (reading.identifier.index(), reading.event_time.micros(), reading.value.to_bits()).hash(&mut hasher);
    }
    format!("W/\"{:016x}\"", hasher.finish())
}

/// Does `If-None-Match` name the tag? Weak comparison (RFC 9110 section 8.8.3.2).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let sent = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    sent.flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == "*" || strong(tag) == strong(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, sent.parse().unwrap());
        assert_eq!(is_known(&headers, "W/\"12\""), expected, "{sent}");
    }

    #[test]
    fn tags_are_compared_weakly() {
        check("W/\"12\"", true);
        check("\"12\"", true);
        check("\"1\", W/\"12\"", true);
        check("*", true);
        check("\"1\"", false);
        check("", false);
    }
}
