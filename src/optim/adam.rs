//! Adam and AdamW: one rule, the weight decay coupled or decoupled.

use super::{
    Convention,
    hyper::{betas, learning_rate, non_negative, numbers, switches, unsupported},
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
/// p   = p - learning_rate / (1 - beta1^t) * m / (sqrt(h) * (1 / sqrt(1 - beta2^t)) + eps)   PyTorch
/// p   = p - learning_rate / (1 - beta1^t) * m / (sqrt(h / (1 - beta2^t) + eps_root) + eps)  optax
/// p   = p - learning_rate * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(h) + eps)         Keras, ONNX
/// p   = p * (1 - decay_after)                                                               ONNX
/// ```
///
/// ONNX counts from 0 and does not correct at its step 0. `m` is moved as an interpolation,
/// `m + (1 - beta1) * (g - m)`, which does not cancel.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (1e-3 is common) | `>= 0` | the step's length |
/// | `betas` | 0.9, 0.999 | `0 <= beta < 1` | decay rates of the moments |
/// | `eps` | 1e-8 (Keras: 1e-7, ONNX: 1e-6) | `>= 0` | added to the root; at 0 an element without any gradient yet becomes NaN |
/// | `eps_root` | 0 | `>= 0` | added inside the root, optax only |
/// | `weight_decay` | 0 | `>= 0` | L2 penalty; [`AdamW`] decouples it |
/// | `decay_after` | 0 | `>= 0` | what a step takes off the parameter after it, ONNX only |
/// | `amsgrad` | off | | the largest second moment so far divides: a third slot (Reddi, Kale & Kumar 2018, arXiv:1904.09237) |
/// | `maximize` | off | | climbs |
/// | `convention` | PyTorch | all | where `eps` stands |
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
    betas: (f64, f64),
    eps: f64,
    eps_root: f64,
    weight_decay: f64,
    decay_after: f64,
    amsgrad: bool,
    maximize: bool,
    convention: Convention,
}

impl Adam {
    /// Adam at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            betas: (0.9, 0.999),
            eps: 1e-8,
            eps_root: 0.0,
            weight_decay: 0.0,
            decay_after: 0.0,
            amsgrad: false,
            maximize: false,
            convention: Convention::PyTorch,
        })
    }

    /// Follows another library, with its `eps`, and without what only another has.
    #[must_use]
    pub fn with_convention(self, convention: Convention) -> Self {
        Self { convention, eps: default_eps(convention), eps_root: 0.0, decay_after: 0.0, ..self }
    }

    /// Sets what is added inside the root.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the convention is optax's and it is in 0 ..= 3.4e38.
    pub fn with_eps_root(self, eps_root: f64) -> Result<Self> {
        match self.convention {
            Convention::Optax => Ok(Self { eps_root: non_negative("eps_root", eps_root)?, ..self }),
            other => Err(unsupported(other, "Optax, to have an eps_root")),
        }
    }

    /// Sets what a step takes off the parameter after it (`norm_coefficient_post`).
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the convention is ONNX's and it is in 0 ..= 3.4e38.
    pub fn with_decay_after(self, decay_after: f64) -> Result<Self> {
        match self.convention {
            Convention::Onnx => Ok(Self { decay_after: non_negative("decay_after", decay_after)?, ..self }),
            other => Err(unsupported(other, "Onnx, to have a decay_after")),
        }
    }

    betas!();

    numbers! {
        with_eps, eps: non_negative, "what is added to the root";
        with_weight_decay, weight_decay: non_negative, "the L2 penalty";
    }

    switches! {
        with_amsgrad, amsgrad, "divides by the largest second moment so far";
        with_maximize, maximize, "climbs instead of descending";
    }

    /// The library it follows.
    #[must_use]
    pub fn convention(&self) -> Convention {
        self.convention
    }
}

learning_rate!(Adam);

config! {
    Adam(learning_rate: f64) => Self::new(learning_rate),
    convention: Convention => Self::with_convention,
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    eps: f64 => Self::with_eps,
    eps_root: f64 => Self::with_eps_root,
    weight_decay: f64 => Self::with_weight_decay,
    decay_after: f64 => Self::with_decay_after,
    amsgrad: bool => |it, _| it.with_amsgrad(),
    maximize: bool => |it, _| it.with_maximize(),
}

impl<T: Element> Optimizer<T> for Adam {
    fn schema(&self, shape: &[usize]) -> Schema {
        schema("Adam", self.amsgrad, shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        step_adam(self, 1.0, step)
    }
}

/// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), as PyTorch's `AdamW` has it: [`Adam`] whose
/// weight decay does not pass through the moments.
///
/// At step `t`, for each element, `p = p * (1 - learning_rate * weight_decay)` first, then Adam's
/// update without its line for weight decay. The hyper-parameters are [`Adam`]'s, except that
/// `weight_decay` is 1e-2 by default (Keras: 4e-3, optax: 1e-4). ONNX has no AdamW.
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
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    amsgrad: bool,
    maximize: bool,
    convention: Convention,
}

impl AdamW {
    /// AdamW at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 1e-2,
            amsgrad: false,
            maximize: false,
            convention: Convention::PyTorch,
        })
    }

    /// Follows another library, with its `eps` and `weight_decay`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for ONNX, which has no AdamW.
    pub fn with_convention(self, convention: Convention) -> Result<Self> {
        let weight_decay = match convention {
            Convention::PyTorch => 1e-2,
            Convention::Keras => 4e-3,
            Convention::Optax => 1e-4,
            Convention::Onnx => return Err(unsupported(convention, "PyTorch, Keras or Optax")),
        };
        Ok(Self { convention, eps: default_eps(convention), weight_decay, ..self })
    }

    betas!();

    numbers! {
        with_eps, eps: non_negative, "what is added to the root";
        with_weight_decay, weight_decay: non_negative, "the decoupled weight decay";
    }

    switches! {
        with_amsgrad, amsgrad, "divides by the largest second moment so far";
        with_maximize, maximize, "climbs instead of descending";
    }

    /// The library it follows.
    #[must_use]
    pub fn convention(&self) -> Convention {
        self.convention
    }
}

