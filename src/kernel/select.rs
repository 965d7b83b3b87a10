//! Where a share of the elements that a mask still keeps is cut off: the k-th lowest score, exactly.
//!
//! The bits of a number, put in order, compare as the numbers do, so a radix select finds the k-th: count how many
//! candidates have each value of the top digit, go on with the digit in which the k-th falls. Counts are integers, so
//! the result depends on nothing but the numbers.

use super::{
    bits::Bits,
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::{Element, Real};
use num_traits::Float;

const DIGIT: u32 = 11;
type Histogram = [u64; 1 << DIGIT];

/// What of an element is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Order {
    /// The number.
    Number,
    /// Its magnitude.
    Magnitude,
}

impl Order {
    /// Significant bits of [`bits`](Order::bits).
    const fn width<T: Element>() -> u32 {
        T::Real::MAGNITUDE_WIDTH + 1
    }

    /// An integer that orders as the scores do; the same for 0 and -0. NaN has the ends.
    #[inline(always)]
    pub(crate) fn bits<T: Element>(self, x: T) -> u64 {
        let x = x.to_real();
        let (zero, size) = (1u64 << T::Real::MAGNITUDE_WIDTH, x.magnitude_bits());
        if self == Self::Number && x.is_sign_negative() { zero - size } else { zero + size }
    }

    /// The score, exactly.
    #[inline(always)]
    pub(crate) fn number<T: Element>(self, x: T) -> f64 {
        let x = x.to_f64();
        if self == Self::Magnitude { x.abs() } else { x }
    }
}

/// What the removal of an element counts for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights<'a> {
    Each(u64),
    Listed(&'a [u64]),
}

impl<'a> Weights<'a> {
    #[inline(always)]
    pub(crate) fn of(self, index: usize) -> u64 {
        match self {
            Self::Each(weight) => weight,
            Self::Listed(weights) => weights[index],
        }
    }

    /// Whether no removal counts for anything.
    pub(crate) fn are_zero(self) -> bool {
        match self {
            Self::Each(weight) => weight == 0,
            Self::Listed(weights) => weights.iter().all(|&weight| weight == 0),
        }
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        match self {
            Self::Each(_) => (self, self),
            Self::Listed(weights) => {
                let (left, right) = weights.split_at(mid);
                (Self::Listed(left), Self::Listed(right))
            }
        }
    }
}

/// A tensor's elements and which of them are candidates.
#[derive(Clone, Copy)]
pub(crate) struct Candidates<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) order: Order,
    pub(crate) keep: Bits<'a>,
    pub(crate) weights: Weights<'a>,
}

/// Where a selection cuts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cut {
    /// [`Order::bits`] of the last candidate that goes.
    pub(crate) bits: u64,
    /// What the candidates of just those bits that go weigh, at least: more than 0.
    pub(crate) ties: u64,
    /// Whether all of those bits go.
    pub(crate) all: bool,
}

/// The least score with which and below which candidates weigh `weight` together, from 1 to what all of them weigh: a
/// sum that fits 64 bits.
pub(crate) fn cut<T: Element>(tensors: &[Candidates<'_, T>], weight: u64) -> Cut {
    let (mut rest, mut prefix, mut there) = (weight, 0, 0);
    let mut shift = Order::width::<T>();
    while shift > 0 {
        let width = shift.min(DIGIT);
        let above = shift;
        shift -= width;
        let mut sums = [0; 1 << DIGIT];
        for &candidates in tensors {
            let counts = execute(Count { candidates, prefix, above, shift });
            let weight = if let Weights::Each(weight) = candidates.weights { weight } else { 1 };
            sums.iter_mut().zip(&counts).for_each(|(sum, count)| *sum += count * weight);
        }
        let mut digit = 0;
        while digit + 1 < sums.len() && sums[digit] < rest {
            rest -= sums[digit];
            digit += 1;
        }
        there = sums[digit];
        prefix = prefix << width | digit as u64;
    }
    Cut { bits: prefix, ties: rest, all: rest == there }
}

/// Counts the candidates whose bits from `above` up are `prefix`, by their bits from `shift` to `above`; adds up
/// weights that are listed.
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
        let Candidates { values, order, keep, weights } = self.candidates;
        let (values, values_right) = values.split_at(mid);
        let (keep, keep_right) = keep.split_at(mid);
        let (weights, weights_right) = weights.split_at(mid);
        let part = |values, keep, weights| Self { candidates: Candidates { values, order, keep, weights }, ..self };
        (part(values, keep, weights), part(values_right, keep_right, weights_right))
    }

    fn run(self, isa: Isa) -> Histogram {
        isa.run(self)
    }

    fn combine(mut left: Histogram, right: Histogram) -> Histogram {
        left.iter_mut().zip(&right).for_each(|(a, b)| *a += b);
        left
    }
}

