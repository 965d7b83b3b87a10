//! LAMB.

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
    traits::{OpenStep, Optimizer, Step},
};

/// LAMB, Adam whose step is as long as the layer is large (You et al. 2020, arXiv:1904.00962), as optax's `lamb` has it.
///
/// At step `t`, for a whole parameter `p` with gradient `g`:
///
/// ```text
/// g  = -g                                              maximize
/// m  = beta1 * m + (1 - beta1) * g
/// v  = beta2 * v + (1 - beta2) * g * g
/// u  = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p
/// r  = ‖p‖ / ‖u‖                                       1 where either is 0
/// p  = p - learning_rate * r * u
/// ```
///
/// Not element-wise: the norms are of the whole parameter, in `f64`, pruned elements left out. Two passes over memory.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – | `>= 0` | the step's length relative to the parameter's |
/// | `betas` | 0.9, 0.999 | `0 <= beta < 1` | decay rates of the moments |
/// | `eps` | 1e-6 | `> 0` | added to the root |
/// | `weight_decay` | 0 | `>= 0` | inside the ratio |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Lamb};
/// let lamb = Lamb::new(0.1)?;
/// let mut weights = vec![3.0f32, 4.0];
/// let mut state = lamb.init(&weights)?;
/// lamb.step(Step::new(&mut weights, &[1.0, 1.0], &mut state))?;
/// let moved = ((weights[0] - 3.0).powi(2) + (weights[1] - 4.0).powi(2)).sqrt();
/// assert!((moved - 0.1 * 5.0).abs() < 1e-5);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lamb {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Lamb {
    /// LAMB at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let learning_rate = non_negative("learning_rate", learning_rate)?;
        Ok(Self { learning_rate, betas: (0.9, 0.999), eps: 1e-6, weight_decay: 0.0, maximize: false })
    }

    betas!();

    numbers! {
        with_eps, eps: positive, "what is added to the root";
        with_weight_decay, weight_decay: non_negative, "the weight decay";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }
}

learning_rate!(Lamb);

config! {
    Lamb(learning_rate: f64) => Self::new(learning_rate),
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    eps: f64 => Self::with_eps,
    weight_decay: f64 => Self::with_weight_decay,
    maximize: bool => |it, _| it.with_maximize(),
}

const SLOTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl<T: Element> Optimizer<T> for Lamb {
    fn schema(&self, shape: &[usize]) -> Schema {
        SLOTS.iter().fold(Schema::new("Lamb"), |schema, &name| schema.slot(name, shape, 0.0))
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        step.open(SLOTS, [], |open| self.update(open))
    }
}

impl Lamb {
    fn update<T: Element>(&self, mut open: OpenStep<'_, T, 2, 0>) {
        let (beta1, beta2) = self.betas;
        open.update(&Moments {
            gradient: Gradient::new(self.maximize, 0.0),
            mean: Average::new(beta1),
            squares: Squares::new(beta2),
        });
        let direction = Direction {
            bias1: narrow(bias_correction(beta1, open.count)),
            bias2: narrow(bias_correction(beta2, open.count)),
            eps: narrow(self.eps),
            decay: narrow(self.weight_decay),
        };
        let size = open.norm(|p, _| p);
        let length = open.norm(|p, [m, v]| direction.of(p, m, v));
        let ratio = if size == 0.0 || length == 0.0 { 1.0 } else { size / length };
        open.update(&Move { direction, rate: narrow(self.learning_rate * ratio) });
    }
}

/// Moves the moments; the parameter stays.
#[derive(Clone, Copy)]
struct Moments<R> {
    gradient: Gradient<R>,
    mean: Average<R>,
    squares: Squares<R>,
}

impl<R: Real> Rule<R, 2> for Moments<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let grad = self.gradient.of(param, grad);
        (param, [self.mean.next(m, grad), self.squares.next(v, grad)])
    }
}

/// Adam's direction from the moments.
#[derive(Clone, Copy)]
struct Direction<R> {
    bias1: R,
    bias2: R,
    eps: R,
    decay: R,
}

impl<R: Real> Direction<R> {
    #[inline(always)]
    fn of(&self, param: R, m: R, v: R) -> R {
        let adam = m / self.bias1 / ((v / self.bias2).sqrt() + self.eps);
        if self.decay == R::zero() { adam } else { adam + self.decay * param }
    }
}

/// Moves the parameter; the moments stay.
#[derive(Clone, Copy)]
struct Move<R> {
    direction: Direction<R>,
    rate: R,
}

impl<R: Real> Rule<R, 2> for Move<R> {
    #[inline(always)]
    fn update(&self, param: R, _: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        (param - self.rate * self.direction.of(param, m, v), [m, v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mask, OptimizerExt};

    #[test]
    fn pruned_weights_do_not_count_and_zeros_can_move() {
        let lamb = Lamb::new(0.1).unwrap();
        let mask = Mask::from_fn(&[3], |i| i < 2).unwrap();
        let (mut p, mut q) = (vec![3f32, 4.0, 100.0], vec![3f32, 4.0]);
        let (mut p_state, mut q_state) = (lamb.init(&p).unwrap(), lamb.init(&q).unwrap());
        lamb.step(Step::new(&mut p, &[1.0, -1.0, f32::NAN], &mut p_state).mask(&mask)).unwrap();
        lamb.step(Step::new(&mut q, &[1.0, -1.0], &mut q_state)).unwrap();
        assert_eq!((&p[..2], p[2]), (&q[..], 0.0));
        let mut zero = vec![0f64];
        let mut state = lamb.init(&zero).unwrap();
        lamb.step(Step::new(&mut zero, &[1.0], &mut state)).unwrap();
        assert!((zero[0] + 0.1).abs() < 1e-6);
        assert!(lamb.with_eps(0.0).is_err());
    }
}
