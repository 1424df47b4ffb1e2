//! One SQL statement of one principal: checked, planned and run under limits, on threads of its own.
//!
//! Everything that reads goes through [`SqlService`]: Flight SQL, REST and the command line. It only reads: statements that define or
//! change anything are refused before they are planned any further. Planning and running happen in one task under one deadline, since
//! planning folds constants and so may be the dear part.

mod error;
mod functions;
mod limits;
mod placeholders;
mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SQLOptions, SessionConfig};
pub use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::auth::Principal;
use crate::catalog::{CATALOG, HistorySource, QueryCatalog, TableListing, conform_batch, plain_type};
use crate::live::LiveStore;

pub use error::SqlError;
pub use functions::{ELEMENTS_MADE_MAX, TEXT_MADE_BYTES_MAX};
pub use limits::{
    MEMORY_PER_STATEMENT_BYTES, PARAMETERS_MAX, SPILL_BYTES_MAX, SQL_LEN_MAX, STATEMENT_SECONDS_MAX, STATEMENTS_CONCURRENT_MAX,
    STATEMENTS_WAITING_MAX, SqlLimits,
};
pub use rows::SqlRows;

/// Batches that may wait between a running statement and its reader.
const BATCHES_AHEAD: usize = 4;

/// A checked statement: what it gives and what it wants.
#[derive(Debug, Clone)]
pub struct PreparedSql {
    /// The statement, its `?` rewritten to `$1`, `$2`, ….
    pub sql: String,
    /// The rows it gives. A column whose type depends on a parameter has type Null.
    pub schema: SchemaRef,
    /// Its parameters, named `$1`, `$2`, …, in order. Text when nothing says what they are.
    pub parameters: SchemaRef,
}

/// Runs SQL.
#[derive(Debug)]
pub struct SqlService {
    live: Arc<LiveStore>,
    history: Arc<dyn HistorySource>,
    limits: SqlLimits,
    template: SessionState,
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// Queries get threads of their own, so that a statement that hogs one cannot slow the doors. Always there until drop.
    runtime: Option<Runtime>,
}

impl Drop for SqlService {
    fn drop(&mut self) {
        // A runtime must not be dropped where it would block, and the last owner of the service may be an async task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl SqlService {
    /// A service over live views and history.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when threads or the spill directory cannot be made.
    pub fn new(live: Arc<LiveStore>, history: Arc<dyn HistorySource>, limits: SqlLimits) -> Result<Self, SqlError> {
        let start = |e: &dyn std::fmt::Display| SqlError::Internal {
            detail: format!("the SQL service cannot start: {e}"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits.threads.max(1))
            .thread_name("flexmeter-sql")
            .enable_all()
            .build()
            .map_err(|e| start(&e))?;
        let environment = RuntimeEnvBuilder::new()
            .with_max_temp_directory_size(SPILL_BYTES_MAX)
            .build_arc()
            .map_err(|e| start(&e))?;
        let mut template = SessionStateBuilder::new()
            .with_config(session_config(&limits))
            .with_runtime_env(environment)
            .with_default_features()
            .build();
        functions::restrict(&mut template).map_err(|e| start(&e))?;
        let running = Arc::new(Semaphore::new(limits.concurrent.max(1)));
        Ok(Self {
            live,
            history,
            limits,
            template,
            running,
            waiting: Arc::default(),
            runtime: Some(runtime),
        })
    }

    /// The limits statements run under.
    #[must_use]
    pub fn limits(&self) -> &SqlLimits {
        &self.limits
    }

    /// The live views queries read.
    #[must_use]
    pub fn live(&self) -> &Arc<LiveStore> {
        &self.live
    }

    /// Checks and plans a statement without running it.
    ///
    /// # Errors
    /// [`SqlError`], ready to be shown to the one who wrote the statement.
    pub async fn prepare(&self, principal: &Principal, sql: &str) -> Result<PreparedSql, SqlError> {
        let sql = rewritten(sql)?;
        let session = self.session(principal)?;
        self.answer(async move {
            let plan = session.plan(&sql).await?;
            Ok(PreparedSql {
                schema: client_schema(&plan),
                parameters: parameter_schema(&plan)?,
                sql,
            })
        })
        .await
    }

    /// The schema of the rows that a statement gives with these values.
    ///
    /// # Errors
    /// [`SqlError`], ready to be shown to the one who wrote the statement.
    pub async fn describe(&self, principal: &Principal, sql: &str, parameters: &[ScalarValue]) -> Result<SchemaRef, SqlError> {
        let sql = rewritten(sql)?;
        let session = self.session(principal)?;
        let values = parameters.to_vec();
        self.answer(async move { Ok(client_schema(&session.plan_with(&sql, values).await?)) })
            .await
    }

    /// The tables a principal sees, `information_schema` among them.
    ///
    /// # Errors
    /// [`SqlError::Internal`].
    pub async fn tables(&self, principal: &Principal) -> Result<Vec<TableListing>, SqlError> {
        let live = self.live.snapshot(&principal.tenant);
        let catalog = QueryCatalog::new(principal.tenant.clone(), live, self.history.clone());
        Ok(catalog.listing().await?)
    }

    /// Plans something on the query threads and waits for it.
    async fn answer<T: Send + 'static>(&self, task: impl Future<Output = Result<T, SqlError>> + Send + 'static) -> Result<T, SqlError> {
        let deadline = Instant::now() + self.limits.statement_time;
        let (sender, receiver) = oneshot::channel();
        let _work = self.spawn(deadline, async move {
            // An error means that nobody waits for the answer any more.
            let _ = sender.send(task.await);
        })?;
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(SqlError::crashed()),
            Err(_) => Err(SqlError::deadline(&self.limits)),
        }
    }

