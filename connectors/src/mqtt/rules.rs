//! Who may publish and subscribe what. Deny is the default.
//!
//! | | publish | subscribe |
//! |---|---|---|
//! | device | its own `events`; the legacy inputs (default tenant) | its own `commands`, literally |
//! | admin | `events` of any device, `commands`, `grid/…`, the legacy inputs | any filter whose first level is `flexmeter` or `SiteWhere`; shared too |
//! | anyone (insecure) | as admin, and every topic outside the two roots | everything but `$SYS` |
//!
//! Nobody publishes for the platform's own device ([`OPERATOR`]): what operators decide comes in through doors that know who decides.

use std::collections::HashSet;

use flexmeter_model::TenantId;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::record::RecordKind;

use super::config::DEFAULT_TENANT;
use super::login::Speaker;
use super::topic::{LEGACY_ROOT, ROOT, Topic};

/// What happens to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It goes into the log.
    Store(Filing<'a>),
    /// It goes to its MQTT subscribers only.
    Forward,
    /// It is refused.
    Refuse(Refusal),
}

/// Where a payload is filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filing<'a> {
    /// What its elements are.
    pub kind: RecordKind,
    /// Tenant.
    pub tenant: TenantId,
    /// The device that logged in, or else the device the topic names; empty when neither is known.
    pub hardware_id: &'a str,
    /// The device itself is publishing: what the payload says about the sender is checked, not believed.
    pub bound: bool,
}

/// Why a publish is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such topic.
    InvalidTopic,
    /// The topic's tenant does not exist.
    UnknownTenant,
    /// The topic is somebody else's.
    Forbidden,
}

impl Refusal {
    /// The word used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidTopic => "invalid_topic",
            Self::UnknownTenant => "unknown_tenant",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Decides about a publish.
#[must_use]
pub fn publish<'a>(tenants: &HashSet<TenantId>, speaker: Speaker<'a>, topic: &'a str) -> Verdict<'a> {
    let refuse = Verdict::Refuse;
    match Topic::parse(topic) {
        Topic::Invalid => refuse(Refusal::InvalidTopic),
        Topic::Free if speaker == Speaker::Anyone => Verdict::Forward,
        Topic::Free => refuse(Refusal::Forbidden),
        Topic::Events { hardware_id: OPERATOR, .. } => refuse(Refusal::Forbidden),
        Topic::Events { tenant, hardware_id } => match speaker {
            Speaker::Device {
                tenant: own,
                hardware_id: id,
            } if (own, id) != (tenant, hardware_id) => refuse(Refusal::Forbidden),
            _ => store(tenants, speaker, RecordKind::Message, tenant, hardware_id),
        },
        Topic::LegacyInput { batch } => {
            let kind = if batch { RecordKind::LegacyBatch } else { RecordKind::Message };
            match speaker {
                Speaker::Device { tenant, .. } if tenant != DEFAULT_TENANT => refuse(Refusal::Forbidden),
                Speaker::Device { hardware_id, .. } => store(tenants, speaker, kind, DEFAULT_TENANT, hardware_id),
                Speaker::Admin | Speaker::Anyone => store(tenants, speaker, kind, DEFAULT_TENANT, ""),
            }
        }
        Topic::Commands { tenant, .. } | Topic::Grid { tenant } => match speaker {
            Speaker::Device { .. } => refuse(Refusal::Forbidden),
            _ if !tenants.contains(tenant) => refuse(Refusal::UnknownTenant),
            _ => Verdict::Forward,
        },
    }
}

fn store<'a>(tenants: &HashSet<TenantId>, speaker: Speaker<'a>, kind: RecordKind, tenant: &str, hardware_id: &'a str) -> Verdict<'a> {
    match tenants.get(tenant) {
        Some(tenant) => {
            let bound = matches!(speaker, Speaker::Device { .. });
            Verdict::Store(Filing {
                kind,
                tenant: tenant.clone(),
                hardware_id,
                bound,
            })
        }
        None => Verdict::Refuse(Refusal::UnknownTenant),
    }
}

/// Whether a subscription is allowed; `shared` when it came as `$share/{group}/{filter}`.
#[must_use]
pub fn may_subscribe(speaker: Speaker<'_>, filter: &str, shared: bool) -> bool {
    let root = filter.split('/').next().unwrap_or_default();
    match speaker {
        // Topic::parse refuses wildcards, so what passes is one literal topic.
        Speaker::Device {
            tenant: own,
            hardware_id: id,
        } => !shared && matches!(Topic::parse(filter), Topic::Commands { tenant, hardware_id } if (tenant, hardware_id) == (own, id)),
        Speaker::Admin => matches!(root, ROOT | LEGACY_ROOT),
        Speaker::Anyone => root != "$SYS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M1: Speaker<'_> = Speaker::Device {
        tenant: "default",
        hardware_id: "m-1",
    };
    const NORTH: Speaker<'_> = Speaker::Device {
        tenant: "north",
        hardware_id: "m-1",
    };

    fn tenants() -> HashSet<TenantId> {
        ["default", "north"].iter().map(|t| TenantId::new(t).unwrap()).collect()
    }

