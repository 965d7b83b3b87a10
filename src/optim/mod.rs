//! Optimizers: one file an algorithm, the formula in its docs.
//!
//! All implement [`Optimizer`](crate::Optimizer) for every [`Element`](crate::Element) type; parameters of
//! 16 bits are widened, stepped in `f32` and rounded once, their state is `f32`.
//!
//! | around them | |
//! |---|---|
//! | [`Params`], [`StepOptions`] | named parameters in groups, stepped by one call that moves all or none |
//! | [`Schedule`], [`Plateau`] | learning rates |
//! | [`clip_norm`], [`clip_value`], [`clip_adaptive`] | gradients within bounds |
//! | [`Scaler`], [`accumulate`] | scaled losses, gradients of several batches |
//! | [`Ema`], [`Lookahead`] | wrappers that average the weights; [`Optimizer::evaluate`](crate::Optimizer::evaluate) gives them |
//! | [`Compact`] | a wrapper that keeps the state in 8 or 16 bits |
//! | [`minimize`] | a loop with its stopping rules |

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod clip;
mod compact;
mod convention;
mod ema;
mod hyper;
mod lamb;
mod lion;
mod lookahead;
mod minimize;
#[cfg(feature = "linalg")]
mod muon;
mod nadam;
mod params;
mod plateau;
mod radam;
mod rmsprop;
mod scalar;
mod scaler;
mod schedule;
mod schedule_free;
mod sgd;
mod step_options;
mod update;

pub use adadelta::Adadelta;
pub use adafactor::Adafactor;
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use adamax::Adamax;
pub use clip::{Norm, clip_adaptive, clip_norm, clip_value};
pub use compact::Compact;
pub use convention::Convention;
pub use ema::Ema;
pub use lamb::Lamb;
pub use lion::Lion;
pub use lookahead::Lookahead;
pub use minimize::{Minimum, Stop, StopReason, minimize};
#[cfg(feature = "linalg")]
pub use muon::{Muon, RateScale};
pub use nadam::NAdam;
pub use params::{GroupId, Params};
pub use plateau::Plateau;
pub use radam::RAdam;
pub use rmsprop::RmsProp;
pub use scaler::{Scaler, accumulate};
pub use schedule::Schedule;
pub use schedule_free::ScheduleFree;
pub use sgd::Sgd;
pub use step_options::{Outcome, StepOptions};
#[cfg(feature = "candle")]
pub(crate) use update::Locked;
pub use update::Update;
