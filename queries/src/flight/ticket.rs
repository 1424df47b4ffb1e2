//! Tickets: what DoGet shows to get the rows of a statement that GetFlightInfo has planned.
//!
//! A ticket is the statement and its parameters, signed, with an expiry and the user it was made for. So the server keeps nothing
//! between the two calls, and nobody can make, change or borrow one.

use std::time::{Duration, SystemTime};

use prost::Message;
use tonic::Status;

use crate::auth::{Authenticator, Principal, unix_seconds};

/// How long a ticket is good for.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(15 * 60);
const PURPOSE: &str = "flight-ticket";

/// The inside of a ticket.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ticket {
    /// Expiry, in seconds since the Unix epoch.
    #[prost(uint64, tag = "1")]
    pub(super) expires: u64,
    /// The user it was made for.
    #[prost(string, tag = "2")]
    pub(super) user: String,
    /// The user's tenant.
    #[prost(string, tag = "3")]
    pub(super) tenant: String,
    /// Names the run, so that it can be cancelled.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) run: Vec<u8>,
    /// The statement.
    #[prost(string, tag = "5")]
    pub(super) sql: String,
    /// Parameter values as an Arrow IPC stream; empty without.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) parameters: Vec<u8>,
}

impl Ticket {
    /// A ticket for the principal, good from now on.
    pub(super) fn new(principal: &Principal, sql: String, parameters: Vec<u8>) -> Result<Self, Status> {
        Ok(Self {
            expires: unix_seconds(SystemTime::now() + TICKET_LIFETIME),
            user: principal.user.to_string(),
            tenant: principal.tenant.to_string(),
            run: random_name()?,
            sql,
            parameters,
        })
    }

    pub(super) fn seal(&self, auth: &Authenticator) -> Vec<u8> {
        auth.sign(PURPOSE, &self.encode_to_vec())
    }

    /// Opens a ticket of this principal.
    pub(super) fn open(auth: &Authenticator, principal: &Principal, sealed: &[u8]) -> Result<Self, Status> {
        Self::open_at(auth, principal, sealed, SystemTime::now())
    }

    fn open_at(auth: &Authenticator, principal: &Principal, sealed: &[u8], now: SystemTime) -> Result<Self, Status> {
        let invalid = || Status::invalid_argument("the ticket is not valid here; run the statement again");
        let body = auth.verify(PURPOSE, sealed).ok_or_else(invalid)?;
        let ticket = Self::decode(body).map_err(|_| invalid())?;
        if unix_seconds(now) >= ticket.expires {
            return Err(Status::not_found("the ticket has expired; run the statement again"));
        }
        if ticket.user != *principal.user || ticket.tenant != principal.tenant.as_str() {
            return Err(Status::permission_denied("the ticket was made for another user"));
        }
        Ok(ticket)
    }
}

/// Sixteen random bytes.
pub(super) fn random_name() -> Result<Vec<u8>, Status> {
    let mut name = vec![0; 16];
    getrandom::fill(&mut name).map_err(|_| Status::internal("the operating system has no randomness to give"))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthConfig, Role};
    use flexmeter_model::TenantId;
    use std::sync::Arc;

    #[test]
    fn a_ticket_opens_for_its_user_and_in_time_only() {
        let tenant = TenantId::new("default").unwrap();
        let auth = Authenticator::new(AuthConfig {
            check: Arc::new(|_, _| true),
            tenant: tenant.clone(),
            token_key: [1; 32],
            insecure: false,
        });
        let principal = Principal {
            user: "admin".into(),
            tenant,
            role: Role::Admin,
        };
        let ticket = Ticket::new(&principal, "SELECT 1".to_owned(), Vec::new()).unwrap();
        let sealed = ticket.seal(&auth);
        assert_eq!(Ticket::open(&auth, &principal, &sealed).unwrap(), ticket);
        let late = SystemTime::now() + TICKET_LIFETIME;
        assert_eq!(
            Ticket::open_at(&auth, &principal, &sealed, late).unwrap_err().code(),
            tonic::Code::NotFound
        );
        let other = Principal {
            user: "eve".into(),
            ..principal.clone()
        };
        assert_eq!(
            Ticket::open(&auth, &other, &sealed).unwrap_err().code(),
            tonic::Code::PermissionDenied
        );
        assert_eq!(
            Ticket::open(&auth, &principal, &sealed[1..]).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
        assert_eq!(
            Ticket::open(&auth, &principal, &auth.sign("token", &ticket.encode_to_vec()))
                .unwrap_err()
                .code(),
            tonic::Code::InvalidArgument
        );
    }
}
