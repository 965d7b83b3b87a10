//! The weights in files of `torch.save`: zip archives and the older pickles. Nothing in a pickle is run.
//!
//! ```no_run
//! use lapidary::format::{file::TensorFile, pytorch::PyTorch};
//! let model = PyTorch::open("model.pt")?; // torch.save(model.state_dict(), "model.pt")
//! for tensor in model.tensors() {
//!     println!("{} {} {:?}", tensor.name, tensor.element, tensor.shape);
//! }
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! Read by [`pytorch-reader`](https://docs.rs/pytorch-reader).

use super::file::{Bytes, ElementType, TensorFile, TensorInfo, at};
use crate::error::{Error, Result};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// A file of `torch.save`, open for reading: its tensors by their names, in the order of these. Tensors within dicts, lists and modules are
/// named by the way to them, with dots.
#[derive(Debug)]
pub struct PyTorch {
    path: PathBuf,
    len: u64,
    infos: Vec<TensorInfo>,
    tensors: Vec<Tensor>,
}

impl PyTorch {
    /// Reads where the tensors of a file are.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read, [`Format`](crate::ErrorKind::Format) when it is no such file, or has a tensor
    /// of more bytes than itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::of(path, PytorchReader::new(path))
    }

    /// As [`open`](Self::open), of a part of what was saved: `torch.save({"model": model.state_dict(), …}, path)`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_key(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        let path = path.as_ref();
        Self::of(path, PytorchReader::with_top_level_key(path, key))
    }

    fn of(path: &Path, reader: Result<PytorchReader, PytorchError>) -> Result<Self> {
        let size = fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
        let sorted: BTreeMap<_, _> = reader.map_err(|error| failed(path, error))?.into_tensors().into_iter().collect();
        let (mut infos, mut tensors) = (Vec::new(), Vec::new());
        for (name, tensor) in sorted {
            // A view of one number as many.
            if tensor.byte_len() as u64 > size {
                let reason = format!("a tensor of {} bytes in a file of {size}", tensor.byte_len());
                return Err(Error::format(0, reason).in_tensor(&name));
            }
            infos.push(TensorInfo { name, element: element(tensor.dtype()), shape: tensor.shape().into() });
            tensors.push(tensor);
        }
        Ok(Self { path: path.into(), len: size, infos, tensors })
    }
}

impl TensorFile for PyTorch {
    fn format(&self) -> &'static str {
        "pytorch"
    }

    fn byte_len(&self) -> u64 {
        self.len
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Bytes> {
        let (info, tensor) = (at(&self.infos, index)?, at(&self.tensors, index)?);
        let read = tensor.read().map_err(|error| failed(&self.path, error.into()).in_tensor(&info.name));
        let mut bytes = read?;
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(tensor.dtype().size()).for_each(<[u8]>::reverse);
        }
        info.check_bytes(bytes.len()).map(|()| bytes.into())
    }
}

pub(super) fn failed(path: &Path, error: PytorchError) -> Error {
    match error {
        PytorchError::Io(error)
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Error::io(path, error)
        }
        error => Error::format(0, error.to_string()),
    }
}

fn element(dtype: DType) -> ElementType {
    match dtype {
        DType::F64 => ElementType::F64,
        DType::F32 => ElementType::F32,
        DType::F16 => ElementType::F16,
        DType::BF16 => ElementType::Bf16,
        DType::I64 => ElementType::I64,
        DType::I32 => ElementType::I32,
        DType::I16 => ElementType::I16,
        DType::I8 => ElementType::I8,
        DType::U64 => ElementType::U64,
        DType::U32 => ElementType::U32,
        DType::U16 => ElementType::U16,
        DType::U8 => ElementType::U8,
        DType::Bool => ElementType::Bool,
    }
}
