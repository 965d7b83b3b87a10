//! A gradient as it is read: of any type, multiplied by a factor, limited.

use super::any::{BLOCK, Buffer};
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

    /// The numbers of a block, or fewer at the end: in `buffer` unless they are there as they should be.
    #[inline(always)]
    pub(crate) fn load<'b>(&self, range: Range<usize>, buffer: &'b mut Buffer<R>) -> &'b [R; BLOCK]
    where
        'a: 'b,
    {
        match self.values.place(range.clone()) {
            Some(values) if self.untreated() => values,
            Some(values) => {
                let treated = buffer.get(R::zero());
                for (treated, &grad) in treated.iter_mut().zip(values) {
                    *treated = self.treated(grad);
                }
                treated
            }
            None => {
                let values = buffer.get(R::zero());
                self.values.load(range, values);
                for grad in &mut *values {
                    *grad = self.treated(*grad);
                }
                values
            }
        }
    }
}
