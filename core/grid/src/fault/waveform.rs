//! From sampled voltages and currents to phasors before and during the fault.
//!
//! A full-cycle Fourier sum rejects harmonics, but not the decaying direct current that a fault starts with. The sum of one cycle of
//! samples holds nothing but that: its ratio from one sample to the next is the decay, its size the start. It is taken out of the
//! samples before the Fourier sum. Sampling is taken as synchronous with the grid's frequency.

use std::f64::consts::TAU;

use super::phasor::Phasors;
use crate::error::GridError;
use crate::model::C64;

/// Samples of a cycle that can be used: 32 is usual.
pub const SAMPLES_PER_CYCLE: std::ops::RangeInclusive<usize> = 8..=4096;
/// Most samples of a record.
pub const N_SAMPLES_MAX: usize = 1_000_000;

/// A change from one cycle to the next of this share of the largest current before is a fault's.
const INCEPTION_SHARE: f64 = 0.1;
/// It has to exceed this many times the unrest before.
const INCEPTION_UNREST: f64 = 8.0;
/// Samples in a row that have to.
const INCEPTION_SAMPLES: usize = 3;
/// Cycles after the fault's start that are looked at.
const CYCLES_USED: usize = 2;
/// A direct current below this share of the largest sample is not looked for.
const DIRECT_SHARE_MIN: f64 = 1e-9;

/// Samples of phases a, b, c at the head.
#[derive(Debug, Clone, PartialEq)]
pub struct Waveform {
    /// Samples in one cycle of the grid's frequency.
    pub samples_per_cycle: usize,
    /// Phase to ground, V.
    pub voltage_v: [Vec<f64>; 3],
    /// Into the feeder, A.
    pub current_a: [Vec<f64>; 3],
}

/// Phasors of a waveform, on the time of its first sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inception {
    /// The first sample of the fault.
    pub sample: usize,
    /// The last cycle that is free of it.
    pub before: Phasors,
    /// The cycles after it.
    pub during: Phasors,
}

fn bad(field: &'static str, reason: String) -> GridError {
    GridError::FaultRecord { field, reason }
}

impl Waveform {
    /// Finds the start of the fault and the phasors on both sides of it.
    ///
    /// # Errors
    /// [`GridError::FaultRecord`] for samples that are too few, not finite or of different number, or without a fault.
    ///
    /// # Source
    /// Full-cycle algorithm with the offset estimated from sums over one cycle: J.-C. Gu, S.-L. Yu, "Removal of DC offset in current and
    /// voltage signals using a novel Fourier filter algorithm", IEEE Trans. Power Delivery 15(1), 2000.
    pub fn phasors(&self) -> Result<Inception, GridError> {
        self.check()?;
        let n = self.samples_per_cycle;
        let sample = self.inception().ok_or_else(|| {
            bad(
                "waveform.current_a",
                "no current changes from one cycle to the next as a fault's would; give a record that begins at least one cycle before the fault".to_owned(),
            )
        })?;
        // one sample less on each side: the samples around the start belong to neither state
        let from = sample + 1;
        let to = (from + CYCLES_USED * n).min(self.len());
        if to < from + n + 2 {
            return Err(bad(
                "waveform",
                format!(
                    "only {} samples follow the start of the fault at sample {sample}; give one cycle and two samples at least",
                    self.len() - sample
                ),
            ));
        }
        let before_end = sample.saturating_sub(1).max(n);
        let phasor = |x: &[Vec<f64>; 3], range: std::ops::Range<usize>| -> [C64; 3] {
            std::array::from_fn(|k| phasor(&x[k][range.clone()], n, range.start))
        };
        Ok(Inception {
            sample,
            before: Phasors {
                voltage_v: phasor(&self.voltage_v, before_end - n..before_end),
                current_a: phasor(&self.current_a, before_end - n..before_end),
            },
            during: Phasors {
                voltage_v: phasor(&self.voltage_v, from..to),
                current_a: phasor(&self.current_a, from..to),
            },
        })
    }

    fn len(&self) -> usize {
        self.voltage_v[0].len()
    }

