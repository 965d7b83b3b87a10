//! The element types of candle that are elements here.

use crate::{element::Element, error::Error};
use candle_core::{CpuStorage, DType, WithDType};
use half::{bf16, f16};

/// An element that candle and this crate share: `f32`, `f64`, `f16` or `bf16`.
pub trait Scalar: Element + WithDType {
    /// The elements of a storage of this type, to change. candle itself has them to read only.
    #[doc(hidden)]
    fn storage_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! scalar {
    ($($type:ty, $variant:ident);*) => {$(
        impl Scalar for $type {
            fn storage_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$variant(elements) = storage { Some(elements) } else { None }
            }
        }
    )*};
}

scalar!(f32, F32; f64, F64; f16, F16; bf16, BF16);

/// Calls a function that is generic over a [`Scalar`] by a type that is known at run time.
macro_rules! by_dtype {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            candle_core::DType::F32 => $function::<f32>($($argument),*),
            candle_core::DType::F64 => $function::<f64>($($argument),*),
            candle_core::DType::F16 => $function::<half::f16>($($argument),*),
            candle_core::DType::BF16 => $function::<half::bf16>($($argument),*),
            other => Err($crate::backend::candle::scalar::wrong_type(other, "f32, f64, f16 or bf16").into()),
        }
    };
}
pub(super) use by_dtype;

/// What candle calls a type.
pub(super) fn name<T: Scalar>() -> &'static str {
    <T as WithDType>::DTYPE.as_str()
}

/// A tensor's elements are of the type `found` where others are `needed`.
pub(super) fn wrong_type(found: DType, needed: &'static str) -> Error {
    Error::argument("element type", found.as_str(), needed)
}
