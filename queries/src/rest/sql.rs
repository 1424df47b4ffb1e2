//! `POST /api/v1/sql`: a statement in, its rows out as JSON, CSV or Arrow, while they are being computed.
//!
//! The answer begins when the first rows are there, so a statement that fails early is an ordinary problem. One that fails later, or
//! grows beyond the row limit, breaks the connection off: a client never takes half an answer for a whole one.

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::Deserialize;

use super::accept::{Format, TABLE_FORMATS, negotiate};
use super::encode::Encoder;
use super::guard::Caller;
use super::problem::{Code, Problem};
use super::{Counter, page};
use crate::session::{ScalarValue, SqlRows};

/// The route.
pub(super) const PATH: &str = "/api/v1/sql";
/// The answer's status is decided after this many rows (or all of them, when there are fewer).
const FIRST_ROWS: usize = 4_096;

/// A statement with its parameters.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlRequest {
    /// One SQL statement; parameters are written `$1`, `$2`, …
    #[schema(min_length = 1, example = "SELECT identifier, value, unit FROM latest WHERE hardware_id = $1")]
    sql: String,
    /// Their values, in order: null, true, false, numbers or texts.
    #[serde(default)]
    #[schema(required = false, example = json!(["123-TEST-4567890"]))]
    parameters: Vec<serde_json::Value>,
}

/// Run a SQL statement
///
/// The statement comes as JSON with parameters, or as text without. Large answers are streamed; one with more than a million rows is refused:
/// take Flight SQL for those. In CSV, texts that a spreadsheet would run as a formula begin with an apostrophe.
#[utoipa::path(post, path = PATH, operation_id = "runSql", tag = "sql",
    request_body(content((SqlRequest = "application/json"), (String = "text/plain", example = "SELECT count(*) FROM measurements"))),
    responses((status = 200, description = "The rows",
        content((Vec<std::collections::HashMap<String, serde_json::Value>> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream")))))]
pub(super) async fn run(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let format = negotiate(&headers, TABLE_FORMATS)?;
    let (statement, parameters) = read_request(&headers, &body)?;
    let rows = counter.state.sql.execute(&caller.principal, &statement, &parameters).await?;
    let mut answer = Answer::begin(rows, format, counter.config.sql_rows_max)?;
    let first = answer.first().await?;
    // Fused: a compressor asks again after the end.
    let parts = stream::iter([Ok(first)]).chain(stream::unfold(answer, Answer::next)).fuse();
    Ok(page::document(format, Body::from_stream(parts)))
}

fn read_request(headers: &HeaderMap, body: &[u8]) -> Result<(String, Vec<ScalarValue>), Problem> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let request = match essence.as_str() {
        "application/json" => {
            serde_json::from_slice::<SqlRequest>(body).map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))?
        }
        "text/plain" | "application/sql" => {
            let sql = std::str::from_utf8(body).map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))?;
            SqlRequest {
                sql: sql.to_owned(),
                parameters: Vec::new(),
            }
        }
        _ => {
            let why = format!("content type {content_type:?}: send application/json with {{\"sql\": …}}, or the statement as text/plain");
            return Err(Problem::new(Code::UnsupportedMediaType, why));
        }
    };
    if request.sql.trim().is_empty() {
        return Err(Problem::new(Code::InvalidBody, "the statement is empty"));
    }
    let parameters = request
        .parameters
        .iter()
        .enumerate()
        .map(|(i, value)| scalar(i, value))
        .collect::<Result<_, _>>()?;
    Ok((request.sql, parameters))
}

fn scalar(index: usize, value: &serde_json::Value) -> Result<ScalarValue, Problem> {
    use serde_json::Value;
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::Boolean(Some(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(number) => ScalarValue::Int64(Some(number)),
            None => ScalarValue::Float64(number.as_f64()),
        },
        Value::String(text) => ScalarValue::Utf8(Some(text.clone())),
        Value::Array(_) | Value::Object(_) => {
            let why = format!("parameters[{index}]: null, true, false, a number or a text can be a parameter, not a list or an object");
            return Err(Problem::new(Code::InvalidBody, why));
        }
    })
}

