//! The layer table of ARCHITECTURE.md, checked against `cargo metadata`.
//!
//! Two kinds of rule. A room's manifest names only what the table lets it name (`ours`, and `external` for the pure rooms). And some
//! crates must not be reached at all, however long the chain (`never`), because the room's promise rests on their absence.

use anyhow::{Result, bail};

use crate::metadata::{Graph, Kind};

/// What one crate of the workspace may depend on.
struct Room {
    name: &'static str,
    /// Crates of this workspace it may name, also in tests.
    ours: &'static [&'static str],
    /// External crates it may name; `None` where only `never_named` and `never` restrict it.
    external: Option<&'static [&'static str]>,
    /// External crates its manifest must not name.
    never_named: &'static [&'static str],
    /// Crates that must not be in its shipped graph at all.
    never: &'static [&'static str],
    /// Why: printed with every violation.
    reason: &'static str,
}

/// Runtimes, sockets, stores: what a pure room has no use for.
const IO: &[&str] = &[
    "tokio",
    "mio",
    "hyper",
    "axum",
    "tonic",
    "reqwest",
    "rmqtt",
    "rumqttc",
    "rdkafka",
    "fjall",
    "object_store",
    "deltalake",
    "datafusion",
];
const COLUMNS: &[&str] = &["arrow", "parquet", "arrow-flight"];
const STREET: &[&str] = &["timely", "differential-dataflow"];

const ROOMS: &[Room] = &[
    Room {
        name: "flexmeter-model",
        ours: &[],
        external: Some(&["serde", "thiserror", "memchr", "xxhash-rust"]),
        never_named: &[],
        never: &["getrandom", "chrono"],
        reason: "the model is pure and every other crate is compiled after it: no I/O, no clock, no randomness. \
                 A new crate that is pure, too, is added to `external` in xtask/src/layers.rs",
    },
    Room {
        name: "flexmeter-grid",
        ours: &["flexmeter-model"],
        external: Some(&["nalgebra", "pulp", "serde", "serde_json", "statrs", "thiserror"]),
        never_named: &[],
        never: &["getrandom", "chrono", "rayon", "timely", "differential-dataflow", "arrow"],
        reason: "the grid engine is pure numerics: text or numbers in, numbers out, the same answer each time; no I/O, no clock, no threads",
    },
    Room {
        name: "flexmeter-tables",
        ours: &["flexmeter-model"],
        external: Some(&["arrow", "thiserror", "rustc-hash", "serde_json"]),
        never_named: &[],
        never: &["timely", "differential-dataflow"],
        reason: "tables turns outcomes into Arrow and does nothing else: pure, and the only core crate that sees Arrow",
    },
    Room {
        name: "flexmeter-dataflows",
        ours: &["flexmeter-model", "flexmeter-grid", "flexmeter-demand"],
        external: None,
        never_named: &["chrono", "getrandom", "rand"],
        never: &["arrow", "parquet", "arrow-flight"],
        reason: "the street computes from the log alone, so that a replay gives the same answers: no clock, no randomness, no I/O; \
                 rows leave as `model::outcome`, Arrow begins in tables",
    },
    Room {
        name: "flexmeter-connectors",
        ours: &["flexmeter-model", "flexmeter-tables", "flexmeter-dia"],
        external: None,
        never_named: &["datafusion", "axum", "arrow-flight"],
        never: STREET,
        reason: "a door moves bytes; it neither queries nor computes. `src` joins it with the street and the counter by bounded channels",
    },
    Room {
        name: "flexmeter-queries",
        ours: &["flexmeter-model", "flexmeter-tables", "flexmeter-registry"],
        external: None,
        never_named: &["deltalake", "fjall", "rumqttc"],
        never: &["timely", "differential-dataflow", "rdkafka", "rmqtt"],
        reason: "the counter answers from what it is handed (closed epochs, table providers); it never reaches into the street or the doors",
    },
    Room {
        name: "xtask",
        ours: &[],
        external: Some(&["anyhow", "serde_json"]),
        never_named: &[],
        never: &[],
        reason: "xtask is run before anything has been built, so it stays light",
    },
];

/// The binary: the only crate that sees everything.
const ROOT: &str = "flexmeter";

/// Rooms without I/O: their `never` list is extended by [`IO`].
const PURE: &[&str] = &["flexmeter-model", "flexmeter-grid", "flexmeter-tables", "flexmeter-dataflows"];

/// Checks this workspace.
pub(crate) fn check_workspace() -> Result<()> {
    let violations = violations(&Graph::load()?);
    if violations.is_empty() {
        println!("layers: every crate keeps to its layer");
        return Ok(());
    }
    for violation in &violations {
        eprintln!("{violation}\n");
    }
    bail!("{} violation(s) of the layer table (ARCHITECTURE.md)", violations.len())
}

