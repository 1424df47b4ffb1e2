//! What a topic name means (`docs/mqtt.md`).

use flexmeter_model::HardwareId;

use super::config::DEFAULT_TENANT;

/// First level of every topic of the platform.
pub const ROOT: &str = "flexmeter";
/// First level of the topics of SiteWhere 1.x clients; they belong to the default tenant.
pub const LEGACY_ROOT: &str = "SiteWhere";

/// The meaning of the name of a topic that somebody publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic<'a> {
    /// `flexmeter/{tenant}/{hardwareId}/events`: into the log.
    Events {
        /// Tenant level.
        tenant: &'a str,
        /// Device level.
        hardware_id: &'a str,
    },
    /// `SiteWhere/input/json` or, with `batch`, `SiteWhere/input/jsonbatch`: into the log.
    LegacyInput {
        /// One device with several event bodies.
        batch: bool,
    },
    /// `flexmeter/{tenant}/{hardwareId}/commands` or `SiteWhere/commands/{hardwareId}`.
    Commands {
        /// Tenant level; legacy: the default tenant.
        tenant: &'a str,
        /// Device level.
        hardware_id: &'a str,
    },
    /// `flexmeter/{tenant}/grid/…`: results of the platform.
    Grid {
        /// Tenant level.
        tenant: &'a str,
    },
    /// Outside `flexmeter/` and `SiteWhere/`, and not the broker's own.
    Free,
    /// Not a topic one can publish to: wildcards, control characters, the broker's own `$` topics, a wrong number of levels.
    Invalid,
}

impl<'a> Topic<'a> {
    /// Reads a topic name.
    #[must_use]
    pub fn parse(name: &'a str) -> Self {
        if name.is_empty() || name.contains(['+', '#']) || name.chars().any(char::is_control) {
            return Self::Invalid;
        }
        let mut levels = name.split('/');
        let root = levels.next().unwrap_or_default();
        let rest = (levels.next(), levels.next(), levels.next(), levels.next());
        match (root, rest) {
            (ROOT, (Some(tenant), Some("grid"), Some(_), Some(_))) if is_id(tenant) && !has_dots(name) => Self::Grid { tenant },
            (ROOT, (Some(tenant), Some(hardware_id), Some(leaf), None)) if is_id(tenant) && is_id(hardware_id) => match leaf {
                "events" => Self::Events { tenant, hardware_id },
                "commands" => Self::Commands { tenant, hardware_id },
                _ => Self::Invalid,
            },
            (LEGACY_ROOT, (Some("input"), Some("json"), None, None)) => Self::LegacyInput { batch: false },
            (LEGACY_ROOT, (Some("input"), Some("jsonbatch"), None, None)) => Self::LegacyInput { batch: true },
            (LEGACY_ROOT, (Some("commands"), Some(hardware_id), None, None)) if is_id(hardware_id) => Self::Commands {
                tenant: DEFAULT_TENANT,
                hardware_id,
            },
            (ROOT | LEGACY_ROOT | "$SYS" | "$share", _) => Self::Invalid,
            _ => Self::Free,
        }
    }
}

/// One level that may name a tenant or a device. `.` and `..` are left out because ids also become parts of paths.
fn is_id(level: &str) -> bool {
    !matches!(level, "." | "..") && HardwareId::new(level).is_ok()
}

fn has_dots(name: &str) -> bool {
    name.split('/').any(|level| matches!(level, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Topic<'_>) {
        assert_eq!(Topic::parse(name), expected, "{name:?}");
    }

    #[test]
    fn the_topics_of_the_contract_are_known() {
        check(
            "flexmeter/default/m-1/events",
            Topic::Events {
                tenant: "default",
                hardware_id: "m-1",
            },
        );
        check(
            "flexmeter/north/m-1/commands",
            Topic::Commands {
                tenant: "north",
                hardware_id: "m-1",
            },
        );
        check("flexmeter/north/grid/mv1/lv07/estimate", Topic::Grid { tenant: "north" });
        check("SiteWhere/input/json", Topic::LegacyInput { batch: false });
        check("SiteWhere/input/jsonbatch", Topic::LegacyInput { batch: true });
        check(
            "SiteWhere/commands/m-1",
            Topic::Commands {
                tenant: "default",
                hardware_id: "m-1",
            },
        );
        check("building/7/temperature", Topic::Free);
        check("/", Topic::Free);
    }

    #[test]
    fn everything_else_below_our_roots_is_invalid() {
        for name in [
            "",
            "flexmeter",
            "flexmeter/",
            "flexmeter/default",
            "flexmeter/default/m-1",
            "flexmeter/default/m-1/",
            "flexmeter/default/m-1/event",
            "flexmeter/default/m-1/events/",
            "flexmeter/default/m-1/events/more",
            "flexmeter/default/a/b/events",
            "flexmeter/default//events",
            "flexmeter//m-1/events",
            "flexmeter/default/../events",
            "flexmeter/../m-1/events",
            "flexmeter/./m-1/events",
            "flexmeter/default/grid/../x",
            "flexmeter/default/grid/estimate",
            "flexmeter/default/m 1/events",
            "flexmeter/default/m\0x/events",
            "flexmeter/default/+/events",
            "flexmeter/#",
            "#",
            "+/x",
            "SiteWhere",
            "SiteWhere/input",
            "SiteWhere/input/xml",
            "SiteWhere/input/json/x",
            "SiteWhere/commands",
            "SiteWhere/commands/a/b",
            "$SYS/broker/uptime",
            "$share/group/flexmeter/default/m-1/events",
        ] {
            check(name, Topic::Invalid);
        }
    }
}
