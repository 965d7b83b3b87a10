//! Numbers kept in 8 bits each, in blocks of 256 that share an exponent.
//!
//! A code is a small floating-point number relative to the block's largest. `E` is the block's exponent byte, that of an `f32`:
//!
//! ```text
//! relative      sign, 4 bits of exponent, 3 of mantissa    x = f32 of bits (code + 8 E - 120) << 20
//! non-negative  5 bits of exponent, 3 of mantissa          x = f32 of bits (code + 8 E - 248) << 20
//! shifted       sign, 3 bits of exponent, 4 of mantissa    x = f32 of bits (code + 16 c) << 19  -  f32 of bits c << 23,
//!                                                              c = max(E - 7, 1)
//! ```
//!
//! and code 0 is 0 in each. So encoding and decoding are shifts and sums. The shift by `2^-7` of the block's power of two makes
//! the steps even near 0, where a relative map has ever smaller ones: as fine as `2^-11` of the block's power, and a finer
//! mantissa above. Rounding is stochastic (the mean is right), else a moving average that moves by less than half a step each
//! time would not move at all. A non-negative code of a number above 0 is never 0: a second moment of 0 under a first one that
//! is not would make a huge step.

use super::{
    any::BLOCK,
    random::{self, Random},
};
use crate::element::Real;

/// Bits of an `f32` below 3 bits of mantissa; as many random ones are added before they are dropped.
const DROPPED: u32 = random::BITS;
/// Those below the 4 bits of a shifted code.
const DROPPED_SHIFTED: u32 = DROPPED - 1;
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Which numbers the codes of [`Block8`](crate::Block8) stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockMap {
    /// Of both signs; steps of 1/8 of the number or less, from the largest of the block down to 2^-15 of its power of two.
    Relative,
    /// Of both signs; steps of 1/16 of the number or less, or, near 0, of 2^-11 of the block's power of two.
    Shifted,
    /// Not negative; steps of 1/8 of the number or less, down to 2^-31.
    NonNegative,
}

impl BlockMap {
    /// The largest code of a magnitude.
    const fn top(self) -> i32 {
        match self {
            Self::Relative | Self::Shifted => 0x7f,
            Self::NonNegative => 0xff,
        }
    }

    /// What a code of a floating-point number is added to, to be the high bits of an `f32`: the top code has the block's
    /// exponent.
    const fn base(self, exponent: u8) -> i32 {
        8 * exponent as i32 + 7 - self.top()
    }

    /// What a name in a file says.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Relative => "signed 8-bit blocks",
            Self::Shifted => "shifted 8-bit blocks",
            Self::NonNegative => "non-negative 8-bit blocks",
        }
    }
}

/// The bits of the power of two that shifted codes count from.
const fn shift(exponent: u8) -> u32 {
    let exponent = exponent as u32;
    (if exponent > 8 { exponent - 7 } else { 1 }) << 23
}

