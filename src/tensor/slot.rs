//! One named array of optimizer state, in full precision or in fewer bits.

use super::{
    values::Values,
    view::{Dims, filled},
};
use crate::{
    element::{AnySliceMut, Element, Real},
    error::Result,
    kernel::{
        any::BLOCK,
        block8::{self, BlockMap},
        random::Random,
        slot::SlotMut,
    },
};
use half::bf16;
use std::borrow::Cow;

/// In how many bits an optimizer keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Precision {
    /// As the parameter's arithmetic is done: `f64` for `f64`, else `f32`.
    #[default]
    Full,
    /// 16 bits, rounded stochastically.
    Bf16,
    /// 8 bits, in blocks of 256 that share an exponent, rounded stochastically.
    #[cfg_attr(feature = "serde", serde(rename = "eight_bit"))]
    Eight,
}

/// The numbers of a slot.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SlotValues {
    /// In full precision.
    Full(Values),
    /// In 16 bits.
    Bf16(Vec<bf16>),
    /// In 8 bits.
    Eight(Block8),
}

/// Numbers in 8 bits each: in each block of 256 small floating-point numbers relative to its largest.
///
/// A block has an exponent byte `E`, that of an `f32`, and a code of 0 stands for 0. Another stands, by the [map](BlockMap), for
///
/// | map | the bits of a code | number |
/// |---|---|---|
/// | relative | sign, 4 of exponent, 3 of mantissa | the `f32` of the bits `(code + 8 E - 120) << 20` |
/// | shifted | sign, 3 of exponent, 4 of mantissa | the `f32` of the bits `(code + 16 c) << 19` less that of `c << 23`, `c = max(E - 7, 1)` |
/// | non-negative | 5 of exponent, 3 of mantissa | the `f32` of the bits `(code + 8 E - 248) << 20` |
///
/// where the sign, the highest bit, is no part of `code`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block8 {
    codes: Vec<u8>,
    exponents: Vec<u8>,
    map: BlockMap,
}

impl Block8 {
    /// Zeros.
    fn zeros(len: usize, map: BlockMap) -> Result<Self> {
        Ok(Self { codes: filled(len, 0)?, exponents: filled(len.div_ceil(BLOCK), 0)?, map })
    }

    /// From what [`codes`](Block8::codes) and [`exponents`](Block8::exponents) gave; `None` when there is not one exponent for
    /// each 256 codes, or a code stands for no number.
    #[must_use]
    pub fn from_parts(codes: Vec<u8>, exponents: Vec<u8>, map: BlockMap) -> Option<Self> {
        let fits = exponents.len() == codes.len().div_ceil(BLOCK)
            && codes.chunks(BLOCK).zip(&exponents).all(|(codes, &exponent)| block8::valid(codes, exponent, map));
        fits.then_some(Self { codes, exponents, map })
    }

    /// One code a number.
    #[must_use]
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// One exponent for each 256 numbers.
    #[must_use]
    pub fn exponents(&self) -> &[u8] {
        &self.exponents
    }

    /// Which numbers the codes stand for.
    #[must_use]
    pub fn map(&self) -> BlockMap {
        self.map
    }

    fn as_slot<R>(&mut self) -> SlotMut<'_, R> {
        SlotMut::Block8 { codes: &mut self.codes, exponents: &mut self.exponents, map: self.map }
    }
}

impl From<Values> for SlotValues {
    fn from(values: Values) -> Self {
        Self::Full(values)
    }
}

impl SlotValues {
    /// `len` copies of `value`.
    pub(crate) fn filled<R: Real>(len: usize, value: f64, precision: Precision, map: BlockMap) -> Result<Self> {
        let mut values = match precision {
            Precision::Full => return Ok(Self::Full(Values::filled::<R>(len, value)?)),
            Precision::Bf16 => Self::Bf16(filled(len, <bf16 as Element>::from_f64(value))?),
            Precision::Eight => Self::Eight(Block8::zeros(len, map)?),
        };
        if precision == Precision::Eight && value != 0.0 {
            values.refill(std::iter::repeat_n(value, len));
        }
        Ok(values)
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Full(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Eight(values) => values.codes.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at an index, widened; `None` past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<f64> {
        match self {
            Self::Full(values) => values.get(index),
            Self::Bf16(values) => values.get(index).map(|x| x.to_f64()),
            Self::Eight(Block8 { codes, exponents, map }) => {
                let number = block8::decode_one(*codes.get(index)?, *exponents.get(index / BLOCK)?, *map);
                Some(number.into())
            }
        }
    }

    /// As a slice, when they are in full precision and the type is `R`.
    #[must_use]
    pub fn as_slice<R: Real>(&self) -> Option<&[R]> {
        match self {
            Self::Full(values) => values.as_slice(),
            _ => None,
        }
    }

    /// Bytes the numbers take.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        match self {
            Self::Full(values) => values.byte_size(),
            Self::Bf16(values) => 2 * values.len(),
            Self::Eight(values) => values.codes.len() + values.exponents.len(),
        }
    }

