//! Who is talking: devices, the platform's own services and gateways, and in insecure mode anyone.
//!
//! A device needs no entry in any table: its password is derived from the platform key and its own name, so a million devices cost
//! nothing to store and a stolen table cannot be stolen. Changing the key changes every password.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::{HardwareId, TenantId};
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::config::DEFAULT_TENANT;

/// User name of the platform's services and trusted gateways.
pub const ADMIN_USER: &str = "admin";
/// Shortest platform key, in bytes.
pub const PLATFORM_KEY_LEN_MIN: usize = 32;

/// Says whether a user name and password are an administrator's. May be slow (a password hash): it is asked once per password.
pub type AdminCheck = Arc<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

/// The secret that device passwords are derived from.
#[derive(Clone)]
pub struct PlatformKey(Arc<[u8]>);

/// The platform key is too short to be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the platform key has {len} bytes, it needs at least {PLATFORM_KEY_LEN_MIN}")]
pub struct KeyTooShort {
    /// Bytes found.
    pub len: usize,
}

impl PlatformKey {
    /// Wraps a key.
    ///
    /// # Errors
    /// [`KeyTooShort`] below [`PLATFORM_KEY_LEN_MIN`] bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyTooShort> {
        if bytes.len() < PLATFORM_KEY_LEN_MIN {
            return Err(KeyTooShort { len: bytes.len() });
        }
        Ok(Self(Arc::from(bytes)))
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes keys of any length")
        };
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for PlatformKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlatformKey(secret)")
    }
}

/// The MQTT password of a device: base64url, without padding, of HMAC-SHA256(platform key, tenant "/" hardware id).
#[must_use]
pub fn device_password(key: &PlatformKey, tenant: &str, hardware_id: &str) -> String {
    URL_SAFE_NO_PAD.encode(key.mac(&[tenant.as_bytes(), b"/", hardware_id.as_bytes()]))
}

/// Who a connected client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker<'a> {
    /// A device; it speaks for itself only.
    Device {
        /// Its tenant.
        tenant: &'a str,
        /// Its hardware id.
        hardware_id: &'a str,
    },
    /// A service or trusted gateway; it may speak for any device.
    Admin,
    /// Insecure mode: nobody asked.
    Anyone,
}

/// Who a user name stands for: `admin`, `{tenant}/{hardwareId}` or, for the default tenant, `{hardwareId}`. `None` when it is no
/// possible name, or the platform's own device's, which nobody can be. It says nothing about passwords.
#[must_use]
pub fn speaker(user: &str) -> Option<Speaker<'_>> {
    if user == ADMIN_USER {
        return Some(Speaker::Admin);
    }
    let (tenant, hardware_id) = user.split_once('/').unwrap_or((DEFAULT_TENANT, user));
    HardwareId::new(hardware_id).ok().filter(|id| id.as_str() != OPERATOR)?;
    Some(Speaker::Device { tenant, hardware_id })
}

/// Checks logins.
#[derive(Clone)]
pub struct Logins(Mode);

#[derive(Clone)]
enum Mode {
    Insecure,
    Secure(Arc<Secure>),
}

struct Secure {
    key: PlatformKey,
    admin: AdminCheck,
    /// MAC of the last administrator's password that passed, so that the slow check runs once and not for each of a gateway's
    /// several hundred connections. It changes with the platform key and never leaves this process.
    admin_passed: Mutex<Option<[u8; 32]>>,
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_insecure() { "Logins(insecure)" } else { "Logins(secure)" })
    }
}

impl Logins {
    /// Takes any login, or none.
    #[must_use]
    pub fn insecure() -> Self {
        Self(Mode::Insecure)
    }

    /// Devices by the platform key, administrators by `admin`.
    #[must_use]
    pub fn secure(key: PlatformKey, admin: AdminCheck) -> Self {
        Self(Mode::Secure(Arc::new(Secure {
            key,
            admin,
            admin_passed: Mutex::new(None),
        })))
    }

    /// Whether any login is taken.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        matches!(self.0, Mode::Insecure)
    }

    /// Who the user is, whatever its password.
    #[must_use]
    pub fn speaker<'a>(&self, user: Option<&'a str>) -> Option<Speaker<'a>> {
        match self.0 {
            Mode::Insecure => Some(Speaker::Anyone),
            Mode::Secure(_) => speaker(user?),
        }
    }

    /// Who logs in, or `None` when the login is not good. May take as long as a password hash.
    #[must_use]
    pub fn check<'a>(&self, tenants: &HashSet<TenantId>, user: Option<&'a str>, password: Option<&[u8]>) -> Option<Speaker<'a>> {
        let Mode::Secure(secure) = &self.0 else {
            return Some(Speaker::Anyone);
        };
        let (user, password) = (user?, password?);
        let speaker = speaker(user)?;
        let good = match speaker {
            Speaker::Admin => secure.check_admin(password),
            Speaker::Device { tenant, hardware_id } => {
                // Compared even for a tenant that does not exist: the answer takes the same time.
                let expected = device_password(&secure.key, tenant, hardware_id);
                bool::from(expected.as_bytes().ct_eq(password)) & tenants.contains(tenant)
            }
            Speaker::Anyone => false,
        };
        good.then_some(speaker)
    }
}

