//! Pruners: a criterion says what matters, one file each, and [`Select`] what survives.
//!
//! | criterion | score | needs |
//! |---|---|---|
//! | [`Magnitude`] | `\|w\|`; norms of rows, channels and blocks by [`Select::with_norm`] | |
//! | [`Random`] | by chance | a seed |
//! | [`Snip`] | `\|g * w\|` | a gradient |
//! | [`Taylor`] | `Σ (g * w)²` | gradients of batches |
//! | [`Movement`] | `-Σ g * w` | gradients of steps |
//! | [`Wanda`] | `\|w\| * ‖x‖` | a layer's inputs |
//! | [`Channels`] | any number of a channel: batch-norm scales, [`Activations`] | |
//! | yours | implement [`Criterion`](crate::Criterion) | |
//!
//! The two joined are a [`Pruner`](crate::Pruner); [`Select::refine`] takes scores at hand, of many tensors.
//! `SparseGpt` (feature `linalg`) also changes the weights it keeps. How much of each tensor to take is measured by
//! [`Sensitivity`], which makes a [`SparsityPlan`] of it.
//!
//! | in training | what it does |
//! |---|---|
//! | [`SparsitySchedule`] | how much is pruned at which step: at once, by and by, along a polynomial |
//! | [`RigL`] | exchanges kept weights for pruned ones |
//! | [`Rewind`] | puts kept weights back to what they were early in training |

mod activations;
mod channels;
mod gradient;
mod magnitude;
mod pruning;
mod random;
mod rewind;
mod rigl;
mod schedule;
mod select;
mod sensitivity;
#[cfg(feature = "linalg")]
mod sparse_gpt;
mod units;
mod wanda;
mod whole;

pub use activations::Activations;
pub use channels::Channels;
pub use gradient::{Movement, Snip, Taylor};
pub use magnitude::Magnitude;
pub use pruning::Pruning;
pub use random::Random;
pub use rewind::Rewind;
pub use rigl::RigL;
pub use schedule::SparsitySchedule;
pub use select::{Scores, Select};
pub use sensitivity::{Sensitivity, SensitivityCurve, SensitivityPoint, SparsityPlan};
#[cfg(feature = "linalg")]
pub use sparse_gpt::{Corrected, SparseGpt};
pub use wanda::Wanda;

use crate::{
    error::{Error, Result},
    tensor::view::volume,
};

/// An error unless there is room for a score of each of `len` elements.
fn check_scores(len: usize, scores: &[f64]) -> Result<()> {
    if scores.len() == len { Ok(()) } else { Err(Error::shape("scores", &[len], &[scores.len()])) }
}

/// The elements behind each index of an axis: 0 where a `usize` does not count them, as only an empty tensor has it.
fn inner(shape: &[usize], axis: usize) -> usize {
    shape.get(axis + 1..).and_then(volume).unwrap_or(0)
}
