//! `flexmeter up`: starts the roles of this process and joins them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwapOption;
use datafusion::catalog::TableProvider;
use flexmeter_connectors::lake::Lake;
use flexmeter_connectors::log::{self, InboundLog, NewRecord};
use flexmeter_connectors::mqtt::Broker;
use flexmeter_connectors::mqtt::login::{Logins, PlatformKey};
use flexmeter_model::TenantId;
use flexmeter_model::message::DeviceMessage;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::record::{PAYLOAD_LEN_MAX, RecordKind};
use flexmeter_queries::auth::{AuthConfig, Authenticator};
use flexmeter_queries::catalog::{HistorySource, HistoryView};
use flexmeter_queries::flight::{FlightConfig, FlightTls};
use flexmeter_queries::live::LiveStore;
use flexmeter_queries::rest::{ComponentState, Health, LogDoor, RestConfig, RestState};
use flexmeter_queries::session::{SqlLimits, SqlService};
use flexmeter_queries::{flight, rest};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;

use crate::checkpoint::CheckpointStore;
use crate::cli::Role;
use crate::config::{Config, ConfigError, UnknownDevices};
use crate::fault_door::fault_door;
use crate::grid_book::GridBook;
use crate::grid_topics::{self, GridNews};
use crate::pipeline::{self, Parts, Progress};
use crate::secrets::Secrets;
use crate::supervision::{Street, told_to_stop_within};

/// How long a clean stop may take before we leave anyway.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A publish leaves a sample or two, so this many seconds' worth of them is what the metrics hold.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs the roles until the process is told to stop.
pub(crate) fn run(config: Config, roles: &[Role], json: bool) -> anyhow::Result<ExitCode> {
    let roles = Roles::new(roles)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut stop_signal = std::pin::pin!(stop_signal()?);
        let platform = tokio::select! {
            platform = Platform::start(config, roles) => platform?,
            name = &mut stop_signal => {
                eprintln!("stopped by {name} while starting");
                return Ok(ExitCode::SUCCESS);
            }
        };
        announce(&platform, json)?;
        let name = stop_signal.await;
        tracing::info!("{name}: stopping");
        let again = self::stop_signal()?;
        tokio::select! {
            () = platform.stop() => Ok(ExitCode::SUCCESS),
            name = again => bail!("stopped at once by a second {name}; {REPLAYED}"),
            () = tokio::time::sleep(STOP_PATIENCE) => bail!("not stopped after {} s; {REPLAYED}", STOP_PATIENCE.as_secs()),
        }
    });
    // whatever still hangs (a disk, a cluster) must not keep the process
    runtime.shutdown_background();
    outcome
}

const REPLAYED: &str = "nothing acknowledged is lost, the next start replays the log";

/// The roles of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roles {
    bridge: bool,
    engine: bool,
}

impl Roles {
    /// Every role.
    pub(crate) const ALL: Self = Self {
        bridge: true,
        engine: true,
    };

    fn new(roles: &[Role]) -> Result<Self, ConfigError> {
        let has = |role| roles.contains(&role) || roles.contains(&Role::All);
        if roles.contains(&Role::Gateway) {
            return Err(ConfigError::Role {
                role: "gateway",
                reason: "is not part of this version; devices speak MQTT to role bridge",
            });
        }
        if has(Role::Serve) && !has(Role::Engine) {
            return Err(ConfigError::Role {
                role: "serve",
                reason: "needs role engine in the same process in this version: --role engine --role serve",
            });
        }
        Ok(Self {
            bridge: has(Role::Bridge),
            engine: has(Role::Engine),
        })
    }
}

fn stop_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

