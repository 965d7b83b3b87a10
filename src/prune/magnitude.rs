//! Pruning the smallest, by share or by count, in one tensor or across many.

use super::{at_least, check, magnitudes};
use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::select::{Candidates, Cut, kth_magnitude},
    tensor::{Mask, TensorRef},
    traits::Pruner,
};

/// Removes the elements of smallest magnitude, an exact number of them.
///
/// Of `n` elements kept so far, `k = round(amount * n)` are removed, half to even, as
/// `torch.nn.utils.prune.l1_unstructured` does; a second prune works on what the first left.
/// Of equal magnitudes the lower index is kept. The result depends on nothing but the numbers.
///
/// | name | range | purpose |
/// |---|---|---|
/// | `sparsity` | 0 to 1 | share of the kept elements that goes |
/// | `count` | up to the number of kept elements | elements that go |
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Magnitude {
    amount: Amount,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Amount {
    Share(f64),
    Count(usize),
}

impl Magnitude {
    /// Removes a share of the elements kept so far.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0..=1.
    pub fn sparsity(share: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::argument("sparsity", share, "from 0 to 1"));
        }
        Ok(Self { amount: Amount::Share(share) })
    }

    /// Removes this many elements.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self { amount: Amount::Count(count) }
    }

    /// Prunes many tensors as if they were one: the smallest of all go, wherever they are. Of equal
    /// magnitudes the one in the earlier tensor is kept.
    ///
    /// # Errors
    /// As [`Pruner::refine`], naming the tensor by its place (`#0`); [`Shape`](crate::ErrorKind::Shape) also when there are not
    /// as many masks as tensors. No mask is changed then.
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
        if tensors.len() != masks.len() {
            return Err(Error::shape("list of masks", &[tensors.len()], &[masks.len()]));
        }
        for (i, (values, mask)) in tensors.iter().zip(&*masks).enumerate() {
            check(values, mask)
                .map_err(|error| if tensors.len() > 1 { error.in_tensor(&format!("#{i}")) } else { error })?;
        }
        let remove = self.removals(masks.iter().map(Mask::kept).sum())?;
        if remove == 0 {
            return Ok(());
        }
        let candidates: Vec<_> = tensors
            .iter()
            .zip(&*masks)
            .map(|(values, mask)| Candidates { values: values.as_slice(), keep: mask.bits() })
            .collect();
        let Cut { magnitude, mut ties } = kth_magnitude(&candidates, remove);
        for (values, mask) in tensors.iter().zip(masks).rev() {
            mask.refine(values.as_slice(), move |x| at_least(x, magnitude));
            let values = values.as_slice();
            let mut index = values.len();
            while ties > 0 && index > 0 {
                index -= 1;
                if mask.get(index) == Some(true) && values[index].to_real().magnitude_bits() == magnitude {
                    mask.prune(index);
                    ties -= 1;
                }
            }
        }
        Ok(())
    }

    /// How many of `kept` elements go.
    fn removals(&self, kept: usize) -> Result<usize> {
        match self.amount {
            Amount::Share(share) => Ok((share * kept as f64).round_ties_even() as usize),
            Amount::Count(count) if count <= kept => Ok(count),
            Amount::Count(count) => {
                Err(Error::argument("count", format!("{count} of {kept} elements"), "at most the number kept"))
            }
        }
    }
}

impl<T: Element> Pruner<T> for Magnitude {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [T::Real]) -> Result<()> {
        magnitudes(&values, scores)
    }

    fn refine(&self, values: TensorRef<'_, T>, mask: &mut Mask) -> Result<()> {
        self.refine_global(&[values], std::slice::from_mut(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, PrunerExt};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn removes_what_a_stable_sort_would(
            values in prop::collection::vec(-3i8..3, 0..300),
            share in 0.0..=1.0f64,
            cut in 0usize..300,
        ) {
            let values: Vec<f32> = values.iter().map(|&x| f32::from(x) / 2.0).collect();
            let cut = cut.min(values.len());
            // Removed first: the smallest, of equal ones the last.
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&i, &j| values[i].abs().total_cmp(&values[j].abs()).then(j.cmp(&i)));
            let k = (share * values.len() as f64).round_ties_even() as usize;
            let want = Mask::from_fn(&[values.len()], |i| !order[..k].contains(&i)).unwrap();

            let magnitude = Magnitude::sparsity(share).unwrap();
            prop_assert_eq!(&magnitude.mask(&values).unwrap(), &want);
            prop_assert_eq!(&Magnitude::count(k).mask(&values).unwrap(), &want);
            let (a, b) = values.split_at(cut);
            let mut masks = [Mask::keep_all(&[a.len()]).unwrap(), Mask::keep_all(&[b.len()]).unwrap()];
            magnitude.refine_global(&[a.into(), b.into()], &mut masks).unwrap();
            for i in 0..values.len() {
                let got = if i < cut { masks[0].get(i) } else { masks[1].get(i - cut) };
                prop_assert_eq!(got, want.get(i));
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(Magnitude::sparsity(-0.1).is_err() && Magnitude::sparsity(f64::NAN).is_err());
        assert_eq!(Magnitude::count(5).mask(&[1f32; 4]).unwrap_err().kind(), ErrorKind::Argument);
        let mut masks = [Mask::keep_all(&[1]).unwrap(), Mask::keep_all(&[2]).unwrap()];
        let tensors = [(&[1f32]).into(), (&[1.0, f32::NAN]).into()];
        assert_eq!(Magnitude::count(1).refine_global(&tensors, &mut masks).unwrap_err().kind(), ErrorKind::NonFinite);
        assert_eq!(masks[0].kept() + masks[1].kept(), 3);
        assert!(Magnitude::count(0).refine_global(&tensors[..1], &mut masks).is_err());
    }
}
