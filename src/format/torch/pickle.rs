//! Files that `torch.save` wrote.

use super::{
    StateDict,
    array::{Array, Kind},
};
use crate::{
    error::{Error, Result},
    format::pytorch::failed,
};
use pytorch_reader::{DType, PickleValue, PytorchReader, Tensor};
use std::{collections::BTreeMap, fs, io, path::Path};

impl StateDict {
    /// Reads what `torch.save(optimizer.state_dict(), path)` wrote.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read, [`Format`](crate::ErrorKind::Format) when it is no such file or holds
    /// something else.
    #[cfg_attr(docsrs, doc(cfg(feature = "pytorch")))]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_at(path.as_ref(), None)
    }

    /// As [`open`](StateDict::open), where the state dict is a part of what was saved:
    /// `torch.save({"optimizer": optimizer.state_dict(), …}, path)`.
    ///
    /// # Errors
    /// As [`open`](StateDict::open).
    #[cfg_attr(docsrs, doc(cfg(feature = "pytorch")))]
    pub fn open_key(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        Self::open_at(path.as_ref(), Some(key))
    }

    fn open_at(path: &Path, key: Option<&str>) -> Result<Self> {
        let size = fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
        let failed = |error| failed(path, error);
        let value = PytorchReader::read_pickle_data(path, key).map_err(failed)?;
        let mut arrays = plain(&value)?;
        let reader = match key {
            Some(key) => PytorchReader::with_top_level_key(path, key),
            None => PytorchReader::new(path),
        };
        let tensors: BTreeMap<_, _> = reader.map_err(failed)?.into_tensors().into_iter().collect();
        // Views of one number as many would be more than the file.
        let total = tensors.values().fold(0u64, |sum, tensor| sum.saturating_add(tensor.byte_len() as u64));
        if total > size {
            return Err(Error::format(0, format!("tensors of {total} bytes in a file of {size}")));
        }
        for (name, tensor) in tensors {
            let array = array(&tensor).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    Error::format(0, error.to_string()).in_tensor(&name)
                }
                _ => Error::io(path, error),
            })?;
            arrays.insert(name, array);
        }
        Self::from_arrays(arrays)
    }
}

fn array(tensor: &Tensor) -> io::Result<Array> {
    let kind = match tensor.dtype() {
        DType::F64 => Kind::F64,
        DType::F32 => Kind::F32,
        DType::F16 => Kind::F16,
        DType::BF16 => Kind::Bf16,
        DType::I64 => Kind::I64,
        DType::I32 => Kind::I32,
        other => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?} is no type of optimizer state")));
        }
    };
    let mut bytes = tensor.read()?;
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(tensor.dtype().size()).for_each(<[u8]>::reverse);
    }
    Ok(Array::new(tensor.shape().to_vec(), kind, &bytes))
}

/// The numbers that are no tensors, by the names they would have: older versions keep `step` so, and all do `lr`.
fn plain(value: &PickleValue) -> Result<BTreeMap<String, Array>> {
    let entry = |key: &str| match value {
        PickleValue::Dict(dict) => dict.get(key),
        _ => None,
    };
    let (Some(PickleValue::Dict(states)), Some(PickleValue::List(groups))) = (entry("state"), entry("param_groups"))
    else {
        return Err(Error::format(0, "not the state of an optimizer: no `state` and `param_groups`"));
    };
    let mut arrays = BTreeMap::new();
    for (index, state) in states {
        let PickleValue::Dict(state) = state else {
            return Err(Error::format(0, format!("state {index} is no dict")));
        };
        for (name, value) in state {
            if let Some(number) = number(value) {
                arrays.insert(format!("state.{index}.{name}"), Array::plain(vec![], vec![number]));
            }
        }
    }
    for (at, group) in groups.iter().enumerate() {
        let PickleValue::Dict(group) = group else {
            return Err(Error::format(0, format!("group {at} is no dict")));
        };
        let Some(PickleValue::List(params)) = group.get("params") else {
            return Err(Error::format(0, format!("group {at} has no list of parameters")));
        };
        let params = params.iter().map(number).collect::<Option<Vec<_>>>();
        let params = params.ok_or_else(|| Error::format(0, format!("group {at} lists what is no number")))?;
        arrays.insert(format!("param_groups.{at}.params"), Array::plain(vec![params.len()], params));
        if let Some(rate) = group.get("lr").and_then(number) {
            arrays.insert(format!("param_groups.{at}.lr"), Array::plain(vec![], vec![rate]));
        }
    }
    Ok(arrays)
}

fn number(value: &PickleValue) -> Option<f64> {
    match value {
        PickleValue::Int(value) => Some(*value as f64),
        PickleValue::Float(value) => Some(*value),
        _ => None,
    }
}
