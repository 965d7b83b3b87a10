//! Counts of values in buckets of a fixed relative width.

use super::{Range, nothing_seen, of_batch};
use crate::{
    element::{Element, Real},
    error::{Error, Result},
    tensor::TensorRef,
};

/// One for each value of the upper half of an `f32`: sign, 8 bits of exponent, 7 of mantissa.
const BUCKETS: usize = 1 << 16;
/// The first bucket of negative numbers.
const NEGATIVE: usize = 1 << 15;
/// Magnitudes that are finite: as many buckets a sign.
const FINITE: usize = 0x7f80;

/// Counts values in buckets, from which ranges follow that leave out what is rare.
///
/// A bucket holds the numbers whose `f32` has the same upper 16 bits: its width is at most 2^-7 of a number in it
/// (subnormal numbers: 2^-133). Values of `f64` are rounded to `f32`. The counts, and the smallest and largest value
/// beside them, take 512 KiB, whatever the stream; they do not depend on the order of batches, nor on how these are
/// spread over histograms that are [merged](Histogram::merge). Criteria take the values of a bucket for evenly spread
/// over it:
///
/// | method | range |
/// |---|---|
/// | [`range`](Histogram::range) | from the smallest to the largest value |
/// | [`percentile`](Histogram::percentile) | of a central share of the values |
/// | [`mse_affine`](Histogram::mse_affine), [`mse_symmetric`](Histogram::mse_symmetric) | of the least mean squared error |
/// | [`entropy`](Histogram::entropy) | whose levels keep most of the distribution of magnitudes |
///
/// ```
/// use lapidary::quant::{Histogram, Symmetric};
/// let mut histogram = Histogram::new();
/// for batch in 0..10 {
///     let activations: Vec<f32> = (0..1000).map(|i| ((batch * 1000 + i) as f32 * 0.37).sin()).collect();
///     histogram.observe(&activations)?;
/// }
/// histogram.observe(&[50.0f32])?; // an outlier
/// assert_eq!(histogram.range()?.max(), 50.0);
/// assert!(histogram.percentile(99.9)?.max() < 1.01);
/// let symmetric = Symmetric::new(4)?;
/// let best = histogram.mse_symmetric(symmetric)?;
/// let grid = symmetric.grid::<f32>(&[best])?;
/// # let _ = grid;
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Histogram {
    counts: Box<[u64]>,
    seen: Option<Range>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram").field("count", &self.total()).field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Histogram {
    /// A histogram of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), seen: None }
    }

    /// Takes in a batch of any shape; an empty one is nothing. Does not allocate.
    ///
    /// # Errors
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinity; [`Argument`](crate::ErrorKind::Argument) for
    /// an `f64` beyond the range of `f32`, naming its index. The histogram is then as it was.
    pub fn observe<'a, T: Element>(&mut self, batch: impl Into<TensorRef<'a, T>>) -> Result<()> {
        let batch = batch.into();
        let Some(range) = of_batch(&batch)? else { return Ok(()) };
        let (min, max) = (range.min as f32, range.max as f32);
        if min.is_infinite() || max.is_infinite() {
            let beyond = |x: &&T| x.to_real().to_single().is_infinite();
            let place = batch.as_slice().iter().enumerate().find(|(_, x)| beyond(x));
            let found = place.map_or(String::new(), |(index, x)| format!("{x:?} at index {index}"));
            return Err(Error::argument("value", found, "within the range of f32"));
        }
        for x in batch.as_slice() {
            let count = &mut self.counts[(x.to_real().to_single().to_bits() >> 16) as usize];
            *count = count.saturating_add(1);
        }
        self.add(Range { min: min.into(), max: max.into() });
        Ok(())
    }

    /// Takes in all that another one has seen.
    pub fn merge(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts[..]) {
            *count = count.saturating_add(*other);
        }
        if let Some(range) = other.seen {
            self.add(range);
        }
    }

    fn add(&mut self, range: Range) {
        self.seen = Some(self.seen.map_or(range, |seen| seen.join(range)));
    }

    /// From the smallest to the largest value seen.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) when there was none.
    pub fn range(&self) -> Result<Range> {
        self.seen.ok_or_else(nothing_seen)
    }

    /// How many values there were. A sum of 2^16 counts does not fit a `u64` where merging doubled a histogram often
    /// enough.
    pub(super) fn total(&self) -> u128 {
        self.counts.iter().map(|&count| u128::from(count)).sum()
    }

    /// The buckets that hold something, from low values to high ones.
    pub(super) fn buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> {
        let ends = self.seen.unwrap_or(Range { min: 0.0, max: 0.0 });
        let negative = (0..FINITE).rev().map(|magnitude| (magnitude, true));
        let positive = (0..FINITE).map(|magnitude| (magnitude, false));
        negative.chain(positive).filter_map(move |(magnitude, below)| {
            let count = self.counts[if below { NEGATIVE + magnitude } else { magnitude }];
            let (near, far) = (edge(magnitude), edge(magnitude + 1));
            let (low, high) = if below { (-far, -near) } else { (near, far) };
            let (low, high) = (low.clamp(ends.min, ends.max), high.clamp(ends.min, ends.max));
            (count > 0).then_some(Bucket { low, high, count })
        })
    }
}

/// The smallest magnitude of a bucket.
fn edge(magnitude: usize) -> f64 {
    match magnitude {
        // The next one after the largest numbers, which `f32` has no name for.
        FINITE => 2.0 * f64::from(f32::from_bits(0x7f00_0000)),
        _ => f32::from_bits((magnitude as u32) << 16).into(),
    }
}

/// So many values, evenly spread from `low` to `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn every_finite_number_is_in_a_bucket_that_holds_it() {
        for x in [0.0, 1e-45, 1.2e-38, 0.7, 1.0, 255.9, f32::MAX] {
            for x in [x, -x] {
                let mut histogram = Histogram::new();
                histogram.observe(&[x, f32::MIN, f32::MAX]).unwrap();
                let holds = |b: &Bucket| b.low <= x.into() && f64::from(x) <= b.high;
                let bucket = histogram.buckets().find(holds).unwrap();
                assert!(bucket.high - bucket.low <= f64::from(x.abs()) / 128.0 + 2f64.powi(-133), "{x:e} {bucket:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_counted_is_refused_and_nothing_moves() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.range().unwrap_err().kind(), ErrorKind::Empty);
        histogram.observe(&[0f64; 0]).unwrap();
        assert_eq!(histogram, Histogram::new());
        histogram.observe(&[1.0f64, -2.0, 3.4028235e38]).unwrap();
        let before = histogram.clone();
        let error = histogram.observe(&[1.0f32, f32::INFINITY]).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        let error = histogram.observe(&[0.0, 1e10, -1e39]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(error.to_string().contains("-1e39 at index 2"), "{error}");
        assert_eq!(histogram, before);
    }
}
