//! The grid's side of a partition: the newest reading of every meter, its load profile, and what the switches say.
//!
//! This is all of the estimation that is remembered. It is organised by partition as everything on the street, so a checkpoint does not
//! depend on the number of workers; areas and their estimates are made of it again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use flexmeter_model::boundary::N_QUANTITIES;
use flexmeter_model::operator::value;
use flexmeter_model::outcome::{AlertRow, Device};
use flexmeter_model::{Identifier, PublishedBoundary, TenantId};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::mail::{Body, GridId, Mail, route};
use super::reading::{MeterSaid, Published, Times};
use super::statistics::{Statistics, quarter_of};
use super::tenant::{Grid, Role};
use crate::batch::{Accepted, Rows};
use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::devices::DeviceTable;
use crate::latest::Latest;
use crate::partition::{PerPartition, WorkerStates};

/// Grids in use, by number; the same on every worker.
pub(crate) type Grids = BTreeMap<GridId, (TenantId, Arc<Grid>)>;

const SWITCH_POSITION: &str = "switch.position";

/// Quarters of an hour are looked at again when log time enters a new one.
const QUARTER_MIN: i64 = 15;

/// What a device's measurements mean here.
#[derive(Debug, Clone, Copy)]
enum Channel {
    Voltage(usize),
    /// Phase, and factor to W.
    Active(usize, f64),
    /// Phase, and factor to var.
    Reactive(usize, f64),
}

/// By number of the identifier.
static CHANNELS: LazyLock<[Option<Channel>; Identifier::COUNT]> = LazyLock::new(|| Identifier::ALL.map(channel));

fn channel(identifier: Identifier) -> Option<Channel> {
    let (kind, phase) = identifier.name().rsplit_once(".l")?;
    let k = ["1", "2", "3"].iter().position(|&name| name == phase)?;
    // kW and kvar on the wire; what is injected counts as negative
    match kind {
        "electricity.voltage.rms" => Some(Channel::Voltage(k)),
        "electricity.power.active.consumed" => Some(Channel::Active(k, 1e3)),
        "electricity.power.active.injected" => Some(Channel::Active(k, -1e3)),
        "electricity.power.reactive.consumed" => Some(Channel::Reactive(k, 1e3)),
        "electricity.power.reactive.injected" => Some(Channel::Reactive(k, -1e3)),
        _ => None,
    }
}

/// The newest value of one quantity and phase.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Newest {
    value: f64,
    times: Times,
}

/// A meter as its partition knows it.
#[derive(Debug, Clone, Default, PartialEq)]
struct MeterState {
    /// V, W, var by phase.
    newest: [[Option<Newest>; 3]; 3],
    statistics: Statistics,
    /// Event time of its newest last gasp or restoration, and which of the two.
    supply: Option<(i64, bool)>,
    /// Its newest own estimate of its area.
    published: Option<Box<Published>>,
    /// Quarter of an hour that its area was told the expectation of.
    told_quarter: u8,
}

/// A switch as its partition knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SwitchState {
    closed: bool,
    event_time: i64,
}

/// State of one partition.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    meters: BTreeMap<u32, MeterState>,
    /// Every device that has told a position: a grid that comes later may have it as a switch.
    switches: BTreeMap<u32, SwitchState>,
    /// By device index: what it is, once it has been looked up.
    links: Vec<Link>,
    devices: BTreeMap<u32, Arc<Device>>,
    log_time: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Link {
    #[default]
    Unknown,
    Nothing,
    To(GridId, Role),
}