    fn check(&self) -> Result<(), GridError> {
        let n = self.samples_per_cycle;
        if !SAMPLES_PER_CYCLE.contains(&n) {
            let (low, high) = (SAMPLES_PER_CYCLE.start(), SAMPLES_PER_CYCLE.end());
            return Err(bad(
                "waveform.samples_per_cycle",
                format!("{n} is not usable; give {low} to {high}"),
            ));
        }
        let len = self.len();
        if len > N_SAMPLES_MAX || len < 2 * n + 4 {
            return Err(bad(
                "waveform.voltage_v",
                format!(
                    "{len} samples are not usable; give {} to {N_SAMPLES_MAX}, at least one cycle before the fault and one after its start",
                    2 * n + 4
                ),
            ));
        }
        for (field, rows) in [("waveform.voltage_v", &self.voltage_v), ("waveform.current_a", &self.current_a)] {
            for (phase, row) in ["a", "b", "c"].into_iter().zip(rows) {
                if row.len() != len {
                    return Err(bad(
                        field,
                        format!(
                            "phase {phase} has {} samples, phase a of the voltages {len}; give as many for each",
                            row.len()
                        ),
                    ));
                }
                if let Some(at) = row.iter().position(|x| !(x.abs() <= 1e12)) {
                    return Err(bad(
                        field,
                        format!("sample {at} of phase {phase} is {}; give a finite number", row[at]),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The first of several samples in a row that differ from those one cycle earlier by more than before.
    fn inception(&self) -> Option<usize> {
        let n = self.samples_per_cycle;
        let starts = self.current_a.iter().chain(&self.voltage_v).enumerate().filter_map(|(row, x)| {
            let kind = if row < 3 { &self.current_a } else { &self.voltage_v };
            let peak = kind.iter().flat_map(|x| &x[..n]).fold(0.0, |peak: f64, x| peak.max(x.abs()));
            let change = |k: usize| (x[k] - x[k - n]).abs();
            // half a cycle without fault tells the noise
            let unrest = (n..n + n / 2).map(change).sum::<f64>() / (n / 2) as f64;
            let quiet = (n..n + n / 2).all(|k| change(k) <= INCEPTION_SHARE * peak);
            let unrest = if quiet { unrest } else { 0.0 };
            let limit = (INCEPTION_SHARE * peak).max(INCEPTION_UNREST * unrest).max(f64::MIN_POSITIVE);
            let mut in_row = 0;
            (n..x.len()).find_map(|k| {
                in_row = if change(k) > limit { in_row + 1 } else { 0 };
                (in_row == INCEPTION_SAMPLES).then(|| k + 1 - INCEPTION_SAMPLES)
            })
        });
        starts.min()
    }
}

/// Root mean square phasor of samples, with the direct current taken out; `first` is the number of the first sample.
fn phasor(x: &[f64], n: usize, first: usize) -> C64 {
    let (decay, start) = direct_current(x, n);
    let mut direct = start;
    let mut sum = C64::ZERO;
    let cycles = x.len() / n;
    for (k, sample) in x.iter().take(cycles * n).enumerate() {
        sum += C64::from_polar(sample - direct, -TAU * (first + k) as f64 / n as f64);
        direct *= decay;
    }
    sum * (std::f64::consts::SQRT_2 / (cycles * n) as f64)
}

/// Decay from one sample to the next, and value at the first one.
fn direct_current(x: &[f64], n: usize) -> (f64, f64) {
    let sums: Vec<f64> = (0..=x.len() - n).map(|k| x[k..k + n].iter().sum()).collect();
    let peak = x.iter().fold(0.0, |peak: f64, x| peak.max(x.abs()));
    let square: f64 = sums[..sums.len() - 1].iter().map(|s| s * s).sum();
    let steps = sums.len() - 1;
    if steps < 2 || square.sqrt() <= DIRECT_SHARE_MIN * peak * n as f64 {
        return (1.0, sums[0] / n as f64);
    }
    let product: f64 = sums.windows(2).map(|pair| pair[0] * pair[1]).sum();
    // a direct current that would grow is noise: constant then
    let decay = (product / square).clamp(0.5, 1.0);
    let over_cycle: f64 = (0..n).map(|k| decay.powi(k as i32)).sum();
    // least squares of sums[k] = start decay^k over_cycle
    let (mut up, mut down, mut power) = (0.0, 0.0, 1.0);
    for sum in &sums {
        up += sum * power;
        down += power * power;
        power *= decay;
    }
    (decay, up / down / over_cycle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 V and 100 A before sample 100, then 600 V and 2000 A at 70 degrees with a direct current that makes the step continuous.
    fn waveform(decay: f64, harmonics: f64) -> Waveform {
        let n = 32;
        let value = |size: f64, angle: f64, k: usize| size * 2f64.sqrt() * (TAU * k as f64 / n as f64 + angle).cos();
        let mut waveform = Waveform {
            samples_per_cycle: n,
            voltage_v: Default::default(),
            current_a: Default::default(),
        };
        for phase in 0..3 {
            let turn = -TAU / 3.0 * phase as f64;
            let jump = value(100.0, turn, 100) - value(2000.0, turn - 1.2, 100);
            for k in 0..200 {
                let third = harmonics * (3.0 * TAU * k as f64 / n as f64).sin();
                let (u, i) = match k < 100 {
                    true => (value(1000.0, turn, k), value(100.0, turn, k)),
                    false => (
                        value(600.0, turn, k) + third,
                        value(2000.0, turn - 1.2, k) + jump * decay.powi(k as i32 - 100) + third,
                    ),
                };
                waveform.voltage_v[phase].push(u);
                waveform.current_a[phase].push(i);
            }
        }
        waveform
    }

    #[test]
    fn phasors_are_exact_under_a_decaying_direct_current_and_harmonics() {
        for (decay, harmonics) in [(1.0, 0.0), (0.99, 0.0), (0.95, 40.0), (0.7, 40.0)] {
            let found = waveform(decay, harmonics).phasors().unwrap();
            assert!((100..=102).contains(&found.sample), "{}", found.sample);
            for phase in 0..3 {
                let turn = -TAU / 3.0 * phase as f64;
                let near = |x: C64, size: f64, angle: f64| (x - C64::from_polar(size, angle)).norm() < 1e-9 * size.max(1.0);
                assert!(near(found.before.current_a[phase], 100.0, turn));
                assert!(near(found.before.voltage_v[phase], 1000.0, turn));
                assert!(near(found.during.voltage_v[phase], 600.0, turn), "decay {decay}");
                assert!(near(found.during.current_a[phase], 2000.0, turn - 1.2), "decay {decay}");
            }
        }
    }

    #[test]
    fn the_direct_current_would_be_seen_in_a_plain_fourier_sum() {
        let found = waveform(0.95, 0.0);
        let x = &found.current_a[0][101..133];
        let plain: C64 = x
            .iter()
            .enumerate()
            .map(|(k, x)| C64::from_polar(*x, -TAU * (101 + k) as f64 / 32.0))
            .sum::<C64>()
            * (2f64.sqrt() / 32.0);
        assert!((plain - C64::from_polar(2000.0, -1.2)).norm() > 50.0);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = |change: &dyn Fn(&mut Waveform)| {
            let mut waveform = waveform(0.95, 0.0);
            change(&mut waveform);
            waveform.phasors().unwrap_err().to_string()
        };
        assert!(error(&|w| w.samples_per_cycle = 0).contains("samples_per_cycle: 0 is not usable"));
        assert!(error(&|w| w.current_a[1][7] = f64::NAN).contains("sample 7 of phase b is NaN"));
        assert!(error(&|w| w.current_a[2].truncate(5)).contains("phase c has 5 samples"));
        assert!(error(&|w| w.voltage_v[0].clear()).contains("0 samples are not usable"));
        let cut = error(&|w| {
            for row in w.current_a.iter_mut().chain(&mut w.voltage_v) {
                row.truncate(110);
            }
        });
        assert!(cut.contains("samples follow the start of the fault"), "{cut}");
        let calm = error(&|w| {
            for row in w.current_a.iter_mut().chain(&mut w.voltage_v) {
                row.truncate(99);
            }
        });
        assert!(calm.contains("no current changes"), "{calm}");
    }
}
