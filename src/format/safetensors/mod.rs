//! Files of the format safetensors.
//!
//! A file is the length of its header (8 bytes), the header, JSON that says of each tensor its type, shape and place, and the tensors
//! side by side, little-endian, as <https://huggingface.co/docs/safetensors> defines it. [`SafeTensors`] and [`Sharded`] read such files,
//! [`layout`] writes them in any order.

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
