//! The covariance beside measurements: two texts of `metadata`, read only where a message has them.

use super::content_hash;
use super::lexer::Lexer;
use super::request::text;
use super::{BadMeasurement, Field, Scratch, Wrong, cut};
use crate::boundary::{COVARIANCE, COVARIANCE_OF, N_QUANTITIES, PublishedBoundary, check_positive_definite, row_name, row_of};
use crate::outcome::ReasonCode;
use crate::quantity::Identifier;

/// Longest text of a covariance or of its names, in bytes: several times what 17 digits of every entry take.
pub const COVARIANCE_LEN_MAX: usize = 16 * 1024;

/// Reads the covariance in the metadata of a message whose measurements have been read. What is there goes to the scratch list: the
/// boundary that it makes of the measurements, or one more bad measurement named `covariance`. Other metadata mean nothing here.
pub(super) fn read(metadata: &[u8], scratch: &mut Scratch) {
    let [of, triangle] = texts(metadata);
    if let (Field::Absent, Field::Absent) = (&of, &triangle) {
        return;
    }
    match boundary(&of, &triangle, &scratch.good) {
        Ok(boundary) => scratch.boundary = Some(boundary),
        Err(Wrong { reason, detail }) => {
            let detail = format!("{COVARIANCE}: {detail}");
            let content_hash = content_hash::bad_measurement(COVARIANCE, reason, metadata);
            scratch.bad.push(BadMeasurement {
                name: COVARIANCE.to_owned(),
                reason,
                detail,
                content_hash,
            });
        }
    }
}

/// The two texts; the last one counts of a name given twice.
fn texts(metadata: &[u8]) -> [Field<String>; 2] {
    let mut texts = [Field::Absent, Field::Absent];
    let mut lexer = Lexer::new(metadata);
    let mut first = true;
    if !lexer.take(b'{') {
        return texts;
    }
    // its syntax has been checked
    while let Ok(Some(key)) = lexer.key(first) {
        first = false;
        let name = key.unescaped();
        let place = [COVARIANCE_OF, COVARIANCE].iter().position(|known| known.as_bytes() == &*name);
        let Some(place) = place else {
            if lexer.skip_value().is_err() {
                break;
            }
            continue;
        };
        texts[place] = match text(&mut lexer) {
            Ok(Field::Value(raw)) => raw.text().map_or(Field::Wrong, |text| Field::Value(text.into_owned())),
            Ok(Field::Absent) => Field::Absent,
            Ok(Field::Wrong) | Err(_) => Field::Wrong,
        };
    }
    texts
}

fn given<'a>(field: &'a Field<String>, name: &str, other: &str) -> Result<&'a str, Wrong> {
    match field {
        Field::Value(text) if text.len() <= COVARIANCE_LEN_MAX => Ok(text),
        Field::Value(text) => Err(Wrong::shape(format!(
            "{name} has {} bytes, the limit is {COVARIANCE_LEN_MAX}",
            text.len()
        ))),
        Field::Wrong => Err(Wrong::shape(format!("{name} is not a text"))),
        Field::Absent => Err(Wrong::shape(format!("there is {other}, and no {name}"))),
    }
}

/// What the message says of its area's boundary, or why it says nothing.
fn boundary(of: &Field<String>, triangle: &Field<String>, good: &[(Identifier, f64)]) -> Result<PublishedBoundary, Wrong> {
    let names = names(given(of, COVARIANCE_OF, COVARIANCE)?)?;
    let n = names.len();
    let entries = entries(given(triangle, COVARIANCE, COVARIANCE_OF)?, n)?;
    if let Err(row) = check_positive_definite(&entries, n) {
        return Err(Wrong {
            reason: ReasonCode::OutOfRange,
            detail: format!(
                "is not positive definite: {} has no variance that the names before it leave unexplained",
                names[row].0.name()
            ),
        });
    }
    let mut values = [None; N_QUANTITIES];
    for &(identifier, row, factor) in &names {
        let Some((_, value)) = good.iter().find(|(known, _)| *known == identifier) else {
            return Err(Wrong::shape(format!("{} is not among the good measurements", identifier.name())));
        };
        values[row] = Some(values[row].unwrap_or(0.0) + factor * value);
    }
    if let Some(row) = values.iter().position(Option::is_none) {
        return Err(Wrong::shape(format!(
            "{COVARIANCE_OF} names no {}; name all of l1, l2 and l3",
            row_name(row)
        )));
    }
    let values = values.map(Option::unwrap_or_default);
    let mut covariance = [[0.0; N_QUANTITIES]; N_QUANTITIES];
    for (i, &(_, row, by_row)) in names.iter().enumerate() {
        for (j, &(_, column, by_column)) in names.iter().enumerate() {
            let (low, high) = (i.min(j), i.max(j));
            covariance[row][column] += by_row * by_column * entries[high * (high + 1) / 2 + low];
        }
    }
    let [voltage_v, active_w, reactive_var] = [0, 3, 6].map(|from| [values[from], values[from + 1], values[from + 2]]);
    Ok(PublishedBoundary {
        voltage_v,
        active_w,
        reactive_var,
        covariance,
    })
}

/// The identifiers, each with the row it is about and its factor.
fn names(text: &str) -> Result<Vec<(Identifier, usize, f64)>, Wrong> {
    let mut names: Vec<(Identifier, usize, f64)> = Vec::with_capacity(N_QUANTITIES);
    for name in text.split(',').map(str::trim) {
        let Some(identifier) = Identifier::from_name(name.as_bytes()) else {
            return Err(Wrong {
                reason: ReasonCode::UnknownIdentifier,
                detail: format!("{COVARIANCE_OF} names {}", cut(name)),
            });
        };
        let Some((row, factor)) = row_of(identifier) else {
            return Err(Wrong::shape(format!(
                "{COVARIANCE_OF} names {name}, which is no voltage or power of l1, l2 or l3"
            )));
        };
        if names.iter().any(|(known, ..)| *known == identifier) {
            return Err(Wrong::shape(format!("{COVARIANCE_OF} names {name} twice")));
        }
        names.push((identifier, row, factor));
    }
    Ok(names)
}

/// The entries of the lower triangle of a covariance of `n` rows.
fn entries(text: &str, n: usize) -> Result<Vec<f64>, Wrong> {
    let expected = n * (n + 1) / 2;
    let found = text.split(',').count();
    if found != expected {
        return Err(Wrong::shape(format!(
            "has {found} entries, the lower triangle of {n} rows has {expected}"
        )));
    }
    text.split(',')
        .enumerate()
        .map(|(at, entry)| match entry.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(Wrong {
                reason: ReasonCode::NotANumber,
                detail: format!("entry {} is \"{}\"", at + 1, cut(entry.trim())),
            }),
        })
        .collect()
}
