//! Schedule-Free AdamW.

use super::{
    hyper::{decay_rate, learning_rate, non_negative, numbers, switches},
    scalar::{Gradient, Squares, bias_correction, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::{Error, Result},
    kernel::rule::Rule,
    tensor::{Schema, State, TensorMut, TensorRef},
    traits::{Optimizer, Step},
};

/// Schedule-Free AdamW (Defazio et al. 2024, arXiv:2405.15682), as optax's `schedule_free_adamw` has it: no schedule that must know
/// the last step; averaging takes its place.
///
/// Three points belong to a parameter: `y`, where gradients are taken and which the caller holds; `z`, which the steps
/// move; `x`, the average, for evaluation: ask [`Optimizer::evaluate`] for it. At step `t`, for each element with gradient `g`:
///
/// ```text
/// g  = -g                                                     maximize
/// v  = beta2 * v + (1 - beta2) * g * g
/// w  = (largest learning rate so far)^weight_power;  W = W + w;  c = w / W
/// x  = (y - (1 - beta1) * z) / beta1
/// z  = z - learning_rate * (g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * y)
/// x  = (1 - c) * x + c * z
/// y  = beta1 * x + (1 - beta1) * z
/// ```
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (optax: 2.5e-3) | `>= 0` | the step's length; warm-up is welcome |
/// | `betas` | 0.9, 0.999 | `0 < beta1 < 1`, `0 <= beta2 < 1` | where gradients are taken; decay rate of the second moment |
/// | `eps` | 1e-8 | `> 0` | added to the root |
/// | `weight_decay` | 0 | `>= 0` | decoupled, at `y` |
/// | `weight_power` | 2 | `>= 0` | how much less steps of small rates count in the average |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::ScheduleFree};
/// let optimizer = ScheduleFree::new(0.1)?;
/// let mut y = vec![1.0f64];
/// let mut state = optimizer.init(&y)?;
/// for _ in 0..100 {
///     let gradient = [2.0 * y[0]];
///     optimizer.step(Step::new(&mut y, &gradient, &mut state))?;
/// }
/// let mut x = vec![0.0f64];
/// optimizer.evaluate((&y).into(), &state, (&mut x).into())?;
/// assert!(x[0].abs() < 0.2);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScheduleFree {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    weight_power: f64,
    maximize: bool,
}

impl ScheduleFree {
    /// Schedule-Free AdamW at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            weight_power: 2.0,
            maximize: false,
        })
    }

    /// Sets where gradients are taken between the average and the moving point, and the decay rate of the second moment.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless `0 < beta1 < 1` and `0 <= beta2 < 1`.
    pub fn with_betas(self, beta1: f64, beta2: f64) -> Result<Self> {
        if decay_rate("beta1", beta1)? == 0.0 {
            return Err(Error::argument("beta1", beta1, "above 0 and less than 1"));
        }
        Ok(Self { betas: (beta1, decay_rate("beta2", beta2)?), ..self })
    }

    /// Returns where gradients are taken, and the decay rate of the second moment.
    #[must_use]
    pub fn betas(&self) -> (f64, f64) {
        self.betas
    }

    numbers! {
        with_eps, eps: positive, "what is added to the root";
        with_weight_decay, weight_decay: non_negative, "the decoupled weight decay";
        with_weight_power, weight_power: non_negative, "how much less steps of small rates count in the average";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }
}

learning_rate!(ScheduleFree);

