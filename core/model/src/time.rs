//! Event time: microseconds since 1970-01-01T00:00:00Z, read from and written as ISO 8601.
//!
//! Reading is strict, because a wrong time is worse than a rejected one: `YYYY-MM-DDThh:mm:ss`, an optional fraction of one to nine
//! digits (what lies below the microsecond is cut off), and always an offset (`Z`, `+02:00`, `-0500` or `+02`). The date must exist
//! and the moment must lie in the years 1970 to 9999. A leap second (`:60`) is not accepted: it has no place on the count of seconds
//! that the rest of the world keeps, and no meter could say what it means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in microseconds since the Unix epoch (UTC).
///
/// ```
/// use flexmeter_model::EventTime;
///
/// let time = EventTime::parse(b"2016-02-10T19:40:03.391+02:00")?;
/// assert_eq!(time.to_string(), "2016-02-10T17:40:03.391Z");
/// assert_eq!(time.floor_to(15 * 60 * 1_000_000).to_string(), "2016-02-10T17:30:00Z");
/// # Ok::<(), flexmeter_model::time::TimeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventTime(i64);

/// First year that is accepted.
pub const YEAR_MIN: i64 = 1970;

/// Last year that is accepted.
pub const YEAR_MAX: i64 = 9999;

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;

/// Microseconds in a day.
pub const DAY_US: i64 = 86_400 * SECOND_US;

/// Why a text is not an event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// The text does not have the form.
    #[error("the time is not YYYY-MM-DDThh:mm:ss[.fraction] with an offset (Z, +02:00, -0500)")]
    Form,
    /// The form is right but no offset follows.
    #[error("the time has no offset; append Z, +02:00 or -0500")]
    NoOffset,
    /// No calendar has that day, or no clock that time.
    #[error("there is no such date or time of day")]
    NoSuchMoment,
    /// Too far away to be a reading.
    #[error("the time is outside the years {YEAR_MIN} to {YEAR_MAX}")]
    OutOfBounds,
}

impl EventTime {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From what a clock says; the Unix epoch itself where the clock says a time before it.
    #[must_use]
    pub fn from_clock(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The start of the window of `width_us` microseconds that this moment falls into, counted from the Unix epoch.
    #[must_use]
    pub const fn floor_to(self, width_us: i64) -> Self {
        Self(self.0.div_euclid(width_us) * width_us)
    }

    /// The UTC day, counted from 1970-01-01: what the lake's tables are partitioned by.
    #[must_use]
    pub const fn day(self) -> i32 {
        self.0.div_euclid(DAY_US) as i32
    }

    /// Reads an ISO 8601 time; see the module's text for what is accepted.
    ///
    /// # Errors
    /// [`TimeError`] says what is wrong with the text.
    pub fn parse(text: &[u8]) -> Result<Self, TimeError> {
        let (head, rest) = text.split_first_chunk::<19>().ok_or(TimeError::Form)?;
        let two = |at: usize| -> Result<i64, TimeError> { digits2(head[at], head[at + 1]).ok_or(TimeError::Form) };
        let separated = head[4] == b'-' && head[7] == b'-' && matches!(head[10], b'T' | b't') && head[13] == b':' && head[16] == b':';
        if !separated {
            return Err(TimeError::Form);
        }
        let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
        let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
        let (fraction_us, rest) = fraction_us(rest)?;
        let offset_min = offset_min(rest)?;
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 59 {
            return Err(TimeError::NoSuchMoment);
        }
        if !(YEAR_MIN..=YEAR_MAX).contains(&year) {
            return Err(TimeError::OutOfBounds);
        }
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + (minute - offset_min) * 60 + second;
        if !(0..SECONDS_END).contains(&seconds) {
            return Err(TimeError::OutOfBounds);
        }
        Ok(Self(seconds * SECOND_US + fraction_us))
    }
}

const SECONDS_END: i64 = days_from_civil(YEAR_MAX + 1, 1, 1) * 86_400;

fn digits2(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens * 10 + ones))
}

/// The fraction in microseconds and what follows it.
fn fraction_us(text: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    let Some((b'.' | b',', digits)) = text.split_first() else {
        return Ok((0, text));
    };
    let n = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if n == 0 || n > 9 {
        return Err(TimeError::Form);
    }
    let (fraction, rest) = digits.split_at(n);
    let micros = (0..6).fold(0, |sum, i| sum * 10 + fraction.get(i).map_or(0, |b| i64::from(b - b'0')));
    Ok((micros, rest))
}