    fn check(speaker: Speaker<'_>, topic: &str, expected: &str) {
        let tenants = tenants();
        let got = match publish(&tenants, speaker, topic) {
            Verdict::Store(f) => format!("{:?} {}/{} bound={}", f.kind, f.tenant, f.hardware_id, f.bound),
            Verdict::Forward => "forward".to_owned(),
            Verdict::Refuse(refusal) => refusal.as_str().to_owned(),
        };
        assert_eq!(got, expected, "{speaker:?} on {topic}");
    }

    #[test]
    fn a_device_publishes_its_own_events_only() {
        check(M1, "flexmeter/default/m-1/events", "Message default/m-1 bound=true");
        check(NORTH, "flexmeter/north/m-1/events", "Message north/m-1 bound=true");
        check(M1, "SiteWhere/input/json", "Message default/m-1 bound=true");
        check(M1, "SiteWhere/input/jsonbatch", "LegacyBatch default/m-1 bound=true");
        check(NORTH, "SiteWhere/input/json", "forbidden");
        check(M1, "flexmeter/default/m-2/events", "forbidden");
        check(M1, "flexmeter/default/m-1x/events", "forbidden");
        check(M1, "flexmeter/default/M-1/events", "forbidden");
        check(M1, "flexmeter/north/m-1/events", "forbidden");
        check(M1, "flexmeter/default/m-1/commands", "forbidden");
        check(M1, "SiteWhere/commands/m-1", "forbidden");
        check(M1, "flexmeter/default/grid/mv1/estimate", "forbidden");
        check(M1, "building/7", "forbidden");
        check(M1, "m-1", "forbidden");
        check(M1, "flexmeter/default/m-1/events/", "invalid_topic");
        check(M1, "$SYS/x", "invalid_topic");
    }

    #[test]
    fn the_platforms_services_publish_for_every_device_of_a_tenant_that_exists() {
        check(Speaker::Admin, "flexmeter/default/m-1/events", "Message default/m-1 bound=false");
        check(Speaker::Admin, "flexmeter/nowhere/m-1/events", "unknown_tenant");
        check(Speaker::Admin, "SiteWhere/input/jsonbatch", "LegacyBatch default/ bound=false");
        check(Speaker::Admin, "flexmeter/default/m-1/commands", "forward");
        check(Speaker::Admin, "flexmeter/nowhere/m-1/commands", "unknown_tenant");
        check(Speaker::Admin, "flexmeter/north/grid/mv1/lv07/topology", "forward");
        check(Speaker::Admin, "building/7", "forbidden");
    }

    #[test]
    fn nobody_publishes_for_the_platforms_own_device() {
        let device = Speaker::Device {
            tenant: "default",
            hardware_id: OPERATOR,
        };
        for speaker in [device, M1, Speaker::Admin, Speaker::Anyone] {
            check(speaker, "flexmeter/default/flexmeter-operator/events", "forbidden");
        }
    }

    #[test]
    fn insecure_mode_frees_the_topics_outside_our_roots() {
        check(Speaker::Anyone, "building/7", "forward");
        check(Speaker::Anyone, "$x/7", "forward");
        check(Speaker::Anyone, "flexmeter/default/m-1/events", "Message default/m-1 bound=false");
        check(Speaker::Anyone, "flexmeter/x", "invalid_topic");
        check(Speaker::Anyone, "$SYS/broker", "invalid_topic");
    }

    fn check_filter(speaker: Speaker<'_>, filter: &str, expected: bool) {
        let (shared, plain) = match filter.strip_prefix("$share/") {
            Some(rest) => (true, rest.split_once('/').unwrap().1),
            None => (false, filter),
        };
        assert_eq!(may_subscribe(speaker, plain, shared), expected, "{speaker:?} to {filter}");
    }

    #[test]
    fn a_device_subscribes_to_its_own_commands_only() {
        check_filter(M1, "flexmeter/default/m-1/commands", true);
        check_filter(M1, "SiteWhere/commands/m-1", true);
        check_filter(NORTH, "SiteWhere/commands/m-1", false);
        for filter in [
            "#",
            "+",
            "+/+/+/+",
            "flexmeter/#",
            "flexmeter/default/#",
            "flexmeter/default/m-1/#",
            "flexmeter/default/m-1/+",
            "flexmeter/default/+/commands",
            "flexmeter/+/m-1/commands",
            "flexmeter/default/m-1/events",
            "flexmeter/default/m-2/commands",
            "flexmeter/north/m-1/commands",
            "flexmeter/default/grid/mv1/estimate",
            "SiteWhere/commands/+",
            "SiteWhere/commands/m-2",
            "$share/g/flexmeter/default/m-1/commands",
            "$share/g/#",
            "$SYS/#",
            "building/7",
            "",
        ] {
            check_filter(M1, filter, false);
        }
    }

    #[test]
    fn the_platforms_services_subscribe_below_our_roots() {
        for filter in [
            "flexmeter/#",
            "flexmeter/+/+/events",
            "flexmeter/default/+/events",
            "SiteWhere/#",
            "$share/g/flexmeter/#",
        ] {
            check_filter(Speaker::Admin, filter, true);
        }
        for filter in ["#", "+/default/m-1/events", "$SYS/#", "building/#", "$share/g/#"] {
            check_filter(Speaker::Admin, filter, false);
        }
    }
}
