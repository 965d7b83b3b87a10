//! RAdam.

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

/// RAdam, Adam whose early variance is rectified (Liu et al. 2020, arXiv:1908.03265), as PyTorch's `RAdam` has it.
///
/// At step `t`, for each element `p` with gradient `g`:
///
/// ```text
/// g   = -g                                                   maximize
/// g   = g + weight_decay * p                                 coupled
/// p   = p * (1 - learning_rate * weight_decay)               decoupled
/// m   = beta1 * m + (1 - beta1) * g
/// v   = beta2 * v + (1 - beta2) * g * g
/// R   = 2 / (1 - beta2) - 1
/// r   = R - 2 * t * beta2^t / (1 - beta2^t)
/// c   = sqrt((r - 4) (r - 2) R / ((R - 4) (R - 2) r))
/// p   = p - learning_rate / (1 - beta1^t) * m * c * sqrt(1 - beta2^t) / (sqrt(v) + eps)     r > 5
/// p   = p - learning_rate / (1 - beta1^t) * m                                               else
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1e-3) | `>= 0` | the step's length |
/// | `betas` | 0.9, 0.999 | `0 <= beta < 1` | decay rates of the moments |
/// | `eps` | 1e-8 | `>= 0` | added to the root; at 0 an element without any gradient yet becomes NaN |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty, or decoupled |
/// | `decoupled` | off | | the decay does not pass through the moments |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::RAdam};
/// let radam = RAdam::new(0.1)?;
/// let mut weights = vec![1.0f32];
/// let mut state = radam.init(&weights)?;
/// radam.step(Step::new(&mut weights, &[0.5], &mut state))?;
/// assert!((weights[0] - 0.95).abs() < 1e-6); // at first plain momentum
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RAdam {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
    maximize: bool,
}

impl RAdam {
    /// RAdam at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is negative or not finite.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
            maximize: false,
        })
    }

    betas!();

    numbers! {
        with_eps, eps: non_negative, "what is added to the root";
        with_weight_decay, weight_decay: non_negative, "the weight decay";
    }

    switches! {
        with_decoupled, decoupled, "keeps the weight decay out of the moments";
        with_maximize, maximize, "climbs instead of descending";
    }

    /// `c * sqrt(1 - beta2^t)`, once the average is long enough.
    fn rectification(&self, count: u64) -> Option<f64> {
        let beta2 = self.betas.1;
        let correction = bias_correction(beta2, count);
        let limit = 2.0 / (1.0 - beta2) - 1.0;
        let length = limit - 2.0 * count as f64 * (1.0 - correction) / correction;
        let ratio = (length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length);
        (length > 5.0).then(|| ratio.sqrt() * correction.sqrt())
    }
}

learning_rate!(RAdam);

config! {
    RAdam(learning_rate: f64) => Self::new(learning_rate),
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    eps: f64 => Self::with_eps,
    weight_decay: f64 => Self::with_weight_decay,
    decoupled: bool => |it, _| it.with_decoupled(),
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl<T: Element> Optimizer<T> for RAdam {
    fn schema(&self, shape: &[usize]) -> Schema {
        Schema::new("RAdam").moment(SLOTS[0], shape, 0.0).squares(SLOTS[1], shape, 0.0)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let (beta1, beta2) = self.betas;
        let (coupled, decoupled) = if self.decoupled { (0.0, self.weight_decay) } else { (self.weight_decay, 0.0) };
        step.elementwise(SLOTS, |count| {
            let rectification = self.rectification(count);
            RAdamRule {
                gradient: Gradient::new(self.maximize, coupled),
                shrink: narrow(1.0 - self.learning_rate * decoupled),
                mean: Average::new(beta1),
                squares: Squares::new(beta2),
                eps: narrow(self.eps),
                rectified: rectification.is_some(),
                rate: narrow(self.learning_rate / bias_correction(beta1, count) * rectification.unwrap_or(1.0)),
            }
        })
    }
}

#[derive(Clone, Copy)]
struct RAdamRule<R> {
    gradient: Gradient<R>,
    shrink: R,
    mean: Average<R>,
    squares: Squares<R>,
    eps: R,
    rectified: bool,
    rate: R,
}

impl<R: Real> Rule<R, 2> for RAdamRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.gradient.of(param, grad);
        let (m, v) = (self.mean.next(m, grad), self.squares.next(v, grad));
        let update = self.rate * m;
        let update = if self.rectified { update / (v.sqrt() + self.eps) } else { update };
        (self.shrink * param - update, [m, v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rectification_begins_at_step_six_and_goes_to_one() {
        let radam = RAdam::new(0.1).unwrap();
        assert_eq!((1..9).position(|t| radam.rectification(t).is_some()), Some(5));
        assert!((radam.rectification(1_000_000).unwrap() - 1.0).abs() < 1e-3);
        assert_eq!(radam.with_betas(0.9, 0.5).unwrap().rectification(1000), None);
    }
}
