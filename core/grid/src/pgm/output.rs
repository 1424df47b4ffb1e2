//! Results as power-grid-model output datasets, with what power-grid-model does not say beside it: standard deviations, normalized
//! residuals.

use serde_json::{Map, Value, json};

use crate::estimation::{Estimator, Quantity, Residual, Sensor, Trust, Uncertainty};
use crate::flows::BranchFlow;
use crate::model::{BASE_POWER_VA, C64, base_current_a};
use crate::network::{BranchKind, Network, Terminal};
use crate::power_flow::PowerFlow;

/// The tables of one scenario's output.
pub type Tables = Map<String, Value>;

/// A whole output dataset: `sym_output` or `asym_output`, a batch if there are several scenarios or `is_batch` says so.
pub fn output_dataset<const N: usize>(mut scenarios: Vec<Tables>, is_batch: bool) -> Value {
    let data = match is_batch || scenarios.len() != 1 {
        true => Value::Array(scenarios.into_iter().map(Value::Object).collect()),
        false => Value::Object(scenarios.pop().unwrap_or_default()),
    };
    json!({
        "version": "1.0",
        "type": if N == 1 { "sym_output" } else { "asym_output" },
        "is_batch": data.is_array(),
        "attributes": {},
        "data": data,
    })
}

/// One number, or one for each phase.
fn numbers<const N: usize>(values: [f64; N]) -> Value {
    let number = |value: f64| serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number);
    match N {
        1 => number(values[0]),
        _ => Value::Array(values.into_iter().map(number).collect()),
    }
}

/// Base power of the calculation's phases, VA.
fn base<const N: usize>() -> f64 {
    BASE_POWER_VA / N as f64
}

fn push(tables: &mut Tables, component: &str, row: Value) {
    if let Value::Array(rows) = tables.entry(component).or_insert_with(|| Value::Array(Vec::new())) {
        rows.push(row);
    }
}

/// What a node, a branch or an appliance looks like in either calculation.
fn node_row<const N: usize>(network: &Network, node: usize, voltage: Option<[C64; N]>, injection: [C64; N]) -> Value {
    let u = voltage.unwrap_or([C64::ZERO; N]);
    let u_base = network.nodes[node].u_rated_v / if N == 1 { 1.0 } else { 3f64.sqrt() };
    json!({
        "id": network.nodes[node].id,
        "energized": i32::from(voltage.is_some()),
        "u_pu": numbers(u.map(|u| u.norm())),
        "u": numbers(u.map(|u| u.norm() * u_base)),
        "u_angle": numbers(u.map(|u| if u == C64::ZERO { 0.0 } else { u.arg() })),
        "p": numbers(injection.map(|s| s.re * base::<N>())),
        "q": numbers(injection.map(|s| s.im * base::<N>())),
    })
}

fn branch_row<const N: usize>(network: &Network, index: usize, energized: bool, flow: &BranchFlow<N>) -> Value {
    let branch = &network.branches[index];
    let i_base = |node: usize| base_current_a(network.nodes[node].u_rated_v);
    let (i_from, i_to) = (
        flow.i_from_pu.map(|i| i.norm() * i_base(branch.from)),
        flow.i_to_pu.map(|i| i.norm() * i_base(branch.to)),
    );
    let largest = |i: &[f64; N]| i.iter().copied().fold(0.0, f64::max);
    let apparent = |s: &[C64; N]| s.iter().map(|s| s.norm() * base::<N>()).sum::<f64>();
    let loading = match &branch.kind {
        BranchKind::Line(line) => line.i_n_a.map(|i_n| largest(&i_from).max(largest(&i_to)) / i_n),
        BranchKind::Transformer(transformer) => Some(apparent(&flow.s_from_pu).max(apparent(&flow.s_to_pu)) / transformer.sn_va),
        BranchKind::Link => Some(0.0),
    };
    let power = |part: fn(&C64) -> f64, s: &[C64; N]| numbers(s.map(|s| part(&s) * base::<N>()));
    json!({
        "id": branch.id,
        "energized": i32::from(energized),
        "loading": loading,
        "p_from": power(|s| s.re, &flow.s_from_pu),
        "q_from": power(|s| s.im, &flow.s_from_pu),
        "i_from": numbers(i_from),
        "p_to": power(|s| s.re, &flow.s_to_pu),
        "q_to": power(|s| s.im, &flow.s_to_pu),
        "i_to": numbers(i_to),
    })
}

