//! The meaning of a log, computed as plainly as possible: lists, maps and scans; no epochs, no columns, no queues of timers, no
//! decoder. It shares nothing with the engine but the names of things.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use flexmeter_dataflows::{EngineConfig, TICK_US, WINDOW_US};
use flexmeter_model::outcome::{EpochCounts, ProfileCell, ReasonCode};
use flexmeter_model::record::RecordKind;
use flexmeter_model::{EventTime, Identifier};

use crate::answer::{Answer, cell_text, reading_text};
use crate::generator::{Entry, Meaning};

/// An accepted reading.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) device: String,
    pub(crate) identifier: Identifier,
    pub(crate) event_time: i64,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) value: f64,
}

/// What a log means: its answer, and every accepted reading.
pub(crate) fn recompute(log: &[Entry], config: &EngineConfig) -> (Answer, Vec<Accepted>) {
    let mut partitions: BTreeMap<u32, Partition> = BTreeMap::new();
    let mut answer = Answer::default();
    let mut readings = Vec::new();
    for entry in log {
        partitions
            .entry(entry.partition)
            .or_default()
            .read(entry, config, &mut answer, &mut readings);
    }
    for partition in partitions.values() {
        for ((device, start), window) in &partition.windows {
            for (identifier, cell) in &window.cells {
                let key = format!("{} {start} {}", partition.devices[*device], identifier.name());
                answer.profile.insert(key, cell_text(&cell.row()));
            }
        }
    }
    (answer, readings)
}

#[derive(Default)]
struct Partition {
    devices: Vec<String>,
    log_time: Option<i64>,
    minute: i64,
    seen: HashSet<String>,
    seen_order: VecDeque<(i64, String)>,
    undated: HashMap<String, i64>,
    latest_times: HashMap<String, i64>,
    windows: BTreeMap<(usize, i64), Window>,
    evicted_through: HashMap<usize, i64>,
}

struct Window {
    touched: i64,
    flush_at: Option<i64>,
    cells: Vec<(Identifier, Cell)>,
}

struct Cell {
    generation: u64,
    /// Event time and value, in log order.
    readings: Vec<(i64, f64)>,
    dirty: bool,
}

impl Cell {
    fn row(&self) -> ProfileCell {
        let values = || self.readings.iter().map(|(_, value)| *value);
        let (last_time, last) = self
            .readings
            .iter()
            .fold((i64::MIN, 0.0), |best, &new| if new.0 >= best.0 { new } else { best });
        ProfileCell {
            generation: self.generation,
            n: self.readings.len() as u64,
            mean: values().sum::<f64>() / self.readings.len() as f64,
            min: values().fold(f64::INFINITY, f64::min),
            max: values().fold(f64::NEG_INFINITY, f64::max),
            last,
            last_time: EventTime::from_micros(last_time),
        }
    }
}

impl Partition {
    fn read(&mut self, entry: &Entry, config: &EngineConfig, answer: &mut Answer, readings: &mut Vec<Accepted>) {
        let mut counts = EpochCounts::default();
        if self.log_time.is_none_or(|log_time| entry.received_at > log_time) {
            let is_first = self.log_time.is_none();
            self.log_time = Some(entry.received_at);
            let minute = entry.received_at.div_euclid(TICK_US);
            if is_first || minute > self.minute {
                self.minute = minute;
                self.tick(entry, config, answer, &mut counts);
            }
        }
        if entry.kind != RecordKind::Heartbeat {
            for (part, (bytes, meaning)) in entry.messages.iter().enumerate() {
                self.message(entry, part, bytes, meaning, config, answer, readings, &mut counts);
            }
        }
        *answer.counts.entry(entry.partition).or_default() += counts;
    }

