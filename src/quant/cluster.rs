//! Clusters of sorted numbers: the levels that leave the least squared error.
//!
//! A cluster of the best ones is a run of neighbours, so dynamic programming finds them (Wang & Song 2011, "Ckmeans.1d.dp: Optimal
//! k-means Clustering in One Dimension by Dynamic Programming", The R Journal 3/2):
//!
//! ```text
//! D[q][j] = min over i < j of  D[q-1][i] + cost(i..j)          the least cost of the first j numbers in q clusters
//! cost(i..j) = sum of (x - mean)^2
//! ```
//!
//! The best `i` never falls as `j` grows, so that of the middle `j` halves the choices of the others: `O(k n log n)`.
//! Costs are those of moments added one to another (Chan, Golub & LeVeque 1979), never the difference of two large sums: a
//! cluster of small numbers is as exact beside one of huge ones.

use crate::{
    element::Real,
    error::Result,
    kernel::{
        grid::{Even, Level},
        scan,
    },
    tensor::view::filled,
};
use std::ops::Range;

/// Levels times different numbers, and different numbers, that are exact.
const WORK: usize = 1 << 20;
const MOST: usize = 1 << 16;

/// Rounds of Lloyd's iteration at the most.
const ROUNDS: usize = 1000;

/// Finds the levels, ascending, that leave the least squared error of sorted finite numbers, of which there is at least one. Where there
/// are fewer different ones than levels, the last one is repeated. With `zero`, 0 is a level and no number is 0; there may be none then.
pub(super) fn levels<R: Real>(sorted: &[R], zero: bool, levels: &mut [R]) -> Result<()> {
    let count = levels.len() - usize::from(zero);
    let different = sorted.chunk_by(|a, b| a == b).count();
    if different <= count {
        let each = sorted.chunk_by(|a, b| a == b).filter_map(<[R]>::first);
        // Of the two zeros the positive one.
        levels.iter_mut().zip(each).for_each(|(level, &x)| *level = x + R::zero());
        finish(levels, different, zero);
        return Ok(());
    }
    let ends = (sorted[0], sorted[sorted.len() - 1]);
    let scale = scan::scale_to_one(scan::largest_magnitude(ends));
    let exact = MOST.min(WORK / levels.len());
    let bins = if different <= exact {
        Bins::new(sorted, scale, 1, f64::INFINITY)?
    } else {
        let half = exact / 2;
        let width = (ends.1.to_f64() * scale - ends.0.to_f64() * scale) / half as f64;
        Bins::new(sorted, scale, different.div_ceil(half), width)?
    };
    let mut best = bins.optimal(count)?;
    if zero {
        best.push(0.0);
        best.sort_unstable_by(f64::total_cmp);
    }
    let cost = bins.refine(&mut best, zero)?;
    if !zero {
        // So that rounding or bins never leave more than even steps do.
        let even = Even::new(ends.0.to_f64(), ends.1.to_f64(), levels.len().trailing_zeros());
        let mut steps = filled(count, 0.0)?;
        steps.iter_mut().enumerate().for_each(|(q, step)| *step = even.level::<R>(q as u8).to_f64() * scale);
        let mut means = filled(count, 0.0)?;
        bins.step(&steps, None, &mut means);
        if bins.step(&means, None, &mut steps) < cost {
            bins.refine(&mut means, false)?;
            best = means;
        }
    }
    levels.iter_mut().zip(&best).for_each(|(level, &x)| *level = R::from_f64(x / scale));
    Ok(())
}

/// Sorts 0 into the first `used` levels, if it is to be one, and repeats the last.
fn finish<R: Real>(levels: &mut [R], mut used: usize, zero: bool) {
    if zero {
        let at = levels[..used].partition_point(|&level| level < R::zero());
        levels[at..=used].rotate_right(1);
        levels[at] = R::zero();
        used += 1;
    }
    let last = levels[used - 1];
    levels[used..].fill(last);
}

/// How many numbers, their mean, and the sum of the squares of their distances from it.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(x: f64, count: usize) -> Self {
        Self { count: count as f64, mean: x, squares: 0.0 }
    }

    /// Of both together.
    fn and(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let (share, apart) = (other.count / count, other.mean - self.mean);
        let squares = self.squares + other.squares + apart * apart * (self.count * share);
        Self { count, mean: self.mean + apart * share, squares }
    }

    /// The sum of the squares of the distances from `level`.
    fn cost(self, level: f64) -> f64 {
        self.squares + self.count * ((self.mean - level) * (self.mean - level))
    }
}

