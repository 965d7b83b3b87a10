//! ONNX models: every field is read and written again, weights stay views of the mapped file.
//!
//! [`Onnx::open`] reads a model, with the files its tensors may lie in. All tensors with elements are listed, wherever they are:
//! initializers, dense or sparse, and attributes (of `Constant` nodes, say), of the main graph, of the graphs within `If`, `Loop` and
//! `Scan`, of functions and of training. A changed [`proto::ModelProto`] is written by [`layout`], or by [`layout_external`] with its
//! weights in a file of their own, as models of 2 GB and more need it.
//!
//! ```
//! use lapidary::format::{file::{ElementType, TensorFile}, onnx::{self, Onnx, proto}};
//! # let path = std::env::temp_dir().join(format!("lapidary-onnx-{}.onnx", std::process::id()));
//! let weight = onnx::tensor("w", ElementType::F32, &[2, 2], [1f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat().into())?;
//! let graph = proto::GraphProto { initializer: vec![weight], ..Default::default() };
//! let model = proto::ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() };
//! onnx::layout(&model)?.create(&path)?.finish()?;
//!
//! let read = Onnx::open(&path)?;
//! assert_eq!(read.model(), &model);
//! assert_eq!((read.tensors()[0].name.as_str(), read.tensors()[0].shape.as_slice()), ("w", &[2, 2][..]));
//! # std::fs::remove_file(path).unwrap();
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! Format: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>, and `ExternalData.md` beside it.

mod external;
pub mod proto;
mod splice;
mod tensor;
mod visit;

pub(crate) use tensor::{bytes as tensor_bytes, info as tensor_info, pending_number};
pub use tensor::{pending, tensor};
pub(crate) use visit::called;

pub(crate) use super::file::Bytes;
use super::file::{ElementType, Layout, TensorFile, TensorInfo, at};
use crate::error::{Error, Result};
use external::Files;
use prost::Message;
use proto::{ModelProto, TensorProto};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

/// Raw elements of fewer bytes stay within the messages.
const LARGE: usize = 1024;
/// What readers of protobuf take at most.
const MAX_MESSAGE: u64 = (1 << 31) - 1;

/// An ONNX model, open for reading.
#[derive(Debug)]
pub struct Onnx {
    model: ModelProto,
    infos: Vec<TensorInfo>,
    tensors: Vec<TensorProto>,
    files: Files,
    len: u64,
    unknown: usize,
}

impl Onnx {
    /// Maps a model and the files its tensors lie in, which are beside it.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when one of them cannot be read; [`Format`](crate::ErrorKind::Format) when the model is not one, or a
    /// tensor's type, sizes or place in another file are none. Whether it has as many bytes as they say is seen when they are read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = crate::map::map(path)?;
        let len = bytes.len();
        let model =
            ModelProto::decode(bytes).map_err(|error| Error::format(0, format!("not an ONNX model: {error}")))?;
        if model.graph.is_none() {
            return Err(Error::format(0, "not an ONNX model: it has no graph"));
        }
        let unknown = len.abs_diff(model.encoded_len());
        let mut files = Files::beside(path);
        let (mut names, mut infos, mut tensors) = (Names::default(), Vec::new(), Vec::new());
        visit::tensors(&model, &mut |name, tensor| {
            let unique = names.unique(name);
            // Ways to graphs within graphs repeat, by far less than this.
            if names.bytes > len.saturating_mul(16).saturating_add(1 << 20) {
                return Err(Error::format(0, "the names of its tensors take more than 16 times its bytes"));
            }
            let Some(info) = tensor::info(unique, tensor)? else { return Ok(()) };
            if pending_number(tensor).is_some() {
                return Err(Error::format(0, "a key of external data that no file has").in_tensor(&info.name));
            }
            files.add(tensor).map_err(|error| error.in_tensor(&info.name))?;
            infos.push(info);
            // Its elements are shared, not copied, but for those in typed fields.
            tensors.push(tensor.clone());
            Ok(())
        })?;
        Ok(Self { model, infos, tensors, files, len: len as u64, unknown })
    }

    /// The model, with elements in other files left there.
    #[must_use]
    pub fn model(&self) -> &ModelProto {
        &self.model
    }

    /// The model with all elements as raw data, views of the files.
    ///
    /// # Errors
    /// As [`TensorFile::data`].
    pub fn inlined(&self) -> Result<ModelProto> {
        let mut model = self.model.clone();
        visit::tensors_mut(&mut model, &mut |name, tensor| {
            if tensor::is_external(tensor) {
                let raw = self.files.bytes(tensor).map_err(|error| error.in_tensor(name))?;
                *tensor = TensorProto {
                    raw_data: Some(raw),
                    external_data: Vec::new(),
                    data_location: None,
                    ..tensor.clone()
                };
            }
            Ok(())
        })?;
        Ok(model)
    }

    /// Whether tensors lie in other files.
    #[must_use]
    pub fn is_external(&self) -> bool {
        !self.files.is_empty()
    }

    /// Bytes by which the file is longer (or shorter) than what is written of it: 0 unless it has fields of a standard newer than
    /// this, which are not kept, or was written in an unusual way.
    #[must_use]
    pub fn unknown_bytes(&self) -> usize {
        self.unknown
    }
}

