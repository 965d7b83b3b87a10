//! Products of packed codes with small integers, four at a time: the one step that differs from one instruction set to another.
//!
//! Everything is integer arithmetic, so that all of them give the same bits.

mod float;
pub(crate) mod inputs;
pub(crate) mod panel;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::isa::Isa;

/// Rows of a panel: their codes lie beside one another, so that each is a lane.
pub(crate) const ROWS: usize = 16;
/// Bytes of a chunk: four for each row of a panel.
pub(crate) const CHUNK: usize = 4 * ROWS;

/// One instruction set's way to multiply and add.
pub(crate) trait Dot {
    /// An `i32` for each row.
    type Sums: Copy;
    /// Four bytes for each row.
    type Bytes: Copy;
    /// Four signed bytes, for all rows.
    type Word: Copy;
    /// Whether registers hold the sums of eight vectors.
    const WIDE: bool;

    fn zero() -> Self::Sums;
    fn load(chunk: &[u8; CHUNK]) -> Self::Bytes;
    /// Asks memory for a chunk that is needed soon.
    fn prefetch(chunk: &[u8; CHUNK]);

    /// The codes of `BITS` bits at `shift` in each byte.
    fn field<const BITS: u32>(bytes: Self::Bytes, shift: u32) -> Self::Bytes;

    /// The four bytes of `word`, the lowest first.
    fn word<const BITS: u32>(word: i32) -> Self::Word;

    /// `sums[r] += Σ_j codes[r][j] * word[j]`; codes are unsigned, of `BITS` bits.
    fn add<const BITS: u32>(sums: Self::Sums, codes: Self::Bytes, word: Self::Word) -> Self::Sums;

    /// As [`field`](Dot::field), but the codes may be left `2^shift` times as large: [`unscale`](Dot::unscale) makes up for it.
    fn scaled_field<const BITS: u32>(bytes: Self::Bytes, shift: u32) -> Self::Bytes;
    /// Sums of what a scaled field gave, as if it had given the codes themselves.
    fn unscale(sums: Self::Sums, shift: u32) -> Self::Sums;

    fn plus(a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// `sums[r] -= zeros[r] * sum`
    fn minus(sums: Self::Sums, zeros: &[u8; ROWS], sum: i32) -> Self::Sums;
    /// `sums[r] -= number`
    fn minus_all(sums: Self::Sums, number: i32) -> Self::Sums;

    /// `total[r] += sums[r] as f32 * scales[r] * scale`, each operation rounded.
    fn finish(sums: Self::Sums, scales: &[f32; ROWS], scale: f32, total: &mut [f32; ROWS]);
}

/// What is done with one of them.
pub(crate) trait WithDot {
    type Output;
    fn run<D: Dot>(self) -> Self::Output;
}

/// Runs `work` by the best way that `isa` has.
pub(crate) fn with_dot<W: WithDot>(isa: Isa, work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if Isa::avx512().is_some_and(|best| isa >= best) && std::arch::is_x86_feature_detected!("avx512vnni") {
            // SAFETY: an `Isa` of AVX-512 and the line above prove the features of `x86::with_vnni`.
            return unsafe { x86::with_vnni(work) };
        }
        if Isa::avx2().is_some_and(|avx2| isa >= avx2) {
            // SAFETY: an `Isa` of AVX2 or more proves the features of `x86::with_avx2`.
            return unsafe { x86::with_avx2(work) };
        }
    }
    let _ = isa;
    work.run::<portable::Portable>()
}
