//! The object `request`: the members of all four message types are read the same way, and judged when the type is known. That makes
//! one pass enough, whatever the order of members.

use std::borrow::Cow;

use super::content_hash::content_hash;
use super::covariance;
use super::lexer::{LexError, Lexer, RawString};
use super::{Body, Field, MEASUREMENTS_MAX, METADATA_MAX, Message, MessageType, Scratch, Wrong, cut, measurements};
use crate::outcome::{AlertLevel, ReasonCode};
use crate::time::EventTime;

/// The name and value pairs of `metadata`.
type Metadata<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// What `request` holds, unjudged: tokens, not texts, so that reading a member costs no more than finding its end. The measurements
/// themselves are in [`Scratch`].
#[derive(Default)]
pub(super) struct Request<'a> {
    n_measurements: Field<usize>,
    update_state: Field<bool>,
    event_date: Field<RawString<'a>>,
    alert_type: Field<RawString<'a>>,
    level: Field<RawString<'a>>,
    message: Field<RawString<'a>>,
    metadata: Field<RawObject<'a>>,
    originating_event_id: Field<RawString<'a>>,
    response: Field<RawString<'a>>,
    response_event_id: Field<RawString<'a>>,
    hardware_id: Field<RawString<'a>>,
    specification_token: Field<RawString<'a>>,
    site_token: Field<RawString<'a>>,
}

/// An object whose syntax has been checked.
#[derive(Clone, Copy)]
struct RawObject<'a>(&'a [u8]);

impl<'a> Request<'a> {
    /// Reads the value of the member `request` and says whether it is an object.
    pub(super) fn read(&mut self, lexer: &mut Lexer<'a>, scratch: &mut Scratch) -> Result<Field<()>, LexError> {
        if !lexer.take(b'{') {
            return not(lexer);
        }
        let mut first = true;
        while let Some(key) = lexer.key(first)? {
            first = false;
            match &*key.unescaped() {
                b"measurements" => self.n_measurements = measurements::read(lexer, scratch)?,
                b"updateState" => self.update_state = boolean(lexer)?,
                b"eventDate" => self.event_date = text(lexer)?,
                b"type" => self.alert_type = text(lexer)?,
                b"level" => self.level = text(lexer)?,
                b"message" => self.message = text(lexer)?,
                b"metadata" => self.metadata = object(lexer)?,
                b"originatingEventId" => self.originating_event_id = text(lexer)?,
                b"response" => self.response = text(lexer)?,
                b"responseEventId" => self.response_event_id = text(lexer)?,
                b"hardwareId" => self.hardware_id = text(lexer)?,
                b"specificationToken" => self.specification_token = text(lexer)?,
                b"siteToken" => self.site_token = text(lexer)?,
                _ => lexer.skip_value()?,
            }
        }
        Ok(Field::Value(()))
    }

    /// Reads the covariance that measurements may have beside them; afterwards the scratch lists are complete.
    pub(super) fn read_covariance(&self, scratch: &mut Scratch) {
        scratch.boundary = None;
        if let (Field::Value(_), Field::Value(RawObject(metadata))) = (self.n_measurements, self.metadata) {
            covariance::read(metadata, scratch);
        }
    }

