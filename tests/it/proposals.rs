//! A proposal to switch otherwise, through the binary: it is in the log before anybody sees it, so it is the same one after kill -9, and
//! whoever decides about it decides about what is carried out.

use std::time::{Duration, Instant};

use flexmeter_grid::bundle::Bundle;
use flexmeter_grid::power_flow::{Options, PowerFlow};
use serde_json::{Value, json};

use crate::mqtt::Connection;
use crate::server::Server;

const DEADLINE: Duration = Duration::from_secs(60);
const LOADS_W: [f64; 3] = [300e3, 300e3, 500e3];

/// A ring at 10 kV whose open point is in the wrong place: the loss is a third if line 13 is open instead of the tie 14.
///
/// ```text
/// head 1 ─11─ 2 ─12─ 3 ─13─ 4 ─14 (open)─ head 1
/// ```
struct Ring {
    folder: tempfile::TempDir,
    /// What every meter says, by hardware id.
    readings: Vec<(String, Value)>,
}

fn ring() -> Ring {
    let nodes: Vec<Value> = (1..=4).map(|id| json!({"id": id, "u_rated": 10_000})).collect();
    let lines = [(11, 1, 2), (12, 2, 3), (13, 3, 4), (14, 4, 1)].map(|(id, from, to)| {
        let closed = u8::from(id != 14);
        json!({"id": id, "from_node": from, "to_node": to, "from_status": closed, "to_status": closed,
            "r1": 0.32, "x1": 0.1, "c1": 0, "tan1": 0, "r0": 0.9, "x0": 0.3, "c0": 0, "tan0": 0, "i_n": 300})
    });
    let load = |(id, watts): (i64, f64)| {
        let (p, q) = ([watts / 3.0; 3], [watts / 10.0; 3]);
        json!({"id": id, "node": id - 19, "status": 1, "type": 0, "p_specified": p, "q_specified": q})
    };
    let network = json!({"version": "1.0", "type": "input", "is_batch": false, "attributes": {}, "data": {
        "node": nodes, "line": lines, "asym_load": (21..).zip(LOADS_W).map(load).collect::<Vec<_>>(),
        "source": [{"id": 31, "node": 1, "status": 1, "u_ref": 1.02, "sk": 2e8}],
    }});
    let texts = [
        ("network.json", network.to_string()),
        ("areas.csv", "node_id,area\n1,mv1\n2,mv1\n3,mv1\n4,mv1\n".to_owned()),
        (
            "meters.csv",
            "hardware_id,node_id,phases,role,accuracy_v,accuracy_p\nM-2,2,abc,customer,0.002,0.005\n\
                M-3,3,abc,customer,0.002,0.005\nM-4,4,abc,customer,0.002,0.005\n"
                .to_owned(),
        ),
        (
            "switches.csv",
            "branch_id,normal,controllable,hardware_id\n11,closed,false,SW-11\n12,closed,true,SW-12\n13,closed,true,SW-13\n14,open,true,SW-14\n"
                .to_owned(),
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in &texts {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let [network, areas, meters, switches] = texts.map(|(_, text)| text);
    let bundle = Bundle::from_texts(&network, &areas, &meters, &switches).unwrap();
    let mut flow = PowerFlow::<3>::new(&bundle.network).unwrap();
    flow.solve(&Options::default()).unwrap();
    let readings = bundle.meters.iter().zip(LOADS_W).map(|(meter, p)| {
        let u = flow.voltage_pu(meter.node).unwrap();
        let mut measurements = serde_json::Map::new();
        for (k, u) in u.iter().enumerate() {
            let mut insert = |name: &str, value: f64| measurements.insert(format!("electricity.{name}.l{}", k + 1), json!(value));
            insert("voltage.rms", u.norm() * 10_000.0 / 3f64.sqrt());
            insert("power.active.consumed", p / 3e3);
            insert("power.reactive.consumed", p / 10e3);
        }
        (meter.hardware_id.clone(), json!({ "measurements": measurements }))
    });
    Ring {
        readings: readings.collect(),
        folder,
    }
}

/// A device says something; the log stamps the time.
async fn say(connection: &mut Connection, device: &str, kind: &str, request: &Value) {
    let message = json!({"hardwareId": device, "type": kind, "request": request});
    let topic = format!("flexmeter/default/{device}/events");
    connection.publish(&topic, message.to_string().as_bytes(), false).await.unwrap();
}

async fn connect(server: &Server) -> Connection {
    Connection::open(server.addresses().mqtt, "field", "field", "any").await.unwrap()
}

async fn proposals(server: &Server) -> Vec<Value> {
    let (status, text) = server.get("/api/v1/reconfigurations").await;
    assert_eq!(status, 200, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    document["items"].as_array().unwrap().clone()
}

/// Waits until the first proposal is in a state.
async fn wait_for_state(server: &Server, state: &str) -> Value {
    let started = Instant::now();
    loop {
        let all = proposals(server).await;
        if let Some(proposal) = all.first().filter(|proposal| proposal["state"] == state) {
            return proposal.clone();
        }
        assert!(started.elapsed() < DEADLINE, "nothing is {state}: {all:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_was_seen_is_the_one_that_is_carried_out_whatever_dies_meanwhile() {
    let ring = ring();
    let mut server = Server::with(&[
        ("grid.bundle", ring.folder.path().to_str().unwrap()),
        ("engine.heartbeat_s", "1"),
        // never, as far as this test goes: everything comes from the log
        ("engine.checkpoint_s", "3600"),
        ("grid.reconfiguration.check_s", "1"),
        ("grid.reconfiguration.dwell_s", "2"),
    ]);
    let mut field = connect(&server).await;
    let started = Instant::now();
    let seen = loop {
        for (device, reading) in &ring.readings {
            say(&mut field, device, "DeviceMeasurements", reading).await;
        }
        if let Some(proposal) = proposals(&server).await.pop() {
            break proposal;
        }
        assert!(started.elapsed() < DEADLINE, "no proposal");
    };
    server.kill();
    assert_eq!(seen["state"], "proposed");
    let plan: Vec<(String, String)> = seen["plan"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (text(&step["hardwareId"]), text(&step["position"])))
        .collect();
    let expected = [("SW-14", "closed"), ("SW-13", "open")].map(|(device, position)| (device.to_owned(), position.to_owned()));
    assert_eq!(plan, expected);

    server.start();
    assert_eq!(
        proposals(&server).await,
        std::slice::from_ref(&seen),
        "the same one, in all its parts"
    );
    let id = text(&seen["proposalId"]);
    let mut field = connect(&server).await;
    field.subscribe("flexmeter/default/+/commands").await.unwrap();
    let (status, answer) = server.post(&format!("/api/v1/reconfigurations/{id}/accept"), "").await;
    assert_eq!(status, 202, "{answer}");
    for (step, (device, position)) in (1..).zip(&plan) {
        let topic = format!("flexmeter/default/{device}/commands");
        let is_it = |command: &Value| {
            command["command"]["invocation"]["id"] == format!("{id}-{step}") && command["command"]["parameters"]["position"] == *position
        };
        field.message_where(&topic, is_it).await;
        if step == 1 {
            // the command is out, and nobody has obeyed
            server.kill();
            server.start();
            field = connect(&server).await;
            field.subscribe("flexmeter/default/+/commands").await.unwrap();
            assert_eq!(wait_for_state(&server, "executing").await["proposalId"], id);
        }
        let request = json!({"type": "switch.position", "level": "Info", "message": "", "metadata": {"position": position}});
        say(&mut field, device, "DeviceAlert", &request).await;
    }
    let done = wait_for_state(&server, "done").await;
    assert_eq!((&done["proposalId"], &done["decidedBy"]), (&seen["proposalId"], &json!("admin")));
    assert_eq!(proposals(&server).await.len(), 1);
    let records = "SELECT count(*) FROM alerts WHERE hardware_id = 'flexmeter-operator' AND type = 'reconfiguration.proposed'";
    assert!(server.count(records).await >= 1);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
