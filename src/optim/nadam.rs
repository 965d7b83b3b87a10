//! NAdam.

use super::{
    hyper::{betas, learning_rate, non_negative, numbers, switches},
    scalar::{Average, Gradient, Squares, bias_correction, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::Result,
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// NAdam, Adam with Nesterov momentum (Dozat 2016, ICLR workshop), as PyTorch's `NAdam` has it.
///
/// At step `t`, for each element `p` with gradient `g`:
///
/// ```text
/// g    = -g                                                  maximize
/// g    = g + weight_decay * p                                coupled
/// p    = p * (1 - learning_rate * weight_decay)              decoupled
/// mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2)
/// M    = M * mu_t
/// m    = beta1 * m + (1 - beta1) * g
/// v    = beta2 * v + (1 - beta2) * g * g
/// d    = sqrt(v / (1 - beta2^t)) + eps
/// p    = p - learning_rate * (1 - mu_t) / (1 - M) * g / d
/// p    = p - learning_rate * mu_{t+1} / (1 - M * mu_{t+1}) * m / d
/// ```
///
/// `M` is a scalar of the state, `mu_product`, kept in `f64` (PyTorch keeps it in `f32`).
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 2e-3) | `>= 0` | the step's length |
/// | `betas` | 0.9, 0.999 | `0 <= beta < 1` | decay rates of the moments |
/// | `eps` | 1e-8 | `>= 0` | added to the root; at 0 an element without any gradient yet becomes NaN |
/// | `momentum_decay` | 4e-3 | `>= 0` | how the momentum grows with the steps taken |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty, or decoupled |
/// | `decoupled` | off | | the decay does not pass through the moments |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::NAdam};
/// let nadam = NAdam::new(0.1)?;
/// let mut weights = vec![1.0f32];
/// let mut state = nadam.init(&weights)?;
/// nadam.step(Step::new(&mut weights, &[1.0], &mut state))?;
/// assert!(weights[0] < 0.9); // further than Adam's first step
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NAdam {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    momentum_decay: f64,
    weight_decay: f64,
    decoupled: bool,
    maximize: bool,
}

impl NAdam {
    /// NAdam at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is negative or not finite.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            betas: (0.9, 0.999),
            eps: 1e-8,
            momentum_decay: 4e-3,
            weight_decay: 0.0,
            decoupled: false,
            maximize: false,
        })
    }

    betas!();

    numbers! {
        with_eps, eps: non_negative, "what is added to the root";
        with_momentum_decay, momentum_decay: non_negative, "how the momentum grows with the steps taken";
        with_weight_decay, weight_decay: non_negative, "the weight decay";
    }

    switches! {
        with_decoupled, decoupled, "keeps the weight decay out of the moments";
        with_maximize, maximize, "climbs instead of descending";
    }

    fn momentum(&self, count: f64) -> f64 {
        self.betas.0 * (1.0 - 0.5 * libm::pow(0.96, count * self.momentum_decay))
    }
}

learning_rate!(NAdam);

config! {
    NAdam(learning_rate: f64) => Self::new(learning_rate),
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    eps: f64 => Self::with_eps,
    momentum_decay: f64 => Self::with_momentum_decay,
    weight_decay: f64 => Self::with_weight_decay,
    decoupled: bool => |it, _| it.with_decoupled(),
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const PRODUCT: &str = "mu_product";

impl<T: Element> Optimizer<T> for NAdam {
    fn schema(&self, shape: &[usize]) -> Schema {
        let schema = Schema::new("NAdam").moment(SLOTS[0], shape, 0.0).squares(SLOTS[1], shape, 0.0);
        schema.scalar(PRODUCT, 1.0)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let (beta1, beta2) = self.betas;
        let (coupled, decoupled) = if self.decoupled { (0.0, self.weight_decay) } else { (self.weight_decay, 0.0) };
        step.elementwise_with(SLOTS, [PRODUCT], |count, [product]| {
            let (now, next) = (self.momentum(count as f64), self.momentum(count as f64 + 1.0));
            *product *= now;
            NAdamRule {
                gradient: Gradient::new(self.maximize, coupled),
                shrink: narrow(1.0 - self.learning_rate * decoupled),
                mean: Average::new(beta1),
                squares: Squares::new(beta2),
                correction: narrow(bias_correction(beta2, count)),
                eps: narrow(self.eps),
                grad_rate: narrow(self.learning_rate * (1.0 - now) / (1.0 - *product)),
                mean_rate: narrow(self.learning_rate * next / (1.0 - *product * next)),
            }
        })
    }
}

#[derive(Clone, Copy)]
struct NAdamRule<R> {
    gradient: Gradient<R>,
    shrink: R,
    mean: Average<R>,
    squares: Squares<R>,
    correction: R,
    eps: R,
    grad_rate: R,
    mean_rate: R,
}

impl<R: Real> Rule<R, 2> for NAdamRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.gradient.of(param, grad);
        let (m, v) = (self.mean.next(m, grad), self.squares.next(v, grad));
        let divisor = (v / self.correction).sqrt() + self.eps;
        let param = self.shrink * param - self.grad_rate * grad / divisor;
        (param - self.mean_rate * m / divisor, [m, v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn the_product_of_momenta_is_kept() {
        let nadam = NAdam::new(0.1).unwrap();
        let mut p = vec![0f32];
        let mut state = nadam.init(&p).unwrap();
        assert_eq!(state.scalar(PRODUCT), Some(1.0));
        (0..3).for_each(|_| nadam.step(Step::new(&mut p, &[1.0], &mut state)).unwrap());
        assert_eq!(state.scalar(PRODUCT), Some((1..4).fold(1.0, |m, t| m * nadam.momentum(f64::from(t)))));
        assert!(nadam.with_momentum_decay(-1.0).is_err());
    }
}
