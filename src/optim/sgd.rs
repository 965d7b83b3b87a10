//! Stochastic gradient descent, with momentum.

use super::{
    Convention,
    hyper::{learning_rate, non_negative, numbers, switches},
    scalar::{Gradient, narrow},
};
use crate::{
    config::config,
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
/// g  = -g                                  maximize
/// g  = g + weight_decay * p
/// b  = g                                   t = 1 (ONNX: momentum * b + g)
/// b  = momentum * b + (1 - dampening) * g
/// g  = g + momentum * b                    nesterov
/// g  = b                                   momentum without nesterov
/// p  = p - learning_rate * g
/// ```
///
/// By the convention of Keras the rate is a part of the momentum:
///
/// ```text
/// b  = momentum * b - learning_rate * g
/// p  = p + momentum * b - learning_rate * g    nesterov
/// p  = p + b                                   else
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – | `>= 0` | the step's length |
/// | `momentum` | 0 | `>= 0` | how much of the last direction stays; 0 keeps no state |
/// | `dampening` | 0 | finite | how much less the new gradient counts; 0 with Keras |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty |
/// | `nesterov` | off | needs momentum > 0; dampening 0 but for ONNX | looks one step ahead |
/// | `maximize` | off | | climbs |
/// | `convention` | PyTorch | all; optax is as PyTorch | where the rate stands |
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
    convention: Convention,
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
            convention: Convention::PyTorch,
        })
    }

    /// Sets the momentum, in its classical form.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_momentum(self, momentum: f64) -> Result<Self> {
        Ok(Self { nesterov: false, momentum: non_negative("momentum", momentum)?, ..self })
    }

    /// Sets the momentum, in Nesterov's form.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is 0 or not in 0 ..= 3.4e38, or dampening is not 0.
    pub fn with_nesterov(self, momentum: f64) -> Result<Self> {
        Self { nesterov: true, momentum: non_negative("momentum", momentum)?, ..self }.checked()
    }

    /// Sets the dampening.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not finite, or not 0 with Nesterov or Keras.
    pub fn with_dampening(self, dampening: f64) -> Result<Self> {
        if dampening.abs() > f64::from(f32::MAX) || dampening.is_nan() {
            return Err(Error::argument("dampening", format!("{dampening:?}"), "at most 3.4e38 in size"));
        }
        // A zero has no sign.
        Self { dampening: dampening + 0.0, ..self }.checked()
    }

    /// Follows another library.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when dampening is not 0 and the library has none.
    pub fn with_convention(self, convention: Convention) -> Result<Self> {
        Self { convention, ..self }.checked()
    }

    numbers! {
        with_weight_decay, weight_decay: non_negative, "the L2 penalty";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }

    /// Returns how much of the last direction stays.
    #[must_use]
    pub fn momentum(&self) -> f64 {
        self.momentum
    }

    /// Returns how much less the new gradient counts.
    #[must_use]
    pub fn dampening(&self) -> f64 {
        self.dampening
    }

    /// Whether the momentum is Nesterov's.
    #[must_use]
    pub fn nesterov(&self) -> bool {
        self.nesterov
    }

    /// The library it follows.
    #[must_use]
    pub fn convention(&self) -> Convention {
        self.convention
    }

    fn checked(self) -> Result<Self> {
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::argument("momentum", self.momentum, "above 0 with Nesterov"));
        }
        let dampens = self.convention == Convention::Onnx || !self.nesterov && self.convention != Convention::Keras;
        if self.dampening != 0.0 && !dampens {
            return Err(Error::argument("dampening", self.dampening, "0 with Nesterov and with Keras"));
        }
        Ok(self)
    }
}

learning_rate!(Sgd);

config! {
    Sgd(learning_rate: f64) => Self::new(learning_rate),
    convention: Convention => Self::with_convention,
    momentum: f64 => Self::with_momentum,
    nesterov: bool => |it, _| it.with_nesterov(it.momentum),
    dampening: f64 => Self::with_dampening,
    weight_decay: f64 => Self::with_weight_decay,
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOT: &str = "momentum_buffer";

impl<T: Element> Optimizer<T> for Sgd {
    fn schema(&self, shape: &[usize]) -> Schema {
        // The velocity of Keras is not the momentum of the others.
        let keras = self.convention == Convention::Keras && self.momentum != 0.0;
        let schema = Schema::new(if keras { "Sgd (Keras)" } else { "Sgd" });
        if self.momentum == 0.0 { schema } else { schema.velocity(SLOT, shape, 0.0) }
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let gradient = Gradient::new(self.maximize, self.weight_decay);
        let rate = narrow(self.learning_rate);
        let momentum = narrow(self.momentum);
        if self.momentum == 0.0 {
            return step.elementwise([], |_| Descent { gradient, rate });
        }
        if self.convention == Convention::Keras {
            return step.elementwise([SLOT], |_| Velocity { gradient, rate, momentum, nesterov: self.nesterov });
        }
        let fresh_start = self.convention != Convention::Onnx;
        step.elementwise([SLOT], |count| Momentum {
            gradient,
            rate,
            momentum,
            first: fresh_start && count == 1,
            fresh: narrow(if count == 1 { 1.0 } else { 1.0 - self.dampening }),
            nesterov: self.nesterov,
        })
    }
}

#[derive(Clone, Copy)]
struct Descent<R> {
    gradient: Gradient<R>,
    rate: R,
}

impl<R: Real> Rule<R, 0> for Descent<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, []: [R; 0]) -> (R, [R; 0]) {
        (param - self.rate * self.gradient.of(param, grad), [])
    }
}

#[derive(Clone, Copy)]
struct Momentum<R> {
    gradient: Gradient<R>,
    rate: R,
    momentum: R,
    first: bool,
    fresh: R,
    nesterov: bool,
}

impl<R: Real> Rule<R, 1> for Momentum<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [buffer]: [R; 1]) -> (R, [R; 1]) {
        let grad = self.gradient.of(param, grad);
        let buffer = if self.first { grad } else { self.momentum * buffer + self.fresh * grad };
        let update = if self.nesterov { grad + self.momentum * buffer } else { buffer };
        (param - self.rate * update, [buffer])
    }
}

/// The momentum of Keras: a velocity, with the rate in it.
#[derive(Clone, Copy)]
struct Velocity<R> {
    gradient: Gradient<R>,
    rate: R,
    momentum: R,
    nesterov: bool,
}

impl<R: Real> Rule<R, 1> for Velocity<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [velocity]: [R; 1]) -> (R, [R; 1]) {
        let push = self.rate * self.gradient.of(param, grad);
        let velocity = self.momentum * velocity - push;
        let update = if self.nesterov { self.momentum * velocity - push } else { velocity };
        (param + update, [velocity])
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
