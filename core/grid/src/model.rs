//! The grid in per unit and symmetrical components.
//!
//! Bases: 1 MVA for three phases, the rated voltage of each node. A line, a transformer, a shunt and a source act on each symmetrical
//! component by itself, so an admittance is `N` complex numbers: one (the positive sequence) in symmetric calculations, three (zero,
//! positive, negative sequence) in asymmetric ones. Only loads and readings speak of phases. The transform between them
//! ([`to_phases`], [`to_sequences`]) is unitary: adjoints and norms mean the same on both sides.
//!
//! # Source
//! C. L. Fortescue, "Method of symmetrical co-ordinates applied to the solution of polyphase networks", Trans. AIEE 37(2), 1918. The
//! parameters of lines and transformers follow power-grid-model's documentation ("Component calculation").

use nalgebra::Complex;

use crate::error::GridError;
use crate::network::{Branch, BranchKind, Line, Network, Shunt, Source, Transformer, Winding};

pub(crate) type C64 = Complex<f64>;

/// Base power of the three phases together, VA.
pub const BASE_POWER_VA: f64 = 1e6;

/// Current of one per unit at a rated voltage between phases, A.
pub(crate) fn base_current_a(u_rated_v: f64) -> f64 {
    BASE_POWER_VA / 3f64.sqrt() / u_rated_v
}
/// System frequency, Hz.
const FREQUENCY_HZ: f64 = 50.0;
/// Admittance of a link, per unit: a million siemens at 10 kV, as power-grid-model has it.
const Y_LINK: C64 = C64::new(1e8, 1e8);
/// Admittance to ground of a winding without zero sequence, as a share of the transformer's series susceptance.
const FLOATING_ZERO_SEQUENCE: f64 = 1e-8;
/// A source of more short-circuit power is an ideal one, VA.
const SK_MAX_VA: f64 = 1e16;
const SQRT_3_4: f64 = 0.866_025_403_784_438_6;
const SQRT_1_3: f64 = 0.577_350_269_189_625_8;

/// Admittance matrix of a branch, each entry by symmetrical component, per unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TwoPort<const N: usize> {
    pub(crate) ff: [C64; N],
    pub(crate) ft: [C64; N],
    pub(crate) tf: [C64; N],
    pub(crate) tt: [C64; N],
}

/// Which symmetrical component the `k`-th of `N` is.
pub(crate) const fn sequence<const N: usize>(k: usize) -> usize {
    if N == 1 { 1 } else { k }
}

/// From symmetrical components to phases a, b, c.
#[inline(always)]
pub(crate) fn to_phases<const N: usize>(x: &[C64; N]) -> [C64; N] {
    if N == 1 {
        return *x;
    }
    let sum = x[1] + x[2];
    let difference = (x[2] - x[1]) * SQRT_3_4;
    let middle = x[0] - sum * 0.5;
    let turned = C64::new(-difference.im, difference.re);
    let mut phases = *x;
    phases[0] = (x[0] + sum) * SQRT_1_3;
    phases[1] = (middle + turned) * SQRT_1_3;
    phases[2] = (middle - turned) * SQRT_1_3;
    phases
}

/// From phases a, b, c to symmetrical components.
#[inline(always)]
pub(crate) fn to_sequences<const N: usize>(x: &[C64; N]) -> [C64; N] {
    if N == 1 {
        return *x;
    }
    let sum = x[1] + x[2];
    let difference = (x[1] - x[2]) * SQRT_3_4;
    let middle = x[0] - sum * 0.5;
    let turned = C64::new(-difference.im, difference.re);
    let mut sequences = *x;
    sequences[0] = (x[0] + sum) * SQRT_1_3;
    sequences[1] = (middle + turned) * SQRT_1_3;
    sequences[2] = (middle - turned) * SQRT_1_3;
    sequences
}

/// The larger of two sizes; what is not a number stays.
#[inline(always)]
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}

/// A balanced voltage of one per unit, phase a at angle zero, in symmetrical components.
pub(crate) fn balanced<const N: usize>() -> [C64; N] {
    let mut x = [C64::ZERO; N];
    match N {
        1 => x[0] = C64::ONE,
        _ => x[1] = C64::new(3f64.sqrt(), 0.0),
    }
    x
}

/// The branch as it is switched; all zero if it is open at both ends.
///
/// # Errors
/// [`GridError::MissingAttribute`] for a line without zero sequence in an asymmetric calculation.
pub(crate) fn two_port<const N: usize>(network: &Network, branch: &Branch) -> Result<TwoPort<N>, GridError> {
    match &branch.kind {
        BranchKind::Link => Ok(from_sequences(|_| pi(branch, Y_LINK, C64::ZERO, C64::ONE))),
        BranchKind::Line(line) => line_two_port(branch, line, network.nodes[branch.from].u_rated_v),
        BranchKind::Transformer(transformer) => {
            let u_rated = [network.nodes[branch.from].u_rated_v, network.nodes[branch.to].u_rated_v];
            Ok(transformer_two_port(branch, transformer, u_rated))
        }
    }
}

