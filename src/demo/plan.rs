//! The demo's district as a grid bundle: what an operator would hand over.
//!
//! ```text
//! source ── head ──┬── station ── factory ── station ── … ──┐   rings at 10 kV, one for six stations; every cable of a ring has a
//!                  └────────────── … ────(open switch)──────┘   switch, and the open one is in the wrong place
//!
//! station ──(transformer)── busbar ──(fuse)── joint ── joint ── joint     streets at 400 V
//!                                   └─(fuse)── joint ── joint
//! joint ──(service cable)── concentrator ──┬── household                 ten households behind a concentrator
//! ```

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

/// Households behind a concentrator, concentrators of a street, stations of a ring.
const HOUSEHOLDS: usize = 10;
const STREETS: [usize; 2] = [3, 2];
const STATIONS: usize = 6;
/// The cable of a ring that is open: two stations short of the end.
const OPEN_CABLE: usize = 2 * STATIONS - 2;
/// What lines are made of: Ω/km of the positive and the zero sequence (R1, X1, R0, X0), and A.
const CABLE_10_KV: [f64; 5] = [0.206, 0.12, 0.9, 0.4, 320.0];
const CABLE_400_V: [f64; 5] = [0.206, 0.08, 0.82, 0.25, 270.0];

/// The texts of a bundle, and where things are.
#[derive(Debug)]
pub(super) struct Plan {
    network: Value,
    areas: String,
    meters: String,
    switches: String,
    /// Branch whose fuse blows.
    pub(super) fuse: i64,
    /// Meters of factories: they follow the households in `meters.csv` and among the loads.
    pub(super) n_factories: usize,
}

struct Tables {
    next: i64,
    nodes: Vec<Value>,
    lines: Vec<Value>,
    transformers: Vec<Value>,
    areas: String,
    /// Rows of `meters.csv`: households, factories, and all others.
    households: Vec<String>,
    factories: Vec<String>,
    others: Vec<String>,
    /// Nodes of the loads, in the same order.
    load_nodes: [Vec<i64>; 2],
    switches: String,
}

impl Tables {
    fn id(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn node(&mut self, u_rated_v: u32, area: &str) -> i64 {
        let id = self.id();
        self.nodes.push(json!({"id": id, "u_rated": u_rated_v}));
        // writing to a String cannot fail
        let _ = writeln!(self.areas, "{id},{area}");
        id
    }

    fn line(&mut self, from: i64, to: i64, km: f64, kind: &[f64; 5], closed: bool) -> i64 {
        let [r1, x1, r0, x0, i_n] = kind;
        let (id, status) = (self.id(), u8::from(closed));
        self.lines.push(
            json!({"id": id, "from_node": from, "to_node": to, "from_status": status, "to_status": status, "i_n": i_n,
            "r1": r1 * km, "x1": x1 * km, "c1": 0, "tan1": 0, "r0": r0 * km, "x0": x0 * km, "c0": 0, "tan0": 0}),
        );
        id
    }

    fn transformer(&mut self, from: i64, to: i64) {
        let id = self.id();
        self.transformers.push(
            json!({"id": id, "from_node": from, "to_node": to, "from_status": 1, "to_status": 1,
            "u1": 10_000, "u2": 400, "sn": 400_000, "uk": 0.04, "pk": 4_600, "i0": 0.002, "p0": 610,
            "winding_from": 2, "winding_to": 1, "clock": 5, "tap_side": 0, "tap_pos": 0, "tap_min": -2, "tap_max": 2, "tap_nom": 0, "tap_size": 250}),
        );
    }

    /// A station with its streets; the branch of its first fuse.
    fn station<'a>(&mut self, supply: i64, number: usize, meters: &mut impl Iterator<Item = (&'a str, &'a [usize])>) -> i64 {
        let area = format!("mv1/lv{number:02}");
        let busbar = self.node(400, &area);
        self.transformer(supply, busbar);
        self.others.push(format!("DEMO-S-{number:02},{busbar},abc,substation,0.002,0.005"));
        let (mut concentrator, mut first_fuse) = (0, 0);
        for n_joints in STREETS {
            let mut before = busbar;
            for joint in 0..n_joints {
                let node = self.node(400, &area);
                let line = self.line(before, node, 0.06, &CABLE_400_V, true);
                if joint == 0 && first_fuse == 0 {
                    first_fuse = line;
                }
                before = node;
                concentrator += 1;
                let below = format!("{area}/c{concentrator}");
                let root = self.node(400, &below);
                self.line(node, root, 0.02, &CABLE_400_V, true);
                self.others
                    .push(format!("DEMO-K-{number:02}-{concentrator},{root},abc,concentrator,0.005,0.005"));
                for (meter, phases) in meters.by_ref().take(HOUSEHOLDS) {
                    let home = self.node(400, &below);
                    self.line(root, home, 0.015, &CABLE_400_V, true);
                    let phases: String = phases.iter().filter_map(|&k| "abc".chars().nth(k)).collect();
                    self.households.push(format!("{meter},{home},{phases},customer,0.002,0.01"));
                    self.load_nodes[0].push(home);
                }
            }
        }
        first_fuse
    }
}