/// An answer on its way out.
struct Answer {
    rows: SqlRows,
    encoder: Encoder,
    n_rows: usize,
    n_rows_max: usize,
    has_ended: bool,
}

impl Answer {
    fn begin(rows: SqlRows, format: Format, n_rows_max: usize) -> Result<Self, Problem> {
        let encoder = Encoder::new(format, rows.schema()).map_err(|error| Problem::new(Code::SqlInvalid, error.to_string()))?;
        Ok(Self {
            rows,
            encoder,
            n_rows: 0,
            n_rows_max,
            has_ended: false,
        })
    }

    /// What can be had before the status is sent.
    async fn first(&mut self) -> Result<Bytes, Problem> {
        while !self.has_ended && self.n_rows < FIRST_ROWS {
            self.step().await?;
        }
        Ok(self.encoder.take())
    }

    /// The next part of the body.
    async fn next(mut self) -> Option<(Result<Bytes, io::Error>, Self)> {
        while !self.has_ended {
            if let Err(problem) = self.step().await {
                tracing::warn!(?problem, "an SQL answer was broken off");
                self.has_ended = true;
                return Some((Err(io::Error::other("the statement failed after its answer had begun")), self));
            }
            let part = self.encoder.take();
            if !part.is_empty() {
                return Some((Ok(part), self));
            }
        }
        None
    }

    async fn step(&mut self) -> Result<(), Problem> {
        match self.rows.next().await {
            Some(Ok(batch)) => self.write(&batch),
            Some(Err(error)) => Err(error.into()),
            None => {
                self.has_ended = true;
                self.encoder
                    .finish()
                    .map_err(|error| Problem::internal("writing the answer", &error))
            }
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), Problem> {
        self.n_rows += batch.num_rows();
        if self.n_rows > self.n_rows_max {
            let why = format!(
                "more than {} rows; add a LIMIT, or ask over Flight SQL, which has none",
                self.n_rows_max
            );
            return Err(Problem::new(Code::SqlTooManyRows, why));
        }
        self.encoder.write(batch).map_err(|error| {
            let why = format!("the rows cannot be written in this format: {error}; cast the column, or ask for Arrow");
            Problem::new(Code::SqlInvalid, why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: &str, body: &str, expected: Result<(&str, usize), Code>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        let found = read_request(&headers, body.as_bytes());
        let found = found
            .as_ref()
            .map(|(sql, parameters)| (sql.as_str(), parameters.len()))
            .map_err(Problem::code);
        assert_eq!(found, expected, "{content_type}: {body}");
    }

    #[test]
    fn a_statement_comes_as_text_or_as_json() {
        check("text/plain; charset=utf-8", "SELECT 1", Ok(("SELECT 1", 0)));
        check(
            "application/json",
            r#"{"sql":"SELECT $1"," parameters":[]}"#,
            Err(Code::InvalidBody),
        );
        check(
            "application/json",
            r#"{"sql":"SELECT $1","parameters":[1.5]}"#,
            Ok(("SELECT $1", 1)),
        );
        check("Application/JSON; charset=utf-8", r#"{"sql":"SELECT 1"}"#, Ok(("SELECT 1", 0)));
        check(
            "application/json",
            r#"{"sql":"SELECT $1","parameters":[[1]]}"#,
            Err(Code::InvalidBody),
        );
        check("application/json", "SELECT 1", Err(Code::InvalidBody));
        check("application/json", r#"{"sql":"  "}"#, Err(Code::InvalidBody));
        check("text/csv", "SELECT 1", Err(Code::UnsupportedMediaType));
        check("", "SELECT 1", Err(Code::UnsupportedMediaType));
    }

    #[test]
    fn numbers_keep_their_kind() {
        let parameters = [
            serde_json::json!(3),
            serde_json::json!(3.0),
            serde_json::json!(u64::MAX),
            serde_json::json!(null),
        ];
        let scalars: Vec<_> = parameters.iter().map(|value| scalar(0, value).unwrap()).collect();
        assert_eq!(
            scalars,
            [
                ScalarValue::Int64(Some(3)),
                ScalarValue::Float64(Some(3.0)),
                ScalarValue::Float64(Some(18_446_744_073_709_551_615.0)),
                ScalarValue::Null
            ]
        );
    }
}
