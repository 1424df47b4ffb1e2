//! The one validated configuration: defaults, then the TOML file, then `FLEXMETER__SECTION__KEY`, then flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use flexmeter_connectors::lake::{LakeConfig, LakeError};
use flexmeter_connectors::log::{LogConfig, LogError};
use flexmeter_connectors::mqtt::{MqttConfig, MqttError};
use flexmeter_model::TenantId;
use serde::{Deserialize, Serialize};

use crate::up::DEFAULT_TENANT;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file named on the command line is not there.
    #[error("configuration file {} does not exist", .0.display())]
    NoFile(PathBuf),
    /// A key nobody knows.
    #[error("unknown key `{key}` in {origin}{hint}")]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// File or environment.
        origin: String,
        /// The nearest known key.
        hint: String,
    },
    /// A value of the wrong type or out of its range.
    #[error("{key}: {problem} (from {origin})")]
    Value {
        /// The key with its section.
        key: String,
        /// What is wrong.
        problem: String,
        /// File or environment.
        origin: String,
    },
    /// A number below what makes sense.
    #[error("{key} = {value} is below its least value {least}")]
    BelowLeast {
        /// The key with its section.
        key: &'static str,
        /// The value found.
        value: u64,
        /// The least that works.
        least: u64,
    },
    /// An interface without TLS that others could reach.
    #[error(
        "{key} = {address} is not a loopback address and would speak without TLS or without logins; use 127.0.0.1 and put a TLS proxy in front, or give Flight SQL its tls_cert_file and tls_key_file"
    )]
    BeyondLoopback {
        /// The key with its section.
        key: &'static str,
        /// The address found.
        address: SocketAddr,
    },
    /// A key that another one makes necessary is not set.
    #[error("{because} needs {needs}")]
    KeyMissing {
        /// What makes it necessary.
        because: &'static str,
        /// The keys with their section, and what would be without them.
        needs: &'static str,
    },
    /// A file that a key names cannot be read.
    #[error("{key} = {}: {reason}", file.display())]
    File {
        /// The key with its section.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A grid bundle that cannot be used.
    #[error("{key} = {}: {reason}", folder.display())]
    Bundle {
        /// The key with its section.
        key: String,
        /// The bundle's folder.
        folder: PathBuf,
        /// What is wrong in which file, and what to do.
        reason: String,
    },
    /// A grid for a tenant that there is not.
    #[error("grid.bundles names tenant {tenant:?}, which is not one of mqtt.tenants; add it there")]
    BundleTenant {
        /// The tenant.
        tenant: String,
    },
    /// Two grids for one tenant.
    #[error("grid.bundle and grid.bundles.{DEFAULT_TENANT} both give tenant {DEFAULT_TENANT} a grid; leave one of them")]
    BundleTwice,
    /// Section `[mqtt]`.
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// Section `[log]`.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Section `[lake]`.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A role this version cannot take by itself.
    #[error("role {role} {reason}")]
    Role {
        /// The role asked for.
        role: &'static str,
        /// Why not, and what to do.
        reason: &'static str,
    },
}

/// Everything `flexmeter up` can be told.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Everything that must survive a restart lives below this folder.
    pub(crate) data_dir: PathBuf,
    /// Loopback only: any MQTT login, any password for `admin`, payloads believed.
    #[serde(default)]
    pub(crate) insecure: bool,
    /// The MQTT broker.
    #[serde(default)]
    pub(crate) mqtt: MqttConfig,
    /// The inbound log.
    #[serde(default)]
    pub(crate) log: LogConfig,
    /// The dataflow engine.
    #[serde(default)]
    pub(crate) engine: EngineSection,
    /// The Delta lake.
    pub(crate) lake: LakeConfig,
    /// REST and metrics.
    #[serde(default)]
    pub(crate) rest: RestSection,
    /// Flight SQL.
    #[serde(default)]
    pub(crate) flight: FlightSection,
    /// Users and secrets.
    #[serde(default)]
    pub(crate) auth: AuthSection,
    /// Which devices are let in.
    #[serde(default)]
    pub(crate) devices: DevicesSection,
    /// The grids whose state is estimated.
    #[serde(default)]
    pub(crate) grid: GridSection,
}

