//! Scaling of losses, and adding gradients up.

use super::hyper::{count, positive};
use crate::{
    config::config,
    element::{AnySliceMut, Element, Real},
    error::{Error, Result},
    kernel::{
        grad::GradRef,
        random::Stream,
        rule::{self, Pass, Rule},
    },
    tensor::{TensorMut, TensorRef},
    traits::Resume,
};

/// The factor of a loss whose gradients are computed in 16 bits, and its policy, that of PyTorch's `GradScaler`: as large as goes.
///
/// The caller multiplies the loss by [`scale`](Scaler::scale), so that small gradients do not vanish in `f16`. A step that finds
/// a gradient that is not finite is skipped and the scale shrinks; after enough good steps it grows:
///
/// ```text
/// scale = scale * backoff                   after a skipped step
/// scale = scale * growth                    after `interval` good steps in a row
/// ```
///
/// Hand it to [`StepOptions::scaler`](super::StepOptions::scaler), or, without [`Params`](super::Params), divide by
/// [`Step::scale_gradient`](crate::Step::scale_gradient), check by [`Step::check_finite`](crate::Step::check_finite) and tell it by
/// [`update`](Scaler::update). The scale stays a normal number of `f32`.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `scale` | – (PyTorch: 65536) | `> 0` | what the loss is multiplied by at first |
/// | `growth` | 2 | `>= 1` | by how much it grows |
/// | `backoff` | 0.5 | 0 to 1, not 0 | by how much it shrinks |
/// | `interval` | 2000 | `>= 1` | good steps from one growth to the next |
///
/// ```
/// use lapidary::optim::Scaler;
/// let mut scaler = Scaler::new(65536.0)?.with_interval(2)?;
/// for skipped in [false, false, true] {
///     scaler.update(skipped);
/// }
/// assert_eq!(scaler.scale(), 65536.0); // twice as large, then half
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaler {
    scale: f64,
    growth: f64,
    backoff: f64,
    interval: u64,
    good: u64,
}

impl Scaler {
    /// A scale to begin with.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not above 0 and at most 3.4e38.
    pub fn new(scale: f64) -> Result<Self> {
        Ok(Self { scale: positive("scale", scale)?, growth: 2.0, backoff: 0.5, interval: 2000, good: 0 })
    }

    /// Sets by how much the scale grows.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 1 ..= 3.4e38.
    pub fn with_growth(self, growth: f64) -> Result<Self> {
        if positive("growth", growth)? < 1.0 {
            return Err(Error::argument("growth", growth, "at least 1"));
        }
        Ok(Self { growth, ..self })
    }

    /// Sets by how much the scale shrinks.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not above 0 and at most 1.
    pub fn with_backoff(self, backoff: f64) -> Result<Self> {
        if positive("backoff", backoff)? > 1.0 {
            return Err(Error::argument("backoff", backoff, "at most 1"));
        }
        Ok(Self { backoff, ..self })
    }

    /// Sets how many good steps there are from one growth to the next.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is 0.
    pub fn with_interval(self, interval: u64) -> Result<Self> {
        match interval {
            0 => Err(Error::argument("interval", interval, "at least 1")),
            _ => Ok(Self { interval, ..self }),
        }
    }

    /// What the loss is to be multiplied by.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Good steps since the scale last changed.
    #[must_use]
    pub fn good_steps(&self) -> u64 {
        self.good
    }

    /// Moves the scale after a step.
    pub fn update(&mut self, skipped: bool) {
        if skipped {
            self.scale = (self.scale * self.backoff).max(f32::MIN_POSITIVE.into());
            self.good = 0;
            return;
        }
        self.good += 1;
        if self.good >= self.interval {
            self.good = 0;
            let grown = self.scale * self.growth;
            if grown <= f32::MAX.into() {
                self.scale = grown;
            }
        }
    }
}

config! {
    Scaler(scale: f64) => Self::new(scale),
    growth: f64 => Self::with_growth,
    backoff: f64 => Self::with_backoff,
    interval: u64 => Self::with_interval,
}

impl Resume for Scaler {
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        vec![("scale", self.scale), ("good_steps", self.good as f64)]
    }

    fn resume(&mut self, number: &dyn Fn(&str) -> Result<f64>) -> Result<()> {
        let scale = positive("scale", number("scale")?)?;
        *self = Self { scale, good: count("good_steps", number("good_steps")?)?, ..*self };
        Ok(())
    }
}

/// Adds a batch's gradient to a sum in full precision: `sum = sum + gradient`. A step then divides by the number of batches
/// ([`StepOptions::batches`](super::StepOptions::batches)). A NaN or infinity stays in the sum, for the step to find.
///
/// ```
/// use lapidary::{half::bf16, optim::accumulate};
/// let mut sum = vec![0f32; 3];
/// for _ in 0..300 {
///     accumulate(&mut sum, &[bf16::ONE; 3])?; // in bf16 the sum would stop at 256
/// }
/// assert_eq!(sum, [300.0; 3]);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; the sum is then as it was.
pub fn accumulate<'a, T: Element>(
    sum: impl Into<TensorMut<'a, T::Real>>,
    gradient: impl Into<TensorRef<'a, T>>,
) -> Result<()> {
    let (mut sum, gradient) = (sum.into(), gradient.into());
    if gradient.shape() != sum.shape() {
        return Err(Error::shape("gradient", sum.shape(), gradient.shape()));
    }
    let pass = Pass {
        param: AnySliceMut::Real(sum.as_mut_slice()),
        grad: GradRef::plain(T::any(gradient.as_slice())),
        state: [],
        keep: None,
        rounding: None,
        dither: Stream::new(0, 0),
        follow: [None, None],
        copy: None,
    };
    rule::step(&Sum, pass);
    Ok(())
}

#[derive(Clone, Copy)]
struct Sum;

impl<R: Real> Rule<R, 0> for Sum {
    #[inline(always)]
    fn update(&self, sum: R, grad: R, []: [R; 0]) -> (R, [R; 0]) {
        (sum + grad, [])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_stays_a_number() {
        let mut scaler = Scaler::new(3e38).unwrap().with_interval(1).unwrap();
        scaler.update(false);
        assert_eq!(scaler.scale(), 3e38);
        (0..1000).for_each(|_| scaler.update(true));
        assert_eq!(scaler.scale(), f64::from(f32::MIN_POSITIVE));
        let mut other = Scaler::new(1.0).unwrap().with_interval(1).unwrap();
        let numbers = scaler.numbers();
        other.resume(&|name| Ok(numbers.iter().find(|(n, _)| *n == name).unwrap().1)).unwrap();
        assert_eq!(other, scaler);
        for wrong in [f64::NAN, -1.0, 1.5, 1e300] {
            assert!(other.resume(&|name| Ok(if name == "good_steps" { wrong } else { 1.0 })).is_err());
        }
        assert!(other.resume(&|_| Ok(f64::NAN)).is_err());
        assert_eq!(other, scaler);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(Scaler::new(0.0).is_err() && Scaler::new(f64::NAN).is_err());
        let scaler = Scaler::new(1.0).unwrap();
        assert!(scaler.with_growth(0.5).is_err() && scaler.with_backoff(1.5).is_err());
        assert!(scaler.with_backoff(0.0).is_err() && scaler.with_interval(0).is_err());
        assert!(accumulate(&mut [0f64; 2], &[1.0; 3]).is_err());
    }
}