/// Sorted numbers, cut into bins of neighbours.
struct Bins<'a, R> {
    numbers: &'a [R],
    /// A power of two that all numbers are multiplied by, so that squares of `f64` neither overflow nor vanish.
    scale: f64,
    /// Where each bin ends.
    ends: Vec<usize>,
    /// Moments from which those of any bins are two: row `r` cuts the bins into pieces of `2^(r+1)` and has, for each bin, those from it
    /// to the middle of its piece, or from the middle to it. Row 0 is those of each bin.
    rows: Vec<Moments>,
}

impl<'a, R: Real> Bins<'a, R> {
    /// Equal numbers are in one bin; a bin has at most so many different ones, at most `width` apart.
    fn new(numbers: &'a [R], scale: f64, most: usize, width: f64) -> Result<Self> {
        let mut count = 0;
        each_end(numbers, scale, most, width, |_| count += 1);
        let mut ends = filled(count, 0)?;
        let mut places = ends.iter_mut();
        each_end(numbers, scale, most, width, |end| places.next().into_iter().for_each(|place| *place = end));
        let rows = filled(count.saturating_mul(count.ilog2() as usize + 1), Moments::default())?;
        let mut bins = Self { numbers, scale, ends, rows };
        for bin in 0..count {
            bins.rows[bin] = bins.sum(bins.start(bin)..bins.ends[bin]);
        }
        let (leaves, rows) = bins.rows.split_at_mut(count);
        for (r, row) in (1..).zip(rows.chunks_exact_mut(count)) {
            let half = 1 << r;
            for (leaves, piece) in leaves.chunks(2 * half).zip(row.chunks_mut(2 * half)) {
                let middle = half.min(piece.len());
                let mut sum = Moments::default();
                for (leaf, moments) in leaves[..middle].iter().zip(&mut piece[..middle]).rev() {
                    sum = leaf.and(sum);
                    *moments = sum;
                }
                sum = Moments::default();
                for (leaf, moments) in leaves[middle..].iter().zip(&mut piece[middle..]) {
                    sum = sum.and(*leaf);
                    *moments = sum;
                }
            }
        }
        Ok(bins)
    }

    fn number(&self, i: usize) -> f64 {
        self.numbers[i].to_f64() * self.scale
    }

    fn start(&self, bin: usize) -> usize {
        if bin == 0 { 0 } else { self.ends[bin - 1] }
    }

    /// The moments of some numbers, one after the other.
    fn sum(&self, range: Range<usize>) -> Moments {
        if range.is_empty() {
            return Moments::default();
        }
        let (first, last) = (self.number(range.start), self.number(range.end - 1));
        if first == last {
            return Moments::of(first, range.len());
        }
        range.fold(Moments::default(), |sum, i| sum.and(Moments::of(self.number(i), 1)))
    }

    /// The moments of some bins, at least one.
    fn bins(&self, bins: Range<usize>) -> Moments {
        let (first, last) = (bins.start, bins.end - 1);
        if first == last {
            return self.rows[first];
        }
        let row = &self.rows[(first ^ last).ilog2() as usize * self.ends.len()..];
        row[first].and(row[last])
    }

    /// The moments of some numbers.
    fn moments(&self, range: Range<usize>) -> Moments {
        // The bins that begin in the range, and the last of them that may end beyond it.
        let first = if range.start == 0 { 0 } else { self.ends.partition_point(|&end| end < range.start) + 1 };
        let last = self.ends.partition_point(|&end| end <= range.end);
        if first >= last {
            return self.sum(range);
        }
        let whole = self.bins(first..last);
        self.sum(range.start..self.start(first)).and(whole).and(self.sum(self.ends[last - 1]..range.end))
    }

