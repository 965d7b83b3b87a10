//! The k-th smallest magnitude of the elements a mask still keeps, exactly.
//!
//! The bits of `|x|` order as an unsigned integer, so a radix select finds the k-th: count how
//! many candidates have each value of the top digit, go on with the digit in which the k-th falls.
//! Counts are integers, so the result depends on nothing but the numbers.

use super::{
    bits::Bits,
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::{Element, Real};

const DIGIT: u32 = 11;
type Histogram = [usize; 1 << DIGIT];

/// A tensor's elements and which of them are candidates.
#[derive(Clone, Copy)]
pub(crate) struct Candidates<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) keep: Bits<'a>,
}

/// Where a selection cuts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cut {
    /// [`Real::magnitude_bits`] of the k-th smallest candidate.
    pub(crate) magnitude: u64,
    /// How many candidates of just that magnitude are among the first k: at least 1.
    pub(crate) ties: usize,
}

/// The k-th smallest magnitude, `k` from 1 to the number of candidates in all `tensors`.
pub(crate) fn kth_magnitude<T: Element>(tensors: &[Candidates<'_, T>], k: usize) -> Cut {
    let mut rank = k;
    let mut prefix = 0;
    let mut shift = T::Real::MAGNITUDE_WIDTH;
    while shift > 0 {
        let width = shift.min(DIGIT);
        let above = shift;
        shift -= width;
        let mut counts = [0; 1 << DIGIT];
        for &candidates in tensors {
            add(&mut counts, &execute(Count { candidates, prefix, above, shift }));
        }
        let mut digit = 0;
        while digit + 1 < counts.len() && counts[digit] < rank {
            rank -= counts[digit];
            digit += 1;
        }
        prefix = prefix << width | digit as u64;
    }
    Cut { magnitude: prefix, ties: rank }
}

fn add(a: &mut Histogram, b: &Histogram) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}

/// Counts the candidates whose bits from `above` up are `prefix`, by their bits from `shift` to `above`.
struct Count<'a, T> {
    candidates: Candidates<'a, T>,
    prefix: u64,
    above: u32,
    shift: u32,
}

impl<T: Element> Work for Count<'_, T> {
    type Output = Histogram;

    fn len(&self) -> usize {
        self.candidates.values.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (values, values_right) = self.candidates.values.split_at(mid);
        let (keep, keep_right) = self.candidates.keep.split_at(mid);
        let part = |values, keep| Self { candidates: Candidates { values, keep }, ..self };
        (part(values, keep), part(values_right, keep_right))
    }

    fn run(self, isa: Isa) -> Histogram {
        isa.run(self)
    }

    fn combine(mut left: Histogram, right: Histogram) -> Histogram {
        add(&mut left, &right);
        left
    }
}

impl<T: Element> Kernel for Count<'_, T> {
    type Output = Histogram;

    #[inline(always)]
    fn run(self) -> Histogram {
        let mut counts = [0; 1 << DIGIT];
        let width = self.above - self.shift;
        let low = (1u64 << width) - 1;
        for (word, range) in self.candidates.keep.words() {
            for (i, x) in self.candidates.values[range].iter().enumerate() {
                let bits = x.to_real().magnitude_bits();
                let counted = word >> i & 1 == 1 && bits >> self.above == self.prefix;
                counts[(bits >> self.shift & low) as usize] += usize::from(counted);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<T: Element>(values: &[T], words: &[u64]) -> Result<(), TestCaseError> {
        let keep = Bits::new(words, values.len());
        let mut sorted: Vec<u64> = (0..values.len())
            .filter(|i| words[i / 64] >> (i % 64) & 1 == 1)
            .map(|i| values[i].to_real().magnitude_bits())
            .collect();
        sorted.sort_unstable();
        for k in [1, sorted.len() / 3, sorted.len()] {
            if k == 0 || sorted.is_empty() {
                continue;
            }
            let cut = kth_magnitude(&[Candidates { values, keep }], k);
            let below = sorted.iter().filter(|&&x| x < sorted[k - 1]).count();
            prop_assert_eq!(cut, Cut { magnitude: sorted[k - 1], ties: k - below });
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn is_what_a_sort_finds(
            values in prop::collection::vec(prop_oneof![-2i32..2, any::<i32>()], 1..400),
            words in prop::collection::vec(any::<u64>(), 7),
        ) {
            let f32s: Vec<f32> = values.iter().map(|&x| x as f32 / 8.0).collect();
            let f64s: Vec<f64> = values.iter().map(|&x| f64::from(x).powi(9)).collect();
            let words: Vec<u64> = words[..values.len().div_ceil(64)].to_vec();
            check(&f32s, &words)?;
            check(&f64s, &words)?;
        }
    }
}
