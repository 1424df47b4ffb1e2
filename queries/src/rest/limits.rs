//! What one server takes on at a time. Each limit has a name; whoever comes when one is reached is told to come back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use super::Counter;
use super::problem::{Code, Problem};

/// Longest request body, in bytes.
pub const BODY_LEN_MAX: usize = 1024 * 1024;
/// Longest a request may take until its answer begins.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Most requests in work at a time (streams are counted apart).
pub const REQUESTS_MAX: usize = 512;
/// Most open event streams.
pub const STREAMS_MAX: usize = 256;
/// Most rows an SQL statement may answer over REST; Flight SQL has no such limit.
pub const SQL_ROWS_MAX: usize = 1_000_000;
/// Most connections at a time.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Longest a connection may take to send the head of a request.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence of an event stream.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long open requests may go on after a shutdown was asked for.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Answers below this size are not worth compressing, in bytes.
pub(super) const COMPRESS_LEN_MIN: u64 = 1_024;

/// Middleware: bounds the number of requests in work and the time until an answer begins.
pub(super) async fn bound(State(counter): State<Arc<Counter>>, request: Request, next: Next) -> Result<Response, Problem> {
    let Ok(_permit) = counter.requests.try_acquire() else {
        return Err(Problem::new(
            Code::Overloaded,
            format!("{} requests are in work; try again", counter.config.requests_max),
        ));
    };
    // A statement has a deadline of its own, in the SQL service, and may take that long to its first row.
    let is_sql = request.uri().path() == super::sql::PATH;
    let timeout = if is_sql {
        counter.state.sql.limits().statement_time + counter.config.request_timeout
    } else {
        counter.config.request_timeout
    };
    tokio::time::timeout(timeout, next.run(request))
        .await
        .map_err(|_| Problem::new(Code::Timeout, format!("no answer within {} s; ask for less", timeout.as_secs_f64())))
}

/// Middleware: headers every answer carries. A handler that knows better has set its own.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    const DEFAULTS: [(HeaderName, &str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in DEFAULTS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