    /// The means of the `count` clusters of bins, at most as many as bins, that leave the least squared error.
    fn optimal(&self, count: usize) -> Result<Vec<f64>> {
        let len = self.ends.len();
        let mut from = filled(count * (len + 1), 0u32)?;
        let (mut before, mut now) = (filled(len + 1, 0.0)?, filled(len + 1, 0.0)?);
        let mut first = Moments::default();
        for (cost, leaf) in before[1..].iter_mut().zip(&self.rows) {
            first = first.and(*leaf);
            *cost = first.squares;
        }
        for q in 1..count {
            let (earlier, later) = from.split_at_mut(q * (len + 1));
            let (lows, from) = (&earlier[(q - 1) * (len + 1)..], &mut later[..=len]);
            // Only the whole is asked of the last cluster; those before leave a bin for each of the rest.
            let ends = if q + 1 == count { len..len + 1 } else { q + 1..len + 2 + q - count };
            Layer { bins: self, before: &before, now: &mut now, lows, from }.solve(ends, q, len - 1);
            std::mem::swap(&mut before, &mut now);
        }
        let mut means = filled(count, 0.0)?;
        let mut end = len;
        for (q, mean) in means.iter_mut().enumerate().rev() {
            let start = from[q * (len + 1) + end] as usize;
            *mean = self.bins(start..end).mean;
            end = start;
        }
        Ok(means)
    }

    /// Moves levels to the means of the numbers that are nearest to them until that lowers the squared error no more (Lloyd's iteration);
    /// a level that is 0 stays when `zero` says so. Gives the squared error. The levels are then numbers of `R`.
    fn refine(&self, levels: &mut [f64], zero: bool) -> Result<f64> {
        let held = levels.iter().position(|&level| zero && level == 0.0);
        let (mut now, mut after) = (filled(levels.len(), 0.0)?, filled(levels.len(), 0.0)?);
        now.iter_mut().zip(&*levels).for_each(|(now, &level)| *now = self.rounded(level));
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            let cost = self.step(&now, held, &mut after);
            if cost >= least {
                break;
            }
            least = cost;
            levels.copy_from_slice(&now);
            std::mem::swap(&mut now, &mut after);
        }
        Ok(least)
    }

    /// The squared error that levels leave, and the means of the numbers nearest to each.
    fn step(&self, levels: &[f64], held: Option<usize>, means: &mut [f64]) -> f64 {
        let (mut start, mut cost) = (0, 0.0);
        for (i, (&level, mean)) in levels.iter().zip(means).enumerate() {
            let end = levels.get(i + 1).map_or(self.numbers.len(), |next| {
                let middle = level / 2.0 + next / 2.0;
                start + self.numbers[start..].partition_point(|&x| x.to_f64() * self.scale <= middle)
            });
            *mean = level;
            if start < end {
                let moments = self.moments(start..end);
                cost += moments.cost(level);
                if held != Some(i) {
                    *mean = self.rounded(moments.mean.max(self.number(start)).min(self.number(end - 1)));
                }
            }
            start = end;
        }
        cost
    }

    /// What a level is once it is kept as `R`.
    fn rounded(&self, level: f64) -> f64 {
        R::from_f64(level / self.scale).to_f64() * self.scale
    }
}

fn each_end<R: Real>(numbers: &[R], scale: f64, most: usize, width: f64, mut end: impl FnMut(usize)) {
    let (mut first, mut different) = (0, 1);
    for i in 1..numbers.len() {
        if numbers[i] == numbers[i - 1] {
            continue;
        }
        if different >= most || numbers[i].to_f64() * scale - numbers[first].to_f64() * scale > width {
            end(i);
            (first, different) = (i, 1);
        } else {
            different += 1;
        }
    }
    end(numbers.len());
}

/// One more cluster: `before` of the first so many bins becomes `now`, and `from` is where the last cluster starts.
struct Layer<'a, R> {
    bins: &'a Bins<'a, R>,
    before: &'a [f64],
    now: &'a mut [f64],
    /// Where the last of one cluster less starts: that of one more starts no earlier.
    lows: &'a [u32],
    from: &'a mut [u32],
}

