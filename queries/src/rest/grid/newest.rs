//! Lists of what the grid tells, the newest first, page by page.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use flexmeter_model::EventTime;

use crate::rest::cursor;
use crate::rest::problem::Problem;

/// One page of rows with their ids.
pub(super) struct Page<'a, R> {
    pub(super) rows: Vec<(&'a str, &'a R)>,
    /// Cursor of the next page.
    pub(super) next: Option<String>,
}

/// The page of a list that begins after a cursor. What comes to the list during a walk is newer than its place and neither repeats nor
/// skips a row.
pub(super) fn page<'a, R>(
    list: &str,
    rows: impl Iterator<Item = (&'a Arc<str>, &'a Arc<R>)>,
    time: impl Fn(&R) -> EventTime,
    limit: usize,
    cursor: Option<&str>,
) -> Result<Page<'a, R>, Problem> {
    let after: Option<(i64, String)> = cursor::start(list, cursor)?;
    let after = after.as_ref().map(|(micros, id)| (Reverse(*micros), id.as_str()));
    let place = |id: &'a str, row: &R| (Reverse(time(row).micros()), id);
    let mut rows: Vec<_> = rows
        .map(|(id, row)| (place(id, row), &**row))
        .filter(|(place, _)| after.is_none_or(|after| *place > after))
        .collect();
    rows.sort_unstable_by_key(|(place, _)| *place);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = match rows.last() {
        Some(((Reverse(micros), id), _)) if has_more => Some(cursor::encode(list, &(micros, id))?),
        _ => None,
    };
    let rows = rows.into_iter().map(|((_, id), row)| (id, row)).collect();
    Ok(Page { rows, next })
}

/// The id at the end of a path, whatever it is called there.
pub(in crate::rest) struct IdPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::parameter("id", super::reason(&rejection)))?;
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_sees_every_row_once_the_newest_first() {
        let rows: Vec<(Arc<str>, Arc<i64>)> = [("a", 1), ("b", 3), ("c", 3), ("d", 2)]
            .map(|(id, time)| (id.into(), Arc::new(time)))
            .into();
        let at = |cursor: Option<&str>| {
            let rows = rows.iter().map(|(id, row)| (id, row));
            page("letters", rows, |time| EventTime::from_micros(*time), 3, cursor).unwrap()
        };
        let first = at(None);
        assert_eq!(first.rows.iter().map(|row| row.0).collect::<Vec<_>>(), ["b", "c", "d"]);
        let second = at(first.next.as_deref());
        assert_eq!(second.rows.iter().map(|row| row.0).collect::<Vec<_>>(), ["a"]);
        assert_eq!(second.next, None);
        assert!(
            page(
                "others",
                rows.iter().map(|(id, row)| (id, row)),
                |_| EventTime::from_micros(0),
                3,
                first.next.as_deref()
            )
            .is_err()
        );
    }
}
