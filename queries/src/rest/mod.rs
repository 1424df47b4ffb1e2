//! REST: the counter's HTTP door.
//!
//! One file a resource; what they share is at the rim: [`problem`] (errors), [`guard`] (who asks), [`limits`], [`accept`] and
//! [`encode`] (formats), [`cursor`] and [`page`] (lists). Start at [`serve`]. Values of `latest` come straight from the live store,
//! history comes through the SQL service with bound parameters; nothing here reads a file or knows the lake.

mod accept;
mod changes;
mod cursor;
mod devices;
mod encode;
pub mod grid;
mod guard;
mod health;
mod index;
mod latest;
pub mod limits;
mod load_profile;
mod login;
mod measurements;
mod openapi;
mod page;
mod parameters;
mod problem;
mod rejections;
mod server;
mod sql;
mod statement;
mod stream;
#[cfg(test)]
mod tests;
mod totals;
mod trace;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate as _, SizeAbove};
use utoipa::OpenApi as _;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::auth::Authenticator;
use crate::live::LiveStore;
use crate::session::SqlService;
use changes::ChangeFeed;
use devices::Directory;
use problem::{Code, Problem};

pub use grid::{BundleDoor, FaultDoor, LogDoor};
pub use health::{ComponentState, Health, MetricsPage, Readiness};
pub use server::{RestError, serve};

/// What can be set about the REST door; the defaults are the constants of [`limits`].
#[derive(Debug, Clone)]
pub struct RestConfig {
    /// Longest time until an answer begins.
    pub request_timeout: Duration,
    /// Most requests in work at a time.
    pub requests_max: usize,
    /// Most open event streams.
    pub streams_max: usize,
    /// Most rows of an SQL answer.
    pub sql_rows_max: usize,
    /// Longest silence of an event stream.
    pub heartbeat: Duration,
    /// How long open requests may go on after a shutdown was asked for.
    pub shutdown_grace: Duration,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            request_timeout: limits::REQUEST_TIMEOUT,
            requests_max: limits::REQUESTS_MAX,
            streams_max: limits::STREAMS_MAX,
            sql_rows_max: limits::SQL_ROWS_MAX,
            heartbeat: limits::HEARTBEAT,
            shutdown_grace: limits::SHUTDOWN_GRACE,
        }
    }
}

/// The rest of the house, as REST sees it.
#[derive(Clone)]
pub struct RestState {
    /// Runs SQL.
    pub sql: Arc<SqlService>,
    /// The live views.
    pub live: Arc<LiveStore>,
    /// Lets people in.
    pub auth: Arc<Authenticator>,
    /// Asks every part how it is.
    pub readiness: Readiness,
    /// Renders the metrics.
    pub metrics: MetricsPage,
    /// Takes what the counter itself has to say into the log.
    pub log: LogDoor,
    /// Locates faults.
    pub faults: FaultDoor,
    /// Takes other grid bundles.
    pub bundles: BundleDoor,
}

/// What all handlers share.
struct Counter {
    config: RestConfig,
    state: RestState,
    changes: Arc<ChangeFeed>,
    directory: Directory,
    openapi: Bytes,
    requests: Semaphore,
    streams: Arc<Semaphore>,
    /// True from the moment the server stops: event streams, which have no end of their own, end then.
    closing: watch::Sender<bool>,
}

impl Counter {
    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = self.streams.clone().try_acquire_owned();
        permit.map_err(|_| {
            Problem::new(
                Code::Overloaded,
                format!("{} streams are open, which is the limit", self.config.streams_max),
            )
        })
    }
}

/// The whole service.
fn router(config: RestConfig, state: RestState) -> (Router, Arc<Counter>) {
    let mut document = open_routes().into_openapi();
    document.merge(protected_routes(|route| route).into_openapi());
    let document = openapi::complete(document);
    let counter = Arc::new(Counter {
        changes: ChangeFeed::new(state.live.clone(), started_us()),
        directory: Directory::default(),
        openapi: Bytes::from(document.to_json().unwrap_or_default()),
        requests: Semaphore::new(config.requests_max),
        streams: Arc::new(Semaphore::new(config.streams_max)),
        closing: watch::Sender::new(false),
        config,
        state,
    });
    // A route's own layer, not one around its path: a method that does not exist is refused as such, whoever asks.
    let guarded = |route: Route| route.map(|methods| methods.route_layer(from_fn_with_state(counter.clone(), guard::admit)));
    let compress = DefaultPredicate::new().and(SizeAbove::new(limits::COMPRESS_LEN_MIN));
    let router = Router::from(open_routes())
        .merge(Router::from(protected_routes(guarded)))
        .fallback(problem::not_found)
        // From here on the last one added is the outermost.
        .layer(DefaultBodyLimit::max(limits::BODY_LEN_MAX))
        .layer(from_fn_with_state(counter.clone(), limits::bound))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(from_fn(limits::harden))
        .layer(from_fn(problem::render))
        .layer(from_fn(trace::follow))
        .layer(CompressionLayer::new().compress_when(compress))
        .with_state(counter.clone());
    (router, counter)
}

/// Routes that ask for no credentials.
fn open_routes() -> OpenApiRouter<Arc<Counter>> {
    OpenApiRouter::with_openapi(openapi::Api::openapi())
        .routes(routes!(index::index))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::openapi))
        .routes(routes!(login::login))
}

/// Routes that show somebody's data, each of them behind `guarded`.
fn protected_routes(guarded: impl Fn(Route) -> Route) -> OpenApiRouter<Arc<Counter>> {
    OpenApiRouter::default()
        .routes(guarded(routes!(devices::list)))
        .routes(guarded(routes!(devices::one)))
        .routes(guarded(routes!(latest::latest)))
        .routes(guarded(routes!(measurements::list)))
        .routes(guarded(routes!(load_profile::list)))
        .routes(guarded(routes!(rejections::list)))
        .routes(guarded(routes!(totals::totals)))
        .routes(
            guarded(routes!(grid::grid, grid::bundle::put))
                .map(|methods| methods.route_layer(DefaultBodyLimit::max(grid::bundle::BUNDLE_LEN_MAX))),
        )
        .routes(guarded(routes!(grid::area)))
        .routes(guarded(routes!(grid::operate)))
        .routes(guarded(routes!(grid::outages::list)))
        .routes(guarded(routes!(grid::outages::one)))
        .routes(guarded(routes!(grid::outages::acknowledge)))
        .routes(guarded(routes!(grid::outages::close)))
        .routes(guarded(routes!(grid::outages::reliability)))
        .routes(guarded(routes!(grid::reconfigurations::list)))
        .routes(guarded(routes!(grid::reconfigurations::one)))
        .routes(guarded(routes!(grid::reconfigurations::accept)))
        .routes(guarded(routes!(grid::reconfigurations::reject)))
        .routes(guarded(routes!(grid::faults::list)))
        .routes(guarded(routes!(grid::faults::one)))
        .routes(guarded(routes!(grid::faults::record)))
        .routes(guarded(routes!(sql::run)))
        .routes(guarded(routes!(stream::stream)))
}

/// One path with its methods and its part of the document.
type Route = UtoipaMethodRouter<Arc<Counter>>;

/// Tells this run of the process from others; only used to recognise our own event ids.
fn started_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}
