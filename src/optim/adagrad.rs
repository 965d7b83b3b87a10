//! Adagrad.

use super::{
    Convention,
    hyper::{learning_rate, non_negative, numbers, switches},
    scalar::{Gradient, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::Result,
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// Adagrad (Duchi, Hazan & Singer 2011, JMLR 12), as PyTorch's `Adagrad` has it.
///
/// At step `t`, for each element `p` with gradient `g`:
///
/// ```text
/// g   = -g                               maximize
/// g   = g + weight_decay * p
/// clr = learning_rate / (1 + (t - 1) * learning_rate_decay)
/// s   = s + g * g
/// p   = p - clr * g / (sqrt(s) + eps)    PyTorch, ONNX
/// p   = p - clr * g / sqrt(s + eps)      Keras, optax; optax: not where s = 0
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1e-2, Keras: 1e-3) | `>= 0` | the step's length |
/// | `learning_rate_decay` | 0 | `>= 0` | slows the rate as steps are taken |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty |
/// | `initial_accumulator` | 0 (Keras, optax: 0.1) | `>= 0` | what `s` starts from |
/// | `eps` | 1e-10 (Keras, optax: 1e-7, ONNX: 1e-6) | `>= 0` | keeps the root from 0; at 0 an element without any gradient yet becomes NaN |
/// | `maximize` | off | | climbs |
/// | `convention` | PyTorch | all | where `eps` stands |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Adagrad};
/// let adagrad = Adagrad::new(0.5)?;
/// let mut weights = vec![1.0f32, 1.0];
/// let mut state = adagrad.init(&weights)?;
/// adagrad.step(Step::new(&mut weights, &[4.0, -0.25], &mut state))?;
/// assert_eq!(weights, [0.5, 1.5]); // the first step is as long whatever the gradient's size
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adagrad {
    learning_rate: f64,
    learning_rate_decay: f64,
    weight_decay: f64,
    initial_accumulator: f64,
    eps: f64,
    maximize: bool,
    convention: Convention,
}

impl Adagrad {
    /// Adagrad at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            learning_rate_decay: 0.0,
            weight_decay: 0.0,
            initial_accumulator: 0.0,
            eps: 1e-10,
            maximize: false,
            convention: Convention::PyTorch,
        })
    }

    /// Follows another library, with its `eps` and `initial_accumulator`.
    #[must_use]
    pub fn with_convention(self, convention: Convention) -> Self {
        let (initial_accumulator, eps) = match convention {
            Convention::PyTorch => (0.0, 1e-10),
            Convention::Keras | Convention::Optax => (0.1, 1e-7),
            Convention::Onnx => (0.0, 1e-6),
        };
        Self { convention, initial_accumulator, eps, ..self }
    }

    numbers! {
        with_learning_rate_decay, learning_rate_decay: non_negative, "how the rate falls with the steps taken";
        with_weight_decay, weight_decay: non_negative, "the L2 penalty";
        with_initial_accumulator, initial_accumulator: non_negative, "what the sum of squares of new state starts from";
        with_eps, eps: non_negative, "what keeps the root from 0";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }

    /// The library it follows.
    #[must_use]
    pub fn convention(&self) -> Convention {
        self.convention
    }
}

learning_rate!(Adagrad);

config! {
    Adagrad(learning_rate: f64) => Self::new(learning_rate),
    convention: Convention => Self::with_convention,
    learning_rate_decay: f64 => Self::with_learning_rate_decay,
    weight_decay: f64 => Self::with_weight_decay,
    initial_accumulator: f64 => Self::with_initial_accumulator,
    eps: f64 => Self::with_eps,
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOT: &str = "sum";

impl<T: Element> Optimizer<T> for Adagrad {
    fn schema(&self, shape: &[usize]) -> Schema {
        Schema::new("Adagrad").squares(SLOT, shape, self.initial_accumulator)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let inside = matches!(self.convention, Convention::Keras | Convention::Optax);
        step.elementwise([SLOT], |count| AdagradRule {
            gradient: Gradient::new(self.maximize, self.weight_decay),
            rate: narrow(self.learning_rate / (1.0 + (count - 1) as f64 * self.learning_rate_decay)),
            inner_eps: narrow(if inside { self.eps } else { 0.0 }),
            outer_eps: narrow(if inside { 0.0 } else { self.eps }),
            skip_zero: self.convention == Convention::Optax,
        })
    }
}

#[derive(Clone, Copy)]
struct AdagradRule<R> {
    gradient: Gradient<R>,
    rate: R,
    inner_eps: R,
    outer_eps: R,
    skip_zero: bool,
}

impl<R: Real> Rule<R, 1> for AdagradRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [sum]: [R; 1]) -> (R, [R; 1]) {
        let grad = self.gradient.of(param, grad);
        let sum = sum + grad * grad;
        // Adding an eps of 0 is exact: sums are not negative.
        let moved = param - self.rate * grad / ((sum + self.inner_eps).sqrt() + self.outer_eps);
        (if self.skip_zero && sum == R::zero() { param } else { moved }, [sum])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn two_steps_by_hand() {
        let adagrad = Adagrad::new(1.0).unwrap().with_learning_rate_decay(1.0).unwrap().with_eps(0.0).unwrap();
        let mut p = vec![0.0f64];
        let mut state = adagrad.init(&p).unwrap();
        adagrad.step(Step::new(&mut p, &[3.0], &mut state)).unwrap();
        assert_eq!(p, [-1.0]);
        adagrad.step(Step::new(&mut p, &[4.0], &mut state)).unwrap(); // rate 1/2, root 5
        assert_eq!(p, [-1.4]);
    }

    #[test]
    fn a_zero_gradient_leaves_the_parameter() {
        let adagrad = Adagrad::new(1.0).unwrap();
        let mut p = vec![2.0f32];
        let mut state = adagrad.init(&p).unwrap();
        adagrad.step(Step::new(&mut p, &[0.0], &mut state)).unwrap();
        assert_eq!(p, [2.0]);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let adagrad = Adagrad::new(0.0).unwrap();
        assert!(adagrad.with_eps(-1e-9).is_err() && adagrad.with_initial_accumulator(f64::NAN).is_err());
        assert!(adagrad.with_learning_rate_decay(-1.0).is_err() && adagrad.with_weight_decay(f64::INFINITY).is_err());
    }
}
