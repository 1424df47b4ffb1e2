//! The Flight SQL protocol, over [`SqlService`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightEndpoint, FlightInfo,
    IpcMessage, SchemaAsIpc, Ticket,
};
use datafusion::scalar::ScalarValue;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Request, Response, Status};

use super::statements::{PreparedStatements, RunningGuard, RunningStatements};
use super::{metadata, options, sql_info, ticket};
use crate::auth::{Authenticator, Principal};
use crate::session::{PARAMETERS_MAX, SqlError, SqlService};

/// Rows of parameter values that one run of a prepared statement takes; each row is a run of its own.
pub const PARAMETER_ROWS_MAX: usize = 1000;

const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CLOSE_SESSION: &str = "CloseSession";
const SET_SESSION_OPTIONS: &str = "SetSessionOptions";
const GET_SESSION_OPTIONS: &str = "GetSessionOptions";

/// The protocol. [`super::door::Door`] has put the principal into every request.
pub(super) struct FlightSql {
    sql: Arc<SqlService>,
    auth: Arc<Authenticator>,
    prepared: PreparedStatements,
    running: Arc<RunningStatements>,
    info: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl std::fmt::Debug for FlightSql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightSql").finish_non_exhaustive()
    }
}

type DoGet = Response<BoxStream<'static, Result<arrow_flight::FlightData, Status>>>;

impl FlightSql {
    pub(super) fn new(sql: Arc<SqlService>, auth: Arc<Authenticator>) -> Result<Self, FlightError> {
        Ok(Self {
            sql,
            auth,
            prepared: PreparedStatements::default(),
            running: Arc::default(),
            info: sql_info::sql_info()?,
            types: sql_info::type_info()?,
        })
    }

    /// Information about rows that wait behind a ticket.
    fn flight_info(schema: &Schema, ticket: Vec<u8>, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let info = FlightInfo::new()
            .try_with_schema(schema)
            .map_err(|_| Status::internal("the schema cannot be encoded"))?
            .with_descriptor(request.into_inner())
            .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket)));
        Ok(Response::new(info))
    }

    /// Metadata answers are made when they are fetched: their ticket is the command itself.
    fn command_info(
        schema: &Schema,
        command: &impl ProstMessageExt,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::flight_info(schema, command.as_any().encode_to_vec(), request)
    }

    fn statement_info(
        &self,
        principal: &Principal,
        schema: &Schema,
        sql: String,
        values: Option<&RecordBatch>,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let parameters = values.map(write_values).transpose()?.unwrap_or_default();
        let sealed = ticket::Ticket::new(principal, sql, parameters)?.seal(&self.auth);
        let command = TicketStatementQuery {
            statement_handle: sealed.into(),
        };
        Self::command_info(schema, &command, request)
    }

    /// Runs a ticket's statement, once for each row of its parameter values.
    async fn run(&self, principal: &Principal, ticket: ticket::Ticket) -> Result<DoGet, Status> {
        let guard = self.running.start(&ticket.run).ok_or_else(|| status(&SqlError::Cancelled))?;
        let mut runs = read_values(&ticket.parameters)?.into_iter();
        let first = runs
            .next()
            .ok_or_else(|| Status::invalid_argument("the parameters have no row of values"))?;
        let first = self.sql.execute(principal, &ticket.sql, &first).await.map_err(|e| status(&e))?;
        let schema = first.schema().clone();
        // One after the other: runs that wait for each other's slots would never end.
        let (sql, principal) = (self.sql.clone(), principal.clone());
        let others = futures::stream::iter(runs).then(move |values| {
            let (sql, principal, text) = (sql.clone(), principal.clone(), ticket.sql.clone());
            async move { sql.execute(&principal, &text, &values).await }
        });
        let rows = first.chain(others.flat_map(|run| match run {
            Ok(rows) => rows.boxed(),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }));
        Ok(encoded(schema, until_cancelled(guard, rows.boxed())))
    }
}

