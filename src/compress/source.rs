//! Tensors of a file, read some rows at a time, and what became of them.

use super::{look::Look, pruning::Zeros};
use crate::{
    error::{Error, ErrorKind, Result},
    format::file::{Bytes, ElementType},
    tensor::view::{checked_volume, filled},
};
use std::ops::Range;

/// Elements that are worked on together: 1 MiB of `f32`, which stays in the cache between one step and the next.
pub(super) const CHUNK: usize = 1 << 18;
/// Lines of a transposed matrix that are read together.
const LINES: usize = 32;

/// A floating-point tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) bytes: Bytes,
    pub(super) element: ElementType,
    /// As it is in the file.
    pub(super) shape: Vec<usize>,
    /// Whether a matrix is read by columns.
    pub(super) transposed: bool,
    /// What is read as zero.
    pub(super) zeros: Option<Zeros>,
    /// What is put down of its numbers.
    pub(super) look: Look,
}

impl Source {
    /// A tensor as the file has it.
    pub(super) fn new(bytes: Bytes, element: ElementType, shape: Vec<usize>) -> Self {
        Self { bytes, element, shape, transposed: false, zeros: None, look: Look::default() }
    }

    /// A tensor of nothing.
    pub(super) fn empty() -> Self {
        Self::new(Bytes::new(), ElementType::F32, vec![0])
    }

    /// The shape as it is read.
    pub(super) fn shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// An error about `values`, the rows from `first` on, as one about the tensor.
    pub(super) fn placed(&self, error: Error, first: usize, values: &[f32]) -> Error {
        let Some((index, &value)) = error.index().and_then(|index| Some((index, values.get(index)?))) else {
            return error;
        };
        if error.kind() != ErrorKind::NonFinite {
            return error;
        }
        let shape = self.shape();
        let (width, rows) = (shape.iter().skip(1).product::<usize>().max(1), shape.first().copied().unwrap_or(1));
        let (row, column) = (first + index / width, index % width);
        let index = if self.transposed { column * rows + row } else { row * width + column };
        Error::non_finite("tensor", index, value.into())
    }

    /// Some rows of the first axis of [`shape`](Self::shape), with zeros for what is pruned.
    #[cfg(any(feature = "onnx", feature = "safetensors"))]
    pub(super) fn rows(&self, rows: Range<usize>, values: &mut Vec<f32>) -> Result<()> {
        let first = rows.start;
        self.rows_before(rows, values)?;
        if let Some(zeros) = &self.zeros {
            zeros.apply(self, first, values, |_, _| ());
        }
        Ok(())
    }

    /// Some rows as the file has them.
    pub(super) fn rows_before(&self, rows: Range<usize>, values: &mut Vec<f32>) -> Result<()> {
        let shape = self.shape();
        let width = checked_volume(shape.get(1..).unwrap_or_default())?;
        values.resize(rows.len() * width, 0.0); // all of which is overwritten
        let size = self.element.bytes(1).unwrap_or(0);
        let part = |range: Range<usize>| {
            let bytes = self.bytes.get(range.start * size..range.end * size);
            bytes.ok_or_else(|| Error::shape("bytes of a tensor", &[range.end * size], &[self.bytes.len()]))
        };
        if !self.transposed {
            return self.element.to_f32(part(rows.start * width..rows.end * width)?, values);
        }
        // Some lines at a time, so that what is written lies together.
        let (count, columns) = (rows.len(), shape.first().copied().unwrap_or(0));
        let mut lines = vec![0f32; LINES.min(width) * count];
        for k in (0..width).step_by(LINES) {
            let together = LINES.min(width - k);
            for (line, k) in lines.chunks_exact_mut(count).zip(k..k + together) {
                self.element.to_f32(part(k * columns + rows.start..k * columns + rows.end)?, line)?;
            }
            for (i, values) in values.chunks_exact_mut(width).enumerate() {
                for (j, value) in values[k..k + together].iter_mut().enumerate() {
                    *value = lines[j * count + i];
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with the first index and the numbers of about `chunk` elements at a time, whole rows, as and in the order that the
    /// file has them.
    pub(super) fn chunks(&self, chunk: usize, visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let (rows, width) = self.lines()?;
        let step = (chunk / width).max(1);
        let straight = Self { transposed: false, ..self.clone() };
        let mut values = Vec::new();
        for row in (0..rows).step_by(step) {
            straight.rows_before(row..rows.min(row + step), &mut values)?;
            visit(row * width, &values)?;
        }
        Ok(())
    }

    /// The number of rows in the file, and the elements of one.
    pub(super) fn lines(&self) -> Result<(usize, usize)> {
        let width = checked_volume(self.shape.get(1..).unwrap_or_default())?.max(1);
        Ok((self.shape.first().copied().unwrap_or(1), width))
    }

    /// All numbers, as the file has them.
    pub(super) fn all(&self) -> Result<Vec<f32>> {
        let mut values = filled(checked_volume(&self.shape)?, 0.0)?;
        self.element.to_f32(&self.bytes, &mut values)?;
        Ok(values)
    }
}