config! {
    ScheduleFree(learning_rate: f64) => Self::new(learning_rate),
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    eps: f64 => Self::with_eps,
    weight_decay: f64 => Self::with_weight_decay,
    weight_power: f64 => Self::with_weight_power,
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOTS: [&str; 2] = ["z", "exp_avg_sq"];
const SCALARS: [&str; 2] = ["weight_sum", "max_learning_rate"];

impl<T: Element> Optimizer<T> for ScheduleFree {
    fn schema(&self, shape: &[usize]) -> Schema {
        let schema = SCALARS.iter().fold(Schema::new("ScheduleFree"), |schema, &name| schema.scalar(name, 0.0));
        schema.weights(SLOTS[0], shape).slot(SLOTS[1], shape, 0.0)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let (beta1, beta2) = self.betas;
        step.elementwise_with(SLOTS, SCALARS, |count, [sum, largest]| {
            *largest = largest.max(self.learning_rate);
            let weight = libm::pow(*largest, self.weight_power);
            *sum += weight;
            // No step has counted yet while all rates were 0.
            let share = if *sum == 0.0 { 0.0 } else { weight / *sum };
            ScheduleFreeRule {
                gradient: Gradient::new(self.maximize, 0.0),
                first: count == 1,
                beta1: narrow(beta1),
                beta1_rest: narrow(1.0 - beta1),
                squares: Squares::new(beta2),
                correction: narrow(bias_correction(beta2, count)),
                eps: narrow(self.eps),
                decay: narrow(self.weight_decay),
                rate: narrow(self.learning_rate),
                share: narrow(share),
                share_rest: narrow(1.0 - share),
            }
        })
    }

    fn evaluate(&self, param: TensorRef<'_, T>, state: &State, mut out: TensorMut<'_, T>) -> Result<()> {
        if param.shape() != state.shape() || param.shape() != out.shape() {
            return Err(Error::shape("parameter to evaluate", state.shape(), param.shape()));
        }
        let z = state.slot(SLOTS[0]).and_then(|slot| slot.values().as_slice::<T::Real>());
        let z = z.filter(|z| z.len() == param.len()).ok_or_else(|| Error::state("has no slot \"z\" of this type"))?;
        let out = out.as_mut_slice();
        out.copy_from_slice(param.as_slice());
        if state.steps() > 0 {
            let (beta1, rest): (T::Real, T::Real) = (narrow(self.betas.0), narrow(1.0 - self.betas.0));
            for (x, &z) in out.iter_mut().zip(z) {
                *x = T::from_real((x.to_real() - rest * z) / beta1);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct ScheduleFreeRule<R> {
    gradient: Gradient<R>,
    first: bool,
    beta1: R,
    beta1_rest: R,
    squares: Squares<R>,
    correction: R,
    eps: R,
    decay: R,
    rate: R,
    share: R,
    share_rest: R,
}

impl<R: Real> Rule<R, 2> for ScheduleFreeRule<R> {
    #[inline(always)]
    fn update(&self, y: R, grad: R, [z, v]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.gradient.of(y, grad);
        let z = if self.first { y } else { z };
        let v = self.squares.next(v, grad);
        let x = (y - self.beta1_rest * z) / self.beta1;
        let update = grad / ((v / self.correction).sqrt() + self.eps);
        let update = if self.decay == R::zero() { update } else { update + self.decay * y };
        let z = z - self.rate * update;
        let x = self.share_rest * x + self.share * z;
        (self.beta1 * x + self.beta1_rest * z, [z, v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerExt;

    #[test]
    fn the_average_is_that_of_the_moving_points() {
        let optimizer = ScheduleFree::new(0.1).unwrap();
        let mut y = vec![1f64];
        let mut state = optimizer.init(&y).unwrap();
        let mut points = Vec::new();
        for step in 1..5 {
            optimizer.step(Step::new(&mut y, &[1.0 / f64::from(step)], &mut state)).unwrap();
            points.push(state.slot("z").unwrap().values().get(0).unwrap());
            let mut x = vec![0f64];
            optimizer.evaluate((&y).into(), &state, (&mut x).into()).unwrap();
            approx::assert_relative_eq!(x[0], points.iter().sum::<f64>() / points.len() as f64, max_relative = 1e-12);
        }
        assert!(optimizer.with_betas(0.0, 0.9).is_err());
        assert!(optimizer.evaluate((&[1.0, 2.0]).into(), &state, (&mut y).into()).is_err());
    }

    #[test]
    fn a_rate_of_zero_moves_nothing() {
        let optimizer = ScheduleFree::new(0.0).unwrap();
        let mut y = vec![1f64];
        let mut state = optimizer.init(&y).unwrap();
        optimizer.step(Step::new(&mut y, &[1.0], &mut state)).unwrap();
        approx::assert_relative_eq!(y[0], 1.0, max_relative = 1e-15);
    }
}
