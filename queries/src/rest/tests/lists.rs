use serde_json::Value;

use super::fixture::{Answer, Door, measurements, rejections};
use crate::live::test_rows::identifier;

/// The `next` link of a page, if there is one.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    (!link.is_empty()).then(|| link.trim_start_matches('<').split('>').next().unwrap().to_owned())
}

fn offsets(page: &Value) -> Vec<i64> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["logOffset"].as_i64().unwrap())
        .collect()
}

/// Walks a list by its links; `between` is called after each page.
async fn walk(door: &Door, start: &str, mut between: impl FnMut(&Door, usize)) -> Vec<Value> {
    let (mut pages, mut path) = (Vec::new(), Some(start.to_owned()));
    while let Some(at) = path {
        let answer = door.get(&at).await;
        assert_eq!(answer.status, 200, "{at}: {}", answer.text());
        path = next(&answer);
        let page = answer.json();
        assert_eq!(page["next"].is_null(), path.is_none());
        pages.push(page);
        between(door, pages.len());
        assert!(pages.len() < 100, "the walk does not end");
    }
    pages
}

#[tokio::test]
async fn a_walk_sees_every_reading_once_while_new_ones_arrive() {
    let door = Door::new();
    // two identifiers at each second, and offsets that run against time
    let readings: Vec<_> = (0..40).map(|n| (n / 2, (n % 2) as u8, 100 - n)).collect();
    door.history.add("measurements", measurements(&readings));
    let pages = walk(&door, "/api/v1/devices/m-0/measurements?limit=7", |door, n_pages| {
        // one ahead of the cursor and one behind it
        door.history.add(
            "measurements",
            measurements(&[(1_000 + n_pages as i64, 0, 1_000 + n_pages as i64), (-5, 0, -(n_pages as i64))]),
        );
    })
    .await;
    let seen: Vec<_> = pages.iter().flat_map(offsets).collect();
    let old: Vec<_> = seen.iter().copied().filter(|offset| (0..=100).contains(offset)).collect();
    assert_eq!(
        old,
        (61..=100).rev().collect::<Vec<_>>(),
        "every reading that was there, once and in order"
    );
    assert!(seen.iter().all(|offset| *offset >= 0), "nothing from behind the cursor");
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len());
}

#[tokio::test]
async fn readings_with_one_key_are_walked_as_well() {
    let door = Door::new();
    door.history.add(
        "measurements",
        measurements(&[(1, 0, 5), (1, 0, 5), (1, 0, 5), (1, 0, 5), (1, 0, 5), (2, 0, 6)]),
    );
    let pages = walk(&door, "/api/v1/devices/m-0/measurements?limit=2", |_, _| {}).await;
    assert_eq!(pages.iter().flat_map(offsets).collect::<Vec<_>>(), [5, 5, 5, 5, 5, 6]);
}

#[tokio::test]
async fn readings_are_selected_by_time_and_identifier() {
    let door = Door::new();
    door.history
        .add("measurements", measurements(&[(1, 0, 1), (2, 0, 2), (2, 1, 3), (3, 0, 4)]));
    let path = "/api/v1/devices/m-0/measurements";
    let from_to = door
        .get(&format!("{path}?from=1970-01-01T00:00:02Z&to=1970-01-01T02:00:03%2B02:00"))
        .await
        .json();
    assert_eq!(offsets(&from_to), [2, 3]);
    let one = door.get(&format!("{path}?identifier={}", identifier(1).name())).await.json();
    assert_eq!(offsets(&one), [3]);
    assert_eq!(
        one["items"][0],
        serde_json::json!({"eventTime": "1970-01-01T00:00:02Z", "identifier": identifier(1).name(), "value": 0.375, "unit": identifier(1).unit(),
            "quality": "good", "receivedAt": "1970-01-01T00:00:03Z", "logPartition": 0, "logOffset": 3})
    );
    let nothing = door.get("/api/v1/devices/m-1/measurements").await;
    assert_eq!(nothing.json(), serde_json::json!({"hardwareId": "m-1", "items": [], "next": null}));
    door.get("/api/v1/devices/nobody/measurements").await.problem(404, "unknown_device");
    door.get("/api/v1/devices/nobody/load-profile").await.problem(404, "unknown_device");
}

