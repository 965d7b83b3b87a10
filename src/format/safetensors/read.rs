//! One file, read.

use super::{LENGTH, MAX_HEADER, NOTES, element::element, twice, whole_bytes};
use crate::{
    error::{Error, Result},
    format::file::{Bytes, TensorFile, TensorInfo, at},
    map,
};
use safetensors::tensor::TensorInfo as Entry;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

/// A safetensors file whose header is right: its tensors lie side by side, without holes, to its end.
///
/// [`data`](TensorFile::data) are views of the mapped file. Several files that are one model are [`Sharded`](super::Sharded).
#[derive(Clone)]
pub struct SafeTensors {
    bytes: Bytes,
    /// Where the first tensor begins.
    start: usize,
    tensors: Vec<TensorInfo>,
    /// Where in the file each is.
    places: Vec<Range<usize>>,
    /// The indices of the tensors, by their names.
    by_name: Vec<usize>,
    metadata: BTreeMap<String, String>,
}

/// A tensor as the file has it: as many bytes as type and shape say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) info: &'a TensorInfo,
    pub(crate) bytes: &'a [u8],
    /// Where in the file it begins.
    pub(crate) offset: usize,
}

impl SafeTensors {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read, and as [`decode`](Self::decode).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::decode(map::map(path.as_ref())?)
    }

    /// A file from its bytes.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) for a header of more than 100 MB or that is no JSON of the format's form, two tensors of one
    /// name, tensors that overlap or leave holes, whose bytes are not those of type and shape, or that do not end where the file does.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        let length = bytes.first_chunk().ok_or_else(|| Error::format(bytes.len(), "more bytes needed"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&length| length <= MAX_HEADER);
        let length = length.ok_or_else(|| Error::format(0, "not a safetensors file: a header of more than 100 MB"))?;
        let start = LENGTH + length;
        let header = bytes.get(LENGTH..start);
        let header = header.ok_or_else(|| Error::format(bytes.len(), "ends within its header"))?;
        let Header { metadata, mut tensors } =
            serde_json::from_slice(header).map_err(|error| Error::format(LENGTH, format!("header: {error}")))?;
        tensors.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut file = Self { bytes, start, tensors: vec![], places: vec![], by_name: vec![], metadata };
        for (name, entry) in tensors {
            file.push(name, entry)?;
        }
        let end = file.end();
        if end != file.bytes.len() {
            let reason = format!("the tensors end at byte {end}, the file at {}", file.bytes.len());
            return Err(Error::format(end.min(file.bytes.len()), reason));
        }
        let name = |&index: &usize| file.tensors.get(index).map_or("", |tensor| &tensor.name);
        let mut by_name: Vec<_> = (0..file.tensors.len()).collect();
        by_name.sort_by(|a, b| name(a).cmp(name(b)));
        if let Some(name) = twice(&by_name.iter().map(name).collect::<Vec<_>>()) {
            return Err(Error::format(LENGTH, "header: two tensors of this name").in_tensor(name));
        }
        file.by_name = by_name;
        Ok(file)
    }

    /// Adds the tensor that follows the last.
    fn push(&mut self, name: String, entry: Entry) -> Result<()> {
        let wrong = |reason: String| Error::format(LENGTH, format!("header: {reason}")).in_tensor(&name);
        let (from, to) = entry.data_offsets;
        let end = self.end();
        let place = self.start.checked_add(from).zip(self.start.checked_add(to)).filter(|(from, to)| from <= to);
        let place = place.ok_or_else(|| wrong(format!("ends at byte {to} and begins at {from}")))?;
        if place.0 != end {
            let how = if place.0 < end { "overlaps what is before it" } else { "leaves a hole before it" };
            return Err(wrong(format!("begins at byte {from}, and {how}, to byte {}", end - self.start)));
        }
        let element = element(entry.dtype).ok_or_else(|| wrong(format!("unknown type {}", entry.dtype)))?;
        let tensor = TensorInfo { name: name.clone(), element, shape: entry.shape };
        if whole_bytes(&tensor) != Some(to - from) {
            return Err(wrong(format!("{} bytes of {element} in {:?}", to - from, tensor.shape)));
        }
        self.tensors.push(tensor);
        self.places.push(place.0..place.1);
        Ok(())
    }

    /// Where the last tensor ends.
    fn end(&self) -> usize {
        self.places.last().map_or(self.start, |place| place.end)
    }

    /// The tensor of this name, found by halving.
    pub(crate) fn tensor(&self, name: &str) -> Option<Stored<'_>> {
        let index = self.index(name)?;
        let (info, place) = self.tensors.get(index).zip(self.places.get(index))?;
        Some(Stored { info, bytes: self.bytes.get(place.clone())?, offset: place.start })
    }

    pub(super) fn index(&self, name: &str) -> Option<usize> {
        let order = |&index: &usize| self.tensors.get(index).map(|tensor| &*tensor.name).cmp(&Some(name));
        self.by_name.binary_search_by(order).ok().and_then(|at| self.by_name.get(at)).copied()
    }

    /// What the header says under a key.
    pub(crate) fn note(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub(super) fn notes(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors' bytes.
    pub(crate) fn all_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl TensorFile for SafeTensors {
    fn format(&self) -> &'static str {
        "safetensors"
    }

    fn byte_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn data(&self, index: usize) -> Result<Bytes> {
        Ok(self.bytes.slice(at(&self.places, index)?.clone()))
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.metadata.clone()
    }
}

impl fmt::Debug for SafeTensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tensors.iter().map(|tensor| &tensor.name).collect::<Vec<_>>();
        write!(f, "{} bytes of {names:?}", self.bytes.len())
    }
}