fn announce(platform: &Platform, json: bool) -> anyhow::Result<()> {
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    let (mqtt, rest, flight) = (text(platform.mqtt), text(platform.rest), text(platform.flight));
    if json {
        let mut line = serde_json::json!({ "ready": true, "mqtt": mqtt, "rest": rest, "flight": flight });
        if let Some(password) = &platform.fresh_admin_password {
            line["adminPassword"] = password.as_str().into();
        }
        println!("{line}");
    } else {
        for (what, address) in [
            ("MQTT       mqtt://", mqtt),
            ("REST       http://", rest),
            ("Flight SQL grpc://", flight),
        ] {
            if let Some(address) = address {
                println!("{what}{address}");
            }
        }
        if let Some(password) = &platform.fresh_admin_password {
            println!("user admin, password {password}   (made now and shown only once; keep it)");
        }
        println!("ready");
    }
    std::io::Write::flush(&mut std::io::stdout())?;
    Ok(())
}

/// A running platform: the roles of one process, joined.
pub(crate) struct Platform {
    /// Where the MQTT broker listens.
    pub(crate) mqtt: Option<SocketAddr>,
    /// Where REST listens.
    pub(crate) rest: Option<SocketAddr>,
    /// Where Flight SQL listens.
    pub(crate) flight: Option<SocketAddr>,
    /// The admin's password, if it was made at this start.
    pub(crate) fresh_admin_password: Option<String>,
    log: Arc<dyn InboundLog>,
    broker: Option<Arc<Broker>>,
    /// Publishes what the grid engine says; holds the broker.
    grid_topics: Option<tokio::task::JoinHandle<()>>,
    street: Option<Street>,
    stop: watch::Sender<bool>,
    servers: Vec<tokio::task::JoinHandle<()>>,
}

impl Platform {
    /// Starts the roles; returns when everything listens and what was in the log has been applied.
    pub(crate) async fn start(config: Config, roles: Roles) -> anyhow::Result<Self> {
        let book = match roles.engine {
            true => GridBook::open(&config)?,
            false => GridBook::empty(&config),
        };
        std::fs::create_dir_all(&config.data_dir).with_context(|| format!("cannot create data_dir {}", config.data_dir.display()))?;
        let secrets = if config.insecure {
            Secrets::insecure()?
        } else {
            Secrets::open(&config.data_dir, config.auth.admin_password_file.as_deref())?
        };
        let metrics = install_metrics()?;
        let news = Arc::new(GridNews::new(roles.bridge));
        let log = log::open(&config.log, &config.data_dir)
            .await
            .context("the inbound log does not open")?;
        let (stop, stopped) = watch::channel(false);
        let upkeep = tokio::spawn(keep_metrics_small(metrics.clone(), stopped.clone()));
        let mut platform = Self {
            mqtt: None,
            rest: None,
            flight: None,
            fresh_admin_password: secrets.fresh_admin_password.clone(),
            log: Arc::clone(&log),
            broker: None,
            grid_topics: None,
            street: None,
            stop,
            servers: vec![upkeep],
        };
        if roles.engine {
            platform
                .start_engine(&config, &book, &news, &secrets, metrics, stopped.clone())
                .await?;
        }
        if roles.bridge {
            let check = Arc::clone(&secrets.check);
            let logins = if config.insecure {
                Logins::insecure()
            } else {
                Logins::secure(
                    PlatformKey::new(&secrets.platform_key)?,
                    Arc::new(move |user, password| check(user, password)),
                )
            };
            let broker = Broker::start(config.mqtt.clone(), Arc::clone(&log), logins)
                .await
                .context("the MQTT broker does not start")?;
            let broker = Arc::new(broker);
            platform.mqtt = Some(broker.local_addr());
            platform.broker = Some(Arc::clone(&broker));
            if roles.engine {
                platform.grid_topics = Some(tokio::spawn(grid_topics::publish(news, book, broker)));
            }
            platform.servers.push(tokio::spawn(beat(
                Arc::clone(&log),
                Duration::from_secs(config.engine.heartbeat_s),
                stopped,
            )));
        }
        Ok(platform)
    }

