//! Client ids belong to logins. In MQTT a second client with the same client id takes the first one's session over, with its
//! subscriptions and waiting messages. Without this file any device could do that to any other.
//!
//! A client id needs no relation to the login: the first login to use it owns it until its session ends, and others are refused
//! meanwhile. The claim is made before the broker looks at sessions, so two clients that race for one id cannot both pass.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The client ids in use and their owners.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<String, Claim>>);

struct Claim {
    owner: String,
    since: Instant,
}

impl Claims {
    /// Claims `client_id` for `owner`. `session_owner` is the owner of the session the broker has under that id, if any. A claim
    /// without a session (its handshake failed) holds for `grace`.
    pub(super) fn claim(&self, client_id: &str, owner: &str, session_owner: Option<&str>, now: Instant, grace: Duration) -> bool {
        if session_owner.is_some_and(|session_owner| session_owner != owner) {
            return false;
        }
        let mut claims = self.0.lock();
        if let Some(claim) = claims.get_mut(client_id) {
            if claim.owner != owner && session_owner.is_none() && now.duration_since(claim.since) < grace {
                return false;
            }
            claim.owner.clear();
            claim.owner.push_str(owner);
            claim.since = now;
            return true;
        }
        claims.insert(
            client_id.to_owned(),
            Claim {
                owner: owner.to_owned(),
                since: now,
            },
        );
        true
    }

    /// Gives `client_id` free if `owner` has it.
    pub(super) fn release(&self, client_id: &str, owner: &str) {
        let mut claims = self.0.lock();
        if claims.get(client_id).is_some_and(|claim| claim.owner == owner) {
            claims.remove(client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn a_client_id_belongs_to_its_first_login_until_its_session_ends() {
        let (claims, now) = (Claims::default(), Instant::now());
        assert!(claims.claim("c", "a", None, now, GRACE));
        assert!(!claims.claim("c", "b", None, now, GRACE), "a's handshake is under way");
        assert!(claims.claim("c", "a", Some("a"), now, GRACE), "a comes back");
        assert!(!claims.claim("c", "b", Some("a"), now + 2 * GRACE, GRACE), "a's session lives");
        claims.release("c", "b");
        assert!(!claims.claim("c", "b", None, now, GRACE), "b cannot release a's claim");
        claims.release("c", "a");
        assert!(claims.claim("c", "b", None, now, GRACE));
    }

    #[test]
    fn a_claim_whose_handshake_failed_ends_by_itself() {
        let (claims, now) = (Claims::default(), Instant::now());
        assert!(claims.claim("c", "a", None, now, GRACE));
        assert!(claims.claim("c", "b", None, now + GRACE, GRACE));
        assert!(!claims.claim("c", "a", None, now + GRACE, GRACE), "now it is b's");
    }
}
