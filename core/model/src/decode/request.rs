//! The object `request`: the members of all four message types are read the same way, and judged when the type is known. That makes
//! one pass enough, whatever the order of members.

use std::borrow::Cow;

use super::content_hash::{self, content_hash};
use super::lexer::{LexError, Lexer};
use super::number::number;
use super::{BadMeasurement, Body, Field, MEASUREMENTS_MAX, METADATA_MAX, Message, MessageType, Scratch, Wrong, cut};
use crate::outcome::{AlertLevel, ReasonCode};
use crate::quantity::Identifier;
use crate::time::EventTime;

/// The name and value pairs of `metadata`.
type Metadata<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// What `request` holds. The measurements themselves are in [`Scratch`].
#[derive(Default)]
pub(super) struct Request<'a> {
    measurements: Field<Counted>,
    update_state: Field<bool>,
    event_date: Field<Cow<'a, str>>,
    alert_type: Field<Cow<'a, str>>,
    level: Field<Cow<'a, str>>,
    message: Field<Cow<'a, str>>,
    metadata: Field<Option<Metadata<'a>>>,
    originating_event_id: Field<Cow<'a, str>>,
    response: Field<Cow<'a, str>>,
    response_event_id: Field<Cow<'a, str>>,
    hardware_id: Field<Cow<'a, str>>,
    specification_token: Field<Cow<'a, str>>,
    site_token: Field<Cow<'a, str>>,
}

/// How many entries were there; beyond the limit they are only counted.
#[derive(Clone, Copy)]
struct Counted(usize);

impl<'a> Request<'a> {
    /// Reads the value of the member `request`.
    pub(super) fn read(lexer: &mut Lexer<'a>, scratch: &mut Scratch) -> Result<Field<Self>, LexError> {
        if !lexer.take(b'{') {
            return not(lexer);
        }
        let mut request = Self::default();
        let mut first = true;
        while let Some(key) = lexer.key(first)? {
            first = false;
            match &*key.unescaped() {
                b"measurements" => request.measurements = measurements(lexer, scratch)?,
                b"updateState" => request.update_state = boolean(lexer)?,
                b"eventDate" => request.event_date = text(lexer)?,
                b"type" => request.alert_type = text(lexer)?,
                b"level" => request.level = text(lexer)?,
                b"message" => request.message = text(lexer)?,
                b"metadata" => request.metadata = metadata(lexer)?,
                b"originatingEventId" => request.originating_event_id = text(lexer)?,
                b"response" => request.response = text(lexer)?,
                b"responseEventId" => request.response_event_id = text(lexer)?,
                b"hardwareId" => request.hardware_id = text(lexer)?,
                b"specificationToken" => request.specification_token = text(lexer)?,
                b"siteToken" => request.site_token = text(lexer)?,
                _ => lexer.skip_value()?,
            }
        }
        Ok(Field::Value(request))
    }

