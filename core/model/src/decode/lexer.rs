//! JSON's tokens (RFC 8259), read from bytes without building anything. The decoder and the splitter share this, so they agree on
//! where a string ends.

use std::borrow::Cow;

/// How deep a value we do not read may be nested. One bit a level: the nesting of an ignored value fits a word.
pub const NESTING_MAX: u32 = 64;

/// Why the bytes cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LexError {
    /// Not JSON.
    Syntax {
        /// Byte position.
        at: usize,
        /// What was expected, or found instead.
        what: &'static str,
    },
    /// JSON perhaps, but deeper than [`NESTING_MAX`].
    TooDeep {
        /// Byte position.
        at: usize,
    },
}

/// A string token: what is between the quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawString<'a> {
    bytes: &'a [u8],
    /// It contains at least one escape.
    escaped: bool,
}

impl<'a> RawString<'a> {
    /// The string's bytes with escapes replaced.
    #[inline]
    pub(crate) fn unescaped(self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.bytes);
        }
        Cow::Owned(unescape(&String::from_utf8_lossy(self.bytes)).into_bytes())
    }

    /// The string's text; `None` when it is not UTF-8.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        let text = std::str::from_utf8(self.bytes).ok()?;
        Some(if self.escaped {
            Cow::Owned(unescape(text))
        } else {
            Cow::Borrowed(text)
        })
    }
}

