//! Numbers: exactly the `f64` that `str::parse` gives, but faster for the short decimals meters send.

use super::lexer::{LexError, Lexer};

/// Powers of ten that an `f64` holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Most digits of a decimal that surely fits 2^53.
const EXACT_DIGITS_MAX: usize = 15;

/// Takes a number. It may be infinite (`1e999`): that is the caller's matter.
///
/// A decimal `m / 10^k` with `m < 2^53` and `k <= 22` is one correctly rounded division of two exact floats, which is the correctly
/// rounded result (Clinger's fast path); everything else goes to the standard library.
#[inline]
pub(crate) fn number(lexer: &mut Lexer<'_>) -> Result<f64, LexError> {
    if let Some((value, len)) = short_decimal(lexer.rest_from(lexer.at())) {
        lexer.advance(len);
        return Ok(value);
    }
    let at = lexer.at();
    let text = lexer.number_text()?;
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(LexError::Syntax {
            at,
            what: "expected a number",
        })
}

/// The value and length of a number of at most 15 digits without exponent; `None` for anything else, right or wrong.
#[inline]
fn short_decimal(bytes: &[u8]) -> Option<(f64, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut mantissa: i64 = 0;
    let mut at = start;
    let mut point = None;
    let after = loop {
        let byte = bytes.get(at).copied();
        match byte {
            Some(digit @ b'0'..=b'9') => mantissa = mantissa.wrapping_mul(10).wrapping_add(i64::from(digit - b'0')),
            Some(b'.') if point.is_none() => point = Some(at),
            _ => break byte,
        }
        at += 1;
    };
    let n_integer = point.unwrap_or(at) - start;
    let n_fraction = point.map_or(0, |point| at - point - 1);
    let leading_zero = n_integer > 1 && bytes.get(start) == Some(&b'0');
    let complete = n_integer > 0 && (point.is_none() || n_fraction > 0) && !leading_zero;
    if !complete || n_integer + n_fraction > EXACT_DIGITS_MAX || matches!(after, Some(b'e' | b'E')) {
        return None;
    }
    let value = mantissa as f64 / POWERS_OF_TEN[n_fraction];
    Some((if negative { -value } else { value }, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<f64>) {
        let mut lexer = Lexer::new(text.as_bytes());
        let value = number(&mut lexer).ok().filter(|_| lexer.end().is_ok());
        assert_eq!(value.map(f64::to_bits), expected.map(f64::to_bits), "{text:?}");
    }

    #[test]
    fn numbers_are_those_of_the_grammar() {
        check("0", Some(0.0));
        check("-0", Some(-0.0));
        check("-0.0", Some(-0.0));
        check("230", Some(230.0));
        check("0.0383", Some(0.0383));
        check("-12.5", Some(-12.5));
        check("1e3", Some(1000.0));
        check("1.5E-3", Some(0.0015));
        check("1E+2", Some(100.0));
        check("999999999999999", Some(999_999_999_999_999.0));
        check("123456789012345678901234567890", Some(123_456_789_012_345_678_901_234_567_890.0));
        check("0.1234567890123456789", Some(0.123_456_789_012_345_68));
        check("1e999", Some(f64::INFINITY));
        check("-1e999", Some(f64::NEG_INFINITY));
        check("1e-999", Some(0.0));
        for text in [
            "",
            "-",
            "+1",
            ".5",
            "1.",
            "01",
            "-01",
            "00",
            "1e",
            "1e+",
            "1.e3",
            "1.2.3",
            "0x10",
            "NaN",
            "Infinity",
            "-Infinity",
            "1_000",
            "1 2",
        ] {
            check(text, None);
        }
    }
}
