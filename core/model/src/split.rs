//! A publish into messages: an array is a batch of them, anything else is one.
//!
//! The event source files each message as its own log record under its device, so the splitter also finds `hardwareId`, at the top
//! level of a message and nowhere else. It looks at structure only (brackets, strings); whether a piece is a message is the
//! decoder's matter. Nothing is ever lost: every byte of a payload that is not white space or a batch's punctuation is in some piece.

use std::borrow::Cow;

use crate::decode::lexer::Lexer;
use crate::ids::HardwareId;

/// Most messages a batch may have. What follows is one more piece, which the decoder rejects.
pub const BATCH_MESSAGES_MAX: usize = 10_000;

/// One message of a payload, or what could not be taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes: an element without the white space around it, or the payload as it is.
    pub bytes: &'a [u8],
    /// Its `hardwareId`, if it has one that is a valid id (the first one, if it says it twice).
    pub hardware_id: Option<Cow<'a, str>>,
}

/// Takes a payload apart.
///
/// An array gives its elements, an empty one nothing. A broken one gives the elements that are whole, and then the rest as one piece:
/// from the element that is cut off, or, where a separator is missing or [`BATCH_MESSAGES_MAX`] is reached, from the last byte
/// before that. So the rest never reads as a message, and the decoder always rejects it as malformed.
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
                Some(Piece::new(self.payload))
            }
            State::Batch { n_messages } => match self.element(n_messages) {
                Ok(Some(bytes)) => {
                    self.state = State::Batch {
                        n_messages: n_messages + 1,
                    };
                    Some(Piece::new(bytes))
                }
                Ok(None) => {
                    self.state = State::Done;
                    None
                }
                Err(Broken { at }) => {
                    self.state = State::Done;
                    Some(Piece::new(self.lexer.rest_from(at)))
                }
            },
        }
    }
}

/// Where a batch cannot be taken apart any further.
struct Broken {
    at: usize,
}

impl<'a> Pieces<'a> {
    /// The next element, `None` at the end of the batch.
    fn element(&mut self, n_messages: usize) -> Result<Option<&'a [u8]>, Broken> {
        // the last byte that belongs to what came before: a bracket, or the end of an element
        let before = Broken { at: self.lexer.at() - 1 };
        match self.lexer.element(n_messages == 0) {
            Ok(false) if self.lexer.end().is_ok() => return Ok(None),
            Ok(true) if n_messages < BATCH_MESSAGES_MAX => {}
            _ => return Err(before),
        }
        self.lexer.peek();
        let start = self.lexer.at();
        match self.lexer.skip_structure() {
            Ok(()) => Ok(Some(self.lexer.since(start))),
            Err(_) if self.lexer.at() > start => Err(Broken { at: start }),
            Err(_) => Err(before),
        }
    }
}

