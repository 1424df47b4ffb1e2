//! A publish into messages: an array is a batch of them, anything else is one.
//!
//! The event source files each message as its own log record under its device, so the splitter also finds `hardwareId`, at the top
//! level of a message and nowhere else. It looks at structure only (brackets, strings); whether a piece is a message is the
//! decoder's matter. Nothing is ever lost: every byte of a payload that is not white space or a batch's punctuation is in some piece.

use std::borrow::Cow;

use crate::decode::lexer::{LexError, Lexer};
use crate::ids::HardwareId;

/// Most messages a batch may have. What follows is one more piece, which the decoder rejects.
pub const BATCH_MESSAGES_MAX: usize = 10_000;

/// One message of a payload, or what could not be taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes, without white space around them.
    pub bytes: &'a [u8],
    /// Its `hardwareId`, if it has one that is a valid id (the first one, if it says it twice).
    pub hardware_id: Option<Cow<'a, str>>,
}

/// Takes a payload apart.
///
/// An array gives its elements. When it is broken, or longer than [`BATCH_MESSAGES_MAX`], it gives those before that point and then
/// the rest as one piece, which begins with the last byte before that point: so it is never a message, and the decoder rejects it.
///
/// ```
/// use flexmeter_model::split::split_payload;
///
/// let ids: Vec<_> = split_payload(br#"[{"hardwareId":"a"},{"x":{"hardwareId":"no"},"hardwareId":"b"}]"#)
///     .map(|piece| piece.hardware_id.unwrap_or_default().into_owned())
///     .collect();
/// assert_eq!(ids, ["a", "b"]);
/// ```
pub fn split_payload(payload: &[u8]) -> Pieces<'_> {
    let payload = payload.trim_ascii();
    let mut lexer = Lexer::new(payload);
    let state = if lexer.take(b'[') {
        State::Batch { n_messages: 0 }
    } else {
        State::Single
    };
    Pieces { payload, lexer, state }
}

/// The pieces of a payload; see [`split_payload`].
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    payload: &'a [u8],
    lexer: Lexer<'a>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Single,
    Batch { n_messages: usize },
    Done,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        match self.state {
            State::Done => None,
            State::Single => {
                self.state = State::Done;
                Some(Piece {
                    bytes: self.payload,
                    hardware_id: peek_hardware_id(self.payload),
                })
            }
            State::Batch { n_messages } => {
                let before = self.lexer.at();
                match self.element(n_messages) {
                    Ok(Some(piece)) => {
                        self.state = State::Batch {
                            n_messages: n_messages + 1,
                        };
                        Some(piece)
                    }
                    Ok(None) => {
                        self.state = State::Done;
                        None
                    }
                    Err(_) => {
                        self.state = State::Done;
                        let rest = self.lexer.rest_from(before - 1);
                        Some(Piece {
                            bytes: rest,
                            hardware_id: None,
                        })
                    }
                }
            }
        }
    }
}

impl<'a> Pieces<'a> {
    /// The next element, `None` at the end of the batch, an error where it cannot be taken apart.
    fn element(&mut self, n_messages: usize) -> Result<Option<Piece<'a>>, LexError> {
        if !self.lexer.element(n_messages == 0)? {
            self.lexer.end()?;
            return Ok(None);
        }
        if n_messages == BATCH_MESSAGES_MAX {
            return Err(self.lexer.syntax("too many messages"));
        }
        self.lexer.peek();
        let start = self.lexer.at();
        self.lexer.skip_value()?;
        let bytes = self.lexer.since(start);
        Ok(Some(Piece {
            bytes,
            hardware_id: peek_hardware_id(bytes),
        }))
    }
}

/// The `hardwareId` at the top level of an object, if there is a valid one. Reads no further than that.
#[must_use]
pub fn peek_hardware_id(message: &[u8]) -> Option<Cow<'_, str>> {
    let mut lexer = Lexer::new(message);
    if !lexer.take(b'{') {
        return None;
    }
    let mut first = true;
    while let Some(key) = lexer.key(first).ok()? {
        first = false;
        if &*key.unescaped() == b"hardwareId" {
            if !lexer.take(b'"') {
                return None;
            }
            let text = lexer.string().ok()?.text()?;
            return HardwareId::check(&text).is_ok().then_some(text);
        }
        lexer.skip_value().ok()?;
    }
    None
}
