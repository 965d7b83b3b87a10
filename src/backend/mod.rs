//! Tensor libraries: one file or folder and one feature each. What needs no name of its own is conversions: see
//! [`TensorRef`](crate::TensorRef).

#[cfg(feature = "candle")]
pub mod candle;
#[cfg(feature = "ndarray")]
mod ndarray;
#[cfg(feature = "sprs")]
mod sprs;
