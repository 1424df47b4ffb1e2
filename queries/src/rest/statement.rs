//! SQL of our own routes: fixed text and bound values, and nothing a user wrote in between.

use arrow::array::{Array, ArrayRef, AsArray as _, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use flexmeter_model::EventTime;

use super::Counter;
use super::guard::Caller;
use super::problem::{Code, Problem};
use crate::session::{ScalarValue, SqlError};

/// A statement and its parameters. Text comes from the program only; values are bound.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    sql: String,
    parameters: Vec<ScalarValue>,
}

impl Statement {
    pub(super) fn new(text: &'static str) -> Self {
        Self {
            sql: text.to_owned(),
            parameters: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.sql.push_str(text);
        self
    }

    pub(super) fn bind(&mut self, value: ScalarValue) -> &mut Self {
        self.parameters.push(value);
        self.sql.push_str(&format!("${}", self.parameters.len()));
        self
    }

    pub(super) fn bind_text(&mut self, text: &str) -> &mut Self {
        self.bind(ScalarValue::Utf8(Some(text.to_owned())))
    }

    pub(super) fn bind_int(&mut self, number: i64) -> &mut Self {
        self.bind(ScalarValue::Int64(Some(number)))
    }

    pub(super) fn bind_time(&mut self, time: EventTime) -> &mut Self {
        self.bind(ScalarValue::TimestampMicrosecond(Some(time.micros()), Some("UTC".into())))
    }

    /// `LIMIT n OFFSET n`, one row more than the page so that we know whether there is a next one.
    pub(super) fn page(&mut self, limit: usize, skip: u32) -> &mut Self {
        self.sql.push_str(&format!(" LIMIT {} OFFSET {skip}", limit + 1));
        self
    }

    /// Runs the statement and gives at most `limit` rows, and whether there were more.
    pub(super) async fn fetch(self, counter: &Counter, caller: &Caller, limit: usize) -> Result<(RecordBatch, bool), Problem> {
        let rows = counter
            .state
            .sql
            .execute(&caller.principal, &self.sql, &self.parameters)
            .await
            .map_err(failed)?;
        let schema = rows.schema().clone();
        let batches = rows.collect().await.map_err(failed)?;
        let rows = concat_batches(&schema, &batches).map_err(|error| Problem::internal("reading the table", &error))?;
        let has_more = rows.num_rows() > limit;
        Ok((rows.slice(0, rows.num_rows().min(limit)), has_more))
    }
}

/// The statement is ours, so whatever is wrong with it is our fault; what the server cannot carry just now is not.
fn failed(error: SqlError) -> Problem {
    match error {
        SqlError::Busy => error.into(),
        SqlError::Deadline { .. } | SqlError::Memory { .. } => {
            Problem::new(Code::Timeout, "too much to read; ask for a shorter time range")
        }
        error => Problem::internal("reading the table", &error),
    }
}

/// A table's columns by name, in the types we read them in, whatever encoding the table gave them.
pub(super) struct Columns<'a>(pub(super) &'a RecordBatch);

impl Columns<'_> {
    fn column(&self, name: &str, data_type: &DataType) -> Result<ArrayRef, Problem> {
        let column = self
            .0
            .column_by_name(name)
            .ok_or_else(|| ArrowError::SchemaError(format!("no column {name}")));
        column
            .and_then(|column| cast(column, data_type))
            .map_err(|error| Problem::internal("reading the table", &format!("column {name}: {error}")))
    }

    pub(super) fn text(&self, name: &str) -> Result<StringArray, Problem> {
        Ok(self.column(name, &DataType::Utf8)?.as_string::<i32>().clone())
    }

    pub(super) fn float(&self, name: &str) -> Result<Float64Array, Problem> {
        Ok(self.column(name, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    }

    pub(super) fn int(&self, name: &str) -> Result<Int64Array, Problem> {
        Ok(self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    }

    pub(super) fn time(&self, name: &str) -> Result<TimestampMicrosecondArray, Problem> {
        let column = self.column(name, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
        Ok(column.as_primitive::<TimestampMicrosecondType>().clone())
    }
}

/// A time of a column as RFC 3339.
pub(super) fn rfc3339(micros: i64) -> String {
    EventTime::from_micros(micros).to_string()
}

/// A text of a column, if it has one there.
pub(super) fn optional(texts: &StringArray, row: usize) -> Option<String> {
    texts.is_valid(row).then(|| texts.value(row).to_owned())
}

/// How many of the last rows have the same key as the very last one: what the next page has to skip, since its range starts at that key.
/// A page that consists of that key alone adds to what it skipped itself.
pub(super) fn rows_to_skip<K: PartialEq>(n_rows: usize, key: impl Fn(usize) -> K, start: Option<(&K, u32)>) -> u32 {
    let Some(last) = n_rows.checked_sub(1).map(&key) else {
        return start.map_or(0, |(_, skipped)| skipped);
    };
    let same = (0..n_rows).rev().take_while(|row| key(*row) == last).count();
    let carried = start
        .filter(|(key, _)| same == n_rows && **key == last)
        .map_or(0, |(_, skipped)| skipped);
    carried.saturating_add(u32::try_from(same).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bound_and_never_part_of_the_text() {
        let mut statement = Statement::new("SELECT 1 FROM measurements WHERE hardware_id = ");
        statement
            .bind_text("'; DROP TABLE measurements; --")
            .push(" AND log_offset >= ")
            .bind_int(3)
            .page(10, 2);
        assert_eq!(
            statement.sql,
            "SELECT 1 FROM measurements WHERE hardware_id = $1 AND log_offset >= $2 LIMIT 11 OFFSET 2"
        );
        assert_eq!(statement.parameters.len(), 2);
    }

    #[test]
    fn rows_with_the_last_key_are_counted_across_pages() {
        let keys = ["a", "b", "b"];
        let key = |row: usize| keys[row];
        assert_eq!(rows_to_skip(3, key, None), 2);
        assert_eq!(rows_to_skip(1, key, Some((&"a", 4))), 5);
        assert_eq!(rows_to_skip(3, key, Some((&"b", 4))), 2);
        assert_eq!(rows_to_skip(3, |_| "b", Some((&"b", 4))), 7);
        assert_eq!(rows_to_skip(0, key, Some((&"b", 4))), 4);
    }
}
