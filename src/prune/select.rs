//! What survives: a selection by scores.

#[cfg(feature = "serde")]
mod written;

use super::{
    pruning::Pruning,
    units::{Reduce, Units},
    whole::{self, Tensor},
};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::{
        best::{Quota, Rows, keep_best},
        scan,
        select::{Order, Weights},
    },
    tensor::{Mask, TensorRef},
};
use num_traits::Float;

/// Which elements survive, by their scores: the lowest go. Of equal scores the lower index stays; across tensors the
/// earlier one.
///
/// A selection starts with how much goes, its `amount`; a criterion ([`by`](Select::by)) makes it a [`Pruner`](crate::Pruner).
///
/// | `amount` | goes |
/// |---|---|
/// | [`sparsity(share)`](Select::sparsity) | `round(share * n)` of the `n` kept so far, half to even |
/// | [`overall(share)`](Select::overall) | what makes `round(share * n)` of all elements pruned, half to even |
/// | [`count(k)`](Select::count) | so many |
/// | [`above(threshold)`](Select::above) | what does not score higher, strictly |
/// | [`n_of_m(n, m)`](Select::n_of_m) | all but `n` of each `m` neighbours in a row |
/// | [`budget(cost)`](Select::budget) | as few as bring the cost of what is kept down to it |
///
/// | refinement | default | range | purpose |
/// |---|---|---|---|
/// | [`per_row`](Select::per_row) | off | | each row (along the last axis) by itself |
/// | `units`: [`along`](Select::along) | off | an axis | slices go whole: one unit for each index of the axis |
/// | `units`: [`in_blocks`](Select::in_blocks) | off | `>= 1` each | blocks of the last two axes go whole |
/// | [`norm`](Select::with_norm) | the sum | `p >= 1e-6` | a unit's score: `(Σ \|s\|^p)^(1/p)` of its kept elements |
/// | [`mean`](Select::with_mean) | off | | that score per element: units of other sizes compare |
/// | [`min_kept`](Select::with_min_kept) | 0 | | so many stay in each tensor, each row [`per_row`](Select::per_row); not of `n_of_m` |
///
/// Where units go whole, everything is counted in units: a share of the channels, `n` of `m` blocks in a row of blocks,
/// a floor of one channel. A unit of which nothing is kept is gone already.
///
/// ```
/// use lapidary::{PrunerExt, TensorRef, prune::{Magnitude, Select}};
/// let weights = [0.5f32, -0.25, 0.1, -1.0, 3.0, 0.0, 0.2, -0.1];
/// let weights = TensorRef::new(&weights, &[2, 4])?;
/// let kept = |select: Select| Ok::<_, lapidary::Error>(select.by(Magnitude).mask(&weights)?.indices().collect::<Vec<_>>());
/// assert_eq!(kept(Select::sparsity(0.5)?)?, [0, 1, 3, 4]);
/// assert_eq!(kept(Select::sparsity(0.5)?.per_row())?, [0, 3, 4, 6]);
/// assert_eq!(kept(Select::n_of_m(1, 2)?)?, [0, 3, 4, 6]);
/// assert_eq!(kept(Select::count(2).along(1).with_norm(2.0)?)?, [0, 3, 4, 7]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Select {
    amount: Amount,
    per_row: bool,
    units: Option<Units>,
    reduce: Reduce,
    min_kept: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Amount {
    Of { keep: usize, of: usize },
    Other(whole::Amount),
}

/// The scores of one tensor, and what keeping an element of it costs.
///
/// ```
/// use lapidary::{Mask, prune::{Scores, Select}};
/// // Two layers; a weight of the second takes part in 4 multiplications.
/// let (a, b) = ([0.1f32, 3.0, 0.2], [2.0f32, 0.05, 1.0]);
/// let mut masks = [Mask::keep_all(&[3])?, Mask::keep_all(&[3])?];
/// Select::budget(10).refine(&[Scores::magnitude(&a), Scores::magnitude(&b).with_cost(4)], &mut masks)?;
/// assert_eq!(masks.map(|mask| mask.kept()), [2, 2]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a, T> {
    values: &'a [T],
    order: Order,
    cost: u64,
}

impl<'a, T: Element> Scores<'a, T> {
    /// These numbers, in logical order.
    #[must_use]
    pub fn new(scores: &'a [T]) -> Self {
        Self { values: scores, order: Order::Number, cost: 1 }
    }

