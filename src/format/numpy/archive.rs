//! The arrays of an `.npz` file: a zip of `.npy` files.

use super::header::Header;
use crate::{
    error::Result,
    format::{
        file::Bytes,
        zipped::{self, Member, Zip, broken},
    },
};

/// A member that is an array.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) header: Header,
    pub(super) member: Member,
}

/// The zip, and its arrays in the order of its directory. Members that are no `.npy` are not among them.
pub(super) fn open(bytes: &Bytes) -> Result<(Zip, Vec<Found>)> {
    let mut zip = zipped::open(bytes)?;
    let mut arrays = Vec::new();
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        if let Some(name) = name.strip_suffix(".npy") {
            let array = Member::of(index, &file, bytes.len()).and_then(|member| Ok((Header::read(&mut file)?, member)));
            let (header, member) = array.map_err(|error| error.in_tensor(name))?;
            arrays.push(Found { name: name.into(), header, member });
        }
    }
    Ok((zip, arrays))
}
