//! A slot of optimizer state in the form it is kept in: as it is, in 16 bits, or in 8-bit blocks.

use super::{
    any::{BLOCK, Buffer},
    block8::{Decode, Encode, GROUP, Sign},
    isa::Isa,
    random::Random,
};
use crate::element::{AnySliceMut, Real};
use std::ops::Range;

/// The numbers of a slot, to change.
#[derive(Debug)]
pub(crate) enum SlotMut<'a, R> {
    Any(AnySliceMut<'a, R>),
    Block8 { codes: &'a mut [u8], exponents: &'a mut [u8], sign: Sign },
}

impl<R: Real> Default for SlotMut<'_, R> {
    fn default() -> Self {
        Self::Any(AnySliceMut::Real(&mut []))
    }
}

impl<'a, R: Real> SlotMut<'a, R> {
    /// The numbers themselves, where they are kept as `R`.
    #[inline(always)]
    pub(crate) fn as_real(&mut self) -> Option<&mut [R]> {
        match self {
            Self::Any(AnySliceMut::Real(values)) => Some(values),
            _ => None,
        }
    }

    /// The numbers themselves for as long as the slot lives, where they are kept as `R`.
    pub(crate) fn into_real(self) -> Option<&'a mut [R]> {
        match self {
            Self::Any(AnySliceMut::Real(values)) => Some(values),
            _ => None,
        }
    }

    /// `mid` is a multiple of [`BLOCK`], or the length.
    pub(crate) fn split_at(self, mid: usize) -> (Self, Self) {
        match self {
            Self::Any(any) => {
                let (left, right) = any.split_at(mid);
                (Self::Any(left), Self::Any(right))
            }
            Self::Block8 { codes, exponents, sign } => {
                let (codes, codes_right) = codes.split_at_mut(mid);
                let (exponents, exponents_right) = exponents.split_at_mut(mid.div_ceil(GROUP));
                (
                    Self::Block8 { codes, exponents, sign },
                    Self::Block8 { codes: codes_right, exponents: exponents_right, sign },
                )
            }
        }
    }

    /// The numbers of a block: themselves where they are `R`, else put into `buffer`, to be [stored](Self::store).
    pub(crate) fn load<'b>(&'b mut self, range: Range<usize>, buffer: &'b mut Buffer<R>, isa: Isa) -> &'b mut [R] {
        match self {
            Self::Any(any) => any.load(range, buffer, isa),
            Self::Block8 { codes, exponents, sign } => {
                let (exponents, n) = (&exponents[groups(&range)], range.len());
                let values = buffer.get(R::zero());
                isa.run(Decode { codes: &codes[range], exponents, sign: *sign, values });
                &mut values[..n]
            }
        }
    }

    /// Takes back what was [loaded](Self::load) into a buffer, rounded by random bits.
    pub(crate) fn store(&mut self, range: Range<usize>, values: &[R; BLOCK], random: Random<'_>, isa: Isa) {
        match self {
            Self::Any(any) => any.store(range.clone(), &values[..range.len()], Some(random), isa),
            Self::Block8 { codes, exponents, sign } => {
                let exponents = &mut exponents[groups(&range)];
                isa.run(Encode { values, random, sign: *sign, codes: &mut codes[range], exponents });
            }
        }
    }
}

/// The groups that the elements of a range are in; it starts at one.
fn groups(range: &Range<usize>) -> Range<usize> {
    range.start / GROUP..range.end.div_ceil(GROUP)
}
