//! Quantizers: one file a scheme, the formula in its docs.
//!
//! [`MinMax`], [`Affine`] and [`Symmetric`] find their levels in the tensor they quantize. For levels that stay,
//! observers gather the range of a stream of batches ([`MinMaxObserver`], [`MovingAverageObserver`], [`Histogram`]).
//! [`FakeQuantize`] and [`Lsq`] round to levels in training.

mod affine;
mod fake;
mod lsq;
mod minmax;
mod range;
mod spec;
mod symmetric;

pub use affine::Affine;
pub use fake::FakeQuantize;
pub use lsq::Lsq;
pub use minmax::MinMax;
pub use range::{Histogram, MinMaxObserver, MovingAverageObserver, Range};
pub use symmetric::Symmetric;