    async fn start_engine(
        &mut self,
        config: &Config,
        book: &Arc<GridBook>,
        news: &Arc<GridNews>,
        secrets: &Secrets,
        metrics: PrometheusHandle,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let history = Arc::new(LakeHistory::default());
        let live = Arc::new(LiveStore::with_grids(book.grids().shown.clone()));
        let parts = street_parts(
            config,
            Arc::clone(book),
            Arc::clone(news),
            Arc::clone(&self.log),
            Arc::clone(&live),
            Arc::clone(&history),
        )?;
        let (door, until) = (log_door(Arc::clone(&self.log)), stopped.clone());
        let suggesting = Arc::clone(news);
        self.servers
            .push(tokio::spawn(async move { suggesting.suggestions().propose(door, until).await }));
        let street = Street::start(parts, book.renewed())?;
        let mut progress = street.progress.clone();
        let trouble = Arc::clone(&street.trouble);
        tokio::select! {
            caught_up = progress.wait_for(|progress| progress.caught_up) => { caught_up.context("the street ended while it caught up")?; }
            problem = first_trouble(&street) => bail!("the street does not start: {problem}"),
        }
        let tenant = default_tenant()?;
        let check = Arc::clone(&secrets.check);
        let auth = Arc::new(Authenticator::new(AuthConfig {
            check: Arc::new(move |user, password| check(user, password.as_bytes())),
            tenant: tenant.clone(),
            token_key: secrets.platform_key,
            insecure: config.insecure,
        }));
        let sql = Arc::new(SqlService::new(
            Arc::clone(&live),
            Arc::clone(&history) as Arc<dyn HistorySource>,
            SqlLimits::default(),
        )?);

        let listener = tokio::net::TcpListener::bind(config.flight.listen)
            .await
            .with_context(|| format!("flight.listen = {}", config.flight.listen))?;
        self.flight = Some(listener.local_addr()?);
        let serve = flight::serve(
            FlightConfig { tls: flight_tls(config)? },
            listener,
            Arc::clone(&sql),
            Arc::clone(&auth),
            is_true(stopped.clone()),
        );
        self.servers.push(tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!("Flight SQL ended: {error}");
            }
        }));

        let listener = tokio::net::TcpListener::bind(config.rest.listen)
            .await
            .with_context(|| format!("rest.listen = {}", config.rest.listen))?;
        self.rest = Some(listener.local_addr()?);
        let state = RestState {
            sql,
            live,
            auth,
            readiness: Arc::new(move || readiness(&trouble, &progress, &history)),
            metrics: Arc::new(move || metrics.render()),
            log: log_door(Arc::clone(&self.log)),
            faults: fault_door(Arc::clone(book)),
            bundles: book.door(),
        };
        let serve = rest::serve(RestConfig::default(), listener, state, is_true(stopped));
        self.servers.push(tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!("REST ended: {error}");
            }
        }));
        self.street = Some(street);
        Ok(())
    }

    /// Stops in the order of the street: first nothing comes in, then everything is applied, committed and checkpointed.
    pub(crate) async fn stop(mut self) {
        if let Some(grid_topics) = self.grid_topics.take() {
            grid_topics.abort();
            // aborted, so an error; awaited, so that the broker is nobody else's
            let _ = grid_topics.await;
        }
        if let Some(broker) = self.broker.take().and_then(Arc::into_inner) {
            broker.stop().await;
        }
        if let Some(street) = self.street.take() {
            street.stop().await;
        }
        self.stop.send_replace(true);
        for server in self.servers {
            // servers let running requests finish, but not for ever
            if tokio::time::timeout(Duration::from_secs(5), server).await.is_err() {
                tracing::warn!("a server did not stop in time");
            }
        }
        if let Err(error) = self.log.close().await {
            tracing::error!("the log did not close: {error}");
        }
    }
}

