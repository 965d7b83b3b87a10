//! Sparse matrices times vectors.

use super::Sparse;
use crate::{
    error::{Error, Result},
    kernel::sparse::{Eight, LANES, Matrix, product},
    tensor::{TensorMut, TensorRef, qtensor::check_product},
};

/// So many vectors are worth laying out beside one another: eight of them take about as long as three, one after another.
pub(super) const FEW: usize = 3;

/// Memory that [`Sparse::multiply_into`] works in, of any matrix. It grows to what the largest call needs; then nothing is allocated.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    inputs: Vec<Eight>,
    outputs: Vec<Eight>,
}

impl Sparse {
    /// `y = A x` for one vector, or for many: `x` has the shape `[inputs]` or `[.., inputs]`, `y` the same with outputs for inputs. Does not
    /// allocate once the workspace has grown; it grows where there are three vectors or more.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes do not fit; [`NonFinite`](crate::ErrorKind::NonFinite) when an input is NaN or
    /// infinite, [`Argument`](crate::ErrorKind::Argument) where memory does not hold the workspace; `y` is then as it was. Sums beyond the
    /// largest number become infinite, and infinities of both signs add up to NaN.
    pub fn multiply_into<'a, 'b>(
        &self,
        x: impl Into<TensorRef<'a, f32>>,
        y: impl Into<TensorMut<'b, f32>>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (x, mut y) = (x.into(), y.into());
        let (rows, cols) = (self.rows, self.cols);
        check_product([rows, cols], &x, &y)?;
        let (x, y) = (x.as_slice(), y.as_mut_slice());
        if cols == 0 || y.is_empty() {
            y.fill(0.0);
            return Ok(());
        }
        let matrix = Matrix {
            rows,
            cols,
            positions: self.positions.view(),
            numbers: self.kept.numbers(),
            scale: self.scale.as_deref(),
        };
        let Workspace { inputs, outputs } = workspace;
        if x.len() / cols >= FEW {
            grow(inputs, cols)?;
            grow(outputs, rows)?;
        }
        for (x, y) in x.chunks(LANES * cols).zip(y.chunks_mut(LANES * rows)) {
            if x.len() / cols < FEW {
                x.chunks_exact(cols).zip(y.chunks_exact_mut(rows)).for_each(|(x, y)| product(matrix, x, y));
                continue;
            }
            let (inputs, outputs) = (&mut inputs[..cols], &mut outputs[..rows]);
            inputs.fill(Eight::default());
            for (b, x) in x.chunks_exact(cols).enumerate() {
                inputs.iter_mut().zip(x).for_each(|(eight, x)| eight.0[b] = *x);
            }
            product(matrix, inputs, outputs);
            for (b, y) in y.chunks_exact_mut(rows).enumerate() {
                y.iter_mut().zip(&*outputs).for_each(|(y, eight)| *y = eight.0[b]);
            }
        }
        Ok(())
    }
}

fn grow(room: &mut Vec<Eight>, len: usize) -> Result<()> {
    if room.try_reserve(len.saturating_sub(room.len())).is_err() {
        return Err(Error::argument("length of a vector", len, "such that memory holds a workspace"));
    }
    room.resize(room.len().max(len), Eight::default());
    Ok(())
}
