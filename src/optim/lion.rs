//! Lion.

use super::{
    hyper::{betas, learning_rate, non_negative, numbers, switches},
    scalar::{Average, Gradient, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::Result,
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// Lion (Chen et al. 2023, arXiv:2302.06675), as optax's `lion` has it.
///
/// At each step, for each element `p` with gradient `g`:
///
/// ```text
/// g  = -g                                             maximize
/// u  = sign(beta1 * m + (1 - beta1) * g)              0 where that is 0
/// m  = beta2 * m + (1 - beta2) * g
/// p  = p - learning_rate * (u + weight_decay * p)
/// ```
///
/// One slot. Every step is as long, so rates are 3 to 10 times smaller and decays as much larger than AdamW's.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (1e-4 is common) | `>= 0` | the step's length |
/// | `betas` | 0.9, 0.99 | `0 <= beta < 1` | decay rates of the direction and of the moment |
/// | `weight_decay` | 1e-3 | `>= 0` | decoupled |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Lion};
/// let lion = Lion::new(0.25)?.with_weight_decay(0.0)?;
/// let mut weights = vec![1.0f32, 1.0, 1.0];
/// let mut state = lion.init(&weights)?;
/// lion.step(Step::new(&mut weights, &[100.0, -1e-6, 0.0], &mut state))?;
/// assert_eq!(weights, [0.75, 1.25, 1.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lion {
    learning_rate: f64,
    betas: (f64, f64),
    weight_decay: f64,
    maximize: bool,
}

impl Lion {
    /// Lion at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is negative or not finite.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let learning_rate = non_negative("learning_rate", learning_rate)?;
        Ok(Self { learning_rate, betas: (0.9, 0.99), weight_decay: 1e-3, maximize: false })
    }

    betas!();

    numbers! {
        with_weight_decay, weight_decay: non_negative, "the decoupled weight decay";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }
}

learning_rate!(Lion);

config! {
    Lion(learning_rate: f64) => Self::new(learning_rate),
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    weight_decay: f64 => Self::with_weight_decay,
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOT: &str = "exp_avg";

impl<T: Element> Optimizer<T> for Lion {
    fn schema(&self, shape: &[usize]) -> Schema {
        Schema::new("Lion").velocity(SLOT, shape, 0.0)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let (beta1, beta2) = self.betas;
        step.elementwise([SLOT], |_| LionRule {
            gradient: Gradient::new(self.maximize, 0.0),
            beta1: narrow(beta1),
            beta1_rest: narrow(1.0 - beta1),
            mean: Average::new(beta2),
            decay: narrow(self.weight_decay),
            rate: narrow(self.learning_rate),
        })
    }
}

#[derive(Clone, Copy)]
struct LionRule<R> {
    gradient: Gradient<R>,
    beta1: R,
    beta1_rest: R,
    mean: Average<R>,
    decay: R,
    rate: R,
}

impl<R: Real> Rule<R, 1> for LionRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let grad = self.gradient.of(param, grad);
        let direction = self.beta1 * m + self.beta1_rest * grad;
        let sign = if direction > R::zero() {
            R::one()
        } else if direction < R::zero() {
            -R::one()
        } else {
            direction // 0 or NaN
        };
        let update = if self.decay == R::zero() { sign } else { sign + self.decay * param };
        (param - self.rate * update, [self.mean.next(m, grad)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn the_moment_outlives_the_direction() {
        let lion = Lion::new(1.0).unwrap().with_weight_decay(0.0).unwrap().with_betas(0.0, 0.5).unwrap();
        let mut p = vec![0f64];
        let mut state = lion.init(&p).unwrap();
        for g in [8.0, -1.0] {
            lion.step(Step::new(&mut p, &[g], &mut state)).unwrap();
        }
        assert_eq!((p[0], state.slot(SLOT).unwrap().values().get(0)), (0.0, Some(1.5)));
        lion.step(Step::new(&mut p, &[f64::NAN], &mut state)).unwrap();
        assert!(p[0].is_nan());
    }
}