fn appliance_row<const N: usize>(id: i64, energized: bool, power: [C64; N], voltage: Option<[C64; N]>, i_base: f64) -> Value {
    let current = voltage.map_or([0.0; N], |u| std::array::from_fn(|k| (power[k] / u[k]).norm() * i_base));
    json!({
        "id": id,
        "energized": i32::from(energized),
        "p": numbers(power.map(|s| s.re * base::<N>())),
        "q": numbers(power.map(|s| s.im * base::<N>())),
        "i": numbers(current),
    })
}

/// Loads are written as what they take, generators and sources as what they give.
fn signed<const N: usize>(power: [C64; N], is_load: bool) -> [C64; N] {
    // zero minus, not minus: no "-0.0" in what people read
    power.map(|s| if is_load { C64::ZERO - s } else { s })
}

/// What a calculation has to tell about a grid.
trait Solution<const N: usize> {
    fn voltage(&self, node: usize) -> Option<[C64; N]>;
    fn node_injection(&self, node: usize) -> [C64; N];
    fn flow(&self, branch: usize) -> BranchFlow<N>;
    fn appliance(&self, terminal: Terminal) -> [C64; N];
}

fn tables<const N: usize>(network: &Network, solution: &impl Solution<N>) -> Tables {
    let mut tables = Tables::new();
    for node in 0..network.nodes.len() {
        push(
            &mut tables,
            "node",
            node_row(network, node, solution.voltage(node), solution.node_injection(node)),
        );
    }
    for (index, branch) in network.branches.iter().enumerate() {
        let supplied = |node: usize, closed: bool| closed && solution.voltage(node).is_some();
        let energized = supplied(branch.from, branch.from_closed) || supplied(branch.to, branch.to_closed);
        push(
            &mut tables,
            branch.kind.component(),
            branch_row(network, index, energized, &solution.flow(index)),
        );
    }
    let mut add = |component: &str, id: i64, node: usize, connected: bool, power: [C64; N]| {
        let voltage = solution.voltage(node).filter(|_| connected);
        let i_base = base_current_a(network.nodes[node].u_rated_v);
        push(&mut tables, component, appliance_row(id, voltage.is_some(), power, voltage, i_base));
    };
    for (index, source) in network.sources.iter().enumerate() {
        add(
            "source",
            source.id,
            source.node,
            source.connected,
            solution.appliance(Terminal::Source(index)),
        );
    }
    for (index, appliance) in network.appliances.iter().enumerate() {
        let power = signed(solution.appliance(Terminal::Appliance(index)), !appliance.is_generator);
        add(appliance.component(), appliance.id, appliance.node, appliance.connected, power);
    }
    for (index, shunt) in network.shunts.iter().enumerate() {
        add(
            "shunt",
            shunt.id,
            shunt.node,
            shunt.connected,
            solution.appliance(Terminal::Shunt(index)),
        );
    }
    tables
}

struct Flow<'a, const N: usize>(&'a Network, &'a PowerFlow<N>);

impl<const N: usize> Solution<N> for Flow<'_, N> {
    fn voltage(&self, node: usize) -> Option<[C64; N]> {
        self.1.voltage_pu(node)
    }

    fn node_injection(&self, node: usize) -> [C64; N] {
        self.1.node_injection_pu(node).unwrap_or([C64::ZERO; N])
    }

    fn flow(&self, branch: usize) -> BranchFlow<N> {
        self.1.branch_flow(self.0, branch)
    }

    fn appliance(&self, terminal: Terminal) -> [C64; N] {
        self.1.terminal_pu(self.0, terminal)
    }
}

