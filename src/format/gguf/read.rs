//! Bytes to what they say. Every count is held against the bytes that are left before memory is asked for it.

use super::{
    ALIGNMENT, DEFAULT_ALIGNMENT, MAGIC, MAX_DEPTH, VERSION, element_of,
    value::{ARRAY, Array, BOOL, STRING, Value, numbers},
};
use crate::{
    error::{Error, Result},
    format::file::TensorInfo,
};
use std::{collections::HashSet, ops::Range};

/// Bytes of the shortest name or text: its length.
const MIN_STRING: usize = 8;
/// Bytes of the shortest array: type and length.
const MIN_ARRAY: usize = 12;
/// Bytes of the shortest entry of the metadata: key, type, a byte.
const MIN_ENTRY: usize = MIN_STRING + 5;
/// Bytes of the shortest tensor: name, rank, type, offset.
const MIN_TENSOR: usize = MIN_STRING + 16;

/// All that a file has before its tensors' elements, and where these are.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) places: Vec<Range<usize>>,
}

/// A tensor as it is announced.
struct Announced {
    info: TensorInfo,
    /// From where elements begin on, and where the file says so.
    offset: u64,
    at: usize,
}

pub(super) fn read(bytes: &[u8]) -> Result<Header> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(MAGIC.len()).ok() != Some(MAGIC) {
        return Err(Error::format(0, "not a GGUF file"));
    }
    let version = reader.u32()?;
    match version {
        2 | VERSION => {}
        _ if version & 0xffff == 0 => return Err(Error::format(MAGIC.len(), "a big-endian file")),
        _ => return Err(Error::format(MAGIC.len(), format!("version {version} instead of 2 or 3"))),
    }
    // Both counts at once: tensors follow the metadata, and need bytes beside it.
    let count = reader.count(MIN_TENSOR)?;
    let entries = reader.count(MIN_ENTRY)?;
    let metadata = reader.metadata(entries)?;
    let alignment = alignment(&metadata)? as usize;
    let announced = reader.tensors(count)?;
    let start = reader.at.checked_next_multiple_of(alignment);
    let place = |Announced { info, offset, at }: &Announced| {
        let wrong = |reason: String| Error::format(*at, reason).in_tensor(&info.name);
        let offset = usize::try_from(*offset).ok().filter(|offset| offset.is_multiple_of(alignment));
        let offset = offset.ok_or_else(|| wrong(format!("begins at no multiple of {alignment}")))?;
        let begin = start.and_then(|start| start.checked_add(offset));
        let len = info.byte_len()?;
        let place = begin.and_then(|begin| Some(begin..begin.checked_add(len)?));
        place.filter(|place| place.end <= bytes.len()).ok_or_else(|| wrong("ends beyond the file".into()))
    };
    let places = announced.iter().map(place).collect::<Result<_>>()?;
    let tensors = announced.into_iter().map(|announced| announced.info).collect();
    Ok(Header { version, metadata, tensors, places })
}

