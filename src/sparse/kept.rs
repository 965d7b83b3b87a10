//! The stored elements of a sparse matrix.

use crate::{
    element::{AnySlice, Element},
    error::{Error, Result},
    kernel::sparse::Numbers,
    tensor::QTensor,
};
use half::{bf16, f16};
use std::any::Any;

/// The stored elements of a [`Sparse`](super::Sparse) matrix, in the order of its form.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Kept {
    /// As 32-bit numbers.
    F32(Vec<f32>),
    /// As 16-bit numbers.
    F16(Vec<f16>),
    /// As the upper halves of 32-bit numbers.
    Bf16(Vec<bf16>),
    /// As codes, in a tensor of one axis.
    Quantized(QTensor),
}

impl From<Vec<f32>> for Kept {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values)
    }
}

impl From<Vec<f16>> for Kept {
    fn from(values: Vec<f16>) -> Self {
        Self::F16(values)
    }
}

impl From<Vec<bf16>> for Kept {
    fn from(values: Vec<bf16>) -> Self {
        Self::Bf16(values)
    }
}

impl From<QTensor> for Kept {
    fn from(q: QTensor) -> Self {
        Self::Quantized(q)
    }
}

impl Kept {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Quantized(q) => q.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes they take, levels included.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(&**values),
            Self::F16(values) => size_of_val(&**values),
            Self::Bf16(values) => size_of_val(&**values),
            Self::Quantized(q) => q.byte_size(),
        }
    }

    /// The elements as `T`, rounded once where it is narrower.
    #[must_use]
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        #[expect(clippy::ptr_arg, reason = "what is compared is the type of the whole")]
        fn convert<S: Element, T: Element>(values: &Vec<S>) -> Vec<T> {
            // Of the same type every bit stays, of a NaN too.
            let same = (values as &dyn Any).downcast_ref::<Vec<T>>();
            same.cloned().unwrap_or_else(|| values.iter().map(|x| T::from_f64(x.to_f64())).collect())
        }
        match self {
            Self::F32(values) => convert(values),
            Self::F16(values) => convert(values),
            Self::Bf16(values) => convert(values),
            Self::Quantized(q) => q.dequantize(),
        }
    }

    /// An error unless they are `len`, along one axis.
    pub(super) fn check(&self, len: usize) -> Result<()> {
        match self {
            Self::Quantized(q) if q.shape() != [len] => Err(Error::shape("stored elements", &[len], q.shape())),
            kept if kept.len() != len => Err(Error::shape("stored elements", &[len], &[kept.len()])),
            _ => Ok(()),
        }
    }

    /// Those at the indices of `places`; [`ABSENT`] is 0.
    pub(super) fn pick(self, places: &[u32]) -> Result<Self> {
        fn of<T: Copy + Default>(values: &[T], places: &[u32]) -> Vec<T> {
            places.iter().map(|&place| values.get(place as usize).copied().unwrap_or_default()).collect()
        }
        if places.len() == self.len() && (0..).zip(places).all(|(i, &place)| i == place) {
            return Ok(self);
        }
        Ok(match self {
            Self::F32(values) => Self::F32(of(&values, places)),
            Self::F16(values) => Self::F16(of(&values, places)),
            Self::Bf16(values) => Self::Bf16(of(&values, places)),
            Self::Quantized(_) => {
                let needed = "numbers, for a form that stores other elements, or in another order: quantize afterwards";
                return Err(Error::argument("stored elements", "codes", needed));
            }
        })
    }

    pub(super) fn numbers(&self) -> Numbers<'_> {
        match self {
            Self::F32(values) => Numbers::Any(AnySlice::Real(values)),
            Self::F16(values) => Numbers::Any(AnySlice::F16(values)),
            Self::Bf16(values) => Numbers::Any(AnySlice::Bf16(values)),
            Self::Quantized(q) => {
                let (layout, levels, packed) = q.parts();
                Numbers::Codes { layout, levels, packed }
            }
        }
    }
}

/// No element: more than a matrix may store.
pub(super) const ABSENT: u32 = u32::MAX;
