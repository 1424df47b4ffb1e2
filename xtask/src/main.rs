//! Checks and chores of the workspace. `cargo xtask ci` is what the CI runs; nothing else decides whether a change is fit to merge.
//!
//! This crate stays light (anyhow, serde_json): a newcomer runs it before anything else has been built. It never depends on a crate of
//! ours; the reference documents that come from code are checked by the tests of the crates that know them (see [`docs`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod ci;
mod docs;
mod layers;
mod metadata;
mod one_build;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

commands:
  ci              every check of `lint`, then `cargo test --workspace`
  lint            fmt, layers, one-build, one arrow, clippy, docs, cargo-deny: everything but the tests
  layers          who may depend on whom (ARCHITECTURE.md)
  one-build       the README's two commands share one build of the dependencies
  docs [--check]  write (or compare) docs/reference, which is generated from code";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["ci"] => ci::run(ci::Scope::Everything),
        ["lint"] => ci::run(ci::Scope::AllButTests),
        ["layers"] => layers::check_workspace(),
        ["one-build"] => one_build::check_workspace(),
        ["docs"] => docs::run(docs::Mode::Write),
        ["docs", "--check"] => docs::run(docs::Mode::Compare),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
