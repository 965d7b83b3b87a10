//! Elements that are stored in blocks.

use crate::quant::layout::GgmlType;
use std::fmt;

/// The block types: variant, number in GGUF files, name, elements and bytes of a block.
macro_rules! block_types {
    ($($variant:ident = $id:literal, $name:literal, $len:literal, $bytes:literal;)*) => {
        /// A block type of ggml: so many neighbours along the last axis in so many bytes. [`ggml`](Self::ggml) gives those that are
        /// decoded; the others are listed and copied.
        ///
        /// Block sizes are those of `constants.py` in llama.cpp's package `gguf`. `Q8_1`, which no file holds, is not among them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum BlockType {
            $(#[doc = concat!($len, " elements in ", $bytes, " bytes.")] $variant,)*
        }

        impl BlockType {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number that GGUF files and ggml have for it.
            #[must_use]
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }

            /// Its name: `Q4_K`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Elements of a block.
            #[must_use]
            pub const fn block_len(self) -> usize {
                match self { $(Self::$variant => $len,)* }
            }

            /// Bytes of a block.
            #[must_use]
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$variant => $bytes,)* }
            }
        }
    };
}

block_types! {
    Q4_0 = 2, "Q4_0", 32, 18;
    Q4_1 = 3, "Q4_1", 32, 20;
    Q5_0 = 6, "Q5_0", 32, 22;
    Q5_1 = 7, "Q5_1", 32, 24;
    Q8_0 = 8, "Q8_0", 32, 34;
    Q2K = 10, "Q2_K", 256, 84;
    Q3K = 11, "Q3_K", 256, 110;
    Q4K = 12, "Q4_K", 256, 144;
    Q5K = 13, "Q5_K", 256, 176;
    Q6K = 14, "Q6_K", 256, 210;
    Q8K = 15, "Q8_K", 256, 292;
    Iq2Xxs = 16, "IQ2_XXS", 256, 66;
    Iq2Xs = 17, "IQ2_XS", 256, 74;
    Iq3Xxs = 18, "IQ3_XXS", 256, 98;
    Iq1S = 19, "IQ1_S", 256, 50;
    Iq4Nl = 20, "IQ4_NL", 32, 18;
    Iq3S = 21, "IQ3_S", 256, 110;
    Iq2S = 22, "IQ2_S", 256, 82;
    Iq4Xs = 23, "IQ4_XS", 256, 136;
    Iq1M = 29, "IQ1_M", 256, 56;
    Tq1_0 = 34, "TQ1_0", 256, 54;
    Tq2_0 = 35, "TQ2_0", 256, 66;
    Mxfp4 = 39, "MXFP4", 32, 17;
    Nvfp4 = 40, "NVFP4", 64, 36;
    Q1_0 = 41, "Q1_0", 128, 18;
}

impl BlockType {
    /// The type of this number.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|block| block.id() == id)
    }

    /// The same as a type that is encoded and decoded, where it is one.
    #[must_use]
    pub const fn ggml(self) -> Option<GgmlType> {
        Some(match self {
            Self::Q4_0 => GgmlType::Q4_0,
            Self::Q4_1 => GgmlType::Q4_1,
            Self::Q5_0 => GgmlType::Q5_0,
            Self::Q5_1 => GgmlType::Q5_1,
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q4K => GgmlType::Q4K,
            Self::Q6K => GgmlType::Q6K,
            _ => return None,
        })
    }
}

impl From<GgmlType> for BlockType {
    fn from(ggml: GgmlType) -> Self {
        match ggml {
            GgmlType::Q4_0 => Self::Q4_0,
            GgmlType::Q4_1 => Self::Q4_1,
            GgmlType::Q5_0 => Self::Q5_0,
            GgmlType::Q5_1 => Self::Q5_1,
            GgmlType::Q8_0 => Self::Q8_0,
            GgmlType::Q4K => Self::Q4K,
            GgmlType::Q6K => Self::Q6K,
        }
    }
}

impl fmt::Display for BlockType {
    /// Its [`name`](Self::name).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_of_blocks_agree() {
        for ggml in GgmlType::ALL {
            let block = BlockType::from(ggml);
            assert_eq!(block.ggml(), Some(ggml));
            assert_eq!((block.id(), block.block_len()), (ggml.id(), ggml.block_len()));
            assert_eq!(block.block_bytes(), ggml.block_bytes());
        }
        for &block in BlockType::ALL {
            assert_eq!(BlockType::from_id(block.id()), Some(block));
            assert!(block.ggml().is_none_or(|ggml| BlockType::from(ggml) == block));
        }
        assert_eq!(BlockType::from_id(9), None);
        assert_eq!(BlockType::ALL.iter().filter(|block| block.ggml().is_some()).count(), GgmlType::ALL.len());
    }
}
