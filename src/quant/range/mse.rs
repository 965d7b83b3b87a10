//! The range whose levels have the least mean squared error.

use super::{Histogram, Range, histogram::Bucket};
use crate::{
    error::Result,
    kernel::ranges::Fit,
    quant::{Affine, Symmetric},
};

/// Steps of an octave of the first pass, and octaves: down to 2^-24 of the range seen. To clip an outlier costs its
/// square over the number of values, so to clip further in could pay from 2^48 values on.
const COARSE: i32 = 8;
const OCTAVES: i32 = 24;
/// How many times finer the second pass is.
const FINER: i32 = 32;
/// Factors of each end where both are tried in pairs, beside 1.
const PAIRS: i32 = 16;
/// Turns of the search over both ends.
const TURNS: usize = 4;

impl Histogram {
    /// The range for which `affine` has the least mean squared error, by [`grid`](Affine::grid) in `f32`. It holds 0.
    ///
    /// Search: both ends, drawn in by the same factor, or each by a factor of its own out of `2^(-i/2)` down to `2^-8`;
    /// then, from the best of these, the upper and the lower end by turns, each with the other as it is, until neither
    /// moves, at most four turns. Other factors are `2^(-i/8)` down to `2^-24`, then `2^(-i/256)` around the best of
    /// them (0.3 % apart); of equals the first, the widest. Nothing found is worse than the range seen. What is
    /// searched is the error over the buckets, their values evenly spread and the scale and zero point as they will be;
    /// a range whose scale is infinite counts as the worst. What shares a scale in `affine` does not matter here.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) when nothing was seen.
    pub fn mse_affine(&self, affine: Affine) -> Result<Range> {
        let seen = self.range()?.join(Range { min: 0.0, max: 0.0 });
        let fit = affine.with_zero();
        let top = (1i32 << affine.bits()) - 1;
        let buckets: Vec<Bucket> = self.buckets().collect();
        let error = |range: Range, limit: f64| {
            let (min, scale) = (range.min as f32, fit.scale(range.min as f32, range.max as f32));
            let zero = i32::from(fit.zero(min, scale));
            let levels = Levels { scale: scale.into(), low: (-zero).into(), high: (top - zero).into() };
            levels.squares(&buckets, limit)
        };
        let both = |factor: f64| Range { min: seen.min * factor, max: seen.max * factor };
        let mut best = search(both, &error).unwrap_or((seen, f64::INFINITY));
        for (i, j) in (0..=PAIRS).flat_map(|i| (0..=PAIRS).map(move |j| (i, j))) {
            let half_octaves = |steps: i32| factor(steps * COARSE * FINER / 2);
            let range = Range { min: seen.min * half_octaves(i), max: seen.max * half_octaves(j) };
            best = better(best, Some((range, error(range, best.1))));
        }
        for _ in 0..TURNS {
            let before = best.0;
            let upper = |factor: f64| Range { max: seen.max * factor, ..before };
            best = better(best, search(upper, &error));
            let middle = best.0;
            let lower = |factor: f64| Range { min: seen.min * factor, ..middle };
            best = better(best, search(lower, &error));
            if best.0 == before {
                break;
            }
        }
        Ok(best.0)
    }

    /// The range for which `symmetric` has the least mean squared error, by [`grid`](Symmetric::grid) in `f32`: what of
    /// the range seen lies within some magnitude.
    ///
    /// The magnitude is searched as in [`mse_affine`](Histogram::mse_affine): factors `2^(-i/8)` of the largest one
    /// down to `2^-24`, then `2^(-i/256)` around the best of them; of equals the widest.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) when nothing was seen.
    pub fn mse_symmetric(&self, symmetric: Symmetric) -> Result<Range> {
        let seen = self.range()?;
        let fit = symmetric.by_magnitude();
        let middle = 1i32 << (symmetric.bits() - 1);
        let least = i32::from(symmetric.least());
        let buckets: Vec<Bucket> = self.buckets().collect();
        let error = |range: Range, limit: f64| {
            let scale = fit.scale(range.min as f32, range.max as f32);
            let levels = Levels { scale: scale.into(), low: (least - middle).into(), high: (middle - 1).into() };
            levels.squares(&buckets, limit)
        };
        let within = |factor: f64| seen.within(seen.magnitude() * factor);
        Ok(search(within, &error).map_or(seen, |best| best.0))
    }
}

