//! Files of the format safetensors, and quantized tensors in them.
//!
//! A file is the length of its header (8 bytes), the header, JSON that says of each tensor its type, shape and place, and the tensors
//! side by side, little-endian, as <https://huggingface.co/docs/safetensors> defines it. [`SafeTensors`] maps one, [`Sharded`] the files
//! of a model's index; [`layout`] makes one that is filled in any order.
//!
//! # Quantized tensors
//!
//! The format has no quantized tensors: each is kept as some plain ones. [`Parts`] writes them by a [`Convention`], whole or some rows at
//! a time, and [`Quantized`] finds and reads them. Of a tensor `NAME` with rows along the first axis and columns along the last, `b` bits
//! a code:
//!
//! | convention | tensor | type | shape | what |
//! |---|---|---|---|---|
//! | [`Lapidary`](Convention::Lapidary) | `NAME.codes` | `U8` | axes but the last, bytes of a row | packed as in a [`QTensor`](crate::QTensor) |
//! | | `NAME.scales` | `F64`, `F32`, `F16`, `BF16`, `F8_E8M0` | groups | of affine and scaled levels |
//! | | `NAME.zero_points` | `U8`; `U16` of 16 bits | groups | of affine levels that have them |
//! | | `NAME.minima`, `NAME.maxima` | `F32`, `F64` | groups | of min-max levels |
//! | | `NAME.levels` | `F32`, `F64` | groups, 2ᵇ | of a codebook |
//! | | `NAME.levels` | `F32`, `F64` | 2ᵇ | of scaled levels |
//! | [`PackQuantized`](Convention::PackQuantized) | `NAME_packed` | `I32` | rows, ⌈columns b / 32⌉ | codes, the first lowest; a row begins with a word |
//! | | `NAME_scale` | `F64`, `F32`, `F16`, `BF16` | rows, groups of a row | |
//! | | `NAME_zero_point` | `I32` | ⌈rows b / 32⌉, groups of a row | if any: packed along the rows |
//! | | `NAME_shape` | `I64` | 2 | rows, columns |
//! | [`IntQuantized`](Convention::IntQuantized) | `NAME` | `I8` | rows, columns | codes less 128 |
//! | | `NAME_scale` | as above | rows, groups of a row; or 1 | |
//! | | `NAME_zero_point` | `I8` | as scales | if any: less 128 |
//! | [`PerChannelInt8`](Convention::PerChannelInt8) | `NAME.qweight` | `I8` | that of the tensor | codes less 128 |
//! | | `NAME.scale` | as above | rows, and 1 for each other axis; or 1 | |
//!
//! where "groups" is 1 for one scale of the whole tensor, the length of the axis for channels, and else the tensor's shape, the axis of
//! groups divided by their size, rounded up. All decode `(code - zero point) * scale`, min-max and listed levels as their
//! [`Grid`](crate::Grid) says.
//!
//! | convention | bits | levels | granularity | shape |
//! |---|---|---|---|---|
//! | `Lapidary` | 1 to 8, 16 | any | any | any |
//! | `PackQuantized` | 4, 8 | affine | first axis; groups of one size | matrices of more than 4 columns |
//! | `IntQuantized` | 8 | affine | tensor; first axis; groups of one size | matrices |
//! | `PerChannelInt8` | 8 | symmetric | tensor; first axis, of several | any |
//!
//! `Lapidary` has an entry in the metadata, `lapidary.quantized.NAME`, of JSON without which it cannot be read:
//! `{"bits":4,"shape":[64,32],"granularity":{"group":{"size":16}},"grid":"symmetric"}`. Granularities are `"tensor"`, `{"channel":{"axis":0}}`,
//! `{"group":{"size":16}}`, `{"block":{"axis":0,"size":16}}`; grids `min_max`, `symmetric`, `affine`, `codebook`, `scaled`.
//!
//! `pack-quantized` and `int-quantized` are those of <https://github.com/vllm-project/compressed-tensors>, which calls a layer's tensor
//! `LAYER.weight`; programs that load them want the scheme in the model's `config.json` (`quantization_config`) too, which is not written
//! here. Groups by an index (`NAME_g_idx`) are refused unless they are in order. Scales of `BF16` are read as `f32`; decoded as
//! [`bf16`](half::bf16) the numbers are those of that library.

pub(crate) mod arrays;
mod element;
mod quantized;
mod read;
mod sharded;
mod write;

pub(crate) use read::Stored;

pub use quantized::{Convention, Form, Part, Parts, Quantized};
pub use read::SafeTensors;
pub use sharded::Sharded;
pub use write::layout;

use super::file::TensorInfo;
use crate::tensor::view::volume;

/// Longer headers are not read by others.
const MAX_HEADER: usize = 100_000_000;
/// Bytes of the header's length.
const LENGTH: usize = 8;
/// The metadata's key in a header.
const NOTES: &str = "__metadata__";

/// The bytes of a tensor; `None` where they are 2^64 and more, or the last one is not full.
fn whole_bytes(tensor: &TensorInfo) -> Option<usize> {
    let (bits, volume) = (tensor.element.bits()?, volume(&tensor.shape)?);
    match bits {
        8.. => volume.checked_mul(bits / 8),
        _ => volume.checked_mul(bits).filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8),
    }
}

/// The first name of a sorted list that is there twice.
fn twice<'a>(sorted: &[&'a str]) -> Option<&'a str> {
    sorted.iter().zip(sorted.iter().skip(1)).find(|(a, b)| a == b).map(|(name, _)| *name)
}
