//! Grid bundles from disk: texts for the grid engine, and the same bundle as the counter shows it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use flexmeter_dataflows::Grid;
use flexmeter_grid::GridError;
use flexmeter_grid::bundle::{Bundle, Meter, Role, read_names};
use flexmeter_grid::fault::{LineFacts, line_facts};
use flexmeter_grid::network::{BranchKind, ComponentId, Network};
use flexmeter_model::grid_bundle::{BundleArea, BundleBranch, BundleMeter, BundleNode, BundleSwitch};
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::{GridBundle, HardwareId, TenantId};

use crate::config::{Config, ConfigError};

/// The grids of all tenants, as the engine and as the counter want them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grids {
    /// For the engine.
    pub(crate) engine: BTreeMap<TenantId, Arc<Grid>>,
    /// For the counter.
    pub(crate) shown: BTreeMap<TenantId, Arc<GridBundle>>,
    /// For fault location: lengths, phases and protective devices of branches, as far as a bundle gives them.
    pub(crate) lines: BTreeMap<TenantId, Arc<Lines>>,
}

/// What `lines.csv` says, by id of the branch.
pub(crate) type Lines = HashMap<ComponentId, LineFacts>;

impl Grids {
    /// Reads the bundles that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError::Bundle`] with the key, the folder, and what is wrong in which file and line.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let mut grids = Self::default();
        for (key, tenant, folder) in config.grid_folders()? {
            let failed = |reason: String| ConfigError::Bundle {
                key: key.clone(),
                folder: folder.to_owned(),
                reason,
            };
            grids.insert(tenant, read(folder).map_err(failed)?);
        }
        Ok(grids)
    }

    /// Gives a tenant this grid.
    pub(crate) fn insert(&mut self, tenant: TenantId, grid: TenantGrid) {
        self.engine.insert(tenant.clone(), Arc::new(grid.engine));
        self.lines.insert(tenant.clone(), Arc::new(grid.lines));
        self.shown.insert(tenant, Arc::new(grid.shown));
    }
}

/// One bundle, as everybody wants it.
#[derive(Debug)]
pub(crate) struct TenantGrid {
    pub(crate) engine: Grid,
    pub(crate) shown: GridBundle,
    pub(crate) lines: Lines,
}

/// Reads a bundle; the error names the file, and says what to do.
pub(crate) fn read(folder: &Path) -> Result<TenantGrid, String> {
    let text = |file: &str| {
        std::fs::read_to_string(folder.join(file))
            .map_err(|error| format!("{file}: {error}; a bundle has network.json, areas.csv, meters.csv and switches.csv"))
    };
    let words = |error: GridError| match &error {
        // these name their file; everything else is about the network or what came of it
        GridError::Bundle { .. } | GridError::Area { .. } => error.to_string(),
        _ => format!("network.json: {error}"),
    };
    let bundle = Bundle::from_texts(
        &text("network.json")?,
        &text("areas.csv")?,
        &text("meters.csv")?,
        &text("switches.csv")?,
    )
    .map_err(words)?;
    if bundle.network.nodes().is_empty() {
        return Err("network.json: has no node; there is nothing to estimate".to_owned());
    }
    check_devices(&bundle)?;
    let names = if folder.join("names.csv").exists() {
        read_names(&bundle.network, &text("names.csv")?).map_err(words)?
    } else {
        HashMap::new()
    };
    let lines = if folder.join("lines.csv").exists() {
        read_lines(&bundle.network, &text("lines.csv")?)?
    } else {
        Lines::new()
    };
    let engine = Grid::new(bundle).map_err(words)?;
    let shown = shown(&engine, &names);
    Ok(TenantGrid { engine, shown, lines })
}

fn read_lines(network: &Network, text: &str) -> Result<Lines, String> {
    let lines = line_facts(text).map_err(|error| error.to_string())?;
    match lines.keys().filter(|id| network.branch_index(**id).is_none()).min() {
        Some(id) => Err(format!("lines.csv: branch {id} is not in network.json")),
        None => Ok(lines),
    }
}

