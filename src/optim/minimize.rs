//! "Gradient, step" until a stopping rule holds.

use super::hyper::non_negative;
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    kernel::scan::norm,
    tensor::{TensorMut, TensorRef},
    traits::{Optimizer, OptimizerExt, Step},
};

/// When [`minimize`] stops: whichever rule holds first.
///
/// | rule | default | range |
/// |---|---|---|
/// | `iterations` | 10,000 | |
/// | `gradient_norm` | none | `>= 0` |
/// | `loss_change` | none | `>= 0` |
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Stop {
    iterations: u64,
    gradient_norm: Option<f64>,
    loss_change: Option<f64>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { iterations: 10_000, gradient_norm: None, loss_change: None }
    }
}

impl Stop {
    /// After this many steps.
    pub fn after(iterations: u64) -> Self {
        Self { iterations, ..Self::default() }
    }

    /// Also when the L2 norm of the gradient is at most `norm`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_gradient_norm(self, norm: f64) -> Result<Self> {
        Ok(Self { gradient_norm: Some(non_negative("gradient_norm", norm)?), ..self })
    }

    /// Also when two losses in a row differ by at most `change`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_loss_change(self, change: f64) -> Result<Self> {
        Ok(Self { loss_change: Some(non_negative("loss_change", change)?), ..self })
    }
}

config! {
    Stop() => Self::default(),
    iterations: u64 => |it, iterations| Self { iterations, ..it },
    gradient_norm: Option<f64> => |it, norm| norm.map_or(Ok(it), |norm| it.with_gradient_norm(norm)),
    loss_change: Option<f64> => |it, change| change.map_or(Ok(it), |change| it.with_loss_change(change)),
}

/// The rule that ended a [`minimize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum StopReason {
    /// All steps were taken.
    Iterations,
    /// The gradient is small enough.
    GradientNorm,
    /// The loss does not change any more.
    LossChange,
}

/// Where a [`minimize`] ended.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Minimum {
    /// The rule that held.
    pub reason: StopReason,
    /// Steps taken.
    pub iterations: u64,
    /// The loss at the point reached.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub loss: f64,
    /// The L2 norm of the gradient there.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub gradient_norm: f64,
    /// The absolute difference to the loss one step before; infinite when no step was taken.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub loss_change: f64,
}

/// Moves `theta` by `optimizer` until a rule of `stop` holds.
///
/// `objective` is given the point, writes the gradient there and returns the loss. It is called
/// once more than steps are taken: what is reported belongs to the point reached.
///
/// # Errors
/// [`NonFinite`](crate::ErrorKind::NonFinite) when a loss or a gradient is NaN or infinite: `theta` is then
/// the point where that happened.
///
/// ```
/// use lapidary::optim::{Sgd, Stop, minimize};
/// let mut theta = vec![1.0f32, -2.0];
/// let end = minimize(&Sgd::new(0.1)?, &mut theta, Stop::default().with_gradient_norm(1e-6)?, |theta, gradient| {
///     gradient.iter_mut().zip(theta).for_each(|(g, x)| *g = 2.0 * x);
///     theta.iter().map(|x| f64::from(x * x)).sum()
/// })?;
/// assert!(end.gradient_norm <= 1e-6 && end.iterations < 100);
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn minimize<'a, T: Element, O: Optimizer<T> + ?Sized>(
    optimizer: &O,
    theta: impl Into<TensorMut<'a, T>>,
    stop: Stop,
    mut objective: impl FnMut(&[T], &mut [T]) -> f64,
) -> Result<Minimum> {
    let mut theta = theta.into();
    let shape = theta.shape().to_vec();
    let mut state = optimizer.init(TensorRef::new(theta.as_slice(), &shape)?)?;
    let mut gradient = vec![T::default(); theta.len()];
    let mut iterations = 0;
    let mut last = f64::INFINITY;
    loop {
        let loss = objective(theta.as_slice(), &mut gradient);
        if !loss.is_finite() {
            return Err(Error::non_finite("sequence of losses", iterations as usize, loss));
        }
        let gradient_norm = norm(&gradient).map_err(|i| Error::non_finite("gradient", i, gradient[i].to_f64()))?;
        let loss_change = (last - loss).abs();
        let reason = if stop.gradient_norm.is_some_and(|limit| gradient_norm <= limit) {
            Some(StopReason::GradientNorm)
        } else if stop.loss_change.is_some_and(|limit| loss_change <= limit) {
            Some(StopReason::LossChange)
        } else if iterations >= stop.iterations {
            Some(StopReason::Iterations)
        } else {
            None
        };
        if let Some(reason) = reason {
            return Ok(Minimum { reason, iterations, loss, gradient_norm, loss_change });
        }
        optimizer.step(Step::new(&mut theta, TensorRef::new(&gradient, &shape)?, &mut state))?;
        last = loss;
        iterations += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, optim::Sgd};

    fn squares(theta: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.iter_mut().zip(theta).for_each(|(g, x)| *g = 2.0 * x);
        theta.iter().map(|x| x * x).sum()
    }

    #[test]
    fn each_rule_ends_it() {
        let sgd = Sgd::new(0.25).unwrap();
        let run = |stop| minimize(&sgd, &mut vec![1.0], stop, squares).unwrap();
        let end = run(Stop::after(3));
        assert_eq!((end.reason, end.iterations, end.loss), (StopReason::Iterations, 3, 2f64.powi(-6)));
        assert_eq!(end.loss_change, 2f64.powi(-4) - 2f64.powi(-6));
        let end = run(Stop::default().with_gradient_norm(0.25).unwrap());
        assert_eq!((end.reason, end.iterations, end.gradient_norm), (StopReason::GradientNorm, 3, 0.25));
        let end = run(Stop::default().with_loss_change(0.05).unwrap());
        assert_eq!((end.reason, end.iterations), (StopReason::LossChange, 3));
        let end = run(Stop::after(0));
        assert_eq!((end.iterations, end.loss_change), (0, f64::INFINITY));
    }

    #[test]
    fn divergence_is_an_error_and_shapes_stay() {
        let mut theta = vec![1.0; 6];
        let theta = TensorMut::new(&mut theta, &[2, 3]).unwrap();
        let error = minimize(&Sgd::new(1e30).unwrap(), theta, Stop::default(), squares).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NonFinite);
        assert!(
            Stop::default().with_gradient_norm(-1.0).is_err() && Stop::default().with_loss_change(f64::NAN).is_err()
        );
    }
}