impl<T: Element> Kernel for Count<'_, T> {
    type Output = Histogram;

    #[inline(always)]
    fn run(self) -> Histogram {
        // One loop for each order and kind of weight: neither is asked for in it.
        match (self.candidates.order, self.candidates.weights) {
            (order, Weights::Listed(weights)) => self.counts(order, weights),
            (Order::Number, Weights::Each(_)) => self.counts(Order::Number, Ones),
            (Order::Magnitude, Weights::Each(_)) => self.counts(Order::Magnitude, Ones),
        }
    }
}

trait Counted: Copy {
    fn count(self, index: usize) -> u64;
}

#[derive(Clone, Copy)]
struct Ones;

impl Counted for Ones {
    #[inline(always)]
    fn count(self, _: usize) -> u64 {
        1
    }
}

impl Counted for &[u64] {
    #[inline(always)]
    fn count(self, index: usize) -> u64 {
        self[index]
    }
}

impl<T: Element> Count<'_, T> {
    #[inline(always)]
    fn counts(self, order: Order, counted: impl Counted) -> Histogram {
        let mut counts = [0; 1 << DIGIT];
        let low = (1u64 << (self.above - self.shift)) - 1;
        // A shift by all 64 bits is none.
        let above = |bits: u64| bits.checked_shr(self.above).unwrap_or(0);
        for (word, range) in self.candidates.keep.words() {
            let first = range.start;
            for (i, &x) in self.candidates.values[range].iter().enumerate() {
                let bits = order.bits(x);
                let found = word >> i & 1 == 1 && above(bits) == self.prefix;
                counts[(bits >> self.shift & low) as usize] += if found { counted.count(first + i) } else { 0 };
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<T: Element>(values: &[T], words: &[u64], weights: &[u64]) -> Result<(), TestCaseError> {
        let keep = Bits::new(words, values.len());
        for order in [Order::Number, Order::Magnitude] {
            for listed in [false, true] {
                let weight = |i: usize| if listed { weights[i] } else { 3 };
                let mut sorted: Vec<(u64, u64)> = (0..values.len())
                    .filter(|i| words[i / 64] >> (i % 64) & 1 == 1)
                    .map(|i| (order.bits(values[i]), weight(i)))
                    .collect();
                sorted.sort_unstable();
                let total: u64 = sorted.iter().map(|(_, weight)| weight).sum();
                for rank in [1, total / 3, total.saturating_sub(1), total] {
                    if rank == 0 || total == 0 {
                        continue;
                    }
                    let weights = if listed { Weights::Listed(weights) } else { Weights::Each(3) };
                    let got = cut(&[Candidates { values, order, keep, weights }], rank);
                    let (mut sum, mut at) = (0, 0);
                    while sum + sorted[at].1 < rank {
                        sum += sorted[at].1;
                        at += 1;
                    }
                    let bits = sorted[at].0;
                    let weigh = |test: &dyn Fn(u64) -> bool| -> u64 {
                        sorted.iter().filter(|(b, _)| test(*b)).map(|(_, weight)| weight).sum()
                    };
                    let ties = rank - weigh(&|b| b < bits);
                    prop_assert_eq!(got, Cut { bits, ties, all: ties == weigh(&|b| b == bits) });
                }
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn is_what_a_sort_finds(
            values in prop::collection::vec(prop_oneof![-2i32..2, any::<i32>()], 1..400),
            words in prop::collection::vec(any::<u64>(), 7),
            weights in prop::collection::vec(1u64..9, 400),
        ) {
            let f32s: Vec<f32> = values.iter().map(|&x| x as f32 / 8.0).collect();
            let f64s: Vec<f64> = values.iter().map(|&x| f64::from(x).powi(9)).collect();
            let words: Vec<u64> = words[..values.len().div_ceil(64)].to_vec();
            check(&f32s, &words, &weights[..values.len()])?;
            check(&f64s, &words, &weights[..values.len()])?;
        }

        #[test]
        fn bits_order_as_numbers_do(a in any::<f32>(), b in any::<f32>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(a.partial_cmp(&b).unwrap(), Order::Number.bits(a).cmp(&Order::Number.bits(b)));
            let (c, d) = (f64::from(a) * 1e200, f64::from(b) * 1e200);
            prop_assert_eq!(c.partial_cmp(&d).unwrap(), Order::Number.bits(c).cmp(&Order::Number.bits(d)));
            let by_size = Order::Magnitude.bits(c).cmp(&Order::Magnitude.bits(d));
            prop_assert_eq!(c.abs().partial_cmp(&d.abs()).unwrap(), by_size);
        }
    }
}
