//! What the grid engine says, over MQTT: `…/grid/{area}/estimate` when an area's estimate has changed, `…/grid/{area}/topology` when one
//! of its switches has or, at a top area, a proposal to switch otherwise; `…/grid/{area}/outages` and `…/grid/{area}/faults`. And
//! [`commands`] to switches.
//!
//! Suggestions to switch otherwise go another way, into the log: [`crate::suggestions`].
//!
//! The distributor leaves news here and never waits: of each topic only the newest is kept, and it goes out at most once in
//! [`TOPIC_EVERY`]. Messages are retained, so whoever subscribes later begins with the newest; commands are not.

mod commands;
mod operations;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flexmeter_connectors::mqtt::Broker;
use flexmeter_connectors::mqtt::broker::Qos;
use flexmeter_model::grid_bundle::BundleSwitch;
use flexmeter_model::outcome::{AreaEstimate, FaultRow, GridOutcome, OutageRow, ReconfigurationRow, RowChange, SwitchCommand, SwitchRow};
use flexmeter_model::record::PAYLOAD_LEN_MAX;
use flexmeter_model::{EventTime, GridBundle, TenantId};
use flexmeter_queries::rest::grid::{EstimateDocument, SwitchDocument};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::grid_book::GridBook;
use crate::suggestions::Suggestions;

use commands::Commands;
use operations::ByArea;

/// A topic says something at most this often.
pub(crate) const TOPIC_EVERY: Duration = Duration::from_secs(1);

/// News that has not been published: bounded by the areas, switches and rows there are.
#[derive(Debug, Default)]
pub(crate) struct GridNews {
    /// Whether anybody publishes it: else it would pile up.
    is_heard: bool,
    /// Whether the views are complete: while the log is applied again, commands of long ago come by.
    is_current: AtomicBool,
    waiting: Mutex<Waiting>,
    came: Notify,
    suggestions: Suggestions,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Another engine has begun: what waited of the one before does no more.
    begins: bool,
    /// The newest estimate of each area; `None` where the area is no more.
    estimates: BTreeMap<Place, Option<Arc<AreaEstimate>>>,
    switches: BTreeMap<Branch, SwitchRow>,
    outages: BTreeMap<Key, Option<Arc<OutageRow>>>,
    reconfigurations: BTreeMap<Key, Option<Arc<ReconfigurationRow>>>,
    faults: BTreeMap<Key, Option<Arc<FaultRow>>>,
    commands: BTreeMap<Key, Option<Arc<SwitchCommand>>>,
}

/// A tenant's branch.
type Branch = (TenantId, i64);
/// A tenant's area.
type Place = (TenantId, Arc<str>);
/// A row of a tenant's view.
type Key = (TenantId, Arc<str>);

impl GridNews {
    /// No news yet; `is_heard` if somebody will [`publish`] it.
    pub(crate) fn new(is_heard: bool) -> Self {
        Self {
            is_heard,
            ..Self::default()
        }
    }

    /// Another engine begins to tell everything anew.
    pub(crate) fn begin(&self) {
        self.is_current.store(false, Ordering::Release);
        self.suggestions.forget();
        *self.waiting.lock() = Waiting {
            begins: true,
            ..Waiting::default()
        };
        self.came.notify_one();
    }

    /// The views are complete; what waits is of now.
    pub(crate) fn caught_up(&self) {
        if !self.is_current.swap(true, Ordering::AcqRel) {
            self.came.notify_one();
        }
    }

    /// What the engine suggests, for whoever puts it into the log.
    pub(crate) fn suggestions(&self) -> &Suggestions {
        &self.suggestions
    }

