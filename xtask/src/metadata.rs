//! The little of `cargo metadata` that the checks look at.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ci::cargo_command;

/// Why a crate depends on another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `[dependencies]` and `[build-dependencies]`: it ends up in what we ship, or decides how that is built.
    Shipped,
    /// `[dev-dependencies]`: tests only.
    Test,
}

/// The dependency graph, by crate name. Versions do not matter to the layer rules, so crates of one name are one.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// The crates of this workspace with what their manifests name.
    pub(crate) members: BTreeMap<String, BTreeSet<(Kind, String)>>,
    /// Every crate with the shipped dependencies the resolver found for it.
    pub(crate) shipped: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Runs `cargo metadata` in the current workspace.
    pub(crate) fn load() -> Result<Self> {
        let output = cargo_command()
            .args(["metadata", "--format-version", "1", "--locked"])
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Self::parse(&serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?)
    }

    /// Reads the JSON that `cargo metadata --format-version 1` prints.
    pub(crate) fn parse(metadata: &Value) -> Result<Self> {
        let packages = array(metadata, "packages")?;
        let mut names = BTreeMap::new();
        for package in packages {
            names.insert(text(package, "id")?, text(package, "name")?);
        }
        let name_of = |id: &str| {
            names
                .get(id)
                .copied()
                .with_context(|| format!("cargo metadata names no package {id}"))
        };

        let member_ids: BTreeSet<&str> = array(metadata, "workspace_members")?.iter().filter_map(Value::as_str).collect();
        let mut graph = Self::default();
        for package in packages
            .iter()
            .filter(|package| package["id"].as_str().is_some_and(|id| member_ids.contains(id)))
        {
            let named = array(package, "dependencies")?
                .iter()
                .map(|dependency| {
                    let kind = if dependency["kind"].as_str() == Some("dev") {
                        Kind::Test
                    } else {
                        Kind::Shipped
                    };
                    Ok((kind, text(dependency, "name")?.to_owned()))
                })
                .collect::<Result<_>>()?;
            graph.members.insert(text(package, "name")?.to_owned(), named);
        }
        for node in array(&metadata["resolve"], "nodes")? {
            let reached = graph.shipped.entry(name_of(text(node, "id")?)?.to_owned()).or_default();
            for dependency in array(node, "deps")? {
                if array(dependency, "dep_kinds")?
                    .iter()
                    .any(|kind| kind["kind"].as_str() != Some("dev"))
                {
                    reached.insert(name_of(text(dependency, "pkg")?)?.to_owned());
                }
            }
        }
        Ok(graph)
    }

    /// A shortest chain of shipped dependencies from one crate to another, both included.
    pub(crate) fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, Option<&str>> = BTreeMap::from([(from, None)]);
        let mut queue = std::collections::VecDeque::from([from]);
        while let Some(here) = queue.pop_front() {
            if here == to {
                let mut path = vec![here.to_owned()];
                let mut step = here;
                while let Some(Some(previous)) = came_from.get(step).copied() {
                    path.push(previous.to_owned());
                    step = previous;
                }
                path.reverse();
                return Some(path);
            }
            for next in self.shipped.get(here).into_iter().flatten() {
                if !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, Some(here));
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

fn array<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field]
        .as_array()
        .with_context(|| format!("cargo metadata has no list `{field}`"))
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field]
        .as_str()
        .with_context(|| format!("cargo metadata has no text `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_shortest_chain_and_test_dependencies_are_no_part_of_it() {
        let node = |name: &str, deps: &[(&str, Option<&str>)]| {
            let deps: Vec<_> = deps
                .iter()
                .map(|(dep, kind)| serde_json::json!({"pkg": dep, "dep_kinds": [{"kind": kind}]}))
                .collect();
            serde_json::json!({"id": name, "deps": deps})
        };
        let package = |name: &str| serde_json::json!({"id": name, "name": name, "dependencies": []});
        let graph = Graph::parse(&serde_json::json!({
            "packages": [package("a"), package("b"), package("c"), package("d")],
            "workspace_members": ["a"],
            "resolve": {"nodes": [node("a", &[("b", None), ("d", Some("dev"))]), node("b", &[("c", Some("build"))]), node("c", &[]), node("d", &[])]},
        }))
        .unwrap();
        assert_eq!(graph.path("a", "c").unwrap(), ["a", "b", "c"]);
        assert_eq!(graph.path("a", "d"), None);
    }
}
