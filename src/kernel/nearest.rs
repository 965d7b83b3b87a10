//! Listed levels: from values to the codes of the nearest ones.

use super::{
    grid::Numbers,
    rows::{self, Code, Codes, Layout, Word},
};
use crate::element::{Element, Real};

/// Where the level nearest to a number changes: ascending, those beyond the last level infinite. `N` is a power of two.
///
/// The index of the level is the number of limits that are below `y`. Limit `i` is `middle = levels[i] / 2 + levels[i+1] / 2`, in
/// `f64`. A tie goes to the even index, of equal levels to the first. So that one comparison settles both, a limit is the largest number of `R` that is not above
/// the middle, and where the middle itself goes up, the largest below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<R, const N: usize>([R; N]);

impl<R: Real, const N: usize> Limits<R, N> {
    /// Of ascending levels, at most `N`.
    #[inline(always)]
    fn new<L: Real>(levels: &[L]) -> Self {
        let mut limits = [R::infinity(); N];
        for (i, (limit, pair)) in limits.iter_mut().zip(levels.windows(2)).enumerate() {
            let middle = middle(pair[0], pair[1]);
            let nearest = R::from_f64(middle);
            let up = i % 2 == 1 && pair[0] < pair[1];
            let beyond = nearest.to_f64() > middle || up && nearest.to_f64() == middle;
            *limit = if beyond { nearest.below() } else { nearest };
        }
        Self(limits)
    }

    /// How many limits are below `y`.
    #[inline(always)]
    fn below(&self, y: R) -> u16 {
        // Few comparisons of many numbers at a time are faster than a search of each.
        if N <= FEW {
            let mut rank = 0;
            for &limit in &self.0 {
                rank += u16::from(y > limit);
            }
            return rank;
        }
        let (mut rank, mut half) = (0, N / 2);
        while half > 0 {
            // The mask changes nothing but spares a check.
            let step = if y > self.0[(rank + half - 1) & (N - 1)] { half } else { 0 };
            rank += step;
            half /= 2;
        }
        rank as u16
    }
}

/// Levels that are compared with all, and levels at the most.
const FEW: usize = 16;
const MOST: usize = 256;

#[inline(always)]
fn middle<R: Real>(low: R, high: R) -> f64 {
    low.to_f64() / 2.0 + high.to_f64() / 2.0
}

/// The levels of one group: `y = x / scale` in the arithmetic of the values, then the level nearest to `y`.
#[derive(Clone, Copy)]
struct Nearest<'a, R, const N: usize> {
    limits: &'a Limits<R, N>,
    scale: R,
}

impl<T: Element, const N: usize> Code<T> for Nearest<'_, T::Real, N> {
    #[inline(always)]
    fn code(&self, x: T) -> u16 {
        self.limits.below(x.to_real() / self.scale)
    }
}

/// The groups of a tensor whose levels are the same but for a scale.
#[derive(Clone, Copy)]
struct NearestGroups<'a, R, const N: usize> {
    limits: &'a Limits<R, N>,
    scales: Numbers<'a>,
}

impl<'a, T: Element, const N: usize> Codes<T> for NearestGroups<'a, T::Real, N> {
    type Code = Nearest<'a, T::Real, N>;

    #[inline(always)]
    fn of(&self, group: usize) -> Self::Code {
        Nearest { limits: self.limits, scale: T::Real::from_f64(self.scales.get(group)) }
    }
}

/// The codes of the levels, times the scale of a group, that are nearest to `values`: indices of 2 to 256 ascending levels.
pub(crate) fn encode<T: Element>(layout: Layout, values: &[T], levels: &[f32], scales: Numbers<'_>, bytes: &mut [u8]) {
    if levels.len() <= FEW {
        let limits = &Limits::<T::Real, FEW>::new(levels);
        rows::encode(layout, values, NearestGroups { limits, scales }, bytes);
    } else {
        let limits = &Limits::<T::Real, MOST>::new(levels);
        rows::encode(layout, values, NearestGroups { limits, scales }, bytes);
    }
}

impl<T: Element, const N: usize> Code<T> for Limits<T::Real, N> {
    #[inline(always)]
    fn code(&self, x: T) -> u16 {
        self.below(x.to_real())
    }
}

/// The groups of a tensor that have `2^bits` ascending levels each.
#[derive(Clone, Copy)]
struct Codebooks<'a, R, const N: usize> {
    levels: &'a [R],
    bits: u32,
}