/// Replaces the escapes of a string that [`Lexer::string`] has accepted.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escape.chars();
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let unit = hex4(chars.as_str().as_bytes());
                chars = chars.as_str().get(4..).unwrap_or_default().chars();
                let mut code = u32::from(unit.unwrap_or_default());
                if let (0xd800..0xdc00, Some(low)) = (code, chars.as_str().strip_prefix("\\u")) {
                    code = 0x1_0000 + ((code & 0x3ff) << 10) + (u32::from(hex4(low.as_bytes()).unwrap_or_default()) & 0x3ff);
                    chars = low.get(4..).unwrap_or_default().chars();
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(itself) => out.push(itself),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

fn hex4(bytes: &[u8]) -> Option<u16> {
    bytes
        .first_chunk::<4>()?
        .iter()
        .try_fold(0, |unit, b| Some(unit << 4 | char::from(*b).to_digit(16)? as u16))
}

/// A position in JSON text.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Byte position.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The bytes from `start` to here.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// All bytes from `start` on.
    pub(crate) fn rest_from(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..).unwrap_or_default()
    }

    pub(crate) fn syntax(&self, what: &'static str) -> LexError {
        let what = if self.at >= self.bytes.len() { "the text is cut off" } else { what };
        LexError::Syntax { at: self.at, what }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is not white space, without taking it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes `byte` if it is the next one after white space.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(crate) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), LexError> {
        if self.take(byte) { Ok(()) } else { Err(self.syntax(what)) }
    }

    /// An object's next key, up to and including the colon; `None` after the last member. `first` is true right after `{`.
    #[inline]
    pub(crate) fn key(&mut self, first: bool) -> Result<Option<RawString<'a>>, LexError> {
        if self.take(b'}') {
            return Ok(None);
        }
        if !first {
            self.expect(b',', "expected ',' or '}'")?;
        }
        self.expect(b'"', "expected a member's name")?;
        let key = self.string()?;
        self.expect(b':', "expected ':'")?;
        Ok(Some(key))
    }

    /// Takes an object's next key and its colon if it is `name`, written without escapes or white space. Says nothing otherwise.
    #[inline]
    pub(crate) fn take_key(&mut self, first: bool, name: &[u8]) -> bool {
        let head: &[u8] = if first { b"\"" } else { b",\"" };
        let rest = self.rest_from(self.at);
        let taken = rest
            .strip_prefix(head)
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(b"\":"));
        if taken {
            self.at += head.len() + name.len() + 2;
        }
        taken
    }

    /// Whether an array has a next element; takes the separator. `first` is true right after `[`.
    pub(crate) fn element(&mut self, first: bool) -> Result<bool, LexError> {
        if self.take(b']') {
            return Ok(false);
        }
        if !first {
            self.expect(b',', "expected ',' or ']'")?;
        }
        Ok(true)
    }

    /// A string whose opening quote has been taken.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<RawString<'a>, LexError> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.skip_plain();
            match self.byte() {
                Some(b'"') => {
                    let bytes = self.since(start);
                    self.at += 1;
                    return Ok(RawString { bytes, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.syntax("control character in a string")),
                None => return Err(self.syntax("")),
            }
        }
    }

    /// Moves to the next quote, backslash or control character, eight bytes at a time.
    #[inline]
    fn skip_plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        // The lowest set bit of `word - ONES*n & !word & HIGHS` marks the first byte below n; bits above it may be wrong, which is why
        // only the lowest is used.
        const fn below(word: u64, n: u64) -> u64 {
            word.wrapping_sub(ONES * n) & !word & HIGHS
        }
        while let Some(chunk) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*chunk);
            let stops = below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1) | below(word, 0x20);
            if stops != 0 {
                self.at += (stops.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self.byte().is_some_and(|b| b >= 0x20 && b != b'"' && b != b'\\') {
            self.at += 1;
        }
    }

    /// Checks one escape; surrogates must come in pairs.
    #[cold]
    fn escape(&mut self) -> Result<(), LexError> {
        self.at += 1;
        let byte = self.byte().ok_or_else(|| self.syntax(""))?;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                Ok(())
            }
            b'u' => {
                let unit = self.unicode_escape()?;
                match unit {
                    0xd800..0xdc00 => {
                        if self.bytes.get(self.at..self.at + 2) == Some(b"\\u") {
                            self.at += 1;
                            if (0xdc00..0xe000).contains(&self.unicode_escape()?) {
                                return Ok(());
                            }
                        }
                        Err(self.syntax("half of a surrogate pair in a string"))
                    }
                    0xdc00..0xe000 => Err(self.syntax("half of a surrogate pair in a string")),
                    _ => Ok(()),
                }
            }
            _ => Err(self.syntax("unknown escape in a string")),
        }
    }

    fn unicode_escape(&mut self) -> Result<u16, LexError> {
        self.at += 1;
        let unit = hex4(self.rest_from(self.at)).ok_or_else(|| self.syntax("expected four hexadecimal digits after \\u"))?;
        self.at += 4;
        Ok(unit)
    }

    /// Takes a number and gives its text back.
    pub(crate) fn number_text(&mut self) -> Result<&'a [u8], LexError> {
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.syntax("expected a value")),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(self.since(start))
    }

    fn digits(&mut self) {
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), LexError> {
        let start = self.at;
        self.digits();
        if self.at > start {
            Ok(())
        } else {
            Err(self.syntax("expected a digit"))
        }
    }

    /// Moves over a number that another reader has taken.
    pub(crate) fn advance(&mut self, n: usize) {
        self.at += n;
    }

    /// Takes `true`, `false` or `null`.
    pub(crate) fn word(&mut self, word: &'static [u8]) -> Result<(), LexError> {
        if self.rest_from(self.at).starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        let cut_off = word.starts_with(self.rest_from(self.at));
        let at = if cut_off { self.bytes.len() } else { self.at };
        Err(LexError::Syntax {
            at,
            what: if cut_off { "the text is cut off" } else { "expected a value" },
        })
    }

    /// Takes any value, checks its syntax and forgets it. Needs no stack: the nesting is a word of bits.
    ///
    /// # Errors
    /// A syntax error, or [`LexError::TooDeep`] beyond [`NESTING_MAX`] levels.
    pub(crate) fn skip_value(&mut self) -> Result<(), LexError> {
        let mut objects: u64 = 0; // bit 0: the innermost open bracket is a brace
        let mut depth = 0;
        loop {
            let mut opened = false;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                Some(open @ (b'{' | b'[')) => {
                    if depth == NESTING_MAX {
                        return Err(LexError::TooDeep { at: self.at });
                    }
                    self.at += 1;
                    depth += 1;
                    objects = objects << 1 | u64::from(open == b'{');
                    opened = true;
                }
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => {
                    self.number_text()?;
                }
            }
            // After a value: close what ends here, then stand before the next value.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let more = if objects & 1 == 1 {
                    self.key(opened)?.is_some()
                } else {
                    self.element(opened)?
                };
                if more {
                    break;
                }
                objects >>= 1;
                depth -= 1;
                opened = false;
            }
        }
    }

    /// Takes a value by its brackets and strings alone, whatever is between them and however deep they are: where a value ends, even
    /// if it is not JSON inside.
    ///
    /// # Errors
    /// When the text ends before the value does, or no value is here.
    pub(crate) fn skip_structure(&mut self) -> Result<(), LexError> {
        self.peek();
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                // a bare word or number, outside of all brackets, ends before these
                b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
        if depth > 0 || self.at == start {
            Err(self.syntax("expected a value"))
        } else {
            Ok(())
        }
    }

    /// Takes a string by its quotes and backslashes alone.
    fn skip_string(&mut self) -> Result<(), LexError> {
        self.at += 1;
        loop {
            self.skip_plain();
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.syntax("")),
            }
        }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), LexError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.syntax("something follows the message")),
        }
    }
}
