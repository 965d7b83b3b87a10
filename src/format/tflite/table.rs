//! FlatBuffers, read within bounds: tables, vectors and texts at any offset, each held against the bytes there are.

use crate::error::{Error, Result};
use std::ops::Range;

/// A table: where it begins, and the fields that its virtual table says it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The offsets of its fields, two bytes each, 0 for one that is not there.
    fields: &'a [u8],
}

/// A number of the format, little-endian.
pub(super) trait Number: Sized + Default {
    fn at(bytes: &[u8], at: usize) -> Option<Self>;
}

macro_rules! number {
    ($($number:ident),*) => {
        $(impl Number for $number {
            fn at(bytes: &[u8], at: usize) -> Option<Self> {
                bytes.get(at..)?.first_chunk().map(|bytes| Self::from_le_bytes(*bytes))
            }
        })*
    };
}
number!(i8, u8, u16, i32, u32, f32, i64, u64);

fn number<N: Number>(bytes: &[u8], at: usize) -> Result<N> {
    N::at(bytes, at).ok_or_else(|| Error::format(at, "points beyond the file"))
}

/// Where the offset at `at` points to. Offsets count forwards from themselves.
fn target(bytes: &[u8], at: usize) -> Result<usize> {
    let offset = number::<u32>(bytes, at)? as usize;
    let target = at.checked_add(offset).filter(|target| offset != 0 && *target < bytes.len());
    target.ok_or_else(|| Error::format(at, format!("an offset of {offset}")))
}

impl<'a> Table<'a> {
    /// The table that a file begins with the offset of.
    pub(super) fn root(bytes: &'a [u8]) -> Result<Self> {
        Self::new(bytes, target(bytes, 0)?)
    }

    fn new(bytes: &'a [u8], at: usize) -> Result<Self> {
        let back = i64::from(number::<i32>(bytes, at)?);
        let start = i64::try_from(at).ok().and_then(|at| usize::try_from(at - back).ok());
        let wrong = || Error::format(at, "a table without a virtual table");
        let start = start.ok_or_else(wrong)?;
        let len = usize::from(number::<u16>(bytes, start)?);
        // Its own length and the table's come before the fields.
        let fields = start.checked_add(len).filter(|_| len >= 4).and_then(|end| bytes.get(start + 4..end));
        Ok(Self { bytes, at, fields: fields.ok_or_else(wrong)? })
    }

    /// Where the table begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn place(&self, field: usize) -> Option<usize> {
        let offset = u16::at(self.fields, field * 2).filter(|offset| *offset != 0)?;
        Some(self.at + usize::from(offset))
    }

    /// A number; 0 where there is none, as the schema's defaults are.
    pub(super) fn number<N: Number>(&self, field: usize) -> Result<N> {
        self.place(field).map_or(Ok(N::default()), |at| number(self.bytes, at))
    }

    pub(super) fn table(&self, field: usize) -> Result<Option<Self>> {
        self.place(field).map(|at| Self::new(self.bytes, target(self.bytes, at)?)).transpose()
    }

    /// The bytes of a vector of elements of `size` bytes; of none, where there is no vector.
    pub(super) fn vector(&self, field: usize, size: usize) -> Result<Range<usize>> {
        let Some(at) = self.place(field) else { return Ok(0..0) };
        let at = target(self.bytes, at)?;
        let count = number::<u32>(self.bytes, at)? as usize;
        let end = count.checked_mul(size).and_then(|len| len.checked_add(at + 4));
        let end = end.filter(|end| *end <= self.bytes.len());
        Ok(at + 4..end.ok_or_else(|| Error::format(at, format!("{count} elements of {size} bytes")))?)
    }

    pub(super) fn numbers<N: Number>(&self, field: usize) -> Result<Vec<N>> {
        let bytes = self.bytes.get(self.vector(field, size_of::<N>())?).unwrap_or_default();
        Ok(bytes.chunks_exact(size_of::<N>()).filter_map(|bytes| N::at(bytes, 0)).collect())
    }

    /// The tables of a vector of such, in its order.
    pub(super) fn tables(&self, field: usize) -> Result<impl ExactSizeIterator<Item = Result<Self>> + use<'a>> {
        let (bytes, place) = (self.bytes, self.vector(field, 4)?);
        let start = place.start;
        Ok((0..place.len() / 4).map(move |i| Self::new(bytes, target(bytes, start + i * 4)?)))
    }

    /// A text; an empty one where there is none.
    pub(super) fn text(&self, field: usize) -> Result<&'a str> {
        let place = self.vector(field, 1)?;
        let start = place.start;
        let text = std::str::from_utf8(self.bytes.get(place).unwrap_or_default());
        text.map_err(|_| Error::format(start, "a text that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one number and one vector of two bytes.
    fn file() -> Vec<u8> {
        // Root offset; the virtual table at 4: 8 bytes, table of 12, fields at 4 and 8; the table at 12; the vector at 24.
        let mut bytes = vec![12, 0, 0, 0, 8, 0, 12, 0, 4, 0, 8, 0];
        bytes.extend([8, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, b'o', b'k']);
        bytes
    }

    #[test]
    fn fields_are_read_and_missing_ones_are_defaults() {
        let file = file();
        let root = Table::root(&file).unwrap();
        assert_eq!((root.number::<i32>(0).unwrap(), root.text(1).unwrap()), (7, "ok"));
        assert_eq!((root.number::<u64>(2).unwrap(), root.text(2).unwrap()), (0, ""));
        assert_eq!(root.numbers::<u8>(1).unwrap(), b"ok");
        assert!(root.vector(1, 2).is_err() && root.text(0).is_err());
        assert!(root.table(2).unwrap().is_none());
    }

    #[test]
    fn no_prefix_and_no_byte_breaks_it() {
        let file = file();
        let look = |bytes: &[u8]| {
            let root = Table::root(bytes)?;
            root.text(1)?;
            root.number::<u64>(0)?;
            root.table(1)?;
            root.tables(1)?.try_for_each(|table| table.map(|_| ()))
        };
        (0..file.len()).for_each(|len| assert!(look(&file[..len]).is_err()));
        for at in 0..file.len() {
            for value in 0..=255 {
                let mut broken = file.clone();
                broken[at] = value;
                let _ = look(&broken);
            }
        }
    }
}
