//! What the server keeps between calls: prepared statements, and the names of statements that run. Both are bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use flexmeter_model::TenantId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::Status;

use super::ticket::random_name;
use crate::auth::Principal;
use crate::session::PreparedSql;

/// Prepared statements that may be open at the same time, of all users.
pub const PREPARED_MAX: usize = 4096;
/// A prepared statement that nobody used for this long is closed.
pub const PREPARED_IDLE: Duration = Duration::from_secs(30 * 60);
/// Cancellations remembered for statements that have not started yet.
const CANCELLED_MAX: usize = 1024;

/// An open prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    user: Arc<str>,
    tenant: TenantId,
    /// The checked statement.
    pub(super) statement: Arc<PreparedSql>,
    /// Its parameters' values: a row for each run.
    pub(super) values: Option<RecordBatch>,
    used: Instant,
}

/// The open prepared statements.
#[derive(Debug, Default)]
pub(super) struct PreparedStatements {
    open: Mutex<HashMap<Vec<u8>, Prepared>>,
}

impl PreparedStatements {
    /// Opens one and gives its handle.
    pub(super) fn open(&self, principal: &Principal, statement: PreparedSql) -> Result<Vec<u8>, Status> {
        self.open_at(principal, statement, Instant::now())
    }

    fn open_at(&self, principal: &Principal, statement: PreparedSql, now: Instant) -> Result<Vec<u8>, Status> {
        let mut open = self.open.lock();
        if open.len() >= PREPARED_MAX {
            open.retain(|_, prepared| now.duration_since(prepared.used) < PREPARED_IDLE);
        }
        if open.len() >= PREPARED_MAX {
            return Err(Status::resource_exhausted(format!(
                "{PREPARED_MAX} prepared statements are open; close some"
            )));
        }
        let handle = random_name()?;
        let (user, tenant) = (principal.user.clone(), principal.tenant.clone());
        open.insert(
            handle.clone(),
            Prepared {
                user,
                tenant,
                statement: Arc::new(statement),
                values: None,
                used: now,
            },
        );
        Ok(handle)
    }

    /// The principal's statement behind a handle.
    pub(super) fn get(&self, principal: &Principal, handle: &[u8]) -> Result<Prepared, Status> {
        self.get_at(principal, handle, Instant::now())
    }

    fn get_at(&self, principal: &Principal, handle: &[u8], now: Instant) -> Result<Prepared, Status> {
        let mut open = self.open.lock();
        let prepared = Self::mine(&mut open, principal, handle, now)?;
        Ok(prepared.clone())
    }

    /// Binds values to the parameters.
    pub(super) fn bind(&self, principal: &Principal, handle: &[u8], values: RecordBatch) -> Result<(), Status> {
        let mut open = self.open.lock();
        Self::mine(&mut open, principal, handle, Instant::now())?.values = Some(values);
        Ok(())
    }

    /// Closes one. Closing what is closed already is no error: clients do it when they give up.
    pub(super) fn close(&self, principal: &Principal, handle: &[u8]) {
        let mut open = self.open.lock();
        if Self::mine(&mut open, principal, handle, Instant::now()).is_ok() {
            open.remove(handle);
        }
    }

    fn mine<'a>(
        open: &'a mut HashMap<Vec<u8>, Prepared>,
        principal: &Principal,
        handle: &[u8],
        now: Instant,
    ) -> Result<&'a mut Prepared, Status> {
        // Somebody else's handle is as unknown as one that never was.
        match open.get_mut(handle) {
            Some(p) if p.user == principal.user && p.tenant == principal.tenant && now.duration_since(p.used) < PREPARED_IDLE => {
                p.used = now;
                Ok(p)
            }
            _ => Err(Status::not_found("the prepared statement is not open (any more); prepare it again")),
        }
    }
}

/// The statements that run, by the name in their ticket.
#[derive(Debug, Default)]
pub(super) struct RunningStatements {
    state: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    stop: HashMap<Vec<u8>, Arc<Notify>>,
    cancelled_early: VecDeque<Vec<u8>>,
}

impl RunningStatements {
    /// Notes that a statement runs, until the guard is dropped. `None` when it was cancelled before it began.
    pub(super) fn start(self: &Arc<Self>, name: &[u8]) -> Option<RunningGuard> {
        let mut state = self.state.lock();
        if let Some(at) = state.cancelled_early.iter().position(|cancelled| cancelled == name) {
            state.cancelled_early.remove(at);
            return None;
        }
        let stop = Arc::new(Notify::new());
        state.stop.insert(name.to_owned(), stop.clone());
        Some(RunningGuard {
            name: name.to_owned(),
            all: self.clone(),
            stop,
        })
    }

    /// Stops a running statement, or one that is about to start.
    pub(super) fn cancel(&self, name: &[u8]) {
        let mut state = self.state.lock();
        if let Some(stop) = state.stop.get(name) {
            // notify_one is remembered, so it does not matter that the statement may not be listening at this moment
            stop.notify_one();
            return;
        }
        if state.cancelled_early.len() >= CANCELLED_MAX {
            state.cancelled_early.pop_front();
        }
        state.cancelled_early.push_back(name.to_owned());
    }
}

/// A statement that runs.
#[derive(Debug)]
pub(super) struct RunningGuard {
    name: Vec<u8>,
    all: Arc<RunningStatements>,
    stop: Arc<Notify>,
}

impl RunningGuard {
    /// Waits until somebody cancels the statement.
    pub(super) async fn cancelled(&self) {
        self.stop.notified().await;
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.all.state.lock().stop.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;
    use arrow::datatypes::Schema;

    fn principal(user: &str) -> Principal {
        Principal {
            user: user.into(),
            tenant: TenantId::new("default").unwrap(),
            role: Role::Admin,
        }
    }

    fn statement() -> PreparedSql {
        let empty = Arc::new(Schema::empty());
        PreparedSql {
            sql: "SELECT 1".to_owned(),
            schema: empty.clone(),
            parameters: empty,
        }
    }

    #[test]
    fn handles_belong_to_their_user_and_grow_stale() {
        let statements = PreparedStatements::default();
        let start = Instant::now();
        let handle = statements.open_at(&principal("admin"), statement(), start).unwrap();
        assert!(statements.get(&principal("eve"), &handle).is_err());
        statements.close(&principal("eve"), &handle);
        let used = start + PREPARED_IDLE - Duration::from_secs(1);
        assert!(statements.get_at(&principal("admin"), &handle, used).is_ok());
        assert!(
            statements
                .get_at(&principal("admin"), &handle, used + PREPARED_IDLE - Duration::from_secs(1))
                .is_ok()
        );
        assert!(statements.get_at(&principal("admin"), &handle, used + 2 * PREPARED_IDLE).is_err());
    }

    #[test]
    fn the_number_of_open_statements_is_limited_and_idle_ones_make_room() {
        let statements = PreparedStatements::default();
        let start = Instant::now();
        for _ in 0..PREPARED_MAX {
            statements.open_at(&principal("admin"), statement(), start).unwrap();
        }
        let error = statements.open_at(&principal("admin"), statement(), start).unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
        assert!(statements.open_at(&principal("admin"), statement(), start + PREPARED_IDLE).is_ok());
    }

    #[tokio::test]
    async fn a_statement_can_be_cancelled_before_and_while_it_runs() {
        let running = Arc::new(RunningStatements::default());
        running.cancel(b"early");
        assert!(running.start(b"early").is_none());
        let guard = running.start(b"a").unwrap();
        running.cancel(b"a");
        guard.cancelled().await;
        drop(guard);
        assert!(running.start(b"a").is_some());
    }
}
