//! What belongs to one installation: its secrets and the device logins derived from them.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use flexmeter_connectors::mqtt::login;
use flexmeter_model::{HardwareId, TenantId};

use crate::cli::ConfigArgs;
use crate::secrets::Secrets;

/// Device logins.
#[derive(Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// Prints the MQTT user and password of devices.
    Token {
        #[command(flatten)]
        config: ConfigArgs,
        /// Tenant of the devices.
        #[arg(long, default_value = "default")]
        tenant: String,
        /// Hardware ids.
        #[arg(required = true)]
        hardware_ids: Vec<String>,
        /// One JSON line a device.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `devices`.
pub(crate) fn devices(command: &DevicesCommand) -> anyhow::Result<ExitCode> {
    let DevicesCommand::Token {
        config,
        tenant,
        hardware_ids,
        json,
    } = command;
    let config = config.load()?;
    let tenant = TenantId::new(tenant).context("--tenant")?;
    let secrets = Secrets::open(&config.data_dir, config.auth.admin_password_file.as_deref())?;
    let key = login::PlatformKey::new(&secrets.platform_key)?;
    if let Some(password) = secrets.fresh_admin_password {
        eprintln!("this is a new installation; the password of user admin is {password} (shown only now)");
    }
    for id in hardware_ids {
        let id = HardwareId::new(id).with_context(|| format!("hardware id {id:?}"))?;
        let user = if tenant.as_str() == "default" {
            id.to_string()
        } else {
            format!("{tenant}/{id}")
        };
        let password = login::device_password(&key, tenant.as_str(), id.as_str());
        if *json {
            println!(
                "{}",
                serde_json::json!({ "tenant": tenant.as_str(), "hardwareId": id.as_str(), "user": user, "password": password })
            );
        } else {
            println!("user {user}  password {password}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
