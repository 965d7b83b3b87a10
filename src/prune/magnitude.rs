//! By size.

use super::{
    check_scores,
    pruning::Pruning,
    select::{Select, magnitudes},
};
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    tensor::{Mask, TensorRef},
    traits::Criterion,
};

/// An element matters by its magnitude, `|x|`: the criterion that most others are compared with (Han et al. 2015,
/// arXiv:1506.02626), and `l1_unstructured` of `torch.nn.utils.prune`.
///
/// [`sparsity`](Magnitude::sparsity), [`count`](Magnitude::count) and [`threshold`](Magnitude::threshold) are short for
/// the selections of that name by it; [`Select`] has the others. The norms of rows, channels and blocks
/// (`ln_structured`) are its [units](Select::with_norm).
///
/// ```
/// use lapidary::{Pruner, PrunerExt, prune::Magnitude};
/// let weights = vec![0.5f32, -0.25, 0.1, -1.0];
/// let half = Magnitude::sparsity(0.5)?;
/// let mut mask = half.mask(&weights)?;
/// assert_eq!(mask.indices().collect::<Vec<_>>(), [0, 3]);
/// half.refine((&weights).into(), &mut mask)?; // half of what is left
/// assert_eq!(mask.indices().collect::<Vec<_>>(), [3]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Magnitude;

impl Magnitude {
    /// Removes a share of the elements kept so far: [`Select::sparsity`].
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0..=1.
    pub fn sparsity(share: f64) -> Result<Pruning<Self>> {
        Ok(Select::sparsity(share)?.by(Self))
    }

    /// Removes this many elements: [`Select::count`].
    #[must_use]
    pub fn count(count: usize) -> Pruning<Self> {
        Select::count(count).by(Self)
    }

    /// Keeps an element iff `|x| > eps`, strictly: [`Select::above`]. `x` is compared as it is, `eps` in `f64`: nothing
    /// is rounded, and 0 drops just the zeros.
    ///
    /// ```
    /// use lapidary::{PrunerExt, prune::Magnitude};
    /// let mut weights = vec![0.5f32, -0.25, 0.1, -1.0];
    /// let mask = Magnitude::threshold(0.25)?.mask(&weights)?;
    /// mask.apply(&mut weights)?;
    /// assert_eq!(weights, [0.5, 0.0, 0.0, -1.0]);
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is negative or NaN.
    pub fn threshold(eps: f64) -> Result<Pruning<Self>> {
        if eps >= 0.0 { Ok(Select::above(eps)?.by(Self)) } else { Err(Error::argument("eps", eps, "at least 0")) }
    }
}

config! {
    Magnitude() => Self,
}

impl Pruning<Magnitude> {
    /// Prunes many tensors as if they were one: the smallest of all go, wherever they are. Of equal
    /// magnitudes the one in the earlier tensor is kept. For other scores, and costs, there is [`Select::refine`].
    ///
    /// # Errors
    /// As [`Select::refine`]; [`Shape`](crate::ErrorKind::Shape) also when a mask has another shape than its tensor.
    ///
    /// ```
    /// use lapidary::{Mask, prune::Magnitude};
    /// let (a, b) = ([0.1f32, 3.0], [2.0f32, 1.0, 4.0]);
    /// let mut masks = [Mask::keep_all(&[2])?, Mask::keep_all(&[3])?];
    /// Magnitude::count(2).refine_global(&[(&a).into(), (&b).into()], &mut masks)?;
    /// assert_eq!(masks.map(|mask| mask.kept()), [1, 2]);
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    pub fn refine_global<T: Element>(&self, tensors: &[TensorRef<'_, T>], masks: &mut [Mask]) -> Result<()> {
        self.select().refine(&magnitudes(tensors, masks)?, masks)
    }
}

impl<T: Element> Criterion<T> for Magnitude {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        check_scores(values.len(), scores)?;
        scores.iter_mut().zip(values.as_slice()).for_each(|(score, x)| *score = x.to_f64().abs());
        Ok(())
    }

    fn is_magnitude(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Pruner, PrunerExt};

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(Magnitude::sparsity(-0.1).is_err() && Magnitude::sparsity(f64::NAN).is_err());
        assert!(Magnitude::threshold(-0.1).is_err() && Magnitude::threshold(f64::NAN).is_err());
        assert_eq!(Magnitude::count(5).mask(&[1f32; 4]).unwrap_err().kind(), ErrorKind::Argument);
        let mut masks = [Mask::keep_all(&[1]).unwrap(), Mask::keep_all(&[2]).unwrap()];
        let tensors = [(&[1f32]).into(), (&[1.0, f32::NAN]).into()];
        let error = Magnitude::count(1).refine_global(&tensors, &mut masks).unwrap_err();
        assert_eq!((error.kind(), error.index(), error.tensor()), (ErrorKind::NonFinite, Some(1), Some("#1")));
        assert_eq!(masks[0].kept() + masks[1].kept(), 3);
        assert!(Magnitude::count(0).refine_global(&tensors[..1], &mut masks).is_err());
    }

    #[test]
    fn nan_is_an_error_unless_it_was_pruned_before() {
        let threshold = Magnitude::threshold(0.5).unwrap();
        let values = [1.0f32, f32::NAN, f32::INFINITY, 0.5];
        let error = threshold.mask(&values).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        let mut mask = Mask::from_fn(&[4], |i| i != 1).unwrap();
        threshold.refine((&values).into(), &mut mask).unwrap();
        assert_eq!(mask.indices().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn the_comparison_is_not_rounded() {
        // 0.1f32 is above 0.1f64.
        assert_eq!(Magnitude::threshold(0.1).unwrap().mask(&[0.1f32]).unwrap().kept(), 1);
        assert_eq!(Magnitude::threshold(0.1f32.into()).unwrap().mask(&[0.1f32]).unwrap().kept(), 0);
        assert_eq!(Magnitude::threshold(f64::INFINITY).unwrap().mask(&[f32::MAX]).unwrap().kept(), 0);
        assert!(Magnitude::threshold(0.0).unwrap().mask(&[0f32; 0]).unwrap().is_empty());
    }
}
