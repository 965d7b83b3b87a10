//! The container safetensors: named arrays behind a header of JSON.

use crate::{
    error::{Error, Result},
    tensor::{Mask, SlotValues, Values, view::volume},
};
use half::bf16;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
};

/// Longer headers are not read by others.
const MAX_HEADER: usize = 100_000_000;
/// Bytes of the header's length.
const LENGTH: usize = 8;
const NOTES: &str = "__metadata__";

/// A file's bytes whose header is right: all tensors lie side by side within it.
pub(super) struct Container {
    bytes: Vec<u8>,
    /// Where the first tensor begins.
    start: usize,
    metadata: Metadata,
}

/// A tensor as the file has it: as many bytes as type and shape say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
    /// Where in the file it begins.
    pub(super) offset: usize,
}

impl Container {
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let length = bytes.first_chunk().ok_or_else(|| Error::format(bytes.len(), "more bytes needed"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&length| length <= MAX_HEADER);
        let start = length.ok_or_else(|| Error::format(0, "not a safetensors file: a header too long"))? + LENGTH;
        let header = bytes.get(LENGTH..start);
        let header = header.ok_or_else(|| Error::format(bytes.len(), "ends within its header"))?;
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|error| Error::format(LENGTH, format!("header: {error}")))?;
        match start.checked_add(metadata.data_len()) {
            Some(end) if end == bytes.len() => Ok(Self { bytes, start, metadata }),
            _ => Err(Error::format(bytes.len(), "tensors do not fill the file to its end")),
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Stored<'_>> {
        let TensorInfo { dtype, shape, data_offsets: (start, end) } = self.metadata.info(name)?;
        let bytes = self.data().get(*start..*end)?;
        Some(Stored { dtype: *dtype, shape, bytes, offset: self.start + start })
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// What the header says under a key.
    pub(super) fn note(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// All tensors' bytes.
    pub(super) fn data(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.bytes.len(), self.names())
    }
}

/// Numbers to be written, borrowed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    Bf16(&'a [bf16]),
    U8(&'a [u8]),
    /// As bytes of 0 and 1.
    Mask(&'a Mask),
}

impl<'a> Numbers<'a> {
    /// The arrays that numbers are written as: the ending of each one's name, its shape, itself.
    pub(super) fn of(values: &'a SlotValues, shape: &[usize]) -> Vec<(&'static str, Vec<usize>, Self)> {
        match values {
            SlotValues::Full(Values::F32(values)) => vec![("", shape.into(), Self::F32(values))],
            SlotValues::Full(Values::F64(values)) => vec![("", shape.into(), Self::F64(values))],
            SlotValues::Bf16(values) => vec![("", shape.into(), Self::Bf16(values))],
            SlotValues::Eight(values) => vec![
                (".codes", shape.into(), Self::U8(values.codes())),
                (".exponents", vec![values.exponents().len()], Self::U8(values.exponents())),
            ],
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F64(_) => Dtype::F64,
            Self::Bf16(_) => Dtype::BF16,
            Self::U8(_) | Self::Mask(_) => Dtype::U8,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::F64(values) => 8 * values.len(),
            Self::Bf16(values) => 2 * values.len(),
            Self::U8(values) => values.len(),
            Self::Mask(mask) => mask.len(),
        }
    }

    /// Hands the bytes, a few thousand at a time, to `sink`.
    fn send(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::F32(values) => in_parts(values.iter().map(|x| x.to_le_bytes()), sink),
            Self::F64(values) => in_parts(values.iter().map(|x| x.to_le_bytes()), sink),
            Self::Bf16(values) => in_parts(values.iter().map(|x| x.to_le_bytes()), sink),
            Self::U8(values) => sink(values),
            Self::Mask(mask) => in_parts((0..mask.len()).map(|index| [u8::from(mask.get(index) == Some(true))]), sink),
        }
    }
}

fn in_parts<const N: usize>(
    mut numbers: impl Iterator<Item = [u8; N]>,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut part = Vec::with_capacity(8192);
    loop {
        part.clear();
        numbers.by_ref().take(8192 / N).for_each(|bytes| part.extend(bytes));
        if part.is_empty() {
            return Ok(());
        }
        sink(&part)?;
    }
}

/// Tensors by name, to be written.
pub(super) type Tensors<'a> = BTreeMap<String, (Vec<usize>, Numbers<'a>)>;

