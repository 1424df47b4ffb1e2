//! What is kept of one device.

use std::sync::Arc;

use flexmeter_model::outcome::{Device, LatestChange, ProfileCell, ProfileChange};
use flexmeter_model::{EventTime, Identifier};

/// The newest reading of one quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatestReading {
    /// The quantity.
    pub identifier: Identifier,
    /// When, by the device's clock.
    pub event_time: EventTime,
    /// The value in the identifier's unit.
    pub value: f64,
}

/// One 15-minute window of one device's load profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileWindow {
    /// Start of the window (UTC).
    pub start: EventTime,
    /// Its cells, ordered by identifier.
    pub cells: Vec<(Identifier, ProfileCell)>,
}

/// When a device was heard of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// The oldest event time seen.
    pub first_event_time: Option<EventTime>,
    /// The newest event time seen.
    pub last_event_time: Option<EventTime>,
    /// When the log appended its newest message; not known for a device restored from a checkpoint that has been silent since.
    pub last_received_at: Option<EventTime>,
    /// Accepted messages since this process started.
    pub n_messages: u64,
}

impl Activity {
    fn saw(&mut self, event_time: EventTime) {
        self.first_event_time = Some(self.first_event_time.map_or(event_time, |t| t.min(event_time)));
        self.last_event_time = Some(self.last_event_time.map_or(event_time, |t| t.max(event_time)));
    }
}

/// Everything the live views hold of one device.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// Who.
    pub device: Arc<Device>,
    /// Its newest readings, ordered by identifier.
    pub latest: Vec<LatestReading>,
    /// Its load profile, ordered by window.
    pub windows: Vec<Arc<ProfileWindow>>,
    /// When it was heard of.
    pub activity: Activity,
}

impl DeviceRow {
    pub(super) fn new(device: Arc<Device>) -> Self {
        Self {
            device,
            latest: Vec::new(),
            windows: Vec::new(),
            activity: Activity::default(),
        }
    }

    /// The newest reading of a quantity.
    #[must_use]
    pub fn reading(&self, identifier: Identifier) -> Option<&LatestReading> {
        self.latest.iter().find(|r| r.identifier == identifier)
    }

    /// Notes an accepted message.
    pub(super) fn heard(&mut self, event_time: EventTime, received_at: EventTime) {
        self.activity.saw(event_time);
        self.activity.last_received_at = Some(self.activity.last_received_at.map_or(received_at, |t| t.max(received_at)));
        self.activity.n_messages += 1;
    }

    /// Applies a change of `latest`; returns by how much the number of rows changed.
    pub(super) fn apply_latest(&mut self, change: &LatestChange) -> isize {
        let at = self
            .latest
            .binary_search_by_key(&change.identifier.index(), |r| r.identifier.index());
        match (at, change.new) {
            (at, Some(reading)) => {
                self.activity.saw(reading.event_time);
                let row = LatestReading {
                    identifier: change.identifier,
                    event_time: reading.event_time,
                    value: reading.value,
                };
                match at {
                    Ok(at) => {
                        self.latest[at] = row;
                        0
                    }
                    Err(at) => {
                        self.latest.insert(at, row);
                        1
                    }
                }
            }
            (Ok(at), None) => {
                self.latest.remove(at);
                -1
            }
            (Err(_), None) => 0,
        }
    }

    /// Applies a change of `load_profile_15m`; returns by how much the number of rows changed.
    pub(super) fn apply_profile(&mut self, change: &ProfileChange) -> isize {
        // Most changes are in one of the newest windows, so the search starts at the end.
        let at = match self.windows.iter().rposition(|w| w.start <= change.window_start) {
            Some(at) if self.windows[at].start == change.window_start => at,
            before => {
                if change.new.is_none() {
                    return 0;
                }
                let at = before.map_or(0, |at| at + 1);
                self.windows.insert(
                    at,
                    Arc::new(ProfileWindow {
                        start: change.window_start,
                        cells: Vec::new(),
                    }),
                );
                at
            }
        };
        let cells = &mut Arc::make_mut(&mut self.windows[at]).cells;
        match (
            cells.binary_search_by_key(&change.identifier.index(), |(id, _)| id.index()),
            change.new,
        ) {
            (Ok(at), Some(cell)) => {
                cells[at].1 = cell;
                0
            }
            (Err(at), Some(cell)) => {
                cells.insert(at, (change.identifier, cell));
                1
            }
            (Ok(cell_at), None) => {
                cells.remove(cell_at);
                if cells.is_empty() {
                    self.windows.remove(at);
                }
                -1
            }
            (Err(_), None) => 0,
        }
    }
}
