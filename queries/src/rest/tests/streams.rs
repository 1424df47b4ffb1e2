use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use flexmeter_model::outcome::RowChange;
use futures::StreamExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use super::fixture::{Door, epoch_of_another_tenant, request};
use crate::live::test_rows::identifier;
use crate::rest::RestConfig;
use crate::session::fixture::{grid_outcome, tenant};

const DEADLINE: Duration = Duration::from_secs(20);

/// One open stream, read event by event.
struct Events {
    body: BodyDataStream,
    text: String,
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    id: String,
    event: String,
    data: serde_json::Value,
    comment: String,
}

impl Events {
    async fn open(door: &Door, path: &str, headers: &[(&str, &str)]) -> Self {
        let response = door
            .router
            .clone()
            .oneshot(request("GET", path, headers, Body::empty()))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        };
        let greeting = events.next().await.unwrap();
        assert!(!greeting.id.is_empty() && greeting.event.is_empty(), "{greeting:?}");
        events
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        while !self.text.contains("\n\n") {
            let chunk = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("no event in time")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
        let (text, rest) = self.text.split_once("\n\n").unwrap();
        let mut event = Event::default();
        for line in text.lines() {
            match line.split_once(": ").unwrap() {
                ("id", id) => event.id = id.to_owned(),
                ("event", name) => event.event = name.to_owned(),
                ("data", data) => event.data = serde_json::from_str(data).unwrap(),
                ("", comment) => event.comment = comment.to_owned(),
                ("retry", _) => {}
                other => panic!("{other:?}"),
            }
        }
        self.text = rest.to_owned();
        Some(event)
    }

    async fn values(&mut self, n: usize) -> Vec<f64> {
        let mut values = Vec::new();
        while values.len() < n {
            let event = self.next().await.unwrap();
            if event.event == "latest" {
                values.push(event.data["value"].as_f64().unwrap());
            }
        }
        values
    }
}

fn change(door: &mut Door, value: f64) {
    let epoch = door
        .rows
        .epoch(|device| vec![(identifier(0), value as i64, value + device as f64 / 10.0)]);
    door.live.apply(&epoch);
}

#[tokio::test]
async fn changes_arrive_as_events() {
    let mut door = Door::new();
    let mut events = Events::open(&door, "/api/v1/stream", &[]).await;
    change(&mut door, 7.0);
    let event = events.next().await.unwrap();
    assert_eq!(event.event, "latest");
    assert_eq!(
        event.data,
        serde_json::json!({"hardwareId": "m-0", "identifier": identifier(0).name(), "value": 7.0, "unit": identifier(0).unit(),
            "eventTime": "1970-01-01T00:00:07Z"})
    );
    assert_eq!(events.values(2).await, [7.1, 7.2]);
}

