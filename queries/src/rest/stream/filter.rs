//! Which changes a reader of the stream wants.

use flexmeter_model::{HardwareId, Identifier};

use super::event::{EVENTS, Row};
use crate::rest::guard::Caller;
use crate::rest::parameters;
use crate::rest::problem::{Code, Problem};

/// Most values one filter may list.
const FILTER_VALUES_MAX: usize = 256;

/// Which changes a reader wants.
#[derive(Debug)]
pub(super) struct Filter {
    caller: Caller,
    events: Vec<&'static str>,
    hardware_ids: Vec<HardwareId>,
    identifiers: Vec<Identifier>,
}

impl Filter {
    pub(super) fn new(caller: Caller, pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut filter = Self {
            caller,
            events: Vec::new(),
            hardware_ids: Vec::new(),
            identifiers: Vec::new(),
        };
        for (name, value) in pairs {
            match name.as_str() {
                "event" => filter.events.push(event(value)?),
                "hardwareId" => filter
                    .hardware_ids
                    .push(HardwareId::new(value).map_err(|error| Problem::parameter(name, error))?),
                "identifier" => filter.identifiers.push(parameters::identifier(value)?),
                _ => {
                    let why = format!("query: unknown field `{name}`, expected `event`, `hardwareId` or `identifier`");
                    return Err(Problem::new(Code::InvalidParameter, why));
                }
            }
        }
        let longest = filter.events.len().max(filter.hardware_ids.len()).max(filter.identifiers.len());
        if longest > FILTER_VALUES_MAX {
            let why = format!("a filter may list {FILTER_VALUES_MAX} values; leave it out and select yourself");
            return Err(Problem::new(Code::InvalidParameter, why));
        }
        Ok(filter)
    }

    pub(super) fn matches(&self, row: Row<'_>) -> bool {
        if *row.tenant() != self.caller.tenant || !(self.events.is_empty() || self.events.contains(&row.event())) {
            return false;
        }
        match row {
            Row::Latest(change) => {
                (self.identifiers.is_empty() || self.identifiers.contains(&change.identifier))
                    && (self.hardware_ids.is_empty() || self.hardware_ids.contains(&change.device.hardware_id))
            }
            // who asks for a meter's readings does not ask for the grid, unless he says so
            Row::Grid(_) => !self.events.is_empty() || (self.hardware_ids.is_empty() && self.identifiers.is_empty()),
        }
    }
}

fn event(text: &str) -> Result<&'static str, Problem> {
    let known = EVENTS.into_iter().find(|event| *event == text);
    known.ok_or_else(|| Problem::parameter("event", format!("{text:?} is none of {}", EVENTS.join(", "))))
}
