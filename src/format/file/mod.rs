//! Model files as named tensors, whatever their format.
//!
//! [`open`] tells the format and gives a [`TensorFile`]; its tensors are views of the mapped file where the format stores them as
//! they are, so that a file larger than memory is read piece by piece.

mod element_type;
mod layout;

pub use bytes::Bytes;
pub use element_type::ElementType;
pub use layout::{Layout, Writer};

use crate::{
    error::{Error, Result},
    tensor::view::checked_volume,
};
use std::{collections::BTreeMap, path::Path};

/// A tensor of a model file, without its elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// What its elements are.
    pub element: ElementType,
    /// Its sizes, the last axis innermost.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// The number of elements.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) where it is beyond 64 bits.
    pub fn volume(&self) -> Result<usize> {
        checked_volume(&self.shape).map_err(|error| error.in_tensor(&self.name))
    }

    /// The number of bytes its elements take.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) where it is beyond 64 bits, or the elements are texts.
    pub fn byte_len(&self) -> Result<usize> {
        let bytes = self.element.bytes(self.volume()?);
        let allowed = "of fewer than 2^64 bytes of numbers";
        bytes.ok_or_else(|| Error::argument("shape", format!("{:?}", self.shape), allowed).in_tensor(&self.name))
    }
}

/// A model file, open for reading.
pub trait TensorFile: Send + Sync {
    /// The name of its format: `"safetensors"`, `"onnx"`.
    fn format(&self) -> &'static str;

    /// Its tensors, in the order of the file.
    fn tensors(&self) -> &[TensorInfo];

    /// The elements of the tensor at `index` of [`tensors`](Self::tensors): in logical order, little-endian, exactly
    /// [`byte_len`](TensorInfo::byte_len) bytes; a view of the file, where it has them so.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) or [`Io`](crate::ErrorKind::Io) where the file does not have them;
    /// [`Argument`](crate::ErrorKind::Argument) for an index beyond the last.
    fn data(&self, index: usize) -> Result<Bytes>;

    /// What the file says of itself.
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

impl dyn TensorFile + '_ {
    /// The place of the tensor of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.tensors().iter().position(|tensor| tensor.name == name)
    }

    /// All elements of a floating-point tensor, as `f32`.
    ///
    /// # Errors
    /// As [`data`](TensorFile::data) and [`ElementType::to_f32`].
    pub fn to_f32(&self, index: usize) -> Result<Vec<f32>> {
        let (info, bytes) = (info(self.tensors(), index)?, self.data(index)?);
        // As many elements as there are bytes for: memory is not asked for what a header claims.
        let mut values = vec![0.0; info.volume()?.min(bytes.len())];
        info.element.to_f32(&bytes, &mut values).map_err(|error| error.in_tensor(&info.name))?;
        Ok(values)
    }
}

/// The tensor at `index`.
pub(crate) fn info(tensors: &[TensorInfo], index: usize) -> Result<&TensorInfo> {
    tensors.get(index).ok_or_else(|| Error::argument("index of a tensor", index, "less than there are tensors"))
}

/// Opens a model file. The format is told by its first bytes, or where they do not say by the extension of its name.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when it cannot be read, [`Format`](crate::ErrorKind::Format) when it breaks its format,
/// [`Argument`](crate::ErrorKind::Argument) for a format that is not known, or whose feature is off.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn TensorFile>> {
    let path = path.as_ref();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match &*extension {
        #[cfg(feature = "onnx")]
        "onnx" => Ok(Box::new(super::onnx::Onnx::open(path)?)),
        #[cfg(feature = "pytorch")]
        "pt" | "pth" | "bin" | "ckpt" => Ok(Box::new(super::pytorch::PyTorch::open(path)?)),
        #[cfg(feature = "safetensors")]
        "safetensors" => Ok(Box::new(super::safetensors::SafeTensors::open(path)?)),
        #[cfg(feature = "safetensors")]
        "json" if path.to_string_lossy().to_lowercase().ends_with(".safetensors.index.json") => {
            Ok(Box::new(super::safetensors::Sharded::open(path)?))
        }
        _ => {
            Err(Error::argument("extension of a model file", format!("{extension:?}"), "of a format that is built in"))
        }
    }
}