    /// What they are kept as, for messages and for comparing.
    pub(crate) fn form(&self) -> &'static str {
        match self {
            Self::Full(Values::F32(_)) => "f32",
            Self::Full(Values::F64(_)) => "f64",
            Self::Bf16(_) => "bf16",
            Self::Eight(values) => values.map.name(),
        }
    }

    /// The numbers to change by arithmetic in `R`; `None` when they are kept in another full precision.
    pub(crate) fn as_slot<R: Real>(&mut self) -> Option<SlotMut<'_, R>> {
        Some(match self {
            Self::Full(values) => SlotMut::Any(AnySliceMut::Real(values.as_mut_slice()?)),
            Self::Bf16(values) => SlotMut::Any(AnySliceMut::Bf16(values)),
            Self::Eight(values) => values.as_slot(),
        })
    }

    /// Replaces the numbers, as many, rounded to nearest.
    pub(crate) fn refill(&mut self, numbers: impl Iterator<Item = f64>) {
        match self {
            Self::Full(Values::F32(values)) => {
                values.iter_mut().zip(numbers).for_each(|(x, number)| *x = number as f32)
            }
            Self::Full(Values::F64(values)) => values.iter_mut().zip(numbers).for_each(|(x, number)| *x = number),
            Self::Bf16(values) => {
                values.iter_mut().zip(numbers).for_each(|(x, number)| *x = <bf16 as Element>::from_f64(number));
            }
            Self::Eight(Block8 { codes, exponents, map }) => {
                // Bits in the middle: the nearer neighbour is chosen.
                const MIDDLE: Random<'_> = Random { table: &[1 << 19; BLOCK], offset: 0 };
                let mut numbers = numbers.fuse();
                for (codes, exponent) in codes.chunks_mut(BLOCK).zip(exponents) {
                    let mut values = [0.0; BLOCK];
                    values.iter_mut().zip(numbers.by_ref().take(codes.len())).for_each(|(x, number)| *x = number);
                    *exponent = block8::encode(&values, MIDDLE, *map, codes);
                }
            }
        }
    }

    /// Those at `indices`, in the same form; 8-bit ones are rounded anew, since they share exponents.
    pub(crate) fn gather(&self, indices: impl Iterator<Item = usize> + Clone) -> Self {
        fn pick<T: Copy>(values: &[T], indices: impl Iterator<Item = usize>) -> Vec<T> {
            indices.filter_map(|i| values.get(i).copied()).collect()
        }
        match self {
            Self::Full(Values::F32(values)) => Self::Full(Values::F32(pick(values, indices))),
            Self::Full(Values::F64(values)) => Self::Full(Values::F64(pick(values, indices))),
            Self::Bf16(values) => Self::Bf16(pick(values, indices)),
            Self::Eight(Block8 { codes, map, .. }) => {
                let codes = pick(codes, indices.clone());
                let exponents = vec![0; codes.len().div_ceil(BLOCK)];
                let mut cut = Self::Eight(Block8 { codes, exponents, map: *map });
                cut.refill(indices.filter_map(|i| self.get(i)));
                cut
            }
        }
    }
}

/// One named array of optimizer state.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    pub(super) name: Cow<'static, str>,
    pub(super) dims: Dims,
    pub(super) initial: f64,
    /// Whether it stands in for the parameter itself.
    pub(super) weights: bool,
    pub(super) values: SlotValues,
}

impl Slot {
    /// The slot's name, PyTorch's where there is one (`exp_avg`, `momentum_buffer`).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.dims
    }

    /// The value the slot started with; under a mask, that of pruned elements.
    #[must_use]
    pub fn initial(&self) -> f64 {
        self.initial
    }

    pub(crate) fn stands_for_weights(&self) -> bool {
        self.weights
    }

    /// The numbers, in logical order.
    #[must_use]
    pub fn values(&self) -> &SlotValues {
        &self.values
    }
}
