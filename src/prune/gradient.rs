//! By what a loss's gradient says of a weight.

use super::check_scores;
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{
        TensorRef,
        view::{Dims, checked_volume, filled},
    },
    traits::Criterion,
};

/// SNIP (Lee et al. 2019, arXiv:1810.02340): `|g * w|`, how fast the loss changes when a weight is taken away. Made for
/// networks not yet trained, with the gradient of one batch, or the mean over several.
///
/// ```
/// use lapidary::{PrunerExt, prune::{Select, Snip}};
/// let (weights, gradient) = ([1.0f32, -2.0, 0.5], [0.1f32, 0.1, -1.0]);
/// let mask = Select::count(1).by(Snip::new(&gradient)).mask(&weights)?;
/// assert_eq!(mask.indices().collect::<Vec<_>>(), [1, 2]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Snip<'a, T: Element> {
    gradient: TensorRef<'a, T>,
}

impl<'a, T: Element> Snip<'a, T> {
    /// By a gradient, of the shape of the weights.
    #[must_use]
    pub fn new(gradient: impl Into<TensorRef<'a, T>>) -> Self {
        Self { gradient: gradient.into() }
    }
}

impl<T: Element, G: Element> Criterion<T> for Snip<'_, G> {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        check_scores(values.len(), scores)?;
        check_gradient(&values, &self.gradient)?;
        for (score, product) in scores.iter_mut().zip(products(&values, &self.gradient)) {
            *score = product.abs();
        }
        Ok(())
    }
}

/// `g * w` of each element.
fn products<'a, T: Element, G: Element>(
    values: &'a TensorRef<'_, T>,
    gradient: &'a TensorRef<'_, G>,
) -> impl Iterator<Item = f64> + 'a {
    gradient.as_slice().iter().zip(values.as_slice()).map(|(g, w)| g.to_f64() * w.to_f64())
}

fn check_gradient<T: Element, G: Element>(values: &TensorRef<'_, T>, gradient: &TensorRef<'_, G>) -> Result<()> {
    match gradient.shape() == values.shape() {
        true => Ok(()),
        false => Err(Error::shape("gradient", values.shape(), gradient.shape())),
    }
}

/// Something of `g * w`, summed batch by batch.
#[derive(Debug, Clone, PartialEq)]
struct Sums {
    dims: Dims,
    sums: Vec<f64>,
    batches: u64,
}

impl Sums {
    fn new(shape: &[usize]) -> Result<Self> {
        Ok(Self { dims: shape.into(), sums: filled(checked_volume(shape)?, 0.0)?, batches: 0 })
    }

    fn add<T: Element, G: Element>(
        &mut self,
        values: &TensorRef<'_, T>,
        gradient: &TensorRef<'_, G>,
        term: impl Fn(f64) -> f64,
    ) -> Result<()> {
        self.check(values.shape())?;
        check_gradient(values, gradient)?;
        self.sums.iter_mut().zip(products(values, gradient)).for_each(|(sum, product)| *sum += term(product));
        self.batches += 1;
        Ok(())
    }

    fn check(&self, shape: &[usize]) -> Result<()> {
        if *shape == *self.dims { Ok(()) } else { Err(Error::shape("weights", &self.dims, shape)) }
    }

    fn score<T: Element>(&self, values: &TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        check_scores(values.len(), scores)?;
        self.check(values.shape())?;
        if self.batches == 0 {
            return Err(Error::empty("list of gradients"));
        }
        scores.copy_from_slice(&self.sums);
        Ok(())
    }
}

macro_rules! accumulated {
    ($name:ident, $term:expr) => {
        impl $name {
            /// No batch yet, for weights of a shape.
            ///
            /// # Errors
            /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold a number for each.
            pub fn new(shape: &[usize]) -> Result<Self> {
                Ok(Self(Sums::new(shape)?))
            }

            /// Adds a batch: the weights as they were, and the loss's gradient there. Sums are in `f64`, in the order
            /// of the batches. What is not finite shows when it is selected by, where it was not pruned before.
            ///
            /// # Errors
            /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; nothing has changed then.
            pub fn add<'a, 'b, T: Element, G: Element>(
                &mut self,
                weights: impl Into<TensorRef<'a, T>>,
                gradient: impl Into<TensorRef<'b, G>>,
            ) -> Result<()> {
                self.0.add(&weights.into(), &gradient.into(), $term)
            }

            /// How many batches were added.
            #[must_use]
            pub fn batches(&self) -> u64 {
                self.0.batches
            }
        }

        /// The sums so far; [`Empty`](crate::ErrorKind::Empty) where no batch was added.
        impl<T: Element> Criterion<T> for $name {
            fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
                self.0.score(&values, scores)
            }
        }
    };
}

