//! `docs/reference/*.md` is generated from code, so that it cannot lie. The knowledge sits in crates that are too heavy to depend on
//! here, so the root's test `reference` renders the pages and compares them; with the variable below it writes them instead.

use anyhow::Result;

use crate::ci::{cargo_command, succeed};

/// Set to make the test write the pages.
const WRITE_VARIABLE: &str = "FLEXMETER_WRITE_REFERENCE";

/// What to do with the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write them.
    Write,
    /// Fail when they differ from what the code says.
    Compare,
}

/// Runs the test that knows the pages. The whole workspace is selected, because one package alone unifies features differently and
/// would build the dependencies a second time.
pub(crate) fn run(mode: Mode) -> Result<()> {
    let mut command = cargo_command();
    command.args(["test", "--quiet", "--workspace", "--test", "it", "--", "reference::"]);
    if mode == Mode::Write {
        command.env(WRITE_VARIABLE, "1");
    }
    succeed(&mut command)
}
