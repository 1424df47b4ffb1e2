//! Group commit: whoever appends while the disk is busy shares the next fsync.
//!
//! One thread takes everything that waits, hands it to a [`GroupWriter`] as one group, and comes back for what gathered meanwhile.
//! A lone append therefore never waits for a window, and a thousand concurrent ones pay for one fsync.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{APPEND_QUEUE_BYTES_MAX, LogError, LogPosition, NewRecord, append_cost_bytes};

/// Most bytes that go into one group (4 MiB); a single larger append makes a group of its own.
pub(super) const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most jobs that go into one group.
pub(super) const GROUP_JOBS_MAX: usize = 16 * 1024;

/// Longest time a group waits for the publishers that the previous group has just woken. Without it they miss the group that the
/// first of them starts, and groups alternate between one job and all the others: half the throughput.
const GATHER_MAX: Duration = Duration::from_micros(500);

/// Where the answer to a job goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// Something to be made durable.
pub(super) enum Job {
    /// Records for the log.
    Append {
        records: Vec<NewRecord>,
        answer: Answer<Vec<LogPosition>>,
        /// Room in the queue, given back just before the answer: whoever has one may count on the room.
        room: OwnedSemaphorePermit,
    },
    /// One heartbeat in every partition.
    Heartbeat { answer: Answer<()> },
    /// Key-value pairs beside the log: consumer positions, first retained offsets.
    Put { entries: Vec<(Vec<u8>, u64)>, answer: Answer<()> },
}

impl Job {
    /// Answers with an error.
    pub(super) fn fail(self, error: LogError) {
        self.answer(Err(error));
    }

    /// Answers with the positions of its records.
    pub(super) fn succeed(self, positions: Vec<LogPosition>) {
        self.answer(Ok(positions));
    }

    fn answer(self, result: Result<Vec<LogPosition>, LogError>) {
        // a caller that no longer waits has dropped its receiver: nothing to tell
        let _ = match self {
            Self::Append { answer, room, .. } => {
                drop(room);
                answer.send(result).is_ok()
            }
            Self::Heartbeat { answer } | Self::Put { answer, .. } => answer.send(result.map(drop)).is_ok(),
        };
    }

    fn cost_bytes(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.iter().map(NewRecord::cost_bytes).sum(),
            Self::Heartbeat { .. } | Self::Put { .. } => 0,
        }
    }
}

/// What writes groups; runs on the committer's own thread and answers every job.
pub(super) trait GroupWriter: Send + 'static {
    /// Makes the group durable with one fsync, then answers its jobs.
    fn write(&mut self, group: Vec<Job>);
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Arc<Semaphore>,
}

/// The queue and its thread.
pub(super) struct Committer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// Starts the thread that writes groups with `writer`.
    ///
    /// # Errors
    /// The system's error when it has no thread left.
    pub(super) fn start(writer: impl GroupWriter) -> std::io::Result<Self> {
        let queue = Arc::new(Queue {
            waiting: Mutex::new(Waiting::default()),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(APPEND_QUEUE_BYTES_MAX)),
        });
        let thread = std::thread::Builder::new().name("log-commit".into()).spawn({
            let queue = queue.clone();
            move || run(&queue, writer)
        })?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues records and waits until they are durable. Waits for room first.
    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<LogPosition>, LogError> {
        let cost = u32::try_from(append_cost_bytes(&records)?).unwrap_or(u32::MAX);
        let room = self
            .queue
            .room
            .clone()
            .acquire_many_owned(cost)
            .await
            .map_err(|_| LogError::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.push(Job::Append { records, answer, room })?;
        answered.await.unwrap_or(Err(LogError::Closed))
    }

    /// Queues a heartbeat and waits until it is durable.
    pub(super) async fn heartbeat(&self) -> Result<(), LogError> {
        let (answer, answered) = oneshot::channel();
        self.push(Job::Heartbeat { answer })?;
        answered.await.unwrap_or(Err(LogError::Closed))
    }

    /// Queues key-value pairs and waits until they are durable.
    pub(super) async fn put(&self, entries: Vec<(Vec<u8>, u64)>) -> Result<(), LogError> {
        let (answer, answered) = oneshot::channel();
        self.push(Job::Put { entries, answer })?;
        answered.await.unwrap_or(Err(LogError::Closed))
    }

    /// Writes what waits, then ends the thread and drops the writer. Blocks; later jobs fail with [`LogError::Closed`].
    pub(super) fn close(&self) {
        self.queue.room.close();
        self.queue.waiting.lock().closed = true;
        self.queue.arrived.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // the thread only ends by panic or by `closed`; a panic has been reported, and every answer channel is dropped
            let _ = thread.join();
        }
    }

    fn push(&self, job: Job) -> Result<(), LogError> {
        let mut waiting = self.queue.waiting.lock();
        if waiting.closed {
            return Err(LogError::Closed);
        }
        waiting.jobs.push_back(job);
        drop(waiting);
        self.queue.arrived.notify_one();
        Ok(())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Closes the queue when the thread ends, however it ends: nobody may wait for a thread that is gone.
struct CloseAtEnd<'a>(&'a Queue);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.room.close();
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        waiting.jobs.clear();
    }
}

fn run(queue: &Queue, mut writer: impl GroupWriter) {
    let _close = CloseAtEnd(queue);
    let mut n_last = 0;
    while let Some(group) = next_group(queue, n_last) {
        n_last = group.len();
        writer.write(group);
    }
}

