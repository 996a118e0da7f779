//! f64 arithmetic in directed rounding modes, from the nearest result and the sign of its error.
//!
//! The errors are exact barring underflow of their lowest bits: of sums by TwoSum (Knuth), of
//! products, quotients and roots by a fused multiply-add, of a fused multiply-add by the algorithm
//! of Boldo and Muller (2011).

use super::float::nearest2;
use crate::program::{Float2, Rounding};

/// Error of a sum: what the exact one is larger.
fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let b_part = sum - a;
    (a - (sum - b_part)) + (b - b_part)
}

/// The next f64 up or down.
pub(super) fn neighbour(value: f64, up: bool) -> f64 {
    if value == 0.0 {
        let smallest = f64::from_bits(1);
        return if up { smallest } else { -smallest };
    }
    let away = (value > 0.0) == up;
    f64::from_bits(if away { value.to_bits() + 1 } else { value.to_bits() - 1 })
}

/// `near` moved to the neighbour that the rounding asks for, given exact - near of finite operands.
fn adjust(rounding: Rounding, near: f64, error: f64) -> f64 {
    // Beyond the largest number the exact result lies toward zero.
    let error = if near.is_infinite() { -near } else { error };
    let down = match rounding {
        Rounding::Zero => near > 0.0,
        Rounding::Down => true,
        Rounding::Up => false,
        Rounding::Nearest | Rounding::NearestAway => return near,
    };
    if down && error < 0.0 {
        neighbour(near, false)
    } else if !down && error > 0.0 {
        neighbour(near, true)
    } else {
        near
    }
}

/// A number that has the sign of a / b - near.
fn quotient_error(a: f64, b: f64, near: f64) -> f64 {
    (-near).mul_add(b, a) * b.signum()
}

/// An operation of two operands with its rounding.
pub(super) fn double2(op: Float2, rounding: Rounding, a: f64, b: f64) -> f64 {
    let near = nearest2(op, a, b);
    let finite = a.is_finite() && b.is_finite();
    let error = match op {
        _ if rounding == Rounding::Nearest || !finite => return near,
        Float2::Add | Float2::Sub => {
            let b = if op == Float2::Add { b } else { -b };
            if near == 0.0 && rounding == Rounding::Down && a.to_bits() != b.to_bits() {
                // A sum that cancels is -0 when rounding down (IEEE 754, 6.3).
                return -0.0;
            }
            sum_error(a, b, near)
        }
        Float2::Mul => a.mul_add(b, -near),
        Float2::Div if b != 0.0 => quotient_error(a, b, near),
        _ => return near,
    };
    adjust(rounding, near, error)
}

/// a * b + c with its rounding.
pub(super) fn fma(rounding: Rounding, a: f64, b: f64, c: f64) -> f64 {
    let near = a.mul_add(b, c);
    if rounding == Rounding::Nearest || !(a.is_finite() && b.is_finite() && c.is_finite()) {
        return near;
    }
    let product = a * b;
    let low = a.mul_add(b, -product);
    let sum = c + low;
    let sum_low = sum_error(c, low, sum);
    let total = product + sum;
    let total_low = sum_error(product, sum, total);
    adjust(rounding, near, (total - near) + total_low + sum_low)
}

/// Square root with its rounding.
pub(super) fn sqrt(rounding: Rounding, x: f64) -> f64 {
    let near = x.sqrt();
    if !near.is_finite() {
        return near;
    }
    adjust(rounding, near, (-near).mul_add(near, x))
}

/// `near` rounded to odd instead, from which any shorter rounding is correct.
fn to_odd(near: f64, error: f64) -> f64 {
    if error == 0.0 || error.is_nan() || near.to_bits() & 1 == 1 {
        near
    } else if error > 0.0 {
        neighbour(near, true)
    } else {
        neighbour(near, false)
    }
}

/// a / b rounded to odd.
pub(super) fn odd_quotient(a: f64, b: f64) -> f64 {
    let near = a / b;
    if near.is_finite() && b.is_finite() {
        to_odd(near, quotient_error(a, b, near))
    } else {
        near
    }
}

/// Square root rounded to odd.
pub(super) fn odd_sqrt(x: f64) -> f64 {
    let near = x.sqrt();
    to_odd(near, (-near).mul_add(near, x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Down and up enclose the exact result, one step apart or equal; zero is the inner one.
    fn check(near: impl Fn(Rounding) -> f64) {
        let [down, up] = [Rounding::Down, Rounding::Up].map(&near);
        assert!(down == up || down.next_up() == up, "{down:e} {up:e}");
        let nearest = near(Rounding::Nearest);
        assert!(nearest == down || nearest == up);
        assert_eq!(near(Rounding::Zero), if nearest > 0.0 { down } else { up });
    }

    #[test]
    fn directed_results_enclose_the_exact_one() {
        let values = [1.0, -3.0, 0.1, 1e300, -7e-200, 1.0 + f64::EPSILON, 12_345.678];
        for a in values {
            check(|rounding| sqrt(rounding, a.abs()));
            for b in values {
                for op in [Float2::Add, Float2::Sub, Float2::Mul, Float2::Div] {
                    check(|rounding| double2(op, rounding, a, b));
                }
                for c in values {
                    check(|rounding| fma(rounding, a, b, c));
                }
            }
        }
        // A third lies above its nearest f64, a tenth below.
        assert!(double2(Float2::Div, Rounding::Up, 1.0, 3.0) > 1.0 / 3.0);
        assert_eq!(double2(Float2::Div, Rounding::Down, 1.0, 3.0), 1.0 / 3.0);
        assert!(double2(Float2::Div, Rounding::Down, 1.0, 10.0) < 0.1);
        let exact = double2(Float2::Add, Rounding::Down, 1.0, -1.0);
        assert!(exact == 0.0 && exact.is_sign_negative());
        assert_eq!(double2(Float2::Mul, Rounding::Zero, 1e300, 1e300), f64::MAX);
    }
}
