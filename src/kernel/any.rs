//! Slices of a type chosen at run time: cut in two, and read or written a block at a time.

use super::random::{self, Random};
use crate::element::{AnyCow, AnySlice, AnySliceMut, Real};
use half::{bf16, slice::HalfFloatSliceExt};
use std::ops::Range;

/// Elements that are worked on together: what is widened or decoded for them stays in the first-level cache.
pub(crate) const BLOCK: usize = 256;

/// `$body` for the slice in `$any`, of whichever type, put back as the same variant.
macro_rules! split {
    ($any:expr, $Type:ident, $values:ident => $split:expr) => {
        match $any {
            $Type::Real($values) => {
                let (left, right) = $split;
                ($Type::Real(left), $Type::Real(right))
            }
            $Type::F16($values) => {
                let (left, right) = $split;
                ($Type::F16(left), $Type::F16(right))
            }
            $Type::Bf16($values) => {
                let (left, right) = $split;
                ($Type::Bf16(left), $Type::Bf16(right))
            }
        }
    };
}

impl<R: Real> AnyCow<'_, R> {
    pub(crate) fn as_slice(&self) -> AnySlice<'_, R> {
        match self {
            Self::Real(values) => AnySlice::Real(values),
            Self::F16(values) => AnySlice::F16(values),
            Self::Bf16(values) => AnySlice::Bf16(values),
        }
    }
}

impl<'a, R: Real> AnySlice<'a, R> {
    pub(crate) fn split_at(self, mid: usize) -> (Self, Self) {
        split!(self, AnySlice, values => values.split_at(mid))
    }

    /// The number at an index.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> R {
        match self {
            Self::Real(values) => values[index],
            Self::F16(values) => R::from_single(values[index].to_f32()),
            Self::Bf16(values) => R::from_single(values[index].to_f32()),
        }
    }

    /// `f` of each of at most [`BLOCK`] elements, in `buffer`.
    #[inline(always)]
    pub(crate) fn load_with<'b>(&self, range: Range<usize>, buffer: &'b mut [R; BLOCK], f: impl Fn(R) -> R) -> &'b [R] {
        let n = range.len();
        if let Self::Real(values) = self {
            for (out, &x) in buffer.iter_mut().zip(&values[range]) {
                *out = f(x);
            }
        } else {
            self.load(range, buffer);
            for x in &mut buffer[..n] {
                *x = f(*x);
            }
        }
        &buffer[..n]
    }

    /// At most [`BLOCK`] elements, widened into `buffer` unless they are `R` already.
    #[inline(always)]
    pub(crate) fn load<'b>(&self, range: Range<usize>, buffer: &'b mut [R; BLOCK]) -> &'b [R]
    where
        'a: 'b,
    {
        let buffer = &mut buffer[..range.len()];
        match self {
            Self::Real(values) => return &values[range],
            Self::F16(values) => widen(buffer, |wide| values[range].convert_to_f32_slice(wide)),
            Self::Bf16(values) => {
                for (real, x) in buffer.iter_mut().zip(&values[range]) {
                    *real = R::from_single(x.to_f32());
                }
            }
        }
        buffer
    }
}

impl<R: Real> AnySliceMut<'_, R> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Real(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    pub(crate) fn split_at(self, mid: usize) -> (Self, Self) {
        split!(self, AnySliceMut, values => values.split_at_mut(mid))
    }

    /// The same, to read.
    #[inline(always)]
    pub(crate) fn as_any(&self) -> AnySlice<'_, R> {
        match self {
            Self::Real(values) => AnySlice::Real(values),
            Self::F16(values) => AnySlice::F16(values),
            Self::Bf16(values) => AnySlice::Bf16(values),
        }
    }

    /// At most [`BLOCK`] elements: themselves where they are `R`, else widened into `buffer`, to be [stored](Self::store).
    #[inline(always)]
    pub(crate) fn load<'b>(&'b mut self, range: Range<usize>, buffer: &'b mut [R; BLOCK]) -> &'b mut [R] {
        if let Self::Real(values) = self {
            return &mut values[range];
        }
        let n = range.len();
        self.as_any().load(range, buffer);
        &mut buffer[..n]
    }

    /// Rounds `values` into the elements of a range, to nearest, or stochastically where there are `random` bits, turned so often;
    /// to `f32` and `f64` they are copied.
    #[inline(always)]
    pub(crate) fn store(&mut self, range: Range<usize>, values: &[R], random: Option<(&Random, u32)>) {
        match self {
            Self::Real(real) => real[range].copy_from_slice(values),
            Self::F16(half) => match random {
                Some((random, turn)) => {
                    for ((half, x), &bits) in half[range].iter_mut().zip(values).zip(random) {
                        *half = random::to_f16(x.to_single(), random::turned(bits, turn));
                    }
                }
                None => narrow(values, |wide| half[range].convert_from_f32_slice(wide)),
            },
            Self::Bf16(half) => match random {
                Some((random, turn)) => {
                    for ((half, x), &bits) in half[range].iter_mut().zip(values).zip(random) {
                        *half = random::to_bf16(x.to_single(), random::turned(bits, turn));
                    }
                }
                None => {
                    for (half, x) in half[range].iter_mut().zip(values) {
                        *half = bf16::from_f32(x.to_single());
                    }
                }
            },
        }
    }
}

/// What `fill` puts into an array of `f32`, as `R`.
#[inline(always)]
fn widen<R: Real>(out: &mut [R], fill: impl FnOnce(&mut [f32])) {
    let mut wide = [0f32; BLOCK];
    let wide = &mut wide[..out.len()];
    fill(wide);
    for (real, x) in out.iter_mut().zip(wide) {
        *real = R::from_single(*x);
    }
}

/// Gives `take` the values as `f32`.
#[inline(always)]
fn narrow<R: Real>(values: &[R], take: impl FnOnce(&[f32])) {
    let mut wide = [0f32; BLOCK];
    let wide = &mut wide[..values.len()];
    for (x, real) in wide.iter_mut().zip(values) {
        *x = real.to_single();
    }
    take(wide);
}
