//! Numbers kept in 8 bits each, in blocks of 256 that share an exponent.
//!
//! A code is a small floating-point number relative to the block's largest, with 3 bits of mantissa; with a sign and 4 bits
//! of exponent, or without a sign and 5 bits. `E` is the block's exponent byte, that of an `f32`:
//!
//! ```text
//! base = 8 E - 120 (signed), 8 E - 248 (unsigned)
//! x    = 0                             code 0
//! x    = f32 of bits (code + base) << 20    else; the sign is the highest bit of a signed code
//! ```
//!
//! So encoding and decoding are shifts and sums of integers. Rounding is stochastic (the mean is right), else a moving average
//! that moves by less than half a step each time would not move at all. An unsigned code of a number above 0 is never 0:
//! a second moment of 0 under a first one that is not would make a huge step.

use super::{
    any::BLOCK,
    random::{self, Random},
};
use crate::element::Real;

/// Bits of an `f32` below a code's mantissa; as many random ones are added before they are dropped.
const DROPPED: u32 = random::BITS;
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Which numbers a code can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sign {
    /// Of both signs, from the largest of the block down to 2^-15 of its power of two.
    Signed,
    /// Not negative, down to 2^-31.
    NonNegative,
}

impl Sign {
    /// The largest code of a magnitude.
    const fn top(self) -> i32 {
        match self {
            Self::Signed => 0x7f,
            Self::NonNegative => 0xff,
        }
    }

    /// What a code is added to, to be the high bits of an `f32`: the top code has the block's exponent.
    const fn base(self, exponent: u8) -> i32 {
        8 * exponent as i32 + 7 - self.top()
    }
}

/// Writes the codes of the first of `values`, as many as there are codes, and tells their exponent. Random bits decide the
/// rounding.
#[inline(always)]
pub(crate) fn encode<R: Real>(values: &[R; BLOCK], random: Random<'_>, sign: Sign, codes: &mut [u8]) -> u8 {
    let n = codes.len();
    // A loop of known length leaves no few over; what lies beyond the end does not count.
    let largest = if n == BLOCK { largest(values) } else { largest(&values[..n]) };
    // The largest may be rounded up to the next power of two; not to infinity, and a NaN not beyond.
    let up = largest.saturating_add((1 << DROPPED) - 1) >> 23;
    let (exponent, random) = if up < 255 { (up as u8, random) } else { ((largest >> 23) as u8, Random::NONE) };
    let base = sign.base(exponent);
    let floor = base.max(0) as u32;
    let mut room = [0; BLOCK];
    let whole = match <&mut [u8; BLOCK]>::try_from(&mut *codes) {
        Ok(codes) => codes,
        Err(_) => &mut room,
    };
    match sign {
        Sign::Signed => {
            for ((code, x), &entry) in whole.iter_mut().zip(values).zip(random.table) {
                let rounded = x.to_single().to_bits().wrapping_add(random.of(entry));
                let magnitude = ((rounded & MAGNITUDE) >> DROPPED).max(floor).wrapping_sub(base as u32);
                *code = (magnitude | rounded >> 24 & 0x80) as u8;
            }
        }
        Sign::NonNegative => {
            for ((code, x), &entry) in whole.iter_mut().zip(values).zip(random.table) {
                let bits = x.to_single().to_bits() & MAGNITUDE;
                let rounded = bits.wrapping_add(random.of(entry));
                let magnitude = (rounded >> DROPPED).max(floor + 1).wrapping_sub(base as u32);
                *code = if bits == 0 { 0 } else { magnitude as u8 };
            }
        }
    }
    if n < BLOCK {
        codes.copy_from_slice(&room[..n]);
    }
    exponent
}

/// The bits of the largest magnitude.
#[inline(always)]
fn largest<R: Real>(values: &[R]) -> u32 {
    let mut largest = 0;
    for x in values {
        largest = largest.max(x.to_single().to_bits() & MAGNITUDE);
    }
    largest
}

/// Puts the numbers of the codes, of one exponent, into the first of `values`.
#[inline(always)]
pub(crate) fn decode<R: Real>(codes: &[u8], exponent: u8, sign: Sign, values: &mut [R; BLOCK]) {
    let mut room = [0; BLOCK];
    let whole = match <&[u8; BLOCK]>::try_from(codes) {
        Ok(codes) => codes,
        Err(_) => {
            room[..codes.len()].copy_from_slice(codes);
            &room
        }
    };
    let base = sign.base(exponent);
    match sign {
        Sign::Signed => {
            for (x, &code) in values.iter_mut().zip(whole) {
                *x = R::from_single(f32::from_bits(number(code, base, Sign::Signed)));
            }
        }
        Sign::NonNegative => {
            for (x, &code) in values.iter_mut().zip(whole) {
                *x = R::from_single(f32::from_bits(number(code, base, Sign::NonNegative)));
            }
        }
    }
}

