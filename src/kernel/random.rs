//! Random bits that depend on a seed, a step and an element's index alone, and rounding by them.
//!
//! The generator is frozen. With `fmix32` and `fmix64`, the finalizers of MurmurHash3 (A. Appleby, public domain), and
//! `s = seed ^ fmix64(step + 1)`, the 20 bits of element `i` for the rounding number `k` of a step are
//!
//! ```text
//! fmix32(low(fmix64(s)) + 256 k + i mod 256) div 2^12  xor  fmix64(s + 1 + i div 256) div 2^(44 - 20 (k mod 3)) mod 2^20
//! ```
//!
//! where `low` is the lower half, and sums are modulo 2^32 and 2^64. So the bits are the same on any number of threads, a resumed run goes on with
//! those it would have had, and but for one operation an element they come from a table made once a step.

use super::any::BLOCK;
use crate::element::{AnySliceMut, Element, Real};
use half::{bf16, f16};

/// Random bits of an element: what an `f32` has more than the mantissa of 3 bits.
pub(crate) const BITS: u32 = 20;
const MASK: u32 = (1 << BITS) - 1;

/// The part of the bits that is the same for all blocks.
pub(crate) type Table = [u32; BLOCK];

/// The bits of one block's elements.
#[derive(Clone, Copy)]
pub(crate) struct Random<'a> {
    pub(crate) table: &'a Table,
    pub(crate) offset: u32,
}

impl Random<'_> {
    /// Nothing is rounded up.
    pub(crate) const NONE: Self = Random { table: &[0; BLOCK], offset: 0 };

    /// The bits that a number of the table makes.
    #[inline(always)]
    pub(crate) fn of(&self, entry: u32) -> u32 {
        entry ^ self.offset
    }
}

/// The finalizer of MurmurHash3 for 32 bits: a permutation that lets every bit of `x` reach every bit of the result.
#[inline(always)]
const fn fmix32(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// The finalizer of MurmurHash3 for 64 bits.
pub(crate) const fn fmix64(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

/// The random bits of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64, step: u64) -> Self {
        Self(seed ^ fmix64(step.wrapping_add(1)))
    }

    /// Puts the part that is the same for all blocks, for the rounding number `turn`, into a table.
    #[inline(always)]
    pub(crate) fn fill(self, turn: usize, table: &mut Table) {
        let key = (fmix64(self.0) as u32).wrapping_add((turn * BLOCK) as u32);
        for (i, entry) in table.iter_mut().enumerate() {
            *entry = fmix32(key.wrapping_add(i as u32)) >> (u32::BITS - BITS);
        }
    }

    /// A number of an element, evenly from 0 to below 1: the upper 53 bits of `fmix64(fmix64(s) + index)`, over 2^53.
    #[inline(always)]
    pub(crate) fn number(self, index: u64) -> f64 {
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        (fmix64(fmix64(self.0).wrapping_add(index)) >> 11) as f64 * UNIT
    }

    /// The bits of one element, for the first rounding of a step.
    #[inline(always)]
    fn at(self, index: u64) -> u32 {
        let entry = fmix32((fmix64(self.0) as u32).wrapping_add((index % BLOCK as u64) as u32)) >> (u32::BITS - BITS);
        self.bits(0, index, Random::NONE.table).of(entry)
    }

    /// The bits of the block that the element `first` is in.
    #[inline(always)]
    pub(crate) fn bits(self, turn: usize, first: u64, table: &Table) -> Random<'_> {
        let hash = fmix64(self.0.wrapping_add(1 + first / BLOCK as u64));
        Random { table, offset: (hash >> (44 - BITS as usize * (turn % 3))) as u32 & MASK }
    }
}

/// How a new parameter is rounded to its type: to nearest, or in 16 bits by chance.
#[derive(Debug, Clone, Copy)]
pub struct Rounding(pub(crate) Option<Stream>);

impl Rounding {
    /// The number as it is kept in the parameter's element `index`.
    #[inline(always)]
    #[must_use]
    pub fn round<T: Element>(self, number: T::Real, index: usize) -> T {
        let mut rounded = T::from_real(number);
        if let Some(stream) = self.0 {
            let bits = || stream.at(index as u64);
            match T::any_mut(std::slice::from_mut(&mut rounded)) {
                AnySliceMut::F16([x]) => *x = to_f16(number.to_single(), bits()),
                AnySliceMut::Bf16([x]) => *x = to_bf16(number.to_single(), bits()),
                _ => {}
            }
        }
        rounded
    }
}

