//! Model files, and what a run of training needs to go on.

#[cfg(feature = "safetensors")]
pub mod checkpoint;
pub mod packed;
#[cfg(feature = "safetensors")]
mod tensors;
#[cfg(feature = "safetensors")]
pub mod torch;

use crate::error::{Error, Result};
use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Makes the file `path` of what `write` writes: a temporary file beside it, sync, rename.
fn write_atomically(path: &Path, write: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(name);
    let written = fs::File::create_new(&temporary)
        .map(BufWriter::new)
        .and_then(|mut file| write(&mut file).and_then(|()| file.flush()).and_then(|()| file.get_ref().sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is what counts.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|error| Error::io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let dir = std::env::temp_dir().join(format!("lapidary-atomic-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("model.lpdy");
        packed::save(&path, &[]).unwrap();
        assert!(packed::load(&path).unwrap().is_empty());
        assert_eq!(packed::save(dir.join("no/such/dir"), &[]).unwrap_err().kind(), crate::ErrorKind::Io);
        let half = |file: &mut BufWriter<fs::File>| {
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