#[tokio::test]
async fn readings_come_as_csv_and_arrow_too() {
    let door = Door::new();
    door.history.add("measurements", measurements(&[(1, 0, 1), (2, 0, 2)]));
    let csv = door
        .get_with("/api/v1/devices/m-0/measurements?limit=1", &[("accept", "text/csv")])
        .await;
    let line = format!(
        "1970-01-01T00:00:01Z,{},0.125,{},good,1970-01-01T00:00:02Z,0,1",
        identifier(0).name(),
        identifier(0).unit()
    );
    assert_eq!(
        csv.text(),
        format!("eventTime,identifier,value,unit,quality,receivedAt,logPartition,logOffset\n{line}\n")
    );
    assert!(!csv.header("x-next-cursor").is_empty() && next(&csv).is_some());
    let arrow = door
        .get_with(
            "/api/v1/devices/m-0/measurements",
            &[("accept", "application/vnd.apache.arrow.stream")],
        )
        .await;
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.body.as_ref(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
}

#[tokio::test]
async fn nothing_a_user_writes_becomes_sql() {
    let door = Door::new();
    door.history.add("measurements", measurements(&[(1, 0, 1)]));
    door.get("/api/v1/devices/x'%20OR%20'1'='1/measurements")
        .await
        .problem(404, "unknown_device");
    door.get("/api/v1/devices/x'OR'1'='1/measurements")
        .await
        .problem(404, "unknown_device");
    let none = door.get("/api/v1/rejections?hardwareId='%20OR%201=1--").await;
    assert_eq!(none.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn a_walk_sees_every_rejection_of_one_message() {
    let door = Door::new();
    door.history.add(
        "rejections",
        rejections(&[
            (1, 10, "out_of_range", "c"),
            (1, 10, "out_of_range", "a"),
            (1, 10, "not_a_number", "b"),
            (2, 11, "malformed_json", "d"),
            (2, 12, "malformed_json", "e"),
        ]),
    );
    let pages = walk(&door, "/api/v1/rejections?limit=2", |_, _| {}).await;
    let details: Vec<_> = pages
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|item| item["detail"].as_str().unwrap())
        .collect();
    assert_eq!(details, ["b", "a", "c", "d", "e"]);
    let one = door
        .get("/api/v1/rejections?reason=out_of_range&from=1970-01-01T00:00:01Z&to=1970-01-01T00:00:02Z")
        .await
        .json();
    assert_eq!(one["items"].as_array().unwrap().len(), 2);
    assert_eq!(one["items"][0]["hardwareId"], Value::Null);
    assert_eq!(one["items"][0]["receivedAt"], "1970-01-01T00:00:01Z");
}

#[tokio::test]
async fn devices_are_walked_by_name_while_new_ones_appear() {
    let mut door = Door::new();
    door.rows.grow(25);
    let epoch = door.rows.epoch(|_| vec![(identifier(0), 3, 1.0)]);
    door.live.apply(&epoch);
    let mut expected: Vec<_> = (0..25).map(|n| format!("m-{n}")).collect();
    expected.sort();
    let mut late = crate::live::test_rows::Rows::new("default", 26);
    let newcomer = late.epoch(|device| if device == 25 { vec![(identifier(0), 3, 1.0)] } else { vec![] });
    let pages = walk(&door, "/api/v1/devices?limit=4", |door, n_pages| {
        if n_pages == 1 {
            door.live.apply(&newcomer);
        }
    })
    .await;
    let seen: Vec<_> = pages
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|item| item["hardwareId"].as_str().unwrap())
        .collect();
    expected.push("m-25".to_owned());
    expected.sort();
    assert_eq!(seen, expected, "m-25 lay ahead of the cursor");

    let ones = door.get("/api/v1/devices?prefix=m-1").await.json();
    assert_eq!(ones["items"].as_array().unwrap().len(), 11);
    assert_eq!(
        door.get("/api/v1/devices?prefix=x").await.json(),
        serde_json::json!({"items": [], "next": null})
    );
}

#[tokio::test]
async fn a_load_profile_is_walked_by_window() {
    let mut door = Door::new();
    for minute in [0, 15, 30, 45] {
        let epoch = door.rows.profile_epoch(minute, Some(3));
        door.live.apply(&epoch);
    }
    let pages = walk(&door, "/api/v1/devices/m-1/load-profile?limit=3", |_, _| {}).await;
    let starts: Vec<_> = pages
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|item| item["windowStart"].as_str().unwrap())
        .collect();
    assert_eq!(
        starts,
        [
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:15:00Z",
            "1970-01-01T00:30:00Z",
            "1970-01-01T00:45:00Z"
        ]
    );
    let page = &pages[0];
    assert_eq!((&page["hardwareId"], &page["windowMinutes"]), (&"m-1".into(), &15.into()));
    assert_eq!(
        page["items"][0],
        serde_json::json!({"windowStart": "1970-01-01T00:00:00Z", "identifier": identifier(0).name(), "unit": identifier(0).unit(),
            "n": 3, "mean": 1.0, "min": 1.0, "max": 1.0, "last": 1.0})
    );
    let part = door
        .get("/api/v1/devices/m-1/load-profile?from=1970-01-01T00:15:00Z&to=1970-01-01T00:45:00Z")
        .await
        .json();
    assert_eq!(part["items"].as_array().unwrap().len(), 2);
}
