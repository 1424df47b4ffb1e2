//! The demo's grid in operation: households and factories load it, meters read what comes of that, a fuse blows, switches obey.

use anyhow::Context as _;
use flexmeter_connectors::simulator::{District, Electrical, Instrument, SimulatedMessage};
use flexmeter_grid::bundle::Bundle;
use flexmeter_grid::simulation::SimulatedGrid;
use flexmeter_model::EventTime;
use flexmeter_model::message::{DeviceMessage, DeviceRequest};
use flexmeter_model::outcome::AlertLevel;

use super::plan::Plan;

/// What a factory takes on the average, W, and its share of reactive power.
const FACTORY_W: f64 = 380e3;
const FACTORY_TAN_PHI: f64 = 0.33;
/// Share of meters whose last gasp arrives.
const GASPS_HEARD: f64 = 0.8;

/// A grid, and which of its meters are households.
pub(super) struct DemoGrid {
    simulated: SimulatedGrid,
    fuse: i64,
    n_households: usize,
    n_factories: usize,
    /// Households without supply since the fuse has blown.
    dark: Vec<usize>,
}

impl DemoGrid {
    pub(super) fn new(plan: &Plan, n_households: usize) -> anyhow::Result<Self> {
        let [network, areas, meters, switches] = plan.files().map(|(_, text)| text);
        let bundle = Bundle::from_texts(&network, &areas, &meters, &switches).context("the demo's grid")?;
        Ok(Self {
            simulated: SimulatedGrid::new(bundle),
            fuse: plan.fuse,
            n_households,
            n_factories: plan.n_factories,
            dark: Vec::new(),
        })
    }

    pub(super) fn simulated(&self) -> &SimulatedGrid {
        &self.simulated
    }

    /// The branch of the fuse that blows, and how many customers are behind it.
    pub(super) fn fuse(&self) -> i64 {
        self.fuse
    }

    /// Everybody lives on by a step; the messages of all meters with supply.
    pub(super) fn measure(&mut self, district: &mut District, at: EventTime, step_s: f64) -> anyhow::Result<Vec<SimulatedMessage>> {
        district.advance(at, step_s);
        for (load, [p_w, q_var]) in district.loads().enumerate() {
            self.simulated.set_load(load, p_w, q_var);
        }
        let hour = at.micros().rem_euclid(86_400_000_000) as f64 / 3_600e6;
        for factory in 0..self.n_factories {
            // shifts overlap, so that the sum changes slowly
            let share = 1.0 + 0.2 * ((hour / 24.0 + factory as f64 / 7.0) * std::f64::consts::TAU).sin();
            let p_w = FACTORY_W * share / 3.0;
            self.simulated
                .set_load(self.n_households + factory, [p_w; 3], [p_w * FACTORY_TAN_PHI; 3]);
        }
        self.simulated.solve().context("the demo's grid")?;
        let simulated = &self.simulated;
        let mut messages = district.measure(at, |household| simulated.reading(household).map(|reading| reading.u_v));
        for (index, meter) in simulated.bundle().meters.iter().enumerate().skip(self.n_households) {
            let Some(truth) = simulated.reading(index) else { continue };
            let truth = Electrical {
                voltage_v: truth.u_v,
                p_w: truth.p_w,
                q_var: truth.q_var,
            };
            let instrument = Instrument {
                accuracy_v: meter.accuracy_v,
                accuracy_p: meter.accuracy_p,
            };
            messages.push(district.read(&meter.hardware_id, at, &instrument, &meter.phases, &truth));
        }
        Ok(messages)
    }

    /// The fuse blows: last gasps of the households behind it, as far as they arrive, and one of a household that has supply.
    pub(super) fn blow_fuse(&mut self, district: &mut District, at: EventTime) -> anyhow::Result<Vec<SimulatedMessage>> {
        self.simulated.operate(self.fuse, false);
        self.simulated.solve().context("the demo's grid")?;
        let (dark, lit): (Vec<usize>, Vec<usize>) =
            (0..self.n_households).partition(|&household| self.simulated.reading(household).is_none());
        let mut gasping: Vec<usize> = dark.iter().copied().filter(|_| district.happens(GASPS_HEARD)).collect();
        gasping.extend(lit.last());
        self.dark = dark;
        self.alerts(&gasping, "power.lastgasp", AlertLevel::Critical, at)
    }

    /// The fuse is replaced: everybody behind it says so.
    pub(super) fn replace_fuse(&mut self, at: EventTime) -> anyhow::Result<Vec<SimulatedMessage>> {
        self.simulated.operate(self.fuse, true);
        let restored = self.dark.clone();
        self.alerts(&restored, "power.restored", AlertLevel::Info, at)
    }

