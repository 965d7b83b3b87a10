//! Optimizers: one file an algorithm, the formula in its docs.
//!
//! All implement [`Optimizer`](crate::Optimizer) for every [`Element`](crate::Element) type; parameters of
//! 16 bits are widened, stepped in `f32` and rounded once, their state is `f32`.

mod adagrad;
mod adam;
mod hyper;
mod minimize;
mod sgd;

pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use minimize::{Minimum, Stop, StopReason, minimize};
pub use sgd::Sgd;
