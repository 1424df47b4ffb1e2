//! A REST door for tests, and a way to ask it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use flexmeter_model::TenantId;
use flexmeter_model::outcome::{ClosedEpoch, Device};
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::auth::{AuthConfig, Authenticator};
use crate::catalog::{HistorySource, HistoryView};
use crate::live::LiveStore;
use crate::live::test_rows::{Rows, identifier};
use crate::rest::grid::{BundleRefusal, Stored};
use crate::rest::{ComponentState, Counter, Health, RestConfig, RestState, router};
use crate::session::fixture::{fault, grid_bundle, grid_outcome};
use crate::session::{SqlLimits, SqlService};

/// `admin:secret`.
pub(super) const BASIC: &str = "Basic YWRtaW46c2VjcmV0";

/// The tail of each table; nothing is committed.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<HashMap<String, Vec<RecordBatch>>>);

impl History {
    pub(super) fn add(&self, table: &str, batch: RecordBatch) {
        self.0.lock().entry(table.to_owned()).or_default().push(batch);
    }
}

impl HistorySource for History {
    fn view(&self, tenant: &TenantId, table: &str) -> HistoryView {
        let tail = if tenant.as_str() == "default" {
            self.0.lock().get(table).cloned().unwrap_or_default()
        } else {
            Vec::new()
        };
        HistoryView { committed: None, tail }
    }
}

pub(super) struct Door {
    pub(super) router: Router,
    pub(super) counter: Arc<Counter>,
    pub(super) live: Arc<LiveStore>,
    pub(super) history: Arc<History>,
    pub(super) rows: Rows,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts a problem with this status and code, and gives its detail.
    pub(super) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["type"], format!("urn:flexmeter:problem:{code}"), "{body}");
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string());
        assert_eq!(body["trace_id"], self.header("x-trace-id"), "{body}");
        body["detail"].as_str().unwrap().to_owned()
    }
}

pub(super) fn state(live: Arc<LiveStore>, history: Arc<History>) -> RestState {
    let auth = AuthConfig {
        check: Arc::new(|user, password| (user, password) == ("admin", "secret")),
        tenant: TenantId::new("default").unwrap(),
        token_key: [7; 32],
        insecure: false,
    };
    let limits = SqlLimits {
        threads: 1,
        ..SqlLimits::default()
    };
    RestState {
        sql: Arc::new(SqlService::new(live.clone(), history, limits).unwrap()),
        live,
        auth: Arc::new(Authenticator::new(auth)),
        readiness: Arc::new(|| {
            vec![ComponentState {
                name: "lake",
                health: Health::Degraded,
                detail: Some("commits are slow".into()),
            }]
        }),
        metrics: Arc::new(|| "flexmeter_up 1\n".to_owned()),
        log: Arc::new(|_, _| Box::pin(async { Ok(()) })),
        faults: Arc::new(|_| Box::pin(async { Ok(fault()) })),
        bundles: Arc::new(|_, files| {
            let stored = match files.contains_key("network.json") {
                true => Ok(Stored {
                    fingerprint: "ab01".to_owned(),
                    n_nodes: files.len(),
                    n_branches: 0,
                    n_meters: 0,
                    areas: Vec::new(),
                }),
                false => Err(BundleRefusal::Bundle("network.json is missing".to_owned())),
            };
            Box::pin(async { stored })
        }),
    }
}

impl Door {
    /// Three devices of tenant `default` with two values each, and the grid of the SQL tests.
    pub(super) fn new() -> Self {
        Self::with(RestConfig::default(), |_| {})
    }

    pub(super) fn with(config: RestConfig, change: impl FnOnce(&mut RestState)) -> Self {
        let grids = BTreeMap::from([(TenantId::new("default").unwrap(), Arc::new(grid_bundle()))]);
        let (live, history) = (Arc::new(LiveStore::with_grids(grids)), Arc::new(History::default()));
        let mut rows = Rows::new("default", 3);
        let mut epoch = rows.epoch(|device| vec![(identifier(0), 1, device as f64), (identifier(1), 2, 0.5)]);
        epoch.grid = grid_outcome();
        live.apply(&epoch);
        let mut state = state(live.clone(), history.clone());
        change(&mut state);
        let (router, counter) = router(config, state);
        Self {
            router,
            counter,
            live,
            history,
            rows,
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(super) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers, Body::empty())).await
    }

    pub(super) async fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        self.post_with(path, &[("content-type", content_type)], body).await
    }

    pub(super) async fn put(&self, path: &str, body: &str) -> Answer {
        self.send(request("PUT", path, &[], Body::from(body.to_owned()))).await
    }

    pub(super) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(request("POST", path, headers, Body::from(body.to_owned()))).await
    }
}

/// One value of device `m-0` of tenant `other`.
pub(super) fn epoch_of_another_tenant(value: f64) -> ClosedEpoch {
    let mut epoch = Rows::new("other", 1).epoch(|_| vec![(identifier(0), 1, value)]);
    for partition in &mut epoch.partitions {
        // Devices of all tenants share a partition's index; this one must not take the place of another.
        let elsewhere = |device: &Device| {
            Arc::new(Device {
                partition: 99,
                ..device.clone()
            })
        };
        partition
            .latest
            .iter_mut()
            .for_each(|change| change.device = elsewhere(&change.device));
        partition
            .measurements
            .heads
            .iter_mut()
            .for_each(|head| head.device = elsewhere(&head.device));
    }
    epoch
}

/// A request of the administrator.
pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, BASIC);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

/// Whole seconds as a column of times.
fn times(seconds: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(seconds.map(|s| s * 1_000_000)).with_timezone("UTC"))
}

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

fn numbers(numbers: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers))
}

/// Readings of `m-0`: event time in seconds, index of the identifier, log offset.
pub(super) fn measurements(readings: &[(i64, u8, i64)]) -> RecordBatch {
    let n = readings.len();
    let named = |index: u8| identifier(index).name();
    RecordBatch::try_from_iter([
        ("hardware_id", texts(std::iter::repeat_n("m-0", n))),
        ("identifier", texts(readings.iter().map(|reading| named(reading.1)))),
        ("event_time", times(readings.iter().map(|reading| reading.0))),
        (
            "value",
            Arc::new(Float64Array::from_iter_values(
                readings.iter().map(|reading| reading.2 as f64 / 8.0),
            )) as ArrayRef,
        ),
        ("unit", texts(readings.iter().map(|reading| identifier(reading.1).unit()))),
        ("quality", texts(std::iter::repeat_n("good", n))),
        ("received_at", times(readings.iter().map(|reading| reading.0 + 1))),
        ("log_partition", numbers(std::iter::repeat_n(0, n))),
        ("log_offset", numbers(readings.iter().map(|reading| reading.2))),
    ])
    .unwrap()
}

/// Rejections: append time in seconds, log offset, reason, detail.
pub(super) fn rejections(rows: &[(i64, i64, &str, &str)]) -> RecordBatch {
    let n = rows.len();
    RecordBatch::try_from_iter([
        ("hardware_id", Arc::new(StringArray::from(vec![None::<&str>; n])) as ArrayRef),
        ("reason", texts(rows.iter().map(|row| row.2))),
        ("detail", texts(rows.iter().map(|row| row.3))),
        ("payload", texts(std::iter::repeat_n("{", n))),
        ("received_at", times(rows.iter().map(|row| row.0))),
        ("log_partition", numbers(std::iter::repeat_n(3, n))),
        ("log_offset", numbers(rows.iter().map(|row| row.1))),
    ])
    .unwrap()
}