/// Output tables of a power flow.
pub fn power_flow_tables<const N: usize>(network: &Network, power_flow: &PowerFlow<N>) -> Tables {
    tables(network, &Flow(network, power_flow))
}

struct Estimate<'a, const N: usize, const B: usize> {
    network: &'a Network,
    estimator: &'a Estimator<N, B>,
    powers: std::collections::HashMap<Terminal, [C64; N]>,
}

impl<const N: usize, const B: usize> Solution<N> for Estimate<'_, N, B> {
    fn voltage(&self, node: usize) -> Option<[C64; N]> {
        self.estimator.voltage_pu(node)
    }

    fn node_injection(&self, node: usize) -> [C64; N] {
        self.estimator.injection_pu(node).unwrap_or([C64::ZERO; N])
    }

    fn flow(&self, branch: usize) -> BranchFlow<N> {
        self.estimator.branch_flow(self.network, branch)
    }

    fn appliance(&self, terminal: Terminal) -> [C64; N] {
        self.powers.get(&terminal).copied().unwrap_or([C64::ZERO; N])
    }
}

/// Output tables of an estimate: with standard deviations if `uncertainty` is given and `sigmas` asked for, with residuals if `trust` is.
pub fn estimate_tables<const N: usize, const B: usize>(
    network: &Network,
    estimator: &Estimator<N, B>,
    sigmas: Option<&Uncertainty<N, B>>,
    trust: Option<&Trust>,
) -> Tables {
    let estimate = Estimate {
        network,
        estimator,
        powers: estimator.appliance_powers_pu(network),
    };
    let mut tables = tables(network, &estimate);
    if let Some(uncertainty) = sigmas {
        add_sigmas(network, estimator, uncertainty, &mut tables);
    }
    if let Some(trust) = trust {
        add_residuals::<N>(network, trust, &mut tables);
    }
    tables
}

fn set(row: &mut Value, attribute: &str, value: Value) {
    if let Value::Object(row) = row {
        row.insert(attribute.to_owned(), value);
    }
}

fn add_sigmas<const N: usize, const B: usize>(
    network: &Network,
    estimator: &Estimator<N, B>,
    uncertainty: &Uncertainty<N, B>,
    tables: &mut Tables,
) {
    let parts = |row: &mut Value, names: [&str; 2], sigma: [C64; N]| {
        set(row, names[0], numbers(sigma.map(|s| s.re * base::<N>())));
        set(row, names[1], numbers(sigma.map(|s| s.im * base::<N>())));
    };
    if let Some(Value::Array(rows)) = tables.get_mut("node") {
        for (node, row) in rows.iter_mut().enumerate() {
            if let Some((u, angle)) = estimator.voltage_sigma(uncertainty, node) {
                set(row, "u_pu_sigma", numbers(u));
                set(row, "u_angle_sigma", numbers(angle));
            }
            if let Some(sigma) = estimator.injection_sigma(uncertainty, node) {
                parts(row, ["p_sigma", "q_sigma"], sigma);
            }
        }
    }
    let mut nth = std::collections::HashMap::new();
    for (index, branch) in network.branches.iter().enumerate() {
        let component = branch.kind.component();
        let at: &mut usize = nth.entry(component).or_default();
        if let Some(row) = tables.get_mut(component).and_then(|rows| rows.get_mut(*at)) {
            if let Some(sigma) = estimator.flow_sigma(uncertainty, network, Terminal::BranchFrom(index)) {
                parts(row, ["p_from_sigma", "q_from_sigma"], sigma);
            }
            if let Some(sigma) = estimator.flow_sigma(uncertainty, network, Terminal::BranchTo(index)) {
                parts(row, ["p_to_sigma", "q_to_sigma"], sigma);
            }
        }
        *at += 1;
    }
}