/// The principal the door has put there.
fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    request
        .extensions()
        .get::<Principal>()
        .cloned()
        .ok_or_else(|| Status::internal("the request has no principal"))
}

/// An error as Flight says it.
pub(super) fn status(error: &SqlError) -> Status {
    let text = error.to_string();
    match error {
        SqlError::Deadline { .. } => Status::deadline_exceeded(text),
        SqlError::TooManyRows { .. } | SqlError::Memory { .. } | SqlError::Busy => Status::resource_exhausted(text),
        SqlError::Cancelled => Status::cancelled(text),
        SqlError::ReadOnly { .. } => Status::permission_denied(text),
        SqlError::Internal { .. } => Status::internal(text),
        _ => Status::invalid_argument(text),
    }
}

fn read_only() -> Status {
    Status::permission_denied("SQL here is read only: data come in through MQTT, and statements can only SELECT")
}

/// Batches as Flight data: the schema first, also when no batch follows.
fn encoded(schema: SchemaRef, batches: impl futures::Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static) -> DoGet {
    let data = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(data.map_err(Status::from).boxed())
}

fn one_batch(batch: Result<RecordBatch, Status>) -> Result<DoGet, Status> {
    let batch = batch?;
    Ok(encoded(batch.schema(), futures::stream::iter([Ok(batch)])))
}

fn until_cancelled(
    guard: RunningGuard,
    rows: BoxStream<'static, Result<RecordBatch, SqlError>>,
) -> impl futures::Stream<Item = Result<RecordBatch, FlightError>> + Send {
    let failed = |error: &SqlError| FlightError::Tonic(Box::new(status(error)));
    futures::stream::unfold(Some((guard, rows)), move |state| async move {
        let (guard, mut rows) = state?;
        let next = tokio::select! {
            biased;
            () = guard.cancelled() => Some(Err(SqlError::Cancelled)),
            next = rows.next() => next,
        };
        match next? {
            Ok(batch) => Some((Ok(batch), Some((guard, rows)))),
            Err(error) => Some((Err(failed(&error)), None)),
        }
    })
}

fn write_values(values: &RecordBatch) -> Result<Vec<u8>, Status> {
    let failed = |e: arrow::error::ArrowError| Status::invalid_argument(format!("the parameters cannot be encoded: {e}"));
    let mut writer = StreamWriter::try_new(Vec::new(), &values.schema()).map_err(failed)?;
    writer.write(values).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

/// The values of each run. Without parameters there is one run without values.
fn read_values(ipc: &[u8]) -> Result<Vec<Vec<ScalarValue>>, Status> {
    if ipc.is_empty() {
        return Ok(vec![Vec::new()]);
    }
    let failed = |e: &dyn std::fmt::Display| Status::invalid_argument(format!("the parameters cannot be read: {e}"));
    let mut runs = Vec::new();
    for batch in StreamReader::try_new(ipc, None).map_err(|e| failed(&e))? {
        let batch = batch.map_err(|e| failed(&e))?;
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row));
            runs.push(values.collect::<Result<Vec<_>, _>>().map_err(|e| failed(&e))?);
        }
    }
    Ok(runs)
}

