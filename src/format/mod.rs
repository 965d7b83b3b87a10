//! Model files, and what a run of training needs to go on.

#[cfg(feature = "safetensors")]
pub mod checkpoint;
#[cfg(feature = "files")]
pub mod file;
#[cfg(feature = "gguf")]
pub mod gguf;
#[cfg(feature = "keras")]
pub mod keras;
#[cfg(feature = "numpy")]
pub mod numpy;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod packed;
mod placed;
#[cfg(feature = "pytorch")]
pub mod pytorch;
#[cfg(feature = "safetensors")]
pub mod safetensors;
#[cfg(feature = "tflite")]
pub mod tflite;
#[cfg(feature = "safetensors")]
pub mod torch;
#[cfg(any(feature = "keras", feature = "numpy"))]
mod zipped;

use crate::error::{Error, Result};
use placed::Placed;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// Makes the file `path` of what `write` writes: a temporary file beside it, sync, rename.
fn write_atomically(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
    let placed = Placed::create(path)?;
    let mut out = BufWriter::new(placed.file()?);
    write(&mut out).and_then(|()| out.flush()).map_err(|error| Error::io(path, error))?;
    drop(out);
    placed.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let dir = std::env::temp_dir().join(format!("lapidary-atomic-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("model.lpdy");
        packed::save(&path, &[]).unwrap();
        assert!(packed::load(&path).unwrap().is_empty());
        assert_eq!(packed::save(dir.join("no/such/dir"), &[]).unwrap_err().kind(), crate::ErrorKind::Io);
        let half = |file: &mut BufWriter<&File>| {
            file.write_all(&[0; 100_000])?;
            Err(io::Error::other("the disk is full"))
        };
        assert_eq!(write_atomically(&path, half).unwrap_err().kind(), crate::ErrorKind::Io);
        assert!(packed::load(&path).unwrap().is_empty());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| packed::save(&path, &[]).unwrap()));
            }
        });
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
