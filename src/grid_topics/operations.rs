//! What the topics of an area say of outages, located faults and proposals to switch otherwise.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use flexmeter_model::outcome::{FaultRow, OutageRow, ReconfigurationRow};
use flexmeter_model::record::PAYLOAD_LEN_MAX;
use flexmeter_queries::rest::grid::{FaultDocument, OutageDocument, ReconfigurationDocument};
use serde_json::{Value, json};

use super::{Key, Place};

/// Outages that are over, faults and proposals: so many of an area are told, the newest ones.
pub(super) const TOLD_MAX: usize = 20;

/// Rows of one view by the area they belong to.
#[derive(Debug)]
pub(super) struct ByArea<R> {
    rows: BTreeMap<Place, BTreeMap<Arc<str>, Arc<R>>>,
    place_of: HashMap<Key, Place>,
}

impl<R> Default for ByArea<R> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            place_of: HashMap::new(),
        }
    }
}

impl<R> ByArea<R> {
    /// Takes changes over; `touched` are the areas that have something new to say. A row may move from one area to another, and is told
    /// nowhere if it has none.
    pub(super) fn take(
        &mut self,
        changes: BTreeMap<Key, Option<Arc<R>>>,
        area: impl Fn(&Key, &R) -> Option<Arc<str>>,
        touched: &mut BTreeSet<Place>,
    ) {
        for (key, new) in changes {
            if let Some(place) = self.place_of.remove(&key) {
                if let Some(rows) = self.rows.get_mut(&place) {
                    rows.remove(&key.1);
                    if rows.is_empty() {
                        self.rows.remove(&place);
                    }
                }
                touched.insert(place);
            }
            if let Some((area, row)) = new.and_then(|row| Some((area(&key, &row)?, row))) {
                let place = (key.0.clone(), area);
                self.rows.entry(place.clone()).or_default().insert(key.1.clone(), row);
                touched.insert(place.clone());
                self.place_of.insert(key, place);
            }
        }
    }

    /// An area's rows, the newest first.
    fn newest<T: Ord>(&self, place: &Place, time: impl Fn(&R) -> T) -> Vec<(&Arc<str>, &Arc<R>)> {
        let mut rows: Vec<_> = self.rows.get(place).into_iter().flatten().collect();
        // the order of the ids stays where times are equal
        rows.sort_by_key(|row| Reverse(time(row.1)));
        rows
    }
}

/// All open outages of an area and the last ones that are over; nothing for an area without any, which takes the last message away.
pub(super) fn outages(rows: &ByArea<OutageRow>, place: &Place) -> Bytes {
    let all = rows.newest(place, |row| row.reported_at);
    if all.is_empty() {
        return Bytes::new();
    }
    let document = |(id, row): &(&Arc<str>, &Arc<OutageRow>)| OutageDocument::new(id, row);
    let (closed, open): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, row)| row.closed_at.is_some());
    let closed: Vec<OutageDocument> = closed.iter().take(TOLD_MAX).map(document).collect();
    let open: Vec<OutageDocument> = open.iter().map(document).collect();
    let write = |n_told: usize| {
        let told = &open[..n_told];
        let text = json!({ "area": &*place.1, "open": told, "nOpenOmitted": open.len() - n_told, "closed": closed });
        Bytes::from(text.to_string())
    };
    let mut n_told = open.len();
    loop {
        let payload = write(n_told);
        if payload.len() <= PAYLOAD_LEN_MAX || n_told == 0 {
            return payload;
        }
        n_told /= 2;
    }
}

/// The last faults that were located in an area.
pub(super) fn faults(rows: &ByArea<FaultRow>, place: &Place) -> Bytes {
    let all = rows.newest(place, |row| row.event_time);
    if all.is_empty() {
        return Bytes::new();
    }
    let faults: Vec<FaultDocument> = all.iter().take(TOLD_MAX).map(|(id, row)| FaultDocument::new(id, row)).collect();
    json!({ "area": &*place.1, "faults": faults }).to_string().into()
}

