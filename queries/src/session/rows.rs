//! The rows of a running statement.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use super::{SqlError, SqlLimits};

/// What a running statement sends: batches, then `None` when that was all. A channel that closes without it was cut.
pub(super) type Sent = Result<Option<RecordBatch>, SqlError>;

/// A running task that ends with this guard.
#[derive(Debug)]
pub(super) struct Work(pub(super) JoinHandle<()>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Rows of a running statement: a stream of batches that all have [`SqlRows::schema`]. After an error nothing follows. Dropping it
/// stops the statement.
#[derive(Debug)]
pub struct SqlRows {
    schema: SchemaRef,
    batches: mpsc::Receiver<Sent>,
    work: Work,
    deadline: Pin<Box<Sleep>>,
    limits: SqlLimits,
    n_rows: u64,
    ended: bool,
}

impl SqlRows {
    pub(super) fn new(schema: SchemaRef, batches: mpsc::Receiver<Sent>, work: Work, deadline: Instant, limits: SqlLimits) -> Self {
        Self {
            schema,
            batches,
            work,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            limits,
            n_rows: 0,
            ended: false,
        }
    }

    /// The schema of all batches.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All batches, in memory. For results known to be small.
    ///
    /// # Errors
    /// The first error of the statement.
    pub async fn collect(self) -> Result<Vec<RecordBatch>, SqlError> {
        futures::TryStreamExt::try_collect(self).await
    }

    fn end(&mut self, error: SqlError) -> Poll<Option<Result<RecordBatch, SqlError>>> {
        metrics::counter!("flexmeter_sql_errors_total", "code" => error.code()).increment(1);
        self.ended = true;
        self.work.0.abort();
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for SqlRows {
    type Item = Result<RecordBatch, SqlError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.batches.poll_recv(cx) {
            Poll::Ready(Some(Ok(Some(batch)))) => {
                self.n_rows += batch.num_rows() as u64;
                match self.limits.rows {
                    Some(limit) if self.n_rows > limit => self.end(SqlError::TooManyRows { limit }),
                    _ => Poll::Ready(Some(Ok(batch))),
                }
            }
            Poll::Ready(Some(Ok(None))) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.end(error),
            // A cut result must not look like a whole one: the task was stopped at the deadline, or it panicked.
            Poll::Ready(None) => {
                let late = self.deadline.deadline() <= Instant::now();
                let error = if late {
                    SqlError::deadline(&self.limits)
                } else {
                    SqlError::crashed()
                };
                self.end(error)
            }
            Poll::Pending => match self.deadline.poll_unpin(cx) {
                Poll::Ready(()) => {
                    let error = SqlError::deadline(&self.limits);
                    self.end(error)
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }
}
