//! The view `load_profile_15m`: mean, minimum, maximum, last value and number of readings of every device, quantity and quarter of
//! an hour, repaired by late data.
//!
//! A device's window stays in memory until it was untouched for the retention time; then its live rows go out, and a reading that
//! comes still later opens new cells under another generation (the offset of its record), which readers of the lake add up.
//! Rows for the lake are written when log time passes the end of a window, again a minute after late data touched it, and when it
//! leaves memory. All of this happens at ticks of log time between two records, so it is the same for every way of cutting
//! the log into epochs.

mod timers;

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use flexmeter_model::outcome::{Device, MessageHead, ProfileChange, ProfileRow};
use flexmeter_model::{EventTime, Identifier};
use hashbrown::HashMap;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::batch::{Accepted, Part, ProfileOutput};
use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::config::{EngineConfig, TICK_US, WINDOW_US};
use crate::devices::DeviceTable;
use crate::judge::RECEIVED_AT_US;
use crate::partition::PerPartition;
use crate::profile_cell::Cell;
use timers::leaves_at;

/// Keeps the load profile, and says which rows changed and which are due for the lake.
pub(crate) fn load_profile<'scope>(
    accepted: StreamVec<'scope, u64, Rc<Accepted>>,
    views: PerPartition<LoadProfile>,
    config: Rc<EngineConfig>,
) -> StreamVec<'scope, u64, Part> {
    accepted.unary(Pipeline, "load_profile", |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, containers| {
                let mut views = views.borrow_mut();
                let mut parts = containers
                    .flat_map(std::mem::take)
                    .map(|batch| {
                        let partition = batch.span.partition;
                        Part::Profile(partition, views.entry(partition).or_default().apply(&batch, &config))
                    })
                    .collect();
                output.session(&time).give_container(&mut parts);
            });
        }
    })
}

/// A window that nothing waits to be flushed of.
const NOT_DUE: i64 = i64::MAX;

/// What a checkpoint may say without making later arithmetic overflow.
const MINUTE_MAX: i64 = RECEIVED_AT_US.end / TICK_US;
const START_US: Range<i64> = -RECEIVED_AT_US.end..RECEIVED_AT_US.end;

/// The view's rows of one partition.
#[derive(Debug)]
pub(crate) struct LoadProfile {
    /// By device index.
    devices: Vec<DeviceWindows>,
    n_windows: usize,
    /// Windows with something to flush, by the minute of log time it is due.
    flushes: BTreeMap<i64, Vec<Key>>,
    /// Every window once, by a minute of log time at or before the one it is due to leave: a touch moves the due minute on, the entry
    /// follows when it comes up.
    evictions: BTreeMap<i64, Vec<Key>>,
    /// Minute of log time of the last tick.
    minute: i64,
    /// Counts the batches; tells which change positions are of the current one.
    batch: u64,
}

/// Names a window of a device. The order is the one in which windows due at the same minute are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    device: u32,
    start: i64,
}

#[derive(Debug)]
struct DeviceWindows {
    device: Option<Arc<Device>>,
    /// By start, oldest first.
    windows: Vec<Window>,
    /// Start of the newest window that left memory.
    evicted_through: i64,
}

#[derive(Debug)]
struct Window {
    start: i64,
    /// Minute of log time of the last reading.
    touched: i64,
    /// Minute of log time at which its dirty cells are flushed, or [`NOT_DUE`].
    flush_at: i64,
    /// The batch the cells' change positions are of.
    batch: u64,
    /// In the order the quantities were first seen.
    cells: Vec<Cell>,
}

impl Default for LoadProfile {
    fn default() -> Self {
        let (flushes, evictions) = (BTreeMap::new(), BTreeMap::new());
        Self {
            devices: Vec::new(),
            n_windows: 0,
            flushes,
            evictions,
            minute: i64::MIN,
            batch: 0,
        }
    }
}

impl Default for DeviceWindows {
    fn default() -> Self {
        Self {
            device: None,
            windows: Vec::new(),
            evicted_through: i64::MIN,
        }
    }
}

/// The output of a batch while it grows.
#[derive(Default)]
struct Draft {
    output: ProfileOutput,
    /// Where the changes of cells are that left memory in this batch: one that is opened again continues its change.
    evicted: HashMap<(Key, Identifier), u32>,
}

impl LoadProfile {
    fn apply(&mut self, batch: &Accepted, config: &EngineConfig) -> ProfileOutput {
        self.batch += 1;
        let mut draft = Draft::default();
        draft.output.changes.reserve(batch.rows.measurements.values.len());
        let mut ticks = batch.ticks.iter().peekable();
        for (position, (head, identifiers, values)) in batch.rows.measurements.messages().enumerate() {
            while let Some(tick) = ticks.next_if(|tick| tick.before <= position) {
                self.tick(tick, config, &mut draft);
            }
            self.touch(head, identifiers, values, config, &mut draft);
        }
        ticks.for_each(|tick| self.tick(tick, config, &mut draft));
        self.settle(draft)
    }

