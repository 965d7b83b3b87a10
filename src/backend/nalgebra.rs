//! `nalgebra` matrices, vectors and their views, of static and dynamic sizes, as tensors.
//!
//! A type of one column or one row is a tensor of one axis; every other is one of two, `[rows, columns]`. What lies in logical order is
//! borrowed: vectors, contiguous views of them, columns, and matrices that happen to have a single row or column. Any other
//! matrix lies column after column: it is copied by tiles; a tensor to change is written back when it is dropped.

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{
        QTensor, TensorMut, TensorRef,
        view::{Dims, filled},
    },
};
use nalgebra::{DMatrix, Dim, Dyn, IsContiguous, Matrix, MatrixView, MatrixViewMut, RawStorage, RawStorageMut, U1};
use std::{any::Any, borrow::Cow};

impl<'a, T, R, C, S> From<&'a Matrix<T, R, C, S>> for TensorRef<'a, T>
where
    T: Element,
    R: Dim,
    C: Dim,
    S: RawStorage<T, R, C> + IsContiguous,
{
    fn from(matrix: &'a Matrix<T, R, C, S>) -> Self {
        let data = if in_logical_order(matrix) { matrix.as_slice().into() } else { copy(matrix).into() };
        Self::from_parts(data, dims(matrix))
    }
}

impl<'a, T, R, C, S> From<&'a mut Matrix<T, R, C, S>> for TensorMut<'a, T>
where
    T: Element,
    R: Dim,
    C: Dim,
    S: RawStorageMut<T, R, C> + IsContiguous + Send + Sync,
{
    fn from(matrix: &'a mut Matrix<T, R, C, S>) -> Self {
        let dims = dims(matrix);
        if in_logical_order(matrix) {
            return Self::borrowed(matrix.as_mut_slice(), dims);
        }
        Self::staged(copy(matrix), dims, Box::new(move |values| write(matrix, values)))
    }
}

impl<'a, T, R, C, RStride, CStride> From<MatrixView<'a, T, R, C, RStride, CStride>> for TensorRef<'a, T>
where
    T: Element,
    R: Dim,
    C: Dim,
    RStride: Dim,
    CStride: Dim,
{
    fn from(view: MatrixView<'a, T, R, C, RStride, CStride>) -> Self {
        type Slice<T, R, C, RS, CS> = for<'v> fn(MatrixView<'v, T, R, C, RS, CS>) -> &'v [T];
        let column: Slice<T, R, U1, U1, CStride> = |view| view.data.into_slice();
        let row: Slice<T, U1, Dyn, U1, U1> = |view| view.data.into_slice();
        let slice: Option<&Slice<T, R, C, RStride, CStride>> = same(&column).or_else(|| same(&row));
        let data = slice.map_or_else(|| Cow::Owned(copy(&view)), |slice| Cow::Borrowed(slice(view)));
        Self::from_parts(data, dims(&view))
    }
}

impl<'a, T, R, C, RStride, CStride> From<MatrixViewMut<'a, T, R, C, RStride, CStride>> for TensorMut<'a, T>
where
    T: Element,
    R: Dim,
    C: Dim,
    RStride: Dim,
    CStride: Dim,
{
    fn from(mut view: MatrixViewMut<'a, T, R, C, RStride, CStride>) -> Self {
        type Slice<T, R, C, RS, CS> = for<'v> fn(MatrixViewMut<'v, T, R, C, RS, CS>) -> &'v mut [T];
        let column: Slice<T, R, U1, U1, CStride> = |view| view.data.into_slice_mut();
        let row: Slice<T, U1, Dyn, U1, U1> = |view| view.data.into_slice_mut();
        let slice: Option<&Slice<T, R, C, RStride, CStride>> = same(&column).or_else(|| same(&row));
        let dims = dims(&view);
        match slice {
            Some(slice) => Self::borrowed(slice(view), dims),
            None => Self::staged(copy(&view), dims, Box::new(move |values| write(&mut view, values))),
        }
    }
}

impl QTensor {
    /// The decoded values as a matrix; a tensor of one axis is a column. Needs the feature `nalgebra`.
    ///
    /// ```
    /// use lapidary::{QuantizerExt, nalgebra::DMatrix, quant::MinMax};
    /// let weights = DMatrix::from_row_slice(2, 2, &[0.0f32, 1.0, 2.0, 3.0]);
    /// assert_eq!(MinMax::new(2)?.quantize(&weights)?.to_matrix::<f32>()?, weights);
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a tensor of another number of axes than 1 or 2, or one that memory does not hold.
    pub fn to_matrix<T: Element>(&self) -> Result<DMatrix<T>> {
        let (rows, columns) = match *self.shape() {
            [rows] => (rows, 1),
            [rows, columns] => (rows, columns),
            ref other => {
                return Err(Error::argument("shape", format!("{other:?}"), "of one or two axes, for a matrix"));
            }
        };
        let mut values = filled(self.len(), T::default())?;
        self.decode(&mut values);
        if rows == 1 || columns == 1 {
            return Ok(DMatrix::from_vec(rows, columns, values));
        }
        let mut matrix = DMatrix::from_vec(rows, columns, filled(self.len(), T::default())?);
        write(&mut matrix, &values);
        Ok(matrix)
    }
}

/// `function` where the types are the same: the way of a kind of views, for a view whose type may be of that kind.
fn same<A: Any, B: Any>(function: &A) -> Option<&B> {
    (function as &dyn Any).downcast_ref()
}

fn dims<T, R: Dim, C: Dim, S: RawStorage<T, R, C>>(matrix: &Matrix<T, R, C, S>) -> Dims {
    let (rows, columns) = matrix.shape();
    match (R::try_to_usize(), C::try_to_usize()) {
        (_, Some(1)) => Dims::from_slice(&[rows]),
        (Some(1), _) => Dims::from_slice(&[columns]),
        _ => Dims::from_slice(&[rows, columns]),
    }
}

/// Whether columns, one after another, are rows, one after another.
fn in_logical_order<T, R: Dim, C: Dim, S: RawStorage<T, R, C>>(matrix: &Matrix<T, R, C, S>) -> bool {
    matrix.nrows() <= 1 || matrix.ncols() <= 1
}

fn copy<T: Element, R: Dim, C: Dim, S: RawStorage<T, R, C>>(matrix: &Matrix<T, R, C, S>) -> Vec<T> {
    let (rows, columns) = matrix.shape();
    let mut values = vec![T::default(); rows * columns];
    by_tiles(rows, columns, |i, j| values[i * columns + j] = matrix[(i, j)]);
    values
}

fn write<T: Element, R: Dim, C: Dim, S: RawStorageMut<T, R, C>>(matrix: &mut Matrix<T, R, C, S>, values: &[T]) {
    let (rows, columns) = matrix.shape();
    by_tiles(rows, columns, |i, j| matrix[(i, j)] = values[i * columns + j]);
}

/// Rows and columns that are visited together. The columns of a tile touch as many cache lines, which for a power of two of rows
/// fall into the same few places of the first-level cache.
const TILE: usize = 16;

fn by_tiles(rows: usize, columns: usize, mut visit: impl FnMut(usize, usize)) {
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for i in top..rows.min(top + TILE) {
                (left..columns.min(left + TILE)).for_each(|j| visit(i, j));
            }
        }
    }
}
