//! Keras' models: `.h5`, `.weights.h5` and `.keras`, and any HDF5 file of numbers.
//!
//! ```text
//! .h5           HDF5: model_weights/LAYER/LAYER/kernel:0 …          (Keras 1 and 2)
//! .weights.h5   HDF5: layers/LAYER/vars/0 …                         (Keras 3)
//! .keras        a zip: model.weights.h5 as above, config.json, metadata.json
//! ```
//!
//! A tensor's name is the way to its dataset, with `/`. Floating point of 16 (both kinds) to 64 bits, integers and truth values are read,
//! contiguous, compact or chunked, deflated and shuffled, big-endian ones turned. Other datasets (texts, structures) are left out;
//! the metadata say under `left out: NAME` why. Whatever the [HDF5 reader](https://docs.rs/hdf5-reader) does not know (another
//! filter: `lzf`) is an error of that tensor's data.
//!
//! ```no_run
//! use lapidary::format::{file::TensorFile, keras::Keras};
//! let model = Keras::open("model.keras")?;
//! for tensor in model.tensors() {
//!     println!("{} {} {:?}", tensor.name, tensor.element, tensor.shape);
//! }
//! # Ok::<(), lapidary::Error>(())
//! ```

mod datatype;
mod walk;

use super::{
    file::{self, Bytes, TensorFile, TensorInfo},
    zipped::{self, MAX_RATIO, Member, ZIP, broken},
};
use crate::{
    error::{Error, Result},
    map::map,
};
use hdf5_reader::{Hdf5File, OpenOptions};
use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};
use walk::{Dataset, Found};

/// How HDF5 begins.
pub(super) const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
/// The weights in a `.keras` file.
const WEIGHTS: &str = "model.weights.h5";
/// Bytes of decoded chunks that are kept for the next read: tensors are read whole, so few.
const CACHE: usize = 1 << 20;

/// A Keras model or its weights, open for reading. A tensor is read from the mapped file when it is asked for.
pub struct Keras {
    /// Of the HDF5 file, and of the whole one.
    len: usize,
    file_len: u64,
    format: &'static str,
    tensors: Vec<TensorInfo>,
    datasets: Vec<Dataset>,
    metadata: BTreeMap<String, String>,
}

impl Keras {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read; as [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(map(path.as_ref())?)
    }

    /// The file of these bytes: HDF5, or a zip of it.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) when they break the format, or a `.keras` file has no weights.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        if !ZIP.iter().any(|start| bytes.starts_with(start)) {
            let len = bytes.len() as u64;
            return Self::of(bytes, len, "hdf5", BTreeMap::new());
        }
        let mut zip = zipped::open(&bytes)?;
        let (mut weights, mut metadata) = (None, BTreeMap::new());
        for index in 0..zip.len() {
            let file = zip.by_index(index).map_err(broken)?;
            let name = file.name().map_err(broken)?.into_owned();
            let member = || Member::of(index, &file, bytes.len());
            match &*name {
                WEIGHTS => weights = Some(member()?),
                "config.json" | "metadata.json" => {
                    let member = member()?;
                    drop(file);
                    let text = String::from_utf8(member.read(&zip, &bytes)?.to_vec());
                    metadata.insert(name, text.map_err(|_| Error::format(0, "a text that is not UTF-8"))?);
                }
                _ => {}
            }
        }
        let weights = weights.ok_or_else(|| Error::format(0, format!("zip: no {WEIGHTS}")))?;
        Self::of(weights.read(&zip, &bytes)?, bytes.len() as u64, "keras", metadata)
    }

    fn of(bytes: Bytes, file_len: u64, format: &'static str, mut metadata: BTreeMap<String, String>) -> Result<Self> {
        let len = bytes.len();
        let limit = inflated(len);
        let options = OpenOptions::default().with_chunk_cache_bytes(CACHE).with_max_chunk_bytes(limit);
        let options = options.with_max_read_bytes(limit).with_max_object_header_bytes(len);
        let found = guarded(|| walk::walk(&Hdf5File::from_owner(bytes, options)?))?;
        let Found { tensors, datasets, metadata: of_file } = found;
        metadata.extend(of_file);
        Ok(Self { len, file_len, format, tensors, datasets, metadata })
    }
}

/// The most bytes that a file of so many can hold.
fn inflated(len: usize) -> usize {
    len.saturating_mul(MAX_RATIO as usize)
}

/// What `work` makes of the file; a panic of the HDF5 reader, which broken files might cause, is an error of the format.
fn guarded<T>(work: impl FnOnce() -> hdf5_reader::error::Result<T>) -> Result<T> {
    let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Error::format(0, "HDF5: a broken file"))?;
    result.map_err(|error| Error::format(0, format!("HDF5: {error}")))
}

impl TensorFile for Keras {
    /// `"keras"` of a `.keras` file, `"hdf5"` else.
    fn format(&self) -> &'static str {
        self.format
    }

    fn byte_len(&self) -> u64 {
        self.file_len
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Bytes> {
        let info = file::at(&self.tensors, index)?;
        let read = || {
            let dataset = file::at(&self.datasets, index)?;
            let (len, limit) = (info.byte_len()?, if dataset.chunked { inflated(self.len) } else { self.len });
            if len > limit {
                return Err(Error::format(0, format!("{len} bytes, which a file of {} cannot hold", self.len)));
            }
            let mut bytes = guarded(|| dataset.dataset.read_raw_bytes())?;
            info.check_bytes(bytes.len())?;
            if let (true, Some(size)) = (dataset.big_endian, info.element.bytes(1)) {
                bytes.chunks_exact_mut(size.max(1)).for_each(<[u8]>::reverse);
            }
            Ok(bytes.into())
        };
        read().map_err(|error: Error| error.in_tensor(&info.name))
    }

    /// The texts that the file, and the group `model_weights`, have as attributes (`keras_version`, `backend`, `model_config`); of a
    /// `.keras` file also `config.json` and `metadata.json`; and which datasets are left out.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.metadata.clone()
    }
}

impl fmt::Debug for Keras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes, {} tensors", self.format, self.len, self.tensors.len())
    }
}
