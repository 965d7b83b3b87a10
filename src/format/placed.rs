//! Files whose parts are written in any order.

use crate::error::{Error, Result};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// Bytes from one beginning of writing to the disk to the next.
#[cfg(feature = "files")]
const BEHIND: u64 = 4 << 20;

/// A file that is whole or as it was, written from front to back or by any number of threads at places of their own: a temporary one beside `path`, which takes its
/// name only by [`finish`](Self::finish). Dropped before, it is removed.
#[derive(Debug)]
pub(crate) struct Placed {
    file: Option<File>,
    temporary: PathBuf,
    path: PathBuf,
    /// Bytes written so far.
    #[cfg(feature = "files")]
    written: AtomicU64,
    /// Waits for the disk.
    behind: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl Placed {
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // What an interrupted process left may have the name of one of this.
        for _ in 0..1000 {
            match Self::create_next(path, COUNT.fetch_add(1, Ordering::Relaxed)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map_err(|error| Error::io(path, error)),
            }
        }
        Err(Error::io(path, io::Error::other("temporary files of a thousand names are beside it")))
    }

    fn create_next(path: &Path, count: u64) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}-{count}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create_new(&temporary)?;
        Ok(Self {
            file: Some(file),
            temporary,
            path: path.into(),
            #[cfg(feature = "files")]
            written: AtomicU64::new(0),
            behind: Mutex::default(),
        })
    }

    /// Makes it so long. What is not written is zero.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be.
    #[cfg(feature = "files")]
    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.file()?.set_len(len).map_err(|error| Error::io(&self.path, error))
    }

    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it is closed: never, before [`finish`](Self::finish).
    pub(crate) fn file(&self) -> Result<&File> {
        let closed = || Error::io(&self.path, io::Error::other("the file is closed"));
        self.file.as_ref().ok_or_else(closed)
    }

    /// Writes all of `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot: a full disk.
    #[cfg(feature = "files")]
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_at(self.file()?, offset, bytes).map_err(|error| Error::io(&self.path, error))?;
        let before = self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        match before / BEHIND == (before + bytes.len() as u64) / BEHIND {
            true => Ok(()),
            false => self.write_behind(),
        }
    }

    /// Has the disk begin with what is written so far while more is made: [`finish`](Self::finish) waits for the rest alone.
    #[cfg(feature = "files")]
    fn write_behind(&self) -> Result<()> {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if behind.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        self.caught_up(behind.take())?;
        // Where there is no thread to be had, all is left to the end.
        let file = self.file()?.try_clone();
        *behind = file.and_then(|file| std::thread::Builder::new().spawn(move || file.sync_data())).ok();
        Ok(())
    }

    /// Waits for what was begun. A system tells an error of the disk once: to whoever waits first.
    fn caught_up(&self, behind: Option<JoinHandle<io::Result<()>>>) -> Result<()> {
        let ended = behind.map_or(Ok(Ok(())), JoinHandle::join);
        let ended = ended.unwrap_or_else(|_| Err(io::Error::other("a thread that wrote to the disk panicked")));
        ended.map_err(|error| Error::io(&self.path, error))
    }

    /// Makes sure that all is on the disk, and gives the file its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot; whatever had the name before is then untouched.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.sync()?;
        self.name()
    }

    /// As [`finish`](Self::finish), of this file and then the other; where one fails, both names are as they were.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot.
    #[cfg(feature = "onnx")]
    pub(crate) fn finish_both(mut self, mut other: Self) -> Result<()> {
        self.sync()?;
        other.sync()?;
        let path = self.path.clone();
        let mut kept = self.temporary.clone().into_os_string();
        kept.push(".old");
        let replaces = match fs::rename(&path, &kept) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            moved => moved.map(|()| true).map_err(|error| Error::io(&path, error))?,
        };
        let named = self.name();
        let both = named.and_then(|()| other.name().inspect_err(|_| drop(fs::remove_file(&path))));
        // What was before is put back, or goes; the first error is what counts.
        let _ = match (replaces, &both) {
            (false, _) => Ok(()),
            (true, Ok(())) => fs::remove_file(&kept),
            (true, Err(_)) => fs::rename(&kept, &path),
        };
        both
    }

    fn sync(&self) -> Result<()> {
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.caught_up(behind)?;
        self.file()?.sync_all().map_err(|error| Error::io(&self.path, error))
    }

    fn name(&mut self) -> Result<()> {
        // Some systems do not rename what is open.
        self.file = None;
        let named = fs::rename(&self.temporary, &self.path);
        if named.is_err() {
            let _ = fs::remove_file(&self.temporary);
        }
        named.map_err(|error| Error::io(&self.path, error))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Some systems do not remove what is open.
            let behind = self.behind.get_mut().unwrap_or_else(PoisonError::into_inner).take();
            let _ = self.caught_up(behind);
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(all(unix, feature = "files"))]
fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(all(windows, feature = "files"))]
fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_in_any_order() {
        let dir = std::env::temp_dir().join(format!("lapidary-placed-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("model");
        fs::write(&path, "before").unwrap();
        let placed = Placed::create(&path).unwrap();
        placed.set_len(6).unwrap();
        placed.write_at(3, b"def").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
        placed.write_at(0, b"abc").unwrap();
        placed.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcdef");
        let placed = Placed::create(&path).unwrap();
        assert_eq!(placed.set_len(u64::MAX).unwrap_err().kind(), crate::ErrorKind::Io);
        drop(placed);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[cfg(feature = "onnx")]
    #[test]
    fn two_files_get_their_names_or_none() {
        let dir = std::env::temp_dir().join(format!("lapidary-both-{}", std::process::id()));
        fs::create_dir_all(dir.join("folder/full")).unwrap();
        let (data, model, folder) = (dir.join("data"), dir.join("model"), dir.join("folder"));
        let begun = |path: &Path, bytes: &[u8]| {
            let placed = Placed::create(path).unwrap();
            placed.write_at(0, bytes).unwrap();
            placed
        };
        // A folder that is not empty has the second name.
        assert!(begun(&data, b"new").finish_both(begun(&folder, b"new")).is_err());
        assert!(!data.exists() && fs::read_dir(&dir).unwrap().count() == 1);
        begun(&data, b"1").finish_both(begun(&model, b"2")).unwrap();
        assert!(begun(&data, b"new").finish_both(begun(&folder, b"new")).is_err());
        assert_eq!(fs::read(&data).unwrap(), b"1");
        begun(&data, b"3").finish_both(begun(&model, b"4")).unwrap();
        assert_eq!((fs::read(&data).unwrap(), fs::read(&model).unwrap()), (b"3".to_vec(), b"4".to_vec()));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
        fs::remove_dir_all(dir).unwrap();
    }
}