    #[allow(clippy::too_many_arguments, reason = "what an entry and a message are made of, spelled out once")]
    fn message(
        &mut self,
        entry: &Entry,
        part: usize,
        bytes: &[u8],
        meaning: &Meaning,
        config: &EngineConfig,
        answer: &mut Answer,
        readings: &mut Vec<Accepted>,
        counts: &mut EpochCounts,
    ) {
        let Entry {
            tenant,
            hardware_id,
            received_at,
            offset,
            partition,
            ..
        } = entry;
        let device = format!("{tenant}/{hardware_id}");
        let payload = String::from_utf8_lossy(bytes);
        let event_time = match meaning {
            Meaning::Measurements { event_time, .. } | Meaning::Alert { event_time, .. } | Meaning::Acknowledge { event_time, .. } => {
                *event_time
            }
            _ => None,
        };
        let reasons = match meaning {
            Meaning::Rejected(reason) => vec![*reason],
            _ if event_time.is_some_and(|time| time - received_at > config.future_tolerance_us) => vec![ReasonCode::TooFarInFuture],
            Meaning::Measurements { good, bad, .. } if good.is_empty() => bad.clone(),
            _ => Vec::new(),
        };
        let rejected = !reasons.is_empty();
        if !rejected && !self.devices.contains(&device) {
            self.devices.push(device.clone());
        }
        counts.n_messages += 1;
        let is_new = match (rejected, event_time) {
            (true, _) => self.admit(format!("payload {device} {part} {payload}"), config, counts),
            (false, Some(_)) => self.admit(format!("{device} {meaning:?}"), config, counts),
            (false, None) => {
                let log_time = self.log_time.unwrap();
                let key = format!("{device} {meaning:?}");
                let again = self
                    .undated
                    .get(&key)
                    .is_some_and(|last| log_time - last <= config.redelivery_window_us);
                let is_new = !(entry.redelivered && again);
                if is_new {
                    self.undated.insert(key, log_time);
                }
                is_new
            }
        };
        let mut total = |code: &str| *answer.totals.entry(format!("{tenant} {code}")).or_default() += 1;
        if !is_new {
            counts.n_duplicates += 1;
            total("duplicate");
            return;
        }
        let bad = match meaning {
            _ if rejected => &reasons,
            Meaning::Measurements { bad, .. } => bad,
            _ => &Vec::new(),
        };
        for reason in bad {
            total(reason.as_str());
            answer
                .rows
                .push((*partition, *offset, format!("rejection {device} {} {payload}", reason.as_str())));
        }
        if rejected {
            counts.n_rejected += 1;
            return;
        }
        counts.n_accepted += 1;
        total("accepted");
        let time = event_time.unwrap_or(*received_at);
        match meaning {
            Meaning::Measurements { good, .. } => {
                for &(identifier, value) in good {
                    let text = format!("measurement {device} {} {value} at {time}", identifier.name());
                    answer.rows.push((*partition, *offset, text));
                    let reading = Accepted {
                        device: device.clone(),
                        identifier,
                        event_time: time,
                        partition: *partition,
                        offset: *offset,
                        value,
                    };
                    self.put_latest(&reading, answer);
                    readings.push(reading);
                }
                self.put_profile(&device, time, *offset, good, counts);
            }
            Meaning::Alert { text, .. } => answer.rows.push((*partition, *offset, format!("alert {device} {text} at {time}"))),
            Meaning::Acknowledge { text, .. } => {
                answer
                    .rows
                    .push((*partition, *offset, format!("acknowledgement {device} {text} at {time}")));
            }
            Meaning::Register => answer.rows.push((*partition, *offset, format!("registration {device}"))),
            Meaning::Rejected(_) => {}
        }
    }

    fn admit(&mut self, key: String, config: &EngineConfig, counts: &mut EpochCounts) -> bool {
        if !self.seen.insert(key.clone()) {
            return false;
        }
        self.seen_order.push_back((self.minute, key));
        while self.seen_order.len() > config.dedupe_identities_max {
            let (_, key) = self.seen_order.pop_front().unwrap();
            self.seen.remove(&key);
            counts.n_identities_forgotten += 1;
        }
        true
    }

