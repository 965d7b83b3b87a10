//! Optimizers: one file an algorithm, the formula in its docs.
//!
//! All implement [`Optimizer`](crate::Optimizer) for every [`Element`](crate::Element) type; parameters of
//! 16 bits are widened, stepped in `f32` and rounded once, their state is `f32`.

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod clip;
mod convention;
mod hyper;
mod lamb;
mod lion;
mod minimize;
#[cfg(feature = "linalg")]
mod muon;
mod nadam;
mod params;
mod radam;
mod rmsprop;
mod scalar;
mod schedule;
mod schedule_free;
mod sgd;

pub use adadelta::Adadelta;
pub use adafactor::Adafactor;
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use adamax::Adamax;
pub use clip::{Norm, clip_adaptive, clip_norm, clip_value};
pub use convention::Convention;
pub use lamb::Lamb;
pub use lion::Lion;
pub use minimize::{Minimum, Stop, StopReason, minimize};
#[cfg(feature = "linalg")]
pub use muon::{Muon, RateScale};
pub use nadam::NAdam;
pub use params::{GroupId, Params, Update};
pub use radam::RAdam;
pub use rmsprop::RmsProp;
pub use schedule::Schedule;
pub use schedule_free::ScheduleFree;
pub use sgd::Sgd;
