//! Tensors whose element type is chosen at run time.

use super::view::{Dims, TensorMut, TensorRef};
use crate::{
    element::{AnyCow, AnySlice, AnySliceMut, Element, Real},
    error::Result,
    tensor::qtensor::check_finite,
};
use half::{bf16, f16};

/// A tensor to read, of any type whose arithmetic is done in `R`.
#[derive(Debug)]
pub(crate) struct AnyRef<'a, R: Real> {
    data: AnyCow<'a, R>,
    dims: Dims,
}

impl<'a, R: Real> AnyRef<'a, R> {
    pub(crate) fn new<T: Element<Real = R>>(tensor: TensorRef<'a, T>) -> Self {
        let (data, dims) = tensor.into_parts();
        Self { data: T::any_cow(data), dims }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.dims
    }

    pub(crate) fn as_slice(&self) -> AnySlice<'_, R> {
        self.data.as_slice()
    }

    /// The same, borrowed.
    pub(crate) fn reborrow(&self) -> AnyRef<'_, R> {
        let data = match self.as_slice() {
            AnySlice::Real(values) => AnyCow::Real(values.into()),
            AnySlice::F16(values) => AnyCow::F16(values.into()),
            AnySlice::Bf16(values) => AnyCow::Bf16(values.into()),
        };
        AnyRef { data, dims: Dims::from_slice(&self.dims) }
    }

    /// An error that names the first element that is NaN or infinite.
    pub(crate) fn check_finite(&self, what: &'static str) -> Result<()> {
        match self.as_slice() {
            AnySlice::Real(values) => check_finite(what, values),
            AnySlice::F16(values) => check_finite(what, values),
            AnySlice::Bf16(values) => check_finite(what, values),
        }
    }
}

/// A tensor of 16-bit numbers to write.
#[derive(Debug)]
pub(crate) enum HalfMut<'a> {
    F16(TensorMut<'a, f16>),
    Bf16(TensorMut<'a, bf16>),
}

impl HalfMut<'_> {
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::F16(tensor) => tensor.shape(),
            Self::Bf16(tensor) => tensor.shape(),
        }
    }

    pub(crate) fn as_mut_slice<R>(&mut self) -> AnySliceMut<'_, R> {
        match self {
            Self::F16(tensor) => AnySliceMut::F16(tensor.as_mut_slice()),
            Self::Bf16(tensor) => AnySliceMut::Bf16(tensor.as_mut_slice()),
        }
    }

    /// The same, borrowed.
    pub(crate) fn reborrow(&mut self) -> HalfMut<'_> {
        match self {
            Self::F16(tensor) => HalfMut::F16(tensor.into()),
            Self::Bf16(tensor) => HalfMut::Bf16(tensor.into()),
        }
    }
}

impl<'a> From<TensorMut<'a, f16>> for HalfMut<'a> {
    fn from(tensor: TensorMut<'a, f16>) -> Self {
        Self::F16(tensor)
    }
}

impl<'a> From<TensorMut<'a, bf16>> for HalfMut<'a> {
    fn from(tensor: TensorMut<'a, bf16>) -> Self {
        Self::Bf16(tensor)
    }
}
