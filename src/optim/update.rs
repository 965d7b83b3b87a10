//! What one step is given of one parameter.

use crate::{
    element::Element,
    error::Result,
    tensor::{
        TensorMut, TensorRef,
        any::{AnyRef, HalfMut},
    },
};
use half::{bf16, f16};

/// A parameter's material for one step, in the order the parameters were added.
#[derive(Debug)]
pub struct Update<'a, T: Element> {
    pub(super) param: Place<'a, T>,
    pub(super) grad: Option<AnyRef<'a, T::Real>>,
    pub(super) copy: Option<HalfMut<'a>>,
}

impl<'a, T: Element> Update<'a, T> {
    /// A parameter and its gradient, of the same shape.
    pub fn new(param: impl Into<TensorMut<'a, T>>, grad: impl Into<TensorRef<'a, T>>) -> Self {
        Self::mixed(param, grad)
    }

    /// As [`new`](Update::new), with a gradient of another type, as [`Step::mixed`](crate::Step::mixed).
    pub fn mixed<G: Element<Real = T::Real>>(
        param: impl Into<TensorMut<'a, T>>,
        grad: impl Into<TensorRef<'a, G>>,
    ) -> Self {
        Self { param: Place::Here(param.into()), grad: Some(AnyRef::new(grad.into())), copy: None }
    }

    /// A parameter and its gradient as slices of a shape.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when one has another number of elements.
    pub fn shaped(param: &'a mut [T], grad: &'a [T], shape: &[usize]) -> Result<Self> {
        Ok(Self::new(TensorMut::new(param, shape)?, TensorRef::new(grad, shape)?))
    }

    /// A parameter that got no gradient: it does not move, and its count of steps stays.
    pub fn skipped(param: impl Into<TensorMut<'a, T>>) -> Self {
        Self { param: Place::Here(param.into()), grad: None, copy: None }
    }
}

impl<'a, T: Element<Real = f32>> Update<'a, T> {
    /// Writes the new parameter to `copy` too, as [`Step::copy_to_bf16`](crate::Step::copy_to_bf16).
    #[must_use]
    pub fn copy_to_bf16(self, copy: impl Into<TensorMut<'a, bf16>>) -> Self {
        Self { copy: Some(copy.into().into()), ..self }
    }

    /// Writes the new parameter to `copy` too, as [`Step::copy_to_f16`](crate::Step::copy_to_f16).
    #[must_use]
    pub fn copy_to_f16(self, copy: impl Into<TensorMut<'a, f16>>) -> Self {
        Self { copy: Some(copy.into().into()), ..self }
    }
}

/// A parameter's elements: borrowed for the whole step, or behind a lock that is taken only while this parameter moves.
#[derive(Debug)]
pub(super) enum Place<'a, T: Element> {
    Here(TensorMut<'a, T>),
    #[cfg(feature = "candle")]
    Locked(&'a dyn Locked<T>),
}

impl<T: Element> Place<'_, T> {
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Here(tensor) => tensor.shape(),
            #[cfg(feature = "candle")]
            Self::Locked(tensor) => tensor.shape(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Here(tensor) => tensor.len(),
            #[cfg(feature = "candle")]
            Self::Locked(tensor) => tensor.len(),
        }
    }

    /// Lends the elements to `step`.
    pub(super) fn with(&mut self, step: &mut dyn FnMut(TensorMut<'_, T>) -> Result<()>) -> Result<()> {
        match self {
            Self::Here(tensor) => step(tensor.into()),
            #[cfg(feature = "candle")]
            Self::Locked(tensor) => tensor.with(step),
        }
    }
}

/// A parameter behind a lock of its own. Only [`Params`](super::Params) opens it, one parameter at a time a thread, when all
/// checks have passed: there must be nothing left that opening it could refuse.
#[cfg(feature = "candle")]
pub(crate) trait Locked<T: Element>: std::fmt::Debug + Sync {
    fn shape(&self) -> &[usize];

    fn len(&self) -> usize;

    /// Calls `step` with the elements.
    fn with(&self, step: &mut dyn FnMut(TensorMut<'_, T>) -> Result<()>) -> Result<()>;
}

#[cfg(feature = "candle")]
impl<'a, T: Element> Update<'a, T> {
    /// As [`new`](Update::new), of a parameter behind a lock. Without a gradient, [`skipped`](Update::skipped).
    pub(crate) fn locked(param: &'a dyn Locked<T>, grad: Option<TensorRef<'a, T>>) -> Self {
        Self { param: Place::Locked(param), grad: grad.map(AnyRef::new), copy: None }
    }
}