impl Secure {
    fn check_admin(&self, password: &[u8]) -> bool {
        let mac = self.key.mac(&[b"administrator password ", password]);
        let passed = self.admin_passed.lock().is_some_and(|known| bool::from(known.ct_eq(&mac)));
        if passed {
            return true;
        }
        let good = (self.admin)(ADMIN_USER, password);
        if good {
            *self.admin_passed.lock() = Some(mac);
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key() -> PlatformKey {
        PlatformKey::new(&[7; 32]).unwrap()
    }

    fn tenants() -> HashSet<TenantId> {
        ["default", "north"].iter().map(|t| TenantId::new(t).unwrap()).collect()
    }

    fn logins() -> Logins {
        Logins::secure(key(), Arc::new(|user, password| user == "admin" && password == b"secret"))
    }

    fn check(user: &str, password: &str, expected: Option<Speaker<'_>>) {
        assert_eq!(
            logins().check(&tenants(), Some(user), Some(password.as_bytes())),
            expected,
            "{user} {password}"
        );
    }

    #[test]
    fn a_device_logs_in_with_the_password_of_its_own_name() {
        let m1 = Speaker::Device {
            tenant: "default",
            hardware_id: "m-1",
        };
        let password = device_password(&key(), "default", "m-1");
        check("m-1", &password, Some(m1));
        check("default/m-1", &password, Some(m1));
        check("m-2", &password, None);
        check("north/m-1", &password, None);
        check("m-1", "", None);
        check("m-1", &password[1..], None);
        let north = device_password(&key(), "north", "m-1");
        check(
            "north/m-1",
            &north,
            Some(Speaker::Device {
                tenant: "north",
                hardware_id: "m-1",
            }),
        );
    }

    #[test]
    fn a_device_of_an_unknown_tenant_is_refused_even_with_the_right_password() {
        check("nowhere/m-1", &device_password(&key(), "nowhere", "m-1"), None);
    }

    #[test]
    fn names_that_are_no_ids_are_refused() {
        for user in ["", "/", "a/b/c", "a b", "+", "default/", "default/#", "m\0"] {
            let (tenant, id) = user.split_once('/').unwrap_or(("default", user));
            check(user, &device_password(&key(), tenant, id), None);
        }
    }

    #[test]
    fn nobody_logs_in_as_the_platforms_own_device() {
        for user in [OPERATOR.to_owned(), format!("default/{OPERATOR}"), format!("north/{OPERATOR}")] {
            let (tenant, id) = user.split_once('/').unwrap_or(("default", user.as_str()));
            check(&user, &device_password(&key(), tenant, id), None);
        }
    }

    #[test]
    fn the_device_password_is_stable() {
        // computed with `openssl dgst -sha256 -mac HMAC -macopt hexkey:0707… -binary | basenc --base64url`
        assert_eq!(device_password(&key(), "default", "m-1"), PINNED);
    }
    const PINNED: &str = "V8JfppsupKPu3svWd4-8EYJWVxr6PefgqsOmWQUzatg";

    #[test]
    fn the_administrators_password_is_hashed_once_and_wrong_ones_every_time() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let admin: AdminCheck = Arc::new(move |_, password| {
            count.fetch_add(1, Ordering::Relaxed);
            password == b"secret"
        });
        let logins = Logins::secure(key(), admin);
        let login = |password: &str| logins.check(&tenants(), Some("admin"), Some(password.as_bytes())).is_some();
        assert!(!login("guess") && login("secret") && login("secret") && login("secret") && !login("guess"));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn insecure_mode_takes_anyone() {
        assert_eq!(Logins::insecure().check(&tenants(), None, None), Some(Speaker::Anyone));
    }

    #[test]
    fn a_short_key_is_refused_and_a_key_never_printed() {
        assert_eq!(PlatformKey::new(b"short").unwrap_err(), KeyTooShort { len: 5 });
        assert_eq!(format!("{:?}", key()), "PlatformKey(secret)");
    }
}
