//! What comes in by path and query, checked: extractors whose refusals are problems that name the parameter.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use flexmeter_model::time::{TimeError, YEAR_MIN};
use flexmeter_model::{EventTime, HardwareId, Identifier};
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// Rows of a page when the caller does not say.
pub(super) const PAGE_ROWS_DEFAULT: u32 = 1_000;
/// Most rows of a page.
pub(super) const PAGE_ROWS_MAX: u32 = 10_000;

/// `axum::extract::Query` with our errors.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => {
                let text = error.body_text();
                let why = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                Err(Problem::new(Code::InvalidParameter, format!("query: {why}")))
            }
            Err(other) => Err(Problem::new(Code::InvalidParameter, other.to_string())),
        }
    }
}

/// The `{hardwareId}` of a path. An id that no device could have is an unknown device, not a bad request: clients walk links.
pub(super) struct DevicePath(pub(super) HardwareId);

impl<S: Send + Sync> FromRequestParts<S> for DevicePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| match rejection {
                PathRejection::FailedToDeserializePathParams(error) => Problem::parameter("hardwareId", error.body_text()),
                other => Problem::parameter("hardwareId", other),
            })?;
        HardwareId::new(&text)
            .map(Self)
            .map_err(|error| Problem::new(Code::UnknownDevice, format!("hardwareId {text:?}: {error}")))
    }
}

/// A range of times, `from` included, `to` excluded; an absent end is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeRange {
    pub(super) from: Option<EventTime>,
    pub(super) to: Option<EventTime>,
}

impl TimeRange {
    pub(super) fn parse(from: Option<&str>, to: Option<&str>) -> Result<Self, Problem> {
        let from = from.map(|text| time("from", text)).transpose()?;
        let to = to.map(|text| time("to", text)).transpose()?;
        match (from, to) {
            (Some(from), Some(to)) if from > to => Err(Problem::parameter("from", format!("{from} is after `to`, {to}"))),
            _ => Ok(Self { from, to }),
        }
    }
}

/// A time of a query. One that no reading can have stands for the nearest one that could, so that `to=9999-12-31T23:59:59-01:00`
/// means what it looks like.
pub(super) fn time(name: &str, text: &str) -> Result<EventTime, Problem> {
    match EventTime::parse(text.as_bytes()) {
        Ok(time) => Ok(time),
        Err(TimeError::OutOfBounds) => {
            let year = text.get(..4).and_then(|year| year.parse::<i64>().ok());
            Ok(if year.is_some_and(|year| year > YEAR_MIN) {
                AFTER_ALL_READINGS
            } else {
                EventTime::from_micros(0)
            })
        }
        Err(error) => {
            let hint = if text.contains(' ') {
                "a '+' in a query string means a space: send it as %2B, as in 2016-02-10T19:40:03%2B02:00"
            } else {
                "write RFC 3339 with a zone, as in 2016-02-10T19:40:03Z or 2016-02-10T19:40:03%2B02:00"
            };
            Err(Problem::parameter(name, format!("{text:?}: {error}; {hint}")))
        }
    }
}

/// A moment at which something happened: unlike an end of a range it has to be one.
pub(super) fn moment(name: &str, text: &str) -> Result<EventTime, Problem> {
    match EventTime::parse(text.as_bytes()) {
        Err(error @ TimeError::OutOfBounds) => Err(Problem::parameter(name, format!("{text:?}: {error}"))),
        _ => time(name, text),
    }
}

/// 10000-01-01T00:00:00Z, the first moment that no reading can have.
const AFTER_ALL_READINGS: EventTime = EventTime::from_micros(253_402_300_800_000_000);

/// An identifier of the vocabulary.
pub(super) fn identifier(text: &str) -> Result<Identifier, Problem> {
    Identifier::from_name(text.as_bytes()).ok_or_else(|| {
        let why = format!("{text:?} is not in the vocabulary; SELECT DISTINCT identifier FROM latest lists what devices send");
        Problem::parameter("identifier", why)
    })
}