/// The offset from UTC in minutes; nothing may follow it.
fn offset_min(text: &[u8]) -> Result<i64, TimeError> {
    let (sign, hour, minute) = match *text {
        [b'Z' | b'z'] => return Ok(0),
        [sign @ (b'+' | b'-'), a, b, b':', c, d] | [sign @ (b'+' | b'-'), a, b, c, d] => (sign, digits2(a, b), digits2(c, d)),
        [sign @ (b'+' | b'-'), a, b] => (sign, digits2(a, b), Some(0)),
        [] => return Err(TimeError::NoOffset),
        _ => return Err(TimeError::Form),
    };
    let (Some(hour), Some(minute)) = (hour, minute) else {
        return Err(TimeError::Form);
    };
    if hour > 23 || minute > 59 {
        return Err(TimeError::NoSuchMoment);
    }
    let minutes = hour * 60 + minute;
    Ok(if sign == b'-' { -minutes } else { minutes })
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar. The year is counted from March, so that the leap day is its
/// last day and every month's first day is a linear function of the month.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`]: year, month, day.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_400_YEARS: i64 = 146_097;
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

impl fmt::Display for EventTime {
    /// RFC 3339 in UTC; the fraction is left out when it is zero, and has three or six digits otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(DAY_US));
        let us_of_day = self.0.rem_euclid(DAY_US);
        let (second, us) = (us_of_day / SECOND_US, us_of_day % SECOND_US);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        )?;
        match us {
            0 => f.write_str("Z"),
            _ if us % 1000 == 0 => write!(f, ".{:03}Z", us / 1000),
            _ => write!(f, ".{us:06}Z"),
        }
    }
}

impl FromStr for EventTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        Self::parse(text.as_bytes())
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<i64, TimeError>) {
        assert_eq!(EventTime::parse(text.as_bytes()).map(EventTime::micros), expected, "{text:?}");
    }

    #[test]
    fn every_form_of_the_offset_is_read() {
        check("1970-01-01T00:00:00Z", Ok(0));
        check("1970-01-01t00:00:00z", Ok(0));
        check("1970-01-01T02:00:00+02:00", Ok(0));
        check("1970-01-01T02:00:00+0200", Ok(0));
        check("1970-01-01T02:00:00+02", Ok(0));
        check("1970-01-01T00:00:00-05:00", Ok(5 * 3_600_000_000));
        check("1970-01-01T00:00:00-0530", Ok(19_800_000_000));
        // 1455126003.391 s: the time in D4.6's example, by `date -d`
        check("2016-02-10T19:40:03.391+02:00", Ok(1_455_126_003_391_000));
        check("2016-02-13T13:57:08.274-0500", Ok(1_455_389_828_274_000));
    }

    #[test]
    fn the_fraction_is_cut_off_below_the_microsecond() {
        check("1970-01-01T00:00:00.5Z", Ok(500_000));
        check("1970-01-01T00:00:00,25Z", Ok(250_000));
        check("1970-01-01T00:00:00.123456Z", Ok(123_456));
        check("1970-01-01T00:00:00.123456999Z", Ok(123_456));
        check("1970-01-01T00:00:00.Z", Err(TimeError::Form));
        check("1970-01-01T00:00:00.1234567890Z", Err(TimeError::Form));
    }

    #[test]
    fn only_real_moments_are_accepted() {
        check("2026-13-45T25:61:00", Err(TimeError::NoOffset));
        check("2026-13-45T25:61:00Z", Err(TimeError::NoSuchMoment));
        check("2023-02-29T00:00:00Z", Err(TimeError::NoSuchMoment));
        check("2024-02-29T00:00:00Z", Ok(1_709_164_800_000_000));
        check("2100-02-29T00:00:00Z", Err(TimeError::NoSuchMoment));
        check("2024-04-31T00:00:00Z", Err(TimeError::NoSuchMoment));
        check("2024-00-10T00:00:00Z", Err(TimeError::NoSuchMoment));
        check("2024-01-00T00:00:00Z", Err(TimeError::NoSuchMoment));
        check("2024-01-01T24:00:00Z", Err(TimeError::NoSuchMoment));
        check("2016-12-31T23:59:60Z", Err(TimeError::NoSuchMoment));
        check("2024-01-01T00:00:00+24:00", Err(TimeError::NoSuchMoment));
        check("2024-01-01T00:00:00+01:60", Err(TimeError::NoSuchMoment));
    }

    #[test]
    fn the_bounds_hold_after_the_offset_too() {
        check("1969-12-31T23:59:59Z", Err(TimeError::OutOfBounds));
        check("1970-01-01T00:00:00+00:01", Err(TimeError::OutOfBounds));
        check("9999-12-31T23:59:59.999999Z", Ok(253_402_300_799_999_999));
        check("9999-12-31T23:59:59-00:01", Err(TimeError::OutOfBounds));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2024",
            "2024-01-01",
            "2024-01-01T00:00Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
            "20240101T000000Z",
            "2024-01-01T00:00:00 Z",
            "2024-01-01T00:00:00Zx",
            "2024-01-01T00:00:00+2",
            "2024-01-01T00:00:00+02:0",
            "2024-01-01T00:00:00+02:00x",
            "+024-01-01T00:00:00Z",
            "2024-1-01T00:00:000Z",
            "１970-01-01T00:00:00Z",
            "1455126003391",
        ] {
            assert!(EventTime::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn days_change_at_utc_midnight() {
        assert_eq!(EventTime::parse(b"2016-02-10T00:30:00+01:00").unwrap().day(), 16_840);
        assert_eq!(EventTime::parse(b"2016-02-10T01:00:00+01:00").unwrap().day(), 16_841);
        assert_eq!(EventTime::from_micros(-1).day(), -1);
    }

    #[test]
    fn times_outside_the_accepted_years_can_still_be_printed() {
        assert_eq!(EventTime::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(EventTime::from_micros(i64::MIN).to_string(), "-290308-12-21T19:59:05.224192Z");
        assert_eq!(EventTime::from_micros(i64::MAX).to_string(), "294247-01-10T04:00:54.775807Z");
    }
}