/// Residuals of one sensor: `[first quantity, second quantity]` by phase, in the sensor's units, and normalized.
#[derive(Clone)]
struct SensorResiduals {
    value: [[f64; 3]; 2],
    normalized: [[Option<f64>; 3]; 2],
}

fn add_residuals<const N: usize>(network: &Network, trust: &Trust, tables: &mut Tables) {
    let mut by_sensor: std::collections::BTreeMap<Sensor, SensorResiduals> = std::collections::BTreeMap::new();
    for residual in &trust.residuals {
        let entry = by_sensor.entry(residual.sensor).or_insert_with(|| SensorResiduals {
            value: [[f64::NAN; 3]; 2],
            normalized: [[None; 3]; 2],
        });
        let (part, scale) = part_and_scale::<N>(network, residual);
        if residual.phase < 3 {
            entry.value[part][residual.phase] = residual.residual * scale;
            entry.normalized[part][residual.phase] = residual.normalized;
        }
    }
    for (sensor, residuals) in by_sensor {
        let (component, names): (&str, [&str; 2]) = match sensor {
            Sensor::Voltage(index) => (voltage_component(network, index), ["u", "u_angle"]),
            Sensor::Power(index) => (power_component(network, index), ["p", "q"]),
            Sensor::Current(index) => (current_component(network, index), ["i", "i_imaginary"]),
        };
        let mut row = json!({"id": sensor.id(network), "energized": 1});
        for part in 0..2 {
            let values: [f64; N] = std::array::from_fn(|k| residuals.value[part][k]);
            let normalized: [f64; N] = std::array::from_fn(|k| residuals.normalized[part][k].unwrap_or(f64::NAN));
            if values.iter().all(|value| value.is_nan()) {
                continue;
            }
            set(&mut row, &format!("{}_residual", names[part]), numbers(values));
            // null: nothing else checks this reading
            set(&mut row, &format!("{}_normalized_residual", names[part]), numbers(normalized));
        }
        push(tables, component, row);
    }
}

fn voltage_component(network: &Network, index: usize) -> &'static str {
    network.component(crate::network::Reference::VoltageSensor(index))
}

fn power_component(network: &Network, index: usize) -> &'static str {
    network.component(crate::network::Reference::PowerSensor(index))
}

fn current_component(network: &Network, index: usize) -> &'static str {
    network.component(crate::network::Reference::CurrentSensor(index))
}

/// Which of its sensor's two quantities a residual is of, and what turns it into the sensor's unit and sign.
fn part_and_scale<const N: usize>(network: &Network, residual: &Residual) -> (usize, f64) {
    let sign = |index: usize| match network.power_sensors[index].terminal {
        Terminal::Appliance(appliance) if !network.appliances[appliance].is_generator => -1.0,
        _ => 1.0,
    };
    match (residual.quantity, residual.sensor) {
        (Quantity::Voltage, Sensor::Voltage(index)) => {
            let u_rated = network.nodes[network.voltage_sensors[index].node].u_rated_v;
            (0, u_rated / if N == 1 { 1.0 } else { 3f64.sqrt() })
        }
        (Quantity::ActivePower, Sensor::Power(index)) => (0, sign(index) * base::<N>()),
        (Quantity::ReactivePower, Sensor::Power(index)) => (1, sign(index) * base::<N>()),
        (Quantity::Current | Quantity::CurrentImaginary, Sensor::Current(index)) => {
            let node = match network.current_sensors[index].terminal {
                Terminal::BranchFrom(branch) => network.branches[branch].from,
                Terminal::BranchTo(branch) => network.branches[branch].to,
                _ => 0,
            };
            let i_base = base_current_a(network.nodes[node].u_rated_v);
            (usize::from(residual.quantity == Quantity::CurrentImaginary), i_base)
        }
        _ => (1, 1.0),
    }
}
