//! The block types of GGUF files.

mod blocks;
mod certify;
mod convert;
mod q4_k;
mod q6_k;
mod simple;

use crate::{
    error::{Error, Result},
    tensor::{
        TensorRef,
        qtensor::check_finite,
        view::{checked_volume, filled},
    },
};
use blocks::{Outcome, decode_blocks, encode_blocks};
pub use convert::Converted;
use q4_k::Q4K;
use q6_k::Q6K;
use simple::{Centred, Q8, Ranged};

/// A block type of GGUF: so many neighbours along the last axis and their scale in so many bytes.
///
/// | type | block | bytes | bits a weight | value |
/// |---|---|---|---|---|
/// | `Q4_0` | 32 | 18 | 4.5 | `d * (q - 8)` |
/// | `Q4_1` | 32 | 20 | 5 | `d * q + m` |
/// | `Q5_0` | 32 | 22 | 5.5 | `d * (q - 16)` |
/// | `Q5_1` | 32 | 24 | 6 | `d * q + m` |
/// | `Q8_0` | 32 | 34 | 8.5 | `d * q`, `q` from -128 to 127 |
/// | `Q4K` | 256 | 144 | 4.5 | `(d * s) * q - (dmin * m)`, 6-bit `s` and `m` for each 32 |
/// | `Q6K` | 256 | 210 | 6.5625 | `(d * s) * (q - 32)`, signed 8-bit `s` for each 16 |
///
/// `d`, `m`, `dmin` are `f16`; values are computed in `f32`, in this order.
///
/// The first five are encoded byte for byte as the Python package `gguf` 0.19 does. A scale keeps 11 bits, is at most
/// 65,504, and up to 2^-25 becomes 0 ([`Encoded::vanished`]). With `A` the largest `|x|` of a block and `R` its
/// `max - min`:
///
/// ```text
/// Q4_0: |x - x'| <= A / 8 + A / 2^11 + 2^-22             Q5_0: |x - x'| <= A / 16 + A / 2^11 + 2^-21
/// Q4_1: |x - x'| <= R / 30 + (R + A) / 2^11 + 2^-21      Q5_1: |x - x'| <= R / 62 + (R + A) / 2^11 + 2^-20
/// Q8_0: |x - x'| <= A / 254 + A / 2^11 + 2^-18
/// ```
///
/// `Q4K` and `Q6K` are encoded by a search of this crate: the sum of squared errors of a block is at most that of the
/// plain choice. With `R` the largest `max - min` and `M` the largest `-min` of a block's parts, where `min` is at most
/// 0, `R'` that of the part, and `A` and `A'` the same of `|x|`, the error of the plain choice is
///
/// ```text
/// Q4K: |x - x'| <= R' / 30 + (R + M) (1 / 126 + 2^-11) + R / 3780 + 2^-14
/// Q6K: |x - x'| <= A' / 62 + A (1 / 254 + 2^-11 + 2^-13) + 2^-13
/// ```
///
/// and the root of the mean of these squares bounds that of the block's errors. [`certificate`](GgmlType::certificate) bounds each error
/// from the blocks alone, without `A` and `R`, for all types but `Q4K`.
///
/// ```
/// use lapidary::quant::layout::GgmlType;
/// let weights: Vec<f32> = (0..64).map(|i| (i as f32 * 0.3).sin()).collect();
/// let encoded = GgmlType::Q8_0.encode(&weights)?;
/// assert_eq!((encoded.bytes.len(), encoded.vanished), (2 * 34, 0));
/// let mut back = [0.0; 64];
/// GgmlType::Q8_0.decode(&encoded.bytes, &mut back)?;
/// assert!(weights.iter().zip(back).all(|(x, y)| (x - y).abs() < 0.5 / 127.0 + 1e-3));
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// Follows `ggml-quants.c` of llama.cpp and `quants.py` of its package `gguf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GgmlType {
    /// 4 bits about 0.
    Q4_0,
    /// 4 bits from a minimum up.
    Q4_1,
    /// 5 bits about 0.
    Q5_0,
    /// 5 bits from a minimum up.
    Q5_1,
    /// 8 bits about 0.
    Q8_0,
    /// 4 bits from a minimum up, in blocks of blocks.
    Q4K,
    /// 6 bits about 0, in blocks of blocks.
    Q6K,
}