fn schema_bytes(schema: &Schema) -> Result<bytes::Bytes, Status> {
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &arrow::ipc::writer::IpcWriteOptions::default()).try_into();
    Ok(message.map_err(|_| Status::internal("the schema cannot be encoded"))?.0)
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = FlightSql;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let principal = principal(&request)?;
        let prepared = self.sql.prepare(&principal, &query.query).await.map_err(|e| status(&e))?;
        if !prepared.parameters.fields().is_empty() {
            return Err(Status::invalid_argument("the statement has parameters; prepare it and bind values"));
        }
        self.statement_info(&principal, &prepared.schema, prepared.sql, None, request)
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let principal = principal(&request)?;
        let prepared = self.prepared.get(&principal, &query.prepared_statement_handle)?;
        let statement = &prepared.statement;
        let mut schema = statement.schema.clone();
        if let Some(values) = &prepared.values {
            // The type of a column may hang on the type of a value.
            let first = read_values(&write_values(&values.slice(0, values.num_rows().min(1)))?)?;
            if let Some(first) = first.first() {
                schema = self.sql.describe(&principal, &statement.sql, first).await.map_err(|e| status(&e))?;
            }
        }
        self.statement_info(&principal, &schema, statement.sql.clone(), prepared.values.as_ref(), request)
    }

    async fn do_get_statement(&self, query: TicketStatementQuery, request: Request<Ticket>) -> Result<DoGet, Status> {
        let principal = principal(&request)?;
        let ticket = ticket::Ticket::open(&self.auth, &principal, &query.statement_handle)?;
        self.run(&principal, ticket).await
    }

    /// For clients that use the handle as a ticket.
    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, request: Request<Ticket>) -> Result<DoGet, Status> {
        let principal = principal(&request)?;
        let prepared = self.prepared.get(&principal, &query.prepared_statement_handle)?;
        let parameters = prepared.values.as_ref().map(write_values).transpose()?.unwrap_or_default();
        let ticket = ticket::Ticket::new(&principal, prepared.statement.sql.clone(), parameters)?;
        self.run(&principal, ticket).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let principal = principal(&request)?;
        let statement = self.sql.prepare(&principal, &query.query).await.map_err(|e| status(&e))?;
        let (dataset_schema, parameter_schema) = (schema_bytes(&statement.schema)?, schema_bytes(&statement.parameters)?);
        let handle = self.prepared.open(&principal, statement)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.into(),
            dataset_schema,
            parameter_schema,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.prepared.close(&principal(&request)?, &query.prepared_statement_handle);
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let principal = principal(&request)?;
        let handle = query.prepared_statement_handle;
        let data = request.into_inner().map_err(FlightError::from);
        let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
        let mut values: Option<RecordBatch> = None;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(Status::from)?;
            if batch.num_columns() > PARAMETERS_MAX {
                return Err(Status::invalid_argument(format!(
                    "{} parameters, the limit is {PARAMETERS_MAX}",
                    batch.num_columns()
                )));
            }
            let joined = match values {
                Some(before) => arrow::compute::concat_batches(&before.schema(), [&before, &batch])
                    .map_err(|e| Status::invalid_argument(format!("the parameters do not fit each other: {e}")))?,
                None => batch,
            };
            if joined.num_rows() > PARAMETER_ROWS_MAX {
                return Err(Status::invalid_argument(format!(
                    "more than {PARAMETER_ROWS_MAX} rows of parameter values"
                )));
            }
            values = Some(joined);
        }
        let values = values.ok_or_else(|| Status::invalid_argument("no parameter values were sent"))?;
        self.prepared.bind(&principal, &handle, values)?;
        Ok(DoPutPreparedStatementResult {
            prepared_statement_handle: Some(handle),
        })
    }

    async fn do_put_statement_update(&self, _: CommandStatementUpdate, _: Request<PeekableFlightDataStream>) -> Result<i64, Status> {
        Err(read_only())
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only())
    }

    async fn do_put_statement_ingest(&self, _: CommandStatementIngest, _: Request<PeekableFlightDataStream>) -> Result<i64, Status> {
        Err(read_only())
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(query.info).map_err(|_| Status::invalid_argument("the query information cannot be read"))?;
        self.cancel(&principal(&request)?, Some(info))?;
        // 1 = cancelled, in the words of the protocol
        Ok(ActionCancelQueryResult { result: 1 })
    }

    async fn do_action_fallback(&self, request: Request<Action>) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let principal = principal(&request)?;
        let Action { r#type: action, body } = request.into_inner();
        let unreadable = |_| Status::invalid_argument(format!("the body of action {action} cannot be read"));
        let answer = match action.as_str() {
            CANCEL_FLIGHT_INFO => {
                let CancelFlightInfoRequest { info } = CancelFlightInfoRequest::decode(body).map_err(unreadable)?;
                self.cancel(&principal, info)?;
                CancelFlightInfoResult {
                    status: CancelStatus::Cancelled as i32,
                }
                .encode_to_vec()
            }
            CLOSE_SESSION => options::close().encode_to_vec(),
            SET_SESSION_OPTIONS => {
                let options = options::SetSessionOptionsRequest::decode(body).map_err(unreadable)?;
                options::set(&principal, &options).encode_to_vec()
            }
            GET_SESSION_OPTIONS => options::get(&principal).encode_to_vec(),
            other => {
                return Err(Status::invalid_argument(format!(
                    "there is no action {other:?}; ListActions names them"
                )));
            }
        };
        let answer = arrow_flight::Result { body: answer.into() };
        Ok(Response::new(futures::stream::iter([Ok(answer)]).boxed()))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let actions = [
            (
                CANCEL_FLIGHT_INFO,
                "Stops a statement.\nRequest: CancelFlightInfoRequest\nResponse: CancelFlightInfoResult",
            ),
            (
                CLOSE_SESSION,
                "Ends a session.\nRequest: CloseSessionRequest\nResponse: CloseSessionResult",
            ),
            (
                SET_SESSION_OPTIONS,
                "Sets catalog and schema.\nRequest: SetSessionOptionsRequest\nResponse: SetSessionOptionsResult",
            ),
            (
                GET_SESSION_OPTIONS,
                "Tells catalog and schema.\nRequest: GetSessionOptionsRequest\nResponse: GetSessionOptionsResult",
            ),
        ];
        let action = |(name, text): (&str, &str)| {
            Ok(ActionType {
                r#type: name.to_owned(),
                description: text.to_owned(),
            })
        };
        Some(actions.map(action).into())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&query.into_builder().schema(), &query, request)
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(metadata::catalogs(query))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&query.clone().into_builder().schema(), &query, request)
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(metadata::schemas(&principal(&request)?, query))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&query.clone().into_builder().schema(), &query, request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(metadata::tables(&self.sql, &principal(&request)?, query).await)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&query.into_builder().schema(), &query, request)
    }

    async fn do_get_table_types(&self, _: CommandGetTableTypes, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(metadata::table_types())
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&self.info.schema(), &query, request)
    }

    /// An empty list of ids asks for all.
    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(query.into_builder(&self.info).build().map_err(Status::from))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&self.types.schema(), &query, request)
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(query.into_builder(&self.types).build().map_err(Status::from))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&metadata::primary_keys().schema(), &query, request)
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(Ok(metadata::primary_keys()))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&metadata::foreign_keys().schema(), &query, request)
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(Ok(metadata::foreign_keys()))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&metadata::foreign_keys().schema(), &query, request)
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(Ok(metadata::foreign_keys()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Self::command_info(&metadata::foreign_keys().schema(), &query, request)
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, _: Request<Ticket>) -> Result<DoGet, Status> {
        one_batch(Ok(metadata::foreign_keys()))
    }

    /// The information is complete from the start.
    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

impl FlightSql {
    /// Stops the statement whose ticket the information holds.
    fn cancel(&self, principal: &Principal, info: Option<FlightInfo>) -> Result<(), Status> {
        let missing = || Status::invalid_argument("the information names no statement that could be cancelled");
        let tickets = info
            .into_iter()
            .flat_map(|info| info.endpoint)
            .filter_map(|endpoint| endpoint.ticket);
        let mut found = false;
        for ticket in tickets {
            let any = Any::decode(ticket.ticket).map_err(|_| missing())?;
            if let Some(query) = any.unpack::<TicketStatementQuery>().map_err(|_| missing())? {
                let ticket = ticket::Ticket::open(&self.auth, principal, &query.statement_handle)?;
                self.running.cancel(&ticket.run);
                found = true;
            }
        }
        if found { Ok(()) } else { Err(missing()) }
    }
}
