//! Content negotiation (RFC 9110 section 12.5.1): which of the formats we can write does the caller want most?

use axum::http::{HeaderMap, header};

use super::problem::{Code, Problem};

/// A format that tables can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// An array of objects (or a page of them).
    Json,
    /// RFC 4180 with a header line.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

impl Format {
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    const fn essence(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
            Self::Arrow => ("application", "vnd.apache.arrow.stream"),
        }
    }
}

/// All formats, the one for callers without a preference first.
pub(super) const TABLE_FORMATS: &[Format] = &[Format::Json, Format::Csv, Format::Arrow];

/// The best of `offered` for the request's `Accept` headers; the first one when there is none.
pub(super) fn negotiate(headers: &HeaderMap, offered: &[Format]) -> Result<Format, Problem> {
    let mut ranges = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        let text = value
            .to_str()
            .map_err(|_| Problem::parameter("accept", "the header is not ASCII text"))?;
        ranges.extend(text.split(',').filter_map(Range::parse));
    }
    let first = offered.first().copied().unwrap_or(Format::Json);
    if ranges.is_empty() {
        return Ok(first);
    }
    let mut best: Option<(Format, u16)> = None;
    for &format in offered {
        let quality = quality_of(format, &ranges);
        // Strictly better only: among equals the earlier offer stands.
        if quality > best.map_or(0, |(_, quality)| quality) {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format).ok_or_else(|| {
        let names: Vec<_> = offered.iter().map(|format| format.media_type()).collect();
        Problem::new(
            Code::NotAcceptable,
            format!("the Accept header allows none of: {}", names.join(", ")),
        )
        .with("acceptable", names.into())
    })
}

/// One media range of an Accept header with its weight in thousandths.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(Some(1.0), |(_, value)| {
                value.trim().parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q))
            })?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1000 after the range check"
        )]
        let quality = (quality * 1000.0).round() as u16;
        Some(Self { kind, subtype, quality })
    }

    /// How exactly this range names the format: 2 by name, 1 by type, 0 as `*/*`.
    fn precision(&self, (kind, subtype): (&str, &str)) -> Option<u8> {
        if self.kind == "*" && self.subtype == "*" {
            Some(0)
        } else if !self.kind.eq_ignore_ascii_case(kind) {
            None
        } else if self.subtype == "*" {
            Some(1)
        } else {
            self.subtype.eq_ignore_ascii_case(subtype).then_some(2)
        }
    }
}

/// The weight given by the most precise range that covers the format.
fn quality_of(format: Format, ranges: &[Range<'_>]) -> u16 {
    ranges
        .iter()
        .filter_map(|range| range.precision(format.essence()).map(|precision| (precision, range.quality)))
        .max_by_key(|(precision, _)| *precision)
        .map_or(0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<Format>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(negotiate(&headers, TABLE_FORMATS).ok(), expected, "{accept:?}");
    }

    #[test]
    fn the_most_wanted_format_wins() {
        check("application/json", Some(Format::Json));
        check("text/csv", Some(Format::Csv));
        check("application/vnd.apache.arrow.stream", Some(Format::Arrow));
        check("*/*", Some(Format::Json));
        check("", Some(Format::Json));
        check("text/*", Some(Format::Csv));
        check("TEXT/CSV", Some(Format::Csv));
        check("text/csv;q=0.5, application/json;q=0.4", Some(Format::Csv));
        check("application/*;q=0.2, text/csv ; q=0.1", Some(Format::Json));
        check("application/json;q=0, */*", Some(Format::Csv));
        check("text/html, application/xhtml+xml, */*;q=0.8", Some(Format::Json));
        check("text/html", None);
        check("application/json;q=0", None);
    }

    #[test]
    fn no_header_means_no_preference() {
        assert_eq!(negotiate(&HeaderMap::new(), TABLE_FORMATS).ok(), Some(Format::Json));
    }

    #[test]
    fn a_refusal_names_what_there_is() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "image/png".parse().unwrap());
        let problem = negotiate(&headers, TABLE_FORMATS).unwrap_err();
        assert_eq!(problem.code(), Code::NotAcceptable);
        assert!(problem.detail().contains("text/csv"), "{}", problem.detail());
    }
}
