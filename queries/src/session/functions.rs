//! What a few letters of SQL must not do: write, show the server's inside, or ask for gigabytes.
//!
//! Constants are folded while a statement is planned, outside of any memory pool, so functions that make much out of little are capped
//! where they run: `repeat('x', 800000000)` fails before it allocates.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use datafusion::sql::parser::Statement as Outer;
use datafusion::sql::sqlparser::ast::Statement;

use super::SqlError;

/// Most bytes that `repeat`, `lpad` and `rpad` may make of one batch.
pub const TEXT_MADE_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Most elements that `range`, `generate_series`, `array_repeat` and `array_resize` may make of one batch.
pub const ELEMENTS_MADE_MAX: i64 = 5_000_000;

/// Refuses statements that do anything but read. What is not known to read is refused.
pub(super) fn check_statement(statement: &Outer) -> Result<(), SqlError> {
    let refuse = |what: String| {
        Err(SqlError::ReadOnly {
            detail: format!("{what} is not possible, statements can only SELECT"),
        })
    };
    match statement {
        Outer::Statement(statement) => match statement.as_ref() {
            Statement::Query(_)
            | Statement::ShowTables { .. }
            | Statement::ShowColumns { .. }
            | Statement::ShowFunctions { .. }
            | Statement::ExplainTable { .. } => Ok(()),
            Statement::Explain { statement, .. } => check_statement(&Outer::Statement(statement.clone())),
            Statement::ShowVariable { .. } => Err(SqlError::Invalid {
                detail: "the server's settings are not shown here".to_owned(),
            }),
            other => refuse(first_word(&other.to_string())),
        },
        Outer::Explain(explain) => check_statement(&explain.statement),
        other => refuse(first_word(&other.to_string())),
    }
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or("this").to_uppercase()
}

/// Puts caps on the functions of a session's template.
pub(super) fn restrict(template: &mut SessionState) -> Result<()> {
    for (name, made) in [
        ("repeat", Made::TextTimes),
        ("lpad", Made::TextTo),
        ("rpad", Made::TextTo),
        ("array_repeat", Made::Elements),
        ("array_resize", Made::Elements),
        ("range", Made::Series),
        ("generate_series", Made::Series),
    ] {
        if let Some(inner) = template.scalar_functions().get(name).cloned() {
            template.register_udf(Arc::new(ScalarUDF::new_from_impl(Capped { inner, made })))?;
        }
    }
    Ok(())
}

/// What a function makes, and so how its size follows from its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Made {
    /// The first argument, as often as the second says.
    TextTimes,
    /// Text as long as the second argument says.
    TextTo,
    /// As many elements as the second argument says.
    Elements,
    /// From the first to the second argument by the third.
    Series,
}

/// A function that looks at its arguments before it runs.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Capped {
    inner: Arc<ScalarUDF>,
    made: Made,
}

impl Capped {
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let rows = args.number_rows;
        let (size, limit, unit) = match self.made {
            Made::TextTimes => (
                sum(&lengths(&args.args, rows)?, &numbers(&args.args, 1, rows)?),
                TEXT_MADE_BYTES_MAX,
                "bytes",
            ),
            Made::TextTo => (sum(&ones(rows), &numbers(&args.args, 1, rows)?), TEXT_MADE_BYTES_MAX, "bytes"),
            Made::Elements => (sum(&ones(rows), &numbers(&args.args, 1, rows)?), ELEMENTS_MADE_MAX, "elements"),
            Made::Series => (series(&args.args, rows)?, ELEMENTS_MADE_MAX, "elements"),
        };
        if size > i128::from(limit) {
            let name = self.inner.name();
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} would make {size} {unit} at once, the limit is {limit}"
            )));
        }
        Ok(())
    }
}

