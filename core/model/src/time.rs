//! Event time: microseconds since 1970-01-01T00:00:00Z, read from and written as ISO 8601.

/// A moment, in microseconds since the Unix epoch (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventTime(i64);

impl EventTime {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The start of the window of `width_us` microseconds that this moment falls into, counted from the Unix epoch.
    #[must_use]
    pub const fn floor_to(self, width_us: i64) -> Self {
        Self(self.0.div_euclid(width_us) * width_us)
    }
}
