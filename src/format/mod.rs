//! Model files.

mod gaps;
pub mod packed;

use crate::error::Result;
use std::{fs, io::Write, path::Path};

/// Writes `bytes` to `path`: a temporary file beside it, sync, rename.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is what counts.
        let _ = fs::remove_file(&temporary);
    }
    Ok(written?)
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
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
