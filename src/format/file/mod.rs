//! Model files as named tensors, whatever their format.
//!
//! [`open`] tells the format and gives a [`TensorFile`]; its tensors are views of the mapped file where the format stores them as
//! they are, so that a file larger than memory is read piece by piece.

mod block_type;
mod element_type;
mod layout;

pub use block_type::BlockType;
pub use bytes::Bytes;
pub use element_type::ElementType;
pub use layout::{Layout, Writer};

#[cfg(feature = "gguf")]
use super::gguf::{self, Gguf};
#[cfg(feature = "keras")]
use super::keras::{self, Keras};
#[cfg(feature = "numpy")]
use super::numpy::{self, NumpyFile};
#[cfg(feature = "tflite")]
use super::tflite::{self, TfLite};
use crate::{
    error::{Error, Result},
    map::map,
    tensor::view::{checked_volume, filled},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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
    /// [`Argument`](crate::ErrorKind::Argument) where it is beyond 64 bits, or the elements are texts, or in blocks of which rows (last
    /// axis) are not whole ones.
    pub fn byte_len(&self) -> Result<usize> {
        if let ElementType::Block(block) = self.element {
            let row = self.shape.last().copied().unwrap_or(1);
            if !row.is_multiple_of(block.block_len()) {
                return Err(
                    Error::argument("row length", row, "a multiple of the block's length").in_tensor(&self.name)
                );
            }
        }
        let bytes = self.element.bytes(self.volume()?);
        let allowed = "of fewer than 2^64 bytes of numbers";
        bytes.ok_or_else(|| Error::argument("shape", format!("{:?}", self.shape), allowed).in_tensor(&self.name))
    }

    /// An error unless its elements take `len` bytes.
    pub(crate) fn check_bytes(&self, len: usize) -> Result<()> {
        match self.byte_len()? {
            needed if needed == len => Ok(()),
            needed => Err(Error::shape("bytes of a tensor", &[needed], &[len]).in_tensor(&self.name)),
        }
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

    /// The length of the file in bytes, and of those that belong to it.
    fn byte_len(&self) -> u64;

    /// The other files that its tensors lie in.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

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

    /// All elements of a floating-point tensor, or of one in blocks that are decoded, as `f32`.
    ///
    /// # Errors
    /// As [`data`](TensorFile::data) and [`ElementType::to_f32`].
    pub fn to_f32(&self, index: usize) -> Result<Vec<f32>> {
        let (info, bytes) = (at(self.tensors(), index)?, self.data(index)?);
        // Memory is not asked for what a header claims, only for what there are bytes for.
        info.check_bytes(bytes.len())?;
        let mut values = filled(info.volume()?, 0.0).map_err(|error| error.in_tensor(&info.name))?;
        info.element.to_f32(&bytes, &mut values).map_err(|error| error.in_tensor(&info.name))?;
        Ok(values)
    }
}

/// What a list of as many as there are tensors has at `index`.
pub(crate) fn at<T>(list: &[T], index: usize) -> Result<&T> {
    list.get(index).ok_or_else(|| Error::argument("index of a tensor", index, "less than there are tensors"))
}

/// The graph of TensorFlow's saved models.
const SAVED_MODEL: &str = "saved_model.pb";
/// How tables of LevelDB end, which the indices of TensorFlow's checkpoints are.
const TABLE: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();

fn tensorflow(found: &str) -> Error {
    Error::argument(
        "model file",
        found,
        "its weights saved as .keras or .npz, or the model exported to ONNX by tf2onnx",
    )
}

/// Opens a model file. The format is told by its first bytes, or where they do not say by the extension of its name.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when it cannot be read, [`Format`](crate::ErrorKind::Format) when it breaks its format,
/// [`Argument`](crate::ErrorKind::Argument) for a format that is not known, or whose feature is off, and for TensorFlow's checkpoints and
/// saved models.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn TensorFile>> {
    let path = path.as_ref();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if path.join(SAVED_MODEL).is_file() {
        return Err(tensorflow("a folder of TensorFlow's saved model"));
    }
    let bytes = map(path)?;
    match &*extension {
        #[cfg(feature = "gguf")]
        _ if bytes.starts_with(gguf::MAGIC) => Ok(Box::new(Gguf::from_bytes(bytes)?)),
        #[cfg(feature = "gguf")]
        "gguf" => Ok(Box::new(Gguf::from_bytes(bytes)?)),
        #[cfg(feature = "numpy")]
        _ if bytes.starts_with(numpy::MAGIC) => Ok(Box::new(NumpyFile::of(path, bytes)?)),
        #[cfg(feature = "numpy")]
        "npy" | "npz" => Ok(Box::new(NumpyFile::of(path, bytes)?)),
        #[cfg(feature = "keras")]
        _ if bytes.starts_with(keras::MAGIC) => Ok(Box::new(Keras::from_bytes(bytes)?)),
        #[cfg(feature = "keras")]
        "keras" | "h5" | "hdf5" => Ok(Box::new(Keras::from_bytes(bytes)?)),
        #[cfg(feature = "tflite")]
        _ if bytes.get(4..8) == Some(tflite::IDENTIFIER) => Ok(Box::new(TfLite::from_bytes(bytes)?)),
        #[cfg(feature = "tflite")]
        "tflite" => Ok(Box::new(TfLite::from_bytes(bytes)?)),
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
        _ if path.ends_with(SAVED_MODEL) => Err(tensorflow("TensorFlow's saved model")),
        "index" if bytes.ends_with(&TABLE) => Err(tensorflow("the index of a TensorFlow checkpoint")),
        _ if extension.starts_with("data-") && extension.contains("-of-") => {
            Err(tensorflow("the data of a TensorFlow checkpoint"))
        }
        _ if bytes.starts_with(b"model_checkpoint_path:") => Err(tensorflow("a list of TensorFlow checkpoints")),
        _ => {
            let start = bytes.get(..4).unwrap_or_default().escape_ascii();
            let found = format!("a file of extension {extension:?} that begins with \"{start}\"");
            Err(Error::argument("model file", found, "of a format that is built in"))
        }
    }
}
