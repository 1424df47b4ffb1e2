//! One trace id a request: taken from the caller's `traceparent` (W3C Trace Context) or made here, put into the log span, the answer's
//! `x-trace-id` header and every problem. The same middleware counts and times requests.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

/// Header that carries the trace id of an answer.
pub(super) const TRACE_HEADER: HeaderName = HeaderName::from_static("x-trace-id");
/// Hex digits of a trace id.
const TRACE_ID_LEN: usize = 32;

/// The id under which the log has this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceId(Arc<str>);

impl TraceId {
    #[cfg(test)]
    pub(super) fn from_text(text: &str) -> Self {
        Self(Arc::from(text))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The caller's trace id when it sent a valid one, a fresh one otherwise.
    fn of(headers: &HeaderMap) -> Self {
        let sent = headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
            .and_then(parse_traceparent);
        match sent {
            Some(id) => Self(Arc::from(id)),
            None => Self::fresh(),
        }
    }

    fn fresh() -> Self {
        let mut bytes = [0u8; TRACE_ID_LEN / 2];
        // Without randomness the id is all zero: requests are then hard to tell apart, which is no reason to refuse them.
        let _ = getrandom::fill(&mut bytes);
        let mut text = String::with_capacity(TRACE_ID_LEN);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Self(Arc::from(text))
    }
}

/// `version "-" trace-id "-" parent-id "-" flags`; an all-zero id is invalid.
fn parse_traceparent(header: &str) -> Option<&str> {
    let mut parts = header.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let is_hex = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (id.len() == TRACE_ID_LEN && is_hex && id.bytes().any(|byte| byte != b'0')).then_some(id)
}

/// Outermost middleware of ours: gives the request its id, a span, and counts it by route (never by path, which would be unbounded).
pub(super) async fn follow(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = TraceId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let method = request.method().clone();
    let span = tracing::debug_span!("request", trace_id = id.as_str(), %method, route);
    let mut response = next.run(request).instrument(span).await;

    let status = response.status().as_u16().to_string();
    metrics::counter!("flexmeter_rest_requests_total", "method" => method_label(&method), "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("flexmeter_rest_request_seconds", "route" => route).record(started.elapsed().as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(TRACE_HEADER, value);
    }
    response
}

/// The method as a label. A client may invent methods, so the unknown ones share a label.
fn method_label(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Option<&str>) {
        assert_eq!(parse_traceparent(header), expected, "{header:?}");
    }

    #[test]
    fn only_a_valid_traceparent_is_taken_over() {
        check(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        );
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None);
        check("00-short-00f067aa0ba902b7-01", None);
        check("", None);
    }

    #[test]
    fn fresh_ids_differ() {
        let (a, b) = (TraceId::fresh(), TraceId::fresh());
        assert_eq!(a.as_str().len(), TRACE_ID_LEN);
        assert_ne!(a, b);
    }
}