    fn put_latest(&mut self, reading: &Accepted, answer: &mut Answer) {
        let key = format!("{} {}", reading.device, reading.identifier.name());
        let newest = self.latest_times.entry(key.clone()).or_insert(i64::MIN);
        if reading.event_time >= *newest {
            *newest = reading.event_time;
            answer.latest.insert(key, reading_text(reading.event_time, reading.value));
        }
    }

    fn put_profile(&mut self, device: &str, time: i64, offset: u64, good: &[(Identifier, f64)], counts: &mut EpochCounts) {
        let device = self.devices.iter().position(|name| name == device).unwrap();
        let start = time.div_euclid(WINDOW_US) * WINDOW_US;
        if !self.windows.contains_key(&(device, start)) && self.evicted_through.get(&device).is_some_and(|&through| start <= through) {
            counts.n_reopened += good.len() as u64;
        }
        let window = self.windows.entry((device, start)).or_insert_with(|| Window {
            touched: 0,
            flush_at: None,
            cells: Vec::new(),
        });
        window.touched = self.minute;
        window.flush_at.get_or_insert(((start + WINDOW_US) / TICK_US).max(self.minute + 1));
        for &(identifier, value) in good {
            let position = window.cells.iter().position(|(other, _)| *other == identifier).unwrap_or_else(|| {
                window.cells.push((
                    identifier,
                    Cell {
                        generation: offset,
                        readings: Vec::new(),
                        dirty: true,
                    },
                ));
                window.cells.len() - 1
            });
            let cell = &mut window.cells[position].1;
            cell.readings.push((time, value));
            cell.dirty = true;
        }
    }

    fn tick(&mut self, entry: &Entry, config: &EngineConfig, answer: &mut Answer, counts: &mut EpochCounts) {
        let minutes = |us: i64| (us + TICK_US - 1) / TICK_US;
        while self
            .seen_order
            .front()
            .is_some_and(|(minute, _)| *minute < self.minute - minutes(config.dedupe_horizon_us))
        {
            let (_, key) = self.seen_order.pop_front().unwrap();
            self.seen.remove(&key);
        }
        let mut to_flush: Vec<_> = self
            .windows
            .iter()
            .filter_map(|(key, window)| Some((window.flush_at?, *key)))
            .collect();
        to_flush.retain(|(flush_at, _)| *flush_at <= self.minute);
        to_flush.sort();
        for (_, key) in to_flush.into_iter().take(config.profile_windows_per_tick_max) {
            self.flush(key, entry, answer);
        }
        let leaves_at = |window: &Window| window.touched + minutes(config.profile_retention_us) + 1;
        let mut to_leave: Vec<_> = self.windows.iter().map(|(key, window)| (leaves_at(window), *key)).collect();
        to_leave.sort();
        let mut n_left = config.profile_windows_per_tick_max;
        for (leaves_at, key) in to_leave {
            let is_due = leaves_at <= self.minute;
            if self.windows.len() <= config.profile_windows_max && (!is_due || n_left == 0) {
                break;
            }
            n_left = n_left.saturating_sub(1);
            counts.n_windows_forgotten += u64::from(!is_due);
            self.flush(key, entry, answer);
            self.windows.remove(&key);
            let through = self.evicted_through.entry(key.0).or_insert(i64::MIN);
            *through = key.1.max(*through);
        }
    }

    fn flush(&mut self, key: (usize, i64), entry: &Entry, answer: &mut Answer) {
        let window = self.windows.get_mut(&key).unwrap();
        window.flush_at = None;
        for (identifier, cell) in window.cells.iter_mut().filter(|(_, cell)| cell.dirty) {
            cell.dirty = false;
            let text = format!(
                "profile {} {} {} {}",
                self.devices[key.0],
                key.1,
                identifier.name(),
                cell_text(&cell.row())
            );
            answer.rows.push((entry.partition, entry.offset, text));
        }
    }
}
