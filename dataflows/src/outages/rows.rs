//! Outages and indices as the rows that views show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use flexmeter_grid::outage::{Device, Outage};
use flexmeter_model::EventTime;
use flexmeter_model::outcome::{GridOutcome, OutageRow, ReliabilityRow, RowChange};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use super::topology::Roster;
use super::{FeederReliability, GridId, Rows};
use crate::batch::Part;
use crate::grid::Grid;

/// Key of the row for what sits at the source itself, behind no feeder.
const AT_THE_SOURCE: &str = "source";

/// An outage as a row; `names` are those of the metering points.
pub(super) fn outage_row(grid: Option<&Grid>, names: &[String], outage: &Outage) -> OutageRow {
    let text = |device: Device| match device {
        Device::Point(point) => names.get(point as usize).cloned().unwrap_or_else(|| device.to_string()),
        Device::Branch(_) | Device::Node(_) => device.to_string(),
    };
    OutageRow {
        area: grid.and_then(|grid| area_of(grid, outage.node)).unwrap_or_default(),
        feeder: outage.feeder,
        device: text(outage.device),
        alternatives: outage.alternatives.iter().map(|&device| text(device)).collect(),
        node_id: outage.node,
        n_customers: outage.n_customers,
        n_customers_out: outage.n_customers_out,
        n_gasps: outage.n_gasps,
        opened_at: EventTime::from_micros(outage.opened_at_us),
        reported_at: EventTime::from_micros(outage.opened_log_us),
        closed_at: outage.closed_at_us.map(EventTime::from_micros),
        closed_because: outage.closed_because.map(|reason| reason.as_str()),
        confidence: f64::from(outage.confidence_ppm) / 1e6,
        acknowledged: outage.acknowledged,
    }
}

fn area_of(grid: &Grid, node: i64) -> Option<Arc<str>> {
    let node = grid.bundle().network.node_index(node)?;
    let area = grid.layout().area_of_node(node)?;
    grid.areas().get(area).map(|path| path.as_str().into())
}

fn reliability_row(row: &FeederReliability) -> ReliabilityRow {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let n_customers = count(row.n_served);
    let indices = row.tally.indices(n_customers);
    ReliabilityRow {
        feeder: row.feeder,
        n_customers,
        n_sustained: count(row.tally.n_sustained),
        n_momentary: count(row.tally.n_momentary),
        customer_min: row.tally.customer_s as f64 / 60.0,
        saidi_min: indices.map(|indices| indices.saidi_min),
        saifi: indices.map(|indices| indices.saifi),
        caidi_min: indices.and_then(|indices| indices.caidi_min),
        maifi: indices.map(|indices| indices.maifi),
    }
}

/// By grid and feeder: its row at the end of an epoch, if it has one.
type Epoch = BTreeMap<(GridId, Option<i64>), Option<FeederReliability>>;

/// Indices that changed, at the end of each epoch.
pub(super) fn reliability_parts<'scope>(
    indices: Rows<'scope, (GridId, FeederReliability)>,
    n_partitions: u32,
    roster: Rc<RefCell<Roster>>,
) -> StreamVec<'scope, u64, Part> {
    type Update = ((GridId, FeederReliability), u64, isize);
    let to = move |((key, _), ..): &Update| key % u64::from(n_partitions.max(1));
    indices.inner.unary_frontier(Exchange::new(to), "indices", move |_, _| {
        let mut waiting: BTreeMap<u64, (Capability<u64>, Epoch)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each_stamp(|time, containers| {
                let Some(capability) = time.retain_least(output.output_index()) else {
                    return;
                };
                for ((key, row), epoch, n) in containers.flat_map(std::mem::take) {
                    let (_, rows) = waiting.entry(epoch).or_insert_with(|| (capability.delayed(&epoch), Epoch::new()));
                    let new = rows.entry((key, row.feeder)).or_default();
                    if n > 0 {
                        *new = Some(row);
                    }
                }
            });
            while let Some(first) = waiting.first_entry().filter(|first| !frontier.frontier().less_equal(first.key())) {
                let (epoch, (capability, rows)) = first.remove_entry();
                let roster = roster.borrow();
                let changes = rows.into_iter().filter_map(|((key, feeder), row)| {
                    let (tenant, _) = roster.tenants.get(&key)?;
                    Some(RowChange {
                        tenant: tenant.clone(),
                        key: feeder.map_or_else(|| AT_THE_SOURCE.to_owned(), |feeder| feeder.to_string()).into(),
                        new: row.map(|row| reliability_row(&row).into()),
                    })
                });
                let outcome = GridOutcome {
                    reliability: changes.collect(),
                    ..GridOutcome::default()
                };
                output.session(&capability).give(Part::Operations(epoch, outcome));
            }
        }
    })
}
