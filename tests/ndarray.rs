//! Arrays and views of any layout, as tensors.
#![cfg(feature = "ndarray")]

use lapidary::{Mask, Optimizer, OptimizerExt, QuantizerExt, Step, TensorRef, optim::Sgd, quant::MinMax};
use ndarray::{Array, Array2, Array4, ArrayViewMut, ShapeBuilder, arr0, array, s};

#[test]
fn every_layout_is_seen_in_logical_order() {
    let a = array![[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    assert_eq!(TensorRef::from(&a).as_slice(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(TensorRef::from(a.t()).as_slice(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(TensorRef::from(a.slice(s![..;-1, ..;2])).as_slice(), [4.0, 6.0, 1.0, 3.0]);
    let wide = a.broadcast((2, 2, 3)).unwrap();
    assert_eq!((TensorRef::from(wide).len(), TensorRef::from(wide).shape()), (12, &[2, 2, 3][..]));
    assert_eq!(TensorRef::from(&arr0(7f64)).shape(), &[] as &[usize]);
    assert!(TensorRef::from(&Array4::<f32>::zeros((2, 0, 3, 1))).is_empty());
}

#[test]
fn a_step_moves_any_view_in_place() {
    let sgd = Sgd::new(1.0).unwrap();
    let gradient = Array2::from_shape_fn((2, 3), |(i, j)| (i * 3 + j) as f32);
    let want = gradient.map(|g| -g);
    let step = |view: ArrayViewMut<'_, f32, ndarray::Ix2>| {
        let mut state = sgd.init(&gradient).unwrap();
        sgd.step(Step::new(view, &gradient, &mut state)).unwrap();
    };
    let mut plain = Array2::zeros((2, 3));
    step(plain.view_mut());
    assert_eq!(plain, want);
    let mut fortran = Array::zeros((2, 3).f());
    step(fortran.view_mut());
    assert_eq!(fortran, want);
    let mut large = Array2::from_elem((5, 9), 0.0);
    step(large.slice_mut(s![1..5;2, 2..8;2]));
    assert_eq!(large.slice(s![1..5;2, 2..8;2]), want);
    assert_eq!(large.sum(), want.sum());
}

#[test]
fn an_error_leaves_a_copied_view_as_it_was() {
    let mut a = Array2::<f32>::ones((3, 2));
    let mask = Mask::keep_all(&[3, 2]).unwrap();
    assert!(mask.apply(a.view_mut().reversed_axes()).is_err());
    assert_eq!(a, Array2::<f32>::ones((3, 2)));
}

#[test]
fn arrays_quantize_and_come_back() {
    let a = Array::from_shape_fn((4, 3, 2), |(i, j, k)| (i + 2 * j + 3 * k) as f64);
    let q = MinMax::new(8).unwrap().per_channel(0).quantize(&a).unwrap();
    let back = q.to_array::<f64>();
    assert_eq!(back.shape(), [4, 3, 2]);
    assert!((back - a.into_dyn()).iter().all(|d| d.abs() <= 0.02));
}
