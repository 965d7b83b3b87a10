//! Sparse training that moves its weights.

use super::select::{Scores, Select};
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    kernel::best::removed,
    tensor::{Mask, TensorMut, TensorRef},
};
use std::{f64::consts::PI, slice};

/// RigL (Evci et al. 2020, arXiv:1911.11134): training that is sparse from beginning to end. Now and then the smallest
/// weights go, and as many that the gradient asks for come, so that the number kept never changes.
///
/// At a step `t` that is due, with `n` kept and `p` pruned:
///
/// ```text
/// share = fraction / 2 * (1 + cos(π * t / end))
/// k     = min(round(share * n), p)                  half to even
/// drop the k of the smallest |w| of those kept      of equal ones the higher index
/// grow the k of the largest |g| of those pruned     of equal ones the lower index
/// ```
///
/// The gradient is that of the loss by every weight, pruned ones too. Weights grown start at 0; an optimizer that steps
/// under the mask has kept their state at its initial value. A weight that is dropped is not grown again in the same
/// update, as the paper's rule would allow: what it takes instead is explored more.
///
/// | parameter | default | range | purpose |
/// |---|---|---|---|
/// | `end` | – | `>= 1` | the step from which the mask stays; the paper: three quarters of the training |
/// | [`fraction`](RigL::with_fraction) | 0.3 | 0..=1 | the share of the kept weights that is exchanged at first |
/// | [`every`](RigL::with_every) | 100 | `>= 1` | steps from one update to the next |
///
/// ```
/// use lapidary::{Mask, Optimizer, OptimizerExt, PrunerExt, Step, optim::AdamW, prune::{Random, RigL, Select}};
/// let (adamw, rigl) = (AdamW::new(0.01)?, RigL::new(750)?);
/// let mut weights = vec![0.1f32; 100];
/// let mut mask = Select::sparsity(0.8)?.by(Random::new(1)).mask(&weights)?;
/// mask.apply(&mut weights)?;
/// let mut state = adamw.init(&weights)?;
/// for step in 0..1000 {
///     // The loss wants the first 20 weights at 1.
///     let gradient: Vec<f32> = (0..100).map(|i| if i < 20 { weights[i] - 1.0 } else { weights[i] }).collect();
///     rigl.update(step, &mut weights, &gradient, &mut mask)?;
///     adamw.step(Step::new(&mut weights, &gradient, &mut state).mask(&mask))?;
/// }
/// assert_eq!(mask.kept(), 20);
/// assert!(mask.indices().filter(|&i| i < 20).count() >= 18);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RigL {
    fraction: f64,
    every: u64,
    end: u64,
}

impl RigL {
    /// Updates before the step `end`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is 0.
    pub fn new(end: u64) -> Result<Self> {
        if end == 0 {
            return Err(Error::argument("end", end, "at least 1"));
        }
        Ok(Self { fraction: 0.3, every: 100, end })
    }

    /// The share of the kept weights that is exchanged at first.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0..=1.
    pub fn with_fraction(self, fraction: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&fraction) {
            return Ok(Self { fraction, ..self });
        }
        Err(Error::argument("fraction", fraction, "from 0 to 1"))
    }

    /// Steps from one update to the next.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is 0.
    pub fn with_every(self, every: u64) -> Result<Self> {
        if every == 0 { Err(Error::argument("every", every, "at least 1")) } else { Ok(Self { every, ..self }) }
    }

    /// Whether a step, counted from 0, exchanges weights: a multiple of `every` before the end, but not the first.
    #[must_use]
    pub fn is_due(&self, step: u64) -> bool {
        step > 0 && step < self.end && step.is_multiple_of(self.every)
    }

    /// The share of the kept weights that a step exchanges: 0 where it does not.
    #[must_use]
    pub fn fraction(&self, step: u64) -> f64 {
        if !self.is_due(step) {
            return 0.0;
        }
        self.fraction / 2.0 * (1.0 + libm::cos(PI * (step as f64 / self.end as f64)))
    }

    /// Exchanges weights of one tensor, if the step is due; between this update and the next there must be a step of
    /// the optimizer under the mask, which puts the state of what was dropped back. Pruned weights and those that are
    /// grown are 0 then. Gives how many were exchanged.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN
    /// in a kept weight or in the gradient of a pruned one, if the step is due. Nothing has changed then.
    pub fn update<'a, 'b, T: Element, G: Element>(
        &self,
        step: u64,
        weights: impl Into<TensorMut<'a, T>>,
        gradient: impl Into<TensorRef<'b, G>>,
        mask: &mut Mask,
    ) -> Result<usize> {
        let (mut weights, gradient) = (weights.into(), gradient.into());
        mask.check(weights.shape())?;
        if gradient.shape() != weights.shape() {
            return Err(Error::shape("gradient", weights.shape(), gradient.shape()));
        }
        if !self.is_due(step) {
            return Ok(0);
        }
        let mut grown = Mask::keep_all(mask.shape())?;
        grown.remove(mask);
        check_numbers("weight", weights.as_slice(), mask)?;
        check_numbers("gradient", gradient.as_slice(), &grown)?;
        let (kept, pruned) = (mask.kept(), grown.kept());
        let count = removed(self.fraction(step), kept).min(pruned);
        let mut stay = mask.clone();
        Select::count(count).refine(&[Scores::magnitude(weights.as_slice())], slice::from_mut(&mut stay))?;
        let gradient = [Scores::magnitude(gradient.as_slice())];
        Select::count(pruned - count).refine(&gradient, slice::from_mut(&mut grown))?;
        stay.apply(&mut weights)?;
        stay.or(&grown)?;
        *mask = stay;
        Ok(count)
    }
}

