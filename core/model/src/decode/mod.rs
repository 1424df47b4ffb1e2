//! From bytes to a message: one pass, no tree, borrowed strings, identifiers interned.
//!
//! [`Decoder::decode`] reads one message of the formats that devices send (measurements, alert, acknowledgement, registration) and says
//! what it means, or why it means nothing. Members may come in any order; members we do not know are ignored; of a name given
//! twice the last value counts, as in every common JSON parser; `null` is the same as leaving a member out.
//!
//! # Errors
//! A message has one reason: the first thing wrong, in this order, whatever the order of its members.
//!
//! | step | reason | detail |
//! |---|---|---|
//! | the bytes are UTF-8 and JSON | `malformed_json` | what and where |
//! | an ignored value is nested no deeper than [`NESTING_MAX`] | `wrong_shape` | the limit |
//! | it is an object | `wrong_shape` | |
//! | `hardwareId` is there and is an id | `missing_field`, `wrong_shape` | `hardwareId`; `hardwareId: why` |
//! | `type` is there and known | `missing_field`, `wrong_shape`, `unknown_type` | `type`; the unknown type |
//! | `request` is there, an object | `missing_field`, `wrong_shape` | `request` |
//! | the fields of its type are there and of the right JSON type | `missing_field`, `wrong_shape` | the field's path, `request.measurements` |
//! | `updateState` is a boolean | `wrong_shape` | |
//! | `eventDate` is a time | `wrong_shape`, `bad_event_date` | the text |
//! | a registration speaks for its own device | `identity_mismatch` | both ids |
//!
//! A measurement that is wrong in itself does not make the message wrong: it goes to the list of [`BadMeasurement`]s, with
//! `unknown_identifier`, `not_a_number` (not a JSON number, or beyond what an `f64` holds) or `out_of_range`. So does a covariance in the
//! metadata of measurements that does not fit them; its name is `covariance`, and `wrong_shape` is a reason, too.

mod content_hash;
mod covariance;
mod legacy;
pub(crate) mod lexer;
mod measurements;
mod number;
mod request;

use std::borrow::Cow;

pub use covariance::COVARIANCE_LEN_MAX;
pub use legacy::BATCH_EVENTS_MAX;
pub use lexer::NESTING_MAX;

use crate::boundary::PublishedBoundary;
use crate::ids::HardwareId;
use crate::outcome::{AlertLevel, ReasonCode};
use crate::quantity::Identifier;
use crate::time::EventTime;
use lexer::{LexError, Lexer, RawString};
use request::Request;

/// Most entries a message's `measurements` may have: three times the vocabulary. Each bad one becomes a row, so there must be an end.
pub const MEASUREMENTS_MAX: usize = 256;

/// Most pairs an alert's `metadata` may have.
pub const METADATA_MAX: usize = 256;

/// How much of a sender's text an error repeats, in bytes; the rest is cut off.
pub const DETAIL_TEXT_LEN_MAX: usize = 256;

/// A decoded message. It borrows from the payload and from the decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Who speaks. Surely a valid [`HardwareId`].
    pub hardware_id: Cow<'a, str>,
    /// When, by the device's clock; `None` when the message does not say.
    pub event_date: Option<EventTime>,
    /// The device asks that the platform's state of it be updated (SiteWhere's flag; default false).
    pub update_state: bool,
    /// Hash of all that is said besides who and when: independent of member order, white space and number format.
    pub content_hash: u64,
    /// What is said.
    pub body: Body<'a>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// `DeviceMeasurements`.
    Measurements {
        /// Known identifiers with finite, plausible values; each identifier at most once.
        good: &'a [(Identifier, f64)],
        /// The others; each name at most once.
        bad: &'a [BadMeasurement],
        /// What the good ones say of an area's boundary, if their covariance is in the metadata.
        boundary: Option<&'a PublishedBoundary>,
    },
    /// `DeviceAlert`.
    Alert {
        /// For example `power.lastgasp`.
        alert_type: Cow<'a, str>,
        /// Severity; `Info` when left out.
        level: AlertLevel,
        /// Free text, perhaps empty.
        message: Cow<'a, str>,
        /// Name and value pairs in the order sent; each name once.
        metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    },
    /// `Acknowledge`.
    Acknowledge {
        /// The command's id.
        originating_event_id: Cow<'a, str>,
        /// The device's answer, perhaps empty.
        response: Cow<'a, str>,
        /// Another event that holds the answer.
        response_event_id: Option<Cow<'a, str>>,
    },
    /// `RegisterDevice`.
    Register {
        /// What kind of device it claims to be.
        specification_token: Cow<'a, str>,
        /// Where it claims to be.
        site_token: Option<Cow<'a, str>>,
    },
}

