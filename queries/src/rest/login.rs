//! `POST /api/v1/login`: a user and a password in, a bearer token out.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::accept::Format;
use super::problem::{Code, Problem};
use super::{Counter, guard, page};
use crate::auth::TOKEN_LIFETIME;

/// A user and a password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginRequest {
    #[schema(example = "admin")]
    username: String,
    #[schema(format = Password)]
    password: String,
}

/// A token, with the names of OAuth 2.0's token answer (RFC 6749 section 5.1).
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct LoginAnswer {
    /// Send it as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// How long the token is good for, in seconds.
    expires_in: u64,
}

/// Get a bearer token
///
/// The user and the password come as JSON, or as Basic credentials with no body.
#[utoipa::path(post, path = "/api/v1/login", operation_id = "login", tag = "access", security((), ("basic" = [])),
    request_body(content = LoginRequest, description = "Not needed with Basic credentials", content_type = "application/json"),
    responses((status = 200, description = "The token", body = LoginAnswer)))]
pub(super) async fn login(State(counter): State<Arc<Counter>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let auth = &counter.state.auth;
    let principal = if body.is_empty() {
        guard::authenticate(&counter, &headers)?
    } else {
        let request: LoginRequest =
            serde_json::from_slice(&body).map_err(|error| Problem::new(Code::InvalidBody, without_input(&error)))?;
        auth.basic(&request.username, &request.password)
            .map_err(|error| Problem::new(Code::Unauthorized, error.to_string()))?
    };
    let access_token = auth.issue(&principal);
    let body = LoginAnswer {
        access_token,
        token_type: "Bearer",
        expires_in: TOKEN_LIFETIME.as_secs(),
    };
    Ok(page::document(Format::Json, page::json(&body)?))
}

/// Where and what kind of error it is, never the text itself: it may hold a password.
fn without_input(error: &serde_json::Error) -> String {
    let what = if error.is_data() {
        "the body is not {\"username\": text, \"password\": text}"
    } else {
        "the body is not JSON"
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}