/// Adds a tensor.
pub(super) fn add<'a>(tensors: &mut Tensors<'a>, name: String, shape: Vec<usize>, numbers: Numbers<'a>) -> Result<()> {
    if name == NOTES || tensors.contains_key(&name) {
        return Err(Error::argument("tensor name", format!("{name:?}"), "unique"));
    }
    debug_assert_eq!(volume(&shape).map(|n| n * numbers.dtype().bitsize() / 8), Some(numbers.bytes()));
    tensors.insert(name, (shape, numbers));
    Ok(())
}

/// In the order of the file: the widest type first, so that each is aligned, then by name.
fn ordered<'t, 'a>(tensors: &'t Tensors<'a>) -> Vec<(&'t str, &'t [usize], Numbers<'a>)> {
    let mut all: Vec<_> = tensors.iter().map(|(name, (shape, numbers))| (&**name, &**shape, *numbers)).collect();
    all.sort_by_key(|(.., numbers)| std::cmp::Reverse(numbers.dtype()));
    all
}

/// The CRC-32 of all bytes of the tensors as they will be written.
pub(super) fn checksum(tensors: &Tensors<'_>) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    for (.., numbers) in ordered(tensors) {
        // This sink takes everything.
        let _ = numbers.send(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        });
    }
    hasher
}

/// The header of these tensors and notes. The same ones have the same bytes.
pub(super) fn header(tensors: &Tensors<'_>, notes: &BTreeMap<&str, String>) -> Result<Vec<u8>> {
    let mut all = Map::new();
    all.insert(NOTES.into(), json!(notes));
    let mut offset = 0;
    for (name, shape, numbers) in ordered(tensors) {
        let end = offset + numbers.bytes();
        all.insert(name.into(), json!({"dtype": numbers.dtype(), "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut text = Value::Object(all).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(LENGTH), b' ');
    if text.len() > MAX_HEADER {
        return Err(Error::argument("length of the header", text.len(), "at most 100,000,000 bytes"));
    }
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok(header)
}

/// Writes a file, tensor after tensor.
pub(super) fn write(out: &mut impl Write, header: &[u8], tensors: &Tensors<'_>) -> io::Result<()> {
    out.write_all(header)?;
    ordered(tensors).into_iter().try_for_each(|(.., numbers)| numbers.send(&mut |bytes| out.write_all(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let mask = Mask::from_fn(&[3], |i| i == 1).unwrap();
        let mut tensors = Tensors::new();
        add(&mut tensors, "b".into(), vec![2], Numbers::F32(&[1.0, -2.0])).unwrap();
        add(&mut tensors, "a".into(), vec![3], Numbers::Mask(&mask)).unwrap();
        add(&mut tensors, "c".into(), vec![], Numbers::F64(&[f64::INFINITY])).unwrap();
        add(&mut tensors, "".into(), vec![4, 0], Numbers::Bf16(&[])).unwrap();
        assert!(add(&mut tensors, "a".into(), vec![], Numbers::U8(&[1])).is_err());
        assert!(add(&mut tensors, NOTES.into(), vec![], Numbers::U8(&[1])).is_err());
        let mut bytes = Vec::new();
        write(&mut bytes, &header(&tensors, &[("k", "v".into())].into()).unwrap(), &tensors).unwrap();
        let read = Container::parse(bytes).unwrap();
        assert_eq!(read.names(), ["c", "b", "", "a"]);
        assert_eq!((read.note("k"), read.note("l")), (Some("v"), None));
        let a = read.tensor("a").unwrap();
        assert_eq!((a.dtype, a.shape, a.bytes), (Dtype::U8, &[3][..], &[0, 1, 0][..]));
        assert_eq!(read.tensor("c").unwrap().bytes, f64::INFINITY.to_le_bytes());
        assert_eq!(checksum(&tensors).finalize(), crc32fast::hash(read.data()));
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
        for bytes in [
            vec![],
            vec![0; 7],
            u64::MAX.to_le_bytes().to_vec(),
            1_000_000u64.to_le_bytes().to_vec(),
            file("", &[]),
            file("[]", &[]),
            file("{}", &[1]),
            file(&"[".repeat(100_000), &[]),
            file(&huge, &[]),
            file(&format!("{{{}}}", wrap.join(",")), &[]),
            file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}"#, &[]),
            file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, &[0; 4]),
            file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, &[0; 2]),
        ] {
            assert_eq!(Container::parse(bytes).unwrap_err().kind(), ErrorKind::Format);
        }
        assert!(Container::parse(file("{}", &[])).is_ok());
    }
}