/// Follows meters and switches and writes to their areas. `news` says that the worker's grids have changed.
pub(crate) fn meters<'scope>(
    accepted: StreamVec<'scope, u64, Rc<Accepted>>,
    news: StreamVec<'scope, u64, ()>,
    states: PerPartition<Meters>,
    grids: Rc<RefCell<Grids>>,
) -> StreamVec<'scope, u64, Mail> {
    let n_workers = accepted.scope().peers();
    let worker = accepted.scope().index();
    accepted.binary(news, Pipeline, Pipeline, "meters", |start, _| {
        let mut start = Some(start);
        move |accepted, news, output| {
            let grids = grids.borrow();
            let mut states = states.borrow_mut();
            if let Some(start) = start.take().filter(|_| !grids.is_empty()) {
                output
                    .session(&start)
                    .give_container(&mut tell_all(&mut states, &grids, worker, n_workers));
            }
            news.for_each_stamp(|time, containers| {
                if containers.flat_map(std::mem::take).count() > 0 {
                    output
                        .session(&time)
                        .give_container(&mut tell_all(&mut states, &grids, worker, n_workers));
                }
            });
            accepted.for_each_stamp(|time, containers| {
                let mut mails = Vec::new();
                for batch in containers.flat_map(std::mem::take) {
                    let partition = batch.span.partition;
                    if !grids.is_empty() {
                        let state = states.entry(partition).or_default();
                        state.apply(&batch, &grids, n_workers, &mut mails);
                        continue;
                    }
                    for alert in batch.rows.alerts.iter().filter(|alert| alert.alert_type == SWITCH_POSITION) {
                        states.entry(partition).or_default().take_position(alert);
                    }
                }
                output.session(&time).give_container(&mut mails);
            });
        }
    })
}

/// Everything known, for areas that know nothing.
fn tell_all(states: &mut BTreeMap<u32, Meters>, grids: &Grids, worker: usize, n_workers: usize) -> Vec<Mail> {
    let mut mails = vec![Mail {
        to: worker as u64,
        body: Body::Grids,
    }];
    for (&partition, state) in states {
        state.links.clear();
        state.tell_all(partition, grids, n_workers, &mut mails);
    }
    mails
}

impl Meters {
    fn apply(&mut self, batch: &Accepted, grids: &Grids, n_workers: usize, mails: &mut Vec<Mail>) {
        self.log_time = batch.span.log_time;
        let mut changed = BTreeSet::new();
        self.hear(&batch.rows, grids, &mut changed);
        for alert in &batch.rows.alerts {
            self.hear_alert(alert, grids, n_workers, &mut changed, mails);
        }
        let enters_quarter = batch.ticks.iter().any(|tick| tick.minute.rem_euclid(QUARTER_MIN) == 0);
        if enters_quarter {
            let turned = self
                .meters
                .iter()
                .filter(|(_, meter)| meter.quarter(self.log_time) != Some(meter.told_quarter));
            changed.extend(turned.map(|(&device, _)| device));
        }
        for device in changed {
            self.tell(device, grids, mails);
        }
        self.tell_clock(batch.span.partition, n_workers, mails);
    }

    fn tell_clock(&self, partition: u32, n_workers: usize, mails: &mut Vec<Mail>) {
        let log_time = self.log_time;
        mails.extend((0..n_workers as u64).map(|to| Mail {
            to,
            body: Body::Clock { partition, log_time },
        }));
    }

