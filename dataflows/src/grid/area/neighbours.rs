//! What an area hears from the ones below, from the device that may have estimated it, and what it says to its neighbours.

use flexmeter_grid::BASE_POWER_VA;
use flexmeter_grid::estimation::BoundaryEstimate;

use super::{ANGLE_STEP_RAD, Ages, BALANCED_RAD, EstimatedArea, Message, UNBALANCE_MAX_RAD};
use crate::grid::mail::{UpMessage, UpPower};
use crate::grid::reading::{self, FLOW_AGE_MAX, Published, Times};

impl<const N: usize, const B: usize> EstimatedArea<N, B> {
    /// Steps by which what an area below has said lags behind.
    pub(super) fn age_of_message(&self, message: &Message<N>, clock: i64) -> u32 {
        reading::age(message.times, clock, self.tick, self.config.step_us)
    }

    /// Tells the stand-ins of the areas below what power flows there, as far as it is not for a boundary estimate to say. An estimator that
    /// was told a boundary which no longer counts is of no use.
    pub(super) fn write_messages(&mut self) {
        for (place, &(child, _)) in self.area.children.iter().enumerate() {
            let Some(message) = self.messages.get(&(child as u32)) else {
                continue;
            };
            let age = self.age_of_message(message, self.clock);
            let is_boundary = message.boundary.is_some() && age == 0 && !self.is_cautious;
            let power = message.power.filter(|_| !is_boundary).map(|power| reading::aged_flow(&power, age));
            if power != self.stood_in[place] {
                self.stood_in[place] = power;
                self.is_read = false;
                let power = power.unwrap_or(reading::NOTHING);
                self.area
                    .network
                    .set_power_reading(self.stand_ins[place], power.p_w, power.q_var, power.p_sigma_w, power.q_sigma_var);
            }
            if message.is_told && !is_boundary {
                self.estimator = None;
            }
            let is_new = message.is_new || is_boundary && !message.is_told;
            if let Some(message) = self.messages.get_mut(&(child as u32)) {
                (message.is_told, message.is_new, message.age) = (is_boundary, is_new, age);
            }
        }
    }

    /// Place of the device whose own estimate is what this area says of its root: the newest one there. It counts as long as nobody in the
    /// area speaks of a later step, and as a flow does without others; then the area's own estimate takes over again.
    pub(super) fn published_now(&self) -> Option<usize> {
        if self.area.entrance.is_none() || !self.has_supply || self.refusal.is_some() {
            return None;
        }
        let root = self.area.nodes[self.area.root];
        let devices = self.grid.meters_of(self.index).iter().zip(&self.said).enumerate();
        let (place, times) = devices
            .filter(|(_, (index, _))| self.grid.is_at_entrance(**index as u32) && self.grid.bundle().meters[**index].node == root)
            .filter_map(|(place, (_, said))| {
                let said = said.as_ref().filter(|said| !said.is_dark)?;
                Some((place, said.published.as_ref()?.times))
            })
            .max_by_key(|(_, times)| times.event)?;
        let behind = Times {
            received: i64::MAX,
            ..times
        };
        let is_overtaken = reading::age(behind, self.clock, self.tick, self.config.step_us) > 0;
        (!is_overtaken && self.ages[place].published <= FLOW_AGE_MAX).then_some(place)
    }

    pub(super) fn published_boundary(&self) -> Option<&Published> {
        self.said.get(self.published?)?.as_ref()?.published.as_deref()
    }

    /// Whether nobody but the device that has estimated this area says anything of it.
    pub(super) fn is_known_from_outside_only(&self) -> bool {
        let is_silent = |ages: &Ages| ages.voltage.min(ages.power) > FLOW_AGE_MAX;
        self.messages.is_empty()
            && self
                .said
                .iter()
                .zip(&self.ages)
                .all(|(said, ages)| said.is_none() || is_silent(ages))
    }

    /// What to say to the area above, and of when it is if a device has made it. What a device has made replaces what this area would say
    /// itself: both are made of the same readings.
    pub(super) fn message_up(&mut self) -> (Option<UpMessage>, Option<Times>) {
        let root = &self.area.network.nodes()[self.area.root];
        let published = self.published_boundary().map(|published| {
            let boundary = BoundaryEstimate::<N>::from_published(&published.boundary, root.u_rated_v);
            (Some(UpMessage::Boundary(boundary.to_numbers())), Some(published.times))
        });
        published.unwrap_or_else(|| (self.boundary(), None))
    }

    /// What the area's own estimate says of its root.
    pub(super) fn boundary(&mut self) -> Option<UpMessage> {
        self.area.entrance?;
        let (estimator, uncertainty) = (self.estimator.as_ref()?, self.uncertainty.as_ref()?);
        if !estimator.topology().is_energised(self.area.root) {
            return None;
        }
        match estimator.boundary(&self.area.network, uncertainty, self.area.root) {
            // what was assumed of a voltage cannot be taken back to the last digit: better to say less
            Ok(boundary) if self.assumes_voltage == [false; 3] && !self.is_cautious => Some(UpMessage::Boundary(boundary.to_numbers())),
            Ok(boundary) => Some(UpMessage::Power(power_of(&boundary))),
            Err(error) => {
                self.problem = Some(error.to_string());
                None
            }
        }
    }

    /// What to say to the areas below: angles that have moved.
    pub(super) fn angles_to_tell(&mut self) -> Vec<(u32, Vec<f64>)> {
        let mut told = Vec::new();
        let Some(estimator) = self.estimator.as_ref().filter(|_| N > 1) else {
            return told;
        };
        for &(child, root) in &self.area.children {
            let Some(u) = estimator.voltage_pu(root) else { continue };
            let angles: [f64; N] = std::array::from_fn(|k| {
                let angle = (u[k] * u[0].conj()).arg();
                let balanced = [0.0, -BALANCED_RAD, BALANCED_RAD][k];
                // no grid turns its phases that far: then the area below knows better by itself
                let told = if (angle - balanced).abs() < UNBALANCE_MAX_RAD {
                    angle
                } else {
                    balanced
                };
                (told / ANGLE_STEP_RAD).round() * ANGLE_STEP_RAD
            });
            if self.sent_down.insert(child as u32, angles) != Some(angles) {
                told.push((child as u32, angles.to_vec()));
            }
        }
        told
    }
}

/// What a boundary estimate says of the power alone.
pub(super) fn power_of<const N: usize>(boundary: &BoundaryEstimate<N>) -> UpPower {
    // the symmetric estimate counts all phases, each takes a third of it
    let (phase, base_va) = (|k: usize| if N == 1 { 0 } else { k }, BASE_POWER_VA / 3.0);
    let sigma = |row: usize| boundary.covariance[row][row].max(0.0).sqrt() * base_va;
    UpPower {
        p_w: std::array::from_fn(|k| boundary.power_pu[phase(k)].re * base_va),
        q_var: std::array::from_fn(|k| boundary.power_pu[phase(k)].im * base_va),
        p_sigma_w: std::array::from_fn(|k| sigma(2 * N + phase(k))),
        q_sigma_var: std::array::from_fn(|k| sigma(3 * N + phase(k))),
    }
}
