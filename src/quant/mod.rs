//! Quantizers: one file a scheme, the formula in its docs.

mod affine;
mod budget;
mod certificate;
mod minmax;
mod spec;
mod symmetric;

pub use affine::Affine;
pub use budget::{Allocation, Budget, Candidate, Choice, Chosen, allocate};
pub use certificate::{Certificate, Certify};
pub use minmax::MinMax;
pub use symmetric::Symmetric;