fn from_sequences<const N: usize>(f: impl Fn(usize) -> [C64; 4]) -> TwoPort<N> {
    let values: [[C64; 4]; N] = std::array::from_fn(|k| f(sequence::<N>(k)));
    TwoPort {
        ff: values.map(|v| v[0]),
        ft: values.map(|v| v[1]),
        tf: values.map(|v| v[2]),
        tt: values.map(|v| v[3]),
    }
}

/// Pi circuit behind an ideal ratio at the from side; with one end open, what the other end sees of it.
fn pi(branch: &Branch, series: C64, shunt: C64, ratio: C64) -> [C64; 4] {
    let inverse_square = ratio.norm_sqr().recip();
    match (branch.from_closed, branch.to_closed) {
        (true, true) => {
            let tt = series + shunt * 0.5;
            [tt * inverse_square, -series / ratio.conj(), -series / ratio, tt]
        }
        (false, false) => [C64::ZERO; 4],
        (from_closed, _) => {
            let seen = match shunt == C64::ZERO {
                true => C64::ZERO,
                false => shunt * 0.5 + (series.inv() + shunt.inv() * 2.0).inv(),
            };
            match from_closed {
                true => [seen * inverse_square, C64::ZERO, C64::ZERO, C64::ZERO],
                false => [C64::ZERO, C64::ZERO, C64::ZERO, seen],
            }
        }
    }
}

fn line_two_port<const N: usize>(branch: &Branch, line: &Line, u_rated_v: f64) -> Result<TwoPort<N>, GridError> {
    let z_base = u_rated_v * u_rated_v / BASE_POWER_VA;
    let part = |z: [f64; 2], c: f64, tan: f64| {
        let series = z_base / C64::new(z[0], z[1]);
        let shunt = C64::new(tan, 1.0) * (std::f64::consts::TAU * FREQUENCY_HZ * c * z_base);
        pi(branch, series, shunt, C64::ONE)
    };
    let positive = part(line.z1_ohm, line.c1_f, line.tan1);
    let zero = match (N, line.z0_ohm) {
        (1, _) => positive,
        (_, Some(z0)) => part(z0, line.c0_f, line.tan0),
        (_, None) => {
            return Err(GridError::MissingAttribute {
                component: "line",
                id: branch.id,
                attribute: "r0",
            });
        }
    };
    Ok(from_sequences(|sequence| if sequence == 0 { zero } else { positive }))
}

/// Interpolates between nominal, lowest and highest tap position.
fn at_tap(transformer: &Transformer, values: [f64; 3]) -> f64 {
    let [nominal, at_min, at_max] = values;
    let [min, max] = transformer.tap_range.map(f64::from);
    let (position, middle) = (transformer.tap_position(), f64::from(transformer.tap_nom));
    let (end, value) = match (position - middle) * (max - middle) >= 0.0 && max != middle {
        true => (max, at_max),
        false => (min, at_min),
    };
    match end == middle {
        true => nominal,
        false => nominal + (value - nominal) * (position - middle) / (end - middle),
    }
}

fn transformer_two_port<const N: usize>(branch: &Branch, transformer: &Transformer, u_rated_v: [f64; 2]) -> TwoPort<N> {
    let z_base = u_rated_v.map(|u| u * u / BASE_POWER_VA);
    let [mut u1, mut u2] = transformer.u_v;
    match transformer.tap_at_from {
        true => u1 += transformer.tap_shift_v(),
        false => u2 += transformer.tap_shift_v(),
    }
    let ratio = u1 / u2 / (u_rated_v[0] / u_rated_v[1]);
    let (uk, pk) = (at_tap(transformer, transformer.uk), at_tap(transformer, transformer.pk_w));
    let (z_abs, r) = (uk.abs() * u2 * u2 / transformer.sn_va, pk * (u2 / transformer.sn_va).powi(2));
    let x = uk.signum() * (z_abs * z_abs - r * r).max(0.0).sqrt();
    let series = z_base[1] / C64::new(r, x);
    let shunt_of = |i0: f64, p0: f64| {
        let (y_abs, g) = (i0 * transformer.sn_va / (u2 * u2), p0 / (u2 * u2));
        C64::new(g, -(y_abs * y_abs - g * g).max(0.0).sqrt()) * z_base[1]
    };
    let shunt = shunt_of(transformer.i0, transformer.p0_w);
    // without a loss of its own, the zero sequence's no-load current adds what it loses in the windings
    let i0_zero = transformer.i0_zero_sequence.unwrap_or(transformer.i0);
    let p0_zero = transformer.p0_w + pk * (i0_zero.powi(2) - transformer.i0.powi(2));
    let shunt_0 = shunt_of(i0_zero, transformer.p0_zero_sequence_w.unwrap_or(p0_zero));
    let turn = f64::from(transformer.clock) * std::f64::consts::FRAC_PI_6;
    let grounding: [C64; 2] = std::array::from_fn(|side| {
        let [r, x] = transformer.z_grounding_ohm[side];
        C64::new(r, x) * (3.0 / z_base[side])
    });
    // seen from the to side
    let grounding = [grounding[0] / (ratio * ratio), grounding[1]];
    from_sequences(|sequence| match sequence {
        1 => pi(branch, series, shunt, C64::from_polar(ratio, turn)),
        2 => pi(branch, series, shunt, C64::from_polar(ratio, -turn)),
        _ => zero_sequence(branch, transformer, series, shunt_0, ratio, grounding),
    })
}