    /// Takes over what an epoch says about grids.
    pub(crate) fn post(&self, outcome: &GridOutcome) {
        if self.is_current.load(Ordering::Acquire) {
            self.suggestions.post(&outcome.suggestions);
        }
        if outcome.is_empty() || !self.is_heard {
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
        note(&mut waiting.outages, &outcome.outages);
        note(&mut waiting.reconfigurations, &outcome.reconfigurations);
        note(&mut waiting.faults, &outcome.faults);
        note(&mut waiting.commands, &outcome.commands);
        drop(waiting);
        self.came.notify_one();
    }
}

/// The newest of each row counts.
fn note<R>(waiting: &mut BTreeMap<Key, Option<Arc<R>>>, changes: &[RowChange<R>]) {
    for change in changes {
        waiting.insert((change.tenant.clone(), change.key.clone()), change.new.clone());
    }
}

/// What is to be published, and when.
#[derive(Debug)]
struct Publisher {
    areas: BTreeSet<Place>,
    /// Areas that are no more, whose topics are to be emptied.
    gone: BTreeSet<Place>,
    /// The switches of each area.
    by_area: BTreeMap<Place, Vec<BundleSwitch>>,
    area_of: HashMap<Branch, Arc<str>>,
    /// Where the switches stand.
    switches: HashMap<Branch, SwitchRow>,
    outages: ByArea<OutageRow>,
    proposals: ByArea<ReconfigurationRow>,
    faults: ByArea<FaultRow>,
    commands: Commands,
    estimates: BTreeMap<Place, Option<Arc<AreaEstimate>>>,
    /// Areas with something to say, by what it is about.
    topologies: BTreeSet<Place>,
    outage_areas: BTreeSet<Place>,
    fault_areas: BTreeSet<Place>,
    quiet: Quiet,
}

/// When topics may speak again.
#[derive(Debug, Default)]
struct Quiet {
    /// Entries of the past are dropped.
    until: HashMap<String, Instant>,
    /// When somebody who had to wait may speak.
    next: Option<Instant>,
}

impl Quiet {
    fn begin(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
        self.next = None;
    }

    fn may_speak(&mut self, topic: &str, now: Instant) -> bool {
        if let Some(&until) = self.until.get(topic) {
            self.next = Some(self.next.map_or(until, |next| next.min(until)));
            return false;
        }
        self.until.insert(topic.to_owned(), now + TOPIC_EVERY);
        true
    }

    /// Says what may be said of areas, and takes them off the list.
    fn speak(&mut self, areas: &mut BTreeSet<Place>, what: &str, now: Instant, payload: impl Fn(&Place) -> Bytes) -> Vec<Message> {
        let mut messages = Vec::new();
        areas.retain(|place| {
            let topic = format!("flexmeter/{}/grid/{}/{what}", place.0, place.1);
            let goes = self.may_speak(&topic, now);
            if goes {
                messages.push((topic, payload(place)));
            }
            !goes
        });
        messages
    }
}

/// A message on its way.
type Message = (String, Bytes);

/// The area at the top of a path.
fn top(area: &str) -> &str {
    area.split('/').next().unwrap_or(area)
}

impl Publisher {
    fn new(bundles: &BTreeMap<TenantId, Arc<GridBundle>>) -> Self {
        let mut publisher = Self {
            areas: BTreeSet::new(),
            gone: BTreeSet::new(),
            by_area: BTreeMap::new(),
            area_of: HashMap::new(),
            switches: HashMap::new(),
            outages: ByArea::default(),
            proposals: ByArea::default(),
            faults: ByArea::default(),
            commands: Commands::default(),
            estimates: BTreeMap::new(),
            topologies: BTreeSet::new(),
            outage_areas: BTreeSet::new(),
            fault_areas: BTreeSet::new(),
            quiet: Quiet::default(),
        };
        publisher.renew(bundles);
        publisher
    }

    /// The grids are others now; areas that are no more have no estimate.
    fn renew(&mut self, bundles: &BTreeMap<TenantId, Arc<GridBundle>>) {
        self.by_area.clear();
        self.area_of.clear();
        let mut areas = BTreeSet::new();
        for (tenant, bundle) in bundles {
            areas.extend(bundle.areas.iter().map(|area| (tenant.clone(), area.path.clone())));
            for switch in &bundle.switches {
                self.area_of.insert((tenant.clone(), switch.branch_id), switch.area.clone());
                let place = (tenant.clone(), switch.area.clone());
                self.by_area.entry(place).or_default().push(switch.clone());
            }
        }
        for gone in self.areas.difference(&areas) {
            self.gone.insert(gone.clone());
        }
        self.gone.retain(|gone| !areas.contains(gone));
        self.areas = areas;
    }

