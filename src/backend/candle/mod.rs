//! [candle](https://docs.rs/candle-core): its variables stepped, its tensors quantized and pruned.

mod nn;
mod qat;
mod scalar;
mod strided;
mod tensor;
mod vars;

pub use qat::{fake_quantize, lsq};
pub use scalar::Scalar;
pub use tensor::{View, edit, view};
pub use vars::VarParams;

use crate::error::Error;

/// As [`Runtime`](crate::ErrorKind::Runtime), with candle's words.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::runtime("candle", error)
    }
}

/// Wrapped, with the same words.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        Self::wrap(error)
    }
}
