//! Pages of a list: one answer in the wanted format, and the way to the next one.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use super::accept::Format;
use super::problem::Problem;

/// Header that carries the next page's cursor, for formats whose body has no place for it.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// A body with its media type.
pub(super) fn document(format: Format, body: impl Into<Body>) -> Response {
    let mut response = body.into().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// A JSON body.
pub(super) fn json<T: Serialize>(body: &T) -> Result<Bytes, Problem> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Problem::internal("writing the answer", &error))
}

/// Adds `Link: <…>; rel="next"` (RFC 8288) and the cursor itself.
pub(super) fn link_next(headers: &mut HeaderMap, uri: &Uri, cursor: Option<&str>) {
    let Some(cursor) = cursor else { return };
    let kept = uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: Vec<_> = kept.map(str::to_owned).chain([format!("cursor={cursor}")]).collect();
    let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"));
    // Both come from a URI and from base64, so they are header values.
    if let (Ok(link), Ok(cursor)) = (HeaderValue::from_str(&link), HeaderValue::from_str(cursor)) {
        headers.insert(header::LINK, link);
        headers.insert(NEXT_CURSOR, cursor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, expected: &str) {
        let mut headers = HeaderMap::new();
        link_next(&mut headers, &uri.parse().unwrap(), Some("xyz"));
        assert_eq!(headers[header::LINK], expected);
    }

    #[test]
    fn the_next_page_is_the_same_question_from_further_on() {
        check("/api/v1/devices", "</api/v1/devices?cursor=xyz>; rel=\"next\"");
        check("/api/v1/devices?cursor=abc", "</api/v1/devices?cursor=xyz>; rel=\"next\"");
        check(
            "/api/v1/devices?limit=5&cursor=abc&prefix=a%26",
            "</api/v1/devices?limit=5&prefix=a%26&cursor=xyz>; rel=\"next\"",
        );
    }

    #[test]
    fn the_last_page_has_no_next() {
        let mut headers = HeaderMap::new();
        link_next(&mut headers, &"/x".parse().unwrap(), None);
        assert!(headers.is_empty());
    }
}