/// Every violation of the table, in words.
fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (member, named) in &graph.members {
        if member == ROOT {
            continue;
        }
        let Some(room) = ROOMS.iter().find(|room| room.name == member) else {
            found.push(format!(
                "{member} is not in the layer table; add it to ROOMS in xtask/src/layers.rs and to ARCHITECTURE.md"
            ));
            continue;
        };
        let names = named.iter().filter_map(|(kind, name)| named_violation(graph, room, *kind, name));
        found.extend(names);
        found.extend(never(room).filter_map(|absent| reached_violation(graph, room, absent)));
    }
    found
}

fn never(room: &Room) -> impl Iterator<Item = &'static str> {
    let io: &[&str] = if PURE.contains(&room.name) { IO } else { &[] };
    let columns: &[&str] = if room.name == "flexmeter-model" { COLUMNS } else { &[] };
    let street: &[&str] = if room.name == "flexmeter-model" { STREET } else { &[] };
    room.never.iter().chain(io).chain(columns).chain(street).copied()
}

fn named_violation(graph: &Graph, room: &Room, kind: Kind, name: &str) -> Option<String> {
    let is_ours = graph.members.contains_key(name);
    let allowed = match (is_ours, kind, room.external) {
        (true, _, _) => room.ours.contains(&name),
        (false, Kind::Test, _) => true,
        (false, Kind::Shipped, Some(external)) => external.contains(&name),
        (false, Kind::Shipped, None) => !room.never_named.contains(&name),
    };
    if allowed {
        return None;
    }
    let section = if kind == Kind::Test { "dev-dependencies" } else { "dependencies" };
    Some(format!(
        "{} must not name {name} in its [{section}]\n  because: {}",
        room.name, room.reason
    ))
}

fn reached_violation(graph: &Graph, room: &Room, absent: &str) -> Option<String> {
    let path = graph.path(room.name, absent)?;
    Some(format!(
        "{} must never see {absent}, but reaches it: {}\n  because: {}",
        room.name,
        path.join(" -> "),
        room.reason
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of `member: dependency dependency(dev) …` lines; every named dependency is also resolved.
    fn graph(lines: &[&str]) -> Graph {
        let mut graph = Graph::default();
        for line in lines {
            let (name, dependencies) = line.split_once(':').unwrap();
            for dependency in dependencies.split_whitespace() {
                match dependency.strip_suffix("(dev)") {
                    Some(dependency) => {
                        graph
                            .members
                            .entry(name.into())
                            .or_default()
                            .insert((Kind::Test, dependency.into()));
                    }
                    None => {
                        graph.shipped.entry(name.into()).or_default().insert(dependency.into());
                        if name.starts_with("flexmeter") || name == "xtask" {
                            graph
                                .members
                                .entry(name.into())
                                .or_default()
                                .insert((Kind::Shipped, dependency.into()));
                        }
                    }
                }
            }
        }
        graph
    }

    fn check(lines: &[&str], expected: &[&str]) {
        let found = violations(&graph(lines));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} does not say {expected:?}");
        }
    }

    #[test]
    fn a_workspace_that_keeps_to_the_table_has_no_violation() {
        check(
            &[
                "flexmeter-model: serde thiserror proptest(dev)",
                "flexmeter-tables: flexmeter-model arrow",
                "flexmeter-dataflows: flexmeter-model timely differential-dataflow serde_json(dev)",
                "flexmeter-connectors: flexmeter-model flexmeter-tables deltalake rmqtt tokio",
                "deltalake: datafusion",
                "flexmeter-queries: flexmeter-model flexmeter-tables datafusion axum tokio",
                "flexmeter: flexmeter-model flexmeter-queries flexmeter-connectors tokio",
            ],
            &[],
        );
    }

    #[test]
    fn a_pure_room_names_only_what_is_listed() {
        check(
            &["flexmeter-model: serde rand"],
            &["flexmeter-model must not name rand in its [dependencies]"],
        );
    }

    #[test]
    fn a_forbidden_crate_is_found_at_the_end_of_a_chain() {
        check(
            &[
                "flexmeter-dataflows: flexmeter-model nice-crate",
                "flexmeter-model: serde",
                "nice-crate: tokio",
            ],
            &["flexmeter-dataflows must never see tokio, but reaches it: flexmeter-dataflows -> nice-crate -> tokio"],
        );
    }

    #[test]
    fn rooms_of_one_layer_do_not_import_each_other_even_in_tests() {
        check(
            &["flexmeter-queries: axum flexmeter-connectors(dev)", "flexmeter-connectors: rmqtt"],
            &["flexmeter-queries must not name flexmeter-connectors in its [dev-dependencies]"],
        );
    }

    #[test]
    fn a_door_may_reach_datafusion_through_delta_but_not_name_it() {
        check(
            &["flexmeter-connectors: deltalake datafusion", "deltalake: datafusion"],
            &["flexmeter-connectors must not name datafusion"],
        );
    }

    #[test]
    fn a_new_crate_must_be_given_a_layer() {
        check(&["flexmeter-weather: serde"], &["flexmeter-weather is not in the layer table"]);
    }

    #[test]
    fn a_violation_says_why() {
        let found = violations(&graph(&["flexmeter-queries: timely"]));
        assert!(
            found
                .iter()
                .all(|text| text.contains("because: the counter answers from what it is handed")),
            "{found:#?}"
        );
    }
}
