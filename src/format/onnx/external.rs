//! Elements in files beside the model's.

use super::{
    Bytes, LARGE,
    proto::{ModelProto, StringStringEntryProto, TensorProto},
    tensor::{EXTERNAL, info, is_external, pending_number},
    visit,
};
use crate::{
    error::{Error, Result},
    format::file::Layout,
};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// Where tensors begin: what readers map them by.
const ALIGNMENT: u64 = 4096;

/// The files that a model's tensors lie in, mapped.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    mapped: BTreeMap<String, Bytes>,
}

impl Files {
    /// Of the model `path`, none yet.
    pub(super) fn beside(path: &Path) -> Self {
        Self { folder: path.parent().unwrap_or(Path::new("")).into(), mapped: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mapped.is_empty()
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.mapped.keys().map(|location| self.folder.join(location)).collect()
    }

    pub(super) fn byte_len(&self) -> u64 {
        self.mapped.values().map(|file| file.len() as u64).sum()
    }

    /// Maps the file that `tensor` lies in, where it is not in the model.
    pub(super) fn add(&mut self, tensor: &TensorProto) -> Result<()> {
        if !is_external(tensor) {
            return Ok(());
        }
        let location = location(tensor)?;
        if !self.mapped.contains_key(location) {
            let path = self.folder.join(location);
            // A link could lead anywhere, and so could a folder that is one.
            let metadata = path.symlink_metadata().map_err(|error| Error::io(&path, error))?;
            let within = || {
                let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
                Ok(path.canonicalize()?.starts_with(folder.canonicalize()?))
            };
            if !metadata.is_file() || !within().map_err(|error| Error::io(&path, error))? {
                return Err(Error::format(0, format!("{location:?} is not a file in the model's folder")));
            }
            self.mapped.insert(location.into(), crate::map::map(&path)?);
        }
        self.bytes(tensor).map(drop)
    }

    /// The elements of a tensor in one of the files.
    pub(super) fn bytes(&self, tensor: &TensorProto) -> Result<Bytes> {
        let location = location(tensor)?;
        let file = self.mapped.get(location).ok_or_else(|| Error::format(0, format!("{location:?} is not open")))?;
        let offset = number(tensor, "offset")?.unwrap_or(0);
        let length = match (number(tensor, "length")?, info(String::new(), tensor)?) {
            (Some(length), _) => length,
            (None, Some(info)) => info.byte_len()?,
            (None, None) => file.len().saturating_sub(offset),
        };
        match offset.checked_add(length).filter(|&end| end <= file.len()) {
            Some(end) => Ok(file.slice(offset..end)),
            None => Err(Error::format(offset, format!("{location:?} ends before {length} bytes from there"))),
        }
    }
}

fn value<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key))?;
    entry.value.as_deref()
}

fn number(tensor: &TensorProto, key: &str) -> Result<Option<usize>> {
    let parse = |text: &str| text.parse().map_err(|_| Error::format(0, format!("{key} of external data is {text:?}")));
    value(tensor, key).map(parse).transpose()
}

/// A path that stays in the model's folder.
fn location(tensor: &TensorProto) -> Result<&str> {
    let location = value(tensor, "location").unwrap_or_default();
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !Path::new(location).components().all(plain) {
        return Err(Error::format(0, format!("external data at {location:?}, not below the model's folder")));
    }
    Ok(location)
}

/// Moves large elements out of the model into a file that it will know as `location`.
pub(super) fn split(model: &mut ModelProto, location: &str) -> Result<Layout> {
    if Path::new(location).file_name().is_none_or(|name| name != location) {
        return Err(Error::argument("location", format!("{location:?}"), "the name of a file"));
    }
    let (mut fixed, mut places, mut end) = (Vec::new(), BTreeMap::new(), 0u64);
    visit::tensors_mut(model, &mut |name, tensor| {
        let number = pending_number(tensor);
        let raw = tensor.raw_data.take_if(|raw| raw.len() >= LARGE);
        let len = match (number, &raw) {
            (None, None) => return Ok(()),
            (None, Some(raw)) => raw.len(),
            (Some(_), _) => match info(name.into(), tensor)? {
                Some(info) => info.byte_len()?,
                None => return Ok(()),
            },
        };
        let beyond = || Error::argument("length of the file", "2^64 bytes", "below 2^64").in_tensor(name);
        let start = end.checked_next_multiple_of(ALIGNMENT).ok_or_else(beyond)?;
        end = start.checked_add(len as u64).ok_or_else(beyond)?;
        if let Some(number) = number {
            places.insert(number, (name.to_string(), start..end));
        } else {
            fixed.extend(raw.map(|raw| (start, raw)));
        }
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        tensor.external_data = vec![
            entry("location", location.into()),
            entry("offset", start.to_string()),
            entry("length", len.to_string()),
        ];
        tensor.data_location = Some(EXTERNAL);
        Ok(())
    })?;
    Ok(Layout { fixed, places: numbered(places)?, len: end })
}

/// Places by their numbers, which are to be 0, 1, 2, …
pub(super) fn numbered<T>(places: BTreeMap<usize, T>) -> Result<Vec<T>> {
    if let Some((_, number)) = places.keys().enumerate().find(|(i, number)| i != *number) {
        return Err(Error::argument("number of a pending tensor", number, "the next one"));
    }
    Ok(places.into_values().collect())
}
