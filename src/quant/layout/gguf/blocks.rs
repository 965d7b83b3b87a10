//! Encoding and decoding many blocks, in parallel.

use crate::kernel::{
    isa::{Isa, Kernel},
    parallel::{GRAIN, Work, execute},
    rows::Cut,
};
use half::f16;
use std::marker::PhantomData;

/// A type of blocks of `LEN` elements in `BYTES` bytes.
pub(super) trait Block<const LEN: usize, const BYTES: usize>: 'static {
    fn decode(bytes: &[u8; BYTES], values: &mut [f32; LEN]);
    /// The values are finite.
    fn encode(values: &[f32; LEN], bytes: &mut [u8; BYTES]) -> Fate;
}

/// What became of a block's scale in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Kept,
    /// It is 0 although values differ.
    Vanished,
    /// It is beyond the largest number.
    Overflow(f64),
}

/// That of many blocks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) vanished: usize,
    pub(super) first_vanished: Option<usize>,
    /// The first block, and its scale.
    pub(super) overflow: Option<(usize, f64)>,
}

/// `values` are whole blocks, and `bytes` as many.
pub(super) fn decode_blocks<B: Block<LEN, BYTES>, const LEN: usize, const BYTES: usize>(
    bytes: &[u8],
    values: &mut [f32],
) {
    let (bytes, values) = (bytes.as_chunks().0, values.as_chunks_mut().0);
    execute(Blocks::<B, _, _, LEN> { bytes, values, first: 0, of: PhantomData });
}

/// `values` are whole blocks, and `bytes` as many.
pub(super) fn encode_blocks<B: Block<LEN, BYTES>, const LEN: usize, const BYTES: usize>(
    values: &[f32],
    bytes: &mut [u8],
) -> Outcome {
    let (values, bytes) = (values.as_chunks().0, bytes.as_chunks_mut().0);
    execute(Blocks::<B, _, _, LEN> { bytes, values, first: 0, of: PhantomData })
}

/// Some blocks: their bytes and their values, the ones to read and the others to write.
struct Blocks<B, Y, V, const LEN: usize> {
    bytes: Y,
    values: V,
    /// The number of the first block.
    first: usize,
    of: PhantomData<fn() -> B>,
}

impl<B: 'static, Y: Cut, V: Cut, const LEN: usize> Work for Blocks<B, Y, V, LEN>
where
    Self: Kernel<Output = Outcome>,
{
    type Output = Outcome;

    fn len(&self) -> usize {
        self.values.count()
    }

    fn chunk(&self) -> usize {
        GRAIN / LEN
    }

    fn elements(&self) -> usize {
        self.values.count() * LEN
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let ((bytes, bytes_right), (values, values_right)) = (self.bytes.cut(mid), self.values.cut(mid));
        let right = Self { bytes: bytes_right, values: values_right, first: self.first + mid, of: PhantomData };
        (Self { bytes, values, ..self }, right)
    }

    fn run(self, isa: Isa) -> Outcome {
        isa.run(self)
    }

    fn combine(left: Outcome, right: Outcome) -> Outcome {
        Outcome {
            vanished: left.vanished + right.vanished,
            first_vanished: left.first_vanished.or(right.first_vanished),
            overflow: left.overflow.or(right.overflow),
        }
    }
}

impl<B: Block<LEN, BYTES>, const LEN: usize, const BYTES: usize> Kernel
    for Blocks<B, &[[u8; BYTES]], &mut [[f32; LEN]], LEN>
{
    type Output = Outcome;

    #[inline(always)]
    fn run(self) -> Outcome {
        for (bytes, values) in self.bytes.iter().zip(self.values) {
            B::decode(bytes, values);
        }
        Outcome::default()
    }
}

impl<B: Block<LEN, BYTES>, const LEN: usize, const BYTES: usize> Kernel
    for Blocks<B, &mut [[u8; BYTES]], &[[f32; LEN]], LEN>
{
    type Output = Outcome;

    #[inline(always)]
    fn run(self) -> Outcome {
        let mut outcome = Outcome::default();
        for ((values, bytes), block) in self.values.iter().zip(self.bytes).zip(self.first..) {
            match B::encode(values, bytes) {
                Fate::Kept => {}
                Fate::Vanished => {
                    outcome.vanished += 1;
                    outcome.first_vanished = outcome.first_vanished.or(Some(block));
                }
                Fate::Overflow(scale) => outcome.overflow = outcome.overflow.or(Some((block, scale))),
            }
        }
        outcome
    }
}

/// The number in two bytes, from a place on.
#[inline(always)]
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The scale nearest to `x`, but not 0 unless `x` is: for formats whose parts multiply it by integers up to 127.
#[inline(always)]
pub(super) fn some_half(x: f64) -> f16 {
    let near = <f16 as crate::element::Element>::from_f64(x);
    if near == f16::ZERO && x != 0.0 { f16::from_bits(if x < 0.0 { 0x8001 } else { 1 }) } else { near }
}
