//! The README's two commands, `cargo run -p flexmeter` and `cargo test --workspace`, must share one build of the dependencies. They do
//! when both ask for every dependency with the same features: a feature that only the tests switch on (through a dev-dependency, say)
//! would compile that crate, and everything above it, a second time.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::ci::cargo_command;

/// Checks this workspace: the demo's crates and features, all of them also the tests'.
pub(crate) fn check_workspace() -> Result<()> {
    let demo = tree(&["--package", "flexmeter", "--edges", "no-dev"])?;
    let tests = tree(&["--workspace"])?;
    let twice: Vec<_> = demo.difference(&tests).collect();
    if twice.is_empty() {
        println!("one-build: the tests reuse all {} crates of the demo", demo.len());
        return Ok(());
    }
    for line in &twice {
        let name = line.split(' ').next().unwrap_or_default();
        eprintln!("  demo:  {line}");
        for other in tests.iter().filter(|other| other.split(' ').next() == Some(name)) {
            eprintln!("  tests: {other}");
        }
    }
    bail!(
        "{} crate(s) have other features in the tests than in the demo and would be built twice",
        twice.len()
    )
}

/// Checks that the graph holds one arrow only: two versions cannot exchange a record batch.
pub(crate) fn check_one_arrow() -> Result<()> {
    let versions: BTreeSet<String> = tree(&["--workspace"])?
        .into_iter()
        .filter(|line| line.starts_with("arrow "))
        .collect();
    match versions.len() {
        0 | 1 => Ok(()),
        n => bail!("{n} versions of arrow in the graph: {versions:?}; pin the one DataFusion and deltalake use"),
    }
}

fn tree(selection: &[&str]) -> Result<BTreeSet<String>> {
    let output = cargo_command()
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p} [{f}]"])
        .args(selection)
        .output()
        .context("cannot run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(normalise).collect())
}

/// `name v1.2.3 (proc-macro) [features] (*)` without the marks that depend on where in the tree the crate stands.
fn normalise(line: &str) -> Option<String> {
    let name_and_version: Vec<&str> = line.split_whitespace().take(2).collect();
    let features = line.get(line.find('[')?..=line.rfind(']')?)?;
    let [name, version] = name_and_version.as_slice() else {
        return None;
    };
    Some(format!("{name} {version} {features}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        assert_eq!(normalise(line).as_deref(), expected);
    }

    #[test]
    fn a_line_of_the_tree_is_a_crate_with_its_features() {
        check(
            "serde v1.0.229 [default,derive,std] (*)",
            Some("serde v1.0.229 [default,derive,std]"),
        );
        check(
            "serde_derive v1.0.229 (proc-macro) [default]",
            Some("serde_derive v1.0.229 [default]"),
        );
        check(
            "flexmeter v0.1.0 (/a/folder) [default,kafka]",
            Some("flexmeter v0.1.0 [default,kafka]"),
        );
        check("zerocopy v0.8.1 []", Some("zerocopy v0.8.1 []"));
        check("", None);
    }
}
