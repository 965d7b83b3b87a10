//! RMSprop.

use super::{
    Convention,
    hyper::{learning_rate, non_negative, numbers, switches, unsupported},
    scalar::{Average, Gradient, Squares, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::Result,
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// RMSprop (Tieleman & Hinton 2012; centered: Graves 2013, arXiv:1308.0850), as PyTorch's `RMSprop` has it.
///
/// At step `t`, for each element `p` with gradient `g`:
///
/// ```text
/// g   = -g                                   maximize
/// g   = g + weight_decay * p
/// s   = alpha * s + (1 - alpha) * g * g
/// a   = alpha * a + (1 - alpha) * g          centered; else a = 0
/// d   = sqrt(s - a * a) + eps                PyTorch
/// d   = sqrt(s - a * a + eps)                Keras
/// b   = momentum * b + g / d                 with momentum, PyTorch
/// p   = p - learning_rate * b
/// b   = momentum * b + learning_rate * g / d with momentum, Keras: the rate is baked in
/// p   = p - b
/// p   = p - learning_rate * g / d            without
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1e-2) | `>= 0` | the step's length |
/// | `alpha` | 0.99 (Keras: 0.9) | `0 <= alpha < 1` | decay rate of the averages |
/// | `eps` | 1e-8 (Keras: 1e-7) | `>= 0` | keeps the root from 0 |
/// | `momentum` | 0 | `>= 0` | how much of the last direction stays |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty |
/// | `centered` | off | | divides by the deviation from the mean |
/// | `maximize` | off | | climbs |
/// | `convention` | PyTorch | PyTorch, Keras | where `eps` and the rate stand |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::RmsProp};
/// let rmsprop = RmsProp::new(0.1)?.with_alpha(0.75)?;
/// let mut weights = vec![1.0f64];
/// let mut state = rmsprop.init(&weights)?;
/// rmsprop.step(Step::new(&mut weights, &[3.0], &mut state))?;
/// assert!((weights[0] - 0.8).abs() < 1e-8); // 0.1 * 3 / sqrt(9 / 4)
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsProp {
    learning_rate: f64,
    alpha: f64,
    eps: f64,
    momentum: f64,
    weight_decay: f64,
    centered: bool,
    maximize: bool,
    convention: Convention,
}

impl RmsProp {
    /// RMSprop at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            alpha: 0.99,
            eps: 1e-8,
            momentum: 0.0,
            weight_decay: 0.0,
            centered: false,
            maximize: false,
            convention: Convention::PyTorch,
        })
    }

    /// Follows another library, with its `alpha` and `eps`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a convention other than PyTorch and Keras.
    pub fn with_convention(self, convention: Convention) -> Result<Self> {
        let (alpha, eps) = match convention {
            Convention::PyTorch => (0.99, 1e-8),
            Convention::Keras => (0.9, 1e-7),
            _ => return Err(unsupported(convention, "PyTorch or Keras")),
        };
        Ok(Self { convention, alpha, eps, ..self })
    }

    numbers! {
        with_alpha, alpha: decay_rate, "the decay rate of the averages";
        with_eps, eps: non_negative, "what keeps the root from 0";
        with_momentum, momentum: non_negative, "how much of the last direction stays";
        with_weight_decay, weight_decay: non_negative, "the L2 penalty";
    }

    switches! {
        with_centered, centered, "divides by the deviation from the mean: one more slot";
        with_maximize, maximize, "climbs instead of descending";
    }

    /// The library it follows.
    #[must_use]
    pub fn convention(&self) -> Convention {
        self.convention
    }
}

learning_rate!(RmsProp);

config! {
    RmsProp(learning_rate: f64) => Self::new(learning_rate),
    convention: Convention => Self::with_convention,
    alpha: f64 => Self::with_alpha,
    eps: f64 => Self::with_eps,
    momentum: f64 => Self::with_momentum,
    weight_decay: f64 => Self::with_weight_decay,
    centered: bool => |it, _| it.with_centered(),
    maximize: bool => |it, _| it.with_maximize(),
}

const SQUARE: &str = "square_avg";
const BUFFER: &str = "momentum_buffer";
const MEAN: &str = "grad_avg";

