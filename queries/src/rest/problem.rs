//! Errors as the world sees them: RFC 9457 problem details with stable `type` URIs.
//!
//! A handler answers a [`Problem`]; it travels to the rim in the response's extensions, where [`render`] writes the body with the
//! request's trace id. Whatever else comes out with an error status (axum's own refusals, an empty 405) becomes a problem there too,
//! so no route can forget it.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::trace::TraceId;
use crate::session::SqlError;

/// Media type of every error body.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// Longest text of a refusal that is not ours and is taken over as `detail`, in bytes.
const FOREIGN_DETAIL_LEN_MAX: usize = 4 * 1024;
/// How long a client should wait before it tries again when the server is busy, in seconds.
const RETRY_AFTER_S: &str = "1";

/// What went wrong, as a code that programs may rely on. It is the last part of the problem's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidParameter,
    InvalidBody,
    Unauthorized,
    NotFound,
    UnknownDevice,
    UnknownTenant,
    UnknownGrid,
    UnknownArea,
    UnknownSwitch,
    UnknownOutage,
    UnknownReconfiguration,
    UnknownFault,
    OutageClosed,
    NotProposed,
    FaultNotLocated,
    MethodNotAllowed,
    NotAcceptable,
    BodyTooLarge,
    UnsupportedMediaType,
    TooManyRequests,
    RequestHeadersTooLarge,
    Internal,
    Overloaded,
    NotReady,
    Timeout,
    SqlInvalid,
    SqlReadOnly,
    SqlParameters,
    SqlTooLong,
    SqlTooManyRows,
    SqlMemory,
    SqlDeadline,
}

impl Code {
    pub(super) const ALL: [Self; 32] = [
        Self::InvalidParameter,
        Self::InvalidBody,
        Self::Unauthorized,
        Self::NotFound,
        Self::UnknownDevice,
        Self::UnknownTenant,
        Self::UnknownGrid,
        Self::UnknownArea,
        Self::UnknownSwitch,
        Self::UnknownOutage,
        Self::UnknownReconfiguration,
        Self::UnknownFault,
        Self::OutageClosed,
        Self::NotProposed,
        Self::FaultNotLocated,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::RequestHeadersTooLarge,
        Self::Internal,
        Self::Overloaded,
        Self::NotReady,
        Self::Timeout,
        Self::SqlInvalid,
        Self::SqlReadOnly,
        Self::SqlParameters,
        Self::SqlTooLong,
        Self::SqlTooManyRows,
        Self::SqlMemory,
        Self::SqlDeadline,
    ];

