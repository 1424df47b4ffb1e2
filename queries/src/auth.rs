//! Who is asking: passwords in, principals and bearer tokens out.
//!
//! Passwords are checked by a function that `src` provides, so no hash and no file is known here. Tokens are opaque to clients:
//! the principal and an expiry, signed with HMAC-SHA256. The same key signs the tickets of Flight SQL, each purpose with its own label,
//! so that one kind of token never passes for another.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flexmeter_model::TenantId;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// How long a bearer token is good for.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Length of the signing key, in bytes.
pub const TOKEN_KEY_LEN: usize = 32;
/// The only user until the registry knows more.
pub const ADMIN_USER: &str = "admin";
/// Longest `authorization` header that is looked at, in bytes.
pub const AUTHORIZATION_LEN_MAX: usize = 8 * 1024;

const PURPOSE_TOKEN: &str = "token";

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything within the tenant, and the platform's own figures.
    Admin,
}

/// An authenticated user in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user's name.
    pub user: Arc<str>,
    /// The tenant whose data the user sees.
    pub tenant: TenantId,
    /// What the user may do.
    pub role: Role,
}

/// Why somebody is not let in. The texts never say which half of a user and password pair was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No `authorization` header.
    #[error("no credentials were sent; log in with a user and a password, or send a bearer token")]
    Missing,
    /// Neither Basic nor Bearer, or not decodable.
    #[error("the authorization header is neither valid Basic nor Bearer")]
    Malformed,
    /// The user or the password is wrong.
    #[error("wrong user or password")]
    WrongPassword,
    /// The token was not made here, or was changed.
    #[error("the bearer token is not valid here; log in again")]
    InvalidToken,
    /// The token was good once.
    #[error("the bearer token has expired; log in again")]
    ExpiredToken,
}

/// Checks a user and a password.
pub type PasswordCheck = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// What an [`Authenticator`] is made of.
#[derive(Clone)]
pub struct AuthConfig {
    /// Checks a user and a password; not asked in insecure mode.
    pub check: PasswordCheck,
    /// Tenant of the users known so far.
    pub tenant: TenantId,
    /// Signs tokens. With a key that outlives the process, tokens do too; [`random_key`] makes one for this process only.
    pub token_key: [u8; TOKEN_KEY_LEN],
    /// Take user `admin` with any password (loopback only; `src` sees to that).
    pub insecure: bool,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("tenant", &self.tenant)
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

/// A fresh signing key from the operating system.
///
/// # Errors
/// The operating system has no randomness to give.
pub fn random_key() -> Result<[u8; TOKEN_KEY_LEN], getrandom::Error> {
    let mut key = [0; TOKEN_KEY_LEN];
    getrandom::fill(&mut key)?;
    Ok(key)
}

/// Lets people in and issues tokens.
pub struct Authenticator {
    config: AuthConfig,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    u: String,
    t: String,
    r: Role,
    /// Expiry, in seconds since the Unix epoch.
    exp: u64,
}

impl Authenticator {
    /// An authenticator with this configuration.
    #[must_use]
    pub fn new(config: AuthConfig) -> Self {
        Self { config }
    }

    /// Checks a user and a password.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`].
    pub fn basic(&self, user: &str, password: &str) -> Result<Principal, AuthError> {
        let good = if self.config.insecure {
            user == ADMIN_USER
        } else {
            (self.config.check)(user, password)
        };
        if good {
            Ok(Principal {
                user: Arc::from(user),
                tenant: self.config.tenant.clone(),
                role: Role::Admin,
            })
        } else {
            metrics::counter!("flexmeter_login_failures_total").increment(1);
            Err(AuthError::WrongPassword)
        }
    }

    /// A token that stands for the principal for [`TOKEN_LIFETIME`].
    #[must_use]
    pub fn issue(&self, principal: &Principal) -> String {
        self.issue_at(principal, SystemTime::now())
    }

    fn issue_at(&self, principal: &Principal, now: SystemTime) -> String {
        let claims = Claims {
            u: principal.user.to_string(),
            t: principal.tenant.to_string(),
            r: principal.role,
            exp: unix_seconds(now + TOKEN_LIFETIME),
        };
        let body = serde_json::to_vec(&claims).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(self.sign(PURPOSE_TOKEN, &body))
    }

    /// The principal a token stands for.
    ///
    /// # Errors
    /// [`AuthError::InvalidToken`] or [`AuthError::ExpiredToken`].
    pub fn bearer(&self, token: &str) -> Result<Principal, AuthError> {
        self.bearer_at(token, SystemTime::now())
    }

    fn bearer_at(&self, token: &str, now: SystemTime) -> Result<Principal, AuthError> {
        let signed = URL_SAFE_NO_PAD.decode(token).map_err(|_| AuthError::InvalidToken)?;
        let body = self.verify(PURPOSE_TOKEN, &signed).ok_or(AuthError::InvalidToken)?;
        let claims: Claims = serde_json::from_slice(body).map_err(|_| AuthError::InvalidToken)?;
        if unix_seconds(now) >= claims.exp {
            return Err(AuthError::ExpiredToken);
        }
        let tenant = TenantId::new(&claims.t).map_err(|_| AuthError::InvalidToken)?;
        Ok(Principal {
            user: Arc::from(claims.u),
            tenant,
            role: claims.r,
        })
    }