impl<R: Real> Layer<'_, R> {
    /// For each of `ends`, where the last cluster starts at `low` to `high`.
    fn solve(&mut self, ends: Range<usize>, low: usize, high: usize) {
        if ends.is_empty() {
            return;
        }
        let end = ends.start.midpoint(ends.end);
        let mut best = high.min(end - 1);
        let mut least = self.before[best] + self.bins.bins(best..end).squares;
        let from = low.max(self.lows[end] as usize).min(best);
        for start in (from..best).rev() {
            let last = self.bins.bins(start..end).squares;
            // A longer cluster costs no less.
            if last >= least {
                break;
            }
            let cost = self.before[start] + last;
            if cost < least {
                (least, best) = (cost, start);
            }
        }
        self.now[end] = least;
        self.from[end] = best as u32;
        self.solve(ends.start..end, low, best);
        self.solve(end + 1..ends.end, best, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(sorted: &[f32], count: usize) -> Vec<f32> {
        let mut found = vec![f32::NAN; count];
        levels(sorted, false, &mut found).unwrap();
        found
    }

    fn cost(sorted: &[f32], levels: &[f32]) -> f64 {
        let distance =
            |x: f32| levels.iter().map(|&l| (f64::from(x) - f64::from(l)).powi(2)).fold(f64::INFINITY, f64::min);
        sorted.iter().map(|&x| distance(x)).sum()
    }

    /// The least cost of all ways to cut.
    fn least(sorted: &[f32], count: usize) -> f64 {
        if sorted.is_empty() {
            return 0.0;
        }
        if count == 0 {
            return f64::INFINITY;
        }
        let one = |x: &[f32]| {
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
            x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>()
        };
        let cut = |i: usize| one(&sorted[i..]) + least(&sorted[..i], count - 1);
        (0..sorted.len()).map(cut).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn by_hand() {
        assert_eq!(found(&[-1.0, -1.0, 0.0, 10.0, 12.0], 2), [-2.0 / 3.0, 11.0]);
        assert_eq!(found(&[3.0, 3.0], 4), [3.0; 4]);
        let zeros = found(&[-0.0, 0.0, 5.0], 4);
        assert_eq!((zeros[0].to_bits(), &zeros[1..]), (0, &[5.0; 3][..]));
        let mut zero = [f32::NAN; 4];
        levels(&[-3.0, -1.0, 2.0, 2.5], true, &mut zero).unwrap();
        assert_eq!(zero, [-3.0, -1.0, 0.0, 2.25]);
        levels(&[4.0, 5.0], true, &mut zero).unwrap();
        assert_eq!(zero, [0.0, 4.0, 5.0, 5.0]);
        levels(&[], true, &mut zero).unwrap();
        assert_eq!(zero, [0.0; 4]);
    }

    #[test]
    fn small_numbers_are_exact_beside_huge_ones() {
        // A sum of squares that holds 3e38 loses all about the others.
        let x = [-3e38f32, 1.0, 1.5, 100.0, 101.0, 3e38];
        assert_eq!(found(&x, 4), [-3e38, 1.25, 100.5, 3e38]);
        let mut found = [0f64; 4];
        levels(&[-1.7e308, 1.0, 1.5, 100.0, 101.0, 1.7e308], false, &mut found).unwrap();
        assert_eq!((found[0], found[3]), (-1.7e308, 1.7e308));
    }

    #[test]
    fn bins_of_many_numbers_are_near_the_exact_ones() {
        // More different numbers than are exact: a bell with two outliers.
        let n = 300_000;
        let mut x: Vec<f32> =
            (0..n).map(|i| (i as f32 * 0.1).sin() + (i as f32 * 0.37).sin() + i as f32 * 1e-7).collect();
        x.extend([-1000.0, 5000.0]);
        x.sort_unstable_by(f32::total_cmp);
        assert!(x.chunk_by(|a, b| a == b).count() > MOST);
        for count in [2, 8, 64] {
            let found = found(&x, count);
            let bins = Bins::new(&x, 1.0, 1, f64::INFINITY).unwrap();
            let mut exact = bins.optimal(count).unwrap();
            let exact = bins.refine(&mut exact, false).unwrap();
            let ratio = cost(&x, &found) / exact;
            assert!(ratio < 1.0 + 1e-5, "{count}: {ratio}");
        }
    }

    proptest! {
        #[test]
        fn no_way_to_cut_is_better(mut x in prop::collection::vec(prop_oneof![-4i8..4, any::<i8>()], 1..9), count in 1u32..3, size in -30i32..30) {
            x.sort_unstable();
            let x: Vec<f32> = x.into_iter().map(|x| f32::from(x) * 1.1f32.powi(size)).collect();
            let found = found(&x, 1 << count);
            prop_assert!(found.is_sorted());
            let (got, want) = (cost(&x, &found), least(&x, 1 << count));
            // The levels are rounded to f32.
            let rounding = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() * 1e-14;
            prop_assert!(got <= want * (1.0 + 1e-6) + rounding, "{x:?}: {found:?} leave {got:e}, not {want:e}");
        }
    }
}
