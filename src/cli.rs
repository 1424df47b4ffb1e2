//! What a user can ask, and how errors become exit codes: 0 success, 1 failed check, 2 usage or configuration error.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError, Overrides};

/// Stream-processing engine for smart metering and distribution grids.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 120)]
struct Cli {
    /// What to log to stderr, for example `info`, `debug` or `flexmeter=debug,rmqtt=info`.
    #[arg(long, global = true, env = "FLEXMETER_LOG")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A simulated district on embedded parts: meters publish, SQL answers.
    Demo(crate::demo::DemoArgs),
    /// Runs the platform (all roles in one process unless told otherwise).
    Up(UpArgs),
    /// Publishes a recording over MQTT, each line acknowledged.
    Replay(crate::replay::ReplayArgs),
    /// Runs one SQL statement over Flight SQL.
    Sql(crate::sql::SqlArgs),
    /// Power flow and state estimation of one grid, from power-grid-model JSON.
    #[command(subcommand)]
    Grid(crate::grid::GridCommand),
    /// Repeatable measurements of the product itself, one JSON line per figure.
    #[command(subcommand)]
    Bench(crate::bench::BenchCommand),
    /// Shows or checks the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Device logins.
    #[command(subcommand)]
    Devices(crate::install::DevicesCommand),
    /// Checks this machine and this installation.
    Doctor(ConfigArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Reads everything and says whether it can be used.
    Check(ConfigArgs),
    /// Prints the configuration in force, as TOML.
    Print(ConfigArgs),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// TOML file; without it the defaults and `FLEXMETER__SECTION__KEY` apply.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder for everything that must survive a restart.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl ConfigArgs {
    /// The configuration in force.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        Config::load(
            self.config.as_deref(),
            &Overrides {
                data_dir: self.data_dir.clone(),
                ..Overrides::default()
            },
        )
    }
}

/// A role of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Every role in this process.
    All,
    /// MQTT broker → log.
    Bridge,
    /// Log → views and lake.
    Engine,
    /// SQL and REST; needs the engine in the same process for now.
    Serve,
    /// Protocol adapters; not part of this version.
    Gateway,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Role of this process; may be given several times.
    #[arg(long = "role", value_enum, default_value = "all")]
    roles: Vec<Role>,
    /// Any MQTT login, any admin password; loopback only.
    #[arg(long)]
    insecure: bool,
    /// MQTT address (port 0: a free one).
    #[arg(long, value_name = "ADDR")]
    mqtt: Option<SocketAddr>,
    /// REST address (port 0: a free one).
    #[arg(long, value_name = "ADDR")]
    rest: Option<SocketAddr>,
    /// Flight SQL address (port 0: a free one).
    #[arg(long, value_name = "ADDR")]
    flight: Option<SocketAddr>,
    /// Timely worker threads.
    #[arg(long)]
    workers: Option<usize>,
    /// Print one JSON line with the addresses once ready.
    #[arg(long)]
    json: bool,
}

/// What servers log when nothing else was asked for; the other commands only warn.
const SERVER_LOG: &str = "warn,flexmeter=info,flexmeter_connectors=info,flexmeter_queries=info";

/// Parses the command line and runs it.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let log = cli.log.as_deref().unwrap_or(if matches!(cli.command, Command::Up(_)) {
        SERVER_LOG
    } else {
        "warn"
    });
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(log)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match cli.command {
        Command::Demo(args) => crate::demo::run(&args),
        Command::Up(args) => {
            let overrides = Overrides {
                data_dir: args.config.data_dir,
                insecure: args.insecure,
                mqtt: args.mqtt,
                rest: args.rest,
                flight: args.flight,
                workers: args.workers,
            };
            let config = Config::load(args.config.config.as_deref(), &overrides)?;
            crate::up::run(config, &args.roles, args.json)
        }
        Command::Replay(args) => crate::replay::run(&args),
        Command::Sql(args) => crate::sql::run(&args),
        Command::Grid(command) => crate::grid::run(&command),
        Command::Bench(command) => crate::bench::run(&command),
        Command::Config(ConfigCommand::Check(args)) => {
            let config = args.load()?;
            crate::bundles::Grids::read(&config)?;
            eprintln!("the configuration can be used; data lives in {}", config.data_dir.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(ConfigCommand::Print(args)) => {
            print!("{}", args.load()?.to_toml()?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Devices(command) => crate::install::devices(&command),
        Command::Doctor(args) => crate::doctor::run(&args.load()?),
    }
}

/// 2 for a configuration that cannot be used, 1 for everything that failed later.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        ExitCode::from(2)
    } else {
        ExitCode::from(1)
    }
}