#[tokio::test]
async fn only_what_was_asked_for_arrives() {
    let mut door = Door::new();
    let mut one = Events::open(&door, "/api/v1/stream?hardwareId=m-1", &[]).await;
    let mut two = Events::open(&door, "/api/v1/stream?hardwareId=m-0&hardwareId=m-2", &[]).await;
    let path = format!("/api/v1/stream?identifier={}", identifier(1).name());
    let mut other_quantity = Events::open(&door, &path, &[]).await;
    door.live.apply(&epoch_of_another_tenant(99.0));
    change(&mut door, 1.0);
    let epoch = door.rows.epoch(|_| vec![(identifier(1), 9, 42.0)]);
    door.live.apply(&epoch);
    assert_eq!(one.values(2).await, [1.1, 42.0]);
    assert_eq!(two.values(2).await, [1.0, 1.2]);
    assert_eq!(other_quantity.values(3).await, [42.0, 42.0, 42.0]);
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing() {
    let mut door = Door::new();
    let mut events = Events::open(&door, "/api/v1/stream", &[]).await;
    change(&mut door, 1.0);
    let first = events.next().await.unwrap();
    drop(events);
    change(&mut door, 2.0);
    let mut back = Events::open(&door, "/api/v1/stream", &[("last-event-id", &first.id)]).await;
    assert_eq!(back.values(5).await, [1.1, 1.2, 2.0, 2.1, 2.2]);
}

#[tokio::test]
async fn a_client_that_comes_back_too_late_is_told_so() {
    let mut door = Door::new();
    for id in ["0000000000000001-0-0", "nonsense"] {
        let mut events = Events::open(&door, "/api/v1/stream", &[("last-event-id", id)]).await;
        assert_eq!(events.next().await.unwrap().event, "gap");
        change(&mut door, 3.0);
        assert_eq!(events.values(1).await, [3.0]);
    }
}

#[tokio::test]
async fn silence_is_filled_with_heartbeats_that_move_the_id_on() {
    let mut door = Door::with(
        RestConfig {
            heartbeat: Duration::from_millis(50),
            ..RestConfig::default()
        },
        |_| {},
    );
    let mut events = Events::open(&door, "/api/v1/stream?hardwareId=nobody", &[]).await;
    let before = events.next().await.unwrap();
    assert_eq!((before.comment.as_str(), before.event.as_str()), ("heartbeat", ""));
    change(&mut door, 1.0);
    let deadline = std::time::Instant::now() + DEADLINE;
    while events.next().await.unwrap().id == before.id {
        assert!(std::time::Instant::now() < deadline, "the id stands still");
    }
}

#[tokio::test]
async fn a_slow_reader_is_dropped_and_the_memory_is_bounded() {
    let mut door = Door::new();
    let mut slow = Events::open(&door, "/api/v1/stream", &[]).await;
    let mut fast = Events::open(&door, "/api/v1/stream?hardwareId=m-0", &[]).await;
    // More epochs than the ring keeps, each seen by the fast reader and by the slow one's place in the ring only.
    for n in 0..crate::rest::changes::RING_EPOCHS_MAX + 10 {
        change(&mut door, n as f64);
        assert_eq!(fast.values(1).await.len(), 1);
    }
    let mut last = slow.next().await.unwrap();
    while let Some(event) = slow.next().await {
        last = event;
    }
    assert_eq!(last.event, "overrun");
}

#[tokio::test]
async fn more_streams_than_the_limit_are_refused() {
    let door = Door::with(
        RestConfig {
            streams_max: 1,
            ..RestConfig::default()
        },
        |_| {},
    );
    let first = Events::open(&door, "/api/v1/stream", &[]).await;
    door.get("/api/v1/stream").await.problem(503, "overloaded");
    drop(first);
    Events::open(&door, "/api/v1/stream", &[]).await;
}

#[tokio::test]
async fn streams_end_when_the_server_does() {
    let door = Door::new();
    let mut events = Events::open(&door, "/api/v1/stream", &[]).await;
    door.counter.closing.send_replace(true);
    assert_eq!(events.next().await.unwrap().event, "shutdown");
    assert_eq!(events.next().await, None);
}

fn grid_change(door: &mut Door) {
    let mut epoch = door
        .rows
        .epoch(|device| if device == 0 { vec![(identifier(0), 50, 5.0)] } else { Vec::new() });
    epoch.grid = grid_outcome();
    door.live.apply(&epoch);
}

#[tokio::test]
async fn what_happens_in_the_grid_arrives_as_events() {
    let mut door = Door::new();
    let mut events = Events::open(&door, "/api/v1/stream", &[]).await;
    door.live.apply(&epoch_of_another_tenant(99.0));
    grid_change(&mut door);
    let mut seen = Vec::new();
    while seen.len() < 9 {
        let event = events.next().await.unwrap();
        seen.push((event.event, event.data));
    }
    let names: Vec<&str> = seen.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(
        names,
        [
            "outage",
            "outage",
            "outage",
            "reconfiguration",
            "reconfiguration",
            "fault",
            "estimate",
            "estimate",
            "latest"
        ]
    );
    assert_eq!(
        (&seen[1].1["outageId"], &seen[1].1["outage"]["device"]),
        (&json!("out-2"), &json!("branch-21"))
    );
    assert_eq!(seen[4].1["reconfiguration"]["state"], "proposed");
    assert_eq!(seen[5].1["fault"]["branchId"], 21);
    assert_eq!(
        (&seen[7].1["area"], &seen[7].1["quality"]["suspects"]),
        (&json!("mv1/lv1"), &json!(["m-0"]))
    );
}

#[tokio::test]
async fn a_reader_chooses_events_and_who_asks_for_readings_gets_only_those() {
    let mut door = Door::new();
    let mut chosen = Events::open(&door, "/api/v1/stream?event=fault&event=reconfiguration", &[]).await;
    let mut readings = Events::open(&door, "/api/v1/stream?hardwareId=m-0", &[]).await;
    let mut both = Events::open(&door, "/api/v1/stream?event=fault&event=latest&hardwareId=m-0", &[]).await;
    grid_change(&mut door);
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(chosen.next().await.unwrap().event);
    }
    assert_eq!(names, ["reconfiguration", "reconfiguration", "fault"]);
    assert_eq!(readings.next().await.unwrap().event, "latest");
    assert_eq!(both.next().await.unwrap().event, "fault");
    assert_eq!(both.next().await.unwrap().event, "latest");
    let detail = door.get("/api/v1/stream?event=weather").await.problem(400, "invalid_parameter");
    assert!(detail.contains("outage"), "{detail}");
}

#[tokio::test]
async fn a_row_that_is_kept_no_longer_is_told_as_gone() {
    let mut door = Door::new();
    let mut events = Events::open(&door, "/api/v1/stream?event=outage&event=estimate", &[]).await;
    let mut epoch = door.rows.epoch(|_| Vec::new());
    epoch.grid.outages = vec![RowChange {
        tenant: tenant(),
        key: "out-1".into(),
        new: None,
    }];
    epoch.grid.gone = vec![(tenant(), "mv1/lv1".into())];
    door.live.apply(&epoch);
    assert_eq!(events.next().await.unwrap().data, json!({"outageId": "out-1", "outage": null}));
    let gone = json!({"area": "mv1/lv1", "eventTime": null, "quality": null});
    assert_eq!(events.next().await.unwrap().data, gone);
    door.get("/api/v1/outages/out-1").await.problem(404, "unknown_outage");
}
