//! Small dense blocks of compile-time size.

use crate::model::C64;

/// A square block, column by column.
pub(super) type Block<const B: usize> = [[f64; B]; B];

/// A node's part of a vector: `N` complex voltages, then `N` complex multipliers, in symmetrical components; `B` is `4 * N`.
pub(super) type Column<const B: usize> = [f64; B];

#[inline(always)]
pub(super) fn zero<const B: usize>() -> Block<B> {
    [[0.0; B]; B]
}

/// The voltages of a column.
#[inline(always)]
pub(super) fn voltages<const N: usize, const B: usize>(x: &Column<B>) -> [C64; N] {
    std::array::from_fn(|k| C64::new(x[2 * k], x[2 * k + 1]))
}

/// The multipliers of a column.
#[inline(always)]
pub(super) fn multipliers<const N: usize, const B: usize>(x: &Column<B>) -> [C64; N] {
    std::array::from_fn(|k| C64::new(x[2 * (N + k)], x[2 * (N + k) + 1]))
}

#[inline(always)]
pub(super) fn add_voltage<const N: usize, const B: usize>(x: &mut Column<B>, k: usize, value: C64) {
    x[2 * k] += value.re;
    x[2 * k + 1] += value.im;
}

#[inline(always)]
pub(super) fn add_multiplier<const N: usize, const B: usize>(x: &mut Column<B>, k: usize, value: C64) {
    x[2 * (N + k)] += value.re;
    x[2 * (N + k) + 1] += value.im;
}

/// `a * x`.
#[inline(always)]
pub(super) fn multiply<const B: usize>(a: &Block<B>, x: &Column<B>) -> Column<B> {
    let mut y = [0.0; B];
    for column in 0..B {
        for row in 0..B {
            y[row] += a[column][row] * x[column];
        }
    }
    y
}

/// `a' * x`.
#[inline(always)]
pub(super) fn multiply_transposed<const B: usize>(a: &Block<B>, x: &Column<B>) -> Column<B> {
    let mut y = [0.0; B];
    for column in 0..B {
        let mut sum = 0.0;
        for row in 0..B {
            sum += a[column][row] * x[row];
        }
        y[column] = sum;
    }
    y
}

/// `a * b`.
#[inline(always)]
pub(super) fn product<const B: usize>(a: &Block<B>, b: &Block<B>) -> Block<B> {
    let mut c = zero();
    for column in 0..B {
        c[column] = multiply(a, &b[column]);
    }
    c
}

/// `a' * b`.
#[inline(always)]
pub(super) fn product_transposed<const B: usize>(a: &Block<B>, b: &Block<B>) -> Block<B> {
    product(&transpose(a), b)
}

#[inline(always)]
pub(super) fn transpose<const B: usize>(a: &Block<B>) -> Block<B> {
    let mut t = zero();
    for column in 0..B {
        for row in 0..B {
            t[row][column] = a[column][row];
        }
    }
    t
}

#[inline(always)]
pub(super) fn subtract<const B: usize>(a: &mut Block<B>, b: &Block<B>) {
    for column in 0..B {
        for row in 0..B {
            a[column][row] -= b[column][row];
        }
    }
}

/// Inverse by Gauss-Jordan elimination with partial pivoting, of a symmetric block whose rows have been brought to one scale; `None`
/// if it has none. The block is indefinite, so there is no Cholesky factor.
#[inline(always)]
pub(super) fn invert<const B: usize>(block: &Block<B>) -> Option<Block<B>> {
    // rows of very different size (variances beside admittances) would pick the wrong pivots
    let mut scale = [0.0; B];
    for row in 0..B {
        let mut largest = 0.0;
        for column in 0..B {
            let size = block[column][row].abs();
            largest = if size > largest { size } else { largest };
        }
        scale[row] = power_of_two_below_root(largest)?;
    }
    let mut a = *block;
    for column in 0..B {
        for row in 0..B {
            a[column][row] *= scale[row] * scale[column];
        }
    }
    let mut pivot_rows = [0; B];
    for step in 0..B {
        let (mut pivot_row, mut largest) = (step, -1.0);
        for row in step..B {
            if a[step][row].abs() > largest {
                (pivot_row, largest) = (row, a[step][row].abs());
            }
        }
        if !(largest > 1e-300) {
            return None;
        }
        pivot_rows[step] = pivot_row;
        if pivot_row != step {
            for column in &mut a {
                column.swap(step, pivot_row);
            }
        }
        let inverse = a[step][step].recip();
        let mut factors = a[step];
        factors[step] = 0.0;
        a[step] = [0.0; B];
        a[step][step] = 1.0;
        for column in &mut a {
            let scaled = column[step] * inverse;
            for row in 0..B {
                column[row] -= factors[row] * scaled;
            }
            column[step] = scaled;
        }
    }
    for step in (0..B).rev() {
        a.swap(step, pivot_rows[step]);
    }
    let mut result = zero();
    for column in 0..B {
        for row in 0..B {
            // the inverse of a symmetric block is symmetric; so must ours be
            let mean = 0.5 * (a[column][row] + a[row][column]);
            result[column][row] = mean * scale[row] * scale[column];
        }
    }
    Some(result)
}

/// A scale that multiplies without rounding.
#[inline(always)]
fn power_of_two_below_root(largest: f64) -> Option<f64> {
    if !(largest > 0.0 && largest.is_finite()) {
        return None;
    }
    let exponent = ((largest.to_bits() >> 52) & 0x7ff) as i64 - 1023;
    let half = -exponent.div_euclid(2);
    Some(f64::from_bits(((half + 1023) as u64) << 52))
}

/// `a += b`.
#[inline(always)]
pub(super) fn add_block<const B: usize>(a: &mut Block<B>, b: &Block<B>) {
    for column in 0..B {
        for row in 0..B {
            a[column][row] += b[column][row];
        }
    }
}

/// Voltages as a column, multipliers zero.
pub(super) fn column_of<const N: usize, const B: usize>(v: &[C64; N]) -> Column<B> {
    let mut x = [0.0; B];
    for k in 0..N {
        add_voltage::<N, B>(&mut x, k, v[k]);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_times_its_inverse_is_one_whatever_the_scales() {
        let mut seed = 7u64;
        let mut random = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        for _ in 0..200 {
            let mut block = zero::<12>();
            let scales: [f64; 12] = std::array::from_fn(|_| 10f64.powf(random() * 12.0));
            for i in 0..12 {
                for j in 0..=i {
                    let value = random() * scales[i] * scales[j];
                    (block[i][j], block[j][i]) = (value, value);
                }
            }
            let one = product(&block, &invert(&block).unwrap());
            for i in 0..12 {
                for j in 0..12 {
                    let expected = if i == j { 1.0 } else { 0.0 };
                    let error = (one[j][i] - expected).abs() * scales[j] / scales[i];
                    assert!(error < 1e-9, "{error:e}");
                }
            }
        }
    }

    #[test]
    fn a_singular_block_has_no_inverse() {
        assert!(invert(&zero::<4>()).is_none());
        let mut block = zero::<4>();
        block[0][0] = f64::NAN;
        assert!(invert(&block).is_none());
    }
}