/// How the counter puts a message into the log: as the platform's word, filed under the device it is about.
fn log_door(log: Arc<dyn InboundLog>) -> LogDoor {
    Arc::new(move |tenant, message: DeviceMessage| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            let payload = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
            if payload.len() > PAYLOAD_LEN_MAX {
                // the engine would only reject it
                return Err(format!("it has {} bytes, the limit is {PAYLOAD_LEN_MAX}", payload.len()));
            }
            let record = NewRecord {
                kind: RecordKind::Message,
                tenant,
                hardware_id: message.hardware_id,
                bound: false,
                redelivered: false,
                payload: payload.into(),
            };
            log.append(vec![record]).await.map(drop).map_err(|error| error.to_string())
        })
    })
}

/// The certificates that the configuration names.
fn flight_tls(config: &Config) -> anyhow::Result<Option<FlightTls>> {
    let read = |key: &str, file: &Option<PathBuf>| -> anyhow::Result<Option<Vec<u8>>> {
        let Some(file) = file else { return Ok(None) };
        let pem = std::fs::read(file).with_context(|| format!("{key} = {}", file.display()))?;
        Ok(Some(pem))
    };
    let certificate = read("flight.tls_cert_file", &config.flight.tls_cert_file)?;
    let key = read("flight.tls_key_file", &config.flight.tls_key_file)?;
    let (Some(certificate_pem), Some(key_pem)) = (certificate, key) else {
        return Ok(None);
    };
    Ok(Some(FlightTls {
        certificate_pem,
        key_pem,
        client_ca_pem: read("flight.tls_client_ca_file", &config.flight.tls_client_ca_file)?,
    }))
}

