//! The packed model file: pruned and quantized tensors, positions and all, in as few bytes as they need.
//!
//! ```text
//! "LPDY" version=1
//! count of tensors
//! each: name, rank, sizes,
//!       density    0: every element is stored; 1: only those kept, in order
//!                  1 is followed by: count kept, Rice parameter, count of bytes, bytes of gaps
//!       encoding   0 f32, 1 f64, 2 f16, 3 bf16: little-endian numbers
//!                  4: quantized, followed by bits, granularity (0 | 1, axis | 2, group size),
//!                     grid (0 min-max: minima, then maxima | 1 codebook: levels | 2 symmetric: scales |
//!                     3 affine: scales, then a byte a zero point), packed codes;
//!                     each list of a grid: type (0 f32, 1 f64), numbers
//! last      CRC-32 of all before it, 4 bytes, little-endian
//! ```
//!
//! Counts and sizes are LEB128; names are UTF-8 behind their length. Kept elements are stored as a tensor of one axis.

use super::gaps;
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{
        Granularity, Grid, Mask, QTensor, Values,
        view::{checked_volume, volume},
    },
};
use half::{bf16, f16};
use std::{io::Write, path::Path};

const MAGIC: &[u8] = b"LPDY\x01";

/// Numbers as they are stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Stored {
    /// As 32-bit numbers.
    F32(Vec<f32>),
    /// As 64-bit numbers.
    F64(Vec<f64>),
    /// As 16-bit numbers.
    F16(Vec<f16>),
    /// As the upper halves of 32-bit numbers.
    Bf16(Vec<bf16>),
    /// As codes.
    Quantized(QTensor),
}

impl Stored {
    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Quantized(q) => q.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers as `T`, rounded once where it is narrower; beyond its range they become infinite.
    #[must_use]
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        fn convert<S: Element, T: Element>(values: &[S]) -> Vec<T> {
            values.iter().map(|x| T::from_f64(x.to_f64())).collect()
        }
        match self {
            Self::F32(values) => convert(values),
            Self::F64(values) => convert(values),
            Self::F16(values) => convert(values),
            Self::Bf16(values) => convert(values),
            Self::Quantized(q) => q.dequantize(),
        }
    }
}

/// A named tensor of a packed file.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    name: String,
    shape: Vec<usize>,
    mask: Option<Mask>,
    stored: Stored,
}

impl Packed {
    /// A tensor of which every element is stored.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many numbers as the shape says, or the quantized
    /// tensor has another shape.
    pub fn dense(name: impl Into<String>, shape: &[usize], stored: Stored) -> Result<Self> {
        let packed = Self { name: name.into(), shape: shape.into(), mask: None, stored };
        packed.check()?;
        Ok(packed)
    }

    /// A tensor of which only the elements that a mask keeps are stored, in logical order
    /// ([`Mask::gather`]); quantized ones have one axis. The rest is 0.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many numbers as the mask keeps.
    pub fn sparse(name: impl Into<String>, mask: Mask, kept: Stored) -> Result<Self> {
        let packed = Self { name: name.into(), shape: mask.shape().into(), mask: Some(mask), stored: kept };
        packed.check()?;
        Ok(packed)
    }

    fn check(&self) -> Result<()> {
        let flat = self.mask.as_ref().map(|mask| [mask.kept()]);
        let expected = flat.as_ref().map_or(&self.shape[..], |flat| flat);
        let fits = match &self.stored {
            Stored::Quantized(q) => q.shape() == expected,
            numbers => checked_volume(expected)? == numbers.len(),
        };
        let found = match &self.stored {
            Stored::Quantized(q) => q.shape().to_vec(),
            numbers => vec![numbers.len()],
        };
        if fits { Ok(()) } else { Err(Error::shape("stored tensor", expected, &found).in_tensor(&self.name)) }
    }

    /// The tensor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Which elements are stored, if not all.
    #[must_use]
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// The numbers stored.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// All elements in logical order, pruned ones 0.
    ///
    /// # Errors
    /// None in a tensor that [`dense`](Packed::dense), [`sparse`](Packed::sparse) or [`decode`] made.
    pub fn to_dense<T: Element>(&self) -> Result<Vec<T>> {
        let kept = self.stored.to_vec();
        let Some(mask) = &self.mask else { return Ok(kept) };
        let mut values = vec![T::default(); mask.len()];
        mask.scatter(&kept, crate::TensorMut::new(&mut values, &self.shape)?)?;
        Ok(values)
    }
}