    fn take(&mut self, news: &GridNews, now: Instant) {
        let mut waiting = std::mem::take(&mut *news.waiting.lock());
        if waiting.begins {
            self.commands.forget();
        }
        // of areas that are no more nothing is said but that
        let areas = &self.areas;
        waiting
            .estimates
            .retain(|place, estimate| estimate.is_none() || areas.contains(place));
        self.estimates.append(&mut waiting.estimates);
        for (branch, row) in waiting.switches {
            if let Some(area) = self.area_of.get(&branch) {
                self.topologies.insert((branch.0.clone(), area.clone()));
            }
            self.switches.insert(branch, row);
        }
        self.outages
            .take(waiting.outages, |_, row| area_of_row(&row.area), &mut self.outage_areas);
        self.faults
            .take(waiting.faults, |_, row| area_of_row(&row.area), &mut self.fault_areas);
        let area_of = &self.area_of;
        let top_area = |key: &Key, row: &ReconfigurationRow| {
            let mut areas = row
                .operations
                .iter()
                .filter_map(|step| area_of.get(&(key.0.clone(), step.branch_id)));
            areas.next().map(|area| Arc::from(top(area)))
        };
        self.proposals.take(waiting.reconfigurations, top_area, &mut self.topologies);
        self.commands.take(waiting.commands, now);
    }

