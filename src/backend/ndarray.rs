//! `ndarray` arrays and views, in any dimension and memory order, as tensors.
//!
//! Standard layout (row-major, no gaps) is borrowed. Any other layout is copied into logical order;
//! a tensor to change is written back when it is dropped.

use crate::{
    element::Element,
    tensor::{QTensor, TensorMut, TensorRef, view::Dims},
};
use ndarray::{ArrayBase, ArrayD, ArrayView, ArrayViewMut, Data, DataMut, Dimension};
use std::borrow::Cow;

impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for TensorRef<'a, T> {
    fn from(view: ArrayView<'a, T, D>) -> Self {
        let dims = Dims::from_slice(view.shape());
        match view.to_slice() {
            Some(slice) => Self::from_parts(Cow::Borrowed(slice), dims),
            None => Self::from_parts(Cow::Owned(view.iter().copied().collect()), dims),
        }
    }
}

impl<'a, T: Element, S: Data<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for TensorRef<'a, T> {
    fn from(array: &'a ArrayBase<S, D>) -> Self {
        array.view().into()
    }
}

impl<'a, T: Element, D: Dimension + 'a> From<ArrayViewMut<'a, T, D>> for TensorMut<'a, T> {
    fn from(view: ArrayViewMut<'a, T, D>) -> Self {
        let dims = Dims::from_slice(view.shape());
        if view.is_standard_layout() {
            // `Some`, in this layout.
            return Self::borrowed(view.into_slice().unwrap_or_default(), dims);
        }
        let copy = view.iter().copied().collect();
        let mut view = view;
        let write_back = move |copy: &[T]| view.iter_mut().zip(copy).for_each(|(to, from)| *to = *from);
        Self::staged(copy, dims, Box::new(write_back))
    }
}

impl<'a, T: Element, S: DataMut<Elem = T>, D: Dimension + 'a> From<&'a mut ArrayBase<S, D>> for TensorMut<'a, T> {
    fn from(array: &'a mut ArrayBase<S, D>) -> Self {
        array.view_mut().into()
    }
}

impl QTensor {
    /// The decoded values as an array. Needs the feature `ndarray`.
    #[must_use]
    pub fn to_array<T: Element>(&self) -> ArrayD<T> {
        let mut array = ArrayD::from_elem(self.shape(), T::default());
        self.decode(array.as_slice_mut().unwrap_or_default());
        array
    }
}