/// The file of these tensors, as bytes.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) when two tensors have one name, or sparse ones more elements than [`decode`]
/// accepts.
///
/// ```
/// use lapidary::{PrunerExt, QuantizerExt, format::packed::{self, Packed, Stored}, prune::Threshold, quant::MinMax};
/// let weights: Vec<f32> = (0..1000).map(|i| if i % 20 == 0 { i as f32 } else { 0.0 }).collect();
/// let mask = Threshold::new(0.0)?.mask(&weights)?;
/// let kept = MinMax::new(4)?.quantize(&mask.gather(&weights)?)?;
/// let bytes = packed::encode(&[Packed::sparse("fc1.weight", mask, Stored::Quantized(kept))?])?;
/// assert!(bytes.len() < 110); // 4,000 as f32
/// assert_eq!(packed::decode(&bytes)?[0].to_dense::<f32>()?[980], 980.0);
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn encode(tensors: &[Packed]) -> Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    put_count(&mut out, tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        if tensors[..i].iter().any(|other| other.name == tensor.name) {
            return Err(Error::argument("name", format!("{:?} twice", tensor.name), "unique"));
        }
        put_bytes(&mut out, tensor.name.as_bytes());
        put_count(&mut out, tensor.shape.len());
        tensor.shape.iter().for_each(|&n| put_count(&mut out, n));
        match &tensor.mask {
            None => out.push(0),
            Some(mask) => {
                out.push(1);
                put_count(&mut out, mask.kept());
                let (rice, bytes) = gaps::encode(mask);
                out.push(rice as u8);
                put_bytes(&mut out, &bytes);
            }
        }
        put_stored(&mut out, &tensor.stored);
    }
    let sparse: usize = tensors.iter().filter_map(|tensor| tensor.mask.as_ref()).map(Mask::len).sum();
    if sparse > max_sparse(out.len()) {
        let found = format!("{sparse} in {} bytes", out.len());
        return Err(Error::argument("number of elements of sparse tensors", found, "one that a reader accepts"));
    }
    let sum = crc32fast::hash(&out);
    out.extend(sum.to_le_bytes());
    Ok(out)
}