    /// Households that were behind the fuse.
    pub(super) fn n_dark(&self) -> usize {
        self.dark.len()
    }

    /// A switch obeys: its acknowledgement, and its position. `None` for a device that is no switch.
    pub(super) fn operate(
        &mut self,
        hardware_id: &str,
        closed: bool,
        command_id: &str,
        at: EventTime,
    ) -> anyhow::Result<Vec<SimulatedMessage>> {
        let bundle = self.simulated.bundle();
        let switch = bundle.switches.iter().find(|switch| switch.hardware_id == hardware_id);
        let branch = switch.and_then(|switch| bundle.network.branches().get(switch.branch));
        let Some(branch) = branch.map(|branch| branch.id) else {
            let message = DeviceMessage::acknowledge(hardware_id, Some(at), command_id, "refused: no such switch");
            return Ok(vec![SimulatedMessage::of_message(&message, at)?]);
        };
        self.simulated.operate(branch, closed);
        let position = if closed { "closed" } else { "open" };
        let acknowledgement = DeviceMessage::acknowledge(hardware_id, Some(at), command_id, "done");
        let mut alert = DeviceMessage::alert(hardware_id, Some(at), "switch.position", AlertLevel::Info);
        if let DeviceRequest::Alert(alert) = &mut alert.request {
            alert.metadata = vec![("position".to_owned(), position.to_owned())];
        }
        Ok(vec![
            SimulatedMessage::of_message(&acknowledgement, at)?,
            SimulatedMessage::of_message(&alert, at)?,
        ])
    }

    fn alerts(&self, households: &[usize], kind: &str, level: AlertLevel, at: EventTime) -> anyhow::Result<Vec<SimulatedMessage>> {
        let meters = &self.simulated.bundle().meters;
        let alert = |&household: &usize| {
            let hardware_id = meters.get(household).map_or("", |meter| &meter.hardware_id);
            Ok(SimulatedMessage::of_message(
                &DeviceMessage::alert(hardware_id, Some(at), kind, level),
                at,
            )?)
        };
        households.iter().map(alert).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use flexmeter_connectors::simulator::DistrictConfig;
    use flexmeter_grid::reconfiguration::{Options, reconfigure};

    fn demo(n_meters: u32) -> (District, DemoGrid) {
        let district = District::new(DistrictConfig {
            n_meters,
            ..DistrictConfig::default()
        });
        let plan = Plan::new(district.meters());
        let grid = DemoGrid::new(&plan, n_meters as usize).unwrap();
        (district, grid)
    }

    #[test]
    fn every_meter_with_supply_reads_plausible_voltages() {
        for n_meters in [1, 49, 300, 700] {
            let (mut district, mut grid) = demo(n_meters);
            let at = EventTime::from_micros(1_760_000_000_000_000);
            let messages = grid.measure(&mut district, at, 60.0).unwrap();
            assert!(messages.len() > n_meters as usize, "{n_meters}");
            for message in &messages {
                for (identifier, value) in &message.readings {
                    let per_unit = match (identifier.name().contains("voltage"), *value > 1_000.0) {
                        (true, true) => value * 3f64.sqrt() / 10_000.0,
                        (true, false) => value * 3f64.sqrt() / 400.0,
                        _ => 1.0,
                    };
                    assert!((0.9..1.1).contains(&per_unit), "{} {value}", message.hardware_id);
                }
            }
        }
    }

    #[test]
    fn the_fuse_takes_a_street_and_one_household_lies() {
        let (mut district, mut grid) = demo(300);
        let at = EventTime::from_micros(1_760_000_000_000_000);
        let before = grid.measure(&mut district, at, 60.0).unwrap().len();
        let gasps = grid.blow_fuse(&mut district, at).unwrap();
        assert_eq!(grid.n_dark(), 30);
        assert!(gasps.len() > 15 && gasps.len() < 31, "{}", gasps.len());
        let during = grid.measure(&mut district, at, 2.0).unwrap().len();
        assert!(during + 25 < before, "{before} {during}");
        assert_eq!(grid.replace_fuse(at).unwrap().len(), 30);
    }

    #[test]
    fn the_open_switch_is_in_the_wrong_place() {
        let (mut district, mut grid) = demo(300);
        grid.measure(&mut district, EventTime::from_micros(1_760_000_000_000_000), 60.0)
            .unwrap();
        let bundle = grid.simulated().bundle();
        let switches: Vec<usize> = bundle.switches.iter().map(|switch| switch.branch).collect();
        let found = reconfigure(grid.simulated().network(), &switches, &Options::default()).unwrap();
        assert!(found.saving_w() > 5e3 && !found.sequence.is_empty(), "{} W", found.saving_w());
    }
}
