//! Slices of a type chosen at run time: cut in two, and read or written a block at a time.

use super::{
    isa::{Isa, Kernel},
    random::{self, Random},
};
use crate::element::{AnyCow, AnySlice, AnySliceMut, Element, Real};
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

/// Elements that are worked on together: what is widened or decoded for them stays in the first-level cache, and there are enough
/// of them that the end of one stage and the start of the next do not count.
pub(crate) const BLOCK: usize = 1024;

/// Room for one block, made when it is first needed. It begins at a cache line, so that no vector lies across two.
pub(crate) struct Buffer<T>(Option<Lines<T>>);

#[repr(align(64))]
struct Lines<T>([T; BLOCK]);

impl<T: Copy> Buffer<T> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// The room, filled with `fill` when it is new.
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

    /// At most [`BLOCK`] elements, widened into `buffer` unless they are `R` already.
    pub(crate) fn load<'b>(&self, range: Range<usize>, buffer: &'b mut Buffer<R>, isa: Isa) -> &'b [R]
    where
        'a: 'b,
    {
        if let Self::Real(values) = self {
            return &values[range];
        }
        let buffer = &mut buffer.get(R::zero())[..range.len()];
        match self {
            Self::Real(values) => buffer.copy_from_slice(&values[range]),
            Self::F16(values) => {
                let mut wide = [0f32; BLOCK];
                let wide = &mut wide[..buffer.len()];
                values[range].convert_to_f32_slice(wide);
                isa.run(Widen { from: wide, to: buffer });
            }
            Self::Bf16(values) => isa.run(Widen { from: &values[range], to: buffer }),
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
    pub(crate) fn load<'b>(&'b mut self, range: Range<usize>, buffer: &'b mut Buffer<R>, isa: Isa) -> &'b mut [R] {
        if let Self::Real(values) = self {
            return &mut values[range];
        }
        let n = range.len();
        self.as_any().load(range, buffer, isa);
        &mut buffer.get(R::zero())[..n]
    }

    /// Rounds `values` into the elements of a range, to nearest, or stochastically where there are random bits; to `f32` and
    /// `f64` they are copied.
    pub(crate) fn store(&mut self, range: Range<usize>, values: &[R], random: Option<Random<'_>>, isa: Isa) {
        match self {
            Self::Real(real) => real[range].copy_from_slice(values),
            Self::F16(half) => match random {
                Some(random) => isa.run(Round { from: values, to: &mut half[range], random, round: random::to_f16 }),
                None => {
                    let mut wide = [0f32; BLOCK];
                    let wide = &mut wide[..values.len()];
                    isa.run(Narrow { from: values, to: wide });
                    half[range].convert_from_f32_slice(wide);
                }
            },
            Self::Bf16(half) => match random {
                Some(random) => isa.run(Round { from: values, to: &mut half[range], random, round: random::to_bf16 }),
                None => isa.run(Narrow { from: values, to: &mut half[range] }),
            },
        }
    }
}

struct Widen<'a, T, R> {
    from: &'a [T],
    to: &'a mut [R],
}

impl<T: Element<Real = f32>, R: Real> Kernel for Widen<'_, T, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = R::from_single(from.to_real());
        }
    }
}

struct Narrow<'a, R, T> {
    from: &'a [R],
    to: &'a mut [T],
}

impl<R: Real, T: Element<Real = f32>> Kernel for Narrow<'_, R, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = T::from_real(from.to_single());
        }
    }
}

struct Round<'a, R, T, F> {
    from: &'a [R],
    to: &'a mut [T],
    random: Random<'a>,
    round: F,
}

impl<R: Real, T, F: Fn(f32, u32) -> T> Kernel for Round<'_, R, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let random = self.random;
        for ((to, from), &entry) in self.to.iter_mut().zip(self.from).zip(random.table) {
            *to = (self.round)(from.to_single(), random.of(entry));
        }
    }
}