impl<'a> Piece<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            hardware_id: peek_hardware_id(bytes),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoder;
    use crate::outcome::ReasonCode;

    /// Pieces as `id: bytes`, `-` for no id.
    #[track_caller]
    fn check(payload: &str, expected: &[&str]) {
        let pieces = split_payload(payload.as_bytes())
            .map(|piece| {
                format!(
                    "{}: {}",
                    piece.hardware_id.as_deref().unwrap_or("-"),
                    String::from_utf8_lossy(piece.bytes)
                )
            })
            .collect::<Vec<_>>();
        assert_eq!(pieces, expected, "{payload}");
    }

    #[test]
    fn what_is_no_array_is_one_piece() {
        check("", &["-: "]);
        check(" 7 ", &["-:  7 "]);
        check(r#" {"hardwareId":"a"} "#, &[r#"a:  {"hardwareId":"a"} "#]);
        check(r#"{"hardwareId":"a"} [1]"#, &[r#"a: {"hardwareId":"a"} [1]"#]);
        check(r#"{"hardwareId":"a","type":"cut o"#, &[r#"a: {"hardwareId":"a","type":"cut o"#]);
    }

    #[test]
    fn an_array_is_its_elements() {
        check("[]", &[]);
        check(" [ ] ", &[]);
        check(
            r#"[{"hardwareId":"a"} , {"hardwareId":"b"}]"#,
            &[r#"a: {"hardwareId":"a"}"#, r#"b: {"hardwareId":"b"}"#],
        );
        check(r#"[1,[{"hardwareId":"a"}],{}]"#, &["-: 1", r#"-: [{"hardwareId":"a"}]"#, "-: {}"]);
    }

    #[test]
    fn only_a_top_level_string_that_is_an_id_names_the_device() {
        check(
            r#"{"request":{"hardwareId":"no"},"hardwareId":"a"}"#,
            &[r#"a: {"request":{"hardwareId":"no"},"hardwareId":"a"}"#],
        );
        check(r#"{"request":{"hardwareId":"no"}}"#, &[r#"-: {"request":{"hardwareId":"no"}}"#]);
        check(r#"{"x":"\"hardwareId\":\"no\""}"#, &[r#"-: {"x":"\"hardwareId\":\"no\""}"#]);
        check(r#"{"hardware\u0049d":"z\u00e4"}"#, &[r#"zä: {"hardware\u0049d":"z\u00e4"}"#]);
        for no_id in ["7", "null", "\"\"", "\"a/b\"", "\"a b\"", "[\"a\"]"] {
            let payload = format!(r#"{{"hardwareId":{no_id}}}"#);
            check(&payload, &[&format!("-: {payload}")]);
        }
    }

    #[test]
    fn one_bad_message_does_not_spoil_the_others() {
        check(
            r#"[{"a":nonsense 7 7},{"hardwareId":"b"}]"#,
            &[r#"-: {"a":nonsense 7 7}"#, r#"b: {"hardwareId":"b"}"#],
        );
        let payload = b"[{\"hardwareId\":\"\xff\"},{\"hardwareId\":\"b\"}]";
        let ids: Vec<_> = split_payload(payload).map(|piece| piece.hardware_id).collect();
        assert_eq!(ids, [None, Some("b".into())]);
    }

    #[test]
    fn a_broken_array_gives_its_good_elements_and_the_rest() {
        check(
            r#"[{"hardwareId":"a"},{"hardwareId":"b"#,
            &[r#"a: {"hardwareId":"a"}"#, r#"-: {"hardwareId":"b"#],
        );
        check(r#"[{"a":1}{"hardwareId":"b"}]"#, &[r#"-: {"a":1}"#, r#"-: }{"hardwareId":"b"}]"#]);
        check(r#"[{"a":1}] {"hardwareId":"b"}"#, &[r#"-: {"a":1}"#, r#"-: }] {"hardwareId":"b"}"#]);
        check(r#"[{"a":1}"#, &[r#"-: {"a":1}"#, "-: }"]);
        check(r#"[1,{"hardwareId":"b","x"#, &["-: 1", r#"b: {"hardwareId":"b","x"#]);
        check("[", &["-: ["]);
        check("[1,", &["-: 1", "-: 1,"]);
        check("[1,]", &["-: 1", "-: 1,]"]);
        check("[,1]", &["-: [,1]"]);
    }

    #[test]
    fn what_exceeds_the_longest_batch_is_rejected() {
        let batch = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
        assert_eq!(split_payload(batch(BATCH_MESSAGES_MAX).as_bytes()).count(), BATCH_MESSAGES_MAX);
        let long = batch(BATCH_MESSAGES_MAX + 2);
        let rest = split_payload(long.as_bytes()).last().map(|piece| piece.bytes);
        assert_eq!(rest, Some(b"},{},{}]".as_slice()));
        let verdict = Decoder::new().decode(rest.unwrap()).map(|_| ()).map_err(|error| error.reason);
        assert_eq!(verdict, Err(ReasonCode::MalformedJson));
    }

    #[test]
    fn nesting_has_no_limit_here() {
        let deep = format!("[{}{},{{\"hardwareId\":\"b\"}}]", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(split_payload(deep.as_bytes()).count(), 2);
    }
}