    /// Takes one message's readings in.
    fn touch(&mut self, head: &MessageHead, identifiers: &[Identifier], values: &[f64], config: &EngineConfig, draft: &mut Draft) {
        let index = head.device.index;
        if index as usize >= self.devices.len() {
            self.devices.resize_with(index as usize + 1, DeviceWindows::default);
        }
        let device = &mut self.devices[index as usize];
        let start = head.event_time.floor_to(WINDOW_US).micros();
        let key = Key { device: index, start };
        let position = match device.position(start) {
            Ok(position) => position,
            Err(position) => {
                device.device.get_or_insert_with(|| head.device.clone());
                let cells = Vec::with_capacity(identifiers.len());
                device.windows.insert(
                    position,
                    Window {
                        start,
                        touched: self.minute,
                        flush_at: NOT_DUE,
                        batch: self.batch,
                        cells,
                    },
                );
                if start <= device.evicted_through {
                    draft.output.n_reopened += identifiers.len() as u64;
                }
                self.n_windows += 1;
                self.evictions.entry(leaves_at(self.minute, config)).or_default().push(key);
                position
            }
        };
        let window = &mut device.windows[position];
        window.touched = self.minute;
        if window.flush_at == NOT_DUE {
            window.flush_at = (start + WINDOW_US).div_euclid(TICK_US).max(self.minute + 1);
            self.flushes.entry(window.flush_at).or_default().push(key);
        }
        window.enter(self.batch);
        let after_us = (head.event_time.micros() - start) as u32;
        let mut next = 0;
        for (&identifier, &value) in identifiers.iter().zip(values) {
            match window.find(identifier, &mut next) {
                Some(cell) => {
                    if cell.change == 0 {
                        draft.output.changes.push(change(&head.device, start, identifier, Some(cell)));
                        cell.change = draft.output.changes.len() as u32;
                    }
                    cell.add(value, after_us);
                }
                None => {
                    let mut cell = Cell::open(identifier, head.offset, value, after_us);
                    cell.change = draft.reopened(key, identifier).unwrap_or_else(|| {
                        draft.output.changes.push(change(&head.device, start, identifier, None));
                        draft.output.changes.len() as u32
                    });
                    window.cells.push(cell);
                }
            }
        }
    }

    /// Fills in where each changed row arrived; a row that came and went within the batch never was.
    fn settle(&self, draft: Draft) -> ProfileOutput {
        let mut output = draft.output;
        let mut next = 0;
        for (position, change) in output.changes.iter_mut().enumerate() {
            let start = change.window_start.micros();
            let Some(device) = self.devices.get(change.device.index as usize) else {
                continue;
            };
            let Ok(at) = device.position(start) else { continue };
            let cells = &device.windows[at].cells;
            let is_ours = |cell: &&Cell| cell.change as usize == position + 1 && cell.identifier == change.identifier;
            let cell = cells.get(next).filter(is_ours).or_else(|| {
                next = cells.iter().position(|cell| is_ours(&cell))?;
                cells.get(next)
            });
            change.new = cell.map(|cell| cell.row(start));
            next += 1;
        }
        output.changes.retain(|change| change.old != change.new);
        output
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.i64(self.minute);
        out.len(self.devices.len());
        for device in &self.devices {
            out.i64(device.evicted_through);
            out.len(device.windows.len());
            for window in &device.windows {
                out.i64(window.start);
                out.i64(window.touched);
                out.i64(window.flush_at);
                out.len(window.cells.len());
                window.cells.iter().for_each(|cell| cell.write(out));
            }
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>, table: &DeviceTable, config: &EngineConfig) -> Result<Self, CheckpointError> {
        let mut this = Self {
            minute: input.i64()?,
            ..Self::default()
        };
        let n_devices = input.len(9)?;
        if this.minute > MINUTE_MAX || n_devices > table.len() {
            return Err(CheckpointError::Value {
                what: "log time or number of devices in the load profile",
            });
        }
        this.devices.reserve(n_devices);
        for index in 0..n_devices as u32 {
            let device = DeviceWindows {
                device: table.device(index).cloned(),
                evicted_through: input.i64()?,
                windows: Vec::new(),
            };
            this.devices.push(device);
            let n_windows = input.len(25)?;
            this.devices[index as usize].windows.reserve(n_windows);
            for _ in 0..n_windows {
                this.read_window(input, index, config)?;
            }
        }
        Ok(this)
    }

    fn read_window(&mut self, input: &mut Reader<'_>, index: u32, config: &EngineConfig) -> Result<(), CheckpointError> {
        let (start, touched, flush_at) = (input.i64()?, input.i64()?, input.i64()?);
        let windows = &mut self.devices[index as usize].windows;
        let is_newer = windows.last().is_none_or(|window| window.start < start);
        if !START_US.contains(&start) || start.rem_euclid(WINDOW_US) != 0 || touched > self.minute || !is_newer {
            return Err(CheckpointError::Value {
                what: "load-profile window",
            });
        }
        let n_cells = input.len(Cell::LEN_MIN)?;
        if n_cells > Identifier::COUNT {
            return Err(CheckpointError::Value {
                what: "number of cells in a load-profile window",
            });
        }
        let cells = (0..n_cells).map(|_| Cell::read(input)).collect::<Result<_, _>>()?;
        windows.push(Window {
            start,
            touched,
            flush_at,
            batch: 0,
            cells,
        });
        let key = Key { device: index, start };
        self.n_windows += 1;
        self.evictions.entry(leaves_at(touched, config)).or_default().push(key);
        if flush_at != NOT_DUE {
            self.flushes.entry(flush_at).or_default().push(key);
        }
        Ok(())
    }

    /// Every row, as a change from nothing.
    pub(crate) fn restored_changes(&self) -> Vec<ProfileChange> {
        let mut changes = Vec::new();
        for DeviceWindows { device, windows, .. } in &self.devices {
            let Some(device) = device else { continue };
            for window in windows {
                changes.extend(window.cells.iter().map(|cell| ProfileChange {
                    new: Some(cell.row(window.start)),
                    ..change(device, window.start, cell.identifier, None)
                }));
            }
        }
        changes
    }
}

impl DeviceWindows {
    /// Where the window with this start is, or belongs. The newest windows are looked at first.
    fn position(&self, start: i64) -> Result<usize, usize> {
        match self.windows.last() {
            None => Err(0),
            Some(newest) if newest.start < start => Err(self.windows.len()),
            Some(newest) if newest.start == start => Ok(self.windows.len() - 1),
            Some(_) => self.windows.binary_search_by_key(&start, |window| window.start),
        }
    }

