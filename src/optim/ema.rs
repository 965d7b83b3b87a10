//! An exponential moving average of the weights.

use super::hyper::{decay_rate, inner_learning_rate};
use crate::{
    config::config,
    element::Element,
    error::Result,
    tensor::{Schema, State, TensorMut, TensorRef},
    traits::{Following, Optimizer, Step},
};

/// An optimizer that keeps an exponential moving average of the weights it makes, for evaluation (Polyak & Juditsky 1992), in
/// the pass of the step itself.
///
/// After step `t`, with the new parameter `p`:
///
/// ```text
/// e = p                              t = 1
/// e = e + (1 - d) * (p - e)          d = decay; with warm-up min(decay, (1 + t) / (10 + t))
/// ```
///
/// as PyTorch's `AveragedModel` with `get_ema_multi_avg_fn`. The average is a slot `ema` of the parameter's arithmetic type, also for
/// a parameter of 16 bits; ask [`Optimizer::evaluate`] for it.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `decay` | – (0.999 is common) | `0 <= decay < 1` | how slowly the average follows |
/// | `warm_up` | off | | follows faster at first, as TensorFlow's `num_updates` makes it |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::{Ema, Sgd}};
/// let sgd = Ema::new(Sgd::new(0.25)?, 0.5)?;
/// let (mut weights, mut average) = (vec![1.0f32], vec![0.0f32]);
/// let mut state = sgd.init(&weights)?;
/// for _ in 0..3 {
///     sgd.step(Step::new(&mut weights, &[1.0], &mut state))?; // 0.75, 0.5, 0.25
/// }
/// sgd.evaluate((&weights).into(), &state, (&mut average).into())?;
/// assert_eq!(average, [0.4375]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ema<O> {
    optimizer: O,
    decay: f64,
    warm_up: bool,
}

const SLOT: &str = "ema";

impl<O> Ema<O> {
    /// The average at a decay rate.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in `0 <= decay < 1`.
    pub fn new(optimizer: O, decay: f64) -> Result<Self> {
        Ok(Self { optimizer, decay: decay_rate("decay", decay)?, warm_up: false })
    }

    /// Follows faster at first.
    #[must_use]
    pub fn with_warm_up(self) -> Self {
        Self { warm_up: true, ..self }
    }

    /// The optimizer within.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// The decay rate.
    pub fn decay(&self) -> f64 {
        self.decay
    }

    fn share(&self, count: u64) -> f64 {
        let t = count as f64;
        match count {
            1 => 1.0,
            _ if self.warm_up => 1.0 - self.decay.min((1.0 + t) / (10.0 + t)),
            _ => 1.0 - self.decay,
        }
    }
}

inner_learning_rate!(Ema);

config! {
    Ema<O>(optimizer: O, decay: f64) => Self::new(optimizer, decay),
    warm_up: bool => |it, _| it.with_warm_up(),
}

impl<T: Element, O: Optimizer<T>> Optimizer<T> for Ema<O> {
    fn schema(&self, shape: &[usize]) -> Schema {
        self.optimizer.schema(shape).weights(SLOT, shape)
    }

    fn supports(&self, shape: &[usize]) -> Result<()> {
        self.optimizer.supports(shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let share = self.share(step.count());
        self.optimizer.step(step.follow(Following { slot: SLOT, share, start: false, pull: false })?)
    }

    fn evaluate(&self, param: TensorRef<'_, T>, state: &State, out: TensorMut<'_, T>) -> Result<()> {
        state.evaluate_slot(SLOT, param, out)
    }
}
