//! Passes that read: is all finite, the range, sums.

use super::{
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::{DType, Element};
use num_traits::Float;

/// Elements a reduction takes as one piece: fixed, since it decides the order of the sums.
const CHUNK: usize = 4096;
/// Independent accumulators in a piece; they are combined in order.
const LANES: usize = 16;

/// The index of the first NaN or infinity.
pub(crate) fn first_non_finite<T: Element>(values: &[T]) -> Option<usize> {
    let finite = execute(Reduce { values, of: Finite });
    if finite { None } else { values.iter().position(|x| !x.finite()) }
}

/// Smallest and largest, or the index of the first NaN or infinity. For nothing, `(inf, -inf)`.
pub(crate) fn range<T: Element>(values: &[T]) -> Result<(T::Real, T::Real), usize> {
    let Extent { min, max, finite } = execute(Reduce { values, of: Range });
    if finite { Ok((min, max)) } else { Err(values.iter().position(|x| !x.finite()).unwrap_or(0)) }
}

/// Smallest and largest of a few finite values, in one piece, on the caller's instruction set.
#[inline(always)]
pub(crate) fn range_of_run<T: Element>(values: &[T]) -> (T::Real, T::Real) {
    let Extent { min, max, .. } = Kernel::run(Reduce { values, of: Range });
    (min, max)
}

/// The L2 norm, in `f64`, or the index of the first NaN or infinity. One pass: the sum of squares tells too that all is
/// finite; more only where it says otherwise, or `f64` squares left their range.
pub(crate) fn norm<T: Element>(values: &[T]) -> Result<f64, usize> {
    let sum = sum_of_squares(values, 1.0);
    let in_range = T::DTYPE != DType::F64 || (1e-200..1e200).contains(&sum);
    if sum.is_finite() && in_range {
        return Ok(sum.sqrt());
    }
    let scale = scale_to_one(largest_magnitude(range(values)?));
    Ok(sum_of_squares(values, scale).sqrt() / scale)
}

/// The larger magnitude of the ends of a range; 0 for the range of nothing.
pub(crate) fn largest_magnitude<R: Element>((min, max): (R, R)) -> f64 {
    if min > max { 0.0 } else { min.to_f64().abs().max(max.to_f64().abs()) }
}

/// A power of two that brings a magnitude near 1; 1 where its square neither overflows nor vanishes.
pub(crate) fn scale_to_one(magnitude: f64) -> f64 {
    const EXPONENT: u64 = 0x7ff << 52;
    if (1e-100..1e100).contains(&magnitude) || magnitude == 0.0 {
        return 1.0;
    }
    // The exponent negated; neither end is reached, so that the scale is a normal number.
    let exponent = (magnitude.to_bits() & EXPONENT).clamp(1 << 52, 0x7fd << 52);
    f64::from_bits((0x7fe << 52) - exponent)
}

/// The sum of `(scale * x)²`, in `f64`.
pub(crate) fn sum_of_squares<T: Element>(values: &[T], scale: f64) -> f64 {
    execute(Reduce { values, of: Squares { scale } })
}

/// What a reduction computes: its value for nothing, with one more element, and of two pieces.
trait Reduction<T: Element>: Copy + Send + Sync {
    type Value: Copy + Send;
    fn identity(self) -> Self::Value;
    fn element(self, acc: Self::Value, x: T) -> Self::Value;
    fn pair(a: Self::Value, b: Self::Value) -> Self::Value;
}

#[derive(Clone, Copy)]
struct Finite;

impl<T: Element> Reduction<T> for Finite {
    type Value = bool;
    #[inline(always)]
    fn identity(self) -> bool {
        true
    }
    #[inline(always)]
    fn element(self, acc: bool, x: T) -> bool {
        acc & x.finite()
    }
    #[inline(always)]
    fn pair(a: bool, b: bool) -> bool {
        a & b
    }
}

#[derive(Clone, Copy)]
struct Range;

/// The range of some elements, and whether all of them are finite.
#[derive(Clone, Copy)]
struct Extent<R> {
    min: R,
    max: R,
    finite: bool,
}

impl<T: Element> Reduction<T> for Range {
    type Value = Extent<T::Real>;
    #[inline(always)]
    fn identity(self) -> Self::Value {
        Extent { min: T::Real::infinity(), max: T::Real::neg_infinity(), finite: true }
    }
    #[inline(always)]
    fn element(self, acc: Self::Value, x: T) -> Self::Value {
        let finite = acc.finite & x.finite();
        let x = x.to_real();
        Extent { min: if x < acc.min { x } else { acc.min }, max: if x > acc.max { x } else { acc.max }, finite }
    }
    #[inline(always)]
    fn pair(a: Self::Value, b: Self::Value) -> Self::Value {
        Extent {
            min: if b.min < a.min { b.min } else { a.min },
            max: if b.max > a.max { b.max } else { a.max },
            finite: a.finite & b.finite,
        }
    }
}

#[derive(Clone, Copy)]
struct Squares {
    scale: f64,
}

impl<T: Element> Reduction<T> for Squares {
    type Value = f64;
    #[inline(always)]
    fn identity(self) -> f64 {
        0.0
    }
    #[inline(always)]
    fn element(self, acc: f64, x: T) -> f64 {
        let x = x.to_f64() * self.scale;
        acc + x * x
    }
    #[inline(always)]
    fn pair(a: f64, b: f64) -> f64 {
        a + b
    }
}

struct Reduce<'a, T, O> {
    values: &'a [T],
    of: O,
}