    /// Lets a window go: its unflushed cells become rows, its live rows go out.
    fn evict(&mut self, at: usize, key: Key, batch: u64, offset: u64, draft: &mut Draft) {
        let Some(device) = &self.device else { return };
        let mut window = self.windows.remove(at);
        self.evicted_through = self.evicted_through.max(window.start);
        window.enter(batch);
        window.flush(device, offset, draft);
        for cell in &window.cells {
            let position = match cell.change {
                0 => {
                    draft.output.changes.push(change(device, window.start, cell.identifier, Some(cell)));
                    draft.output.changes.len() as u32
                }
                position => position,
            };
            draft.evicted.insert((key, cell.identifier), position);
        }
    }
}

impl Window {
    /// Change positions of earlier batches mean nothing any more.
    fn enter(&mut self, batch: u64) {
        if self.batch != batch {
            self.batch = batch;
            self.cells.iter_mut().for_each(|cell| cell.change = 0);
        }
    }

    /// A quantity's cell. `next` is where it should be if the message has its quantities in the usual order.
    fn find(&mut self, identifier: Identifier, next: &mut usize) -> Option<&mut Cell> {
        let position = match self.cells.get(*next) {
            Some(cell) if cell.identifier == identifier => *next,
            _ => self
                .cells
                .iter()
                .position(|cell| cell.identifier == identifier)
                .unwrap_or(self.cells.len()),
        };
        *next = position + 1;
        self.cells.get_mut(position)
    }

    fn flush(&mut self, device: &Arc<Device>, offset: u64, draft: &mut Draft) {
        let window_start = EventTime::from_micros(self.start);
        for cell in self.cells.iter_mut().filter(|cell| cell.dirty) {
            cell.dirty = false;
            let (device, identifier, cell) = (device.clone(), cell.identifier, cell.row(self.start));
            draft.output.rows.push(ProfileRow {
                device,
                window_start,
                identifier,
                cell,
                offset,
            });
        }
    }
}

impl Draft {
    /// The change of a cell that left memory in this batch and is opened again.
    fn reopened(&mut self, key: Key, identifier: Identifier) -> Option<u32> {
        if self.evicted.is_empty() {
            None
        } else {
            self.evicted.remove(&(key, identifier))
        }
    }
}

fn change(device: &Arc<Device>, start: i64, identifier: Identifier, old: Option<&Cell>) -> ProfileChange {
    let old = old.map(|cell| cell.row(start));
    ProfileChange {
        device: device.clone(),
        window_start: EventTime::from_micros(start),
        identifier,
        old,
        new: None,
    }
}

#[cfg(test)]
mod tests;
