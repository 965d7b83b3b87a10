//! Adagrad.

use super::hyper::{getters, learning_rate, narrow, non_negative, sign};
use crate::{
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
/// g   = -g                       maximize
/// g   = g + weight_decay * p
/// clr = learning_rate / (1 + (t - 1) * learning_rate_decay)
/// s   = s + g * g
/// p   = p - clr * g / (sqrt(s) + eps)
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1e-2) | `>= 0` | the step's length |
/// | `learning_rate_decay` | 0 | `>= 0` | slows the rate as steps are taken |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty |
/// | `initial_accumulator` | 0 | `>= 0` | what `s` starts from |
/// | `eps` | 1e-10 | `>= 0` | added to the root; at 0 an element without any gradient yet becomes NaN |
/// | `maximize` | off | | climbs |
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
        })
    }

    /// Sets how the rate falls with the steps taken.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_learning_rate_decay(self, decay: f64) -> Result<Self> {
        Ok(Self { learning_rate_decay: non_negative("learning_rate_decay", decay)?, ..self })
    }

    /// Sets the L2 penalty.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_weight_decay(self, weight_decay: f64) -> Result<Self> {
        Ok(Self { weight_decay: non_negative("weight_decay", weight_decay)?, ..self })
    }

    /// Sets what the sum of squares starts from. Takes effect for state made afterwards.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_initial_accumulator(self, value: f64) -> Result<Self> {
        Ok(Self { initial_accumulator: non_negative("initial_accumulator", value)?, ..self })
    }

    /// Sets what is added to the root.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_eps(self, eps: f64) -> Result<Self> {
        Ok(Self { eps: non_negative("eps", eps)?, ..self })
    }

    /// Climbs instead of descending.
    #[must_use]
    pub fn with_maximize(self) -> Self {
        Self { maximize: true, ..self }
    }

    getters! {
        learning_rate_decay: f64 = learning_rate_decay, "How the rate falls with the steps taken.";
        weight_decay: f64 = weight_decay, "The L2 penalty.";
        initial_accumulator: f64 = initial_accumulator, "What the sum of squares starts from.";
        eps: f64 = eps, "What is added to the root.";
        maximize: bool = maximize, "Whether it climbs.";
    }
}

learning_rate!(Adagrad);

const SLOT: &str = "sum";

impl<T: Element> Optimizer<T> for Adagrad {
    fn schema(&self, shape: &[usize]) -> Schema {
        Schema::new().slot(SLOT, shape, self.initial_accumulator)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        step.elementwise([SLOT], |count| AdagradRule {
            rate: narrow(self.learning_rate / (1.0 + (count - 1) as f64 * self.learning_rate_decay)),
            weight_decay: narrow(self.weight_decay),
            eps: narrow(self.eps),
            sign: sign(self.maximize),
        })
    }
}

#[derive(Clone, Copy)]
struct AdagradRule<R> {
    rate: R,
    weight_decay: R,
    eps: R,
    sign: R,
}

impl<R: Real> Rule<R, 1> for AdagradRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [sum]: [R; 1]) -> (R, [R; 1]) {
        let grad = self.sign * grad;
        let grad = if self.weight_decay == R::zero() { grad } else { grad + self.weight_decay * param };
        let sum = sum + grad * grad;
        (param - self.rate * grad / (sum.sqrt() + self.eps), [sum])
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
