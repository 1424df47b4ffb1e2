//! One cell of the load profile: what is known of one quantity of one device in one window.

use flexmeter_model::outcome::ProfileCell;
use flexmeter_model::{EventTime, Identifier};

use crate::checkpoint::{CheckpointError, Reader, Writer};
use crate::config::WINDOW_US;
use crate::latest::read_identifier;

/// Sums are kept in units of 2⁻⁶⁰. Adding integers is exact, so the mean does not depend on the order in which readings arrive;
/// values up to 10¹² leave room for 10⁸ readings a window.
const FIXED_POINT: f64 = (1u64 << 60) as f64;

/// 64 bytes: one cache line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    generation: u64,
    sum: i128,
    min: f64,
    max: f64,
    last: f64,
    /// Event time of `last`, in microseconds after the window's start.
    last_after_us: u32,
    n: u32,
    /// Position of the cell's change in the current batch's list, plus one; 0 when it has none.
    pub(crate) change: u32,
    pub(crate) identifier: Identifier,
    /// Changed since it was last flushed to the lake.
    pub(crate) dirty: bool,
}

const _: () = assert!(size_of::<Cell>() == 64 && WINDOW_US <= u32::MAX as i64);

impl Cell {
    /// A cell opened by the record at `generation`.
    pub(crate) fn open(identifier: Identifier, generation: u64, value: f64, after_us: u32) -> Self {
        Self {
            generation,
            sum: fixed(value),
            min: value,
            max: value,
            last: value,
            last_after_us: after_us,
            n: 1,
            change: 0,
            identifier,
            dirty: true,
        }
    }

    /// Takes a reading in. Readings come in log order, so of equal event times the later one wins.
    pub(crate) fn add(&mut self, value: f64, after_us: u32) {
        self.sum = self.sum.saturating_add(fixed(value));
        self.n = self.n.saturating_add(1);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if after_us >= self.last_after_us {
            self.last = value;
            self.last_after_us = after_us;
        }
        self.dirty = true;
    }

    /// The cell as a row.
    pub(crate) fn row(&self, window_start: i64) -> ProfileCell {
        ProfileCell {
            generation: self.generation,
            n: u64::from(self.n),
            mean: self.sum as f64 / FIXED_POINT / f64::from(self.n),
            min: self.min,
            max: self.max,
            last: self.last,
            last_time: EventTime::from_micros(window_start + i64::from(self.last_after_us)),
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.u8(self.identifier.index() as u8);
        out.u8(u8::from(self.dirty));
        out.varint(self.generation);
        out.i128(self.sum);
        out.f64(self.min);
        out.f64(self.max);
        out.f64(self.last);
        out.u32(self.last_after_us);
        out.varint(u64::from(self.n));
    }

    /// Fewest bytes a cell is written in.
    pub(crate) const LEN_MIN: usize = 1 + 1 + 1 + 16 + 3 * 8 + 4 + 1;

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let cell = Self {
            identifier: read_identifier(input)?,
            dirty: input.u8()? != 0,
            generation: input.varint()?,
            sum: input.i128()?,
            min: input.f64()?,
            max: input.f64()?,
            last: input.f64()?,
            last_after_us: input.u32()?,
            n: u32::try_from(input.varint()?).map_err(|_| CheckpointError::Value {
                what: "number of readings",
            })?,
            change: 0,
        };
        if cell.n == 0 || i64::from(cell.last_after_us) >= WINDOW_US {
            return Err(CheckpointError::Value { what: "load-profile cell" });
        }
        Ok(cell)
    }
}

fn fixed(value: f64) -> i128 {
    (value * FIXED_POINT) as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(readings: &[(u32, f64)]) -> ProfileCell {
        let identifier = Identifier::from_index(0).unwrap();
        let mut cell = Cell::open(identifier, 7, readings[0].1, readings[0].0);
        readings[1..].iter().for_each(|&(after_us, value)| cell.add(value, after_us));
        cell.row(WINDOW_US)
    }

    #[test]
    fn a_cell_is_what_a_hand_calculation_says() {
        let cell = of(&[(10, 1.5), (30, -2.0), (20, 4.0)]);
        assert_eq!((cell.n, cell.min, cell.max, cell.last), (3, -2.0, 4.0, -2.0));
        assert_eq!(cell.mean, 3.5 / 3.0);
        assert_eq!((cell.generation, cell.last_time.micros()), (7, WINDOW_US + 30));
    }

    #[test]
    fn of_equal_event_times_the_later_reading_is_the_last() {
        assert_eq!(of(&[(10, 1.0), (10, 2.0)]).last, 2.0);
    }

    #[test]
    fn the_mean_does_not_depend_on_the_order() {
        let readings: Vec<(u32, f64)> = (0..100).map(|i| (i, 1e11 / f64::from(i * i + 1) - 0.1)).collect();
        let mut turned = readings.clone();
        turned.reverse();
        assert_eq!(of(&readings).mean.to_bits(), of(&turned).mean.to_bits());
    }
}
