//! The range of a central share of the values.

use super::{Histogram, Range};
use crate::error::{Error, Result};

impl Histogram {
    /// The range of the `percent` percent of the values that lie in the middle: as many are cut off below as above.
    ///
    /// ```text
    /// tail = (1 - percent / 100) / 2 * N
    /// ```
    ///
    /// Each end is where so many values lie beyond it, by a straight line within a bucket, and so off by less than 2^-7
    /// of itself. 100 percent: the smallest and the largest value.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `percent` is not above 0 and at most 100;
    /// [`Empty`](crate::ErrorKind::Empty) when nothing was seen.
    pub fn percentile(&self, percent: f64) -> Result<Range> {
        if !(percent > 0.0 && percent <= 100.0) {
            return Err(Error::argument("percent", percent, "above 0 and at most 100"));
        }
        let seen = self.range()?;
        let tail = (1.0 - percent / 100.0) / 2.0 * self.total() as f64;
        if tail == 0.0 {
            return Ok(seen);
        }
        // From below, and from above with the signs changed: a mirrored histogram has the mirrored range.
        let low = cut(self.buckets().map(|b| (b.low, b.high, b.count)), tail);
        let high = cut(self.buckets().rev().map(|b| (-b.high, -b.low, b.count)), tail);
        let (low, high) = (low.unwrap_or(seen.min), -high.unwrap_or(-seen.max));
        // Both are in the middle, apart from rounding, where nearly all is cut off.
        Ok(Range { min: low.min(high), max: high.max(low) })
    }
}

/// The number below which `tail` values lie, of buckets in order.
fn cut(buckets: impl Iterator<Item = (f64, f64, u64)>, tail: f64) -> Option<f64> {
    let mut below = 0u128;
    for (low, high, count) in buckets {
        let missing = tail - below as f64;
        below += u128::from(count);
        if below as f64 >= tail {
            return Some(low + (missing / count as f64).clamp(0.0, 1.0) * (high - low));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_evenly_spread_bucket_is_cut_by_a_straight_line() {
        let mut histogram = Histogram::new();
        // One bucket: 1 to 1 + 2^-7.
        let x: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 / 999.0 / 129.0).collect();
        histogram.observe(&x).unwrap();
        let range = histogram.percentile(80.0).unwrap();
        assert!((range.min - 1.0 - 0.1 / 129.0).abs() < 1e-7 && (range.max - 1.0 - 0.9 / 129.0).abs() < 1e-7);
        assert_eq!(histogram.percentile(100.0).unwrap(), histogram.range().unwrap());
        for percent in [0.0, -1.0, 100.1, f64::NAN] {
            assert_eq!(histogram.percentile(percent).unwrap_err().kind(), ErrorKind::Argument);
        }
        assert_eq!(Histogram::new().percentile(99.0).unwrap_err().kind(), ErrorKind::Empty);
    }
}
