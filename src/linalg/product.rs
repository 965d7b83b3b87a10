//! Matrix products, on `faer`. Row-major, serial: the same bits on any number of threads, not on any instruction set.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

/// A row-major matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: MatRef<'a, f32>,
}

impl<'a> Matrix<'a> {
    /// `values` has `rows * cols` elements.
    pub(crate) fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { values: MatRef::from_row_major_slice(values, rows, cols) }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { values: self.values.transpose() }
    }
}

/// `out = out + alpha * a * b`, where `out` is row-major with as many elements as the product.
pub(crate) fn add_product(out: &mut [f32], alpha: f32, a: Matrix<'_>, b: Matrix<'_>) {
    let out = MatMut::from_row_major_slice_mut(out, a.values.nrows(), b.values.ncols());
    matmul(out, Accum::Add, a.values, b.values, alpha, Par::Seq);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_a_product() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 0.0, 1.0, 1.0]);
        let mut out = [1.0; 4];
        add_product(&mut out, 2.0, Matrix::new(&a, 2, 3), Matrix::new(&b, 2, 3).transposed());
        assert_eq!(out, [15.0, 11.0, 33.0, 23.0]);
    }
}