    /// The messages to retain that may go out now, and when the next one may.
    fn due(&mut self, now: Instant) -> (Vec<Message>, Option<Instant>) {
        let quiet = &mut self.quiet;
        quiet.begin(now);
        let topics = ["estimate", "topology", "outages", "faults"];
        // an empty retained message takes the last one away
        let emptied = std::mem::take(&mut self.gone)
            .into_iter()
            .flat_map(|(tenant, area)| topics.map(|what| (format!("flexmeter/{tenant}/grid/{area}/{what}"), Bytes::new())));
        let mut messages: Vec<Message> = emptied.collect();
        let is_there = |place: &Place| self.areas.contains(place);
        self.outage_areas.retain(is_there);
        self.fault_areas.retain(is_there);
        self.topologies.retain(is_there);
        messages.append(&mut quiet.speak(&mut self.outage_areas, "outages", now, |place| {
            operations::outages(&self.outages, place)
        }));
        messages.append(&mut quiet.speak(&mut self.fault_areas, "faults", now, |place| {
            operations::faults(&self.faults, place)
        }));
        messages.append(&mut quiet.speak(&mut self.topologies, "topology", now, |place| {
            topology_payload(place, self.by_area.get(place), &self.switches, &self.proposals)
        }));
        self.estimates.retain(|(tenant, area), estimate| {
            let topic = format!("flexmeter/{tenant}/grid/{area}/estimate");
            let goes = quiet.may_speak(&topic, now);
            if goes {
                // an empty retained message takes the last one away
                messages.push((topic, estimate.as_deref().map_or_else(Bytes::new, estimate_payload)));
            }
            !goes
        });
        (messages, quiet.next)
    }
}

/// What a row of a grid before this one is about has no area any more.
fn area_of_row(area: &Arc<str>) -> Option<Arc<str>> {
    (!area.is_empty()).then(|| area.clone())
}

/// All switches of an area and, at the top, the last proposals to switch otherwise.
fn topology_payload(
    place: &Place,
    switches: Option<&Vec<BundleSwitch>>,
    positions: &HashMap<Branch, SwitchRow>,
    proposals: &ByArea<ReconfigurationRow>,
) -> Bytes {
    let (tenant, area) = place;
    let now = |switch: &BundleSwitch| positions.get(&(tenant.clone(), switch.branch_id));
    let switches = switches.into_iter().flatten();
    let switches: Vec<SwitchDocument> = switches.map(|switch| SwitchDocument::new(switch, now(switch))).collect();
    let mut payload = serde_json::json!({ "area": &**area, "switches": switches });
    if top(area) == &**area {
        payload["reconfigurations"] = operations::proposals(proposals, place);
    }
    payload.to_string().into()
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
pub(crate) async fn publish(news: Arc<GridNews>, book: Arc<GridBook>, broker: Arc<Broker>) {
    let mut renewed = book.renewed();
    let mut publisher = Publisher::new(&book.grids().shown);
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
            Ok(()) = renewed.changed() => publisher.renew(&book.grids().shown),
        }
        let now = Instant::now();
        publisher.take(&news, now);
        let (commands, next_command) = match news.is_current.load(Ordering::Acquire) {
            true => publisher.commands.due(now, EventTime::from_clock(SystemTime::now())),
            false => (Vec::new(), None),
        };
        let (messages, next) = publisher.due(now);
        wake = next.into_iter().chain(next_command).min();
        let commands = commands.into_iter().map(|message| (message, false));
        for ((topic, payload), retain) in commands.chain(messages.into_iter().map(|message| (message, true))) {
            if let Err(error) = broker.publish(&topic, payload, retain, Qos::AtLeastOnce).await {
                tracing::warn!("{error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use flexmeter_model::HardwareId;
    use flexmeter_model::grid_bundle::BundleArea;
    use flexmeter_model::outcome::{GridQuality, NodeState, SwitchOperation};
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

    /// A publisher of a tenant whose grid has these switches and two levels.
    fn publisher(switches: Vec<BundleSwitch>) -> Publisher {
        let area = |path: &str, level: u32, parent: Option<&str>| BundleArea {
            path: path.into(),
            level,
            parent: parent.map(Into::into),
            n_nodes: 1,
            n_meters: 1,
        };
        let bundle = GridBundle {
            areas: vec![area("mv1", 1, None), area("mv1/lv1", 2, Some("mv1"))],
            switches,
            ..GridBundle::default()
        };
        Publisher::new(&BTreeMap::from([(tenant(), Arc::new(bundle))]))
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
        let (news, mut publisher, start) = (GridNews::new(true), publisher(Vec::new()), Instant::now());
        let mut post = |voltages_v: &[f64], after_ms: u64| {
            for &v in voltages_v {
                news.post(&areas(vec![estimate("mv1/lv1", 1, v)]));
            }
            publisher.take(&news, start);
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
        let switches = vec![switch(1, "mv1"), switch(2, "mv1"), switch(3, "mv1/lv1")];
        let (news, mut publisher) = (GridNews::new(true), publisher(switches));
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
        publisher.take(&news, Instant::now());
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
    fn a_proposal_is_told_with_the_topology_of_its_grids_top_area() {
        let switch = BundleSwitch {
            branch_id: 3,
            hardware_id: "SW-3".to_owned(),
            area: "mv1/lv1".into(),
            normally_closed: true,
            controllable: true,
        };
        let (news, mut publisher) = (GridNews::new(true), publisher(vec![switch]));
        let row = ReconfigurationRow {
            state: "proposed",
            reason: None,
            decided_by: None,
            operations: vec![SwitchOperation {
                branch_id: 3,
                hardware_id: HardwareId::new("SW-3").unwrap(),
                close: false,
            }],
            n_done: 0,
            loss_before_w: 2.0,
            loss_after_w: 1.0,
            loss_d4_6_w: None,
            voltage_min_pu: [0.9, 0.95],
            proposed_at: EventTime::from_micros(0),
            expires_at: EventTime::from_micros(9),
            changed_at: EventTime::from_micros(0),
        };
        let change = RowChange {
            tenant: tenant(),
            key: "prop-1".into(),
            new: Some(Arc::new(row)),
        };
        news.post(&GridOutcome {
            reconfigurations: vec![change],
            ..GridOutcome::default()
        });
        publisher.take(&news, Instant::now());
        let (messages, _) = publisher.due(Instant::now());
        let [(topic, document)] = &said(&messages)[..] else {
            panic!("{messages:?}")
        };
        assert_eq!(*topic, "flexmeter/default/grid/mv1/topology");
        let proposal = &document["reconfigurations"][0];
        assert_eq!(
            (&proposal["proposalId"], &proposal["plan"][0]["position"]),
            (&"prop-1".into(), &"open".into())
        );
    }

    #[test]
    fn what_the_estimation_takes_back_is_taken_away() {
        let (news, mut publisher) = (GridNews::new(true), publisher(Vec::new()));
        news.post(&areas(vec![estimate("mv1", 1, 230.0)]));
        news.post(&GridOutcome {
            gone: vec![(tenant(), "mv1".into())],
            ..GridOutcome::default()
        });
        publisher.take(&news, Instant::now());
        let (messages, _) = publisher.due(Instant::now());
        assert_eq!(messages, [("flexmeter/default/grid/mv1/estimate".to_owned(), Bytes::new())]);
    }

    #[test]
    fn areas_of_a_replaced_grid_are_emptied_and_nothing_more_is_said_of_them() {
        let (news, mut publisher) = (GridNews::new(true), publisher(Vec::new()));
        publisher.renew(&BTreeMap::from([(tenant(), Arc::new(GridBundle::default()))]));
        news.post(&areas(vec![estimate("mv1", 1, 230.0)]));
        publisher.take(&news, Instant::now());
        let (messages, _) = publisher.due(Instant::now());
        let topics: Vec<_> = messages.iter().map(|(topic, payload)| (topic.as_str(), payload.len())).collect();
        assert_eq!(topics.len(), 8);
        assert!(topics.contains(&("flexmeter/default/grid/mv1/lv1/topology", 0)), "{topics:?}");
        assert!(topics.iter().all(|&(_, len)| len == 0), "{topics:?}");
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