/// Writes the codes of the first of `values`, as many as there are codes, and tells their exponent. Random bits decide the
/// rounding.
#[inline(always)]
pub(crate) fn encode<R: Real>(values: &[R; BLOCK], random: Random<'_>, map: BlockMap, codes: &mut [u8]) -> u8 {
    let n = codes.len();
    // A loop of known length leaves no few over; what lies beyond the end does not count.
    let largest = if n == BLOCK { largest(values) } else { largest(&values[..n]) };
    // The largest may be rounded up to the next power of two; not to infinity, and a NaN not beyond.
    let up = largest.saturating_add((1 << DROPPED) - 1) >> 23;
    let (exponent, random) = if up < 255 { (up as u8, random) } else { ((largest >> 23) as u8, Random::NONE) };
    let base = map.base(exponent);
    let floor = base.max(0) as u32;
    let mut room = [0; BLOCK];
    let whole = match <&mut [u8; BLOCK]>::try_from(&mut *codes) {
        Ok(codes) => codes,
        Err(_) => &mut room,
    };
    match map {
        BlockMap::Relative => {
            for ((code, x), &entry) in whole.iter_mut().zip(values).zip(random.table) {
                let rounded = x.to_single().to_bits().wrapping_add(random.of(entry));
                let magnitude = ((rounded & MAGNITUDE) >> DROPPED).max(floor).wrapping_sub(base as u32);
                *code = (magnitude | rounded >> 24 & 0x80) as u8;
            }
        }
        BlockMap::Shifted => {
            let zero = shift(exponent);
            // The shift makes nothing infinite.
            let limit = if largest < f32::INFINITY.to_bits() { f32::MAX.to_bits() } else { MAGNITUDE };
            for ((code, x), &entry) in whole.iter_mut().zip(values).zip(random.table) {
                let x = x.to_single();
                let shifted = (x.abs() + f32::from_bits(zero)).to_bits().min(limit);
                let rounded = shifted.wrapping_add(random.of(entry) >> (DROPPED - DROPPED_SHIFTED));
                let magnitude = rounded.wrapping_sub(zero) >> DROPPED_SHIFTED;
                *code = (magnitude & 0x7f | x.to_bits() >> 24 & 0x80) as u8;
            }
        }
        BlockMap::NonNegative => {
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
pub(crate) fn decode<R: Real>(codes: &[u8], exponent: u8, map: BlockMap, values: &mut [R; BLOCK]) {
    let mut room = [0; BLOCK];
    let whole = match <&[u8; BLOCK]>::try_from(codes) {
        Ok(codes) => codes,
        Err(_) => {
            room[..codes.len()].copy_from_slice(codes);
            &room
        }
    };
    let base = map.base(exponent);
    match map {
        BlockMap::Relative => {
            for (x, &code) in values.iter_mut().zip(whole) {
                *x = R::from_single(relative(code, base));
            }
        }
        BlockMap::Shifted => {
            let zero = shift(exponent);
            for (x, &code) in values.iter_mut().zip(whole) {
                *x = R::from_single(shifted(code, zero));
            }
        }
        BlockMap::NonNegative => {
            for (x, &code) in values.iter_mut().zip(whole) {
                *x = R::from_single(non_negative(code, base));
            }
        }
    }
}

/// Whether every code stands for a number: in a block of small exponent the lowest of some maps do not.
pub(crate) fn valid(codes: &[u8], exponent: u8, map: BlockMap) -> bool {
    let least = if map == BlockMap::Shifted { 0 } else { -map.base(exponent) };
    codes.iter().map(|&code| i32::from(code) & map.top()).all(|magnitude| magnitude == 0 || magnitude >= least)
}

/// The number of one code in a block of this exponent.
pub(crate) fn decode_one(code: u8, exponent: u8, map: BlockMap) -> f32 {
    let base = map.base(exponent);
    match map {
        BlockMap::Relative => relative(code, base),
        BlockMap::Shifted => shifted(code, shift(exponent)),
        BlockMap::NonNegative => non_negative(code, base),
    }
}

#[inline(always)]
fn relative(code: u8, base: i32) -> f32 {
    // The sign is extended to the highest bit, and is not part of the magnitude.
    floating((i32::from(code.cast_signed()) << DROPPED).cast_unsigned() & 0x87f0_0000, base)
}

#[inline(always)]
fn non_negative(code: u8, base: i32) -> f32 {
    floating(u32::from(code) << DROPPED, base)
}

/// The number of the bits of a code; 0 stays 0.
#[inline(always)]
fn floating(bits: u32, base: i32) -> f32 {
    let zero = bits & MAGNITUDE == 0;
    f32::from_bits(if zero { bits } else { bits.wrapping_add((base << DROPPED).cast_unsigned()) })
}

#[inline(always)]
fn shifted(code: u8, zero: u32) -> f32 {
    let magnitude = f32::from_bits((u32::from(code & 0x7f) << DROPPED_SHIFTED) + zero) - f32::from_bits(zero);
    f32::from_bits(magnitude.to_bits() | u32::from(code & 0x80) << 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAPS: [BlockMap; 3] = [BlockMap::Relative, BlockMap::Shifted, BlockMap::NonNegative];

    fn round_trip(values: &[f32], bits: u32, map: BlockMap) -> (Vec<u8>, u8, Vec<f32>) {
        let mut block = [f32::NAN; BLOCK];
        block[..values.len()].copy_from_slice(values);
        let mut codes = vec![0; values.len()];
        let random = Random { table: &[bits; BLOCK], offset: 0 };
        let exponent = encode(&block, random, map, &mut codes);
        assert!(valid(&codes, exponent, map));
        let mut back = [0f32; BLOCK];
        decode(&codes, exponent, map, &mut back);
        (codes, exponent, back[..values.len()].to_vec())
    }

    proptest! {
        #[test]
        fn each_number_is_within_an_eighth(
            values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 1..=BLOCK),
            bits in 0..1u32 << DROPPED,
        ) {
            let largest = values.iter().fold(0f64, |a, x| a.max(f64::from(x.abs())));
            for map in MAPS {
                let sign = |x: &f32| if map == BlockMap::NonNegative { x.abs() } else { *x };
                let values: Vec<f32> = values.iter().map(sign).collect();
                // A step of the number's own size, and the steps below which there is none.
                let (relative, absolute) = match map {
                    BlockMap::Relative => (1.0 / 8.0, 2f64.powi(-13)),
                    BlockMap::Shifted => (1.0 / 16.0, 2f64.powi(-10)),
                    BlockMap::NonNegative => (1.0 / 8.0, 2f64.powi(-29)),
                };
                let (_, _, back) = round_trip(&values, bits, map);
                for (x, y) in values.iter().zip(back) {
                    let (x, y) = (f64::from(*x), f64::from(y));
                    prop_assert!((x - y).abs() <= relative * x.abs() + absolute * largest + 2f64.powi(-129), "{x:e} {y:e} of {largest:e}");
                    prop_assert!(map == BlockMap::Shifted || (x - y).abs() <= x.abs() / 8.0 + 2f64.powi(-129) || x.abs() <= absolute * largest);
                    prop_assert!(y.is_finite() && (y == 0.0 || y.signum() == x.signum()));
                    prop_assert!(map != BlockMap::NonNegative || (x == 0.0) == (y == 0.0) || x < 2f64.powi(-126));
                }
            }
        }

        #[test]
        fn the_mean_of_all_roundings_is_the_number(x in 0.01f32..1.0) {
            for map in MAPS {
                let rounded = |bits| f64::from(round_trip(&[x, 1.0], bits, map).2[0]);
                let mean = (0..1024).map(|i| rounded((i << 10) + 512)).sum::<f64>() / 1024.0;
                prop_assert!((mean - f64::from(x)).abs() <= f64::from(x) / 8.0 / 1000.0, "{x} {mean}");
            }
        }
    }

    #[test]
    fn codes_stand_for_what_the_formula_says() {
        let (codes, exponent, back) = round_trip(&[1.0, -1.125, 0.5, 0.0, 1.875], 0, BlockMap::Relative);
        assert_eq!((exponent, codes), (127, vec![120, 121 | 0x80, 112, 0, 127]));
        assert_eq!(back, [1.0, -1.125, 0.5, 0.0, 1.875]);
        let (codes, exponent, back) =
            round_trip(&[1.0, -2f32.powi(-7), 2f32.powi(-11), 2f32.powi(-12), -0.0], 0, BlockMap::Shifted);
        assert_eq!((exponent, codes), (127, vec![112, 16 | 0x80, 1, 0, 0x80]));
        assert_eq!(back, [1.0 - 2f32.powi(-7), -2f32.powi(-7), 2f32.powi(-11), 0.0, 0.0]);
        let (codes, exponent, back) = round_trip(&[1.0, 2f32.powi(-31), 2f32.powi(-40), 0.0], 0, BlockMap::NonNegative);
        assert_eq!((exponent, codes), (127, vec![248, 1, 1, 0]));
        assert_eq!(back, [1.0, 1.125 * 2f32.powi(-31), 1.125 * 2f32.powi(-31), 0.0]);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let signed = [BlockMap::Relative, BlockMap::Shifted];
        for (bits, map) in [0, (1 << DROPPED) - 1].into_iter().flat_map(|bits| signed.map(|map| (bits, map))) {
            let (_, _, back) =
                round_trip(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, f32::from_bits(u32::MAX)], bits, map);
            assert_eq!((back[0], back[1]), (f32::INFINITY, f32::NEG_INFINITY));
            assert!(back[2].is_nan() && back[3].is_finite() && back[4].is_nan());
            let (_, _, back) = round_trip(&[f32::MAX, f32::MIN], bits, map);
            assert!(back.iter().all(|x| x.is_finite() && x.abs() > 3e38));
        }
    }
}
