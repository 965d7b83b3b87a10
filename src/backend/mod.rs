//! Tensor libraries: one file or folder, and one feature each.

#[cfg(feature = "nalgebra")]
mod nalgebra;
#[cfg(feature = "burn")]
pub mod burn;
#[cfg(feature = "ndarray")]
mod ndarray;
#[cfg(feature = "sprs")]
mod sprs;
