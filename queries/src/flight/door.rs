//! Lets callers in: every call but the handshake needs credentials, and everything behind this file knows its principal.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::Any;
use arrow_flight::{
    Action, BasicAuth, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    SchemaResult, Ticket,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::service::FlightSql;
use crate::auth::{AuthError, Authenticator, Principal};

/// A failed login is answered this late, which makes guessing slow.
const LOGIN_FAILURE_DELAY: Duration = Duration::from_millis(250);
/// Where clients of the oldest kind put the token they got from the handshake.
const OLD_TOKEN_HEADER: &str = "auth-token-bin";

/// The Flight service: authentication around [`FlightSql`].
#[derive(Debug)]
pub(super) struct Door {
    sql: FlightSql,
    auth: Arc<Authenticator>,
}

impl Door {
    pub(super) fn new(sql: FlightSql, auth: Arc<Authenticator>) -> Self {
        Self { sql, auth }
    }

    /// The request with its principal, or a refusal.
    async fn admit<T>(&self, mut request: Request<T>) -> Result<Request<T>, Status> {
        let principal = match self.principal(request.metadata()) {
            Ok(principal) => principal,
            Err(error) => return Err(refusal(&error).await),
        };
        request.extensions_mut().insert(principal);
        Ok(request)
    }

    fn principal(&self, metadata: &MetadataMap) -> Result<Principal, AuthError> {
        if let Some(header) = metadata.get("authorization") {
            return self.auth.authorize(header.to_str().ok());
        }
        let token = metadata.get_bin(OLD_TOKEN_HEADER).and_then(|value| value.to_bytes().ok());
        match token.as_ref().map(|token| std::str::from_utf8(token)) {
            Some(Ok(token)) => self.auth.bearer(token),
            Some(Err(_)) => Err(AuthError::InvalidToken),
            None => Err(AuthError::Missing),
        }
    }

    /// Credentials of a handshake: in the header, or in the first message as the oldest clients send them.
    async fn log_in(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Principal, AuthError> {
        if request.metadata().contains_key("authorization") {
            return self.principal(request.metadata());
        }
        let Some(Ok(message)) = request.into_inner().next().await else {
            return Err(AuthError::Missing);
        };
        let credentials = BasicAuth::decode(message.payload).map_err(|_| AuthError::Malformed)?;
        if credentials.username.is_empty() {
            return Err(AuthError::Missing);
        }
        self.auth.basic(&credentials.username, &credentials.password)
    }
}

async fn refusal(error: &AuthError) -> Status {
    if *error == AuthError::WrongPassword {
        tokio::time::sleep(LOGIN_FAILURE_DELAY).await;
    }
    Status::unauthenticated(error.to_string())
}

#[tonic::async_trait]
impl FlightService for Door {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = <FlightSql as FlightService>::DoGetStream;
    type DoPutStream = <FlightSql as FlightService>::DoPutStream;
    type DoActionStream = <FlightSql as FlightService>::DoActionStream;
    type ListActionsStream = <FlightSql as FlightService>::ListActionsStream;
    type DoExchangeStream = <FlightSql as FlightService>::DoExchangeStream;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        let principal = match self.log_in(request).await {
            Ok(principal) => principal,
            Err(error) => return Err(refusal(&error).await),
        };
        let token = self.auth.issue(&principal);
        let header = format!("Bearer {token}")
            .parse()
            .map_err(|_| Status::internal("the token does not fit a header"))?;
        let answer = HandshakeResponse {
            protocol_version: 0,
            payload: token.into(),
        };
        let mut response: Response<Self::HandshakeStream> = Response::new(futures::stream::iter([Ok(answer)]).boxed());
        response.metadata_mut().insert("authorization", header);
        Ok(response)
    }

    /// There are no flights but those of statements.
    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.admit(request).await?;
        Ok(Response::new(futures::stream::empty().boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let request = self.admit(request).await?;
        check_command(&request.get_ref().cmd)?;
        self.sql.get_flight_info(request).await
    }

    /// Statements start when their rows are fetched, so the information is complete at once.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let request = self.admit(request).await?;
        check_command(&request.get_ref().cmd)?;
        let info = self.sql.get_flight_info(request).await?.into_inner();
        Ok(Response::new(PollInfo {
            info: Some(info),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let request = self.admit(request).await?;
        check_command(&request.get_ref().cmd)?;
        let info = self.sql.get_flight_info(request).await?.into_inner();
        Ok(Response::new(SchemaResult { schema: info.schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let request = self.admit(request).await?;
        check_command(&request.get_ref().ticket)?;
        self.sql.do_get(request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let request = self.admit(request).await?;
        self.sql.do_put(request).await
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        let request = self.admit(request).await?;
        self.sql.do_exchange(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let request = self.admit(request).await?;
        self.sql.do_action(request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let request = self.admit(request).await?;
        self.sql.list_actions(request).await
    }
}

/// A command must be a Flight SQL message; the protocol crate would call anything else an internal error.
fn check_command(bytes: &[u8]) -> Result<(), Status> {
    let good = Any::decode(bytes).is_ok_and(|any| any.type_url.starts_with("type.googleapis.com/arrow.flight.protocol.sql."));
    if good {
        Ok(())
    } else {
        Err(Status::invalid_argument(
            "this server speaks Flight SQL; the command is no Flight SQL message",
        ))
    }
}