    /// Judges what was read as a message of its type.
    pub(super) fn into_message(
        self,
        message_type: MessageType,
        hardware_id: Cow<'a, str>,
        scratch: &'a Scratch,
    ) -> Result<Message<'a>, Wrong> {
        let body = match message_type {
            MessageType::Measurements => match self.measurements {
                Field::Value(Counted(n)) if n > MEASUREMENTS_MAX => {
                    return Err(Wrong::shape(format!(
                        "request.measurements: {n} entries, the limit is {MEASUREMENTS_MAX}"
                    )));
                }
                Field::Value(_) => Body::Measurements {
                    good: &scratch.good,
                    bad: &scratch.bad,
                },
                Field::Wrong => return Err(Wrong::shape("request.measurements: expected an object")),
                Field::Absent => return Err(Wrong::missing("request.measurements")),
            },
            MessageType::Alert => Body::Alert {
                alert_type: required(self.alert_type, "request.type")?,
                level: level(self.level)?,
                message: optional(self.message, "request.message")?.unwrap_or_default(),
                metadata: match self.metadata {
                    Field::Value(Some(pairs)) => pairs,
                    Field::Value(None) => return Err(Wrong::shape(format!("request.metadata: more than {METADATA_MAX} entries"))),
                    Field::Wrong => return Err(Wrong::shape("request.metadata: expected an object of strings")),
                    Field::Absent => Vec::new(),
                },
            },
            MessageType::Acknowledge => Body::Acknowledge {
                originating_event_id: required(self.originating_event_id, "request.originatingEventId")?,
                response: optional(self.response, "request.response")?.unwrap_or_default(),
                response_event_id: optional(self.response_event_id, "request.responseEventId")?,
            },
            MessageType::Register => Body::Register {
                specification_token: required(self.specification_token, "request.specificationToken")?,
                site_token: optional(self.site_token, "request.siteToken")?,
            },
        };
        let update_state = match self.update_state {
            Field::Value(update_state) => update_state,
            Field::Wrong => return Err(Wrong::shape("request.updateState: expected true or false")),
            Field::Absent => false,
        };
        let event_date = match optional(self.event_date, "request.eventDate")? {
            Some(date) => Some(EventTime::parse(date.as_bytes()).map_err(|error| Wrong {
                reason: ReasonCode::BadEventDate,
                detail: format!("{}: {error}", cut(&date)),
            })?),
            None => None,
        };
        if message_type == MessageType::Register {
            match optional(self.hardware_id, "request.hardwareId")? {
                Some(inner) if inner != hardware_id => {
                    let detail = format!("request.hardwareId is {}, hardwareId is {hardware_id}", cut(&inner));
                    return Err(Wrong {
                        reason: ReasonCode::IdentityMismatch,
                        detail,
                    });
                }
                _ => {}
            }
        }
        let content_hash = content_hash(&body, update_state);
        Ok(Message {
            hardware_id,
            event_date,
            update_state,
            content_hash,
            body,
        })
    }
}

fn required<'a>(field: Field<Cow<'a, str>>, path: &str) -> Result<Cow<'a, str>, Wrong> {
    optional(field, path)?.ok_or_else(|| Wrong::missing(path))
}

fn optional<'a>(field: Field<Cow<'a, str>>, path: &str) -> Result<Option<Cow<'a, str>>, Wrong> {
    match field {
        Field::Value(text) => Ok(Some(text)),
        Field::Wrong => Err(Wrong::shape(format!("{path}: expected a string"))),
        Field::Absent => Ok(None),
    }
}

fn level(field: Field<Cow<'_, str>>) -> Result<AlertLevel, Wrong> {
    match optional(field, "request.level")?.as_deref() {
        None | Some("Info") => Ok(AlertLevel::Info),
        Some("Warning") => Ok(AlertLevel::Warning),
        Some("Error") => Ok(AlertLevel::Error),
        Some("Critical") => Ok(AlertLevel::Critical),
        Some(other) => Err(Wrong::shape(format!(
            "request.level: {} is not Info, Warning, Error or Critical",
            cut(other)
        ))),
    }
}

/// A value that should have been something else: `null` is the same as absent.
fn not<T>(lexer: &mut Lexer<'_>) -> Result<Field<T>, LexError> {
    let null = lexer.peek() == Some(b'n');
    lexer.skip_value()?;
    Ok(if null { Field::Absent } else { Field::Wrong })
}

/// A value that should be a string.
#[inline]
pub(super) fn text<'a>(lexer: &mut Lexer<'a>) -> Result<Field<Cow<'a, str>>, LexError> {
    if !lexer.take(b'"') {
        return not(lexer);
    }
    let raw = lexer.string()?;
    Ok(raw.text().map_or(Field::Wrong, Field::Value))
}

