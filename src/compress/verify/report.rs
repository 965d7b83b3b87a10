//! What differs between the outputs of two models.

use crate::{
    compress::runtime::{Output, Runtime},
    error::{Error, Result},
};
use std::fmt;

/// A place where the largest number of a row is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Changed {
    /// The sample, from 0.
    pub sample: usize,
    /// The row of the output: what its axes but the last count.
    pub row: usize,
    /// Where along the last axis the largest is by the original.
    pub original: usize,
    /// Where it is by the compressed model.
    pub compressed: usize,
}

/// How an output of the compressed model differs from that of the original, over all samples.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OutputReport {
    /// Its name in the model.
    pub name: String,
    /// Its sizes in the first sample.
    pub shape: Vec<usize>,
    /// The largest difference of an element; infinite where a NaN or an infinity is in only one of the models, or nothing is finite.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub max_abs: f64,
    /// `‖original - compressed‖ / ‖original‖`, of 2-norms; 0 where both are the same, else infinite where the original is 0, and where
    /// [`max_abs`](Self::max_abs) is.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub relative: f64,
    /// `original · compressed / (‖original‖ ‖compressed‖)`; 1 where both are the same. NaN where nothing is finite.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub cosine: f64,
    /// Elements that are NaN or infinite in one of the models, which the numbers above leave out: inputs that mean nothing to a model,
    /// as a mask without a place, make them.
    pub non_finite: usize,
    /// Rows along the last axis, of more than one element.
    pub rows: usize,
    /// Rows whose largest element (the first of equal ones) is elsewhere.
    pub changed: Vec<Changed>,
}

impl OutputReport {
    /// The share of rows whose largest element is where it was; 1 where there are no rows.
    #[must_use]
    pub fn argmax_agreement(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.rows.saturating_sub(self.changed.len()) as f64 / self.rows as f64 }
    }
}

/// How a compressed model differs from the original.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Verification {
    /// By the outputs, in the model's order.
    pub outputs: Vec<OutputReport>,
    /// How often both models ran.
    pub samples: usize,
    /// What ran them.
    pub runtime: Runtime,
    /// What of the original was decoded before it ran: the results of `DequantizeLinear` and the codes of `MatMulNBits`.
    pub expanded_original: Vec<String>,
    /// The same of the compressed model.
    pub expanded_compressed: Vec<String>,
}

impl Verification {
    /// The largest [`relative`](OutputReport::relative) difference of an output.
    #[must_use]
    pub fn max_relative(&self) -> f64 {
        self.outputs.iter().map(|output| output.relative).fold(0.0, f64::max)
    }
}

impl fmt::Display for Verification {
    /// A line for each output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| output | shape | largest difference | relative | cosine | not finite | same largest |")?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|")?;
        for output in &self.outputs {
            let OutputReport { name, shape, max_abs, relative, cosine, non_finite, rows, changed } = output;
            let same = rows.saturating_sub(changed.len());
            write!(f, "| {name} | {shape:?} | {max_abs:.2e} | {relative:.2e} | {cosine:.6} ")?;
            writeln!(f, "| {non_finite} | {same} of {rows} |")?;
        }
        let (samples, runtime, original) = (self.samples, self.runtime, self.expanded_original.len());
        let compressed = self.expanded_compressed.len();
        write!(
            f,
            "\n{samples} samples, by {runtime}; decoded before: {original} weights of the original, {compressed} of the other"
        )
    }
}

/// Sums over samples.
pub(in crate::compress) struct Comparison {
    report: OutputReport,
    samples: usize,
    /// Of squares: of the original, of the other, of the difference; and of products.
    sums: [f64; 4],
    /// Elements that are in the sums.
    finite: usize,
    /// Whether something is finite in only one of them, or not the same infinity.
    broken: bool,
}

impl Comparison {
    pub(in crate::compress) fn new(name: &str) -> Self {
        let report = OutputReport {
            name: name.into(),
            shape: Vec::new(),
            max_abs: 0.0,
            relative: 0.0,
            cosine: 1.0,
            non_finite: 0,
            rows: 0,
            changed: Vec::new(),
        };
        Self { report, samples: 0, sums: [0.0; 4], finite: 0, broken: false }
    }

