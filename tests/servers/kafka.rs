//! Starts a real Apache Kafka for tests: one KRaft broker from Maven's jars, on free loopback ports, in a temporary folder.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Version in `kafka/pom.xml`; names the cache folder.
const VERSION: &str = "4.3.1";
const POM: &str = include_str!("kafka/pom.xml");
const PROPERTIES: &str = include_str!("kafka/server.properties");
/// Longest time the broker may take to answer; 4 to 8 s on two idle cores.
const START_MAX: Duration = Duration::from_secs(240);
/// How often we ask whether it answers.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// A running broker; killed when dropped.
pub(crate) struct KafkaServer {
    /// Its address, `127.0.0.1:port`.
    pub(crate) brokers: String,
    jars: PathBuf,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl KafkaServer {
    /// Starts a broker and waits until `answers` says that it answers a metadata request.
    ///
    /// # Errors
    /// Why there can be none on this machine; the test prints it and is skipped.
    pub(crate) fn start(answers: impl Fn(&str) -> bool) -> Result<Self, String> {
        let jars = jars()?;
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let (port, controller_port) = free_ports()?;
        let properties = PROPERTIES
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER_PORT@", &controller_port.to_string())
            .replace("@LOG_DIR@", &folder.path().join("data").display().to_string());
        fs::write(folder.path().join("server.properties"), properties).map_err(|e| format!("cannot write server.properties: {e}"))?;
        let mut server = Self {
            brokers: format!("127.0.0.1:{port}"),
            jars,
            folder,
            process: None,
        };
        let id = server.java(&["kafka.tools.StorageTool", "random-uuid"]).output();
        let id = id.map_err(|e| format!("cannot run java: {e}"))?;
        let id = String::from_utf8_lossy(&id.stdout).trim().to_owned();
        let format = server
            .java(&["kafka.tools.StorageTool", "format", "-t", &id, "-c", "server.properties"])
            .output();
        let format = format.map_err(|e| format!("cannot run java: {e}"))?;
        if !format.status.success() {
            return Err(format!(
                "kafka's storage could not be formatted: {}",
                String::from_utf8_lossy(&format.stderr).trim()
            ));
        }
        server.run(answers)?;
        Ok(server)
    }

    /// Starts the broker's process on what it has stored, and waits until it answers.
    ///
    /// # Errors
    /// What the broker printed last.
    pub(crate) fn run(&mut self, answers: impl Fn(&str) -> bool) -> Result<(), String> {
        let output = File::create(self.folder.path().join("output")).map_err(|e| format!("cannot write the broker's output: {e}"))?;
        let errors = output.try_clone().map_err(|e| format!("cannot write the broker's output: {e}"))?;
        let process = self
            .java(&["kafka.Kafka", "server.properties"])
            .stdout(output)
            .stderr(errors)
            .spawn();
        let process = self.process.insert(process.map_err(|e| format!("cannot run java: {e}"))?);
        let deadline = Instant::now() + START_MAX;
        while !answers(&self.brokers) {
            let has_ended = process.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || Instant::now() > deadline {
                let output = fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
                let last = output
                    .lines()
                    .rev()
                    .find(|line| line.contains("ERROR") || line.contains("Exception"));
                return Err(format!(
                    "kafka did not start: {}",
                    last.or(output.lines().last()).unwrap_or("no output")
                ));
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(())
    }

    /// Kills the broker as `kill -9` does; what it has stored stays. [`KafkaServer::run`] starts it again.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill(); // already gone is as good
            let _ = process.wait();
        }
    }

    fn java(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]);
        command
            .arg(self.jars.join("*"))
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder with Kafka's jars; fetched once per user.
fn jars() -> Result<PathBuf, String> {
    if Command::new("java").arg("-version").output().is_err() {
        return Err("`java` is not installed".into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("flexmeter");
    let jars = cache.join(format!("kafka-{VERSION}"));
    if !jars.join(format!("kafka_2.13-{VERSION}.jar")).exists() {
        fetch_jars(&cache, &jars)?;
    }
    Ok(jars)
}

/// Fetches into a folder beside it first: half a set of jars must never look like a whole one.
fn fetch_jars(cache: &Path, jars: &Path) -> Result<(), String> {
    fs::create_dir_all(cache).map_err(|e| format!("cannot make {}: {e}", cache.display()))?;
    let work = tempfile::tempdir_in(cache).map_err(|e| format!("cannot write to {}: {e}", cache.display()))?;
    fs::write(work.path().join("pom.xml"), POM).map_err(|e| format!("cannot write pom.xml: {e}"))?;
    let mvn = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"])
        .current_dir(work.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("`mvn`, which fetches kafka's jars, cannot be run: {e}"))?;
    if !mvn.status.success() {
        let text = String::from_utf8_lossy(&mvn.stdout).into_owned();
        return Err(format!(
            "mvn could not fetch kafka's jars: {}",
            text.lines().next().unwrap_or("no output")
        ));
    }
    match fs::rename(work.path().join("libs"), jars) {
        Err(error) if !jars.exists() => Err(format!("cannot move kafka's jars to {}: {error}", jars.display())),
        _ => Ok(()), // another test may have been first
    }
}

fn free_ports() -> Result<(u16, u16), String> {
    let free = || TcpListener::bind("127.0.0.1:0").map_err(|e| format!("no free port: {e}"));
    let (a, b) = (free()?, free()?);
    let port = |listener: &TcpListener| {
        listener
            .local_addr()
            .map(|address| address.port())
            .map_err(|e| format!("no free port: {e}"))
    };
    Ok((port(&a)?, port(&b)?))
}
