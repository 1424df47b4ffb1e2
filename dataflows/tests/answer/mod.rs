//! Everything a log answers, in a form that can be compared: rows in any order, views, totals and counts.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;

use flexmeter_model::outcome::{ClosedEpoch, Device, EpochCounts, PartitionOutcome, ProfileCell, Reading};

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    /// Partition, offset and the row as text.
    pub(crate) rows: Vec<(u32, u64, String)>,
    pub(crate) latest: BTreeMap<String, String>,
    pub(crate) profile: BTreeMap<String, String>,
    pub(crate) totals: BTreeMap<String, u64>,
    pub(crate) counts: BTreeMap<u32, EpochCounts>,
}

pub(crate) fn name(device: &Device) -> String {
    format!("{}/{}", device.tenant, device.hardware_id)
}

pub(crate) fn reading_text(event_time: i64, value: f64) -> String {
    format!("{value} at {event_time}")
}

pub(crate) fn cell_text(cell: &ProfileCell) -> String {
    let ProfileCell {
        generation,
        n,
        mean,
        min,
        max,
        last,
        last_time,
    } = cell;
    format!(
        "generation {generation}: n {n} mean {mean} min {min} max {max} last {last} at {}",
        last_time.micros()
    )
}

impl Answer {
    /// Takes an epoch in. A change must take out what is there.
    pub(crate) fn take(&mut self, epoch: ClosedEpoch) {
        for outcome in epoch.partitions {
            self.take_rows(&outcome);
            *self.counts.entry(outcome.partition).or_default() += outcome.counts;
            for change in outcome.latest {
                let key = format!("{} {}", name(&change.device), change.identifier.name());
                let text = |reading: Reading| reading_text(reading.event_time.micros(), reading.value);
                exchange(&mut self.latest, key, change.old.map(text), change.new.map(text));
            }
            for change in outcome.profile {
                let key = format!(
                    "{} {} {}",
                    name(&change.device),
                    change.window_start.micros(),
                    change.identifier.name()
                );
                exchange(
                    &mut self.profile,
                    key,
                    change.old.as_ref().map(cell_text),
                    change.new.as_ref().map(cell_text),
                );
            }
        }
        for total in epoch.totals {
            self.totals.insert(format!("{} {}", total.tenant, total.code.as_str()), total.total);
        }
    }

    fn take_rows(&mut self, outcome: &PartitionOutcome) {
        let partition = outcome.partition;
        for (head, identifiers, values) in outcome.measurements.messages() {
            for (identifier, value) in identifiers.iter().zip(values) {
                let (name, time) = (name(&head.device), head.event_time.micros());
                self.rows.push((
                    partition,
                    head.offset,
                    format!("measurement {name} {} {value} at {time}", identifier.name()),
                ));
            }
        }
        for row in &outcome.alerts {
            let text = format!("alert {} {} at {}", name(&row.device), row.message, row.event_time.micros());
            self.rows.push((partition, row.offset, text));
        }
        for row in &outcome.acknowledgements {
            let text = format!(
                "acknowledgement {} {} at {}",
                name(&row.device),
                row.originating_event_id,
                row.event_time.micros()
            );
            self.rows.push((partition, row.offset, text));
        }
        for row in &outcome.registrations {
            self.rows
                .push((partition, row.offset, format!("registration {}", name(&row.device))));
        }
        for row in &outcome.rejections {
            let device = row.hardware_id.as_ref().map_or("", |id| id.as_str());
            self.rows.push((
                partition,
                row.offset,
                format!("rejection {}/{device} {} {}", row.tenant, row.reason.as_str(), row.payload),
            ));
        }
        for row in &outcome.profile_rows {
            let (start, identifier) = (row.window_start.micros(), row.identifier.name());
            let text = format!("profile {} {start} {identifier} {}", name(&row.device), cell_text(&row.cell));
            self.rows.push((partition, row.offset, text));
        }
    }

    /// Panics with the first difference.
    pub(crate) fn assert_same(mut self, mut expected: Self, what: &str) {
        self.rows.sort();
        expected.rows.sort();
        if let Some(at) = (0..self.rows.len().max(expected.rows.len())).find(|&at| self.rows.get(at) != expected.rows.get(at)) {
            panic!("{what}: row {at} is {:?}, expected {:?}", self.rows.get(at), expected.rows.get(at));
        }
        assert_same_map(&self.latest, &expected.latest, what, "latest");
        assert_same_map(&self.profile, &expected.profile, what, "profile");
        assert_same_map(&self.totals, &expected.totals, what, "totals");
        assert_same_map(&self.counts, &expected.counts, what, "counts");
    }
}

pub(crate) fn assert_same_map<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
    what: &str,
    view: &str,
) {
    for key in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(key), expected.get(key), "{what}: {view} {key:?}");
    }
}

fn exchange(view: &mut BTreeMap<String, String>, key: String, old: Option<String>, new: Option<String>) {
    assert_ne!(old, new, "{key}: a change that changes nothing");
    assert_eq!(
        view.get(&key),
        old.as_ref(),
        "{key}: the change takes out another row than there is"
    );
    match new {
        Some(new) => view.insert(key, new),
        None => view.remove(&key),
    };
}
