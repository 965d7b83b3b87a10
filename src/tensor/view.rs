//! Borrowed tensors: elements in logical (row-major) order, and a shape.

use crate::{
    element::Element,
    error::{Error, Result},
};
use smallvec::SmallVec;
use std::borrow::Cow;

/// The dimensions of a tensor, the last one contiguous. Six fit without allocating.
pub(crate) type Dims = SmallVec<[usize; 6]>;

/// A tensor to read: a slice, a `Vec`, or (feature `ndarray`) an array view in any dimension, (feature `nalgebra`) a matrix or vector.
///
/// Elements are in logical order, the last axis fastest. A view that is not laid out so (a transposed
/// or Fortran-order array, one with gaps or negative strides, a matrix of `nalgebra`) is **copied** when it is converted.
///
/// ```
/// use lapidary::TensorRef;
/// let weights = vec![0.5f32, -1.0, 2.0, 0.0, 1.0, 3.0];
/// let tensor = TensorRef::new(&weights, &[2, 3])?;
/// assert_eq!((tensor.shape(), tensor.len()), (&[2, 3][..], 6));
/// assert_eq!(TensorRef::from(&weights).shape(), [6]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TensorRef<'a, T: Element> {
    data: Cow<'a, [T]>,
    dims: Dims,
}

impl<'a, T: Element> TensorRef<'a, T> {
    /// A view of `data` with the given shape.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the product of `shape` is not the length of `data`.
    pub fn new(data: &'a [T], shape: &[usize]) -> Result<Self> {
        check_len(data.len(), shape)?;
        Ok(Self { data: Cow::Borrowed(data), dims: shape.into() })
    }

    /// `data` has as many elements as `dims` says.
    pub(crate) fn from_parts(data: Cow<'a, [T]>, dims: Dims) -> Self {
        debug_assert!(check_len(data.len(), &dims).is_ok());
        Self { data, dims }
    }

    /// The elements and the shape.
    pub(crate) fn into_parts(self) -> (Cow<'a, [T]>, Dims) {
        (self.data, self.dims)
    }

    /// The elements in logical order.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.data
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.dims
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

/// A tensor to change in place: a slice, a `Vec`, or (feature `ndarray`) an array view, (feature `nalgebra`) a matrix or vector.
///
/// A view that is not in logical order is **copied** when it is converted and written back when the
/// tensor is dropped.
///
/// ```
/// use lapidary::TensorMut;
/// let mut weights = vec![0.5f32; 6];
/// TensorMut::new(&mut weights, &[2, 3])?.as_mut_slice()[5] = 1.0;
/// assert_eq!(weights[5], 1.0);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// A matrix of `nalgebra` lies column after column, so it is copied, but for vectors (one axis) and single rows or columns. What does
/// not ask which element is where (an element-wise optimizer, clipping) can work on the columns instead, which are the rows of the
/// transpose:
///
/// ```
/// # #[cfg(feature = "nalgebra")] {
/// use lapidary::{Optimizer, OptimizerExt, Step, TensorMut, TensorRef, nalgebra::DMatrix, optim::AdamW};
/// let (mut weights, gradient) = (DMatrix::from_element(3, 2, 0.5f32), DMatrix::from_element(3, 2, 1.0));
/// let adamw = AdamW::new(0.1)?;
/// let mut state = adamw.init(&weights)?;
/// adamw.step(Step::new(&mut weights, &gradient, &mut state))?; // copied, stepped, written back
///
/// let mut state = adamw.init(TensorRef::new(weights.as_slice(), &[2, 3])?)?;
/// let param = TensorMut::new(weights.as_mut_slice(), &[2, 3])?;
/// adamw.step(Step::new(param, TensorRef::new(gradient.as_slice(), &[2, 3])?, &mut state))?; // in place
/// assert!(weights[(2, 1)] < 0.31);
/// # }
/// # Ok::<(), lapidary::Error>(())
/// ```
pub struct TensorMut<'a, T: Element> {
    data: Data<'a, T>,
    dims: Dims,
}

enum Data<'a, T: Element> {
    Borrowed(&'a mut [T]),
    #[cfg(any(feature = "nalgebra", feature = "ndarray"))]
    Staged(Staged<'a, T>),
}

/// Writes the elements back to where they came from.
#[cfg(any(feature = "nalgebra", feature = "ndarray"))]
pub(crate) type WriteBack<'a, T> = Box<dyn FnMut(&[T]) + Send + Sync + 'a>;

#[cfg(any(feature = "nalgebra", feature = "ndarray"))]
struct Staged<'a, T: Element> {
    copy: Vec<T>,
    write_back: WriteBack<'a, T>,
}

#[cfg(any(feature = "nalgebra", feature = "ndarray"))]
impl<T: Element> Drop for Staged<'_, T> {
    fn drop(&mut self) {
        (self.write_back)(&self.copy);
    }
}

impl<'a, T: Element> TensorMut<'a, T> {
    /// A view of `data` with the given shape.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the product of `shape` is not the length of `data`.
    pub fn new(data: &'a mut [T], shape: &[usize]) -> Result<Self> {
        check_len(data.len(), shape)?;
        Ok(Self { data: Data::Borrowed(data), dims: shape.into() })
    }

