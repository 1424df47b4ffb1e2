//! The live changes of `latest` and of the grids, kept for a little while so that readers may be a little late and may come back.
//!
//! One ring serves all readers: it is bounded in rows, and a reader is only a position in it. So a slow reader costs nothing; when the
//! ring has moved past its position it is told so. A task copies changes from the live store into the ring, and only while somebody
//! listens or may come back.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::stream::Row;
use crate::live::{LiveChanges, LiveEvent, LiveStore, LiveSubscription};

/// Most rows the ring holds (about 16 MB). A single larger epoch is kept whole until the next one comes.
pub(super) const RING_ROWS_MAX: usize = 256 * 1024;
/// Most epochs the ring holds.
pub(super) const RING_EPOCHS_MAX: usize = 16 * 1024;
/// How long the ring goes on recording after the last reader left, so that it can come back.
const RESUME_KEPT: Duration = Duration::from_secs(120);

/// A place in the stream of changes: the row `index` of the entry `sequence`, within one run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    run: u64,
    sequence: u64,
    pub(super) index: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{}", self.run, self.sequence, self.index)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().ok_or(());
        Ok(Self {
            run: u64::from_str_radix(next()?, 16).map_err(|_| ())?,
            sequence: next()?.parse().map_err(|_| ())?,
            index: next()?.parse().map_err(|_| ())?,
        })
    }
}

/// What the ring has at a position.
#[derive(Debug)]
pub(super) enum At {
    /// One epoch's changes.
    Changes(Arc<LiveChanges>),
    /// Nothing yet.
    End,
    /// Not any more.
    Gone,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Arc<LiveChanges>>,
    /// Sequence number of the entry that comes next; the ring's oldest is `next - entries.len()`.
    next: u64,
    n_rows: usize,
    n_readers: usize,
    last_left: Option<Instant>,
    is_recording: bool,
}

impl Ring {
    fn is_wanted(&self) -> bool {
        self.n_readers > 0 || self.last_left.is_some_and(|left| left.elapsed() < RESUME_KEPT)
    }

    fn push(&mut self, changes: Arc<LiveChanges>) {
        self.n_rows += changes.n_rows();
        self.entries.push_back(changes);
        self.next += 1;
        while self.entries.len() > 1 && (self.n_rows > RING_ROWS_MAX || self.entries.len() > RING_EPOCHS_MAX) {
            self.n_rows -= self.entries.pop_front().map_or(0, |changes| changes.n_rows());
        }
    }

    /// Drops everything; whoever stood before this point has missed something.
    fn forget(&mut self) {
        self.entries.clear();
        self.n_rows = 0;
        self.next += 1;
    }

    fn oldest(&self) -> u64 {
        self.next - self.entries.len() as u64
    }
}

/// The ring of live changes and the task that fills it.
#[derive(Debug)]
pub(super) struct ChangeFeed {
    live: Arc<LiveStore>,
    run: u64,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

impl ChangeFeed {
    /// An empty feed of a live store's changes. `run` tells this run of the process from others, so that a position of another run is
    /// not misread.
    pub(super) fn new(live: Arc<LiveStore>, run: u64) -> Arc<Self> {
        Arc::new(Self {
            live,
            run,
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
        })
    }

    /// A reader that stands after everything recorded so far.
    pub(super) fn read_from_now(self: &Arc<Self>) -> Reader {
        let mut ring = self.ring.lock();
        ring.n_readers += 1;
        if !ring.is_recording {
            ring.is_recording = true;
            // Subscribed before the reader gets its position, so that nothing falls in between.
            tokio::spawn(record(Arc::downgrade(self), self.live.subscribe()));
        }
        let position = Position {
            run: self.run,
            sequence: ring.next,
            index: 0,
        };
        drop(ring);
        Reader {
            feed: self.clone(),
            newest: self.newest.subscribe(),
            position,
        }
    }

    /// Takes one event of the live store in; false when nobody wants more.
    fn take(&self, event: LiveEvent) -> bool {
        let mut ring = self.ring.lock();
        if !ring.is_wanted() {
            ring.forget();
            ring.is_recording = false;
            return false;
        }
        match event {
            LiveEvent::Changes(changes) if changes.n_rows() == 0 && changes.n_omitted == 0 => return true,
            LiveEvent::Changes(changes) => ring.push(changes),
            LiveEvent::Lagged { .. } => ring.forget(),
        }
        let newest = ring.next;
        drop(ring);
        self.newest.send_replace(newest);
        true
    }

    fn at(&self, sequence: u64) -> At {
        let ring = self.ring.lock();
        let Some(age) = sequence.checked_sub(ring.oldest()) else {
            return At::Gone;
        };
        match usize::try_from(age).ok().and_then(|age| ring.entries.get(age)) {
            Some(changes) => At::Changes(changes.clone()),
            None => At::End,
        }
    }
}

/// Copies from the live store into the ring until nobody wants it. The feed is held weakly: when the server goes, so does the task.
async fn record(feed: std::sync::Weak<ChangeFeed>, mut subscription: LiveSubscription) {
    while let Some(event) = subscription.next().await {
        if !feed.upgrade().is_some_and(|feed| feed.take(event)) {
            return;
        }
    }
}

/// One reader of the feed.
#[derive(Debug)]
pub(super) struct Reader {
    feed: Arc<ChangeFeed>,
    newest: watch::Receiver<u64>,
    position: Position,
}

impl Reader {
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Goes back to a position; false when the ring does not reach that far.
    pub(super) fn resume(&mut self, position: Position) -> bool {
        let now = self.position;
        let is_ours = position.run == now.run && position.sequence <= now.sequence;
        if !is_ours || matches!(self.feed.at(position.sequence), At::Gone) {
            return false;
        }
        self.position = position;
        true
    }

