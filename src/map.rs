//! Files as memory.

use crate::error::{Error, Result};
use bytes::Bytes;
use memmap2::Mmap;
use std::{fs::File, path::Path};

/// The bytes of a file, read from the disk where they are looked at. Slices of them keep the map alive.
///
/// Whoever cuts the file short meanwhile ends this process by a signal: that is what a map is.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io).
pub(crate) fn map(path: &Path) -> Result<Bytes> {
    let map = || {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::new()); // which not every system maps
        }
        // SAFETY: the map is for reading only, and whatever is read from it is checked as bytes from anywhere are: another process that
        // changes them changes numbers, or what is an error. No reference to it outlives it: `Bytes` owns it.
        #[allow(unsafe_code, reason = "mapping a file cannot be proven safe by a library")]
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Bytes::from_owner(map))
    };
    map().map_err(|error| Error::io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_outlives_the_name_of_its_file() {
        let path = std::env::temp_dir().join(format!("lapidary-map-{}", std::process::id()));
        std::fs::write(&path, [1, 2, 3]).unwrap();
        let tail = map(&path).unwrap().slice(1..);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&tail[..], [2, 3]);
        assert_eq!(map(&path).unwrap_err().kind(), crate::ErrorKind::Io);
        std::fs::write(&path, []).unwrap();
        assert!(map(&path).unwrap().is_empty());
        std::fs::remove_file(&path).unwrap();
    }
}