    /// The principal behind an `authorization` header: `Basic …` or `Bearer …`.
    ///
    /// # Errors
    /// [`AuthError`], with a sentence a user can read.
    pub fn authorize(&self, header: Option<&str>) -> Result<Principal, AuthError> {
        let header = header.ok_or(AuthError::Missing)?.trim();
        if header.len() > AUTHORIZATION_LEN_MAX {
            return Err(AuthError::Malformed);
        }
        let (scheme, credentials) = header.split_once(' ').ok_or(AuthError::Malformed)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            self.bearer(credentials.trim())
        } else if scheme.eq_ignore_ascii_case("basic") {
            let (user, password) = decode_basic(credentials.trim()).ok_or(AuthError::Malformed)?;
            self.basic(&user, &password)
        } else {
            Err(AuthError::Malformed)
        }
    }

    /// `body` behind its signature. `purpose` keeps one kind of signed bytes from passing for another.
    #[must_use]
    pub fn sign(&self, purpose: &str, body: &[u8]) -> Vec<u8> {
        let mut signed = Vec::with_capacity(SIGNATURE_LEN + body.len());
        signed.extend_from_slice(&self.mac(purpose, body).finalize().into_bytes());
        signed.extend_from_slice(body);
        signed
    }

    /// The body of signed bytes, if the signature is ours and was made for `purpose`. Compares in constant time.
    #[must_use]
    pub fn verify<'a>(&self, purpose: &str, signed: &'a [u8]) -> Option<&'a [u8]> {
        let (signature, body) = signed.split_at_checked(SIGNATURE_LEN)?;
        self.mac(purpose, body).verify_slice(signature).ok().map(|()| body)
    }

    fn mac(&self, purpose: &str, body: &[u8]) -> Hmac<Sha256> {
        // HMAC pads a short key with zeros to its block, so this is the key itself; the fixed size spares an error that cannot happen.
        let mut block = [0_u8; 64];
        block[..TOKEN_KEY_LEN].copy_from_slice(&self.config.token_key);
        let mut mac = <Hmac<Sha256> as Mac>::new(&block.into());
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(body);
        mac
    }
}

const SIGNATURE_LEN: usize = 32;

fn decode_basic(credentials: &str) -> Option<(String, String)> {
    // Some clients leave the padding out.
    let bytes = STANDARD
        .decode(credentials)
        .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(credentials))
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(insecure: bool) -> Authenticator {
        Authenticator::new(AuthConfig {
            check: Arc::new(|user, password| user == "admin" && password == "s3cret:with colon"),
            tenant: TenantId::new("default").unwrap(),
            token_key: [7; TOKEN_KEY_LEN],
            insecure,
        })
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[test]
    fn a_password_gives_a_token_and_the_token_gives_the_same_principal() {
        let auth = authenticator(false);
        let principal = auth.authorize(Some(&basic("admin", "s3cret:with colon"))).unwrap();
        assert_eq!(auth.authorize(Some(&format!("bearer {}", auth.issue(&principal)))), Ok(principal));
    }

    #[test]
    fn wrong_credentials_are_refused() {
        let auth = authenticator(false);
        assert_eq!(auth.authorize(None), Err(AuthError::Missing));
        assert_eq!(auth.authorize(Some(&basic("admin", "x"))), Err(AuthError::WrongPassword));
        assert_eq!(auth.authorize(Some("Basic ???")), Err(AuthError::Malformed));
        assert_eq!(auth.authorize(Some("Digest abc")), Err(AuthError::Malformed));
        assert_eq!(auth.authorize(Some("Bearer abc")), Err(AuthError::InvalidToken));
        assert_eq!(
            auth.authorize(Some(&format!("Bearer {}", "a".repeat(AUTHORIZATION_LEN_MAX)))),
            Err(AuthError::Malformed)
        );
    }

    #[test]
    fn a_changed_foreign_or_old_token_is_refused() {
        let auth = authenticator(false);
        let principal = auth.basic("admin", "s3cret:with colon").unwrap();
        let token = auth.issue(&principal);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // the last character may carry padding bits only, in which case it does not decode at all
            assert_eq!(auth.bearer(&changed), Err(AuthError::InvalidToken), "byte {at}");
        }
        let other = Authenticator::new(AuthConfig {
            token_key: [8; TOKEN_KEY_LEN],
            ..authenticator(false).config
        });
        assert_eq!(other.bearer(&token), Err(AuthError::InvalidToken));
        assert_eq!(
            auth.bearer_at(&token, SystemTime::now() + TOKEN_LIFETIME),
            Err(AuthError::ExpiredToken)
        );
        let ticket = URL_SAFE_NO_PAD.encode(auth.sign("ticket", auth.verify("token", &URL_SAFE_NO_PAD.decode(&token).unwrap()).unwrap()));
        assert_eq!(auth.bearer(&ticket), Err(AuthError::InvalidToken), "signed for another purpose");
    }

    #[test]
    fn insecure_mode_takes_admin_with_any_password_and_nobody_else() {
        let auth = authenticator(true);
        assert!(auth.basic("admin", "").is_ok());
        assert_eq!(auth.basic("root", "s3cret:with colon"), Err(AuthError::WrongPassword));
    }
}
