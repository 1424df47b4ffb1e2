//! Programs other people wrote: Python packages and a JDBC driver, pinned under `tests/clients/` and installed once, in the user's cache
//! folder, under the hash of what is pinned. Where Python or Java is missing the tests say so and are skipped.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::server::Server;
use crate::skipped;

/// The folder of the scripts.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A Python that has the pinned packages, or nothing when this machine has no Python.
pub(crate) fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON
        .get_or_init(|| {
            let has_python = has_program("python3", "--version");
            let environment = has_python
                .then(|| once(&scripts().join("requirements.txt"), install_python))
                .flatten()?;
            Some(environment.join("bin/python"))
        })
        .as_deref()
}

/// A folder with the JDBC driver's jars, or nothing when this machine has no Java compiler or no Maven.
pub(crate) fn jdbc_jars() -> Option<&'static Path> {
    static JARS: OnceLock<Option<PathBuf>> = OnceLock::new();
    JARS.get_or_init(|| {
        let has_java = has_program("javac", "--version") && has_program("mvn", "--version");
        has_java.then(|| once(&scripts().join("jdbc/pom.xml"), install_jars)).flatten()
    })
    .as_deref()
}

/// Runs a Python script of `tests/clients` and reads the JSON line it prints.
pub(crate) fn run_script(python: &Path, script: &str, arguments: &[&str]) -> Value {
    answer(Command::new(python).arg(scripts().join(script)).args(arguments))
}

/// Runs a client and reads the JSON line it prints.
pub(crate) fn answer(command: &mut Command) -> Value {
    let output = run(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    let line = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{command:?} printed no JSON ({error}): {stdout}\n{stderr}"))
}

/// Two independent readers of the lake count this many rows in a table.
pub(crate) fn check_lake_count(server: &Server, table: &str, expected: u64) {
    let Some(python) = python() else {
        return skipped("the lake, counted by deltalake and polars", "no python3");
    };
    let counts = run_script(python, "lake_readers.py", &[server.lake().to_str().unwrap()]);
    let counts = &counts["tables"][table];
    assert_eq!(
        (counts["deltalake"].as_u64(), counts["polars"].as_u64()),
        (Some(expected), Some(expected)),
        "{table}: {counts}"
    );
}

/// Whether a program is there and answers.
pub(crate) fn has_program(program: &str, question: &str) -> bool {
    Command::new(program)
        .arg(question)
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Installs what a file pins into a folder named by the file's hash, unless that has been done before. Another process may do the same
/// at the same time: each builds in a folder of its own, the first rename wins.
fn once(pinned: &Path, install: fn(&Path, &Path) -> Result<(), String>) -> Option<PathBuf> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(pinned).unwrap().hash(&mut hasher);
    let name = pinned.file_name().unwrap().to_string_lossy();
    let folder = cache_folder().join(format!("{name}-{:016x}", hasher.finish()));
    if folder.is_dir() {
        return Some(folder);
    }
    let own = folder.with_extension(std::process::id().to_string());
    std::fs::create_dir_all(&own).unwrap();
    if let Err(why) = install(pinned, &own) {
        let _ = std::fs::remove_dir_all(&own);
        // a machine without network may run the other tests; the CI must not pass by doing less
        assert!(std::env::var_os("CI").is_none(), "{name} cannot be installed: {why}");
        skipped(&name, &why);
        return None;
    }
    if std::fs::rename(&own, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&own);
    }
    Some(folder)
}

fn cache_folder() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let folder = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(home, PathBuf::from)
        .join("flexmeter/clients");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn install_python(requirements: &Path, folder: &Path) -> Result<(), String> {
    done(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    done(
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(requirements),
    )
}

fn install_jars(pom: &Path, folder: &Path) -> Result<(), String> {
    let target = format!("-DoutputDirectory={}", folder.display());
    done(
        Command::new("mvn")
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(pom)
            .args(["dependency:copy-dependencies", &target]),
    )
}

fn done(command: &mut Command) -> Result<(), String> {
    let output = run(command);
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