/// One measurement that was rejected from a message which is otherwise kept.
#[derive(Debug, Clone, PartialEq)]
pub struct BadMeasurement {
    /// Its name as sent, cut at [`DETAIL_TEXT_LEN_MAX`].
    pub name: String,
    /// `UnknownIdentifier`, `NotANumber` or `OutOfRange`; `WrongShape` for a covariance.
    pub reason: ReasonCode,
    /// The name alone; for `OutOfRange` also value, unit and range.
    pub detail: String,
    content_hash: u64,
}

/// Why a payload is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct DecodeError {
    /// Stable code.
    pub reason: ReasonCode,
    /// What exactly. For `MissingField` the field's path and nothing else.
    pub detail: String,
    /// Whom the payload speaks for, if it could be read. Surely a valid [`HardwareId`].
    pub hardware_id: Option<String>,
}

/// A member's value, as far as its JSON type goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Field<T> {
    /// Left out, or `null`.
    #[default]
    Absent,
    /// Has another JSON type than the format says.
    Wrong,
    /// As it should be.
    Value(T),
}

/// The members of the outermost object.
#[derive(Default)]
struct Envelope<'a> {
    hardware_id: Field<RawString<'a>>,
    message_type: Field<RawString<'a>>,
    request: Field<()>,
    members: Request<'a>,
}

/// What is wrong, before it is known whose message it is.
#[derive(Debug)]
struct Wrong {
    reason: ReasonCode,
    detail: String,
}

impl Wrong {
    fn missing(path: &str) -> Self {
        Self {
            reason: ReasonCode::MissingField,
            detail: path.to_owned(),
        }
    }

    fn shape(detail: impl Into<String>) -> Self {
        Self {
            reason: ReasonCode::WrongShape,
            detail: detail.into(),
        }
    }
}

impl From<LexError> for Wrong {
    fn from(error: LexError) -> Self {
        match error {
            LexError::Syntax { at, what } => Self {
                reason: ReasonCode::MalformedJson,
                detail: format!("{what} at byte {at}"),
            },
            LexError::TooDeep { at } => Self::shape(format!("nested deeper than {NESTING_MAX} levels at byte {at}")),
        }
    }
}

/// Lists that one message after the other is read into, so that a steady stream allocates nothing.
#[derive(Debug, Default)]
struct Scratch {
    good: Vec<(Identifier, f64)>,
    bad: Vec<BadMeasurement>,
    boundary: Option<PublishedBoundary>,
    order: measurements::Order,
}

/// Reads messages; keeps its buffers from one to the next.
///
/// ```
/// use flexmeter_model::decode::{Body, Decoder};
///
/// let payload = br#"{"hardwareId":"m-1","type":"DeviceMeasurements","request":{"measurements":{
///     "electricity.voltage.rms.l1":230.1,"electricity.voltage.rms.l9":230.2}}}"#;
/// let mut decoder = Decoder::new();
/// let message = decoder.decode(payload)?;
/// assert_eq!(message.hardware_id, "m-1");
/// let Body::Measurements { good, bad, .. } = message.body else { panic!("another body") };
/// assert_eq!((good[0].0.name(), good[0].1), ("electricity.voltage.rms.l1", 230.1));
/// assert_eq!(bad[0].reason.as_str(), "unknown_identifier");
/// # Ok::<(), flexmeter_model::decode::DecodeError>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    scratch: Scratch,
}

