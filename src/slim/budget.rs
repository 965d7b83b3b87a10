//! How many channels of each group stay within a budget for the whole model.

use crate::error::{Error, Result};

/// A group, as a budget sees it.
pub(super) struct Candidate<'a> {
    /// Of each channel.
    pub(super) scores: &'a [f64],
    /// Whether each may go.
    pub(super) free: Vec<bool>,
    /// How many stay at least.
    pub(super) floor: usize,
}

/// The widths of all groups of which `cost` is at most `budget`. The least important channels go first, of equal ones the
/// later; the number that goes is the least that suffices, as far as a bisection finds. Then those come back that still
/// fit, the most important first. `cost` must not grow when a width shrinks.
pub(super) fn widths<C: PartialOrd + Copy + std::fmt::Display>(
    groups: &[Candidate<'_>],
    budget: C,
    cost: impl Fn(&[usize]) -> Result<C>,
) -> Result<Vec<usize>> {
    let full: Vec<usize> = groups.iter().map(|group| group.scores.len()).collect();
    let mut order: Vec<(f64, usize, usize)> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let free = group.free.iter().enumerate().filter(|(_, free)| **free);
        order.extend(free.map(|(channel, _)| (group.scores[channel], index, channel)));
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then((b.1, b.2).cmp(&(a.1, a.2))));
    // What goes, in order: no group below its floor.
    let mut left = full.clone();
    let goes = order.into_iter().map(|(_, group, _)| group).filter(|&group| {
        let above = left[group] > groups[group].floor;
        left[group] -= usize::from(above);
        above
    });
    let goes: Vec<usize> = goes.collect();
    let after = |count: usize| {
        let mut widths = full.clone();
        goes[..count].iter().for_each(|&group| widths[group] -= 1);
        widths
    };
    let fits = |widths: &[usize]| Ok::<_, Error>(cost(widths)? <= budget);
    if !fits(&after(goes.len()))? {
        let found = format!("{budget}, and the least possible {}", cost(&after(goes.len()))?);
        return Err(Error::argument("budget", found, "one that can be kept"));
    }
    let (mut low, mut high) = (0, goes.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(&after(middle))? { high = middle } else { low = middle + 1 }
    }
    let mut widths = after(low);
    // A group whose next channel does not fit is done: its others do not either.
    let mut done = vec![false; groups.len()];
    for &group in goes[..low].iter().rev().filter(|_| low > 0) {
        if done[group] {
            continue;
        }
        widths[group] += 1;
        if !fits(&widths)? {
            widths[group] -= 1;
            done[group] = true;
        }
    }
    Ok(widths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(scores: &[Vec<f64>]) -> Vec<Candidate<'_>> {
        let candidate = |scores: &'_ Vec<f64>| scores.len();
        scores.iter().map(|scores| Candidate { free: vec![true; candidate(scores)], scores, floor: 1 }).collect()
    }

    proptest! {
        #[test]
        fn budgets_are_kept_and_used(
            scores in prop::collection::vec(prop::collection::vec(0.0..1.0f64, 1..6), 2..5),
            share in 0.0..1.0f64,
        ) {
            // A chain of layers: products of neighbours.
            let cost = |widths: &[usize]| Ok(widths.windows(2).map(|pair| pair[0] * pair[1]).sum::<usize>());
            let groups = candidates(&scores);
            let full: Vec<usize> = scores.iter().map(Vec::len).collect();
            let (least, most) = (scores.len() - 1, cost(&full).unwrap());
            let budget = least + ((most - least) as f64 * share) as usize;
            let widths = widths(&groups, budget, cost).unwrap();
            prop_assert!(cost(&widths).unwrap() <= budget);
            // No group could be wider.
            for group in (0..widths.len()).filter(|&group| widths[group] < full[group]) {
                let mut wider = widths.clone();
                wider[group] += 1;
                prop_assert!(cost(&wider).unwrap() > budget);
            }
        }
    }

    #[test]
    fn a_budget_that_cannot_be_kept_is_an_error() {
        let scores = [vec![1.0, 2.0]];
        assert!(widths(&candidates(&scores), 0usize, |widths| Ok(widths[0])).is_err());
        assert_eq!(widths(&candidates(&scores), 5usize, |widths| Ok(widths[0])).unwrap(), [2]);
    }
}
