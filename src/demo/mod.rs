//! `flexmeter demo`: a simulated district of three levels on embedded parts. Meters publish over real MQTT, SQL answers over real Flight
//! SQL. A fuse blows and is replaced; the open switch of a ring is in the wrong place and, once an operator has accepted the proposal,
//! moves. With `--check` the demo compares what was acknowledged with what SQL returns, and what the engine says of the grid with the
//! truth of the simulation; it exits with 1 if anything differs.

mod check;
mod grid;
mod grid_check;
mod operator;
mod plan;
mod screen;
mod switchgear;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use flexmeter_connectors::mqtt::publisher::{Publisher, PublisherConfig};
use flexmeter_connectors::simulator::{District, DistrictConfig, Expected, SimulatedMessage};
use flexmeter_model::EventTime;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::config::{Config, Overrides};
use crate::up::{Platform, Roles};

use grid::DemoGrid;
use operator::Operator;
use plan::Plan;
use switchgear::Command;

/// Simulated time before the start that the meters deliver in one go, as after an outage of the head end.
const BACKLOG: Duration = Duration::from_secs(2 * 3600);
/// Simulated time between two readings of a meter in the backlog, and in live operation.
const BACKLOG_STEP: Duration = Duration::from_secs(60);
const LIVE_STEP: Duration = Duration::from_secs(2);
/// Steps of live operation after which a fuse blows, and is replaced.
const FUSE_BLOWS: u32 = 2;
const FUSE_REPLACED: u32 = 7;
/// A check waits so long for the staged events to be over, and then for the estimates to follow the last switch.
const CHECK_MAX: Duration = Duration::from_secs(120);
const CHECK_SETTLES: Duration = Duration::from_secs(5);
/// Commands that may wait for the next step of the simulation.
const COMMANDS_WAITING_MAX: usize = 64;
/// MQTT connections the meters share.
const CONNECTIONS: usize = 50;
/// Messages that may wait for their acknowledgement.
const OUTSTANDING_MAX: usize = 2_000;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder for the demo's data; kept. Without it a temporary one, removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Stop after this many seconds; without it at Ctrl-C (with --check: when the staged events are over, about half a minute).
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Headless: compare everything acknowledged with what SQL returns and the grid's state with the truth, print a table, exit 0 or 1.
    #[arg(long)]
    check: bool,
    /// Number of meters.
    #[arg(long, default_value_t = 300)]
    meters: u32,
    /// Seed of the simulation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the publisher side knows: the ledger of acknowledged messages, and how long acknowledgements took.
pub(crate) struct Ledger {
    acknowledged: Vec<SimulatedMessage>,
    latency_us: Histogram<u64>,
    failed: u64,
}

/// Runs `demo`.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let scratch = tempfile::tempdir()?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| scratch.path().to_owned());
    let overrides = Overrides {
        data_dir: Some(data_dir.clone()),
        mqtt: Some(preferred(1883)),
        rest: Some(preferred(8080)),
        flight: Some(preferred(50051)),
        ..Overrides::default()
    };
    if args.check && has_data(&data_dir) {
        bail!(
            "{} holds data already, which --check would take for readings nobody sent; give an empty folder",
            data_dir.display()
        );
    }
    let mut config = Config::load(None, &overrides)?;
    config.lake.commit_s = config.lake.commit_s.min(2);
    let district = District::new(DistrictConfig {
        n_meters: args.meters,
        seed: args.seed,
        ..DistrictConfig::default()
    });
    let plan = Plan::new(district.meters());
    let bundle = data_dir.join("demo-grid");
    plan.write(&bundle)?;
    config.grid.bundle = Some(bundle);
    // an operator has minutes, a demo has seconds
    config.grid.reconfiguration.check_s = 2;
    config.grid.reconfiguration.dwell_s = 4;
    let grid = DemoGrid::new(&plan, args.meters as usize)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let password = password(&mut config)?;
        let platform = Platform::start(config, Roles::ALL).await?;
        let outcome = show(args, &platform, &password, district, grid).await;
        platform.stop().await;
        if args.data_dir.is_some() {
            eprintln!("the demo's data is kept in {}", data_dir.display());
        }
        outcome
    })
}

fn has_data(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// The usual port if it is free, else any.
fn preferred(port: u16) -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    match std::net::TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
    }
}

/// The demo knows its admin password, so it makes one and hands it over in a file as an operator would.
fn password(config: &mut Config) -> anyhow::Result<String> {
    std::fs::create_dir_all(&config.data_dir)?;
    let file = config.data_dir.join("demo-admin-password");
    if !file.exists() {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
        std::fs::write(&file, format!("{:016x}", u64::from_le_bytes(bytes)))?;
    }
    let password = std::fs::read_to_string(&file)?;
    config.auth.admin_password_file = Some(file);
    Ok(password)
}