config! {
    RigL(end: u64) => Self::new(end),
    fraction: f64 => Self::with_fraction,
    every: u64 => Self::with_every,
}

/// An error where a number that the mask keeps is NaN.
fn check_numbers<T: Element>(what: &'static str, numbers: &[T], mask: &Mask) -> Result<()> {
    match mask.indices().find(|&i| numbers[i].to_f64().is_nan()) {
        Some(index) => Err(Error::non_finite(what, index, f64::NAN)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn kept(mask: &Mask) -> Vec<usize> {
        mask.indices().collect()
    }

    #[test]
    fn the_smallest_go_and_the_steepest_come() {
        let rigl = RigL::new(4).unwrap().with_every(2).unwrap().with_fraction(1.0).unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(|step| rigl.fraction(step)), [0.0, 0.0, 0.5, 0.0, 0.0]);
        // Two of four go: 0.1 and, of the equal ones, the later; 2 and 4 of the pruned have the largest gradients.
        let mut weights = [0.5f32, -2.0, 7.0, 0.1, 7.0, -0.5, 7.0];
        let mut mask = Mask::from_fn(&[7], |i| [0, 1, 3, 5].contains(&i)).unwrap();
        let gradient = [9.0f64, f64::NAN, -3.0, 9.0, 3.0, 9.0, 3.0];
        assert_eq!(rigl.update(2, &mut weights, &gradient, &mut mask).unwrap(), 2);
        assert_eq!(kept(&mask), [0, 1, 2, 4]);
        assert_eq!(weights, [0.5, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rigl.update(3, &mut weights, &gradient, &mut mask).unwrap(), 0);
    }

    #[test]
    fn no_more_go_than_can_come() {
        let rigl = RigL::new(100).unwrap().with_every(1).unwrap().with_fraction(1.0).unwrap();
        let (mut weights, gradient) = ([3.0f32, 1.0, 2.0, 0.0], [1.0f32; 4]);
        let mut mask = Mask::from_fn(&[4], |i| i < 3).unwrap();
        assert_eq!(rigl.update(1, &mut weights, &gradient, &mut mask).unwrap(), 1);
        assert_eq!(kept(&mask), [0, 2, 3]);
        let mut all = Mask::keep_all(&[4]).unwrap();
        let before = weights;
        assert_eq!(rigl.update(1, &mut weights, &gradient, &mut all).unwrap(), 0);
        assert_eq!((weights, all.kept()), (before, 4));
        let mut none = Mask::from_fn(&[0], |_| true).unwrap();
        assert_eq!(rigl.update(1, &mut [0f32; 0], &[0f32; 0], &mut none).unwrap(), 0);
    }

    #[test]
    fn refuses_and_changes_nothing() {
        let rigl = RigL::new(10).unwrap().with_every(1).unwrap();
        let mut mask = Mask::from_fn(&[3], |i| i > 0).unwrap();
        let before = mask.clone();
        let mut update =
            |weights: &mut [f32], gradient: &[f32]| rigl.update(1, weights, gradient, &mut mask).unwrap_err();
        let error = update(&mut [f32::NAN, 1.0, f32::NAN], &[0.0; 3]);
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(2)));
        let error = update(&mut [f32::NAN, 1.0, 1.0], &[f32::NAN; 3]);
        assert_eq!((error.to_string().contains("gradient"), error.index()), (true, Some(0)));
        assert_eq!(update(&mut [1.0; 2], &[0.0; 2]).kind(), ErrorKind::Shape);
        assert_eq!(update(&mut [1.0; 3], &[0.0; 2]).kind(), ErrorKind::Shape);
        assert_eq!(mask, before);
        assert!(RigL::new(0).is_err() && rigl.with_every(0).is_err() && rigl.with_fraction(1.1).is_err());
        assert!(rigl.with_fraction(f64::NAN).is_err());
    }
}
