//! What the grid engine says, over MQTT: `…/grid/{area}/estimate` when an area's estimate has changed, `…/grid/{area}/topology` when one
//! of its switches has.
//!
//! The distributor leaves news here and never waits: of each topic only the newest is kept, and it goes out at most once in
//! [`TOPIC_EVERY`]. Messages are retained, so whoever subscribes later begins with the newest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flexmeter_connectors::mqtt::Broker;
use flexmeter_connectors::mqtt::broker::Qos;
use flexmeter_model::grid_bundle::BundleSwitch;
use flexmeter_model::outcome::{AreaEstimate, GridOutcome, SwitchRow};
use flexmeter_model::record::PAYLOAD_LEN_MAX;
use flexmeter_model::{GridBundle, TenantId};
use flexmeter_queries::rest::grid::{EstimateDocument, SwitchDocument};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A topic says something at most this often.
pub(crate) const TOPIC_EVERY: Duration = Duration::from_secs(1);

/// News that has not been published: bounded by the areas and switches there are.
#[derive(Debug, Default)]
pub(crate) struct GridNews {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The newest estimate of each area; `None` where the area is no more.
    estimates: BTreeMap<Place, Option<Arc<AreaEstimate>>>,
    switches: BTreeMap<Branch, SwitchRow>,
}

/// A tenant's branch.
type Branch = (TenantId, i64);
/// A tenant's area.
type Place = (TenantId, Arc<str>);

impl GridNews {
    /// Takes over what an epoch says about grids.
    pub(crate) fn post(&self, outcome: &GridOutcome) {
        if outcome.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        for (tenant, area) in &outcome.gone {
            waiting.estimates.insert((tenant.clone(), area.clone()), None);
        }
        for area in &outcome.areas {
            let place = (area.tenant.clone(), area.area.clone());
            waiting.estimates.insert(place, Some(area.clone()));
        }
        for switch in &outcome.switches {
            waiting.switches.insert((switch.tenant.clone(), switch.branch_id), switch.clone());
        }
        drop(waiting);
        self.came.notify_one();
    }
}

/// What is to be published, and when.
#[derive(Debug)]
struct Publisher {
    /// The switches of each area.
    by_area: BTreeMap<Place, Vec<BundleSwitch>>,
    area_of: HashMap<Branch, Arc<str>>,
    /// Where the switches stand.
    switches: HashMap<Branch, SwitchRow>,
    estimates: BTreeMap<Place, Option<Arc<AreaEstimate>>>,
    topologies: BTreeSet<Place>,
    /// When a topic may speak again; entries of the past are dropped.
    quiet_until: HashMap<String, Instant>,
}

/// A message on its way.
type Message = (String, Bytes);

impl Publisher {
    fn new(bundles: &BTreeMap<TenantId, Arc<GridBundle>>) -> Self {
        let mut by_area: BTreeMap<Place, Vec<BundleSwitch>> = BTreeMap::new();
        let mut area_of = HashMap::new();
        for (tenant, bundle) in bundles {
            for switch in &bundle.switches {
                area_of.insert((tenant.clone(), switch.branch_id), switch.area.clone());
                let place = (tenant.clone(), switch.area.clone());
                by_area.entry(place).or_default().push(switch.clone());
            }
        }
        Self {
            by_area,
            area_of,
            switches: HashMap::new(),
            estimates: BTreeMap::new(),
            topologies: BTreeSet::new(),
            quiet_until: HashMap::new(),
        }
    }

    fn take(&mut self, news: &GridNews) {
        let Waiting { mut estimates, switches } = std::mem::take(&mut *news.waiting.lock());
        self.estimates.append(&mut estimates);
        for (branch, row) in switches {
            if let Some(area) = self.area_of.get(&branch) {
                self.topologies.insert((branch.0.clone(), area.clone()));
            }
            self.switches.insert(branch, row);
        }
    }