    /// The changes at the reader's position.
    pub(super) fn here(&self) -> At {
        self.feed.at(self.position.sequence)
    }

    /// Moves within the current entry.
    pub(super) fn advance_to(&mut self, index: usize) {
        self.position.index = index;
    }

    /// Moves to the next entry.
    pub(super) fn next_entry(&mut self) {
        self.position.sequence += 1;
        self.position.index = 0;
    }

    /// Waits until something was recorded that the reader has not been woken for.
    pub(super) async fn recorded(&mut self) {
        if self.newest.changed().await.is_err() {
            // The feed cannot go away while a reader holds it.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut ring = self.feed.ring.lock();
        ring.n_readers -= 1;
        ring.last_left = Some(Instant::now());
    }
}

/// The rows of an entry from a position on: those of the grids come first.
pub(super) fn rows_from(changes: &LiveChanges, index: usize) -> impl Iterator<Item = (usize, Row<'_>)> {
    let rows = changes.grid.iter().map(Row::Grid).chain(changes.latest.iter().map(Row::Latest));
    rows.enumerate().skip(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::test_rows::{Rows, identifier};

    fn event(rows: &mut Rows, value: f64) -> LiveEvent {
        let latest = rows.epoch(|_| vec![(identifier(0), 1, value)]).partitions.remove(0).latest;
        LiveEvent::Changes(Arc::new(LiveChanges {
            latest,
            ..LiveChanges::default()
        }))
    }

    fn feed() -> Arc<ChangeFeed> {
        ChangeFeed::new(Arc::new(LiveStore::new()), 7)
    }

    fn drain(reader: &mut Reader) -> Vec<f64> {
        let mut values = Vec::new();
        while let At::Changes(changes) = reader.here() {
            values.extend(rows_from(&changes, reader.position().index).filter_map(|(_, row)| match row {
                Row::Latest(change) => change.new.map(|reading| reading.value),
                Row::Grid(_) => None,
            }));
            reader.next_entry();
        }
        values
    }

    #[tokio::test]
    async fn a_reader_sees_every_change_after_it_came() {
        let (feed, mut rows) = (feed(), Rows::new("default", 2));
        let mut reader = feed.read_from_now();
        for value in [1.0, 2.0] {
            assert!(feed.take(event(&mut rows, value)));
        }
        assert_eq!(drain(&mut reader), [1.0, 1.0, 2.0, 2.0]);
        assert!(matches!(reader.here(), At::End));
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_goes_on_where_it_was() {
        let (feed, mut rows) = (feed(), Rows::new("default", 1));
        let mut reader = feed.read_from_now();
        feed.take(event(&mut rows, 1.0));
        drain(&mut reader);
        let id = reader.position().to_string();
        drop(reader);
        assert!(feed.take(event(&mut rows, 2.0)), "the feed still records for a while");
        let mut back = feed.read_from_now();
        assert!(back.resume(id.parse().unwrap()));
        assert_eq!(drain(&mut back), [2.0]);
    }

    #[tokio::test]
    async fn positions_of_another_run_or_from_the_future_are_not_resumed() {
        let feed = feed();
        let mut reader = feed.read_from_now();
        assert!(!reader.resume(Position {
            run: 8,
            sequence: 0,
            index: 0
        }));
        assert!(!reader.resume(Position {
            run: 7,
            sequence: 1,
            index: 0
        }));
        assert!("".parse::<Position>().is_err());
        assert!("7-x-0".parse::<Position>().is_err());
    }

    #[tokio::test]
    async fn the_ring_is_bounded_and_a_slow_reader_learns_it_was_overrun() {
        let (feed, mut rows) = (feed(), Rows::new("default", RING_ROWS_MAX / 4));
        let slow = feed.read_from_now();
        for _ in 0..6 {
            feed.take(event(&mut rows, 0.0));
        }
        assert!(matches!(slow.here(), At::Gone));
        assert!(feed.ring.lock().n_rows <= RING_ROWS_MAX);
    }

    #[tokio::test]
    async fn what_the_live_store_could_not_hand_over_is_a_gap_for_everyone() {
        let feed = feed();
        let reader = feed.read_from_now();
        feed.take(LiveEvent::Lagged { n_epochs: 3 });
        assert!(matches!(reader.here(), At::Gone));
    }

    #[tokio::test]
    async fn nothing_is_recorded_for_nobody() {
        let (feed, mut rows) = (feed(), Rows::new("default", 1));
        assert!(!feed.take(event(&mut rows, 1.0)));
        assert_eq!(feed.ring.lock().n_rows, 0);
    }
}