    /// The magnitudes of these numbers; nothing is copied.
    #[must_use]
    pub fn magnitude(values: &'a [T]) -> Self {
        Self { values, order: Order::Magnitude, cost: 1 }
    }

    /// What each element kept costs: bits, or multiplications it takes part in. 1 otherwise. With 0 no
    /// budget drops any.
    #[must_use]
    pub fn with_cost(self, cost: u64) -> Self {
        Self { cost, ..self }
    }

    fn tensor(&self) -> Tensor<'a, T> {
        Tensor { values: self.values, order: self.order }
    }

    /// An error unless there is a score for each element of the mask, none of one kept is NaN.
    fn check(&self, mask: &Mask) -> Result<()> {
        let values = self.values;
        if values.len() != mask.len() {
            return Err(Error::shape("scores", &[mask.len()], &[values.len()]));
        }
        if scan::first_non_finite(values).is_none() {
            return Ok(());
        }
        match mask.indices().find(|&i| values[i].to_real().is_nan()) {
            Some(index) => Err(Error::non_finite("score", index, f64::NAN)),
            None => Ok(()),
        }
    }
}

impl Select {
    const fn new(amount: Amount) -> Self {
        Self { amount, per_row: false, units: None, reduce: Reduce::SUM, min_kept: 0 }
    }

    /// A share of what is kept so far goes.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0..=1.
    pub fn sparsity(share: f64) -> Result<Self> {
        Ok(Self::new(Amount::Other(whole::Amount::Share(check_share(share)?))))
    }

    /// As much goes as makes a share of all elements pruned, those pruned before counted in: nothing where that many are.
    /// Asked for again and again, with rising shares, it comes out at each of them, whatever the roundings before.
    ///
    /// ```
    /// use lapidary::{Mask, Pruner, prune::{Magnitude, Select}};
    /// let weights = [0.5f32, -0.25, 0.1, -1.0];
    /// let mut mask = Mask::keep_all(&[4])?;
    /// for (share, kept) in [(0.25, 3), (0.5, 2), (0.5, 2), (0.25, 2)] {
    ///     Select::overall(share)?.by(Magnitude).refine((&weights).into(), &mut mask)?;
    ///     assert_eq!(mask.kept(), kept);
    /// }
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0..=1.
    pub fn overall(share: f64) -> Result<Self> {
        Ok(Self::new(Amount::Other(whole::Amount::Overall(check_share(share)?))))
    }

