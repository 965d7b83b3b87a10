//! Pruning below a threshold.

use super::{check, magnitudes};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{Mask, TensorRef},
    traits::Pruner,
};

/// Keeps an element iff `|x| > eps`, strictly.
///
/// | name | range | purpose |
/// |---|---|---|
/// | `eps` | `>= 0` | what is not larger than it goes; 0 drops just the zeros |
///
/// `x` is compared as it is, `eps` in `f64`: nothing is rounded.
///
/// ```
/// use lapidary::{PrunerExt, prune::Threshold};
/// let mut weights = vec![0.5f32, -0.25, 0.1, -1.0];
/// let mask = Threshold::new(0.25)?.mask(&weights)?;
/// mask.apply(&mut weights)?;
/// assert_eq!(weights, [0.5, 0.0, 0.0, -1.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    eps: f64,
}

impl Threshold {
    /// A threshold of `eps`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is negative or NaN.
    pub fn new(eps: f64) -> Result<Self> {
        if eps >= 0.0 { Ok(Self { eps }) } else { Err(Error::argument("eps", eps, "at least 0")) }
    }

    /// The threshold.
    #[must_use]
    pub fn eps(&self) -> f64 {
        self.eps
    }
}

impl<T: Element> Pruner<T> for Threshold {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [T::Real]) -> Result<()> {
        magnitudes(&values, scores)
    }

    fn refine(&self, values: TensorRef<'_, T>, mask: &mut Mask) -> Result<()> {
        check(&values, mask)?;
        let eps = self.eps;
        mask.refine(values.as_slice(), move |x: T| x.to_f64().abs() > eps);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, PrunerExt};

    #[test]
    fn nan_is_an_error_unless_it_was_pruned_before() {
        let threshold = Threshold::new(0.5).unwrap();
        let values = [1.0f32, f32::NAN, f32::INFINITY, 0.5];
        let error = threshold.mask(&values).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        let mut mask = Mask::from_fn(&[4], |i| i != 1).unwrap();
        threshold.refine((&values).into(), &mut mask).unwrap();
        assert_eq!(mask.indices().collect::<Vec<_>>(), [0, 2]);
        assert!(Threshold::new(-0.1).is_err() && Threshold::new(f64::NAN).is_err());
    }

    #[test]
    fn the_comparison_is_not_rounded() {
        // 0.1f32 is above 0.1f64.
        assert_eq!(Threshold::new(0.1).unwrap().mask(&[0.1f32]).unwrap().kept(), 1);
        assert_eq!(Threshold::new(0.1f32.into()).unwrap().mask(&[0.1f32]).unwrap().kept(), 0);
        assert_eq!(Threshold::new(f64::INFINITY).unwrap().mask(&[f32::MAX]).unwrap().kept(), 0);
        assert!(Threshold::new(0.0).unwrap().mask(&[0f32; 0]).unwrap().is_empty());
    }
}
