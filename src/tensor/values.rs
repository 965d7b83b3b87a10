//! A flat array of `f32` or `f64`, the type chosen at run time.

use super::view::filled;
use crate::{
    element::{DType, Real},
    error::Result,
    kernel::grid::Numbers,
};
use std::any::Any;

/// Numbers a tensor keeps beside its elements: optimizer state, the ranges of quantized groups.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// 32-bit numbers.
    F32(Vec<f32>),
    /// 64-bit numbers.
    F64(Vec<f64>),
}

impl Values {
    /// `len` copies of `value`, narrowed to `R`.
    pub(crate) fn filled<R: Real>(len: usize, value: f64) -> Result<Self> {
        Ok(match R::DTYPE {
            DType::F64 => Self::F64(filled(len, value)?),
            _ => Self::F32(filled(len, value as f32)?),
        })
    }

    /// The type of the numbers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
        }
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at an index, widened; `None` past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<f64> {
        match self {
            Self::F32(values) => values.get(index).copied().map(f64::from),
            Self::F64(values) => values.get(index).copied(),
        }
    }

    pub(crate) fn numbers(&self) -> Numbers<'_> {
        match self {
            Self::F32(values) => Numbers::F32(values),
            Self::F64(values) => Numbers::F64(values),
        }
    }

    /// Bytes the numbers take.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.len() * self.dtype().size()
    }

    /// As a slice, when the type is `R`.
    #[must_use]
    pub fn as_slice<R: Real>(&self) -> Option<&[R]> {
        match self {
            Self::F32(values) => (values as &dyn Any).downcast_ref::<Vec<R>>(),
            Self::F64(values) => (values as &dyn Any).downcast_ref::<Vec<R>>(),
        }
        .map(Vec::as_slice)
    }

    /// As a slice to change, when the type is `R`.
    pub(crate) fn as_mut_slice<R: Real>(&mut self) -> Option<&mut [R]> {
        match self {
            Self::F32(values) => (values as &mut dyn Any).downcast_mut::<Vec<R>>(),
            Self::F64(values) => (values as &mut dyn Any).downcast_mut::<Vec<R>>(),
        }
        .map(Vec::as_mut_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_only_its_own_type() {
        let mut values = Values::filled::<f64>(3, 0.1).unwrap();
        assert_eq!(values.as_slice::<f64>(), Some(&[0.1; 3][..]));
        assert!(values.as_mut_slice::<f32>().is_none());
        assert_eq!((values.get(2), values.get(3), values.byte_size()), (Some(0.1), None, 24));
        assert_eq!(Values::filled::<f32>(1, 0.1).unwrap().get(0), Some(f64::from(0.1f32)));
    }
}