/// First-order Taylor expansion (Molchanov et al. 2019, arXiv:1906.10771): `Σ (g * w)²` over batches, by how much the
/// squared loss would change without a weight. Of a filter: the sum over its weights,
/// [`Select::along`](super::Select::along).
///
/// ```
/// use lapidary::{PrunerExt, prune::{Select, Taylor}};
/// let weights = [1.0f32, -2.0, 0.5];
/// let mut taylor = Taylor::new(&[3])?;
/// taylor.add(&weights, &[0.1f32, 0.1, 0.2])?;
/// taylor.add(&weights, &[-0.3f32, 0.1, 0.2])?;
/// let mask = Select::count(1).by(&taylor).mask(&weights)?;
/// assert_eq!(mask.indices().collect::<Vec<_>>(), [0, 1]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Taylor(Sums);
accumulated!(Taylor, |product| product * product);

/// Movement pruning (Sanh et al. 2020, arXiv:2005.07683): `-Σ g * w` over the steps of fine-tuning. A weight that grows
/// away from 0 matters, one that shrinks does not, whatever its size; scores have both signs.
///
/// ```
/// use lapidary::{PrunerExt, prune::{Movement, Select}};
/// let (mut weights, gradient) = ([1.0f32, -0.1], [0.5f32, 0.5]); // the first shrinks, the second grows
/// let mut movement = Movement::new(&[2])?;
/// for _ in 0..2 {
///     movement.add(&weights, &gradient)?;
///     weights.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.1 * g);
/// }
/// let mask = Select::count(1).by(&movement).mask(&weights)?;
/// assert_eq!(mask.indices().collect::<Vec<_>>(), [1]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Movement(Sums);
accumulated!(Movement, |product: f64| -product);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, PrunerExt, prune::Select};
    use half::bf16;

    #[test]
    fn sums_are_of_all_batches_in_f64() {
        let weights = [1e-25f32, -2.0, 3e38];
        let (mut taylor, mut movement) = (Taylor::new(&[3]).unwrap(), Movement::new(&[3]).unwrap());
        let batches = [[1e-20f32, 0.5, 1e-3], [-2e-20, 1.0, 2e30]];
        for gradient in &batches {
            taylor.add(&weights, gradient).unwrap();
            movement.add(&weights, gradient).unwrap();
        }
        let product = |batch: usize, i: usize| f64::from(batches[batch][i]) * f64::from(weights[i]);
        let mut scores = [0.0; 3];
        taylor.score((&weights).into(), &mut scores).unwrap();
        // Neither squares that an f32 loses nor those it overflows at.
        assert_eq!(scores, [0, 1, 2].map(|i| product(0, i).powi(2) + product(1, i).powi(2)));
        assert!(scores.iter().all(|score| *score > 0.0 && score.is_finite()));
        movement.score((&weights).into(), &mut scores).unwrap();
        assert_eq!(scores, [0, 1, 2].map(|i| -product(0, i) - product(1, i)));
        assert_eq!((taylor.batches(), movement.batches()), (2, 2));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_types_may_differ() {
        let weights = [1f32, -2.0];
        let gradient = [bf16::from_f32(0.5), bf16::from_f32(-4.0)];
        let mut scores = [0.0; 2];
        Snip::new(&gradient).score(TensorRef::from(&weights), &mut scores).unwrap();
        assert_eq!(scores, [0.5, 8.0]);
        let by = |gradient: &[f32]| Select::count(1).by(Snip::new(gradient)).mask(&weights);
        assert_eq!(by(&[1.0; 3]).unwrap_err().kind(), ErrorKind::Shape);
        let error = by(&[1.0, f32::NAN]).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        let mut taylor = Taylor::new(&[2]).unwrap();
        assert_eq!(Select::count(1).by(&taylor).mask(&weights).unwrap_err().kind(), ErrorKind::Empty);
        let before = taylor.clone();
        assert!(taylor.add(&weights, &[1f32; 3]).is_err() && taylor.add(&[1f32; 3], &[1f32; 3]).is_err());
        assert_eq!(taylor, before);
        assert!(Criterion::<f32>::score(&Snip::new(&gradient), (&weights).into(), &mut scores[..1]).is_err());
        assert!(Movement::new(&[usize::MAX, 2]).is_err());
    }
}