async fn show(args: &DemoArgs, platform: &Platform, password: &str, district: District, grid: DemoGrid) -> anyhow::Result<ExitCode> {
    let (mqtt, rest, flight) = (
        platform.mqtt.context("no MQTT address")?,
        platform.rest.context("no REST address")?,
        platform.flight.context("no Flight SQL address")?,
    );
    let screen = screen::Screen {
        rest,
        flight,
        password: password.to_owned(),
        live: std::io::stdout().is_terminal() && !args.check,
    };
    screen.welcome(mqtt, args.meters);
    let mut config = PublisherConfig::new(format!("mqtt://{}:{password}@{mqtt}", crate::secrets::ADMIN));
    config.connections = CONNECTIONS;
    let publisher = Arc::new(Publisher::connect(config).await.context("the meters cannot connect")?);
    let ledger = Arc::new(Mutex::new(Ledger {
        acknowledged: Vec::new(),
        latency_us: crate::report::latency_histogram()?,
        failed: 0,
    }));

    let operator = Operator::new(rest, password);
    let stop = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None if args.check => {
                // what has not come by then is for the check to say
                let _ = tokio::time::timeout(CHECK_MAX, operator.see_the_end()).await;
                tokio::time::sleep(CHECK_SETTLES).await;
            }
            None => {
                let _ = tokio::signal::ctrl_c().await;
            }
        }
    };
    let (done, commands) = tokio::sync::mpsc::channel(COMMANDS_WAITING_MAX);
    let mut simulation = Simulation {
        district,
        grid,
        commands,
        publisher,
        ledger: Arc::clone(&ledger),
        outstanding: Arc::new(tokio::sync::Semaphore::new(OUTSTANDING_MAX)),
        unsent: Default::default(),
    };
    tokio::select! {
        ended = simulation.run() => ended?,
        () = screen.refresh(&ledger) => {}
        () = switchgear::obey(mqtt, password, done) => {}
        () = operator.work() => {}
        () = stop => {}
    }
    simulation.finish().await?;
    if args.check {
        let rows = check::check(&ledger, flight, password).await?;
        let grid = grid_check::check(&simulation.grid, flight, password).await?;
        return Ok(if rows && grid { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    screen.farewell(&ledger).await?;
    Ok(ExitCode::SUCCESS)
}

/// The meters: first the backlog, then live.
struct Simulation {
    district: District,
    grid: DemoGrid,
    /// Commands whose switches have moved.
    commands: tokio::sync::mpsc::Receiver<Command>,
    publisher: Arc<Publisher>,
    ledger: Arc<Mutex<Ledger>>,
    outstanding: Arc<tokio::sync::Semaphore>,
    unsent: std::collections::VecDeque<SimulatedMessage>,
}

impl Simulation {
    async fn run(&mut self) -> anyhow::Result<()> {
        let start = now().micros();
        let mut at = start - i64::try_from(BACKLOG.as_micros())?;
        while at < start {
            let messages = self
                .grid
                .measure(&mut self.district, EventTime::from_micros(at), BACKLOG_STEP.as_secs_f64())?;
            self.unsent.extend(messages);
            self.send_all().await?;
            at += i64::try_from(BACKLOG_STEP.as_micros())?;
        }
        let mut ticks = tokio::time::interval(LIVE_STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for step in 0.. {
            ticks.tick().await;
            let at = now();
            let events = match step {
                FUSE_BLOWS => self.grid.blow_fuse(&mut self.district, at)?,
                FUSE_REPLACED => self.grid.replace_fuse(at)?,
                _ => Vec::new(),
            };
            self.unsent.extend(events);
            let messages = self.grid.measure(&mut self.district, at, LIVE_STEP.as_secs_f64())?;
            // spread over the step, as meters are in the field
            let pause = LIVE_STEP.mul_f64(0.8) / u32::try_from(messages.len().max(1))?;
            let begun = Instant::now();
            for (i, message) in (0..).zip(messages) {
                self.unsent.push_back(message);
                tokio::time::sleep_until((begun + pause * i).into()).await;
                while let Ok(command) = self.commands.try_recv() {
                    let at = now();
                    let said = self.grid.operate(&command.hardware_id, command.close, &command.id, at)?;
                    self.unsent.extend(said);
                }
                self.send_all().await?;
            }
        }
        Ok(())
    }

    /// Sends what is still held back, and waits for every acknowledgement.
    async fn finish(&mut self) -> anyhow::Result<()> {
        self.unsent.extend(self.district.finish());
        self.send_all().await?;
        let all = u32::try_from(OUTSTANDING_MAX)?;
        let _all = tokio::time::timeout(Duration::from_secs(30), self.outstanding.acquire_many(all))
            .await
            .context("some messages were not acknowledged within 30 s")??;
        Ok(())
    }

    /// Safe to be cancelled: a message leaves the queue only once it is on its way.
    async fn send_all(&mut self) -> anyhow::Result<()> {
        while !self.unsent.is_empty() {
            let permit = Arc::clone(&self.outstanding).acquire_owned().await?;
            let Some(message) = self.unsent.front() else { break };
            let topic = format!("flexmeter/default/{}/events", message.hardware_id);
            let receipt = self
                .publisher
                .send(&message.hardware_id, &topic, message.payload.clone().into())
                .await?;
            let Some(message) = self.unsent.pop_front() else { break };
            let ledger = Arc::clone(&self.ledger);
            tokio::spawn(async move {
                let outcome = receipt.await;
                let mut ledger = ledger.lock();
                match outcome {
                    Ok(acked) => {
                        ledger
                            .latency_us
                            .saturating_record(acked.acked_at.duration_since(acked.sent_at).as_micros() as u64);
                        ledger.acknowledged.push(message);
                    }
                    Err(error) => {
                        ledger.failed += 1;
                        tracing::error!("a message was not acknowledged: {error}");
                    }
                }
                drop(permit);
            });
        }
        Ok(())
    }
}

fn now() -> EventTime {
    EventTime::from_clock(SystemTime::now())
}

impl Ledger {
    /// How many acknowledged messages must end in which way.
    fn tally(&self) -> (u64, u64, u64, u64) {
        let mut tally = (0, 0, 0, 0);
        for message in &self.acknowledged {
            match message.expected {
                Expected::Accepted => tally.0 += 1,
                Expected::PartlyRejected(_) => tally.1 += 1,
                Expected::Rejected(_) => tally.2 += 1,
                Expected::Duplicate => tally.3 += 1,
            }
        }
        tally
    }
}
