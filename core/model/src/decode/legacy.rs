//! SiteWhere's batch: one device, lists of event bodies, no `type`.

use std::borrow::Cow;

use super::lexer::Lexer;
use super::request::{self, Request};
use super::{DecodeError, Decoder, Envelope, Field, Message, MessageType, Wrong, checked_hardware_id, utf8};
use crate::outcome::ReasonCode;

/// Most events a batch may have. Each may become a row, so there must be an end.
pub const BATCH_EVENTS_MAX: usize = 10_000;

/// The lists of a batch and what their entries are; `None` for entries this platform has no use for.
const LISTS: [(&str, Option<MessageType>); 3] = [
    ("measurements", Some(MessageType::Measurements)),
    ("alerts", Some(MessageType::Alert)),
    ("locations", None),
];

impl Decoder {
    /// Reads a SiteWhere batch, `{"hardwareId", "measurements": […], "alerts": […], "locations": […]}`, where each entry is the
    /// `request` of a message of that kind, and gives `emit` each event's bytes and meaning: measurements, then alerts, then
    /// locations (`unknown_type`: no meter moves). What is wrong with the batch as a whole is one error with the batch's bytes.
    pub fn decode_legacy_batch<F>(&mut self, payload: &[u8], mut emit: F)
    where
        F: FnMut(&[u8], Result<Message<'_>, DecodeError>),
    {
        match batch(payload) {
            Err(error) => emit(payload, Err(error)),
            Ok((hardware_id, lists)) => {
                for ((_, message_type), entries) in LISTS.iter().zip(lists) {
                    for entry in entries {
                        let read = self.entry(entry, *message_type, &hardware_id);
                        let error = |Wrong { reason, detail }| DecodeError {
                            reason,
                            detail,
                            hardware_id: Some(hardware_id.to_string()),
                        };
                        emit(entry, read.map_err(error));
                    }
                }
            }
        }
    }

    fn entry<'a>(&'a mut self, entry: &'a [u8], message_type: Option<MessageType>, hardware_id: &'a str) -> Result<Message<'a>, Wrong> {
        let Some(message_type) = message_type else {
            return Err(Wrong {
                reason: ReasonCode::UnknownType,
                detail: "DeviceLocation".to_owned(),
            });
        };
        let mut request = Request::default();
        match request.read(&mut Lexer::new(entry), &mut self.scratch)? {
            Field::Value(()) => {
                request.read_covariance(&mut self.scratch);
                request.judge(message_type, Cow::Borrowed(hardware_id), &self.scratch)
            }
            Field::Wrong | Field::Absent => Err(Wrong::shape("the event is not an object")),
        }
    }
}

/// The bytes of each list's entries.
type Lists<'a> = [Vec<&'a [u8]>; LISTS.len()];

/// Finds who a batch is from and where its events are; checks the whole payload's syntax.
fn batch(payload: &[u8]) -> Result<(Cow<'_, str>, Lists<'_>), DecodeError> {
    let mut lexer = Lexer::new(utf8(payload)?);
    let mut envelope = Envelope::default();
    let mut lists = Lists::default();
    let read = read_batch(&mut lexer, &mut envelope, &mut lists);
    let hardware_id = checked_hardware_id(envelope.hardware_id);
    let known = hardware_id.as_ref().ok().cloned();
    match read.and(hardware_id) {
        Ok(hardware_id) => Ok((hardware_id, lists)),
        Err(Wrong { reason, detail }) => Err(DecodeError {
            reason,
            detail,
            hardware_id: known.map(Cow::into_owned),
        }),
    }
}

fn read_batch<'a>(lexer: &mut Lexer<'a>, envelope: &mut Envelope<'a>, lists: &mut Lists<'a>) -> Result<(), Wrong> {
    if !lexer.take(b'{') {
        lexer.skip_value()?;
        lexer.end()?;
        return Err(Wrong::shape("the batch is not an object"));
    }
    let mut wrong = None;
    let mut first = true;
    while let Some(key) = lexer.key(first)? {
        first = false;
        let name = key.unescaped();
        if &*name == b"hardwareId" {
            envelope.hardware_id = request::text(lexer)?;
        } else if let Some(list) = LISTS.iter().position(|(known, _)| known.as_bytes() == &*name) {
            lists[list].clear();
            if !lexer.take(b'[') {
                let null = lexer.peek() == Some(b'n');
                lexer.skip_value()?;
                wrong = wrong.or_else(|| (!null).then(|| Wrong::shape(format!("{}: expected an array", LISTS[list].0))));
                continue;
            }
            while lexer.element(lists[list].is_empty())? {
                lexer.peek();
                let start = lexer.at();
                lexer.skip_value()?;
                lists[list].push(lexer.since(start));
            }
        } else {
            lexer.skip_value()?;
        }
    }
    lexer.end()?;
    let n_events = lists.iter().map(Vec::len).sum::<usize>();
    if n_events > BATCH_EVENTS_MAX {
        return Err(Wrong::shape(format!(
            "the batch has {n_events} events, the limit is {BATCH_EVENTS_MAX}"
        )));
    }
    wrong.map_or(Ok(()), Err)
}
