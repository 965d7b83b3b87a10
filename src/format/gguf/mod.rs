//! GGUF, the model files of llama.cpp.
//!
//! ```text
//! "GGUF" version=3 (or 2), count of tensors, count of entries      u32, u64, u64
//! each entry    key, type (u32), value
//! each tensor   name, rank (u32), sizes (u64, innermost first), type (u32), offset (u64)
//! from the next multiple of `general.alignment` on, 32 where there is none: elements, each tensor from such a multiple on
//! ```
//!
//! Little-endian throughout; texts and arrays are behind their length (u64), arrays behind their type. Follows the
//! [specification](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Metadata keep their order: what [`layout`] wrote, read
//! and laid out again, is the same bytes.

mod read;
mod value;
mod write;

pub use value::{Array, Value};
pub use write::layout;

use super::file::{self, BlockType, Bytes, ElementType, TensorFile, TensorInfo};
use crate::{
    error::{Error, Result},
    map::map,
};
use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

pub(super) const MAGIC: &[u8] = b"GGUF";
/// The version that is written.
const VERSION: u32 = 3;
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u32 = 32;
/// How deep arrays in arrays may be.
const MAX_DEPTH: usize = 8;

/// A GGUF file of version 2 or 3, open for reading. Its tensors are views of the mapped file.
///
/// Blocks of types that are not [decoded](BlockType::ggml) are listed and copied as they are.
#[derive(Clone)]
pub struct Gguf {
    bytes: Bytes,
    version: u32,
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorInfo>,
    places: Vec<Range<usize>>,
}

impl Gguf {
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
    /// [`Format`](crate::ErrorKind::Format) when they break the format, are big-endian or have a type of tensor that is not known;
    /// [`Argument`](crate::ErrorKind::Argument) for a `general.alignment` that is no power of two, a shape beyond 64 bits, or one of
    /// blocks that are not whole.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let read::Header { version, metadata, tensors, places } = read::read(&bytes)?;
        Ok(Self { bytes, version, metadata, tensors, places })
    }

    /// The version of the format.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All that the file says of its model, in its order.
    #[must_use]
    pub fn values(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// What it says under a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl TensorFile for Gguf {
    fn format(&self) -> &'static str {
        "gguf"
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

    /// Each value as text; long arrays by their first elements.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.metadata.iter().map(|(key, value)| (key.clone(), value.to_string())).collect()
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GGUF of {} bytes, {} tensors, {:?}", self.bytes.len(), self.tensors.len(), self.metadata())
    }
}

/// The numbers of element types that are no blocks.
const ELEMENTS: [(u32, ElementType); 8] = [
    (0, ElementType::F32),
    (1, ElementType::F16),
    (24, ElementType::I8),
    (25, ElementType::I16),
    (26, ElementType::I32),
    (27, ElementType::I64),
    (28, ElementType::F64),
    (30, ElementType::Bf16),
];

fn element_of(id: u32) -> Option<ElementType> {
    let plain = ELEMENTS.iter().find(|(number, _)| *number == id).map(|(_, element)| *element);
    plain.or_else(|| BlockType::from_id(id).map(ElementType::Block))
}

fn id_of(element: ElementType) -> Option<u32> {
    match element {
        ElementType::Block(block) => Some(block.id()),
        _ => ELEMENTS.iter().find(|(_, plain)| *plain == element).map(|(number, _)| *number),
    }
}