    /// Plans and runs a statement. The schema is known when this returns; the rows follow as they are made. Dropping the rows stops
    /// the statement.
    ///
    /// # Errors
    /// [`SqlError`], ready to be shown to the one who wrote the statement; the row stream gives the same.
    pub async fn execute(&self, principal: &Principal, sql: &str, parameters: &[ScalarValue]) -> Result<SqlRows, SqlError> {
        let sql = rewritten(sql)?;
        if parameters.len() > PARAMETERS_MAX {
            return Err(SqlError::Parameters {
                detail: format!("{} parameters, the limit is {PARAMETERS_MAX}", parameters.len()),
            });
        }
        let session = self.session(principal)?;
        let values = parameters.to_vec();
        let deadline = Instant::now() + self.limits.statement_time;
        let (rows_sender, rows) = mpsc::channel(BATCHES_AHEAD);
        let (schema_sender, schema) = oneshot::channel();
        let work = self.spawn(deadline, async move {
            let started = async {
                let plan = session.plan_with(&sql, values).await?;
                let schema = client_schema(&plan);
                Ok((session.run(&plan).await?, schema))
            };
            match started.await {
                Ok((batches, schema)) => {
                    if schema_sender.send(Ok(schema.clone())).is_ok() {
                        forward(batches, &schema, &rows_sender).await;
                    }
                }
                Err(error) => {
                    let _ = schema_sender.send(Err(error));
                }
            }
        })?;
        match tokio::time::timeout_at(deadline, schema).await {
            Ok(Ok(Ok(schema))) => Ok(SqlRows::new(schema, rows, work, deadline, self.limits.clone())),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(SqlError::crashed()),
            Err(_) => Err(SqlError::deadline(&self.limits)),
        }
    }

    /// Runs work on the query threads once one of the statement slots is free. Dropping the guard stops it at its next yield; the slot
    /// is free only when it really has stopped.
    fn spawn(&self, deadline: Instant, work: impl Future<Output = ()> + Send + 'static) -> Result<rows::Work, SqlError> {
        let runtime = self.runtime.as_ref().ok_or_else(SqlError::crashed)?;
        if self.waiting.load(Ordering::Relaxed) >= STATEMENTS_WAITING_MAX {
            return Err(SqlError::Busy);
        }
        let waiting = limits::Waiting::new(&self.waiting);
        let running = self.running.clone();
        let task = runtime.spawn(async move {
            let slot = tokio::time::timeout_at(deadline, running.acquire_owned()).await;
            drop(waiting);
            if let Ok(Ok(_slot)) = slot {
                // A reader that does not read must not keep the slot for ever either.
                let _ = tokio::time::timeout_at(deadline, work).await;
            }
        });
        metrics::counter!("flexmeter_sql_statements_total").increment(1);
        Ok(rows::Work(task))
    }

