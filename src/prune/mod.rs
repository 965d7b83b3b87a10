//! Pruners: one file a criterion.

mod magnitude;
mod threshold;

pub use magnitude::Magnitude;
pub use threshold::Threshold;

use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::scan,
    tensor::{Mask, TensorRef},
};
use num_traits::Float;

/// `|x|` of each element, the score of the criteria that go by size.
fn magnitudes<T: Element>(values: &TensorRef<'_, T>, scores: &mut [T::Real]) -> Result<()> {
    if scores.len() != values.len() {
        return Err(Error::shape("scores", &[values.len()], &[scores.len()]));
    }
    for (score, x) in scores.iter_mut().zip(values.as_slice()) {
        *score = x.to_real().abs();
    }
    Ok(())
}

/// Checks that `values` and `mask` agree and that no kept element is NaN.
fn check<T: Element>(values: &TensorRef<'_, T>, mask: &Mask) -> Result<()> {
    mask.check(values.shape())?;
    let values = values.as_slice();
    if scan::first_non_finite(values).is_none() {
        return Ok(());
    }
    match mask.indices().find(|&i| values[i].to_real().is_nan()) {
        Some(index) => Err(Error::non_finite("score", index, f64::NAN)),
        None => Ok(()),
    }
}

/// Whether `x` is among those that a cut at a magnitude keeps, ties included.
fn at_least<T: Element>(x: T, magnitude: u64) -> bool {
    x.to_real().magnitude_bits() >= magnitude
}