/// The blocks of a tensor, and what 16 bits did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Encoded {
    /// The blocks, in logical order.
    pub bytes: Vec<u8>,
    /// Blocks that need a scale and whose scale rounds to 0: all of such a block decodes to 0, or to its minimum.
    pub vanished: usize,
    /// The first such block.
    pub first_vanished: Option<usize>,
}

/// Calls a function of blocks for the type, with its length and bytes.
macro_rules! of_type {
    ($type:expr, $function:ident($($argument:expr),*)) => {
        match $type {
            GgmlType::Q4_0 => $function::<Centred<4>, 32, 18>($($argument),*),
            GgmlType::Q4_1 => $function::<Ranged<4>, 32, 20>($($argument),*),
            GgmlType::Q5_0 => $function::<Centred<5>, 32, 22>($($argument),*),
            GgmlType::Q5_1 => $function::<Ranged<5>, 32, 24>($($argument),*),
            GgmlType::Q8_0 => $function::<Q8, 32, 34>($($argument),*),
            GgmlType::Q4K => $function::<Q4K, 256, 144>($($argument),*),
            GgmlType::Q6K => $function::<Q6K, 256, 210>($($argument),*),
        }
    };
}

impl GgmlType {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4K, Self::Q6K];

    /// Elements of a block.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::Q4K | Self::Q6K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// The number that GGUF files and ggml have for it.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// The blocks of a tensor whose rows (last axis) are whole blocks.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a row is not a multiple of [`block_len`](GgmlType::block_len), or
    /// a scale is beyond the largest `f16`, naming the block; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or
    /// infinity; [`Empty`](crate::ErrorKind::Empty) without an element.
    pub fn encode<'a>(self, values: impl Into<TensorRef<'a, f32>>) -> Result<Encoded> {
        let values = values.into();
        let blocks = self.blocks(values.shape())?;
        check_finite("tensor", values.as_slice())?;
        let mut bytes = filled(blocks * self.block_bytes(), 0)?;
        let Outcome { vanished, first_vanished, overflow } =
            of_type!(self, encode_blocks(values.as_slice(), &mut bytes));
        match overflow {
            None => Ok(Encoded { bytes, vanished, first_vanished }),
            Some((block, scale)) => {
                let found = format!("{scale:e} in block {block}");
                Err(Error::argument("scale", found, "at most 65504 in magnitude, the largest f16"))
            }
        }
    }

    /// The values of blocks, by the reference's arithmetic: a scale that is infinite or NaN gives such values. Does not
    /// allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when `values` are not whole blocks, or `bytes` not those of as many.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        let blocks = values.len() / self.block_len();
        if !values.len().is_multiple_of(self.block_len()) {
            return Err(Error::shape("values", &[blocks.saturating_add(1) * self.block_len()], &[values.len()]));
        }
        self.check_bytes(bytes, blocks)?;
        of_type!(self, decode_blocks(bytes, values));
        Ok(())
    }

    /// The blocks of a shape.
    fn blocks(self, shape: &[usize]) -> Result<usize> {
        let len = checked_volume(shape)?;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len()) {
            let needed = match self.block_len() {
                256 => "a multiple of 256",
                _ => "a multiple of 32",
            };
            return Err(Error::argument("row length", row, needed));
        }
        if len == 0 { Err(Error::empty("tensor to quantize")) } else { Ok(len / self.block_len()) }
    }

    fn check_bytes(self, bytes: &[u8], blocks: usize) -> Result<()> {
        match blocks.checked_mul(self.block_bytes()) {
            Some(needed) if needed == bytes.len() => Ok(()),
            needed => Err(Error::shape("blocks", &[needed.unwrap_or(usize::MAX)], &[bytes.len()])),
        }
    }
}
