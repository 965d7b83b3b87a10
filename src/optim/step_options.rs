//! What is done to all gradients of one step: unscaling, averaging, clipping.

use super::{Norm, Scaler, hyper::non_negative};
use crate::error::{Error, Result};

/// What is done to all gradients of one step of [`Params`](super::Params) as they are read.
///
/// ```
/// use lapidary::optim::{Norm, Params, Scaler, Sgd, StepOptions, Update};
/// let mut params = Params::new();
/// let group = params.group(Sgd::new(0.5)?);
/// params.add("w", &[2], group)?;
/// let mut scaler = Scaler::new(1024.0)?;
/// let mut w = [1.0f32, 2.0];
/// let gradient = [3.0 * 1024.0, 4.0 * 1024.0]; // that of a loss multiplied by scaler.scale()
/// let options = StepOptions::new().scaler(&mut scaler).clip_norm(2.5, Norm::L2)?;
/// let outcome = params.step_with(&mut [Update::new(&mut w, &gradient)], options)?;
/// assert_eq!(outcome.norm, Some(5.0));
/// assert!((w[0] - 0.25).abs() < 1e-6 && w[1].abs() < 1.01 && !outcome.skipped);
///
/// let options = StepOptions::new().scaler(&mut scaler);
/// let outcome = params.step_with(&mut [Update::new(&mut w, &[f32::INFINITY, 0.0])], options)?;
/// assert!(outcome.skipped && scaler.scale() == 512.0); // nothing moved; the next loss is multiplied by less
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "hand it to `step_with`"]
pub struct StepOptions<'s> {
    pub(super) batches: u32,
    pub(super) max_norm: Option<(f64, Norm)>,
    pub(super) limit: f64,
    pub(super) scaler: Option<&'s mut Scaler>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Outcome {
    /// A gradient was not finite and a scaler let the step be skipped: nothing has moved.
    pub skipped: bool,
    /// The norm of all gradients after unscaling and before clipping, when something asked for it.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::config::open"))]
    pub norm: Option<f64>,
}

impl Default for StepOptions<'_> {
    fn default() -> Self {
        Self { batches: 1, max_norm: None, limit: f64::INFINITY, scaler: None }
    }
}

impl<'s> StepOptions<'s> {
    /// Gradients as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gradients are sums over so many batches ([`accumulate`](super::accumulate)): divides by it.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is 0.
    pub fn batches(self, batches: u32) -> Result<Self> {
        match batches {
            0 => Err(Error::argument("batches", batches, "at least 1")),
            _ => Ok(Self { batches, ..self }),
        }
    }

    /// Divides by a loss's scale, and skips the step when a gradient is not finite, after which the scale is smaller: one
    /// more read of all gradients.
    pub fn scaler(self, scaler: &'s mut Scaler) -> Self {
        Self { scaler: Some(scaler), ..self }
    }

    /// Shortens all gradients together so that their norm is at most `max_norm`, as [`clip_norm`](super::clip_norm): one more read
    /// of them, the one that finds what is not finite, and no more write.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn clip_norm(self, max_norm: f64, norm: Norm) -> Result<Self> {
        Ok(Self { max_norm: Some((non_negative("max_norm", max_norm)?, norm)), ..self })
    }

    /// Then limits each element to `-limit ..= limit`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn clip_value(self, limit: f64) -> Result<Self> {
        Ok(Self { limit: non_negative("limit", limit)?, ..self })
    }
}
