//! Adamax.

use super::{
    hyper::{betas, learning_rate, non_negative, numbers, switches},
    scalar::{Average, Gradient, bias_correction, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::Result,
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// Adamax, Adam by the largest gradient (Kingma & Ba 2015, arXiv:1412.6980, section 7), as PyTorch's `Adamax` has it.
///
/// At step `t`, for each element `p` with gradient `g`:
///
/// ```text
/// g  = -g                          maximize
/// g  = g + weight_decay * p
/// m  = beta1 * m + (1 - beta1) * g
/// u  = max(beta2 * u, |g| + eps)
/// p  = p - learning_rate / (1 - beta1^t) * m / u
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 2e-3) | `>= 0` | the step's length |
/// | `betas` | 0.9, 0.999 | `0 <= beta < 1` | decay rates of the moments |
/// | `eps` | 1e-8 | `> 0` | keeps the divisor from 0 |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Adamax};
/// let adamax = Adamax::new(0.5)?;
/// let mut weights = vec![1.0f32, 1.0];
/// let mut state = adamax.init(&weights)?;
/// adamax.step(Step::new(&mut weights, &[4.0, -0.25], &mut state))?;
/// assert!((weights[0] - 0.5).abs() < 1e-6 && (weights[1] - 1.5).abs() < 1e-6);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adamax {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Adamax {
    /// Adamax at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is negative or not finite.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let learning_rate = non_negative("learning_rate", learning_rate)?;
        Ok(Self { learning_rate, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false })
    }

    betas!();

    numbers! {
        with_eps, eps: positive, "what keeps the divisor from 0";
        with_weight_decay, weight_decay: non_negative, "the L2 penalty";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }
}

learning_rate!(Adamax);

config! {
    Adamax(learning_rate: f64) => Self::new(learning_rate),
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    eps: f64 => Self::with_eps,
    weight_decay: f64 => Self::with_weight_decay,
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOTS: [&str; 2] = ["exp_avg", "exp_inf"];

impl<T: Element> Optimizer<T> for Adamax {
    fn schema(&self, shape: &[usize]) -> Schema {
        Schema::new("Adamax").moment(SLOTS[0], shape, 0.0).squares(SLOTS[1], shape, 0.0)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let (beta1, beta2) = self.betas;
        step.elementwise(SLOTS, |count| AdamaxRule {
            gradient: Gradient::new(self.maximize, self.weight_decay),
            mean: Average::new(beta1),
            beta2: narrow(beta2),
            eps: narrow(self.eps),
            rate: narrow(self.learning_rate / bias_correction(beta1, count)),
        })
    }
}

#[derive(Clone, Copy)]
struct AdamaxRule<R> {
    gradient: Gradient<R>,
    mean: Average<R>,
    beta2: R,
    eps: R,
    rate: R,
}

impl<R: Real> Rule<R, 2> for AdamaxRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, u]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.gradient.of(param, grad);
        let m = self.mean.next(m, grad);
        let (decayed, fresh) = (self.beta2 * u, grad.abs() + self.eps);
        // As IEEE maximum: a NaN stays.
        let u = if fresh < decayed { decayed } else { fresh };
        (param - self.rate * m / u, [m, u])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn a_large_gradient_is_remembered_and_fades() {
        let adamax = Adamax::new(0.1).unwrap().with_betas(0.9, 0.5).unwrap();
        let mut p = vec![0f32];
        let mut state = adamax.init(&p).unwrap();
        for g in [8.0, 1.0] {
            adamax.step(Step::new(&mut p, &[g], &mut state)).unwrap();
        }
        assert_eq!(state.slot(SLOTS[1]).unwrap().values().get(0), Some(4.0));
        assert!(adamax.with_eps(0.0).is_err());
    }
}