/// Rounds to one of the two neighbours, the nearer one the more often, so that the mean is `x`: by the high 16 of the [`BITS`].
/// What is not finite stays so; what is beyond the largest number is rounded to nearest.
#[inline(always)]
pub(crate) fn to_bf16(x: f32, bits: u32) -> bf16 {
    const INFINITY: u32 = f32::INFINITY.to_bits();
    let size = x.to_bits() & 0x7fff_ffff;
    let moved = size.wrapping_add(bits >> (BITS - 16));
    let truncated = bf16::from_bits((moved >> 16) as u16 | ((x.to_bits() >> 16) as u16 & 0x8000));
    if size < INFINITY && moved < INFINITY { truncated } else { bf16::from_f32(x) }
}

/// As [`to_bf16`], by the high 13 of the bits, or all of them for a subnormal.
#[inline(always)]
pub(crate) fn to_f16(x: f32, bits: u32) -> f16 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5; // 2^-14
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let size = x.abs();
    let code = if size < SMALLEST_NORMAL {
        // In units of the subnormals' distance, 2^-24: exact, and the sum is truncated once.
        (f64::from(size) * 16_777_216.0 + f64::from(bits) / 1_048_576.0) as u32
    } else {
        ((size.to_bits() + (bits >> (BITS - 13))) >> 13).wrapping_sub((127 - 15) << 10)
    };
    if size < f16::MAX.to_f32() { f16::from_bits(code as u16 | sign) } else { f16::from_f32(x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_generator_is_frozen() {
        assert_eq!((fmix32(0), fmix32(1)), (0, 0x514e_28b7));
        assert_eq!((fmix64(0), fmix64(1)), (0, 0xb456_bcfc_34c2_cb2c));
        let stream = Stream::new(42, 7);
        let bits = |turn, i: usize| {
            let mut table = [0; BLOCK];
            stream.fill(turn, &mut table);
            let random = stream.bits(turn, (i - i % BLOCK) as u64, &table);
            random.of(table[i % BLOCK])
        };
        assert_eq!(
            [bits(0, 0), bits(0, 255), bits(0, 256), bits(1, 256), bits(2, 70_000)],
            [1_009_523, 1_000_887, 55_142, 577_428, 735_508]
        );
    }

    proptest! {
        #[test]
        fn the_mean_of_all_roundings_is_the_number(x in prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL) {
            let mut sum = 0.0;
            for high in 0..1u32 << 16 {
                let y = to_bf16(x, high << 4);
                prop_assert!(y.is_finite() || x.abs() > bf16::MAX.to_f32());
                sum += y.to_f64();
            }
            if x.abs() < bf16::MAX.to_f32() {
                let mean = sum / f64::from(1u32 << 16);
                prop_assert!((mean - f64::from(x)).abs() <= f64::from(x.abs()) * 1e-12, "{x:e} {mean:e}");
            }
        }

        #[test]
        fn halves_too(x in -66000f32..66000.0, scale in 0i32..36) {
            let x = x * 2f32.powi(-scale);
            let mut sum = 0.0;
            for high in 0..1u32 << 16 {
                sum += to_f16(x, high << 4 | 8).to_f64();
            }
            if x.abs() < f16::MAX.to_f32() {
                let mean = sum / f64::from(1u32 << 16);
                let ulp = (f64::from(x.abs()) / 1024.0).max(2f64.powi(-24));
                prop_assert!((mean - f64::from(x)).abs() <= ulp / 8000.0, "{x:e} {mean:e}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bits in [0, MASK] {
            assert!(to_bf16(f32::NAN, bits).is_nan() && to_f16(f32::NAN, bits).is_nan());
            assert_eq!(to_bf16(f32::NEG_INFINITY, bits), bf16::NEG_INFINITY);
            assert_eq!((to_f16(f32::INFINITY, bits), to_f16(1e9, bits)), (f16::INFINITY, f16::INFINITY));
            assert_eq!((to_bf16(-0.0, bits).to_bits(), to_f16(-0.0, bits).to_bits()), (0x8000, 0x8000));
            assert_eq!((to_bf16(1.5, bits).to_f32(), to_f16(-1.5, bits).to_f32()), (1.5, -1.5));
        }
    }
}