/// A header in the order it was written in, names as often as they are there.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut metadata, mut tensors) = (None, Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name != NOTES {
                        let entry = map.next_value().map_err(|error| A::Error::custom(format!("{name:?}: {error}")))?;
                        tensors.push((name, entry));
                    } else if metadata.replace(map.next_value::<Option<_>>()?.unwrap_or_default()).is_some() {
                        return Err(A::Error::custom(format!("{NOTES} twice")));
                    }
                }
                Ok(Header { metadata: metadata.unwrap_or_default(), tensors })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn absurd_headers_are_refused() {
        let huge = format!(r#"{{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, usize::MAX / 8);
        // Their lengths add up to 2^64, which is 0 more than there is.
        let part = usize::MAX / 8;
        let wrap: Vec<_> = (0..8)
            .map(|i| {
                format!(r#""{i}":{{"dtype":"U8","shape":[{part}],"data_offsets":[{},{}]}}"#, i * part, (i + 1) * part)
            })
            .collect();
        let wrap = format!("{{{}}}", wrap.join(","));
        let deep = "[".repeat(100_000);
        for (bytes, reason) in [
            (vec![], "more bytes"),
            (vec![0; 7], "more bytes"),
            (u64::MAX.to_le_bytes().to_vec(), "100 MB"),
            (100_000_001u64.to_le_bytes().to_vec(), "100 MB"),
            (1_000_000u64.to_le_bytes().to_vec(), "within its header"),
            (file("", &[]), "header"),
            (file("[]", &[]), "a map of tensors"),
            (file("{}", &[1]), "the file at 11"),
            (file(&deep, &[]), "header"),
            (file(&huge, &[]), "the file at"),
            (file(&wrap, &[]), "begins at"),
            (
                file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, &[]),
                "0 bytes of f32",
            ),
            (file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, &[0; 4]), "ends at byte 0"),
            (file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, &[0; 2]), "a hole"),
            (
                file(
                    r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                        "b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                    &[0; 3],
                ),
                "overlaps",
            ),
            (file(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, &[0; 2]), "2 bytes of f4e2m1"),
            (file(r#"{"a":{"dtype":"I4","shape":[2],"data_offsets":[0,1]}}"#, &[0]), "\"a\": unknown variant `I4`"),
            (file(r#"{"__metadata__":{"a":1}}"#, &[]), "header"),
            (file(r#"{"__metadata__":{},"__metadata__":{}}"#, &[]), "twice"),
            (
                file(
                    r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                        "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                    &[0; 2],
                ),
                "two tensors of this name",
            ),
        ] {
            let error = SafeTensors::decode(bytes).unwrap_err();
            assert!(error.to_string().contains(reason), "{reason}: {error}");
            assert_eq!(error.kind(), ErrorKind::Format, "{error}");
        }
        assert!(SafeTensors::decode(file("{}", &[])).is_ok());
        assert!(SafeTensors::decode(file(r#"{"__metadata__":null}  "#, &[])).is_ok());
    }

    #[test]
    fn tensors_are_views_in_the_order_of_the_file() {
        let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F6_E2M3","shape":[2,2],"data_offsets":[4,7]},
            "c":{"dtype":"I16","shape":[],"data_offsets":[7,9]},"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}"#;
        let bytes = Bytes::from(file(header, &[0, 1, 2, 3, 4, 5, 6, 7, 8]));
        let read = SafeTensors::decode(bytes.clone()).unwrap();
        let names: Vec<_> = read.tensors().iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(read.metadata(), BTreeMap::from([("format".into(), "pt".into())]));
        let data = read.data(1).unwrap();
        assert_eq!(&data[..], [4, 5, 6]);
        assert_eq!(data.as_ptr(), bytes[bytes.len() - 5..].as_ptr());
        assert_eq!(read.data(3).unwrap_err().kind(), ErrorKind::Argument);
        let c = read.tensor("c").unwrap();
        assert_eq!((&c.info.shape[..], c.bytes, c.offset), (&[][..], &[7, 8][..], bytes.len() - 2));
        assert!(read.tensor("d").is_none());
    }
}