fn boolean(lexer: &mut Lexer<'_>) -> Result<Field<bool>, LexError> {
    match lexer.peek() {
        Some(b't') => lexer.word(b"true").map(|()| Field::Value(true)),
        Some(b'f') => lexer.word(b"false").map(|()| Field::Value(false)),
        _ => not(lexer),
    }
}

/// The pairs of `metadata`; `None` when there are too many.
fn metadata<'a>(lexer: &mut Lexer<'a>) -> Result<Field<Option<Metadata<'a>>>, LexError> {
    if !lexer.take(b'{') {
        return not(lexer);
    }
    let mut pairs = Metadata::new();
    let (mut all_strings, mut n_entries) = (true, 0);
    while let Some(key) = lexer.key(n_entries == 0)? {
        n_entries += 1;
        match (key.text(), text(lexer)?) {
            (Some(name), Field::Value(value)) if n_entries <= METADATA_MAX => {
                pairs.retain(|(known, _)| *known != name);
                pairs.push((name, value));
            }
            (Some(_), Field::Value(_)) => {}
            _ => all_strings = false,
        }
    }
    Ok(match all_strings {
        true => Field::Value((n_entries <= METADATA_MAX).then_some(pairs)),
        false => Field::Wrong,
    })
}

/// The members of `measurements`, judged one by one.
fn measurements(lexer: &mut Lexer<'_>, scratch: &mut Scratch) -> Result<Field<Counted>, LexError> {
    scratch.good.clear();
    scratch.bad.clear();
    if !lexer.take(b'{') {
        return not(lexer);
    }
    let mut seen: u128 = 0;
    let mut n_entries = 0;
    while let Some(key) = lexer.key(n_entries == 0)? {
        n_entries += 1;
        if n_entries > MEASUREMENTS_MAX {
            lexer.skip_value()?;
            continue;
        }
        let name = key.unescaped();
        let identifier = Identifier::from_name(&name);
        let value_at = match lexer.peek() {
            Some(_) => lexer.at(),
            None => return Err(lexer.syntax("")),
        };
        let value = match lexer.peek() {
            Some(b'-' | b'0'..=b'9') => Some(number(lexer)?).filter(|value| value.is_finite()),
            _ => {
                lexer.skip_value()?;
                None
            }
        };
        if let Some(identifier) = identifier {
            // Of a name given twice the last value counts.
            if seen & (1 << identifier.index()) != 0 {
                scratch.good.retain(|(known, _)| *known != identifier);
                scratch.bad.retain(|bad| bad.name != identifier.name());
            }
            seen |= 1 << identifier.index();
            let quantity = identifier.quantity();
            if let Some(value) = value
                && value >= quantity.min
                && value <= quantity.max
            {
                scratch.good.push((identifier, value));
                continue;
            }
        }
        let name = String::from_utf8_lossy(&name);
        reject(&mut scratch.bad, &name, identifier, value, lexer.since(value_at));
    }
    Ok(Field::Value(Counted(n_entries)))
}

/// Notes a measurement that cannot be kept.
#[cold]
fn reject(bad: &mut Vec<BadMeasurement>, name: &str, identifier: Option<Identifier>, value: Option<f64>, raw_value: &[u8]) {
    let name = cut(name).to_owned();
    let (reason, detail) = match (identifier, value) {
        (None, _) => (ReasonCode::UnknownIdentifier, name.clone()),
        (Some(_), None) => (ReasonCode::NotANumber, name.clone()),
        (Some(identifier), Some(value)) => {
            let (min, max) = identifier.range();
            (
                ReasonCode::OutOfRange,
                format!("{name}: {value} {} outside {min}..{max}", identifier.unit()),
            )
        }
    };
    let mut measurement = BadMeasurement {
        name,
        reason,
        detail,
        content_hash: 0,
    };
    measurement.content_hash = content_hash::bad_measurement(&measurement, raw_value);
    if identifier.is_none() {
        bad.retain(|known| known.name != measurement.name);
    }
    bad.push(measurement);
}