impl<T: Element> Optimizer<T> for RmsProp {
    fn schema(&self, shape: &[usize]) -> Schema {
        // The momentum of Keras is not that of PyTorch: the rate is baked in.
        let keras = self.convention == Convention::Keras && self.momentum > 0.0;
        let schema = Schema::new(if keras { "RmsProp (Keras)" } else { "RmsProp" });
        // The variance, a difference, needs all bits of both.
        let schema = if self.centered { schema.slot(SQUARE, shape, 0.0) } else { schema.squares(SQUARE, shape, 0.0) };
        let schema = if self.momentum > 0.0 { schema.velocity(BUFFER, shape, 0.0) } else { schema };
        if self.centered { schema.slot(MEAN, shape, 0.0) } else { schema }
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let keras = self.convention == Convention::Keras;
        let rate = narrow(self.learning_rate);
        let one = <T::Real as num_traits::One>::one();
        let rule = RmsPropRule {
            gradient: Gradient::new(self.maximize, self.weight_decay),
            squares: Squares::new(self.alpha),
            mean: Average::new(self.alpha),
            inner_eps: narrow(if keras { self.eps } else { 0.0 }),
            outer_eps: narrow(if keras { 0.0 } else { self.eps }),
            momentum: narrow(self.momentum),
            inner_rate: if keras { rate } else { one },
            outer_rate: if keras { one } else { rate },
        };
        match (self.momentum > 0.0, self.centered) {
            (false, false) => step.elementwise([SQUARE], |_| Plain(rule)),
            (true, false) => step.elementwise([SQUARE, BUFFER], |_| Momentum(rule)),
            (false, true) => step.elementwise([SQUARE, MEAN], |_| Centered(rule)),
            (true, true) => step.elementwise([SQUARE, BUFFER, MEAN], |_| Both(rule)),
        }
    }
}

#[derive(Clone, Copy)]
struct RmsPropRule<R> {
    gradient: Gradient<R>,
    squares: Squares<R>,
    mean: Average<R>,
    inner_eps: R,
    outer_eps: R,
    momentum: R,
    inner_rate: R,
    outer_rate: R,
}

impl<R: Real> RmsPropRule<R> {
    #[inline(always)]
    fn direction(&self, grad: R, variance: R) -> R {
        // Rounding can leave a variance a little below 0.
        let variance = if variance < R::zero() { R::zero() } else { variance };
        self.inner_rate * grad / ((variance + self.inner_eps).sqrt() + self.outer_eps)
    }
}

#[derive(Clone, Copy)]
struct Plain<R>(RmsPropRule<R>);
#[derive(Clone, Copy)]
struct Momentum<R>(RmsPropRule<R>);
#[derive(Clone, Copy)]
struct Centered<R>(RmsPropRule<R>);
#[derive(Clone, Copy)]
struct Both<R>(RmsPropRule<R>);

impl<R: Real> Rule<R, 1> for Plain<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [square]: [R; 1]) -> (R, [R; 1]) {
        let grad = self.0.gradient.of(param, grad);
        let square = self.0.squares.next(square, grad);
        (param - self.0.outer_rate * self.0.direction(grad, square), [square])
    }
}

impl<R: Real> Rule<R, 2> for Momentum<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [square, buffer]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.0.gradient.of(param, grad);
        let square = self.0.squares.next(square, grad);
        let buffer = self.0.momentum * buffer + self.0.direction(grad, square);
        (param - self.0.outer_rate * buffer, [square, buffer])
    }
}

impl<R: Real> Rule<R, 2> for Centered<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [square, mean]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.0.gradient.of(param, grad);
        let (square, mean) = (self.0.squares.next(square, grad), self.0.mean.next(mean, grad));
        (param - self.0.outer_rate * self.0.direction(grad, square - mean * mean), [square, mean])
    }
}

impl<R: Real> Rule<R, 3> for Both<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [square, buffer, mean]: [R; 3]) -> (R, [R; 3]) {
        let grad = self.0.gradient.of(param, grad);
        let (square, mean) = (self.0.squares.next(square, grad), self.0.mean.next(mean, grad));
        let buffer = self.0.momentum * buffer + self.0.direction(grad, square - mean * mean);
        (param - self.0.outer_rate * buffer, [square, buffer, mean])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn each_form_keeps_the_slots_it_needs() {
        let plain = RmsProp::new(0.1).unwrap();
        let moving = plain.with_momentum(0.5).unwrap();
        for (rmsprop, slots) in [
            (plain, "square_avg"),
            (plain.with_centered(), "square_avg grad_avg"),
            (moving, "square_avg momentum_buffer"),
            (moving.with_centered(), "square_avg momentum_buffer grad_avg"),
        ] {
            let mut p = vec![1.0f64];
            let mut state = rmsprop.init(&p).unwrap();
            rmsprop.step(Step::new(&mut p, &[1.0], &mut state)).unwrap();
            assert!(p[0] < 0.5);
            let names: Vec<_> = state.slots().iter().map(|slot| slot.name()).collect();
            assert_eq!(names.join(" "), slots);
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let rmsprop = RmsProp::new(0.1).unwrap();
        assert!(rmsprop.with_alpha(1.0).is_err() && rmsprop.with_eps(-1.0).is_err());
        assert!(rmsprop.with_convention(Convention::Onnx).is_err());
        assert_eq!(rmsprop.with_convention(Convention::Keras).unwrap().eps(), 1e-7);
    }
}