/// The zero sequence passes where both neutrals are grounded. A grounded neutral opposite a delta sees the short-circuit impedance,
/// opposite anything else the magnetizing branch only, and a zigzag winding a tenth of the short-circuit impedance. A winding
/// that carries no zero sequence gets a susceptance too small to matter, so that the voltage behind it is determined.
fn zero_sequence(branch: &Branch, transformer: &Transformer, series: C64, shunt: C64, ratio: f64, grounding: [C64; 2]) -> [C64; 4] {
    use Winding::{Delta, WyeN, ZigzagN};
    let z = series.inv();
    let [from, to] = transformer.windings;
    if from == WyeN && to == WyeN {
        let reversed = matches!(transformer.clock, 2 | 6 | 10);
        let ratio = if reversed { -ratio } else { ratio };
        return pi(branch, (z + grounding[0] + grounding[1]).inv(), shunt, C64::new(ratio, 0.0));
    }
    // seen from the to side
    let floating = C64::new(0.0, series.im * FLOATING_ZERO_SEQUENCE);
    let side = |winding, opposite, grounding: C64, is_closed: bool| match (winding, opposite) {
        _ if !is_closed => C64::ZERO,
        (WyeN, Delta) => ((series + shunt).inv() + grounding).inv(),
        (WyeN, _) if shunt != C64::ZERO => (shunt.inv() + grounding).inv() + floating,
        (ZigzagN, _) => (z * 0.1 + grounding).inv(),
        _ => floating,
    };
    let y_from = side(from, to, grounding[0], branch.from_closed) / (ratio * ratio);
    [y_from, C64::ZERO, C64::ZERO, side(to, from, grounding[1], branch.to_closed)]
}

/// Internal admittance of a source by symmetrical component, per unit.
pub(crate) fn source_admittance<const N: usize>(source: &Source) -> [C64; N] {
    // stiffer than any other number can show
    let x = BASE_POWER_VA / source.sk_va.min(SK_MAX_VA) / source.rx_ratio.hypot(1.0);
    let positive = C64::new(x * source.rx_ratio, x).inv();
    std::array::from_fn(|k| match sequence::<N>(k) {
        0 => positive / source.z01_ratio,
        _ => positive,
    })
}

/// Internal voltage of a source by symmetrical component, per unit.
///
/// # Errors
/// [`GridError::MissingAttribute`] without a reference voltage.
pub(crate) fn source_voltage<const N: usize>(source: &Source) -> Result<[C64; N], GridError> {
    if source.u_ref_pu.is_nan() {
        return Err(GridError::MissingAttribute {
            component: "source",
            id: source.id,
            attribute: "u_ref",
        });
    }
    let turn = C64::from_polar(source.u_ref_pu, source.u_ref_angle_rad);
    Ok(balanced::<N>().map(|u| u * turn))
}

/// Admittance of a shunt by symmetrical component, per unit.
///
/// # Errors
/// [`GridError::MissingAttribute`] without a zero sequence in an asymmetric calculation.
pub(crate) fn shunt_admittance<const N: usize>(shunt: &Shunt, u_rated_v: f64) -> Result<[C64; N], GridError> {
    let z_base = u_rated_v * u_rated_v / BASE_POWER_VA;
    let y = |y: [f64; 2]| C64::new(y[0], y[1]) * z_base;
    let zero = match (N, shunt.y0_s) {
        (1, _) => C64::ZERO,
        (_, Some(y0)) => y(y0),
        (_, None) => {
            return Err(GridError::MissingAttribute {
                component: "shunt",
                id: shunt.id,
                attribute: "g0",
            });
        }
    };
    Ok(std::array::from_fn(|k| if sequence::<N>(k) == 0 { zero } else { y(shunt.y1_s) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_unitary_and_a_balanced_voltage_has_a_positive_sequence_only() {
        let phases = to_phases(&balanced::<3>());
        for (phase, angle) in phases.iter().zip([0.0, -120f64, 120.0]) {
            assert!((phase - C64::from_polar(1.0, angle.to_radians())).norm() < 1e-15);
        }
        let x = [C64::new(1.0, 2.0), C64::new(-0.3, 0.7), C64::new(0.0, -4.0)];
        let there_and_back = to_sequences(&to_phases(&x));
        let norm = |x: &[C64; 3]| x.iter().map(C64::norm_sqr).sum::<f64>();
        assert!(x.iter().zip(there_and_back).all(|(x, y)| (x - y).norm() < 1e-15));
        assert!((norm(&x) - norm(&to_phases(&x))).abs() < 1e-13);
    }
}
