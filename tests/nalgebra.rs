//! Matrices, vectors and views of `nalgebra`, as tensors.
#![cfg(feature = "nalgebra")]

use half::{bf16, f16};
use lapidary::{
    Element, ErrorKind, Mask, Optimizer, OptimizerExt, PrunerExt, QuantizerExt, Step, TensorMut, TensorRef, half,
    optim::{Adafactor, AdamW},
    prune::Magnitude,
    quant::MinMax,
};
use nalgebra::{
    Const, DMatrix, DMatrixView, DMatrixViewMut, DVector, Dim, Dyn, Matrix, Matrix2x3, OMatrix, RawStorage, RowDVector,
    SMatrix, U1, U3, Vector3,
};
use proptest::prelude::*;

/// Row after row.
fn rows<T: Element, R: Dim, C: Dim, S: RawStorage<T, R, C>>(m: &Matrix<T, R, C, S>) -> Vec<T> {
    (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)])).collect()
}

fn numbers<T: Element>(n: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f64((i as f64 * 0.37).sin())).collect()
}

#[test]
fn every_matrix_is_seen_in_logical_order() {
    let m = DMatrix::from_row_slice(2, 3, &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let tensor = TensorRef::from(&m);
    assert_eq!((tensor.shape(), tensor.as_slice()), (&[2, 3][..], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..]));
    let fixed = Matrix2x3::new(1f64, 2.0, 3.0, 4.0, 5.0, 6.0);
    assert_eq!(TensorRef::from(&fixed).as_slice(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(TensorRef::from(fixed.fixed_view::<2, 2>(0, 1)).as_slice(), [2.0, 3.0, 5.0, 6.0]);
    assert_eq!(TensorRef::from(m.view_with_steps((0, 0), (2, 2), (0, 1))).as_slice(), [1.0, 3.0, 4.0, 6.0]);
    let transposed = DMatrixView::from_slice_with_strides(m.as_slice(), 3, 2, 2, 1);
    assert_eq!(TensorRef::from(transposed).as_slice(), rows(&m.transpose()));
    for (rows, columns) in [(0, 3), (3, 0), (0, 0)] {
        let none = DMatrix::<f32>::zeros(rows, columns);
        assert_eq!(TensorRef::from(&none).shape(), [rows, columns]);
        assert!(TensorRef::from(none.as_view::<Dyn, Dyn, U1, Dyn>()).is_empty());
    }
}

#[test]
fn what_lies_in_logical_order_is_borrowed() {
    fn borrows<'a>(tensor: impl Into<TensorRef<'a, f32>>, at: &f32, shape: &[usize]) {
        let tensor = tensor.into();
        assert_eq!((tensor.as_slice().as_ptr(), tensor.shape()), (std::ptr::from_ref(at), shape));
    }
    let m = DMatrix::<f32>::from_fn(4, 3, |i, j| (i + 10 * j) as f32);
    let (v, r) = (DVector::<f32>::zeros(5), RowDVector::<f32>::zeros(5));
    borrows(&v, &v[0], &[5]);
    borrows(&r, &r[0], &[5]);
    let fixed = Vector3::<f32>::zeros();
    borrows(&fixed, &fixed[0], &[3]);
    borrows(m.column(1), &m[(0, 1)], &[4]);
    let column = m.column(1);
    borrows(TensorRef::from(&column), &m[(0, 1)], &[4]);
    borrows(v.rows(1, 3), &v[1], &[3]);
    borrows(v.fixed_rows::<3>(1), &v[1], &[3]);
    borrows(r.columns(1, 3), &r[1], &[3]);
    let (one_row, one_column) = (DMatrix::<f32>::zeros(1, 7), DMatrix::<f32>::zeros(7, 1));
    borrows(&one_row, &one_row[0], &[1, 7]);
    borrows(&one_column, &one_column[0], &[7, 1]);

    let mut m = m;
    let at: *const f32 = &m[(0, 2)];
    assert_eq!(TensorMut::from(m.column_mut(2)).as_slice().as_ptr(), at);
    assert_eq!(TensorMut::from(&mut m.column_mut(2)).as_slice().as_ptr(), at);
    let mut r = r;
    let at: *const f32 = &r[2];
    assert_eq!(TensorMut::from(r.columns_mut(2, 2)).as_slice().as_ptr(), at);
}

/// One step of an optimizer on matrices is that on their rows, for any type of matrix.
fn steps_as_slices<T: Element, O: Optimizer<T>>(optimizer: &O, (r, c): (usize, usize)) {
    let (w, g) = (numbers::<T>(r * c), numbers::<T>(r * c).into_iter().rev().collect::<Vec<_>>());
    let mut want = w.clone();
    let shape = [r, c];
    let mut state = optimizer.init(TensorRef::new(&w, &shape).unwrap()).unwrap();
    let mut matrix = DMatrix::from_row_slice(r, c, &w);
    let mut large = DMatrix::from_element(2 * r + 1, c + 3, T::from_f64(7.0));
    large.view_with_steps_mut((1, 2), (r, c), (1, 0)).copy_from(&matrix);
    let mut gradient = OMatrix::<T, Dyn, Dyn>::from_element(r, c, T::default());
    TensorMut::from(&mut gradient).as_mut_slice().copy_from_slice(&g);
    let (mut of_matrix, mut of_view) = (optimizer.init(&matrix).unwrap(), optimizer.init(&matrix).unwrap());
    for _ in 0..3 {
        let (param, gradient_rows) = (TensorMut::new(&mut want, &shape).unwrap(), TensorRef::new(&g, &shape).unwrap());
        optimizer.step(Step::new(param, gradient_rows, &mut state)).unwrap();
        optimizer.step(Step::new(&mut matrix, &gradient, &mut of_matrix)).unwrap();
        let view = large.view_with_steps_mut((1, 2), (r, c), (1, 0));
        optimizer.step(Step::new(view, &gradient, &mut of_view)).unwrap();
    }
    assert_eq!(rows(&matrix), want);
    assert_eq!(rows(&large.view_with_steps((1, 2), (r, c), (1, 0))), want);
    assert_eq!((of_matrix, of_view), (state.clone(), state));
    let outside = large.iter().filter(|x| **x == T::from_f64(7.0)).count();
    assert!(outside >= large.len() - r * c, "wrote outside the view");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn steps_have_the_bits_of_those_on_slices(r in 1usize..70, c in 1usize..70) {
        let (adamw, adafactor) = (AdamW::new(0.1).unwrap(), Adafactor::new(0.1).unwrap());
        steps_as_slices::<f32, _>(&adamw, (r, c));
        steps_as_slices::<f64, _>(&adamw, (r, c));
        steps_as_slices::<f16, _>(&adamw, (r, c));
        steps_as_slices::<bf16, _>(&adamw, (r, c));
        steps_as_slices::<f32, _>(&adafactor, (r, c));
    }

    #[test]
    fn matrices_quantize_and_come_back(r in 1usize..70, c in 1usize..70) {
        let values = numbers::<f32>(r * c);
        let matrix = DMatrix::from_row_slice(r, c, &values);
        let scheme = MinMax::new(4).unwrap().per_channel(0);
        let q = scheme.quantize(&matrix).unwrap();
        prop_assert_eq!(&q, &scheme.quantize(TensorRef::new(&values, &[r, c]).unwrap()).unwrap());
        let back = q.to_matrix::<f64>().unwrap();
        prop_assert_eq!(rows(&back), q.dequantize::<f64>());
        prop_assert_eq!(back.shape(), (r, c));
    }
}

#[test]
fn static_sizes_step_and_prune() {
    let adamw = AdamW::new(0.1).unwrap();
    let mut fixed = SMatrix::<f32, 2, 3>::from_row_slice(&numbers(6));
    let mut dynamic = DMatrix::from_row_slice(2, 3, &numbers(6));
    let (mut a, mut b) = (adamw.init(&fixed).unwrap(), adamw.init(&dynamic).unwrap());
    let gradient = fixed;
    adamw.step(Step::new(&mut fixed, &gradient, &mut a)).unwrap();
    adamw.step(Step::new(&mut dynamic, &gradient, &mut b)).unwrap();
    assert_eq!(rows(&fixed), rows(&dynamic));
    let mask = Magnitude::sparsity(0.5).unwrap().mask(&fixed).unwrap();
    let pruned: Vec<f32> =
        rows(&fixed).iter().enumerate().map(|(i, &x)| if mask.get(i) == Some(true) { x } else { 0.0 }).collect();
    mask.apply(&mut fixed).unwrap();
    assert_eq!(rows(&fixed), pruned);
    let mut part = SMatrix::<f32, 4, 4>::repeat(1.0);
    mask.apply(part.fixed_view_mut::<2, 3>(1, 1)).unwrap();
    assert_eq!((part.sum(), part.row(0).sum(), part.column(0).sum()), (13.0, 4.0, 4.0));
    let view = part.generic_view_mut((0, 0), (Const::<2>, U3));
    assert_eq!(TensorMut::from(view).shape(), [2, 3]);
}

#[test]
fn columns_of_the_transpose_step_without_a_copy() {
    let adamw = AdamW::new(0.1).unwrap();
    let mut matrix = DMatrix::from_row_slice(3, 5, &numbers::<f64>(15));
    let (mut other, gradient) = (matrix.clone(), matrix.map(|x| x * x));
    let mut state = adamw.init(&matrix).unwrap();
    adamw.step(Step::new(&mut other, &gradient, &mut state)).unwrap();
    let columns = [5, 3];
    let mut state = adamw.init(TensorRef::new(matrix.as_slice(), &columns).unwrap()).unwrap();
    let param = TensorMut::new(matrix.as_mut_slice(), &columns).unwrap();
    adamw.step(Step::new(param, TensorRef::new(gradient.as_slice(), &columns).unwrap(), &mut state)).unwrap();
    assert_eq!(matrix, other);
}

#[test]
fn an_error_leaves_a_matrix_as_it_was() {
    let before = DMatrix::from_row_slice(3, 2, &numbers::<f32>(6));
    let mut m = before.clone();
    let mask = Mask::keep_all(&[2, 3]).unwrap();
    assert!(mask.apply(&mut m).is_err());
    let view: DMatrixViewMut<'_, f32> = m.as_view_mut();
    assert!(mask.apply(view).is_err());
    assert_eq!(m, before);
    let cube = MinMax::new(4).unwrap().quantize(TensorRef::new(&[0f32; 8], &[2, 2, 2]).unwrap()).unwrap();
    assert_eq!(cube.to_matrix::<f32>().unwrap_err().kind(), ErrorKind::Argument);
    let vector = MinMax::new(8).unwrap().quantize(&[0f32, 1.0, 3.0]).unwrap();
    assert_eq!(vector.to_matrix::<f32>().unwrap().shape(), (3, 1));
}
