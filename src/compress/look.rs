//! What a tensor was and became: errors, zeros, and how its numbers are spread.

use super::source::{CHUNK, Source};
use crate::error::Result;
use std::ops::Range;

/// Bins of a histogram.
const BINS: usize = 64;

/// What is put down of a tensor's numbers, beside their errors.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Look {
    pub(super) zeros: bool,
    /// Between which numbers there are bins.
    pub(super) range: Option<(f32, f32)>,
}

impl Look {
    /// Whether what the numbers become has to be seen.
    pub(super) fn is_any(self) -> bool {
        self.zeros || self.range.is_some()
    }
}

/// How many numbers of a tensor are in each of 64 parts of its range, before and after.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Histogram {
    /// The least number before.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub low: f64,
    /// The largest number before.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub high: f64,
    /// Numbers in each part, from the lowest up; the last has `high` too.
    pub before: Vec<u64>,
    /// The same of what they became. Those beyond an end are counted in the part beside it.
    pub after: Vec<u64>,
}

impl Histogram {
    fn new((low, high): (f32, f32)) -> Self {
        Self { low: low.into(), high: high.into(), before: vec![0; BINS], after: vec![0; BINS] }
    }

    fn count(bins: &mut [u64], (low, high): (f64, f64), values: &[f32]) {
        // One number has but one bin.
        let scale = if high > low { BINS as f64 / (high - low) } else { 0.0 };
        for &x in values {
            // A negative number becomes 0.
            let bin = ((f64::from(x) - low) * scale) as usize;
            if let Some(count) = bins.get_mut(bin.min(BINS - 1)) {
                *count += 1;
            }
        }
    }
}

impl Source {
    /// The least and the largest number; none where there is one that is not finite.
    pub(super) fn range(&self) -> Result<Option<(f32, f32)>> {
        let (mut low, mut high, mut finite) = (f32::INFINITY, f32::NEG_INFINITY, true);
        self.chunks(CHUNK / 2, &mut |_, values| {
            for &x in values {
                (low, high) = (low.min(x), high.max(x));
                finite &= x.is_finite();
            }
            Ok(())
        })?;
        Ok((finite && low <= high).then_some((low, high)))
    }
}

/// What was done to a tensor, in numbers. Errors are those against the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cost {
    pub(super) signal: f64,
    pub(super) noise: f64,
    pub(super) max_abs: f64,
    /// NaN where there is none.
    pub(super) bound: f64,
    /// Before and after, where they are counted.
    pub(super) zeros: Option<(u64, u64)>,
    pub(super) histogram: Option<Histogram>,
}

impl Cost {
    pub(super) fn new(look: Look) -> Self {
        let histogram = look.range.map(Histogram::new);
        Self { zeros: look.zeros.then_some((0, 0)), histogram, ..Self::default() }
    }

    /// Reads some rows, with zeros for what is pruned, and counts what that costs.
    pub(super) fn read(&mut self, source: &Source, rows: Range<usize>, values: &mut Vec<f32>) -> Result<()> {
        self.read_dropping(source, rows, values, |_| ())
    }

    /// As [`read`](Self::read); `dropped` is told the place of each number that is pruned.
    pub(super) fn read_dropping(
        &mut self,
        source: &Source,
        rows: Range<usize>,
        values: &mut Vec<f32>,
        mut dropped: impl FnMut(usize),
    ) -> Result<()> {
        let first = rows.start;
        source.rows_before(rows, values)?;
        if let Some((before, _)) = &mut self.zeros {
            *before += zeros(values);
        }
        if let Some(of) = &mut self.histogram {
            Histogram::count(&mut of.before, (of.low, of.high), values);
        }
        if let Some(zeros) = &source.zeros {
            let (mut squares, mut largest) = (0f64, 0f32);
            zeros.apply(source, first, values, |place, x| {
                squares += f64::from(x) * f64::from(x);
                largest = largest.max(x.abs());
                dropped(place);
            });
            self.signal += squares;
            self.noise += squares;
            self.max_abs = self.max_abs.max(largest.into());
            self.bound = if self.bound.is_nan() { f64::NAN } else { self.bound.max(largest.into()) };
        }
        Ok(())
    }

    /// Counts the squares of what is kept as it is.
    pub(super) fn exact(&mut self, values: &[f32]) {
        self.signal += values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    }

    /// Counts what numbers became, of which the errors are counted.
    pub(super) fn became(&mut self, values: &[f32]) {
        if let Some((_, after)) = &mut self.zeros {
            *after += zeros(values);
        }
        if let Some(of) = &mut self.histogram {
            Histogram::count(&mut of.after, (of.low, of.high), values);
        }
    }

    /// Counts what numbers became, and their errors.
    #[cfg(feature = "gguf")]
    pub(super) fn add(&mut self, before: &[f32], after: &[f32]) {
        for (&x, &y) in before.iter().zip(after) {
            let error = f64::from(x) - f64::from(y);
            self.signal += f64::from(x) * f64::from(x);
            self.noise += error * error;
            self.max_abs = self.max_abs.max(error.abs());
        }
        self.became(after);
    }
}

fn zeros(values: &[f32]) -> u64 {
    values.iter().filter(|x| **x == 0.0).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_bin() {
        let mut of = Histogram::new((-1.0, 1.0));
        Histogram::count(&mut of.before, (of.low, of.high), &[-1.0, -0.99, 0.0, 1.0]);
        Histogram::count(&mut of.after, (of.low, of.high), &[-1.1, 1.5, 0.01]);
        assert_eq!((of.before[0], of.before[32], of.before[63]), (2, 1, 1));
        assert_eq!((of.after[0], of.after[32], of.after[63]), (1, 1, 1));
        let mut same = Histogram::new((2.0, 2.0));
        Histogram::count(&mut same.before, (2.0, 2.0), &[2.0; 5]);
        assert_eq!(same.before[0], 5);
    }
}