    /// Name, title and status of each code.
    const fn facts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::InvalidParameter => ("invalid_parameter", "A parameter is not valid", StatusCode::BAD_REQUEST),
            Self::InvalidBody => ("invalid_body", "The request body is not valid", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", "Credentials are missing or wrong", StatusCode::UNAUTHORIZED),
            Self::NotFound => ("not_found", "There is nothing at this address", StatusCode::NOT_FOUND),
            Self::UnknownDevice => ("unknown_device", "The device is not known", StatusCode::NOT_FOUND),
            Self::UnknownTenant => ("unknown_tenant", "The tenant is not known", StatusCode::NOT_FOUND),
            Self::UnknownGrid => ("unknown_grid", "The tenant has no grid", StatusCode::NOT_FOUND),
            Self::UnknownArea => ("unknown_area", "The area is not known", StatusCode::NOT_FOUND),
            Self::UnknownSwitch => ("unknown_switch", "The switch is not known", StatusCode::NOT_FOUND),
            Self::UnknownOutage => ("unknown_outage", "The outage is not known", StatusCode::NOT_FOUND),
            Self::UnknownReconfiguration => ("unknown_reconfiguration", "The proposal is not known", StatusCode::NOT_FOUND),
            Self::UnknownFault => ("unknown_fault", "The fault is not known", StatusCode::NOT_FOUND),
            Self::OutageClosed => ("outage_closed", "The outage is over", StatusCode::CONFLICT),
            Self::NotProposed => ("not_proposed", "The proposal cannot be decided any more", StatusCode::CONFLICT),
            Self::FaultNotLocated => (
                "fault_not_located",
                "The record leads to no fault",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                "The method is not allowed here",
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            Self::NotAcceptable => ("not_acceptable", "No offered format is acceptable", StatusCode::NOT_ACCEPTABLE),
            Self::BodyTooLarge => ("body_too_large", "The request body is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                "The request body's media type is not supported",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::TooManyRequests => ("too_many_requests", "There are too many requests", StatusCode::TOO_MANY_REQUESTS),
            Self::RequestHeadersTooLarge => (
                "request_headers_too_large",
                "The request headers are too large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ),
            Self::Internal => ("internal", "The server failed", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Overloaded => ("overloaded", "The server is busy", StatusCode::SERVICE_UNAVAILABLE),
            Self::NotReady => ("not_ready", "The server is not ready", StatusCode::SERVICE_UNAVAILABLE),
            Self::Timeout => ("timeout", "The answer took too long", StatusCode::GATEWAY_TIMEOUT),
            Self::SqlInvalid => (
                "sql_invalid",
                "The statement is not valid, or fails on its data",
                StatusCode::BAD_REQUEST,
            ),
            Self::SqlReadOnly => ("sql_read_only", "SQL here only reads", StatusCode::BAD_REQUEST),
            Self::SqlParameters => ("sql_parameters", "The parameters do not fit the statement", StatusCode::BAD_REQUEST),
            Self::SqlTooLong => ("sql_too_long", "The statement is too long", StatusCode::PAYLOAD_TOO_LARGE),
            Self::SqlTooManyRows => ("sql_too_many_rows", "The statement gives too many rows", StatusCode::BAD_REQUEST),
            Self::SqlMemory => ("sql_memory", "The statement needs too much memory", StatusCode::BAD_REQUEST),
            Self::SqlDeadline => ("sql_deadline", "The statement took too long", StatusCode::GATEWAY_TIMEOUT),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        self.facts().0
    }

    const fn title(self) -> &'static str {
        self.facts().1
    }

    pub(super) const fn status(self) -> StatusCode {
        self.facts().2
    }

    /// The code that stands for a status somebody else chose.
    fn of_status(status: StatusCode) -> Self {
        Self::ALL
            .into_iter()
            .find(|code| code.status() == status)
            .unwrap_or(if status.is_server_error() {
                Self::Internal
            } else {
                Self::InvalidParameter
            })
    }
}

/// One error answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    code: Code,
    status: StatusCode,
    detail: String,
    extension: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            extension: Map::new(),
        }
    }

    /// A parameter that is wrong, by name.
    pub(super) fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidParameter, format!("{name}: {why}")).with("parameter", name.into())
    }

    /// Something of ours that broke. The cause goes to the log, not to the caller.
    pub(super) fn internal(what: &str, cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(what, %cause, "a request failed");
        Self::new(
            Code::Internal,
            format!("{what} failed; the server's log has the cause under this trace id"),
        )
    }

    /// Adds an extension member (RFC 9457 section 3.2).
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.extension.insert(name.to_owned(), value);
        self
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> Code {
        self.code
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    fn body(&self, trace_id: Option<&TraceId>) -> String {
        let mut members = Map::new();
        members.insert("type".into(), format!("urn:flexmeter:problem:{}", self.code.name()).into());
        members.insert("title".into(), self.code.title().into());
        members.insert("status".into(), self.status.as_u16().into());
        members.insert("detail".into(), self.detail.clone().into());
        if let Some(id) = trace_id {
            members.insert("trace_id".into(), id.as_str().into());
        }
        for (name, value) in &self.extension {
            members.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(members).to_string()
    }
}

impl From<SqlError> for Problem {
    fn from(error: SqlError) -> Self {
        let code = match &error {
            SqlError::TooLong { .. } => Code::SqlTooLong,
            SqlError::Invalid { .. } => Code::SqlInvalid,
            SqlError::ReadOnly { .. } => Code::SqlReadOnly,
            SqlError::Parameters { .. } => Code::SqlParameters,
            SqlError::Deadline { .. } => Code::SqlDeadline,
            SqlError::TooManyRows { .. } => Code::SqlTooManyRows,
            SqlError::Memory { .. } => Code::SqlMemory,
            SqlError::Busy => Code::Overloaded,
            SqlError::Cancelled | SqlError::Internal { .. } => return Self::internal("the statement", &error),
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Body::from(self.body(None))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match self.code {
            Code::Unauthorized => {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"flexmeter\""));
                headers.append(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"flexmeter\", charset=\"UTF-8\""),
                );
            }
            Code::Overloaded | Code::NotReady | Code::TooManyRequests => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The answer to a path no route has.
pub(super) async fn not_found(request: Request) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("no route has the path {}; / lists what there is", request.uri().path()),
    )
}

