//! A platform of our own in a child process, so that its CPU time and memory are its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

/// A running `flexmeter up --insecure` on free ports; stopped when dropped.
pub(super) struct Platform {
    child: Child,
    pub(super) mqtt: String,
    pub(super) rest: String,
}

impl Platform {
    /// Starts it on `data_dir` and waits until it is ready.
    pub(super) fn start(data_dir: &Path, workers: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([
                "up",
                "--insecure",
                "--json",
                "--mqtt",
                "127.0.0.1:0",
                "--rest",
                "127.0.0.1:0",
                "--flight",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--workers", &workers.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the platform")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("the platform said {line:?}"))?;
        let field = |name: &str| {
            ready[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {name} address"))
        };
        let platform = (field("mqtt"), field("rest"));
        match platform {
            (Ok(mqtt), Ok(rest)) => Ok(Self { child, mqtt, rest }),
            _ => {
                let _ = child.kill();
                bail!("the platform did not say where it listens: {line}")
            }
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