impl<R: Real, const N: usize> Codebooks<'_, R, N> {
    #[inline(always)]
    fn levels(&self, group: usize) -> &[R] {
        &self.levels[group << self.bits..][..1 << self.bits]
    }
}

impl<T: Element, const N: usize> Codes<T> for Codebooks<'_, T::Real, N> {
    type Code = Limits<T::Real, N>;

    #[inline(always)]
    fn of(&self, group: usize) -> Self::Code {
        Limits::new(self.levels(group))
    }

    /// All limits of a group for one value would be too many.
    #[inline(always)]
    fn columns<W: Word>(&self, first: usize, values: &[T], codes: &mut [W]) {
        for (i, (code, &x)) in codes.iter_mut().zip(values).enumerate() {
            *code = W::of(search(self.levels(first + i), x.to_f64()));
        }
    }
}

/// The index of the level nearest to `x`, as [`Limits`] have it; of a power of two of them.
#[inline(always)]
fn search<R: Real>(levels: &[R], x: f64) -> u16 {
    let (mut rank, mut half) = (0, levels.len() / 2);
    while half > 0 {
        let next = rank + half;
        let (low, high) = (levels[next - 1], levels[next]);
        let middle = middle(low, high);
        let up = (x > middle) | (x == middle) & (next % 2 == 0) & (low < high);
        rank += if up { half } else { 0 };
        half /= 2;
    }
    rank as u16
}

/// The codes of each group's own levels, ascending, that are nearest to `values`.
pub(crate) fn encode_codebooks<T: Element>(layout: Layout, values: &[T], levels: &[T::Real], bytes: &mut [u8]) {
    let bits = layout.bits;
    if 1 << bits <= FEW {
        rows::encode(layout, values, Codebooks::<_, FEW> { levels, bits }, bytes);
    } else {
        rows::encode(layout, values, Codebooks::<_, MOST> { levels, bits }, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes<const N: usize>(levels: &[f32], x: &[f32]) -> Vec<u16> {
        let limits = Limits::<f32, N>::new(levels);
        x.iter().map(|&x| limits.below(x)).collect()
    }

    #[test]
    fn ties_go_to_the_even_index_and_no_others_do() {
        let levels = [-1.0, 0.0, 1.0, 4.0];
        // The middles are -0.5 (between 0 and 1), 0.5 (1 and 2) and 2.5 (2 and 3).
        let around = |x: f32| [x.next_down(), x, x.next_up()];
        let x: Vec<f32> = [-0.5, 0.5, 2.5].into_iter().flat_map(around).chain([f32::MIN, f32::MAX]).collect();
        let want = [0, 0, 1, 1, 2, 2, 2, 2, 3, 0, 3];
        assert_eq!(codes::<16>(&levels, &x), want);
        assert_eq!(codes::<256>(&levels, &x), want);
        assert_eq!(x.iter().map(|&x| search(&levels, x.into())).collect::<Vec<_>>(), want);
        assert_eq!(codes::<16>(&levels, &[f32::NEG_INFINITY, f32::INFINITY]), [0, 3]);
    }

    #[test]
    fn the_first_of_equal_levels() {
        for (levels, want) in [([1.0; 4], 0), ([0.0, 1.0, 1.0, 1.0], 1), ([-1.0, 0.0, 1.0, 1.0], 2)] {
            assert_eq!(codes::<16>(&levels, &[1.0]), [want]);
            assert_eq!(codes::<256>(&levels, &[1.0]), [want]);
            assert_eq!(search(&levels, 1.0), want);
        }
    }

    #[test]
    fn middles_between_two_numbers_of_the_type() {
        // The middle of two neighbours is no number: each keeps its own.
        let levels = [1.0, 1f32.next_up(), 1f32.next_up().next_up(), 2.0];
        assert_eq!(codes::<16>(&levels, &levels), [0, 1, 2, 3]);
        let smallest = f32::from_bits(1);
        assert_eq!(codes::<16>(&[0.0, smallest, 2.0 * smallest], &[0.0, smallest, 2.0 * smallest]), [0, 1, 2]);
        assert_eq!(codes::<16>(&[f32::MIN, f32::MAX], &[f32::MIN, -0.0, 0.0, smallest]), [0, 0, 0, 1]);
    }
}
