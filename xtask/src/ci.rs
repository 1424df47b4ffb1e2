//! `cargo xtask ci`: one list of checks, the cheap ones first. The list stops at the first failure.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{layers, one_build};

/// How much to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All checks and all tests.
    Everything,
    /// All checks that are not tests.
    AllButTests,
}

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("fmt", || cargo(&["fmt", "--all", "--check"], &[])),
    ("layers", layers::check_workspace),
    ("one-build", one_build::check_workspace),
    ("one-arrow", one_build::check_one_arrow),
    ("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
    }),
    ("doc", || {
        cargo(
            &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"],
            // whoever reads these pages has the source, so a link may lead to something private
            &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")],
        )
    }),
    ("deny", deny),
];

/// Last, so that a log ends with the test runner's summary. It includes the check that `docs/reference` is current.
const TESTS: Step = ("test", || cargo(&["test", "--workspace", "--locked"], &[]));

/// Runs the steps and prints how long each took.
pub(crate) fn run(scope: Scope) -> Result<()> {
    let tests: &[Step] = if scope == Scope::Everything { &[TESTS] } else { &[] };
    for (name, step) in STEPS.iter().chain(tests) {
        println!("== {name}");
        let start = Instant::now();
        step().with_context(|| format!("step {name}"))?;
        println!("== {name}: ok, {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn deny() -> Result<()> {
    let installed = cargo_command()
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !installed {
        println!("skipped: cargo-deny not installed (cargo install cargo-deny)");
        return Ok(());
    }
    cargo(&["deny", "--locked", "check"], &[])
}

fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    succeed(cargo_command().args(arguments).envs(variables.iter().copied()))
}

/// Cargo as a user's shell would start it. `cargo run`, which started us, sets variables of this package (`CARGO_PKG_NAME`,
/// `CARGO_MANIFEST_DIR`); build scripts that watch them (ring's) would run again, and half the world would be built anew.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if name
            .to_str()
            .is_some_and(|name| of_package.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command with our own output and fails when it fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
