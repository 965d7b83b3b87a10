//! A gradient as it is read: of any type, multiplied by a factor, limited.

use super::{
    any::Buffer,
    isa::{Isa, Kernel},
};
use crate::element::{AnySlice, Real};
use std::ops::Range;

/// A gradient of any type, with what is done to it as it is read.
#[derive(Debug, Clone, Copy)]
pub struct GradRef<'a, R> {
    values: AnySlice<'a, R>,
    factor: R,
    limit: R,
}

impl<'a, R: Real> GradRef<'a, R> {
    /// Each number times `factor`, then limited to `-limit ..= limit`.
    pub(crate) fn new(values: AnySlice<'a, R>, factor: R, limit: R) -> Self {
        Self { values, factor, limit }
    }

    /// The numbers as they are.
    pub(crate) fn plain(values: AnySlice<'a, R>) -> Self {
        Self::new(values, R::one(), R::infinity())
    }

    /// The number at an index.
    ///
    /// # Panics
    /// When it is past the end.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, index: usize) -> R {
        self.treated(self.values.at(index))
    }

    /// A NaN stays one.
    #[inline(always)]
    fn treated(&self, grad: R) -> R {
        let grad = grad * self.factor;
        let grad = if grad > self.limit { self.limit } else { grad };
        if grad < -self.limit { -self.limit } else { grad }
    }

    fn untreated(&self) -> bool {
        self.factor == R::one() && self.limit == R::infinity()
    }

    pub(crate) fn split_at(self, mid: usize) -> (Self, Self) {
        let (left, right) = self.values.split_at(mid);
        (Self { values: left, ..self }, Self { values: right, ..self })
    }

    /// The numbers themselves, where they are `R` and nothing is done to them.
    #[inline(always)]
    pub(crate) fn as_real(&self) -> Option<&'a [R]> {
        match self.values {
            AnySlice::Real(values) if self.untreated() => Some(values),
            _ => None,
        }
    }

    /// At most a block of numbers, in `buffer` unless they are there as they should be.
    pub(crate) fn load<'b>(&self, range: Range<usize>, buffer: &'b mut Buffer<R>, isa: Isa) -> &'b [R]
    where
        'a: 'b,
    {
        if self.untreated() {
            return self.values.load(range, buffer, isa);
        }
        let n = range.len();
        let from = match self.values {
            AnySlice::Real(values) => Some(&values[range]),
            _ => {
                self.values.load(range, buffer, isa);
                None
            }
        };
        let to = &mut buffer.get(R::zero())[..n];
        isa.run(Treated { grad: *self, from, to: &mut *to });
        to
    }
}

/// What is done to each number, in place where there is no `from`.
struct Treated<'a, R> {
    grad: GradRef<'a, R>,
    from: Option<&'a [R]>,
    to: &'a mut [R],
}

impl<R: Real> Kernel for Treated<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.from {
            Some(from) => {
                for (to, &from) in self.to.iter_mut().zip(from) {
                    *to = self.grad.treated(from);
                }
            }
            None => {
                for x in self.to {
                    *x = self.grad.treated(*x);
                }
            }
        }
    }
}
