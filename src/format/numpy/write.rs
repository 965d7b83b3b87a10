//! Arrays to files.

use super::header;
use crate::{
    error::{Error, Result},
    format::{
        file::{Bytes, Layout, TensorInfo},
        placed::Placed,
    },
};
use std::{
    collections::HashSet,
    io::{self, BufWriter, Write},
    path::Path,
};
use zip::{CompressionMethod, DateTime, System, ZipWriter, write::SimpleFileOptions};

/// Members of so many bytes are announced with 64-bit lengths.
const LARGE: usize = u32::MAX as usize;

/// An `.npy` file for the tensor, before its elements are there; the header is byte for byte NumPy's. The name is not kept.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for an element type that NumPy does not have: `bf16`, blocks, less than 8 bits; and as
/// [`TensorInfo::byte_len`].
pub fn layout(tensor: &TensorInfo) -> Result<Layout> {
    Layout::in_order(header::write(tensor)?, std::slice::from_ref(tensor), 1)
}

/// Writes an `.npz` file, tensor by tensor: each is a member `name.npy`, stored as it is (NumPy's `savez`), with a fixed date, so that
/// the same tensors give the same bytes. `path` has its name when it is whole.
///
/// A zip has the sum of a member's bytes before them. So tensors come one after the other, each whole (a view of a mapped file is), and
/// not by a [`Layout`].
///
/// # Errors
/// Those of `tensors`; as [`layout`]; [`Shape`](crate::ErrorKind::Shape) where bytes are not those of their tensor;
/// [`Argument`](crate::ErrorKind::Argument) for a name that comes twice, is longer than 65,531 bytes or has a zero byte;
/// [`Io`](crate::ErrorKind::Io) when it cannot be written.
///
/// ```
/// use lapidary::format::{file::{Bytes, ElementType, TensorFile, TensorInfo}, numpy::{self, NumpyFile}};
///
/// let path = std::env::temp_dir().join(format!("lapidary-doc-{}.npz", std::process::id()));
/// let codes = TensorInfo { name: "codes".into(), element: ElementType::U8, shape: vec![2, 2] };
/// numpy::save_npz(&path, [Ok((codes.clone(), Bytes::from_static(&[1, 2, 3, 4])))])?;
///
/// let file = NumpyFile::open(&path)?;
/// assert_eq!(file.tensors(), [codes]);
/// assert_eq!(file.data(0)?, [1, 2, 3, 4].as_slice());
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn save_npz(path: impl AsRef<Path>, tensors: impl IntoIterator<Item = Result<(TensorInfo, Bytes)>>) -> Result<()> {
    let path = path.as_ref();
    let placed = Placed::create(path)?;
    let failed = |error: io::Error| Error::io(path, error);
    let mut zip = ZipWriter::new(BufWriter::new(placed.file()?));
    let mut names = HashSet::new();
    for tensor in tensors {
        let (info, bytes) = tensor?;
        let named = |error: Error| error.in_tensor(&info.name);
        info.check_bytes(bytes.len())?;
        let header = header::write(&info)?;
        let member = format!("{}.npy", info.name);
        if u16::try_from(member.len()).is_err() || member.contains('\0') || !names.insert(member.clone()) {
            let allowed = "of up to 65,531 bytes, none of them zero, and not twice";
            return Err(named(Error::argument("name", format!("{:?}", info.name), allowed)));
        }
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .system(System::Unix)
            .large_file(header.len().saturating_add(bytes.len()) >= LARGE);
        zip.start_file(member, options).map_err(|error| named(failed(error.into())))?;
        zip.write_all(&header).and_then(|()| zip.write_all(&bytes)).map_err(|error| named(failed(error)))?;
    }
    let mut out = zip.finish().map_err(|error| failed(error.into()))?;
    out.flush().map_err(failed)?;
    drop(out);
    placed.finish()
}