async fn first_trouble(street: &Street) -> String {
    loop {
        if let Some(problem) = street.trouble.lock().clone() {
            return problem;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What stands between a question and its answer.
fn readiness(
    trouble: &parking_lot::Mutex<Option<String>>,
    progress: &watch::Receiver<Progress>,
    lake: &LakeHistory,
) -> Vec<ComponentState> {
    let street = trouble
        .lock()
        .clone()
        .or_else(|| (!progress.borrow().caught_up).then(|| "applying what the log holds; views are not complete yet".to_owned()));
    let lake = lake.lake.load().as_ref().and_then(|lake| lake.trouble());
    let component = |name, detail: Option<String>, bad| ComponentState {
        name,
        health: if detail.is_some() { bad } else { Health::Ok },
        detail,
    };
    vec![component("street", street, Health::Down), component("lake", lake, Health::Degraded)]
}

async fn is_true(mut flag: watch::Receiver<bool>) {
    // a dropped sender means that the platform is gone, which is a reason to stop too
    let _ = flag.wait_for(|&set| set).await;
}

/// The tenant of an installation without tenants.
pub(crate) const DEFAULT_TENANT: &str = "default";

pub(crate) fn default_tenant() -> anyhow::Result<TenantId> {
    TenantId::new(DEFAULT_TENANT).context("the default tenant's name")
}

/// What the street is built from, each time it starts: a fresh lake handle, the newest checkpoint.
fn street_parts(
    config: &Config,
    book: Arc<GridBook>,
    news: Arc<GridNews>,
    log: Arc<dyn InboundLog>,
    live: Arc<LiveStore>,
    history: Arc<LakeHistory>,
) -> anyhow::Result<impl Fn() -> anyhow::Result<Parts> + Send + 'static> {
    // what the file says is wrong is said at the start
    unknown_devices(config, &book.grids())?;
    let tenants = config
        .mqtt
        .tenants
        .iter()
        .map(|name| TenantId::new(name).with_context(|| format!("mqtt.tenants: {name:?}")));
    let mut tenants: Vec<TenantId> = tenants.collect::<anyhow::Result<_>>()?;
    let default = default_tenant()?;
    if !tenants.contains(&default) {
        tenants.push(default);
    }
    let config = config.clone();
    let runtime = tokio::runtime::Handle::current();
    Ok(move || {
        // a street that starts again has left a lake behind, which must not commit any more: two handles are two writers
        if let Some(before) = history.lake.load_full() {
            runtime.block_on(before.close());
        }
        let lake = runtime
            .block_on(Lake::open(config.lake.clone(), &tenants))
            .context("the lake does not open")?;
        let lake = Arc::new(lake);
        history.lake.store(Some(Arc::clone(&lake)));
        let grids = book.grids();
        Ok(Parts {
            log: Arc::clone(&log),
            lake,
            live: Arc::clone(&live),
            checkpoints: CheckpointStore::open(config.data_dir.join("checkpoints"))?,
            engine: pipeline::engine_config(&config, unknown_devices(&config, &grids)?, &grids)?,
            checkpoint_every: Duration::from_secs(config.engine.checkpoint_s),
            retention: Duration::from_secs(config.engine.log_retention_hours * 3600),
            grid_news: Arc::clone(&news),
            // a tenant without a grid is a tenant, too: somebody may give it one
            bundles: tenants
                .iter()
                .map(|tenant| (tenant.clone(), Arc::default()))
                .chain(grids.shown.clone())
                .collect(),
        })
    })
}

/// What becomes of devices nobody announced. A grid bundle announces its meters and switches; the platform's own device, in whose name
/// operators decide, needs nobody to.
fn unknown_devices(config: &Config, grids: &crate::bundles::Grids) -> anyhow::Result<flexmeter_dataflows::UnknownDevices> {
    let (UnknownDevices::Reject, Some(file)) = (config.devices.unknown, &config.devices.known_file) else {
        return Ok(flexmeter_dataflows::UnknownDevices::Accept);
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("devices.known_file {}", file.display()))?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let known = lines.map(|line| {
        let (tenant, id) = line.split_once('/').unwrap_or((DEFAULT_TENANT, line));
        (tenant.to_owned(), id.to_owned())
    });
    let in_grids = grids.shown.iter().flat_map(|(tenant, grid)| {
        let meters = grid.meters.iter().map(|meter| &meter.hardware_id);
        let switches = grid.switches.iter().map(|switch| &switch.hardware_id);
        meters.chain(switches).map(|id| (tenant.to_string(), id.clone()))
    });
    let tenants = config.mqtt.tenants.iter().map(String::as_str).chain([DEFAULT_TENANT]);
    let platform = tenants.map(|tenant| (tenant.to_owned(), OPERATOR.to_owned()));
    Ok(flexmeter_dataflows::UnknownDevices::Reject {
        known: Arc::new(known.chain(in_grids).chain(platform).collect()),
    })
}

/// Moves the log time of every partition on. Not only while nothing comes in: log time is each partition's own, and one that hears of
/// no device must still close its windows while another is busy.
async fn beat(log: Arc<dyn InboundLog>, every: Duration, mut stopped: watch::Receiver<bool>) {
    while !told_to_stop_within(every, &mut stopped).await {
        if let Err(error) = log.heartbeat().await {
            tracing::warn!("no heartbeat: {error}");
        }
    }
}

/// Folds the samples of histograms together, which otherwise happens only when somebody asks for `/metrics`.
async fn keep_metrics_small(metrics: PrometheusHandle, mut stopped: watch::Receiver<bool>) {
    while !told_to_stop_within(METRICS_UPKEEP_EVERY, &mut stopped).await {
        metrics.run_upkeep();
    }
}

/// Prometheus metrics of the process; a process has one recorder, so a second platform in it shares the first's.
fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new().install_recorder().context("metrics")?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// The lake as the counter sees it; swapped when the street starts again.
#[derive(Debug, Default)]
struct LakeHistory {
    lake: ArcSwapOption<Lake>,
}

impl HistorySource for LakeHistory {
    fn view(&self, tenant: &TenantId, table: &str) -> HistoryView {
        let lake = self.lake.load();
        let Some(view) = lake.as_ref().and_then(|lake| lake.view(tenant, table)) else {
            return HistoryView {
                committed: None,
                tail: Vec::new(),
            };
        };
        HistoryView {
            committed: Some(Arc::clone(&view.committed) as Arc<dyn TableProvider>),
            tail: view.tail.clone(),
        }
    }
}
