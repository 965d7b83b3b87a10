//! Products by AVX2, and by the dot products of AVX-512 VNNI.

use super::{CHUNK, Dot, ROWS, WithDot};
use std::arch::x86_64::*;

/// Two registers of eight rows.
struct Avx2;
/// One register of sixteen.
struct Vnni;

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn with_avx2<W: WithDot>(work: W) -> W::Output {
    work.run::<Avx2>()
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni")]
pub(super) fn with_vnni<W: WithDot>(work: W) -> W::Output {
    work.run::<Vnni>()
}

// All unsafe blocks below call instructions of AVX2, or of AVX-512 F, BW and VNNI. `Avx2` and `Vnni` are private and named in
// `with_avx2` and `with_vnni` alone, whose callers prove these features.

impl Dot for Avx2 {
    type Sums = [__m256i; 2];
    type Bytes = [__m256i; 2];
    /// Of 8-bit codes: the even bytes and the odd ones, widened to 16 bits; else the word twice.
    type Word = [__m256i; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn zero() -> Self::Sums {
        // SAFETY: AVX2, see above.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn load(chunk: &[u8; CHUNK]) -> Self::Bytes {
        let (low, high) = chunk.split_at(CHUNK / 2);
        // SAFETY: AVX2, see above; each half has the 32 bytes that are read, at any alignment.
        unsafe { [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())] }
    }

    #[inline(always)]
    fn prefetch(chunk: &[u8; CHUNK]) {
        // SAFETY: SSE, which every x86-64 has; a prefetch reads nothing that is seen.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(chunk.as_ptr().cast()) }
    }

    #[inline(always)]
    fn field<const BITS: u32>(bytes: Self::Bytes, shift: u32) -> Self::Bytes {
        [half_field::<BITS>(bytes[0], shift), half_field::<BITS>(bytes[1], shift)]
    }

    #[inline(always)]
    fn word<const BITS: u32>(word: i32) -> Self::Word {
        // SAFETY: AVX2, see above.
        unsafe {
            let x = _mm256_set1_epi32(word);
            if BITS < 8 {
                return [x; 2];
            }
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)), _mm256_srai_epi16::<8>(x)]
        }
    }

    #[inline(always)]
    fn add<const BITS: u32>(sums: Self::Sums, codes: Self::Bytes, word: Self::Word) -> Self::Sums {
        [half_add::<BITS>(sums[0], codes[0], word), half_add::<BITS>(sums[1], codes[1], word)]
    }

    #[inline(always)]
    fn plus(a: Self::Sums, b: Self::Sums) -> Self::Sums {
        // SAFETY: AVX2, see above.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    fn scaled_field<const BITS: u32>(bytes: Self::Bytes, shift: u32) -> Self::Bytes {
        // Pairs of products of larger codes would saturate.
        Self::field::<BITS>(bytes, shift)
    }

    #[inline(always)]
    fn unscale(sums: Self::Sums, _: u32) -> Self::Sums {
        sums
    }

    #[inline(always)]
    fn minus(sums: Self::Sums, zeros: &[u8; ROWS], sum: i32) -> Self::Sums {
        let (low, high) = zeros.split_at(ROWS / 2);
        // SAFETY: AVX2, see above; each half has the 8 bytes that are read, at any alignment.
        unsafe {
            let sum = _mm256_set1_epi32(sum);
            let low = _mm256_cvtepu8_epi32(_mm_loadl_epi64(low.as_ptr().cast()));
            let high = _mm256_cvtepu8_epi32(_mm_loadl_epi64(high.as_ptr().cast()));
            [
                _mm256_sub_epi32(sums[0], _mm256_mullo_epi32(low, sum)),
                _mm256_sub_epi32(sums[1], _mm256_mullo_epi32(high, sum)),
            ]
        }
    }

    #[inline(always)]
    fn minus_all(sums: Self::Sums, number: i32) -> Self::Sums {
        // SAFETY: AVX2, see above.
        unsafe {
            let number = _mm256_set1_epi32(number);
            [_mm256_sub_epi32(sums[0], number), _mm256_sub_epi32(sums[1], number)]
        }
    }

    #[inline(always)]
    fn finish(sums: Self::Sums, scales: &[f32; ROWS], scale: f32, total: &mut [f32; ROWS]) {
        let halves = sums.into_iter().zip(scales.as_chunks::<8>().0);
        for ((sums, scales), total) in halves.zip(total.as_chunks_mut::<8>().0) {
            // SAFETY: AVX2, see above; the arrays have the 8 numbers that are read and written, at any alignment.
            unsafe {
                let products = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(scales.as_ptr()));
                let products = _mm256_mul_ps(products, _mm256_set1_ps(scale));
                let sum = _mm256_add_ps(_mm256_loadu_ps(total.as_ptr()), products);
                _mm256_storeu_ps(total.as_mut_ptr(), sum);
            }
        }
    }
}

// A closure in their place would not take the caller's instruction set.