fn put_stored(out: &mut Vec<u8>, stored: &Stored) {
    match stored {
        Stored::F32(values) => put_numbers(out, 0, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::F64(values) => put_numbers(out, 1, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::F16(values) => put_numbers(out, 2, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::Bf16(values) => put_numbers(out, 3, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::Quantized(q) => {
            out.extend([4, q.bits()]);
            match q.granularity() {
                Granularity::Tensor => out.push(0),
                Granularity::Channel { axis } => {
                    out.push(1);
                    put_count(out, axis);
                }
                Granularity::Group { size } => {
                    out.push(2);
                    put_count(out, size);
                }
            }
            match q.grid() {
                Grid::MinMax { min, max } => {
                    out.push(0);
                    put_values(out, min);
                    put_values(out, max);
                }
                Grid::Codebook { levels } => {
                    out.push(1);
                    put_values(out, levels);
                }
                Grid::Affine { scale, zero_point: None } => {
                    out.push(2);
                    put_values(out, scale);
                }
                Grid::Affine { scale, zero_point: Some(zeros) } => {
                    out.push(3);
                    put_values(out, scale);
                    out.extend_from_slice(zeros);
                }
            }
            out.extend_from_slice(q.packed());
        }
    }
}

fn put_numbers(out: &mut Vec<u8>, tag: u8, bytes: impl Iterator<Item = u8>) {
    out.push(tag);
    out.extend(bytes);
}

fn put_values(out: &mut Vec<u8>, values: &Values) {
    match values {
        Values::F32(values) => put_numbers(out, 0, values.iter().flat_map(|x| x.to_le_bytes())),
        Values::F64(values) => put_numbers(out, 1, values.iter().flat_map(|x| x.to_le_bytes())),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_count(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Elements that sparse tensors may have together in a file of so many bytes: a few bytes can claim a tensor of any size
/// whose elements are all pruned, and memory must not follow them.
fn max_sparse(bytes: usize) -> usize {
    bytes.saturating_mul(256).max(1 << 28)
}

/// The tensors of a packed file.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) with the offset for bytes that are not such a file, were damaged (their CRC-32 is
/// another), end early, go on after the last tensor, have quantized tensors whose parts do not fit, or claim sparse tensors
/// of more elements than 2²⁸ and than 256 a byte of the file.
pub fn decode(bytes: &[u8]) -> Result<Vec<Packed>> {
    if !bytes.starts_with(MAGIC) {
        return Err(Error::format(0, "not a packed model of version 1"));
    }
    let (bytes, sum) = bytes
        .split_last_chunk()
        .filter(|(bytes, _)| bytes.len() >= MAGIC.len())
        .ok_or_else(|| Error::format(bytes.len(), "more bytes needed"))?;
    if crc32fast::hash(bytes) != u32::from_le_bytes(*sum) {
        return Err(Error::format(bytes.len(), "damaged: the checksum is another"));
    }
    parse(bytes)
}

/// The tensors of a file whose magic and checksum are right.
fn parse(bytes: &[u8]) -> Result<Vec<Packed>> {
    let mut reader = Reader { bytes, at: MAGIC.len(), sparse: 0 };
    let count = reader.count()?;
    let mut tensors = Vec::new();
    for _ in 0..count {
        let name = reader.name()?;
        tensors.push(reader.tensor(&name).map_err(|error| error.in_tensor(&name))?);
    }
    if reader.at != bytes.len() {
        return Err(Error::format(reader.at, "bytes after the last tensor"));
    }
    Ok(tensors)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Elements of the sparse tensors so far.
    sparse: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, reason: impl Into<String>) -> Error {
        Error::format(self.at, reason)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.error(format!("{n} more bytes needed")))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn count(&mut self) -> Result<usize> {
        let mut n = 0usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            let part = usize::from(byte & 0x7f);
            if part != 0 && part.leading_zeros() < shift {
                break;
            }
            n |= part << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(self.error("a count of more than 64 bits"))
    }

    fn name(&mut self) -> Result<String> {
        let len = self.count()?;
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.error("a name that is not UTF-8"))
    }

    fn tensor(&mut self, name: &str) -> Result<Packed> {
        let rank = self.count()?;
        // Each size takes a byte at least.
        if rank > self.bytes.len() - self.at {
            return Err(self.error("more sizes than bytes"));
        }
        let shape = (0..rank).map(|_| self.count()).collect::<Result<Vec<_>>>()?;
        let volume = volume(&shape).ok_or_else(|| self.error("a shape of 2^64 elements or more"))?;
        match self.byte()? {
            0 => {
                let stored = self.stored(&shape)?;
                Packed::dense(name, &shape, stored)
            }
            1 => {
                self.sparse = self.sparse.saturating_add(volume);
                if self.sparse > max_sparse(self.bytes.len()) {
                    return Err(self.error("too many elements for a file of this size"));
                }
                let kept = self.count()?;
                if kept > volume {
                    return Err(self.error("more elements kept than there are"));
                }
                let rice = self.byte()?.into();
                let len = self.count()?;
                let start = self.at;
                let gaps = self.take(len)?;
                let mask = gaps::decode(&shape, kept, rice, gaps).map_err(|error| match error.index() {
                    Some(offset) => Error::format(start + offset, "positions that do not fit the tensor"),
                    None => error,
                })?;
                let stored = self.stored(&[kept])?;
                Packed::sparse(name, mask, stored)
            }
            other => Err(self.error(format!("unknown density {other}"))),
        }
    }

    fn stored(&mut self, shape: &[usize]) -> Result<Stored> {
        let len = checked_volume(shape)?;
        Ok(match self.byte()? {
            0 => Stored::F32(self.numbers(len, f32::from_le_bytes)?),
            1 => Stored::F64(self.numbers(len, f64::from_le_bytes)?),
            2 => Stored::F16(self.numbers(len, f16::from_le_bytes)?),
            3 => Stored::Bf16(self.numbers(len, bf16::from_le_bytes)?),
            4 => Stored::Quantized(self.quantized(shape)?),
            other => return Err(self.error(format!("unknown encoding {other}"))),
        })
    }

    fn quantized(&mut self, shape: &[usize]) -> Result<QTensor> {
        let bits = self.byte()?;
        let granularity = match self.byte()? {
            0 => Granularity::Tensor,
            1 => Granularity::Channel { axis: self.count()? },
            2 => Granularity::Group { size: self.count()? },
            other => return Err(self.error(format!("unknown granularity {other}"))),
        };
        let sizes = QTensor::sizes(shape, bits, granularity).map_err(|error| self.error(error.to_string()))?;
        let grid = match self.byte()? {
            0 => Grid::MinMax { min: self.values(sizes.groups)?, max: self.values(sizes.groups)? },
            1 => {
                let levels = sizes.groups.checked_mul(1 << bits).ok_or_else(|| self.error("a codebook too large"))?;
                Grid::Codebook { levels: self.values(levels)? }
            }
            2 => Grid::Affine { scale: self.values(sizes.groups)?, zero_point: None },
            3 => {
                let scale = self.values(sizes.groups)?;
                Grid::Affine { scale, zero_point: Some(self.take(sizes.groups)?.to_vec()) }
            }
            other => return Err(self.error(format!("unknown grid {other}"))),
        };
        let packed = self.take(sizes.bytes)?;
        QTensor::new(shape, bits, granularity, grid, packed.to_vec()).map_err(|error| self.error(error.to_string()))
    }

    fn values(&mut self, len: usize) -> Result<Values> {
        Ok(match self.byte()? {
            0 => Values::F32(self.numbers(len, f32::from_le_bytes)?),
            1 => Values::F64(self.numbers(len, f64::from_le_bytes)?),
            other => return Err(self.error(format!("unknown type of numbers {other}"))),
        })
    }

    fn numbers<T, const N: usize>(&mut self, len: usize, from: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let size = len.checked_mul(N).ok_or_else(|| self.error("too many numbers"))?;
        Ok(self.take(size)?.as_chunks::<N>().0.iter().map(|bytes| from(*bytes)).collect())
    }
}

/// Writes a packed file: first beside it, synced, then renamed, so that there is never half a file.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when that fails, and as [`encode`]; the file is then as it was.
pub fn save(path: impl AsRef<Path>, tensors: &[Packed]) -> Result<()> {
    let bytes = encode(tensors)?;
    super::write_atomically(path.as_ref(), |file| file.write_all(&bytes))
}

/// Reads a packed file.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when it cannot be read, and as [`decode`].
pub fn load(path: impl AsRef<Path>) -> Result<Vec<Packed>> {
    let path = path.as_ref();
    decode(&std::fs::read(path).map_err(|error| Error::io(path, error))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind, QuantizerExt, TensorRef,
        quant::{Affine, MinMax, Symmetric},
    };
    use proptest::prelude::*;

    fn sample() -> Vec<Packed> {
        let x: Vec<f32> = (0..60).map(|i| (i as f32).sin()).collect();
        let tensor = TensorRef::new(&x, &[5, 12]).unwrap();
        let mask = Mask::from_fn(&[5, 12], |i| i % 7 == 3).unwrap();
        let kept = mask.gather(&tensor).unwrap();
        let codebook = Grid::Codebook { levels: Values::F64(vec![-1.0, 0.0, 1.0, 2.0]) };
        vec![
            Packed::dense("a", &[5, 12], Stored::F32(x.clone())).unwrap(),
            Packed::dense("é", &[2], Stored::F16(vec![f16::ONE, f16::MIN])).unwrap(),
            Packed::dense("", &[], Stored::Bf16(vec![bf16::PI])).unwrap(),
            Packed::dense("none", &[3, 0], Stored::F64(vec![])).unwrap(),
            Packed::dense(
                "affine",
                &[5, 12],
                Stored::Quantized(Affine::new(4).unwrap().per_channel(1).quantize(&tensor).unwrap()),
            )
            .unwrap(),
            Packed::dense(
                "symmetric",
                &[5, 12],
                Stored::Quantized(Symmetric::new(8).unwrap().quantize(&tensor).unwrap()),
            )
            .unwrap(),
            Packed::dense(
                "q",
                &[5, 12],
                Stored::Quantized(MinMax::new(3).unwrap().per_group(5).unwrap().quantize(&tensor).unwrap()),
            )
            .unwrap(),
            Packed::dense(
                "c",
                &[5, 12],
                Stored::Quantized(MinMax::new(8).unwrap().per_channel(1).quantize(&tensor).unwrap()),
            )
            .unwrap(),
            Packed::dense(
                "b",
                &[3],
                Stored::Quantized(QTensor::new(&[3], 2, Granularity::Tensor, codebook, vec![0b10_01_11]).unwrap()),
            )
            .unwrap(),
            Packed::sparse("s", mask.clone(), Stored::Quantized(MinMax::new(4).unwrap().quantize(&kept).unwrap()))
                .unwrap(),
            Packed::sparse("f", mask, Stored::F32(kept)).unwrap(),
            Packed::sparse("0", Mask::from_fn(&[9], |_| false).unwrap(), Stored::F32(vec![])).unwrap(),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let tensors = sample();
        assert_eq!(decode(&encode(&tensors).unwrap()).unwrap(), tensors);
        assert_eq!(decode(&encode(&[]).unwrap()).unwrap(), []);
        let dense = tensors[8].to_dense::<f32>().unwrap();
        assert!(dense.iter().enumerate().all(|(i, &x)| x == if i % 7 == 3 { (i as f32).sin() } else { 0.0 }));
    }

    #[test]
    fn a_file_cut_short_or_longer_is_refused() {
        let bytes = encode(&sample()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
        let error = decode(&[&bytes[..], &[0]].concat()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format);
        let error = parse(&[&bytes[..bytes.len() - 4], &[0]].concat()).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::Format, Some(bytes.len() - 4)));
    }

    #[test]
    fn any_damaged_byte_is_noticed() {
        let bytes = encode(&sample()).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged).unwrap_err().kind(), ErrorKind::Format, "{at}");
        }
        let twice = || Packed::dense("a", &[1], Stored::F32(vec![1.0])).unwrap();
        assert_eq!(encode(&[twice(), twice()]).unwrap_err().kind(), ErrorKind::Argument);
    }

    #[test]
    fn absurd_sizes_are_refused_before_anything_is_allocated() {
        let header = |shape: &[usize]| {
            let mut out = MAGIC.to_vec();
            put_count(&mut out, 1);
            put_bytes(&mut out, b"w");
            put_count(&mut out, shape.len());
            shape.iter().for_each(|&n| put_count(&mut out, n));
            out
        };
        for shape in [&[usize::MAX, usize::MAX][..], &[1 << 40], &[1 << 28, 2]] {
            assert!(parse(&[header(shape), vec![1, 0, 0, 0, 0]].concat()).is_err());
        }
        let bit = Mask::from_fn(&[1 << 28], |i| i == 7).unwrap();
        let tensor = |name| Packed::sparse(name, bit.clone(), Stored::F32(vec![1.0])).unwrap();
        assert_eq!(decode(&encode(&[tensor("a")]).unwrap()).unwrap(), [tensor("a")]);
        assert_eq!(encode(&[tensor("a"), tensor("b")]).unwrap_err().kind(), ErrorKind::Argument);
        let mut many = MAGIC.to_vec();
        put_count(&mut many, usize::MAX);
        assert!(parse(&many).is_err());
        let mut rank = MAGIC.to_vec();
        rank.extend([1, 0]);
        put_count(&mut rank, usize::MAX);
        assert!(parse(&rank).is_err());
        let long_count = [MAGIC, &[0xff; 10]].concat();
        assert!(parse(&long_count).is_err());
        assert!(Packed::dense("x", &[2], Stored::F32(vec![1.0])).is_err());
        assert!(Packed::sparse("x", Mask::keep_all(&[2]).unwrap(), Stored::F32(vec![1.0])).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damaged_bytes_are_an_error_or_a_model(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            // Past the checksum, as a hostile writer would be.
            let mut bytes = encode(&sample()).unwrap();
            bytes.truncate(bytes.len() - 4);
            let at = at.index(bytes.len() - MAGIC.len()) + MAGIC.len();
            bytes[at] = byte;
            if let Ok(tensors) = parse(&bytes) {
                for tensor in tensors {
                    tensor.to_dense::<f32>().unwrap();
                }
            }
            let end = cut.index(bytes.len());
            prop_assert!(end < MAGIC.len() || parse(&bytes[..end]).is_err() || end == bytes.len());
        }
    }
}