/// The range of the least error, and that error; `None` where none has a finite one.
fn search(range: impl Fn(f64) -> Range, error: &impl Fn(Range, f64) -> f64) -> Option<(Range, f64)> {
    let mut best: Option<(i32, f64)> = None;
    let attempt = |best: &mut Option<(i32, f64)>, steps: i32| {
        let limit = best.map_or(f64::INFINITY, |(_, least)| least);
        let error = error(range(factor(steps)), limit);
        if error < limit || (error == limit && best.is_some_and(|(at, _)| steps < at)) {
            *best = Some((steps, error));
        }
    };
    for i in 0..=COARSE * OCTAVES {
        attempt(&mut best, i * FINER);
    }
    let (at, _) = best?;
    for steps in (at - FINER + 1).max(0)..at + FINER {
        attempt(&mut best, steps);
    }
    best.map(|(steps, error)| (range(factor(steps)), error))
}

/// By what an end is drawn in: so many of the finest steps.
fn factor(steps: i32) -> f64 {
    libm::exp2(-f64::from(steps) / f64::from(COARSE * FINER))
}

/// The one of less error; the first of equals.
fn better(first: (Range, f64), second: Option<(Range, f64)>) -> (Range, f64) {
    second.filter(|second| second.1 < first.1).unwrap_or(first)
}

/// The levels `low * scale` to `high * scale`, a whole number of steps each.
#[derive(Debug, Clone, Copy)]
struct Levels {
    scale: f64,
    low: f64,
    high: f64,
}

impl Levels {
    /// The sum of squared errors; infinite once it is above `limit`, or where the scale is.
    fn squares(&self, buckets: &[Bucket], limit: f64) -> f64 {
        if !self.scale.is_finite() {
            return f64::INFINITY;
        }
        let mut sum = 0.0;
        for bucket in buckets {
            sum += self.mean_square(bucket.low, bucket.high) * bucket.count as f64;
            if sum > limit {
                return f64::INFINITY;
            }
        }
        sum
    }

    /// The level nearest to `x`, in steps.
    fn nearest(&self, x: f64) -> f64 {
        (x / self.scale).clamp(self.low, self.high).round_ties_even()
    }

    /// The mean of the squared error of numbers evenly spread from `a` to `b`.
    ///
    /// ```text
    /// integral of (x - level)^2 = length * (da^2 + da db + db^2) / 3,    da, db: how far the ends are from the level
    /// ```
    fn mean_square(&self, a: f64, b: f64) -> f64 {
        let (first, last) = (self.nearest(a), self.nearest(b));
        let (da, db) = (a - first * self.scale, b - last * self.scale);
        if first == last {
            return (da * da + da * db + db * db) / 3.0;
        }
        // The rest of the first step, whole steps, and the start of the last one. An end may be beyond the half by
        // rounding.
        let half = self.scale / 2.0;
        let thirds = |near: f64| near * near + near * half + half * half;
        let (start, end) = ((half - da).max(0.0), (db + half).max(0.0));
        let whole = (last - first - 1.0) * self.scale * half * half;
        (start * thirds(da) + whole + end * thirds(-db)) / 3.0 / (b - a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_mean_square_is_that_of_many_points() {
        let levels = Levels { scale: 0.3, low: -4.0, high: 3.0 };
        for (a, b) in [(0.01, 0.1), (-0.2, 0.1), (-1.0, 0.8), (-1.0, 2.0), (-9.0, -8.0), (0.5, 40.0), (0.2, 0.2)] {
            let points = 200_000;
            let square = |i: i32| {
                let x = a + (b - a) * (f64::from(i) + 0.5) / f64::from(points);
                let level = (x / 0.3).round_ties_even().clamp(-4.0, 3.0) * 0.3;
                (x - level) * (x - level)
            };
            let want = (0..points).map(square).sum::<f64>() / f64::from(points);
            let got = levels.mean_square(a, b);
            assert!((got - want).abs() <= 1e-6 * want + 1e-12, "{a} {b}: {got} {want}");
        }
    }

    #[test]
    fn ranges_without_a_finite_scale_are_refused_or_drawn_in() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.mse_affine(Affine::new(8).unwrap()).unwrap_err().kind(), ErrorKind::Empty);
        histogram.observe(&[-3e38f32, 3e38]).unwrap();
        let affine = Affine::new(1).unwrap();
        let range = histogram.mse_affine(affine).unwrap();
        assert!(affine.grid::<f32>(&[range]).is_ok(), "{range:?}");
        let mut zeros = Histogram::new();
        zeros.observe(&[0.0f32, -0.0]).unwrap();
        assert_eq!(zeros.mse_affine(affine).unwrap(), Range { min: 0.0, max: 0.0 });
        assert_eq!(zeros.mse_symmetric(Symmetric::new(4).unwrap()).unwrap(), Range { min: 0.0, max: 0.0 });
    }
}
