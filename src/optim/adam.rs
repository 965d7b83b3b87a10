//! Adam and AdamW: one rule, the weight decay coupled or decoupled.

use super::hyper::{bias_correction, decay_rate, getters, learning_rate, narrow, non_negative, sign};
use crate::{
    element::{Element, Real},
    error::Result,
    kernel::rule::Rule,
    tensor::Schema,
    traits::{Optimizer, Step},
};

/// Hyper-parameters that Adam and AdamW share.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moments {
    betas: (f64, f64),
    eps: f64,
    amsgrad: bool,
    maximize: bool,
}

impl Default for Moments {
    fn default() -> Self {
        Self { betas: (0.9, 0.999), eps: 1e-8, amsgrad: false, maximize: false }
    }
}

macro_rules! moments_builders {
    () => {
        /// Sets the decay rates of the two moments.
        ///
        /// # Errors
        /// [`Argument`](crate::ErrorKind::Argument) when one is not in `0 <= beta < 1`.
        pub fn with_betas(mut self, beta1: f64, beta2: f64) -> Result<Self> {
            self.moments.betas = (decay_rate("beta1", beta1)?, decay_rate("beta2", beta2)?);
            Ok(self)
        }

        /// Sets what is added to the root.
        ///
        /// # Errors
        /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
        pub fn with_eps(mut self, eps: f64) -> Result<Self> {
            self.moments.eps = non_negative("eps", eps)?;
            Ok(self)
        }

        /// Sets the weight decay.
        ///
        /// # Errors
        /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
        pub fn with_weight_decay(mut self, weight_decay: f64) -> Result<Self> {
            self.weight_decay = non_negative("weight_decay", weight_decay)?;
            Ok(self)
        }

        /// Divides by the largest second moment so far (Reddi, Kale & Kumar 2018, arXiv:1904.09237):
        /// a third slot.
        #[must_use]
        pub fn with_amsgrad(mut self) -> Self {
            self.moments.amsgrad = true;
            self
        }

        /// Climbs instead of descending.
        #[must_use]
        pub fn with_maximize(mut self) -> Self {
            self.moments.maximize = true;
            self
        }

        getters! {
            betas: (f64, f64) = moments.betas, "The decay rates of the two moments.";
            eps: f64 = moments.eps, "What is added to the root.";
            weight_decay: f64 = weight_decay, "The weight decay.";
            amsgrad: bool = moments.amsgrad, "Whether the largest second moment so far divides.";
            maximize: bool = moments.maximize, "Whether it climbs.";
        }
    };
}

/// Adam (Kingma & Ba 2015, arXiv:1412.6980), as PyTorch's `Adam` has it.
///
/// At step `t`, for each element `p` with gradient `g`:
///
/// ```text
/// g   = -g                       maximize
/// g   = g + weight_decay * p
/// m   = beta1 * m + (1 - beta1) * g
/// v   = beta2 * v + (1 - beta2) * g * g
/// h   = max(h, v)                amsgrad; else h = v
/// p   = p - learning_rate / (1 - beta1^t) * m / (sqrt(h) / sqrt(1 - beta2^t) + eps)
/// ```
///
/// `m` is moved as an interpolation, `m + (1 - beta1) * (g - m)`, which does not cancel.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1e-3) | `>= 0` | the step's length |
/// | `betas` | 0.9, 0.999 | `0 <= beta < 1` | decay rates of the moments |
/// | `eps` | 1e-8 | `>= 0` | added to the root; at 0 an element without any gradient yet becomes NaN |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty; [`AdamW`] decouples it |
/// | `amsgrad` | off | | the largest second moment so far |
/// | `maximize` | off | | climbs |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Adam};
/// let adam = Adam::new(1e-3)?.with_betas(0.9, 0.95)?;
/// let mut weights = vec![1.0f32, -2.0];
/// let mut state = adam.init(&weights)?;
/// adam.step(Step::new(&mut weights, &[0.1, -50.0], &mut state))?;
/// assert!((weights[0] - 0.999).abs() < 1e-6 && (weights[1] + 1.999).abs() < 1e-6);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    learning_rate: f64,
    weight_decay: f64,
    moments: Moments,
}

impl Adam {
    /// Adam at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let learning_rate = non_negative("learning_rate", learning_rate)?;
        Ok(Self { learning_rate, weight_decay: 0.0, moments: Moments::default() })
    }

    moments_builders!();
}

learning_rate!(Adam);

impl<T: Element> Optimizer<T> for Adam {
    fn schema(&self, shape: &[usize]) -> Schema {
        self.moments.schema(shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        self.moments.step(step, self.learning_rate, self.weight_decay, 1.0)
    }
}

/// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), as PyTorch's `AdamW` has it: [`Adam`] whose
/// weight decay does not pass through the moments.
///
/// At step `t`, for each element, `p = p * (1 - learning_rate * weight_decay)` first, then Adam's
/// update without its line for weight decay. The hyper-parameters are [`Adam`]'s, except that
/// `weight_decay` is 1e-2 by default.
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::AdamW};
/// let adamw = AdamW::new(0.1)?.with_weight_decay(0.5)?;
/// let mut weights = vec![1.0f64];
/// let mut state = adamw.init(&weights)?;
/// adamw.step(Step::new(&mut weights, &[0.0], &mut state))?;
/// assert_eq!(weights, [0.95]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    learning_rate: f64,
    weight_decay: f64,
    moments: Moments,
}

impl AdamW {
    /// AdamW at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let learning_rate = non_negative("learning_rate", learning_rate)?;
        Ok(Self { learning_rate, weight_decay: 1e-2, moments: Moments::default() })
    }

    moments_builders!();
}

