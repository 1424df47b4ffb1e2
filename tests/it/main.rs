//! End to end, through the binary: real processes, temporary folders, free ports. One test binary, because each one links everything.
//!
//! Start with [`server`], which runs `flexmeter up`; [`mqtt`] is a client written by hand, so that the broker is judged by bytes and not
//! by another library's opinion. What needs a program or a recording that is not on this machine says so on stderr and is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod cli;
mod clients;
mod foreign;
mod grid;
mod idle;
mod kill;
mod ledger;
mod mqtt;
mod operations;
mod outages;
mod proposals;
mod readme;
mod recording;
mod reference;
mod server;
mod street;

use std::io::Write as _;

/// Held by a test that puts load on its server: two of them at once would measure each other.
static LOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Says on the real stderr, past the test runner's capture, that something was not tested here.
fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
