//! Strided elements into logical order.

use crate::error::{Error, Result};
use candle_core::Layout;

/// Rows and columns of a tile, of which each line in the cache is used up before it leaves.
const TILE: usize = 16;

/// Appends the elements of a layout to `out`, the last axis fastest.
pub(super) fn append<T: Copy + Default>(elements: &[T], layout: &Layout, out: &mut Vec<T>) -> Result<()> {
    let (dims, strides) = (layout.dims(), layout.stride());
    let count = layout.shape().elem_count();
    if count == 0 {
        return Ok(());
    }
    let last = dims.iter().zip(strides).fold(layout.start_offset(), |at, (n, stride)| at + (n - 1) * stride);
    if last >= elements.len() {
        return Err(too_short());
    }
    let before = out.len();
    out.resize(before + count, T::default());
    gather(elements, layout.start_offset(), dims, strides, &mut out[before..]);
    Ok(())
}

pub(super) fn too_short() -> Error {
    Error::runtime("candle", "a storage has fewer elements than the tensor's layout")
}

/// `out` has a place for each element, and every element is there.
fn gather<T: Copy>(elements: &[T], start: usize, dims: &[usize], strides: &[usize], out: &mut [T]) {
    match (dims, strides) {
        ([rows, cols], [down, along]) => {
            for row in (0..*rows).step_by(TILE) {
                for col in (0..*cols).step_by(TILE) {
                    let width = TILE.min(cols - col);
                    for row in row..(row + TILE).min(*rows) {
                        let from = start + row * down + col * along;
                        let to = &mut out[row * cols + col..][..width];
                        to.iter_mut().enumerate().for_each(|(i, to)| *to = elements[from + i * along]);
                    }
                }
            }
        }
        ([n, dims @ ..], [stride, strides @ ..]) => {
            let len = out.len() / n;
            let parts = out.chunks_exact_mut(len).enumerate();
            parts.for_each(|(i, out)| gather(elements, start + i * stride, dims, strides, out));
        }
        _ => out[0] = elements[start],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Shape;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_element_is_where_its_index_says(
            axes in prop::collection::vec((1usize..20, 0usize..40), 0..4), start in 0usize..9, before in 0usize..3,
        ) {
            let (dims, strides): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
            let last = dims.iter().zip(&strides).fold(start, |at, (n, stride)| at + (n - 1) * stride);
            let elements: Vec<usize> = (0..=last).collect();
            let layout = Layout::new(Shape::from(dims.clone()), strides.clone(), start);
            let mut out = vec![7; before];
            append(&elements, &layout, &mut out).unwrap();
            prop_assert_eq!(out.len() - before, dims.iter().product::<usize>());
            for (i, &found) in out[before..].iter().enumerate() {
                let (mut rest, mut want) = (i, start);
                for (n, stride) in dims.iter().zip(&strides).rev() {
                    want += rest % n * stride;
                    rest /= n;
                }
                prop_assert_eq!(found, want);
            }
            prop_assert!(append(&elements[..last], &layout, &mut out).is_err());
        }
    }

    #[test]
    fn without_elements_there_is_nothing_to_do() {
        let mut out = vec![0u8; 0];
        append(&[], &Layout::new(Shape::from((3, 0)), vec![1, 3], 0), &mut out).unwrap();
        assert!(out.is_empty());
    }
}
