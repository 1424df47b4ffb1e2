//! The accept loop: connections are counted, must send their request heads in time, and are let finish when the server stops.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::limits::{CONNECTIONS_MAX, HEADER_READ_TIMEOUT};
use super::{RestConfig, RestState, router};

/// Pause after a failed accept: usually the process is out of file descriptors, and asking again at once would not give it one.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Why the REST door cannot be open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestError {
    /// The listener has no address.
    #[error("the REST listener has no local address: {0}")]
    Listener(#[source] io::Error),
    /// Passwords would travel in the clear.
    #[error("REST has no TLS of its own and would listen on {address}, which is not loopback; listen on 127.0.0.1 behind a proxy with TLS")]
    NotLoopback {
        /// Where it would have listened.
        address: SocketAddr,
    },
}

/// Serves REST on the listener until `shutdown` completes; then lets open requests finish for a moment.
///
/// # Errors
/// [`RestError`] when the listener must not be served.
pub async fn serve(
    config: RestConfig,
    listener: TcpListener,
    state: RestState,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RestError> {
    let address = listener.local_addr().map_err(RestError::Listener)?;
    if !address.ip().is_loopback() {
        return Err(RestError::NotLoopback { address });
    }
    let grace = config.shutdown_grace;
    let (router, counter) = router(config, state);
    let mut connections = JoinSet::new();
    tracing::info!(%address, "REST is open");
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => { connections.spawn(connection(stream, router.clone(), counter.closing.subscribe())); }
                Err(error) => {
                    tracing::warn!(%error, "REST cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    counter.closing.send_replace(true);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finish).await.is_err() {
        tracing::warn!(n_connections = connections.len(), "REST closes connections that have not finished");
        connections.shutdown().await;
    }
    Ok(())
}

/// Completes when the server closes. (What the watch lends must not live across an await, so it ends in here.)
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn connection(stream: TcpStream, router: Router, mut closing: watch::Receiver<bool>) {
    // Events are small and should arrive at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_READ_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients hang up whenever they like.
        tracing::debug!(%error, "a connection ended early");
    }
}