impl Decoder {
    /// A decoder with empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one message.
    ///
    /// # Errors
    /// [`DecodeError`] with the first thing wrong, in the order of the module's table.
    pub fn decode<'a>(&'a mut self, payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let mut lexer = Lexer::new(utf8(payload)?);
        let mut envelope = Envelope::default();
        let read = read_envelope(&mut lexer, &mut envelope, &mut self.scratch);
        envelope.members.read_covariance(&mut self.scratch);
        let hardware_id = checked_hardware_id(envelope.hardware_id);
        let known = hardware_id.as_ref().ok().cloned();
        let scratch = &self.scratch;
        let judge = || {
            read?;
            let hardware_id = hardware_id?;
            let message_type = match envelope.message_type {
                Field::Value(message_type) => MessageType::from_wire(message_type)?,
                Field::Wrong => return Err(Wrong::shape("type: expected a string")),
                Field::Absent => return Err(Wrong::missing("type")),
            };
            match envelope.request {
                Field::Value(()) => envelope.members.judge(message_type, hardware_id, scratch),
                Field::Wrong => Err(Wrong::shape("request: expected an object")),
                Field::Absent => Err(Wrong::missing("request")),
            }
        };
        judge().map_err(|Wrong { reason, detail }| DecodeError {
            reason,
            detail,
            hardware_id: known.map(Cow::into_owned),
        })
    }
}

/// The four kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageType {
    Measurements,
    Alert,
    Acknowledge,
    Register,
}

impl MessageType {
    fn from_wire(name: RawString<'_>) -> Result<Self, Wrong> {
        match &*name.unescaped() {
            b"DeviceMeasurements" => Ok(Self::Measurements),
            b"DeviceAlert" => Ok(Self::Alert),
            b"Acknowledge" => Ok(Self::Acknowledge),
            b"RegisterDevice" => Ok(Self::Register),
            name => Err(Wrong {
                reason: ReasonCode::UnknownType,
                detail: cut(&String::from_utf8_lossy(name)).to_owned(),
            }),
        }
    }
}

/// Checks the payload's encoding once; every string in it is then text.
fn utf8(payload: &[u8]) -> Result<&[u8], DecodeError> {
    match std::str::from_utf8(payload) {
        Ok(text) => Ok(text.as_bytes()),
        Err(error) => Err(DecodeError {
            reason: ReasonCode::MalformedJson,
            detail: format!("not UTF-8 at byte {}", error.valid_up_to()),
            hardware_id: None,
        }),
    }
}

/// Reads the outermost object. Values of the wrong shape are noted; only what makes reading on impossible is an error.
fn read_envelope<'a>(lexer: &mut Lexer<'a>, envelope: &mut Envelope<'a>, scratch: &mut Scratch) -> Result<(), Wrong> {
    if !lexer.take(b'{') {
        lexer.skip_value()?;
        lexer.end()?;
        return Err(Wrong::shape("the message is not an object"));
    }
    let mut first = true;
    while let Some(key) = lexer.key(first)? {
        first = false;
        match &*key.unescaped() {
            b"hardwareId" => envelope.hardware_id = request::text(lexer)?,
            b"type" => envelope.message_type = request::text(lexer)?,
            b"request" => {
                envelope.members = Request::default();
                envelope.request = envelope.members.read(lexer, scratch)?;
            }
            _ => lexer.skip_value()?,
        }
    }
    Ok(lexer.end()?)
}

fn checked_hardware_id(field: Field<RawString<'_>>) -> Result<Cow<'_, str>, Wrong> {
    match field {
        Field::Value(raw) => {
            let text = raw.text().ok_or_else(|| Wrong::shape("hardwareId: not UTF-8"))?;
            match HardwareId::check(&text) {
                Ok(()) => Ok(text),
                Err(error) => Err(Wrong::shape(format!("hardwareId: {error}"))),
            }
        }
        Field::Wrong => Err(Wrong::shape("hardwareId: expected a string")),
        Field::Absent => Err(Wrong::missing("hardwareId")),
    }
}

/// A sender's text, short enough to be repeated.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(DETAIL_TEXT_LEN_MAX)]
}