    /// So many of what is kept so far go.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::new(Amount::Other(whole::Amount::Count(count)))
    }

    /// What scores higher stays; compared in `f64`, nothing is rounded.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is NaN.
    pub fn above(threshold: f64) -> Result<Self> {
        if threshold.is_nan() {
            return Err(Error::argument("threshold", threshold, "a number"));
        }
        Ok(Self::new(Amount::Other(whole::Amount::Above(threshold))))
    }

    /// `keep` of each `of` neighbours in a row stay: 2 of 4 is what sparse tensor cores take. A last shorter block of a
    /// row keeps `ceil(keep * length / of)`; a block that already keeps fewer is left as it is. Takes no
    /// [floor](Select::with_min_kept): more would not be `n` of `m`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless `keep` is from 1 to `of`.
    pub fn n_of_m(keep: usize, of: usize) -> Result<Self> {
        if keep == 0 || keep > of {
            return Err(Error::argument("n of m", format!("{keep} of {of}"), "at least 1, and no more than all"));
        }
        Ok(Self::new(Amount::Of { keep, of }))
    }

    /// As few go as bring the cost of what is kept, over all tensors together, down to `cost`. An element costs what
    /// [`Scores::with_cost`] says: 1, so that the budget is one of elements, unless it is bits or multiplications.
    #[must_use]
    pub fn budget(cost: u64) -> Self {
        Self::new(Amount::Other(whole::Amount::Cost(cost)))
    }

    /// Each row, along the last axis, by itself. Not for a budget.
    #[must_use]
    pub fn per_row(self) -> Self {
        Self { per_row: true, ..self }
    }

    /// Slices of an axis go whole: with 0 the outputs of a layer, its filters, with 1 its inputs.
    #[must_use]
    pub fn along(self, axis: usize) -> Self {
        Self { units: Some(Units::Slices { axis }), ..self }
    }

    /// Blocks of `rows` by `cols` of the last two axes go whole; those at the end of an axis may be smaller. A tensor
    /// of one axis is one row.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when either is 0.
    pub fn in_blocks(self, rows: usize, cols: usize) -> Result<Self> {
        if rows == 0 || cols == 0 {
            return Err(Error::argument("block", format!("{rows} by {cols}"), "at least 1 by 1"));
        }
        Ok(Self { units: Some(Units::Blocks { rows, cols }), ..self })
    }

    /// A unit's score is the norm `(Σ |s|^p)^(1/p)` of the scores of its kept elements, with `p` infinite the largest;
    /// without, it is their sum. Of magnitudes, 1 is that sum.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless `p` is at least 1e-6: powers of less are
    /// 1 but for their last digits.
    pub fn with_norm(self, p: f64) -> Result<Self> {
        if p >= 1e-6 {
            return Ok(Self { reduce: Reduce { norm: Some(p), ..self.reduce }, ..self });
        }
        Err(Error::argument("norm", p, "at least 1e-6"))
    }

    /// A unit's score is that of its mean element, those pruned counted as 0: the sum over the number of elements, or
    /// `(Σ |s|^p / number)^(1/p)`. Without, large units score higher than small ones: those of another layer, blocks at
    /// an end.
    #[must_use]
    pub fn with_mean(self) -> Self {
        Self { reduce: Reduce { mean: true, ..self.reduce }, ..self }
    }

    /// The best `count` of each tensor stay, of each row where rows are on their own, whatever else is asked for: a
    /// share or count then takes the rest from elsewhere, as far as there is any. With 1 no layer is cut off. Not for
    /// [`n_of_m`](Select::n_of_m), which says itself what stays.
    #[must_use]
    pub fn with_min_kept(self, count: usize) -> Self {
        Self { min_kept: count, ..self }
    }

    /// A pruner that selects by a criterion's scores.
    #[must_use]
    pub fn by<C>(self, criterion: C) -> Pruning<C> {
        Pruning::new(criterion, self)
    }

    /// Columns of a matrix that are looked at together where it is pruned some at a time, `block` where any number will
    /// do; `None` where what is selected depends on all of it.
    #[cfg(feature = "linalg")]
    pub(super) fn columns(&self, block: usize) -> Option<usize> {
        match self.amount {
            _ if self.units.is_some() || self.min_kept > 0 => None,
            Amount::Of { of, .. } => Some(of),
            Amount::Other(whole::Amount::Share(_) | whole::Amount::Overall(_)) => Some(block),
            Amount::Other(_) => None,
        }
    }

    /// Prunes tensors as if they were one, by scores at hand: of the elements that the masks keep, those that do not
    /// survive are dropped. Scores of elements pruned before are not looked at. Rows and blocks are those of a mask's
    /// shape.
    ///
    /// ```
    /// use lapidary::{Criterion, Mask, prune::{Scores, Select, Snip}};
    /// let weights = [vec![1.0f32, -2.0], vec![0.5, 3.0]];
    /// let gradients = [vec![0.1f32, 0.4], vec![-1.0, 0.01]];
    /// let mut scores = [[0.0; 2]; 2];
    /// for ((w, g), scores) in weights.iter().zip(&gradients).zip(&mut scores) {
    ///     Snip::new(g).score(w.into(), scores)?;
    /// }
    /// let mut masks = [Mask::keep_all(&[2])?, Mask::keep_all(&[2])?];
    /// Select::sparsity(0.5)?.refine(&scores.each_ref().map(|scores| Scores::new(scores)), &mut masks)?;
    /// assert_eq!(masks.map(|mask| mask.indices().collect::<Vec<_>>()), [[1], [0]]);
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many masks as tensors, or scores as elements;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) when a score of a kept element is NaN;
    /// [`Argument`](crate::ErrorKind::Argument) for a count larger than what is kept, a budget that what must stay
    /// exceeds or that is for each row, a floor beside `n` of `m`, an axis that a tensor has not, units that memory
    /// does not hold, and costs whose sum is beyond 64 bits. It names the tensor by its place (`#0`) where there are several.
    /// No mask is changed then.
    pub fn refine<T: Element>(&self, scores: &[Scores<'_, T>], masks: &mut [Mask]) -> Result<()> {
        if scores.len() != masks.len() {
            return Err(Error::shape("list of masks", &[scores.len()], &[masks.len()]));
        }
        for (i, (scores, mask)) in scores.iter().zip(&*masks).enumerate() {
            named(scores.check(mask), i, masks.len())?;
        }
        let Some(units) = self.units else {
            let tensors: Vec<_> = scores.iter().map(Scores::tensor).collect();
            let costs: Vec<_> = scores.iter().map(|scores| Weights::Each(scores.cost)).collect();
            return self.select(&tensors, &costs, masks);
        };
        let mut reduced = Vec::with_capacity(scores.len());
        for (i, (scores, mask)) in scores.iter().zip(&*masks).enumerate() {
            reduced.push(named(units.reduce(scores.tensor(), scores.cost, mask, self.reduce), i, masks.len())?);
        }
        let mut kept: Vec<Mask> = reduced.iter().map(|units| units.mask.clone()).collect();
        let tensors: Vec<_> =
            reduced.iter().map(|units| Tensor { values: units.scores.as_slice(), order: Order::Number }).collect();
        let costs: Vec<_> = reduced.iter().map(|units| Weights::Listed(&units.costs)).collect();
        let amount = match self.amount {
            Amount::Other(whole::Amount::Above(threshold)) => {
                Amount::Other(whole::Amount::Above(self.reduce.threshold(threshold)))
            }
            amount => amount,
        };
        Self { amount, ..*self }.select(&tensors, &costs, &mut kept)?;
        for (mask, kept) in masks.iter_mut().zip(&kept) {
            units.drop_from(mask, kept);
        }
        Ok(())
    }

    fn select<T: Element>(&self, tensors: &[Tensor<'_, T>], costs: &[Weights<'_>], masks: &mut [Mask]) -> Result<()> {
        match (self.amount, self.per_row) {
            (Amount::Other(amount), false) => whole::refine(amount, self.min_kept, tensors, costs, masks),
            (Amount::Of { keep, of }, _) if self.min_kept > 0 => {
                let found = format!("{} beside {keep} of {of}", self.min_kept);
                Err(Error::argument("floor", found, "0: n of m says what each block keeps"))
            }
            (Amount::Of { keep, of }, _) => self.select_rows(Some(of), Quota::Of { keep, of }, tensors, masks),
            (Amount::Other(whole::Amount::Share(share)), true) => {
                self.select_rows(None, Quota::AllBut(share), tensors, masks)
            }
            (Amount::Other(whole::Amount::Overall(share)), true) => {
                self.select_rows(None, Quota::AllButOverall(share), tensors, masks)
            }
            (Amount::Other(whole::Amount::Count(count)), true) => {
                self.select_rows(None, Quota::AllButCount(count), tensors, masks)
            }
            (Amount::Other(whole::Amount::Above(threshold)), true) => {
                self.select_rows(None, Quota::Above(threshold), tensors, masks)
            }
            (Amount::Other(whole::Amount::Cost(_)), true) => {
                Err(Error::argument("budget", "one for each row", "one for all"))
            }
        }
    }

    /// Of each row, or each `size` neighbours in one, keeps the best.
    fn select_rows<T: Element>(
        &self,
        size: Option<usize>,
        quota: Quota,
        tensors: &[Tensor<'_, T>],
        masks: &mut [Mask],
    ) -> Result<()> {
        let mut kept = masks.to_vec();
        for (i, (tensor, mask)) in tensors.iter().zip(&mut kept).enumerate() {
            if mask.is_empty() {
                continue;
            }
            let cols = mask.shape().last().copied().unwrap_or(1);
            let size = size.unwrap_or(cols);
            let (values, order, least) = (tensor.values, tensor.order, self.min_kept);
            let rows = Rows { values, order, words: mask.words_mut(), cols, size, quota, least };
            if let (Some(there), Quota::AllButCount(count)) = (keep_best(rows), quota) {
                return named(Err(whole::too_many(count, there)), i, masks.len());
            }
        }
        masks.clone_from_slice(&kept);
        Ok(())
    }
}

pub(super) fn check_share(share: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(Error::argument("sparsity", share, "from 0 to 1")) }
}

/// An error of one of several tensors names it.
pub(super) fn named<R>(result: Result<R>, index: usize, tensors: usize) -> Result<R> {
    result.map_err(|error| if tensors > 1 { error.in_tensor(&format!("#{index}")) } else { error })
}

/// The magnitudes of tensors whose shapes are those of the masks.
pub(super) fn magnitudes<'a, T: Element>(
    tensors: &'a [TensorRef<'_, T>],
    masks: &[Mask],
) -> Result<Vec<Scores<'a, T>>> {
    for (i, (values, mask)) in tensors.iter().zip(masks).enumerate() {
        named(mask.check(values.shape()), i, tensors.len())?;
    }
    Ok(tensors.iter().map(|values| Scores::magnitude(values.as_slice())).collect())
}
