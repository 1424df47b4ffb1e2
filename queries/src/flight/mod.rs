//! Flight SQL: the door for data tools (ADBC, JDBC, DBeaver, Grafana, polars …).
//!
//! [`serve`] runs the server; [`client`] is the small client the command line uses. Inside, `door` lets callers in and answers what is
//! not SQL, `service` is the protocol, `sql_info` what the server says about itself, `metadata` which tables there are, `ticket` and
//! `statements` what lives between calls, `options` the session messages.

pub mod client;
mod door;
mod metadata;
mod options;
mod service;
mod sql_info;
mod statements;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::auth::Authenticator;
use crate::session::SqlService;
use door::Door;
use service::FlightSql;

pub use service::PARAMETER_ROWS_MAX;
pub use sql_info::SERVER_NAME;
pub use statements::{PREPARED_IDLE, PREPARED_MAX};
pub use ticket::TICKET_LIFETIME;

/// Largest message in either direction, in bytes (64 MiB).
pub const MESSAGE_LEN_MAX: usize = 64 * 1024 * 1024;
/// How long calls that run may go on after the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Silent connections are asked for a sign of life this often.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How the server is reached.
#[derive(Debug, Clone, Default)]
pub struct FlightConfig {
    /// TLS; `None` on loopback only, `src` sees to that.
    pub tls: Option<FlightTls>,
}

/// Certificates, PEM.
#[derive(Clone)]
pub struct FlightTls {
    /// The server's certificate chain.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
    /// Clients must show a certificate signed by this authority.
    pub client_ca_pem: Option<Vec<u8>>,
}

impl std::fmt::Debug for FlightTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightTls")
            .field("client_ca", &self.client_ca_pem.is_some())
            .finish_non_exhaustive()
    }
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The certificates do not work, or the transport failed.
    #[error("the Flight SQL server cannot run; check its certificate, key and listen address")]
    Transport(#[from] tonic::transport::Error),
    /// A part of the server's own description is broken, which is a defect.
    #[error("the Flight SQL server cannot describe itself")]
    Description(#[from] arrow_flight::error::FlightError),
}

/// Serves Flight SQL on `listener` until `shutdown` is ready; calls that run get five seconds more.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    config: FlightConfig,
    listener: TcpListener,
    sql: Arc<SqlService>,
    auth: Arc<Authenticator>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let service = FlightServiceServer::new(Door::new(FlightSql::new(sql, auth.clone())?, auth))
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    let mut server = Server::builder().http2_keepalive_interval(Some(KEEPALIVE));
    if let Some(tls) = config.tls {
        let mut tls_config = ServerTlsConfig::new().identity(Identity::from_pem(tls.certificate_pem, tls.key_pem));
        if let Some(ca) = tls.client_ca_pem {
            tls_config = tls_config.client_ca_root(Certificate::from_pem(ca));
        }
        server = server.tls_config(tls_config)?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // An error means that the server has ended by itself.
        let _ = stopping.send(());
    };
    let grace = async move {
        match stopped.await {
            Ok(()) => tokio::time::sleep(SHUTDOWN_GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = server.add_service(service).serve_with_incoming_shutdown(incoming, shutdown) => Ok(served?),
        () = grace => Ok(()),
    }
}

#[cfg(test)]
mod tests;