    /// Judges what was read as a message of its type.
    pub(super) fn judge(&self, message_type: MessageType, hardware_id: Cow<'a, str>, scratch: &'a Scratch) -> Result<Message<'a>, Wrong> {
        let body = match message_type {
            MessageType::Measurements => match self.n_measurements {
                Field::Value(n) if n > MEASUREMENTS_MAX => {
                    return Err(Wrong::shape(format!(
                        "request.measurements: {n} entries, the limit is {MEASUREMENTS_MAX}"
                    )));
                }
                Field::Value(_) => Body::Measurements {
                    good: &scratch.good,
                    bad: &scratch.bad,
                    boundary: scratch.boundary.as_ref(),
                },
                Field::Wrong => return Err(Wrong::shape("request.measurements: expected an object")),
                Field::Absent => return Err(Wrong::missing("request.measurements")),
            },
            MessageType::Alert => Body::Alert {
                alert_type: required(self.alert_type, "request.type")?,
                level: level(self.level)?,
                message: optional(self.message, "request.message")?.unwrap_or_default(),
                metadata: metadata(self.metadata)?,
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
        let event_date = event_date(self.event_date)?;
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

fn required<'a>(field: Field<RawString<'a>>, path: &str) -> Result<Cow<'a, str>, Wrong> {
    optional(field, path)?.ok_or_else(|| Wrong::missing(path))
}

fn optional<'a>(field: Field<RawString<'a>>, path: &str) -> Result<Option<Cow<'a, str>>, Wrong> {
    match field {
        Field::Value(raw) => match raw.text() {
            Some(text) => Ok(Some(text)),
            None => Err(Wrong::shape(format!("{path}: not UTF-8"))),
        },
        Field::Wrong => Err(Wrong::shape(format!("{path}: expected a string"))),
        Field::Absent => Ok(None),
    }
}

fn event_date(field: Field<RawString<'_>>) -> Result<Option<EventTime>, Wrong> {
    if let Field::Value(raw) = field
        && let Ok(time) = EventTime::parse(&raw.unescaped())
    {
        return Ok(Some(time));
    }
    let Some(date) = optional(field, "request.eventDate")? else {
        return Ok(None);
    };
    EventTime::parse(date.as_bytes()).map(Some).map_err(|error| Wrong {
        reason: ReasonCode::BadEventDate,
        detail: format!("{}: {error}", cut(&date)),
    })
}

fn level(field: Field<RawString<'_>>) -> Result<AlertLevel, Wrong> {
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
pub(super) fn not<T>(lexer: &mut Lexer<'_>) -> Result<Field<T>, LexError> {
    let null = lexer.peek() == Some(b'n');
    lexer.skip_value()?;
    Ok(if null { Field::Absent } else { Field::Wrong })
}

/// A value that should be a string.
#[inline]
pub(super) fn text<'a>(lexer: &mut Lexer<'a>) -> Result<Field<RawString<'a>>, LexError> {
    if !lexer.take(b'"') {
        return not(lexer);
    }
    lexer.string().map(Field::Value)
}

/// A value that should be an object, kept for later.
fn object<'a>(lexer: &mut Lexer<'a>) -> Result<Field<RawObject<'a>>, LexError> {
    if lexer.peek() != Some(b'{') {
        return not(lexer);
    }
    let start = lexer.at();
    lexer.skip_value()?;
    Ok(Field::Value(RawObject(lexer.since(start))))
}

fn boolean(lexer: &mut Lexer<'_>) -> Result<Field<bool>, LexError> {
    match lexer.peek() {
        Some(b't') => lexer.word(b"true").map(|()| Field::Value(true)),
        Some(b'f') => lexer.word(b"false").map(|()| Field::Value(false)),
        _ => not(lexer),
    }
}

/// The pairs of `metadata`.
fn metadata(field: Field<RawObject<'_>>) -> Result<Metadata<'_>, Wrong> {
    let expected = || Wrong::shape("request.metadata: expected an object of strings");
    let object = match field {
        Field::Value(RawObject(object)) => object,
        Field::Wrong => return Err(expected()),
        Field::Absent => return Ok(Metadata::new()),
    };
    let mut lexer = Lexer::new(object);
    lexer.expect(b'{', "expected '{'")?;
    let mut pairs = Metadata::new();
    let mut n_entries = 0;
    while let Some(key) = lexer.key(n_entries == 0)? {
        n_entries += 1;
        if n_entries > METADATA_MAX {
            return Err(Wrong::shape(format!("request.metadata: more than {METADATA_MAX} entries")));
        }
        let name = key.text().ok_or_else(expected)?;
        let Field::Value(value) = text(&mut lexer)? else {
            return Err(expected());
        };
        pairs.retain(|(known, _)| *known != name);
        pairs.push((name, value.text().ok_or_else(expected)?));
    }
    Ok(pairs)
}