impl<T: Element, O: Reduction<T>> Work for Reduce<'_, T, O> {
    type Output = O::Value;

    fn len(&self) -> usize {
        self.values.len()
    }

    fn chunk(&self) -> usize {
        CHUNK
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (left, right) = self.values.split_at(mid);
        (Self { values: left, of: self.of }, Self { values: right, of: self.of })
    }

    fn run(self, isa: Isa) -> O::Value {
        isa.run(self)
    }

    fn combine(left: O::Value, right: O::Value) -> O::Value {
        O::pair(left, right)
    }
}

impl<T: Element, O: Reduction<T>> Kernel for Reduce<'_, T, O> {
    type Output = O::Value;

    #[inline(always)]
    fn run(self) -> O::Value {
        let mut lanes = [self.of.identity(); LANES];
        let (blocks, tail) = self.values.as_chunks::<LANES>();
        for block in blocks {
            for (lane, &x) in lanes.iter_mut().zip(block) {
                *lane = self.of.element(*lane, x);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(tail) {
            *lane = self.of.element(*lane, x);
        }
        lanes.into_iter().fold(self.of.identity(), O::pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    #[test]
    fn names_the_first_that_is_not_finite() {
        for n in [1, 17, 5000, 200_000] {
            let mut values = vec![1f32; n];
            assert_eq!(first_non_finite(&values), None);
            values[n - 1] = f32::NAN;
            assert_eq!(first_non_finite(&values), Some(n - 1));
            values[n / 2] = f32::NEG_INFINITY;
            assert_eq!(first_non_finite(&values), Some(n / 2));
        }
        assert_eq!(first_non_finite::<f32>(&[]), None);
    }

    #[test]
    fn empty_has_no_range_and_no_length() {
        assert_eq!(range::<f16>(&[]), Ok((f32::INFINITY, f32::NEG_INFINITY)));
        assert_eq!(norm::<f64>(&[]), Ok(0.0));
    }

    #[test]
    fn the_norm_of_extreme_numbers_neither_overflows_nor_vanishes() {
        for size in [5e-324, 1e-310, 1e-170, 1.0, 1e170, 1e308] {
            let norm = norm(&[0.0, size, -size]).unwrap();
            assert!(
                (norm / size / 2f64.sqrt() - 1.0).abs() < 1e-12 || size == 5e-324 && norm == size,
                "{size:e}: {norm:e}"
            );
        }
        assert_eq!(norm(&[1.0, f64::INFINITY]), Err(1));
    }

    proptest! {
        #[test]
        fn range_is_that_of_a_plain_loop(values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL, 1..300)) {
            let want = (values.iter().copied().fold(f32::INFINITY, f32::min), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            prop_assert_eq!(range(&values), Ok(want));
        }

        #[test]
        fn squares_are_near_the_plain_sum(values in prop::collection::vec(-1e3..1e3f64, 0..20_000)) {
            let want: f64 = values.iter().map(|x| x * x).sum();
            prop_assert!((sum_of_squares(&values, 1.0) - want).abs() <= 1e-12 * want);
        }
    }
}