impl Plan {
    /// A district for these meters: hardware id and phases of each.
    pub(super) fn new<'a>(meters: impl ExactSizeIterator<Item = (&'a str, &'a [usize])>) -> Self {
        let of_station = HOUSEHOLDS * STREETS.iter().sum::<usize>();
        let n_stations = meters.len().div_ceil(of_station).max(1);
        let mut meters = meters;
        let mut t = Tables {
            next: 0,
            nodes: Vec::new(),
            lines: Vec::new(),
            transformers: Vec::new(),
            areas: "node_id,area\n".to_owned(),
            households: Vec::new(),
            factories: Vec::new(),
            others: Vec::new(),
            load_nodes: Default::default(),
            switches: "branch_id,normal,controllable,hardware_id\n".to_owned(),
        };
        let head = t.node(10_000, "mv1");
        t.others.push(format!("DEMO-F-1,{head},abc,feeder,0.002,0.002"));
        let mut fuses = Vec::new();
        for ring in 1..=n_stations.div_ceil(STATIONS) {
            let mut before = head;
            for cable in 0..=2 * STATIONS {
                let is_last = cable == 2 * STATIONS;
                let node = if is_last { head } else { t.node(10_000, "mv1") };
                let is_closed = cable != OPEN_CABLE;
                let line = t.line(before, node, 0.9, &CABLE_10_KV, is_closed);
                let normal = if is_closed { "closed" } else { "open" };
                let _ = writeln!(t.switches, "{line},{normal},true,DEMO-SW-{ring}-{:02}", cable + 1);
                before = node;
                if is_last {
                    continue;
                }
                if cable % 2 == 1 {
                    t.factories
                        .push(format!("DEMO-I-{ring}-{},{node},abc,customer,0.002,0.005", cable / 2 + 1));
                    t.load_nodes[1].push(node);
                } else if fuses.len() < n_stations {
                    let number = fuses.len() + 1;
                    let fuse = t.station(node, number, &mut meters);
                    fuses.push(fuse);
                }
            }
        }
        let source = json!({"id": t.id(), "node": head, "status": 1, "u_ref": 1.03, "sk": 150e6, "rx_ratio": 0.1, "z01_ratio": 1});
        let load_nodes = t.load_nodes.concat();
        let loads: Vec<Value> = load_nodes
            .iter()
            .map(|node| json!({"id": t.id(), "node": node, "status": 1, "type": 0, "p_specified": [0, 0, 0], "q_specified": [0, 0, 0]}))
            .collect();
        let rows = [&t.households[..], &t.factories[..], &t.others[..]].concat().join("\n");
        Self {
            network: json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": {
                "node": t.nodes, "line": t.lines, "transformer": t.transformers, "asym_load": loads, "source": [source]}}),
            areas: t.areas,
            meters: format!("hardware_id,node_id,phases,role,accuracy_v,accuracy_p\n{rows}\n"),
            switches: t.switches,
            // the second station, if there is one: the first is not special
            fuse: fuses.get(1).or(fuses.first()).copied().unwrap_or_default(),
            n_factories: t.factories.len(),
        }
    }

    /// Its files with their texts.
    pub(super) fn files(&self) -> [(&'static str, String); 4] {
        [
            ("network.json", self.network.to_string()),
            ("areas.csv", self.areas.clone()),
            ("meters.csv", self.meters.clone()),
            ("switches.csv", self.switches.clone()),
        ]
    }

    /// Writes the bundle to a folder.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        for (file, text) in self.files() {
            let path = folder.join(file);
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}
