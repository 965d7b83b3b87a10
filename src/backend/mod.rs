//! Tensor libraries: one file or folder and one feature each. What needs no name of its own is conversions: see
//! [`TensorRef`](crate::TensorRef).

#[cfg(feature = "burn")]
pub mod burn;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(feature = "nalgebra")]
mod nalgebra;
#[cfg(feature = "ndarray")]
mod ndarray;
#[cfg(feature = "sprs")]
mod sprs;
