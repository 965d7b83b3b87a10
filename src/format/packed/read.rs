//! Reading.

#[cfg(feature = "entropy")]
use super::entropy::Coded;
use super::{CODED, MAGIC, Packed, Stored, gaps, max_sparse};
use crate::{
    error::{Error, Result},
    tensor::{
        Granularity, Grid, QTensor, Scales, Values,
        view::{checked_volume, volume},
    },
};
use half::{bf16, f16};
use std::collections::HashSet;

/// The tensors of a packed file.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) with the offset for bytes that are not such a file, were damaged (their CRC-32 is
/// another), end early, go on after the last tensor, have two tensors of one name or quantized ones whose parts do not fit,
/// claim sparse tensors of more elements than 2²⁸ and than 256 a byte of the file, or more coded bits than 2²⁰ and 256 a
/// byte of the file.
pub fn decode(bytes: &[u8]) -> Result<Vec<Packed>> {
    let version = bytes.get(MAGIC.len() - 1);
    if !bytes.starts_with(&MAGIC[..MAGIC.len() - 1]) || !version.is_some_and(|&version| matches!(version, 1 | CODED)) {
        return Err(Error::format(0, "not a packed model of version 1 or 2"));
    }
    if cfg!(not(feature = "entropy")) && version == Some(&CODED) {
        return Err(Error::format(MAGIC.len() - 1, "coded positions or codes, which take the feature `entropy`"));
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
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Packed>> {
    let mut reader = Reader {
        bytes,
        at: MAGIC.len(),
        sparse: 0,
        #[cfg(feature = "entropy")]
        coded: Coded::default(),
    };
    let count = reader.count()?;
    let (mut tensors, mut names) = (Vec::new(), HashSet::new());
    for _ in 0..count {
        let name = reader.name()?;
        if !names.insert(name.clone()) {
            return Err(reader.error("a name that a tensor before has").in_tensor(&name));
        }
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
    #[cfg(feature = "entropy")]
    coded: Coded,
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
                let kept = self.kept(volume)?;
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
            #[cfg(feature = "entropy")]
            2 if self.coded() => {
                let kept = self.kept(volume)?;
                self.add_coded(volume)?;
                let mask = self.within(|bytes| super::entropy::decode_mask(&shape, kept, bytes))?;
                let stored = self.stored(&[kept])?;
                Packed::sparse(name, mask, stored)
            }
            other => Err(self.error(format!("unknown density {other}"))),
        }
    }

    /// How many elements of a sparse tensor are kept.
    fn kept(&mut self, volume: usize) -> Result<usize> {
        self.sparse = self.sparse.saturating_add(volume);
        if self.sparse > max_sparse(self.bytes.len()) {
            return Err(self.error("too many elements for a file of this size"));
        }
        let kept = self.count()?;
        if kept > volume { Err(self.error("more elements kept than there are")) } else { Ok(kept) }
    }

    /// Whether positions and codes may be coded.
    #[cfg(feature = "entropy")]
    fn coded(&self) -> bool {
        self.bytes.get(MAGIC.len() - 1) == Some(&CODED)
    }

    /// Counts coded bits, before anything is done for them.
    #[cfg(feature = "entropy")]
    fn add_coded(&mut self, bits: usize) -> Result<()> {
        if self.coded.add(bits, self.bytes.len()) {
            Ok(())
        } else {
            Err(self.error("too many coded bits for a file of this size"))
        }
    }

    /// Reads bytes behind their count; errors name their place in the file.
    #[cfg(feature = "entropy")]
    fn within<T>(&mut self, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let len = self.count()?;
        let start = self.at;
        read(self.take(len)?).map_err(|error| match error.index() {
            Some(offset) => Error::format(start + offset, "coded bytes that do not fit the tensor"),
            None => error,
        })
    }

    fn stored(&mut self, shape: &[usize]) -> Result<Stored> {
        let len = checked_volume(shape)?;
        Ok(match self.byte()? {
            0 => Stored::F32(self.numbers(len, f32::from_le_bytes)?),
            1 => Stored::F64(self.numbers(len, f64::from_le_bytes)?),
            2 => Stored::F16(self.numbers(len, f16::from_le_bytes)?),
            3 => Stored::Bf16(self.numbers(len, bf16::from_le_bytes)?),
            4 => Stored::Quantized(self.quantized(shape, false)?),
            #[cfg(feature = "entropy")]
            5 if self.coded() => Stored::Quantized(self.quantized(shape, true)?),
            other => return Err(self.error(format!("unknown encoding {other}"))),
        })
    }

    fn quantized(&mut self, shape: &[usize], coded: bool) -> Result<QTensor> {
        let bits = self.byte()?;
        let granularity = match self.byte()? {
            0 => Granularity::Tensor,
            1 => Granularity::Channel { axis: self.count()? },
            2 => Granularity::Group { size: self.count()? },
            3 => Granularity::Block { axis: self.count()?, size: self.count()? },
            other => return Err(self.error(format!("unknown granularity {other}"))),
        };
        let sizes = QTensor::sizes(shape, bits, granularity).map_err(|error| self.error(error.to_string()))?;
        let grid = match self.byte()? {
            0 => Grid::MinMax { min: self.values(sizes.groups)?, max: self.values(sizes.groups)? },
            1 => {
                let levels = sizes.groups.checked_mul(1 << bits).ok_or_else(|| self.error("a codebook too large"))?;
                Grid::Codebook { levels: self.values(levels)? }
            }
            2 => Grid::Affine { scale: self.scales(sizes.groups)?, zero_point: None },
            3 => {
                let scale = self.scales(sizes.groups)?;
                let zeros = match bits {
                    16 => self.numbers(sizes.groups, u16::from_le_bytes)?,
                    _ => self.take(sizes.groups)?.iter().map(|&zero| zero.into()).collect(),
                };
                Grid::Affine { scale, zero_point: Some(zeros) }
            }
            4 => Grid::Scaled { levels: self.values(1 << bits)?, scale: self.scales(sizes.groups)? },
            other => return Err(self.error(format!("unknown grid {other}"))),
        };
        #[cfg(feature = "entropy")]
        if coded {
            let len = checked_volume(shape)?;
            self.add_coded(len.saturating_mul(bits.into()))?;
            let codes = self.within(|bytes| super::entropy::decode_codes(len, bits, bytes))?;
            let q = QTensor::from_codes(shape, bits, granularity, grid, &codes);
            return q.map_err(|error| self.error(error.to_string()));
        }
        let _ = coded;
        let packed = self.take(sizes.bytes)?;
        QTensor::new(shape, bits, granularity, grid, packed.to_vec()).map_err(|error| self.error(error.to_string()))
    }

    fn values(&mut self, len: usize) -> Result<Values> {
        match self.scales(len)? {
            Scales::Full(values) => Ok(values),
            _ => Err(self.error("levels in a type of scales")),
        }
    }

    fn scales(&mut self, len: usize) -> Result<Scales> {
        Ok(match self.byte()? {
            0 => Values::F32(self.numbers(len, f32::from_le_bytes)?).into(),
            1 => Values::F64(self.numbers(len, f64::from_le_bytes)?).into(),
            2 => Scales::F16(self.numbers(len, f16::from_le_bytes)?),
            3 => Scales::E8m0(self.take(len)?.to_vec()),
            other => return Err(self.error(format!("unknown type of numbers {other}"))),
        })
    }

    fn numbers<T, const N: usize>(&mut self, len: usize, from: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let size = len.checked_mul(N).ok_or_else(|| self.error("too many numbers"))?;
        Ok(self.take(size)?.as_chunks::<N>().0.iter().map(|bytes| from(*bytes)).collect())
    }
}
