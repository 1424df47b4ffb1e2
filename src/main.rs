//! The `flexmeter` binary: the only crate that sees every room. It joins the doors, the engine and the counter with bounded channels.
//!
//! Start reading in [`cli`] for what a user can ask, then [`up`] for how the roles are started and [`pipeline`] for how a record moves.

mod alignment;
mod bench;
mod bundles;
mod checkpoint;
mod cli;
mod config;
mod demo;
mod doctor;
mod fault_door;
mod grid;
mod grid_book;
mod grid_topics;
mod install;
mod pipeline;
mod replay;
mod report;
mod retention;
mod secrets;
mod sql;
mod suggestions;
mod supervision;
mod up;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // two providers are linked (ring comes with object_store); without a choice rustls panics at the first handshake
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("flexmeter: a TLS provider was installed twice");
    }
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("flexmeter: {error:#}");
            cli::exit_code(&error)
        }
    }
}
