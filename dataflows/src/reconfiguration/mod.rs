//! Reconfiguration on the street: estimates say what another position of the switches would save; what is worth it becomes a proposal, and
//! an accepted proposal commands its switches one after the other. Located faults are kept here, too.
//!
//! Everything of a tenant is in its *home partition*, that of the operators' own device, so that decisions arrive where the state is.
//! [`note`] is what travels there, [`plans`] the life of a tenant's proposals without any dataflow, [`evaluation`] one look for something
//! better, [`operator`] the wiring. [`mod@located`] follows faults. `docs/algorithms/reconfiguration.md` has it all in one.

mod case;
pub(crate) mod clock;
mod evaluation;
pub(crate) mod located;
pub(crate) mod note;
pub(crate) mod operator;
mod plans;
mod settings;

#[cfg(test)]
mod tests;

pub(crate) use located::{LocatedFaults, located};
pub(crate) use note::{areas_to_notes, notes};
pub(crate) use operator::reconfiguration;
pub(crate) use plans::Reconfigurations;
pub use settings::ReconfigurationConfig;

use flexmeter_model::TenantId;
use flexmeter_model::operator::OPERATOR;
use flexmeter_model::record::partition_of;

/// How long what has come to an end stays in a view, in log time.
const KEPT_US: i64 = flexmeter_model::outcome::OPERATIONS_KEPT_US;
/// Most ended proposals, and most faults, of one tenant in a view; the oldest leave above it.
const KEPT_MAX: usize = 1_000;

/// The partition that holds a tenant's state.
pub(crate) fn home_of(tenant: &TenantId, n_partitions: u32) -> u32 {
    partition_of(tenant.as_str(), OPERATOR, n_partitions)
}