    /// A session with a catalog of its own: the principal's tenant, at this moment. What is dear to make comes from the template.
    fn session(&self, principal: &Principal) -> Result<QuerySession, SqlError> {
        let live = self.live.snapshot(&principal.tenant);
        let catalog = QueryCatalog::new(principal.tenant.clone(), live, self.history.clone());
        let mut state = self.template.clone();
        // fixes what now() gives, for all of the statement
        state.mark_start_execution();
        state.register_catalog_list(Arc::new(catalog));
        let names = &mut state.config_mut().options_mut().catalog;
        names.default_catalog = CATALOG.to_owned();
        names.default_schema = principal.tenant.to_string();
        // A memory pool of its own; files, their caches and the spill directory are shared.
        let environment = RuntimeEnvBuilder::from_runtime_env(state.runtime_env())
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(self.limits.memory_bytes)))
            .build_arc()?;
        let task = TaskContext::new(
            None,
            state.session_id().to_owned(),
            state.config().clone(),
            state.scalar_functions().clone(),
            state.higher_order_functions().clone(),
            state.aggregate_functions().clone(),
            state.window_functions().clone(),
            environment,
        );
        Ok(QuerySession {
            state,
            task: Arc::new(task),
        })
    }
}

struct QuerySession {
    state: SessionState,
    task: Arc<TaskContext>,
}

impl QuerySession {
    async fn plan(&self, sql: &str) -> Result<LogicalPlan, SqlError> {
        let state = &self.state;
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect)?;
        functions::check_statement(&statement)?;
        let plan = state.statement_to_plan(statement).await?;
        let options = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        options.verify_plan(&plan).map_err(|e| SqlError::ReadOnly {
            detail: error::first_line(&e.strip_backtrace()),
        })?;
        Ok(plan)
    }

    async fn plan_with(&self, sql: &str, values: Vec<ScalarValue>) -> Result<LogicalPlan, SqlError> {
        let plan = self.plan(sql).await?;
        let (wanted, given) = (parameter_schema(&plan)?.fields().len(), values.len());
        if wanted != given {
            return Err(SqlError::Parameters {
                detail: format!("the statement has {wanted} parameters, {given} values were given"),
            });
        }
        if values.is_empty() {
            Ok(plan)
        } else {
            Ok(plan.with_param_values(ParamValues::from(values))?)
        }
    }

    async fn run(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream, SqlError> {
        let physical = self.state.create_physical_plan(plan).await?;
        Ok(execute_stream(physical, self.task.clone())?)
    }
}

async fn forward(mut batches: SendableRecordBatchStream, schema: &SchemaRef, rows: &mpsc::Sender<rows::Sent>) {
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(SqlError::from).and_then(|b| Ok(Some(conform_batch(&b, schema)?)));
        let failed = batch.is_err();
        if rows.send(batch).await.is_err() || failed {
            return;
        }
    }
    // An error means that the reader has left.
    let _ = rows.send(Ok(None)).await;
}

fn session_config(limits: &SqlLimits) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(limits.target_partitions.max(1))
        .with_create_default_catalog_and_schema(false)
        // ours is in the catalog, without the server's settings
        .with_information_schema(false);
    let options = config.options_mut();
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    // CAST(x AS VARCHAR) gives what clients are promised anyway: plain strings.
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

fn rewritten(sql: &str) -> Result<String, SqlError> {
    if sql.len() > SQL_LEN_MAX {
        return Err(SqlError::TooLong { len: sql.len() });
    }
    placeholders::numbered(sql)
}

/// What a client is told about the rows: plain types, and every column nullable, because an outer join or a parameter can make it so
/// and a promise that the stream then breaks is worse than none.
fn client_schema(plan: &LogicalPlan) -> SchemaRef {
    let fields = plan
        .schema()
        .fields()
        .iter()
        .map(|f| Field::new(f.name(), plain_type(f.data_type()), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn parameter_schema(plan: &LogicalPlan) -> Result<SchemaRef, SqlError> {
    let mut types = plan.get_parameter_types()?;
    // The planner does not say what LIMIT and OFFSET count with.
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for expr in [&limit.skip, &limit.fetch].into_iter().flatten() {
                if let Expr::Placeholder(placeholder) = expr.as_ref() {
                    types.insert(placeholder.id.clone(), Some(DataType::Int64));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut numbered = Vec::with_capacity(types.len());
    for (name, data_type) in types {
        let number: usize = name.trim_start_matches('$').parse().map_err(|_| SqlError::Parameters {
            detail: format!("parameters are written ? or $1, $2, …; {name} is neither"),
        })?;
        numbered.push((number, data_type.map_or(DataType::Utf8, |t| plain_type(&t))));
    }
    numbered.sort_by_key(|(number, _)| *number);
    if let Some(missing) = numbered.iter().enumerate().find(|(i, (number, _))| i + 1 != *number) {
        return Err(SqlError::Parameters {
            detail: format!("the parameters have a gap: ${} is not used", missing.0 + 1),
        });
    }
    let fields = numbered
        .into_iter()
        .map(|(number, data_type)| Field::new(format!("${number}"), data_type, true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
