//! Stochastic gradient descent, with momentum.

use super::hyper::{getters, learning_rate, narrow, non_negative, sign};
use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// Gradient descent; with [`momentum`](Sgd::with_momentum), that of Sutskever et al. 2013 as PyTorch's `SGD` has it.
///
/// At step `t`, for each element `p` with gradient `g`:
///
/// ```text
/// g  = -g                        maximize
/// g  = g + weight_decay * p
/// b  = g                         t = 1
/// b  = momentum * b + (1 - dampening) * g
/// g  = g + momentum * b          nesterov
/// g  = b                         momentum without nesterov
/// p  = p - learning_rate * g
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – | `>= 0` | the step's length |
/// | `momentum` | 0 | `>= 0` | how much of the last direction stays; 0 keeps no state |
/// | `dampening` | 0 | finite | how much less the new gradient counts |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty |
/// | `nesterov` | off | needs momentum > 0, dampening 0 | looks one step ahead |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Sgd};
/// let sgd = Sgd::new(0.1)?.with_nesterov(0.9)?;
/// let mut weights = vec![1.0f32];
/// let mut state = sgd.init(&weights)?;
/// sgd.step(Step::new(&mut weights, &[1.0], &mut state))?;
/// assert_eq!(weights, [1.0 - 0.1 * 1.9]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    maximize: bool,
}

impl Sgd {
    /// Plain gradient descent at a rate.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            maximize: false,
        })
    }

    /// Sets the momentum, in its classical form.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_momentum(self, momentum: f64) -> Result<Self> {
        Ok(Self { nesterov: false, momentum: non_negative("momentum", momentum)?, ..self })
    }

    /// Sets the dampening.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not finite, or not 0 with Nesterov.
    pub fn with_dampening(self, dampening: f64) -> Result<Self> {
        if dampening.abs() > f64::from(f32::MAX) || dampening.is_nan() {
            return Err(Error::argument("dampening", dampening, "at most 3.4e38 in size"));
        }
        Self { dampening, ..self }.checked()
    }

    /// Sets the L2 penalty.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_weight_decay(self, weight_decay: f64) -> Result<Self> {
        Ok(Self { weight_decay: non_negative("weight_decay", weight_decay)?, ..self })
    }

    /// Sets the momentum, in Nesterov's form.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is 0 or not in 0 ..= 3.4e38, or dampening is not 0.
    pub fn with_nesterov(self, momentum: f64) -> Result<Self> {
        Self { nesterov: true, momentum: non_negative("momentum", momentum)?, ..self }.checked()
    }

    /// Climbs instead of descending.
    #[must_use]
    pub fn with_maximize(self) -> Self {
        Self { maximize: true, ..self }
    }

    getters! {
        momentum: f64 = momentum, "How much of the last direction stays.";
        dampening: f64 = dampening, "How much less the new gradient counts.";
        weight_decay: f64 = weight_decay, "The L2 penalty.";
        nesterov: bool = nesterov, "Whether the momentum is Nesterov's.";
        maximize: bool = maximize, "Whether it climbs.";
    }

    fn checked(self) -> Result<Self> {
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::argument("momentum", self.momentum, "above 0 with Nesterov"));
        }
        if self.nesterov && self.dampening != 0.0 {
            return Err(Error::argument("dampening", self.dampening, "0 with Nesterov"));
        }
        Ok(self)
    }
}

learning_rate!(Sgd);

const SLOT: &str = "momentum_buffer";

impl<T: Element> Optimizer<T> for Sgd {
    fn schema(&self, shape: &[usize]) -> Schema {
        if self.momentum == 0.0 { Schema::new() } else { Schema::new().slot(SLOT, shape, 0.0) }
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let plain = Descent {
            learning_rate: narrow(self.learning_rate),
            weight_decay: narrow(self.weight_decay),
            sign: sign(self.maximize),
        };
        if self.momentum == 0.0 {
            return step.elementwise([], |_| plain);
        }
        step.elementwise([SLOT], |count| Momentum {
            plain,
            first: count == 1,
            momentum: narrow(self.momentum),
            fresh: narrow(1.0 - self.dampening),
            nesterov: self.nesterov,
        })
    }
}

#[derive(Clone, Copy)]
struct Descent<R> {
    learning_rate: R,
    weight_decay: R,
    sign: R,
}

impl<R: Real> Descent<R> {
    #[inline(always)]
    fn gradient(&self, param: R, grad: R) -> R {
        let grad = self.sign * grad;
        if self.weight_decay == R::zero() { grad } else { grad + self.weight_decay * param }
    }
}

impl<R: Real> Rule<R, 0> for Descent<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, []: [R; 0]) -> (R, [R; 0]) {
        (param - self.learning_rate * self.gradient(param, grad), [])
    }
}

#[derive(Clone, Copy)]
struct Momentum<R> {
    plain: Descent<R>,
    first: bool,
    momentum: R,
    fresh: R,
    nesterov: bool,
}

impl<R: Real> Rule<R, 1> for Momentum<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [buffer]: [R; 1]) -> (R, [R; 1]) {
        let grad = self.plain.gradient(param, grad);
        let buffer = if self.first { grad } else { self.momentum * buffer + self.fresh * grad };
        let update = if self.nesterov { grad + self.momentum * buffer } else { buffer };
        (param - self.plain.learning_rate * update, [buffer])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(Sgd::new(-1.0).is_err() && Sgd::new(f64::NAN).is_err() && Sgd::new(f64::INFINITY).is_err());
        let sgd = Sgd::new(0.1).unwrap();
        assert!(
            sgd.with_nesterov(0.0).is_err() && sgd.with_momentum(-0.1).is_err() && sgd.with_weight_decay(-1.0).is_err()
        );
        let nesterov = sgd.with_nesterov(0.9).unwrap();
        assert!(nesterov.with_dampening(0.1).is_err() && !nesterov.with_momentum(0.5).unwrap().nesterov());
        assert!(sgd.with_dampening(0.1).unwrap().with_nesterov(0.9).is_err());
        assert!(sgd.with_dampening(f64::NAN).is_err() && Sgd::new(1e39).is_err());
    }

    #[test]
    fn momentum_by_hand() {
        let sgd = Sgd::new(0.5).unwrap().with_momentum(0.5).unwrap().with_dampening(0.25).unwrap();
        let mut p = vec![1.0f64];
        let mut state = sgd.init(&p).unwrap();
        sgd.step(Step::new(&mut p, &[1.0], &mut state)).unwrap(); // b = 1, undampened
        assert_eq!(p, [0.5]);
        sgd.step(Step::new(&mut p, &[1.0], &mut state)).unwrap(); // b = 0.5 + 0.75
        assert_eq!(p, [0.5 - 0.5 * 1.25]);
        assert_eq!((state.steps(), state.slot(SLOT).unwrap().values().get(0)), (2, Some(1.25)));
    }
}