#[inline(always)]
fn half_field<const BITS: u32>(bytes: __m256i, shift: u32) -> __m256i {
    if BITS == 8 {
        return bytes;
    }
    // SAFETY: AVX2, see above. Bits of a neighbour that a shift brings in are masked away.
    unsafe {
        let shifted = _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift.cast_signed()));
        _mm256_and_si256(shifted, _mm256_set1_epi8((0xffu8 >> (8 - BITS)).cast_signed()))
    }
}

#[inline(always)]
fn half_add<const BITS: u32>(sums: __m256i, codes: __m256i, word: [__m256i; 2]) -> __m256i {
    // SAFETY: AVX2, see above.
    unsafe {
        let products = if BITS < 8 {
            // Pairs of products below 2^4 * 2^7 do not saturate 16 bits.
            _mm256_madd_epi16(_mm256_maddubs_epi16(codes, word[0]), _mm256_set1_epi16(1))
        } else {
            let even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
            let odd = _mm256_srli_epi16::<8>(codes);
            _mm256_add_epi32(_mm256_madd_epi16(even, word[0]), _mm256_madd_epi16(odd, word[1]))
        };
        _mm256_add_epi32(sums, products)
    }
}

impl Dot for Vnni {
    type Sums = __m512i;
    type Bytes = __m512i;
    type Word = __m512i;
    const WIDE: bool = true;

    #[inline(always)]
    fn zero() -> Self::Sums {
        // SAFETY: AVX-512 F, see above.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn load(chunk: &[u8; CHUNK]) -> Self::Bytes {
        // SAFETY: AVX-512 F, see above; a chunk has the 64 bytes that are read, at any alignment.
        unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) }
    }

    #[inline(always)]
    fn prefetch(chunk: &[u8; CHUNK]) {
        // SAFETY: SSE, which every x86-64 has; a prefetch reads nothing that is seen.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(chunk.as_ptr().cast()) }
    }

    #[inline(always)]
    fn field<const BITS: u32>(bytes: Self::Bytes, shift: u32) -> Self::Bytes {
        if BITS == 8 {
            return bytes;
        }
        // SAFETY: AVX-512 F and BW, see above. Bits of a neighbour that a shift brings in are masked away.
        unsafe {
            let shifted = _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(shift.cast_signed()));
            _mm512_and_si512(shifted, _mm512_set1_epi8((0xffu8 >> (8 - BITS)).cast_signed()))
        }
    }

    #[inline(always)]
    fn word<const BITS: u32>(word: i32) -> Self::Word {
        // SAFETY: AVX-512 F, see above.
        unsafe { _mm512_set1_epi32(word) }
    }

    #[inline(always)]
    fn add<const BITS: u32>(sums: Self::Sums, codes: Self::Bytes, word: Self::Word) -> Self::Sums {
        // SAFETY: AVX-512 VNNI, see above.
        unsafe { _mm512_dpbusd_epi32(sums, codes, word) }
    }

    #[inline(always)]
    fn plus(a: Self::Sums, b: Self::Sums) -> Self::Sums {
        // SAFETY: AVX-512 F, see above.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn scaled_field<const BITS: u32>(bytes: Self::Bytes, shift: u32) -> Self::Bytes {
        if BITS == 8 {
            return bytes;
        }
        let mask = (0xffu8 >> (8 - BITS)) << shift;
        // SAFETY: AVX-512 BW, see above.
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(mask.cast_signed())) }
    }

    #[inline(always)]
    fn unscale(sums: Self::Sums, shift: u32) -> Self::Sums {
        // SAFETY: AVX-512 F, see above. The sums are multiples of what they are divided by.
        unsafe { _mm512_sra_epi32(sums, _mm_cvtsi32_si128(shift.cast_signed())) }
    }

    #[inline(always)]
    fn minus(sums: Self::Sums, zeros: &[u8; ROWS], sum: i32) -> Self::Sums {
        // SAFETY: AVX-512 F, see above; there are the 16 bytes that are read, at any alignment.
        unsafe {
            let zeros = _mm512_cvtepu8_epi32(_mm_loadu_si128(zeros.as_ptr().cast()));
            _mm512_sub_epi32(sums, _mm512_mullo_epi32(zeros, _mm512_set1_epi32(sum)))
        }
    }

    #[inline(always)]
    fn minus_all(sums: Self::Sums, number: i32) -> Self::Sums {
        // SAFETY: AVX-512 F, see above.
        unsafe { _mm512_sub_epi32(sums, _mm512_set1_epi32(number)) }
    }

    #[inline(always)]
    fn finish(sums: Self::Sums, scales: &[f32; ROWS], scale: f32, total: &mut [f32; ROWS]) {
        // SAFETY: AVX-512 F, see above; the arrays have the 16 numbers that are read and written, at any alignment.
        unsafe {
            let products = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(scales.as_ptr()));
            let products = _mm512_mul_ps(products, _mm512_set1_ps(scale));
            let sum = _mm512_add_ps(_mm512_loadu_ps(total.as_ptr()), products);
            _mm512_storeu_ps(total.as_mut_ptr(), sum);
        }
    }
}
