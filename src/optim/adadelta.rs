//! Adadelta.

use super::{
    hyper::{learning_rate, non_negative, numbers, switches},
    scalar::{Gradient, Squares, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::Result,
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// Adadelta (Zeiler 2012, arXiv:1212.5701), as PyTorch's `Adadelta` has it.
///
/// At each step, for each element `p` with gradient `g`:
///
/// ```text
/// g  = -g                          maximize
/// g  = g + weight_decay * p
/// s  = rho * s + (1 - rho) * g * g
/// u  = sqrt(a + eps) / sqrt(s + eps) * g
/// a  = rho * a + (1 - rho) * u * u
/// p  = p - learning_rate * u
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1) | `>= 0` | the step's length |
/// | `rho` | 0.9 | `0 <= rho < 1` | decay rate of the averages |
/// | `eps` | 1e-6 | `> 0` | starts the steps and keeps the root from 0 |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Adadelta};
/// let adadelta = Adadelta::new(1.0)?.with_rho(0.75)?.with_eps(1.0)?;
/// let mut weights = vec![1.0f64];
/// let mut state = adadelta.init(&weights)?;
/// adadelta.step(Step::new(&mut weights, &[2.0], &mut state))?;
/// assert_eq!(weights[0], 1.0 - 2.0 / 2f64.sqrt());
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adadelta {
    learning_rate: f64,
    rho: f64,
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Adadelta {
    /// Adadelta at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is negative or not finite.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let learning_rate = non_negative("learning_rate", learning_rate)?;
        Ok(Self { learning_rate, rho: 0.9, eps: 1e-6, weight_decay: 0.0, maximize: false })
    }

    numbers! {
        with_rho, rho: decay_rate, "the decay rate of the averages";
        with_eps, eps: positive, "what starts the steps and keeps the root from 0";
        with_weight_decay, weight_decay: non_negative, "the L2 penalty";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }
}

learning_rate!(Adadelta);

config! {
    Adadelta(learning_rate: f64) => Self::new(learning_rate),
    rho: f64 => Self::with_rho,
    eps: f64 => Self::with_eps,
    weight_decay: f64 => Self::with_weight_decay,
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOTS: [&str; 2] = ["square_avg", "acc_delta"];

impl<T: Element> Optimizer<T> for Adadelta {
    fn schema(&self, shape: &[usize]) -> Schema {
        SLOTS.iter().fold(Schema::new("Adadelta"), |schema, &name| schema.squares(name, shape, 0.0))
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        step.elementwise(SLOTS, |_| AdadeltaRule {
            gradient: Gradient::new(self.maximize, self.weight_decay),
            squares: Squares::new(self.rho),
            eps: narrow(self.eps),
            rate: narrow(self.learning_rate),
        })
    }
}

#[derive(Clone, Copy)]
struct AdadeltaRule<R> {
    gradient: Gradient<R>,
    squares: Squares<R>,
    eps: R,
    rate: R,
}

impl<R: Real> Rule<R, 2> for AdadeltaRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [square, delta]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.gradient.of(param, grad);
        let square = self.squares.next(square, grad);
        let update = (delta + self.eps).sqrt() / (square + self.eps).sqrt() * grad;
        (param - self.rate * update, [square, self.squares.next(delta, update)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn steps_grow_with_what_was_moved() {
        let adadelta = Adadelta::new(1.0).unwrap();
        let mut p = vec![0f64];
        let mut state = adadelta.init(&p).unwrap();
        let mut lengths = Vec::new();
        for _ in 0..5 {
            let before = p[0];
            adadelta.step(Step::new(&mut p, &[1.0], &mut state)).unwrap();
            lengths.push(before - p[0]);
        }
        assert!(lengths.is_sorted() && lengths[0] > 0.0, "{lengths:?}");
        assert!(adadelta.with_eps(0.0).is_err() && adadelta.with_rho(1.0).is_err());
    }
}
