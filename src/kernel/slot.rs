//! A slot of optimizer state in the form it is kept in: as it is, in 16 bits, or in 8-bit blocks.

use super::{
    any::{BLOCK, Buffer},
    block8::{self, BlockMap},
    random::Random,
};
use crate::element::{AnySliceMut, Real};
use std::ops::Range;

/// The numbers of a slot, to change.
#[derive(Debug)]
pub(crate) enum SlotMut<'a, R> {
    Any(AnySliceMut<'a, R>),
    Block8 { codes: &'a mut [u8], exponents: &'a mut [u8], map: BlockMap },
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
            Self::Block8 { codes, exponents, map } => {
                let (codes, codes_right) = codes.split_at_mut(mid);
                let (exponents, exponents_right) = exponents.split_at_mut(mid.div_ceil(BLOCK));
                (
                    Self::Block8 { codes, exponents, map },
                    Self::Block8 { codes: codes_right, exponents: exponents_right, map },
                )
            }
        }
    }

    /// Whether the numbers of a block are worked on where they are.
    #[inline(always)]
    pub(crate) fn in_place(&self, range: &Range<usize>) -> bool {
        match self {
            Self::Any(any) => any.in_place(range),
            Self::Block8 { .. } => false,
        }
    }

    /// Puts the numbers of a block, or fewer at the end, into the first of `values`.
    #[inline(always)]
    pub(crate) fn load(&self, range: Range<usize>, values: &mut [R; BLOCK]) {
        match self {
            Self::Any(any) => any.as_any().load(range, values),
            Self::Block8 { codes, exponents, map } => {
                block8::decode(&codes[range.clone()], exponents[range.start / BLOCK], *map, values);
            }
        }
    }

    /// Where the numbers of a block are worked on: `buffer` unless they are [in place](Self::in_place).
    #[inline(always)]
    pub(crate) fn place<'b>(&'b mut self, range: Range<usize>, buffer: &'b mut Buffer<R>) -> &'b mut [R; BLOCK] {
        match self {
            Self::Any(any) => any.place(range, buffer),
            Self::Block8 { .. } => buffer.get(R::zero()),
        }
    }

    /// Takes back what was [loaded](Self::load), rounded by random bits.
    #[inline(always)]
    pub(crate) fn store(&mut self, range: Range<usize>, values: &[R; BLOCK], random: Random<'_>) {
        match self {
            Self::Any(any) => any.store(range, values, Some(random)),
            Self::Block8 { codes, exponents, map } => {
                let exponent = &mut exponents[range.start / BLOCK];
                *exponent = block8::encode(values, random, *map, &mut codes[range]);
            }
        }
    }
}
