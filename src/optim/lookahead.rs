//! Lookahead.

use super::hyper::inner_learning_rate;
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    tensor::{Schema, State, TensorMut, TensorRef},
    traits::{Following, Optimizer, Step},
};

/// Lookahead (Zhang et al. 2019, arXiv:1907.08610), around any optimizer: it explores with fast weights, and every few steps slow
/// weights go a part of the way, and the fast ones begin anew from there.
///
/// ```text
/// s = p before the first step
/// p = the optimizer's step
/// s = s + alpha * (p - s);  p = s        every k steps
/// ```
///
/// The slow weights are a slot `slow` of the parameter's arithmetic type, touched in the pass of the step, and only then (under a
/// mask always: what is pruned is 0 there too). They are the ones to evaluate: ask [`Optimizer::evaluate`]. The optimizer's own
/// state goes on (the paper's default).
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `k` | – (paper: 5) | `>= 1` | steps from one meeting to the next |
/// | `alpha` | – (paper: 0.5) | 0 to 1 | how far the slow weights go |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::{Lookahead, Sgd}};
/// let sgd = Lookahead::new(Sgd::new(0.25)?, 2, 0.5)?;
/// let mut weights = vec![1.0f32];
/// let mut state = sgd.init(&weights)?;
/// sgd.step(Step::new(&mut weights, &[1.0], &mut state))?;
/// assert_eq!(weights, [0.75]);
/// sgd.step(Step::new(&mut weights, &[1.0], &mut state))?;
/// assert_eq!(weights, [0.75]); // half-way from 1 to 0.5
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lookahead<O> {
    optimizer: O,
    k: u64,
    alpha: f64,
}

const SLOT: &str = "slow";

impl<O> Lookahead<O> {
    /// Slow weights that go the part `alpha` every `k` steps.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `k` is 0 or `alpha` is not in 0 ..= 1.
    pub fn new(optimizer: O, k: u64, alpha: f64) -> Result<Self> {
        if k == 0 {
            return Err(Error::argument("k", k, "at least 1"));
        }
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Error::argument("alpha", format!("{alpha:?}"), "from 0 to 1"));
        }
        Ok(Self { optimizer, k, alpha })
    }

    /// The optimizer within.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// Steps from one meeting to the next.
    pub fn k(&self) -> u64 {
        self.k
    }

    /// How far the slow weights go.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }
}

inner_learning_rate!(Lookahead);

config! {
    Lookahead<O>(optimizer: O, k: u64, alpha: f64) => Self::new(optimizer, k, alpha),
}

impl<T: Element, O: Optimizer<T>> Optimizer<T> for Lookahead<O> {
    fn schema(&self, shape: &[usize]) -> Schema {
        self.optimizer.schema(shape).weights(SLOT, shape)
    }

    fn supports(&self, shape: &[usize]) -> Result<()> {
        self.optimizer.supports(shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let count = step.count();
        let meet = count.is_multiple_of(self.k);
        let share = if meet { self.alpha } else { 0.0 };
        self.optimizer.step(step.follow(Following { slot: SLOT, share, start: count == 1, pull: meet })?)
    }

    fn evaluate(&self, param: TensorRef<'_, T>, state: &State, out: TensorMut<'_, T>) -> Result<()> {
        state.evaluate_slot(SLOT, param, out)
    }
}
