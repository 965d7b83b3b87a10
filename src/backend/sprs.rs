//! `sprs` matrices as sparse matrices, and back.

use crate::{
    element::Element,
    error::{Error, Result},
    sparse::{Kept, Parts, Sparse},
    tensor::view::filled,
};
use sprs::{CsMat, CsMatView};

/// Compressed rows, or compressed columns after they were sorted by rows, as [`Form::Csr`](crate::sparse::Form::Csr). Stored zeros stay.
impl<T: Element<Real = f32>> TryFrom<CsMatView<'_, T>> for Sparse
where
    Kept: From<Vec<T>>,
{
    type Error = Error;

    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a column or an offset of 2³² or more.
    fn try_from(matrix: CsMatView<'_, T>) -> Result<Self> {
        let sorted;
        let matrix = if matrix.is_csr() {
            matrix
        } else {
            sorted = matrix.to_csr();
            sorted.view()
        };
        let narrow = |i: &usize| u32::try_from(*i).map_err(|_| Error::argument("index", i, "less than 2^32"));
        let offsets = matrix.proper_indptr().iter().map(narrow).collect::<Result<_>>()?;
        let columns = matrix.indices().iter().map(narrow).collect::<Result<_>>()?;
        Self::from_parts([matrix.rows(), matrix.cols()], Parts::Csr { offsets, columns }, matrix.data().to_vec())
    }
}

/// The stored elements as compressed rows of decoded numbers, scaled where rows have scales.
impl TryFrom<&Sparse> for CsMat<f32> {
    type Error = Error;

    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold an offset for each row: rows without a column may be any number.
    fn try_from(sparse: &Sparse) -> Result<Self> {
        let [rows, cols] = sparse.shape();
        let kept = sparse.kept().to_vec::<f32>();
        let mut elements = Vec::with_capacity(kept.len());
        sparse.each(|slot, index| elements.push((index, kept[slot])));
        elements.sort_unstable_by_key(|element| element.0);
        let mut offsets = filled(rows.saturating_add(1), 0)?;
        elements.iter().for_each(|(index, _)| offsets[index / cols + 1] += 1);
        for row in 0..rows {
            offsets[row + 1] += offsets[row];
        }
        let scale = |row: usize| sparse.row_scales().map_or(1.0, |scale| scale[row]);
        let values = elements.iter().map(|(index, value)| value * scale(index / cols)).collect();
        let columns = elements.iter().map(|(index, _)| index % cols).collect();
        Ok(Self::new((rows, cols), offsets, columns, values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, TensorRef, quant::Symmetric, sparse::Form};

    #[test]
    fn elements_go_there_and_back() {
        let w = [0.0f32, 2.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.5, 0.25, 0.0, 0.0, 3.0];
        for shape in [[3, 4], [4, 3], [1, 12], [12, 1]] {
            let dense = TensorRef::new(&w, &shape).unwrap();
            let csr = Sparse::new(&dense, Form::Csr).unwrap();
            for form in [Form::Csr, Form::Bitmask] {
                let there = CsMat::try_from(&Sparse::new(&dense, form).unwrap()).unwrap();
                assert_eq!((there.nnz(), there.rows()), (5, shape[0]));
                assert_eq!(Sparse::try_from(there.view()).unwrap(), csr);
                assert_eq!(Sparse::try_from(there.to_csc().view()).unwrap(), csr);
            }
            let blocks = Sparse::new(&dense, Form::Blocks { height: 2, width: 3 }).unwrap();
            let there = Sparse::try_from(CsMat::try_from(&blocks).unwrap().view()).unwrap();
            assert_eq!(there.to_dense::<f32>().unwrap(), w);
            let scaled = csr.quantize_rows(&Symmetric::new(8).unwrap()).unwrap();
            let there = Sparse::try_from(CsMat::try_from(&scaled).unwrap().view()).unwrap();
            assert_eq!(there.to_dense::<f32>().unwrap(), scaled.to_dense::<f32>().unwrap());
        }
    }

    #[test]
    fn matrices_without_rows_or_columns_are_taken() {
        for shape in [[0, 3], [3, 0]] {
            let none = Sparse::new(TensorRef::new(&[0f32; 0], &shape).unwrap(), Form::Csr).unwrap();
            assert_eq!(Sparse::try_from(CsMat::try_from(&none).unwrap().view()).unwrap(), none);
        }
        for form in [Form::Dense, Form::TwoOfFour] {
            let rows = Sparse::new(TensorRef::new(&[0f32; 0], &[usize::MAX, 0]).unwrap(), form).unwrap();
            assert_eq!(CsMat::try_from(&rows).unwrap_err().kind(), ErrorKind::Argument);
        }
    }
}