/// `[rest]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RestSection {
    /// Address of REST, metrics and health; loopback.
    pub(crate) listen: SocketAddr,
}

impl Default for RestSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        }
    }
}

/// `[flight]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FlightSection {
    /// Address of Flight SQL; beyond loopback with TLS only.
    pub(crate) listen: SocketAddr,
    /// Certificate chain, PEM; with it and the key, Flight SQL speaks TLS only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key_file: Option<PathBuf>,
    /// Authority, PEM, that must have signed a client's certificate; without it clients need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_client_ca_file: Option<PathBuf>,
}

impl Default for FlightSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            tls_cert_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
        }
    }
}

/// `[engine]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EngineSection {
    /// Timely worker threads; more than there are log partitions stay idle.
    pub(crate) workers: usize,
    /// Seconds between checkpoints; also the most that is replayed after a crash.
    pub(crate) checkpoint_s: u64,
    /// A heartbeat record moves the log time of every partition on this often, in seconds.
    pub(crate) heartbeat_s: u64,
    /// Hours of log time for which a message's identity is remembered, so that a repeat is dropped.
    pub(crate) dedupe_hours: u64,
    /// Hours of log time for which an untouched load-profile window stays in memory.
    pub(crate) profile_hours: u64,
    /// Hours for which the log keeps records that checkpoint and lake no longer need.
    pub(crate) log_retention_hours: u64,
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            workers: 2,
            checkpoint_s: 30,
            heartbeat_s: 1,
            dedupe_hours: 48,
            profile_hours: 48,
            log_retention_hours: 24,
        }
    }
}

/// `[auth]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthSection {
    /// File with the password of user `admin`. Absent: a secret is made and printed once, at the first start.
    pub(crate) admin_password_file: Option<PathBuf>,
}

/// What happens to a device nobody has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnknownDevices {
    /// Its messages are taken.
    #[default]
    Accept,
    /// Its messages end as `unknown_device` rejections.
    Reject,
}

/// `[devices]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DevicesSection {
    /// `accept` or `reject`.
    pub(crate) unknown: UnknownDevices,
    /// With `reject`: a text file with one hardware id a line, `tenant/hardwareId` for tenants other than `default`.
    pub(crate) known_file: Option<PathBuf>,
}

/// `[grid]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GridSection {
    /// Whether the state of the grids is estimated; outages and switches are followed without that, too.
    pub(crate) estimation: bool,
    /// Folder of the default tenant's grid bundle; read at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bundle: Option<PathBuf>,
    /// Folders of further tenants' bundles, by tenant.
    pub(crate) bundles: BTreeMap<String, PathBuf>,
    /// When another position of the switches is proposed, and what becomes of a proposal.
    pub(crate) reconfiguration: ReconfigurationSection,
}

impl Default for GridSection {
    fn default() -> Self {
        Self {
            estimation: true,
            bundle: None,
            bundles: BTreeMap::new(),
            reconfiguration: ReconfigurationSection::default(),
        }
    }
}

/// `[grid.reconfiguration]`: all times are log time.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReconfigurationSection {
    /// Tenants whose proposals are carried out without an operator.
    pub(crate) automatic: Vec<String>,
    /// Least saving that is worth a proposal, kW.
    pub(crate) saving_min_kw: f64,
    /// Seconds for which the saving has to stay above.
    pub(crate) dwell_s: u64,
    /// How often something better is looked for, in seconds.
    pub(crate) check_s: u64,
    /// Seconds for which a proposal waits for a decision.
    pub(crate) expires_s: u64,
    /// Seconds a switch may take to confirm a command.
    pub(crate) confirmation_s: u64,
    /// Seconds without a new proposal after one was rejected, has expired or has failed.
    pub(crate) pause_s: u64,
    /// Lowest voltage allowed after a plan, per unit of rated.
    pub(crate) voltage_min_pu: f64,
    /// Highest voltage allowed.
    pub(crate) voltage_max_pu: f64,
}

impl Default for ReconfigurationSection {
    fn default() -> Self {
        Self {
            automatic: Vec::new(),
            saving_min_kw: 1.0,
            dwell_s: 300,
            check_s: 60,
            expires_s: 3600,
            confirmation_s: 120,
            pause_s: 3600,
            voltage_min_pu: 0.9,
            voltage_max_pu: 1.1,
        }
    }
}

