//! Reliability indices of a feeder.
//!
//! # Source
//! IEEE Std 1366-2012, section 3: SAIFI, SAIDI, CAIDI, MAIFI. An interruption is sustained if it lasts more than five minutes; shorter ones are
//! momentary and count in MAIFI only.

use serde::{Deserialize, Serialize};

use super::record::Interruption;
use super::{Micros, SECOND_US};

/// An interruption that lasts longer than this is sustained.
pub const SUSTAINED_US: Micros = 300 * SECOND_US;

/// What interruptions add up to; exact integers, so that what is taken back leaves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tally {
    /// Customers interrupted, each as often as it was, for more than five minutes.
    pub n_sustained: i64,
    /// Customer-seconds of these.
    pub customer_s: i64,
    /// Customers interrupted for at most five minutes, each as often as it was.
    pub n_momentary: i64,
}

/// The indices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Indices {
    /// Minutes without supply per customer served.
    pub saidi_min: f64,
    /// Sustained interruptions per customer served.
    pub saifi: f64,
    /// Minutes per sustained interruption; `None` without any.
    pub caidi_min: Option<f64>,
    /// Momentary interruptions per customer served.
    pub maifi: f64,
}

impl Tally {
    /// What one interruption counts. Durations are whole seconds, rounded down; one that ends before it starts lasts none.
    pub fn of(interruption: &Interruption) -> Self {
        let duration_us = interruption.end_us.saturating_sub(interruption.start_us).max(0);
        let n = i64::from(interruption.n_customers);
        match duration_us > SUSTAINED_US {
            true => Self {
                n_sustained: n,
                customer_s: n.saturating_mul(duration_us / SECOND_US),
                n_momentary: 0,
            },
            false => Self {
                n_momentary: n,
                ..Self::default()
            },
        }
    }

    /// The indices of as many customers served; `None` if there are none.
    pub fn indices(&self, n_served: u64) -> Option<Indices> {
        let per_customer = |count: i64| count as f64 / n_served as f64;
        (n_served > 0).then(|| Indices {
            saidi_min: per_customer(self.customer_s) / 60.0,
            saifi: per_customer(self.n_sustained),
            caidi_min: (self.n_sustained > 0).then(|| self.customer_s as f64 / self.n_sustained as f64 / 60.0),
            maifi: per_customer(self.n_momentary),
        })
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.n_sustained += other.n_sustained;
        self.customer_s += other.customer_s;
        self.n_momentary += other.n_momentary;
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::OutageId;
    use super::super::sections::Device;
    use super::*;

    fn interruption(n_customers: u32, duration_s: i64) -> Interruption {
        let outage = OutageId {
            device: Device::Branch(1),
            opened_at_us: 0,
        };
        Interruption {
            outage,
            feeder: Some(1),
            point: None,
            n_customers,
            start_us: 1_000,
            end_us: 1_000 + duration_s * SECOND_US,
        }
    }

    #[test]
    fn the_worked_example_of_three_interruptions_comes_out() {
        // by hand: 2,000 served; 500 for 30 min, 200 for 2 h, 800 for 4 min
        let mut tally = Tally::default();
        for (n, s) in [(500, 1_800), (200, 7_200), (800, 240)] {
            tally += Tally::of(&interruption(n, s));
        }
        let indices = tally.indices(2_000).unwrap();
        assert_eq!((tally.n_sustained, tally.customer_s, tally.n_momentary), (700, 2_340_000, 800));
        assert!((indices.saifi - 0.35).abs() < 1e-12 && (indices.saidi_min - 19.5).abs() < 1e-12);
        assert!((indices.caidi_min.unwrap() - 55.714_285_714).abs() < 1e-8 && (indices.maifi - 0.4).abs() < 1e-12);
    }

    #[test]
    fn five_minutes_are_momentary_and_a_second_more_is_not() {
        assert_eq!(Tally::of(&interruption(3, 300)).n_momentary, 3);
        assert_eq!(Tally::of(&interruption(3, 301)).customer_s, 903);
        assert_eq!(Tally::of(&interruption(3, -5)).n_momentary, 3);
        assert!(Tally::default().indices(0).is_none());
        assert!(Tally::default().indices(5).unwrap().caidi_min.is_none());
    }
}
