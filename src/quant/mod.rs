//! Quantizers: one file a scheme, the formula in its docs.

mod affine;
pub mod layout;
mod minmax;
mod spec;
mod symmetric;

pub use affine::Affine;
pub use minmax::MinMax;
pub use symmetric::Symmetric;
