//! Products by plain loops: on any processor, and what the others are compared with.

use super::{CHUNK, Dot, ROWS};

pub(crate) struct Portable;

impl Dot for Portable {
    type Sums = [i32; ROWS];
    type Bytes = [u8; CHUNK];
    type Word = [i32; 4];
    const WIDE: bool = false;

    #[inline(always)]
    fn zero() -> Self::Sums {
        [0; ROWS]
    }

    #[inline(always)]
    fn prefetch(_: &[u8; CHUNK]) {}

    #[inline(always)]
    fn load(chunk: &[u8; CHUNK]) -> Self::Bytes {
        *chunk
    }

    #[inline(always)]
    fn field<const BITS: u32>(mut bytes: Self::Bytes, shift: u32) -> Self::Bytes {
        for byte in &mut bytes {
            *byte = *byte >> shift & (0xff >> (8 - BITS));
        }
        bytes
    }

    #[inline(always)]
    fn word<const BITS: u32>(word: i32) -> Self::Word {
        word.to_le_bytes().map(|byte| i32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn add<const BITS: u32>(mut sums: Self::Sums, codes: Self::Bytes, word: Self::Word) -> Self::Sums {
        for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<4>().0) {
            for (&code, x) in codes.iter().zip(word) {
                *sum += i32::from(code) * x;
            }
        }
        sums
    }

    #[inline(always)]
    fn plus(mut a: Self::Sums, b: Self::Sums) -> Self::Sums {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
        a
    }

    #[inline(always)]
    fn scaled_field<const BITS: u32>(bytes: Self::Bytes, shift: u32) -> Self::Bytes {
        Self::field::<BITS>(bytes, shift)
    }

    #[inline(always)]
    fn unscale(sums: Self::Sums, _: u32) -> Self::Sums {
        sums
    }

    #[inline(always)]
    fn minus(mut sums: Self::Sums, zeros: &[u8; ROWS], sum: i32) -> Self::Sums {
        for (sums, &zero) in sums.iter_mut().zip(zeros) {
            *sums -= i32::from(zero) * sum;
        }
        sums
    }

    #[inline(always)]
    fn minus_all(mut sums: Self::Sums, number: i32) -> Self::Sums {
        for sum in &mut sums {
            *sum -= number;
        }
        sums
    }

    #[inline(always)]
    fn finish(sums: Self::Sums, scales: &[f32; ROWS], scale: f32, total: &mut [f32; ROWS]) {
        for ((total, sums), scales) in total.iter_mut().zip(sums).zip(scales) {
            *total += sums as f32 * scales * scale;
        }
    }
}