    /// `data` has as many elements as `dims` says.
    #[cfg(any(feature = "nalgebra", feature = "ndarray"))]
    pub(crate) fn borrowed(data: &'a mut [T], dims: Dims) -> Self {
        debug_assert!(check_len(data.len(), &dims).is_ok());
        Self { data: Data::Borrowed(data), dims }
    }

    /// A copy that `write_back` takes home when the tensor is dropped.
    #[cfg(any(feature = "nalgebra", feature = "ndarray"))]
    pub(crate) fn staged(copy: Vec<T>, dims: Dims, write_back: WriteBack<'a, T>) -> Self {
        debug_assert!(check_len(copy.len(), &dims).is_ok());
        Self { data: Data::Staged(Staged { copy, write_back }), dims }
    }

    /// The elements in logical order.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match &self.data {
            Data::Borrowed(data) => data,
            #[cfg(any(feature = "nalgebra", feature = "ndarray"))]
            Data::Staged(staged) => &staged.copy,
        }
    }

    /// The elements in logical order, to change.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.parts_mut().1
    }

    /// The shape, and the elements to change.
    pub(crate) fn parts_mut(&mut self) -> (&[usize], &mut [T]) {
        let data = match &mut self.data {
            Data::Borrowed(data) => &mut **data,
            #[cfg(any(feature = "nalgebra", feature = "ndarray"))]
            Data::Staged(staged) => &mut staged.copy,
        };
        (&self.dims, data)
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.dims
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Element> std::fmt::Debug for TensorMut<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorMut").field("data", &self.as_slice()).field("dims", &self.dims).finish()
    }
}

/// The number of elements of a shape, where it fits a `usize`.
pub(crate) fn volume(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))
}

/// The number of elements of `shape`, or an error that says it is too large.
pub(crate) fn checked_volume(shape: &[usize]) -> Result<usize> {
    volume(shape).ok_or_else(|| Error::argument("shape", format!("{shape:?}"), "of fewer than 2^64 elements"))
}

/// `len` copies of `value`, or an error where memory does not hold them.
pub(crate) fn filled<T: Clone>(len: usize, value: T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let reserved = values.try_reserve_exact(len);
    reserved.map_err(|_| Error::argument("shape", format!("one of {len} elements"), "one that memory holds"))?;
    values.resize(len, value);
    Ok(values)
}

fn check_len(len: usize, shape: &[usize]) -> Result<()> {
    if volume(shape) == Some(len) { Ok(()) } else { Err(Error::shape("data", shape, &[len])) }
}

macro_rules! from_slices {
    ($($source:ty, [$($generics:tt)*]);*) => {$(
        impl<'a, T: Element, $($generics)*> From<&'a $source> for TensorRef<'a, T> {
            fn from(data: &'a $source) -> Self {
                Self { data: Cow::Borrowed(data), dims: Dims::from_slice(&[data.len()]) }
            }
        }
        impl<'a, T: Element, $($generics)*> From<&'a mut $source> for TensorMut<'a, T> {
            fn from(data: &'a mut $source) -> Self {
                let dims = Dims::from_slice(&[data.len()]);
                Self { data: Data::Borrowed(data), dims }
            }
        }
    )*};
}

from_slices!([T], []; Vec<T>, []; [T; N], [const N: usize]);

impl<'a, T: Element> From<&'a TensorRef<'_, T>> for TensorRef<'a, T> {
    fn from(tensor: &'a TensorRef<'_, T>) -> Self {
        Self { data: Cow::Borrowed(tensor.as_slice()), dims: Dims::from_slice(&tensor.dims) }
    }
}

impl<'a, T: Element> From<&'a TensorMut<'_, T>> for TensorRef<'a, T> {
    fn from(tensor: &'a TensorMut<'_, T>) -> Self {
        Self { data: Cow::Borrowed(tensor.as_slice()), dims: Dims::from_slice(&tensor.dims) }
    }
}

impl<'a, T: Element> From<&'a mut TensorMut<'_, T>> for TensorMut<'a, T> {
    fn from(tensor: &'a mut TensorMut<'_, T>) -> Self {
        let dims = Dims::from_slice(&tensor.dims);
        Self { data: Data::Borrowed(tensor.as_mut_slice()), dims }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_does_not_fit_is_refused() {
        let mut data = [0f32; 6];
        for shape in [&[7][..], &[2, 2], &[], &[usize::MAX, 2], &[0, usize::MAX, 3]] {
            assert!(TensorRef::new(&data, shape).is_err(), "{shape:?}");
            assert!(TensorMut::new(&mut data, shape).is_err(), "{shape:?}");
        }
        assert!(TensorRef::new(&data, &[1, 2, 3, 1, 1, 1, 1]).is_ok());
        assert_eq!(TensorRef::new(&data[..1], &[]).unwrap().len(), 1);
        assert!(TensorRef::<f32>::new(&[], &[0, usize::MAX, usize::MAX]).unwrap().is_empty());
    }

    #[test]
    fn views_cross_threads() {
        fn assert<T: Send>() {}
        assert::<TensorRef<'_, f32>>();
        assert::<TensorMut<'_, f32>>();
    }
}
