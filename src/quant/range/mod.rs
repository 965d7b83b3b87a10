//! The range of a tensor or of a stream of batches, from which levels that stay follow. One file an observer or a
//! criterion.

mod entropy;
mod histogram;
mod min_max;
mod moving;
mod mse;
mod percentile;

use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    tensor::{TensorRef, qtensor::range},
};

pub use histogram::Histogram;
pub use min_max::MinMaxObserver;
pub use moving::MovingAverageObserver;

/// From where to where values go: two finite numbers, the first not above the second.
///
/// An observer finds one; [`Affine::grid`](super::Affine::grid) and [`Symmetric::grid`](super::Symmetric::grid) make
/// levels of it.
///
/// ```
/// use lapidary::quant::Range;
/// let range = Range::new(-1.0, 2.5)?;
/// assert_eq!((range.min(), range.max()), (-1.0, 2.5));
/// assert!(Range::new(1.0, 0.0).is_err() && Range::new(0.0, f64::INFINITY).is_err());
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    min: f64,
    max: f64,
}

impl Range {
    /// From `min` to `max`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when one is not finite, or `min` is above `max`.
    pub fn new(min: f64, max: f64) -> Result<Self> {
        match min.is_finite() && max.is_finite() && min <= max {
            true => Ok(Self { min, max }),
            false => Err(Error::argument("range", format!("{min:?} to {max:?}"), "finite, from low to high")),
        }
    }

    /// The lower end.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The upper end.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The larger magnitude of the two ends.
    fn magnitude(&self) -> f64 {
        self.min.abs().max(self.max.abs())
    }

    /// What of it lies within `magnitude` of 0; the nearer end where nothing does.
    fn within(&self, magnitude: f64) -> Self {
        Self { min: self.min.clamp(-magnitude, magnitude), max: self.max.clamp(-magnitude, magnitude) }
    }

    /// The smallest range that holds both.
    fn join(&self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

config! {
    Range(min: f64, max: f64) => Self::new(min, max),
}

/// The range of a batch, `None` where there is nothing in it.
fn of_batch<T: Element>(batch: &TensorRef<'_, T>) -> Result<Option<Range>> {
    let (min, max) = range("batch", batch.as_slice())?;
    // A zero of either sign is one number: which of them came first must not show.
    Ok((!batch.is_empty()).then(|| Range { min: min.to_f64() + 0.0, max: max.to_f64() + 0.0 }))
}

fn nothing_seen() -> Error {
    Error::empty("what the observer has seen")
}