impl ScalarUDFImpl for Capped {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args)?;
        self.inner.invoke_with_args(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Sum of the products, where both are there and positive.
fn sum(a: &Int64Array, b: &Int64Array) -> i128 {
    let products = a
        .iter()
        .zip(b)
        .map(|(a, b)| i128::from(a.unwrap_or(0).max(0)) * i128::from(b.unwrap_or(0).max(0)));
    products.fold(0, i128::saturating_add)
}

fn ones(rows: usize) -> Int64Array {
    Int64Array::from_value(1, rows)
}

/// An argument as whole numbers, one a row; times give their ticks.
fn numbers(args: &[ColumnarValue], at: usize, rows: usize) -> Result<Int64Array> {
    let Some(arg) = args.get(at) else { return Ok(ones(rows)) };
    let array = arg.to_array(rows)?;
    Ok(cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Lengths of the first argument, in bytes.
fn lengths(args: &[ColumnarValue], rows: usize) -> Result<Int64Array> {
    let Some(arg) = args.first() else { return Ok(ones(rows)) };
    let text = cast(&arg.to_array(rows)?, &DataType::LargeUtf8)?;
    Ok(text.as_string::<i64>().iter().map(|t| t.map(|t| t.len() as i64)).collect())
}

/// Elements of `range(start, stop, step)` in all rows. Of an interval the shortest length counts, a month of 28 days.
fn series(args: &[ColumnarValue], rows: usize) -> Result<i128> {
    let (start, stop) = if args.len() == 1 {
        (Int64Array::from_value(0, rows), numbers(args, 0, rows)?)
    } else {
        (numbers(args, 0, rows)?, numbers(args, 1, rows)?)
    };
    let steps = match args.get(2).map(|arg| arg.to_array(rows)).transpose()? {
        None => ones(rows),
        Some(array) if matches!(array.data_type(), DataType::Interval(_)) => {
            let ticks_ns = args.first().map_or(1, |arg| tick_ns(&arg.data_type()));
            let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
            let intervals = cast(&array, &interval)?;
            let step = |v: arrow::datatypes::IntervalMonthDayNano| {
                let ns = (i128::from(v.months) * 28 + i128::from(v.days)) * DAY_NS + i128::from(v.nanoseconds);
                i64::try_from(ns / ticks_ns).unwrap_or(i64::MAX)
            };
            intervals
                .as_primitive::<IntervalMonthDayNanoType>()
                .iter()
                .map(|v| v.map(step))
                .collect()
        }
        Some(array) => cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
    };
    let mut elements = 0_i128;
    for row in 0..rows {
        if start.is_valid(row) && stop.is_valid(row) && steps.is_valid(row) {
            let span = i128::from(stop.value(row)) - i128::from(start.value(row));
            // a step of zero, or one shorter than a tick, is the function's own error to make, or the finest series there is
            let step = match i128::from(steps.value(row)) {
                0 => 1,
                step => step,
            };
            elements = elements.saturating_add((span / step).max(0));
        }
    }
    Ok(elements)
}

const DAY_NS: i128 = 86_400_000_000_000;

/// Length of one unit of a time type.
fn tick_ns(data_type: &DataType) -> i128 {
    use arrow::datatypes::TimeUnit;
    match data_type {
        DataType::Date32 => DAY_NS,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{principal, service};
    use super::*;

    async fn run(sql: &str) -> Result<i64, SqlError> {
        let rows = service().execute(&principal(), sql, &[]).await?.collect().await?;
        Ok(rows[0].column(0).as_primitive::<Int64Type>().value(0))
    }

    #[tokio::test]
    async fn much_out_of_little_is_refused_in_no_time() {
        let start = std::time::Instant::now();
        for sql in [
            "SELECT length(repeat('x', 800000000))",
            "SELECT length(repeat(repeat('x', 1000000), 1000000))",
            "SELECT length(lpad('x', 2000000000, 'y'))",
            "SELECT length(rpad(hardware_id, 2000000000, 'y')) FROM latest",
            "SELECT array_length(range(0, 100000000000))",
            "SELECT array_length(generate_series(1, 9223372036854775807))",
            "SELECT array_length(generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2070-01-01', INTERVAL '1 millisecond'))",
            "SELECT array_length(array_repeat(1, 100000000000))",
        ] {
            let answer = run(sql).await;
            assert!(matches!(answer, Err(SqlError::Memory { .. })), "{sql}: {answer:?}");
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(20));
    }

    #[tokio::test]
    async fn everyday_use_goes_on() {
        for (sql, expected) in [
            ("SELECT CAST(length(repeat('ab', 500)) AS BIGINT)", 1000),
            ("SELECT CAST(length(lpad('7', 3, '0')) AS BIGINT)", 3),
            ("SELECT CAST(array_length(range(5)) AS BIGINT)", 5),
            (
                "SELECT CAST(array_length(generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2027-01-01', INTERVAL '15 minutes')) AS BIGINT)",
                35041,
            ),
            (
                "SELECT CAST(array_length(generate_series(DATE '2026-01-01', DATE '2026-12-01', INTERVAL '1 month')) AS BIGINT)",
                12,
            ),
            ("SELECT count(*) FROM generate_series(1, 1000)", 1000),
        ] {
            assert_eq!(run(sql).await, Ok(expected), "{sql}");
        }
    }
}
