//! Arrays in memory, written as a file from front to back.

use super::{
    NOTES,
    write::{self, Named},
};
use crate::{
    error::{Error, Result},
    tensor::{Mask, SlotValues, Values, view::volume},
};
use half::bf16;
use safetensors::Dtype;
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// Numbers to be written, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    Bf16(&'a [bf16]),
    U8(&'a [u8]),
    /// As bytes of 0 and 1.
    Mask(&'a Mask),
}

impl<'a> Numbers<'a> {
    /// The arrays that numbers are written as: the ending of each one's name, its shape, itself.
    pub(crate) fn of(values: &'a SlotValues, shape: &[usize]) -> Vec<(&'static str, Vec<usize>, Self)> {
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
pub(crate) type Tensors<'a> = BTreeMap<String, (Vec<usize>, Numbers<'a>)>;

/// Adds a tensor.
pub(crate) fn add<'a>(tensors: &mut Tensors<'a>, name: String, shape: Vec<usize>, numbers: Numbers<'a>) -> Result<()> {
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
pub(crate) fn checksum(tensors: &Tensors<'_>) -> crc32fast::Hasher {
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
pub(crate) fn header(tensors: &Tensors<'_>, notes: &BTreeMap<&str, String>) -> Result<Vec<u8>> {
    let named = |(name, shape, numbers): (_, _, Numbers<'_>)| Named {
        name,
        shape,
        dtype: numbers.dtype(),
        len: numbers.bytes(),
    };
    write::header(&ordered(tensors).into_iter().map(named).collect::<Vec<_>>(), notes)
}

/// Writes a file, tensor after tensor.
pub(crate) fn write(out: &mut impl Write, header: &[u8], tensors: &Tensors<'_>) -> io::Result<()> {
    out.write_all(header)?;
    ordered(tensors).into_iter().try_for_each(|(.., numbers)| numbers.send(&mut |bytes| out.write_all(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{
        file::{ElementType, TensorFile},
        safetensors::SafeTensors,
    };

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
        let read = SafeTensors::decode(bytes).unwrap();
        let names: Vec<_> = read.tensors().iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["c", "b", "", "a"]);
        assert_eq!((read.note("k"), read.note("l")), (Some("v"), None));
        let a = read.tensor("a").unwrap();
        assert_eq!((a.info.element, &a.info.shape[..], a.bytes), (ElementType::U8, &[3][..], &[0, 1, 0][..]));
        assert_eq!(read.tensor("c").unwrap().bytes, f64::INFINITY.to_le_bytes());
        assert_eq!(checksum(&tensors).finalize(), crc32fast::hash(read.all_bytes()));
    }
}
