//! From values to codes and back, for one group of elements: the scalar maths of quantization.
//!
//! Everything is computed in `f64` and narrowed once.

use super::rows::{Code, Codes};
use crate::element::{Element, Real};
use half::f16;

/// Codes of one tile or run at the most: a table of levels has as many entries.
pub(crate) const MAX_LEVELS: usize = 256;

/// The evenly spaced levels of one group: `min`, `max` and `2^bits - 2` between them.
///
/// `q = round((x - min) / (max - min) * top)`, half to even; `x' = min + q * (max - min) / top`,
/// where `top = 2^bits - 1`. The codes 0 and `top` are `min` and `max` exactly, which the formula misses where one is so much
/// larger that the difference loses the other. A group of one value (`min = max`) has the code 0 and that value.
#[derive(Clone, Copy)]
pub(crate) struct Even {
    min: f64,
    max: f64,
    /// A power of two that keeps `top * (max - min)` finite; 1 unless an `f64` range is huge.
    shrink: f64,
    /// `1 / shrink`
    grow: f64,
    /// `min * shrink`
    low: f64,
    /// `(max - min) * shrink`
    span: f64,
    top: f64,
}

impl Even {
    #[inline(always)]
    pub(crate) fn new(min: f64, max: f64, bits: u32) -> Self {
        let shrink = if max - min < f64::MAX / 512.0 { 1.0 } else { 1.0 / 1024.0 };
        let (low, high) = (min * shrink, max * shrink);
        Self { min, max, shrink, grow: 1.0 / shrink, low, span: high - low, top: f64::from((1u32 << bits) - 1) }
    }
}

/// The value of a code of one group.
pub(crate) trait Level {
    fn level<T: Element>(&self, code: u8) -> T;
}

impl Level for Even {
    #[inline(always)]
    fn level<T: Element>(&self, code: u8) -> T {
        let q = f64::from(code);
        if q == self.top || self.span == 0.0 {
            return T::from_f64(self.max);
        }
        if code == 0 {
            return T::from_f64(self.min);
        }
        let level = (self.low + q * self.span / self.top) * self.grow;
        let level = if level < self.max { level } else { self.max };
        T::from_f64(level)
    }
}

impl<T: Element> Code<T> for Even {
    /// Values beyond the range get the code of its nearer end.
    #[inline(always)]
    fn code(&self, x: T) -> u16 {
        if self.span == 0.0 {
            return 0;
        }
        let place = (x.to_f64() * self.shrink - self.low) / self.span * self.top;
        let place = if place > 0.0 { place } else { 0.0 };
        let place = if place < self.top { place } else { self.top };
        place.nearest() as u16
    }
}

/// The groups of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct EvenGroups<'a> {
    pub(crate) min: Numbers<'a>,
    pub(crate) max: Numbers<'a>,
    pub(crate) bits: u32,
}

impl<T: Element> Codes<T> for EvenGroups<'_> {
    type Code = Even;

    #[inline(always)]
    fn of(&self, group: usize) -> Even {
        Even::new(self.min.get(group), self.max.get(group), self.bits)
    }
}

/// Numbers of either type, read one a group.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    F16(&'a [f16]),
    /// Powers of two, `2^(byte - 127)`.
    E8m0(&'a [u8]),
}

/// `2^(byte - 127)`, exact: the lowest is a subnormal number.
#[inline(always)]
pub(crate) fn power(byte: u8) -> f32 {
    f32::from_bits(if byte == 0 { 1 << 22 } else { u32::from(byte) << 23 })
}

impl Numbers<'_> {
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> f64 {
        match self {
            Self::F32(numbers) => numbers[index].into(),
            Self::F64(numbers) => numbers[index],
            Self::F16(numbers) => numbers[index].into(),
            Self::E8m0(bytes) => power(bytes[index]).into(),
        }
    }

    /// The number at an index, where all of its type fit an `f32`.
    #[inline(always)]
    pub(crate) fn single(&self, index: usize) -> Option<f32> {
        match self {
            Self::F32(numbers) => Some(numbers[index]),
            Self::F64(_) => None,
            Self::F16(numbers) => Some(numbers[index].into()),
            Self::E8m0(bytes) => Some(power(bytes[index])),
        }
    }
}

/// Levels that are listed, those of a group from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub(crate) all: Numbers<'a>,
    pub(crate) first: usize,
}

impl Level for Listed<'_> {
    #[inline(always)]
    fn level<T: Element>(&self, code: u8) -> T {
        T::from_f64(self.all.get(self.first + usize::from(code)))
    }
}

/// Levels that are listed once for all groups, times the scale of a group; at most the largest number of the type.
#[derive(Clone, Copy)]
pub(crate) struct Scaled<'a> {
    pub(crate) table: Numbers<'a>,
    pub(crate) scale: f64,
}

impl Level for Scaled<'_> {
    #[inline(always)]
    fn level<T: Element>(&self, code: u8) -> T {
        T::from_f64((self.table.get(code.into()) * self.scale).clamp(-T::LARGEST, T::LARGEST))
    }
}

/// The levels of all groups of a tensor.
#[derive(Clone, Copy)]
pub(crate) enum Levels<'a> {
    /// Evenly spaced, and the code of 0, the middle one unless it is given.
    Affine { scales: Numbers<'a>, zeros: Option<&'a [u16]> },
    /// Those of codes of 8 bits at most, which a table of one group can hold.
    Few(Few<'a>),
}

#[derive(Clone, Copy)]
pub(crate) enum Few<'a> {
    /// Evenly spaced between a group's `min` and `max`.
    Even { min: Numbers<'a>, max: Numbers<'a> },
    /// `2^bits` numbers a group.
    Table(Numbers<'a>),
    /// `2^bits` numbers for all groups, times each one's scale.
    Scaled { table: Numbers<'a>, scales: Numbers<'a> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even() {
        // Levels 0, 1, 2, 3 of 2 bits.
        let even = Even::new(0.0, 3.0, 2);
        let codes: Vec<u16> = [0.5f32, 1.5, 2.5, 0.4999, 2.500001].map(|x| even.code(x)).into();
        assert_eq!(codes, [0, 2, 2, 0, 3]);
    }

    #[test]
    fn the_ends_are_exact_and_beyond_them_saturates() {
        for (min, max) in [
            (-3.4e38f64, 3.4e38),
            (f64::MIN, f64::MAX),
            (0.0, 5e-324),
            (5e-324, 1.7e308),
            (-1e300, 1e-300),
            (1.0, 1.0 + f64::EPSILON),
        ] {
            for bits in 1..=8 {
                let even = Even::new(min, max, bits);
                let top = ((1u32 << bits) - 1) as u8;
                assert_eq!((even.code(min), even.code(max)), (0, top.into()));
                assert_eq!((even.level::<f64>(0), even.level::<f64>(top)), (min, max));
                assert_eq!((even.code(f64::MIN), even.code(f64::MAX)), (0, top.into()));
            }
        }
    }
}
