//! What a meter has said so far, in a few numbers: the load profile that pseudo-measurements are made of.

use crate::checkpoint::{CheckpointError, Reader, Writer};

/// Beyond so many readings the oldest count less and less, so that a profile follows a customer who changes.
const N_MEMORY: u32 = 2_000;
/// A quarter of an hour is known when so many readings fell into it.
const N_KNOWN: u32 = 8;
/// Readings that the guess of a variance counts for.
const N_GUESS: f64 = 5.0;
/// The guess of a standard deviation: a share of the mean, and so many W or var.
const GUESS_SHARE: f64 = 0.5;
const GUESS_MIN: f64 = 500.0;
/// Quarters of an hour in a day.
const N_QUARTERS: i64 = 96;
const QUARTER_US: i64 = 15 * 60 * 1_000_000;

/// Mean and variance of readings, one by one (Welford).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Running {
    n: u32,
    mean: f64,
    squares: f64,
}

impl Running {
    fn add(&mut self, value: f64) {
        if self.n >= N_MEMORY {
            self.squares *= 1.0 - 1.0 / f64::from(N_MEMORY);
        } else {
            self.n += 1;
        }
        let off = value - self.mean;
        self.mean += off / f64::from(self.n);
        self.squares += off * (value - self.mean);
    }

    /// Mean and variance; `None` before there are two. A few readings in a row say little about how far a load goes: the variance
    /// begins as a guess that counts as [`N_GUESS`] readings.
    fn spread(&self) -> Option<(f64, f64)> {
        let guess = (GUESS_SHARE * self.mean.abs() + GUESS_MIN).powi(2);
        let n = f64::from(self.n - self.n.min(1));
        (self.n >= 2).then(|| (self.mean, (self.squares + N_GUESS * guess) / (n + N_GUESS)))
    }

    fn write(&self, out: &mut Writer) {
        out.u32(self.n);
        out.f64(self.mean);
        out.f64(self.squares);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        Ok(Self {
            n: input.u32()?,
            mean: input.f64()?,
            squares: input.f64()?,
        })
    }
}

/// Profile of one meter, by phase.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Statistics {
    p: [Running; 3],
    q: [Running; 3],
    /// Active power by quarter of an hour of the day (UTC), those met, in order.
    quarters: Vec<(u8, [Running; 3])>,
}

/// What a profile expects: mean and variance by phase of P and Q; `None` where it knows nothing.
pub(crate) type Expected = [[Option<(f64, f64)>; 3]; 2];

/// Quarter of an hour of the day, UTC.
pub(crate) fn quarter_of(time_us: i64) -> u8 {
    time_us.div_euclid(QUARTER_US).rem_euclid(N_QUARTERS) as u8
}

impl Statistics {
    /// Takes a reading in, W and var; NaN where it says nothing.
    pub(crate) fn add(&mut self, event_time: i64, p_w: &[f64; 3], q_var: &[f64; 3]) {
        let quarter = quarter_of(event_time);
        for k in 0..3 {
            if q_var[k].is_finite() {
                self.q[k].add(q_var[k]);
            }
            if !p_w[k].is_finite() {
                continue;
            }
            self.p[k].add(p_w[k]);
            let at = match self.quarters.binary_search_by_key(&quarter, |(quarter, _)| *quarter) {
                Ok(at) => at,
                Err(at) => {
                    self.quarters.insert(at, (quarter, Default::default()));
                    at
                }
            };
            self.quarters[at].1[k].add(p_w[k]);
        }
    }

    /// What is expected in a quarter of an hour: its own mean and variance if it is known, else those of all readings.
    pub(crate) fn expected(&self, quarter: u8) -> Expected {
        let of_quarter = self.quarters.binary_search_by_key(&quarter, |(quarter, _)| *quarter).ok();
        let p = std::array::from_fn(|k| {
            let known = of_quarter.map(|at| &self.quarters[at].1[k]).filter(|running| running.n >= N_KNOWN);
            known.unwrap_or(&self.p[k]).spread()
        });
        [p, std::array::from_fn(|k| self.q[k].spread())]
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        self.p.iter().chain(&self.q).for_each(|running| running.write(out));
        out.len(self.quarters.len());
        for (quarter, phases) in &self.quarters {
            out.u8(*quarter);
            phases.iter().for_each(|running| running.write(out));
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        let mut this = Self::default();
        for running in this.p.iter_mut().chain(&mut this.q) {
            *running = Running::read(input)?;
        }
        for _ in 0..input.len(61)? {
            let quarter = input.u8()?;
            let is_next = this.quarters.last().is_none_or(|(last, _)| *last < quarter);
            if !is_next || i64::from(quarter) >= N_QUARTERS {
                return Err(CheckpointError::Value {
                    what: "quarter of an hour",
                });
            }
            let mut phases = [Running::default(); 3];
            for running in &mut phases {
                *running = Running::read(input)?;
            }
            this.quarters.push((quarter, phases));
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [f64; 3] = [f64::NAN; 3];

    #[test]
    fn a_known_quarter_of_an_hour_speaks_for_itself() {
        let mut statistics = Statistics::default();
        for n in 0..10 {
            statistics.add(0, &[100.0 + f64::from(n % 2), f64::NAN, f64::NAN], &NONE);
            statistics.add(QUARTER_US, &[900.0, f64::NAN, f64::NAN], &NONE);
        }
        let [p, q] = statistics.expected(0);
        assert_eq!(p[0].unwrap().0, 100.5);
        // sum of squares 2.5, and five times (0.5 * 100.5 + 500)²
        assert!((p[0].unwrap().1 - (2.5 + 5.0 * 302_775.062_5) / 14.0).abs() < 1e-6, "{p:?}");
        assert_eq!((p[1], q[0]), (None, None));
        assert!(
            (statistics.expected(50)[0][0].unwrap().0 - 500.25).abs() < 1e-9,
            "else the mean of all"
        );
        assert_eq!(quarter_of(-1), 95);
    }

    #[test]
    fn one_reading_has_no_spread() {
        let mut statistics = Statistics::default();
        statistics.add(0, &[1.0; 3], &NONE);
        assert_eq!(statistics.expected(0)[0][0], None);
    }
}
