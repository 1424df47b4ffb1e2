//! `?` becomes `$1`, `$2`, …: JDBC and ODBC write question marks, the planner wants numbers.

use super::SqlError;

/// The statement with numbered parameters. Question marks in strings, quoted names and comments stay what they are.
///
/// # Errors
/// [`SqlError::Parameters`] when a statement mixes both ways of writing parameters.
pub(super) fn numbered(sql: &str) -> Result<String, SqlError> {
    if !sql.contains('?') {
        return Ok(sql.to_owned());
    }
    let mut out = String::with_capacity(sql.len() + 16);
    let mut n = 0;
    let mut saw_number = false;
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '\'' | '"' | '`' => quoted_len(rest, c),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_len(rest),
            '$' => {
                saw_number |= rest[1..].starts_with(|d: char| d.is_ascii_digit());
                dollar_len(rest)
            }
            '?' => {
                n += 1;
                out.push_str(&format!("${n}"));
                rest = &rest[1..];
                continue;
            }
            other => other.len_utf8(),
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    if n > 0 && saw_number {
        return Err(SqlError::Parameters {
            detail: "the statement mixes ? and $1; use one of them".to_owned(),
        });
    }
    Ok(out)
}

/// Length of a quoted text; the quote doubled stands for itself, which reads as two texts and comes to the same.
fn quoted_len(rest: &str, quote: char) -> usize {
    rest[1..].find(quote).map_or(rest.len(), |at| at + 2)
}

fn comment_len(rest: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of `$tag$ … $tag$`, or of the dollar sign alone.
fn dollar_len(rest: &str) -> usize {
    let Some(tag_end) = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_')).map(|at| at + 1) else {
        return 1;
    };
    if !rest[tag_end..].starts_with('$') || rest[1..].starts_with(|d: char| d.is_ascii_digit()) {
        return 1;
    }
    let tag = &rest[..=tag_end];
    rest[tag.len()..].find(tag).map_or(rest.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str) {
        assert_eq!(numbered(sql).as_deref(), Ok(expected));
    }

    #[test]
    fn question_marks_are_numbered_outside_of_texts_and_comments() {
        check("SELECT 1", "SELECT 1");
        check("SELECT ?, ?", "SELECT $1, $2");
        check(
            "SELECT '?', 'it''s ?', \"a?\"\"b\", ? -- why?\n, ?",
            "SELECT '?', 'it''s ?', \"a?\"\"b\", $1 -- why?\n, $2",
        );
        check("/* ? /* ? */ ? */ ?", "/* ? /* ? */ ? */ $1");
        check("$$ ? $$ ? $t$ ? $$ $t$ ?", "$$ ? $$ $1 $t$ ? $$ $t$ $2");
        check("SELECT 'ü?', ?", "SELECT 'ü?', $1");
        check("SELECT '? unfinished", "SELECT '? unfinished");
        check("SELECT /* ? unfinished", "SELECT /* ? unfinished");
        check("? $", "$1 $");
    }

    #[test]
    fn mixing_both_kinds_is_refused() {
        assert!(matches!(numbered("SELECT ?, $1"), Err(SqlError::Parameters { .. })));
    }
}
