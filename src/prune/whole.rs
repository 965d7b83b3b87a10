//! Selecting from all elements of one tensor or of many.

use crate::{
    element::Element,
    error::{Error, Result},
    kernel::{
        best::removed,
        select::{Candidates, Cut, Order, Weights, cut},
    },
    tensor::Mask,
};
use std::slice;

/// The scores of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Tensor<'a, T> {
    pub(super) values: &'a [T],
    pub(super) order: Order,
}

/// How much goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    Share(f64),
    /// What brings the pruned up to this share of all.
    Overall(f64),
    Count(usize),
    /// What does not score higher.
    Above(f64),
    /// What is beyond a budget.
    Cost(u64),
}

pub(super) fn too_many(count: usize, kept: usize) -> Error {
    Error::argument("count", format!("{count} of {kept} elements"), "at most the number kept")
}

/// Drops an amount from `masks`; the best `least` of each stay.
pub(super) fn refine<T: Element>(
    amount: Amount,
    least: usize,
    tensors: &[Tensor<'_, T>],
    costs: &[Weights<'_>],
    masks: &mut [Mask],
) -> Result<()> {
    if least == 0 {
        return drop_amount(amount, None, tensors, costs, masks);
    }
    // The best of each are put aside: the amount is taken from the others.
    let mut best = masks.to_vec();
    let mut open = masks.to_vec();
    for ((tensor, best), open) in tensors.iter().zip(&mut best).zip(&mut open) {
        let go = best.kept().saturating_sub(least) as u64;
        drop_lowest(slice::from_ref(tensor), &[Weights::Each(1)], slice::from_mut(best), go);
        open.remove(best);
    }
    drop_amount(amount, Some(&best), tensors, costs, &mut open)?;
    for ((mask, best), mut open) in masks.iter_mut().zip(&best).zip(open) {
        open.or(best)?;
        *mask = open;
    }
    Ok(())
}

/// Drops an amount, of what `masks` and `aside` keep together, from `masks`.
fn drop_amount<T: Element>(
    amount: Amount,
    aside: Option<&[Mask]>,
    tensors: &[Tensor<'_, T>],
    costs: &[Weights<'_>],
    masks: &mut [Mask],
) -> Result<()> {
    let count = |masks: &[Mask]| masks.iter().map(Mask::kept).sum::<usize>();
    let (open, ones) = (count(masks), vec![Weights::Each(1); masks.len()]);
    let kept = open + aside.map_or(0, count);
    match amount {
        Amount::Share(share) => drop_lowest(tensors, &ones, masks, removed(share, kept).min(open) as u64),
        Amount::Overall(share) => {
            let all = masks.iter().map(Mask::len).sum::<usize>();
            let go = removed(share, all).saturating_sub(all - kept);
            drop_lowest(tensors, &ones, masks, go.min(open) as u64);
        }
        Amount::Count(count) if count <= kept => drop_lowest(tensors, &ones, masks, count.min(open) as u64),
        Amount::Count(count) => return Err(too_many(count, kept)),
        Amount::Above(threshold) => {
            for (tensor, mask) in tensors.iter().zip(masks) {
                let order = tensor.order;
                mask.refine(tensor.values, move |x| order.number(x) > threshold);
            }
        }
        Amount::Cost(budget) => {
            let open = cost(costs, masks)?;
            let aside = aside.map_or(Ok(0), |aside| cost(costs, aside))?;
            let over = open.checked_add(aside).ok_or_else(too_costly)?.saturating_sub(budget);
            if over > open {
                let found = format!("{budget} where {aside} must stay");
                return Err(Error::argument("budget", found, "at least the cost of what must stay"));
            }
            drop_lowest(tensors, costs, masks, over);
        }
    }
    Ok(())
}

fn too_costly() -> Error {
    Error::argument("cost", "more than 2^64 in all", "less")
}

/// What the kept elements cost.
fn cost(costs: &[Weights<'_>], masks: &[Mask]) -> Result<u64> {
    let mut sum = 0u64;
    for (&cost, mask) in costs.iter().zip(masks) {
        let more = match cost {
            Weights::Each(cost) => cost.checked_mul(mask.kept() as u64),
            Weights::Listed(_) => mask.indices().try_fold(0u64, |sum, i| sum.checked_add(cost.of(i))),
        };
        sum = more.and_then(|more| sum.checked_add(more)).ok_or_else(too_costly)?;
    }
    Ok(sum)
}

/// Drops the fewest of the lowest scores that weigh `weight` together: no more than all that is kept weighs. Tensors
/// whose elements weigh nothing lose none.
fn drop_lowest<T: Element>(tensors: &[Tensor<'_, T>], weights: &[Weights<'_>], masks: &mut [Mask], weight: u64) {
    if weight == 0 {
        return;
    }
    let candidates = tensors.iter().zip(weights).zip(&*masks).map(|((tensor, &weights), mask)| {
        let Tensor { values, order } = *tensor;
        Candidates { values, order, keep: mask.bits(), weights }
    });
    let Cut { bits, mut ties, all } = cut(&candidates.collect::<Vec<_>>(), weight);
    for ((&Tensor { values, order }, &weights), mask) in tensors.iter().zip(weights).zip(masks).rev() {
        // Weights of a tensor's kept elements are 0 together or not at all.
        if weights.are_zero() {
            continue;
        }
        if all {
            mask.refine(values, move |x| order.bits(x) > bits);
            continue;
        }
        mask.refine(values, move |x| order.bits(x) >= bits);
        let mut index = values.len();
        while ties > 0 && index > 0 {
            index -= 1;
            if mask.get(index) == Some(true) && order.bits(values[index]) == bits {
                mask.prune(index);
                ties = ties.saturating_sub(weights.of(index));
            }
        }
    }
}