/// What tensors begin at multiples of.
pub(super) fn alignment(metadata: &[(String, Value)]) -> Result<u32> {
    match metadata.iter().find(|(key, _)| key == ALIGNMENT) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some((_, Value::U32(alignment))) if alignment.is_power_of_two() => Ok(*alignment),
        Some((_, value)) => {
            Err(Error::argument(ALIGNMENT, format!("{value:?}"), "a power of two of 32 bits, unsigned"))
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| Error::format(self.bytes.len(), "ends within its header"))?;
        self.at += len;
        Ok(taken)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?.first_chunk();
        taken.copied().ok_or_else(|| Error::format(self.at, "ends within its header"))
    }

    fn u32(&mut self) -> Result<u32> {
        self.array_of().map(u32::from_le_bytes)
    }

    /// A count of things of at least `min` bytes each.
    fn count(&mut self, min: usize) -> Result<usize> {
        let (at, count) = (self.at, u64::from_le_bytes(self.array_of()?));
        let fits = usize::try_from(count).ok().filter(|count| *count <= self.remaining() / min);
        fits.ok_or_else(|| Error::format(at, format!("a count of {count} where {} bytes are left", self.remaining())))
    }

    fn string(&mut self) -> Result<&'a str> {
        let len = self.count(1)?;
        let at = self.at;
        std::str::from_utf8(self.take(len)?).map_err(|_| Error::format(at, "a text that is not UTF-8"))
    }

    fn bools(&mut self, count: usize) -> Result<Vec<bool>> {
        let at = self.at;
        let of = |(i, byte): (usize, &u8)| match byte {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(Error::format(at + i, format!("a truth value of {byte}"))),
        };
        self.take(count)?.iter().enumerate().map(of).collect()
    }

    fn metadata(&mut self, entries: usize) -> Result<Vec<(String, Value)>> {
        let mut metadata = Vec::new();
        let mut keys = HashSet::new();
        for _ in 0..entries {
            let at = self.at;
            let key = self.string()?;
            if !keys.insert(key) {
                return Err(Error::format(at, format!("{key:?} twice")));
            }
            let kind = self.u32()?;
            metadata.push((key.into(), self.value(kind)?));
        }
        Ok(metadata)
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        macro_rules! read {
            ($($id:literal $variant:ident $number:ident),*) => {
                match kind {
                    $($id => Value::$variant($number::from_le_bytes(self.array_of()?)),)*
                    BOOL => Value::Bool(self.bools(1)? == [true]),
                    STRING => Value::String(self.string()?.into()),
                    ARRAY => Value::Array(self.array(1)?),
                    _ => return Err(Error::format(self.at, format!("metadata of type {kind}"))),
                }
            };
        }
        Ok(numbers!(read!()))
    }

    fn array(&mut self, depth: usize) -> Result<Array> {
        if depth > MAX_DEPTH {
            return Err(Error::format(self.at, format!("arrays in arrays, {depth} deep")));
        }
        let (at, kind) = (self.at, self.u32()?);
        macro_rules! read {
            ($($id:literal $variant:ident $number:ident),*) => {
                match kind {
                    $($id => {
                        let len = self.count(size_of::<$number>())? * size_of::<$number>();
                        let chunks = self.take(len)?.as_chunks().0;
                        Array::$variant(chunks.iter().map(|&bytes| $number::from_le_bytes(bytes)).collect())
                    })*
                    BOOL => {
                        let count = self.count(1)?;
                        Array::Bool(self.bools(count)?)
                    }
                    STRING => {
                        let count = self.count(MIN_STRING)?;
                        Array::String((0..count).map(|_| Ok(self.string()?.into())).collect::<Result<_>>()?)
                    }
                    ARRAY => {
                        let count = self.count(MIN_ARRAY)?;
                        Array::Array((0..count).map(|_| self.array(depth + 1)).collect::<Result<_>>()?)
                    }
                    _ => return Err(Error::format(at, format!("an array of type {kind}"))),
                }
            };
        }
        Ok(numbers!(read!()))
    }

    fn tensors(&mut self, count: usize) -> Result<Vec<Announced>> {
        let (mut tensors, mut names) = (Vec::new(), HashSet::new());
        for _ in 0..count {
            let at = self.at;
            let name = self.string()?;
            if !names.insert(name) {
                return Err(Error::format(at, "a second tensor of this name").in_tensor(name));
            }
            let (at, rank) = (self.at, self.u32()? as usize);
            if rank > self.remaining() / 8 {
                return Err(Error::format(at, format!("{rank} axes")).in_tensor(name));
            }
            let sizes = self.take(rank * 8)?.as_chunks().0;
            let size = |&bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(bytes)).ok();
            // In the file, the innermost axis is the first.
            let shape = sizes.iter().rev().map(size).collect::<Option<Vec<_>>>();
            let shape = shape.ok_or_else(|| Error::format(at, "an axis beyond memory").in_tensor(name))?;
            let (at, kind) = (self.at, self.u32()?);
            let element = element_of(kind);
            let element = element.ok_or_else(|| Error::format(at, format!("type {kind}")).in_tensor(name))?;
            let (at, offset) = (self.at, u64::from_le_bytes(self.array_of()?));
            tensors.push(Announced { info: TensorInfo { name: name.into(), element, shape }, offset, at });
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tensors: u64, entries: u64, rest: &[u8]) -> Vec<u8> {
        [MAGIC, &3u32.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes(), rest].concat()
    }

    fn reason(bytes: &[u8]) -> String {
        read(bytes).err().unwrap().to_string()
    }

    #[test]
    fn claims_are_held_against_the_bytes_that_are_left() {
        assert!(reason(b"").contains("not a GGUF file"));
        assert!(reason(b"GGUF\0\0\0\x03").contains("big-endian"));
        assert!(reason(b"GGUF\x01\0\0\0").contains("version 1"));
        assert!(reason(&file(u64::MAX, 0, &[])).contains("a count of 18446744073709551615"));
        assert!(reason(&file(0, 1 << 60, &[0; 100])).contains("a count"));
        // Arrays of 2^61 numbers, texts and arrays, the text of a key.
        for kind in [4u32, 7, 8, 9, 12] {
            let array = [&1u64.to_le_bytes()[..], b"k", &9u32.to_le_bytes(), &kind.to_le_bytes(), &[0xff; 8]].concat();
            assert!(reason(&file(0, 1, &array)).contains("a count"), "{kind}");
        }
        let key = [&u64::MAX.to_le_bytes()[..], &[0; 20]].concat();
        assert!(reason(&file(0, 1, &key)).contains("a count"));
        // A tensor of 2^31 axes, one of 2^64 elements.
        let name = [&1u64.to_le_bytes()[..], b"t"].concat();
        let axes = [&name[..], &(1u32 << 31).to_le_bytes(), &[0; 30]].concat();
        assert!(reason(&file(1, 0, &axes)).contains("2147483648 axes"));
        let big = [(1u64 << 40).to_le_bytes(), (1u64 << 40).to_le_bytes()].concat();
        let big = [&name[..], &2u32.to_le_bytes(), &big, &[0; 12]].concat();
        assert!(reason(&file(1, 0, &big)).contains("fewer than 2^64"));
        let kind = [&name[..], &0u32.to_le_bytes(), &99u32.to_le_bytes(), &[0; 8]].concat();
        assert!(reason(&file(1, 0, &kind)).contains("type 99"));
        let beyond = [&name[..], &0u32.to_le_bytes(), &0u32.to_le_bytes(), &[0; 8]].concat();
        assert!(reason(&file(1, 0, &beyond)).contains("beyond the file"));
    }

    #[test]
    fn arrays_in_arrays_end() {
        let nested = |depth: usize| {
            let mut bytes = [&1u64.to_le_bytes()[..], b"k", &9u32.to_le_bytes()].concat();
            for _ in 1..depth {
                bytes.extend([&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat());
            }
            bytes.extend([&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
            file(0, 1, &bytes)
        };
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        assert!(reason(&nested(MAX_DEPTH + 1)).contains("arrays in arrays"));
        assert!(reason(&nested(100_000)).contains("arrays in arrays"));
    }
}
