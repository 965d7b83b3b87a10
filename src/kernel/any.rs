//! Slices of a type chosen at run time: cut in two, and read or written a block at a time.

use super::random::{self, Random};
use crate::element::{AnyCow, AnySlice, AnySliceMut, Element, Real};
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

/// Elements that are worked on together: what is widened or decoded for them stays in the first-level cache, and there are so few
/// that memory is asked for the next ones while these are computed. 8-bit numbers share an exponent by as many.
pub(crate) const BLOCK: usize = 256;

/// Room for one block, made when it is first needed. It begins at a cache line, so that no vector lies across two.
pub(crate) struct Buffer<T>(Option<Lines<T>>);

#[repr(align(64))]
struct Lines<T>([T; BLOCK]);

impl<T: Copy> Buffer<T> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// The room, filled with `fill` when it is new.
    #[inline(always)]
    pub(crate) fn get(&mut self, fill: T) -> &mut [T; BLOCK] {
        match &mut self.0 {
            Some(lines) => &mut lines.0,
            empty => &mut empty.insert(Lines([fill; BLOCK])).0,
        }
    }
}

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

    /// The elements of a block, where they are `R` and there are as many.
    #[inline(always)]
    pub(crate) fn place(&self, range: Range<usize>) -> Option<&'a [R; BLOCK]> {
        match self {
            Self::Real(values) => values[range].try_into().ok(),
            _ => None,
        }
    }

    /// Puts the elements of a block, or fewer at the end, into the first of `values`.
    #[inline(always)]
    pub(crate) fn load(&self, range: Range<usize>, values: &mut [R; BLOCK]) {
        let values = &mut values[..range.len()];
        match self {
            Self::Real(real) => values.copy_from_slice(&real[range]),
            Self::F16(half) => {
                let mut wide = [0f32; BLOCK];
                let wide = &mut wide[..range.len()];
                half[range].convert_to_f32_slice(wide);
                widen(wide, values);
            }
            Self::Bf16(half) => widen(&half[range], values),
        }
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

    /// Whether the elements of a block are worked on where they are: they are `R`, and there are as many.
    #[inline(always)]
    pub(crate) fn in_place(&self, range: &Range<usize>) -> bool {
        matches!(self, Self::Real(_)) && range.len() == BLOCK
    }

    /// Where the elements of a block are worked on; if that is `buffer`, they were [loaded](AnySlice::load) and are to be
    /// [stored](Self::store).
    #[inline(always)]
    pub(crate) fn place<'b>(&'b mut self, range: Range<usize>, buffer: &'b mut Buffer<R>) -> &'b mut [R; BLOCK] {
        match self {
            Self::Real(values) => match (&mut values[range]).try_into() {
                Ok(values) => values,
                Err(_) => buffer.get(R::zero()),
            },
            _ => buffer.get(R::zero()),
        }
    }

    /// Rounds the first of `values` into the elements of a range, to nearest, or stochastically where there are random bits; to
    /// `f32` and `f64` they are copied.
    #[inline(always)]
    pub(crate) fn store(&mut self, range: Range<usize>, values: &[R; BLOCK], random: Option<Random<'_>>) {
        let values = &values[..range.len()];
        match self {
            Self::Real(real) => real[range].copy_from_slice(values),
            Self::F16(half) => match random {
                Some(random) => round(values, &mut half[range], random, random::to_f16),
                None => {
                    let mut wide = [0f32; BLOCK];
                    let wide = &mut wide[..range.len()];
                    narrow(values, wide);
                    half[range].convert_from_f32_slice(wide);
                }
            },
            Self::Bf16(half) => match random {
                Some(random) => round(values, &mut half[range], random, random::to_bf16),
                None => narrow(values, &mut half[range]),
            },
        }
    }
}

#[inline(always)]
fn widen<T: Element<Real = f32>, R: Real>(from: &[T], to: &mut [R]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = R::from_single(from.to_real());
    }
}

#[inline(always)]
fn narrow<R: Real, T: Element<Real = f32>>(from: &[R], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::from_real(from.to_single());
    }
}

#[inline(always)]
fn round<R: Real, T>(from: &[R], to: &mut [T], random: Random<'_>, round: impl Fn(f32, u32) -> T) {
    for ((to, from), &entry) in to.iter_mut().zip(from).zip(random.table) {
        *to = round(from.to_single(), random.of(entry));
    }
}