learning_rate!(AdamW);

impl<T: Element> Optimizer<T> for AdamW {
    fn schema(&self, shape: &[usize]) -> Schema {
        self.moments.schema(shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        self.moments.step(step, self.learning_rate, 0.0, 1.0 - self.learning_rate * self.weight_decay)
    }
}

const SLOTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const MAX_SLOT: &str = "max_exp_avg_sq";

impl Moments {
    fn schema(&self, shape: &[usize]) -> Schema {
        let schema = SLOTS.iter().fold(Schema::new(), |schema, &name| schema.slot(name, shape, 0.0));
        if self.amsgrad { schema.slot(MAX_SLOT, shape, 0.0) } else { schema }
    }

    fn step<T: Element>(&self, step: Step<'_, T>, learning_rate: f64, penalty: f64, shrink: f64) -> Result<()> {
        let (beta1, beta2) = self.betas;
        let rule = |count| AdamRule {
            sign: sign(self.maximize),
            penalty: narrow(penalty),
            shrink: narrow(shrink),
            beta1_rest: narrow(1.0 - beta1),
            beta1: narrow(beta1),
            slow: 1.0 - beta1 < 0.5,
            beta2: narrow(beta2),
            beta2_rest: narrow(1.0 - beta2),
            rate: narrow(learning_rate / bias_correction(beta1, count)),
            root: narrow(bias_correction(beta2, count).sqrt()),
            eps: narrow(self.eps),
        };
        if self.amsgrad {
            step.elementwise([SLOTS[0], SLOTS[1], MAX_SLOT], rule)
        } else {
            step.elementwise(SLOTS, rule)
        }
    }
}

#[derive(Clone, Copy)]
struct AdamRule<R> {
    sign: R,
    penalty: R,
    shrink: R,
    beta1: R,
    beta1_rest: R,
    slow: bool,
    beta2: R,
    beta2_rest: R,
    rate: R,
    root: R,
    eps: R,
}

impl<R: Real> AdamRule<R> {
    /// Decayed parameter and new moments.
    #[inline(always)]
    fn moments(&self, param: R, grad: R, m: R, v: R) -> (R, R, R) {
        let grad = self.sign * grad;
        let grad = if self.penalty == R::zero() { grad } else { grad + self.penalty * param };
        let step = grad - m;
        let m = if self.slow { m + self.beta1_rest * step } else { grad - step * self.beta1 };
        let v = self.beta2 * v + self.beta2_rest * grad * grad;
        (self.shrink * param, m, v)
    }

    #[inline(always)]
    fn moved(&self, param: R, m: R, v: R) -> R {
        param - self.rate * m / (v.sqrt() / self.root + self.eps)
    }
}

impl<R: Real> Rule<R, 2> for AdamRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let (param, m, v) = self.moments(param, grad, m, v);
        (self.moved(param, m, v), [m, v])
    }
}

impl<R: Real> Rule<R, 3> for AdamRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, v, largest]: [R; 3]) -> (R, [R; 3]) {
        let (param, m, v) = self.moments(param, grad, m, v);
        // As IEEE maximum: a NaN stays.
        let largest = if v < largest { largest } else { v };
        (self.moved(param, m, largest), [m, v, largest])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mask, OptimizerExt};
    use half::bf16;

    #[test]
    fn a_step_in_f64_by_hand() {
        let adam = Adam::new(0.1).unwrap().with_eps(1e-3).unwrap().with_weight_decay(0.5).unwrap();
        let mut p = vec![2.0f64];
        let mut state = adam.init(&p).unwrap();
        adam.step(Step::new(&mut p, &[1.0], &mut state)).unwrap();
        // g = 1 + 0.5 * 2 = 2; m = 0.2, v = 0.004: corrected to 2 and 4.
        approx::assert_relative_eq!(p[0], 2.0 - 0.1 * 2.0 / (2.0 + 1e-3), max_relative = 1e-14);
    }

    #[test]
    fn amsgrad_does_not_forget_a_large_gradient() {
        let adam = Adam::new(0.1).unwrap().with_betas(0.9, 0.5).unwrap().with_amsgrad();
        let mut p = vec![0f32];
        let mut state = adam.init(&p).unwrap();
        for g in [10.0, 0.0, 0.0, 0.0] {
            adam.step(Step::new(&mut p, &[g], &mut state)).unwrap();
        }
        assert_eq!(state.slot(MAX_SLOT).unwrap().values().get(0), Some(50.0));
    }

    #[test]
    fn pruned_weights_and_their_state_stay_put() {
        let adam = AdamW::new(0.1).unwrap();
        let mut p = vec![bf16::from_f32(1.0); 100];
        let g = vec![bf16::from_f32(f32::NAN); 100];
        let mask = Mask::from_fn(&[100], |i| i == 77).unwrap();
        let mut state = adam.init(&p).unwrap();
        adam.step(Step::new(&mut p, &g, &mut state).mask(&mask)).unwrap();
        for (i, p) in p.iter().enumerate() {
            assert_eq!(p.is_nan(), i == 77);
            assert_eq!(*p == bf16::ZERO, i != 77);
            assert_eq!(state.slot(SLOTS[1]).unwrap().values().get(i) == Some(0.0), i != 77);
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let adam = Adam::new(1e-3).unwrap();
        assert!(
            adam.with_betas(1.0, 0.9).is_err()
                && adam.with_betas(0.9, -0.1).is_err()
                && adam.with_betas(0.9, f64::NAN).is_err()
        );
        assert!(adam.with_eps(-1.0).is_err() && adam.with_weight_decay(-1.0).is_err() && AdamW::new(-1.0).is_err());
    }
}
