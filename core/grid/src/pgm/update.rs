//! Update datasets: changes of status, set points and readings.

use super::dataset::{Dataset, DatasetKind};
use super::input::{Row, TAP_TOO_FAR, U_REF_MAX_PU};
use crate::error::GridError;
use crate::network::{Network, Reference};

/// What an update has touched, so that whoever solved before knows what to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Touched {
    /// A branch or an appliance was switched.
    pub topology: bool,
    /// A tap, a shunt or a source changed.
    pub parameters: bool,
    /// A set point of a load or generator changed.
    pub set_points: bool,
    /// A reading or its standard deviation changed.
    pub readings: bool,
}

impl Network {
    /// Applies one scenario of a power-grid-model update dataset.
    ///
    /// # Errors
    /// [`GridError::UnknownReference`] for an id that is not of the component type, and what the values themselves make wrong. After
    /// an error the network may hold a part of the scenario.
    pub fn update(&mut self, updates: &Dataset, scenario: usize) -> Result<Touched, GridError> {
        if updates.kind != DatasetKind::Update {
            return Err(GridError::DatasetType {
                found: updates.kind.name().to_owned(),
                expected: DatasetKind::Update.name(),
            });
        }
        let mut touched = Touched::default();
        for table in updates.scenario(scenario)? {
            for cells in table.rows() {
                let row = Row::new(table, cells)?;
                let reference = self.references.get(&row.id).copied();
                let reference = reference.filter(|&reference| self.component(reference) == table.component);
                match reference {
                    Some(reference) => self.change(reference, &row, &mut touched)?,
                    None => {
                        return Err(GridError::UnknownReference {
                            component: table.component,
                            id: row.id,
                            attribute: "id",
                            target: row.id,
                            expected: table.component,
                        });
                    }
                }
            }
        }
        Ok(touched)
    }

    fn change(&mut self, reference: Reference, row: &Row<'_>, touched: &mut Touched) -> Result<(), GridError> {
        match reference {
            Reference::Node(_) => {}
            Reference::Branch(index) => {
                let branch = &mut self.branches[index];
                touched.topology |= set(&mut branch.from_closed, row.status("from_status")?);
                touched.topology |= set(&mut branch.to_closed, row.status("to_status")?);
                if let crate::network::BranchKind::Transformer(transformer) = &mut branch.kind
                    && let Some(tap_pos) = row.finite("tap_pos")?
                {
                    if tap_pos.fract() != 0.0 || tap_pos.abs() > 1e4 {
                        return Err(row.bad("tap_pos", tap_pos, "give a small whole number"));
                    }
                    let before = transformer.tap_pos;
                    touched.parameters |= set(&mut transformer.tap_pos, Some(tap_pos as i16));
                    if !transformer.tap_is_possible() {
                        transformer.tap_pos = before;
                        return Err(row.bad("tap_pos", tap_pos, TAP_TOO_FAR));
                    }
                }
            }
            Reference::Source(index) => {
                let source = &mut self.sources[index];
                touched.topology |= set(&mut source.connected, row.status("status")?);
                let u_ref = row.finite("u_ref")?;
                if let Some(u) = u_ref.filter(|&u| !(u > 0.0 && u < U_REF_MAX_PU)) {
                    return Err(row.bad("u_ref", u, "give a voltage per unit, near 1"));
                }
                touched.parameters |= set(&mut source.u_ref_pu, u_ref);
                touched.parameters |= set(&mut source.u_ref_angle_rad, row.finite("u_ref_angle")?);
            }
            Reference::Appliance(index) => {
                let appliance = &mut self.appliances[index];
                let symmetric = appliance.p_w.values().len() == 1;
                touched.set_points = true;
                touched.topology |= set(&mut appliance.connected, row.status("status")?);
                appliance.p_w.update(row.per_phase("p_specified", symmetric)?);
                appliance.q_var.update(row.per_phase("q_specified", symmetric)?);
            }
            Reference::Shunt(index) => {
                let shunt = &mut self.shunts[index];
                touched.parameters = true;
                set(&mut shunt.connected, row.status("status")?);
                set(&mut shunt.y1_s[0], row.finite("g1")?);
                set(&mut shunt.y1_s[1], row.finite("b1")?);
                let (g0, b0) = (row.finite("g0")?, row.finite("b0")?);
                if g0.is_some() || b0.is_some() {
                    let [old_g0, old_b0] = shunt.y0_s.unwrap_or_default();
                    shunt.y0_s = Some([g0.unwrap_or(old_g0), b0.unwrap_or(old_b0)]);
                }
            }
            Reference::VoltageSensor(index) => {
                let sensor = &mut self.voltage_sensors[index];
                let symmetric = sensor.u_v.values().len() == 1;
                touched.readings = true;
                set(&mut sensor.u_sigma_v, row.sigma("u_sigma")?);
                sensor.u_v.update(row.voltages("u_measured", symmetric)?);
                sensor.angle_rad.update(row.per_phase("u_angle_measured", symmetric)?);
            }
            Reference::PowerSensor(index) => {
                let sensor = &mut self.power_sensors[index];
                let symmetric = sensor.p_w.values().len() == 1;
                touched.readings = true;
                set(&mut sensor.sigma_va, row.sigma("power_sigma")?);
                sensor.p_sigma_w.update(row.sigma_per_phase("p_sigma", symmetric)?);
                sensor.q_sigma_var.update(row.sigma_per_phase("q_sigma", symmetric)?);
                sensor.p_w.update(row.per_phase("p_measured", symmetric)?);
                sensor.q_var.update(row.per_phase("q_measured", symmetric)?);
            }
            Reference::CurrentSensor(index) => {
                let sensor = &mut self.current_sensors[index];
                let symmetric = sensor.i_a.values().len() == 1;
                touched.readings = true;
                set(&mut sensor.i_sigma_a, row.sigma("i_sigma")?);
                set(&mut sensor.angle_sigma_rad, row.sigma("i_angle_sigma")?);
                sensor.i_a.update(row.per_phase("i_measured", symmetric)?);
                sensor.angle_rad.update(row.per_phase("i_angle_measured", symmetric)?);
            }
        }
        Ok(())
    }
}

/// Takes a new value over; whether that changed anything.
fn set<T: PartialEq>(place: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) if value != *place => {
            *place = value;
            true
        }
        _ => false,
    }
}
