//! A small district for tests: four meters, some history in the "lake", some in the tail, live views at the same moment.
//!
//! 2026-11-17, UTC. Meters m-0 to m-3, on partitions 0 to 3. Power consumed (l1, kW) and voltage (l1, V), every five minutes:
//! 00:00, 00:05 and 00:10 are in the lake, 00:15 is in the tail. Power of m-i at step s is i + s/10, voltage 230 + i - s.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::MemTable;
use flexmeter_model::grid_bundle::{BundleArea, BundleBranch, BundleMeter, BundleNode, BundleSwitch};
use flexmeter_model::outcome::{
    AlertLevel, AlertRow, AreaEstimate, ClosedEpoch, Device, FaultRow, GridOutcome, GridQuality, LatestChange, MessageHead, NodeState,
    OutageRow, OutcomeCode, PartitionOutcome, ProfileCell, ProfileChange, ProfileRow, Quality, Reading, ReasonCode, ReconfigurationRow,
    RejectionRow, ReliabilityRow, RowChange, SwitchOperation, SwitchRow, TotalChange,
};
use flexmeter_model::{EventTime, GridBundle, HardwareId, Identifier, TenantId};
use flexmeter_tables::alerts::AlertEncoder;
use flexmeter_tables::dictionary::Vocabulary;
use flexmeter_tables::load_profile::ProfileEncoder;
use flexmeter_tables::measurements::MeasurementEncoder;
use flexmeter_tables::operation_rows::{OperationEncoder, Version};
use flexmeter_tables::rejections::RejectionEncoder;
use flexmeter_tables::{RowEncoder, table};
use hashbrown::HashMap;

use super::{SqlLimits, SqlService};
use crate::auth::{Principal, Role};
use crate::catalog::{HistorySource, HistoryView};
use crate::live::LiveStore;

/// 2026-11-17T00:00:00Z, in microseconds.
pub(crate) const MIDNIGHT_US: i64 = 1_794_873_600_000_000;
const MINUTE_US: i64 = 60_000_000;
const N_METERS: u32 = 4;

pub(crate) fn principal() -> Principal {
    Principal {
        user: "admin".into(),
        tenant: tenant(),
        role: Role::Admin,
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("default").unwrap()
}

pub(crate) fn power() -> Identifier {
    Identifier::from_name(b"electricity.power.active.consumed.l1").unwrap()
}

pub(crate) fn voltage() -> Identifier {
    Identifier::from_name(b"electricity.voltage.rms.l1").unwrap()
}

pub(crate) fn minute(minute: i64) -> EventTime {
    EventTime::from_micros(MIDNIGHT_US + minute * MINUTE_US)
}

pub(crate) fn meter(i: u32) -> Arc<Device> {
    let hardware_id = HardwareId::new(&format!("m-{i}")).unwrap();
    Arc::new(Device {
        partition: i,
        index: 0,
        tenant: tenant(),
        hardware_id,
    })
}

#[derive(Debug, Default)]
pub(crate) struct FakeHistory {
    views: HashMap<&'static str, HistoryView>,
}

impl HistorySource for FakeHistory {
    fn view(&self, tenant_asked: &TenantId, table: &str) -> HistoryView {
        if *tenant_asked == tenant() {
            self.views.get(table).cloned().unwrap_or_default()
        } else {
            HistoryView::default()
        }
    }
}

/// The batch as a lake would give it: string views, a day column in front, comments in the metadata.
fn committed(batch: &RecordBatch) -> Arc<MemTable> {
    let mut fields = vec![Field::new("day", DataType::Date32, false)];
    let mut columns = vec![arrow::array::new_null_array(&DataType::Date32, batch.num_rows())];
    fields[0] = fields[0].clone().with_nullable(true);
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let data_type = match field.data_type() {
            DataType::Utf8 | DataType::Dictionary(..) => DataType::Utf8View,
            other => other.clone(),
        };
        columns.push(cast(column, &data_type).unwrap());
        fields.push(Field::new(field.name(), data_type, true).with_metadata(field.metadata().clone()));
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())
}

