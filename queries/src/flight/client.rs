//! A small Flight SQL client: what the command line and the demo's check need.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::MESSAGE_LEN_MAX;

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Why a query gives no rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL is none, or the server cannot be reached.
    #[error("{url} cannot be reached: {reason}")]
    Connect {
        /// The URL.
        url: String,
        /// What the transport says.
        reason: String,
    },
    /// User or password were refused.
    #[error("the login was refused: {reason}")]
    Login {
        /// What the server says.
        reason: String,
    },
    /// The server refused the statement or failed.
    #[error("{reason}")]
    Query {
        /// What the server says.
        reason: String,
    },
}

/// A connection, logged in.
#[derive(Debug)]
pub struct Client {
    inner: FlightSqlServiceClient<Channel>,
}

/// The rows of a query, all of them.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Their schema, also when there are none.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

impl Client {
    /// Connects to `http://host:port` or `https://host:port` and logs in.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(url: &str, user: &str, password: &str) -> Result<Self, ClientError> {
        Self::connect_trusting(url, user, password, None).await
    }

    /// The same, trusting the certificates that this authority (PEM) has signed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect_trusting(url: &str, user: &str, password: &str, ca_pem: Option<&[u8]>) -> Result<Self, ClientError> {
        let failed = |e: &dyn std::error::Error| ClientError::Connect {
            url: url.to_owned(),
            reason: innermost(e),
        };
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|e| failed(&e))?
            .connect_timeout(CONNECT_TIME);
        if url.starts_with("https:") {
            let tls = ca_pem.map_or_else(ClientTlsConfig::new, |pem| {
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            });
            endpoint = endpoint.tls_config(tls).map_err(|e| failed(&e))?;
        }
        let channel = endpoint.connect().await.map_err(|e| failed(&e))?;
        let service = arrow_flight::flight_service_client::FlightServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX);
        let mut inner = FlightSqlServiceClient::new_from_inner(service);
        inner
            .handshake(user, password)
            .await
            .map_err(|e| ClientError::Login { reason: said(&e) })?;
        Ok(Self { inner })
    }

    /// Runs a statement and fetches all rows.
    ///
    /// # Errors
    /// [`ClientError::Query`] with the server's words.
    pub async fn query(&mut self, sql: &str) -> Result<QueryResult, ClientError> {
        let info = self
            .inner
            .execute(sql.to_owned(), None)
            .await
            .map_err(|e| ClientError::Query { reason: said(&e) })?;
        let mut schema = None;
        let mut batches = Vec::new();
        for endpoint in &info.endpoint {
            let Some(ticket) = endpoint.ticket.clone() else { continue };
            let mut rows = self
                .inner
                .do_get(ticket)
                .await
                .map_err(|e| ClientError::Query { reason: said(&e) })?;
            while let Some(batch) = rows.try_next().await.map_err(|e| ClientError::Query { reason: said(&e) })? {
                batches.push(batch);
            }
            schema = schema.or_else(|| rows.schema().cloned());
        }
        let schema = match schema {
            Some(schema) => schema,
            None => Arc::new(info.try_decode_schema().map_err(|e| ClientError::Query { reason: e.to_string() })?),
        };
        Ok(QueryResult { schema, batches })
    }
}

/// The server's sentence, without the wrapping of the layers between.
fn said(error: &FlightError) -> String {
    match error {
        FlightError::Tonic(status) => status.message().to_owned(),
        FlightError::Arrow(ArrowError::ExternalError(inner)) => match inner.downcast_ref::<FlightError>() {
            Some(error) => said(error),
            None => inner.to_string(),
        },
        // The handshake puts the status into a text: `status: Unauthenticated, message: "…", details: …`.
        FlightError::Arrow(error) => {
            let text = error.to_string();
            let message = text
                .split_once("message: \"")
                .and_then(|(_, rest)| rest.split_once('"'))
                .map(|(message, _)| message.to_owned());
            message.unwrap_or(text)
        }
        other => other.to_string(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
