//! Writing.

use super::{CODED, MAGIC, Packed, Stored, gaps, max_sparse};
use crate::{
    error::{Error, Result},
    tensor::{Granularity, Grid, Mask, QTensor, Scales, Values},
};
use std::collections::HashSet;

/// The file of these tensors, as bytes.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) when two tensors have one name, or sparse ones more elements than [`decode`](super::decode)
/// accepts.
///
/// ```
/// use lapidary::{PrunerExt, QuantizerExt, format::packed::{self, Packed, Stored}, prune::Magnitude, quant::MinMax};
/// let weights: Vec<f32> = (0..1000).map(|i| if i % 20 == 0 { i as f32 } else { 0.0 }).collect();
/// let mask = Magnitude::threshold(0.0)?.mask(&weights)?;
/// let kept = MinMax::new(4)?.quantize(&mask.gather(&weights)?)?;
/// let bytes = packed::encode(&[Packed::sparse("fc1.weight", mask, Stored::Quantized(kept))?])?;
/// assert!(bytes.len() < 110); // 4,000 as f32
/// assert_eq!(packed::decode(&bytes)?[0].to_dense::<f32>()?[980], 980.0);
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn encode(tensors: &[Packed]) -> Result<Vec<u8>> {
    write(tensors, Coding::Plain)
}

/// As [`encode`], in the fewest bytes: positions and codes by a range coder, where that is shorter. To write and to read takes much
/// longer: each element of a sparse tensor, pruned ones too, and each bit of a code is a step of its own, and what is read is coded
/// again, to compare. Such a file is of version 2, which only a crate with the feature `entropy` reads. A part that so few bytes would
/// stand for that a reader refuses the work (more than 2²⁰ bits, and 256 for each byte so far) is written as by [`encode`].
///
/// # Errors
/// As [`encode`].
#[cfg(feature = "entropy")]
pub fn encode_smallest(tensors: &[Packed]) -> Result<Vec<u8>> {
    write(tensors, Coding::Smallest(Default::default()))
}

/// How positions and codes are written.
enum Coding {
    /// Rice codes of gaps, packed codes.
    Plain,
    /// By the range coder too, if that is shorter and a reader accepts it.
    #[cfg(feature = "entropy")]
    Smallest(super::entropy::Coded),
}

impl Coding {
    /// The positions in fewer bytes than `plain`, behind `before` bytes of the file.
    fn positions(&mut self, mask: &Mask, plain: usize, before: usize) -> Result<Option<Vec<u8>>> {
        #[cfg(feature = "entropy")]
        if let Self::Smallest(coded) = self {
            let bytes = super::entropy::encode_mask(mask)?;
            let shorter = bytes.len() < plain && coded.add(mask.len(), before + bytes.len());
            return Ok(shorter.then_some(bytes));
        }
        let _ = (mask, plain, before);
        Ok(None)
    }

    /// The codes in fewer bytes than they are packed in, behind `before` bytes of the file.
    fn codes(&mut self, q: &QTensor, before: usize) -> Result<Option<Vec<u8>>> {
        #[cfg(feature = "entropy")]
        if let Self::Smallest(coded) = self {
            let bits = q.len().saturating_mul(q.bits().into());
            return Ok(super::entropy::encode_codes(q)?.filter(|bytes| coded.add(bits, before + bytes.len())));
        }
        let _ = (q, before);
        Ok(None)
    }
}

fn write(tensors: &[Packed], mut coding: Coding) -> Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    let (mut coded, mut names) = (false, HashSet::new());
    put_count(&mut out, tensors.len());
    for tensor in tensors {
        if !names.insert(tensor.name()) {
            return Err(Error::argument("name", format!("{:?} twice", tensor.name), "unique"));
        }
        put_bytes(&mut out, tensor.name.as_bytes());
        put_count(&mut out, tensor.shape.len());
        tensor.shape.iter().for_each(|&n| put_count(&mut out, n));
        match &tensor.mask {
            None => out.push(0),
            Some(mask) => {
                let (rice, bytes) = gaps::encode(mask);
                if let Some(bytes) = coding.positions(mask, bytes.len(), out.len())? {
                    coded = true;
                    out.push(2);
                    put_count(&mut out, mask.kept());
                    put_bytes(&mut out, &bytes);
                } else {
                    out.push(1);
                    put_count(&mut out, mask.kept());
                    out.push(rice as u8);
                    put_bytes(&mut out, &bytes);
                }
            }
        }
        coded |= put_stored(&mut out, &tensor.stored, &mut coding)?;
    }
    if coded {
        out[MAGIC.len() - 1] = CODED;
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

/// Tells whether codes were written by the range coder.
fn put_stored(out: &mut Vec<u8>, stored: &Stored, coding: &mut Coding) -> Result<bool> {
    match stored {
        Stored::F32(values) => put_numbers(out, 0, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::F64(values) => put_numbers(out, 1, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::F16(values) => put_numbers(out, 2, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::Bf16(values) => put_numbers(out, 3, values.iter().flat_map(|x| x.to_le_bytes())),
        Stored::Quantized(q) => {
            let coded = coding.codes(q, out.len())?;
            out.extend([if coded.is_some() { 5 } else { 4 }, q.bits()]);
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
                Granularity::Block { axis, size } => {
                    out.push(3);
                    put_count(out, axis);
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
                    put_scales(out, scale);
                }
                Grid::Affine { scale, zero_point: Some(zeros) } => {
                    out.push(3);
                    put_scales(out, scale);
                    match q.bits() {
                        16 => out.extend(zeros.iter().flat_map(|zero| zero.to_le_bytes())),
                        _ => out.extend(zeros.iter().map(|&zero| zero as u8)),
                    }
                }
                Grid::Scaled { levels, scale } => {
                    out.push(4);
                    put_values(out, levels);
                    put_scales(out, scale);
                }
            }
            match &coded {
                Some(bytes) => put_bytes(out, bytes),
                None => out.extend_from_slice(q.packed()),
            }
            return Ok(coded.is_some());
        }
    }
    Ok(false)
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

fn put_scales(out: &mut Vec<u8>, scales: &Scales) {
    match scales {
        Scales::Full(values) => put_values(out, values),
        Scales::F16(values) => put_numbers(out, 2, values.iter().flat_map(|x| x.to_le_bytes())),
        Scales::E8m0(bytes) => put_numbers(out, 3, bytes.iter().copied()),
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(super) fn put_count(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}
