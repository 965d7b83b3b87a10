//! The arrays of an `.npz` file: a zip of `.npy` files.

use super::header::Header;
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
const MAX_RATIO: u64 = 1032;

pub(super) type Zip = ZipArchive<Cursor<Bytes>>;

/// Where an array's file is within the zip, its header included.
#[derive(Debug, Clone)]
pub(super) enum Member {
    /// As it is, with its CRC-32.
    Stored(Range<usize>, u32),
    /// The deflated member at an index, and the length that it makes.
    Deflated(usize, usize),
}

/// A member that is an array.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) header: Header,
    pub(super) member: Member,
}

/// The zip, and its arrays in the order of its directory. Members that are no `.npy` are not among them.
pub(super) fn open(bytes: &Bytes) -> Result<(Zip, Vec<Found>)> {
    let mut zip = ZipArchive::new(Cursor::new(bytes.clone())).map_err(broken)?;
    if zip.has_duplicate_names() || zip.has_overlapping_entries().map_err(broken)? {
        return Err(Error::format(0, "zip: members of one name, or at one place"));
    }
    let mut arrays = Vec::new();
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        if let Some(name) = name.strip_suffix(".npy") {
            let (header, member) = array(index, &mut file, bytes.len()).map_err(|error| error.in_tensor(name))?;
            arrays.push(Found { name: name.into(), header, member });
        }
    }
    Ok((zip, arrays))
}

fn array(index: usize, file: &mut ZipFile<'_, Cursor<Bytes>>, total: usize) -> Result<(Header, Member)> {
    let at = usize::try_from(file.header_start()).unwrap_or(total);
    let start = file.data_start().and_then(|start| usize::try_from(start).ok());
    let (method, len, stored) = (file.compression(), file.size(), file.compressed_size());
    let len = usize::try_from(len).map_err(|_| Error::format(at, "longer than memory"))?;
    let member = match method {
        CompressionMethod::Stored => {
            let place = start.and_then(|start| Some(start..start.checked_add(len)?));
            let place = place.filter(|place| place.end <= total && len as u64 == stored);
            Member::Stored(place.ok_or_else(|| Error::format(at, "ends beyond the file"))?, file.crc32())
        }
        CompressionMethod::Deflated if len as u64 / MAX_RATIO > stored => {
            return Err(Error::format(at, format!("{len} bytes, which {stored} of deflate cannot make")));
        }
        CompressionMethod::Deflated => Member::Deflated(index, len),
        method => return Err(Error::argument("compression", method, "none or deflate")),
    };
    Ok((Header::read(file)?, member))
}

impl Member {
    /// Its bytes in the zip's `bytes`, the header included, held against their CRC-32.
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

    /// The length of the array's file.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stored(place, _) => place.len(),
            Self::Deflated(_, len) => *len,
        }
    }
}

fn broken(error: ZipError) -> Error {
    Error::format(0, format!("zip: {error}"))
}
