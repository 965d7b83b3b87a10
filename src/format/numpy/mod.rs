//! NumPy's files: `.npy`, an array, and `.npz`, a zip of named ones.
//!
//! ```text
//! .npy   "\x93NUMPY", version (two bytes), length of the text (u16; u32 from version 2.0 on)
//!        text      {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, filled up to a multiple of 64 bytes
//!        elements
//! .npz   a member `name.npy` for each array, stored or deflated
//! ```
//!
//! Follows the [format of NumPy](https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Arrays of
//! numbers (16 to 64 bits of floating point, complex, integers) and of truth values are read, big-endian or little-endian, in Fortran's
//! order or C's; others (objects, texts, structures, `bf16` as the package `ml_dtypes` has it) are named errors.

mod archive;
mod header;
mod order;
mod write;

pub use write::{layout, save_npz};

use super::{
    file::{self, Bytes, TensorFile, TensorInfo},
    zipped::{Member, ZIP, Zip},
};
use crate::{
    error::{Error, Result},
    map::map,
};
use archive::Found;
use header::Header;
use std::{fmt, path::Path};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy's name for an array that has none.
const UNNAMED: &str = "arr_0";

/// An `.npy` or `.npz` file, open for reading. Tensors are views of the mapped file where they are little-endian, in C's order and
/// not deflated. Those of an `.npz` file are held against their CRC-32 whenever they are asked for.
#[derive(Clone)]
pub struct NumpyFile {
    bytes: Bytes,
    zip: Option<Zip>,
    tensors: Vec<TensorInfo>,
    arrays: Vec<(Header, Option<Member>)>,
}

impl NumpyFile {
    /// Opens the file at `path`. The array of an `.npy` file has the name of the file, without the extension.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read; as [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::of(path, map(path)?)
    }

    /// The file of these bytes. The array of an `.npy` file is called `arr_0`, as NumPy calls an array without a name.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) when they break the format, [`Argument`](crate::ErrorKind::Argument) for elements that are no
    /// numbers, a shape beyond 64 bits, a compression other than deflate; they name the array.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        Self::named(UNNAMED, bytes)
    }

    /// The file of these bytes that are at `path`.
    pub(super) fn of(path: &Path, bytes: Bytes) -> Result<Self> {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy());
        Self::named(stem.as_deref().unwrap_or(UNNAMED), bytes)
    }

    fn named(name: &str, bytes: Bytes) -> Result<Self> {
        let mut file = Self { zip: None, tensors: Vec::new(), arrays: Vec::new(), bytes };
        if ZIP.iter().any(|start| file.bytes.starts_with(start)) {
            let (zip, found) = archive::open(&file.bytes)?;
            file.zip = Some(zip);
            found.into_iter().try_for_each(|Found { name, header, member }| file.add(name, header, Some(member)))?;
        } else {
            let header = Header::read(&mut &file.bytes[..]).map_err(|error| error.in_tensor(name))?;
            file.add(name.into(), header, None)?;
        }
        Ok(file)
    }

    /// One more array, where its length is the one that its header says.
    fn add(&mut self, name: String, header: Header, member: Option<Member>) -> Result<()> {
        let info = TensorInfo { name, element: header.element, shape: header.shape.clone() };
        let (len, whole) = (info.byte_len()?, member.as_ref().map_or(self.bytes.len(), Member::len));
        if header.len.checked_add(len) != Some(whole) {
            let reason = format!("{whole} bytes, {} of header and {len} of elements needed", header.len);
            return Err(Error::format(header.len, reason).in_tensor(&info.name));
        }
        self.tensors.push(info);
        self.arrays.push((header, member));
        Ok(())
    }
}

impl TensorFile for NumpyFile {
    fn format(&self) -> &'static str {
        if self.zip.is_some() { "npz" } else { "npy" }
    }

    fn byte_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Bytes> {
        let info = file::at(&self.tensors, index)?;
        let elements = || {
            let ended = || Error::format(self.bytes.len(), "the file ends");
            let (header, member) = self.arrays.get(index).ok_or_else(ended)?;
            let bytes = match (member, &self.zip) {
                (Some(member), Some(zip)) => member.read(zip, &self.bytes)?,
                _ => self.bytes.clone(),
            };
            let elements = Some(header.len).filter(|len| *len <= bytes.len()).ok_or_else(ended)?;
            order::logical(header, bytes.slice(elements..))
        };
        elements().map_err(|error| error.in_tensor(&info.name))
    }
}

impl fmt::Debug for NumpyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes, {} arrays", self.format(), self.bytes.len(), self.tensors.len())
    }
}
