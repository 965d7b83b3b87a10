//! The range whose levels keep most of the distribution of magnitudes.

use super::{Histogram, Range};
use crate::error::{Error, Result};

/// Bins of magnitudes, all of one width.
const BINS: usize = 2048;

impl Histogram {
    /// What of the range seen lies within the threshold that an entropy calibration of `bits` bits finds (TensorRT's:
    /// 8).
    ///
    /// As Migacz, [8-bit Inference with
    /// TensorRT](https://on-demand.gputechconf.com/gtc/2017/presentation/s7310-8-bit-inference-with-tensorrt.pdf), GTC
    /// 2017, with `L = 2^(bits-1)` levels of magnitudes:
    ///
    /// ```text
    /// width = max |x| / 2048;  c[j] = how many |x| lie in bin j
    /// for i from L to 2048:
    ///     P = c[0], ..., c[i-1] + (all in bins from i on)
    ///     Q = c[0], ..., c[i-1] in L levels, bin j in level floor(j * L / i), each level's sum spread evenly
    ///         over those of its bins that are not 0
    ///     D[i] = sum of p * ln(p / q), both divided by their sums
    /// m = the i of the smallest D, the first of equals
    /// threshold = (m + 1/2) * width, at most max |x|
    /// ```
    ///
    /// The bins are filled from the histogram: the count of a bucket is spread evenly over the bins it overlaps, so
    /// counts are fractions. Where the last bin is 0 but something lies beyond it, `q` is 0 where `p` is not and `D` is
    /// infinite: that `i` is passed over, nothing is added to smooth it. Zeros count like other values, as in the
    /// procedure.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `bits` is not in 2..=8; [`Empty`](crate::ErrorKind::Empty) when
    /// nothing was seen.
    pub fn entropy(&self, bits: u8) -> Result<Range> {
        if !(2..=8).contains(&bits) {
            return Err(Error::argument("bits", bits, "2 to 8"));
        }
        let seen = self.range()?;
        let width = seen.magnitude() / BINS as f64;
        if width == 0.0 {
            return Ok(seen);
        }
        let counts = self.bins(width);
        let m = best(&counts, 1 << (bits - 1));
        Ok(seen.within((m as f64 + 0.5) * width))
    }

    /// How many magnitudes lie in each bin of so much width.
    fn bins(&self, width: f64) -> Vec<f64> {
        let mut bins = vec![0.0; BINS];
        for bucket in self.buckets() {
            let (near, far) = if bucket.low < 0.0 { (-bucket.high, -bucket.low) } else { (bucket.low, bucket.high) };
            let (near, far, count) = (near / width, far / width, bucket.count as f64);
            let (first, last) = ((near as usize).min(BINS - 1), (far as usize).min(BINS - 1));
            if first == last {
                bins[first] += count;
                continue;
            }
            for (j, bin) in bins.iter_mut().enumerate().take(last + 1).skip(first) {
                let overlap = far.min((j + 1) as f64) - near.max(j as f64);
                *bin += count * overlap.max(0.0) / (far - near);
            }
        }
        bins
    }
}

/// The number of bins, of those from `levels` on, whose divergence is smallest.
fn best(counts: &[f64], levels: usize) -> usize {
    let total: f64 = counts.iter().sum();
    let mut inside: f64 = counts[..levels.min(counts.len())].iter().sum();
    let mut best = (counts.len(), f64::INFINITY);
    for i in levels..=counts.len() {
        let divergence = divergence(&counts[..i], total - inside, levels);
        if divergence < best.1 {
            best = (i, divergence);
        }
        inside += counts.get(i).unwrap_or(&0.0);
    }
    best.0
}

/// `D` of these bins, `beyond` lying outside of them. Infinite where there is nothing in them.
fn divergence(counts: &[f64], beyond: f64, levels: usize) -> f64 {
    let (last, inside) = (counts.len() - 1, counts.iter().sum::<f64>());
    // The whole is inside where the last bin is: differences of sums may leave a rounding error.
    let beyond = if counts.len() == BINS { 0.0 } else { beyond.max(0.0) };
    if inside == 0.0 || (beyond > 0.0 && counts[last] == 0.0) {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for level in 0..levels {
        // The bins j with floor(j * levels / bins) = level.
        let bins = (level * counts.len()).div_ceil(levels)..((level + 1) * counts.len()).div_ceil(levels);
        let own = &counts[bins.clone()];
        let filled = own.iter().filter(|&&count| count > 0.0).count();
        let q = own.iter().sum::<f64>() / filled.max(1) as f64 / inside;
        for (j, &count) in bins.zip(own) {
            let p = (count + if j == last { beyond } else { 0.0 }) / (inside + beyond);
            if p > 0.0 {
                sum += p * libm::log(p / q);
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    /// The procedure as the slides have it, level by level, without sums that are carried on.
    fn plain(counts: &[f64], levels: usize) -> usize {
        let mut divergences = Vec::new();
        for i in levels..=counts.len() {
            let mut p = counts[..i].to_vec();
            p[i - 1] += counts[i..].iter().sum::<f64>();
            let mut q = vec![0.0; i];
            for level in 0..levels {
                let own: Vec<usize> = (0..i).filter(|j| j * levels / i == level && counts[*j] > 0.0).collect();
                let sum: f64 = own.iter().map(|&j| counts[j]).sum();
                own.iter().for_each(|&j| q[j] = sum / own.len() as f64);
            }
            let (p_sum, q_sum): (f64, f64) = (p.iter().sum(), q.iter().sum());
            let terms = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
            let divergence: f64 = terms.map(|(p, q)| p / p_sum * (p / p_sum / (q / q_sum)).ln()).sum();
            divergences.push(if divergence.is_nan() { f64::INFINITY } else { divergence });
        }
        let least = divergences.iter().copied().fold(f64::INFINITY, f64::min);
        levels + divergences.iter().position(|&d| d == least).unwrap()
    }

    #[test]
    fn the_threshold_is_that_of_a_plain_text_of_the_procedure() {
        let mut state = 1u64;
        for levels in [2, 8, 128] {
            for tail in [2.0, 4.0, 30.0] {
                let counts: Vec<f64> = (0..BINS)
                    .map(|j| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let noise = (state >> 40) as f64 / (1u64 << 24) as f64;
                        (1e5 * (1.0 + j as f64 / tail).powf(-2.0) * (0.5 + noise)).floor()
                    })
                    .collect();
                assert_eq!(best(&counts, levels), plain(&counts, levels), "{levels} {tail}");
            }
        }
    }

    #[test]
    fn bins_hold_all_counts() {
        let mut histogram = Histogram::new();
        let x: Vec<f32> = (1..10_000).map(|i| (i as f32 * 0.7).sin() * i as f32).collect();
        histogram.observe(&x).unwrap();
        let bins = histogram.bins(histogram.range().unwrap().magnitude() / BINS as f64);
        assert!((bins.iter().sum::<f64>() - 9999.0).abs() < 1e-6);
        let narrow = Range { min: -1e-3, max: 1e-3 };
        assert_eq!(Range { min: -2e-3, max: 5e-4 }.within(1e-3), Range { max: 5e-4, ..narrow });
        let mut zeros = Histogram::new();
        assert_eq!(zeros.entropy(8).unwrap_err().kind(), ErrorKind::Empty);
        zeros.observe(&[0.0f32]).unwrap();
        assert_eq!(zeros.entropy(8).unwrap(), Range { min: 0.0, max: 0.0 });
        assert!(zeros.entropy(1).is_err() && zeros.entropy(9).is_err());
    }
}