/// The next group; `None` when the queue is closed and empty.
fn next_group(queue: &Queue, n_last: usize) -> Option<Vec<Job>> {
    let mut waiting = queue.waiting.lock();
    while waiting.jobs.is_empty() {
        if waiting.closed {
            return None;
        }
        queue.arrived.wait(&mut waiting);
    }
    let n_expected = n_last / 2;
    if waiting.jobs.len() < n_expected {
        let deadline = Instant::now() + GATHER_MAX;
        while waiting.jobs.len() < n_expected && !waiting.closed {
            if queue.arrived.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
    }
    let mut group = Vec::with_capacity(waiting.jobs.len().min(GROUP_JOBS_MAX));
    let mut bytes = 0;
    while let Some(job) = waiting.jobs.front() {
        bytes += job.cost_bytes();
        if !group.is_empty() && (bytes > GROUP_BYTES_MAX || group.len() >= GROUP_JOBS_MAX) {
            break;
        }
        group.extend(waiting.jobs.pop_front());
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::log::contract::message;

    /// Tells the size of each group, and writes it when it is allowed to.
    struct Gate {
        began: mpsc::Sender<usize>,
        go_on: mpsc::Receiver<()>,
    }

    impl GroupWriter for Gate {
        fn write(&mut self, group: Vec<Job>) {
            self.began.send(group.len()).unwrap();
            self.go_on.recv().unwrap();
            for job in group {
                job.succeed(Vec::new());
            }
        }
    }

    fn gate() -> (Arc<Committer>, mpsc::Receiver<usize>, mpsc::Sender<()>) {
        let ((began, sees_begin), (lets_go_on, go_on)) = (mpsc::channel(), mpsc::channel());
        (Arc::new(Committer::start(Gate { began, go_on }).unwrap()), sees_begin, lets_go_on)
    }

    /// Appends in the background and returns when the job is queued, or waits for room.
    async fn append(committer: &Arc<Committer>, payload_len: usize) -> tokio::task::JoinHandle<Result<Vec<LogPosition>, LogError>> {
        let committer = committer.clone();
        let append = tokio::spawn(async move { committer.append(vec![message("m", vec![0; payload_len])]).await });
        tokio::task::yield_now().await;
        append
    }

    #[tokio::test]
    async fn what_arrives_while_the_disk_is_busy_is_one_group() {
        let (committer, sees_begin, lets_go_on) = gate();
        let mut appends = vec![append(&committer, 10).await];
        assert_eq!(sees_begin.recv().unwrap(), 1, "a lone append does not wait");
        for _ in 0..5 {
            appends.push(append(&committer, 10).await);
        }
        lets_go_on.send(()).unwrap();
        assert_eq!(sees_begin.recv().unwrap(), 5, "the others share a group");
        lets_go_on.send(()).unwrap();
        for append in appends {
            append.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_group_ends_at_its_limit_of_bytes() {
        let (committer, sees_begin, lets_go_on) = gate();
        let mut appends = vec![append(&committer, 10).await];
        assert_eq!(sees_begin.recv().unwrap(), 1);
        for _ in 0..5 {
            appends.push(append(&committer, GROUP_BYTES_MAX / 2 - 1000).await);
        }
        appends.push(append(&committer, 2 * GROUP_BYTES_MAX).await);
        for expected in [2, 2, 1, 1] {
            lets_go_on.send(()).unwrap();
            assert_eq!(sees_begin.recv().unwrap(), expected);
        }
        lets_go_on.send(()).unwrap();
        for append in appends {
            append.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_full_queue_makes_appenders_wait_and_loses_nothing() {
        let (committer, sees_begin, lets_go_on) = gate();
        let large = APPEND_QUEUE_BYTES_MAX / 2;
        let first = append(&committer, large).await;
        let second = append(&committer, large - 1000).await;
        assert_eq!(sees_begin.recv().unwrap(), 1);
        let third = append(&committer, 1000).await;
        assert!(committer.queue.room.available_permits() < 1000, "the queue is full");
        assert_eq!(
            committer.queue.waiting.lock().jobs.len(),
            1,
            "the third is not queued, it waits for room"
        );
        for append in [first, second] {
            lets_go_on.send(()).unwrap();
            append.await.unwrap().unwrap(); // gives its room to whoever waits
            assert_eq!(sees_begin.recv().unwrap(), 1);
        }
        lets_go_on.send(()).unwrap();
        third.await.unwrap().unwrap();
        assert_eq!(
            committer.queue.room.available_permits(),
            APPEND_QUEUE_BYTES_MAX,
            "all room was given back"
        );
    }

    #[tokio::test]
    async fn closing_writes_what_waits() {
        let (committer, sees_begin, lets_go_on) = gate();
        let waiting = append(&committer, 10).await;
        sees_begin.recv().unwrap();
        let also_waiting = append(&committer, 10).await;
        lets_go_on.send(()).unwrap();
        lets_go_on.send(()).unwrap();
        tokio::task::spawn_blocking({
            let committer = committer.clone();
            move || committer.close()
        })
        .await
        .unwrap();
        waiting.await.unwrap().unwrap();
        also_waiting.await.unwrap().unwrap();
        assert!(matches!(committer.append(vec![message("m", "x")]).await, Err(LogError::Closed)));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_writer_that_has_panicked() {
        struct Panics;
        impl GroupWriter for Panics {
            fn write(&mut self, _group: Vec<Job>) {
                panic!("on purpose");
            }
        }
        let committer = Committer::start(Panics).unwrap();
        for _ in 0..2 {
            assert!(matches!(committer.append(vec![message("m", "x")]).await, Err(LogError::Closed)));
        }
    }
}
