//! Where everything of a model file that is to be written will be.

use super::{Bytes, TensorInfo};
use crate::{
    error::{Error, Result},
    format::placed::Placed,
};
use std::{
    ops::Range,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// A model file of known length before its tensors are there: the bytes around them, and each one's place. Formats make it of
/// [`TensorInfo`]s.
#[derive(Debug, Clone)]
#[must_use]
pub struct Layout {
    /// The bytes that are no tensor's, and where they are.
    pub(crate) fixed: Vec<(u64, Bytes)>,
    /// A name for errors, and the bytes, of each tensor.
    pub(crate) places: Vec<(String, Range<u64>)>,
    pub(crate) len: u64,
}

impl Layout {
    /// Of a format with all its own bytes in front: `fixed`, then the tensors one after the other, each at a multiple of `alignment` (at least 1).
    ///
    /// # Errors
    /// As [`TensorInfo::byte_len`], and [`Argument`](crate::ErrorKind::Argument) for a file of 2⁶⁴ bytes and more.
    pub fn in_order(fixed: Vec<u8>, tensors: &[TensorInfo], alignment: u64) -> Result<Self> {
        let mut end = fixed.len() as u64;
        let mut places = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let len = tensor.byte_len()? as u64;
            let place = end.checked_next_multiple_of(alignment).and_then(|start| Some(start..start.checked_add(len)?));
            let place = place.ok_or_else(|| {
                Error::argument("length of the file", "2^64 bytes", "below 2^64").in_tensor(&tensor.name)
            })?;
            end = place.end;
            places.push((tensor.name.clone(), place));
        }
        Ok(Self { fixed: vec![(0, fixed.into())], places, len: end })
    }

    /// The length of the file in bytes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.len
    }

    /// Begins the file `path`; it takes this name when it is whole.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be made.
    pub fn create(self, path: impl AsRef<Path>) -> Result<Writer> {
        let file = Placed::create(path.as_ref())?;
        file.set_len(self.len)?;
        self.fixed.iter().try_for_each(|(offset, bytes)| file.write_at(*offset, bytes))?;
        let written = self.places.iter().map(|_| Mutex::default()).collect();
        Ok(Writer { file, places: self.places, written })
    }
}

/// A model file that is being written, in any order and by any number of threads. Dropped before [`finish`](Self::finish), nothing of it
/// is left, and what had its name before is as it was.
#[derive(Debug)]
#[must_use]
pub struct Writer {
    file: Placed,
    places: Vec<(String, Range<u64>)>,
    /// What is written of each: stretches in their order, with bytes missing between them.
    written: Vec<Mutex<Vec<Range<u64>>>>,
}

impl Writer {
    /// Writes some bytes of the tensor at `index`, from its byte `offset` on. Each is to be written once.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) beyond the last tensor or the tensor's last byte, and for bytes that are written already;
    /// [`Io`](crate::ErrorKind::Io) when it cannot be written: a full disk.
    pub fn write(&self, index: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let beyond = || Error::argument("index of a tensor", index, "less than there are tensors");
        let ((name, place), written) = self.places.get(index).zip(self.written.get(index)).ok_or_else(beyond)?;
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= place.end - place.start);
        let beyond = || Error::argument("offset in a tensor", offset, "such that the bytes fit").in_tensor(name);
        let part = offset..end.ok_or_else(beyond)?;
        if !claim(&mut written.lock().unwrap_or_else(PoisonError::into_inner), part) {
            return Err(Error::argument("offset in a tensor", offset, "of bytes not written yet").in_tensor(name));
        }
        self.file.write_at(place.start + offset, bytes).map_err(|error| error.in_tensor(name))
    }

    /// An error where bytes of a tensor are missing.
    fn check(&mut self) -> Result<()> {
        for ((name, place), written) in self.places.iter().zip(&mut self.written) {
            let parts = written.get_mut().unwrap_or_else(PoisonError::into_inner);
            let (len, written) = (place.end - place.start, parts.iter().map(|part| part.end - part.start).sum::<u64>());
            if len != written {
                return Err(Error::shape("written bytes", &[len as usize], &[written as usize]).in_tensor(name));
            }
        }
        Ok(())
    }

    /// Gives the whole file its name.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) where bytes of a tensor are missing, [`Io`](crate::ErrorKind::Io) when the disk does not take it.
    pub fn finish(mut self) -> Result<()> {
        self.check()?;
        self.file.finish()
    }

    /// Gives two whole files their names, this one first, or neither.
    ///
    /// # Errors
    /// As [`finish`](Self::finish); what had the names before has them again.
    #[cfg(feature = "onnx")]
    pub(crate) fn finish_both(mut self, mut other: Self) -> Result<()> {
        self.check()?;
        other.check()?;
        self.file.finish_both(other.file)
    }
}

