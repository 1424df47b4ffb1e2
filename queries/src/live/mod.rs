//! The live views: what every device said last, its load profile of the recent past and the state of the grid, in memory, all at one
//! epoch.
//!
//! One writer applies [`ClosedEpoch`](flexmeter_model::outcome::ClosedEpoch)s; any number of readers take a [`LiveSnapshot`], which
//! never changes. Rows sit in copy-on-write chunks: a snapshot costs one pointer a chunk, and the writer copies only what it touches
//! while a snapshot is still held.
//! `src` shows an epoch to the history's tail first and applies it here after that, so a query that takes its snapshot before its
//! history views never misses a row that has just left memory.

mod grid;
mod rows;
mod store;
mod subscription;

pub use grid::{Keyed, LiveGrid};
pub use rows::{Activity, DeviceRow, LatestReading, ProfileWindow};
pub use store::{LiveSnapshot, LiveStore, TenantTotals};
pub use subscription::{
    CHANGES_PER_EPOCH_MAX, EstimateChange, GridChange, LiveChanges, LiveEvent, LiveSubscription, SUBSCRIPTION_EPOCHS_MAX,
};

#[cfg(test)]
pub(crate) mod test_rows;
