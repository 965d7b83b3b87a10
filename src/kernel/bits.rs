//! Runs of bits, one an element, in words of 64: the first element in the lowest bit.

use super::{
    any::BLOCK,
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::Element;
use std::ops::Range;

pub(crate) const WORD: usize = u64::BITS as usize;
const HALF: usize = WORD / 2;

/// A borrowed run of `len` bits that starts at a word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits<'a> {
    words: &'a [u64],
    len: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(words: &'a [u64], len: usize) -> Self {
        debug_assert_eq!(words.len(), len.div_ceil(WORD));
        Self { words, len }
    }

    /// `mid` is a multiple of 64.
    pub(crate) fn split_at(self, mid: usize) -> (Self, Self) {
        debug_assert_eq!(mid % WORD, 0);
        let (left, right) = self.words.split_at(mid / WORD);
        (Self::new(left, mid), Self::new(right, self.len - mid))
    }

    /// Puts 1 for each element of a block that is kept and else 0 into `lanes`: what vectors of numbers are selected by.
    #[inline(always)]
    pub(crate) fn lanes(self, range: Range<usize>, lanes: &mut [u32; BLOCK]) -> &[u32; BLOCK] {
        let words = &self.words[range.start / WORD..range.end.div_ceil(WORD)];
        for (word, lanes) in words.iter().zip(lanes.as_chunks_mut::<WORD>().0) {
            // Halves, so that a lane has as many bits as it is made from.
            let (low, high) = lanes.split_at_mut(HALF);
            for (half, lanes) in [*word as u32, (*word >> HALF) as u32].into_iter().zip([low, high]) {
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane = half >> i & 1;
                }
            }
        }
        lanes
    }

    /// Each word and the elements it speaks of; those of a last, partial word start at its lowest bit.
    #[inline(always)]
    pub(crate) fn words(self) -> impl Iterator<Item = (u64, Range<usize>)> + use<'a> {
        let len = self.len;
        self.words.iter().enumerate().map(move |(i, &word)| (word, i * WORD..len.min((i + 1) * WORD)))
    }
}

/// Sets to zero the elements whose bit is 0.
pub(crate) fn select<T: Element>(values: &mut [T], keep: Bits<'_>) {
    execute(Select { values, keep });
}

struct Select<'a, T> {
    values: &'a mut [T],
    keep: Bits<'a>,
}

impl<T: Element> Work for Select<'_, T> {
    type Output = ();

    fn len(&self) -> usize {
        self.values.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (values, values_right) = self.values.split_at_mut(mid);
        let (keep, keep_right) = self.keep.split_at(mid);
        (Self { values, keep }, Self { values: values_right, keep: keep_right })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<T: Element> Kernel for Select<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (word, range) in self.keep.words() {
            let values = &mut self.values[range];
            match word {
                u64::MAX => {}
                0 => values.fill(T::default()),
                _ => {
                    for (i, value) in values.iter_mut().enumerate() {
                        *value = if word >> i & 1 == 1 { *value } else { T::default() };
                    }
                }
            }
        }
    }
}

/// Clears the bits of the elements of `values` that fail `test`.
pub(crate) fn refine<T: Element, F: Fn(T) -> bool + Copy + Send + Sync>(words: &mut [u64], values: &[T], test: F) {
    execute(Refine { words, values, test });
}

struct Refine<'a, T, F> {
    words: &'a mut [u64],
    values: &'a [T],
    test: F,
}

impl<T: Element, F: Fn(T) -> bool + Copy + Send + Sync> Work for Refine<'_, T, F> {
    type Output = ();

    fn len(&self) -> usize {
        self.values.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (words, words_right) = self.words.split_at_mut(mid / WORD);
        let (values, values_right) = self.values.split_at(mid);
        (Self { words, values, test: self.test }, Self { words: words_right, values: values_right, test: self.test })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<T: Element, F: Fn(T) -> bool + Copy + Send + Sync> Kernel for Refine<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (word, values) in self.words.iter_mut().zip(self.values.chunks(WORD)) {
            *word &= values.iter().enumerate().fold(0, |bits, (i, &value)| bits | u64::from((self.test)(value)) << i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refine_then_select() {
        for n in [0usize, 1, 63, 64, 65, 130, 100_000] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let mut words = vec![u64::MAX; n.div_ceil(WORD)];
            refine(&mut words, &values, |x| x % 3.0 == 0.0);
            refine(&mut words, &values, |x| x != 3.0);
            let mut selected = values.clone();
            select(&mut selected, Bits::new(&words, n));
            for (x, y) in values.iter().zip(selected) {
                assert_eq!(y, if x % 3.0 == 0.0 && *x != 3.0 { *x } else { 0.0 });
            }
        }
    }

    #[test]
    fn select_clears_nan_and_infinity() {
        let mut values = [f32::NAN, f32::INFINITY, 1.0];
        select(&mut values, Bits::new(&[0b100], 3));
        assert_eq!(values, [0.0, 0.0, 1.0]);
    }
}
