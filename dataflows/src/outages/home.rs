//! What the home partition of a tenant remembers of its grid: who its metering points are, how its switches stand, and its monitor.

use std::collections::{BTreeMap, HashMap};

use flexmeter_grid::outage::{MonitorSettings, MonitorState, OutageMonitor, PointId};
use flexmeter_model::TenantId;

use super::watched::Watched;
use crate::checkpoint::{CheckpointError, Reader, Writer};

/// Settings of every monitor on the street. How often meters report is that of the estimation; a meter that has not shown that it reports
/// as often is never missed.
pub(super) fn settings() -> MonitorSettings {
    MonitorSettings {
        n_regular: 2,
        retention_us: flexmeter_model::outcome::OPERATIONS_KEPT_US,
        ..MonitorSettings::default()
    }
}

/// The tenants whose home one partition is.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    pub(super) tenants: BTreeMap<TenantId, Home>,
}

/// Of one tenant. A point keeps its number, whatever becomes of the grid.
#[derive(Debug)]
pub(super) struct Home {
    /// Hardware ids of its metering points, by number.
    pub(super) names: Vec<String>,
    numbers: HashMap<String, PointId>,
    /// By hardware id: whether a switch is closed, and the event time of its newest report.
    pub(super) positions: BTreeMap<String, (bool, i64)>,
    /// Log time at the end of the last epoch; the smallest number before the first.
    pub(super) log_us: i64,
    pub(super) watched: Option<Watched>,
}

impl Default for Home {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            numbers: HashMap::new(),
            positions: BTreeMap::new(),
            log_us: i64::MIN,
            watched: None,
        }
    }
}

impl Home {
    /// Number of a metering point; it gets one when it has none.
    pub(super) fn number(&mut self, hardware_id: &str) -> PointId {
        if let Some(&number) = self.numbers.get(hardware_id) {
            return number;
        }
        let number = self.names.len() as PointId;
        self.names.push(hardware_id.to_owned());
        self.numbers.insert(hardware_id.to_owned(), number);
        number
    }
}

impl Homes {
    /// Whether there is nothing to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.len(self.tenants.len());
        for (tenant, home) in &self.tenants {
            out.text(tenant.as_str());
            out.len(home.names.len());
            home.names.iter().for_each(|name| out.text(name));
            out.len(home.positions.len());
            for (name, (is_closed, event_us)) in &home.positions {
                out.text(name);
                out.u8(u8::from(*is_closed));
                out.i64(*event_us);
            }
            out.i64(home.log_us);
            // of a state there is nothing that this format cannot hold
            let state = home
                .watched
                .as_ref()
                .and_then(|watched| postcard::to_allocvec(&watched.monitor.state()).ok());
            out.raw(&state.unwrap_or_default());
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let wrong = |what| CheckpointError::Value { what };
        let mut this = Self::default();
        for _ in 0..input.len(12)? {
            let tenant = TenantId::new(input.text()?).map_err(|_| wrong("tenant of a grid"))?;
            let mut home = Home::default();
            for number in 0..input.len(1)? {
                let name = input.text()?;
                if home.number(name) as usize != number {
                    return Err(wrong("metering point"));
                }
            }
            for _ in 0..input.len(10)? {
                let name = input.text()?.to_owned();
                let (is_closed, event_us) = (input.u8()? != 0, input.i64()?);
                home.positions.insert(name, (is_closed, event_us));
            }
            home.log_us = input.i64()?;
            let state = input.raw()?;
            if !state.is_empty() {
                let (state, rest): (MonitorState, _) = postcard::take_from_bytes(state).map_err(|_| wrong("state of the outages"))?;
                let monitor = OutageMonitor::restore(settings(), state).map_err(|_| wrong("state of the outages"))?;
                if !rest.is_empty() {
                    return Err(wrong("state of the outages"));
                }
                home.watched = Some(Watched::new(monitor));
            }
            this.tenants.insert(tenant, home);
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexmeter_grid::outage::{Fact, GridBranch, MeteringPoint, SupplyMap};

    /// A tenant with three gasps and an open outage.
    fn homes() -> Homes {
        let branches: Vec<GridBranch> = (1..4)
            .map(|to| GridBranch {
                branch: 100 + to,
                from: to - 1,
                to,
                is_closed: true,
            })
            .collect();
        let mut home = Home::default();
        let mut map = SupplyMap::trace(&branches, &[0]);
        map.points = (0..4)
            .map(|index| MeteringPoint {
                point: home.number(&format!("m-{index}")),
                node: 3,
                n_customers: 1,
                sends_gasps: true,
                reading_interval_us: Some(60_000_000),
            })
            .collect();
        let mut monitor = OutageMonitor::new(settings()).unwrap();
        monitor.set_supply(&map, 0).unwrap();
        (0..3).for_each(|point| monitor.apply(point, Fact::Gasp(1_000_000), 2_000_000, 1));
        monitor.advance(4_000_000);
        home.log_us = 4_000_000;
        home.positions.insert("sw-1".to_owned(), (false, 7));
        assert_eq!(monitor.take_changes().len(), 1);
        home.watched = Some(Watched::new(monitor));
        Homes {
            tenants: BTreeMap::from([(TenantId::new("t").unwrap(), home)]),
        }
    }

    #[test]
    fn what_is_written_is_read_and_told_again() {
        let mut out = Writer::default();
        homes().write(&mut out);
        let bytes = out.into_bytes();
        let mut read = Homes::read(&mut Reader::new(&bytes)).unwrap();
        let mut again = Writer::default();
        read.write(&mut again);
        assert_eq!(again.into_bytes(), bytes);
        let home = read.tenants.values_mut().next().unwrap();
        assert_eq!((home.number("m-2"), home.number("new")), (2, 4));
        assert_eq!(home.watched.as_mut().unwrap().monitor.take_changes().len(), 1);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_another_state_and_never_a_panic() {
        let mut out = Writer::default();
        homes().write(&mut out);
        let bytes = out.into_bytes();
        for at in 0..bytes.len() {
            assert!(Homes::read(&mut Reader::new(&bytes[..at])).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = Homes::read(&mut Reader::new(&damaged));
            }
        }
    }
}