    /// The messages that may go out now, and when the next one may.
    fn due(&mut self, now: Instant) -> (Vec<Message>, Option<Instant>) {
        self.quiet_until.retain(|_, until| *until > now);
        let mut messages = Vec::new();
        let mut next: Option<Instant> = None;
        let mut may_speak = |topic: &str, quiet_until: &mut HashMap<String, Instant>| match quiet_until.get(topic) {
            Some(&until) => {
                next = Some(next.map_or(until, |next| next.min(until)));
                false
            }
            None => {
                quiet_until.insert(topic.to_owned(), now + TOPIC_EVERY);
                true
            }
        };
        self.estimates.retain(|(tenant, area), estimate| {
            let topic = format!("flexmeter/{tenant}/grid/{area}/estimate");
            let goes = may_speak(&topic, &mut self.quiet_until);
            if goes {
                // an empty retained message takes the last one away
                messages.push((topic, estimate.as_deref().map_or_else(Bytes::new, estimate_payload)));
            }
            !goes
        });
        self.topologies.retain(|place| {
            let (tenant, area) = place;
            let topic = format!("flexmeter/{tenant}/grid/{area}/topology");
            let goes = may_speak(&topic, &mut self.quiet_until);
            if goes {
                let switches = self.by_area.get(place).into_iter().flatten();
                let now = |switch: &BundleSwitch| self.switches.get(&(tenant.clone(), switch.branch_id));
                let switches: Vec<SwitchDocument> = switches.map(|switch| SwitchDocument::new(switch, now(switch))).collect();
                let payload = serde_json::json!({ "area": &**area, "switches": switches });
                messages.push((topic, payload.to_string().into()));
            }
            !goes
        });
        (messages, next)
    }
}

/// The estimate as JSON; without its nodes where they would make it longer than a payload may be.
fn estimate_payload(estimate: &AreaEstimate) -> Bytes {
    let write = |document: &EstimateDocument| serde_json::to_vec(document).unwrap_or_default();
    let document = EstimateDocument::from(estimate);
    let payload = write(&document);
    if payload.len() <= PAYLOAD_LEN_MAX {
        return payload.into();
    }
    write(&document.without_nodes()).into()
}