/// Adds a stretch to those that are there, and joins neighbours; `false` where it overlaps one.
fn claim(parts: &mut Vec<Range<u64>>, part: Range<u64>) -> bool {
    if part.is_empty() {
        return true;
    }
    let after = parts.partition_point(|other| other.end <= part.start);
    if parts.get(after).is_some_and(|next| next.start < part.end) {
        return false;
    }
    let joins_next = parts.get(after).is_some_and(|next| next.start == part.end);
    let before = after.checked_sub(1).filter(|&before| parts.get(before).is_some_and(|last| last.end == part.start));
    match (before, joins_next) {
        (Some(before), true) => parts[before].end = parts.remove(after).end,
        (Some(before), false) => parts[before].end = part.end,
        (None, true) => parts[after].start = part.start,
        (None, false) => parts.insert(after, part),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{super::ElementType, *};
    use crate::ErrorKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stretches_are_claimed_once(parts in prop::collection::vec((0u64..40, 0u64..8), 0..30)) {
            let (mut claimed, mut bytes) = (Vec::new(), [false; 48]);
            for (start, len) in parts {
                let part = start as usize..(start + len) as usize;
                let free = bytes[part.clone()].iter().all(|byte| !byte);
                prop_assert_eq!(claim(&mut claimed, start..start + len), free);
                if free {
                    bytes[part].fill(true);
                }
                let all: Vec<u64> = claimed.iter().cloned().flatten().collect();
                let expected: Vec<u64> = (0..48).filter(|&byte| bytes[byte as usize]).collect();
                prop_assert_eq!(all, expected);
                prop_assert!(claimed.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let path = std::env::temp_dir().join(format!("lapidary-layout-{}", std::process::id()));
        let info = |name: &str, shape: &[usize]| TensorInfo {
            name: name.into(),
            element: ElementType::U8,
            shape: shape.into(),
        };
        let tensors = [info("a", &[3]), info("b", &[2, 0]), info("c", &[2])];
        let layout = Layout::in_order(b"head".to_vec(), &tensors, 4).unwrap();
        assert_eq!(layout.byte_len(), 10);
        let file = layout.clone().create(&path).unwrap();
        file.write(2, 0, b"yz").unwrap();
        file.write(0, 1, b"bc").unwrap();
        assert_eq!(file.write(0, 2, b"bc").unwrap_err().tensor(), Some("a"));
        assert_eq!(file.write(0, u64::MAX, b"b").unwrap_err().kind(), ErrorKind::Argument);
        assert!(file.write(3, 0, b"").is_err());
        // Written twice does not make up for what is missing.
        assert_eq!(file.write(0, 2, b"c").unwrap_err().kind(), ErrorKind::Argument);
        assert_eq!(file.finish().unwrap_err().tensor(), Some("a"));
        assert!(!path.exists());
        let file = layout.create(&path).unwrap();
        file.write(0, 0, b"abc").unwrap();
        file.write(2, 0, b"yz").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"headabc\0yz");
        std::fs::remove_file(&path).unwrap();
        let huge = info("huge", &[usize::MAX]);
        assert_eq!(Layout::in_order(vec![0; 8], &[huge], 1).unwrap_err().tensor(), Some("huge"));
    }
}