/// A device whose name cannot be a topic level could never be heard.
fn check_devices(bundle: &Bundle) -> Result<(), String> {
    let check = |file: &str, index: usize, id: &str| {
        // the header is line 1
        let refused = |why: String| {
            Err(format!(
                "{file} line {}: hardware_id {id:?}: {why}; use the id that the device sends",
                index + 2
            ))
        };
        match HardwareId::new(id) {
            Ok(id) if id.as_str() == OPERATOR => refused("is the platform's own".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => refused(error.to_string()),
        }
    };
    for (index, meter) in bundle.meters.iter().enumerate() {
        check("meters.csv", index, &meter.hardware_id)?;
    }
    // a switch may have none: then it is operated in the name of its branch
    for (index, switch) in bundle
        .switches
        .iter()
        .enumerate()
        .filter(|(_, switch)| !switch.hardware_id.is_empty())
    {
        check("switches.csv", index, &switch.hardware_id)?;
    }
    Ok(())
}

/// The bundle as tables show it.
fn shown(grid: &Grid, names: &HashMap<i64, String>) -> GridBundle {
    let bundle = grid.bundle();
    let network = &bundle.network;
    let mut paths: BTreeMap<&str, Arc<str>> = BTreeMap::new();
    for path in grid.areas() {
        paths.insert(path, path.as_str().into());
    }
    let path_of = |node: usize| paths[bundle.areas[node].as_str()].clone();
    let feeders = feeders(network);
    let name = |id: i64| names.get(&id).cloned();
    let count = |of: &mut dyn Iterator<Item = usize>| {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for node in of {
            *counts.entry(bundle.areas[node].as_str()).or_default() += 1;
        }
        counts
    };
    let n_nodes = count(&mut (0..network.nodes().len()));
    let n_meters = count(&mut bundle.meters.iter().map(|meter| meter.node));
    GridBundle {
        is_three_phase: grid.is_three_phase(),
        areas: paths
            .iter()
            .map(|(&path, shared)| BundleArea {
                path: shared.clone(),
                level: path.split('/').count() as u32,
                parent: path.rsplit_once('/').and_then(|(parent, _)| paths.get(parent).cloned()),
                n_nodes: n_nodes.get(path).copied().unwrap_or(0),
                n_meters: n_meters.get(path).copied().unwrap_or(0),
            })
            .collect(),
        nodes: network
            .nodes()
            .iter()
            .enumerate()
            .map(|(index, node)| BundleNode {
                id: node.id,
                name: name(node.id),
                area: path_of(index),
                u_rated_v: node.u_rated_v,
                feeder: feeders[index],
            })
            .collect(),
        branches: network
            .branches()
            .iter()
            .map(|branch| BundleBranch {
                id: branch.id,
                name: name(branch.id),
                kind: branch.kind.component(),
                from_node: network.nodes()[branch.from].id,
                to_node: network.nodes()[branch.to].id,
                area: path_of(branch.to),
                is_closed: branch.is_closed(),
                i_rated_a: match &branch.kind {
                    BranchKind::Line(line) => line.i_n_a,
                    _ => None,
                },
            })
            .collect(),
        meters: bundle
            .meters
            .iter()
            .map(|meter| BundleMeter {
                hardware_id: meter.hardware_id.clone(),
                node_id: network.nodes()[meter.node].id,
                area: path_of(meter.node),
                feeder: feeders[meter.node],
                phases: phases(meter),
                role: match meter.role {
                    Role::Customer => "customer",
                    Role::Concentrator => "concentrator",
                    Role::Substation => "substation",
                    Role::Feeder => "feeder",
                },
                accuracy_v: meter.accuracy_v,
                accuracy_p: meter.accuracy_p,
            })
            .collect(),
        switches: bundle
            .switches
            .iter()
            .map(|switch| {
                let branch = &network.branches()[switch.branch];
                BundleSwitch {
                    branch_id: branch.id,
                    hardware_id: grid.switch_device(branch.id).unwrap_or_default(),
                    area: path_of(branch.to),
                    normally_closed: switch.normally_closed,
                    controllable: switch.controllable,
                }
            })
            .collect(),
    }
}

fn phases(meter: &Meter) -> &'static str {
    match meter.phases[..] {
        [0] => "a",
        [1] => "b",
        [2] => "c",
        _ => "abc",
    }
}