/// The page's size.
pub(super) fn limit(asked: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = asked else { return Ok(PAGE_ROWS_DEFAULT as usize) };
    match text.parse() {
        Ok(limit @ 1..=PAGE_ROWS_MAX) => Ok(limit as usize),
        _ => Err(Problem::parameter(
            "limit",
            format!("{text:?} is not a whole number from 1 to {PAGE_ROWS_MAX}"),
        )),
    }
}

/// The unit of an identifier's values; empty for a name that is not in the vocabulary (which only a later version could have stored).
pub(super) fn unit_of(identifier: &str) -> &'static str {
    Identifier::from_name(identifier.as_bytes()).map_or("", Identifier::unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_range(from: &str, to: &str, expected: Result<(i64, i64), &str>) {
        let found = TimeRange::parse(Some(from), Some(to));
        match (found, expected) {
            (Ok(range), Ok((from_us, to_us))) => {
                assert_eq!((range.from.unwrap().micros(), range.to.unwrap().micros()), (from_us, to_us));
            }
            (Err(problem), Err(part)) => assert!(problem.detail().contains(part), "{} does not say {part:?}", problem.detail()),
            (found, expected) => panic!("{from} .. {to}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn times_carry_a_zone_and_come_in_order() {
        let (one, two) = (1_455_129_601_000_000, 1_455_129_602_000_000);
        check_range("2016-02-10T18:40:01Z", "2016-02-10T20:40:02+02:00", Ok((one, two)));
        check_range("2016-02-10T18:40:01Z", "2016-02-10T13:40:02-0500", Ok((one, two)));
        check_range("2016-02-10T18:40:02Z", "2016-02-10T18:40:01Z", Err("is after `to`"));
        check_range("2016-02-10T18:40:01", "2016-02-10T18:40:02Z", Err("from: "));
        check_range("2016-02-10T18:40:01Z", "2016-02-10T20:40:02 02:00", Err("%2B"));
        check_range("yesterday", "2016-02-10T18:40:02Z", Err("RFC 3339"));
    }

    #[test]
    fn a_time_no_reading_can_have_is_an_open_end() {
        let open = TimeRange::parse(Some("0001-01-01T00:00:00Z"), Some("9999-12-31T23:59:59.999-02:00")).unwrap();
        assert_eq!((open.from.unwrap().micros(), open.to), (0, Some(AFTER_ALL_READINGS)));
        let last = EventTime::parse(b"9999-12-31T23:59:59.999999Z").unwrap();
        assert_eq!(last.micros() + 1, AFTER_ALL_READINGS.micros());
    }

    #[test]
    fn a_moment_before_1970_is_refused_and_not_moved() {
        let problem = moment("eventTime", "1969-12-31T23:59:59Z").unwrap_err();
        assert!(
            problem.detail().starts_with("eventTime: \"1969-12-31T23:59:59Z\": "),
            "{}",
            problem.detail()
        );
        assert!(problem.detail().contains("1970"), "{}", problem.detail());
        assert_eq!(moment("eventTime", "1970-01-01T00:00:00Z").unwrap().micros(), 0);
        assert!(moment("eventTime", "yesterday").unwrap_err().detail().contains("RFC 3339"));
    }

    #[test]
    fn a_page_has_between_one_row_and_the_most() {
        assert_eq!(limit(None).unwrap(), PAGE_ROWS_DEFAULT as usize);
        assert_eq!(limit(Some("10000")).unwrap(), PAGE_ROWS_MAX as usize);
        for wrong in ["0", "10001", "-1", "", "abc", "1.5", "99999999999999999999"] {
            let problem = limit(Some(wrong)).unwrap_err();
            assert_eq!(problem.detail(), format!("limit: {wrong:?} is not a whole number from 1 to 10000"));
        }
    }
}
