//! The numbers a tensor can hold, and the arithmetic they are computed in.

use half::{bf16, f16};
use num_traits::Float;
use std::{
    borrow::Cow,
    fmt::{Debug, Display},
};

/// A data type, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// An element of a tensor: `f32`, `f64`, [`struct@f16`] or [`bf16`].
///
/// Kernels widen an element to its [`Real`](Element::Real), compute, and round to nearest even once.
pub trait Element:
    sealed::Sealed + Copy + Default + PartialEq + PartialOrd + Debug + Display + Send + Sync + 'static
{
    /// The type arithmetic is done in: `f64` for `f64`, `f32` for all others.
    type Real: Real;
    /// The type's name at run time.
    const DTYPE: DType;

    /// Widens; exact.
    fn to_real(self) -> Self::Real;
    /// Narrows, to nearest, ties to even.
    fn from_real(real: Self::Real) -> Self;
    /// Widens; exact.
    fn to_f64(self) -> f64;
    /// Narrows in one rounding, to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
    /// Whether it is neither NaN nor infinite.
    fn finite(self) -> bool;
    /// The largest number.
    #[doc(hidden)]
    const LARGEST: f64;
    #[doc(hidden)]
    fn any(values: &[Self]) -> AnySlice<'_, Self::Real>;
    #[doc(hidden)]
    fn any_mut(values: &mut [Self]) -> AnySliceMut<'_, Self::Real>;
    #[doc(hidden)]
    fn any_cow(values: Cow<'_, [Self]>) -> AnyCow<'_, Self::Real>;
}

/// Elements of a type chosen at run time, whose arithmetic is done in `R`.
#[derive(Debug, Clone, Copy)]
pub enum AnySlice<'a, R> {
    Real(&'a [R]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// As [`AnySlice`], to change.
#[derive(Debug)]
pub enum AnySliceMut<'a, R> {
    Real(&'a mut [R]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
}

/// As [`AnySlice`], owned where a view had to be copied.
#[derive(Debug, Clone)]
pub enum AnyCow<'a, R: Clone> {
    Real(Cow<'a, [R]>),
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
}

/// The types that kernels compute in: `f32` and `f64`.
pub trait Real: Element<Real = Self> + Float {
    /// The bits of `|x|` as an integer: orders magnitudes as the numbers do, NaN above infinity.
    fn magnitude_bits(self) -> u64;
    /// Significant bits of [`magnitude_bits`](Real::magnitude_bits).
    const MAGNITUDE_WIDTH: u32;
    /// Rounds to `f32`, to nearest, ties to even.
    fn to_single(self) -> f32;
    /// Widens from `f32`; exact.
    fn from_single(single: f32) -> Self;
    /// A small integer; exact.
    fn from_integer(integer: i32) -> Self;
    /// The nearest integer, half to even, of a magnitude below 2^22.
    fn nearest(self) -> i32;
    /// The next smaller number.
    fn below(self) -> Self;
    /// Rounds to `f32`, an inexact result to the neighbour whose last bit is odd.
    fn to_odd_single(self) -> f32;
}

macro_rules! any {
    ($variant:ident) => {
        #[inline(always)]
        fn any(values: &[Self]) -> AnySlice<'_, Self::Real> {
            AnySlice::$variant(values)
        }
        #[inline(always)]
        fn any_mut(values: &mut [Self]) -> AnySliceMut<'_, Self::Real> {
            AnySliceMut::$variant(values)
        }
        #[inline(always)]
        fn any_cow(values: Cow<'_, [Self]>) -> AnyCow<'_, Self::Real> {
            AnyCow::$variant(values)
        }
    };
}

macro_rules! real {
    ($t:ty, $dtype:ident, $width:literal, $shift:expr, $odd:expr) => {
        impl sealed::Sealed for $t {}
        impl Element for $t {
            type Real = $t;
            const DTYPE: DType = DType::$dtype;
            const LARGEST: f64 = <$t>::MAX as f64;
            #[inline(always)]
            fn to_real(self) -> $t {
                self
            }
            #[inline(always)]
            fn from_real(real: $t) -> Self {
                real
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn finite(self) -> bool {
                self.abs() < <$t>::INFINITY
            }
            any!(Real);
        }
        impl Real for $t {
            const MAGNITUDE_WIDTH: u32 = $width;
            #[inline(always)]
            fn magnitude_bits(self) -> u64 {
                u64::from(self.abs().to_bits())
            }
            #[inline(always)]
            fn to_single(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn from_single(single: f32) -> Self {
                single.into()
            }
            #[inline(always)]
            fn from_integer(integer: i32) -> Self {
                integer as $t
            }
            #[inline(always)]
            fn nearest(self) -> i32 {
                // The sum is a number whose unit in the last place is 1; the lowest bits are the integer.
                const SHIFT: $t = $shift;
                ((self + SHIFT).to_bits() as u32).wrapping_sub(SHIFT.to_bits() as u32).cast_signed()
            }
            #[inline(always)]
            fn below(self) -> Self {
                self.next_down()
            }
            #[inline(always)]
            fn to_odd_single(self) -> f32 {
                $odd(self)
            }
        }
    };
}

real!(f32, F32, 31, 12_582_912.0, f32::from);
real!(f64, F64, 63, 6_755_399_441_055_744.0, to_f32_odd);

macro_rules! half {
    ($t:ty, $dtype:ident, $exponent:literal) => {
        impl sealed::Sealed for $t {}
        impl Element for $t {
            type Real = f32;
            const DTYPE: DType = DType::$dtype;
            const LARGEST: f64 = <$t>::MAX.to_f64_const();
            #[inline(always)]
            fn to_real(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn from_real(real: f32) -> Self {
                Self::from_f32(real)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self.to_f32())
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                Self::from_f32(to_f32_odd(value))
            }
            #[inline(always)]
            fn finite(self) -> bool {
                self.to_bits() & $exponent != $exponent
            }
            any!($dtype);
        }
    };
}

half!(f16, F16, 0x7c00);
half!(bf16, Bf16, 0x7f80);

/// `f64` to `f32`, inexact results rounded to the neighbour whose last bit is odd.
///
/// A second rounding, to 16 bits, then gives what a single one would have given: the odd bit says
/// "not a tie" (Boldo & Melquiond 2008). A plain `as f32` before it rounds some values twice.
#[inline(always)]
fn to_f32_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let bits = nearest.to_bits();
    if back == value || bits & 1 == 1 || value.is_nan() {
        nearest
    } else if back.abs() > value.abs() {
        f32::from_bits(bits - 1)
    } else {
        f32::from_bits(bits + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The nearest 16-bit value by search over all of them, ties to the even code.
    fn nearest_by_search<T: Element>(value: f64, all: impl Iterator<Item = (u16, T)>) -> T {
        all.filter(|(_, t)| t.finite())
            .min_by(|(a, x), (b, y)| {
                let (dx, dy) = ((x.to_f64() - value).abs(), (y.to_f64() - value).abs());
                dx.total_cmp(&dy).then((a & 1).cmp(&(b & 1)))
            })
            .map(|(_, t)| t)
            .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn narrowing_rounds_once(x in -60000.0..60000.0f64, scale in 0i32..40) {
            let x = x * 2f64.powi(-scale);
            let want = nearest_by_search(x, (0..=u16::MAX).map(|b| (b, f16::from_bits(b))));
            prop_assert_eq!(f16::from_f64(x).to_f64(), x.signum() * want.to_f64().abs());
        }
    }

    #[test]
    fn narrowing_sees_what_lies_beyond_f32() {
        // Just above the tie between 1 and the next f16: f32 alone would call it the tie.
        let just_above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(<f16 as Element>::from_f64(just_above).to_bits(), 0x3c01);
        let just_above = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        assert_eq!(<bf16 as Element>::from_f64(just_above).to_bits(), 0x3f81);
        assert!(<f16 as Element>::from_f64(f64::NAN).is_nan());
        assert_eq!(<f16 as Element>::from_f64(1e300), f16::INFINITY);
        assert_eq!(<bf16 as Element>::from_f64(f64::NEG_INFINITY), bf16::NEG_INFINITY);
    }

    #[test]
    fn nearest_is_half_to_even() {
        fn check<R: Real>() {
            for (x, want) in
                [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.4999, -2), (-255.0, -255), (0.0, 0)]
            {
                assert_eq!(R::from_f64(x).nearest(), want, "{x}");
            }
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn finite_tells_nan_and_infinities() {
        fn check<T: Element>(max: T, inf: T, nan: T) {
            assert!(max.finite() && T::default().finite() && !inf.finite() && !nan.finite());
        }
        check(f32::MAX, f32::NEG_INFINITY, f32::NAN);
        check(f64::MIN, f64::INFINITY, f64::NAN);
        check(f16::MAX, f16::INFINITY, f16::NAN);
        check(bf16::MIN, bf16::INFINITY, bf16::NAN);
    }
}
