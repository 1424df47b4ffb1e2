//! Cursors: where a walk through a list stands, as an opaque text.
//!
//! A cursor holds the sort key of the last row handed out, never a row number, so rows that are added before or after it neither
//! repeat nor skip a row of the walk. Where the key of a list is not unique, `skip` counts the rows with the last key that were already
//! handed out; such rows come from one log record and arrive together, so the count stays true.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Longest cursor we accept, in bytes: the longest id twice, base64, and room for numbers.
pub(super) const CURSOR_LEN_MAX: usize = 1024;

/// Writes a position in the list `list` as a cursor.
pub(super) fn encode<T: Serialize>(list: &str, position: &T) -> Result<String, Problem> {
    let json = serde_json::to_vec(&(list, position)).map_err(|error| Problem::internal("writing the cursor", &error))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Where a page of the list `list` starts; at the beginning when there is no cursor, or an empty one.
pub(super) fn start<T: DeserializeOwned>(list: &str, cursor: Option<&str>) -> Result<Option<T>, Problem> {
    cursor.filter(|text| !text.is_empty()).map(|text| decode(list, text)).transpose()
}

fn decode<T: DeserializeOwned>(list: &str, cursor: &str) -> Result<T, Problem> {
    let unreadable = || Problem::parameter("cursor", "not a cursor of this list; pass the one of the answer's `next` unchanged");
    if cursor.len() > CURSOR_LEN_MAX {
        return Err(Problem::parameter(
            "cursor",
            format!("{} bytes, the limit is {CURSOR_LEN_MAX}", cursor.len()),
        ));
    }
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| unreadable())?;
    let (of_list, position): (String, T) = serde_json::from_slice(&json).map_err(|_| unreadable())?;
    if of_list == list { Ok(position) } else { Err(unreadable()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let position = (
            1_455_129_603_391_000_i64,
            "electricity.power.active.consumed.l1".to_owned(),
            3_i32,
            17_i64,
            2_u32,
        );
        let cursor = encode("measurements", &position).unwrap();
        assert!(
            cursor
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')),
            "{cursor} needs no escape"
        );
        assert_eq!(decode::<(i64, String, i32, i64, u32)>("measurements", &cursor).unwrap(), position);
    }

    #[test]
    fn a_foreign_or_broken_cursor_is_refused_by_name() {
        let cursor = encode("devices", &"a").unwrap();
        for wrong in ["", "!", "AAAA", &cursor, &"A".repeat(CURSOR_LEN_MAX + 1)] {
            let problem = decode::<(i64, String)>("measurements", wrong).unwrap_err();
            assert!(problem.detail().starts_with("cursor: "), "{}", problem.detail());
        }
    }
}
