//! Quantizers: one file a scheme, the formula in its docs.
//!
//! [`MinMax`], [`Affine`] and [`Symmetric`] find even levels in the tensor they quantize, [`KMeans`] any; [`Table`] and [`Minifloat`]
//! scale listed ones. Those in `data` look at a layer's inputs too, or search. For levels that stay, observers gather the range of a stream of batches ([`MinMaxObserver`],
//! [`MovingAverageObserver`], [`Histogram`]). [`FakeQuantize`] and [`Lsq`] round to levels in training. A [`Certificate`] bounds the
//! error of rounding, [`allocate`] shares bits among tensors, and [`Linear`] computes with the packed codes.

mod affine;
mod budget;
mod certificate;
mod cluster;
mod data;
mod fake;
mod float;
mod kmeans;
pub mod layout;
mod linear;
mod lsq;
mod minmax;
mod range;
mod spec;
mod symmetric;
mod table;

pub use affine::Affine;
pub use budget::{Allocation, Budget, Candidate, Choice, Chosen, allocate};
pub use certificate::{Certificate, Certify};
pub use data::{Awq, Hqq, Scaled, SmoothQuant, correct_bias, divide_outputs, multiply_inputs};
#[cfg(feature = "linalg")]
pub use data::{Gptq, Scheme, Swept};
pub use fake::FakeQuantize;
pub use float::{FloatFormat, Minifloat};
pub use kmeans::KMeans;
pub use linear::{Activation, Inputs, Linear, Workspace};
pub use lsq::Lsq;
pub use minmax::MinMax;
pub use range::{Histogram, MinMaxObserver, MovingAverageObserver, Range};
pub use symmetric::Symmetric;
pub use table::Table;
