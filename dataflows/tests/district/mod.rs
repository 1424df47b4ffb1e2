//! A made-up district of three levels whose meters say what a power flow says, with the errors of their class.
#![allow(dead_code, reason = "each test uses its part")]

use std::fmt::Write as _;
use std::sync::Arc;

use flexmeter_dataflows::Grid;
use flexmeter_grid::areas::split;
use flexmeter_grid::bundle::{Bundle, Role};
use flexmeter_grid::network::{Network, Terminal};
use flexmeter_grid::reconfiguration::Drawn;
use flexmeter_grid::simulation::SimulatedGrid;
use flexmeter_model::EventTime;
use serde_json::{Value, json};

use crate::generator::Rng;
use crate::recording::Logged;

/// How large a district is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) n_mv: usize,
    pub(crate) n_lv: usize,
    pub(crate) n_concentrators: usize,
    pub(crate) n_customers: usize,
}

pub(crate) const SMALL: Size = Size {
    n_mv: 1,
    n_lv: 3,
    n_concentrators: 2,
    n_customers: 3,
};

/// A bundle and what its customers take.
pub(crate) struct District {
    pub(crate) bundle: Bundle,
    grid: SimulatedGrid,
    /// By load: W and var by phase.
    loads: Vec<[[f64; 3]; 2]>,
    /// By load: phases of its meter.
    phases: Vec<Vec<usize>>,
    rng: Rng,
}

fn uniform(rng: &mut Rng, from: f64, to: f64) -> f64 {
    from + (to - from) * rng.below(1_000_001) as f64 / 1e6
}

/// Near enough to a normal number: twelve uniform ones.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| uniform(rng, 0.0, 1.0)).sum::<f64>() - 6.0
}

struct Tables {
    nodes: Vec<Value>,
    lines: Vec<Value>,
    transformers: Vec<Value>,
    loads: Vec<Value>,
    areas: String,
    meters: String,
    switches: String,
    next: i64,
}