/// Publishes news until it is aborted.
pub(crate) async fn publish(news: Arc<GridNews>, bundles: BTreeMap<TenantId, Arc<GridBundle>>, broker: Arc<Broker>) {
    let mut publisher = Publisher::new(&bundles);
    let mut wake: Option<Instant> = None;
    loop {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = news.came.notified() => {}
            () = sleep => {}
        }
        publisher.take(&news);
        let (messages, next) = publisher.due(Instant::now());
        wake = next;
        for (topic, payload) in messages {
            if let Err(error) = broker.publish(&topic, payload, true, Qos::AtLeastOnce).await {
                tracing::warn!("{error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use flexmeter_model::EventTime;
    use flexmeter_model::outcome::{GridQuality, NodeState};
    use serde_json::Value;

    use super::*;

    fn tenant() -> TenantId {
        TenantId::new("default").unwrap()
    }

    fn estimate(area: &str, n_nodes: usize, voltage_v: f64) -> Arc<AreaEstimate> {
        let state = NodeState {
            energised: true,
            value: [[voltage_v; 3]; 4],
            sigma: [[0.123_456_789; 3]; 4],
        };
        Arc::new(AreaEstimate {
            tenant: tenant(),
            area: area.into(),
            nodes: (0..n_nodes as i64).collect(),
            three_phase: true,
            states: vec![state; n_nodes],
            quality: GridQuality {
                level: 2,
                j: 1.5,
                degrees_of_freedom: 2,
                suspects: Vec::new(),
                observable: true,
                n_measurements: 3,
                n_pseudo: 0,
                problem: None,
            },
            event_time: EventTime::from_micros(0),
        })
    }

    fn areas(areas: Vec<Arc<AreaEstimate>>) -> GridOutcome {
        GridOutcome {
            areas,
            ..GridOutcome::default()
        }
    }

    fn said(messages: &[Message]) -> Vec<(&str, Value)> {
        let json = |payload: &Bytes| serde_json::from_slice(payload).unwrap_or(Value::Null);
        messages.iter().map(|(topic, payload)| (topic.as_str(), json(payload))).collect()
    }

    #[test]
    fn a_topic_speaks_once_a_second_and_the_newest_wins() {
        let (news, mut publisher, start) = (GridNews::default(), Publisher::new(&BTreeMap::new()), Instant::now());
        let mut post = |voltages_v: &[f64], after_ms: u64| {
            for &v in voltages_v {
                news.post(&areas(vec![estimate("mv1/lv1", 1, v)]));
            }
            publisher.take(&news);
            publisher.due(start + Duration::from_millis(after_ms))
        };
        let (messages, next) = post(&[230.0, 231.0], 0);
        let [(topic, document)] = &said(&messages)[..] else {
            panic!("{messages:?}")
        };
        assert_eq!(*topic, "flexmeter/default/grid/mv1/lv1/estimate");
        assert_eq!(document["nodes"][0]["voltageV"], serde_json::json!([231.0, 231.0, 231.0]));
        assert_eq!((document["quality"]["degreesOfFreedom"].as_u64(), next), (Some(2), None));
        let (messages, next) = post(&[232.0, 233.0], 400);
        assert_eq!((messages.len(), next), (0, Some(start + TOPIC_EVERY)));
        let (messages, _) = post(&[], 1_000);
        assert_eq!(said(&messages)[0].1["nodes"][0]["voltageV"][0], 233.0);
        assert_eq!(post(&[], 9_000).0.len(), 0, "nothing new, nothing said");
    }

    #[test]
    fn a_switch_operation_tells_all_switches_of_its_area() {
        let switch = |branch_id: i64, area: &str| BundleSwitch {
            branch_id,
            hardware_id: format!("SW-{branch_id}"),
            area: area.into(),
            normally_closed: true,
            controllable: true,
        };
        let bundle = GridBundle {
            switches: vec![switch(1, "mv1"), switch(2, "mv1"), switch(3, "mv1/lv1")],
            ..GridBundle::default()
        };
        let (news, mut publisher) = (GridNews::default(), Publisher::new(&BTreeMap::from([(tenant(), Arc::new(bundle))])));
        let row = |closed: bool| SwitchRow {
            tenant: tenant(),
            branch_id: 2,
            closed,
            since: Some(EventTime::from_micros(0)),
            by: "SW-2".to_owned(),
        };
        news.post(&GridOutcome {
            switches: vec![row(true), row(false)],
            ..GridOutcome::default()
        });
        publisher.take(&news);
        let (messages, _) = publisher.due(Instant::now());
        let [(topic, document)] = &said(&messages)[..] else {
            panic!("{messages:?}")
        };
        assert_eq!(*topic, "flexmeter/default/grid/mv1/topology");
        let positions: Vec<_> = document["switches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|switch| &switch["position"])
            .collect();
        assert_eq!(positions, ["closed", "open"]);
    }

    #[test]
    fn an_area_that_is_no_more_is_taken_away() {
        let (news, mut publisher) = (GridNews::default(), Publisher::new(&BTreeMap::new()));
        news.post(&areas(vec![estimate("mv1", 1, 230.0)]));
        news.post(&GridOutcome {
            gone: vec![(tenant(), "mv1".into())],
            ..GridOutcome::default()
        });
        publisher.take(&news);
        let (messages, _) = publisher.due(Instant::now());
        assert_eq!(messages, [("flexmeter/default/grid/mv1/estimate".to_owned(), Bytes::new())]);
    }

    #[test]
    fn an_estimate_that_is_too_long_goes_without_its_nodes_and_says_so() {
        let document: Value = serde_json::from_slice(&estimate_payload(&estimate("mv1", 5_000, 229.987_654_321_012_3))).unwrap();
        assert_eq!(
            (document["nNodesOmitted"].as_u64(), document["nodes"].as_array().unwrap().len()),
            (Some(5_000), 0)
        );
        let document: Value = serde_json::from_slice(&estimate_payload(&estimate("mv1", 900, 229.987_654_321_012_3))).unwrap();
        assert_eq!(document["nodes"].as_array().unwrap().len(), 900);
    }
}