/// Whether every code stands for a number: in a block of small exponent the lowest do not.
pub(crate) fn valid(codes: &[u8], exponent: u8, sign: Sign) -> bool {
    let least = -sign.base(exponent);
    codes.iter().map(|&code| i32::from(code) & sign.top()).all(|magnitude| magnitude == 0 || magnitude >= least)
}

/// The number of one code in a block of this exponent.
pub(crate) fn decode_one(code: u8, exponent: u8, sign: Sign) -> f32 {
    f32::from_bits(number(code, sign.base(exponent), sign))
}

/// The bits of the number of one code.
#[inline(always)]
fn number(code: u8, base: i32, sign: Sign) -> u32 {
    // The sign is extended to the highest bit, and is not part of the magnitude.
    let bits = match sign {
        Sign::Signed => (i32::from(code.cast_signed()) << DROPPED).cast_unsigned() & 0x87f0_0000,
        Sign::NonNegative => u32::from(code) << DROPPED,
    };
    if bits & MAGNITUDE == 0 { bits } else { bits.wrapping_add((base << DROPPED).cast_unsigned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f32], bits: u32, sign: Sign) -> (Vec<u8>, u8, Vec<f32>) {
        let mut block = [f32::NAN; BLOCK];
        block[..values.len()].copy_from_slice(values);
        let mut codes = vec![0; values.len()];
        let random = Random { table: &[bits; BLOCK], offset: 0 };
        let exponent = encode(&block, random, sign, &mut codes);
        assert!(valid(&codes, exponent, sign));
        let mut back = [0f32; BLOCK];
        decode(&codes, exponent, sign, &mut back);
        (codes, exponent, back[..values.len()].to_vec())
    }

    proptest! {
        #[test]
        fn each_number_is_within_an_eighth(
            values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 1..=BLOCK),
            bits in 0..1u32 << DROPPED,
        ) {
            let largest = values.iter().fold(0f32, |a, x| a.max(x.abs()));
            for sign in [Sign::Signed, Sign::NonNegative] {
                let values: Vec<f32> = if sign == Sign::Signed { values.clone() } else { values.iter().map(|x| x.abs()).collect() };
                let reach = if sign == Sign::Signed { 2f64.powi(-14) } else { 2f64.powi(-30) } * f64::from(largest);
                let (_, _, back) = round_trip(&values, bits, sign);
                for (x, y) in values.iter().zip(back) {
                    let (x, y) = (f64::from(*x), f64::from(y));
                    let step = x.abs() / 8.0 + 2f64.powi(-129);
                    prop_assert!((x - y).abs() <= step || x.abs() <= 2.0 * reach, "{x:e} {y:e} of {largest:e}");
                    prop_assert!((x - y).abs() <= 2.0 * reach + step);
                    prop_assert!(y.is_finite() && (y == 0.0 || y.signum() == x.signum()));
                    prop_assert!(sign == Sign::Signed || (x == 0.0) == (y == 0.0) || x < 2f64.powi(-126));
                }
            }
        }

        #[test]
        fn the_mean_of_all_roundings_is_the_number(x in 0.01f32..1.0) {
            for sign in [Sign::Signed, Sign::NonNegative] {
                let rounded = |bits| f64::from(round_trip(&[x, 1.0], bits, sign).2[0]);
                let mean = (0..1024).map(|i| rounded((i << 10) + 512)).sum::<f64>() / 1024.0;
                prop_assert!((mean - f64::from(x)).abs() <= f64::from(x) / 8.0 / 1000.0, "{x} {mean}");
            }
        }
    }

    #[test]
    fn codes_stand_for_what_the_formula_says() {
        let (codes, exponent, back) = round_trip(&[1.0, -1.125, 0.5, 0.0, 1.875], 0, Sign::Signed);
        assert_eq!((exponent, codes), (127, vec![120, 121 | 0x80, 112, 0, 127]));
        assert_eq!(back, [1.0, -1.125, 0.5, 0.0, 1.875]);
        let (codes, exponent, back) = round_trip(&[1.0, 2f32.powi(-31), 2f32.powi(-40), 0.0], 0, Sign::NonNegative);
        assert_eq!((exponent, codes), (127, vec![248, 1, 1, 0]));
        assert_eq!(back, [1.0, 1.125 * 2f32.powi(-31), 1.125 * 2f32.powi(-31), 0.0]);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bits in [0, (1 << DROPPED) - 1] {
            let (_, _, back) = round_trip(
                &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, f32::from_bits(u32::MAX)],
                bits,
                Sign::Signed,
            );
            assert_eq!((back[0], back[1]), (f32::INFINITY, f32::NEG_INFINITY));
            assert!(back[2].is_nan() && back[4].is_nan());
            let (_, _, back) = round_trip(&[f32::MAX, f32::MIN], bits, Sign::Signed);
            assert!(back.iter().all(|x| x.is_finite() && x.abs() > 3e38));
        }
    }
}
