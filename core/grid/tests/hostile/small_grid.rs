//! A grid with one of everything, and what can be done to its dataset.

use flexmeter_grid::GridError;
use flexmeter_grid::network::Network;
use serde_json::{Map, Value, json};

/// The `data` of a dataset.
pub(crate) type Data = Map<String, Value>;

/// One of each component, ids 1 to 21 in the order below, readings close to the power flow:
///
/// ```text
/// source 10 - node 1 - line 6 - node 2 - transformer 7 - node 3 - link 8 - node 4 - line 9 - node 5
///             10 kV             10 kV                    400 V             400 V             400 V
/// ```
pub(crate) fn small_grid() -> Data {
    let data = json!({
        "node": [
            {"id": 1, "u_rated": 10e3}, {"id": 2, "u_rated": 10e3}, {"id": 3, "u_rated": 400}, {"id": 4, "u_rated": 400},
            {"id": 5, "u_rated": 400},
        ],
        "line": [
            {"id": 6, "from_node": 1, "to_node": 2, "from_status": 1, "to_status": 1, "r1": 0.5, "x1": 0.3, "c1": 3e-7, "tan1": 0.001,
             "r0": 1.5, "x0": 1.2, "c0": 2e-7, "tan0": 0.001, "i_n": 300},
            {"id": 9, "from_node": 4, "to_node": 5, "from_status": 1, "to_status": 1, "r1": 0.03, "x1": 0.01, "c1": 1e-8, "tan1": 0,
             "r0": 0.1, "x0": 0.03, "c0": 1e-8, "tan0": 0, "i_n": 200},
        ],
        "transformer": [
            {"id": 7, "from_node": 2, "to_node": 3, "from_status": 1, "to_status": 1, "u1": 10e3, "u2": 400, "sn": 400e3, "uk": 0.04,
             "pk": 4e3, "i0": 0.01, "p0": 600, "winding_from": 2, "winding_to": 1, "clock": 11, "tap_side": 0, "tap_pos": 1,
             "tap_min": -2, "tap_max": 2, "tap_nom": 0, "tap_size": 250, "uk_min": 0.038, "uk_max": 0.042, "pk_min": 3.8e3,
             "pk_max": 4.2e3, "r_grounding_from": 0, "x_grounding_from": 0, "r_grounding_to": 0.01, "x_grounding_to": 0.01,
             "i0_zero_sequence": 0.02, "p0_zero_sequence": 700},
        ],
        "link": [{"id": 8, "from_node": 3, "to_node": 4, "from_status": 1, "to_status": 1}],
        "source": [
            {"id": 10, "node": 1, "status": 1, "u_ref": 1.02, "u_ref_angle": 0, "sk": 2e8, "rx_ratio": 0.1, "z01_ratio": 1.5},
        ],
        "sym_load": [{"id": 11, "node": 5, "status": 1, "type": 0, "p_specified": 30e3, "q_specified": 9e3}],
        "sym_gen": [{"id": 12, "node": 4, "status": 1, "type": 2, "p_specified": 12e3, "q_specified": 0.0}],
        "asym_load": [
            {"id": 13, "node": 5, "status": 1, "type": 0, "p_specified": [8e3, 2e3, 5e3],
             "q_specified": [2e3, 500, 1e3]},
        ],
        "asym_gen": [
            {"id": 14, "node": 4, "status": 1, "type": 1, "p_specified": [1e3, 4e3, 0.0], "q_specified": [0.0, 0.0, 0.0]},
        ],
        "shunt": [{"id": 15, "node": 3, "status": 1, "g1": 1e-4, "b1": 0.05, "g0": 1e-4, "b0": 0.01}],
        "sym_voltage_sensor": [{"id": 16, "measured_object": 1, "u_sigma": 30, "u_measured": 10198, "u_angle_measured": null}],
        "asym_voltage_sensor": [
            {"id": 17, "measured_object": 5, "u_sigma": 1, "u_measured": [226.6, 229.4, 227.9], "u_angle_measured": null},
        ],
        "sym_power_sensor": [
            {"id": 18, "measured_object": 6, "measured_terminal_type": 0, "power_sigma": 1e3, "p_measured": 30e3, "q_measured": -1e3,
             "p_sigma": 7e2, "q_sigma": 7e2},
        ],
        "asym_power_sensor": [
            {"id": 19, "measured_object": 13, "measured_terminal_type": 4, "power_sigma": 100, "p_measured": [8e3, 2e3, 5e3],
             "q_measured": [2e3, 500, 1e3], "p_sigma": [70, 70, 70], "q_sigma": [70, 70, 70]},
        ],
        "sym_current_sensor": [
            {"id": 20, "measured_object": 9, "measured_terminal_type": 0, "angle_measurement_type": 0, "i_sigma": 1, "i_angle_sigma": 0.02,
             "i_measured": 68, "i_angle_measured": 0.27},
        ],
        "asym_current_sensor": [
            {"id": 21, "measured_object": 9, "measured_terminal_type": 1, "angle_measurement_type": 0, "i_sigma": 1, "i_angle_sigma": 0.02,
             "i_measured": [80, 54, 65], "i_angle_measured": [-2.87, -2.87, -2.87]},
        ],
    });
    match data {
        Value::Object(data) => data,
        _ => unreachable!(),
    }
}

/// The text of an input dataset.
pub(crate) fn text(data: &Data) -> String {
    json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": data}).to_string()
}

pub(crate) fn read(data: &Data) -> Result<Network, GridError> {
    Network::from_pgm_json(&text(data))
}

/// Rows of one component type.
pub(crate) fn rows<'a>(data: &'a mut Data, component: &str) -> &'a mut Vec<Value> {
    data.entry(component).or_insert_with(|| json!([])).as_array_mut().unwrap()
}

/// The small grid with one attribute of the first row of a component type changed.
pub(crate) fn changed(component: &str, attribute: &str, value: Value) -> Data {
    let mut data = small_grid();
    rows(&mut data, component)[0][attribute] = value;
    data
}

/// The small grid without an attribute of the first row of a component type.
pub(crate) fn without(component: &str, attribute: &str) -> Data {
    let mut data = small_grid();
    rows(&mut data, component)[0].as_object_mut().unwrap().remove(attribute).unwrap();
    data
}