/// By node: the branch by which its supply leaves the source. Where there are two ways, that of the nearer source.
fn feeders(network: &Network) -> Vec<Option<i64>> {
    let mut neighbours = vec![Vec::new(); network.nodes().len()];
    for branch in network.branches().iter().filter(|branch| branch.is_closed()) {
        neighbours[branch.from].push((branch.to, branch.id));
        neighbours[branch.to].push((branch.from, branch.id));
    }
    let mut feeders = vec![None; neighbours.len()];
    let mut reached = vec![false; neighbours.len()];
    let mut queue = VecDeque::new();
    for source in network.sources().iter().filter(|source| source.connected) {
        if !std::mem::replace(&mut reached[source.node], true) {
            queue.push_back(source.node);
        }
    }
    while let Some(node) = queue.pop_front() {
        for &(next, branch) in &neighbours[node] {
            if !std::mem::replace(&mut reached[next], true) {
                feeders[next] = feeders[node].or(Some(branch));
                queue.push_back(next);
            }
        }
    }
    feeders
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NETWORK: &str = r#"{"type":"input","data":{"node":[{"id":1,"u_rated":400},{"id":2,"u_rated":400},{"id":3,"u_rated":400}],
        "line":[{"id":5,"from_node":1,"to_node":2,"from_status":1,"to_status":1,"r1":0.1,"x1":0.1,"c1":0,"tan1":0},
                {"id":8,"from_node":2,"to_node":3,"from_status":1,"to_status":1,"r1":0.1,"x1":0.1,"c1":0,"tan1":0}],
        "source":[{"id":6,"node":1,"status":1,"u_ref":1}],
        "sym_load":[{"id":7,"node":2,"status":1,"type":0,"p_specified":0,"q_specified":0}]}}"#;
    const FILES: [(&str, &str); 6] = [
        ("network.json", NETWORK),
        ("areas.csv", "node_id,area\n1,mv1\n2,mv1/lv1\n3,mv1/lv1\n"),
        (
            "meters.csv",
            "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\nM,2,abc,customer,0.005,0.01\n",
        ),
        ("switches.csv", "branch_id,normal,controllable,hardware_id\n8,closed,true,\n"),
        ("names.csv", "id,name\n2,high street\n"),
        ("lines.csv", "branch_id,length_m,phases,device\n8,120,,1\n"),
    ];

    fn read_with(file: &str, text: Option<&str>) -> Result<TenantGrid, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, default) in FILES {
            let text = if name == file { text } else { Some(default) };
            if let Some(text) = text {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
        }
        read(folder.path())
    }

    #[test]
    fn a_bundle_is_shown_with_areas_names_and_feeders() {
        let TenantGrid { shown, lines, .. } = read_with("", None).unwrap();
        let paths: Vec<&str> = shown.areas.iter().map(|area| &*area.path).collect();
        assert_eq!(paths, ["mv1", "mv1/lv1"]);
        assert_eq!((shown.areas[1].n_nodes, shown.areas[1].n_meters), (2, 1));
        assert_eq!(shown.areas[1].parent.as_deref(), Some("mv1"));
        assert_eq!((shown.nodes[0].feeder, shown.nodes[2].feeder), (None, Some(5)));
        assert_eq!(shown.nodes[1].name.as_deref(), Some("high street"));
        assert_eq!((shown.meters[0].phases, shown.meters[0].feeder), ("abc", Some(5)));
        assert_eq!(
            shown.switch(8).unwrap().hardware_id,
            "branch-8",
            "the device it has when the file names none"
        );
        assert!(!shown.is_three_phase, "the lines have no zero sequence");
        assert_eq!((lines[&8].length_m, lines[&8].has_device), (Some(120.0), true));
    }

    #[test]
    fn what_is_wrong_in_a_bundle_is_named_with_its_file() {
        let check = |file: &str, text: Option<&str>, expected: &str| {
            let error = read_with(file, text).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("areas.csv", None, "areas.csv: ");
        check(
            "areas.csv",
            Some("node_id,area\n1,mv1\n9,mv1\n"),
            "areas.csv line 3: node 9 is not in network.json",
        );
        check("network.json", Some("{"), "network.json: the dataset cannot be read");
        check("network.json", Some(r#"{"type":"input","data":{}}"#), "network.json");
        check(
            "meters.csv",
            Some(&FILES[2].1.replace("M,", "a/b,")),
            "meters.csv line 2: hardware_id \"a/b\"",
        );
        check(
            "switches.csv",
            Some("branch_id,normal,controllable,hardware_id\n8,closed,true,a b\n"),
            "switches.csv line 2: hardware_id \"a b\"",
        );
        check("names.csv", Some("id,name\n99,x\n"), "names.csv line 2: 99 is not in network.json");
        check(
            "lines.csv",
            Some("branch_id,length_m,phases,device\n99,1,,\n"),
            "lines.csv: branch 99 is not in network.json",
        );
        check("lines.csv", Some("branch_id,length_m,phases,device\n8,far,,\n"), "lines.csv line 2");
        check(
            "meters.csv",
            Some(&FILES[2].1.replace("M,", "flexmeter-operator,")),
            "meters.csv line 2: hardware_id \"flexmeter-operator\": is the platform's own",
        );
    }

    #[test]
    fn a_bundle_without_names_or_lines_is_a_bundle() {
        assert_eq!(read_with("names.csv", None).unwrap().shown.nodes[1].name, None);
        assert!(read_with("lines.csv", None).unwrap().lines.is_empty());
    }
}