    pub(in crate::compress) fn add(&mut self, sample: usize, want: &Output, got: &Output) -> Result<()> {
        let report = &mut self.report;
        if want.shape != got.shape {
            return Err(Error::shape("output of the compressed model", &want.shape, &got.shape).in_tensor(&report.name));
        }
        if self.samples == 0 {
            report.shape.clone_from(&want.shape);
        }
        self.samples += 1;
        for (&x, &y) in want.values.iter().zip(&got.values) {
            if !(x.is_finite() && y.is_finite()) {
                self.broken |= x.to_bits() != y.to_bits() && !(x.is_nan() && y.is_nan());
                report.non_finite += 1;
                continue;
            }
            self.finite += 1;
            report.max_abs = report.max_abs.max((x - y).abs());
            let [original, other, difference, product] = &mut self.sums;
            *original += x * x;
            *other += y * y;
            *difference += (x - y) * (x - y);
            *product += x * y;
        }
        let width = want.shape.last().copied().unwrap_or(1);
        if width > 1 {
            for (row, (x, y)) in want.values.chunks(width).zip(got.values.chunks(width)).enumerate() {
                let (original, compressed) = (argmax(x), argmax(y));
                report.rows += 1;
                if original != compressed {
                    report.changed.push(Changed { sample, row, original, compressed });
                }
            }
        }
        Ok(())
    }

    pub(in crate::compress) fn finish(self) -> OutputReport {
        let [original, other, difference, product] = self.sums;
        let mut report = self.report;
        let empty = self.finite == 0 && report.non_finite > 0;
        if empty {
            report.cosine = f64::NAN;
        }
        if self.broken || empty {
            (report.max_abs, report.relative) = (f64::INFINITY, f64::INFINITY);
        } else if difference > 0.0 {
            report.relative = (difference / original).sqrt();
        }
        if difference > 0.0 {
            let norms = original.sqrt() * other.sqrt();
            report.cosine = if norms > 0.0 { (product / norms).clamp(-1.0, 1.0) } else { 0.0 };
        }
        report
    }
}

/// The first of the largest; NaN is none.
fn argmax(row: &[f64]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, &x) in row.iter().enumerate() {
        if x > best.1 {
            best = (i, x);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(shape: &[usize], samples: &[(&[f64], &[f64])]) -> OutputReport {
        let mut comparison = Comparison::new("y");
        for (i, (want, got)) in samples.iter().enumerate() {
            let output = |values: &[f64]| Output { shape: shape.into(), values: values.into() };
            comparison.add(i, &output(want), &output(got)).unwrap();
        }
        comparison.finish()
    }

    #[test]
    fn numbers_are_by_their_definitions() {
        let report = compared(&[2, 2], &[(&[3.0, 0.0, 0.0, 4.0], &[3.0, 0.0, 1.0, 0.5]), (&[0.0; 4], &[0.0; 4])]);
        let difference = f64::sqrt(1.0 + 3.5 * 3.5);
        assert_eq!((report.max_abs, report.rows), (3.5, 4));
        assert!((report.relative - difference / 5.0).abs() < 1e-15);
        assert!((report.cosine - 11.0 / (5.0 * f64::sqrt(10.25))).abs() < 1e-15);
        assert_eq!(report.changed, [Changed { sample: 0, row: 1, original: 1, compressed: 0 }]);
        assert_eq!(report.argmax_agreement(), 0.75);
    }

    #[test]
    fn extremes_are_plain() {
        let same = compared(&[2], &[(&[f64::NAN, 1.0], &[f64::NAN, 1.0])]);
        assert_eq!((same.max_abs, same.relative, same.cosine, same.non_finite), (0.0, 0.0, 1.0, 1));
        // Where nothing was compared, nothing is said to agree.
        let none = compared(&[2], &[(&[f64::NAN, f64::INFINITY], &[f64::NAN, f64::INFINITY])]);
        assert!(none.relative == f64::INFINITY && none.cosine.is_nan() && none.non_finite == 2);
        let broken = compared(&[2], &[(&[1.0, 2.0], &[1.0, f64::NAN])]);
        assert_eq!((broken.max_abs, broken.relative), (f64::INFINITY, f64::INFINITY));
        let zero = compared(&[2], &[(&[0.0, 0.0], &[1.0, 0.0])]);
        assert_eq!((zero.relative, zero.cosine), (f64::INFINITY, 0.0));
        assert_eq!(compared(&[], &[(&[1.0], &[1.0])]).rows, 0);
        let mut comparison = Comparison::new("y");
        let output = |shape: &[usize]| Output { shape: shape.into(), values: vec![0.0; 2] };
        assert!(comparison.add(0, &output(&[2]), &output(&[1, 2])).is_err());
    }
}
