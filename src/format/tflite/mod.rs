//! TensorFlow Lite's models, `.tflite`: the weights in them.
//!
//! A FlatBuffer with the identifier `TFL3`, after its
//! [schema](https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs): subgraphs have
//! tensors, tensors name a buffer, and those of which the buffer has bytes are the weights. Quantized ones also have
//! [scales and zero points](TfLite::quantization).
//!
//! ```no_run
//! use lapidary::format::{file::TensorFile, tflite::TfLite};
//! let model = TfLite::open("model.tflite")?;
//! for (index, tensor) in model.tensors().iter().enumerate() {
//!     println!("{} {} {:?} {:?}", tensor.name, tensor.element, tensor.shape, model.quantization(index));
//! }
//! # Ok::<(), lapidary::Error>(())
//! ```

mod quantization;
mod read;
mod table;

pub use quantization::Quantization;

use super::file::{self, Bytes, TensorFile, TensorInfo};
use crate::{
    error::{Error, Result},
    map::map,
    tensor::QTensor,
};
use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

/// How a file says at its byte 4 that it is such a model.
pub(super) const IDENTIFIER: &[u8] = b"TFL3";

/// A `.tflite` file, open for reading: the tensors of all its subgraphs that have bytes of their own. They are views of the mapped file.
///
/// Names are the file's. One that is empty, or another tensor's before it, gets `#subgraph.tensor` behind it, by their places from 0.
/// Left out are texts, resources and sparse tensors; [`metadata`](TensorFile::metadata) says under `left out: NAME` why.
#[derive(Clone)]
pub struct TfLite {
    bytes: Bytes,
    tensors: Vec<TensorInfo>,
    places: Vec<Range<usize>>,
    quantizations: Vec<Option<Quantization>>,
    metadata: BTreeMap<String, String>,
}

impl TfLite {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read; as [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(map(path.as_ref())?)
    }

    /// The file of these bytes.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) when they break the format, have a type of tensor that is not known, or a buffer of another
    /// length than its tensor's; [`Argument`](crate::ErrorKind::Argument) for a shape beyond 64 bits.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let read::Model { tensors, places, quantizations, metadata } = read::read(&bytes)?;
        Ok(Self { bytes, tensors, places, quantizations, metadata })
    }

    /// The scales and zero points of the tensor at `index`; `None` where it has none, or is not there.
    #[must_use]
    pub fn quantization(&self, index: usize) -> Option<&Quantization> {
        self.quantizations.get(index)?.as_ref()
    }

    /// The tensor at `index` as a quantized one: of `i8`, `u8`, `i4` or `i2`, with one scale or one for each index along an axis.
    ///
    /// # Errors
    /// As [`data`](TensorFile::data); [`Argument`](crate::ErrorKind::Argument) for a tensor of another type, one without scales, or a
    /// zero point that is no code; as [`QTensor::new`].
    pub fn quantized(&self, index: usize) -> Result<QTensor> {
        let (info, bytes) = (file::at(&self.tensors, index)?, self.data(index)?);
        let none = || Error::argument("quantization", "none", "scales of the tensor");
        let quantization = self.quantization(index).ok_or_else(none);
        quantization.and_then(|quantization| quantization.apply(info, &bytes)).map_err(|e| e.in_tensor(&info.name))
    }
}

impl TensorFile for TfLite {
    fn format(&self) -> &'static str {
        "tflite"
    }

    fn byte_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Bytes> {
        let info = file::at(&self.tensors, index)?;
        let place = self.places.get(index).filter(|place| place.end <= self.bytes.len());
        let place = place.ok_or_else(|| Error::format(self.bytes.len(), "the file ends").in_tensor(&info.name))?;
        Ok(self.bytes.slice(place.clone()))
    }

    /// The model's `description` and `version`, and which tensors are left out.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.metadata.clone()
    }
}

impl fmt::Debug for TfLite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TFLite model of {} bytes, {} tensors", self.bytes.len(), self.tensors.len())
    }
}