impl Tables {
    fn id(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn node(&mut self, u_rated: f64, area: &str) -> i64 {
        let id = self.id();
        self.nodes.push(json!({"id": id, "u_rated": u_rated}));
        writeln!(self.areas, "{id},{area}").unwrap();
        id
    }

    fn line(&mut self, from: i64, to: i64, km: f64, closed: bool) -> i64 {
        let id = self.id();
        let closed = u8::from(closed);
        self.lines.push(
            json!({"id": id, "from_node": from, "to_node": to, "from_status": closed, "to_status": closed,
            "r1": 0.32 * km, "x1": 0.08 * km, "c1": 0, "tan1": 0, "r0": 0.9 * km, "x0": 0.3 * km, "c0": 0, "tan0": 0}),
        );
        id
    }

    fn customer(&mut self, node: i64, phases: &str, name: &str) {
        let id = self.id();
        self.loads
            .push(json!({"id": id, "node": node, "status": 1, "type": 0, "p_specified": [0, 0, 0], "q_specified": [0, 0, 0]}));
        writeln!(self.meters, "{name},{node},{phases},customer,0.005,0.01").unwrap();
    }
}

/// One MV area with everything below it; its source.
fn mv_area(t: &mut Tables, size: Size, number: usize) -> Value {
    let top = format!("mv{number}");
    let of = if number == 1 { String::new() } else { format!("M{number}-") };
    let head = t.node(10_000.0, &top);
    writeln!(t.meters, "{of}F-mv1,{head},abc,feeder,0.002,0.002").unwrap();
    let mut mv = head;
    for lv in 0..size.n_lv {
        let next = t.node(10_000.0, &top);
        let line = t.line(mv, next, 0.4, true);
        writeln!(t.switches, "{line},closed,true,{of}SW-mv{lv}").unwrap();
        mv = next;
        let area = format!("{top}/lv{lv}");
        let busbar = t.node(400.0, &area);
        let id = t.id();
        t.transformers.push(
            json!({"id": id, "from_node": mv, "to_node": busbar, "from_status": 1, "to_status": 1,
            "u1": 10000, "u2": 400, "sn": 400_000, "uk": 0.04, "pk": 4000, "i0": 0.001, "p0": 300,
            "winding_from": 2, "winding_to": 1, "clock": 5, "tap_side": 0, "tap_pos": 0, "tap_min": 0, "tap_max": 0, "tap_size": 0}),
        );
        writeln!(t.meters, "{of}S-lv{lv},{busbar},abc,substation,0.002,0.005").unwrap();
        writeln!(t.switches, "{id},closed,true,").unwrap();
        let (mut feeder, mut nodes) = (busbar, Vec::new());
        for concentrator in 0..size.n_concentrators {
            let node = t.node(400.0, &area);
            let line = t.line(feeder, node, 0.03, true);
            writeln!(t.switches, "{line},closed,false,{of}SW-lv{lv}-{concentrator}").unwrap();
            feeder = node;
            nodes.push(node);
            t.customer(node, "abc", &format!("{of}H-lv{lv}-{concentrator}"));
            let area = format!("{top}/lv{lv}/c{concentrator}");
            let root = t.node(400.0, &area);
            t.line(feeder, root, 0.02, true);
            writeln!(t.meters, "{of}K-lv{lv}-c{concentrator},{root},abc,concentrator,0.005,0.005").unwrap();
            for customer in 0..size.n_customers {
                let flat = t.node(400.0, &area);
                t.line(root, flat, 0.01, true);
                let phases = ["a", "b", "c"][customer % 3];
                t.customer(flat, phases, &format!("{of}C-lv{lv}-c{concentrator}-{customer}"));
            }
        }
        let tie = t.line(busbar, feeder, 0.05, false);
        writeln!(t.switches, "{tie},open,true,{of}TIE-lv{lv}").unwrap();
    }
    let tie = t.line(head, mv, 0.8, false);
    writeln!(t.switches, "{tie},open,true,{of}TIE-mv").unwrap();
    json!({"id": t.id(), "node": head, "status": 1, "u_ref": 1.02, "sk": 2e8})
}

/// A ring on MV with one open tie, a substation at each of its nodes with a feeder and an open tie of its own, concentrators on the feeder.
pub(crate) fn district(size: Size, seed: u64) -> District {
    let mut tables = Tables {
        nodes: Vec::new(),
        lines: Vec::new(),
        transformers: Vec::new(),
        loads: Vec::new(),
        areas: "node_id,area\n".to_owned(),
        meters: "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\n".to_owned(),
        switches: "branch_id,normal,controllable,hardware_id\n".to_owned(),
        next: 0,
    };
    let t = &mut tables;
    let mut sources = Vec::new();
    for number in 1..=size.n_mv {
        let source = mv_area(t, size, number);
        sources.push(source);
    }
    let network = json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": {
        "node": t.nodes, "line": t.lines, "transformer": t.transformers, "asym_load": t.loads,
        "source": sources,
    }});
    let bundle = Bundle::from_texts(&network.to_string(), &t.areas, &t.meters, &t.switches).unwrap();
    let mut phases = vec![Vec::new(); t.loads.len()];
    for meter in &bundle.meters {
        if let Terminal::Appliance(load) = meter.terminal {
            phases[load].clone_from(&meter.phases);
        }
    }
    let mut district = District {
        phases,
        grid: SimulatedGrid::new(bundle.clone()),
        loads: vec![[[0.0; 3]; 2]; t.loads.len()],
        bundle,
        rng: Rng::new(seed),
    };
    (0..district.loads.len()).for_each(|load| district.change_load(load));
    district
}

impl District {
    pub(crate) fn grid(&self) -> Arc<Grid> {
        Arc::new(Grid::new(self.bundle.clone()).unwrap())
    }

    pub(crate) fn n_loads(&self) -> usize {
        self.loads.len()
    }

