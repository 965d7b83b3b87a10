//! Quantizers: one file a scheme, the formula in its docs. Those in `data` look at a layer's inputs too, or search.

mod affine;
mod budget;
mod certificate;
mod data;
mod linear;
mod minmax;
mod spec;
mod symmetric;

pub use affine::Affine;
pub use budget::{Allocation, Budget, Candidate, Choice, Chosen, allocate};
pub use certificate::{Certificate, Certify};
pub use data::{Awq, Hqq, Scaled, SmoothQuant, correct_bias, divide_outputs, multiply_inputs};
#[cfg(feature = "linalg")]
pub use data::{Gptq, Scheme, Swept};
pub use linear::{Activation, Inputs, Linear, Workspace};
pub use minmax::MinMax;
pub use symmetric::Symmetric;
