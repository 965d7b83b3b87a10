//! Quantizers: one file a scheme, the formula in its docs.

mod minmax;

pub use minmax::MinMax;