    /// A customer takes something else.
    pub(crate) fn change_load(&mut self, load: usize) {
        let mut power = [[0.0; 3]; 2];
        for &k in &self.phases[load] {
            let p = uniform(&mut self.rng, -500.0, 3_000.0);
            (power[0][k], power[1][k]) = (p, p.abs() * uniform(&mut self.rng, 0.1, 0.4));
        }
        self.loads[load] = power;
    }

    /// Opens or closes a branch in truth.
    pub(crate) fn operate(&mut self, hardware_id: &str) -> bool {
        let switch = self
            .bundle
            .switches
            .iter()
            .find(|switch| switch.hardware_id == hardware_id)
            .unwrap();
        let branch = &self.grid.network().branches()[switch.branch];
        let (id, closed) = (branch.id, !branch.is_closed());
        self.grid.operate(id, closed);
        closed
    }

    /// The grid with what its customers take.
    fn loaded(&self) -> SimulatedGrid {
        let mut grid = self.grid.clone();
        for (load, &[p_w, q_var]) in self.loads.iter().enumerate() {
            grid.set_load(load, p_w, q_var);
        }
        grid.solve().unwrap();
        grid
    }

    /// The first MV area alone, with the true power into each LV area at its root.
    pub(crate) fn upper_level(&self) -> Network {
        let grid = self.loaded();
        let paths: Vec<&str> = self.bundle.areas.iter().map(String::as_str).collect();
        let areas = split(grid.network(), &paths).unwrap();
        let top = areas.last().unwrap();
        let into = |root: usize| {
            let is_there = |meter: &flexmeter_grid::bundle::Meter| meter.node == top.nodes[root] && meter.role == Role::Substation;
            let meter = self.bundle.meters.iter().position(is_there).unwrap();
            let truth = grid.reading(meter).unwrap();
            Drawn {
                node: root,
                p_w: truth.p_w.iter().sum(),
                q_var: truth.q_var.iter().sum(),
            }
        };
        let drawn: Vec<Drawn> = top.children.iter().map(|&(_, root)| into(root)).collect();
        top.network.with_drawn(&drawn)
    }

    /// What all meters with supply say at a moment, with the errors of their class.
    pub(crate) fn messages(&mut self, time: i64) -> Vec<Logged> {
        let grid = self.loaded();
        let meters = self.bundle.meters.clone();
        let mut messages = Vec::new();
        for (index, meter) in meters.iter().enumerate() {
            let Some(truth) = grid.reading(index) else { continue };
            let mut measurements = serde_json::Map::new();
            for &k in &meter.phases {
                let line = k + 1;
                let u_v = truth.u_v[k] * (1.0 + meter.accuracy_v * normal(&mut self.rng));
                measurements.insert(format!("electricity.voltage.rms.l{line}"), json!(u_v));
                let sigma = meter.accuracy_p * truth.p_w[k].hypot(truth.q_var[k]);
                for (name, value) in [("active", truth.p_w[k]), ("reactive", truth.q_var[k])] {
                    let value = (value + sigma * normal(&mut self.rng)) / 1e3;
                    let way = if value < 0.0 { "injected" } else { "consumed" };
                    measurements.insert(format!("electricity.power.{name}.{way}.l{line}"), json!(value.abs()));
                }
            }
            messages.push(message(
                &meter.hardware_id,
                time,
                "DeviceMeasurements",
                json!({ "measurements": measurements }),
            ));
        }
        messages
    }
}

/// A message as it comes from a device, appended at its event time.
pub(crate) fn message(hardware_id: &str, time: i64, kind: &str, mut request: Value) -> Logged {
    request["eventDate"] = json!(EventTime::from_micros(time).to_string());
    Logged {
        hardware_id: hardware_id.to_owned(),
        received_at: time,
        payload: json!({"hardwareId": hardware_id, "type": kind, "request": request}).to_string(),
    }
}

/// A switch tells its position.
pub(crate) fn position(hardware_id: &str, time: i64, closed: bool) -> Logged {
    let position = if closed { "closed" } else { "open" };
    let request = json!({"type": "switch.position", "level": "Info", "message": position, "metadata": {"position": position}});
    message(hardware_id, time, "DeviceAlert", request)
}
