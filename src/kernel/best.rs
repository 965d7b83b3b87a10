//! The best few of each of many small groups: of each row of a tensor, or of each block of a row.

use super::{
    bits::WORD,
    isa::{Isa, Kernel},
    parallel::{GRAIN, Work, execute},
    select::Order,
};
use crate::element::Element;
use std::cmp::Reverse;

/// How many of a group stay.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Quota {
    /// All but a share of those kept so far, rounded half to even.
    AllBut(f64),
    /// All but a share of the group, those that went before counted in, rounded half to even.
    AllButOverall(f64),
    /// All but so many.
    AllButCount(usize),
    /// `keep` of each `of`, rounded up where a group is shorter.
    Of { keep: usize, of: usize },
    /// Those of a higher score.
    Above(f64),
}

/// The elements to keep `share` less of.
pub(crate) fn removed(share: f64, kept: usize) -> usize {
    (share * kept as f64).round_ties_even() as usize
}

/// Rows of a tensor, and what of them is kept.
pub(crate) struct Rows<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) order: Order,
    /// From a whole word on.
    pub(crate) words: &'a mut [u64],
    pub(crate) cols: usize,
    /// Neighbours in a row that are a group; the last of a row may be shorter.
    pub(crate) size: usize,
    pub(crate) quota: Quota,
    /// So many stay at the least, of those kept so far.
    pub(crate) least: usize,
}

/// Of each group keeps the best, the lower index of equal ones. Gives what a group keeps where that is fewer than a
/// quota takes away; the words are then not to be used.
pub(crate) fn keep_best<T: Element>(rows: Rows<'_, T>) -> Option<usize> {
    execute(rows)
}

impl<T: Element> Work for Rows<'_, T> {
    type Output = Option<usize>;

    fn len(&self) -> usize {
        self.values.len() / self.cols.max(1)
    }

    fn chunk(&self) -> usize {
        // Rows that end with a word.
        let aligned = WORD >> self.cols.trailing_zeros().min(WORD.trailing_zeros());
        (GRAIN / self.cols.max(1)).next_multiple_of(aligned).max(aligned)
    }

    fn elements(&self) -> usize {
        self.values.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { values, words, .. } = self;
        let at = mid * self.cols;
        let (values, values_right) = values.split_at(at);
        let (words, words_right) = words.split_at_mut(at / WORD);
        let Self { order, cols, size, quota, least, .. } = self;
        let part = |values, words| Self { values, order, words, cols, size, quota, least };
        (part(values, words), part(values_right, words_right))
    }

    fn run(self, isa: Isa) -> Option<usize> {
        isa.run(self)
    }

    fn combine(left: Option<usize>, right: Option<usize>) -> Option<usize> {
        left.or(right)
    }
}

impl<T: Element> Kernel for Rows<'_, T> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run(self) -> Option<usize> {
        let Self { values, order, words, cols, size, quota, least } = self;
        let mut kept: Vec<(u64, Reverse<usize>)> = Vec::with_capacity(size.min(cols));
        for (row, numbers) in values.chunks_exact(cols.max(1)).enumerate() {
            for (block, numbers) in numbers.chunks(size).enumerate() {
                let first = row * cols + block * size;
                kept.clear();
                let mut above = 0;
                for (i, &x) in (first..).zip(numbers) {
                    if words[i / WORD] >> (i % WORD) & 1 == 1 {
                        kept.push((order.bits(x), Reverse(i)));
                        if let Quota::Above(least) = quota {
                            above += usize::from(order.number(x) > least);
                        }
                    }
                }
                let stay = match quota {
                    Quota::AllBut(share) => kept.len() - removed(share, kept.len()),
                    Quota::AllButOverall(share) => numbers.len() - removed(share, numbers.len()),
                    Quota::AllButCount(count) if count <= kept.len() => kept.len() - count,
                    Quota::AllButCount(_) => return Some(kept.len()),
                    Quota::Of { keep, of } if numbers.len() == of => keep,
                    Quota::Of { keep, of } => (keep as u128 * numbers.len() as u128).div_ceil(of as u128) as usize,
                    Quota::Above(_) => above,
                };
                let go = kept.len().saturating_sub(stay.max(least));
                if go > 0 {
                    kept.select_nth_unstable(go - 1);
                    for &(_, Reverse(i)) in &kept[..go] {
                        words[i / WORD] &= !(1 << (i % WORD));
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut into pieces, the rows of a large tensor are what each is by itself.
    #[test]
    fn pieces_end_where_words_do() {
        for (rows, cols) in [(3, 40_001), (500, 333), (1000, 96), (130_000, 1), (9, 32_768)] {
            let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919 % 613) as f32 - 300.0) / 4.0).collect();
            for (size, quota) in [
                (cols, Quota::AllBut(0.4)),
                (cols, Quota::AllButOverall(0.4)),
                (cols, Quota::AllButCount(cols / 3)),
                (cols, Quota::Above(20.0)),
                (4, Quota::Of { keep: 2, of: 4 }),
                (7, Quota::Of { keep: 3, of: 7 }),
            ] {
                let order = Order::Magnitude;
                let bit = |words: &[u64], i: usize| words[i / WORD] >> (i % WORD) & 1;
                let mut all = vec![u64::MAX; values.len().div_ceil(WORD)];
                let rows_of = Rows { values: &values, order, words: &mut all, cols, size, quota, least: 1 };
                assert_eq!(keep_best(rows_of), None);
                for (row, values) in values.chunks(cols).enumerate() {
                    let mut words = vec![u64::MAX; cols.div_ceil(WORD)];
                    keep_best(Rows { values, order, words: &mut words, cols, size, quota, least: 1 });
                    assert!(
                        (0..cols).all(|i| bit(&all, row * cols + i) == bit(&words, i)),
                        "{rows} by {cols}, {quota:?}"
                    );
                }
            }
        }
        let (values, mut words) = ([1f32; 6], [0b10_1111u64]);
        let rows = Rows {
            values: &values,
            order: Order::Number,
            words: &mut words,
            cols: 3,
            size: 3,
            quota: Quota::AllButCount(3),
            least: 0,
        };
        assert_eq!(keep_best(rows), Some(2));
    }
}