learning_rate!(AdamW);

config! {
    AdamW(learning_rate: f64) => Self::new(learning_rate),
    convention: Convention => Self::with_convention,
    betas: (f64, f64) => |it, betas| it.with_betas(betas.0, betas.1),
    eps: f64 => Self::with_eps,
    weight_decay: f64 => Self::with_weight_decay,
    amsgrad: bool => |it, _| it.with_amsgrad(),
    maximize: bool => |it, _| it.with_maximize(),
}

impl<T: Element> Optimizer<T> for AdamW {
    fn schema(&self, shape: &[usize]) -> Schema {
        schema("AdamW", self.amsgrad, shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let Self { learning_rate, betas, eps, weight_decay, amsgrad, maximize, convention } = *self;
        let (eps_root, decay_after) = (0.0, 0.0);
        let shrink = 1.0 - learning_rate * weight_decay;
        let weight_decay = 0.0;
        let adam =
            Adam { learning_rate, betas, eps, eps_root, weight_decay, decay_after, amsgrad, maximize, convention };
        step_adam(&adam, shrink, step)
    }
}

const SLOTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const MAX_SLOT: &str = "max_exp_avg_sq";

fn default_eps(convention: Convention) -> f64 {
    match convention {
        Convention::PyTorch | Convention::Optax => 1e-8,
        Convention::Keras => 1e-7,
        Convention::Onnx => 1e-6,
    }
}

fn schema(algorithm: &'static str, amsgrad: bool, shape: &[usize]) -> Schema {
    let schema = Schema::new(algorithm).moment(SLOTS[0], shape, 0.0).squares(SLOTS[1], shape, 0.0);
    if amsgrad { schema.squares(MAX_SLOT, shape, 0.0) } else { schema }
}

/// Adam's step; parameters are multiplied by `shrink` first.
fn step_adam<T: Element>(adam: &Adam, shrink: f64, step: Step<'_, T>) -> Result<()> {
    let rule = |count| AdamRule::new(adam, shrink, count);
    if adam.amsgrad { step.elementwise([SLOTS[0], SLOTS[1], MAX_SLOT], rule) } else { step.elementwise(SLOTS, rule) }
}

#[derive(Clone, Copy)]
struct AdamRule<R> {
    gradient: Gradient<R>,
    shrink: R,
    shrink_after: R,
    mean: Average<R>,
    squares: Squares<R>,
    rate: R,
    divisor: Divisor<R>,
    eps: R,
}

/// What the mean is divided by, before `eps`.
#[derive(Clone, Copy)]
enum Divisor<R> {
    /// `sqrt(v) * factor`
    Root(R),
    /// `sqrt(v / correction + eps_root)`
    Within { correction: R, eps_root: R },
}

impl<R: Real> AdamRule<R> {
    fn new(adam: &Adam, shrink: f64, count: u64) -> Self {
        let (beta1, beta2) = adam.betas;
        // ONNX is given the count before the step, and does not correct at 0.
        let count = if adam.convention == Convention::Onnx { count - 1 } else { count };
        let (bias1, bias2) = match count {
            0 => (1.0, 1.0),
            _ => (bias_correction(beta1, count), bias_correction(beta2, count)),
        };
        let (rate, divisor) = match adam.convention {
            Convention::Optax if adam.eps_root > 0.0 => (
                adam.learning_rate / bias1,
                Divisor::Within { correction: narrow(bias2), eps_root: narrow(adam.eps_root) },
            ),
            Convention::PyTorch | Convention::Optax => {
                (adam.learning_rate / bias1, Divisor::Root(narrow(1.0 / bias2.sqrt())))
            }
            Convention::Keras | Convention::Onnx => {
                (adam.learning_rate * bias2.sqrt() / bias1, Divisor::Root(R::one()))
            }
        };
        Self {
            gradient: Gradient::new(adam.maximize, adam.weight_decay),
            shrink: narrow(shrink),
            shrink_after: narrow(1.0 - adam.decay_after),
            mean: Average::new(beta1),
            squares: Squares::new(beta2),
            rate: narrow(rate),
            divisor,
            eps: narrow(adam.eps),
        }
    }

    #[inline(always)]
    fn moments(&self, param: R, grad: R, m: R, v: R) -> (R, R) {
        let grad = self.gradient.of(param, grad);
        (self.mean.next(m, grad), self.squares.next(v, grad))
    }

    #[inline(always)]
    fn moved(&self, param: R, m: R, v: R) -> R {
        let root = match self.divisor {
            Divisor::Root(factor) => v.sqrt() * factor,
            Divisor::Within { correction, eps_root } => (v / correction + eps_root).sqrt(),
        };
        (self.shrink * param - self.rate * m / (root + self.eps)) * self.shrink_after
    }
}

impl<R: Real> Rule<R, 2> for AdamRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let (m, v) = self.moments(param, grad, m, v);
        (self.moved(param, m, v), [m, v])
    }
}

impl<R: Real> Rule<R, 3> for AdamRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m, v, largest]: [R; 3]) -> (R, [R; 3]) {
        let (m, v) = self.moments(param, grad, m, v);
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