fn view(lake: &RecordBatch, tail: Vec<RecordBatch>) -> HistoryView {
    HistoryView {
        committed: Some(committed(lake)),
        tail,
    }
}

fn measurements(steps: std::ops::Range<i64>) -> RecordBatch {
    let mut encoder = MeasurementEncoder::new(&Vocabulary::new());
    for step in steps {
        for i in 0..N_METERS {
            let event_time = minute(5 * step);
            let received_at = EventTime::from_micros(event_time.micros() + 2_000_000);
            let offset = (step * 10) as u64;
            let head = MessageHead {
                device: meter(i),
                event_time,
                received_at,
                offset,
                n_values: 2,
                quality: Quality::Good,
            };
            encoder.push(&head, &[power(), voltage()], &values(i, step));
        }
    }
    encoder.finish().unwrap()
}

fn values(i: u32, step: i64) -> [f64; 2] {
    [f64::from(i) + step as f64 / 10.0, 230.0 + f64::from(i) - step as f64]
}

fn profile_row(i: u32, start: i64, generation: u64, values: &[f64]) -> ProfileRow {
    let n = values.len() as u64;
    let cell = ProfileCell {
        generation,
        n,
        mean: values.iter().sum::<f64>() / n as f64,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        last: values[values.len() - 1],
        last_time: minute(start + 5 * n as i64 - 5),
    };
    ProfileRow {
        device: meter(i),
        window_start: minute(start),
        identifier: power(),
        cell,
        offset: 0,
    }
}

fn profiles(rows: &[ProfileRow]) -> RecordBatch {
    let mut encoder = ProfileEncoder::new(&Vocabulary::new());
    rows.iter().for_each(|row| encoder.push(row));
    encoder.finish().unwrap()
}

