//! Matrices: products and factors on `faer` (feature `linalg`), and what calibration knows of a layer's inputs.

mod calibration;
#[cfg(feature = "linalg")]
mod cholesky;
mod outputs;
#[cfg(feature = "linalg")]
mod product;
#[cfg(feature = "linalg")]
mod sweep;

pub use calibration::Calibration;
#[cfg(feature = "linalg")]
pub(crate) use cholesky::inverse_factor;
pub(crate) use outputs::Outputs;
#[cfg(feature = "linalg")]
pub(crate) use product::{Matrix, add_product};
#[cfg(feature = "linalg")]
pub(crate) use sweep::{BLOCK, Turn, Turns, nearest, sweep};
