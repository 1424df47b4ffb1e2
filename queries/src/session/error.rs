//! Why a statement gives no rows, in words for the one who wrote it.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use super::{SQL_LEN_MAX, STATEMENTS_WAITING_MAX, SqlLimits};

/// Why a statement gives no rows. The texts may be shown to users: they hold no paths and nothing of other tenants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The text is too long to be looked at.
    #[error("the statement has {len} bytes, the limit is {SQL_LEN_MAX}")]
    TooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// It cannot be parsed or planned, or its data make it fail (a cast, a division).
    #[error("{detail}")]
    Invalid {
        /// What is wrong with it.
        detail: String,
    },
    /// It would define or change something.
    #[error("SQL here is read only: {detail}")]
    ReadOnly {
        /// What it would do.
        detail: String,
    },
    /// The parameters do not fit.
    #[error("{detail}")]
    Parameters {
        /// In which way.
        detail: String,
    },
    /// It took too long.
    #[error("the statement was stopped after {seconds} s; ask for a shorter time range or fewer columns")]
    Deadline {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// It gives too many rows.
    #[error("the statement gives more than {limit} rows; add conditions or a LIMIT")]
    TooManyRows {
        /// The limit.
        limit: u64,
    },
    /// It needs too much memory or disk.
    #[error("the statement needs more memory than it may have: {detail}")]
    Memory {
        /// Which part of it, and how much.
        detail: String,
    },
    /// Too many others are waiting.
    #[error("{STATEMENTS_WAITING_MAX} statements are waiting already; try again later")]
    Busy,
    /// Somebody cancelled it.
    #[error("the statement was cancelled")]
    Cancelled,
    /// It is not the statement's fault.
    #[error("the statement failed inside the server; the server's log has the details")]
    Internal {
        /// For the log only.
        detail: String,
    },
}

impl SqlError {
    /// A stable word for this kind of error, for problem types and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "sql_too_long",
            Self::Invalid { .. } => "sql_invalid",
            Self::ReadOnly { .. } => "sql_read_only",
            Self::Parameters { .. } => "sql_parameters",
            Self::Deadline { .. } => "sql_deadline",
            Self::TooManyRows { .. } => "sql_too_many_rows",
            Self::Memory { .. } => "sql_memory",
            Self::Busy => "sql_busy",
            Self::Cancelled => "sql_cancelled",
            Self::Internal { .. } => "sql_internal",
        }
    }

    pub(super) fn crashed() -> Self {
        Self::Internal {
            detail: "the statement's task ended without an answer".to_owned(),
        }
    }

    pub(super) fn deadline(limits: &SqlLimits) -> Self {
        Self::Deadline {
            seconds: limits.statement_time.as_secs(),
        }
    }

    fn internal(detail: String) -> Self {
        tracing::error!(%detail, "a statement failed inside the server");
        Self::Internal { detail }
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        let root = error.find_root();
        match root {
            DataFusionError::ResourcesExhausted(detail) => Self::Memory {
                detail: first_line(detail),
            },
            DataFusionError::SQL(parser, _) => Self::Invalid {
                detail: format!("syntax error: {}", first_line(&of_parser(parser))),
            },
            DataFusionError::Plan(text) | DataFusionError::Execution(text) => Self::Invalid { detail: first_line(text) },
            DataFusionError::SchemaError(..) | DataFusionError::NotImplemented(_) | DataFusionError::Configuration(_) => Self::Invalid {
                detail: first_line(&root.strip_backtrace()),
            },
            DataFusionError::ArrowError(arrow, _) => of_arrow(arrow),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<ArrowError> for SqlError {
    fn from(error: ArrowError) -> Self {
        of_arrow(&error)
    }
}

fn of_parser(error: &ParserError) -> String {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    }
}

fn of_arrow(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::ExternalError(_) | ArrowError::IoError(..) | ArrowError::ParquetError(_) | ArrowError::CDataInterface(_) => {
            SqlError::internal(error.to_string())
        }
        other => SqlError::Invalid {
            detail: first_line(&other.to_string()),
        },
    }
}

/// The first line that says something, without DataFusion's hints about itself.
pub(super) fn first_line(text: &str) -> String {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("unknown error")
        .trim()
        .to_owned()
}