/// What a panic in a handler turns into.
pub(super) fn from_panic(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    Problem::internal("the request's handler", &text).into_response()
}

/// Middleware at the rim: writes every error as a problem that carries the request's trace id.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let trace_id = request.extensions().get::<TraceId>().cloned();
    let refused = format!("{} {}", request.method(), request.uri().path());
    let is_head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => adopt(&mut response, &refused).await,
    };
    let body = problem.body(trace_id.as_ref());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = if is_head { Body::empty() } else { Body::from(body) };
    response
}

/// A refusal of axum or of a layer, as a problem of the same status.
async fn adopt(response: &mut Response, refused: &str) -> Problem {
    let status = response.status();
    let body = std::mem::take(response.body_mut());
    let text = to_bytes(body, FOREIGN_DETAIL_LEN_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let code = Code::of_status(status);
    let detail = match (code, text.is_empty()) {
        (Code::MethodNotAllowed, _) => format!("{refused} is not allowed; the Allow header names the methods that are"),
        (_, true) => status.canonical_reason().unwrap_or("no reason was given").to_owned(),
        (_, false) => text,
    };
    Problem {
        code,
        status,
        detail,
        extension: Map::new(),
    }
}

/// The shape of an error answer, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[schema(as = Problem, title = "Problem details (RFC 9457)")]
#[allow(dead_code, reason = "only its schema is used; `Problem` writes the members itself")]
pub(super) struct ProblemSchema {
    /// Stable URI of the kind of problem: `urn:flexmeter:problem:<code>`.
    #[schema(rename = "type", example = "urn:flexmeter:problem:invalid_parameter")]
    kind: String,
    /// What kind of problem this is, in words.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What exactly is wrong and what to do.
    detail: String,
    /// Finds this request in the server's log.
    trace_id: String,
}

/// Example used by the document.
pub(super) fn example() -> Value {
    json!({
        "type": "urn:flexmeter:problem:invalid_parameter",
        "title": "A parameter is not valid",
        "status": 400,
        "detail": "from: no time zone; write 2016-02-10T19:40:03Z or 2016-02-10T19:40:03%2B02:00",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "parameter": "from"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn an_unknown_status_keeps_its_side_of_the_fault() {
        assert_eq!(Code::of_status(StatusCode::METHOD_NOT_ALLOWED), Code::MethodNotAllowed);
        assert_eq!(Code::of_status(StatusCode::BAD_REQUEST), Code::InvalidParameter);
        assert_eq!(Code::of_status(StatusCode::IM_A_TEAPOT), Code::InvalidParameter);
        assert_eq!(Code::of_status(StatusCode::BAD_GATEWAY), Code::Internal);
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let problem = Problem::parameter("limit", "0 is below 1");
        let body: Value = serde_json::from_str(&problem.body(Some(&TraceId::from_text("abc")))).unwrap();
        assert_eq!(
            body,
            json!({
                "type": "urn:flexmeter:problem:invalid_parameter",
                "title": "A parameter is not valid",
                "status": 400,
                "detail": "limit: 0 is below 1",
                "trace_id": "abc",
                "parameter": "limit",
            })
        );
    }
}
