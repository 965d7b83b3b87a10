//! What the elements of tensors in model files are.

use super::BlockType;
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements in a model file, of all formats. Numbers of less than a byte lie side by side, the first lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ElementType {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 4 bits of exponent, 3 of mantissa, no infinities.
    F8E4M3,
    /// As [`F8E4M3`](Self::F8E4M3), without a negative zero.
    F8E4M3Fnuz,
    /// 5 bits of exponent, 2 of mantissa.
    F8E5M2,
    /// As [`F8E5M2`](Self::F8E5M2), without a negative zero and infinities.
    F8E5M2Fnuz,
    /// A power of two.
    F8E8M0,
    /// 2 bits of exponent, 3 of mantissa.
    F6E2M3,
    /// 3 bits of exponent, 2 of mantissa.
    F6E3M2,
    /// 2 bits of exponent, 1 of mantissa.
    F4E2M1,
    /// Two binary64: real and imaginary part.
    C128,
    /// Two binary32.
    C64,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Signed, 4 bits.
    I4,
    /// Signed, 2 bits.
    I2,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 4 bits.
    U4,
    /// Unsigned, 2 bits.
    U2,
    /// A byte, 0 or 1.
    Bool,
    /// Numbers in blocks, each with a scale.
    Block(BlockType),
    /// Texts of any length.
    Text,
}

impl ElementType {
    /// Bits of an element; none of [`Block`](Self::Block) and [`Text`](Self::Text).
    #[must_use]
    pub const fn bits(self) -> Option<usize> {
        Some(match self {
            Self::C128 => 128,
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => 64,
            Self::F32 | Self::I32 | Self::U32 => 32,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 16,
            Self::F8E4M3 | Self::F8E4M3Fnuz | Self::F8E5M2 | Self::F8E5M2Fnuz | Self::F8E8M0 => 8,
            Self::I8 | Self::U8 | Self::Bool => 8,
            Self::F6E2M3 | Self::F6E3M2 => 6,
            Self::F4E2M1 | Self::I4 | Self::U4 => 4,
            Self::I2 | Self::U2 => 2,
            Self::Block(_) | Self::Text => return None,
        })
    }

    /// Whether it is a binary floating-point number of 16 to 64 bits.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Bytes that so many elements take, the last byte filled up; of blocks, only whole ones.
    #[must_use]
    pub fn bytes(self, elements: usize) -> Option<usize> {
        if let Self::Block(block) = self {
            let blocks = elements.is_multiple_of(block.block_len()).then_some(elements / block.block_len())?;
            return blocks.checked_mul(block.block_bytes());
        }
        let bits = self.bits()?;
        // 128 bits are at most a multiple of 8; an odd number of 6-bit elements is not.
        match bits {
            8.. => elements.checked_mul(bits / 8),
            _ => elements.checked_mul(bits).map(|bits| bits.div_ceil(8)),
        }
    }

    /// Reads floating-point elements ([`is_float`](Self::is_float)), little-endian, as `f32`, `f64` rounded to nearest; and blocks that
    /// are [decoded](BlockType::ggml).
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for another type, [`Shape`](crate::ErrorKind::Shape) where `bytes` are not those of as
    /// many elements as `out` has.
    pub fn to_f32(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        if self.bytes(out.len()) != Some(bytes.len()) {
            return Err(Error::shape("bytes of a tensor", &[self.bytes(out.len()).unwrap_or(0)], &[bytes.len()]));
        }
        fn read<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
            out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &bytes)| *out = convert(bytes));
        }
        match self {
            Self::F32 => read(bytes, out, f32::from_le_bytes),
            Self::F64 => read(bytes, out, |bytes| f64::from_le_bytes(bytes) as f32),
            Self::F16 => read(bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Self::Bf16 => read(bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Self::Block(block) => match block.ggml() {
                Some(ggml) => return ggml.decode(bytes, out),
                None => return Err(Error::argument("block type", block, "one that is decoded")),
            },
            _ => return Err(Error::argument("element type", self, "floating-point, of 16 to 64 bits")),
        }
        Ok(())
    }
}

impl fmt::Display for ElementType {
    /// Its name in lower case: `f32`, `bf16`, `i8`, `q4_k`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Block(block) = self {
            return f.pad(&block.name().to_lowercase());
        }
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_lengths_checked() {
        let mut out = [0.0; 2];
        ElementType::Bf16.to_f32(&[0x80, 0x3f, 0, 0xc0], &mut out).unwrap();
        assert_eq!(out, [1.0, -2.0]);
        ElementType::F16.to_f32(&[0, 0x3c, 0, 0xc0], &mut out).unwrap();
        assert_eq!(out, [1.0, -2.0]);
        ElementType::F64.to_f32(&[0.1f64.to_le_bytes(), f64::MAX.to_le_bytes()].concat(), &mut out).unwrap();
        assert_eq!(out, [0.1, f32::INFINITY]);
        assert!(ElementType::F32.to_f32(&[0; 7], &mut out).is_err());
        assert!(ElementType::I32.to_f32(&[0; 8], &mut out).is_err());
        assert_eq!(ElementType::I4.bytes(3), Some(2));
        assert_eq!(ElementType::F6E2M3.bytes(4), Some(3));
        assert_eq!(ElementType::F64.bytes(usize::MAX / 4), None);
        assert_eq!(ElementType::F8E4M3Fnuz.to_string(), "f8e4m3fnuz");
    }

    #[test]
    fn blocks_are_whole_and_decoded_where_known() {
        let q8 = ElementType::Block(BlockType::Q8_0);
        assert_eq!((q8.bytes(64), q8.bytes(33), q8.bytes(usize::MAX / 32 * 32)), (Some(68), None, None));
        let mut block = [2; 34];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        let mut out = [0.0; 32];
        q8.to_f32(&block, &mut out).unwrap();
        assert_eq!(out, [1.0; 32]);
        assert!(q8.to_f32(&block, &mut out[1..]).is_err());
        let q2 = ElementType::Block(BlockType::Q2K);
        assert_eq!(q2.to_f32(&[0; 84], &mut [0.0; 256]).unwrap_err().kind(), crate::ErrorKind::Argument);
        assert_eq!(q2.to_string(), "q2_k");
    }
}
