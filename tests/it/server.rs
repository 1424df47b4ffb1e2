//! `flexmeter up` as a child process: started on free ports, killed or stopped by its pid, restarted on the same data.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const FLEXMETER: &str = env!("CARGO_BIN_EXE_flexmeter");
/// The password of `admin` where the server is not insecure.
pub(crate) const ADMIN_PASSWORD: &str = "a password of the tests";
/// How long a start may take before the test gives up. Slower than the promised ten seconds: the promise is asserted where it is tested.
const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const SQL_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// Where the process listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) mqtt: SocketAddr,
    pub(crate) rest: SocketAddr,
    pub(crate) flight: SocketAddr,
}

/// A server, running or killed; its data is removed at the end.
pub(crate) struct Server {
    folder: TempDir,
    settings: Vec<(String, String)>,
    secure: bool,
    child: Option<Child>,
    addresses: Option<Addresses>,
    http: reqwest::Client,
}

impl Server {
    /// A server that takes any login (`insecure = true`).
    pub(crate) fn insecure() -> Self {
        Self::new(false, &[])
    }

    /// A server with logins: admin's password is [`ADMIN_PASSWORD`], devices have [`Server::device_password`].
    pub(crate) fn secure() -> Self {
        Self::new(true, &[])
    }

    /// An insecure server with settings, as `("engine.checkpoint_s", "1")`.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        Self::new(false, settings)
    }

    fn new(secure: bool, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("admin-password"), ADMIN_PASSWORD).unwrap();
        let settings = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let mut server = Self {
            folder,
            settings,
            secure,
            child: None,
            addresses: None,
            http: reqwest::Client::new(),
        };
        server.start();
        server
    }

    /// Starts the process on the folder's data, waits until it is ready, and says how long that took.
    pub(crate) fn start(&mut self) -> Duration {
        let started = Instant::now();
        let ready = self.spawn();
        let line = match ready.recv_timeout(START_DEADLINE) {
            Ok(line) => line,
            Err(error) => panic!("flexmeter up is not ready: {error}\n{}", self.log_tail()),
        };
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(answer["ready"], true, "{line}");
        let address = |key: &str| {
            answer[key]
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("no {key} in {line}"))
        };
        self.addresses = Some(Addresses {
            mqtt: address("mqtt"),
            rest: address("rest"),
            flight: address("flight"),
        });
        started.elapsed()
    }

    /// Starts the process and does not wait; its first line of stdout arrives through the channel.
    pub(crate) fn spawn(&mut self) -> mpsc::Receiver<String> {
        assert!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.command(&[
            "up",
            "--json",
            "--mqtt",
            "127.0.0.1:0",
            "--rest",
            "127.0.0.1:0",
            "--flight",
            "127.0.0.1:0",
        ]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        self.child = Some(child);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        receiver
    }

    /// The binary with this installation's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(FLEXMETER);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("FLEXMETER__DATA_DIR", self.data_dir());
        if self.secure {
            command.env("FLEXMETER__AUTH__ADMIN_PASSWORD_FILE", self.folder.path().join("admin-password"));
        } else {
            command.env("FLEXMETER__INSECURE", "true");
        }
        for (key, value) in &self.settings {
            command.env(format!("FLEXMETER__{}", key.to_uppercase().replace('.', "__")), value);
        }
        command
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses.expect("the server has been started")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The default tenant's part of the lake.
    pub(crate) fn lake(&self) -> PathBuf {
        self.data_dir().join("lake").join("default")
    }

    /// The MQTT password of a device of the default tenant.
    pub(crate) fn device_password(&self, hardware_id: &str) -> String {
        let output = self.command(&["devices", "token", "--json", hardware_id]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["password"].as_str().unwrap().to_owned()
    }

    /// `kill -9`: no destructor, no flush, no goodbye.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks the process to stop (SIGTERM) and waits until it has.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "flexmeter up ended with {status}\n{}", self.log_tail());
                return;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("flexmeter up does not stop\n{}", self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether the process is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Rows of a statement over REST, as JSON objects.
    pub(crate) async fn sql(&self, statement: &str) -> Vec<Value> {
        match self.try_sql(statement).await {
            Ok(rows) => rows,
            Err(error) => panic!("{error}\n{statement}\n{}", self.log_tail()),
        }
    }

    async fn try_sql(&self, statement: &str) -> Result<Vec<Value>, String> {
        let request = self
            .http
            .post(self.url("/api/v1/sql"))
            .basic_auth("admin", Some(ADMIN_PASSWORD))
            .header("accept", "application/json")
            .json(&serde_json::json!({ "sql": statement }))
            .timeout(SQL_DEADLINE);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// The one number a statement answers.
    pub(crate) async fn count(&self, statement: &str) -> u64 {
        let rows = self.sql(statement).await;
        let [row] = rows.as_slice() else {
            panic!("{} rows for {statement}", rows.len())
        };
        let value = row.as_object().and_then(|row| row.values().next()).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no number in {row} for {statement}"))
    }

    /// Waits until a statement answers this number.
    pub(crate) async fn wait_for_count(&self, statement: &str, expected: u64, deadline: Duration) {
        let started = Instant::now();
        loop {
            let found = self.count(statement).await;
            if found == expected {
                return;
            }
            assert!(
                started.elapsed() < deadline,
                "{found} instead of {expected} after {deadline:?}: {statement}\n{}",
                self.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// A REST answer's status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = self
            .http
            .get(self.url(path))
            .basic_auth("admin", Some(ADMIN_PASSWORD))
            .timeout(SQL_DEADLINE);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The same for a PUT of a JSON body.
    pub(crate) async fn put(&self, path: &str, body: &str) -> (u16, String) {
        self.send(self.http.put(self.url(path)), body).await
    }

    /// The same for a POST.
    pub(crate) async fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.send(self.http.post(self.url(path)), body).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, body: &str) -> (u16, String) {
        let request = request
            .basic_auth("admin", Some(ADMIN_PASSWORD))
            .header("content-type", "application/json")
            .body(body.to_owned())
            .timeout(SQL_DEADLINE);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses().rest)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("stderr.log")
    }

    fn log_tail(&self) -> String {
        tail(&self.log_file(), 40)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's last words:\n{}", self.log_tail());
        }
        self.kill();
    }
}

fn tail(file: &Path, n_lines: usize) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n_lines)..].join("\n")
}
