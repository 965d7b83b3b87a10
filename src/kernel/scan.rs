//! Passes that read: is all finite, the range, sums.

use super::{
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::{DType, Element, Real};
use num_traits::{Float, Zero};

/// Elements a reduction takes as one piece: fixed, since it decides the order of the sums.
const CHUNK: usize = 4096;
/// Independent accumulators in a piece; they are combined in halves. A power of two.
pub(super) const LANES: usize = 32;

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

/// Smallest and largest of a few finite values, in one piece, on the caller's instruction set. For nothing, `(inf, -inf)`.
#[inline(always)]
pub(crate) fn range_of_run<T: Element>(values: &[T]) -> (T::Real, T::Real) {
    // As few lanes as keep a processor busy: a run can be short.
    const LANES: usize = 16;
    let (mut min, mut max) = ([T::Real::infinity(); LANES], [T::Real::neg_infinity(); LANES]);
    let (blocks, tail) = values.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            let x = block[i].to_real();
            (min[i], max[i]) = (smaller(min[i], x), larger(max[i], x));
        }
    }
    // No index depends on the length, so that lanes can stay in registers: the last block is filled up with what changes no range.
    if let Some(&first) = tail.first() {
        let mut block = [first; LANES];
        block[..tail.len()].copy_from_slice(tail);
        for i in 0..LANES {
            let x = block[i].to_real();
            (min[i], max[i]) = (smaller(min[i], x), larger(max[i], x));
        }
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            (min[i], max[i]) = (smaller(min[i], min[i + width]), larger(max[i], max[i + width]));
        }
    }
    (min[0], max[0])
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

/// What a reduction computes: in each of [`LANES`] lanes over every so many elements, then of the lanes, then of two pieces.
trait Reduction<T: Element>: Copy + Send + Sync {
    type Lanes;
    type Value: Send;
    /// Lanes that saw nothing.
    fn start(self) -> Self::Lanes;
    fn element(self, lanes: &mut Self::Lanes, lane: usize, x: T);
    fn end(self, lanes: Self::Lanes) -> Self::Value;
    fn pair(a: Self::Value, b: Self::Value) -> Self::Value;
}

#[derive(Clone, Copy)]
struct Finite;

impl<T: Element> Reduction<T> for Finite {
    type Lanes = [T::Real; LANES];
    type Value = bool;
    #[inline(always)]
    fn start(self) -> Self::Lanes {
        [T::Real::zero(); LANES]
    }
    #[inline(always)]
    fn element(self, lanes: &mut Self::Lanes, lane: usize, x: T) {
        lanes[lane] = lanes[lane] + nothing(x.to_real());
    }
    #[inline(always)]
    fn end(self, lanes: Self::Lanes) -> bool {
        fold(lanes, |a, b| a + b) == T::Real::zero()
    }
    #[inline(always)]
    fn pair(a: bool, b: bool) -> bool {
        a & b
    }
}

/// 0, or NaN for what is not finite.
#[inline(always)]
fn nothing<R: Real>(x: R) -> R {
    x * R::zero()
}

/// Folds lanes in halves.
#[inline(always)]
pub(super) fn fold<V: Copy>(mut lanes: [V; LANES], pair: impl Fn(V, V) -> V) -> V {
    const { assert!(LANES == 32) };
    halve::<V, 16>(&mut lanes, &pair);
    halve::<V, 8>(&mut lanes, &pair);
    halve::<V, 4>(&mut lanes, &pair);
    halve::<V, 2>(&mut lanes, &pair);
    halve::<V, 1>(&mut lanes, &pair);
    lanes[0]
}

#[inline(always)]
fn halve<V: Copy, const WIDTH: usize>(lanes: &mut [V; LANES], pair: &impl Fn(V, V) -> V) {
    for i in 0..WIDTH {
        lanes[i] = pair(lanes[i], lanes[i + WIDTH]);
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

/// One array each, so that they are vectors.
struct ExtentLanes<R> {
    min: [R; LANES],
    max: [R; LANES],
    nothing: [R; LANES],
}

/// The smaller one; `a` where `b` is NaN.
#[inline(always)]
pub(crate) fn smaller<R: Real>(a: R, b: R) -> R {
    if b < a { b } else { a }
}

/// The larger one; `a` where `b` is NaN.
#[inline(always)]
pub(crate) fn larger<R: Real>(a: R, b: R) -> R {
    if b > a { b } else { a }
}

impl<T: Element> Reduction<T> for Range {
    type Lanes = ExtentLanes<T::Real>;
    type Value = Extent<T::Real>;
    #[inline(always)]
    fn start(self) -> Self::Lanes {
        let (min, max) = ([T::Real::infinity(); LANES], [T::Real::neg_infinity(); LANES]);
        ExtentLanes { min, max, nothing: [T::Real::zero(); LANES] }
    }
    #[inline(always)]
    fn element(self, lanes: &mut Self::Lanes, lane: usize, x: T) {
        let x = x.to_real();
        lanes.min[lane] = smaller(lanes.min[lane], x);
        lanes.max[lane] = larger(lanes.max[lane], x);
        lanes.nothing[lane] = lanes.nothing[lane] + nothing(x);
    }
    #[inline(always)]
    fn end(self, lanes: Self::Lanes) -> Self::Value {
        let finite = fold(lanes.nothing, |a, b| a + b) == T::Real::zero();
        Extent { min: fold(lanes.min, smaller), max: fold(lanes.max, larger), finite }
    }
    #[inline(always)]
    fn pair(a: Self::Value, b: Self::Value) -> Self::Value {
        Extent { min: smaller(a.min, b.min), max: larger(a.max, b.max), finite: a.finite & b.finite }
    }
}

#[derive(Clone, Copy)]
struct Squares {
    scale: f64,
}

impl<T: Element> Reduction<T> for Squares {
    type Lanes = [f64; LANES];
    type Value = f64;
    #[inline(always)]
    fn start(self) -> Self::Lanes {
        [0.0; LANES]
    }
    #[inline(always)]
    fn element(self, lanes: &mut Self::Lanes, lane: usize, x: T) {
        let x = x.to_f64() * self.scale;
        lanes[lane] += x * x;
    }
    #[inline(always)]
    fn end(self, lanes: Self::Lanes) -> f64 {
        fold(lanes, |a, b| a + b)
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
        let mut lanes = self.of.start();
        let (blocks, tail) = self.values.as_chunks::<LANES>();
        for block in blocks {
            for (lane, &x) in block.iter().enumerate() {
                self.of.element(&mut lanes, lane, x);
            }
        }
        for (lane, &x) in tail.iter().enumerate() {
            self.of.element(&mut lanes, lane, x);
        }
        self.of.end(lanes)
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