/// The last proposals of a grid.
pub(super) fn proposals(rows: &ByArea<ReconfigurationRow>, place: &Place) -> Value {
    let all = rows.newest(place, |row| row.proposed_at);
    let told = all.iter().take(TOLD_MAX).map(|(id, row)| ReconfigurationDocument::new(id, row));
    json!(told.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use flexmeter_model::{EventTime, TenantId};

    use super::*;

    fn key(id: &str) -> Key {
        (TenantId::new("default").unwrap(), id.into())
    }

    fn outage(area: &str, reported: i64, over: bool) -> Option<Arc<OutageRow>> {
        Some(Arc::new(OutageRow {
            area: area.into(),
            feeder: Some(1),
            device: "branch-7".to_owned(),
            alternatives: Vec::new(),
            node_id: 8,
            n_customers: 3,
            n_customers_out: if over { 0 } else { 3 },
            n_gasps: 2,
            opened_at: EventTime::from_micros(reported),
            reported_at: EventTime::from_micros(reported),
            closed_at: over.then(|| EventTime::from_micros(reported + 1)),
            closed_because: over.then_some("restored"),
            confidence: 0.9,
            acknowledged: false,
        }))
    }

    fn take(rows: &mut ByArea<OutageRow>, changes: impl IntoIterator<Item = (Key, Option<Arc<OutageRow>>)>) -> Vec<String> {
        let mut touched = BTreeSet::new();
        rows.take(changes.into_iter().collect(), |_, row| Some(row.area.clone()), &mut touched);
        touched.into_iter().map(|place| place.1.to_string()).collect()
    }

    fn said(rows: &ByArea<OutageRow>, area: &str) -> Value {
        serde_json::from_slice(&outages(rows, &key(area))).unwrap_or(Value::Null)
    }

    fn ids(list: &Value) -> Vec<&str> {
        let outages = list.as_array().unwrap().iter();
        outages.map(|outage| outage["outageId"].as_str().unwrap()).collect()
    }

    #[test]
    fn an_area_tells_what_is_open_and_the_last_that_are_over() {
        let mut rows = ByArea::default();
        let closed = (0..30).map(|i| (key(&format!("c{i:02}")), outage("mv1", i, true)));
        let open = [(key("a"), outage("mv1", 5, false)), (key("b"), outage("mv1", 9, false))];
        assert_eq!(take(&mut rows, closed.chain(open)), ["mv1"]);
        let document = said(&rows, "mv1");
        assert_eq!((ids(&document["open"]), &document["nOpenOmitted"]), (vec!["b", "a"], &json!(0)));
        assert_eq!(ids(&document["closed"]).len(), TOLD_MAX);
        assert_eq!(ids(&document["closed"])[0], "c29");
    }

    #[test]
    fn an_outage_whose_device_turns_out_to_be_elsewhere_leaves_its_area() {
        let mut rows = ByArea::default();
        take(&mut rows, [(key("a"), outage("mv1/lv1", 5, false))]);
        assert_eq!(take(&mut rows, [(key("a"), outage("mv1", 5, false))]), ["mv1", "mv1/lv1"]);
        assert_eq!((ids(&said(&rows, "mv1")["open"]), said(&rows, "mv1/lv1")), (vec!["a"], Value::Null));
        assert_eq!(take(&mut rows, [(key("a"), None)]), ["mv1"]);
        assert!(outages(&rows, &key("mv1")).is_empty() && rows.rows.is_empty() && rows.place_of.is_empty());
    }

    #[test]
    fn more_open_outages_than_a_message_holds_are_counted() {
        let mut rows = ByArea::default();
        take(&mut rows, (0..5_000).map(|i| (key(&format!("o{i}")), outage("mv1", i, false))));
        let payload = outages(&rows, &key("mv1"));
        assert!(
            payload.len() <= PAYLOAD_LEN_MAX && payload.len() > PAYLOAD_LEN_MAX / 4,
            "{}",
            payload.len()
        );
        let document: Value = serde_json::from_slice(&payload).unwrap();
        let n_told = ids(&document["open"]).len();
        assert_eq!(document["nOpenOmitted"], json!(5_000 - n_told));
        assert_eq!(document["open"][0]["outageId"], "o4999", "the newest are told");
    }
}
