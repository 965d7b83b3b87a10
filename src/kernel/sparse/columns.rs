//! The columns of stored elements: listed in 16 or 32 bits, or found from bits.

use super::{LANES, TILE};
use std::ops::Range;

/// Columns, in as few bytes as all of a matrix fit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Columns<'a> {
    /// Of a matrix of up to 65,536 columns.
    U16(&'a [u16]),
    /// Of a wider one.
    U32(&'a [u32]),
}

impl<'a> Columns<'a> {
    /// Some of them, widened.
    #[inline(always)]
    pub(super) fn load(self, range: Range<usize>, to: &mut [u32]) {
        match self {
            Self::U16(columns) => to.iter_mut().zip(&columns[range]).for_each(|(to, column)| *to = (*column).into()),
            Self::U32(columns) => to.copy_from_slice(&columns[range]),
        }
    }

    /// All of them, widened.
    pub(crate) fn iter(self) -> impl Iterator<Item = u32> + use<'a> {
        let (small, large): (&[u16], &[u32]) = match self {
            Self::U16(columns) => (columns, &[]),
            Self::U32(columns) => (&[], columns),
        };
        small.iter().map(|&column| u32::from(column)).chain(large.iter().copied())
    }
}

/// A column, as it is kept.
pub(crate) trait Index: Copy {
    fn at(self) -> usize;
}

impl Index for u16 {
    #[inline(always)]
    fn at(self) -> usize {
        self.into()
    }
}

impl Index for u32 {
    #[inline(always)]
    fn at(self) -> usize {
        self as usize
    }
}

const WORD: usize = u64::BITS as usize;

/// Writes the positions, less `row`, of the next 1 bits in `place` to the front of `columns`, at most [`TILE`]; tells how many, and
/// moves the start of `place` behind them. Unless it is the end, the count is a whole number of [`LANES`].
#[inline(always)]
pub(super) fn next_bits(
    words: &[u64],
    place: &mut Range<usize>,
    row: usize,
    columns: &mut [u32; TILE + WORD],
) -> usize {
    let mut found = 0;
    while place.start < place.end && found <= TILE - WORD {
        let (at, low) = (place.start / WORD * WORD, place.start % WORD);
        let mut word = words[at / WORD] >> low << low;
        if place.end - at < WORD {
            word &= (1 << (place.end - at)) - 1;
        }
        let next = found + word.count_ones() as usize;
        // Eight at a time and more than there are: a loop that ends at each word's own count cannot be foreseen.
        for eight in columns[found..].as_chunks_mut::<LANES>().0 {
            for column in eight {
                *column = (at + word.trailing_zeros() as usize).wrapping_sub(row) as u32;
                word &= word.wrapping_sub(1);
            }
            if word == 0 {
                break;
            }
        }
        found = next;
        place.start = at + WORD;
    }
    if place.start >= place.end {
        return found;
    }
    // The last few wait for the next call.
    let keep = found / LANES * LANES;
    if keep < found {
        place.start = row + columns[keep] as usize;
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_found_in_order_and_in_whole_lanes() {
        for density in [1u64, 2, 3, 50] {
            let words: Vec<u64> = (0..64u64 * 100)
                .collect::<Vec<_>>()
                .chunks(64)
                .map(|w| w.iter().fold(0, |bits, i| bits << 1 | u64::from((i * 7919 % 101).is_multiple_of(density))))
                .collect();
            for place in [0..6400, 3..5, 63..65, 64..128, 100..6399, 7..7] {
                let want: Vec<u32> = (place.clone())
                    .filter(|i| words[i / 64] >> (i % 64) & 1 == 1)
                    .map(|i| (i - place.start) as u32)
                    .collect();
                let (mut left, mut got, mut columns) = (place.clone(), Vec::new(), [0; TILE + WORD]);
                while !left.is_empty() {
                    let found = next_bits(&words, &mut left, place.start, &mut columns);
                    assert!(found <= TILE && (left.is_empty() || found.is_multiple_of(LANES) && found > 0));
                    got.extend_from_slice(&columns[..found]);
                }
                assert_eq!(got, want, "{density} {place:?}");
            }
        }
    }
}
