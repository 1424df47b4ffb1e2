//! `/`: one page that says what can be asked here, for people who arrive with a browser.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

/// What the page may load: nothing. It needs no script, no style and no picture.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The start page
#[utoipa::path(get, path = "/", operation_id = "getStartPage", tag = "operation", security(()),
    responses((status = 200, description = "What can be asked here", body = String, content_type = "text/html")))]
pub(super) async fn index() -> Response {
    let mut response = Html(include_str!("index.html")).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
