//! Tensors that stay numbers, with zeros for what is pruned.

use super::{
    look::Cost,
    source::{CHUNK, Source},
};
use crate::error::{Error, Result};

/// Takes the index of the first of some numbers, the numbers, and their bytes.
type Visit<'a> = &'a mut dyn FnMut(usize, &[f32], &[u8]) -> Result<()>;
/// Takes the bytes of elements, and those of their indices.
#[cfg(feature = "onnx")]
type Pairs<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// Calls `visit` with about a chunk of numbers at a time, their bytes, and the index of the first, pruned in both.
fn walk(source: &Source, cost: &mut Cost, visit: Visit<'_>) -> Result<()> {
    let straight = Source { transposed: false, ..source.clone() };
    let (rows, width) = source.lines()?;
    let size = source.element.bytes(1).unwrap_or(0).max(1);
    let step = (CHUNK / 2 / width).max(1);
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    for row in (0..rows).step_by(step) {
        let part = row..rows.min(row + step);
        let range = part.start * width * size..part.end * width * size;
        let raw = source.bytes.get(range.clone());
        let raw = raw.ok_or_else(|| Error::shape("bytes of a tensor", &[range.end], &[source.bytes.len()]))?;
        bytes.clear();
        bytes.extend_from_slice(raw);
        cost.read_dropping(&straight, part, &mut values, |place| {
            if let Some(bytes) = bytes.get_mut(place * size..(place + 1) * size) {
                bytes.fill(0);
            }
        })?;
        if let Some(place) = values.iter().position(|x| !x.is_finite()) {
            return Err(Error::non_finite("tensor", row * width + place, values[place].into()));
        }
        cost.exact(&values);
        cost.became(&values);
        visit(row * width, &values, &bytes)?;
    }
    Ok(())
}

/// Writes all elements: `sink` gets their bytes in order, and `step` how many there were.
pub(super) fn dense(
    source: &Source,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    step: &dyn Fn(usize) -> Result<()>,
) -> Result<Cost> {
    let mut cost = Cost::new(source.look);
    walk(source, &mut cost, &mut |_, values, bytes| {
        sink(bytes)?;
        step(values.len())
    })?;
    Ok(cost)
}

/// Writes the elements that are not zero: `sink` gets their bytes, and those of their indices, 64-bit integers.
#[cfg(feature = "onnx")]
pub(super) fn sparse(source: &Source, sink: Pairs<'_>, step: &dyn Fn(usize) -> Result<()>) -> Result<Cost> {
    let mut cost = Cost::new(source.look);
    let size = source.element.bytes(1).unwrap_or(0).max(1);
    let (mut kept, mut indices) = (Vec::new(), Vec::new());
    walk(source, &mut cost, &mut |first, values, bytes| {
        kept.clear();
        indices.clear();
        for (i, (x, bytes)) in values.iter().zip(bytes.chunks_exact(size)).enumerate() {
            if *x != 0.0 {
                kept.extend_from_slice(bytes);
                indices.extend_from_slice(&((first + i) as i64).to_le_bytes());
            }
        }
        sink(&kept, &indices)?;
        step(values.len())
    })?;
    Ok(cost)
}

/// Elements that are not zero, as [`sparse`] writes them.
#[cfg(feature = "onnx")]
pub(super) fn count(source: &Source) -> Result<usize> {
    let mut count = 0;
    walk(source, &mut Cost::default(), &mut |_, values, _| {
        count += values.iter().filter(|x| **x != 0.0).count();
        Ok(())
    })?;
    Ok(count)
}
