//! Members of a zip, as they are or inflated.

use crate::{
    error::{Error, Result},
    format::file::Bytes,
};
use std::{
    io::{Cursor, Read},
    ops::Range,
};
use zip::{CompressionMethod, ZipArchive, read::ZipFile, result::ZipError};

/// Deflate makes at most so many bytes of one.
pub(super) const MAX_RATIO: u64 = 1032;
/// How a zip begins, one without members at its end.
pub(super) const ZIP: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

pub(super) type Zip = ZipArchive<Cursor<Bytes>>;

/// Where a member's bytes are within the zip.
#[derive(Debug, Clone)]
pub(super) enum Member {
    /// As they are, with their CRC-32.
    Stored(Range<usize>, u32),
    /// The deflated member at an index, and the length that it makes.
    Deflated(usize, usize),
}

/// The zip of these bytes, whose members have names and places of their own.
pub(super) fn open(bytes: &Bytes) -> Result<Zip> {
    let mut zip = ZipArchive::new(Cursor::new(bytes.clone())).map_err(broken)?;
    if zip.has_duplicate_names() || zip.has_overlapping_entries().map_err(broken)? {
        return Err(Error::format(0, "zip: members of one name, or at one place"));
    }
    Ok(zip)
}

impl Member {
    /// The member at `index` of a zip of `total` bytes, its place and length held against these.
    pub(super) fn of(index: usize, file: &ZipFile<'_, Cursor<Bytes>>, total: usize) -> Result<Self> {
        let at = usize::try_from(file.header_start()).unwrap_or(total);
        let start = file.data_start().and_then(|start| usize::try_from(start).ok());
        let (method, len, stored) = (file.compression(), file.size(), file.compressed_size());
        let len = usize::try_from(len).map_err(|_| Error::format(at, "longer than memory"))?;
        match method {
            CompressionMethod::Stored => {
                let place = start.and_then(|start| Some(start..start.checked_add(len)?));
                let place = place.filter(|place| place.end <= total && len as u64 == stored);
                Ok(Self::Stored(place.ok_or_else(|| Error::format(at, "ends beyond the file"))?, file.crc32()))
            }
            CompressionMethod::Deflated if len as u64 / MAX_RATIO > stored => {
                Err(Error::format(at, format!("{len} bytes, which {stored} of deflate cannot make")))
            }
            CompressionMethod::Deflated => Ok(Self::Deflated(index, len)),
            method => Err(Error::argument("compression", method, "none or deflate")),
        }
    }

    /// Its bytes in the zip's `bytes`, held against their CRC-32.
    pub(super) fn read(&self, zip: &Zip, bytes: &Bytes) -> Result<Bytes> {
        match self {
            Self::Stored(place, crc) => {
                let place = Some(place.clone()).filter(|place| place.end <= bytes.len());
                let place = place.ok_or_else(|| Error::format(bytes.len(), "the file ends"))?;
                let start = place.start;
                let bytes = bytes.slice(place);
                match crc32fast::hash(&bytes) == *crc {
                    true => Ok(bytes),
                    false => Err(Error::format(start, "other bytes than their CRC-32 says")),
                }
            }
            Self::Deflated(index, len) => {
                let mut zip = zip.clone();
                let file = zip.by_index(*index).map_err(broken)?;
                let mut out = Vec::new();
                let reserved = out.try_reserve_exact(len.saturating_add(1));
                reserved.map_err(|_| Error::argument("length", len, "one that memory holds"))?;
                let read = file.take((*len as u64).saturating_add(1)).read_to_end(&mut out);
                read.map_err(|error| Error::format(0, format!("zip: {error}")))?;
                match out.len() == *len {
                    true => Ok(out.into()),
                    false => Err(Error::format(0, format!("{} bytes inflated, {len} announced", out.len()))),
                }
            }
        }
    }

    /// Its length.
    #[cfg(feature = "numpy")]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stored(place, _) => place.len(),
            Self::Deflated(_, len) => *len,
        }
    }
}

pub(super) fn broken(error: ZipError) -> Error {
    Error::format(0, format!("zip: {error}"))
}