    /// What a device is, looked up once.
    fn link(&mut self, device: &Arc<Device>, grids: &Grids) -> Link {
        let index = device.index as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, Link::Unknown);
        }
        if self.links[index] == Link::Unknown {
            let found = grids.iter().find(|(_, (tenant, _))| *tenant == device.tenant);
            let role = found.and_then(|(&id, (_, grid))| Some(Link::To(id, grid.role(device.hardware_id.as_str())?)));
            self.links[index] = role.unwrap_or(Link::Nothing);
            if self.links[index] != Link::Nothing {
                self.devices.insert(device.index, device.clone());
            }
        }
        self.links[index]
    }

    fn hear(&mut self, rows: &Rows, grids: &Grids, changed: &mut BTreeSet<u32>) {
        let channels = &*CHANNELS;
        let mut boundaries = rows.boundaries.iter().peekable();
        for (at, (head, identifiers, values)) in rows.measurements.messages().enumerate() {
            let boundary = boundaries.next_if(|row| row.head == at).map(|row| &row.boundary);
            let Link::To(grid, Role::Meter(index)) = self.link(&head.device, grids) else {
                continue;
            };
            // of one message what is consumed and what is injected belong together
            let mut said = [[f64::NAN; 3]; 3];
            for (identifier, &value) in identifiers.iter().zip(values) {
                let (cell, value) = match channels[identifier.index()] {
                    Some(Channel::Voltage(k)) => (&mut said[0][k], value),
                    Some(Channel::Active(k, factor)) => (&mut said[1][k], value * factor),
                    Some(Channel::Reactive(k, factor)) => (&mut said[2][k], value * factor),
                    None => continue,
                };
                *cell = if cell.is_nan() { value } else { *cell + value };
            }
            let times = Times {
                event: head.event_time.micros(),
                received: head.received_at.micros(),
            };
            let meter = self.meters.entry(head.device.index).or_default();
            meter.statistics.add(times.event, &said[1], &said[2]);
            let speaks_for_area = |_: &&PublishedBoundary| grids.get(&grid).is_some_and(|(_, grid)| grid.is_at_entrance(index));
            // what was made of other readings is none itself: it counts as one boundary, with all its covariance
            let has_changed = match boundary.filter(speaks_for_area) {
                Some(boundary) => meter.take_boundary(boundary, times),
                None => meter.take(&said, times),
            };
            if has_changed {
                changed.insert(head.device.index);
            }
        }
    }

    fn hear_alert(&mut self, alert: &AlertRow, grids: &Grids, n_workers: usize, changed: &mut BTreeSet<u32>, mails: &mut Vec<Mail>) {
        let event_time = alert.event_time.micros();
        match (self.link(&alert.device, grids), alert.alert_type.as_str()) {
            (link, SWITCH_POSITION) => {
                let (Some(closed), Link::To(grid, Role::Switch(switch))) = (self.take_position(alert), link) else {
                    return;
                };
                let by = alert.device.hardware_id.as_str();
                tell_switch(grid, switch, closed, event_time, by, n_workers, mails);
            }
            (Link::To(_, Role::Meter(_)), "power.lastgasp" | "power.restored") => {
                let has_supply = alert.alert_type == "power.restored";
                let meter = self.meters.entry(alert.device.index).or_default();
                if meter.supply.is_none_or(|(time, _)| event_time >= time) {
                    meter.supply = Some((event_time, has_supply));
                    changed.insert(alert.device.index);
                }
            }
            _ => {}
        }
    }

    /// Takes a report of a position; whether it says closed, if it is no older than what is known.
    fn take_position(&mut self, alert: &AlertRow) -> Option<bool> {
        let closed = match value(alert, "position")? {
            "closed" => true,
            "open" => false,
            _ => return None,
        };
        let (device, event_time) = (&alert.device, alert.event_time.micros());
        let known = self.switches.get(&device.index);
        if known.is_some_and(|known| event_time < known.event_time) {
            return None;
        }
        self.switches.insert(device.index, SwitchState { closed, event_time });
        self.devices.insert(device.index, device.clone());
        Some(closed)
    }

    /// What devices have said of their positions: whether closed, and the event time.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (&Device, bool, i64)> {
        let known = |(index, state): (&u32, &SwitchState)| {
            let device = self.devices.get(index)?;
            Some((&**device, state.closed, state.event_time))
        };
        self.switches.iter().filter_map(known)
    }

    fn tell(&mut self, device: u32, grids: &Grids, mails: &mut Vec<Mail>) {
        let Some(Link::To(id, Role::Meter(index))) = self.links.get(device as usize).copied() else {
            return;
        };
        let (Some((tenant, grid)), Some(meter)) = (grids.get(&id), self.meters.get_mut(&device)) else {
            return;
        };
        let (Some((area, _)), Some(quarter)) = (grid.place(index), meter.quarter(self.log_time)) else {
            return;
        };
        meter.told_quarter = quarter;
        mails.push(Mail {
            to: route(tenant, &grid.areas()[area as usize]),
            body: Body::Meter {
                grid: id,
                meter: index,
                said: meter.said(quarter, &grid.bundle().meters[index as usize].phases),
            },
        });
    }

    fn tell_all(&mut self, partition: u32, grids: &Grids, n_workers: usize, mails: &mut Vec<Mail>) {
        for device in self.devices.values().cloned().collect::<Vec<_>>() {
            match self.link(&device, grids) {
                Link::To(_, Role::Meter(_)) => self.tell(device.index, grids, mails),
                Link::To(grid, Role::Switch(switch)) => {
                    if let Some(&SwitchState { closed, event_time }) = self.switches.get(&device.index) {
                        tell_switch(grid, switch, closed, event_time, device.hardware_id.as_str(), n_workers, mails);
                    }
                }
                Link::Unknown | Link::Nothing => {}
            }
        }
        self.tell_clock(partition, n_workers, mails);
    }

    /// A grid has come whose meters may have spoken before: their latest values are their readings.
    pub(crate) fn seed(&mut self, devices: &DeviceTable, latest: &Latest, grids: &Grids, log_time: i64) {
        self.log_time = log_time;
        self.links.clear();
        for index in 0..devices.len() as u32 {
            let Some(device) = devices.device(index) else { continue };
            let is_meter = matches!(self.link(device, grids), Link::To(_, Role::Meter(_)));
            if !is_meter || self.meters.contains_key(&index) {
                continue;
            }
            let mut by_time: BTreeMap<i64, [[f64; 3]; 3]> = BTreeMap::new();
            for (identifier, reading) in latest.of_device(index) {
                let said = by_time.entry(reading.event_time.micros()).or_insert([[f64::NAN; 3]; 3]);
                let (cell, value) = match CHANNELS[identifier.index()] {
                    Some(Channel::Voltage(k)) => (&mut said[0][k], reading.value),
                    Some(Channel::Active(k, factor)) => (&mut said[1][k], reading.value * factor),
                    Some(Channel::Reactive(k, factor)) => (&mut said[2][k], reading.value * factor),
                    None => continue,
                };
                *cell = if cell.is_nan() { value } else { *cell + value };
            }
            let meter = self.meters.entry(index).or_default();
            for (event, said) in by_time {
                let received = event.min(log_time);
                meter.statistics.add(event, &said[1], &said[2]);
                meter.take(&said, Times { event, received });
            }
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.i64(self.log_time);
        out.len(self.meters.len());
        for (&device, meter) in &self.meters {
            out.u32(device);
            for newest in meter.newest.iter().flatten() {
                out.u8(u8::from(newest.is_some()));
                if let Some(newest) = newest {
                    out.f64(newest.value);
                    out.i64(newest.times.event);
                    out.i64(newest.times.received);
                }
            }
            meter.statistics.write(out);
            out.u8(meter.supply.map_or(0, |(_, has_supply)| 1 + u8::from(has_supply)));
            out.i64(meter.supply.map_or(0, |(time, _)| time));
            out.u8(u8::from(meter.published.is_some()));
            if let Some(published) = &meter.published {
                write_published(published, out);
            }
        }
        out.len(self.switches.len());
        for (&device, switch) in &self.switches {
            out.u32(device);
            out.u8(u8::from(switch.closed));
            out.i64(switch.event_time);
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>, devices: &DeviceTable) -> Result<Self, CheckpointError> {
        let mut this = Self {
            log_time: input.i64()?,
            ..Self::default()
        };
        for _ in 0..input.len(4)? {
            let device = this.read_device(input, devices)?;
            let mut meter = MeterState::default();
            for newest in meter.newest.iter_mut().flatten() {
                if input.u8()? != 0 {
                    let value = input.f64()?;
                    let times = Times {
                        event: input.i64()?,
                        received: input.i64()?,
                    };
                    *newest = Some(Newest { value, times });
                }
            }
            meter.statistics = Statistics::read(input)?;
            let (kind, time) = (input.u8()?, input.i64()?);
            meter.supply = match kind {
                0 => None,
                1 | 2 => Some((time, kind == 2)),
                _ => return Err(CheckpointError::Value { what: "supply of a meter" }),
            };
            if input.u8()? != 0 {
                meter.published = Some(Box::new(read_published(input)?));
            }
            this.meters.insert(device, meter);
        }
        for _ in 0..input.len(13)? {
            let device = this.read_device(input, devices)?;
            let (closed, event_time) = (input.u8()? != 0, input.i64()?);
            this.switches.insert(device, SwitchState { closed, event_time });
        }
        Ok(this)
    }

    fn read_device(&mut self, input: &mut Reader<'_>, devices: &DeviceTable) -> Result<u32, CheckpointError> {
        let index = input.u32()?;
        let device = devices.device(index).ok_or(CheckpointError::Value {
            what: "device of a meter or switch",
        })?;
        self.devices.insert(index, device.clone());
        Ok(index)
    }
}

fn write_published(published: &Published, out: &mut Writer) {
    out.i64(published.times.event);
    out.i64(published.times.received);
    let boundary = &published.boundary;
    boundary.values().into_iter().for_each(|value| out.f64(value));
    boundary.covariance.iter().flatten().for_each(|&entry| out.f64(entry));
}

fn read_published(input: &mut Reader<'_>) -> Result<Published, CheckpointError> {
    let times = Times {
        event: input.i64()?,
        received: input.i64()?,
    };
    let mut three = || Ok([input.f64()?, input.f64()?, input.f64()?]);
    let (voltage_v, active_w, reactive_var) = (three()?, three()?, three()?);
    let mut covariance = [[0.0; N_QUANTITIES]; N_QUANTITIES];
    for entry in covariance.iter_mut().flatten() {
        *entry = input.f64()?;
    }
    let boundary = PublishedBoundary {
        voltage_v,
        active_w,
        reactive_var,
        covariance,
    };
    Ok(Published { boundary, times })
}

fn tell_switch(grid: GridId, switch: u32, closed: bool, event_time: i64, by: &str, n_workers: usize, mails: &mut Vec<Mail>) {
    mails.extend((0..n_workers as u64).map(|to| Mail {
        to,
        body: Body::Switch {
            grid,
            switch,
            closed,
            event_time,
            by: by.to_owned(),
        },
    }));
}

impl MeterState {
    /// Takes what is newer by event time (of equal ones the later in the log); whether there was anything.
    fn take(&mut self, said: &[[f64; 3]; 3], times: Times) -> bool {
        let mut has_changed = false;
        for (newest, &value) in self.newest.iter_mut().flatten().zip(said.iter().flatten()) {
            if !value.is_nan() && newest.is_none_or(|newest| newest.times.event <= times.event) {
                *newest = Some(Newest { value, times });
                has_changed = true;
            }
        }
        has_changed
    }

    /// Takes a boundary that is newer by event time (of equal ones the later in the log); whether it is.
    fn take_boundary(&mut self, boundary: &PublishedBoundary, times: Times) -> bool {
        let is_newer = self.published.as_ref().is_none_or(|known| known.times.event <= times.event);
        if is_newer {
            let boundary = boundary.clone();
            self.published = Some(Box::new(Published { boundary, times }));
        }
        is_newer
    }

    /// Of the phases it measures: others it may have named by mistake once.
    fn oldest(&self, quantities: &[usize], phases: &[usize]) -> Option<Times> {
        let of = |&quantity: &usize| phases.iter().filter_map(move |&k| self.newest[quantity].get(k).copied().flatten());
        let times = quantities.iter().flat_map(of).map(|newest| newest.times);
        times.reduce(|a, b| Times {
            event: a.event.min(b.event),
            received: a.received.min(b.received),
        })
    }

    /// Of all that it has said.
    fn newest_times(&self) -> Option<Times> {
        let readings = self.newest.iter().flatten().flatten().map(|newest| newest.times);
        let published = self.published.iter().map(|published| published.times);
        readings.chain(published).max_by_key(|times| times.event)
    }

    /// The quarter of an hour it is for this meter: that of its newest reading, as far on as log time is since.
    fn quarter(&self, log_time: i64) -> Option<u8> {
        let supply = self.supply.map(|(time, _)| Times {
            event: time,
            received: time,
        });
        let times = self.newest_times().or(supply)?;
        let since = log_time.saturating_sub(times.received).max(0);
        Some(quarter_of(times.event.saturating_add(since)))
    }

    fn said(&self, quarter: u8, phases: &[usize]) -> MeterSaid {
        let values = |quantity: usize| self.newest[quantity].map(|newest| newest.map_or(f64::NAN, |newest| newest.value));
        let is_dark = self
            .supply
            .is_some_and(|(time, has_supply)| !has_supply && self.newest_times().is_none_or(|newest| newest.event < time));
        MeterSaid {
            u_v: values(0),
            p_w: values(1),
            q_var: values(2),
            voltage: self.oldest(&[0], phases).unwrap_or(Times::NEVER),
            power: self.oldest(&[1, 2], phases).unwrap_or(Times::NEVER),
            expected: self.statistics.expected(quarter),
            is_dark,
            published: self.published.clone(),
        }
    }
}

/// Seeds every partition of a worker after its grids have changed.
pub(crate) fn seed(states: &WorkerStates, grids: &Grids) {
    let (intakes, latest) = (states.intakes.borrow(), states.latest.borrow());
    let mut meters = states.meters.borrow_mut();
    for (partition, intake) in intakes.iter() {
        if let Some(latest) = latest.get(partition) {
            meters
                .entry(*partition)
                .or_default()
                .seed(&intake.devices, latest, grids, intake.log_time);
        }
    }
}