/// Values given as flags; they win over file and environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) insecure: bool,
    pub(crate) mqtt: Option<SocketAddr>,
    pub(crate) rest: Option<SocketAddr>,
    pub(crate) flight: Option<SocketAddr>,
    pub(crate) workers: Option<usize>,
}

impl Config {
    /// Reads defaults, `file`, the environment and flags, in this order, and validates the whole.
    pub(crate) fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut figment = Figment::new()
            .merge(Serialized::default("data_dir", "./flexmeter-data"))
            .merge(Serialized::default("lake.path", ""));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError::NoFile(file.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        figment = figment.merge(Env::prefixed("FLEXMETER__").split("__"));
        let mut config: Self = figment.extract().map_err(explain)?;
        overrides.apply(&mut config);
        if config.lake.path.as_os_str().is_empty() {
            config.lake.path = config.data_dir.join("lake");
        }
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML, for `config print`.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("engine.workers", self.engine.workers as u64),
            ("engine.checkpoint_s", self.engine.checkpoint_s),
            ("engine.heartbeat_s", self.engine.heartbeat_s),
            ("engine.dedupe_hours", self.engine.dedupe_hours),
            ("engine.profile_hours", self.engine.profile_hours),
        ] {
            if value < 1 {
                return Err(ConfigError::BelowLeast { key, value, least: 1 });
            }
        }
        let flight = &self.flight;
        if flight.tls_cert_file.is_some() != flight.tls_key_file.is_some()
            || (flight.tls_client_ca_file.is_some() && flight.tls_key_file.is_none())
        {
            return Err(ConfigError::KeyMissing {
                because: "TLS of Flight SQL",
                needs: "both flight.tls_cert_file and flight.tls_key_file",
            });
        }
        let closed = flight.tls_cert_file.is_some() && !self.insecure;
        for (key, address, closed) in [("rest.listen", self.rest.listen, false), ("flight.listen", flight.listen, closed)] {
            if !closed && !address.ip().is_loopback() {
                return Err(ConfigError::BeyondLoopback { key, address });
            }
        }
        if self.devices.unknown == UnknownDevices::Reject && self.devices.known_file.is_none() {
            return Err(ConfigError::KeyMissing {
                because: "devices.unknown = \"reject\"",
                needs: "devices.known_file, or every message would be rejected",
            });
        }
        self.mqtt.validate(self.insecure)?;
        self.log.validate()?;
        self.lake.validate()?;
        self.grid_folders()?;
        self.check_files()
    }

    /// The folders of grid bundles: key, tenant, folder.
    pub(crate) fn grid_folders(&self) -> Result<Vec<(String, TenantId, &Path)>, ConfigError> {
        let default = self
            .grid
            .bundle
            .iter()
            .map(|folder| ("grid.bundle".to_owned(), DEFAULT_TENANT, folder));
        let further = self.grid.bundles.iter();
        let further = further.map(|(tenant, folder)| (format!("grid.bundles.{tenant}"), tenant.as_str(), folder));
        if self.grid.bundle.is_some() && self.grid.bundles.contains_key(DEFAULT_TENANT) {
            return Err(ConfigError::BundleTwice);
        }
        default
            .chain(further)
            .map(|(key, name, folder)| {
                let is_known = name == DEFAULT_TENANT || self.mqtt.tenants.iter().any(|tenant| tenant == name);
                let tenant = TenantId::new(name).ok().filter(|_| is_known);
                let tenant = tenant.ok_or_else(|| ConfigError::BundleTenant { tenant: name.to_owned() })?;
                Ok((key, tenant, folder.as_path()))
            })
            .collect()
    }

    /// The files that are read at the start can be read now.
    fn check_files(&self) -> Result<(), ConfigError> {
        for (key, file) in [
            ("devices.known_file", &self.devices.known_file),
            ("auth.admin_password_file", &self.auth.admin_password_file),
            ("mqtt.tls_cert_file", &self.mqtt.tls_cert_file),
            ("mqtt.tls_key_file", &self.mqtt.tls_key_file),
            ("flight.tls_cert_file", &self.flight.tls_cert_file),
            ("flight.tls_key_file", &self.flight.tls_key_file),
            ("flight.tls_client_ca_file", &self.flight.tls_client_ca_file),
        ] {
            let Some(file) = file else { continue };
            std::fs::File::open(file).map_err(|error| ConfigError::File {
                key,
                file: file.clone(),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}

impl Overrides {
    fn apply(&self, config: &mut Config) {
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        config.insecure |= self.insecure;
        if let Some(address) = self.mqtt {
            config.mqtt.listen = address;
        }
        if let Some(address) = self.rest {
            config.rest.listen = address;
        }
        if let Some(address) = self.flight {
            config.flight.listen = address;
        }
        if let Some(workers) = self.workers {
            config.engine.workers = workers;
        }
    }
}

fn explain(error: figment::Error) -> ConfigError {
    let origin = match error.metadata.as_ref() {
        Some(metadata) => match &metadata.source {
            Some(source) => source.to_string(),
            None => metadata.name.to_string(),
        },
        None => "the configuration".to_owned(),
    };
    let mut path = error.path.clone();
    match &error.kind {
        figment::error::Kind::UnknownField(field, known) => {
            if path.last().is_none_or(|last| last != field) {
                path.push(field.clone());
            }
            let hint = known
                .iter()
                .map(|candidate| (strsim::damerau_levenshtein(field, candidate), candidate))
                .min()
                .filter(|(distance, _)| *distance <= 4)
                .map_or_else(
                    || format!("; known keys here: {}", known.join(", ")),
                    |(_, candidate)| format!("; did you mean `{candidate}`?"),
                );
            ConfigError::UnknownKey {
                key: path.join("."),
                origin,
                hint,
            }
        }
        kind => ConfigError::Value {
            key: path.join("."),
            problem: kind.to_string(),
            origin,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn load(toml: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("flexmeter.toml");
        std::fs::write(&file, toml).unwrap();
        Config::load(Some(&file), &Overrides::default())
    }

    fn check_error(toml: &str, expected: &str) {
        let text = load(toml).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn no_file_at_all_is_a_working_configuration() {
        let config = Config::load(None, &Overrides::default()).unwrap();
        assert!(config.mqtt.listen.ip().is_loopback());
        assert_eq!(config.engine.workers, 2);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        check_error("[engine]\nworkerz = 3\n", "unknown key `engine.workerz`");
        check_error("[engine]\nworkerz = 3\n", "did you mean `workers`?");
        check_error("datadir = \"x\"\n", "did you mean `data_dir`?");
    }

    #[test]
    fn values_that_cannot_work_are_refused_with_a_remedy() {
        check_error("[engine]\nworkers = 0\n", "engine.workers = 0");
        check_error("[engine]\nworkers = \"many\"\n", "engine.workers");
        check_error("[rest]\nlisten = \"0.0.0.0:8080\"\n", "is not a loopback address");
        check_error("[devices]\nunknown = \"reject\"\n", "devices.known_file");
        check_error("[grid.bundles]\nnorth = \"x\"\n", "add it there");
        check_error("[grid]\nbundle = \"x\"\n[grid.bundles]\ndefault = \"y\"\n", "leave one of them");
    }

    #[test]
    fn every_tenant_can_have_a_grid_of_its_own() {
        let toml = "[mqtt]\ntenants = [\"default\", \"north\"]\n[grid]\nbundle = \"a\"\n[grid.bundles]\nnorth = \"b\"\n";
        let config = load(toml).unwrap();
        let folders: Vec<_> = config.grid_folders().unwrap();
        let folders: Vec<_> = folders
            .iter()
            .map(|(key, tenant, folder)| (key.as_str(), tenant.as_str(), folder.to_str().unwrap()))
            .collect();
        assert_eq!(folders, [("grid.bundle", "default", "a"), ("grid.bundles.north", "north", "b")]);
    }

    #[test]
    fn the_printed_configuration_reads_back() {
        let printed = load("[engine]\nworkers = 3\n").unwrap().to_toml().unwrap();
        assert_eq!(load(&printed).unwrap().engine.workers, 3);
    }
}