/// The names of tensors: they are unique within a graph, but not every file keeps to that.
#[derive(Debug, Default)]
struct Names {
    /// How often each was there.
    seen: HashMap<String, usize>,
    bytes: usize,
}

impl Names {
    /// The name, or it with a number that makes it another than those before.
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_string();
        while self.seen.contains_key(&unique) {
            let count = self.seen.entry(name.into()).or_insert(0);
            *count += 1;
            unique = format!("{name}#{count}");
        }
        self.bytes += unique.len();
        self.seen.insert(unique.clone(), 1);
        unique
    }
}

impl TensorFile for Onnx {
    fn format(&self) -> &'static str {
        "onnx"
    }

    fn byte_len(&self) -> u64 {
        self.len + self.files.byte_len()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Bytes> {
        let (info, tensor) = (at(&self.infos, index)?, at(&self.tensors, index)?);
        if !tensor::is_external(tensor) {
            return tensor::bytes(tensor, info);
        }
        let bytes = self.files.bytes(tensor).map_err(|error| error.in_tensor(&info.name))?;
        info.check_bytes(bytes.len()).map(|()| bytes)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.paths()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let model = &self.model;
        let own = [
            ("producer_name", &model.producer_name),
            ("producer_version", &model.producer_version),
            ("domain", &model.domain),
            ("doc_string", &model.doc_string),
        ];
        let own = own.into_iter().filter_map(|(key, value)| Some((key.to_string(), value.clone()?)));
        let opsets = model.opset_import.iter().map(|set| {
            (
                format!("opset {}", set.domain.as_deref().filter(|d| !d.is_empty()).unwrap_or("ai.onnx")),
                set.version.unwrap_or(0).to_string(),
            )
        });
        let props = model.metadata_props.iter();
        let props = props.map(|entry| (entry.key.clone().unwrap_or_default(), entry.value.clone().unwrap_or_default()));
        own.chain(opsets).chain(props).collect()
    }
}

/// The file of a model, all in one. Its places are the tensors made by [`pending`], by their numbers.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for a model of 2³¹ bytes and more (see [`layout_external`]), and where the numbers of pending
/// tensors are not 0, 1, 2, …
pub fn layout(model: &ModelProto) -> Result<Layout> {
    let layout = splice::layout(model.clone())?;
    if layout.byte_len() > MAX_MESSAGE {
        let allowed = "below 2^31, or with its weights in a file of their own";
        return Err(Error::argument("length of the model", layout.byte_len(), allowed));
    }
    Ok(layout)
}

/// The file of a model, and that of its weights: raw elements of 1,024 bytes and more, and all pending ones, which are that
/// file's places. `location` is the name the model calls it by: it has to be beside the model.
///
/// # Errors
/// As [`layout`], and [`Argument`](crate::ErrorKind::Argument) for a location that is no plain name.
pub fn layout_external(model: &ModelProto, location: &str) -> Result<(Layout, Layout)> {
    let mut model = model.clone();
    let data = external::split(&mut model, location)?;
    Ok((layout(&model)?, data))
}

/// The type of a tensor's elements by its number in ONNX.
pub(crate) fn element_type(number: i32) -> Option<ElementType> {
    TYPES.get(usize::try_from(number).ok()?).copied().flatten()
}

/// The number in ONNX of an element type, where it has one.
#[must_use]
pub fn data_type(element: ElementType) -> Option<i32> {
    TYPES.iter().position(|known| *known == Some(element)).map(|number| number as i32)
}

/// By their numbers in `TensorProto.DataType`.
const TYPES: [Option<ElementType>; 29] = {
    use ElementType::*;
    [
        None,
        Some(F32),
        Some(U8),
        Some(I8),
        Some(U16),
        Some(I16),
        Some(I32),
        Some(I64),
        Some(Text),
        Some(Bool),
        Some(F16),
        Some(F64),
        Some(U32),
        Some(U64),
        Some(C64),
        Some(C128),
        Some(Bf16),
        Some(F8E4M3),
        Some(F8E4M3Fnuz),
        Some(F8E5M2),
        Some(F8E5M2Fnuz),
        Some(U4),
        Some(I4),
        Some(F4E2M1),
        Some(F8E8M0),
        Some(U2),
        Some(I2),
        Some(F6E2M3),
        Some(F6E3M2),
    ]
};