pub(crate) fn history() -> FakeHistory {
    let mut views = HashMap::new();
    views.insert("measurements", view(&measurements(0..3), vec![measurements(3..4)]));
    // Window 00:00 of m-0 was written twice (2, then 3 readings); m-1 has two generations there; m-2 is only in the tail.
    let lake = profiles(&[
        profile_row(0, 0, 1, &[0.0, 0.1]),
        profile_row(0, 0, 1, &[0.0, 0.1, 0.2]),
        profile_row(1, 0, 1, &[1.0, 1.1]),
        profile_row(1, 0, 9, &[1.2]),
    ]);
    views.insert(
        "load_profile_15m",
        view(&lake, vec![profiles(&[profile_row(2, 0, 1, &[2.0, 2.1, 2.2])])]),
    );
    let alert = |i: u32, at: i64, level, metadata: &[(&str, &str)]| AlertRow {
        device: meter(i),
        alert_type: "power.lastgasp".to_owned(),
        level,
        message: format!("meter {i}"),
        metadata: metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        event_time: minute(at),
        received_at: minute(at),
        offset: at as u64,
    };
    let alerts = |rows: &[AlertRow]| {
        let mut encoder = AlertEncoder::default();
        rows.iter().for_each(|row| encoder.push(row));
        encoder.finish().unwrap()
    };
    // opened at 00:10 after it was tried out at 00:03; the middle report came last, and one report says nothing new
    let switched = |at: i64, offset: u64, position: &str| AlertRow {
        device: Arc::new(Device {
            hardware_id: HardwareId::new("SW-21").unwrap(),
            ..Device::clone(&meter(2))
        }),
        alert_type: "switch.position".to_owned(),
        received_at: minute(11),
        offset,
        ..alert(
            2,
            at,
            AlertLevel::Info,
            &[("by", r#"the "crew" of "position":"x""#), ("position", position)],
        )
    };
    let lake = alerts(&[
        alert(0, 1, AlertLevel::Critical, &[("cause", "fuse")]),
        switched(3, 5, "open"),
        switched(10, 6, "closed"),
        switched(12, 8, "open"),
    ]);
    let tail = alerts(&[
        alert(1, 2, AlertLevel::Info, &[]),
        switched(10, 7, "open"),
        switched(4, 9, "closed"),
        switched(5, 10, "stuck"),
    ]);
    views.insert("alerts", view(&lake, vec![tail]));
    let [(id, over), ..] = outages();
    let past = |id: &str, row: &OutageRow, n_gasps: u32, at: i64, is_withdrawn: bool| {
        let mut encoder = OperationEncoder::default();
        encoder.push(Version {
            key: id.into(),
            row: Arc::new(OutageRow { n_gasps, ..row.clone() }),
            log_time: minute(at),
            is_withdrawn,
        });
        encoder.finish().unwrap()
    };
    // out-0 has left memory and was corrected before; out-1 is in memory as well; out-9 was nothing
    let lake = [
        past("out-0", &over, 7, -90, false),
        past("out-0", &over, 6, -100, false),
        past(id, &over, 9, 7, false),
        past("out-9", &over, 1, -100, false),
    ];
    let lake = arrow::compute::concat_batches(&lake[0].schema(), &lake).unwrap();
    views.insert("outages", view(&lake, vec![past("out-9", &over, 1, -90, true)]));
    let mut rejections = RejectionEncoder::default();
    let rejection = |hardware_id: Option<&str>, reason, offset| RejectionRow {
        tenant: tenant(),
        hardware_id: hardware_id.map(|id| HardwareId::new(id).unwrap()),
        reason,
        detail: "as the test wants it".to_owned(),
        payload: "{".to_owned(),
        received_at: minute(1),
        offset,
    };
    rejections.push(0, &rejection(None, ReasonCode::MalformedJson, 1));
    rejections.push(0, &rejection(Some("m-0"), ReasonCode::OutOfRange, 2));
    views.insert("rejections", view(&rejections.finish().unwrap(), Vec::new()));
    FakeHistory { views }
}

/// A grid of two areas: a source at node 1, a transformer to node 2 in area mv1/lv1, a switched line from there to node 3, where m-0 is. The
/// switch has been opened at 00:10, so node 3 is dark.
pub(crate) fn grid_bundle() -> GridBundle {
    let node = |id: i64, name: Option<&str>, area: &str, u_rated_v: f64, feeder: Option<i64>| BundleNode {
        id,
        name: name.map(str::to_owned),
        area: area.into(),
        u_rated_v,
        feeder,
    };
    let branch = |id: i64, kind: &'static str, from_node: i64, to_node: i64, i_rated_a: Option<f64>| BundleBranch {
        id,
        name: None,
        kind,
        from_node,
        to_node,
        area: "mv1/lv1".into(),
        is_closed: true,
        i_rated_a,
    };
    let area = |path: &str, level: u32, parent: Option<&str>, n_nodes: u32, n_meters: u32| BundleArea {
        path: path.into(),
        level,
        parent: parent.map(Into::into),
        n_nodes,
        n_meters,
    };
    GridBundle {
        is_three_phase: true,
        areas: vec![area("mv1", 1, None, 1, 0), area("mv1/lv1", 2, Some("mv1"), 2, 1)],
        nodes: vec![
            node(1, None, "mv1", 10_000.0, None),
            node(2, Some("busbar"), "mv1/lv1", 400.0, Some(20)),
            node(3, Some("house, 3"), "mv1/lv1", 400.0, Some(20)),
        ],
        branches: vec![branch(20, "transformer", 1, 2, None), branch(21, "line", 2, 3, Some(250.0))],
        meters: vec![BundleMeter {
            hardware_id: "m-0".to_owned(),
            node_id: 3,
            area: "mv1/lv1".into(),
            feeder: Some(20),
            phases: "b",
            role: "customer",
            accuracy_v: 0.005,
            accuracy_p: 0.01,
        }],
        switches: vec![
            BundleSwitch {
                branch_id: 20,
                hardware_id: "branch-20".to_owned(),
                area: "mv1/lv1".into(),
                normally_closed: true,
                controllable: false,
            },
            BundleSwitch {
                branch_id: 21,
                hardware_id: "SW-21".to_owned(),
                area: "mv1/lv1".into(),
                normally_closed: true,
                controllable: true,
            },
        ],
    }
}

/// What the engine says about the grid: voltages of 10,000 and 230 V less one for each phase, the sigma a thousandth of it.
pub(crate) fn grid_outcome() -> GridOutcome {
    let state = |u: f64| {
        let mut state = NodeState {
            energised: u > 0.0,
            ..NodeState::default()
        };
        if u > 0.0 {
            state.value[0] = [u, u - 1.0, u - 2.0];
            state.sigma[0] = [u / 1000.0; 3];
        }
        state
    };
    let estimate = |area: &str, level: u32, nodes: &[i64], voltages_v: &[f64]| AreaEstimate {
        tenant: tenant(),
        area: area.into(),
        nodes: nodes.into(),
        three_phase: true,
        states: voltages_v.iter().map(|&u| state(u)).collect(),
        quality: GridQuality {
            level,
            j: 1.5,
            degrees_of_freedom: 2,
            suspects: if level == 2 { vec!["m-0".to_owned()] } else { Vec::new() },
            observable: level == 1,
            n_measurements: 1,
            n_pseudo: level,
            problem: None,
        },
        event_time: minute(15),
    };
    let switch = |branch_id: i64, since: Option<EventTime>, by: &str| SwitchRow {
        tenant: tenant(),
        branch_id,
        closed: since.is_none(),
        since,
        by: by.to_owned(),
    };
    GridOutcome {
        areas: vec![
            Arc::new(estimate("mv1", 1, &[1], &[10_000.0])),
            Arc::new(estimate("mv1/lv1", 2, &[2, 3], &[230.0, 0.0])),
        ],
        switches: vec![switch(20, None, ""), switch(21, Some(minute(10)), "SW-21")],
        outages: outages().into_iter().map(|(id, row)| changed(id, row)).collect(),
        reliability: reliability().into_iter().map(|(id, row)| changed(id, row)).collect(),
        reconfigurations: vec![
            changed("prop-1", proposal("rejected", 4)),
            changed("prop-2", proposal("proposed", 14)),
        ],
        faults: vec![changed("fault-1", fault())],
        ..GridOutcome::default()
    }
}

/// A row as an epoch tells it.
pub(crate) fn changed<R>(id: &str, row: R) -> RowChange<R> {
    RowChange {
        tenant: tenant(),
        key: id.into(),
        new: Some(Arc::new(row)),
    }
}

/// The transformer has failed from 00:01 to 00:06; since 00:11 the line behind it has, and a meter says so by itself at 00:12.
fn outages() -> [(&'static str, OutageRow); 3] {
    let outage = |device: &str, node_id: i64, opened: i64| OutageRow {
        area: "mv1/lv1".into(),
        feeder: Some(20),
        device: device.to_owned(),
        alternatives: Vec::new(),
        node_id,
        n_customers: 1,
        n_customers_out: 1,
        n_gasps: 1,
        opened_at: minute(opened),
        reported_at: minute(opened + 1),
        closed_at: None,
        closed_because: None,
        confidence: 0.75,
        acknowledged: false,
    };
    let over = OutageRow {
        n_customers: 2,
        n_customers_out: 0,
        closed_at: Some(minute(6)),
        closed_because: Some("restored"),
        acknowledged: true,
        ..outage("branch-20", 2, 1)
    };
    let line = OutageRow {
        alternatives: vec!["node-3".to_owned()],
        ..outage("branch-21", 3, 11)
    };
    [("out-1", over), ("out-2", line), ("out-3", outage("m-0", 3, 12))]
}

fn reliability() -> [(&'static str, ReliabilityRow); 2] {
    let nobody = ReliabilityRow {
        feeder: None,
        n_customers: 0,
        n_sustained: 0,
        n_momentary: 0,
        customer_min: 0.0,
        saidi_min: None,
        saifi: None,
        caidi_min: None,
        maifi: None,
    };
    let feeder = ReliabilityRow {
        feeder: Some(20),
        n_customers: 4,
        n_sustained: 2,
        n_momentary: 1,
        customer_min: 11.0,
        saidi_min: Some(2.75),
        saifi: Some(0.5),
        caidi_min: Some(5.5),
        maifi: Some(0.25),
    };
    [("20", feeder), ("source", nobody)]
}

/// To close switch 21, which saves 30 of 100 W.
pub(crate) fn proposal(state: &'static str, proposed: i64) -> ReconfigurationRow {
    let decided = state != "proposed";
    ReconfigurationRow {
        state,
        reason: None,
        decided_by: decided.then(|| "ada".to_owned()),
        operations: vec![SwitchOperation {
            branch_id: 21,
            hardware_id: HardwareId::new("SW-21").unwrap(),
            close: true,
        }],
        n_done: 0,
        loss_before_w: 100.0,
        loss_after_w: 70.0,
        loss_d4_6_w: (!decided).then_some(80.0),
        voltage_min_pu: [0.9375, 0.96875],
        proposed_at: minute(proposed),
        expires_at: minute(proposed + 60),
        changed_at: minute(if decided { proposed + 1 } else { proposed }),
    }
}

pub(crate) fn fault() -> FaultRow {
    FaultRow {
        area: "mv1/lv1".into(),
        fault_type: "BG".to_owned(),
        branch_id: 21,
        near_node: 2,
        share: 0.5,
        distance_m: Some(60.0),
        distance_sigma_m: Some(4.0),
        distance_ohm: 0.125,
        resistance_ohm: 1.5,
        probability: 0.75,
        candidates: r#"[{"branchId":21,"nearNode":2,"farNode":3,"share":0.5,"distanceM":60.0,"distanceSigmaM":4.0,"distanceOhm":0.125,"distanceSigmaOhm":0.01,"faultType":"BG","resistanceOhm":1.5,"groundResistanceOhm":null,"misfitSigmas":0.5,"probability":0.75}]"#.to_owned(),
        n_gasps: 1,
        event_time: minute(11),
        by: "ada".to_owned(),
    }
}

/// The live views after the reading of 00:15: the newest values, and the windows 00:00 (of m-0 and m-3 only) and 00:15.
pub(crate) fn live() -> LiveStore {
    let store = LiveStore::with_grids(BTreeMap::from([(tenant(), Arc::new(grid_bundle()))]));
    let mut partitions = Vec::new();
    for i in 0..N_METERS {
        let mut out = PartitionOutcome {
            partition: i,
            log_time: minute(15),
            ..PartitionOutcome::default()
        };
        for (identifier, value) in [power(), voltage()].into_iter().zip(values(i, 3)) {
            let new = Some(Reading {
                event_time: minute(15),
                value,
            });
            out.latest.push(LatestChange {
                device: meter(i),
                identifier,
                old: None,
                new,
            });
        }
        let mut windows = vec![profile_row(i, 15, 7, &[values(i, 3)[0]])];
        if i == 0 || i == 3 {
            // m-0's is newer than the lake's by one late reading
            let late = if i == 0 { vec![0.0, 0.1, 0.2, 4.0] } else { vec![3.0, 3.1, 3.2] };
            windows.push(profile_row(i, 0, 1, &late));
        }
        for row in windows {
            let ProfileRow {
                device,
                window_start,
                identifier,
                cell,
                ..
            } = row;
            out.profile.push(ProfileChange {
                device,
                window_start,
                identifier,
                old: None,
                new: Some(cell),
            });
        }
        partitions.push(out);
    }
    let totals = vec![TotalChange {
        tenant: tenant(),
        code: OutcomeCode::Accepted,
        total: 16,
    }];
    store.apply(&ClosedEpoch {
        epoch: 1,
        partitions,
        totals,
        grid: grid_outcome(),
    });
    store
}

pub(crate) fn service_with(limits: SqlLimits) -> SqlService {
    SqlService::new(Arc::new(live()), Arc::new(history()), limits).unwrap()
}

pub(crate) fn service() -> SqlService {
    service_with(SqlLimits::default())
}

#[test]
fn the_fixture_is_on_the_day_it_says() {
    assert_eq!(minute(0).to_string(), "2026-11-17T00:00:00Z");
    assert!(table("measurements").is_some());
}
