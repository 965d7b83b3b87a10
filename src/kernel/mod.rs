//! Slices in, slices out: the loops, compiled for each instruction set and split over threads.
//!
//! The only module with `unsafe` code: calls of functions of an instruction set that was found, in [`isa`] and [`dot`].

pub(crate) mod affine;
pub(crate) mod any;
pub(crate) mod best;
pub(crate) mod bits;
pub(crate) mod block8;
pub(crate) mod dot;
pub(crate) mod factored;
pub(crate) mod fake;
pub(crate) mod grad;
pub(crate) mod grid;
pub(crate) mod isa;
pub(crate) mod knapsack;
pub(crate) mod map;
pub(crate) mod members;
pub(crate) mod minifloat;
pub(crate) mod moment;
pub(crate) mod nearest;
pub(crate) mod pack;
pub(crate) mod parallel;
pub(crate) mod random;
pub(crate) mod ranges;
pub(crate) mod reduce;
pub(crate) mod rows;
pub(crate) mod rule;
pub(crate) mod scan;
pub(crate) mod select;
pub(crate) mod slot;
pub(crate) mod sparse;
pub(crate) mod sums;
#[cfg(feature = "linalg")]
pub(crate) mod sweep;
