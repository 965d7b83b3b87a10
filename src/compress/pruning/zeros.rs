//! Which elements of a tensor are zero, where it is read some rows at a time.

use super::threshold::Threshold;
use crate::{compress::source::Source, tensor::Mask};
use std::sync::Arc;

/// Elements that are zero from now on, by their indices in the file.
#[derive(Debug, Clone)]
pub(in crate::compress) enum Zeros {
    /// Magnitudes that a threshold does not keep.
    Below { bits: u32, end: usize },
    /// What the mask drops.
    Mask(Arc<Mask>),
}

impl Zeros {
    /// The magnitudes below a threshold.
    pub(super) fn below(threshold: Threshold) -> Self {
        Self::Below { bits: u32::try_from(threshold.bits).unwrap_or(u32::MAX), end: threshold.end }
    }

    /// Makes zeros of `values`, the rows from `first` on; `dropped` is told of each.
    pub(in crate::compress) fn apply(
        &self,
        source: &Source,
        first: usize,
        values: &mut [f32],
        dropped: impl FnMut(usize, f32),
    ) {
        match self {
            &Self::Below { bits, end } => walk(source, first, values, dropped, |index, x| {
                let magnitude = x.to_bits() & MAGNITUDE;
                magnitude < bits || (magnitude == bits && index >= end)
            }),
            Self::Mask(mask) => walk(source, first, values, dropped, |index, _| mask.get(index) == Some(false)),
        }
    }
}

/// The bits of a number without its sign, which order as magnitudes do.
pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;

#[inline(always)]
fn walk(
    source: &Source,
    first: usize,
    values: &mut [f32],
    mut dropped: impl FnMut(usize, f32),
    drops: impl Fn(usize, f32) -> bool,
) {
    let shape = source.shape();
    let width = shape.iter().skip(1).product::<usize>().max(1);
    let rows = shape.first().copied().unwrap_or(1);
    for (row, line) in values.chunks_mut(width).enumerate() {
        let (start, step) = if source.transposed { (first + row, rows) } else { ((first + row) * width, 1) };
        for (j, x) in line.iter_mut().enumerate() {
            if drops(start + j * step, *x) {
                dropped(row * width + j, *x);
                *x = 0.0;
            }
        }
    }
}
