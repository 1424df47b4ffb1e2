//! The object `measurements`: names interned, values checked, one by one. This is where the decoder spends most of its time.

use super::content_hash;
use super::lexer::{LexError, Lexer};
use super::number::number;
use super::request::not;
use super::{BadMeasurement, Field, MEASUREMENTS_MAX, Scratch, cut};
use crate::outcome::ReasonCode;
use crate::quantity::Identifier;

/// Which identifier came after which, the last time. Meters of one kind send the same names in the same order, so this mostly tells
/// the next name before it is read, and comparing is cheaper than finding its end and looking it up.
#[derive(Debug)]
pub(super) struct Order {
    /// What came first.
    first: Option<Identifier>,
    /// What came after each.
    after: [Option<Identifier>; Identifier::COUNT],
}

impl Default for Order {
    fn default() -> Self {
        Self {
            first: None,
            after: [None; Identifier::COUNT],
        }
    }
}

impl Order {
    #[inline]
    fn after(&mut self, identifier: Option<Identifier>) -> &mut Option<Identifier> {
        match identifier {
            Some(identifier) => &mut self.after[identifier.index()],
            None => &mut self.first,
        }
    }
}

/// Reads the members into the scratch lists and says how many there were; those beyond [`MEASUREMENTS_MAX`] are only counted.
pub(super) fn read(lexer: &mut Lexer<'_>, scratch: &mut Scratch) -> Result<Field<usize>, LexError> {
    let Scratch { good, bad, order, .. } = scratch;
    good.clear();
    bad.clear();
    if !lexer.take(b'{') {
        return not(lexer);
    }
    let mut seen: u128 = 0;
    let mut n_entries = 0;
    let mut previous = None;
    while let Some(name) = name(lexer, n_entries == 0, order.after(previous))? {
        n_entries += 1;
        if n_entries > MEASUREMENTS_MAX {
            lexer.skip_value()?;
            continue;
        }
        let (value, raw_value) = value(lexer)?;
        let identifier = match name {
            Name::Known(identifier) => identifier,
            Name::Unknown(name) => {
                bad.retain(|known| known.name != cut(&name));
                bad.push(rejected(&name, ReasonCode::UnknownIdentifier, cut(&name).to_owned(), raw_value));
                continue;
            }
        };
        previous = Some(identifier);
        let name = identifier.name();
        if seen & (1 << identifier.index()) != 0 {
            // of a name given twice the last value counts
            good.retain(|(known, _)| *known != identifier);
            bad.retain(|known| known.name != name);
        }
        seen |= 1 << identifier.index();
        let (min, max) = identifier.range();
        match value {
            Some(value) if value >= min && value <= max => good.push((identifier, value)),
            Some(value) if value.is_finite() => {
                let detail = format!("{name}: {value} {} outside {min}..{max}", identifier.unit());
                bad.push(rejected(name, ReasonCode::OutOfRange, detail, raw_value));
            }
            _ => bad.push(rejected(name, ReasonCode::NotANumber, name.to_owned(), raw_value)),
        }
    }
    Ok(Field::Value(n_entries))
}

enum Name {
    Known(Identifier),
    Unknown(String),
}

/// The next member's name; `None` after the last. `expected` is what it probably is, and is set to what it is.
#[inline]
fn name(lexer: &mut Lexer<'_>, first: bool, expected: &mut Option<Identifier>) -> Result<Option<Name>, LexError> {
    if let Some(identifier) = *expected
        && lexer.take_key(first, identifier.name().as_bytes())
    {
        return Ok(Some(Name::Known(identifier)));
    }
    let Some(key) = lexer.key(first)? else {
        return Ok(None);
    };
    let name = key.unescaped();
    Ok(Some(match Identifier::from_name(&name) {
        Some(identifier) => {
            *expected = Some(identifier);
            Name::Known(identifier)
        }
        None => Name::Unknown(String::from_utf8_lossy(&name).into_owned()),
    }))
}

/// A value, if it is a number (it may be infinite), and its bytes.
#[inline]
fn value<'a>(lexer: &mut Lexer<'a>) -> Result<(Option<f64>, &'a [u8]), LexError> {
    let first = lexer.peek();
    let start = lexer.at();
    let value = match first {
        Some(b'-' | b'0'..=b'9') => Some(number(lexer)?),
        _ => {
            lexer.skip_value()?;
            None
        }
    };
    Ok((value, lexer.since(start)))
}

#[cold]
fn rejected(name: &str, reason: ReasonCode, detail: String, raw_value: &[u8]) -> BadMeasurement {
    let content_hash = content_hash::bad_measurement(name, reason, raw_value);
    BadMeasurement {
        name: cut(name).to_owned(),
        reason,
        detail,
        content_hash,
    }
}
