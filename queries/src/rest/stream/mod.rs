//! `GET /api/v1/stream`: live changes of `latest` and of the grid as server-sent events.
//!
//! Every event has an id; a client that comes back with `Last-Event-ID` goes on where it was, as long as the ring still has that place.
//! While nothing matches, a comment keeps the connection alive and moves the id on. A reader that is too slow gets `overrun` as its
//! last event instead of ever more of the server's memory.

mod event;
mod filter;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::Counter;
use super::changes::{At, Position, Reader, rows_from};
use super::guard::Caller;
use super::problem::Problem;
use crate::live::LiveChanges;
use filter::Filter;

pub(super) use event::{EstimateEvent, FaultEvent, LatestEvent, OutageEvent, ReconfigurationEvent, Row};

/// The route.
pub(super) const PATH: &str = "/api/v1/stream";
/// A chunk of events is sent when it has grown to this size, in bytes.
const CHUNK_LEN: usize = 32 * 1024;
/// How long a client should wait before it reconnects, in milliseconds.
const RETRY_MS: u32 = 1_000;
/// Entries a reader may look through without finding anything to send before others get their turn.
const ENTRIES_PER_TURN: u32 = 64;

/// Live changes as server-sent events
///
/// Events: `latest` (data: one changed value), `outage`, `reconfiguration` and `fault` (data: one row as it is now), `estimate` (data: how far
/// the new estimate of an area can be trusted), `gap` (the place asked for by Last-Event-ID is no longer kept: read the current values again,
/// the stream goes on from now), `overrun` (this reader was too slow; last event), `shutdown` (last event). Comments are heartbeats.
#[utoipa::path(get, path = PATH, operation_id = "streamChanges", tag = "live",
    params(
        ("event" = Option<Vec<String>>, Query, description = "Only these events: latest, outage, reconfiguration, fault, estimate; may be repeated"),
        ("hardwareId" = Option<Vec<String>>, Query, description = "Of latest only these devices, and without `event` nothing else; may be repeated"),
        ("identifier" = Option<Vec<String>>, Query, description = "Of latest only these quantities, and without `event` nothing else; may be repeated"),
        ("Last-Event-ID" = Option<String>, Header, description = "Go on after the event with this id"),
    ),
    responses((status = 200, description = "An endless stream of events", body = LatestEvent, content_type = "text/event-stream")))]
pub(super) async fn stream(
    State(counter): State<Arc<Counter>>,
    Extension(caller): Extension<Caller>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = Filter::new(caller, &pairs)?;
    let permit = counter.stream_permit()?;
    let mut reader = counter.changes.read_from_now();
    let wanted = headers
        .get("last-event-id")
        .map(|id| id.to_str().ok().and_then(|id| id.parse::<Position>().ok()));
    // An id we cannot read is a place we cannot go back to.
    let has_gap = wanted.is_some_and(|position| !position.is_some_and(|position| reader.resume(position)));
    let follower = Follower::new(
        reader,
        filter,
        counter.closing.subscribe(),
        permit,
        counter.config.heartbeat,
        has_gap,
    );
    let body = Body::from_stream(stream::unfold(follower, Follower::next).fuse());
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that buffer would turn live into late.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One open stream.
struct Follower {
    reader: Reader,
    filter: Filter,
    closing: watch::Receiver<bool>,
    heartbeat: Duration,
    heartbeat_at: Instant,
    greeting: Option<Bytes>,
    has_ended: bool,
    /// Held as long as the stream is open: their number is limited.
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    fn new(
        reader: Reader,
        filter: Filter,
        closing: watch::Receiver<bool>,
        permit: OwnedSemaphorePermit,
        heartbeat: Duration,
        has_gap: bool,
    ) -> Self {
        let mut greeting = format!("retry: {RETRY_MS}\nid: {}\n\n", reader.position()).into_bytes();
        if has_gap {
            write_gap(&mut greeting);
        }
        Self {
            reader,
            filter,
            closing,
            heartbeat,
            heartbeat_at: Instant::now() + heartbeat,
            greeting: Some(Bytes::from(greeting)),
            has_ended: false,
            _permit: permit,
        }
    }

    /// The next chunk of events; `None` after the last one.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.has_ended {
            return None;
        }
        let chunk = match self.greeting.take() {
            Some(greeting) => greeting,
            None => self.chunk().await,
        };
        self.heartbeat_at = Instant::now() + self.heartbeat;
        Some((Ok(chunk), self))
    }

    async fn chunk(&mut self) -> Bytes {
        let mut n_skipped = 0;
        loop {
            if *self.closing.borrow() {
                return self.last_event("shutdown", "the server is stopping; reconnect");
            }
            match self.reader.here() {
                At::Changes(changes) => {
                    let chunk = self.write(&changes);
                    if !chunk.is_empty() {
                        return Bytes::from(chunk);
                    }
                    n_skipped += 1;
                    if n_skipped % ENTRIES_PER_TURN == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                At::Gone => return self.last_event("overrun", "this reader was too slow; reconnect, and read the current values again"),
                At::End => tokio::select! {
                    () = self.reader.recorded() => {}
                    changed = self.closing.changed() => if changed.is_err() {
                        return self.last_event("shutdown", "the server has stopped; reconnect");
                    },
                    () = tokio::time::sleep_until(self.heartbeat_at) => return self.heartbeat(),
                },
            }
            if Instant::now() >= self.heartbeat_at {
                return self.heartbeat();
            }
        }
    }

    /// The matching rows from the reader's position on, until the entry is done or the chunk is full.
    fn write(&mut self, changes: &LiveChanges) -> Vec<u8> {
        let mut chunk = Vec::new();
        let mut position = self.reader.position();
        if changes.n_omitted > 0 && position.index == 0 {
            write_gap(&mut chunk);
        }
        for (index, row) in rows_from(changes, position.index) {
            if !self.filter.matches(row) {
                continue;
            }
            position.index = index + 1;
            event::write(&mut chunk, position, row);
            if chunk.len() >= CHUNK_LEN {
                self.reader.advance_to(index + 1);
                return chunk;
            }
        }
        self.reader.next_entry();
        chunk
    }

    /// A comment, with an id on the way: a client whose filter matches rarely still comes back to a place that is kept.
    fn heartbeat(&self) -> Bytes {
        Bytes::from(format!(": heartbeat\nid: {}\n\n", self.reader.position()))
    }

    fn last_event(&mut self, event: &str, detail: &str) -> Bytes {
        self.has_ended = true;
        Bytes::from(format!("event: {event}\ndata: {{\"detail\":\"{detail}\"}}\n\n"))
    }
}

fn write_gap(chunk: &mut Vec<u8>) {
    chunk.extend_from_slice(b"event: gap\ndata: {\"detail\":\"changes were left out; read the current values again\"}\n\n");
}
